"""Workers as Ray actors, and a local Ray of our own to run them on.

Rules: Ray starts processes and carries messages, nothing more. No retries of its own (``max_restarts=0``,
``max_task_retries=0``): the scheduler owns them. What Ray raises becomes an event in one place, ``_event_of``. Each
actor has one call that never returns; when it fails, the actor is gone. Only our own processes are ever ended.

The local Ray is what ``ray.init`` starts, in a folder of its own (``cluster/ray_folder.py``), and listens on loopback
only; since others may be logged in on this machine too, it asks for a token, a random one. Its processes die with this
one, also when this one is killed: what Ray leaves is ended by pid.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from cluster import ray_folder
from cluster.messages import Event, LeaseCrashed, LeaseEnded, RunLease, WorkerLost, WorkerReady
from cluster.processes import Process, hold_if, parent_of, program_of
from cluster.submission import members
from farm.values.errors import BlockFailed, CapacityError, FarmError
from farm.values.settings import MIB, FarmSettings

# Before Ray is imported: it reads these once.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_MODE", "token")
if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # hide no accelerator; and do not warn about it
# No cluster of several machines: the address of a node is 127.0.0.1, and its ports listen there only. Without it Ray
# turns even an explicit 127.0.0.1 into the address of the machine, and listens on every interface.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
# Ray would print the death of a worker to standard output, where the document of the run belongs.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.worker import MakeRunner, Worker, farm_runner
from farm.kernels.cache import prepare

# Ray's types are missing in places, or wrong.
_ray: Any = ray

OBJECT_STORE_BYTES = 80 * MIB
"""Nothing large travels through Ray; 75 MiB is its minimum."""

CORE = ("gcs_server", "raylet")
"""Programs that a local Ray cannot be without."""


class LocalRay:
    """A Ray on this machine, ours alone, from ``__enter__`` to ``__exit__``."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._folder: Path | None = None
        self._core: dict[str, Process] = {}
        self._guard: ray_folder.Guard | None = None

    def __enter__(self) -> LocalRay:
        if ray.is_initialized():
            raise CapacityError("a Ray is in use in this process already", hint="one farm at a time per process")
        ray_folder.end_stale()
        prepare()  # the workers start all at once, and each would want to compile the kernels
        folder = self._folder = ray_folder.make_folder()
        self._guard = ray_folder.Guard(folder)
        try:
            with ray_folder.marked(folder):
                _ray.init(
                    address="local",
                    num_cpus=self._workers,  # as many processes are started ahead
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder / "ray"),
                    _system_config={"preload_python_modules": ["cluster.preload"]},
                )
        except (RayError, OSError, RuntimeError, ValueError) as error:
            self.__exit__()
            raise CapacityError(f"a local Ray does not start: {error}", place=str(folder)) from error
        for process in ray_folder.processes_of(folder):
            name = program_of(process.pid)
            if name in CORE and parent_of(process.pid) == os.getpid():
                self._core[name] = process
            else:
                process.close()
        return self

    def check(self) -> None:
        """Raise CapacityError when one of Ray's own processes has died: nothing would come of waiting."""
        for name, process in self._core.items():
            if not process.is_alive():
                raise CapacityError(
                    f"{name} of the local Ray died",
                    place=f"process {process.pid}",
                    hint="run the same command again; finished blocks are kept",
                )

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        for process in self._core.values():
            process.close()
        self._core.clear()
        if self._folder is not None:
            ray_folder.end(self._folder)
            self._folder = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None


