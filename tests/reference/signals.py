"""Evaluating one program over a market, node by node: the plain twin of ``farm/signals``.

Rules:

1. A node is evaluated *for the bars from ``need`` on*, and its array holds just these: every array ends with the
   market's last bar. Its parts are asked for as many bars earlier as the node looks back. So values depend on the
   expression, the run's window and the data, never on how much history happens to be loaded, nor on other trials.
2. A recursive indicator starts at its own anchor (domain.md 2.4), K settle bars before ``need``, moved back to the
   first session of that month. It is recorded, not chosen.
3. Numbers on a price scale are kept on the forward-adjusted basis and read in today's share basis, by division with
   the factor, where series on different scales meet or where the result leaves the expressions (domain.md 3.3).
4. Series of a fixed instrument live on its own bars and are joined as of each bar's close; past five sessions of age
   they are unknown. Conditions are looked at on the bars of the instrument in scope.
5. Unknown is NaN in numbers; infinities become NaN where they arise. An unknown signal triggers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.market.panel import InstrumentSeries, Market
from farm.program.expr import Node, is_joint, numbers
from farm.program.program import Program, RulesProgram
from farm.signals.evaluate import Signals
from farm.signals.own_bars import SESSIONS_STALE_MAX, find_series
from farm.spec.fields import FIELDS
from farm.spec.spec import Warmup
from farm.values.arrays import F64, I32, I64, U8, readonly
from farm.values.errors import DataError
from farm.values.indicators import INDICATORS
from farm.values.units import date_of, first_day_of, iso, month_of
from tests.reference import logic
from tests.reference import series as indicator_series
from tests.reference.program import own_lookback, reach

GT, GE, LT, LE = range(4)
_RELATION = {"gt": GT, "ge": GE, "lt": LT, "le": LE}


@dataclass(frozen=True, eq=False)
class Series:
    """One entry: arrays, and (label, first day) of each recursive indicator in it."""

    arrays: tuple[Any, ...]
    anchors: tuple[tuple[str, int], ...] = ()
    extra: Any = None


class SeriesStore:
    """Entries by key."""

    def __init__(self) -> None:
        self._kept: dict[Any, Series] = {}

    def get(self, key: Any, make: Callable[[], Series]) -> Series:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def evaluate(program: Program, market: Market) -> tuple[tuple[Signals, ...], ...]:
    """Return the signals of each sleeve for each instrument of its universe, these in the order of ``market.series``.

    Errors: SpecError for a ticker that the market does not hold, DataError for a bar column that was not loaded.
    """
    return tuple(
        tuple(
            _Scopes(program, market, SeriesStore(), index).signals(sleeve)
            for index in sorted(find_series(market, ticker, sleeve.id) for ticker in sleeve.universe)
        )
        for sleeve in program.sleeves
    )


class _Scopes:
    """The instrument in scope, and the fixed instruments beside it."""

    def __init__(self, program: Program, market: Market, store: SeriesStore, index: int) -> None:
        self.market = market
        self.store = store
        self.warmup = program.run.warmup
        self.index = index
        self.window = (market.snapshot, market.calendar.name, market.start_day, market.end_day, self.warmup)
        self.host = _Scope(self, market.series[index])
        self._fixed: dict[str, _Scope] = {}

    def of(self, sym: str | None) -> _Scope:
        if not sym:
            return self.host
        found = self._fixed.get(sym)
        if found is None:
            found = self._fixed[sym] = _Scope(self, self.market.series[find_series(self.market, sym, sym)])
        return found

    def signals(self, sleeve: RulesProgram) -> Signals:
        host = self.host
        anchors: dict[str, int] = {}
        known: set[Node] = set()

        def mask(node: Node | None) -> U8:
            out = np.zeros(host.rows, np.uint8)
            if node is not None and host.start < host.rows:
                entry = host.entry(node, host.start)
                out[host.start :] = entry.arrays[0][0]
                if entry.arrays[0][1].any():
                    known.add(node)
                _note(anchors, entry)
            return readonly(out)

        def numeric(node: Node) -> F64:
            if host.start == host.rows:
                return readonly(np.full(host.rows, np.nan))
            return readonly(nan_padded(host.part(node, host.start, is_joint=False, anchors=anchors), host.rows))

        add = None if sleeve.add is None else mask(sleeve.add.when)
        limit = None if sleeve.limit is None else numeric(sleeve.limit)
        return Signals(
            instrument=self.index,
            enter=mask(sleeve.enter),
            exit=mask(sleeve.exit),
            enter_short=mask(sleeve.enter_short),
            exit_short=mask(sleeve.exit_short),
            prefer=None if sleeve.prefer is None else numeric(sleeve.prefer),
            stop_levels=tuple(numeric(level) for level in sleeve.levels),
            add=add,
            limit=limit,
            is_enter_known=not known.isdisjoint((sleeve.enter, sleeve.enter_short)),
            anchors={label: iso(day) for label, day in sorted(anchors.items())},
        )


def _note(anchors: dict[str, int], entry: Series) -> None:
    for label, day in entry.anchors:
        anchors[label] = min(day, anchors.get(label, day))


class _Scope:
    """Evaluates nodes on the bars of one instrument. ``start`` is its first bar of the run."""

    def __init__(self, scopes: _Scopes, bars: InstrumentSeries) -> None:
        self.scopes = scopes
        self.bars = bars
        self.rows = int(bars.day.shape[0])
        self.start = int(np.searchsorted(bars.day, scopes.market.start_day))

    def entry(self, node: Node, need: int) -> Series:
        """Return the values of ``node`` from bar ``need`` on, with its anchors; a condition is uint8 (2, m)."""
        back = self.start - need
        # With all the history it can use, a node's values are a function of the window. A market loaded with less
        # (or an instrument that is younger) is told apart by the bars it has.
        loaded = -1 if self.start >= back + reach(node, self.scopes.warmup) else self.start
        key = (node.key, self.bars.id, back, loaded, self.scopes.window)
        return self.scopes.store.get(key, lambda: self._make(node, need))

    def _make(self, node: Node, need: int) -> Series:
        anchors: dict[str, int] = {}
        values = self._truth(node, need, anchors) if node.is_truth else self._numeric(node, need, anchors)
        return Series((values,), tuple(sorted(anchors.items())))

    # Parts: values of other nodes, brought to these bars.

    def part(self, node: Node, need: int, *, is_joint: bool, anchors: dict[str, int]) -> F64:
        """Return a numeric node on these bars from ``need`` on: as it is if ``is_joint``, else in today's basis."""
        scope = self if node.sym == "" else self.scopes.of(node.sym)
        begin = need if scope is self else self.need_in(scope, need)
        values = scope._values(node, begin, anchors)
        if not is_joint:
            values = scope._today(node, values, begin)
        return values if scope is self else self._join(scope, values, begin, need)

    def _values(self, node: Node, need: int, anchors: dict[str, int]) -> F64:
        if node.op == "field":
            return self._adjusted(str(node.values[0]))[need:]
        if node.op == "number":
            return np.full(self.rows - need, float(node.values[0]))
        entry = self.entry(node, need)
        _note(anchors, entry)
        values: F64 = entry.arrays[0]
        return values

    def _condition(self, node: Node, need: int, anchors: dict[str, int]) -> U8:
        entry = self.entry(node, need)
        _note(anchors, entry)
        truth: U8 = entry.arrays[0]
        return truth

    def need_in(self, other: _Scope, need: int) -> int:
        """Return the bar of ``other`` from which on it is needed here from ``need`` on."""
        if need >= self.rows or other.rows == 0:
            return min(other.start, other.rows)
        asof = int(np.searchsorted(other.bars.close_ts, self.bars.close_ts[need], side="right")) - 1
        return max(0, min(asof, other.start))

    def _join(self, other: _Scope, values: F64, begin: int, need: int) -> F64:
        """Return ``values`` (of ``other`` from ``begin`` on) as known at the close of each bar from ``need`` on."""
        out = np.full(self.rows - need, np.nan)
        position = np.searchsorted(other.bars.close_ts, self.bars.close_ts[need:], side="right") - 1
        has_bar = position >= begin
        age = self._session(self.bars.day[need:][has_bar]) - self._session(other.bars.day[position[has_bar]])
        joined = values[position[has_bar] - begin]
        out[has_bar] = np.where(age <= SESSIONS_STALE_MAX, joined, np.nan)
        return out

    def _session(self, day: I32) -> I64:
        """Return a number for each day that rises by one per session of the run's calendar, before the run too."""
        market = self.scopes.market
        number: I64 = np.searchsorted(market.calendars[market.calendar.name].day, day, side="right")
        return number

    # Price scales (domain.md 3.3).

    def _raw(self, field: str) -> F64:
        column: F64 = getattr(self.bars, FIELDS[field].column)
        if column.shape[0] != self.rows:
            raise DataError(f"column {field!r} was not loaded", place=self.bars.id, hint="load Program.columns")
        return column

    def _factor(self, basis: str) -> F64:
        return self.bars.factor_tr if basis == "tr" else self.bars.factor

    def _adjusted(self, field: str) -> F64:
        """Return a whole column on the forward-adjusted basis; the raw column itself where no factor differs from 1."""
        raw = self._raw(field)
        if field == "close_raw":
            return raw
        factor = self._factor(FIELDS[field].basis)

        def make() -> Series:
            if bool((factor == 1.0).all()):
                return Series((), extra=raw)
            product = raw / factor if field == "volume" else raw * factor
            if field == "close_tr":
                return Series((product,))
            return Series((indicator_series.restated(raw, *self._ratio(field), self._scale(field), product),))

        entry = self.scopes.store.get(("adjusted", field, *self._whole()), make)
        adjusted: F64 = entry.arrays[0] if entry.arrays else raw
        return adjusted

    def _ratio(self, field: str) -> tuple[F64, F64]:
        """Return numerators and denominators by which a bar column changes with splits."""
        if field == "close_raw":
            ones = np.ones(self.rows)
            return ones, ones
        num, den = self.bars.factor_num, self.bars.factor_den
        return (den, num) if field == "volume" else (num, den)

    def _scale(self, field: str) -> int:
        return 0 if field == "volume" else self.bars.price_scale

    def _whole(self) -> tuple[object, ...]:
        """Return the key of arrays that cover all loaded bars."""
        first = int(self.bars.day[0]) if self.rows else -1
        return (self.bars.id, first, self.rows, self.scopes.window)

    def _today(self, node: Node, values: F64, need: int) -> F64:
        """Return ``values`` of ``node`` in the share basis of each bar."""
        if node.op == "field":
            return self._raw(str(node.values[0]))[need:]
        if node.power == 0:
            return values
        factor = self._factor(node.basis)[need:]
        for _ in range(abs(node.power)):
            values = values / factor if node.power > 0 else values * factor
        return values

    # Numeric nodes.

    def _numeric(self, node: Node, need: int, anchors: dict[str, int]) -> F64:
        if node.op in INDICATORS:
            return self._indicator(node, need, anchors)
        if node.op in ("lag", "diff"):
            return self._lagged(node, need, anchors)
        joint = is_joint(node.op, node.args)
        parts = [
            self.part(part, need, is_joint=joint, anchors=anchors) for part in numbers(node.op, node.args)
        ]  # fmt: skip
        if node.op == "if":
            out = np.empty(self.rows - need)
            logic.choose(self._condition(node.args[0], need, anchors), parts[0], parts[1], out)
            return out
        return _arithmetic(node.op, parts)

    def _lagged(self, node: Node, need: int, anchors: dict[str, int]) -> F64:
        bars = int(node.values[0])
        begin = max(0, need - bars)
        values = self.part(node.args[0], begin, is_joint=True, anchors=anchors)
        lagged = nan_padded(values[: max(0, self.rows - bars - begin)], self.rows - need)
        return lagged if node.op == "lag" else _finite(values[need - begin :] - lagged)

    def _indicator(self, node: Node, need: int, anchors: dict[str, int]) -> F64:
        part, bars = node.args[0], int(node.values[0])
        if node.is_recursive:
            begin = self._anchor(node, need)
            if begin < self.rows:
                anchors[node.label] = min(int(self.bars.day[begin]), anchors.get(node.label, 2**31))
        else:
            begin = max(0, need - own_lookback(node))
        grid = self._grid(part) if node.op == "sma" else None
        if grid is not None:
            out = indicator_series.mean_on_grid(self._adjusted(str(part.values[0])), grid, begin, bars)
        else:
            values = self.part(part, begin, is_joint=True, anchors=anchors)
            out = _finite(indicator_series.compute(node.op, values, bars))
        return out[need - begin :].copy() if begin <= need else nan_padded(out, self.rows - need)

    def _grid(self, part: Node) -> indicator_series.TickGrid | None:
        """Return the tick sums of a bar column of these bars, None for what lives on no grid."""
        if part.op != "field" or part.basis == "tr" or self.scopes.of(part.sym) is not self:
            return None
        field = str(part.values[0])
        raw = self._raw(field)

        def make() -> Series:
            grid = indicator_series.grid_of(raw, *self._ratio(field), self._scale(field))
            return Series(grid.arrays if grid else (), extra=grid)

        found: indicator_series.TickGrid | None = self.scopes.store.get(("grid", field, *self._whole()), make).extra
        return found

    def _anchor(self, node: Node, need: int) -> int:
        """Return the bar at which a recursive indicator, needed from ``need`` on, starts."""
        warmup, market = self.scopes.warmup, self.scopes.market
        if warmup.unit == "settle":
            begin = min(max(0, need - INDICATORS[node.op].settle(node.values[0])), self.rows - 1)
            if begin < 0:
                return 0
            first = first_day_of(month_of(int(self.bars.day[begin])))
            return int(np.searchsorted(self.bars.day, first))
        if warmup.unit in ("none", "bar"):
            return max(0, self.start - warmup.count)
        return int(np.searchsorted(self.bars.day, _earlier(market.start_day, warmup)))

    # Conditions.

    def _truth(self, node: Node, need: int, anchors: dict[str, int]) -> U8:
        size = self.rows - need
        if node.op in ("truth", "dow", "month", "date"):
            return self._calendar(node, need)
        out = np.empty((2, size), np.uint8)
        if node.op in ("all", "any"):
            return self._combined(node, need, anchors)
        if node.op == "not":
            logic.negate(self._condition(node.args[0], need, anchors), out)
            return out
        if node.op in ("for", "within"):
            begin = max(0, need - own_lookback(node))
            whole = np.empty((2, self.rows - begin), np.uint8)
            logic.last(self._condition(node.args[0], begin, anchors), int(node.values[0]), node.op == "for", whole)
            return np.ascontiguousarray(whole[:, need - begin :])
        joint = is_joint(node.op, node.args)
        begin = max(0, need - own_lookback(node))
        parts = [self.part(part, begin, is_joint=joint, anchors=anchors) for part in node.args]
        if node.op in ("cross_up", "cross_dn"):
            above, below = parts if node.op == "cross_up" else parts[::-1]
            whole = np.empty((2, self.rows - begin), np.uint8)
            logic.cross_up(above, below, whole)
            return np.ascontiguousarray(whole[:, need - begin :])
        if node.op == "between":
            least, most = np.empty((2, size), np.uint8), np.empty((2, size), np.uint8)
            logic.compare(parts[0], parts[1], GE, least)
            logic.compare(parts[0], parts[2], LE, most)
            logic.join(least, most, True, out)
            return out
        logic.compare(parts[0], parts[1], _RELATION[node.op], out)
        return out

    def _combined(self, node: Node, need: int, anchors: dict[str, int]) -> U8:
        found = self._condition(node.args[0], need, anchors)
        for part in node.args[1:]:
            out = np.empty((2, self.rows - need), np.uint8)
            logic.join(found, self._condition(part, need, anchors), node.op == "all", out)
            found = out
        return found

    def _calendar(self, node: Node, need: int) -> U8:
        """Return conditions on the bar's exchange-local date, which are always known."""
        day = self.bars.day[need:]
        out = np.ones((2, day.shape[0]), np.uint8)
        if node.op == "truth":
            out[0] = 1 if node.values[0] else 0
        elif node.op == "dow":
            out[0] = np.isin((day + 3) % 7 + 1, node.values)  # 1970-01-01 was a Thursday
        elif node.op == "month":
            out[0] = np.isin(day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1, node.values)
        else:
            first, last = (int(value) for value in node.values)
            out[0] = (day >= first) & (day <= last)
        return out


