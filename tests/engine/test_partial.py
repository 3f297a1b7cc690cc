"""Positions that change in part: what ``book`` does when fewer lots are closed than are held."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from farm.engine.events import Simulator
from farm.kernels import book, loop, orders, records, tables
from farm.program.program import StopRule
from farm.spec.spec import Costs
from tests.engine.support import UNIT, flat, market, program, rules, signals

_COSTS = Costs(0.0, 0.0, 1.0, 0.0)


@njit
def close_some(tape, signals, numbers, state, books, x, lots, price, bar):  # type: ignore[no-untyped-def]
    """Close ``lots`` of position ``x`` at a price, as an order of this instant would."""
    b = books[0]
    loop.open_books(b, tape, signals, numbers, state)
    p = tables.position(b, x)
    row = orders.append_order(b, x, records.EXIT, -p.side, lots, price)
    o = tables.order(b, row)
    o.ref = price
    o.at = price
    book.close_lots(b, x, row, float(lots), records.EXIT, bar)


@pytest.mark.slow
def test_a_part_is_closed_and_the_rest_goes_on() -> None:
    """Average entry, guards and the trade stay; cash, fees and P&L move by the part; the books balance; a close of the
    rest ends the trade with the sum of all."""
    found = market(flat(10, 10, 12, 14, 14))
    sleeve = rules(stops=(StopRule("stop", "pct", 0.5),))
    simulator = Simulator(program(sleeve, costs=_COSTS), found, ((signals(found, enter=[0]),),))
    state = simulator.start()
    simulator.advance(state, 6)  # the third session has closed
    held, trade = state.tables.position[0], state.tables.structure[0]
    assert (int(held["lots"]), float(held["entry_price"])) == (10, 10.0)
    guard, cash = int(trade["guard"]), state.cash_micro
    arrays = (simulator.tape.tables, simulator._signals, simulator._numbers)

    def close(lots: int, price: float) -> None:
        close_some(*arrays, state.tables, np.zeros(1, records.BOOKS), 0, lots, price, 3)

    close(4, 12.0)
    assert (int(held["lots"]), float(held["entry_price"]), int(trade["guard"])) == (6, 10.0, guard)
    assert state.cash_micro == cash + 48 * UNIT - UNIT
    assert (float(trade["pnl"]), float(trade["fees"])) == (-100 * UNIT - UNIT + 48 * UNIT - UNIT, 2 * UNIT)
    assert int(state.tables.account["trades"][0]) == 0
    close(6, 13.0)
    assert (int(held["lots"]), int(trade["guard"])) == (0, records.NONE)
    [ended] = state.rows("trade", "trades")
    assert (int(ended["lots"]), float(ended["exit_price"])) == (10, 13.0)
    assert (int(ended["pnl_micro"]), int(ended["fees_micro"])) == (26 * UNIT - 3 * UNIT, 3 * UNIT)
    run = simulator.finish(simulator.advance(state, simulator.tape.instants))
    assert run.equity_end_micro == 10_000 * UNIT + 23 * UNIT
    assert run.orders["filled_lots"].tolist() == [10, 4, 6]
