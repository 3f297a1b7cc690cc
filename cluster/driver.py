"""The loop: collect events, call ``step``, check what must hold, execute the commands. It decides nothing.

What a command asks of workers is done at once; what it asks of the store goes through an outbox, and a lease is sent
once its attempt is recorded. So a store that is away holds up leases and loses nothing, and death between any two
commands leaves the bucket as some moment before left it.

The machine's clock stands still while the store is away, and for ``GRACE_S`` after that, and it does not count what
this process slept through (a stop, a suspended machine): no worker is to blame for either. Nor is a block for the end
of a worker to which its lease was never sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any, Final

from cluster import invariants
from cluster.backend import Backend
from cluster.inbox import Entry, Inbox
from cluster.journal import Journal
from cluster.lease import Limits
from cluster.machine import step
from cluster.messages import (
    CancelLease,
    Cancelled,
    Command,
    EndStudy,
    Event,
    GiveUp,
    LeaseCrashed,
    LeaseEnded,
    NoteLease,
    RefuseStudy,
    RunLease,
    StartWorker,
    StopWorker,
    Submitted,
    Tick,
    WorkerFailing,
    WorkerLost,
)
from cluster.outbox import PROMPT_S, Outbox
from cluster.queue import QueuedStudy
from cluster.state import State, machine_away_s, next_wake_s, overdue
from cluster.submission import BlockSet, Submission, members
from farm.values.errors import DataError, FarmError, UsageError

LoadSubmission = Callable[[Entry], Submission]
"""Entry of the inbox -> the study as the queue sees it: its record, minus the segments in the catalog."""

LookUp = Callable[[str], BlockSet]
"""Study -> its blocks that have a segment now."""


@dataclass
class Tally:
    """What the loop has seen, for progress, metrics and the document. Seconds by stage are those of the workers.

    ``cells``: of blocks that workers have answered; ``cells_found``: of others that are stored all the same, by another
    run, or by a worker whose answer did not come in time.
    """

    cells: int = 0
    cells_found: int = 0
    bytes_fetched: int = 0
    affinity_hits: int = 0
    affinity_misses: int = 0
    leases: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)


STALL_S: Final = 1.0
"""A loop that was away for longer than it had asked for, and this, was stalled: the rest did not happen."""
GRACE_S: Final = 5.0
"""What workers have to end their own waiting for a store that was away; above their longest pause."""

LOOK_S: Final = 2.0
LOOK_SHARE: Final = 20.0
"""What is stored is looked up every ``LOOK_S`` and at most for one part in so many of the time."""
CHECK_SHARE: Final = 20.0
"""The invariants look at everything there is, which takes at most one part in so many of the time."""


class Driver:
    """One scheduler: a state, a backend that runs its workers, an inbox that outlives it.

    ``writer`` makes the calls to the store off the loop; without one they are made at once. ``stored`` is asked before
    anything is suspected, and now and then, since others may be at the same study.
    """

    def __init__(
        self,
        backend: Backend,
        inbox: Inbox,
        load: LoadSubmission,
        limits: Limits,
        *,
        epoch: str,
        writer: Executor | None = None,
        observe: Callable[[State, Tally], None] | None = None,
        stored: LookUp | None = None,
    ) -> None:
        self.backend = backend
        self.inbox = inbox
        self.load = load
        self.state = State(epoch, limits)
        self.tally = Tally()
        self.ended: dict[str, EndStudy] = {}
        self.refused: dict[str, FarmError] = {}
        self.outbox = Outbox(writer, limits.watchdog_s)
        self.journal = Journal(self.outbox, inbox, epoch)
        self._unsent: set[str] = set()
        self._halted = False
        self._observe = observe
        self._stored = stored
        self._found: dict[str, BlockSet] = {}
        self._look_s = self._check_s = 0.0
        self._seen_s = self._awake_s = self._clock_s = backend.now_s()
        self._graced_s = self._awake_s

    @property
    def now_s(self) -> float:
        """The machine's time."""
        return self._clock_s

    @property
    def away_s(self) -> float:
        """For how long the store has been away, 0 while it is there: as the scheduler or the workers see it."""
        return max(self.outbox.away_s(self._awake_s), machine_away_s(self.state, self._clock_s))

    def recover(self) -> None:
        """Queue what the inbox holds: the same at a first start and after a crash.

        What cannot be read of a study is its own error, in ``refused``; the others are queued.
        """
        entries, damaged = self.inbox.survey()
        self.refused.update(damaged)
        for entry in entries:
            try:
                self.enqueue(entry)
            except (DataError, UsageError) as error:
                self.refused[entry.study] = error

    def enqueue(self, entry: Entry) -> None:
        """Queue a submission that is in the inbox."""
        self.ended.pop(entry.study, None)
        self._halted = False
        self.feed(Submitted(self._now_s(), self.load(entry)))
        self.outbox.pump(self._awake_s)

    def cancel(self, study: str) -> None:
        """Stop a study and end its submission; finished blocks are kept."""
        self.feed(Cancelled(self._now_s(), study))
        self.outbox.pump(self._awake_s)

    def halt(self) -> None:
        """Stop leasing and let every lease end at its next block. Submissions stay in the inbox, to be gone on with."""
        self._halted = True
        for study in list(self.state.studies):
            self.cancel(study)

    def turn(self, timeout_s: float) -> None:
        """Wait for events, at most until the next deadline or ``timeout_s``, and do what follows from them.

        Errors: that of GiveUp when no worker comes up or the workers' store stays away; the StoreError of what cannot
        be recorded within the watchdog's time.
        """
        self._now_s()
        wait_s = self._wait_s(timeout_s)
        events = self.backend.events(wait_s)
        self._now_s(wait_s)
        self._take(events)
        while overdue(self.state, self._clock_s) and (events := self.backend.events(0)):
            self._take(events)  # what has come is an answer, however late it is looked at
        self._look()
        self.outbox.pump(self._awake_s)
        found, self._found = self._found, {}
        may_expire = self._stored is None or overdue(self.state, self._clock_s) <= found.keys()
        self.feed(Tick(self._now_s(), found, may_expire, frozenset(self._unsent)))
        self.outbox.pump(self._awake_s)
        if self._observe is not None:
            self._observe(self.state, self.tally)

    def feed(self, event: Event) -> None:
        """Take one event. What the store has to be asked for waits for the end of the turn."""
        before = {name: self.state.studies[name] for name in self._may_find(event) if name in self.state.studies}
        self.state, commands = step(self.state, event)
        self._check()
        self._count_found(before, {each.study: each.done for each in commands if isinstance(each, EndStudy)})
        for command in commands:
            _EXECUTE[type(command)](self, command)

    def _may_find(self, event: Event) -> Iterable[str]:
        """Return the studies of which an event may tell that blocks are done, beside those of a lease that ended."""
        if isinstance(event, (Tick, WorkerLost, LeaseCrashed)):
            return event.stored
        return (event.study,) if isinstance(event, LeaseEnded) and event.lease not in self.state.leases else ()

    def _count_found(self, before: Mapping[str, QueuedStudy], ended: Mapping[str, BlockSet]) -> None:
        for name, old in before.items():
            now = self.state.studies.get(name)
            news = (now.done if now is not None else ended.get(name, old.done)) & ~old.done
            if news:
                self.tally.cells_found += sum(old.submission.cells[block] for block in members(news))

    def _check(self) -> None:
        """Check what must hold: after every step, or where that takes long, as often as it may."""
        began_s = self.backend.now_s()
        if began_s >= self._check_s:
            invariants.check(self.state)
            now_s = self.backend.now_s()
            self._check_s = now_s + CHECK_SHARE * (now_s - began_s)

    def close(self, timeout_s: float = inf) -> None:
        """Wait until all records are written, at most ``timeout_s``."""
        until_s = self.backend.now_s() + timeout_s
        while self.outbox and self.backend.now_s() < until_s:
            self.turn(PROMPT_S)

    def _take(self, events: Sequence[Event]) -> None:
        """Feed what has come: answers before deaths, and deaths once it is known what was stored before them."""
        for event in events:
            worker = self.state.workers.get(event.worker) if isinstance(event, WorkerLost) else None
            if worker is not None and worker.status in ("ready", "draining"):
                self.feed(WorkerFailing(self._clock_s, worker.name))
        for event in sorted(events, key=lambda event: isinstance(event, (WorkerLost, LeaseCrashed))):
            if isinstance(event, (WorkerLost, LeaseCrashed)) and self._stored is not None:
                leases = self.state.workers[event.worker].leases if event.worker in self.state.workers else ()
                studies = {self.state.leases[name].run.study for name in leases}
                self._ask(f"death of {event.worker}", studies, partial(self._mourn, event))
            elif isinstance(event, (WorkerLost, LeaseCrashed)):
                self._mourn(event, {})
            else:
                self.feed(replace(event, now_s=self._clock_s))

    def _mourn(self, event: WorkerLost | LeaseCrashed, stored: Mapping[str, BlockSet]) -> None:
        event = replace(event, now_s=self._clock_s, stored=stored)
        self.feed(replace(event, unsent=frozenset(self._unsent)) if isinstance(event, WorkerLost) else event)

    def _ask(self, lane: str, studies: Iterable[str], then: Callable[[dict[str, BlockSet]], None]) -> None:
        assert self._stored is not None, "there is somebody to ask"
        names, stored = sorted(studies), self._stored
        self.outbox.add(lane, lambda: {name: stored(name) for name in names}, then)

    def _look(self) -> None:
        """Look up what is stored: of overdue leases before they expire, of all now and then."""
        studies = overdue(self.state, self._clock_s) - self._found.keys()
        if self._awake_s >= self._look_s:
            studies |= self.state.studies.keys()
        if self._stored is not None and studies and not self.outbox.has("look"):
            began_s = self.backend.now_s()

            def found(stored: dict[str, BlockSet]) -> None:
                self._found |= stored
                took_s = self.backend.now_s() - began_s
                self._look_s = self._awake_s + max(LOOK_S, LOOK_SHARE * took_s)

            self._ask("look", studies, found)

    def _now_s(self, asked_s: float = 0.0) -> float:
        """Return the machine's time; ``asked_s`` is what the loop meant to wait since it was looked at last."""
        now_s = self.backend.now_s()
        passed_s = min(now_s - self._seen_s, asked_s + STALL_S)
        self._seen_s = now_s
        self._awake_s += passed_s
        if self.outbox.away_s(self._awake_s):
            self._graced_s = self._awake_s + GRACE_S
        if self._awake_s >= self._graced_s:
            self._clock_s += passed_s
        return self._clock_s

    def _wait_s(self, timeout_s: float) -> float:
        """Return how long to wait for events: to the next deadline, the end of a pause, or a call that comes back."""
        dues = [timeout_s]
        if self.outbox.again_s is not None:
            dues.append(self.outbox.again_s - self._awake_s)
        elif self.outbox:
            dues.append(PROMPT_S)
        if self._awake_s < self._graced_s:
            dues.append(self._graced_s - self._awake_s)
        else:
            wake_s = next_wake_s(self.state)
            if wake_s is not None and not (wake_s <= self._clock_s and self.outbox):  # else it waits for an answer
                dues.append(wake_s - self._clock_s)
        return max(0.0, min(dues))

    def _start(self, command: StartWorker) -> None:
        self.backend.start(command.worker)

    def _stop(self, command: StopWorker) -> None:
        self.backend.stop(command.worker, command.why)

    def _run(self, command: RunLease) -> None:
        self._unsent.add(command.lease)
        self.journal.attempt(command, lambda: self._send(command))

    def _send(self, command: RunLease) -> None:
        self._unsent.discard(command.lease)
        if command.lease not in self.state.leases:
            return  # its worker is gone, or its time was up, before the attempt was recorded
        self.tally.leases[command.reason] += 1
        if command.reason == "warm":
            self.tally.affinity_hits += 1
        elif command.reason != "retry":
            self.tally.affinity_misses += 1
        self.backend.run(command)
        if self.state.studies[command.study].is_cancelled:
            self.backend.cancel(command.worker, command.lease)

    def _cancel(self, command: CancelLease) -> None:
        if command.lease not in self._unsent:  # else it is cancelled once there is somebody to be told
            self.backend.cancel(command.worker, command.lease)

    def _note(self, command: NoteLease) -> None:
        self.tally.outcomes[command.outcome] += 1
        for report in command.reports:
            self.tally.bytes_fetched += report.bytes_fetched
            self.tally.cells += report.cells if report.error is None else 0
            self.tally.seconds.update(report.stages)
        self.journal.ending(command)

    def _end(self, command: EndStudy) -> None:
        def end(_: object) -> None:
            if command.study not in self.state.studies:  # else it has been submitted anew
                self.ended[command.study] = command

        if self._halted:
            end(None)
        else:
            self.journal.finish(command, end)

    def _refuse(self, command: RefuseStudy) -> None:
        self.refused[command.study] = command.error

    def _give_up(self, command: GiveUp) -> None:
        raise command.error


_EXECUTE: Mapping[type[Command], Callable[[Driver, Any], None]] = {
    StartWorker: Driver._start,
    StopWorker: Driver._stop,
    RunLease: Driver._run,
    CancelLease: Driver._cancel,
    NoteLease: Driver._note,
    EndStudy: Driver._end,
    RefuseStudy: Driver._refuse,
    GiveUp: Driver._give_up,
}
