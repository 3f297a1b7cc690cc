"""The one place where cash, lots and receivables change: fills, fees, dividends, splits, ruin, the end of the run.

Every change of cash is in exactly one record, the amount of a fill or the cash of a cash line; so at every instant the
books balance to the micro-unit. Nothing here decides. Source: domain.md 3.3, 3.5, 4.1.
"""

import numpy as np

from farm.kernels import formula, tables
from farm.kernels.jit import helper, inlined
from farm.kernels.orders import (
    append_order,
    bound,
    drop,
    lapse_all,
    link,
    ratio,
    release,
    restate_guards,
    restate_order,
    settle,
)
from farm.kernels.records import (
    ABS,
    COMMISSION,
    DIVIDEND_EX,
    DIVIDEND_PAY,
    FILLED,
    LEVEL,
    NONE,
    REJECTED,
    REVERSE,
    RUINED,
    SCALED,
    SPLIT,
    SPLIT_CASH,
    TARGET,
    TRAIL,
    R,
    Row,
)


@inlined
def value_of(asset: Row, price: float, lots: float) -> float:
    """Value of ``lots`` of an asset at a price."""
    return formula.value(price, lots, asset.lot_micro, asset.multiplier)


@helper
def fee_of(asset: Row, price: float, lots: float) -> float:
    """Commission of one order of ``lots`` of an asset."""
    return formula.commission(
        price, lots, asset.lot_micro, asset.multiplier, asset.bps, asset.per_share, asset.per_order, asset.fee_min
    )


@inlined
def mark(b: Row) -> None:
    """Equity at the last closes, cash + receivables + positions; and gross value."""
    account = tables.account(b)
    worth = 0.0
    gross = 0.0
    for at in range(account.held):
        p = tables.position(b, tables.held(b, at).row)
        asset = tables.asset(b, p.asset)
        one = value_of(asset, asset.mark, float(p.lots))
        bound(account, one)
        worth += one
        gross += abs(one)
    account.equity = account.cash + account.receivable + worth
    account.gross = gross
    bound(account, gross)
    bound(account, account.equity)


# --- lines ------------------------------------------------------------------------------------------------------------


@helper
def write_fill(b: Row, x: int, row: int, lots: float, opens: int) -> float:
    """Buy (sell, if ``lots`` < 0) at the price that order ``row`` met; return the cash flow."""
    account, tally, o, p = tables.account(b), tables.tally(b), tables.order(b, row), tables.position(b, x)
    s = tables.structure_of(b, x)
    asset = tables.asset(b, p.asset)
    flow = -value_of(asset, o.at, lots)
    slippage = int(abs(flow + value_of(asset, o.ref, lots)))
    account.cash += flow
    account.was_held = 1
    tally.notional += int(abs(flow))
    tally.slippage += slippage
    bound(account, flow)
    bound(account, account.cash)
    f = tables.fill(b, account.fills)
    account.fills += 1
    f.ts = account.ts
    f.session = account.session
    f.order = o.number
    f.sleeve = s.sleeve
    f.instrument = p.asset
    f.lots = int(lots)
    f.amount_micro = int(flow)
    f.slippage_micro = slippage
    f.opens = opens
    f.price = o.at
    f.ref_price = o.ref
    return flow


@helper
def write_cash(b: Row, kind: int, sleeve: int, instrument: int, ref: int, cash: float, receivable: float) -> None:
    """Write a cash line that is no fill: it moves cash, receivables, or one into the other."""
    account = tables.account(b)
    account.cash += cash
    account.receivable += receivable
    bound(account, cash)
    bound(account, account.cash)
    bound(account, account.receivable)
    line = tables.cash_line(b, account.cash_lines)
    account.cash_lines += 1
    line.ts = account.ts
    line.session = account.session
    line.kind = kind
    line.sleeve = sleeve
    line.instrument = instrument
    line.ref = ref
    line.cash_micro = int(cash)
    line.receivable_micro = int(receivable)


@helper
def charge(b: Row, row: int, fee: float) -> None:
    """The one commission line of an order; an order that costs nothing has none."""
    if fee != 0.0:
        o = tables.order(b, row)
        o.fee_micro = int(fee)
        tables.tally(b).commission += int(fee)
        write_cash(b, COMMISSION, o.sleeve, o.instrument, o.number, -fee, 0.0)


