"""The instants of a tape, by definition."""

from collections.abc import Sequence


def merge_times(lists: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The distinct times in order; and for each, how many times of each list are not later."""
    out = sorted({time for times in lists for time in times})
    return out, [[sum(one <= time for one in times) for times in lists] for time in out]
