"""Splits, dividends and the master by file: what is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.shard.dataset import Dataset
from farm.shard.snapshot import read_head
from farm.store.memory import MemoryStore
from farm.values.errors import DataError, UsageError
from farm.values.units import NS_PER_HOUR
from tests.shard.generators import day
from tests.shard.support import GOOD, NEW_YORK, bars, listing, put, rows_of, table_file


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


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1.5:1", "write 3:2, if it means 1.5 new shares for 1 old"),
        ("1:0.5", "write 2:1, if it means 1 new shares for 0.5 old"),
        ("3 for 2", "write 3:2, if it means 3 new shares for 2 old"),
        ("1-for-10", "write 1:10, if it means 1 new shares for 10 old"),
        ("2x1", "write 2:1, if it means 2 new shares for 1 old"),
        ("1.5:0", "new shares per old: 2:1, 2/1 or 2.0"),
        ("two", "new shares per old: 2:1, 2/1 or 2.0"),
    ],
)
def test_ratios_that_are_written_otherwise_are_said_as_they_are_written_here(
    tmp_path: Path, store: MemoryStore, text: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        put(store, table_file(tmp_path, f"symbol,ex_date,ratio\nAAA,2019-01-02,{text}\n"), "splits")
    assert (caught.value.message.endswith(f"{text!r} is not a ratio"), caught.value.hint) == (True, hint)


def test_a_symbol_in_other_letters_is_named(tmp_path: Path, store: MemoryStore) -> None:
    with pytest.raises(DataError, match="splits of an unknown symbol: 'aaa'") as caught:
        put(store, table_file(tmp_path, "symbol,ex_date,ratio\naaa,2019-01-02,2:1\n"), "splits")
    assert caught.value.hint.startswith("is AAA meant? else ingest its bars first")


def test_a_pay_date_before_the_ex_date_is_noted(tmp_path: Path, store: MemoryStore) -> None:
    lines = "AAA,2019-01-02,1,2019-01-02\nAAA,2019-01-03,1,\nAAA,2019-01-04,1,2019-01-03\n"
    done = put(store, table_file(tmp_path, f"symbol,ex_date,amount,pay_date\n{lines}"), "dividends")
    assert done.notes[0] == "1 pay date before the ex-date, which counts instead: AAA 2019-01-04"
