"""How many events a second the scheduler's machine takes, with many workers and users."""

from __future__ import annotations

import time
from collections import deque

from cluster.lease import Limits
from cluster.machine import step
from cluster.messages import BlockAnswer, Event, LeaseEnded, RunLease, StartWorker, Submitted, WorkerReady
from cluster.state import State
from cluster.submission import Submission, make_piles, members
from farm.values.settings import FarmSettings
from tests.bench.harness import Row
from tests.cluster.worlds import Block

SLOTS = 4
PILES = 10


class Farm:
    """A machine whose workers hold what one user needs each and answer in the order in which they were asked."""

    def __init__(self, workers: int, users: int, blocks: int) -> None:
        self.state = State("e", Limits(workers_max=workers))
        self.sent: deque[RunLease] = deque()
        self.needs = [[{f"{user}-{pile}": 10**6} for pile in range(PILES)] for user in range(users)]
        started = []
        for user in range(users):
            made = [Block(index, 5, self.needs[user][index % PILES]) for index in range(blocks // users)]
            cells = tuple(block.cells for block in made)
            study = Submission(f"study{user}", "nonce", f"user{user}", 0, cells, make_piles(made))
            started += [each.worker for each in self.feed(Submitted(0.0, study)) if isinstance(each, StartWorker)]
        self.holdings = {
            name: {shard: size for needs in self.needs[place % users] for shard, size in needs.items()}
            for place, name in enumerate(started)
        }
        for name, holdings in self.holdings.items():
            self.feed(WorkerReady(0.0, name, SLOTS, holdings))

    def feed(self, event: Event) -> tuple[object, ...]:
        self.state, commands = step(self.state, event)
        self.sent.extend(command for command in commands if isinstance(command, RunLease))
        return commands

    def answer(self, events: int) -> float:
        """Let so many leases end; return the events per second."""
        start = time.perf_counter()
        for number in range(events):
            run = self.sent.popleft()
            reports = tuple(BlockAnswer(block, 5, 0.5, 0) for block in members(run.blocks))
            holdings = self.holdings[run.worker]
            self.feed(LeaseEnded(number * 1e-3, run.worker, run.lease, run.study, reports, holdings))
        return events / (time.perf_counter() - start)


def events(settings: FarmSettings, repeats: int) -> Row:
    """1,000 workers of 4 slots, 100 users, 100,000 blocks: leases end and are followed by others."""
    farm = Farm(1000, 100, 100_000)
    farm.answer(500)
    values = [farm.answer(2000) for _ in range(repeats)]
    return Row("scheduler events", "/s", 2000, True, values, {"flying": str(len(farm.state.leases))})
