"""What must outlive every process: submissions, attempts, and the marker that a submission has ended. In the bucket.

    inbox/<study>/<nonce>.json             a submission that has not ended, under a key of its own
    studies/<study>/leases/<segment>.jsonl attempts: recorded before they are sent, and again when they have ended
    studies/<study>/done/<nonce>.json      how a submission ended; written last

Rules: a submission is acknowledged once its object in the inbox exists. No other ever has its key, so clearing what has
ended can take away nothing else; several of one study run as one, and end as one. The attempt is recorded before the
lease is sent, so that a block that brings everything down is counted all the same. The marker is written before the
inbox is cleared: who finds both finishes the clearing. So recovery is *inbox minus catalog*, the same code as a first
start. Failures count within one submission: who submits a study anew, after it ended with quarantined blocks, means to
try them again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.messages import EndStudy, NoteLease, RunLease
from cluster.submission import BlockSet, block_set, halves, members
from farm.results.leases import SENT, LeaseRecord, read_leases, segment_bytes
from farm.shard.layout import inbox_key, lease_segment_key, parse_inbox_key, study_prefix
from farm.store.base import Store
from farm.study.block import ranges_of
from farm.values.canon import canonical_json
from farm.values.errors import AlreadyExists, DataError, FarmError, NotFound
from farm.work.progress import total_seconds

FORMAT = "farm-inbox-1"
_REMOVE = "remove it and submit the study again"


@dataclass(frozen=True)
class Entry:
    """A submission. ``at_ns``: when, by the submitter's clock, which orders what this submitter has in the queue."""

    study: str
    nonce: str
    submitter: str
    priority: int
    at_ns: int


@dataclass(frozen=True)
class Attempts:
    """What earlier attempts tell. ``failures`` per block: how often, and the last error. ``suspects``: groups of blocks
    whose last attempt ended badly, or never: maybe it took driver or host with it. ``solo``: blocks that were alone on
    their worker then; others of the same host may be among them, so each is to be tried alone in the whole farm."""

    failures: Mapping[int, tuple[int, str]]
    suspects: tuple[BlockSet, ...]
    solo: BlockSet


