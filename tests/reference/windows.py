"""The kernels of ``farm/kernels/windows.py`` in plain Python: one row at a time, by the twins of ``rolling.py``.

Rules: same arguments, same results to the bit, no numba. Exact means are Python's integers and fractions.
"""

import math
from fractions import Fraction

import numpy as np

from farm.values.arrays import F64, I64, U8
from tests.reference import rolling
from tests.reference.series import FORMULAS

NAMES = ("sma", "ema", "rsi", "roc", "ret", "stddev", "max", "min")
"""Indicators by code."""


def indicator(code: int, x: F64, source: I64, n: I64, begin: I64, out: F64) -> None:
    """Write one indicator for every row: it steps on the known values from ``begin[r]`` on."""
    for r, i in enumerate(source):
        out[r] = math.nan
        at = [t for t in range(int(begin[r]), x.shape[1]) if not math.isnan(x[i, t])]
        found = np.empty(len(at))
        FORMULAS[NAMES[code]](x[i][at], int(n[r]), found)
        for t, value in zip(at, found, strict=True):
            out[r, t] = math.nan if math.isinf(value) else value


def means(x: F64, sums: I64, off: I64, unit: int, source: I64, n: I64, begin: I64, out: F64) -> None:
    """Write means of series on a grid."""
    for r, low in enumerate(begin.tolist()):
        out[r] = math.nan
        i = int(source[r])
        if low < x.shape[1]:
            rolling.mean_on_grid(x[i][low:], sums[i][low:], off[i][low:], unit, int(n[r]), out[r][low:])


def restated_means(
    ticks: I64, raw_off: I64, off: I64, unit: int, edges: I64, num: I64, den: I64, n: I64, begin: I64, out: F64,
    is_large: U8,
) -> None:  # fmt: skip
    """Make means exact in windows with a fractional factor; nothing is too large for fractions."""
    is_large[:] = 0
    stretch = [k for k in range(len(num)) for _ in range(int(edges[k]), int(edges[k + 1]))]
    for r in range(len(n)):
        size = int(n[r])
        for end in range(int(begin[r]) + size, out.shape[1] + 1):
            low = end - size
            if (
                off[end] == off[low]
                or raw_off[end] != raw_off[low]
                or any(den[stretch[t]] == 0 for t in range(low, end))
            ):
                continue
            exact = [
                Fraction(int(ticks[t + 1] - ticks[t]) * int(num[stretch[t]]), int(den[stretch[t]]))
                for t in range(low, end)
            ]
            out[r, end - 1] = float(sum(exact, Fraction(0)) / (size * unit))


def lag(x: F64, source: I64, n: I64, out: F64) -> None:
    """Write the value ``n[r]`` bars before, NaN where there is none."""
    for r, i in enumerate(source):
        out[r] = [x[i, t - int(n[r])] if t >= n[r] else math.nan for t in range(x.shape[1])]
