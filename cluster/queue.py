"""Whose turn it is: priority, then fair share between submitters, then the order of submission.

Each submitter has a meter of expected seconds of work handed out. Within a priority, those within ``fair_s`` of the
lowest meter are served alike, and affinity chooses among their piles; who is further ahead waits. So a warm cache is
preferred at a price of ``fair_s``, and nobody starves for it. A submitter that comes (back) starts at the lowest meter
of those who are waiting: sleeping earns no credit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from math import inf
from operator import or_
from typing import Any, NamedTuple

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

    @property
    def is_served(self) -> bool:
        """Whether it may get a lease of waiting blocks now."""
        return self.waiting != 0 and self.paused_s is None


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


class Group:
    """Some of the studies that are served: one of them, or those of a priority whose meters are within bounds."""

    def __init__(self, rank: Rank, low_s: float, high_s: float, only: QueuedStudy | None = None) -> None:
        self._rank, self._low_s, self._high_s, self._only = rank, low_s, high_s, only

    def __contains__(self, study: QueuedStudy) -> bool:
        if self._only is not None:
            return study.place == self._only.place
        if study.submission.priority != self._rank.priority or not study.is_served:
            return False
        return self._low_s < self._rank.meter_s[study.submitter] <= self._high_s

    def __iter__(self) -> Iterator[str]:
        """Yield the names of its studies."""
        if self._only is not None:
            yield self._only.submission.study
            return
        meters = self._rank.meters
        first, last = bisect_right(meters, (self._low_s, _LAST)), bisect_right(meters, (self._high_s, _LAST))
        for _, submitter in islice(meters, first, last):
            yield from self._rank.studies[submitter].values()


_LAST = chr(0x10FFFF)
"""Comes after every name."""


class Wait(NamedTuple):
    """Since when a study has had no lease; sorts by that."""

    since_s: float
    place: int
    study: str


class Rank:
    """The studies of one priority that are served: by submitter, by their meters, and by how long they have waited."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.studies: dict[str, dict[int, str]] = {}
        self.meter_s: dict[str, float] = {}
        self.meters: list[tuple[float, str]] = []
        self.waits: list[Wait] = []

    def add(self, study: QueuedStudy, meter_s: float) -> None:
        if study.submitter not in self.studies:
            self.studies[study.submitter] = {}
            self.meter_s[study.submitter] = meter_s
            insort(self.meters, (meter_s, study.submitter))
        self.studies[study.submitter][study.place] = study.submission.study
        insort(self.waits, _wait(study))

    def remove(self, study: QueuedStudy) -> None:
        _drop(self.waits, _wait(study))
        del self.studies[study.submitter][study.place]
        if not self.studies[study.submitter]:
            del self.studies[study.submitter]
            _drop(self.meters, (self.meter_s.pop(study.submitter), study.submitter))

    def move(self, submitter: str, meter_s: float) -> None:
        """Note that the meter of a submitter stands elsewhere now."""
        if submitter in self.studies:
            _drop(self.meters, (self.meter_s[submitter], submitter))
            self.meter_s[submitter] = meter_s
            insort(self.meters, (meter_s, submitter))


class Turns:
    """Whose turn it is: every study that is served, by priority. Kept as studies and meters change."""

    def __init__(self) -> None:
        self.ranks: dict[int, Rank] = {}

    def change(self, old: QueuedStudy | None, new: QueuedStudy | None, meter_s: float) -> None:
        """Note that a study has changed, come or gone; ``meter_s``: where the meter of its submitter stands."""
        before, after = old is not None and old.is_served, new is not None and new.is_served
        if before and after and old is not None and new is not None and _wait(old) == _wait(new):
            return
        if before and old is not None:
            rank = self.ranks[old.submission.priority]
            rank.remove(old)
            if not rank.waits:
                del self.ranks[rank.priority]
        if after and new is not None:
            self.ranks.setdefault(new.submission.priority, Rank(new.submission.priority)).add(new, meter_s)

    def move(self, submitter: str, meter_s: float) -> None:
        """Note that the meter of a submitter stands elsewhere now."""
        for rank in self.ranks.values():
            rank.move(submitter, meter_s)

    def groups(
        self, studies: Mapping[str, QueuedStudy], now_s: float, limits: Limits
    ) -> Iterator[tuple[Group, QueuedStudy | None]]:
        """Yield groups of studies to choose from, best first; beside a single study that waited too long, itself.

        A later group is looked at only if nothing in the earlier ones suits the worker.
        """
        for priority in sorted(self.ranks, reverse=True):
            rank = self.ranks[priority]
            bound_s = rank.meters[0][0] + limits.fair_s
            level = Group(rank, -inf, bound_s)
            late = self.overdue(rank, studies, now_s, limits)
            if late is not None:
                yield Group(rank, 0.0, 0.0, late), late
            yield level, None
            if rank.meters[-1][0] > bound_s:
                yield Group(rank, bound_s, inf), None

    def overdue(
        self, rank: Rank, studies: Mapping[str, QueuedStudy], now_s: float, limits: Limits
    ) -> QueuedStudy | None:
        """Return the study that waited longest, and too long, among several whose turn it is; None if there is none."""
        level = Group(rank, -inf, rank.meters[0][0] + limits.fair_s)
        for wait in rank.waits:
            if now_s - wait.since_s <= limits.wait_s_max:
                return None
            if studies[wait.study] in level:
                return studies[wait.study] if len(list(islice(level, 2))) > 1 else None
        return None

    def longest_wait_s(self, studies: Mapping[str, QueuedStudy], limits: Limits) -> float:
        """Return since when somebody waits whose turn it is; there has to be one."""
        rank = self.ranks[max(self.ranks)]
        level = Group(rank, -inf, rank.meters[0][0] + limits.fair_s)
        return next(wait.since_s for wait in rank.waits if studies[wait.study] in level)


def _wait(study: QueuedStudy) -> Wait:
    return Wait(study.since_s, study.place, study.submission.study)


def _drop(ordered: list[Any], item: tuple[Any, ...]) -> None:
    place = bisect_left(ordered, item)
    assert ordered[place] == item, "it was put there"
    del ordered[place]


def meter_at_entry(submitter: str, served_s: Mapping[str, float], active: Sequence[str]) -> float:
    """Return where the meter of a submitter stands when a study of theirs arrives; ``active``: who is waiting now."""
    own = served_s.get(submitter, 0.0)
    if submitter in active or not active:
        return own
    return max(own, min(served_s.get(name, 0.0) for name in active))
