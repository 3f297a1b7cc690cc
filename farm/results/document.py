"""The document of a finished study: what ``farm run --json`` prints.

Its keys are exactly those of ``docs/run-document.schema.json`` and are described in ``docs/run-document.md``. Up to
TRIALS_MAX trials all of them stand in the order of their numbers, so that two documents can be compared line by line;
beyond, the best LEADERS stand in the order of merit. Up to CELLS_MAX cells each trial has its cells; where one of these
is passed it has quantiles over them. The leaderboard is a function of the document and stands apart. Undefined metrics
are null, those that a study does not store are absent, and so is a digest null that was not made.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farm.results.results import Cells, Ranking, Results
from farm.results.segment import VERDICTS, metric_column
from farm.study.coverage import coverage_json
from farm.values.arrays import BOOL, F64, I64, U8
from farm.values.metrics import METRICS
from farm.values.units import MICRO

TRIALS_MAX = 1000
LEADERS = 100
CELLS_MAX = 10_000
QUANTILES = {"min": 0, "p05": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "max": 100}
"""Of the known values of a metric over the cells of a trial, in percent; between two values in proportion."""
CELLS_AT_ONCE = 50_000


@dataclass(frozen=True)
class FarmStats:
    """How the results came about: nothing of it is part of a result.

    ``cells_computed`` counts the cells whose values were computed for this answer, ``cells_reused`` those found
    finished; winners that were simulated once more for their digests count as before.
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


def document(
    results: Results, ranking: Ranking | None, stats: FarmStats, *, trials: bool = False, cells: bool = False
) -> dict[str, Any]:
    """Return the document; without an objective (``ranking`` None) each trial's objective is null.

    ``trials``, ``cells``: all of them, whatever their number.
    """
    study = results.study
    chosen = np.arange(study.trials)
    if study.trials > TRIALS_MAX and not trials:
        chosen = (ranking.trials if ranking is not None else chosen)[:LEADERS]
    return {
        "study": study.id,
        "snapshot": study.snapshot,
        "coverage": coverage_json(study.coverage),
        "trials": trial_objects(results, ranking, chosen, with_cells=cells),
        "farm": stats.to_json(),
    }


