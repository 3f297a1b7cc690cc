"""A whole study in one process over real bars: results, reuse, resume, fresh, no data, errors, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from farm.columns.cache import ColumnCache
from farm.results.catalog import Catalog, block_name
from farm.shard.ingest import ingest_table
from farm.shard.layout import leases_prefix, segment_key, study_key
from farm.shard.sample import sample_bars
from farm.show import bytes_text, outcome_text
from farm.store.base import Store
from farm.values.errors import CapacityError, DataError, Interrupted, ResultConflict, SpecError, UsageError
from farm.work.progress import ProgressEvent
from farm.work.run import BlockReport, BlockRunner, open_study, plan, run_in_process, submit
from tests.study.rows import cells_of
from tests.study.support import (
    TICKERS,
    copy_store,
    cross,
    drop,
    new_store,
    put_over,
    sample_store,
    stored_segment,
    without_params,
)


def trials(spec: dict[str, Any], store: Store, **options: Any) -> list[dict[str, Any]]:
    """Run, and return the trials of the document."""
    found: list[dict[str, Any]] = run_in_process(spec, store, cache=ColumnCache(1 << 28), **options).document()[
        "trials"
    ]
    return found


def objects(store: Store) -> dict[str, bytes]:
    return {meta.key: store.get(meta.key) for meta in store.list("")}


@pytest.fixture(scope="module")
def finished() -> Store:
    """A store with the results of ``cross()``; tests take copies."""
    store = sample_store()
    run_in_process(cross(), store, cache=ColumnCache(1 << 28))
    return store


class TestDocument:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"split": None},
            {"objective": None},
            {"each": None},
            {"benchmark": "IBM"},
            {"start": "2003-01-02", "end": "2004-12-31"},
        ],
    )
    def test_it_keeps_to_its_schema(self, changes: dict[str, Any], repo_root: Path) -> None:
        schema = json.loads((repo_root / "docs" / "run-document.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        spec = cross(fast=(5, 10, 5), slow=(20, 20), **changes)
        made = run_in_process(spec, sample_store(), cache=ColumnCache(1 << 28)).document()
        jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(made, allow_nan=False)))
        assert list(made) == ["study", "snapshot", "coverage", "trials", "farm"]

    def test_every_key_is_required_and_no_other_allowed(self, repo_root: Path) -> None:
        """The test above would pass for a schema that says nothing."""
        schema = json.loads((repo_root / "docs" / "run-document.schema.json").read_text())
        made = run_in_process(cross(fast=(5, 5), slow=(20, 20)), sample_store(), cache=ColumnCache(1 << 28)).document()
        validator = jsonschema.Draft202012Validator(schema)

        def broken(path: list[Any]) -> Any:
            copy = json.loads(json.dumps(made))
            value = copy
            for part in path[:-1]:
                value = value[part]
            value.pop(path[-1]) if path[-1] in value else value.update({path[-1]: 1})
            return copy

        cell = ["trials", 0, "cells", 0]
        paths = [
            ["study"],
            ["coverage"],
            ["farm", "seconds"],
            ["trials", 0, "objective"],
            [*cell, "equity_end"],
            ["extra"],
        ]
        paths += [[*cell, "metrics", "oos"], [*cell, "metrics", "full", "extra"], [*cell, "fingerprint", "ledger"]]
        paths += [["trials", 0, "cells"], ["trials", 0, "fingerprint"], [*cell, "fingerprint", "stats"]]
        paths += [["extra"], [*cell, "extra"], ["trials", 0, "extra"], ["farm", "extra"], ["farm", "bytes", "needed"]]
        for path in paths:
            assert not validator.is_valid(broken(path)), path

    def test_counts_and_objective(self, finished: Store) -> None:
        outcome = open_study(cross(), copy_store(finished))
        made = outcome.document()
        assert made["farm"]["cells"] == {"total": 45, "computed": 0, "reused": 45, "failed": 0}
        for trial in made["trials"]:
            sharpes = [cell["metrics"]["is"]["sharpe"] for cell in trial["cells"]]
            known = sorted(value for value in sharpes if value is not None)
            middle = len(known) // 2
            median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
            assert median == trial["objective"]
            assert all(cell["assumptions"] == ["fixed_universe", "no_dividends"] for cell in trial["cells"])
        best = max(range(9), key=lambda trial: made["trials"][trial]["objective"])
        assert outcome.leaderboard(3).column("trial").to_pylist()[0] == best
        assert outcome.table().num_rows == 45
        assert outcome.table().column("rank").to_pylist()[best * 5] == 1


class TestOneTruth:
    """Obligation 2: a trial alone equals the same trial inside any study."""

    @pytest.mark.parametrize("indicator", ["sma", "ema", "rsi"])
    @pytest.mark.parametrize("each", [True, False])
    def test_a_trial_alone(self, indicator: str, each: bool) -> None:
        store = sample_store()
        options: dict[str, Any] = {"indicator": indicator, "each": each, "benchmark": "IBM"}
        many = trials(cross(fast=(5, 25, 10), slow=(30, 90, 30), **options), copy_store(store))
        assert len(many) == 9
        for number in (0, 4, 8):
            values = many[number]["params"]
            one = cross(fast=(values["fast"],) * 2, slow=(values["slow"],) * 2, **options)
            assert trials(one, copy_store(store)) == [many[number]]

    def test_without_parameters_it_has_the_same_fingerprints(self) -> None:
        """Another template, hence another key; the same resolved spec, hence the same ledger to the bit."""
        store = sample_store()
        many = trials(cross(), copy_store(store))
        (plain,) = trials(without_params(cross(), fast=10, slow=30), copy_store(store))
        assert plain["fingerprint"] == many[4]["fingerprint"]
        expected = [cell["fingerprint"] for cell in many[4]["cells"]]
        assert expected == [cell["fingerprint"] for cell in plain["cells"]]
        assert plain["key"] != many[4]["key"]

    def test_an_instrument_alone(self) -> None:
        store = sample_store()
        many = trials(cross(fast=(5, 5), slow=(20, 20)), copy_store(store))
        (one,) = trials(cross(fast=(5, 5), slow=(20, 20), tickers=("IBM",)), copy_store(store))
        assert one["cells"] == [cell for cell in many[0]["cells"] if cell["instrument"] == "IBM"]

    def test_threads_and_caches_change_nothing(self, finished: Store) -> None:
        """One thread or four, a warm cache, a cache that holds nothing: the same segments, to the byte."""
        expected = {key: data for key, data in objects(finished).items() if key.startswith(("results/", "studies/"))}
        for threads, cache in ((4, ColumnCache(1 << 28)), (2, ColumnCache(0))):
            store = sample_store()
            for _ in range(2):
                run_in_process(cross(), store, threads=threads, cache=cache)
            made = {key: data for key, data in objects(store).items() if key.startswith(("results/", "studies/"))}
            leases = leases_prefix(open_study(cross(), store).study.name)
            for found in (expected, made):
                for key in [key for key in found if key.startswith(leases)]:
                    del found[key]
            assert expected == made


class TestReuse:
    def test_the_same_study_again_computes_nothing(self, finished: Store) -> None:
        store = copy_store(finished)
        before = objects(store)
        outcome = run_in_process(cross(), store, cache=ColumnCache(1 << 28))
        assert (outcome.stats.cells_computed, outcome.stats.cells_reused) == (0, 45)
        assert before == objects(store)

    def test_an_overlapping_study_computes_what_is_missing(self) -> None:
        """99 % of the grid is there: exactly the other 1 % is computed, and the whole equals an empty catalog's."""
        store = sample_store()
        run_in_process(cross(fast=(1, 10), slow=(21, 29), tickers=("IBM",)), store, cache=ColumnCache(1 << 28))
        run_in_process(cross(fast=(1, 9), slow=(30, 30), tickers=("IBM",)), store, cache=ColumnCache(1 << 28))
        wide = cross(fast=(1, 10), slow=(21, 30), tickers=("IBM",))
        outcome = run_in_process(wide, store, cache=ColumnCache(1 << 28))
        assert (outcome.stats.cells_computed, outcome.stats.cells_reused) == (1, 99)
        assert outcome.document()["trials"] == trials(wide, sample_store())

    def test_a_study_that_was_stopped_goes_on(self, finished: Store) -> None:
        """Blocks without a segment are computed, the others are not touched."""
        store = copy_store(finished)
        submission = submit(cross(), store)
        assert submission.waiting == ()
        lost = segment_key(submission.study.family, block_name(submission.study.name, 0))
        data = store.get(lost)
        store.delete(lost)
        outcome = run_in_process(cross(), store, cache=ColumnCache(1 << 28))
        assert outcome.stats.cells_computed == submission.study.blocks[0].cells
        assert data == store.get(lost)

    def test_plan_says_so(self, finished: Store) -> None:
        store = copy_store(finished)
        before = objects(store)
        done = plan(cross(), store).to_json()
        assert (done["cells"]["missing"], done["bytes"], done["reads"]) == (0, 0, [])
        wider = plan(cross(fast=(5, 20, 5)), store).to_json()
        assert wider["cells"] == {"total": 60, "reused": 45, "missing": 15}
        assert wider["bytes"] > 0
        assert before == objects(store)


