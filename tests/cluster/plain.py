"""The choices of the scheduler in plain Python: every study, pile and worker looked at each time, to be checked by eye.

The twin of ``cluster/queue.py`` (``Turns``) and ``cluster/affinity.py`` (``Piles``, ``choose``), which keep what this
looks for. ``test_affinity`` compares the two wherever the simulator comes to a choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.affinity import Choice, WorkerView, home
from cluster.lease import BlockCosts, Lease, Limits
from cluster.messages import Reason
from cluster.queue import QueuedStudy
from cluster.submission import Pile


@dataclass(frozen=True)
class Offer:
    """A pile with waiting blocks. ``place``: of its study and of itself, in the order of submission."""

    place: tuple[int, int]
    study: str
    pile: Pile
    backlog_s: float
    load_s: float


@dataclass(frozen=True)
class Holder:
    """A ready worker and the keys of the piles it holds: by what it reported, and by the leases that it has."""

    view: WorkerView
    warm: frozenset[str]


def turns(
    waiting: Sequence[QueuedStudy], served_s: Mapping[str, float], now_s: float, limits: Limits
) -> Iterator[tuple[list[QueuedStudy], bool]]:
    """Yield groups of studies to choose from, best first; the flag marks a single study that waited too long."""
    for priority in sorted({study.submission.priority for study in waiting}, reverse=True):
        peers = [study for study in waiting if study.submission.priority == priority]
        lowest = min(served_s.get(study.submitter, 0.0) for study in peers)
        ahead = [study for study in peers if served_s.get(study.submitter, 0.0) > lowest + limits.fair_s]
        level = [study for study in peers if served_s.get(study.submitter, 0.0) <= lowest + limits.fair_s]
        overdue = [study for study in level if now_s - study.since_s > limits.wait_s_max]
        if overdue and len(level) > 1:
            yield [min(overdue, key=lambda study: (study.since_s, study.place))], True
        yield level, False
        if ahead:
            yield ahead, False


def offers(studies: Sequence[QueuedStudy], costs: BlockCosts) -> list[Offer]:
    """Return the piles of these studies that have waiting blocks."""
    found = []
    for study in studies:
        for place, pile in enumerate(study.submission.piles):
            if count := (pile.blocks & study.waiting).bit_count():
                cells = study.submission.cells[(pile.blocks & -pile.blocks).bit_length() - 1]
                backlog_s = costs.seconds(study.submission.study, cells, 1) * count
                load_s = costs.load_seconds(pile.bytes)
                found.append(Offer((study.place, place), study.submission.study, pile, backlog_s, load_s))
    return found


def holders(
    studies: Mapping[str, QueuedStudy], workers: Mapping[str, WorkerView], leases: Mapping[str, Lease]
) -> list[Holder]:
    """Return the ready workers, in the order of arrival."""
    piles = [pile for study in studies.values() for pile in study.submission.piles]
    ready = [worker for worker in workers.values() if worker.status == "ready"]
    return [
        Holder(
            worker,
            frozenset(pile.key for pile in piles if is_held(pile, worker.holdings))
            | {leases[name].pile for name in worker.leases},
        )
        for worker in ready
    ]


def is_held(pile: Pile, holdings: Mapping[str, int]) -> bool:
    """Whether these holdings make a worker warm for the pile: at least half of the bytes, and some."""
    held = sum(min(size, holdings.get(shard, 0)) for shard, size in pile.needs.items())
    return held > 0 and 2 * held >= pile.bytes


def choose(worker: Holder, offers: Sequence[Offer], ready: Sequence[Holder]) -> tuple[Offer, Reason] | None:
    """Return the pile this worker should take a lease of, and why; None when it had better wait."""
    warm = [offer for offer in offers if offer.pile.key in worker.warm]
    if warm:
        return min(warm, key=lambda offer: (-_share(offer.pile, worker.view.holdings), offer.place)), "warm"
    count = {offer.pile.key: sum(offer.pile.key in other.warm for other in ready) for offer in offers}
    unheld = [offer for offer in offers if not count[offer.pile.key]]
    for offer in unheld:
        if home(offer.pile.key, [other.view.name for other in ready]) == worker.view.name:
            return offer, "home"
    if unheld:
        return min(unheld, key=lambda offer: (-offer.backlog_s, offer.place)), "backlog"
    heat = {offer.place: offer.backlog_s / count[offer.pile.key] / offer.load_s for offer in offers}
    hot = [offer for offer in offers if heat[offer.place] > 1]
    return (min(hot, key=lambda offer: (-heat[offer.place], offer.place)), "replica") if hot else None


def _share(pile: Pile, holdings: Mapping[str, int]) -> float:
    held = sum(min(size, holdings.get(shard, 0)) for shard, size in pile.needs.items())
    return held / pile.bytes if pile.bytes else 1.0


def choice(
    worker: str,
    studies: Mapping[str, QueuedStudy],
    ready: Sequence[Holder],
    served_s: Mapping[str, float],
    costs: BlockCosts,
    now_s: float,
    limits: Limits,
) -> Choice | None:
    """Return what a worker with a free slot gets, and None when there is nothing for it."""
    mine = next(each for each in ready if each.view.name == worker)
    waiting = [study for study in studies.values() if study.waiting and study.paused_s is None]
    for group, is_overdue in turns(waiting, served_s, now_s, limits):
        found = offers(sorted(group, key=lambda study: study.place), costs)
        chosen = choose(mine, found, ready)
        if chosen is None and is_overdue:
            chosen = found[0], "overdue"
        if chosen is not None:
            return Choice(chosen[0].study, chosen[0].place[1], chosen[1])
    return None
