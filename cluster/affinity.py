"""Which pile a free slot gets: the one whose bytes its worker holds, at a price that is bounded.

Late binding: nothing is assigned before a slot is free. Then, in this order:

1. *warm*     the pile whose needed bytes the worker holds most of;
2. *home*     a pile nobody holds whose rendezvous home this worker is;
3. *backlog*  of the piles nobody holds, the one with the most work;
4. *replica*  a pile others hold, if ``backlog_seconds / holders`` is above the expected load: hot universes spread.

A worker holds a pile when it has at least half of the needed bytes, or has a lease of it. Less than half does not
count: every universe needs a few bytes (splits, instruments) that all workers have.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from operator import mul
from typing import Literal

from cluster.lease import BlockCosts
from cluster.messages import Reason
from cluster.queue import Group, QueuedStudy
from cluster.submission import Pile, members

HOLD_SHARE = 0.5


@dataclass(frozen=True)
class WorkerView:
    """One incarnation of a worker.

    Life: starting -> ready -> (draining ->) stopping -> gone, or failing -> gone. Fields: place, in the order of
    arrival; slots, its threads; leases in flight, oldest first; holdings, bytes per shard in its cache as last
    reported; since_s, when it was asked to start.
    """

    name: str
    since_s: float
    place: int = 0
    status: Literal["starting", "ready", "draining", "failing", "stopping"] = "starting"
    slots: int = 0
    leases: tuple[str, ...] = ()
    holdings: Mapping[str, int] = field(default_factory=dict)


def held_bytes(needs: Mapping[str, int], holdings: Mapping[str, int]) -> int:
    """Return how many of the needed bytes are held; a cache may hold more of a shard than is needed."""
    return sum([min(bytes_, holdings.get(shard, 0)) for shard, bytes_ in needs.items()])


def home(key: str, workers: Iterable[str]) -> str:
    """Return the rendezvous home of a pile: adding a worker moves only its own share, and takes from all evenly."""
    return max((_weight(key, worker), worker) for worker in workers)[1]


def _weight(key: str, worker: str) -> int:
    mixed = (_seed(key) ^ _seed(worker)) * 0x9E3779B97F4A7C15 & _64_BITS
    return (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & _64_BITS


_64_BITS = (1 << 64) - 1


@lru_cache(maxsize=1 << 16)
def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


class Backlog:
    """The waiting blocks of one study by pile, and which of its piles come first if a worker is warm for none.

    ``counts``: waiting blocks per pile. Piles are compared by units of work that are the same for the whole study:
    waiting blocks, times the cells of one once it is known what a cell costs. The two heaps hold what was so when it
    was put there; what is not so any more is dropped when it comes to the top.
    """

    def __init__(self, study: QueuedStudy) -> None:
        self.study = study
        self.counts = [(pile.blocks & study.waiting).bit_count() for pile in study.submission.piles]
        self._unheld: list[tuple[float, int]] = []
        self._held: list[tuple[float, int]] = []
        self._basis: tuple[bool, float, float] | None = None
        self.waiting = sum(self.counts)
        self.cells = sum(map(mul, self.counts, study.submission.pile_cells))

    def change(self, new: QueuedStudy) -> dict[int, tuple[int, int]]:
        """Take the next version of the study; return how many blocks waited and wait now, by pile, where it differs."""
        old, self.study = self.study, new
        if old.waiting == new.waiting:
            return {}
        differing, submission = old.waiting ^ new.waiting, new.submission
        if differing.bit_count() < len(submission.piles):
            places: Iterable[int] = {submission.pile_of[block]: None for block in members(differing)}
        else:
            places = range(len(submission.piles))
        changed = {}
        for place in places:
            count = (submission.piles[place].blocks & new.waiting).bit_count()
            if count != self.counts[place]:
                changed[place] = self.counts[place], count
                self.waiting += count - self.counts[place]
                self.cells += (count - self.counts[place]) * submission.pile_cells[place]
                self.counts[place] = count
        return changed

    @property
    def waiting_places(self) -> list[int]:
        """The piles in which blocks wait."""
        return [place for place, count in enumerate(self.counts) if count]

    def seconds(self, costs: BlockCosts) -> float:
        """Return the expected seconds of all that waits."""
        return costs.seconds(self.study.submission.study, self.cells, self.waiting)

    def pile_seconds(self, place: int, costs: BlockCosts) -> float:
        """Return the expected seconds of what waits in a pile."""
        return block_s(self.study, place, costs) * self.counts[place]

    def put(self, place: int, holders: int) -> None:
        """Note that the waiting blocks or the holders of a pile are others now."""
        if self._basis is None or not self.counts[place]:
            return
        heap = self._held if holders else self._unheld
        heappush(heap, self._entry(place, holders))
        if len(heap) > 64 + 4 * len(self.counts):
            self._basis = None  # it is built anew, without what is not so any more

    def _entry(self, place: int, holders: int) -> tuple[float, int]:
        assert self._basis is not None, "the heaps are built"
        is_known, load_s, byte_s = self._basis
        submission = self.study.submission
        units = self.counts[place] * (submission.pile_cells[place] if is_known else 1)
        return (-units / holders / (load_s + submission.piles[place].bytes * byte_s) if holders else -units), place

    def best(self, costs: BlockCosts, holders: Mapping[str, int], *, held: bool) -> int | None:
        """Return the place of the pile with the most work that nobody holds, or of the hottest that somebody holds;
        None when there is no such pile. ``holders``: their number, by key."""
        piles = self.study.submission.piles
        basis = costs.knows(self.study.submission.study), costs.load_s_prior, costs.byte_s
        if self._basis != basis:
            self._basis, self._unheld, self._held = basis, [], []
            for place in self.waiting_places:
                number = holders.get(piles[place].key, 0)
                (self._held if number else self._unheld).append(self._entry(place, number))
            heapify(self._unheld)
            heapify(self._held)
        heap = self._held if held else self._unheld
        while heap:
            place = heap[0][1]
            number = holders.get(piles[place].key, 0)
            if self.counts[place] and bool(number) == held and heap[0] == self._entry(place, number):
                return place
            heappop(heap)
        return None


def block_s(study: QueuedStudy, place: int, costs: BlockCosts) -> float:
    """Return the expected seconds of one block of a pile, by the cells of its first block."""
    return costs.seconds(study.submission.study, study.submission.pile_cells[place], 1)


class Key:
    """What is known of a pile that studies of the queue have. ``studies``: all of them, and its place in each;
    ``open``: those of them that are served and have blocks waiting in it, in the order of submission; ``warm``: who
    holds it, in whatever state; ``leases``: of whom how many leases of it are in flight."""

    def __init__(self, pile: Pile) -> None:
        self.pile = pile
        self.studies: dict[str, int] = {}
        self.open: list[tuple[int, int, str]] = []
        self.warm: dict[str, None] = {}
        self.leases: dict[str, int] = {}


class Stirred:
    """What may have become possible since all free slots were filled: for these workers, or through these studies."""

    def __init__(self) -> None:
        self.workers: dict[str, None] = {}
        self.studies: dict[str, None] = {}

    def clear(self) -> None:
        self.workers.clear()
        self.studies.clear()


class Piles:
    """Who holds which pile, and what waits in it. Kept as studies, workers and leases change.

    Fields: backlogs, by study; open, the keys of which a block waits and is served; warm, by worker, the keys it holds
    and the share of their bytes; holders, by key, how many ready workers hold it; unheld, the open keys nobody holds,
    and where each is at home.
    """

    def __init__(self, stirred: Stirred) -> None:
        self.stirred = stirred
        self.backlogs: dict[str, Backlog] = {}
        self.keys: dict[str, Key] = {}
        self.open: dict[str, Key] = {}
        self.warm: dict[str, dict[str, float]] = {}
        self.holders: dict[str, int] = {}
        self.unheld: dict[str, tuple[int, str] | None] = {}
        self.at_home: dict[str, dict[str, None]] = {}
        self._needing: dict[str, dict[str, None]] = {}
        self.workers: dict[str, WorkerView] = {}
        self._ready: dict[str, None] = {}

    # Studies

    def change_study(self, old: QueuedStudy | None, new: QueuedStudy | None) -> None:
        """Note that a study has changed, come or gone."""
        if new is not None and old is None:
            self._admit(new)
        known = new or old
        assert known is not None, "something is or was there"
        backlog = self.backlogs[known.submission.study]
        was_open = old is not None and old.paused_s is None
        is_open = new is not None and new.paused_s is None
        if was_open and not is_open:
            self._close(backlog, backlog.waiting_places)
        changed = backlog.change(known)
        if is_open and not was_open:
            self._open(backlog, backlog.waiting_places)
        elif is_open:
            self._open(backlog, [place for place, (was, now) in changed.items() if now and not was])
            self._close(backlog, [place for place, (was, now) in changed.items() if was and not now])
            for place, (was, now) in changed.items():
                if was and now:
                    self._more(backlog, place, is_more=now > was)
        if new is None:
            self._end(known)

    def _admit(self, study: QueuedStudy) -> None:
        name = study.submission.study
        self.backlogs[name] = Backlog(study)
        for place, pile in enumerate(study.submission.piles):
            self._key(pile).studies[name] = place

    def _end(self, study: QueuedStudy) -> None:
        name = study.submission.study
        del self.backlogs[name]
        for pile in study.submission.piles:
            del self.keys[pile.key].studies[name]
            if not self.keys[pile.key].studies:
                self._forget(pile.key)

    def _open(self, backlog: Backlog, places: Iterable[int]) -> None:
        submission = backlog.study.submission
        for place in places:
            key = submission.piles[place].key
            known = self.open[key] = self.keys[key]
            insort(known.open, (backlog.study.place, place, submission.study))
            if not self.holders.get(key) and key not in self.unheld:
                self._seek_home(key)
            self._more(backlog, place, is_more=True)

    def _close(self, backlog: Backlog, places: Iterable[int]) -> None:
        submission = backlog.study.submission
        for place in places:
            known = self.keys[submission.piles[place].key]
            known.open.remove((backlog.study.place, place, submission.study))
            if not known.open:
                del self.open[known.pile.key]
                self._leave_home(known.pile.key)

    def _more(self, backlog: Backlog, place: int, *, is_more: bool) -> None:
        """Note that other blocks wait in a pile than before."""
        key = backlog.study.submission.piles[place].key
        backlog.put(place, self.holders.get(key, 0))
        if is_more:
            self.stirred.studies[backlog.study.submission.study] = None
            self.stirred.workers.update(self.keys[key].warm)

    def _key(self, pile: Pile) -> Key:
        if pile.key in self.keys:
            return self.keys[pile.key]
        known = self.keys[pile.key] = Key(pile)
        for shard in pile.needs:
            self._needing.setdefault(shard, {})[pile.key] = None
        for worker in self.workers.values():
            if not worker.holdings.keys().isdisjoint(pile.needs):
                self._weigh(worker, known)
        return known

    def _forget(self, key: str) -> None:
        known = self.keys.pop(key)
        for shard in known.pile.needs:
            del self._needing[shard][key]
            if not self._needing[shard]:
                del self._needing[shard]
        for worker in known.warm:
            del self.warm[worker][key]
        self.holders.pop(key, None)

    # Workers

    def change_worker(self, old: WorkerView | None, new: WorkerView | None) -> None:
        """Note that a worker has changed, come or gone."""
        if old is None and new is not None:
            self.warm[new.name] = {}
        if new is not None:
            self.workers[new.name] = new
            before = old.holdings if old is not None else {}
            if before is not new.holdings and before != new.holdings:
                changed = [shard for shard, _ in before.items() ^ new.holdings.items() if shard in self._needing]
                for key in {key: None for shard in changed for key in self._needing[shard]}:
                    self._weigh(new, self.keys[key])
        was, now = old is not None and old.status == "ready", new is not None and new.status == "ready"
        if now and not was and new is not None:
            self._join(new.name)
        if was and not now and old is not None:
            self._leave(old.name)
        if new is None and old is not None:
            del self.workers[old.name]
            for key in self.warm.pop(old.name):
                del self.keys[key].warm[old.name]

    def change_lease(self, worker: str, key: str, by: int) -> None:
        """Note that a worker has one lease of a pile more, or one less."""
        leases = self.keys[key].leases
        leases[worker] = leases.get(worker, 0) + by
        if not leases[worker]:
            del leases[worker]
        if worker in self.workers and (leases.get(worker, 0), by) in ((0, -1), (1, 1)):
            self._weigh(self.workers[worker], self.keys[key])

    def _weigh(self, worker: WorkerView, known: Key) -> None:
        """Find out whether a worker holds a pile, and how much of it."""
        pile, warm = known.pile, self.warm[worker.name]
        was = pile.key in warm
        held = held_bytes(pile.needs, worker.holdings)
        if worker.name in known.leases or (held > 0 and held >= HOLD_SHARE * pile.bytes):
            warm[pile.key] = held / pile.bytes if pile.bytes else 1.0
            known.warm[worker.name] = None
            self.stirred.workers[worker.name] = None
        elif was:
            del warm[pile.key], known.warm[worker.name]
        if was != (pile.key in warm) and worker.name in self._ready:
            self._count(known, -1 if was else 1)

    def _count(self, known: Key, by: int) -> None:
        """Note that one ready worker more, or less, holds a pile."""
        key = known.pile.key
        count = self.holders[key] = self.holders.get(key, 0) + by
        if not count:
            del self.holders[key]
        for _, place, study in known.open:
            self.backlogs[study].put(place, count)
            if by < 0:
                self.stirred.studies[study] = None
        if known.open and not count:
            self._seek_home(key)
        elif count:
            self._leave_home(key)

    # Homes

    def _join(self, worker: str) -> None:
        """A worker is ready: what it holds is held, and of what nobody holds it takes its share home."""
        for key in self.warm[worker]:
            self._count(self.keys[key], 1)
        self._ready[worker] = None
        for key, best in self.unheld.items():
            mine = _weight(key, worker), worker
            if best is None or mine > best:
                self._move_in(key, mine)

    def _leave(self, worker: str) -> None:
        del self._ready[worker]
        for key in self.at_home.pop(worker, ()):
            self.unheld[key] = None
            self._seek_home(key)
        for key in self.warm[worker]:
            self._count(self.keys[key], -1)

    def _seek_home(self, key: str) -> None:
        self.unheld[key] = None
        if self._ready:
            worker = home(key, self._ready)
            self._move_in(key, (_weight(key, worker), worker))

    def _move_in(self, key: str, best: tuple[int, str]) -> None:
        before = self.unheld[key]
        if before is not None:
            del self.at_home[before[1]][key]
        self.unheld[key] = best
        self.at_home.setdefault(best[1], {})[key] = None

    def _leave_home(self, key: str) -> None:
        best = self.unheld.pop(key, None)
        if best is not None:
            del self.at_home[best[1]][key]

    # Choices

    def is_wanted(self, study: str, costs: BlockCosts) -> bool:
        """Whether any worker, whatever it holds, should take a lease of the study."""
        backlog = self.backlogs[study]
        if backlog.study.paused_s is not None:
            return False
        if backlog.best(costs, self.holders, held=False) is not None:
            return True
        place = backlog.best(costs, self.holders, held=True)
        return place is not None and self.heat(backlog, place, costs) > 1

    def heat(self, backlog: Backlog, place: int, costs: BlockCosts) -> float:
        """Return what waits in a pile for each of its holders, in parts of what it costs to become one."""
        pile = backlog.study.submission.piles[place]
        return backlog.pile_seconds(place, costs) / self.holders[pile.key] / costs.load_seconds(pile.bytes)

    def first_of(
        self, keys: Iterable[str], group: Group, studies: Mapping[str, QueuedStudy]
    ) -> Iterator[tuple[str, tuple[int, int, str]]]:
        """Yield for each of these keys that is open the first place of it, if the group has one."""
        for key in keys:
            known = self.open.get(key)
            if known is not None:
                first = next((each for each in known.open if studies[each[2]] in group), None)
                if first is not None:
                    yield key, first


@dataclass(frozen=True)
class Choice:
    """The pile of a study that a worker should take a lease of, and why."""

    study: str
    place: int
    reason: Reason


def choose(
    worker: str, group: Group, studies: Mapping[str, QueuedStudy], piles: Piles, costs: BlockCosts
) -> Choice | None:
    """Return the pile of these studies that a worker should take a lease of; None when it had better wait."""
    shares = piles.warm[worker]
    mine = shares if len(shares) <= len(piles.open) else [key for key in piles.open if key in shares]
    warm = [(-shares[key], *place) for key, place in piles.first_of(mine, group, studies)]
    if warm:
        _, _, place, study = min(warm)
        return Choice(study, place, "warm")
    homes = [place for _, place in piles.first_of(piles.at_home.get(worker, ()), group, studies)]
    if homes:
        _, place, study = min(homes)
        return Choice(study, place, "home")
    if found := _most(group, piles, costs, held=False):
        return Choice(*found[0], "backlog")
    found = _most(group, piles, costs, held=True)
    return Choice(*found[0], "replica") if found and found[1] > 1 else None


def _most(group: Group, piles: Piles, costs: BlockCosts, *, held: bool) -> tuple[tuple[str, int], float] | None:
    """Return of the piles nobody holds the one with the most work, or of the others the hottest; and how much it is."""
    best: tuple[float, int, int, str] | None = None
    for study in group:
        backlog = piles.backlogs[study]
        place = backlog.best(costs, piles.holders, held=held)
        if place is not None:
            size = piles.heat(backlog, place, costs) if held else backlog.pile_seconds(place, costs)
            rank = -size, backlog.study.place, place, study
            best = rank if best is None else min(best, rank)
    return None if best is None else ((best[3], best[2]), -best[0])
