"""Reductions of a run to numbers: lane sums, drawdown, tails, and every metric of domain.md 4.1 in one pass.

Rules of the file. Money comes in as integers (1e-6 of account currency), so differences and sums are exact and each
ratio is rounded once. Float sums use eight fixed lanes: element t is added to lane t mod 8 in time order, the lanes
are combined as ``((0+1)+(2+3))+((4+5)+(6+7))``; eight-wide vector code and a plain loop then agree to the bit.
"All equal" is tested by max = min, because the floating deviation of a constant series is not exactly 0. What is
undefined is NaN, which becomes null in documents: never 0, never infinity.

Powers live in ``transcend.py``: the two growth factors come in as arguments, and alpha leaves as the mean residual per
session, which ``results/measure.py`` compounds.
"""

import math

import numpy as np
from numba.core.types import Array, float64, int32, int64

from farm.kernels.jit import helper, kernel
from farm.values.arrays import F64, I32, I64

(
    TOTAL_RETURN, PCT_CHANGE, CAGR, VOL, SHARPE, SORTINO, MAX_DD, CALMAR, DD_DURATION, DD_DURATION_DAYS, ULCER, VAR95,
    CVAR95, TAIL_RATIO, BETA, ALPHA, TRACKING_ERROR, IR, ORDERS, FILLS, TRADES, OPEN_TRADES, WIN_RATE, PROFIT_FACTOR,
    EXPECTANCY, EXPECTANCY_PCT, TIM, TIMAR, TIMAR_GEO, EXPOSURE, TURNOVER, FEES, FEES_COMMISSION, FEES_SLIPPAGE,
    FEES_BORROW, FEES_EXERCISE,
) = range(36)  # fmt: skip
"""Where each metric stands in the vector: the order of ``values/metrics.py``, which a test compares. Written out, since
kernels depend on nothing that the digest of their sources does not cover."""

(
    N_ORDERS, N_FILLS, N_OPEN_TRADES, N_DECISION_BARS, N_MARKET_BARS, TRADED, COMMISSION, SLIPPAGE, BORROW, EXERCISE,
    TOTALS,
) = range(11)  # fmt: skip
"""Where the counts and the sums in micro-units of a stretch stand, which ``totals.py`` writes; and their number."""

MICRO = 1e6
STEPS = 256
"""Steps into which returns are counted to find their tails."""

_F64 = Array(float64, 1, "C", readonly=True)
_I64 = Array(int64, 1, "C", readonly=True)
_I32 = Array(int32, 1, "C", readonly=True)
_OUT = Array(float64, 1, "C")


@kernel(float64(_F64))
def lane_sum(x: F64) -> float:
    """Return the eight-lane sum of ``x`` (n,)."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
    n = len(x)
    full = n - n % 8
    for t in range(0, full, 8):
        a0 += x[t]
        a1 += x[t + 1]
        a2 += x[t + 2]
        a3 += x[t + 3]
        a4 += x[t + 4]
        a5 += x[t + 5]
        a6 += x[t + 6]
        a7 += x[t + 7]
    rest = n - full
    if rest > 0:
        a0 += x[full]
    if rest > 1:
        a1 += x[full + 1]
    if rest > 2:
        a2 += x[full + 2]
    if rest > 3:
        a3 += x[full + 3]
    if rest > 4:
        a4 += x[full + 4]
    if rest > 5:
        a5 += x[full + 5]
    if rest > 6:
        a6 += x[full + 6]
    return ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))


@kernel(float64(_F64, _F64))
def lane_dot(x: F64, y: F64) -> float:
    """Return the eight-lane sum of the products of ``x`` and ``y``, both (n,)."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
    n = len(x)
    full = n - n % 8
    for t in range(0, full, 8):
        a0 += x[t] * y[t]
        a1 += x[t + 1] * y[t + 1]
        a2 += x[t + 2] * y[t + 2]
        a3 += x[t + 3] * y[t + 3]
        a4 += x[t + 4] * y[t + 4]
        a5 += x[t + 5] * y[t + 5]
        a6 += x[t + 6] * y[t + 6]
        a7 += x[t + 7] * y[t + 7]
    rest = n - full
    if rest > 0:
        a0 += x[full] * y[full]
    if rest > 1:
        a1 += x[full + 1] * y[full + 1]
    if rest > 2:
        a2 += x[full + 2] * y[full + 2]
    if rest > 3:
        a3 += x[full + 3] * y[full + 3]
    if rest > 4:
        a4 += x[full + 4] * y[full + 4]
    if rest > 5:
        a5 += x[full + 5] * y[full + 5]
    if rest > 6:
        a6 += x[full + 6] * y[full + 6]
    return ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))


