"""Three-valued logic on bit masks: the kernels equal their twins, and the laws hold (domain.md 2.2, obligation 9)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import masks
from farm.values.arrays import F64, I64, U64, readonly
from tests.reference import logic
from tests.reference import masks as plain

THREE: tuple[bool | None, ...] = (None, False, True)
NUMBERS = np.array([math.nan, -1.0, -0.0, 0.0, 1.0, 2.0])


def words_of(n: int) -> int:
    return (n + 63) // 64


def stored(truths: list[bool | None]) -> tuple[U64, U64]:
    """One row of truths as value and known (1, w)."""
    bits = np.array([[truth is True for truth in truths], [truth is not None for truth in truths]], np.uint8)
    rows = np.empty((2, words_of(len(truths))), np.uint64)
    plain.store(rows[0], bits[0])
    plain.store(rows[1], bits[1])
    return readonly(rows[:1].copy()), readonly(rows[1:].copy())


def read(value: U64, known: U64, n: int, row: int = 0) -> list[bool | None]:
    assert not (value & ~known).any(), "true and not known"
    bits = plain.truth(value[row], known[row], n)
    return [logic.read(bits, t) for t in range(n)]


class Rows:
    """Random rows of numbers and of truths, and indexes into them."""

    def __init__(self, seed: int, n: int) -> None:
        random = np.random.default_rng(seed)
        self.n, self.words = n, words_of(n)
        self.out = int(random.integers(0, 4))
        self.low = int(random.integers(0, self.words + 1))
        self.numbers = [readonly(random.choice(NUMBERS, (3, n))) for _ in range(2)]
        self.index: list[I64] = [random.integers(0, 3, self.out) for _ in range(3)]
        self.truths = []
        for _ in range(2):
            made = [stored(random.choice(np.array(THREE, object), n).tolist()) for _ in range(3)]
            self.truths.append(tuple(np.concatenate([one[side] for one in made]) for side in (0, 1)))
        self.sizes = random.integers(1, 2 * n + 2, self.out)

    def empty(self) -> list[U64]:
        return [np.full((self.out, self.words), 7, np.uint64) for _ in range(2)]

    def known(self, kernels: Any, side: int, low: int = 0) -> U64:
        found = np.full((3, self.words), 7, np.uint64)
        kernels.known(self.numbers[side], low, found)
        return found


def same(name: str, rows: Rows, *arguments: Any) -> bool:
    outs = [rows.empty(), rows.empty()]
    getattr(plain, name)(*arguments, *outs[0])
    getattr(masks, name)(*arguments, *outs[1])
    assert not (outs[1][0] & ~outs[1][1]).any(), "true and not known"
    return all(np.array_equal(a, b) for a, b in zip(*outs, strict=True))


@given(st.integers(0, 2**32), st.sampled_from((0, 1, 5, 63, 64, 65, 128, 130)))
def test_kernels_equal_their_twins(seed: int, n: int) -> None:
    """Rows of every length around a word, any low word, any row for any output."""
    rows = Rows(seed, n)
    a, b = rows.numbers
    ia, ib, ic = rows.index
    assert np.array_equal(rows.known(plain, 0, rows.low), rows.known(masks, 0, rows.low))
    sides = (a, rows.known(masks, 0), ia, b, rows.known(masks, 1), ib)
    for relation in (masks.GT, masks.GE):
        assert same("compare", rows, *sides, relation, rows.low)
    assert same("cross_up", rows, *sides, rows.low)
    (value, known), (other, other_known) = rows.truths
    for is_all in (False, True):
        assert same("last", rows, value, known, ia, rows.sizes, is_all, n)
        outs = [[value[ia], known[ia]], [value[ia], known[ia]]]
        plain.join(other, other_known, ib, is_all, *outs[0])
        masks.join(other, other_known, ib, is_all, *outs[1])
        assert all(np.array_equal(one, two) for one, two in zip(*outs, strict=True))
    chosen: list[F64] = [np.full((rows.out, n), 7.0) for _ in range(2)]
    for kernels, out in zip((plain, masks), chosen, strict=True):
        kernels.choose(value, known, ic, a, ia, b, ib, out)
    assert np.array_equal(*chosen, equal_nan=True)


def join(a: list[bool | None], b: list[bool | None], is_all: bool) -> list[bool | None]:
    value, known = (part.copy() for part in stored(a))
    masks.join(*stored(b), np.zeros(1, np.int64), is_all, value, known)
    return read(value, known, len(a))


def test_tables_of_kleene() -> None:
    """All nine pairs, against the tables as they are printed."""
    pairs = list(itertools.product(THREE, THREE))
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    assert join(a, b, True) == [None, False, None, False, False, False, None, False, True]
    assert join(a, b, False) == [None, None, True, None, False, True, True, True, True]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 3.0], [2.0, 2.0], True),
        ([2.0, 3.0], [2.0, 2.0], True),  # touching is not being above
        ([3.0, 3.0], [2.0, 2.0], False),
        ([1.0, 2.0], [2.0, 2.0], False),
        ([math.nan, 3.0], [2.0, 2.0], None),
        ([1.0, math.nan], [2.0, 2.0], None),
    ],
)
@pytest.mark.parametrize("before", [0, 62, 63, 100])
def test_crosses(a: list[float], b: list[float], expected: bool | None, before: int) -> None:
    """Also over the edge of a word."""
    x, y = (np.array([[math.nan] * before + side]) for side in (a, b))
    known = []
    for side in (x, y):
        known.append(np.empty((1, words_of(before + 2)), np.uint64))
        masks.known(side, 0, known[-1])
    out = [np.empty_like(known[0]) for _ in range(2)]
    first = np.zeros(1, np.int64)
    masks.cross_up(x, known[0], first, y, known[1], first, 0, *out)
    assert read(*out, before + 2)[before:] == [None, expected]
