"""The loop: collect events, call ``step``, check what must hold, execute the commands. It decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from cluster import invariants
from cluster.backend import Backend
from cluster.inbox import Entry, Inbox
from cluster.lease import Limits
from cluster.machine import step
from cluster.messages import (
    CancelLease,
    Cancelled,
    Command,
    EndStudy,
    Event,
    GiveUp,
    NoteLease,
    RefuseStudy,
    RunLease,
    StartWorker,
    StopWorker,
    Submitted,
    Tick,
)
from cluster.state import State, next_wake_s
from cluster.submission import Submission
from farm.values.errors import DataError, FarmError, UsageError

LoadSubmission = Callable[[Entry], Submission]
"""Entry of the inbox -> the study as the queue sees it: its record, minus the segments in the catalog."""


@dataclass
class Tally:
    """What the loop has seen, for progress, metrics and the document. Seconds by stage are those of the workers."""

    cells: int = 0
    bytes_fetched: int = 0
    affinity_hits: int = 0
    affinity_misses: int = 0
    leases: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)


class Driver:
    """One scheduler: a state, a backend that runs its workers, an inbox that outlives it.

    ``writer`` takes the records of ended leases off the loop; without one they are written at once.
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
    ) -> None:
        self.backend = backend
        self.inbox = inbox
        self.load = load
        self.state = State(epoch, limits)
        self.tally = Tally()
        self.ended: dict[str, EndStudy] = {}
        self.refused: dict[str, FarmError] = {}
        self._halted = False
        self._writer = writer
        self._writing: list[Future[None]] = []
        self._observe = observe

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
        self.feed(Submitted(self.backend.now_s(), self.load(entry)))

    def cancel(self, study: str) -> None:
        """Stop a study and end its submission; finished blocks are kept."""
        self.feed(Cancelled(self.backend.now_s(), study))

    def halt(self) -> None:
        """Stop leasing and let every lease end at its next block. Submissions stay in the inbox, to be gone on with."""
        self._halted = True
        for study in list(self.state.studies):
            self.cancel(study)

    def turn(self, timeout_s: float) -> None:
        """Wait for events, at most until the next deadline or ``timeout_s``, and do what follows from them.

        Errors: that of GiveUp when no worker comes up; StoreError when an attempt or an end cannot be recorded.
        """
        wake_s = next_wake_s(self.state)
        now_s = self.backend.now_s()
        wait_s = timeout_s if wake_s is None else min(timeout_s, max(0.0, wake_s - now_s))
        for event in self.backend.events(wait_s):
            self.feed(event)
        self.feed(Tick(self.backend.now_s()))
        self._collect()
        if self._observe is not None:
            self._observe(self.state, self.tally)

    def feed(self, event: Event) -> None:
        """Take one event."""
        self.state, commands = step(self.state, event)
        invariants.check(self.state)
        for command in commands:
            _EXECUTE[type(command)](self, command)

    def close(self) -> None:
        """Wait until all records are written."""
        for future in self._writing:
            future.result()
        self._writing.clear()

    def _collect(self) -> None:
        for future in [future for future in self._writing if future.done()]:
            self._writing.remove(future)
            future.result()

    def _start(self, command: StartWorker) -> None:
        self.backend.start(command.worker)

    def _stop(self, command: StopWorker) -> None:
        self.backend.stop(command.worker, command.why)

    def _run(self, command: RunLease) -> None:
        self.inbox.record(command)
        self.tally.leases[command.reason] += 1
        if command.reason == "warm":
            self.tally.affinity_hits += 1
        elif command.reason != "retry":
            self.tally.affinity_misses += 1
        self.backend.run(command)

    def _cancel(self, command: CancelLease) -> None:
        self.backend.cancel(command.worker, command.lease)

    def _note(self, command: NoteLease) -> None:
        self.tally.outcomes[command.outcome] += 1
        for report in command.reports:
            self.tally.bytes_fetched += report.bytes_fetched
            self.tally.cells += report.cells if report.error is None else 0
            self.tally.seconds.update(report.stages)
        if self._writer is None:
            self.inbox.note(command)
        else:
            self._writing.append(self._writer.submit(self.inbox.note, command))

    def _end(self, command: EndStudy) -> None:
        self.ended[command.study] = command
        if not self._halted:
            self.close()  # the marker is written last
            self.inbox.finish(command)

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
