"""What the scheduler knows, and what an event finds its subject in. Values and readers only; ``machine`` changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.affinity import WorkerView
from cluster.lease import BlockCosts, Lease, Limits
from cluster.messages import (
    Cancelled,
    Event,
    LeaseCrashed,
    LeaseEnded,
    Submitted,
    WorkerFailing,
    WorkerLost,
    WorkerReady,
)
from cluster.queue import QueuedStudy
from cluster.submission import BlockSet, block_set


@dataclass(frozen=True)
class Line:
    """One line of the story: at ``now_s``, this happened to these blocks of a study, on this worker."""

    now_s: float
    what: str
    worker: str = ""
    lease: str = ""
    study: str = ""
    blocks: BlockSet = 0


@dataclass(frozen=True)
class State:
    """All that the scheduler knows. Mappings keep the order of arrival and are never changed in place."""

    epoch: str
    limits: Limits
    studies: Mapping[str, QueuedStudy] = field(default_factory=dict)
    workers: Mapping[str, WorkerView] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    served_s: Mapping[str, float] = field(default_factory=dict)
    costs: BlockCosts = field(default_factory=BlockCosts)
    leases_made: int = 0
    workers_made: int = 0
    studies_seen: int = 0
    start_failures: int = 0
    surplus_since_s: float | None = None
    has_given_up: bool = False
    story: tuple[Line, ...] = ()


class Impossible(AssertionError):
    """An event that cannot happen in this state: a bug here, or in what told it."""


def next_wake_s(state: State) -> float | None:
    """Return when a Tick is due if nothing else happens, or None."""
    times = [held.run.deadline_s for held in state.leases.values()]
    times += [worker.since_s + state.limits.start_s for worker in state.workers.values() if worker.status == "starting"]
    times += [study.paused_s for study in state.studies.values() if study.paused_s is not None]
    if state.surplus_since_s is not None:
        times.append(state.surplus_since_s + state.limits.idle_s)
    return min(times, default=None)


def machine_away_s(state: State, now_s: float) -> float:
    """Return for how long workers have had no answer from the store, 0 if they have."""
    return max((now_s - study.away_s for study in state.studies.values() if study.away_s is not None), default=0.0)


# What the subject of an event is in.


def study_status(state: State, event: Submitted | Cancelled) -> str:
    name = event.submission.study if isinstance(event, Submitted) else event.study
    study = state.studies.get(name)
    return "absent" if study is None else "cancelled" if study.is_cancelled else "active"


def worker_status(state: State, event: WorkerReady | WorkerFailing | WorkerLost) -> str:
    worker = state.workers.get(event.worker)
    if worker is not None:
        return worker.status
    return _past(state, event.worker, "w", state.workers_made)


def lease_status(state: State, event: LeaseEnded | LeaseCrashed) -> str:
    held = state.leases.get(event.lease)
    if held is None:
        return _past(state, event.lease, "", state.leases_made)
    if held.run.worker != event.worker:
        return "of another worker"
    if isinstance(event, LeaseEnded) and block_set(report.block for report in event.reports) & ~held.run.blocks:
        return "without that block"
    return "flying"


def _past(state: State, name: str, kind: str, made: int) -> str:
    """Tell a name that was given once from one of another epoch and from one that never was given."""
    epoch, _, number = name.rpartition("-")
    if epoch != state.epoch:
        return "foreign"
    digits = number.removeprefix(kind)
    return "closed" if digits.isdigit() and int(digits) < made else "unknown"


def complaint(state: State, event: Event, status: str) -> str:
    """Return what ``Impossible`` says."""
    told = "; ".join(
        f"{line.now_s:.3f} {line.what} {line.worker} {line.lease}".rstrip() for line in story(state, event)
    )
    return f"{type(event).__name__} of what is {status!r}: {event}; the story: {told or 'none'}"


def story(state: State, event: Event) -> list[Line]:
    """Return the recent lines about the worker, the lease, or the study and blocks of ``event``."""
    worker, name, study = (str(getattr(event, field, "")) for field in ("worker", "lease", "study"))
    blocks = block_set(report.block for report in event.reports) if isinstance(event, LeaseEnded) else 0
    about = [
        line
        for line in state.story
        if (worker and line.worker == worker)
        or (name and line.lease == name)
        or (study and line.study == study and (line.blocks & blocks or not blocks))
    ]
    return about[-16:]
