"""Turns the columns of a source into numbers, ids, days and instants, or names the row that cannot be one.

Nothing is guessed and nothing is repaired: text that is not a number, a missing value, a date in an order that could be
read two ways is a DataError with the data row (from 1) and the column. A price keeps exactly the decimals it was
printed with (the shortest text that reads back as the same float), so that ticks divided by a power of ten give back
the same bits.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from farm.shard.hints import date_hint, number_hint, period_hint, shortened, type_hint
from farm.shard.kinds import PRICE_SCALE_MAX, TICKS_MAX
from farm.shard.source import Source
from farm.values.arrays import BOOL, F64, I32, I64
from farm.values.errors import DataError, UsageError
from farm.values.units import NS_PER_MS, NS_PER_S, NS_PER_US, date_of, day_of, iso

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_MISSING = re.compile(r"[+-]?nan|n/a|na|null|none|-", re.IGNORECASE)
_EXTENSION, _PERIOD = b"ARROW:extension:name", "pandas.period"
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
ID_ALLOWED = "up to 64 bytes of printable text, without \\ and without $ in front"
_ID_BYTES_MAX = 64
_POINTED = re.compile(r"\d{1,3}\.\d{3}")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_NO_ROW = "remove the row, or repair the source; a missing day has no row at all"
NO_CLOCK = np.iinfo(np.int64).min
"""The moment of a stamp that is a date, or local midnight: that is no time of day at all."""
EXACT_MAX = 2**53
NS_MAX = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Field:
    """One column of a source: our name for it, and theirs. ``at``: the source's rows (from 0) it holds; None: all."""

    source: Source
    ours: str
    theirs: str
    column: pa.ChunkedArray
    at: I64 | None = None

    def part(self, at: I64) -> Field:
        """Return the rows ``at`` (from 0) of this column."""
        held = at if self.at is None else self.at[at]
        return Field(self.source, self.ours, self.theirs, self.column.take(pa.array(at)), held)

    def refuse(self, row: int, message: str, *, hint: str = "") -> DataError:
        """Return the error for row ``row`` (from 0) of this field."""
        number = 1 + (row if self.at is None else int(self.at[row]))
        return DataError(f"column {self.theirs!r} ({self.ours}): {message}", place=self.source.row(number), hint=hint)

    @property
    def is_period(self) -> bool:
        """Whether the column is of pandas' type Period, which Arrow knows by name where pandas is imported."""
        told = self.source.table.schema.field(self.source.table.schema.names.index(self.theirs)).metadata or {}
        return _PERIOD in (getattr(self.column.type, "extension_name", ""), told.get(_EXTENSION, b"").decode())

    def texts(self) -> pa.ChunkedArray:
        """Return the column as trimmed text; DataError for a missing value."""
        column = self.column
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not pa.types.is_string(column.type):
            try:
                column = column.cast(pa.string())
            except pa.ArrowException as error:
                raise self.wrong_type("text") from error
        column = pc.utf8_trim_whitespace(column)
        self.refuse_missing(pc.fill_null(pc.equal(column, ""), True))
        return column

    def refuse_missing(self, is_missing: pa.ChunkedArray) -> None:
        """Raise DataError for the first row that has no value."""
        mask = is_missing.to_numpy()
        if mask.any():
            raise self.refuse(int(np.argmax(mask)), "the value is missing", hint=_NO_ROW)

    def wrong_type(self, wanted: str) -> DataError:
        """Return the error for a column whose type cannot hold ``wanted``."""
        return DataError(
            f"column {self.theirs!r} ({self.ours}) has type {self.column.type}, which is no {wanted}",
            place=self.source.name,
            hint=period_hint(self.theirs) if self.is_period else type_hint(self.ours, wanted),
        )


