"""The series store: evaluated sub-expressions, shared by the trials and threads of a study.

Rules: an entry is a function of its key alone, so that what is found equals what would be computed; arrays are
read-only; one thread computes an entry and the others wait for it; beyond the byte budget the least recently used go.
Computing an entry may ask for smaller ones, never for larger ones: waiting cannot go round in a circle.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_ENTRY_BYTES = 400  # key, tuple and array header of an entry


@dataclass(frozen=True, eq=False)
class Series:
    """One entry: arrays, and (label, first day) of each recursive indicator in it."""

    arrays: tuple[npt.NDArray[Any], ...]
    anchors: tuple[tuple[str, int], ...] = ()
    extra: Any = None
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        for array in self.arrays:
            array.flags.writeable = False
        object.__setattr__(self, "bytes", _ENTRY_BYTES + sum(array.nbytes for array in self.arrays))


class SeriesStore:
    """Entries by key, at most ``bytes_max`` of them; an entry larger than that is computed and not kept."""

    def __init__(self, bytes_max: int) -> None:
        if bytes_max < 0:
            raise ValueError(f"bytes_max {bytes_max}")
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.computed = 0
        self._entries: OrderedDict[tuple[Any, ...], Series] = OrderedDict()
        self._pending: dict[tuple[Any, ...], threading.Event | None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple[Any, ...], make: Callable[[], Series]) -> Series:
        """Return the entry of ``key``, made by ``make`` if it is not there."""
        while True:
            with self._lock:
                found = self._entries.get(key)
                if found is not None:
                    self._entries.move_to_end(key)
                    return found
                if key not in self._pending:
                    self._pending[key] = None
                    break
                # Made by the first who waits: most entries are wanted by one thread at a time.
                pending = self._pending[key] = self._pending[key] or threading.Event()
            pending.wait()
        made: Series | None = None
        try:
            made = make()
            return made
        finally:
            with self._lock:
                if made is not None:
                    self._keep(key, made)
                waiting = self._pending.pop(key)
            if waiting is not None:
                waiting.set()

    def _keep(self, key: tuple[Any, ...], made: Series) -> None:
        self.computed += 1
        if made.bytes > self.bytes_max:
            return
        self._entries[key] = made
        self.bytes_used += made.bytes
        while self.bytes_used > self.bytes_max:
            _, old = self._entries.popitem(last=False)
            self.bytes_used -= old.bytes


def nan_padded(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Return ``values`` at the end of an array of ``length``, NaN before them."""
    if values.shape[0] == length:
        return values
    out = np.full(length, np.nan)
    if values.shape[0]:
        out[length - values.shape[0] :] = values[-length:]
    return out
