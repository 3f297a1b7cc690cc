"""Means and indicators of one series, one at a time; prices restated, with a single rounding.

Rules: an indicator steps on the bars where its input is known; the others are left out before the formula and are
unknown after it (domain.md 2.4, 2.5). What goes in is never changed; what comes out is new.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.values.arrays import F64, I64, readonly
from tests.reference import rolling

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
    edges: tuple[int, ...]
    num: tuple[int, ...]
    den: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TickGrid:
    """Running tick sums of a series without gaps: ``sums`` and ``off`` int64 (n + 1,), ``unit`` ticks are 1.

    ``stretches`` is None where every factor is a whole number, as most are.
    """

    sums: I64
    off: I64
    unit: int
    stretches: Stretches | None = None

    @property
    def arrays(self) -> tuple[I64, ...]:
        """Everything that takes memory."""
        parts = self.stretches
        return (self.sums, self.off, *((parts.ticks, parts.off) if parts else ()))


def restated(x: F64, num: F64, den: F64, scale: int, otherwise: F64) -> F64:
    """Return ``x * num / den`` (n,), rounded once: equal prices of different share bases are equal bits.

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
    """Return the grid of raw values ``x`` (n,) at 10**-scale, times ``num / den``; None if a value is unknown."""
    if not 0 <= scale <= SCALE_MAX or bool(np.isnan(x).any()):
        return None
    factor = num / den
    sums, off = _sums(x, factor, scale)
    if bool((factor == np.rint(factor)).all()):
        return TickGrid(sums, off, 10**scale)
    ticks, raw_off = _sums(x, np.ones(x.shape[0]), scale)
    starts = np.flatnonzero(np.diff(factor, prepend=np.nan) != 0.0)
    known = [(int(num[k]), int(den[k])) if factor[k] == factor[k] else (0, 0) for k in starts]
    edges = (*starts.tolist(), x.shape[0])
    parts = Stretches(ticks, raw_off, edges, tuple(n for n, _ in known), tuple(d for _, d in known))
    return TickGrid(sums, off, 10**scale, parts)


def _sums(x: F64, factor: F64, scale: int) -> tuple[I64, I64]:
    sums = np.empty(x.shape[0] + 1, np.int64)
    off = np.empty(x.shape[0] + 1, np.int64)
    rolling.grid_sums(x, factor, float(10**scale), sums, off)
    return readonly(sums), readonly(off)


def mean_on_grid(x: F64, grid: TickGrid, begin: int, n: int) -> F64:
    """Return the means of the last ``n`` values of ``x[begin:]``; ``grid`` is that of all of ``x`` before factors."""
    out = np.empty(x.shape[0] - begin)
    rolling.mean_on_grid(x[begin:], grid.sums[begin:], grid.off[begin:], grid.unit, n, out)
    if grid.stretches is not None:
        _restate_means(out, grid, grid.stretches, begin, n)
    return out


def _restate_means(out: F64, grid: TickGrid, parts: Stretches, begin: int, n: int) -> None:
    """Make the means of windows with a fractional factor exact, those inside one stretch at once."""
    divisor = n * grid.unit
    first = begin + n  # windows are named by where they end
    for k, (num, den) in enumerate(zip(parts.num, parts.den, strict=True)):
        low, high = max(first, parts.edges[k] + n), parts.edges[k + 1] + 1
        ends = np.arange(low, max(low, high))
        top = (parts.ticks[ends] - parts.ticks[ends - n]) * float(num)
        is_exact = (np.abs(top) < EXACT_MAX) & (parts.off[ends] == parts.off[ends - n])
        if den > 1 and divisor * den < EXACT_MAX:
            out[ends[is_exact] - 1 - begin] = top[is_exact] / float(divisor * den)
            ends = ends[~is_exact]
        across = np.arange(max(first, parts.edges[k + 1] + 1), min(parts.edges[k + 1] + n, parts.edges[-1] + 1))
        for end in (*ends.tolist(), *across.tolist()):
            if grid.off[end] != grid.off[end - n]:
                mean = _mean_over(parts, end - n, end, divisor)
                out[end - 1 - begin] = out[end - 1 - begin] if mean is None else mean


def _mean_over(parts: Stretches, begin: int, end: int, divisor: int) -> float | None:
    """Return the mean of the rows [begin, end) over one or more stretches, rounded once; None if not all are known."""
    if parts.off[begin] != parts.off[end]:
        return None
    total, common = 0, 1
    k = bisect_right(parts.edges, begin) - 1
    while parts.edges[k] < end:
        low, high = max(begin, parts.edges[k]), min(end, parts.edges[k + 1])
        if parts.den[k] == 0:
            return None
        total = total * parts.den[k] + int(parts.ticks[high] - parts.ticks[low]) * parts.num[k] * common
        common *= parts.den[k]
        k += 1
    return total / (divisor * common)  # Python divides integers of any size with one correct rounding.


def compute(name: str, x: F64, n: int) -> F64:
    """Return the indicator of ``x`` (m,), stepping on its known values; NaN elsewhere."""
    unknown = np.isnan(x)
    if not unknown.any():
        return formula(name, x, n)
    known = ~unknown
    out = np.full(x.shape[0], np.nan)
    out[known] = formula(name, np.ascontiguousarray(x[known]), n)
    return out


def formula(name: str, x: F64, n: int) -> F64:
    """Return the indicator ``name`` of a gap-free series: (m,) -> (m,), NaN before its lookback."""
    out = np.empty(x.shape[0])
    FORMULAS[name](x, n, out)
    return out


def _max(x: F64, n: int, out: F64) -> None:
    rolling.extreme(x, n, True, out)


def _min(x: F64, n: int, out: F64) -> None:
    rolling.extreme(x, n, False, out)


def _roc(x: F64, n: int, out: F64) -> None:
    rolling.change_ratio(x, n, 100.0, out)


def _ret(x: F64, n: int, out: F64) -> None:
    rolling.change_ratio(x, n, 1.0, out)


FORMULAS: dict[str, Any] = {
    "sma": rolling.mean,
    "ema": rolling.ema,
    "rsi": rolling.rsi,
    "roc": _roc,
    "ret": _ret,
    "stddev": rolling.deviation,
    "max": _max,
    "min": _min,
}
