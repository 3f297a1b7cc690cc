"""The tables of a run: what an instant, a bar, an order, a position is, one comment a field; and the codes in them.

Rules: state and books are numpy record arrays, which kernels take by reference, so a field costs what a local costs.
Instants are int64 ns UTC, lots are int64 (signed by side where a field says so), money is whole micro-units of the
account currency in float64 below 2**53, prices are raw float64. -1 is "none" wherever a field holds a row. Records are
appended and never moved; what an order or a position *is* stands in its own row.

The books that a result keeps are columns of ORDER, FILL, CASH and TRADE; which ones, and in which order they are
hashed, is decided in ``farm/results``, not by this layout.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Table: TypeAlias = npt.NDArray[np.void]
Row: TypeAlias = Any
"""One record, by reference: numba's record type has no counterpart in typing."""

LIMIT = 9007199254740992.0
"""2**53: integers in float64 are exact below. An amount that reaches it breaks the run (OVERFLOW)."""
NEVER = -(2**40)
"""A bar before every bar."""
NONE = -1

DONE, ROOM, OVERFLOW = 0, 1, 2
"""What ``advance`` returns."""

IN_CASH, REG_T, LINEAR = range(3)
"""Rules of the account."""
BY_QTY, BY_NOTIONAL, BY_EQUITY = range(3)
"""What the size of a sleeve is counted in."""
ENTER, EXIT, REVERSE, TIME, FORCED, STOP, TARGET, TRAIL, RUINED, SPLIT, ADD = range(1, 12)
"""Kinds of orders: why they were sent; and reasons for which trades end."""
IN_WORK, FILLED, SCALED, LAPSED, REJECTED, CANCELLED = range(6)
"""How an order stands."""
PCT, ABS, LEVEL, R = range(4)
"""Units of a stop: fraction of the entry price, distance in price, a price, multiples of the initial risk."""
COMMISSION, DIVIDEND_EX, DIVIDEND_PAY, SPLIT_CASH = range(1, 5)
"""Kinds of cash lines."""
ENTER_LONG, EXIT_LONG, ENTER_SHORT, EXIT_SHORT, ADD_MORE = 1, 2, 4, 8, 16
"""Bits of the signals: one byte for each sleeve and closing bar."""
PREFER = 0
"""Row of the numbers of a sleeve that holds its preference; stop levels follow."""


# --- the tape: what happens, in order; only read ----------------------------------------------------------------------

INSTANT = np.dtype(
    [
        ("ts", "<i8"),  # when
        ("session", "<i8"),  # the session of the run that closes now, or -1
        ("closed", "<i8"),  # a bit for each calendar of which a session closes now
        ("under_way", "<i8"),  # a bit for each calendar of which a session has opened before now, and closes after it
        ("act_end", "<i8"),  # where the rows of this instant end among the splits and ex-dates,
        ("bar_end", "<i8"),  # the closing bars,
        ("pay_end", "<i8"),  # the dividends paid,
        ("open_end", "<i8"),  # and the opening prints
    ]
)

ACTION = np.dtype(
    [
        ("asset", "<i8"),
        ("dividend", "<i8"),  # number of the dividend; -1: a split
        ("before", "<i8"),  # a split: row of the one before it of this asset, or -1
        ("day", "<i8"),  # ex-day
        ("pay_assumed", "<i8"),  # 1: no pay date is known, the ex-date stands in
        ("num", "<f8"),  # new shares
        ("den", "<f8"),  # for so many old ones
        ("amount", "<f8"),  # currency per share
    ]
)

BAR = np.dtype(
    [
        ("asset", "<i8"),
        ("row", "<i8"),  # which of the instrument's own bars it is
        ("open", "<f8"),
        ("high", "<f8"),  # NaN where it was not loaded: nothing compares true with it
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
    ]
)

