"""The merge equals a stable sort of everything; what breaks the order is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.feed.merge import merge_order
from farm.kernels import merge as kernel
from farm.kernels.reference import merge as reference
from farm.values.errors import DataError

# Few distinct values in each field, so that ties in every prefix of the key are common.
KEY = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), st.integers(0, 2), st.integers(0, 3))
TAGGED = st.lists(st.tuples(KEY, st.integers(0, 5)), max_size=60)


def _arrays(sources: list[list[tuple[int, ...]]]) -> tuple[np.ndarray, ...]:
    rows = [key for source in sources for key in source]
    columns = np.array(rows, np.int64).reshape(-1, 5)
    dtypes = (np.int64, np.int8, np.int32, np.int32, np.int64)
    offsets = np.cumsum([0, *(len(source) for source in sources)]).astype(np.int64)
    keys = [np.ascontiguousarray(columns[:, i].astype(dtype)) for i, dtype in enumerate(dtypes)]
    for array in (*keys, offsets):
        array.flags.writeable = False
    return (*keys, offsets)


def _dealt(tagged: list[tuple[tuple[int, ...], int]]) -> list[list[tuple[int, ...]]]:
    """Distinct keys dealt to six sources by their tag, each source sorted."""
    first = dict(reversed(tagged))
    return [sorted(key for key, tag in first.items() if tag == source) for source in range(6)]


@given(TAGGED)
def test_equals_a_stable_sort(tagged: list[tuple[tuple[int, ...], int]]) -> None:
    """Rows tagged with their source come out as sorting all of them would put them, ties in ts, phase, ... included."""
    sources = _dealt(tagged)
    rows = [(key, source) for source, keys in enumerate(sources) for key in keys]
    order = merge_order(*_arrays(sources))
    assert sorted(rows, key=lambda row: row[0]) == [rows[i] for i in order]
    assert not order.flags.writeable


@given(st.lists(st.lists(KEY, max_size=12), min_size=1, max_size=6))
def test_kernel_equals_its_twin(sources: list[list[tuple[int, ...]]]) -> None:
    """On any input, unsorted and with duplicates too: same order up to the same stop."""
    arrays = _arrays(sources)
    out, expected = (np.empty(len(arrays[0]), np.int64) for _ in range(2))
    stopped = reference.merge_order(*arrays, expected)
    assert stopped == kernel.merge_order(*arrays, out)
    known = len(out) if stopped == reference.COMPLETE else stopped
    assert expected[:known].tolist() == out[:known].tolist()


@given(st.lists(st.lists(KEY, max_size=8), min_size=1, max_size=5))
def test_accepts_exactly_what_is_in_order(sources: list[list[tuple[int, ...]]]) -> None:
    """DataError if and only if some source does not rise strictly or two rows share a key."""
    rows = [key for source in sources for key in source]
    is_lawful = all(source == sorted(source) for source in sources) and len(set(rows)) == len(rows)
    try:
        order = merge_order(*_arrays(sources))
    except DataError:
        assert not is_lawful
    else:
        assert is_lawful
        assert sorted(rows) == [rows[i] for i in order]


def test_faults_are_named() -> None:
    """The error names source and row of both rows, and what is wrong between them."""
    a, b = (10, 2, 1, 0, 0), (20, 2, 1, 0, 1)
    with pytest.raises(DataError, match="comes after") as caught:
        merge_order(*_arrays([[(5, 2, 1, 1, 0)], [b, a]]), names=["bars of A", "bars of B"])
    assert caught.value.place == "bars of B, row 1"
    with pytest.raises(DataError, match="is there twice") as caught:
        merge_order(*_arrays([[a, b], [b]]), names=["bars of A", "bars of B"])
    assert "bars of" in caught.value.place


def test_many_sources() -> None:
    """3,000 sources, some of them empty, with all their rows at few instants."""
    rng = np.random.default_rng(7)
    sources = [
        [(int(ts), 2, 1, source, row) for row, ts in enumerate(sorted(rng.integers(0, 50, rng.integers(0, 8))))]
        for source in range(3000)
    ]
    rows = [key for source in sources for key in source]
    assert sorted(rows) == [rows[i] for i in merge_order(*_arrays(sources))]
    assert merge_order(*_arrays([[], []])).tolist() == []
