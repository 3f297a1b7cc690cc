"""The registry of data kinds: columns, units, order, spans and availability. Adding a kind or a column is one entry.

Rules of a kind:

- The columns are stored in the order given here, all of them ``nullable=False``: absence is a validity column
  (``<name>_valid``, 0 or 1) or a missing row, never NaN.
- A price is an integer of ticks; the decimals (the *scale*) belong to a symbol of a shard and stand in the index, so
  that float64 = ticks / 10**scale is one correctly rounded division. The same price at another scale is the same bits.
- The instrument column holds the permanent id, whatever its name. Rows are sorted by it first, then by time.
- A column with ``logical=False`` is a remark: it enters no digest and no comparison of rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from farm.values.errors import UsageError
from farm.values.units import date_of, day_of

ColumnType = Literal["utf8", "int8", "int32", "int64"]
Span = Literal["decade", "all"]

PRICE_SCALE_MAX = 8
"""Most decimals of a price."""

TICKS_MAX = 2**51
"""Bound on ticks: below it ticks and 10**scale are exact in float64, and rint(price x 10**scale) cannot err."""


@dataclass(frozen=True)
class Column:
    """One column of a kind. ``is_price``: int64 ticks under the scale of its symbol, float64 once decoded."""

    name: str
    type: ColumnType
    encoding: str
    is_price: bool = False
    logical: bool = True


@dataclass(frozen=True)
class Kind:
    """One entry of the registry.

    Fields: interval, span, the middle of the object key and the days that one shard may hold; sort_key, the order and
            the unique key of rows; time_column, the day that pruning and months go by (None: the kind has no time);
            row_group_rows, the default; is_prewarmed, loaded at worker start; availability, when a row is known.
    """

    name: str
    interval: str
    span: Span
    columns: tuple[Column, ...]
    sort_key: tuple[str, ...]
    instrument_column: str
    time_column: str | None
    row_group_rows: int
    is_prewarmed: bool
    availability: str

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """Columns by name."""
        return MappingProxyType({column.name: column for column in self.columns})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in stored order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def cacheable(self) -> tuple[str, ...]:
        """Names of the columns that the column cache can hold: numbers, and ids as codes; other text is not."""
        return tuple(
            column.name for column in self.columns if column.type != "utf8" or column.name == self.instrument_column
        )

    def span_of(self, day: int) -> str:
        """Return the span that holds ``day``: ``all``, or a decade such as ``2010s``."""
        if self.span == "all":
            return "all"
        return f"{date_of(day).year // 10 * 10:04d}s"

    def span_days(self, span: str) -> tuple[int, int] | None:
        """Return the first and last day of ``span``, or None when it bounds nothing."""
        if self.span == "all":
            return None
        year = int(span[:4])
        return day_of(datetime.date(year, 1, 1)), day_of(datetime.date(year + 9, 12, 31))


def _text(name: str, *, logical: bool = True) -> Column:
    return Column(name, "utf8", "DICTIONARY", logical=logical)


def _number(name: str, *, logical: bool = True) -> Column:
    return Column(name, "int64", "BYTE_STREAM_SPLIT", logical=logical)


def _price(name: str) -> Column:
    return Column(name, "int64", "BYTE_STREAM_SPLIT", is_price=True)


def _day(name: str) -> Column:
    return Column(name, "int32", "DELTA_BINARY_PACKED")


def _flag(name: str) -> Column:
    return Column(name, "int8", "PLAIN")


# Columns that an engine reads together stand side by side, so that coalescing buys few bytes nobody wants; encodings
# and the 126,000 rows (50 symbols x 10 years) are those measured for daily bars.
STOCK_DAILY = Kind(
    name="stock_daily",
    interval="1d",
    span="decade",
    columns=(
        _text("symbol"),
        _day("day"),
        _price("open"),
        _price("high"),
        _price("low"),
        _price("close"),
        _number("volume"),
    ),
    sort_key=("symbol", "day"),
    instrument_column="symbol",
    time_column="day",
    row_group_rows=126_000,
    is_prewarmed=True,
    availability="the open at the session's open, the rest at its close",
)

PRICES = tuple(column.name for column in STOCK_DAILY.columns if column.is_price)
"""The price columns of bars."""
BAR_COLUMNS = (*PRICES, "volume")
"""What a bar says besides whose and when."""

# New shares per old: numerator / denominator, in lowest terms.
SPLITS = Kind(
    name="splits",
    interval="event",
    span="all",
    columns=(
        _text("symbol"),
        _day("ex_day"),
        _number("numerator"),
        _number("denominator"),
        _text("source", logical=False),
    ),
    sort_key=("symbol", "ex_day"),
    instrument_column="symbol",
    time_column="ex_day",
    row_group_rows=65_536,
    is_prewarmed=True,
    availability="the open of the ex-day",
)

# A dividend without a pay day is paid on its ex-day, and whoever runs on it says so; pay_day is then 0.
DIVIDENDS = Kind(
    name="dividends",
    interval="event",
    span="all",
    columns=(
        _text("symbol"),
        _day("ex_day"),
        _price("amount"),
        _day("pay_day"),
        _flag("pay_day_valid"),
        _number("declared_ts"),
        _flag("declared_ts_valid"),
        _text("source", logical=False),
    ),
    sort_key=("symbol", "ex_day"),
    instrument_column="symbol",
    time_column="ex_day",
    row_group_rows=65_536,
    is_prewarmed=True,
    availability="at declaration; acts at the open of the ex-day and on the pay day",
)

# ``price_scale`` is the decimals seen when the instrument was created: a remark, since every shard has its own.
INSTRUMENTS = Kind(
    name="instruments",
    interval="master",
    span="all",
    columns=(
        _text("id"),
        _text("symbol"),
        _text("type"),
        _text("calendar"),
        _text("currency"),
        _number("price_scale", logical=False),
        _number("lot_micro"),
        _number("multiplier"),
        _day("listed_day"),
        _flag("listed_day_valid"),
        _day("delisted_day"),
        _flag("delisted_day_valid"),
        _price("delisting_value"),
        _flag("delisting_value_valid"),
    ),
    sort_key=("id",),
    instrument_column="id",
    time_column=None,
    row_group_rows=65_536,
    is_prewarmed=True,
    availability="always",
)

REGISTRY: Mapping[str, Kind] = MappingProxyType(
    {kind.name: kind for kind in (STOCK_DAILY, SPLITS, DIVIDENDS, INSTRUMENTS)}
)
"""Every kind that can be stored, by name."""

INSTRUMENT_TYPES = ("stock", "etf", "index")
"""What an instrument can be."""


def kind_of(name: str, *, place: str = "kind") -> Kind:
    """Return the kind called ``name``; UsageError that lists those there are."""
    kind = REGISTRY.get(name)
    if kind is None:
        raise UsageError(f"no such kind of data: {name!r}", place=place, allowed=", ".join(REGISTRY))
    return kind
