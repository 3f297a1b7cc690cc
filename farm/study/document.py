"""The document of a finished study: what ``farm run --json`` prints.

Its keys are exactly those of ``docs/run-document.schema.json`` and are described in ``docs/run-document.md``. Trials
stand in the order of their numbers, so that two documents can be compared line by line; the leaderboard is a function
of the document and stands apart. Undefined metrics are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farm.study.results import Ranking, Results
from farm.study.segment import parsed, split_bytes
from farm.values.arrays import F64
from farm.values.units import MICRO


@dataclass(frozen=True)
class FarmStats:
    """How the results came about: nothing of it is part of a result.

    ``cells_computed`` counts the cells simulated for this answer, ``cells_reused`` those found finished.
    ``bytes_needed``: distinct bytes that the computed cells read; ``seconds``: by stage.
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
            "bytes": {"fetched": self.bytes_fetched, "needed": self.bytes_needed},
            "affinity": {"hits": self.affinity_hits, "misses": self.affinity_misses},
            "seconds": {stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
        }


def document(results: Results, order: Ranking | None, stats: FarmStats) -> dict[str, Any]:
    """Return the document; without an objective (``order`` None) each trial's objective is null."""
    study = results.study
    cells = _cells(results)
    width = len(study.cell_instruments)
    objectives = [None] * study.trials if order is None else _nullable(order.value[None, :])[0]
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
    return {"study": study.id, "snapshot": study.snapshot, "trials": trials, "farm": stats.to_json()}


def _cells(results: Results) -> list[dict[str, Any]]:
    """Return the cells of all trials; the loop body is all that a cell costs."""
    study, names = results.study, results.metrics
    absent: list[list[Any]] = []
    full = _nullable(results.full)
    in_sample = _nullable(results.in_sample) if results.in_sample is not None else absent
    out_of_sample = _nullable(results.out_of_sample) if results.out_of_sample is not None else absent
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


def _nullable(matrix: F64) -> list[list[Any]]:
    """Return the rows with None for NaN; whole numbers stay floats, as the schema says ``number``."""
    if not np.isnan(matrix).any():
        return list(matrix.tolist())
    boxed = matrix.astype(object)
    boxed[np.isnan(matrix)] = None
    return list(boxed.tolist())
