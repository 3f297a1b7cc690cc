"""Executes read plans: fetches column chunks in few requests, verifies each, decodes, and cuts out rows.

Steps of a cold read, all on behalf of the column cache:

1. The wanted chunks of a shard are coalesced into few ranges; all ranges of a shard, and the shards, go out at once.
2. Every chunk is compared with the checksum in the index before anything looks inside. The footer comes from the
   index too, so no byte of a shard is believed unverified.
3. Row groups are decoded side by side, each from a segment file, which knows only the verified chunks and raises on
   any other range.

Rows are filtered after the cache, so the cache knows neither universes nor windows.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from farm.shard.arrow import to_numpy
from farm.shard.dataset import Dataset
from farm.shard.index import ShardIndex, decode_prices
from farm.shard.kinds import kind_of
from farm.shard.plan import ChunkRef, KindPlan, ReadPlan
from farm.store.base import Store
from farm.store.coalesce import Fetch, coalesce
from farm.store.wrap import settings_of
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import BucketNotFound, DataError, NotFound, ShortRead
from farm.values.units import iso

FOOTER_BYTES_MAX = 16 * 1024
"""How much of the end of a shard is read to see that it is whole."""

SHARDS_MAX = 8
"""Shards read at once; the store itself limits the requests in flight."""

DECODERS_MAX = 4
"""Row groups decoded at once by one read, on as many cores."""

ColumnKey: TypeAlias = tuple[str, int, str]
Values: TypeAlias = npt.NDArray[Any]


class ColumnLoader(Protocol):
    """What the reader asks of the column cache."""

    def get_many(
        self, keys: Sequence[ColumnKey], load: Callable[[Sequence[ColumnKey]], Mapping[ColumnKey, Values]]
    ) -> dict[ColumnKey, Values]:
        """Return a read-only column per key, calling ``load`` for those that nobody holds."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one instrument in time order, raw as stored: ``rows["close"]`` is int64 ticks of 10**-scale.

    Shapes: every column (n,), read-only; often views into the cache. The time column strictly rises.
    scale:  the fewest decimals that hold every price in these rows: it depends on the rows, not on their shards.
    """

    instrument_id: str
    columns: Mapping[str, Values]
    scale: int

    def __getitem__(self, name: str) -> Values:
        return self.columns[name]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def prices(self, name: str) -> F64:
        """Return a price column as float64: one correctly rounded division."""
        return readonly(decode_prices(self.columns[name], self.scale))


def read_columns(
    store: Store, dataset: Dataset, plan: KindPlan | ReadPlan, cache: ColumnLoader
) -> dict[ColumnKey, Values]:
    """Return every column of ``plan``, decoded, read-only, by (shard sha256, row group, column).

    Numbers keep their stored type; the instrument column is int32 codes into ``dataset.index(shard).symbols``.
    Errors: DataError naming key, row group and column for a chunk that is missing, cut off or damaged.
    """
    chunks = {chunk.column_key: chunk for chunk in plan.chunks}

    def load(keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Values]:
        by_shard: dict[str, list[ChunkRef]] = {}
        for key in keys:
            by_shard.setdefault(key[0], []).append(chunks[key])
        return _load(store, dataset, list(by_shard.values()))

    return cache.get_many(list(chunks), load) if chunks else {}


def _load(store: Store, dataset: Dataset, shards: list[list[ChunkRef]]) -> dict[ColumnKey, Values]:
    """Fetch the chunks of all shards at once, and decode each row group as its shard has come."""

    def fetch(wanted: list[ChunkRef]) -> list[Callable[[], dict[ColumnKey, Values]]]:
        index = dataset.index(wanted[0].shard_sha)
        groups: dict[int, list[tuple[ChunkRef, memoryview]]] = {}
        for chunk, data in zip(wanted, _fetch(store, index, wanted), strict=True):
            groups.setdefault(chunk.row_group, []).append((chunk, data))
        return [partial(_decode, index, group, parts) for group, parts in groups.items()]

    if len(shards) == 1 and len({chunk.row_group for chunk in shards[0]}) == 1:
        [decode] = fetch(shards[0])
        return decode()
    found: dict[ColumnKey, Values] = {}
    with ThreadPoolExecutor(decoders()) as decoding, ThreadPoolExecutor(min(len(shards), SHARDS_MAX)) as fetching:
        fetched = [fetching.submit(fetch, wanted) for wanted in shards]
        decoded: list[Future[dict[ColumnKey, Values]]] = []
        try:
            for one in fetched:
                decoded += map(decoding.submit, one.result())
            for group in decoded:
                found.update(group.result())
        finally:
            fetching.shutdown(wait=False, cancel_futures=True)
            decoding.shutdown(wait=False, cancel_futures=True)
    return found


def decoders() -> int:
    """Return how many row groups are decoded at once: Arrow does it without the lock of the interpreter."""
    return min(DECODERS_MAX, len(os.sched_getaffinity(0)))


def _fetch(store: Store, index: ShardIndex, chunks: list[ChunkRef]) -> list[memoryview]:
    """Return the verified bytes of each chunk.

    The end of the shard comes along: one that was cut off behind these chunks is damaged too, and a user should hear
    of it today, not when another column is wanted.
    """
    end = index.footer[-FOOTER_BYTES_MAX:]
    ranges = [(chunk.offset, chunk.length) for chunk in chunks] + [(index.ref.bytes - len(end), len(end))]
    settings = settings_of(store)
    fetches = coalesce(ranges, gap_bytes_max=settings.gap_bytes_max, fetch_bytes_max=settings.fetch_bytes_max)
    key = index.ref.key
    try:
        bodies = store.get_ranges(key, [(fetch.start, fetch.length) for fetch in fetches])
    except BucketNotFound:
        raise
    except NotFound as error:
        raise _damaged("the shard is missing", key, chunks[0].row_group, chunks[0].column) from error
    except ShortRead as error:
        size = store.head(key).size
        if size >= index.ref.bytes:
            raise
        lost = next((chunk for chunk in chunks if chunk.offset + chunk.length > size), chunks[-1])
        raise _damaged(
            f"the shard is cut off: {size} of {index.ref.bytes} bytes", key, lost.row_group, lost.column
        ) from error
    found: list[memoryview] = [memoryview(b"")] * len(ranges)
    for fetch, body in zip(fetches, bodies, strict=True):
        _verify(index, fetch, body)
        for part in fetch.parts:
            start = ranges[part][0] - fetch.start
            found[part] = memoryview(body)[start : start + ranges[part][1]]
    if found.pop() != end:
        raise _damaged("the footer is not the one that was written", key, chunks[-1].row_group, chunks[-1].column)
    return found


def _verify(index: ShardIndex, fetch: Fetch, body: bytes) -> None:
    """Compare every column chunk that lies in a fetched range with its checksum, also those that only came along."""
    offsets, ordered = index.by_offset
    first = bisect_left(offsets, fetch.start)
    for (group, column), chunk in ordered[first : bisect_left(offsets, fetch.start + fetch.length)]:
        start = chunk.offset - fetch.start
        if start + chunk.length > fetch.length:
            continue  # cut by the end of a range that does not want it
        data = memoryview(body)[start : start + chunk.length]
        if len(data) != chunk.length or xxhash.xxh3_64_intdigest(data) != chunk.checksum:
            raise _damaged(
                "the bytes of the column chunk are not those that were written", index.ref.key, group, column
            )
    if len(body) != fetch.length:
        raise ShortRead(f"{len(body)} bytes came for a range of {fetch.length}", place=index.ref.key)


def _damaged(message: str, key: str, row_group: int, column: str) -> DataError:
    return DataError(
        message,
        place=f"{key}, row group {row_group}, column {column}",
        hint="restore the object, or delete it and ingest its rows again",
    )


def _decode(index: ShardIndex, group: int, parts: list[tuple[ChunkRef, memoryview]]) -> dict[ColumnKey, Values]:
    """Return the columns of one row group."""
    file = pq.ParquetFile(
        pa.PythonFile(_Segment(index.ref, {chunk.offset: data for chunk, data in parts}), mode="r"),
        metadata=index.metadata,
        pre_buffer=False,
        read_dictionary=[index.kind.instrument_column],
    )
    try:
        table = file.read_row_group(group, [chunk.column for chunk, _ in parts], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(f"it cannot be decoded: {error}", index.ref.key, group, parts[0][0].column) from error
    rows = int(index.group_rows[group])
    if table.num_rows != rows:
        raise _damaged(f"{table.num_rows} rows instead of {rows}", index.ref.key, group, parts[0][0].column)
    return {chunk.column_key: _numpy(index, table[chunk.column]) for chunk, _ in parts}


def _numpy(index: ShardIndex, column: pa.ChunkedArray) -> Values:
    if not pa.types.is_dictionary(column.type):
        return to_numpy(column)
    # Codes differ between row groups: map them to positions in the symbol table of the shard.
    whole = column.combine_chunks()
    codes = np.array([index.code_of(symbol) for symbol in whole.dictionary.to_pylist()], np.int32)
    return readonly(codes[to_numpy(whole.indices)])


class _Segment(io.RawIOBase):
    """A file that holds only the verified chunks of a shard; reading anything else is an error, never zeros."""

    def __init__(self, ref: Any, parts: Mapping[int, memoryview]) -> None:
        super().__init__()
        self._ref = ref
        self._parts = parts
        self._starts = sorted(parts)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ref.bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> Any:
        """Return the bytes as a view: Arrow takes any buffer, and a copy would be made under the interpreter's lock."""
        at = bisect_right(self._starts, self._at) - 1
        if at >= 0 and size >= 0:
            start = self._starts[at]
            part = self._parts[start]
            if self._at + size <= start + len(part):
                data = part[self._at - start : self._at - start + size]
                self._at += size
                return data
        raise OSError(f"bytes {self._at} + {size} of {self._ref.key} were not planned")


