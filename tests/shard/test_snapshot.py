"""Roots, the create-only log, and ingests that race."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.columns.cache import ColumnCache
from farm.shard import layout
from farm.shard.reader import read_rows
from farm.shard.snapshot import (
    COMMIT_ATTEMPTS_MAX,
    ShardRef,
    commit,
    make_snapshot,
    read_head,
    read_snapshot,
    snapshot_bytes,
)
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.store.open import open_store
from farm.values.canon import sha256_hex
from farm.values.errors import DataError, StoreError, UsageError
from tests.conftest import Bucket
from tests.shard.generators import ALWAYS, Bar, Meddling, digests, head, put_bars, refs, walk


def test_a_racing_commit_is_rebased_not_lost() -> None:
    """Somebody commits between reading the head and writing the entry: both end up in the dataset."""
    for racers in (1, 3):
        inner, raced = MemoryStore(), itertools.count()
        put_bars(inner, walk("A", "2010-01-01", 3))

        def before(
            verb: str, key: str, inner: Store = inner, raced: itertools.count[int] = raced, n: int = racers
        ) -> None:
            if verb == "put_if_absent" and key.startswith("refs/"):
                at = next(raced)
                if at < n:
                    put_bars(inner, walk(f"R{at}", "2010-01-01", 3))

        summary = put_bars(Meddling(inner, before), walk("B", "2010-01-01", 3))
        assert len(refs(inner)) == racers + 2
        assert summary.snapshot == read_head(inner, "main").id
        assert list(head(inner).instruments()) == ["A", "B", *(f"R{at}" for at in range(racers))]
        for symbol in head(inner).instruments():
            assert sum(month.rows for month in digests(inner, symbol)) == 3


def test_a_rebase_sees_the_rows_of_the_winner() -> None:
    """The loser's rows that the winner already brought are skipped; one that differs is refused."""
    bars = walk("A", "2010-01-01", 5)
    for change, added in ((None, 2), (1.0, -1)):
        inner, raced = MemoryStore(), itertools.count()
        rival = [Bar(**{**vars(bar), "low": change}) if change else bar for bar in bars[:3]]

        def before(
            verb: str, key: str, inner: Store = inner, raced: itertools.count[int] = raced, rival: list[Bar] = rival
        ) -> None:
            if verb == "put_if_absent" and key.startswith("refs/") and next(raced) == 0:
                put_bars(inner, rival)

        if added < 0:
            with pytest.raises(DataError, match=r"differs from the stored one: low"):
                put_bars(Meddling(inner, before), bars)
            assert len(refs(inner)) == 1
        else:
            summary = put_bars(Meddling(inner, before), bars)
            assert (summary.rows_added, summary.rows_skipped) == (added, 3)
            assert sum(month.rows for month in digests(inner, "A")) == 5


def test_a_put_whose_answer_was_lost_is_a_success() -> None:
    """The entry is there, written by us, and the store says it was there already."""
    inner, lost = MemoryStore(), itertools.count()

    def before(verb: str, key: str) -> None:
        if verb == "put_if_absent" and key.startswith("refs/") and next(lost) == 0:
            put_bars(inner, walk("A", "2010-01-01", 3))

    summary = put_bars(Meddling(inner, before), walk("A", "2010-01-01", 3))
    assert (summary.snapshot, len(refs(inner))) == (read_head(inner, "main").id, 1)


def test_a_store_where_somebody_is_always_faster() -> None:
    inner, number = MemoryStore(), itertools.count()

    def before(verb: str, key: str) -> None:
        if verb == "put_if_absent" and key.startswith("refs/"):
            inner.put(key, b'{"check":"%s","snapshot":"%d"}' % (sha256_hex(b"x").encode(), next(number)))

    with pytest.raises(DataError, match=r"log entry is damaged"):
        put_bars(Meddling(inner, before), walk("A", "2010-01-01", 3))

    other, count, paused = MemoryStore(), itertools.count(), list[float]()

    def overtake(verb: str, key: str) -> None:
        if verb == "put_if_absent" and key.startswith("refs/"):
            commit(other, "main", lambda _: make_snapshot("main", (_ref(next(count)),), {}))

    with pytest.raises(StoreError, match=r"others committed to 'main' 64 times"):
        commit(
            Meddling(other, overtake), "main", lambda _: make_snapshot("main", (_ref(10**6),), {}), sleep=paused.append
        )
    assert len(paused) == COMMIT_ATTEMPTS_MAX - 1
    assert max(paused[:3]) < 0.2
    assert 0.2 < max(paused) <= 1.0
    assert len(set(paused)) == len(paused)


