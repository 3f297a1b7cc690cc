"""What an engine run sees of the market: raw bars with their instants, corporate actions, adjustment factors.

A panel holds them for many instruments, side by side; a series is a slice of it, a market some series and the sessions
of the run.

Rules: prices are raw as printed, dividends and splits stand beside them; ``factor`` turns a raw price into the
forward-adjusted one by multiplication (domain.md 3.3). Every array is read-only and may be shared between threads.
Series come in the bytewise order of their permanent ids, so that no load order can reach a decision or a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from farm.values.arrays import BOOL, F64, I8, I32, I64

if TYPE_CHECKING:
    from farm.shard.calendar import Calendar
    from farm.shard.dataset import Instrument


@dataclass(frozen=True, eq=False)
class InstrumentSeries:
    """One instrument's own bars, oldest first, from its first history day to the end of the run.

    Shapes:  day, open_ts, close_ts, open, high, low, close, volume, open_ticks, close_ticks, factor, factor_num,
             factor_den, factor_tr (n,); split_* (s,); dividend_* (d,). A bar column that the run does not need is
             empty (0,).
    Units:   instants int64 ns UTC; days since 1970-01-01; prices and dividends in currency per share, raw;
             ticks of 10**-price_scale; volume in shares; ``lot_micro`` in millionths of a share. ``calendar``
             names the sessions that the bars follow.
    Order:   day strictly rises; split_day strictly rises; dividend_day rises.
    Factors: adjusted price = raw price * factor; factor is 1 on the share basis of the run's first day, and
             changes on ex-days only. ``factor_tr`` also reinvests dividends at the previous close. ``factor_num`` and
             ``factor_den`` are the factor as a fraction in lowest terms, NaN where float64 cannot hold it.
    """

    id: str
    symbol: str
    type: str
    calendar: str
    lot_micro: int
    price_scale: int
    multiplier: int
    day: I32
    open_ts: I64
    close_ts: I64
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    open_ticks: I64
    close_ticks: I64
    factor: F64
    factor_num: F64
    factor_den: F64
    factor_tr: F64
    split_day: I32
    split_num: I64
    split_den: I64
    dividend_day: I32
    dividend_pay_day: I32
    dividend_pay_assumed: BOOL
    dividend_amount: F64

    @property
    def rows(self) -> int:
        """Number of bars."""
        return int(self.day.shape[0])

    @property
    def ids(self) -> tuple[str, ...]:
        """Its id, as of one that is alike."""
        return (self.id,)

    @property
    def count(self) -> I64:
        """Number of its bars (1,), as of one that is alike."""
        return np.array([self.rows], np.int64)

    def column(self, name: str) -> Any:
        """Return a bar column (1, n)."""
        return getattr(self, name).reshape(1, -1)


@dataclass(frozen=True, eq=False)
class Alike:
    """Instruments at these positions of a panel, ascending, that differ in nothing but the numbers in their bars.

    All have the same calendar, lot, multiplier and scale of prices, as many bars before the run, and gaps in the same
    bar columns: what is asked of one is asked of each. count (g,): how many bars each has; day (n,): of one that has
    the most. Where ``Panel.alike`` was asked for the same days, they are those of all.
    """

    panel: Panel
    positions: tuple[int, ...]
    count: I64
    day: I32
    price_scale: int

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the instruments."""
        return tuple(self.panel.instruments[position].id for position in self.positions)

    def column(self, name: str) -> Any:
        """Return a bar column of all (g, n), or (g, 0) if it was not loaded. What stands behind the last bar of an
        instrument means nothing."""
        column, size = getattr(self.panel, name), len(self.positions)
        if not column.shape[0]:
            return column.reshape(1, 0).repeat(size, axis=0)
        start, rows = self.panel.start[list(self.positions)], self.day.shape[0]
        if int(self.count.min()) == rows and self.positions[-1] - self.positions[0] + 1 == size:
            return column[int(start[0]) : int(start[0]) + size * rows].reshape(size, rows)
        found = np.ones((size, rows), column.dtype)
        for own, begin, count in zip(found, start.tolist(), self.count.tolist(), strict=True):
            own[:count] = column[begin : begin + count]
        return found


@dataclass(frozen=True, eq=False)
class Market:
    """All series of one run, and the sessions it runs over.

    ``calendar`` is sliced to [start_day, end_day]; ``calendars`` holds it, and those of the series, whole. Series also
    hold the history before ``start_day`` that indicators need. ``no_dividends``, ``no_splits``: the dataset holds none
    at all, which are assumptions the result must name.
    """

    calendar: Calendar
    calendars: Mapping[str, Calendar]
    series: tuple[InstrumentSeries, ...]
    index: Mapping[str, int]
    start_day: int
    end_day: int
    snapshot: str
    no_dividends: bool
    no_splits: bool


