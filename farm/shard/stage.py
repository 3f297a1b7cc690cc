"""From a source to checked rows per symbol: column mapping, units, scales, order. Nothing here knows the store.

Our column names per kind (the targets of ``--map ours=theirs``; a column that is not mapped is found by our own name,
upper or lower case):

    stock_daily   symbol ts open high low close volume
    splits        symbol ex_date ratio | numerator denominator [source]
    dividends     symbol ex_date amount [pay_date] [declared] [source]
    instruments   symbol [id] [type] [calendar] [currency] [lot] [multiplier] [listed] [delisted] [delisting_value]

Prices become ticks at the fewest decimals that hold every price of a symbol exactly; when none do, the error says so,
unless the caller gave a scale to round to. What is refused names the data row; of several, the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from farm.shard.hints import column_hint, listed, shortened
from farm.shard.kinds import (
    BAR_COLUMNS,
    DIVIDENDS,
    INSTRUMENTS,
    PRICE_SCALE_MAX,
    PRICES,
    SPLITS,
    STOCK_DAILY,
    TICKS_MAX,
    Kind,
)
from farm.shard.master import instrument_columns
from farm.shard.parse import (
    ID_ALLOWED,
    Field,
    Ids,
    clocks_shown,
    is_id,
    optional_column,
    parse_days,
    parse_ids,
    parse_instants,
    parse_integers,
    parse_numbers,
    parse_positive,
    parse_zone,
    refuse_scaled,
    scale_of,
    session_days,
    to_ticks,
)
from farm.shard.ratio import parse_ratios
from farm.shard.source import Source
from farm.values.arrays import BOOL, F64, I32, I64
from farm.values.errors import DataError, UsageError
from farm.values.units import iso

STAMPS = ("start", "end", "date")
ONE_A_DAY = "this kind has one bar a day, so bars of hours or minutes do not fit"

# What pandas calls an index without a name in Parquet.
_INDEX = re.compile(r"__index_level_\d+__")

Columns = dict[str, npt.NDArray[Any]]

_TARGETS: Mapping[str, tuple[str, ...]] = {
    STOCK_DAILY.name: ("symbol", "ts", *BAR_COLUMNS),
    SPLITS.name: ("symbol", "ex_date", "ratio", "numerator", "denominator", "source"),
    DIVIDENDS.name: ("symbol", "ex_date", "amount", "pay_date", "declared", "source"),
    INSTRUMENTS.name: (
        "symbol",
        "id",
        "type",
        "calendar",
        "currency",
        "lot",
        "multiplier",
        "listed",
        "delisted",
        "delisting_value",
    ),
}


@dataclass(frozen=True)
class Reading:
    """How to read a source: the flags of ``farm ingest``. ``sort``: bring rows into order instead of refusing them."""

    mapping: Mapping[str, str]
    tz: str | None = None
    stamp: str | None = None
    symbol: str | None = None
    price_scale: int | None = None
    sort: bool = False
    remark: str = ""

    @property
    def dates(self) -> bool:
        """Whether stamps are dates, whatever their clock time and zone."""
        return self.stamp == "date"


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows of one symbol, in time order: stored columns without the instrument's, and the data row of each.

    ``moments``: the instant of each stamp (ns UTC), or NO_CLOCK; None when all are dates.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    numbers: I64
    scale: int
    moments: I64 | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.numbers.shape[0])

    def take(self, mask: BOOL) -> Piece:
        """Return the rows under ``mask``."""
        moments = None if self.moments is None else self.moments[mask]
        columns = {name: values[mask] for name, values in self.columns.items()}
        return Piece(columns, self.numbers[mask], self.scale, moments)


@dataclass(frozen=True, eq=False)
class Staged:
    """Rows of one kind, checked as far as that goes without the dataset, per symbol (bytewise order).

    ``symbols``: all of the source, also those whose rows say that there is nothing. ``is_local``: stamps name no zone;
    moments are read in that of ``reading``, or, taken as dates, counted as if UTC.
    """

    kind: Kind
    source: Source
    reading: Reading
    symbols: tuple[str, ...]
    pieces: Mapping[str, Piece]
    notes: tuple[str, ...]
    is_local: bool = False


def stage(source: Source, kind: Kind, reading: Reading) -> Staged:
    """Return the rows of ``source`` as rows of ``kind``.

    Errors: UsageError for flags that are missing or make no sense; DataError, naming file and data row, for rows.
    """
    fields = _fields(source, kind, reading)
    ids = _ids(source, fields, reading)
    if kind is STOCK_DAILY:
        zone, stamp = _clock(reading)
        return _stage_bars(source, fields, ids, reading, zone, stamp)
    zone_given = parse_zone(reading.tz) if reading.tz is not None else None
    if reading.stamp is not None:
        _check_stamp(reading.stamp)
    if kind is SPLITS:
        return _stage_splits(source, fields, ids, reading, zone_given)
    if kind is DIVIDENDS:
        return _stage_dividends(source, fields, ids, reading, zone_given)
    symbols = np.array(ids.names, np.object_)[ids.code]
    columns, prices = instrument_columns(fields, source.table.num_rows, zone_given, dates=reading.dates)
    own_ids = parse_ids(fields["id"]) if "id" in fields else ids
    return _staged(source, kind, own_ids, columns | {"symbol": symbols}, prices, reading, ())


def _clock(reading: Reading) -> tuple[ZoneInfo | None, str]:
    """Return the zone of the stamps of bars and what they name; dates need no zone."""
    if reading.stamp is not None:
        _check_stamp(reading.stamp)
    if reading.tz is None and not reading.dates:
        raise UsageError(
            "no time zone given: the day of a bar is the exchange's local day, and is never guessed",
            place="tz",
            hint="add --tz, such as --tz America/New_York; or --stamp date if the stamps only name a date",
        )
    if reading.stamp is None:
        raise UsageError(
            "no stamp given: whether a bar is stamped with its start or its end is never guessed",
            place="stamp",
            allowed=", ".join(STAMPS),
            hint="add --stamp start for plain dates",
        )
    return None if reading.tz is None else parse_zone(reading.tz), reading.stamp


def _check_stamp(stamp: str) -> None:
    if stamp not in STAMPS:
        raise UsageError(
            f"no such stamp: {stamp!r}",
            place="stamp",
            allowed=", ".join(STAMPS),
            hint="start or end of a bar; or date, where clock times and zones mean nothing",
        )


def _fields(source: Source, kind: Kind, reading: Reading) -> dict[str, Field]:
    """Return the columns found, by our names."""
    targets = _TARGETS[kind.name]
    for ours in reading.mapping:
        if ours not in targets:
            raise UsageError(f"no such column of {kind.name}: {ours!r}", place="map", allowed=", ".join(targets))
    names = source.names
    fields: dict[str, Field] = {}
    for ours in targets:
        theirs = reading.mapping.get(ours)
        found = [at for at, name in enumerate(names) if name == (ours if theirs is None else theirs.strip())]
        if not found and theirs == "":
            found = [at for at, name in enumerate(names) if _INDEX.fullmatch(name)]
        if not found and theirs is None:
            found = [at for at, name in enumerate(names) if name.lower() == ours]
        if len(found) > 1:
            seen = listed([names[at] for at in found])
            raise DataError(f"several columns for {ours}: {seen}", place=source.name, hint="keep one, or rename it")
        if not found and theirs is not None:
            hint = column_hint(names, ours, "check --map")
            raise DataError(f"no column {theirs!r} for {ours}", place=source.name, allowed=listed(names), hint=hint)
        if found:
            fields[ours] = Field(source, ours, names[found[0]], source.table.column(found[0]))
    return fields


def _need(source: Source, fields: Mapping[str, Field], ours: str) -> Field:
    field = fields.get(ours)
    if field is None:
        names = source.names
        hint = f"say which it is: --map {ours}=<column>"
        if any(not name or _INDEX.fullmatch(name) for name in names):
            hint += f", or --map {ours}= for the one without a name"
        hint = column_hint(names, ours, hint)
        raise DataError(f"no column for {ours}", place=source.name, allowed=listed(names), hint=hint)
    return field


def _ids(source: Source, fields: Mapping[str, Field], reading: Reading) -> Ids:
    if reading.symbol is None:
        if "symbol" not in fields:
            hint = "say which it is: --map symbol=<column>; or give --symbol NAME for a file of one symbol"
            hint = column_hint(source.names, "symbol", hint)
            raise DataError("no column for symbol", place=source.name, allowed=listed(source.names), hint=hint)
        return parse_ids(fields["symbol"])
    if "symbol" in reading.mapping:
        raise UsageError("either a symbol or a column of symbols", place="symbol", hint="drop --symbol or the mapping")
    symbol = reading.symbol.strip()
    if not is_id(symbol):
        raise UsageError(f"{shortened(symbol)!r} cannot be a symbol", place="symbol", allowed=ID_ALLOWED)
    if "symbol" in fields:
        theirs = parse_ids(fields["symbol"])
        is_other = np.array([name != symbol for name in theirs.names], np.bool_)[theirs.code]
        if is_other.any():
            raise fields["symbol"].refuse(
                int(np.argmax(is_other)), f"the file holds other symbols than {symbol!r}", hint="drop --symbol"
            )
    return Ids((symbol,), np.zeros(source.table.num_rows, np.int32))


def _stage_bars(
    source: Source, fields: Mapping[str, Field], ids: Ids, reading: Reading, zone: ZoneInfo | None, stamp: str
) -> Staged:
    day, moments, is_local = session_days(_need(source, fields, "ts"), zone, stamp)
    prices = {name: parse_numbers(_need(source, fields, name)) for name in PRICES}
    refuse_scaled(source, prices)
    volume = parse_integers(_need(source, fields, "volume"))
    bad: list[tuple[int, str, str]] = []
    for name, values in prices.items():
        _first(
            bad,
            values <= 0,
            lambda row, n=name, v=values: f"{n} is {float(v[row])!r}, prices are above zero",
            "remove the row, or repair the source; a day without a trade has no row at all",
        )
    high, low = prices["high"], prices["low"]
    _first(
        bad,
        high < low,
        lambda row: f"high {float(high[row])!r} is below low {float(low[row])!r}",
        "check --map high and low",
    )
    _first(bad, volume < 0, lambda row: f"volume is {volume[row]}, and counts shares", "repair the source")
    if bad:
        row, message, hint = min(bad)
        raise DataError(f"{message} ({ids[row]} {iso(day[row])})", place=source.row(row + 1), hint=hint)
    is_outside = np.zeros(day.shape, np.bool_)
    for name in ("open", "close"):
        is_outside |= (prices[name] < low) | (prices[name] > high)
    notes = (
        (f"open or close outside low .. high in {_counted(int(is_outside.sum()), 'bar')}",) if is_outside.any() else ()
    )
    columns: Columns = {"day": day, "volume": volume}
    return _staged(source, STOCK_DAILY, ids, columns, prices, reading, notes, clocks=(moments, is_local))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _first(bad: list[tuple[int, str, str]], mask: BOOL, message: Any, hint: str = "") -> None:
    if mask.any():
        row = int(np.argmax(mask))
        bad.append((row, message(row), hint))


def _stage_splits(
    source: Source, fields: Mapping[str, Field], ids: Ids, reading: Reading, zone: ZoneInfo | None
) -> Staged:
    ex_date = _need(source, fields, "ex_date")
    notes: tuple[str, ...] = ()
    if "ratio" in fields or "numerator" not in fields:
        numerator, denominator, notes = parse_ratios(_need(source, fields, "ratio"))
    else:
        numerator, denominator = (parse_positive(_need(source, fields, name)) for name in ("numerator", "denominator"))
        divisor = np.gcd(numerator, denominator)
        numerator, denominator = numerator // divisor, denominator // divisor
    # A column that goes along with bars has a row for every day: 0 (or 1) where there is no split.
    at = np.flatnonzero((numerator != 0) & (numerator != denominator))
    notes += _none(len(numerator) - len(at), "a ratio of 0 or 1: no split")
    columns: Columns = {
        "ex_day": parse_days(ex_date.part(at), zone, dates=reading.dates),
        "numerator": numerator[at],
        "denominator": denominator[at],
        "source": _remarks(source, fields, reading)[at],
    }
    return _staged(source, SPLITS, ids, columns, {}, reading, notes, at=at, clocks=_clocks(ex_date.part(at), reading))


def _clocks(ex_date: Field, reading: Reading) -> tuple[I64 | None, bool]:
    return clocks_shown(ex_date) if reading.dates else (None, False)


def _none(count: int, what: str) -> tuple[str, ...]:
    return (f"{_counted(count, 'row')} left out for {what}",) if count else ()


def _remarks(source: Source, fields: Mapping[str, Field], reading: Reading) -> npt.NDArray[np.object_]:
    """Return where each row comes from: the file's own column, else the caller's remark, else the file's name."""
    if "source" in fields:
        return np.array(fields["source"].texts().to_pylist(), np.object_)
    return np.full(source.table.num_rows, reading.remark or source.name.rpartition("/")[2], np.object_)


