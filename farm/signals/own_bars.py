"""The bars of one instrument as expressions see them: price scales, ticks, anchors, and the bars of others.

Rules:

1. Numbers on a price scale are kept on the forward-adjusted basis and read in today's share basis, by division with
   the factor, where series on different scales meet or where a result leaves the expressions (domain.md 3.3).
2. Series of a fixed instrument live on its own bars and are joined as of each bar's close; past five sessions of age
   they are unknown.
3. A recursive indicator starts at its own anchor (domain.md 2.4), K settle bars before the bar it is needed at, moved
   back to the first session of that month.

Rows of numbers are float64 (k, n), n the bars of an instrument; those of g instruments (g k, n), one after the other.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from farm.market.panel import Alike, InstrumentSeries, Market, Panel
from farm.program.expr import Node
from farm.program.lookback import BarCount
from farm.signals import series
from farm.signals.store import Series, SeriesStore
from farm.spec.fields import FIELDS
from farm.spec.spec import Warmup
from farm.values.arrays import BOOL, F64, I32, I64, U64
from farm.values.errors import DataError, SpecError
from farm.values.units import date_of, first_day_of, month_of

SESSIONS_STALE_MAX = 5
"""Age in sessions beyond which the last bar of a fixed instrument is unknown (domain.md 2.2)."""


def find_series(market: Market, ticker: str, place: str) -> int:
    """Return the position of a ticker in the market; a ticker wins over an equal id of another instrument."""
    index = market.index.get(ticker)
    if index is not None and market.series[index].symbol == ticker:
        return index
    found = [position for position, bars in enumerate(market.series) if bars.symbol == ticker]
    if found or index is not None:
        return found[0] if found or index is None else index
    raise SpecError(f"no series of {ticker!r} was loaded", place=place, hint="load the tickers of universes and of sym")


class OwnBars:
    """The bars of one instrument, or of ``count`` that are alike; where a day matters, they stand on the same days.

    ``start``: their first bar of the run; ``rows``: bars of the one with the most, ``words``: of a mask over them.
    """

    def __init__(
        self, market: Market | Panel, bars: InstrumentSeries | Alike, warmup: Warmup, store: SeriesStore
    ) -> None:
        self.market = market
        self.bars = bars
        self.count = len(bars.ids)
        self.warmup = warmup
        self.store = store
        self.rows = int(bars.day.shape[0])
        self.words = (self.rows + 63) // 64
        self.start = int(np.searchsorted(bars.day, market.start_day))
        window = (market.snapshot, market.calendar.name, market.start_day, market.end_day, warmup)
        first = int(bars.day[0]) if self.rows else -1
        self.whole = (bars.ids, first, self.rows, window)
        """The key of arrays that cover all loaded bars."""
        self._asof: dict[tuple[str, ...], I64] = {}
        self._columns: dict[str, F64] = {}

    @cached_property
    def in_run(self) -> U64:
        """Return masks over the bars that are in the run: (g, w), or (1, w) for all."""
        ends = np.unique(self.bars.count) if np.ptp(self.bars.count) == 0 else self.bars.count
        bar = np.arange(64 * self.words)
        flags = (bar >= self.start) & (bar < ends[:, None])
        return np.packbits(flags, axis=1, bitorder="little").view("<u8").astype(np.uint64)

    # Columns (g, n).

    def raw(self, field: str) -> F64:
        """Return a bar column as printed. Errors: DataError if it was not loaded."""
        column = self._column(FIELDS[field].column)
        if column.shape[1] != self.rows:
            raise DataError(f"column {field!r} was not loaded", place=self.bars.ids[0], hint="load Program.columns")
        return column

    def _column(self, name: str) -> F64:
        if name not in self._columns:
            self._columns[name] = self.bars.column(name)
        return self._columns[name]

    def adjusted(self, field: str) -> F64:
        """Return a column on the forward-adjusted basis; the raw column itself where no factor differs from 1."""
        raw = self.raw(field)
        if field == "close_raw":
            return raw
        factor = self._factor(FIELDS[field].basis)

        def make() -> Series:
            if bool((factor == 1.0).all()):
                return Series((), extra=raw)
            product = raw / factor if field == "volume" else raw * factor
            if field == "close_tr":
                return Series((product,))
            return Series((series.restated(raw, *self._ratio(field), self._scale(field), product),))

        entry = self.store.get(("adjusted", field, *self.whole), make)
        found: F64 = entry.arrays[0] if entry.arrays else raw
        return found

    def today(self, node: Node, values: F64) -> F64:
        """Return rows of ``node`` in the share basis of each bar."""
        if node.power:
            factor = self._factor(node.basis)[:, None]
            whole = values.reshape(self.count, values.shape[0] // self.count, self.rows)
            for _ in range(abs(node.power)):
                whole = whole / factor if node.power > 0 else whole * factor
            return whole.reshape(values.shape)
        return values

    def grid(self, node: Node) -> series.TickGrid | None:
        """Return the tick sums of a bar column of these bars, None for what lives on no grid."""
        if node.op != "field" or node.basis == "tr":
            return None
        field = str(node.values[0])
        raw = self.raw(field)

        def make() -> Series:
            grid = series.grid_of(raw, *self._ratio(field), self._scale(field))
            return Series(grid.arrays if grid else (), extra=grid)

        found: series.TickGrid | None = self.store.get(("grid", field, *self.whole), make).extra
        return found

    def _factor(self, basis: str) -> F64:
        return self._column("factor_tr" if basis == "tr" else "factor")

    def _ratio(self, field: str) -> tuple[F64, F64]:
        """Return numerators and denominators by which a bar column changes with splits."""
        if field == "close_raw":
            ones = np.ones((self.count, self.rows))
            return ones, ones
        num, den = self._column("factor_num"), self._column("factor_den")
        return (den, num) if field == "volume" else (num, den)

    def _scale(self, field: str) -> int:
        return 0 if field == "volume" else self.bars.price_scale

    # Where recursive indicators begin.

    def anchor(self, need: I64, settle: BarCount) -> I64:
        """Return the bars at which a recursive indicator starts that is needed from the bars ``need`` on."""
        unit, count = self.warmup.unit, self.warmup.count
        if unit == "settle":
            if not self.rows:
                return np.zeros_like(need)
            begin: I64 = self._month_begin[np.minimum(np.maximum(0, need - settle), self.rows - 1)]
            return begin
        if unit in ("none", "bar"):
            return np.full_like(need, max(0, self.start - count))
        return np.full_like(need, int(np.searchsorted(self.bars.day, _earlier(self.market.start_day, self.warmup))))

    @cached_property
    def _month_begin(self) -> I64:
        """Return, for each bar, the first bar of its calendar month."""
        month = self.bars.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        begins = np.flatnonzero(np.diff(month, prepend=month[:1] - 1))
        found: I64 = begins[np.searchsorted(begins, np.arange(self.rows), side="right") - 1]
        return found

    # Bars of other instruments.

    def need_in(self, other: OwnBars, need: I64) -> I64:
        """Return the bars of ``other`` from which on it is needed here from ``need`` on."""
        if other.rows == 0 or self.rows == 0:
            return np.full_like(need, other.start)
        asof = self._positions(other)[np.minimum(need, self.rows - 1)]
        return np.where(need >= self.rows, other.start, np.maximum(0, np.minimum(asof, other.start)))

    def join(self, other: OwnBars, values: F64) -> F64:
        """Return rows of ``other`` as known at the close of each of these bars."""
        out = np.full((values.shape[0], self.rows), np.nan)
        at = self._positions(other)
        has_bar = np.flatnonzero(at >= 0)
        age = self._session(self.bars.day[has_bar]) - self._session(other.bars.day[at[has_bar]])
        fresh = has_bar[age <= SESSIONS_STALE_MAX]
        out[:, fresh] = values[:, at[fresh]]
        return out

    def _positions(self, other: OwnBars) -> I64:
        """Return, for each bar here, the last bar of ``other`` that has closed; -1 for none."""
        found = self._asof.get(other.bars.ids)
        if found is None:
            closes, own = other.bars.column("close_ts")[0], self.bars.column("close_ts")[0]
            found = self._asof[other.bars.ids] = np.searchsorted(closes, own, side="right") - 1
        return found

    def _session(self, day: I32) -> I64:
        """Return a number for each day that rises by one per session of the run's calendar, before the run too."""
        sessions = self.market.calendars[self.market.calendar.name].day
        number: I64 = np.searchsorted(sessions, day, side="right")
        return number

    # Masks.

    def bits(self, flags: BOOL) -> U64:
        """Return (n,) truths as words (w,)."""
        whole = np.zeros(64 * self.words, np.bool_)
        whole[: self.rows] = flags
        return np.packbits(whole, bitorder="little").view("<u8").astype(np.uint64)

    def calendar(self, node: Node) -> BOOL:
        """Return (n,) whether a condition on the bar's exchange-local date holds; it is always known."""
        day = self.bars.day
        if node.op == "dow":
            return np.isin((day + 3) % 7 + 1, node.values)  # 1970-01-01 was a Thursday
        if node.op == "month":
            month = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
            return np.isin(month % 12 + 1, node.values)
        first, last = (int(value) for value in node.values)
        holds: BOOL = (day >= first) & (day <= last)
        return holds


def _earlier(start_day: int, warmup: Warmup) -> int:
    """Return the day ``warmup`` before the run's first day; a date that does not exist becomes its month's last."""
    if warmup.unit == "d":
        return start_day - warmup.count
    month = month_of(start_day) - warmup.count
    return min(first_day_of(month) + date_of(start_day).day - 1, first_day_of(month + 1) - 1)
