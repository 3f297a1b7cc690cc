"""Subjects of a block that run together: what they share is made once, and one kernel call runs all trials on them.

Instruments that are each traded alone, and differ in nothing but the numbers in their bars, are asked for their signals
at once too. A universe is a cohort of one, and so is an instrument beside which fixed ones are looked at. What a cell
gives does not depend on the cells beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from farm.engine.incidents import silent_trials
from farm.engine.trials import Stage, TrialRules, stage, stage_of_each, trial_rows
from farm.kernels.trials import TrialRows
from farm.market.panel import Alike
from farm.market.tape import Tape
from farm.results.record import Header, session_days
from farm.signals.evaluate import TrialSignals, evaluate_alike, evaluate_trials, looks_at_days
from farm.spec.table import ParamTable
from farm.values.arrays import I64
from farm.work.context import CellMarket, StudyContext


@dataclass(frozen=True, eq=False)
class Cohort:
    """Subjects that run together. columns (g,): their places in the block; bars: where their signals come from; headers
    (g,): of their ledgers; doubtful_splits (g,)."""

    columns: tuple[int, ...]
    stage: Stage
    bars: Alike | CellMarket
    headers: tuple[Header, ...]
    doubtful_splits: I64


class BlockTrials:
    """The trials of a block on any of its subjects. ``positions``: of the subjects, among the cells of a trial."""

    def __init__(self, context: StudyContext, trials: Sequence[int], positions: Sequence[int]) -> None:
        self._context = context
        self._positions = positions
        self._table: ParamTable = context.study.table.take(trials)
        compiled = context.compiled
        self._same_days = looks_at_days(compiled, self._table)
        self._rules = TrialRules(compiled.sleeves, compiled.rules(self._table), context.spec.run)

    def parts(self) -> Iterator[tuple[int, ...]]:
        """Yield the columns of the block that have data, in order, in parts that are loaded and cut into cohorts at
        once; nothing is loaded yet."""
        part: list[int] = []
        tile: tuple[int, ...] = ()
        for column, position in enumerate(self._positions):
            if not self._context.has_data(position):
                continue
            own = self._context.tile_positions(position)
            if part and own != tile:
                yield tuple(part)
                part = []
            tile = own
            part.append(column)
        if part:
            yield tuple(part)

    def cohorts(self, columns: Sequence[int]) -> list[Cohort]:
        """Return the subjects of a part in cohorts. Errors: DataError of one of them."""
        context = self._context
        found = context.tile(self._positions[columns[0]])
        if isinstance(found.tape, Tape) or found.beside is not None:
            return [self._alone(column) for column in columns]
        panel, tapes = found.panel, found.tape
        at = {panel.index[context.study.subjects[self._positions[column]]]: column for column in columns}
        sleeves = context.compiled.sleeves
        days = session_days(panel.calendar.day)
        names = tuple(sleeve.id for sleeve in sleeves)
        cash = context.spec.run.cash_micro
        terms = context.terms(found.benchmark)
        return [
            Cohort(
                columns=tuple(at[position] for position in alike.positions),
                stage=stage_of_each(tapes, alike.positions, terms, len(sleeves), found.traded),
                bars=alike,
                headers=tuple(Header(cash, days, names, (name,)) for name in alike.ids),
                doubtful_splits=found.doubtful_splits[list(alike.positions)],
            )
            for alike in panel.alike(sorted(at), same_days=self._same_days)
        ]

    def _alone(self, column: int) -> Cohort:
        context, position = self._context, self._positions[column]
        found = context.market(position)
        market, tape = found.market, found.tape
        place = {market.series[index].symbol: asset for asset, index in enumerate(tape.traded)}
        sleeves = context.program_of(0, position).sleeves
        held = [(w, at) for w, one in enumerate(sleeves) for at in sorted(place[ticker] for ticker in one.universe)]
        header = Header(
            cash_micro=context.spec.run.cash_micro,
            days=session_days(market.calendar.day),
            sleeves=tuple(sleeve.id for sleeve in sleeves),
            instruments=tuple(market.series[index].id for index in tape.traded),
        )
        terms = context.terms(found.benchmark)
        return Cohort((column,), stage(tape, terms, held), found, (header,), np.array([found.doubtful_splits]))

    def rows(self, cohort: Cohort) -> tuple[TrialRows, I64]:
        """Return the rules and signals of the trials on a cohort, and how often each was ``SILENT``: (2, trials, g)."""
        context, bars = self._context, cohort.bars
        signals: Sequence[Sequence[TrialSignals]]
        if isinstance(bars, Alike):
            signals = [(one,) for one in evaluate_alike(context.compiled, self._table, bars, context.series)]
        else:
            instrument = context.study.cell_instruments[self._positions[cohort.columns[0]]]
            subject = None if instrument is None else context.study.symbols[instrument]
            signals = evaluate_trials(context.compiled, self._table, bars.market, subject, context.series)
        silent = silent_trials(self._rules.rules, signals, len(cohort.columns))
        return trial_rows(self._rules, signals, cohort.stage), silent
