"""Result segments: the rows of one block as one Parquet object.

A segment is plain Parquet that DuckDB, Polars or pyarrow can read, with these columns, one row per cell, in the order
trial, instrument id:

    key fixed[32] | trial | instrument | params (JSON) | equity_end_micro | full, is, oos: fixed_size_list<double> in
    the order that the schema metadata names, NaN = undefined | ledger, stats fixed[32] | assumptions, counts (JSON) |
    verdict

Rules: the bytes are deterministic (no clock, no host, no worker, fixed writer options). Nothing is believed: the schema
metadata holds a digest of the content, which the reader computes again, because a flipped bit in a Parquet page or
footer usually decodes to a wrong number and not to an error. ``trial`` is the number in the study that computed the
row; ``key`` is what the row is found by. ``is`` and ``oos`` are null without a split; ``equity_end_micro`` and
``ledger`` are null for a cell that was not simulated (verdict ``no_data``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from farm.shard.arrow import from_numpy, from_texts, is_valid, raw_numpy, to_numpy, validity_buffer
from farm.values.arrays import BOOL, F64, I32, I64, U8
from farm.values.canon import canonical_array_bytes
from farm.values.errors import DataError

FORMAT = "farm-segment-1"
_TEXT = ("instrument", "params", "assumptions", "counts", "verdict")


@dataclass(frozen=True, eq=False)
class Segment:
    """The rows of a block as columns, all of the same length n.

    Shapes: key, ledger, stats (n, 32) bytes; buckets[name] (n, metrics) with NaN for null, or None without a split;
    equity_end_micro (n,), meaningful where ``simulated``. Text columns hold canonical JSON (params, assumptions,
    counts), or plain text, where "" stands for null (instrument, verdict).
    """

    metrics: tuple[str, ...]
    key: U8
    trial: I32
    instrument: tuple[str, ...]
    params: tuple[str, ...]
    equity_end_micro: I64
    simulated: BOOL
    full: F64
    in_sample: F64 | None
    out_of_sample: F64 | None
    ledger: U8
    stats: U8
    assumptions: tuple[str, ...]
    counts: tuple[str, ...]
    verdict: tuple[str, ...]

    @property
    def rows(self) -> int:
        return int(self.key.shape[0])

    def keys(self) -> list[bytes]:
        """Return the cell keys, 32 bytes each."""
        return split_bytes(self.key)

    def digest(self) -> str:
        """Return the SHA-256 of the content, whatever file holds it."""
        shape = [list(self.metrics), self.rows, self.in_sample is not None]
        text = {name: list(getattr(self, name)) for name in _TEXT}
        # The C encoder of json, not canonical_json: texts only, in a fixed order, and ten times faster.
        hashed = hashlib.sha256(json.dumps([FORMAT, shape, text]).encode())
        for array in (self.key, self.trial, self.equity_end_micro, self.simulated, self.full, self.in_sample):
            if array is not None:
                hashed.update(canonical_array_bytes(array))
        for array in (self.out_of_sample, self.ledger, self.stats):
            if array is not None:
                hashed.update(canonical_array_bytes(array))
        return hashed.hexdigest()


def split_bytes(rows: U8) -> list[bytes]:
    """Return the rows of a byte matrix (n, 32) as ``bytes``."""
    width = rows.shape[1]
    data = np.ascontiguousarray(rows).tobytes()
    return [data[start : start + width] for start in range(0, len(data), width)]


def join_bytes(rows: Sequence[bytes]) -> U8:
    """Return equal-length ``bytes`` as a byte matrix (n, 32)."""
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), 32)


def encode(segment: Segment) -> bytes:
    """Return the Parquet bytes of ``segment``; equal segments give equal bytes with one version of the writer."""
    absent = ~segment.simulated
    columns: dict[str, Any] = {
        "key": _binary(segment.key),
        "trial": from_numpy(segment.trial.astype(np.int32, copy=False)),
        "instrument": _text(segment.instrument),
        "params": _text(segment.params),
        "equity_end_micro": from_numpy(segment.equity_end_micro, absent),
        "full": _vectors(segment.full),
        "is": _vectors(segment.in_sample, segment.full),
        "oos": _vectors(segment.out_of_sample, segment.full),
        "ledger": _binary(segment.ledger, absent),
        "stats": _binary(segment.stats),
        "assumptions": _text(segment.assumptions),
        "counts": _text(segment.counts),
        "verdict": _text(segment.verdict),
    }
    metadata = {"format": FORMAT, "metrics": json.dumps(segment.metrics), "content": segment.digest()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, segment.rows),
        compression="lz4",
        use_dictionary=["instrument", "assumptions", "counts", "verdict"],
        write_statistics=False,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def decode(data: bytes, place: str) -> Segment:
    """Return the segment in ``data``; ``place`` is its key in the store.

    Errors: DataError when it is no segment, is truncated, or its content is not what was written.
    """
    try:
        # ParquetFile, not read_table: for a small file the dataset machinery behind that doubles the time.
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
        metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        segment = _from_table(table, tuple(json.loads(metadata["metrics"])))
        intact = metadata["format"] == FORMAT and metadata["content"] == segment.digest()
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise _damaged(place, f"cannot be read ({type(error).__name__}: {error})") from error
    if not intact:
        raise _damaged(place, "holds other content than was written")
    return segment


def _damaged(place: str, what: str) -> DataError:
    return DataError(
        f"result segment {what}",
        place=place,
        hint="run with --fresh, or delete this object; the cells it held are computed again",
    )


def _from_table(table: pa.Table, metrics: tuple[str, ...]) -> Segment:
    table = table.combine_chunks()
    equity = _column(table, "equity_end_micro")
    simulated = is_valid(equity)
    full = _matrix(table, "full", len(metrics))
    if full is None:
        raise ValueError("the column full is null")
    text = {name: tuple(value or "" for value in _column(table, name).to_pylist()) for name in _TEXT}
    return Segment(
        metrics=metrics,
        key=_bytes(table, "key"),
        trial=to_numpy(_column(table, "trial")),
        equity_end_micro=np.where(simulated, raw_numpy(equity), 0),
        simulated=simulated,
        full=full,
        in_sample=_matrix(table, "is", len(metrics)),
        out_of_sample=_matrix(table, "oos", len(metrics)),
        ledger=_bytes(table, "ledger"),
        stats=_bytes(table, "stats"),
        **text,
    )


def _column(table: pa.Table, name: str) -> Any:
    chunks = table.column(name).chunks
    return chunks[0] if chunks else pa.nulls(0, table.schema.field(name).type)


def _text(values: Sequence[str]) -> Any:
    return from_texts([value or None for value in values])


def _binary(rows: U8, mask: npt.NDArray[np.bool_] | None = None) -> Any:
    data = pa.py_buffer(np.ascontiguousarray(rows).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(rows), [validity_buffer(mask), data])


def _bytes(table: pa.Table, name: str) -> U8:
    """A column of fixed[32] as (n, 32); nulls are zeros."""
    values = _column(table, name)
    rows = np.frombuffer(values.buffers()[1], np.uint8, len(values) * 32, values.offset * 32).reshape(-1, 32)
    if values.null_count == 0:
        return rows
    return np.where(is_valid(values)[:, None], rows, np.uint8(0))


def _vectors(matrix: F64 | None, like: F64 | None = None) -> Any:
    if matrix is None:
        assert like is not None
        return pa.nulls(len(like), pa.list_(pa.float64(), like.shape[1]))
    return pa.FixedSizeListArray.from_arrays(from_numpy(matrix.ravel()), matrix.shape[1])


def _matrix(table: pa.Table, name: str, width: int) -> F64 | None:
    values = _column(table, name)
    if len(values) and values.null_count == len(values):
        return None
    if values.null_count or values.type.list_size != width:
        raise ValueError(f"the column {name} does not hold {width} metrics in each row")
    flat: F64 = to_numpy(values.flatten())
    return flat.reshape(len(values), width)


@lru_cache(maxsize=4096)
def parsed(text: str) -> Any:
    """Return the value of canonical JSON text; shared between callers, who do not change it."""
    return json.loads(text)
