"""The series store: read-only entries, within a byte budget. What threads see: ``tests/values/test_shared.py``."""

from __future__ import annotations

import numpy as np
import pytest

from farm.signals.store import Series, SeriesStore


def series(size: int) -> Series:
    return Series((np.zeros(size),))


def test_an_entry_is_made_once_and_is_read_only() -> None:
    store = SeriesStore(1 << 20)
    first = store.get(("a",), lambda: series(3))
    assert store.get(("a",), lambda: series(4)) is first
    assert store.stats().loads == 1
    with pytest.raises(ValueError, match="read-only"):
        first.arrays[0][0] = 1.0


def test_the_budget_holds_and_the_least_recently_used_goes() -> None:
    one = series(100).bytes
    store = SeriesStore(2 * one)
    for name in ("a", "b"):
        store.get((name,), lambda: series(100))
    store.get(("a",), lambda: series(100))
    store.get(("c",), lambda: series(100))
    assert store.stats().size_used == 2 * one and len(store) == 2 and store.stats().loads == 3
    store.get(("a",), lambda: series(100))
    assert store.stats().loads == 3
    store.get(("b",), lambda: series(100))
    assert store.stats().loads == 4


def test_what_exceeds_the_budget_is_made_and_not_kept() -> None:
    store = SeriesStore(10)
    assert store.get(("a",), lambda: series(100)).arrays[0].shape == (100,)
    assert len(store) == 0 and store.stats().size_used == 0
