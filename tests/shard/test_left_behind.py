"""What ingest leaves behind when it fails: the dataset as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from farm.shard.snapshot import read_head
from farm.store.memory import MemoryStore
from farm.store.open import open_store
from farm.values.errors import DataError, StoreError
from tests.shard.generators import Meddling, put_bars, walk
from tests.shard.support import rows_of


def test_an_interrupt_at_any_write_leaves_the_dataset_as_it_was() -> None:
    """Ctrl-C before the k-th put, for every k: the head is the old one, and the same ingest then succeeds."""
    base = MemoryStore()
    put_bars(base, walk("A", "2010-01-01", 5))
    head = read_head(base, "main").id
    after = put_bars(_copy(base), [*walk("A", "2010-02-01", 5), *walk("B", "2010-01-01", 5)]).snapshot
    for stop_at in range(1, 100):
        store, puts = _copy(base), iter(range(1, 100))

        def before(verb: str, key: str, puts: Any = puts, stop_at: int = stop_at) -> None:
            if verb == "put_if_absent" and next(puts) == stop_at:
                raise KeyboardInterrupt

        watched = Meddling(store, before)
        try:
            done = put_bars(watched, [*walk("A", "2010-02-01", 5), *walk("B", "2010-01-01", 5)])
        except KeyboardInterrupt:
            assert head == read_head(store, "main").id
            assert after == put_bars(store, [*walk("A", "2010-02-01", 5), *walk("B", "2010-01-01", 5)]).snapshot
        else:
            assert after == done.snapshot
            assert stop_at > 6, "shards, indexes, root and ref were written before"
            break


def _copy(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    for meta in store.list(""):
        copy.put(meta.key, store.get(meta.key))
    return copy


def test_a_write_that_really_fails_leaves_the_dataset_as_it_was(tmp_path: Path) -> None:
    """A file-size limit of the operating system in the middle of an ingest; without it the same ingest succeeds."""
    store = open_store(str(tmp_path / "store"))
    put_bars(store, walk("A", "2010-01-01", 5))
    before = read_head(store, "main").id
    program = """
        import resource, sys
        from farm.store.open import open_store
        from farm.values.errors import StoreError
        from tests.shard.generators import put_bars, walk
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            put_bars(open_store(sys.argv[1]), walk("B", "2010-01-01", 3000))
        except StoreError as error:
            print(type(error).__name__, error)
            sys.exit(error.exit_code)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert StoreError.exit_code == ended.returncode, ended.stderr
    assert "WriteFailed" in ended.stdout
    assert before == read_head(store, "main").id
    assert len(rows_of(store, "A")) == 5
    assert put_bars(store, walk("B", "2010-01-01", 3000)).rows_added == 3000


def test_a_damaged_leftover_under_a_content_name_is_not_adopted() -> None:
    """Bytes that lie under the name of a new shard must be those of the shard."""
    good = MemoryStore()
    put_bars(good, walk("A", "2010-01-01", 5))
    [ref] = read_head(good, "main").of_kind("stock_daily")
    store = MemoryStore()
    store.put(ref.key, good.get(ref.key)[:-1])
    with pytest.raises(DataError, match=r"damaged") as caught:
        put_bars(store, walk("A", "2010-01-01", 5))
    assert ref.key == caught.value.place
    store.put(ref.key, good.get(ref.key))
    assert read_head(good, "main").id == put_bars(store, walk("A", "2010-01-01", 5)).snapshot