class TestFresh:
    def test_it_computes_everything_again_and_finds_the_same(self, finished: Store) -> None:
        store = copy_store(finished)
        for _ in range(2):
            outcome = run_in_process(cross(), store, fresh=True, cache=ColumnCache(1 << 28))
            assert (outcome.stats.cells_computed, outcome.stats.cells_reused) == (45, 0)
        assert outcome.document()["trials"] == open_study(cross(), finished).document()["trials"]
        kept = objects(finished)
        assert {key: data for key, data in objects(store).items() if key in kept} == kept

    def test_on_an_empty_catalog_its_work_is_kept(self) -> None:
        store = sample_store()
        run_in_process(cross(), store, fresh=True, cache=ColumnCache(1 << 28))
        assert run_in_process(cross(), store, cache=ColumnCache(1 << 28)).stats.cells_computed == 0

    def test_a_stored_result_that_differs_is_a_conflict(self, finished: Store) -> None:
        store = copy_store(finished)
        study = submit(cross(), store).study
        key = segment_key(study.family, block_name(study.name, 0))
        segment = stored_segment(store, study, 0)
        stats = segment.stats.copy()
        stats[1, 5] ^= 16
        put_over(store, study, block_name(study.name, 0), replace(segment, stats=stats))
        before = objects(store)
        with pytest.raises(ResultConflict, match=key):
            run_in_process(cross(), store, fresh=True, cache=ColumnCache(1 << 28))
        assert {name: data for name, data in objects(store).items() if name in before} == before

    def test_it_heals_a_deleted_segment(self, finished: Store) -> None:
        """A segment that a later study reused is gone; fresh work takes its place."""
        store = copy_store(finished)
        wide = cross(fast=(5, 20, 5))
        expected = trials(wide, store)
        study = submit(cross(), store).study
        drop(store, segment_key(study.family, block_name(study.name, 0)))
        with pytest.raises(DataError, match=r"cells have no stored result.*--fresh"):
            trials(wide, store)
        assert expected == trials(wide, store, fresh=True) == trials(wide, store)


