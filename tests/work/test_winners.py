"""``proof: "winners"``: the last block of a study, of its ten best trials, and what is shown of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.local_ray import run_on_workers
from farm import api
from farm.columns.cache import ColumnCache
from farm.results.catalog import Catalog, block_name
from farm.results.leases import read_leases
from farm.results.overview import study_status
from farm.shard.layout import extent_key, segment_key
from farm.store.base import Store
from farm.store.open import open_store
from farm.store.wrap import Around
from farm.study.proof import WINNERS
from farm.study.trials import Study
from farm.values.errors import DataError, Interrupted, PermissionDenied, ResultConflict
from farm.values.settings import FarmSettings
from farm.work.explain import explain_cell
from farm.work.run import BlockReport, BlockRunner, Outcome, open_study, plan, run_in_process, submit
from tests.study.support import copy_store, cross, drop, put_over, sample_store, stored_segment


def spec(proof: str = "winners", **changes: Any) -> dict[str, Any]:
    """Twenty trials on five instruments; of FB there is no bar in the first window."""
    made = cross(fast=(5, 20, 5), slow=(30, 70, 10), **changes)
    made["study"] |= {"proof": proof, "metrics": ["cagr", "fees"]}
    return made


def run(store: Store, proof: str = "winners", **options: Any) -> Outcome:
    return run_in_process(spec(proof), store, cache=ColumnCache(1 << 28), **options)


def last_key(study: Study) -> str:
    return segment_key(study.family, block_name(study.name, len(study.blocks)))


def objects(store: Store) -> dict[str, bytes]:
    return {meta.key: store.get(meta.key) for meta in store.list("")}


def shown(outcome: Outcome) -> Any:
    return outcome.document()["trials"]


def proven(outcome: Outcome) -> set[int]:
    """Trials whose fingerprint is shown."""
    return {at for at, trial in enumerate(shown(outcome)) if trial["fingerprint"] is not None}


def best(outcome: Outcome) -> set[int]:
    assert outcome.ranking is not None
    return set(outcome.ranking.trials[:WINNERS].tolist())


class Sealed(Around):
    """A store that may be read."""

    def _do(self, verb: str, key: str, action: Callable[[], Any], *, sent: int = 0, expected: int = 0) -> Any:
        if verb in ("put", "put_if_absent", "delete"):
            raise PermissionDenied("access denied", place=key)
        return action()


@pytest.fixture(scope="module")
def finished() -> Store:
    store = sample_store()
    run(store)
    return store


@pytest.fixture
def store(finished: Store) -> Store:
    return copy_store(finished)


@pytest.fixture
def lacking(store: Store) -> Store:
    """Ended by a kill before the last block."""
    drop(store, last_key(open_study(spec(), store).study))
    return store


def test_the_digests_of_the_ten_best_and_of_the_sample(store: Store) -> None:
    """They are those of the same study with all digests; everything else is null."""
    outcome, whole = run(store), shown(run(sample_store(), "all"))
    study = outcome.study
    assert study.proof is not None and study.cells == 100
    sample = set(study.proof.tolist())
    assert len(best(outcome)) == 10 and proven(outcome) == best(outcome)
    for number, (trial, expected) in enumerate(zip(shown(outcome), whole, strict=True)):
        is_best = number in best(outcome)
        assert trial["fingerprint"] == (expected["fingerprint"] if is_best else None)
        for place, (cell, other) in enumerate(zip(trial["cells"], expected["cells"], strict=True)):
            has = is_best or number * 5 + place in sample
            assert cell == {**other, "fingerprint": other["fingerprint"] if has else dict.fromkeys(("ledger", "stats"))}
    assert [row["fingerprint"] is not None for row in outcome.leaders(12)] == [True] * 10 + [False] * 2
    assert outcome.table().column("stats").null_count == sum(
        cell["fingerprint"]["stats"] is None for trial in shown(outcome) for cell in trial["cells"]
    )


def test_it_is_one_more_segment_and_found_by_the_next(finished: Store, store: Store) -> None:
    first = run(sample_store())
    again = run(store)
    assert objects(store) == objects(finished), "nothing is written twice"
    assert again.document()["trials"] == shown(first) == shown(open_study(spec(), store))
    assert first.stats.cells_computed == 100 and "prove" in first.stats.seconds
    assert (again.stats.cells_computed, again.stats.cells_reused) == (0, 100) and "prove" not in again.stats.seconds
    assert {last_key(first.study), extent_key(last_key(first.study))} <= objects(store).keys()


def test_results_that_are_read_piece_by_piece(finished: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = shown(open_study(spec(), finished))
    monkeypatch.setattr("farm.results.results.RESULTS_BYTES_MAX", 0)
    assert shown(open_study(spec(), finished)) == expected


def test_without_it_they_are_null_and_nothing_fails(finished: Store, lacking: Store) -> None:
    """Who only looks makes nothing; who runs the study where nobody may write gets the same; who may, makes it."""
    before = objects(lacking)
    looked = open_study(spec(), lacking)
    assert proven(looked) == set() and shown(looked) == shown(run(Sealed(lacking)))
    assert objects(lacking) == before
    done = run(lacking)
    assert (done.stats.cells_computed, done.stats.cells_reused) == (0, 100)
    assert done.stats.bytes_needed > 0 and proven(done) == best(done)
    key = last_key(done.study)
    assert lacking.get(key) == finished.get(key) and shown(done) == shown(open_study(spec(), finished))


def test_the_driver_of_workers_makes_it(finished: Store, lacking: Store, tmp_path: Path) -> None:
    """Killed before it did: the next finds nothing for workers to do, and the last block for itself."""
    on_disk = open_store(str(tmp_path / "store"))
    for key, data in objects(lacking).items():
        on_disk.put(key, data)
    outcome = run_on_workers(spec(), on_disk.url, workers=2)
    assert (outcome.stats.cells_computed, outcome.stats.workers) == (0, 2) and "prove" in outcome.stats.seconds
    key = last_key(outcome.study)
    assert on_disk.get(key) == finished.get(key) and shown(outcome) == shown(open_study(spec(), finished))


def test_half_of_it_is_not_there(finished: Store, store: Store) -> None:
    """Killed between the values and the extent."""
    key = last_key(open_study(spec(), store).study)
    store.delete(extent_key(key))
    assert proven(open_study(spec(), store)) == set()
    assert proven(run(store)) == best(run(store))
    assert store.get(key) == finished.get(key)


@pytest.mark.parametrize("column", ["values", "equity_end_micro"])
def test_values_that_differ_when_they_are_computed_again(lacking: Store, column: str) -> None:
    """Metrics that no other segment has, changed in a block of the study: said, and no last block is stored."""
    study = open_study(spec(), lacking).study
    segment = stored_segment(lacking, study, 0)
    changed = np.copy(getattr(segment, column))
    changed[..., 0] = np.nextafter(changed[..., 0], 9) if column == "values" else changed[..., 0] + 1
    put_over(lacking, study, block_name(study.name, 0), replace(segment, **{column: changed}))
    with pytest.raises(ResultConflict, match=r"computed again, cell [0-9a-f]{64} differs from what is stored: "):
        run(lacking)
    assert last_key(study) not in objects(lacking)


def test_a_fresh_study_has_its_own_and_compares(store: Store) -> None:
    outcome = run(store)
    fresh = run(store, fresh=True)
    assert fresh.study.fresh and shown(fresh) == shown(outcome)
    assert last_key(fresh.study) in objects(store)
    key = last_key(fresh.study)
    like = stored_last(store, fresh)
    stats = like.stats.copy()
    stats[3, 3] ^= 1
    put_over(store, fresh.study, block_name(fresh.study.name, len(fresh.study.blocks)), replace(like, stats=stats))
    with pytest.raises(ResultConflict, match=key):
        run(store, fresh=True)
    put_over(store, fresh.study, block_name(fresh.study.name, len(fresh.study.blocks)), like)
    put_over(
        store, outcome.study, block_name(outcome.study.name, len(outcome.study.blocks)), replace(like, stats=stats)
    )
    with pytest.raises(ResultConflict, match=last_key(outcome.study)):
        run(store, fresh=True)


def test_a_fresh_study_alone_compares_with_what_it_stored_before() -> None:
    store = sample_store()
    first = run(store, fresh=True)
    assert shown(run(store, fresh=True)) == shown(first)
    like = stored_last(store, first)
    ledger = like.ledger.copy()
    ledger[7, 0] ^= 1
    put_over(store, first.study, block_name(first.study.name, len(first.study.blocks)), replace(like, ledger=ledger))
    with pytest.raises(ResultConflict, match=r"trial \d+, instrument [A-Z]+: the stored result differs"):
        run(store, fresh=True)


def stored_last(store: Store, outcome: Outcome) -> Any:
    """The segment of the winners, as it is made."""
    assert outcome.ranking is not None
    block = outcome.study.winners_block(outcome.ranking.trials)
    assert block is not None
    made: list[Any] = []

    def keep(segment: Any) -> None:
        made.append(segment)

    runner = BlockRunner(store, cache=ColumnCache(1 << 28))
    assert not runner.run_winners(outcome.study, block, keep).is_new
    return made[0]


def test_ctrl_c_loses_nothing(finished: Store, lacking: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT while the winners are computed, from outside as a terminal sends it."""
    before = objects(lacking)
    sent = threading.Event()
    run_winners = BlockRunner.run_winners

    def held(runner: BlockRunner, *args: Any) -> BlockReport:
        threading.Timer(0.05, lambda: (os.kill(os.getpid(), signal.SIGINT), sent.set())).start()
        assert sent.wait(60), "nobody sent the signal"
        while not runner._stopped.wait(0.01):
            pass
        return run_winners(runner, *args)

    with monkeypatch.context() as patched:
        patched.setattr(BlockRunner, "run_winners", held)
        with pytest.raises(Interrupted, match=r"1 of 1 blocks unfinished.*run the same command"):
            run(lacking)
    assert objects(lacking) == before
    assert shown(run(lacking)) == shown(open_study(spec(), finished))


