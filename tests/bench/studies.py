"""What a study costs: of one cell, of cells on workers, cells from the catalog; on the real bars of the sample.

A farm of workers is started as ``farm run --workers 2`` starts it.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.local_ray import LocalFarm
from farm import api
from farm.columns.cache import ColumnCache
from farm.kernels import trials
from farm.values.settings import GIB, FarmSettings
from farm.work.run import run_in_process, submit
from tests.bench.harness import Row, family_bytes, microseconds, repeat

DEMO = Path(__file__).resolve().parents[2] / "infra" / "demo" / "study.json"
WORKERS = 2


def demo_spec() -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(DEMO.read_text())
    return spec


def one_trial(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave one trial on AAPL of the demo study."""
    spec["strategy"]["params"] = {"fast": {"choice": [5]}, "slow": {"choice": [50]}}
    spec["strategy"]["universes"][0]["tickers"] = ["AAPL"]
    return spec


@contextmanager
def sample_store() -> Iterator[FarmSettings]:
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        settings = api.at(str(Path(folder) / "store"))
        api.ingest_sample(settings)
        yield settings


class Clocks:
    """Clocks around functions of modules while inside ``with``; ``seconds`` by name."""

    def __init__(self, **functions: tuple[Any, str]) -> None:
        self.seconds = dict.fromkeys(functions, 0.0)
        self._found = [
            (name, module, function, getattr(module, function)) for name, (module, function) in functions.items()
        ]

    def __enter__(self) -> Clocks:
        for name, module, function, original in self._found:
            setattr(module, function, self._clocked(name, original))
        return self

    def __exit__(self, *_: object) -> None:
        for _, module, function, original in self._found:
            setattr(module, function, original)

    def _clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        seconds = self.seconds

        def run(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            answer = function(*arguments, **named)
            seconds[name] += time.perf_counter() - start
            return answer

        return run


def one_cell(settings: FarmSettings, repeats: int) -> Row:
    """What a study of one cell costs beside its kernels, in a process that has run its like, in memory.

    From spec to outcome, fresh: planned, computed, stored, ranked. The kernel that runs the trial is clocked and taken
    off; the others count as overhead.
    """
    memory = settings.with_store("memory:bench-one-cell")
    api.ingest_sample(memory)
    store, cache = api.store_of(memory), ColumnCache(GIB)
    lengths = iter(range(10, 10_000))
    parts: dict[str, list[float]] = {}

    def measure() -> float:
        spec = one_trial(demo_spec())
        spec["strategy"]["params"]["fast"] = {"choice": [next(lengths) % 40 + 5]}
        with Clocks(kernel=(trials, "run_trials")) as clocks:
            start = time.perf_counter()
            outcome = run_in_process(spec, store, fresh=True, cache=cache)
            spent = time.perf_counter() - start
        for name, seconds in {"kernel": clocks.seconds["kernel"], **outcome.stats.seconds}.items():
            parts.setdefault(name, []).append(seconds)
        return (spent - clocks.seconds["kernel"]) * 1e3

    values = repeat(measure, repeats)
    shown = {name: microseconds(statistics.median(all_)) for name, all_ in parts.items()}
    return Row("one cell alone, warm, beside its kernel", "ms", 1.0, False, values, shown)


def on_workers(settings: FarmSettings, repeats: int) -> list[Row]:
    """The demo study on two local workers that are ready and know nothing yet; and how long it takes to be ready."""
    rates: list[float] = []
    starts: list[float] = []
    parts: dict[str, list[float]] = {}
    peaks: list[int] = []
    for _ in range(repeats):
        with TemporaryDirectory(prefix="farm-bench-") as folder:
            there = api.at(str(Path(folder) / "store"))
            api.ingest_sample(there)
            start = time.perf_counter()
            with LocalFarm(there.store.url, workers=WORKERS) as farm:
                opened = time.perf_counter() - start
                farm.wait_ready(WORKERS)
                starts.append(time.perf_counter() - start)
                submission = submit(demo_spec(), farm.store)
                start = time.perf_counter()
                tally = farm.run(submission)
                spent = time.perf_counter() - start
                peaks.append(family_bytes(os.getpid()))
        rates.append(submission.study.cells / spent)
        stages = {f"in workers, {stage}": seconds for stage, seconds in tally.seconds.items()}
        for name, seconds in {"study": spent, **stages, "(ready) Ray and first worker": opened}.items():
            parts.setdefault(name, []).append(seconds)
    shown = {name: f"{statistics.median(all_):.3f} s" for name, all_ in parts.items()}
    return [
        Row("demo study on 2 ready workers", "cells/s", 7_000, True, rates, shown, peak_bytes=max(peaks)),
        Row("local farm of 2 ready", "s", 6, False, starts),
    ]


def from_catalog(settings: FarmSettings, repeats: int) -> Row:
    """The demo study again, every cell from the catalog, to the document."""
    api.run(demo_spec(), settings)
    parts: dict[str, list[float]] = {}

    def measure() -> float:
        start = time.perf_counter()
        outcome = api.run(demo_spec(), settings)
        made = time.perf_counter()
        outcome.document()
        total = time.perf_counter() - start
        for name, spent in {**outcome.stats.seconds, "document": time.perf_counter() - made}.items():
            parts.setdefault(name, []).append(spent)
        return outcome.study.cells / total

    values = repeat(measure, repeats)
    shown = {name: f"{statistics.median(all_) * 1e3:.1f} ms" for name, all_ in parts.items()}
    return Row("demo study from the catalog", "cells/s", 60_000, True, values, shown)
