"""Claims: every row of domain.md 4.1 agrees with its reference; what is undefined is null; buckets add up.

References: empyrical-reloaded at 1e-12 relative, brute force, exact fractions, or books that fit on one hand.
"""

import math
import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import empyrical
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.results.measure import measure, rf_per_session
from farm.values.errors import FarmError
from tests.results.builders import MICRO, facts, named

CASH = 10_000 * MICRO
ANN = 252.0
DATA = Path(os.environ.get("FARM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def random_equity(seed: int, n: int) -> list[int]:
    """Return an account that loses on its first day, as the references differ about the starting equity otherwise."""
    moves = np.random.default_rng(seed).normal(4e-4, 0.012, n)
    moves[0] = -0.01
    return [int(value) for value in CASH * np.cumprod(1.0 + moves)]


def real_equity(symbol: str) -> list[int]:
    path = DATA / "us_equity_daily_wiki.parquet"
    if not path.exists():
        pytest.skip("no real bars here")
    table = pq.read_table(path).to_pandas()
    key = "ticker" if "ticker" in table else "symbol"
    close = table.loc[table[key] == symbol, "close"].to_numpy()
    return [CASH + 20 * round(float(value - close[0]) * MICRO) for value in close]


def returns_of(equity: list[int], cash: int = CASH) -> pd.Series:
    values = [float(Fraction(now - before, before)) for before, now in pairwise([cash, *equity])]
    return pd.Series(values, pd.bdate_range("2000-03-01", periods=len(values)))


CURVES = [
    *(pytest.param(lambda n=n: random_equity(n, n), id=f"random-{n}") for n in (2, 25, 756, 3270)),
    *(pytest.param(lambda s=s: real_equity(s), id=s) for s in ("AAPL", "GOOG", "MSFT", "FB")),
]  # fmt: skip
Curve = Callable[[], list[int]]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("rf", [0.0, 0.03])
def test_against_empyrical(curve: Curve, rf: float) -> None:
    equity = curve()
    r, got, rf_p = returns_of(equity), named(facts(equity), rf=rf), rf_per_session(rf, ANN)
    expected = {
        "total_return": empyrical.cum_returns_final(r),
        "cagr": empyrical.cagr(r),
        "vol": empyrical.annual_volatility(r),
        "sharpe": empyrical.sharpe_ratio(r, risk_free=rf_p),
        "sortino": empyrical.sortino_ratio(r, required_return=rf_p),
        "max_dd": -empyrical.max_drawdown(r),
        "calmar": empyrical.calmar_ratio(r),
        "var95": empyrical.value_at_risk(r),
        "cvar95": empyrical.conditional_value_at_risk(r),
        "tail_ratio": empyrical.tail_ratio(r),
    }
    # empyrical compounds n rounded returns: its growth factor, not ours, is off by up to n/2 ulp.
    slack = {"total_return": len(r) * 1e-16, "cagr": len(r) * 1e-16, "calmar": len(r) * 1e-15, "max_dd": len(r) * 1e-16}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-12, abs=slack.get(name, 0.0)), name


@pytest.mark.parametrize("curve", CURVES)
def test_against_empyrical_with_a_benchmark(curve: Curve) -> None:
    equity = curve()
    r = returns_of(equity)
    b = 0.4 * r + np.random.default_rng(7).normal(2e-4, 0.01, len(r))
    rf_p = rf_per_session(0.02, ANN)
    got = named(facts(equity), rf=0.02, benchmark=b.to_numpy())
    active = r - b
    expected = {
        "beta": empyrical.beta(r, b, risk_free=rf_p),
        "alpha": empyrical.alpha(r, b, risk_free=rf_p),
        "tracking_error": active.std(ddof=1) * math.sqrt(ANN),
        "ir": empyrical.excess_sharpe(r, b) * math.sqrt(ANN),
    }
    # One ulp of 1 + mean, to the power of 252, is 6e-14; relative to a small alpha it may be more than 1e-12.
    slack = {"alpha": 1e-13}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-12, abs=slack.get(name, 0.0)), name


