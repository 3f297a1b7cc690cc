"""What is asked of the expression nodes of many trials: which values of their parameters, from which bar on.

1. The roots of a sleeve are asked for by every trial, from the run's first bar on.
2. A *request* of a node is a distinct pair of the values of the parameters that it uses and the bar from which on it is
   needed. Each of them asks for the node's parts, as many bars earlier as the node looks back, or from the anchor of a
   recursive indicator on. So values depend on the expression, the run's window and the data, never on how much history
   happens to be loaded, nor on other trials.
3. Nodes are visited from the highest down: all that is asked of one is known before it asks for its parts.

Nothing is computed here; ``rows.py`` answers. The work is a few array operations for each node, whatever the number of
trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from farm.market.panel import Alike, InstrumentSeries, Market, Panel
from farm.program.expr import Node, Slot
from farm.program.lookback import BarCount, LookBack
from farm.signals.own_bars import OwnBars, find_series
from farm.signals.store import SeriesStore
from farm.spec.spec import Warmup
from farm.spec.table import ParamTable
from farm.values.arrays import I64

_DENSE_MAX = 1 << 20
_KEY_MAX = 1 << 62


@dataclass(frozen=True, eq=False)
class Part:
    """A node as it was asked for: on whose bars, and which of the asks of ``wanted`` it was (None for a bar column)."""

    node: Node
    bars: OwnBars
    wanted: Requests | None
    asks: slice

    @property
    def count(self) -> int:
        """Number of asks."""
        return int(self.asks.stop - self.asks.start)


class Requests:
    """A node on the bars of one instrument, and what is asked of it.

    After ``Demand.close``: trial, need, begin int64 (q,) of each request: a trial that has its parameters, the bar from
    which on it is needed, and the bar from which on its parts are; ``which`` int64 (asks,), the request of each ask;
    ``parts``, asked for by its requests in their order.
    """

    def __init__(self, node: Node, bars: OwnBars) -> None:
        self.node = node
        self.bars = bars
        self.asked: list[tuple[I64, I64]] = []
        self.asks = 0
        self.trial = self.need = self.begin = self.which = np.empty(0, np.int64)
        self.parts: tuple[Part, ...] = ()

    def add(self, trial: I64, need: I64) -> Part:
        """Ask for the node: the parameters of ``trial``, from bar ``need`` on."""
        self.asked.append((trial, need))
        self.asks += trial.shape[0]
        return Part(self.node, self.bars, self, slice(self.asks - trial.shape[0], self.asks))


class Demand:
    """Everything that the trials of ``table`` ask for, of the instrument in scope and the fixed ones beside it.

    ``bars``: of the instrument, or of several that are alike, each of which is asked the same; beside these there is no
    fixed one.
    """

    def __init__(
        self, market: Market | Panel, bars: InstrumentSeries | Alike, warmup: Warmup, table: ParamTable,
        store: SeriesStore,
    ) -> None:  # fmt: skip
        self.market = market
        self.table = table
        self.store = store
        self.host = OwnBars(market, bars, warmup, store)
        self._warmup = warmup
        self._lookback = LookBack(warmup, _Periods(table))
        self._fixed: dict[str, OwnBars] = {}
        self._wanted: dict[tuple[Node, OwnBars], Requests] = {}
        self._heights: list[list[Requests]] = []
        self._ids: dict[tuple[str, ...], I64] = {}

    @property
    def recursive(self) -> list[Requests]:
        """The recursive indicators that something was asked of."""
        return [wanted for wanted in self._wanted.values() if wanted.node.is_recursive]

    def root(self, node: Node, trials: I64) -> Part:
        """Ask for a root of these trials, from the run's first bar on. Errors: SpecError for a ticker not loaded."""
        need = np.full(trials.shape[0], self.host.start)
        return (
            self._truth(node, self.host, trials, need) if node.is_truth else self._number(node, self.host, trials, need)
        )

    def close(self) -> None:
        """Find the requests of every node, from the roots down."""
        for height in range(len(self._heights) - 1, -1, -1):
            for wanted in self._heights[height]:
                self._settle(wanted)

    def per_request(self, wanted: Requests, count: BarCount) -> I64:
        """Return a count of bars for each request."""
        return count[wanted.trial] if isinstance(count, np.ndarray) else np.full(wanted.trial.shape[0], count)

    def period(self, wanted: Requests) -> I64:
        """Return the period of each request."""
        return self.per_request(wanted, self._lookback.period(wanted.node))

    def constants(self, wanted: Requests) -> Any:
        """Return the constant of a number or a truth for each request."""
        value = wanted.node.values[0]
        if not isinstance(value, Slot):
            return np.full(wanted.trial.shape[0], value)
        return self.table.numbers(value.name)[wanted.trial]

    def name(self, wanted: Requests) -> tuple[Any, ...]:
        """Return what the answers to a node's requests depend on, the bars of its instrument aside."""
        at = [self.table.names.index(name) for name in wanted.node.names]
        asked = blake2b(wanted.need.tobytes(), digest_size=16)
        for k in at:
            asked.update(self.table.codes[k][wanted.trial].tobytes())
        return wanted.node.key, tuple(self.table.values[k] for k in at), asked.digest()

    def _number(self, node: Node, viewer: OwnBars, trials: I64, need: I64) -> Part:
        """Ask for a numeric node that is looked at on the bars of ``viewer``."""
        bars = viewer if node.sym == "" else self._bars_of(node.sym)
        begin = need if bars is viewer else viewer.need_in(bars, need)
        if node.op == "field":
            return Part(node, bars, None, slice(0, trials.shape[0]))
        return self._of(node, bars).add(trials, begin)

    def _truth(self, node: Node, bars: OwnBars, trials: I64, need: I64) -> Part:
        return self._of(node, bars).add(trials, need)

    def _bars_of(self, sym: str | None) -> OwnBars:
        if not sym:
            return self.host
        if sym not in self._fixed:
            assert isinstance(self.market, Market)
            series = self.market.series[find_series(self.market, sym, sym)]
            self._fixed[sym] = OwnBars(self.market, series, self._warmup, self.store)
        return self._fixed[sym]

    def _of(self, node: Node, bars: OwnBars) -> Requests:
        found = self._wanted.get((node, bars))
        if found is None:
            found = self._wanted[node, bars] = Requests(node, bars)
            while len(self._heights) <= node.height:
                self._heights.append([])
            self._heights[node.height].append(found)
        return found

    def _settle(self, wanted: Requests) -> None:
        trial = np.concatenate([trials for trials, _ in wanted.asked])
        need = np.concatenate([needs for _, needs in wanted.asked])
        firsts, wanted.which = distinct(self._tuples(wanted.node.names)[trial], need)
        wanted.trial, wanted.need = trial[firsts], need[firsts]
        wanted.begin = self._begin(wanted)
        wanted.parts = self._parts(wanted)

    def _begin(self, wanted: Requests) -> I64:
        node, need = wanted.node, wanted.need
        if node.is_recursive:
            return wanted.bars.anchor(need, self.per_request(wanted, self._lookback.settle(node)))
        own = self._lookback.own_lookback(node)
        return np.maximum(0, need - self.per_request(wanted, own)) if not isinstance(own, int) or own else need

    def _parts(self, wanted: Requests) -> tuple[Part, ...]:
        node, bars, trial, begin = wanted.node, wanted.bars, wanted.trial, wanted.begin
        return tuple(
            self._truth(part, bars, trial, begin) if part.is_truth else self._number(part, bars, trial, begin)
            for part in node.args
        )

    def _tuples(self, names: tuple[str, ...]) -> I64:
        """Return a number for each trial that tells the values of these parameters apart (t,)."""
        if names not in self._ids:
            codes = [self.table.codes[self.table.names.index(name)].astype(np.int64) for name in names]
            self._ids[names] = key_of(*codes) if codes else np.zeros(self.table.trials, np.int64)
        return self._ids[names]


