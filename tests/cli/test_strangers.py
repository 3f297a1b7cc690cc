"""Other people's files: named, stamped, packed and ordered as they like it, by the commands of the README.

GOOG.csv comes with the package backtesting: dates in a column without a name, one symbol, no symbol column. The tables
of ``market_data`` are vendors' bars, splits and dividends.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.cli.support import BARS, HEADER, Console, listing, refused, write_csv, write_spec
from tests.study.support import cross

pytestmark = pytest.mark.slow
GOOG = Path(str(getattr(find_spec("backtesting"), "origin", None))).parent / "test" / "GOOG.csv"
UNNAMED = ("--symbol", "GOOG", "--map", "ts=")
DECADE = {"start": "2005-01-03", "end": "2012-12-31"}

needs_goog = pytest.mark.skipif(not GOOG.is_file(), reason="the package backtesting is not installed")


def read_goog() -> pa.Table:
    """The file as dates and floats; the column without a name is called ts."""
    table = pa.csv.read_csv(GOOG)
    return table.rename_columns(["ts", *table.schema.names[1:]])


def write_lines(path: Path, table: pa.Table, delimiter: str = ",") -> None:
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=delimiter, quoting_style="needed"))


def stamps(table: pa.Table, form: Callable[[Any], str]) -> pa.Table:
    return table.set_column(0, "ts", pa.array([form(day) for day in table["ts"].to_pylist()]))


def as_csv(path: Path, table: pa.Table) -> tuple[str, ...]:
    write_lines(path, table)
    return BARS


def compact(path: Path, table: pa.Table) -> tuple[str, ...]:
    return as_csv(path, stamps(table, lambda day: f"{day:%Y%m%d}"))


def closing_times(path: Path, table: pa.Table) -> tuple[str, ...]:
    write_lines(path, stamps(table, lambda day: f"{day} 16:00:00"))
    return ("--tz", "America/New_York", "--stamp", "end")


def next_midnight_in_utc(path: Path, table: pa.Table) -> tuple[str, ...]:
    """The end of the New York day as an instant: 04:00 or 05:00 UTC of the day after."""
    days = pc.cast(table["ts"], pa.timestamp("us"))
    local = pc.assume_timezone(pc.add(days, pa.scalar(86_400_000_000, pa.duration("us"))), "America/New_York")
    pq.write_table(table.set_column(0, "ts", local.cast(pa.timestamp("us", "UTC"))), path)
    return ("--tz", "America/New_York", "--stamp", "end")


def semicolons(path: Path, table: pa.Table) -> tuple[str, ...]:
    write_lines(path, table, ";")
    return BARS


def newest_first(path: Path, table: pa.Table) -> tuple[str, ...]:
    write_lines(path, table.take(pa.array(range(table.num_rows - 1, -1, -1))))
    return (*BARS, "--sort")


def small_pages(path: Path, table: pa.Table) -> tuple[str, ...]:
    pq.write_table(table, path, compression="gzip", row_group_size=100, data_page_size=512, version="1.0")
    return BARS


def decimals(path: Path, table: pa.Table) -> tuple[str, ...]:
    for at, name in enumerate(("Open", "High", "Low", "Close"), 1):
        table = table.set_column(at, name, pc.cast(table[name], pa.decimal128(12, 2)))
    pq.write_table(table.set_column(5, "Volume", pc.cast(table["Volume"], pa.float64())), path, compression="zstd")
    return BARS


FORMS = (
    as_csv,
    compact,
    closing_times,
    next_midnight_in_utc,
    semicolons,
    newest_first,
    small_pages,
    decimals,
)


@needs_goog
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bars_in_another_form(form: Callable[..., tuple[str, ...]], empty: Console, tmp_path: Path) -> None:
    """They are recognised, row by row: nothing is added to what the first form has brought."""
    assert empty.document("ingest", GOOG, *BARS, *UNNAMED)["rows_added"] == 2148
    flags = form(tmp_path / "file", read_goog())
    summary = empty.document("ingest", tmp_path / "file", *flags, "--symbol", "GOOG")
    assert (summary["rows_added"], summary["rows_skipped"]) == (0, 2148)


@needs_goog
def test_a_file_in_two_parts_with_other_row_groups_and_codecs(empty: Console, tmp_path: Path) -> None:
    """The same fingerprints as the whole file in one piece, although the parts overlap."""
    spec = write_spec(tmp_path / "study.json", cross(tickers=("GOOG",), indicator="ema", **DECADE))
    assert empty("ingest", GOOG, *BARS, *UNNAMED).code == 0
    expected = empty.document("run", spec)["trials"]
    table = read_goog()
    parts = Console(str(tmp_path / "parts"))
    for number, (part, layout) in enumerate(
        [
            (table.slice(1500), ("--row-group-rows", "77", "--codec", "zstd")),
            (table.slice(0, 1600), ("--row-group-rows", "500", "--codec", "none", "--price-scale", "4")),
        ]
    ):
        pq.write_table(part, tmp_path / f"{number}.parquet")
        assert parts("ingest", tmp_path / f"{number}.parquet", *BARS, "--symbol", "GOOG", *layout).code == 0
    assert parts.document("run", spec)["trials"] == expected


@needs_goog
def test_what_a_stranger_is_told_on_the_way(empty: Console, folder: Path, tmp_path: Path) -> None:
    """Each error leads to the next step, and the last step works."""
    refused(empty("ingest", GOOG, *BARS), 4, "no column for symbol", "--symbol NAME")
    refused(empty("ingest", GOOG, *BARS, "--symbol", "GOOG"), 4, "no column for ts", "--map ts= for the one without a")
    assert not folder.exists()
    done = empty("ingest", GOOG, *BARS, *UNNAMED)
    assert done.code == 0
    for said in ("2,148 rows added", "new instruments  GOOG", "calendars        XNYS, frozen into the snapshot"):
        assert said in done.out
    assert "nothing" in empty("ingest", GOOG, *BARS, *UNNAMED).out
    spec = write_spec(tmp_path / "study.json", cross(tickers=("GOOG", "AAPL")))
    refused(empty("run", spec), 3, "'AAPL' is not in the snapshot", "ingest its bars first")


@pytest.fixture(scope="module")
def vendor(market_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vendor's bars of four listings, written as the vendor does: other columns, other order."""
    folder = tmp_path_factory.mktemp("vendor")
    bars = pq.read_table(market_data / "us_equity_daily.parquet")
    mine = pa.array(["AAPL", "SPY", "QQQ", "BAC"])
    pq.write_table(bars.filter(pc.is_in(bars["listing"], mine)), folder / "bars.parquet", row_group_size=999)
    return folder


