"""Segment and extent: written one after the other, by versions that differ, with more or less of each cell."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace

import numpy as np
import pytest

from farm.results.catalog import Catalog, block_name
from farm.results.document import FarmStats, document
from farm.results.overview import store_status
from farm.results.segment import Segment
from farm.shard.layout import extent_key, segment_key, study_key
from farm.show import status_text
from farm.store.base import Store
from farm.study.block import Block
from farm.study.stored import to_bytes
from farm.study.trials import Study
from farm.values.errors import DataError, OtherFormat, ResultConflict
from tests.results.stored import changed, key_of, metrics_only, same
from tests.study.support import cross, drop, made_up_rows, planned, put_over, stored_segment


class TestCrash:
    """Between segment and extent: the block is not there, nothing is lost, and it is written to its end later."""

    def test_a_segment_without_its_extent_is_not_there(self, finished: tuple[Catalog, Study], store: Store) -> None:
        catalog, study = finished
        expected = catalog.results(study)
        store.delete(extent_key(key_of(study, 0)))
        assert 0 not in Catalog(store).finished_blocks(study)
        assert Catalog(store).lookup_study(study).missing.count == study.blocks[0].cells
        with pytest.raises(DataError, match="cells have no stored result"):
            Catalog(store).results(study)
        assert Catalog(store).put_segment(study, 0, made_up_rows(study, 0))
        assert same(expected, Catalog(store).results(study))
        assert made_up_rows(study, 0).content == stored_segment(store, study, 0).content

    def test_it_is_compared_when_it_is_written_again(self, finished: tuple[Catalog, Study], store: Store) -> None:
        _, study = finished
        store.delete(extent_key(key_of(study, 0)))
        with pytest.raises(ResultConflict, match=r"the stored result differs"):
            Catalog(store).put_segment(study, 0, changed(made_up_rows(study, 0), 3))

    def test_an_extent_whose_segment_was_deleted_is_not_there(
        self, finished: tuple[Catalog, Study], store: Store
    ) -> None:
        _, study = finished
        store.delete(key_of(study, 0))
        assert 0 not in Catalog(store).finished_blocks(study)
        assert Catalog(store).lookup_study(study).missing.count == study.blocks[0].cells
        with pytest.raises(ResultConflict, match=r"\.extent: the extent of this block names other values"):
            Catalog(store).put_segment(study, 0, changed(made_up_rows(study, 0), 3))

    @pytest.mark.parametrize("kind", ["axes", "parquet", "extent"])
    def test_the_writer_dies_before_each_object(self, store: Store, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed before it writes axes, segment or extent, the next writer ends what it began."""
        study = planned(cross(fast=(1, 4)), store)
        rows = made_up_rows(study, 0)
        put = type(store).put_if_absent

        def die(self: Store, key: str, data: bytes) -> None:
            if f"/{kind}/" in key or key.endswith(f".{kind}"):
                raise KeyboardInterrupt
            put(self, key, data)

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "put_if_absent", die)
            with pytest.raises(KeyboardInterrupt):
                Catalog(store).put_segment(study, 0, rows)
        assert not Catalog(store).finished_blocks(study)
        assert Catalog(store).lookup_study(study).count == 0
        assert Catalog(store).put_segment(study, 0, rows)
        assert Catalog(store).lookup_study(study).count == study.blocks[0].cells

    def test_axes_are_written_once_by_a_process(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        study = planned(cross(fast=(1, 40)), store)
        keys: list[str] = []
        lock = threading.Lock()
        put = type(store).put_if_absent

        def note(self: Store, key: str, data: bytes) -> None:
            with lock:
                keys.append(key)
            put(self, key, data)

        monkeypatch.setattr(type(store), "put_if_absent", note)
        catalog = Catalog(store)
        for block in study.blocks:
            catalog.put_segment(study, block.index, made_up_rows(study, block.index))
        assert sum("/axes/" in key for key in keys) == 1 and "/axes/" in keys[0]
        assert len(keys) == 1 + 2 * len(study.blocks)


class TestPartialMetrics:
    """A stored cell that lacks a wanted metric or digest counts as missing, and agrees in what both have."""

    @pytest.fixture
    def some(self, store: Store) -> tuple[Store, Study, Segment]:
        study = planned(cross(fast=(1, 4)), store)
        assert len(study.blocks) == 1
        rows = made_up_rows(study, 0)
        put_over(store, study, "some-000000", metrics_only(rows, ("sharpe", "max_dd", "trades")))
        catalog = Catalog(store)
        catalog._put_axes(study)
        return store, study, rows

    def test_what_lacks_a_wanted_metric_is_missing(self, some: tuple[Store, Study, Segment]) -> None:
        store, study, _ = some
        catalog = Catalog(store)
        assert catalog.lookup(study.family, study.axes, ("sharpe", "trades"), study.buckets).missing.count == 0
        assert catalog.lookup(study.family, study.axes, ("sharpe", "cagr"), ("full",)).count == 0
        assert catalog.lookup(study.family, study.axes, ("sharpe",), ("fold 1",)).count == 0

    def test_what_lacks_a_wanted_digest_is_missing(self, some: tuple[Store, Study, Segment]) -> None:
        store, study, rows = some
        catalog = Catalog(store)
        assert catalog.lookup(study.family, study.axes, ("sharpe",), ("full",), None).count == 0
        wanted = np.array([3, 7])
        found = catalog.lookup(study.family, study.axes, ("sharpe",), ("full",), wanted)
        assert np.flatnonzero(found.missing.rows[found.missing.groups]).tolist() == [3, 7]
        proof = np.zeros(rows.shape, np.bool_)
        proof.ravel()[[3, 8]] = True
        proven = replace(rows, proof=proof, ledger=rows.ledger[[3, 8]], stats=rows.stats[[3, 8]])
        put_over(store, study, "proven-000000", proven)
        found = catalog.lookup(study.family, study.axes, ("sharpe",), ("full",), wanted)
        assert np.flatnonzero(found.missing.rows[found.missing.groups]).tolist() == [7]

    @pytest.mark.parametrize("bucket", [0, 2])
    def test_computed_again_it_agrees_in_what_both_have(self, some: tuple[Store, Study, Segment], bucket: int) -> None:
        store, study, rows = some
        put_over(store, study, "again-000000", rows)
        Catalog(store).check_overlaps(study)
        values = rows.values.copy()
        values[bucket, rows.metrics.index("cagr"), 1, 2] += 1.0  # of which only one has a value
        put_over(store, study, "else-000000", metrics_only(replace(rows, values=values), ("cagr", "vol")))
        with pytest.raises(ResultConflict, match=rf"{rows.buckets[bucket]}\.cagr .* and "):
            Catalog(store).check_overlaps(study)
        drop(store, segment_key(study.family, "again-000000"))
        Catalog(store).check_overlaps(study)

    def test_results_are_put_together(self, some: tuple[Store, Study, Segment]) -> None:
        """Metrics from one segment and digests from another."""
        store, study, rows = some

        metrics = ("sharpe", "max_dd", "trades")
        proof = np.zeros(rows.shape, np.bool_)
        proof.ravel()[[3, 8]] = True
        put_over(
            store,
            study,
            "proven-000000",
            replace(metrics_only(rows, metrics), proof=proof, ledger=rows.ledger[[3, 8]], stats=rows.stats[[3, 8]]),
        )
        wanting = replace(study, metrics=metrics)
        vars(wanting)["proof"] = np.array([3, 8])
        cells = Catalog(store).results(wanting).cells(range(study.trials))
        assert np.flatnonzero(cells.columns["proof"]).tolist() == [3, 8]
        assert (cells.columns["stats"].reshape(-1, 32)[[3, 8]] == rows.stats[[3, 8]]).all()
        assert (cells.metric("sharpe", "is") == rows.values[1, rows.metrics.index("sharpe")]).all()
        assert np.isnan(cells.metric("cagr")).all()
        put_over(store, study, "whole-000000", rows)  # whose other digests are no business of this study
        assert any("whole" in patch.key for patch in Catalog(store).find_own(wanting).patches)
        made = document(Catalog(store).results(wanting), None, FarmStats(20, 0, 20))
        digests = [cell["fingerprint"]["stats"] for trial in made["trials"] for cell in trial["cells"]]
        assert [at for at, digest in enumerate(digests) if digest] == [3, 8]
        assert [trial["fingerprint"] for trial in made["trials"]] == [None] * study.trials
        assert set(made["trials"][0]["cells"][0]["metrics"]["full"]) == {"sharpe", "max_dd", "trades"}

    def test_the_digests_of_winners_are_shown_once_they_are_made(self, some: tuple[Store, Study, Segment]) -> None:
        """A last block beside those of the study, of cells whose metrics are stored already."""
        store, study, rows = some
        metrics = ("sharpe", "max_dd", "trades")
        wanting = replace(study, metrics=metrics)
        vars(wanting)["proof"] = np.empty(0, np.int64)
        winners = Block(len(study.blocks), np.array([2, 5], np.int32), np.arange(5, dtype=np.int32), {})
        assert Catalog(store).find_winners(wanting, winners) is None
        proof = np.zeros(rows.shape, np.bool_)
        proof[winners.trials] = True
        cells = np.flatnonzero(proof)
        proven = replace(metrics_only(rows, metrics), proof=proof, ledger=rows.ledger[cells], stats=rows.stats[cells])
        put_over(store, study, block_name(study.name, winners.index), proven)
        digests = Catalog(store).find_winners(wanting, winners)
        assert digests is not None
        shown = Catalog(store).results(wanting).with_winners(winners.trials.astype(np.int64), digests)
        fingerprints = shown.fingerprints(np.arange(study.trials))
        assert [at for at, one in enumerate(fingerprints) if one is not None] == [2, 5]
        assert fingerprints[5] == hashlib.sha256(rows.stats.reshape(*rows.shape, 32)[5].tobytes()).hexdigest()
        assert shown.fingerprints([7, 5, 5]) == [None, fingerprints[5], fingerprints[5]]
        assert Catalog(store).results(wanting).fingerprints([5]) == [None]


class TestOtherVersions:
    """What an older or a newer version wrote is neither damage nor ours: named where it is in the way, else skipped."""

    @pytest.fixture
    def newer(self, finished: tuple[Catalog, Study], store: Store, monkeypatch: pytest.MonkeyPatch) -> Study:
        """The study, of which one extent is of a newer version."""
        _, study = finished
        store.delete(extent_key(key_of(study, 1)))
        with monkeypatch.context() as patch:
            patch.setattr("farm.results.extent.EXTENT_FORMAT", "farm-extent-2")
            Catalog(store).put_segment(study, 1, made_up_rows(study, 1))
        return study

    def test_its_cells_are_missing(self, newer: Study, store: Store) -> None:
        assert Catalog(store).lookup_study(newer).missing.count == newer.blocks[1].cells

    def test_who_reads_it_is_told(self, newer: Study, store: Store) -> None:
        match = rf"^{extent_key(key_of(newer, 1))}: extent of a result segment of a newer format: farm-extent-2"
        with pytest.raises(OtherFormat, match=match):
            Catalog(store).results(newer)
        with pytest.raises(OtherFormat, match=match):
            Catalog(store).put_segment(newer, 1, made_up_rows(newer, 1))

    def test_status_skips_and_counts_records(self, finished: tuple[Catalog, Study], store: Store) -> None:
        _, study = finished
        for at, found in enumerate(("farm-study-0", "farm-study-99")):
            record = to_bytes(study)
            store.put(study_key(f"{at}" * 64), found.encode() + record[record.index(b"\n") :])
        status = store_status(store)
        assert ([one["study"] for one in status["studies"]], status["other_formats"]) == ([study.id], 2)
        assert "passed over: 2 studies, recorded by an older or a newer version" in status_text(status)
