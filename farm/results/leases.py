"""Lease records: who ran which blocks of a study, why, and how that went. Remarks about results, never part of one.

    studies/<study>/leases/<segment>.jsonl   of a scheduler: many records, of leases about to be sent and of ended ones
    studies/<study>/leases/<lease>.json      one record, of a run without workers

Rules: what a scheduler writes is a log; of several records of one lease the last counts. A segment is written once, and
its first line says what follows, so that a part of one is known for what it is. ``explain`` reads them, and so does a
scheduler that starts: what has failed before it counts. So nothing in a record is believed, and a damaged one is an
error that names it: to overlook it would give a block that kills workers its attempts anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from farm.shard.layout import LEASE_SEGMENT, is_of_study, lease_key, leases_prefix
from farm.store.base import Store
from farm.values.canon import canonical_json
from farm.values.errors import AlreadyExists, DataError, NotFound
from farm.values.formats import check_format

FORMAT = "farm-lease-1"
HINT = "delete this object: it tells who ran which blocks, and no result depends on it"
SEGMENT_FORMAT = "farm-leases-1"
IN_PROCESS = "in process"
"""Worker and reason of blocks that were computed without workers."""
SENT = "sent"
"""Outcome of a lease that has not ended, or whose end nobody saw."""
READS_IN_FLIGHT = 16


@dataclass(frozen=True)
class LeaseRecord:
    """One attempt at some blocks.

    Fields: nonce, the submission it belongs to, "" for a run without workers, which counts against nobody; reason, why
    it went to this worker; cells, those whose blocks were stored; seconds by stage, wall_s of all blocks together;
    failed, block -> the error that counts against it; error, what ended the lease itself.
    """

    study: str
    worker: str
    reason: str
    attempt: int
    blocks: tuple[int, ...]
    lease: str = ""
    nonce: str = ""
    outcome: str = SENT
    cells: int = 0
    bytes_fetched: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    failed: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    error: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        failed = {str(block): dict(error) for block, error in self.failed.items()}
        fields = {**vars(self), "blocks": list(self.blocks), "seconds": dict(self.seconds), "failed": failed}
        return {"format": FORMAT, **fields}

    def to_bytes(self) -> bytes:
        """Return the bytes that are stored."""
        return canonical_json(self.to_json())

    @property
    def key(self) -> str:
        """Where it is stored."""
        return lease_key(self.study, self.lease)


def lease_record(data: bytes, key: str) -> LeaseRecord:
    """Return the record in ``data``, which is stored under ``key``; DataError when it is none, or damaged."""
    try:
        record = _record(json.loads(data), key)
        if record.key != key:
            raise ValueError(f"it belongs to {record.key}")
    except _DAMAGES as error:
        raise _damaged("lease record", key, error) from error
    return record


def segment_bytes(records: Sequence[LeaseRecord]) -> bytes:
    """Return the bytes of a segment of these records."""
    body = b"".join([json.dumps(each.to_json(), separators=(",", ":")).encode() + b"\n" for each in records])
    header = {"format": SEGMENT_FORMAT, "records": len(records), "blake2b": _digest(body)}
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + body


def segment_records(data: bytes, key: str) -> list[LeaseRecord]:
    """Return the records in the segment ``data``, which is stored under ``key``; DataError when it is damaged, or a
    part of one."""
    first, _, body = data.partition(b"\n")
    try:
        header = json.loads(first)
        check_format(header["format"], SEGMENT_FORMAT, "lease segment", key, HINT)
        if header["blake2b"] != _digest(body):
            raise ValueError("its end is missing, or it was changed")
        records = [_record(each, key) for each in json.loads(b"[" + body.strip().replace(b"\n", b",") + b"]")]
        if len(records) != header["records"]:
            raise ValueError(f"{len(records)} records, not {header['records']}")
        for record in records:
            if not key.startswith(leases_prefix(record.study)):
                raise ValueError(f"it belongs to {record.study}")
    except _DAMAGES as error:
        raise _damaged("lease segment", key, error) from error
    return records


_DAMAGES = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _damaged(what: str, key: str, error: Exception) -> DataError:
    return DataError(
        f"{what} cannot be read ({type(error).__name__}: {error})",
        place=key,
        hint=HINT,
    )


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=16).hexdigest()


def _record(value: Any, key: str) -> LeaseRecord:
    found = _ABSENT | value
    check_format(found["format"], FORMAT, "lease record", key, HINT)
    return LeaseRecord(
        **{name: _is(str, found[name]) for name in ("study", "worker", "reason", "lease", "nonce", "outcome")},
        **{name: _is(int, found[name]) for name in ("attempt", "cells", "bytes_fetched")},
        blocks=tuple([_is(int, block) for block in found["blocks"]]),
        seconds={stage: float(spent) for stage, spent in found["seconds"].items()},
        wall_s=float(found["wall_s"]),
        failed={int(block): _error(error) for block, error in found["failed"].items()},
        error=None if found["error"] is None else _error(found["error"]),
    )


# What records lack that were written before these fields were.
_ABSENT = {
    "nonce": "", "outcome": "done", "cells": 0, "bytes_fetched": 0, "seconds": {}, "wall_s": 0.0, "failed": {},
    "error": None,
}  # fmt: skip


def _is(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} where {kind.__name__} belongs")
    return value


def _error(found: Mapping[str, Any]) -> dict[str, str]:
    return {"message": found["message"]} | {name: _is(str, value) for name, value in found.items()}


def read_leases(store: Store, study: str) -> list[LeaseRecord]:
    """Return the lease records of a study, in the order they were made; DataError that names what is damaged."""
    keys = [meta.key for meta in store.list(leases_prefix(study)) if is_of_study(meta.key)]

    def read(key: str) -> list[LeaseRecord]:
        try:
            data = store.get(key)
        except NotFound:
            return []  # somebody deleted it in the meantime
        return segment_records(data, key) if key.endswith(LEASE_SEGMENT) else [lease_record(data, key)]

    found: dict[str, LeaseRecord] = {}
    with ThreadPoolExecutor(READS_IN_FLIGHT, "leases") as pool:
        for records in pool.map(read, keys):
            found.update({record.lease: record for record in records})  # a lease keeps the place where it began
    return list(found.values())


def put_numbered(store: Store, record: LeaseRecord, prefix: str) -> None:
    """Store a record under the next free number after ``prefix``."""
    number = sum(1 for _ in store.list(leases_prefix(record.study) + prefix))
    while True:
        named = replace(record, lease=f"{prefix}-{number:06d}")
        try:
            return store.put_if_absent(named.key, named.to_bytes())
        except AlreadyExists:
            number += 1
