"""What ingest takes, what it refuses and how it says so, and what it leaves behind when it fails."""

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
import pyarrow.parquet as pq
import pytest

from farm.columns.cache import ColumnCache
from farm.shard import sample
from farm.shard.dataset import Dataset
from farm.shard.ingest import IngestSummary, ingest_file, ingest_sample, ingest_table
from farm.shard.reader import Rows, read_rows
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.store.open import open_store
from farm.values.errors import DataError, FarmError, SpecError, StoreError, UsageError
from farm.values.units import NS_PER_HOUR, iso
from tests.shard.generators import Meddling, day, put_bars, walk

HEADER = "day,ticker,o,h,l,c,v"
MAP = {"ts": "day", "symbol": "ticker", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
GOOD = ["2020-01-02,AAA,10,11,9,10.5,100", "2020-01-03,AAA,10.5,12,10,11.25,200", "2020-01-06,AAA,11,11,11,11,0"]
NEW_YORK = "America/New_York"


def bars(folder: Path, lines: list[str], header: str = HEADER, name: str = "bars.csv") -> str:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


def put(store: Store, url: str, kind: str = "stock_daily", **options: Any) -> IngestSummary:
    flags: dict[str, Any] = {"mapping": MAP, "tz": NEW_YORK, "stamp": "start"} if kind == "stock_daily" else {}
    return ingest_file(store, "main", url, kind, **(flags | options))


def rows_of(store: Store, symbol: str, kind: str = "stock_daily", columns: Any = ("close", "volume")) -> Rows:
    dataset = Dataset(store, read_head(store, "main"))
    return read_rows(dataset, ColumnCache(0), kind, symbol, day("1990-01-01"), day("2030-01-01"), columns)


def listing(store: Store) -> list[tuple[str, int]]:
    return [(meta.key, meta.size) for meta in store.list("")]


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


@pytest.mark.parametrize(
    ("lines", "row", "says"),
    [
        ([*GOOD, "2020-01-07,AAA,10,11,9,nan,1"], 4, "'nan' is NaN or missing"),
        ([GOOD[0], "2020-01-03,AAA,10,inf,9,10,1"], 2, "'inf' is infinite"),
        ([GOOD[0], "2020-01-03,AAA,10,11,9,,1"], 2, "the value is missing"),
        ([GOOD[0], "2020-01-03,AAA,10,11,9,ten,1"], 2, "'ten' is not a number"),
        ([GOOD[0], "2020-01-03,AAA,10,11,9,0x1p3,1"], 2, "is not a number"),
        (["2020-01-02,AAA,10,11,9,10,-5"], 1, "volume is -5"),
        (["2020-01-02,AAA,10,11,9,10,1.5"], 1, "1.5 is not a whole number"),
        (["2020-01-02,AAA,-10,11,9,10,5"], 1, "open is -10.0, prices are above zero"),
        (["2020-01-02,AAA,0,11,9,10,5"], 1, "open is 0.0"),
        ([GOOD[0], "2020-01-03,AAA,10,8,9,10,5"], 2, "high 8.0 is below low 9.0"),
        ([GOOD[0], GOOD[1], GOOD[0]], 3, "duplicate row: AAA 2020-01-02 is in data row 1 already"),
        ([GOOD[1], GOOD[0]], 2, "unsorted: AAA 2020-01-02 after 2020-01-03 of data row 1"),
        ([GOOD[0], "2020-01-04,AAA,10,11,9,10,5"], 2, "2020-01-04 (AAA) is not a session of the calendar XNYS"),
        (["01/02/2020,AAA,10,11,9,10,5"], 1, "'01/02/2020' is not a date or a timestamp"),
        (["0001-01-01T00:00:00+14:00,AAA,10,11,9,10,5"], 1, "'0001-01-01T00:00:00+14:00' is not a date"),
        (["2020-02-30,AAA,10,11,9,10,5"], 1, "'2020-02-30' is not a date or a timestamp"),
        (["2020-01-02,$A,10,11,9,10,5"], 1, "'$A' cannot be a symbol"),
        (["2020-01-02,,10,11,9,10,5"], 1, "the value is missing"),
        ([GOOD[0], "2020-01-03,AAA,10,11"], 2, "4 columns instead of 7"),
        (["2020-01-02,AAA,10,11,9,10.123456789,5"], 1, "close 10.123456789 needs more than 8 decimals"),
        (["1884-12-31,AAA,10,11,9,10,5"], 1, "is not a session of the calendar XNYS, which begins on 1885-01-01"),
        (["2050-01-03,AAA,10,11,9,10,5"], 1, "is not a session of the calendar XNYS, which ends on 2049-12-31"),
        (["2020-01-02,AAA,10,11,9,10,99999999999999999999"], 1, "is not a whole number below 2**53"),
    ],
)
def test_a_bad_row_is_named_with_file_and_data_row(tmp_path: Path, lines: list[str], row: int, says: str) -> None:
    """And the store stays as it was: here empty."""
    store, url = MemoryStore(), bars(tmp_path, lines)
    with pytest.raises(DataError) as caught:
        put(store, url)
    assert f"{url}, data row {row}" == caught.value.place
    assert says in caught.value.message
    assert listing(store) == []


def test_of_several_bad_rows_the_first_is_named(tmp_path: Path) -> None:
    lines = [GOOD[0], "2020-01-03,AAA,10,8,9,10,5", "2020-01-06,AAA,-1,11,9,10,5"]
    with pytest.raises(DataError, match=r"data row 2: high"):
        put(MemoryStore(), bars(tmp_path, lines))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tz": None}, UsageError, "no time zone given"),
        ({"tz": "Mars/Olympus"}, UsageError, "no such time zone"),
        ({"stamp": None}, UsageError, "no stamp given"),
        ({"stamp": "middle"}, UsageError, "no such stamp"),
        ({"kind": "option_daily"}, UsageError, "allowed: stock_daily, splits, dividends, instruments"),
        ({"mapping": {**MAP, "vwap": "c"}}, UsageError, "no such column of stock_daily: 'vwap'"),
        ({"mapping": {**MAP, "close": "last"}}, DataError, "no column 'last' for close"),
        ({"mapping": {key: MAP[key] for key in MAP if key != "close"}}, DataError, "no column for close"),
        ({"symbol": "AAA"}, UsageError, "either a symbol or a column of symbols"),
        ({"codec": "gzip"}, UsageError, "allowed: lz4, zstd, snappy, none"),
        ({"row_group_rows": 0}, UsageError, "row groups of 0 rows"),
        ({"price_scale": 9}, UsageError, "allowed: 0 to 8"),
        ({"type": "bond"}, UsageError, "allowed: stock, etf, index"),
        ({"calendar": "XXXX"}, UsageError, "no such calendar"),
    ],
)
def test_flags_that_cannot_be_meant(tmp_path: Path, options: dict[str, Any], error: type[FarmError], says: str) -> None:
    store, url = MemoryStore(), bars(tmp_path, GOOD)
    with pytest.raises(error) as caught:
        put(store, url, **options)
    assert says in str(caught.value)
    assert listing(store) == []


