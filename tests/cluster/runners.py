"""Runners for real workers in tests: blocks that do as their number says, and the farm's own, slowed down."""

from __future__ import annotations

import os
import signal
import time

from cluster.worker import Runner, farm_runner
from farm.store.base import Store
from farm.values.errors import AlreadyExists, DataError
from farm.values.settings import FarmSettings
from farm.work.run import BlockReport

POISON, HANG, FAULTY, FOREIGN = 3, 7, 11, 14
BAD = {POISON, HANG, FAULTY, FOREIGN}
BLOCK_S = 0.05


class Moody:
    """Writes one object per block, unless the number of the block stands for something worse."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run_block(self, study: str, block: int) -> BlockReport:
        time.sleep(BLOCK_S)
        if study == "moody" and block in BAD:
            _misbehave(block)
        try:
            self._store.put_if_absent(f"done/{study}/{block:04d}", str(os.getpid()).encode())
        except AlreadyExists:
            return BlockReport(block, 1, False, 0, {"run": BLOCK_S})
        return BlockReport(block, 1, True, 0, {"run": BLOCK_S})


def _misbehave(block: int) -> None:
    if block == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    if block == HANG:
        time.sleep(3600)
    if block == FAULTY:
        raise DataError("checksum mismatch", place="data/x, row group 0, column close")
    raise ZeroDivisionError("nobody expected this")


class Slow:
    """The farm's own runner, with a pause before each block: time to pull a plug."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner

    def run_block(self, study: str, block: int) -> BlockReport:
        time.sleep(1.0)
        return self._inner.run_block(study, block)


def moody(store: Store, settings: FarmSettings) -> Runner:
    return Moody(store)


def slow(store: Store, settings: FarmSettings) -> Runner:
    return Slow(farm_runner(store, settings))
