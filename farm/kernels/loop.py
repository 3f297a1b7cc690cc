"""The event loop: one account, carried instant by instant over a tape of events, through the phases of domain.md 3.1.

``advance`` is a fold: it takes the state and a range of instants, and leaves the state after them. At each instant
first what ends: closing bars (2), matching of what works (3), the mark with ruin and margin (6), decisions and
admission (7, 8); then the session that opens: corporate actions (1), dividend cash (4), opening prints (9). Nothing is
read beyond the instant at hand, so where a batch ends cannot matter. ``formula`` computes, ``decide_*`` order,
``match`` says what fills, ``book`` moves the money. The plain twin is ``tests/reference/loop.py``.
"""

from numba import from_dtype
from numba.core.types import Array, NamedTuple, float64, int64, uint8

from farm.kernels import records, tables
from farm.kernels.book import act, end, mark, pay, ruin
from farm.kernels.decide_rules import check_margin, decide, said_by
from farm.kernels.jit import helper, inlined, kernel
from farm.kernels.match import at_open, in_bars
from farm.kernels.orders import lapse_old
from farm.kernels.records import DONE, NONE, OVERFLOW, REG_T, ROOM, Table, Tables, TapeTables
from farm.values.arrays import F64, U8


def _table(name: str, *, readonly: bool) -> Array:
    return Array(from_dtype(records.TABLES[name]), 1, "C", readonly=readonly)


TAPE = NamedTuple([_table(name, readonly=True) for name in TapeTables._fields], TapeTables)  # type: ignore[no-untyped-call]
STATE = NamedTuple([_table(name, readonly=False) for name in Tables._fields], Tables)  # type: ignore[no-untyped-call]
_SIGNALS = Array(uint8, 2, "C", readonly=True)
_NUMBERS = Array(float64, 3, "C", readonly=True)
_BOOKS = Array(from_dtype(records.BOOKS), 1, "C")


@inlined
def open_books(b: records.Row, tape: TapeTables, signals: U8, numbers: F64, state: Tables) -> None:
    """Write down where everything is."""
    b.instants = tape.instants.ctypes.data
    b.actions = tape.actions.ctypes.data
    b.bars = tape.bars.ctypes.data
    b.payments = tape.payments.ctypes.data
    b.openings = tape.openings.ctypes.data
    b.signals = signals.ctypes.data
    b.numbers = numbers.ctypes.data
    b.account = state.account.ctypes.data
    b.tally = state.tally.ctypes.data
    b.asset = state.asset.ctypes.data
    b.sleeve = state.sleeve.ctypes.data
    b.stop = state.stop.ctypes.data
    b.structure = state.structure.ctypes.data
    b.position = state.position.ctypes.data
    b.of_asset = state.of_asset.ctypes.data
    b.held = state.held.ctypes.data
    b.working = state.working.ctypes.data
    b.queue = state.queue.ctypes.data
    b.receivable = state.receivable.ctypes.data
    b.order = state.order.ctypes.data
    b.fill = state.fill.ctypes.data
    b.cash = state.cash.ctypes.data
    b.trade = state.trade.ctypes.data
    b.session = state.session.ctypes.data
    b.bars_end = signals.shape[1]
    b.levels = numbers.shape[1]
    b.sleeves = state.sleeve.shape[0]
    b.stops = state.stop.shape[0]
    b.positions = state.position.shape[0]
    b.payments_end = tape.payments.shape[0]


@inlined
def _meet(b: records.Row, first: int, last: int) -> bool:
    """Lead the assets to the bars that close now; return whether an order works on one of them."""
    works = False
    for k in range(first, last):
        asset = tables.asset(b, tables.bar(b, k).asset)
        asset.bar = k
        works |= asset.first_order != NONE
    return works


@inlined
def _take(b: records.Row, first: int, last: int) -> None:
    """Take in the closes of these bars, which nobody knew inside them."""
    for k in range(first, last):
        bar = tables.bar(b, k)
        asset = tables.asset(b, bar.asset)
        asset.mark = bar.close
        asset.row = bar.row


