"""Retries recover what may be recovered, count it, and give up in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.store.base import ObjectMeta
from farm.store.memory import MemoryStore
from farm.store.open import open_store, wrap_store
from farm.store.wrap import Around, Counting, Counts, Fault, Faulty, Limited, Retrying, counts_of
from farm.values.errors import (
    AlreadyExists,
    NotFound,
    ShortRead,
    StoreError,
    Throttled,
    Unavailable,
    UsageError,
    Watchdog,
)
from farm.values.settings import StoreSettings
from tests.effort import effort

FAST = StoreSettings(backoff_s=0.0, backoff_s_max=0.0, range_retries_max=8)
DATA = bytes(range(200))


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Broken(Around):
    """Fails the first ``failures`` requests with ``error``."""

    def __init__(self, inner: MemoryStore, error: StoreError, failures: int) -> None:
        super().__init__(inner)
        self.error = error
        self.left = failures

    def _do(self, verb, key, action, *, sent=0, expected=0):
        if self.left:
            self.left -= 1
            raise self.error
        return action()


def _planted() -> MemoryStore:
    store = MemoryStore()
    store.put("blob", DATA)
    for i in range(30):
        store.put(f"many/{i:02d}", b"x")
    return store


@given(seed=st.integers(0, 2**32))
@settings(max_examples=effort(60))
def test_every_fault_that_shows_is_recovered(seed: int) -> None:
    """Throttling, resets, lost answers and short bodies at 25 % each: reads are exact, writes happen once."""
    memory = _planted()
    kinds = ("throttled", "unavailable", "lost_answer", "short")
    plan = [Fault(kind, 0.25) for kind in kinds[:2]] + [
        Fault("lost_answer", 0.25, frozenset({"put", "put_if_absent", "delete", "get_range"})),
        Fault("short", 0.25, frozenset({"get_range"})),
    ]
    faulty = Faulty(memory, plan, seed)
    store = wrap_store(faulty, replace(FAST, range_retries_max=60))
    ranges = [(i, 5) for i in range(0, 100, 10)]
    assert [DATA[start : start + length] for start, length in ranges] == store.get_ranges("blob", ranges)
    assert [f"many/{i:02d}" for i in range(30)] == [meta.key for meta in store.list("many/")]
    store.put_if_absent("new", b"mine")
    with pytest.raises(AlreadyExists):
        wrap_store(Faulty(memory, plan, seed + 1), FAST).put_if_absent("new", b"other")
    store.delete("many/00")
    assert memory.get("new") == b"mine"
    counts = counts_of(store)
    injected = faulty.injected
    assert counts.retries["client"] == sum(injected.get(kind, 0) for kind in kinds[:3])
    assert counts.retries["range"] == injected.get("short", 0)
    assert counts.requests > 0


def test_a_lost_answer_of_put_if_absent_is_a_success() -> None:
    """The repeated put finds its own bytes; a stranger's bytes stay AlreadyExists."""
    memory = MemoryStore()
    lost_once = Faulty(memory, [Fault("lost_answer", 1.0, frozenset({"put_if_absent"}))], seed=0)

    class Once(Around):
        def put_if_absent(self, key: str, data: bytes) -> None:
            (lost_once if not lost_once.injected else memory).put_if_absent(key, data)

    wrap_store(Once(memory), FAST).put_if_absent("k", b"mine")
    assert memory.get("k") == b"mine"
    lost_once.injected.clear()
    memory.put("other", b"theirs")
    with pytest.raises(AlreadyExists):
        wrap_store(Once(memory), FAST).put_if_absent("other", b"mine")


def test_flipped_bits_pass_the_store_unseen() -> None:
    """The wrapper flips silently, so that the checksums of readers have something to find."""
    store = wrap_store(Faulty(_planted(), [Fault("flipped", 1.0)], 0), FAST)
    data = store.get_range("blob", 0, 10)
    assert sum((a ^ b).bit_count() for a, b in zip(data, DATA[:10], strict=True)) == 1


def test_faults_depend_on_the_seed_alone() -> None:
    def story(seed: int) -> list[str]:
        faulty = Faulty(_planted(), [Fault("unavailable", 0.5)], seed)
        told = []
        for _ in range(40):
            try:
                faulty.get("blob")
                told.append("ok")
            except Unavailable:
                told.append("failed")
        return told

    assert story(1) == story(1)
    assert story(1) != story(2)


@pytest.mark.parametrize("error", [NotFound("no"), AlreadyExists("there")])
def test_what_will_not_change_is_not_retried(error: StoreError) -> None:
    broken = Broken(_planted(), error, failures=1)
    store = wrap_store(broken, FAST)
    with pytest.raises(type(error)):
        store.get("blob")
    assert counts_of(store).retries == {"client": 0, "range": 0, "span": 0}


@pytest.mark.parametrize("error", [Unavailable("reset"), Throttled("slow down")])
def test_a_store_that_is_away_is_asked_again_and_again(error: StoreError) -> None:
    """However often; the time alone is limited."""
    store = wrap_store(Broken(_planted(), error, 500), FAST)
    assert store.get("blob") == DATA
    assert counts_of(store).retries == {"client": 500, "range": 0, "span": 0}


