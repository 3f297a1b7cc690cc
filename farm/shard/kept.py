"""What a process has read of a store and cannot change: roots, indexes, calendars and masters, read once each.

They are named by their content, so what is kept is never stale; it is kept by store, so that an object which is missing
in one store is not found there because another has it. Beyond the budget the least recently used go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from farm.store.base import Store
from farm.values.shared import Shared

T = TypeVar("T")

KEPT_BYTES_MAX = 64 * 1024 * 1024
"""Bytes as stored; decoded they take a few times as much."""

_kept: Shared[tuple[str, object], tuple[Any, int]] = Shared(KEPT_BYTES_MAX, size_of=lambda kept: kept[1])


def read_once(store: Store, name: object, read: Callable[[], tuple[T, int]]) -> T:
    """Return what ``read`` returned first, with its bytes, for the object ``name`` of the store; it is shared.

    ``name`` must say all that the value depends on, and ``read`` must have verified it.
    Errors: whatever ``read`` raises.
    """
    return cast(T, _kept.get((store.url, name), read)[0])


def forget() -> None:
    """Read everything anew from here on."""
    global _kept
    _kept = Shared(KEPT_BYTES_MAX, size_of=lambda kept: kept[1])