PAYMENT = np.dtype([("dividend", "<i8"), ("asset", "<i8"), ("day", "<i8")])
"""Dividends on their pay dates, by number and ex-day; those that the run does not live to see come last."""

OPENING = np.dtype([("asset", "<i8"), ("price", "<f8"), ("volume", "<f8")])
"""An opening print, and the volume of the bar that it opens."""


# --- state ------------------------------------------------------------------------------------------------------------

ACCOUNT = np.dtype(
    [
        ("cash", "<f8"),
        ("receivable", "<f8"),  # dividends earned, less those owed, that are not paid yet
        ("equity", "<f8"),  # at the last mark
        ("gross", "<f8"),  # sum of absolute position values at the last mark
        ("rules", "<i8"),  # IN_CASH, REG_T or LINEAR
        ("max_gross", "<f8"),  # LINEAR: gross value allowed, in multiples of equity
        ("kept", "<f8"),  # share of equity that percent sizing may use
        ("reserves_fees", "<i8"),  # 1: percent sizing also keeps the commission back
        ("ttl", "<i8"),  # sessions of its instrument that an exit works for
        ("next", "<i8"),  # the next instant of the tape
        ("ts", "<i8"),  # the instant at hand
        ("session", "<i8"),  # the session at hand
        ("orders", "<i8"),  # rows in use: orders,
        ("sent", "<i8"),  # those of them that were sent, which are numbered,
        ("fills", "<i8"),
        ("cash_lines", "<i8"),
        ("trades", "<i8"),
        ("open_trades", "<i8"),  # after the closed ones, at the end of the run
        ("working", "<i8"),  # orders that wait for a print
        ("held", "<i8"),  # positions that are not flat
        ("was_held", "<i8"),  # 1: something was held at a moment since the last decision
        ("ruin", "<i8"),  # session of the ruin + 1; 0: none
        ("broken", "<i8"),  # 1: an amount reached 2**53
        ("ended", "<i8"),  # 1: the last instant is done and the books are closed
    ]
)

TALLY = np.dtype(
    [
        ("notional", "<i8"),  # absolute value traded
        ("commission", "<i8"),
        ("slippage", "<i8"),
        ("lapsed", "<i8"),  # orders that no print filled in time, or that the end of the run met in work
        ("rejected", "<i8"),  # orders of which no lot was covered
        ("scaled", "<i8"),  # orders of which fewer lots were covered than they asked for
        ("too_small", "<i8"),  # sizes below one lot
        ("no_place", "<i8"),  # entries whose place was to come from a position that did not close
        ("entry_conflict", "<i8"),  # long and short entry in one bar, both ignored
        ("level_unknown", "<i8"),  # entries not ordered because a stop level was unknown,
        ("prefer_unknown", "<i8"),  # or their preference
        ("margin_call", "<i8"),
        ("pay_date_assumed", "<i8"),
        ("limit_unknown", "<i8"),  # entries not ordered because their limit was unknown, or not above 0
        ("cancelled", "<i8"),  # reversals that waited for their limit when an exit or a margin call came
    ]
)
"""Sums in micro-units, and counted incidents."""

ASSET = np.dtype(
    [
        # What every closing bar touches stands first, in one cache line.
        ("mark", "<f8"),  # last close
        ("row", "<i8"),  # own bar of the last close; -1 before the first
        ("bar", "<i8"),  # row among the closing bars of the tape of that bar, or of the one that is being matched
        ("first_order", "<i8"),  # first of the orders that work on it, or -1; ORDER.next leads on
        ("first_position", "<i8"),  # where the positions in it begin in ``Books.of_asset``,
        ("end_position", "<i8"),  # and end
        ("lot_micro", "<f8"),  # millionths of a share that make a lot
        ("lots_up", "<f8"),  # shares x lots_up / lots_down = lots: one of the two is 1
        ("lots_down", "<f8"),
        ("multiplier", "<f8"),  # shares that the price is for
        ("up", "<f8"),  # what slippage makes of a price: for who buys,
        ("down", "<f8"),  # and who sells
        ("bps", "<f8"),  # commission: a share of the value,
        ("per_share", "<f8"),  # plus so much a share,
        ("per_order", "<f8"),  # plus so much an order,
        ("fee_min", "<f8"),  # and in all at least this, in micro-units
        ("calendar", "<i8"),  # its number among those of the tape
        ("split", "<i8"),  # row of its last split among the actions, or -1: prices are on the share basis after it
    ]
)
"""A traded instrument of the tape, in id order."""

