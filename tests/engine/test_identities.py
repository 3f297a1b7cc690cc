"""Identities that hold whatever the strategy (domain.md 5, 7): splits, mirrors, doubling, round trips."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farm.engine.events import simulate
from farm.market.panel import InstrumentSeries, Market
from farm.program.program import RulesProgram, Size, StopRule
from farm.signals.evaluate import Signals
from farm.spec.spec import Costs, Exec
from farm.values.arrays import readonly
from tests.engine.support import START, UNIT, assert_conserves, days, flat, market, mask, program, rules, signals
from tests.generators import series_of

ROWS = 30


@st.composite
def walks(draw: st.DrawFn) -> InstrumentSeries:
    """Bars in even cents, so that half a price is a price too, and never far from 50."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    close = 2 * np.maximum(1_000, 2_500 + np.cumsum(random.integers(-60, 61, ROWS)))
    opened = close + 2 * random.integers(-60, 61, ROWS)
    high = np.maximum(opened, close) + 2 * random.integers(0, 60, ROWS)
    low = np.minimum(opened, close) - 2 * random.integers(0, 60, ROWS)
    return series_of(days(ROWS), close, start_day=START, open_ticks=opened.tolist(), high_ticks=high.tolist(),
                     low_ticks=low.tolist())  # fmt: skip


@st.composite
def any_signals(draw: st.DrawFn) -> Signals:
    """Entries and exits of one instrument."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    enter, leave = (readonly((random.random(ROWS) < 0.3).astype(np.uint8)) for _ in range(2))
    return Signals(0, enter, leave, mask(ROWS), mask(ROWS), None, (), {})


def split_at(series: InstrumentSeries, row: int) -> InstrumentSeries:
    """The same company after a 2-for-1 split before the bar ``row``."""
    half = np.where(np.arange(ROWS) >= row, 0.5, 1.0)
    return dataclasses.replace(
        series, open=series.open * half, high=series.high * half, low=series.low * half, close=series.close * half,
        volume=series.volume / half, split_day=series.day[row : row + 1], split_num=np.array([2]),
        split_den=np.array([1]),
    )  # fmt: skip


STOPS: tuple[tuple[StopRule, ...], ...] = (
    (), (StopRule("stop", "pct", 0.02), StopRule("target", "r", 2.0)), (StopRule("trail", "abs", 1.0),),
    (StopRule("trail", "pct", 0.015), StopRule("target", "abs", 0.5)), (StopRule("time", "bars", 3.0),),
)  # fmt: skip


@given(walks(), any_signals(), st.integers(1, ROWS - 1), st.sampled_from(STOPS), st.sampled_from(("long", "short")))
def test_a_split_leaves_the_equity_unchanged(
    series: InstrumentSeries, one: Signals, row: int, stops: tuple[StopRule, ...], side: str
) -> None:
    """A 2-for-1 split planted mid-run, when lots allow and no fee is per share (domain.md 7.8): the last entry is
    filled before it, so that sizes and distances are those of the old shares."""
    early = dataclasses.replace(one, enter=readonly(np.where(np.arange(ROWS) < row - 1, one.enter, 0).astype(np.uint8)))
    sleeve = rules(side=side, size=Size("qty", 20.0), stops=stops)
    chosen = program(sleeve, account="reg_t", costs=Costs(10.0, 0.0, 0.0, 1.0), exec=Exec(4.0, 0.0, False))
    plain = simulate(chosen, market(series), ((early,),))
    split = simulate(chosen, market(split_at(series, row)), ((early,),))
    assert plain.equity.tolist() == split.equity.tolist()
    assert plain.trades["pnl_micro"].tolist() == split.trades["pnl_micro"].tolist()


def run_sides(series: InstrumentSeries, one: Signals, **sleeve: object) -> tuple[object, ...]:
    found: Market = market(series)
    return tuple(
        simulate(program(rules(side=side, **sleeve), account="linear", max_gross=9.0), found, ((one,),))
        for side in ("long", "short")
    )


@given(walks(), any_signals())
def test_a_reversed_sign_mirrors_the_profit(series: InstrumentSeries, one: Signals) -> None:
    """Gross of costs, what the long side wins the short side loses, session by session."""
    long, short = run_sides(series, one, size=Size("qty", 10.0))
    assert (long.equity - long.cash_micro).tolist() == (short.cash_micro - short.equity).tolist()  # type: ignore[attr-defined]


@given(walks(), any_signals(), st.sampled_from(STOPS))
def test_doubling_cash_and_quantities_doubles_the_ledger(
    series: InstrumentSeries, one: Signals, stops: tuple[StopRule, ...]
) -> None:
    """Every amount and every lot is twice as large, when lots allow and the commission has no minimum."""

    def run(times: int) -> dict[str, list[int]]:
        sleeve: RulesProgram = rules(size=Size("qty", 10.0 * times), stops=stops)
        result = simulate(program(sleeve, cash_micro=times * 10_000 * UNIT, costs=Costs(10.0, 0.0, 0.0, 0.0)),
                          market(series), ((one,),))  # fmt: skip
        return {
            "equity": result.equity.tolist(), "lots": result.fills["lots"].tolist(),
            "flows": result.fills["amount_micro"].tolist(), "fees": result.cash_events["cash_micro"].tolist(),
            "pnl": result.trades["pnl_micro"].tolist(),
        }  # fmt: skip

    single = run(1)
    assert run(2) == {name: [2 * amount for amount in amounts] for name, amounts in single.items()}


@given(walks(), any_signals())
def test_higher_costs_never_raise_the_equity(series: InstrumentSeries, one: Signals) -> None:
    """With the same trades, more commission leaves less at every session."""
    runs = [
        simulate(program(costs=Costs(bps, 0.0, 0.0, 0.0)), market(series), ((one,),)).equity
        for bps in (0.0, 1.0, 5.0, 30.0)
    ]
    for cheap, dear in itertools.pairwise(runs):
        assert (dear <= cheap).all()


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_a_round_trip_at_one_price_without_costs_is_nothing(ticks: int, qty: int) -> None:
    """What is bought and sold at one price leaves exactly the cash it began with."""
    found = market(flat(*[ticks / 100] * 4))
    one = signals(found, enter=[0], exit=[1])
    run = simulate(program(rules(size=Size("qty", float(qty))), cash_micro=10**15), found, ((one,),))
    assert len(run.trades) == 1
    assert run.trades["pnl_micro"].tolist() == [0]
    assert_conserves(run)


@given(walks())
def test_buy_and_hold_of_one_share_is_its_price_and_its_dividends(series: InstrumentSeries) -> None:
    """Equity moves with the close from the entry on, plus each dividend from its ex-date on."""
    ex = series.day[[5, 20]]
    paying = dataclasses.replace(
        series, dividend_day=ex, dividend_pay_day=ex + 4, dividend_pay_assumed=np.zeros(2, np.bool_),
        dividend_amount=np.array([0.25, 0.75]),
    )  # fmt: skip
    found = market(paying)
    run = simulate(program(rules(size=Size("qty", 1.0))), found, ((signals(found, enter=[0]),),))
    earned = 0.25 * (series.day >= ex[0]) + 0.75 * (series.day >= ex[1])
    worth = np.rint((series.close - series.open[1] + earned) * UNIT).astype(np.int64)
    assert run.equity[1:].tolist() == (run.cash_micro + worth)[1:].tolist()
