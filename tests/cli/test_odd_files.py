"""Files as vendors and spreadsheets write them: taken where one meaning is left, else named for what is seen."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.support import BARS, Console, refused, write_spec
from tests.study.support import cross

pytestmark = pytest.mark.slow
FLAGS = ("--map", "ts=Date", "--symbol", "AAPL", *BARS)
HEADER = "Date,Open,High,Low,Close,Volume\n"
ROW = "2024-01-02,187.15,188.44,183.89,185.64,82488700\n"
NEXT = "2024-01-03,184.22,185.88,183.43,184.25,58414500\n"

TAKEN = {
    "blanks at the end": (HEADER + ROW + NEXT + "\n\n  \n", 2),
    "a line of one blank": (HEADER + ROW + " \n", 1),
    "a line of blanks between rows": (HEADER + ROW + " \t \n" + NEXT, 2),
    "rows of delimiters at the end": (HEADER + ROW + NEXT + ',,,,,\n" ",,,,,\n', 2),
    "blank lines before the header": ("  \n\n" + HEADER + ROW, 1),
    "semicolons in a header": (HEADER.strip() + ',"a;b;c;d;e;f;g;h"\n' + ROW.strip() + ",x\n", 1),
    "semicolons in a header without quotes": (HEADER.strip() + ",a;b;c;d;e;f;g;h\n" + ROW.strip() + ",x\n", 1),
    "a plus, and blanks": (HEADER.replace(",", ", ") + "2024-01-02, +187.15, 188.44, 183.89, 185.64, 82488700\n", 1),
    "a mark in front and semicolons": ("\ufeff" + (HEADER + ROW).replace(",", ";"), 1),
    "a quote within a name": (HEADER.strip() + ',a"b\n' + ROW.strip() + ',"c ""d"""\n', 1),
    "no end of the last line": (HEADER + ROW.strip(), 1),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case: str, empty: Console, tmp_path: Path) -> None:
    """Exactly the bars that a person sees in the file."""
    text, rows = TAKEN[case]
    file = tmp_path / "b.csv"
    file.write_text(text)
    assert empty.document("ingest", file, *FLAGS)["rows_added"] == rows
    file.write_text(HEADER + ROW + NEXT * (rows - 1))
    assert empty.document("ingest", file, *FLAGS)["rows_skipped"] == rows


def bar(**changes: str) -> str:
    values = {"Date": "2024-01-02", "Open": "10", "High": "11", "Low": "9", "Close": "10", "Volume": "5"} | changes
    return HEADER + ",".join(values.values()) + "\n"


