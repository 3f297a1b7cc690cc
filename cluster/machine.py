"""The scheduler: ``step(state, event) -> (state, commands)``, pure, as a table of transitions.

How a step works: the event and the state of its subject (a worker, a lease, a study) name one handler in ``TABLE``;
the handler changes a draft; then the draft settles: finished studies end, workers come and go, free slots get leases.
Whatever is changed is told to the index (``index.py``), so that no step has to look at all there is.
What is not in the table raises ``Impossible`` with the recent story of what it is about, and the state stays as it was.

A worker that dies names no culprit. Its blocks become *suspects*: each lease of it, as one group, runs again alone on a
worker. A group that kills its worker alone is cut in half; a single block that does so has failed, and after
``attempts_max`` failures it is quarantined with its last error. So a block is only ever blamed for what it did alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from heapq import heapify, heappop, heapreplace
from operator import or_
from typing import Any

from cluster import affinity, lease, queue, scale
from cluster.affinity import Choice, WorkerView
from cluster.lease import BlockCosts, Lease
from cluster.messages import (
    CancelLease,
    Cancelled,
    Command,
    Ending,
    EndStudy,
    Event,
    GiveUp,
    LeaseCrashed,
    LeaseEnded,
    NoteLease,
    Reason,
    RefuseStudy,
    RunLease,
    StartWorker,
    StopWorker,
    Submitted,
    Tick,
    WorkerFailing,
    WorkerLost,
    WorkerReady,
)
from cluster.queue import QueuedStudy
from cluster.state import Impossible, Line, State, complaint, index_of, lease_status, study_status, worker_status
from cluster.submission import BlockSet, block_set, first, halves, members
from farm.values.errors import BlockFailed, CapacityError, FarmError, ResultConflict, SpecError, is_away

STORY_LENGTH = 128
"""Lines that are kept of what happened, for the message of ``Impossible``."""

_CHANGED = (
    "studies", "workers", "leases", "served_s", "costs", "leases_made", "workers_made", "studies_seen",
    "start_failures", "surplus_since_s", "has_given_up",
)  # fmt: skip
"""What a step may change of the state, beside the story."""

HOPELESS = (ResultConflict, SpecError)
"""Errors of a block that no further attempt can change."""


def step(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """Return what follows from ``event``: the next state, and what to do. Impossible: not in the table."""
    status = _STATUS[type(event)](state, event)
    handler = TABLE.get((type(event), status))
    if handler is None:
        raise Impossible(complaint(state, event, status))
    draft = _Draft(state, event.now_s, getattr(event, "stored", _NOTHING))
    handler(draft, event)
    draft.settle()
    return draft.freeze(), tuple(draft.commands)


_NOTHING: Mapping[str, BlockSet] = {}


class _Draft:
    """The next state while it is made: next versions of all tables, so that the old state stays as it was."""

    def __init__(self, state: State, now_s: float, stored: Mapping[str, BlockSet]) -> None:
        self.state, self.stored = state, stored
        self.now_s = now_s
        self.limits = state.limits
        self.index = index_of(state)
        self.index.turn += 1  # should this step fail, it is nobody's
        self.studies, self.workers, self.leases = state.studies.edit(), state.workers.edit(), state.leases.edit()
        self.served_s, self.costs = state.served_s.edit(), state.costs
        self.leases_made, self.workers_made = state.leases_made, state.workers_made
        self.studies_seen, self.start_failures = state.studies_seen, state.start_failures
        self.surplus_since_s, self.has_given_up = state.surplus_since_s, state.has_given_up
        self.changed: dict[str, None] = {}
        self.commands: list[Command] = []
        self.story: deque[Line] = deque(state.story, STORY_LENGTH)

    def freeze(self) -> State:
        changes = {name: getattr(self, name) for name in _CHANGED}
        return replace(self.state, **changes, story=tuple(self.story), index=self.index, turn=self.index.turn)

    # Changes: whatever is written goes through these, which tell the index

    def set_study(self, name: str, new: QueuedStudy | None) -> None:
        old = self.studies.get(name)
        if new is not None:
            self.studies.put(name, new)
            self.changed[name] = None
        else:
            self.studies.pop(name)
        self.index.study(old, new, self.served_s.get((new or old).submitter, 0.0), self.costs)  # type: ignore[union-attr]

    def set_worker(self, name: str, new: WorkerView | None) -> None:
        old = self.workers.get(name)
        if new is not None:
            self.workers.put(name, new)
        else:
            self.workers.pop(name)
        self.index.worker(old, new)

    def set_lease(self, name: str, new: Lease | None) -> Lease | None:
        old = self.leases.get(name)
        if new is not None:
            self.leases.put(name, new)
        else:
            self.leases.pop(name)
        self.index.lease(old, new)
        self.changed[(new or old).run.study] = None  # type: ignore[union-attr]
        return old

    def take_lease(self, name: str) -> Lease:
        """Take a lease out of flight; its worker is told of apart."""
        held = self.set_lease(name, None)
        assert held is not None, "it was in flight"
        return held

    def serve(self, submitter: str, by_s: float) -> None:
        self.set_meter(submitter, self.served_s[submitter] + by_s)

    def set_meter(self, submitter: str, meter_s: float) -> None:
        self.served_s.put(submitter, meter_s)
        self.index.meter(submitter, meter_s)

    def set_costs(self, costs: BlockCosts, study: str) -> None:
        byte_s, self.costs = self.costs.byte_s, costs
        self.index.cost(study, costs)
        if costs.byte_s != byte_s:
            self.index.load_cost()

    def tell(self, what: str, *, run: RunLease | None = None, worker: str = "", study: str = "") -> None:
        subject = (run.worker, run.lease, run.study, run.blocks) if run is not None else (worker, "", study, 0)
        self.story.append(Line(self.now_s, what, *subject))

    def change(self, study: str, **changes: Any) -> None:
        self.set_study(study, replace(self.studies[study], **changes))

    def change_worker(self, worker: str, **changes: Any) -> None:
        self.set_worker(worker, replace(self.workers[worker], **changes))

    # Studies

    def admit(self, event: Submitted) -> None:
        submission = event.submission
        self.has_given_up, self.start_failures = False, 0  # whoever submits may know that workers come up now
        queued = self.index.queued
        if queued + len(submission.cells) > self.limits.queue_blocks_max:
            self.refuse(event, f"the queue holds {queued} blocks; {len(submission.cells)} more are too many")
            return
        active = [study.submitter for study in self.studies.values() if study.waiting]
        meter_s = queue.meter_at_entry(submission.submitter, self.served_s, active)
        self.set_meter(submission.submitter, meter_s)
        study = queue.at_entry(submission, self.studies_seen, self.now_s, self.limits)
        self.set_study(submission.study, study)
        self.studies_seen += 1
        self.tell("submitted", study=submission.study)

    def join(self, event: Submitted) -> None:
        """A study submitted twice runs once, and both submissions end with it."""
        submission, study = event.submission, self.studies[event.submission.study]
        self.has_given_up, self.start_failures = False, 0
        if submission.nonce not in (study.submission.nonce, *study.joined):
            self.change(submission.study, joined=(*study.joined, submission.nonce))

    def refuse(self, event: Submitted, why: str = "the study is being cancelled") -> None:
        name = event.submission.study
        error = CapacityError(why, place=f"study {name}", hint="submit it again a little later")
        self.commands.append(RefuseStudy(name, error))

    def cancel(self, event: Cancelled) -> None:
        self.change(event.study, is_cancelled=True, waiting=0, suspects=())
        for name in list(self.index.leases_of.get(event.study, ())):
            held = self.leases[name]
            self.commands.append(CancelLease(held.run.worker, name))
            deadline_s = min(held.run.deadline_s, self.now_s + self.limits.cancel_s)
            self.set_lease(name, replace(held, run=replace(held.run, deadline_s=deadline_s)))
        self.tell("cancelled", study=event.study)

    def quarantine(self, name: str, block: int, error: FarmError) -> None:
        study = self.studies[name]
        self.change(name, quarantined={**study.quarantined, block: error}, waiting=study.waiting & ~(1 << block))

    # Workers

    def ready(self, event: WorkerReady) -> None:
        self.change_worker(event.worker, status="ready", slots=event.slots, holdings=dict(event.holdings))
        self.start_failures = 0
        self.tell("ready", worker=event.worker)

    def start_failed(self, event: WorkerLost) -> None:
        self.set_worker(event.worker, None)
        self.start_failures += 1
        self.tell("did not start", worker=event.worker)
        self.give_up_if_vain(event.error)

    def give_up_if_vain(self, error: FarmError) -> None:
        serves = self.index.count("ready", "draining") > 0
        if self.start_failures >= self.limits.start_failures_max and not serves and not self.has_given_up:
            self.has_given_up = True
            self.commands.append(GiveUp(error))

    def failing(self, event: WorkerFailing) -> None:
        self.change_worker(event.worker, status="failing")

    def lost(self, event: WorkerLost) -> None:
        names = self.workers[event.worker].leases
        self.set_worker(event.worker, None)
        held = [self.take_lease(name) for name in names]
        self.tell("lost", worker=event.worker)
        sent = [each for each in held if each.run.lease not in event.unsent]
        for each in held:
            if each in sent:
                self.suspect(each, "crashed", event.error, is_alone=len(sent) == 1)
            else:
                self.give_back(each)

    def gone(self, event: WorkerLost) -> None:
        self.set_worker(event.worker, None)
        self.tell("gone", worker=event.worker)

    def stop(self, name: str, why: str) -> None:
        self.change_worker(name, status="stopping", leases=())
        self.commands.append(StopWorker(name, why))
        self.tell(f"stopped: {why}", worker=name)

    # Leases

    def close(self, name: str, **changes: Any) -> Lease:
        """Take a lease out of flight and off its worker, of which this changes besides."""
        held = self.take_lease(name)
        rest = tuple([each for each in self.workers[held.run.worker].leases if each != name])
        self.change_worker(held.run.worker, leases=rest, **changes)
        return held

    def ended(self, event: LeaseEnded) -> None:
        known = self.workers[event.worker].holdings
        held = self.close(event.lease, holdings=known if known == event.holdings else dict(event.holdings))
        run, study = held.run, self.studies[held.run.study]
        done = block_set(report.block for report in event.reports if report.error is None)
        failed = {report.block: report.error for report in event.reports if report.error is not None}
        away = {block: failed.pop(block) for block, error in list(failed.items()) if is_away(error)}
        rest = 0 if study.is_cancelled else run.blocks & ~done
        costs = self.costs
        for report in event.reports:
            costs = costs.learn(run.study, report)
        self.set_costs(costs, run.study)
        self.change(run.study, done=study.done | done, waiting=study.waiting | rest)
        self.serve(study.submitter, sum([report.seconds for report in event.reports]) - held.expected_s)
        for block, error in failed.items():
            self.fail(run.study, block, error)
        if away:
            self.pause(run.study, next(iter(away.values())))
        elif done and study.away_s is not None:
            self.change(run.study, away_s=None)
        outcome: Ending = "cancelled" if study.is_cancelled else "done"
        self.commands.append(NoteLease(run, outcome, event.reports, failed))
        self.tell("ended", run=run)

    def pause(self, name: str, error: FarmError) -> None:
        study, is_vain = queue.paused(self.studies[name], self.now_s, self.limits)
        self.set_study(name, study)
        if is_vain:
            self.commands.append(GiveUp(error))

    def crashed(self, event: LeaseCrashed) -> None:
        self.suspect(self.close(event.lease), "crashed", event.error, is_alone=True)

    def late(self, event: LeaseEnded) -> None:
        """Take what an answer nobody waits for any more has done: its segments are in the catalog."""
        self.tell("late", worker=event.worker, study=event.study)
        study = self.studies.get(event.study)
        if study is None or study.is_cancelled:
            return
        done = block_set(report.block for report in event.reports if report.error is None)
        self.set_study(event.study, queue.taken(study, done & ~self.flying(event.study)))

    def flying(self, study: str) -> BlockSet:
        """Return the blocks of the study that are in a lease."""
        return reduce(or_, [self.leases[name].run.blocks for name in self.index.leases_of.get(study, ())], 0)

    def suspect(self, held: Lease, outcome: Ending, error: FarmError, *, is_alone: bool) -> None:
        """A lease brought its worker down, or was with it when it fell: try its blocks alone, halved if they were."""
        run, study = held.run, self.studies[held.run.study]
        self.tell(outcome, run=run)
        blocks = run.blocks & ~self.stored.get(run.study, 0)
        self.change(run.study, done=study.done | (run.blocks & ~blocks))
        groups = () if study.is_cancelled or not blocks else halves(blocks) if is_alone else (blocks,)
        # What is left of several may not have been begun: whoever wrote the others fell, or whoever came after.
        failed = {blocks.bit_length() - 1: error} if is_alone and groups == (run.blocks,) else {}
        for block in failed:
            if self.fail(run.study, block, error):
                groups = ()
        self.change(run.study, suspects=self.studies[run.study].suspects + groups)
        self.commands.append(NoteLease(run, outcome, (), failed, error))

    def fail(self, name: str, block: int, error: FarmError) -> bool:
        """Count a failure of a block; return whether that was its last attempt."""
        study = self.studies[name]
        count = study.failures.get(block, 0) + 1
        self.change(name, failures={**study.failures, block: count})
        is_last = count >= self.limits.attempts_max or isinstance(error, HOPELESS)
        if is_last and not study.is_cancelled:
            self.quarantine(name, block, error)
        return is_last

    def expire(self, unsent: frozenset[str]) -> None:
        """Stop workers that hold a lease past its deadline, and those that do not come up."""
        late = [each for each in self.index.overdue(self.now_s) if each not in unsent]
        names = {self.leases[each].run.worker: None for each in late}
        for name in self.index.in_order([*names, *self.index.late_starts(self.now_s)]):
            if name in names:
                held = [self.take_lease(each) for each in self.workers[name].leases]
                self.stop(name, "a lease ran past its deadline")
                error = BlockFailed("ran past the deadline of its lease", place=f"worker {name}")
                for each in held:
                    if each.run.lease in late:
                        self.suspect(each, "expired", error, is_alone=len(held) == 1)
                    else:
                        self.give_back(each)  # it was only queued behind one
            else:
                self.stop(name, "did not come up in time")
                self.start_failures += 1
                self.give_up_if_vain(CapacityError("no worker came up in time", place=f"worker {name}"))

    def give_back(self, held: Lease) -> None:
        """A lease of a worker that is gone, which is not to blame: its blocks are where they were before."""
        study = self.studies[held.run.study]
        if study.is_cancelled:
            pass
        elif held.alone:
            self.change(held.run.study, suspects=(*study.suspects, held.run.blocks))
        else:
            self.change(held.run.study, waiting=study.waiting | held.run.blocks)
        self.commands.append(NoteLease(held.run, "cancelled"))
        self.tell("given back", run=held.run)

    # What follows from any event

    def tick(self, event: Tick) -> None:
        for name in self.stored:
            study = self.studies.get(name)
            if study is not None and self.stored[name] and not study.is_cancelled:
                self.set_study(name, queue.taken(study, self.stored[name] & ~self.flying(name)))
        for name in [name for name, paused_s in self.index.paused.items() if paused_s <= self.now_s]:
            self.change(name, paused_s=None)
        if event.may_expire:
            self.expire(event.unsent)

    def settle(self) -> None:
        self.end_studies()
        self.scale()
        self.place_suspects()
        self.fill()

    def end_studies(self) -> None:
        there = [self.studies[name] for name in self.changed if name in self.studies]
        for study in sorted(there, key=lambda study: study.place):
            name = study.submission.study
            if study.waiting or study.suspects or self.flying(name):
                continue
            ended = study.done, study.quarantined, study.is_cancelled, study.joined
            self.commands.append(EndStudy(name, study.submission.nonce, *ended))
            self.set_study(name, None)
            self.set_costs(self.costs.forget(name), name)
            self.tell("study ended", study=name)

    def scale(self) -> None:
        present = self.index.count("starting", "ready")
        is_apart = self.index.waiting > 0 and bool(self.index.suspects or self.index.alone)
        count = scale.wanted(self.index.backlog_ns / 1e9, self.index.unfinished, self.limits, 1 + is_apart)
        if count >= present:
            self.surplus_since_s = None
        for _ in range(count - present):
            draining = self.index.of_status("draining")
            if draining:
                self.change_worker(draining[0], status="ready")
            elif not self.has_given_up:
                name = f"{self.state.epoch}-w{self.workers_made}"
                self.set_worker(name, WorkerView(name, self.now_s, self.workers_made))
                self.workers_made += 1
                self.commands.append(StartWorker(name))
        if count < present:
            if self.surplus_since_s is None:
                self.surplus_since_s = self.now_s
            if self.now_s >= self.surplus_since_s + self.limits.idle_s:
                self.drain(present - count)
        for name in self.index.of_status("draining"):
            if not self.workers[name].leases:
                self.stop(name, "not needed")

    def drain(self, count: int) -> None:
        piles = [pile for each in self.studies.values() for pile in each.submission.piles if pile.blocks & each.waiting]
        needed = {shard: size for pile in piles for shard, size in pile.needs.items()}
        present = [self.workers[name] for name in self.index.of_status("starting", "ready")]
        candidates = [(worker.name, len(worker.leases), worker.holdings) for worker in present]
        for name in scale.least_valuable(candidates, needed, count):
            self.change_worker(name, status="draining")
        self.surplus_since_s = None

    def place_suspects(self) -> None:
        """Give each group under suspicion an empty worker, as far as there are workers for them."""
        if not self.index.suspects or self.is_turn_of_others():
            return
        groups = [(study, group) for study in self.suspected() for group in study.suspects]
        if self.is_solo():
            solo = [(study, group) for study, group in groups if group & study.submission.solo]
            groups = [] if self.leases else solo[:1]
        empty = [name for name in self.index.in_order(self.index.roomy) if not self.workers[name].leases]
        for (before, group), worker in zip(groups, empty[: self.workers_apart()], strict=False):
            name = before.submission.study
            rest = tuple(each for each in self.studies[name].suspects if each != group)
            self.change(name, suspects=rest)
            place = before.submission.pile_of[next(members(group))]
            self.send(self.studies[name], place, group, worker, "retry", alone=True)

    def suspected(self) -> list[QueuedStudy]:
        """Return the studies that have suspects to be tried now, in turns: none of a lower priority than what waits."""
        there = [self.studies[name] for name in self.index.suspects]
        least = max(self.index.turns.ranks, default=None)
        found = [
            study for study in there if study.paused_s is None and (least is None or study.submission.priority >= least)
        ]
        return sorted(found, key=lambda study: (-study.submission.priority, study.since_s, study.place))

    def workers_apart(self) -> int:
        """Return how many workers more may be kept for suspects: of several, one goes on with what others wait for."""
        ready, others = self.index.count("ready"), bool(self.index.turns.ranks)
        return ready - len(self.index.alone) - (others and ready > 1)

    def is_turn_of_others(self) -> bool:
        """Whether suspects, which may each hold a worker until a deadline, have to let somebody else go first, where
        they cannot be kept apart: a study whose turn it is, and that got its last lease before any of theirs."""
        suspected, is_one = self.suspected(), self.index.count("ready") == 1
        if not suspected or not self.index.turns.ranks or not (is_one or self.is_solo()):
            return False
        first = suspected[0]
        if first.submission.priority > max(self.index.turns.ranks):
            return False
        return self.index.turns.longest_wait_s(self.studies, self.limits) < first.since_s

    def is_solo(self, *, flying: bool = False) -> bool:
        """Whether a block waits or runs (``flying``: runs) that must have no neighbours in the farm: it may bring all
        of them down."""
        if not self.index.solos:
            return False
        groups = [(held.run.study, held.run.blocks) for held in self.leases.values() if held.alone]
        if not flying:
            groups += [(study.submission.study, group) for study in self.suspected() for group in study.suspects]
        return any(group & self.studies[name].submission.solo for name, group in groups)

    def fill(self) -> None:
        """Give leases to free slots, the emptiest worker first, until nobody can take one."""
        if self.is_solo(flying=True) or (self.is_solo() and not self.is_turn_of_others()):
            return
        ready, is_all = self.candidates()
        heap = [(self.load(name), order, name) for order, name in enumerate(ready)]
        heapify(heap)
        while heap:
            _, order, name = heap[0]
            if self.take_one(name) and name in self.index.roomy:
                heapreplace(heap, (self.load(name), order, name))
            else:
                heappop(heap)
        if is_all:
            self.index.stirred.clear()

    def load(self, worker: str) -> float:
        view = self.workers[worker]
        return len(view.leases) / view.slots

    def candidates(self) -> tuple[list[str], bool]:
        """Return the workers that may take a lease, and whether all are among them for whom that can have changed."""
        roomy, stirred = self.index.roomy, self.index.stirred
        waits = sum(len(study.suspects) for study in self.suspected())
        if waits and not self.is_turn_of_others():
            # The emptiest workers are let run empty for the suspects.
            there = [name for name in self.index.of_status("ready") if name not in self.index.alone]
            there.sort(key=lambda name: len(self.workers[name].leases))
            return [name for name in there[min(waits, self.workers_apart()) :] if name in roomy], False
        some = [name for name in stirred.workers if name in roomy]
        if len(some) < len(roomy) and self.is_anything():
            return self.index.in_order(roomy), True
        return self.index.in_order(some), True

    def is_anything(self) -> bool:
        """Whether there may be work for workers for which nothing has changed."""
        piles, turns = self.index.piles, self.index.turns
        if any(piles.is_wanted(study, self.costs) for study in self.index.stirred.studies if study in self.studies):
            return True
        return any(turns.overdue(rank, self.studies, self.now_s, self.limits) for rank in turns.ranks.values())

    def take_one(self, worker: str) -> bool:
        """Give the worker one lease, if there is one it should have."""
        piles = self.index.piles
        for group, overdue in self.index.turns.groups(self.studies, self.now_s, self.limits):
            chosen = affinity.choose(worker, group, self.studies, piles, self.costs)
            if chosen is None and overdue is not None:
                name = overdue.submission.study
                chosen = Choice(name, piles.backlogs[name].waiting_places[0], "overdue")
            if chosen is not None:
                study = self.studies[chosen.study]
                self.send(study, chosen.place, self.lease_blocks(study, chosen.place), worker, chosen.reason)
                return True
        return False

    def lease_blocks(self, study: QueuedStudy, place: int) -> BlockSet:
        waiting = study.submission.piles[place].blocks & study.waiting
        if study.submission.start:
            waiting = waiting >> study.submission.start << study.submission.start or waiting
        block_s = affinity.block_s(study, place, self.costs)
        is_known = self.costs.knows(study.submission.study)
        sizes = waiting.bit_count(), self.index.waiting, self.index.slots
        return first(waiting, lease.block_count(*sizes, block_s, is_known, self.limits))

    def send(
        self, study: QueuedStudy, place: int, blocks: BlockSet, worker: str, reason: Reason, alone: bool = False
    ) -> None:
        submission, pile, view = study.submission, study.submission.piles[place], self.workers[worker]
        indices = list(members(blocks))
        expected_s = self.costs.seconds(submission.study, sum([submission.cells[i] for i in indices]), len(indices))
        ahead_s = sum([self.leases[name].expected_s for name in view.leases])
        load_s = 0.0 if pile.key in self.index.piles.warm[worker] else self.costs.load_seconds(pile.bytes)
        attempt = 1 + max([study.failures.get(i, 0) for i in indices]) if study.failures else 1
        run = RunLease(
            f"{self.state.epoch}-{self.leases_made:06d}",
            submission.study,
            submission.nonce,
            worker,
            blocks,
            attempt,
            reason,
            lease.deadline_s(self.now_s, ahead_s, load_s + expected_s, max(attempt, 1 + alone), self.limits),
        )
        self.leases_made += 1
        self.set_lease(run.lease, Lease(run, pile.key, expected_s, alone))
        self.change_worker(worker, leases=(*view.leases, run.lease))
        self.change(submission.study, waiting=study.waiting & ~blocks, since_s=self.now_s)
        self.serve(submission.submitter, expected_s)
        self.commands.append(run)
        self.tell("leased", run=run)


def _nothing(draft: _Draft, event: Event) -> None:
    """Nothing is to be done."""


def _stray(draft: _Draft, event: WorkerReady) -> None:
    draft.commands.append(StopWorker(event.worker, "not one of ours any more"))


_STATUS: dict[type[Event], Callable[[State, Any], str]] = {
    Submitted: study_status,
    Cancelled: study_status,
    WorkerReady: worker_status,
    WorkerFailing: worker_status,
    WorkerLost: worker_status,
    LeaseEnded: lease_status,
    LeaseCrashed: lease_status,
    Tick: lambda state, event: "any",
}

TABLE: Mapping[tuple[type[Event], str], Callable[[_Draft, Any], None]] = {
    (Submitted, "absent"): _Draft.admit,  # a new study, or one that ended and is tried again
    (Submitted, "active"): _Draft.join,  # submitted twice: the first one counts
    (Submitted, "cancelled"): _Draft.refuse,  # its last leases are still ending
    (Cancelled, "active"): _Draft.cancel,
    (Cancelled, "cancelled"): _nothing,  # asked twice
    (Cancelled, "absent"): _nothing,  # it ended in the meantime
    (WorkerReady, "starting"): _Draft.ready,
    (WorkerReady, "ready"): _nothing,  # said twice
    (WorkerReady, "draining"): _nothing,  # said twice, the second time late
    (WorkerReady, "stopping"): _nothing,  # it came up while it was being stopped
    (WorkerReady, "closed"): _stray,  # it was given up, and lives
    (WorkerReady, "foreign"): _stray,  # it was started by a scheduler that is no more
    (WorkerReady, "failing"): _nothing,  # said twice, the second time after its death
    (WorkerFailing, "ready"): _Draft.failing,
    (WorkerFailing, "draining"): _Draft.failing,
    (WorkerFailing, "failing"): _nothing,  # said twice
    (WorkerLost, "starting"): _Draft.start_failed,
    (WorkerLost, "ready"): _Draft.lost,
    (WorkerLost, "draining"): _Draft.lost,
    (WorkerLost, "failing"): _Draft.lost,
    (WorkerLost, "stopping"): _Draft.gone,
    (WorkerLost, "closed"): _nothing,  # said twice
    (WorkerLost, "foreign"): _nothing,
    (LeaseEnded, "flying"): _Draft.ended,
    (LeaseEnded, "closed"): _Draft.late,  # after its deadline, or said twice
    (LeaseEnded, "foreign"): _nothing,  # of an earlier scheduler: the catalog knows what it did
    (LeaseCrashed, "flying"): _Draft.crashed,
    (LeaseCrashed, "closed"): _nothing,
    (LeaseCrashed, "foreign"): _nothing,
    (Tick, "any"): _Draft.tick,  # what came before it is taken before anything expires
}
