"""The bar program: one account, carried instant by instant over a tape of events. The heart of the event loop.

``advance`` is a fold: it takes the state and a range of instants, and leaves the state after them. At each instant it
goes through the phases of domain.md 3.1: closing bars (2), matching of working stops (3), the mark with ruin and margin
(6), decisions and admission (7, 8); then the session that opens: corporate actions (1), dividend cash (4), opening
prints (9). Nothing is read beyond the instant at hand, so where a batch ends cannot matter.

Money is integers (1e-6 of account currency) in float64 boxes: each flow is one product chain in the order written in
``_value`` and ``_commission``, rounded once, half to even; all else is exact addition. Whatever reaches 2**53 raises
the guard. Lots are integers in float64 boxes, signed by side. Prices are raw. Tables: ``step_layout.py``.
The plain twin is ``reference/step.py``. A kernel calls only kernels of its own file: numba's disk cache would not
notice a change elsewhere, which is the reason for the length of this one.
"""

import numpy as np
from numba.core.types import Array, Type, float64, int64, uint8

from farm.kernels import step_layout as at
from farm.kernels.jit import helper, inlined, kernel
from farm.kernels.step_layout import Books
from farm.values.arrays import F64, I64, U8

# Books is a big aggregate, so that every mention of it costs compile time: functions take their tables out of it once.
_hot = inlined
_cold = helper


# --- money ------------------------------------------------------------------------------------------------------------


@_hot
def _bits(x: float) -> int:
    return np.float64(x).view(np.int64)  # type: ignore[return-value]


@_hot
def _boxed(n: int) -> float:
    """An int64 beyond 2**53, bit by bit, in a float64 box: instants. ``_bits`` takes it out."""
    return np.int64(n).view(np.float64)


@_hot
def _bound(count: I64, x: float) -> None:
    if not abs(x) < at.LIMIT:
        count[at.GUARD] = 1


@_hot
def _whole(x: float) -> float:
    """Floor, but a quotient that misses a whole number by rounding alone is that number: 604 at 6.04 are 100 shares."""
    near = np.rint(x)
    return near if near - x <= x * 2.0**-49 else np.floor(x)  # type: ignore[no-any-return]


@_hot
def _on_grid(x: float) -> float:
    """The decimal that a computed order price stands for (domain.md 3.4): rint(x 10**g) / 10**g, which has the bits of
    a print at that price. g is 12, lowered until five bits are left for the roundings of the chain behind ``x``."""
    power = 1e12
    while abs(x) * power >= 2.0**48 and power > 1.0:
        power /= 10.0  # exact, down from 1e22
    return np.rint(x * power) / power  # type: ignore[no-any-return]


@_hot
def _away(price: float, part: float) -> float:
    """The order price that lies a signed fraction away from a price."""
    return _on_grid(price * (1.0 + part))


@_hot
def _beside(price: float, distance: float) -> float:
    """The order price that lies a signed distance beside a price."""
    return _on_grid(price + distance)


@_hot
def _restated(level: float, num: float, den: float) -> float:
    """An order price in the shares after a split of ``num`` for ``den``."""
    return _on_grid((level * den) / num)


@_hot
def _value(asset: F64, j: int, price: float, lots: float) -> float:
    """Position value (domain.md 3.5): rint(price x qty x multiplier x 1e6), signed as ``lots``."""
    qty = (lots * asset[j, at.LOT_MICRO]) / 1e6
    return np.rint(((price * qty) * asset[j, at.MULTIPLIER]) * 1e6)  # type: ignore[no-any-return]


@_hot
def _commission(asset: F64, j: int, price: float, lots: float) -> float:
    """Commission of one order of ``lots`` > 0: bps of value, per share and per order, rounded once, at least the
    minimum."""
    qty = (lots * asset[j, at.LOT_MICRO]) / 1e6
    value = (price * qty) * asset[j, at.MULTIPLIER]
    fee = np.rint(((value * asset[j, at.BPS] + qty * asset[j, at.PER_SHARE]) + asset[j, at.PER_ORDER]) * 1e6)
    return max(fee, asset[j, at.FEE_MIN])  # type: ignore[no-any-return]


@_hot
def _mark(account: F64, count: I64, asset: F64, slot: F64) -> None:
    """Equity at the last closes, cash + receivables + positions; and gross value."""
    worth = 0.0
    gross = 0.0
    if count[at.HELD] > 0:
        for s in range(slot.shape[0]):
            if slot[s, at.POS] != 0.0:
                j = int(slot[s, at.OF_ASSET])
                value = _value(asset, j, asset[j, at.MARK], slot[s, at.POS])
                _bound(count, value)
                worth += value
                gross += abs(value)
    account[at.EQUITY] = account[at.CASH] + account[at.RECEIVABLE] + worth
    account[at.GROSS] = gross
    _bound(count, gross)
    _bound(count, account[at.EQUITY])


# --- records ----------------------------------------------------------------------------------------------------------


@_hot
def _put(table: I64, row: int, values: tuple[int, ...]) -> None:
    for n in range(len(values)):
        table[row, n] = values[n]


@_cold
def _order(orders: I64, count: I64, p: F64, kind: int, side: float, lots: float, price: float) -> int:
    """Open the record of an order for the slot ``p``; its row is its id. ``price`` is the one it was decided at."""
    k = count[at.N_ORDERS]
    count[at.N_ORDERS] = k + 1
    head = (count[at.CLOCK], count[at.NOW], int(p[at.OF_SLEEVE]), int(p[at.INSTRUMENT]), kind, int(side), int(lots))
    _put(orders, k, (*head, 0, at.IN_WORK, 0, 0, _bits(price)))
    return k  # type: ignore[no-any-return]


@_hot
def _settle(orders: I64, count: I64, order: int, status: int, lots: float) -> None:
    orders[order, at.O_FILLED] = int(lots)
    orders[order, at.O_STATUS] = status
    orders[order, at.O_DONE_TS] = count[at.CLOCK]


@_cold
def _fill(b: Books, s: int, order: int, lots: float, price: float, ref: float, opens: int) -> float:
    """Buy (sell, if ``lots`` < 0) at ``price``; return the cash flow. Slippage is measured against ``ref``."""
    account, count, p = b.account, b.counts, b.slot[s]
    j = int(p[at.OF_ASSET])
    flow = -_value(b.asset, j, price, lots)
    slippage = int(abs(flow + _value(b.asset, j, ref, lots)))
    account[at.CASH] += flow
    count[at.NOTIONAL] += int(abs(flow))
    count[at.SLIPPAGE] += slippage
    count[at.TOUCHED] = 1
    _bound(count, flow)
    _bound(count, account[at.CASH])
    k = count[at.N_FILLS]
    count[at.N_FILLS] = k + 1
    head = (count[at.CLOCK], count[at.NOW], order, int(p[at.OF_SLEEVE]), int(p[at.INSTRUMENT]))
    _put(b.fills, k, (*head, int(lots), int(flow), slippage, opens, _bits(price), _bits(ref)))
    return flow