@helper
def write_trade(b: Row, at: int, x: int, number: int, kind: int, price: float, row: int, pnl: float) -> None:
    """Write the episode of position ``x``, which ended in the own bar ``row``, into record ``at``."""
    account, p, t = tables.account(b), tables.position(b, x), tables.trade(b, at)
    s = tables.structure_of(b, x)
    t.sleeve = s.sleeve
    t.instrument = p.asset
    t.side = p.side
    t.lots = p.entry_lots
    t.entry_order = s.entry_order
    t.entry_ts = s.entry_ts
    t.entry_session = s.entry_session
    t.entry_notional_micro = int(s.entry_notional)
    t.exit_order = number
    t.exit_kind = kind
    t.exit_ts = account.ts
    t.exit_session = account.session
    t.bars = row - s.entry_row + 1
    t.pnl_micro = int(pnl)
    t.fees_micro = int(s.fees)
    t.dividends_micro = int(s.dividends)
    t.entry_price = p.entry_price
    t.exit_price = price


# --- positions --------------------------------------------------------------------------------------------------------


@helper
def _let_go(b: Row, x: int) -> None:
    """A position is flat: it leaves the list of those held, and its guards go."""
    account, p = tables.account(b), tables.position(b, x)
    s = tables.structure_of(b, x)
    p.lots = 0
    account.held -= 1
    last = tables.held(b, account.held).row
    tables.held(b, p.held_at).row = last
    tables.position(b, last).held_at = p.held_at
    p.held_at = NONE
    tables.sleeve(b, s.sleeve).held -= 1
    release(b, x)


@helper
def flatten(b: Row, x: int, row: int) -> float:
    """Sell (or buy back) the whole position by order ``row``; return its lots. Commission and trade are to come."""
    p = tables.position(b, x)
    s = tables.structure_of(b, x)
    lots = float(abs(p.lots))
    s.pnl += write_fill(b, x, row, float(-p.lots), 0)
    _let_go(b, x)
    return lots


@helper
def end_trade(b: Row, x: int, number: int, kind: int, price: float, fee: float, row: int) -> None:
    """The episode of a position is over, in the own bar ``row``."""
    account, s = tables.account(b), tables.structure_of(b, x)
    s.pnl -= fee
    s.fees += fee
    s.exit_row = row
    bound(account, s.pnl)
    at = account.trades
    account.trades += 1
    write_trade(b, at, x, number, kind, price, row, s.pnl)


@helper
def close_lots(b: Row, x: int, row: int, lots: float, kind: int, bar: int) -> None:
    """Close ``lots`` of a position by order ``row`` in the own bar ``bar``: fill and commission; ruin costs nothing.

    What is left goes on as it was, with its average entry and its guards; without a rest the trade is over.
    """
    o, p = tables.order(b, row), tables.position(b, x)
    s = tables.structure_of(b, x)
    fee = 0.0 if kind == RUINED else fee_of(tables.asset(b, p.asset), o.at, lots)
    s.pnl += write_fill(b, x, row, -float(p.side) * lots, 0) - fee
    s.fees += fee
    p.lots -= p.side * int(lots)
    charge(b, row, fee)
    settle(b, row, FILLED, lots)
    if p.lots == 0:
        _let_go(b, x)
        end_trade(b, x, o.number, kind, o.at, 0.0, bar)


@helper
def open_position(b: Row, x: int, row: int, lots: float, fee: float, bar: int) -> None:
    """Open the position that order ``row`` asked for, in the own bar ``bar``, and set its guards to work."""
    account, o, p = tables.account(b), tables.order(b, row), tables.position(b, x)
    s = tables.structure_of(b, x)
    flow = write_fill(b, x, row, float(o.side) * lots, 1)
    p.lots = o.side * int(lots)
    p.side = o.side
    p.entry_price = o.at
    s.pnl = flow - fee
    s.fees = fee
    s.dividends = 0.0
    p.entry_lots = int(lots)
    s.entry_notional = abs(flow)
    p.opened_split = tables.asset(b, p.asset).split
    s.decided_split = o.split
    s.adds = 0
    s.entry_order = o.number
    s.entry_ts = account.ts
    s.entry_session = account.session
    s.entry_row = bar
    p.held_at = account.held
    tables.held(b, account.held).row = x
    account.held += 1
    if o.guards > 0:
        _set_guards(b, x, row, NONE)


@helper
def add_to_position(b: Row, x: int, row: int, lots: float, fee: float) -> None:
    """Buy (or sell short) more by order ``row``: the average entry moves, and what is measured from it."""
    o, p = tables.order(b, row), tables.position(b, x)
    s = tables.structure_of(b, x)
    flow = write_fill(b, x, row, float(o.side) * lots, 1)
    asset = tables.asset(b, p.asset)
    num, den = ratio(b, asset, p.opened_split)
    before = formula.restated_price(p.entry_price, num, den)
    p.entry_price = formula.average(before, float(abs(p.lots)), o.at, lots)
    p.entry_lots = int(formula.restated_lots(float(p.entry_lots), num, den) + lots)
    s.entry_notional += abs(flow)
    p.opened_split = asset.split
    s.adds += 1
    p.lots += o.side * int(lots)
    s.pnl += flow - fee
    s.fees += fee
    bound(tables.account(b), float(p.lots))
    bound(tables.account(b), s.entry_notional)
    if o.guards > 0:
        old = s.guard
        release(b, x)
        _set_guards(b, x, row, old)


