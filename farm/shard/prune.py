"""Pruning, purely: which row groups of a shard provably hold no wanted row.

Three layers, cheapest first: the group's time range, its symbol range, then exact membership (the symbol's own days in
that group). Pruning may err in one direction only: what is unknown keeps the group, and is counted. All groups of a
shard are decided at once, by arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from farm.values.arrays import BOOL, I32, I64


class Verdict(IntEnum):
    """What happens to a row group, and why."""

    KEEP = 0
    KEEP_UNKNOWN = 1
    """Kept because some layer could not tell, and none could exclude it."""
    PRUNE_TIME = 2
    PRUNE_RANGE = 3
    PRUNE_MEMBERSHIP = 4


PRUNE_REASONS: Final = {
    "time": Verdict.PRUNE_TIME,
    "symbol range": Verdict.PRUNE_RANGE,
    "membership": Verdict.PRUNE_MEMBERSHIP,
}
"""What left-out row groups are counted under."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """The rows a read wants from one shard: of each instrument those on days in [its first day, last_day].

    Shapes: place, first_day (w,), place ascending. ``place``: where the instrument stands in the shard's table of
            symbols, twice: 2 k is symbol k, 2 k - 1 lies between symbols k - 1 and k, and the shard has no row of it.
    """

    place: I64
    first_day: I32
    last_day: int


@dataclass(frozen=True, eq=False)
class GroupFacts:
    """What is known of the g row groups of a shard and of the m members in them, a symbol's rows in one group.

    Shapes: first_day, last_day, first_symbol, last_symbol (g,), of all rows of the group; member_group,
            member_symbol, member_first_day, member_last_day (m,); days_known, symbols_known, members_known (g,).
            Symbols are positions in the shard's table, of which there are ``symbols``.
    """

    symbols: int
    first_day: I32
    last_day: I32
    first_symbol: I32
    last_symbol: I32
    member_group: I32
    member_symbol: I32
    member_first_day: I32
    member_last_day: I32
    days_known: BOOL
    symbols_known: BOOL
    members_known: BOOL


def decide(facts: GroupFacts, wanted: Wanted) -> tuple[npt.NDArray[np.int8], BOOL]:
    """Return the ``Verdict`` on each row group, (g,), and which members have wanted rows, (m,)."""
    is_there = wanted.place % 2 == 0
    is_wanted = np.zeros(facts.symbols, np.bool_)
    since = np.zeros(facts.symbols, np.int32)
    at = wanted.place[is_there] // 2
    is_wanted[at], since[at] = True, wanted.first_day[is_there]
    of = facts.member_symbol
    hit = is_wanted[of] & (facts.member_last_day >= since[of]) & (facts.member_first_day <= wanted.last_day)

    groups = facts.first_day.shape[0]
    verdict = np.full(groups, Verdict.PRUNE_MEMBERSHIP, np.int8)
    if wanted.place.size:
        has_member = np.zeros(groups, np.bool_)
        has_member[facts.member_group[hit]] = True
        low = np.searchsorted(wanted.place, 2 * facts.first_symbol.astype(np.int64))
        high = np.searchsorted(wanted.place, 2 * facts.last_symbol.astype(np.int64), side="right")
        is_late = facts.last_day < wanted.first_day.min()
        is_outside = facts.days_known & (is_late | (facts.first_day > wanted.last_day))
        all_known = facts.days_known & facts.symbols_known & facts.members_known
        # From the weakest to the strongest: what comes later stands.
        verdict[has_member | ~facts.members_known] = Verdict.KEEP_UNKNOWN
        verdict[has_member & all_known] = Verdict.KEEP
        verdict[facts.symbols_known & (low == high)] = Verdict.PRUNE_RANGE
        verdict[is_outside] = Verdict.PRUNE_TIME
    return verdict, hit