@_cold
def _book(b: Books, kind: int, sleeve: int, instrument: int, ref: int, cash: float, receivable: float) -> None:
    """Write a cash line that is no fill: it moves cash, receivables, or one into the other."""
    account, count = b.account, b.counts
    account[at.CASH] += cash
    account[at.RECEIVABLE] += receivable
    _bound(count, cash)
    _bound(count, account[at.CASH])
    _bound(count, account[at.RECEIVABLE])
    k = count[at.N_CASH]
    count[at.N_CASH] = k + 1
    head = (count[at.CLOCK], count[at.NOW], kind, sleeve, instrument)
    _put(b.cash, k, (*head, ref, int(cash), int(receivable)))


@_cold
def _charge(b: Books, s: int, order: int, fee: float) -> None:
    """The one commission line of an order; an order that costs nothing has none."""
    if fee != 0.0:
        p = b.slot[s]
        b.orders[order, at.O_FEE] = int(fee)
        b.counts[at.COMMISSION] += int(fee)
        _book(b, at.PAID_COMMISSION, int(p[at.OF_SLEEVE]), int(p[at.INSTRUMENT]), order, -fee, 0.0)


@_cold
def _trade(trades: I64, count: I64, p: F64, k: int, order: int, kind: int, price: float, row: int, pnl: float) -> None:
    """Write the flat-to-flat episode of the slot ``p``, which ended in the own bar ``row``, into record ``k``."""
    head = (int(p[at.OF_SLEEVE]), int(p[at.INSTRUMENT]), int(p[at.SIDE]), int(p[at.ENTRY_LOTS]))
    start = (int(p[at.ENTRY_ID]), _bits(p[at.ENTRY_AT]), int(p[at.ENTRY_SESSION]), int(p[at.ENTRY_PAID]))
    end = (order, kind, count[at.CLOCK], count[at.NOW], row - int(p[at.ENTRY_ROW]) + 1)
    sums = (int(pnl), int(p[at.FEES]), int(p[at.DIVIDENDS]))
    _put(trades, k, (*head, *start, *end, *sums, _bits(p[at.ENTRY_PRICE]), _bits(price)))


# --- positions --------------------------------------------------------------------------------------------------------


@_cold
def _flatten(b: Books, s: int, order: int, price: float, ref: float) -> float:
    """Sell (or buy back) the whole position; return its lots. Commission and trade record are still to come."""
    p = b.slot[s]
    lots = abs(p[at.POS])
    p[at.PNL] += _fill(b, s, order, -p[at.POS], price, ref, 0)
    p[at.POS] = 0.0
    b.counts[at.HELD] -= 1
    b.sleeve[int(p[at.OF_SLEEVE]), at.HELD_HERE] -= 1.0
    return lots  # type: ignore[no-any-return]


@_cold
def _end_trade(trades: I64, count: I64, p: F64, order: int, kind: int, price: float, fee: float, row: int) -> None:
    p[at.PNL] -= fee
    p[at.FEES] += fee
    p[at.EXIT_ROW] = row
    _bound(count, p[at.PNL])
    k = count[at.N_TRADES]
    count[at.N_TRADES] = k + 1
    _trade(trades, count, p, k, order, kind, price, row, p[at.PNL])


@_cold
def _exit(b: Books, s: int, order: int, kind: int, price: float, ref: float, row: int) -> None:
    """Close the position by ``order``: fill, commission, trade. Ruin closes at the mark and costs nothing."""
    p = b.slot[s]
    lots = _flatten(b, s, order, price, ref)
    fee = 0.0 if kind == at.RUINED else _commission(b.asset, int(p[at.OF_ASSET]), price, lots)
    _charge(b, s, order, fee)
    _settle(b.orders, b.counts, order, at.FILLED, lots)
    _end_trade(b.trades, b.counts, p, order, kind, price, fee, row)


@_cold
def _open(b: Books, s: int, order: int, lots: float, fee: float) -> None:
    """Open the position that a working order asked for, and set its stops (domain.md 3.4)."""
    count, p = b.counts, b.slot[s]
    side = p[at.W_SIDE]
    flow = _fill(b, s, order, side * lots, p[at.W_PRICE], p[at.W_REF], 1)
    p[at.POS] = side * lots
    p[at.SIDE] = side
    p[at.ENTRY_PRICE] = p[at.W_PRICE]
    p[at.PEAK] = p[at.W_REF]
    p[at.BARS] = 0.0
    p[at.PNL] = flow - fee
    p[at.FEES] = fee
    p[at.DIVIDENDS] = 0.0
    p[at.ENTRY_LOTS] = lots
    p[at.ENTRY_PAID] = abs(flow)
    p[at.ENTRY_ID] = order
    p[at.ENTRY_AT] = _boxed(count[at.CLOCK])
    p[at.ENTRY_SESSION] = count[at.NOW]
    p[at.ENTRY_ROW] = b.asset[int(p[at.OF_ASSET]), at.ROW] + 1.0
    count[at.HELD] += 1
    w = int(p[at.OF_SLEEVE])
    if b.sleeve[w, at.STOPS] > 0.0:
        risk = _place_stops(b.sleeve, w, b.slot, s, np.nan)
        _place_stops(b.sleeve, w, b.slot, s, risk)


@_cold
def _place_stops(sleeve: F64, w: int, slot: F64, s: int, risk: float) -> float:
    """Set the stops of a new position, those in multiples of the initial risk from ``risk``; return that risk:
    the distance from the entry to the nearest stop or trail, on the grid, NaN without one."""
    rules, p = sleeve[w], slot[s]
    price, side = p[at.ENTRY_PRICE], p[at.SIDE]
    most = (p.shape[0] - at.SLOT_COLUMNS) // 2
    nearest = np.nan
    for x in range(int(rules[at.STOPS])):
        k = at.FIRST_STOP + at.STOP_WIDTH * x
        kind, unit, v = rules[k + at.STOP_KIND], rules[k + at.STOP_UNIT], rules[k + at.STOP_VALUE]
        sign = side if kind == at.TARGET else -side
        level = p[at.SLOT_COLUMNS + most + x]  # frozen at the decision; NaN for other units
        if unit == at.R:
            level = _beside(price, sign * (v * risk))
        elif kind == at.TRAIL:
            level = v  # a fraction of the peak, or a distance from it
        elif unit == at.PCT:
            level = _away(price, sign * v)
        elif unit == at.ABS:
            level = _beside(price, sign * v)
        p[at.SLOT_COLUMNS + x] = level
        if kind != at.TARGET:
            away = side * (price - _stop_level(sleeve, w, slot, s, x))
            if not nearest <= away:  # the first one too: nearest is NaN
                nearest = away
    return _on_grid(nearest)


