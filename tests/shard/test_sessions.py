"""Which rows fall on which session: clock times that contradict it, days without one, calendars that grow."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from farm.columns.cache import ColumnCache
from farm.shard import change
from farm.shard.calendar import Calendar, freeze_calendar
from farm.shard.dataset import Dataset
from farm.shard.ingest import IngestSummary, ingest_file, ingest_table
from farm.shard.reader import read_rows
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.values.errors import DataError, UsageError
from farm.values.units import iso
from tests.shard.generators import day

NEW_YORK = "America/New_York"


def put(store: Store, stamps: Any, symbol: str = "AAA", **options: Any) -> IngestSummary:
    """Ingest one bar for each stamp: texts, or an Arrow array."""
    flat = {name: [10.0] * len(stamps) for name in ("open", "high", "low", "close")}
    table = pa.table({"ts": stamps, **flat, "volume": [1] * len(stamps)})
    return ingest_table(store, "main", table, "stock_daily", symbol=symbol, **({"tz": NEW_YORK} | options))


def sessions_of(store: Store, symbol: str = "AAA") -> list[str]:
    dataset = Dataset(store, read_head(store, "main"))
    rows = read_rows(dataset, ColumnCache(0), "stock_daily", symbol, day("1800-01-01"), day("2100-01-01"), ("close",))
    return [iso(int(one)) for one in rows["day"]]


def instants(*texts: str) -> pa.Array:
    return pa.array(np.array(texts, "datetime64[ns]")).cast(pa.timestamp("ns", "UTC"))


# Clock times.

MIDWEEK = ("2024-01-03", "2024-01-04", "2024-01-05")
"""Wednesday to Friday: a day early they are sessions, too."""


@pytest.mark.parametrize(
    "stamps", [instants(*MIDWEEK), [f"{text}T00:00:00Z" for text in MIDWEEK], [f"{text}T16:00" for text in MIDWEEK]]
)
def test_a_bar_cannot_start_once_its_session_is_over(stamps: Any) -> None:
    """00:00 UTC is the evening before in New York: read as instants, dates would be stored a day early, silently."""
    store = MemoryStore()
    with pytest.raises(DataError, match=r"data row 1: the bar of AAA starts at .*closes at .* 16:00.*--stamp date"):
        put(store, stamps, stamp="start")
    assert list(store.list("")) == []
    put(store, stamps, stamp="date", tz=None)
    assert list(MIDWEEK) == sessions_of(store)


@pytest.mark.parametrize("days", [("2024-06-04", "2024-06-05"), ("2024-06-03", "2024-06-04")])
def test_dates_turned_into_utc_are_midnights_of_the_exchange(days: tuple[str, ...]) -> None:
    """23:00 UTC of the day before, in London's summer; before a Monday that is a Sunday. ``--stamp date`` would store
    them a day early, so the hint is the zone, and it works."""
    stamps = instants(*(str(np.datetime64(day, "h") - 1) for day in days))
    store, london = MemoryStore(), {"tz": "Europe/London", "calendar": "XLON", "stamp": "start"}
    with pytest.raises(DataError) as caught:
        put(store, stamps, **{**london, "tz": "UTC"})
    assert caught.value.hint.startswith("--tz Europe/London: on the exchange it is midnight then")
    assert "date" not in caught.value.hint
    put(store, stamps, **london)
    assert list(days) == sessions_of(store)


def test_a_bar_may_start_until_the_close() -> None:
    """An early close counts as one: 2023-11-24 ends at 13:00."""
    store = MemoryStore()
    put(store, ["2023-11-22T15:59:59", "2023-11-24T12:59:59"], stamp="start")
    assert sessions_of(store) == ["2023-11-22", "2023-11-24"]
    with pytest.raises(DataError, match=r"data row 2: the bar of BBB starts at 2023-11-24 13:00 .*closes at .* 13:00"):
        put(store, ["2023-11-22T13:00", "2023-11-24T13:00"], "BBB", stamp="start")


def test_a_bar_cannot_end_before_its_session_opens() -> None:
    """The end of a UTC day in London's summer is 01:00 of the next: it would be stored a day late."""
    store = MemoryStore()
    stamps = instants("2024-07-02", "2024-07-03")
    with pytest.raises(DataError, match=r"ends at 2024-07-02 01:00 .*opens at 2024-07-02 01:00.*--stamp date"):
        put(store, stamps, stamp="end", tz="Europe/London", calendar="24x7")
    put(store, stamps, stamp="end", tz="UTC", calendar="24x7")
    assert sessions_of(store) == ["2024-07-01", "2024-07-02"]


