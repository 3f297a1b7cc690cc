"""How much of the run's window the bars of each instrument cover: a function of snapshot, spec and indexes alone.

Sessions of the window before an instrument's first bar, after its last one, or between them without one are counted
(domain.md 3.3). They are true of a snapshot, as ``Study.assumptions`` are: bars before what a cell reads may be added
in another one.
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
WITHOUT = "sessions_without_bar"
OF_BENCHMARK = "benchmark_"
"""Prefix of the three counts where they are those of the benchmark."""
OTHER_CALENDAR = "other_calendar"


@dataclass(frozen=True)
class Coverage:
    """The bars of one instrument beside the sessions of the run.

    Fields: ``bars`` up to the end of the run, history included; ``first_day``, ``last_day`` of these bars, None without
    any; ``before``, ``after``, sessions of the window before and after these days (all are before when there is no
    bar); ``other_calendar``, the instrument's own where sessions of the run are those of another and not around the
    clock, else ""; ``is_traded``, ``is_benchmark``: what it is there for; neither: an expression names it; ``without``,
    sessions of its own calendar in the window, between these days, without a bar. What comes after the run changes
    nothing.
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
    without: int = 0  # records of studies that ran before it was counted lack it

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
                without=_without(dataset.calendar(own), reads, name, start),
            )
        )
    return tuple(found)


def _without(own: Calendar, reads: Reads, name: str, start: int) -> int:
    """Return the sessions of ``own`` from ``start`` on that have no bar, between the first bar and the last."""
    _, first, last = reads.extent(name)
    if first is None or last is None or last < start:
        return 0
    start = max(start, first)
    return own.session_count(start, last) - reads.bars_from(name, start, own)


def counts_of(coverage: Iterable[Coverage], instrument: str | None) -> tuple[tuple[str, int], ...]:
    """Return the counts of a cell on ``instrument`` (None: on all that are traded), by name, those of zero left out."""
    found: dict[str, int] = {}
    for one in coverage:
        counted = []
        if one.is_traded and instrument in (None, one.instrument):
            counted = [*_gaps(one).items(), (OTHER_CALENDAR, int(one.other_calendar != ""))]
        if one.is_benchmark:
            counted += [(OF_BENCHMARK + name, count) for name, count in _gaps(one).items()]
        for name, count in counted:
            if count:
                found[name] = found.get(name, 0) + count
    return tuple(sorted(found.items()))


def _gaps(one: Coverage) -> dict[str, int]:
    return {BEFORE: one.before, WITHOUT: one.without, AFTER: one.after}


def coverage_json(coverage: Iterable[Coverage]) -> Mapping[str, Any]:
    """Return what the document says: instrument -> first and last bar, and how many sessions have none."""
    return {
        one.instrument: {
            "first_bar": None if one.first_day is None else iso(one.first_day),
            "last_bar": None if one.last_day is None else iso(one.last_day),
            **_gaps(one),
        }
        for one in coverage
        if any(_gaps(one).values())
    }