@_hot
def _stop_level(sleeve: F64, w: int, slot: F64, s: int, x: int) -> float:
    """Price at which stop ``x`` of the position works now; a trail follows the peak."""
    k = at.FIRST_STOP + at.STOP_WIDTH * x
    level = slot[s, at.SLOT_COLUMNS + x]
    if sleeve[w, k + at.STOP_KIND] == at.TRAIL:
        if sleeve[w, k + at.STOP_UNIT] == at.PCT:
            return _away(slot[s, at.PEAK], -slot[s, at.SIDE] * level)
        return _beside(slot[s, at.PEAK], -slot[s, at.SIDE] * level)
    return level  # type: ignore[no-any-return]


# --- phase 9: opening prints ------------------------------------------------------------------------------------------


@_cold
def _need(account: F64, asset: F64, p: F64, lots: float) -> float:
    """What an opening of ``lots`` takes from what is available: cash, initial margin, or gross room."""
    if lots <= 0.0:
        return 0.0
    j = int(p[at.OF_ASSET])
    value = _value(asset, j, p[at.W_PRICE], lots)
    fee = _commission(asset, j, p[at.W_PRICE], p[at.W_CLOSED] + lots) - p[at.W_HELD_FEE]
    if account[at.RULES] == at.REG_T:
        return 0.5 * value + fee  # type: ignore[no-any-return]
    if account[at.RULES] == at.LINEAR:
        return value + np.rint(account[at.MAX_GROSS] * fee)  # type: ignore[no-any-return]
    return value + fee  # type: ignore[no-any-return]


@_cold
def _available(account: F64, count: I64, asset: F64, slot: F64) -> float:
    if account[at.RULES] == at.IN_CASH:
        return account[at.CASH]  # type: ignore[no-any-return]
    _mark(account, count, asset, slot)
    if account[at.RULES] == at.REG_T:
        return account[at.EQUITY] - 0.5 * account[at.GROSS]  # type: ignore[no-any-return]
    return account[at.MAX_GROSS] * account[at.EQUITY] - account[at.GROSS]  # type: ignore[no-any-return]


@_cold
def _fit(account: F64, asset: F64, p: F64, available: float) -> float:
    """Largest lot count, at most the wanted one, whose need is covered: gallop from the proportional guess, bisect."""
    want = p[at.W_LOTS]
    need = _need(account, asset, p, want)
    if need <= available:
        return want  # type: ignore[no-any-return]
    if available <= 0.0:
        return 0.0
    low = min(max(np.floor(want * (available / need)), 0.0), want - 1.0)
    high = low
    step = 1.0
    if _need(account, asset, p, low) <= available:
        high = min(low + step, want)
        while high < want and _need(account, asset, p, high) <= available:
            low = high
            step *= 2.0
            high = min(low + step, want)
    else:
        low = max(high - step, 0.0)
        while _need(account, asset, p, low) > available:
            high = low
            step *= 2.0
            low = max(high - step, 0.0)
    while high - low > 1.0:
        middle = np.floor((low + high) / 2.0)
        if _need(account, asset, p, middle) <= available:
            low = middle
        else:
            high = middle
    return low  # type: ignore[no-any-return]


@_cold
def _total_need(account: F64, asset: F64, slot: F64, queue: I64, n: int, less: float) -> float:
    """Sum of the needs of the queue, each order lowered by ``less`` lots."""
    total = 0.0
    for x in range(n):
        p = slot[queue[x]]
        total += _need(account, asset, p, max(p[at.W_FIT] - less, 0.0))
    return total


@_cold
def _share(account: F64, asset: F64, slot: F64, queue: I64, n: int, available: float) -> None:
    """Give the openings of one instant one common factor (domain.md 2.2), in order of their ids.

    "Lowered by one lot each in id order while cash is still short": whole rounds are counted by bisection, because a
    minimum commission may need millions of tiny lots; the last round goes order by order.
    """
    for x in range(n):
        slot[queue[x], at.W_FIT] = slot[queue[x], at.W_LOTS]
    total = _total_need(account, asset, slot, queue, n, 0.0)
    if total <= available:
        return
    factor = max(available, 0.0) / total
    low = 0.0  # after so many rounds it is still short
    high = 0.0  # after so many rounds nothing is left to pay
    for x in range(n):
        p = slot[queue[x]]
        p[at.W_FIT] = _whole(p[at.W_LOTS] * factor)
        high = max(high, p[at.W_FIT])
    total = _total_need(account, asset, slot, queue, n, 0.0)
    while high - low > 1.0 and total > available:
        middle = np.floor((low + high) / 2.0)
        if _total_need(account, asset, slot, queue, n, middle) > available:
            low = middle
        else:
            high = middle
    total = _total_need(account, asset, slot, queue, n, low)
    for x in range(n):
        p = slot[queue[x]]
        p[at.W_FIT] = max(p[at.W_FIT] - low, 0.0)
        if p[at.W_FIT] > 0.0 and total > available:
            total -= _need(account, asset, p, p[at.W_FIT])
            p[at.W_FIT] -= 1.0
            total += _need(account, asset, p, p[at.W_FIT])


@_hot
def _line_up(opening: F64, first: int, last: int, asset: F64, slot: F64, of_asset: I64, queue: I64) -> int:
    """Queue the working orders whose instruments print an opening with volume, by order id; return how many."""
    n = 0
    for k in range(first, last):
        if not opening[k, at.P_VOLUME] > 0.0:
            continue
        j = int(opening[k, 0])
        for a in range(of_asset[j], of_asset[j + 1]):
            s = of_asset[a]
            p = slot[s]
            if p[at.W_KIND] != 0.0:
                p[at.W_REF] = opening[k, at.P_OPEN]
                p[at.W_PRICE] = p[at.W_REF] * (asset[j, at.UP] if p[at.W_SIDE] > 0.0 else asset[j, at.DOWN])
                x = n
                while x > 0 and slot[queue[x - 1], at.W_ID] > p[at.W_ID]:
                    queue[x] = queue[x - 1]
                    x -= 1
                queue[x] = s
                n += 1
    return n


@_hot
def _drop(count: I64, p: F64) -> None:
    p[at.W_KIND] = 0.0
    count[at.WORKING] -= 1