@helper
def _pass_over(b: records.Row, last: int, act_at: int, bar_at: int, pay_at: int, open_at: int) -> tuple[int, int]:
    """Pass over the instants at which nothing can happen to an account that holds nothing and waits for nothing: no
    split, no dividend, and bars that say nothing. Return the rows of the bars and openings that have been taken then.
    """
    account = tables.account(b)
    equity = account.cash + account.receivable
    i = account.next
    while i < last and equity > 0.0:
        instant = tables.instant(b, i)
        if instant.act_end > act_at or instant.pay_end > pay_at:
            break
        if instant.bar_end > bar_at:
            said = 0
            for w in range(b.sleeves):
                said |= said_by(b, w, bar_at, instant.bar_end)
            if said != 0:
                break
            for k in range(bar_at, instant.bar_end):
                bar = tables.bar(b, k)
                asset = tables.asset(b, bar.asset)
                asset.mark = bar.close
                asset.row = bar.row
                asset.bar = k
            session = tables.session(b, account.session)
            session.decision_bars += 1
            session.market_bars += account.was_held
            account.was_held = 0
        if instant.session >= 0:
            session = tables.session(b, account.session)
            session.equity = int(equity)
            session.position = 0
            account.session += 1
        if instant.session >= 0 or instant.bar_end > bar_at:
            account.equity = equity
            account.gross = 0.0
        account.ts = instant.ts
        bar_at, open_at = instant.bar_end, instant.open_end
        i += 1
    account.next = i
    return bar_at, open_at


@kernel(int64(int64, TAPE, _SIGNALS, _NUMBERS, STATE, _BOOKS))
def advance(last: int, tape: TapeTables, signals: U8, numbers: F64, state: Tables, books: Table) -> int:
    """Carry the state over the instants [account.next, ``last``); return DONE, ROOM or OVERFLOW.

    Shapes:  as in ``records``; signals (w, bars), numbers (w, 1 + levels, bars or 0), both only read, as the tape is;
             books (1,): scratch.
    Errors:  ROOM: a table of records may be too short for the next instant, nothing of which has happened yet; grow
             it and call again. OVERFLOW: an amount reached 2**53 in the instant account.next.
    Order:   that of domain.md 3.1; after the last instant of the tape the run is ended.
    """
    b = books[0]
    open_books(b, tape, signals, numbers, state)
    account = tables.account(b)
    # The most that one instant can write: to each position four orders (and the guards of two), eight fills, trades and
    # commissions, and two lines for each corporate action and pay date; a ruin may pay all dividends at once.
    n = b.positions
    order_room = state.order.shape[0] - 4 * n - 2 * n * b.stops
    fill_room, trade_room = state.fill.shape[0] - 8 * n, state.trade.shape[0] - 8 * n
    cash_room = state.cash.shape[0] - 8 * n - 2 * n * b.payments_end
    act_at, bar_at, pay_at, open_at = 0, 0, 0, 0  # rows of the tape that have been taken
    if account.next > 0:
        before = tables.instant(b, account.next - 1)
        act_at, bar_at, pay_at, open_at = before.act_end, before.bar_end, before.pay_end, before.open_end
    while account.next < last:
        if account.held == 0 and account.working == 0 and account.ruin == 0:
            bar_at, open_at = _pass_over(b, last, act_at, bar_at, pay_at, open_at)
            if account.next == last:
                break
        i = account.next
        instant = tables.instant(b, i)
        if account.orders > order_room or account.fills > fill_room or account.trades > trade_room:
            return ROOM
        if account.cash_lines + 2 * n * (instant.act_end - act_at) > cash_room:
            return ROOM
        first, end_bar = bar_at, instant.bar_end
        closes = instant.session >= 0
        account.ts = instant.ts
        if account.ruin == 0:
            if end_bar > first and _meet(b, first, end_bar):
                in_bars(b, first, end_bar)
            _take(b, first, end_bar)
            if closes or end_bar > first:
                mark(b)
            if account.working > 0 and instant.closed != 0:
                lapse_old(b, instant.closed)
            if closes:
                if account.equity <= 0.0:
                    ruin(b)
                elif account.rules == REG_T and account.held > 0:
                    check_margin(b)
        if end_bar > first:
            session = tables.session(b, account.session)
            session.decision_bars += 1
            session.market_bars += 1 if account.held > 0 or account.was_held > 0 else 0
            account.was_held = 0
            if account.ruin == 0:
                for w in range(b.sleeves):
                    said = said_by(b, w, first, end_bar)
                    rules = tables.sleeve(b, w)
                    if said != 0 or (rules.time_bars > 0 and rules.held > 0):
                        decide(b, first, end_bar, w, said)
        if closes:
            session = tables.session(b, account.session)
            session.equity = int(account.equity)
            session.position = int(account.gross)
            account.session += 1
        # Here the next session begins. Where days follow each other without a pause, the bar that closes at this very
        # instant is of the old basis.
        if account.ruin == 0:
            for k in range(act_at, instant.act_end):
                act(b, k)
            for k in range(pay_at, instant.pay_end):
                pay(b, k)
        if account.working > 0 and instant.open_end > open_at:
            at_open(b, open_at, instant.open_end)
        if account.broken != 0:
            return OVERFLOW
        act_at, bar_at, pay_at, open_at = instant.act_end, end_bar, instant.pay_end, instant.open_end
        account.next = i + 1
    if last == tape.instants.shape[0] and account.ended == 0:
        end(b)
    return OVERFLOW if account.broken != 0 else DONE
