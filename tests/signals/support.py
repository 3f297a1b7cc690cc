"""One series at a time: what the kernels of many rows make of one."""

from __future__ import annotations

import numpy as np

from farm.kernels import windows
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
    return means_on_grid(x, grid, np.array([begin]), np.array([n]))[0, begin:]
