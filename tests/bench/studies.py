"""The rows of ``make bench``: what the project promises about speed, each with the parts that the time goes to.

All rows run on the real daily bars of the sample, in a store in a temporary directory. A farm of workers is started as
``farm run --workers 2`` starts it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.local_ray import LocalFarm
from farm import api
from farm.columns.cache import ColumnCache
from farm.engine.events import Simulator
from farm.kernels import loop
from farm.results import record
from farm.signals.evaluate import evaluate
from farm.signals.store import SeriesStore
from farm.values.settings import GIB, FarmSettings
from farm.work import context as study_context
from farm.work.run import BlockRunner, submit
from tests.bench.harness import Row, microseconds, repeat, seconds_of

DEMO = Path(__file__).resolve().parents[2] / "infra" / "demo" / "study.json"
WORKERS = 2
REPEATS = 5


def demo_spec() -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(DEMO.read_text())
    return spec


def stop_spec() -> dict[str, Any]:
    """One trial on AAPL with a stop, a target and fees of every kind: the event loop has everything to do."""
    spec = demo_spec()
    spec["strategy"]["params"] = {"fast": {"choice": [5]}, "slow": {"choice": [50]}}
    spec["strategy"]["universes"][0]["tickers"] = ["AAPL"]
    spec["strategy"]["sleeves"][0]["stops"] = [{"type": "stop", "pct": 0.08}, {"type": "target", "pct": 0.25}]
    spec["run"]["costs"] = {"bps": 5, "per_share": 0.005, "min": 1}
    return spec


@contextmanager
def sample_store() -> Iterator[FarmSettings]:
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        settings = api.at(str(Path(folder) / "store"))
        api.ingest_sample(settings)
        yield settings


def event_loop(settings: FarmSettings) -> Row:
    """Bar steps per second and core of the kernel, with a stop, a target and fees."""
    submission = submit(stop_spec(), api.store_of(settings))
    runner = BlockRunner(api.store_of(settings), cache=ColumnCache(GIB))
    context = runner.context(submission.study)
    market, (_, program) = context.market(0), context.program(0)
    one = program.on("AAPL")
    signals = evaluate(one, market.market, SeriesStore(GIB))
    bars = submission.study.read(0, 0).bars
    runs = 200
    parts: dict[str, list[float]] = {"lay out signals and tables": [], "kernel": [], "books": []}

    def measure() -> float:
        kernel = 0.0
        spent = dict.fromkeys(parts, 0.0)
        for _ in range(runs):
            t0 = time.perf_counter()
            simulator = Simulator(one, market.market, signals, market.tape)
            state = simulator.start()
            t1 = time.perf_counter()
            simulator.advance(state, simulator.tape.instants)
            t2 = time.perf_counter()
            simulator.finish(state)
            t3 = time.perf_counter()
            kernel += t2 - t1
            for name, spent_s in zip(parts, (t1 - t0, t2 - t1, t3 - t2), strict=True):
                spent[name] += spent_s
        for name in parts:
            parts[name].append(spent[name] / runs)
        return bars * runs / kernel / 1e6

    values = repeat(measure, REPEATS)
    shown = {name: f"{microseconds(statistics.median(all_))} per run" for name, all_ in parts.items()}
    return Row("event loop, stop and fees", "M bar-steps/s/core", 10, True, values, {"bars": f"{bars:,}", **shown})


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


def cell_overhead(settings: FarmSettings) -> Row:
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

    values = repeat(measure, REPEATS)
    shown = {name: f"{microseconds(statistics.median(all_))} per cell" for name, all_ in parts.items()}
    return Row("fixed cost of a cell", "us", 200, False, values, shown)


def on_workers(settings: FarmSettings) -> list[Row]:
    """The demo study on two local workers that are ready and know nothing yet; and how long it takes to be ready."""
    rates: list[float] = []
    starts: list[float] = []
    parts: dict[str, list[float]] = {}
    for _ in range(REPEATS):
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
        rates.append(submission.study.cells / spent)
        stages = {f"in workers, {stage}": seconds for stage, seconds in tally.seconds.items()}
        for name, seconds in {"study": spent, **stages, "(ready) Ray and first worker": opened}.items():
            parts.setdefault(name, []).append(seconds)
    shown = {name: f"{statistics.median(all_):.3f} s" for name, all_ in parts.items()}
    return [
        Row("demo study on 2 ready workers", "cells/s", 1500, True, rates, shown),
        Row("local farm of 2 ready", "s", 8, False, starts),
    ]


def from_catalog(settings: FarmSettings) -> Row:
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

    values = repeat(measure, REPEATS)
    shown = {name: f"{statistics.median(all_) * 1e3:.1f} ms" for name, all_ in parts.items()}
    return Row("demo study from the catalog", "cells/s", 20_000, True, values, shown)


def fresh_process(settings: FarmSettings) -> Row:
    """A new process with compiled kernels on disk, from its start to the printed document of one trial."""
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(stop_spec()))
        command = [sys.executable, "-m", "cluster.cli", "run", str(spec), "--fresh", "--json"]
        environment = {**os.environ, "FARM_STORE": settings.store.url}
        parts: dict[str, list[float]] = {}

        def measure() -> float:
            start = time.perf_counter()
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                assert process.stdout is not None
                document = json.loads(process.stdout.readline())
                printed = time.perf_counter() - start
            ended = time.perf_counter() - start
            inside = document["farm"]["seconds"]
            imports = printed - sum(inside.values())
            for name, spent in {"interpreter and imports": imports, **inside, "exit": ended - printed}.items():
                parts.setdefault(name, []).append(spent)
            return printed

        values = repeat(measure, REPEATS)
    shown = {name: f"{statistics.median(all_):.2f} s" for name, all_ in parts.items()}
    return Row("fresh process, first result", "s", 2, False, values, shown)


def help_time(settings: FarmSettings) -> Row:
    """``farm --help``."""
    command = [sys.executable, "-m", "cluster.cli", "--help"]
    run = lambda: seconds_of(lambda: subprocess.run(command, capture_output=True, check=True, timeout=60))  # noqa: E731
    return Row("farm --help", "s", 0.3, False, repeat(run, REPEATS))


ROWS: Mapping[str, Callable[[FarmSettings], Row | list[Row]]] = {
    "loop": event_loop,
    "cell": cell_overhead,
    "workers": on_workers,
    "catalog": from_catalog,
    "process": fresh_process,
    "help": help_time,
}
