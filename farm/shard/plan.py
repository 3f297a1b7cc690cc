"""The read plan: which rows of which column chunks a read needs, decided from indexes alone, and what was left out.

A plan is a value. It is made without touching a shard, is the same whatever is cached, and is executed by ``reader``
and the market. It answers what is read once for all who ask: keys, ``farm plan``, bytes needed, affinity, prefetch and
the loader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from farm.shard.index import ShardIndex
from farm.shard.kinds import BAR_COLUMNS, DIVIDENDS, SPLITS, STOCK_DAILY, Kind
from farm.shard.prune import PRUNE_REASONS, Verdict, Wanted, decide
from farm.values.arrays import I8, I32, I64
from farm.values.errors import UsageError

ALWAYS: Final = frozenset({"open", "close", "volume"})
"""Bar columns that every run needs: orders fill at opens, positions are marked at closes, no volume means no fill."""

ACTION_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {SPLITS.name: ("numerator", "denominator"), DIVIDENDS.name: ("amount", "pay_day", "pay_day_valid")}
)
"""What is read of corporate actions, by kind."""


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


@dataclass(frozen=True, eq=False)
class Runs:
    """Stretches of rows, each of one instrument in one row group; ordered by instrument, then as the groups are.

    Shapes: all (r,), read-only. ``instrument``: position among the ids of the plan; ``group``: number among its row
            groups; rows ``start .. start + rows`` of it; ``scale``: decimals of the instrument's prices there. Rows
            outside the days that are read are among them, at either end.
    """

    instrument: I32
    group: I32
    start: I64
    rows: I64
    scale: I8

    def of(self, chosen: npt.NDArray[np.intp]) -> Runs:
        """Return the runs at these positions."""
        return Runs(*(getattr(self, name)[chosen] for name in ("instrument", "group", "start", "rows", "scale")))


@dataclass(frozen=True, eq=False)
class KindPlan:
    """What is read of one kind; the chunks in (shard, row group, column) order, and the counts of the decision.

    Fields: columns, in stored order, the time column among them; groups, (shard sha256, row group) of those that are
            read, group_rows their rows; kept, how many these are, ``unknown`` of them only because some layer could
            not tell; pruned, row groups left out, by reason ("time", "symbol range", "membership"); shards_pruned,
            shards whose span alone excludes them, whose index was not even opened.
    """

    kind: str
    columns: tuple[str, ...]
    chunks: tuple[ChunkRef, ...]
    groups: tuple[tuple[str, int], ...]
    group_rows: tuple[int, ...]
    runs: Runs
    pruned: Mapping[str, int]
    unknown: int
    shards_pruned: int

    @property
    def kept(self) -> int:
        """Row groups that are read."""
        return len(self.groups)

    @property
    def rows(self) -> int:
        """Rows of the row groups that are read, wanted or not."""
        return sum(self.group_rows)

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

    def take(self, number: I32) -> KindPlan:
        """Return the plan of some instruments: ``number`` says what each is called there, -1: it is left out.

        Row groups that hold none of them are left out, and counted as pruned by membership.
        """
        runs = self.runs.of(np.flatnonzero(number[self.runs.instrument] >= 0))
        used, group = np.unique(runs.group, return_inverse=True)
        width = len(self.columns)
        left_out = len(self.groups) - used.size
        return replace(
            self,
            chunks=tuple(chunk for at in used.tolist() for chunk in self.chunks[at * width : (at + 1) * width]),
            groups=tuple(self.groups[at] for at in used.tolist()),
            group_rows=tuple(self.group_rows[at] for at in used.tolist()),
            runs=replace(runs, instrument=number[runs.instrument], group=group.astype(np.int32)),
            pruned=MappingProxyType({**self.pruned, "membership": self.pruned["membership"] + left_out}),
            unknown=min(self.unknown, used.size),
        )

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


@dataclass(frozen=True, eq=False)
class ReadPlan:
    """What a market of these instruments is made from: their bars and corporate actions, up to ``last_day``.

    Fields: ids, in bytewise order, each once; first_day (s,), the first day read of each; columns, of bars, in stored
            order; parts, one plan per kind: bars, splits, dividends.
    """

    ids: tuple[str, ...]
    first_day: I32
    last_day: int
    columns: tuple[str, ...]
    parts: tuple[KindPlan, ...]

    @cached_property
    def chunks(self) -> tuple[ChunkRef, ...]:
        """The chunks of all kinds."""
        return tuple(chunk for part in self.parts for chunk in part.chunks)

    @property
    def bytes_needed(self) -> int:
        """Bytes of the chunks, before coalescing."""
        return sum(part.bytes_needed for part in self.parts)

    @cached_property
    def rows(self) -> I64:
        """Bars of each instrument in the row groups that are read, (s,): at least those that are wanted."""
        runs = self.parts[0].runs
        found = np.zeros(len(self.ids), np.int64)
        np.add.at(found, runs.instrument, runs.rows)
        return found

    def by_shard(self) -> dict[str, int]:
        """Return the bytes needed per shard sha256."""
        return {sha: size for part in self.parts for sha, size in part.by_shard().items()}

    def take(self, positions: Sequence[int] | npt.NDArray[np.intp]) -> ReadPlan:
        """Return the plan of the instruments at these positions of ``ids``; no index is asked again."""
        chosen = np.unique(np.asarray(positions, np.intp))
        number = np.full(len(self.ids), -1, np.int32)
        number[chosen] = np.arange(chosen.size, dtype=np.int32)
        return ReadPlan(
            ids=tuple(self.ids[at] for at in chosen.tolist()),
            first_day=self.first_day[chosen],
            last_day=self.last_day,
            columns=self.columns,
            parts=tuple(part.take(number) for part in self.parts),
        )


def bar_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the bar columns that a run reads when its strategy names ``columns``, in stored order."""
    asked = ALWAYS.union(columns)
    return tuple(name for name in BAR_COLUMNS if name in asked)


