"""One attempt of an ingest: from the head of a dataset to the snapshot that also holds the staged rows.

It is pure up to the last step, in which all new objects are written; names are contents, so an attempt that loses the
race to another commit leaves nothing wrong behind, and the next attempt starts from the newer head.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from farm.shard.calendar import Calendar, calendar_to_bytes, freeze_calendar, widened
from farm.shard.dataset import Dataset, Instrument
from farm.shard.doubts import (
    Doubt,
    TooLarge,
    bars_of,
    dividends_of,
    find_doubts,
    find_too_large,
    notes_of,
    splits_of,
)
from farm.shard.index import ShardRows, decode_prices
from farm.shard.kinds import DIVIDENDS, INSTRUMENTS, SPLITS, STOCK_DAILY, Kind, kind_of
from farm.shard.layout import calendar_key, index_key
from farm.shard.parse import scale_of, to_ticks
from farm.shard.reader import ColumnKey, Rows, Values, read_columns, read_rows
from farm.shard.sessions import on_sessions
from farm.shard.snapshot import CalendarRef, ShardRef, Snapshot, make_snapshot, put_content
from farm.shard.stage import Piece, Staged
from farm.shard.writer import write_shard
from farm.store.base import Store
from farm.values.arrays import BOOL
from farm.values.canon import sha256_hex
from farm.values.errors import DataError, UsageError
from farm.values.units import MICRO, iso

PAUSE_DAYS_MAX = 14
"""How far before its first new row a symbol's bar before is looked for, when steps of the price are."""

DEFAULT_TYPE = "stock"
DEFAULT_CALENDAR = "XNYS"


@dataclass(frozen=True)
class Creation:
    """Flags that act beyond the rows: type and calendar of instruments that bars create (None: not said), layout.

    ``skip_unknown``: leave out splits and dividends of symbols that have no instrument, instead of refusing the file;
    ``skip_sessions``: leave out rows on days that are no session of the calendar.
    """

    type: str | None = None
    calendar: str | None = None
    row_group_rows: int | None = None
    codec: str | None = None
    skip_unknown: bool = False
    skip_sessions: bool = False


class _Kept(dict[ColumnKey, Values]):
    """Columns of the head that are compared with new rows, kept as long as the ingest."""

    def get_many(
        self, keys: Sequence[ColumnKey], load: Callable[[Sequence[ColumnKey]], Mapping[ColumnKey, Values]]
    ) -> dict[ColumnKey, Values]:
        missing = [key for key in keys if key not in self]
        if missing:
            self.update(load(missing))
        return {key: self[key] for key in keys}


