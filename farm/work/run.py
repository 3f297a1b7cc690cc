"""The single place where a block becomes a segment; and a whole study in one process.

    submit        spec -> the stored study and the blocks that have no segment yet
    BlockRunner   one per process, for any number of threads: (study, block) -> segment
    conclude      finished study -> results, ranking, digests of the winners, document
    run_in_process = submit, BlockRunner on a few threads, conclude

Rules: a finished block is never lost and never computed twice by the same submission; the study record decides about
the blocks, so any process may run any of them; nothing about threads, caches or timing reaches a segment. Ctrl-C and
errors stop a study between cells: finished blocks are kept, and the same command goes on from there. The cells of a
winner are computed a second time, for their digests, by whoever concludes a study of which these are not stored yet;
their values must be those that are stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from farm.columns.cache import ColumnCache
from farm.columns.process import process_cache
from farm.program.template import compile_study
from farm.results.catalog import Catalog, StoredCell
from farm.results.compare import check_again
from farm.results.document import FarmStats, document, trial_objects
from farm.results.leases import IN_PROCESS, LeaseRecord, put_numbered
from farm.results.record import CellResult
from farm.results.results import Ranking, Results, ranking
from farm.results.segment import Segment, metric_column
from farm.results.tables import cell_table, leader_rows, leader_table
from farm.shard.dataset import Dataset
from farm.shard.snapshot import read_snapshot
from farm.spec.parse import load_study
from farm.spec.resolve import template
from farm.spec.spec import StudySpec
from farm.store.base import Store
from farm.store.wrap import Metered
from farm.study.block import Block
from farm.study.plan import study_id
from farm.study.trials import Study
from farm.values.arrays import BOOL
from farm.values.canon import canonical_array_bytes
from farm.values.errors import FarmError, Interrupted, PermissionDenied, ResultConflict, StoreError, Watchdog
from farm.values.metrics import BUCKETS, METRIC_NAMES
from farm.values.settings import CacheSettings
from farm.values.shared import Shared
from farm.work.block import CellError, compute
from farm.work.context import Memory, Scored, StudyContext
from farm.work.names import find_trial
from farm.work.progress import Meter, Progress, ProgressEvent, Stages, total_seconds
from farm.work.submit import Spec, SubmittedStudy, plan, snapshot_of, submit

__all__ = [
    "BlockReport", "BlockRunner", "Outcome", "Progress", "ProgressEvent", "Spec", "SubmittedStudy",
    "conclude", "open_study", "plan", "rank_trials", "run_in_process", "submit",
]  # fmt: skip

UNSTORED_MAX = 64
"""Finished blocks that a process keeps while the store does not take them; a block is a few hundred kB."""


@dataclass(frozen=True)
class BlockReport:
    """How a block was computed: nothing of it is in the segment. ``seconds`` by stage, of the thread that ran it."""

    block: int
    cells: int
    is_new: bool
    bytes_fetched: int
    seconds: Mapping[str, float]

    @property
    def gil_bound(self) -> float:
        """The share of its time in which other threads may have to wait for the interpreter: all but the stage "run",
        the kernel that carries trials over the tape. At most that: the other kernels, decoding, hashing and writing let
        go of it too."""
        total = sum(self.seconds.values())
        return 1.0 - self.seconds.get("run", 0.0) / total if total else 0.0


@dataclass(frozen=True)
class Outcome:
    """A finished study: results of every cell, the ranking (None without an objective), and how they came about."""

    study: Study
    spec: StudySpec
    results: Results
    ranking: Ranking | None
    stats: FarmStats

    def document(self, *, trials: bool = False, cells: bool = False) -> dict[str, Any]:
        """Return the document that ``farm run --json`` prints; ``trials``, ``cells``: all, however many there are."""
        return document(self.results, self.ranking, self.stats, trials=trials, cells=cells)

    def trial(self, name: str) -> dict[str, Any]:
        """Return one trial as the document has it, with its number and its cells, or the one cell that ``name`` means:
        TRIAL[/INSTRUMENT], TRIAL a number or digits of its trial digest. Errors: UsageError."""
        trial, position = find_trial(self.study, name)
        [found] = trial_objects(self.results, self.ranking, np.array([trial]), with_cells=True)
        cells = found["cells"] if position is None else [found["cells"][position]]
        return {"study": self.study.id, "trial": trial, **found, "cells": cells}

    def table(self) -> pa.Table:
        """Return one row per cell; see ``study.tables.cell_table``."""
        return cell_table(self.results, self.ranking)

    def leaders(self, top: int = 10) -> list[dict[str, Any]]:
        """Return the best trials, best first; see ``study.tables.leader_rows``."""
        return leader_rows(self.results, self.ranking, top)

    def leaderboard(self, top: int = 10) -> pa.Table:
        """Return the best trials, best first, as an Arrow table."""
        return leader_table(self.results, self.ranking, top)


def conclude(
    submission: SubmittedStudy, stats: FarmStats, runner: BlockRunner | None = None, clock: Stages | None = None
) -> Outcome:
    """Return the outcome of a study whose blocks all have segments.

    ``runner``: makes the digests of the winners and stores them, if nobody has; without it, and where it may not write,
    those that are not stored stay null.
    Errors: DataError when a segment is missing or damaged; ResultConflict when a fresh study disagrees with the
    catalog, or winners, computed again, with what is stored; Interrupted on Ctrl-C.
    """
    study, spec, catalog = submission.study, submission.spec, submission.catalog
    clock = clock if clock is not None else Stages()
    with clock.stage("collect"):
        results = catalog.results(study)
        ranked = rank_trials(results, spec)
        block = study.winners_block(ranked.trials) if ranked is not None else None
        digests = catalog.find_winners(study, block) if block is not None else None
    if block is not None and runner is not None and (digests is None or study.fresh):
        with clock.stage("prove"):
            fetched = stats.bytes_fetched + _prove(submission, block, results, runner)
            stats = replace(stats, bytes_fetched=fetched, bytes_needed=submission.bytes_of(slice(None)))
            digests = catalog.find_winners(study, block)
    with clock.stage("collect"):
        if block is not None and digests is not None:
            results = results.with_winners(block.trials.astype(np.int64), digests)
        if study.fresh:
            catalog.check_overlaps(study)
    return Outcome(study, spec, results, ranked, stats)


def _prove(submission: SubmittedStudy, block: Block, results: Results, runner: BlockRunner) -> int:
    """Compute the winners again, compare them with ``results``, and store them with their digests, if that is allowed;
    return the bytes that were fetched."""

    def check(segment: Segment) -> None:
        check_again(submission.study, segment, results.stored(results.names, block.trials.astype(np.int64)))

    reports: list[BlockReport] = []
    try:
        runner.share(submission)
        call = partial(runner.run_winners, submission.study, block, check)
        _run_blocks(runner, submission.study, [call], 1, reports.append)
        _record_lease(submission, reports)
    except PermissionDenied:
        pass  # who only reads gets what is stored
    return sum(report.bytes_fetched for report in reports)


def open_study(study: Spec, store: Store, *, snapshot: str | None = None) -> Outcome:
    """Return a finished study, all of it from the catalog; ``study`` is its id, 8 or more digits of it, or its spec.

    Errors: UsageError for an unknown study; DataError for one that is not finished.
    """
    catalog = Catalog(store)
    if isinstance(study, str) and not study.lstrip().startswith("{") and not study.endswith(".json"):
        stored = catalog.read_study(study)
        spec = load_study(dict(stored.spec))
    else:
        spec = study if isinstance(study, StudySpec) else load_study(study)
        found = snapshot_of(store, spec, snapshot)
        stored = catalog.read_study(study_id(spec, template(spec).hash, found.id))
    metered = Metered(store)
    dataset = Dataset(metered, read_snapshot(store, stored.snapshot, dataset=stored.dataset))
    stats = FarmStats(cells_total=stored.cells, cells_computed=0, cells_reused=stored.cells)
    return conclude(SubmittedStudy(stored, spec, compile_study(spec), dataset, catalog, (), metered), stats)


def rank_trials(results: Results, spec: StudySpec) -> Ranking | None:
    """Return the ranking that the spec's objective asks for, or None without one."""
    objective = spec.study.objective if spec.study else None
    if objective is None:
        return None
    return ranking(
        results,
        metric=objective.metric,
        bucket=objective.on,
        over=objective.over,
        direction=objective.direction,
    )


