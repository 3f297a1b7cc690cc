"""``python -m infra.demo [--minio]``: everything from nothing, by the commands a user would type.

    1. ingest the real daily bars of the sample into a store (a directory, or a bucket of a MinIO on loopback)
    2. run the study of ``study.json`` on a local farm of two workers: 400 trials on five tickers
    3. run the winner once more, in this process, with nothing taken from the catalog: the same fingerprint
    4. write the report

Each step prints its command line. All that is made lies in ``demo-out/``; a second run finds every cell there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from farm.values.errors import FarmError

STUDY = Path(__file__).with_name("study.json")
BUCKET = "farm-demo"
WORKERS = 2
COMMAND_SECONDS_MAX = 600.0
BOLD, DIM, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


class DemoFailed(FarmError):
    """A step of the demo did not do what it promises."""


class Console:
    """Prints the steps; colours only on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()

    def say(self, text: str = "", style: str = "") -> None:
        print(f"{style}{text}{PLAIN}" if style and self._colour else text, flush=True)

    def step(self, number: int, text: str) -> None:
        self.say(f"\n{number}. {text}", BOLD)

    def command(self, arguments: Sequence[str]) -> None:
        self.say("$ farm " + shlex.join(arguments), DIM)


class Farm:
    """The console command ``farm`` of this environment, on one store."""

    def __init__(self, console: Console, environment: Mapping[str, str]) -> None:
        self._console = console
        self._environment = {**os.environ, **environment}

    def show(self, *arguments: str) -> None:
        """Run a command that people read. Errors: DemoFailed when it exits non-zero."""
        self._console.command(arguments)
        self._run(arguments, capture=False)

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Return the JSON document of a command."""
        answer: dict[str, Any] = json.loads(self._run((*arguments, "--json"), capture=True))
        return answer

    def _run(self, arguments: Sequence[str], *, capture: bool) -> str:
        command = [sys.executable, "-m", "cluster.cli", *arguments]
        done = subprocess.run(
            command,
            env=self._environment,
            stdout=subprocess.PIPE if capture else None,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            raise DemoFailed(f"farm {shlex.join(arguments)} ended with exit code {done.returncode}", place="demo")
        return done.stdout or ""


@contextlib.contextmanager
def directory_store(out: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a store in a plain directory."""
    yield {"FARM_STORE": os.path.relpath(out / "store")}


@contextlib.contextmanager
def minio_store(out: Path, console: Console) -> Iterator[dict[str, str]]:
    """Yield the environment of a bucket on a MinIO of our own, which ends with the demo; the data stay."""
    from infra.minio.administer import Administrator
    from infra.minio.server import Server

    with Server(out / "minio") as server:
        administrator = Administrator(server.endpoint, server.access_key, server.secret_key, server.region)
        administrator.make_bucket(BUCKET)
        user, secret = "farm-demo", secrets.token_urlsafe(24)
        administrator.make_user(user, secret, "owner", BUCKET)
        console.say(f"MinIO on {server.endpoint}, bucket {BUCKET}, user {user}", DIM)
        yield {"FARM_STORE": f"s3://{BUCKET}/demo", **server.environment(user, secret)}


def demo(out: Path, *, minio: bool) -> None:
    """Run the four steps. Errors: DemoFailed, or whatever a step reports."""
    console = Console()
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with minio_store(out, console) if minio else directory_store(out) as environment:
        farm = Farm(console, environment)
        console.say(f"The store is {environment['FARM_STORE']}")

        console.step(1, "Real daily bars of five companies go into the store")
        farm.show("ingest", "sample")

        console.step(2, f"A local farm of {WORKERS} workers runs a study: an SMA cross, 400 trials on five tickers")
        farm.show("run", os.path.relpath(STUDY), "--workers", str(WORKERS))

        console.step(3, "The winner once more: in this process, alone, nothing taken from the catalog")
        again = ("run", os.path.relpath(STUDY), "--trial", "best", "--fresh")
        console.command(again)
        alone = farm.ask(*again)["trials"][0]
        study = farm.ask("results", os.path.relpath(STUDY))
        winner = next(trial for trial in study["trials"] if trial["params"] == alone["params"])
        console.say(f"  in the study  {winner['fingerprint']}")
        console.say(f"  alone         {alone['fingerprint']}")
        if alone["fingerprint"] != winner["fingerprint"] or alone["key"] != winner["key"]:
            raise DemoFailed("the winner alone is not the winner of the study", place="demo")
        console.say("  the same to the bit", GREEN)

        console.step(4, "The report")
        farm.show("report", os.path.relpath(STUDY), "--output", os.path.relpath(out / "report.html"))
    console.say(f"\nDone in {time.monotonic() - started:.0f} s. Run it again: every cell is in the catalog.", BOLD)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--minio", action="store_true", help="use a real MinIO bucket instead of a directory")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where everything goes (default demo-out)")
    arguments = parser.parse_args()
    try:
        demo(arguments.out, minio=arguments.minio)
    except FarmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; finished work is kept, the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
