"""The column cache: one load however many ask, never more bytes than the budget, nothing anybody can write to.

What threads may expect of each other, failures and the order of eviction: ``tests/values/test_shared.py``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from farm.columns import process
from farm.columns.cache import ColumnCache
from farm.shard.reader import ColumnKey, Values
from farm.values.errors import DataError, UsageError
from farm.values.settings import CacheSettings


def _key(i: int) -> ColumnKey:
    return f"shard{i // 4}", i % 4, "close"


def _column(key: ColumnKey) -> Values:
    """8 rows (64 bytes) that say which key they are of."""
    return np.full(8, int(key[0].removeprefix("shard")) * 4 + key[1], np.int64)


class Loads:
    """A loader that remembers what it loaded."""

    def __init__(self) -> None:
        self.calls: list[tuple[ColumnKey, ...]] = []

    def __call__(self, keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Values]:
        self.calls.append(tuple(keys))
        return {key: _column(key) for key in keys}


def test_keys_come_back_in_order_and_once() -> None:
    """Results follow the request; a repeated key is loaded once, all missing keys in one call."""
    cache, loads = ColumnCache(10**6), Loads()
    wanted = [_key(3), _key(1), _key(3), _key(2)]
    found = cache.get_many(wanted, loads)
    assert [_key(3), _key(1), _key(2)] == list(found)
    assert all((found[key] == _column(key)).all() for key in found)
    cache.get_many([_key(1), _key(5)], loads)
    assert loads.calls == [(_key(3), _key(1), _key(2)), (_key(5),)]
    assert cache.get_many([], loads) == {}
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.evictions, stats.size_used) == (1, 4, 4, 0, 256)


def test_cold_threads_pay_one_load() -> None:
    """However many threads ask while columns are loaded, they are loaded once and all see the same arrays."""
    cache, loads = ColumnCache(10**6), Loads()
    wanted, deadline = [_key(k) for k in range(9)], time.monotonic() + 30

    def load(keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Values]:
        while cache.stats().misses < 4 * len(wanted):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return loads(keys)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: cache.get_many(wanted, load), range(4)))
    assert loads.calls == [tuple(wanted)]
    assert all(found[key] is results[0][key] for found in results for key in wanted)


def test_values_are_read_only_and_owned() -> None:
    """Nobody can write into the cache: not through the result, not through what the loader kept."""
    cache = ColumnCache(10**6)
    kept = np.arange(100)
    found = cache.get_many([_key(0), _key(1)], lambda keys: {_key(0): kept[10:20], _key(1): kept.copy()})
    for column in found.values():
        assert not column.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    kept[:] = -1
    assert found[_key(0)].tolist() == list(range(10, 20))
    assert cache.stats().size_used == 880


def test_a_loader_that_forgets_or_brings_objects_is_told_so() -> None:
    cache = ColumnCache(10**6)
    with pytest.raises(DataError, match="not loaded") as caught:
        cache.get_many([_key(0), _key(1)], lambda keys: {_key(0): _column(_key(0))})
    assert caught.value.place == "shard shard0, row group 1, column close"
    with pytest.raises(DataError, match="objects"):
        cache.get_many([_key(0)], lambda keys: {_key(0): np.array(["a", None], object)})
    assert cache.holds() == {}


def test_more_than_the_budget_is_served_but_not_kept() -> None:
    """A request above the whole budget still gets all its columns."""
    cache, loads = ColumnCache(100), Loads()
    found = cache.get_many([_key(i) for i in range(5)], loads)
    assert all((found[_key(i)] == _column(_key(i))).all() for i in range(5))
    assert cache.stats().size_used == 64
    none = ColumnCache(0)
    none.get_many([_key(0)], loads)
    assert none.holds() == {}
    with pytest.raises(UsageError):
        ColumnCache(-1)


def test_what_is_held_is_told_by_shard() -> None:
    """Workers are chosen by it; what was dropped is not held."""
    cache = ColumnCache(3 * 64)
    for i in range(5):
        cache.get_many([_key(i)], Loads())
    assert cache.holds() == {"shard0": 128, "shard1": 64}
    assert cache.stats().evictions == 2


def test_the_process_has_one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """process_cache is one object for all threads, until somebody wants another budget."""
    monkeypatch.setattr(process, "_cache", None)
    settings = CacheSettings(cache_bytes_max=12345)
    with ThreadPoolExecutor(8) as pool:
        [first] = set(pool.map(lambda _: process.process_cache(settings), range(8)))
    assert first.cache_bytes_max == 12345
    assert process.process_cache() is process.process_cache(settings) is first
    other = process.process_cache(CacheSettings(cache_bytes_max=1))
    assert other is process.process_cache() is not first
    assert (first.cache_bytes_max, other.cache_bytes_max) == (12345, 1)
