"""Indicators over one series, oldest value first.

Rules of the file: inputs hold no NaN (``windows.py`` leaves gaps out first); ``out[:lookback]`` is NaN;
``out`` is passed in and overwritten; callers have checked ``n``. Window kernels give bits that depend on the window
alone, never on where the series begins; recursive ones (ema, rsi) depend on their first value too. Arithmetic is
+ - x / sqrt and comparisons in the written order. The twins are in ``reference/rolling.py``.

Exact means, for series on a grid of 10**-scale (domain.md 6.2):

1. ``grid_sums``: every value is a whole number of ticks (or is marked off the grid), ticks are summed as integers
   modulo 2**64, so that the difference of two sums is exact while the sum of the window fits.
2. ``mean_on_grid``: window sum / (n x 10**scale), rounded once. Windows that hold a value off the grid, or whose sum
   may not fit, are added in order instead. That choice looks at the window alone.
"""

import numpy as np
from numba import boolean, float64, int64, types, uint8, void

from farm.kernels.jit import helper, kernel
from farm.values.arrays import F64, I64, U8

GRID_MAX = 2.0**51
"""Ticks below this are found again exactly from the decoded price, and 2048 of them sum below SUM_MAX."""
SUM_MAX = 2**62
EXACT_MAX = 2**53
SURE_WINDOW = 2048  # SUM_MAX / GRID_MAX

F64_IN = types.Array(float64, 1, "C", readonly=True)
I64_IN = types.Array(int64, 1, "C", readonly=True)
F64_OUT = float64[::1]
I64_OUT = int64[::1]
F64_ROWS = types.Array(float64, 2, "C", readonly=True)
I64_ROWS_OUT = int64[:, ::1]
U8_OUT = uint8[::1]


@kernel(void(F64_IN, F64_IN, float64, I64_OUT, I64_OUT))
def grid_sums(x: F64, factor: F64, unit: float, sums: I64, off: I64) -> None:
    """Write running sums of ticks, and running counts of values off the grid.

    Shapes: x, factor (n,); sums, off (n + 1,), both beginning with 0.
    Units:  ``unit`` ticks are 1 (a power of ten); tick = x * unit * factor. A value that is no whole number of ticks
            below GRID_MAX counts as off the grid, and adds 0 ticks.
    Order:  sums are modulo 2**64, so a difference of two is exact while the true difference fits in int64.
    """
    sums[0] = 0
    off[0] = 0
    for t in range(x.shape[0]):
        whole = np.rint(x[t] * unit)
        ticks = whole * factor[t]
        is_on = (
            abs(whole) < GRID_MAX and abs(ticks) < GRID_MAX and whole / unit == x[t] and factor[t] == np.rint(factor[t])
        )
        sums[t + 1] = sums[t] + (int64(ticks) if is_on else 0)
        off[t + 1] = off[t] + (0 if is_on else 1)


@kernel(void(F64_ROWS, F64_ROWS, F64_ROWS, float64, I64_ROWS_OUT, I64_ROWS_OUT, U8_OUT))
def tick_sums(x: F64, num: F64, den: F64, unit: float, sums: I64, off: I64, is_whole: U8) -> None:
    """Write ``grid_sums`` of each row, whose factors are ``num / den``; ``is_whole`` (k,): 1 where all are whole."""
    factor = np.empty(x.shape[1])
    for r in range(x.shape[0]):
        whole = True
        for t in range(x.shape[1]):
            factor[t] = num[r, t] / den[r, t]
            whole = whole and factor[t] == np.rint(factor[t])
        is_whole[r] = whole
        grid_sums(x[r], factor, unit, sums[r], off[r])


@helper
def quotient(numerator: int, denominator: int) -> float:
    """Return numerator / denominator, rounded once, half to even.

    Both are below 2**62 in magnitude, the denominator is positive. Beyond 2**53 the digits come one by one.
    """
    if -EXACT_MAX < numerator < EXACT_MAX and denominator < EXACT_MAX:
        return float64(numerator) / float64(denominator)
    if numerator == 0:
        return 0.0
    size = abs(numerator)
    digits = size // denominator
    rest = size - digits * denominator
    is_inexact = False
    scale = 1.0
    while digits >= 2 * EXACT_MAX:
        is_inexact = is_inexact or (digits & 1) == 1
        digits >>= 1
        scale *= 2.0
    while digits < EXACT_MAX:
        rest *= 2
        digits *= 2
        if rest >= denominator:
            rest -= denominator
            digits += 1
        scale *= 0.5
    # 54 digits: the last one decides, together with whatever is left, where the 53rd goes.
    half = digits & 1
    digits >>= 1
    if half == 1 and (is_inexact or rest != 0 or (digits & 1) == 1):
        digits += 1
    result = float64(digits) * (scale * 2.0)
    return -result if numerator < 0 else result


@helper
def sum_fits(sums: I64, begin: int, end: int) -> bool:
    """Return whether the window's ticks provably sum below SUM_MAX."""
    if end - begin <= SURE_WINDOW:
        return True
    total = 0.0
    for t in range(begin, end):
        total += abs(float64(sums[t + 1] - sums[t]))
    return total < 0.5 * SUM_MAX


@helper
def ordered_mean(x: F64, begin: int, end: int) -> float:
    """Return the mean of ``x[begin:end]``, added from the oldest."""
    total = 0.0
    for t in range(begin, end):
        total += x[t]
    return total / float64(end - begin)


