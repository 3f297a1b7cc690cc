"""How much of the run's window the bars of each instrument cover: a function of snapshot, spec and indexes alone.

Sessions of the window before an instrument's first bar, or after its last one, are counted (domain.md 3.3). They are
true of a snapshot, as ``Study.assumptions`` are: bars before what a cell reads may be added in another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from farm.shard.calendar import ALWAYS_OPEN, Calendar
from farm.shard.dataset import Dataset
from farm.study.reads import Reads
from farm.values.units import iso

BEFORE, AFTER = "sessions_before_first_bar", "sessions_after_last_bar"
OF_BENCHMARK = "benchmark_"
"""Prefix of the two counts where they are those of the benchmark."""
OTHER_CALENDAR = "other_calendar"


@dataclass(frozen=True)
class Coverage:
    """The bars of one instrument beside the sessions of the run.

    Fields: ``bars`` up to the end of the run, history included; ``first_day``, ``last_day`` of these bars, None without
    any; ``before``, ``after``, sessions of the window before and after these days (all are before when there is no
    bar); ``other_calendar``, the instrument's own where sessions of the run are those of another and not around the
    clock, else ""; ``is_traded``, ``is_benchmark``: what it is there for; neither: an expression names it. What comes
    after the run changes nothing.
    """

    instrument: str
    bars: int
    first_day: int | None
    last_day: int | None
    before: int
    after: int
    other_calendar: str
    is_traded: bool
    is_benchmark: bool

    def to_json(self) -> list[Any]:
        """Return the fields as a JSON value."""
        return list(astuple(self))


def cover(
    dataset: Dataset, reads: Reads, calendar: Calendar, window: tuple[int, int], traded: Collection[str],
    benchmarks: Collection[str], names: Iterable[str],
) -> tuple[Coverage, ...]:  # fmt: skip
    """Return the coverage of ``names``, all of them ids, in this order; ``calendar`` is that of the run."""
    start, end = window
    found = []
    for name in names:
        bars, first, last = reads.extent(name)
        own = dataset.instruments()[name].calendar
        found.append(
            Coverage(
                instrument=name,
                bars=bars,
                first_day=first,
                last_day=last,
                before=calendar.session_count(start, end if first is None else first - 1),
                after=0 if last is None else calendar.session_count(max(last + 1, start), end),
                other_calendar="" if calendar.name in (own, ALWAYS_OPEN) else own,
                is_traded=name in traded,
                is_benchmark=name in benchmarks,
            )
        )
    return tuple(found)


def counts_of(coverage: Iterable[Coverage], instrument: str | None) -> tuple[tuple[str, int], ...]:
    """Return the counts of a cell on ``instrument`` (None: on all that are traded), by name, those of zero left out."""
    found: dict[str, int] = {}
    for one in coverage:
        counted = []
        if one.is_traded and instrument in (None, one.instrument):
            counted = [(BEFORE, one.before), (AFTER, one.after), (OTHER_CALENDAR, int(one.other_calendar != ""))]
        if one.is_benchmark:
            counted += [(OF_BENCHMARK + BEFORE, one.before), (OF_BENCHMARK + AFTER, one.after)]
        for name, count in counted:
            if count:
                found[name] = found.get(name, 0) + count
    return tuple(sorted(found.items()))


def coverage_json(coverage: Iterable[Coverage]) -> Mapping[str, Any]:
    """Return what the document says: instrument -> first and last bar, and how much of the window lies outside."""
    return {
        one.instrument: {
            "first_bar": None if one.first_day is None else iso(one.first_day),
            "last_bar": None if one.last_day is None else iso(one.last_day),
            BEFORE: one.before,
            AFTER: one.after,
        }
        for one in coverage
        if one.before or one.after
    }