def ingest_vendor(farm: Console, vendor: Path, market_data: Path) -> None:
    for flags in (
        (vendor / "bars.parquet", "--map", "symbol=listing,ts=date", *BARS),
        (market_data / "us_equity_splits.parquet", "--kind", "splits", "--map",
         "symbol=listing,ratio=new_shares_per_old", "--skip-unknown"),
        (market_data / "us_equity_dividends.parquet", "--kind", "dividends", "--map",
         "symbol=listing,amount=cash_per_share_usd", "--skip-unknown"),
    ):  # fmt: skip
        done = farm("ingest", *flags)
        assert done.code == 0, done.err


def test_a_vendors_bars_splits_and_dividends(vendor: Path, market_data: Path, empty: Console, tmp_path: Path) -> None:
    ingest_vendor(empty, vendor, market_data)
    spec = write_spec(
        tmp_path / "study.json",
        cross(tickers=("AAPL", "BAC", "SPY", "QQQ"), start="1999-06-01", end="2021-03-31", benchmark="SPY"),
    )
    document = empty.document("run", spec)
    cells = [cell for trial in document["trials"] for cell in trial["cells"]]
    assert len(cells) == 9 * 4
    assert all(cell["verdict"] is None and "no_dividends" not in cell["assumptions"] for cell in cells)
    assert any(cell["counts"].get("pay_date_assumed") for cell in cells)
    assert empty("report", spec, "-o", tmp_path / "report.html").code == 0
    assert "5,849" in empty("status").out


