"""The generator reaches everything: parity of kernel and twin says nothing about what no generated case contains.

Every kind of order, exit, status, cash line and counted incident that exists must occur, and so must the combinations
that have code of their own. What is listed here comes from the definitions: what is added to them is missed at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from farm.engine.events import simulate
from farm.engine.ledger import COUNTS, CashKind, OrderKind, Run, Status
from farm.market.panel import Market
from farm.program.program import Program
from farm.signals.evaluate import Signals
from tests.engine.support import ADDITIONS, ANYTHING, cases

SEEDS, RUNS = range(36), 25
OFTEN = 3
"""So many of these 900 runs at least, so that a test of a few hundred is likely to meet it."""
NEVER_SENT = {OrderKind.OPEN, OrderKind.SPLIT}
NEVER_ENDS = {OrderKind.ENTER, OrderKind.ADD}
NEVER_LEFT = {Status.IN_WORK}

EXPECTED = {
    *(f"order {kind.name}" for kind in set(OrderKind) - NEVER_SENT),
    *(f"trade ends by {kind.name}" for kind in set(OrderKind) - NEVER_ENDS),
    *(f"order is {status.name}" for status in set(Status) - NEVER_LEFT),
    *(f"cash {kind.name}" for kind in CashKind),
    *(f"count {name}" for name in COUNTS),
    *(f"{account} trades {side}" for account, side in product(ANYTHING["account"], ANYTHING["side"])
      if account != "cash" or side == "long"),
    *(f"size {size.mode} in {lot} lots" for size, lot in product(ANYTHING["size"], ("whole", "fractional"))),
    *(f"{side} closed by {stop}" for side, stop in product(("long", "short"), (
        "stop pct", "stop abs", "stop level", "trail pct", "trail abs", "target pct", "target abs", "target level",
        "target r", "time bars"))),
    *(f"{account} is ruined" for account in ("reg_t", "linear")),
    "several are called", "a call of several leaves one", "several share", "scaled and slipped",
    "two sleeves hold one instrument", "a preference chooses", "an instrument rests", "a fee at its least",
    "a reserve", "part of the cash", "a run around the clock", "decided and filled in one instant",
    "sent in a session under way", "an order outlives a session of the run", "its own sessions end an order",
    "a reversal closes alone", "a reversal lapses", "dividends are owed", "dividends are paid late",
    "lots of a hundred shares", "lots below a share", "a multiplier",
    *(f"{kind} at a limit {where}"
      for kind, where in product(("ENTER", "REVERSE", "ADD"), ("at the open", "inside a bar"))),
    *(f"{kind.size.mode} added" for kind in ADDITIONS),
    "an entry waits for days", "a stop in the bar of the limit", "added to twice", "a call takes the place of an order",
    "a split leaves nothing of an addition",
}  # fmt: skip


def reached(program: Program, market: Market, run: Run) -> Iterator[str]:
    """Say what a run contains."""
    orders, fills, trades, cash = run.orders, run.fills, run.trades, run.cash_events
    account, costs, exec_ = program.run.account, program.run.costs, program.run.exec
    yield from (f"order {OrderKind(kind).name}" for kind in orders["kind"])
    yield from (
        f"trade ends by {OrderKind(kind).name}" for kind in (*trades["exit_kind"], *run.open_trades["exit_kind"])
    )
    yield from (f"order is {Status(status).name}" for status in orders["status"])
    yield from (f"cash {CashKind(kind).name}" for kind in cash["kind"])
    yield from (f"count {name}" for name in run.counts)
    opens = np.concatenate([one.open_ts for one in market.series])
    for w, sleeve in enumerate(program.sleeves):
        mine = trades[trades["sleeve"] == w]
        sides = {"both": (1, -1), "long": (1,), "short": (-1,)}[sleeve.side]
        if set(sides) <= set(mine["side"].tolist()):
            yield f"{account} trades {sleeve.side}"
        if (fills["sleeve"] == w).any():
            yield f"size {sleeve.size.mode} in {program.run.lot} lots"
        for type_ in {stop.type for stop in sleeve.stops}:
            units = [stop.unit for stop in sleeve.stops if stop.type == type_]
            for side in mine["side"][mine["exit_kind"] == OrderKind[type_.upper()]].tolist():
                if len(units) == 1:
                    yield f"{'long' if side > 0 else 'short'} closed by {type_} {units[0]}"
        opening = fills[(fills["sleeve"] == w) & (fills["opens"] == 1)]
        by = orders[opening["order"]]
        if sleeve.limit is not None:
            for kind, is_at_open in zip(by["kind"], np.isin(opening["ts"], opens), strict=True):
                yield f"{OrderKind(kind).name} at a limit {'at the open' if is_at_open else 'inside a bar'}"
            stopped = mine["exit_kind"] == OrderKind.STOP
            if (stopped & (mine["entry_ts"] == mine["exit_ts"])).any():
                yield "a stop in the bar of the limit"
        if (opening["session"] > by["session"] + 1).any():
            yield "an entry waits for days"
        added = by["instrument"][by["kind"] == OrderKind.ADD]
        if sleeve.add is not None and added.size:
            yield f"{sleeve.add.size.mode} added"
            for one in mine[mine["lots"] > 0]:
                inside = (opening["ts"] > one["entry_ts"]) & (opening["ts"] < one["exit_ts"])
                if np.count_nonzero(inside & (opening["instrument"] == one["instrument"])) > 1:
                    yield "added to twice"
        if sleeve.prefer is not None and len(sleeve.universe) > sleeve.max_positions and mine.size:
            yield "a preference chooses"
        if sleeve.cooldown_bars and mine.size:
            yield "an instrument rests"
        if sleeve.alloc < 1 and sleeve.size.mode in ("equal", "pct_equity") and mine.size:
            yield "part of the cash"
    if run.ruin:
        yield f"{account} is ruined"
    calls = orders[orders["kind"] == OrderKind.FORCED]
    at_once = Counter(calls["ts"].tolist())
    gone = orders[orders["status"] == Status.CANCELLED]
    if {*gone[["done_ts", "sleeve", "instrument"]].tolist()} & {*calls[["ts", "sleeve", "instrument"]].tolist()}:
        yield "a call takes the place of an order"
    for call in calls:
        own = market.calendars[market.series[market.index[run.instruments[call["instrument"]]]].calendar]
        if ((own.open_ts < call["ts"]) & (call["ts"] < own.close_ts)).any() and call["status"] == Status.FILLED:
            yield "sent in a session under way"
    if at_once and max(at_once.values()) > 1:
        yield "several are called"
    for ts in at_once:
        lots: Counter[tuple[int, int]] = Counter()
        for fill in fills[fills["ts"] < ts]:
            lots[int(fill["sleeve"]), int(fill["instrument"])] += int(fill["lots"])
        if sum(held != 0 for held in lots.values()) > at_once[ts]:
            yield "a call of several leaves one"
    scaled = orders[orders["status"] == Status.SCALED]
    if scaled.size and max(Counter(scaled["done_ts"].tolist()).values()) > 1:
        yield "several share"
    if scaled.size and exec_.slip_bps:
        yield "scaled and slipped"
    if (
        len({*zip(fills["sleeve"].tolist(), fills["instrument"].tolist(), strict=True)})
        > np.unique(fills["instrument"]).size
    ):
        yield "two sleeves hold one instrument"
    if costs.min and (orders["fee_micro"] == round(costs.min * 1e6)).any():
        yield "a fee at its least"
    if exec_.reserve_fees and fills.size:
        yield "a reserve"
    done = orders[fills["order"]]
    if market.calendar.name == "24x7" and fills.size:
        yield "a run around the clock"
        if (fills["ts"] == done["ts"]).any():
            yield "decided and filled in one instant"
    waited = orders[orders["status"] == Status.LAPSED]
    closes = market.calendar.close_ts
    ends = np.searchsorted(closes, waited["done_ts"], side="right") - np.searchsorted(
        closes, waited["ts"], side="right"
    )
    if (ends > 1).any():
        yield "an order outlives a session of the run"
    if (~np.isin(waited["done_ts"], closes)).any():
        yield "its own sessions end an order"
    shares = [*closes, *(ts for one in market.calendars.values() for ts in one.close_ts)]
    lost = waited[(waited["kind"] == OrderKind.ADD) & ~np.isin(waited["done_ts"], shares)]
    over = {*trades[["exit_ts", "sleeve", "instrument"]].tolist()}
    if not over.issuperset(lost[["done_ts", "sleeve", "instrument"]].tolist()):
        yield "a split leaves nothing of an addition"
    reversals = orders["kind"] == OrderKind.REVERSE
    opening = np.isin(np.arange(orders.size), fills["order"][fills["opens"] == 1])
    if (reversals & ~opening & (orders["filled_lots"] > 0)).any():
        yield "a reversal closes alone"
    if (reversals & (orders["status"] == Status.LAPSED)).any():
        yield "a reversal lapses"
    ex = cash[cash["kind"] == CashKind.DIVIDEND_EX]
    if (ex["receivable_micro"] < 0).any():
        yield "dividends are owed"
    paid = cash[cash["kind"] == CashKind.DIVIDEND_PAY]
    if np.setdiff1d(paid["ts"], ex["ts"]).size:
        yield "dividends are paid late"
    for one in market.series:
        if one.id in {run.instruments[n] for n in fills["instrument"].tolist()}:
            if one.lot_micro != 1_000_000 and program.run.lot == "whole":
                yield "lots of a hundred shares" if one.lot_micro > 1_000_000 else "lots below a share"
            if one.multiplier > 1:
                yield "a multiplier"


@pytest.mark.slow
def test_the_generator_reaches_everything() -> None:
    """Whatever a run can contain is in some of the generated ones; nothing that cannot be is there."""
    found: Counter[str] = Counter()

    @settings(max_examples=RUNS, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(cases())
    def look(case: tuple[Program, Market, tuple[tuple[Signals, ...], ...]]) -> None:
        found.update(set(reached(case[0], case[1], simulate(*case))))

    for number in SEEDS:  # one long run of hypothesis would look at much that is alike
        seed(number)(look)()
    assert {name: found[name] for name in EXPECTED if found[name] < OFTEN} == {}
    assert sorted(set(found) - EXPECTED) == []
