"""A study as the queue sees it: piles of blocks that need the same bytes, with cells, priority and failures so far.

Sets of blocks are integers, bit ``i`` for block ``i``: immutable, hashable, and a study of a hundred thousand blocks
takes 12 kB. The functions here are all that is needed of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Protocol, TypeAlias

from farm.values.canon import canonical_json

BlockSet: TypeAlias = int


class Needy(Protocol):
    """What the queue reads of a strip of ``farm.study.block``: ``count`` blocks from ``first`` on, of equal needs."""

    @property
    def first(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def needs(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Pile:
    """The blocks of a study that need the same bytes: the unit of affinity.

    Fields: key, blake2b of the needs, equal for equal needs of any study; blocks; needs, bytes per shard.
    """

    key: str
    blocks: BlockSet
    needs: Mapping[str, int]
    bytes: int


@dataclass(frozen=True)
class Submission:
    """A study in the queue.

    Fields: study, its name; nonce, which submission of it this is; cells, per block index; piles, a partition of the
    blocks; done, blocks that have a segment; failures, attempts that already failed, per block, with the last error;
    suspects, groups of blocks to be tried alone on a worker; solo, those of them to be tried alone in the whole farm;
    start, the block to begin at: two schedulers at one study begin apart, and meet what the other has stored.
    """

    study: str
    nonce: str
    submitter: str
    priority: int
    cells: tuple[int, ...]
    piles: tuple[Pile, ...]
    done: BlockSet = 0
    failures: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    suspects: tuple[BlockSet, ...] = ()
    solo: BlockSet = 0
    start: int = 0

    @cached_property
    def blocks(self) -> BlockSet:
        """All blocks of the study."""
        return (1 << len(self.cells)) - 1

    @cached_property
    def pile_of(self) -> array[int]:
        """Which pile each block is in, by their places."""
        found = array("I", bytes(4 * len(self.cells)))
        for place, pile in enumerate(self.piles):
            for block in members(pile.blocks):
                found[block] = place
        return found

    @cached_property
    def pile_cells(self) -> tuple[int, ...]:
        """The cells of the first block of each pile, which stands for the others."""
        return tuple(self.cells[(pile.blocks & -pile.blocks).bit_length() - 1] for pile in self.piles)


def make_piles(strips: Iterable[Needy]) -> tuple[Pile, ...]:
    """Return the piles of the blocks of ``strips``, in the order of their first block."""
    needs: dict[frozenset[tuple[str, int]], Mapping[str, int]] = {}
    members: dict[frozenset[tuple[str, int]], BlockSet] = {}
    for strip in strips:
        same = frozenset(strip.needs.items())
        needs.setdefault(same, strip.needs)
        members[same] = members.get(same, 0) | ((1 << strip.count) - 1) << strip.first
    return tuple(Pile(_key(needs[same]), members[same], dict(needs[same]), sum(needs[same].values())) for same in needs)


def _key(needs: Mapping[str, int]) -> str:
    return blake2b(canonical_json(dict(needs)), digest_size=16).hexdigest()


def block_set(indices: Iterable[int]) -> BlockSet:
    """Return the set of these blocks."""
    known = list(indices)
    if len(known) < 64:
        total = 0
        for index in known:
            total |= 1 << index
        return total
    bits = bytearray(max(known) // 8 + 1)  # one number that grows bit by bit would be copied each time
    for index in known:
        bits[index >> 3] |= 1 << (index & 7)
    return int.from_bytes(bits, "little")


def members(blocks: BlockSet) -> Iterator[int]:
    """Yield the block indices, ascending."""
    start = 0
    while blocks:
        skipped = (blocks & -blocks).bit_length() - 1
        start += skipped
        blocks >>= skipped  # in pieces: whatever touches each block must not touch all of them each time
        piece = blocks & _PIECE
        blocks >>= _PIECE_BITS
        while piece:
            low = piece & -piece
            yield start + low.bit_length() - 1
            piece ^= low
        start += _PIECE_BITS


_PIECE_BITS = 512
_PIECE = (1 << _PIECE_BITS) - 1


def first(blocks: BlockSet, count: int) -> BlockSet:
    """Return the ``count`` lowest blocks of the set."""
    if blocks.bit_count() <= count:
        return blocks
    return block_set(islice(members(blocks), count))


def halves(blocks: BlockSet) -> tuple[BlockSet, ...]:
    """Return the set in two halves, one block as it is, and nothing for none."""
    low = first(blocks, blocks.bit_count() // 2)
    return tuple(half for half in (low, blocks & ~low) if half)


def start_of(place: int, blocks: int) -> int:
    """Return the block at which the ``place``-th scheduler of a study begins: 0, then the middle of a largest gap."""
    digits = f"{place:b}"
    return blocks * int(digits[::-1], 2) >> len(digits)
