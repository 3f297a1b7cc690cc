"""Workers as Ray actors, and a local Ray of our own to run them on.

Rules: Ray starts processes and carries messages, nothing more. No retries of its own (``max_restarts=0``,
``max_task_retries=0``): the scheduler owns them. What Ray raises becomes an event in one place, ``_event_of``. Each
actor has one call that never returns; when it fails, the actor is gone. Only our own processes are ever ended.

The local Ray is as small as it gets: no dashboard, no autoscaler, no log monitor, its own temporary folder, which goes
when it goes. Its processes die with this one, also when this one is killed (Linux: PR_SET_PDEATHSIG, by Ray itself).
Ray's ports listen on every interface, so even a local Ray asks for a token, a random one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from cluster.messages import Event, LeaseCrashed, LeaseEnded, RunLease, WorkerLost, WorkerReady
from cluster.submission import members
from farm.values.errors import BlockFailed, CapacityError, FarmError
from farm.values.settings import MIB, FarmSettings

# Before Ray is imported: it reads these once.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_MODE", "token")
if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # hide no accelerator; and do not warn about it

import ray
import ray._raylet
from ray._private import node, services, state, worker
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.worker import MakeRunner, Worker, farm_runner
from farm.kernels.cache import prepare

# What of Ray has no types, or wrong ones.
_ray: Any = ray
_raylet: Any = ray._raylet
_node: Any = node
_services: Any = services
_state: Any = state
_worker: Any = worker

OBJECT_STORE_BYTES = 80 * MIB
"""Nothing large travels through Ray; 75 MiB is its minimum."""

FOLDER = "farm-ray-"
PORTS_OF_AGENTS = {
    "metrics_agent_port": -1,
    "metrics_export_port": -1,
    "dashboard_agent_listen_port": -1,
    "runtime_env_agent_port": 9,
}
"""What the agents would say of themselves: not in use; 9 is the port that discards."""

START_S = 30.0

SOCKET_ROOM = 40
"""Longest temporary folder under which Ray's socket paths stay within the 107 bytes of Unix."""


class LocalRay:
    """A Ray on this machine, ours alone, from ``__enter__`` to ``__exit__``."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._folder: Path | None = None

    def __enter__(self) -> LocalRay:
        if ray.is_initialized():
            raise CapacityError("a Ray is in use in this process already", hint="one farm at a time per process")
        _remove_stale_folders()
        prepare()  # the workers start all at once, and each would want to compile the kernels
        root = tempfile.gettempdir()
        folder = self._folder = Path(
            tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=root if len(root) <= SOCKET_ROOM else "/tmp")
        )
        try:
            with _small_node(folder):
                _ray.init(
                    address="local",
                    num_cpus=self._workers,  # as many processes are started ahead
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder),
                    _node_ip_address="127.0.0.1",
                    _system_config={"preload_python_modules": ["cluster.preload"]},
                )
        except (RayError, OSError, RuntimeError, ValueError) as error:
            self.__exit__()
            raise CapacityError(f"a local Ray does not start: {error}", place=str(folder)) from error
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


AGENT = """\
# Stands in for an agent of Ray that this Ray has no use for; the raylet would not go on without one.
while kill -0 "$RAY_RAYLET_PID" 2>/dev/null; do sleep 0.5; done
"""


@contextmanager
def _small_node(folder: Path) -> Iterator[None]:
    """Let ``ray.init`` start what a local farm needs and nothing else: 2 of 7 processes, and half of the time.

    Left out are the autoscaler, the log monitor, the dashboard and its agent, and the agent that makes runtime
    environments: no worker here has one. Ray has no public switches for these; version 2.60 is pinned, and with another
    one this is to be looked at again.
    """
    whole, command_of = _node.Node, _services._build_python_executable_command_memory_profileable
    listen = _worker.listen_error_messages
    agent = folder / "agent.sh"
    agent.write_text(AGENT)

    class SmallNode(whole):  # type: ignore[misc, valid-type]
        def __init__(self, ray_params: Any, **options: Any) -> None:
            ray_params.no_monitor = True
            ray_params.include_log_monitor = False
            super().__init__(ray_params, **options)

        def start_api_server(self, **_: Any) -> None:
            self._webui_url = ""

        def start_ray_processes(self) -> None:
            for name, port in PORTS_OF_AGENTS.items():
                _raylet.persist_port(self._session_dir, self._node_id, name, port)
            super().start_ray_processes()
            _wait_for_node(self.gcs_address)

    def command(component: str, *arguments: Any, **options: Any) -> Any:
        if "agent" in component:
            return ["/bin/sh", str(agent)]
        return command_of(component, *arguments, **options)

    _node.Node, _services._build_python_executable_command_memory_profileable = SmallNode, command
    # Ray would print the death of a worker to standard output, where the document of the run belongs.
    _worker.listen_error_messages = lambda worker, threads_stopped: None
    try:
        yield
    finally:
        _node.Node, _services._build_python_executable_command_memory_profileable = whole, command_of
        _worker.listen_error_messages = listen


def _remove_stale_folders() -> None:
    """Remove what killed runs of this user have left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        with suppress(OSError):
            if pid.isdigit() and not Path(f"/proc/{pid}").exists() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


