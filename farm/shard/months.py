"""The months of many instruments as columns: what planning asks of indexes, without an object per month."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from farm.shard.index import DIGEST_BYTES, ShardIndex
from farm.values.arrays import I32, I64, U8


@dataclass(frozen=True, eq=False)
class MonthTable:
    """Months with rows of one kind, by instrument, then in time order; merged over shards.

    of:    instrument id -> its months [start, stop), empty where it has no row.
    month: int32 (n,), as ``values.units.month_of`` counts; rows: int64 (n,); first_day, last_day: int32 (n,), of the
           rows; digest: uint8 (n, 32), of the canonical rows (``shard.index``).
    """

    of: Mapping[str, slice]
    month: I32
    rows: I64
    first_day: I32
    last_day: I32
    digest: U8

    @cached_property
    def hexes(self) -> str:
        """The digests in hex, 64 digits each."""
        return self.digest.tobytes().hex()


def month_table(indexes: Sequence[ShardIndex], names: Iterable[str]) -> MonthTable:
    """Return the months of these instruments in these shards."""
    ids = tuple(dict.fromkeys(names))
    parts = [(*_of_shard(index, ids), index) for index in indexes]
    owner = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    columns = [
        np.concatenate([np.empty(0, np.int32), *(getattr(index, name)[at] for _, at, index in parts)])
        for name in ("month_number", "month_rows", "month_first_day", "month_last_day")
    ]
    digests = [index.month_digest[at] for _, at, index in parts]
    digest = np.concatenate([np.empty((0, DIGEST_BYTES), np.uint8), *digests])
    order = np.lexsort((columns[0], owner))
    owner, digest = owner[order], digest[order]
    month, rows, first_day, last_day = (column[order] for column in columns)
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (owner[1:] != owner[:-1]) | (month[1:] != month[:-1])
    starts = np.flatnonzero(is_first)
    if len(starts) < len(order):
        digest = _added(digest, starts)
        rows = np.add.reduceat(rows.astype(np.int64), starts)
        first_day, last_day = np.minimum.reduceat(first_day, starts), np.maximum.reduceat(last_day, starts)
        owner, month = owner[starts], month[starts]
    bounds = np.searchsorted(owner, np.arange(len(ids) + 1)).tolist()
    of = {name: slice(bounds[at], bounds[at + 1]) for at, name in enumerate(ids)}
    return MonthTable(of, month, rows.astype(np.int64), first_day, last_day, digest)


def _of_shard(index: ShardIndex, ids: Sequence[str]) -> tuple[I64, I64]:
    """Return, for the months of ``ids`` in one shard, whose they are (a place in ``ids``), and where they stand."""
    codes = [index.code_of(name) for name in ids]
    known = np.array([at for at, code in enumerate(codes) if code is not None], np.int64)
    code = np.array([code for code in codes if code is not None], np.int32)
    low = np.searchsorted(index.month_symbol, code)
    count = np.searchsorted(index.month_symbol, code, side="right") - low
    before = np.cumsum(count) - count
    at = np.repeat(low - before, count) + np.arange(int(count.sum()))
    return np.repeat(known, count), at.astype(np.int64)


def _added(digest: U8, starts: I64) -> U8:
    """Return the sums modulo 2**256 of the digests from each start to the next."""
    total = digest[starts].copy()
    stops = [*starts[1:].tolist(), len(digest)]
    for place, (start, stop) in enumerate(zip(starts.tolist(), stops, strict=True)):
        if stop - start > 1:
            value = sum(int.from_bytes(digest[at].tobytes(), "big") for at in range(start, stop))
            data = (value % (1 << (8 * DIGEST_BYTES))).to_bytes(DIGEST_BYTES, "big")
            total[place] = np.frombuffer(data, np.uint8)
    return total
