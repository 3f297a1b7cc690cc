"""Why so little happened: counts of a finished run that its books and signals tell together.

    lapsed_no_volume   lapsed orders that met only bars without volume
    lapsed_no_bar      lapsed orders that met no bar at all
    lapsed_at_end      lapsed orders that were decided at the last session close of the run
    enter_never_known  entry conditions, one per sleeve and instrument, that were known at no bar of the run
    enter_never_true   those that were known, and never true

An instrument without a bar in the run has no entry condition. Nothing here is part of a digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from farm.engine.ledger import Run, Status
from farm.market.panel import Market
from farm.program.template import RulesColumns
from farm.signals.evaluate import MaskRows, Signals, TrialSignals
from farm.spec.grammar import SIDES
from farm.values.arrays import BOOL, I64

SILENT = ("enter_never_known", "enter_never_true")


def incidents(run: Run, market: Market, signals: Sequence[Sequence[Signals]]) -> Mapping[str, int]:
    """Return the counts of ``run`` that are not zero; ``market`` and ``signals`` are those it was simulated on."""
    return {**(_lapses(run, market) if "lapsed" in run.counts else {}), **silent(market, signals)}


def _lapses(run: Run, market: Market) -> Mapping[str, int]:
    """Count lapsed orders by what they met from their decision on, up to the instant at which they lapsed."""
    lapsed = run.orders[run.orders["status"] == Status.LAPSED]
    no_volume = no_bar = at_end = 0
    for position in np.unique(lapsed["instrument"]).tolist():
        series = market.series[market.index[run.instruments[position]]]
        mine = lapsed[lapsed["instrument"] == position]
        # Around the clock a session opens at the instant of the decision, and its print is met; when an order lapses,
        # the session that opens at that instant is not.
        first = np.searchsorted(series.open_ts, mine["ts"], side="left")
        last = np.searchsorted(series.open_ts, mine["done_ts"], side="left")
        traded = np.concatenate((np.zeros(1, np.int64), np.cumsum(series.volume > 0.0)))
        met, with_volume = last - first, traded[last] - traded[first]
        is_last = mine["session"] == len(run.session_day) - 1
        # A split may take an order away at the open; what lapses of age does so as a session of its instrument closes.
        is_old = (mine["done_ts"] > mine["ts"]) & np.isin(mine["done_ts"], market.calendars[series.calendar].close_ts)
        at_end += int(np.count_nonzero((met == 0) & is_last))
        no_bar += int(np.count_nonzero((met == 0) & ~is_last & is_old))
        no_volume += int(np.count_nonzero((met > 0) & (with_volume == 0)))
    found = {"lapsed_no_volume": no_volume, "lapsed_no_bar": no_bar, "lapsed_at_end": at_end}
    return {name: count for name, count in found.items() if count}


def silent(market: Market, signals: Sequence[Sequence[Signals]]) -> Mapping[str, int]:
    """Return how many entry conditions were never known, and never true, where there are such."""
    never_known = never_true = 0
    for one in (one for sleeve in signals for one in sleeve):
        if one.enter.any() or one.enter_short.any():
            continue
        day = market.series[one.instrument].day
        if day.size and int(day[-1]) >= market.start_day:
            never_known += not one.is_enter_known
            never_true += one.is_enter_known
    found = dict(zip(SILENT, (never_known, never_true), strict=True))
    return {name: count for name, count in found.items() if count}


def silent_trials(rules: Sequence[RulesColumns], signals: Sequence[Sequence[TrialSignals]], subjects: int) -> I64:
    """Return how many entry conditions of each trial were never known, and never true, where there are such: (2, t, g)
    on ``subjects`` subjects."""
    found = np.zeros((len(SILENT), subjects, len(rules[0].side)), np.int64)
    for columns, group in zip(rules, signals, strict=True):
        is_both = columns.side == SIDES.index("both")
        for one in group:
            if one.has_bars:
                said = _ever(one.enter)
                if is_both.any():
                    said |= is_both & _ever(one.enter_short)
                found[0] += ~said & ~one.is_enter_known
                found[1] += ~said & one.is_enter_known
    return found.transpose(0, 2, 1)


def _ever(mask: MaskRows) -> BOOL:
    """Whether a condition is true at some bar, (t,) or (g, t)."""
    ever: BOOL = np.bitwise_or.reduce(mask.bits, axis=1) != 0
    return ever[mask.row_of]
