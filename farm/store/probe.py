"""Does this store keep its word on conditional writes?

Deduplication, refs and the queue stand on ``put_if_absent`` being atomic. Some servers accept the condition and ignore
it, which loses work silently; so the farm asks once, with a race, before it writes the first object. Who only reads
asks for nothing: a finished study can be looked at, and run again, where nobody may write.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from farm.store.base import Store
from farm.store.wrap import Around
from farm.values.errors import AlreadyExists, StoreError, Watchdog

_T = TypeVar("_T")

RACERS: Final = 8


class Proven(Around):
    """A store that is probed before the first write to it; the errors of that write are those of the probe too."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._is_proven = False

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        if verb in ("put", "put_if_absent"):
            with self._lock:
                if not self._is_proven:
                    probe_conditional_put(self.inner)
                    self._is_proven = True
        return action()

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        return self.inner.get_ranges(key, ranges, if_match=if_match)


def probe_conditional_put(store: Store) -> None:
    """Raise StoreError unless exactly one of 8 concurrent conditional puts wins and its bytes stay.

    Leaves nothing in the store. Other errors of the store (no bucket, no permission) pass through.
    """
    key = f"probe/{secrets.token_hex(16)}"
    offers = [f"{key} racer {racer}".encode() for racer in range(RACERS)]

    def race(data: bytes) -> bool:
        try:
            store.put_if_absent(key, data)
        except AlreadyExists:
            return False
        return True

    try:
        with ThreadPoolExecutor(RACERS) as pool:
            wins = list(pool.map(race, offers))
        kept = store.get(key) if any(wins) else b""
        late = race(b"too late")
    except Watchdog:
        raise  # nobody answers: the removal would wait as long again
    except StoreError:
        # Why it failed matters more than what may be left: who may not write may not delete either.
        with suppress(StoreError):
            store.delete(key)
        raise
    store.delete(key)
    if sum(wins) != 1 or kept != offers[wins.index(True)] or late:
        raise StoreError(
            f"of {RACERS} racing conditional writes {sum(wins)} won, and {'one' if late else 'none'} after the race",
            place=store.url,
            allowed="exactly one",
            hint="this server ignores If-None-Match: use MinIO, AWS S3, R2, Tigris, or a directory",
        )