@_cold
def _fill_queue(b: Books, n: int) -> None:
    """Fill market orders at the open: what closes first, then the openings, which share what is available."""
    account, count, asset, sleeve, slot, queue = b.account, b.counts, b.asset, b.sleeve, b.slot, b.queue
    for x in range(n):
        s = queue[x]
        p = slot[s]
        order = int(p[at.W_ID])
        j = int(p[at.OF_ASSET])
        p[at.W_CLOSED] = 0.0
        p[at.W_HELD_FEE] = 0.0
        if p[at.W_KIND] == at.REVERSE:
            p[at.W_CLOSED] = _flatten(b, s, order, p[at.W_PRICE], p[at.W_REF])
            # Kept back until the whole order is known: one commission line per order.
            p[at.W_HELD_FEE] = _commission(asset, j, p[at.W_PRICE], p[at.W_CLOSED])
            account[at.CASH] -= p[at.W_HELD_FEE]
            sleeve[int(p[at.OF_SLEEVE]), at.HELD_HERE] += 1.0  # its place stays taken
        elif p[at.W_KIND] != at.ENTER:
            _exit(b, s, order, int(p[at.W_KIND]), p[at.W_PRICE], p[at.W_REF], int(asset[j, at.ROW]) + 1)
            _drop(count, p)
    m = 0
    for x in range(n):
        s = queue[x]
        p = slot[s]
        w = int(p[at.OF_SLEEVE])
        if p[at.W_KIND] == at.ENTER and sleeve[w, at.HELD_HERE] >= sleeve[w, at.MAX_POSITIONS]:
            # An exit that was to make room did not fill (no volume), so the room is not there.
            _settle(b.orders, count, int(p[at.W_ID]), at.REJECTED, 0.0)
            count[at.C_CROWDED] += 1
            _drop(count, p)
        elif p[at.W_KIND] == at.ENTER or p[at.W_KIND] == at.REVERSE:
            sleeve[w, at.HELD_HERE] += 1.0 if p[at.W_KIND] == at.ENTER else 0.0
            queue[m] = s
            m += 1
    available = _available(account, count, asset, slot) if m > 0 else 0.0
    if m == 1:
        slot[queue[0], at.W_FIT] = _fit(account, asset, slot[queue[0]], available)
    elif m > 1:
        _share(account, asset, slot, queue, m, available)
    for x in range(m):
        _admit(b, queue[x])


@_cold
def _admit(b: Books, s: int) -> None:
    """Fill an opening with the lots it was given; a reversal ends its old trade first, commission shared by lots."""
    count, p = b.counts, b.slot[s]
    order, lots, closed = int(p[at.W_ID]), p[at.W_FIT], p[at.W_CLOSED]
    fee = 0.0
    share = 0.0
    if lots + closed > 0.0:
        fee = _commission(b.asset, int(p[at.OF_ASSET]), p[at.W_PRICE], closed + lots)
        b.account[at.CASH] += p[at.W_HELD_FEE]
        _charge(b, s, order, fee)
        share = np.rint((fee * closed) / (closed + lots))
    if closed > 0.0:
        row = int(b.asset[int(p[at.OF_ASSET]), at.ROW]) + 1
        _end_trade(b.trades, count, p, order, at.REVERSE, p[at.W_PRICE], share, row)
    if lots > 0.0:
        _open(b, s, order, lots, fee - share)
    else:
        b.sleeve[int(p[at.OF_SLEEVE]), at.HELD_HERE] -= 1.0
    status = at.FILLED if lots == p[at.W_LOTS] else at.SCALED if lots + closed > 0.0 else at.REJECTED
    count[at.C_SCALED] += 1 if status == at.SCALED else 0
    count[at.C_REJECTED] += 1 if status == at.REJECTED else 0
    _settle(b.orders, count, order, status, lots + closed)
    _drop(count, p)


# --- phases 1 to 4: corporate actions, bars, matching, cash -----------------------------------------------------------


@_cold
def _action(b: Books, act: F64) -> None:
    """Restate what is held and ordered before any price of the new basis; book a dividend on its ex-date."""
    asset, of_asset = b.asset, b.of_asset
    j = int(act[at.A_ASSET])
    for a in range(of_asset[j], of_asset[j + 1]):
        if act[at.IS_DIVIDEND] == 1.0:
            _dividend(b, of_asset[a], act)
        else:
            _split(b, of_asset[a], act)
    if act[at.IS_DIVIDEND] == 0.0:
        asset[j, at.MARK] = (asset[j, at.MARK] * act[at.A_DEN]) / act[at.A_NUM]


@_cold
def _dividend(b: Books, s: int, act: F64) -> None:
    """A receivable for who is long at the ex-date open, a debt for who is short."""
    p = b.slot[s]
    if p[at.POS] != 0.0:
        w, d = int(p[at.OF_SLEEVE]), int(act[at.A_DIVIDEND])
        flow = _value(b.asset, int(p[at.OF_ASSET]), act[at.A_AMOUNT], p[at.POS])
        b.receivable[d, w] += flow
        p[at.PNL] += flow
        p[at.DIVIDENDS] += flow
        b.counts[at.C_PAY_ASSUMED] += int(act[at.A_PAY_ASSUMED])
        _book(b, at.DIVIDEND_EX, w, int(p[at.INSTRUMENT]), int(act[at.A_DAY]), 0.0, flow)


@_hot
def _times(count: I64, lots: float, num: float, den: float) -> float:
    """floor(lots x num / den) for integers; the float quotient may have been rounded up to the next integer."""
    product = lots * num
    _bound(count, product)
    floor = np.floor(product / den)
    return floor - 1.0 if floor * den > product else floor  # type: ignore[no-any-return]


