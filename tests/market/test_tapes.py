"""Tapes of many instruments at once: each is the tape of a market in which the instrument alone is traded."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.market.actions import LATE, actions_of_series
from farm.market.panel import Panel
from farm.market.tape import make_tape
from farm.market.tapes import make_tapes
from farm.values.arrays import readonly
from farm.values.errors import DataError
from farm.values.units import NS_PER_DAY
from tests.effort import effort
from tests.market.test_panel import drawn, load
from tests.market.worlds import DAYS, FIRST, World
from tests.reference import actions as reference


def panel_of(seed: int) -> Panel | None:
    """A panel drawn from the seed; None where a split is so large that a dividend eats the price."""
    world = World(seed)
    try:
        return load(world.dataset, *drawn(world))
    except DataError:
        return None


@settings(max_examples=effort(150))
@given(st.integers(0, 2**32))
def test_each_is_the_tape_of_its_instrument_alone(seed: int) -> None:
    """The same tables, windows and calendars, to the bit, of any instruments of a panel."""
    panel = panel_of(seed)
    if panel is None:
        return
    count = len(panel.instruments)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.8)
    tapes = make_tapes(panel, chosen)
    assert len(tapes) == chosen.size
    for at, position in enumerate(chosen.tolist()):
        market = panel.market({position, (position + 1) % count})
        index = market.index[panel.instruments[position].id]
        mine, alone = tapes.tape(at, market), make_tape(market, (index,))
        for name, left, right in zip(alone.tables._fields, mine.tables, alone.tables, strict=True):
            assert (left.dtype, left.tobytes()) == (right.dtype, right.tobytes()), name
            assert not left.flags.writeable
        assert (mine.bars_of.tolist(), mine.asset_end.tolist()) == (alone.bars_of.tolist(), alone.asset_end.tolist())
        for name in ("market", "traded", "windows", "dividends", "calendars", "has_range", "instants"):
            assert getattr(mine, name) == getattr(alone, name), name


@settings(max_examples=effort(150))
@given(st.integers(0, 2**32))
def test_what_acts_when(seed: int) -> None:
    """Splits, ex-dates and pay dates of a market in the order of the rules, those after the run behind."""
    panel = panel_of(seed)
    if panel is None:
        return
    market = panel.market()
    found = actions_of_series(market, market.series)
    act_ts, actions, pay_ts, payments = reference.acting(market, market.series)
    assert (found.act_ts.tolist(), found.actions.tolist()) == (act_ts, actions)
    assert found.pay_ts.tolist() == pay_ts + [LATE] * (len(payments) - len(pay_ts))
    assert found.payments.tolist() == payments
    assert (found.actions["asset"] == found.act_owner).all() and (found.payments["asset"] == found.pay_owner).all()


def test_the_first_instrument_with_unusable_bars_is_named() -> None:
    for seed in itertools.count():
        world = World(seed)
        plan = world.dataset.read_plan(dict.fromkeys(world.names, FIRST), FIRST + DAYS, ())
        panel = load(world.dataset, plan, FIRST)
        if len(panel.instruments) > 2 and np.diff(panel.start).min() > 10:
            break
    second, third = int(panel.start[1]), int(panel.start[2])

    def spoilt(name: str, row: int, value: float) -> Panel:
        column = getattr(panel, name).copy()
        column[row] = value
        return dataclasses.replace(panel, **{name: readonly(column)})

    late = int(panel.close_ts[second + 1] + 9 * NS_PER_DAY)
    for wrong, row in ((spoilt("close_ts", second + 1, late), second), (spoilt("open_ts", second + 1, late), second),
                       *((spoilt(name, third + 2, price), third) for name in ("open", "close")
                         for price in (0.0, -1.0, np.nan, np.inf))):  # fmt: skip
        at = 1 if row == second else 2
        with pytest.raises(DataError) as expected:
            make_tape(wrong.market(), (at,))
        with pytest.raises(DataError) as caught:
            make_tapes(wrong)
        assert str(caught.value) == str(expected.value)
        assert panel.instruments[at].id in caught.value.place
        make_tapes(wrong, [0])
