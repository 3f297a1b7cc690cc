"""The column cache: one load however many ask, never more bytes than the budget, nothing anybody can write to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from farm.columns import process
from farm.columns.cache import Column, ColumnCache, ColumnKey
from farm.values.errors import DataError, UsageError
from farm.values.settings import CacheSettings


def _key(i: int) -> ColumnKey:
    return f"shard{i // 4}", i % 4, "close"


def _column(key: ColumnKey) -> Column:
    """8 rows (64 bytes) that say which key they are of."""
    return np.full(8, int(key[0].removeprefix("shard")) * 4 + key[1], np.int64)


class Loads:
    """A loader that remembers what it loaded."""

    def __init__(self) -> None:
        self.calls: list[tuple[ColumnKey, ...]] = []
        self._lock = threading.Lock()

    def __call__(self, keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Column]:
        with self._lock:
            self.calls.append(tuple(keys))
        return {key: _column(key) for key in keys}

    @property
    def loaded(self) -> list[ColumnKey]:
        return [key for call in self.calls for key in call]


def _together(count: int, work: Callable[[int], object]) -> list[object]:
    """Run ``work(0..count-1)`` in threads that start at one moment; return results or exceptions."""
    ready = threading.Barrier(count)

    def run(i: int) -> object:
        ready.wait(timeout=30)
        try:
            return work(i)
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


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
    assert (stats.hits, stats.misses, stats.loads, stats.evictions, stats.bytes_used) == (1, 4, 4, 0, 256)


@pytest.mark.parametrize("threads", [2, 4, 16])
def test_cold_threads_pay_one_load_per_key(threads: int) -> None:
    """However many threads ask for overlapping keys at one moment, each key is loaded once and all see one array."""
    for _ in range(20):
        cache, loads = ColumnCache(10**6), Loads()
        results = _together(threads, lambda i, c=cache, ld=loads: c.get_many([_key(k) for k in range(i % 3, 9)], ld))
        assert sorted(loads.loaded) == sorted(_key(k) for k in range(9))
        for found in results:
            assert isinstance(found, dict)
            assert all((column == _column(key)).all() for key, column in found.items())
            assert all(column is results[0][key] for key, column in found.items() if key in results[0])


def test_crossing_requests_do_not_deadlock() -> None:
    """Threads whose keys overlap crosswise, in opposite orders, all finish."""
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0], [1, 3], [3, 0, 2], [1]]
    for _ in range(20):
        cache, loads = ColumnCache(10**6), Loads()
        results = _together(6, lambda i, c=cache, ld=loads: c.get_many([_key(k) for k in orders[i]], ld))
        assert all(isinstance(found, dict) for found in results)
        assert len(loads.loaded) == 4


def test_a_failing_load_wakes_all_and_is_not_kept() -> None:
    """All waiters of the same keys get the leader's error from one load; the next try loads anew and succeeds."""
    cache, loads = ColumnCache(10**6), Loads()
    started, go = threading.Event(), threading.Event()
    failed: list[tuple[ColumnKey, ...]] = []

    def failing(keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Column]:
        failed.append(tuple(keys))
        started.set()
        go.wait(timeout=30)
        raise DataError("damaged", place="shard0")

    with ThreadPoolExecutor(5) as pool:
        leader = pool.submit(cache.get_many, [_key(0)], failing)
        assert started.wait(timeout=30)
        waiters = [pool.submit(cache.get_many, [_key(0)], failing) for _ in range(4)]
        while cache.stats().misses < 5:
            threading.Event().wait(0.001)
        go.set()
        for flight in (leader, *waiters):
            with pytest.raises(DataError, match="damaged"):
                flight.result(timeout=30)
    assert failed == [(_key(0),)]
    assert cache.stats().bytes_used == 0
    assert (cache.get_many([_key(0)], loads)[_key(0)] == _column(_key(0))).all()


def test_the_fault_of_another_key_is_not_mine() -> None:
    """A thread that waited for one good key of a load that failed over another key loads its own, and succeeds."""
    cache, loads = ColumnCache(10**6), Loads()
    started, go = threading.Event(), threading.Event()

    def failing(keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Column]:
        started.set()
        go.wait(timeout=30)
        raise DataError("damaged", place="column of key 1")

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(cache.get_many, [_key(0), _key(1)], failing)
        assert started.wait(timeout=30)
        waiter = pool.submit(cache.get_many, [_key(0)], loads)
        while cache.stats().misses < 3:
            threading.Event().wait(0.001)
        go.set()
        assert (waiter.result(timeout=30)[_key(0)] == _column(_key(0))).all()
        with pytest.raises(DataError):
            leader.result(timeout=30)
    assert loads.calls == [(_key(0),)]


def test_a_leader_that_is_interrupted_takes_nobody_along() -> None:
    """KeyboardInterrupt ends the thread that got it; those who waited load for themselves."""
    cache, loads = ColumnCache(10**6), Loads()
    started, go = threading.Event(), threading.Event()

    def interrupted(keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Column]:
        started.set()
        go.wait(timeout=30)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(cache.get_many, [_key(0)], interrupted)
        assert started.wait(timeout=30)
        waiter = pool.submit(cache.get_many, [_key(0)], loads)
        while cache.stats().misses < 2:
            threading.Event().wait(0.001)
        go.set()
        assert list(waiter.result(timeout=30)) == [_key(0)]
        with pytest.raises(KeyboardInterrupt):
            leader.result(timeout=30)


