"""Who is to blame: blocks that were in a lease that fell, tried alone, in halves, in turns, and how often."""

from __future__ import annotations

from dataclasses import replace

from cluster.messages import (
    EndStudy,
    LeaseCrashed,
    NoteLease,
    StartWorker,
    Tick,
    WorkerLost,
)
from farm.values.errors import BlockFailed
from tests.cluster.worlds import Play, blocks_of, runs, study

CRASH = BlockFailed("killed")


def test_a_crash_of_several_leases_blames_nobody_and_each_runs_again_alone() -> None:
    play = Play(lease_blocks_max=2, workers_max=1)
    play.submit(study(blocks=8))
    first, second = runs(play.ready())
    commands = play.feed(WorkerLost(1.0, "e-w0", CRASH))
    notes = [command for command in commands if isinstance(command, NoteLease)]
    assert [(note.outcome, dict(note.failed)) for note in notes] == [("crashed", {}), ("crashed", {})]
    assert StartWorker("e-w1") in commands, "the replacement starts at once"
    [again] = runs(play.ready("e-w1"))
    assert (again.blocks, again.reason) == (first.blocks, "retry"), "alone: no second lease beside it"
    [after] = runs(play.end(again))
    assert (after.blocks, after.reason) == (second.blocks, "retry")
    assert runs(play.end(after))[0].reason == "warm", "then work goes on"


def test_a_group_that_crashes_alone_is_halved_until_the_poison_block_is_found() -> None:
    play = Play(lease_blocks_max=8, lease_s=10.0, ahead_per_slot=1)
    poison = 5
    play.submit(study(blocks=17))
    [flying] = runs(play.ready())
    tried: list[list[int]] = []
    while flying:
        tried.append(blocks_of(flying))
        if poison in tried[-1]:
            commands = play.feed(WorkerLost(0.0, flying.worker, CRASH))
            [name] = [command.worker for command in commands if isinstance(command, StartWorker)]
            commands = play.ready(name)
        else:
            commands = play.end(flying)
        ends = [command for command in commands if isinstance(command, EndStudy)]
        flying = next(iter(runs(commands)), None)  # type: ignore[assignment]
    assert ends == [EndStudy("s", "s-nonce", (1 << 17) - 1 - (1 << poison), {poison: CRASH}, False)]
    assert tried.count([poison]) == 3, "three attempts of its own, no more"


def test_what_is_left_of_a_group_that_crashed_alone_is_not_blamed() -> None:
    """The others of it are stored: it may have been next, or not have been begun."""
    play = Play(lease_blocks_max=2, lease_s=10.0, ahead_per_slot=1)
    play.submit(replace(study(blocks=3), suspects=(0b11,)))
    [run] = runs(play.ready())
    assert (blocks_of(run), run.attempt) == ([0, 1], 1)
    play.feed(WorkerLost(0.0, run.worker, CRASH, stored={"s": 0b1}))
    [run] = runs(play.ready("e-w1"))
    assert (blocks_of(run), run.attempt, run.reason) == ([1], 1, "retry")
    play.feed(WorkerLost(0.0, run.worker, CRASH, stored={"s": 0b1}))
    [run] = runs(play.ready("e-w2"))
    assert (blocks_of(run), run.attempt, run.reason) == ([1], 2, "retry")


def test_a_lease_that_was_never_sent_is_not_blamed_for_the_end_of_its_worker() -> None:
    """Its attempt was not recorded yet; the one that was sent was alone then."""
    play = Play(deadline_s=10.0, deadline_factor=0.0)
    play.submit(study(blocks=4))
    first, second = runs(play.ready())
    commands = play.feed(WorkerLost(0.0, "e-w0", CRASH, unsent=frozenset([second.lease])))
    notes = {command.run.lease: command for command in commands if isinstance(command, NoteLease)}
    assert {name: note.outcome for name, note in notes.items()} == {first.lease: "crashed", second.lease: "cancelled"}
    assert dict(notes[first.lease].failed) == {0: CRASH}
    [again] = runs(play.ready("e-w1"))
    assert (again.blocks, again.attempt) == (first.blocks, 2)
    play.now_s = again.deadline_s
    assert play.feed(Tick(play.now_s, unsent=frozenset([again.lease]))) == (), "nor is its worker stopped for it"
    commands = play.feed(WorkerLost(play.now_s, "e-w1", CRASH, unsent=frozenset([again.lease])))
    [again] = runs(play.ready("e-w2"))
    assert (again.blocks, again.attempt, again.reason) == (first.blocks, 2, "retry")


