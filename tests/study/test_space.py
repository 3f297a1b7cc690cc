"""The grid: order, ends of ranges, constraints, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from farm.strategy.spec import ChoiceParam, FloatParam, IntParam
from farm.study.space import grid, holds, values_of
from farm.values.errors import CapacityError, SpecError

FAST, SLOW = IntParam(5, 15, 5), IntParam(10, 20, 5)


def test_order_is_lexicographic_in_the_name() -> None:
    """The last name varies fastest, in whatever order the spec names them."""
    expected = list(itertools.product((5, 10, 15), (10, 15, 20)))
    assert list(grid({"slow": SLOW, "fast": FAST}, ()).values) == expected
    assert grid({"slow": SLOW, "fast": FAST}, ()).names == ("fast", "slow")


@given(some.integers(-50, 50), some.integers(0, 60), some.integers(1, 9))
def test_integer_ranges_include_hi(lo: int, width: int, step: int) -> None:
    values = values_of("n", IntParam(lo, lo + width, step))
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


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ({"gt": ["$a", 2]}, True),
        ({"ge": ["$a", 3]}, True),
        ({"lt": ["$a", "$b"]}, True),
        ({"le": [{"op": "mul", "a": ["$a", 2]}, "$b"]}, True),
        ({"between": ["$a", 4, 5]}, False),
        ({"all": [True, {"not": False}]}, True),
        ({"any": [False, {"gt": ["$a", "$b"]}]}, False),
        ({"gt": [{"op": "sub", "a": ["$b", "$a"]}, 3]}, True),
    ],
)
def test_constraints(constraint: object, expected: bool) -> None:
    assert holds(constraint, {"a": 3, "b": 7}, "c") is expected


@pytest.mark.parametrize(
    ("constraint", "place"),
    [
        ({"lt": ["$a", "$zz"]}, r"c\.lt\[1\]"),
        ({"lt": ["$a"]}, "c"),
        ({"cross_up": ["$a", 1]}, "c"),
        ({"all": [{"gt": ["$a", "close"]}]}, r"c\.all\[0\]\.gt\[1\]"),
        ({"gt": [{"op": "div", "a": ["$a", 0]}, 1]}, r"c\.gt\[0\]"),
        ("$a", "c"),
    ],
)
def test_a_bad_constraint_names_its_place(constraint: object, place: str) -> None:
    with pytest.raises(SpecError, match=f"^{place}: "):
        holds(constraint, {"a": 3, "b": 7}, "c")


def test_what_has_no_grid() -> None:
    with pytest.raises(SpecError, match=r"strategy\.params\.x: a float range has no grid"):
        grid({"x": FloatParam(0.0, 1.0, False)}, ())
    with pytest.raises(SpecError, match="no trial is left"):
        grid({"fast": FAST}, ({"gt": ["$fast", 99]},))
    with pytest.raises(CapacityError, match="points"):
        grid({name: IntParam(1, 1000, 1) for name in "abc"}, ())