@_cold
def _split(b: Books, s: int, act: F64) -> None:
    """Multiply lots by num / den and divide prices by it. Fractions of a lot are cashed at the previous close over
    the ratio; a position that vanishes that way ends its trade."""
    count, p = b.counts, b.slot[s]
    rules = b.sleeve[int(p[at.OF_SLEEVE])]
    j, num, den = int(p[at.OF_ASSET]), act[at.A_NUM], act[at.A_DEN]
    most = (p.shape[0] - at.SLOT_COLUMNS) // 2
    for x in range(int(rules[at.STOPS])):
        k = at.FIRST_STOP + at.STOP_WIDTH * x
        if rules[k + at.STOP_KIND] != at.TRAIL:
            p[at.SLOT_COLUMNS + x] = _restated(p[at.SLOT_COLUMNS + x], num, den)
        elif rules[k + at.STOP_UNIT] != at.PCT:
            p[at.SLOT_COLUMNS + x] = (p[at.SLOT_COLUMNS + x] * den) / num  # a distance; the price is put on the grid
        p[at.SLOT_COLUMNS + most + x] = _restated(p[at.SLOT_COLUMNS + most + x], num, den)
    p[at.PEAK] = (p[at.PEAK] * den) / num
    if p[at.POS] != 0.0:
        held = abs(p[at.POS])
        lots = _times(count, held, num, den)
        rest = ((held * num - lots * den) * b.asset[j, at.LOT_MICRO]) / (den * 1e6)
        price = (b.asset[j, at.MARK] * den) / num
        if rest > 0.0:
            flow = p[at.SIDE] * np.rint(((price * rest) * b.asset[j, at.MULTIPLIER]) * 1e6)
            p[at.PNL] += flow
            _book(b, at.SPLIT_CASH, int(p[at.OF_SLEEVE]), int(p[at.INSTRUMENT]), int(act[at.A_DAY]), flow, 0.0)
        p[at.POS] = p[at.SIDE] * lots
        if lots == 0.0:
            p[at.POS] = 0.0
            count[at.HELD] -= 1
            count[at.TOUCHED] = 1
            rules[at.HELD_HERE] -= 1.0
            _end_trade(b.trades, count, p, -1, at.SPLIT, price, 0.0, int(b.asset[j, at.ROW]) + 1)
    if p[at.W_KIND] != 0.0:
        p[at.W_LOTS] = _times(count, p[at.W_LOTS], num, den)
        if p[at.POS] == 0.0 and p[at.W_KIND] == at.REVERSE:
            p[at.W_KIND] = at.ENTER
        if p[at.POS] == 0.0 and (p[at.W_KIND] != at.ENTER or p[at.W_LOTS] == 0.0):
            _lapse(b.orders, count, p)


@_hot
def _bars(bar: F64, first: int, last: int, i: int, is_held: bool, asset: F64, slot: F64, of_asset: I64) -> None:
    """Take in the bars that close now."""
    for k in range(first, last):
        j = int(bar[k, at.B_ASSET])
        asset[j, at.MARK] = bar[k, at.B_CLOSE]
        asset[j, at.ROW] = bar[k, at.B_ROW]
        asset[j, at.SEEN_AT] = i
        if is_held:
            for a in range(of_asset[j], of_asset[j + 1]):
                slot[of_asset[a], at.BARS] += 1.0 if slot[of_asset[a], at.POS] != 0.0 else 0.0


@_hot
def _touched(bar: F64, k: int, sleeve: F64, slot: F64, s: int, is_target: bool) -> float:
    """Price at which a stop (or a target) of slot ``s`` trades in bar ``k``, NaN if none; its kind goes to PICK.

    A gap trades at the open. A stop trades by touch, a target is a limit: touched is not filled. Of several stops the
    price meets the nearest first. Everything is seen from the long side: prices of a short are negated.
    """
    w = int(slot[s, at.OF_SLEEVE])
    side = slot[s, at.SIDE]
    start = side * bar[k, at.B_OPEN]
    low = bar[k, at.B_LOW] if side > 0.0 else -bar[k, at.B_HIGH]
    high = bar[k, at.B_HIGH] if side > 0.0 else -bar[k, at.B_LOW]
    slot[s, at.PEAK] = side * max(side * slot[s, at.PEAK], start)
    nearest = np.nan
    for x in range(int(sleeve[w, at.STOPS])):
        kind = sleeve[w, at.FIRST_STOP + at.STOP_WIDTH * x + at.STOP_KIND]
        if (kind == at.TARGET) == is_target:
            level = side * _stop_level(sleeve, w, slot, s, x)
            is_nearer = not nearest <= level if is_target else not nearest >= level  # the first one too
            if is_nearer and not np.isnan(level):
                nearest = level
                slot[s, at.PICK] = kind
    if is_target:
        return side * (start if start >= nearest else nearest if high > nearest else np.nan)  # type: ignore[no-any-return]
    return side * (start if start <= nearest else nearest if low <= nearest else np.nan)  # type: ignore[no-any-return]


@_hot
def _line_up_stops(
    bar: F64, first: int, last: int, is_target: bool, sleeve: F64, slot: F64, of_asset: I64, queue: I64
) -> int:
    """Queue the positions whose stops (or targets) trade in the bars that close now, by order id of the entry."""
    n = 0
    for k in range(first, last):
        j = int(bar[k, at.B_ASSET])
        for a in range(of_asset[j], of_asset[j + 1]):
            s = of_asset[a]
            if slot[s, at.POS] != 0.0 and bar[k, at.B_VOLUME] > 0.0:
                ref = _touched(bar, k, sleeve, slot, s, is_target)
                if not np.isnan(ref):
                    slot[s, at.W_REF] = ref
                    x = n
                    while x > 0 and slot[queue[x - 1], at.ENTRY_ID] > slot[s, at.ENTRY_ID]:
                        queue[x] = queue[x - 1]
                        x -= 1
                    queue[x] = s
                    n += 1
    return n


@_hot
def _lift(bar: F64, first: int, last: int, slot: F64, of_asset: I64) -> None:
    """Lift the peaks, which trails follow, with the bars that have been tested."""
    for k in range(first, last):
        j = int(bar[k, at.B_ASSET])
        for a in range(of_asset[j], of_asset[j + 1]):
            s = of_asset[a]
            if slot[s, at.POS] != 0.0 and bar[k, at.B_VOLUME] > 0.0:
                if slot[s, at.SIDE] > 0.0:
                    slot[s, at.PEAK] = max(slot[s, at.PEAK], bar[k, at.B_HIGH])
                else:
                    slot[s, at.PEAK] = min(slot[s, at.PEAK], bar[k, at.B_LOW])


@_cold
def _stop_out(b: Books, n: int, is_target: bool) -> None:
    """Execute the queue of stops or targets: a stop becomes a market order, a target is a limit and does not slip."""
    for x in range(n):
        p = b.slot[b.queue[x]]
        j = int(p[at.OF_ASSET])
        ref, kind = p[at.W_REF], int(p[at.PICK])
        price = ref * (1.0 if is_target else b.asset[j, at.DOWN] if p[at.SIDE] > 0.0 else b.asset[j, at.UP])
        order = _order(b.orders, b.counts, p, kind, -p[at.SIDE], abs(p[at.POS]), ref)
        _exit(b, b.queue[x], order, kind, price, ref, int(b.asset[j, at.ROW]))


@_cold
def _pay(b: Books, pay: I64) -> None:
    """Turn a receivable into cash."""
    d = pay[at.P_DIVIDEND]
    instrument = int(b.slot[b.of_asset[b.of_asset[pay[at.P_ASSET]]], at.INSTRUMENT])
    for w in range(b.receivable.shape[1]):
        flow = b.receivable[d, w]
        if flow != 0.0:
            b.receivable[d, w] = 0.0
            _book(b, at.DIVIDEND_PAY, w, instrument, pay[at.P_DAY], flow, -flow)


