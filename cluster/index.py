"""What a step needs to know of the whole state, kept as it changes: nothing is looked for among all that is there.

Everything here follows from the state alone: ``build`` makes it anew, and ``facts`` of both must be equal, which the
invariants check. A step changes the state through ``study``, ``worker``, ``lease`` and ``meter``, each of which is
told what was and what is. The index belongs to the newest state; ``turn`` tells which that is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from heapq import heappop, heappush
from typing import Any

from cluster.affinity import Piles, Stirred, WorkerView
from cluster.lease import BlockCosts, Lease, Limits
from cluster.queue import QueuedStudy, Turns


class Index:
    """Fields: waiting, suspected, flying, queued: blocks, and those of all studies in the queue; slots, of all ready
    workers; backlog_ns, expected work of what waits or flies; statuses, workers by status; roomy, those that can take
    a lease; alone, those that have one that wants no other beside it; suspects, solos, paused, away: studies with that;
    leases_of, by study; stirred, what may have become possible since free slots were filled.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.turn = 0
        self.waiting = self.suspected = self.flying = self.queued = self.slots = self.backlog_ns = 0
        self.statuses: dict[str, dict[str, None]] = {}
        self.roomy: dict[str, WorkerView] = {}
        self.alone: dict[str, None] = {}
        self.suspects: dict[str, None] = {}
        self.solos: dict[str, None] = {}
        self.paused: dict[str, float] = {}
        self.away: dict[str, float] = {}
        self.leases_of: dict[str, dict[str, None]] = {}
        self.stirred = Stirred()
        self.turns = Turns()
        self.piles = Piles(self.stirred)
        self._deadlines: list[tuple[float, str]] = []
        self._due_s: dict[str, float] = {}
        self._starting: dict[str, float] = {}
        self._study_ns: dict[str, int] = {}

    @classmethod
    def build(
        cls,
        limits: Limits,
        studies: Mapping[str, QueuedStudy],
        workers: Mapping[str, WorkerView],
        leases: Mapping[str, Lease],
        served_s: Mapping[str, float],
        costs: BlockCosts,
    ) -> Index:
        """Return the index of a state, made anew."""
        index = cls(limits)
        for study in studies.values():
            index.study(None, study, served_s.get(study.submitter, 0.0), costs)
        for worker in workers.values():
            index.worker(None, worker)
        for held in leases.values():
            index.lease(None, held)
        index.stirred.workers.update(dict.fromkeys(index.roomy))
        return index

    @property
    def unfinished(self) -> int:
        """How many blocks wait, are suspect or in a lease; of a cancelled study only those in a lease are left."""
        return self.waiting + self.suspected + self.flying

    # What changes

    def study(self, old: QueuedStudy | None, new: QueuedStudy | None, meter_s: float, costs: BlockCosts) -> None:
        """Note that a study has changed, come (no ``old``) or gone (no ``new``)."""
        known = new or old
        assert known is not None, "something is or was there"
        name = known.submission.study
        for study, sign in ((old, -1), (new, 1)):
            if study is not None and (old is None or new is None or old.waiting != new.waiting):
                self.waiting += sign * study.waiting.bit_count()
            if study is not None and study.suspects:
                self.suspected += sign * sum(group.bit_count() for group in study.suspects)
        if old is None or new is None:
            self.queued += len(known.submission.cells) * (1 if old is None else -1)
        _keep(self.suspects, name, None, is_kept=new is not None and bool(new.suspects))
        _keep(self.solos, name, None, is_kept=new is not None and bool(new.submission.solo))
        _keep(self.paused, name, new and new.paused_s, is_kept=new is not None and new.paused_s is not None)
        _keep(self.away, name, new and new.away_s, is_kept=new is not None and new.away_s is not None)
        self.turns.change(old, new, meter_s)
        self.piles.change_study(old, new)
        self.cost(name, costs)

    def cost(self, study: str, costs: BlockCosts) -> None:
        """Note that the blocks of a study wait, or cost, other than before."""
        backlog = self.piles.backlogs.get(study)
        self.stirred.studies[study] = None
        if self.limits.backlog_s_per_worker:
            expected = 0 if backlog is None else _ns(backlog.seconds(costs))
            self.backlog_ns += expected - self._study_ns.get(study, 0)
            _keep(self._study_ns, study, expected, is_kept=backlog is not None)

    def load_cost(self) -> None:
        """Note that loading costs other than before."""
        self.stirred.studies.update(dict.fromkeys(self.piles.backlogs))

    def meter(self, submitter: str, meter_s: float) -> None:
        """Note where the meter of a submitter stands."""
        self.turns.move(submitter, meter_s)

    def worker(self, old: WorkerView | None, new: WorkerView | None) -> None:
        """Note that a worker has changed, come or gone."""
        known = new or old
        assert known is not None, "something is or was there"
        if old is None or new is None or old.status != new.status:
            for worker, is_kept in ((old, False), (new, True)):
                if worker is not None:
                    _keep(self.statuses.setdefault(worker.status, {}), worker.name, None, is_kept=is_kept)
            _keep(self._starting, known.name, known.since_s, is_kept=new is not None and new.status == "starting")
        self.slots += _slots(new) - _slots(old)
        self.piles.change_worker(old, new)
        self._room(known.name, new)

    def lease(self, old: Lease | None, new: Lease | None) -> None:
        """Note that a lease has come, gone, or got another deadline. Its worker is told of apart."""
        known = new or old
        assert known is not None, "something is or was there"
        run = known.run
        if new is not None:
            heappush(self._deadlines, (run.deadline_s, run.lease))
        _keep(self._due_s, run.lease, run.deadline_s, is_kept=new is not None)
        if old is not None and new is not None:
            return
        sign = 1 if old is None else -1
        self.flying += sign * known.count
        if self.limits.backlog_s_per_worker:
            self.backlog_ns += sign * _ns(known.expected_s)
        leases = self.leases_of.setdefault(run.study, {})
        _keep(leases, run.lease, None, is_kept=new is not None)
        if not leases:
            del self.leases_of[run.study]
        if known.alone:
            _keep(self.alone, run.worker, None, is_kept=new is not None)
            if run.worker in self.roomy or old is not None:
                self._room(run.worker, self.piles.workers.get(run.worker))
        self.piles.change_lease(run.worker, known.pile, sign)

    def _room(self, name: str, worker: WorkerView | None) -> None:
        if (
            worker is not None
            and worker.status == "ready"
            and len(worker.leases) < worker.slots * self.limits.ahead_per_slot
            and name not in self.alone
        ):
            self.roomy[name] = worker
            self.stirred.workers[name] = None
        else:
            self.roomy.pop(name, None)

    # What is asked

    def of_status(self, *statuses: str) -> list[str]:
        """Return the workers in these states, in the order of arrival."""
        return self.in_order([name for status in statuses for name in self.statuses.get(status, ())])

    def in_order(self, workers: Collection[str]) -> list[str]:
        """Return workers in the order of arrival."""
        known = self.piles.workers
        return sorted(workers, key=lambda name: known[name].place) if len(workers) > 1 else list(workers)

    def count(self, *statuses: str) -> int:
        return sum(len(self.statuses.get(status, ())) for status in statuses)

    def overdue(self, now_s: float) -> list[str]:
        """Return the leases past their deadline."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            due_s, lease = heappop(self._deadlines)
            if self._due_s.get(lease) == due_s:
                found.append((due_s, lease))
        for each in found:
            heappush(self._deadlines, each)
        return list(dict.fromkeys(lease for _, lease in found))

    def late_starts(self, now_s: float) -> list[str]:
        """Return the workers that did not come up in time."""
        found = []
        for name, since_s in self._starting.items():  # in the order in which they were started
            if since_s + self.limits.start_s > now_s:
                break
            found.append(name)
        return found

    def next_wake_s(self) -> float | None:
        """Return when the first lease, start or pause is due, or None."""
        while self._deadlines and self._due_s.get(self._deadlines[0][1]) != self._deadlines[0][0]:
            heappop(self._deadlines)
        times = [self._deadlines[0][0]] if self._deadlines else []
        times += [since_s + self.limits.start_s for since_s in list(self._starting.values())[:1]]
        return min([*times, *self.paused.values()], default=None)

    def facts(self, studies: Mapping[str, QueuedStudy], costs: BlockCosts) -> dict[str, Any]:
        """Return all that it says, without what depends on how it came to say it."""
        piles = self.piles
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "roomy": set(self.roomy),
            "statuses": {status: set(names) for status, names in self.statuses.items() if names},
            "due_s": self._due_s,
            "next_wake_s": self.next_wake_s(),
            "ranks": {priority: vars(rank) for priority, rank in self.turns.ranks.items()},
            "open": {key: known.open for key, known in piles.open.items()},
            "leases": {key: known.leases for key, known in piles.keys.items()},
            "warm": piles.warm,
            "warm by key": {key: set(known.warm) for key, known in piles.keys.items()},
            "holders": piles.holders,
            "homes": piles.unheld,
            "at home": {worker: set(keys) for worker, keys in piles.at_home.items() if keys},
            "counts": {study: backlog.counts for study, backlog in piles.backlogs.items()},
            "best": {
                study: [backlog.best(costs, piles.holders, held=held) for held in (False, True)]
                for study, backlog in piles.backlogs.items()
                if studies[study].is_served
            },
        }


_PLAIN = (
    "waiting", "suspected", "flying", "queued", "slots", "backlog_ns", "alone", "suspects", "solos", "paused", "away",
    "leases_of", "_starting", "_study_ns",
)  # fmt: skip


def _keep(among: dict[str, Any], name: str, value: Any, *, is_kept: bool) -> None:
    if is_kept:
        among[name] = value
    else:
        among.pop(name, None)


def _slots(worker: WorkerView | None) -> int:
    return worker.slots if worker is not None and worker.status == "ready" else 0


def _ns(seconds: float) -> int:
    """Nanoseconds add up to the same whatever the order."""
    return round(seconds * 1e9)
