"""Splits and dividends as vendors write them: ratios as decimals, rows that say none, dates with a clock, old days."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.columns.cache import ColumnCache
from farm.shard.dataset import Dataset
from farm.shard.ingest import IngestSummary, ingest_file, ingest_table
from farm.shard.ratio import TERM_MAX, of_decimal
from farm.shard.reader import Rows, read_rows
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.values.errors import DataError, UsageError
from farm.values.units import iso
from tests.shard.generators import day

NEW_YORK = "America/New_York"


@pytest.fixture
def store() -> MemoryStore:
    """A store that holds bars of AAA on XNYS, 2024-01-02 to 2024-01-08; its prices show no split."""
    made = MemoryStore()
    days = ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08"]
    flat = {name: [10.0] * len(days) for name in ("open", "high", "low", "close")}
    table = pa.table({"ts": days, **flat, "volume": [1] * len(days)})
    ingest_table(made, "main", table, "stock_daily", tz=NEW_YORK, stamp="start", symbol="AAA")
    return made


def put(store: Store, folder: Path, text: str, kind: str, **options: Any) -> IngestSummary:
    path = folder / "rows.csv"
    path.write_text(text)
    return ingest_file(store, "main", str(path), kind, symbol="AAA", **options)


def rows_of(store: Store, kind: str, *columns: str) -> Rows:
    dataset = Dataset(store, read_head(store, "main"))
    return read_rows(dataset, ColumnCache(0), kind, "AAA", day("1800-01-01"), day("2100-01-01"), columns)


def ratios_of(store: Store) -> list[tuple[int, int]]:
    rows = rows_of(store, "splits", "numerator", "denominator")
    return list(zip(rows["numerator"].tolist(), rows["denominator"].tolist(), strict=True))


# Ratios.


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("0.033333", "1/30"),
        ("0.03333333333333333", "1/30"),
        ("1.3333333333333333", "4/3"),
        ("0.6666666666666666", "2/3"),  # the last digit that a float64 prints is cut, not rounded
        ("0.33", "1/3"),
        ("0.033", "1/30"),
        ("0.67", "2/3"),
        ("1.333", "4/3"),
        ("3.33", "10/3"),
        ("1.0027", "365/364"),
    ],
)
def test_a_rounded_ratio_is_the_simplest_that_rounds_to_it(text: str, ratio: str) -> None:
    found, note = of_decimal(text)
    assert Fraction(ratio) == found
    assert f"{text} read as {ratio.replace('/', ':')}" == note


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("0.1", "1/10"), ("0.05", "1/20"), ("0.04", "1/25"), ("0.3", "3/10"), ("1.1", "11/10"), ("1.05", "21/20"),
     ("1.03", "103/100"), ("1.12", "28/25"), ("1.998", "999/500"), ("2.5", "5/2"), ("0.5", "1/2"), ("1e-1", "1/10")],
)  # fmt: skip
def test_a_decimal_that_is_a_ratio_itself_stays_one(text: str, ratio: str) -> None:
    """1:7 rounds to 0.1, and 20:19 to 1.05: nobody means them."""
    assert (Fraction(ratio), "") == of_decimal(text)


@pytest.mark.parametrize("text", ["1.23456789", "0.12345678901234567", "3333.33331", "0.00012345"])
def test_a_decimal_that_no_ratio_fits_is_kept_and_noted(text: str) -> None:
    found, note = of_decimal(text)
    assert abs(found - Fraction(text)) <= Fraction(text) / 10**15
    assert max(found.as_integer_ratio()) < 2**53
    assert f"{text} kept as " in note


@given(st.integers(1, 60), st.integers(2, 60), st.integers(4, 17))
def test_a_ratio_of_small_terms_survives_rounding(new: int, old: int, digits: int) -> None:
    """With four digits more than its terms need, any ratio is found again, and always one that rounds to the text."""
    ratio = Fraction(new, old)
    if ratio.denominator == 1:
        return
    text = f"{round(ratio * 10**digits)}e-{digits}"
    found, note = of_decimal(text)
    assert max(found.as_integer_ratio()) <= TERM_MAX or found == Fraction(text)
    assert abs(found - Fraction(text)) <= max(Fraction(1, 2 * 10**digits), Fraction(text) / 10**9)
    assert bool(note) == (found != Fraction(text)) or note.startswith(f"{text} kept")
    if digits >= 8:
        assert found == ratio


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1 / 30, 4 / 3]),
        pa.array([1 / 30, 4 / 3], pa.float32()),
        pa.array(["1:30", "4/3"]),
        pa.array(["0.03333", "1.3333"]),
        pa.array(["0.033333", "1.333333"]).cast(pa.decimal128(9, 6)),
    ],
)
def test_ratios_of_any_type_are_the_same(store: MemoryStore, column: pa.Array) -> None:
    table = pa.table({"ex_date": ["2024-01-03", "2024-01-05"], "ratio": column})
    ingest_table(store, "main", table, "splits", symbol="AAA")
    assert ratios_of(store) == [(1, 30), (4, 3)]


def test_a_ratio_read_as_another_is_noted(store: MemoryStore, tmp_path: Path) -> None:
    lines = "".join(f"2023-01-{at:02},0.{at:02}{at:02}{at:02}\n" for at in (3, 4, 5, 6, 9, 10, 11))
    done = put(store, tmp_path, "ex_date,ratio\n" + lines, "splits")
    assert "0.030303 read as 1:33" in done.notes
    assert len([note for note in done.notes if " read as " in note]) == 5
    assert "and 2 more ratios like these" in done.notes


@pytest.mark.parametrize("text", ["1e999", "9" * 5_000, "1:" + "9" * 5_000, "1e999999999"])
def test_a_ratio_beyond_reason_is_one_error(store: MemoryStore, tmp_path: Path, text: str) -> None:
    """Neither a traceback, nor a minute spent on a number of a billion digits."""
    with pytest.raises(DataError, match=r"ratio|beyond any split"):
        put(store, tmp_path, f"ex_date,ratio\n2023-01-03,{text}\n", "splits")


# Rows that say none.

HISTORY = """Date,Open,Dividends,Stock Splits
2024-01-02 00:00:00-05:00,10,0.0,0.0
2024-01-03 00:00:00-05:00,10,0.24,0
2024-01-04 00:00:00-05:00,10,0.0,4.0
2024-01-05 00:00:00-05:00,10,0.0,1.0
"""


def test_rows_of_nothing_are_left_out_and_counted(store: MemoryStore, tmp_path: Path) -> None:
    """A history has a row for every day, and 0 (or a ratio of 1) where nothing happened."""
    done = put(store, tmp_path, HISTORY, "dividends", mapping={"ex_date": "Date", "amount": "Dividends"}, tz=NEW_YORK)
    assert (done.rows_added, done.notes) == (1, ("3 rows left out for an amount of 0: no dividend",))
    rows = rows_of(store, "dividends", "amount")
    assert ([iso(int(one)) for one in rows["ex_day"]], rows.prices("amount").tolist()) == (["2024-01-03"], [0.24])
    done = put(store, tmp_path, HISTORY, "splits", mapping={"ex_date": "Date", "ratio": "Stock Splits"}, tz=NEW_YORK)
    assert (done.rows_added, done.notes[0]) == (1, "3 rows left out for a ratio of 0 or 1: no split")
    assert ratios_of(store) == [(4, 1)]


def test_what_is_wrong_behind_left_out_rows_is_named_by_its_own_row(store: MemoryStore, tmp_path: Path) -> None:
    lines = "ex_date,amount,pay_date\n2024-01-02,0,\n2024-01-03,1,2024-01-20\n2024-01-04,0,\n2024-01-05,1,soon\n"
    with pytest.raises(DataError, match=r"data row 4: .*'soon'"):
        put(store, tmp_path, lines, "dividends")
    with pytest.raises(DataError, match=r"data row 4: duplicate row: .* is in data row 2 already"):
        put(store, tmp_path, "ex_date,amount\n2024-01-02,0\n2024-01-03,1\n2024-01-04,0\n2024-01-03,2\n", "dividends")
    with pytest.raises(DataError, match=r"data row 3: unsorted: .* of data row 1"):
        put(store, tmp_path, "ex_date,ratio\n2024-01-04,2\n2024-01-03,0\n2024-01-03,3\n", "splits")


def test_a_file_of_nothing_adds_nothing(store: MemoryStore, tmp_path: Path) -> None:
    before = read_head(store, "main").id
    done = put(store, tmp_path, "ex_date,ratio\n2024-01-02,0.0\n2024-01-03,0.0\n", "splits")
    assert (done.rows_added, done.symbols, done.snapshot) == (0, ("AAA",), before)
    with pytest.raises(DataError, match=r"no row of the file is left to store"):
        put(MemoryStore(), tmp_path, "ex_date,ratio\n2024-01-02,0.0\n", "splits")


# Dates.


def _at_utc_midnight(*days: str) -> pa.Array:
    return pa.array(np.array(days, "datetime64[ns]")).cast(pa.timestamp("ns", "UTC"))


@pytest.mark.parametrize(
    ("dates", "shown"),
    [
        (_at_utc_midnight("2024-01-03", "2024-01-05"), ["2024-01-03", "2024-01-05"]),
        (_at_utc_midnight("2024-01-03T20:30").cast(pa.timestamp("us", "+05:30")), ["2024-01-04"]),
        (_at_utc_midnight("1962-01-03T20:30").cast(pa.timestamp("s")), ["1962-01-03"]),
        (pa.array(["2024-01-03T14:30:00Z", "2024-01-05T23:59:59+09:00"]), ["2024-01-03", "2024-01-05"]),
        (pa.array(["2024-01-03", "20240105"]), ["2024-01-03", "2024-01-05"]),
    ],
    ids=["utc", "india", "naive", "text", "dates"],
)
def test_a_stamp_can_be_a_date_and_nothing_else(store: MemoryStore, dates: pa.Array, shown: list[str]) -> None:
    """Also where its zone shows another day than the exchange's; no zone of the exchange is needed."""
    table = pa.table({"ex_date": dates, "amount": [1.0] * len(dates)})
    ingest_table(store, "main", table, "dividends", symbol="AAA", stamp="date")
    assert shown == [iso(int(one)) for one in rows_of(store, "dividends", "amount")["ex_day"]]


