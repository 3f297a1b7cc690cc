"""Splits, ex-dates and pay dates of a run as tables: when each acts, and in which order. Nothing loops over them.

What is dated a day acts at the open of the first session on or after it, or at the instrument's own first print from
that day on if that is earlier; dividends are paid at the open of the first session on or after the pay day, never
before the ex-date. What is dated before the run does not act in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from farm.kernels.panel import rows_on
from farm.kernels.records import ACTION, PAYMENT, Table
from farm.market.panel import InstrumentSeries, Market, Panel
from farm.values.arrays import BOOL, F64, I32, I64

LATE: Final = np.iinfo(np.int64).max
"""The instant of what happens after the run."""

FirstPrint = Callable[[I64, I32], I64]
"""(owner, day) -> the owner's first print on that day or after it, LATE if there is none; (n,) each."""


@dataclass(frozen=True, eq=False)
class Dated:
    """Splits and dividends of instruments, by number and in the order of their days: (splits,) and (dividends,)."""

    split_owner: I64
    split_day: I32
    split_num: I64
    split_den: I64
    dividend_owner: I64
    dividend_day: I32
    dividend_pay_day: I32
    dividend_pay_assumed: BOOL
    dividend_amount: F64


@dataclass(frozen=True, eq=False)
class Acting:
    """What acts in a run: ``actions`` at ``act_ts``, of the instruments ``act_owner``, (a,); ``payments`` at
    ``pay_ts``, LATE for those that the run does not live to see, of ``pay_owner``, (d,)."""

    act_ts: I64
    actions: Table
    act_owner: I64
    pay_ts: I64
    payments: Table
    pay_owner: I64


def actions_of_series(market: Market, series: Sequence[InstrumentSeries]) -> Acting:
    """Return what acts on these series in one run; assets are positions in ``series``.

    Order: splits and ex-dates by (instant, split before dividend, asset, order in the series); payments by (instant,
    asset, dividend).
    """
    prints = [np.append(one.open_ts, LATE) for one in series]

    def first_print(owner: I64, day: I32) -> I64:
        found = np.empty(day.size, np.int64)
        for rows in np.split(np.arange(day.size), np.flatnonzero(np.diff(owner)) + 1) if day.size else ():
            asset = int(owner[rows[0]])
            found[rows] = prints[asset][np.searchsorted(series[asset].day, day[rows])]
        return found

    def joined(name: str, dtype: type) -> Any:
        return np.concatenate([np.empty(0, dtype), *(getattr(one, name) for one in series)])

    def owner(name: str) -> I64:
        return np.repeat(np.arange(len(series)), [getattr(one, name).size for one in series])

    dated = Dated(
        split_owner=owner("split_day"),
        split_day=joined("split_day", np.int32),
        split_num=joined("split_num", np.int64),
        split_den=joined("split_den", np.int64),
        dividend_owner=owner("dividend_day"),
        dividend_day=joined("dividend_day", np.int32),
        dividend_pay_day=joined("dividend_pay_day", np.int32),
        dividend_pay_assumed=joined("dividend_pay_assumed", np.bool_),
        dividend_amount=joined("dividend_amount", np.float64),
    )
    return _acting(market, dated, first_print, is_one_run=True)


def actions_of_panel(panel: Panel, chosen: I64) -> Acting:
    """Return what acts on the instruments at these positions, each in a run of its own: owners are positions in
    ``chosen``, assets are 0, and the dividends of each are numbered from 0.

    Order: by owner; within one as ``actions_of_series``.
    """
    prints = np.append(panel.open_ts, LATE)

    def first_print(owner: I64, day: I32) -> I64:
        of = chosen[owner]
        row = np.empty(day.size, np.int64)
        rows_on(panel.day, panel.start, of.astype(np.int32), day, row)
        return np.where(row < panel.start[of + 1], prints[row], LATE)

    splits, split_owner = _rows_of(panel.split_start, chosen)
    dividends, dividend_owner = _rows_of(panel.dividend_start, chosen)
    dated = Dated(
        split_owner=split_owner,
        split_day=panel.split_day[splits],
        split_num=panel.split_num[splits],
        split_den=panel.split_den[splits],
        dividend_owner=dividend_owner,
        dividend_day=panel.dividend_day[dividends],
        dividend_pay_day=panel.dividend_pay_day[dividends],
        dividend_pay_assumed=panel.dividend_pay_assumed[dividends],
        dividend_amount=panel.dividend_amount[dividends],
    )
    return _acting(panel, dated, first_print, is_one_run=False)