def parse_numbers(field: Field) -> F64:
    """Return finite float64 values; DataError for a missing value, text that is no number, NaN, infinity."""
    column = field.column
    kind = column.type
    if pa.types.is_float32(kind):
        # The shortest text of the float32 is the number that was meant; widening would add digits nobody wrote.
        field.refuse_missing(pc.is_null(column))
        values: F64 = column.to_numpy().astype(np.str_).astype(np.float64)
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        field.refuse_missing(pc.is_null(column))
        values = column.to_numpy().astype(np.float64)
    elif pa.types.is_decimal(kind) or _is_text(kind):
        values = _numbers_of_texts(field)
    else:
        raise field.wrong_type("number")
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise field.refuse(row, f"{values[row]} is not a number", hint=_NO_ROW)
    return values


def refuse_scaled(source: Source, prices: Mapping[str, F64]) -> None:
    """Raise DataError for the integers that Databento's raw form has for prices: they would pass as they are."""
    if not {"rtype", "publisher_id"} <= set(source.names):
        return
    if all(np.all((values >= 10**6) & (np.rint(values) == values)) for values in prices.values()):
        raise DataError(
            "the prices are counted in units of 1e-9: raw records of Databento (columns rtype, publisher_id)",
            place=source.name,
            hint="write them as decimals (pretty_px), or divide them by 1,000,000,000",
        )


def _numbers_of_texts(field: Field) -> F64:
    texts = field.texts()
    is_bad = ~pc.match_substring_regex(texts, _NUMBER).to_numpy()
    if is_bad.any():
        row = int(np.argmax(is_bad))
        text = texts[row].as_py()
        if _MISSING.fullmatch(text):
            raise field.refuse(row, f"{shortened(text)!r} is NaN or missing", hint=_NO_ROW)
        what = "infinite" if _INFINITE.fullmatch(text) else "not a number"
        raise field.refuse(row, f"{shortened(text)!r} is {what}", hint=number_hint(text))
    values: F64 = texts.cast(pa.float64()).to_numpy()
    return values


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def parse_integers(field: Field) -> I64:
    """Return int64 values; DataError beside what ``parse_numbers`` refuses for fractions and beyond 2**53."""
    values = parse_numbers(field)
    is_bad = (np.rint(values) != values) | (np.abs(values) >= EXACT_MAX)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        hint = f"a {field.ours} counts whole {'shares; round it in the file' if field.ours == 'volume' else 'things'}"
        text = str(field.column[row].as_py()).strip()
        if _POINTED.fullmatch(text) and values[row] < EXACT_MAX:
            hint = f"{text!r} may be {text.replace('.', '')}, with a point that marks thousands; {hint}"
        raise field.refuse(row, f"{float(values[row])!r} is not a whole number below 2**53", hint=hint)
    return values.astype(np.int64)


def parse_positive(field: Field) -> I64:
    """Return int64 values above zero; DataError beside what ``parse_integers`` refuses for the others."""
    values = parse_integers(field)
    if (values < 1).any():
        row = int(np.argmax(values < 1))
        raise field.refuse(row, f"{values[row]} is not positive", hint=f"a {field.ours} is 1 or more")
    return values


def scale_of(values: F64) -> tuple[int, BOOL]:
    """Return the fewest decimals (at most 8) that hold every value exactly, and a mask of those that they do not hold.

    A float64 has d decimals when the nearest integer t to value x 10**d gives the value back as t / 10**d, which is
    correctly rounded for t up to 2**53: exactly the decimals of its shortest text.
    """
    flat = values.reshape(-1)
    is_open = np.ones(flat.shape, np.bool_)
    for scale in range(PRICE_SCALE_MAX + 1):
        is_open[is_open] = ~_is_held(flat[is_open], scale)
        if not is_open.any():
            # What fits few decimals may be too large for many.
            return scale, ~_is_held(values, scale)
    return PRICE_SCALE_MAX, is_open.reshape(values.shape)


def _is_held(values: F64, scale: int) -> BOOL:
    power = float(10**scale)
    ticks = np.rint(values * power)
    is_held: BOOL = (ticks / power == values) & (np.abs(ticks) <= TICKS_MAX)
    return is_held


