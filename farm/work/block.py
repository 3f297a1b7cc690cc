"""A block computed: part by part of its subjects, all its trials at once. Nothing of a block is kept in Python objects
per cell.

Part by part, because a market is loaded once whatever the budget for markets is. Between parts the caller may stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from farm.engine.incidents import SILENT
from farm.engine.trials import ALL_COUNTS, TrialRun
from farm.kernels.trials import Kept
from farm.results.record import NULL_STATS, packed_digests, published
from farm.results.segment import NO_DATA, Segment
from farm.study.block import Block
from farm.study.trials import OF_SNAPSHOT, Study
from farm.values.arrays import BOOL, F64, I64, U8, readonly
from farm.values.errors import FarmError
from farm.values.metrics import METRIC_NAMES
from farm.work.cohorts import BlockTrials
from farm.work.context import StudyContext
from farm.work.progress import Stages

COUNT_NAMES = (*ALL_COUNTS, *SILENT, "split_doubtful")
"""What is counted of a cell, in the order of ``BlockValues.counts``."""
DIGEST_BYTES = 32


class CellError(Exception):
    """An error of one cell of a block: ``trial`` and ``subject`` are places in the block."""

    def __init__(self, error: FarmError, trial: int, subject: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.trial = trial
        self.subject = subject


@dataclass(frozen=True, eq=False)
class BlockValues:
    """What is kept of the cells of t trials on s subjects.

    Shapes:  values (b, m, t, s), NaN where a metric is undefined; equity_end_micro (t, s); has_data (s,): whether the
             subject has a bar in the window, without which its cells were not simulated; counts (c, t, s) of
             COUNT_NAMES; proof (t, s): which cells have digests; ledger, stats (t, s, 32), 0 for the others.
    """

    metrics: tuple[str, ...]
    values: F64
    equity_end_micro: I64
    has_data: BOOL
    counts: I64
    proof: BOOL
    ledger: U8
    stats: U8

    def segment(self, study: Study, block: Block, assumptions: tuple[str, ...]) -> Segment:
        """Return the cells of a block as they are stored: counts that occur, and digests of the cells in the proof.

        ``assumptions``: what the spec assumes, without what the snapshot does.
        """
        names = sorted(name for name, counts in zip(COUNT_NAMES, self.counts, strict=True) if counts.any())
        kept = tuple(sorted(set(assumptions) - OF_SNAPSHOT.keys()))
        return Segment(
            trials=block.trials,
            params=study.table.take(block.trials),
            axes=study.axes_of(block.trials, block.positions),
            metrics=self.metrics,
            buckets=study.buckets,
            values=self.values,
            equity_end_micro=self.equity_end_micro,
            verdict=np.where(self.has_data, 0, NO_DATA).astype(np.uint8) * np.ones(self.proof.shape, np.uint8),
            count_names=tuple(names),
            counts=self.counts[[COUNT_NAMES.index(name) for name in names]],
            assumption_names=kept,
            assumptions=np.ones((len(kept), *self.proof.shape), np.bool_),
            proof=self.proof,
            ledger=self.ledger[self.proof],
            stats=self.stats[self.proof],
        )


def compute(
    context: StudyContext, trials: Sequence[int], positions: Sequence[int], metrics: tuple[str, ...], proof: BOOL,
    clock: Stages, check: Callable[[], None],
) -> BlockValues:  # fmt: skip
    """Return the values of these trials at these positions among the cells of a trial.

    proof: (t, s), the cells whose digests are wanted. check: called between parts; what it raises ends the block.
    Errors: CellError with the typed error of a cell.
    """
    t, s = len(trials), len(positions)
    buckets = len(context.buckets.names)
    values = np.full((buckets, len(metrics), t, s), np.nan)
    equity = np.zeros((t, s), np.int64)
    counts = np.zeros((len(COUNT_NAMES), t, s), np.int64)
    ledger = np.zeros((t, s, DIGEST_BYTES), np.uint8)
    stats = np.zeros((t, s, DIGEST_BYTES), np.uint8)
    metric = readonly(np.array([METRIC_NAMES.index(name) for name in metrics], np.int64))
    has_data = np.array([context.has_data(position) for position in positions], np.bool_)
    stats[proof & ~has_data] = np.frombuffer(bytes.fromhex(NULL_STATS), np.uint8)
    names, engine_counts = published(), counts[: len(ALL_COUNTS)]
    is_packed = readonly(proof.astype(np.uint8))
    kept = Kept(values, metric, equity, engine_counts, is_packed, names.fields, names.prices, names.instrument)
    seconds = dict.fromkeys(("read", "signals", "run", "digest"), 0.0)
    block = BlockTrials(context, trials, positions)
    for part in block.parts():
        check()
        columns: Sequence[int] = part
        under_way: TrialRun | None = None
        try:
            begun = time.perf_counter()
            cohorts = block.cohorts(part)
            seconds["read"] += time.perf_counter() - begun
            for cohort in cohorts:
                columns, under_way = cohort.columns, None
                started = time.perf_counter()
                rows, counts[len(ALL_COUNTS) : -1, :, columns] = block.rows(cohort)
                counts[-1][:, columns] = cohort.doubtful_splits
                under_way = TrialRun(cohort.stage, rows, context.room())
                hashing = 0.0
                for trial, subject, pack in under_way.run(kept, columns):
                    packed = time.perf_counter()
                    column = columns[subject]
                    spec_hash = context.spec_hash(trials[trial], positions[column])
                    found = packed_digests(pack, cohort.headers[subject], spec_hash)
                    ledger[trial, column], stats[trial, column] = (np.frombuffer(one, np.uint8) for one in found)
                    hashing += time.perf_counter() - packed
                seconds["run"] += under_way.kernel_s
                seconds["digest"] += hashing
                seconds["signals"] += time.perf_counter() - started - under_way.kernel_s - hashing
        except FarmError as error:
            trial, subject = (0, 0) if under_way is None else (under_way.trial, under_way.subject)
            raise CellError(error, trial, columns[subject]) from error
    for stage, spent in seconds.items():
        clock.add(stage, spent)
    return BlockValues(metrics, values, equity, has_data, counts, proof, ledger, stats)