SLEEVE = np.dtype(
    [
        ("size", "<i8"),  # BY_QTY, BY_NOTIONAL or BY_EQUITY
        ("weight", "<f8"),  # currency, or share of equity
        ("among", "<f8"),  # by which the budget is divided
        ("max_positions", "<i8"),
        ("cooldown", "<i8"),  # own bars that an instrument rests for after a close
        ("time_bars", "<i8"),  # bars after which a position is closed; 0: never
        ("prefers", "<i8"),  # 1: entries compete by a number
        ("limit", "<i8"),  # the row of its numbers that holds the limit of its entries; 0: they are market orders
        ("ttl", "<i8"),  # sessions of the instrument that an entry works for
        ("add_max", "<i8"),  # additions to one position; 0: none
        ("add_size", "<i8"),  # size, weight and divisor of an addition
        ("add_weight", "<f8"),
        ("add_among", "<f8"),
        ("first_stop", "<i8"),  # its rules in the table of stops
        ("end_stop", "<i8"),
        ("held", "<i8"),  # positions not flat, and openings that were let in
        ("entering", "<i8"),  # working orders that will open a position
        ("leaving", "<i8"),  # working orders that will only close one
    ]
)

STOP_RULE = np.dtype(
    [
        ("kind", "<i8"),  # STOP, TARGET or TRAIL
        ("unit", "<i8"),  # PCT, ABS, LEVEL or R
        ("value", "<f8"),  # in that unit
        ("number", "<i8"),  # LEVEL: its row in the numbers of the sleeve
        ("follows", "<i8"),  # LEVEL: 1: an addition to the position freezes it anew
    ]
)

STRUCTURE = np.dtype(
    [
        ("sleeve", "<i8"),
        ("pnl", "<f8"),  # cash flows of the trade so far: what is realised, less what was paid for what is held
        ("fees", "<f8"),
        ("dividends", "<f8"),
        ("entry_notional", "<f8"),  # of all its openings
        ("adds", "<i8"),  # additions so far
        ("decided_split", "<i8"),  # ASSET.split when its entry was decided: distances that rules name are of that basis
        ("entry_order", "<i8"),  # number of the order that opened it
        ("entry_ts", "<i8"),
        ("entry_session", "<i8"),
        ("entry_row", "<i8"),  # own bars of the instrument: in which it was opened,
        ("exit_row", "<i8"),  # and in which the last trade ended
        ("order", "<i8"),  # the order that works to open or close it, or -1
        ("guard", "<i8"),  # the first order of the group that protects it, or -1
        ("ranked", "<f8"),  # scratch: margin that it needs; 1.0 once picked for an entry
    ]
)
"""What a sleeve holds as one thing, from flat to flat; of one that is flat, the last trade. A sleeve of rules has one
for each of its instruments, with one leg: by sleeve, then by instrument id."""

POSITION = np.dtype(
    [
        ("structure", "<i8"),
        ("asset", "<i8"),
        ("lots", "<i8"),  # held now, signed; 0: flat
        ("side", "<i8"),  # +1 long, -1 short
        ("entry_price", "<f8"),  # average over its openings, slippage included
        ("entry_lots", "<i8"),  # lots opened; like the price on the share basis of the last opening
        ("opened_split", "<i8"),  # ASSET.split at the last opening
        ("held_at", "<i8"),  # where it stands in the list of positions held
        ("qty_lots", "<i8"),  # BY_QTY: lots of an entry,
        ("add_lots", "<i8"),  # and of an addition
    ]
)
"""One leg of a structure: lots of one instrument. By structure."""

