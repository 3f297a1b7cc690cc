"""The results of a study as columns, one row per cell, in the order trial, instrument id.

Rows come from whichever segments hold them; where a row was computed, and when, leaves no trace here. A trial's value
and fingerprint are functions of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from farm.results.segment import Segment, parsed, split_bytes
from farm.study.keys import trial_fingerprint
from farm.study.ranking import over_cells, rank
from farm.study.trials import Study
from farm.values.arrays import BOOL, F64, I32, I64, U8
from farm.values.canon import canonical_json
from farm.values.errors import DataError


@dataclass(frozen=True, eq=False)
class Results:
    """Every cell of a study, as the columns of ``segment.Segment``; buckets (n, metrics), NaN = null.

    ``in_sample`` and ``out_of_sample`` are None without a split. ``equity_end_micro`` counts where ``simulated``.
    """

    study: Study
    metrics: tuple[str, ...]
    equity_end_micro: I64
    simulated: BOOL
    full: F64
    in_sample: F64 | None
    out_of_sample: F64 | None
    ledger: U8
    stats: U8
    assumptions: tuple[str, ...]
    counts: tuple[str, ...]
    verdict: tuple[str, ...]

    def bucket(self, name: str) -> F64:
        """Return the metrics of bucket ``full``, ``is`` or ``oos``, (cells, metrics)."""
        bucket = {"full": self.full, "is": self.in_sample, "oos": self.out_of_sample}[name]
        if bucket is None:
            raise ValueError(f"the study has no split, hence no bucket {name}")
        return bucket

    def column(self, metric: str, bucket: str = "full") -> F64:
        """Return one metric as (trials, cells per trial)."""
        values = self.bucket(bucket)[:, self.metrics.index(metric)]
        return values.reshape(self.study.trials, -1)

    @cached_property
    def fingerprints(self) -> list[str]:
        """The fingerprint of each trial, hex."""
        width = len(self.study.cell_instruments)
        stats = split_bytes(self.stats)
        return [trial_fingerprint(stats[start : start + width]) for start in range(0, len(stats), width)]


@dataclass(frozen=True)
class Ranking:
    """The value of each trial (NaN = null) and the trial numbers, best first."""

    metric: str
    bucket: str
    over: str
    direction: str
    value: F64
    trials: I64


def ranking(results: Results, *, metric: str, bucket: str, over: str, direction: str) -> Ranking:
    """Return the values and the order of the trials; ``direction`` is "max" or "min"."""
    value = over_cells(results.column(metric, bucket), over)
    max_dd = over_cells(results.column("max_dd", bucket), over)
    trades = over_cells(results.column("trades", bucket), over)
    return Ranking(metric, bucket, over, direction, value, rank(value, direction, max_dd, trades))


def gather(study: Study, segments: Sequence[Segment], place: I32, row: I32) -> Results:
    """Return the results of ``study``; cell i is row ``row[i]`` of ``segments[place[i]]``.

    Errors: DataError when segments name different metrics, or hold no buckets where the study has a split.
    """
    metrics = segments[0].metrics
    has_split = study.split is not None
    for segment in segments:
        if segment.metrics != metrics or (segment.in_sample is not None) != has_split:
            raise DataError("result segments of one family have different columns", place=f"results/{study.family}")
    starts = np.cumsum([0] + [segment.rows for segment in segments])[:-1]
    at = starts[place] + row

    def array(name: str) -> npt.NDArray[Any]:
        joined: npt.NDArray[Any] = np.concatenate([getattr(segment, name) for segment in segments])
        taken: npt.NDArray[Any] = joined[at]
        return taken

    def text(name: str) -> tuple[str, ...]:
        joined = [value for segment in segments for value in getattr(segment, name)]
        return tuple([joined[index] for index in at.tolist()])

    counts = zip(text("counts"), study.cell_counts * study.trials, strict=True)

    return Results(
        study=study,
        metrics=metrics,
        equity_end_micro=array("equity_end_micro"),
        simulated=array("simulated"),
        full=array("full"),
        in_sample=array("in_sample") if has_split else None,
        out_of_sample=array("out_of_sample") if has_split else None,
        ledger=array("ledger"),
        stats=array("stats"),
        assumptions=tuple([assumed_text(value, study.assumptions) for value in text("assumptions")]),
        counts=tuple([counted_text(stored, of_study) for stored, of_study in counts]),
        verdict=text("verdict"),
    )


@lru_cache(maxsize=4096)
def assumed_text(stored: str, of_snapshot: tuple[str, ...]) -> str:
    """Return the assumptions of a cell, canonical JSON: those stored with it and those of the study's snapshot."""
    return canonical_json(sorted({*parsed(stored), *of_snapshot})).decode()


@lru_cache(maxsize=4096)
def counted_text(stored: str, of_study: tuple[tuple[str, int], ...]) -> str:
    """Return the counts of a cell, canonical JSON: those stored with it, and those of its study (``cell_counts``)."""
    return canonical_json({**parsed(stored), **dict(of_study)}).decode() if of_study else stored
