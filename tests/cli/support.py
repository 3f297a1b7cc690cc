"""What the tests of the command line share: running ``farm``, looking at stores, small files and specs.

``Console.__call__`` runs a command in this process through ``cluster.cli.main``, with its own standard streams;
``Console.process`` runs the installed console command as a process of its own, which is what a test needs that is
about signals, limits of the process, or real pipes. Both give the same ``Done``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from cluster.cli import main
from farm.columns import process as columns_process
from farm.shard import kept

COMMAND = Path(sys.executable).with_name("farm")
SECONDS_MAX = 120.0
HEADER = "symbol,ts,open,high,low,close,volume"
BARS = ("--tz", "America/New_York", "--stamp", "start")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output, which ends with a newline and holds nothing else."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The one error on standard error of a command with ``--json``."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        found: dict[str, str] = json.loads(self.err)
        assert set(found) == {"error", "message", "place", "allowed", "hint"}
        return found


@dataclass(frozen=True)
class Console:
    """The command ``farm`` on one store."""

    store: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def _own(self) -> dict[str, str]:
        return {"FARM_STORE": self.store, **self.environment}

    def __call__(self, *arguments: object, stdin: str = "") -> Done:
        """Run a command in this process, which has forgotten what earlier ones have read."""
        out, err = io.StringIO(), io.StringIO()
        kept.forget()
        with (
            mock.patch.dict(os.environ, self._own),
            mock.patch.object(columns_process, "_cache", None),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main([str(argument) for argument in arguments])
                code = 0
            except SystemExit as ending:
                code = int(ending.code or 0)
        return Done(code, out.getvalue(), err.getvalue())

    def document(self, *arguments: object) -> Any:
        """Return the document of a command that succeeds."""
        done = self(*arguments, "--json")
        assert done.code == 0, done.err
        return done.document

    def process(
        self,
        *arguments: object,
        stdin: str = "",
        limit: Callable[[], None] | None = None,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
    ) -> Done:
        """Run a command as a process; ``limit`` is called in it before it begins."""
        done = subprocess.run(
            [str(COMMAND), *map(str, arguments)],
            input=stdin,
            env={**os.environ, **self._own},
            stdout=stdout,
            stderr=stderr,
            preexec_fn=limit,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return Done(done.returncode, done.stdout or "", done.stderr or "")

    @contextlib.contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """Yield a command that runs; it is killed at the end if it still does."""
        child = subprocess.Popen(
            [str(COMMAND), *map(str, arguments)],
            env={**os.environ, **self._own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.communicate()


def refused(done: Done, code: int, *said: str) -> str:
    """Check that a command ended with one clear error for people, and with nothing else; return its text.

    ``said``: what the text must hold. An error has one line that begins with ``error:``, then at most what is allowed
    and a hint; it never shows the inside of the program.
    """
    assert done.code == code, (done.code, done.err)
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if not line.startswith(("━", "╌"))]
    assert lines[0].startswith("error: "), done.err
    assert all(line.startswith(("  allowed: ", "  hint: ")) for line in lines[1:]), done.err
    assert len(lines) <= 3
    assert lines[-1].startswith(("  hint: ", "  allowed: ")), "an error without any advice"
    for inside in ("Traceback", "Errno", " object at 0x", "Exception"):
        assert inside not in done.err
    for text in said:
        assert text in done.err, (text, done.err)
    return "\n".join(lines)


def listing(folder: Path) -> dict[str, str]:
    """Return every file below ``folder`` with the SHA-256 of what is in it; folders are not counted."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def one(folder: Path, pattern: str) -> Path:
    """Return the largest file of a store that matches."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_size)


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit of a file; ``at`` is the place as a share of its length."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(data)


def truncate(path: Path, share: float = 0.6) -> None:
    """Cut off the end of a file."""
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def write_csv(path: Path, rows: Iterable[str], header: str = HEADER) -> Path:
    """Write a CSV file."""
    path.write_text("\n".join([header, *rows, ""]))
    return path


def write_spec(path: Path, spec: Any) -> Path:
    """Write a spec."""
    path.write_text(json.dumps(spec))
    return path