ORDER = np.dtype(
    [
        ("ts", "<i8"),  # when it was decided
        ("session", "<i8"),
        ("sleeve", "<i8"),
        ("instrument", "<i8"),
        ("kind", "<i8"),  # ENTER .. SPLIT
        ("side", "<i8"),  # +1 buys, -1 sells
        ("lots", "<i8"),  # asked for, closing and opening ones together
        ("filled_lots", "<i8"),
        ("status", "<i8"),  # IN_WORK .. REJECTED
        ("done_ts", "<i8"),  # when it was filled, lapsed or rejected
        ("fee_micro", "<i8"),
        ("price", "<f8"),  # the last close when it was decided; of a stop, the price that it was triggered at
        ("limit_price", "<f8"),  # the limit that it was sent with; 0: it takes any price
        ("number", "<i8"),  # its number among the orders sent, by which fills name it; -1: it guards, and is not sent
        ("works_as", "<i8"),  # its kind, but a reversal whose position has vanished only enters
        ("position", "<i8"),
        ("next", "<i8"),  # the next order that works on this asset, or -1
        ("working_at", "<i8"),  # where it stands in the list of working orders
        ("guards", "<i8"),  # rows after it that will guard (or after the first, do guard) the position
        (
            "sessions",
            "<i8",
        ),  # sessions of its instrument that have opened and closed while it worked; -1 in one before,
        ("lasts", "<i8"),  # and after how many it lapses
        ("limit", "<f8"),  # its limit on the share basis of now; 0: it takes any price
        ("opens", "<i8"),  # lots that it opens beyond what it closes
        ("split", "<i8"),  # ASSET.split when its prices were frozen: ``limit_price`` or ``frozen``
        ("unit", "<i8"),  # a guard: how its rule measures, PCT .. R
        ("frozen", "<f8"),  # a guard: what its rule says; once it is at work, its level as it was set
        ("level", "<f8"),  # a guard: its price, or the distance of a trail from the peak; on the share basis of now
        ("peak", "<f8"),  # a trail: the best print since the entry, on the share basis of now,
        ("peak_print", "<f8"),  # and as it was printed,
        ("peak_split", "<i8"),  # with ASSET.split then
        ("ref", "<f8"),  # the print that it meets,
        ("at", "<f8"),  # and the price that it pays
        ("fit", "<i8"),  # lots of ``opens`` that are covered
        ("closed", "<i8"),  # a reversal: lots that it has closed,
        ("held_fee", "<f8"),  # and the commission kept back for them
    ]
)
"""An order that was sent, or one that guards a position until its price is met. Guards of one position are a group:
they stand side by side, and when one is sent the others go."""

FILL = np.dtype(
    [
        ("ts", "<i8"),
        ("session", "<i8"),
        ("order", "<i8"),  # its number
        ("sleeve", "<i8"),
        ("instrument", "<i8"),
        ("lots", "<i8"),  # signed
        ("amount_micro", "<i8"),  # the cash flow, negative for a buy
        ("slippage_micro", "<i8"),  # what ``price`` cost against ``ref_price``
        ("opens", "<i8"),  # 1: it opens a position or adds to one; 0: it closes; a reversal has one of each
        ("price", "<f8"),
        ("ref_price", "<f8"),
    ]
)

CASH = np.dtype(
    [
        ("ts", "<i8"),
        ("session", "<i8"),
        ("kind", "<i8"),  # COMMISSION .. SPLIT_CASH
        ("sleeve", "<i8"),
        ("instrument", "<i8"),
        ("ref", "<i8"),  # the number of a commission's order; the ex-day of a dividend or split
        ("cash_micro", "<i8"),
        ("receivable_micro", "<i8"),
    ]
)