@helper
def session_returns(base: int, equity: I64, r: F64) -> int:
    """Write ``r_i = (E_i - E_{i-1}) / E_{i-1}``; return the first session that moves a ruined account, or -1.

    After ruin (equity at or below 0) the account stays as it is, and its returns are 0.
    """
    moved = -1
    before = base
    for i in range(len(equity)):
        now = equity[i]
        if before > 0:
            r[i] = float(now - before) / float(before)
        else:
            r[i] = 0.0
            if now != before and moved < 0:
                moved = i
        before = now
    return moved


@helper
def drawdowns(base: int, base_day: int, equity: I64, day: I32, dd: F64) -> tuple[float, int, int]:
    """Write the drawdown at each session; return the largest, the longest in sessions and in calendar days.

    The peak includes the starting equity. A drawdown lasts from its peak to the first session at or above that peak,
    or to the end; sessions and days are the two longest ones, each taken for itself.
    """
    peak, peak_at, peak_day = base, -1, base_day
    worst, longest, longest_days = 0.0, 0, 0
    under = False
    for i in range(len(equity)):
        now = equity[i]
        if now < peak:
            under = True
            dd[i] = float(peak - now) / float(peak)
            worst = max(worst, dd[i])
        else:
            dd[i] = 0.0
        if under:
            longest = max(longest, i - peak_at)
            longest_days = max(longest_days, day[i] - peak_day)
        if now >= peak:
            peak, peak_at, peak_day = now, i, day[i]
            under = False
    return worst, longest, longest_days


@helper
def tails(r: F64, out: F64) -> None:
    """Write var95, cvar95 and tail_ratio of the session returns: 5th and 95th percentiles, linear interpolation.

    The position 0.05 (n - 1) is split by integers into ``whole`` and ``part / 20``; the 95th percentile is the 5th of
    ``-r``, negated. Only what may lie in a tail is sorted: the returns are counted into steps between the lowest and
    the highest first, and a step is higher only if its returns are.
    """
    n = len(r)
    whole, part = (n - 1) // 20, (n - 1) % 20
    size = min(whole + 2, n)
    lowest, highest = r.min(), r.max()
    scale = (STEPS - 1) / (highest - lowest) if highest > lowest else 0.0
    if math.isinf(scale):
        scale = 0.0
    step = np.empty(n, np.uint8)
    count = np.zeros(STEPS, np.int64)
    for i in range(n):
        at = np.uint8((r[i] - lowest) * scale)
        step[i] = at
        count[at] += 1
    below, last = 0, -1
    while below < size:
        last += 1
        below += count[last]
    above, first = 0, STEPS
    while above < size:
        first -= 1
        above += count[first]
    low_tail = np.empty(n)
    high_tail = np.empty(n)
    below, above = 0, 0
    for i in range(n):
        low_tail[below] = r[i]
        below += 1 if step[i] <= last else 0
        high_tail[above] = r[i]
        above += 1 if step[i] >= first else 0
    low_tail = np.sort(low_tail[:below])
    high_tail = np.sort(high_tail[:above])
    low = low_tail[whole]
    if part > 0:
        low += (low_tail[whole + 1] - low_tail[whole]) * (part / 20.0)
    out[VAR95] = low
    out[CVAR95] = lane_sum(low_tail[: whole + 1]) / (whole + 1)
    high = -high_tail[above - 1 - whole]
    if part > 0:
        high += (-high_tail[above - 2 - whole] - high) * (part / 20.0)
    if low != 0.0:
        out[TAIL_RATIO] = abs(high) / abs(low)


