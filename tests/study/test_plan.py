"""Planning on real bars: trials, keys, read sets, blocks, and what is refused. Nothing is run here."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from unittest import mock

import pyarrow as pa
import pytest

from farm.results.catalog import Catalog
from farm.shard.ingest import ingest_table
from farm.spec.parse import load_study
from farm.store.base import Store
from farm.study import stored
from farm.study.stored import from_bytes, to_bytes
from farm.values.canon import canonical_json
from farm.values.errors import DataError, OtherFormat, SpecError
from tests.study.rows import cell_keys, cells_of
from tests.study.support import TICKERS, cross, made_up_rows, planned, sample_store, without_params


def cells(spec: dict, store) -> dict:
    """Return (parameters, instrument) -> cell key."""
    study = planned(spec, store)
    names = itertools.product((study.params_text(trial) for trial in range(study.trials)), study.cell_instruments)
    return dict(zip(names, cell_keys(study), strict=True))


def more_bars(symbols: tuple[str, ...], day: str) -> pa.Table:
    """One more bar for each symbol."""
    row = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100}
    return pa.Table.from_pylist([{"symbol": symbol, "ts": day, **row} for symbol in symbols])


def append(store: Store, symbols: tuple[str, ...], day: str) -> None:
    ingest_table(store, "main", more_bars(symbols, day), kind="stock_daily", tz="America/New_York", stamp="start")


class TestTrials:
    def test_cells_are_trials_times_instruments(self) -> None:
        study = planned(cross(), sample_store())
        assert (study.trials, study.cells, study.instruments) == (9, 45, TICKERS)
        assert [study.params(trial) for trial in (0, 1, 8)] == [
            {"fast": 5, "slow": 20},
            {"fast": 5, "slow": 30},
            {"fast": 15, "slow": 40},
        ]

    def test_without_each_a_trial_is_one_cell(self) -> None:
        study = planned(cross(each=False), sample_store())
        assert (study.cells, study.instruments, study.cell_instruments) == (9, None, (None,))

    def test_without_parameters_there_is_one_trial(self) -> None:
        study = planned(without_params(cross(), fast=5, slow=20), sample_store())
        assert (study.trials, study.params(0), study.cells) == (1, {}, 5)

    def test_trials_that_differ_in_unused_parameters_are_one(self) -> None:
        """A parameter that the strategy does not use makes no new trial; its repetitions are counted."""
        spec = cross()
        spec["strategy"]["params"]["unused"] = {"choice": [1, 2, 3]}
        study = planned(spec, sample_store())
        assert (study.trials, study.duplicates) == (9, 18)
        assert {study.params(trial)["unused"] for trial in range(9)} == {1}

    def test_constraints_are_counted(self) -> None:
        spec = cross(slow=(10, 40, 10))
        spec["strategy"]["constraints"] = [{"lt": ["$fast", "$slow"]}]
        study = planned(spec, sample_store())
        assert (study.trials, study.excluded) == (10, 2)


class TestKeys:
    def test_key_is_the_hash_of_its_parts(self) -> None:
        """The words of axes.py, spelled out: anybody can compute a key from the record."""
        study = planned(cross(), sample_store())
        read = study.read(4, 2)
        window = ["2011-01-03", "2012-12-31"]
        parts = ["read", study.family, study.split, "GOOG", window, read.read_set, read.sessions]
        of_read = hashlib.sha256(canonical_json(parts)).digest()
        of_trial = hashlib.sha256(b'{"fast":10,"slow":30}').digest()
        assert parts == study.read_parts(read)
        assert hashlib.sha256(of_read + of_trial).digest() == study.cell_key(4, 2) == cell_keys(study)[4 * 5 + 2]
        reads = study.axes.read[study.round.history[4]].tobytes()
        assert hashlib.sha256(of_trial + reads).hexdigest() == study.trial_key(4)

    def test_keys_are_distinct(self) -> None:
        study = planned(cross(), sample_store())
        assert len(set(cell_keys(study))) == study.cells

    @pytest.mark.parametrize("each", [True, False])
    @pytest.mark.parametrize("indicator", ["sma", "ema"])
    def test_a_trial_alone_has_the_keys_it_has_in_a_study(self, each: bool, indicator: str) -> None:
        """Also on its own instrument alone, and although other trials need a longer history."""
        store = sample_store()
        many = cells(cross(each=each, indicator=indicator), store)
        one = cells(cross(each=each, indicator=indicator, fast=(10, 10), slow=(20, 20)), store)
        assert one.items() <= many.items()
        if each:
            single = cells(cross(indicator=indicator, fast=(10, 10), slow=(20, 20), tickers=("IBM",)), store)
            assert single.items() <= many.items()

    @pytest.mark.parametrize(
        "changes",
        [
            {"cash": 99999},
            {"costs": {"bps": 11}},
            {"end": "2012-12-28"},
            {"start": "2011-01-04"},
            {"split": {"mode": "chronological", "is": 0.6}},
            {"split": None},
            {"benchmark": "IBM"},
        ],
    )
    def test_what_changes_a_result_changes_every_key(self, changes: dict) -> None:
        store = sample_store()
        assert not set(cells(cross(), store).values()) & set(cells(cross(**changes), store).values())

    def test_names_and_objectives_change_no_key(self) -> None:
        store = sample_store()
        other = cross(objective={"min": "max_dd", "over": "max"}) | {"name": "other", "note": "x"}
        assert cells(cross(), store) == cells(other, store)

    @pytest.mark.parametrize("day", ["2013-03-04", "2014-01-02"])
    def test_rows_appended_after_the_end_change_no_key(self, day: str) -> None:
        store = sample_store()
        spec = cross(end="2013-02-28")
        before = cells(spec, store)
        append(store, TICKERS, day)
        assert before == cells(spec, store)

    def test_rows_appended_in_the_month_of_the_end_change_no_key(self) -> None:
        """The month of the end is read in part: it is digested in part."""
        store = sample_store()
        spec = cross(end="2013-03-01", benchmark="MSFT")
        before = cells(spec, store)
        append(store, TICKERS, "2013-03-04")
        assert before == cells(spec, store)

    def test_rows_appended_inside_the_window_change_the_keys_of_their_instrument(self) -> None:
        store = sample_store()
        spec = cross(end="2013-03-04")
        before = cells(spec, store)
        append(store, ("IBM",), "2013-03-04")
        after = cells(spec, store)
        assert {name for (_, name), key in before.items() if key != after[_, name]} == {"IBM"}


class TestBlocks:
    def test_blocks_are_the_same_each_time_and_cover_all(self) -> None:
        store = sample_store()
        study = planned(cross(), store)
        assert study.blocks == planned(cross(), store).blocks
        assert to_bytes(study) == to_bytes(planned(cross(), store))
        covered = sorted(cell for block in study.blocks for cell in cells_of(study, block))
        assert covered == list(range(study.cells))
        assert all(sum(block.needs.values()) > 0 for block in study.blocks)

    def test_the_record_reads_back(self) -> None:
        study = planned(cross(benchmark="IBM"), sample_store())
        data = to_bytes(study)
        again = from_bytes(data, "key")
        assert to_bytes(again) == data
        assert (again.id, cell_keys(again), again.spec) == (study.id, cell_keys(study), study.spec)
        assert again.blocks == study.blocks and again.coverage == study.coverage

    def test_a_damaged_record_is_named(self) -> None:
        data = to_bytes(planned(cross(), sample_store()))
        flipped = [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in range(len(data) // 4, len(data), 97)]
        for damaged in (data[:-9], data[: len(data) // 2], b"", *flipped):
            with pytest.raises(DataError, match=r"^studies/s/study\.json: study record cannot be read"):
                from_bytes(damaged, "studies/s/study.json")

    def test_other_formats_are_named(self) -> None:
        older = b'{"sha256":"' + bytes(64)
        with pytest.raises(OtherFormat, match=r"^key: study record of an older format: farm-study-1"):
            from_bytes(older, "key")
        with mock.patch.object(stored, "FORMAT", "farm-study-3"):
            newer = to_bytes(planned(cross(), sample_store()))
        with pytest.raises(OtherFormat, match=r"^key: study record of a newer format: farm-study-3"):
            from_bytes(newer, "key")

    def test_only_missing_cells_are_cut(self) -> None:
        """A grid that overlaps a finished one by 99 % has blocks over exactly the missing 1 %."""
        store = sample_store()
        catalog = Catalog(store)
        first = catalog.put_study(planned(cross(fast=(1, 10), slow=(20, 29)), store))
        for block in first.blocks:
            catalog.put_segment(first, block.index, made_up_rows(first, block.index))
        second = planned(cross(fast=(1, 10), slow=(20, 30)), store)
        computed = {second.params_text(trial) for block in second.blocks for trial in block.trials.tolist()}
        assert {f'{{"fast":{fast},"slow":30}}' for fast in range(1, 11)} == computed
        assert sum(block.cells for block in second.blocks) == 50 == second.cells - first.cells
        assert planned(cross(fast=(1, 10), slow=(20, 30)), store, fresh=True).blocks.cells.sum() == second.cells

    def test_an_equal_submission_has_an_equal_id(self) -> None:
        store = sample_store()
        study = planned(cross(), store)
        catalog = Catalog(store)
        catalog.put_study(study)
        for block in study.blocks:
            catalog.put_segment(study, block.index, made_up_rows(study, block.index))
        again = planned(cross() | {"name": "renamed"}, store)
        assert (again.id, len(again.blocks)) == (study.id, 0)
        assert planned(cross(cash=5), store).id != study.id
        assert replace(study, fresh=True).name == study.id + "-fresh"


class TestRefusals:
    def test_unknown_ticker_names_its_place_and_close_names(self) -> None:
        spec = cross(tickers=("IBM", "GOOGL"))
        with pytest.raises(SpecError, match=r"^strategy\.universes\[0\]\.tickers\[1\]: unknown ticker: 'GOOGL'.*GOOG"):
            planned(spec, sample_store())

    def test_unknown_benchmark(self) -> None:
        with pytest.raises(SpecError, match=r"^run\.benchmark: unknown ticker: 'SPY'"):
            planned(cross(benchmark="SPY"), sample_store())

    @pytest.mark.parametrize(("start", "end"), [("2012-12-29", "2012-12-30"), ("2012-10-29", "2012-10-30")])
    def test_a_window_without_a_session(self, start: str, end: str) -> None:
        """A week-end, and the two days of hurricane Sandy."""
        with pytest.raises(SpecError, match=r"^run\.start, run\.end: the window has no session of XNYS"):
            planned(cross(start=start, end=end, split=None), sample_store())

    @pytest.mark.parametrize(("start", "end"), [("1990-01-02", "1991-12-31"), ("2013-03-04", "2013-12-31")])
    def test_a_window_without_a_bar(self, start: str, end: str) -> None:
        with pytest.raises(DataError, match=r"no instrument of the study has a bar"):
            planned(cross(start=start, end=end), sample_store())

    def test_a_window_inside_a_month_with_bars_around_it(self) -> None:
        """FB's and GOOG's months hold bars on both sides of nothing here; only the rows tell."""
        study = planned(cross(start="2012-06-05", end="2012-06-07", split=None), sample_store())
        assert study.round.reads.bars.tolist() == [3] * len(TICKERS)

    def test_an_instrument_without_bars_is_known_before_running(self) -> None:
        study = planned(cross(start="2003-01-02", end="2003-12-31"), sample_store())
        empty = [name for name, bars in zip(study.subjects, study.round.reads.bars, strict=True) if not bars]
        assert empty == ["FB", "GOOG"]

    def test_a_bucket_without_sessions(self) -> None:
        split = {"mode": "chronological", "is": 0.5, "embargo": 300}
        with pytest.raises(SpecError, match=r"^study\.split: the in-sample bucket is empty"):
            planned(cross(split=split), sample_store())


def test_specs_of_these_tests_are_valid() -> None:
    assert load_study(cross()).each == "u"
