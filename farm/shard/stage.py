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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from farm.shard.hints import column_hint, listed, shortened
from farm.shard.kinds import (
    DIVIDENDS,
    INSTRUMENT_TYPES,
    INSTRUMENTS,
    PRICE_SCALE_MAX,
    SPLITS,
    STOCK_DAILY,
    TICKS_MAX,
    Kind,
)
from farm.shard.parse import (
    ID_ALLOWED,
    Field,
    Ids,
    is_id,
    optional_rows,
    parse_days,
    parse_ids,
    parse_instants,
    parse_integers,
    parse_numbers,
    parse_ratios,
    parse_stamps,
    parse_zone,
    refuse_scaled,
    scale_of,
    to_ticks,
)
from farm.shard.source import Source
from farm.values.arrays import BOOL, F64, I32, I64
from farm.values.errors import DataError, UsageError
from farm.values.units import MICRO, iso

# What pandas calls an index without a name in Parquet.
_INDEX = re.compile(r"__index_level_\d+__")
STAMPS = ("start", "end")

Columns = dict[str, npt.NDArray[Any]]

_TARGETS: Mapping[str, tuple[str, ...]] = {
    STOCK_DAILY.name: ("symbol", "ts", "open", "high", "low", "close", "volume"),
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


LOT_MAX = 1_000_000


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


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows of one symbol, in time order: stored columns without the instrument's, and the data row of each."""

    columns: Mapping[str, npt.NDArray[Any]]
    numbers: I64
    scale: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.numbers.shape[0])

    def take(self, mask: BOOL) -> Piece:
        """Return the rows under ``mask``."""
        return Piece({name: values[mask] for name, values in self.columns.items()}, self.numbers[mask], self.scale)


@dataclass(frozen=True, eq=False)
class Staged:
    """Rows of one kind, checked as far as that goes without the dataset, per symbol (bytewise order)."""

    kind: Kind
    source: Source
    pieces: Mapping[str, Piece]
    notes: tuple[str, ...]


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
    if kind is SPLITS:
        return _staged(source, kind, ids, _split_columns(source, fields, reading, zone_given), {}, reading, ())
    if kind is DIVIDENDS:
        columns, prices = _dividend_columns(source, fields, reading, zone_given)
        return _staged(source, kind, ids, columns, prices, reading, ())
    symbols = np.array(ids.names, np.object_)[ids.code]
    columns, prices = _instrument_columns(source, fields, zone_given)
    own_ids = parse_ids(fields["id"]) if "id" in fields else ids
    return _staged(source, kind, own_ids, columns | {"symbol": symbols}, prices, reading, ())


def _clock(reading: Reading) -> tuple[ZoneInfo, str]:
    if reading.tz is None:
        raise UsageError(
            "no time zone given: the day of a bar is the exchange's local day, and is never guessed",
            place="tz",
            hint="add --tz, such as --tz America/New_York",
        )
    if reading.stamp not in STAMPS:
        raise UsageError(
            "no stamp given: whether a bar is stamped with its start or its end is never guessed"
            if reading.stamp is None
            else f"no such stamp: {reading.stamp!r}",
            place="stamp",
            allowed=", ".join(STAMPS),
            hint="add --stamp start for plain dates",
        )
    return parse_zone(reading.tz), reading.stamp


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
    source: Source, fields: Mapping[str, Field], ids: Ids, reading: Reading, zone: ZoneInfo, stamp: str
) -> Staged:
    day = _session_days(_need(source, fields, "ts"), zone, stamp)
    prices = {name: parse_numbers(_need(source, fields, name)) for name in ("open", "high", "low", "close")}
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
    return _staged(source, STOCK_DAILY, ids, {"day": day, "volume": volume}, prices, reading, notes)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _first(bad: list[tuple[int, str, str]], mask: BOOL, message: Any, hint: str = "") -> None:
    if mask.any():
        row = int(np.argmax(mask))
        bad.append((row, message(row), hint))


def _session_days(field: Field, zone: ZoneInfo, stamp: str) -> I32:
    """Return the session of each bar: a date names it; an end stamp at local midnight ends the day before."""
    stamps, codes = parse_stamps(field, zone)
    days = [one.day - 1 if stamp == "end" and one.is_midnight else one.day for one in stamps]
    return np.array(days, np.int32)[codes]