def test_sessions_without_a_benchmark_return_are_left_out() -> None:
    equity = random_equity(5, 300)
    b = np.random.default_rng(8).normal(2e-4, 0.01, 300)
    b[[0, 17, 250]] = np.nan
    got = named(facts(equity), benchmark=b)
    r, known = returns_of(equity).to_numpy(), ~np.isnan(b)
    beta = np.cov(r[known], b[known], ddof=1)[0, 1] / np.var(b[known], ddof=1)
    assert got["beta"] == pytest.approx(beta, rel=1e-12)
    assert got["tracking_error"] == pytest.approx(np.std((r - b)[known], ddof=1) * math.sqrt(ANN), rel=1e-12)


@pytest.mark.parametrize("curve", CURVES)
def test_growth_against_exact_roots(curve: Curve) -> None:
    """cagr to the last bits of its growth factor, by exact arithmetic: (1 + cagr)^n is (E_n/E_0)^252."""
    equity = curve()
    got = named(facts(equity))
    growth = Fraction(got["cagr"]) + 1
    exact = Fraction(equity[-1], CASH) ** 252
    assert abs(float(growth ** len(equity) / exact) - 1.0) <= 4e-16 * (252 + len(equity))
    assert got["total_return"] == float(Fraction(equity[-1], CASH) - 1)
    assert got["pct_change"] == got["total_return"] * 100.0


def brute_drawdowns(curve: list[int], day: list[int]) -> tuple[Fraction, int, int, list[Fraction]]:
    """Return the largest drawdown, the longest one in sessions and in days, and all of them, by trying everything."""
    shares = [1 - Fraction(value, max(curve[: i + 1])) for i, value in enumerate(curve)]
    longest = longest_days = 0
    for p, peak in enumerate(curve):
        back = next((j for j in range(p + 1, len(curve)) if curve[j] >= peak), len(curve) - 1)
        if any(value < peak for value in curve[p + 1 : back + 1]):
            longest, longest_days = max(longest, back - p), max(longest_days, day[back] - day[p])
    return max(shares), longest, longest_days, shares[1:]


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), min_size=1, max_size=40),
)
def test_drawdowns_against_brute_force(cash: int, sessions: list[tuple[int, int]]) -> None:
    equity, gaps = [value for value, _ in sessions], [gap for _, gap in sessions]
    day = (np.cumsum(gaps) + 11_000).tolist()
    # The starting equity is dated to the first session: the account opens that morning.
    worst, longest, longest_days, shares = brute_drawdowns([cash, *equity], [day[0], *day])
    got = named(facts(equity, cash, day=day))
    assert got["max_dd"] == float(worst)
    assert got["dd_duration"] == longest
    assert got["dd_duration_days"] == longest_days
    assert got["ulcer"] == pytest.approx(math.sqrt(sum(share * share for share in shares) / len(shares)), rel=1e-12)


def test_the_starting_equity_is_a_peak() -> None:
    got = named(facts([5_000, 5_500, 6_600], 10_000))
    assert got["max_dd"] == 0.5
    assert got["dd_duration"] == 3


def test_a_rising_account_has_no_drawdown() -> None:
    got = named(facts([101, 102, 103], 100))
    assert (got["max_dd"], got["dd_duration"], got["dd_duration_days"], got["ulcer"]) == (0.0, 0, 0, 0.0)
    assert got["calmar"] is None
    assert got["sortino"] is None