def read_rows(
    dataset: Dataset,
    cache: ColumnLoader,
    kind: str,
    instrument_id: str,
    first_day: int,
    last_day: int,
    columns: Iterable[str],
) -> Rows:
    """Return the rows of one instrument on [first_day, last_day]: ``columns`` and the time column.

    Errors: DataError as ``read_columns``, and when rows of several shards are out of order or there twice.
    """
    entry = kind_of(kind)
    plan = dataset.needs(kind, [instrument_id], first_day, last_day, columns)
    names, runs = plan.columns, plan.runs
    loaded = read_columns(dataset.store, dataset, plan, cache)
    pieces: list[tuple[int, dict[str, Values], int]] = []
    stops = (runs.start + runs.rows).tolist()
    for at, start, stop, own in zip(runs.group.tolist(), runs.start.tolist(), stops, runs.scale.tolist(), strict=True):
        shard, group = plan.groups[at]
        piece = {name: loaded[shard, group, name][start:stop] for name in names}
        if entry.time_column is not None:
            piece = _within(piece, entry.time_column, first_day, last_day)
        first = int(piece[entry.time_column][0]) if entry.time_column and len(piece[names[0]]) else 0
        pieces.append((first, piece, own))
    pieces = [piece for piece in pieces if len(piece[1][names[0]])]
    pieces.sort(key=lambda piece: piece[0])
    prices = [column.name for column in entry.columns if column.is_price and column.name in names]
    scale = max((_fewest_decimals(piece, prices, own) for _, piece, own in pieces), default=0)
    joined = _join(entry.name, names, [_rescaled(piece, prices, own, scale) for _, piece, own in pieces])
    if entry.time_column is not None:
        joined = _in_order(joined, entry.time_column, f"{kind} {instrument_id}")
    return Rows(instrument_id, joined, scale)


