"""How many workers: a function of what is seen. Up at once, down by draining after some patience, to zero.

Starting costs a second, a cache costs a minute: hence the asymmetry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from cluster.lease import Limits


def wanted(backlog_s: float, unfinished: int, limits: Limits, least: int = 1) -> int:
    """Return the number of workers that ``backlog_s`` of expected work in ``unfinished`` blocks deserves; ``least``:
    of those that are allowed, 2 where something under suspicion should hold up nobody else."""
    if unfinished == 0:
        return limits.workers_min
    by_work = limits.workers_max
    if limits.backlog_s_per_worker > 0:
        by_work = ceil(backlog_s / limits.backlog_s_per_worker)
    return max(limits.workers_min, 1, min(max(least, by_work), unfinished, limits.workers_max))


def least_valuable(
    candidates: Sequence[tuple[str, int, Mapping[str, int]]], needed: Mapping[str, int], count: int
) -> tuple[str, ...]:
    """Return the ``count`` workers to drain first.

    ``candidates``: (worker, leases in flight, bytes per shard it holds); ``needed``: bytes per shard of the waiting
    work. First go idle ones, then those that hold least of what is needed, then least of anything, then the youngest.
    """

    def value(place: int) -> tuple[bool, int, int, int]:
        _, busy, holds = candidates[place]
        useful = sum(min(bytes_, needed.get(shard, 0)) for shard, bytes_ in holds.items())
        return busy > 0, useful, sum(holds.values()), -place

    return tuple(candidates[place][0] for place in sorted(range(len(candidates)), key=value)[:count])
