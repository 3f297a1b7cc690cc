"""The cut into blocks: exact cover, rectangles, near the wanted cost, and JSON that reads back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from farm.study.block import Block, cut, ranges_of, with_needs

NAMES = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
missing_cells = some.dictionaries(some.integers(0, 60), some.lists(some.sampled_from(NAMES), unique=True), max_size=40)
costs = some.fixed_dictionaries({name: some.integers(1, 500) for name in NAMES})


@given(missing_cells, costs, some.integers(1, 3000))
def test_blocks_cover_exactly_the_missing_cells(missing: dict, cost: dict, wanted: int) -> None:
    blocks = cut(missing, cost, block_cost_us=wanted)
    covered = [(trial, name) for block in blocks for trial in block.trials for name in block.instruments]
    expected = [(trial, name) for trial, names in missing.items() for name in names]
    assert sorted(expected) == sorted(covered)
    assert list(range(len(blocks))) == [block.index for block in blocks]
    for block in blocks:
        assert len(block.trials) * len(block.instruments) == block.cells
        work = len(block.trials) * sum(cost[name] for name in block.instruments)
        assert work <= wanted or len(block.trials) == 1 == len(block.instruments)
        assert list(block.instruments) == sorted(block.instruments)


@given(missing_cells, costs)
def test_the_cut_ignores_the_order_in_which_cells_are_named(missing: dict, cost: dict) -> None:
    shuffled = {trial: missing[trial][::-1] for trial in reversed(missing)}
    assert cut(missing, cost) == cut(shuffled, cost)


def test_a_trial_without_each_is_one_cell() -> None:
    (block,) = cut({0: [""], 1: [""]}, {"": 10})
    assert block == Block(0, (0, 1), (), 2, {})


def test_json_reads_back() -> None:
    blocks = with_needs(cut({0: ["A", "B"], 1: ["A", "B"], 7: ["A", "B"]}, {"A": 1, "B": 1}), {("A", "B"): {"s": 12}})
    assert list(blocks) == [Block.from_json(block.index, block.to_json()) for block in blocks]
    assert ranges_of(blocks[0].trials) == [[0, 1], [7, 7]]
