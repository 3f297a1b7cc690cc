"""How far expressions look back, for every trial of a table at once.

- *lookback*: bars that a node needs before its first value, all parts included, settling excluded (TA-Lib's count);
- *settle*: for a recursive indicator, the bars after which its start no longer shows (domain.md 2.4);
- *reach*: bars needed before a bar to know the node there, settling included: an upper bound.

Counts are one integer where they depend on no parameter; else int64 arrays that fit the periods that were given: (t,)
for the trials of a table, or one axis for each parameter, so that all trials of a grid cost no more than its axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from farm.program.expr import Node, Slot
from farm.spec.spec import Warmup
from farm.spec.table import ParamTable
from farm.values.arrays import I64
from farm.values.indicators import INDICATORS

BarCount: TypeAlias = int | I64
"""A count of bars: one for all trials, or an int64 array."""

MONTH_BARS_MAX = 31
"""Most daily bars in a calendar month: an anchor may move that far when it snaps to the month's first session."""

PERIODIC = frozenset((*INDICATORS, "lag", "diff", "for", "within"))
"""Operations that were given a number of bars."""

NO_PARAMETERS = ParamTable((), (), (), 1)
"""The table of a study without parameters: one trial."""


class LookBack:
    """Look-back of nodes, of which each is found once. ``periods``: of each parameter that is one, int64."""

    def __init__(self, warmup: Warmup, periods: Mapping[str, I64] = MappingProxyType({})) -> None:
        self._warmup = warmup
        self._periods = periods
        self._settled: dict[Node, BarCount] = {}
        self._whole: dict[Node, BarCount] = {}

    def period(self, node: Node) -> BarCount:
        """Return the bars that a node was given: the ``n`` of an indicator, of a lag, of "for" and "within"."""
        value = node.values[0]
        if not isinstance(value, Slot):
            return int(value)
        return self._periods[value.name]

    def own_lookback(self, node: Node) -> BarCount:
        """Return the bars of its parts that a node needs before its first value."""
        if node.op in INDICATORS:
            return self.period(node) + INDICATORS[node.op].delay
        if node.op in ("lag", "diff"):
            return self.period(node)
        if node.op in ("for", "within"):
            return self.period(node) - 1
        return 1 if node.op in ("cross_up", "cross_dn") else 0

    def lookback(self, node: Node) -> BarCount:
        """Return the lookback of a node, down to the bar columns."""
        return self.own_lookback(node) + _most(node, self.lookback)

    def settle(self, node: Node) -> BarCount:
        """Return the bars after which the start of a recursive indicator no longer shows."""
        if node not in self._settled:
            period, indicator = self.period(node), INDICATORS[node.op]
            self._settled[node] = indicator.settle(period) if isinstance(period, int) else indicator.settles(period)
        return self._settled[node]

    def own(self, node: Node) -> BarCount:
        """Return the bars of its parts that a node needs before a bar, settling included.

        The start of an outer recursive indicator may snap back to the first session of its month, so its parts must
        be known up to a month earlier; the history itself is loaded in whole months and needs no such margin.
        """
        own = self.own_lookback(node)
        if not node.is_recursive:
            return own
        count = self._warmup.count
        bars: BarCount = {"bar": count, "d": count, "mo": MONTH_BARS_MAX * count}.get(self._warmup.unit, 0)
        if self._warmup.unit == "settle":
            bars = self.settle(node)
        margin = MONTH_BARS_MAX if self._warmup.unit == "settle" and node.args[0].args else 0
        return greatest(own, bars) + margin

    def whole(self, node: Node) -> BarCount:
        """Return the reach of a node, down to the bar columns."""
        if node not in self._whole:
            self._whole[node] = self.own(node) + _most(node, self.whole)
        return self._whole[node]


def periods_of(node: Node) -> frozenset[str]:
    """Return the parameters that a node or its parts have as a period."""
    own = {node.values[0].name} if node.op in PERIODIC and isinstance(node.values[0], Slot) else set()
    return frozenset(own).union(*map(periods_of, node.args))


def greatest(a: BarCount, b: BarCount) -> BarCount:
    """Return the greater of two counts, trial by trial."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    found: I64 = np.maximum(a, b)
    return found


def _most(node: Node, count: Callable[[Node], BarCount]) -> BarCount:
    found: BarCount = 0
    for part in node.args:
        found = greatest(found, count(part))
    return found
