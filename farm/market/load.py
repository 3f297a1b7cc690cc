"""Wires shards and the column cache into a market: everything a run reads, in one wave.

1. One read plan says what is read (bars, splits, dividends of every instrument), so that what is cold comes in
   one wave of coalesced requests, whatever the number of instruments.
2. Rows are cut out per instrument, prices become float64 by one division, bars get the instants of their session.
3. Adjustment factors are computed from exact rationals, anchored at the first session of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from farm.columns.cache import ColumnCache, Load
from farm.market.adjust import dividend_steps, factors, ratios, split_steps
from farm.market.panel import InstrumentSeries, Market
from farm.shard.calendar import Calendar
from farm.shard.dataset import Dataset, Instrument
from farm.shard.kinds import STOCK_DAILY
from farm.shard.plan import bar_columns
from farm.shard.reader import ColumnKey, Rows, Values, read_columns, read_rows
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import DataError
from farm.values.units import iso

_BARS: Final = STOCK_DAILY.name
_SPLITS: Final = ("numerator", "denominator")
_DIVIDENDS: Final = ("amount", "pay_day", "pay_day_valid")


DECODED_MAX = 8
"""Most bytes of decoded columns for one of a shard, in round numbers: int64 prices that repeat are packed so far."""


def load_market(
    dataset: Dataset,
    cache: ColumnCache,
    instrument_ids: Iterable[str],
    *,
    calendar_name: str,
    start_day: int,
    end_day: int,
    first_day: Mapping[str, int],
    columns: frozenset[str],
) -> Market:
    """Return the market of a run over [start_day, end_day], with the history of each instrument from ``first_day``.

    ``columns``: bar columns wanted besides open, close and volume; others stay empty. ``first_day``: by id, the first
    day of history, at most ``start_day``; an id that is not in it has none.
    Order:  series by the bytes of their ids, whatever the order of ``instrument_ids``; each id once.
    Errors: DataError for an unknown id, a bar on a day that is no session of the instrument's calendar, a dividend that
            eats the whole price, and whatever reading finds damaged.
    """
    wanted = bar_columns(columns)
    ids = sorted(set(instrument_ids), key=lambda name: name.encode())
    since = {name: min(first_day.get(name, start_day), start_day) for name in ids}
    master = dataset.instruments()
    for name in ids:
        if name not in master:
            raise DataError("no such instrument", place=f"snapshot {dataset.snapshot.id[:12]}, instrument {name}")
    whole = dataset.calendar(calendar_name)
    calendar = whole.slice(start_day, end_day)
    anchor_day = int(calendar.day[0]) if calendar.day.size else start_day
    held = _Held(_one_wave(dataset, cache, since, end_day, wanted), cache)
    series = tuple(_series(dataset, held, master[name], since[name], end_day, anchor_day, wanted) for name in ids)
    own = {name: dataset.calendar(name) for name in {one.calendar for one in series}}
    return Market(
        calendar=calendar,
        calendars=MappingProxyType(own | {whole.name: whole}),
        series=series,
        index=MappingProxyType({name: position for position, name in enumerate(ids)}),
        start_day=start_day,
        end_day=end_day,
        snapshot=dataset.snapshot.id,
        no_dividends=not dataset.snapshot.of_kind("dividends"),
        no_splits=not dataset.snapshot.of_kind("splits"),
    )


@dataclass(frozen=True)
class _Held:
    """Columns of this run, held while its rows are cut out: even a cache smaller than the run fetches each once."""

    columns: Mapping[ColumnKey, Values]
    cache: ColumnCache

    def get_many(self, keys: Sequence[ColumnKey], load: Load) -> dict[ColumnKey, Values]:
        if all(key in self.columns for key in keys):
            return {key: self.columns[key] for key in keys}
        return self.cache.get_many(keys, load)


def _one_wave(
    dataset: Dataset,
    cache: ColumnCache,
    since: Mapping[str, int],
    end_day: int,
    wanted: Sequence[str],
    *,
    if_kept: bool = False,
) -> dict[ColumnKey, Values]:
    """Return every column of the run, loaded by a single call of the reader. ``if_kept``: none of them, unless the
    cache can keep them all."""
    plan = dataset.read_plan(since, end_day, wanted)
    if if_kept and plan.bytes_needed * DECODED_MAX > cache.cache_bytes_max:
        return {}
    return read_columns(dataset.store, dataset, plan, cache)


def prefetch(
    dataset: Dataset, cache: ColumnCache, first_day: Mapping[str, int], end_day: int, columns: frozenset[str]
) -> None:
    """Bring what the markets of these instruments read into the cache, in one wave; nothing if it has no room for it.

    ``first_day``: by id, the first day that is read; ``columns`` as in ``load_market``.
    """
    wanted = bar_columns(columns)
    _one_wave(dataset, cache, first_day, end_day, wanted, if_kept=True)


def _series(
    dataset: Dataset,
    cache: _Held,
    instrument: Instrument,
    first_day: int,
    end_day: int,
    anchor_day: int,
    wanted: Sequence[str],
) -> InstrumentSeries:
    name = instrument.id
    bars = read_rows(dataset, cache, _BARS, name, first_day, end_day, wanted)
    splits = read_rows(dataset, cache, "splits", name, first_day, end_day, _SPLITS)
    dividends = read_rows(dataset, cache, "dividends", name, first_day, end_day, _DIVIDENDS)
    day: I32 = bars["day"]
    open_ts, close_ts = _sessions(dataset.calendar(instrument.calendar), day, name)
    by_split = split_steps(splits["ex_day"], splits["numerator"], splits["denominator"], f"splits of {name}")
    by_dividend = dividend_steps(
        dividends["ex_day"],
        dividends["amount"],
        dividends.scale,
        day,
        bars["close"],
        bars.scale,
        by_split,
        f"dividends of {name}",
    )
    is_assumed = dividends["pay_day_valid"] == 0
    factor_num, factor_den = ratios(day, anchor_day, by_split)
    return InstrumentSeries(
        id=name,
        symbol=instrument.symbol,
        type=instrument.type,
        calendar=instrument.calendar,
        lot_micro=instrument.lot_micro,
        price_scale=bars.scale,
        multiplier=instrument.multiplier,
        day=day,
        open_ts=open_ts,
        close_ts=close_ts,
        open=_prices(bars, "open", wanted),
        high=_prices(bars, "high", wanted),
        low=_prices(bars, "low", wanted),
        close=_prices(bars, "close", wanted),
        volume=readonly(bars["volume"].astype(np.float64)),
        open_ticks=bars["open"],
        close_ticks=bars["close"],
        factor=factors(day, anchor_day, by_split),
        factor_tr=factors(day, anchor_day, [*by_split, *by_dividend]),
        split_day=splits["ex_day"],
        split_num=splits["numerator"],
        split_den=splits["denominator"],
        dividend_day=dividends["ex_day"],
        dividend_pay_day=readonly(np.where(is_assumed, dividends["ex_day"], dividends["pay_day"])),
        dividend_pay_assumed=readonly(is_assumed),
        dividend_amount=dividends.prices("amount"),
        factor_num=factor_num,
        factor_den=factor_den,
    )


def _prices(bars: Rows, name: str, wanted: Sequence[str]) -> F64:
    return bars.prices(name) if name in wanted else readonly(np.empty(0, np.float64))


def _sessions(calendar: Calendar, day: I32, name: str) -> tuple[I64, I64]:
    """Return open and close instants of the bars' sessions; DataError for a bar on a day without one."""
    at = np.searchsorted(calendar.day, day)
    is_session = calendar.is_session(day)
    if not is_session.all():
        strange = int(day[np.flatnonzero(~is_session)[0]])
        raise DataError(
            f"a bar on a day that is no session of the calendar {calendar.name}",
            place=f"bars of {name}, {iso(strange)}",
            hint="ingest the bars with the calendar they follow (--calendar), or 24x7",
        )
    return readonly(calendar.open_ts[at]), readonly(calendar.close_ts[at])
