"""Puts the rows of many instruments side by side: the decoded row groups of a read plan become contiguous columns.

Instruments follow each other in the order of the plan, their rows in the order of days, whatever shards they lie in.
Python runs per row group and column, never per instrument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from farm.kernels.panel import clip_runs, copy_prices, copy_runs, out_of_order, spare_decimals
from farm.shard.kinds import kind_of
from farm.shard.plan import KindPlan, ReadPlan
from farm.shard.reader import ColumnKey, Values, held_twice
from farm.values.arrays import F64, I8, I32, I64, readonly
from farm.values.errors import FarmError


@dataclass
class FirstFault:
    """What is wrong with instruments: of all that is found, the first in the order of instruments, then of stages."""

    first: tuple[int, int, FarmError] | None = None

    def add(self, instrument: int, stage: int, error: FarmError) -> None:
        """Keep ``error`` if none before it stands."""
        if self.first is None or (instrument, stage) < self.first[:2]:
            self.first = instrument, stage, error

    def check(self) -> None:
        """Raise the error that stands, if there is one."""
        if self.first is not None:
            raise self.first[2]


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows of one kind: ``start`` (s + 1,), where those of each instrument lie; columns as stored, ``columns[name]``.

    A price column is int64 ticks of 10**-scale, ``scale`` (s,): the fewest decimals that hold every price that was read
    of the instrument; ``prices[name]``: the same as float64, one correctly rounded division. All (n,), read-only.
    """

    start: I64
    scale: I8
    columns: Mapping[str, Values]
    prices: Mapping[str, F64]

    @property
    def owner(self) -> I32:
        """The instrument of each row, (n,)."""
        return np.repeat(np.arange(self.start.size - 1, dtype=np.int32), np.diff(self.start))


@dataclass(frozen=True, eq=False)
class _Clipped:
    """The runs of a plan, as far as they are wanted; in the order of instruments, and of days if shards allow."""

    instrument: I32
    group: I32
    low: I64
    high: I64
    scale: I8

    def by_group(self, groups: int) -> list[np.ndarray]:
        """Return the positions of the runs in each row group."""
        order = np.argsort(self.group, kind="stable")
        ends = np.searchsorted(self.group[order], np.arange(groups), side="right")
        return np.split(order, ends[:-1]) if groups else []


def gather(
    plan: ReadPlan,
    part: KindPlan,
    columns: Mapping[ColumnKey, Values],
    faults: FirstFault,
    stage: int,
    *,
    ticks_of: frozenset[str],
    floats: frozenset[str] = frozenset(),
) -> Gathered:
    """Return the rows of ``part`` of ``plan``; ``ticks_of``: the price columns of which ticks are wanted too;
    ``floats``: other int64 columns that are wanted as float64.

    Faults: two shards that hold the row of one day.
    """
    entry = kind_of(part.kind)
    time = entry.time_column
    assert time is not None
    clipped, first_day = _clip(plan, part, columns, time)
    runs, groups = clipped.by_group(len(part.groups)), part.groups
    prices = [name for name in part.columns if entry.by_name[name].is_price]

    def source(group: int, name: str) -> Values:
        return columns[(*groups[group], name)]

    count = len(plan.ids)
    rows = clipped.high - clipped.low
    # Runs of one instrument in the order of their days, so that rows are in order wherever shards do not interleave.
    order = np.lexsort((first_day, clipped.instrument))
    to = np.empty(rows.size, np.int64)
    to[order] = np.cumsum(rows[order]) - rows[order]
    start = np.zeros(count + 1, np.int64)
    np.add.at(start, clipped.instrument + 1, rows)
    start = np.cumsum(start)

    decimals = clipped.scale.astype(np.int64)
    scale = np.zeros(count, np.int64)
    if prices:
        spare = decimals.copy()
        for group, at in enumerate(runs):
            low, high, left = clipped.low[at], clipped.high[at], spare[at]
            for name in prices:
                spare_decimals(source(group, name), low, high, left)
            spare[at] = left
        np.maximum.at(scale, clipped.instrument, decimals - spare)
    change = scale[clipped.instrument] - decimals
    up, down = 10 ** np.maximum(change, 0), 10 ** np.maximum(-change, 0)
    unit = np.power(10, scale).astype(np.float64)[clipped.instrument]

    total = int(start[-1])
    out: dict[str, Values] = {
        name: np.empty(total, np.float64 if name in floats else entry.by_name[name].type)
        for name in part.columns
        if name not in prices or name in ticks_of
    }
    out_prices = {name: np.empty(total, np.float64) for name in prices}
    nothing = np.empty(0, np.int64)
    for group, at in enumerate(runs):
        low, high, where = clipped.low[at], clipped.high[at], to[at]
        for name in part.columns:
            column = source(group, name)
            if name in out_prices:
                ticks = out.get(name, nothing)
                copy_prices(column, low, high, where, up[at], down[at], unit[at], ticks, out_prices[name])
            else:
                copy_runs(column, low, high, where, out[name])
    found = np.empty(count, np.int8)
    out_of_order(out[time], start, found)
    if found.any():
        _sort(np.flatnonzero(found), start, time, [out, out_prices], plan, part, faults, stage)
    for column in (*out.values(), *out_prices.values()):
        readonly(column)
    return Gathered(readonly(start), readonly(scale.astype(np.int8)), out, out_prices)


def _clip(plan: ReadPlan, part: KindPlan, columns: Mapping[ColumnKey, Values], time: str) -> tuple[_Clipped, I32]:
    """Return the runs without the rows outside the days that are read, and the first day of each."""
    runs = part.runs
    whole = _Clipped(runs.instrument, runs.group, runs.start.copy(), runs.start + runs.rows, runs.scale)
    since = plan.first_day[runs.instrument]
    first_day = np.zeros(runs.group.size, np.int32)
    for group, at in enumerate(whole.by_group(len(part.groups))):
        day = columns[(*part.groups[group], time)]
        low, high = np.empty(at.size, np.int64), np.empty(at.size, np.int64)
        clip_runs(day, runs.start[at], runs.rows[at], since[at], plan.last_day, low, high)
        whole.low[at], whole.high[at] = low, high
        first_day[at] = day[np.minimum(low, day.size - 1)]
    return whole, first_day


def _sort(
    unsorted: np.ndarray,
    start: I64,
    time: str,
    tables: list[dict[str, Values]],
    plan: ReadPlan,
    part: KindPlan,
    faults: FirstFault,
    stage: int,
) -> None:
    """Put the rows of these instruments into the order of days; shards hold days between those of others."""
    day: I32 = tables[0][time]
    count = np.diff(start)[unsorted]
    ends = np.cumsum(count)
    rows = np.arange(ends[-1]) + np.repeat(start[unsorted] - (ends - count), count)
    owner = np.repeat(unsorted, count)
    order = rows[np.lexsort((day[rows], owner))]
    for table in tables:
        for column in table.values():
            column[rows] = column[order]
    twice = np.flatnonzero((np.diff(day[rows]) == 0) & (np.diff(owner) == 0))
    if twice.size:
        instrument = int(owner[twice[0]])
        place = f"{part.kind} {plan.ids[instrument]}"
        faults.add(instrument, stage, held_twice(int(day[rows[twice[0]]]), place))