def _stage_dividends(
    source: Source, fields: Mapping[str, Field], ids: Ids, reading: Reading, zone: ZoneInfo | None
) -> Staged:
    ex_date, field = _need(source, fields, "ex_date"), _need(source, fields, "amount")
    amount = parse_numbers(field)
    if (amount < 0).any():
        row = int(np.argmax(amount < 0))
        raise field.refuse(row, f"{float(amount[row])!r} is not above zero", hint="a dividend is paid to the holder")
    at = np.flatnonzero(amount != 0)

    def days(part: Field) -> I32:
        return parse_days(part, zone, dates=reading.dates)

    def instants(part: Field) -> I64:
        return parse_instants(part, zone, dates=reading.dates)

    columns: Columns = {"ex_day": days(ex_date.part(at)), "source": _remarks(source, fields, reading)[at]}
    pay, declared = (fields[name].part(at) if name in fields else None for name in ("pay_date", "declared"))
    columns |= optional_column("pay_day", pay, len(at), np.int32, days)
    columns |= optional_column("declared_ts", declared, len(at), np.int64, instants)
    notes = _none(len(amount) - len(at), "an amount of 0: no dividend")
    is_early = (columns["pay_day_valid"] == 1) & (columns["pay_day"] < columns["ex_day"])
    if is_early.any():
        row = int(np.argmax(is_early))
        first = f"{ids[int(at[row])]} {iso(int(columns['ex_day'][row]))}"
        notes += (f"{_counted(int(is_early.sum()), 'pay date')} before the ex-date, which counts instead: {first}",)
    clocks = _clocks(ex_date.part(at), reading)
    return _staged(source, DIVIDENDS, ids, columns, {"amount": amount[at]}, reading, notes, at=at, clocks=clocks)


