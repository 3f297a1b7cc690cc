"""The snapshot root, and the create-only log that gives it a moving name.

A root names shards, their indexes and the calendars, all by content, and is itself named by the SHA-256 of its
canonical JSON: the same contents are the same snapshot, in whatever dataset. A dataset is a log of entries
``refs/<dataset>/<n>.json``; the highest entry is the head. Steps of a commit:

1. Read the head, n. Compute the new root from it. Write the root, under its content name.
2. Create entry n + 1. Whoever comes second finds it taken, and starts again at 1 on the new head.

Between two such starts it pauses, longer each time and by chance: of many ingests at once one wins each race, and who
has lost often would otherwise lose to those who come new.

So nothing is visible before the entry exists, no entry is ever changed, and two concurrent commits both end up in the
dataset. Canonical shard order makes the root independent of who came first.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from farm.shard.kept import read_once
from farm.shard.layout import check_sha256, parse_ref_key, ref_key, refs_prefix, shard_key, snapshot_key
from farm.store.base import Store
from farm.values.canon import canonical_json, sha256_hex
from farm.values.errors import AlreadyExists, BucketNotFound, DataError, NotFound, StoreError

COMMIT_ATTEMPTS_MAX = 64
"""Bound on rebases: each one means that somebody else committed meanwhile."""
_BACKOFF_S = 0.02
_BACKOFF_S_MAX = 1.0

_FORMAT = 1


@dataclass(frozen=True, order=True)
class ShardRef:
    """A shard as the root names it. Field order is the order of shards in a root."""

    kind: str
    interval: str
    span: str
    sha256: str
    bytes: int
    rows: int
    index_sha256: str
    index_bytes: int

    @property
    def key(self) -> str:
        """Object key of the shard."""
        return shard_key(self.kind, self.interval, self.span, self.sha256)


@dataclass(frozen=True)
class CalendarRef:
    """A frozen calendar as the root names it."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Snapshot:
    """What may be read. ``id`` is the hash of the contents; ``dataset`` is where it was found, and no part of it."""

    id: str
    dataset: str
    shards: tuple[ShardRef, ...]
    calendars: Mapping[str, CalendarRef] = field(default_factory=dict)

    def of_kind(self, kind: str) -> tuple[ShardRef, ...]:
        """Return the shards of ``kind``, in root order."""
        return tuple(shard for shard in self.shards if shard.kind == kind)


def make_snapshot(dataset: str, shards: tuple[ShardRef, ...], calendars: Mapping[str, CalendarRef]) -> Snapshot:
    """Return the snapshot with these contents, shards in canonical order and each once."""
    ordered = tuple(sorted(set(shards)))
    named = MappingProxyType(dict(sorted(calendars.items())))
    return Snapshot(sha256_hex(_document(ordered, named)), dataset, ordered, named)


def snapshot_bytes(snapshot: Snapshot) -> bytes:
    """Return the canonical JSON of the root; its SHA-256 is ``snapshot.id``."""
    return _document(snapshot.shards, snapshot.calendars)


def _document(shards: tuple[ShardRef, ...], calendars: Mapping[str, CalendarRef]) -> bytes:
    return canonical_json(
        {
            "format": _FORMAT,
            "shards": [dict(vars(shard)) for shard in shards],
            "calendars": {name: dict(vars(ref)) for name, ref in calendars.items()},
        }
    )


def read_snapshot(store: Store, snapshot_id: str, *, dataset: str = "") -> Snapshot:
    """Return the snapshot named ``snapshot_id``, verified against that name; a process reads it once.

    Errors: UsageError when it is no content name; DataError when there is no such snapshot, or it is damaged.
    """
    key = snapshot_key(check_sha256(snapshot_id, "snapshot"))
    return replace(read_once(store, key, lambda: _read_root(store, snapshot_id, key)), dataset=dataset)


def _read_root(store: Store, snapshot_id: str, key: str) -> tuple[Snapshot, int]:
    try:
        data = store.get(key)
    except BucketNotFound:
        raise
    except NotFound as error:
        hint = "farm status shows the newest of each dataset; where that names this one, restore the object"
        raise DataError("no such snapshot", place=key, hint=hint) from error
    if sha256_hex(data) != snapshot_id:
        raise DataError(
            "the snapshot root is damaged: its bytes are not those it is named by",
            place=key,
            hint="restore the object, or work on an older one with --snapshot",
        )
    return _parse(json.loads(data), snapshot_id, key), len(data)


