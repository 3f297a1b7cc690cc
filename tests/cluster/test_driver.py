"""The loop between machine, bucket and workers: a store that is away, deaths between commands, stalls."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from cluster.driver import Driver
from cluster.inbox import Entry, Inbox
from cluster.lease import Limits
from cluster.messages import Event, RunLease, WorkerLost
from cluster.submission import Submission, block_set, members, start_of
from farm.results.leases import SENT, read_leases
from farm.store.memory import MemoryStore
from farm.store.wrap import Around
from farm.values.errors import (
    BlockFailed,
    DataError,
    NotFound,
    RangePastEnd,
    StoreError,
    Unavailable,
    Watchdog,
    is_away,
)
from tests.cluster.worlds import Steady, study

BLOCKS = 24
LIMITS = Limits(workers_max=2, workers_min=2, lease_s=9.0, lease_blocks_max=2, deadline_s=10.0, watchdog_s=6.0)
LONG = replace(LIMITS, watchdog_s=40.0, deadline_s=60.0)
ONE_BY_ONE = replace(LONG, workers_max=1, workers_min=1, ahead_per_slot=1, lease_blocks_max=1)


class Away(Around):
    """A store that can be away, and dies with the process at a chosen write."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.error: StoreError | None = None
        self.writes_left = 1_000_000
        self.gate: threading.Event | None = None

    def _do(self, verb: str, key: str, action: Callable[[], Any], *, sent: int = 0, expected: int = 0) -> Any:
        if self.gate is not None:
            self.gate.wait(10)
        if self.error is not None:
            raise self.error
        if verb in ("put", "put_if_absent", "delete"):
            self.writes_left -= 1
            if self.writes_left == 0:
                raise Death
        return action()


class Death(BaseException):
    """SIGKILL of the scheduler."""


@contextmanager
def world(
    limits: Limits = LONG, backend: Steady | None = None, **options: Any
) -> Iterator[tuple[Driver, Steady, Away]]:
    """A study of ``BLOCKS`` blocks that is in the inbox, and a driver that knows of it."""
    store, backend = Away(), backend if backend is not None else Steady()
    Inbox(store).submit(Entry("s", "n1", "ann", 0, 5))
    driver = make(store, backend, limits, **options)
    driver.recover()
    yield driver, backend, store


def make(store: Away, backend: Steady, limits: Limits = LONG, epoch: str = "e", **options: Any) -> Driver:
    inbox = Inbox(store)

    def load(entry: Entry) -> Submission:
        before = inbox.attempts(entry.study, entry.nonce)
        whole = study(blocks=BLOCKS, done=block_set(backend.written), failures=before.failures)
        return replace(whole, nonce=entry.nonce, suspects=before.suspects, solo=before.solo)

    return Driver(backend, inbox, load, limits, epoch=epoch, **options)


def run_to_end(driver: Driver, turns: int = 400) -> None:
    for _ in range(turns):
        if not driver.state.studies and not driver.outbox:
            return
        driver.turn(1.0)
    raise AssertionError(f"no end: {driver.state.story[-6:]}")


def ends_whole(driver: Driver, store: Away) -> None:
    assert (driver.ended["s"].done, dict(driver.ended["s"].quarantined)) == ((1 << BLOCKS) - 1, {})
    assert Inbox(store).pending() == []
    assert all(
        record.outcome != SENT for record in read_leases(store, "s") if record.lease.startswith(driver.state.epoch)
    )


@pytest.mark.parametrize("from_turn", range(4))
@pytest.mark.parametrize("error", [Unavailable("no answer"), Watchdog("no answer")])
def test_a_store_that_is_away_ends_nothing_and_blames_nobody(from_turn: int, error: StoreError) -> None:
    """It is away for 38 s, in a study whose leases have run for 30 s of 60, whatever was about to be written."""
    backend = Dying()
    with world(backend=backend, stored=lambda name: looked(store, backend)) as (driver, _, store):
        for _ in range(from_turn):
            driver.turn(1.0)
        backend.is_silent, until_s = True, backend.clock_s + 30.0
        while backend.clock_s < until_s:
            driver.turn(1.0)
        store.error, until_s, seen_s = error, backend.clock_s + 38.0, []
        while backend.clock_s < until_s:
            driver.turn(1.0)
            seen_s.append(driver.away_s)
        store.error, backend.is_silent = None, False
        run_to_end(driver)
        assert backend.stopped == {}
        ends_whole(driver, store)
        assert max(seen_s) >= 34.0, "and it is said how long"


def test_a_lease_is_sent_when_its_attempt_is_recorded_and_not_before() -> None:
    with world() as (driver, backend, store):
        store.error = Unavailable("no answer")
        for _ in range(5):
            driver.turn(1.0)
        flying = {held.run.lease for held in driver.state.leases.values()}
        assert flying and backend.sent == []
        store.error = None
        while not backend.sent:
            driver.turn(1.0)
        assert {lease.lease for lease in backend.sent} == flying
        assert {record.lease for record in read_leases(store, "s")} == flying