def _staged(
    source: Source,
    kind: Kind,
    ids: Ids,
    columns: Columns,
    prices: Mapping[str, F64],
    reading: Reading,
    notes: tuple[str, ...],
    *,
    at: I64 | None = None,
    clocks: tuple[I64 | None, bool] = (None, False),
) -> Staged:
    """Cut the rows into pieces per symbol, in time order, with prices as ticks.

    ``at``: the rows of the source (from 0) that columns and prices hold; None: all. ``clocks``: their moments, and
    whether these are local.
    """
    moments, is_local = clocks
    at = np.arange(source.table.num_rows) if at is None else at
    code = ids.code[at]
    time: I32 = np.zeros(len(at), np.int32) if kind.time_column is None else columns[kind.time_column]
    order = _ordered(source, kind, Ids(ids.names, code), time, at, reading)
    bounds = np.searchsorted(code[order], np.arange(len(ids.names) + 1))
    pieces: dict[str, Piece] = {}
    rounded = 0
    for position, name in enumerate(ids.names):
        rows = order[bounds[position] : bounds[position + 1]]
        if not rows.size:
            continue
        own = {key: values[rows] for key, values in prices.items()}
        ticks, scale, is_rounded = _ticks(source, own, at[rows], reading)
        rounded += is_rounded
        stored = {key: values[rows] for key, values in columns.items()} | ticks
        pieces[name] = Piece(stored, at[rows] + 1, scale, None if moments is None else moments[rows])
    if rounded:
        notes += (f"prices rounded to {reading.price_scale} decimals in {_counted(rounded, 'symbol')}",)
    return Staged(kind, source, reading, ids.names, pieces, notes, is_local)


