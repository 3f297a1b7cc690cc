"""Measures a run: its books in, one vector of float64 in the order of ``values/metrics.py`` out.

Rules: fractions, not percent; NaN is null; a bucket (in sample, out of sample) is a stretch of sessions and is measured
as if it were a run of its own that starts with the equity of the session before it. A session return belongs to the
bucket of its session, a trade to the bucket of its entry, an order, a fill or a fee to the bucket of its session.
The arithmetic is in ``kernels/buckets.py`` and ``kernels/reduce.py``; powers come from ``kernels/transcend.py``, never
from libm. Source: domain.md 4.1, 2.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from farm.engine.ledger import CashKind, Records, Run
from farm.kernels.buckets import bucket_metrics
from farm.kernels.transcend import power
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import FarmError
from farm.values.metrics import METRIC_NAMES

FEE_LINES = ("commission", "slippage", "borrow", "exercise")
Stretch = tuple[int, int]

_NO_BENCHMARK: F64 = readonly(np.empty(0))


@dataclass(frozen=True, eq=False)
class Facts:
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
    decision_bars: I64
    market_bars: I64
    order_session: I64
    fill_session: I64
    fill_value: I64
    fee_session: I64
    fee_line: I64
    fee_micro: I64
    trade_session: I64
    trade_pnl: I64
    trade_notional: I64
    open_session: I64


Vectors = tuple[F64, F64 | None, F64 | None]
"""Metrics of the whole run, in sample, out of sample."""


def measure_run(
    run: Run,
    *,
    ann: float,
    rf: float,
    benchmark_returns: F64 | None = None,
    in_sample: Stretch | None = None,
    out_of_sample: Stretch | None = None,
) -> Vectors:
    """Return the metric vectors (len(METRIC_NAMES),) of the run and of its buckets; None for a bucket that is not told.

    Shapes:  benchmark_returns (n,) over all sessions, NaN where it has none; a bucket is the sessions [start, stop).
             One in several pieces (odd months) would need stitched equity, which no metric here computes.
    Units:   ann: sessions a year; rf: annual rate, a fraction.
    Errors:  FarmError when the equity of a ruined account moves: the books are wrong, not the strategy.
    """
    facts = facts_of(run)
    stretches = [(0, len(facts.day)), *(one for one in (in_sample, out_of_sample) if one is not None)]
    found = iter(measure(facts, stretches, ann=ann, rf=rf, benchmark=benchmark_returns))
    full = next(found)
    return full, None if in_sample is None else next(found), None if out_of_sample is None else next(found)


def facts_of(run: Run) -> Facts:
    """Return what the metrics read of a run, as contiguous columns.

    Commission is booked as cash events, slippage is what each fill's price cost against its reference price.
    """
    cash, fills, trades = run.cash_events, run.fills, run.trades
    paid = cash["kind"] == CashKind.COMMISSION
    commission = -cash["cash_micro"][paid]
    fill_session, slippage = _column(fills, "session"), _column(fills, "slippage_micro")
    fee_line = np.zeros(len(commission) + len(fills), np.int64)
    fee_line[len(commission) :] = FEE_LINES.index("slippage")
    return Facts(
        cash_micro=run.cash_micro,
        day=run.session_day,
        equity=run.equity,
        position=run.position,
        decision_bars=run.decision_bars,
        market_bars=run.market_bars,
        order_session=_column(run.orders, "session"),
        fill_session=fill_session,
        fill_value=np.abs(fills["amount_micro"]),
        fee_session=np.concatenate((cash["session"][paid], fill_session)),
        fee_line=fee_line,
        fee_micro=np.concatenate((commission, slippage)),
        trade_session=_column(trades, "entry_session"),
        trade_pnl=_column(trades, "pnl_micro"),
        trade_notional=_column(trades, "entry_notional_micro"),
        open_session=_column(run.open_trades, "entry_session"),
    )


def _column(records: Records, name: str) -> I64:
    return np.ascontiguousarray(records[name])


@lru_cache(maxsize=256)
def rf_per_session(rf: float, ann: float) -> float:
    """Return the risk-free return of one session, ``(1 + rf)^(1/ann) - 1``."""
    return float(power(1.0 + rf, 1.0 / ann)) - 1.0


def measure(facts: Facts, stretches: Sequence[Stretch], *, ann: float, rf: float, benchmark: F64 | None) -> list[F64]:
    """Return a metric vector (len(METRIC_NAMES),), read-only, for each stretch of sessions [start, stop).

    Shapes:  benchmark (n,): returns of the benchmark over all sessions of the run, NaN where it has none.
    Units:   ann: sessions a year; rf: annual rate, a fraction.
    Errors:  FarmError when the equity of a ruined account moves: the books are wrong, not the strategy.
    """
    if any(stop <= start for start, stop in stretches):
        raise ValueError("metrics need at least one session")
    out = np.empty((len(stretches), len(METRIC_NAMES)))
    moved = bucket_metrics(
        facts.cash_micro, facts.day, facts.equity, facts.position, facts.decision_bars, facts.market_bars,
        facts.order_session, facts.fill_session, facts.fill_value, facts.fee_session, facts.fee_line, facts.fee_micro,
        facts.trade_session, facts.trade_pnl, facts.trade_notional, facts.open_session,
        _NO_BENCHMARK if benchmark is None else benchmark, ann, rf_per_session(rf, ann),
        readonly(np.array(stretches, np.int64)), 1, out,
    )  # fmt: skip
    if moved >= 0:
        raise FarmError(f"the equity of a ruined account moves at session {moved}", place="ledger")
    return list(readonly(out))