def kinds_read(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the kinds that a market is made from, and what is read of each."""
    return {STOCK_DAILY.name: bar_columns(columns), **ACTION_COLUMNS}


def plan_kind(
    kind: Kind,
    indexes: Sequence[ShardIndex],
    ids: Sequence[str],
    first_day: I32,
    last_day: int,
    columns: Iterable[str],
    *,
    shards_pruned: int = 0,
) -> KindPlan:
    """Return the plan to read ``columns`` of the instruments from these shards, each from its own ``first_day``, (s,).

    ``ids`` are in bytewise order, each once. The time column always comes along, since rows are filtered by it after
    decoding.
    Errors: UsageError for a column that the kind does not have, or that is text.
    """
    names = needed_columns(kind, columns)
    wanted_ids = np.array(ids, np.str_)
    chunks: list[ChunkRef] = []
    groups: list[tuple[str, int]] = []
    group_rows: list[int] = []
    counts = np.zeros(len(Verdict), np.int64)
    runs: list[tuple[npt.NDArray[np.integer], ...]] = []
    for index in indexes:
        place = index.places(wanted_ids)
        verdict, hit = decide(index.facts, Wanted(place, first_day, last_day))
        counts += np.bincount(verdict, minlength=len(Verdict))
        kept = np.flatnonzero(verdict <= Verdict.KEEP_UNKNOWN)
        number = np.full(verdict.shape[0], -1, np.int32)
        number[kept] = len(groups) + np.arange(kept.size, dtype=np.int32)
        members = np.flatnonzero(hit & (number[index.member_group] >= 0))
        symbol = index.member_symbol[members]
        instrument = np.searchsorted(place, 2 * symbol.astype(np.int64)).astype(np.int32)
        starts, rows = index.member_start[members], index.member_rows[members]
        runs.append((instrument, number[index.member_group[members]], starts, rows, index.scales[symbol]))
        for group in kept.tolist():
            groups.append((index.ref.sha256, group))
            group_rows.append(int(index.group_rows[group]))
            for name in names:
                chunk = index.chunks[group, name]
                chunks.append(
                    ChunkRef(index.ref.sha256, index.ref.key, group, name, chunk.offset, chunk.length, chunk.checksum)
                )
    return KindPlan(
        kind=kind.name,
        columns=names,
        chunks=tuple(chunks),
        groups=tuple(groups),
        group_rows=tuple(group_rows),
        runs=_in_order(runs),
        pruned=MappingProxyType({reason: int(counts[verdict]) for reason, verdict in PRUNE_REASONS.items()}),
        unknown=int(counts[Verdict.KEEP_UNKNOWN]),
        shards_pruned=shards_pruned,
    )


def _in_order(runs: Sequence[tuple[npt.NDArray[np.integer], ...]]) -> Runs:
    dtypes = (np.int32, np.int32, np.int64, np.int64, np.int8)
    joined = [
        np.concatenate([np.empty(0, dtype), *(run[at] for run in runs)], dtype=dtype) for at, dtype in enumerate(dtypes)
    ]
    order = np.lexsort((joined[1], joined[0]))
    return Runs(*(column[order] for column in joined))


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
