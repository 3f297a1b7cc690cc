"""Units of time and money, and the conversions between them.

Instants are int64 nanoseconds UTC since 1970. Days are int32 counts of exchange-local dates since 1970-01-01. Money is
int64 micro-units of the account currency. Names carry the unit last: ``ts_ns``, ``cash_micro``, ``start_day``.
"""

from __future__ import annotations

import datetime
import re

from farm.values.errors import SpecError

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_MIN = 60 * NS_PER_S
NS_PER_HOUR = 60 * NS_PER_MIN
NS_PER_DAY = 24 * NS_PER_HOUR

MICRO = 1_000_000
"""Micro-units in one unit of currency (or of a lot)."""

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def day_of(date: datetime.date) -> int:
    """Return the days from 1970-01-01 to ``date``."""
    return date.toordinal() - _EPOCH


def date_of(day: int) -> datetime.date:
    """Return the date that is ``day`` days after 1970-01-01."""
    return datetime.date.fromordinal(int(day) + _EPOCH)


def iso(day: int) -> str:
    """Return ``day`` as YYYY-MM-DD."""
    return date_of(day).isoformat()


def month_of(day: int) -> int:
    """Return the month that holds ``day``: year * 12 + month - 1."""
    date = date_of(day)
    return date.year * 12 + date.month - 1


def first_day_of(month: int) -> int:
    """Return the first day of ``month`` (as ``month_of`` counts)."""
    return day_of(datetime.date(month // 12, month % 12 + 1, 1))


def parse_date(text: object, place: str) -> int:
    """Return the day that ``text`` (YYYY-MM-DD, nothing else) names; SpecError at ``place`` otherwise."""
    allowed = "a date as YYYY-MM-DD"
    if not isinstance(text, str) or not _ISO_DATE.fullmatch(text):
        raise SpecError(f"not a date: {text!r}", place=place, allowed=allowed)
    try:
        return day_of(datetime.date.fromisoformat(text))
    except ValueError as error:
        raise SpecError(f"no such day: {text!r} ({error})", place=place, allowed=allowed) from error
