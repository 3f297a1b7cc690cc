"""From a spec to a study: its axes, what they read, which cells are missing, blocks. Nothing is run.

1. The grid becomes a table of parameters; trials that differ only in parameters that the template does not use are one.
2. Tickers become permanent ids. How far back each trial looks is found for all of them at once; trials whose history
   begins on the same days form a class. Read sets cost one per class and subject, not one per cell.
3. Trial digests and read digests are looked up in the family. What is missing is cut into blocks.

All of it is a pure function of spec, snapshot and catalog; whoever stores the record first decides about the blocks. It
costs O(trials + classes x subjects).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from farm.program.template import StudyProgram, compile_study
from farm.shard.dataset import Dataset
from farm.shard.plan import KindPlan
from farm.shard.reader import ColumnLoader
from farm.spec.resolve import study_identity, template
from farm.spec.spec import StudySpec
from farm.study.block import cut
from farm.study.coverage import cover
from farm.study.instruments import sessions_of, subjects_of, symbols_of, traded_tickers
from farm.study.missing import Missing, all_missing
from farm.study.needs import needs_of, strip_needs
from farm.study.proof import metrics_of, proof_rule_of
from farm.study.reads import Looked, Reads, ReadTable, read_table
from farm.study.space import grid_of
from farm.study.trials import OF_SNAPSHOT, Round, Study, study_name
from farm.values.arrays import I64
from farm.values.canon import fingerprint
from farm.values.errors import DataError
from farm.values.units import iso
from farm.values.version import SEMANTICS_VERSION

FIXED_COST_NS = 250_000
BAR_COST_NS = 60
"""Expected work of a cell: so much, and so much per bar. It shapes blocks and estimates, never a result."""


class Places(Protocol):
    """Where cells were found: ``segments``, keys of those that hold some; and which cells are in none."""

    @property
    def segments(self) -> tuple[str, ...]: ...
    @property
    def missing(self) -> Missing: ...


class Lookup(Protocol):
    """What planning asks of the catalog."""

    def lookup_study(self, study: Study) -> Places:
        """Return which of a study's cells are stored, whoever computed them, with the metrics, buckets and digests that
        it wants of them. Its blocks are not cut yet; digests of its trials are worked out when they are asked for."""


def split_of(spec: StudySpec) -> Mapping[str, Any] | None:
    """Return the split as it enters keys, or None."""
    split = spec.study.split if spec.study else None
    return None if split is None else {"mode": split.mode, "is": split.in_sample, "embargo": split.embargo}


def study_id(spec: StudySpec, family: str, snapshot: str) -> str:
    """Return the id of the study: equal for equal submissions, whatever their text, order of keys or name."""
    return fingerprint(
        {
            "study": study_identity(spec),
            "family": family,
            "dataset": spec.run.dataset,
            "snapshot": snapshot,
            "semantics": SEMANTICS_VERSION,
        }
    )


def plan_study(
    spec: StudySpec,
    dataset: Dataset,
    catalog: Lookup,
    cache: ColumnLoader,
    *,
    program: StudyProgram | None = None,
    fresh: bool = False,
) -> Study:
    """Return the study with its blocks, as it would be stored now.

    ``program``: the spec compiled, where somebody has done so.
    ``fresh``: every cell is missing, whatever the catalog holds.
    Errors: SpecError (unknown ticker, one that trades around the clock in exchange sessions, no session in the window,
    an empty bucket); CapacityError for a study that nobody can mean; DataError when no instrument has a bar in the
    window, or none trades on the calendar of the run.
    """
    run, made = spec.run, template(spec)
    points = grid_of(spec)
    table, duplicates = points.table, 0
    if made.params != table.names:
        first, _ = table.distinct(made.params)
        table, duplicates = table.take(first), table.trials - len(first)
    program = compile_study(spec) if program is None else program
    history = program.history(table)
    symbols = symbols_of(spec, dataset, tuple(history.syms))
    calendar, sessions = sessions_of(spec, dataset)
    window = run.start_day, run.end_day
    subjects = subjects_of(spec, dataset)
    traded = tuple(sorted({dataset.resolve(ticker, "") for ticker in traded_tickers(spec)}, key=str.encode))
    looked = Looked(
        subjects=tuple((name,) for name in subjects) if spec.each is not None else (traded,),
        syms=tuple(dataset.resolve(sym, "") for sym in history.syms),
        benchmarks=(dataset.resolve(run.benchmark, ""),) if run.benchmark else (),
    )
    reads = Reads(dataset, cache, symbols, *window)
    classes, found = read_table(reads, history, looked, calendar, run.end_day)
    if not found.bars.any():
        raise DataError(
            f"no instrument of the study has a bar from {iso(run.start_day)} to {iso(run.end_day)}",
            place="run.start, run.end",
            hint="choose a window that the data covers; farm status shows what is there",
        )
    cells = table.trials * len(subjects)
    none = cut(all_missing(0, len(subjects)), cell_cost_ns(found) // 1000)
    study = Study(
        id=study_id(spec, made.hash, dataset.snapshot.id),
        fresh=fresh,
        family=made.hash,
        dataset=run.dataset,
        snapshot=dataset.snapshot.id,
        spec=spec.raw,
        split=split_of(spec),
        window=window,
        sessions=sessions,
        used=made.params,
        subjects=subjects,
        symbols=symbols,
        columns=tuple(sorted(program.columns(table))),
        duplicates=duplicates,
        excluded=points.excluded,
        assumptions=tuple(sorted(name for name, kind in OF_SNAPSHOT.items() if not dataset.snapshot.of_kind(kind))),
        coverage=cover(dataset, reads, calendar, window, frozenset(traded), looked.benchmarks, symbols),
        metrics=metrics_of(spec.study, cells),
        proof_rule=proof_rule_of(spec.study, cells),
        rounds=(Round(0, table, classes, found, none, ()),),
    )
    return _with_blocks(study, dataset, spec, catalog)


def _with_blocks(study: Study, dataset: Dataset, spec: StudySpec, catalog: Lookup) -> Study:
    """Return the study with blocks over the cells that the catalog lacks."""
    segments: tuple[str, ...] = ()
    if study.fresh:
        missing = all_missing(study.trials, len(study.subjects))
    else:
        found = catalog.lookup_study(study)
        missing, segments = found.missing, found.segments
    blocks = cut(missing, cell_cost_ns(study.round.reads) // 1000)
    blocks = blocks.with_needs(strip_needs(study, dataset, spec))
    return replace(study, rounds=(replace(study.round, blocks=blocks, segments=segments),))


def cell_cost_ns(reads: ReadTable) -> I64:
    """Return the expected work of a cell on each subject, (s,), with its longest history; one without bars is only
    written down."""
    return np.where(reads.bars > 0, FIXED_COST_NS + BAR_COST_NS * reads.rows.max(axis=0), FIXED_COST_NS // 10)


@dataclass(frozen=True)
class Plan:
    """What a run of the study would do, as ``farm plan`` prints it. ``seconds``: expected, on one core."""

    study: Study
    cells_reused: int
    cells_missing: int
    is_stored: bool
    blocks_finished: int
    seconds: float
    reads: tuple[KindPlan, ...]
    window: tuple[int, int, int]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON value."""
        study = self.study
        first, start, end = self.window
        return {
            "study": study.id,
            "snapshot": study.snapshot,
            "family": study.family,
            "trials": {"total": study.trials, "duplicates": study.duplicates, "excluded": study.excluded},
            "instruments": None if study.instruments is None else list(study.instruments),
            "cells": {"total": study.cells, "reused": self.cells_reused, "missing": self.cells_missing},
            "blocks": {"total": len(study.blocks), "finished": self.blocks_finished},
            "window": {"history": iso(first), "start": iso(start), "end": iso(end), "sessions": study.sessions},
            "columns": list(study.columns),
            "reads": [plan.to_json() for plan in self.reads],
            "bytes": sum(plan.bytes_needed for plan in self.reads),
            "seconds": round(self.seconds, 3),
        }