class RayBackend:
    """The ``Backend`` whose workers are Ray actors. ``check`` raises when there is no Ray any more."""

    def __init__(
        self,
        store_url: str,
        settings: FarmSettings,
        make_runner: MakeRunner = farm_runner,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._check = check
        self._arguments = (store_url, settings, make_runner)
        self._actor = _ray.remote(
            num_cpus=0,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"work": settings.threads, "control": 2},
        )(Worker)
        self._actors: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
        self._processes: dict[str, Process] = {}
        self._pending: dict[Any, tuple[Literal["ready", "watch", "run"], str, RunLease | None]] = {}
        self._said: list[Event] = []

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the workers that are ready."""
        return dict(self._pids)

    def now_s(self) -> float:
        return time.monotonic()

    def start(self, worker: str) -> None:
        actor = self._actor.remote(*self._arguments)
        self._actors[worker] = actor
        self._pending[actor.ready.options(concurrency_group="control").remote()] = "ready", worker, None
        self._pending[actor.watch.options(concurrency_group="control").remote()] = "watch", worker, None

    def stop(self, worker: str, why: str) -> None:
        if worker in self._actors:
            self._said += self._lost(worker, BlockFailed(why, place=f"worker {worker}"))

    def run(self, lease: RunLease) -> None:
        actor = self._actors.get(lease.worker)
        if actor is None:
            return  # its loss is on the way
        call = actor.run.options(concurrency_group="work")
        self._pending[call.remote(lease.lease, lease.study, tuple(members(lease.blocks)))] = "run", lease.worker, lease

    def cancel(self, worker: str, lease: str) -> None:
        actor = self._actors.get(worker)
        if actor is not None:
            actor.cancel.options(concurrency_group="control").remote(lease)

    def events(self, timeout_s: float) -> Sequence[Event]:
        self._check()
        if not self._said:
            self._said += self._collect(timeout_s)
        events, self._said = self._said, []
        return events

    def _collect(self, timeout_s: float) -> list[Event]:
        if not self._pending:
            time.sleep(min(timeout_s, 0.05))
            return []
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if done:  # what else has come meanwhile
            done, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return [event for call in done for event in self._events_of(call)]

    def _events_of(self, call: Any) -> list[Event]:
        """Turn the end of a call into events: the one table of what Ray raises."""
        if call not in self._pending:
            return []  # its worker was found lost a moment ago, and it was looked at then
        kind, worker, lease = self._pending.pop(call)
        now_s = self.now_s()
        try:
            value = ray.get(call)
        except RayTaskError as error:
            named = _named(error, worker)
            if lease is not None:
                return [LeaseCrashed(now_s, worker, lease.lease, lease.study, named)]
            return self._lost(worker, named)
        except RayActorError as error:
            reason = str(error).strip().splitlines()[0]
            return self._lost(worker, BlockFailed(f"the worker died: {reason}", place=f"worker {worker}"))
        except RayError as error:
            named = BlockFailed(f"{type(error).__name__}: {error}", place=f"worker {worker}")
            return self._lost(worker, named)
        if kind == "ready":
            self._pids[worker] = value.pid
            process = hold_if(value.pid, value.identity)
            if process is not None:
                self._processes[worker] = process
            return [WorkerReady(now_s, worker, value.slots, value.holdings)]
        assert lease is not None, "watch never returns"
        return [LeaseEnded(now_s, worker, lease.lease, lease.study, value.reports, value.holdings)]

    def _lost(self, worker: str, error: FarmError) -> list[Event]:
        """End a worker, whatever Ray says of it, and forget it and all its calls but those that it has answered.

        Ray calls an actor dead when it cannot be reached; its process may live, and write, for as long as it likes.
        """
        process = self._processes.pop(worker, None)
        if process is not None:
            process.kill()  # a stopped process does not hear Ray
            process.close()
        actor = self._actors.pop(worker, None)
        if actor is None:
            return []  # it was found lost among its own answers
        with suppress(RayError):
            ray.kill(actor)
        self._pids.pop(worker, None)
        calls = [call for call, (_, other, _) in self._pending.items() if other == worker]
        leases = [call for call in calls if self._pending[call][0] == "run"]
        answered = ray.wait(leases, num_returns=len(leases), timeout=0)[0] if leases else []
        events = [event for call in answered for event in self._events_of(call)]
        for call in calls:
            self._pending.pop(call, None)
        return [*events, WorkerLost(self.now_s(), worker, error)]


def _named(error: RayTaskError, worker: str) -> FarmError:
    """Return the typed error that a call ended with; one without a name of ours keeps its own in the text."""
    cause = error.cause
    if isinstance(cause, FarmError):
        return cause
    return BlockFailed(f"{type(cause).__name__}: {cause}", place=f"worker {worker}", hint="this is a bug of the farm")
