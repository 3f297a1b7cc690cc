"""Evaluating the trials of a study over a market: expressions to signals per sleeve, instrument and trial.

    evaluate_trials   all trials of a table on one subject: rows, and the row of each trial
    evaluate_alike    the same of many instruments at once, each traded alone, that are alike
    evaluate          one program: its signals bar by bar, and where its recursive indicators began

All ask ``demand.py`` which values are needed, and ``rows.py`` for them. Trials that say the same share a row; a trial
has the same signals alone, beside others, and in any part of a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.market.panel import Alike, Market
from farm.program.expr import Node
from farm.program.lookback import NO_PARAMETERS
from farm.program.program import Addition, Program, RulesProgram
from farm.program.template import Expression, RulesTemplate, StudyProgram
from farm.signals.demand import Demand, Part
from farm.signals.own_bars import OwnBars, find_series
from farm.signals.rows import Answers, Numbers, Truths
from farm.signals.store import SeriesStore
from farm.spec.table import ParamTable
from farm.values.arrays import BOOL, F64, I32, I64, U8, U64, readonly
from farm.values.units import iso


@dataclass(frozen=True, eq=False)
class MaskRows:
    """A condition of t trials: bits uint64 (k, w), row_of int32 (t,); of g instruments row_of (g, t).

    Bit ``b & 63`` of word ``b >> 6`` of row ``row_of[trial]`` is 1 where the condition is known to be true at own bar
    ``b``, counted from the first loaded; it is 0 where it is false or unknown, before the run, and beyond the last bar.
    """

    bits: U64
    row_of: I32


@dataclass(frozen=True, eq=False)
class NumberRows:
    """A number of t trials: values float64 (k, n) over the own bars, row_of int32 (t,); of g instruments row_of (g, t).

    In the share basis of each bar; NaN where unknown, and before the run.
    """

    values: F64
    row_of: I32


@dataclass(frozen=True, eq=False)
class TrialSignals:
    """What one sleeve says about one instrument (its position in ``market.series``) in each of t trials.

    Conditions that the sleeve lacks are never true; ``add``, ``prefer`` and ``limit`` are None then. is_enter_known
    (t,): at some bar of the run it is known whether to enter, long or short. has_bars: it has a bar in the run.

    Of g instruments that are each traded alone: row_of and is_enter_known are (g, t), rows are as long as those of the
    one with the most bars, and ``instrument`` is 0.
    """

    instrument: int
    has_bars: bool
    enter: MaskRows
    exit: MaskRows
    enter_short: MaskRows
    exit_short: MaskRows
    add: MaskRows | None
    prefer: NumberRows | None
    limit: NumberRows | None
    stop_levels: tuple[NumberRows, ...]
    is_enter_known: BOOL

    def alone(self, instrument: int) -> TrialSignals:
        """Return the signals of one instrument, the only one here, as of that position."""

        def masks(rows: MaskRows) -> MaskRows:
            return MaskRows(rows.bits, rows.row_of[0])

        def numbers(rows: NumberRows) -> NumberRows:
            return NumberRows(rows.values, rows.row_of[0])

        return TrialSignals(
            instrument=instrument,
            has_bars=self.has_bars,
            enter=masks(self.enter),
            exit=masks(self.exit),
            enter_short=masks(self.enter_short),
            exit_short=masks(self.exit_short),
            add=None if self.add is None else masks(self.add),
            prefer=None if self.prefer is None else numbers(self.prefer),
            limit=None if self.limit is None else numbers(self.limit),
            stop_levels=tuple(map(numbers, self.stop_levels)),
            is_enter_known=self.is_enter_known[0],
        )


@dataclass(frozen=True, eq=False)
class Signals:
    """What one sleeve says about one instrument, bar by bar of ``market.series[instrument]``.

    Shapes:  enter, exit, enter_short, exit_short, add uint8 (n,): 1 where true; 0 where false, unknown, or before the
             run.
             prefer, limit, stop_levels[k] float64 (n,), in the share basis of that bar: NaN where unknown.
             is_enter_known: at some bar of the run it is known whether to enter, long or short.
    Anchors: label of each recursive indicator -> the day its steps began (the earliest, if it has several).
    """

    instrument: int
    enter: U8
    exit: U8
    enter_short: U8
    exit_short: U8
    prefer: F64 | None
    stop_levels: tuple[F64, ...]
    anchors: Mapping[str, str]
    is_enter_known: bool = True
    limit: F64 | None = None
    add: U8 | None = None


def evaluate_trials(
    program: StudyProgram, table: ParamTable, market: Market, subject: str | None, store: SeriesStore
) -> tuple[tuple[TrialSignals, ...], ...]:
    """Return the signals of all trials of ``table``: of each sleeve for each instrument, in the order of the market.

    ``subject``: the ticker that every sleeve trades, or None: each trades its universe.
    Errors: SpecError for a ticker that the market does not hold, DataError for a bar column that was not loaded.
    """
    tickers = None if subject is None else (subject,)
    traded = [_positions(market, sleeve, tickers or sleeve.universe) for sleeve in program.sleeves]
    made: dict[tuple[int, int], TrialSignals] = {}
    for index in sorted(set().union(*traded)):
        demand = Demand(market, market.series[index], program.run.warmup, table, store)
        asked = {w: _ask(demand, program.sleeves[w]) for w, group in enumerate(traded) if index in group}
        demand.close()
        answers = Answers(demand)
        made.update({(w, index): one.signals(answers).alone(index) for w, one in asked.items()})
    return tuple(tuple(made[w, index] for index in group) for w, group in enumerate(traded))


def evaluate_alike(
    program: StudyProgram, table: ParamTable, alike: Alike, store: SeriesStore
) -> tuple[TrialSignals, ...]:
    """Return the signals of all trials of ``table`` on each of these instruments, sleeve by sleeve.

    No sleeve looks at a fixed instrument; if one ``looks_at_days``, these are the same.
    Errors: DataError for a bar column that was not loaded.
    """
    demand = Demand(alike.panel, alike, program.run.warmup, table, store)
    asked = [_ask(demand, sleeve) for sleeve in program.sleeves]
    demand.close()
    answers = Answers(demand)
    return tuple(one.signals(answers) for one in asked)


def looks_at_days(program: StudyProgram, table: ParamTable) -> bool:
    """Whether the days of bars decide what some trial says, besides how many of them are before the run."""

    def looks(node: Node) -> bool:
        return (
            node.is_recursive or (node.is_truth and not node.args and node.op != "truth") or any(map(looks, node.args))
        )

    return any(looks(node) for node, _ in program.nodes(table))


def evaluate(program: Program, market: Market, store: SeriesStore) -> tuple[tuple[Signals, ...], ...]:
    """Return the signals of each sleeve for each instrument of its universe, these in the order of ``market.series``.

    Errors: SpecError for a ticker that the market does not hold, DataError for a bar column that was not loaded.
    """
    return tuple(
        tuple(
            _alone(sleeve, Demand(market, market.series[index], program.run.warmup, NO_PARAMETERS, store), index)
            for index in _positions(market, sleeve, sleeve.universe)
        )
        for sleeve in program.sleeves
    )


def _positions(market: Market, sleeve: RulesProgram | RulesTemplate, tickers: Sequence[str]) -> list[int]:
    return sorted(find_series(market, ticker, sleeve.id) for ticker in tickers)


def _alone(sleeve: RulesProgram, demand: Demand, index: int) -> Signals:
    asked = _ask(demand, sleeve)
    demand.close()
    found = asked.signals(Answers(demand)).alone(index)
    bars = demand.host.rows

    def flags(rows: MaskRows) -> U8:
        return readonly(np.unpackbits(rows.bits[rows.row_of[0]].view(np.uint8), bitorder="little")[:bars])

    def numbers(rows: NumberRows) -> F64:
        values: F64 = rows.values[rows.row_of[0]]
        return readonly(values)

    return Signals(
        instrument=index,
        enter=flags(found.enter),
        exit=flags(found.exit),
        enter_short=flags(found.enter_short),
        exit_short=flags(found.exit_short),
        prefer=None if found.prefer is None else numbers(found.prefer),
        stop_levels=tuple(map(numbers, found.stop_levels)),
        anchors=_anchors(demand),
        is_enter_known=bool(found.is_enter_known[0]),
        limit=None if found.limit is None else numbers(found.limit),
        add=None if found.add is None else flags(found.add),
    )


def _anchors(demand: Demand) -> dict[str, str]:
    """Return the first day of each recursive indicator, by its label."""
    days: dict[str, int] = {}
    for wanted in demand.recursive:
        begin = int(wanted.begin.min())
        if begin < wanted.bars.rows:
            day = int(wanted.bars.bars.day[begin])
            days[wanted.node.label] = min(day, days.get(wanted.node.label, day))
    return {label: iso(day) for label, day in sorted(days.items())}


_Root = list[tuple[Part, I64]]
"""An expression as it was asked for: a part for each choice of words, and the trials that it serves."""


def _ask(demand: Demand, sleeve: RulesProgram | RulesTemplate) -> _Asked:
    """Ask for every root of a sleeve; for nothing where the instrument has no bar in the run."""
    is_silent = demand.host.start == demand.host.rows

    def root(expression: Expression | Node | None) -> _Root:
        if expression is None or is_silent:
            return []
        if isinstance(expression, Node):
            return [(demand.root(expression, np.arange(demand.table.trials)), np.arange(demand.table.trials))]
        return [(demand.root(node, trials), trials) for node, trials in expression.nodes(demand.table)]

    add = sleeve.add.when if isinstance(sleeve.add, Addition) else sleeve.add
    conditions = (sleeve.enter, sleeve.exit, sleeve.enter_short, sleeve.exit_short)
    return _Asked(
        demand.host,
        demand.table.trials,
        [root(condition) for condition in conditions],
        None if add is None else root(add),
        None if sleeve.prefer is None else root(sleeve.prefer),
        None if sleeve.limit is None else root(sleeve.limit),
        [root(level) for level in sleeve.levels],
    )


@dataclass(frozen=True, eq=False)
class _Asked:
    """The roots of one sleeve on the instruments of ``host``. ``conditions``: enter, exit, enter_short, exit_short."""

    host: OwnBars
    trials: int
    conditions: list[_Root]
    add: _Root | None
    prefer: _Root | None
    limit: _Root | None
    levels: list[_Root]

    def signals(self, answers: Answers) -> TrialSignals:
        enter, leave, enter_short, exit_short = (self._mask(answers, root) for root in self.conditions)
        known, known_short = (self._is_known(answers, self.conditions[at]) for at in (0, 2))
        return TrialSignals(
            instrument=0,
            has_bars=self.host.start < self.host.rows,
            enter=enter,
            exit=leave,
            enter_short=enter_short,
            exit_short=exit_short,
            add=None if self.add is None else self._mask(answers, self.add),
            prefer=None if self.prefer is None else self._numbers(answers, self.prefer),
            limit=None if self.limit is None else self._numbers(answers, self.limit),
            stop_levels=tuple(self._numbers(answers, level) for level in self.levels),
            is_enter_known=readonly(known | known_short),
        )

    def _mask(self, answers: Answers, root: _Root) -> MaskRows:
        """Return the rows of a condition, without what is before the run."""
        found, row_of = self._side_by_side([(answers.truths(part), trials) for part, trials in root])
        words = self.host.words
        bits = np.concatenate(found, axis=1) if found else np.zeros((self.host.count, 1, words), np.uint64)
        bits &= self.host.in_run[:, None]
        return MaskRows(readonly(bits.reshape(math.prod(bits.shape[:2]), words)), row_of)

    def _is_known(self, answers: Answers, root: _Root) -> BOOL:
        """Return (g, t) whether a condition is known at some bar of the run."""
        is_known = np.zeros((self.host.count, self.trials), np.bool_)
        for part, trials in root:
            truths = answers.truths(part)
            width = truths.width or truths.known.shape[0]
            known = truths.known.reshape(truths.known.shape[0] // width, width, self.host.words)
            some: BOOL = np.bitwise_or.reduce(known & self.host.in_run[:, None], axis=2) != 0
            is_known[:, trials] = some[:, truths.row]
        return is_known

    def _numbers(self, answers: Answers, root: _Root) -> NumberRows:
        parts = [(answers.numbers(part, self.host, joint=False), trials) for part, trials in root]
        found, row_of = self._side_by_side(parts)
        values = np.concatenate(found, axis=1) if found else np.full((1, 1, self.host.rows), np.nan)
        values = values.reshape(math.prod(values.shape[:2]), self.host.rows)
        values[:, : self.host.start] = np.nan
        return NumberRows(readonly(values), row_of)

    def _side_by_side(self, parts: Sequence[tuple[Truths | Numbers, I64]]) -> tuple[list[Any], I32]:
        """Return the rows of parts instrument by instrument, (g, k, n) each, and which of them is a trial's (g, t)."""
        count, row = self.host.count, np.zeros(self.trials, np.int32)
        found: list[Any] = []
        end = 0
        for rows, trials in parts:
            row[trials] = end + rows.row
            values = rows.value if isinstance(rows, Truths) else rows.values
            width = rows.width or values.shape[0]
            whole = values.reshape(values.shape[0] // width, width, values.shape[1])
            found.append(np.broadcast_to(whole, (count, *whole.shape[1:])))
            end += width
        return found, readonly(end * np.arange(count, dtype=np.int32)[:, None] + row)
