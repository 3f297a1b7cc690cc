"""The series store: evaluated sub-expressions, shared by the trials and threads of a study.

Rules: an entry is a function of its key alone, so that what is found equals what would be computed; arrays are
read-only. Computing an entry may ask for smaller ones, never for larger ones: waiting cannot go round in a circle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy.typing as npt

from farm.values.shared import Shared

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


class SeriesStore(Shared[tuple[Any, ...], Series]):
    """Entries by key, at most ``bytes_max`` of them; an entry larger than that is computed and not kept."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max, size_of=attrgetter("bytes"))
