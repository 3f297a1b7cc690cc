"""The grid: order, ends of ranges, constraints, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from farm.spec.spec import ChoiceParam, FloatParam, IntParam
from farm.study.space import grid
from farm.values.errors import CapacityError, SpecError

FAST, SLOW = IntParam(5, 15, 5), IntParam(10, 20, 5)


def test_order_is_lexicographic_in_the_name() -> None:
    """The last name varies fastest, in whatever order the spec names them."""
    expected = list(itertools.product((5, 10, 15), (10, 15, 20)))
    assert list(grid({"slow": SLOW, "fast": FAST}, ()).values) == expected
    assert grid({"slow": SLOW, "fast": FAST}, ()).names == ("fast", "slow")


@given(some.integers(-50, 50), some.integers(0, 60), some.integers(1, 9))
def test_integer_ranges_include_hi(lo: int, width: int, step: int) -> None:
    values = [value for (value,) in grid({"n": IntParam(lo, lo + width, step)}, ()).values]
    assert values[0] == lo and values[-1] == lo + width
    assert list(values) == sorted(set(values))
    assert all((value - lo) % step == 0 for value in values[:-1])


def test_constraints_come_before_numbers() -> None:
    made = grid({"fast": FAST, "slow": SLOW}, ({"lt": ["$fast", "$slow"]},))
    assert made.values == ((5, 10), (5, 15), (5, 20), (10, 15), (10, 20), (15, 20))
    assert made.excluded == 3


def test_no_parameters_is_one_trial() -> None:
    made = grid({}, ())
    assert (made.names, made.values, made.excluded) == ((), ((),), 0)


def test_choices_keep_their_order() -> None:
    assert grid({"c": ChoiceParam((3, 1, 2))}, ()).values == ((3,), (1,), (2,))


def test_what_has_no_grid() -> None:
    with pytest.raises(SpecError, match=r"strategy\.params\.x: a float parameter has no grid"):
        grid({"x": FloatParam(0.0, 1.0, False)}, ())
    with pytest.raises(SpecError, match="no trial is left"):
        grid({"fast": FAST}, ({"gt": ["$fast", 99]},))
    with pytest.raises(CapacityError, match="points"):
        grid({name: IntParam(1, 1000, 1) for name in "abc"}, ())
