"""The value of a trial and the order of trials, against the words of domain.md 2.6."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import array_shapes, arrays

from farm.spec.grammar import OVERS
from farm.study.ranking import over_cells, rank

numbers = some.floats(-1e6, 1e6) | some.just(math.nan)
cubes = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7), elements=numbers)
plain = {"median": statistics.median, "mean": lambda known: sum(known) / len(known), "min": min, "max": max}


@given(cubes, some.sampled_from(OVERS))
def test_value_is_that_of_the_known_cells(cube: np.ndarray, over: str) -> None:
    for row, value in zip(cube, over_cells(cube, over), strict=True):
        known = [x for x in row.tolist() if not math.isnan(x)]
        if known:
            assert value == pytest.approx(plain[over](known), rel=1e-15, abs=0)
        else:
            assert math.isnan(value)


def test_a_trial_without_cells_has_no_value() -> None:
    assert np.isnan(over_cells(np.empty((2, 0)), "median")).all()


vectors = some.lists(
    some.tuples(
        some.sampled_from([1.0, 2.0, math.nan]),
        some.sampled_from([0.1, 0.2, math.nan]),
        some.sampled_from([3.0, 4.0, math.nan]),
    ),
    min_size=1,
    max_size=30,
)


@given(vectors, some.sampled_from(["max", "min"]))
def test_order_is_value_then_drawdown_then_trades_then_number(rows: list, direction: str) -> None:
    def place(number: int) -> tuple:
        value, max_dd, trades = rows[number]
        parts: list[tuple[bool, float]] = []
        for part in (-value if direction == "max" else value, max_dd, trades):
            parts.append((math.isnan(part), 0.0 if math.isnan(part) else part))
        return (*parts, number)

    value, max_dd, trades = np.array(rows).T
    assert sorted(range(len(rows)), key=place) == rank(value, direction, max_dd, trades).tolist()
