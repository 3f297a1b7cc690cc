"""One series at a time: what the kernels of many rows make of one."""

from __future__ import annotations

import dataclasses

import numpy as np

from farm.kernels import windows
from farm.market.panel import Market, Panel
from farm.signals import series
from farm.signals.series import CODES, TickGrid, means_on_grid
from farm.values.arrays import F64


def compute(name: str, x: F64, n: int) -> F64:
    """Return the indicator of ``x`` (m,), stepping on its known values; NaN elsewhere."""
    out = np.empty((1, x.shape[0]))
    rows = (np.array([value], np.int64) for value in (0, n, 0))
    windows.indicator(CODES[name], np.ascontiguousarray(x).reshape(1, -1), *rows, out)
    return out[0]


def mean_on_grid(x: F64, grid: TickGrid, begin: int, n: int) -> F64:
    """Return the means of the last ``n`` values of ``x[begin:]``."""
    return means_on_grid(x.reshape(1, -1), grid, np.array([begin]), np.array([n]))[0, begin:]


def grid_of(x: F64, num: F64, den: F64, scale: int) -> TickGrid | None:
    """Return the grid of one series (n,)."""
    return series.grid_of(*(one.reshape(1, -1) for one in (x, num, den)), scale)


def panel_of(market: Market) -> Panel:
    """Return the series of a market as a panel."""
    ends = {name: np.cumsum([0, *(getattr(one, of).shape[0] for one in market.series)]) for name, of in OF.items()}
    names = [field.name for field in dataclasses.fields(Panel)]
    columns = {
        name: np.concatenate([getattr(one, name) for one in market.series])
        for name in names
        if isinstance(getattr(market.series[0], name, None), np.ndarray)
    }
    shared = {name: getattr(market, name) for name in names if hasattr(market, name)}
    scales = np.array([one.price_scale for one in market.series], np.int8)
    return Panel(instruments=market.series, price_scale=scales, **shared, **ends, **columns)  # type: ignore[arg-type]


OF = {"start": "day", "split_start": "split_day", "dividend_start": "dividend_day"}
