"""Decoded columns, kept within a byte budget, loaded once however many threads ask.

A key is ``(shard sha256, row group, column)``: content-addressed, so a value can never be stale. Values are read-only
arrays that the cache owns. What threads may expect of each other is said in ``values/shared.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from farm.shard.reader import ColumnKey, Values
from farm.values.arrays import readonly
from farm.values.errors import DataError, UsageError
from farm.values.shared import Shared, SharedStats

Load: TypeAlias = Callable[[Sequence[ColumnKey]], Mapping[ColumnKey, Values]]


class ColumnCache:
    """A cache of read-only columns, least recently used out first. Safe for many threads."""

    def __init__(self, cache_bytes_max: int) -> None:
        if cache_bytes_max < 0:
            raise UsageError(f"a cache of {cache_bytes_max} bytes", place="cache_bytes_max", allowed="0 or more")
        self.cache_bytes_max = cache_bytes_max
        self._columns: Shared[ColumnKey, Values] = Shared(cache_bytes_max, size_of=lambda column: column.nbytes)

    def get_many(self, keys: Sequence[ColumnKey], load: Load) -> dict[ColumnKey, Values]:
        """Return one read-only column per key, in the order of ``keys``; ``load`` is called for what nobody has.

        ``load`` gets the missing keys, each once, and returns an array for each of them. It runs outside the lock, in
        this thread, and must not call this cache for the keys it is loading.
        Errors: whatever ``load`` raises; DataError when it leaves a key out or returns Python objects.
        """
        return self._columns.get_many(keys, lambda missing: _owned(missing, load(missing)))

    def holds(self) -> dict[str, int]:
        """Return the bytes held per shard (sha256 -> bytes), in the order of the hashes."""
        held: dict[str, int] = {}
        for (shard, _, _), size in self._columns.sizes().items():
            held[shard] = held.get(shard, 0) + size
        return dict(sorted(held.items()))

    def stats(self) -> SharedStats:
        """Return the counters at one instant; sizes are bytes."""
        return self._columns.stats()


def _owned(keys: Sequence[ColumnKey], loaded: Mapping[ColumnKey, Values]) -> dict[ColumnKey, Values]:
    """Return the loaded columns as read-only arrays whose memory is what ``nbytes`` says."""
    columns: dict[ColumnKey, Values] = {}
    for key in keys:
        column = loaded.get(key)
        if column is None or column.dtype.hasobject:
            what = "was not loaded" if column is None else "holds Python objects, whose bytes nobody can count"
            raise DataError(f"column {what}", place=f"shard {key[0]}, row group {key[1]}, column {key[2]}")
        base = column.base
        if isinstance(base, np.ndarray) and (base.nbytes > column.nbytes or base.flags.writeable):
            # A view would keep the whole base alive, or let somebody write through it.
            column = column.copy()
        columns[key] = readonly(column)
    return columns
