"""Attempts and their ends on their way into the bucket: what comes while a write is under way is written by the next.

So there is one write at a time for each study, of as many records as came meanwhile, whatever a write takes; a lease is
sent when the segment that has its attempt is there. Done markers take their turn among the segments of their study:
what came before is recorded before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cluster.inbox import Inbox
from cluster.messages import EndStudy, NoteLease, RunLease
from cluster.outbox import Outbox

RECORDS_MAX: Final = 1000
"""Records of a segment; some 400 kB."""


@dataclass(eq=False)
class _Batch:
    study: str
    segment: str
    records: list[RunLease | NoteLease] = field(default_factory=list)
    then: list[Callable[[], None]] = field(default_factory=list)


class Journal:
    """What one scheduler, of this epoch, records. Used by one thread."""

    def __init__(self, outbox: Outbox, inbox: Inbox, epoch: str) -> None:
        self._outbox, self._inbox, self._epoch = outbox, inbox, epoch
        self._open: dict[str, _Batch] = {}
        self._made = 0

    def attempt(self, run: RunLease, then: Callable[[], None]) -> None:
        """Record an attempt; ``then`` it may be sent."""
        batch = self._batch(run.study)
        batch.records.append(run)
        batch.then.append(then)

    def ending(self, note: NoteLease) -> None:
        """Record how an attempt ended."""
        self._batch(note.run.study).records.append(note)

    def finish(self, end: EndStudy, then: Callable[[object], None]) -> None:
        """Write the done marker, after all that is recorded of the study so far."""
        self._open.pop(end.study, None)
        self._outbox.add(_lane(end.study), lambda: self._inbox.finish(end), then)

    def _batch(self, study: str) -> _Batch:
        batch = self._open.get(study)
        if batch is None or len(batch.records) >= RECORDS_MAX:
            batch = self._open[study] = _Batch(study, f"{self._epoch}-{self._made:08d}")
            self._made += 1
            self._outbox.add(
                _lane(study),
                lambda: self._inbox.journal(batch.study, batch.segment, batch.records),
                lambda _: _follow(batch),
                lambda: self._close(batch),
            )
        return batch

    def _close(self, batch: _Batch) -> None:
        """It is about to be written: from now on it stays as it is, however often that is tried."""
        if self._open.get(batch.study) is batch:
            del self._open[batch.study]


def _follow(batch: _Batch) -> None:
    for then in batch.then:
        then()


def _lane(study: str) -> str:
    return f"records of {study}"
