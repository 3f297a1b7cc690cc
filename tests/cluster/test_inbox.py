"""The durable side: what is in the bucket is all that a new scheduler needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from cluster.backend import Backend
from cluster.driver import Driver
from cluster.inbox import Attempts, Entry, Inbox
from cluster.lease import Limits
from cluster.messages import (
    BlockAnswer,
    Ending,
    EndStudy,
    NoteLease,
    Reason,
    RunLease,
)
from cluster.submission import Submission, block_set
from farm.results.leases import IN_PROCESS, LeaseRecord, put_numbered, read_leases
from farm.shard.layout import inbox_key, lease_key, lease_segment_key
from farm.store.base import Store
from farm.store.local import LocalStore
from farm.store.memory import MemoryStore
from farm.store.wrap import Around
from farm.values.errors import AlreadyExists, BlockFailed, DataError
from tests.cluster.worlds import Steady, study

RUN = RunLease("e-000001", "s", "n1", "e-w0", 0b1011, 1, "home", 9.0)


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path_factory.mktemp("store"))


def entry(study: str = "s", nonce: str = "n1", at_ns: int = 5) -> Entry:
    return Entry(study, nonce, "ann", 0, at_ns)


def test_every_submission_has_a_key_of_its_own(store: Store) -> None:
    inbox = Inbox(store)
    for nonce in ("n2", "n1", "n1"):
        inbox.submit(entry(nonce=nonce))
    assert inbox.pending() == [entry(nonce="n1"), entry(nonce="n2")]
    assert inbox.pending_of("s") == inbox.pending() and inbox.pending_of("t") == []
    with pytest.raises(AlreadyExists):
        inbox.submit(entry(nonce="n1", at_ns=6))


class Meanwhile(Around):
    """A store where something happens just before each delete."""

    def __init__(self, inner: Store, act: Callable[[], None]) -> None:
        super().__init__(inner)
        self.act = act

    def delete(self, key: str) -> None:
        self.act()
        super().delete(key)


@pytest.mark.parametrize("who", ["finish", "pending"])
def test_a_submission_between_marker_and_clearing_is_kept(store: Store, who: str) -> None:
    """It was acknowledged while its predecessor was on the way out, whoever clears that away."""
    Inbox(store).submit(entry(nonce="n1"))
    left = store.get(inbox_key("s", "n1"))
    slow = Inbox(Meanwhile(store, lambda: Inbox(store).submit(entry(nonce="n2"))))
    if who == "pending":
        Inbox(store).finish(EndStudy("s", "n1", 0b1, {}, False))
        store.put(inbox_key("s", "n1"), left)
        slow.pending()
    else:
        slow.finish(EndStudy("s", "n1", 0b1, {}, False))
    assert Inbox(store).pending() == [entry(nonce="n2")]


def test_those_that_joined_a_study_end_with_it(store: Store) -> None:
    inbox = Inbox(store)
    for nonce in ("n1", "n2", "n3"):
        inbox.submit(entry(nonce=nonce))
    inbox.finish(EndStudy("s", "n1", 0b1, {}, False, ("n2",)))
    assert inbox.pending() == [entry(nonce="n3")]


def test_submissions_of_an_earlier_version_are_read_and_cleared(store: Store) -> None:
    inbox = Inbox(store)
    inbox.submit(entry(nonce="old"))
    store.put(inbox_key("s", ""), store.get(inbox_key("s", "old")))
    store.delete(inbox_key("s", "old"))
    inbox.submit(entry(nonce="new"))
    assert [each.nonce for each in inbox.pending_of("s")] == ["new", "old"]
    inbox.finish(EndStudy("s", "new", 0b1, {}, False))
    assert inbox.pending() == [entry(nonce="old")]
    inbox.finish(EndStudy("s", "old", 0b1, {}, False))
    assert [meta.key for meta in store.list("inbox/")] == []


def test_the_queue_is_in_the_order_of_submission_whatever_the_names_are(store: Store) -> None:
    inbox = Inbox(store)
    for name, at_ns in (("a", 2**62 + 3), ("b", 2**62 + 1), ("c", 2**62 + 1)):
        inbox.submit(entry(name, at_ns=at_ns))
    assert [each.study for each in inbox.pending()] == ["b", "c", "a"]


def test_a_wrong_clock_puts_nobody_before_or_behind_others(store: Store) -> None:
    inbox = Inbox(store)
    for name, submitter, at_ns in (
        ("a1", "ann", 5),
        ("a2", "ann", 6),
        ("b1", "bob", 0),
        ("b2", "bob", 1),
        ("c", "eve", 9**19),
    ):
        inbox.submit(Entry(name, "n", submitter, 0, at_ns))
    assert [each.study for each in inbox.pending()] == ["a1", "b1", "c", "a2", "b2"]


def test_after_its_end_a_study_can_be_submitted_anew(store: Store) -> None:
    inbox = Inbox(store)
    inbox.submit(entry(nonce="n1"))
    inbox.finish(EndStudy("s", "n1", 0b1, {1: BlockFailed("killed")}, False))
    assert inbox.pending() == []
    inbox.submit(entry(nonce="n2"))
    assert inbox.pending() == [entry(nonce="n2")]


def test_a_crash_between_marker_and_clearing_is_made_good(store: Store) -> None:
    inbox = Inbox(store)
    inbox.submit(entry(nonce="n1"))
    left = store.get(inbox_key("s", "n1"))
    inbox.finish(EndStudy("s", "n1", 0b1, {}, False))
    store.put(inbox_key("s", "n1"), left)
    assert inbox.pending() == []
    inbox.finish(EndStudy("s", "n1", 0b1, {}, False))  # and to end it twice is harmless
    assert list(store.list("inbox/")) == []


def test_an_attempt_is_there_before_it_is_sent_and_says_afterwards_how_it_went(store: Store) -> None:
    inbox = Inbox(store)
    inbox.journal("s", "e-00000000", [RUN])
    [record] = read_leases(store, "s")
    assert (record.outcome, record.blocks, record.reason) == ("sent", (0, 1, 3), "home")
    inbox.journal("s", "e-00000000", [RUN])  # a retry whose first answer was lost
    with pytest.raises(AlreadyExists):
        inbox.journal("s", "e-00000000", [replace(RUN, blocks=0b1)])
    reports = (
        BlockAnswer(0, 10, 0.5, 100, {"read": 0.1, "run": 0.4}),
        BlockAnswer(1, 10, 0.5, 0, {"run": 0.5}),
        BlockAnswer(3, 0, 0.1, 0, error=DataError("bad", place="x")),
    )
    inbox.journal("s", "e-00000001", [NoteLease(RUN, "done", reports, {3: DataError("bad", place="x")})])
    [record] = read_leases(store, "s")
    assert (record.outcome, record.cells, record.bytes_fetched) == ("done", 20, 100)
    assert record.seconds == {"read": 0.1, "run": 0.9}
    assert (record.worker, record.attempt) == ("e-w0", 1)
    assert record.failed[3]["message"] == "bad"


def test_failures_count_within_one_submission(store: Store) -> None:
    inbox = Inbox(store)
    for number, nonce in enumerate(("n1", "n1", "n2")):
        run = RunLease(f"e-{number:06d}", "s", nonce, "e-w0", 0b10, 1, "retry", 9.0)
        note = NoteLease(run, "crashed", (), {1: BlockFailed(f"death {number}")}, BlockFailed("death"))
        inbox.journal("s", f"e-{number:08d}", [run, note])
    assert inbox.attempts("s", "n1").failures == {1: (2, "death 1")}
    assert inbox.attempts("s", "n2").failures == {1: (1, "death 2")}
    assert inbox.attempts("other", "n1").failures == {}


def test_attempts_that_nobody_answered_make_their_blocks_suspects(store: Store) -> None:
    """A group that was alone is halved, a single block that was alone has failed; what was tried later counts."""
    inbox = Inbox(store)

    def attempt(number: int, blocks: int, reason: Reason, outcome: Ending | None = None) -> None:
        run = RunLease(f"e-{number:06d}", "s", "n1", "e-w0", blocks, 1, reason, 9.0)
        inbox.journal("s", f"e-{2 * number:08d}", [run])
        if outcome is not None:
            inbox.journal("s", f"e-{2 * number + 1:08d}", [NoteLease(run, outcome)])

    attempt(0, 0b11, "warm", "done")
    attempt(1, 0b11100, "home")
    assert inbox.attempts("s", "n1") == Attempts({}, (0b11100,), 0)
    attempt(2, 0b11100, "retry", "crashed")
    assert inbox.attempts("s", "n1") == Attempts({}, (0b00100, 0b11000), 0)
    attempt(3, 0b00100, "retry", "done")
    attempt(4, 0b11000, "retry")
    assert inbox.attempts("s", "n1").suspects == (0b01000, 0b10000)
    attempt(5, 0b01000, "retry")
    found = inbox.attempts("s", "n1")
    assert (found.suspects, found.solo) == ((0b10000, 0b01000), 0b01000)
    assert found.failures == {3: (1, "attempt e-000005 was never answered: driver or host went down with it")}


def test_a_block_that_kills_the_driver_is_found_and_its_neighbours_finish(store: Store) -> None:
    """Every driver dies with whatever is in flight as soon as the block runs; the next knows nothing but the bucket."""
    inbox, poison, written = Inbox(store), 5, set[int]()
    inbox.submit(entry())

    class Host(Steady):
        """Workers that end a lease one turn after it was sent, unless the host dies first."""

        def run(self, lease: RunLease) -> None:
            if lease.blocks >> poison & 1:
                raise HostDown
            self.sent.append(lease)

    def load(one: Entry) -> Submission:
        before = inbox.attempts(one.study, one.nonce)
        known = Submission("s", one.nonce, "ann", 0, study(blocks=12).cells, study(blocks=12).piles, block_set(written))
        return replace(known, failures=before.failures, suspects=before.suspects, solo=before.solo)

    for epoch in range(20):
        host = Host(written)
        driver = Driver(host, inbox, load, Limits(workers_max=4, workers_min=4, lease_s=9.0), epoch=f"e{epoch:02d}")
        try:
            driver.recover()
            while driver.state.studies:
                driver.turn(1.0)
        except HostDown:
            continue
        break
    assert driver.ended["s"].done == 0xFFF & ~(1 << poison) and set(driver.ended["s"].quarantined) == {poison}
    assert "never answered" in str(driver.ended["s"].quarantined[poison])


class HostDown(BaseException):
    """Everything on this host is gone."""


def test_records_of_runs_in_one_process_are_no_attempts(store: Store) -> None:
    """``farm.work.run`` notes its own work beside ours; it has no nonce, so it counts against nobody."""
    put_numbered(store, LeaseRecord("s", IN_PROCESS, IN_PROCESS, 1, (0,)), "local")
    assert [record.lease for record in read_leases(store, "s")] == ["local-000000"]
    assert Inbox(store).attempts("s", "n1").failures == {}


DAMAGED = [b"", b"{", b"[]", b'{"study":"s"}', b'{"study":"s","nonce":"n","at_ns":"x"}', b"\xff"]
COPY = b'{"study":"t","nonce":"n","submitter":"ann","priority":0,"at_ns":"5"}'
"""Whole, but of another study."""


@pytest.mark.parametrize("damage", [*DAMAGED, COPY, COPY.replace(b'"t"', b'"s"').replace(b'"5"', b"[]")])
def test_a_damaged_submission_is_named_and_stops_no_other(store: Store, damage: bytes) -> None:
    inbox = Inbox(store)
    store.put(inbox_key("s", "n"), damage)
    store.put("inbox/notes.txt", b"not ours")
    inbox.submit(entry("t"))
    assert inbox.pending() == [entry("t")]
    entries, damaged = inbox.survey()
    assert (entries, list(damaged)) == ([entry("t")], ["s"])
    assert damaged["s"].place == "inbox/s/n.json"
    assert damaged["s"].hint == "remove it and submit the study again"
    inbox.submit(entry("s", "m"))
    assert inbox.pending() == [entry("s", "m"), entry("t")]


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"nonce":"n1","failed":[1]}', b'{"nonce":"n1","failed":{"x":{}}}'])
def test_a_damaged_attempt_is_named(store: Store, damage: bytes) -> None:
    """How often a block has failed decides whether it is tried again: a guess would be the wrong one."""
    store.put(lease_key("s", "e-000001"), damage)
    with pytest.raises(DataError, match=r"^studies/s/leases/e-000001\.json: "):
        Inbox(store).attempts("s", "n1")
    assert Inbox(store).attempts("t", "n1").failures == {}


def test_a_part_of_a_segment_of_attempts_is_named(store: Store) -> None:
    """Wherever it was cut, or changed: what is missing may be the third failure of a block."""
    Inbox(store).journal("s", "e-00000000", [replace(RUN, lease=f"e-{number:06d}") for number in range(3)])
    key = lease_segment_key("s", "e-00000000")
    whole = store.get(key)
    for data in (*(whole[:cut] for cut in range(0, len(whole), 7)), whole.replace(b'"home"', b'"warm"', 1), whole * 2):
        store.put(key, data)
        with pytest.raises(DataError, match=r"^studies/s/leases/e-00000000\.jsonl: lease segment cannot be read"):
            Inbox(store).attempts("s", "n1")
    store.put(key, whole)
    assert Inbox(store).attempts("s", "n1").suspects == (0b1011,)


def test_recovery_goes_on_without_what_is_damaged(store: Store) -> None:
    """A submission, an attempt, a record: each is the error of its study, and the others are queued."""
    inbox = Inbox(store)
    for name in "abcd":
        inbox.submit(entry(name))
    store.put(inbox_key("a", "n1"), b"{")
    store.put(lease_key("b", "e-000001"), b"{")

    def load(one: Entry) -> Submission:
        if one.study == "c":
            raise DataError("study record cannot be read", place="studies/c/study.json")
        return replace(study(one.study), failures=inbox.attempts(one.study, one.nonce).failures)

    backend = SimpleNamespace(now_s=lambda: 0.0, start=lambda worker: None)
    driver = Driver(cast(Backend, backend), inbox, load, Limits(workers_max=1), epoch="e")
    driver.recover()
    assert list(driver.state.studies) == ["d"]
    places = {name: error.place for name, error in driver.refused.items()}
    assert places == {"a": "inbox/a/n1.json", "b": lease_key("b", "e-000001"), "c": "studies/c/study.json"}
