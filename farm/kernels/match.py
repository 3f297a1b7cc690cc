"""Which working orders fill on one print or one bar, and at what price; ``book`` then moves the money.

At an opening print, market orders fill: what closes first, then the openings, which share what is available. In a
closing bar, guards are tested: stops before targets, each by order of the entry. Source: domain.md 2.2, 3.4.
"""

import numpy as np

from farm.kernels import formula, tables
from farm.kernels.book import admit, close_lots, fee_of, flatten, level_of, lift, mark, value_of
from farm.kernels.jit import helper, inlined
from farm.kernels.orders import drop, leave_alone, settle, trigger
from farm.kernels.records import ADD, ENTER, IN_CASH, IN_WORK, NONE, REJECTED, REVERSE, TARGET, TRAIL, Row

# --- opening prints ---------------------------------------------------------------------------------------------------


@helper
def at_open(b: Row, first: int, last: int) -> None:
    """Fill what works on the instruments that print an opening with volume: phase 9 of domain.md 3.1."""
    n = 0
    for k in range(first, last):
        print_ = tables.opening(b, k)
        asset = tables.asset(b, print_.asset)
        row = asset.first_order
        while row != NONE:
            o = tables.order(b, row)
            if o.number != NONE and print_.volume > 0.0:
                side = float(o.side)
                if o.limit == 0.0:
                    o.ref = print_.price
                    o.at = formula.slipped(o.ref, side, asset.up, asset.down)
                    n = _queue(b, 0, n, row)
                elif formula.is_within(side, print_.price, o.limit):
                    o.ref = print_.price
                    o.at = o.ref
                    n = _queue(b, 0, n, row)
            row = o.next
    if n > 0:
        _fill(b, n)


@inlined
def _queue(b: Row, start: int, n: int, row: int) -> int:
    """Insert ``row`` into the ascending queue of ``n`` that begins at ``start``; return its new length."""
    at = start + n
    while at > start and tables.queue(b, at - 1).row > row:
        tables.queue(b, at).row = tables.queue(b, at - 1).row
        at -= 1
    tables.queue(b, at).row = row
    return n + 1


@helper
def _fill(b: Row, n: int) -> None:
    """Fill the ``n`` orders in the queue, in the bars after the last closes: what closes first, then the openings."""
    account = tables.account(b)
    for at in range(n):
        row = tables.queue(b, at).row
        o = tables.order(b, row)
        p = tables.position(b, o.position)
        o.closed = 0
        o.held_fee = 0.0
        if o.works_as == REVERSE:
            o.closed = int(flatten(b, o.position, row))
            # Kept back until the whole order is known: one commission line per order.
            o.held_fee = fee_of(tables.asset(b, p.asset), o.at, float(o.closed))
            account.cash -= o.held_fee
            tables.sleeve(b, o.sleeve).held += 1  # its place stays taken
        elif o.works_as not in (ENTER, ADD):
            close_lots(b, o.position, row, float(abs(p.lots)), o.kind, tables.asset(b, p.asset).row + 1)
            drop(b, row)
    m = 0
    for at in range(n):
        row = tables.queue(b, at).row
        o = tables.order(b, row)
        rules = tables.sleeve(b, o.sleeve)
        if o.works_as == ENTER and rules.held >= rules.max_positions:
            # An exit that was to make room did not fill (no volume), so the room is not there.
            settle(b, row, REJECTED, 0.0)
            tables.tally(b).no_place += 1
            drop(b, row)
        elif o.works_as in (ENTER, REVERSE, ADD):
            rules.held += 1 if o.works_as == ENTER else 0
            tables.queue(b, m).row = row
            m += 1
    if m > 0:
        available = _available(b)
        if m == 1:
            o = tables.order(b, tables.queue(b, 0).row)
            o.fit = _fit(account, tables.asset(b, o.instrument), o, available)
        else:
            _share(b, m, available)
        for at in range(m):
            row = tables.queue(b, at).row
            admit(b, row, tables.asset(b, tables.order(b, row).instrument).row + 1)


@helper
def _available(b: Row) -> float:
    """What openings may take now, with positions at their last closes."""
    account = tables.account(b)
    if account.rules != IN_CASH:
        mark(b)
    return formula.room(account.rules, account.cash, account.equity, account.gross, account.max_gross)


