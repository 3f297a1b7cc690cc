"""Splits: which sessions of a run are scored in which bucket.

A run is simulated once, in time order; a split only decides which session returns (and which trades, by the session
of their entry) a bucket counts. Bars dropped by the embargo are dropped from scoring on both sides of the boundary,
never from the simulation. Source: domain.md 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from farm.values.arrays import BOOL, readonly
from farm.values.errors import SpecError


@dataclass(frozen=True)
class Buckets:
    """The two buckets of a split as masks over the sessions of the run, bool (n,), read-only."""

    is_sessions: BOOL
    oos_sessions: BOOL


def sessions_in_sample(share: float, sessions: int) -> int:
    """Return floor(share x sessions), with ``share`` taken as the decimal that was written.

    In binary, 0.29 x 100 is a little less than 29 and would lose a session; the decimal does not.
    """
    return int(Fraction(repr(share)) * sessions)


def chronological(share: float, embargo: int, sessions: int, place: str = "study.split") -> Buckets:
    """Return the buckets of a chronological split: the first floor(share x n) sessions, and the rest.

    Errors: SpecError when a bucket is left without a session.
    """
    boundary = sessions_in_sample(share, sessions)
    position = np.arange(sessions)
    is_sessions = position < boundary - embargo
    oos_sessions = position >= boundary + embargo
    for name, mask in (("in-sample", is_sessions), ("out-of-sample", oos_sessions)):
        if not mask.any():
            raise SpecError(
                f"the {name} bucket is empty: {boundary} of {sessions} sessions are in sample, "
                f"and the embargo drops {embargo} on both sides of the boundary",
                place=place,
                hint="use a longer window, another share, or a smaller embargo",
            )
    return Buckets(readonly(is_sessions), readonly(oos_sessions))
