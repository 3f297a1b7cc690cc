"""Indicators of many rows in one call: each row has its source, its period and the bar at which it begins.

Rules of the file: output row r is the indicator of ``x[source[r], begin[r]:]`` with period ``n[r]``, NaN before
``begin[r]`` and in its lookback. It steps on the known values: NaN is left out before, and stays NaN after. What is
infinite becomes NaN. The formulas are those of ``rolling.py``, value for value; the twins are in
``reference/windows.py``.
"""

import numpy as np
from numba import float64, int64, types, uint8, void

from farm.kernels import rolling
from farm.kernels.jit import helper, kernel
from farm.values.arrays import F64, I64, U8

SMA, EMA, RSI, ROC, RET, STDDEV, MAX, MIN = range(8)
"""Codes of the indicators."""

F64_ROWS = types.Array(float64, 2, "C", readonly=True)
I64_IN = types.Array(int64, 1, "C", readonly=True)
I64_ROWS = types.Array(int64, 2, "C", readonly=True)
F64_OUT = float64[:, ::1]
U8_OUT = uint8[:, ::1]

_EXACT_MAX = 2.0**53
_FITS = 2.0**61


@helper
def formula(code: int, x: F64, n: int, out: F64) -> None:
    """Write the indicator of a series without gaps."""
    if code == SMA:
        rolling.mean(x, n, out)
    elif code == EMA:
        rolling.ema(x, n, out)
    elif code == RSI:
        rolling.rsi(x, n, out)
    elif code == ROC:
        rolling.change_ratio(x, n, 100.0, out)
    elif code == RET:
        rolling.change_ratio(x, n, 1.0, out)
    elif code == STDDEV:
        rolling.deviation(x, n, out)
    else:
        rolling.extreme(x, n, code == MAX, out)


@kernel(void(int64, F64_ROWS, I64_IN, I64_IN, I64_IN, F64_OUT))
def indicator(code: int, x: F64, source: I64, n: I64, begin: I64, out: F64) -> None:
    """Write one indicator for every row."""
    bars = x.shape[1]
    for r in range(source.shape[0]):
        row = x[source[r]]
        for t in range(min(begin[r], bars)):
            out[r, t] = np.nan
        count = 0
        for t in range(begin[r], bars):
            count += row[t] == row[t]
        if count == bars - begin[r]:
            formula(code, row[begin[r] :], n[r], out[r][begin[r] :])
        elif begin[r] < bars:
            packed = np.empty(count)
            found = np.empty(count)
            at = 0
            for t in range(begin[r], bars):
                if row[t] == row[t]:
                    packed[at] = row[t]
                    at += 1
            formula(code, packed, n[r], found)
            at = 0
            for t in range(begin[r], bars):
                out[r, t] = np.nan
                if row[t] == row[t]:
                    out[r, t] = found[at]
                    at += 1
        for t in range(begin[r], bars):
            if np.isinf(out[r, t]):
                out[r, t] = np.nan


@kernel(void(F64_ROWS, I64_ROWS, I64_ROWS, int64, I64_IN, I64_IN, I64_IN, F64_OUT))
def means(x: F64, sums: I64, off: I64, unit: int, source: I64, n: I64, begin: I64, out: F64) -> None:
    """Write means of series on a grid; sums and counts (k, bars + 1) are those of ``rolling.grid_sums``, row by row.

    Where all sums are small, a mean is one exact difference and one division; elsewhere ``rolling.mean_on_grid``
    decides window by window. Both round once.
    """
    bars = x.shape[1]
    exact = np.empty(bars + 1)
    last = -1
    is_small = False
    for r in range(n.shape[0]):
        i = source[r]
        if i != last:
            last = i
            total = 0.0
            for t in range(bars):
                total += abs(float64(sums[i, t + 1] - sums[i, t]))
            # No sum of ticks has wrapped, and every one of them is a float64: so is every difference.
            is_small = total < _EXACT_MAX
            for t in range(bars + 1):
                exact[t] = float64(sums[i, t])
        low = begin[r]
        for t in range(min(low, bars)):
            out[r, t] = np.nan
        if low >= bars:
            continue
        divisor = float64(n[r]) * float64(unit)
        if is_small and divisor < _EXACT_MAX and n[r] <= rolling.SURE_WINDOW and off[i, bars] == off[i, low]:
            ready = min(bars, low + n[r] - 1)
            for t in range(low, ready):
                out[r, t] = np.nan
            for t in range(ready, bars):
                out[r, t] = (exact[t + 1] - exact[t + 1 - n[r]]) / divisor
        else:
            rolling.mean_on_grid(x[i][low:], sums[i][low:], off[i][low:], unit, n[r], out[r][low:])


@helper
def exact_mean(ticks: I64, edges: I64, num: I64, den: I64, low: int, high: int, divisor: int) -> float:
    """Return the mean of the rows [low, high) over one or more stretches, rounded once.

    NaN where a factor is not known; infinity where the numbers do not fit in 62 bits.
    """
    k = 0
    while edges[k + 1] <= low:
        k += 1
    total = 0
    common = 1
    fits = True
    while edges[k] < high:
        if edges[k] == edges[k + 1]:
            k += 1
            continue
        if den[k] == 0:
            return np.nan
        part = ticks[min(high, edges[k + 1])] - ticks[max(low, edges[k])]
        size = abs(float64(total)) * float64(den[k]) + abs(float64(part)) * float64(num[k]) * float64(common)
        fits = fits and size < _FITS and float64(common) * float64(den[k]) * float64(divisor) < _FITS
        if fits:
            total = total * den[k] + part * num[k] * common
            common *= den[k]
        k += 1
    return rolling.quotient(total, divisor * common) if fits else np.inf


@kernel(void(I64_IN, I64_IN, I64_IN, int64, I64_IN, I64_IN, I64_IN, I64_IN, I64_IN, F64_OUT, U8_OUT))
def restated_means(
    ticks: I64, raw_off: I64, off: I64, unit: int, edges: I64, num: I64, den: I64, n: I64, begin: I64, out: F64,
    is_large: U8,
) -> None:  # fmt: skip
    """Make the means of ``means`` exact in windows with a fractional factor, whose raw values all lie on the grid.

    Stretch k has the rows [edges[k], edges[k + 1]) and the factor num[k] / den[k], 0 / 0 where it is not known; ticks
    and ``raw_off`` are sums and counts before any factor. ``is_large`` (as ``out``): 1 where the numbers do not fit.
    """
    bars = out.shape[1]
    for r in range(n.shape[0]):
        for t in range(bars):
            is_large[r, t] = 0
        for end in range(begin[r] + n[r], bars + 1):
            low = end - n[r]
            if off[end] == off[low] or raw_off[end] != raw_off[low]:
                continue
            mean = exact_mean(ticks, edges, num, den, low, end, n[r] * unit)
            if mean == np.inf:
                is_large[r, end - 1] = 1
            elif mean == mean:
                out[r, end - 1] = mean


@kernel(void(F64_ROWS, I64_IN, I64_IN, F64_OUT))
def lag(x: F64, source: I64, n: I64, out: F64) -> None:
    """Write the value ``n[r]`` bars before, NaN where there is none."""
    for r in range(source.shape[0]):
        for t in range(out.shape[1]):
            out[r, t] = x[source[r], t - n[r]] if t >= n[r] else np.nan