def test_a_store_that_stays_away_ends_the_run_with_its_error_and_loses_nothing() -> None:
    with world(LIMITS) as (driver, backend, store):
        store.error = Unavailable("no answer", place="s3://b")
        with pytest.raises(Unavailable, match=r"s3://b: no answer; hint: the store was away for 6 s; finished blocks"):
            run_to_end(driver)
        assert 6.0 <= backend.clock_s <= 10.0
        store.error = None
        run_to_end(driver)
        ends_whole(driver, store)


@pytest.mark.parametrize("is_away", [False, True])
def test_records_are_written_off_the_loop_and_in_order(is_away: bool) -> None:
    """The same with threads: no lease before its record, no marker before the last record."""
    with ThreadPoolExecutor(4) as writer, world(writer=writer) as (driver, backend, store):
        driver.turn(1.0)
        if is_away:
            store.error = Unavailable("no answer")
            for _ in range(30):
                driver.turn(1.0)
            store.error = None
        run_to_end(driver, 2000)
        ends_whole(driver, store)
        assert backend.stopped == {}


def test_a_call_that_does_not_come_back_is_a_store_that_is_away() -> None:
    """The clock stops for a store that swallows a request, too; what is recorded afterwards is sent."""
    gate = threading.Event()
    with ThreadPoolExecutor(4) as writer, world(writer=writer) as (driver, backend, store):
        store.gate = gate
        before_s = driver.now_s
        while backend.clock_s < 30.0:
            driver.turn(1.0)
        away_s, passed_s = driver.away_s, driver.now_s - before_s
        gate.set()
        assert away_s > 20.0 and passed_s < 10.0
        run_to_end(driver, 2000)
        ends_whole(driver, store)
        assert backend.stopped == {}


def test_death_at_any_write_is_survived() -> None:
    """The scheduler dies in the middle of each of its writes in turn; the next knows nothing but the bucket."""
    for number in range(1, 200):
        with world(ONE_BY_ONE) as (driver, backend, store):
            store.writes_left = number
            try:
                run_to_end(driver)
            except Death:
                pass
            else:
                break
            if number % 2:
                backend = Steady(backend.written)  # what it had sent is gone with it
            driver = make(store, backend, epoch="f")
            driver.recover()
            run_to_end(driver)
            if "s" in driver.ended:  # else it had ended before
                ends_whole(driver, store)
            assert Inbox(store).pending() == [] and backend.written == set(range(BLOCKS))
    assert number > 20


def test_what_is_the_stores_fault() -> None:
    assert (
        is_away(Unavailable("x")) and is_away(Watchdog("x")) and is_away(pickle.loads(pickle.dumps(Unavailable("x"))))
    )
    assert not any(map(is_away, (NotFound("x"), RangePastEnd("x"), DataError("x"), None)))


class Dying(Steady):
    """Its workers die while their answers are on the way; and it can be slow."""

    def __init__(self) -> None:
        super().__init__()
        self.deaths = 0
        self.is_silent = self.is_late = False
        self.asleep_s = 0.0

    def events(self, timeout_s: float) -> list[Event]:
        self.clock_s += self.asleep_s
        self.asleep_s = 0.0
        if self.is_silent and (timeout_s > 0 or not self.is_late):
            self.clock_s += timeout_s
            return []
        return super().events(timeout_s)


def test_an_answer_counts_though_its_worker_died_before_it_was_read() -> None:
    """Both are there when the loop looks, the death first."""
    with world(backend=Dying()) as (driver, backend, store):
        driver.turn(1.0)
        driver.turn(1.0)
        lost = {lease.worker for lease in backend.sent}
        answers = [backend.answer(lease) for lease in backend.sent]
        backend.sent, before = [], driver.tally.outcomes["done"]
        backend.said = [*(WorkerLost(0.0, worker, BlockFailed("killed")) for worker in sorted(lost)), *answers]
        driver.turn(1.0)
        assert lost and driver.tally.outcomes["crashed"] == 0
        assert driver.tally.outcomes["done"] == before + len(answers)
        run_to_end(driver)
        ends_whole(driver, store)


def test_a_worker_that_dies_before_it_was_sent_anything_blames_no_block() -> None:
    """The store is away, the attempt is not recorded: whatever killed the worker, it was not this block."""
    with world(ONE_BY_ONE) as (driver, backend, store):
        store.error = Unavailable("no answer")
        for _ in range(5):
            while not driver.state.leases:
                driver.turn(1.0)
            [worker] = {held.run.worker for held in driver.state.leases.values()}
            backend.said = [WorkerLost(0.0, worker, BlockFailed("killed"))]
            driver.turn(1.0)
        assert backend.sent == [] and driver.state.studies["s"].failures == {}
        store.error = None
        run_to_end(driver)
        ends_whole(driver, store)
        assert not any(record.failed or record.reason == "retry" for record in read_leases(store, "s"))


