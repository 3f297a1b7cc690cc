"""The merge of instants against its plain twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels.instants import merge_instants
from farm.kernels.records import INSTANT
from farm.values.arrays import readonly
from tests.reference import instants as twin

TIMES = st.lists(st.integers(-40, 40), max_size=12).map(sorted)
CLOSES = st.sets(st.integers(-40, 40), max_size=12).map(sorted)


@given(st.tuples(TIMES, TIMES, TIMES, TIMES), st.lists(CLOSES, min_size=1, max_size=3))
def test_merge_equals_twin(events: tuple[list[int], ...], closes: list[list[int]]) -> None:
    """Every time once, in order, and where each list then stands; also with empty lists and equal times."""
    lists = [*events, *closes]
    times = readonly(np.array([time for one in lists for time in one], np.int64))
    stop = np.cumsum([len(one) for one in lists])
    out = np.empty(times.size, INSTANT)
    n = merge_instants(times, readonly(stop.copy()), stop - [len(one) for one in lists], out)
    found = [dict(zip(INSTANT.names or (), one, strict=True)) for one in out[:n].tolist()]
    assert found == twin.merge_instants(*events, *closes)