class TestTogether:
    def test_two_runs_of_one_study_at_once(self, finished: Store) -> None:
        """Both find the same blocks, both write them, nobody disagrees."""
        store = sample_store()
        gate = threading.Barrier(2)

        def run(_: int) -> list[dict[str, Any]]:
            gate.wait(timeout=30)
            return trials(cross(), store)

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(run, range(2))
        assert first == second == open_study(cross(), finished).document()["trials"]

    def test_digits_name_the_plain_study_beside_its_fresh_twin(self, finished: Store) -> None:
        store = copy_store(finished)
        fresh = run_in_process(cross(), store, fresh=True, cache=ColumnCache(1 << 28)).study
        assert fresh.fresh
        found = open_study(fresh.id[:8], store).study
        assert (found.id, found.fresh) == (fresh.id, False)
        store.delete(study_key(found.name))
        assert open_study(fresh.id[:8], store).study.fresh


class TestRecompute:
    def test_it_gives_the_stored_digests_and_the_books(self, finished: Store) -> None:
        outcome = open_study(cross(), finished)
        runner = BlockRunner(finished, cache=ColumnCache(1 << 28))
        scored = runner.recompute(outcome.study.name, 4, 3)
        cell = outcome.document()["trials"][4]["cells"][3]
        assert cell["fingerprint"] == {"ledger": scored.result.ledger, "stats": scored.result.stats}
        assert cell["equity_end"] == scored.run.equity[-1] / 1e6
        assert len(scored.run.trades) == cell["metrics"]["full"]["trades"]

    def test_it_is_loud_when_they_differ(self, finished: Store) -> None:
        store = copy_store(finished)
        study = submit(cross(), store).study
        segment = stored_segment(store, study, 0)
        ledger = segment.ledger.copy()
        ledger[0, 0] ^= 1
        put_over(store, study, block_name(study.name, 0), replace(segment, ledger=ledger))
        trial, position = divmod(cells_of(study, study.blocks[0])[0], 5)
        with pytest.raises(ResultConflict, match=rf"trial {trial} .*computed again, the cell gives"):
            BlockRunner(store, cache=ColumnCache(1 << 28)).recompute(study, trial, position)


