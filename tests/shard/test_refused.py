"""What ingest refuses of bars, and how it says so: the row, what was seen there, what to change."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.shard.dataset import Dataset
from farm.shard.ingest import ingest_file, ingest_table
from farm.shard.kinds import BAR_COLUMNS, PRICES, STOCK_DAILY
from farm.shard.parse import parse_zone
from farm.shard.snapshot import read_head
from farm.shard.source import Source
from farm.shard.stage import Reading, stage
from farm.store.memory import MemoryStore
from farm.values.errors import DataError, FarmError, SpecError, Unavailable, UsageError
from tests.shard.support import GOOD, HEADER, MAP, NEW_YORK, bars, listing, one_bar, put


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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"close": pa.array([None], pa.float64())}, "the value is missing"),
        ({"close": pa.array([float("nan")])}, "nan is not a number"),
        ({"ts": pa.array([1577923200])}, "'1577923200' is not a date or a timestamp"),
        ({"ts": pa.array([None], pa.date32())}, "the value is missing"),
        ({"ts": pa.array([2**31 - 1], pa.int32()).cast(pa.date32())}, "is no date"),
        ({"ts": pa.array([2**63 - 1]).cast(pa.timestamp("us"))}, "9223372036854775807 us from 1970 is out of reach"),
        ({"ts": pa.array([-(2**53)]).cast(pa.timestamp("ms", "UTC"))}, "ms from 1970 is out of reach"),
        ({"symbol": pa.array([b"A\xff"]).view(pa.string())}, "not a table that Arrow can hold"),
        ({"volume": pa.array([-1])}, "volume is -1"),
    ],
)
def test_typed_values_that_are_refused(change: dict[str, Any], says: str) -> None:
    table = pa.table({"symbol": ["A"], "ts": ["2020-01-02"], **one_bar()} | change)
    with pytest.raises(DataError) as caught:
        ingest_table(MemoryStore(), "main", table, "stock_daily", tz="UTC", stamp="start", name="mine")
    assert says in caught.value.message
    assert caught.value.place.startswith("mine")


def test_a_file_of_one_symbol_is_not_mistaken(tmp_path: Path) -> None:
    mapping = {key: MAP[key] for key in MAP if key != "symbol"}
    header = HEADER.replace("ticker", "symbol")
    assert put(MemoryStore(), bars(tmp_path, GOOD, header), mapping=mapping, symbol="AAA").rows_added == 3
    with pytest.raises(DataError, match=r"data row 1: .*other symbols than 'BBB'"):
        put(MemoryStore(), bars(tmp_path, GOOD, header), mapping=mapping, symbol="BBB")
    with pytest.raises(DataError, match=r"no column for symbol.*--symbol"):
        put(MemoryStore(), bars(tmp_path, GOOD), mapping=mapping)


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


def test_flags_that_contradict_the_master_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, bars(tmp_path, GOOD[:1]), type="etf")
    assert put(store, bars(tmp_path, GOOD[:2])).rows_added == 1
    assert put(store, bars(tmp_path, GOOD), type="etf", calendar="NYSE").rows_added == 1
    with pytest.raises(UsageError, match=r"AAA is there already with type etf, not stock"):
        put(store, bars(tmp_path, GOOD), type="stock")
    with pytest.raises(UsageError, match=r"calendar XNYS, not 24x7"):
        put(store, bars(tmp_path, GOOD), calendar="24x7")


def test_an_unknown_ticker_lists_close_names(store: MemoryStore) -> None:
    with pytest.raises(SpecError) as caught:
        Dataset(store, read_head(store, "main")).resolve("AAB", "strategy.universes[0].tickers[1]")
    assert "allowed: AAA" in str(caught.value)
    assert caught.value.place == "strategy.universes[0].tickers[1]"


def test_an_empty_dataset_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"the dataset 'main' is empty.*farm ingest sample"):
        read_head(MemoryStore(), "main")


def test_a_symbol_whose_prices_no_scale_holds_together_is_refused(tmp_path: Path) -> None:
    lines = ["2020-01-02,X,1,1,1,0.00000001,1", "2020-01-03,X,900000000000,900000000000,1,1,1"]
    with pytest.raises(DataError, match=r"data row 2: open 900000000000.0 needs more than 8 decimals, or is too large"):
        put(MemoryStore(), bars(tmp_path, lines))


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        ({"close": pa.array([[1.0]])}, "'close' (close) has type list<item: double>, which is no number", "1234.5"),
        ({"close": pa.array([True])}, "'close' (close) has type bool, which is no number", "--map close="),
        ({"volume": pa.array([b"7"])}, "'volume' (volume) has type binary, which is no number", "--map volume="),
        ({"volume": pa.array([None])}, "'volume' (volume) has type null, which is no number", "--map volume="),
        ({"symbol": pa.array([["A"]])}, "'symbol' (symbol) has type list<item: string>, which is no text", "give text"),
        ({"ts": pa.array([1.5])}, "'ts' (ts) has type double, which is no date or timestamp", "integers like 20200131"),
    ],
)
def test_a_column_of_a_wrong_type_is_named_with_what_to_do(change: dict[str, Any], says: str, hint: str) -> None:
    table = pa.table({"symbol": ["A"], "ts": ["2020-01-02"], **one_bar()} | change)
    with pytest.raises(DataError) as caught:
        ingest_table(MemoryStore(), "main", table, "stock_daily", tz="UTC", stamp="start", name="mine")
    assert (caught.value.place, caught.value.message) == ("mine", f"column {says}")
    assert hint in caught.value.hint


def refused_header(names: str, **options: Any) -> str:
    """The hint for a file of these columns."""
    table = pa.table({name: ["2024-01-02"] for name in names.split(",")})
    flags: dict[str, Any] = {"mapping": MAP, "tz": NEW_YORK, "stamp": "start"} | options
    with pytest.raises(DataError, match="no column for") as caught:
        ingest_table(MemoryStore(), "main", table, "stock_daily", **flags)
    return caught.value.hint


def labelled(form: str) -> str:
    return ",".join(["Date", *(form.format(x, y) for x in ("AAPL", "MSFT") for y in ("Open", "Close", "Volume"))])


@pytest.mark.parametrize("symbol", [None, "AAPL"])
@pytest.mark.parametrize("form", ["{}_{}", "{}.{}", "{1} {0}", "{1}_{0}", "{}: {}"])
def test_a_set_of_columns_for_each_symbol_is_taken_one_at_a_time(form: str, symbol: str | None) -> None:
    hint = refused_header(labelled(form), mapping={"ts": "Date"}, symbol=symbol)
    mapping = ",".join(f"{ours}={form.format('AAPL', ours.capitalize())}" for ours in ("open", "close", "volume"))
    assert hint == (
        f"there is a set of prices for each of AAPL, MSFT; one at a time: --symbol AAPL --map {shlex.quote(mapping)}; "
        "a bar needs high, low too"
    )


def test_columns_with_a_label_of_their_own_are_mapped() -> None:
    """As Alpha Vantage writes them; and that of one symbol."""
    for form in ("{0}. {1}", "AAPL_{1}"):
        names = [form.format(at, name) for at, name in enumerate(("open", "high", "low", "close", "volume"), 1)]
        said = shlex.quote(",".join(f"{ours}={name}" for ours, name in zip(BAR_COLUMNS, names, strict=True)))
        hint = refused_header(",".join(["Date", *names]), mapping={"ts": "Date"}, symbol="AAPL")
        assert hint == f"say which they are: --map {said}"


def test_prices_of_no_set_are_not_said_to_be_one() -> None:
    assert "set of prices" not in refused_header("Date,Adj Close,First", mapping={"ts": "Date"}, symbol="AAPL")
    assert "set of prices" not in refused_header("Date,52w high,day low", mapping={"ts": "Date"}, symbol="AAPL")


def test_a_column_for_each_day_is_a_table_to_turn_round() -> None:
    assert refused_header("Ticker,2024-01-02,2024-01-03", mapping={}).startswith("each column is a day; turn the table")
    assert refused_header("Ticker,1/2/2024,1/3/2024", mapping={}).startswith("each column is a day; turn the table")
    assert refused_header("2024-01-02,185.1,186.2,184.3,185.4,100", mapping={}).startswith(
        "the first line holds values"
    )


def test_text_of_one_line_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Thank you for using our service! Our limit is 25 requests per day.\n")
    with pytest.raises(DataError, match="no rows") as caught:
        put(MemoryStore(), str(path))
    assert caught.value.hint.startswith("there is a header at most: Thank you for using our service!")


def test_a_server_that_is_away_has_no_missing_file() -> None:
    """fsspec says that there is no such file, whether a server said so or nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.csv"
        with pytest.raises(Unavailable, match="no server answers there"):
            put(MemoryStore(), url)


