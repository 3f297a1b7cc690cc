"""Chaos on real processes: a study on a local Ray and a real MinIO, while signals hit whatever it stands on.

A *deck* is a list of faults in the order of a seed: SIGKILL or SIGSTOP of a worker, the driver, the raylet, the GCS,
MinIO. One after another is played while the command runs; a command that ends by a fault is run again, as its user
would. A fault is over when two workers have each ended a block that they began after it; that time is measured and has
a bound. In the end there must be exactly the segments, to the byte, of a run that nobody disturbed.

``python -m tests.cluster.chaos --seed 1 --decks 5`` plays decks until they are through (``make soak``), and prints how
long each recovery took.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from cluster import ray_folder
from cluster.lease import deadline_s
from cluster.processes import Process, hold, program_of
from farm.shard.ingest import ingest_sample
from farm.store.base import Store
from farm.store.open import open_store
from farm.study import plan
from farm.study.block import cut
from farm.work.run import run_in_process, submit
from infra.minio.administer import Administrator
from infra.minio.server import Server
from tests.cluster import chaotic

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "chaos"
BLOCK_COST_US = 3_000
"""Small blocks: many for little work."""

RUN_S_MAX = 300.0
"""No command takes that long; one that does hangs."""


def spec(trials: int) -> dict[str, Any]:
    """A study of ``trials`` x 8 trials on four instruments."""
    cross = [{"i": "sma", "n": "$fast"}, {"i": "sma", "n": "$slow"}]
    sleeve = {
        "id": "x",
        "kind": "rules",
        "universe": "u",
        "side": "long",
        "enter": {"cross_up": cross},
        "exit": {"cross_dn": cross},
        "size": {"mode": "pct_equity", "v": 1.0},
    }
    return {
        "spec": 1,
        "strategy": {
            "params": {"fast": {"int": [2, 1 + trials, 1]}, "slow": {"int": [200, 214, 2]}},
            "universes": [{"id": "u", "tickers": ["AAPL", "GOOG", "IBM", "MSFT"]}],
            "sleeves": [sleeve],
        },
        "run": {"dataset": "main", "start": "2005-01-03", "end": "2012-12-31", "cash": 100000, "costs": {"bps": 10}},
        "study": {"each": {"instrument": "u"}, "search": {"grid": {}}, "objective": {"max": "sharpe"}},
    }


@dataclass(frozen=True)
class Fault:
    """What is hit, how, for how long when it is not for ever, and how long the recovery may take after that."""

    target: str
    how: str
    away_s: float
    bound_s: float
    at_once: bool = False
    """Strikes before all is well again after the one before."""

    @property
    def ends_the_command(self) -> bool:
        return self.how == "kill" and self.target in ("driver", "raylet", "gcs_server")

    def __str__(self) -> str:
        return f"{self.how} {self.target}" + (f" for {self.away_s:.1f} s" if self.away_s else "")


START_S = 20.0
"""The command ends, and a new one plans, starts Ray and two workers, and goes on."""
FAULTS: Mapping[tuple[str, str], float] = {
    ("worker", "kill"): 5.0,
    ("worker", "stop"): 5.0,  # after the deadline of its lease
    ("driver", "kill"): START_S,
    ("driver", "pause"): 5.0,
    ("raylet", "kill"): START_S,
    ("raylet", "pause"): 5.0,
    ("gcs_server", "kill"): START_S + 10.0,  # Ray looks for it for 7 s before it lets the command end
    ("gcs_server", "pause"): 5.0,
    ("minio", "kill"): 10.0,
    ("minio", "pause"): 10.0,
}


def make_deck(kinds: Sequence[tuple[str, str]], chance: random.Random, at_once: float = 0.0) -> list[Fault]:
    """Return faults of these kinds in the order of chance, so many of them at once with the one before."""
    attempt = 3 if at_once else 1  # that of a lease which hangs: a block may have been hit before
    expected_s = 2 * chaotic.BLOCK_S
    deck = []
    for kind in chance.sample(kinds, len(kinds)):
        away_s = chance.uniform(0.5, 2.0)
        is_over = kind[1] == "pause" or kind[0] == "minio"
        bound_s = FAULTS[kind]
        if kind == ("worker", "stop"):
            bound_s += deadline_s(0.0, expected_s, expected_s, attempt, chaotic.LIMITS)
        deck.append(Fault(*kind, away_s if is_over else 0.0, bound_s, chance.random() < at_once))
    return deck


@dataclass
class Recovery:
    """How long it took until all was well again after a fault, or after several at once."""

    faults: tuple[Fault, ...]
    took_s: float


@dataclass
class World:
    """A bucket with a study in it, the segments it should end with, and the commands that were run."""

    server: Server
    folder: Path
    store: Store
    spec: Mapping[str, Any]
    expected: Mapping[str, bytes]
    blocks: int
    attempts_max: str = "-"
    poison: int | None = None
    commands: int = 0
    recoveries: list[Recovery] = field(default_factory=list)

    @contextmanager
    def command(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the command of the user; what it has started is gone in the end, whatever happens here."""
        self.commands += 1
        file = self.folder / "spec.json"
        file.write_text(json.dumps(self.spec))
        named = {chaotic.FOLDER: str(self.folder)} | (
            {chaotic.POISON: str(self.poison)} if self.poison is not None else {}
        )
        with (self.folder / f"command-{self.commands}.err").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.chaotic", self.store.url, str(file), self.attempts_max],
                cwd=ROOT,
                env=os.environ | named,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            until_s = time.monotonic() + 10
            while (left := ray_folders(process.pid)) and time.monotonic() < until_s:
                time.sleep(0.05)
            for folder in left:
                ray_folder.end(folder)
            assert not left, "the guard ends what a killed command has started"

    def errors(self) -> str:
        """What the last command said."""
        return (self.folder / f"command-{self.commands}.err").read_text(errors="replace")[-2000:]

    def segments(self) -> dict[str, bytes]:
        return segments(self.store)

    def ended(self) -> dict[int, float]:
        """When each worker process has last ended a block."""
        files = (self.folder / "workers").glob("[0-9]*")
        return {int(file.name): float(file.read_text()) for file in files}

    def is_whole(self, since_s: float, without: Collection[int] = ()) -> bool:
        """Whether two workers that are none of these have each ended a block that they began after ``since_s``."""
        at_s = since_s + chaotic.BLOCK_S
        return sum(ended > at_s and pid not in without for pid, ended in self.ended().items()) >= 2