class RayBackend:
    """The ``Backend`` whose workers are Ray actors."""

    def __init__(self, store_url: str, settings: FarmSettings, make_runner: MakeRunner = farm_runner) -> None:
        self._arguments = (store_url, settings, make_runner)
        self._actor = _ray.remote(
            num_cpus=0,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"work": settings.threads, "control": 2},
        )(Worker)
        self._actors: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
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
        actor = self._actors.get(worker)
        if actor is None:
            return
        pid = self._pids.get(worker)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # a stopped process does not hear Ray
        ray.kill(actor)
        self._said.append(self._lost(worker, BlockFailed(why, place=f"worker {worker}")))

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
        events = [self._event_of(call) for call in done]
        return [event for event in events if event is not None]

    def _event_of(self, call: Any) -> Event | None:
        """Turn the end of a call into an event: the one table of what Ray raises."""
        if call not in self._pending:
            return None  # its worker was found lost a moment ago
        kind, worker, lease = self._pending.pop(call)
        now_s = self.now_s()
        try:
            value = ray.get(call)
        except RayTaskError as error:
            named = _named(error, worker)
            if lease is not None:
                return LeaseCrashed(now_s, worker, lease.lease, lease.study, named)
            ray.kill(self._actors[worker])
            return self._lost(worker, named)
        except RayActorError as error:
            reason = str(error).strip().splitlines()[0]
            return self._lost(worker, BlockFailed(f"the worker died: {reason}", place=f"worker {worker}"))
        except RayError as error:
            ray.kill(self._actors[worker])
            return self._lost(worker, BlockFailed(f"{type(error).__name__}: {error}", place=f"worker {worker}"))
        if kind == "ready":
            self._pids[worker] = value.pid
            return WorkerReady(now_s, worker, value.slots, value.holdings)
        assert lease is not None, "watch never returns"
        return LeaseEnded(now_s, worker, lease.lease, lease.study, value.reports, value.holdings)

    def _lost(self, worker: str, error: FarmError) -> WorkerLost:
        """Forget a worker and all its calls."""
        self._actors.pop(worker, None)
        self._pids.pop(worker, None)
        for call in [call for call, (_, other, _) in self._pending.items() if other == worker]:
            del self._pending[call]
        return WorkerLost(self.now_s(), worker, error)


def _named(error: RayTaskError, worker: str) -> FarmError:
    """Return the typed error that a call ended with; one without a name of ours keeps its own in the text."""
    cause = error.cause
    if isinstance(cause, FarmError):
        return cause
    return BlockFailed(f"{type(cause).__name__}: {cause}", place=f"worker {worker}", hint="this is a bug of the farm")


def _wait_for_node(gcs_address: str) -> None:
    """Wait until the node is registered, looking every 20 ms; Ray itself looks once a second."""
    nodes = _state.GlobalState()
    nodes._initialize_global_state(_raylet.GcsClientOptions.create(gcs_address, None, True, True))
    deadline_s = time.monotonic() + START_S
    while not nodes.node_table() and time.monotonic() < deadline_s:
        time.sleep(0.02)
