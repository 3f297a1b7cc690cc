"""Which cells of a study nobody has stored yet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from farm.values.arrays import BOOL, I32


@dataclass(frozen=True, eq=False)
class Missing:
    """The cells that are not stored. groups: int32 (t,), of each trial; rows: bool (groups, s), the subjects that the
    trials of a group miss. At worst a group per trial, which is a byte per cell."""

    groups: I32
    rows: BOOL

    @cached_property
    def count(self) -> int:
        """Number of cells."""
        sizes = np.bincount(self.groups, minlength=len(self.rows))
        return int((sizes * self.rows.sum(axis=1)).sum())

    def has(self, trials: I32, subjects: I32) -> bool:
        """Whether any of these trials misses any of these subjects."""
        groups = np.unique(self.groups[trials])
        return bool(self.rows[groups][:, subjects].any())


def all_missing(trials: int, subjects: int) -> Missing:
    """Return that every cell is missing."""
    return Missing(np.zeros(trials, np.int32), np.ones((1, subjects), np.bool_))
