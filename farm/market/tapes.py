"""The tapes of single instruments, all those of a panel at once, as slices of tables that lie one after the other.

Each is what ``make_tape`` gives of a market in which the instrument alone is traded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farm.kernels.records import BAR, INSTANT, OPENING, Table, TapeTables
from farm.kernels.tapes import CLOSE, OPEN, OVERLAP, fill_bars, fill_openings, tape_instants, tape_windows
from farm.market.actions import LATE, actions_of_panel
from farm.market.panel import Market, Panel
from farm.market.tape import Tape, own_sessions, price_fault, time_fault
from farm.shard.plan import ReadPlan
from farm.values.arrays import I64, readonly

BAR_BYTES = 320
"""Bytes that a bar takes in a panel (13 columns of eight bytes, and a day) and in the tables of a tape (the bar, its
print, two instants), in round numbers."""
TILE_BYTES = 48 * 1024 * 1024
"""What is loaded at once. A tile costs a few ms of Python, whatever its size; larger tables than those of such a tile
come from pages that the system gives anew each time."""


@dataclass(frozen=True, eq=False)
class Tapes:
    """The tapes of the instruments at ``chosen`` positions of a panel, (k,); read-only.

    first, last (k,): their bars, as rows of the panel. Tables as in ``TapeTables``, one tape after the other: those of
    tape j lie in ``*_start[j] .. *_start[j + 1]``, starts (k + 1,).
    """

    panel: Panel
    chosen: I64
    first: I64
    last: I64
    instants: Table
    instant_start: I64
    actions: Table
    action_start: I64
    bars: Table
    bar_start: I64
    openings: Table
    opening_start: I64
    payments: Table
    payment_start: I64
    _counting: I64

    def __len__(self) -> int:
        return self.chosen.size

    @property
    def bytes(self) -> int:
        """Bytes of its tables, without the panel."""
        tables = (self.instants, self.actions, self.bars, self.openings, self.payments, self._counting)
        return sum(table.nbytes for table in tables)

    def tables(self, at: int) -> TapeTables:
        """Return the tables of tape ``at``: slices, nothing is copied."""

        def part(table: Table, start: I64) -> Table:
            return table[int(start[at]) : int(start[at + 1])]

        return TapeTables(
            instants=part(self.instants, self.instant_start),
            actions=part(self.actions, self.action_start),
            bars=part(self.bars, self.bar_start),
            payments=part(self.payments, self.payment_start),
            openings=part(self.openings, self.opening_start),
        )

    def tape(self, at: int, market: Market) -> Tape:
        """Return tape ``at`` as one of ``market``, which holds its instrument."""
        position = int(self.chosen[at])
        instrument, begin = self.panel.instruments[position], int(self.panel.start[position])
        series, run = market.series[market.index[instrument.id]], self.panel.calendar.name
        rows = int(self.last[at] - self.first[at])
        tables = self.tables(at)
        return Tape(
            market=market,
            traded=(market.index[instrument.id],),
            windows=(slice(int(self.first[at]) - begin, int(self.last[at]) - begin),),
            tables=tables,
            bars_of=self._counting[:rows],
            asset_end=readonly(np.array([rows])),
            dividends=int(tables.payments.shape[0]),
            calendars=(run,) if instrument.calendar == run else (run, instrument.calendar),
            has_range=series.high.shape == series.low.shape == series.day.shape,
        )


def make_tapes(panel: Panel, chosen: Sequence[int] | npt.NDArray[np.integer] | None = None) -> Tapes:
    """Return the tape of each instrument at these positions of the panel, ascending; of all by default.

    Errors: DataError, for the first of them whose bars overlap or have no usable prices.
    """
    positions = np.arange(len(panel.instruments)) if chosen is None else np.unique(np.asarray(chosen, np.int64))
    first, last, last_open = _windows(panel, positions)
    rows = last - first
    bar_start, opening_start = _starts(rows), _starts(last_open - first)
    bars, openings = np.empty(bar_start[-1], BAR), np.empty(opening_start[-1], OPENING)
    prices = panel.open, panel.high, panel.low, panel.close
    fill_bars(panel.start[positions], first, last, bar_start[:-1], *prices, panel.volume, bars)
    fill_openings(first, last_open, opening_start[:-1], panel.open, panel.volume, openings)

    acting = actions_of_panel(panel, positions)
    action_start = np.searchsorted(acting.act_owner, np.arange(positions.size + 1)).astype(np.int64)
    payment_start = np.searchsorted(acting.pay_owner, np.arange(positions.size + 1)).astype(np.int64)

    names = [panel.instruments[at].calendar for at in positions.tolist()]
    run = panel.calendar
    others = sorted(set(names) - {run.name})
    own = [own_sessions(panel, name) for name in others]
    own_opens, own_closes = (np.concatenate([np.empty(0, np.int64), *(one[at] for one in own)]) for at in range(2))
    stop = _starts(np.array([closes.size for _, closes in own], np.int64))
    number = np.array([others.index(name) + 1 if name in others else 0 for name in names], np.int64)
    own_first, own_last = np.append(0, stop[:-1])[number], stop[number]
    events = action_start[-1] + bar_start[-1] + opening_start[-1] + payment_start[-1]
    sessions = positions.size * run.close_ts.size + int((own_last - own_first).sum())
    instants = np.empty(events + sessions, INSTANT)
    instant_start = np.empty(positions.size + 1, np.int64)
    found = tape_instants(
        acting.act_ts,
        action_start,
        panel.open_ts,
        panel.close_ts,
        first,
        last,
        last_open,
        acting.pay_ts,
        payment_start[:-1],
        payment_start[1:],
        run.open_ts,
        run.close_ts,
        own_opens,
        own_closes,
        own_first,
        own_last,
        instants,
        instant_start,
    )
    instants.resize(found, refcheck=False)  # in place: a copy would touch as much memory again
    return Tapes(
        panel=panel,
        chosen=readonly(positions),
        first=readonly(first),
        last=readonly(last),
        instants=readonly(instants),
        instant_start=readonly(instant_start),
        actions=readonly(acting.actions),
        action_start=readonly(action_start),
        bars=readonly(bars),
        bar_start=readonly(bar_start),
        openings=readonly(openings),
        opening_start=readonly(opening_start),
        payments=readonly(acting.payments),
        payment_start=readonly(payment_start),
        _counting=readonly(np.arange(rows.max(initial=0))),
    )


def tiles(plan: ReadPlan, bytes_max: int = TILE_BYTES) -> list[range]:
    """Return the positions of the instruments of ``plan`` in parts, in order, whose panels and tapes take about
    ``bytes_max`` bytes each; one instrument at least."""
    end = np.cumsum(plan.rows) * BAR_BYTES
    parts: list[range] = []
    first, done = 0, 0
    while first < end.size:
        last = max(first + 1, int(np.searchsorted(end, done + bytes_max, side="right")))
        parts.append(range(first, last))
        first, done = last, int(end[last - 1])
    return parts


def _starts(counts: I64) -> I64:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))


def _windows(panel: Panel, positions: I64) -> tuple[I64, I64, I64]:
    """Return where the bars that each run trades on begin and end, and the opening prints, as rows of the panel."""
    first, last, last_open, fault, row = (np.empty(positions.size, np.int64) for _ in range(5))
    closes = panel.calendar.close_ts
    until = int(closes[-1]) if closes.size else -LATE
    times, prices = (panel.day, panel.open_ts, panel.close_ts), (panel.open, panel.close)
    days = panel.start_day, panel.end_day
    tape_windows(positions, panel.start, *times, *prices, *days, until, first, last, last_open, fault, row)
    for at in np.flatnonzero(fault)[:1].tolist():
        name = panel.instruments[int(positions[at])].id
        if fault[at] == OVERLAP:
            raise time_fault(name, int(panel.day[row[at]]))
        raise price_fault(name, {OPEN: "open", CLOSE: "close"}[int(fault[at])])
    return first, last, last_open
