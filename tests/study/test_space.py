"""The grid: order, ends of ranges, constraints, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as some

from farm.spec.spec import ChoiceParam, FloatParam, IntParam, Param
from farm.study.space import grid
from farm.values.errors import CapacityError, SpecError

FAST, SLOW = IntParam(5, 15, 5), IntParam(10, 20, 5)


def points(params: Mapping[str, Param], constraints: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of the grid's table."""
    table = grid(params, constraints).table
    return [tuple(table.row(trial).values()) for trial in range(table.trials)]


def test_order_is_lexicographic_in_the_name() -> None:
    """The last name varies fastest, in whatever order the spec names them."""
    expected = list(itertools.product((5, 10, 15), (10, 15, 20)))
    assert points({"slow": SLOW, "fast": FAST}) == expected
    assert grid({"slow": SLOW, "fast": FAST}, ()).table.names == ("fast", "slow")


@given(some.integers(-50, 50), some.integers(0, 60), some.integers(1, 9))
def test_integer_ranges_include_hi(lo: int, width: int, step: int) -> None:
    values = [value for (value,) in points({"n": IntParam(lo, lo + width, step)})]
    assert values[0] == lo and values[-1] == lo + width
    assert list(values) == sorted(set(values))
    assert all((value - lo) % step == 0 for value in values[:-1])


def test_constraints_come_before_numbers() -> None:
    params, constraints = {"fast": FAST, "slow": SLOW}, ({"lt": ["$fast", "$slow"]},)
    assert points(params, constraints) == [(5, 10), (5, 15), (5, 20), (10, 15), (10, 20), (15, 20)]
    assert grid(params, constraints).excluded == 3


def test_no_parameters_is_one_trial() -> None:
    made = grid({}, ())
    assert (made.table.names, made.table.trials, made.table.row(0), made.excluded) == ((), 1, {}, 0)


def test_choices_keep_their_order() -> None:
    assert points({"c": ChoiceParam((3, 1, 2))}) == [(3,), (1,), (2,)]


def test_what_has_no_grid() -> None:
    with pytest.raises(SpecError, match=r"strategy\.params\.x: a float parameter has no grid"):
        grid({"x": FloatParam(0.0, 1.0, False)}, ())
    with pytest.raises(SpecError, match="no trial is left"):
        grid({"fast": FAST}, ({"gt": ["$fast", 99]},))


def test_limits_are_refused_with_the_count_before_constraints_are_looked_at() -> None:
    params, constraints = {"a": IntParam(1, 1000, 1)}, ({"gt": ["$a", 1]},)
    many = r"^strategy\.params: the grid has 1,000,000,000 points; allowed: at most 10,000,000"
    with pytest.raises(CapacityError, match=many):
        grid({name: IntParam(1, 1000, 1) for name in "abc"}, constraints)
    many = r"10,000,001,000 cells: 1,000 points of the grid on 10,000,001 instruments"
    with mock.patch("farm.study.space.satisfied", side_effect=AssertionError), pytest.raises(CapacityError, match=many):
        grid(params, constraints, subjects=10_000_001)
    assert grid(params, constraints, subjects=10_000_000).table.trials == 999
