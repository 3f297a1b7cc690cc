"""Three-valued logic: the kernels equal their twins, and the laws hold (domain.md 2.2, obligation 9)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import logic
from farm.values.arrays import U8
from tests.reference import logic as plain

THREE: tuple[bool | None, ...] = (None, False, True)


def stored(truths: list[bool | None]) -> U8:
    out = np.empty((2, len(truths)), np.uint8)
    for t, truth in enumerate(truths):
        plain.store(out, t, truth)
    out.flags.writeable = False
    return out


def read(out: U8) -> list[bool | None]:
    assert not ((out[0] == 1) & (out[1] == 0)).any(), "true and not known"
    return [plain.read(out, t) for t in range(out.shape[1])]


def truths(size: int = 30) -> st.SearchStrategy[list[bool | None]]:
    return st.lists(st.sampled_from(THREE), max_size=size)


def pairs() -> st.SearchStrategy[list[tuple[float, float]]]:
    number = st.sampled_from((math.nan, -1.0, -0.0, 0.0, 1.0, 2.0))
    return st.lists(st.tuples(number, number), max_size=30)


@given(pairs(), st.integers(0, 3))
def test_comparisons_equal_their_twins(values: list[tuple[float, float]], relation: int) -> None:
    a, b = (np.array([pair[side] for pair in values], np.float64) for side in (0, 1))
    outs = [np.empty((2, len(values)), np.uint8) for _ in range(4)]
    plain.compare(a, b, relation, outs[0])
    logic.compare(a, b, relation, outs[1])
    plain.cross_up(a, b, outs[2])
    logic.cross_up(a, b, outs[3])
    assert read(outs[0]) == read(outs[1])
    assert read(outs[2]) == read(outs[3])


@given(truths(), st.integers(1, 6), st.booleans())
def test_windows_equal_their_twins(values: list[bool | None], n: int, is_all: bool) -> None:
    outs = [np.empty((2, len(values)), np.uint8) for _ in range(2)]
    plain.last(stored(values), n, is_all, outs[0])
    logic.last(stored(values), n, is_all, outs[1])
    assert read(outs[0]) == read(outs[1])


def test_tables_of_kleene() -> None:
    """All nine pairs, against the tables as they are printed."""
    pairs = list(itertools.product(THREE, THREE))
    a, b = (stored([pair[side] for pair in pairs]) for side in (0, 1))
    out = np.empty((2, 9), np.uint8)
    for is_all, law in ((True, plain.kleene_all), (False, plain.kleene_any)):
        logic.join(a, b, is_all, out)
        assert read(out) == [law(pair) for pair in pairs]
        twin = np.empty((2, 9), np.uint8)
        plain.join(a, b, is_all, twin)
        assert read(twin) == read(out)
    logic.join(a, b, True, out)
    assert read(out) == [None, False, None, False, False, False, None, False, True]
    logic.join(a, b, False, out)
    assert read(out) == [None, None, True, None, False, True, True, True, True]
    negated = np.empty((2, 3), np.uint8)
    logic.negate(stored(list(THREE)), negated)
    assert read(negated) == [None, True, False]


@given(truths(), truths())
def test_laws(first: list[bool | None], second: list[bool | None]) -> None:
    """De Morgan, double negation, commutation."""
    size = min(len(first), len(second))
    a, b = stored(first[:size]), stored(second[:size])

    def negate(x: U8) -> U8:
        out = np.empty((2, size), np.uint8)
        logic.negate(x, out)
        return out

    def join(x: U8, y: U8, is_all: bool) -> U8:
        out = np.empty((2, size), np.uint8)
        logic.join(x, y, is_all, out)
        return out

    assert np.array_equal(negate(join(a, b, True)), join(negate(a), negate(b), False))
    assert np.array_equal(negate(negate(a)), a)
    assert np.array_equal(join(a, b, False), join(b, a, False))


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
def test_crosses(a: list[float], b: list[float], expected: bool | None) -> None:
    out = np.empty((2, 2), np.uint8)
    logic.cross_up(np.array(a), np.array(b), out)
    assert read(out) == [None, expected]


@given(truths(), pairs())
def test_choice_equals_its_twin(conditions: list[bool | None], values: list[tuple[float, float]]) -> None:
    size = min(len(conditions), len(values))
    a, b = (np.array([pair[side] for pair in values[:size]], np.float64) for side in (0, 1))
    outs = [np.empty(size), np.empty(size)]
    plain.choose(stored(conditions[:size]), a, b, outs[0])
    logic.choose(stored(conditions[:size]), a, b, outs[1])
    assert np.array_equal(outs[0], outs[1], equal_nan=True)
