"""From a resolved strategy to programs: expressions become nodes, everything else becomes numbers.

Rules: compiling decides nothing that the spec did not say. Nodes come from an ``Expressions`` table; the trials of a
study share one, so that equal expressions of different trials are one object and are evaluated once. A "$name" that
stands for a number or a truth becomes a ``Slot``; one that stands for a word (the name of a field, an indicator, an
operation, a ticker) has been replaced before: it decides what the node is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from farm.program.expr import Expressions, Node, Slot
from farm.program.lookback import BarCount, LookBack, greatest
from farm.program.program import Addition, Program, RulesProgram, Size, StopRule
from farm.spec.fields import FIELDS
from farm.spec.reader import is_hole
from farm.spec.spec import JsonObject, RunSpec
from farm.values.units import parse_date

ASSUMPTIONS = ("fixed_universe",)
"""What every spec of this grammar assumes."""
SYM_MARGIN = 6
"""Bars of a fixed instrument before the first bar that looks at it: it may be up to five sessions old."""
_FILLS = frozenset(("open", "close", "volume"))
_INTRABAR = frozenset(("high", "low"))
# The indicators max and min look back in time; the operations of the same names compare their parts.
_OPERATION = {"max": "greatest", "min": "least"}


def compile_strategy(strategy: JsonObject, run: RunSpec, expressions: Expressions) -> Program:
    """Return the program of a resolved strategy without parameters, whose nodes are those of ``expressions``.

    The strategy of an each study serves all its cells through ``Program.on``.
    """
    universes = {universe["id"]: tuple(universe["tickers"]) for universe in strategy["universes"]}
    sleeves = tuple(_sleeve(sleeve, universes, expressions) for sleeve in strategy["sleeves"])
    roots = [root for sleeve in sleeves for root in sleeve.roots()]
    reach = LookBack(run.warmup)
    syms = {sym: int(bars) for sym, bars in sorted(sym_history(roots, reach).items())}
    stops = [stop.unit for sleeve in sleeves for stop in sleeve.stops]
    return Program(
        run=run,
        sleeves=sleeves,
        columns=bar_columns(roots, stops, has_limit=any(sleeve.limit for sleeve in sleeves)),
        history_bars=max((int(reach.whole(root)) for root in roots), default=0),
        syms=tuple(syms),
        sym_history=syms,
        assumptions=ASSUMPTIONS,
    )


def sym_history(roots: list[Node], reach: LookBack) -> dict[str, BarCount]:
    """Return the bars of each fixed instrument that the expressions need before the run's first bar."""
    history: dict[str, BarCount] = {}
    for root in roots:
        for field, before in _fields(root, 0, reach):
            sym = str(field.values[1])
            if sym:
                history[sym] = greatest(history.get(sym, 0), before + SYM_MARGIN)
    return history


def bar_columns(roots: list[Node], stop_units: list[str], *, has_limit: bool) -> frozenset[str]:
    """Return the bar columns that the expressions read, and those that fills and stops need."""
    looks_inside = has_limit or any(unit != "bars" for unit in stop_units)
    read = {FIELDS[str(field.values[0])].column for root in roots for field in _leaves(root)}
    return frozenset(read | _FILLS | (_INTRABAR if looks_inside else frozenset()))


def _fields(node: Node, before: BarCount, reach: LookBack) -> Iterator[tuple[Node, BarCount]]:
    """Yield the fields of an expression, with the bars before the run's first bar at which each is needed."""
    if node.op == "field":
        yield node, before
    for part in node.args:
        yield from _fields(part, before + reach.own(node), reach)


def _leaves(node: Node) -> Iterator[Node]:
    if node.op == "field":
        yield node
    for part in node.args:
        yield from _leaves(part)


