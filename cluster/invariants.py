"""What must hold after every step. A violation is a bug in the machine, and says which rule and where."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.state import State, index_of, new_index


class Violated(AssertionError):
    """The state breaks a rule of the scheduler."""


def check(state: State) -> None:
    """Raise Violated when the state breaks a rule."""
    for complaint in complaints(state):
        raise Violated(complaint)


def complaints(state: State) -> Iterator[str]:
    """Yield every rule that the state breaks."""
    yield from _blocks(state)
    yield from _leases(state)
    yield from _workers(state)
    yield from _index(state)


def _blocks(state: State) -> Iterator[str]:
    """Each block is in exactly one place: waiting, suspect, in one lease, done, or quarantined."""
    for name, study in state.studies.items():
        seen = 0
        places = [study.waiting, study.done, *study.suspects, sum(1 << block for block in study.quarantined)]
        places += [held.run.blocks for held in state.leases.values() if held.run.study == name]
        for blocks in places:
            if seen & blocks:
                yield f"blocks {seen & blocks:#x} of {name} are in two places"
            seen |= blocks
        if not study.is_cancelled and seen != study.submission.blocks:
            yield f"blocks {study.submission.blocks ^ seen:#x} of {name} are nowhere"
        if study.is_cancelled and (study.waiting or study.suspects):
            yield f"{name} is cancelled and has waiting blocks"
        for block, failures in study.failures.items():
            if failures >= state.limits.attempts_max and (study.waiting | sum(study.suspects)) >> block & 1:
                yield f"block {block} of {name} waits after {failures} failures"


def _leases(state: State) -> Iterator[str]:
    """A lease is not empty and is known to exactly its own worker; one that is alone has its worker for itself."""
    listed = [lease for worker in state.workers.values() for lease in worker.leases]
    if sorted(listed) != sorted(state.leases):
        yield f"workers have {sorted(listed)}, in flight are {sorted(state.leases)}"
    for name, held in state.leases.items():
        worker = state.workers.get(held.run.worker)
        if worker is None or name not in worker.leases:
            yield f"lease {name} is on {held.run.worker}, which does not have it"
        elif held.alone and len(worker.leases) > 1:
            yield f"lease {name} should be alone on {worker.name}"
        if not held.run.blocks:
            yield f"lease {name} is empty"
        if held.run.study not in state.studies:
            yield f"lease {name} is of no study"


def _workers(state: State) -> Iterator[str]:
    """Nobody is overfull, nobody works who is not serving, and there are not too many."""
    present = [worker for worker in state.workers.values() if worker.status in ("starting", "ready")]
    if len(present) > state.limits.workers_max:
        yield f"{len(present)} workers, at most {state.limits.workers_max} are allowed"
    for worker in state.workers.values():
        if len(worker.leases) > worker.slots * state.limits.ahead_per_slot:
            yield f"worker {worker.name} has {len(worker.leases)} leases for {worker.slots} slots"
        if worker.leases and worker.status not in ("ready", "draining", "failing"):
            yield f"worker {worker.name} is {worker.status} and has leases"


def _index(state: State) -> Iterator[str]:
    """What was kept is what follows from the state."""
    kept, anew = (each.facts(state.studies, state.costs) for each in (index_of(state), new_index(state)))
    for name, fact in kept.items():
        if fact != anew[name]:
            yield f"the index has {name} {fact}, where {anew[name]} follows from the state"
