"""Benchmark returns: ``close_tr`` of the benchmark over the sessions of the run.

A session has a return when the benchmark has a bar on it and one before it, whichever session that was; else it has
none (NaN), and metrics that compare with the benchmark leave it out. Bars between the sessions (a benchmark that trades
on other days) are passed over: the return of a Monday is that since Friday. Source: domain.md 4.1.
"""

from __future__ import annotations

import numpy as np

from farm.market.panel import InstrumentSeries
from farm.values.arrays import BOOL, F64, I32, readonly


def benchmark_returns(series: InstrumentSeries, session_day: I32) -> F64:
    """Return (c_i - c_before) / c_before per session, (sessions,), NaN where undefined; read-only."""
    returns = np.full(len(session_day), np.nan)
    kept: BOOL = np.isin(series.day, session_day) | (series.day < session_day[0])
    day = series.day[kept]
    if day.size:
        close = (series.close * series.factor_tr)[kept]
        at = np.minimum(np.searchsorted(day, session_day), day.size - 1)
        known = (day[at] == session_day) & (at > 0)
        here, before = close[at[known]], close[at[known] - 1]
        returns[known] = (here - before) / before
    return readonly(returns)
