"""Processes of this machine, held so that a signal cannot hit another one.

A pid alone names nobody: it may be a process of another host, or of another container, or of a program that was
started since. So a process is told by its *identity* (boot, pid namespace, pid, time of its start), is held by a file
descriptor (pidfd) while it is of interest, and is signalled through that. Where the system has no pidfd or no ``/proc``
nothing is ever held, and whoever asks has to do without.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
BOOT = PROC / "sys/kernel/random/boot_id"


def identity(pid: int) -> str | None:
    """Return what tells a process from all others, on any host, at any time; None when there is none of this pid."""
    try:
        boot, namespace = BOOT.read_text().strip(), (PROC / "self/ns/pid").readlink()
        # The name of the program, in parentheses, may hold anything; the start is the 20th field after it.
        started = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
    return f"{boot} {namespace} {pid} {started}"


class Process:
    """A process that was alive when it was held; signals reach it or nobody."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def is_alive(self) -> bool:
        """Return whether it has not ended yet; a stopped one is alive."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def kill(self) -> None:
        """End it at once (SIGKILL), also when it is stopped; nothing happens when it has ended."""
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended, at most so long; return whether it has."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """Hold it no longer."""
        os.close(self._descriptor)


def hold(pid: int) -> Process | None:
    """Hold the process of this pid; None when there is none, or the system cannot."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return Process(pid, os.pidfd_open(pid))
    except OSError:
        return None


def hold_if(pid: int, known: str | None) -> Process | None:
    """Hold the process of this pid if it is the one of this identity: alive, and of this host."""
    process = hold(pid)
    if process is not None and (known is None or identity(pid) != known):  # held first: it cannot change any more
        process.close()
        return None
    return process


def hold_marked(mark: str) -> list[Process]:
    """Hold every other process of this user that was started with ``mark`` (``NAME=value``) in its environment."""
    found = []
    for pid in sorted(int(entry.name) for entry in PROC.glob("[0-9]*")):
        process = hold(pid) if pid != os.getpid() else None
        if process is None:
            continue
        try:  # held before it is looked at: what is read is of the process that is held
            entries = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or somebody else's
            entries = []
        if mark.encode() in entries:
            found.append(process)
        else:
            process.close()
    return found


def parent_of(pid: int) -> int | None:
    """Return the pid of the parent of a process."""
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def program_of(pid: int) -> str:
    """Return the file name of the program that a process runs; "" when it is gone."""
    try:
        return (PROC / str(pid) / "exe").readlink().name
    except OSError:
        return ""
