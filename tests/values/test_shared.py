"""One thread makes a value, the others wait; failures are not kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from farm.values.errors import DataError
from farm.values.shared import Shared


def test_many_threads_make_a_value_once() -> None:
    shared: Shared[str, object] = Shared(4)
    made: list[object] = []
    gate = threading.Barrier(8)

    def make() -> object:
        made.append(object())
        return made[-1]

    def ask(_: int) -> object:
        gate.wait(timeout=10)
        return shared.get("k", make)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == set(made)
    assert len(made) == 1


def test_a_failure_is_told_to_all_and_tried_again() -> None:
    shared: Shared[str, int] = Shared(4)

    def fail() -> int:
        raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        shared.get("k", fail)
    assert shared.get("k", lambda: 7) == 7
    assert shared.get("k", fail) == 7


def test_the_oldest_goes_first() -> None:
    shared: Shared[str, str] = Shared(2)
    for name in ("a", "b", "a", "c"):
        shared.get(name, lambda name=name: name)
    assert shared.get("b", lambda: "again") == "b"
    assert shared.get("a", lambda: "again") == "again"
