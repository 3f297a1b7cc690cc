"""Which processes are ours: told by more than a pid, found by their mark, ended without touching another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cluster import ray_backend, ray_folder
from cluster.messages import WorkerLost, WorkerReady
from cluster.processes import hold, hold_if, identity
from cluster.ray_backend import RayActorError, RayBackend
from cluster.worker import Ready
from farm.values.errors import CapacityError
from farm.values.settings import FarmSettings

SLEEP = [sys.executable, "-c", "import sys, time; print(1, flush=True); time.sleep(600)"]
RUN = """
import subprocess, sys, time
from cluster import ray_folder
folder = ray_folder.make_folder()
guard = ray_folder.Guard(folder)
with ray_folder.marked(folder):
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(folder, left.pid, flush=True)
time.sleep(600)
"""
END_S = 5.0


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, of this machine."""
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # only now is it the program that it will be
        try:
            yield process
        finally:
            process.kill()


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process is gone, a moment later."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_process_is_told_by_host_and_start_as_well_as_by_its_pid() -> None:
    with sleeper() as process:
        known = identity(process.pid)
        assert known is not None
        boot, namespace, pid, started = known.split()
        assert int(pid) == process.pid
        held = hold_if(process.pid, known)
        assert held is not None and held.is_alive()
        other_boot = f"{'0' * len(boot)} {namespace} {pid} {started}"
        other_container = f"{boot} pid:[1] {pid} {started}"
        reused = f"{boot} {namespace} {pid} {int(started) + 1}"
        assert [hold_if(process.pid, each) for each in (other_boot, other_container, reused, None)] == [None] * 4
        held.kill()
        assert has_ended(process) and held.wait(END_S) and not held.is_alive()
        held.kill()  # nobody is hit
        held.close()
    assert identity(process.pid) is None and hold(process.pid) is None


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A backend without a Ray: ``answer`` is what the next call ends with; ``killed`` are the actors that Ray kills."""
    backend: Any = RayBackend("memory:", FarmSettings())
    backend.killed, backend.answer = [], None

    def get(_: object) -> Any:
        if isinstance(backend.answer, Exception):
            raise backend.answer
        return backend.answer

    monkeypatch.setattr(ray_backend.ray, "get", get)
    monkeypatch.setattr(ray_backend.ray, "kill", backend.killed.append)
    backend._actors["w"] = "actor of w"
    backend._pending = {"up": ("ready", "w", None), "gone": ("watch", "w", None)}
    return backend


def test_the_process_of_another_host_is_never_signalled(backend: Any) -> None:
    """A worker elsewhere has the pid that a bystander has here: it is ended through Ray alone."""
    with sleeper() as bystander:
        elsewhere = f"{'0' * 36} pid:[4026531836] {bystander.pid} 1234"
        backend.answer = Ready(bystander.pid, elsewhere, 1, {}, 0.1)
        assert [type(event) for event in backend._events_of("up")] == [WorkerReady]
        assert backend.pids == {"w": bystander.pid}
        backend.stop("w", "for a test")
        assert [type(event) for event in backend.events(0)] == [WorkerLost]
        assert backend.killed == ["actor of w"]
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.3)


@pytest.mark.parametrize("stopped", [False, True])
def test_an_actor_that_ray_calls_dead_is_killed_and_its_process_is_gone(backend: Any, stopped: bool) -> None:
    with sleeper() as process:
        backend.answer = Ready(process.pid, identity(process.pid), 1, {}, 0.1)
        backend._events_of("up")
        if stopped:
            process.send_signal(signal.SIGSTOP)
        backend.answer = RayActorError()
        assert [type(event) for event in backend._events_of("gone")] == [WorkerLost]
        assert has_ended(process)
        assert backend.killed == ["actor of w"]
        assert backend.pids == {} and backend._pending == {}


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the test alone, with a path short enough for the sockets of Unix."""
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


class TestFolder:
    """The folder of a local Ray."""

    def test_is_private_whatever_ray_makes_of_its_own(self, root: Path) -> None:
        folder = ray_folder.make_folder()
        assert folder.parent == root
        (folder / "ray").chmod(0o777)  # as Ray does
        ray_folder.check_private(folder)
        assert folder.stat().st_mode & 0o7777 == 0o700 and folder.stat().st_uid == os.geteuid()
        folder.chmod(0o755)
        with pytest.raises(CapacityError, match=r"open to others: mode 0755.*allowed: a directory of this user"):
            ray_folder.check_private(folder)
        ray_folder.end(folder)
        assert not folder.exists()

    def test_is_not_made_where_others_could_put_theirs(self, root: Path) -> None:
        root.chmod(0o777)
        with pytest.raises(CapacityError, match="other users could put their own folder in place"):
            ray_folder.make_folder()
        assert list(root.iterdir()) == []
        root.chmod(0o1777)  # as /tmp is
        ray_folder.end(ray_folder.make_folder())

    def test_is_where_ray_has_room_for_its_sockets(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In /tmp, when the temporary directory has too long a name."""
        monkeypatch.setattr(tempfile, "tempdir", str(root / "a-directory-with-a-name"))
        (root / "a-directory-with-a-name").mkdir()
        folder = ray_folder.make_folder()
        assert folder.parent == Path("/tmp")
        session = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
        assert len(str(folder / "ray" / session / "sockets" / "plasma_store")) <= 107
        longest = Path("/", "t" * (ray_folder.SOCKET_ROOM - 1))
        assert len(f"{longest}{ray_folder.LONGEST}") == 107
        ray_folder.end(folder)

    def test_ends_its_own_processes_and_no_others(self, root: Path) -> None:
        """Also a stopped one, and those of a run that was killed; a neighbour with a similar folder lives on."""
        mine, neighbours = ray_folder.make_folder(), ray_folder.make_folder()
        with (
            sleeper() as stranger,
            ray_folder.marked(mine),
            sleeper() as one,
            sleeper() as other,
            ray_folder.marked(neighbours),
            sleeper() as neighbour,
        ):
            other.send_signal(signal.SIGSTOP)
            ray_folder.end_stale()
            assert one.poll() is None, "this process is alive, so its folder is not stale"
            ray_folder.end(mine)
            assert has_ended(one) and has_ended(other)
            assert neighbour.poll() is None and stranger.poll() is None
        assert ray_folder.MARK not in os.environ
        ray_folder.end(neighbours)

    def test_what_a_killed_run_has_left_is_ended_by_the_next(self, root: Path) -> None:
        stale = root / f"{ray_folder.PREFIX}{_free_pid()}-x"
        stale.mkdir(0o700)
        with ray_folder.marked(stale), sleeper() as left:
            left.send_signal(signal.SIGSTOP)
            ray_folder.end_stale()
            assert has_ended(left) and not stale.exists()

    def test_what_a_run_leaves_is_ended_at_once_when_it_is_killed(self, root: Path) -> None:
        """By the guard, which is not in the way of Ctrl-C; also what is stopped."""
        with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            folder, pid = run.stdout.readline().split()
            left = hold(int(pid))
            assert left is not None and Path(folder).exists()
            os.kill(left.pid, signal.SIGSTOP)
            assert not left.wait(0.2)
            run.kill()
            assert left.wait(END_S)
            left.close()
        until_s = time.monotonic() + END_S
        while Path(folder).exists():
            assert time.monotonic() < until_s, "the folder stays"
            time.sleep(0.01)


def _free_pid() -> int:
    """A pid that no process has."""
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid
