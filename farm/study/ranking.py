"""Objectives: the value of a trial, and the order of trials.

A trial's value is one metric, taken on one bucket, over the trial's cells: the median unless said otherwise. Cells
without the metric are left out; a trial with none left has no value and ranks last. Ties are broken by the lower
maximum drawdown, then by fewer trades, both taken on the same bucket over the same cells in the same way, and at last
by the lower trial number; where a tie-breaker has no value it ranks after those that have one. Source: domain.md 2.6.
"""

from __future__ import annotations

import numpy as np

from farm.values.arrays import F64, I64


def over_cells(values: F64, over: str) -> F64:
    """Return one value per trial.

    Shapes:  values (trials, cells), NaN where a cell lacks the metric; returns (trials,), NaN where none is left.
    Order:   a mean adds from the first instrument to the last; a median of an even count is the mean of the two
             middle values.
    """
    known = np.isfinite(values)
    count = known.sum(axis=1)
    if over == "min":
        best = np.where(known, values, np.inf).min(axis=1, initial=np.inf)
    elif over == "max":
        best = np.where(known, values, -np.inf).max(axis=1, initial=-np.inf)
    elif over == "mean":
        total = np.zeros(len(values))
        for column in range(values.shape[1]):
            total = total + np.where(known[:, column], values[:, column], 0.0)
        best = total / np.maximum(count, 1)
    elif over == "median":
        best = _median(np.where(known, values, np.inf), count)
    else:
        raise ValueError(f"no such aggregation: {over}")
    return np.where(count > 0, best, np.nan)


def _median(padded: F64, count: I64) -> F64:
    """Return the median of the first ``count`` values of each sorted row; unknowns are +inf and sort last."""
    if padded.shape[1] == 0:
        return np.full(len(padded), np.nan)
    ordered = np.sort(padded, axis=1)
    last = np.maximum(count, 1) - 1
    low = np.take_along_axis(ordered, (last // 2)[:, None], axis=1)[:, 0]
    high = np.take_along_axis(ordered, ((last + 1) // 2)[:, None], axis=1)[:, 0]
    return np.where(low == high, low, (low + high) / 2.0)


def rank(value: F64, direction: str, max_dd: F64, trades: F64) -> I64:
    """Return trial numbers, best first.

    Shapes: all (trials,), NaN = null. ``direction`` is "max" or "min".
    """
    wanted = -value if direction == "max" else value
    # lexsort sorts by its last key first, is stable (the lower number wins), and puts NaN last.
    return np.lexsort((trades, max_dd, wanted)).astype(np.int64)
