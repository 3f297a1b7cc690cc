"""How many events a second the scheduler's machine takes, with many workers and users; what it records, and reads."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.inbox import Inbox
from cluster.journal import Journal
from cluster.lease import Limits
from cluster.machine import step
from cluster.messages import BlockAnswer, Event, LeaseEnded, NoteLease, RunLease, StartWorker, Submitted, WorkerReady
from cluster.outbox import Outbox
from cluster.state import State
from cluster.submission import Submission, make_piles, members
from farm.store.local import LocalStore
from farm.store.memory import MemoryStore
from farm.store.wrap import Around
from farm.values.errors import BlockFailed
from farm.values.settings import FarmSettings
from tests.bench.harness import Row, repeat, seconds_of
from tests.cluster.worlds import Block

SLOTS = 4
PILES = 10


class Farm:
    """A machine whose workers answer in the order in which they were asked. Warm ones hold what one user needs each
    when they come up; cold ones hold nothing, and fetch what they are sent for."""

    def __init__(self, workers: int, users: int, blocks: int, *, is_warm: bool = True) -> None:
        self.state = State("e", Limits(workers_max=workers))
        self.sent: deque[RunLease] = deque()
        self.needs = [[{f"{user}-{pile}": 10**6} for pile in range(PILES)] for user in range(users)]
        self.now_s = 0.0
        self.started: list[str] = []
        for user in range(users):
            made = [Block(index, 5, self.needs[user][index % PILES]) for index in range(blocks // users)]
            cells = tuple(block.cells for block in made)
            study = Submission(f"study{user}", "nonce", f"user{user}", 0, cells, make_piles(made))
            self.started += [each.worker for each in self.feed(Submitted(0.0, study)) if isinstance(each, StartWorker)]
        self.holdings: dict[str, dict[str, int]] = {
            name: {shard: size for needs in self.needs[place % users] for shard, size in needs.items()}
            if is_warm
            else {}
            for place, name in enumerate(self.started)
        }
        if is_warm:
            self.come_up()

    def feed(self, event: Event) -> tuple[object, ...]:
        self.state, commands = step(self.state, event)
        self.sent.extend(command for command in commands if isinstance(command, RunLease))
        return commands

    def come_up(self) -> float:
        """Let all workers be ready, one after another; return the seconds it takes."""
        start = time.perf_counter()
        for name in self.started:
            self.feed(WorkerReady(0.0, name, SLOTS, self.holdings[name]))
        return time.perf_counter() - start

    def answer(self, events: int) -> float:
        """Let so many leases end; return the events per second."""
        start = time.perf_counter()
        for _ in range(events):
            run = self.sent.popleft()
            self.now_s += 1e-3
            needs = self.needs[int(run.study.removeprefix("study"))][
                (run.blocks & -run.blocks).bit_length() % PILES - 1
            ]
            holdings, stages, fetched = self.holdings[run.worker], {}, 0
            if not needs.keys() <= holdings.keys():
                holdings = self.holdings[run.worker] = holdings | needs
                stages, fetched = {"read": 0.01}, sum(needs.values())
            reports = tuple(BlockAnswer(block, 5, 0.5, fetched, stages) for block in members(run.blocks))
            self.feed(LeaseEnded(self.now_s, run.worker, run.lease, run.study, reports, holdings))
        return events / (time.perf_counter() - start)


def events(settings: FarmSettings, repeats: int) -> list[Row]:
    """1,000 workers of 4 slots, 100 users, 100,000 blocks: leases end and are followed by others."""
    farm = Farm(1000, 100, 100_000)
    farm.answer(500)
    values = [farm.answer(2000) for _ in range(repeats)]
    warm = Row("scheduler events", "/s", 2000, True, values, {"flying": str(len(farm.state.leases))})
    starts, values = [], []
    for _ in range(repeats):
        farm = Farm(1000, 100, 100_000, is_warm=False)
        starts.append(farm.come_up())
        values.append(farm.answer(2000))
    farm = Farm(1000, 100, 1_000_000, is_warm=False)
    farm.come_up()
    return [
        warm,
        Row("scheduler cold start", "s", 5, False, starts, {"workers": "1,000, which hold nothing"}),
        Row("scheduler events, cold", "/s", 2000, True, values, {"what workers were sent": "is fetched, and spreads"}),
        Row("scheduler events, 1e6", "/s", 2000, True, [farm.answer(2000) for _ in range(repeats)], {"blocks": "1e6"}),
    ]


def recorded(inbox: Inbox, attempts: int) -> None:
    """Record so many attempts of study "s", nonce "n1", of one block each, and that they ended; some of them badly."""
    crash = BlockFailed("killed")
    for first in range(0, attempts, 100):
        made = [
            RunLease(f"e-{number:06d}", "s", "n1", f"e-w{number % 9}", 1 << number, 1, "warm", 9.0)
            for number in range(first, min(first + 100, attempts))
        ]
        inbox.journal("s", f"e-{first:08d}", made)
        answers = [
            NoteLease(run, "done", (BlockAnswer(run.blocks.bit_length() - 1, 5, 0.1, 9, {"read": 0.1, "run": 0.2}),))
            for run in made
        ]
        if first % 1000 == 0:
            answers[0] = NoteLease(made[0], "done", (), {first: crash})
        inbox.journal("s", f"e-{first + 1:08d}", answers)


def recovery(settings: FarmSettings, repeats: int) -> Row:
    """What a scheduler does before it starts: read 100,000 attempts, each sent and ended, from a local store."""
    with tempfile.TemporaryDirectory() as folder:
        inbox = Inbox(LocalStore(Path(folder)))
        recorded(inbox, 100_000)
        values = repeat(lambda: seconds_of(lambda: inbox.attempts("s", "n1")), repeats)
    return Row("recovery, 1e5 attempts", "s", 10, False, values, {"segments": "2,000 of 100 records"})


def recording(settings: FarmSettings, repeats: int) -> Row:
    """A scheduler records attempts and ends of one study, as many as come while a write of 20 ms is under way."""
    return Row("attempts recorded", "/s", 2000, True, repeat(_recorded_per_s, repeats), {"a write takes": "20 ms"})


def _recorded_per_s(attempts: int = 4000) -> float:
    """Return the attempts per second, of which each is recorded, sent, answered in no time, and noted as ended."""
    sent: list[RunLease] = []
    with ThreadPoolExecutor(4) as writer:
        outbox = Outbox(writer, 10.0)
        journal = Journal(outbox, Inbox(_Slow(MemoryStore())), "e")
        start = time.perf_counter()
        for number in range(attempts):
            run = RunLease(f"e-{number:06d}", "s", "n1", "e-w0", 1 << number, 1, "warm", 9.0)
            journal.attempt(run, lambda run=run: sent.append(run))  # type: ignore[misc]
            if number % 100 == 99:  # as many answers are read in one turn
                outbox.pump(time.monotonic())
                while sent:
                    journal.ending(NoteLease(sent.pop(), "done"))
        while outbox:
            outbox.pump(time.monotonic())
        return attempts / (time.perf_counter() - start)


class _Slow(Around):
    def _do(self, verb: str, key: str, action: Callable[[], Any], *, sent: int = 0, expected: int = 0) -> Any:
        time.sleep(0.02)
        return action()
