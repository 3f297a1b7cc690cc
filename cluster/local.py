"""A study on a local farm: plan it, start Ray and workers, drive the scheduler to the end, collect the results.

Ray is not even loaded when the catalog has everything. However it ends, Ray goes with it, finished blocks stay, and the
study stays in the inbox until it has ended, so the same command goes on from there.
"""

from __future__ import annotations

import getpass
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.driver import Driver, Tally
from cluster.inbox import Entry, Inbox
from cluster.lease import Limits
from cluster.messages import EndStudy
from cluster.submission import Submission, block_set, make_piles
from farm import run
from farm.run import Outcome, Progress, ProgressEvent, Spec
from farm.store.open import open_store
from farm.study.document import FarmStats
from farm.values.errors import BlockFailed, FarmError, Interrupted, UsageError
from farm.values.settings import FarmSettings

if TYPE_CHECKING:
    from cluster.worker import MakeRunner

WORKERS_MAX = 64
TURN_S = 0.1
"""How often progress is shown and Ctrl-C is looked at when nothing happens."""


@dataclass
class _Clock:
    """Seconds by stage of the whole command."""

    seconds: dict[str, float]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def run_on_workers(
    spec: Spec,
    store_url: str,
    *,
    workers: int,
    threads: int = 1,
    snapshot: str | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    settings: FarmSettings | None = None,
    limits: Limits | None = None,
    make_runner: MakeRunner | None = None,
) -> Outcome:
    """Run a study on ``workers`` local processes of ``threads`` threads each; the same outcome as ``run_in_process``.

    Errors: those of ``farm.run.submit``; the last error of a block that was quarantined (BlockFailed when it killed or
    hung its workers), after all others have finished; CapacityError when Ray or no worker starts; Interrupted on
    Ctrl-C or SIGTERM. In each case finished blocks are kept, and the same call goes on from there.
    """
    _check(workers, threads, store_url)
    base = settings if settings is not None else FarmSettings()
    store = open_store(store_url, base.store)
    settings = FarmSettings(base.store, base.cache, threads, base.dataset).with_store(store.url)
    clock = _Clock({})
    with clock.stage("plan"):
        submission = run.submit(spec, store, snapshot=snapshot, fresh=fresh)
    tally = Tally()
    if submission.waiting:
        limits = limits if limits is not None else Limits(workers_max=workers, workers_min=workers)
        tally = _Farm(submission, settings, limits, make_runner, progress, clock).run()
    with clock.stage("collect"):
        stats = FarmStats(
            cells_total=submission.study.cells,
            cells_computed=submission.cells_waiting,
            cells_reused=submission.study.cells - submission.cells_waiting,
            workers=workers,
            bytes_fetched=tally.bytes_fetched,
            bytes_needed=submission.bytes_needed,
            affinity_hits=tally.affinity_hits,
            affinity_misses=tally.affinity_misses,
            seconds=clock.seconds | {f"worker_{stage}": spent for stage, spent in sorted(tally.seconds.items())},
        )
        return run.conclude(submission, stats)


def _check(workers: int, threads: int, store_url: str) -> None:
    for name, value in (("workers", workers), ("threads", threads)):
        if not 1 <= value <= WORKERS_MAX:
            raise UsageError(f"{value} {name}", place=f"--{name}", allowed=f"1 to {WORKERS_MAX}")
    if store_url.startswith("memory:"):
        raise UsageError(
            "workers are processes of their own and do not see this memory",
            place=store_url,
            hint="use a directory or an s3:// store, or leave --workers out",
        )