@helper
def _need(account: Row, asset: Row, o: Row, lots: float) -> float:
    """What an opening of ``lots`` by order ``o`` takes."""
    if lots <= 0.0:
        return 0.0
    worth = value_of(asset, o.at, lots)
    fee = fee_of(asset, o.at, o.closed + lots) - o.held_fee
    return formula.need(account.rules, worth, fee, account.max_gross)


@helper
def _fit(account: Row, asset: Row, o: Row, available: float) -> int:
    """Largest lot count, at most the wanted one, whose need is covered: gallop from the proportional guess, bisect."""
    want = float(o.opens)
    need = _need(account, asset, o, want)
    if need <= available:
        return o.opens
    if available <= 0.0:
        return 0
    low = min(max(np.floor(want * (available / need)), 0.0), want - 1.0)
    high = low
    step = 1.0
    if _need(account, asset, o, low) <= available:
        high = min(low + step, want)
        while high < want and _need(account, asset, o, high) <= available:
            low = high
            step *= 2.0
            high = min(low + step, want)
    else:
        low = max(high - step, 0.0)
        while _need(account, asset, o, low) > available:
            high = low
            step *= 2.0
            low = max(high - step, 0.0)
    while high - low > 1.0:
        middle = np.floor((low + high) / 2.0)
        if _need(account, asset, o, middle) <= available:
            low = middle
        else:
            high = middle
    return int(low)


@helper
def _total_need(b: Row, n: int, less: float) -> float:
    """Sum of the needs of the queue, each order lowered by ``less`` lots."""
    total = 0.0
    for at in range(n):
        o = tables.order(b, tables.queue(b, at).row)
        total += _need(tables.account(b), tables.asset(b, o.instrument), o, max(o.fit - less, 0.0))
    return total


@helper
def _share(b: Row, n: int, available: float) -> None:
    """Give the openings of one instant one common factor (domain.md 2.2), in order of their ids.

    "Lowered by one lot each in id order while cash is still short": whole rounds are counted by bisection, because a
    minimum commission may need millions of tiny lots; the last round goes order by order.
    """
    for at in range(n):
        o = tables.order(b, tables.queue(b, at).row)
        o.fit = o.opens
    total = _total_need(b, n, 0.0)
    if total <= available:
        return
    factor = max(available, 0.0) / total
    low = 0.0  # after so many rounds it is still short
    high = 0.0  # after so many rounds nothing is left to pay
    for at in range(n):
        o = tables.order(b, tables.queue(b, at).row)
        lots = formula.whole(o.opens * factor)
        o.fit = int(lots)
        high = max(high, lots)
    total = _total_need(b, n, 0.0)
    while high - low > 1.0 and total > available:
        middle = np.floor((low + high) / 2.0)
        if _total_need(b, n, middle) > available:
            low = middle
        else:
            high = middle
    total = _total_need(b, n, low)
    account = tables.account(b)
    for at in range(n):
        o = tables.order(b, tables.queue(b, at).row)
        asset = tables.asset(b, o.instrument)
        o.fit = int(max(o.fit - low, 0.0))
        if o.fit > 0 and total > available:
            total -= _need(account, asset, o, float(o.fit))
            o.fit -= 1
            total += _need(account, asset, o, float(o.fit))


# --- closing bars -----------------------------------------------------------------------------------------------------


@helper
def in_bars(b: Row, first: int, last: int) -> None:
    """Match what works on the instruments that close a bar now, before their closes count: phase 3 of domain.md 3.1.

    Stops come before targets, each in the order in which the positions were opened, then entries at their limits. A
    stop becomes a market order; a target is a limit and does not slip. Who enters inside a bar may be stopped out.
    """
    n = b.positions
    stops = 0
    targets = 0
    entries = 0
    for k in range(first, last):
        bar = tables.bar(b, k)
        if not bar.volume > 0.0:
            continue
        row = tables.asset(b, bar.asset).first_order
        while row != NONE:
            o = tables.order(b, row)
            if o.number == NONE:
                met = _met(b, row, bar)
                if met != NONE and tables.order(b, met).kind != TARGET:
                    stops = _queue_by_entry(b, 0, stops, met)
                elif met != NONE:
                    targets = _queue_by_entry(b, n, targets, met)
            elif o.limit > 0.0 and formula.is_beyond(float(o.side), bar.low, bar.high, o.limit):
                o.ref = o.limit
                o.at = o.limit
                entries = _queue(b, 2 * n, entries, row)
            row = o.next
    for at in range(stops):
        _execute(b, tables.queue(b, at).row)
    for at in range(targets):
        _execute(b, tables.queue(b, n + at).row)
    if entries > 0:
        _enter_inside(b, entries)


