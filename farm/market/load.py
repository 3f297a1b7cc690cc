"""Executes a read plan: everything that runs on these instruments read, in one wave, as a panel.

1. What is cold comes in one wave of coalesced requests, whatever the number of instruments.
2. Rows are put side by side (``gather``), prices become float64 by one division, bars get the instants of their
   session.
3. Adjustment factors are computed from exact rationals, anchored at the first session of the run (``adjust``).

Python runs per row group and column. An error is that of the first instrument that has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from farm.columns.cache import ColumnCache
from farm.kernels.panel import bar_sessions
from farm.market.adjust import adjusted
from farm.market.gather import FirstFault, Gathered, gather
from farm.market.panel import Panel
from farm.shard.calendar import Calendar
from farm.shard.dataset import Dataset, Instrument
from farm.shard.plan import ReadPlan
from farm.shard.reader import read_columns
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import DataError
from farm.values.units import iso

DECODED_MAX = 8
"""Most bytes of decoded columns for one of a shard, in round numbers: int64 prices that repeat are packed so far."""

# Stages of an instrument, in which the first fault is the one that is said.
_BARS, _SPLITS, _DIVIDENDS, _SESSIONS, _FACTORS = range(5)


def load_panel(dataset: Dataset, cache: ColumnCache, plan: ReadPlan, *, calendar_name: str, start_day: int) -> Panel:
    """Return the panel of a run from ``start_day`` to the last day of ``plan``, of the instruments in it.

    Order:  by the bytes of their ids.
    Errors: DataError for an unknown id, a bar on a day that is no session of the instrument's calendar, a dividend that
            eats the whole price, and whatever reading finds damaged.
    """
    master = dataset.instruments()
    for name in plan.ids:
        if name not in master:
            raise DataError("no such instrument", place=f"snapshot {dataset.snapshot.id[:12]}, instrument {name}")
    instruments = tuple(master[name] for name in plan.ids)
    whole = dataset.calendar(calendar_name)
    calendar = whole.slice(start_day, plan.last_day)
    anchor_day = int(calendar.day[0]) if calendar.day.size else start_day
    own = {name: dataset.calendar(name) for name in sorted({one.calendar for one in instruments})}

    found = read_columns(dataset.store, dataset, plan, cache)
    faults = FirstFault()
    of_bars, of_splits, of_dividends = plan.parts
    bars = gather(
        plan, of_bars, found, faults, _BARS, ticks_of=frozenset(("open", "close")), floats=frozenset(("volume",))
    )
    splits = gather(plan, of_splits, found, faults, _SPLITS, ticks_of=frozenset())
    dividends = gather(plan, of_dividends, found, faults, _DIVIDENDS, ticks_of=frozenset(("amount",)))
    del found
    open_ts, close_ts = _sessions(own, instruments, bars, faults)
    factors = adjusted(plan.ids, bars, splits, dividends, anchor_day, faults, _FACTORS)
    faults.check()
    is_assumed = dividends.columns["pay_day_valid"] == 0
    ex_day = dividends.columns["ex_day"]
    return Panel(
        instruments=instruments,
        start=bars.start,
        price_scale=bars.scale,
        day=bars.columns["day"],
        open_ts=open_ts,
        close_ts=close_ts,
        open=_price(bars, "open"),
        high=_price(bars, "high"),
        low=_price(bars, "low"),
        close=_price(bars, "close"),
        volume=bars.columns["volume"],
        open_ticks=bars.columns["open"],
        close_ticks=bars.columns["close"],
        factor=factors.factor,
        factor_num=factors.num,
        factor_den=factors.den,
        factor_tr=factors.total_return,
        split_start=splits.start,
        split_day=splits.columns["ex_day"],
        split_num=splits.columns["numerator"],
        split_den=splits.columns["denominator"],
        dividend_start=dividends.start,
        dividend_day=ex_day,
        dividend_pay_day=readonly(np.where(is_assumed, ex_day, dividends.columns["pay_day"])),
        dividend_pay_assumed=readonly(is_assumed),
        dividend_amount=dividends.prices["amount"],
        calendar=calendar,
        calendars=MappingProxyType(own | {whole.name: whole}),
        start_day=start_day,
        end_day=plan.last_day,
        snapshot=dataset.snapshot.id,
        no_dividends=not dataset.snapshot.of_kind("dividends"),
        no_splits=not dataset.snapshot.of_kind("splits"),
    )


def _price(bars: Gathered, name: str) -> F64:
    return bars.prices[name] if name in bars.prices else readonly(np.empty(0, np.float64))


def prefetch(dataset: Dataset, cache: ColumnCache, plan: ReadPlan) -> None:
    """Bring what ``plan`` reads into the cache, in one wave; nothing if it has no room for it."""
    if plan.bytes_needed * DECODED_MAX <= cache.cache_bytes_max:
        read_columns(dataset.store, dataset, plan, cache)


def _sessions(
    calendars: Mapping[str, Calendar], instruments: Sequence[Instrument], bars: Gathered, faults: FirstFault
) -> tuple[I64, I64]:
    """Return open and close X: a bar on a day without one."""
    names = list(calendars)
    number = {name: at for at, name in enumerate(names)}
    days = [calendars[name].day for name in names]
    stop = np.cumsum([one.size for one in days], dtype=np.int64)
    first = stop - np.array([one.size for one in days], np.int64)
    day: I32 = bars.columns["day"]
    open_ts, close_ts = np.empty(day.size, np.int64), np.empty(day.size, np.int64)
    strange = np.empty(len(instruments), np.int64)
    bar_sessions(
        day,
        bars.start,
        np.array([number[one.calendar] for one in instruments], np.int32),
        first,
        stop,
        np.concatenate([np.empty(0, np.int32), *days]),
        np.concatenate([np.empty(0, np.int64), *(calendars[name].open_ts for name in names)]),
        np.concatenate([np.empty(0, np.int64), *(calendars[name].close_ts for name in names)]),
        open_ts,
        close_ts,
        strange,
    )
    for instrument in np.flatnonzero(strange >= 0)[:1].tolist():
        one = instruments[instrument]
        error = DataError(
            f"a bar on a day that is no session of the calendar {one.calendar}",
            place=f"bars of {one.id}, {iso(int(day[strange[instrument]]))}",
            hint="ingest the bars with the calendar they follow (--calendar), or 24x7",
        )
        faults.add(instrument, _SESSIONS, error)
    return readonly(open_ts), readonly(close_ts)