def to_ticks(values: F64, scale: int) -> I64:
    """Return the nearest ticks of ``scale`` decimals (halves to even)."""
    return np.rint(values * float(10**scale)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Ids:
    """A column of ids: ``names`` in bytewise order, each used, and per row the position in them, I32 (n,)."""

    names: tuple[str, ...]
    code: I32

    def __getitem__(self, row: int) -> str:
        return self.names[int(self.code[row])]


def is_id(name: str) -> bool:
    """Whether ``name`` can be a symbol or an id. One that begins with $ would be a parameter in a spec."""
    is_plain = name.isprintable() and "\\" not in name and not name.startswith("$")
    return is_plain and 0 < len(name.encode()) <= _ID_BYTES_MAX


def parse_ids(field: Field) -> Ids:
    """Return the ids of a column; DataError for what cannot be an id."""
    names, codes = _encoded(field)
    for code, name in enumerate(names):
        if not is_id(name):
            row = int(np.argmax(codes == code))
            raise field.refuse(row, f"{shortened(name)!r} cannot be a symbol", hint=ID_ALLOWED)
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return Ids(tuple(names[at] for at in order), rank[codes])


def _encoded(field: Field) -> tuple[list[str], I64]:
    """Return the distinct texts of a column, in order of appearance, and per row which of them it is."""
    encoded = field.texts().combine_chunks()
    encoded = (encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


@dataclass(frozen=True)
class Stamp:
    """One date or timestamp: ``moment`` is local to the zone it was read in (naive if none); a date has none."""

    day: int
    moment: datetime.datetime | None

    @property
    def has_zone(self) -> bool:
        """Whether it is a timestamp that named its zone."""
        return self.moment is not None and self.moment.tzinfo is not None

    @property
    def is_midnight(self) -> bool:
        """Whether it is a timestamp exactly at local midnight."""
        return self.moment is not None and self.moment.time() == datetime.time()


DAY_MIN, DAY_MAX = day_of(datetime.date.min), day_of(datetime.date.max) - 1
"""Days that have a date, and a day after them; a Parquet file may hold others."""
INSTANT_DAY_MIN, INSTANT_DAY_MAX = day_of(datetime.date(1678, 1, 1)), day_of(datetime.date(2261, 12, 31))
INSTANT_YEARS = "1678 to 2261"
"""Days of which every nanosecond fits 64 bits."""


def parse_zone(name: str) -> ZoneInfo:
    """Return the time zone ``name``; UsageError when nobody knows it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        close = difflib.get_close_matches(name.lower(), _zones(), n=3)
        raise UsageError(
            f"no such time zone: {name!r}",
            place="tz",
            allowed="an IANA name such as America/New_York, or UTC",
            hint=f"is {' or '.join(_zones()[one] for one in close)} meant?" if close else "",
        ) from error


@cache
def _zones() -> dict[str, str]:
    """Return the zones that are places, or UTC, by their names in small letters."""
    return {name.lower(): name for name in sorted(available_timezones()) if "/" in name or name == "UTC"}


def parse_stamps(field: Field, zone: ZoneInfo | None, *, dates: bool = False) -> tuple[list[Stamp], I64]:
    """Return the distinct stamps of the column and, per row, which of them it is.

    A stamp with an offset is turned into the local time of ``zone`` (UsageError without one); one without is local
    already. ``dates``: a stamp is the date it shows (a typed one in its own zone), whatever its clock time and zone.
    Allowed: dates (YYYY-MM-DD, YYYYMMDD) and ISO 8601 timestamps as text, and the date and timestamp types.
    """
    if dates and pa.types.is_timestamp(field.column.type):
        field = Field(field.source, field.ours, field.theirs, _dates_shown(field), field.at)
    kind = field.column.type
    if pa.types.is_date(kind):
        values, codes = _distinct(field, field.column.cast(pa.date32()).cast(pa.int32()))
        for code, day in enumerate(values):
            if not DAY_MIN <= day <= DAY_MAX:
                row = int(np.argmax(codes == code))
                raise field.refuse(row, f"{day} days from 1970-01-01 is no date", hint="years 1 to 9999")
        return [Stamp(value, None) for value in values], codes
    if pa.types.is_timestamp(kind):
        values, codes = _distinct(field, _nanoseconds(field))
        return [_stamp(_moment(value, kind.tz), zone, field) for value in values], codes
    if pa.types.is_integer(kind) or _is_text(kind):
        texts, codes = _encoded(field)
        return [_stamp_of_text(text, zone, field, codes, code, dates) for code, text in enumerate(texts)], codes
    raise field.wrong_type("date or timestamp")


def _dates_shown(field: Field) -> pa.ChunkedArray:
    try:
        shown = field.column if field.column.type.tz is None else pc.local_timestamp(field.column)
        return pc.floor_temporal(shown, unit="day").cast(pa.date32())
    except pa.ArrowException as error:
        raise field.wrong_type("date") from error


def clocks_shown(field: Field) -> tuple[I64 | None, bool]:
    """Return the moments (ns) of stamps that are taken as dates, and whether they are local, counted as if UTC.

    NO_CLOCK stands for a date, for midnight without a zone, and for a stamp without a zone beside others that have one;
    None: there is nothing else.
    """
    kind, utc = field.column.type, ZoneInfo("UTC")
    if pa.types.is_timestamp(kind):
        try:
            values, codes = _distinct(field, _nanoseconds(field))
        except DataError:
            return None, False  # further away than any session
        moments = [_moment(value, kind.tz) for value in values]
    elif _is_text(kind):
        texts, codes = _encoded(field)
        moments = [datetime.datetime.fromisoformat(text) for text in texts]
    else:
        return None, False
    is_local = all(moment.tzinfo is None for moment in moments)
    found = np.full(len(moments), NO_CLOCK, np.int64)
    for at, moment in enumerate(moments):
        is_plain = moment.time() == datetime.time() if is_local else moment.tzinfo is None
        if not is_plain and INSTANT_DAY_MIN < day_of(moment.date()) < INSTANT_DAY_MAX:
            found[at] = instant_of(moment, utc)
    return (found[codes] if (found != NO_CLOCK).any() else None), is_local


def _nanoseconds(field: Field) -> pa.ChunkedArray:
    kind = field.column.type
    try:
        return field.column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        per_count = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US}[kind.unit]
        counts = pc.fill_null(field.column.cast(pa.int64()), 0).to_numpy()
        row = int(np.argmax((counts > NS_MAX // per_count) | (counts < -(NS_MAX // per_count))))
        message = f"{counts[row]} {kind.unit} from 1970 is out of reach"
        raise field.refuse(row, message, hint=f"years {INSTANT_YEARS}") from error


def _distinct(field: Field, column: pa.ChunkedArray) -> tuple[list[int], I64]:
    field.refuse_missing(pc.is_null(column))
    values, codes = np.unique(column.to_numpy(), return_inverse=True)
    return values.tolist(), codes.astype(np.int64)


def _moment(ns: int, tz: str | None) -> datetime.datetime:
    # Below a microsecond nothing can move a stamp to another day or make it a midnight that it is not.
    seconds, rest = divmod(ns, NS_PER_S)
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
        seconds=seconds, microseconds=-(-rest // 1000)
    )
    return moment if tz is not None else moment.replace(tzinfo=None)


def _stamp_of_text(text: str, zone: ZoneInfo | None, field: Field, codes: I64, code: int, dates: bool) -> Stamp:
    date = _DATE.fullmatch(text)
    try:
        if date is not None:
            return Stamp(day_of(datetime.date(*(int(part) for part in date.groups()))), None)
        # Python takes any sign between date and time: 2020-01-31-05:00, a date and a zone, would be five o'clock.
        if len(text) < len("2020-01-31T16:00") or text[4] != "-" or text[10] not in "Tt ":
            raise ValueError(text)
        moment = datetime.datetime.fromisoformat(text)
        return Stamp(day_of(moment.date()), None) if dates else _stamp(moment, zone, field)
    # OverflowError: in the zone of the exchange it is a day before the first or after the last that has a date.
    except (ValueError, OverflowError) as error:
        raise field.refuse(
            int(np.argmax(codes == code)),
            f"{shortened(text)!r} is not a date or a timestamp",
            hint=period_hint(field.theirs) if field.is_period else date_hint(text),
        ) from error


def _stamp(moment: datetime.datetime, zone: ZoneInfo | None, field: Field) -> Stamp:
    if moment.tzinfo is not None:
        if zone is None:
            raise UsageError(
                f"column {field.theirs!r} ({field.ours}) holds instants, and no time zone says on which day they fall",
                place="tz",
                hint="give the exchange's zone, as in --tz America/New_York; or --stamp date if they only name dates",
            )
        moment = moment.astimezone(zone)
    return Stamp(day_of(moment.date()), moment)


def parse_days(field: Field, zone: ZoneInfo | None, *, dates: bool = False) -> I32:
    """Return plain days: dates, or timestamps at local midnight; DataError for any other time of day."""
    stamps, codes = parse_stamps(field, zone, dates=dates)
    for code, stamp in enumerate(stamps):
        if stamp.moment is not None and not stamp.is_midnight:
            row = int(np.argmax(codes == code))
            hint = "give dates here; or --stamp date, if the clock time and zone of the stamps mean nothing"
            raise field.refuse(row, f"{stamp.moment.isoformat()} is not a plain date", hint=hint)
    return np.array([stamp.day for stamp in stamps], np.int32)[codes]


def parse_instants(field: Field, zone: ZoneInfo | None, *, dates: bool = False) -> I64:
    """Return instants, ns UTC. A date counts from its end: nobody could act on it while the day lasted."""
    if zone is None:
        raise UsageError(
            f"no time zone given for column {field.theirs!r} ({field.ours})",
            place="tz",
            hint="add --tz, such as --tz America/New_York",
        )
    stamps, codes = parse_stamps(field, zone, dates=dates)
    for code, stamp in enumerate(stamps):
        if not INSTANT_DAY_MIN <= stamp.day <= INSTANT_DAY_MAX:
            row = int(np.argmax(codes == code))
            raise field.refuse(row, f"{iso(stamp.day)} is out of reach", hint=f"years {INSTANT_YEARS}")
    ends = (stamp.moment or datetime.datetime.combine(date_of(stamp.day + 1), datetime.time()) for stamp in stamps)
    return np.array([instant_of(moment, zone) for moment in ends], np.int64)[codes]


def session_days(field: Field, zone: ZoneInfo | None, stamp: str) -> tuple[I32, I64 | None, bool]:
    """Return the session of each bar, the moments (ns UTC) of their stamps or NO_CLOCK, and whether these name no zone.

    A date names the session; an end stamp at local midnight ends the day before.
    """
    if stamp == "date":
        return parse_days(field, zone, dates=True), *clocks_shown(field)
    stamps, codes = parse_stamps(field, zone)
    days = [one.day - 1 if stamp == "end" and one.is_midnight else one.day for one in stamps]
    moments = None
    if zone is not None and any(one.moment is not None for one in stamps):
        instants = [
            NO_CLOCK if one.moment is None or one.is_midnight else instant_of(one.moment, zone) for one in stamps
        ]
        moments = np.array(instants, np.int64)[codes]
    return np.array(days, np.int32)[codes], moments, not any(one.has_zone for one in stamps)


def instant_of(moment: datetime.datetime, zone: ZoneInfo) -> int:
    """Return the instant, ns UTC, of a moment in ``zone``."""
    local = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    gone = local - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return ((gone.days * 86_400 + gone.seconds) * 1_000_000 + gone.microseconds) * NS_PER_US


def optional_rows(field: Field) -> BOOL:
    """Return which rows of an optional column hold a value (neither null nor empty text)."""
    column = field.column
    if not _is_text(column.type):
        present: BOOL = pc.is_valid(column).to_numpy()
        return present
    text = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    filled: BOOL = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(text), ""), False).to_numpy()
    return filled


def optional_column(
    name: str, field: Field | None, rows: int, dtype: type[np.generic], parse: Callable[[Field], npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Return the column ``name`` and its validity; rows without a value are 0 in both."""
    values, valid = np.zeros(rows, dtype), np.zeros(rows, np.int8)
    at = np.zeros(0, np.int64) if field is None else np.flatnonzero(optional_rows(field))
    if field is not None and at.size:
        values[at] = parse(field.part(at))
        valid[at] = 1
    return {name: values, f"{name}_valid": valid}
