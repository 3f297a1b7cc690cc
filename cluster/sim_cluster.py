"""Simulated studies and workers: what computes blocks in virtual time, and everything that goes wrong with it.

A worker outlives its scheduler as real ones do: it goes on for a while, then announces itself to whoever schedules now,
and serves nobody until it is stopped. What a block computes are bytes, and they are compared at every write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from cluster.messages import BlockAnswer, Event, LeaseCrashed, LeaseEnded, RunLease, WorkerLost, WorkerReady
from cluster.sim_store import Broken, Clock, Faults, Fuse, SimStore
from cluster.submission import members
from farm.values.errors import BlockFailed, DataError, ResultConflict, Unavailable

Nature = Literal["good", "flaky", "faulty", "poison", "hang", "trip", "moody", "killer"]
BAD: tuple[Nature, ...] = ("faulty", "poison", "hang", "trip", "killer")
"""Natures that never give a result."""

STRIKES_MAX = 2


@dataclass(frozen=True)
class SimBlock:
    """A block of a simulated study: what the queue reads of a real one, and its nature."""

    index: int
    cells: int
    needs: dict[str, int]
    cost_s: float
    nature: Nature = "good"
    count: int = 1

    @property
    def first(self) -> int:
        """Its index: the queue reads it as a strip of one block."""
        return self.index


@dataclass
class SimStudy:
    """A study of the world, with the catalog's view of it: blocks that have a segment, and its bytes; and first, the
    bytes that each block gave first, which must be what the catalog shows for ever."""

    name: str
    submitter: str
    priority: int
    blocks: list[SimBlock]
    written: dict[int, bytes] = field(default_factory=dict)
    first: dict[int, bytes] = field(default_factory=dict)
    strikes: dict[int, int] = field(default_factory=dict)
    is_cancelled: bool = False

    @property
    def bad(self) -> set[int]:
        return {block.index for block in self.blocks if block.nature in BAD}

    @property
    def moody(self) -> set[int]:
        return {block.index for block in self.blocks if block.nature == "moody"}

    def write(self, block: int, data: bytes) -> None:
        """Put a segment if there is none; ResultConflict when there is another one."""
        if self.written.setdefault(block, data) != data:
            raise ResultConflict("other bytes", place=f"{self.name} block {block}")


@dataclass
class SimWorker:
    """A process: leases queued and running on its slots, bytes per shard in its cache.

    ``excuse``: something that entitles the scheduler to believe that a lease ran past its deadline.
    """

    name: str
    slots: int
    is_alive: bool = True
    is_hung: bool = False
    excuse: str = ""
    queue: list[RunLease] = field(default_factory=list)
    running: dict[str, RunLease] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    holdings: dict[str, int] = field(default_factory=dict)


class Watcher(Protocol):
    """Who looks at what a scheduler asks of its workers; raises Broken."""

    def asked(self, lease: RunLease) -> None: ...
    def stopping(self, worker: SimWorker | None, name: str, why: str) -> None: ...


@dataclass
class Hosts:
    """What the workers of all schedulers of a world have in common."""

    chance: random.Random
    clock: Clock
    store: SimStore
    fuse: Fuse
    faults: Faults
    studies: dict[str, SimStudy]
    trouble: float
    shards_held: int = 3
    slots: tuple[int, ...] = (1, 1, 2, 4)
    up_s: float = 0.0
    asks: bool = True
    alive: dict[str, SimWorker] = field(default_factory=dict)
    serving: SimBackend | None = None

    def happens(self, share: float) -> bool:
        return self.chance.random() < share * self.trouble

    def delay(self) -> float:
        if self.trouble == 0:
            return 0.005
        return self.chance.uniform(0.001, 0.05) if self.chance.random() < 0.9 else self.chance.uniform(0.05, 1.0)

    def strike(self, leases: Iterable[RunLease], *, always: bool = False) -> bool:
        """Count a fault of the surroundings against these leases; False if a block has had its share already."""
        hit = [(self.studies[lease.study], block) for lease in leases for block in members(lease.blocks)]
        if not always and any(study.strikes.get(block, 0) >= STRIKES_MAX for study, block in hit):
            return False
        for study, block in hit:
            study.strikes[block] = study.strikes.get(block, 0) + 1
        return True

    def announce(self, worker: SimWorker) -> None:
        """Let a worker whose scheduler does not know it say to the present one that it is there, now and again."""
        if worker.is_alive:
            if self.serving is not None:
                self.serving.send(WorkerReady(0, worker.name, worker.slots))
            self.clock.after(5.0, lambda: self.announce(worker))

    def die(self, worker: SimWorker) -> None:
        worker.is_alive = False
        worker.queue.clear()
        worker.running.clear()
        self.alive.pop(worker.name, None)


class SimBackend:
    """The workers of one scheduler. Every random choice comes from one generator, in the order of events."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.chance = hosts.chance
        self.clock = hosts.clock
        self.watcher: Watcher | None = None
        self.workers: dict[str, SimWorker] = {}
        self.sent: dict[str, dict[str, RunLease]] = {}
        self.is_heard = True
        self._inbound: list[Event] = []

    # The backend protocol

    def now_s(self) -> float:
        return self.clock.now_s

    def start(self, worker: str) -> None:
        self._act(lambda: self._start(worker))

    def stop(self, worker: str, why: str) -> None:
        assert self.watcher is not None
        self.watcher.stopping(self.hosts.alive.get(worker), worker, why)
        self._act(lambda: self.clock.after(self.hosts.delay(), lambda: self._down(worker, why)))

    def run(self, lease: RunLease) -> None:
        assert self.watcher is not None
        self.watcher.asked(lease)
        self._act(lambda: self._run(lease))

    def cancel(self, worker: str, lease: str) -> None:
        self._act(lambda: self.clock.after(self.hosts.delay(), lambda: self._cancel(worker, lease)))

    def events(self, timeout_s: float) -> Sequence[Event]:
        until_s = self.clock.now_s + timeout_s
        while self.clock.run_next(self.clock.now_s):
            pass  # what came while nobody listened
        while not self._inbound and self.clock.run_next(until_s):
            pass
        if not self._inbound:
            self.clock.now_s = max(self.clock.now_s + 1e-6, until_s)  # time passes, whatever floats make of a wait
        events, self._inbound = self._inbound, []
        return [replace(event, now_s=self.clock.now_s) for event in events]

    # The world

    @property
    def has_news(self) -> bool:
        return bool(self._inbound)

    def send(self, event: Event) -> None:
        """Deliver a message to the scheduler, sometimes twice."""
        if not self.is_heard:
            return
        self._inbound.append(event)
        if isinstance(event, LeaseEnded | LeaseCrashed):
            self.sent.get(event.worker, {}).pop(event.lease, None)
        if self.hosts.happens(0.05):
            self.clock.after(self.hosts.delay() * 3, lambda: self._inbound.append(event))

    def scheduler_dies(self) -> None:
        """Drop what was on its way to the scheduler; its workers die, or go on as strays until somebody stops them."""
        self.is_heard = False
        self._inbound.clear()
        for worker in list(self.workers.values()):
            if self.chance.random() < 0.5:
                self.hosts.die(worker)
            else:
                self.clock.after(self.chance.uniform(0.5, 20), lambda each=worker: self.hosts.announce(each))  # type: ignore[misc]

    def _act(self, action: Callable[[], None]) -> None:
        self.hosts.fuse.burn()
        action()
        self.hosts.fuse.burn()

    def _start(self, name: str) -> None:
        if self.clock.now_s < self.hosts.up_s or self.hosts.happens(0.1):
            error = BlockFailed("no start")
            if not self.hosts.happens(0.05):  # else it just never comes up
                self.clock.after(self.chance.uniform(0.1, 3), lambda: self.send(WorkerLost(0, name, error)))
            return
        self.clock.after(self.chance.uniform(0.5, 2), lambda: self._up(name))

    def _run(self, lease: RunLease) -> None:
        self.sent.setdefault(lease.worker, {})[lease.lease] = lease
        worker = self.workers.get(lease.worker)
        if worker is None or worker.is_hung:
            self.hosts.strike([lease], always=True)  # it died or hangs since a moment ago, and nobody knows yet
            return
        if self.hosts.happens(0.01) and self.hosts.strike([lease]):
            worker.excuse = "a lease did not reach it"
            return
        self.clock.after(self.hosts.delay(), lambda: self._arrive(lease))

    def _cancel(self, worker: str, lease: str) -> None:
        if worker in self.workers:
            self.workers[worker].cancelled.add(lease)

    def _up(self, name: str) -> None:
        if not self.is_heard:
            return
        worker = SimWorker(name, self.chance.choice(self.hosts.slots))
        self.workers[name] = self.hosts.alive[name] = worker
        self.send(WorkerReady(0, name, worker.slots))
        if self.hosts.happens(0.3):
            self.clock.after(self.chance.expovariate(1 / 20), lambda: self._mishap(worker))

    def _mishap(self, worker: SimWorker) -> None:
        """Something outside strikes a worker: it dies, it hangs, or it only seems to be gone."""
        if not worker.is_alive or not self.hosts.strike(self.sent.get(worker.name, {}).values()):
            return
        kind = self.chance.choice(["dies", "dies", "zombie", "hangs"])
        if kind == "dies":
            self.crash(worker, "killed")
        elif kind == "zombie":
            self.workers.pop(worker.name, None)
            self.send(WorkerLost(0, worker.name, BlockFailed("unreachable")))
            self.clock.after(self.chance.uniform(1, 60), lambda: self.hosts.announce(worker))
        else:
            worker.is_hung = True
            worker.excuse = "it hangs"
            worker.running = {name: replace(lease, lease=f"hung {name}") for name, lease in worker.running.items()}

    def _down(self, name: str, why: str) -> None:
        worker = self.hosts.alive.get(name)
        if worker is not None and name in self.workers:
            self.crash(worker, why)
            return
        if worker is not None:
            self.hosts.die(worker)
        self.send(WorkerLost(0, name, BlockFailed(why)))

    def crash(self, worker: SimWorker, why: str) -> None:
        """Let a worker die; its scheduler hears of it a little later."""
        self.hosts.die(worker)
        self.workers.pop(worker.name, None)
        lost = WorkerLost(0, worker.name, BlockFailed(why))
        self.clock.after(self.chance.uniform(0.05, 2), lambda: self.send(lost))

    # A worker at work

    def _arrive(self, lease: RunLease) -> None:
        worker = self.workers.get(lease.worker)
        if worker is not None and worker.is_alive:
            worker.queue.append(lease)
            self._take(worker)

    def _take(self, worker: SimWorker) -> None:
        while worker.queue and len(worker.running) < worker.slots and not worker.is_hung:
            lease = worker.queue.pop(0)
            worker.running[lease.lease] = lease
            self._next(worker, lease, list(members(lease.blocks)), [])

    def _next(self, worker: SimWorker, lease: RunLease, rest: list[int], reports: list[BlockAnswer]) -> None:
        """Go on with a lease: its next block, or the answer."""
        if not worker.is_alive or worker.running.get(lease.lease) is not lease:
            return
        if not rest or lease.lease in worker.cancelled:
            del worker.running[lease.lease]
            answer = LeaseEnded(0, worker.name, lease.lease, lease.study, tuple(reports), dict(worker.holdings))
            self._answer(worker, answer, lease)
            self._take(worker)
            return
        block = self.hosts.studies[lease.study].blocks[rest[0]]
        cold = {shard: size for shard, size in block.needs.items() if worker.holdings.get(shard, 0) < size}
        load_s = 0.5 * len(cold)
        worker.holdings.update(cold)
        while len(worker.holdings) > self.hosts.shards_held:
            worker.holdings.pop(next(iter(worker.holdings)))
            worker.excuse = worker.excuse or "it loads the same shards again and again"
        spread = self.chance.uniform(0.5, 2) if self.hosts.trouble else 1.0
        seconds = block.cost_s * spread + load_s
        if block.nature == "hang":
            worker.excuse = "a block hangs"
            return
        report = BlockAnswer(block.index, block.cells, seconds, sum(cold.values()), {"read": load_s})
        self.clock.after(seconds, lambda: self._end_block(worker, lease, block, rest[1:], reports, report))

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
        nature, place = block.nature, f"{lease.study} block {block.index}"
        if nature in ("poison", "killer"):
            self.crash(worker, f"block {block.index} is poison")
            if nature == "killer" and self.is_heard:
                self.hosts.fuse.arm(1)
            return
        if nature == "trip" or (self.hosts.happens(0.003) and self.hosts.strike([lease])):
            del worker.running[lease.lease]
            self.send(LeaseCrashed(0, worker.name, lease.lease, lease.study, BlockFailed("a lease fell", place=place)))
            self._take(worker)
            return
        if self.hosts.faults.worker_store and self.hosts.store.is_away:
            report = replace(report, error=Unavailable("no answer", place=place))
        elif nature == "faulty":
            report = replace(report, error=DataError("a bad chunk", place=place))
        elif (
            nature == "flaky"
            and self.chance.random() < 0.5
            and self.hosts.strike([replace(lease, blocks=1 << block.index)])
        ):
            report = replace(report, error=DataError("a bad read", place=place))
        else:
            study = self.hosts.studies[lease.study]
            is_first = block.index not in study.written
            data = f"{place} {lease.lease if nature == 'moody' else ''}".encode()
            try:
                study.write(block.index, data)
            except ResultConflict as error:
                report = replace(report, error=error)
            kept = study.first.setdefault(block.index, data)
            if study.written[block.index] != kept or (data != kept and report.error is None):
                raise Broken(f"{place}: other bytes than before are shown, or nobody was told")
            if nature == "moody" and is_first:  # it wrote, and nobody hears of it: the next attempt writes other bytes
                self.crash(worker, "killed after a write")
                return
        self._next(worker, lease, rest, [*reports, report])

    def _answer(self, worker: SimWorker, event: LeaseEnded, lease: RunLease) -> None:
        if self.hosts.happens(0.01) and self.hosts.strike([lease]):
            worker.excuse = "its answer was lost"  # the lease will run past its deadline
        elif self.hosts.happens(0.01) and self.hosts.strike([lease]):
            worker.excuse = "its answer is late"  # maybe past the deadline
            self.clock.after(self.chance.uniform(5, 100), lambda: self.send(event))
        else:
            self.clock.after(self.hosts.delay(), lambda: self.send(event))
