"""The results of a study: arrays of trials x subjects, gathered from whichever segments hold the cells.

Where a cell was computed, and when, leaves no trace here. What a study stores fits into memory or it does not: up to
RESULTS_BYTES_MAX all of it is gathered at once; beyond, each ask reads the columns and the trials that it is about. A
trial's value and fingerprint are functions of its cells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from farm.results.lookup import Patch
from farm.results.segment import VERDICTS, Array, dtype_of, metric_column, width_of
from farm.study.ranking import over_cells, rank
from farm.study.trials import Study
from farm.values.arrays import BOOL, F64, I64

RESULTS_BYTES_MAX = 512 * 1024 * 1024
BASE = ("verdict", "equity_end_micro")
DIGESTS = ("ledger", "stats", "proof")
ReadColumns: TypeAlias = Callable[[Sequence[str], I64 | None], dict[str, Array]]
"""Columns by name, of all trials or of some -> arrays (trials, subjects)."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of k trials of a study on all its subjects: ``trials`` int64 (k,), and columns by name, each (k, s),
    as ``Segment.columns`` has them; what a study or its snapshot adds to them is added."""

    trials: I64
    columns: Mapping[str, Array]

    @property
    def is_run(self) -> BOOL:
        """Where a cell was simulated, (k, s)."""
        found: BOOL = self.columns["verdict"] == 0
        return found

    def verdict(self, at: int, subject: int) -> str | None:
        """Return what became of a cell that is no run."""
        return VERDICTS[int(self.columns["verdict"][at, subject])] or None

    def metric(self, metric: str, bucket: str = "full") -> F64:
        """Return a metric, (k, s); NaN = null, or not stored."""
        found = self.columns.get(metric_column(bucket, metric))
        return found if found is not None else np.full(self.columns["verdict"].shape, np.nan)

    def vector(self, metrics: Sequence[str], bucket: str, at: int, subject: int) -> F64:
        """Return metrics of one cell, NaN where undefined or not stored."""
        return np.array([self.metric(name, bucket)[at, subject] for name in metrics], np.float64)

    def named(self, kind: str) -> dict[str, Array]:
        """Return the ``counts``, or the ``assumptions``, by name in their order, each (k, s)."""
        prefix = kind + "."
        names = sorted(name.removeprefix(prefix) for name in self.columns if name.startswith(prefix))
        return {name: self.columns[prefix + name] for name in names}

    def counts(self, at: int, subject: int | slice) -> dict[str, int]:
        """Return what is counted in a cell, or in several together, zeros left out."""
        found = {name: int(np.sum(values[at, subject])) for name, values in self.named("counts").items()}
        return {name: count for name, count in found.items() if count}

    def assumptions(self, at: int, subject: int) -> list[str]:
        """Return what a cell assumes."""
        return [name for name, holds in self.named("assumptions").items() if holds[at, subject]]

    def digest(self, name: str, at: int, subject: int) -> str | None:
        """Return the ``ledger`` or the ``stats`` digest of a cell, hex; None outside the proof set, and for the ledger
        of what was not simulated."""
        if not self.columns["proof"][at, subject] or (name == "ledger" and not self.is_run[at, subject]):
            return None
        return bytes(self.columns[name][at, subject]).hex()

    def fingerprint(self, at: int) -> str | None:
        """Return the fingerprint of a trial, hex; None unless all its cells are in the proof set."""
        if not self.columns["proof"][at].all():
            return None
        return hashlib.sha256(self.columns["stats"][at].tobytes()).hexdigest()


class Results:
    """Every cell of a study. ``metrics`` and ``buckets`` are those that it stores; counts and assumptions, all that
    occur."""

    def __init__(self, study: Study, counts: Iterable[str], assumptions: Iterable[str], read: ReadColumns) -> None:
        self.study = study
        self.metrics = study.metrics
        self.buckets = study.buckets
        self._stored_counts = tuple(sorted(counts))
        self._stored_assumptions = tuple(sorted(assumptions))
        self._read = read
        self._kept: dict[str, Array] = {}
        self._proven: tuple[I64, Mapping[str, Array]] | None = None

    @cached_property
    def counts(self) -> tuple[str, ...]:
        """Names of what is counted in any cell, those of the study (``Study.cell_counts``) too."""
        of_study = {name for counts in self.study.cell_counts for name, _ in counts}
        return tuple(sorted({*self._stored_counts, *of_study}))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are stored."""
        metrics = [metric_column(bucket, metric) for bucket in self.buckets for metric in self.metrics]
        counts = [f"counts.{name}" for name in self._stored_counts]
        return (*BASE, *metrics, *counts, *(f"assumptions.{name}" for name in self._stored_assumptions), *DIGESTS)

    @property
    def fits(self) -> bool:
        """Whether all of it is kept in memory."""
        width = 8 * (len(self.names) - len(DIGESTS)) + 64
        return self.study.cells * width <= RESULTS_BYTES_MAX

    def stored(self, names: Sequence[str], trials: I64 | None = None) -> dict[str, Array]:
        """Return stored columns by name, (k, s), of all trials or of some, in their order.

        Errors: DataError when a segment that holds some of it is damaged, and no other does.
        """
        found = self._without_winners(names, trials)
        if self._proven is not None:
            numbers, digests = self._proven
            asked = np.arange(self.study.trials) if trials is None else trials
            at = np.minimum(np.searchsorted(numbers, asked), len(numbers) - 1)
            here = np.flatnonzero(numbers[at] == asked)
            for name in found.keys() & digests.keys():
                array = found[name].copy()
                array[here] = digests[name][at[here]]
                array.flags.writeable = False
                found[name] = array
        return found

    def with_winners(self, trials: I64, digests: Mapping[str, Array]) -> Results:
        """Return the same results with the digests of all cells of some trials (k,), ascending: ``DIGESTS`` by name,
        (k, s, ...)."""
        found = copy(self)
        found._proven = trials, digests
        return found

    def _without_winners(self, names: Sequence[str], trials: I64 | None) -> dict[str, Array]:
        if self.fits and not self._kept:
            self._kept = self._read(self.names, None)
        if not self._kept:
            return self._read(names, trials)
        found = {name: self._kept[name] for name in names}
        return found if trials is None else {name: array[trials] for name, array in found.items()}

    def column(self, metric: str, bucket: str = "full", trials: I64 | None = None) -> F64:
        """Return one metric as (trials, subjects); NaN where it is undefined, or not stored."""
        if metric not in self.metrics or bucket not in self.buckets:
            count = self.study.trials if trials is None else len(trials)
            return np.full((count, len(self.study.cell_instruments)), np.nan)
        name = metric_column(bucket, metric)
        found: F64 = self.stored([name], trials)[name]
        return found

    def verdict_counts(self) -> dict[str, int]:
        """Return how many cells are no run, by why."""
        sizes = np.bincount(self.stored(["verdict"])["verdict"].ravel(), minlength=len(VERDICTS))
        return {name: int(size) for name, size in zip(VERDICTS, sizes, strict=True) if name and size}

    def assumed(self) -> list[str]:
        """Return what any cell assumes."""
        names = [f"assumptions.{name}" for name in self._stored_assumptions]
        found = self.stored(names)
        return sorted({name.partition(".")[2] for name in names if found[name].any()} | set(self.study.assumptions))

    def cells(self, trials: Sequence[int] | I64, names: Iterable[str] | None = None) -> Cells:
        """Return the cells of some trials: all that is stored, or the columns ``names`` beside the verdict."""
        numbers = np.asarray(trials, np.int64)
        wanted = self.names if names is None else (*dict.fromkeys(("verdict", *names)),)
        columns = dict(self.stored([name for name in wanted if name in self.names], numbers))
        if names is None:
            add_of_study(columns, self.study, range(len(self.study.cell_instruments)))
        return Cells(numbers, columns)

    def fingerprints(self, trials: Sequence[int] | I64) -> list[str | None]:
        """Return the fingerprint of each trial, hex; None unless all its cells are in the proof set."""
        cells = self.cells(trials, ("stats", "proof"))
        return [cells.fingerprint(at) for at in range(len(cells.trials))]


