"""Ticks of a series, prices restated to other shares, and means of them, with a single rounding.

What goes in is never changed; what comes out is new. Source: domain.md 3.3, 6.2.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from farm.kernels import rolling, windows
from farm.values.arrays import F64, I64, readonly

CODES: Mapping[str, int] = MappingProxyType(
    {
        "sma": windows.SMA,
        "ema": windows.EMA,
        "rsi": windows.RSI,
        "roc": windows.ROC,
        "ret": windows.RET,
        "stddev": windows.STDDEV,
        "max": windows.MAX,
        "min": windows.MIN,
    }
)
"""Indicator -> its code in ``kernels/windows.py``."""
SCALE_MAX = 18
"""Grids finer than 10**-18 do not fit in int64."""

EXACT_MAX = 2.0**53
"""Whole numbers below this are float64 without rounding."""


@dataclass(frozen=True, eq=False)
class Stretches:
    """Where a series is restated by fractions: ``ticks`` and ``off`` as in ``TickGrid``, before any factor.

    Stretch k has the rows [edges[k], edges[k + 1]) and the factor num[k] / den[k], 0 / 0 where that is not known.
    """

    ticks: I64
    off: I64
    edges: I64
    num: I64
    den: I64


@dataclass(frozen=True, eq=False)
class TickGrid:
    """Running tick sums of g series without gaps: ``sums`` and ``off`` int64 (g, n + 1), ``unit`` ticks are 1.

    ``stretches``: by series, of those with a factor that is no whole number; few have one.
    """

    sums: I64
    off: I64
    unit: int
    stretches: Mapping[int, Stretches]

    @property
    def arrays(self) -> tuple[I64, ...]:
        """Everything that takes memory."""
        return (self.sums, self.off, *(one for parts in self.stretches.values() for one in (parts.ticks, parts.off)))


def restated(x: F64, num: F64, den: F64, scale: int, otherwise: F64) -> F64:
    """Return ``x * num / den`` rounded once: equal prices of different share bases are equal bits.

    That takes ``x`` to be whole ticks of 10**-scale, and products that float64 holds; elsewhere it is ``otherwise``.
    """
    if not 0 <= scale <= SCALE_MAX:
        return otherwise
    unit = float(10**scale)
    whole = np.rint(x * unit)
    top, bottom = whole * num, den * unit
    is_exact = (np.abs(top) < EXACT_MAX) & (bottom < EXACT_MAX) & (whole / unit == x)
    return np.where(is_exact, top / bottom, otherwise)


def grid_of(x: F64, num: F64, den: F64, scale: int) -> TickGrid | None:
    """Return the grid of raw values ``x`` (g, n) at 10**-scale, times ``num / den``; None if a value is unknown."""
    if not 0 <= scale <= SCALE_MAX or bool(np.isnan(x).any()):
        return None
    sums, off = (np.empty((x.shape[0], x.shape[1] + 1), np.int64) for _ in range(2))
    is_whole = np.empty(x.shape[0], np.uint8)
    rolling.tick_sums(x, num, den, float(10**scale), sums, off, is_whole)
    fractional = np.flatnonzero(is_whole == 0).tolist()
    stretches = {at: _stretches(x[at], num[at], den[at], scale) for at in fractional}
    return TickGrid(readonly(sums), readonly(off), 10**scale, stretches)


def _stretches(x: F64, num: F64, den: F64, scale: int) -> Stretches:
    factor = num / den
    ticks, off = (np.empty(x.shape[0] + 1, np.int64) for _ in range(2))
    rolling.grid_sums(x, np.ones(x.shape[0]), float(10**scale), ticks, off)
    starts = np.flatnonzero(np.diff(factor, prepend=np.nan) != 0.0)
    is_known = np.isfinite(factor[starts])
    nums, dens = (np.where(is_known, side[starts], 0.0).astype(np.int64) for side in (num, den))
    return Stretches(*map(readonly, (ticks, off, np.append(starts, x.shape[0]), nums, dens)))


def means_on_grid(x: F64, grid: TickGrid, begin: I64, n: I64) -> F64:
    """Return rows (g k, m), series by series: the means of the last ``n[r]`` values of ``x[:, begin[r]:]``, NaN before
    the first of them.

    ``x`` (g, m) on the basis of ``grid``, which is that of all of ``x`` before factors.
    """
    count, rows = x.shape[0], n.shape[0]
    out = np.empty((count * rows, x.shape[1]))
    windows.means(
        x, grid.sums, grid.off, grid.unit, np.repeat(np.arange(count), rows), np.tile(n, count), np.tile(begin, count),
        out,
    )  # fmt: skip
    for at, parts in grid.stretches.items():
        own = out[at * rows : (at + 1) * rows]
        is_large = np.empty(own.shape, np.uint8)
        windows.restated_means(
            parts.ticks, parts.off, grid.off[at], grid.unit, parts.edges, parts.num, parts.den, n, begin, own, is_large
        )
        for row, bar in np.argwhere(is_large).tolist():
            size = int(n[row])
            own[row, bar] = _mean_over(parts, bar + 1 - size, bar + 1, size * grid.unit)
    return out


def _mean_over(parts: Stretches, begin: int, end: int, divisor: int) -> float:
    """Return the mean of the rows [begin, end) over one or more stretches, rounded once, whatever its numbers."""
    total, common = 0, 1
    k = bisect_right(parts.edges, begin) - 1
    while parts.edges[k] < end:
        low, high = max(begin, int(parts.edges[k])), min(end, int(parts.edges[k + 1]))
        num, den = int(parts.num[k]), int(parts.den[k])
        if low < high:
            total = total * den + int(parts.ticks[high] - parts.ticks[low]) * num * common
            common *= den
        k += 1
    return total / (divisor * common)  # Python divides integers of any size with one correct rounding.
