"""Files that cannot be what they claim: one error that names file and row, and a dataset as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.support import BARS, HEADER, Console, listing, refused, write_csv

pytestmark = pytest.mark.slow
GOOD = ("AAPL,2020-01-02,10,11,9,10.5,100", "AAPL,2020-01-03,10,11,9,10.5,100")
DAY_TWO = "AAPL,2020-01-03,"

# What is in the file, and what has to be said about it, beside the name of the file.
ROWS = {
    "NaN": ((GOOD[0], DAY_TWO + "10,11,9,nan,100"), ("data row 2", "'close'", "NaN", "remove the row")),
    "empty value": ((GOOD[0], DAY_TWO + "10,11,9,,100"), ("data row 2", "'close'", "missing")),
    "infinite": ((GOOD[0], DAY_TWO + "inf,11,9,10,100"), ("data row 2", "'open'", "infinite")),
    "text": ((DAY_TWO + "ten,11,9,10,100",), ("data row 1", "'open'", "'ten' is not a number")),
    "separators": ((DAY_TWO + '"1,000",1100,900,950,100',), ("data row 1", "without separators")),
    "duplicate": ((GOOD[0], GOOD[0]), ("data row 2", "duplicate row: AAPL 2020-01-02 is in data row 1", "keep one")),
    "two values for a day": ((GOOD[0], "AAPL,2020-01-02,9,11,9,9,1"), ("data row 2", "duplicate row")),
    "high below low": ((GOOD[0], DAY_TWO + "10,9,11,10,100"), ("data row 2", "high 9.0 is below low 11.0", "--map")),
    "unsorted": ((GOOD[1], GOOD[0]), ("data row 2", "unsorted: AAPL 2020-01-02 after 2020-01-03", "--sort")),
    "price below zero": ((DAY_TWO + "-10,11,-11,5,1",), ("data row 1", "prices are above zero")),
    "price zero": ((DAY_TWO + "0,11,0,5,1",), ("data row 1", "prices are above zero")),
    "volume below zero": ((DAY_TWO + "10,11,9,10,-1",), ("data row 1", "volume is -1")),
    "half a share": ((DAY_TWO + "10,11,9,10,0.5",), ("data row 1", "whole shares")),
    "no session": ((GOOD[0], "AAPL,2020-01-04,10,11,9,10,1"), ("data row 2", "2020-01-04", "XNYS", "--tz")),
    "day before month": (("AAPL,02/01/2020,10,11,9,10,1",), ("data row 1", "'02/01/2020' is not a date", "YYYY-MM-DD")),
    "no such day": (("AAPL,2020-02-30,10,11,9,10,1",), ("data row 1", "'2020-02-30' is not a date")),
    "no symbol": (("BAD\\SYMBOL,2020-01-02,10,11,9,10,1",), ("data row 1", "cannot be a symbol")),
    "short row": ((GOOD[0], "AAPL,2020-01-03,10"), ("data row 2", "3 columns instead of 7", "cut off")),
    "a note": ((GOOD[0], "Data by a vendor"), ("data row 2", "1 column instead of 7", "is it a note? remove")),
    "long row": ((GOOD[0] + ",1",), ("data row 1", "8 columns instead of 7", "quotes")),
    "no rows": ((), ("no rows",)),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows(case: str, sample: Console, folder: Path, tmp_path: Path) -> None:
    """Refused; the dataset is as it was; the corrected file is taken."""
    before = listing(folder)
    rows, said = ROWS[case]
    file = write_csv(tmp_path / "bars.csv", rows)
    refused(sample("ingest", file, *BARS), 4, "bars.csv", *said)
    assert listing(folder) == before
    write_csv(file, GOOD)
    assert sample.document("ingest", file, *BARS)["rows_added"] == 2


@pytest.mark.parametrize("case", ("NaN", "duplicate", "high below low", "unsorted"))
def test_a_new_store_is_not_even_made(case: str, empty: Console, folder: Path, tmp_path: Path) -> None:
    """Good rows of a bad file are not taken; the error is the same as JSON."""
    rows = [row.replace("AAPL", "NEW") for row in ROWS[case][0]]
    file = write_csv(tmp_path / "bars.csv", [*(row.replace("AAPL", "OTHER") for row in GOOD), *rows])
    done = empty("ingest", file, *BARS, "--json")
    assert (done.code, done.error["error"]) == (4, "DataError")
    assert done.error["place"].startswith(str(file))
    assert not folder.exists()


def test_a_row_that_differs_from_the_stored_one(sample: Console, folder: Path, tmp_path: Path) -> None:
    before = listing(folder)
    file = write_csv(tmp_path / "bars.csv", ["AAPL,2000-03-01,1,2,1,2,5", "NEW,2020-01-02,10,11,9,10,1"])
    text = refused(sample("ingest", file, *BARS), 4, "data row 1", "AAPL 2000-03-01", "differs", "--dataset")
    assert "118.56" in text or "130.31" in text or "9616100" in text
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--stamp", "start"), 2, ("--tz", "no time zone given", "--tz America/New_York")),
        (("--tz", "America/New_York"), 2, ("--stamp", "start, end", "--stamp start")),
        (("--tz", "New York", "--stamp", "start"), 2, ("--tz", "'New York'", "America/New_York")),
        ((*BARS, "--stamp", "middle"), 2, ("--stamp", "'middle'", "start, end")),
        ((*BARS, "--map", "ts"), 2, ("--map", "'ts' is no pair", "ours=theirs")),
        ((*BARS, "--map", "ts=ts,ts=open"), 2, ("--map", "'ts' is mapped twice")),
        ((*BARS, "--map", "date=ts"), 2, ("--map", "'date'", "symbol, ts, open, high, low, close, volume")),
        ((*BARS, "--map", "ts=day"), 4, ("bars.csv", "no column 'day' for ts", HEADER.replace(",", ", "))),
        ((*BARS, "--kind", "candles"), 2, ("--kind", "'candles'", "stock_daily, splits, dividends, instruments")),
        ((*BARS, "--codec", "rar"), 2, ("--codec", "'rar'", "lz4, zstd, snappy, none")),
        ((*BARS, "--row-group-rows", "0"), 2, ("--row-group-rows",)),
        ((*BARS, "--price-scale", "9"), 2, ("--price-scale",)),
        ((*BARS, "--type", "bond"), 2, ("--type", "'bond'", "stock, etf, index")),
        ((*BARS, "--calendar", "MOON"), 2, ("--calendar", "'MOON'", "XNYS")),
        ((*BARS, "--dataset", "a b"), 2, ("--dataset", "'a b'")),
        ((*BARS, "--symbol", "MSFT"), 4, ("bars.csv, data row 1", "other symbols than 'MSFT'", "drop --symbol")),
        ((*BARS, "--symbol", "A", "--map", "symbol=symbol"), 2, ("--symbol", "drop --symbol")),
        (("--kind", "splits"), 4, ("bars.csv", "no column for ex_date", "--map ex_date=")),
    ],
)
def test_flags(flags: tuple[str, ...], code: int, said: tuple[str, ...], empty: Console, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "bars.csv", GOOD)
    refused(empty("ingest", file, *flags), code, *said)
    assert not Path(empty.store).exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (bytes(range(128, 256)) * 3, "neither Parquet nor text in UTF-8"),
        (b"PAR1 and then something else", "not a whole Parquet file"),
        (HEADER.encode() + b"\r\n", "no rows"),
    ],
)
def test_files_of_nothing(content: bytes, said: str, empty: Console, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    file.write_bytes(content)
    refused(empty("ingest", file, *BARS), 4, str(file), said)


def test_paths_that_are_no_files(empty: Console, tmp_path: Path) -> None:
    refused(empty("ingest", tmp_path / "none.csv", *BARS), 2, "none.csv", "no such file", "check the path")
    refused(empty("ingest", tmp_path, *BARS), 2, str(tmp_path), "a directory, not a file")
    refused(empty("ingest", "gopher://x/y.csv", *BARS), 2, "gopher://x/y.csv", "cannot open")
    assert not Path(empty.store).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(empty: Console, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "bars.csv", GOOD)
    file.chmod(0)
    refused(empty("ingest", file, *BARS), 5, "bars.csv", "may not be read", "owner and mode")


def test_actions_of_unknown_instruments(sample: Console, folder: Path, tmp_path: Path) -> None:
    before = listing(folder)
    file = write_csv(tmp_path / "splits.csv", ["AAPL,2014-06-09,7:1", "NONE,2014-06-09,2:1"], "symbol,ex_date,ratio")
    text = refused(sample("ingest", file, "--kind", "splits"), 4, "data row 2", "'NONE'")
    assert "ingest its bars first" in text
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("AAPL,X,stock,1", ("the symbol 'AAPL' belongs to another instrument", "one instrument")),
        ("NEW,NEW,bond,1", ("no such type: 'bond'", "stock, etf, index")),
        ("NEW,NEW,stock,1e32", ("1e+32 is not a lot", "at most 6 decimals")),
        ("NEW,NEW,stock,0", ("0.0 is not a lot", "positive")),
        ("NEW,NEW,stock,0.0000001", ("1e-07 is not a lot", "6 decimals")),
        ("IBM,IBM,etf,1", ("IBM", "etf", "stock")),
    ],
)
def test_instruments(row: str, said: tuple[str, ...], sample: Console, folder: Path, tmp_path: Path) -> None:
    before = listing(folder)
    file = write_csv(tmp_path / "instruments.csv", ["OTHER,OTHER,stock,1", row], "symbol,id,type,lot")
    refused(sample("ingest", file, "--kind", "instruments"), 4, "instruments.csv, data row 2", *said)
    assert listing(folder) == before
