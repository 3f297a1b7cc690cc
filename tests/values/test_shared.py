"""One thread makes a value and the others wait; the bound holds; least recently used goes first; failures are not kept.

A maker here waits until the other askers are seen waiting, so that every claim about threads is put to the test in
every run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from farm.values.errors import DataError
from farm.values.shared import Shared

WAIT_S = 30.0


def asked(shared: Shared[int, object], misses: int) -> None:
    """Return when so many asks for absent keys have come: each has made its value by then, makes it or waits for it."""
    deadline = time.monotonic() + WAIT_S
    while shared.stats().misses < misses:
        assert time.monotonic() < deadline, f"{shared.stats()}, waited for {misses} misses"
        time.sleep(0.001)


class Loads:
    """A loader that remembers its calls; it does not return from one before ``hold`` says so."""

    def __init__(self, hold: Callable[[], object] = lambda: None, error: BaseException | None = None) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.started = threading.Event()
        self._hold = hold
        self._error = error

    def __call__(self, keys: tuple[int, ...]) -> Mapping[int, object]:
        self.calls.append(keys)
        self.started.set()
        self._hold()
        if self._error is not None:
            raise self._error
        return {key: [key] for key in keys}


def test_who_asks_while_a_value_is_made_gets_that_value() -> None:
    shared: Shared[int, object] = Shared(4)
    loads = Loads(hold=lambda: asked(shared, 8))
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(shared.get, 1, lambda: loads((1,))) for _ in range(8)]
        assert len({id(one.result(WAIT_S)) for one in found}) == 1
    assert loads.calls == [(1,)]
    stats = shared.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.evictions, stats.size_used) == (0, 8, 1, 0, 1)


def test_a_failure_is_told_to_who_waited_and_tried_again_by_who_comes_later() -> None:
    shared: Shared[int, object] = Shared(4)
    loads = Loads(hold=lambda: asked(shared, 5), error=DataError("gone"))
    with ThreadPoolExecutor(5) as pool:
        found = [pool.submit(shared.get, 1, lambda: loads((1,))) for _ in range(5)]
        assert len({id(one.exception(WAIT_S)) for one in found}) == 1
        assert all(isinstance(one.exception(), DataError) for one in found)
    assert loads.calls == [(1,)] and len(shared) == 0
    assert shared.get(1, lambda: 7) == 7
    assert shared.get(1, lambda: 8) == 7


def test_a_maker_that_is_interrupted_takes_nobody_along() -> None:
    """KeyboardInterrupt ends the thread that got it; one of those who waited makes the value."""
    shared: Shared[int, object] = Shared(4)
    interrupted, loads = Loads(hold=lambda: asked(shared, 4), error=KeyboardInterrupt()), Loads()
    with ThreadPoolExecutor(4) as pool:
        maker = pool.submit(shared.get_many, [1], interrupted)
        assert interrupted.started.wait(WAIT_S)
        others = [pool.submit(shared.get_many, [1], loads) for _ in range(3)]
        assert [one.result(WAIT_S) for one in others] == [{1: [1]}] * 3
        assert isinstance(maker.exception(WAIT_S), KeyboardInterrupt)
    assert loads.calls == [(1,)]


def test_askers_of_overlapping_sets_load_only_what_nobody_else_loads() -> None:
    """Three threads in a ring of shared keys: each makes its own part, none waits before it has."""
    shared: Shared[int, object] = Shared(9)
    first, second, third = (Loads(hold=lambda: asked(shared, 7)) for _ in range(3))
    with ThreadPoolExecutor(3) as pool:
        one = pool.submit(shared.get_many, [1, 2], first)
        assert first.started.wait(WAIT_S)
        two = pool.submit(shared.get_many, [2, 3], second)
        assert second.started.wait(WAIT_S)
        three = pool.submit(shared.get_many, [4, 3, 1], third)
        assert [one.result(WAIT_S), two.result(WAIT_S)] == [{1: [1], 2: [2]}, {2: [2], 3: [3]}]
        assert list(three.result(WAIT_S)) == [4, 3, 1]
        assert three.result()[3] is two.result()[3] and three.result()[1] is one.result()[1]
    assert [first.calls, second.calls, third.calls] == [[(1, 2)], [(3,)], [(4,)]]


def test_the_fault_of_another_key_is_not_mine() -> None:
    """Who waited for one key of a load that failed, perhaps over another key, makes its own."""
    shared: Shared[int, object] = Shared(4)
    failing, loads = Loads(hold=lambda: asked(shared, 5), error=DataError("key 2 is damaged")), Loads()
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(shared.get_many, [1, 2], failing)
        assert failing.started.wait(WAIT_S)
        alone = pool.submit(shared.get, 1, lambda: [1])
        both = pool.submit(shared.get_many, [2, 1], loads)
        assert alone.result(WAIT_S) == [1]
        assert isinstance(leader.exception(WAIT_S), DataError)
        assert both.exception(WAIT_S) is leader.exception()
    assert loads.calls == []


def test_a_maker_that_asks_for_its_own_key_is_told_so() -> None:
    """A mistake of a caller, which would wait for itself for ever."""
    shared: Shared[int, object] = Shared(4)
    with pytest.raises(AssertionError, match="making 1 asks for it"):
        shared.get(1, lambda: shared.get(2, lambda: shared.get(1, int)))
    assert shared.get(1, lambda: shared.get(2, lambda: 3)) == 3


def test_a_load_that_leaves_a_key_out_keeps_nothing() -> None:
    shared: Shared[int, object] = Shared(4)
    with pytest.raises(KeyError):
        shared.get_many([1, 2], lambda keys: {1: 1})
    assert len(shared) == 0
    assert shared.get_many([2, 1, 2], lambda keys: {key: -key for key in keys}) == {2: -2, 1: -1}


class SharedMachine(RuleBasedStateMachine):
    """Against a model: sizes by key, most recently used last. Key, value and size are one number."""

    BOUND = 10

    def __init__(self) -> None:
        super().__init__()
        self.shared: Shared[int, int] = Shared(self.BOUND, size_of=lambda value: value)
        self.recent: dict[int, int] = {}
        self.hits = self.misses = self.loads = self.evictions = 0

    def ask(self, keys: list[int]) -> list[int]:
        """Note that ``keys`` are asked for; return those that have to be made."""
        missing = [key for key in keys if key not in self.recent]
        for key in keys:
            if key in self.recent:
                self.recent[key] = self.recent.pop(key)
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        return missing

    def made(self, key: int) -> None:
        self.loads += 1
        if key <= self.BOUND:
            self.recent[key] = key
        while sum(self.recent.values()) > self.BOUND:
            del self.recent[next(iter(self.recent))]
            self.evictions += 1

    @rule(key=st.integers(0, 12))
    def get(self, key: int) -> None:
        missing = self.ask([key])
        called: list[int] = []
        assert key == self.shared.get(key, lambda: called.append(key) or key)
        assert missing == called
        for one in missing:
            self.made(one)

    @rule(keys=st.lists(st.integers(0, 12), max_size=6))
    def get_many(self, keys: list[int]) -> None:
        missing = self.ask(list(dict.fromkeys(keys)))
        called: list[int] = []

        def load(wanted: tuple[int, ...]) -> dict[int, int]:
            called.extend(wanted)
            return {key: key for key in wanted}

        found = self.shared.get_many(keys, load)
        assert list(found.items()) == [(key, key) for key in dict.fromkeys(keys)]
        assert missing == called
        for key in missing:
            self.made(key)

    @rule(keys=st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True))
    def fail(self, keys: list[int]) -> None:
        def load(wanted: tuple[int, ...]) -> dict[int, int]:
            raise DataError("no")

        if self.ask(keys):
            with pytest.raises(DataError):
                self.shared.get_many(keys, load)
        else:
            self.shared.get_many(keys, load)

    @invariant()
    def books_balance(self) -> None:
        assert self.recent == self.shared.sizes()
        assert len(self.recent) == len(self.shared)
        stats = self.shared.stats()
        assert (self.hits, self.misses, self.loads) == (stats.hits, stats.misses, stats.loads)
        assert (self.evictions, sum(self.recent.values())) == (stats.evictions, stats.size_used)
        assert stats.size_used <= self.BOUND


TestSharedMachine = SharedMachine.TestCase


@given(st.integers(0, 8), st.integers(2, 6))
def test_the_bound_holds_under_threads(bound: int, threads: int) -> None:
    """After any storm with failures, what is held is within the bound, and nothing is in flight."""
    shared: Shared[int, int] = Shared(bound)

    def storm(thread: int) -> int:
        failures = 0
        for step in range(20):
            keys = [(thread * 5 + step * hop) % 12 for hop in (1, 2, 3)]
            try:
                assert shared.get_many(keys, load) == {key: key for key in keys}
            except DataError:
                failures += 1
        return failures

    def load(keys: tuple[int, ...]) -> dict[int, int]:
        if keys[0] == 7:
            raise DataError("now and then")
        return {key: key for key in keys}

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(storm, range(threads))) < threads * 20
    stats = shared.stats()
    assert stats.size_used == len(shared) == sum(shared.sizes().values()) <= bound
    assert stats.hits + stats.misses <= 60 * threads
    assert shared.get_many(range(12), lambda keys: {key: key for key in keys}) == {key: key for key in range(12)}
