"""Splits: which sessions of a run are scored in which bucket.

A run is simulated once, in time order; a split only decides which session returns (and which trades, by the session
of their entry) a bucket counts. Bars dropped by the embargo are dropped from scoring on both sides of the boundary,
never from the simulation. Source: domain.md 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from farm.values.errors import SpecError


@dataclass(frozen=True)
class Buckets:
    """The two buckets of a split as stretches [start, stop) of the run's sessions."""

    in_sample: tuple[int, int]
    out_of_sample: tuple[int, int]


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
    buckets = Buckets((0, boundary - embargo), (boundary + embargo, sessions))
    for name, (start, stop) in (("in-sample", buckets.in_sample), ("out-of-sample", buckets.out_of_sample)):
        if stop <= start:
            raise SpecError(
                f"the {name} bucket is empty: {boundary} of {sessions} sessions are in sample, "
                f"and the embargo drops {embargo} on both sides of the boundary",
                place=place,
                hint="use a longer window, another share, or a smaller embargo",
            )
    return buckets
