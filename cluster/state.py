"""What the scheduler knows, and what an event finds its subject in. Values and readers only; ``machine`` changes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.affinity import WorkerView
from cluster.index import Index
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
from cluster.versioned import Versioned


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
    """All that the scheduler knows. ``index``: what follows from the rest, of the state whose ``turn`` it has."""

    epoch: str
    limits: Limits
    studies: Versioned[QueuedStudy] = field(default_factory=Versioned)
    workers: Versioned[WorkerView] = field(default_factory=Versioned)
    leases: Versioned[Lease] = field(default_factory=Versioned)
    served_s: Versioned[float] = field(default_factory=Versioned)
    costs: BlockCosts = field(default_factory=BlockCosts)
    leases_made: int = 0
    workers_made: int = 0
    studies_seen: int = 0
    start_failures: int = 0
    surplus_since_s: float | None = None
    has_given_up: bool = False
    story: tuple[Line, ...] = ()
    index: Index | None = field(default=None, compare=False, repr=False)
    turn: int = field(default=0, compare=False, repr=False)


class Impossible(AssertionError):
    """An event that cannot happen in this state: a bug here, or in what told it."""


def index_of(state: State) -> Index:
    """Return the index of a state: the one that was kept, or if it has gone on since, one made anew."""
    index = state.index
    return index if index is not None and index.turn == state.turn else new_index(state)


def new_index(state: State) -> Index:
    """Return the index of a state, made anew."""
    return Index.build(state.limits, state.studies, state.workers, state.leases, state.served_s, state.costs)


def next_wake_s(state: State) -> float | None:
    """Return when a Tick is due if nothing else happens, or None."""
    times = [index_of(state).next_wake_s()]
    if state.surplus_since_s is not None:
        times.append(state.surplus_since_s + state.limits.idle_s)
    return min([time_s for time_s in times if time_s is not None], default=None)


def overdue(state: State, now_s: float) -> set[str]:
    """Return the studies of leases past their deadline."""
    return {state.leases[name].run.study for name in index_of(state).overdue(now_s)}


def machine_away_s(state: State, now_s: float) -> float:
    """Return for how long workers have had no answer from the store, 0 if they have."""
    return max((now_s - away_s for away_s in index_of(state).away.values()), default=0.0)


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
