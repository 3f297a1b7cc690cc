"""Constraints of parameters judged for one parameter set at a time, in plain Python (``farm/spec/constraints.py``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from farm.spec.reader import is_hole
from farm.spec.spec import Value


def constraints_hold(constraints: Sequence[Any], values: Mapping[str, Value]) -> bool:
    """Return whether every constraint is known to be true for these parameter values."""
    return all(_truth(constraint, values) is True for constraint in constraints)


def _truth(condition: Any, values: Mapping[str, Value]) -> bool | None:
    if isinstance(condition, bool):
        return condition
    head, body = next(iter(condition.items()))
    if head == "not":
        inner = _truth(body, values)
        return None if inner is None else not inner
    if head in ("all", "any"):
        truths = [_truth(part, values) for part in body]
        decisive = head == "any"
        return decisive if decisive in truths else None if None in truths else not decisive
    numbers = [_number(part, values) for part in body]
    if any(math.isnan(number) for number in numbers):
        return None
    if head == "between":
        return numbers[1] <= numbers[0] <= numbers[2]
    a, b = numbers
    return {"gt": a > b, "ge": a >= b, "lt": a < b, "le": a <= b}[head]


def _number(value: Any, values: Mapping[str, Value]) -> float:
    """Return the number, NaN where it is unknown."""
    if is_hole(value):
        return float(values[value[1:]])
    if not isinstance(value, dict):
        return float(value)
    parts = [_number(part, values) for part in value["a"]]
    if any(math.isnan(part) for part in parts):
        return math.nan
    result = _operate(value["op"], parts)
    return result if math.isfinite(result) else math.nan


def _operate(op: str, parts: list[float]) -> float:
    first, rest = parts[0], parts[1:]
    if op in ("neg", "abs"):
        return -first if op == "neg" else abs(first)
    if op == "clip":
        return min(max(first, parts[1]), parts[2])
    for part in rest:
        if op == "div":
            first = first / part if part else math.nan
        elif op == "mul":
            first = first * part
        elif op in ("add", "sub"):
            first = first + part if op == "add" else first - part
        else:
            first = min(first, part) if op == "min" else max(first, part)
    return first