def test_it_counts_as_no_block_that_waits_or_is_foreign(store: Store) -> None:
    study = open_study(spec(), store).study
    blocks = len(study.blocks)
    assert Catalog(store).finished_blocks(study) == frozenset(range(blocks))
    (status,) = study_status(store, study.id)["studies"]
    assert (status["blocks"], status["waiting"]) == ({"total": blocks, "finished": blocks}, [])
    assert status["cells"] == {"total": 100, "done": 100}
    assert plan(spec(), store).to_json()["blocks"] == {"total": blocks, "finished": blocks}
    drop(store, segment_key(study.family, block_name(study.name, 0)))
    assert submit(spec(), store).waiting == (0,)
    (status,) = study_status(store, study.id)["studies"]
    assert (status["blocks"]["finished"], status["waiting"]) == (blocks - 1, [0])


def test_who_made_it(store: Store) -> None:
    outcome = open_study(spec(), store)
    study, block = outcome.study, len(outcome.study.blocks)
    leases = [lease for lease in read_leases(store, study.name) if block in lease.blocks]
    assert [(lease.blocks, lease.cells, lease.outcome) for lease in leases] == [((block,), 50, "done")]
    winner = outcome.leaders(1)[0]["trial"]
    said = explain_cell(f"{winner}/AAPL", store, study=study.id, settings=FarmSettings().cache)
    assert said["result"]["stats"] == shown(outcome)[winner]["cells"][0]["fingerprint"]["stats"] is not None
    assert said["computed"]["segment"] == last_key(study)
    assert [lease["blocks"] for lease in said["computed"]["leases"]] == [[block]]


