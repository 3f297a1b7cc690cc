"""The series store: byte budget, one computation per entry, failures."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from farm.signals.store import Series, SeriesStore, nan_padded


def series(size: int) -> Series:
    return Series((np.zeros(size),))


def test_an_entry_is_made_once_and_is_read_only() -> None:
    store = SeriesStore(1 << 20)
    first = store.get(("a",), lambda: series(3))
    assert store.get(("a",), lambda: series(4)) is first
    assert store.computed == 1
    with pytest.raises(ValueError, match="read-only"):
        first.arrays[0][0] = 1.0


def test_the_budget_holds_and_the_least_recently_used_goes() -> None:
    one = series(100).bytes
    store = SeriesStore(2 * one)
    for name in ("a", "b"):
        store.get((name,), lambda: series(100))
    store.get(("a",), lambda: series(100))
    store.get(("c",), lambda: series(100))
    assert store.bytes_used == 2 * one and len(store) == 2 and store.computed == 3
    store.get(("a",), lambda: series(100))
    assert store.computed == 3
    store.get(("b",), lambda: series(100))
    assert store.computed == 4


def test_what_exceeds_the_budget_is_made_and_not_kept() -> None:
    store = SeriesStore(10)
    assert store.get(("a",), lambda: series(100)).arrays[0].shape == (100,)
    assert len(store) == 0 and store.bytes_used == 0


def test_threads_wait_for_the_one_that_computes() -> None:
    store, made, found = SeriesStore(1 << 20), [], []

    def make() -> Series:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return series(5)

    threads = [threading.Thread(target=lambda: found.append(store.get(("k",), make))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1 and len(found) == 8 and len(set(map(id, found))) == 1


def test_a_failure_is_the_caller_s_and_the_next_one_tries_again() -> None:
    store = SeriesStore(1 << 20)

    def fail() -> Series:
        raise ArithmeticError("no")

    for _ in range(2):
        with pytest.raises(ArithmeticError):
            store.get(("k",), fail)
    assert store.get(("k",), lambda: series(1)).arrays[0].shape == (1,)


def test_padding_goes_before() -> None:
    padded = nan_padded(np.array([1.0, 2.0]), 4)
    assert np.array_equal(padded, [np.nan, np.nan, 1.0, 2.0], equal_nan=True)
    assert np.isnan(nan_padded(np.empty(0), 2)).all()