def test_a_dataset_name_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a dataset name"):
        ingest_file(MemoryStore(), "../x", bars(tmp_path, GOOD), "stock_daily", MAP, NEW_YORK, "start")


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", DataError, "the file is empty"),
        (HEADER.encode() + b"\n", DataError, "no rows"),
        (b"\x00\xff\xfe\x01", DataError, "neither Parquet nor text in UTF-8"),
        (b"PAR1 and no more", DataError, "not a whole Parquet file"),
        (
            HEADER.encode() + b"\n2020-01-02,A\xff,1,1,1,1,1\n",
            DataError,
            "neither Parquet nor text in UTF-8: byte 0xff in line 2",
        ),
        (
            b"day,ticker,day,o,h,l,c,v\n2020-01-02,A,2020-01-02,1,1,1,1,1\n",
            DataError,
            "several columns for ts: day, day",
        ),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, error: type[FarmError], says: str) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        put(MemoryStore(), str(path))
    assert says in str(caught.value)
    assert str(path) in caught.value.place


@pytest.mark.parametrize("url", ["/nowhere/x.csv", "nosuch://x/y.csv", "."])
def test_files_that_are_not_there(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        put(MemoryStore(), url)
    assert url == caught.value.place


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"not a whole Parquet file"):
        put(MemoryStore(), str(cut))


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


