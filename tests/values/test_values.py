"""Errors that travel and speak, days that count, settings that refuse nonsense."""

from __future__ import annotations

import datetime
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.values import errors
from farm.values.errors import DataError, FarmError, RangePastEnd, SpecError, public
from farm.values.settings import CacheSettings, FarmSettings, StoreSettings, from_environment
from farm.values.units import date_of, day_of, first_day_of, iso, month_of, parse_date

EVERY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FarmError)]


@pytest.mark.parametrize("kind", EVERY)
def test_errors_travel_between_processes(kind: type[FarmError]) -> None:
    """Pickling keeps the class and every part; the text has them in one line."""
    error = kind("it broke", place="here", allowed="this", hint="do that")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error) == "here: it broke; allowed: this; hint: do that"
    assert back.to_json() == {
        "error": kind.__name__,
        "message": "it broke",
        "place": "here",
        "allowed": "this",
        "hint": "do that",
    }
    assert str(kind("it broke")) == "it broke"


def test_exit_codes_say_what_happened() -> None:
    codes = {kind.__name__: kind.exit_code for kind in EVERY}
    assert (codes["SpecError"], codes["DataError"], codes["BucketNotFound"], codes["Interrupted"]) == (3, 4, 5, 130)
    assert all(code != 0 for code in codes.values())
    assert not RangePastEnd.retryable


@given(st.dates())
def test_days_and_months(date: datetime.date) -> None:
    """day_of and date_of are inverse; a month begins at its first day."""
    day = day_of(date)
    assert date == date_of(day)
    assert date.isoformat() == iso(day)
    assert day == parse_date(iso(day), "place")
    month = month_of(day)
    assert (date.year, date.month) == (month // 12, month % 12 + 1)
    assert date.replace(day=1) == date_of(first_day_of(month))
    assert day_of(datetime.date(1970, 1, 1)) == 0


@pytest.mark.parametrize("text", ["2020-1-1", "20200101", "2020-02-30", "2020-01-01T00:00", "", "x", None, 20200101])
def test_dates_that_are_none(text: object) -> None:
    with pytest.raises(SpecError) as caught:
        parse_date(text, "run.window[0]")
    assert caught.value.place == "run.window[0]"
    assert "YYYY-MM-DD" in caught.value.allowed


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is named changes; sizes may be written as people write them."""
    assert FarmSettings() == from_environment()
    for name, value in {"FARM_STORE": "s3://b/p", "FARM_CACHE_BYTES": "1.5GiB", "FARM_THREADS": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FARM_DATASET", "")
    read = from_environment()
    assert (read.store.url, read.threads, read.dataset) == ("s3://b/p", 4, "main")
    assert read.cache.cache_bytes_max == 1610612736
    assert read.with_store("memory:x").store == StoreSettings(url="memory:x")


@pytest.mark.parametrize(
    ("name", "value"),
    [("FARM_THREADS", "many"), ("FARM_CACHE_BYTES", "big"), ("FARM_THREADS", "0"), ("FARM_WATCHDOG_S", "1")],
)
def test_settings_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A UsageError names the variable, or the limit that it breaks."""
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.UsageError) as caught:
        from_environment()
    assert caught.value.place == name or caught.value.place.startswith("settings")


@pytest.mark.parametrize(
    "make",
    [
        lambda: StoreSettings(in_flight_max=0),
        lambda: StoreSettings(request_timeout_s=500.0),
        lambda: StoreSettings(gap_bytes_max=10**9),
        lambda: StoreSettings(backoff_s=9.0),
        lambda: CacheSettings(cache_bytes_max=-1),
        lambda: CacheSettings(market_bytes_max=0),
        lambda: CacheSettings(studies_max=0),
        lambda: CacheSettings(studies_max=9, programs_max=8),
        lambda: FarmSettings(threads=0),
        lambda: FarmSettings(dataset=""),
    ],
)
def test_limits_fit_together(make) -> None:
    with pytest.raises(errors.UsageError):
        make()


def test_data_errors_name_the_place() -> None:
    with pytest.raises(DataError, match="row group 3"):
        raise DataError("damaged", place="data/x.parquet, row group 3, column close")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("http://u:p@h/x.csv?sig=1#f", "http://h/x.csv"),
        ("https://h:9000/a@b.csv", "https://h:9000/a@b.csv"),
        ("s3://bucket/k", "s3://bucket/k"),
        ("/tmp/a?b@c:d.csv", "/tmp/a?b@c:d.csv"),
        ("zip://a.csv::https://u:p@h/a.zip?s=2", "zip://a.csv::https://h/a.zip"),
        ("http://u:pa/s?s@h/x.csv", "http://h/x.csv"),
        ("http://token@h/x", "http://h/x"),
        ("http://[::1]:80/x?q='a b'\nc", "http://[::1]:80/x"),
        ("403, url='https://u:p@h/x?sig=A'", "403, url='https://h/x"),
    ],
)
def test_what_of_a_url_is_public(text: str, seen: str) -> None:
    assert public(text) == seen
