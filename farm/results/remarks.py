"""What a reader of numbers has to be told, in words: assumptions, counts, thin data, and why nothing was traded.

Nothing is measured here: the words are made of what is stored of cells and of their study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from farm.program.lookback import LookBack
from farm.program.template import compile_study
from farm.results.results import Cells, Results
from farm.spec.spec import StudySpec
from farm.study.coverage import AFTER, BEFORE, OF_BENCHMARK, OTHER_CALENDAR, WITHOUT, Coverage
from farm.study.trials import Study
from farm.values.units import iso

SESSIONS_SAID_MIN = 6
"""Fewer sessions beyond the bars are counted and not said: holidays, and the days before the latest file."""
INSTRUMENTS_SAID_MAX = 5
SPARSE_MIN = 0.7
"""The share of sessions without a bar from which on bars look like those of weeks."""

ASSUMPTIONS = {
    "fixed_universe": "fixed_universe: the tickers were chosen today, so instruments that were delisted are missing",
    "no_dividends": "no_dividends: the dataset holds no dividends at all, so returns lack them",
    "no_splits": "no_splits: the dataset holds no splits at all, so a price that falls by one is a loss",
}
COUNTED = {
    "lapsed": "orders that no price filled in time",
    "cancelled": "reversals that waited for their limit when an exit or a margin call came",
    "limit_unknown": "entries not ordered because their limit was unknown, or not above 0",
    "lapsed_no_volume": "of these, orders that met only bars without volume",
    "lapsed_no_bar": "of these, orders that met no bar",
    "lapsed_at_end": "of these, orders of the last session, after which the run ends",
    "rejected": "orders of which the money covered not one lot",
    "scaled": "orders made smaller to what the money allowed",
    "too_small": "sizes below one lot",
    "no_place": "entries for which no position made room",
    "entry_conflict": "bars with a long and a short entry, both ignored",
    "enter_never_known": "entry conditions that were known at no bar",
    "enter_never_true": "entry conditions that were known, and never true",
    "level_unknown": "entries whose stop level was not known yet",
    "prefer_unknown": "entries whose preference was not known yet",
    "margin_call": "positions closed by a margin call",
    "pay_date_assumed": "dividends without a pay date, paid on their ex-date",
    "split_doubtful": "splits after which prices went on as if there were none: bars adjusted before count them twice",
    "ruin": "equity fell to zero",
    BEFORE: "sessions of the run before the first bar",
    WITHOUT: "sessions of the run between the first and the last bar that have none",
    AFTER: "sessions of the run after the last bar",
    OF_BENCHMARK + BEFORE: "sessions of the run before the first bar of the benchmark",
    OF_BENCHMARK + WITHOUT: "sessions of the run between the first and the last bar of the benchmark that have none",
    OF_BENCHMARK + AFTER: "sessions of the run after the last bar of the benchmark",
    OTHER_CALENDAR: "instruments that trade on other sessions than those of the run",
}
"""What is counted in a cell."""
_GAPS = (BEFORE, WITHOUT, AFTER)
_REMARKED = frozenset((*_GAPS, *(OF_BENCHMARK + name for name in _GAPS), OTHER_CALENDAR, "split_doubtful"))
_LAPSES = {
    "lapsed_no_volume": "met only bars without volume (FX and indices print none)",
    "lapsed_no_bar": "met no bar",
    "lapsed_at_end": "came at the last session, after which the run ends",
}
_OTHERWISE = ("rejected", "too_small", "no_place", "entry_conflict", "level_unknown", "prefer_unknown")


def counted(name: str, count: int) -> str:
    """Return a count with its words: ``lapsed 5: orders that no price filled in time``."""
    return f"{name} {count:,}" + (f": {COUNTED[name]}" if name in COUNTED else "")


def counts_of_trial(results: Results, trial: int) -> dict[str, int]:
    """Return what is counted in the cells of a trial, added up, in the order of ``COUNTED``."""
    return ordered(results.cells([trial]).counts(0, slice(None)))


def incidents_of_trial(results: Results, trial: int) -> list[str]:
    """Return what is counted in the cells of a trial, in words, without what its remarks say already."""
    return [counted(name, count) for name, count in counts_of_trial(results, trial).items() if name not in _REMARKED]


def ordered(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts in the order of ``COUNTED``, unknown ones last."""
    places = {name: place for place, name in enumerate(COUNTED)}
    return dict(sorted(counts.items(), key=lambda pair: (places.get(pair[0], len(places)), pair[0])))


def remarks_of_trial(results: Results, spec: StudySpec, trial: int) -> list[str]:
    """Return what has to be said of a trial beside its numbers, the gravest first."""
    has_traded = has_fills(results.cells([trial]), 0, slice(None))
    counts = counts_of_trial(results, trial)
    return remarks(results.study, spec, trial, None, counts, has_traded=has_traded)


def has_fills(cells: Cells, at: int, subject: int | slice) -> bool:
    """Return whether anything was bought or sold, as far as the stored metrics tell; True where they do not."""
    fills, trades, gained = (cells.metric(name)[at, subject] for name in ("fills", "trades", "total_return"))
    if "full.fills" in cells.columns:
        return bool(np.any(fills > 0))
    return bool(np.any(trades > 0) or np.any(np.abs(gained) > 0)) or "full.trades" not in cells.columns


