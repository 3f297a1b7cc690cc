"""Making a calendar takes a third of a second, and hundreds of tests ingest into an empty dataset."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from farm.shard import change
from farm.shard.calendar import freeze_calendar


@pytest.fixture(autouse=True, scope="session")
def frozen_once() -> Iterator[None]:
    """Freeze each calendar once per session: the same value, made the same way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "freeze_calendar", functools.cache(freeze_calendar))
        yield
