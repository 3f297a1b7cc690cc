"""A simulator of the cluster with a seed: the same driver and machine, a virtual clock, and everything that goes wrong.

    python -m cluster.sim --seeds 10000        many small worlds
    python -m cluster.sim --seed 4711          one of them again, exactly

A world (``sim_worlds``) has a few studies and workers (``sim_cluster``), a bucket (``sim_store``) and faults: workers
crash, seem lost and go on, hang, do not come up; leases fall; messages are slow, doubled, lost; blocks kill their
worker, hang it, end in an error, or give other bytes the second time; the bucket is slow and fails; studies are
cancelled, refused, and submitted twice; the scheduler dies between any two of its effects and is rebuilt from the inbox
minus the catalog; two of them run at once. A witness (``sim_checks``) looks at every step. At the end of each world:

- every submission that was acknowledged has its marker; the inbox is empty;
- every block that can be computed has its result, with the bytes that were written first, and the study's end says so;
- exactly the poisonous blocks are quarantined, never an innocent neighbour;
- no worker is left, whoever started it.

Three strikes are the farm's own definition of poison, so faults of the surroundings choose a block at most twice. What
is in flight when its worker or scheduler has just died is struck all the same; a block for which this is the third may
be quarantined.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from cluster.driver import Driver
from cluster.inbox import Entry, Inbox
from cluster.messages import Event
from cluster.sim_checks import History, Witness
from cluster.sim_cluster import STRIKES_MAX, Hosts, SimBackend, SimStudy
from cluster.sim_store import Broken, Clock, Died, Faults, Fuse, SimStore
from cluster.sim_worlds import SHARDS, WorldPlan, make_world
from cluster.submission import BlockSet, Submission, block_set, make_piles, members
from farm.results.leases import SENT
from farm.shard.layout import study_prefix
from farm.values.errors import BlockFailed, CapacityError, FarmError, StoreError

FAULTS = Faults()
POLL_S = 2.0
TURNS_MAX = 50_000
SECONDS_MAX = 5_000.0


class GaveUp(Exception):
    """A scheduler ended because no worker came up."""


class SimDriver(Driver):
    """A scheduler with a witness beside it."""

    witness: Witness

    def feed(self, event: Event) -> None:
        self.witness.heard(event)
        before = {name: study.failures for name, study in self.state.studies.items()}
        try:
            super().feed(event)
            self.witness.blamed(event, before)
        except (BlockFailed, CapacityError) as error:
            raise GaveUp from error

    @property
    def sim_backend(self) -> SimBackend:
        assert isinstance(self.backend, SimBackend)
        return self.backend

    @property
    def is_idle(self) -> bool:
        return not self.state.studies and not self.state.workers and not self.outbox


class World:
    """Everything a seed stands for. ``deaths``: the scheduler dies at these of its effects; for chosen worlds."""

    def __init__(
        self, seed: int, faults: Faults = FAULTS, *, plan: WorldPlan | None = None, deaths: Sequence[int] = ()
    ) -> None:
        self.chance = random.Random(seed)
        self.faults = faults
        self.plan = plan or make_world(self.chance, faults)
        self.clock = Clock()
        self.fuse = Fuse()
        self.store = SimStore(self.chance, self.clock, self.fuse)
        self.studies = {study.name: study for study in self.plan.studies}
        held_max = len(SHARDS) if self.plan.is_calm else self.chance.choice([3, len(SHARDS)])
        self.hosts = Hosts(
            self.chance,
            self.clock,
            self.store,
            self.fuse,
            faults,
            self.studies,
            self.plan.trouble,
            held_max,
            self.plan.slots,
        )
        self.inbox = Inbox(self.store)
        self.history = History()
        self.acknowledged: list[Entry] = []
        self.seen: set[str] = set()
        self.epochs = 0
        self.hosts.asks = self.chance.random() < 0.7
        self.old: list[SimDriver] = []
        self._deaths = list(deaths)
        self._turned_away: list[Entry] = []
        self._struck: set[str] = set()
        self.driver = self._make_driver()
        if faults.resubmissions and self.plan.kind == "wild" and self.chance.random() < 0.3:
            self.store.on_clearing = self._sneak
        self._script = sorted(self._write_script(), key=lambda item: item[0])

    def run(self) -> None:
        """Live through it, then check what must hold; Broken."""
        for _ in range(TURNS_MAX):
            while self._script and self._script[0][0] <= self.clock.now_s:
                self._script.pop(0)[1]()
            if not self._script and not self.old and self.driver.is_idle and not self._refused():
                break
            if self.clock.now_s > SECONDS_MAX:
                break
            until_s = self._script[0][0] - self.clock.now_s if self._script else 60.0
            for driver in [*self.old, self.driver]:
                alone_s = until_s if not self.old else min(until_s, 0.5)
                self._drive(driver, lambda driver=driver, wait_s=alone_s: driver.turn(max(0.0, wait_s)))  # type: ignore[misc]
            self.old = [driver for driver in self.old if not driver.is_idle]
            self._look_again()
        if not self.driver.is_idle:
            raise Broken(f"not at an end at {self.clock.now_s:.0f} s: {self.driver.state.story[-8:]}")
        self._stop_strays()
        self._check_end()

    # The script

    def _write_script(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """Who does what when: submissions, some twice; cancels; deaths of the scheduler; a bucket in trouble."""
        if self._deaths:
            yield 0.0, lambda: self.fuse.arm(self._deaths.pop(0))
        for study, at_s in zip(self.plan.studies, self.plan.at_s, strict=True):
            yield at_s, lambda study=study: self._submit(study)  # type: ignore[misc]
            if self.plan.is_calm:
                continue
            if self.chance.random() < 0.2:
                yield at_s + self.chance.uniform(0, 3), lambda study=study: self._submit(study)  # type: ignore[misc]
            elif self.chance.random() < 0.15:
                yield at_s + self.chance.uniform(0, 10), lambda study=study: self._cancel(study)  # type: ignore[misc]
        if self.plan.kind == "barren":
            self.hosts.up_s = self.chance.uniform(150, 200)
        if self.plan.is_calm or self.plan.kind == "barren":
            return
        for _ in range(self.chance.choice([0, 0, 1, 2])):
            yield self.chance.uniform(0, 40), lambda: self.fuse.arm(self.chance.randint(1, 60))
        self.store.dies_at_clearing = self.chance.random() < 0.2
        if self.chance.random() < 0.3:
            yield self.chance.uniform(0, 30), self._overlap
        if self.chance.random() < 0.3:
            self.store.latency_s = self.chance.choice([0.01, 0.1])
        if self.chance.random() < 0.2:
            self.store.errors = 0.01
        if self.chance.random() < 0.2:
            yield self.chance.uniform(0, 30), self._go_away
        if self.faults.stalls and self.chance.random() < 0.3:
            yield self.chance.uniform(1, 30), self._stall

    def _submit(self, study: SimStudy) -> None:
        nonce = f"{study.name}-{self.chance.getrandbits(32):08x}"
        self._put(Entry(study.name, nonce, study.submitter, study.priority, int(self.clock.now_s * 1e9)))

    def _put(self, entry: Entry) -> None:
        """Submit, again and again until it is acknowledged."""
        try:
            self.inbox.submit(entry)
        except StoreError:
            self._later(3.0, lambda: self._put(entry))
            return
        self.acknowledged.append(entry)
        self.studies[entry.study].is_cancelled = False
        self._drive(self.driver, lambda: self._enqueue(entry))

    def _sneak(self, name: str) -> None:
        """Submit a study again in the very moment in which its inbox is cleared."""
        if self.fuse.is_running and self.chance.random() < 0.1:
            self.seen.add("submitted while it was cleared")
            entry = Entry(name, f"{name}-{self.chance.getrandbits(32):08x}", "ann", 0, int(self.clock.now_s * 1e9))
            with self.fuse.paused():
                try:
                    self.inbox.submit(entry)
                except StoreError:  # maybe it is there all the same, and was not acknowledged
                    self._later(3.0, lambda: self._put(entry))
                    return
            self.acknowledged.append(entry)
            self._later(0.1, lambda: self._drive(self.driver, lambda: self._enqueue(entry)))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._script.append((self.clock.now_s + seconds, action))
        self._script.sort(key=lambda item: item[0])

    def _enqueue(self, entry: Entry) -> None:
        driver = self.driver
        driver.refused.pop(entry.study, None)
        if not self._reads(lambda: driver.enqueue(entry)):
            self._later(POLL_S, lambda: self._drive(self.driver, lambda: self._enqueue(entry)))
            return
        if entry.study in driver.refused and entry not in self._turned_away:
            self._turned_away.append(entry)
        known = driver.state.studies.keys() | driver.ended.keys() | driver.refused.keys()
        if entry.study not in known and not driver.outbox:
            raise Broken(f"{entry.study} was neither queued nor refused nor ended")

    def _cancel(self, study: SimStudy) -> None:
        if study.name in self.driver.state.studies:
            study.is_cancelled = True
            self.driver.witness.cancelled_s[study.name] = self.driver.now_s
            self._drive(self.driver, lambda: self.driver.cancel(study.name))

    def _overlap(self) -> None:
        """A second scheduler starts while the first one lives and goes on."""
        self.seen.add("two schedulers")
        self.old.append(self.driver)
        self._next_driver()

    def _go_away(self) -> None:
        self.seen.add("away")
        self.store.away_until_s = self.clock.now_s + self.chance.uniform(1, 25 if self.faults.away else 5)
        if self.chance.random() < 0.7:
            self._later(0.5, self._lose_an_idle_worker)

    def _lose_an_idle_worker(self) -> None:
        """While the bucket is away, a worker dies whose leases all wait to be recorded: no block is to blame."""
        backend, leases = (
            self.driver.sim_backend,
            {view.name: view.leases for view in self.driver.state.workers.values()},
        )
        idle = [
            worker
            for worker in backend.workers.values()
            if worker.is_alive and leases.get(worker.name) and not backend.sent.get(worker.name)
        ]
        if idle:
            self.seen.add("idle worker lost")
            backend.crash(min(idle, key=lambda worker: len(leases[worker.name])), "killed while it was idle")
        if self.store.is_away:
            self._later(0.5, self._lose_an_idle_worker)

    def _stall(self) -> None:
        """The driver stands still; what it is sent waits."""
        self.seen.add("stall")
        self.clock.now_s += self.chance.uniform(5, 40)

    def _refused(self) -> list[Entry]:
        studies = self.driver.refused.keys()
        waiting = [entry for entry in self.acknowledged if entry.study in studies or entry in self._turned_away]
        return [entry for entry in waiting if not self._has_ended(entry) and not self._is_queued(entry)]

    def _is_queued(self, entry: Entry) -> bool:
        queued = self.driver.state.studies.get(entry.study)
        return queued is not None and entry.nonce in (queued.submission.nonce, *queued.joined)

    def _look_again(self) -> None:
        """Who was refused is tried again a little later."""
        refused = self._refused()
        for entry in [each for each in refused if each.study == refused[0].study]:
            self.seen.add("refused")
            state = self.driver.state
            queued = sum(len(study.submission.cells) for study in state.studies.values())
            fits = queued + len(self.studies[entry.study].blocks) <= self.plan.limits.queue_blocks_max
            if entry.study in state.studies:
                fits = not state.studies[entry.study].is_cancelled
            if fits:
                self._drive(self.driver, lambda entry=entry: self._enqueue(entry))  # type: ignore[misc]
                if entry.study in self.driver.refused:
                    raise Broken(f"{entry.study} was refused, and there is room")

    # Schedulers

    def _drive(self, driver: SimDriver, action: Callable[[], None]) -> None:
        """Let a scheduler do something, and see whether it lives through it."""
        try:
            with self.fuse.running():
                action()
        except Died:
            self.seen.add("died")
            self._end(driver)
        except StoreError as error:
            if self.faults.away:
                raise Broken(f"the bucket is away, and the scheduler ends: {error}") from error
            self.seen.add("ended by its bucket")
            self._end(driver)
        except GaveUp:
            self.seen.add("gave up")
            driver.witness.gave_up()
            self._end(driver)
            self.clock.run_until(self.hosts.up_s)
        else:
            driver.witness.after_turn()

    def _end(self, driver: SimDriver) -> None:
        """A scheduler's process ends; if it was the present one, the next one knows nothing but the bucket."""
        driver.sim_backend.scheduler_dies()
        if driver in self.old:
            self.old.remove(driver)
            return
        if self._deaths:
            self.fuse.arm(self._deaths.pop(0))
        pending = {entry.study for entry in self.acknowledged if not self._has_ended(entry)}
        for study in self.studies.values():
            study.is_cancelled = study.is_cancelled and study.name not in pending  # else the cancel died with it
        self._next_driver()

    def _next_driver(self) -> None:
        self.clock.run_until(max(self.clock.now_s, self.store.away_until_s if not self.faults.away else 0.0))
        self.driver = self._make_driver()
        driver = self.driver
        self._strike_unanswered()
        self._drive(driver, self._recover)

    def _recover(self) -> None:
        while not self._reads(self.driver.recover):
            self.clock.run_until(self.clock.now_s + POLL_S)

    def _reads(self, action: Callable[[], None]) -> bool:
        """Let a scheduler read what is in the bucket; False when it is away: it is read again a little later."""
        try:
            action()
        except StoreError:
            if not self.faults.away:
                raise
            return False
        return True

    def _strike_unanswered(self) -> None:
        """A block that is alone in an attempt nobody answered is suspected of more than it did."""
        for study in self.studies.values():
            for lease, record in self.store.attempts(study.name).items():
                is_alone = record.reason == "retry" and len(record.blocks) == 1
                if record.outcome == SENT and is_alone and lease not in self._struck:
                    self._struck.add(lease)
                    study.strikes[record.blocks[0]] = study.strikes.get(record.blocks[0], 0) + 1

    def _make_driver(self) -> SimDriver:
        self.epochs += 1
        backend = SimBackend(self.hosts)
        limits = self.plan.limits
        witness = Witness(self.hosts, limits, self.history, is_calm=self.plan.is_calm, shares=self.plan.shares)

        def load(entry: Entry) -> Submission:
            submission = self._load(entry)
            if entry.study not in driver.state.studies:
                witness.loaded(entry.study, entry.nonce, submission.done)
            return submission

        stored = self._stored if self.hosts.asks else None
        driver = SimDriver(backend, self.inbox, load, limits, epoch=f"e{self.epochs:03d}", stored=stored)
        driver.witness = witness
        driver.witness.driver = driver
        backend.watcher = driver.witness
        self.hosts.serving = backend
        return driver

    def _stored(self, study: str) -> BlockSet:
        """Return what the catalog has of a study, if the bucket answers."""
        self.store.call()
        return block_set(self.studies[study].written)

    def _load(self, entry: Entry) -> Submission:
        study = self.studies[entry.study]
        before = self.inbox.attempts(study.name, entry.nonce)
        return Submission(
            study.name,
            entry.nonce,
            entry.submitter,
            entry.priority,
            tuple(block.cells for block in study.blocks),
            make_piles(study.blocks),
            block_set(study.written),
            before.failures,
            before.suspects,
            before.solo,
        )

    # The end

    def _has_ended(self, entry: Entry) -> bool:
        return self.store.holds(f"{study_prefix(entry.study)}done/{entry.nonce}.json")

    def _was_cancelled(self, entry: Entry) -> bool:
        return b'"is_cancelled":true' in self.store.seen(f"{study_prefix(entry.study)}done/{entry.nonce}.json")

    def _stop_strays(self) -> None:
        """Whoever is still there says so a few times, and must be stopped."""
        until_s = self.clock.now_s + 100.0
        while self.hosts.alive and self.clock.now_s < until_s:
            self._drive(self.driver, lambda: self.driver.turn(5.0))
        if self.hosts.alive:
            raise Broken(f"left alive: {sorted(self.hosts.alive)}")

    def _check_end(self) -> None:
        self.driver.witness.at_end()
        self.store.errors = self.store.latency_s = 0.0
        self.store.away_until_s = 0.0
        if self.inbox.pending():
            raise Broken(f"left in the inbox: {self.inbox.pending()}")
        for entry in self.acknowledged:
            often = sum(other.study == entry.study for other in self.acknowledged) > 1
            if not self._has_ended(entry) and (self.faults.resubmissions or not often):
                raise Broken(f"{entry} was acknowledged, and has no end")
        for study in self.studies.values():
            self._check_study(study)

    def _check_study(self, study: SimStudy) -> None:
        every = {block.index for block in study.blocks}
        done = set(study.written)
        if done & study.bad:
            raise Broken(f"{study.name}: results of {done & study.bad}, which cannot have any")
        if study.is_cancelled or any(
            self._was_cancelled(entry) for entry in self.acknowledged if entry.study == study.name
        ):
            return
        maybe = {block for block, strikes in study.strikes.items() if strikes > STRIKES_MAX} | study.moody
        if not done >= every - study.bad - maybe:
            raise Broken(f"{study.name}: no result of blocks {every - study.bad - maybe - done}")
        for driver in (self.driver, *self.old):
            end = driver.ended.get(study.name)
            if end is None or end.is_cancelled:
                continue  # it ended under an earlier scheduler
            quarantined = set(end.quarantined)
            if set(members(end.done)) | quarantined != every or end.done & block_set(quarantined):
                raise Broken(f"{study.name}: {end} is not all of {every}")
            if not study.bad <= quarantined <= study.bad | maybe or not set(members(end.done)) <= done:
                raise Broken(f"{study.name}: bad are {study.bad}, quarantined {dict(end.quarantined)}, end {end}")


def run_seed(seed: int, faults: Faults = FAULTS) -> str | None:
    """Return None if all properties hold in the world of ``seed``, else what is wrong, with the seed."""
    try:
        World(seed, faults).run()
    except (AssertionError, LookupError, TypeError, ValueError, FarmError) as error:
        return f"seed {seed}: {type(error).__name__}: {error}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run many seeds, or one; print what fails."""
    parser = argparse.ArgumentParser(prog="python -m cluster.sim", description="Simulate the scheduler with faults.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one world only; errors are raised as they are")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        World(options.seed).run()
        print(f"seed {options.seed}: all properties hold")
        return 0
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        failures = [text for text in pool.map(run_seed, seeds, chunksize=20) if text is not None]
    for text in failures[:10]:
        print(text, file=sys.stderr)
    print(f"{len(seeds)} seeds, {len(failures)} failed")
    if failures:
        print(f"again: python -m cluster.sim --seed {failures[0].split()[1].rstrip(':')}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
