"""All trials on some subjects: rules and signals of many in, metrics and packed books out, by few calls of one kernel.

Rules: what a trial gives does not depend on the trials beside it, on the threads, or on where calls end. Records grow
here and errors get their names; the arithmetic is in ``farm/kernels``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from farm.engine.layout import (
    Listing,
    Sleeve,
    account_table,
    asset_table,
    by_asset,
    limit_row,
    lot_micro,
    number_rows,
    position_table,
    sleeve_table,
    stop_table,
    structure_table,
)
from farm.engine.ledger import COUNTS
from farm.engine.room import RECORDS_MIN, RecordRoom, grown, overflow
from farm.kernels import records, trials
from farm.kernels.records import Table, Tables, TapeTables
from farm.kernels.trials import Kept, Subjects, TrialRows
from farm.market.tape import Tape
from farm.market.tapes import Tapes
from farm.program.template import RulesColumns
from farm.signals.evaluate import TrialSignals
from farm.spec.grammar import SIDES
from farm.spec.spec import RunSpec
from farm.values.arrays import F64, I32, I64, readonly
from farm.values.errors import FarmError

ALL_COUNTS = (*COUNTS, "ruin", "lapsed_no_volume", "lapsed_no_bar", "lapsed_at_end")
"""Counted incidents of a trial, in the order of the kernel."""
PACK_WORDS = 1 << 17
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Stage:
    """Subjects as the engine sees them: their tapes, and what all trials on them share.

    Of all g the sleeves hold the same assets, which differ in nothing but their bars. tables: of the tapes that
    ``subjects.spans`` cuts out. held: sleeve and asset of each position. of_asset (n,): positions by asset. first_bit
    (g, n): the own bar with which each begins on the tape. series: those of the assets, of any subject. bars,
    dividends: the most that a tape has.
    """

    tables: TapeTables
    subjects: Subjects
    held: tuple[tuple[int, int], ...]
    of_asset: Table
    first_bit: I64
    series: tuple[Listing, ...]
    bars: int
    dividends: int


@dataclass(frozen=True, eq=False)
class Terms:
    """What runs on all stages of a study have in common.

    buckets: (b, 2), the sessions [start, stop) of each bucket; the first is the whole run. rf_p: the risk-free return
    of one session; benchmark (sessions,): as in ``results/measure.py``.
    """

    run: RunSpec
    buckets: I64
    rf_p: float
    benchmark: F64 | None = None


def stage(tape: Tape, terms: Terms, held: Sequence[tuple[int, int]]) -> Stage:
    """Return the stage of one subject: all that is traded on a tape.

    held: sleeve and asset of each position, by sleeve and then asset.
    """
    market = tape.market
    series = tuple(market.series[index] for index in tape.traded)
    counts = np.array([window.stop - window.start for window in tape.windows], np.int64)
    opens = [one.open_ts for one in series]
    asset_of = np.array([asset for _, asset in held], np.int64)
    first_bit = np.array([tape.windows[asset].start for asset in asset_of.tolist()], np.int64)
    spans = [(0, table.shape[0]) for table in tape.tables]
    return _stage(
        terms,
        tape.tables,
        held,
        series,
        tape.calendars,
        [market.calendars[name].close_ts for name in tape.calendars],
        market.calendar.day,
        spans=np.array([spans], np.int64),
        bars_of=tape.bars_of,
        first_bar=(tape.asset_end - counts)[asset_of],
        bar_count=counts[asset_of][None],
        first_bit=first_bit[None],
        opens=opens[0] if len(opens) == 1 else np.concatenate(opens),
        opens_start=np.zeros(1, np.int64),
        opens_end=np.cumsum([[one.shape[0] for one in opens]], axis=1, dtype=np.int64),
        traded=traded_before(np.concatenate([one.volume for one in series])),
    )


def stage_of_each(tapes: Tapes, chosen: Sequence[int], terms: Terms, sleeves: int, traded: I64) -> Stage:
    """Return the stage of instruments that are each traded alone, by all sleeves: the tapes at ``chosen``, of
    instruments with the same calendar, lot and multiplier. ``traded``: ``traded_before`` of the panel.
    """
    panel, at = tapes.panel, np.asarray(chosen, np.int64)
    position = tapes.chosen[at]
    one = panel.instruments[int(position[0])]
    run = panel.calendar.name
    calendars = (run,) if one.calendar == run else (run, one.calendar)
    starts = (tapes.instant_start, tapes.action_start, tapes.bar_start, tapes.payment_start, tapes.opening_start)
    tables = TapeTables(tapes.instants, tapes.actions, tapes.bars, tapes.payments, tapes.openings)
    begin, count = panel.start[position], tapes.last[at] - tapes.first[at]

    def by_sleeve(values: I64) -> I64:
        return np.repeat(values[:, None], sleeves, axis=1)

    return _stage(
        terms,
        tables,
        [(w, 0) for w in range(sleeves)],
        (one,),
        calendars,
        [panel.calendars[name].close_ts for name in calendars],
        panel.calendar.day,
        spans=np.stack([np.stack((start[at], start[at + 1]), axis=1) for start in starts], axis=1),
        bars_of=np.arange(count.max(initial=0)),
        first_bar=np.zeros(sleeves, np.int64),
        bar_count=by_sleeve(count),
        first_bit=by_sleeve(tapes.first[at] - begin),
        opens=panel.open_ts,
        opens_start=begin,
        opens_end=panel.start[position + 1][:, None],
        traded=traded,
    )


def traded_before(volume: F64) -> I64:
    """Return how many bars before each, and before the end, have volume (n + 1,)."""
    found = np.zeros(volume.shape[0] + 1, np.int64)
    np.cumsum(volume > 0.0, out=found[1:])
    return readonly(found)


def _stage(
    terms: Terms, tables: TapeTables, held: Sequence[tuple[int, int]], series: tuple[Listing, ...],
    calendars: Sequence[str], closes: Sequence[I64], day: I32, first_bit: I64, **of_each: I64,
) -> Stage:  # fmt: skip
    run = terms.run
    assets = asset_table(run, series, calendars)
    positions = np.zeros(len(held), records.POSITION)
    positions["asset"] = [asset for _, asset in held]
    of_asset = by_asset(positions, assets)
    subjects = Subjects(
        account=readonly(account_table(run)),
        asset=readonly(assets),
        structure=readonly(structure_table(held)),
        day=day,
        benchmark=readonly(np.empty(0)) if terms.benchmark is None else terms.benchmark,
        stretches=readonly(terms.buckets),
        closes=closes[0] if len(closes) == 1 else readonly(np.concatenate(closes)),
        closes_end=readonly(np.cumsum([one.shape[0] for one in closes], dtype=np.int64)),
        ann=float(run.ann),
        rf_p=terms.rf_p,
        **{name: readonly(np.ascontiguousarray(array)) for name, array in of_each.items()},
    )
    most = (subjects.spans[:, :, 1] - subjects.spans[:, :, 0]).max(axis=0).tolist()
    bars, dividends = (int(most[TapeTables._fields.index(name)]) for name in ("bars", "payments"))
    return Stage(tables, subjects, tuple(held), of_asset.view(records.LINK), first_bit, series, bars, dividends)


class TrialRules:
    """The rules of trials of one template as tables, made once for all stages on which the lots are the same."""

    def __init__(self, sleeves: Sequence[Sleeve], rules: Sequence[RulesColumns], run: RunSpec) -> None:
        self.sleeves = sleeves
        self.rules = rules
        self.run = run
        self.sleeve = readonly(sleeve_table(sleeves, rules))
        self.stop = readonly(stop_table(rules))
        self._positions: dict[tuple[object, ...], Table] = {}

    def position(self, stage: Stage) -> Table:
        """Return the positions of a stage, trial by trial."""
        key = stage.held, tuple(lot_micro(self.run, one) for one in stage.series)
        found = self._positions.get(key)
        if found is None:
            made = position_table(self.run, self.rules, stage.held, stage.series)
            found = self._positions[key] = readonly(made)
        return found


def trial_rows(rules: TrialRules, signals: Sequence[Sequence[TrialSignals]], stage: Stage) -> TrialRows:
    """Return what differs between trials on a stage: their rules, and what they look at.

    ``signals``: per sleeve, per instrument of its universe in the order of the market, as ``evaluate_trials`` gives; or
    per sleeve those that ``evaluate_alike`` gives.
    """
    columns, sleeves = rules.rules, rules.sleeves
    count, rows, subjects = len(columns[0].side), number_rows(sleeves), stage.first_bit.shape[0]
    mask_at = np.full((subjects, count, len(stage.held), trials.MASKS), records.NONE, np.int64)
    number_at = np.full((subjects, count, len(stage.held), rows), records.NONE, np.int64)
    masks, numbers = _Side[np.uint64](np.uint64), _Side[np.float64](np.float64)
    for x, one in enumerate(one for group in signals for one in group):
        w, _ = stage.held[x]
        is_short = columns[w].side == SIDES.index("short")
        is_both = columns[w].side == SIDES.index("both")
        for at, mask in enumerate((one.enter, one.exit)):
            found = masks.add(mask.bits, mask.row_of)
            mask_at[:, :, x, at] = np.where(is_short, records.NONE, found)
            mask_at[:, :, x, at + 2] = np.where(is_short, found, records.NONE)
        if is_both.any():
            for at, mask in enumerate((one.enter_short, one.exit_short)):
                found = masks.add(mask.bits, mask.row_of)
                mask_at[:, :, x, at + 2] = np.where(is_both, found, mask_at[:, :, x, at + 2])
        if one.add is not None:
            mask_at[:, :, x, trials.MASKS - 1] = masks.add(one.add.bits, one.add.row_of)
        levels = ((1 + k, level) for k, level in enumerate(one.stop_levels))
        for row, number in ((records.PREFER, one.prefer), *levels, (limit_row(sleeves[w]), one.limit)):
            if number is not None:
                number_at[:, :, x, row] = numbers.add(number.values, number.row_of) + stage.first_bit[:, x, None]
    return TrialRows(
        sleeve=rules.sleeve,
        stop=rules.stop,
        position=rules.position(stage),
        mask=masks.joined(),
        mask_at=readonly(mask_at),
        first_bit=readonly(stage.first_bit),
        number=numbers.joined(),
        number_at=readonly(number_at),
    )


class _Side(Generic[_Scalar]):
    """Tables of rows, side by side as one array."""

    def __init__(self, dtype: type[_Scalar]) -> None:
        self._tables: dict[int, int] = {}
        self._found: list[npt.NDArray[_Scalar]] = [np.empty(0, dtype)]
        self._end = 0

    def add(self, table: npt.NDArray[_Scalar], row_of: I32) -> I64:
        """Return where the row of each trial begins, in the shape of ``row_of``."""
        start = self._tables.get(id(table))
        if start is None:
            start = self._tables[id(table)] = self._end
            self._found.append(table.reshape(-1))
            self._end += table.size
        found: I64 = start + row_of.astype(np.int64) * table.shape[1]
        return found

    def joined(self) -> npt.NDArray[_Scalar]:
        """Return all tables."""
        return readonly(self._found[1] if len(self._found) == 2 else np.concatenate(self._found))


class TrialRun:
    """Some trials on one stage, under way. ``trial`` and ``subject``: those at hand, of which an error speaks;
    ``kernel_s``: seconds in the kernel so far, in which other threads have the interpreter to themselves."""

    def __init__(self, stage: Stage, rows: TrialRows, room: RecordRoom | None = None) -> None:
        self._stage = stage
        self._rows = rows
        self._room = RecordRoom() if room is None else room
        self._at = np.zeros(trials.PLACES, np.int64)
        self.kernel_s = 0.0

    @property
    def trial(self) -> int:
        """The trial at hand."""
        return int(self._at[trials.TRIAL])

    @property
    def subject(self) -> int:
        """The subject at hand, among those of the stage."""
        return int(self._at[trials.SUBJECT])

    def run(self, kept: Kept, columns: Sequence[int]) -> Iterator[tuple[int, int, I64]]:
        """Run all trials on each subject, write what is kept of them into its column, and yield (trial, subject, pack)
        of each in the proof.

        A pack is valid until the next is asked for; ``kernels/trials.py`` says what is in it.
        Errors: CapacityError when an amount reaches 2**53; FarmError when the equity of a ruined account moves.
        """
        stage, rows = self._stage, self._rows
        where = readonly(np.array(columns, np.int64))
        _, count, _, levels = rows.number_at.shape
        sleeves = rows.sleeve.shape[0] // count
        state = self._start(sleeves, count)
        signals = np.empty(sleeves * stage.bars, np.uint8)
        numbers = np.empty(sleeves * levels * stage.bars)
        books = np.zeros(1, records.BOOKS)
        proofs = np.argwhere(kept.proof[:, where].T).tolist()
        pack = self._room.pack(PACK_WORDS if proofs else 0)
        vectors = np.empty((stage.subjects.stretches.shape[0], trials.METRICS))
        told = 0
        while True:
            begun = time.perf_counter()
            status = trials.run_trials(
                count,
                where,
                stage.tables,
                stage.subjects,
                rows,
                state,
                signals,
                numbers,
                books,
                self._at,
                kept,
                vectors,
                pack,
            )
            self.kernel_s += time.perf_counter() - begun
            start = 0
            while start < self._at[trials.PACKED]:
                end = int(pack[start])
                subject, trial = proofs[told]
                yield trial, subject, pack[start:end]
                told, start = told + 1, end
            if status == trials.FULL and self._at[trials.PACKED] == 0:
                pack = self._room.pack(2 * len(pack))
            self._at[trials.PACKED] = 0
            if status == records.DONE:
                self._room.give(state)
                return
            if status == records.ROOM:
                state = grown(state)
            elif status == records.OVERFLOW:
                first, last = stage.subjects.spans[self.subject, 0].tolist()
                raise overflow(stage.tables.instants[first:last], state)
            elif status == trials.MOVED:
                session = int(self._at[trials.BROKEN_AT])
                raise FarmError(f"the equity of a ruined account moves at session {session}", place="ledger")

    def _start(self, sleeves: int, count: int) -> Tables:
        stage, room = self._stage, self._room
        positions, dividends = len(stage.held), stage.dividends
        stops = self._rows.stop.shape[0] // count
        rows = RECORDS_MIN + 16 * positions + dividends * sleeves
        return Tables(
            account=np.empty(1, records.ACCOUNT),
            tally=np.empty(1, records.TALLY),
            asset=np.empty(stage.subjects.asset.shape[0], records.ASSET),
            sleeve=np.empty(sleeves, records.SLEEVE),
            stop=np.empty(stops, records.STOP_RULE),
            structure=np.empty(positions, records.STRUCTURE),
            position=np.empty(positions, records.POSITION),
            of_asset=stage.of_asset,
            held=np.empty(positions, records.LINK),
            working=np.empty(positions, records.LINK),
            queue=np.empty(3 * positions, records.LINK),
            receivable=np.empty(dividends * sleeves, records.AMOUNT),
            order=room.take("order", rows * (1 + stops)),
            fill=room.take("fill", rows),
            cash=room.take("cash", rows),
            trade=room.take("trade", rows),
            session=np.empty(stage.subjects.day.shape[0], records.SESSION),
        )


def counts_of(kept: Kept, trial: int, column: int) -> Mapping[str, int]:
    """Return the counts of a trial that are not zero."""
    found = zip(ALL_COUNTS, kept.counts[:, trial, column].tolist(), strict=True)
    return {name: count for name, count in found if count}
