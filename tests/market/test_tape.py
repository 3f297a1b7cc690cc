"""The tape: which event stands before which (domain.md 3.1), and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from farm.engine.events import Simulator, simulate
from farm.market.panel import Market
from farm.market.tape import CALENDARS_MAX, Tape, make_tape
from farm.shard.calendar import Calendar
from farm.values.arrays import readonly
from farm.values.errors import CapacityError, DataError
from farm.values.units import NS_PER_DAY, NS_PER_HOUR
from tests.engine.support import (
    START,
    UNIT,
    assert_conserves,
    days,
    flat,
    market,
    on_own_sessions,
    program,
    rules,
    signals,
    without,
)


def events(tape: Tape) -> list[tuple[int, str, int]]:
    """(instant, phase, asset) of every event, in the order of the tape."""
    found, done = [], [0, 0, 0, 0]
    tables = (("act", tape.tables.actions), ("bar", tape.tables.bars), ("pay", tape.tables.payments),
              ("open", tape.tables.openings))  # fmt: skip
    for row in tape.tables.instants:
        for n, (name, table) in enumerate(tables):
            if name == "open" and row["session"] >= 0:
                found.append((int(row["ts"]), "close", int(row["session"])))
            end = f"{name}_end"
            found += [(int(row["ts"]), name, int(asset)) for asset in table["asset"][done[n] : row[end]]]
            done[n] = int(row[end])
    return found


def test_phases_stand_in_the_written_order() -> None:
    """Split, then ex-date, at the session open before its prints; the bar, then the session close, at the close."""
    day = days(3)
    one = flat(10, 5, 5, splits={int(day[1]): (2, 1)}, dividends={int(day[1]): 0.5})
    found = market(one, flat(7, 7, 7, symbol="IBM"))
    opens, closes = found.calendar.open_ts.tolist(), found.calendar.close_ts.tolist()
    assert events(make_tape(found)) == [
        (opens[0], "open", 0), (opens[0], "open", 1), (closes[0], "bar", 0), (closes[0], "bar", 1),
        (closes[0], "close", 0),
        (opens[1], "act", 0), (opens[1], "act", 0), (opens[1], "pay", 0), (opens[1], "open", 0), (opens[1], "open", 1),
        (closes[1], "bar", 0), (closes[1], "bar", 1), (closes[1], "close", 1),
        (opens[2], "open", 0), (opens[2], "open", 1), (closes[2], "bar", 0), (closes[2], "bar", 1),
        (closes[2], "close", 2),
    ]  # fmt: skip
    assert (make_tape(found).tables.actions["dividend"] >= 0).tolist() == [False, True]


def test_what_is_dated_on_a_holiday_acts_at_the_next_open() -> None:
    """A Saturday ex-date and pay date act on Monday; a pay date before the ex-date does not come true early."""
    day = days(6)
    series = flat(10, 10, 10, 10, 10, 10, dividends={START + 4: 1.0})  # START is a Tuesday
    found = market(dataclasses.replace(series, dividend_pay_day=np.array([START - 30], np.int32)))
    monday = int(np.searchsorted(day, START + 4))
    acts = [(ts, name) for ts, name, _ in events(make_tape(found)) if name in ("act", "pay")]
    assert acts == [(int(found.calendar.open_ts[monday]), "act"), (int(found.calendar.open_ts[monday]), "pay")]


def test_a_bar_is_stamped_with_its_own_close() -> None:
    """On an early close the day's decision comes at the early instant, not at the usual one and not at midnight."""
    series = flat(10, 10, 10)
    early = series.close_ts.copy()
    early[1] -= 3 * NS_PER_HOUR
    found = market(dataclasses.replace(series, close_ts=readonly(early)))
    calendar = Calendar("XNYS", found.calendar.day, found.calendar.open_ts, readonly(early))
    found = dataclasses.replace(found, calendar=calendar)
    run = simulate(program(), found, ((signals(found, enter=[1]),),))
    assert run.orders["ts"].tolist() == [int(early[1])]


def test_contiguous_bars_fill_at_the_instant_of_the_decision() -> None:
    """Around the clock one bar closes when the next opens: the decision never saw that print, and fills at it."""
    day = np.arange(START, START + 4, dtype=np.int32)
    opens = day.astype(np.int64) * NS_PER_DAY
    calendar = Calendar("24x7", readonly(day), readonly(opens), readonly(opens + NS_PER_DAY))
    series = dataclasses.replace(
        flat(10, 20, 30, 40), calendar="24x7", day=readonly(day), open_ts=calendar.open_ts, close_ts=calendar.close_ts
    )
    found = Market(calendar, {"24x7": calendar}, (series,), {"AAPL": 0}, START, START + 3, "", True, True)
    run = simulate(program(), found, ((signals(found, enter=[0]),),))
    assert run.fills["ts"].tolist() == run.orders["ts"].tolist() == [int(calendar.close_ts[0])]
    assert run.fills["price"].tolist() == [20.0]
    assert run.fills["session"].tolist() == [1]


