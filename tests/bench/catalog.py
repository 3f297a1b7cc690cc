"""What results cost once they are stored: cells from the catalog to the ranked outcome, a look-up in a large family.

Values are drawn, and written by the writer of real ones: nothing is simulated.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from farm import api
from farm.results.catalog import Catalog
from farm.results.document import FarmStats
from farm.results.extent import Extent, StoredAxes, encode_axes, encode_extent
from farm.shard.layout import axes_key, extent_key, segment_key
from farm.spec.table import ParamTable
from farm.store.open import open_store
from farm.study.axes import Axes
from farm.values.settings import FarmSettings
from farm.work.run import conclude
from farm.work.submit import submit
from tests.bench.harness import Row, repeat
from tests.bench.studies import demo_spec
from tests.results.rectangles import drawn

FAST, SLOW = 80, 250
"""Values of the two parameters: 20,000 trials on five instruments are 100,000 cells."""
TRIALS, SUBJECTS = 100_000, 1_000
FAMILY_SEGMENTS = 1_000


def many_cells(settings: FarmSettings, repeats: int) -> Row:
    """100,000 cells that are all stored: submit, look-up, gather, compare, rank."""
    spec = demo_spec()
    spec["run"]["cash"] = 12_345  # a family of its own: drawn values are not those of other rows
    spec["strategy"]["params"] = {"fast": {"int": [1, FAST]}, "slow": {"int": [101, 100 + SLOW]}}
    store = api.store_of(settings)
    catalog = Catalog(store)
    study = submit(spec, store).study
    for block in study.blocks:
        catalog.put_segment(study, block.index, drawn(study, block.index))
    parts: dict[str, list[float]] = {}

    def measure() -> float:
        start = time.perf_counter()
        submission = submit(spec, store)
        planned = time.perf_counter()
        # Without a runner: the winners' values are drawn, and computed again they would be others.
        outcome = conclude(submission, FarmStats(study.cells, 0, study.cells))
        spent = time.perf_counter() - start
        assert not submission.waiting and outcome.ranking is not None
        warm = outcome.study
        parts.setdefault("submit", []).append(planned - start)
        parts.setdefault("conclude", []).append(start + spent - planned)
        start = time.perf_counter()
        Catalog(store).results(warm)
        parts.setdefault("(of conclude) read and gather", []).append(time.perf_counter() - start)
        return study.cells / spent

    values = repeat(measure, repeats)
    shown = {name: f"{statistics.median(all_) * 1e3:.0f} ms" for name, all_ in parts.items()}
    note = f"{len(study.blocks)} segments, {len(study.metrics)} metrics in {len(study.buckets)} buckets"
    return Row(f"{study.cells:,} cells from the catalog", "cells/s", 200_000, True, values, shown, note=note)


def family_axes(first: int, step: int, trials: int, subjects: int, classes: int = 50) -> tuple[Axes, ParamTable]:
    """Return axes of trials whose digests follow from their numbers, ``first``, ``first + step`` and on."""
    numbers = np.arange(first, first + step * trials, step, dtype=np.int64)
    mixed = (numbers[:, None] + 1) * np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 3, 7], np.uint64).view(np.int64)
    read = np.random.default_rng(7).integers(0, 256, (classes, subjects, 32), np.uint8)
    names = tuple(f"S{at:04d}" for at in range(subjects))
    axes = Axes(mixed.view(np.uint8).reshape(trials, 32), (numbers % classes).astype(np.int32), names, read)
    codes = (numbers // step % 1000).astype(np.int32), (numbers // step // 1000 % 1000).astype(np.int32)
    return axes, ParamTable(("fast", "slow"), (tuple(range(1000)), tuple(range(1000))), codes, trials)


def write_family(url: str, family: str, shape: tuple[int, int], segments: int, trials: int, subjects: int) -> int:
    """Store the extents of ``segments`` blocks of ``shape``: half hold every other trial of a study of ``trials`` x
    ``subjects``, half the trials of a neighbour. Values are never looked at: one byte stands for each. Return cells."""
    store, cells = open_store(url), 0
    for owner, first in (("even", 0), ("far", 10 * trials)):
        axes, params = family_axes(first, 2, trials // 2, subjects)
        stored = StoredAxes(axes, params)
        store.put_if_absent(axes_key(family, stored.digest), encode_axes(stored))
        rows, columns = shape
        number = 0
        for left in range(0, subjects, columns):
            for low in range(0, trials // 2, rows):
                if number == segments // 2:
                    break
                extent = Extent(
                    stored.digest,
                    np.arange(low, min(low + rows, trials // 2), dtype=np.int32),
                    np.arange(left, min(left + columns, subjects), dtype=np.int32),
                    *(("total_return", "sharpe", "max_dd", "trades"), ("full", "is", "oos"), ("lapsed",), ()),
                    proof=False,
                    content="0" * 64,
                )
                key = segment_key(family, f"{owner}-{number:06d}")
                store.put_if_absent(key, b"-")
                store.put_if_absent(extent_key(key), encode_extent(extent))
                cells += extent.cells if owner == "even" else 0
                number += 1
    return cells


_LOOK_UP = """
import sys, time
from farm.results.catalog import Catalog
from farm.results.document import FarmStats
from farm.store.open import open_store
from tests.bench.catalog import family_axes
from tests.bench.harness import peak_bytes

url, family, trials, subjects = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
axes, _ = family_axes(0, 1, trials, subjects)
start = time.perf_counter()
found = Catalog(open_store(url)).lookup(family, axes, ("sharpe", "trades"), ("full", "is", "oos"))
print(time.perf_counter() - start, peak_bytes(), found.count, len(found.missing.rows))
"""


def in_a_family(repeats: int, shape: tuple[int, int], trials: int, subjects: int, segments: int) -> Row:
    """A study whose every other trial is stored, looked up by a fresh process among ``segments`` of ``shape``."""
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        url = str(Path(folder) / "store")
        cells = write_family(url, "f" * 64, shape, segments, trials, subjects)
        peaks: list[int] = []

        def measure() -> float:
            command = [sys.executable, "-c", _LOOK_UP, url, "f" * 64, str(trials), str(subjects)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.split()
            assert int(answer[2]) == cells, f"{answer[2]} cells found of {cells}"
            peaks.append(int(answer[1]))
            return float(answer[0])

        values = repeat(measure, repeats)
    rows, columns = shape
    shown = {
        "study": f"{trials:,} trials x {subjects:,} subjects",
        "family": f"{segments:,} segments of {rows * columns:,} cells",
        "found": f"{cells:,} cells; {trials * subjects - cells:,} are missing",
        "memory allowed": "500 MB",
    }
    name = f"look-up, blocks of {rows:,} x {columns:,}"
    return Row(name, "s", 3, False, values, shown, peak_bytes=max(peaks))


SHAPES: Sequence[tuple[int, int]] = ((100, 1000), (1000, 100), (50_000, 2))
"""Blocks of 1e5 cells: one read of few subjects, or many trials on few columns."""


def in_families(settings: FarmSettings, repeats: int) -> list[Row]:
    """Look-ups of half a study of 1e8 cells, for blocks of several shapes."""
    return [in_a_family(repeats, shape, TRIALS, SUBJECTS, FAMILY_SEGMENTS) for shape in SHAPES]
