"""Which cells of a round nobody has stored yet: what planning asks of the catalog, and how it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from farm.study.axes import Axes
from farm.study.proof import Proof
from farm.values.arrays import BOOL, I32


@dataclass(frozen=True, eq=False)
class Missing:
    """The missing cells of t trials on s subjects, in the memory of one bit a cell at worst.

    groups:   int32 (t,), a label per trial: trials that miss the same subjects may share one.
    rows:     bool (groups, s): a cell is missing where ``rows[groups[trial], subject]``.
    segments: keys of the segments that hold the others.
    """

    groups: I32
    rows: BOOL
    segments: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of missing cells."""
        return int(np.bincount(self.groups, minlength=len(self.rows)) @ self.rows.sum(axis=1))


def all_missing(trials: int, subjects: int) -> Missing:
    """Return that every cell is missing."""
    return Missing(np.zeros(trials, np.int32), np.ones((1, subjects), np.bool_))


class Lookup(Protocol):
    """What planning asks of the catalog."""

    def missing(self, family: str, axes: Axes, metrics: Sequence[str], proof: Proof) -> Missing:
        """Return which cells of ``axes`` the family does not hold with these metrics, and digests where ``proof`` wants
        them. ``axes.trial`` is worked out when it is asked for: not worth it where the family holds nothing."""
