"""Names of the columns and codes that ``step.py`` shares with the engine: tables of integers, no code."""

from typing import NamedTuple

from farm.values.arrays import F64, I64

LIMIT = 9007199254740992.0  # 2**53: integers in float64 are exact below
NEVER = -(2.0**40)  # a bar index before every bar
DONE, ROOM, OVERFLOW = 0, 1, 2  # what ``advance`` returns

# The tape, tables of events. ``inst`` has a row per instant: when, the session of the run it closes (or -1), where the
# instant's rows end in the other four, and a bit for each calendar of which a session closes.
TS, SESSION, ACT_END, BAR_END, PAY_END, OPEN_END, CLOSED = range(7)
# ``act``: splits and ex-dates.
IS_DIVIDEND, A_ASSET, A_DIVIDEND, A_NUM, A_DEN, A_AMOUNT, A_PAY_ASSUMED, A_DAY = range(8)
B_ASSET, B_ROW, B_OPEN, B_HIGH, B_LOW, B_CLOSE, B_VOLUME = range(7)  # ``bar``: closing bars, with their own row
P_DIVIDEND, P_ASSET, P_DAY = range(3)  # ``pay``: dividends on their pay dates, by number and ex-day; then the unpaid
P_OPEN, P_VOLUME = range(1, 3)  # ``opening``: asset, opening print, the bar's volume

# ``account``: money in micro-units, then the rules of the account.
CASH, RECEIVABLE, EQUITY, GROSS, RULES, MAX_GROSS, KEEP, RESERVE_FEES, TTL, ACCOUNT_COLUMNS = range(10)
IN_CASH, REG_T, LINEAR = range(3)
# ``count``: where the fold stands, how many records there are, sums in micro-units, and counted incidents.
(
    NEXT, CLOCK, NOW, AT_ACT, AT_BAR, AT_PAY, AT_OPEN, WORKING, HELD, TOUCHED, RUIN, GUARD, ENDED,
    N_ORDERS, N_FILLS, N_CASH, N_TRADES, N_OPEN, NOTIONAL, COMMISSION, SLIPPAGE,
    C_LAPSED, C_REJECTED, C_SCALED, C_TOO_SMALL, C_CROWDED, C_CONFLICT, C_LEVEL_UNKNOWN, C_PREFER_UNKNOWN,
    C_MARGIN_CALL, C_PAY_ASSUMED, COUNTS,
) = range(32)  # fmt: skip
# ``asset``: a traded instrument of the tape, in id order: what it costs to trade, the bit of its calendar, its last
# close, the own row of it.
(
    LOT_MICRO, MULTIPLIER, LOTS_UP, LOTS_DOWN, UP, DOWN, BPS, PER_SHARE, PER_ORDER, FEE_MIN, CALENDAR, MARK, ROW,
    SEEN_AT, ASSET_COLUMNS,
) = range(15)  # fmt: skip
# ``sleeve``: its rules, how many positions it holds, then STOP_WIDTH columns for each stop.
(
    MODE, MAX_POSITIONS, COOLDOWN, TIME_BARS, FIRST_SLOT, END_SLOT, STOPS, PREFERS, WEIGHT, AMONG, HELD_HERE,
    FIRST_STOP,
) = range(12)  # fmt: skip
QTY, BY_NOTIONAL, BY_EQUITY = range(3)
STOP_KIND, STOP_UNIT, STOP_LEVEL, STOP_VALUE, STOP_WIDTH = range(5)
PCT, ABS, LEVEL, R = range(4)
# ``slot``: the place of one position, (sleeve, asset); the position; the order that works for it; then the levels of
# the position's stops, then those frozen in the order.
(
    OF_SLEEVE, OF_ASSET, OFFSET, INSTRUMENT, QTY_LOTS,
    POS, SIDE, ENTRY_PRICE, PEAK, BARS, PNL, FEES, DIVIDENDS, ENTRY_LOTS, ENTRY_PAID, ENTRY_ID, ENTRY_AT,
    ENTRY_SESSION, ENTRY_ROW, EXIT_ROW,
    W_KIND, W_SIDE, W_LOTS, W_ID, W_SESSIONS, W_REF, W_PRICE, W_FIT, W_CLOSED, W_HELD_FEE, PICK, SLOT_COLUMNS,
) = range(32)  # fmt: skip
# ``signals`` (4, rows): own bars, from the slot's offset. ``series``: the preference, then the levels.
ENTER_LONG, EXIT_LONG, ENTER_SHORT, EXIT_SHORT = range(4)

# Kinds of orders, and reasons for which trades end.
ENTER, EXIT, REVERSE, TIME, FORCED, STOP, TARGET, TRAIL, RUINED, SPLIT = range(1, 11)
# How an order stands.
IN_WORK, FILLED, SCALED, LAPSED, REJECTED = range(5)
# Kinds of cash events.
PAID_COMMISSION, DIVIDEND_EX, DIVIDEND_PAY, SPLIT_CASH = range(1, 5)
# Orders; the other records are written whole. Columns of all four: ``engine/ledger.py``.
O_FILLED, O_STATUS, O_DONE_TS, O_FEE = 7, 8, 9, 10
ORDER_COLUMNS, FILL_COLUMNS, CASH_COLUMNS, TRADE_COLUMNS = 12, 11, 8, 18


class Books(NamedTuple):
    """State and records of one run. Integers lie in float64 boxes where a table also holds prices.

    account (9,); counts, above ``count`` (31,); asset (k, 14); sleeve (w, 11 + 4 x); slot (n, 31 + 2 x), where x is the
    most stops of a sleeve; of_asset (k + 1 + n,): its elements j and j + 1 say where in it the slots of asset j stand;
    receivable (dividends, w); queue (n,) scratch; records as in ``engine/ledger.py``, prices as float64 bits.
    """

    account: F64
    counts: I64
    asset: F64
    sleeve: F64
    slot: F64
    of_asset: I64
    receivable: F64
    queue: I64
    orders: I64
    fills: I64
    cash: I64
    trades: I64
