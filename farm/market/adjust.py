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

from farm.kernels.panel import dividend_ratios, product_factors, rows_on, split_factors
from farm.market.gather import FirstFault, Gathered
from farm.market.panel import Panel
from farm.values.arrays import F64, I8, I32, I64, readonly
from farm.values.errors import DataError
from farm.values.units import iso

EXACT_MAX = 2**53
"""Integers below this are float64 without rounding."""
_OF_SPLITS = ("ex_day", "numerator", "denominator")


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


def _powers(scale: I8) -> F64:
    """Return 10**scale, exact."""
    return np.power(10, scale.astype(np.int64)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of many instruments' bars, (n,) each, read-only: of splits, these as fractions, and of total return."""

    factor: F64
    num: F64
    den: F64
    total_return: F64


def adjusted(
    ids: Sequence[str],
    bars: Gathered,
    splits: Gathered,
    dividends: Gathered,
    anchor_day: int,
    faults: FirstFault,
    stage: int,
) -> Factors:
    """Return the factors of all bars: those of ``factors`` and ``ratios``, to the bit.

    Kernels compute them with some 100 bits. Where these leave open what the correctly rounded value is, and where they
    meet a ratio that is none, the instrument's own integers decide.
    Faults: a ratio that is none, a dividend that is not below the close before it.
    """
    day: I32 = bars.columns["day"]
    factor, num, den = (np.empty(day.size, np.float64) for _ in range(3))
    sure = np.empty(len(ids), np.int8)
    ex_day, numerator, denominator = (splits.columns[column] for column in _OF_SPLITS)
    split_factors(day, bars.start, anchor_day, splits.start, ex_day, numerator, denominator, factor, num, den, sure)
    total_return, is_sure = factor, sure
    if dividends.columns["ex_day"].size:
        total_return, is_sure = np.empty(day.size, np.float64), sure.copy()
        _total_return(bars, splits, dividends, anchor_day, total_return, is_sure)
    for instrument in np.flatnonzero(is_sure == 0).tolist():
        rows = slice(*bars.start[instrument : instrument + 2].tolist())
        try:
            by_split, by_dividend = _steps(ids[instrument], instrument, rows, bars, splits, dividends)
        except DataError as error:
            faults.add(instrument, stage, error)
            continue
        total_return[rows] = factors(day[rows], anchor_day, [*by_split, *by_dividend])
        if not sure[instrument]:
            factor[rows] = factors(day[rows], anchor_day, by_split)
            num[rows], den[rows] = ratios(day[rows], anchor_day, by_split)
    return Factors(readonly(factor), readonly(num), readonly(den), readonly(total_return))


def _steps(
    name: str, instrument: int, rows: slice, bars: Gathered, splits: Gathered, dividends: Gathered
) -> tuple[list[Step], list[Step]]:
    """Return the steps of one instrument, by split and by dividend."""
    mine = slice(*splits.start[instrument : instrument + 2].tolist())
    ex_day, numerator, denominator = (splits.columns[column][mine] for column in _OF_SPLITS)
    by_split = split_steps(ex_day, numerator, denominator, f"splits of {name}")
    paid = slice(*dividends.start[instrument : instrument + 2].tolist())
    by_dividend = dividend_steps(
        dividends.columns["ex_day"][paid],
        dividends.columns["amount"][paid],
        int(dividends.scale[instrument]),
        bars.columns["day"][rows],
        bars.columns["close"][rows],
        int(bars.scale[instrument]),
        by_split,
        f"dividends of {name}",
    )
    return by_split, by_dividend


def _total_return(
    bars: Gathered, splits: Gathered, dividends: Gathered, anchor_day: int, out: F64, is_sure: I8
) -> None:
    """Write the factors of splits and dividends together; ``is_sure`` (s,) becomes 0 where they may not be right."""
    day: I32 = bars.columns["day"]
    ex_day, owner = dividends.columns["ex_day"], dividends.owner
    before = np.empty(ex_day.size, np.int64)
    rows_on(day, bars.start, owner, ex_day, before)
    # Dividends before the first bar have no step: nobody held then.
    kept = np.flatnonzero(before > bars.start[owner])
    ex_day, owner, before = ex_day[kept], owner[kept], before[kept] - 1
    num_hi, num_lo, den_hi, den_lo = (np.empty(kept.size, np.float64) for _ in range(4))
    found = np.empty(kept.size, np.int8)
    dividend_ratios(
        day[before],
        bars.columns["close"][before],
        _powers(dividends.scale[owner]),
        dividends.columns["amount"][kept],
        _powers(bars.scale[owner]),
        ex_day,
        splits.start[owner],
        splits.start[owner + 1],
        owner,
        splits.columns["ex_day"],
        splits.columns["numerator"],
        splits.columns["denominator"],
        num_hi,
        num_lo,
        den_hi,
        den_lo,
        found,
    )
    is_sure[owner[found == 0]] = 0
    by_split = splits.columns["numerator"].astype(np.float64), splits.columns["denominator"].astype(np.float64)
    is_sure[splits.owner[np.maximum(*by_split) >= EXACT_MAX]] = 0
    none = np.zeros(by_split[0].size)
    step_owner = np.concatenate((splits.owner, owner))
    step_day = np.concatenate((splits.columns["ex_day"], ex_day))
    order = np.lexsort((step_day, step_owner))
    step_start = np.searchsorted(step_owner[order], np.arange(bars.start.size)).astype(np.int64)
    num, num_rest, den, den_rest = (
        np.concatenate(pair)[order]
        for pair in ((by_split[0], num_hi), (none, num_lo), (by_split[1], den_hi), (none, den_lo))
    )
    product_factors(
        day, bars.start, anchor_day, step_start, step_day[order], num, num_rest, den, den_rest, out, is_sure
    )


def doubtful_splits(panel: Panel) -> I64:
    """Return how many splits of each instrument's run the prices do not show, (s,): the open of the ex-day over the
    close before is nearer to 1 than to the ratio, as in prices that were adjusted before they came. Only bars of the
    run are asked.
    """
    count = len(panel.instruments)
    owner = np.repeat(np.arange(count, dtype=np.int32), np.diff(panel.split_start))
    row = np.empty(owner.size, np.int64)
    rows_on(panel.day, panel.start, owner, panel.split_day, row)
    asked = (row > panel.start[owner]) & (row < panel.start[owner + 1])
    row, owner, num, den = row[asked], owner[asked], panel.split_num[asked], panel.split_den[asked]
    moved = panel.open[row] / panel.close[row - 1]
    doubted = (panel.day[row - 1] >= panel.start_day) & (np.abs(moved - 1.0) < np.abs(moved - den / num))
    return np.bincount(owner[doubted], minlength=count)