def test_a_file_of_one_symbol_is_not_mistaken(tmp_path: Path) -> None:
    mapping = {key: MAP[key] for key in MAP if key != "symbol"}
    header = HEADER.replace("ticker", "symbol")
    assert put(MemoryStore(), bars(tmp_path, GOOD, header), mapping=mapping, symbol="AAA").rows_added == 3
    with pytest.raises(DataError, match=r"data row 1: .*other symbols than 'BBB'"):
        put(MemoryStore(), bars(tmp_path, GOOD, header), mapping=mapping, symbol="BBB")
    with pytest.raises(DataError, match=r"no column for symbol.*--symbol"):
        put(MemoryStore(), bars(tmp_path, GOOD), mapping=mapping)


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
    table = pa.table({"symbol": ["A"], "ts": stamps.cast(pa.timestamp(unit, zone)), **_one_bar()})
    store = MemoryStore()
    ingest_table(store, "main", table, "stock_daily", tz=NEW_YORK, stamp="end")
    assert [day("2020-01-02")] == rows_of(store, "A")["day"].tolist()


def _one_bar() -> dict[str, Any]:
    return {"open": [10.0], "high": [11.0], "low": [9.0], "close": [10.25], "volume": [7]}


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
    plain = {"symbol": ["A"], "ts": ["2020-01-02"], **_one_bar()}
    one, two = (
        ingest_table(MemoryStore(), "main", pa.table(columns), "stock_daily", tz="UTC", stamp="start")
        for columns in (plain, plain | change)
    )
    assert one.snapshot == two.snapshot


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"close": pa.array([None], pa.float64())}, "the value is missing"),
        ({"close": pa.array([float("nan")])}, "nan is not a number"),
        ({"close": pa.array([[1.0]])}, "is no number"),
        ({"ts": pa.array([1577923200])}, "'1577923200' is not a date or a timestamp"),
        ({"ts": pa.array([1.5])}, "is no date or timestamp"),
        ({"ts": pa.array([None], pa.date32())}, "the value is missing"),
        ({"ts": pa.array([2**31 - 1], pa.int32()).cast(pa.date32())}, "is no date"),
        ({"ts": pa.array([2**63 - 1]).cast(pa.timestamp("us"))}, "9223372036854775807 us from 1970 is out of reach"),
        ({"ts": pa.array([-(2**53)]).cast(pa.timestamp("ms", "UTC"))}, "ms from 1970 is out of reach"),
        ({"symbol": pa.array([b"A\xff"]).view(pa.string())}, "not a table that Arrow can hold"),
        ({"volume": pa.array([-1])}, "volume is -1"),
    ],
)
def test_typed_values_that_are_refused(change: dict[str, Any], says: str) -> None:
    table = pa.table({"symbol": ["A"], "ts": ["2020-01-02"], **_one_bar()} | change)
    with pytest.raises(DataError) as caught:
        ingest_table(MemoryStore(), "main", table, "stock_daily", tz="UTC", stamp="start", name="mine")
    assert says in caught.value.message
    assert caught.value.place.startswith("mine")


def test_a_pandas_frame_is_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"symbol": ["A"], "ts": pandas.to_datetime(["2020-01-02"]), **_one_bar()})
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


# Appending.


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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2020-01-03,AAA,10.5,12,10,11.26,200", "close is 11.26 here and 11.25 in the dataset"),
        ("2020-01-03,AAA,10.5,12,10,11.25,201", "volume is 201 here and 200 in the dataset"),
    ],
)
def test_a_row_that_differs_from_a_stored_one_is_refused(tmp_path: Path, line: str, says: str) -> None:
    store = MemoryStore()
    put(store, bars(tmp_path, GOOD))
    before = listing(store)
    with pytest.raises(DataError) as caught:
        put(store, bars(tmp_path, [GOOD[0], line, "2020-01-07,AAA,10,11,9,10,5"], name="new.csv"))
    assert says in caught.value.message
    assert "AAA 2020-01-03" in caught.value.message
    assert caught.value.place.endswith("new.csv, data row 2")
    assert before == listing(store)