@_cold
def _lapse(orders: I64, count: I64, p: F64) -> None:
    _settle(orders, count, int(p[at.W_ID]), at.LAPSED, 0.0)
    count[at.C_LAPSED] += 1
    _drop(count, p)


@_cold
def _lapse_old(orders: I64, count: I64, asset: F64, slot: F64, closed: int, ttl: float) -> None:
    """At the close of a session of these calendars: orders that have worked through ``ttl`` of their own lapse."""
    for s in range(slot.shape[0]):
        p = slot[s]
        if p[at.W_KIND] != 0.0 and (closed >> int(asset[int(p[at.OF_ASSET]), at.CALENDAR])) & 1 == 1:
            p[at.W_SESSIONS] += 1.0
            if p[at.W_SESSIONS] >= ttl:
                _lapse(orders, count, p)


@_cold
def _lapse_all(orders: I64, count: I64, slot: F64) -> None:
    for s in range(slot.shape[0]):
        if slot[s, at.W_KIND] != 0.0:
            _lapse(orders, count, slot[s])


# --- phase 6: ruin and margin -----------------------------------------------------------------------------------------


@_cold
def _ruin(b: Books, pay: I64) -> None:
    """Equity is gone: close everything at the mark, settle what is owed; the account stays at that value."""
    count, slot = b.counts, b.slot
    _lapse_all(b.orders, count, slot)
    for s in range(slot.shape[0]):
        p = slot[s]
        if p[at.POS] != 0.0:
            j = int(p[at.OF_ASSET])
            mark = b.asset[j, at.MARK]
            order = _order(b.orders, count, p, at.RUINED, -p[at.SIDE], abs(p[at.POS]), mark)
            _exit(b, s, order, at.RUINED, mark, mark, int(b.asset[j, at.ROW]))
    for k in range(pay.shape[0]):
        _pay(b, pay[k])
    b.account[at.GROSS] = 0.0
    count[at.RUIN] = count[at.NOW] + 1


@_hot
def _maintenance(asset: F64, slot: F64) -> float:
    """Maintenance requirement of an account reg_t: 25 % of longs, 30 % of shorts; of each slot in PICK."""
    total = 0.0
    for s in range(slot.shape[0]):
        slot[s, at.PICK] = 0.0
        if slot[s, at.POS] != 0.0 and slot[s, at.W_KIND] == 0.0:
            j = int(slot[s, at.OF_ASSET])
            value = _value(asset, j, asset[j, at.MARK], slot[s, at.POS])
            slot[s, at.PICK] = np.rint((0.25 if value > 0.0 else 0.30) * abs(value))
            total += slot[s, at.PICK]
    return total


@_cold
def _margin(b: Books, total: float) -> None:
    """A breach at a session close: close the largest requirement first, then the lower id, at the next open, until
    equity covers what remains."""
    asset, slot, equity = b.asset, b.slot, b.account[at.EQUITY]
    b.counts[at.C_MARGIN_CALL] += 1
    while equity < total:
        worst = 0
        for s in range(1, slot.shape[0]):
            more = slot[s, at.PICK] - slot[worst, at.PICK]
            if more > 0.0 or (more == 0.0 and slot[s, at.OF_ASSET] < slot[worst, at.OF_ASSET]):
                worst = s
        p = slot[worst]
        total -= p[at.PICK]
        p[at.PICK] = 0.0
        _work(b.orders, b.counts, asset, p, at.FORCED, -p[at.SIDE], 0.0, abs(p[at.POS]))


# --- phases 7 and 8: decisions and admission --------------------------------------------------------------------------


@_cold
def _work(orders: I64, count: I64, asset: F64, p: F64, kind: int, side: float, opens: float, closes: float) -> None:
    """Admit an order: it works from now on. It closes the position (``closes`` lots now) and opens ``opens`` lots."""
    mark = asset[int(p[at.OF_ASSET]), at.MARK]
    p[at.W_ID] = _order(orders, count, p, kind, side, opens + closes, mark)
    p[at.W_KIND] = kind
    p[at.W_SIDE] = side
    p[at.W_LOTS] = opens
    p[at.W_SESSIONS] = 0.0
    count[at.WORKING] += 1


@_cold
def _size(account: F64, count: I64, asset: F64, rules: F64, p: F64, held: float) -> float:
    """Lots to open, from equity and prices as they are now, floored; ``held``: lots that the same order closes."""
    j = int(p[at.OF_ASSET])
    price, many = asset[j, at.MARK], asset[j, at.MULTIPLIER]
    weight, among = rules[at.WEIGHT], rules[at.AMONG]
    kept = account[at.KEEP] * (account[at.EQUITY] / 1e6)
    budget = weight if rules[at.MODE] == at.BY_NOTIONAL else (weight * kept) / among
    lots = max(_whole(((budget / (price * many)) * asset[j, at.LOTS_UP]) / asset[j, at.LOTS_DOWN]), 0.0)
    if rules[at.MODE] == at.QTY:
        lots = p[at.QTY_LOTS]
    _bound(count, lots)
    if rules[at.MODE] == at.BY_EQUITY and account[at.RESERVE_FEES] == 1.0:
        # The largest q with q x price <= w x ((1 - pct) x equity - fee(q)): a bisection, since the fee has a minimum.
        low, high = 0.0, lots + 1.0
        while high - low > 1.0:
            middle = np.floor((low + high) / 2.0)
            cost = (price * ((middle * asset[j, at.LOT_MICRO]) / 1e6)) * many
            limit = (weight * (kept - _commission(asset, j, price, held + middle) / 1e6)) / among
            if np.rint(cost * 1e6) <= np.rint(limit * 1e6):
                low = middle
            else:
                high = middle
        lots = low
    count[at.C_TOO_SMALL] += 1 if lots == 0.0 else 0
    return lots


@_cold
def _freeze(count: I64, rules: F64, p: F64, series: F64, r: int) -> bool:
    """Freeze the levels of an entry; False if one is unknown: a position without its stop is never opened."""
    first = at.SLOT_COLUMNS + (p.shape[0] - at.SLOT_COLUMNS) // 2
    for x in range(int(rules[at.STOPS])):
        k = at.FIRST_STOP + at.STOP_WIDTH * x
        if rules[k + at.STOP_UNIT] == at.LEVEL:
            p[first + x] = _on_grid(series[1 + int(rules[k + at.STOP_LEVEL]), r])
            if np.isnan(p[first + x]):
                count[at.C_LEVEL_UNKNOWN] += 1
                return False
    return True


