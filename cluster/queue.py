"""Whose turn it is: priority, then fair share between submitters, then the order of submission.

Each submitter has a meter of expected seconds of work handed out. Within a priority, those within ``fair_s`` of the
lowest meter are served alike, and affinity chooses among their piles; who is further ahead waits. So a warm cache is
preferred at a price of ``fair_s``, and nobody starves for it. A submitter that comes (back) starts at the lowest meter
of those who are waiting: sleeping earns no credit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_

from cluster.lease import Limits
from cluster.submission import BlockSet, Submission, block_set
from farm.values.errors import BlockFailed, FarmError


@dataclass(frozen=True)
class QueuedStudy:
    """A study in the queue. Each of its blocks is waiting, suspect, in one lease, done, or quarantined.

    Fields: place, in the order of submission; suspects, groups of blocks that were in a lease that crashed, each to be
    tried alone on a worker; failures per block; since_s, when it last got a lease; joined, nonces of later submissions;
    away_s, since when its workers have had no answer from the store; paused_s, until when it gets no lease for that.
    """

    submission: Submission
    place: int
    since_s: float
    waiting: BlockSet
    done: BlockSet
    suspects: tuple[BlockSet, ...] = ()
    failures: Mapping[int, int] = field(default_factory=dict)
    quarantined: Mapping[int, FarmError] = field(default_factory=dict)
    is_cancelled: bool = False
    joined: tuple[str, ...] = ()
    away_s: float | None = None
    paused_s: float | None = None

    @property
    def submitter(self) -> str:
        return self.submission.submitter


def at_entry(submission: Submission, place: int, now_s: float, limits: Limits) -> QueuedStudy:
    """Return the study as it enters the queue: what earlier schedulers saw fail, or never saw end, counts."""
    left = submission.blocks & ~submission.done
    spent = {block: text for block, (count, text) in submission.failures.items() if count >= limits.attempts_max}
    quarantined = {
        block: BlockFailed(text, place=f"block {block}") for block, text in spent.items() if left >> block & 1
    }
    left &= ~block_set(quarantined)
    suspects = tuple(group & left for group in submission.suspects if group & left)
    return QueuedStudy(
        submission,
        place,
        now_s,
        waiting=left & ~reduce(or_, suspects, 0),
        done=submission.done,
        suspects=suspects,
        failures={block: count for block, (count, _) in submission.failures.items()},
        quarantined=quarantined,
    )


def taken(study: QueuedStudy, done: BlockSet) -> QueuedStudy:
    """Return the study with blocks done that are in no lease of ours: somebody else had them, or an answer was late."""
    news = done & study.submission.blocks & ~study.done
    return replace(
        study,
        done=study.done | news,
        waiting=study.waiting & ~news,
        suspects=tuple(group & ~news for group in study.suspects if group & ~news),
        quarantined={block: error for block, error in study.quarantined.items() if not news >> block & 1},
    )


def paused(study: QueuedStudy, now_s: float, limits: Limits) -> tuple[QueuedStudy, bool]:
    """Return the study paused, since the store left its workers without an answer, which blames no block; and whether
    it has done so for as long as the watchdog allows."""
    since_s = now_s if study.away_s is None else study.away_s
    is_vain = now_s - since_s >= limits.watchdog_s
    return replace(study, away_s=now_s if is_vain else since_s, paused_s=now_s + limits.pause_s), is_vain


def turns(
    waiting: Sequence[QueuedStudy], served_s: Mapping[str, float], now_s: float, limits: Limits
) -> Iterator[tuple[list[QueuedStudy], bool]]:
    """Yield groups of studies to choose from, best first; the flag marks a single study that waited too long.

    A later group is looked at only if nothing in the earlier ones suits the worker.
    """
    for priority in sorted({study.submission.priority for study in waiting}, reverse=True):
        peers = [study for study in waiting if study.submission.priority == priority]
        lowest = min(served_s.get(study.submitter, 0.0) for study in peers)
        ahead = [study for study in peers if served_s.get(study.submitter, 0.0) > lowest + limits.fair_s]
        level = [study for study in peers if served_s.get(study.submitter, 0.0) <= lowest + limits.fair_s]
        overdue = [study for study in level if now_s - study.since_s > limits.wait_s_max]
        if overdue and len(level) > 1:
            yield [min(overdue, key=lambda study: (study.since_s, study.place))], True
        yield level, False
        if ahead:
            yield ahead, False


def meter_at_entry(submitter: str, served_s: Mapping[str, float], active: Sequence[str]) -> float:
    """Return where the meter of a submitter stands when a study of theirs arrives; ``active``: who is waiting now."""
    own = served_s.get(submitter, 0.0)
    if submitter in active or not active:
        return own
    return max(own, min(served_s.get(name, 0.0) for name in active))
