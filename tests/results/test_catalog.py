"""The catalog: found by axes whoever computed it; written once; damage and disagreement are loud."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from farm.results.catalog import Catalog
from farm.results.document import FarmStats, document
from farm.results.extent import StoredAxes
from farm.results.results import ranking
from farm.results.segment import DIGESTS, encode
from farm.shard.layout import axes_key, extent_key, segment_key, study_key
from farm.store.base import Store
from farm.study.block import cut
from farm.study.missing import all_missing
from farm.study.stored import to_bytes
from farm.study.trials import Study
from farm.values.errors import DataError, OtherFormat, ResultConflict, UsageError
from tests.results.stored import changed, copy_as, damage, key_of, same
from tests.study.rows import cell_keys, cells_of
from tests.study.support import cross, drop, made_up_rows, planned, put_over


def test_results_come_back_in_cell_order(finished: tuple[Catalog, Study], store: Store) -> None:
    catalog, study = finished
    assert len(study.blocks) > 1
    results = Catalog(store).results(study)
    cells = results.cells(range(study.trials))
    width = len(study.cell_instruments)
    for block in study.blocks:
        rows, places = made_up_rows(study, block.index), cells_of(study, block)
        for at, bucket in enumerate(rows.buckets):
            for name, values in zip(rows.metrics, rows.values[at], strict=True):
                assert (results.column(name, bucket).ravel()[places] == values.ravel()).all()
        assert (cells.columns["stats"].reshape(-1, 32)[places] == rows.stats).all()
        stored = rows.counts[rows.count_names.index("unfilled")].ravel().tolist() if rows.count_names else [0]
        for cell, count in zip(places, stored, strict=True):
            of_study = dict(study.cell_counts[cell % width])
            assert cells.counts(*divmod(cell, width)) == {**({"unfilled": count} if count else {}), **of_study}
    assert catalog.lookup_study(study).count == study.cells
    others = planned(cross(fast=(41, 45)), store)
    assert catalog.lookup_study(others).count == 0


@pytest.mark.parametrize("trials", [[0], [3, 1], [39, 0, 7]])
def test_some_trials_are_those_rows_of_all(
    finished: tuple[Catalog, Study], store: Store, trials: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept in memory or read for each ask, whatever the order of trials."""
    _, study = finished
    everything = Catalog(store).results(study).cells(range(study.trials))
    for budget in (0, 1 << 30):
        monkeypatch.setattr("farm.results.results.RESULTS_BYTES_MAX", budget)
        some = Catalog(store).results(study).cells(trials)
        assert set(everything.columns) == set(some.columns)
        for name, values in everything.columns.items():
            assert values[trials].tobytes() == some.columns[name].tobytes(), name


