"""Calendars, kinds and keys."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.shard import layout
from farm.shard.calendar import Calendar, calendar_from_bytes, calendar_to_bytes, freeze_calendar, widened
from farm.shard.kinds import REGISTRY, STOCK_DAILY, kind_of
from farm.store.memory import MemoryStore
from farm.values.errors import DataError, UsageError
from farm.values.units import NS_PER_DAY, NS_PER_HOUR, first_day_of, month_of
from tests.shard.generators import day, head, put_bars, walk


@pytest.mark.slow
def test_the_calendar_of_new_york() -> None:
    calendar = freeze_calendar("XNYS")
    at = {int(one): index for index, one in enumerate(calendar.day)}
    hours = [
        ((calendar.open_ts[at[day(text)]] - day(text) * NS_PER_DAY) / NS_PER_HOUR,
         (calendar.close_ts[at[day(text)]] - day(text) * NS_PER_DAY) / NS_PER_HOUR)
        for text in ("2020-01-02", "2020-07-02", "2020-11-27")
    ]  # fmt: skip
    assert hours == [(14.5, 21.0), (13.5, 20.0), (14.5, 18.0)], "winter, summer, an early close"
    assert day("2001-09-11") not in at
    assert day("2020-07-03") not in at
    assert calendar.session_count(day("2012-01-01"), day("2012-12-31")) == 250
    sliced = calendar.slice(day("2020-01-01"), day("2020-01-31"))
    assert (len(sliced.day), sliced.covers) == (21, (day("2020-01-01"), day("2020-01-31")))
    assert calendar.slice(day("2020-01-04"), day("2020-01-05")).day.size == 0
    with pytest.raises(
        DataError, match=r"reach beyond the calendar.*1885-01-01 .. 2049-12-31.*set run.start and run.end within"
    ):
        calendar.slice(day("2049-01-01"), day("2050-01-01"))
    assert freeze_calendar("NYSE").name == "XNYS"


def test_holidays_before_1970_are_no_sessions() -> None:
    """The library applies its rules from 1970 on only; taken as it is, every Christmas before would be a session."""
    calendar = freeze_calendar("XNYS")
    days = ["1962-02-07", "1961-12-25", "1962-02-22", "1962-05-30", "1962-07-04", "1962-09-03", "1962-11-22"]
    found = calendar.is_session(np.array([day(text) for text in days], np.int32))
    assert found.tolist() == [True] + [False] * 6
    assert calendar.session_count(day("1962-01-01"), day("1962-12-31")) == 252, "as the exchange has it on record"


def test_a_calendar_reaches_as_far_as_its_source_knows() -> None:
    """A bound of the source counts, whatever the range of the others."""
    assert freeze_calendar("XTKS").covers == (day("1997-01-01"), day("2049-12-31"))
    assert freeze_calendar("XBOM").covers == (day("1997-01-01"), day("2026-12-31"))
    assert freeze_calendar("24x7").covers == (day("1885-01-01"), day("2049-12-31"))
    with pytest.raises(UsageError, match=r"the calendar library cannot make ASEX") as caught:
        freeze_calendar("ASEX")
    assert len(caught.value.message) < 300


def test_a_widened_calendar_keeps_what_it_said() -> None:
    """Also where the source says something else today: results that were computed stay what they are."""
    source = freeze_calendar("XNYS")
    cut = source.slice(day("1970-01-01"), day("2035-12-31"))
    held = Calendar("XNYS", cut.day[1:], cut.open_ts[1:], cut.close_ts[1:], cut.covers)
    wider = widened(held, source)
    assert wider.covers == source.covers
    assert wider.digest(*held.covers) == held.digest(*held.covers) != source.digest(*held.covers)
    for first, last in (("1885-01-01", "1969-12-31"), ("2036-01-01", "2049-12-31")):
        assert wider.digest(day(first), day(last)) == source.digest(day(first), day(last))
    assert widened(source, held) is source


def test_calendars_survive_the_store_and_their_digest_is_of_sessions_alone() -> None:
    calendar = freeze_calendar("24x7")
    back = calendar_from_bytes(calendar_to_bytes(calendar), place="x")
    window = day("2020-01-01"), day("2020-12-31")
    assert (back.name, back.covers, back.digest(*window)) == (calendar.name, calendar.covers, calendar.digest(*window))
    assert calendar_to_bytes(back) == calendar_to_bytes(calendar)
    cut = calendar.slice(day("2019-06-01"), day("2021-06-01"))
    assert cut.digest(*window) == calendar.digest(*window)
    assert cut.digest(window[0], window[1] - 1) != calendar.digest(*window)
    moved = Calendar("24x7", calendar.day, calendar.open_ts + 1, calendar.close_ts)
    assert moved.digest(*window) != calendar.digest(*window)
    with pytest.raises(DataError, match=r"not a calendar"):
        calendar_from_bytes(b"something else", place="calendars/x.arrow")


def test_calendars_of_the_first_format_stay_readable() -> None:
    """A calendar that was frozen before differences were stored is the same calendar; one of the future is named."""
    calendar = freeze_calendar("XNYS").slice(day("2019-01-01"), day("2021-12-31"))
    columns = {"day": calendar.day, "open_ts": calendar.open_ts, "close_ts": calendar.close_ts}
    first, last = calendar.covers or (0, 0)
    metadata = {"farm.calendar": "1", "name": "XNYS", "first": str(first), "last": str(last)}
    for version, is_known in (("1", True), ("3", False)):
        fields = [pa.field(name, pa.array(column).type, nullable=False) for name, column in columns.items()]
        schema = pa.schema(fields, metadata | {"farm.calendar": version})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(pa.record_batch([pa.array(column) for column in columns.values()], schema=schema))
        if is_known:
            back = calendar_from_bytes(sink.getvalue().to_pybytes(), place="x")
            assert (back.covers, back.digest(first, last)) == (calendar.covers, calendar.digest(first, last))
        else:
            with pytest.raises(DataError, match="not a calendar of this format"):
                calendar_from_bytes(sink.getvalue().to_pybytes(), place="x")


def test_sessions_are_found() -> None:
    calendar = Calendar("C", np.array([3, 5, 9], np.int32), np.zeros(3, np.int64), np.ones(3, np.int64))
    assert calendar.is_session(np.array([2, 3, 4, 5, 9, 10], np.int32)).tolist() == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
    assert calendar.slice(4, 100).day.tolist() == [5, 9]


def test_an_unknown_calendar_lists_those_in_the_snapshot() -> None:
    store = MemoryStore()
    put_bars(store, walk("A", "2010-01-01", 3))
    with pytest.raises(DataError, match=r"no calendar 'XNYS'.*allowed: 24x7"):
        head(store).calendar("XNYS")


# Kinds and keys.


def test_every_kind_of_the_registry_is_whole() -> None:
    for name, kind in REGISTRY.items():
        assert kind_of(name) is kind
        assert kind.names[0] == kind.instrument_column == kind.sort_key[0]
        assert set(kind.sort_key) <= set(kind.names)
        for column in kind.names:
            if column.endswith("_valid"):
                assert column.removesuffix("_valid") in kind.names


@given(st.dates(min_value=datetime.date(1900, 1, 1), max_value=datetime.date(2199, 12, 31)))
def test_a_day_lies_within_its_span(date: datetime.date) -> None:
    number = day(date.isoformat())
    days = STOCK_DAILY.span_days(STOCK_DAILY.span_of(number))
    assert days is not None
    assert days[0] <= number <= days[1]
    assert first_day_of(month_of(days[0])) == days[0]


def test_keys_read_back() -> None:
    assert layout.parse_ref_key(layout.ref_key("main", 42)) == ("main", 42)
    for name in ("", "a/b", ".hidden", "x" * 65, "ü"):
        with pytest.raises(UsageError, match=r"not a dataset name"):
            layout.check_dataset(name)