def test_an_empty_name_is_no_directory() -> None:
    with pytest.raises(UsageError, match="no file is named"):
        put(MemoryStore(), "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("utc", "UTC"), ("America/New York", "America/New_York"), ("asia/tokio", "Asia/Tokyo"), ("NewYork", "New_York")],
)
def test_a_zone_that_is_nearly_one_is_named(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match="no such time zone") as caught:
        parse_zone(name)
    assert meant in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("02012024", "its parts are not year, month, day, and no other order is guessed"),
        ("20240102160000", "its parts are in order, but not written like this"),
        ("2024-01-02T24:00:00", "24:00 is written as 00:00 of the day after"),
        ("2024-01-02-05:00", "its parts are in order, but not written like this"),
        ("20240102.0", "it is a date that became a decimal: write it without the point"),
        ("2024-01-02 00:00:00 EST", "it names its zone: write the offset, or drop it and give --tz"),
        ("2024-01-02T00:00Z[UTC]", "it names its zone: write the offset, or drop it and give --tz"),
        ("2024-01-02/2024-01-08", "it is a span of days, as pandas prints a Period; one day has to name it"),
        ("19724", "if it counts days, it is 2024-01-02 from 1970 and 1953-12-31 in Excel"),
        ("45293", "if it counts days, it is 2094-01-03 from 1970 and 2024-01-02 in Excel"),
    ],
)
def test_days_that_are_counted_are_refused_with_the_day(text: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        ingest_table(
            MemoryStore(),
            "main",
            pa.table(one_bar() | {"ts": [text]}),
            "stock_daily",
            symbol="A",
            tz=NEW_YORK,
            stamp="start",
        )
    assert caught.value.hint.startswith(hint)


def test_a_period_of_pandas_is_named(tmp_path: Path) -> None:
    """Without pandas, Arrow sees its integers alone: only the schema of the file remembers what they were."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(one_bar() | {"ts": pandas.PeriodIndex(["2024-01-02"], freq="D")})
    frame.to_parquet(tmp_path / "a.parquet")
    name = pa.field("ts", pa.int64(), metadata={"ARROW:extension:name": "pandas.period"})
    plain = pa.table(one_bar() | {"ts": pa.array([19724])}).cast(
        pa.schema([*(pa.field(one, pa.float64()) for one in PRICES), pa.field("volume", pa.int64()), name])
    )
    flags: dict[str, Any] = {"symbol": "A", "tz": NEW_YORK, "stamp": "start"}
    for put_it in (
        lambda: ingest_table(MemoryStore(), "main", frame, "stock_daily", **flags),
        lambda: ingest_file(MemoryStore(), "main", str(tmp_path / "a.parquet"), "stock_daily", **flags),
        lambda: stage(Source("plain", plain), STOCK_DAILY, Reading({}, **flags)),
    ):
        with pytest.raises(DataError) as caught:
            put_it()
        hint = "it is a pandas Period: frame['ts'] = frame['ts'].dt.to_timestamp() makes dates of it"
        assert caught.value.hint == hint


@pytest.mark.parametrize("row", ['"2020-01-02,AAA,10,11,9,10,5', '2020-01-02,AAA,"10,11,9,10,5', '"2020-01-02,AAA'])
@pytest.mark.parametrize("more", [[], [GOOD[1]]])
def test_a_quote_that_is_never_closed_is_named(tmp_path: Path, row: str, more: list[str]) -> None:
    with pytest.raises(DataError, match=r"data row 1: . columns? instead of 7") as caught:
        put(MemoryStore(), bars(tmp_path, [row, *more]))
    assert caught.value.hint == "a quote is opened there and never closed"


def test_a_volume_with_a_point_may_be_one_in_thousands(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"58\.414 is not a whole number") as caught:
        put(MemoryStore(), bars(tmp_path, ["2020-01-02,AAA,10,11,9,10,58.414"]))
    assert caught.value.hint.startswith(
        "'58.414' may be 58414, with a point that marks thousands; a volume counts whole"
    )
    with pytest.raises(DataError) as caught:
        put(MemoryStore(), bars(tmp_path, ["2020-01-02,AAA,10,11,9,10,58.5"]))
    assert "thousands" not in caught.value.hint


def test_rows_with_another_delimiter_than_the_header(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 column instead of 7") as caught:
        put(MemoryStore(), bars(tmp_path, ["2020-01-02;AAA;10;11;9;10;5"]))
    assert caught.value.hint == "its columns are set apart by ';', and those of the header are not"