@_hot
def _wants_out(asset: F64, sleeve: F64, w: int, slot: F64, signals: U8, i: int) -> bool:
    """Whether a position of the sleeve may be closed now; ``_leave`` looks closer."""
    for s in range(int(sleeve[w, at.FIRST_SLOT]), int(sleeve[w, at.END_SLOT])):
        j = int(slot[s, at.OF_ASSET])
        if slot[s, at.POS] != 0.0 and asset[j, at.SEEN_AT] == i:
            r = int(slot[s, at.OFFSET]) + int(asset[j, at.ROW])
            is_long = slot[s, at.POS] > 0.0
            if signals[at.EXIT_LONG if is_long else at.EXIT_SHORT, r] != 0:
                return True
            if signals[at.ENTER_SHORT if is_long else at.ENTER_LONG, r] != 0:
                return True
            if sleeve[w, at.TIME_BARS] > 0.0 and slot[s, at.BARS] >= sleeve[w, at.TIME_BARS]:
                return True
    return False


@_cold
def _leave(b: Books, signals: U8, series: F64, i: int, w: int) -> None:
    """Exits and reversals of one sleeve, in id order. An opposite entry reverses; a plain exit wins over a same-side
    entry; under a cooldown a reversal can only close."""
    count, asset, slot, rules = b.counts, b.asset, b.slot, b.sleeve[w]
    for s in range(int(rules[at.FIRST_SLOT]), int(rules[at.END_SLOT])):
        p = slot[s]
        j = int(p[at.OF_ASSET])
        if p[at.POS] == 0.0 or p[at.W_KIND] != 0.0 or asset[j, at.SEEN_AT] != i:
            continue
        r = int(p[at.OFFSET]) + int(asset[j, at.ROW])
        is_long = p[at.POS] > 0.0
        against = signals[at.ENTER_SHORT if is_long else at.ENTER_LONG, r] == 1
        if signals[at.ENTER_SHORT, r] == 1 and signals[at.ENTER_LONG, r] == 1:
            count[at.C_CONFLICT] += 1
            against = False
        lots = abs(p[at.POS])
        opens = 0.0
        if against and rules[at.COOLDOWN] == 0.0 and _freeze(count, rules, p, series, r):
            opens = _size(b.account, count, asset, rules, p, lots)
        kind = 0
        if opens > 0.0:
            kind = at.REVERSE
        elif against or signals[at.EXIT_LONG if is_long else at.EXIT_SHORT, r] == 1:
            kind = at.EXIT
        elif rules[at.TIME_BARS] > 0.0 and p[at.BARS] >= rules[at.TIME_BARS]:
            kind = at.TIME
        if kind != 0:
            _work(b.orders, count, asset, p, kind, -p[at.SIDE], opens, lots)


@_hot
def _wants_in(asset: F64, sleeve: F64, w: int, slot: F64, signals: U8, i: int) -> bool:
    """Whether a flat slot of the sleeve has an entry signal now; ``_candidates`` looks closer."""
    for s in range(int(sleeve[w, at.FIRST_SLOT]), int(sleeve[w, at.END_SLOT])):
        j = int(slot[s, at.OF_ASSET])
        if slot[s, at.POS] == 0.0 and asset[j, at.SEEN_AT] == i:
            r = int(slot[s, at.OFFSET]) + int(asset[j, at.ROW])
            if signals[at.ENTER_LONG, r] != 0 or signals[at.ENTER_SHORT, r] != 0:
                return True
    return False


@_cold
def _candidates(b: Books, signals: U8, series: F64, i: int, w: int) -> int:
    """Queue the slots of one sleeve that want to enter now, in id order; return how many."""
    count, asset, slot, rules = b.counts, b.asset, b.slot, b.sleeve[w]
    n = 0
    for s in range(int(rules[at.FIRST_SLOT]), int(rules[at.END_SLOT])):
        p = slot[s]
        j = int(p[at.OF_ASSET])
        r = int(p[at.OFFSET]) + int(asset[j, at.ROW])
        if asset[j, at.SEEN_AT] != i or (signals[at.ENTER_LONG, r] == 0 and signals[at.ENTER_SHORT, r] == 0):
            continue
        if p[at.POS] != 0.0 or p[at.W_KIND] != 0.0 or asset[j, at.ROW] - p[at.EXIT_ROW] < rules[at.COOLDOWN]:
            continue
        if signals[at.ENTER_LONG, r] == signals[at.ENTER_SHORT, r]:
            count[at.C_CONFLICT] += 1
        elif rules[at.PREFERS] == 1.0 and np.isnan(series[0, r]):
            count[at.C_PREFER_UNKNOWN] += 1
        elif _freeze(count, rules, p, series, r):
            b.queue[n] = s
            n += 1
    return n


@_cold
def _arrive(b: Books, signals: U8, series: F64, w: int, n: int) -> None:
    """Order the candidates in the queue, or as many of the best as there is room for; ties go to the lower id."""
    count, asset, slot, queue, rules = b.counts, b.asset, b.slot, b.queue, b.sleeve[w]
    room = int(rules[at.MAX_POSITIONS])
    for s in range(int(rules[at.FIRST_SLOT]), int(rules[at.END_SLOT])):
        kind = slot[s, at.W_KIND]
        slot[s, at.PICK] = 0.0
        if kind == at.ENTER or (slot[s, at.POS] != 0.0 and (kind == 0.0 or kind == at.REVERSE)):
            room -= 1
    for _ in range(min(room, n)):
        best = -1
        highest = 0.0
        for x in range(n):
            p = slot[queue[x]]
            value = 0.0
            if rules[at.PREFERS] == 1.0:
                value = series[0, int(p[at.OFFSET]) + int(asset[int(p[at.OF_ASSET]), at.ROW])]
            if p[at.PICK] == 0.0 and (best < 0 or value > highest):
                best = queue[x]
                highest = value
        slot[best, at.PICK] = 1.0
    for x in range(n):
        p = slot[queue[x]]
        if p[at.PICK] == 1.0:
            lots = _size(b.account, count, asset, rules, p, 0.0)
            if lots > 0.0:
                r = int(p[at.OFFSET]) + int(asset[int(p[at.OF_ASSET]), at.ROW])
                side = 1.0 if signals[at.ENTER_LONG, r] == 1 else -1.0
                _work(b.orders, count, asset, p, at.ENTER, side, lots, 0.0)


# --- the loop ---------------------------------------------------------------------------------------------------------


@_cold
def _end(b: Books) -> None:
    """The run is over: working orders lapse, open positions are marked and listed after the closed trades."""
    count, asset = b.counts, b.asset
    _lapse_all(b.orders, count, b.slot)
    for s in range(b.slot.shape[0]):
        p = b.slot[s]
        if p[at.POS] != 0.0:
            j = int(p[at.OF_ASSET])
            pnl = p[at.PNL] + _value(asset, j, asset[j, at.MARK], p[at.POS])
            _bound(count, pnl)
            k = count[at.N_TRADES] + count[at.N_OPEN]
            _trade(b.trades, count, p, k, -1, 0, asset[j, at.MARK], int(asset[j, at.ROW]), pnl)
            count[at.N_OPEN] += 1
    count[at.ENDED] = 1