class BlockRunner:
    """Runs blocks of any study of one store. One per process; its threads share columns, markets and series."""

    def __init__(
        self, store: Store, *, cache: ColumnCache | None = None, settings: CacheSettings | None = None
    ) -> None:
        self.cache = cache if cache is not None else process_cache(settings)
        settings = settings if settings is not None else CacheSettings()
        self.store = store
        self.catalog = Catalog(store)
        self._memory = Memory(self.cache, settings)
        self._contexts: Shared[str, StudyContext] = Shared(settings.studies_max)
        self._stopped = threading.Event()
        self._unstored: dict[tuple[str, int], tuple[Study, Segment, int]] = {}

    def stop(self) -> None:
        """Let every running block end before its next cell with ``Interrupted``."""
        self._stopped.set()

    def context(self, study: Study | str) -> StudyContext:
        """Return the shared state of a study; by name it is read from the store."""
        name = study if isinstance(study, str) else study.name
        return self._contexts.get(name, lambda: self._open(study))

    def share(self, submission: SubmittedStudy) -> None:
        """Take over what this process has read and compiled of a study when it was submitted."""
        study, spec, program = submission.study, submission.spec, submission.program

        def shared() -> StudyContext:
            return StudyContext(study, spec, program, submission.dataset, submission.metered, self._memory)

        self._contexts.get(study.name, shared)

    def _open(self, study: Study | str) -> StudyContext:
        stored = self.catalog.read_study(study) if isinstance(study, str) else study
        spec, metered = load_study(dict(stored.spec)), Metered(self.store)
        dataset = Dataset(metered, read_snapshot(self.store, stored.snapshot, dataset=stored.dataset))
        return StudyContext(stored, spec, compile_study(spec), dataset, metered, self._memory)

    def run_block(self, study: Study | str, block: int) -> BlockReport:
        """Compute a block and store its segment; return how that went.

        Errors: the typed error of a cell, its place beginning with trial and instrument; ResultConflict when the
        block is stored with other rows; Interrupted after ``stop``.
        """
        clock = Stages()
        waits = (study if isinstance(study, str) else study.name), block
        finished = self._unstored.pop(waits, None)
        if finished is not None:
            return self._store(waits, *finished, clock)
        with clock.stage("plan"):
            context = self.context(study)
            mine = context.study.block(block)
            proof = context.study.proof_mask(mine.trials, mine.positions)
        segment = self._compute(context, mine, proof, clock)
        return self._store(waits, context.study, segment, context.bytes_fetched(), clock)

    def run_winners(self, study: Study | str, block: Block, check: Callable[[Segment], None]) -> BlockReport:
        """Compute the last block of a study, all its cells with digests, and store it, unless ``check`` raises.

        Errors: as ``run_block``.
        """
        clock = Stages()
        context = self.context(study)
        proof = np.ones((len(block.trials), len(block.positions)), np.bool_)
        segment = self._compute(context, block, proof, clock)
        check(segment)
        return self._store((context.study.name, block.index), context.study, segment, context.bytes_fetched(), clock)

    def _compute(self, context: StudyContext, block: Block, proof: BOOL, clock: Stages) -> Segment:
        trials, positions = block.trials.tolist(), block.positions.tolist()
        with clock.stage("read"):
            context.fetch(set(positions))
        try:
            values = compute(context, trials, positions, context.study.metrics, proof, clock, self._check)
        except CellError as error:
            where = trials[error.trial], positions[error.subject]
            raise _of_cell(error.error, context.study, *where) from error.error
        return values.segment(context.study, block, context.assumptions)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("stopped", hint="run the same command again; finished blocks are kept")

    def _store(
        self, waits: tuple[str, int], study: Study, segment: Segment, fetched: int, clock: Stages
    ) -> BlockReport:
        """Store a finished block. If the store is away, it waits here until it is asked for again."""
        try:
            with clock.stage("write"):
                is_new = self.catalog.put_segment(study, waits[1], segment)
        except StoreError:
            while len(self._unstored) >= UNSTORED_MAX:
                self._unstored.pop(next(iter(self._unstored)), None)  # the oldest is computed again
            self._unstored[waits] = study, segment, fetched
            raise
        return BlockReport(waits[1], segment.rows, is_new, fetched, clock.seconds)

    def recompute(self, study: Study | str, trial: int, position: int = 0) -> Scored:
        """Compute one cell again, in full: equity curve, orders, fills, trades.

        Errors: ResultConflict when its digests are not those stored for the cell.
        """
        context = self.context(study)
        scored = context.score(context.simulate(trial, position), trial, position)
        stored = self.catalog.find_cell(context.study, trial, position)
        if stored is not None:
            _check_same(scored.result, stored, _cell_name(context.study, trial, position))
        return scored


