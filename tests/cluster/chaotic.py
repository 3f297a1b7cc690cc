"""The command that the chaos is let loose on: a study on two workers that dawdle while a file tells them to.

``python -m tests.cluster.chaotic STORE SPEC.json FOLDER`` is the command of a user, exit codes included. Each worker
writes into ``FOLDER/workers/<pid>`` when it has ended its last block; that is how others see that work goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from cluster.lease import STORE_SHARE, Limits
from cluster.local_ray import run_on_workers
from cluster.worker import Runner, farm_runner
from farm.store.base import Store
from farm.values.errors import FarmError
from farm.values.settings import FarmSettings
from farm.work.run import BlockReport

BLOCK_S = 0.3
WATCHDOG_S = 6.0
"""Longer than MinIO is away; not much, since no lease is given up before."""

FOLDER, POISON = "FARM_TEST_CHAOS", "FARM_TEST_POISON"
LIMITS = Limits(
    workers_max=2,
    workers_min=2,
    watchdog_s=WATCHDOG_S,
    deadline_s=STORE_SHARE * WATCHDOG_S,
    deadline_factor=2.0,
    lease_s=BLOCK_S,
    start_s=20.0,
    attempts_max=100,  # whatever dies here dies by our hand, and no block is to blame
)


class Dawdling:
    """The farm's own runner; kills itself at the block named ``POISON``."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self._folder = Path(os.environ[FOLDER])
        self._poison = os.environ.get(POISON)

    def run_block(self, study: str, block: int) -> BlockReport:
        if str(block) == self._poison:
            os.kill(os.getpid(), signal.SIGKILL)
        until_s = time.monotonic() + BLOCK_S
        while time.monotonic() < until_s and (self._folder / "dawdle").exists():
            time.sleep(0.02)
        report = self._inner.run_block(study, block)
        ended = self._folder / "workers" / f".{os.getpid()}"
        ended.write_text(str(time.time()))
        ended.rename(ended.with_name(str(os.getpid())))
        return report


def dawdling(store: Store, settings: FarmSettings) -> Runner:
    return Dawdling(farm_runner(store, settings))


def main(store: str, spec: str, attempts_max: str) -> int:
    limits = LIMITS if attempts_max == "-" else replace(LIMITS, attempts_max=int(attempts_max))
    try:
        run_on_workers(json.loads(Path(spec).read_text()), store, workers=2, limits=limits, make_runner=dawdling)
    except FarmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
