"""Decides what the clock times of stamps say of the sessions that their rows are stored under.

- A start that its day would refuse, but that lies within a session, belongs to that session: those of futures open on
  the evening before. What is moved is noted.
- A bar cannot start at or after the close of its session, nor end at or before its open. Stamps that say so are dates
  that were read as instants (00:00 UTC is the evening before in New York), and would put each bar on a wrong day.
- Stamps that are taken as dates stay on the dates they show. When most of them lie within the session of another day,
  or are midnight of another date on the exchange or in UTC, that is noted.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from farm.shard.calendar import Calendar, zone_of
from farm.shard.parse import NO_CLOCK, instant_of
from farm.shard.stage import ONE_A_DAY, Piece, Staged
from farm.values.arrays import BOOL, I32, I64
from farm.values.errors import DataError
from farm.values.units import NS_PER_S, day_of, iso

_zone_of = cache(zone_of)


def by_clock(staged: Staged, calendars: Mapping[str, Calendar]) -> tuple[Staged, tuple[str, ...]]:
    """Return the rows under the days of the sessions that they start in, and what to note.

    Errors: DataError for the first bar that starts after its session, or ends before it, and for the second of two
    that start in one session.
    """
    if staged.reading.dates:
        return staged, _other_days(staged, calendars)
    if staged.reading.stamp == "start":
        staged, notes = _moved(staged, calendars)
        return staged, notes + _refused(staged, calendars, is_start=True)
    return staged, _refused(staged, calendars, is_start=False)


def odd_day_hint(staged: Staged, piece: Piece, row: int, calendar: Calendar) -> str:
    """Return what the clock time of a row on no session suggests, if it has one."""
    moment = NO_CLOCK if piece.moments is None else int(piece.moments[row])
    if staged.reading.dates:
        named, way = (values[row] for values in _named(staged, piece, calendar))
        is_other = named != piece.columns["day"][row]
        told = _belongs(int(named), calendar, int(way))
        return f"as an instant the stamp {told}" if is_other else "check the dates"
    is_start = staged.reading.stamp == "start"
    midnight = moment != NO_CLOCK and is_start and _midnight(staged, moment, calendar)
    date = " (date, if clock time and zone mean nothing)" if moment != NO_CLOCK else ""
    return midnight or f"check --tz and --stamp{date}"


def _moved(staged: Staged, calendars: Mapping[str, Calendar]) -> tuple[Staged, tuple[str, ...]]:
    pieces = dict(staged.pieces)
    first: tuple[int, str] | None = None
    count = 0
    for symbol, piece in staged.pieces.items():
        if piece.moments is None:
            continue
        day, calendar = piece.columns["day"], calendars[symbol]
        held, is_inside = _session_at(piece.moments, calendar)
        closes = calendar.close_ts[_place(day, calendar)]
        is_moved = is_inside & (held != day) & (~calendar.is_session(day) | (piece.moments >= closes))
        if not is_moved.any():
            continue
        days = np.where(is_moved, held, day).astype(np.int32)
        zone = staged.reading.tz or "UTC"
        if (np.diff(days) == 0).any():
            row = int(np.argmax(np.diff(days) == 0)) + 1
            raise DataError(
                f"duplicate row: the session {iso(int(days[row]))} of {symbol} has the bar of data row "
                f"{piece.numbers[row - 1]} already",
                place=staged.source.row(int(piece.numbers[row])),
                hint=ONE_A_DAY,
            )
        pieces[symbol] = replace(piece, columns={**piece.columns, "day": days})
        count += int(is_moved.sum())
        row = int(np.argmax(is_moved))
        told = f"{symbol} {_shown(int(piece.moments[row]), zone)} ({zone}) is in that of {iso(int(days[row]))}"
        first = min(first or (int(piece.numbers[row]), told), (int(piece.numbers[row]), told))
    if first is None:
        return staged, ()
    note = (
        f"{count} bar{'' if count == 1 else 's'} stored under the session that the start lies in, which opened before"
    )
    return replace(staged, pieces=pieces), (f"{note} midnight: {first[1]}",)


def _refused(staged: Staged, calendars: Mapping[str, Calendar], *, is_start: bool) -> tuple[str, ...]:
    """Raise DataError for the first bar that starts after its session, or ends before it; note late ends."""
    bad: list[tuple[int, str, int, int]] = []
    late = inside = 0
    for symbol, piece in staged.pieces.items():
        if piece.moments is None:
            continue
        day, calendar = piece.columns["day"], calendars[symbol]
        at = _place(day, calendar)
        bound = calendar.close_ts[at] if is_start else calendar.open_ts[at]
        has_clock = calendar.is_session(day) & (piece.moments != NO_CLOCK)
        if not is_start:
            is_late = has_clock & (piece.moments > calendar.close_ts[at])
            late += int(is_late.sum())
            inside += int((is_late & _session_at(piece.moments, calendar)[1]).sum())
        is_wrong = has_clock & (piece.moments >= bound if is_start else piece.moments <= bound)
        if is_wrong.any():
            rows = np.flatnonzero(is_wrong)
            row = int(rows[np.argmin(piece.numbers[rows])])
            bad.append((int(piece.numbers[row]), symbol, int(piece.moments[row]), int(bound[row])))
    if not bad:
        what = (
            "1 bar ends after the close of its session"
            if late == 1
            else f"{late} bars end after the close of their sessions"
        )
        is_next = 2 * inside > late
        how = "starts, in the session that follows, ingest them with --stamp start"
        return (f"{what}: if stamps are {how if is_next else _AS_DATES}",) if late else ()
    number, symbol, moment, limit = min(bad)
    zone = staged.reading.tz or "UTC"
    starts, closes, other = ("starts", "closes", "end") if is_start else ("ends", "opens", "start")
    # Only a stamp on the very instant can be of the other sort: a later one would be stored a day early as an end, too.
    more = f"--stamp {other}, if it names the {other} of the bar" if moment == limit else "else check --tz"
    raise DataError(
        f"the bar of {symbol} {starts} at {_shown(moment, zone)} ({zone}), and its session {closes} at "
        f"{_shown(limit, zone)}",
        place=staged.source.row(number),
        hint=(is_start and _midnight(staged, moment, calendars[symbol]))
        or f"--stamp date, if the stamp is a date whose clock time and zone mean nothing; {more}",
    )


_AS_DATES = "dates, ingest them with --stamp date"


def _other_days(staged: Staged, calendars: Mapping[str, Calendar]) -> tuple[str, ...]:
    """Return a note when most stamps with a clock time name another day than the date they show."""
    time = staged.kind.time_column
    assert time is not None
    clocks = others = 0
    first: tuple[int, str] | None = None
    for symbol, piece in staged.pieces.items():
        if piece.moments is None:
            continue
        day, calendar = piece.columns[time], calendars[symbol]
        named, ways = _named(staged, piece, calendar)
        clocks += int((piece.moments != NO_CLOCK).sum())
        is_other = named != day
        others += int(is_other.sum())
        if is_other.any():
            row = int(np.argmax(is_other))
            told = _belongs(int(named[row]), calendar, int(ways[row]))
            told = f"data row {piece.numbers[row]} shows {iso(int(day[row]))} and {told}"
            first = min(first or (int(piece.numbers[row]), told), (int(piece.numbers[row]), told))
    if first is None or 2 * others <= clocks:
        return ()
    return (f"stored under the dates that the stamps show; as instants most of them are of another day: {first[1]}",)


_ON_EXCHANGE, _AS_UTC, _IN_UTC = range(3)


def _belongs(day: int, calendar: Calendar, way: int) -> str:
    """Return what to do about a stamp that is a date, and of another day as an instant."""
    there = _zone_of(calendar.name)
    if way == _IN_UTC:
        return f"is midnight of {iso(day)} in UTC; if that is meant, {_IN_UTC_FORM}"
    if way == _AS_UTC:
        return (
            f"belongs to {iso(day)} on the exchange, read as UTC; if that is meant, {_WITH_ZONE} {there} --stamp start"
        )
    return f"belongs to {iso(day)} on the exchange; if that is meant, --tz {there} --stamp start"


_WITH_ZONE = "write the stamps with their zone, as in 2024-01-31T00:00:00Z, and give --tz"
_IN_UTC_FORM = "write the stamps in UTC, as in 2024-01-31T00:00:00Z, and give --stamp date"


def _named(staged: Staged, piece: Piece, calendar: Calendar) -> tuple[I32, I64]:
    """Return the day that each stamp names as an instant, and by which way.

    That is the day of the session that it lies in, else of the midnight that it is on the exchange, else of that in
    UTC, else the date shown. What names no zone is local first; only when it is outside of all sessions so, it may be
    UTC.
    """
    time, zone = staged.kind.time_column, _zone_of(calendar.name)
    assert time is not None
    shown: I32 = piece.columns[time]
    if piece.moments is None or not zone:
        return shown, np.zeros(shown.shape, np.int64)
    values, codes = np.unique(piece.moments, return_inverse=True)
    instants = _instants(values, ZoneInfo(staged.reading.tz or zone)) if staged.is_local else values
    session, is_inside = _session_at(instants, calendar)
    is_free = ~is_inside & ~(np.isin(instants, calendar.close_ts) & staged.is_local)
    midnight, is_midnight = _midnights(values, zone)
    in_utc, is_in_utc = _midnights(instants, "UTC")
    is_midnight, is_in_utc = is_midnight & is_free, is_in_utc & is_free & ~is_midnight
    day = np.select([is_inside, is_midnight, is_in_utc], [session, midnight, in_utc])
    way = np.select([is_in_utc, is_midnight & staged.is_local], [_IN_UTC, _AS_UTC], _ON_EXCHANGE)
    named: I32 = np.where((is_inside | is_midnight | is_in_utc)[codes], day[codes], shown).astype(np.int32)
    return named, way[codes]


def _midnights(instants: I64, zone: str) -> tuple[I32, BOOL]:
    """Return the day that begins at each instant in ``zone``, and whether one does."""
    days = [None if ns == NO_CLOCK else _midnight_day(ns, zone) for ns in instants.tolist()]
    return np.array([day or 0 for day in days], np.int32), np.array([day is not None for day in days], np.bool_)


def _instants(local: I64, zone: ZoneInfo) -> I64:
    """Return the instants of moments that are local to ``zone`` and counted as if they were UTC."""
    return np.array(
        [
            ns if ns == NO_CLOCK else instant_of(_moment(ns, datetime.UTC).replace(tzinfo=zone), zone)
            for ns in local.tolist()
        ],
        np.int64,
    )


def _session_at(moments: I64, calendar: Calendar) -> tuple[I32, BOOL]:
    """Return the session that began last before each moment, and whether the moment lies in it."""
    at = np.maximum(np.searchsorted(calendar.open_ts, moments, side="right") - 1, 0)
    is_inside: BOOL = (moments >= calendar.open_ts[at]) & (moments < calendar.close_ts[at])
    return calendar.day[at], is_inside


def _place(day: I32, calendar: Calendar) -> I64:
    """Return the place of each day among the sessions, or of the session after it."""
    return np.minimum(np.searchsorted(calendar.day, day), calendar.day.size - 1)


def _midnight(staged: Staged, ns: int, calendar: Calendar) -> str:
    """Return a hint where a start is midnight on the exchange, but read in another zone, else nothing.

    Such a stamp is a date turned into UTC. The date that it shows there may be the day before.
    """
    there, zone = _zone_of(calendar.name), staged.reading.tz or "UTC"
    if not there:
        return ""
    if not staged.is_local:
        is_midnight = there != zone and _midnight_day(ns, there) is not None
        return f"--tz {there}: on the exchange it is midnight then" if is_midnight else ""
    # The same clock time in UTC: no zone that is given could say so.
    as_utc = instant_of(_moment(ns, ZoneInfo(zone)).replace(tzinfo=datetime.UTC), ZoneInfo("UTC"))
    if _midnight_day(as_utc, there) is None:
        return f"in UTC it is midnight: if that date is meant, {_IN_UTC_FORM}" if _midnight_day(ns, "UTC") else ""
    ends = zone == there and bool(np.isin(ns, calendar.close_ts))
    return f"in UTC it is midnight on the exchange: if that is meant, {_WITH_ZONE} {there}" + ends * (
        "; if it names the end of the bar, --stamp end"
    )


def _midnight_day(ns: int, zone: str) -> int | None:
    """Return the day that begins at this instant in ``zone``, if one does."""
    local = _moment(ns, ZoneInfo(zone))
    return day_of(local.date()) if local.time() == datetime.time() else None


def _moment(ns: int, zone: datetime.tzinfo) -> datetime.datetime:
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=int(ns) // NS_PER_S)
    return moment.astimezone(zone)


def _shown(ns: int, zone: str) -> str:
    return _moment(ns, ZoneInfo(zone)).replace(tzinfo=None).isoformat(sep=" ", timespec="minutes")
