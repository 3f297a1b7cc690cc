"""The merge of instants against its plain twin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels.instants import merge_instants
from farm.kernels.records import INSTANT
from farm.values.arrays import readonly
from tests.reference import instants as twin

TIMES = st.lists(st.integers(-40, 40), max_size=12).map(sorted)
EDGES = st.sets(st.integers(-40, 40), max_size=24).map(sorted)
PAUSES = EDGES.map(lambda edges: list(zip(edges[::2], edges[1::2], strict=False)))
NO_PAUSES = EDGES.map(lambda edges: list(pairwise(edges)))


@given(st.tuples(TIMES, TIMES, TIMES, TIMES), st.lists(st.one_of(PAUSES, NO_PAUSES), min_size=1, max_size=3))
def test_merge_equals_twin(events: tuple[list[int], ...], sessions: list[list[tuple[int, int]]]) -> None:
    """Every time once, in order, where each list then stands, and which sessions close or are under way; also with
    empty lists and equal times, and where sessions follow each other without a pause."""
    lists = [*events, *([close for _, close in each] for each in sessions)]
    times = readonly(np.array([time for one in lists for time in one], np.int64))
    opens = readonly(np.array([opened for each in sessions for opened, _ in each], np.int64))
    stop = np.cumsum([len(one) for one in lists])
    out = np.empty(times.size, INSTANT)
    n = merge_instants(times, opens, readonly(stop.copy()), stop - [len(one) for one in lists], out)
    found = [dict(zip(INSTANT.names or (), one, strict=True)) for one in out[:n].tolist()]
    assert found == twin.merge_instants(*events, *sessions)
