"""What the tests of shards begin with: calendars that are made once, and a store with bars."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.shard import change
from farm.shard.calendar import Calendar, freeze_calendar
from farm.store.memory import MemoryStore
from tests.shard.support import GOOD, bars, put


@pytest.fixture(autouse=True, scope="session")
def frozen_once() -> Iterator[None]:
    """Freeze each calendar once per session: that takes a third of a second, and hundreds of tests ingest."""

    @functools.cache
    def freeze(name: str) -> Calendar:
        with warnings.catch_warnings():
            # The library still uses what pandas 3.1 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            return freeze_calendar(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "freeze_calendar", freeze)
        yield


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """A store that holds bars of AAA."""
    made = MemoryStore()
    put(made, bars(tmp_path, GOOD))
    return made
