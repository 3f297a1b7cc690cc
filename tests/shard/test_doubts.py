"""Notes where prices and splits contradict each other: whichever comes second says so, about new steps alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from farm.shard.doubts import SHOWN_MAX
from farm.shard.ingest import ingest_sample, ingest_table
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.store.wrap import Around
from farm.values.units import iso
from tests.shard.generators import day

NEW_YORK = "America/New_York"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08")
ADJUSTED = ((124, 124.8), (125, 125), (127.58, 129.04), (132.76, 134.18), (137.6, 131.4))
HALVED = ((100, 100), (100, 101), (50.5, 51), (51, 51.5), (52, 52))
MISSING = "AAA 2024-01-04 opens at 0.5 times the last close without a split: is 2:1 missing?"


def put_bars(store: Store, prices: Any, days: Any = DAYS, symbol: str = "AAA", **options: Any) -> tuple[str, ...]:
    """Ingest bars of these opens and closes; return the notes."""
    opens, closes = (list(map(float, values)) for values in zip(*prices, strict=True))
    low, high = ([float(pick(pair)) for pair in prices] for pick in (min, max))
    columns = {"ts": list(days), "open": opens, "high": high, "low": low, "close": closes, "volume": [1] * len(days)}
    flags = {"tz": NEW_YORK, "stamp": "start", "symbol": symbol} | options
    return ingest_table(store, "main", pa.table(columns), "stock_daily", **flags).notes


def put_splits(store: Store, *splits: tuple[str, str], symbol: str = "AAA") -> tuple[str, ...]:
    days, ratios = (list(values) for values in zip(*splits, strict=True))
    table = pa.table({"ex_date": days, "ratio": ratios})
    return ingest_table(store, "main", table, "splits", symbol=symbol).notes


def test_a_split_that_prices_do_not_show() -> None:
    """Yahoo's closes are adjusted already; with a table of splits they would be adjusted twice."""
    store = MemoryStore()
    assert put_bars(store, ADJUSTED) == ()
    [note] = put_splits(store, ("2024-01-04", "4:1"))
    assert note == "AAA 2024-01-04 has a split of 4:1 and opens at 1.021 times the last close: adjusted already?"


def test_a_split_that_is_missing() -> None:
    store = MemoryStore()
    assert put_bars(store, HALVED) == (MISSING,)
    assert put_splits(store, ("2024-01-04", "2:1")) == (), "now it is there, and prices agree"


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
@pytest.mark.parametrize("is_backwards", [False, True])
def test_a_step_is_seen_across_ingests(cut: int, is_backwards: bool) -> None:
    """Stored rows count like new ones, before and after these, and a step is noted once."""
    parts = [(HALVED[:cut], DAYS[:cut]), (HALVED[cut:], DAYS[cut:])]
    store = MemoryStore()
    notes = [put_bars(store, *part) for part in (reversed(parts) if is_backwards else parts)]
    assert sorted(notes) == [(), (MISSING,)]
    assert put_bars(store, HALVED) == (), "nothing of it is new"


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_the_bars_after_a_split_may_come_later(cut: int) -> None:
    store = MemoryStore()
    notes = [put_bars(store, ADJUSTED[:cut], DAYS[:cut]), put_splits(store, ("2024-01-04", "4:1"))]
    notes.append(put_bars(store, ADJUSTED[cut:], DAYS[cut:]))
    assert len([note for one in notes for note in one]) == 1
    assert "has a split of 4:1" in notes[1 if cut > 2 else 2][0]


def test_a_split_on_a_day_without_a_bar_acts_on_the_next_one() -> None:
    store = MemoryStore()
    put_bars(store, [HALVED[at] for at in (0, 1, 3, 4)], [DAYS[at] for at in (0, 1, 3, 4)])
    assert put_splits(store, ("2024-01-04", "2:1")) == ()
    store = MemoryStore()
    put_bars(store, [ADJUSTED[at] for at in (0, 1, 3, 4)], [DAYS[at] for at in (0, 1, 3, 4)])
    [note] = put_splits(store, ("2024-01-04", "2:1"), ("2024-01-05", "3:1"))
    assert note.startswith("AAA 2024-01-05 has a split of 2:1 and 3:1 and opens at 1.062 times")


def test_a_ratio_upside_down() -> None:
    store = MemoryStore()
    put_bars(store, HALVED)
    [note] = put_splits(store, ("2024-01-04", "1:2"))
    assert note.endswith("has a split of 1:2 and opens at 0.5 times the last close: is the ratio upside down?")


