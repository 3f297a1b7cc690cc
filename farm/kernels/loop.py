"""The event loop: one account, carried instant by instant over a tape of events, through the phases of domain.md 3.1.

``advance`` is a fold: it takes the state and a range of instants, and leaves the state after them. At each instant first
what ends: closing bars (2), matching of what works (3), the mark with ruin and margin (6), decisions and admission
(7, 8); then the session that opens: corporate actions (1), dividend cash (4), opening prints (9). Nothing is read beyond
the instant at hand, so where a batch ends cannot matter. ``formula`` computes, ``decide_*`` order, ``match`` says what
fills, ``book`` moves the money. The plain twin is ``tests/reference/loop.py``.
"""

import numpy as np
from numba import njit

from farm.kernels.book import act, end, mark, pay, ruin
from farm.kernels.decide_rules import check_margin, decide, said_by
from farm.kernels.match import at_open, in_bars
from farm.kernels.orders import lapse_old
from farm.kernels.records import DONE, NONE, OVERFLOW, REG_T, ROOM, Books, Table, Tape
from farm.values.arrays import F64, U8

_hot = njit(error_model="numpy", forceinline=True)


@_hot
def _take(asset: Table, bars: Table, first: int, last: int) -> bool:
    """Take in the bars that close now; return whether an order works on one of them."""
    works = False
    for k in range(first, last):
        bar = bars[k]
        j = asset[bar.asset]
        j.mark = bar.close
        j.row = bar.row
        j.bar = k
        works |= j.first_order != NONE
    return works


@njit(nogil=True, error_model="numpy")
def advance(last: int, tape: Tape, signals: U8, numbers: F64, b: Row) -> int:
    """Carry the state over the instants [account.next, ``last``); return DONE, ROOM or OVERFLOW.

    Shapes:  as in ``records``; signals (w, bars), numbers (w, 1 + levels, bars or 0). Tape, signals and numbers are only
             read.
    Errors:  ROOM: a table of records may be too short for the next instant, nothing of which has happened yet; grow
             it and call again. OVERFLOW: an amount reached 2**53 in the instant account.next.
    Order:   that of domain.md 3.1; after the last instant of the tape the run is ended.
    """
    # Books and tape are big aggregates: whoever is called with them costs something, so what happens at every instant
    # has its tables at hand.
    account, asset, sleeve, position, held, sessions = tables.account(b), b.asset, b.sleeve, b.position, b.held, b.session
    instants, bars = tape.instants, tape.bars
    # The most that one instant can write: to each position four orders (and the guards of two), fills, trades and
    # commissions, and two lines for each corporate action and pay date; a ruin may pay all dividends at once.
    n = position.shape[0]
    order_room = b.order.shape[0] - 4 * n - 2 * n * b.stop.shape[0]
    fill_room, trade_room = b.fill.shape[0] - 4 * n, b.trade.shape[0] - 4 * n
    cash_room = b.cash.shape[0] - 4 * n - 2 * n * tape.payments.shape[0]
    for i in range(account.next, last):
        instant = instants[i]
        if account.orders > order_room or account.fills > fill_room or account.trades > trade_room:
            return ROOM
        if account.cash_lines + 2 * n * (instant.act_end - account.act) > cash_room:
            return ROOM
        first, end_bar = account.bar, instant.bar_end
        closes = instant.session >= 0
        account.ts = instant.ts
        if account.ruin == 0:
            if end_bar > first and _take(asset, bars, first, end_bar):
                in_bars(b, bars, first, end_bar)
            if closes or end_bar > first:
                mark(account, asset, position, held)
            if closes:
                if account.working > 0:
                    lapse_old(b, account.ttl)
                if account.equity <= 0.0:
                    ruin(b, tape.payments)
                elif account.rules == REG_T and account.held > 0:
                    check_margin(b, numbers)
        if end_bar > first:
            session = sessions[account.session]
            session.decision_bars += 1
            session.market_bars += 1 if account.held > 0 or account.was_held > 0 else 0
            account.was_held = 0
            if account.ruin == 0:
                for w in range(sleeve.shape[0]):
                    said = said_by(signals, w, first, end_bar)
                    if said != 0 or (sleeve[w].time_bars > 0 and sleeve[w].held > 0):
                        decide(b, bars, first, end_bar, signals, numbers, w, said)
        if closes:
            session = sessions[account.session]
            session.equity = np.int64(account.equity)
            session.position = np.int64(account.gross)
            account.session += 1
        # Here the next session begins. Where days follow each other without a pause, the bar that closes at this very
        # instant is of the old basis.
        if account.ruin == 0:
            for k in range(account.act, instant.act_end):
                act(b, tape.actions[k])
            for k in range(account.pay, instant.pay_end):
                pay(b, tape.payments[k])
        if account.working > 0 and instant.open_end > account.opening:
            at_open(b, tape.openings, account.opening, instant.open_end)
        if account.broken != 0:
            return OVERFLOW
        account.act = instant.act_end
        account.bar = end_bar
        account.pay = instant.pay_end
        account.opening = instant.open_end
        account.next = i + 1
    if last == instants.shape[0] and account.ended == 0:
        end(b)
    return OVERFLOW if account.broken != 0 else DONE