# What is in the file, and what has to be said about it.
REFUSED = {
    "the text null": (bar(Open="null"), ("column 'Open' (open): 'null' is NaN or missing", "remove the row")),
    "a day with slashes": (bar(Date="2024/01/02"), ("'2024/01/02' is not a date", "not written like this; dates are")),
    "a day without zeros": (bar(Date="2024-1-2"), ("'2024-1-2' is not a date", "not written like this")),
    "a day and a time": (bar(Date="20240102 000000"), ("not written like this; dates are YYYY-MM-DD",)),
    "a month's name": (bar(Date='"Jan 02, 2024"'), ("names of months are not read",)),
    "the month first": (bar(Date="01/04/2024"), ("which number is the day and which the month is not guessed",)),
    "the day first": (bar(Date="02.01.2024"), ("which number is the day and which the month is not guessed",)),
    "seconds": (bar(Date="1704067200"), ("it looks like seconds since 1970, 2024-01-01 00:00:00 UTC", "unit='s'")),
    "milliseconds": (bar(Date="1704067200000"), ("it looks like milliseconds since 1970, 2024-01-01 00:00:00 UTC",)),
    "nanoseconds": (bar(Date="1704153600000000000"), ("nanoseconds since 1970, 2024-01-02 00:00:00 UTC", "unit='ns'")),
    "a second header": (bar(Date="Ticker"), ("'Ticker' is not a date", "has the header one line only?")),
    "a currency": (bar(Open='"$1,187.15"'), ("'$1,187.15' is not a number", "the sign of a currency", "like 1234.5")),
    "thousands": (bar(Volume='"1,234,567"'), ("'1,234,567' is not a number", "its commas mark thousands")),
    "thousands or decimals": (bar(Volume='"1,234"'), ("its comma marks thousands or decimals, and is not guessed",)),
    "millions": (bar(Volume="58.41M"), ("'58.41M' is not a number", "counted in thousands, millions or billions")),
    "a percentage": (bar(Open="-0.75%"), ("it is a percentage",)),
    "an account": (bar(Open="(10.5)"), ("it is negative in the manner of accounts",)),
    "a fraction of a share": (bar(Volume="2055.789"), ("2055.789 is not a whole number", "round it in the file")),
    "decimal commas": (bar(Open="187,15").replace(",", ";").replace("187;15", "187,15"), ("it has a decimal comma",)),
    "comments": ("# source: x\n# adjusted: no\n" + HEADER + ROW, ("which the first line has: '# source: x'", "remove")),
    "a comment with commas": ("# a, b\n" + HEADER + ROW, ("6 columns instead of 2", "'# a, b'", "above it")),
    "the line of a spreadsheet": ("sep=;\n" + HEADER + ROW, ("'sep=;'", "the first line is the header")),
    "no header": (ROW + NEXT, ("no column 'Date' for ts", "the first line holds values; put a header above it")),
    "no volume": ("Date,Open,High,Low,Close\n2024-01-02,10,11,9,10\n", ("no column for volume", "is not taken")),
    "a word in one column": ("Date Open\n2024-01-02 10\n", ("one column is seen: columns are set apart by a comma",)),
    "closes side by side": ("Date,AAPL,MSFT,GOOG\n2024-01-02,1,2,3\n", ("no column for open", "one row per symbol")),
    "a quote that stays open": (HEADER + ROW + NEXT.replace("4500\n", '4500,"\n'), ("data row 2: 7 columns",)),
    "rows that an open quote swallows": (
        HEADER.replace("\n", ",note\n") + ROW.replace("\n", ',"a\n') + NEXT.replace("\n", ",b\n"),
        ("data row 1: a quoted text goes over several lines", "never closed"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, empty: Console, tmp_path: Path) -> None:
    """By what is seen, with what to change; an option that does not exist is not named."""
    text, said = REFUSED[case]
    file = tmp_path / "b.csv"
    file.write_text(text)
    error = refused(empty("ingest", file, *FLAGS), 4, "b.csv", *said)
    known = empty("ingest", "--help").out
    assert all(word.split("=")[0].strip(",;:") in known for word in error.split() if word.startswith("--"))
    assert not Path(empty.store).exists()


def test_closes_side_by_side_without_a_symbol(empty: Console, tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text("Date,AAPL,MSFT\n2024-01-02,1,2\n")
    text = refused(
        empty("ingest", file, "--map", "ts=Date", *BARS), 4, "no column for symbol", "each column is a symbol"
    )
    assert "--symbol NAME" in text


def test_prices_in_billionths_do_not_pass_as_prices(empty: Console, tmp_path: Path) -> None:
    """Raw records of Databento; the same columns with decimals are taken."""
    header = "ts_event,rtype,publisher_id,open,high,low,close,volume,symbol\n"
    raw = "2024-01-03T00:00:00.000000000Z,35,2,187150000000,188440000000,183890000000,185640000000,94,AAPL\n"
    file = tmp_path / "d.csv"
    flags = ("--map", "ts=ts_event", "--tz", "UTC", "--stamp", "start")
    file.write_text(header + raw)
    refused(empty("ingest", file, *flags), 4, "d.csv", "units of 1e-9", "pretty_px")
    file.write_text(header + raw.replace("0000000,", ".0000000,"))
    assert empty.document("ingest", file, *flags)["rows_added"] == 1


def test_an_index_without_a_name(empty: Console, tmp_path: Path) -> None:
    """What pandas calls it in Parquet is found under no name and under that name, and the error says so."""
    days = pa.array(["2024-01-02", "2024-01-03", "2024-01-04"]).cast(pa.date32())
    columns = {name: pa.array([10.0] * 3) for name in ("Open", "High", "Low", "Close", "Volume")}
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({**columns, "__index_level_0__": days}), file)
    flags = ("--symbol", "AAPL", *BARS)
    refused(empty("ingest", file, *flags), 4, "no column for ts", "or --map ts= for the one without a name")
    assert empty.document("ingest", file, *flags, "--map", "ts=")["rows_added"] == 3
    assert empty.document("ingest", file, *flags, "--map", "ts=__index_level_0__")["rows_skipped"] == 3
    pq.write_table(pa.table({**columns, "__index_level_0__": days, "__index_level_1__": days}), file)
    refused(empty("ingest", file, *flags, "--map", "ts="), 4, "several columns for ts: __index_level_0__, __index")


def test_names_of_two_levels(empty: Console, tmp_path: Path) -> None:
    names = [f"('{name}', 'AAPL')" for name in ("Open", "High", "Low", "Close", "Volume")]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({**{name: [10.0] for name in names}, "Date": ["2024-01-02"]}), file)
    refused(empty("ingest", file, *FLAGS), 4, "('Open', 'AAPL'), ('High'", "two levels", "get_level_values(0)")
    turned = [f"('AAPL', '{name}')" for name in ("Open", "High", "Low", "Close", "Volume")]
    pq.write_table(pa.table({**{name: [10.0] for name in turned}, "Date": ["2024-01-02"]}), file)
    refused(empty("ingest", file, *FLAGS), 4, "two levels", "get_level_values(1)")


@pytest.mark.parametrize("symbols", [0, 1])
def test_symbols_beside_each_other(empty: Console, tmp_path: Path, symbols: int) -> None:
    """To keep the level of the prices would give five columns of each name: the hint stacks them, and works."""
    one = pd.DataFrame(
        {name: [10.0, 11.0] for name in ("Open", "High", "Low", "Close", "Volume")},
        index=pd.DatetimeIndex(["2024-01-02", "2024-01-03"], name="Date"),
    )
    frame = pd.concat({"AAPL": one, "MSFT": one}, axis=1)
    frame = frame if symbols == 0 else frame.swaplevel(axis=1)
    file = tmp_path / "a.parquet"
    frame.to_parquet(file)
    refused(empty("ingest", file, *BARS), 4, f'frame = frame.stack({symbols}).reset_index(names=["ts", "symbol"])')
    frame.stack(symbols).reset_index(names=["ts", "symbol"]).to_parquet(file)
    assert empty.document("ingest", file, *BARS)["rows_added"] == 4


def _zip(files: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return sink.getvalue()


TEXT = (HEADER + ROW).encode()
FOREIGN = {
    "b.csv": (TEXT.decode().encode("utf-16"), ("text in UTF-16", "iconv -f UTF-16 -t UTF-8")),
    "be.csv": (TEXT.decode().encode("utf-16-be"), ("text in UTF-16", "iconv -f UTF-16BE")),
    "32.csv": (TEXT.decode().encode("utf-32"), ("text in UTF-32",)),
    "latin.csv": (TEXT + b"2024-01-03,\xe9\n", ("byte 0xe9 in line 3", "WINDOWS-1252")),
    "nul.csv": (TEXT + b"2024-01-03,1\0\n", ("byte 0x00 in line 3",)),
    "b.xlsx": (_zip({"b.csv": HEADER + ROW}), ("a workbook of Excel", "save the sheet as CSV")),
    "book.csv": (_zip({"[Content_Types].xml": "<x/>", "xl/workbook.xml": "<x/>"}), ("a workbook of Excel",)),
    "old.xls": (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), ("an Excel workbook", "save the sheet as CSV")),
    "two.zip": (_zip({"a.csv": HEADER + ROW, "b.csv": HEADER}), ("a zip archive of 2 files", "unpack it")),
    "none.zip": (_zip({}), ("an empty zip archive",)),
    "cut.zip": (_zip({"a.csv": HEADER + ROW})[:-30], ("not a whole zip archive",)),
    "cut.csv.gz": (gzip.compress(TEXT)[:-9], ("not a whole gzip file",)),
    "page.csv": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", ("a web page", "a login")),
    "b.json": (b'[{"date": "2024-01-02", "open": 1}]', ("JSON, not a table", "to_parquet")),
    "b.feather": (b"ARROW1\0\0" + bytes(99), ("an Arrow (Feather) file", "Parquet")),
    "b.pkl": (b"\x80\x04\x95" + bytes(99), ("a Python pickle",)),
    "b.pdf": (b"%PDF-1.7\n%\xff\xff", ("a PDF document",)),
    "ragged.csv": (TEXT + b"\xff\xfe\x80\n", ("byte 0xff in line 3",)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_are_something_else(name: str, empty: Console, tmp_path: Path) -> None:
    """Named for what they are, in one error and nothing else on the terminal."""
    content, said = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    refused(empty("ingest", tmp_path / name, *FLAGS), 4, name, *said)


@pytest.mark.parametrize("name", ("zip", "ragged"))
def test_no_trace_of_a_callback_reaches_the_terminal(name: str, empty: Console, tmp_path: Path) -> None:
    """As a process: what a library prints past our error would be on its standard error."""
    file = tmp_path / "b.xlsx"
    file.write_bytes(_zip({"b.csv": HEADER + ROW}) if name == "zip" else TEXT + b"\x80\n")
    refused(empty.process("ingest", file, *FLAGS), 4, "b.xlsx")


@pytest.mark.parametrize("name", ("b.csv.gz", "b.csv", "b.dat"))
def test_packed_files_are_known_by_their_content(name: str, empty: Console, tmp_path: Path) -> None:
    for content in (gzip.compress(TEXT), _zip({"b.csv": HEADER + ROW})):
        (tmp_path / name).write_bytes(content)
        summary = empty.document("ingest", tmp_path / name, *FLAGS)
        assert summary["rows_added"] + summary["rows_skipped"] == 1


def test_directories_and_patterns(empty: Console, tmp_path: Path) -> None:
    """The hint is a loop that works when it is completed; a file whose name holds such signs is opened."""
    loop = f"for f in {tmp_path}/*.csv; do farm ingest"
    refused(empty("ingest", tmp_path, *FLAGS), 2, "a directory, not a file", loop)
    refused(empty("ingest", tmp_path / "*.csv", *FLAGS), 2, "a pattern, not a file", loop)
    refused(empty("ingest", "memory://x/*.csv", *FLAGS), 2, "a pattern, not a file", "each by its own URL")
    (tmp_path / "[1] b*.csv").write_bytes(TEXT)
    assert empty.document("ingest", tmp_path / "[1] b*.csv", *FLAGS)["rows_added"] == 1


SYMBOLS = ("M&M.NS", "BRK B", "BTC/USD", 'A"B<i>', "a,b", "'x'", "{x}", "<script>alert(1)</script>", "É", "日経", "🙂")


def test_symbols_of_any_printable_text(empty: Console, tmp_path: Path) -> None:
    """They are ingested, run, shown and reported, and nothing of them is taken for something else on the way."""
    quoted = ['"' + name.replace('"', '""') + '"' for name in SYMBOLS]
    rows = [
        f"{name},2024-01-{at:02d},{10 + at * 7 % 13},30,5,{10 + at * 5 % 11},9"
        for name in quoted
        for at in range(1, 32)
    ]
    file = tmp_path / "b.csv"
    file.write_text("\n".join(["symbol,ts,open,high,low,close,volume", *rows, ""]))
    flags = ("--tz", "UTC", "--stamp", "start", "--calendar", "24x7")
    assert sorted(empty.document("ingest", file, *flags)["symbols"]) == sorted(SYMBOLS)
    dates = {"start": "2024-01-05", "end": "2024-01-30", "calendar": "24x7"}
    spec = write_spec(tmp_path / "s.json", cross(tickers=SYMBOLS, fast=(2, 2, 1), slow=(4, 4, 1), **dates))
    [trial] = empty.document("run", spec)["trials"]
    assert sorted(cell["instrument"] for cell in trial["cells"]) == sorted(SYMBOLS)
    assert len({cell["key"] for cell in trial["cells"]}) == len(SYMBOLS)
    assert len({cell["equity_end"] for cell in trial["cells"]}) == 1
    for cell in trial["cells"]:
        assert f"on {cell['instrument']}" in empty("explain", cell["key"]).out
    assert empty("report", spec, "-o", tmp_path / "r.html").code == 0
    assert "<script>alert" not in (tmp_path / "r.html").read_text()
    assert all(name in empty("status").out for name in SYMBOLS)


@pytest.mark.parametrize("name", ("A\\B", "$SPX", "A\tB", "A\u202eB", "A\xa0B", "x" * 65, "é" * 33))
def test_symbols_that_are_none(name: str, empty: Console, tmp_path: Path) -> None:
    """In a column and as a flag alike."""
    file = tmp_path / "b.csv"
    file.write_text("symbol," + HEADER.lower() + f"{name}," + ROW)
    refused(empty("ingest", file, "--map", "ts=date", *BARS), 4, "data row 1", "cannot be a symbol", "64 bytes")
    file.write_text(HEADER + ROW)
    refused(empty("ingest", file, "--map", "ts=Date", "--symbol", name, *BARS), 2, "--symbol", "cannot be a symbol")


def test_a_symbol_that_is_no_text(empty: Console, tmp_path: Path) -> None:
    """Bytes of a command line that are not UTF-8 arrive as halves of a pair."""
    (tmp_path / "b.csv").write_bytes(TEXT)
    refused(empty("ingest", tmp_path / "b.csv", "--map", "ts=Date", "--symbol", "\udcff", *BARS), 2, "--symbol")
