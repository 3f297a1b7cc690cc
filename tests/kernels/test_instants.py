"""The merge of times against its plain twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels.instants import merge_times
from farm.values.arrays import readonly
from tests.reference import instants as twin


@given(st.lists(st.lists(st.integers(-50, 50), max_size=12).map(sorted), min_size=1, max_size=7))
def test_merge_equals_twin(lists: list[list[int]]) -> None:
    """Every time once, in order, and where each list then stands; also with empty lists and equal times."""
    times = readonly(np.array([time for one in lists for time in one], np.int64))
    stop = np.cumsum([len(one) for one in lists])
    start = stop - [len(one) for one in lists]
    out, ends = np.empty(times.size, np.int64), np.empty((times.size, len(lists)), np.int64)
    n = merge_times(times, readonly(stop), start.copy(), out, ends)
    assert (out[:n].tolist(), (ends[:n] - start).tolist()) == twin.merge_times(lists)
