"""The folder of a local Ray: private to its user, marked on every process of that Ray, gone when the Ray is.

    <temporary directory>/farm-ray-<pid>-<random>/    0700: nobody else gets in
        ray/                                          Ray's own; Ray opens it to everybody (0777)

Ray's processes carry the folder in their environment, so that they are found, and ended one by one. When the process
that had started them is gone, however it went, a *guard* does that: a process of its own that waits for nothing else.
Without it workers live on for 3 s, a stopped one for ever, and Ray's agents for the minute in which a GCS could come
back. Ray is never asked to end all it finds on the machine.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.processes import Process, hold_marked
from farm.values.errors import CapacityError

PREFIX = "farm-ray-"
MARK = "FARM_RAY_FOLDER"

LONGEST = "/farm-ray-4194304-abcdefgh/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SOCKET_ROOM = 107 - len(LONGEST)
"""Longest temporary directory under which the paths of Ray's sockets stay within the 107 bytes of Unix."""

END_S = 5.0
"""How long a killed process may take to be gone."""


def make_folder() -> Path:
    """Return a new folder that only this user can look into. Errors: CapacityError when it could be taken away."""
    root = _root()
    found = root.stat()
    is_open = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if is_open or found.st_uid not in (0, os.geteuid()):
        raise CapacityError(
            "other users could put their own folder in place of Ray's",
            place=str(root),
            allowed="a directory of yours, or one with the sticky bit",
            hint="set TMPDIR to a directory of your own",
        )
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
    check_private(folder)
    (folder / "ray").mkdir()
    return folder


def check_private(folder: Path) -> None:
    """Raise CapacityError unless the folder is a directory of this user that nobody else may enter."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise CapacityError(
            f"the folder of the local Ray is open to others: mode {stat.S_IMODE(found.st_mode):04o}",
            place=str(folder),
            allowed="a directory of this user, mode 0700",
            hint="set TMPDIR to a directory of your own",
        )


@contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Let every process that is started meanwhile carry the folder in its environment, and keep it readable there."""
    # A process that gives itself a title writes it over its environment, unless the second one is set.
    added = {MARK: str(folder), "SPT_NOENV": "1"}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Guard:
    """Ends the Ray of a folder as soon as this process is gone."""

    def __init__(self, folder: Path) -> None:
        # It holds the other end of a pipe that only this process can close, and hears no Ctrl-C of a terminal.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.ray_folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it end what is left, and itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(3 * END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def processes_of(folder: Path) -> list[Process]:
    """Hold all processes of the Ray of this folder that are alive."""
    return hold_marked(f"{MARK}={folder}")


def end(folder: Path) -> None:
    """Kill what is left of the Ray of this folder, stopped processes too, and remove the folder."""
    for _ in range(2):  # again: one may have started another in that moment
        left = processes_of(folder)
        for process in left:
            process.kill()
        for process in left:
            process.wait(END_S)
            process.close()
    shutil.rmtree(folder, ignore_errors=True)


def end_stale() -> None:
    """End what runs of this user that were killed have left behind: their processes, and their folders."""
    for folder in _root().glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):
            if pid.isdigit() and not Path(f"/proc/{pid}").exists() and folder.lstat().st_uid == os.geteuid():
                end(folder)


def _root() -> Path:
    root = tempfile.gettempdir()
    return Path(root if len(root) <= SOCKET_ROOM else "/tmp")


if __name__ == "__main__":  # the guard
    sys.stdin.read()
    end(Path(sys.argv[1]))