def test_the_hint_does_not_lead_into_the_same_hole() -> None:
    """Called ends, stamps of 19:00 would be stored a day early, too; those who say so are told."""
    with pytest.raises(DataError) as caught:
        put(MemoryStore(), instants(*MIDWEEK), stamp="start")
    assert "--stamp end" not in caught.value.hint
    with pytest.raises(DataError, match=r"--stamp end, if it names the end"):
        put(MemoryStore(), [f"{text}T16:00" for text in MIDWEEK], stamp="start")
    [note] = put(MemoryStore(), instants(*MIDWEEK), stamp="end").notes
    assert note.startswith("3 bars end after the close")
    assert put(MemoryStore(), [f"{text}T00:00" for text in MIDWEEK], stamp="end").notes == ()
    assert put(MemoryStore(), [f"{text}T16:00" for text in MIDWEEK], stamp="end").notes == ()


# Stamps that are taken as dates.


def as_utc(zone: str, days: Sequence[str], clock: str = "00:00") -> list[datetime.datetime]:
    """A clock time in ``zone`` on these days, as instants in UTC."""
    local = (datetime.datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=ZoneInfo(zone)) for day in days)
    return [moment.astimezone(datetime.UTC) for moment in local]


def typed(moments: Sequence[datetime.datetime]) -> pa.Array:
    return pa.array([moment.replace(tzinfo=None) for moment in moments], pa.timestamp("us", "UTC"))


TOKYO = ("2024-01-10", "2024-01-11", "2024-01-12")
"""Wednesday to Friday: a day early they are sessions, too."""
TOLD = "stored under the dates that the stamps show; as instants most of them are of another day: data row 1 shows "


@pytest.mark.parametrize("form", [typed, lambda moments: [moment.isoformat() for moment in moments]])
@pytest.mark.parametrize(
    ("calendar", "zone", "days", "clock", "shown"),
    [
        ("XTKS", "Asia/Tokyo", TOKYO, "00:00", "2024-01-09"),
        ("XLON", "Europe/London", ("2024-07-02", "2024-07-03"), "00:00", "2024-07-01"),
        # Evening is the next session of futures; in UTC it is the same date still.
        ("CMES", "America/Chicago", ("2024-01-09", "2024-01-10"), "17:00", "2024-01-09"),
    ],
)
def test_dates_that_are_another_day_as_instants_are_noted(
    form: Any, calendar: str, zone: str, days: tuple[str, ...], clock: str, shown: str
) -> None:
    store, moments = MemoryStore(), as_utc(zone, days, clock)
    [note] = put(store, form(moments), stamp="date", tz=None, calendar=calendar).notes
    assert sessions_of(store)[0] == shown, "the rule stays: clock time and zone are ignored"
    way = f"--tz {zone} --stamp start"
    meant = "2024-01-10" if calendar == "CMES" else days[0]
    assert note == f"{TOLD}{shown} and belongs to {meant} on the exchange; if that is meant, {way}"
    again = MemoryStore()
    put(again, form(moments), stamp="start", tz=zone, calendar=calendar)
    assert sessions_of(again)[0] == meant, "the way works"


