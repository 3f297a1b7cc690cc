"""The scheduler's machine: feed an event, compare the commands; invariants hold after every step (``Play`` checks)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine import step
from cluster.messages import (
    BlockAnswer,
    CancelLease,
    Cancelled,
    EndStudy,
    GiveUp,
    LeaseEnded,
    NoteLease,
    RefuseStudy,
    RunLease,
    StartWorker,
    StopWorker,
    Submitted,
    Tick,
    WorkerLost,
    WorkerReady,
)
from cluster.state import Impossible, State, machine_away_s, next_wake_s
from cluster.submission import members, start_of
from farm.values.errors import BlockFailed, CapacityError, DataError, ResultConflict, Unavailable
from tests.cluster.worlds import Play, blocks_of, runs, study

CRASH = BlockFailed("killed")


def test_a_study_starts_workers_and_ends_when_every_block_is_done() -> None:
    play = Play()
    assert play.submit(study(blocks=2)) == (StartWorker("e-w0"),)
    leases = runs(play.ready())
    assert [blocks_of(run) for run in leases] == [[0], [1]], "costs unknown: one block each, two in flight"
    assert [run.lease for run in leases] == ["e-000000", "e-000001"]
    [note] = play.end(leases[0])
    assert isinstance(note, NoteLease) and note.outcome == "done"
    note, end = play.end(leases[1])
    assert end == EndStudy("s", "s-nonce", 0b11, {}, False)
    assert play.state.studies == {} and play.state.leases == {}


def test_leases_are_sized_by_time_once_costs_are_known_and_shrink_towards_the_end() -> None:
    play = Play(lease_blocks_max=64, lease_s=1.0)
    play.submit(study(blocks=40))
    first, second = runs(play.ready())
    [third] = runs(play.end(first, seconds=0.1))
    assert third.blocks.bit_count() == 10, "1 s of blocks of 0.1 s"
    sizes = []
    flying = [second, third]
    while flying:
        new = runs(play.end(flying.pop(0), seconds=0.1))
        flying += new
        sizes += [run.blocks.bit_count() for run in new]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 1


def test_a_study_whose_blocks_are_all_done_ends_at_once_and_starts_nobody() -> None:
    play = Play()
    assert play.submit(study(blocks=2, done=0b11)) == (EndStudy("s", "s-nonce", 0b11, {}, False),)


def test_submitted_twice_is_one_study_that_ends_once_for_both() -> None:
    play = Play()
    play.submit(study(blocks=1))
    again = replace(study(blocks=1), nonce="other")
    assert play.submit(study(blocks=1)) == play.submit(again) == play.submit(again) == ()
    [run] = runs(play.ready())
    assert play.end(run)[-1] == EndStudy("s", "s-nonce", 0b1, {}, False, ("other",))


def test_a_block_that_ends_in_an_error_is_tried_three_times() -> None:
    play = Play(ahead_per_slot=1)
    play.submit(study(blocks=1))
    [run] = runs(play.ready())
    error = DataError("a bad chunk")
    attempts = []
    for _ in range(3):
        attempts.append(run.attempt)
        commands = play.end(run, reports=[BlockAnswer(0, 0, 0.1, 0, error=error)])
        run = next(iter(runs(commands)), run)
    assert attempts == [1, 2, 3]
    assert commands[-1] == EndStudy("s", "s-nonce", 0, {0: error}, False)


def test_a_conflict_of_results_is_not_tried_again() -> None:
    play = Play(ahead_per_slot=1)
    play.submit(study(blocks=1))
    [run] = runs(play.ready())
    error = ResultConflict("other rows")
    commands = play.end(run, reports=[BlockAnswer(0, 0, 0.1, 0, error=error)])
    assert commands[-1] == EndStudy("s", "s-nonce", 0, {0: error}, False)


def test_a_store_that_is_away_pauses_the_study_and_blames_no_block() -> None:
    """However often: the block waits, and its study gets no lease for a moment; others go on."""
    play = Play(ahead_per_slot=1, pause_s=2.0, watchdog_s=60.0)
    play.submit(study(blocks=1))
    [run] = runs(play.ready())
    away = [BlockAnswer(0, 0, 0.1, 0, error=Unavailable("no answer"))]
    for _ in range(5):
        commands = play.end(run, reports=away)
        assert [(note.failed, run.attempt) for note in commands if isinstance(note, NoteLease)] == [({}, 1)]
        assert runs(commands) == [] and next_wake_s(play.state) == play.now_s + 2.0
        play.now_s += 2.0
        [run] = runs(play.feed(Tick(play.now_s)))
    assert machine_away_s(play.state, play.now_s) == 10.0
    play.end(run, reports=away)
    [other] = runs(play.submit(study("t", blocks=1)))
    assert other.study == "t"
    play.end(other)
    play.now_s += 2.0
    [run] = runs(play.feed(Tick(play.now_s)))
    assert play.end(run)[-1] == EndStudy("s", "s-nonce", 0b1, {}, False)


def test_a_store_that_workers_miss_for_as_long_as_the_watchdog_allows_is_given_up() -> None:
    play = Play(ahead_per_slot=1, pause_s=2.0, watchdog_s=5.0)
    play.submit(study(blocks=2))
    [run] = runs(play.ready())
    error = Unavailable("no answer")
    for expected in ([], [], [], [GiveUp(error)]):
        commands = play.end(run, reports=[BlockAnswer(blocks_of(run)[0], 0, 0.1, 0, error=error)])
        assert [command for command in commands if isinstance(command, GiveUp)] == expected
        play.now_s += 2.0
        [run] = runs(play.feed(Tick(play.now_s)))
    play.end(run)
    assert machine_away_s(play.state, play.now_s) == 0.0, "a block that ends well ends it"


def test_a_hung_worker_is_killed_at_the_deadline_and_only_the_late_lease_is_suspect() -> None:
    play = Play(deadline_s=10.0, deadline_factor=0.0)
    play.submit(study(blocks=4))
    first, second = runs(play.ready())
    play.now_s = 5.0
    [third] = runs(play.end(second))  # sent at 5 s: not late yet at 10 s
    assert next_wake_s(play.state) == 10.0
    commands = play.feed(Tick(10.0))
    assert [command.worker for command in commands if isinstance(command, StopWorker)] == ["e-w0"]
    outcomes = {c.run.lease: c.outcome for c in commands if isinstance(c, NoteLease)}
    assert outcomes == {first.lease: "expired", third.lease: "cancelled"}
    assert play.feed(WorkerLost(10.5, "e-w0", CRASH)) == ()
    leases = runs(play.ready("e-w1"))
    assert (leases[0].blocks, leases[0].reason) == (first.blocks, "retry")


def test_a_cold_worker_is_given_the_time_to_load_and_each_attempt_twice_the_time() -> None:
    """Loading is part of what is expected where the worker is cold, and only there."""
    play = Play(deadline_s=10.0, deadline_factor=2.0, ahead_per_slot=1)
    play.submit(study(blocks=[{"aa": 10**9}]))
    [run] = runs(play.ready())
    cold_s = 10.0 + 2.0 * (0.3 + 0.02 + 20.0)
    given = []
    while True:
        given.append(run.deadline_s - play.now_s)
        play.now_s = run.deadline_s
        commands = play.feed(Tick(play.now_s))
        play.feed(WorkerLost(play.now_s, run.worker, CRASH))
        if any(isinstance(command, EndStudy) for command in commands):
            break
        [run] = runs(play.ready(f"e-w{len(given)}"))
    assert given == pytest.approx([cold_s, 2 * cold_s, 4 * cold_s])
    play.submit(study("warm", blocks=[{"bb": 10**9}]))
    [run] = runs(play.ready(f"e-w{len(given)}", holdings={"bb": 10**9}))
    assert run.deadline_s - play.now_s == pytest.approx(10.6)


def test_a_late_answer_is_harmless_and_what_it_did_counts() -> None:
    play = Play(deadline_s=10.0, deadline_factor=0.0, ahead_per_slot=1)
    play.submit(study(blocks=1))
    [run] = runs(play.ready())
    play.feed(Tick(10.0))
    commands = play.end(run)
    assert commands == (EndStudy("s", "s-nonce", 0b1, {}, False),)
    assert play.end(run) == (), "and once more, after the study has ended"


def test_answers_meant_for_an_earlier_scheduler_change_nothing() -> None:
    play = Play()
    play.submit(study())
    before = play.state.studies
    assert play.feed(LeaseEnded(0.0, "old-w0", "old-000007", "s", (BlockAnswer(0, 1, 0.1, 0),))) == ()
    assert play.feed(WorkerLost(0.0, "old-w0", CRASH)) == ()
    assert play.feed(WorkerReady(0.0, "old-w3", 1)) == (StopWorker("old-w3", "not one of ours any more"),)
    assert play.state.studies == before


def test_cancel_frees_the_slot_within_its_limit_and_keeps_what_is_done() -> None:
    play = Play(ahead_per_slot=1, cancel_s=2.0)
    play.submit(study(blocks=3))
    [run] = runs(play.ready())
    [run] = runs(play.end(run))
    assert play.feed(Cancelled(1.0, "s")) == (CancelLease("e-w0", run.lease),)
    assert next_wake_s(play.state) == 3.0
    commands = play.feed(Tick(3.0))
    assert StopWorker("e-w0", "a lease ran past its deadline") in commands
    assert EndStudy("s", "s-nonce", 0b1, {}, True) in commands


def test_a_study_cannot_come_back_while_it_is_being_cancelled() -> None:
    play = Play()
    play.submit(study())
    play.ready()
    play.feed(Cancelled(0.0, "s"))
    [refusal] = play.submit(study())
    assert isinstance(refusal, RefuseStudy) and isinstance(refusal.error, CapacityError)


def test_a_full_queue_refuses_with_a_reason() -> None:
    play = Play(queue_blocks_max=5)
    play.submit(study("a", blocks=4))
    [refusal] = play.submit(study("b", blocks=2))
    assert isinstance(refusal, RefuseStudy)
    assert "the queue holds 4 blocks; 2 more are too many" in str(refusal.error)


def test_failures_of_an_earlier_scheduler_count() -> None:
    play = Play()
    submission = study(blocks=2, failures={0: (3, "killed"), 1: (2, "killed")})
    play.submit(submission)
    [run] = runs(play.ready())
    assert (blocks_of(run), run.attempt) == ([1], 3)
    commands = play.end(run)
    [end] = [command for command in commands if isinstance(command, EndStudy)]
    assert set(end.quarantined) == {0}


def test_down_to_zero_after_some_patience_and_up_at_once() -> None:
    play = Play(workers_max=2, idle_s=60.0, ahead_per_slot=1)
    commands = play.submit(study(blocks=2))
    assert commands == (StartWorker("e-w0"), StartWorker("e-w1"))
    [run] = runs(play.ready("e-w0"))
    [other] = runs(play.ready("e-w1"))
    play.end(run)
    play.end(other)
    assert next_wake_s(play.state) == 60.0
    assert play.feed(Tick(59.0)) == ()
    commands = play.feed(Tick(60.0))
    assert {c.worker for c in commands if isinstance(c, StopWorker)} == {"e-w0", "e-w1"}
    play.feed(WorkerLost(60.1, "e-w0", CRASH))
    play.feed(WorkerLost(60.1, "e-w1", CRASH))
    assert play.state.workers == {} and next_wake_s(play.state) is None


def test_a_draining_worker_finishes_its_leases_and_is_taken_back_when_work_comes() -> None:
    play = Play(workers_max=2, idle_s=10.0, ahead_per_slot=1)
    play.submit(study("a", blocks=2))
    [run] = runs(play.ready("e-w0"))
    [other] = runs(play.ready("e-w1"))
    play.end(run)  # one block is left: one worker too many
    commands = play.feed(Tick(10.0))
    assert [c.worker for c in commands if isinstance(c, StopWorker)] == ["e-w0"], "the idle one goes, not the busy one"
    assert play.state.workers["e-w1"].leases == (other.lease,)


def test_workers_that_never_come_up_are_given_up() -> None:
    play = Play(workers_max=1, start_failures_max=3)
    play.submit(study())
    error = DataError("the golden vectors differ")
    for number in range(2):
        assert play.feed(WorkerLost(0.0, f"e-w{number}", error)) == (StartWorker(f"e-w{number + 1}"),)
    assert play.feed(WorkerLost(0.0, "e-w2", error)) == (GiveUp(error),)


def test_who_submits_after_that_gets_workers() -> None:
    """Giving up is for those who wait now: also the same study, submitted again, tries anew, and is told anew."""
    play = Play(workers_max=1, start_failures_max=1)
    play.submit(study())
    error = DataError("the golden vectors differ")
    assert play.feed(WorkerLost(0.0, "e-w0", error)) == (GiveUp(error),)
    assert play.feed(Tick(1.0)) == ()
    assert play.submit(study("t")) == (StartWorker("e-w1"),)
    assert play.feed(WorkerLost(1.0, "e-w1", error)) == (GiveUp(error),)
    assert play.submit(study("t")) == (StartWorker("e-w2"),)


def test_a_study_begins_where_it_is_told_to_and_wraps_around() -> None:
    play = Play(ahead_per_slot=1)
    play.submit(replace(study(blocks=4), start=start_of(1, 4)))
    [run] = runs(play.ready())
    order = []
    while run is not None:
        order += blocks_of(run)
        run = next(iter(runs(play.end(run, seconds=5.0))), None)  # type: ignore[assignment]
    assert order == [2, 3, 0, 1]
    assert [start_of(place, 16) for place in range(6)] == [0, 8, 4, 12, 2, 10]


def test_what_cannot_happen_names_state_event_and_story_and_changes_nothing() -> None:
    play = Play()
    play.submit(study())
    [run, _] = runs(play.ready())
    before = play.state
    wrong = LeaseEnded(0.0, "e-w0", run.lease, "s", (BlockAnswer(3, 1, 0.1, 0),))
    with pytest.raises(Impossible, match=r"LeaseEnded of what is 'without that block'.*leased e-w0 e-000000"):
        step(play.state, wrong)
    with pytest.raises(Impossible, match="unknown"):
        step(play.state, WorkerReady(0.0, "e-w9", 1))
    with pytest.raises(Impossible, match="of another worker"):
        step(play.state, LeaseEnded(0.0, "e-w1", run.lease, "s", ()))
    assert play.state is before


@pytest.mark.slow
def test_every_order_of_small_events_keeps_the_invariants_and_ends() -> None:
    """Three blocks, one worker: whatever ends, crashes or expires in whatever order, the study ends at zero workers."""
    moves = ("end", "crash", "fail", "tick", "twice")
    seen = set()
    for order in itertools.product(moves, repeat=5):
        play = Play(workers_max=1, ahead_per_slot=2, deadline_s=10.0, idle_s=1.0)
        play.submit(study(blocks=3))
        _play_out(play, order)
        assert play.state.studies == {} and play.state.leases == {} and play.state.workers == {}
        seen.add(len(play.state.story))
    assert len(seen) > 5, "the orders differ in what happens"


@given(
    st.lists(st.sampled_from(("end", "crash", "fail", "tick", "twice")), max_size=30),
    st.integers(1, 20),
    st.integers(1, 3),
)
def test_any_story_ends_with_every_block_done_or_quarantined(moves: list[str], blocks: int, workers: int) -> None:
    """Invariants hold after every step, and at the end nothing waits, flies or serves."""
    play = Play(workers_max=workers, deadline_s=10.0, idle_s=1.0, lease_s=0.4)
    play.submit(study(blocks=blocks))
    _play_out(play, tuple(moves))
    assert play.state.studies == {} and play.state.leases == {} and play.state.workers == {}


def _play_out(play: Play, order: tuple[str, ...]) -> None:
    """Make the moves of ``order``, then let everything go well, until nothing is left."""
    moves = list(order)
    for _ in range(2000):
        state: State = play.state
        starting = [name for name, worker in state.workers.items() if worker.status == "starting"]
        stopping = [name for name, worker in state.workers.items() if worker.status == "stopping"]
        if starting:
            play.ready(starting[0])
        elif stopping:
            play.feed(WorkerLost(play.now_s, stopping[0], CRASH))
        elif state.leases:
            run = next(iter(state.leases.values())).run
            _move(play, moves.pop(0) if moves else "end", run)
        elif state.workers:
            play.now_s += 1.0
            play.feed(Tick(play.now_s))
        else:
            return
    raise AssertionError(f"no end after {order}")


def _move(play: Play, move: str, run: RunLease) -> None:
    if move == "crash":
        play.feed(WorkerLost(play.now_s, run.worker, CRASH))
    elif move == "fail":
        play.end(run, reports=[BlockAnswer(block, 0, 0.1, 0, error=CRASH) for block in members(run.blocks)])
    elif move == "tick":
        play.now_s += 11.0
        play.feed(Tick(play.now_s))
    else:
        play.end(run)
        if move == "twice":
            play.end(run)


def test_the_state_before_a_step_is_never_changed() -> None:
    play = Play()
    before = play.state
    text = repr(before)
    step(before, Submitted(0.0, study()))
    assert repr(before) == text
