"""Who may run what until when: leases, what blocks are expected to cost, and how long a lease should be.

A lease is some blocks of one pile, on one worker incarnation, until a deadline. It is sized by time: long against a
dispatch, short against what is lost when a worker dies, and shorter towards the end of the backlog, so that all workers
end together. Costs are learnt from reports, as moving averages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ldexp

from cluster.messages import BlockAnswer, RunLease
from cluster.versioned import Versioned
from farm.values.errors import UsageError

NEW_WEIGHT = 0.3
"""Weight of a new observation in a moving average."""

BYTE_S_SLACK = 0.1

STORE_SHARE = 1.5
"""What a block may wait for the store, in parts of its watchdog's time: half in the worker, then one last call."""
DOUBLINGS_MAX = 4


@dataclass(frozen=True)
class Limits:
    """What the scheduler may do; all times in seconds.

    leases: two per slot in flight (``ahead_per_slot``), ``lease_s`` long; a lease is given up after ``deadline_s`` plus
    ``deadline_factor`` times what it is expected to take, loading included, and twice as long at each attempt. That is
    above what a worker may wait for the store: ``STORE_SHARE`` times ``watchdog_s``. workers: at least ``workers_min``,
    at most ``workers_max``, one per ``backlog_s_per_worker`` of expected work (0: all of them, at once),
    ``idle_s`` of patience before one too many is drained. fairness: a submitter may be ``fair_s`` of work ahead for the
    sake of a warm cache, and a study waits ``wait_s_max`` at most while others of its submitter run. store: what needs
    it is tried again for ``watchdog_s``; a study whose workers miss it gets no lease for ``pause_s``.
    """

    workers_max: int
    workers_min: int = 0
    backlog_s_per_worker: float = 0.0
    idle_s: float = 60.0
    start_s: float = 180.0
    start_failures_max: int = 3
    ahead_per_slot: int = 2
    lease_s: float = 1.0
    lease_blocks_max: int = 256
    deadline_s: float = 180.0
    deadline_factor: float = 20.0
    cancel_s: float = 2.0
    attempts_max: int = 3
    fair_s: float = 10.0
    wait_s_max: float = 30.0
    queue_blocks_max: int = 1_000_000
    watchdog_s: float = 120.0
    pause_s: float = 2.0

    def __post_init__(self) -> None:
        holds = (
            self.workers_max >= 1
            and 0 <= self.workers_min <= self.workers_max
            and min(self.ahead_per_slot, self.lease_blocks_max, self.attempts_max, self.start_failures_max) >= 1
            and min(self.lease_s, self.deadline_s, self.start_s, self.cancel_s, self.pause_s, self.watchdog_s) > 0
        )
        if not holds:
            raise UsageError(f"limits that contradict each other: {self}", place="cluster.limits")
        least_s = STORE_SHARE * self.watchdog_s
        if self.deadline_s < least_s or self.lease_s > self.deadline_s:
            raise UsageError(
                f"deadline_s is {self.deadline_s:g}: healthy leases would be given up",
                place="cluster.limits",
                allowed=f"at least {STORE_SHARE:g} times watchdog_s ({least_s:g} s), and lease_s ({self.lease_s:g} s)",
            )


@dataclass(frozen=True)
class BlockCosts:
    """What was learnt. ``cell_s``: seconds per cell, by study; ``byte_s``: seconds to fetch and decode a byte, which
    follows ``byte_s_seen``, the moving average, once that is a tenth away: all piles are compared by it."""

    cell_s: Versioned[float] = field(default_factory=Versioned)
    byte_s: float = 2e-8
    byte_s_seen: float = 2e-8
    block_s_prior: float = 0.3
    load_s_prior: float = 0.02

    def knows(self, study: str) -> bool:
        """Whether a block of the study was ever seen to end."""
        return study in self.cell_s

    def seconds(self, study: str, cells: int, blocks: int) -> float:
        """Return what ``blocks`` blocks with ``cells`` cells in total are expected to take one thread."""
        per_cell = self.cell_s.get(study)
        return blocks * self.block_s_prior if per_cell is None else cells * per_cell

    def load_seconds(self, bytes_needed: int) -> float:
        """Return what a cold worker is expected to pay before it can begin."""
        return self.load_s_prior + bytes_needed * self.byte_s

    def learn(self, study: str, report: BlockAnswer) -> BlockCosts:
        """Return the costs with one more block seen."""
        if report.error is not None or report.cells <= 0:
            return self
        load_s = report.stages.get("read", 0.0)
        seen = max(0.0, report.seconds - load_s) / report.cells
        known = self.cell_s.get(study, seen)
        cell_s = self.cell_s.edit()
        cell_s.put(study, known + NEW_WEIGHT * (seen - known))
        byte_s, seen_s = self.byte_s, self.byte_s_seen
        if report.bytes_fetched > 0 and load_s > 0:
            seen_s += NEW_WEIGHT * (load_s / report.bytes_fetched - seen_s)
            byte_s = byte_s if abs(seen_s - byte_s) < BYTE_S_SLACK * byte_s else seen_s
        return BlockCosts(cell_s, byte_s, seen_s, self.block_s_prior, self.load_s_prior)

    def forget(self, study: str) -> BlockCosts:
        """Return the costs without those of a study that ended."""
        if study not in self.cell_s:
            return self
        cell_s = self.cell_s.edit()
        cell_s.pop(study)
        return replace(self, cell_s=cell_s)


@dataclass(frozen=True)
class Lease:
    """A lease in flight. ``alone``: nothing else may run on its worker, since one of its blocks is under suspicion."""

    run: RunLease
    pile: str
    expected_s: float
    alone: bool = False

    @property
    def count(self) -> int:
        return self.run.blocks.bit_count()


def block_count(waiting: int, waiting_in_all: int, slots: int, block_s: float, known: bool, limits: Limits) -> int:
    """Return how many of a pile's ``waiting`` blocks go into the next lease.

    As many as ``lease_s`` holds, but no more than the part of one slot of what is still waiting in all piles. The first
    lease of a study is one block: its cost is a guess.
    """
    if not known:
        return 1
    by_time = int(limits.lease_s / block_s) if block_s > 0 else limits.lease_blocks_max
    share = -(-waiting_in_all // max(1, slots * limits.ahead_per_slot))
    return max(1, min(by_time, share, waiting, limits.lease_blocks_max))


def deadline_s(now_s: float, ahead_s: float, expected_s: float, attempt: int, limits: Limits) -> float:
    """Return when a lease sent now is given up; ``ahead_s`` is what its slot has to do before. Each ``attempt`` has
    twice the time of the one before: what was only slow ends at last."""
    allowed_s = limits.deadline_s + limits.deadline_factor * (ahead_s + expected_s)
    return now_s + ldexp(allowed_s, min(attempt - 1, DOUBLINGS_MAX))