@pytest.mark.parametrize("n", [1, 2, 20, 21, 22, 40, 41, 100, 101, 999])
def test_tails_against_sorting(n: int) -> None:
    equity = random_equity(n, n)
    r = sorted(returns_of(equity).tolist())
    got = named(facts(equity))
    assert got["var95"] == pytest.approx(np.percentile(r, 5), rel=1e-12)
    assert got["tail_ratio"] == pytest.approx(abs(np.percentile(r, 95)) / abs(np.percentile(r, 5)), rel=1e-12)
    assert got["cvar95"] == pytest.approx(np.mean(r[: (n - 1) // 20 + 1]), rel=1e-12)


def test_trades_on_one_hand() -> None:
    got = named(
        facts(
            [CASH] * 4,
            trade_session=[0, 1, 1, 2],
            trade_pnl=[30 * MICRO, -10 * MICRO, 0, 5 * MICRO],
            trade_notional=[1000 * MICRO, 500 * MICRO, 100 * MICRO, 50 * MICRO],
            open_session=[3],
            order_session=[0, 0, 1, 2, 3],
            fill_session=[0, 1, 2],
            fill_value=[1000 * MICRO, 2000 * MICRO, 17_000 * MICRO],
            fee_session=[0, 1, 2, 2, 3],
            fee_line=[0, 0, 1, 2, 3],
            fee_micro=[1 * MICRO, 2 * MICRO, 250_000, 125_000, 500_000],
        )
    )
    assert (got["trades"], got["open_trades"], got["orders"], got["fills"]) == (4, 1, 5, 3)
    assert got["win_rate"] == 0.5
    assert got["profit_factor"] == 3.5
    assert got["expectancy"] == 6.25
    assert got["expectancy_pct"] == pytest.approx((0.03 - 0.02 + 0.0 + 0.1) / 4, rel=1e-15)
    assert got["turnover"] == 20_000 / (2 * 10_000) * 252 / 4
    assert (got["fees"], got["fees_commission"], got["fees_slippage"]) == (3.875, 3.0, 0.25)
    assert (got["fees_borrow"], got["fees_exercise"]) == (0.125, 0.5)


def test_time_in_market_on_one_hand() -> None:
    got = named(
        facts(
            [CASH * 11 // 10] * 4,
            market_bars=[0, 1, 1, 0],
            position=[0, CASH * 11 // 10, CASH * 11 // 20, 0],
        )
    )
    assert got["tim"] == 0.5
    assert got["exposure"] == (1.0 + 0.5) / 4
    assert got["timar"] == pytest.approx((1.1 ** (252 / 4) - 1) / 0.5, rel=1e-12)
    assert got["timar_geo"] == pytest.approx(1.1 ** (252 / 2) - 1, rel=1e-12)


def test_without_trades_and_benchmark_their_metrics_are_null() -> None:
    got = named(facts(random_equity(1, 30)))
    undefined = {"win_rate", "profit_factor", "expectancy", "expectancy_pct", "timar", "timar_geo"}
    undefined |= {"beta", "alpha", "tracking_error", "ir"}
    assert {name for name, value in got.items() if value is None} == undefined
    assert (got["trades"], got["tim"], got["exposure"], got["turnover"], got["fees"]) == (0, 0.0, 0.0, 0.0, 0.0)


def test_a_flat_account_has_no_sharpe() -> None:
    got = named(facts([CASH] * 300), rf=0.02)
    assert got["vol"] == 0.0
    assert got["sharpe"] is None
    assert (got["total_return"], got["cagr"], got["max_dd"], got["calmar"]) == (0.0, 0.0, 0.0, None)
    assert (got["var95"], got["cvar95"], got["tail_ratio"]) == (0.0, 0.0, None)


def test_equal_returns_have_no_sharpe() -> None:
    """Doubling each session: every return is exactly 1, and a floating deviation would not be exactly 0."""
    got = named(facts([2 ** (i + 1) for i in range(40)], 1))
    assert (got["vol"], got["sharpe"], got["sortino"]) == (0.0, None, None)
    thirds = [3 * 4**i // 4 for i in range(1, 20)]
    assert named(facts([4**i for i in range(1, 20)], 1))["sharpe"] is None
    assert named(facts(thirds, 3))["sharpe"] is not None


def test_one_session_has_no_deviation() -> None:
    got = named(facts([CASH - MICRO]))
    assert (got["vol"], got["sharpe"], got["sortino"]) == (None, None, None)
    assert got["var95"] == got["cvar95"] == got["total_return"]


def test_equal_benchmark_returns_have_no_beta() -> None:
    got = named(facts(random_equity(1, 50)), benchmark=np.full(50, 1e-3))
    assert (got["beta"], got["alpha"]) == (None, None)
    assert got["tracking_error"] is not None
    equity = random_equity(2, 50)
    same = named(facts(equity), benchmark=returns_of(equity).to_numpy())
    assert (same["tracking_error"], same["ir"]) == (0.0, None)
    assert same["beta"] == pytest.approx(1.0, rel=1e-12)


def test_no_losses_no_profit_factor() -> None:
    got = named(facts([CASH] * 3, trade_session=[0, 1], trade_pnl=[5, 0], trade_notional=[10, 0]))
    assert (got["win_rate"], got["profit_factor"], got["expectancy_pct"]) == (0.5, None, None)


def test_ruin_at_zero_is_an_outcome_with_full_metrics() -> None:
    got = named(facts([CASH // 2, 0, 0, 0]))
    assert (got["total_return"], got["cagr"], got["max_dd"], got["calmar"]) == (-1.0, -1.0, 1.0, -1.0)
    assert got["sharpe"] is not None
    assert got["dd_duration"] == 4


def test_ruin_below_zero_has_no_growth_a_year() -> None:
    got = named(facts([CASH // 2, -CASH, -CASH]))
    assert (got["total_return"], got["max_dd"]) == (-2.0, 2.0)
    assert (got["cagr"], got["calmar"], got["timar"]) == (None, None, None)


def test_a_ruined_account_that_moves_is_an_error() -> None:
    with pytest.raises(FarmError, match="ruined account moves at session 2"):
        named(facts([CASH // 2, 0, 5]))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=40), st.integers(0, 8))
def test_doubling_all_money_changes_no_ratio(equity: list[int], doublings: int) -> None:
    """Ratios of integers are scale free to the bit; money metrics scale."""
    factor = 2**doublings
    one, more = named(facts(equity, 1000)), named(facts([value * factor for value in equity], 1000 * factor))
    assert one == more


# --- buckets -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(10**8, 10**9), min_size=2, max_size=60), st.data())
def test_buckets_without_embargo_compound_to_the_run(equity: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(equity) - 1))
    whole = facts(equity, 10**8)
    parts = [named(whole, stretch) for stretch in ((0, cut), (cut, len(equity)))]
    product = math.prod(1.0 + part["total_return"] for part in parts)
    assert product == pytest.approx(1.0 + named(whole)["total_return"], rel=1e-12)


def test_a_bucket_is_a_run_of_its_own() -> None:
    """The bits of a bucket are those of a run that starts with the equity of the session before."""
    equity = random_equity(3, 400)
    b = np.random.default_rng(1).normal(0, 0.01, 400)
    whole = facts(equity)
    alone = facts(equity[250:], equity[249], day=np.arange(250, 400) + 11_000)
    expected = named(alone, benchmark=b[250:])
    got = named(whole, (250, 400), benchmark=b)
    for name in set(expected) - {"dd_duration_days"}:  # its starting equity is dated to the session before
        assert got[name] == expected[name], name


def test_events_belong_to_the_bucket_of_their_session_and_trades_to_that_of_their_entry() -> None:
    whole = facts(
        [CASH] * 10,
        trade_session=[2, 4, 7],
        trade_pnl=[100, -50, 10],
        trade_notional=[1000, 1000, 1000],
        open_session=[8],
        order_session=[1, 6, 7, 9],
        fill_session=[2, 7],
        fill_value=[CASH, CASH],
        fee_session=[2, 7],
        fee_line=[0, 0],
        fee_micro=[MICRO, 3 * MICRO],
        market_bars=[0, 0, 1, 1, 1, 1, 0, 1, 1, 1],
    )
    first, second = named(whole, (0, 4)), named(whole, (6, 10))  # an embargo of one session around a cut at 5
    assert (first["trades"], first["orders"], first["fills"], first["fees"], first["open_trades"]) == (1, 1, 1, 1.0, 0)
    assert (second["trades"], second["orders"], second["fills"], second["fees"], second["open_trades"]) == (
        1,
        3,
        1,
        3.0,
        1,
    )
    assert (first["tim"], second["tim"]) == (0.5, 0.75)
    assert first["profit_factor"] is None


def test_the_vector_is_read_only() -> None:
    vector = measure(facts([1, 2]), [(0, 2)], ann=252.0, rf=0.0, benchmark=None)[0]
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1.0
