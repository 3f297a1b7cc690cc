"""Pruning, purely: which row groups provably hold no wanted row.

Three layers, cheapest first: the group's time range, its symbol range, then exact membership (the symbol's own days in
that group). Pruning may err in one direction only: what is unknown keeps the group, and is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What happens to a row group, and why."""

    KEEP = "keep"
    KEEP_UNKNOWN = "unknown"
    """Kept because some layer could not tell, and none could exclude it."""
    PRUNE_TIME = "time"
    PRUNE_RANGE = "symbol range"
    PRUNE_MEMBERSHIP = "membership"

    @property
    def keeps(self) -> bool:
        """Whether the group is read."""
        return self in (Verdict.KEEP, Verdict.KEEP_UNKNOWN)


PRUNE_REASONS = tuple(verdict.value for verdict in Verdict if not verdict.keeps)


@dataclass(frozen=True)
class Wanted:
    """The rows a run wants: symbols (ascending, each once) on days in [first_day, last_day]."""

    symbols: tuple[str, ...]
    first_day: int
    last_day: int


@dataclass(frozen=True)
class GroupFacts:
    """What is known of a row group; None = unknown. ``members``: symbol -> first and last day of its rows."""

    days: tuple[int, int] | None
    symbols: tuple[str, str] | None
    members: Mapping[str, tuple[int, int]] | None


def decide(facts: GroupFacts, wanted: Wanted) -> Verdict:
    """Return whether a row group is kept, and by which layer it is pruned otherwise."""
    if not wanted.symbols:
        return Verdict.PRUNE_MEMBERSHIP
    if facts.days is not None and not _overlap(facts.days, wanted):
        return Verdict.PRUNE_TIME
    if facts.symbols is not None:
        at = bisect_left(wanted.symbols, facts.symbols[0])
        if at == len(wanted.symbols) or wanted.symbols[at] > facts.symbols[1]:
            return Verdict.PRUNE_RANGE
    if facts.members is None:
        return Verdict.KEEP_UNKNOWN
    if not any(_is_member(facts.members, symbol, wanted) for symbol in wanted.symbols):
        return Verdict.PRUNE_MEMBERSHIP
    return Verdict.KEEP_UNKNOWN if facts.days is None or facts.symbols is None else Verdict.KEEP


def _is_member(members: Mapping[str, tuple[int, int]], symbol: str, wanted: Wanted) -> bool:
    days = members.get(symbol)
    return days is not None and _overlap(days, wanted)


def _overlap(days: tuple[int, int], wanted: Wanted) -> bool:
    return days[0] <= wanted.last_day and days[1] >= wanted.first_day