@dataclass
class Change:
    """One attempt: from a head to the snapshot that also holds the staged rows."""

    store: Store
    dataset: str
    head: Snapshot | None
    creation: Creation
    frozen: dict[str, Calendar]
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    calendars: dict[str, CalendarRef] = field(default_factory=dict)
    written: list[ShardRef] = field(default_factory=list)
    pending: list[tuple[str, bytes, str]] = field(default_factory=list)
    dropped: tuple[ShardRef, ...] = ()
    rows_added: int = 0
    rows_skipped: int = 0
    gaps: int = 0
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    wider: dict[str, Calendar] = field(default_factory=dict)
    fresh: dict[str, dict[str, Piece]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base = None if self.head is None else Dataset(self.store, self.head)
        self.master: Mapping[str, Instrument] = {} if self.base is None else self.base.instruments()
        self.by_symbol = {instrument.symbol: instrument for instrument in self.master.values()}

    def apply(self, staged: Sequence[Staged]) -> Snapshot:
        """Write all that is new and return the new snapshot; the head itself when nothing is."""
        for one in staged:
            if one.kind is INSTRUMENTS:
                self._new_instruments(one)
            else:
                self.fresh[one.kind.name] = self._fresh(one)
        self.notes += notes_of(self._doubts())
        for name, pieces in self.fresh.items():
            for span, rows in _spans(kind_of(name), pieces).items():
                self._make(rows, span)
        if self.created:
            self._make_master()
        if not self.written and self.head is not None:
            return self.head
        if not self.written:
            said = "; ".join((*(note for one in staged for note in one.notes), *self.notes))
            raise DataError("no row of the file is left to store", place=staged[0].source.name, hint=said)
        # Only now, when every row of every kind has passed, the first byte is written.
        for key, data, sha256 in self.pending:
            put_content(self.store, key, data, sha256)
        shards = () if self.head is None else self.head.shards
        calendars = {} if self.head is None else dict(self.head.calendars)
        kept = tuple(shard for shard in shards if shard not in self.dropped)
        return make_snapshot(self.dataset, (*kept, *self.written), calendars | self.calendars)

    def _fresh(self, staged: Staged) -> dict[str, Piece]:
        """Return the rows that are not stored yet, by instrument id; checks instruments, sessions, equality."""
        if self.creation.skip_unknown and staged.kind is not STOCK_DAILY:
            known = {symbol: piece for symbol, piece in staged.pieces.items() if symbol in self.by_symbol}
            self.unknown += tuple(symbol for symbol in staged.pieces if symbol not in known)
            if staged.pieces and not known:
                raise DataError(
                    "no symbol of the file has an instrument", place=staged.source.name, hint="ingest bars first"
                )
            staged = replace(staged, pieces=known)
        owners = {symbol: self._owner(staged, symbol, piece) for symbol, piece in staged.pieces.items()}
        staged = self._on_sessions(staged, owners)
        stored = self._stored(staged, owners)
        fresh: dict[str, Piece] = {}
        for symbol, piece in staged.pieces.items():
            instrument_id = owners[symbol][0]
            is_new = _new_rows(staged, symbol, piece, stored.get(instrument_id))
            self.rows_added += int(is_new.sum())
            self.rows_skipped += int((~is_new).sum())
            if is_new.any():
                fresh[instrument_id] = piece if is_new.all() else piece.take(is_new)
        return fresh

    def _owner(self, staged: Staged, symbol: str, piece: Piece) -> tuple[str, str]:
        """Return id and calendar of ``symbol``; bars of an unknown one create its instrument."""
        found = self.by_symbol.get(symbol)
        if found is not None:
            self._check_master(staged, found)
            return found.id, found.calendar
        if symbol in self.created:
            return symbol, str(self.created[symbol]["calendar"])
        if staged.kind is not STOCK_DAILY:
            raise DataError(
                f"{staged.kind.name} of an unknown symbol: {symbol!r}",
                place=staged.source.row(int(piece.numbers.min())),
                hint=self._close_to(symbol)
                + "ingest its bars first, or its row of the instruments; or leave such rows out with --skip-unknown",
            )
        if symbol in self.master:
            raise DataError(
                f"{symbol!r} is the id of an instrument whose symbol is {self.master[symbol].symbol!r}",
                place=staged.source.row(int(piece.numbers.min())),
                hint="name the instrument of these bars in the instruments first",
            )
        calendar = self._calendar(self.creation.calendar or DEFAULT_CALENDAR).name
        self.created[symbol] = {
            "symbol": symbol,
            "type": self.creation.type or DEFAULT_TYPE,
            "calendar": calendar,
            "currency": "USD",
            "price_scale": piece.scale,
            "lot_micro": MICRO,
            "multiplier": 1,
        }
        return symbol, calendar

    def _close_to(self, symbol: str) -> str:
        known = {name.lower(): name for name in self.by_symbol}
        close = difflib.get_close_matches(symbol.lower(), known, n=3)
        return f"is {' or '.join(known[one] for one in close)} meant? else " if close else ""

    def _check_master(self, staged: Staged, instrument: Instrument) -> None:
        """Raise UsageError when a flag contradicts the master: it would be ignored otherwise."""
        if staged.kind is not STOCK_DAILY:
            return
        asked = None if self.creation.calendar is None else self._calendar(self.creation.calendar).name
        for name, wanted, stored in (
            ("type", self.creation.type, instrument.type),
            ("calendar", asked, instrument.calendar),
        ):
            if wanted is not None and wanted != stored:
                raise UsageError(
                    f"{instrument.symbol} is there already with {name} {stored}, not {wanted}",
                    place=name,
                    hint=f"drop --{name}, or ingest these symbols apart",
                )

    def _calendar(self, name: str) -> Calendar:
        """Return the calendar from the head, or freeze it; it is written when the change is."""
        if self.base is not None and name in self.base.snapshot.calendars:
            return self.base.calendar(name)
        calendar = self.frozen.get(name) or freeze_calendar(name)
        self.frozen[name] = calendar
        if self.base is not None and calendar.name in self.base.snapshot.calendars:
            return self.base.calendar(calendar.name)
        if calendar.name not in self.calendars:
            self._keep_calendar(calendar)
        return calendar

    def _calendar_over(self, name: str, first_day: int, last_day: int) -> Calendar:
        """Return the calendar that an instrument names, widened by what its source knows if the days ask for it."""
        calendar = self.wider.get(name) or self._calendar(name)
        if calendar.knows(np.array([first_day, last_day], np.int32)).all():
            return calendar
        source = self.frozen.get(name) or freeze_calendar(name)
        self.frozen[name] = source
        wider = widened(calendar, source)
        if wider is not calendar:
            self._keep_calendar(wider)
            self.wider[name] = wider
        return wider

    def _keep_calendar(self, calendar: Calendar) -> None:
        data = calendar_to_bytes(calendar)
        ref = CalendarRef(sha256_hex(data), len(data))
        self.pending.append((calendar_key(ref.sha256), data, ref.sha256))
        self.calendars[calendar.name] = ref

    def _on_sessions(self, staged: Staged, owners: Mapping[str, tuple[str, str]]) -> Staged:
        """Return the rows that fall on sessions; notes those left out, and counts the gaps of bars."""
        time = staged.kind.time_column
        assert time is not None
        calendars = {
            symbol: self._calendar_over(owners[symbol][1], int(piece.columns[time][0]), int(piece.columns[time][-1]))
            for symbol, piece in staged.pieces.items()
        }
        first_bars = {} if staged.kind is STOCK_DAILY else self._first_bars(owners)
        done = on_sessions(staged, calendars, first_bars, skip=self.creation.skip_sessions)
        self.notes += done.notes
        self.gaps += done.gaps
        if staged.kind is STOCK_DAILY:
            for symbol in staged.pieces.keys() - done.pieces.keys():
                self.created.pop(owners[symbol][0], None)
        return replace(staged, pieces=done.pieces)

    def _first_bars(self, owners: Mapping[str, tuple[str, str]]) -> dict[str, int]:
        """Return the day of the first bar of each symbol that has bars, stored or new."""
        found: dict[str, int] = {}
        for symbol, (instrument_id, _) in owners.items():
            months = [] if self.base is None else self.base.months(STOCK_DAILY.name, instrument_id)
            days = [month.first_day for month in months[:1]]
            if instrument_id in self.fresh.get(STOCK_DAILY.name, {}):
                days.append(int(self.fresh[STOCK_DAILY.name][instrument_id].columns["day"][0]))
            if days:
                found[symbol] = min(days)
        return found

    def _stored(self, staged: Staged, owners: Mapping[str, tuple[str, str]]) -> dict[str, Rows]:
        """Return the stored rows in the window of each piece, for the instruments that have some."""
        time = staged.kind.time_column
        assert time is not None
        windows = {
            owners[symbol][0]: (int(piece.columns[time][0]), int(piece.columns[time][-1]))
            for symbol, piece in staged.pieces.items()
        }
        columns = [column.name for column in staged.kind.columns if column.logical and column.type != "utf8"]
        return self._read(staged.kind, windows, columns)

    def _read(self, kind: Kind, windows: Mapping[str, tuple[int, int]], columns: Sequence[str]) -> dict[str, Rows]:
        """Return the stored rows of instruments, each in its own window of days, fetched at once."""
        if self.base is None:
            return {}
        windows = {name: days for name, days in windows.items() if self.base.read_set(kind.name, name, *days)}
        if not windows:
            return {}
        cache = _Kept()
        first, last = min(low for low, _ in windows.values()), max(high for _, high in windows.values())
        read_columns(self.store, self.base, self.base.needs(kind.name, windows, first, last, columns), cache)
        return {
            name: read_rows(self.base, cache, kind.name, name, low, high, columns)
            for name, (low, high) in windows.items()
        }

    def _doubts(self) -> list[Doubt | TooLarge]:
        """Return where the new rows, and the stored ones around them, have prices and actions that contradict.

        The bars of a decade lie in shards of their own: actions are looked at decade by decade, so that no more columns
        than one decade's are held at once.
        """
        bars, splits, dividends = (self.fresh.get(kind.name, {}) for kind in (STOCK_DAILY, SPLITS, DIVIDENDS))
        batches: dict[str, dict[str, tuple[int, int]]] = {}
        for name, piece in bars.items():
            batches.setdefault("", {})[name] = int(piece.columns["day"][0]), int(piece.columns["day"][-1])
        for name, piece in (*splits.items(), *dividends.items()):
            for day in piece.columns["ex_day"].tolist():
                windows = batches.setdefault(STOCK_DAILY.span_of(day), {})
                low, high = windows.get(name, (day, day))
                windows[name] = min(low, day), max(high, day)
        found: dict[Doubt | TooLarge, None] = {}
        for windows in batches.values():
            around = {name: (low - PAUSE_DAYS_MAX, high + PAUSE_DAYS_MAX) for name, (low, high) in windows.items()}
            held_bars = self._read(STOCK_DAILY, around, ("open", "close"))
            held_splits = self._read(SPLITS, around, ("numerator", "denominator"))
            held_dividends = self._read(DIVIDENDS, around, ("amount",))
            for name, (low, high) in around.items():
                symbol = self.master[name].symbol if name in self.master else str(self.created[name]["symbol"])
                new_bars = _within(bars.get(name), "day", low, high)
                new_splits = _within(splits.get(name), "ex_day", low, high)
                prices = bars_of(held_bars.get(name), new_bars)
                steps = splits_of(held_splits.get(name), new_splits)
                paid = dividends_of(held_dividends.get(name), _within(dividends.get(name), "ex_day", low, high))
                found |= dict.fromkeys(find_doubts(symbol, prices, steps))
                found |= dict.fromkeys(find_too_large(symbol, prices, steps, paid))
        return list(found)

    def _make(self, rows: ShardRows, span: str) -> None:
        data, index, ref = write_shard(
            rows, span, row_group_rows=self.creation.row_group_rows, codec=self.creation.codec
        )
        self.pending.append((ref.key, data, ref.sha256))
        self.pending.append((index_key(ref.index_sha256), index, ref.index_sha256))
        self.written.append(ref)

    def _new_instruments(self, staged: Staged) -> None:
        """Add the rows of an instruments file to those to create; DataError for one that differs from the master."""
        for instrument_id, piece in staged.pieces.items():
            row: dict[str, Any] = {name: values[0] for name, values in piece.columns.items()}
            row["calendar"] = self._calendar(str(row["calendar"])).name
            row["scale"] = piece.scale
            place = staged.source.row(int(piece.numbers[0]))
            held = self.master.get(instrument_id)
            if held is not None:
                _check_same(held, row, place)
                self.rows_skipped += 1
                continue
            other = self.by_symbol.get(str(row["symbol"]))
            if other is not None or any(row["symbol"] == one["symbol"] for one in self.created.values()):
                hint = "a symbol names one instrument; give the other one its last symbol first"
                raise DataError(f"the symbol {row['symbol']!r} belongs to another instrument", place=place, hint=hint)
            self.created[instrument_id] = row
            self.rows_added += 1

    def _make_master(self) -> None:
        """Make the master anew, with the rows of the head and the created ones: it is one small shard."""
        rows = {name: _master_row(instrument) for name, instrument in self.master.items()}
        rows |= {name: {**_EMPTY_MASTER_ROW, **row} for name, row in self.created.items()}
        names = tuple(sorted(rows))
        columns: dict[str, Any] = {}
        for column in INSTRUMENTS.columns[1:]:
            values = [rows[name][column.name] for name in names]
            columns[column.name] = pa.array(values) if column.type == "utf8" else np.array(values, column.type)
        scales = np.array([rows[name]["scale"] for name in names], np.int8)
        code = np.arange(len(names), dtype=np.int32)
        self._make(ShardRows(INSTRUMENTS, names, code, scales, columns), "all")
        self.dropped = () if self.head is None else self.head.of_kind(INSTRUMENTS.name)


def _within(piece: Piece | None, time: str, first_day: int, last_day: int) -> Piece | None:
    """Return the rows of a piece in [first_day, last_day], if there are any."""
    if piece is None:
        return None
    mask = (piece.columns[time] >= first_day) & (piece.columns[time] <= last_day)
    return piece.take(mask) if mask.any() else None


def _spans(kind: Kind, pieces: Mapping[str, Piece]) -> dict[str, ShardRows]:
    """Return the rows of each shard: pieces cut at the bounds of the spans, symbols in bytewise order."""
    assert kind.time_column is not None
    parts: dict[str, list[tuple[str, int, dict[str, npt.NDArray[Any]]]]] = {}
    for name in sorted(pieces):
        piece = pieces[name]
        day, start = piece.columns[kind.time_column], 0
        while start < piece.rows:
            span = kind.span_of(int(day[start]))
            days = kind.span_days(span)
            stop = piece.rows if days is None else int(np.searchsorted(day, days[1], side="right"))
            columns = {key: values[start:stop] for key, values in piece.columns.items()}
            parts.setdefault(span, []).append((name, piece.scale, columns))
            start = stop
    return {span: _joined(kind, parts[span]) for span in sorted(parts)}


def _joined(kind: Kind, parts: Sequence[tuple[str, int, Mapping[str, npt.NDArray[Any]]]]) -> ShardRows:
    columns: dict[str, Any] = {}
    for column in kind.columns:
        if column.name != kind.instrument_column:
            values = np.concatenate([part[column.name] for _, _, part in parts])
            columns[column.name] = pa.array(values.tolist(), pa.string()) if column.type == "utf8" else values
    lengths = [len(part[kind.time_column or ""]) for _, _, part in parts]
    return ShardRows(
        kind=kind,
        symbols=tuple(name for name, _, _ in parts),
        code=np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        scales=np.array([scale for _, scale, _ in parts], np.int8),
        columns=columns,
    )


def _new_rows(staged: Staged, symbol: str, piece: Piece, stored: Rows | None) -> BOOL:
    """Return which rows are not stored yet; DataError for the first that is stored with other values."""
    if stored is None or not len(stored):
        return np.ones(piece.rows, np.bool_)
    time = staged.kind.time_column
    assert time is not None
    day, held = piece.columns[time], stored[time]
    at = np.minimum(np.searchsorted(held, day), len(held) - 1)
    is_stored: BOOL = held[at] == day
    bad: list[tuple[int, str, str]] = []
    for column in staged.kind.columns:
        if column.name not in stored.columns or column.name == time:
            continue
        new, old = piece.columns[column.name], stored[column.name][at]
        if column.is_price:
            new, old = decode_prices(new, piece.scale), stored.prices(column.name)[at]
        is_other = is_stored & (new != old)
        if is_other.any():
            rows = np.flatnonzero(is_other)
            row = int(rows[np.argmin(piece.numbers[rows])])
            values = f"{column.name} is {new[row].item()!r} here and {old[row].item()!r} in the dataset"
            bad.append((int(piece.numbers[row]), f"{symbol} {iso(int(day[row]))}", values))
    if bad:
        number, row_name, values = min(bad)
        raise DataError(
            f"the row of {row_name} differs from the stored one: {values}",
            place=staged.source.row(number),
            hint="stored rows never change; ingest corrected data into another --dataset",
        )
    return ~is_stored


def _check_same(held: Instrument, row: Mapping[str, Any], place: str) -> None:
    """Raise DataError when ``row`` says something else of an instrument than the master does."""
    stored = _master_row(held)
    for column in INSTRUMENTS.columns[1:]:
        new, old = row[column.name], stored[column.name]
        if column.is_price:
            new, old = new / 10 ** row["scale"], old / 10 ** stored["scale"]
        if column.logical and new != old:
            raise DataError(
                f"{held.id} differs from the stored one: {column.name} is {new!s} here and {old!s} in the dataset",
                place=place,
                hint="ingest the instruments before their bars, or into another --dataset",
            )


def _master_row(instrument: Instrument) -> dict[str, Any]:
    value = np.array([instrument.delisting_value or 0.0])
    scale, _ = scale_of(value)
    return {
        "symbol": instrument.symbol,
        "type": instrument.type,
        "calendar": instrument.calendar,
        "currency": instrument.currency,
        "price_scale": instrument.price_scale,
        "lot_micro": instrument.lot_micro,
        "multiplier": instrument.multiplier,
        "listed_day": instrument.listed_day or 0,
        "listed_day_valid": int(instrument.listed_day is not None),
        "delisted_day": instrument.delisted_day or 0,
        "delisted_day_valid": int(instrument.delisted_day is not None),
        "delisting_value": int(to_ticks(value, scale)[0]),
        "delisting_value_valid": int(instrument.delisting_value is not None),
        "scale": scale,
    }


_EMPTY_MASTER_ROW: Mapping[str, Any] = {
    "scale": 0,
    "listed_day": 0,
    "listed_day_valid": 0,
    "delisted_day": 0,
    "delisted_day_valid": 0,
    "delisting_value": 0,
    "delisting_value_valid": 0,
}
