"""A worker: one process, some threads, one column cache. It runs leases of blocks and says what it holds.

A message to it is (lease, study name, block numbers); it reads the study's record from the bucket, once. Its threads
share one ``BlockRunner``, hence columns, markets and series. An error of a block that has a name is the block's, and is
reported with it; anything else is a bug or a death, ends the whole call, and the scheduler finds out by halving.
While the store is away a block waits where it is, also a finished one for its put: one per thread, a bounded memory.

Before it serves it computes a few golden vectors with the kernels. A machine whose numerics differ would store results
that disagree with everybody else's, so it refuses to start.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cluster.messages import BlockAnswer
from cluster.processes import identity
from farm.columns.process import process_cache
from farm.kernels import reduce, rolling, transcend
from farm.store.base import Store
from farm.store.open import open_store
from farm.values.arrays import F64
from farm.values.canon import canonical_array_bytes
from farm.values.errors import DataError, FarmError, Interrupted, StoreError, is_away
from farm.values.settings import FarmSettings
from farm.values.version import NUMERICS_PROFILE
from farm.work import run

GOLDEN = "6f90f31ef9b978b73a9e30b27b3f53a8c6c074a485e44bd57e311a335b29e52b"
"""What ``numerics_digest`` gives everywhere; the plain-Python twins of the kernels give it too."""


PATIENCE_SHARE = 0.5
"""Part of the watchdog's time that a block waits in its worker for a store that is away; then the scheduler waits."""
PAUSE_S = 0.1
PAUSE_S_MAX = 2.0


class Runner(Protocol):
    """What a worker needs of ``farm.work.run.BlockRunner``."""

    def run_block(self, study: str, block: int) -> run.BlockReport: ...


MakeRunner = Callable[[Store, FarmSettings], Runner]


def farm_runner(store: Store, settings: FarmSettings) -> Runner:
    """Return the runner of real workers."""
    return run.BlockRunner(store, settings=settings.cache)


@dataclass(frozen=True)
class Ready:
    """A worker says that it serves.

    ``ready_s``: what it took in the worker, from its first call. ``identity``: of its process, on whatever host.
    """

    pid: int
    identity: str | None
    slots: int
    holdings: Mapping[str, int]
    ready_s: float


@dataclass(frozen=True)
class Answer:
    """How a lease went; blocks without a report were not begun."""

    reports: tuple[BlockAnswer, ...]
    holdings: Mapping[str, int]


class Worker:
    """The actor. ``run`` is called by as many threads as it has slots, the rest by threads of its own."""

    def __init__(self, store_url: str, settings: FarmSettings, make_runner: MakeRunner = farm_runner) -> None:
        self._store_url = store_url
        self._settings = settings
        self._make_runner = make_runner
        self._cancelled: set[str] = set()
        self._runner: Runner | None = None

    def ready(self) -> Ready:
        """Check the numerics, open the store, and serve. Errors: DataError (numerics), ConfigError (store); StoreError
        when the store has been away for as long as a block would wait for it."""
        started = time.perf_counter()
        check_numerics()
        pauses = self._pauses("")  # of no lease: nobody cancels it
        while self._runner is None:
            try:
                store = open_store(self._store_url, self._settings.store)
                self._runner = self._make_runner(store, self._settings)
            except StoreError as error:
                if not (is_away(error) and next(pauses, False)):
                    raise
        pid, holdings = os.getpid(), process_cache().holds()
        return Ready(pid, identity(pid), self._settings.threads, holdings, time.perf_counter() - started)

    def run(self, lease: str, study: str, blocks: Sequence[int]) -> Answer:
        """Run the blocks one after another until the end, or until the lease is cancelled."""
        reports = []
        for block in blocks:
            if lease in self._cancelled:
                break
            report = self._run_block(lease, study, block)
            if report is not None:
                reports.append(report)
        self._cancelled.discard(lease)
        return Answer(tuple(reports), process_cache().holds())

    def _run_block(self, lease: str, study: str, block: int) -> BlockAnswer | None:
        assert self._runner is not None, "leases are sent to workers that are ready"
        started = time.perf_counter()
        pauses = self._pauses(lease)
        while True:
            try:
                done = self._runner.run_block(study, block)
            except Interrupted:
                return None
            except FarmError as error:
                if is_away(error) and next(pauses, False):
                    continue
                return BlockAnswer(block, 0, time.perf_counter() - started, 0, error=error)
            spent_s = time.perf_counter() - started
            return BlockAnswer(block, done.cells, spent_s, done.bytes_fetched, dict(done.seconds))

    def _pauses(self, lease: str) -> Iterator[bool]:
        """Wait a little longer each time while the lease is wanted, and end when the store has been away for long."""
        until_s = time.monotonic() + PATIENCE_SHARE * self._settings.store.watchdog_s
        pause_s = PAUSE_S
        while time.monotonic() < until_s:
            again_s = time.monotonic() + pause_s
            while time.monotonic() < again_s and lease not in self._cancelled:
                time.sleep(PAUSE_S)
            if lease in self._cancelled:
                return
            yield True
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def cancel(self, lease: str) -> None:
        """Let a lease end after the block it is at."""
        self._cancelled.add(lease)

    def watch(self) -> None:
        """Never return: whoever waits for this call learns when the process is gone."""
        threading.Event().wait()


def numerics_digest() -> str:
    """Return the SHA-256 of what the kernels make of a fixed series."""
    x: F64 = np.empty(257)
    state = 12345
    for index in range(len(x)):
        state = (1103515245 * state + 12345) % 2**31
        x[index] = 50.0 + state / 2**25
    out = np.full((4, len(x)), np.nan)
    rolling.ema(x, 9, out[0])
    rolling.rsi(x, 14, out[1])
    rolling.deviation(x, 20, out[2])
    for index in range(len(x)):
        out[3, index] = transcend.exp(transcend.log(x[index]) / 3)
    totals = np.array([reduce.lane_sum(x), reduce.lane_dot(x, out[3])])
    return hashlib.sha256(canonical_array_bytes(out) + canonical_array_bytes(totals)).hexdigest()


def check_numerics() -> None:
    """Raise DataError unless this machine computes the golden vectors to the bit."""
    digest = numerics_digest()
    if digest != GOLDEN:
        raise DataError(
            f"the golden vectors give {digest[:16]}, not {GOLDEN[:16]}",
            place=f"numerics of this machine, profile {NUMERICS_PROFILE}",
            hint="results of this machine would disagree with those of others; remove numba's cache, or the machine",
        )
