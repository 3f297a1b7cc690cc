"""Writes a shard and its index from sorted rows, or refuses them with the row number.

A shard is plain Parquet: sorted by the kind's key, no nulls, statistics, a Bloom filter on the instrument column, page
checksums and a page index for readers that are not ours; encodings as the registry says. The decimals of the prices
stand in the file's metadata (``farm.scales``) for those readers, and in the index for ours. The same rows and options
give the same bytes. Row-group size and codec change the file, and nothing that a result depends on.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from farm.shard.index import ShardRows, encode_index
from farm.shard.kinds import INSTRUMENT_TYPES, Kind
from farm.shard.snapshot import ShardRef
from farm.values.arrays import BOOL, I64, U64
from farm.values.canon import canonical_json, sha256_hex
from farm.values.errors import DataError, UsageError
from farm.values.units import iso

CODECS: Mapping[str, str] = {"lz4": "LZ4", "zstd": "ZSTD", "snappy": "SNAPPY", "none": "NONE"}
CODEC_DEFAULT = "lz4"

_TYPES = {"utf8": pa.string(), "int8": pa.int8(), "int32": pa.int32(), "int64": pa.int64()}


def check_options(kind: Kind, row_group_rows: int | None, codec: str | None) -> tuple[int, str]:
    """Return the row-group rows and codec to use; UsageError for what cannot be meant."""
    rows = kind.row_group_rows if row_group_rows is None else row_group_rows
    if rows < 1:
        raise UsageError(f"row groups of {rows} rows", place="row_group_rows", allowed="1 or more")
    name = CODEC_DEFAULT if codec is None else codec
    if name not in CODECS:
        raise UsageError(f"no such codec: {name!r}", place="codec", allowed=", ".join(CODECS))
    return rows, name


def write_shard(
    rows: ShardRows, span: str, *, row_group_rows: int | None = None, codec: str | None = None
) -> tuple[bytes, bytes, ShardRef]:
    """Return the bytes of the shard, the bytes of its index, and the reference that names both.

    Errors: DataError naming the row (1-based) for rows out of order, twice, or not valid; UsageError for the options.
    """
    kind = rows.kind
    group_rows_max, codec_name = check_options(kind, row_group_rows, codec)
    check_rows(rows, place=f"new shard {kind.name}/{span}")
    data = _parquet(rows, group_rows_max, codec_name)
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") :]
    metadata = pq.ParquetFile(pa.BufferReader(b"PAR1" + footer)).metadata
    group_rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    index = encode_index(rows, group_rows, _chunks(data, metadata), footer)
    ref = ShardRef(
        kind=kind.name,
        interval=kind.interval,
        span=span,
        sha256=sha256_hex(data),
        bytes=len(data),
        rows=rows.rows,
        index_sha256=sha256_hex(index),
        index_bytes=len(index),
    )
    return data, index, ref


def _parquet(rows: ShardRows, row_group_rows: int, codec: str) -> bytes:
    kind = rows.kind
    scales = dict(zip(rows.symbols, rows.scales.tolist(), strict=True))
    fields = [pa.field(column.name, _TYPES[column.type], nullable=False) for column in kind.columns]
    schema = pa.schema(fields, metadata={"farm.kind": kind.name, "farm.scales": canonical_json(scales)})
    ids = pa.DictionaryArray.from_arrays(pa.array(rows.code), pa.array(list(rows.symbols), pa.string()))
    columns = [
        # Plain text, not the dictionary: that would be written whole into every row group.
        ids.cast(pa.string()) if column.name == kind.instrument_column else _arrow(rows, column.name)
        for column in kind.columns
    ]
    texts = [column.name for column in kind.columns if column.type == "utf8"]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema),
        sink,
        row_group_size=row_group_rows,
        compression=CODECS[codec],
        use_dictionary=texts,
        column_encoding={column.name: column.encoding for column in kind.columns if column.type != "utf8"},
        write_statistics=True,
        write_page_checksum=True,
        write_page_index=True,
        bloom_filter_options={kind.instrument_column: {"ndv": _symbols_max(rows, row_group_rows) + 2, "fpp": 0.01}},
        sorting_columns=[pq.SortingColumn(kind.names.index(name)) for name in kind.sort_key],
        version="2.6",
    )
    return sink.getvalue()


def _arrow(rows: ShardRows, name: str) -> pa.Array:
    values = rows.columns[name]
    return pa.array(values) if isinstance(values, np.ndarray) else values


def _symbols_max(rows: ShardRows, row_group_rows: int) -> int:
    """Return the most distinct symbols in any row group: what its Bloom filter is sized for."""
    starts = np.arange(0, rows.rows, row_group_rows)
    stops = np.minimum(starts + row_group_rows, rows.rows) - 1
    return int((rows.code[stops] - rows.code[starts]).max()) + 1


def _chunks(data: bytes, metadata: pq.FileMetaData) -> U64:
    """Return (groups, columns, 3): offset, length and xxh3-64 of every column chunk."""
    chunks = np.empty((metadata.num_row_groups, metadata.num_columns, 3), np.uint64)
    view = memoryview(data)
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(at)
            dictionary = chunk.dictionary_page_offset
            offset = chunk.data_page_offset if dictionary is None else min(dictionary, chunk.data_page_offset)
            length = chunk.total_compressed_size
            chunks[group, at] = (offset, length, xxhash.xxh3_64_intdigest(view[offset : offset + length]))
    return chunks


def check_rows(rows: ShardRows, *, place: str, numbers: I64 | None = None) -> None:
    """Raise DataError for the first row that may not be stored.

    ``numbers``: what to call each row (file rows); without it rows are counted from 1.
    Checked:  one row at least; keys strictly rising; per kind what ``_violations`` lists.
    """
    if not rows.rows:
        raise DataError("no rows", place=place, hint="check that the file and the filter are what you meant")
    bad: list[tuple[int, str, str]] = []
    for mask, message, hint in _violations(rows):
        if mask.any():
            bad.append((int(np.argmax(mask)), message, hint))
    if not bad:
        return
    row, message, hint = min(bad)
    number = row + 1 if numbers is None else int(numbers[row])
    what = rows.symbols[int(rows.code[row])]
    if rows.kind.time_column is not None:
        what += f" {iso(int(rows.day[row]))}"
    raise DataError(f"{message} ({what})", place=f"{place}, row {number}", hint=hint)


def _violations(rows: ShardRows) -> list[tuple[BOOL, str, str]]:
    """Return (mask of bad rows, message, hint) per rule, for the rules of this kind."""
    columns = rows.columns
    code_step, day_step = np.diff(rows.code), np.diff(rows.day)
    is_bad_order = np.r_[False, (code_step < 0) | ((code_step == 0) & (day_step <= 0))]
    found = [(is_bad_order, "the row is not after the one before it", "sort by id and day, and remove duplicates")]
    for column in rows.kind.columns:
        if column.is_price and f"{column.name}_valid" not in rows.kind.by_name:
            found.append((columns[column.name] <= 0, f"{column.name} is not above zero", "prices are positive"))
        if column.name.endswith("_valid"):
            flag, value = columns[column.name], columns[column.name.removesuffix("_valid")]
            is_bad = ((flag != 0) & (flag != 1)) | ((flag == 0) & (value != 0))
            found.append((is_bad, f"{column.name} is not 0 or 1, or a value stands beside 0", "an absent value is 0"))
    if rows.kind.name == "stock_daily":
        found.append((columns["high"] < columns["low"], "high is below low", "check the column mapping"))
        found.append((columns["volume"] < 0, "volume is negative", "volume counts shares"))
    if rows.kind.name == "splits":
        is_bad = (columns["numerator"] < 1) | (columns["denominator"] < 1)
        found.append((is_bad, "the ratio is not positive", "new shares per old, such as 2:1"))
        found.append(
            (columns["numerator"] == columns["denominator"], "the ratio is 1", "a split changes the share count")
        )
    if rows.kind.name == "instruments":
        found.append((columns["lot_micro"] < 1, "the lot is not positive", "a stock's lot is 1"))
        found.append((columns["multiplier"] < 1, "the multiplier is not positive", "a stock's multiplier is 1"))
        types = columns["type"].to_pylist()
        is_strange = np.array([name not in INSTRUMENT_TYPES for name in types], np.bool_)
        found.append((is_strange, "no such type of instrument", f"types are {', '.join(INSTRUMENT_TYPES)}"))
    return found
