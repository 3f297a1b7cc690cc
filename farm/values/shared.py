"""Values made once per process, however many threads ask at the same time.

Markets, tapes and compiled programs are the same for every trial and thread of a study; the first thread that wants
one makes it, the others wait for it. A failed attempt is not kept: who waited gets its error, who comes later tries
again. Beyond ``count_max`` the oldest value is dropped, which costs time and nothing else. Not the least recently used
one: a value that is there is found without a lock, a million times more often than one is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shared(Generic[K, V]):
    """A bounded map whose values are made by one thread each."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._lock = threading.Lock()
        self._made: dict[K, V] = {}
        self._making: dict[K, Future[V]] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of ``key``, made by ``make`` if nobody has it; whatever ``make`` raises.

        ``make`` runs outside the lock and must not ask for the same key.
        """
        try:
            return self._made[key]
        except KeyError:
            return self._make(key, make)

    def _make(self, key: K, make: Callable[[], V]) -> V:
        with self._lock:
            if key in self._made:
                return self._made[key]
            future = self._making.get(key)
            is_mine = future is None
            if future is None:
                future = self._making[key] = Future()
        if not is_mine:
            return future.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._made[key] = value
            while len(self._made) > self._count_max:
                del self._made[next(iter(self._made))]
        future.set_result(value)
        return value
