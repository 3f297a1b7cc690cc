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
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from cluster.driver import Driver, Tally
from cluster.inbox import Entry, Inbox
from cluster.lease import STORE_SHARE, Limits
from cluster.messages import EndStudy
from cluster.submission import BlockSet, Submission, block_set, make_piles, start_of
from farm.results.document import FarmStats
from farm.store.open import open_store
from farm.store.patience import leave, stay
from farm.store.probe import Proven, probe_conditional_put
from farm.values.errors import BlockFailed, CapacityError, FarmError, Interrupted, UsageError
from farm.values.settings import FarmSettings
from farm.work import run
from farm.work.progress import Stages
from farm.work.run import Outcome, Progress, ProgressEvent, Spec

if TYPE_CHECKING:
    from cluster.worker import MakeRunner

WORKERS_MAX = 64
RESUME = "run the same command again; finished blocks are kept"
TURN_S = 0.1
"""How often progress is shown and Ctrl-C is looked at when nothing happens."""


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

    Errors: those of ``farm.work.run.submit``; the last error of a block that was quarantined (BlockFailed when it
    killed or hung its workers), after all others have finished; CapacityError when Ray or no worker starts; Interrupted
    on Ctrl-C or SIGTERM. In each case finished blocks are kept, and the same call goes on from there.
    """
    clock, stop = Stages(), threading.Event()
    farm = LocalFarm(
        store_url,
        workers=workers,
        threads=threads,
        settings=settings,
        limits=limits,
        make_runner=make_runner,
        stop=stop,
    )
    with clock.stage("plan"):
        submission = run.submit(spec, farm.store, snapshot=snapshot, fresh=fresh, settings=farm.settings.cache)
    tally = Tally()
    if submission.waiting:
        tally = _serve(farm, submission, progress, clock)
    with clock.stage("collect"):
        stats = FarmStats(
            cells_total=submission.study.cells,
            cells_computed=submission.cells_waiting,
            cells_reused=submission.study.cells - submission.cells_waiting,
            workers=workers,
            bytes_needed=submission.bytes_needed,
            bytes_fetched=submission.metered.take() + tally.bytes_fetched,
            affinity_hits=tally.affinity_hits,
            affinity_misses=tally.affinity_misses,
        )
    runner = run.BlockRunner(Proven(farm.store), settings=farm.settings.cache)
    outcome = run.conclude(submission, stats, runner, clock)
    seconds = clock.seconds | {f"worker_{stage}": spent for stage, spent in sorted(tally.seconds.items())}
    return replace(outcome, stats=replace(outcome.stats, seconds=seconds))


def _serve(farm: LocalFarm, submission: run.SubmittedStudy, progress: Progress | None, clock: Stages) -> Tally:
    """Open the farm, run the study, close the farm, whatever happens."""
    with _stop_signals(farm.stop):
        try:
            with clock.stage("start"):
                farm.open()
            with _stop_signals(farm.stop):  # again: Ray has set its own
                with clock.stage("start"):
                    farm.wait_ready(1)
                with clock.stage("run"):
                    return farm.run(submission, progress)
        except KeyboardInterrupt:
            raise Interrupted("stopped by the user, at once", hint=RESUME) from None
        finally:
            with clock.stage("stop"):
                farm.close()
            stay()


class LocalFarm:
    """A local Ray with workers, one scheduler, and one store; runs one study after another while it is open.

    ``stop``, once set, makes ``wait_ready`` and ``run`` end with Interrupted.
    """

    def __init__(
        self,
        store_url: str,
        *,
        workers: int,
        threads: int = 1,
        settings: FarmSettings | None = None,
        limits: Limits | None = None,
        make_runner: MakeRunner | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        _check(workers, threads, store_url)
        base = settings if settings is not None else FarmSettings()
        self.store = open_store(store_url, base.store)
        self.settings = replace(base.with_store(self.store.url), threads=threads)
        self.limits = limits if limits is not None else _limits(workers, base.store.watchdog_s)
        self.inbox = Inbox(self.store)
        self._make_runner = make_runner
        self.stop = stop if stop is not None else threading.Event()
        self._submissions: dict[str, run.SubmittedStudy] = {}
        self._starts: dict[str, int] = {}
        self._resources = ExitStack()
        self._driver: Driver | None = None

    def __enter__(self) -> LocalFarm:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start Ray and ask for the workers. Errors: CapacityError; StoreError when conditional writes do not work."""
        # Loaded here: what runs in process needs no Ray.
        from cluster.ray_backend import LocalRay, RayBackend
        from cluster.telemetry import RayMetrics
        from cluster.worker import farm_runner

        probe_conditional_put(self.store)
        local = self._resources.enter_context(LocalRay(self.limits.workers_max))
        writer = self._resources.enter_context(ThreadPoolExecutor(4, "records"))
        backend = RayBackend(self.store.url, self.settings, self._make_runner or farm_runner, local.check)
        epoch = f"{int(time.time()):x}{secrets.token_hex(2)}"
        observe = RayMetrics(lambda: self.driver.now_s)
        self._driver = Driver(
            backend,
            self.inbox,
            self._load,
            self.limits,
            epoch=epoch,
            writer=writer,
            observe=observe,
            stored=self._stored,
        )
        self._driver.turn(0)

    def close(self) -> None:
        """End the workers and Ray; records are written first."""
        self._resources.close()
        self._driver = None

    @property
    def driver(self) -> Driver:
        """The scheduler of an open farm."""
        assert self._driver is not None, "the farm is not open"
        return self._driver

    def wait_ready(self, workers: int) -> None:
        """Wait until so many workers serve. Errors: CapacityError, or what they fail with; Interrupted."""
        while sum(worker.status == "ready" for worker in self.driver.state.workers.values()) < workers:
            self._check_stopped()
            if self.driver.state.has_given_up:
                raise CapacityError("no worker comes up", hint="close the farm and open it again")
            self.driver.turn(TURN_S)

    def run(self, submission: run.SubmittedStudy, progress: Progress | None = None) -> Tally:
        """Run the waiting blocks of a study; return what it took, or raise what it ended with."""
        study, driver = submission.study, self.driver
        self._submissions[study.name] = submission
        driver.tally = Tally()
        self.inbox.submit(Entry(study.name, secrets.token_hex(8), getpass.getuser(), 0, time.time_ns()))
        entries = self.inbox.pending_of(study.name)  # others are at it, or were interrupted: their failures count
        self._starts[study.name] = start_of(len(entries) - 1, len(study.blocks))
        for entry in entries:
            driver.enqueue(entry)
        if study.name in driver.refused:
            raise driver.refused.pop(study.name)
        while study.name not in driver.ended and not self.stop.is_set():
            driver.turn(TURN_S)
            if progress is not None:
                progress(_progress(submission, driver))
        if study.name not in driver.ended:
            self._wind_down(study.name)
        driver.close(self.limits.cancel_s if self.stop.is_set() else inf)
        end = driver.ended.get(study.name)
        if end is None or end.is_cancelled:
            self._check_stopped(f"with {driver.tally.cells} of {submission.cells_waiting} cells computed")
            raise Interrupted("the study was cancelled", place=f"study {study.id[:12]}")
        if end.quarantined:
            raise _failure(end, len(study.blocks))
        return driver.tally

    def _wind_down(self, name: str) -> None:
        """Stop leasing, and give the blocks that run a moment to end."""
        self.driver.halt()
        until_s = time.monotonic() + self.limits.cancel_s
        while name not in self.driver.ended and time.monotonic() < until_s:
            self.driver.turn(TURN_S)

    def _check_stopped(self, detail: str = "before any worker was ready") -> None:
        if self.stop.is_set():
            raise Interrupted(f"stopped by the user {detail}", hint=RESUME)

    def _stored(self, name: str) -> BlockSet:
        """Return which blocks have a segment; a fresh study is to compute all of its own, whatever others have."""
        submission = self._submissions[name]
        if submission.study.fresh:
            return 0
        return block_set(submission.catalog.finished_blocks(submission.study))

    def _load(self, entry: Entry) -> Submission:
        """Return the study as the queue sees it; what it waits for was found when it was submitted."""
        submission = self._submissions[entry.study]
        blocks = submission.study.blocks
        before = self.inbox.attempts(entry.study, entry.nonce)
        return Submission(
            entry.study,
            entry.nonce,
            entry.submitter,
            entry.priority,
            tuple(blocks.cells.tolist()),
            make_piles(blocks.strips()),
            done=((1 << len(blocks)) - 1) & ~block_set(submission.waiting),
            failures=before.failures,
            suspects=before.suspects,
            solo=before.solo,
            start=self._starts[entry.study],
        )


def _limits(workers: int, watchdog_s: float) -> Limits:
    deadline_s = max(Limits(workers_max=workers).deadline_s, STORE_SHARE * watchdog_s)
    return Limits(workers_max=workers, workers_min=workers, watchdog_s=watchdog_s, deadline_s=deadline_s)


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


def _progress(submission: run.SubmittedStudy, driver: Driver) -> ProgressEvent:
    total, tally = submission.study.cells, driver.tally
    reused = total - submission.cells_waiting
    return ProgressEvent(
        cells_done=reused + tally.cells + tally.cells_found,
        cells_total=total,
        cells_reused=reused,
        affinity_hits=tally.affinity_hits,
        affinity_misses=tally.affinity_misses,
        bytes_fetched=tally.bytes_fetched,
        workers=sum(worker.status == "ready" for worker in driver.state.workers.values()),
        store_away_s=driver.away_s,
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
        leave()
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
