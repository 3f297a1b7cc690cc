"""What sleeves of rules order: exits and reversals of what they hold, then entries; and forced closes. No money moves.

Signals are one byte for each sleeve and closing bar, numbers (preference, stop levels) one float64. Decisions see the
bars that close at the instant at hand, and equity and prices as marked by them. Source: domain.md 2.2, 3.6.
"""

import numpy as np

from farm.kernels import formula, tables
from farm.kernels.book import value_of
from farm.kernels.jit import helper, inlined
from farm.kernels.orders import bound, cancel, send, waits_for_limit
from farm.kernels.records import (
    ADD,
    ADD_MORE,
    BY_EQUITY,
    BY_NOTIONAL,
    BY_QTY,
    ENTER,
    ENTER_LONG,
    ENTER_SHORT,
    EXIT,
    EXIT_LONG,
    EXIT_SHORT,
    FORCED,
    LEVEL,
    LIMIT,
    NONE,
    PREFER,
    REVERSE,
    TIME,
    Row,
)


@inlined
def said_by(b: Row, w: int, first: int, last: int) -> int:
    """All that the bars [first, last) say to a sleeve, bit by bit."""
    said = 0
    for k in range(first, last):
        said |= tables.said(b, w, k)
    return said


@helper
def decide(b: Row, first: int, last: int, w: int, said: int) -> None:
    """Let sleeve ``w`` decide on the bars [first, last), which close now and say ``said``."""
    if tables.sleeve(b, w).held > 0:
        _leave(b, first, last, w)
        if said & ADD_MORE != 0:
            _add(b, first, last, w)
    if said & (ENTER_LONG | ENTER_SHORT) != 0:
        n = _candidates(b, first, last, w)
        if n > 0:
            _enter(b, w, n)


@inlined
def _position_of(b: Row, asset: Row, w: int) -> int:
    """The position of sleeve ``w`` in an asset, or -1 if it does not trade it."""
    for at in range(asset.first_position, asset.end_position):
        if tables.structure_of(b, tables.of_asset(b, at).row).sleeve == w:
            return tables.of_asset(b, at).row
    return NONE


@inlined
def _are_known(b: Row, rules: Row, w: int, k: int) -> bool:
    """Whether the prices of an entry at bar ``k`` are known: a position without its stop is never opened, and a limit
    of 0 would be none."""
    if rules.limit != 0 and not formula.on_grid(tables.number(b, w, rules.limit, k)) > 0.0:
        tables.tally(b).limit_unknown += 1
        return False
    for s in range(rules.first_stop, rules.end_stop):
        if tables.stop_rule(b, s).unit == LEVEL and np.isnan(tables.number(b, w, tables.stop_rule(b, s).number, k)):
            tables.tally(b).level_unknown += 1
            return False
    return True


@helper
def _size(b: Row, size: int, weight: float, among: float, qty_lots: int, asset: Row, held: int) -> int:
    """Lots to open, from equity and prices as they are now, floored; ``held``: lots that the same order closes."""
    account = tables.account(b)
    kept = account.kept * (account.equity / 1e6)
    lots = float(qty_lots)
    if size != BY_QTY:
        budget = weight if size == BY_NOTIONAL else (weight * kept) / among
        lots = formula.lots_for(budget, asset.mark, asset.multiplier, asset.lots_up, asset.lots_down)
    bound(account, lots)
    if not lots < LIMIT:
        lots = 0.0
    if size == BY_EQUITY and account.reserves_fees == 1:
        lots = formula.lots_with_fees(
            lots, float(held), weight, kept, among, asset.mark, asset.lot_micro, asset.multiplier,
            asset.bps, asset.per_share, asset.per_order, asset.fee_min,
        )  # fmt: skip
    tables.tally(b).too_small += 1 if lots == 0.0 else 0
    return int(lots)


@helper
def _leave(b: Row, first: int, last: int, w: int) -> None:
    """Exits and reversals of one sleeve, in id order. An opposite entry reverses; a plain exit wins over a same-side
    entry; under a cooldown a reversal can only close."""
    rules = tables.sleeve(b, w)
    for k in range(first, last):
        said = tables.said(b, w, k)
        if said == 0 and rules.time_bars == 0:
            continue
        asset = tables.asset(b, tables.bar(b, k).asset)
        x = _position_of(b, asset, w)
        if x == NONE or tables.position(b, x).lots == 0:
            continue
        p = tables.position(b, x)
        s = tables.structure_of(b, x)
        waits = waits_for_limit(b, s.order)
        if s.order != NONE and not waits:
            continue
        against = said & (ENTER_SHORT if p.lots > 0 else ENTER_LONG) != 0
        if said & ENTER_SHORT != 0 and said & ENTER_LONG != 0:
            tables.tally(b).entry_conflict += 1
            against = False
        lots = abs(p.lots)
        opens = 0
        against = against and not waits  # while an entry works, further ones are ignored
        if against and rules.cooldown == 0 and _are_known(b, rules, w, k):
            opens = _size(b, rules.size, rules.weight, rules.among, p.qty_lots, asset, lots)
        kind = 0
        if opens > 0:
            kind = REVERSE
        elif against or said & (EXIT_LONG if p.lots > 0 else EXIT_SHORT) != 0:
            kind = EXIT
        elif rules.time_bars > 0 and asset.row - s.entry_row + 1 >= rules.time_bars:
            kind = TIME
        if kind != 0:
            if waits:
                cancel(b, s.order)
            send(b, x, kind, -p.side, opens, lots)


