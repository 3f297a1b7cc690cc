"""What the scheduler hears and what it says: frozen events in, frozen commands out.

Time arrives inside events, in seconds of a clock that never goes back. A worker is named once per incarnation, a lease
once per attempt; names begin with the epoch of the scheduler that gave them, so that answers meant for an earlier one
are known for what they are. Every command that starts something ends in an event: StartWorker in WorkerReady or
WorkerLost, StopWorker in WorkerLost, RunLease in LeaseEnded, LeaseCrashed, WorkerLost or its deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cluster.submission import BlockSet, Submission
from farm.values.errors import FarmError

Reason: TypeAlias = Literal["warm", "home", "backlog", "replica", "overdue", "retry"]
Ending: TypeAlias = Literal["done", "crashed", "expired", "cancelled"]


@dataclass(frozen=True)
class BlockAnswer:
    """One block of a lease, as its worker saw it. ``error`` is None when the segment is stored."""

    block: int
    cells: int
    seconds: float
    bytes_fetched: int
    stages: Mapping[str, float] = field(default_factory=dict)
    error: FarmError | None = None


# Events


@dataclass(frozen=True)
class Submitted:
    """A study is in the inbox."""

    now_s: float
    submission: Submission


@dataclass(frozen=True)
class Cancelled:
    """Somebody stops a study; finished blocks are kept."""

    now_s: float
    study: str


@dataclass(frozen=True)
class WorkerReady:
    """A worker serves: ``slots`` threads, with these bytes per shard in its cache."""

    now_s: float
    worker: str
    slots: int
    holdings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerFailing:
    """A worker is gone, and WorkerLost will say so once its last answers are read: it gets no lease any more."""

    now_s: float
    worker: str


@dataclass(frozen=True)
class WorkerLost:
    """A worker is gone: it crashed, was stopped, or never came up. ``stored``, here and below: by study, blocks that
    have a segment, as looked up since; ``unsent``, leases that no worker has been told of, since their attempt is not
    recorded yet."""

    now_s: float
    worker: str
    error: FarmError
    stored: Mapping[str, BlockSet] = field(default_factory=dict)
    unsent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LeaseEnded:
    """A worker is through with a lease; blocks without a report were not begun."""

    now_s: float
    worker: str
    lease: str
    study: str
    reports: tuple[BlockAnswer, ...]
    holdings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LeaseCrashed:
    """A lease ended with an error that names no block; its worker lives."""

    now_s: float
    worker: str
    lease: str
    study: str
    error: FarmError
    stored: Mapping[str, BlockSet] = field(default_factory=dict)


@dataclass(frozen=True)
class Tick:
    """Time has passed, and all that came meanwhile is told. Only then may a lease be past its deadline, and only if
    it is known what was stored (``may_expire``)."""

    now_s: float
    stored: Mapping[str, BlockSet] = field(default_factory=dict)
    may_expire: bool = True
    unsent: frozenset[str] = frozenset()


Event: TypeAlias = Submitted | Cancelled | WorkerReady | WorkerFailing | WorkerLost | LeaseEnded | LeaseCrashed | Tick


# Commands


@dataclass(frozen=True)
class StartWorker:
    worker: str


@dataclass(frozen=True)
class StopWorker:
    """End a worker now, whatever it does."""

    worker: str
    why: str


@dataclass(frozen=True)
class RunLease:
    """Record the attempt, then send the lease to its worker."""

    lease: str
    study: str
    nonce: str
    worker: str
    blocks: BlockSet
    attempt: int
    reason: Reason
    deadline_s: float


@dataclass(frozen=True)
class CancelLease:
    """Ask the worker to stop after the block it is at."""

    worker: str
    lease: str


@dataclass(frozen=True)
class NoteLease:
    """Record how a lease ended. ``failed``: blocks whose failure counts against them, with the error."""

    run: RunLease
    outcome: Ending
    reports: tuple[BlockAnswer, ...] = ()
    failed: Mapping[int, FarmError] = field(default_factory=dict)
    error: FarmError | None = None


@dataclass(frozen=True)
class EndStudy:
    """Write the done marker: every block is done or quarantined, or the study was cancelled. ``joined``: the nonces of
    submissions of the same study that came while it was in the queue; they have ended with it."""

    study: str
    nonce: str
    done: BlockSet
    quarantined: Mapping[int, FarmError]
    is_cancelled: bool
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefuseStudy:
    """The queue does not take this submission; it stays in the inbox."""

    study: str
    error: FarmError


@dataclass(frozen=True)
class GiveUp:
    """No worker comes up: starting more would not help."""

    error: FarmError


Command: TypeAlias = StartWorker | StopWorker | RunLease | CancelLease | NoteLease | EndStudy | RefuseStudy | GiveUp
