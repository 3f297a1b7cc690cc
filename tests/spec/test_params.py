"""Grids, values and constraints of parameters (domain.md 2.6)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.spec.constraints import parse_constraint, satisfied
from farm.spec.params import check_params, check_table, grid_values, parse_params
from farm.spec.reader import Reader
from farm.spec.spec import ChoiceParam, FloatParam, IntParam, Value
from farm.spec.table import ParamTable
from farm.values.errors import SpecError
from tests.reference.constraints import constraints_hold


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


def table_of(rows: list[dict[str, Value]]) -> ParamTable:
    """The table of these parameter sets, which all have the same names."""
    names = tuple(sorted(rows[0]))
    columns = [[row[name] for row in rows] for name in names]
    known = [list({(type(value), value): value for value in column}.values()) for column in columns]
    places = [{(type(value), value): code for code, value in enumerate(values)} for values in known]
    codes = [
        np.array([place[type(value), value] for value in column], np.int32)
        for column, place in zip(columns, places, strict=True)
    ]
    return ParamTable(names, tuple(map(tuple, known)), tuple(codes), len(rows))


N = st.sampled_from((0, 1, 4, 9, 10, 2.5, "3", True))
C = st.sampled_from((1, True, "x", "y"))


@given(st.lists(st.fixed_dictionaries({"n": N, "c": C}), min_size=1, max_size=5))
def test_a_table_is_refused_as_one_of_its_rows_is(rows: list[dict[str, Any]]) -> None:
    """With the same words and the same place."""
    declared = {"n": IntParam(1, 9, 1), "c": ChoiceParam((1, "x"))}

    def refusal(check: Any, what: Any) -> str:
        try:
            check(declared, what)
        except SpecError as error:
            return str(error)
        return ""

    alone = {refusal(check_params, row) for row in rows}
    together = refusal(check_table, table_of(rows))
    assert together in alone and (alone == {""}) == (not together)


def test_a_table_has_the_parameters_that_are_declared() -> None:
    for rows in ([{"m": 1}], [{"n": 1, "m": 1}]):
        with pytest.raises(SpecError, match="parameter"):
            check_table({"n": IntParam(1, 9, 1)}, table_of(rows))


def holds(condition: Any, **values: Any) -> bool:
    """Judged for one parameter set, and as a table of one row."""
    reader = Reader({name: ChoiceParam((value,)) for name, value in values.items()})
    constraints = (parse_constraint(reader, condition, "c"),)
    [found] = satisfied(constraints, table_of([values]))
    assert bool(found) == constraints_hold(constraints, values)
    return bool(found)


def sums(depth: int = 2) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from(("$a", "$b", 0, 1, -2.5, 1e308, 1e-308))
    if depth == 0:
        return leaf
    inner = sums(depth - 1)
    some = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        leaf,
        st.builds(lambda op, a: {"op": op, "a": a}, st.sampled_from(("add", "mul", "min", "max")), some),
        st.builds(lambda op, a, b: {"op": op, "a": [a, b]}, st.sampled_from(("sub", "div")), inner, inner),
        st.builds(lambda op, a: {"op": op, "a": [a]}, st.sampled_from(("neg", "abs")), inner),
        st.builds(lambda a, b, c: {"op": "clip", "a": [a, b, c]}, inner, inner, inner),
    )


def conditions(depth: int = 2) -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.builds(lambda op, a, b: {op: [a, b]}, st.sampled_from(("gt", "ge", "lt", "le")), sums(), sums()),
        st.builds(lambda a, b, c: {"between": [a, b, c]}, sums(), sums(), sums()),
        st.booleans(),
    )
    if depth == 0:
        return leaf
    inner = conditions(depth - 1)
    return st.one_of(
        leaf,
        inner.map(lambda part: {"not": part}),
        st.builds(lambda op, parts: {op: parts}, st.sampled_from(("all", "any")), st.lists(inner, min_size=1)),
    )


PAIRS = st.tuples(st.sampled_from((-3, 0, 1, 7)), st.sampled_from((-1.5, -0.0, 0.25, 1e308)))


@given(st.lists(conditions(), max_size=3), st.lists(PAIRS, min_size=1, max_size=8))
def test_a_table_is_judged_row_by_row(constraints: list[Any], pairs: list[tuple[int, float]]) -> None:
    """Three-valued, over the whole table at once: what each parameter set alone gives."""
    rows: list[dict[str, Value]] = [{"a": a, "b": b} for a, b in pairs]
    reader = Reader({"a": ChoiceParam((1,)), "b": ChoiceParam((1,))})
    checked = [parse_constraint(reader, condition, "c") for condition in constraints]
    assert satisfied(checked, table_of(rows)).tolist() == [constraints_hold(checked, row) for row in rows]


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
    assert satisfied((), table_of([{"a": 1}, {"a": 2}])).all() and holds(True) and not holds(False)
