"""From a resolved spec to a program: expressions become nodes, everything else becomes numbers.

Rules: compiling decides nothing that the spec did not say. Nodes come from an ``Expressions`` table; the trials of a
study share one, so that equal expressions of different trials are one object and are evaluated once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from farm.program.expr import Expressions, Node
from farm.program.program import Addition, Program, RulesProgram, Size, StopRule
from farm.spec.fields import FIELDS
from farm.spec.parse import load_resolved
from farm.spec.resolve import ResolvedTrial
from farm.spec.spec import JsonObject, RunSpec
from farm.values.units import parse_date

_FILLS = frozenset(("open", "close", "volume"))
_INTRABAR = frozenset(("high", "low"))
# The indicators max and min look back in time; the operations of the same names compare their parts.
_OPERATION = {"max": "greatest", "min": "least"}
SYM_MARGIN = 6
"""Bars of a fixed instrument before the first bar that looks at it: it may be up to five sessions old."""


def compile_trial(
    resolved: ResolvedTrial | Mapping[str, Any], *, instrument: str | None = None, table: Expressions | None = None
) -> Program:
    """Return the program of a resolved trial, or of its cell on ``instrument``.

    A trial of an each study compiled without an instrument serves all its cells through ``Program.on``. A document is
    checked first (SpecError); a ``ResolvedTrial`` has been.
    """
    if isinstance(resolved, ResolvedTrial):
        strategy, run = resolved.open_document()["strategy"], resolved.run
    else:
        spec = load_resolved(resolved)
        strategy, run = spec.strategy.template, spec.run
    program = _program(strategy, run, table if table is not None else Expressions())
    return program if instrument is None else program.on(instrument)


def _program(strategy: JsonObject, run: RunSpec, table: Expressions) -> Program:
    universes = {universe["id"]: tuple(universe["tickers"]) for universe in strategy["universes"]}
    sleeves = tuple(_sleeve(sleeve, universes, table) for sleeve in strategy["sleeves"])
    roots = tuple(root for sleeve in sleeves for root in sleeve.roots())
    columns = set(_FILLS)
    if any(sleeve.limit or any(stop.unit != "bars" for stop in sleeve.stops) for sleeve in sleeves):
        columns |= _INTRABAR
    history: dict[str, int] = {}
    for root in roots:
        for node, before in _walk(root, 0, run):
            if node.op == "field":
                columns.add(FIELDS[str(node.values[0])].column)
                if node.sym:
                    history[node.sym] = max(history.get(node.sym, 0), before + SYM_MARGIN)
    return Program(
        run=run,
        sleeves=sleeves,
        columns=frozenset(columns),
        history_bars=max((root.reach(run.warmup) for root in roots), default=0),
        syms=tuple(sorted(history)),
        sym_history=dict(sorted(history.items())),
        assumptions=("fixed_universe",),
    )


def _walk(node: Node, before: int, run: RunSpec) -> Iterator[tuple[Node, int]]:
    """Yield (node, bars before the run's first bar at which it is needed), the parts included."""
    yield node, before
    own = node.reach(run.warmup) - max((part.reach(run.warmup) for part in node.args), default=0)
    for part in node.args:
        yield from _walk(part, before + own, run)


def _sleeve(sleeve: JsonObject, universes: Mapping[str, tuple[str, ...]], table: Expressions) -> RulesProgram:
    def optional(key: str) -> Node | None:
        return truth_node(sleeve[key], table) if key in sleeve else None

    order, add = sleeve.get("order", {}), sleeve.get("add")
    levels = [stop["level"] for stop in sleeve["stops"] if "level" in stop]
    return RulesProgram(
        id=sleeve["id"],
        universe_id=sleeve["universe"],
        universe=universes[sleeve["universe"]],
        side=sleeve["side"],
        enter=truth_node(sleeve["enter"], table),
        exit=optional("exit"),
        enter_short=optional("enter_short"),
        exit_short=optional("exit_short"),
        size=_size(sleeve["size"]),
        stops=_stops(sleeve["stops"]),
        levels=tuple(numeric_node(level, table) for level in levels),
        max_positions=int(sleeve["max_positions"]),
        prefer=numeric_node(sleeve["prefer"], table) if "prefer" in sleeve else None,
        limit=numeric_node(order["limit"], table) if "limit" in order else None,
        ttl=int(order.get("ttl", "1d").removesuffix("d")),
        add=Addition(int(add["max"]), truth_node(add["when"], table), _size(add["size"])) if add else None,
        cooldown_bars=int(sleeve["cooldown_bars"]),
        alloc=float(sleeve["alloc"]),
    )


def _size(size: JsonObject) -> Size:
    return Size(size["mode"], float(size.get("v", 1.0)))


def _stops(stops: list[JsonObject]) -> tuple[StopRule, ...]:
    rules: list[StopRule] = []
    levels = 0
    for stop in stops:
        unit = next(key for key in ("pct", "abs", "r", "level", "bars") if key in stop)
        if unit == "level":
            rules.append(StopRule(stop["type"], unit, 0.0, levels, stop["from"] == "last_fill"))
            levels += 1
        else:
            rules.append(StopRule(stop["type"], unit, float(stop[unit])))
    return tuple(rules)


def numeric_node(value: Any, table: Expressions) -> Node:
    """Return the node of a spelled-out numeric expression."""
    if not isinstance(value, dict):
        return table.node("number", (), (float(value),))
    if "f" in value:
        return table.node("field", (), (value["f"], value.get("sym", "")))
    if "i" in value:
        return table.node(value["i"], (numeric_node(value["of"], table),), (int(value["n"]),))
    op, parts = value["op"], value["a"]
    if op == "if":
        condition, then, other = parts
        nodes = (truth_node(condition, table), numeric_node(then, table), numeric_node(other, table))
        return table.node("if", nodes)
    values = (int(value["n"]),) if op in ("lag", "diff") else ()
    return table.node(_OPERATION.get(str(op), str(op)), tuple(numeric_node(part, table) for part in parts), values)


def truth_node(value: Any, table: Expressions) -> Node:
    """Return the node of a spelled-out condition."""
    if isinstance(value, bool):
        return table.node("truth", (), (value,))
    head, body = next(iter(value.items()))
    if head == "not":
        return table.node(head, (truth_node(body, table),))
    if head in ("all", "any"):
        return table.node(head, tuple(truth_node(part, table) for part in body))
    if head in ("for", "within"):
        return table.node(head, (truth_node(body[1], table),), (int(body[0]),))
    if head in ("dow", "month"):
        return table.node(head, (), tuple(int(number) for number in body))
    if head == "date":
        return table.node(head, (), tuple(parse_date(day, head) for day in body))
    return table.node(head, tuple(numeric_node(part, table) for part in body))