def test_a_date_on_no_session_is_told_what_it_is_as_an_instant() -> None:
    """A Monday, in UTC a Sunday: the way that was named for it leads to the hole of the test above."""
    with pytest.raises(DataError) as caught:
        put(MemoryStore(), typed(as_utc("Asia/Tokyo", ["2024-01-15"])), stamp="date", tz=None, calendar="XTKS")
    assert caught.value.hint.startswith(
        "as an instant the stamp belongs to 2024-01-15 on the exchange; if that is meant, --tz Asia/Tokyo --stamp start"
    )
    with pytest.raises(DataError) as caught:
        put(MemoryStore(), ["2024-01-14"], stamp="date", tz=None, calendar="XTKS")
    assert caught.value.hint.startswith("check the dates; --skip-rows")


@pytest.mark.parametrize(
    ("stamps", "calendar"),
    [
        (instants(*MIDWEEK), "XNYS"),
        (typed(as_utc(NEW_YORK, MIDWEEK)), "XNYS"),
        ([f"{text}T16:00" for text in MIDWEEK], "XNYS"),
        ([f"{text}T15:00" for text in TOKYO], "XTKS"),  # the close
        ([f"{text}T00:00" for text in TOKYO], "XTKS"),
        (instants(*TOKYO), "XTKS"),
        ([f"{text}T15:00-06:00" for text in TOKYO], "CMES"),
        (["2024-01-10T15:00Z", "2024-01-11", "2024-01-12T00:00Z"], "XTKS"),  # one of two clock times only
    ],
)
def test_other_clock_times_of_dates_say_nothing(stamps: Any, calendar: str) -> None:
    assert put(MemoryStore(), stamps, stamp="date", tz=None, calendar=calendar).notes == ()


def test_ex_dates_that_are_another_day_as_instants_are_noted() -> None:
    store = MemoryStore()
    put(store, list(TOKYO), stamp="date", tz=None, calendar="XTKS")
    table = {"symbol": ["AAA"], "ex_date": typed(as_utc("Asia/Tokyo", ["2024-01-12"]))}
    for kind, column in (("splits", "ratio"), ("dividends", "amount")):
        rows = pa.table({**table, column: ["0.5"]})
        found = ingest_table(store, "main", rows, kind, stamp="date")
        assert f"{TOLD}2024-01-11 and belongs to 2024-01-12" in "; ".join(found.notes)


@pytest.mark.parametrize("tz", ["UTC", "Europe/London"])
def test_utc_without_a_zone_is_not_sent_in_circles(tz: str) -> None:
    """Read in any zone, 23:00 starts after the close; called a date, it is a day early, and noted."""
    stamps = ["2024-07-01T23:00:00", "2024-07-02T23:00:00"]
    with pytest.raises(DataError) as caught:
        put(MemoryStore(), stamps, stamp="start", tz=tz, calendar="XLON")
    way = "write the stamps with their zone, as in 2024-01-31T00:00:00Z, and give --tz Europe/London"
    assert caught.value.hint == f"in UTC it is midnight on the exchange: if that is meant, {way}"
    [note] = put(MemoryStore(), stamps, stamp="date", tz=None, calendar="XLON").notes
    assert "shows 2024-07-01 and belongs to 2024-07-02 on the exchange, read as UTC" in note
    assert f"{way} --stamp start" in note
    store = MemoryStore()
    put(store, [f"{text}Z" for text in stamps], stamp="start", tz="Europe/London", calendar="XLON")
    assert sessions_of(store) == ["2024-07-02", "2024-07-03"]