def trial_objects(
    results: Results, ranking: Ranking | None, trials: I64, *, with_cells: bool = False
) -> list[dict[str, Any]]:
    """Return these trials as the document has them; ``with_cells``: with cells, however many the study has."""
    study = results.study
    is_numbered = study.trials > TRIALS_MAX
    with_quantiles = is_numbered or study.cells > CELLS_MAX
    with_cells = with_cells or study.cells <= CELLS_MAX
    objectives = [None] * study.trials if ranking is None else nullable(ranking.value)
    made: list[dict[str, Any]] = []
    step = max(1, CELLS_AT_ONCE // len(study.cell_instruments))
    with _no_collection():
        for start in range(0, len(trials), step):
            some = results.cells(trials[start : start + step])
            listed = cell_objects(results, some) if with_cells else []
            spread = _quantiles(results, some) if with_quantiles else []
            width = len(study.cell_instruments)
            for at, trial in enumerate(some.trials.tolist()):
                one: dict[str, Any] = {"trial": trial} if is_numbered else {}
                one |= {
                    "key": study.axes.trial_key(trial).hex(),
                    "params": study.params(trial),
                    "objective": objectives[trial],
                    "fingerprint": some.fingerprint(at),
                }
                if with_quantiles:
                    one["quantiles"] = spread[at]
                if with_cells:
                    one["cells"] = listed[at * width : (at + 1) * width]
                made.append(one)
    return made


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


def cell_objects(results: Results, cells: Cells) -> list[dict[str, Any]]:
    """Return the cells of some trials as the document has them; the loop body is all that a cell costs."""
    study, names = results.study, results.metrics
    full, in_sample, out_of_sample = (_rows(cells, results, bucket) for bucket in ("full", "is", "oos"))
    is_run = cells.is_run.ravel()
    equity = _nulls((cells.columns["equity_end_micro"] / MICRO).ravel().tolist(), ~is_run)
    proof = cells.columns["proof"].ravel()
    ledger = _nulls(hex_digests(cells.columns["ledger"]), ~(proof & is_run))
    stats = _nulls(hex_digests(cells.columns["stats"]), ~proof)
    verdicts = [name or None for name in VERDICTS]
    counts, assumptions = _counts(cells), _assumptions(cells)
    return [
        {
            "key": key,
            "instrument": instrument,
            "equity_end": equity[cell],
            "metrics": {
                "full": dict(zip(names, full[cell], strict=False)),
                "is": dict(zip(names, in_sample[cell], strict=False)) if in_sample else None,
                "oos": dict(zip(names, out_of_sample[cell], strict=False)) if out_of_sample else None,
            },
            "fingerprint": {"ledger": ledger[cell], "stats": stats[cell]},
            "assumptions": [*assumptions[cell]],
            "counts": counts[cell],
            "verdict": verdicts[verdict],
        }
        for cell, (key, instrument, verdict) in enumerate(
            zip(
                keys_of(results, cells),
                study.cell_instruments * len(cells.trials),
                cells.columns["verdict"].ravel().tolist(),
                strict=True,
            )
        )
    ]


def keys_of(results: Results, cells: Cells) -> Iterator[str]:
    """Yield the keys of the cells, hex."""
    axes = results.study.axes
    for trial in cells.trials.tolist():
        own = axes.trial[trial].tobytes()
        reads = axes.read[axes.history[trial]].tobytes()
        for start in range(0, len(reads), 32):
            yield hashlib.sha256(reads[start : start + 32] + own).hexdigest()


def hex_digests(digests: U8) -> list[str]:
    """Return digests (..., 32) as a list of hex texts."""
    text = digests.tobytes().hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def _nulls(values: list[Any], absent: BOOL) -> list[Any]:
    for at in np.flatnonzero(absent).tolist():
        values[at] = None
    return values


def _counts(cells: Cells) -> list[dict[str, int]]:
    """Return what is counted in each cell, without zeros."""
    made: list[dict[str, int]] = [{} for _ in range(cells.is_run.size)]
    for name, values in cells.named("counts").items():
        flat = values.ravel()
        some = np.flatnonzero(flat)
        for at, count in zip(some.tolist(), flat[some].tolist(), strict=True):
            made[at][name] = count
    return made


def _assumptions(cells: Cells) -> list[tuple[str, ...]]:
    """Return what each cell assumes; there are few such lists."""
    named = cells.named("assumptions")
    if not named:
        return [()] * cells.is_run.size
    bits = np.packbits(np.stack([holds.ravel() for holds in named.values()]), axis=0)
    kinds, kind_of = np.unique(bits, axis=1, return_inverse=True)
    used = np.unpackbits(kinds, axis=0, count=len(named)).astype(np.bool_)
    lists = [tuple(name for name, holds in zip(named, column, strict=True) if holds) for column in used.T]
    return [lists[kind] for kind in kind_of.ravel().tolist()]


def _rows(cells: Cells, results: Results, bucket: str) -> list[tuple[Any, ...]]:
    """Return the metrics of each cell with None for NaN, and counts as integers; none for a bucket there is not."""
    if bucket not in results.buckets:
        return []
    columns = (_column(cells.columns[metric_column(bucket, name)].ravel(), name) for name in results.metrics)
    return list(zip(*columns, strict=True))


def _column(values: F64, name: str) -> list[Any]:
    absent = values != values
    some = np.count_nonzero(absent)
    if some == len(values):
        return [None] * some
    if METRICS[name].is_count:
        whole = np.where(absent, 0.0, values).astype(np.int64).tolist() if some else values.astype(np.int64).tolist()
    else:
        whole = values.tolist()
    return _nulls(whole, absent) if some else whole


def _quantiles(results: Results, cells: Cells) -> list[dict[str, Any]]:
    """Return of each trial, by bucket and metric, the quantiles over its cells, and how many are null."""
    made: list[dict[str, Any]] = [dict.fromkeys(("full", "is", "oos")) for _ in cells.trials]
    for bucket in results.buckets:
        tables = [quantiles(cells.metric(name, bucket)) for name in results.metrics]
        columns = [{name: nullable(row) for name, row in table.items()} for table, _ in tables]
        for at, one in enumerate(made):
            one[bucket] = {
                name: {**{label: values[at] for label, values in column.items()}, "nulls": int(nulls[at])}
                for name, column, (_, nulls) in zip(results.metrics, columns, tables, strict=True)
            }
    return made


def quantiles(values: F64) -> tuple[dict[str, F64], I64]:
    """Return QUANTILES of the known values in each row, (rows,), NaN where none is known; and how many are unknown.

    The median is that of the objective: the mean of the two middle values.
    """
    known = np.isfinite(values)
    count = known.sum(axis=1)
    ordered = np.sort(np.where(known, values, np.inf), axis=1)
    ordered[np.isinf(ordered)] = 0.0  # unknown ones are last, and nobody looks at them
    last = np.maximum(count, 1) - 1
    found: dict[str, F64] = {}
    for label, percent in QUANTILES.items():
        whole, rest = np.divmod(percent * last, 100)
        low = np.take_along_axis(ordered, whole[:, None], axis=1)[:, 0]
        high = np.take_along_axis(ordered, np.minimum(whole + 1, last)[:, None], axis=1)[:, 0]
        high = np.where(rest > 0, high, low)
        between = (low + high) / 2.0 if percent == 50 else low + (high - low) * (rest / 100.0)
        found[label] = np.where(count > 0, np.where(low == high, low, between), np.nan)
    return found, values.shape[1] - count


def nullable(values: F64) -> list[float | None]:
    """Return the values with None for NaN."""
    return [None if value != value else value for value in values.tolist()]
