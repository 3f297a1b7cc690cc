"""Indicators of series with gaps, and exact means of series on a price grid.

Rules: an indicator steps on the bars where its input is known; the others are left out before the formula and are
unknown after it (domain.md 2.4, 2.5). What goes in is never changed; what comes out is new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.indicators.registry import INDICATORS
from farm.kernels import rolling
from farm.values.arrays import F64, I64, readonly

SCALE_MAX = 18
"""Grids finer than 10**-18 do not fit in int64."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Running tick sums of a series without gaps: ``sums`` and ``off`` int64 (n + 1,), ``unit`` ticks are 1."""

    sums: I64
    off: I64
    unit: int


def grid_of(x: F64, factor: F64, scale: int) -> Grid | None:
    """Return the grid of raw values ``x`` (n,) at 10**-scale, times ``factor`` (n,); None if a value is unknown."""
    if not 0 <= scale <= SCALE_MAX or bool(np.isnan(x).any()):
        return None
    sums = np.empty(x.shape[0] + 1, np.int64)
    off = np.empty(x.shape[0] + 1, np.int64)
    rolling.grid_sums(x, factor, float(10**scale), sums, off)
    return Grid(readonly(sums), readonly(off), 10**scale)


def mean_on_grid(x: F64, grid: Grid, begin: int, n: int) -> F64:
    """Return the means of the last ``n`` values of ``x[begin:]``; ``grid`` is that of all of ``x`` before factors."""
    out = np.empty(x.shape[0] - begin)
    rolling.mean_on_grid(x[begin:], grid.sums[begin:], grid.off[begin:], grid.unit, n, out)
    return out


def compute(name: str, x: F64, n: int) -> F64:
    """Return the indicator of ``x`` (m,), stepping on its known values; NaN elsewhere."""
    indicator = INDICATORS[name]
    unknown = np.isnan(x)
    if not unknown.any():
        return indicator.compute(x, n)
    known = ~unknown
    out = np.full(x.shape[0], np.nan)
    out[known] = indicator.compute(np.ascontiguousarray(x[known]), n)
    return out
