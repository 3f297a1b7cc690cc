"""The phases of one instant, run by the kernel (domain.md 3.1): each stands where another order would give other books.

Around the clock the bar that closes, its decisions, and the splits, dividends and openings of the next session all
happen at one instant; in exchange sessions they are two. The books are the same, written down here by hand. Changing
places with its neighbour makes each step of ``kernels/loop.py`` fail here, but for one pair: orders lapse and positions
are marked in either order, because neither looks at the other.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from farm.engine.events import simulate
from farm.engine.ledger import CashKind, OrderKind, Run, Status
from farm.market.panel import Market
from farm.program.program import Size, StopRule
from farm.shard.calendar import Calendar
from farm.values.arrays import readonly
from farm.values.units import NS_PER_DAY
from tests.engine.support import UNIT, bars, days, flat, market, program, rules, signals

DAYS = days(4)
ENTER, EXIT, FORCED, STOP, RUINED = (
    int(kind)
    for kind in (OrderKind.ENTER, OrderKind.EXIT, OrderKind.FORCED, OrderKind.STOP, OrderKind.RUINED)
)  # fmt: skip
FILLED, LAPSED, IN_WORK = int(Status.FILLED), int(Status.LAPSED), int(Status.IN_WORK)


def around_the_clock(found: Market) -> Market:
    """The same bars where each day ends when the next begins."""
    opens = readonly(DAYS.astype(np.int64) * NS_PER_DAY)
    calendar = Calendar("24x7", readonly(DAYS.copy()), opens, readonly(opens + NS_PER_DAY))
    series = tuple(
        dataclasses.replace(one, calendar="24x7", open_ts=calendar.open_ts, close_ts=calendar.close_ts)
        for one in found.series
    )
    return dataclasses.replace(found, calendar=calendar, calendars={"24x7": calendar}, series=series)


def columns(records: Any, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(records[name].tolist() for name in names), strict=True))


def money(*amounts: float) -> list[int]:
    return [int(amount * UNIT) for amount in amounts]


@pytest.fixture(params=["exchange sessions", "around the clock"])
def is_one_instant(request: pytest.FixtureRequest) -> bool:
    return request.param == "around the clock"


def test_a_stop_a_decision_a_split_a_dividend_and_an_opening(is_one_instant: bool) -> None:
    """All between the close of the second bar and the print after it.

    AAPL: its stop at 90 is met by the bar's low, before the split halves the level and doubles the lots. IBM: marked at
    220, then split, and 20 new shares earn 10 each, paid at once. MSFT: 80 % of the equity that both left, 10,100, is
    808 lots, and the 8,080 for them are there because of the dividend.
    """
    ex_day = int(DAYS[2])
    found = market(
        bars((100, 100, 100, 100), (100, 100, 80, 95), (48, 48, 48, 48), (48, 48, 48, 48), splits={ex_day: (2, 1)}),
        bars((200, 200, 200, 200), (200, 220, 200, 220), (110, 110, 110, 110), (110, 110, 110, 110), symbol="IBM",
             splits={ex_day: (2, 1)}, dividends={ex_day: 10.0}),
        flat(10, 10, 10, 10, symbol="MSFT"),
    )  # fmt: skip
    found = around_the_clock(found) if is_one_instant else found
    sleeves = (
        rules(id="a", stops=(StopRule("stop", "abs", 10.0),)),
        rules(id="i", universe=("IBM",)),
        rules(id="m", universe=("MSFT",), size=Size("pct_equity", 0.8)),
    )
    said = ((signals(found, 0, enter=[0]),), (signals(found, 1, enter=[0]),), (signals(found, 2, enter=[1]),))
    run = simulate(program(*sleeves), found, said)

    assert columns(run.orders, "session", "instrument", "kind", "lots", "status") == [
        (0, 0, ENTER, 10, FILLED), (0, 1, ENTER, 10, FILLED), (1, 0, STOP, 10, FILLED), (1, 2, ENTER, 808, FILLED),
    ]  # fmt: skip
    assert columns(run.fills, "session", "instrument", "lots", "price") == [
        (1, 0, 10, 100.0), (1, 1, 10, 200.0), (1, 0, -10, 90.0), (2, 2, 808, 10.0),
    ]  # fmt: skip
    assert columns(run.cash_events, "session", "kind", "cash_micro", "receivable_micro") == [
        (2, CashKind.DIVIDEND_EX, 0, 200 * UNIT), (2, CashKind.DIVIDEND_PAY, 200 * UNIT, -200 * UNIT),
    ]  # fmt: skip
    assert run.equity.tolist() == money(10_000, 10_100, 10_300, 10_300)
    assert run.position.tolist() == money(0, 2_200, 10_280, 10_280)
    assert run.decision_bars.tolist() == [1, 1, 1, 1]
    assert run.market_bars.tolist() == [0, 1, 1, 1]
    close, opening = int(found.calendar.close_ts[1]), int(found.calendar.open_ts[2])
    assert (close == opening) == is_one_instant
    assert run.orders["ts"].tolist()[2:] == [close, close]
    assert run.cash_events["ts"].tolist() == [opening, opening]
    assert run.fills["ts"].tolist()[2:] == [close, opening]


def levered(*closes: float, is_one_instant: bool, **said: Any) -> Run:
    """18 shares of AAPL at 100 with 1,000 of cash, on margin; the third bar has no volume: its open fills nothing."""
    found = market(flat(*closes, volume=(1_000, 1_000, 0, 1_000)))
    found = around_the_clock(found) if is_one_instant else found
    sleeve = rules(size=Size("qty", 18.0))
    chosen = program(sleeve, account="reg_t", cash_micro=1_000 * UNIT)
    return simulate(chosen, found, ((signals(found, enter=[0], **said),),))


def test_an_order_that_lapses_a_margin_call_and_a_decision(is_one_instant: bool) -> None:
    """At the third close: the exit of the day before lapses, so the position is free to be called; equity is 100 where
    225 are needed; and what is called takes no second order from the exit that is true again."""
    run = levered(100, 100, 50, 50, is_one_instant=is_one_instant, exit=[1, 2])
    assert run.equity.tolist() == money(1_000, 1_000, 100, 100)
    assert columns(run.orders, "session", "kind", "lots", "status") == [
        (0, ENTER, 18, FILLED), (1, EXIT, 18, LAPSED), (2, FORCED, 18, FILLED),
    ]  # fmt: skip
    assert columns(run.fills, "session", "lots", "price") == [(1, 18, 100.0), (3, -18, 50.0)]
    assert run.counts["margin_call"] == 1


def test_an_order_that_lapses_leaves_the_decision_free(is_one_instant: bool) -> None:
    """No call: the exit that lapsed is sent again at the same close."""
    run = levered(100, 100, 100, 100, is_one_instant=is_one_instant, exit=[1, 2])
    assert columns(run.orders, "session", "kind", "status") == [
        (0, ENTER, FILLED),
        (1, EXIT, LAPSED),
        (2, EXIT, FILLED),
    ]


def test_ruin_and_a_decision(is_one_instant: bool) -> None:
    """At the third close equity is -80: the account is closed at that mark, and nobody decides, or earns, any more."""
    run = levered(100, 100, 40, 90, is_one_instant=is_one_instant, exit=[2])
    assert run.ruin
    assert columns(run.orders, "session", "kind", "status") == [(0, ENTER, FILLED), (2, RUINED, FILLED)]
    assert columns(run.fills, "session", "lots", "price") == [(1, 18, 100.0), (2, -18, 40.0)]
    assert run.equity.tolist() == money(1_000, 1_000, -80, -80)
