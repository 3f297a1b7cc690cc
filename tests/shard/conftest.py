"""Making a calendar takes a third of a second, and hundreds of tests ingest into an empty dataset."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator

import pytest

from farm.shard import change
from farm.shard.calendar import Calendar, freeze_calendar


@pytest.fixture(autouse=True, scope="session")
def frozen_once() -> Iterator[None]:
    """Freeze each calendar once per session: the same value, made the same way."""

    @functools.cache
    def freeze(name: str) -> Calendar:
        with warnings.catch_warnings():
            # The library still uses what pandas 3.1 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            return freeze_calendar(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "freeze_calendar", freeze)
        yield
