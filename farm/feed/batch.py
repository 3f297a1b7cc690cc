"""Bars of all instruments as one stream: batches of read-only columns, sorted by the total order.

A key is (close_ts, phase 2, timeframe, instrument, row). Where a batch ends changes nothing but memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from farm.feed.market import Market
from farm.feed.merge import PHASE_CLOSE, RANK_DAILY, merge_order
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import UsageError

_ALWAYS: Final = ("day", "open_ts", "close_ts")
_BARS: Final = ("open", "high", "low", "close", "volume", "factor", "factor_tr", "open_ticks", "close_ticks")


@dataclass(frozen=True, eq=False)
class BarBatch:
    """Bars in the total order, struct of arrays, read-only.

    Shapes: (n,) each; a bar column that the market does not hold is empty (0,).
    Fields: instrument, position in ``market.series``; row, position in that series. The rest as ``InstrumentSeries``.
    """

    instrument: I32
    row: I64
    day: I32
    open_ts: I64
    close_ts: I64
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    factor: F64
    factor_tr: F64
    open_ticks: I64
    close_ticks: I64

    def __len__(self) -> int:
        return int(self.row.shape[0])


def batches(market: Market, rows_max: int) -> Iterator[BarBatch]:
    """Yield the bars of ``market`` in the total order, at most ``rows_max`` at a time; nothing for an empty market.

    Errors: UsageError for ``rows_max`` below 1; DataError when a series is unsorted or holds a bar twice.
    """
    if rows_max < 1:
        raise UsageError(f"batches of {rows_max} rows", place="rows_max", allowed="1 or more")
    return _cut(market, rows_max)


def bar_order(market: Market) -> tuple[I32, I64]:
    """Return (instrument, row) of every bar in the total order; errors as ``batches``."""
    counts = [series.rows for series in market.series]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    total = int(offsets[-1])
    instrument = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    row = np.arange(total, dtype=np.int64) - np.repeat(offsets[:-1], counts)
    order = merge_order(
        np.concatenate([np.empty(0, np.int64), *(series.close_ts for series in market.series)]),
        np.full(total, PHASE_CLOSE, np.int8),
        np.full(total, RANK_DAILY, np.int32),
        instrument,
        row,
        offsets,
        names=[f"bars of {series.id}" for series in market.series],
    )
    return readonly(instrument[order]), readonly(row[order])


def _cut(market: Market, rows_max: int) -> Iterator[BarBatch]:
    instrument, row = bar_order(market)
    for start in range(0, len(row), rows_max):
        part = slice(start, start + rows_max)
        yield _gather(market, instrument[part], row[part])


def _gather(market: Market, instrument: I32, row: I64) -> BarBatch:
    here = [(position, np.flatnonzero(instrument == position)) for position in np.unique(instrument)]
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in _ALWAYS + _BARS:
        parts = [(rows, getattr(market.series[position], name)) for position, rows in here]
        dtype = parts[0][1].dtype
        if any(values.shape[0] == 0 for _, values in parts):
            columns[name] = readonly(np.empty(0, dtype))
            continue
        column = np.empty(row.shape[0], dtype)
        for rows, values in parts:
            column[rows] = values[row[rows]]
        columns[name] = readonly(column)
    return BarBatch(instrument=instrument, row=row, **columns)