class TestNoData:
    def test_a_cell_without_bars_has_a_verdict_and_no_numbers(self) -> None:
        """FB was listed in 2012, GOOG in 2004."""
        spec = cross(start="2003-01-02", end="2004-12-31", fast=(5, 5), slow=(20, 20))
        (trial,) = trials(spec, sample_store())
        verdicts = {cell["instrument"]: cell["verdict"] for cell in trial["cells"]}
        assert verdicts == {"AAPL": None, "FB": "no_data", "GOOG": None, "IBM": None, "MSFT": None}
        cell = trial["cells"][1]
        assert (cell["equity_end"], cell["fingerprint"]["ledger"], cell["verdict"]) == (None, None, "no_data")
        assert cell["counts"] == {"sessions_before_first_bar": 504}
        assert {value for bucket in cell["metrics"].values() for value in bucket.values()} == {None}
        assert trial["objective"] is not None

    def test_alone_it_is_an_error(self) -> None:
        spec = cross(start="2003-01-02", end="2004-12-31", fast=(5, 5), slow=(20, 20), tickers=("FB",))
        with pytest.raises(DataError, match="no instrument of the study has a bar"):
            trials(spec, sample_store())


class TestStops:
    """Whatever ends a study early names its place and keeps what is finished."""

    def big(self) -> dict[str, Any]:
        return cross(fast=(1, 20), slow=(31, 50), tickers=("AAPL", "IBM", "MSFT"))

    def test_an_error_of_a_cell_names_trial_and_instrument(self) -> None:
        """Nine thousand million of cash overflow 2**53 micro-units with the first profit."""
        spec = cross(fast=(5, 5), slow=(20, 20), cash=9_000_000_000, tickers=("AAPL", "IBM"))
        store = sample_store()
        with pytest.raises(
            CapacityError, match=r'^trial 0 \{"fast":5,"slow":20\}, instrument [A-Z]+, ledger'
        ) as caught:
            trials(spec, store)
        assert caught.value.exit_code == 6

    @pytest.mark.slow
    def test_finished_blocks_are_kept(self) -> None:
        store = sample_store()
        seen: list[ProgressEvent] = []

        def stop(event: ProgressEvent) -> None:
            seen.append(event)
            if event.cells_done > 0:
                raise KeyboardInterrupt

        with pytest.raises(
            Interrupted, match=r"stopped by the user with \d+ of \d+ blocks unfinished; hint: run the same"
        ):
            run_in_process(self.big(), store, progress=stop, cache=ColumnCache(1 << 28))
        submission = submit(self.big(), store)
        assert 0 < len(submission.waiting) < len(submission.study.blocks)
        outcome = run_in_process(self.big(), store, cache=ColumnCache(1 << 28))
        assert outcome.stats.cells_computed == submission.cells_waiting
        assert outcome.document()["trials"] == trials(self.big(), sample_store())

    def test_a_real_ctrl_c(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """SIGINT while the threads compute, from outside as a terminal sends it."""
        store = sample_store()
        asked, sent = threading.Event(), threading.Event()
        run_block = BlockRunner.run_block

        def held(runner: BlockRunner, study: Any, block: int) -> BlockReport:
            assert block == 0 or sent.wait(60), "nobody sent the signal"
            return run_block(runner, study, block)

        def send() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            sent.set()

        def interrupt(event: ProgressEvent) -> None:
            if event.cells_done and not asked.is_set():
                asked.set()
                threading.Timer(0.01, send).start()

        monkeypatch.setattr(BlockRunner, "run_block", held)
        with pytest.raises(Interrupted):
            run_in_process(self.big(), store, progress=interrupt, threads=2, cache=ColumnCache(1 << 28))
        study = submit(self.big(), store).study
        assert Catalog(store).finished_blocks(study)

    def test_a_study_that_is_not_finished_has_no_results(self, finished: Store) -> None:
        store = copy_store(finished)
        study = submit(cross(), store).study
        store.delete(segment_key(study.family, block_name(study.name, 0)))
        with pytest.raises(DataError, match="cells have no stored result"):
            open_study(study.id, store)
        with pytest.raises(UsageError, match="no such study"):
            open_study(cross(cash=7), store)

    def test_a_damaged_segment_stops_the_study(self, finished: Store) -> None:
        store = copy_store(finished)
        study = submit(cross(), store).study
        key = segment_key(study.family, block_name(study.name, 0))
        store.put(key, store.get(key)[:-20])
        with pytest.raises(DataError, match=f"^{key}: result segment cannot be read"):
            trials(cross(), store)

    def test_a_damaged_record_stops_the_study(self, finished: Store) -> None:
        store = copy_store(finished)
        key = study_key(submit(cross(), store).study.name)
        store.put(key, store.get(key).replace(b"0", b"1", 1))
        with pytest.raises(DataError, match=f"^{key}: study record cannot be read"):
            trials(cross(), store)


def test_an_instrument_that_is_delisted_inside_the_run_is_refused_and_not_ignored() -> None:
    """Its last position would be marked at the last close for ever: refused until settlement is built."""
    store = new_store()
    master = pa.table({"symbol": ["AAPL"], "listed": ["1980-12-12"], "delisted": ["2004-06-01"]})
    ingest_table(store, "main", master, "instruments")
    ingest_table(store, "main", sample_bars().filter(pc.field("symbol") == "AAPL"), "stock_daily",
                 tz="America/New_York", stamp="start")  # fmt: skip
    spec = cross(start="2003-01-02", end="2004-12-31")
    spec["strategy"]["universes"][0]["tickers"] = ["AAPL"]
    with pytest.raises(SpecError, match="delisted on 2004-06-01") as caught:
        run_in_process(spec, store)
    assert caught.value.place == "strategy.universes[0].tickers[0]"
    spec["run"]["end"] = "2004-05-28"
    assert run_in_process(spec, store).stats.cells_computed


@pytest.mark.slow
def test_one_process_with_four_threads_fetches_each_column_once() -> None:
    """Cold, four threads, many blocks: as many column loads as there are columns in the plan."""
    store = sample_store()
    cache = ColumnCache(1 << 28)
    spec = cross(fast=(1, 20), slow=(31, 45))
    submission = submit(spec, store, cache=cache)
    chunks = [chunk.column_key for plan in _plans(spec, store) for chunk in plan.chunks]
    assert len(submission.waiting) > 4
    run_in_process(spec, store, threads=4, cache=cache)
    assert cache.stats().loads == len(set(chunks))


def test_bytes_are_fetched_or_held() -> None:
    """Cold, all that is needed comes over the wire, for planning or for cells; warm, the rest is said to be held."""
    store, cache = sample_store(), ColumnCache(1 << 28)
    early: dict[str, Any] = {"start": "2001-01-02", "end": "2005-12-30"}
    cold = run_in_process(cross(fast=(5, 5), **early), store, cache=cache)
    first = cold.stats.to_json()["bytes"]
    assert first["fetched"] >= first["needed"] > 0 == first["cached"]
    assert "from the cache" not in outcome_text(cold, 3)
    warm = run_in_process(cross(fast=(6, 6), **early), store, cache=cache)
    assert warm.stats.to_json()["bytes"] == {"fetched": 0, "needed": first["needed"], "cached": first["needed"]}
    needed = bytes_text(first["needed"])
    assert f"needed {needed}, of which {needed} from the cache" in outcome_text(warm, 3)
    wider = run_in_process(cross(start="2001-01-02", end="2011-12-30"), store, cache=cache).stats.to_json()["bytes"]
    assert 0 < wider["fetched"] < wider["needed"] == wider["fetched"] + wider["cached"]
    again = run_in_process(cross(start="2001-01-02", end="2011-12-30"), store, cache=cache)
    assert again.stats.to_json()["bytes"] == {"fetched": 0, "needed": 0, "cached": 0}


def _plans(spec: dict[str, Any], store: Store) -> Any:
    return plan(spec, store).reads


def test_the_sample_is_what_these_tests_think() -> None:
    assert TICKERS == ("AAPL", "FB", "GOOG", "IBM", "MSFT")