def test_a_lease_that_crashes_without_its_worker_is_halved_too() -> None:
    play = Play(ahead_per_slot=1, lease_s=10.0)
    play.submit(study(blocks=9))
    [run] = runs(play.ready())
    [run] = runs(play.end(run))
    assert len(blocks_of(run)) == 4
    commands = play.feed(LeaseCrashed(0.0, run.worker, run.lease, run.study, CRASH))
    [half] = runs(commands)
    assert blocks_of(half) == blocks_of(run)[:2]


def test_suspects_of_an_earlier_scheduler_run_alone_and_what_is_feared_alone_in_the_farm() -> None:
    play = Play(workers_max=2, lease_s=10.0)
    play.submit(replace(study(blocks=4, done=0b1), suspects=(0b11, 0b100, 0b1000), solo=0b100))
    assert play.state.studies["s"].suspects == (0b10, 0b100, 0b1000), "what is done is no suspect"
    [run] = runs(play.ready("e-w0"))
    assert (blocks_of(run), run.reason) == ([2], "retry")
    assert runs(play.ready("e-w1")) == [], "nobody beside it"
    leases = runs(play.end(run))
    assert [(blocks_of(run), run.worker, run.reason) for run in leases] == [
        ([1], "e-w0", "retry"),
        ([3], "e-w1", "retry"),
    ]


def test_studies_with_suspects_take_turns() -> None:
    """Those of one study, each of which may hold the worker until a deadline, do not hold up those of another."""
    play = Play(workers_max=1)
    play.submit(replace(study("a", blocks=3), suspects=(0b1, 0b10, 0b100)))
    play.now_s = 1.0
    play.submit(replace(study("b", blocks=2), suspects=(0b1, 0b10)))
    play.now_s = 2.0
    [run] = runs(play.ready())
    order = []
    while run is not None:
        order.append(run.study)
        play.now_s += 1.0
        run = next(iter(runs(play.end(run))), None)  # type: ignore[assignment]
    assert "".join(order) == "ababa"


def test_suspects_that_hang_hold_up_nobody_else() -> None:
    """On a single worker, others have their turn between two suspects, each of which may take until its deadline."""
    play = Play(workers_max=1, ahead_per_slot=1, lease_blocks_max=1, deadline_s=100.0, deadline_factor=0.0)
    play.submit(replace(study("hangs", blocks=4), suspects=(0b1, 0b10, 0b100, 0b1000)))
    play.now_s = 0.5
    play.submit(study("well", blocks=3))
    play.now_s = 1.0
    order: list[str] = []
    worker = 0
    [run] = runs(play.ready())
    while len(order) < 6:
        order.append(run.study)
        if run.study == "well":
            play.now_s += 1.0
            [run] = runs(play.end(run))
            continue
        play.now_s = run.deadline_s
        play.feed(Tick(play.now_s))
        play.feed(WorkerLost(play.now_s, run.worker, CRASH))
        worker += 1
        [run] = runs(play.ready(f"e-w{worker}"))
    assert order == ["hangs", "well"] * 3


def test_of_several_workers_one_goes_on_with_what_is_not_under_suspicion() -> None:
    """However many suspects there are; and for the sake of one there are two workers, if so many are allowed."""
    play = Play(workers_max=3, ahead_per_slot=1, backlog_s_per_worker=1e6)
    assert play.submit(study("well", blocks=9)) == (StartWorker("e-w0"),)
    started = play.submit(replace(study("hangs", blocks=4), suspects=(0b1, 0b10, 0b100, 0b1000)))
    assert started == (StartWorker("e-w1"),)
    leases = [*runs(play.ready("e-w0")), *runs(play.ready("e-w1"))]
    assert sorted(run.study for run in leases) == ["hangs", "well"]
    [well] = [run for run in leases if run.study == "well"]
    for _ in range(5):
        [well] = runs(play.end(well, seconds=5.0))
        assert well.study == "well"


def test_a_block_without_attempts_left_is_no_suspect() -> None:
    play = Play()
    play.submit(replace(study(blocks=2, done=0b10, failures={0: (3, "killed")}), suspects=(0b1,)))
    assert play.state.studies == {}


def test_suspects_of_a_lower_priority_wait_as_its_other_blocks_do() -> None:
    play = Play(workers_max=2, ahead_per_slot=1, lease_blocks_max=1)
    play.submit(replace(study("low", blocks=2), suspects=(0b1, 0b10)))
    play.submit(study("high", blocks=3, priority=5))
    flying = [*runs(play.ready("e-w0")), *runs(play.ready("e-w1"))]
    order = []
    while flying:
        run = flying.pop(0)
        order.append(run.study)
        flying += runs(play.end(run))
    assert order == ["high"] * 3 + ["low"] * 2