def _split_columns(source: Source, fields: Mapping[str, Field], reading: Reading, zone: ZoneInfo | None) -> Columns:
    ex_day = parse_days(_need(source, fields, "ex_date"), zone)
    if "ratio" in fields or "numerator" not in fields:
        numerator, denominator = parse_ratios(_need(source, fields, "ratio"))
    else:
        numerator, denominator = (_positive(_need(source, fields, name)) for name in ("numerator", "denominator"))
        divisor = np.gcd(numerator, denominator)
        numerator, denominator = numerator // divisor, denominator // divisor
    is_one = numerator == denominator
    if is_one.any():
        row = int(np.argmax(is_one)) + 1
        raise DataError("the ratio is 1, which is no split", place=source.row(row), hint="remove the row")
    remark = _remarks(source, fields, reading)
    return {"ex_day": ex_day, "numerator": numerator, "denominator": denominator, "source": remark}


def _positive(field: Field) -> I64:
    values = parse_integers(field)
    if (values < 1).any():
        row = int(np.argmax(values < 1))
        raise field.refuse(row, f"{values[row]} is not positive")
    return values


def _remarks(source: Source, fields: Mapping[str, Field], reading: Reading) -> npt.NDArray[np.object_]:
    """Return where each row comes from: the file's own column, else the caller's remark, else the file's name."""
    if "source" in fields:
        return np.array(fields["source"].texts().to_pylist(), np.object_)
    return np.full(source.table.num_rows, reading.remark or source.name.rpartition("/")[2], np.object_)


def _dividend_columns(
    source: Source, fields: Mapping[str, Field], reading: Reading, zone: ZoneInfo | None
) -> tuple[Columns, dict[str, F64]]:
    ex_day = parse_days(_need(source, fields, "ex_date"), zone)
    field = _need(source, fields, "amount")
    amount = parse_numbers(field)
    if (amount <= 0).any():
        row = int(np.argmax(amount <= 0))
        raise field.refuse(row, f"{float(amount[row])!r} is not above zero", hint="a dividend is paid to the holder")
    columns: Columns = {"ex_day": ex_day, "source": _remarks(source, fields, reading)}
    rows = source.table.num_rows
    columns |= _optional("pay_day", fields.get("pay_date"), rows, np.int32, lambda part: parse_days(part, zone))
    columns |= _optional("declared_ts", fields.get("declared"), rows, np.int64, lambda part: parse_instants(part, zone))
    return columns, {"amount": amount}


def _optional(
    name: str, field: Field | None, rows: int, dtype: type[np.generic], parse: Callable[[Field], npt.NDArray[Any]]
) -> Columns:
    """Return the column ``name`` and its validity; rows without a value are 0 in both."""
    values, valid = np.zeros(rows, dtype), np.zeros(rows, np.int8)
    at = np.zeros(0, np.int64) if field is None else np.flatnonzero(optional_rows(field))
    if field is not None and at.size:
        values[at] = parse(field.part(at))
        valid[at] = 1
    return {name: values, f"{name}_valid": valid}


def _instrument_columns(
    source: Source, fields: Mapping[str, Field], zone: ZoneInfo | None
) -> tuple[Columns, dict[str, F64]]:
    rows = source.table.num_rows
    defaults = {"type": "stock", "calendar": "XNYS", "currency": "USD"}
    columns: Columns = {name: _texts_or(fields.get(name), rows, default) for name, default in defaults.items()}
    _check_types(fields.get("type"), columns["type"])
    columns["lot_micro"] = _lots(fields["lot"]) if "lot" in fields else np.full(rows, MICRO, np.int64)
    multiplier = _positive(fields["multiplier"]) if "multiplier" in fields else np.ones(rows, np.int64)
    columns |= {"multiplier": multiplier, "price_scale": np.zeros(rows, np.int64)}
    for name, theirs in (("listed_day", "listed"), ("delisted_day", "delisted")):
        columns |= _optional(name, fields.get(theirs), rows, np.int32, lambda part: parse_days(part, zone))
    value = _optional("delisting_value", fields.get("delisting_value"), rows, np.float64, _values)
    columns["delisting_value_valid"] = value["delisting_value_valid"]
    return columns, {"delisting_value": value["delisting_value"]}


