"""One suite, every store: what the rest of the farm takes for granted."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from farm.store.base import ObjectMeta
from farm.store.probe import probe_conditional_put
from farm.values.errors import AlreadyExists, BucketNotFound, NotFound, PreconditionFailed, RangePastEnd, UsageError
from tests.store.conftest import Bench

KEYS = ["a-b/k", "a.b", "a/b/c", "a/b=1", "a0", "aB/x", "b", "refs/main/0000000001.json", "refs/main/0000000002.json"]


def test_what_is_put_is_what_others_see(bench: Bench) -> None:
    """put and put_if_absent store the very bytes, empty objects too."""
    for key, data in {"x/one": b"\x00\xff" * 1000, "x/empty": b"", "y": b"1"}.items():
        bench.store.put_if_absent(key, data)
        assert data == bench.peek(key)
        assert data == bench.store.get(key)
        assert len(data) == bench.store.head(key).size
    bench.store.put("y", b"2 is longer")
    assert bench.peek("y") == b"2 is longer"
    assert bench.keys() == ["x/empty", "x/one", "y"]


def test_put_if_absent_never_replaces(bench: Bench) -> None:
    """A second put_if_absent fails, whatever its bytes, and the first object stays."""
    bench.store.put_if_absent("k", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(AlreadyExists) as caught:
            bench.store.put_if_absent("k", data)
        assert "k" in caught.value.place
    assert bench.peek("k") == b"first"


def test_one_of_many_racers_wins(bench: Bench) -> None:
    """put_if_absent is atomic: 8 racers, one winner, and its bytes are the object's."""
    for race in range(5):
        ready = threading.Barrier(8)

        def run(racer: int, key: str = f"race/{race}", ready: threading.Barrier = ready) -> bool:
            ready.wait(timeout=30)
            try:
                bench.store.put_if_absent(key, b"%d" % racer * 2000)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            wins = list(pool.map(run, range(8)))
        assert wins.count(True) == 1
        assert bench.peek(f"race/{race}") == b"%d" % wins.index(True) * 2000


def test_probe_finds_the_store_sound_and_leaves_nothing(bench: Bench) -> None:
    probe_conditional_put(bench.store)
    assert bench.keys() == []


def test_a_missing_object_is_not_found(bench: Bench) -> None:
    """Every read of a key without object is NotFound (not BucketNotFound) and names the key."""
    bench.store.put("other", b"x")
    for read in (bench.store.head, bench.store.get, lambda key: bench.store.get_range(key, 0, 1)):
        with pytest.raises(NotFound) as caught:
            read("no/such-key")
        assert not isinstance(caught.value, BucketNotFound)
        assert "no/such-key" in caught.value.place
    bench.store.delete("no/such-key")
    assert bench.keys() == ["other"]


def test_delete_is_idempotent(bench: Bench) -> None:
    bench.plant("a/k", b"x")
    bench.store.delete("a/k")
    bench.store.delete("a/k")
    assert bench.keys() == []
    bench.store.put_if_absent("a/k", b"again")
    assert bench.peek("a/k") == b"again"


def test_ranges_are_exact(bench: Bench) -> None:
    """get_range and get_ranges give the bytes that slicing gives, in the order asked for."""
    data = bytes(range(256)) * 40
    bench.plant("blob", data)
    ranges = [(0, 1), (len(data) - 1, 1), (100, 5000), (0, len(data)), (7, 3), (100, 5000)]
    assert [data[start : start + length] for start, length in ranges] == bench.store.get_ranges("blob", ranges)
    assert data[100:5100] == bench.store.get_range("blob", 100, 5000)
    assert bench.store.get_ranges("blob", []) == []


@pytest.mark.parametrize(("start", "length"), [(10, 1), (9, 2), (0, 11), (500, 20)])
def test_a_range_past_the_end_is_an_error(bench: Bench, start: int, length: int) -> None:
    """Never fewer bytes: a range that the object does not hold is RangePastEnd, which no retry can cure."""
    bench.plant("ten", b"0123456789")
    with pytest.raises(RangePastEnd) as caught:
        bench.store.get_range("ten", start, length)
    assert not caught.value.retryable
    assert "ten" in caught.value.place
    with pytest.raises(RangePastEnd):
        bench.store.get_ranges("ten", [(0, 5), (start, length)])


