"""Byte ranges into fewer fetches: pure.

A request costs about as much as 0.4 MB of transfer (facts.md 2), so ranges that lie near each other are fetched
together, gap included, as long as the fetch stays small enough to run beside others and to be tried again cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fetch:
    """One request: ``length`` bytes from ``start``, which hold the input ranges number ``parts`` (by start)."""

    start: int
    length: int
    parts: tuple[int, ...]


def coalesce(ranges: Sequence[tuple[int, int]], *, gap_bytes_max: int, fetch_bytes_max: int) -> tuple[Fetch, ...]:
    """Return fetches, by start, that together hold every (start, length) of ``ranges`` whole, each in exactly one.

    Ranges are joined when at most ``gap_bytes_max`` lie between them and the fetch stays within ``fetch_bytes_max``; a
    range above that is a fetch of its own. Ranges may overlap and come in any order.
    """
    fetches: list[Fetch] = []
    parts: list[int] = []
    start = stop = 0
    for part in sorted(range(len(ranges)), key=lambda i: (ranges[i], i)):
        first, length = ranges[part]
        end = max(stop, first + length)
        if parts and first - stop <= gap_bytes_max and (end - start <= fetch_bytes_max or end == stop):
            stop = end
            parts.append(part)
            continue
        if parts:
            fetches.append(Fetch(start, stop - start, tuple(parts)))
        start, stop, parts = first, first + length, [part]
    if parts:
        fetches.append(Fetch(start, stop - start, tuple(parts)))
    return tuple(fetches)
