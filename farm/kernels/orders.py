"""Orders as things: appended, linked to the asset that they wait on, and taken off again. No money moves here.

An order is *sent* (it has a number, and the ledger lists it) or it *guards* (it waits behind a position, and is sent
when its price is met). What works on an asset hangs on it as a chain, so a bar costs what is working on it: sent orders
one by one, guards as groups, of which the first one is in the chain and the others stand behind it in the table.
"""

import numpy as np

from farm.kernels import tables
from farm.kernels.formula import compounded, on_grid, restated_level, restated_lots, restated_price
from farm.kernels.jit import helper, inlined
from farm.kernels.records import (
    ADD,
    CANCELLED,
    ENTER,
    IN_WORK,
    LAPSED,
    LEVEL,
    LIMIT,
    NONE,
    PCT,
    REVERSE,
    TRAIL,
    Row,
)


@inlined
def bound(account: Row, x: float) -> None:
    """Break the run once an amount of money or a number of lots reaches 2**53."""
    if not abs(x) < LIMIT:
        account.broken = 1


@helper
def append_order(b: Row, x: int, kind: int, side: int, lots: int, price: float) -> int:
    """Append a sent order for position ``x`` and return its row. ``price``: the one that it was decided at."""
    account, p = tables.account(b), tables.position(b, x)
    row = account.orders
    o = tables.order(b, row)
    o.ts = account.ts
    o.session = account.session
    o.sleeve = tables.structure_of(b, x).sleeve
    o.instrument = p.asset
    o.kind = kind
    o.side = side
    o.lots = lots
    o.filled_lots = 0
    o.status = IN_WORK
    o.done_ts = 0
    o.fee_micro = 0
    o.price = price
    o.number = account.sent
    o.limit_price = 0.0
    o.works_as = kind
    o.position = x
    o.next = NONE
    o.working_at = NONE
    o.guards = 0
    o.sessions = 0
    o.lasts = account.ttl
    o.limit = 0.0
    o.opens = 0
    o.split = tables.asset(b, p.asset).split
    o.unit = PCT
    o.frozen = 0.0
    o.level = np.nan
    o.peak = np.nan
    o.peak_print = np.nan
    o.peak_split = NONE
    o.ref = np.nan
    o.at = np.nan
    o.fit = 0
    o.closed = 0
    o.held_fee = 0.0
    account.orders = row + 1
    account.sent += 1
    return row


@helper
def append_guards(b: Row, row: int) -> None:
    """Append the guards of the entry ``row``, one for each stop of its sleeve, with levels that are frozen now.

    They rest until the entry is filled.
    """
    account, entry = tables.account(b), tables.order(b, row)
    rules = tables.sleeve(b, entry.sleeve)
    for s in range(rules.first_stop, rules.end_stop):
        rule = tables.stop_rule(b, s)
        guard = account.orders
        append_order(b, entry.position, rule.kind, -entry.side, 0, np.nan)
        account.sent -= 1
        o = tables.order(b, guard)
        o.number = NONE
        o.unit = rule.unit
        o.frozen = rule.value
        if rule.unit == LEVEL:
            o.frozen = on_grid(tables.number(b, entry.sleeve, rule.number, tables.asset(b, entry.instrument).bar))
        entry.guards += 1


@helper
def link(b: Row, row: int) -> None:
    """Hang an order, or the first of a group, on its asset."""
    o = tables.order(b, row)
    asset = tables.asset(b, o.instrument)
    o.next = asset.first_order
    asset.first_order = row


@helper
def unlink(b: Row, row: int) -> None:
    """Take an order, or the first of a group, off its asset."""
    o = tables.order(b, row)
    asset = tables.asset(b, o.instrument)
    if asset.first_order == row:
        asset.first_order = o.next
        return
    before = asset.first_order
    while tables.order(b, before).next != row:
        before = tables.order(b, before).next
    tables.order(b, before).next = o.next


@helper
def opens_lots(kind: int) -> bool:
    """Whether an order of this kind opens lots (a reversal closes a position and opens another)."""
    return kind in (ENTER, REVERSE, ADD)


@helper
def send(b: Row, x: int, kind: int, side: int, opens: int, closes: int) -> int:
    """Admit an order: it works from now on, closes ``closes`` lots and opens ``opens``; return its row."""
    account, p = tables.account(b), tables.position(b, x)
    s = tables.structure_of(b, x)
    row = append_order(b, x, kind, side, opens + closes, tables.asset(b, p.asset).mark)
    o = tables.order(b, row)
    o.opens = opens
    if opens_lots(kind):
        rules = tables.sleeve(b, s.sleeve)
        o.lasts = rules.ttl
        if rules.limit != 0:
            o.limit = on_grid(tables.number(b, s.sleeve, rules.limit, tables.asset(b, p.asset).bar))
            o.limit_price = o.limit
        append_guards(b, row)
    s.order = row
    o.working_at = account.working
    tables.working(b, account.working).row = row
    account.working += 1
    under_way = tables.instant(b, account.next).under_way >> tables.asset(b, p.asset).calendar
    o.sessions = -(under_way & 1)
    _count_in(tables.sleeve(b, s.sleeve), kind, 1)
    link(b, row)
    return row


