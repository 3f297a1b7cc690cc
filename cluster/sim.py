"""A simulator of the cluster with a seed: the same driver and machine, a virtual clock, and everything that goes wrong.

    python -m cluster.sim --seeds 10000        many small worlds
    python -m cluster.sim --seed 4711          one of them again, exactly

A world has a few studies and workers, and faults: workers crash, seem lost and go on (zombies), hang, do not come up;
messages are slow, doubled, lost; blocks kill their worker, hang it, or end in an error; studies are cancelled and
submitted twice; the scheduler dies and is rebuilt from the inbox minus the catalog. At the end of each world:

- no block is lost: every block that can be computed has its result, and the study's end says so;
- no result is there twice, and no done block is forgotten;
- exactly the poisonous blocks are quarantined, never an innocent neighbour;
- nobody starves, no worker is left, and the inbox is empty.

Three strikes are the farm's own definition of poison, so faults of the surroundings choose a block at most twice. What
is sent to a worker that has just died is struck all the same; a block for which this is the third may be quarantined.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from cluster.driver import Driver
from cluster.inbox import Entry, Inbox
from cluster.lease import Limits
from cluster.messages import BlockAnswer, Event, LeaseEnded, RunLease, WorkerLost, WorkerReady
from cluster.submission import Submission, block_set, make_piles, members
from farm.store.memory import MemoryStore
from farm.values.errors import BlockFailed, DataError

Nature = Literal["good", "flaky", "faulty", "poison", "hang"]
STRIKES_MAX = 2
LIMITS = Limits(
    workers_max=3,
    idle_s=5.0,
    start_s=20.0,
    deadline_s=8.0,
    deadline_factor=6.0,
    watchdog_s=5.0,
    fair_s=4.0,
    wait_s_max=20.0,
)


class Broken(AssertionError):
    """A property does not hold in the world of this seed."""


@dataclass(frozen=True)
class SimBlock:
    """A block of a simulated study: what the queue reads of a real one, and its nature."""

    index: int
    cells: int
    needs: dict[str, int]
    cost_s: float
    nature: Nature


@dataclass
class SimStudy:
    """A study of the world, with the catalog's view of it: blocks that have a segment, and who wrote it."""

    name: str
    submitter: str
    priority: int
    blocks: list[SimBlock]
    written: dict[int, str] = field(default_factory=dict)
    strikes: dict[int, int] = field(default_factory=dict)
    is_cancelled: bool = False

    @property
    def bad(self) -> set[int]:
        return {block.index for block in self.blocks if block.nature in ("faulty", "poison", "hang")}


@dataclass
class SimWorker:
    """A process: leases queued and running on its slots, bytes per shard in its cache."""

    name: str
    slots: int
    is_alive: bool = True
    queue: list[RunLease] = field(default_factory=list)
    running: dict[str, RunLease] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    holdings: dict[str, int] = field(default_factory=dict)


