"""Affinity, fair share, lease size and scale: the pure choices of the scheduler, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import sim
from cluster.affinity import WorkerView, home
from cluster.lease import BlockCosts, Limits, block_count, deadline_s
from cluster.machine import _Draft
from cluster.messages import BlockAnswer, Tick
from cluster.queue import QueuedStudy, Turns, meter_at_entry
from cluster.scale import least_valuable, wanted
from cluster.submission import Pile, block_set, first, make_piles, members
from cluster.versioned import Versioned
from farm.values.errors import UsageError
from farm.values.settings import StoreSettings
from tests.cluster import plain
from tests.cluster.plain import Holder, Offer, choose, is_held, turns
from tests.cluster.worlds import Block, Play, runs, study
from tests.effort import effort

LIMITS = Limits(workers_max=4)


def pile(key: str, **needs: int) -> Pile:
    return Pile(key, 1, needs, sum(needs.values()))


def offer(place: int, made: Pile, backlog_s: float = 1.0, load_s: float = 1.0) -> Offer:
    return Offer((place, 0), "s", made, backlog_s, load_s)


def worker(name: str, *piles: Pile, **holdings: int) -> Holder:
    """A worker that holds these piles in full, or these bytes of them."""
    in_full = {shard: size for made in piles for shard, size in made.needs.items()}
    view = WorkerView(name, 0.0, 0, "ready", 1, (), in_full | holdings)
    return Holder(view, frozenset(made.key for made in piles))


A, B, C = pile("a", sa=100), pile("b", sb=100), pile("c", sc=100)


def test_warm_work_comes_first_and_the_fuller_one_before_the_earlier() -> None:
    half = worker("w", A, B, sa=60)
    assert choose(half, [offer(0, A), offer(1, B)], [half]) == (offer(1, B), "warm")
    full = worker("w", A, B)
    assert choose(full, [offer(0, A), offer(1, B)], [full]) == (offer(0, A), "warm"), "a tie: the order of submission"


def test_unheld_work_goes_to_its_home_before_anything_else_unheld() -> None:
    workers = [worker("u"), worker("v")]
    piles = [pile(f"p{number}") for number in range(16)]
    homes = {made.key: home(made.key, ["u", "v"]) for made in piles}
    assert set(homes.values()) == {"u", "v"}
    mine = [offer(place, made) for place, made in enumerate(piles) if homes[made.key] == "u"]
    theirs = [offer(place, made, backlog_s=99.0) for place, made in enumerate(piles) if homes[made.key] == "v"]
    assert choose(workers[0], [*theirs, *mine], workers) == (mine[0], "home")
    assert choose(workers[0], theirs, workers) == (theirs[0], "backlog")
    longest = replace(theirs[3], backlog_s=100.0)
    assert choose(workers[0], [*theirs[:3], longest], workers) == (longest, "backlog")


def test_a_replica_only_when_the_backlog_is_worth_the_load() -> None:
    holder, idle = worker("u", A), worker("v")
    assert choose(idle, [offer(0, A, backlog_s=1.9, load_s=2.0)], [holder, idle]) is None
    assert choose(idle, [offer(0, A, backlog_s=2.1, load_s=2.0)], [holder, idle]) == (
        offer(0, A, backlog_s=2.1, load_s=2.0),
        "replica",
    )
    holders = [holder, worker("x", A), idle]
    assert choose(idle, [offer(0, A, backlog_s=2.1, load_s=2.0)], holders) is None, "two holders share it already"


def test_a_few_bytes_that_everybody_needs_make_nobody_warm() -> None:
    made = pile("p", prices=1000, splits=10)
    assert not is_held(made, {"splits": 10})
    assert is_held(made, {"prices": 600})
    assert is_held(made, {"prices": 10**9}), "a cache may hold more of a shard than is needed"


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.text(), st.text(min_size=1))
def test_a_new_worker_takes_only_its_own_share(names: list[str], key: str, new: str) -> None:
    """Rendezvous: adding a worker moves a pile to the new one or not at all."""
    assert home(key, [*names, new]) in {home(key, names), new}


@given(st.sets(st.integers(0, 300)), st.integers(0, 40))
def test_block_sets_are_sets(indices: set[int], count: int) -> None:
    blocks = block_set(indices)
    assert list(members(blocks)) == sorted(indices)
    assert list(members(first(blocks, count))) == sorted(indices)[:count]


def queued(name: str, place: int, submitter: str = "ann", priority: int = 0, since_s: float = 0.0) -> QueuedStudy:
    return QueuedStudy(study(name, submitter=submitter, priority=priority), place, since_s, waiting=0b1111, done=0)


def names(groups: list[tuple[list[QueuedStudy], bool]]) -> list[tuple[list[str], bool]]:
    return [([each.submission.study for each in studies], flag) for studies, flag in groups]


def kept(waiting: list[QueuedStudy], served_s: dict[str, float], now_s: float, limits: Limits) -> object:
    """What ``Turns`` says, after the studies have come, and one of them has left and come back."""
    kept, known = Turns(), {each.submission.study: each for each in waiting}
    for each in waiting:
        kept.change(None, each, 0.0)
    for submitter, meter_s in served_s.items():
        kept.move(submitter, meter_s)
    kept.change(waiting[0], None, 0.0)
    kept.change(None, waiting[0], served_s.get(waiting[0].submitter, 0.0))
    groups = kept.groups(known, now_s, limits)
    return [(sorted(group), late is not None) for group, late in groups]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(0, 40)), min_size=1, max_size=8),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 30).map(float)),
)
def test_turns_that_are_kept_are_those_that_are_looked_for(
    made: list[tuple[str, int, int]], served_s: dict[str, float]
) -> None:
    waiting = [queued(f"s{i}", i, who, priority, float(since)) for i, (who, priority, since) in enumerate(made)]
    limits = replace(LIMITS, fair_s=10.0, wait_s_max=20.0)
    expected = [(sorted(group), flag) for group, flag in names(list(turns(waiting, served_s, 41.0, limits)))]
    assert kept(waiting, served_s, 41.0, limits) == expected


@pytest.mark.parametrize("first_seed", range(0, effort(150), 50))
def test_what_a_worker_is_given_is_what_looking_at_everything_would_give(
    first_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through worlds with crashes, pauses, replicas and overdue studies; and whoever has a free slot after a step has
    been offered all there is."""
    take_one, settle, seen = _Draft.take_one, _Draft.settle, set[str]()

    def asked(draft: _Draft, worker: str) -> plain.Choice | None:
        ready = plain.holders(draft.studies, draft.workers, draft.leases)
        costs, limits = draft.costs, draft.limits
        return plain.choice(worker, draft.studies, ready, draft.served_s, costs, draft.now_s, limits)

    def take(draft: _Draft, worker: str) -> bool:
        expected, before = asked(draft, worker), len(draft.commands)
        took = take_one(draft, worker)
        assert took == (expected is not None)
        if expected is not None:
            run, piles = draft.commands[before], draft.studies[expected.study].submission.piles
            assert (run.study, run.reason) == (expected.study, expected.reason)  # type: ignore[union-attr]
            assert run.blocks & ~piles[expected.place].blocks == 0  # type: ignore[union-attr]
            seen.add(expected.reason)
        return took

    def settled(draft: _Draft) -> None:
        settle(draft)
        if not draft.index.suspects and not draft.is_solo():
            assert [name for name in draft.index.roomy if asked(draft, name) is not None] == []

    monkeypatch.setattr(_Draft, "take_one", take)
    monkeypatch.setattr(_Draft, "settle", settled)
    for seed in range(first_seed, first_seed + 50):
        sim.World(seed).run()
    assert seen >= {"warm", "home", "backlog", "replica"}