def test_a_day_between_stored_days_can_be_added(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, bars(tmp_path, [GOOD[0], GOOD[2]]))
    assert put(store, bars(tmp_path, [GOOD[1]])).rows_added == 1
    assert rows_of(store, "AAA").prices("close").tolist() == [10.5, 11.25, 11.0]


def test_flags_that_contradict_the_master_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, bars(tmp_path, GOOD[:1]), type="etf")
    assert put(store, bars(tmp_path, GOOD[:2])).rows_added == 1
    assert put(store, bars(tmp_path, GOOD), type="etf", calendar="NYSE").rows_added == 1
    with pytest.raises(UsageError, match=r"AAA is there already with type etf, not stock"):
        put(store, bars(tmp_path, GOOD), type="stock")
    with pytest.raises(UsageError, match=r"calendar XNYS, not 24x7"):
        put(store, bars(tmp_path, GOOD), calendar="24x7")


# Splits, dividends, instruments.


def table_file(folder: Path, text: str, name: str = "rows.csv") -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """A store that holds bars of AAA."""
    made = MemoryStore()
    put(made, bars(tmp_path, GOOD))
    return made


def test_splits_as_ratio_or_as_two_numbers(tmp_path: Path, store: MemoryStore) -> None:
    url = table_file(
        tmp_path,
        """
        symbol,ex_date,ratio
        AAA,2019-01-02,2:1
        AAA,2019-01-03,0.05
        AAA,2019-01-04,3/2
        AAA,2019-01-07,1.0027
        """,
    )
    assert put(store, url, "splits").rows_added == 4
    rows = rows_of(store, "AAA", "splits", ("numerator", "denominator"))
    assert list(zip(rows["numerator"].tolist(), rows["denominator"].tolist(), strict=True)) == [
        (2, 1),
        (1, 20),
        (3, 2),
        (365, 364),
    ]
    again = table_file(
        tmp_path,
        """
        name,when,new,old
        AAA,2019-01-02,4,2
        """,
    )
    mapping = {"symbol": "name", "ex_date": "when", "numerator": "new", "denominator": "old"}
    assert (lambda done: (done.rows_added, done.rows_skipped))(put(store, again, "splits", mapping=mapping)) == (0, 1)


@pytest.mark.parametrize(
    ("line", "row", "says"),
    [
        ("BBB,2019-01-02,2:1", 1, "splits of an unknown symbol: 'BBB'"),
        ("AAA,2019-01-02,2:0", 1, "'2:0' is not a ratio"),
        ("AAA,2019-01-02,two", 1, "'two' is not a ratio"),
        ("AAA,2019-01-02,-2", 1, "'-2' is not a positive ratio"),
        ("AAA,2019-01-02,0:1", 1, "'0:1' is not a positive ratio"),
        ("AAA,2019-01-02,9007199254740993:2", 1, "is beyond any split"),
        ("AAA,2019-01-02,1e-30", 1, "is beyond any split"),
        ("AAA,2020-01-04,2:1", 1, "2020-01-04 (AAA) is not a session of the calendar XNYS: it is a Saturday"),
        ("AAA,2019-01-02T10:00,2:1", 1, "is not a plain date"),
        ("AAA,2019-01-02,2:1\nAAA,2019-01-02,3:1", 2, "duplicate row"),
    ],
)
def test_splits_that_are_refused(tmp_path: Path, store: MemoryStore, line: str, row: int, says: str) -> None:
    before = listing(store)
    with pytest.raises(DataError) as caught:
        put(store, table_file(tmp_path, "symbol,ex_date,ratio\n" + line + "\n"), "splits")
    assert caught.value.place.endswith(f"data row {row}")
    assert says in caught.value.message
    assert before == listing(store)


