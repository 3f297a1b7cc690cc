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

from farm.feed.market import InstrumentSeries, Market
from farm.kernels import step_layout as at
from farm.values.arrays import F64, I64, readonly
from farm.values.errors import CapacityError, DataError
from farm.values.units import iso

CALENDARS_MAX = 62
"""Calendars that one tape can tell apart: bits of an int64."""


@dataclass(frozen=True, eq=False)
class Tape:
    """Events of the traded instruments of a market; read-only, safe to share between threads.

    traded: positions in ``market.series``, ascending; an *asset* is a position in this tuple.
    Tables: see ``kernels/step_layout.py``. ``dividends`` counts the rows that receivables need. ``calendars``: the
            run's, then the others that traded instruments follow; bit k of CLOSED stands for number k.
    has_range: highs and lows were loaded, so that stops can be tested.
    """

    market: Market
    traded: tuple[int, ...]
    inst: I64
    act: F64
    bar: F64
    pay: I64
    opening: F64
    dividends: int
    calendars: tuple[str, ...]
    has_range: bool

    @property
    def instants(self) -> int:
        """Number of instants."""
        return int(self.inst.shape[0])

    def cuts(self, batch_rows: int) -> Iterator[int]:
        """Yield where batches end: each takes whole instants, and as many as hold at most ``batch_rows`` bars."""
        if batch_rows < 1:
            raise ValueError("a batch holds at least one row")
        ends = self.inst[:, at.BAR_END]
        last = 0
        while last < self.instants:
            done = int(ends[last - 1]) if last else 0
            last = max(last + 1, int(np.searchsorted(ends, done + batch_rows, side="right")))
            yield last


def make_tape(market: Market, traded: Sequence[int] | None = None) -> Tape:
    """Return the tape of the instruments at these positions of ``market.series`` (all of them by default).

    Errors: DataError when a series lacks a column that fills need, or its bars overlap or have no usable prices;
            CapacityError for more calendars than CLOSED has bits.
    """
    chosen = tuple(range(len(market.series))) if traded is None else tuple(sorted(set(traded)))
    series = [market.series[index] for index in chosen]
    windows = [_window(market, one) for one in series]
    calendars, closes = _closes(market, series)
    bar_ts, bar = _bars(series, windows)
    open_ts, opening = _openings(series, windows)
    act_ts, act = _actions(market, series)
    pay_ts, pay = _payments(market, series, act)
    inst = _instants(closes, act_ts, bar_ts, pay_ts, open_ts)
    return Tape(
        market=market,
        traded=chosen,
        inst=readonly(inst),
        act=readonly(act),
        bar=readonly(bar),
        pay=readonly(pay),
        opening=readonly(opening),
        dividends=int(pay.shape[0]),
        calendars=calendars,
        has_range=all(one.high.shape == one.low.shape == one.day.shape for one in series),
    )


def _closes(market: Market, series: Sequence[InstrumentSeries]) -> tuple[tuple[str, ...], list[I64]]:
    """The calendars of the run and of the series, and when their sessions close; those of the run first."""
    run = market.calendar
    names = (run.name, *sorted({one.calendar for one in series} - {run.name}))
    if len(names) > CALENDARS_MAX:
        raise CapacityError(f"{len(names)} calendars in one run", place="run", allowed=f"at most {CALENDARS_MAX}")
    closes = [run.close_ts]
    for name in names[1:]:
        own = market.calendars[name]
        first, last = np.searchsorted(own.day, (market.start_day, market.end_day + 1))
        closes.append(own.close_ts[first:last][own.close_ts[first:last] <= run.close_ts[-1:].max(initial=0)])
    return names, closes


def _instants(closes: Sequence[I64], act_ts: I64, bar_ts: I64, pay_ts: I64, open_ts: I64) -> I64:
    """Merge the instants; each row says where its events end in their tables, and whose sessions close."""
    ts = np.unique(np.concatenate((*closes, act_ts, bar_ts, pay_ts, open_ts)))
    inst = np.zeros((ts.shape[0], 7), np.int64)
    inst[:, at.TS] = ts
    inst[:, at.SESSION] = -1
    inst[np.searchsorted(ts, closes[0]), at.SESSION] = np.arange(closes[0].shape[0])
    for number, times in enumerate(closes):
        inst[np.searchsorted(ts, times), at.CLOSED] |= 1 << number
    for column, times in ((at.ACT_END, act_ts), (at.BAR_END, bar_ts), (at.PAY_END, pay_ts), (at.OPEN_END, open_ts)):
        inst[:, column] = np.searchsorted(times, ts, side="right")
    return inst


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
        day = iso(int(series.day[first + int(wrong[0])]))
        raise DataError("bars overlap, or one closes before it opens", place=f"{series.id} {day}")
    for name in ("open", "close"):
        price = getattr(series, name)[first:last]
        if not bool(((price > 0.0) & (price < np.inf)).all()):
            raise DataError(f"{name} is not a positive price", place=series.id)
    return slice(first, last)