def test_priority_first_then_who_had_less() -> None:
    urgent, ann, bob = queued("u", 0, "eve", 5), queued("a", 1, "ann"), queued("b", 2, "bob")
    groups = names(list(turns([ann, bob, urgent], {"ann": 11.0, "bob": 0.5}, 0.0, replace(LIMITS, fair_s=10.0))))
    assert groups == [(["u"], False), (["b"], False), (["a"], False)]
    groups = names(list(turns([ann, bob], {"ann": 10.0, "bob": 0.5}, 0.0, replace(LIMITS, fair_s=10.0))))
    assert groups == [(["a", "b"], False)], "within fair_s affinity may choose"


def test_a_study_that_waited_too_long_comes_before_its_peers() -> None:
    old, young = queued("old", 0, since_s=0.0), queued("young", 1, since_s=29.0)
    limits = replace(LIMITS, wait_s_max=30.0)
    assert names(list(turns([young, old], {}, 31.0, limits)))[0] == (["old"], True)
    assert names(list(turns([young, old], {}, 29.0, limits)))[0] == (["young", "old"], False)


def test_sleeping_earns_no_credit() -> None:
    assert meter_at_entry("new", {"ann": 50.0, "bob": 70.0}, ["ann", "bob"]) == 50.0
    assert meter_at_entry("bob", {"ann": 50.0, "bob": 70.0}, ["ann", "bob"]) == 70.0


def test_two_submitters_get_the_same_share_though_one_has_the_warm_cache() -> None:
    """Two studies that need other bytes, one worker: the meters stay within fair_s and one lease of each other."""
    play = Play(lease_blocks_max=1, ahead_per_slot=1, fair_s=1.0, workers_max=1)
    play.submit(study("a", [{"sa": 100}] * 60, submitter="ann"))
    play.submit(study("b", [{"sb": 100}] * 60, submitter="bob"))
    [flying] = runs(play.ready())
    served = {"a": 0, "b": 0}
    switches, last = 0, flying.study
    for _ in range(100):
        served[flying.study] += 1
        [flying] = runs(play.end(flying, seconds=0.2, holdings={"s" + flying.study: 100}))
        switches += flying.study != last
        last = flying.study
        assert abs(served["a"] - served["b"]) * 0.2 <= 1.0 + 2 * 0.2
    assert switches < 30, "and the cache is not thrown away at every lease"


