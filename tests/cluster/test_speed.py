"""What must not grow with the farm: the cost of an event, of a cold start, of recovery. Figures are in the bench."""

from __future__ import annotations

import time

import pytest

from cluster import invariants
from cluster.inbox import Inbox
from farm.store.memory import MemoryStore
from tests.bench.scheduler import Farm, recorded

pytestmark = pytest.mark.slow
ATTEMPTS = 100_000


def test_many_workers_and_users_do_not_slow_a_step_down() -> None:
    """1,000 workers, 100 users, 100,000 blocks: 2,000 events a second (see the bench for how many more there are); what
    would look at everything that is in the queue for every event manages 20."""
    farm = Farm(1000, 100, 100_000)
    start = time.process_time()
    farm.answer(2000)
    assert 2000 / (time.process_time() - start) > 2000
    invariants.check(farm.state)


def test_many_workers_that_come_up_cold_do_not_hold_it_up() -> None:
    """Each of 1,000 looks for its share of 1,000 piles that nobody holds: more than a minute, if it looks at all."""
    farm = Farm(1000, 100, 100_000, is_warm=False)
    start = time.process_time()
    farm.come_up()
    assert time.process_time() - start < 10
    start = time.process_time()
    farm.answer(2000)
    assert 2000 / (time.process_time() - start) > 1000
    invariants.check(farm.state)


def test_a_scheduler_starts_from_a_hundred_thousand_attempts() -> None:
    """Each of them sent and ended, in segments of some hundred records; within 10 s are meant, to the second."""
    inbox = Inbox(MemoryStore())
    recorded(inbox, ATTEMPTS)
    start = time.process_time()
    found = inbox.attempts("s", "n1")
    assert time.process_time() - start < 10
    assert set(found.failures) == set(range(0, ATTEMPTS, 1000)) and found.suspects == ()