@pytest.mark.parametrize("is_typed", [False, True])
def test_dates_of_utc_in_the_time_of_the_exchange_are_noted(is_typed: bool) -> None:
    """00:00 UTC, shown as 20:00 of the evening before in New York: taken as dates they are a day early."""
    stamps: Any = ["2024-07-16T20:00:00", "2024-07-17T20:00:00"]
    way = "write the stamps in UTC, as in 2024-01-31T00:00:00Z, and give --stamp date"
    if is_typed:
        stamps = pa.array(np.array(["2024-07-17", "2024-07-18"], "datetime64[us]")).cast(pa.timestamp("us", NEW_YORK))
    else:
        with pytest.raises(DataError) as caught:
            put(MemoryStore(), stamps, stamp="start")
        assert caught.value.hint == f"in UTC it is midnight: if that date is meant, {way}"
    [note] = put(MemoryStore(), stamps, stamp="date", tz=None).notes
    assert note == f"{TOLD}2024-07-16 and is midnight of 2024-07-17 in UTC; if that is meant, {way}"
    store = MemoryStore()
    put(store, ["2024-07-17T00:00:00Z", "2024-07-18T00:00:00Z"], stamp="date", tz=None)
    assert sessions_of(store) == ["2024-07-17", "2024-07-18"]


# Sessions that open on the evening before.


def test_a_start_on_the_evening_before_belongs_to_the_session_it_lies_in() -> None:
    """Sunday evening is Monday's session of futures, Monday evening Tuesday's; Monday noon is Monday's, if alone."""
    store = MemoryStore()
    futures: dict[str, Any] = {"calendar": "CMES", "tz": "America/Chicago", "stamp": "start"}
    [note] = put(store, ["2024-01-07T17:00", "2024-01-08T17:00", "2024-01-10T08:30"], **futures).notes
    assert sessions_of(store) == ["2024-01-08", "2024-01-09", "2024-01-10"]
    assert note == (
        "2 bars stored under the session that the start lies in, which opened before midnight: "
        "AAA 2024-01-07 17:00 (America/Chicago) is in that of 2024-01-08"
    )
    with pytest.raises(
        DataError, match=r"data row 2: duplicate row: the session 2024-01-08 of BBB has the bar of data"
    ):
        put(MemoryStore(), ["2024-01-07T17:00", "2024-01-08T08:30"], "BBB", **futures)


# Days without a session.


def test_a_row_on_no_session_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text(
        "Date,Open,High,Low,Close,Volume\n2023-12-29,187.15,188.44,183.89,185.64,82488700\n"
        "2024-01-01,185.64,185.64,185.64,185.64,0\n2024-01-02,184.22,185.88,183.43,184.25,58414500\n"
    )
    flags: dict[str, Any] = {"symbol": "AAPL", "mapping": {"ts": "Date"}, "tz": NEW_YORK, "stamp": "start"}
    store = MemoryStore()
    with pytest.raises(DataError, match=r"data row 2: 2024-01-01 \(AAPL\) is not a session .* XNYS: it is a Monday"):
        ingest_file(store, "main", str(path), "stock_daily", **flags)
    done = ingest_file(store, "main", str(path), "stock_daily", **flags, skip_rows=["unknown-session"])
    assert (done.rows_added, done.gaps) == (2, 0)
    assert done.notes == ("1 row left out, on no session of XNYS: AAPL 2024-01-01",)
    assert sessions_of(store, "AAPL") == ["2023-12-29", "2024-01-02"]


def test_a_special_session_that_the_calendar_does_not_know() -> None:
    """The exchange was open on that Saturday."""
    stamps = ["2024-01-19", "2024-01-20", "2024-01-23"]
    flags = {"tz": "Asia/Kolkata", "stamp": "start"}
    with pytest.raises(DataError, match=r"it is a Saturday; hint: .*--skip-rows unknown-session.*--calendar 24x7"):
        put(MemoryStore(), stamps, **flags, calendar="XBOM")
    for options, count in (({"calendar": "XBOM", "skip_rows": ["unknown-session"]}, 2), ({"calendar": "24x7"}, 3)):
        assert put(MemoryStore(), stamps, **flags, **options).rows_added == count