def test_what_was_reused_has_them_already() -> None:
    """A study over cells that all have digests computes nothing, not even its winners; the other way round, all."""
    store = sample_store()
    whole = run(store, "all")
    outcome = run(store)
    assert outcome.stats.cells_computed == 0 and len(outcome.study.blocks) == 0
    assert proven(outcome) == best(outcome) and last_key(outcome.study) not in objects(store)
    assert shown(outcome)[min(best(outcome))] == shown(whole)[min(best(outcome))]
    proof = outcome.study.proof
    assert proof is not None
    other = sample_store()
    first = run(other)
    missing = run(other, "all").stats.cells_computed
    has = {number * 5 + place for number in best(first) for place in range(5)} | set(proof.tolist())
    assert missing == 100 - len(has), "those of the last block are found by others too"


@pytest.mark.parametrize("is_extent", [False, True])
def test_damage_is_named(store: Store, is_extent: bool) -> None:
    """To this study, and to one that wants digests of its cells; who deletes the object gets it again."""
    study = open_study(spec(), store).study
    key = extent_key(last_key(study)) if is_extent else last_key(study)
    whole = store.get(key)
    store.put(key, whole[:-9])
    for fails in (lambda: run(store), lambda: open_study(spec(), store), lambda: run(copy_store(store), "all")):
        with pytest.raises(DataError, match=key):
            fails()
    others = cross(fast=(25, 25), slow=(30, 70, 10))
    assert run_in_process(others, store, cache=ColumnCache(1 << 28)).stats.cells_computed == 25, "it has none of these"
    healed = copy_store(store)
    assert shown(run(healed, fresh=True)) == shown(run(healed)) == shown(open_study(spec(), healed))
    store.delete(key)
    run(store)
    assert store.get(key) == whole


def test_without_an_objective_nobody_is_best() -> None:
    store = sample_store()
    made = spec(objective=None)
    outcome = run_in_process(made, store, cache=ColumnCache(1 << 28))
    assert outcome.study.proof is not None and proven(outcome) == set()
    assert last_key(outcome.study) not in objects(store)


def test_fewer_than_ten_trials_and_cells_without_bars() -> None:
    """FB was listed in 2012: a cell that is no run has a stats digest and no ledger."""
    store = sample_store()
    made = spec(start="2003-01-02", end="2004-12-31")
    made["strategy"]["params"]["fast"] = {"int": [5, 5]}
    outcome = run_in_process(made, store, cache=ColumnCache(1 << 28))
    assert proven(outcome) == set(range(5))
    cells = [trial["cells"][1] for trial in shown(outcome)]
    assert {cell["verdict"] for cell in cells} == {"no_data"}
    assert all(cell["fingerprint"]["ledger"] is None and cell["fingerprint"]["stats"] for cell in cells)


def test_the_report_and_clean(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "open_store", lambda url, settings: store)
    settings = FarmSettings()
    outcome = api.results(spec(), settings)
    assert outcome.ranking is not None
    assert api.report(spec(), settings, tmp_path / "report.html")
    fingerprint = shown(outcome)[int(outcome.ranking.trials[0])]["fingerprint"]
    assert fingerprint in (tmp_path / "report.html").read_text()
    before = {key: data for key, data in objects(store).items() if key.startswith("results/")}
    assert api.clean(settings, older="0h").studies == 1
    assert {key: data for key, data in objects(store).items() if key.startswith("results/")} == before
