"""What ingest takes: files and tables as people have them, and what becomes of their rows."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from farm.shard import sample
from farm.shard.dataset import Dataset
from farm.shard.ingest import ingest_sample, ingest_table
from farm.shard.snapshot import read_head
from farm.store.memory import MemoryStore
from farm.store.open import open_store
from farm.values.errors import DataError, UsageError
from farm.values.units import iso
from tests.shard.generators import day, put_bars, walk
from tests.shard.support import GOOD, NEW_YORK, bars, listing, one_bar, put, rows_of


def test_a_csv_file_becomes_rows(tmp_path: Path) -> None:
    store = MemoryStore()
    summary = put(store, bars(tmp_path, GOOD))
    assert (
        summary.rows_added,
        summary.rows_skipped,
        summary.symbols,
        summary.instruments_created,
        summary.gaps,
    ) == (3, 0, ("AAA",), ("AAA",), 0)
    rows = rows_of(store, "AAA")
    assert [iso(int(one)) for one in rows["day"]] == ["2020-01-02", "2020-01-03", "2020-01-06"]
    assert rows.prices("close").tolist() == [10.5, 11.25, 11.0]
    instrument = Dataset(store, read_head(store, "main")).instruments()["AAA"]
    assert (
        instrument.type,
        instrument.calendar,
        instrument.currency,
        instrument.lot_micro,
        instrument.multiplier,
        instrument.delisted_day,
    ) == ("stock", "XNYS", "USD", 1_000_000, 1, None)


def test_csv_as_people_write_it(tmp_path: Path) -> None:
    """Byte order mark, blanks, upper case, quotes, blank lines, semicolons, gzip, a ticker that looks like a value."""
    store = MemoryStore()
    text = "\ufeffDate; Open ;High;Low;Close;Volume\r\n\r\n"
    text += '2020-01-02 ;10; 11;9;"10.5";100\r\n2020-01-03;1e1;11.;9;10;1e3\r\n'
    path = tmp_path / "NA.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    summary = put(store, str(path), mapping={"ts": "Date"}, symbol="NA")
    assert summary.symbols == ("NA",)
    assert rows_of(store, "NA").prices("close").tolist() == [10.5, 10.0]
    assert rows_of(store, "NA")["volume"].tolist() == [100, 1000]
    plain = put(store, bars(tmp_path, ["2020-01-02,TRUE,10,11,9,10,1"]))
    assert plain.symbols == ("TRUE",)


def test_sorting_on_request(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, bars(tmp_path, GOOD[::-1]), sort=True)
    assert rows_of(store, "AAA").prices("close").tolist() == [10.5, 11.25, 11.0]
    with pytest.raises(DataError, match=r"duplicate row"):
        put(store, bars(tmp_path, [*GOOD[::-1], GOOD[1]]), sort=True)


def test_symbols_may_be_interleaved(tmp_path: Path) -> None:
    store = MemoryStore()
    lines = [line.replace("AAA", symbol) for line in GOOD for symbol in ("ZZ", "B")]
    assert put(store, bars(tmp_path, lines)).rows_added == 6
    assert rows_of(store, "B").prices("close").tolist() == [10.5, 11.25, 11.0]


@pytest.mark.parametrize(
    ("stamps", "tz", "stamp", "sessions"),
    [
        (["2020-01-02", "20200103"], NEW_YORK, "start", ["2020-01-02", "2020-01-03"]),
        (["2020-01-02", "2020-01-03"], NEW_YORK, "end", ["2020-01-02", "2020-01-03"]),
        # The close, in local time, in UTC and with an offset.
        (["2020-01-02T16:00:00", "2020-01-03 16:00"], NEW_YORK, "end", ["2020-01-02", "2020-01-03"]),
        (["2020-01-02T21:00:00Z", "2020-01-03T21:00:00Z"], NEW_YORK, "end", ["2020-01-02", "2020-01-03"]),
        (["2020-01-03T03:30:00+01:00", "2020-01-03T21:59:59+01:00"], NEW_YORK, "end", ["2020-01-02", "2020-01-03"]),
        (["2020-01-02T15:30:00+01:00", "2020-01-03T21:59:59+01:00"], NEW_YORK, "start", ["2020-01-02", "2020-01-03"]),
        # Midnight in UTC is the evening before in New York.
        (["2020-01-03T00:00:00Z", "2020-01-04T00:00:00Z"], NEW_YORK, "end", ["2020-01-02", "2020-01-03"]),
        # Local midnight: the start of the day it names, or the end of the day before.
        (["2020-01-02T00:00:00", "2020-01-03T00:00:00"], NEW_YORK, "start", ["2020-01-02", "2020-01-03"]),
        (["2020-01-03T00:00:00", "2020-01-04T00:00:00"], NEW_YORK, "end", ["2020-01-02", "2020-01-03"]),
        # Summer time: 04:00 UTC is midnight in New York in July, 05:00 in January.
        (["2020-07-03T04:00:00Z", "2020-01-03T05:00:00Z"], NEW_YORK, "end", ["2020-01-02", "2020-07-02"]),
    ],
)
def test_the_stamp_names_the_session(
    tmp_path: Path, stamps: list[str], tz: str, stamp: str, sessions: list[str]
) -> None:
    lines = [f"{text},AAA,10,11,9,10,1" for text in stamps]
    store = MemoryStore()
    put(store, bars(tmp_path, lines), tz=tz, stamp=stamp, sort=True)
    assert sessions == [iso(int(one)) for one in rows_of(store, "AAA")["day"]]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_typed_timestamps_mean_what_text_means(unit: str, zone: str | None) -> None:
    """16:00 in New York, as a naive timestamp or an instant under whatever zone."""
    hour = 16 if zone is None else 21
    stamps = pa.array([day("2020-01-02") * 86_400 + hour * 3600], pa.int64()).cast(pa.timestamp("s", zone))
    table = pa.table({"symbol": ["A"], "ts": stamps.cast(pa.timestamp(unit, zone)), **one_bar()})
    store = MemoryStore()
    ingest_table(store, "main", table, "stock_daily", tz=NEW_YORK, stamp="end")
    assert [day("2020-01-02")] == rows_of(store, "A")["day"].tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"close": pa.array([10.25], pa.float32())},
        {"close": pa.array(["10.25"])},
        {"close": pa.array(["10.25"]).dictionary_encode()},
        {"close": pa.array(["10.25"], pa.large_string())},
        {"close": pa.array([10.25]).cast(pa.decimal128(10, 4))},
        {"volume": pa.array([7.0])},
        {"volume": pa.array([7], pa.uint16())},
        {"ts": pa.array([20200102])},
        {"ts": pa.array([day("2020-01-02")], pa.int32()).cast(pa.date32()).cast(pa.date64())},
        {"symbol": pa.array(["A"]).dictionary_encode()},
    ],
)
def test_types_that_mean_the_same_give_the_same_snapshot(change: dict[str, Any]) -> None:
    plain = {"symbol": ["A"], "ts": ["2020-01-02"], **one_bar()}
    one, two = (
        ingest_table(MemoryStore(), "main", pa.table(columns), "stock_daily", tz="UTC", stamp="start")
        for columns in (plain, plain | change)
    )
    assert one.snapshot == two.snapshot


def test_a_pandas_frame_is_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"symbol": ["A"], "ts": pandas.to_datetime(["2020-01-02"]), **one_bar()})
    store = MemoryStore()
    assert ingest_table(store, "main", frame, "stock_daily", tz=NEW_YORK, stamp="start").rows_added == 1
    with pytest.raises(UsageError, match=r"not a table: list"):
        ingest_table(store, "main", [1], "stock_daily", tz=NEW_YORK, stamp="start")


def test_rounding_takes_a_flag_and_is_noted(tmp_path: Path) -> None:
    url = bars(tmp_path, ["2020-01-02,AAA,10,11,9,10.1234567891,5", "2020-01-02,BBB,10,11,9,10.25,5"])
    store = MemoryStore()
    summary = put(store, url, price_scale=6)
    assert summary.notes == ("prices rounded to 6 decimals in 1 symbol",)
    assert rows_of(store, "AAA").prices("close").tolist() == [10.123457]
    assert rows_of(store, "BBB").prices("close").tolist() == [10.25]
    with pytest.raises(DataError, match=r"--price-scale 6"):
        put(MemoryStore(), url)
    with pytest.raises(DataError, match=r"low 0.001 is zero once rounded to 2 decimals"):
        put(MemoryStore(), bars(tmp_path, ["2020-01-02,AAA,10,11,0.001,10,5"]), price_scale=2)


def test_odd_bars_are_counted_not_refused(tmp_path: Path) -> None:
    summary = put(MemoryStore(), bars(tmp_path, [*GOOD, "2020-01-07,AAA,12,11,9,8,5", "2020-01-10,AAA,10,11,9,10,5"]))
    assert summary.notes == ("open or close outside low .. high in 1 bar",)
    assert summary.gaps == 2, "2020-01-08 and 09"


def test_identical_rows_are_skipped_and_the_same_content_adds_no_ref(tmp_path: Path) -> None:
    store = MemoryStore()
    first = put(store, bars(tmp_path, GOOD[:2]))
    second = put(store, bars(tmp_path, GOOD))
    assert (second.rows_added, second.rows_skipped) == (1, 2)
    before = listing(store)
    third = put(store, bars(tmp_path, GOOD), codec="zstd", row_group_rows=1)
    assert (0, 3, second.snapshot, 0, 0) == (
        third.rows_added,
        third.rows_skipped,
        third.snapshot,
        third.shards,
        third.bytes,
    )
    assert before == listing(store)
    assert first.snapshot != second.snapshot
    assert rows_of(store, "AAA").prices("close").tolist() == [10.5, 11.25, 11.0]


def test_a_day_between_stored_days_can_be_added(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, bars(tmp_path, [GOOD[0], GOOD[2]]))
    assert put(store, bars(tmp_path, [GOOD[1]])).rows_added == 1
    assert rows_of(store, "AAA").prices("close").tolist() == [10.5, 11.25, 11.0]


def test_the_sample(tmp_path: Path) -> None:
    """Five stocks, 12,154 raw bars, three splits, no dividends; a second time it adds nothing."""
    pytest.importorskip("bokeh_sampledata")
    store = MemoryStore()
    summary = ingest_sample(store, "main")
    assert (
        summary.rows_added,
        summary.symbols,
        summary.instruments_created,
        summary.gaps,
        summary.notes,
    ) == (12_154 + 3, sample.SAMPLE_SYMBOLS, sample.SAMPLE_SYMBOLS, 0, ())
    splits = {name: rows_of(store, name, "splits", ("numerator",)) for name in sample.SAMPLE_SYMBOLS}
    assert {name: rows["numerator"].tolist() for name, rows in splits.items()} == {
        "AAPL": [2, 2],
        "FB": [],
        "GOOG": [],
        "IBM": [],
        "MSFT": [2],
    }
    assert [iso(int(one)) for one in splits["AAPL"]["ex_day"]] == ["2000-06-21", "2005-02-28"]
    assert read_head(store, "main").of_kind("dividends") == ()
    aapl = rows_of(store, "AAPL")
    assert (aapl.prices("close")[0], aapl.prices("close")[-1]) == (130.31, 430.47)
    assert ingest_sample(store, "main", codec="zstd").to_json()["rows_added"] + 1 == 1
    other = ingest_sample(MemoryStore(), "x", row_group_rows=500, codec="none")
    assert other.rows_added == summary.rows_added


def test_the_shipped_splits_name_their_source() -> None:
    table = sample.sample_splits()
    assert table.num_rows == 3
    assert all("split" in text for text in table["source"].to_pylist())


def test_the_sample_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh_sampledata", None)
    with pytest.raises(UsageError, match=r"pip install bokeh_sampledata"):
        ingest_sample(MemoryStore(), "main")


def test_reading_needs_neither_pandas_nor_the_calendar_library(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    put_bars(store, walk("A", "2010-01-01", 5))
    program = """
        import sys
        from farm.columns.cache import ColumnCache
        from farm.shard.dataset import Dataset
        from farm.shard.reader import read_rows
        from farm.shard.snapshot import read_head
        from farm.store.open import open_store
        store = open_store(sys.argv[1])
        dataset = Dataset(store, read_head(store, "main"))
        assert 5 == len(read_rows(dataset, ColumnCache(0), "stock_daily", "A", 0, 20000, ["close"]))
        assert dataset.calendar("24x7").is_session(dataset.calendar("24x7").day).all()
        assert not {"pandas", "exchange_calendars", "fsspec", "s3fs"}.intersection(sys.modules)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "store")],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def test_numbers_keep_their_bits(tmp_path: Path) -> None:
    """Every price with up to 8 decimals comes back as the float64 that its text names."""
    rng = np.random.default_rng(7)
    ticks, decimals = rng.integers(1, 10**12, 500).tolist(), rng.integers(3, 9, 500).tolist()
    values = [tick / 10**scale for tick, scale in zip(ticks, decimals, strict=True) if tick / 10**scale < 10**7]
    start = day("2015-01-01")
    lines = [f"{iso(start + at)},X,{value!r},{value!r},{value!r},{value!r},1" for at, value in enumerate(values)]
    store = MemoryStore()
    put(store, bars(tmp_path, lines), calendar="24x7")
    assert values == rows_of(store, "X").prices("close").tolist()