def make_plan(study: Study, dataset: Dataset, spec: StudySpec, finished: frozenset[int], *, is_stored: bool) -> Plan:
    """Return what running ``study`` now would do; ``finished`` are the blocks that have a segment."""
    blocks = study.blocks
    waits = np.ones(len(blocks), np.bool_)
    waits[[index for index in finished if index < len(blocks)]] = False
    missing = int(blocks.cells[waits].sum())
    waiting = np.flatnonzero(waits)
    cost_ns, work_ns = cell_cost_ns(study.round.reads), 0
    for strip in blocks.strips():
        cells = blocks.cells[strip.first : strip.first + strip.count] @ waits[strip.first : strip.first + strip.count]
        work_ns += int(cells) // len(strip.positions) * int(cost_ns[strip.positions].sum())
    return Plan(
        study=study,
        cells_reused=study.cells - missing,
        cells_missing=missing,
        is_stored=is_stored,
        blocks_finished=len(finished),
        seconds=work_ns / 1e9,
        reads=needs_of(study, dataset, spec, blocks.positions_of(waiting.tolist())).parts if missing else (),
        window=(study.first_day(), spec.run.start_day, spec.run.end_day),
    )


__all__ = ["Plan", "make_plan", "plan_study", "split_of", "study_id", "study_name"]