def test_range_retries_are_bounded() -> None:
    """After range_retries_max retries the last error comes out; one fewer failure, and the read succeeds."""
    for failures, fails in ((3, False), (4, True)):
        store = wrap_store(Broken(_planted(), ShortRead("cut"), failures), replace(FAST, range_retries_max=3))
        if fails:
            with pytest.raises(ShortRead):
                store.get("blob")
        else:
            assert store.get("blob") == DATA
        assert counts_of(store).retries["range"] == 3


def test_a_gust_of_failures_is_survived_by_the_span_layer() -> None:
    """Ranges that failed all their tries are tried once more together; the others are not fetched again."""
    settings_ = replace(FAST, range_retries_max=0, in_flight_max=1)
    store = wrap_store(Broken(_planted(), ShortRead("gust"), failures=2), settings_)
    ranges = [(0, 5), (50, 5), (100, 5)]
    assert [DATA[start : start + length] for start, length in ranges] == store.get_ranges("blob", ranges)
    counts = counts_of(store)
    assert counts.retries == {"client": 0, "range": 0, "span": 2}
    assert counts.requests_by_verb == {"get_range": 5}
    assert counts.bytes_read == 15


def test_span_failure_is_the_first_error() -> None:
    settings_ = replace(FAST, range_retries_max=0, in_flight_max=1)
    store = wrap_store(Broken(_planted(), ShortRead("cut"), failures=100), settings_)
    with pytest.raises(ShortRead, match="cut"):
        store.get_ranges("blob", [(0, 5), (50, 5)])


def test_watchdog_ends_a_request_with_the_last_error() -> None:
    """The total deadline holds whatever retries are left, counts the trip, and names what went wrong."""
    clock, counts = Clock(), Counts()
    patience = StoreSettings(watchdog_s=10.0, request_timeout_s=5.0, backoff_s=1.0, backoff_s_max=4.0)
    store = Retrying(
        Counting(Broken(_planted(), Unavailable("reset by peer", place="blob"), 10**6), counts),
        patience,
        counts,
        sleep=clock.sleep,
        clock=clock,
    )
    with pytest.raises(Watchdog, match="reset by peer") as caught:
        store.get_range("blob", 0, 10)
    assert not caught.value.retryable
    assert caught.value.place == "blob"
    assert clock.now <= 10.0 + 1.0
    assert counts.snapshot().watchdog == 1


def test_a_listing_goes_on_where_it_broke() -> None:
    """A listing that breaks in the middle yields every key once."""

    class Breaking(Around):
        broken = 0

        def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
            for count, meta in enumerate(self.inner.list(prefix, start_after=start_after)):
                if count == 7 and self.broken < 3:
                    self.broken += 1
                    raise Unavailable("page lost")
                yield meta

    store = wrap_store(Breaking(_planted()), FAST)
    assert [f"many/{i:02d}" for i in range(30)] == [meta.key for meta in store.list("many/")]
    assert counts_of(store).retries["client"] == 3


def test_at_most_so_many_requests_in_flight() -> None:
    """No more than in_flight_max requests run at once, and that many do."""
    lock, seen, now = threading.Lock(), [], [0]
    together = threading.Barrier(3)

    class Watching(Around):
        def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
            with lock:
                now[0] += 1
                seen.append(now[0])
            together.wait(timeout=30)
            data = self.inner.get_range(key, start, length, if_match=if_match)
            with lock:
                now[0] -= 1
            return data

    store = Retrying(Limited(Watching(_planted()), 3), replace(FAST, in_flight_max=12), Counts())
    store.get_ranges("blob", [(i, 1) for i in range(12)])
    assert max(seen) == 3


def test_a_listing_holds_no_slot() -> None:
    """Reading objects while listing works with one slot."""
    store = wrap_store(_planted(), replace(FAST, in_flight_max=1))
    assert [store.get(meta.key) for meta in store.list("many/")] == [b"x"] * 30


def test_short_bodies_never_pass() -> None:
    """A store that gives fewer bytes than asked for, always, ends in ShortRead."""
    store = wrap_store(Faulty(_planted(), [Fault("short", 1.0)], 0), replace(FAST, range_retries_max=2))
    with pytest.raises(ShortRead):
        store.get_range("blob", 0, 10)
    assert counts_of(store).retries["range"] == 2


def test_counts_are_of_the_wire() -> None:
    store = open_store("memory:counted")
    store.put("a", b"12345")
    store.get("a")
    store.get_ranges("a", [(0, 2), (1, 3)])
    counts = counts_of(store)
    assert counts.requests_by_verb == {"get": 1, "get_range": 2, "put": 1}
    assert (counts.requests, counts.bytes_read, counts.bytes_written) == (4, 10, 5)
    with pytest.raises(UsageError):
        counts_of(MemoryStore())
