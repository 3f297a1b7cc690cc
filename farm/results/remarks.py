"""What a reader of numbers has to be told, in words: assumptions, counts, thin data, and why nothing was traded.

Nothing is measured here: the words are made of what is stored of cells and of their study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from farm.program.compile import compile_trial
from farm.results.results import Cells, Results
from farm.spec.resolve import Resolver
from farm.spec.spec import StudySpec
from farm.study.coverage import AFTER, BEFORE, OF_BENCHMARK, OTHER_CALENDAR, Coverage
from farm.study.trials import Study
from farm.values.units import iso

SESSIONS_SAID_MIN = 6
"""Fewer sessions beyond the bars are counted and not said: holidays, and the days before the latest file."""
INSTRUMENTS_SAID_MAX = 5

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
    "split_doubtful": "splits at which the price did not move: was it adjusted before?",
    "ruin": "equity fell to zero",
    BEFORE: "sessions of the run before the first bar",
    AFTER: "sessions of the run after the last bar",
    OF_BENCHMARK + BEFORE: "sessions of the run before the first bar of the benchmark",
    OF_BENCHMARK + AFTER: "sessions of the run after the last bar of the benchmark",
    OTHER_CALENDAR: "instruments that trade on other sessions than those of the run",
}
"""What is counted in a cell."""
_REMARKED = frozenset((BEFORE, AFTER, OF_BENCHMARK + BEFORE, OF_BENCHMARK + AFTER, OTHER_CALENDAR, "split_doubtful"))
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
    return lines + _thin(study, chosen) + _elsewhere(study, spec, chosen)


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
    program = compile_trial(Resolver(spec).trial(study.params(trial)))
    entries = (node for sleeve in program.sleeves for node in (sleeve.enter, sleeve.enter_short) if node is not None)
    needed = 1 + max(node.lookback for node in entries)
    longest = max(traded, key=lambda one: one.bars, default=None)
    if longest is None or longest.bars >= needed:
        return ""
    who = f"{study.symbols[longest.instrument]} has" if len(traded) == 1 else "no instrument has more than"
    return f" (it needs {needed:,} bars, {who} {longest.bars:,} until {iso(spec.run.end_day)})"


def _thin(study: Study, chosen: Sequence[Coverage]) -> list[str]:
    """Return a line for each end of the window that the bars of an instrument miss by more than a few sessions."""
    found = []
    for one in chosen:
        if one.is_traded:
            who, before = "", "nothing is traded in them, and metrics count them"
            after = "what is held stays at that close"
        elif one.is_benchmark:
            who, before, after = ", the benchmark,", "comparisons leave them out", "comparisons leave them out"
        else:
            who, before, after = ", which conditions name,", "it is unknown then", "it is unknown then"
        name = study.symbols[one.instrument] + who
        for count, end, then in ((one.before, "before", before), (one.after, "after", after)):
            day = one.first_day if end == "before" else one.last_day
            if count >= SESSIONS_SAID_MIN:
                when = "" if day is None else f" {end} {iso(day)}"
                text = f"{name} has no bar{when}: {count:,} of {study.sessions:,} sessions; {then}"
                found.append((count, text))
    found.sort(key=lambda pair: -pair[0])
    lines = [text for _, text in found[:INSTRUMENTS_SAID_MAX]]
    if len(found) > len(lines):
        lines.append(f"and {len(found) - len(lines):,} more such gaps; --json says them all")
    return lines


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
    return lines
