"""The index of a shard: all that planning needs to know of it, in one small object named by its content.

An index is a pure function of the shard's bytes and rows. One Arrow IPC stream holds one row of lists:

    symbols, scales     the ids in the shard, bytewise ascending; decimals of their prices
    groups              per row group: rows, first and last day
    members             per (row group, symbol): where its rows lie in the group, first and last day
    chunks              per (row group, column): offset, length and xxh3-64 of the column chunk
    months              per (symbol, month): rows, first and last day, digest of the canonical rows
    footer              the Parquet footer, so that no reader ever fetches it from the shard

**Digest of a month.** The canonical rows of one instrument on one day are hashed with SHA-256 (kind, id, then per row
the logical columns in registry order: numbers little-endian, prices as decoded float64, then texts with their
lengths); the digest of a month is the sum of these hashes modulo 2**256. A sum, so that a month which two ingests
brought in two shards has the digest it would have in one: it adds up without reading any row. Scale, codec, row groups
and the cut into shards leave it alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from farm.shard.arrow import to_numpy
from farm.shard.kinds import Kind, kind_of
from farm.shard.prune import GroupFacts
from farm.shard.snapshot import ShardRef
from farm.values.arrays import I8, I32, I64, U64, readonly
from farm.values.canon import canonical_array_bytes, sha256_hex
from farm.values.errors import DataError
from farm.values.units import month_of

DIGEST_BYTES = 32
_FIRST, _LAST = -(2**31), 2**31 - 1
_MODULUS = 1 << (8 * DIGEST_BYTES)
_FORMAT = "1"

_GROUP = pa.struct([("rows", pa.int64()), ("first_day", pa.int32()), ("last_day", pa.int32())])
_MEMBER = pa.struct(
    [
        ("row_group", pa.int32()),
        ("symbol", pa.int32()),
        ("start", pa.int64()),
        ("rows", pa.int64()),
        ("first_day", pa.int32()),
        ("last_day", pa.int32()),
    ]
)
_CHUNK = pa.struct(
    [
        ("row_group", pa.int32()),
        ("column", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("checksum", pa.uint64()),
    ]
)
_MONTH = pa.struct(
    [
        ("symbol", pa.int32()),
        ("month", pa.int32()),
        ("rows", pa.int32()),
        ("first_day", pa.int32()),
        ("last_day", pa.int32()),
        ("digest", pa.binary(DIGEST_BYTES)),
    ]
)
_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("symbols", pa.list_(pa.string())),
        ("scales", pa.list_(pa.int8())),
        ("groups", pa.list_(_GROUP)),
        ("members", pa.list_(_MEMBER)),
        ("chunks", pa.list_(_CHUNK)),
        ("months", pa.list_(_MONTH)),
        ("footer", pa.binary()),
    ],
    metadata={"farm.index": _FORMAT},
)


@dataclass(frozen=True)
class Chunk:
    """Where a column chunk lies in the shard, and the xxh3-64 of its bytes."""

    offset: int
    length: int
    checksum: int


@dataclass(frozen=True)
class MonthRows:
    """The rows of one instrument in one month: their count, first and last day, and digest (hex).

    ``month`` counts as ``values.units.month_of``; a kind without time has the one month 0.
    """

    month: int
    rows: int
    first_day: int
    last_day: int
    digest: str


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The index in memory. Arrays are read-only; a member's rows are ``start .. start + rows`` of its row group."""

    ref: ShardRef
    kind: Kind
    symbols: tuple[str, ...]
    scales: I8
    group_rows: I64
    group_first_day: I32
    group_last_day: I32
    member_group: I32
    member_symbol: I32
    member_start: I64
    member_rows: I64
    member_first_day: I32
    member_last_day: I32
    chunks: Mapping[tuple[int, str], Chunk]
    month_symbol: I32
    month_number: I32
    month_rows: I32
    month_first_day: I32
    month_last_day: I32
    month_digest: npt.NDArray[np.uint8]
    footer: bytes

    @cached_property
    def by_offset(self) -> tuple[list[int], list[tuple[tuple[int, str], Chunk]]]:
        """The column chunks as they lie in the shard: their offsets, and ((row group, column), chunk)."""
        ordered = sorted(self.chunks.items(), key=lambda item: item[1].offset)
        return [chunk.offset for _, chunk in ordered], ordered

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        """The Parquet footer, parsed."""
        return pq.ParquetFile(pa.BufferReader(b"PAR1" + self.footer)).metadata

    @cached_property
    def facts(self) -> GroupFacts:
        """What pruning asks of the row groups. Rows of a kind without time are wanted on all days."""
        count = len(self.group_rows)
        first_day, last_day = self.group_first_day, self.group_last_day
        member_first_day, member_last_day = self.member_first_day, self.member_last_day
        if self.kind.time_column is None:
            first_day, last_day = np.full(count, _FIRST, np.int32), np.full(count, _LAST, np.int32)
            member_first_day = np.full(self.member_group.shape, _FIRST, np.int32)
            member_last_day = np.full(self.member_group.shape, _LAST, np.int32)
        # Members are in (row group, symbol) order, and every group has some.
        ends = np.searchsorted(self.member_group, np.arange(count), side="right")
        starts = np.r_[0, ends[:-1]].astype(np.intp)[:count]
        known = readonly(np.ones(count, np.bool_))
        return GroupFacts(
            symbols=len(self.symbols),
            first_day=first_day,
            last_day=last_day,
            first_symbol=self.member_symbol[starts],
            last_symbol=self.member_symbol[ends - 1],
            member_group=self.member_group,
            member_symbol=self.member_symbol,
            member_first_day=member_first_day,
            member_last_day=member_last_day,
            days_known=known,
            symbols_known=known,
            members_known=known,
        )

    @cached_property
    def _table(self) -> npt.NDArray[np.str_]:
        return np.array(self.symbols, np.str_)

    def places(self, ids: npt.NDArray[np.str_]) -> I64:
        """Return where each of ``ids`` stands in ``symbols``, (s,), as ``prune.Wanted`` counts."""
        if not self.symbols:
            return np.full(ids.shape, -1, np.int64)
        at = np.searchsorted(self._table, ids)
        is_there = self._table[np.minimum(at, len(self.symbols) - 1)] == ids
        places: I64 = 2 * at - ~is_there
        return places

    def code_of(self, symbol: str) -> int | None:
        """Return the position of ``symbol`` in ``symbols``, or None when the shard has no row of it."""
        at = bisect_left(self.symbols, symbol)
        return at if at < len(self.symbols) and self.symbols[at] == symbol else None

    def scale_of(self, symbol: str) -> int:
        """Return the decimals of the prices of ``symbol``, which the shard must hold."""
        code = self.code_of(symbol)
        assert code is not None
        return int(self.scales[code])

    def months_of(self, symbol: str) -> list[MonthRows]:
        """Return the months of ``symbol`` in this shard, in time order."""
        code = self.code_of(symbol)
        if code is None:
            return []
        low, high = np.searchsorted(self.month_symbol, [code, code + 1])
        return [
            MonthRows(
                int(self.month_number[at]),
                int(self.month_rows[at]),
                int(self.month_first_day[at]),
                int(self.month_last_day[at]),
                self.month_digest[at].tobytes().hex(),
            )
            for at in range(int(low), int(high))
        ]


