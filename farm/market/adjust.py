"""Adjustment factors: raw price times factor is the price in the share basis of an anchor day. Pure.

Forward adjustment (domain.md 3.3): F is 1 on the anchor's basis, is multiplied by the split ratio at each ex-day after
it, and divided by the ratios of the ex-days between an earlier day and it. So F(t) for t after the anchor uses the past
only, and appended data changes no history. Products are exact integers, divided once: each F is the correctly rounded
float64 of its rational, whatever the order or the number of events.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from farm.market.panel import InstrumentSeries
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import DataError
from farm.values.units import iso

EXACT_MAX = 2**53
"""Integers below this are float64 without rounding."""


@dataclass(frozen=True)
class Step:
    """From ``day`` on, F is ``num / den`` times what it was before."""

    day: int
    num: int
    den: int


def split_steps(split_day: I32, num: I64, den: I64, place: str) -> list[Step]:
    """Return one step per split: ``num`` new shares for ``den`` old. DataError for a ratio that is none."""
    steps = [Step(int(d), int(n), int(m)) for d, n, m in zip(split_day, num, den, strict=True)]
    for step in steps:
        if step.num < 1 or step.den < 1:
            raise DataError(
                f"a split of {step.num} for {step.den}", place=f"{place}, {iso(step.day)}", allowed="both at least 1"
            )
    return steps


def dividend_steps(
    dividend_day: I32,
    amount_ticks: I64,
    amount_scale: int,
    bar_day: I32,
    close_ticks: I64,
    close_scale: int,
    splits: Sequence[Step],
    place: str,
) -> list[Step]:
    """Return one step per dividend: 1 / (1 - d / c), c the last close before the ex-day in the ex-day's shares.

    Several dividends of one ex-day follow each other. Dividends before the first bar have no step: nobody held then.
    Errors: DataError when a dividend is not below c.
    """
    ratio = {step.day: step for step in splits}
    steps: list[Step] = []
    for day, ticks in zip(dividend_day.tolist(), amount_ticks.tolist(), strict=True):
        before = int(np.searchsorted(bar_day, day)) - 1
        if before < 0:
            continue
        # c - d over c, both over one denominator. A split of the same day, and of days without a bar since the last
        # close, puts that close into new shares first.
        close, dividend = int(close_ticks[before]) * 10**amount_scale, ticks * 10**close_scale
        for split in ratio.values():
            if int(bar_day[before]) < split.day <= day:
                close, dividend = close * split.den, dividend * split.num
        if dividend >= close or dividend < 0:
            raise DataError(
                f"a dividend of {ticks / 10**amount_scale} after a close of {close_ticks[before] / 10**close_scale}",
                place=f"{place}, {iso(day)}",
                allowed="at least 0 and less than the previous close",
            )
        steps.append(Step(day, close, close - dividend))
    return steps


def factors(bar_day: I32, anchor_day: int, steps: Sequence[Step]) -> F64:
    """Return F for each bar day, (n,), read-only: exact products of ``steps``, rounded once each.

    F = product of the steps with anchor_day < day <= bar_day, over that of the steps with bar_day < day <= anchor_day.
    """
    factor = np.ones(bar_day.shape[0], np.float64)
    for rows, num, den in _stretches(bar_day, anchor_day, steps):
        factor[rows] = num / den  # Python divides integers of any size with one correct rounding.
    return readonly(factor)


def ratios(bar_day: I32, anchor_day: int, steps: Sequence[Step]) -> tuple[F64, F64]:
    """Return F for each bar day as a fraction in lowest terms: numerators and denominators, (n,) each, read-only.

    NaN where one of them is 2**53 or more, and so no float64.
    """
    num_of, den_of = np.ones(bar_day.shape[0], np.float64), np.ones(bar_day.shape[0], np.float64)
    for rows, num, den in _stretches(bar_day, anchor_day, steps):
        common = math.gcd(num, den)
        num, den = num // common, den // common
        is_exact = max(num, den) < EXACT_MAX
        num_of[rows], den_of[rows] = (num, den) if is_exact else (np.nan, np.nan)
    return readonly(num_of), readonly(den_of)


def _stretches(bar_day: I32, anchor_day: int, steps: Sequence[Step]) -> Iterator[tuple[slice, int, int]]:
    """Yield (rows, numerator, denominator) wherever F may differ from 1."""
    ordered = sorted(steps, key=lambda step: step.day)
    num = den = 1
    for i, step in enumerate(ordered):
        if step.day <= anchor_day:
            continue
        num, den = num * step.num, den * step.den
        until = ordered[i + 1].day if i + 1 < len(ordered) else None
        yield _rows(bar_day, step.day, until), num, den
    num = den = 1
    for i in range(len(ordered) - 1, -1, -1):
        step = ordered[i]
        if step.day > anchor_day:
            continue
        num, den = num * step.den, den * step.num
        since = ordered[i - 1].day if i > 0 else None
        yield _rows(bar_day, since, step.day), num, den


def _rows(bar_day: I32, first: int | None, stop: int | None) -> slice:
    low = 0 if first is None else int(np.searchsorted(bar_day, first))
    high = bar_day.shape[0] if stop is None else int(np.searchsorted(bar_day, stop))
    return slice(low, high)


def doubtful_splits(series: InstrumentSeries, start_day: int) -> int:
    """Return how many splits of the run the prices do not show: the open of the ex-day over the close before is nearer
    to 1 than to the ratio, as in prices that were adjusted before they came. Only bars from ``start_day`` on are asked.
    """
    count = 0
    for ex_day, num, den in zip(series.split_day, series.split_num, series.split_den, strict=True):
        row = int(np.searchsorted(series.day, ex_day))
        if 0 < row < series.rows and series.day[row - 1] >= start_day:
            moved = series.open[row] / series.close[row - 1]
            count += bool(abs(moved - 1.0) < abs(moved - den / num))
    return count