@helper
def _set_guards(b: Row, x: int, row: int, old: int) -> None:
    """Give the guards of an opening their levels, and hang them on the asset as one group (domain.md 3.4).

    Multiples of the initial risk come last: the risk is the distance from the entry to the nearest stop or trail.
    After an addition the group takes the place of the ``old`` one, and keeps of it what the entry has fixed: peaks,
    multiples of the risk, and levels that do not follow additions.
    """
    entry, p = tables.order(b, row), tables.position(b, x)
    s = tables.structure_of(b, x)
    asset = tables.asset(b, p.asset)
    first, count = row + 1, entry.guards
    risk = np.nan
    for at in range(first, first + count):
        o = tables.order(b, at)
        lift(o, entry.ref, asset.split)
        if o.unit == ABS:
            num, den = ratio(b, asset, s.decided_split)
            o.frozen = formula.restated_price(o.frozen, num, den)
        if o.unit == LEVEL:
            num, den = ratio(b, asset, o.split)
            o.level = formula.restated_level(o.frozen, num, den)
        elif o.unit != R:
            _set_level(p, o, risk, asset.split)
        if o.unit != R and o.kind != TARGET:
            distance = p.side * (p.entry_price - level_of(o))
            if not risk <= distance:  # the first one too: risk is NaN
                risk = distance
    risk = formula.on_grid(risk)
    rules = tables.sleeve(b, s.sleeve)
    for at in range(first, first + count):
        o = tables.order(b, at)
        if o.unit == R:
            _set_level(p, o, risk, asset.split)
        if old != NONE:
            kept = tables.order(b, old + at - first)
            follows = tables.stop_rule(b, rules.first_stop + at - first).follows == 1
            lift(o, kept.peak_print, kept.peak_split)
            o.peak = kept.peak
            if o.kind == TRAIL or o.unit == R or (o.unit == LEVEL and not follows):
                o.level = kept.level
                o.frozen = kept.frozen
                o.split = kept.split
    s.guard = first
    tables.order(b, first).guards = count - 1
    link(b, first)


@helper
def _set_level(p: Row, o: Row, risk: float, split: int) -> None:
    """Freeze a level that counts from the entry price, and say after which split."""
    if o.kind != TRAIL:
        sign = float(p.side if o.kind == TARGET else -p.side)
        o.frozen = formula.guard_level(o.unit, sign, p.entry_price, o.frozen, risk)
    o.level = o.frozen
    o.split = split


@inlined
def lift(o: Row, price: float, split: int) -> None:
    """A print, after the split in row ``split``, is the best since the entry."""
    o.peak = price
    o.peak_print = price
    o.peak_split = split


@inlined
def level_of(o: Row) -> float:
    """The price at which a guard is met now; a trail follows the peak. ``o.side`` is opposite to the position's."""
    return formula.trail_level(o.unit, float(-o.side), o.peak, o.level) if o.kind == TRAIL else o.level


@helper
def admit(b: Row, row: int, bar: int) -> None:
    """Fill an opening, in the own bar ``bar``, with the lots that are covered; a reversal ends its old trade first, and
    both share its fee."""
    account, tally, o = tables.account(b), tables.tally(b), tables.order(b, row)
    x = o.position
    p = tables.position(b, x)
    s = tables.structure_of(b, x)
    asset = tables.asset(b, p.asset)
    lots, closed = float(o.fit), float(o.closed)
    fee = 0.0
    share = 0.0
    if lots + closed > 0.0:
        fee = fee_of(asset, o.at, closed + lots)
        account.cash += o.held_fee
        charge(b, row, fee)
        share = formula.shared_fee(fee, closed, closed + lots)
    if closed > 0.0:
        end_trade(b, x, o.number, REVERSE, o.at, share, bar)
    status = FILLED if o.fit == o.opens else SCALED if lots + closed > 0.0 else REJECTED
    tally.scaled += 1 if status == SCALED else 0
    tally.rejected += 1 if status == REJECTED else 0
    drop(b, row)
    if p.lots != 0:
        if lots > 0.0:
            add_to_position(b, x, row, lots, fee)
    elif lots > 0.0:
        open_position(b, x, row, lots, fee - share, bar)
    else:
        tables.sleeve(b, s.sleeve).held -= 1
    settle(b, row, status, lots + closed)


