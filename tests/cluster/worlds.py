"""Small studies and shorthands for the tests of the scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster import invariants
from cluster.lease import Limits
from cluster.machine import step
from cluster.messages import BlockAnswer, Command, Event, LeaseEnded, RunLease, Submitted, WorkerLost, WorkerReady
from cluster.state import State
from cluster.submission import Submission, make_piles, members
from farm.values.errors import BlockFailed


@dataclass(frozen=True)
class Block:
    """A block as the queue reads it: a strip of its own."""

    first: int
    cells: int = 1
    needs: Mapping[str, int] = field(default_factory=lambda: {"aa": 1000})
    count: int = 1


def study(
    name: str = "s",
    blocks: int | Sequence[Mapping[str, int]] = 4,
    *,
    submitter: str = "ann",
    priority: int = 0,
    done: int = 0,
    failures: Mapping[int, tuple[int, str]] | None = None,
) -> Submission:
    """A study of so many blocks that need the same shard, or of one block per mapping of needs."""
    made = [Block(i) for i in range(blocks)] if isinstance(blocks, int) else [
        Block(i, needs=needs) for i, needs in enumerate(blocks)
    ]  # fmt: skip
    cells = tuple(block.cells for block in made)
    return Submission(name, f"{name}-nonce", submitter, priority, cells, make_piles(made), done, failures or {})


class Play:
    """A state that is fed events; invariants are checked after each."""

    def __init__(self, **limits: float) -> None:
        defaults: dict[str, float] = {"workers_max": 1, "lease_blocks_max": 4, "ahead_per_slot": 2, "watchdog_s": 5.0}
        self.state = State("e", Limits(**(defaults | limits)))  # type: ignore[arg-type]
        self.now_s = 0.0

    def feed(self, event: Event) -> tuple[Command, ...]:
        self.state, commands = step(self.state, event)
        invariants.check(self.state)
        return commands

    def submit(self, submission: Submission) -> tuple[Command, ...]:
        return self.feed(Submitted(self.now_s, submission))

    def ready(
        self, worker: str = "e-w0", slots: int = 1, holdings: Mapping[str, int] | None = None
    ) -> tuple[Command, ...]:
        return self.feed(WorkerReady(self.now_s, worker, slots, holdings or {}))

    def end(
        self,
        run: RunLease,
        *,
        reports: Sequence[BlockAnswer] | None = None,
        seconds: float = 0.1,
        holdings: Mapping[str, int] | None = None,
    ) -> tuple[Command, ...]:
        """The lease comes back, all blocks done unless ``reports`` says otherwise."""
        if reports is None:
            reports = [BlockAnswer(block, 1, seconds, 0) for block in members(run.blocks)]
        return self.feed(
            LeaseEnded(self.now_s, run.worker, run.lease, run.study, tuple(reports), holdings or {"aa": 1000})
        )


def runs(commands: Sequence[Command]) -> list[RunLease]:
    """The leases among the commands."""
    return [command for command in commands if isinstance(command, RunLease)]


def blocks_of(run: RunLease) -> list[int]:
    return list(members(run.blocks))


class Steady:
    """A backend whose workers come up at once, and answer in the turn after the one in which they were sent a lease."""

    def __init__(self, written: set[int] | None = None) -> None:
        self.written: set[int] = set() if written is None else written
        self.sent: list[RunLease] = []
        self.said: list[Event] = []
        self.stopped: dict[str, str] = {}
        self.clock_s = 0.0

    def now_s(self) -> float:
        return self.clock_s

    def start(self, worker: str) -> None:
        self.said.append(WorkerReady(self.clock_s, worker, 1))

    def stop(self, worker: str, why: str) -> None:
        self.stopped[worker] = why
        self.said.append(WorkerLost(self.clock_s, worker, BlockFailed(why)))

    def run(self, lease: RunLease) -> None:
        self.sent.append(lease)

    def cancel(self, worker: str, lease: str) -> None:
        """Nothing runs that could be stopped."""

    def events(self, timeout_s: float) -> list[Event]:
        self.clock_s += timeout_s
        if not self.said:
            self.said = [self.answer(lease) for lease in self.sent]
            self.sent = []
        events, self.said = self.said, []
        return events

    def answer(self, lease: RunLease) -> LeaseEnded:
        self.written.update(members(lease.blocks))
        reports = tuple(BlockAnswer(block, 1, 0.1, 0) for block in members(lease.blocks))
        return LeaseEnded(self.clock_s, lease.worker, lease.lease, lease.study, reports, {"aa": 1000})
