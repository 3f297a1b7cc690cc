"""The parameter grid: which trials a study has, and in which order.

1. Each parameter gives its values: an integer range every step-th integer from lo and always hi; a choice its values
   in the order written.
2. The grid is their product, lexicographic in parameter name: the last name varies fastest.
3. Constraints drop points before trials are numbered. What they drop is counted.

A study without parameters is one trial without values. Source: domain.md 2.6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.strategy.spec import ChoiceParam, FloatParam, IntParam, Param, Value
from farm.values.errors import CapacityError, SpecError

POINTS_MAX = 5_000_000
"""Most points of a grid, constraints not counted: beyond it a grid is a mistake more often than a wish."""

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}
_ARITHMETIC: Mapping[str, Callable[[list[float]], float]] = {
    "add": sum,
    "sub": lambda a: a[0] - a[1],
    "mul": math.prod,
    "div": lambda a: a[0] / a[1],
    "neg": lambda a: -a[0],
    "abs": lambda a: abs(a[0]),
    "min": min,
    "max": max,
}


@dataclass(frozen=True)
class Grid:
    """Parameter names, sorted; the values of each trial in that order; and the count of points that were dropped."""

    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    excluded: int


def grid(params: Mapping[str, Param], constraints: Sequence[Any]) -> Grid:
    """Return the grid's trials. SpecError when nothing is left, or a parameter has no grid; CapacityError."""
    names = tuple(sorted(params))
    axes = [values_of(name, params[name]) for name in names]
    points = math.prod(len(axis) for axis in axes)
    if points > POINTS_MAX:
        raise CapacityError(
            f"the grid has {points:,} points",
            place="strategy.params",
            allowed=f"at most {POINTS_MAX:,}",
            hint="use larger steps or fewer parameters",
        )
    kept = [
        point for point in itertools.product(*axes) if _holds_all(constraints, dict(zip(names, point, strict=True)))
    ]
    if not kept:
        raise SpecError(
            f"no trial is left: the constraints drop all {points} points of the grid", place="strategy.constraints"
        )
    return Grid(names, tuple(kept), points - len(kept))


def values_of(name: str, param: Param) -> tuple[Value, ...]:
    """Return the grid values of one parameter, in grid order."""
    if isinstance(param, FloatParam):
        raise SpecError(
            "a float range has no grid",
            place=f"strategy.params.{name}",
            allowed='{"int": [lo, hi, step]} or {"choice": [...]}',
            hint="list the values you want as a choice",
        )
    if isinstance(param, ChoiceParam):
        return param.values
    return tuple(_integers(param))


def _integers(param: IntParam) -> Iterator[int]:
    yield from range(param.lo, param.hi, param.step)
    yield param.hi


def _holds_all(constraints: Sequence[Any], point: Mapping[str, Value]) -> bool:
    return all(holds(constraint, point, f"strategy.constraints[{i}]") for i, constraint in enumerate(constraints))


def holds(constraint: Any, point: Mapping[str, Value], place: str) -> bool:
    """Whether a constraint over parameters holds at ``point``; SpecError for what is no such constraint."""
    if isinstance(constraint, bool):
        return constraint
    if isinstance(constraint, Mapping) and len(constraint) == 1:
        ((op, parts),) = constraint.items()
        inner = f"{place}.{op}"
        if op in _COMPARE and isinstance(parts, Sequence) and len(parts) == 2:
            return bool(_COMPARE[op](_number(parts[0], point, f"{inner}[0]"), _number(parts[1], point, f"{inner}[1]")))
        if op == "between" and isinstance(parts, Sequence) and len(parts) == 3:
            x, low, high = (_number(part, point, f"{inner}[{i}]") for i, part in enumerate(parts))
            return low <= x <= high
        if op == "all" and isinstance(parts, Sequence):
            return all(holds(part, point, f"{inner}[{i}]") for i, part in enumerate(parts))
        if op == "any" and isinstance(parts, Sequence):
            return any(holds(part, point, f"{inner}[{i}]") for i, part in enumerate(parts))
        if op == "not":
            return not holds(parts, point, inner)
    raise SpecError(
        f"not a constraint over parameters: {constraint!r}",
        place=place,
        allowed="gt, ge, lt, le, between, all, any, not over parameters and numbers",
    )


def _number(part: Any, point: Mapping[str, Value], place: str) -> float:
    if isinstance(part, (int, float)) and not isinstance(part, bool):
        return part
    if isinstance(part, str) and part.startswith("$") and part[1:] in point:
        value = point[part[1:]]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        raise SpecError(f"the parameter {part} is not a number here: {value!r}", place=place)
    if isinstance(part, Mapping) and set(part) == {"op", "a"} and part["op"] in _ARITHMETIC and part["a"]:
        numbers = [_number(inner, point, f"{place}.a[{i}]") for i, inner in enumerate(part["a"])]
        try:
            return float(_ARITHMETIC[part["op"]](numbers))
        except (ZeroDivisionError, IndexError) as error:
            raise SpecError(f"cannot be computed: {error}", place=place) from error
    raise SpecError(
        f"not a number or a parameter: {part!r}",
        place=place,
        allowed=", ".join(f"${name}" for name in sorted(point)) or "this study has no parameters",
    )