def remarks(
    study: Study, spec: StudySpec, trial: int, instrument: str | None, counts: Mapping[str, int], *, has_traded: bool
) -> list[str]:
    """Return what has to be said of the cells of ``trial`` on ``instrument`` (None: on all that are read)."""
    chosen = [one for one in study.coverage if not one.is_traded or instrument in (None, one.instrument)]
    lines = [] if has_traded else [f"no trade: {_why_none(study, spec, trial, chosen, counts)}"]
    if "split_doubtful" in counts:
        lines.append(counted("split_doubtful", counts["split_doubtful"]))
    return lines + _thin(study, spec.run.start_day, chosen) + _elsewhere(study, spec, chosen)


def _why_none(study: Study, spec: StudySpec, trial: int, chosen: Sequence[Coverage], counts: Mapping[str, int]) -> str:
    parts = []
    if never := counts.get("enter_never_known", 0):
        what = _conditions(never) + "never known"
        parts.append(what + _history(study, spec, trial, [one for one in chosen if one.is_traded]))
    if never := counts.get("enter_never_true", 0):
        parts.append(_conditions(never) + "never true")
    if lapsed := counts.get("lapsed", 0):
        whys = [f"{counts[name]:,} {why}" for name, why in _LAPSES.items() if name in counts]
        parts.append(f"{lapsed:,} order{'s' * (lapsed > 1)} lapsed" + (f", of which {', '.join(whys)}" if whys else ""))
    parts += [counted(name, counts[name]) for name in _OTHERWISE if name in counts]
    return "; ".join(parts) or "nothing was ordered"


def _conditions(count: int) -> str:
    return "the entry condition was " if count == 1 else f"{count:,} entry conditions were "


def _history(study: Study, spec: StudySpec, trial: int, traded: Sequence[Coverage]) -> str:
    """Return how many bars the entry needs, when no instrument that is traded has as many."""
    program = compile_study(spec).one(study.table, trial)
    entries = (node for sleeve in program.sleeves for node in (sleeve.enter, sleeve.enter_short) if node is not None)
    reach = LookBack(spec.run.warmup)
    needed = 1 + max(int(reach.lookback(node)) for node in entries)
    longest = max(traded, key=lambda one: one.bars, default=None)
    if longest is None or longest.bars >= needed:
        return ""
    who = f"{study.symbols[longest.instrument]} has" if len(traded) == 1 else "no instrument has more than"
    return f" (it needs {needed:,} bars, {who} {longest.bars:,} until {iso(spec.run.end_day)})"


def _thin(study: Study, start_day: int, chosen: Sequence[Coverage]) -> list[str]:
    """Return a line for each stretch of the window that the bars of an instrument miss by more than a few sessions."""
    found = []
    for one in chosen:
        if one.is_traded:
            who, before = "", "nothing is traded in them, and metrics count them"
            within = "orders lapse in them, and what is held stays at the close before"
            is_over = one.last_day is not None and one.last_day < start_day
            after = "nothing of it is traded" if is_over else "what is held stays at that close"
        elif one.is_benchmark:
            who, before, after = ", the benchmark,", "comparisons leave them out", "comparisons leave them out"
            within = "comparisons leave them out, and the next return spans the gap"
        else:
            who, before, after = ", which conditions name,", "it is unknown then", "it is unknown then"
            within = "its last value stands for a few sessions, then it is unknown"
        name = study.symbols[one.instrument] + who
        stretches = [(one.before, "", before)]
        if one.first_day is not None and one.last_day is not None:
            first, last, inner = iso(one.first_day), iso(one.last_day), iso(max(one.first_day, start_day))
            stretches = [
                (one.before, f" before {first}", before),
                (one.without, f" in some sessions from {inner} to {last}", within + _sparse(study, one)),
                (one.after, f" after {last}", after),
            ]
        for count, when, then in stretches:
            if count >= SESSIONS_SAID_MIN:
                text = f"{name} has no bar{when}: {count:,} of {study.sessions:,} sessions; {then}"
                found.append((count, text))
    found.sort(key=lambda pair: -pair[0])
    lines = [text for _, text in found[:INSTRUMENTS_SAID_MAX]]
    if len(found) > len(lines):
        lines.append(f"and {len(found) - len(lines):,} more such gaps; --json says them all")
    return lines


def _sparse(study: Study, one: Coverage) -> str:
    """Return a guess at what bars are that most sessions lack: in four of five, when there is one a week."""
    inside = study.sessions - one.before - one.after
    return "; are these bars of weeks or months?" if one.without >= SPARSE_MIN * inside else ""


def _elsewhere(study: Study, spec: StudySpec, chosen: Sequence[Coverage]) -> list[str]:
    names: dict[str, list[str]] = {}
    for one in chosen:
        if one.is_traded and one.other_calendar:
            names.setdefault(one.other_calendar, []).append(study.symbols[one.instrument])
    lines = []
    for calendar, symbols in sorted(names.items()):
        more = len(symbols) - INSTRUMENTS_SAID_MAX
        shown = ", ".join(symbols[:INSTRUMENTS_SAID_MAX]) + (f" and {more:,} more" if more > 0 else "")
        lines.append(
            f"{shown}: on the calendar {calendar}, while sessions and metrics are those of {spec.run.calendar} "
            "(run.calendar)"
        )
    lines += [
        f"{study.symbols[one.instrument]}, the benchmark: on the calendar {one.other_calendar}; its closes come at "
        f"other hours than those of {spec.run.calendar}, and comparisons leave out sessions without its bar"
        for one in chosen
        if one.is_benchmark and not one.is_traded and one.other_calendar
    ]
    return lines
