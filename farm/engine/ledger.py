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

from farm.kernels import records
from farm.values.arrays import F64, I32, I64

Records = npt.NDArray[np.void]


class OrderKind(IntEnum):
    """Kinds of orders, and reasons for which trades end."""

    OPEN = 0  # the trade is still open
    ENTER = records.ENTER
    EXIT = records.EXIT
    REVERSE = records.REVERSE
    TIME = records.TIME
    FORCED = records.FORCED  # a margin call
    STOP = records.STOP
    TARGET = records.TARGET
    TRAIL = records.TRAIL
    RUINED = records.RUINED
    ADD = records.ADD
    SPLIT = records.SPLIT  # less than one lot was left of the position


class Status(IntEnum):
    """How an order ended. SCALED: with fewer lots than it asked for."""

    IN_WORK = records.IN_WORK
    FILLED = records.FILLED
    SCALED = records.SCALED
    LAPSED = records.LAPSED
    REJECTED = records.REJECTED
    CANCELLED = records.CANCELLED


class CashKind(IntEnum):
    """Kinds of cash events."""

    COMMISSION = records.COMMISSION
    DIVIDEND_EX = records.DIVIDEND_EX
    DIVIDEND_PAY = records.DIVIDEND_PAY
    SPLIT_CASH = records.SPLIT_CASH


def _published(whole: np.dtype[np.void], names: str) -> np.dtype[np.void]:
    return np.dtype([(name, whole[name]) for name in names.split()])


ORDER = _published(
    records.ORDER,
    "ts session sleeve instrument kind side lots filled_lots status done_ts fee_micro price limit_price",
)
"""An order that was sent; its row is its number. Guards that were never sent are not listed."""

FILL = records.FILL
CASH = records.CASH
TRADE = records.TRADE

SUMS = ("notional", "commission", "slippage")
"""Fields of TALLY that are sums of money; the others count incidents."""
COUNTS = tuple(name for name in records.TALLY.names or () if name not in SUMS)


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
