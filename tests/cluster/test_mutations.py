"""The simulator can fail: each of these faults, planted in the scheduler or in what it stands on, is caught.

A fault is caught when a world of one of the first seeds breaks a property; that it breaks by an error of another kind
would say that the fault was planted badly. Beside each stands what the first world that catches it complains about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from cluster import affinity, driver, lease, machine, queue, scale, sim
from cluster.affinity import Choice, Piles
from cluster.driver import Driver
from cluster.inbox import Attempts, Inbox
from cluster.lease import BlockCosts, Lease
from cluster.machine import _Draft
from cluster.messages import (
    Ending,
    EndStudy,
    LeaseCrashed,
    LeaseEnded,
    NoteLease,
    Reason,
    RefuseStudy,
    RunLease,
    Submitted,
    WorkerLost,
    WorkerReady,
)
from cluster.queue import Group, QueuedStudy, Turns
from cluster.sim_cluster import SimStudy
from cluster.sim_store import SimStore
from farm.shard.layout import inbox_key

SEEDS_MAX = 300
Plant = Callable[[pytest.MonkeyPatch], None]
FAULTS: dict[str, tuple[Plant, str]] = {}


def fault(name: str, found: str) -> Callable[[Plant], Plant]:
    """Register a fault, and what its discovery says."""

    def add(plant: Plant) -> Plant:
        assert name not in FAULTS
        FAULTS[name] = plant, found
        return plant

    return add


def nothing(*_: object, **__: object) -> None:
    return None


# Blocks and leases


@fault("blocks of a lease that fell are dropped", "are nowhere")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(machine.TABLE, (LeaseCrashed, "flying"), lambda draft, event: nothing(draft.close(event.lease)))


@fault("late answers are ignored", "computed again")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(machine.TABLE, (LeaseEnded, "closed"), nothing)


@fault("suspects are forgotten", "are nowhere")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "suspect", nothing)


@fault("who was only near a crash is blamed", "is blamed for what it did not do alone")
def _(patch: pytest.MonkeyPatch) -> None:
    suspect = _Draft.suspect
    patch.setattr(
        _Draft,
        "suspect",
        lambda self, held, outcome, error, is_alone: suspect(self, held, outcome, error, is_alone=True),
    )


@fault("suspects are not tried alone", "under suspicion")
def _(patch: pytest.MonkeyPatch) -> None:
    send = _Draft.send
    patch.setattr(_Draft, "send", lambda self, study, place, blocks, worker, reason, alone=False: send(
        self, study, place, blocks, worker, reason))  # fmt: skip


@fault("studies end while blocks are in flight", "of no study|is not all of|of what is|in two places")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "flying", lambda self, study: 0)


@fault("a block that failed counts as done", "")
def _(patch: pytest.MonkeyPatch) -> None:
    def ended(draft: _Draft, event: LeaseEnded) -> None:
        _Draft.ended(draft, replace(event, reports=tuple(replace(each, error=None) for each in event.reports)))

    patch.setitem(machine.TABLE, (LeaseEnded, "flying"), ended)


@fault("what the catalog holds is computed again", "computed again")
def _(patch: pytest.MonkeyPatch) -> None:
    def admit(draft: _Draft, event: Submitted) -> None:
        _Draft.admit(draft, replace(event, submission=replace(event.submission, done=0)))

    patch.setitem(machine.TABLE, (Submitted, "absent"), admit)


@fault("no attempt is the last", "attempt 4|after . failures|not at an end")
def _(patch: pytest.MonkeyPatch) -> None:
    def fail(self: _Draft, name: str, block: int, error: Exception) -> bool:
        study = self.studies[name]
        self.change(name, failures={**study.failures, block: study.failures.get(block, 0) + 1})
        return False

    patch.setattr(_Draft, "fail", fail)


@fault("the first attempt is the last", "quarantined|no result")
def _(patch: pytest.MonkeyPatch) -> None:
    def fail(self: _Draft, name: str, block: int, error: Any) -> bool:
        self.quarantine(name, block, error)
        return True

    patch.setattr(_Draft, "fail", fail)


@fault("a conflict of results is tried again", "an error that stays")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "HOPELESS", ())


@fault("deadlines are not looked at", "not at an end")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "expire", nothing)


@fault("deadlines leave out what work costs", "nothing is wrong with it")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lease, "deadline_s", lambda now_s, *others: now_s + 1.0)


@fault("a cancelled study keeps its slots", "holds a slot")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(driver._EXECUTE, machine.CancelLease, nothing)
    cancel = _Draft.cancel

    def slow(draft: _Draft, event: Any) -> None:
        draft.limits = replace(draft.limits, cancel_s=1e6)
        cancel(draft, event)
        draft.limits = draft.state.limits

    patch.setitem(machine.TABLE, (machine.Cancelled, "active"), slow)


@fault("nobody asks the catalog before a lease is suspected", "computed again")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Driver, "_mourn", lambda self, event, stored: self.feed(replace(event, now_s=self._clock_s)))


# What is recorded


@fault("failures of an earlier scheduler do not count", "does not count its failures|is attempt")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inbox, "attempts", lambda self, study, nonce: Attempts({}, (), 0))


@fault("attempts are not recorded", "was not recorded")
def _(patch: pytest.MonkeyPatch) -> None:
    _journal_only(patch, NoteLease)


@fault("attempts are recorded after they were sent", "was not recorded")
def _(patch: pytest.MonkeyPatch) -> None:
    def run(self: Driver, command: RunLease) -> None:
        self._send(command)
        self.journal.attempt(command, lambda: None)

    patch.setitem(driver._EXECUTE, RunLease, run)


@fault("endings are not recorded", "does not say so")
def _(patch: pytest.MonkeyPatch) -> None:
    _journal_only(patch, RunLease)


def _journal_only(patch: pytest.MonkeyPatch, kind: type) -> None:
    journal = Inbox.journal
    patch.setattr(Inbox, "journal", lambda self, study, segment, entries: journal(
        self, study, segment, [entry for entry in entries if isinstance(entry, kind)]))  # fmt: skip


@fault("a block is blamed for a worker that its lease never reached", "is blamed for what it did not do alone")
def _(patch: pytest.MonkeyPatch) -> None:
    lost = _Draft.lost
    for status in ("ready", "draining", "failing"):
        patch.setitem(machine.TABLE, (WorkerLost, status), lambda draft, event: lost(
            draft, replace(event, unsent=frozenset())))  # fmt: skip


@fault("what is left of a group is blamed for it", "is blamed for what it did not do alone")
def _(patch: pytest.MonkeyPatch) -> None:
    suspect = _Draft.suspect

    def blame(draft: _Draft, held: Lease, outcome: Ending, error: Any, *, is_alone: bool) -> None:
        blocks = held.run.blocks & ~draft.stored.get(held.run.study, 0)
        if is_alone and blocks.bit_count() == 1 and blocks != held.run.blocks:
            draft.change(held.run.study, done=draft.studies[held.run.study].done | (held.run.blocks & ~blocks))
            held = replace(held, run=replace(held.run, blocks=blocks))
        suspect(draft, held, outcome, error, is_alone=is_alone)

    patch.setattr(_Draft, "suspect", blame)


@fault("no done marker is written", "has no end")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inbox, "finish", lambda self, end: self.store.delete(inbox_key(end.study, end.nonce)))


@fault("the inbox is not cleared", "left in the inbox")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimStore, "delete", nothing)
    patch.setattr(Inbox, "_clear_if_ended", lambda self, entry, key: False)


@fault("the inbox is cleared before the marker is written", "has no end")
def _(patch: pytest.MonkeyPatch) -> None:
    finish = Inbox.finish

    def early(self: Inbox, end: EndStudy) -> None:
        self.store.delete(inbox_key(end.study, end.nonce))
        finish(self, end)

    patch.setattr(Inbox, "finish", early)


@fault("a submission is acknowledged before it is stored", "has no end")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inbox, "submit", nothing)


@fault("recovery takes the first submission only", "left in the inbox|has no end")
def _(patch: pytest.MonkeyPatch) -> None:
    survey = Inbox.survey
    patch.setattr(Inbox, "survey", lambda self: (survey(self)[0][:1], {}))


@fault("a segment is written over", "other bytes than before")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimStudy, "write", lambda self, block, data: self.written.update({block: data}))


# Who comes, goes and is refused


@fault("a refusal is silent", "neither queued nor refused")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(driver._EXECUTE, RefuseStudy, nothing)


@fault("the queue has no limit", "blocks in a queue of")
def _(patch: pytest.MonkeyPatch) -> None:
    def admit(draft: _Draft, event: Submitted) -> None:
        draft.limits = replace(draft.limits, queue_blocks_max=10**9)
        _Draft.admit(draft, event)
        draft.limits = draft.state.limits

    patch.setitem(machine.TABLE, (Submitted, "absent"), admit)


@fault("a queue with room refuses", "there is room")
def _(patch: pytest.MonkeyPatch) -> None:
    def admit(draft: _Draft, event: Submitted) -> None:
        draft.limits = replace(draft.limits, queue_blocks_max=draft.limits.queue_blocks_max // 2)
        _Draft.admit(draft, event)
        draft.limits = draft.state.limits

    patch.setitem(machine.TABLE, (Submitted, "absent"), admit)


@fault("nobody gives up", "still trying")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "give_up_if_vain", nothing)


@fault("starts that fail are counted although others came up", "gave up after")
def _(patch: pytest.MonkeyPatch) -> None:
    def ready(draft: _Draft, event: WorkerReady) -> None:
        failures = draft.start_failures
        _Draft.ready(draft, event)
        draft.start_failures = failures

    patch.setitem(machine.TABLE, (WorkerReady, "starting"), ready)


@fault("strays are not stopped", "left alive")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(machine.TABLE, (WorkerReady, "foreign"), nothing)
    patch.setitem(machine.TABLE, (WorkerReady, "closed"), nothing)


@fault("workers are never drained", "not at an end")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "drain", nothing)


@fault("workers are drained without patience", "is not needed")
def _(patch: pytest.MonkeyPatch) -> None:
    scale_ = _Draft.scale

    def hasty(self: _Draft) -> None:
        self.limits = replace(self.limits, idle_s=0.0)
        scale_(self)
        self.limits = self.state.limits

    patch.setattr(_Draft, "scale", hasty)


@fault("one worker more than is allowed", "workers, at most")
def _(patch: pytest.MonkeyPatch) -> None:
    wanted = scale.wanted
    patch.setattr(scale, "wanted", lambda *arguments: wanted(*arguments) + 1)


# Whose turn it is, and where


@fault("nobody is ever overdue", "starves")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Turns, "overdue", nothing)


@fault("priority is ignored", "more urgent")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Turns, "groups", lambda self, studies, *_: iter([(_Everybody(studies), None)]))


class _Everybody:
    def __init__(self, studies: Mapping[str, QueuedStudy]) -> None:
        self._studies = studies

    def __contains__(self, study: QueuedStudy) -> bool:
        return study.is_served

    def __iter__(self) -> Iterator[str]:
        return (name for name, study in self._studies.items() if study.is_served)


@fault("fairness is ignored", "apart is fair")
def _(patch: pytest.MonkeyPatch) -> None:
    groups = Turns.groups
    patch.setattr(Turns, "groups", lambda self, studies, now_s, limits: groups(
        self, studies, now_s, replace(limits, fair_s=1e9)))  # fmt: skip


@fault("sleeping earns credit", "apart is fair")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(queue, "meter_at_entry", lambda submitter, served_s, active: served_s.get(submitter, 0.0))


@fault("service is not metered", "apart is fair")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "serve", nothing)


@fault("all piles are at home on one worker", "is at home on|passes over")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(affinity, "_weight", lambda key, worker: 0)


@fault("affinity is ignored", "holders of its pile|holds what others wait for|passes over")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(affinity, "choose", _first("backlog"))


@fault("affinity is ignored and says otherwise", "holders of its pile|is warm and fetched")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(affinity, "choose", _first("warm"))


def _first(reason: Reason) -> Callable[..., Choice | None]:
    def choose(worker: str, group: Group, studies: object, piles: Piles, costs: object) -> Choice | None:
        study = next(iter(group), None)
        return None if study is None else Choice(study, piles.backlogs[study].waiting_places[0], reason)

    return choose


@fault("replicas are free", "is a replica for")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockCosts, "load_seconds", lambda self, bytes_needed: 1e-9)


# What is kept instead of being looked for


@fault("a worker that holds a pile is not counted", "the index has|is held by")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Piles, "_count", nothing)


@fault("a pile keeps its home when the worker is gone", "the index has|passes over|is at home on")
def _(patch: pytest.MonkeyPatch) -> None:
    def leave(self: Piles, worker: str) -> None:
        self.at_home.pop(worker, None)
        leave_(self, worker)

    leave_ = Piles._leave
    patch.setattr(Piles, "_leave", leave)


@fault("meters stand where they stood when a study came", "the index has|apart is fair")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Turns, "move", nothing)


@fault("whoever found nothing once is not asked again", "left alive|not at an end|starves")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Draft, "is_anything", nothing)


# The test itself


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, found = FAULTS[name]
    plant(monkeypatch)
    text = next(filter(None, map(sim.run_seed, range(SEEDS_MAX))), None)
    assert text is not None, f"{SEEDS_MAX} seeds pass although {name}"
    assert re.match(r"seed \d+: (Broken|Violated|Impossible): ", text), text
    assert re.search(found, text), text
