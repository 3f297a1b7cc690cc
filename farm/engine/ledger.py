"""The books of a run: what was ordered, filled, booked and traded, and the equity at each session close.

Rules: money is int64 micro-units of the account currency, lots are int64 (one share, or a millionth of one when the
lot is fractional), instants int64 ns UTC, prices float64 as they were. ``instrument`` is a position in
``Run.instruments``, ``sleeve`` one in ``Run.sleeves``, ``session`` one in ``Run.session_day``. Records stand in the
order in which they happened; an order's row is its id. What happened is never rewritten, but an order's last five
fields are filled in when it is done.

Each change of cash is in exactly one record: the amount of a fill, or the cash of a cash event. So at every instant
cash = cash_micro + sum(fills.amount_micro) + sum(cash_events.cash_micro), the same for receivables, and with the
positions at the last closes it is the equity. The P&L of closed and open trades sums to the change of equity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from farm.kernels import step_layout as at
from farm.values.arrays import F64, I32, I64

Records = npt.NDArray[np.void]


class Kind(IntEnum):
    """Kinds of orders, and reasons for which trades end."""

    OPEN = 0  # the trade is still open
    ENTER = at.ENTER
    EXIT = at.EXIT
    REVERSE = at.REVERSE
    TIME = at.TIME
    FORCED = at.FORCED  # a margin call
    STOP = at.STOP
    TARGET = at.TARGET
    TRAIL = at.TRAIL
    RUINED = at.RUINED
    SPLIT = at.SPLIT  # less than one lot was left of the position


class Status(IntEnum):
    """How an order ended. SCALED: with fewer lots than it asked for."""

    IN_WORK = at.IN_WORK
    FILLED = at.FILLED
    SCALED = at.SCALED
    LAPSED = at.LAPSED
    REJECTED = at.REJECTED


class Line(IntEnum):
    """Kinds of cash events."""

    COMMISSION = at.PAID_COMMISSION
    DIVIDEND_EX = at.DIVIDEND_EX
    DIVIDEND_PAY = at.DIVIDEND_PAY
    SPLIT_CASH = at.SPLIT_CASH


def _dtype(integers: str, prices: str) -> np.dtype[np.void]:
    return np.dtype([(name, "<i8") for name in integers.split()] + [(name, "<f8") for name in prices.split()])


ORDER = _dtype("ts session sleeve instrument kind side lots filled_lots status done_ts fee_micro", "price")
"""side: +1 buys, -1 sells. lots: asked for, closing and opening ones together. price: the last close when it was
decided, the trigger price of a stop."""

FILL = _dtype("ts session order sleeve instrument lots amount_micro slippage_micro opens", "price ref_price")
"""lots: signed. amount_micro: the cash flow, negative for a buy. slippage_micro: what ``price`` cost against
``ref_price``. opens: 1 if the fill opens a position, 0 if it closes one; a reversal has one of each."""

CASH = _dtype("ts session kind sleeve instrument ref cash_micro receivable_micro", "")
"""ref: the order of a commission; the ex-day of a dividend or split."""

TRADE = _dtype(
    "sleeve instrument side lots entry_order entry_ts entry_session entry_notional_micro exit_order exit_kind exit_ts"
    " exit_session bars pnl_micro fees_micro dividends_micro",
    "entry_price exit_price",
)
"""One flat-to-flat episode. lots, entry_price: at the entry, on the share basis of that day. bars: own bars, both ends
included. pnl_micro: net of all its lines, dividends from the ex-date on. exit_order: -1 if a split ended it. An open
trade has exit_kind OPEN, exit_order -1, and its last mark as exit_price."""

WIDTHS = (at.ORDER_COLUMNS, at.FILL_COLUMNS, at.CASH_COLUMNS, at.TRADE_COLUMNS)
assert tuple(len(dtype.names or ()) for dtype in (ORDER, FILL, CASH, TRADE)) == WIDTHS

COUNTS: Mapping[str, int] = {
    "lapsed": at.C_LAPSED,
    "rejected": at.C_REJECTED,
    "scaled": at.C_SCALED,
    "too_small": at.C_TOO_SMALL,
    "no_place": at.C_CROWDED,
    "entry_conflict": at.C_CONFLICT,
    "level_unknown": at.C_LEVEL_UNKNOWN,
    "prefer_unknown": at.C_PREFER_UNKNOWN,
    "margin_call": at.C_MARGIN_CALL,
    "pay_date_assumed": at.C_PAY_ASSUMED,
}
"""Counted incidents. lapsed: orders that no print filled in time, or that the end of the run met in work; rejected: no
lot was covered; scaled: fewer lots were; too_small: sizes below one lot; no_place: the position that was to make room
did not close; entry_conflict: long and short entry in one bar, both ignored; *_unknown: entries not ordered for it."""


def as_records(table: I64, count: int, dtype: np.dtype[np.void]) -> Records:
    """View the first ``count`` rows of a kernel table as records; read-only, no copy."""
    records: Records = table[:count].view(dtype)[:, 0]
    records.flags.writeable = False
    return records


@dataclass(frozen=True, eq=False)
class Run:
    """The books of one run. All arrays are read-only.

    Shapes:  session_day, equity, position, decision_bars, market_bars (n,) per session; records as above.
    Units:   micro-units; ``equity`` and ``position`` (sum of absolute position values) at session closes.
             ``decision_bars``: instants at which a bar of a traded instrument closed; ``market_bars``: those with a
             position at any moment since the one before (entry bar through exit bar).
    """

    cash_micro: int
    instruments: tuple[str, ...]
    sleeves: tuple[str, ...]
    session_day: I32
    equity: I64
    position: I64
    decision_bars: I64
    market_bars: I64
    orders: Records
    fills: Records
    cash_events: Records
    trades: Records
    open_trades: Records
    traded_notional_micro: int
    fees_micro: Mapping[str, int]
    counts: Mapping[str, int]
    assumptions: tuple[str, ...]
    ruin: bool

    @property
    def equity_end_micro(self) -> int:
        """Equity at the last session close."""
        return int(self.equity[-1]) if self.equity.shape[0] else self.cash_micro

    @property
    def exposure(self) -> F64:
        """Sum of absolute position values over equity at session closes; NaN where equity is 0."""
        equity = np.where(self.equity == 0, np.nan, self.equity.astype(np.float64))
        ratio: F64 = self.position / equity
        return ratio

    def to_json(self) -> dict[str, Any]:
        """Return the sums of the run as plain values."""
        return {
            "equity_end_micro": self.equity_end_micro,
            "orders": len(self.orders),
            "fills": len(self.fills),
            "trades": len(self.trades),
            "open_trades": len(self.open_trades),
            "fees_micro": dict(self.fees_micro),
            "counts": dict(self.counts),
            "assumptions": list(self.assumptions),
            "ruin": self.ruin,
        }
