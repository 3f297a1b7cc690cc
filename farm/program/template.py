"""A study compiled once, parameters as slots: a trial is a row of a ``ParamTable``.

    StudyProgram.history(table)   bars that each trial needs before the run
    StudyProgram.rules(table)     sizes, stops, limits of each trial, as columns
    StudyProgram.one(table, k)    the program of a single trial

A parameter that stands for a word of an expression (the name of a field, an indicator, an operation, a ticker) decides
which nodes there are: an ``Expression`` has a node for each choice of words that a table makes. All other parameters
are slots of nodes. So the work follows the expressions and the choices of words, and never the number of trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.program.compile import (
    ASSUMPTIONS,
    bar_columns,
    compile_strategy,
    numeric_node,
    sessions_of,
    stop_unit,
    sym_history,
    truth_node,
)
from farm.program.expr import Expressions, Node
from farm.program.lookback import BarCount, LookBack, greatest, periods_of
from farm.program.program import Program
from farm.spec.grammar import SIDES, SIZES
from farm.spec.params import check_params, check_table
from farm.spec.reader import is_hole
from farm.spec.resolve import filled
from farm.spec.spec import JsonObject, Param, RunSpec, StudySpec, Value
from farm.spec.table import ParamTable
from farm.values.arrays import F64, I32, I64, U8

SIZE_MODES = tuple(SIZES)
"""Modes of sizes, in the order of their codes."""
_WORDS = ("f", "i", "op", "sym")
_GRID_MAX = 1 << 20


@dataclass(frozen=True, eq=False)
class Expression:
    """An expression of a template. ``words``: the parameters that stand for words in it, sorted."""

    document: Any
    is_truth: bool
    words: tuple[str, ...]
    expressions: Expressions
    _nodes: dict[tuple[Value, ...], Node]

    def node(self, words: tuple[Value, ...] = ()) -> Node:
        """Return the node for these values of ``words``."""
        found = self._nodes.get(words)
        if found is None:
            make = truth_node if self.is_truth else numeric_node
            document = _with_words(self.document, dict(zip(self.words, words, strict=True)))
            found = self._nodes[words] = make(document, self.expressions)
        return found

    def nodes(self, table: ParamTable) -> list[tuple[Node, I64]]:
        """Return the nodes that the table asks for, each with the trials that it serves, int64, rising."""
        trials = np.arange(table.trials)
        if not self.words:
            return [(self.node(), trials)]
        at = [table.names.index(name) for name in self.words]
        chosen, which = np.unique(np.stack([table.codes[k] for k in at]), axis=1, return_inverse=True)
        words = [tuple(table.values[k][code] for k, code in zip(at, codes, strict=True)) for codes in chosen.T.tolist()]
        return [(self.node(one), trials[which.reshape(-1) == number]) for number, one in enumerate(words)]


@dataclass(frozen=True, eq=False)
class RulesTemplate:
    """One sleeve of rules of a template; absent expressions are None. ``document``: the sleeve, "$name" kept."""

    id: str
    universe: tuple[str, ...]
    enter: Expression
    exit: Expression | None
    enter_short: Expression | None
    exit_short: Expression | None
    levels: tuple[Expression, ...]
    prefer: Expression | None
    limit: Expression | None
    add: Expression | None
    document: JsonObject

    def roots(self) -> tuple[Expression, ...]:
        """Return every expression that is evaluated for this sleeve."""
        optional = (self.enter, self.exit, self.enter_short, self.exit_short, self.prefer, self.limit, self.add)
        return tuple(one for one in (*optional, *self.levels) if one is not None)


@dataclass(frozen=True, eq=False)
class BarsNeeded:
    """BarCount needed before the run's first bar, settling included.

    bars: int64 (t,), own bars of an instrument of a universe; syms: int64 (t,) of each fixed instrument that an
    expression names, sorted by ticker: 0 in trials that do not look at it.
    """

    bars: I64
    syms: Mapping[str, I64]


@dataclass(frozen=True, eq=False)
class SizeColumns:
    """``Size`` of t trials: mode uint8, an index into ``SIZE_MODES``; v float64."""

    mode: U8
    v: F64


@dataclass(frozen=True, eq=False)
class StopColumns:
    """A ``StopRule`` of t trials, of which only the value differs: float64 (t,)."""

    type: str
    unit: str
    value: F64
    level: int
    follows: bool


@dataclass(frozen=True, eq=False)
class RulesColumns:
    """What a ``RulesProgram`` has besides expressions, for t trials.

    side: uint8, an index into ``grammar.SIDES``; max_positions, ttl, cooldown_bars, add_max int64; alloc float64.
    ``add_max`` and ``add_size`` are None for a sleeve that adds nothing.
    """

    side: U8
    size: SizeColumns
    stops: tuple[StopColumns, ...]
    max_positions: I64
    ttl: I64
    cooldown_bars: I64
    alloc: F64
    add_max: I64 | None
    add_size: SizeColumns | None


@dataclass(frozen=True, eq=False)
class StudyProgram:
    """All trials of a study, compiled. Threads may share it. ``assumptions``: what the spec itself assumes."""

    run: RunSpec
    sleeves: tuple[RulesTemplate, ...]
    assumptions: tuple[str, ...]
    params: Mapping[str, Param]
    strategy: JsonObject
    expressions: Expressions

    def check(self, table: ParamTable) -> None:
        """Refuse a table with a parameter or a value that the spec does not declare (SpecError)."""
        check_table(self.params, table)

    def one(self, table: ParamTable, trial: int) -> Program:
        """Return the program of a single trial; its nodes hold no slots. Errors: SpecError as ``check``."""
        params = table.row(trial)
        check_params(self.params, params)
        return compile_strategy(filled(self.strategy, params), self.run, self.expressions)

    def history(self, table: ParamTable) -> BarsNeeded:
        """Return how far back each trial reads. Errors: SpecError as ``check``."""
        self.check(table)
        nodes = list(self.nodes(table))
        names = sorted(frozenset().union(*(periods_of(node) for node, _ in nodes)))
        grid = _Grid(table, names)
        reach = LookBack(self.run.warmup, grid.periods)
        bars = grid.counts([(reach.whole(node), trials) for node, trials in nodes])
        found: dict[str, list[tuple[BarCount, I64]]] = {}
        for node, trials in nodes:
            for sym, needed in sym_history([node], reach).items():
                found.setdefault(sym, []).append((needed, trials))
        return BarsNeeded(bars, {sym: grid.counts(needed) for sym, needed in sorted(found.items())})

    def columns(self, table: ParamTable) -> frozenset[str]:
        """Return the bar columns that some trial of the table reads."""
        units = [stop_unit(stop) for sleeve in self.sleeves for stop in sleeve.document["stops"]]
        roots = [node for node, _ in self.nodes(table)]
        return bar_columns(roots, units, has_limit=any(sleeve.limit is not None for sleeve in self.sleeves))

    def rules(self, table: ParamTable) -> tuple[RulesColumns, ...]:
        """Return the numbers of each sleeve, trial by trial."""
        return tuple(_columns(sleeve.document, table) for sleeve in self.sleeves)

    def nodes(self, table: ParamTable) -> Iterator[tuple[Node, I64]]:
        """Yield every root of the sleeves, and the trials that it serves."""
        for sleeve in self.sleeves:
            for root in sleeve.roots():
                yield from root.nodes(table)


def compile_study(spec: StudySpec) -> StudyProgram:
    """Return the program of all trials of a spec. In an each study the universe of a sleeve is that of its cell: ()."""
    strategy, expressions = spec.strategy.template, Expressions()
    if spec.each is not None:
        strategy = {**strategy, "universes": [{**universe, "tickers": []} for universe in strategy["universes"]]}
    universes = {universe["id"]: tuple(universe["tickers"]) for universe in strategy["universes"]}
    sleeves = tuple(_sleeve(sleeve, universes[sleeve["universe"]], expressions) for sleeve in strategy["sleeves"])
    return StudyProgram(spec.run, sleeves, ASSUMPTIONS, spec.strategy.params, strategy, expressions)


def _sleeve(sleeve: JsonObject, universe: tuple[str, ...], expressions: Expressions) -> RulesTemplate:
    def made(document: Any, *, is_truth: bool) -> Expression:
        return Expression(document, is_truth, tuple(sorted(set(_words(document)))), expressions, {})

    def optional(part: JsonObject, key: str, *, is_truth: bool) -> Expression | None:
        return made(part[key], is_truth=is_truth) if key in part else None

    return RulesTemplate(
        id=sleeve["id"],
        universe=universe,
        enter=made(sleeve["enter"], is_truth=True),
        exit=optional(sleeve, "exit", is_truth=True),
        enter_short=optional(sleeve, "enter_short", is_truth=True),
        exit_short=optional(sleeve, "exit_short", is_truth=True),
        levels=tuple(made(stop["level"], is_truth=False) for stop in sleeve["stops"] if "level" in stop),
        prefer=optional(sleeve, "prefer", is_truth=False),
        limit=optional(sleeve.get("order", {}), "limit", is_truth=False),
        add=optional(sleeve.get("add", {}), "when", is_truth=True),
        document=sleeve,
    )


def _words(document: Any) -> Iterator[str]:
    """Yield the parameters that stand for words in a spelled-out expression."""
    if isinstance(document, list):
        for part in document:
            yield from _words(part)
    elif isinstance(document, dict):
        for key, part in document.items():
            if key in _WORDS and is_hole(part):
                yield part[1:]
            else:
                yield from _words(part)


def _with_words(document: Any, words: Mapping[str, Value]) -> Any:
    if isinstance(document, list):
        return [_with_words(part, words) for part in document]
    if isinstance(document, dict):
        return {
            key: words[part[1:]] if key in _WORDS and is_hole(part) else _with_words(part, words)
            for key, part in document.items()
        }
    return document


class _Grid:
    """Counts for all values of some parameters, an axis for each, and for the trials of a table.

    ``periods``: of each parameter its values along its axis; where the whole grid is far larger than the table, the
    trials are the one axis.
    """

    def __init__(self, table: ParamTable, names: list[str]) -> None:
        at = [table.names.index(name) for name in names]
        self._trials = table.trials
        self._shape: tuple[int, ...] = tuple(len(table.values[k]) for k in at)
        self._codes: tuple[Any, ...] = tuple(table.codes[k] for k in at)
        if math.prod(self._shape) > _GRID_MAX + table.trials:
            self._shape, self._codes = (table.trials,), (np.arange(table.trials),)
            self.periods = {name: table.numbers(name).astype(np.int64) for name in names}
        else:
            axes = np.ix_(*(np.array(table.values[k], np.float64).astype(np.int64) for k in at)) if at else ()
            self.periods = dict(zip(names, axes, strict=True))

    def counts(self, of_trials: list[tuple[BarCount, I64]]) -> I64:
        """Return the greatest count of each trial (t,), of counts that are each of some trials."""
        shared: BarCount = 0
        for count, trials in of_trials:
            if trials.shape[0] == self._trials:
                shared = greatest(shared, count)
        found = self._gathered(shared, slice(None))
        for count, trials in of_trials:
            if trials.shape[0] < self._trials:
                found[trials] = np.maximum(found[trials], self._gathered(count, trials))
        return found

    def _gathered(self, count: BarCount, trials: I64 | slice) -> I64:
        if not isinstance(count, np.ndarray):
            return np.full(self._trials, count, np.int64)[trials]
        found: I64 = np.broadcast_to(count, self._shape)[tuple(codes[trials] for codes in self._codes)]
        return found


def _columns(sleeve: JsonObject, table: ParamTable) -> RulesColumns:
    order, add = sleeve.get("order", {}), sleeve.get("add")
    return RulesColumns(
        side=_coded(sleeve["side"], table, SIDES.index),
        size=_size(sleeve["size"], table),
        stops=_stops(sleeve["stops"], table),
        max_positions=_integers(sleeve["max_positions"], table),
        ttl=_each(order.get("ttl", "1d"), table, sessions_of).astype(np.int64),
        cooldown_bars=_integers(sleeve["cooldown_bars"], table),
        alloc=_numbers(sleeve["alloc"], table),
        add_max=_integers(add["max"], table) if add else None,
        add_size=_size(add["size"], table) if add else None,
    )


def _size(size: JsonObject, table: ParamTable) -> SizeColumns:
    return SizeColumns(_coded(size["mode"], table, SIZE_MODES.index), _numbers(size.get("v", 1.0), table))


def _stops(stops: list[JsonObject], table: ParamTable) -> tuple[StopColumns, ...]:
    found: list[StopColumns] = []
    levels = 0
    for stop in stops:
        unit = stop_unit(stop)
        if unit == "level":
            found.append(StopColumns(stop["type"], unit, _numbers(0.0, table), levels, stop["from"] == "last_fill"))
            levels += 1
        else:
            found.append(StopColumns(stop["type"], unit, _numbers(stop[unit], table), -1, follows=False))
    return tuple(found)


def _numbers(value: Any, table: ParamTable) -> F64:
    return table.numbers(value[1:]) if is_hole(value) else np.full(table.trials, float(value))


def _integers(value: Any, table: ParamTable) -> I64:
    return _numbers(value, table).astype(np.int64)


def _coded(value: Any, table: ParamTable, code: Callable[[Any], int]) -> U8:
    return _each(value, table, code).astype(np.uint8)


def _each(value: Any, table: ParamTable, code: Callable[[Any], int]) -> I32:
    """Return a number for each trial, found once per value."""
    if not is_hole(value):
        return np.full(table.trials, code(value), np.int32)
    at = table.names.index(value[1:])
    return np.array([code(one) for one in table.values[at]], np.int32)[table.codes[at]]
