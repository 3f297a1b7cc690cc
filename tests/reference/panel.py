"""Rows of many instruments side by side, and their sessions and factors, by definition."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Runs = Sequence[tuple[int, int]]
"""Runs, or instruments: where the rows of each begin and end."""


def clip_runs(day: Sequence[int], runs: Runs, first_day: Sequence[int], last_day: int) -> list[list[int]]:
    """The rows of each run on [first day, last day]."""
    return [
        [row for row in range(*run) if since <= day[row] <= last_day]
        for run, since in zip(runs, first_day, strict=True)
    ]


def spare_decimals(ticks: Sequence[int], runs: Runs, most: Sequence[int]) -> list[int]:
    """The largest power of ten, up to ``most``, that divides every tick of a run."""
    return [
        max(spare for spare in range(top + 1) if all(ticks[row] % 10**spare == 0 for row in range(*run)))
        for run, top in zip(runs, most, strict=True)
    ]


def out_of_order(day: Sequence[int], instruments: Runs) -> list[int]:
    """1 where the days of an instrument do not strictly rise."""
    return [int(sorted(set(day[low:high])) != list(day[low:high])) for low, high in instruments]


def bar_sessions(
    day: Sequence[int], instruments: Runs, calendars: Sequence[dict[int, tuple[int, int]]]
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Of each instrument the first bar on a day that is no session, or -1, and the sessions of the bars before it.

    calendars: the one of each instrument, day -> open and close.
    """
    found = []
    for (low, high), calendar in zip(instruments, calendars, strict=True):
        strange = next((row for row in range(low, high) if day[row] not in calendar), -1)
        found.append((strange, [calendar[day[row]] for row in range(low, high if strange < 0 else strange)]))
    return found


def rows_on(day: Sequence[int], instruments: Runs, wanted: Sequence[tuple[int, int]]) -> list[int]:
    """The first row of an instrument on a day or after it, else the end of its rows."""
    return [
        next((row for row in range(*instruments[at]) if day[row] >= when), instruments[at][1]) for at, when in wanted
    ]


def exact_factors(day: Sequence[int], anchor_day: int, steps: Sequence[tuple[int, Fraction]]) -> list[Fraction]:
    """Of each bar the product of the steps after the anchor up to it, over those after it up to the anchor."""
    found = []
    for bar in day:
        factor = Fraction(1)
        for when, ratio in steps:
            if anchor_day < when <= bar:
                factor *= ratio
            elif bar < when <= anchor_day:
                factor /= ratio
        found.append(factor)
    return found


def dividend_ratio(
    bar_day: int, close: Fraction, amount: Fraction, day: int, splits: Sequence[tuple[int, int, int]]
) -> Fraction:
    """Close over close less dividend, the close in the shares of the ex-day: splits are (day, new, old)."""
    for when, num, den in splits:
        if bar_day < when <= day:
            close = close * den / num
    return close / (close - amount)
