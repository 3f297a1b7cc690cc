"""Blocks: the fixed partition of a round's missing cells, cut once and stored with the round.

A block is a rectangle, some trials x some subjects, so that any attempt of any worker writes the same segment. The cut
is a pure function of which cells are missing and what they are expected to cost; worker count and cache state do not
enter. Steps:

1. Trials that miss the same subjects form one group (a study that overlaps another misses a ragged set of cells; within
   a group it is a rectangle).
2. A group is cut along its subjects first, into strips: a block should read few columns, so that the worker that holds
   them can do all of it. Cheap subjects share a strip.
3. Each strip is cut along its trials into even pieces near the wanted cost: its blocks, one after the other.

What is stored are groups and strips; a block is worked out when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from farm.study.missing import Missing
from farm.values.arrays import BOOL, I32, I64, U8

BLOCK_COST_US = 125_000
"""Wanted work of a block: long against a dispatch (about 1 ms), short enough that a study of a second is shared evenly
between workers. A lease of the scheduler takes several."""

BLOCKS_ENOUGH = 128
"""So many blocks keep workers busy to the end; of a study that would have more of them, a block is larger: each costs a
dispatch, a segment, an extent."""

CELLS_MAX = 4096
"""Most cells in one block: bounds the size of a segment whatever the cost model says."""

STRIPS_TOLD_MAX = 50_000
"""Most strips whose needs are told apart."""


@dataclass(frozen=True, eq=False)
class Block:
    """A rectangle of cells.

    index:     the place among the round's blocks.
    trials:    int32 (t,), trial numbers, ascending.
    positions: int32 (s,), places of its subjects among those of the study, ascending.
    needs:     bytes to read per shard (by sha256), for affinity.
    """

    index: int
    trials: I32
    positions: I32
    needs: Mapping[str, int]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.trials) * len(self.positions)


@dataclass(frozen=True)
class Strip:
    """The blocks ``first .. first + count`` of one group of trials on the same subjects."""

    first: int
    count: int
    trials: int
    positions: I32
    needs: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Blocks(Sequence[Block]):
    """The blocks of a round.

    trials:      int32 (m,), trials with missing cells, group by group, ascending in each.
    group_stop:  int32 (g,), where each group ends in ``trials``.
    rows:        uint8 (g, ceil(s / 8)), bits, little-endian: those of the ``subjects`` that the group misses.
    strip_group: int32 (n,), the group of each strip.
    strip_stop:  int32 (n,), where it ends among the subjects that its group misses; it begins where the last one ended.
    pieces:      int32 (n,), its blocks.
    strip_needs: int32 (n,), an index into ``needs``: bytes to read per shard.
    """

    subjects: int
    trials: I32
    group_stop: I32
    rows: U8
    strip_group: I32
    strip_stop: I32
    pieces: I32
    strip_needs: I32
    needs: tuple[Mapping[str, int], ...]

    @cached_property
    def _stop(self) -> I64:
        """Where the blocks of each strip end."""
        return np.cumsum(self.pieces, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._stop[-1]) if len(self._stop) else 0

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"no block {index} of {len(self)}")
        strip = int(np.searchsorted(self._stop, index, side="right"))
        trials, count = self._trials(strip), int(self.pieces[strip])
        piece = index - int(self._stop[strip]) + count
        base, longer = divmod(len(trials), count)
        start = piece * base + min(piece, longer)
        members = trials[start : start + base + (piece < longer)]
        return Block(index, members, self.positions(strip), self.needs[self.strip_needs[strip]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Blocks):
            return NotImplemented
        mine, theirs = vars(self), vars(other)
        names = self.__dataclass_fields__
        return all(
            np.array_equal(mine[name], theirs[name])
            if isinstance(mine[name], np.ndarray)
            else mine[name] == theirs[name]
            for name in names
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def cells(self) -> I64:
        """Cells of each block, (blocks,)."""
        of_group = np.diff(self.group_stop, prepend=0)
        length = self._lengths
        trials = of_group[self.strip_group]
        base, longer = np.divmod(trials, np.maximum(self.pieces, 1))
        strip = np.repeat(np.arange(len(self.pieces)), self.pieces)
        piece = np.arange(len(self)) - np.repeat(self._stop - self.pieces, self.pieces)
        found: I64 = (base[strip] + (piece < longer[strip])).astype(np.int64) * length[strip]
        return found

    @cached_property
    def _strip_start(self) -> I32:
        """Where each strip begins among the subjects that its group misses."""
        start = np.append(np.zeros(1, np.int32), self.strip_stop[:-1])[: len(self.strip_stop)]
        is_first = np.diff(self.strip_group, prepend=-1) != 0
        return np.where(is_first, 0, start).astype(np.int32)

    @property
    def _lengths(self) -> I32:
        """Subjects of each strip."""
        return self.strip_stop - self._strip_start

    def _trials(self, strip: int) -> I32:
        group = int(self.strip_group[strip])
        start = int(self.group_stop[group - 1]) if group else 0
        return self.trials[start : int(self.group_stop[group])]

    def positions(self, strip: int) -> I32:
        """Return the places of the subjects of a strip."""
        missed = np.flatnonzero(self.row(int(self.strip_group[strip])))
        return missed[int(self._strip_start[strip]) : int(self.strip_stop[strip])].astype(np.int32)

    def row(self, group: int) -> BOOL:
        """Return which subjects a group misses, (subjects,)."""
        return np.unpackbits(self.rows[group], count=self.subjects, bitorder="little").astype(np.bool_)

    def strips(self) -> Iterator[Strip]:
        """Yield the strips in order."""
        for strip, (stop, count) in enumerate(zip(self._stop.tolist(), self.pieces.tolist(), strict=True)):
            needs = self.needs[self.strip_needs[strip]]
            yield Strip(stop - count, count, len(self._trials(strip)), self.positions(strip), needs)

    def positions_of(self, blocks: Iterable[int]) -> I32:
        """Return the places of all subjects of these blocks, ascending."""
        strips = np.unique(np.searchsorted(self._stop, np.fromiter(blocks, np.int64), side="right"))
        seen = np.zeros(self.subjects, np.bool_)
        for strip in strips.tolist():
            seen[self.positions(strip)] = True
        return np.flatnonzero(seen).astype(np.int32)

    def with_needs(self, needs: Callable[[I32], Mapping[str, int]]) -> Blocks:
        """Return the blocks with the bytes per shard that ``needs`` tells of the positions of each strip.

        Beyond ``STRIPS_TOLD_MAX`` strips all are told the same, the needs of all subjects: so ragged a set of cells has
        nothing that affinity could keep together, and the record stays small.
        """
        if len(self.pieces) > STRIPS_TOLD_MAX:
            return replace(self, needs=(needs(np.arange(self.subjects, dtype=np.int32)),))
        number: dict[bytes, int] = {}
        found: list[Mapping[str, int]] = []
        of_strip = []
        for strip in range(len(self.pieces)):
            positions = self.positions(strip)
            of_strip.append(number.setdefault(positions.tobytes(), len(number)))
            if len(number) > len(found):
                found.append(needs(positions))
        return replace(self, strip_needs=np.array(of_strip, np.int32), needs=tuple(found))


def ranges_of(numbers: Sequence[int]) -> list[list[int]]:
    """Return ascending ``numbers`` as [first, last] pairs of their consecutive runs."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def cut(missing: Missing, cell_cost_us: I64, *, block_cost_us: int | None = None, cells_max: int = CELLS_MAX) -> Blocks:
    """Return the blocks that cover exactly the missing cells, without their ``needs``.

    ``cell_cost_us``: int64 (s,), expected work of a cell on each subject. ``block_cost_us``: wanted work of a block;
    where nobody says, that of BLOCK_COST_US, and up to four times that where there is enough work for everybody.
    """
    order, stops, rows = _groups(missing)
    if block_cost_us is None:
        work_us = int(np.diff(stops, prepend=0) @ (rows @ cell_cost_us))
        block_cost_us = min(max(BLOCK_COST_US, work_us // BLOCKS_ENOUGH), 4 * BLOCK_COST_US)
    strips: list[tuple[int, int, int]] = []
    start = 0
    for group, stop in enumerate(stops.tolist()):
        costs_us = cell_cost_us[rows[group]]
        found = _strips(costs_us, stop - start, block_cost_us=block_cost_us, cells_max=cells_max)
        strips += [(group, *strip) for strip in found]
        start = stop
    columns = np.array(strips, np.int32).reshape(-1, 3)
    return Blocks(
        subjects=missing.rows.shape[1],
        trials=order,
        group_stop=stops,
        rows=np.packbits(rows, axis=1, bitorder="little"),
        strip_group=columns[:, 0].copy(),
        strip_stop=columns[:, 1].copy(),
        pieces=columns[:, 2].copy(),
        strip_needs=np.zeros(len(columns), np.int32),
        needs=({},),
    )


def _groups(missing: Missing) -> tuple[I32, I32, BOOL]:
    """Return the trials with missing cells by group, where each group ends, and its row; by the first of its trials."""
    labels = missing.groups
    if len(missing.rows) == 1:  # as when nothing is stored: no array of millions is sorted for that
        count = len(labels) if missing.rows.any() else 0
        some = min(count, 1)
        return np.arange(count, dtype=np.int32), np.full(some, count, np.int32), missing.rows[:some]
    rows, of = np.unique(np.packbits(missing.rows, axis=1, bitorder="little"), axis=0, return_inverse=True)
    row_of, first = np.full(len(rows), -1, np.int64), np.full(len(rows), len(labels), np.int64)
    row_of[of] = np.arange(len(of))
    label = of.astype(np.int32)[labels]
    np.minimum.at(first, label[::-1], np.arange(len(labels))[::-1])
    lacks = missing.rows[row_of].any(axis=1) & (first < len(labels))
    chosen = np.flatnonzero(lacks)
    chosen = chosen[np.argsort(first[chosen], kind="stable")]
    place = np.full(len(rows), len(chosen), np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    rank = place[label]
    counts = np.bincount(rank, minlength=len(chosen) + 1)[: len(chosen)]
    order = np.argsort(rank, kind="stable")[: int(counts.sum())].astype(np.int32)
    return order, np.cumsum(counts).astype(np.int32), missing.rows[row_of[chosen]]


def _strips(costs_us: I64, trials: int, *, block_cost_us: int, cells_max: int) -> list[tuple[int, int]]:
    """Cut subjects of these costs into runs whose work over all ``trials`` stays within one block, at least one each.

    Returns (where the run ends, its blocks).
    """
    total = np.cumsum(costs_us)
    found = []
    start = spent = 0
    while start < len(costs_us):
        stop = int(np.searchsorted(total, spent + block_cost_us // trials, side="right"))
        stop = min(max(stop, start + 1), start + cells_max)
        cost_us = int(total[stop - 1]) - spent
        trials_max = max(1, min(block_cost_us // max(1, cost_us), cells_max // (stop - start)))
        found.append((stop, -(-trials // trials_max)))
        start, spent = stop, int(total[stop - 1])
    return found