def test_beyond_the_budget_nothing_is_kept(
    finished: tuple[Catalog, Study], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study = finished
    kept = Catalog(store).results(study)
    monkeypatch.setattr("farm.results.results.RESULTS_BYTES_MAX", 0)
    results = Catalog(store).results(study)
    assert not results.fits and not results._kept
    assert same(kept, results)
    merits = [ranking(one, metric="sharpe", bucket="is", over="median", direction="max") for one in (kept, results)]
    assert (merits[0].trials == merits[1].trials).all()
    assert document(kept, merits[0], FarmStats(1, 0, 1)) == document(results, merits[1], FarmStats(1, 0, 1))


def test_the_first_record_decides(finished: tuple[Catalog, Study]) -> None:
    """Who submits again, when the catalog has everything, still gets the blocks of the first submission."""
    catalog, study = finished
    none = cut(all_missing(0, 5), np.ones(5, np.int64))
    again = replace(study, rounds=(replace(study.round, blocks=none, segments=()),))
    assert to_bytes(catalog.put_study(again)) == to_bytes(study)
    assert to_bytes(catalog.read_study(study.id[:12])) == to_bytes(study)
    assert catalog.finished_blocks(study) == frozenset(range(len(study.blocks)))


def test_the_same_values_twice_are_fine_whoever_wrote_them(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    before = [store.get(key_of(study, 0)), store.get(extent_key(key_of(study, 0)))]
    with ThreadPoolExecutor(4) as pool:
        news = list(pool.map(lambda _: Catalog(store).put_segment(study, 0, made_up_rows(study, 0)), range(8)))
    assert not any(news)
    assert before == [store.get(key_of(study, 0)), store.get(extent_key(key_of(study, 0)))]


def test_other_values_for_a_block_are_a_conflict_and_the_stored_ones_stay(finished: tuple[Catalog, Study]) -> None:
    catalog, study = finished
    before = catalog.store.get(key_of(study, 0))
    with pytest.raises(ResultConflict, match=r"trial \d+, instrument [A-Z]+: the stored result differs"):
        catalog.put_segment(study, 0, changed(made_up_rows(study, 0), 3))
    assert before == catalog.store.get(key_of(study, 0))


def test_two_segments_that_disagree_about_a_cell(finished: tuple[Catalog, Study], store: Store) -> None:
    """Look-ups read no values; who reads results, or computes them afresh, compares what several segments hold."""
    _, study = finished
    rows = made_up_rows(study, 0)
    put_over(store, study, "other-000000", rows)
    assert Catalog(store).lookup_study(study).count == study.cells
    Catalog(store).check_overlaps(study)
    put_over(store, study, "zother-000000", changed(rows, 2))
    trial, subject = cells_of(study, study.blocks[0])[2] // 5, cells_of(study, study.blocks[0])[2] % 5
    with pytest.raises(ResultConflict, match=study.axes.cell_key(trial, subject).hex()) as caught:
        Catalog(store).check_overlaps(study)
    assert "zother-000000" in caught.value.place
    other = (segment_key(study.family, "zother-000000"),)
    wider = replace(study, rounds=(replace(study.round, segments=other),))
    with pytest.raises(ResultConflict, match=r"two different results: stats"):
        Catalog(store).results(wider)
    Catalog(store).results(study)  # it has its own segments, and needs no others


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "stranger"])
def test_a_damaged_segment_is_named(finished: tuple[Catalog, Study], store: Store, damage: str) -> None:
    _, study = finished
    for key in (key_of(study, 1), extent_key(key_of(study, 1))):
        data = store.get(key)
        middle = bytearray(data)
        middle[len(data) // 2] ^= 4
        store.put(key, {"flip": bytes(middle), "cut": data[:-9], "empty": b"", "stranger": b"PAR1" * 99}[damage])
        with pytest.raises(DataError, match=f"^{key}: (extent of a )?result segment"):
            Catalog(store).results(study)
    with pytest.raises(DataError, match=f"^{key}: extent of a result segment"):
        Catalog(store).lookup_study(study)


@pytest.mark.parametrize("what", ["extent", "axes", "no axes"])
def test_a_damaged_extent_stops_who_needs_it_and_nobody_else(
    finished: tuple[Catalog, Study], store: Store, what: str
) -> None:
    """The record of its study tells which cells it named."""
    _, study = finished
    broken = extent_key(key_of(study, 1))
    if what != "extent":
        broken = axes_key(study.family, StoredAxes(study.axes, study.table).digest)
    if what == "no axes":
        store.delete(broken)
    else:
        damage(store, broken)
    others = planned(cross(fast=(41, 45)), store)
    assert others.family == study.family
    assert Catalog(store).lookup_study(others).count == 0
    with pytest.raises(DataError, match=f"^{broken}: .*hint: run with --fresh"):
        Catalog(store).lookup_study(study)
    store.delete(study_key(study.name))  # now nobody knows what it held
    with pytest.raises(DataError, match=f"^{broken}: "):
        Catalog(store).lookup_study(others)


def test_cells_beside_a_damaged_extent_are_found(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    damage(store, extent_key(key_of(study, 1)))
    block = study.blocks[0]
    intact = study.axes_of(block.trials, block.positions)
    assert Catalog(store).lookup(study.family, intact).count == block.cells
    store.delete(study_key(study.name))
    assert Catalog(store).lookup(study.family, intact).count == block.cells


@pytest.mark.parametrize("suffix", ["parquet", "extent"])
def test_cells_of_a_damaged_segment_may_lie_in_another(
    finished: tuple[Catalog, Study], store: Store, suffix: str
) -> None:
    _, study = finished
    expected = Catalog(store).results(study)
    copy_as(store, study, 1, "copy-000000")
    damage(store, key_of(study, 1).replace("parquet", suffix))
    assert same(expected, Catalog(store).results(study))


def test_a_segment_that_its_extent_does_not_mean_is_no_result(finished: tuple[Catalog, Study], store: Store) -> None:
    """Intact, under the right name, and not what was written there."""
    _, study = finished
    store.put(key_of(study, 0), encode(changed(made_up_rows(study, 0), 3)))
    with pytest.raises(DataError, match="is not the one that its extent means"):
        Catalog(store).results(study)


def test_a_damaged_segment_in_the_way_is_named(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    damage(store, key_of(study, 1))
    with pytest.raises(DataError, match=f"^{key_of(study, 1)}: .*hint: delete this object and run the same command"):
        Catalog(store).put_segment(study, 1, made_up_rows(study, 1))


def test_strangers_in_the_folder_of_a_family_are_ignored(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    expected = Catalog(store).results(study)
    names = ("notes.txt", "x.parquet", "copy-12.parquet", "copy-000000.parquet.part", "old/copy-000000.parquet",
             "copy-000000.extent", "axes/notes.arrow", "axes/copy-000000.parquet")  # fmt: skip
    for name in (*names, f"{study.name}-000000.parquet.bak"):
        store.put(f"results/{study.family}/{name}", b"not ours")
    catalog = Catalog(store)
    assert catalog.lookup_study(study).count == study.cells
    assert same(expected, catalog.results(study))
    assert catalog.finished_blocks(study) == frozenset(range(len(study.blocks)))


def test_a_missing_segment_waits_again_and_is_no_result(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    drop(store, key_of(study, 1))
    catalog = Catalog(store)
    assert 1 not in catalog.finished_blocks(study)
    with pytest.raises(DataError, match="cells have no stored result"):
        catalog.results(study)


def test_reused_cells_may_move(finished: tuple[Catalog, Study], store: Store) -> None:
    """A segment that a study reused is deleted; another one that holds the cells takes its place."""
    _, first = finished
    wider = Catalog(store).put_study(planned(cross(fast=(1, 41)), store))
    for block in wider.blocks:
        Catalog(store).put_segment(wider, block.index, made_up_rows(wider, block.index))
    expected = Catalog(store).results(wider)
    copy_as(store, first, 0, "copy-000000")
    drop(store, key_of(first, 0))
    assert same(expected, Catalog(store).results(wider))


def test_one_cell_is_found_by_its_axes(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    everything = Catalog(store).results(study).cells(range(study.trials))
    found = Catalog(store).find_cell(study, 17, 3)
    assert found is not None
    for name in DIGESTS:
        assert everything.digest(name, 17, 3) == found.cells.digest(name, 0, 0)
    assert everything.counts(17, 3) == found.cells.counts(0, 0)
    assert everything.assumptions(17, 3) == found.cells.assumptions(0, 0)
    assert Catalog(store).find_cell(planned(cross(fast=(41, 45)), store), 0, 0) is None


def test_unknown_studies_are_refused(finished: tuple[Catalog, Study]) -> None:
    catalog, study = finished
    with pytest.raises(UsageError, match="no such study: nothing-here"):
        catalog.read_study("nothing-here")
    with pytest.raises(UsageError, match="no such study"):
        catalog.read_study(study.id[:4])


@pytest.mark.parametrize(("found", "age"), [("farm-study-0", "an older"), ("farm-study-12", "a newer")])
def test_a_record_of_another_format_is_named(
    finished: tuple[Catalog, Study], store: Store, found: str, age: str
) -> None:
    """Before anything else of it is believed: its body is read by its own version only."""
    catalog, study = finished
    record = to_bytes(study)
    store.put(study_key(study.name), found.encode() + record[record.index(b"\n") :])
    with pytest.raises(OtherFormat, match=f"study record of {age} format: {found}, and this version reads farm-study"):
        catalog.read_study(study.name)


def test_a_damaged_record_stops_everything(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    key = study_key(study.name)
    store.put(key, store.get(key)[:-1])
    with pytest.raises(DataError, match=f"^{key}: study record cannot be read"):
        Catalog(store).find_study(study.name)


def test_the_document_has_every_cell_in_order(finished: tuple[Catalog, Study]) -> None:
    catalog, study = finished
    results = catalog.results(study)
    order = ranking(results, metric="sharpe", bucket="is", over="median", direction="max")
    made = document(results, order, FarmStats(study.cells, 0, study.cells))
    cells = [cell for trial in made["trials"] for cell in trial["cells"]]
    assert [key.hex() for key in cell_keys(study)] == [cell["key"] for cell in cells]
    sharpe = results.column("sharpe").ravel().tolist()
    assert sharpe == [cell["metrics"]["full"]["sharpe"] for cell in cells]
    medians = np.median(results.column("sharpe", "is"), axis=1)
    assert medians.tolist() == [trial["objective"] for trial in made["trials"]]
    assert [study.trial_key(trial) for trial in range(study.trials)] == [trial["key"] for trial in made["trials"]]


def test_one_cell_is_read_from_another_segment_when_one_is_damaged(
    finished: tuple[Catalog, Study], store: Store
) -> None:
    _, study = finished
    trial, subject = divmod(cells_of(study, study.blocks[1])[0], len(study.cell_instruments))
    copy_as(store, study, 1, "copy-000000")
    damage(store, key_of(study, 1))
    found = Catalog(store).find_cell(study, trial, subject)
    assert found is not None and found.segment.endswith("copy-000000.parquet")
    damage(store, found.segment)
    with pytest.raises(DataError, match="result segment cannot be read"):
        Catalog(store).find_cell(study, trial, subject)