def _table(dtype: Type, dims: int, *, readonly: bool) -> Type:
    return Array(dtype, dims, "C", readonly=readonly)


_READ = ((int64, 2), (float64, 2), (float64, 2), (int64, 2), (float64, 2), (uint8, 2), (float64, 2), (int64, 1))
_WRITTEN = (
    (float64, 1), (int64, 1), (float64, 2), (float64, 2), (float64, 2), (float64, 2), (int64, 1),
    (int64, 2), (int64, 2), (int64, 2), (int64, 2), (int64, 2),
)  # fmt: skip
_SIGNATURE = int64(
    int64, *(_table(*kind, readonly=True) for kind in _READ), *(_table(*kind, readonly=False) for kind in _WRITTEN)
)


@kernel(_SIGNATURE)
def advance(
    last: int, inst: I64, act: F64, bar: F64, pay: I64, opening: F64, signals: U8, series: F64, of_asset: I64,
    account: F64, count: I64, asset: F64, sleeve: F64, slot: F64, receivable: F64, queue: I64,
    orders: I64, fills: I64, cash: I64, trades: I64, sessions: I64,
) -> int:  # fmt: skip
    """Carry the state over the instants [count[NEXT], ``last``); return DONE, ROOM or OVERFLOW.

    Shapes:  as in ``step_layout``; sessions (4, n): equity and gross value at each session close, bars
             decided on, bars with a position. The first eight tables (tape, signals, slots by asset) are only read.
    Errors:  ROOM: a table of records may be too short for the next instant, nothing of which has happened yet; grow
             it and call again. OVERFLOW: an amount reached 2**53 micro-units in the instant count[NEXT].
    Order:   that of domain.md 3.1; after the last instant of the tape the run is ended.
    """
    b = Books(account, count, asset, sleeve, slot, of_asset, receivable, queue, orders, fills, cash, trades)
    # The most that one instant can write: four orders, fills, trades and commissions to each slot, and two lines to a
    # slot for each corporate action and pay date; a ruin may pay all dividends at once.
    most = 4 * slot.shape[0]
    order_room, fill_room, trade_room = orders.shape[0] - most, fills.shape[0] - most, trades.shape[0] - most
    cash_room = cash.shape[0] - most - 2 * slot.shape[0] * pay.shape[0]
    has_stops, has_targets = False, False
    for w in range(sleeve.shape[0]):
        for x in range(int(sleeve[w, at.STOPS])):
            is_target = sleeve[w, at.FIRST_STOP + at.STOP_WIDTH * x + at.STOP_KIND] == at.TARGET
            has_stops, has_targets = has_stops or not is_target, has_targets or is_target
    for i in range(count[at.NEXT], last):
        if count[at.N_ORDERS] > order_room or count[at.N_FILLS] > fill_room or count[at.N_TRADES] > trade_room:
            return at.ROOM
        if count[at.N_CASH] + 2 * slot.shape[0] * (inst[i, at.ACT_END] - count[at.AT_ACT]) > cash_room:
            return at.ROOM
        count[at.CLOCK] = inst[i, at.TS]
        first_bar, end_bar = count[at.AT_BAR], inst[i, at.BAR_END]
        closes = inst[i, at.SESSION] >= 0
        if count[at.RUIN] == 0:
            if end_bar > first_bar:
                _bars(bar, first_bar, end_bar, i, count[at.HELD] > 0, asset, slot, of_asset)
                if count[at.HELD] > 0 and has_stops:
                    n = _line_up_stops(bar, first_bar, end_bar, False, sleeve, slot, of_asset, queue)
                    if n > 0:
                        _stop_out(b, n, False)
                if count[at.HELD] > 0 and has_targets:
                    n = _line_up_stops(bar, first_bar, end_bar, True, sleeve, slot, of_asset, queue)
                    if n > 0:
                        _stop_out(b, n, True)
                if count[at.HELD] > 0 and has_stops:
                    _lift(bar, first_bar, end_bar, slot, of_asset)
            if closes or end_bar > first_bar:
                _mark(account, count, asset, slot)
            if count[at.WORKING] > 0 and inst[i, at.CLOSED] != 0:
                _lapse_old(orders, count, asset, slot, inst[i, at.CLOSED], account[at.TTL])
            if closes:
                if account[at.EQUITY] <= 0.0:
                    _ruin(b, pay)
                elif account[at.RULES] == at.REG_T and count[at.HELD] > 0:
                    total = _maintenance(asset, slot)
                    if account[at.EQUITY] < total:
                        _margin(b, total)
        if end_bar > first_bar:
            sessions[2, count[at.NOW]] += 1
            sessions[3, count[at.NOW]] += 1 if count[at.HELD] > 0 or count[at.TOUCHED] > 0 else 0
            count[at.TOUCHED] = 0
            if count[at.RUIN] == 0:
                for w in range(sleeve.shape[0]):
                    if sleeve[w, at.HELD_HERE] > 0.0 and _wants_out(asset, sleeve, w, slot, signals, i):
                        _leave(b, signals, series, i, w)
                    if _wants_in(asset, sleeve, w, slot, signals, i):
                        _arrive(b, signals, series, w, _candidates(b, signals, series, i, w))
        if closes:
            sessions[0, count[at.NOW]] = int(account[at.EQUITY])
            sessions[1, count[at.NOW]] = int(account[at.GROSS])
            count[at.NOW] += 1
        # Here the next session begins. Where days follow each other without a pause, the bar that closes at this very
        # instant is of the old basis.
        if count[at.RUIN] == 0:
            for k in range(count[at.AT_ACT], inst[i, at.ACT_END]):
                _action(b, act[k])
            for k in range(count[at.AT_PAY], inst[i, at.PAY_END]):
                _pay(b, pay[k])
        if count[at.WORKING] > 0 and inst[i, at.OPEN_END] > count[at.AT_OPEN]:
            n = _line_up(opening, count[at.AT_OPEN], inst[i, at.OPEN_END], asset, slot, of_asset, queue)
            if n > 0:
                _fill_queue(b, n)
        if count[at.GUARD] != 0:
            return at.OVERFLOW
        count[at.AT_ACT] = inst[i, at.ACT_END]
        count[at.AT_BAR] = inst[i, at.BAR_END]
        count[at.AT_PAY] = inst[i, at.PAY_END]
        count[at.AT_OPEN] = inst[i, at.OPEN_END]
        count[at.NEXT] = i + 1
    if last == inst.shape[0] and count[at.ENDED] == 0:
        _end(b)
    return at.OVERFLOW if count[at.GUARD] != 0 else at.DONE
