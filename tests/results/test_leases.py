"""Lease records: what is written is what is read, and a damaged one is named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from farm.results.leases import SENT, LeaseRecord, lease_record, put_numbered, read_leases, segment_bytes
from farm.shard.layout import lease_segment_key
from farm.store.memory import MemoryStore
from farm.values.errors import DataError

RECORD = LeaseRecord(
    study="s",
    worker="w",
    reason="warm",
    attempt=2,
    blocks=(0, 3),
    lease="e-000001",
    nonce="n",
    outcome="crashed",
    cells=10,
    bytes_fetched=77,
    seconds={"read": 0.25},
    wall_s=0.5,
    failed={3: {"error": "BlockFailed", "message": "it died"}},
    error={"error": "BlockFailed", "message": "it died"},
)


def test_a_record_is_read_as_it_was_written() -> None:
    assert lease_record(RECORD.to_bytes(), RECORD.key) == RECORD


def test_a_record_without_the_later_fields_is_one() -> None:
    old = {"format": "farm-lease-1", "study": "s", "lease": "local-000000", "worker": "in process",
           "reason": "in process", "attempt": 1, "blocks": [0]}  # fmt: skip
    record = lease_record(json.dumps(old).encode(), "studies/s/leases/local-000000.json")
    assert (record.nonce, record.outcome, record.blocks, record.failed) == ("", "done", (0,), {})


def test_numbers_go_on_where_they_ended() -> None:
    store = MemoryStore()
    for worker in ("a", "b"):
        put_numbered(store, LeaseRecord("s", worker, "in process", 1, (0,)), "local")
    store.delete("studies/s/leases/local-000000.json")
    put_numbered(store, LeaseRecord("s", "c", "in process", 1, (0,)), "local")
    assert [(one.lease, one.worker) for one in read_leases(store, "s")] == [
        ("local-000001", "b"),
        ("local-000002", "c"),
    ]


DAMAGE = {
    "cut off": RECORD.to_bytes()[:-9],
    "empty": b"",
    "zeros": bytes(200),
    "a list": b"[]",
    "nested": b"[" * 100_000,
    "another format": RECORD.to_bytes().replace(b"farm-lease-1", b"farm-lease-9"),
    "of another lease": RECORD.to_bytes().replace(b"e-000001", b"e-000002"),
    **{
        f"{name} {value!r}": json.dumps(RECORD.to_json() | {name: value}).encode()
        for name, value in [
            ("blocks", "03"), ("blocks", [0, "3"]), ("blocks", None), ("attempt", "2"), ("worker", 7),
            ("seconds", []), ("seconds", {"read": "soon"}), ("failed", {"three": {"message": "x"}}),
            ("failed", {"3": {}}), ("error", "x"),
        ]
    },
    **{f"no {name}": json.dumps({k: v for k, v in RECORD.to_json().items() if k != name}).encode()
       for name in ("format", "study", "lease", "worker", "reason", "attempt", "blocks")},
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named(damage: str) -> None:
    """Its key, what is wrong with it, and what to do about it."""
    store = MemoryStore()
    store.put(RECORD.key, DAMAGE[damage])
    with pytest.raises(DataError, match=r"lease record (cannot be read|of a newer format)") as caught:
        read_leases(store, "s")
    assert caught.value.place == "studies/s/leases/e-000001.json"
    assert caught.value.hint.startswith("delete this object")


def test_of_several_records_of_one_lease_the_last_counts_and_it_keeps_its_place() -> None:
    store = MemoryStore()
    sent = [replace(RECORD, lease=name, outcome=SENT, failed={}, error=None) for name in ("e-2", "e-1", "e-3")]
    store.put(lease_segment_key("s", "e-00000000"), segment_bytes(sent[:2]))
    store.put(lease_segment_key("s", "e-00000001"), segment_bytes([sent[2], replace(RECORD, lease="e-2")]))
    store.put("studies/s/leases/e-00000001.tmp", b"not ours")
    assert read_leases(store, "s") == [replace(RECORD, lease="e-2"), *sent[1:]]


@pytest.mark.parametrize("damage", [*(f"cut at {cut}" for cut in (0, 1, 40, -2)), "changed", "of another study"])
def test_a_damaged_segment_is_named(damage: str) -> None:
    whole = segment_bytes([RECORD, RECORD])
    bodies = {"changed": whole.replace(b"it died", b"it lied"), "of another study": segment_bytes([other(RECORD)])}
    store, key = MemoryStore(), lease_segment_key("s", "e-00000000")
    store.put(key, bodies.get(damage) or whole[: int(damage.split()[-1])])
    with pytest.raises(DataError, match="lease segment cannot be read") as caught:
        read_leases(store, "s")
    assert caught.value.place == "studies/s/leases/e-00000000.jsonl"


def other(record: LeaseRecord) -> LeaseRecord:
    return replace(record, study="t")