@kernel(void(F64_IN, I64_IN, I64_IN, int64, int64, F64_OUT))
def mean_on_grid(x: F64, sums: I64, off: I64, unit: int, n: int, out: F64) -> None:
    """Write the mean of the last ``n`` values of ``x``; sums and counts are those of ``grid_sums``.

    Shapes: x, out (m,); sums, off (m + 1,). Lookback n - 1.
    Units:  those of ``x``, which has been multiplied with the factor already.
    """
    is_safe = n < SUM_MAX // unit
    for t in range(min(n - 1, x.shape[0])):
        out[t] = np.nan
    for t in range(n - 1, x.shape[0]):
        begin = t + 1 - n
        if is_safe and off[t + 1] == off[begin] and sum_fits(sums, begin, t + 1):
            out[t] = quotient(sums[t + 1] - sums[begin], n * unit)
        else:
            out[t] = ordered_mean(x, begin, t + 1)


@kernel(void(F64_IN, int64, F64_OUT))
def mean(x: F64, n: int, out: F64) -> None:
    """Write the mean of the last ``n`` values, added from the oldest. Lookback n - 1."""
    m = x.shape[0]
    for t in range(m):
        out[t] = np.nan if t < n - 1 else 0.0
    # Lags outside, time inside: each sum still adds from its oldest value, and many run side by side.
    for lag in range(n - 1, -1, -1):
        for t in range(n - 1, m):
            out[t] += x[t - lag]
    for t in range(n - 1, m):
        out[t] = out[t] / float64(n)


@kernel(void(F64_IN, int64, F64_OUT))
def deviation(x: F64, n: int, out: F64) -> None:
    """Write the population standard deviation (ddof 0) of the last ``n`` values. Lookback n - 1.

    Order: differences to the window's oldest value, their mean, then squares around that mean, each added from the
           oldest; a constant window gives exactly 0. Source: domain.md 2.5.
    """
    m = x.shape[0]
    centre = np.zeros(m)
    for t in range(m):
        out[t] = np.nan if t < n - 1 else 0.0
    for lag in range(n - 1, -1, -1):
        for t in range(n - 1, m):
            centre[t] += x[t - lag] - x[t + 1 - n]
    for t in range(n - 1, m):
        centre[t] = centre[t] / float64(n)
    for lag in range(n - 1, -1, -1):
        for t in range(n - 1, m):
            distance = (x[t - lag] - x[t + 1 - n]) - centre[t]
            out[t] += distance * distance
    for t in range(n - 1, m):
        out[t] = np.sqrt(out[t] / float64(n))


@kernel(void(F64_IN, int64, boolean, F64_OUT))
def extreme(x: F64, n: int, is_max: bool, out: F64) -> None:
    """Write the greatest (or least) of the last ``n`` values. Lookback n - 1.

    A queue of positions whose values fall (or rise) from its head: the head is the answer (one pass, O(1) a value).
    """
    m = x.shape[0]
    queue = np.empty(m, np.int64)
    head = 0
    tail = 0
    for t in range(m):
        while tail > head and (x[queue[tail - 1]] <= x[t] if is_max else x[queue[tail - 1]] >= x[t]):
            tail -= 1
        queue[tail] = t
        tail += 1
        if queue[head] <= t - n:
            head += 1
        out[t] = x[queue[head]] if t >= n - 1 else np.nan


@kernel(void(F64_IN, int64, F64_OUT))
def ema(x: F64, n: int, out: F64) -> None:
    """Write the exponential mean with k = 2 / (n + 1), seeded with the mean of the first ``n`` values. Lookback n - 1.

    Order: ``e = (x - e) * k + e``, the form that is bit-equal to TA-Lib's. Source: domain.md 2.5.
    """
    m = x.shape[0]
    for t in range(min(n - 1, m)):
        out[t] = np.nan
    if m < n:
        return
    k = 2.0 / float64(n + 1)
    e = ordered_mean(x, 0, n)
    out[n - 1] = e
    for t in range(n, m):
        e = (x[t] - e) * k + e
        out[t] = e


@kernel(void(F64_IN, int64, F64_OUT))
def rsi(x: F64, n: int, out: F64) -> None:
    """Write Wilder's relative strength index, 0 to 100. Lookback n.

    Order: mean gain and mean loss are seeded with the first ``n`` changes, then ``(mean * (n - 1) + new) / n``.
           A series without any change is 0, as TA-Lib has it. Source: domain.md 2.5.
    """
    m = x.shape[0]
    for t in range(min(n, m)):
        out[t] = np.nan
    gain = 0.0
    loss = 0.0
    for t in range(1, m):
        change = x[t] - x[t - 1]
        up = change if change > 0.0 else 0.0
        down = -change if change < 0.0 else 0.0
        if t <= n:
            gain += up
            loss += down
            if t < n:
                continue
        else:
            gain = gain * float64(n - 1) + up
            loss = loss * float64(n - 1) + down
        gain /= float64(n)
        loss /= float64(n)
        total = gain + loss
        out[t] = 100.0 * (gain / total) if total != 0.0 else 0.0


@kernel(void(F64_IN, int64, float64, F64_OUT))
def change_ratio(x: F64, n: int, scale: float, out: F64) -> None:
    """Write ``(x / x[n ago] - 1) * scale``: roc has scale 100, ret has 1. Lookback n. NaN where the old value is 0."""
    for t in range(x.shape[0]):
        out[t] = (x[t] / x[t - n] - 1.0) * scale if t >= n and x[t - n] != 0.0 else np.nan
