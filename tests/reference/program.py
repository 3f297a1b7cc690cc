"""The program of one trial, from its resolved document: how far it looks back, node by node.

Rules: a trial is compiled alone, from the text of its resolved spec, and asked for its history along every path.
``farm/program`` does both for all trials of a study at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from farm.program.compile import SYM_MARGIN, compile_strategy
from farm.program.expr import Expressions, Node
from farm.program.program import Program
from farm.spec.parse import load_study
from farm.spec.resolve import ResolvedTrial
from farm.spec.spec import RunSpec, Warmup
from farm.values.indicators import INDICATORS

MONTH_BARS_MAX = 31


def compile_trial(resolved: ResolvedTrial | dict[str, Any], expressions: Expressions | None = None) -> Program:
    """Return the program of a resolved trial, its history found node by node."""
    if isinstance(resolved, ResolvedTrial):
        strategy, run = json.loads(resolved.head + resolved.tail)["strategy"], resolved.run
    else:
        spec = load_study(resolved, is_resolved=True)
        strategy, run = spec.strategy.template, spec.run
    made = compile_strategy(strategy, run, expressions if expressions is not None else Expressions())
    roots = [root for sleeve in made.sleeves for root in sleeve.roots()]
    syms: dict[str, int] = {}
    for root in roots:
        for node, before in _walk(root, 0, run):
            if node.op == "field" and node.values[1]:
                syms[node.values[1]] = max(syms.get(node.values[1], 0), before + SYM_MARGIN)
    return replace(
        made,
        history_bars=max((reach(root, run.warmup) for root in roots), default=0),
        syms=tuple(sorted(syms)),
        sym_history=dict(sorted(syms.items())),
    )


def _walk(node: Node, before: int, run: RunSpec) -> Iterator[tuple[Node, int]]:
    yield node, before
    own = reach(node, run.warmup) - max((reach(part, run.warmup) for part in node.args), default=0)
    for part in node.args:
        yield from _walk(part, before + own, run)


def own_lookback(node: Node) -> int:
    """Return the bars of its parts that a node needs before its first value."""
    if node.op in INDICATORS:
        return INDICATORS[node.op].lookback(int(node.values[0]))
    if node.op in ("lag", "diff"):
        return int(node.values[0])
    if node.op in ("for", "within"):
        return int(node.values[0]) - 1
    return 1 if node.op in ("cross_up", "cross_dn") else 0


def reach(node: Node, warmup: Warmup) -> int:
    """Return the bars needed before a bar, settling included, to know the node there."""
    own = own_lookback(node)
    if node.is_recursive:
        settle = INDICATORS[node.op].settle(int(node.values[0]))
        bars = {"settle": settle, "bar": warmup.count, "d": warmup.count, "mo": MONTH_BARS_MAX * warmup.count}
        own = max(own, bars.get(warmup.unit, 0))
        if warmup.unit == "settle" and node.args[0].args:
            own += MONTH_BARS_MAX
    return own + max((reach(part, warmup) for part in node.args), default=0)
