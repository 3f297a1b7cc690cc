"""Chronological buckets: the boundary, the embargo, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from farm.spec.spec import Split
from farm.study.split import buckets_of, sessions_in_sample
from farm.values.errors import SpecError


def test_the_share_is_the_decimal_that_was_written() -> None:
    """0.29 x 100 in binary floating point is 28.999..., which would move the boundary by a session."""
    assert sessions_in_sample(0.29, 100) == 29
    assert int(0.29 * 100) == 28


@given(some.integers(1, 99), some.integers(2, 3000), some.integers(0, 20))
def test_buckets(percent: int, sessions: int, embargo: int) -> None:
    boundary = int(Fraction(percent, 100) * sessions)
    assume(embargo < boundary and boundary + embargo < sessions)
    buckets = buckets_of(Split("chronological", percent / 100, embargo), sessions)
    assert buckets.names == ("full", "is", "oos")
    assert buckets.stretches == ((0, sessions), (0, boundary - embargo), (boundary + embargo, sessions))
    assert buckets.stretch("oos") == (boundary + embargo, sessions)


@pytest.mark.parametrize(("share", "embargo", "sessions"), [(0.1, 0, 9), (0.5, 5, 10), (0.9, 1, 10)])
def test_an_empty_bucket_is_refused(share: float, embargo: int, sessions: int) -> None:
    with pytest.raises(SpecError, match=r"study\.split: the .* bucket is empty"):
        buckets_of(Split("chronological", share, embargo), sessions)


def test_without_a_split_there_is_the_whole_run() -> None:
    buckets = buckets_of(None, 9)
    assert (buckets.names, buckets.stretches, buckets.stretch("is")) == (("full",), ((0, 9),), None)