def _rows_of(start: I64, chosen: I64) -> tuple[I64, I64]:
    """Return the rows of the chosen instruments, and the position in ``chosen`` that each belongs to."""
    count = start[chosen + 1] - start[chosen]
    owner = np.repeat(np.arange(chosen.size), count)
    return np.arange(owner.size) + (start[chosen] - (np.cumsum(count) - count))[owner], owner


def _acting(run: Market | Panel, dated: Dated, first_print: FirstPrint, *, is_one_run: bool) -> Acting:
    opens = np.append(run.calendar.open_ts, LATE)

    def when(owner: I64, day: I32) -> I64:
        session = opens[np.searchsorted(run.calendar.day, day)]
        return np.where(session == LATE, LATE, np.minimum(session, first_print(owner, day)))

    split_ts, ex_ts = when(dated.split_owner, dated.split_day), when(dated.dividend_owner, dated.dividend_day)
    split = np.flatnonzero((split_ts != LATE) & (dated.split_day >= run.start_day))
    paid = np.flatnonzero((ex_ts != LATE) & (dated.dividend_day >= run.start_day))
    splits = split.size
    owner = np.concatenate((dated.split_owner[split], dated.dividend_owner[paid]))
    ts = np.concatenate((split_ts[split], ex_ts[paid]))
    is_dividend = np.arange(owner.size) >= splits
    order = np.lexsort((owner, is_dividend, ts) if is_one_run else (is_dividend, ts, owner))  # stable: then as listed

    number = np.full(owner.size, -1, np.int64)
    ordered = order[is_dividend[order]]
    number[ordered] = np.arange(ordered.size)
    if not is_one_run:
        number[ordered] -= np.searchsorted(owner[ordered], owner[ordered])
    splits_in_order = order[~is_dividend[order]]
    row = np.empty(owner.size, np.int64)
    row[order] = np.arange(owner.size)
    if not is_one_run:
        row -= np.searchsorted(owner[order], owner)
    of = splits_in_order[np.argsort(owner[splits_in_order], kind="stable")]
    before = np.full(owner.size, -1, np.int64)
    before[of[1:]] = np.where(owner[of[1:]] == owner[of[:-1]], row[of[:-1]], -1)
    actions = np.zeros(owner.size, ACTION)
    actions["before"] = before
    actions["asset"] = owner if is_one_run else 0
    actions["dividend"] = number
    actions["day"] = np.concatenate((dated.split_day[split], dated.dividend_day[paid]))
    actions["num"] = np.concatenate((dated.split_num[split], np.ones(paid.size)))
    actions["den"] = np.concatenate((dated.split_den[split], np.ones(paid.size)))
    actions["pay_assumed"][splits:] = dated.dividend_pay_assumed[paid]
    actions["amount"][splits:] = dated.dividend_amount[paid]

    owners, numbers, ex_day = owner[splits:], number[splits:], dated.dividend_day[paid]
    pay_ts = when(owners, np.maximum(ex_day, dated.dividend_pay_day[paid]))
    pay_order = np.lexsort((numbers, owners, pay_ts) if is_one_run else (numbers, pay_ts, owners))
    payments = np.zeros(paid.size, PAYMENT)
    payments["dividend"], payments["day"] = numbers, ex_day
    payments["asset"] = owners if is_one_run else 0
    return Acting(ts[order], actions[order], owner[order], pay_ts[pay_order], payments[pay_order], owners[pay_order])
