"""Indicators of many rows in one call: the kernels equal their twins, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farm.kernels import rolling, windows
from farm.signals.demand import distinct
from farm.signals.series import CODES, Stretches, TickGrid, means_on_grid
from farm.values.arrays import F64, readonly
from tests.reference import windows as plain
from tests.signals.test_rolling import same_bits


def both(name: str, shape: tuple[int, int], *arguments: Any) -> tuple[F64, F64]:
    outs = np.full(shape, 7.0), np.full(shape, 7.0)
    getattr(plain, name)(*arguments, outs[0])
    getattr(windows, name)(*arguments, outs[1])
    return outs


def test_codes_are_those_of_the_twin() -> None:
    assert tuple(sorted(CODES, key=lambda name: CODES[name])) == plain.NAMES


@given(st.integers(0, 2**32), st.integers(0, 40), st.sampled_from((0.0, 0.1, 0.9)), st.sampled_from(sorted(CODES)))
def test_indicators_equal_their_twins(seed: int, bars: int, gaps: float, name: str) -> None:
    """Each row with its own source, period and begin, over gaps, and over numbers that overflow."""
    random = np.random.default_rng(seed)
    x = np.round(random.normal(0.0, 10.0, (3, bars)), 1)
    x[random.random(x.shape) < 0.05] = 1e308
    x[random.random(x.shape) < gaps] = math.nan
    count = int(random.integers(0, 5))
    rows = random.integers(0, 3, count), random.integers(2, 9, count), random.integers(0, bars + 1, count)
    a, b = both("indicator", (count, bars), CODES[name], readonly(x), *rows)
    assert all(same_bits(one, two) for one, two in zip(a, b, strict=True)) and not np.isinf(b).any()


@given(st.integers(0, 2**32), st.integers(0, 60), st.sampled_from((100, 10**9, 2**50)), st.booleans())
def test_means_equal_their_twins(seed: int, bars: int, size: int, is_off: bool) -> None:
    """On the grid and off it, for small ticks and for sums that are no float64."""
    random = np.random.default_rng(seed)
    x = random.integers(1, size, (3, bars)) / 100.0
    x[1] /= 7.0
    if is_off and bars:
        x[0, random.integers(0, bars)] += 0.001
    sums, off = np.empty((3, bars + 1), np.int64), np.empty((3, bars + 1), np.int64)
    for row in range(3):
        rolling.grid_sums(x[row], np.ones(bars), 100.0, sums[row], off[row])
    source, n, begin = random.integers(0, 3, 6), random.integers(1, 20, 6), random.integers(0, bars + 1, 6)
    a, b = both("means", (6, bars), readonly(x), sums, off, 100, source, n, begin)
    assert all(same_bits(one, two) for one, two in zip(a, b, strict=True))


SPLITS = ((1, 1), (3, 2), (1, 10), (7, 3), (0, 0), (99991, 99989), (2**40 + 1, 2**41 - 1))


@given(st.integers(0, 2**32), st.integers(1, 50), st.lists(st.sampled_from(SPLITS), min_size=1, max_size=4))
@example(7, 3, [(1, 1), (0, 0), (1, 1), (1, 1)])  # a stretch without a row
def test_restated_means_equal_their_twins(seed: int, bars: int, splits: list[tuple[int, int]]) -> None:
    """Windows over any number of stretches, exact whatever their factors; what is too large is said, and made alone."""
    random = np.random.default_rng(seed)
    edges = np.array([0, *sorted(random.integers(0, bars + 1, len(splits) - 1)), bars], np.int64)
    num, den = (np.array([split[side] for split in splits], np.int64) for side in (0, 1))
    ticks = np.concatenate(([0], np.cumsum(random.integers(1, 10**6, bars))))
    off, raw_off = (np.concatenate(([0], np.cumsum(random.random(bars) < share))) for share in (0.5, 0.02))
    n, begin = random.integers(1, 12, 4), random.integers(0, bars + 1, 4)
    outs = [np.full((4, bars), 7.0) for _ in range(2)]
    is_large = np.full((2, 4, bars), 9, np.uint8)
    for kernels, out, large in zip((plain, windows), outs, is_large, strict=True):
        kernels.restated_means(ticks, raw_off, off, 100, edges, num, den, n, begin, out, large)
    outs[0][is_large[1] == 1] = 7.0
    assert all(same_bits(one, two) for one, two in zip(*outs, strict=True))
    grid = TickGrid(off[None], off[None], 100, {0: Stretches(ticks, raw_off, edges, num, den)})
    if not raw_off[-1]:
        exact = np.full((4, bars), math.nan)
        windows.means(np.ones((1, bars)), off[None], off[None], 100, np.zeros(4, np.int64), n, begin, exact)
        plain.restated_means(ticks, raw_off, off, 100, edges, num, den, n, begin, exact, is_large[0])
        found = means_on_grid(np.ones((1, bars)), grid, begin, n)
        assert all(same_bits(one, two) for one, two in zip(exact, found, strict=True))


def test_some_restated_means_are_too_large() -> None:
    """The test above meets both kinds."""
    split = 2**40 + 1, 2**41 - 1
    edges, num, den = np.array([0, 3, 6]), np.array([1, split[0]]), np.array([1, split[1]])
    ticks, off = np.arange(0, 7_000_000, 1_000_000), np.arange(7)
    is_large = np.empty((1, 6), np.uint8)
    windows.restated_means(ticks, np.zeros(7, np.int64), off, 100, edges, num, den, np.array([2]), np.array([0]),
                           np.empty((1, 6)), is_large)  # fmt: skip
    assert is_large.any() and not is_large.all()


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_lags_equal_their_twin(seed: int, bars: int) -> None:
    random = np.random.default_rng(seed)
    x = readonly(random.normal(0.0, 1.0, (2, bars)))
    a, b = both("lag", (5, bars), x, random.integers(0, 2, 5), random.integers(0, 25, 5))
    assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("spread", [3, 2**21, 2**61])
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 30), columns=st.integers(1, 3))
def test_distinct_rows(spread: int, seed: int, rows: int, columns: int) -> None:
    """Where each stands first, and which it is: small numbers, large ones, and products beyond 64 bits."""
    random = np.random.default_rng(seed)
    table = random.choice(random.integers(0, spread, 4), (columns, rows)).astype(np.int64)
    firsts, which = distinct(*table)
    known = [tuple(row) for row in table.T.tolist()]
    assert [known[first] for first in firsts[which]] == known
    assert all(known.index(known[first]) == first for first in firsts.tolist())
    assert len(set(known)) == firsts.shape[0]