def _parse(document: Mapping[str, Any], snapshot_id: str, key: str) -> Snapshot:
    if document.get("format") != _FORMAT:
        raise DataError(f"snapshot format {document.get('format')}", place=key, allowed=str(_FORMAT))
    return Snapshot(
        snapshot_id,
        "",
        tuple(ShardRef(**shard) for shard in document["shards"]),
        MappingProxyType({name: CalendarRef(**ref) for name, ref in document["calendars"].items()}),
    )


def read_head(store: Store, dataset: str) -> Snapshot:
    """Return the newest snapshot of ``dataset``; DataError with a hint when nothing was ever ingested into it."""
    head = find_head(store, dataset)
    if head is None:
        raise DataError(
            f"the dataset {dataset!r} is empty",
            place=f"{store.url} refs/{dataset}/",
            hint="put data in first, for example `farm ingest sample`, or name another --store or --dataset",
        )
    return head[1]


def find_head(store: Store, dataset: str) -> tuple[int, Snapshot] | None:
    """Return number and snapshot of the newest entry of ``dataset``, or None when there is none."""
    numbers = [found[1] for meta in store.list(refs_prefix(dataset)) if (found := parse_ref_key(meta.key))]
    if not numbers:
        return None
    return numbers[-1], read_snapshot(store, _read_ref(store, ref_key(dataset, numbers[-1])), dataset=dataset)


_LOG_HINT = "restore the object; to go back to the entry before it, delete it"


def _read_ref(store: Store, key: str) -> str:
    """Return the snapshot id that a log entry names, verified: an entry carries the hash of itself."""
    try:
        entry = json.loads(store.get(key))
        snapshot_id = str(entry["snapshot"])
        is_whole = entry["check"] == sha256_hex(snapshot_id.encode())
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("the log entry cannot be read", place=key, hint=_LOG_HINT) from error
    if not is_whole:
        raise DataError("the log entry is damaged", place=key, hint=_LOG_HINT)
    return snapshot_id


def commit(
    store: Store,
    dataset: str,
    change: Callable[[Snapshot | None], Snapshot],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Make ``change(head)`` the head of ``dataset`` and return it.

    ``change`` gets the head (None for an empty dataset) and returns the new snapshot, having written whatever it
    names; it may be called again on a newer head. When it returns the head itself (same id) no entry is added.
    Errors: StoreError when others commit faster for ``COMMIT_ATTEMPTS_MAX`` rounds; whatever ``change`` raises.
    """
    jitter = random.Random()  # moves racers apart, touches no result
    for lost in range(COMMIT_ATTEMPTS_MAX):
        if lost:
            sleep(jitter.uniform(0.0, min(_BACKOFF_S_MAX, _BACKOFF_S * 2.0**lost)))
        head = find_head(store, dataset)
        new = change(head[1] if head else None)
        if head is not None and new.id == head[1].id:
            return head[1]
        put_content(store, snapshot_key(new.id), snapshot_bytes(new), new.id)
        entry = canonical_json({"snapshot": new.id, "check": sha256_hex(new.id.encode())})
        key = ref_key(dataset, head[0] + 1 if head else 1)
        try:
            store.put_if_absent(key, entry)
        except AlreadyExists:
            # Taken by the same snapshot: our own put whose answer was lost, or somebody with the same contents.
            if _read_ref(store, key) != new.id:
                continue
        return new
    raise StoreError(
        f"others committed to {dataset!r} {COMMIT_ATTEMPTS_MAX} times meanwhile",
        place=refs_prefix(dataset),
        hint="try again when fewer ingests run",
    )


def put_content(store: Store, key: str, data: bytes, sha256: str) -> None:
    """Write an object named by its content; one that is there already must be the same bytes.

    Errors: DataError when other bytes lie under the name: somebody damaged them, and every reader would refuse them.
    """
    try:
        store.put_if_absent(key, data)
    except AlreadyExists as error:
        if sha256_hex(store.get(key)) != sha256:
            raise DataError(
                "the object under this name is damaged: its bytes are not those it is named by",
                place=key,
                hint="delete it and ingest again",
            ) from error
