"""The tape: every event of a market in the total order of domain.md 3.1, made once and shared by all trials.

Rules: events are tables of numbers, grouped by instant. At one instant first what ends: closing bars (2), the session
close, decisions; then the session that opens: splits and ex-dates (1), dividend payments (4), opening prints (9). Both
happen at once where sessions follow each other without a pause, and there the closing bar is of the old basis. Inside
a phase the order is that of the instrument ids. Splits and ex-dates act at the open of the
first session on or after their day, or at the instrument's own first print of that day if that is earlier; dividends
are paid at the open of the first session on or after the pay day, never before the ex-date. What lies after the last
session close of the run is not on the tape. An instrument may follow another calendar than the run's: its sessions
close on the tape too, because orders work for so many of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from farm.kernels.instants import merge_instants
from farm.kernels.records import BAR, INSTANT, OPENING, Table, TapeTables
from farm.market.actions import LATE, actions_of_series
from farm.market.panel import InstrumentSeries, Market, Panel
from farm.shard.kinds import BAR_COLUMNS
from farm.values.arrays import I64, readonly
from farm.values.errors import CapacityError, DataError
from farm.values.units import iso

CALENDARS_MAX = 62
"""Calendars that one tape can tell apart: bits of an int64."""


@dataclass(frozen=True, eq=False)
class Tape:
    """Events of the traded instruments of a market; read-only, safe to share between threads.

    traded: positions in ``market.series``, ascending; an *asset* is a position in this tuple.
    windows: per asset, the own bars that are on the tape.
    bars_of: rows of ``tables.bars``, by asset and then in time order; ``asset_end`` (k,) says where each asset ends.
    dividends: the rows that receivables need. calendars: the run's, then the others that traded instruments follow; bit
    k of INSTANT.closed stands for number k. has_range: highs and lows were loaded, so that stops can be
    tested.
    """

    market: Market
    traded: tuple[int, ...]
    windows: tuple[slice, ...]
    tables: TapeTables
    bars_of: I64
    asset_end: I64
    dividends: int
    calendars: tuple[str, ...]
    has_range: bool

    @property
    def instants(self) -> int:
        """Number of instants."""
        return int(self.tables.instants.shape[0])

    @property
    def bytes(self) -> int:
        """Bytes of its tables."""
        return sum(table.nbytes for table in (*self.tables, self.bars_of))

    def cuts(self, batch_rows: int) -> Iterator[int]:
        """Yield where batches end: each takes whole instants, and as many as hold at most ``batch_rows`` bars."""
        if batch_rows < 1:
            raise ValueError("a batch holds at least one row")
        ends = self.tables.instants["bar_end"]
        last = 0
        while last < self.instants:
            done = int(ends[last - 1]) if last else 0
            last = max(last + 1, int(np.searchsorted(ends, done + batch_rows, side="right")))
            yield last


def make_tape(market: Market, traded: Sequence[int] | None = None) -> Tape:
    """Return the tape of the instruments at these positions of ``market.series`` (all of them by default).

    Errors: DataError when a series lacks a column that fills need, or its bars overlap or have no usable prices;
            CapacityError for more calendars than INSTANT.closed has bits.
    """
    chosen = tuple(range(len(market.series))) if traded is None else tuple(sorted(set(traded)))
    series = [market.series[index] for index in chosen]
    windows = [_window(market, one) for one in series]
    calendars, sessions = _sessions(market, series)
    bar_ts, bars = _bars(series, windows)
    open_ts, openings = _openings(market, series, windows)
    found = actions_of_series(market, series)
    instants = _instants(sessions, found.act_ts, bar_ts, found.pay_ts[found.pay_ts != LATE], open_ts)
    bars_of = np.arange(bars.shape[0]) if len(series) == 1 else np.argsort(bars["asset"], kind="stable")
    return Tape(
        market=market,
        traded=chosen,
        windows=tuple(windows),
        tables=TapeTables(*(readonly(table) for table in (instants, found.actions, bars, found.payments, openings))),
        bars_of=readonly(bars_of),
        asset_end=readonly(np.cumsum([window.stop - window.start for window in windows])),
        dividends=int(found.payments.shape[0]),
        calendars=calendars,
        has_range=all(one.high.shape == one.low.shape == one.day.shape for one in series),
    )


def _sessions(market: Market, series: Sequence[InstrumentSeries]) -> tuple[tuple[str, ...], list[tuple[I64, I64]]]:
    """The calendars of the run and of the series, and when their sessions open and close; those of the run first."""
    run = market.calendar
    names = (run.name, *sorted({one.calendar for one in series} - {run.name}))
    if len(names) > CALENDARS_MAX:
        raise CapacityError(f"{len(names)} calendars in one run", place="run", allowed=f"at most {CALENDARS_MAX}")
    return names, [(run.open_ts, run.close_ts), *(own_sessions(market, name) for name in names[1:])]


def own_sessions(run: Market | Panel, name: str) -> tuple[I64, I64]:
    """Return when the sessions of another calendar open and close that close during the run."""
    own = run.calendars[name]
    first = int(np.searchsorted(own.day, run.start_day))
    last = int(np.searchsorted(own.day, run.end_day, side="right"))
    last = min(last, int(np.searchsorted(own.close_ts, run.calendar.close_ts[-1:].max(initial=0), side="right")))
    return own.open_ts[first:last], own.close_ts[first:last]


def _instants(sessions: Sequence[tuple[I64, I64]], act_ts: I64, bar_ts: I64, pay_ts: I64, open_ts: I64) -> Table:
    """Merge the instants; each row says where its events end in their tables, and whose sessions close."""
    opens, closes = zip(*sessions, strict=True)
    lists = (act_ts, bar_ts, pay_ts, open_ts, *closes)
    lengths = np.array([one.size for one in lists])
    stop = np.cumsum(lengths)
    instants = np.empty(stop[-1], INSTANT)
    times, opened = (readonly(np.concatenate(parts)) for parts in (lists, opens))
    n = merge_instants(times, opened, readonly(stop), stop - lengths, instants)
    instants.resize(n, refcheck=False)  # in place: a copy would touch as much memory again
    return instants


def _window(market: Market, series: InstrumentSeries) -> slice:
    """The own bars that the run trades on: inside its days, and closed by its last session close."""
    for name in ("open", "close", "volume"):
        if getattr(series, name).shape != series.day.shape:
            raise DataError(f"column {name} was not loaded", place=series.id, hint="fills need open, close and volume")
    first = int(np.searchsorted(series.day, market.start_day))
    last = int(np.searchsorted(series.day, market.end_day, side="right"))
    if market.calendar.close_ts.shape[0]:
        last = min(last, int(np.searchsorted(series.close_ts, market.calendar.close_ts[-1], side="right")))
    else:
        last = first
    last = max(first, last)
    open_ts, close_ts = series.open_ts[first:last], series.close_ts[first:last]
    wrong = np.flatnonzero((open_ts >= close_ts) | (np.append(open_ts[1:], np.iinfo(np.int64).max) < close_ts))
    if wrong.size:
        raise time_fault(series.id, int(series.day[first + int(wrong[0])]))
    _check_prices(series, "close", slice(first, last))
    return slice(first, last)


def _check_prices(series: InstrumentSeries, name: str, rows: slice) -> None:
    price = getattr(series, name)[rows]
    if not bool(((price > 0.0) & (price < np.inf)).all()):
        raise price_fault(series.id, name)


def time_fault(name: str, day: int) -> DataError:
    """Return the error of bars of which one does not end before the next begins."""
    return DataError("bars overlap, or one closes before it opens", place=f"{name} {iso(day)}")


def price_fault(name: str, column: str) -> DataError:
    """Return the error of bars that have no usable price."""
    return DataError(f"{column} is not a positive price", place=name)


def _bars(series: Sequence[InstrumentSeries], windows: Sequence[slice]) -> tuple[I64, Table]:
    """Closing bars by (close_ts, asset). Columns that were not loaded are NaN: nothing compares true with them."""
    tables = []
    for asset, (one, window) in enumerate(zip(series, windows, strict=True)):
        table = np.empty(window.stop - window.start, BAR)
        table["asset"] = asset
        table["row"] = np.arange(window.start, window.stop)
        for name in BAR_COLUMNS:
            values = getattr(one, name)
            table[name] = values[window] if values.shape == one.day.shape else np.nan
        tables.append(table)
    return _in_order([one.close_ts[window] for one, window in zip(series, windows, strict=True)], tables, BAR)


def _openings(market: Market, series: Sequence[InstrumentSeries], windows: Sequence[slice]) -> tuple[I64, Table]:
    """Opening prints by (open_ts, asset): of the bars that close in the run, and of one that only opens in it."""
    times, tables = [], []
    for asset, (one, window) in enumerate(zip(series, windows, strict=True)):
        last = int(np.searchsorted(one.day, market.end_day, side="right"))
        last = min(last, int(np.searchsorted(one.open_ts, market.calendar.close_ts[-1:].max(initial=0))))
        opened = slice(window.start, max(window.stop, last))
        _check_prices(one, "open", opened)
        table = np.empty(opened.stop - opened.start, OPENING)
        table["asset"] = asset
        table["price"] = one.open[opened]
        table["volume"] = one.volume[opened]
        times.append(one.open_ts[opened])
        tables.append(table)
    return _in_order(times, tables, OPENING)


def _in_order(times: Sequence[I64], tables: Sequence[Table], dtype: np.dtype[np.void]) -> tuple[I64, Table]:
    """Sort rows by time; the sort is stable and assets come in id order, so ties go by id."""
    if len(tables) == 1:
        return times[0], tables[0]
    ts = np.concatenate([np.empty(0, np.int64), *times])
    table = np.concatenate([np.empty(0, dtype), *tables])
    order = np.argsort(ts, kind="stable")
    return ts[order], np.ascontiguousarray(table[order])
