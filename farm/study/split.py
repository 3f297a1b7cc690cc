"""Splits: which sessions of a run are scored in which bucket.

A run is simulated once, in time order; a split only decides which session returns (and which trades, by the session
of their entry) a bucket counts. Bars dropped by the embargo are dropped from scoring on both sides of the boundary,
never from the simulation. Source: domain.md 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from farm.spec.spec import Split
from farm.values.errors import SpecError

FULL = "full"
"""The bucket of the whole run, which every cell has."""


@dataclass(frozen=True)
class Buckets:
    """What metrics are taken over, in the order of segments: names, and sessions [start, stop) of the run."""

    names: tuple[str, ...]
    stretches: tuple[tuple[int, int], ...]

    def stretch(self, name: str) -> tuple[int, int] | None:
        """Return the sessions of a bucket, None for one that is not there."""
        return dict(zip(self.names, self.stretches, strict=True)).get(name)


def sessions_in_sample(share: float, sessions: int) -> int:
    """Return floor(share x sessions), with ``share`` taken as the decimal that was written.

    In binary, 0.29 x 100 is a little less than 29 and would lose a session; the decimal does not.
    """
    return int(Fraction(repr(share)) * sessions)


def buckets_of(split: Split | None, sessions: int) -> Buckets:
    """Return the buckets of a run of so many sessions: the whole of it; and of a chronological split its first
    floor(share x n) sessions, and the rest.

    Errors: SpecError when a bucket is left without a session.
    """
    whole = (0, sessions)
    if split is None:
        return Buckets((FULL,), (whole,))
    embargo, boundary = split.embargo, sessions_in_sample(split.in_sample, sessions)
    in_sample, out_of_sample = (0, boundary - embargo), (boundary + embargo, sessions)
    for name, (start, stop) in (("in-sample", in_sample), ("out-of-sample", out_of_sample)):
        if stop <= start:
            raise SpecError(
                f"the {name} bucket is empty: {boundary} of {sessions} sessions are in sample, "
                f"and the embargo drops {embargo} on both sides of the boundary",
                place="study.split",
                hint="use a longer window, another share, or a smaller embargo",
            )
    return Buckets((FULL, "is", "oos"), (whole, in_sample, out_of_sample))
