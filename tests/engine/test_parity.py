"""The kernel against its plain twin, in bits, over generated markets; and what must not matter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.engine.events import Simulator, simulate
from farm.market.panel import Market
from farm.market.tape import make_tape
from farm.program.program import Program
from farm.signals.evaluate import Signals
from tests.effort import effort
from tests.engine.support import assert_conserves, assert_equal_runs, assert_same, bits_of, cases
from tests.reference.loop import Reference

Case = tuple[Program, Market, tuple[tuple[Signals, ...], ...]]


@given(cases())
@settings(max_examples=effort(300))
def test_kernel_equals_twin(case: Case) -> None:
    """Every order, fill, cash event, trade and session equity is the same, to the bit."""
    run = simulate(*case)
    assert_same(run, Reference(*case).run())
    assert_conserves(run)


@given(cases(), st.integers(1, 50))
@settings(max_examples=effort(80))
def test_batches_do_not_matter(case: Case, batch_rows: int) -> None:
    """The loop is a fold: where batches end changes nothing."""
    assert_equal_runs(simulate(*case), simulate(*case, batch_rows=batch_rows))


@given(cases(), st.data())
@settings(max_examples=effort(60))
def test_state_is_all_there_is(case: Case, data: st.DataObject) -> None:
    """A copy of the state, taken anywhere, carries on to the same end, and the original is untouched by it."""
    simulator = Simulator(*case)
    end = simulator.tape.instants
    state = simulator.advance(simulator.start(), data.draw(st.integers(0, end - 1)))
    kept = state.copy()
    first = simulator.finish(simulator.advance(state, end))
    assert_equal_runs(first, simulator.finish(simulator.advance(kept, end)))


@given(cases())
@settings(max_examples=effort(40))
def test_records_grow_without_loss(case: Case) -> None:
    """Tables that are too short from the start stop the kernel; it goes on where it stood."""
    simulator = Simulator(*case)
    state = simulator.start()
    short = {name: getattr(state.tables, name)[:1].copy() for name in ("order", "fill", "cash", "trade")}
    state.tables = state.tables._replace(**short)
    simulator.advance(state, simulator.tape.instants)
    assert_equal_runs(simulate(*case), simulator.finish(state))


@given(cases())
@settings(max_examples=effort(60))
def test_books_balance_at_every_instant(case: Case) -> None:
    """Cash and receivables are the sums of their flows at every instant; with the positions they are the equity."""
    program, market, _ = case
    simulator = Simulator(*case)
    state = simulator.start()
    begun = np.stack([simulator.tape.tables.instants[name] for name in ("act_end", "pay_end", "open_end")], axis=1)
    for last in range(1, simulator.tape.instants + 1):
        simulator.advance(state, last)
        fills, cash = state.rows("fill", "fills"), state.rows("cash", "cash_lines")
        amounts = int(fills["amount_micro"].sum()) + int(cash["cash_micro"].sum())
        assert state.cash_micro == program.run.cash_micro + amounts
        assert state.receivable_micro == int(cash["receivable_micro"].sum())
        # Around the clock the next session begins at the instant of the mark, and moves money after it.
        begins = last > 1 and (begun[last - 1] > begun[last - 2]).any()
        if simulator.tape.tables.instants["session"][last - 1] >= 0 and not begins:
            worth = 0
            for asset, lots in zip(state.tables.position["asset"].tolist(), state.lots.tolist(), strict=True):
                series = market.series[simulator.tape.traded[asset]]
                lot = series.lot_micro if program.run.lot == "whole" else 1
                mark = float(state.tables.asset["mark"][asset])
                worth += round(mark * (lots * lot / 1e6) * float(series.multiplier) * 1e6)
            assert state.equity_micro == state.cash_micro + state.receivable_micro + worth


def changed_after(market: Market, day: int, random: np.random.Generator) -> Market:
    """The same market up to ``day``, another one after it."""
    series = []
    for one in market.series:
        late = one.day > day
        scale = np.where(late, random.uniform(0.5, 2.0, one.rows), 1.0)
        series.append(
            dataclasses.replace(
                one,
                open=one.open * scale, high=one.high * scale, low=one.low * scale, close=one.close * scale,
                volume=np.where(late, random.integers(0, 2, one.rows) * 100.0, one.volume),
                split_num=np.where(one.split_day > day, 5, one.split_num),
                dividend_amount=np.where(one.dividend_day > day, 9.0, one.dividend_amount),
            )
        )  # fmt: skip
    return dataclasses.replace(market, series=tuple(series))


@given(cases(), st.data())
@settings(max_examples=effort(100))
def test_the_future_is_not_seen(case: Case, data: st.DataObject) -> None:
    """Other prices, volumes, splits, dividends and signals after a day change nothing decided or done by then."""
    program, market, groups = case
    session = data.draw(st.integers(0, market.calendar.day.shape[0] - 1))
    day = int(market.calendar.day[session])
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def other(one: Signals) -> Signals:
        late = market.series[one.instrument].day > day

        def flip(column: np.ndarray) -> np.ndarray:
            return np.where(late, 1 - column, column).astype(np.uint8)

        return dataclasses.replace(
            one, enter=flip(one.enter), exit=flip(one.exit), enter_short=flip(one.enter_short),
            exit_short=flip(one.exit_short), stop_levels=tuple(np.where(late, 7.0, x) for x in one.stop_levels),
            prefer=None if one.prefer is None else np.where(late, -one.prefer, one.prefer),
            limit=None if one.limit is None else np.where(late, 7.0, one.limit),
            add=None if one.add is None else flip(one.add),
        )  # fmt: skip

    known = simulate(*case)
    changed = simulate(program, changed_after(market, day, random), tuple(tuple(map(other, g)) for g in groups))
    assert known.equity[: session + 1].tolist() == changed.equity[: session + 1].tolist()
    for name in ("fills", "cash_events"):
        left, right = getattr(known, name), getattr(changed, name)
        assert bits_of(left[left["session"] <= session]) == bits_of(right[right["session"] <= session])
    decided = ["ts", "session", "sleeve", "instrument", "kind", "side", "lots", "price", "limit_price"]
    left, right = (run.orders[run.orders["session"] <= session][decided] for run in (known, changed))
    assert left.tolist() == right.tolist()
    left, right = (run.trades[run.trades["exit_session"] <= session] for run in (known, changed))
    assert bits_of(left) == bits_of(right)


@given(cases(), st.data())
@settings(max_examples=effort(60))
def test_a_shorter_run_is_a_prefix(case: Case, data: st.DataObject) -> None:
    """The run to a day is the beginning of the run to the end."""
    program, market, groups = case
    session = data.draw(st.integers(0, market.calendar.day.shape[0] - 1))
    day = int(market.calendar.day[session])
    shorter = dataclasses.replace(market, calendar=market.calendar.slice(market.start_day, day), end_day=day)
    whole, part = simulate(*case), simulate(program, shorter, groups)
    assert whole.equity[: session + 1].tolist() == part.equity.tolist()
    assert bits_of(whole.fills[whole.fills["session"] <= session]) == bits_of(part.fills)
    assert bits_of(whole.cash_events[whole.cash_events["session"] <= session]) == bits_of(part.cash_events)
    assert bits_of(whole.trades[whole.trades["exit_session"] <= session]) == bits_of(part.trades)


@given(cases())
@settings(max_examples=effort(60))
def test_order_of_the_universe_does_not_matter(case: Case) -> None:
    """Permuted universes, and an instrument of the market that nobody trades, change nothing."""
    program, market, groups = case
    turned = tuple(tuple(reversed(group)) for group in groups)
    assert_equal_runs(simulate(*case), simulate(program, market, turned))
    stranger = dataclasses.replace(market.series[0], id="AAAA", symbol="AAAA")
    wider = dataclasses.replace(market, series=(stranger, *market.series))
    moved = tuple(tuple(dataclasses.replace(one, instrument=one.instrument + 1) for one in group) for group in groups)
    assert_equal_runs(simulate(*case), simulate(program, wider, moved))


@given(cases())
@settings(max_examples=effort(40))
def test_a_shared_tape_does_not_matter(case: Case) -> None:
    """A tape that other trials have used gives the same run; a tape of another market is refused."""
    program, market, groups = case
    tape = make_tape(market, {one.instrument for group in groups for one in group})
    simulate(*case, tape=tape)
    assert_equal_runs(simulate(*case), simulate(*case, tape=tape))
    with pytest.raises(ValueError, match="another market"):
        simulate(program, dataclasses.replace(market), groups, tape=tape)
