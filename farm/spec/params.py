"""Parameters: their declaration, their grids, and which values they may have.

Rules: a grid is lexicographic in parameter name, and each parameter runs in its own order; integer ranges include
``hi``; a ``float`` parameter has no grid. Source: domain.md 2.1, 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from farm.spec.reader import Reader, join, near, one_of, show
from farm.spec.spec import ChoiceParam, FloatParam, IntParam, Param, Value
from farm.spec.table import ParamTable
from farm.values.errors import CapacityError, SpecError

VALUES_MAX = 1_000_000
"""Most values of one parameter."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS = ("int", "float", "choice")


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
    check_values(declared, {name: (value,) for name, value in values.items()})


def check_table(declared: Mapping[str, Param], table: ParamTable) -> None:
    """Refuse a table with a value that the declarations do not allow: as ``check_params`` would, once per value."""
    check_values(declared, dict(zip(table.names, table.values, strict=True)))


def check_values(declared: Mapping[str, Param], values: Mapping[str, Sequence[Value]]) -> None:
    """Refuse a name that is not declared or has no values, and a value that its declaration does not allow."""
    for name in values:
        if name not in declared:
            raise SpecError("unknown parameter", place=name, allowed=one_of(declared), hint=near(name, declared))
    for name, param in declared.items():
        if name not in values:
            raise SpecError("parameter without a value", place=name, allowed=one_of(declared))
        for value in values[name]:
            if not _allows(param, value):
                raise SpecError(f"{show(value)} is not among its values", place=name, allowed=_describe(param))


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
