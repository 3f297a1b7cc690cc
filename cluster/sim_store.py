"""What a simulated process stands on: a virtual clock, a bucket that can be slow, away and half-way, and a fuse.

The fuse ends the scheduler's process before or after any single effect it has on the world (a write, a message to a
worker), so that every place between two commands is a place to die at.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from farm.results.leases import LeaseRecord, segment_records
from farm.shard.layout import leases_prefix, parse_inbox_key
from farm.store.base import ObjectMeta
from farm.store.memory import MemoryStore
from farm.values.errors import Unavailable


class Broken(AssertionError):
    """A property does not hold in the world of this seed."""


class Died(BaseException):
    """The scheduler's process is gone; nothing in it may catch this."""


@dataclass(frozen=True)
class Faults:
    """Which of the faults that a scheduler once did not survive are in the world; those that are off it does not yet.

    away: the bucket is away for a while, and a scheduler must neither end nor blame blocks; without it a scheduler that
    cannot reach its bucket may end with the error, and is started again. worker_store: workers cannot read for a while.
    stalls: the driver stands still while answers wait. killers: a block takes the scheduler's process with it.
    resubmissions: a study is submitted again between its marker and its clearing, and while two schedulers run it.
    """

    away: bool = True
    worker_store: bool = True
    stalls: bool = True
    killers: bool = True
    resubmissions: bool = True


class Clock:
    """Virtual time: what is to happen when, in the order of time and then of planning."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen a little later."""
        self._count += 1
        heapq.heappush(self._agenda, (self.now_s + seconds, self._count, action))

    def run_next(self, until_s: float) -> bool:
        """Let the next thing happen if it is due by ``until_s``; what a stall made late happens now."""
        if not self._agenda or self._agenda[0][0] > until_s:
            return False
        at_s, _, action = heapq.heappop(self._agenda)
        self.now_s = max(self.now_s, at_s)
        action()
        return True

    def run_until(self, until_s: float) -> None:
        """Let everything happen until then."""
        while self.run_next(until_s):
            pass
        self.now_s = max(self.now_s, until_s)


class Fuse:
    """Counts the effects of the scheduler that is running; at the planned one its process ends."""

    def __init__(self) -> None:
        self.effects = 0
        self._left: int | None = None
        self.is_running = False

    def arm(self, effects: int) -> None:
        """Let the process end at this many effects from now; an effect has a moment before and one after."""
        self._left = effects

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, effects are those of the scheduler."""
        self.is_running = True
        try:
            yield
        finally:
            self.is_running = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, effects are those of somebody else, whatever the scheduler is at."""
        was, self.is_running = self.is_running, False
        try:
            yield
        finally:
            self.is_running = was

    def burn(self) -> None:
        if not self.is_running:
            return
        self.effects += 1
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._left = None
                raise Died


class SimStore(MemoryStore):
    """The bucket of a world. Who writes while it is away does not know whether the write came through."""

    def __init__(self, chance: random.Random, clock: Clock, fuse: Fuse) -> None:
        super().__init__()
        self.chance = chance
        self.clock = clock
        self.fuse = fuse
        self.latency_s = 0.0
        self.errors = 0.0
        self.away_until_s = 0.0
        self.dies_at_clearing = False
        self.on_clearing: Callable[[str], None] | None = None
        self._parsed: dict[str, list[LeaseRecord]] = {}

    @property
    def is_away(self) -> bool:
        return self.clock.now_s < self.away_until_s

    def head(self, key: str) -> ObjectMeta:
        self.call()
        return super().head(key)

    def get(self, key: str) -> bytes:
        self.call()
        return super().get(key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        self.call()
        return super().list(prefix, start_after=start_after)

    def put_if_absent(self, key: str, data: bytes) -> None:
        with self._effect():
            super().put_if_absent(key, data)

    def put(self, key: str, data: bytes) -> None:
        with self._effect():
            super().put(key, data)

    def delete(self, key: str) -> None:
        found = parse_inbox_key(key)
        if found is not None and self.on_clearing is not None:
            self.on_clearing(found[0])
        if found is not None and self.dies_at_clearing and self.fuse.is_running:
            self.dies_at_clearing = False
            self.fuse.arm(2)
        with self._effect():
            super().delete(key)

    def holds(self, key: str) -> bool:
        """Whether the object is there, as nobody but the world can see: without a call that may fail."""
        return key in self._objects

    def attempts(self, study: str) -> dict[str, LeaseRecord]:
        """Return what is recorded of each lease of a study last, likewise."""
        found: dict[str, LeaseRecord] = {}
        for key in sorted(key for key in self._objects if key.startswith(leases_prefix(study))):
            if key not in self._parsed:  # a segment is written once
                self._parsed[key] = segment_records(self.seen(key), key)
            found.update({record.lease: record for record in self._parsed[key]})
        return found

    def seen(self, key: str) -> bytes:
        """Return an object, likewise."""
        return self._objects[key][0]

    @contextmanager
    def _effect(self) -> Iterator[None]:
        self.call()
        self.fuse.burn()
        yield
        self.fuse.burn()
        if self.errors and self.chance.random() < self.errors:
            raise Unavailable("the answer to a write did not come", place=self.url)

    def call(self) -> None:
        """Ask the bucket anything: it takes its time, or is away."""
        if self.latency_s:
            self.clock.now_s += self.chance.uniform(0, self.latency_s)
        if self.is_away or (self.errors and self.chance.random() < self.errors):
            self.clock.now_s += 0.05
            raise Unavailable("no answer", place=self.url)
