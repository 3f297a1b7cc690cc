"""The worker without Ray: golden vectors, leases, errors; and what is told of it all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster import worker
from cluster.driver import Tally
from cluster.telemetry import COUNTERS, GAUGES, readings
from cluster.worker import Worker, check_numerics, numerics_digest
from farm import api
from farm.store.open import open_store
from farm.store.wrap import Around
from farm.values.errors import DataError, Interrupted, NotFound, StoreError, Unavailable
from farm.values.settings import FarmSettings, StoreSettings
from farm.work import run
from farm.work.run import BlockReport
from tests.cluster.worlds import Play, study
from tests.reference import reduce as plain_reduce
from tests.reference import rolling as plain_rolling
from tests.reference import transcend as plain_transcend
from tests.study.support import cross


def test_the_plain_twins_give_the_golden_vectors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant is what the definition gives, not only what one compiler made of it."""
    monkeypatch.setattr(worker, "rolling", plain_rolling)
    monkeypatch.setattr(worker, "reduce", plain_reduce)
    monkeypatch.setattr(worker, "transcend", plain_transcend)
    assert numerics_digest() == worker.GOLDEN


def test_a_machine_with_other_numerics_refuses_to_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exp = worker.transcend.exp
    monkeypatch.setattr(
        worker, "transcend", SimpleNamespace(log=worker.transcend.log, exp=lambda x: float(np.nextafter(exp(x), 0.0)))
    )
    with pytest.raises(DataError, match="the golden vectors give"):
        check_numerics()
    with pytest.raises(DataError, match="disagree"):
        Worker(str(tmp_path), FarmSettings()).ready()


class Scripted:
    """A runner that does what the script says for each block."""

    def __init__(self, script: dict[int, Any]) -> None:
        self.script = script

    def run_block(self, study: str, block: int) -> BlockReport:
        outcome = self.script.get(block)
        if callable(outcome):
            outcome()
        elif outcome is not None:
            raise outcome
        return BlockReport(block, 5, True, 7, {"run": 0.1})


def serving(script: dict[int, Any], tmp_path: Path) -> Worker:
    made = Worker(str(tmp_path), FarmSettings(threads=3), lambda store, settings: Scripted(script))
    assert made.ready().slots == 3
    return made


def test_a_lease_reports_each_block_and_an_error_does_not_stop_the_others(tmp_path: Path) -> None:
    error = DataError("bad chunk")
    answer = serving({1: error}, tmp_path).run("l", "s", (0, 1, 2))
    assert [(report.block, report.cells, report.error) for report in answer.reports] == [
        (0, 5, None),
        (1, 0, error),
        (2, 5, None),
    ]
    assert answer.reports[0].bytes_fetched == 7 and answer.reports[0].stages == {"run": 0.1}


def test_a_cancelled_lease_ends_after_the_block_it_is_at(tmp_path: Path) -> None:
    script: dict[int, Any] = {}
    made = serving(script, tmp_path)
    script[1] = lambda: made.cancel("l")
    assert [report.block for report in made.run("l", "s", (0, 1, 2, 3)).reports] == [0, 1]
    assert [report.block for report in made.run("m", "s", (2,)).reports] == [2]


def test_an_interrupted_block_counts_as_not_begun(tmp_path: Path) -> None:
    assert serving({0: Interrupted("stop")}, tmp_path).run("l", "s", (0,)).reports == ()


class Flaky(Scripted):
    """A runner whose store is away for the first ``times`` tries of block 1."""

    def __init__(self, times: int) -> None:
        super().__init__({})
        self.times = times

    def run_block(self, study: str, block: int) -> BlockReport:
        if block == 1 and self.times:
            self.times -= 1
            raise Unavailable("no answer")
        return super().run_block(study, block)


def flaky(times: int, tmp_path: Path, watchdog_s: float) -> Worker:
    limits = StoreSettings(watchdog_s=watchdog_s, request_timeout_s=0.2, connect_timeout_s=0.1, backoff_s_max=0.5)
    settings = FarmSettings(store=limits)
    made = Worker(str(tmp_path), settings, lambda store, settings: Flaky(times))
    made.ready()
    return made


