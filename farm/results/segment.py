"""Segments: the values of a rectangle of cells, some trials x some subjects, as one Parquet object.

A segment is plain Parquet that DuckDB, Polars or pyarrow can read, one row per cell, trial by trial:

    trial | instrument | params.<name> | verdict | equity_end_micro | <bucket>.<metric> | counts.<name> |
    assumptions.<name> | ledger, stats

Rules: the bytes are deterministic (no clock, no host, no worker, fixed writer options). Nothing is believed: the schema
metadata holds a checksum per column, which whoever reads the column computes again, because a flipped bit in a Parquet
page or footer usually decodes to a wrong number and not to an error; so one column of many can be read by itself, and
be believed. ``trial``, ``instrument`` and ``params`` are for people: cells are found by the extent beside the segment
(``extent.py``). ``verdict`` counts in VERDICTS; what is not a run has neither ``equity_end_micro`` nor ``ledger``. An
undefined metric is NaN. ``ledger`` and ``stats`` are null outside the proof set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from farm.shard.arrow import from_numpy, from_texts, is_valid, validity_buffer
from farm.spec.table import ParamTable
from farm.study.axes import Axes
from farm.values.arrays import BOOL, F64, I32, I64, U8
from farm.values.canon import canonical_array_bytes
from farm.values.errors import DataError
from farm.values.formats import check_format
from farm.values.metrics import METRICS

FORMAT = "farm-segment-2"
VERDICTS = ("", "no_data")
"""What became of a cell, by number: a run, or why it is none."""
NO_DATA = VERDICTS.index("no_data")
"""Of a cell whose instrument is known but has no bar in the window: not simulated, no metrics."""
HINT = "run with --fresh, or delete this object; the cells it held are computed again"
DIGESTS = ("ledger", "stats")
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Segment:
    """The cells of t trials on s subjects.

    trials:      int32 (t,), their numbers in the study; params: their parameters; axes: their identity and the
                 subjects'.
    values:      float64 (buckets, metrics, t, s), NaN = null.
    equity_end_micro, verdict: int64 and uint8 (t, s); the verdict counts in VERDICTS.
    counts:      int64 (count_names, t, s); assumptions: bool (assumption_names, t, s).
    proof:       bool (t, s), the cells with digests; ledger, stats: uint8 (p, 32), in C order of ``proof``.
    """

    trials: I32
    params: ParamTable
    axes: Axes
    metrics: tuple[str, ...]
    buckets: tuple[str, ...]
    values: F64
    equity_end_micro: I64
    verdict: U8
    count_names: tuple[str, ...]
    counts: I64
    assumption_names: tuple[str, ...]
    assumptions: BOOL
    proof: BOOL
    ledger: U8
    stats: U8

    @property
    def shape(self) -> tuple[int, int]:
        """Trials and subjects."""
        return len(self.trials), len(self.axes.subjects)

    @property
    def rows(self) -> int:
        """Number of cells."""
        return len(self.trials) * len(self.axes.subjects)

    @cached_property
    def columns(self) -> Mapping[str, Array]:
        """The values of all cells as they are stored, by column, in canonical bits: each (t, s), ledger and stats
        (t, s, 32) with zeros outside the proof set."""
        found: dict[str, Array] = {"verdict": self.verdict, "equity_end_micro": self.equity_end_micro}
        for bucket, planes in zip(self.buckets, self.values, strict=True):
            for metric, plane in zip(self.metrics, planes, strict=True):
                bits = np.frombuffer(canonical_array_bytes(plane), "<f8")
                found[metric_column(bucket, metric)] = bits.reshape(self.shape)
        found |= {f"counts.{name}": plane for name, plane in zip(self.count_names, self.counts, strict=True)}
        named = zip(self.assumption_names, self.assumptions, strict=True)
        found |= {f"assumptions.{name}": plane for name, plane in named}
        for name, digests in (("ledger", self.ledger), ("stats", self.stats)):
            dense = np.zeros((*self.shape, 32), np.uint8)
            dense[self.proof] = digests
            found[name] = dense
        return found

    @cached_property
    def checksums(self) -> dict[str, str]:
        """A checksum per column, and of which cells have digests."""
        return {name: _checksum(values) for name, values in (*self.columns.items(), ("proof", self.proof))}

    @cached_property
    def content(self) -> str:
        """The SHA-256 of the content, whatever file holds it."""
        params = [list(self.params.names), [list(values) for values in self.params.values]]
        shape = [*self.shape, self.trials.tolist(), list(self.axes.subjects)]
        hashed = hashlib.sha256(json.dumps([FORMAT, shape, params, list(self.checksums.items())]).encode())
        arrays: tuple[Array, ...] = (self.axes.trial, self.axes.history, self.axes.read, *self.params.codes)
        for array in arrays:
            hashed.update(canonical_array_bytes(array))
        return hashed.hexdigest()


def metric_column(bucket: str, metric: str) -> str:
    """Return the name of the column of a metric in a bucket."""
    return f"{bucket}.{metric}"


def encode(segment: Segment) -> bytes:
    """Return the Parquet bytes of ``segment``; equal segments give equal bytes with one version of the writer."""
    trials, subjects = segment.shape
    columns: dict[str, Any] = {"trial": from_numpy(np.repeat(segment.trials.astype(np.int32, copy=False), subjects))}
    place = np.tile(np.arange(subjects, dtype=np.int32), trials)
    columns["instrument"] = _named(place, [name or None for name in segment.axes.subjects])
    params = zip(segment.params.names, segment.params.values, segment.params.codes, strict=True)
    for name, values, codes in params:
        columns[f"params.{name}"] = _parameter(values, np.repeat(codes, subjects))
    is_no_run = (segment.verdict != 0).ravel()
    constant = []
    for name, array in segment.columns.items():
        if name in DIGESTS:
            is_absent = ~segment.proof.ravel() if name == "stats" else ~segment.proof.ravel() | is_no_run
            columns[name] = _binary(array, is_absent)
        elif name == "equity_end_micro":
            columns[name] = from_numpy(array.ravel(), is_no_run)
        else:
            columns[name] = _plain(array.ravel())
            if _is_repeated(name, array):
                constant.append(name)
    metadata = {
        "format": FORMAT,
        "shape": json.dumps(segment.shape),
        "checksums": json.dumps(segment.checksums),
        "content": segment.content,
    }
    fields = [pa.field(name, values.type, values.null_count > 0) for name, values in columns.items()]
    table = pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))
    for_people = [name for name in columns if name not in segment.columns]
    repeated = {*for_people, *constant}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        # What is never twice the same does not get shorter, only slower to read.
        compression={name: "lz4" if name in repeated else "none" for name in columns},
        use_dictionary=sorted(repeated),
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,  # that of Arrow, which whoever opens the file would read beside that of Parquet
    ) as writer:
        writer.write_table(table, max(1, segment.rows))
        writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue())


class SegmentFile:
    """A stored segment, of which columns are read by name.

    ``names``: of its columns, all (t, s); ``content``: the digest that was stored with it.
    """

    def __init__(self, data: bytes, place: str) -> None:
        """Read the footer of ``data``, which lies under the key ``place``.

        Errors: DataError when it is no segment or is truncated; OtherFormat when another version has written it.
        """
        self.place = place
        try:
            # ParquetFile, not read_table: for a small file the dataset machinery behind that doubles the time.
            self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            metadata = {name.decode(): value.decode() for name, value in (self._file.metadata.metadata or {}).items()}
            check_format(metadata["format"], FORMAT, "result segment", place, HINT)
            trials, subjects = json.loads(metadata["shape"])
            self.shape = (int(trials), int(subjects))
            self._checksums: dict[str, str] = json.loads(metadata["checksums"])
            self.content = metadata["content"]
            if trials * subjects != self._file.metadata.num_rows:
                raise ValueError(f"{self._file.metadata.num_rows} rows are not a rectangle of {self.shape}")
        except _UNREADABLE as error:
            raise damaged(place, f"cannot be read ({type(error).__name__}: {error})") from error
        self.names = frozenset(self._checksums)

    def read(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return columns by name (all without ``names``), as ``Segment.columns`` has them; with ``ledger`` or ``stats``
        also ``proof``, bool (t, s). Errors: DataError when one is not what was written."""
        asked = self.names if names is None else frozenset(names)
        wanted = [name for name in self._checksums if name in asked]
        found: dict[str, Array] = {}
        try:
            physical = [name for name in wanted if name != "proof"]
            if DIGESTS[0] in physical or "proof" in wanted:
                physical += [DIGESTS[1]] * (DIGESTS[1] not in physical)
            columns = self._file.read(columns=physical, use_threads=False).combine_chunks().to_batches()
            for name, values in zip(physical, columns[0].columns if columns else (), strict=True):
                if name == DIGESTS[1]:
                    found["proof"] = is_valid(values).reshape(self.shape)
                found[name] = _column(name, values).reshape(*self.shape, *width_of(name))
            for name, array in found.items():
                if _checksum(array) != self._checksums[name]:
                    raise damaged(self.place, f"holds other content than was written (column {name})")
        except _UNREADABLE as error:
            raise damaged(self.place, f"cannot be read ({type(error).__name__}: {error})") from error
        return found


_UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError)


def damaged(place: str, what: str) -> DataError:
    """Return the error that names a damaged segment."""
    return DataError(f"result segment {what}", place=place, hint=HINT)


def _checksum(values: Array) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)


def _is_repeated(name: str, array: Array) -> bool:
    """Whether few values of the column differ, so that a dictionary of them is short."""
    if array.dtype != np.float64:
        return array.dtype != np.bool_
    bits = array.view(np.int64).ravel()
    metric = METRICS.get(name.partition(".")[2])
    return (metric is not None and metric.is_count) or bool((bits == bits[:1]).all())


def _named(codes: I32, names: list[str | None]) -> Any:
    """Return the text of each code as a dictionary column; None is null."""
    is_null = np.array([name is None for name in names], np.bool_)[codes]
    texts = from_texts([name or "" for name in names])
    return pa.DictionaryArray.from_arrays(from_numpy(codes.astype(np.int32, copy=False), is_null), texts)


def _parameter(values: tuple[Any, ...], codes: I32) -> Any:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return from_numpy(np.array(values, np.int64)[codes])
    if kinds <= {int, float} and float in kinds:
        return from_numpy(np.array(values, np.float64)[codes])
    return _named(codes, [value if isinstance(value, str) else json.dumps(value) for value in values])