@dataclass(frozen=True, eq=False)
class Panel:
    """Bars and corporate actions of many instruments for one run, instrument after instrument, in id order.

    Shapes:  bars ``start[i] .. start[i + 1]`` are those of ``instruments[i]``, start (s + 1,); so are split_start and
             dividend_start; price_scale (s,). day .. factor_tr (n,), split_day .. split_den (splits,), dividend_day ..
             dividend_amount (dividends,): what an ``InstrumentSeries`` says of them holds here per instrument.
    calendar, calendars, start_day, end_day, snapshot, no_dividends, no_splits: as in ``Market``.
    """

    instruments: tuple[Instrument, ...]
    start: I64
    price_scale: I8
    day: I32
    open_ts: I64
    close_ts: I64
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    open_ticks: I64
    close_ticks: I64
    factor: F64
    factor_num: F64
    factor_den: F64
    factor_tr: F64
    split_start: I64
    split_day: I32
    split_num: I64
    split_den: I64
    dividend_start: I64
    dividend_day: I32
    dividend_pay_day: I32
    dividend_pay_assumed: BOOL
    dividend_amount: F64
    calendar: Calendar
    calendars: Mapping[str, Calendar]
    start_day: int
    end_day: int
    snapshot: str
    no_dividends: bool
    no_splits: bool

    @property
    def bytes(self) -> int:
        """Bytes of its arrays, without the calendars."""
        arrays = {id(value): value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray)}
        return sum(arrays.values())

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The position of each instrument, by id."""
        return MappingProxyType({one.id: position for position, one in enumerate(self.instruments)})

    def alike(self, positions: Sequence[int], *, same_days: bool) -> list[Alike]:
        """Return the instruments at these positions, ascending, in groups of those that are alike.

        ``same_days``: their bars stand on the same days. Else one has less than twice as many as another.
        """
        found: dict[tuple[object, ...], list[int]] = {}
        for at in positions:
            one, day = self.instruments[at], self._days(at)
            count, before = int(day.shape[0]), int(np.searchsorted(day, self.start_day))
            when = day.tobytes() if same_days else (before, count > before, count.bit_length())
            terms = one.calendar, one.lot_micro, one.multiplier, int(self.price_scale[at]), int(self._gaps[at])
            found.setdefault((*terms, when), []).append(at)
        groups = []
        for group in found.values():
            counts = np.array([self._days(at).shape[0] for at in group], np.int64)
            longest, scale = group[int(counts.argmax())], int(self.price_scale[group[0]])
            groups.append(Alike(self, tuple(group), counts, self._days(longest), scale))
        return groups

    def _days(self, position: int) -> I32:
        return self.day[int(self.start[position]) : int(self.start[position + 1])]

    @cached_property
    def _gaps(self) -> I64:
        """A bit for each bar column in which an instrument has gaps, (s,)."""
        has_bars = self.start[1:] > self.start[:-1]
        gaps = np.zeros(has_bars.shape[0], np.int64)
        for bit, column in enumerate((self.open, self.high, self.low, self.close, self.volume)):
            if column.shape[0]:
                gaps[has_bars] |= np.isnan(np.add.reduceat(column, self.start[:-1][has_bars])).astype(np.int64) << bit
        return gaps

    def series(self, position: int) -> InstrumentSeries:
        """Return the series of one instrument: slices, nothing is copied."""
        one = self.instruments[position]
        return InstrumentSeries(
            id=one.id,
            symbol=one.symbol,
            type=one.type,
            calendar=one.calendar,
            lot_micro=one.lot_micro,
            price_scale=int(self.price_scale[position]),
            multiplier=one.multiplier,
            **self._slices(_OF_BARS, self.start, position),
            **self._slices(_OF_SPLITS, self.split_start, position),
            **self._slices(_OF_DIVIDENDS, self.dividend_start, position),
        )

    def _slices(self, names: Sequence[str], start: I64, position: int) -> dict[str, Any]:
        # A column that the run does not need is empty, and so is any part of it.
        rows = slice(int(start[position]), int(start[position + 1]))
        return {name: getattr(self, name)[rows] for name in names}

    def market(self, positions: Iterable[int] | None = None, beside: Panel | None = None) -> Market:
        """Return the market of the instruments at these positions, of all by default, and of those of another panel of
        the run; one that is in both is that of this panel."""
        chosen = range(len(self.instruments)) if positions is None else sorted(set(positions))
        series = tuple(self.series(position) for position in chosen)
        calendars = self.calendars
        if beside is not None:
            own = {one.id for one in series}
            others = (at for at, one in enumerate(beside.instruments) if one.id not in own)
            series = tuple(sorted((*series, *map(beside.series, others)), key=lambda one: one.id.encode()))
            calendars = MappingProxyType({**beside.calendars, **calendars})
        return Market(
            calendar=self.calendar,
            calendars=calendars,
            series=series,
            index=MappingProxyType({one.id: at for at, one in enumerate(series)}),
            start_day=self.start_day,
            end_day=self.end_day,
            snapshot=self.snapshot,
            no_dividends=self.no_dividends,
            no_splits=self.no_splits,
        )


_OF_BARS: Final = (
    "day", "open_ts", "close_ts", "open", "high", "low", "close", "volume", "open_ticks", "close_ticks", "factor",
    "factor_num", "factor_den", "factor_tr",
)  # fmt: skip
_OF_SPLITS: Final = ("split_day", "split_num", "split_den")
_OF_DIVIDENDS: Final = ("dividend_day", "dividend_pay_day", "dividend_pay_assumed", "dividend_amount")