def test_nonsense_ranges_are_refused(bench: Bench) -> None:
    bench.plant("ten", b"0123456789")
    for start, length in ((-1, 2), (0, 0), (3, -1)):
        with pytest.raises(ValueError, match="not a range"):
            bench.store.get_range("ten", start, length)


def test_a_stale_etag_is_refused(bench: Bench) -> None:
    """if_match passes while the object is the same, and fails once somebody replaced it, even by equal length."""
    bench.plant("k", b"old bytes!")
    etag = bench.store.head("k").etag
    assert bench.store.get_range("k", 4, 5, if_match=etag) == b"bytes"
    bench.plant("k", b"new bytes!")
    with pytest.raises(PreconditionFailed):
        bench.store.get_range("k", 4, 5, if_match=etag)
    with pytest.raises(PreconditionFailed):
        bench.store.get_ranges("k", [(0, 1), (4, 5)], if_match=etag)
    assert bench.store.get_range("k", 4, 5, if_match=bench.store.head("k").etag) == b"bytes"


def test_list_is_sorted_bytewise(bench: Bench) -> None:
    """Listings come in bytewise order of the whole key ('-' and '.' sort before '/'), with sizes and etags."""
    for key in reversed(KEYS):
        bench.plant(key, key.encode())
    listed = list(bench.store.list(""))
    assert sorted(KEYS) == [meta.key for meta in listed]
    assert listed == [bench.store.head(key) for key in sorted(KEYS)]
    assert listed[0] == ObjectMeta("a-b/k", 5, listed[0].etag)


@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "a/b", "a/b/", "a/b/c", "refs/main/", "refs/mai", "refs/main/00", "zz", "zz/"]
)
def test_a_prefix_is_text(bench: Bench, prefix: str) -> None:
    """list(prefix, start_after) equals filtering all keys, for every start."""
    for key in KEYS:
        bench.plant(key, b"x")
    for start_after in ("", "a", "a/b", "a/b/c", "a0", "refs/main/0000000001.json", "zzz"):
        expected = [key for key in sorted(KEYS) if key.startswith(prefix) and key > start_after]
        assert expected == [meta.key for meta in bench.store.list(prefix, start_after=start_after)]


def test_list_of_many(bench: Bench) -> None:
    """More objects than one page of a listing holds: none is lost at the seams."""
    keys = [f"many/{i:05d}" for i in range(1203)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: bench.plant(key, b""), keys))
    assert keys == [meta.key for meta in bench.store.list("many/")]
    assert keys[1100:] == [meta.key for meta in bench.store.list("many/", start_after=keys[1099])]


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "ä", "a\n", "x" * 901]
)
def test_keys_outside_the_grammar_never_reach_the_store(bench: Bench, key: str) -> None:
    for use in (bench.store.get, bench.store.head, bench.store.delete, lambda k: bench.store.put(k, b"")):
        with pytest.raises(UsageError):
            use(key)
    assert bench.keys() == []


def test_many_threads_share_one_store(bench: Bench) -> None:
    """Concurrent reads and writes of different keys do not mix their bytes."""

    def work(i: int) -> bool:
        data = b"%04d" % i * 500
        bench.store.put_if_absent(f"t/{i}", data)
        return (
            bench.store.get(f"t/{i}") == data and bench.store.get_ranges(f"t/{i}", [(0, 4), (4, 4)]) == [data[:4]] * 2
        )

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(60)))


def test_when_an_object_was_written(bench: Bench) -> None:
    """By the store's clock, which is this machine's here: in a listing and asked for by itself; known anew when written
    anew, and no part of what the object is."""
    before = time.time_ns() - 2_000_000_000
    bench.store.put("k", b"1")
    [listed] = bench.store.list("k")
    head = bench.store.head("k")
    assert before < listed.modified_ns < time.time_ns() + 2_000_000_000
    assert abs(head.modified_ns - listed.modified_ns) < 1_000_000_000
    assert head == ObjectMeta("k", 1, head.etag)