def merge_months(parts: Sequence[MonthRows]) -> list[MonthRows]:
    """Return one entry per month, in time order: counts and digests added, days widened."""
    merged: dict[int, MonthRows] = {}
    for part in parts:
        held = merged.get(part.month)
        if held is not None:
            total = (int(held.digest, 16) + int(part.digest, 16)) % _MODULUS
            part = MonthRows(
                part.month,
                held.rows + part.rows,
                min(held.first_day, part.first_day),
                max(held.last_day, part.last_day),
                f"{total:0{2 * DIGEST_BYTES}x}",
            )
        merged[part.month] = part
    return [merged[month] for month in sorted(merged)]


@dataclass(frozen=True, eq=False)
class ShardRows:
    """The rows of a shard before writing: sorted by (symbol, day), symbols as codes.

    Shapes: code I32 (n,) into ``symbols`` (ascending, each used); scales I8 (symbols,); columns: every column but the
            instrument's, (n,), text as a pyarrow array.
    """

    kind: Kind
    symbols: tuple[str, ...]
    code: I32
    scales: I8
    columns: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.code.shape[0])

    @cached_property
    def day(self) -> I32:
        """The time column, or zeros for a kind that has no time."""
        if self.kind.time_column is None:
            return np.zeros(self.rows, np.int32)
        day: I32 = self.columns[self.kind.time_column]
        return day