def test_what_is_left_out_is_bounded_and_counted() -> None:
    stamps = [f"2024-01-{at:02}" for at in range(1, 32)]
    with pytest.raises(DataError, match=r"data row 1: 2024-01-01 .*; 9 more on such days"):
        put(MemoryStore(), stamps, stamp="start")
    [note] = put(MemoryStore(), stamps, stamp="start", skip_rows=["unknown-session"]).notes
    assert note.startswith("10 rows left out, on no session of XNYS: AAA 2024-01-01, AAA 2024-01-06, ")
    assert note.endswith("AAA 2024-01-14 and 5 more")
    with pytest.raises(DataError, match=r"no row of the file is left to store"):
        put(MemoryStore(), stamps[:1], stamp="start", skip_rows=["unknown-session"])
    with pytest.raises(UsageError, match=r"no such rows to skip: 'bad'.*unknown-session"):
        put(MemoryStore(), stamps, stamp="start", skip_rows=["bad"])


# Calendars that grow.


def test_days_long_ago_are_sessions() -> None:
    for calendar in ("XNYS", "24x7"):
        store = MemoryStore()
        put(store, ["1962-01-02", "1962-01-03"], stamp="start", calendar=calendar)
        assert sessions_of(store) == ["1962-01-02", "1962-01-03"]


@pytest.mark.parametrize(
    ("text", "edge"), [("1996-12-30", "begins on 1997-01-01"), ("2051-01-04", "ends on 2049-12-31")]
)
def test_beyond_the_calendar_the_error_names_what_it_knows(text: str, edge: str) -> None:
    with pytest.raises(DataError) as caught:
        put(MemoryStore(), [text], stamp="start", tz="Asia/Tokyo", calendar="XTKS")
    assert caught.value.message == f"{text} (AAA) is not a session of the calendar XTKS, which {edge}"
    assert caught.value.allowed == "1997-01-01 .. 2049-12-31"
    assert "24x7" not in caught.value.hint, "it would fail alike"


def _narrow(name: str) -> Calendar:
    """Return what calendars were in datasets of long ago, but for a session that has become known since."""
    cut = freeze_calendar(name).slice(day("1970-01-01"), day("2035-12-31"))
    kept = cut.day != day("2024-01-04")
    return Calendar(cut.name, cut.day[kept], cut.open_ts[kept], cut.close_ts[kept], cut.covers)


def test_new_rows_beyond_a_frozen_calendar_widen_it_and_change_nothing_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    with monkeypatch.context() as patch:
        patch.setattr(change, "freeze_calendar", _narrow)
        put(store, ["2024-01-02", "2024-01-03"], stamp="start")
    before = Dataset(store, read_head(store, "main"))
    old = before.calendar("XNYS")
    done = put(store, ["2024-01-05"], stamp="start")
    assert (done.calendars, read_head(store, "main").calendars) == ((), before.snapshot.calendars), (
        "nothing asks for it"
    )
    done = put(store, ["1962-01-02", "1962-01-03", "2024-01-08"], stamp="start", symbol="OLD")
    assert done.calendars == ("XNYS",)
    new = Dataset(store, read_head(store, "main")).calendar("XNYS")
    assert old.covers is not None
    assert new.covers == (day("1885-01-01"), day("2049-12-31"))
    assert new.digest(*old.covers) == old.digest(*old.covers), "keys of cells hold this digest"
    with pytest.raises(DataError, match=r"2024-01-04 \(AAA\) is not a session"):
        put(store, ["2024-01-04"], stamp="start")
    assert Dataset(store, before.snapshot).calendar("XNYS").covers == old.covers, "old snapshots stay as they are"


def test_dividends_beyond_a_frozen_calendar_widen_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    with monkeypatch.context() as patch:
        patch.setattr(change, "freeze_calendar", _narrow)
        put(store, ["2024-01-02", "2024-01-03"], stamp="start")
    table = pa.table({"ex_date": ["1962-02-07", "2023-01-04"], "amount": [0.01, 0.05]})
    done = ingest_table(store, "main", table, "dividends", symbol="AAA")
    assert (done.rows_added, done.calendars, done.notes) == (2, ("XNYS",), ())
