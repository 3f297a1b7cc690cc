"""Constraints between parameters: which trials of a table are left.

Rules: a constraint is three-valued like any condition; parameter sets for which it is not known to be true are left out
before trials are numbered. Arithmetic is float64, part by part in the order written; what is not finite is unknown. A
table is looked at whole: the work is one array operation for each part of a constraint. Source: domain.md 2.2, 2.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from farm.spec.grammar import ARITY, COMPARISONS
from farm.spec.reader import Reader, is_hole, join, one_of
from farm.spec.table import ParamTable
from farm.values.arrays import BOOL, F64
from farm.values.errors import SpecError

_OPS = ("add", "sub", "mul", "div", "neg", "abs", "min", "max", "clip")
_FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
_COMPARED = {"gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal}


def satisfied(constraints: Sequence[Any], table: ParamTable) -> BOOL:
    """Return (t,) whether every constraint is known to be true for the parameters of each trial."""
    found = np.ones(table.trials, np.bool_)
    with np.errstate(all="ignore"):
        for constraint in constraints:
            found &= _truth(constraint, table)[0]
    return found


def parse_constraint(reader: Reader, value: Any, place: str) -> Any:
    """Return a checked condition over parameters."""
    if isinstance(value, bool):
        return value
    heads = (*COMPARISONS, "between", "all", "any", "not")
    reader.object(value, place, heads)
    if len(value) != 1:
        raise SpecError("one condition has one key", place=place, allowed=one_of(heads), hint='join several with "all"')
    head, body = next(iter(value.items()))
    where = join(place, head)
    if head == "not":
        return {head: parse_constraint(reader, body, where)}
    if head in ("all", "any"):
        parts = reader.items(body, where, least=1)
        return {head: [parse_constraint(reader, part, f"{where}[{index}]") for index, part in enumerate(parts)]}
    count = 3 if head == "between" else 2
    parts = reader.items(body, where, least=count, most=count)
    return {head: [_parse_number(reader, part, f"{where}[{index}]") for index, part in enumerate(parts)]}


def _parse_number(reader: Reader, value: Any, place: str) -> Any:
    if is_hole(value):
        return reader.scalar(value, place, reader.number)
    if not isinstance(value, dict):
        return reader.number(value, place)
    reader.object(value, place, ("op", "a"), required=("op", "a"))
    op = reader.word(value["op"], join(place, "op"), _OPS)
    least, most = ARITY[op]
    parts = reader.items(value["a"], join(place, "a"), least=least, most=most)
    return {"op": op, "a": [_parse_number(reader, part, f"{place}.a[{index}]") for index, part in enumerate(parts)]}


def _truth(condition: Any, table: ParamTable) -> tuple[BOOL, BOOL]:
    """Return (t,) whether the condition is true, and whether it is false; unknown is neither."""
    if isinstance(condition, bool):
        whole = np.full(table.trials, condition)
        return whole, ~whole
    head, body = next(iter(condition.items()))
    if head == "not":
        is_true, is_false = _truth(body, table)
        return is_false, is_true
    if head in ("all", "any"):
        truths = [_truth(part, table) for part in body]
        every, some = (np.logical_and, np.logical_or) if head == "all" else (np.logical_or, np.logical_and)
        return every.reduce([one for one, _ in truths]), some.reduce([one for _, one in truths])
    numbers = [_number(part, table) for part in body]
    is_known = ~np.logical_or.reduce([np.isnan(number) for number in numbers])
    if head == "between":
        holds = (numbers[1] <= numbers[0]) & (numbers[0] <= numbers[2])
    else:
        holds = _COMPARED[head](*numbers)
    return is_known & holds, is_known & ~holds


def _number(value: Any, table: ParamTable) -> F64:
    """Return the number for each trial (t,), NaN where it is unknown."""
    if is_hole(value):
        return table.numbers(value[1:])
    if not isinstance(value, dict):
        return np.full(table.trials, float(value))
    parts = [_number(part, table) for part in value["a"]]
    result = _operate(value["op"], parts)
    return np.where(np.isfinite(result), result, np.nan)


def _operate(op: str, parts: list[F64]) -> F64:
    first = parts[0]
    if op in ("neg", "abs"):
        return np.negative(first) if op == "neg" else np.abs(first)
    if op == "clip":
        return np.minimum(np.maximum(first, parts[1]), parts[2])
    for part in parts[1:]:
        first = np.where(part != 0.0, first / part, np.nan) if op == "div" else _FOLDED[op](first, part)
    return first
