"""All trials on one subject: rules and signals of many in, metrics and packed books out, by few calls of one kernel.

Rules: what a trial gives does not depend on the trials beside it, on the threads, or on where calls end. Records grow
here and errors get their names; the arithmetic is in ``farm/kernels``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from farm.engine.layout import (
    Sleeve,
    account_table,
    asset_table,
    by_asset,
    limit_row,
    number_rows,
    position_table,
    sleeve_table,
    stop_table,
    structure_table,
)
from farm.engine.ledger import COUNTS
from farm.engine.room import RECORDS_MIN, RecordRoom, grown, overflow
from farm.kernels import records, trials
from farm.kernels.records import Table, Tables
from farm.kernels.trials import Kept, Subject, TrialRows
from farm.market.tape import Tape
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
    """A subject as the engine sees it: its tape, and what all trials on it share.

    ``held``: sleeve and asset of each position. ``of_asset`` (n,): positions by asset.
    """

    tape: Tape
    subject: Subject
    held: tuple[tuple[int, int], ...]
    of_asset: Table


def stage(
    tape: Tape,
    run: RunSpec,
    held: Sequence[tuple[int, int]],
    *,
    buckets: I64,
    rf_p: float,
    benchmark: F64 | None = None,
) -> Stage:
    """Return the stage of a subject.

    held:    sleeve and asset of each position, by sleeve and then asset.
    buckets: (b, 2), the sessions [start, stop) of each bucket; the first is the whole run.
    rf_p:    the risk-free return of one session; benchmark (sessions,): as in ``results/measure.py``.
    """
    assets = asset_table(run, tape)
    positions = np.zeros(len(held), records.POSITION)
    positions["asset"] = [asset for _, asset in held]
    of_asset = by_asset(positions, assets)
    series = [tape.market.series[index] for index in tape.traded]
    counts = np.array([window.stop - window.start for window in tape.windows], np.int64)
    opens = [one.open_ts for one in series]
    with_volume = np.concatenate([np.zeros(1, np.bool_), *(one.volume > 0.0 for one in series)])
    closes = [tape.market.calendars[name].close_ts for name in tape.calendars]
    asset_of = positions["asset"]
    subject = Subject(
        account=readonly(account_table(run)),
        asset=readonly(assets),
        structure=readonly(structure_table(held)),
        bars_of=readonly(np.ascontiguousarray(tape.bars_of)),
        first_bar=readonly((tape.asset_end - counts)[asset_of]),
        bar_count=readonly(counts[asset_of]),
        day=tape.market.calendar.day,
        benchmark=readonly(np.empty(0)) if benchmark is None else benchmark,
        stretches=readonly(buckets),
        opens=_joined(opens),
        opens_end=_ends(opens),
        traded=readonly(np.cumsum(with_volume, dtype=np.int64)),
        closes=_joined(closes),
        closes_end=_ends(closes),
        ann=float(run.ann),
        rf_p=rf_p,
    )
    return Stage(tape, subject, tuple(held), of_asset.view(records.LINK))


def _joined(arrays: Sequence[I64]) -> I64:
    return arrays[0] if len(arrays) == 1 else readonly(np.concatenate(arrays))


def _ends(arrays: Sequence[I64]) -> I64:
    return readonly(np.cumsum([one.shape[0] for one in arrays], dtype=np.int64))


def trial_rows(
    sleeves: Sequence[Sleeve],
    rules: Sequence[RulesColumns],
    signals: Sequence[Sequence[TrialSignals]],
    stage: Stage,
    run: RunSpec,
) -> TrialRows:
    """Return what differs between trials of one template on a stage: their rules, and what they look at.

    ``signals``: per sleeve, per instrument of its universe in the order of the market, as ``evaluate_trials`` gives.
    """
    tape = stage.tape
    count, rows = len(rules[0].side), number_rows(sleeves)
    mask_at = np.full((count, len(stage.held), trials.MASKS), records.NONE, np.int64)
    number_at = np.full((count, len(stage.held), rows), records.NONE, np.int64)
    first_bit = np.empty(len(stage.held), np.int64)
    masks, numbers = _Side[np.uint64](np.uint64), _Side[np.float64](np.float64)
    for x, one in enumerate(one for group in signals for one in group):
        w, asset = stage.held[x]
        first = first_bit[x] = tape.windows[asset].start
        is_short = rules[w].side == SIDES.index("short")
        is_both = rules[w].side == SIDES.index("both")
        for at, mask in enumerate((one.enter, one.exit)):
            found = masks.add(mask.bits, mask.row_of)
            mask_at[:, x, at] = np.where(is_short, records.NONE, found)
            mask_at[:, x, at + 2] = np.where(is_short, found, records.NONE)
        for at, mask in enumerate((one.enter_short, one.exit_short)):
            if is_both.any():
                mask_at[is_both, x, at + 2] = masks.add(mask.bits, mask.row_of)[is_both]
        if one.add is not None:
            mask_at[:, x, trials.MASKS - 1] = masks.add(one.add.bits, one.add.row_of)
        levels = ((1 + k, level) for k, level in enumerate(one.stop_levels))
        for row, number in ((records.PREFER, one.prefer), *levels, (limit_row(sleeves[w]), one.limit)):
            if number is not None:
                number_at[:, x, row] = numbers.add(number.values, number.row_of) + first
    series = [tape.market.series[index] for index in tape.traded]
    return TrialRows(
        sleeve=readonly(sleeve_table(sleeves, rules)),
        stop=readonly(stop_table(rules)),
        position=readonly(position_table(run, rules, stage.held, series)),
        mask=masks.joined(),
        mask_at=readonly(mask_at),
        first_bit=readonly(first_bit),
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
        """Return where the row of each trial begins."""
        start = self._tables.get(id(table))
        if start is None:
            start = self._tables[id(table)] = self._end
            self._found.append(table.reshape(-1))
            self._end += table.size
        found: I64 = start + row_of.astype(np.int64) * table.shape[1]
        return found

    def joined(self) -> npt.NDArray[_Scalar]:
        """Return all tables."""
        return readonly(np.concatenate(self._found))


class TrialRun:
    """Some trials on one stage, under way. ``trial``: the one at hand, of which an error speaks."""

    def __init__(self, stage: Stage, rows: TrialRows, room: RecordRoom | None = None) -> None:
        self._stage = stage
        self._rows = rows
        self._room = RecordRoom() if room is None else room
        self._at = np.zeros(4, np.int64)

    @property
    def trial(self) -> int:
        """The trial at hand."""
        return int(self._at[trials.TRIAL])

    def run(self, kept: Kept, column: int) -> Iterator[tuple[int, I64]]:
        """Run all trials, write what is kept of them into ``column``, and yield (trial, pack) of each in the proof.

        A pack is valid until the next is asked for; ``kernels/trials.py`` says what is in it.
        Errors: CapacityError when an amount reaches 2**53; FarmError when the equity of a ruined account moves.
        """
        stage, count = self._stage, self._rows.mask_at.shape[0]
        tape = stage.tape.tables
        sleeves = self._rows.sleeve.shape[0] // count
        state = self._start(sleeves)
        signals = np.empty((sleeves, tape.bars.shape[0]), np.uint8)
        rows = self._rows.number_at.shape[2]
        numbers = np.empty((sleeves, max(rows, 1), tape.bars.shape[0] if rows else 0))
        books = np.zeros(1, records.BOOKS)
        proofs = np.flatnonzero(kept.proof)
        pack = self._room.pack(PACK_WORDS if len(proofs) else 0)
        vectors = np.empty((stage.subject.stretches.shape[0], trials.METRICS))
        told = 0
        while True:
            status = trials.run_trials(
                count,
                column,
                tape,
                stage.subject,
                self._rows,
                state,
                signals,
                numbers,
                books,
                self._at,
                kept,
                vectors,
                pack,
            )
            start = 0
            while start < self._at[trials.PACKED]:
                end = int(pack[start])
                yield int(proofs[told]), pack[start:end]
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
                raise overflow(stage.tape, state)
            elif status == trials.MOVED:
                session = int(self._at[trials.BROKEN_AT])
                raise FarmError(f"the equity of a ruined account moves at session {session}", place="ledger")

    def _start(self, sleeves: int) -> Tables:
        stage, room = self._stage, self._room
        positions, dividends = len(stage.held), stage.tape.dividends
        stops = self._rows.stop.shape[0] // self._rows.mask_at.shape[0]
        rows = RECORDS_MIN + 16 * positions + dividends * sleeves
        return Tables(
            account=np.empty(1, records.ACCOUNT),
            tally=np.empty(1, records.TALLY),
            asset=np.empty(stage.subject.asset.shape[0], records.ASSET),
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
            session=np.empty(stage.subject.day.shape[0], records.SESSION),
        )


def counts_of(kept: Kept, trial: int, column: int) -> Mapping[str, int]:
    """Return the counts of a trial that are not zero."""
    found = zip(ALL_COUNTS, kept.counts[:, trial, column].tolist(), strict=True)
    return {name: count for name, count in found if count}