class _Farm:
    """One study, one scheduler, one local Ray."""

    def __init__(
        self,
        submission: run.Submission,
        settings: FarmSettings,
        limits: Limits,
        make_runner: MakeRunner | None,
        progress: Progress | None,
        clock: _Clock,
    ) -> None:
        self._submission = submission
        self._settings = settings
        self._limits = limits
        self._make_runner = make_runner
        self._progress = progress
        self._clock = clock
        self._inbox = Inbox(submission.catalog.store)
        self._stop = threading.Event()
        self._began_s = 0.0

    def run(self) -> Tally:
        """Run the waiting blocks; return the tally, or raise what the study ended with."""
        study = self._submission.study
        entry = self._inbox.submit(Entry(study.name, secrets.token_hex(8), getpass.getuser(), 0, time.time_ns()))
        with _stop_signals(self._stop), ThreadPoolExecutor(4, "records") as writer:
            with self._clock.stage("start"):
                # Loaded here: what runs in process needs no Ray.
                from cluster.ray_backend import LocalRay, RayBackend
                from cluster.worker import farm_runner

                local = LocalRay(self._limits.workers_max)
                local.__enter__()
            try:
                with _stop_signals(self._stop):  # again: Ray has set its own
                    backend = RayBackend(self._settings.store.url, self._settings, self._make_runner or farm_runner)
                    epoch = f"{int(time.time()):x}{secrets.token_hex(2)}"
                    driver = Driver(backend, self._inbox, self._load, self._limits, epoch=epoch, writer=writer)
                    driver.enqueue(entry)
                    self._drive(driver)
            finally:
                with self._clock.stage("stop"):
                    local.__exit__()
        return self._verdict(driver)

    def _drive(self, driver: Driver) -> None:
        """Turn until the study has ended, or until somebody wants to stop and the leases in flight are through."""
        name = self._submission.study.name
        with self._clock.stage("start"):
            while not self._stop.is_set() and not any(w.status == "ready" for w in driver.state.workers.values()):
                driver.turn(TURN_S)
        self._began_s = time.perf_counter()
        with self._clock.stage("run"):
            while name not in driver.ended and not self._stop.is_set():
                driver.turn(TURN_S)
                self._tell(driver)
            if self._stop.is_set() and name not in driver.ended:
                driver.halt()
                until_s = time.monotonic() + self._limits.cancel_s
                while name not in driver.ended and time.monotonic() < until_s:
                    driver.turn(TURN_S)
            driver.close()

    def _tell(self, driver: Driver) -> None:
        if self._progress is None:
            return
        total, tally = self._submission.study.cells, driver.tally
        reused = total - self._submission.cells_waiting
        elapsed_s = time.perf_counter() - self._began_s
        self._progress(
            ProgressEvent(
                cells_done=reused + tally.cells,
                cells_total=total,
                cells_reused=reused,
                cells_per_s=tally.cells / elapsed_s if elapsed_s > 0 else 0.0,
                affinity_hits=tally.affinity_hits,
                affinity_misses=tally.affinity_misses,
                bytes_fetched=tally.bytes_fetched,
                workers=sum(worker.status == "ready" for worker in driver.state.workers.values()),
            )
        )

    def _verdict(self, driver: Driver) -> Tally:
        study = self._submission.study
        end = driver.ended.get(study.name)
        if end is None or end.is_cancelled:
            raise Interrupted(
                f"stopped by the user with {driver.tally.cells} of {self._submission.cells_waiting} cells computed",
                place=f"study {study.id[:12]}",
                hint="run the same command again; finished blocks are kept",
            )
        if end.quarantined:
            raise _failure(end, len(study.blocks))
        return driver.tally

    def _load(self, entry: Entry) -> Submission:
        """Return the study as the queue sees it; what it waits for was found when it was submitted."""
        study = self._submission.study
        waiting = block_set(self._submission.waiting)
        return Submission(
            study.name,
            entry.nonce,
            entry.submitter,
            entry.priority,
            tuple(block.cells for block in study.blocks),
            make_piles(study.blocks),
            done=((1 << len(study.blocks)) - 1) & ~waiting,
            failures=self._inbox.failures(study.name, entry.nonce),
        )


def _failure(end: EndStudy, blocks: int) -> FarmError:
    """Return the error of the first quarantined block, which also says how many there are."""
    block, error = min(end.quarantined.items())
    kept = f"{len(end.quarantined)} of {blocks} blocks failed, block {block} first; all others are finished and kept"
    hint = f"{error.hint}; {kept}" if error.hint else kept
    cls = type(error) if not isinstance(error, Interrupted) else BlockFailed
    return cls(error.message, place=error.place or f"block {block}", allowed=error.allowed, hint=hint)


@contextmanager
def _stop_signals(stop: threading.Event) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into ``stop``; a second one is what it always was. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
