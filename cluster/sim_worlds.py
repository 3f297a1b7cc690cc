"""What a world is made of: its kind, its studies, the limits of its schedulers, how much goes wrong.

A wild world has a little of everything and all faults; a barren one has no hosts for a while. The calm ones are each
made for one question: *shares*, *overdue*, *urgent* (whose turn it is) and *homes* (where work goes); there nothing
goes wrong, so that bounds can be tight.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cluster.lease import Limits
from cluster.sim_checks import Shares
from cluster.sim_cluster import Nature, SimBlock, SimStudy
from cluster.sim_store import Faults

WorldKind = Literal["wild", "shares", "overdue", "urgent", "homes", "barren"]
KINDS: tuple[WorldKind, ...] = ("wild",) * 7 + ("shares", "overdue", "urgent", "homes", "barren")
WILD = Limits(
    workers_max=3,
    idle_s=5.0,
    start_s=20.0,
    deadline_s=46.0,
    deadline_factor=6.0,
    watchdog_s=30.0,
    fair_s=4.0,
    wait_s_max=20.0,
)
SHARDS = [f"{number:02x}" for number in range(16)]
SHARD_BYTES = 1000


@dataclass(frozen=True)
class WorldPlan:
    """What is decided of a world before it begins; at_s, when each study is submitted."""

    kind: WorldKind
    studies: tuple[SimStudy, ...]
    at_s: tuple[float, ...]
    limits: Limits
    trouble: float = 0.0
    slots: tuple[int, ...] = (1,)
    shares: Shares | None = None

    @property
    def is_calm(self) -> bool:
        return self.kind not in ("wild", "barren")


def make_world(chance: random.Random, faults: Faults) -> WorldPlan:
    """Return the plan of a random world."""
    kind = chance.choice(KINDS)
    return {
        "wild": wild, "barren": barren, "shares": shares, "overdue": overdue, "urgent": urgent, "homes": homes,
    }[kind](chance, faults)  # fmt: skip


def wild(chance: random.Random, faults: Faults) -> WorldPlan:
    studies = tuple(_wild_studies(chance, faults))
    limits = replace(
        WILD,
        workers_max=chance.randint(1, 4),
        backlog_s_per_worker=chance.choice([0.0, 5.0]),
        lease_s=chance.choice([0.3, 1.0, 3.0]),
        start_failures_max=chance.choice([4, 100]),
        queue_blocks_max=chance.choice([1_000_000, 1_000_000, max(len(study.blocks) for study in studies) + 10]),
    )
    at_s = tuple(chance.uniform(0, 20) for _ in studies)
    return WorldPlan("wild", studies, at_s, limits, chance.choice([0.3, 1.0, 1.0, 3.0]), (1, 1, 2, 4))


def barren(chance: random.Random, faults: Faults) -> WorldPlan:
    """For a while there are no hosts."""
    made = wild(chance, faults)
    return replace(made, kind="barren", limits=replace(made.limits, start_failures_max=4), trouble=0.5)


def shares(chance: random.Random, faults: Faults) -> WorldPlan:
    """Submitters with other bytes each and more work than time; one of them comes later."""
    workers, slots = chance.choice([(1, 1), (1, 2), (2, 1)])
    studies, at_s = [], []
    for number, name in enumerate(["ann", "bob", "eve"][: chance.randint(2, 3)]):
        blocks = [_block(chance, index, [SHARDS[number]], 0.4) for index in range(60)]
        studies.append(SimStudy(f"study{number}", name, 0, blocks))
        at_s.append(12.0 * (number == chance.choice([1, 2])) + 0.1 * number)
    limits = replace(WILD, workers_max=workers, lease_s=0.3, fair_s=1.0, lease_blocks_max=1)
    in_flight_s = workers * slots * limits.ahead_per_slot * 0.5
    apart = Shares(2 * limits.fair_s + in_flight_s + 2.0)
    return WorldPlan("shares", tuple(studies), tuple(at_s), limits, slots=(slots,), shares=apart)


def overdue(chance: random.Random, faults: Faults) -> WorldPlan:
    """One submitter, one worker, studies that need other bytes each: a warm cache alone would serve the first one."""
    studies = [
        SimStudy(f"study{number}", "ann", 0, [_block(chance, i, [SHARDS[number]], 0.6) for i in range(40)])
        for number in range(chance.randint(2, 3))
    ]
    limits = replace(WILD, workers_max=1, lease_s=0.3, fair_s=1.0, wait_s_max=4.0, lease_blocks_max=1)
    return WorldPlan("overdue", tuple(studies), tuple(0.1 * number for number in range(len(studies))), limits)


def urgent(chance: random.Random, faults: Faults) -> WorldPlan:
    """One worker, studies of several priorities that come in any order."""
    names, studies = ["ann", "bob"], []
    for number, priority in enumerate(chance.sample([0, 3, 9], 3)):
        blocks = [_block(chance, i, [SHARDS[number]], 0.2) for i in range(24)]
        studies.append(SimStudy(f"study{number}", chance.choice(names), priority, blocks))
    limits = replace(WILD, workers_max=1, lease_s=0.3, fair_s=100.0)
    return WorldPlan("urgent", tuple(studies), tuple(chance.uniform(0, 5) for _ in studies), limits)


def homes(chance: random.Random, faults: Faults) -> WorldPlan:
    """One study over many universes, several workers, caches that hold everything."""
    universes = [[shard] for shard in SHARDS[: chance.randint(8, 16)]]
    blocks = [
        _block(chance, index, universes[index % len(universes)], 0.3)
        for index in range(len(universes) * chance.randint(4, 8))
    ]
    limits = replace(WILD, workers_max=chance.randint(2, 4), lease_s=0.6)
    return WorldPlan("homes", (SimStudy("study0", "ann", 0, blocks),), (0.0,), limits)


def _block(chance: random.Random, index: int, shards: list[str], cost_s: float, nature: Nature = "good") -> SimBlock:
    cells = chance.randint(4, 6)
    return SimBlock(index, cells, dict.fromkeys(shards, SHARD_BYTES), cost_s * cells / 5, nature)


def _wild_studies(chance: random.Random, faults: Faults) -> Iterator[SimStudy]:
    weights: dict[Nature, int] = {
        "good": 70, "flaky": 1, "faulty": 2, "poison": 1, "hang": 1, "trip": 1, "moody": 1,
    }  # fmt: skip
    if faults.killers:
        weights["killer"] = 1
    for number in range(chance.randint(1, 4)):
        universes = [chance.sample(SHARDS[:6], chance.randint(1, 2)) for _ in range(chance.randint(1, 3))]
        cost_s = chance.choice([0.02, 0.1, 0.5])
        blocks = [
            _block(
                chance,
                index,
                universes[index % len(universes)],
                cost_s,
                chance.choices(list(weights), list(weights.values()))[0],
            )
            for index in range(chance.choice([1, 3, 12, 40]))
        ]
        yield SimStudy(f"study{number}", chance.choice(["ann", "bob", "eve"]), chance.choice([0, 0, 0, 5]), blocks)