def test_history_before_the_start_is_not_traded_on() -> None:
    """Bars before the run's first day belong to indicators; signals there order nothing."""
    found = market(flat(10, 11, 12, 13))
    later = int(days(4)[2])
    short = dataclasses.replace(found, calendar=found.calendar.slice(later, found.end_day), start_day=later)
    run = simulate(program(), short, ((signals(short, enter=[0, 1, 2]),),))
    assert run.fills["price"].tolist() == [13.0]
    assert run.decision_bars.tolist() == [1, 1]


def test_an_opening_counts_whose_bar_closes_after_the_run() -> None:
    """An exchange that opens and closes two hours after that of the run: the last opening fills, and is marked at the
    last close; one at the very end belongs to the next session, and fills nothing."""
    found = on_own_sessions(market(flat(10, 11, 12)), 0, days(3), hours=2)
    run = simulate(program(), found, ((signals(found, enter=[1]),),))
    assert (run.fills["price"].tolist(), run.equity.tolist()) == ([12.0], [x * UNIT for x in (10_000, 10_000, 9_990)])
    assert (run.open_trades["bars"].tolist(), run.open_trades["exit_price"].tolist()) == ([1], [11.0])
    assert_conserves(run)
    late = on_own_sessions(market(flat(10, 11, 12)), 0, days(3), hours=6.5)
    assert simulate(program(), late, ((signals(late, enter=[1]),),)).counts == {"lapsed": 1}


def test_every_session_is_sampled_with_or_without_a_bar() -> None:
    """Sessions without a bar carry the equity on; they are no decision bars."""
    found = market(without(flat(10, 10, 20, 30, 40), 2, 3), sessions=6)
    run = simulate(program(), found, ((signals(found, enter=[0]),),))
    assert run.equity.tolist() == [x * UNIT for x in (10_000, 10_000, 10_000, 10_000, 10_300, 10_300)]
    assert run.decision_bars.tolist() == [1, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 1_000])
def test_cuts_hold_whole_instants(rows: int) -> None:
    """Batches end at instants, rise strictly, hold at most so many bars unless one instant has more, and cover all."""
    tape = make_tape(market(flat(*range(1, 9)), flat(*range(1, 9), symbol="IBM")))
    cuts = list(tape.cuts(rows))
    assert cuts[-1] == tape.instants
    counts = np.diff(np.concatenate(([0], tape.tables.instants["bar_end"][np.array(cuts) - 1])))
    assert (np.diff([0, *cuts]) > 0).all()
    assert (counts <= max(rows, 2)).all()


class TestRefused:
    def test_missing_columns(self) -> None:
        series = dataclasses.replace(flat(1, 1), volume=np.empty(0))
        with pytest.raises(DataError, match="AAPL: column volume was not loaded"):
            make_tape(market(series))

    def test_overlapping_bars(self) -> None:
        series = flat(1, 1, 1)
        late = series.close_ts.copy()
        late[0] += 2 * NS_PER_DAY
        with pytest.raises(DataError, match="2000-01-04: bars overlap"):
            make_tape(market(dataclasses.replace(series, close_ts=late)))

    @pytest.mark.parametrize("price", [0.0, -1.0, np.nan, np.inf])
    def test_prices_that_are_none(self, price: float) -> None:
        series = dataclasses.replace(flat(1, 1, 1), close=np.array([1.0, price, 1.0]))
        with pytest.raises(DataError, match="close is not a positive price"):
            make_tape(market(series))

    def test_more_calendars_than_bits(self) -> None:
        found = market(*(flat(1, 1, symbol=f"A{n}") for n in range(CALENDARS_MAX)))
        for n in range(CALENDARS_MAX):
            found = on_own_sessions(found, n, days(2))
            if n < CALENDARS_MAX - 1:
                assert len(make_tape(found).calendars) == n + 2
        with pytest.raises(CapacityError, match="63 calendars in one run"):
            make_tape(found)

    def test_signals_of_another_length(self) -> None:
        found = market(flat(1, 1, 1))
        one = dataclasses.replace(signals(found, enter=[0]), enter=np.zeros(2, np.uint8))
        with pytest.raises(ValueError, match="not over all its bars"):
            simulate(program(), found, ((one,),))

    def test_books_of_a_run_that_has_not_ended(self) -> None:
        found = market(flat(1, 1, 1))
        simulator = Simulator(program(rules()), found, ((signals(found),),))
        with pytest.raises(ValueError, match="stands at instant 2 of 6"):
            simulator.finish(simulator.advance(simulator.start(), 2))
