"""What an engine run sees of the market: raw bars with their instants, corporate actions, adjustment factors.

Rules: prices are raw as printed, dividends and splits stand beside them; ``factor`` turns a raw price into the
forward-adjusted one by multiplication (domain.md 3.3). Every array is read-only and may be shared between threads.
Series come in the bytewise order of their permanent ids, so that no load order can reach a decision or a sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from farm.values.arrays import BOOL, F64, I32, I64

if TYPE_CHECKING:
    from farm.shard.calendar import Calendar


@dataclass(frozen=True, eq=False)
class InstrumentSeries:
    """One instrument's own bars, oldest first, from its first history day to the end of the run.

    Shapes:  day, open_ts, close_ts, open, high, low, close, volume, open_ticks, close_ticks, factor, factor_num,
             factor_den, factor_tr (n,); split_* (s,); dividend_* (d,). A bar column that the run does not need is
             empty (0,).
    Units:   instants int64 ns UTC; days since 1970-01-01; prices and dividends in currency per share, raw;
             ticks of 10**-price_scale; volume in shares; ``lot_micro`` in millionths of a share. ``calendar``
             names the sessions that the bars follow.
    Order:   day strictly rises; split_day strictly rises; dividend_day rises.
    Factors: adjusted price = raw price * factor; factor is 1 on the share basis of the run's first day, and
             changes on ex-days only. ``factor_tr`` also reinvests dividends at the previous close. ``factor_num`` and
             ``factor_den`` are the factor as a fraction in lowest terms, NaN where float64 cannot hold it.
    """

    id: str
    symbol: str
    type: str
    calendar: str
    lot_micro: int
    price_scale: int
    multiplier: int
    day: I32
    open_ts: I64
    close_ts: I64
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    open_ticks: I64
    close_ticks: I64
    factor: F64
    factor_num: F64
    factor_den: F64
    factor_tr: F64
    split_day: I32
    split_num: I64
    split_den: I64
    dividend_day: I32
    dividend_pay_day: I32
    dividend_pay_assumed: BOOL
    dividend_amount: F64

    @property
    def rows(self) -> int:
        """Number of bars."""
        return int(self.day.shape[0])


@dataclass(frozen=True, eq=False)
class Market:
    """All series of one run, and the sessions it runs over.

    ``calendar`` is sliced to [start_day, end_day]; ``calendars`` holds it, and those of the series, whole. Series also
    hold the history before ``start_day`` that indicators need. ``no_dividends``, ``no_splits``: the dataset holds none
    at all, which are assumptions the result must name.
    """

    calendar: Calendar
    calendars: Mapping[str, Calendar]
    series: tuple[InstrumentSeries, ...]
    index: Mapping[str, int]
    start_day: int
    end_day: int
    snapshot: str
    no_dividends: bool
    no_splits: bool