class _Periods(Mapping[str, I64]):
    """The periods of each trial (t,), by parameter."""

    def __init__(self, table: ParamTable) -> None:
        self._table = table
        self._found: dict[str, I64] = {}

    def __getitem__(self, name: str) -> I64:
        if name not in self._found:
            self._found[name] = self._table.numbers(name).astype(np.int64)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names)

    def __len__(self) -> int:
        return len(self._table.names)


def key_of(*columns: I64) -> I64:
    """Return one number for each row of columns (m,) of numbers >= 0: equal for equal rows, and for no others."""
    key = columns[0]
    for column in columns[1:]:
        radix, size = _size(column), _size(key)
        if size > _KEY_MAX // radix:
            _, key = distinct(key)
        key = key * radix + column
    return key


def distinct(*columns: I64) -> tuple[I64, I64]:
    """Return where the distinct rows of columns (m,) of numbers >= 0 stand first, and for each row which it is."""
    rows = columns[0].shape[0]
    if rows == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    key = key_of(*columns)
    size = _size(key)
    if size > max(_DENSE_MAX, 4 * rows):
        _, firsts, which = np.unique(key, return_index=True, return_inverse=True)
        return firsts, which.reshape(-1)
    first = np.full(size, rows, np.int64)
    first[key[::-1]] = np.arange(rows - 1, -1, -1)  # of equal keys the last assignment stays: the first row
    present = np.flatnonzero(first < rows)
    rank = np.empty(size, np.int64)
    rank[present] = np.arange(present.shape[0])
    return first[present], rank[key]


def _size(column: I64) -> int:
    return int(column.max(initial=0)) + 1
