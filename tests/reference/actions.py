"""Splits, ex-dates and pay dates of a run, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farm.market.panel import InstrumentSeries, Market

ActionRow = tuple[int, int, int, int, int, float, float, float]
PaymentRow = tuple[int, int, int]


def _instant(market: Market, series: InstrumentSeries, day: int) -> int | None:
    """The instant at which what is dated ``day`` acts on the instrument; None after the run."""
    calendar = market.calendar
    session = int(np.searchsorted(calendar.day, day))
    if session == calendar.day.shape[0]:
        return None
    row = int(np.searchsorted(series.day, day))
    instant = int(calendar.open_ts[session])
    return min(instant, int(series.open_ts[row])) if row < series.rows else instant


def acting(
    market: Market, series: Sequence[InstrumentSeries]
) -> tuple[list[int], list[ActionRow], list[int], list[PaymentRow]]:
    """When splits and ex-dates act, and the rows of their table; when dividends are paid, and the rows of theirs.

    Splits and ex-dates by (instant, split before dividend, asset, order in the series); payments by (instant, asset,
    dividend), those that the run does not live to see behind, without instant.
    """
    rows: list[tuple[int, int, int, int, int | None, ActionRow]] = []
    for asset, one in enumerate(series):
        for k, day in enumerate(one.split_day.tolist()):
            instant = _instant(market, one, day)
            if instant is not None and market.start_day <= day:
                what = (asset, -1, -1, day, 0, float(one.split_num[k]), float(one.split_den[k]), 0.0)
                rows.append((instant, 0, asset, k, None, what))
        for k, day in enumerate(one.dividend_day.tolist()):
            instant = _instant(market, one, day)
            if instant is not None and market.start_day <= day:
                assumed, amount = int(one.dividend_pay_assumed[k]), float(one.dividend_amount[k])
                paid = _instant(market, one, max(day, int(one.dividend_pay_day[k])))
                rows.append((instant, 1, asset, k, paid, (asset, 0, -1, day, assumed, 1.0, 1.0, amount)))
    rows.sort(key=lambda row: row[:4])
    actions: list[ActionRow] = []
    paid_rows: list[tuple[int, int, PaymentRow]] = []
    unpaid: list[tuple[int, PaymentRow]] = []
    last_split: dict[int, int] = {}
    number = 0
    for _, is_dividend, asset, _, paid, what in rows:
        if is_dividend:
            what = (asset, number, *what[2:])
            payment = number, asset, what[3]
            if paid is None:
                unpaid.append((asset, payment))
            else:
                paid_rows.append((paid, asset, payment))
            number += 1
        else:
            before = last_split.get(asset, -1)
            last_split[asset] = len(actions)
            what = (*what[:2], before, *what[3:])
        actions.append(what)
    paid_rows.sort()
    unpaid.sort()
    payments = [row for *_, row in paid_rows] + [row for _, row in unpaid]
    return [row[0] for row in rows], actions, [row[0] for row in paid_rows], payments
