"""The reductions of ``kernels/reduce.py`` in plain Python: sorting where the kernel keeps a heap, the same bits."""

import math
from collections.abc import Sequence

from farm.values.metrics import METRIC_NAMES

MICRO = 1e6

Floats = Sequence[float]
Ints = Sequence[int]


def lane_sum(x: Floats) -> float:
    """Return the sum in eight lanes: element t goes to lane t mod 8."""
    a = [0.0] * 8
    for t, value in enumerate(x):
        a[t % 8] += value
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))


def lane_dot(x: Floats, y: Floats) -> float:
    """Return the eight-lane sum of products."""
    return lane_sum([p * q for p, q in zip(x, y, strict=True)])


def session_returns(base: int, equity: Ints) -> tuple[list[float], int]:
    """Return the session returns, and the first session that moves a ruined account (or -1)."""
    returns, moved = [], -1
    for i, (before, now) in enumerate(zip([base, *equity], equity, strict=False)):
        returns.append(float(now - before) / float(before) if before > 0 else 0.0)
        if before <= 0 and now != before and moved < 0:
            moved = i
    return returns, moved


def drawdowns(base: int, base_day: int, equity: Ints, day: Ints) -> tuple[list[float], float, int, int]:
    """Return the drawdown at each session, the largest, and the longest in sessions and in calendar days."""
    curve, days = [base, *equity], [base_day, *day]
    shares, longest, longest_days = [], 0, 0
    peak_at = 0
    for i in range(1, len(curve)):
        peak = curve[peak_at]
        shares.append(float(peak - curve[i]) / float(peak) if curve[i] < peak else 0.0)
        if any(value < peak for value in curve[peak_at + 1 : i + 1]):
            longest = max(longest, i - peak_at)
            longest_days = max(longest_days, days[i] - days[peak_at])
        if curve[i] >= peak:
            peak_at = i
    return shares, max(shares), longest, longest_days


def variance(n: int, s1: float, s2: float) -> float:
    """Return the sample variance from the two sums."""
    return max((s2 - s1 * s1 / n) / (n - 1), 0.0)


def deviation(x: Floats) -> float:
    """Return the sample deviation of a series; exactly 0 for a constant one."""
    if max(x) == min(x):
        return 0.0
    return math.sqrt(variance(len(x), lane_sum(x), lane_dot(x, x)))


def fifth_percentile(ascending: Floats) -> float:
    """Return the 5th percentile by linear interpolation."""
    whole, part = (len(ascending) - 1) // 20, (len(ascending) - 1) % 20
    low = ascending[whole]
    return low + (ascending[whole + 1] - low) * (part / 20.0) if part else low


def spread_metrics(r: Floats, ann: float, rf_p: float) -> dict[str, float]:
    """Return vol, sharpe and sortino of two or more returns."""
    mean, spread, root = lane_sum(r) / len(r), deviation(r), math.sqrt(ann)
    found = {"vol": spread * root}
    if spread > 0.0:
        found["sharpe"] = (mean - rf_p) / spread * root
    below = [min(value - rf_p, 0.0) for value in r]
    downside = math.sqrt(lane_dot(below, below) / len(r))
    if downside > 0.0:
        found["sortino"] = (mean - rf_p) / downside * root
    return found


def tails(r: Floats) -> dict[str, float]:
    """Return var95, cvar95 and tail_ratio."""
    ascending = sorted(r)
    low, high = fifth_percentile(ascending), fifth_percentile(sorted(-value for value in r))
    count = (len(r) - 1) // 20 + 1
    found = {"var95": low, "cvar95": lane_sum(ascending[:count]) / count}
    if low != 0.0:
        found["tail_ratio"] = abs(high) / abs(low)
    return found