def test_symbols_that_have_no_bars(vendor: Path, market_data: Path, empty: Console, folder: Path) -> None:
    splits = (market_data / "us_equity_splits.parquet", "--kind", "splits", "--map",
              "symbol=listing,ratio=new_shares_per_old")  # fmt: skip
    refused(empty("ingest", *splits, "--skip-unknown"), 4, "no symbol of the file has an instrument")
    assert not folder.exists()
    assert empty("ingest", vendor / "bars.parquet", "--map", "symbol=listing,ts=date", *BARS).code == 0
    before = listing(folder)
    refused(empty("ingest", *splits), 4, "splits of an unknown symbol", "--skip-unknown")
    assert listing(folder) == before
    done = empty("ingest", *splits, "--skip-unknown")
    assert "6 rows added" in done.out
    assert "left out, since they have no instrument: AIG, BNO" in done.out


def test_tables_that_do_not_fit(market_data: Path, empty: Console, folder: Path) -> None:
    """Hourly bars, adjusted closes, a ticker that is missing: each is refused with the reason."""
    hours = (market_data / "us_equity_hour.parquet", "--map", "symbol=ticker,ts=bar_start_utc", *BARS)
    refused(empty("ingest", *hours), 4, "data row 2", "duplicate row", "one bar a day")
    closes = (market_data / "us_equity_adjclose_daily_20.parquet", "--map", "symbol=ticker,ts=date", *BARS)
    refused(empty("ingest", *closes), 4, "no column for open", "ticker, date, adjusted_close")
    gaps = (market_data / "us_equity_daily.parquet", "--map", "symbol=listing,ts=date", *BARS)
    refused(empty("ingest", *gaps), 4, "column 'listing' (symbol): the value is missing")
    assert not folder.exists()


def test_appended_rows_compute_nothing_anew(sample: Console, spec: Path, tmp_path: Path) -> None:
    first = sample.document("run", spec)
    file = write_csv(tmp_path / "later.csv", ["AAPL,2013-03-04,430,431,419,420,9", "IBM,2013-03-04,200,206,200,206,9"])
    assert sample.document("ingest", file, *BARS)["rows_added"] == 2
    again = sample.document("run", spec)
    assert again["snapshot"] != first["snapshot"]
    assert again["farm"]["cells"]["computed"] == 0
    assert again["trials"] == first["trials"]
    assert sample.document("run", spec, "--snapshot", first["snapshot"])["study"] == first["study"]


def test_another_calendar(empty: Console, tmp_path: Path) -> None:
    """What trades on Sundays needs its own calendar; the error says so."""
    rows = [f"BTC,2020-01-{day:02d},10,11,9,10,100" for day in range(1, 32)]
    file = write_csv(tmp_path / "coins.csv", rows)
    refused(empty("ingest", file, "--tz", "UTC", "--stamp", "start"), 4, "2020-01-01", "XNYS", "--calendar 24x7")
    done = empty("ingest", file, "--tz", "UTC", "--stamp", "start", "--calendar", "24x7")
    assert (done.code, "31 rows added" in done.out) == (0, True)
    refused(empty("ingest", file, *BARS, "--calendar", "XNYS"), 2, "--calendar", "24x7")


@pytest.mark.parametrize("end", ("\n", "\r\n", "\r"))
@pytest.mark.parametrize("before", (b"", b"\xef\xbb\xbf"))
def test_line_ends_and_byte_order_marks(end: str, before: bytes, sample: Console, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    lines = [HEADER, "AAPL,2020-01-02,10,11,9,10.5,100", "AAPL,2020-01-03,10,11,9,10.5,100", "", ""]
    file.write_bytes(before + end.join(lines).encode())
    assert sample.document("ingest", file, *BARS)["rows_added"] == 2


def test_a_header_beyond_reason(empty: Console, tmp_path: Path) -> None:
    """A line too long for any table is named with what may be wrong, and never shown in full."""
    file = tmp_path / "bars.csv"
    for count, said in ((200_000, "no rows"), (3_000_000, "a line beyond a megabyte")):
        file.write_text("x" * count)
        assert len(refused(empty("ingest", file, *BARS), 4, "bars.csv", said)) < 1000
    file.write_text(",".join(f"column {number}" for number in range(3_000)) + "\n" + "1," * 2_999)
    text = refused(empty("ingest", file, *BARS, "--symbol", "A"), 4, "no column for ts", "and 2,976 more")
    assert len(text) < 1000
