"""The formulas of the indicators, by name: functions of a gap-free series. ``series.py`` takes the gaps out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from farm.kernels import rolling
from farm.values.arrays import F64

Formula = Callable[[F64, int, F64], None]
"""(gap-free series, period, out) -> None."""


def compute(name: str, x: F64, n: int) -> F64:
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


FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "sma": rolling.mean,
        "ema": rolling.ema,
        "rsi": rolling.rsi,
        "roc": _roc,
        "ret": _ret,
        "stddev": rolling.deviation,
        "max": _max,
        "min": _min,
    }
)