def test_dates_with_a_clock_time_are_refused_with_the_way_out(store: MemoryStore) -> None:
    table = pa.table({"ex_date": _at_utc_midnight("2024-01-03"), "ratio": ["2:1"]})
    with pytest.raises(DataError, match=r"2024-01-02T19:00:00-05:00 is not a plain date.*--stamp date"):
        ingest_table(store, "main", table, "splits", symbol="AAA", tz=NEW_YORK)
    with pytest.raises(UsageError, match=r"holds instants.*--stamp date"):
        ingest_table(store, "main", table, "splits", symbol="AAA")
    with pytest.raises(UsageError, match=r"no such stamp: 'midnight'.*start, end, date"):
        ingest_table(store, "main", table, "splits", symbol="AAA", stamp="midnight")


def test_a_declaration_that_is_a_date_counts_from_its_end(store: MemoryStore) -> None:
    """Read as an instant, 00:00 UTC would make it known on the day before."""
    table = pa.table({"ex_date": ["2024-01-05"], "amount": [1.0], "declared": _at_utc_midnight("2024-01-03")})
    ingest_table(store, "main", table, "dividends", symbol="AAA", stamp="date", tz=NEW_YORK)
    [known] = rows_of(store, "dividends", "declared_ts")["declared_ts"].tolist()
    assert np.datetime64("2024-01-04T05:00", "ns").astype(int) == known


