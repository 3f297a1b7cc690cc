"""The record of a study: what is stored of it, written once by whoever submits first, and read by everyone after.

    studies/<name>/study.json, name = study id, or study id + "-fresh"

Workers get a study name and block numbers, nothing else. Equal submissions against one snapshot have one id, whatever
the catalog holds; a *fresh* study (``--fresh``) has the same id and blocks of its own over all cells.

The record is a line with the format, a line with the SHA-256 of what follows, and an Arrow IPC stream, packed: its
metadata holds the spec as submitted and all else that is said once; each row is a round, its columns lists. Digests of
trials and cells are not stored: they follow from the rest. The digest is looked at before Arrow is: it trusts what it
reads, and ends the process over a flipped bit. ``.json`` is what the key has always been called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from farm.shard.arrow import from_numpy, from_texts, to_numpy
from farm.spec.table import ParamTable
from farm.study.block import Blocks
from farm.study.coverage import Coverage
from farm.study.proof import ProofRule
from farm.study.reads import ReadTable
from farm.study.trials import Round, Study
from farm.values.arrays import I32, U8
from farm.values.canon import canonical_json, sha256_hex
from farm.values.errors import DataError
from farm.values.formats import check_format

FORMAT = "farm-study-2"
_HEAD = re.compile(rb"(farm-study-[0-9]{1,6})\n([0-9a-f]{64})\n")
HINT = "delete this object and submit the study again; finished cells are kept in the catalog"
_FIRST = b'{"sha256":"'
"""How a record of the first format began."""
_SAID = (
    "id", "fresh", "family", "dataset", "snapshot", "spec", "split", "window", "sessions", "used", "subjects",
    "symbols", "columns", "duplicates", "excluded", "assumptions", "metrics",
)  # fmt: skip
_INT32 = (
    "codes", "history", "first_day", "session", "trials", "group_stop", "strip_group", "strip_stop", "pieces",
    "strip_needs", "needs_stop", "need_shard",
)  # fmt: skip
_INT64 = ("shape", "bars", "rows", "need_bytes")
_BYTES = ("read_set", "sessions", "missed")
_TEXTS = ("values", "shards", "segments")
_NAMES = (*_INT32, *_INT64, *_BYTES, *_TEXTS)

RoundColumns = dict[str, Any]
"""Of one round: numpy arrays by the names above, tuples of texts."""


def to_bytes(study: Study) -> bytes:
    """Return the record of ``study``; equal studies give equal bytes with one version of the writer."""
    said = canonical_json(
        {name: _plain(getattr(study, name)) for name in _SAID}
        | {"coverage": [one.to_json() for one in study.coverage], "proof_rule": asdict(study.proof_rule)}
    )
    rounds = [_columns(one) for one in study.rounds]
    arrays = [_joined([_array(name, one[name]) for one in rounds]) for name in _NAMES]
    batch = pa.record_batch(arrays, names=list(_NAMES)).replace_schema_metadata({"study": said})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return f"{FORMAT}\n{sha256_hex(body)}\n".encode() + body


def from_bytes(data: bytes, place: str) -> Study:
    """Return the study of a record. Errors: DataError naming ``place`` when it is damaged, OtherFormat for another."""
    head = _HEAD.match(data)
    found = "farm-study-1" if data.startswith(_FIRST) else FORMAT if head is None else head[1].decode()
    check_format(found, FORMAT, "study record", place, HINT)
    try:
        body = data[head.end() :] if head is not None else b""
        if head is None or sha256_hex(body) != head[2].decode():
            raise ValueError("its content is not what was written")
        table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
        return _study(table.combine_chunks())
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"study record cannot be read ({type(error).__name__}: {error})",
            place=place,
            hint=HINT,
        ) from error


def _study(table: pa.Table) -> Study:
    said = json.loads(table.schema.metadata[b"study"])
    subjects, first, found = len(said["subjects"]), 0, []
    for row in range(table.num_rows):
        one = _round(_read_columns(table, row), first, subjects)
        found.append(one)
        first += one.table.trials
    listed = {name: tuple(said[name]) for name in _SAID if isinstance(said[name], list)}
    return Study(
        **{name: listed.get(name, said[name]) for name in _SAID},
        coverage=tuple(Coverage(*row) for row in said["coverage"]),
        proof_rule=ProofRule(**said["proof_rule"]),
        rounds=tuple(found),
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _columns(one: Round) -> RoundColumns:
    """Return the arrays of a round. Numbers of trials are stored as gaps, which repeat themselves and so pack well."""
    table, reads, blocks = one.table, one.reads, one.blocks
    shards = {sha: at for at, sha in enumerate(sorted({sha for needs in blocks.needs for sha in needs}))}
    needs = [(shards[sha], size) for each in blocks.needs for sha, size in each.items()]
    params = zip(table.names, table.values, strict=True)
    return {
        "shape": np.array([table.trials, len(reads.first_day)], np.int64),
        "values": tuple([canonical_json({name: list(values)}).decode() for name, values in params]),
        "codes": np.concatenate([np.empty(0, np.int32), *table.codes]),
        "history": one.history,
        "bars": reads.bars,
        "rows": reads.rows.ravel(),
        "first_day": reads.first_day.ravel(),
        "read_set": reads.read_set.ravel(),
        "session": reads.session.ravel(),
        "sessions": reads.sessions.ravel(),
        "trials": np.diff(blocks.trials, prepend=np.int32(0)),
        "group_stop": blocks.group_stop,
        "missed": blocks.rows.ravel(),
        "strip_group": blocks.strip_group,
        "strip_stop": blocks.strip_stop,
        "pieces": blocks.pieces,
        "strip_needs": blocks.strip_needs,
        "needs_stop": np.cumsum([len(each) for each in blocks.needs], dtype=np.int32),
        "need_shard": np.array([shard for shard, _ in needs], np.int32),
        "need_bytes": np.array([size for _, size in needs], np.int64),
        "shards": tuple(shards),
        "segments": one.segments,
    }


def _round(columns: RoundColumns, first: int, subjects: int) -> Round:
    trials, classes = columns["shape"].tolist()
    shape = classes, subjects
    params = [next(iter(json.loads(text).items())) for text in columns["values"]]
    codes = columns["codes"].reshape(len(params), trials)
    table = ParamTable(
        tuple(name for name, _ in params), tuple(tuple(values) for _, values in params), tuple(codes), trials
    )
    reads = ReadTable(
        bars=columns["bars"].reshape(subjects),
        rows=columns["rows"].reshape(shape),
        first_day=columns["first_day"].reshape(shape),
        read_set=columns["read_set"].reshape(*shape, 32),
        session=columns["session"].reshape(shape),
        sessions=columns["sessions"].reshape(-1, 32),
    )
    blocks = Blocks(
        subjects=subjects,
        trials=np.cumsum(columns["trials"], dtype=np.int32),
        group_stop=columns["group_stop"],
        rows=columns["missed"].reshape(len(columns["group_stop"]), -(-subjects // 8)),
        strip_group=columns["strip_group"],
        strip_stop=columns["strip_stop"],
        pieces=columns["pieces"],
        strip_needs=columns["strip_needs"],
        needs=tuple(_needs(columns)),
    )
    return Round(first, table, columns["history"], reads, blocks, columns["segments"])


def _needs(columns: RoundColumns) -> Iterator[Mapping[str, int]]:
    shards, sizes = columns["need_shard"].tolist(), columns["need_bytes"].tolist()
    start = 0
    for stop in columns["needs_stop"].tolist():
        yield {columns["shards"][shards[at]]: sizes[at] for at in range(start, stop)}
        start = stop


def _joined(arrays: list[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _array(name: str, values: Any) -> pa.Array:
    """Return one row: a list of numbers or texts, or bytes."""
    if name in _BYTES:
        data: U8 = np.ascontiguousarray(values)
        offsets = np.array([0, data.size], np.int64)
        return pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(data.tobytes())])
    items = from_texts(values) if name in _TEXTS else from_numpy(values)
    offsets_32: I32 = np.array([0, len(values)], np.int32)
    return pa.ListArray.from_arrays(from_numpy(offsets_32), items)


def _read_columns(table: pa.Table, row: int) -> RoundColumns:
    found: RoundColumns = {}
    for name in _NAMES:
        value = table.column(name).chunk(0)[row]
        if name in _BYTES:
            found[name] = np.frombuffer(value.as_buffer(), np.uint8)
        elif name in _TEXTS:
            found[name] = tuple(value.as_py())
        else:
            array: npt.NDArray[Any] = to_numpy(value.values)
            found[name] = array
    return found
