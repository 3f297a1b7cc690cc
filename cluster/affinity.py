"""Which pile a free slot gets: the one whose bytes its worker holds, at a price that is bounded.

Late binding: nothing is assigned before a slot is free. Then, in this order:

1. *warm*     the pile whose needed bytes the worker holds most of;
2. *home*     a pile nobody holds whose rendezvous home this worker is;
3. *backlog*  of the piles nobody holds, the one with the most work;
4. *replica*  a pile others hold, if ``backlog_seconds / holders`` is above the expected load: hot universes spread.

A worker holds a pile when it has at least half of the needed bytes, or was sent a lease of it. Less than half does not
count: every universe needs a few bytes (splits, instruments) that all workers have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

from cluster.lease import BlockCosts
from cluster.messages import Reason
from cluster.queue import QueuedStudy
from cluster.submission import Pile

HOLD_SHARE = 0.5


@dataclass(frozen=True)
class Offer:
    """A pile with waiting blocks. ``place``: its study and itself, in the order of submission."""

    place: tuple[int, int]
    pile: Pile
    backlog_s: float
    load_s: float


@dataclass(frozen=True)
class WorkerView:
    """One incarnation of a worker.

    Life: starting -> ready -> (draining ->) stopping -> gone, or failing -> gone. Fields: slots, its threads; leases in
    flight, oldest first; holdings, bytes per shard in its cache as last reported; warm, the keys of the piles it holds;
    since_s, when it was asked to start.
    """

    name: str
    since_s: float
    status: Literal["starting", "ready", "draining", "failing", "stopping"] = "starting"
    slots: int = 0
    leases: tuple[str, ...] = ()
    holdings: Mapping[str, int] = field(default_factory=dict)
    warm: frozenset[str] = frozenset()


def held_bytes(needs: Mapping[str, int], holdings: Mapping[str, int]) -> int:
    """Return how many of the needed bytes are held; a cache may hold more of a shard than is needed."""
    return sum(min(bytes_, holdings.get(shard, 0)) for shard, bytes_ in needs.items())


def is_held(pile: Pile, holdings: Mapping[str, int]) -> bool:
    """Whether these holdings make a worker warm for the pile."""
    held = held_bytes(pile.needs, holdings)
    return held > 0 and held >= HOLD_SHARE * pile.bytes


def home(key: str, workers: Sequence[str]) -> str:
    """Return the rendezvous home of a pile: adding a worker moves only its own share, and takes from all evenly."""
    return max(workers, key=lambda worker: (_weight(key, worker), worker))


@lru_cache(maxsize=1 << 16)
def _weight(key: str, worker: str) -> bytes:
    return blake2b(f"{key}/{worker}".encode(), digest_size=8).digest()


def offers(studies: Iterable[QueuedStudy], costs: BlockCosts) -> list[Offer]:
    """Return the piles of these studies that have waiting blocks."""
    found = []
    for study in studies:
        for place, pile in enumerate(study.submission.piles):
            waiting = (pile.blocks & study.waiting).bit_count()
            if waiting:
                backlog_s = block_s(study, pile, costs) * waiting
                found.append(Offer((study.place, place), pile, backlog_s, costs.load_seconds(pile.bytes)))
    return found


def block_s(study: QueuedStudy, pile: Pile, costs: BlockCosts) -> float:
    """Return the expected seconds of one block of the pile, by the cells of its first block."""
    cells = study.submission.cells[(pile.blocks & -pile.blocks).bit_length() - 1]
    return costs.seconds(study.submission.study, cells, 1)


def choose(worker: WorkerView, offers: Sequence[Offer], workers: Sequence[WorkerView]) -> tuple[Offer, Reason] | None:
    """Return the pile this worker should take a lease of, and why; None when it had better wait.

    ``workers``: all ready ones, this one among them.
    """
    warm = [offer for offer in offers if offer.pile.key in worker.warm]
    if warm:
        return min(warm, key=lambda offer: (-_share(offer.pile, worker.holdings), offer.place)), "warm"
    unheld, held = _split(offers, workers)
    names = [other.name for other in workers]
    for offer in unheld:
        if home(offer.pile.key, names) == worker.name:
            return offer, "home"
    if unheld:
        return min(unheld, key=lambda offer: (-offer.backlog_s, offer.place)), "backlog"
    hot = [(offer.backlog_s / holders / offer.load_s, offer) for offer, holders in held]
    hot = [(heat, offer) for heat, offer in hot if heat > 1]
    if hot:
        return min(hot, key=lambda pair: (-pair[0], pair[1].place))[1], "replica"
    return None


def _share(pile: Pile, holdings: Mapping[str, int]) -> float:
    return held_bytes(pile.needs, holdings) / pile.bytes if pile.bytes else 1.0


def _split(offers: Sequence[Offer], workers: Sequence[WorkerView]) -> tuple[list[Offer], list[tuple[Offer, int]]]:
    """Return the offers nobody holds, and the others with the number of workers that hold them."""
    unheld: list[Offer] = []
    held: list[tuple[Offer, int]] = []
    for offer in offers:
        holders = sum(offer.pile.key in worker.warm for worker in workers)
        if holders:
            held.append((offer, holders))
        else:
            unheld.append(offer)
    return unheld, held