def _plain(values: Array) -> Any:
    if values.dtype == np.bool_:
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits.tobytes())])
    return from_numpy(values.view(np.int8) if values.dtype == np.uint8 else values)


def _binary(digests: U8, is_null: BOOL) -> Any:
    data = pa.py_buffer(np.ascontiguousarray(digests).view(np.uint8).data)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(is_null), [validity_buffer(is_null), data])


def _column(name: str, values: Any) -> Array:
    """Return a stored column as numpy, what is null as zeros."""
    dtype = dtype_of(name)
    validity, data = values.buffers()
    if dtype == np.bool_:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[values.offset : values.offset + len(values)].astype(np.bool_)
    width = 32 if name in DIGESTS else 1
    found = np.frombuffer(data, dtype, len(values) * width, values.offset * width * dtype.itemsize)
    if validity is None or not values.null_count:
        return found
    return np.where(np.repeat(is_valid(values), width), found, np.zeros(1, dtype))


_OF_KIND: Mapping[str, np.dtype[Any]] = {"counts": np.dtype(np.int64), "assumptions": np.dtype(np.bool_)}
_OF_COLUMN: Mapping[str, np.dtype[Any]] = {
    "verdict": np.dtype(np.uint8),
    "equity_end_micro": np.dtype(np.int64),
    "ledger": np.dtype(np.uint8),
    "stats": np.dtype(np.uint8),
    "proof": np.dtype(np.bool_),
}
_METRIC: np.dtype[Any] = np.dtype(np.float64)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the type of the values of a column."""
    return _OF_COLUMN.get(name) or _OF_KIND.get(name.partition(".")[0], _METRIC)


def width_of(name: str) -> tuple[int, ...]:
    """Return what a value of a column is, beyond a number."""
    return (32,) if name in DIGESTS else ()
