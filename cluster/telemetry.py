"""What can be seen of the scheduler from outside: plain readings, and the same as Ray metrics for Prometheus.

``readings`` is a function of state and tally, so that tests and status need no Ray. ``RayMetrics`` publishes them under
``ray_farm_*`` wherever Ray has an agent that exports metrics; the small local Ray has none, there they end unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cluster.driver import Tally
from cluster.state import State

GAUGES: Final[Mapping[str, str]] = {
    "queue_blocks": "blocks that wait for a lease",
    "queue_wait_s": "longest time that a waiting study has had no lease",
    "leases_in_flight": "leases sent and not answered",
    "workers_ready": "workers that serve",
    "workers_starting": "workers on their way up",
    "cache_bytes": "bytes of columns that the workers hold",
}
COUNTERS: Final[Mapping[str, str]] = {
    "cells": "cells computed",
    "fetched_bytes": "bytes read from the store by workers",
    "affinity_hits": "leases sent to a worker that held the columns",
    "affinity_misses": "leases sent to a worker that did not",
    "leases_retried": "leases of blocks under suspicion",
    "leases_crashed": "leases that went down with their worker",
    "leases_expired": "leases that ran past their deadline",
}


def readings(state: State, tally: Tally, now_s: float) -> dict[str, float]:
    """Return every gauge and counter by name."""
    waiting = [study for study in state.studies.values() if study.waiting or study.suspects]
    ready = [worker for worker in state.workers.values() if worker.status == "ready"]
    return {
        "queue_blocks": sum(
            study.waiting.bit_count() + sum(group.bit_count() for group in study.suspects) for study in waiting
        ),
        "queue_wait_s": max((now_s - study.since_s for study in waiting), default=0.0),
        "leases_in_flight": len(state.leases),
        "workers_ready": len(ready),
        "workers_starting": sum(worker.status == "starting" for worker in state.workers.values()),
        "cache_bytes": sum(sum(worker.holdings.values()) for worker in ready),
        "cells": tally.cells,
        "fetched_bytes": tally.bytes_fetched,
        "affinity_hits": tally.affinity_hits,
        "affinity_misses": tally.affinity_misses,
        "leases_retried": tally.leases["retry"],
        "leases_crashed": tally.outcomes["crashed"],
        "leases_expired": tally.outcomes["expired"],
    }


class RayMetrics:
    """An observer of the driver that publishes the readings through Ray."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        from ray.util import metrics

        self._now_s = now_s
        self._gauges: dict[str, Any] = {
            name: metrics.Gauge(f"farm_{name}", description=text) for name, text in GAUGES.items()
        }
        self._counters: dict[str, Any] = {
            name: metrics.Counter(f"farm_{name}", description=text) for name, text in COUNTERS.items()
        }
        self._seen = dict.fromkeys(COUNTERS, 0.0)

    def __call__(self, state: State, tally: Tally) -> None:
        """Publish how it stands now; a tally that began anew counts from zero."""
        now = readings(state, tally, self._now_s())
        for name, gauge in self._gauges.items():
            gauge.set(now[name])
        for name, counter in self._counters.items():
            grown = now[name] - self._seen[name]
            if grown < 0:
                grown = now[name]
            if grown > 0:
                counter.inc(grown)
            self._seen[name] = now[name]