def _bars(series: Sequence[InstrumentSeries], windows: Sequence[slice]) -> tuple[I64, F64]:
    """Closing bars by (close_ts, asset). Columns that were not loaded are NaN: nothing compares true with them."""
    tables, times = [], []
    for asset, (one, window) in enumerate(zip(series, windows, strict=True)):
        rows = np.arange(window.start, window.stop)
        table = np.full((rows.shape[0], 7), np.nan)
        table[:, at.B_ASSET] = asset
        table[:, at.B_ROW] = rows
        for column, values in ((at.B_OPEN, one.open), (at.B_HIGH, one.high), (at.B_LOW, one.low),
                               (at.B_CLOSE, one.close), (at.B_VOLUME, one.volume)):  # fmt: skip
            if values.shape == one.day.shape:
                table[:, column] = values[window]
        tables.append(table)
        times.append(one.close_ts[window])
    return _in_order(times, tables, 7)


def _openings(series: Sequence[InstrumentSeries], windows: Sequence[slice]) -> tuple[I64, F64]:
    """Opening prints by (open_ts, asset)."""
    tables = [
        np.column_stack((np.full(window.stop - window.start, float(asset)), one.open[window], one.volume[window]))
        for asset, (one, window) in enumerate(zip(series, windows, strict=True))
    ]
    return _in_order([one.open_ts[window] for one, window in zip(series, windows, strict=True)], tables, 3)


def _in_order(times: Sequence[I64], tables: Sequence[F64], width: int) -> tuple[I64, F64]:
    """Sort rows by time; the sort is stable and assets come in id order, so ties go by id."""
    ts = np.concatenate([np.empty(0, np.int64), *times])
    table = np.concatenate([np.empty((0, width)), *tables])
    if len(tables) > 1:
        order = np.argsort(ts, kind="stable")
        ts, table = ts[order], np.ascontiguousarray(table[order])
    return ts, table


def _session_open(market: Market, series: InstrumentSeries, day: int) -> int | None:
    """The instant at which what is dated ``day`` acts on the instrument; None after the run."""
    calendar = market.calendar
    session = int(np.searchsorted(calendar.day, day))
    if session == calendar.day.shape[0]:
        return None
    row = int(np.searchsorted(series.day, day))
    instant = int(calendar.open_ts[session])
    return min(instant, int(series.open_ts[row])) if row < series.rows else instant


def _actions(market: Market, series: Sequence[InstrumentSeries]) -> tuple[I64, F64]:
    """Splits and ex-dates by (instant, split before dividend, asset, order in the series)."""
    rows: list[tuple[int, int, int, int, tuple[float, ...]]] = []
    for asset, one in enumerate(series):
        for k, day in enumerate(one.split_day.tolist()):
            instant = _session_open(market, one, day)
            if instant is not None and market.start_day <= day:
                numbers = (0.0, asset, -1.0, float(one.split_num[k]), float(one.split_den[k]), 0.0, 0.0, float(day))
                rows.append((instant, 0, asset, k, numbers))
        for k, day in enumerate(one.dividend_day.tolist()):
            instant = _session_open(market, one, day)
            if instant is not None and market.start_day <= day:
                assumed = float(one.dividend_pay_assumed[k])
                amount = float(one.dividend_amount[k])
                rows.append((instant, 1, asset, k, (1.0, asset, -1.0, 1.0, 1.0, amount, assumed, float(day))))
    rows.sort()
    act = np.array([row[4] for row in rows]).reshape(len(rows), 8)
    is_dividend = act[:, at.IS_DIVIDEND] == 1.0
    act[is_dividend, at.A_DIVIDEND] = np.arange(np.count_nonzero(is_dividend))
    return np.array([row[0] for row in rows], np.int64), act


def _payments(market: Market, series: Sequence[InstrumentSeries], act: F64) -> tuple[I64, I64]:
    """Pay dates by (instant, asset, dividend). Dividends that the run does not live to see follow, without instant."""
    paid: list[tuple[int, int, int, int]] = []
    unpaid: list[tuple[int, int, int]] = []
    for asset, one in enumerate(series):
        ours = act[(act[:, at.IS_DIVIDEND] == 1.0) & (act[:, at.A_ASSET] == asset)]
        acting = one.dividend_day >= market.start_day
        for row, pay_day in zip(ours, one.dividend_pay_day[acting].tolist(), strict=False):
            number, day = int(row[at.A_DIVIDEND]), int(row[at.A_DAY])
            instant = _session_open(market, one, max(day, pay_day))
            if instant is None:
                unpaid.append((number, asset, day))
            else:
                paid.append((instant, asset, number, day))
    paid.sort()
    table = [(number, asset, day) for _, asset, number, day in paid] + unpaid
    return np.array([row[0] for row in paid], np.int64), np.array(table, np.int64).reshape(len(table), 3)
