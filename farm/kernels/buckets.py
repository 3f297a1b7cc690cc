"""The metrics of all buckets of a run in one call: each a stretch of sessions, measured as a run of its own.

A bucket begins with the equity of the session before it. A session return belongs to the bucket of its session, a trade
to the bucket of its entry, an order, a fill or a fee to the bucket of its session (domain.md 2.6).
"""

import math

import numpy as np
from numba.core.types import Array, float64, int32, int64

from farm.kernels.jit import kernel
from farm.kernels.reduce import ALPHA, N_DECISION_BARS, N_MARKET_BARS, TOTALS, session_metrics
from farm.kernels.totals import stretch_totals
from farm.kernels.transcend import power
from farm.values.arrays import F64, I32, I64

_F64 = Array(float64, 1, "C", readonly=True)
_I64 = Array(int64, 1, "C", readonly=True)
_I32 = Array(int32, 1, "C", readonly=True)
_STRETCHES = Array(int64, 2, "C", readonly=True)
_OUT = Array(float64, 2, "C")


@kernel(
    int64(
        int64, _I32, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _F64, float64,
        float64, _STRETCHES, int64, _OUT,
    ),
)  # fmt: skip
def bucket_metrics(
    cash: int, day: I32, equity: I64, position: I64, decision_bars: I64, market_bars: I64, order_session: I64,
    fill_session: I64, fill_value: I64, fee_session: I64, fee_line: I64, fee_micro: I64, trade_session: I64,
    trade_pnl: I64, trade_notional: I64, open_session: I64, benchmark: F64, ann: float, rf_p: float, stretches: I64,
    with_tails: int, out: F64,
) -> int:  # fmt: skip
    """Write the metrics of each stretch of sessions [start, stop); return -1, or the first session in error.

    Shapes:  day .. market_bars (n,); order_session .. open_session as in ``results/measure.py``; benchmark (n,), NaN
             where it has no return, or (0,) without one; stretches (b, 2), none of them empty; out (b, 36).
    Metrics: with_tails 0: without var95, cvar95 and tail_ratio, as ``reduce.session_metrics`` says.
    Units:   ``cash`` at the start, and all money, in micro-units; ann: sessions per year; rf_p: per session.
    Errors:  the returned session changes the equity of a ruined account.
    """
    totals = np.empty(TOTALS, np.int64)
    for k in range(stretches.shape[0]):
        start, stop = stretches[k, 0], stretches[k, 1]
        count = stop - start
        base = cash if start == 0 else equity[start - 1]
        stretch_totals(
            start, stop, decision_bars, market_bars, order_session, fill_session, fill_value, fee_session, fee_line,
            fee_micro, open_session, totals,
        )  # fmt: skip
        growth_year = math.nan
        growth_market = math.nan
        if base > 0:
            ratio = float(equity[stop - 1]) / float(base)
            growth_year = power(ratio, ann / count)
            if totals[N_MARKET_BARS] > 0:
                growth_market = power(ratio, ann / (count * (totals[N_MARKET_BARS] / totals[N_DECISION_BARS])))
        inside = (trade_session >= start) & (trade_session < stop)
        moved = session_metrics(
            base, day[max(start - 1, 0)], equity[start:stop], day[start:stop],
            benchmark[start:stop] if benchmark.size > 0 else benchmark, position[start:stop], trade_pnl[inside],
            trade_notional[inside], totals, ann, rf_p, growth_year, growth_market, with_tails, out[k],
        )  # fmt: skip
        if moved >= 0:
            return start + moved
        if benchmark.size > 0:
            alpha = power(1.0 + out[k, ALPHA], ann) - 1.0
            out[k, ALPHA] = math.nan if math.isinf(alpha) else alpha
    return -1