@pytest.mark.parametrize(
    ("backlog_s", "unfinished", "count"), [(0.0, 0, 0), (1.0, 9, 1), (25.0, 9, 3), (25.0, 2, 2), (999.0, 9, 4)]
)
def test_wanted_workers(backlog_s: float, unfinished: int, count: int) -> None:
    limits = replace(LIMITS, backlog_s_per_worker=10.0)
    assert wanted(backlog_s, unfinished, limits) == count
    assert wanted(backlog_s, unfinished, limits, least=2) == min(max(count, 2), unfinished)


def test_the_least_valuable_cache_is_drained_first() -> None:
    candidates = [
        ("busy", 1, {}),
        ("useful", 0, {"need": 100}),
        ("useless", 0, {"old": 10**6}),
        ("empty", 0, {}),
    ]
    assert least_valuable(candidates, {"need": 100}, 4) == ("empty", "useless", "useful", "busy")


def test_costs_are_learnt_apart_from_loading() -> None:
    costs = BlockCosts().learn("s", BlockAnswer(0, 10, 3.0, 10**6, {"read": 1.0}))
    assert costs.seconds("s", 5, 1) == pytest.approx(1.0)
    assert BlockCosts().byte_s < costs.byte_s < 1e-6
    assert costs.forget("s").seconds("s", 5, 2) == pytest.approx(2 * costs.block_s_prior)


def test_piles_are_compared_by_a_cost_of_loading_that_moves_in_steps() -> None:
    """All piles are ranked anew when it moves; a moving average that wanders by a few per cent moves nothing."""
    costs = BlockCosts(byte_s=1e-8, byte_s_seen=1e-8)
    near = costs.learn("s", BlockAnswer(0, 10, 1.0, 10**6, {"read": 0.012}))
    assert (near.byte_s, near.byte_s_seen) == (1e-8, pytest.approx(1.06e-8))
    far = near.learn("s", BlockAnswer(0, 10, 1.0, 10**6, {"read": 0.014}))
    assert far.byte_s == far.byte_s_seen == pytest.approx(1.162e-8)


def test_piles_of_many_blocks_are_made_in_one_pass() -> None:
    blocks = [Block(index, 5, {f"{index % 3}": 10}) for index in range(50_000)]
    piles = make_piles(blocks)
    assert [list(members(pile.blocks))[:2] for pile in piles] == [[0, 3], [1, 4], [2, 5]]
    assert sum(pile.blocks.bit_count() for pile in piles) == 50_000


def test_an_earlier_version_of_a_mapping_stays_as_it_was() -> None:
    first = Versioned({"a": 1, "b": 2, "c": 3})
    second = first.edit()
    second.pop("a")
    second.put("d", 4)
    third = second.edit()
    third.put("a", 5)
    third.put("b", 6)
    assert [list(each.items()) for each in (first, second, third)] == [
        [("a", 1), ("b", 2), ("c", 3)],
        [("b", 2), ("c", 3), ("d", 4)],
        [("b", 6), ("c", 3), ("d", 4), ("a", 5)],
    ]
    branch = first.edit()
    branch.put("z", 9)
    assert (dict(branch), len(second), "a" in second) == ({"a": 1, "b": 2, "c": 3, "z": 9}, 3, False)
    with pytest.raises(AssertionError, match="stays as it is"):
        first.put("a", 0)


def test_lease_sizes() -> None:
    limits = replace(LIMITS, lease_s=1.0, lease_blocks_max=50, ahead_per_slot=2)
    assert block_count(100, 100, 1, 0.1, False, limits) == 1
    assert block_count(100, 100, 1, 0.1, True, limits) == 10
    assert block_count(100, 100, 10, 0.1, True, limits) == 5, "no more than a slot's share of the rest"
    assert block_count(100, 100, 1, 1e-9, True, limits) == 50
    assert block_count(3, 100, 1, 5.0, True, limits) == 1


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError):
        Limits(workers_max=2, workers_min=3)
    with pytest.raises(
        UsageError, match=r"deadline_s is 66: healthy.*allowed: at least 1.5 times watchdog_s \(180 s\)"
    ):
        Limits(workers_max=2, deadline_s=66.0)
    with pytest.raises(UsageError, match="deadline_s is 200"):
        Limits(workers_max=2, deadline_s=200.0, lease_s=201.0)


def test_deadlines_are_above_what_the_store_may_take_and_double() -> None:
    assert LIMITS.deadline_s > StoreSettings().watchdog_s
    times = [deadline_s(1.0, 2.0, 3.0, attempt, LIMITS) - 1.0 for attempt in (1, 2, 3, 9, 99)]
    assert times == [280.0, 560.0, 1120.0, 4480.0, 4480.0]


def test_a_tick_without_anything_does_nothing() -> None:
    assert Play().feed(Tick(1.0)) == ()