def _within(piece: dict[str, Values], time_column: str, first_day: int, last_day: int) -> dict[str, Values]:
    day = piece[time_column]
    low, high = int(np.searchsorted(day, first_day)), int(np.searchsorted(day, last_day, side="right"))
    return {name: values[low:high] for name, values in piece.items()}


def _fewest_decimals(piece: Mapping[str, Values], prices: Sequence[str], scale: int) -> int:
    """Return the fewest decimals that hold every price of ``piece``, whose ticks have ``scale`` decimals."""
    for decimals in range(scale):
        power = 10 ** (scale - decimals)
        if all(not np.any(piece[name] % power) for name in prices):
            return decimals
    return scale


def _rescaled(piece: dict[str, Values], prices: Sequence[str], own: int, scale: int) -> dict[str, Values]:
    """Return ``piece`` with ticks of ``scale`` decimals. Exact: ``scale`` holds every price."""
    if own == scale:
        return piece
    change: dict[str, Values] = {}
    for name in prices:
        ticks: I64 = piece[name]
        change[name] = ticks * 10 ** (scale - own) if scale > own else ticks // 10 ** (own - scale)
    return piece | change


def _join(kind: str, names: Sequence[str], pieces: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
    if len(pieces) == 1:
        return {name: readonly(pieces[0][name]) for name in names}
    columns = kind_of(kind).by_name
    dtypes = {name: np.int32 if columns[name].type == "utf8" else np.dtype(columns[name].type) for name in names}
    return {
        name: readonly(np.concatenate([piece[name] for piece in pieces]) if pieces else np.empty(0, dtypes[name]))
        for name in names
    }


def _in_order(columns: dict[str, Values], time_column: str, place: str) -> dict[str, Values]:
    """Return the rows in time order; appended shards may hold days between those of others."""
    day: I32 = columns[time_column]
    if np.all(np.diff(day) > 0):
        return columns
    order = np.argsort(day, kind="stable")
    twice = np.flatnonzero(np.diff(day[order]) == 0)
    if twice.size:
        raise held_twice(int(day[order][twice[0]]), place)
    return {name: readonly(values[order]) for name, values in columns.items()}


def held_twice(day: int, place: str) -> DataError:
    """Return the error of a day of which two shards have a row."""
    return DataError(
        f"two shards hold the row of {iso(day)}",
        place=place,
        hint="the snapshot was not written by ingest, which refuses this",
    )
