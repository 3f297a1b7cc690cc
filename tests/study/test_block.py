"""The cut into blocks: exact cover, rectangles, near the wanted cost, and what is stored of it."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from farm.study import block as cutting
from farm.study.block import Blocks, cut, ranges_of
from farm.study.missing import Missing, all_missing

SUBJECTS = 11
rows = some.lists(some.lists(some.booleans(), min_size=SUBJECTS, max_size=SUBJECTS), min_size=1, max_size=6)
costs = some.lists(some.integers(1, 500), min_size=SUBJECTS, max_size=SUBJECTS).map(lambda values: np.array(values))


@some.composite
def missing_cells(draw: some.DrawFn) -> Missing:
    """Ragged sets: several labels may have equal rows, some lack nothing, some stand for no trial."""
    found = np.array(draw(rows))
    labels = draw(some.lists(some.integers(0, len(found) - 1), max_size=60))
    return Missing(np.array(labels, np.int32), found)


def cells(blocks: Blocks) -> list[tuple[int, int]]:
    pairs = [(trial, place) for one in blocks for trial in one.trials.tolist() for place in one.positions.tolist()]
    return sorted(pairs)


@given(missing_cells(), costs, some.integers(1, 3000), some.integers(1, 50))
def test_blocks_cover_exactly_the_missing_cells(missing: Missing, cost: np.ndarray, wanted: int, most: int) -> None:
    blocks = cut(missing, cost, block_cost_us=wanted, cells_max=most)
    expected = [tuple(pair) for pair in np.argwhere(missing.rows[missing.groups]).tolist()]
    assert expected == cells(blocks)
    assert len(expected) == missing.count == blocks.cells.sum()
    assert [block.cells for block in blocks] == blocks.cells.tolist()
    assert list(range(len(blocks))) == [block.index for block in blocks]
    for block in blocks:
        assert np.all(np.diff(block.trials) > 0) and np.all(np.diff(block.positions) > 0)
        work = len(block.trials) * cost[block.positions].sum()
        assert work <= wanted or len(block.trials) == 1 == len(block.positions)
        assert block.cells <= most
    assert sum(strip.count for strip in blocks.strips()) == len(blocks)
    for strip in blocks.strips():
        members = [blocks[strip.first + at] for at in range(strip.count)]
        assert all(np.array_equal(strip.positions, block.positions) for block in members)
        assert strip.trials == sum(len(block.trials) for block in members)
        assert max(len(block.trials) for block in members) - min(len(block.trials) for block in members) <= 1


@given(missing_cells(), costs)
def test_the_cut_ignores_how_groups_are_labelled(missing: Missing, cost: np.ndarray) -> None:
    """One label per row, or one per trial."""
    alone = Missing(np.arange(len(missing.groups), dtype=np.int32), missing.rows[missing.groups])
    if len(missing.groups):
        assert cut(missing, cost) == cut(alone, cost)


@given(missing_cells(), costs, some.data())
def test_subjects_of_some_blocks(missing: Missing, cost: np.ndarray, data: some.DataObject) -> None:
    blocks = cut(missing, cost, block_cost_us=700)
    chosen = data.draw(some.sets(some.integers(0, len(blocks) - 1))) if len(blocks) else set()
    expected = sorted({place for index in chosen for place in blocks[index].positions.tolist()})
    assert expected == blocks.positions_of(chosen).tolist()


def test_trials_that_miss_the_same_lie_together() -> None:
    """Every other trial lacks all, the rest lack the last subject: two groups, the one with the first trial first."""
    missing = Missing(np.arange(8, dtype=np.int32) % 2, np.array([[True, True], [False, True]]))
    blocks = cut(missing, np.array([10, 10]))
    assert [(block.trials.tolist(), block.positions.tolist()) for block in blocks] == [
        ([0, 2, 4, 6], [0, 1]),
        ([1, 3, 5, 7], [1]),
    ]


def test_needs_are_asked_once_per_strip_of_the_same_subjects() -> None:
    asked: list[list[int]] = []

    def needs(positions: np.ndarray) -> dict[str, int]:
        asked.append(positions.tolist())
        return {"s": int(positions[0])}

    missing = Missing(np.array([0, 1], np.int32), np.array([[True, True], [True, False]]))
    blocks = cut(missing, np.array([9, 9]), block_cost_us=9)
    told = blocks.with_needs(needs)
    assert asked == [[0], [1]]
    assert [dict(block.needs) for block in told] == [{"s": 0}, {"s": 1}, {"s": 0}]


def test_needs_of_very_many_strips_are_not_told_apart() -> None:
    missing = Missing(np.array([0, 1], np.int32), np.array([[True, True], [True, False]]))
    blocks = cut(missing, np.array([9, 9]), block_cost_us=9)
    with mock.patch.object(cutting, "STRIPS_TOLD_MAX", 2):
        told = blocks.with_needs(lambda positions: {"s": len(positions)})
    assert [dict(one.needs) for one in told] == [{"s": 2}] * 3


def test_nothing_is_missing() -> None:
    blocks = cut(all_missing(0, 3), np.array([1, 1, 1]))
    assert (len(blocks), blocks.cells.sum(), list(blocks)) == (0, 0, [])
    assert len(cut(Missing(np.zeros(5, np.int32), np.zeros((1, 3), np.bool_)), np.array([1, 1, 1]))) == 0


def test_ranges() -> None:
    assert ranges_of([0, 1, 7, 8, 9]) == [[0, 1], [7, 9]]


def test_large_studies_have_larger_blocks() -> None:
    """Small studies are shared evenly; of large ones a block does more, up to four times as much."""
    cost = np.full(5, 400)
    for trials, cells in ((400, 200), (40_000, 1250), (4_000_000, 1250)):
        assert max(cut(all_missing(trials, 5), cost).cells.tolist()) <= cells
    assert len(cut(all_missing(400, 5), cost)) == 10
    assert len(cut(all_missing(40_000, 5), cost)) == 5 * 32
