"""What the report draws, as plain tables: thinned curves, monthly returns, the parameter map, numbers as text.

Pure functions of arrays; nothing here enters a fingerprint. Curves are thinned to at most 300 points in such a way that
peaks and troughs stay: a drawdown that the numbers mention can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farm.values import metrics
from farm.values.arrays import F64, I32, I64
from farm.values.units import month_of

CURVE_POINTS_MAX = 300

ABSENT = "–"
MINUS = "−"


def metric_text(name: str, value: float | None) -> str:
    """Return a metric as the registry shows it, with a true minus sign and a dash that looks like one."""
    said = metrics.METRICS[name].text(value)
    if said == metrics.ABSENT:
        return ABSENT
    return MINUS + said[1:] if said.startswith("-") else said


def signed(value: float, form: str) -> str:
    """Return ``value`` formatted, with a true minus sign and without a negative zero."""
    text = format(value, f"z{form}")
    return MINUS + text[1:] if text.startswith("-") else text


def thin(values: F64, points: int = CURVE_POINTS_MAX) -> I64:
    """Return at most ``points`` ascending positions of ``values`` (n,): both ends, low and high of each stretch."""
    n = len(values)
    if n <= points:
        return np.arange(n, dtype=np.int64)
    stretches = (points - 2) // 2
    bounds = np.linspace(1, n - 1, stretches + 1).astype(np.int64)
    kept = {0, n - 1}
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        kept.add(start + int(np.argmin(values[start:stop])))
        kept.add(start + int(np.argmax(values[start:stop])))
    return np.array(sorted(kept), np.int64)


def drawdown(start: float, equity: F64) -> F64:
    """Return the drawdown as a fraction at or below 0 at each session, the starting equity included in the peak."""
    peak = np.maximum.accumulate(np.concatenate(([start], equity)))[1:]
    below: F64 = np.where(peak > 0, equity / np.where(peak > 0, peak, 1.0) - 1.0, 0.0)
    return below


def monthly_returns(start: float, day: I32, equity: F64) -> dict[int, list[float | None]]:
    """Return, by year, the returns of its twelve months and of the year: 13 values, None where there is no session."""
    last: dict[int, float] = {}
    for at, value in zip(day.tolist(), equity.tolist(), strict=True):
        last[month_of(at)] = value
    table: dict[int, list[float | None]] = {}
    before = year_before = start
    for month, value in sorted(last.items()):
        year = month // 12
        if year not in table:
            table[year], year_before = [None] * 13, before
        table[year][month % 12] = _growth(before, value)
        table[year][12] = _growth(year_before, value)
        before = value
    return table


def _growth(before: float, after: float) -> float | None:
    return after / before - 1.0 if before > 0 else None


@dataclass(frozen=True)
class ParameterMap:
    """The objective over one or two parameters.

    ``x`` and ``y``: values of the parameters named by ``x_name`` and ``y_name`` (y empty for one parameter);
    ``value[j][i]``: the best objective at (x[i], y[j]) over all others, None where no trial has one; ``best_of_rest``:
    names of the parameters it is the best over; ``at``: the winner's values.
    """

    x_name: str
    y_name: str
    x: tuple[object, ...]
    y: tuple[object, ...]
    value: tuple[tuple[float | None, ...], ...]
    best_of_rest: tuple[str, ...]
    at: tuple[object, object | None]


def parameter_map(
    names: Sequence[str],
    points: Sequence[tuple[Sequence[object], float | None]],
    winner: Sequence[object],
    direction: str,
) -> ParameterMap | None:
    """Return the map of the objective over the two parameters with the most values; None when nothing varies.

    ``points`` pairs parameter values in the order of ``names`` with the objective; ``direction`` is "max" or "min".
    """
    levels = {name: _levels([values[i] for values, _ in points]) for i, name in enumerate(names)}
    varying = [name for name in names if len(levels[name]) > 1]
    # sorted() is stable: equal counts keep the order of the names.
    chosen = sorted(varying, key=lambda name: -len(levels[name]))[:2]
    chosen.sort(key=list(names).index)
    if not chosen:
        return None
    x_at = list(names).index(chosen[0])
    y_at = list(names).index(chosen[1]) if len(chosen) == 2 else None
    best: dict[tuple[object, object | None], float] = {}
    for values, objective in points:
        if objective is None or not math.isfinite(objective):
            continue
        place = (values[x_at], None if y_at is None else values[y_at])
        old = best.get(place)
        if old is None or (objective > old if direction == "max" else objective < old):
            best[place] = objective
    x = levels[chosen[0]]
    y: tuple[object, ...] = levels[chosen[1]] if y_at is not None else ()
    return ParameterMap(
        x_name=chosen[0],
        y_name=chosen[1] if y_at is not None else "",
        x=x,
        y=y,
        value=tuple(tuple(best.get((i, j)) for i in x) for j in (y or (None,))),
        best_of_rest=tuple(name for name in varying if name not in chosen),
        at=(winner[x_at], None if y_at is None else winner[y_at]),
    )


def _levels(values: Sequence[object]) -> tuple[object, ...]:
    """Return the distinct values: numbers ascending, then the rest as text."""
    numbers = {v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)}
    others = {v for v in values if not isinstance(v, (int, float)) or isinstance(v, bool)}
    return (*sorted(numbers), *sorted(others, key=repr))
