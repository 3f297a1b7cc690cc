"""Rows under way: the cells of a block as they are computed, and the segment they become."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from farm.results.record import NULL_STATS, CellResult
from farm.results.segment import Segment, join_bytes
from farm.study.trials import OF_SNAPSHOT, Study
from farm.values.canon import canonical_json
from farm.values.metrics import BUCKETS

NO_DATA = "no_data"
"""Verdict of a cell whose instrument is known but has no bar in the window: not simulated, no metrics."""


class BlockRows:
    """The rows of one block, filled in any order; ``segment`` when all are there."""

    def __init__(self, study: Study, block: int, metrics: tuple[str, ...]) -> None:
        self._study = study
        self._cells = study.cells_of(study.blocks[block])
        count, width = len(self._cells), len(metrics)
        self._metrics = metrics
        self._equity = np.zeros(count, np.int64)
        self._simulated = np.zeros(count, np.bool_)
        has_split = study.split is not None
        self._buckets = [np.full((count, width), np.nan) if name == "full" or has_split else None for name in BUCKETS]
        self._ledger = [bytes(32)] * count
        self._stats = [b""] * count
        self._assumptions = [""] * count
        self._counts = [""] * count
        self._verdict = [""] * count
        self._texts: dict[object, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def cell(self, row: int) -> tuple[int, int]:
        """Return trial and position of the cell in ``row``."""
        return divmod(self._cells[row], len(self._study.cell_instruments))

    def put(self, row: int, result: CellResult) -> None:
        """Write down a simulated cell."""
        self._equity[row] = result.equity_end_micro
        self._simulated[row] = True
        for bucket, vector in zip(self._buckets, result.vectors, strict=True):
            if bucket is not None:
                assert vector is not None
                bucket[row] = vector
        self._ledger[row] = bytes.fromhex(result.ledger)
        self._stats[row] = bytes.fromhex(result.stats)
        self._remark(row, result.assumptions, result.counts)

    def put_no_data(self, row: int, assumptions: tuple[str, ...]) -> None:
        """Write down a cell without bars: not simulated, every metric null."""
        self._stats[row] = bytes.fromhex(NULL_STATS)
        self._verdict[row] = NO_DATA
        self._remark(row, assumptions, {})

    def _remark(self, row: int, assumptions: tuple[str, ...], counts: Mapping[str, int]) -> None:
        """Write down what was assumed and counted, without what the snapshot assumes, and without counts of zero."""
        key = (assumptions, tuple(counts.items()))
        texts = self._texts.get(key)
        if texts is None:
            names = sorted(set(assumptions) - OF_SNAPSHOT.keys())
            kept = {name: count for name, count in counts.items() if count}
            texts = self._texts[key] = canonical_json(names).decode(), canonical_json(kept).decode()
        self._assumptions[row], self._counts[row] = texts

    def segment(self) -> Segment:
        """Return the segment of the block; every row must have been written."""
        assert all(self._stats)
        study, width = self._study, len(self._study.cell_instruments)
        full, in_sample, out_of_sample = self._buckets
        assert full is not None
        trials = [cell // width for cell in self._cells]
        return Segment(
            metrics=self._metrics,
            key=join_bytes([study.keys[cell] for cell in self._cells]),
            trial=np.array(trials, np.int32),
            instrument=tuple([study.cell_instruments[cell % width] or "" for cell in self._cells]),
            params=tuple([study.params_text(trial) for trial in trials]),
            equity_end_micro=self._equity,
            simulated=self._simulated,
            full=full,
            in_sample=in_sample,
            out_of_sample=out_of_sample,
            ledger=join_bytes(self._ledger),
            stats=join_bytes(self._stats),
            assumptions=tuple(self._assumptions),
            counts=tuple(self._counts),
            verdict=tuple(self._verdict),
        )
