"""The document of a finished study: what ``farm run --json`` prints.

Its keys are exactly those of ``docs/run-document.schema.json`` and are described in ``docs/run-document.md``. Trials
stand in the order of their numbers, so that two documents can be compared line by line; the leaderboard is a function
of the document and stands apart. Undefined metrics are null.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farm.results.results import Ranking, Results
from farm.results.segment import parsed, split_bytes
from farm.study.coverage import coverage_json
from farm.values.arrays import F64
from farm.values.metrics import METRICS
from farm.values.units import MICRO


@dataclass(frozen=True)
class FarmStats:
    """How the results came about: nothing of it is part of a result.

    ``cells_computed`` counts the cells simulated for this answer, ``cells_reused`` those found finished.
    ``bytes_needed``: distinct bytes that the computed cells read, indexes included; ``bytes_fetched``: what came over
    the wire for it, planning and gaps between ranges included; ``seconds``: by stage.
    """

    cells_total: int
    cells_computed: int
    cells_reused: int
    cells_failed: int = 0
    workers: int = 0
    bytes_fetched: int = 0
    bytes_needed: int = 0
    affinity_hits: int = 0
    affinity_misses: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes_cached(self) -> int:
        """Needed bytes that did not come over the wire: the process held them from an earlier study."""
        return max(0, self.bytes_needed - self.bytes_fetched)

    def to_json(self) -> dict[str, Any]:
        """Return the part ``farm`` of the document."""
        return {
            "cells": {
                "total": self.cells_total,
                "computed": self.cells_computed,
                "reused": self.cells_reused,
                "failed": self.cells_failed,
            },
            "workers": self.workers,
            "bytes": {"fetched": self.bytes_fetched, "needed": self.bytes_needed, "cached": self.bytes_cached},
            "affinity": {"hits": self.affinity_hits, "misses": self.affinity_misses},
            "seconds": {stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
        }


def document(results: Results, ranking: Ranking | None, stats: FarmStats) -> dict[str, Any]:
    """Return the document; without an objective (``ranking`` None) each trial's objective is null."""
    study = results.study
    with _no_collection():
        cells = _cells(results)
    width = len(study.cell_instruments)
    objectives = [None] * study.trials if ranking is None else nullable(ranking.value)
    trials = [
        {
            "key": study.trial_key(trial),
            "params": study.params(trial),
            "objective": objectives[trial],
            "fingerprint": fingerprint,
            "cells": cells[trial * width : (trial + 1) * width],
        }
        for trial, fingerprint in enumerate(results.fingerprints)
    ]
    return {
        "study": study.id,
        "snapshot": study.snapshot,
        "coverage": coverage_json(study.coverage),
        "trials": trials,
        "farm": stats.to_json(),
    }


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector out while many small dicts are made, none of which can be garbage yet.

    Otherwise it walks all of them again and again, and takes five times as long as making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _cells(results: Results) -> list[dict[str, Any]]:
    """Return the cells of all trials; the loop body is all that a cell costs."""
    study, names = results.study, results.metrics
    full, in_sample, out_of_sample = (
        _rows(bucket, names) for bucket in (results.full, results.in_sample, results.out_of_sample)
    )
    equity = (results.equity_end_micro / MICRO).tolist()
    simulated = results.simulated.tolist()
    instruments = study.cell_instruments * study.trials
    stats, ledgers = split_bytes(results.stats), split_bytes(results.ledger)
    cells = []
    for cell, key in enumerate(study.keys):
        cells.append(
            {
                "key": key.hex(),
                "instrument": instruments[cell],
                "equity_end": equity[cell] if simulated[cell] else None,
                "metrics": {
                    "full": dict(zip(names, full[cell], strict=True)),
                    "is": dict(zip(names, in_sample[cell], strict=True)) if in_sample else None,
                    "oos": dict(zip(names, out_of_sample[cell], strict=True)) if out_of_sample else None,
                },
                "fingerprint": {
                    "ledger": ledgers[cell].hex() if simulated[cell] else None,
                    "stats": stats[cell].hex(),
                },
                "assumptions": list(parsed(results.assumptions[cell])),
                "counts": dict(parsed(results.counts[cell])),
                "verdict": results.verdict[cell] or None,
            }
        )
    return cells


def _rows(matrix: F64 | None, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows of metric vectors with None for NaN, and counts as integers; none for None."""
    if matrix is None:
        return []
    return list(zip(*(_column(matrix[:, index], name) for index, name in enumerate(names)), strict=True))


def _column(values: F64, name: str) -> list[Any]:
    absent = np.isnan(values)
    if METRICS[name].is_count:
        whole: list[Any] = np.where(absent, 0.0, values).astype(np.int64).tolist()
    else:
        whole = values.tolist()
    if absent.any():
        for row in np.flatnonzero(absent).tolist():
            whole[row] = None
    return whole


def nullable(values: F64) -> list[float | None]:
    """Return the values with None for NaN."""
    return [None if value != value else value for value in values.tolist()]