def benchmark_metrics(r: Floats, benchmark: Floats, ann: float, rf_p: float) -> dict[str, float]:
    """Return beta, alpha (mean residual), tracking_error and ir over the sessions both have."""
    pairs = [(p, q) for p, q in zip(r, benchmark, strict=True) if q == q]
    n = len(pairs)
    if n < 2:
        return {}
    a, b = [p for p, _ in pairs], [q for _, q in pairs]
    found = {}
    var_b = 0.0 if max(b) == min(b) else variance(n, lane_sum(b), lane_dot(b, b))
    if var_b > 0.0:
        beta = (lane_dot(a, b) - lane_sum(a) * lane_sum(b) / n) / (n - 1) / var_b
        found["beta"] = beta
        found["alpha"] = (lane_sum(a) / n - rf_p) - beta * (lane_sum(b) / n - rf_p)
    d = [p - q for p, q in pairs]
    spread = deviation(d)
    found["tracking_error"] = spread * math.sqrt(ann)
    if spread > 0.0:
        found["ir"] = lane_sum(d) / n / spread * math.sqrt(ann)
    return found


def trade_metrics(pnl: Ints, notional: Ints) -> dict[str, float]:
    """Return what is known of the closed trades."""
    n = len(pnl)
    found = {"trades": float(n)}
    if n == 0:
        return found
    won, lost = sum(p for p in pnl if p > 0), sum(p for p in pnl if p <= 0)
    found["win_rate"] = sum(p > 0 for p in pnl) / n
    if lost < 0:
        found["profit_factor"] = float(won) / float(-lost)
    found["expectancy"] = float(won + lost) / (n * MICRO)
    if all(value != 0 for value in notional):
        found["expectancy_pct"] = lane_sum([float(p) / float(q) for p, q in zip(pnl, notional, strict=True)]) / n
    return found


def session_metrics(
    base: int,
    base_day: int,
    equity: Ints,
    day: Ints,
    benchmark: Floats,
    position: Ints,
    pnl: Ints,
    notional: Ints,
    totals: Ints,
    ann: float,
    rf_p: float,
    growth_year: float,
    growth_market: float,
    with_tails: int,
) -> tuple[list[float], int]:
    """Return the metric vector in the order of the registry, and the first session in error (or -1)."""
    n = len(equity)
    r, moved = session_returns(base, equity)
    found: dict[str, float] = {}
    if base > 0:
        found["total_return"] = float(equity[-1] - base) / float(base)
        found["pct_change"] = found["total_return"] * 100.0
        found["cagr"] = growth_year - 1.0
    if n > 1:
        found |= spread_metrics(r, ann, rf_p)
    dd, worst, sessions, days = drawdowns(base, base_day, equity, day)
    found |= {"max_dd": worst, "dd_duration": sessions, "dd_duration_days": days}
    cagr = found.get("cagr", math.nan)
    if worst > 0.0:
        found["calmar"] = cagr / worst
    found["ulcer"] = math.sqrt(lane_dot(dd, dd) / n)
    found |= tails(r) if with_tails else {}
    if len(benchmark) == n:
        found |= benchmark_metrics(r, benchmark, ann, rf_p)
    found |= dict(zip(("orders", "fills", "open_trades"), map(float, totals), strict=False))
    found |= trade_metrics(pnl, notional)
    decision_bars, market_bars, traded = totals[3:6]
    if decision_bars > 0:
        found["tim"] = market_bars / decision_bars
        if market_bars > 0:
            found["timar"] = cagr / found["tim"]
            found["timar_geo"] = growth_market - 1.0
    found["exposure"] = (
        lane_sum([float(p) / float(e) if e > 0 else 0.0 for p, e in zip(position, equity, strict=True)]) / n
    )
    mean = lane_sum([float(e) for e in equity]) / n
    if mean > 0.0:
        found["turnover"] = float(traded) / (2.0 * mean) * ann / n
    lines = totals[6:10]
    found["fees"] = float(sum(lines)) / MICRO
    for name, line in zip(("commission", "slippage", "borrow", "exercise"), lines, strict=True):
        found[f"fees_{name}"] = float(line) / MICRO
    values = [float(found.get(name, math.nan)) for name in METRIC_NAMES]
    return [math.nan if math.isinf(value) else value for value in values], moved
