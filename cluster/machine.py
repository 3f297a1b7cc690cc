"""The scheduler: ``step(state, event) -> (state, commands)``, pure, as a table of transitions.

How a step works: the event and the state of its subject (a worker, a lease, a study) name one handler in ``TABLE``;
the handler changes a draft; then the draft settles: finished studies end, workers come and go, free slots get leases.
What is not in the table raises ``Impossible`` with the recent story of what it is about, and the state stays as it was.

A worker that dies names no culprit. Its blocks become *suspects*: each lease of it, as one group, runs again alone on a
worker. A group that kills its worker alone is cut in half; a single block that does so has failed, and after
``attempts_max`` failures it is quarantined with its last error. So a block is only ever blamed for what it did alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cluster import affinity, lease, queue, scale
from cluster.affinity import Offer, WorkerView
from cluster.lease import Lease
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
from cluster.state import Impossible, Line, State, complaint, lease_status, study_status, worker_status
from cluster.submission import BlockSet, Pile, block_set, first, halves, members
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
    draft = _Draft(state, event.now_s, getattr(event, "stored", {}))
    handler(draft, event)
    draft.settle()
    return draft.freeze(), tuple(draft.commands)


class _Draft:
    """The next state while it is made: own dictionaries, so that the old state stays as it was."""

    def __init__(self, state: State, now_s: float, stored: Mapping[str, BlockSet]) -> None:
        self.state, self.stored = state, stored
        self.now_s = now_s
        self.limits = state.limits
        self.studies, self.workers, self.leases = dict(state.studies), dict(state.workers), dict(state.leases)
        self.served_s, self.costs = dict(state.served_s), state.costs
        self.leases_made, self.workers_made = state.leases_made, state.workers_made
        self.studies_seen, self.start_failures = state.studies_seen, state.start_failures
        self.surplus_since_s, self.has_given_up = state.surplus_since_s, state.has_given_up
        self.commands: list[Command] = []
        self.story: deque[Line] = deque(state.story, STORY_LENGTH)

    def freeze(self) -> State:
        return replace(self.state, **{name: getattr(self, name) for name in _CHANGED}, story=tuple(self.story))

    def tell(self, what: str, *, run: RunLease | None = None, worker: str = "", study: str = "") -> None:
        subject = (run.worker, run.lease, run.study, run.blocks) if run is not None else (worker, "", study, 0)
        self.story.append(Line(self.now_s, what, *subject))

    def change(self, study: str, **changes: Any) -> None:
        self.studies[study] = replace(self.studies[study], **changes)

    # Studies

    def admit(self, event: Submitted) -> None:
        submission = event.submission
        self.has_given_up, self.start_failures = False, 0  # whoever submits may know that workers come up now
        queued = sum(len(study.submission.cells) for study in self.studies.values())
        if queued + len(submission.cells) > self.limits.queue_blocks_max:
            self.refuse(event, f"the queue holds {queued} blocks; {len(submission.cells)} more are too many")
            return
        active = [study.submitter for study in self.studies.values() if study.waiting]
        self.served_s[submission.submitter] = queue.meter_at_entry(submission.submitter, self.served_s, active)
        name = submission.study
        self.studies[name] = queue.at_entry(submission, self.studies_seen, self.now_s, self.limits)
        self.studies_seen += 1
        for worker in list(self.workers.values()):
            if warm := affinity.held_keys([self.studies[name]], worker.holdings):
                self.workers[worker.name] = replace(worker, warm=worker.warm | warm)
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
        for name, held in list(self.leases.items()):
            if held.run.study == event.study:
                self.commands.append(CancelLease(held.run.worker, name))
                deadline_s = min(held.run.deadline_s, self.now_s + self.limits.cancel_s)
                self.leases[name] = replace(held, run=replace(held.run, deadline_s=deadline_s))
        self.tell("cancelled", study=event.study)

    def quarantine(self, name: str, block: int, error: FarmError) -> None:
        study = self.studies[name]
        self.change(name, quarantined={**study.quarantined, block: error}, waiting=study.waiting & ~(1 << block))

    # Workers

    def ready(self, event: WorkerReady) -> None:
        worker = self.workers[event.worker]
        self.workers[event.worker] = replace(worker, status="ready", slots=event.slots, holdings=dict(event.holdings))
        self.warm_up(event.worker)
        self.start_failures = 0
        self.tell("ready", worker=event.worker)

    def start_failed(self, event: WorkerLost) -> None:
        del self.workers[event.worker]
        self.start_failures += 1
        self.tell("did not start", worker=event.worker)
        self.give_up_if_vain(event.error)

    def give_up_if_vain(self, error: FarmError) -> None:
        serves = any(worker.status in ("ready", "draining") for worker in self.workers.values())
        if self.start_failures >= self.limits.start_failures_max and not serves and not self.has_given_up:
            self.has_given_up = True
            self.commands.append(GiveUp(error))

    def failing(self, event: WorkerFailing) -> None:
        self.workers[event.worker] = replace(self.workers[event.worker], status="failing")

    def lost(self, event: WorkerLost) -> None:
        held = [self.leases.pop(name) for name in self.workers.pop(event.worker).leases]
        self.tell("lost", worker=event.worker)
        for each in held:
            self.suspect(each, "crashed", event.error, is_alone=len(held) == 1)

    def gone(self, event: WorkerLost) -> None:
        del self.workers[event.worker]
        self.tell("gone", worker=event.worker)

    def stop(self, name: str, why: str) -> None:
        self.workers[name] = replace(self.workers[name], status="stopping", leases=())
        self.commands.append(StopWorker(name, why))
        self.tell(f"stopped: {why}", worker=name)

    def warm_up(self, name: str) -> None:
        """Find anew which piles the worker holds: by what it reported, and by what it was sent."""
        worker = self.workers[name]
        warm = affinity.held_keys(self.studies.values(), worker.holdings)
        self.workers[name] = replace(worker, warm=warm.union(self.leases[each].pile for each in worker.leases))

    # Leases

    def close(self, name: str) -> Lease:
        """Take a lease out of flight and off its worker."""
        held = self.leases.pop(name)
        worker = self.workers[held.run.worker]
        self.workers[worker.name] = replace(worker, leases=tuple(each for each in worker.leases if each != name))
        return held

    def ended(self, event: LeaseEnded) -> None:
        held = self.close(event.lease)
        run, study = held.run, self.studies[held.run.study]
        self.workers[run.worker] = replace(self.workers[run.worker], holdings=dict(event.holdings))
        self.warm_up(run.worker)
        done = block_set(report.block for report in event.reports if report.error is None)
        failed = {report.block: report.error for report in event.reports if report.error is not None}
        away = {block: failed.pop(block) for block, error in list(failed.items()) if is_away(error)}
        rest = 0 if study.is_cancelled else run.blocks & ~done
        self.change(run.study, done=study.done | done, waiting=study.waiting | rest)
        for report in event.reports:
            self.costs = self.costs.learn(run.study, report)
        spent_s = sum(report.seconds for report in event.reports)
        self.served_s[study.submitter] += spent_s - held.expected_s
        for block, error in failed.items():
            self.fail(run.study, block, error)
        if away:
            self.pause(run.study, next(iter(away.values())))
        elif done:
            self.change(run.study, away_s=None)
        outcome: Ending = "cancelled" if study.is_cancelled else "done"
        self.commands.append(NoteLease(run, outcome, event.reports, failed))
        self.tell("ended", run=run)

    def pause(self, name: str, error: FarmError) -> None:
        self.studies[name], is_vain = queue.paused(self.studies[name], self.now_s, self.limits)
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
        self.studies[event.study] = queue.taken(study, done & ~self.flying(event.study))

    def flying(self, study: str) -> BlockSet:
        """Return the blocks of the study that are in a lease."""
        blocks = 0
        for held in self.leases.values():
            if held.run.study == study:
                blocks |= held.run.blocks
        return blocks

    def suspect(self, held: Lease, outcome: Ending, error: FarmError, *, is_alone: bool) -> None:
        """A lease brought its worker down, or was with it when it fell: try its blocks alone, halved if they were."""
        run, study = held.run, self.studies[held.run.study]
        self.tell(outcome, run=run)
        blocks = run.blocks & ~self.stored.get(run.study, 0)
        self.change(run.study, done=study.done | (run.blocks & ~blocks))
        groups = () if study.is_cancelled or not blocks else halves(blocks) if is_alone else (blocks,)
        failed = {blocks.bit_length() - 1: error} if is_alone and groups == (blocks,) else {}
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

    def expire(self) -> None:
        """Stop workers that hold a lease past its deadline, and those that do not come up."""
        for name in [name for name, worker in self.workers.items() if worker.status != "stopping"]:
            worker = self.workers[name]
            late = [each for each in worker.leases if self.leases[each].run.deadline_s <= self.now_s]
            if late:
                held = [self.leases.pop(each) for each in worker.leases]
                self.stop(name, "a lease ran past its deadline")
                error = BlockFailed("ran past the deadline of its lease", place=f"worker {name}")
                for each in held:
                    self.give_back(each, error, late, is_alone=len(held) == 1)
            elif worker.status == "starting" and worker.since_s + self.limits.start_s <= self.now_s:
                self.stop(name, "did not come up in time")
                self.start_failures += 1
                self.give_up_if_vain(CapacityError("no worker came up in time", place=f"worker {name}"))

    def give_back(self, held: Lease, error: FarmError, late: list[str], *, is_alone: bool) -> None:
        """A lease of a worker that is stopped: suspect if it is late, innocent if it was only queued behind one."""
        if held.run.lease in late:
            self.suspect(held, "expired", error, is_alone=is_alone)
            return
        study = self.studies[held.run.study]
        if held.alone:
            self.change(held.run.study, suspects=(*study.suspects, held.run.blocks))
        elif not study.is_cancelled:
            self.change(held.run.study, waiting=study.waiting | held.run.blocks)
        self.commands.append(NoteLease(held.run, "cancelled"))
        self.tell("given back", run=held.run)

    # What follows from any event

    def tick(self, event: Tick) -> None:
        for name, study in list(self.studies.items()):
            if self.stored.get(name) and not study.is_cancelled:
                self.studies[name] = queue.taken(study, self.stored[name] & ~self.flying(name))
            if study.paused_s is not None and study.paused_s <= self.now_s:
                self.change(name, paused_s=None)
        if event.may_expire:
            self.expire()

    def settle(self) -> None:
        self.end_studies()
        self.scale()
        self.place_suspects()
        self.fill()

    def end_studies(self) -> None:
        for name, study in list(self.studies.items()):
            if study.waiting or study.suspects or self.flying(name):
                continue
            ended = study.done, study.quarantined, study.is_cancelled, study.joined
            self.commands.append(EndStudy(name, study.submission.nonce, *ended))
            del self.studies[name]
            self.costs = self.costs.forget(name)
            self.tell("study ended", study=name)

    def scale(self) -> None:
        present = [worker for worker in self.workers.values() if worker.status in ("starting", "ready")]
        count = scale.wanted(self.backlog_s(), queue.unfinished(self.studies, self.leases), self.limits)
        if count >= len(present):
            self.surplus_since_s = None
        for _ in range(count - len(present)):
            draining = next((name for name, worker in self.workers.items() if worker.status == "draining"), None)
            if draining is not None:
                self.workers[draining] = replace(self.workers[draining], status="ready")
            elif not self.has_given_up:
                name = f"{self.state.epoch}-w{self.workers_made}"
                self.workers_made += 1
                self.workers[name] = WorkerView(name, self.now_s)
                self.commands.append(StartWorker(name))
        if count < len(present):
            if self.surplus_since_s is None:
                self.surplus_since_s = self.now_s
            if self.now_s >= self.surplus_since_s + self.limits.idle_s:
                self.drain(present, len(present) - count)
        for name, worker in list(self.workers.items()):
            if worker.status == "draining" and not worker.leases:
                self.stop(name, "not needed")

    def drain(self, present: list[WorkerView], count: int) -> None:
        piles = [pile for each in self.studies.values() for pile in each.submission.piles if pile.blocks & each.waiting]
        needed = {shard: size for pile in piles for shard, size in pile.needs.items()}
        candidates = [(worker.name, len(worker.leases), worker.holdings) for worker in present]
        for name in scale.least_valuable(candidates, needed, count):
            self.workers[name] = replace(self.workers[name], status="draining")
        self.surplus_since_s = None

    def backlog_s(self) -> float:
        if not self.limits.backlog_s_per_worker:
            return 0.0  # nobody asks
        waiting = sum(offer.backlog_s for offer in affinity.offers(self.studies.values(), self.costs))
        return waiting + sum(held.expected_s for held in self.leases.values())

    def place_suspects(self) -> None:
        """Give each group under suspicion an empty worker; keep workers that empty themselves for the others."""
        studies = sorted(self.leasable(), key=lambda item: (item[1].since_s, item[1].place))  # in turns
        groups = [(name, group) for name, study in studies for group in study.suspects]
        if self.is_solo():
            solo = [(name, group) for name, group in groups if group & self.studies[name].submission.solo]
            groups = [] if self.leases else solo[:1]
        if not groups:
            return
        empty = [name for name, worker in self.workers.items() if worker.status == "ready" and not worker.leases]
        for (name, group), worker in zip(groups, empty, strict=False):
            study = self.studies[name]
            self.change(name, suspects=tuple(each for each in study.suspects if each != group))
            pile = next(pile for pile in study.submission.piles if pile.blocks & group)
            self.send(study, pile, group, self.workers[worker], "retry", alone=True)

    def leasable(self) -> list[tuple[str, QueuedStudy]]:
        return [(name, study) for name, study in self.studies.items() if study.paused_s is None]

    def is_solo(self) -> bool:
        """Whether a block waits or runs that must have no neighbours in the farm: it may bring all of them down."""
        return any(study.submission.solo for study in self.studies.values()) and queue.is_solo(
            self.studies, self.leases
        )

    def fill(self) -> None:
        """Give leases to free slots, the emptiest worker first, until nobody can take one."""
        if self.is_solo():
            return
        ahead, workers = self.limits.ahead_per_slot, self.workers.items()
        ready = [name for name, each in workers if each.status == "ready" and len(each.leases) < each.slots * ahead]
        ready = [name for name in ready if self.has_room(self.workers[name])]
        waits = sum(len(study.suspects) for _, study in self.leasable())
        if waits:
            # The emptiest workers are let run empty for the suspects; of several workers one goes on with the rest.
            ready.sort(key=lambda name: len(self.workers[name].leases))
            ready = ready[max(1, min(waits, len(ready) - 1)) :]
        while ready:
            name = min(ready, key=lambda each: len(self.workers[each].leases) / self.workers[each].slots)
            if not self.take_one(self.workers[name]) or not self.has_room(self.workers[name]):
                ready.remove(name)

    def has_room(self, worker: WorkerView) -> bool:
        if len(worker.leases) >= worker.slots * self.limits.ahead_per_slot:
            return False
        return not any(self.leases[name].alone for name in worker.leases)

    def take_one(self, worker: WorkerView) -> bool:
        """Give the worker one lease, if there is one it should have."""
        waiting = [study for _, study in self.leasable() if study.waiting]
        for studies, is_overdue in queue.turns(waiting, self.served_s, self.now_s, self.limits):
            offers = affinity.offers(studies, self.costs, worker.warm)
            serving = [worker]
            if not offers:
                offers = affinity.offers(studies, self.costs)
                serving = [other for other in self.workers.values() if other.status == "ready"]
            chosen = affinity.choose(worker, offers, serving)
            if chosen is None and is_overdue:
                chosen = offers[0], "overdue"
            if chosen is not None:
                offer, reason = chosen
                study = next(study for study in studies if study.place == offer.place[0])
                self.send(study, offer.pile, self.lease_blocks(study, offer), worker, reason)
                return True
        return False

    def lease_blocks(self, study: QueuedStudy, offer: Offer) -> BlockSet:
        waiting = offer.pile.blocks & study.waiting
        waiting = waiting >> study.submission.start << study.submission.start or waiting
        in_all = sum(each.waiting_count for each in self.studies.values())
        slots = sum([worker.slots for worker in self.workers.values() if worker.status == "ready"])
        block_s = affinity.block_s(study, offer.pile, self.costs)
        is_known = self.costs.knows(study.submission.study)
        return first(waiting, lease.block_count(waiting.bit_count(), in_all, slots, block_s, is_known, self.limits))

    def send(
        self, study: QueuedStudy, pile: Pile, blocks: BlockSet, worker: WorkerView, reason: Reason, alone: bool = False
    ) -> None:
        submission = study.submission
        cells = sum(submission.cells[block] for block in members(blocks))
        expected_s = self.costs.seconds(submission.study, cells, blocks.bit_count())
        ahead_s = sum(self.leases[name].expected_s for name in worker.leases)
        load_s = 0.0 if pile.key in worker.warm else self.costs.load_seconds(pile.bytes)
        attempt = 1 + max(study.failures.get(block, 0) for block in members(blocks))
        run = RunLease(
            f"{self.state.epoch}-{self.leases_made:06d}",
            submission.study,
            submission.nonce,
            worker.name,
            blocks,
            attempt,
            reason,
            lease.deadline_s(self.now_s, ahead_s, load_s + expected_s, max(attempt, 1 + alone), self.limits),
        )
        self.leases_made += 1
        self.leases[run.lease] = Lease(run, pile.key, expected_s, alone)
        self.workers[worker.name] = replace(worker, leases=(*worker.leases, run.lease), warm=worker.warm | {pile.key})
        self.change(submission.study, waiting=study.waiting & ~blocks, since_s=self.now_s)
        self.served_s[submission.submitter] += expected_s
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