@pytest.mark.parametrize("is_stored", [True, False])
def test_what_a_dead_worker_has_stored_makes_no_suspect(is_stored: bool) -> None:
    """Its blocks are done if they have a segment, though no answer said so; the others are tried alone."""
    backend = Dying()
    with world(backend=backend, stored=lambda name: block_set(backend.written)) as (driver, _, store):
        while not backend.sent:
            driver.turn(1.0)
        dead = backend.sent[0].worker
        blocks = {block for lease in backend.sent if lease.worker == dead for block in members(lease.blocks)}
        backend.sent = [lease for lease in backend.sent if lease.worker != dead]
        backend.written |= blocks if is_stored else set()
        backend.said = [WorkerLost(0.0, dead, BlockFailed("killed"))]
        run_to_end(driver)
        ends_whole(driver, store)
        tried = {block for record in read_leases(store, "s") if record.reason == "retry" for block in record.blocks}
        assert tried == (set() if is_stored else blocks)


def test_a_driver_that_slept_past_every_deadline_stops_nobody() -> None:
    """It was stopped for an hour; the answers came meanwhile, or come in a moment."""
    for silent_turns in (0, 3):
        with world(LIMITS, Dying()) as (driver, backend, store):
            while not backend.sent:
                driver.turn(1.0)
            backend.asleep_s = 3600.0
            backend.is_silent = silent_turns > 0
            for _ in range(silent_turns):
                driver.turn(1.0)
            backend.is_silent = False
            run_to_end(driver)
            assert backend.stopped == {}
            ends_whole(driver, store)


def test_an_answer_that_can_be_read_at_the_deadline_is_in_time() -> None:
    with world(LIMITS, Dying()) as (driver, backend, store):
        while not backend.sent:
            driver.turn(1.0)
        backend.is_silent = backend.is_late = True
        for _ in range(120):
            driver.turn(1.0)
        assert backend.stopped == {}
        ends_whole(driver, store)


def test_a_lease_expires_when_the_catalog_has_been_asked() -> None:
    """While the store is away nobody knows what is done; then what is stored was no failure."""
    backend = Dying()
    with world(LIMITS, backend, stored=lambda name: looked(store, backend)) as (driver, _, store):
        while not backend.sent:
            driver.turn(1.0)
        backend.sent, backend.is_silent = [], True
        held = [lease.run for lease in driver.state.leases.values()]
        while driver.now_s < held[0].deadline_s - 0.1:
            driver.turn(min(1.0, held[0].deadline_s - 0.05 - driver.now_s))
        store.error = Unavailable("no answer")
        for _ in range(4):
            driver.turn(1.0)
        assert backend.stopped == {}
        store.error = None
        backend.written |= {block for run in held for block in members(run.blocks)}
        while not backend.stopped:
            driver.turn(1.0)
        assert driver.tally.outcomes["expired"] and not driver.state.studies["s"].suspects


def test_two_runs_of_one_study_share_it() -> None:
    """They begin apart and look at what is stored: hardly a block is computed twice."""
    store, written, blocks = Away(), set[int](), 200
    inbox = Inbox(store)
    runs: list[tuple[Driver, Counting]] = []
    for place in range(2):
        inbox.submit(Entry("s", f"n{place}", "ann", 0, place))
        backend, start = Counting(written), start_of(place, blocks)
        whole = replace(study(blocks=blocks), start=start)
        driver = Driver(
            backend,
            inbox,
            lambda entry, whole=whole: replace(whole, nonce=entry.nonce),  # type: ignore[misc]
            LIMITS,
            epoch=f"e{place}",
            stored=lambda name: block_set(written),
        )
        runs.append((driver, backend))
    for driver, _ in runs:
        driver.recover()
    for _ in range(2000):
        for driver, _ in runs:
            driver.turn(1.0)
    assert [driver.state.studies for driver, _ in runs] == [{}, {}]
    assert len(written) == blocks and sum(backend.count for _, backend in runs) <= 1.2 * blocks
    assert min(backend.count for _, backend in runs) > 0.3 * blocks
    for driver, backend in runs:
        assert driver.tally.cells == backend.count, "a block of this study is one cell"
        assert driver.tally.cells + driver.tally.cells_found == blocks, "what the other has stored is progress too"
    assert inbox.pending() == []


class Counting(Steady):
    count = 0

    def run(self, lease: RunLease) -> None:
        self.count += lease.blocks.bit_count()
        super().run(lease)


def looked(store: Away, backend: Steady) -> int:
    list(store.list("results/"))
    if store.error is not None:
        raise store.error
    return block_set(backend.written)
