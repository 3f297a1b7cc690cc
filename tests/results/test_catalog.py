"""The catalog: found by key whoever computed it; written once; damage and disagreement are loud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from farm.results.catalog import Catalog, block_name
from farm.results.document import FarmStats, document
from farm.results.results import ranking
from farm.results.segment import Segment, encode
from farm.shard.layout import segment_key, study_key
from farm.store.base import Store
from farm.study.block import cut
from farm.study.missing import all_missing
from farm.study.stored import to_bytes
from farm.study.trials import Study
from farm.values.errors import DataError, ResultConflict, UsageError
from tests.study.support import cross, made_up_rows, planned, sample_store


@pytest.fixture
def store() -> Store:
    return sample_store()


@pytest.fixture
def finished(store: Store) -> Iterator[tuple[Catalog, Study]]:
    """A study whose blocks all have made-up rows."""
    catalog = Catalog(store)
    study = catalog.put_study(planned(cross(fast=(1, 40)), store))
    for block in study.blocks:
        assert catalog.put_segment(study, block.index, made_up_rows(study, block.index))
    yield catalog, study


def key_of(study: Study, block: int) -> str:
    return segment_key(study.family, block_name(study.name, block))


def changed(segment: Segment, row: int) -> Segment:
    """The same block with one other result."""
    stats = segment.stats.copy()
    stats[row, 0] ^= 1
    return replace(segment, stats=stats)


def test_results_come_back_in_cell_order(finished: tuple[Catalog, Study], store: Store) -> None:
    catalog, study = finished
    assert len(study.blocks) > 1
    results = Catalog(store).results(study)
    for block in study.blocks:
        rows, cells = made_up_rows(study, block.index), study.cells_of(block)
        assert (results.full[cells] == rows.full).all()
        assert (results.stats[cells] == rows.stats).all()
        for cell, stored in zip(cells, rows.counts, strict=True):
            of_study = dict(study.cell_counts[cell % len(study.cell_instruments)])
            assert json.loads(results.counts[cell]) == json.loads(stored) | of_study
    found = catalog.lookup(study.family, study.keys)
    assert found.count == study.cells
    assert catalog.lookup(study.family, [bytes(32)]).count == 0


def test_the_first_record_decides(finished: tuple[Catalog, Study]) -> None:
    """Who submits again, when the catalog has everything, still gets the blocks of the first submission."""
    catalog, study = finished
    none = cut(all_missing(0, 5), np.ones(5, np.int64))
    again = replace(study, rounds=(replace(study.round, blocks=none, segments=()),))
    assert to_bytes(catalog.put_study(again)) == to_bytes(study)
    assert to_bytes(catalog.read_study(study.id[:12])) == to_bytes(study)
    assert catalog.finished_blocks(study) == frozenset(range(len(study.blocks)))


def test_the_same_rows_twice_are_fine_whoever_wrote_them(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    before = store.get(key_of(study, 0))
    with ThreadPoolExecutor(4) as pool:
        news = list(pool.map(lambda _: Catalog(store).put_segment(study, 0, made_up_rows(study, 0)), range(8)))
    assert not any(news)
    assert before == store.get(key_of(study, 0))


def test_other_rows_for_a_block_are_a_conflict_and_the_stored_ones_stay(finished: tuple[Catalog, Study]) -> None:
    catalog, study = finished
    before = catalog.store.get(key_of(study, 0))
    with pytest.raises(ResultConflict, match=r"trial \d+, instrument [A-Z]+: the stored result differs"):
        catalog.put_segment(study, 0, changed(made_up_rows(study, 0), 3))
    assert before == catalog.store.get(key_of(study, 0))


def test_two_segments_that_disagree_about_a_cell(finished: tuple[Catalog, Study], store: Store) -> None:
    """Every reader of the union compares digests of overlaps."""
    _, study = finished
    rows = made_up_rows(study, 0)
    store.put_if_absent(segment_key(study.family, "other-000000"), encode(rows))
    assert Catalog(store).lookup(study.family, study.keys).count == study.cells
    store.put_if_absent(segment_key(study.family, "zother-000000"), encode(changed(rows, 2)))
    with pytest.raises(ResultConflict, match=rows.key[2].tobytes().hex()):
        Catalog(store).lookup(study.family, study.keys)
    with pytest.raises(ResultConflict):
        Catalog(store).check_overlaps(study)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "stranger"])
def test_a_damaged_segment_is_named(finished: tuple[Catalog, Study], store: Store, damage: str) -> None:
    _, study = finished
    key = key_of(study, 1)
    data = store.get(key)
    middle = bytearray(data)
    middle[len(data) // 2] ^= 4
    store.put(key, {"flip": bytes(middle), "cut": data[:-9], "empty": b"", "stranger": b"PAR1" * 99}[damage])
    with pytest.raises(DataError, match=f"^{key}: result segment"):
        Catalog(store).results(study)
    with pytest.raises(DataError, match=f"^{key}: result segment"):
        Catalog(store).lookup(study.family, study.keys)


def damage(store: Store, key: str) -> None:
    store.put(key, store.get(key)[:-9])


def test_a_damaged_segment_stops_who_needs_it_and_nobody_else(finished: tuple[Catalog, Study], store: Store) -> None:
    """The record of its study tells which cells it held."""
    _, study = finished
    damage(store, key_of(study, 1))
    others = planned(cross(fast=(41, 45)), store)
    assert others.family == study.family
    assert Catalog(store).lookup(study.family, others.keys).count == 0
    intact = [study.keys[cell] for cell in study.cells_of(study.blocks[0])]
    assert Catalog(store).lookup(study.family, intact).count == len(intact)
    lost = study.keys[study.cells_of(study.blocks[1])[0]]
    with pytest.raises(DataError, match=f"^{key_of(study, 1)}: result segment .*--fresh, or delete this object"):
        Catalog(store).lookup(study.family, [*others.keys, lost])
    store.delete(study_key(study.name))  # now nobody knows what it held
    with pytest.raises(DataError, match=f"^{key_of(study, 1)}: result segment"):
        Catalog(store).lookup(study.family, others.keys)
    assert Catalog(store).lookup(study.family, intact).count == len(intact)


def test_cells_of_a_damaged_segment_may_lie_in_another(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    expected = Catalog(store).results(study)
    store.put_if_absent(segment_key(study.family, "copy-000000"), store.get(key_of(study, 1)))
    damage(store, key_of(study, 1))
    assert (expected.stats == Catalog(store).results(study).stats).all()


def test_a_damaged_segment_in_the_way_is_named(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    damage(store, key_of(study, 1))
    with pytest.raises(DataError, match=f"^{key_of(study, 1)}: .*hint: delete this object and run the same command"):
        Catalog(store).put_segment(study, 1, made_up_rows(study, 1))


def test_strangers_in_the_folder_of_a_family_are_ignored(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    expected = Catalog(store).results(study)
    names = ("notes.txt", "x.parquet", "copy-12.parquet", "copy-000000.parquet.part", "old/copy-000000.parquet")
    for name in (*names, f"{study.name}-000000.parquet.bak"):
        store.put(f"results/{study.family}/{name}", b"not ours")
    catalog = Catalog(store)
    assert catalog.lookup(study.family, [bytes(32), *study.keys]).count == study.cells
    assert (expected.stats == catalog.results(study).stats).all()
    assert catalog.finished_blocks(study) == frozenset(range(len(study.blocks)))


def test_a_missing_segment_waits_again_and_is_no_result(finished: tuple[Catalog, Study], store: Store) -> None:
    _, study = finished
    store.delete(key_of(study, 1))
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
    store.put_if_absent(segment_key(first.family, "copy-000000"), store.get(key_of(first, 0)))
    store.delete(key_of(first, 0))
    assert (expected.stats == Catalog(store).results(wider).stats).all()


def test_unknown_studies_are_refused(finished: tuple[Catalog, Study]) -> None:
    catalog, study = finished
    with pytest.raises(UsageError, match="no such study: nothing-here"):
        catalog.read_study("nothing-here")
    with pytest.raises(UsageError, match="no such study"):
        catalog.read_study(study.id[:4])


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
    assert [key.hex() for key in study.keys] == [cell["key"] for cell in cells]
    sharpe = results.metrics.index("sharpe")
    assert results.full[:, sharpe].tolist() == [cell["metrics"]["full"]["sharpe"] for cell in cells]
    medians = np.median(results.column("sharpe", "is"), axis=1)
    assert medians.tolist() == [trial["objective"] for trial in made["trials"]]
    assert [study.trial_key(trial) for trial in range(study.trials)] == [trial["key"] for trial in made["trials"]]
