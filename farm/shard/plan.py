"""The access plan: which column chunks a read needs, decided from indexes alone, and what was left out and why.

A plan is a value. It is made without touching a shard, is the same whatever is cached, and is executed by ``reader``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from farm.shard.index import ShardIndex
from farm.shard.kinds import Kind
from farm.shard.prune import PRUNE_REASONS, GroupFacts, Verdict, Wanted, decide
from farm.values.errors import UsageError


@dataclass(frozen=True)
class ChunkRef:
    """One column chunk: the bytes ``offset .. offset + length`` of the object ``key``, and their xxh3-64."""

    shard_sha: str
    key: str
    row_group: int
    column: str
    offset: int
    length: int
    checksum: int

    @property
    def column_key(self) -> tuple[str, int, str]:
        """The name of the decoded column in the column cache."""
        return self.shard_sha, self.row_group, self.column


@dataclass(frozen=True)
class AccessPlan:
    """What to read, in (shard, row group, column) order, and the counts of the decision.

    Fields: kept, row groups that are read, ``unknown`` of them only because some layer could not tell; pruned, row
            groups left out, by reason ("time", "symbol range", "membership"); shards_pruned, shards whose span alone
            excludes them, whose index was not even opened; rows, in the kept row groups.
    """

    kind: str
    chunks: tuple[ChunkRef, ...]
    kept: int
    pruned: Mapping[str, int]
    unknown: int
    shards_pruned: int
    rows: int

    @property
    def bytes_needed(self) -> int:
        """Bytes of the chunks, before coalescing."""
        return sum(chunk.length for chunk in self.chunks)

    def by_shard(self) -> dict[str, int]:
        """Return the bytes needed per shard sha256."""
        needed: dict[str, int] = {}
        for chunk in self.chunks:
            needed[chunk.shard_sha] = needed.get(chunk.shard_sha, 0) + chunk.length
        return needed

    def to_json(self) -> dict[str, object]:
        """Return the counts, as ``farm plan`` and ``farm explain`` print them."""
        return {
            "kind": self.kind,
            "row_groups": {"kept": self.kept, "unknown": self.unknown, "pruned": dict(self.pruned)},
            "shards_pruned": self.shards_pruned,
            "rows": self.rows,
            "chunks": len(self.chunks),
            "bytes": self.bytes_needed,
        }


def plan_access(
    kind: Kind,
    indexes: Sequence[ShardIndex],
    instrument_ids: Iterable[str],
    first_day: int,
    last_day: int,
    columns: Iterable[str],
    *,
    shards_pruned: int = 0,
) -> AccessPlan:
    """Return the plan to read ``columns`` of the instruments on [first_day, last_day] from these shards.

    The time column always comes along, since rows are filtered by it after decoding.
    Errors: UsageError for a column that the kind does not have, or that is text.
    """
    names = needed_columns(kind, columns)
    wanted = Wanted(tuple(sorted(set(instrument_ids))), first_day, last_day)
    chunks: list[ChunkRef] = []
    verdicts = dict.fromkeys(Verdict, 0)
    rows = 0
    for index in indexes:
        for group in range(len(index.group_rows)):
            verdict = decide(facts_of(index, group), wanted)
            verdicts[verdict] += 1
            if not verdict.keeps:
                continue
            rows += int(index.group_rows[group])
            for name in names:
                chunk = index.chunks[group, name]
                chunks.append(
                    ChunkRef(index.ref.sha256, index.ref.key, group, name, chunk.offset, chunk.length, chunk.checksum)
                )
    return AccessPlan(
        kind=kind.name,
        chunks=tuple(chunks),
        kept=verdicts[Verdict.KEEP] + verdicts[Verdict.KEEP_UNKNOWN],
        pruned=MappingProxyType({reason: verdicts[Verdict(reason)] for reason in PRUNE_REASONS}),
        unknown=verdicts[Verdict.KEEP_UNKNOWN],
        shards_pruned=shards_pruned,
        rows=rows,
    )


def needed_columns(kind: Kind, columns: Iterable[str]) -> tuple[str, ...]:
    """Return ``columns`` and the time column, in stored order."""
    asked = set(columns)
    strange = asked.difference(kind.cacheable)
    if strange:
        raise UsageError(
            f"no such column: {', '.join(sorted(strange))}",
            place=f"kind {kind.name}",
            allowed=", ".join(kind.cacheable),
        )
    if kind.time_column is not None:
        asked.add(kind.time_column)
    return tuple(name for name in kind.cacheable if name in asked)


def facts_of(index: ShardIndex, group: int) -> GroupFacts:
    """Return what the index knows of a row group. A kind without time is kept by every time range."""
    members = index.members[group]
    if index.kind.time_column is None:
        always = (-(2**31), 2**31 - 1)
        return GroupFacts(always, (min(members), max(members)), dict.fromkeys(members, always))
    days = int(index.group_first_day[group]), int(index.group_last_day[group])
    return GroupFacts(days, (min(members), max(members)), members)