def test_failures_among_many_threads_poison_nothing() -> None:
    """Loads that fail now and then, under 8 threads: every success is right, and in the end all is cached."""
    cache, lock, turn = ColumnCache(10**6), threading.Lock(), [0]

    def flaky(keys: Sequence[ColumnKey]) -> Mapping[ColumnKey, Column]:
        with lock:
            turn[0] += 1
            fails = turn[0] % 3 == 0
        if fails:
            raise DataError("now and then")
        return {key: _column(key) for key in keys}

    def work(i: int) -> int:
        right = 0
        for n in range(200):
            keys = [_key((i + n * k) % 12) for k in range(1, 4)]
            try:
                found = cache.get_many(keys, flaky)
            except DataError:
                continue
            right += all((found[key] == _column(key)).all() for key in keys)
        return right

    results = _together(8, work)
    assert all(isinstance(right, int) and right > 100 for right in results)
    assert cache.holds() == {"shard0": 256, "shard1": 256, "shard2": 256}


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
    assert cache.stats().bytes_used == 880


def test_a_loader_that_forgets_or_brings_objects_is_told_so() -> None:
    cache = ColumnCache(10**6)
    with pytest.raises(DataError, match="not loaded") as caught:
        cache.get_many([_key(0), _key(1)], lambda keys: {_key(0): _column(_key(0))})
    assert caught.value.place == "shard shard0, row group 1, column close"
    with pytest.raises(DataError, match="objects"):
        cache.get_many([_key(0)], lambda keys: {_key(0): np.array(["a", None], object)})
    assert cache.holds() == {}


def test_least_recently_used_goes_first() -> None:
    cache, loads = ColumnCache(3 * 64), Loads()
    for i in (0, 1, 2, 0, 3):
        cache.get_many([_key(i)], loads)
    cache.get_many([_key(0), _key(2), _key(3)], loads)
    assert loads.loaded == [_key(0), _key(1), _key(2), _key(3)]
    cache.get_many([_key(1)], loads)
    assert loads.loaded[-1] == _key(1)
    assert cache.stats().evictions == 2


def test_more_than_the_budget_is_served_but_not_kept() -> None:
    """A request above the whole budget still gets all its columns."""
    cache, loads = ColumnCache(100), Loads()
    found = cache.get_many([_key(i) for i in range(5)], loads)
    assert all((found[_key(i)] == _column(_key(i))).all() for i in range(5))
    assert cache.stats().bytes_used == 64
    none = ColumnCache(0)
    none.get_many([_key(0)], loads)
    assert none.holds() == {}
    with pytest.raises(UsageError):
        ColumnCache(-1)


class CacheMachine(RuleBasedStateMachine):
    """Against a model: a list of keys, most recently used last, within a budget of five columns."""

    BUDGET = 5 * 64 + 10

    def __init__(self) -> None:
        super().__init__()
        self.cache = ColumnCache(self.BUDGET)
        self.recent: list[ColumnKey] = []
        self.loads = Loads()

    @rule(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=7))
    def get(self, numbers: list[int]) -> None:
        keys = list(dict.fromkeys(map(_key, numbers)))
        before = len(self.loads.loaded)
        found = self.cache.get_many([_key(i) for i in numbers], self.loads)
        assert list(found) == keys
        assert all((found[key] == _column(key)).all() for key in keys)
        missing = [key for key in keys if key not in self.recent]
        assert self.loads.loaded[before:] == missing
        held = [key for key in keys if key not in missing]
        self.recent = [key for key in self.recent if key not in held] + held
        for key in missing:
            self.recent = [*self.recent, key][-5:]

    @rule(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=4))
    def fail(self, numbers: list[int]) -> None:
        keys = list(dict.fromkeys(map(_key, numbers)))

        def failing(wanted: Sequence[ColumnKey]) -> Mapping[ColumnKey, Column]:
            raise DataError("no")

        if all(key in self.recent for key in keys):
            self.cache.get_many(keys, failing)
        else:
            with pytest.raises(DataError):
                self.cache.get_many(keys, failing)
        held = [key for key in keys if key in self.recent]
        self.recent = [key for key in self.recent if key not in held] + held

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.recent = []

    @invariant()
    def books_balance(self) -> None:
        stats = self.cache.stats()
        holds = self.cache.holds()
        expected: dict[str, int] = {}
        for key in self.recent:
            expected[key[0]] = expected.get(key[0], 0) + 64
        assert expected == holds
        assert stats.bytes_used == sum(holds.values()) <= self.BUDGET
        assert stats.loads == len(self.loads.loaded)


TestCacheMachine = CacheMachine.TestCase


@given(st.integers(1, 8), st.integers(1, 6))
def test_budget_holds_under_threads(budget: int, threads: int) -> None:
    """After any storm the bytes used are those held, within the budget."""
    cache = ColumnCache(budget * 64)
    _together(threads, lambda i: [cache.get_many([_key((i * 5 + n) % 20)], Loads()) for n in range(20)])
    assert cache.stats().bytes_used == sum(cache.holds().values()) <= budget * 64


def test_the_process_has_one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """process_cache is one object for all threads, until somebody wants another budget."""
    monkeypatch.setattr(process, "_cache", None)
    settings = CacheSettings(cache_bytes_max=12345)
    [first] = set(_together(8, lambda _: process.process_cache(settings)))
    assert first.cache_bytes_max == 12345
    assert process.process_cache() is process.process_cache(settings) is first
    other = process.process_cache(CacheSettings(cache_bytes_max=1))
    assert other is process.process_cache() is not first
    assert (first.cache_bytes_max, other.cache_bytes_max) == (12345, 1)
