"""A snapshot as planners see it: instruments, calendars, months and their digests, read plans. No column is read.

Indexes, the master and calendars are fetched once by a process, verified against their content names, and kept: a
``Dataset`` is cheap to make and to ask, and safe for many threads. What it answers depends on the snapshot alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from farm.shard.calendar import Calendar, calendar_from_bytes
from farm.shard.index import MonthRows, ShardIndex, decode_index, merge_months
from farm.shard.kept import read_once
from farm.shard.kinds import INSTRUMENTS, Kind, kind_of
from farm.shard.layout import calendar_key, index_key
from farm.shard.plan import KindPlan, ReadPlan, bar_columns, kinds_read, plan_kind
from farm.shard.snapshot import ShardRef, Snapshot
from farm.store.base import Store
from farm.values.arrays import I32, readonly
from farm.values.canon import sha256_hex
from farm.values.errors import BucketNotFound, DataError, NotFound, SpecError
from farm.values.shared import Shared

INDEX_FETCHES_MAX = 8
CLOSE_NAMES_MAX = 5


@dataclass(frozen=True)
class Instrument:
    """One row of the master. ``lot_micro``: the lot in millionths; None: not known, or still listed.

    ``price_scale`` (decimals seen at creation) is a remark; every series finds its own.
    """

    id: str
    symbol: str
    type: str
    calendar: str
    currency: str
    price_scale: int
    lot_micro: int
    multiplier: int
    listed_day: int | None
    delisted_day: int | None
    delisting_value: float | None


class Dataset:
    """One snapshot, and what is known of it so far."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.store = store
        self.snapshot = snapshot
        self._refs = {ref.sha256: ref for ref in snapshot.shards}
        # Whole: each holds at most what the snapshot names.
        self._indexes: Shared[str, ShardIndex] = Shared(len(self._refs))
        self._calendars: Shared[str, Calendar] = Shared(len(snapshot.calendars))
        self._master: Shared[None, Mapping[str, Instrument]] = Shared(1)
        self._symbols: Shared[None, Mapping[str, str]] = Shared(1)
        self._months: dict[tuple[str, str], list[MonthRows]] = {}

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the master, by permanent id in bytewise order."""
        return self._master.get(None, self._read_master)

    def _read_master(self) -> Mapping[str, Instrument]:
        found: dict[str, Instrument] = {}
        for ref in self.snapshot.of_kind(INSTRUMENTS.name):
            [index] = self._load([ref])
            for instrument in read_once(self.store, ("master", ref), partial(_master, self.store, index)):
                if instrument.id in found:
                    raise DataError(f"the instrument {instrument.id} is there twice", place=ref.key)
                found[instrument.id] = instrument
        return MappingProxyType(dict(sorted(found.items())))

    def _by_symbol(self) -> Mapping[str, str]:
        """Return the id of each symbol; an id stands for itself where it is no symbol."""
        by_id = {name: name for name in self.instruments()}
        return by_id | {instrument.symbol: instrument.id for instrument in self.instruments().values()}

    def resolve(self, symbol: str, place: str) -> str:
        """Return the permanent id of ``symbol``; SpecError at ``place`` that lists close names."""
        known = self._symbols.get(None, self._by_symbol)
        found = known.get(symbol)
        if found is not None:
            return found
        names = sorted(known)
        close = difflib.get_close_matches(symbol.upper(), names, n=CLOSE_NAMES_MAX, cutoff=0.5)
        shown = close or names[:CLOSE_NAMES_MAX]
        more = "" if len(shown) == len(names) else f" (of {len(names)})"
        raise SpecError(
            f"unknown ticker: {symbol!r} is not in the snapshot {self.snapshot.id[:12]}",
            place=place,
            allowed=(", ".join(shown) + more) if shown else "",
            hint="ingest its bars first, or check the spelling" if names else "the snapshot holds no instruments",
        )

    def calendar(self, name: str) -> Calendar:
        """Return the frozen calendar ``name``; DataError that lists those in the snapshot."""
        return self._calendars.get(name, lambda: self._read_calendar(name))

    def _read_calendar(self, name: str) -> Calendar:
        ref = self.snapshot.calendars.get(name)
        if ref is None:
            raise DataError(
                f"no calendar {name!r} in the snapshot {self.snapshot.id[:12]}",
                place=f"calendar {name}",
                allowed=", ".join(self.snapshot.calendars),
                hint="calendars are frozen when instruments that use them are ingested",
            )
        key = calendar_key(ref.sha256)
        return read_once(self.store, key, lambda: (self._fetch_calendar(ref.sha256, key), ref.bytes))

    def _fetch_calendar(self, sha256: str, key: str) -> Calendar:
        data = _get(self.store, key, "calendar")
        if sha256_hex(data) != sha256:
            raise DataError(
                "the calendar is damaged: its bytes are not those it is named by", place=key, hint="restore the object"
            )
        return calendar_from_bytes(data, place=key)

    def months(self, kind: str, instrument_id: str) -> list[MonthRows]:
        """Return the months in which the instrument has rows of ``kind``, in time order, merged over shards."""
        key = (kind, instrument_id)
        found = self._months.get(key)
        if found is None:
            indexes = self._load(self.snapshot.of_kind(kind_of(kind).name))
            found = merge_months([month for index in indexes for month in index.months_of(instrument_id)])
            self._months[key] = found
        return list(found)

    def read_set(self, kind: str, instrument_id: str, first_day: int, last_day: int) -> tuple[str, ...]:
        """Return the digests of the months whose rows touch [first_day, last_day], in time order.

        For a kind without time (the master) the days do not matter.
        """
        is_timeless = kind_of(kind).time_column is None
        return tuple(
            month.digest
            for month in self.months(kind, instrument_id)
            if is_timeless or (month.first_day <= last_day and month.last_day >= first_day)
        )

    def read_plan(self, first_day: Mapping[str, int], last_day: int, columns: Iterable[str]) -> ReadPlan:
        """Return the plan to make a market of these instruments: id -> first day that is read of it.

        ``columns``: bar columns wanted besides those that every run needs.
        """
        ids = tuple(sorted(first_day, key=str.encode))
        days = readonly(np.array([first_day[name] for name in ids], np.int32))
        parts = tuple(self._plan(kind, ids, days, last_day, names) for kind, names in kinds_read(columns).items())
        return ReadPlan(ids, days, last_day, bar_columns(columns), parts)

    def needs(
        self, kind: str, instrument_ids: Iterable[str], first_day: int, last_day: int, columns: Iterable[str]
    ) -> KindPlan:
        """Return the plan to read ``columns`` of one kind of the instruments on [first_day, last_day]."""
        ids = tuple(sorted(set(instrument_ids), key=str.encode))
        return self._plan(kind, ids, np.full(len(ids), first_day, np.int32), last_day, columns)

    def _plan(self, kind: str, ids: Sequence[str], first_day: I32, last_day: int, columns: Iterable[str]) -> KindPlan:
        entry = kind_of(kind)
        indexes, shards_pruned = self.indexes(entry, int(first_day.min()) if ids else last_day, last_day)
        return plan_kind(entry, indexes, ids, first_day, last_day, columns, shards_pruned=shards_pruned)

    def indexes(self, kind: Kind, first_day: int, last_day: int) -> tuple[list[ShardIndex], int]:
        """Return the indexes of the shards whose span may hold days of [first_day, last_day], and how many may not."""
        refs = self.snapshot.of_kind(kind.name)
        kept = [ref for ref in refs if _may_hold(kind, ref.span, first_day, last_day)]
        return self._load(kept), len(refs) - len(kept)

    def index(self, shard_sha256: str) -> ShardIndex:
        """Return the index of one shard of the snapshot."""
        [index] = self._load([self._refs[shard_sha256]])
        return index

    @property
    def metadata_bytes(self) -> int:
        """Bytes of the indexes, calendars and master rows that have been loaded so far."""
        indexes = sum(self._refs[sha].index_bytes for sha in self._indexes.sizes())
        calendars = sum(self.snapshot.calendars[name].bytes for name in self._calendars.sizes())
        return indexes + calendars + sum(ref.bytes for ref in self.snapshot.of_kind(INSTRUMENTS.name))

    def _load(self, refs: Iterable[ShardRef]) -> list[ShardIndex]:
        return list(self._indexes.get_many([ref.sha256 for ref in refs], self._fetch_indexes).values())

    def _fetch_indexes(self, shards: Sequence[str]) -> Mapping[str, ShardIndex]:
        refs = [self._refs[sha256] for sha256 in shards]
        if len(refs) == 1:
            return {refs[0].sha256: self._fetch_index(refs[0])}
        with ThreadPoolExecutor(min(len(refs), INDEX_FETCHES_MAX)) as pool:
            return dict(zip(shards, pool.map(self._fetch_index, refs), strict=True))

    def _fetch_index(self, ref: ShardRef) -> ShardIndex:
        def read() -> tuple[ShardIndex, int]:
            key = index_key(ref.index_sha256)
            return decode_index(_get(self.store, key, f"index of {ref.key}"), ref, place=key), ref.index_bytes

        return read_once(self.store, ("index", ref), read)


def _may_hold(kind: Kind, span: str, first_day: int, last_day: int) -> bool:
    days = kind.span_days(span)
    return days is None or (days[0] <= last_day and days[1] >= first_day)


def _get(store: Store, key: str, what: str) -> bytes:
    try:
        return store.get(key)
    except BucketNotFound:
        raise
    except NotFound as error:
        raise DataError(
            f"the {what} is missing", place=key, hint="restore the object; the snapshot names it"
        ) from error


def read_table(store: Store, ref: ShardRef) -> pa.Table:
    """Return a whole shard as stored, verified against its name: for the small kinds, and for tools.

    Errors: DataError when it is missing or damaged.
    """
    data = _get(store, ref.key, "shard")
    if sha256_hex(data) != ref.sha256:
        raise DataError(
            f"the shard is damaged: {len(data)} bytes that are not the {ref.bytes} bytes it is named by",
            place=f"{ref.key}, all row groups and columns",
            hint="restore the object, or delete it and ingest its rows again",
        )
    # Not read_table: its dataset module imports pandas.
    return pq.ParquetFile(pa.BufferReader(data)).read()


def _master(store: Store, index: ShardIndex) -> tuple[tuple[Instrument, ...], int]:
    columns = read_table(store, index.ref).to_pydict()
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return tuple(_instrument(row, index.scale_of(row["id"])) for row in rows), index.ref.bytes


def _instrument(row: Mapping[str, Any], scale: int) -> Instrument:
    def optional(name: str) -> int | None:
        return row[name] if row[f"{name}_valid"] else None

    value = optional("delisting_value")
    return Instrument(
        id=row["id"],
        symbol=row["symbol"],
        type=row["type"],
        calendar=row["calendar"],
        currency=row["currency"],
        price_scale=row["price_scale"],
        lot_micro=row["lot_micro"],
        multiplier=row["multiplier"],
        listed_day=optional("listed_day"),
        delisted_day=optional("delisted_day"),
        delisting_value=None if value is None else value / 10**scale,
    )
