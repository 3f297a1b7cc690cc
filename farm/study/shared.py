"""Values made once per process, however many threads ask at the same time.

Markets, tapes and compiled programs are the same for every trial and thread of a study; the first thread that wants
one makes it, the others wait for it. A failed attempt is not kept: who waited gets its error, who comes later tries
again. Beyond ``count_max`` the least recently used value is dropped, which costs time and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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
        self._futures: OrderedDict[K, Future[V]] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of ``key``, made by ``make`` if nobody has it; whatever ``make`` raises.

        ``make`` runs outside the lock and must not ask for the same key.
        """
        with self._lock:
            future = self._futures.get(key)
            if future is not None:
                self._futures.move_to_end(key)
                mine = None
            else:
                mine = future = self._futures[key] = Future()
                while len(self._futures) > self._count_max:
                    self._futures.popitem(last=False)
        if mine is None:
            return future.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                if self._futures.get(key) is mine:
                    del self._futures[key]
            mine.set_exception(error)
            raise
        mine.set_result(value)
        return value
