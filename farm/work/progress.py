"""How a run stands, and where its time goes: told to people, part of no result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """Where a run stands. ``cells_done`` includes ``cells_reused``; ``workers`` is 0 in process.
    ``store_away_s``: for how long the store has not answered."""

    cells_done: int
    cells_total: int
    cells_reused: int
    affinity_hits: int
    affinity_misses: int
    bytes_fetched: int
    workers: int
    store_away_s: float = 0.0


Progress = Callable[[ProgressEvent], None]


class Meter:
    """Turns finished blocks of one process into progress events."""

    def __init__(self, cells_total: int, cells_reused: int, progress: Progress | None) -> None:
        self._progress = progress
        self._total = cells_total
        self._reused = cells_reused
        self._computed = self._bytes = 0
        self.add(0, 0)

    def add(self, cells: int, bytes_fetched: int) -> None:
        """Count a finished block and tell how it stands."""
        self._computed += cells
        self._bytes += bytes_fetched
        if self._progress is not None:
            done = self._reused + self._computed
            self._progress(ProgressEvent(done, self._total, self._reused, 0, 0, self._bytes, 0))


class Stages:
    """Seconds by stage, of one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a ``with`` block to the stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def total_seconds(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sums by stage, in microseconds' precision."""
    total: dict[str, float] = {}
    for part in parts:
        for stage, seconds in part.items():
            total[stage] = round(total.get(stage, 0.0) + seconds, 6)
    return total
