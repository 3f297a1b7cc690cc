"""The metrics of a run: plain books of integers in, one vector of float64 in the order of METRICS out.

Rules: fractions, not percent; NaN is null; a bucket (in sample, out of sample) is a stretch of sessions and is measured
as if it were a run of its own that starts with the equity of the session before it. A session return belongs to the
bucket of its session, a trade to the bucket of its entry, an order, a fill or a fee to the bucket of its session.
The arithmetic is in ``kernels/reduce.py``; powers come from ``kernels/transcend.py``, never from libm.
Source: domain.md 4.1, 2.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from farm.kernels import books as sums
from farm.kernels import reduce
from farm.kernels.reduce import ALPHA, METRICS, TOTALS
from farm.kernels.transcend import power
from farm.values.arrays import BOOL, F64, I8, I32, I64, readonly
from farm.values.errors import FarmError

__all__ = ["FEE_LINES", "METRICS", "Books", "Stretch", "measure", "rf_per_session", "stretch_of"]

FEE_LINES = ("commission", "slippage", "borrow", "exercise")
Stretch = tuple[int, int]

_DECISION_BARS, _MARKET_BARS = TOTALS.index("decision_bars"), TOTALS.index("market_bars")
_NO_BENCHMARK: F64 = readonly(np.empty(0))


@dataclass(frozen=True, eq=False)
class Books:
    """What the metrics need of a run.

    Shapes:  day, equity, position, decision_bars, market_bars (n,): per session; order_session (orders,); fill_session,
             fill_value (fills,); fee_session, fee_line, fee_micro (fee lines,); trade_session, trade_pnl,
             trade_notional (closed trades,); open_session (open trades,).
    Units:   money in micro-units; day since 1970-01-01; sessions as indexes into ``day``; ``position`` is the sum of
             absolute position values at the close, ``fill_value`` the absolute value traded, ``trade_notional`` the
             value at entry, ``fee_line`` an index into FEE_LINES; sessions of trades are those of their entry.
    """

    cash_micro: int
    day: I32
    equity: I64
    position: I64
    decision_bars: I32
    market_bars: I32
    order_session: I32
    fill_session: I32
    fill_value: I64
    fee_session: I32
    fee_line: I8
    fee_micro: I64
    trade_session: I32
    trade_pnl: I64
    trade_notional: I64
    open_session: I32


@lru_cache(maxsize=256)
def rf_per_session(rf: float, ann: float) -> float:
    """Return the risk-free return of one session, ``(1 + rf)^(1/ann) - 1``."""
    return float(power(1.0 + rf, 1.0 / ann)) - 1.0


def stretch_of(sessions: BOOL) -> Stretch:
    """Return the stretch [start, stop) that a mask over sessions (n,) selects; it has no gap.

    A bucket in several pieces needs stitched equity, which no metric here computes.
    """
    chosen = np.flatnonzero(sessions)
    if not len(chosen) or int(chosen[-1]) - int(chosen[0]) + 1 != len(chosen):
        raise ValueError("a bucket is one stretch of at least one session")
    return int(chosen[0]), int(chosen[-1]) + 1


def measure(books: Books, stretch: Stretch, *, ann: float, rf: float, benchmark: F64 | None) -> F64:
    """Return the metric vector (len(METRICS),), read-only, of the sessions [start, stop); (0, n) is the whole run.

    Shapes:  benchmark (n,): returns of the benchmark over all sessions of the run, NaN where it has none.
    Units:   ann: sessions a year; rf: annual rate, a fraction.
    Errors:  FarmError when the equity of a ruined account moves: the books are wrong, not the strategy.
    """
    start, stop = stretch
    count = stop - start
    if count < 1:
        raise ValueError("metrics need at least one session")
    base = books.cash_micro if start == 0 else int(books.equity[start - 1])
    totals = _totals(books, start, stop)
    growth_year = growth_market = math.nan
    if base > 0:
        ratio = int(books.equity[stop - 1]) / base
        growth_year = power(ratio, ann / count)
        market_bars, decision_bars = int(totals[_MARKET_BARS]), int(totals[_DECISION_BARS])
        if market_bars > 0:
            growth_market = power(ratio, ann / (count * (market_bars / decision_bars)))
    pnl, notional = _trades(books, start, stop)
    out = np.empty(len(METRICS))
    moved = reduce.session_metrics(
        base,
        books.day[max(start - 1, 0)],
        books.equity[start:stop],
        books.day[start:stop],
        _NO_BENCHMARK if benchmark is None else benchmark[start:stop],
        books.position[start:stop],
        pnl,
        notional,
        totals,
        ann,
        rf_per_session(rf, ann),
        growth_year,
        growth_market,
        out,
    )
    if moved >= 0:
        raise FarmError(f"the equity of a ruined account moves at session {start + moved}", place="ledger")
    if benchmark is not None:
        out[ALPHA] = power(1.0 + out[ALPHA], ann) - 1.0
    return readonly(out)


def _totals(books: Books, start: int, stop: int) -> I64:
    totals = np.empty(len(TOTALS), np.int64)
    sums.stretch_totals(
        start,
        stop,
        books.decision_bars,
        books.market_bars,
        books.order_session,
        books.fill_session,
        books.fill_value,
        books.fee_session,
        books.fee_line,
        books.fee_micro,
        books.open_session,
        totals,
    )
    return totals


def _trades(books: Books, start: int, stop: int) -> tuple[I64, I64]:
    """Return profit and entry value of the closed trades that were entered in the stretch."""
    if stop - start == len(books.day):
        return books.trade_pnl, books.trade_notional
    inside = (books.trade_session >= start) & (books.trade_session < stop)
    return books.trade_pnl[inside], books.trade_notional[inside]