@pytest.mark.slow
def test_many_who_commit_at_once_all_get_through() -> None:
    """Many more of them than a commit may lose races, each of which takes a while."""
    inner, racers = MemoryStore(), 3 * COMMIT_ATTEMPTS_MAX
    slow = Meddling(inner, lambda verb, key: time.sleep(0.002) if key.startswith("refs/") else None)
    mine = [make_snapshot("main", (_ref(at),), {}) for at in range(racers)]
    _at_once([lambda new=new: commit(slow, "main", lambda _: new) for new in mine])  # type: ignore[misc]
    assert len(refs(inner)) == racers


def _ref(number: int) -> ShardRef:
    return ShardRef("k", "i", "s", f"{number:064x}", 1, 1, "0" * 64, 1)


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_concurrent_ingests_all_end_up_in_one_dataset(kind: str, tmp_path: Path) -> None:
    """Eight threads, eight files: eight entries, and the root does not tell in which order they came."""
    store: Store = MemoryStore() if kind == "memory" else open_store(str(tmp_path / "store"))
    symbols = [f"S{at}" for at in range(8)]
    _at_once([lambda name=name: put_bars(store, walk(name, "2010-01-01", 20)) for name in symbols])  # type: ignore[misc]
    assert refs(store) == [layout.ref_key("main", at) for at in range(1, 9)]
    assert list(head(store).instruments()) == symbols
    in_order = MemoryStore()
    for name in symbols:
        put_bars(in_order, walk(name, "2010-01-01", 20))
    assert read_head(in_order, "main").id == read_head(store, "main").id


def test_concurrent_ingests_of_the_same_file_add_one_entry() -> None:
    store = MemoryStore()
    _at_once([lambda: put_bars(store, walk("A", "2010-01-01", 20))] * 6)
    assert len(refs(store)) == 1


def _at_once(actions: list[Callable[[], object]]) -> None:
    barrier, errors = threading.Barrier(len(actions)), []

    def run(action: Callable[[], object]) -> None:
        barrier.wait()
        try:
            action()
        except Exception as error:  # noqa: BLE001  # handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_datasets_do_not_see_each_other_but_share_snapshots() -> None:
    store = MemoryStore()
    one = put_bars(store, walk("A", "2010-01-01", 3), dataset="one")
    two = put_bars(store, walk("A", "2010-01-01", 3), dataset="two")
    assert one.snapshot == two.snapshot
    put_bars(store, walk("B", "2010-01-01", 3), dataset="two")
    assert read_head(store, "one").id == one.snapshot
    assert read_snapshot(store, one.snapshot).shards == read_head(store, "one").shards


def test_a_snapshot_is_read_by_its_name_or_not_at_all() -> None:
    store = MemoryStore()
    snapshot_id = put_bars(store, walk("A", "2010-01-01", 3)).snapshot
    assert sha256_hex(snapshot_bytes(read_snapshot(store, snapshot_id))) == snapshot_id
    with pytest.raises(DataError, match=r"no such snapshot"):
        read_snapshot(store, "0" * 64)
    with pytest.raises(UsageError, match=r"not a content name"):
        read_snapshot(store, "latest")


def test_strangers_among_the_refs_are_ignored() -> None:
    """Neither the head nor the next commit looks at what is no entry of the log, before or after the entries."""
    store = MemoryStore()
    first = put_bars(store, walk("A", "2010-01-01", 3)).snapshot
    for name in ("notes.txt", "0.json", "0000000002.json.part", "00000000003.json", "x/0000000009.json"):
        store.put(f"refs/main/{name}", b"")
    assert read_head(store, "main").id == first
    second = put_bars(store, walk("B", "2010-01-01", 3)).snapshot
    assert read_head(store, "main").id == second != first


def test_ingest_and_reading_on_s3(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same snapshot as in memory, concurrent commits, appends, reads, on a real bucket."""
    for name, value in s3_bucket.env().items():
        monkeypatch.setenv(name, value)
    store = open_store(s3_bucket.url)
    _at_once([lambda name=name: put_bars(store, walk(name, "2009-12-01", 60)) for name in "ABC"])  # type: ignore[misc]
    memory = MemoryStore()
    for name in "CBA":
        put_bars(memory, walk(name, "2009-12-01", 60))
    assert read_head(store, "main").id == read_head(memory, "main").id
    rows = read_rows(head(store), ColumnCache(1 << 20), "stock_daily", "B", *ALWAYS, ["close"])
    assert rows.prices("close").tolist() == [bar.close for bar in walk("B", "2009-12-01", 60)]
