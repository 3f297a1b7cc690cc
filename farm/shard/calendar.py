"""Exchange calendars, frozen: which days are sessions, and when they open and close.

A calendar enters the store once, at ingest, as an Arrow object named by its content; every run reads that object. So a
newer calendar library changes no result, and reading needs neither that library nor pandas. Only ``freeze_calendar``
knows them. ``24x7`` (every day, midnight to midnight UTC) is computed.

A frozen calendar covers all days that its source knows. Rows beyond them widen it (``widened``): what it says of the
days it covered never changes, so no digest of a window in them does.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from farm.shard.arrow import to_numpy
from farm.values.arrays import BOOL, I32, I64, readonly
from farm.values.canon import canonical_array_bytes
from farm.values.errors import DataError, UsageError
from farm.values.units import NS_PER_DAY, day_of, iso, parse_date

ALWAYS_OPEN = "24x7"
FIRST_DATE = "1885-01-01"
LAST_DATE = "2049-12-31"
"""Where a source sets no bound itself. The holidays of New York are on record from 1885 on."""

_REASON_MAX = 200

_SCHEMA = pa.schema(
    [
        pa.field("gap", pa.int32(), nullable=False),  # days since the session before; of the first: since 1970-01-01
        pa.field("opens", pa.int64(), nullable=False),  # ns from midnight UTC of the day to its open,
        pa.field("closes", pa.int64(), nullable=False),  # and to its close
    ]
)
_SCHEMA_1 = pa.schema(
    [
        pa.field("day", pa.int32(), nullable=False),
        pa.field("open_ts", pa.int64(), nullable=False),
        pa.field("close_ts", pa.int64(), nullable=False),
    ]
)
"""The first format, whose calendars stay readable."""


@dataclass(frozen=True, eq=False)
class Calendar:
    """Sessions in time order.

    Shapes: day, open_ts, close_ts (n,), read-only. ``day`` is the exchange-local date, and strictly rises.
    Units:  days since 1970-01-01; instants int64 ns UTC. A session is [open_ts, close_ts].
    covers: first and last day about which the calendar knows; None: no bound is known, nothing is checked.
    """

    name: str
    day: I32
    open_ts: I64
    close_ts: I64
    covers: tuple[int, int] | None = None

    def slice(self, first_day: int, last_day: int) -> Calendar:
        """Return the sessions in [first_day, last_day], as views; DataError beyond what the calendar covers."""
        low, high = self._bounds(first_day, last_day)
        return Calendar(
            self.name, self.day[low:high], self.open_ts[low:high], self.close_ts[low:high], (first_day, last_day)
        )

    def digest(self, first_day: int, last_day: int) -> str:
        """Return the SHA-256 (hex) of the sessions in [first_day, last_day]: their count, days and instants."""
        low, high = self._bounds(first_day, last_day)
        digest = hashlib.sha256(b"sessions\0" + (high - low).to_bytes(8, "little"))
        for column in (self.day, self.open_ts, self.close_ts):
            digest.update(canonical_array_bytes(column[low:high]))
        return digest.hexdigest()

    def is_session(self, days: I32) -> BOOL:
        """Return which of ``days`` are sessions, same shape."""
        if not self.day.size:
            return np.zeros(days.shape, np.bool_)
        at = np.minimum(np.searchsorted(self.day, days), self.day.size - 1)
        found: BOOL = self.day[at] == days
        return found

    def session_count(self, first_day: int, last_day: int) -> int:
        """Return how many sessions lie in [first_day, last_day]; DataError beyond what the calendar covers."""
        low, high = self._bounds(first_day, last_day)
        return high - low

    def _bounds(self, first_day: int, last_day: int) -> tuple[int, int]:
        if self.covers is not None and first_day <= last_day:
            first, last = self.covers
            if first_day < first or last_day > last:
                raise DataError(
                    f"the days {iso(first_day)} .. {iso(last_day)} reach beyond the calendar",
                    place=f"calendar {self.name}",
                    allowed=f"{iso(first)} .. {iso(last)}",
                    hint="set run.start and run.end within them",
                )
        low = int(np.searchsorted(self.day, first_day, side="left"))
        return low, max(low, int(np.searchsorted(self.day, last_day, side="right")))

    def knows(self, days: I32) -> BOOL:
        """Return which of ``days`` the calendar covers, same shape."""
        if self.covers is None:
            return np.ones(days.shape, np.bool_)
        known: BOOL = (days >= self.covers[0]) & (days <= self.covers[1])
        return known


def widened(calendar: Calendar, source: Calendar) -> Calendar:
    """Return ``calendar`` and, beyond the days it covers, the sessions of ``source``; itself if there are no more."""
    if calendar.covers is None or source.covers is None:
        return calendar
    first, last = calendar.covers
    low, high = min(first, source.covers[0]), max(last, source.covers[1])
    if (low, high) == (first, last):
        return calendar
    before, after = source.day < first, source.day > last
    day, open_ts, close_ts = (
        readonly(np.concatenate([theirs[before], ours, theirs[after]]))
        for ours, theirs in (
            (calendar.day, source.day),
            (calendar.open_ts, source.open_ts),
            (calendar.close_ts, source.close_ts),
        )
    )
    return Calendar(calendar.name, day, open_ts, close_ts, (low, high))


def calendar_to_bytes(calendar: Calendar) -> bytes:
    """Return the Arrow IPC stream of ``calendar``; the same sessions give the same bytes.

    Differences repeat themselves and instants do not, so a century and a half is 10 kB instead of 850, which every
    new process reads.
    """
    covers = calendar.covers if calendar.covers is not None else (0, -1)
    metadata = {"farm.calendar": "2", "name": calendar.name, "first": str(covers[0]), "last": str(covers[1])}
    schema = _SCHEMA.with_metadata(metadata)
    midnight = calendar.day.astype(np.int64) * NS_PER_DAY
    gap = np.diff(calendar.day, prepend=np.int32(0))
    columns = [pa.array(column) for column in (gap, calendar.open_ts - midnight, calendar.close_ts - midnight)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def calendar_from_bytes(data: bytes, *, place: str) -> Calendar:
    """Return the calendar in ``data``, which the caller has verified; DataError at ``place`` when it is none."""
    try:
        table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        version = metadata.get("farm.calendar", "")
        known = {"1": _SCHEMA_1, "2": _SCHEMA}.get(version)
        if known is None or not table.schema.equals(known):
            raise DataError("not a calendar of this format", place=place)
        day, open_ts, close_ts = (to_numpy(column) for column in table.columns)
        if version == "2":
            day = np.cumsum(day, dtype=np.int32)
            midnight = day.astype(np.int64) * NS_PER_DAY
            open_ts, close_ts = open_ts + midnight, close_ts + midnight
        covers = int(metadata["first"]), int(metadata["last"])
        name = metadata["name"]
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"not a calendar: {error}", place=place) from error
    if np.any(np.diff(day) <= 0) or np.any(open_ts >= close_ts):
        raise DataError("sessions are not in order", place=place)
    day, open_ts, close_ts = (readonly(column) for column in (day, open_ts, close_ts))
    return Calendar(name, day, open_ts, close_ts, covers if covers[0] <= covers[1] else None)


def freeze_calendar(name: str) -> Calendar:
    """Return the calendar ``name`` (an ``exchange_calendars`` name or alias, or 24x7) over the widest known range.

    The name of the result is the canonical one: ``NYSE`` freezes XNYS.
    Errors: UsageError for a name that nobody knows, with close ones.
    """
    if name in (ALWAYS_OPEN, "24/7"):
        return _always_open()
    # Imported here: it brings pandas along, which no read path needs.
    import exchange_calendars
    import pandas

    names = exchange_calendars.get_calendar_names()
    if name not in names:
        close = difflib.get_close_matches(name.upper(), names, n=5) or ["XNYS", "XNAS", "XLON"]
        raise UsageError(f"no such calendar: {name!r}", place="calendar", allowed=", ".join([*close, ALWAYS_OPEN]))
    canonical = exchange_calendars.resolve_alias(name)
    try:
        known = exchange_calendars.get_calendar(canonical)
        first, last = known.bound_min(), known.bound_max()
        first = pandas.Timestamp(FIRST_DATE) if first is None else first
        last = pandas.Timestamp(LAST_DATE) if last is None else last
        schedule = exchange_calendars.get_calendar(canonical, start=first, end=last).schedule
    except (ValueError, RuntimeError) as error:
        reason = str(error)[:_REASON_MAX]
        raise UsageError(f"the calendar library cannot make {canonical}: {reason}", place="calendar") from error
    if known.regular_holidays is not None:
        # The library asks its rules for the holidays from 1970 on only: before that every Christmas would be a session.
        schedule = schedule[~schedule.index.isin(known.regular_holidays.holidays(first, last))]
    return Calendar(
        canonical,
        readonly((schedule.index.as_unit("s").asi8 // 86_400).astype(np.int32)),
        readonly(schedule["open"].dt.as_unit("ns").astype("int64").to_numpy(copy=True)),
        readonly(schedule["close"].dt.as_unit("ns").astype("int64").to_numpy(copy=True)),
        (day_of(first.date()), day_of(last.date())),
    )


def zone_of(name: str) -> str:
    """Return the time zone of the exchange behind a calendar, for a hint; nothing where the source knows none."""
    if name == ALWAYS_OPEN:
        return "UTC"
    import exchange_calendars

    is_known = name in exchange_calendars.get_calendar_names()
    return str(exchange_calendars.get_calendar(name).tz) if is_known else ""


def _always_open() -> Calendar:
    first, last = parse_date(FIRST_DATE, "calendar"), parse_date(LAST_DATE, "calendar")
    day = np.arange(first, last + 1, dtype=np.int32)
    open_ts = day.astype(np.int64) * NS_PER_DAY
    return Calendar(ALWAYS_OPEN, readonly(day), readonly(open_ts), readonly(open_ts + NS_PER_DAY), (first, last))
