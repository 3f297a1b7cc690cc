"""Integer sums over a stretch of sessions: what the metrics of a bucket need of a run.

Everything is an integer, so no order of addition matters. An event belongs to the stretch [start, stop) when its
session does; a trade when the session of its entry does (domain.md 2.6).
"""

from numba.core.types import Array, int64, void

from farm.kernels.jit import kernel
from farm.kernels.reduce import COMMISSION, N_DECISION_BARS, N_FILLS, N_MARKET_BARS, N_OPEN_TRADES, N_ORDERS, TRADED
from farm.values.arrays import I64

_I64 = Array(int64, 1, "C", readonly=True)
_OUT = Array(int64, 1, "C")


@kernel(
    void(int64, int64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _OUT),
)
def stretch_totals(
    start: int,
    stop: int,
    decision_bars: I64,
    market_bars: I64,
    order_session: I64,
    fill_session: I64,
    fill_value: I64,
    fee_session: I64,
    fee_line: I64,
    fee_micro: I64,
    open_session: I64,
    totals: I64,
) -> None:
    """Write the totals of the stretch where ``reduce.py`` has them: three counts, two bar counts, five sums.

    Shapes:  decision_bars, market_bars (n,) per session; the others per event, any order; fee_line in 0..3;
             totals (10,).
    Units:   sessions as indexes, money in micro-units.
    """
    totals[:] = 0
    for i in range(len(order_session)):
        if start <= order_session[i] < stop:
            totals[N_ORDERS] += 1
    for i in range(len(fill_session)):
        if start <= fill_session[i] < stop:
            totals[N_FILLS] += 1
            totals[TRADED] += fill_value[i]
    for i in range(len(open_session)):
        if start <= open_session[i] < stop:
            totals[N_OPEN_TRADES] += 1
    decided = 0
    held = 0
    for t in range(start, stop):
        decided += decision_bars[t]
        held += market_bars[t]
    totals[N_DECISION_BARS] = decided
    totals[N_MARKET_BARS] = held
    for i in range(len(fee_session)):
        if start <= fee_session[i] < stop:
            totals[COMMISSION + fee_line[i]] += fee_micro[i]
