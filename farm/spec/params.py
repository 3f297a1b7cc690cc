"""Parameters: their declaration, their grids, and the constraints between them.

Rules: a grid is lexicographic in parameter name, and each parameter runs in its own order; integer ranges include
``hi``; a ``float`` parameter has no grid. A constraint is three-valued like any condition: parameter sets for which it
is not known to be true are left out before trials are numbered. Source: domain.md 2.1, 2.6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from farm.spec.grammar import ARITY, COMPARISONS
from farm.spec.reader import Reader, is_hole, join, near, one_of, show
from farm.spec.spec import ChoiceParam, FloatParam, IntParam, Param, Value
from farm.values.errors import CapacityError, SpecError

VALUES_MAX = 1_000_000
"""Most values of one parameter."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS = ("int", "float", "choice")
_OPS = ("add", "sub", "mul", "div", "neg", "abs", "min", "max", "clip")


def parse_params(value: Any, place: str) -> dict[str, Param]:
    """Return the declared parameters, sorted by name."""
    reader = Reader({})
    if not isinstance(value, dict):
        raise SpecError(f"not an object: {show(value)}", place=place, allowed='{"name": {"int": [lo, hi, step]}, ...}')
    for name in value:
        if not _NAME.fullmatch(name):
            raise SpecError("not a name", place=join(place, name), allowed="letters, digits and _, no digit first")
    return {name: _parse_param(reader, value[name], join(place, name)) for name in sorted(value)}


def _parse_param(reader: Reader, value: Any, place: str) -> Param:
    reader.object(value, place, (*_KINDS, "log"))
    kinds = [kind for kind in _KINDS if kind in value]
    if len(kinds) != 1:
        raise SpecError("exactly one kind of values", place=place, allowed=one_of(_KINDS))
    kind = kinds[0]
    where = join(place, kind)
    if "log" in value and kind != "float":
        raise SpecError("only float parameters spread on a log scale", place=join(place, "log"))
    if kind == "choice":
        return _parse_choice(reader, value[kind], where)
    if kind == "float":
        bounds = reader.items(value[kind], where, least=2, most=2)
        low, high = (float(reader.number(bound, f"{where}[{index}]")) for index, bound in enumerate(bounds))
        is_log = reader.flag(value.get("log", False), join(place, "log"))
        if low > high or (is_log and low <= 0):
            allowed = "0 < lo <= hi" if is_log else "lo <= hi"
            raise SpecError(f"no values from {show(low)} to {show(high)}", place=where, allowed=allowed)
        return FloatParam(low, high, is_log)
    bounds = reader.items(value[kind], where, least=2, most=3)
    numbers = [reader.integer(bound, f"{where}[{index}]") for index, bound in enumerate(bounds)]
    step = numbers[2] if len(numbers) == 3 else 1
    if numbers[0] > numbers[1]:
        raise SpecError(f"no values from {numbers[0]} to {numbers[1]}", place=where, allowed="[lo, hi] with lo <= hi")
    if step < 1:
        raise SpecError(f"step {step}", place=f"{where}[2]", allowed="a step >= 1")
    return IntParam(numbers[0], numbers[1], step)


def _parse_choice(reader: Reader, value: Any, place: str) -> ChoiceParam:
    items = reader.items(value, place, least=1)
    for index, item in enumerate(items):
        where = f"{place}[{index}]"
        if not isinstance(item, bool | int | float | str):
            raise SpecError(f"not a scalar: {show(item)}", place=where, allowed="numbers, text, true, false")
        if isinstance(item, str) and item[:1] in ("$", "@"):
            raise SpecError(f"a choice cannot refer to others: {show(item)}", place=where, allowed="plain values")
        if any(_same(item, other) for other in items[:index]):
            raise SpecError(f"{show(item)} is listed twice", place=where, hint="remove one of them")
    return ChoiceParam(tuple(items))


def _same(a: Value, b: Value) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def grid_values(param: Param, place: str) -> tuple[Value, ...]:
    """Return the values of a parameter's grid, in its order.

    Errors: SpecError for a float, which has none; CapacityError for a range that nobody can mean.
    """
    if isinstance(param, ChoiceParam):
        return param.values
    if isinstance(param, IntParam):
        count = (param.hi - param.lo) // param.step + 1
        if count > VALUES_MAX:
            raise CapacityError(
                f"the range has {count:,} values", place=place, allowed=f"at most {VALUES_MAX:,}",
                hint="use a larger step, as in [lo, hi, step]",
            )  # fmt: skip
        values = list(range(param.lo, param.hi + 1, param.step))
        return tuple(values if values[-1] == param.hi else [*values, param.hi])
    hint = 'list the values as {"choice": [...]}, or use an int'
    raise SpecError("a float parameter has no grid", place=place, allowed="int, choice", hint=hint)


def check_params(declared: Mapping[str, Param], values: Mapping[str, Value]) -> None:
    """Refuse a parameter set that the declarations do not allow (SpecError)."""
    for name in values:
        if name not in declared:
            raise SpecError("unknown parameter", place=name, allowed=one_of(declared), hint=near(name, declared))
    for name, param in declared.items():
        if name not in values:
            raise SpecError("parameter without a value", place=name, allowed=one_of(declared))
        if not _allows(param, values[name]):
            raise SpecError(f"{show(values[name])} is not among its values", place=name, allowed=_describe(param))


def _allows(param: Param, value: Value) -> bool:
    if isinstance(param, ChoiceParam):
        return any(_same(value, known) for known in param.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return param.lo <= value <= param.hi and (isinstance(param, FloatParam) or value == int(value))


def _describe(param: Param) -> str:
    if isinstance(param, ChoiceParam):
        return one_of(show(value) for value in param.values)
    return f"{'an integer' if isinstance(param, IntParam) else 'a number'} from {param.lo} to {param.hi}"


def constraints_hold(constraints: Sequence[Any], values: Mapping[str, Value]) -> bool:
    """Return whether every constraint is known to be true for these parameter values."""
    return all(_truth(constraint, values) is True for constraint in constraints)


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
