"""Decoded columns, kept within a byte budget, loaded once however many threads ask.

A key is ``(shard sha256, row group, column)``: content-addressed, so a value can never be stale. Values are read-only
arrays that the cache owns. How a read works:

1. Under the lock, each wanted key is a hit, or somebody else's load in flight, or becomes this thread's load.
2. Outside the lock, this thread loads all of its keys in one call, publishes them, and wakes who waits for them.
3. Only then it waits for the loads of others. Nobody waits while holding a promise, so no cycle can arise.

A failed load is not kept. Threads that waited for exactly these keys get the same error. A thread that wanted only
some of them tries on its own, since the fault may lie in a key it never asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from farm.values.arrays import readonly
from farm.values.errors import DataError, UsageError

ColumnKey: TypeAlias = tuple[str, int, str]
"""(shard sha256, row group, column name)"""

Column: TypeAlias = npt.NDArray[Any]
Load: TypeAlias = Callable[[Sequence[ColumnKey]], Mapping[ColumnKey, Column]]


@dataclass(frozen=True)
class CacheStats:
    """Counters since the cache was made. ``loads``: keys loaded; ``misses``: keys not there when asked for."""

    hits: int
    misses: int
    evictions: int
    bytes_used: int
    loads: int


class _Flight:
    """One load under way: the keys it brings, and how it ended."""

    def __init__(self, keys: Sequence[ColumnKey]) -> None:
        self.ordered = tuple(keys)
        self.keys = frozenset(keys)
        self.landed = threading.Event()
        self.columns: Mapping[ColumnKey, Column] = {}
        self.error: BaseException | None = None


class ColumnCache:
    """A cache of read-only columns, least recently used out first. Safe for many threads."""

    def __init__(self, cache_bytes_max: int) -> None:
        if cache_bytes_max < 0:
            raise UsageError(f"a cache of {cache_bytes_max} bytes", place="cache_bytes_max", allowed="0 or more")
        self.cache_bytes_max = cache_bytes_max
        self._lock = threading.Lock()
        self._columns: OrderedDict[ColumnKey, Column] = OrderedDict()
        self._flights: dict[ColumnKey, _Flight] = {}
        self._shard_bytes: dict[str, int] = {}
        self._hits = self._misses = self._evictions = self._bytes_used = self._loads = 0

    def get_many(self, keys: Sequence[ColumnKey], load: Load) -> dict[ColumnKey, Column]:
        """Return one read-only column per key, in the order of ``keys``; ``load`` is called for what nobody has.

        ``load`` gets the missing keys, each once, and returns an array for each of them. It runs outside the lock, in
        this thread, and must not call this cache for the keys it is loading.
        Errors: whatever ``load`` raises; DataError when it leaves a key out or returns Python objects.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[ColumnKey, Column] = {}
        counted = False
        while True:
            missing = [key for key in wanted if key not in found]
            if not missing:
                return {key: found[key] for key in wanted}
            mine, others = self._board(missing, found, count=not counted)
            counted = True
            if mine is not None:
                self._fly(mine, load)
                found.update(mine.columns)
            for flight in others:
                flight.landed.wait()
                self._land(flight, wanted, found)

    def _board(
        self, missing: list[ColumnKey], found: dict[ColumnKey, Column], *, count: bool
    ) -> tuple[_Flight | None, list[_Flight]]:
        """Move hits into ``found``; return this thread's own flight and the flights of others to wait for."""
        with self._lock:
            others: dict[int, _Flight] = {}
            unclaimed: list[ColumnKey] = []
            for key in missing:
                column = self._columns.get(key)
                if column is not None:
                    self._columns.move_to_end(key)
                    found[key] = column
                    self._hits += count
                    continue
                self._misses += count
                flight = self._flights.get(key)
                if flight is None:
                    unclaimed.append(key)
                else:
                    others[id(flight)] = flight
            mine = _Flight(unclaimed) if unclaimed else None
            for key in unclaimed:
                assert mine is not None
                self._flights[key] = mine
            return mine, list(others.values())

    def _fly(self, flight: _Flight, load: Load) -> None:
        """Load the keys of ``flight`` and publish them; on any failure wake the waiters and raise."""
        try:
            flight.columns = _owned(flight.ordered, load(flight.ordered))
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                for key in flight.ordered:
                    del self._flights[key]
                for key, column in flight.columns.items():
                    self._keep(key, column)
            flight.landed.set()

    @staticmethod
    def _land(flight: _Flight, wanted: list[ColumnKey], found: dict[ColumnKey, Column]) -> None:
        """Take what ``flight`` brought. Raise its error when it is this thread's too; else the caller tries again."""
        if flight.error is None:
            found.update((key, flight.columns[key]) for key in wanted if key in flight.keys)
        elif isinstance(flight.error, Exception) and flight.keys.issubset(wanted):
            # Not for KeyboardInterrupt and its like: they end the leader, not those who wait for it.
            raise flight.error

    def _keep(self, key: ColumnKey, column: Column) -> None:
        self._loads += 1
        if column.nbytes > self.cache_bytes_max:
            return
        self._columns[key] = column
        self._account(key, column.nbytes)
        while self._bytes_used > self.cache_bytes_max:
            oldest, evicted = self._columns.popitem(last=False)
            self._account(oldest, -evicted.nbytes)
            self._evictions += 1

    def _account(self, key: ColumnKey, change: int) -> None:
        self._bytes_used += change
        held = self._shard_bytes.get(key[0], 0) + change
        if held:
            self._shard_bytes[key[0]] = held
        else:
            self._shard_bytes.pop(key[0], None)

    def holds(self) -> dict[str, int]:
        """Return the bytes held per shard (sha256 -> bytes), in the order of the hashes."""
        with self._lock:
            return dict(sorted(self._shard_bytes.items()))

    def stats(self) -> CacheStats:
        """Return the counters at one instant."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._evictions, self._bytes_used, self._loads)

    def clear(self) -> None:
        """Forget every column; loads in flight still land, and counters go on."""
        with self._lock:
            self._columns.clear()
            self._shard_bytes.clear()
            self._bytes_used = 0


def _owned(keys: Sequence[ColumnKey], loaded: Mapping[ColumnKey, Column]) -> dict[ColumnKey, Column]:
    """Return the loaded columns as read-only arrays whose memory is what ``nbytes`` says."""
    columns: dict[ColumnKey, Column] = {}
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
