"""The kernels of ``farm/kernels/rolling.py`` in plain Python: one value at a time, as the definitions read.

Rules: same arguments, same results to the bit, no numba. Where a kernel is clever (lags outside, a queue of extremes,
integers with 54 digits), the twin is not.
"""

import math
from fractions import Fraction

import numpy as np

from farm.values.arrays import F64, I64, U8

GRID_MAX = 2.0**51
SUM_MAX = 2**62


def grid_sums(x: F64, factor: F64, unit: float, sums: I64, off: I64) -> None:
    """Write running sums of ticks, and running counts of values off the grid."""
    total, missing = 0, 0
    sums[0], off[0] = 0, 0
    for t in range(len(x)):
        price, ratio = float(x[t]), float(factor[t])
        scaled = price * unit
        whole = float(round(scaled)) if math.isfinite(scaled) else scaled
        ticks = whole * ratio
        is_on = abs(whole) < GRID_MAX and abs(ticks) < GRID_MAX and whole / unit == price and ratio == round(ratio)
        total += int(ticks) if is_on else 0
        missing += not is_on
        sums[t + 1] = (total + 2**63) % 2**64 - 2**63
        off[t + 1] = missing


def tick_sums(x: F64, num: F64, den: F64, unit: float, sums: I64, off: I64, is_whole: U8) -> None:
    """Write ``grid_sums`` of each row, and whether all its factors are whole."""
    for r in range(len(x)):
        factor = num[r] / den[r]
        is_whole[r] = bool(np.all(factor == np.rint(factor)))
        grid_sums(x[r], factor, unit, sums[r], off[r])


def mean_on_grid(x: F64, sums: I64, off: I64, unit: int, n: int, out: F64) -> None:
    """Write the mean of the last ``n`` values: exact and rounded once on the grid, else added from the oldest."""
    for t in range(len(x)):
        begin = t + 1 - n
        if begin < 0:
            out[t] = math.nan
            continue
        ticks = [int(sums[i + 1]) - int(sums[i]) for i in range(begin, t + 1)]
        ticks = [(tick + 2**63) % 2**64 - 2**63 for tick in ticks]
        fits = n <= 2048 or _sum([abs(float(tick)) for tick in ticks]) < 0.5 * SUM_MAX
        if n < SUM_MAX // unit and off[t + 1] == off[begin] and fits:
            out[t] = float(Fraction(sum(ticks), n * unit))
        else:
            out[t] = _mean([float(value) for value in x[begin : t + 1]])


def mean(x: F64, n: int, out: F64) -> None:
    """Write the mean of the last ``n`` values, added from the oldest."""
    for t in range(len(x)):
        out[t] = _mean([float(value) for value in x[t + 1 - n : t + 1]]) if t >= n - 1 else math.nan


def deviation(x: F64, n: int, out: F64) -> None:
    """Write the population standard deviation of the last ``n`` values."""
    for t in range(len(x)):
        if t < n - 1:
            out[t] = math.nan
            continue
        window = [float(value) for value in x[t + 1 - n : t + 1]]
        differences = [value - window[0] for value in window]
        centre = _mean(differences)
        out[t] = math.sqrt(_mean([(d - centre) * (d - centre) for d in differences]))


def extreme(x: F64, n: int, is_max: bool, out: F64) -> None:
    """Write the greatest (or least) of the last ``n`` values."""
    for t in range(len(x)):
        if t < n - 1:
            out[t] = math.nan
            continue
        # Of equal values (0.0 and -0.0) the newest wins.
        window = [float(value) for value in x[t + 1 - n : t + 1]][::-1]
        out[t] = max(window) if is_max else min(window)


def ema(x: F64, n: int, out: F64) -> None:
    """Write the exponential mean, seeded with the mean of the first ``n`` values."""
    k = 2.0 / (n + 1)
    e = math.nan
    for t in range(len(x)):
        if t == n - 1:
            e = _mean([float(value) for value in x[:n]])
        elif t >= n:
            e = (float(x[t]) - e) * k + e
        out[t] = e


def rsi(x: F64, n: int, out: F64) -> None:
    """Write Wilder's relative strength index, 0 to 100."""
    changes = [float(x[t]) - float(x[t - 1]) for t in range(1, len(x))]
    gains = [max(change, 0.0) for change in changes]
    losses = [max(-change, 0.0) for change in changes]
    gain = loss = 0.0
    for t in range(len(x)):
        if t < n:
            out[t] = math.nan
            continue
        if t == n:
            gain, loss = _sum(gains[:n]) / n, _sum(losses[:n]) / n
        else:
            gain = (gain * (n - 1) + gains[t - 1]) / n
            loss = (loss * (n - 1) + losses[t - 1]) / n
        out[t] = 100.0 * (gain / (gain + loss)) if gain + loss != 0.0 else 0.0


def change_ratio(x: F64, n: int, scale: float, out: F64) -> None:
    """Write ``(x / x[n ago] - 1) * scale``."""
    for t in range(len(x)):
        old = float(x[t - n]) if t >= n else 0.0
        out[t] = (float(x[t]) / old - 1.0) * scale if old != 0.0 else math.nan


def _sum(values: list[float]) -> float:
    """Plain additions from the first: the built-in sum of newer Pythons compensates."""
    total = 0.0
    for value in values:
        total += value
    return total


def _mean(values: list[float]) -> float:
    return _sum(values) / len(values)
