"""All trials on one subject: rules and signals of many in, metrics and packed books out, by few calls of one kernel.

Rules: what a trial gives does not depend on the trials beside it, on the threads, or on where calls end. Records grow
here and errors get their names; the arithmetic is in ``farm/kernels``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from farm.engine.layout import (
    account_table,
    asset_table,
    by_asset,
    columns_of,
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
from farm.program.program import Program
from farm.signals.evaluate import Signals
from farm.spec.spec import RunSpec
from farm.values.arrays import F64, I64, U8, U64, readonly
from farm.values.errors import FarmError

ALL_COUNTS = (*COUNTS, "ruin", "lapsed_no_volume", "lapsed_no_bar", "lapsed_at_end")
"""Counted incidents of a trial, in the order of the kernel."""
PACK_WORDS = 1 << 17
_SIGNALS = ("enter", "exit", "enter_short", "exit_short", "add")


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


def stack(programs: Sequence[Program], signals: Sequence[Sequence[Sequence[Signals]]], stage: Stage) -> TrialRows:
    """Return the rows of trials that were compiled and evaluated one by one; all of one template."""
    tape = stage.tape
    series = [tape.market.series[index] for index in tape.traded]
    bits = _Bits()
    rows = number_rows(programs[0].sleeves)
    columns = [columns_of(program) for program in programs]
    mask_at = np.full((len(programs), len(stage.held), trials.MASKS), records.NONE, np.int64)
    number_at = np.full((len(programs), len(stage.held), rows), records.NONE, np.int64)
    numbers: list[F64] = []
    values = 0
    for t, (program, said) in enumerate(zip(programs, signals, strict=True)):
        for x, one in enumerate(one for group in said for one in sorted(group, key=lambda one: one.instrument)):
            w, asset = stage.held[x]
            window = tape.windows[asset]
            side = program.sleeves[w].side
            for kind, name in enumerate(_SIGNALS):
                mask = getattr(one, name)
                at = kind + 2 if side == "short" and name in ("enter", "exit") else kind
                if mask is not None and (side == "both" or "short" not in name):
                    mask_at[t, x, at] = bits.add(mask[window])
            levels = ((1 + k, level) for k, level in enumerate(one.stop_levels))
            for row, column in ((records.PREFER, one.prefer), *levels, (limit_row(program.sleeves[w]), one.limit)):
                if column is not None:
                    number_at[t, x, row] = values
                    numbers.append(column[window])
                    values += window.stop - window.start
    return TrialRows(
        sleeve=_tables(sleeve_table(programs[0].sleeves, rules) for rules in columns),
        stop=_tables(stop_table(rules) for rules in columns),
        position=_tables(position_table(programs[0].run, rules, stage.held, series) for rules in columns),
        mask=bits.words(),
        mask_at=readonly(mask_at),
        first_bit=readonly(np.zeros(len(stage.held), np.int64)),
        number=readonly(np.concatenate([np.empty(0), *numbers])),
        number_at=readonly(number_at),
    )


def _tables(tables: Iterator[Table]) -> Table:
    return readonly(np.concatenate(list(tables)))


class _Bits:
    """Masks of bits, one behind the other, each from a word of its own on."""

    def __init__(self) -> None:
        self._found: list[U64] = []
        self._words = 0

    def add(self, mask: U8) -> int:
        at = self._words
        words = -(-len(mask) // 64)
        padded = np.zeros(words * 8, np.uint8)
        packed = np.packbits(mask, bitorder="little")
        padded[: len(packed)] = packed
        self._found.append(padded.view(np.uint64))
        self._words += words
        return at

    def words(self) -> U64:
        return readonly(np.concatenate([np.empty(0, np.uint64), *self._found]))


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
