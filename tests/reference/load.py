"""One instrument's series, read and adjusted alone: what a panel must hold of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farm.columns.cache import ColumnCache
from farm.market.adjust import dividend_steps, factors, ratios, split_steps
from farm.market.panel import InstrumentSeries
from farm.shard.calendar import Calendar
from farm.shard.dataset import Dataset
from farm.shard.reader import read_rows
from farm.values.arrays import I32, I64
from farm.values.errors import DataError
from farm.values.units import iso


def load_series(
    dataset: Dataset, name: str, first_day: int, end_day: int, anchor_day: int, wanted: Sequence[str]
) -> InstrumentSeries:
    """Return the series of the instrument on [first_day, end_day], factors anchored at ``anchor_day``."""
    instrument, cache = dataset.instruments()[name], ColumnCache(0)

    def rows(kind: str, *columns: str):  # type: ignore[no-untyped-def]
        return read_rows(dataset, cache, kind, name, first_day, end_day, columns)

    bars = rows("stock_daily", *wanted)
    splits = rows("splits", "numerator", "denominator")
    dividends = rows("dividends", "amount", "pay_day", "pay_day_valid")
    day = bars["day"]
    open_ts, close_ts = _sessions(dataset.calendar(instrument.calendar), day, name)
    by_split = split_steps(splits["ex_day"], splits["numerator"], splits["denominator"], f"splits of {name}")
    by_dividend = dividend_steps(
        dividends["ex_day"], dividends["amount"], dividends.scale, day, bars["close"], bars.scale, by_split,
        f"dividends of {name}",
    )  # fmt: skip
    is_assumed = dividends["pay_day_valid"] == 0
    factor_num, factor_den = ratios(day, anchor_day, by_split)
    prices = {
        column: bars.prices(column) if column in wanted else np.empty(0) for column in ("open", "high", "low", "close")
    }
    return InstrumentSeries(
        id=name, symbol=instrument.symbol, type=instrument.type, calendar=instrument.calendar,
        lot_micro=instrument.lot_micro, price_scale=bars.scale, multiplier=instrument.multiplier, day=day,
        open_ts=open_ts, close_ts=close_ts, **prices, volume=bars["volume"].astype(np.float64),
        open_ticks=bars["open"], close_ticks=bars["close"], factor=factors(day, anchor_day, by_split),
        factor_num=factor_num, factor_den=factor_den,
        factor_tr=factors(day, anchor_day, [*by_split, *by_dividend]), split_day=splits["ex_day"],
        split_num=splits["numerator"], split_den=splits["denominator"], dividend_day=dividends["ex_day"],
        dividend_pay_day=np.where(is_assumed, dividends["ex_day"], dividends["pay_day"]),
        dividend_pay_assumed=is_assumed, dividend_amount=dividends.prices("amount"),
    )  # fmt: skip


def _sessions(calendar: Calendar, day: I32, name: str) -> tuple[I64, I64]:
    at = np.searchsorted(calendar.day, day)
    is_session = calendar.is_session(day)
    if not is_session.all():
        strange = int(day[np.flatnonzero(~is_session)[0]])
        raise DataError(
            f"a bar on a day that is no session of the calendar {calendar.name}",
            place=f"bars of {name}, {iso(strange)}",
            hint="ingest the bars with the calendar they follow (--calendar), or 24x7",
        )
    return calendar.open_ts[at], calendar.close_ts[at]