def test_dividends_with_and_without_a_pay_date(tmp_path: Path, store: MemoryStore) -> None:
    url = table_file(
        tmp_path,
        """
        symbol,ex_date,amount,pay_date,declared
        AAA,2019-02-01,0.77,2019-02-15,2019-01-10
        AAA,2019-05-01,0.8598,,
        AAA,2019-08-01,1,2019-08-10,2019-07-20T08:00:00-04:00
        """,
    )
    with pytest.raises(UsageError, match=r"no time zone given for column 'declared'"):
        put(store, url, "dividends")
    assert put(store, url, "dividends", tz=NEW_YORK).rows_added == 3
    names = ("amount", "pay_day", "pay_day_valid", "declared_ts", "declared_ts_valid")
    rows = rows_of(store, "AAA", "dividends", names)
    assert rows.prices("amount").tolist() == [0.77, 0.8598, 1.0]
    assert [day("2019-02-15"), 0, day("2019-08-10")] == rows["pay_day"].tolist()
    assert rows["pay_day_valid"].tolist() == [1, 0, 1]
    # A date counts from its end (05:00 UTC of the next day in winter), an instant as it is.
    end = (day("2019-01-11") * 24 + 5) * NS_PER_HOUR
    assert [end, 0, (day("2019-07-20") * 24 + 12) * NS_PER_HOUR] == rows["declared_ts"].tolist()
    assert (lambda done: (done.rows_added, done.rows_skipped))(put(store, url, "dividends", tz=NEW_YORK)) == (0, 3)


@pytest.mark.parametrize("day", ("0001-01-01", "9999-12-31"))
def test_a_day_whose_end_is_no_instant_is_refused(tmp_path: Path, store: MemoryStore, day: str) -> None:
    url = table_file(tmp_path, f"symbol,ex_date,amount,declared\nAAA,2019-02-01,1,{day}\n")
    with pytest.raises(DataError, match=rf"data row 1: column 'declared' \(declared\): {day} is out of reach"):
        put(store, url, "dividends", tz=NEW_YORK)


@pytest.mark.parametrize(
    ("line", "row", "says"),
    [
        ("AAA,2019-02-01,-1,", 1, "-1.0 is not above zero"),
        ("AAA,2019-02-01,1,\nAAA,2019-05-01,1,soon", 2, "'soon' is not a date"),
        ("AAA,2019-02-01,1,\nAAA,2019-02-01,2,", 2, "duplicate row"),
        ("CCC,2019-02-01,1,", 1, "dividends of an unknown symbol: 'CCC'"),
    ],
)
def test_dividends_that_are_refused(tmp_path: Path, store: MemoryStore, line: str, row: int, says: str) -> None:
    with pytest.raises(DataError) as caught:
        put(store, table_file(tmp_path, "symbol,ex_date,amount,pay_date\n" + line + "\n"), "dividends")
    assert caught.value.place.endswith(f"data row {row}")
    assert says in caught.value.message


def test_the_master_by_file(tmp_path: Path) -> None:
    store = MemoryStore()
    url = table_file(
        tmp_path,
        """
        id,symbol,type,calendar,lot,listed,delisted,delisting_value
        OLD.1,OLD,stock,NYSE,1,1990-01-02,2020-02-03,0.25
        IDX,IDX,index,24x7,0.01,,,
        """,
    )
    summary = put(store, url, "instruments")
    assert (
        summary.rows_added,
        summary.instruments_created,
        summary.calendars,
    ) == (2, ("IDX", "OLD.1"), ("24x7", "XNYS"))
    dataset = Dataset(store, read_head(store, "main"))
    old, index = dataset.instruments()["OLD.1"], dataset.instruments()["IDX"]
    assert ("XNYS", day("1990-01-02"), day("2020-02-03"), 0.25) == (
        old.calendar,
        old.listed_day,
        old.delisted_day,
        old.delisting_value,
    )
    assert (
        index.type,
        index.calendar,
        index.lot_micro,
        index.listed_day,
        index.delisting_value,
    ) == ("index", "24x7", 10_000, None, None)
    assert put(store, bars(tmp_path, [line.replace("AAA", "OLD") for line in GOOD])).rows_added == 3
    assert len(rows_of(store, "OLD.1")) == 3, "bars lie under the permanent id"
    assert Dataset(store, read_head(store, "main")).resolve("OLD", "universe") == "OLD.1"
    assert (lambda done: (done.rows_added, done.rows_skipped))(put(store, url, "instruments")) == (0, 2)
    other = table_file(tmp_path, "symbol,id,lot,calendar\nIDX,IDX,0.02,24x7\n")
    with pytest.raises(DataError, match=r"type is stock here and index in the dataset"):
        put(store, other, "instruments")
    taken = table_file(tmp_path, "symbol,id\nOLD,OLD.2\n")
    with pytest.raises(DataError, match=r"the symbol 'OLD' belongs to another instrument"):
        put(store, taken, "instruments")