def _texts_or(field: Field | None, rows: int, default: str) -> npt.NDArray[np.object_]:
    if field is None:
        return np.full(rows, default, np.object_)
    return np.array(field.texts().to_pylist(), np.object_)


def _check_types(field: Field | None, types: npt.NDArray[np.object_]) -> None:
    for row, name in enumerate(types):
        if field is not None and name not in INSTRUMENT_TYPES:
            raise field.refuse(row, f"no such type: {name!r}", hint=f"types are {', '.join(INSTRUMENT_TYPES)}")


def _lots(field: Field) -> I64:
    lots = parse_numbers(field)
    is_bad = (lots <= 0) | (lots > LOT_MAX)
    is_bad |= to_ticks(np.where(is_bad, 1.0, lots), 6) / MICRO != np.where(is_bad, 1.0, lots)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        hint = f"a positive number up to {LOT_MAX:,}, of at most 6 decimals"
        raise field.refuse(row, f"{float(lots[row])!r} is not a lot", hint=hint)
    return to_ticks(lots, 6)


def _values(field: Field) -> F64:
    values = parse_numbers(field)
    if (values < 0).any():
        raise field.refuse(int(np.argmax(values < 0)), "the value is negative", hint="a worthless share is worth 0")
    return values


def _staged(
    source: Source,
    kind: Kind,
    ids: Ids,
    columns: Columns,
    prices: Mapping[str, F64],
    reading: Reading,
    notes: tuple[str, ...],
) -> Staged:
    """Cut the rows into pieces per symbol, in time order, with prices as ticks."""
    time: I32 = np.zeros(len(ids.code), np.int32) if kind.time_column is None else columns[kind.time_column]
    order = _ordered(source, kind, ids, time, reading)
    bounds = np.searchsorted(ids.code[order], np.arange(len(ids.names) + 1))
    pieces: dict[str, Piece] = {}
    rounded = 0
    for at, name in enumerate(ids.names):
        rows = order[bounds[at] : bounds[at + 1]]
        ticks, scale, is_rounded = _ticks(source, {key: values[rows] for key, values in prices.items()}, rows, reading)
        rounded += is_rounded
        pieces[name] = Piece({key: values[rows] for key, values in columns.items()} | ticks, rows + 1, scale)
    if rounded:
        notes += (f"prices rounded to {reading.price_scale} decimals in {_counted(rounded, 'symbol')}",)
    return Staged(kind, source, pieces, notes)


def _ordered(source: Source, kind: Kind, ids: Ids, time: I32, reading: Reading) -> I64:
    """Return the permutation to (symbol, time); DataError for keys that are there twice, or not in order."""
    order = np.lexsort((time, ids.code))
    is_twice = (np.diff(ids.code[order]) == 0) & (np.diff(time[order]) == 0)
    if is_twice.any():
        at = min(np.flatnonzero(is_twice).tolist(), key=lambda at: int(order[at + 1]))
        first, second = int(order[at]), int(order[at + 1])
        raise DataError(
            f"duplicate row: {_name(kind, ids, time, second)} is in data row {first + 1} already",
            place=source.row(second + 1),
            hint=_TWICE.get(kind.name, "keep one of them"),
        )
    if not reading.sort:
        by_symbol = np.argsort(ids.code, kind="stable")
        is_back = (np.diff(ids.code[by_symbol]) == 0) & (np.diff(time[by_symbol]) < 0)
        if is_back.any():
            at = min(np.flatnonzero(is_back).tolist(), key=lambda at: int(by_symbol[at + 1]))
            before, row = int(by_symbol[at]), int(by_symbol[at + 1])
            raise DataError(
                f"unsorted: {_name(kind, ids, time, row)} after {iso(int(time[before]))} of data row {before + 1}",
                place=source.row(row + 1),
                hint="sort the file by time, or let --sort do it",
            )
    return order.astype(np.int64)


_TWICE = {
    STOCK_DAILY.name: "keep one of them; this kind has one bar a day, so bars of hours or minutes do not fit",
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
