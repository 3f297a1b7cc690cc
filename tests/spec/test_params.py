"""Grids and constraints of parameters (domain.md 2.6)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.spec.params import check_params, constraints_hold, grid_values, parse_constraint, parse_params
from farm.spec.reader import Reader
from farm.spec.spec import ChoiceParam, FloatParam, IntParam
from farm.values.errors import SpecError


@pytest.mark.parametrize(
    ("param", "values"),
    [
        (IntParam(5, 20, 5), (5, 10, 15, 20)),
        (IntParam(5, 22, 5), (5, 10, 15, 20, 22)),
        (IntParam(3, 3, 1), (3,)),
        (IntParam(-2, 1, 1), (-2, -1, 0, 1)),
        (ChoiceParam((3, "x", True)), (3, "x", True)),
    ],
)
def test_grids_include_their_upper_end(param: Any, values: tuple[Any, ...]) -> None:
    assert grid_values(param, "p") == values


def test_a_float_has_no_grid() -> None:
    with pytest.raises(SpecError, match="no grid"):
        grid_values(FloatParam(0.0, 1.0, False), "strategy.params.x")


def test_declarations() -> None:
    declared = {"b": {"int": [1, 9]}, "a": {"float": [0.5, 2], "log": True}, "c": {"choice": ["x", 1.5, False]}}
    found = parse_params(declared, "strategy.params")
    assert found == {"a": FloatParam(0.5, 2.0, True), "b": IntParam(1, 9, 1), "c": ChoiceParam(("x", 1.5, False))}
    assert list(found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "values",
    [{"n": 3.5}, {"n": True}, {"n": "3"}, {"n": 99}, {}, {"n": 3, "m": 1}],
)
def test_values_outside_the_declaration(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        check_params({"n": IntParam(1, 9, 1)}, values)


def test_true_is_not_one() -> None:
    with pytest.raises(SpecError):
        check_params({"n": ChoiceParam((1,))}, {"n": True})


def holds(condition: Any, **values: Any) -> bool:
    reader = Reader({name: ChoiceParam((value,)) for name, value in values.items()})
    return constraints_hold((parse_constraint(reader, condition, "c"),), values)


@given(st.integers(-50, 50), st.integers(-50, 50))
def test_constraints_are_arithmetic(a: int, b: int) -> None:
    ratio = {"op": "div", "a": ["$a", "$b"]}
    assert holds({"lt": ["$a", "$b"]}, a=a, b=b) == (a < b)
    assert holds({"ge": [{"op": "mul", "a": [2, "$a"]}, "$b"]}, a=a, b=b) == (2 * a >= b)
    assert holds({"between": [{"op": "sub", "a": ["$b", "$a"]}, 0, 10]}, a=a, b=b) == (0 <= b - a <= 10)
    assert holds({"not": {"any": [{"gt": ["$a", 3]}, {"le": ["$b", 3]}]}}, a=a, b=b) == (not (a > 3 or b <= 3))
    assert holds({"le": [ratio, 2]}, a=a, b=b) == (b != 0 and Fraction(a, b) <= 2)


def test_what_is_unknown_does_not_hold_either_way() -> None:
    """A division by zero makes a condition unknown, and `not unknown` is unknown."""
    ratio = {"gt": [{"op": "div", "a": ["$a", 0]}, 1]}
    assert not holds(ratio, a=1) and not holds({"not": ratio}, a=1)
    assert holds({"any": [ratio, True]}, a=1) and not holds({"all": [ratio, True]}, a=1)


def test_no_constraint_always_holds() -> None:
    assert constraints_hold((), {}) and holds(True) and not holds(False)