def _check_same(made: CellResult, stored: StoredCell, place: str) -> None:
    """Raise ResultConflict when what was computed again differs from what is stored: in a digest, or in a metric."""
    found = [(name, stored.cells.digest(name, 0, 0), getattr(made, name)) for name in ("stats", "ledger")]
    differs = [f"{name} {new[:16]}, stored is {old[:16]}" for name, old, new in found if old not in (None, new) and old]
    for bucket, vector in zip(BUCKETS, made.vectors, strict=True):
        for at, name in enumerate(METRIC_NAMES):
            old = stored.cells.columns.get(metric_column(bucket, name))
            if old is not None and vector is not None and old.tobytes() != canonical_array_bytes(vector[at : at + 1]):
                differs.append(f"{bucket}.{name} {vector[at]}, stored is {old[0, 0]}")
    if differs:
        raise ResultConflict(
            f"computed again, the cell gives {differs[0]}",
            place=f"{place}, {stored.segment}",
            hint="determinism is broken between two machines or versions",
        )


def _of_cell(error: FarmError, study: Study, trial: int, position: int) -> FarmError:
    """Return the error with trial and instrument in front of its place."""
    place = _cell_name(study, trial, position) + (f", {error.place}" if error.place else "")
    return type(error)(error.message, place=place, allowed=error.allowed, hint=error.hint)