class SimBackend:
    """Workers in virtual time. Every random choice comes from one generator, in the order of events."""

    def __init__(self, chance: random.Random, studies: dict[str, SimStudy], trouble: float) -> None:
        self.chance = chance
        self.studies = studies
        self.trouble = trouble
        self.clock_s = 0.0
        self.workers: dict[str, SimWorker] = {}
        self.sent: dict[str, dict[str, RunLease]] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._inbound: list[Event] = []

    # The backend protocol

    def now_s(self) -> float:
        return self.clock_s

    def start(self, worker: str) -> None:
        if self.happens(0.1):
            self.after(self.chance.uniform(0.1, 3), lambda: self.send(WorkerLost(0, worker, BlockFailed("no start"))))
            return
        self.after(self.chance.uniform(0.5, 2), lambda: self._up(worker))

    def stop(self, worker: str, why: str) -> None:
        self.after(self.delay(), lambda: self._down(worker, why))

    def run(self, lease: RunLease) -> None:
        self.sent.setdefault(lease.worker, {})[lease.lease] = lease
        worker = self.workers.get(lease.worker)
        if worker is None or worker.slots == 0:
            self.strike([lease], always=True)  # it died or hangs since a moment ago, and nobody knows yet
            return
        if self.happens(0.01) and self.strike([lease]):
            return
        self.after(self.delay(), lambda: self._arrive(lease))

    def cancel(self, worker: str, lease: str) -> None:
        self.after(self.delay(), lambda: self.workers[worker].cancelled.add(lease) if worker in self.workers else None)

    def events(self, timeout_s: float) -> Sequence[Event]:
        until_s = self.clock_s + timeout_s
        while not self._inbound and self._agenda and self._agenda[0][0] <= until_s:
            self.clock_s, _, action = heapq.heappop(self._agenda)
            action()
        if not self._inbound:
            self.clock_s = until_s
        events, self._inbound = self._inbound, []
        return [replace(event, now_s=self.clock_s) for event in events]

    # The world

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen a little later."""
        self._count += 1
        heapq.heappush(self._agenda, (self.clock_s + seconds, self._count, action))

    def send(self, event: Event) -> None:
        """Deliver a message to the scheduler, sometimes twice."""
        self._inbound.append(event)
        if isinstance(event, LeaseEnded):
            self.sent[event.worker].pop(event.lease, None)
        if self.happens(0.05):
            self.after(self.delay() * 3, lambda: self._inbound.append(event))

    def happens(self, share: float) -> bool:
        return self.chance.random() < share * self.trouble

    def delay(self) -> float:
        return self.chance.uniform(0.001, 0.05) if self.chance.random() < 0.9 else self.chance.uniform(0.05, 1.0)

    def strike(self, leases: Iterable[RunLease], *, always: bool = False) -> bool:
        """Count a fault of the surroundings against these leases; False if a block has had its share already."""
        hit = [(self.studies[lease.study], block) for lease in leases for block in members(lease.blocks)]
        if not always and any(study.strikes.get(block, 0) >= STRIKES_MAX for study, block in hit):
            return False
        for study, block in hit:
            study.strikes[block] = study.strikes.get(block, 0) + 1
        return True

    def scheduler_dies(self) -> None:
        """Drop what was on its way to the scheduler; its workers die, or go on as zombies for a while."""
        self._inbound.clear()
        for worker in list(self.workers.values()):
            if self.chance.random() < 0.5:
                self._die(worker)
            else:
                self.after(self.chance.uniform(1, 30), lambda worker=worker: self._die(worker))  # type: ignore[misc]

    def _up(self, name: str) -> None:
        worker = self.workers[name] = SimWorker(name, self.chance.choice([1, 1, 2, 4]))
        self.send(WorkerReady(0, name, worker.slots))
        if self.happens(0.3):
            self.after(self.chance.expovariate(1 / 20), lambda: self._mishap(worker))

    def _mishap(self, worker: SimWorker) -> None:
        """Something outside strikes a worker: it dies, it hangs, or it only seems to be gone."""
        if not worker.is_alive or not self.strike(self.sent.get(worker.name, {}).values()):
            return
        kind = self.chance.choice(["dies", "dies", "zombie", "hangs"])
        if kind == "dies":
            self._crash(worker, "killed")
        elif kind == "zombie":
            self.workers.pop(worker.name)
            self.send(WorkerLost(0, worker.name, BlockFailed("unreachable")))
            self.after(self.chance.uniform(1, 60), lambda: self._die(worker))
        else:
            worker.slots = 0
            for lease in list(worker.running):
                worker.running[lease] = replace(worker.running[lease], lease=f"hung {lease}")

    def _down(self, name: str, why: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and worker.is_alive:
            self._crash(worker, why)
        else:
            self.send(WorkerLost(0, name, BlockFailed(why)))

    def _die(self, worker: SimWorker) -> None:
        worker.is_alive = False
        worker.queue.clear()
        worker.running.clear()
        self.workers.pop(worker.name, None)

    def _crash(self, worker: SimWorker, why: str) -> None:
        self._die(worker)
        self.after(self.chance.uniform(0.05, 2), lambda: self.send(WorkerLost(0, worker.name, BlockFailed(why))))

    def _arrive(self, lease: RunLease) -> None:
        worker = self.workers.get(lease.worker)
        if worker is not None:
            worker.queue.append(lease)
            self._take(worker)

    def _take(self, worker: SimWorker) -> None:
        while worker.queue and len(worker.running) < worker.slots:
            lease = worker.queue.pop(0)
            worker.running[lease.lease] = lease
            self._next(worker, lease, list(members(lease.blocks)), [])

    def _next(self, worker: SimWorker, lease: RunLease, rest: list[int], reports: list[BlockAnswer]) -> None:
        """Go on with a lease: its next block, or the answer."""
        if not worker.is_alive or worker.running.get(lease.lease) is not lease:
            return
        if not rest or lease.lease in worker.cancelled:
            del worker.running[lease.lease]
            self._answer(
                LeaseEnded(0, worker.name, lease.lease, lease.study, tuple(reports), dict(worker.holdings)), lease
            )
            self._take(worker)
            return
        block = self.studies[lease.study].blocks[rest[0]]
        cold = {shard: size for shard, size in block.needs.items() if worker.holdings.get(shard, 0) < size}
        load_s = 0.5 * len(cold)
        worker.holdings.update(cold)
        if len(worker.holdings) > 3:
            worker.holdings.pop(next(iter(worker.holdings)))
        seconds = block.cost_s * self.chance.uniform(0.5, 2) + load_s
        if block.nature == "hang":
            return
        report = BlockAnswer(block.index, block.cells, seconds, sum(cold.values()), {"read": load_s})
        self.after(seconds, lambda: self._end_block(worker, lease, block, rest[1:], reports, report))

    def _end_block(
        self,
        worker: SimWorker,
        lease: RunLease,
        block: SimBlock,
        rest: list[int],
        reports: list[BlockAnswer],
        report: BlockAnswer,
    ) -> None:
        if not worker.is_alive or worker.running.get(lease.lease) is not lease:
            return
        study = self.studies[lease.study]
        if block.nature == "poison":
            self._crash(worker, f"block {block.index} is poison")
            return
        if block.nature == "faulty":
            report = replace(report, error=DataError("a bad chunk", place=f"block {block.index}"))
        elif (
            block.nature == "flaky"
            and self.chance.random() < 0.5
            and self.strike([replace(lease, blocks=1 << block.index)])
        ):
            report = replace(report, error=DataError("a bad read", place=f"block {block.index}"))
        else:
            study.written.setdefault(block.index, lease.lease)
        self._next(worker, lease, rest, [*reports, report])

    def _answer(self, event: LeaseEnded, lease: RunLease) -> None:
        if self.happens(0.01) and self.strike([lease]):
            return  # lost: the lease will run past its deadline
        if self.happens(0.01) and self.strike([lease]):
            self.after(self.chance.uniform(5, 100), lambda: self.send(event))  # maybe past the deadline
            return
        self.after(self.delay(), lambda: self.send(event))


class World:
    """Everything a seed stands for."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.studies = {study.name: study for study in self._make_studies()}
        self.backend = SimBackend(self.chance, self.studies, self.chance.choice([0.0, 1.0, 1.0, 3.0]))
        self.inbox = Inbox(MemoryStore())
        self.limits = replace(
            LIMITS,
            workers_max=self.chance.randint(1, 4),
            backlog_s_per_worker=self.chance.choice([0.0, 5.0]),
            lease_s=self.chance.choice([0.3, 1.0, 3.0]),
            start_failures_max=100,
        )
        self.epochs = 0
        self.driver = self._make_driver()

    def run(self) -> None:
        """Live through it, then check what must hold; Broken."""
        plan = sorted(self._plan(), key=lambda item: item[0])
        for _ in range(200_000):
            while plan and plan[0][0] <= self.backend.clock_s:
                plan.pop(0)[1]()
            if not plan and not self.driver.state.studies and not self.driver.state.workers:
                break
            until_s = plan[0][0] - self.backend.clock_s if plan else 60.0
            self.driver.turn(max(0.0, until_s))
            self._check_starving()
        else:
            raise Broken(f"not at an end at {self.backend.clock_s:.0f} s: {self.driver.state.story[-8:]}")
        self._check_end()

    def _make_studies(self) -> Iterator[SimStudy]:
        shards = [f"{number:02x}" for number in range(6)]
        natures: list[Nature] = ["good", "flaky", "faulty", "poison", "hang"]
        weights = [60, 1, 1, 1, 1]
        for number in range(self.chance.randint(1, 4)):
            universes = [
                self.chance.sample(shards, self.chance.randint(1, 2)) for _ in range(self.chance.randint(1, 3))
            ]
            cost_s = self.chance.choice([0.02, 0.1, 0.5])
            blocks = [
                SimBlock(
                    index,
                    self.chance.randint(1, 9),
                    dict.fromkeys(universes[index % len(universes)], 1000),
                    cost_s,
                    self.chance.choices(natures, weights)[0],
                )
                for index in range(self.chance.choice([1, 3, 12, 40]))
            ]
            yield SimStudy(
                f"study{number}", self.chance.choice(["ann", "bob", "eve"]), self.chance.choice([0, 0, 0, 5]), blocks
            )

    def _plan(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """Who does what when: submissions, some twice; cancels; deaths of the scheduler."""
        for study in self.studies.values():
            at_s = self.chance.uniform(0, 20)
            yield at_s, lambda study=study: self._submit(study)  # type: ignore[misc]
            if self.chance.random() < 0.2:
                yield at_s + self.chance.uniform(0, 3), lambda study=study: self._submit(study)  # type: ignore[misc]
            elif self.chance.random() < 0.1:
                yield at_s + self.chance.uniform(0, 10), lambda study=study: self._cancel(study)  # type: ignore[misc]
        for _ in range(self.chance.choice([0, 0, 1, 2])):
            yield self.chance.uniform(0, 40), self._restart

    def _submit(self, study: SimStudy) -> None:
        nonce = f"{study.name}-{self.chance.getrandbits(32):08x}"
        entry = Entry(study.name, nonce, study.submitter, study.priority, int(self.backend.clock_s * 1e9))
        self.inbox.submit(entry)
        self.driver.enqueue(entry)

    def _cancel(self, study: SimStudy) -> None:
        if study.name in self.driver.state.studies:
            study.is_cancelled = True
            self.driver.cancel(study.name)

    def _restart(self) -> None:
        """The scheduler dies; the next one knows nothing but the bucket."""
        self.backend.strike([held.run for held in self.driver.state.leases.values() if held.alone], always=True)
        self.backend.scheduler_dies()
        pending = {entry.study for entry in self.inbox.pending()}
        for study in self.studies.values():
            study.is_cancelled = study.is_cancelled and study.name not in pending  # else the cancel died with it
        self.driver = self._make_driver()
        self.driver.recover()

    def _make_driver(self) -> Driver:
        self.epochs += 1
        return Driver(self.backend, self.inbox, self._load, self.limits, epoch=f"e{self.epochs}")

    def _load(self, entry: Entry) -> Submission:
        study = self.studies[entry.study]
        before = self.inbox.attempts(study.name, entry.nonce)
        return Submission(
            study.name,
            entry.nonce,
            entry.submitter,
            entry.priority,
            tuple(block.cells for block in study.blocks),
            make_piles(study.blocks),
            block_set(study.written),
            before.failures,
            before.suspects,
            before.solo,
        )

    def _check_starving(self) -> None:
        """While others of its priority get leases, a study waits a bounded time for its next one."""
        state = self.driver.state
        waiting = [study for study in state.studies.values() if study.waiting]
        for study in waiting:
            peers = [other for other in waiting if other.submission.priority >= study.submission.priority]
            latest_s = max(
                (
                    other.since_s
                    for other in state.studies.values()
                    if other.submission.priority <= study.submission.priority
                ),
                default=study.since_s,
            )
            bound_s = self.limits.wait_s_max + 40 * len(peers) * (1 + self.limits.fair_s + self.limits.lease_s)
            if latest_s - study.since_s > bound_s:
                raise Broken(f"{study.submission.study} starves since {study.since_s:.1f}, at {latest_s:.1f}")

    def _check_end(self) -> None:
        if self.inbox.pending():
            raise Broken(f"left in the inbox: {self.inbox.pending()}")
        for study in self.studies.values():
            every = {block.index for block in study.blocks}
            done = set(study.written)
            if done - (every - study.bad):
                raise Broken(f"{study.name}: results of {done - (every - study.bad)}, which cannot have any")
            if study.is_cancelled:
                continue
            unlucky = {block for block, strikes in study.strikes.items() if strikes > STRIKES_MAX}
            if not done >= every - study.bad - unlucky:
                raise Broken(f"{study.name}: no result of blocks {every - study.bad - done}")
            end = self.driver.ended.get(study.name)
            if end is None:
                continue  # it ended under an earlier scheduler
            quarantined = set(end.quarantined)
            if end.is_cancelled or set(members(end.done)) | quarantined != every or end.done & block_set(quarantined):
                raise Broken(f"{study.name}: {end} is not all of {every}")
            if not study.bad <= quarantined <= study.bad | unlucky or not set(members(end.done)) <= done:
                raise Broken(f"{study.name}: bad are {study.bad}, quarantined {dict(end.quarantined)}, end {end}")


def run_seed(seed: int) -> str | None:
    """Return None if all properties hold in the world of ``seed``, else what is wrong, with the seed."""
    try:
        World(seed).run()
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        return f"seed {seed}: {type(error).__name__}: {error}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run many seeds, or one; print what fails."""
    parser = argparse.ArgumentParser(prog="python -m cluster.sim", description="Simulate the scheduler with faults.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one world only; errors are raised as they are")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        World(options.seed).run()
        print(f"seed {options.seed}: all properties hold")
        return 0
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        failures = [text for text in pool.map(run_seed, seeds, chunksize=20) if text is not None]
    for text in failures[:10]:
        print(text, file=sys.stderr)
    print(f"{len(seeds)} seeds, {len(failures)} failed")
    if failures:
        print(f"again: python -m cluster.sim --seed {failures[0].split()[1].rstrip(':')}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
