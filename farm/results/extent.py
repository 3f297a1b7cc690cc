"""What a segment holds, apart from its values: so that a look-up reads no value.

    extent   which trials and which subjects of which axes; the metrics, buckets, counts and assumptions that are
             stored; the cells that have digests; the content digest of the values
    axes     identity of all trials and subjects of a study (``study/axes.py``), with the parameters of the trials

The axes of a study are one object, named by its content, which the extents of all its segments refer to: a thousand
segments of a study have one list of trial digests between them, and not one each. Both are Arrow IPC streams of one
record batch of one row, the rest being JSON in the schema metadata; behind the end of the stream, where readers of
Arrow do not look, stand 32 bytes: the SHA-256 of all before. It is compared before anything is decoded, since Arrow
believes what it reads: a flipped bit in an offset would end the process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from farm.results.segment import Segment, metric_column
from farm.shard.arrow import from_bytes
from farm.spec.table import ParamTable
from farm.study.axes import Axes
from farm.study.trials import Study
from farm.values.arrays import BOOL, I32, U8, readonly
from farm.values.errors import DataError
from farm.values.formats import check_format

EXTENT_FORMAT = "farm-extent-1"
AXES_FORMAT = "farm-axes-1"
HINT = "run with --fresh, or delete this object; the cells that it names are computed again"
_DIGEST_BYTES = 32
_UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError)


@dataclass(frozen=True, eq=False)
class Extent:
    """The rectangle that a segment holds.

    axes:     the digest of the axes; trials, subjects: positions on them, int32 in the order of the segment's rows.
    metrics, buckets, counts, assumptions: names of what is stored of each cell.
    proof:    which cells have digests, bool (trials, subjects); True or False for all or none.
    content:  the content digest of the segment.
    """

    axes: str
    trials: I32
    subjects: I32
    metrics: tuple[str, ...]
    buckets: tuple[str, ...]
    counts: tuple[str, ...]
    assumptions: tuple[str, ...]
    proof: BOOL | bool
    content: str

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.trials) * len(self.subjects)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the segment that hold values, by name."""
        found = {"verdict", "equity_end_micro", *(f"counts.{name}" for name in self.counts)}
        found |= {f"assumptions.{name}" for name in self.assumptions}
        found |= {metric_column(bucket, metric) for bucket in self.buckets for metric in self.metrics}
        return frozenset(found)

    @property
    def nbytes(self) -> int:
        """About the memory that it takes."""
        proof = self.proof.nbytes if isinstance(self.proof, np.ndarray) else 0
        return self.trials.nbytes + self.subjects.nbytes + proof + 2048

    def has_proof(self, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> BOOL:
        """Return which of the cells at these rows and columns of the segment have digests."""
        if isinstance(self.proof, np.ndarray):
            found: BOOL = self.proof[rows, columns]
            return found
        return np.full(np.broadcast(rows, columns).shape, self.proof)


@dataclass(frozen=True, eq=False)
class StoredAxes:
    """Axes as they are stored, with the parameters of their trials."""

    axes: Axes
    params: ParamTable

    @cached_property
    def digest(self) -> str:
        """The digest of their content."""
        return _digest(*self.parts())

    @property
    def nbytes(self) -> int:
        """About the memory that it takes."""
        _, arrays = self.parts()
        return sum(array.nbytes for array in arrays.values()) + 64 * len(self.axes.subjects)

    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Return what is stored: a JSON object, and arrays by name."""
        axes, params = self.axes, self.params
        head = {
            "format": AXES_FORMAT,
            "trials": len(axes.trial),
            "classes": len(axes.read),
            "subjects": list(axes.subjects),
            "params": [[name, list(values)] for name, values in zip(params.names, params.values, strict=True)],
        }
        arrays: dict[str, npt.NDArray[Any]] = {"trial": axes.trial, "history": axes.history, "read": axes.read}
        return head, arrays | {f"params.{at}": codes for at, codes in enumerate(params.codes)}


def extent_of(segment: Segment, axes: StoredAxes) -> Extent:
    """Return what ``segment`` holds, a block of the study that ``axes`` belong to."""
    place = {name: at for at, name in enumerate(axes.axes.subjects)}
    proof: BOOL | bool = segment.proof
    if segment.proof.all() or not segment.proof.any():
        proof = bool(segment.proof.any())
    extent = Extent(
        axes=axes.digest,
        trials=segment.trials.astype(np.int32, copy=False),
        subjects=np.array([place[name] for name in segment.axes.subjects], np.int32),
        metrics=segment.metrics,
        buckets=segment.buckets,
        counts=segment.count_names,
        assumptions=segment.assumption_names,
        proof=proof,
        content=segment.content,
    )
    assert (axes.axes.trial[extent.trials] == segment.axes.trial).all(), "a segment of other trials than the study's"
    return extent


def planned_extent(owner: Study, index: int) -> Extent | None:
    """Return what the segment of a block has, if it has all that can be wanted; None where there is no such block."""
    if index < len(owner.blocks):
        block = owner.block(index)
        return Extent("", block.trials, block.positions, (), (), (), (), True, "")
    if index > len(owner.blocks) or owner.proof_rule.threshold is None:
        return None
    trials, subjects = (np.arange(count, dtype=np.int32) for count in (owner.trials, len(owner.subjects)))
    return Extent("", trials, subjects, (), (), (), (), True, "")  # of the winners: who they are, only ranking tells


def encode_extent(extent: Extent) -> bytes:
    """Return the bytes of an extent; equal extents give equal bytes with one version of the writer."""
    head = {
        "format": EXTENT_FORMAT,
        "axes": extent.axes,
        "metrics": list(extent.metrics),
        "buckets": list(extent.buckets),
        "counts": list(extent.counts),
        "assumptions": list(extent.assumptions),
        "proof": None if isinstance(extent.proof, np.ndarray) else extent.proof,
        "content": extent.content,
    }
    # Steps, not numbers: those of a range are all alike, and compress to nothing.
    arrays: dict[str, npt.NDArray[Any]] = {
        "trials": np.diff(extent.trials, prepend=np.int32(0)).astype(np.int32),
        "subjects": np.diff(extent.subjects, prepend=np.int32(0)).astype(np.int32),
    }
    if isinstance(extent.proof, np.ndarray):
        arrays["proof"] = np.packbits(extent.proof.ravel())
    return _encode(head, arrays)


def decode_extent(data: bytes, place: str) -> Extent:
    """Return the extent in ``data``, which lies under the key ``place``.

    Errors: DataError when it is none, or damaged; OtherFormat when another version has written it.
    """
    try:
        head, arrays = _decode(data, EXTENT_FORMAT, "extent of a result segment", place)
        trials, subjects = (np.cumsum(arrays[name].view(np.int32), dtype=np.int32) for name in ("trials", "subjects"))
        proof = head["proof"]
        if proof is None:
            bits = np.unpackbits(arrays["proof"], count=len(trials) * len(subjects))
            proof = bits.astype(np.bool_).reshape(len(trials), len(subjects))
        metrics, buckets, counts, assumptions = (
            tuple(head[name]) for name in ("metrics", "buckets", "counts", "assumptions")
        )
        return Extent(
            axes=head["axes"],
            trials=readonly(trials),
            subjects=readonly(subjects),
            metrics=metrics,
            buckets=buckets,
            counts=counts,
            assumptions=assumptions,
            proof=proof,
            content=head["content"],
        )
    except _UNREADABLE as error:
        raise DataError(
            f"extent of a result segment cannot be read ({type(error).__name__}: {error})", place=place, hint=HINT
        ) from error


def encode_axes(axes: StoredAxes) -> bytes:
    """Return the bytes of axes; equal ones give equal bytes with one version of the writer."""
    return _encode(*axes.parts())


def decode_axes(data: bytes, digest: str, place: str) -> StoredAxes:
    """Return the axes in ``data``, which lie under the key ``place``, named by their digest.

    Errors: DataError when they are none, or damaged; OtherFormat when another version has written them.
    """
    try:
        head, arrays = _decode(data, AXES_FORMAT, "axes of results", place)
        trials, classes, subjects = head["trials"], head["classes"], tuple(head["subjects"])
        axes = Axes(
            arrays["trial"].reshape(trials, 32),
            arrays["history"].view(np.int32),
            subjects,
            arrays["read"].reshape(classes, len(subjects), 32),
        )
        params = ParamTable(
            tuple(name for name, _ in head["params"]),
            tuple(tuple(values) for _, values in head["params"]),
            tuple(arrays[f"params.{at}"].view(np.int32) for at in range(len(head["params"]))),
            trials,
        )
        found = StoredAxes(axes, params)
        if found.digest != digest:
            raise ValueError("its name is not that of its content")
    except _UNREADABLE as error:
        raise DataError(
            f"axes of results cannot be read ({type(error).__name__}: {error})", place=place, hint=HINT
        ) from error
    return found


def _encode(head: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    columns = [from_bytes(array.tobytes()) for array in arrays.values()]
    schema = pa.schema([(name, pa.large_binary()) for name in arrays]).with_metadata({"head": json.dumps(head)})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    stream = bytes(sink.getvalue())
    return stream + hashlib.sha256(stream).digest()


def _decode(data: bytes, form: str, what: str, place: str) -> tuple[dict[str, Any], dict[str, U8]]:
    """Return the JSON object and the arrays, as bytes, that ``_encode`` was given; errors as _UNREADABLE."""
    stream, digest = memoryview(data)[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(stream).digest() != digest:
        raise ValueError("its content is not what was written")
    with pa.ipc.open_stream(pa.BufferReader(stream), options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
        batch = reader.read_next_batch()
    metadata = {name.decode(): value.decode() for name, value in (batch.schema.metadata or {}).items()}
    head = json.loads(metadata["head"])
    check_format(head["format"], form, what, place, HINT)
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return head, {name: np.frombuffer(column[0].as_buffer(), np.uint8) for name, column in columns}


def _digest(head: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of a JSON object and of the bytes of arrays."""
    sizes = [[name, array.nbytes] for name, array in arrays.items()]
    hashed = hashlib.sha256(json.dumps([head, sizes]).encode())
    for array in arrays.values():
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()