@helper
def _add(b: Row, first: int, last: int, w: int) -> None:
    """Additions to what one sleeve holds, in id order: not to what an order works on."""
    rules = tables.sleeve(b, w)
    for k in range(first, last):
        if tables.said(b, w, k) & ADD_MORE == 0:
            continue
        asset = tables.asset(b, tables.bar(b, k).asset)
        x = _position_of(b, asset, w)
        if x == NONE:
            continue
        p = tables.position(b, x)
        s = tables.structure_of(b, x)
        if p.lots == 0 or s.order != NONE or s.adds >= rules.add_max or not _are_known(b, rules, w, k):
            continue
        lots = _size(b, rules.add_size, rules.add_weight, rules.add_among, p.add_lots, asset, 0)
        if lots > 0:
            send(b, x, ADD, p.side, lots, 0)


@helper
def _candidates(b: Row, first: int, last: int, w: int) -> int:
    """Queue the positions of one sleeve that want to open now, in id order; return how many."""
    rules, tally = tables.sleeve(b, w), tables.tally(b)
    n = 0
    for k in range(first, last):
        enters = tables.said(b, w, k) & (ENTER_LONG | ENTER_SHORT)
        if enters == 0:
            continue
        asset = tables.asset(b, tables.bar(b, k).asset)
        x = _position_of(b, asset, w)
        if x == NONE:
            continue
        p = tables.position(b, x)
        s = tables.structure_of(b, x)
        if p.lots != 0 or s.order != NONE or asset.row - s.exit_row < rules.cooldown:
            continue
        if enters == ENTER_LONG | ENTER_SHORT:
            tally.entry_conflict += 1
        elif rules.prefers == 1 and np.isnan(tables.number(b, w, PREFER, k)):
            tally.prefer_unknown += 1
        elif _are_known(b, rules, w, k):
            tables.queue(b, n).row = x
            n += 1
    return n


@helper
def _enter(b: Row, w: int, n: int) -> None:
    """Order the candidates in the queue, or as many of the best as there is room for; ties go to the lower id."""
    rules = tables.sleeve(b, w)
    places = rules.max_positions - rules.entering - (rules.held - rules.leaving)
    for at in range(n):
        tables.structure_of(b, tables.queue(b, at).row).ranked = 0.0
    for _ in range(min(places, n)):
        best = NONE
        highest = 0.0
        for at in range(n):
            x = tables.queue(b, at).row
            p = tables.position(b, x)
            value = tables.number(b, w, PREFER, tables.asset(b, p.asset).bar) if rules.prefers == 1 else 0.0
            if tables.structure_of(b, x).ranked == 0.0 and (best == NONE or value > highest):
                best = x
                highest = value
        tables.structure_of(b, best).ranked = 1.0
    for at in range(n):
        x = tables.queue(b, at).row
        p = tables.position(b, x)
        if tables.structure_of(b, x).ranked == 1.0:
            lots = _size(b, rules.size, rules.weight, rules.among, p.qty_lots, tables.asset(b, p.asset), 0)
            if lots > 0:
                is_long = tables.said(b, w, tables.asset(b, p.asset).bar) & ENTER_LONG != 0
                send(b, x, ENTER, 1 if is_long else -1, lots, 0)


@helper
def check_margin(b: Row) -> None:
    """Reg T at a session close: below the maintenance requirement the largest one is closed first, then the lower id,
    at the next open, until equity covers what remains. Positions that a market order works on are left to it."""
    account = tables.account(b)
    total = 0.0
    for at in range(account.held):
        p = tables.position(b, tables.held(b, at).row)
        s = tables.structure_of(b, tables.held(b, at).row)
        s.ranked = 0.0
        if s.order == NONE or waits_for_limit(b, s.order):
            asset = tables.asset(b, p.asset)
            s.ranked = formula.maintenance(value_of(asset, asset.mark, float(p.lots)))
            total += s.ranked
    if account.equity >= total:
        return
    tables.tally(b).margin_call += 1
    while account.equity < total:
        worst = tables.held(b, 0).row
        for at in range(1, account.held):
            x = tables.held(b, at).row
            asset, other = tables.position(b, x).asset, tables.position(b, worst).asset
            needs, most = tables.structure_of(b, x).ranked, tables.structure_of(b, worst).ranked
            if needs > most or (needs == most and (asset < other or (asset == other and x < worst))):
                worst = x
        p = tables.position(b, worst)
        s = tables.structure_of(b, worst)
        total -= s.ranked
        s.ranked = 0.0
        if s.order != NONE:
            cancel(b, s.order)
        send(b, worst, FORCED, -p.side, 0, abs(p.lots))