def _sleeve(sleeve: JsonObject, universes: Mapping[str, tuple[str, ...]], expressions: Expressions) -> RulesProgram:
    def optional(key: str) -> Node | None:
        return truth_node(sleeve[key], expressions) if key in sleeve else None

    order, add = sleeve.get("order", {}), sleeve.get("add")
    levels = [stop["level"] for stop in sleeve["stops"] if "level" in stop]
    return RulesProgram(
        id=sleeve["id"],
        universe_id=sleeve["universe"],
        universe=universes[sleeve["universe"]],
        side=sleeve["side"],
        enter=truth_node(sleeve["enter"], expressions),
        exit=optional("exit"),
        enter_short=optional("enter_short"),
        exit_short=optional("exit_short"),
        size=_size(sleeve["size"]),
        stops=_stops(sleeve["stops"]),
        levels=tuple(numeric_node(level, expressions) for level in levels),
        max_positions=int(sleeve["max_positions"]),
        prefer=numeric_node(sleeve["prefer"], expressions) if "prefer" in sleeve else None,
        limit=numeric_node(order["limit"], expressions) if "limit" in order else None,
        ttl=sessions_of(order.get("ttl", "1d")),
        add=Addition(int(add["max"]), truth_node(add["when"], expressions), _size(add["size"])) if add else None,
        cooldown_bars=int(sleeve["cooldown_bars"]),
        alloc=float(sleeve["alloc"]),
    )


def sessions_of(ttl: str) -> int:
    """Return the number of sessions in a text such as "3d"."""
    return int(ttl.removesuffix("d"))


def _size(size: JsonObject) -> Size:
    return Size(size["mode"], float(size.get("v", 1.0)))


def _stops(stops: list[JsonObject]) -> tuple[StopRule, ...]:
    rules: list[StopRule] = []
    levels = 0
    for stop in stops:
        unit = stop_unit(stop)
        if unit == "level":
            rules.append(StopRule(stop["type"], unit, 0.0, levels, stop["from"] == "last_fill"))
            levels += 1
        else:
            rules.append(StopRule(stop["type"], unit, float(stop[unit])))
    return tuple(rules)


def stop_unit(stop: JsonObject) -> str:
    """Return the unit in which a stop gives its distance."""
    return next(key for key in ("pct", "abs", "r", "level", "bars") if key in stop)


def numeric_node(value: Any, expressions: Expressions) -> Node:
    """Return the node of a spelled-out numeric expression."""
    if is_hole(value):
        return expressions.node("number", (), (Slot(value[1:]),))
    if not isinstance(value, dict):
        return expressions.node("number", (), (float(value) + 0.0,))  # one zero: canonical JSON has no other
    if "f" in value:
        return expressions.node("field", (), (value["f"], value.get("sym", "")))
    if "i" in value:
        return expressions.node(value["i"], (numeric_node(value["of"], expressions),), (_bars(value["n"]),))
    op, parts = value["op"], value["a"]
    if op == "if":
        condition, then, other = parts
        numbers = numeric_node(then, expressions), numeric_node(other, expressions)
        return expressions.node("if", (truth_node(condition, expressions), *numbers))
    values = (_bars(value["n"]),) if op in ("lag", "diff") else ()
    nodes = tuple(numeric_node(part, expressions) for part in parts)
    return expressions.node(_OPERATION.get(str(op), str(op)), nodes, values)


def truth_node(value: Any, expressions: Expressions) -> Node:
    """Return the node of a spelled-out condition."""
    if isinstance(value, bool) or is_hole(value):
        return expressions.node("truth", (), (value if isinstance(value, bool) else Slot(value[1:]),))
    head, body = next(iter(value.items()))
    if head == "not":
        return expressions.node(head, (truth_node(body, expressions),))
    if head in ("all", "any"):
        return expressions.node(head, tuple(truth_node(part, expressions) for part in body))
    if head in ("for", "within"):
        return expressions.node(head, (truth_node(body[1], expressions),), (_bars(body[0]),))
    if head in ("dow", "month"):
        return expressions.node(head, (), tuple(int(number) for number in body))
    if head == "date":
        return expressions.node(head, (), tuple(parse_date(day, head) for day in body))
    return expressions.node(head, tuple(numeric_node(part, expressions) for part in body))


def _bars(value: Any) -> int | Slot:
    return Slot(value[1:]) if is_hole(value) else int(value)
