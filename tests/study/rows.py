"""Cells under way: the cells of a block as they are computed, and the segment they become."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from farm.results.record import NULL_STATS, CellResult
from farm.results.segment import NO_DATA, Segment
from farm.study.block import Block
from farm.study.trials import OF_SNAPSHOT, Study
from farm.values.arrays import F64


def cells_of(study: Study, block: Block) -> list[int]:
    """Return the cell numbers (trial x cells per trial + position) of a block, in the order of its segment."""
    numbers = block.trials.astype(np.int64)[:, None] * len(study.subjects) + block.positions
    return [int(number) for number in numbers.ravel()]


@lru_cache(maxsize=8)
def cell_keys(study: Study) -> list[bytes]:
    """Return the keys of all cells, 32 bytes each, in the order trial, instrument."""
    axes, positions = study.axes, range(len(study.subjects))
    return [axes.cell_key(trial, position) for trial in range(study.trials) for position in positions]


class BlockRows:
    """The cells of one block, filled in any order; ``segment`` when all are there."""

    def __init__(self, study: Study, block: int, metrics: tuple[str, ...]) -> None:
        self._study = study
        self._cells = cells_of(study, study.block(block))
        self._metrics = metrics
        self._width = len(study.block(block).positions)
        count = len(self._cells)
        self._values: F64 = np.full((len(study.buckets), len(metrics), count), np.nan)
        self._equity = np.zeros(count, np.int64)
        self._verdict = np.zeros(count, np.uint8)
        self._ledger = np.zeros((count, 32), np.uint8)
        self._stats = np.zeros((count, 32), np.uint8)
        self._is_there = np.zeros(count, np.bool_)
        self._counts: dict[str, np.ndarray] = {}
        self._assumptions: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def cell(self, row: int) -> tuple[int, int]:
        """Return trial and position of the cell in ``row``."""
        return divmod(self._cells[row], len(self._study.cell_instruments))

    def put(self, row: int, result: CellResult) -> None:
        """Write down a simulated cell."""
        self._equity[row] = result.equity_end_micro
        for bucket, vector in zip(self._values, result.vectors, strict=False):
            assert vector is not None
            bucket[:, row] = vector
        self._ledger[row] = np.frombuffer(bytes.fromhex(result.ledger), np.uint8)
        self._stats[row] = np.frombuffer(bytes.fromhex(result.stats), np.uint8)
        self._remark(row, result.assumptions, result.counts)

    def put_no_data(self, row: int, assumptions: tuple[str, ...]) -> None:
        """Write down a cell without bars: not simulated, every metric null."""
        self._stats[row] = np.frombuffer(bytes.fromhex(NULL_STATS), np.uint8)
        self._verdict[row] = NO_DATA
        self._remark(row, assumptions, {})

    def _remark(self, row: int, assumptions: tuple[str, ...], counts: Mapping[str, int]) -> None:
        """Write down what was assumed and counted, without what the snapshot assumes, and without counts of zero."""
        self._is_there[row] = True
        for name in assumptions:
            if name not in OF_SNAPSHOT:
                if name not in self._assumptions:
                    self._assumptions[name] = np.zeros(len(self), np.bool_)
                self._assumptions[name][row] = True
        for name, count in counts.items():
            if count:
                if name not in self._counts:
                    self._counts[name] = np.zeros(len(self), np.int64)
                self._counts[name][row] = count

    def segment(self) -> Segment:
        """Return the segment of the block; every cell must have been written."""
        assert self._is_there.all()
        study, block = self._study, self._cells[:: self._width]
        width = len(study.cell_instruments)
        trials = np.array([cell // width for cell in block], np.int32)
        subjects = np.array([cell % width for cell in self._cells[: self._width]], np.int32)
        shape = (len(trials), len(subjects))
        counts, assumptions = tuple(sorted(self._counts)), tuple(sorted(self._assumptions))
        return Segment(
            trials=trials,
            params=study.table.take(trials.astype(np.int64)),
            axes=study.axes.take(trials, subjects),
            metrics=self._metrics,
            buckets=study.buckets,
            values=self._values.reshape(*self._values.shape[:2], *shape),
            equity_end_micro=self._equity.reshape(shape),
            verdict=self._verdict.reshape(shape),
            count_names=counts,
            counts=np.array([self._counts[name] for name in counts], np.int64).reshape(len(counts), *shape),
            assumption_names=assumptions,
            assumptions=np.array([self._assumptions[name] for name in assumptions], np.bool_).reshape(-1, *shape),
            proof=np.ones(shape, np.bool_),
            ledger=self._ledger,
            stats=self._stats,
        )