# --- corporate actions and cash ---------------------------------------------------------------------------------------


@helper
def act(b: Row, k: int) -> None:
    """Restate what is held and ordered before any price of the new basis; book a dividend on its ex-date."""
    action = tables.action(b, k)
    asset = tables.asset(b, action.asset)
    if action.dividend < 0:
        asset.split = k
    for at in range(asset.first_position, asset.end_position):
        if action.dividend >= 0:
            _accrue(b, tables.of_asset(b, at).row, action)
        else:
            _split(b, tables.of_asset(b, at).row, action)
    if action.dividend < 0:
        asset.mark = formula.restated_price(asset.mark, action.num, action.den)


@helper
def _accrue(b: Row, x: int, action: Row) -> None:
    """A receivable for who is long at the ex-date open, a debt for who is short."""
    p = tables.position(b, x)
    s = tables.structure_of(b, x)
    if p.lots != 0:
        flow = value_of(tables.asset(b, p.asset), action.amount, float(p.lots))
        tables.receivable(b, action.dividend, s.sleeve).micro += flow
        s.pnl += flow
        s.dividends += flow
        tables.tally(b).pay_date_assumed += action.pay_assumed
        write_cash(b, DIVIDEND_EX, s.sleeve, p.asset, action.day, 0.0, flow)


@helper
def _split(b: Row, x: int, action: Row) -> None:
    """Multiply lots by num / den and divide prices by it. Fractions of a lot are cashed at the previous close over
    the ratio; a position that vanishes that way ends its trade."""
    account, p = tables.account(b), tables.position(b, x)
    s = tables.structure_of(b, x)
    asset, num, den = tables.asset(b, p.asset), action.num, action.den
    if s.guard != NONE:
        restate_guards(b, asset, s.guard)
    if p.lots != 0:
        held = float(abs(p.lots))
        bound(account, held * num)
        lots = formula.restated_lots(held, num, den)
        rest = held * num - lots * den
        price = formula.restated_price(asset.mark, num, den)
        if rest > 0.0:
            flow = p.side * formula.cash_of_rest(price, rest, den, asset.lot_micro, asset.multiplier)
            s.pnl += flow
            write_cash(b, SPLIT_CASH, s.sleeve, p.asset, action.day, flow, 0.0)
        p.lots = p.side * int(lots)
        if lots == 0.0:
            account.was_held = 1
            _let_go(b, x)
            end_trade(b, x, NONE, SPLIT, price, 0.0, asset.row + 1)
    if s.order != NONE:
        restate_order(b, asset, s.order, action)


@helper
def pay(b: Row, k: int) -> None:
    """Turn a receivable into cash: payment ``k`` of the tape."""
    payment = tables.payment(b, k)
    for w in range(b.sleeves):
        flow = tables.receivable(b, payment.dividend, w).micro
        if flow != 0.0:
            tables.receivable(b, payment.dividend, w).micro = 0.0
            write_cash(b, DIVIDEND_PAY, w, payment.asset, payment.day, flow, -flow)


@helper
def ruin(b: Row) -> None:
    """Equity is gone: close everything at the mark, settle what is owed; the account stays at that value."""
    account = tables.account(b)
    lapse_all(b)
    for x in range(b.positions):
        p = tables.position(b, x)
        if p.lots != 0:
            asset = tables.asset(b, p.asset)
            row = append_order(b, x, RUINED, -p.side, abs(p.lots), asset.mark)
            tables.order(b, row).ref = asset.mark
            tables.order(b, row).at = asset.mark
            close_lots(b, x, row, float(abs(p.lots)), RUINED, asset.row)
    for k in range(b.payments_end):
        pay(b, k)
    account.gross = 0.0
    account.ruin = account.session + 1


@helper
def end(b: Row) -> None:
    """The run is over: working orders lapse, open positions are marked and listed after the closed trades."""
    account = tables.account(b)
    lapse_all(b)
    for x in range(b.positions):
        p = tables.position(b, x)
        s = tables.structure_of(b, x)
        if p.lots != 0:
            asset = tables.asset(b, p.asset)
            pnl = s.pnl + value_of(asset, asset.mark, float(p.lots))
            bound(account, pnl)
            row = max(asset.row, s.entry_row)  # its first bar may close after the run
            write_trade(b, account.trades + account.open_trades, x, NONE, 0, asset.mark, row, pnl)
            account.open_trades += 1
    account.ended = 1