def _earlier(start_day: int, warmup: Warmup) -> int:
    """Return the day ``warmup`` before the run's first day; a date that does not exist becomes its month's last."""
    if warmup.unit == "d":
        return start_day - warmup.count
    month = month_of(start_day) - warmup.count
    return min(first_day_of(month) + date_of(start_day).day - 1, first_day_of(month + 1) - 1)


def _finite(values: F64) -> F64:
    """Return ``values`` with infinities made unknown."""
    infinite = np.isinf(values)
    if infinite.any():
        values[infinite] = np.nan
    return values


def _arithmetic(op: str, parts: list[F64]) -> F64:
    """Return the operation on whole arrays, parts taken from left to right; each step is rounded once."""
    first = parts[0]
    with np.errstate(all="ignore"):
        if op in ("neg", "abs"):
            return np.negative(first) if op == "neg" else np.abs(first)
        if op == "clip":
            return np.minimum(np.maximum(first, parts[1]), parts[2])
        for part in parts[1:]:
            if op == "add":
                first = first + part
            elif op == "sub":
                first = first - part
            elif op == "mul":
                first = first * part
            elif op == "div":
                first = first / part
            else:
                first = np.maximum(first, part) if op == "greatest" else np.minimum(first, part)
    return _finite(first)


def nan_padded(values: F64, length: int) -> F64:
    """Return ``values`` at the end of an array of ``length``, NaN before them."""
    if values.shape[0] == length:
        return values
    out = np.full(length, np.nan)
    if values.shape[0]:
        out[length - values.shape[0] :] = values[-length:]
    return out