def month_digests(rows: ShardRows) -> list[tuple[int, int, int, int, int, bytes]]:
    """Return (symbol code, month, rows, first day, last day, digest) per symbol and month, in that order."""
    if not rows.rows:
        return []
    day = rows.day
    starts = np.flatnonzero(np.r_[True, (np.diff(rows.code) != 0) | (np.diff(day) != 0)])
    stops = np.r_[starts[1:], rows.rows]
    month, code = _months(rows.kind, day[starts]), rows.code[starts]
    firsts = np.flatnonzero(np.r_[True, (np.diff(code) != 0) | (np.diff(month) != 0)])
    bytes_of, sha256, whole = _canonical_rows(rows), hashlib.sha256, int.from_bytes
    heads = [f"{rows.kind.name}\0{symbol}\0".encode() for symbol in rows.symbols]
    found: list[tuple[int, int, int, int, int, bytes]] = []
    for low, high in zip(firsts.tolist(), [*firsts[1:].tolist(), len(starts)], strict=True):
        head, units = heads[code[low]], zip(starts[low:high].tolist(), stops[low:high].tolist(), strict=True)
        total = sum([whole(sha256(head + bytes_of(start, stop)).digest(), "big") for start, stop in units]) % _MODULUS
        begin, end = int(starts[low]), int(stops[high - 1])
        counts = int(code[low]), int(month[low]), end - begin, int(day[begin]), int(day[end - 1])
        found.append((*counts, total.to_bytes(DIGEST_BYTES, "big")))
    return found


def _months(kind: Kind, day: I32) -> I32:
    """Return the month of each day; 0 for a kind without time."""
    if kind.time_column is None:
        return np.zeros(day.shape, np.int32)
    days, at = np.unique(day, return_inverse=True)
    return np.array([month_of(one) for one in days.tolist()], np.int32)[at]


def _canonical_rows(rows: ShardRows) -> Any:
    """Return a function (start, stop) -> canonical bytes of those rows."""
    fixed: dict[str, npt.NDArray[Any]] = {}
    texts: list[list[bytes]] = []
    for column in rows.kind.columns:
        if not column.logical or column.name == rows.kind.instrument_column:
            continue
        values = rows.columns[column.name]
        if column.type == "utf8":
            texts.append([_framed(text.encode()) for text in values.to_pylist()])
        elif column.is_price:
            fixed[column.name] = decode_prices(values, rows.scales[rows.code])
        else:
            fixed[column.name] = values
    table = np.empty(rows.rows, [(name, values.dtype) for name, values in fixed.items()])
    for name, values in fixed.items():
        table[name] = values
    packed = canonical_array_bytes(table)
    width = len(packed) // rows.rows

    def bytes_of(start: int, stop: int) -> bytes:
        if not texts:
            return packed[start * width : stop * width]
        return b"".join(
            packed[row * width : (row + 1) * width] + b"".join(text[row] for text in texts)
            for row in range(start, stop)
        )

    return bytes_of


