"""Blocks: the fixed partition of a study's missing cells, cut once at submission and stored with the study.

A block is a rectangle, some trials x some instruments, so that any attempt of any worker writes the same segment. The
cut is a pure function of which cells are missing and what they are expected to cost; worker count and cache state do
not enter. Steps:

1. Trials that miss the same instruments form one group (a study that overlaps another misses a ragged set of cells;
   within a group it is a rectangle).
2. A group is cut along its instruments first: a block should read few columns, so that the worker that holds them
   can do all of it. Cheap instruments share a block.
3. Each strip is cut along its trials into even pieces near the wanted cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

BLOCK_COST_US = 125_000
"""Wanted work of a block: long against a dispatch (about 1 ms), short enough that a study of a second is shared evenly
between workers. A lease of the scheduler takes several."""

CELLS_MAX = 4096
"""Most cells in one block: bounds the size of a segment whatever the cost model says."""


@dataclass(frozen=True)
class Block:
    """A rectangle of cells.

    Fields: index, the place in the study's list; trials, trial numbers, ascending; instruments, ids in bytewise order,
    or empty when the study has no ``each`` (then a trial is one cell); cells, their count; needs, bytes to read per
    shard (by sha256), for affinity.
    """

    index: int
    trials: tuple[int, ...]
    instruments: tuple[str, ...]
    cells: int
    needs: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"trials": ranges_of(self.trials), "instruments": list(self.instruments), "needs": dict(self.needs)}

    @classmethod
    def from_json(cls, index: int, value: Mapping[str, Any]) -> Block:
        trials = tuple(number for first, last in value["trials"] for number in range(first, last + 1))
        instruments = tuple(value["instruments"])
        return cls(index, trials, instruments, len(trials) * max(1, len(instruments)), dict(value["needs"]))


def ranges_of(numbers: Sequence[int]) -> list[list[int]]:
    """Return ascending ``numbers`` as [first, last] pairs of their consecutive runs."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def cut(
    missing: Mapping[int, Sequence[str]],
    cell_cost_us: Mapping[str, int],
    *,
    block_cost_us: int = BLOCK_COST_US,
    cells_max: int = CELLS_MAX,
) -> tuple[Block, ...]:
    """Return the blocks that cover exactly the missing cells, without their ``needs``.

    ``missing``: trial number -> instrument ids it lacks, or ("",) for the one cell of a trial without ``each``;
    ``cell_cost_us``: expected work per cell by the same ids.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for trial in sorted(missing):
        if missing[trial]:
            groups.setdefault(tuple(sorted(missing[trial], key=str.encode)), []).append(trial)
    blocks: list[Block] = []
    for instruments, trials in groups.items():
        for strip in _strips(instruments, len(trials), cell_cost_us, block_cost_us):
            cost_us = sum(cell_cost_us[name] for name in strip)
            trials_max = max(1, min(block_cost_us // max(1, cost_us), cells_max // len(strip)))
            for piece in _even(trials, trials_max):
                named = tuple(name for name in strip if name)
                blocks.append(Block(len(blocks), tuple(piece), named, len(piece) * len(strip), {}))
    return tuple(blocks)


def with_needs(blocks: Sequence[Block], needs: Mapping[tuple[str, ...], Mapping[str, int]]) -> tuple[Block, ...]:
    """Return the blocks with the bytes per shard of their instruments."""
    return tuple(replace(block, needs=dict(sorted(needs[block.instruments].items()))) for block in blocks)


def _strips(
    instruments: tuple[str, ...], trials: int, cell_cost_us: Mapping[str, int], block_cost_us: int
) -> list[list[str]]:
    """Cut instruments into runs whose work over all ``trials`` stays within one block; at least one each."""
    strips: list[list[str]] = []
    room = 0
    for name in instruments:
        cost = cell_cost_us[name] * trials
        if strips and cost <= room:
            strips[-1].append(name)
            room -= cost
        else:
            strips.append([name])
            room = block_cost_us - cost
    return strips


def _even(trials: list[int], length_max: int) -> list[list[int]]:
    """Cut ``trials`` into the fewest pieces of at most ``length_max``, their lengths differing by at most one."""
    count = -(-len(trials) // length_max)
    base, longer = divmod(len(trials), count)
    pieces, start = [], 0
    for index in range(count):
        stop = start + base + (1 if index < longer else 0)
        pieces.append(trials[start:stop])
        start = stop
    return pieces
