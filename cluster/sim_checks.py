"""What is asked of a simulated scheduler while it runs: everything it hears and says passes by here.

A witness keeps its own accounts and believes no label. Of any world it asks that

- an attempt is recorded before it is sent, with a number above the failures that were told, and its end afterwards;
- no block is computed again whose result the scheduler knows, or after an error that no further attempt can change;
- a block is blamed for its own error, and for a crash or a deadline only if it was alone and had been sent;
- a worker is stopped for a deadline only if something is wrong with it;
- what is refused is named, rightly; who starts workers in vain gives up, and not too early;
- a cancelled study holds no slot for long, and nobody waits without end while others are served.

Of a calm world, where nothing goes wrong, it also asks for whose turn it is, where work goes and what is fetched, with
bounds that have no room for another policy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b
from operator import or_

from cluster.driver import Driver
from cluster.lease import Limits
from cluster.messages import Event, LeaseCrashed, LeaseEnded, RunLease, Submitted, Tick, WorkerLost, WorkerReady
from cluster.sim_cluster import Hosts, SimWorker
from cluster.sim_store import Broken
from cluster.state import State
from cluster.submission import BlockSet, Pile, block_set, members
from farm.results.leases import SENT
from farm.values.errors import FarmError, ResultConflict, is_away

GRACE_S = 3.0
"""What a deadline may be late by: messages take up to a second, three times that if they are sent twice."""


@dataclass(frozen=True)
class Shares:
    """Between submitters of equal priority who all wait: how far their service may be apart, in seconds of work."""

    apart_s: float


@dataclass
class History:
    """What a world remembers across its schedulers."""

    stops: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)


class Witness:
    """Looks at one scheduler. ``is_calm``: nothing goes wrong in its world."""

    def __init__(self, hosts: Hosts, limits: Limits, history: History, *, is_calm: bool, shares: Shares | None) -> None:
        self.hosts = hosts
        self.limits = limits
        self.history = history
        self.is_calm = is_calm
        self.shares = shares
        self.driver: Driver | None = None
        self.failures: dict[str, Counter[int]] = defaultdict(Counter)
        self.hopeless: set[tuple[str, int]] = set()
        self.flying: dict[str, RunLease] = {}
        self.over: dict[str, RunLease] = {}
        self.known: dict[str, BlockSet] = defaultdict(int)
        self.blamable: set[tuple[str, int]] = set()
        self.told: list[tuple[str, int, FarmError]] = []
        self.owed: dict[str, set[int]] = defaultdict(set)
        self.held: dict[str, set[str]] = defaultdict(set)
        self.served_s: dict[str, float] = defaultdict(float)
        self.offset_s: dict[str, float] = {}
        self.leased_s: dict[str, float] = {}
        self.cancelled_s: dict[str, float] = {}
        self.urgent_s: dict[str, float] = {}
        self.full_s = 0.0
        self.vain = self.vain_in_all = 0
        self.starting_lost: set[str] = set()

    @property
    def state(self) -> State:
        assert self.driver is not None
        return self.driver.state

    def loaded(self, study: str, nonce: str, done: BlockSet) -> None:
        """The scheduler was told of a study, what of it is done and what has failed."""
        self.known[study] = done
        records = self.hosts.store.attempts(study).values()
        self.failures[nonce] = Counter(block for each in records if each.nonce == nonce for block in each.failed)
        self.leased_s[study] = self.hosts.clock.now_s
        self.cancelled_s.pop(study, None)

    # What passes by

    def heard(self, event: Event) -> None:
        self.blamable = set(self._blamable(event))
        if isinstance(event, LeaseEnded):
            lease = self.flying.pop(event.lease, None)
            done = block_set(report.block for report in event.reports if report.error is None)
            runs = [held.run for name, held in self.state.leases.items() if name != event.lease]
            others = reduce(or_, (run.blocks for run in runs if run.study == event.study), 0)
            self.known[event.study] |= done & ~others
            if lease is not None:
                self.over[event.lease] = lease
                self.served_s[self.hosts.studies[event.study].submitter] += sum(one.seconds for one in event.reports)
                errors = {one.block: one.error for one in event.reports if one.error is not None}
                self.told += [(lease.nonce, block, error) for block, error in errors.items()]
                self.owed[event.lease] = {block for block, error in errors.items() if not is_away(error)}
                if self.is_calm:
                    self._fetched(lease, sum(one.bytes_fetched for one in event.reports))
        elif isinstance(event, LeaseCrashed):
            lease = self.flying.pop(event.lease, None)
            if lease is not None:
                self.over[event.lease] = lease
                self._looked_up(lease)
        elif isinstance(event, WorkerLost):
            self._worker_lost(event)
        elif isinstance(event, WorkerReady):
            worker = self.state.workers.get(event.worker)
            if worker is not None and worker.status == "starting":  # not one of an earlier scheduler, nor told twice
                self.vain = self.vain_in_all = 0
        elif isinstance(event, Submitted):
            self.vain = 0  # whoever submits may know that workers come up now

    def blamed(self, event: Event, before: Mapping[str, Mapping[int, int]]) -> None:
        """The scheduler has taken the event; ``before``: how often its blocks had failed until then."""
        for name, study in self.state.studies.items():
            for block, count in study.failures.items():
                is_more = name in before and count > before[name].get(block, 0)
                if is_more and (name, block) not in self.blamable:
                    raise Broken(f"block {block} of {name} is blamed for what it did not do alone: {event}")

    def _blamable(self, event: Event) -> Iterator[tuple[str, int]]:
        """Yield the blocks that an event may count against."""
        if isinstance(event, LeaseEnded):
            yield from ((event.study, report.block) for report in event.reports if report.error is not None)
        groups: list[list[RunLease]] = []
        if isinstance(event, LeaseCrashed):
            groups = [[self.flying[event.lease]] if event.lease in self.flying else []]
        elif isinstance(event, WorkerLost):
            groups = [[lease for lease in self.flying.values() if lease.worker == event.worker]]
        elif isinstance(event, Tick):
            late = {held.run.worker for held in self.state.leases.values() if held.run.deadline_s <= event.now_s}
            groups = [[held.run for held in self.state.leases.values() if held.run.worker == name] for name in late]
            groups = [group for group in groups if all(run.lease in self.flying for run in group)]
        for group in groups:
            if len(group) == 1 and group[0].blocks.bit_count() == 1:
                yield group[0].study, group[0].blocks.bit_length() - 1

    def asked(self, lease: RunLease) -> None:
        """A lease is about to be sent."""
        if lease.lease not in self.hosts.store.attempts(lease.study):
            raise Broken(f"lease {lease.lease} is sent and was not recorded")
        if lease.blocks & self.known[lease.study]:
            raise Broken(f"lease {lease.lease} of {lease.study}: a block is computed again whose result is known")
        for block in members(lease.blocks):
            if self.failures[lease.nonce][block] >= lease.attempt:
                raise Broken(f"block {block} of {lease.study}: attempt {lease.attempt} does not count its failures")
            if (lease.nonce, block) in self.hopeless:
                raise Broken(f"block {block} of {lease.study}: tried again after an error that stays")
        if lease.attempt > self.limits.attempts_max:
            raise Broken(f"lease {lease.lease} is attempt {lease.attempt}")
        if lease.worker not in self.state.workers:
            raise Broken(f"lease {lease.lease} goes to {lease.worker}, which is not there")
        beside = [each for each in self.flying.values() if each.worker == lease.worker]
        if beside and "retry" in {lease.reason, *(each.reason for each in beside)}:
            raise Broken(f"lease {lease.lease} shares {lease.worker} with {beside[0].lease}; one is under suspicion")
        if self.is_calm:
            self._turn(lease)
            self._place(lease)
        self.flying[lease.lease] = lease
        self.held[lease.worker].add(self._pile(lease).key)
        self.leased_s[lease.study] = self.hosts.clock.now_s

    def stopping(self, worker: SimWorker | None, name: str, why: str) -> None:
        self.history.stops[why] += 1
        leases = [each for each in self.flying.values() if each.worker == name]
        for lease in leases:
            self.over[lease.lease] = self.flying.pop(lease.lease)
        if why == "did not come up in time":
            self.vain, self.vain_in_all = self.vain + 1, self.vain_in_all + 1
            self.starting_lost.add(name)
        if "deadline" in why and worker is not None and name in self.state.workers:
            is_cancelled = any(lease.study in self.cancelled_s for lease in leases)
            if not worker.excuse and not is_cancelled:
                raise Broken(f"{name} is stopped for a deadline, and nothing is wrong with it")
        if why == "not needed" and leases:
            raise Broken(f"{name} is not needed and holds {[lease.lease for lease in leases]}")
        if why == "not needed" and self.is_calm and self.hosts.clock.now_s < self.full_s + self.limits.idle_s - 1e-6:
            raise Broken(f"{name} is not needed {self.hosts.clock.now_s - self.full_s:.1f} s after all were")

    def gave_up(self) -> None:
        if self.vain_in_all < self.limits.start_failures_max:
            raise Broken(f"gave up after {self.vain_in_all} starts in vain")

    def after_turn(self) -> None:
        """The scheduler lived through a turn: what it was told has to show."""
        for nonce, block, error in self.told:
            if is_away(error):
                continue  # blames nobody
            self.failures[nonce][block] += 1
            if isinstance(error, ResultConflict):
                self.hopeless.add((nonce, block))
        self.told.clear()
        assert self.driver is not None
        now_s = self.driver.now_s  # its own time, which stands still while the bucket fails it
        for name, at_s in self.cancelled_s.items():
            is_late = now_s > at_s + self.limits.cancel_s + GRACE_S + self.hosts.store.latency_s * 20
            if is_late and any(held.run.study == name for held in self.state.leases.values()):
                raise Broken(f"{name} was cancelled at {at_s:.1f} and holds a slot at {now_s:.1f}")
        self._needed()
        serves = any(worker.status in ("ready", "draining") for worker in self.state.workers.values())
        if not serves and self.vain > self.limits.start_failures_max + 2 * self.limits.workers_max:
            raise Broken(f"{self.vain} starts in vain, and still trying")
        queued = sum(len(study.submission.cells) for study in self.state.studies.values())
        if queued > self.limits.queue_blocks_max:
            raise Broken(f"{queued} blocks in a queue of {self.limits.queue_blocks_max}")
        self._starving()
        if self.shares is not None:
            self._shares(self.shares)

    def at_end(self) -> None:
        """The scheduler has nothing left to do: what it saw end is recorded as ended."""
        for name, lease in self.over.items():
            record = self.hosts.store.attempts(lease.study)[name]
            if record.outcome == SENT or not self.owed[name] <= set(record.failed):
                raise Broken(f"lease {name} has ended, and its record does not say so, or how: {record}")

    # Of any world

    def _looked_up(self, lease: RunLease) -> None:
        """Before anything is suspected the catalog was asked, where there is one to ask: what it holds is known."""
        if self.hosts.asks and not self.hosts.store.latency_s:
            self.known[lease.study] |= lease.blocks & block_set(self.hosts.studies[lease.study].written)

    def _worker_lost(self, event: WorkerLost) -> None:
        for name in [name for name, lease in self.flying.items() if lease.worker == event.worker]:
            self.over[name] = self.flying.pop(name)
            self._looked_up(self.over[name])
        worker = self.state.workers.get(event.worker)
        if worker is not None and worker.status == "starting" and event.worker not in self.starting_lost:
            self.starting_lost.add(event.worker)
            self.vain, self.vain_in_all = self.vain + 1, self.vain_in_all + 1

    def _starving(self) -> None:
        """While others of its priority get leases, a study waits a bounded time for its next one; the time in which a
        more urgent one is there does not count."""
        waiting = [study for study in self.state.studies.values() if study.waiting and study.paused_s is None]
        most = max((study.submission.priority for study in self.state.studies.values()), default=0)
        for study in waiting:
            name, priority = study.submission.study, study.submission.priority
            if priority < most:
                self.urgent_s[name] = self.hosts.clock.now_s
            since_s = max(self.leased_s[name], self.urgent_s.get(name, 0.0))
            peers = [other for other in waiting if other.submission.priority >= priority]
            latest_s = max(
                self.leased_s[other.submission.study]
                for other in self.state.studies.values()
                if other.submission.priority <= priority
            )
            per_peer_s = 1 + self.limits.fair_s + self.limits.lease_s
            hung_s = 0 if self.is_calm else 10 * self.limits.deadline_s
            bound_s = (
                self.limits.wait_s_max
                + hung_s
                + (2 if self.is_calm and not self.shares else 40) * len(peers) * per_peer_s
            )
            if latest_s - since_s > bound_s:
                raise Broken(f"{name} starves since {since_s:.1f}, at {latest_s:.1f}")

    # Of a calm world

    def _needed(self) -> None:
        """Note when there was last a block for every worker."""
        state = self.state
        blocks = sum(study.waiting.bit_count() for study in state.studies.values())
        blocks += sum(held.count for held in state.leases.values())
        present = [worker for worker in state.workers.values() if worker.status in ("starting", "ready")]
        if blocks >= len(present) > 0:
            self.full_s = self.hosts.clock.now_s

    def _turn(self, lease: RunLease) -> None:
        """With a single worker nothing can excuse work of a lower priority."""
        mine = self.state.studies[lease.study].submission.priority
        higher = [s for s in self.state.studies.values() if s.waiting and s.submission.priority > mine]
        if higher and len(self.state.workers) == 1:
            raise Broken(f"{lease.study} is served before {higher[0].submission.study}, which is more urgent")

    def _place(self, lease: RunLease) -> None:
        """Each reason is true: warm where it was, home where rendezvous says, a replica where all are held."""
        pile = self._pile(lease)
        ready = sorted(name for name, worker in self.state.workers.items() if worker.status == "ready")
        holders = [name for name in ready if pile.key in self.held[name]]
        if (lease.reason == "warm") != (lease.worker in holders) and lease.reason not in ("overdue", "retry"):
            raise Broken(f"lease {lease.lease} is {lease.reason!r}; holders of its pile are {holders}")
        if lease.reason not in ("home", "backlog", "replica") or len(self.state.studies) > 1:
            return
        waiting = self.state.studies[lease.study]
        others = [each for each in waiting.submission.piles if each.blocks & waiting.waiting & ~lease.blocks]
        unheld = [each for each in others if not any(each.key in self.held[name] for name in ready)]
        if any(each.key in self.held[lease.worker] for each in others):
            raise Broken(f"lease {lease.lease} is {lease.reason!r} though {lease.worker} holds what others wait for")
        if lease.reason == "home" and home(pile.key, ready) != lease.worker:
            raise Broken(f"lease {lease.lease} is at home on {lease.worker}, not on {home(pile.key, ready)}")
        if lease.reason == "backlog" and any(home(each.key, ready) == lease.worker for each in unheld):
            raise Broken(f"lease {lease.lease} passes over a pile that is at home on {lease.worker}")
        if lease.reason == "replica":
            self._replica(lease, pile, unheld, len(holders))
        elif holders:
            raise Broken(f"lease {lease.lease} is {lease.reason!r}; its pile is held by {holders}")

    def _replica(self, lease: RunLease, pile: Pile, unheld: list[Pile], holders: int) -> None:
        study = self.state.studies[lease.study]
        blocks = pile.blocks & (study.waiting | lease.blocks)
        costs = self.state.costs
        cells = study.submission.cells[next(members(pile.blocks))]
        backlog_s = costs.seconds(lease.study, cells, 1) * blocks.bit_count()
        if unheld:
            raise Broken(f"lease {lease.lease} is a replica while nobody holds {unheld[0].key}")
        if backlog_s / max(1, holders) < 0.9 * (costs.load_s_prior + costs.byte_s * pile.bytes):
            raise Broken(f"lease {lease.lease} is a replica for {backlog_s:.2f} s of work")

    def _fetched(self, lease: RunLease, bytes_fetched: int) -> None:
        self.history.fetched[lease.reason] += bytes_fetched
        if lease.reason == "warm" and bytes_fetched:
            slots = self.state.workers[lease.worker].slots if lease.worker in self.state.workers else 1
            if slots == 1:
                raise Broken(f"lease {lease.lease} is warm and fetched {bytes_fetched} bytes")

    def _shares(self, shares: Shares) -> None:
        """From when a submitter comes, all who wait are served alike."""
        waiting = {study.submitter for study in self.state.studies.values() if study.waiting}
        if waiting != set(self.offset_s):
            self.offset_s = {name: self.served_s[name] for name in waiting}
        served = {name: self.served_s[name] - self.offset_s[name] for name in waiting}
        if len(served) > 1 and max(served.values()) - min(served.values()) > shares.apart_s:
            raise Broken(f"served {served} s of work; at most {shares.apart_s:.1f} s apart is fair")

    def _pile(self, lease: RunLease) -> Pile:
        piles = self.state.studies[lease.study].submission.piles
        return next(pile for pile in piles if pile.blocks & lease.blocks)


def home(key: str, workers: list[str]) -> str:
    """Return the rendezvous home of a pile, computed anew: what the scheduler says is what is in question."""

    def weight(worker: str) -> int:
        key_seed, seed = (
            int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name in (key, worker)
        )
        mixed = (key_seed ^ seed) * 0x9E3779B97F4A7C15 % 2**64
        return (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 % 2**64

    return max((weight(worker), worker) for worker in workers)[1]