@helper
def _count_in(rules: Row, kind: int, change: int) -> None:
    if kind == ENTER:
        rules.entering += change
    elif kind not in (REVERSE, ADD):
        rules.leaving += change


@helper
def drop(b: Row, row: int) -> None:
    """Take a sent order out of work, whatever became of it."""
    account, o = tables.account(b), tables.order(b, row)
    unlink(b, row)
    tables.structure_of(b, o.position).order = NONE
    _count_in(tables.sleeve(b, o.sleeve), o.works_as, -1)
    account.working -= 1
    last = tables.working(b, account.working).row
    tables.working(b, o.working_at).row = last
    tables.order(b, last).working_at = o.working_at
    o.working_at = NONE


@helper
def settle(b: Row, row: int, status: int, lots: float) -> None:
    """Write how an order ended."""
    o = tables.order(b, row)
    o.filled_lots = int(lots)
    o.status = status
    o.done_ts = tables.account(b).ts


@helper
def lapse(b: Row, row: int) -> None:
    """An order that no print has filled in time."""
    settle(b, row, LAPSED, 0.0)
    tables.tally(b).lapsed += 1
    drop(b, row)


@helper
def lapse_old(b: Row, closed: int) -> None:
    """At the close of a session of these calendars: orders that have worked through their time lapse."""
    account = tables.account(b)
    for at in range(account.working - 1, -1, -1):
        row = tables.working(b, at).row
        o = tables.order(b, row)
        if (closed >> tables.asset(b, o.instrument).calendar) & 1 == 1:
            o.sessions += 1
            if o.sessions >= o.lasts:
                lapse(b, row)


@helper
def cancel(b: Row, row: int) -> None:
    """Something else takes the place of an order that waits for its limit."""
    settle(b, row, CANCELLED, 0.0)
    tables.tally(b).cancelled += 1
    drop(b, row)


@inlined
def waits_for_limit(b: Row, row: int) -> bool:
    """Whether there is an order in this row, and it may wait long."""
    return row != NONE and tables.order(b, row).limit > 0.0


@helper
def leave_alone(b: Row, row: int) -> None:
    """The position that an order was to close is gone: a reversal only enters now, and what has nothing left to do
    lapses."""
    o = tables.order(b, row)
    if o.works_as == REVERSE:
        o.works_as = ENTER
        tables.sleeve(b, o.sleeve).entering += 1
    if o.works_as != ENTER or o.opens == 0:
        lapse(b, row)


@helper
def lapse_all(b: Row) -> None:
    """Nothing works any more."""
    for at in range(tables.account(b).working - 1, -1, -1):
        lapse(b, tables.working(b, at).row)


@helper
def release(b: Row, x: int) -> None:
    """Take the guards of a position off: it is closed, or one of them is sent."""
    s = tables.structure_of(b, x)
    if s.guard != NONE:
        unlink(b, s.guard)
        s.guard = NONE


@helper
def trigger(b: Row, row: int, ref: float) -> None:
    """Send a guard whose price is met at ``ref``: it is an order of this instant, for the whole position."""
    account, o = tables.account(b), tables.order(b, row)
    o.number = account.sent
    account.sent += 1
    o.ts = account.ts
    o.session = account.session
    o.lots = abs(tables.position(b, o.position).lots)
    o.price = ref


@helper
def ratio(b: Row, asset: Row, split: int) -> tuple[float, float]:
    """New shares, and for how many old ones, by all splits of an asset after the one in row ``split``.

    Prices are restated once, from what was frozen, by the product of the ratios since: restated at each split, 95.095
    would come back from 3 for 1 and 1 for 3 as 95.094999999999.
    """
    num, den = 1.0, 1.0
    row = asset.split
    while row != split:
        action = tables.action(b, row)
        num, den = compounded(num, den, action.num, action.den)
        row = action.before
    return num, den


@helper
def restate_guards(b: Row, asset: Row, first: int) -> None:
    """The group of guards at ``first`` on the basis after a split: prices and distances; a fraction stays as it is."""
    for row in range(first, first + tables.order(b, first).guards + 1):
        o = tables.order(b, row)
        num, den = ratio(b, asset, o.split)
        if o.kind != TRAIL:
            o.level = restated_level(o.frozen, num, den)
        elif o.unit != PCT:
            o.level = restated_price(o.frozen, num, den)  # a distance; the price that it gives is put on the grid
        num, den = ratio(b, asset, o.peak_split)
        o.peak = restated_price(o.peak_print, num, den)


@helper
def restate_order(b: Row, asset: Row, row: int, action: Row) -> None:
    """A waiting order on the basis after a split that its position has gone through: lots are floored. Its guards are
    restated when they get their levels."""
    o = tables.order(b, row)
    bound(tables.account(b), o.opens * action.num)
    o.opens = int(restated_lots(float(o.opens), action.num, action.den))
    if o.limit > 0.0:
        num, den = ratio(b, asset, o.split)
        o.limit = restated_level(o.limit_price, num, den)
    if tables.position(b, o.position).lots == 0:
        leave_alone(b, row)
    elif o.works_as == ADD and o.opens == 0:
        lapse(b, row)
