"""What a study costs: a cell however short, cells on workers, cells from the catalog; on the real bars of the sample.

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
from farm.kernels import loop
from farm.results import record
from farm.values.settings import GIB, FarmSettings
from farm.work import context as study_context
from farm.work.run import BlockRunner, submit
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


def cell_overhead(settings: FarmSettings, repeats: int) -> Row:
    """What a cell costs however few bars it has: key, program, set-up and books, row, segment, catalog.

    What grows with its bars is clocked apart: event loop, signals, metrics over sessions, digests of the books.
    """
    parts: dict[str, list[float]] = {}

    def measure() -> float:
        cache = ColumnCache(GIB)
        store = api.store_of(settings)
        start = time.perf_counter()
        submission = submit(demo_spec(), store, fresh=True, cache=cache)
        planned = time.perf_counter() - start
        runner = BlockRunner(store, cache=cache)
        context = runner.context(submission.study)
        for position in range(5):
            context.market(position)
        with Clocks(
            loop=(loop, "advance"),
            signals=(study_context, "evaluate"),
            metrics=(record, "measure_run"),
            ledger=(record, "ledger_digest"),
            program=(study_context, "compile_trial"),
        ) as clocks:
            start = time.perf_counter()
            reports = [runner.run_block(submission.study, block) for block in submission.waiting]
            blocks = time.perf_counter() - start
        start = time.perf_counter()
        runner.catalog.results(submission.study)
        collected = time.perf_counter() - start
        cells, spent = submission.study.cells, clocks.seconds
        written = sum(report.seconds["write"] for report in reports)
        grows = {name: spent[name] for name in ("loop", "signals", "metrics", "ledger")}
        fixed = {
            "plan and key": planned,
            "program": spent["program"],
            "dispatch, set-up, books, row": blocks - written - spent["program"] - sum(grows.values()),
            "segment": written,
            "catalog": collected,
        }
        for name, seconds in {**fixed, **{f"(grows with bars) {name}": value for name, value in grows.items()}}.items():
            parts.setdefault(name, []).append(seconds / cells)
        return sum(fixed.values()) / cells * 1e6

    values = repeat(measure, repeats)
    shown = {name: f"{microseconds(statistics.median(all_))} per cell" for name, all_ in parts.items()}
    return Row("fixed cost of a cell", "us", 200, False, values, shown)


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
        Row("demo study on 2 ready workers", "cells/s", 1500, True, rates, shown, peak_bytes=max(peaks)),
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