@helper
def is_constant(x: F64) -> bool:
    """Return whether all values are equal."""
    first = x[0]
    for i in range(1, len(x)):  # noqa: SIM110  numba has no any() over a generator
        if x[i] != first:
            return False
    return True


@helper
def variance(n: int, s1: float, s2: float) -> float:
    """Return ``(S2 - S1 S1/n)/(n - 1)``, not below 0: rounding may push a tiny one there."""
    return max((s2 - s1 * s1 / n) / (n - 1), 0.0)


@helper
def spread_metrics(r: F64, ann: float, rf_p: float, out: F64) -> None:
    """Write vol, sharpe and sortino. A constant series has no deviation: vol 0, sharpe undefined."""
    n = len(r)
    s1 = lane_sum(r)
    mean = s1 / n
    root = math.sqrt(ann)
    if is_constant(r):
        out[VOL] = 0.0
    else:
        deviation = math.sqrt(variance(n, s1, lane_dot(r, r)))
        out[VOL] = deviation * root
        if deviation > 0.0:
            out[SHARPE] = (mean - rf_p) / deviation * root
    below = np.empty(n)
    for i in range(n):
        below[i] = min(r[i] - rf_p, 0.0)
    downside = math.sqrt(lane_dot(below, below) / n)
    if downside > 0.0:
        out[SORTINO] = (mean - rf_p) / downside * root


@helper
def benchmark_metrics(r: F64, benchmark: F64, ann: float, rf_p: float, out: F64) -> None:
    """Write beta, alpha (as the mean residual per session), tracking_error and ir.

    Only sessions that have a benchmark return (not NaN) count, in time order.
    """
    n = 0
    for i in range(len(r)):
        if benchmark[i] == benchmark[i]:
            n += 1
    if n < 2:
        return
    a = np.empty(n)
    b = np.empty(n)
    d = np.empty(n)
    k = 0
    for i in range(len(r)):
        if benchmark[i] == benchmark[i]:
            a[k] = r[i]
            b[k] = benchmark[i]
            d[k] = r[i] - benchmark[i]
            k += 1
    sum_a, sum_b = lane_sum(a), lane_sum(b)
    var_b = variance(n, sum_b, lane_dot(b, b))
    if not is_constant(b) and var_b > 0.0:
        out[BETA] = (lane_dot(a, b) - sum_a * sum_b / n) / (n - 1) / var_b
        out[ALPHA] = (sum_a / n - rf_p) - out[BETA] * (sum_b / n - rf_p)
    out[TRACKING_ERROR] = 0.0
    if not is_constant(d):
        sum_d = lane_sum(d)
        deviation = math.sqrt(variance(n, sum_d, lane_dot(d, d)))
        out[TRACKING_ERROR] = deviation * math.sqrt(ann)
        if deviation > 0.0:
            out[IR] = sum_d / n / deviation * math.sqrt(ann)


@helper
def trade_metrics(pnl: I64, notional: I64, out: F64) -> None:
    """Write trades, win_rate, profit_factor, expectancy and expectancy_pct of the closed trades (micro-units)."""
    n = len(pnl)
    out[TRADES] = n
    if n == 0:
        return
    wins, won, lost = 0, 0, 0
    based = True
    share = np.empty(n)
    for i in range(n):
        if pnl[i] > 0:
            wins += 1
            won += pnl[i]
        else:
            lost += pnl[i]
        if notional[i] == 0:
            based = False
            share[i] = 0.0
        else:
            share[i] = float(pnl[i]) / float(notional[i])
    out[WIN_RATE] = wins / n
    if lost < 0:
        out[PROFIT_FACTOR] = float(won) / float(-lost)
    out[EXPECTANCY] = float(won + lost) / (n * MICRO)
    if based:
        out[EXPECTANCY_PCT] = lane_sum(share) / n