@pytest.mark.parametrize(
    ("open_", "ratio"),
    [(33.5, "3:1"), (67, "3:2"), (75.5, "4:3"), (25.2, "4:1"), (5.02, "20:1"), (150, "2:3"), (3000, "1:30"),
     (52.4, ""), (47.6, ""), (80, ""), (120, ""), (100, ""), (45.2, "")],
)  # fmt: skip
def test_which_steps_look_like_a_split(open_: float, ratio: str) -> None:
    """Within 2 % of a ratio of small numbers; a bad day is none."""
    notes = put_bars(MemoryStore(), [(100, 100), (open_, open_)], DAYS[:2])
    assert (f"is {ratio} missing?" in "".join(notes)) if ratio else notes == ()


def test_notes_are_bounded() -> None:
    days = [iso(one) for one in range(day("2020-01-01"), day("2020-01-21"))]
    prices = [(2.0**at, 2.0**at) for at in range(20)]
    notes = put_bars(MemoryStore(), prices, days, calendar="24x7", tz="UTC")
    assert (len(notes), notes[-1]) == (SHOWN_MAX + 1, "and 14 more steps like a split")


def test_each_symbol_has_its_own_splits() -> None:
    store = MemoryStore()
    put_bars(store, HALVED)
    put_bars(store, ADJUSTED, symbol="BBB")
    [note] = put_splits(store, ("2024-01-04", "2:1"), symbol="BBB")
    assert note.startswith("BBB 2024-01-04")


def test_the_sample_has_no_doubts() -> None:
    """Thirteen years of real prices of five stocks, with their splits, in one ingest; one day fell by half."""
    assert [note for note in ingest_sample(MemoryStore(), "main").notes if "split" in note] == []


class _Watching(Around):
    """Keeps the keys of which parts are read."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.spans: set[str] = set()

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        if "/stock_daily/" in key:
            self.spans.add(key.split("/")[3])
        return super().get_range(key, start, length, if_match=if_match)


def test_splits_read_the_bars_of_their_decades_alone() -> None:
    """Those of a whole history would be fetched otherwise, and held at once."""
    store = MemoryStore()
    for year in (1985, 1995, 2005, 2015):
        days = [iso(one) for one in range(day(f"{year}-01-01"), day(f"{year + 1}-01-01"))]
        put_bars(store, [(10, 10)] * len(days), days, calendar="24x7", tz="UTC")
    watching = _Watching(store)
    notes = put_splits(watching, ("1985-06-03", "3:1"), ("2015-06-01", "2:1"))
    assert [note[:14] for note in notes] == ["AAA 1985-06-03", "AAA 2015-06-01"]
    assert watching.spans == {"1980s", "2010s"}


def put_dividends(store: Store, *dividends: tuple[str, float]) -> tuple[str, ...]:
    days, amounts = (list(values) for values in zip(*dividends, strict=True))
    table = pa.table({"ex_date": days, "amount": amounts})
    return ingest_table(store, "main", table, "dividends", symbol="AAA").notes


PLAIN = ((100, 100), (100, 101), (100, 100), (101, 102), (102, 102))


def test_a_dividend_that_is_not_below_the_last_close() -> None:
    """The close is that of the day before: 101 on the third day. Bars that come later say it of it, too."""
    store = MemoryStore()
    put_bars(store, PLAIN)
    note = (
        "AAA 2024-01-04 has a dividend of 101 after a close of 101: runs that read it are refused, is it the amount of "
    )
    assert put_dividends(store, ("2024-01-03", 99.5), ("2024-01-04", 101), ("2024-01-08", 101.5)) == (
        f"{note}a share?",
    )
    later = MemoryStore()
    put_bars(later, PLAIN[:1], DAYS[:1])
    assert put_dividends(later, ("2024-01-04", 100.5)) != (), "a close of 100, two days before"
    assert put_bars(later, PLAIN[1:], DAYS[1:]) == (), "now it is 101"


def test_a_split_comes_before_the_dividend_of_its_day() -> None:
    """After 2:1 the close of 101 is 50.5."""
    for amount, count in ((50, 0), (50.5, 1)):
        store = MemoryStore()
        put_bars(store, HALVED)
        put_splits(store, ("2024-01-04", "2:1"))
        assert len(put_dividends(store, ("2024-01-04", amount))) == count


def test_a_dividend_before_the_first_bar_is_not_asked_about() -> None:
    store = MemoryStore()
    put_bars(store, PLAIN[1:], DAYS[1:])
    assert put_dividends(store, ("2024-01-02", 500), ("2024-01-03", 500)) == ()