class Inbox:
    """The durable side of the scheduler, over one store. Safe for many threads."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def submit(self, entry: Entry) -> None:
        """Put the submission into the inbox; AlreadyExists when another one has its nonce.

        The study's record must be stored already. Once this returns, no crash loses the submission.
        """
        body = canonical_json({**asdict(entry), "at_ns": str(entry.at_ns), "format": FORMAT})
        self._put(inbox_key(entry.study, entry.nonce), body)

    def pending(self) -> list[Entry]:
        """Return the submissions that have not ended, in the order of submission."""
        return self.survey()[0]

    def pending_of(self, study: str) -> list[Entry]:
        """Return those of one study."""
        return [entry for entry in self._survey(study)[0] if entry.study == study]

    def survey(self) -> tuple[list[Entry], dict[str, DataError]]:
        """Return the submissions that have not ended, in the order of submission, and by study the error of each one
        that cannot be read: it is the error of that study, and of no other."""
        return self._survey("")

    def _survey(self, name: str) -> tuple[list[Entry], dict[str, DataError]]:
        waiting: list[Entry] = []
        damaged: dict[str, DataError] = {}
        for meta in self.store.list(f"inbox/{name}"):
            found = parse_inbox_key(meta.key)
            if found is None:
                continue
            try:
                entry = self._entry(meta.key)
            except DataError as error:
                damaged[found[0]] = error
                continue
            if entry is not None and not self._clear_if_ended(entry, meta.key):
                waiting.append(entry)
        return _in_turns(waiting), damaged

    def journal(self, study: str, segment: str, entries: Sequence[RunLease | NoteLease]) -> None:
        """Record attempts of a study that are about to be sent, and how others ended, in a segment of this name;
        AlreadyExists when another has it."""
        records = [_record(entry) if isinstance(entry, RunLease) else _ended(entry) for entry in entries]
        self._put(lease_segment_key(study, segment), segment_bytes(records))

    def attempts(self, study: str, nonce: str) -> Attempts:
        """Return what is known of earlier attempts of this submission; DataError for a damaged record: a block that
        kills its workers would be tried again and again."""
        return _attempts([record for record in read_leases(self.store, study) if record.nonce == nonce])

    def finish(self, end: EndStudy) -> None:
        """Write the done markers of the submission and of those that joined it, then clear the inbox of them."""
        body = {
            "study": end.study,
            "is_cancelled": end.is_cancelled,
            "done": _ranges(end.done),
            "quarantined": _errors(end.quarantined),
        }
        for nonce in (end.nonce, *end.joined):
            with suppress(AlreadyExists):  # an earlier scheduler came this far
                self.store.put_if_absent(_done_key(end.study, nonce), canonical_json({**body, "nonce": nonce}))
        for nonce in (end.nonce, *end.joined):
            self.store.delete(inbox_key(end.study, nonce))
        old = inbox_key(end.study, "")
        entry = self._entry(old)
        if entry is not None:
            self._clear_if_ended(entry, old)

    def _put(self, key: str, body: bytes) -> None:
        try:
            self.store.put_if_absent(key, body)
        except AlreadyExists:
            if self.store.get(key) != body:  # else it is our own, whose answer was lost
                raise

    def _entry(self, key: str) -> Entry | None:
        record = self._read(key)
        if record is None:
            return None
        try:
            entry = Entry(
                str(record["study"]),
                str(record["nonce"]),
                str(record["submitter"]),
                int(record["priority"]),
                int(record["at_ns"]),
            )
            if key not in (inbox_key(entry.study, entry.nonce), inbox_key(entry.study, "")):
                raise ValueError(f"it is that of {entry.study}, nonce {entry.nonce}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a submission: {error}", place=key, hint=_REMOVE) from error
        return entry

    def _clear_if_ended(self, entry: Entry, key: str) -> bool:
        try:
            self.store.head(_done_key(entry.study, entry.nonce))
        except NotFound:
            return False
        self.store.delete(key)
        return True

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            record = json.loads(self.store.get(key))
        except NotFound:
            return None  # somebody cleared it in the meantime
        except ValueError as error:
            raise DataError("not JSON", place=key, hint=_REMOVE) from error
        if not isinstance(record, dict):
            raise DataError("not an object", place=key, hint=_REMOVE)
        return record


def _in_turns(entries: Iterable[Entry]) -> list[Entry]:
    """Return the submissions in the order in which they are queued: each submitter's by their own clock, which puts
    nobody but themselves first or last, and those of several submitters in turns."""
    places: Counter[str] = Counter()
    turns = []
    for entry in sorted(entries, key=lambda entry: (entry.at_ns, entry.study, entry.nonce)):
        turns.append((places[entry.submitter], entry.submitter, entry))
        places[entry.submitter] += 1
    return [entry for _, _, entry in sorted(turns, key=lambda turn: turn[:2])]


def _done_key(study: str, nonce: str) -> str:
    return f"{study_prefix(study)}done/{nonce}.json"


def _ranges(blocks: BlockSet) -> list[list[int]]:
    return ranges_of(list(members(blocks)))


def _record(run: RunLease) -> LeaseRecord:
    return LeaseRecord(
        study=run.study,
        worker=run.worker,
        reason=run.reason,
        attempt=run.attempt,
        blocks=tuple(members(run.blocks)),
        lease=run.lease,
        nonce=run.nonce,
    )


def _ended(note: NoteLease) -> LeaseRecord:
    return replace(
        _record(note.run),
        outcome=note.outcome,
        cells=sum(report.cells for report in note.reports if report.error is None),
        bytes_fetched=sum(report.bytes_fetched for report in note.reports),
        seconds=total_seconds(report.stages for report in note.reports),
        wall_s=round(sum(report.seconds for report in note.reports), 6),
        failed={block: error.to_json() for block, error in note.failed.items()},
        error=None if note.error is None else note.error.to_json(),
    )


def _attempts(records: Sequence[LeaseRecord]) -> Attempts:
    """Return what these records tell, in the order they were made: it goes on where the scheduler before left off."""
    failures: dict[int, tuple[int, str]] = {}
    last: dict[int, int] = {}
    solo = 0
    for place, record in enumerate(records):
        failed = {block: error["message"] for block, error in record.failed.items()}
        if record.outcome == SENT and record.reason == "retry" and len(record.blocks) == 1:
            failed[record.blocks[0]] = f"attempt {record.lease} was never answered: driver or host went down with it"
            solo |= 1 << record.blocks[0]
        for block, message in failed.items():
            failures[block] = failures.get(block, (0, ""))[0] + 1, message
        last |= dict.fromkeys(record.blocks, place)
    suspects = []
    for place, record in enumerate(records):
        if record.outcome in (SENT, "crashed", "expired"):
            blocks = block_set(record.blocks)
            for group in halves(blocks) if record.reason == "retry" else (blocks,):  # alone already: in half
                suspects.append(block_set(block for block in members(group) if last[block] == place))
    return Attempts(failures, tuple(group for group in suspects if group), solo)


def _errors(errors: Mapping[int, FarmError]) -> dict[str, dict[str, str]]:
    return {str(block): error.to_json() for block, error in errors.items()}