def _framed(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


def decode_prices(ticks: I64, scale: I8 | int) -> npt.NDArray[np.float64]:
    """Return ticks / 10**scale as float64: one correctly rounded division, since both sides are exact."""
    power = np.power(10, np.asarray(scale, np.int64)).astype(np.float64)
    prices: npt.NDArray[np.float64] = ticks.astype(np.float64) / power
    return prices


def encode_index(rows: ShardRows, group_rows: Sequence[int], chunks: U64, footer: bytes) -> bytes:
    """Return the bytes of the index. ``chunks`` (groups, columns, 3): offset, length, checksum."""
    groups, members = _groups_and_members(rows, group_rows)
    months = month_digests(rows)
    month_columns = [pa.array([month[at] for month in months], pa.int32()) for at in range(5)]
    count, width = chunks.shape[0], chunks.shape[1]
    chunk_columns = [
        pa.array(np.repeat(np.arange(count, dtype=np.int32), width)),
        pa.array(np.tile(np.arange(width, dtype=np.int32), count)),
        pa.array(chunks[:, :, 0].reshape(-1).astype(np.int64)),
        pa.array(chunks[:, :, 1].reshape(-1).astype(np.int64)),
        pa.array(np.ascontiguousarray(chunks[:, :, 2]).reshape(-1)),
    ]
    batch = pa.record_batch(
        [
            pa.array([rows.kind.name]),
            pa.array([list(rows.kind.names)], pa.list_(pa.string())),
            pa.array([list(rows.symbols)], pa.list_(pa.string())),
            pa.ListArray.from_arrays([0, len(rows.scales)], pa.array(rows.scales)),
            _list_of(_GROUP, groups),
            _list_of(_MEMBER, members),
            _list_of(_CHUNK, chunk_columns),
            _list_of(_MONTH, [*month_columns, pa.array([month[5] for month in months], pa.binary(DIGEST_BYTES))]),
            pa.array([footer], pa.binary()),
        ],
        schema=_SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _list_of(struct: pa.StructType, columns: Sequence[pa.Array]) -> pa.ListArray:
    values = pa.StructArray.from_arrays(list(columns), fields=list(struct))
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _groups_and_members(rows: ShardRows, group_rows: Sequence[int]) -> tuple[list[pa.Array], list[pa.Array]]:
    day = rows.day
    bounds = np.r_[0, np.cumsum(np.asarray(group_rows, np.int64))]
    groups: list[tuple[int, int, int]] = []
    members: list[tuple[int, int, int, int, int, int]] = []
    for group, (low, high) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        days, codes = day[low:high], rows.code[low:high]
        groups.append((high - low, int(days.min()), int(days.max())))
        starts = np.flatnonzero(np.r_[True, np.diff(codes) != 0]).tolist()
        for start, stop in zip(starts, [*starts[1:], high - low], strict=True):
            members.append((group, int(codes[start]), start, stop - start, int(days[start]), int(days[stop - 1])))
    return (
        [pa.array([group[at] for group in groups], _GROUP[at].type) for at in range(len(_GROUP))],
        [pa.array([member[at] for member in members], _MEMBER[at].type) for at in range(len(_MEMBER))],
    )


def decode_index(data: bytes, ref: ShardRef, *, place: str) -> ShardIndex:
    """Return the index in ``data``, verified against the name and size in ``ref`` before anything is parsed.

    Errors: DataError at ``place``, naming the shard, when the bytes are not those the root names.
    """
    if len(data) != ref.index_bytes or sha256_hex(data) != ref.index_sha256:
        raise DataError(
            f"the index is damaged: {len(data)} bytes that are not the {ref.index_bytes} bytes it is named by",
            place=f"{place} (index of {ref.key}, all row groups and columns)",
            hint="restore the object, or delete it and ingest the rows of that shard again",
        )
    table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    if (table.schema.metadata or {}).get(b"farm.index") != _FORMAT.encode():
        raise DataError("an index of another format", place=place, allowed=f"farm.index {_FORMAT}")
    row = {name: table[name].chunk(0) for name in table.schema.names}
    kind = kind_of(row["kind"][0].as_py(), place=place)
    columns: list[str] = row["columns"][0].as_py()
    groups, members, chunks, months = (row[name].values for name in ("groups", "members", "chunks", "months"))
    held = months.field("digest")
    digests = np.frombuffer(held.buffers()[1], np.uint8).reshape(-1, DIGEST_BYTES)[
        held.offset : held.offset + len(held)
    ]
    return ShardIndex(
        ref=ref,
        kind=kind,
        symbols=tuple(row["symbols"][0].as_py()),
        scales=to_numpy(row["scales"].values),
        group_rows=to_numpy(groups.field("rows")),
        group_first_day=to_numpy(groups.field("first_day")),
        group_last_day=to_numpy(groups.field("last_day")),
        member_group=to_numpy(members.field("row_group")),
        member_symbol=to_numpy(members.field("symbol")),
        member_start=to_numpy(members.field("start")),
        member_rows=to_numpy(members.field("rows")),
        member_first_day=to_numpy(members.field("first_day")),
        member_last_day=to_numpy(members.field("last_day")),
        chunks={
            (group, columns[column]): Chunk(offset, length, checksum)
            for group, column, offset, length, checksum in zip(
                *(chunks.field(name).to_pylist() for name in ("row_group", "column", "offset", "length", "checksum")),
                strict=True,
            )
        },
        month_symbol=to_numpy(months.field("symbol")),
        month_number=to_numpy(months.field("month")),
        month_rows=to_numpy(months.field("rows")),
        month_first_day=to_numpy(months.field("first_day")),
        month_last_day=to_numpy(months.field("last_day")),
        month_digest=digests,
        footer=row["footer"][0].as_py(),
    )