TRADE = np.dtype(
    [
        ("sleeve", "<i8"),
        ("instrument", "<i8"),
        ("side", "<i8"),
        ("lots", "<i8"),  # opened; like the entry price on the share basis of the last opening
        ("entry_order", "<i8"),
        ("entry_ts", "<i8"),
        ("entry_session", "<i8"),
        ("entry_notional_micro", "<i8"),
        ("exit_order", "<i8"),  # -1 if a split ended it, and while it is open
        ("exit_kind", "<i8"),  # 0 while it is open
        ("exit_ts", "<i8"),
        ("exit_session", "<i8"),
        ("bars", "<i8"),  # own bars, both ends included
        ("pnl_micro", "<i8"),  # net of all its lines, dividends from the ex-date on
        ("fees_micro", "<i8"),
        ("dividends_micro", "<i8"),
        ("entry_price", "<f8"),  # average over its openings
        ("exit_price", "<f8"),  # of an open trade, the last mark
    ]
)
"""One flat-to-flat episode."""

SESSION = np.dtype(
    [
        ("equity", "<i8"),  # at its close
        ("position", "<i8"),  # sum of absolute position values at its close
        ("decision_bars", "<i8"),  # instants at which a bar closed
        ("market_bars", "<i8"),  # those with a position at any moment since the one before
    ]
)


LINK = np.dtype([("row", "<i8")])
"""An entry of a list of rows."""
AMOUNT = np.dtype([("micro", "<f8")])
SAID = np.dtype([("bits", "u1")])
NUMBER = np.dtype([("value", "<f8")])


class TapeTables(NamedTuple):
    """The events of a run, in order."""

    instants: Table
    actions: Table
    bars: Table
    payments: Table
    openings: Table


class Tables(NamedTuple):
    """Everything that changes in a run, and the rules that it changes by.

    account, tally (1,); asset (k,); sleeve (w,); stop (rules,); structure, position (n,); of_asset (n,): the positions
    in each asset, as ASSET says; held, working (n,): positions not flat and orders that wait, in no order; queue
    (3 n,): scratch; receivable (dividends x w,); order, fill, cash, trade: as many as there is room for; session: one
    for each.
    """

    account: Table
    tally: Table
    asset: Table
    sleeve: Table
    stop: Table
    structure: Table
    position: Table
    of_asset: Table
    held: Table
    working: Table
    queue: Table
    receivable: Table
    order: Table
    fill: Table
    cash: Table
    trade: Table
    session: Table


TABLES: dict[str, np.dtype[np.void]] = {
    "instants": INSTANT,
    "actions": ACTION,
    "bars": BAR,
    "payments": PAYMENT,
    "openings": OPENING,
    "signals": SAID,
    "numbers": NUMBER,
    "account": ACCOUNT,
    "tally": TALLY,
    "asset": ASSET,
    "sleeve": SLEEVE,
    "stop": STOP_RULE,
    "structure": STRUCTURE,
    "position": POSITION,
    "of_asset": LINK,
    "held": LINK,
    "working": LINK,
    "queue": LINK,
    "receivable": AMOUNT,
    "order": ORDER,
    "fill": FILL,
    "cash": CASH,
    "trade": TRADE,
    "session": SESSION,
}
"""What lies where in ``BOOKS``."""

BOOKS = np.dtype(
    [(name, "<i8") for name in TABLES]  # where each table begins
    + [
        ("bars_end", "<i8"),  # closing bars on the tape
        ("levels", "<i8"),  # rows of numbers that a sleeve has
        ("sleeves", "<i8"),
        ("stops", "<i8"),
        ("positions", "<i8"),
        ("payments_end", "<i8"),
    ]
)
"""Where the tables of a run are. Passing one address from function to function is free; passing twenty arrays costs
more than the work of a bar. Filled by ``advance`` from arrays that it holds, and worth nothing after it."""
