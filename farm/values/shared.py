"""The one store of values that threads share: bounded, least recently used out first, each made by one thread.

Columns, series, markets, programs and studies differ in what they are, not in how they are kept. How an ask goes:

1. Under the lock, each wanted key is there, or on somebody else's flight, or becomes part of this thread's own flight.
2. Outside the lock, this thread makes the values of its own flight in one call, keeps them, and wakes who waits.
3. Only then it waits for the flights of others. Nobody waits with a promise of this call still open, so threads that
   ask for overlapping keys, in whatever order, cannot wait in a circle.

A failed attempt is not kept: who waited for exactly its keys gets the same error, who comes later tries again. Who
wanted only some of them tries on its own, since the fault may lie in a key that it never asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import Cache, LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class SharedStats:
    """Counters since the store was made, and the size of what it holds now.

    ``hits``, ``misses``: keys that were there when asked for, and those that were not; of these, ``loads`` were made,
    the others were waited for. ``evictions``: values dropped for newer ones.
    """

    hits: int
    misses: int
    loads: int
    evictions: int
    size_used: int


class _Flight(Generic[K, V]):
    """One attempt under way: the keys it brings, who makes them, and how it ended."""

    __slots__ = ("error", "keys", "landed", "maker", "values")

    def __init__(self, keys: tuple[K, ...]) -> None:
        self.keys = keys
        self.maker = threading.get_ident()
        # Held until the flight lands: an Event costs forty times as much, and most flights have nobody waiting.
        self.landed = threading.Lock()
        self.landed.acquire()
        self.values: dict[K, V] = {}
        self.error: BaseException | None = None


class Shared(Generic[K, V]):
    """Values by key, whose sizes add up to at most ``size_max``; safe for many threads.

    ``size_of``: the size of a value, which must not change while it is kept; without it, each value counts as one.
    A value larger than ``size_max`` is made, returned and not kept.
    """

    def __init__(self, size_max: int, size_of: Callable[[V], int] | None = None) -> None:
        self._kept: LRUCache[K, V] = LRUCache(size_max, size_of)
        self._flights: dict[K, _Flight[K, V]] = {}
        self._lock = threading.Lock()
        self._hits = self._misses = self._loads = self._evictions = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of ``key``, made by ``make`` if nobody has it.

        ``make`` runs outside the lock, in this thread. It may ask this store for other keys, if no chain of such asks
        leads back to ``key``.
        Errors: whatever ``make`` raises, in this thread or in the one that was waited for.
        """
        with self._lock:
            try:
                value = self._kept[key]
            except KeyError:
                pass
            else:
                self._hits += 1
                return value
            mine = None
            if key not in self._flights:
                self._misses += 1
                mine = self._flights[key] = _Flight((key,))
        if mine is not None:
            self._fly(mine, lambda _: {key: make()})
            return mine.values[key]
        return self.get_many((key,), lambda _: {key: make()})[key]

    def get_many(self, keys: Iterable[K], load: Callable[[tuple[K, ...]], Mapping[K, V]]) -> dict[K, V]:
        """Return the value of each key, in the order of ``keys``; ``load`` is called for those that nobody has.

        ``load`` gets the missing keys, each once, and returns a value for each of them. It runs as ``make`` does.
        """
        wanted = dict.fromkeys(keys)
        found: dict[K, V] = {}
        mine, others = self._board(wanted, found, is_first=True)
        while True:
            if mine is not None:
                self._fly(mine, load)
                found.update(mine.values)
            for flight in others:
                with flight.landed:
                    pass
                self._land(flight, wanted, found)
            missing = [key for key in wanted if key not in found]
            if not missing:
                return {key: found[key] for key in wanted}
            mine, others = self._board(missing, found, is_first=False)

    def _board(
        self, missing: Collection[K], found: dict[K, V], *, is_first: bool
    ) -> tuple[_Flight[K, V] | None, list[_Flight[K, V]]]:
        """Move what is there into ``found``; return this thread's own flight, and the flights of others to wait for."""
        others: dict[_Flight[K, V], None] = {}
        unclaimed: list[K] = []
        with self._lock:
            for key in missing:
                if key in self._kept:
                    found[key] = self._kept[key]
                elif (flight := self._flights.get(key)) is not None:
                    assert flight.maker != threading.get_ident(), f"making {key!r} asks for it"
                    others[flight] = None
                else:
                    unclaimed.append(key)
            if is_first:
                self._hits += len(found)
                self._misses += len(missing) - len(found)
            if not unclaimed:
                return None, list(others)
            mine: _Flight[K, V] = _Flight(tuple(unclaimed))
            self._flights.update(dict.fromkeys(unclaimed, mine))
            return mine, list(others)

    def _fly(self, flight: _Flight[K, V], load: Callable[[tuple[K, ...]], Mapping[K, V]]) -> None:
        """Make the values of ``flight`` and keep them; on any failure wake who waits, and raise."""
        try:
            made = load(flight.keys)
            flight.values = {key: made[key] for key in flight.keys}
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                for key in flight.keys:
                    del self._flights[key]
                for key, value in flight.values.items():
                    self._keep(key, value)
            flight.landed.release()

    @staticmethod
    def _land(flight: _Flight[K, V], wanted: Mapping[K, None], found: dict[K, V]) -> None:
        """Take what ``flight`` brought. Raise its error when it is this thread's too; else the caller tries again."""
        if flight.error is None:
            found.update((key, flight.values[key]) for key in flight.keys if key in wanted)
        elif isinstance(flight.error, Exception) and all(key in wanted for key in flight.keys):
            # Not for KeyboardInterrupt and its like: they end the thread that got them, not those who wait for it.
            raise flight.error

    def _keep(self, key: K, value: V) -> None:
        self._loads += 1
        if self._kept.getsizeof(value) > self._kept.maxsize:
            return
        before = len(self._kept)
        self._kept[key] = value
        self._evictions += before + 1 - len(self._kept)

    def sizes(self) -> dict[K, int]:
        """Return the keys that are held, and the size of each; this is no use of them."""
        with self._lock:
            return {key: int(self._kept.getsizeof(Cache.__getitem__(self._kept, key))) for key in self._kept}

    def stats(self) -> SharedStats:
        """Return the counters at one instant."""
        with self._lock:
            size_used = int(self._kept.currsize)
            return SharedStats(self._hits, self._misses, self._loads, self._evictions, size_used)