# Days that no position can have seen.


def test_events_older_than_the_bars_are_kept(store: MemoryStore, tmp_path: Path) -> None:
    done = put(store, tmp_path, "ex_date,amount\n1962-02-07,0.01\n2023-01-04,0.05\n", "dividends")
    assert (done.rows_added, done.notes) == (2, ())


def test_events_that_no_session_can_see_are_left_out_with_a_note(store: MemoryStore, tmp_path: Path) -> None:
    """Older than the calendar, or before the first bar on what is no session; after it that is an error."""
    text = "ex_date,amount\n1884-12-31,1\n1931-05-02,2\n1931-05-04,3\n2023-12-30,5\n2024-01-05,4\n"
    done = put(store, tmp_path, text, "dividends")
    assert done.rows_added == 2
    assert done.notes == (
        "1 row left out, outside 1885-01-01 .. 2049-12-31, which the calendar XNYS knows: AAA 1884-12-31",
        "2 rows left out, older than the bars and on no session of XNYS: AAA 1931-05-02, AAA 2023-12-30",
    )
    with pytest.raises(DataError, match=r"data row 1: 2024-01-06 \(AAA\) is not a session .*it is a Saturday"):
        put(store, tmp_path, "ex_date,amount\n2024-01-06,4\n", "dividends")
    assert put(store, tmp_path, text, "dividends").rows_skipped == 2


def test_an_unknown_symbol_without_an_event_is_no_error(store: MemoryStore) -> None:
    table = pa.table({"symbol": ["ZZZ", "ZZZ"], "ex_date": ["2024-01-03", "2024-01-04"], "amount": [0.0, 0.0]})
    for skip in (False, True):
        done = ingest_table(store, "main", table, "dividends", skip_unknown=skip)
        assert (done.rows_added, len(done.notes)) == (0, 1)