@inlined
def _entry_of(b: Row, row: int) -> int:
    """The number of the order that opened what a guard protects."""
    number: int = tables.structure_of(b, tables.order(b, row).position).entry_order
    return number


@inlined
def _queue_by_entry(b: Row, start: int, n: int, row: int) -> int:
    entry = _entry_of(b, row)
    at = start + n
    while at > start and _entry_of(b, tables.queue(b, at - 1).row) > entry:
        tables.queue(b, at).row = tables.queue(b, at - 1).row
        at -= 1
    tables.queue(b, at).row = row
    return n + 1


@helper
def _met(b: Row, first: int, bar: Row) -> int:
    """The guard of the group at ``first`` that is sent in this bar, its print in ``ref``; -1 if none is.

    A gap trades at the open. A stop trades by touch, a target is a limit: touched is not filled. Of several stops the
    price meets the nearest first. A trail is tested with the peak known before this bar, its open included, and then
    lifted. Everything is seen from the long side: prices of a short are negated.
    """
    head = tables.order(b, first)
    split = tables.asset(b, head.instrument).split
    side = -float(head.side)
    start = side * bar.open
    low = bar.low if side > 0.0 else -bar.high
    high = bar.high if side > 0.0 else -bar.low
    stop, target = np.nan, np.nan
    stop_row, target_row = NONE, NONE
    for row in range(first, first + head.guards + 1):
        o = tables.order(b, row)
        if o.kind == TRAIL and start > side * o.peak:
            lift(o, bar.open, split)
        level = side * level_of(o)
        if np.isnan(level):
            continue
        if o.kind == TARGET:
            if not target <= level:  # the first one too
                target = level
                target_row = row
        elif not stop >= level:
            stop = level
            stop_row = row
    if stop_row != NONE and (start <= stop or low <= stop):
        tables.order(b, stop_row).ref = side * min(start, stop)
        return stop_row
    if target_row != NONE and (start >= target or high > target):
        tables.order(b, target_row).ref = side * max(start, target)
        return target_row
    for row in range(first, first + head.guards + 1):
        o = tables.order(b, row)
        if o.kind == TRAIL and high > side * o.peak:
            lift(o, side * high, split)
    return NONE


@helper
def _enter_inside(b: Row, entries: int) -> None:
    """Fill entries whose limits were met inside bars, and test the stops of those that opened: not their targets, and
    not with the bar's open or far end, which may have been before the entry."""
    n = b.positions
    m = 0
    for at in range(entries):
        row = tables.queue(b, 2 * n + at).row
        if tables.order(b, row).status == IN_WORK:  # else a stop of this very bar has left it nothing to do
            tables.queue(b, m).row = row
            m += 1
    _fill(b, m)
    for at in range(entries):
        o = tables.order(b, tables.queue(b, 2 * n + at).row)
        p = tables.position(b, o.position)
        s = tables.structure_of(b, o.position)
        if s.guard == NONE or s.entry_order != o.number:
            continue
        bar = tables.bar(b, tables.asset(b, p.asset).bar)
        side = float(p.side)
        low = bar.low if side > 0.0 else -bar.high
        first = s.guard
        nearest = np.nan
        met = NONE
        for row in range(first, first + tables.order(b, first).guards + 1):
            guard = tables.order(b, row)
            level = side * level_of(guard)
            if guard.kind != TARGET and not nearest >= level and not np.isnan(level):
                nearest = level
                met = row
        if met != NONE and low <= nearest:
            tables.order(b, met).ref = side * nearest
            _execute(b, met)


@helper
def _execute(b: Row, row: int) -> None:
    """Send a guard whose price is met, and close its position."""
    o = tables.order(b, row)
    asset = tables.asset(b, o.instrument)
    o.at = o.ref if o.kind == TARGET else formula.slipped(o.ref, float(o.side), asset.up, asset.down)
    trigger(b, row, o.ref)
    close_lots(b, o.position, row, float(abs(tables.position(b, o.position).lots)), o.kind, asset.row + 1)
    waits = tables.structure_of(b, o.position).order
    if waits != NONE:
        leave_alone(b, waits)