def ray_folders(pid: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{ray_folder.PREFIX}{pid}-*"))


def segments(store: Store) -> dict[str, bytes]:
    """All result segments, by key."""
    return {meta.key: store.get(meta.key) for meta in store.list("results/") if meta.key.endswith(".parquet")}


def processes(command: int) -> dict[str, list[Process]]:
    """The processes of a command, by what they are."""
    found: dict[str, list[Process]] = {"driver": [], "raylet": [], "gcs_server": [], "worker": []}
    driver = hold(command)
    found["driver"] += [driver] if driver is not None else []
    for folder in ray_folders(command):
        for process in ray_folder.processes_of(folder):
            try:
                line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            except OSError:
                line = b""
            name = "worker" if line.startswith(b"ray::Worker") else program_of(process.pid)
            found.get(name, []).append(process)
    return found


def strike(
    world: World, fault: Fault, command: subprocess.Popen[bytes], chance: random.Random
) -> tuple[float, set[int]] | None:
    """Do it; return when it was done, or was over, and the workers that it ends; None when there is nothing to hit."""
    working = set(world.ended())
    if fault.target == "minio":
        pid = world.server.pid
        assert pid is not None
    else:
        found = {process.pid for process in processes(command.pid)[fault.target]}
        candidates = sorted(found & working if fault.target == "worker" else found)
        if not candidates:
            return None
        pid = chance.choice(candidates)
    if fault.how == "pause":
        os.kill(pid, signal.SIGSTOP)
        time.sleep(fault.away_s)
        os.kill(pid, signal.SIGCONT)
        return time.time(), set()
    os.kill(pid, signal.SIGKILL if fault.how == "kill" else signal.SIGSTOP)
    if fault.target == "minio":
        world.server.stop()
        time.sleep(fault.away_s)
        world.server.start()
        return time.time(), set()
    return time.time(), {pid} if fault.target == "worker" else working


def play(world: World, deck: Sequence[Fault], chance: random.Random, tell: Callable[[str], None]) -> None:
    """Play the deck while the study runs, then let it run to its end. AssertionError: it does not recover in time."""
    (world.folder / "dawdle").touch()
    waiting = list(deck)
    struck: list[Fault] = []
    gone: set[int] = set()
    since_s = next_s = started_s = time.time()
    first_s = 0.0
    while True:
        with world.command() as command:
            until_s = time.monotonic() + RUN_S_MAX
            while command.poll() is None:
                assert time.monotonic() < until_s, f"the command hangs:\n{world.errors()}"
                now_s = time.time()
                if struck and struck[-1].target == "worker" and world.is_whole(since_s, gone):
                    left = [pid for pid in gone if _is_alive(pid)]
                    assert not left, f"whoever replaced workers {left} is at work, and they live on"
                if struck and world.is_whole(since_s, gone) and not any(map(_is_alive, gone)):
                    world.recoveries.append(Recovery(tuple(struck), now_s - since_s))
                    tell(f"{' and '.join(map(str, struck))}: all is well after {now_s - since_s:.1f} s")
                    struck, gone, next_s = [], set(), now_s + chance.uniform(0.0, 0.5)
                elif struck:
                    # A first start is the measure of a next one, where it alone takes nearly as long as is allowed.
                    bound_s = sum(
                        max(fault.bound_s, first_s + 10.0 if fault.ends_the_command else 0.0) for fault in struck
                    )
                    assert now_s - since_s <= bound_s, f"all is not well {bound_s:.1f} s after {struck}"
                is_well = not struck and now_s >= next_s and world.is_whole(started_s)
                if is_well and not first_s:
                    first_s = now_s - started_s
                if waiting and (is_well or (struck and waiting[0].at_once)):
                    hit = strike(world, waiting[0], command, chance)
                    if hit is not None:
                        struck.append(waiting.pop(0))
                        since_s, gone = hit[0], gone | hit[1]
                if not waiting and not struck:
                    (world.folder / "dawdle").unlink(missing_ok=True)
                time.sleep(0.02)
        if command.returncode == 0:
            break
        assert any(fault.ends_the_command for fault in struck), f"{struck} ended the command:\n{world.errors()}"
        tell(f"{struck[-1]}: the command ended with {command.returncode} after {time.time() - since_s:.1f} s")
    assert not waiting, f"the study ended before {', '.join(map(str, waiting))}"


def _is_alive(pid: int) -> bool:
    process = hold(pid)
    if process is None:
        return False
    try:
        return process.is_alive()
    finally:
        process.close()


@contextmanager
def make_world(folder: Path, trials: int) -> Iterator[World]:
    """Start MinIO, put data and the study into it, and compute undisturbed in a directory what should come of it."""
    before = dict(os.environ)
    (folder / "workers").mkdir(parents=True)
    with Server(folder / "minio") as server:
        Administrator(server.endpoint, server.access_key, server.secret_key, server.region).make_bucket(BUCKET)
        os.environ.update(server.environment())
        try:
            store, plain = open_store(f"s3://{BUCKET}/farm"), open_store(str(folder / "plain"))
            small = functools.partial(cut, block_cost_us=BLOCK_COST_US)
            with mock.patch.object(plan, "cut", small):  # blocks are those of whoever stores the study
                for each in (store, plain):
                    ingest_sample(each, "main")
                undisturbed = run_in_process(spec(trials), plain)
                blocks = len(submit(spec(trials), store).waiting)
            assert blocks == len(undisturbed.study.blocks)
            yield World(server, folder, store, spec(trials), segments(plain), blocks)
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--decks", type=int, default=3, help="each has every kind of fault twice (%(default)d)")
    options = parser.parse_args()
    took: dict[str, list[float]] = {}
    for seed in range(options.seed, options.seed + options.decks):
        chance = random.Random(seed)
        print(f"chaos: seed {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="farm-chaos-") as folder, make_world(Path(folder), 50) as world:
            play(world, make_deck(list(FAULTS) * 2, chance, 0.3), chance, lambda line: print(f"  {line}", flush=True))
            assert world.segments() == world.expected, "other results than those of an undisturbed run"
            print(f"  {world.blocks} blocks as undisturbed, {world.commands} commands", flush=True)
            for each in world.recoveries:
                name = f"{each.faults[0].how} {each.faults[0].target}" if len(each.faults) == 1 else "several at once"
                took.setdefault(name, []).append(each.took_s)
    for name, seconds in sorted(took.items()):
        print(
            f"{name:20} {len(seconds)} times, median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