def _cell_name(study: Study, trial: int, position: int) -> str:
    instrument = study.cell_instruments[position]
    return f"trial {trial} {study.params_text(trial)}" + (f", instrument {instrument}" if instrument else "")


def run_in_process(
    spec: Spec,
    store: Store,
    *,
    snapshot: str | None = None,
    fresh: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
    cache: ColumnCache | None = None,
    settings: CacheSettings | None = None,
) -> Outcome:
    """Run a study to its end in this process, on ``threads`` threads; no Ray.

    Errors: those of ``submit`` and ``run_block``; Interrupted on Ctrl-C. In each case finished blocks are kept, and
    the same call goes on from there.
    """
    clock = Stages()
    with clock.stage("plan"):
        submission = submit(spec, store, snapshot=snapshot, fresh=fresh, cache=cache, settings=settings)
    reports: list[BlockReport] = []
    runner = BlockRunner(store, cache=cache, settings=settings)
    if submission.waiting:
        runner.share(submission)
        with clock.stage("run"):
            try:
                _run_waiting(runner, submission, threads, progress, reports)
            except Watchdog:
                raise  # nobody answers: the record would wait as long again
            except BaseException:
                # The error of the study matters more than a remark that cannot be written down.
                with suppress(StoreError):
                    _record_lease(submission, reports)
                raise
            _record_lease(submission, reports)
    with clock.stage("collect"):
        stats = FarmStats(
            cells_total=submission.study.cells,
            cells_computed=submission.cells_waiting,
            cells_reused=submission.study.cells - submission.cells_waiting,
            bytes_needed=submission.bytes_needed,
            bytes_fetched=submission.metered.take() + sum(report.bytes_fetched for report in reports),
            seconds=clock.seconds,
        )
    return conclude(submission, stats, runner, clock)


def _run_waiting(
    runner: BlockRunner, submission: SubmittedStudy, threads: int, progress: Progress | None, reports: list[BlockReport]
) -> None:
    """Run the waiting blocks, adding to ``reports`` as they finish. Errors: as ``_run_blocks``."""
    meter = Meter(submission.study.cells, submission.study.cells - submission.cells_waiting, progress)

    def note(report: BlockReport) -> None:
        reports.append(report)
        meter.add(report.cells, report.bytes_fetched)

    calls = [partial(runner.run_block, submission.study, block) for block in submission.waiting]
    _run_blocks(runner, submission.study, calls, threads, note)


def _run_blocks(
    runner: BlockRunner, study: Study, calls: Sequence[Callable[[], BlockReport]], threads: int,
    note: Callable[[BlockReport], None],
) -> None:  # fmt: skip
    """Run blocks, one a call, and ``note`` each as it finishes.

    Errors: Interrupted on Ctrl-C; the first error of a block. Running blocks then end before their next cell.
    """

    def one(call: Callable[[], BlockReport]) -> BlockReport:
        try:
            return call()
        except BaseException:
            runner.stop()  # now: this thread would begin the next block before anybody has heard of it
            raise

    finished, has_failed = 0, False
    with ThreadPoolExecutor(threads, "blocks") as pool:
        futures = [pool.submit(one, call) for call in calls]
        waiting = set(futures)
        try:
            while waiting and not has_failed:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    if future.exception() is None:
                        finished += 1
                        note(future.result())
                    else:
                        has_failed = True
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped by the user with {len(calls) - finished} of {len(calls)} blocks unfinished",
                place=f"study {study.id[:12]}",
                hint="run the same command again; finished blocks are kept",
            ) from None
        finally:
            if waiting:
                runner.stop()
            for future in waiting:
                future.cancel()
    failed = [error for future in futures if not future.cancelled() and (error := future.exception()) is not None]
    if failed:  # a block that was stopped has nothing to say where another has the reason
        raise min(failed, key=lambda error: isinstance(error, Interrupted))


def _record_lease(submission: SubmittedStudy, reports: Sequence[BlockReport]) -> None:
    """Write down who computed which blocks, and what that took: for ``explain``, no part of a result."""
    if not reports:
        return
    record = LeaseRecord(
        study=submission.study.name,
        worker=IN_PROCESS,
        reason=IN_PROCESS,
        attempt=1,
        blocks=tuple(sorted(report.block for report in reports)),
        outcome="done",
        cells=sum(report.cells for report in reports),
        bytes_fetched=sum(report.bytes_fetched for report in reports),
        seconds=total_seconds(report.seconds for report in reports),
    )
    put_numbered(submission.catalog.store, record, "local")