def _ordered(source: Source, kind: Kind, ids: Ids, time: I32, number: I64, reading: Reading) -> I64:
    """Return the permutation to (symbol, time); DataError for keys that are there twice, or not in order.

    ``number``: the row of the source (from 0) of each.
    """
    order = np.lexsort((time, ids.code))
    is_twice = (np.diff(ids.code[order]) == 0) & (np.diff(time[order]) == 0)
    if is_twice.any():
        at = min(np.flatnonzero(is_twice).tolist(), key=lambda at: int(order[at + 1]))
        first, second = int(order[at]), int(order[at + 1])
        raise DataError(
            f"duplicate row: {_name(kind, ids, time, second)} is in data row {number[first] + 1} already",
            place=source.row(int(number[second]) + 1),
            hint=_TWICE.get(kind.name, "keep one of them"),
        )
    if not reading.sort:
        by_symbol = np.argsort(ids.code, kind="stable")
        is_back = (np.diff(ids.code[by_symbol]) == 0) & (np.diff(time[by_symbol]) < 0)
        if is_back.any():
            at = min(np.flatnonzero(is_back).tolist(), key=lambda at: int(by_symbol[at + 1]))
            before, row = int(by_symbol[at]), int(by_symbol[at + 1])
            raise DataError(
                f"unsorted: {_name(kind, ids, time, row)} after {iso(int(time[before]))}"
                f" of data row {number[before] + 1}",
                place=source.row(int(number[row]) + 1),
                hint="sort the file by time, or let --sort do it",
            )
    return order.astype(np.int64)