def test_an_unknown_ticker_lists_close_names(store: MemoryStore) -> None:
    with pytest.raises(SpecError) as caught:
        Dataset(store, read_head(store, "main")).resolve("AAB", "strategy.universes[0].tickers[1]")
    assert "allowed: AAA" in str(caught.value)
    assert caught.value.place == "strategy.universes[0].tickers[1]"


# The sample.


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


# All or nothing.


def test_an_interrupt_at_any_write_leaves_the_dataset_as_it_was() -> None:
    """Ctrl-C before the k-th put, for every k: the head is the old one, and the same ingest then succeeds."""
    base = MemoryStore()
    put_bars(base, walk("A", "2010-01-01", 5))
    head = read_head(base, "main").id
    after = put_bars(_copy(base), [*walk("A", "2010-02-01", 5), *walk("B", "2010-01-01", 5)]).snapshot
    for stop_at in range(1, 100):
        store, puts = _copy(base), iter(range(1, 100))

        def before(verb: str, key: str, puts: Any = puts, stop_at: int = stop_at) -> None:
            if verb == "put_if_absent" and next(puts) == stop_at:
                raise KeyboardInterrupt

        watched = Meddling(store, before)
        try:
            done = put_bars(watched, [*walk("A", "2010-02-01", 5), *walk("B", "2010-01-01", 5)])
        except KeyboardInterrupt:
            assert head == read_head(store, "main").id
            assert after == put_bars(store, [*walk("A", "2010-02-01", 5), *walk("B", "2010-01-01", 5)]).snapshot
        else:
            assert after == done.snapshot
            assert stop_at > 6, "shards, indexes, root and ref were written before"
            break


def _copy(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    for meta in store.list(""):
        copy.put(meta.key, store.get(meta.key))
    return copy


def test_a_write_that_really_fails_leaves_the_dataset_as_it_was(tmp_path: Path) -> None:
    """A file-size limit of the operating system in the middle of an ingest; without it the same ingest succeeds."""
    store = open_store(str(tmp_path / "store"))
    put_bars(store, walk("A", "2010-01-01", 5))
    before = read_head(store, "main").id
    program = """
        import resource, sys
        from farm.store.open import open_store
        from farm.values.errors import StoreError
        from tests.shard.generators import put_bars, walk
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            put_bars(open_store(sys.argv[1]), walk("B", "2010-01-01", 3000))
        except StoreError as error:
            print(type(error).__name__, error)
            sys.exit(error.exit_code)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert StoreError.exit_code == ended.returncode, ended.stderr
    assert "WriteFailed" in ended.stdout
    assert before == read_head(store, "main").id
    assert len(rows_of(store, "A")) == 5
    assert put_bars(store, walk("B", "2010-01-01", 3000)).rows_added == 3000


def test_a_damaged_leftover_under_a_content_name_is_not_adopted() -> None:
    """Bytes that lie under the name of a new shard must be those of the shard."""
    good = MemoryStore()
    put_bars(good, walk("A", "2010-01-01", 5))
    [ref] = read_head(good, "main").of_kind("stock_daily")
    store = MemoryStore()
    store.put(ref.key, good.get(ref.key)[:-1])
    with pytest.raises(DataError, match=r"damaged") as caught:
        put_bars(store, walk("A", "2010-01-01", 5))
    assert ref.key == caught.value.place
    store.put(ref.key, good.get(ref.key))
    assert read_head(good, "main").id == put_bars(store, walk("A", "2010-01-01", 5)).snapshot


def test_an_empty_dataset_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"the dataset 'main' is empty.*farm ingest sample"):
        read_head(MemoryStore(), "main")


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


def test_a_symbol_whose_prices_no_scale_holds_together_is_refused(tmp_path: Path) -> None:
    lines = ["2020-01-02,X,1,1,1,0.00000001,1", "2020-01-03,X,900000000000,900000000000,1,1,1"]
    with pytest.raises(DataError, match=r"data row 2: open 900000000000.0 needs more than 8 decimals, or is too large"):
        put(MemoryStore(), bars(tmp_path, lines))
