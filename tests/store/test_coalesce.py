"""Fewer fetches, the same bytes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from farm.store.coalesce import Fetch, coalesce

RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=30)


def test_by_hand() -> None:
    """Near ranges join, a wide gap and a full fetch part them, order does not matter."""
    ranges = [(100, 10), (0, 10), (15, 5), (110, 95)]
    assert coalesce(ranges, gap_bytes_max=5, fetch_bytes_max=100) == (
        Fetch(0, 20, (1, 2)),
        Fetch(100, 10, (0,)),
        Fetch(110, 95, (3,)),
    )
    assert coalesce([], gap_bytes_max=5, fetch_bytes_max=100) == ()


@given(RANGES, st.integers(0, 50), st.integers(1, 120))
def test_every_range_lies_whole_in_exactly_one_fetch(ranges: list[tuple[int, int]], gap: int, most: int) -> None:
    fetches = coalesce(ranges, gap_bytes_max=gap, fetch_bytes_max=most)
    assert sorted(part for fetch in fetches for part in fetch.parts) == list(range(len(ranges)))
    assert [fetch.start for fetch in fetches] == sorted(fetch.start for fetch in fetches)
    for fetch in fetches:
        inside = [ranges[part] for part in fetch.parts]
        assert fetch.start == min(start for start, _ in inside)
        assert fetch.start + fetch.length == max(start + length for start, length in inside)
        assert fetch.length <= most or fetch.length == max(length for _, length in inside)


@given(RANGES, st.integers(0, 50))
def test_gaps_are_bounded_and_neighbours_join(ranges: list[tuple[int, int]], gap: int) -> None:
    """Without a size limit, fetches lie more than the gap apart, and inside one no larger gap is bought."""
    fetches = coalesce(ranges, gap_bytes_max=gap, fetch_bytes_max=10**6)
    for left, right in itertools.pairwise(fetches):
        assert right.start - (left.start + left.length) > gap
    for fetch in fetches:
        stop = fetch.start
        for start, length in sorted(ranges[part] for part in fetch.parts):
            assert start - stop <= gap
            stop = max(stop, start + length)