_TWICE = {
    STOCK_DAILY.name: f"keep one of them; {ONE_A_DAY}",
    DIVIDENDS.name: "add up the dividends of one day",
}


def _name(kind: Kind, ids: Ids, time: I32, row: int) -> str:
    return ids[row] if kind.time_column is None else f"{ids[row]} {iso(int(time[row]))}"


def _ticks(source: Source, prices: Mapping[str, F64], rows: I64, reading: Reading) -> tuple[dict[str, I64], int, bool]:
    """Return the prices of one symbol as ticks, their scale, and whether that took rounding."""
    if not prices:
        return {}, 0, False
    exact = values = np.stack(list(prices.values()))
    scale, is_open = scale_of(values)
    to = reading.price_scale
    is_rounded = to is not None and (scale > to or bool(is_open.any()))
    if to is not None and is_rounded and np.abs(values).max() * 10**to <= TICKS_MAX:
        values = to_ticks(values, to) / 10**to
        is_gone = (values == 0) & (exact != 0)
        if is_gone.any():
            _refuse_price(source, prices, rows, is_gone, f"is zero once rounded to {to} decimals", "use more decimals")
        scale, is_open = scale_of(values)
    if is_open.any():
        _refuse_price(
            source,
            prices,
            rows,
            is_open,
            f"needs more than {PRICE_SCALE_MAX} decimals, or is too large",
            "an adjusted price is not a raw one; to round on purpose give a scale, such as --price-scale 6",
        )
    return {name: to_ticks(values[at], scale) for at, name in enumerate(prices)}, scale, is_rounded


def _refuse_price(
    source: Source, prices: Mapping[str, F64], rows: I64, is_bad: BOOL, message: str, hint: str
) -> NoReturn:
    row, at = min((int(rows[column]), int(at)) for at, column in zip(*np.nonzero(is_bad), strict=True))
    name = list(prices)[at]
    value = float(prices[name][np.flatnonzero(rows == row)[0]])
    raise DataError(f"{name} {value!r} {message}", place=source.row(row + 1), hint=hint)