@helper
def holding_metrics(equity: I64, position: I64, totals: I64, ann: float, growth_market: float, out: F64) -> None:
    """Write tim, timar, timar_geo, exposure and turnover. Needs cagr."""
    n = len(equity)
    if totals[N_DECISION_BARS] > 0:
        tim = totals[N_MARKET_BARS] / totals[N_DECISION_BARS]
        out[TIM] = tim
        if tim > 0.0:
            out[TIMAR] = out[CAGR] / tim
            out[TIMAR_GEO] = growth_market - 1.0
    share = np.empty(n)
    value = np.empty(n)
    for i in range(n):
        value[i] = float(equity[i])
        share[i] = float(position[i]) / value[i] if equity[i] > 0 else 0.0
    out[EXPOSURE] = lane_sum(share) / n
    mean = lane_sum(value) / n
    if mean > 0.0:
        out[TURNOVER] = float(totals[TRADED]) / (2.0 * mean) * ann / n


@kernel(
    int64(
        int64, int64, _I64, _I32, _F64, _I64, _I64, _I64, _I64, float64, float64, float64, float64, int64, _OUT
    ),
)  # fmt: skip
def session_metrics(
    base: int,
    base_day: int,
    equity: I64,
    day: I32,
    benchmark: F64,
    position: I64,
    pnl: I64,
    notional: I64,
    totals: I64,
    ann: float,
    rf_p: float,
    growth_year: float,
    growth_market: float,
    with_tails: int,
    out: F64,
) -> int:
    """Write every metric into ``out`` (36,), NaN where undefined; return -1, or the first session in error.

    with_tails: 0: var95, cvar95 and tail_ratio, which cost as much as all others together, are left out (NaN).

    Shapes:  equity, day, position (n,), n >= 1; benchmark (n,) with NaN where it has no return, or (0,) without one;
             pnl, notional (closed trades,); totals (TOTALS,).
    Units:   base, equity, position (sum of absolute position values), pnl, notional: micro-units of account currency;
             day: days since 1970-01-01; ann: sessions per year; rf_p: risk-free return per session;
             growth_year = (E_n/E_0)^(ann/n), growth_market = (E_n/E_0)^(ann/(n tim)), both NaN where undefined.
    Errors:  the returned session changes the equity of a ruined account.
    Source:  domain.md 4.1, 4.3.
    """
    n = len(equity)
    out[:] = math.nan
    r = np.empty(n)
    moved = session_returns(base, equity, r)
    if base > 0:
        out[TOTAL_RETURN] = float(equity[n - 1] - base) / float(base)  # E_n/E_0 - 1, rounded once
        out[PCT_CHANGE] = out[TOTAL_RETURN] * 100.0
        out[CAGR] = growth_year - 1.0
    if n > 1:
        spread_metrics(r, ann, rf_p, out)
    dd = np.empty(n)
    worst, sessions, days = drawdowns(base, base_day, equity, day, dd)
    out[MAX_DD] = worst
    out[DD_DURATION] = sessions
    out[DD_DURATION_DAYS] = days
    if worst > 0.0:
        out[CALMAR] = out[CAGR] / worst
    out[ULCER] = math.sqrt(lane_dot(dd, dd) / n)
    if with_tails != 0:
        tails(r, out)
    if len(benchmark) == n:
        benchmark_metrics(r, benchmark, ann, rf_p, out)
    out[ORDERS] = totals[N_ORDERS]
    out[FILLS] = totals[N_FILLS]
    out[OPEN_TRADES] = totals[N_OPEN_TRADES]
    trade_metrics(pnl, notional, out)
    holding_metrics(equity, position, totals, ann, growth_market, out)
    out[FEES] = float(totals[COMMISSION] + totals[SLIPPAGE] + totals[BORROW] + totals[EXERCISE]) / MICRO
    out[FEES_COMMISSION] = float(totals[COMMISSION]) / MICRO
    out[FEES_SLIPPAGE] = float(totals[SLIPPAGE]) / MICRO
    out[FEES_BORROW] = float(totals[BORROW]) / MICRO
    out[FEES_EXERCISE] = float(totals[EXERCISE]) / MICRO
    for k in range(len(out)):
        if math.isinf(out[k]):  # a growth beyond float64 is no number, and a quotient of it neither
            out[k] = math.nan
    return moved