def add_of_study(columns: dict[str, Array], study: Study, subjects: Sequence[int]) -> None:
    """Add what a study and its snapshot assume and count, whatever a cell does, to ``columns`` of these subjects.

    No segment can hold these: a cell may be reused under another snapshot, of which they are not true.
    """
    shape = columns["verdict"].shape
    for name in study.assumptions:
        columns[f"assumptions.{name}"] = np.ones(shape, np.bool_)
    added: dict[str, Array] = {}
    for at, subject in enumerate(subjects):
        for name, count in study.cell_counts[subject]:
            column = f"counts.{name}"
            if column not in added:
                added[column] = columns[column].copy() if column in columns else np.zeros(shape, np.int64)
            added[column][:, at] = count
    columns |= added


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


def gather(
    shape: tuple[int, int],
    proof: I64 | None,
    parts: Iterable[tuple[Sequence[Patch], Mapping[str, Array]]],
    names: Sequence[str],
    trials: I64 | None,
) -> dict[str, Array]:
    """Return columns by name, (trials, subjects) of a study of this ``shape``, or of some of its trials.

    ``parts``: the patches of a segment, and its columns, those of ``names`` that it has; ``proof``: the cells whose
    digests are shown. Digests are (trials, subjects, 32), zeros outside ``proof``.
    """
    count, subjects = shape if trials is None else (len(trials), shape[1])
    out = {name: np.zeros((count, subjects, *width_of(name)), dtype_of(name)) for name in names}
    place: I64 | None = None
    if trials is not None:
        place = np.full(shape[0], -1, np.int64)
        place[trials] = np.arange(count)
    for patches, columns in parts:
        for patch in patches:
            rows: Array = patch.rows
            here: Array = patch.trials
            if place is not None:
                kept = place[here] >= 0
                rows, here = rows[kept], place[here[kept]]
            source, target = grid(rows, patch.columns), grid(here, patch.subjects)
            for name in names:
                values = columns.get(name)
                if values is None:
                    continue
                if name in DIGESTS:
                    has = columns["proof"][source]
                    old = out[name][target]
                    out[name][target] = np.where(has.reshape(*has.shape, *([1] * (old.ndim - 2))), values[source], old)
                else:
                    out[name][target] = values[source]
    if proof is not None and set(names) & set(DIGESTS):
        shown = np.zeros(shape, np.bool_)
        shown.ravel()[proof] = True
        shown = shown if trials is None else shown[trials]
        for name in set(names) & set(DIGESTS):
            out[name][~shown] = 0
    for array in out.values():
        array.flags.writeable = False
    return out


def grid(rows: Any, columns: Any) -> Any:
    """Return the index of a rectangle of a matrix, by slices where they can be had: they cost no copy."""
    first, second = _slice(rows), _slice(columns)
    return np.ix_(rows, columns) if first is None and second is None else (
        rows if first is None else first, columns if second is None else second
    )  # fmt: skip


def _slice(places: Any) -> slice | None:
    """Return ascending neighbours as a slice."""
    if len(places) and int(places[-1]) - int(places[0]) + 1 == len(places) and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return None