def test_a_block_waits_in_its_worker_while_the_store_is_away_but_not_for_ever(tmp_path: Path) -> None:
    reports = flaky(2, tmp_path, 60.0).run("l", "s", (0, 1, 2)).reports
    assert [(report.block, report.error) for report in reports] == [(0, None), (1, None), (2, None)]
    assert reports[1].seconds > 0.2
    reports = flaky(1_000_000, tmp_path, 1.0).run("l", "s", (0, 1, 2)).reports
    assert [(report.block, type(report.error)) for report in reports] == [
        (0, type(None)),
        (1, Unavailable),
        (2, type(None)),
    ]


def test_a_worker_waits_for_a_store_that_is_away_before_it_serves(tmp_path: Path) -> None:
    """As long as a block would; what it was asked for is not there for other reasons ends it at once."""
    for error, patience in ((Unavailable("no answer"), True), (NotFound("no such bucket"), False)):
        left = [error, error]

        def make(store: object, settings: object, left: list[StoreError] = left) -> Scripted:
            if left:
                raise left.pop()
            return Scripted({})

        limits = StoreSettings(watchdog_s=60.0)
        made = Worker(str(tmp_path), FarmSettings(store=limits, threads=3), make)
        if patience:
            assert made.ready().slots == 3 and made.run("l", "s", (0,)).reports[0].error is None
        else:
            with pytest.raises(NotFound):
                made.ready()
    hasty = StoreSettings(watchdog_s=1.0, request_timeout_s=0.2, connect_timeout_s=0.1, backoff_s_max=0.5)
    with pytest.raises(Unavailable):
        Worker(str(tmp_path), FarmSettings(store=hasty), never).ready()


def never(store: object, settings: object) -> Scripted:
    raise Unavailable("no answer")


def test_cancelling_a_lease_ends_its_wait_for_the_store(tmp_path: Path) -> None:
    made = flaky(1_000_000, tmp_path, 600.0)
    thread = threading.Timer(0.3, lambda: made.cancel("l"))
    thread.start()
    assert [report.block for report in made.run("l", "s", (1, 2)).reports] == [1]
    thread.join()


def test_a_finished_block_waits_for_its_put_and_is_not_computed_again(tmp_path: Path) -> None:
    api.ingest_sample(api.at(str(tmp_path)))
    store = open_store(str(tmp_path))
    submitted = run.submit(cross(fast=(5, 10, 5), slow=(30, 40, 10), tickers=("IBM",)), store)
    runner = run.BlockRunner(NoPuts(store))
    for _ in range(2):
        with pytest.raises(Unavailable):
            runner.run_block(submitted.study, 0)
    runner._fill = None  # type: ignore[method-assign, assignment]  # whoever computes again fails
    runner.catalog.store = store
    assert runner.run_block(submitted.study, 0).is_new
    assert submitted.catalog.finished_blocks(submitted.study) == {0}


class NoPuts(Around):
    def put_if_absent(self, key: str, data: bytes) -> None:
        raise Unavailable("no answer", place=key)


def test_a_foreign_exception_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        serving({0: ZeroDivisionError()}, tmp_path).run("l", "s", (0,))


@pytest.mark.slow
def test_running_a_study_loads_neither_pandas_nor_blas(tmp_path: Path) -> None:
    """Both cost a second at every start, and no run needs them; they can be loaded afterwards all the same."""
    code = """
import json, sys
import cluster.preload
from farm import api
from farm.store.open import open_store
from farm.store.wrap import Around
settings = api.at(sys.argv[1])
outcome = api.run(json.loads(sys.argv[2]), settings)
assert outcome.stats.cells_computed == 4 and outcome.leaders()
assert "pandas" not in sys.modules and "scipy.linalg" not in sys.modules
import pandas, scipy.linalg.cython_blas
"""
    api.ingest_sample(api.at(str(tmp_path)))
    spec = json.dumps(cross(fast=(5, 10, 5), slow=(30, 40, 10), tickers=("IBM",)))
    subprocess.run([sys.executable, "-c", code, str(tmp_path), spec], check=True, timeout=100)


def test_readings_name_what_is_published() -> None:
    play = Play()
    play.submit(study(blocks=8))
    play.ready(holdings={"aa": 600})
    tally = Tally(cells=5, affinity_hits=1)
    tally.outcomes["crashed"] += 2
    now = readings(play.state, tally, 3.0)
    assert set(now) == set(GAUGES) | set(COUNTERS)
    assert now["queue_blocks"] == 6 and now["leases_in_flight"] == 2 and now["workers_ready"] == 1
    assert now["queue_wait_s"] == 3.0 and now["cache_bytes"] == 600 and now["leases_crashed"] == 2
