"""The event path: a program, a market and its signals in, the books of one run out.

Rules: the loop is a fold. ``Simulator`` holds what does not change, ``RunState`` everything that does; ``advance``
carries a state over the next batch of instants of the tape, and where batches end changes nothing. The arithmetic is in
``farm/kernels``; here tables are laid out, records grow, and errors get their names. A simulation touches no global
and no file, and the kernel runs without the GIL: threads may share market, tape and signals.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farm.engine.layout import (
    account_table,
    by_asset,
    columns_of,
    limit_row,
    number_rows,
    position_table,
    sleeve_table,
    stop_table,
    structure_table,
)
from farm.engine.ledger import CASH, COUNTS, FILL, ORDER, TRADE, Run
from farm.engine.room import RECORDS_MIN, RecordRoom, grown, overflow
from farm.kernels import loop, records
from farm.kernels.records import Table, Tables
from farm.market.panel import Market
from farm.market.tape import Tape, make_tape
from farm.program.program import Program
from farm.signals.evaluate import Signals
from farm.values.arrays import F64, I64, U8, readonly
from farm.values.errors import DataError, SpecError


@dataclass(slots=True, eq=False)
class RunState:
    """Everything that changes in a run: tables of ``kernels/records.py``, owned by the run.

    ``copy`` gives an independent state: both may be carried on, over the same batches or others.
    """

    tables: Tables

    def copy(self) -> RunState:
        """Return an independent copy."""
        return copy.deepcopy(self)

    @property
    def at(self) -> int:
        """The next instant of the tape."""
        return int(self.tables.account["next"][0])

    @property
    def cash_micro(self) -> int:
        """Cash now."""
        return int(self.tables.account["cash"][0])

    @property
    def receivable_micro(self) -> int:
        """Dividends earned or owed and not yet paid."""
        return int(self.tables.account["receivable"][0])

    @property
    def equity_micro(self) -> int:
        """Equity at the last mark."""
        return int(self.tables.account["equity"][0])

    @property
    def lots(self) -> I64:
        """Signed lots held, by (sleeve, asset) in order."""
        held: I64 = self.tables.position["lots"].copy()
        return held

    def rows(self, table: str, count: str) -> Table:
        """Return the rows in use of a table of records."""
        whole: Table = getattr(self.tables, table)
        return whole[: int(self.tables.account[count][0])]


class Simulator:
    """One program on one market, ready to be carried over the tape. Read-only after construction.

    Errors: SpecError for a short in a cash account; DataError when the market lacks a column that fills or stops need.
    """

    def __init__(
        self, program: Program, market: Market, signals: Sequence[Sequence[Signals]], tape: Tape | None = None
    ) -> None:
        self.program = program
        self.market = market
        traded = sorted({one.instrument for group in signals for one in group})
        self.tape = make_tape(market, traded) if tape is None else tape
        if self.tape.market is not market or list(self.tape.traded) != traded:
            raise ValueError("the tape is of another market, or of other instruments than are traded")
        self._asset_of = {index: asset for asset, index in enumerate(traded)}
        self._groups = [sorted(group, key=_instrument) for group in signals]
        self._series = [market.series[index] for index in traded]
        self._held = [(w, self._asset_of[one.instrument]) for w, group in enumerate(self._groups) for one in group]
        self._check()
        self._signals = self._lay_out_signals()
        self._numbers = self._lay_out_numbers()

    def start(self, room: RecordRoom | None = None) -> RunState:
        """Return the state before the first instant; its records are in ``room``, if there is one."""
        room = RecordRoom() if room is None else room
        sleeves = len(self._groups)
        rules = columns_of(self.program)
        structures = structure_table(self._held)
        positions = position_table(self.program.run, rules, self._held, self._series)
        count, dividends = positions.shape[0], self.tape.dividends
        rows = RECORDS_MIN + 16 * count + dividends * sleeves
        stops = stop_table(rules)
        asset = room.assets(self.tape, self.program.run)
        of_asset = by_asset(positions, asset)
        return RunState(
            Tables(
                account=account_table(self.program.run),
                tally=np.zeros(1, records.TALLY),
                asset=asset,
                sleeve=sleeve_table(self.program.sleeves, rules),
                stop=stops,
                structure=structures,
                position=positions,
                of_asset=of_asset.view(records.LINK),
                held=np.zeros(count, records.LINK),
                working=np.zeros(count, records.LINK),
                queue=np.zeros(3 * count, records.LINK),
                receivable=np.zeros(dividends * sleeves, records.AMOUNT),
                order=room.take("order", rows * (1 + stops.shape[0])),
                fill=room.take("fill", rows),
                cash=room.take("cash", rows),
                trade=room.take("trade", rows),
                session=np.zeros(self.market.calendar.day.shape[0], records.SESSION),
            )
        )

    def advance(self, state: RunState, last: int) -> RunState:
        """Carry ``state`` over the instants [state.at, last) of the tape, in place, and return it.

        Errors: CapacityError when an amount of money reaches 2**53 micro-units (9.0e9 currency units).
        """
        books = np.zeros(1, records.BOOKS)
        while True:
            status = loop.advance(last, self.tape.tables, self._signals, self._numbers, state.tables, books)
            if status == records.DONE:
                return state
            if status == records.OVERFLOW:
                raise overflow(self.tape.tables.instants, state.tables)
            state.tables = grown(state.tables)

    def finish(self, state: RunState) -> Run:
        """Return the books of a state that has seen the whole tape, copied out of it."""
        books, account, tally = state.tables, state.tables.account[0], state.tables.tally[0]
        if not account["ended"]:
            raise ValueError(f"the run stands at instant {state.at} of {self.tape.instants}")
        absent = {"no_dividends": self.market.no_dividends, "no_splits": self.market.no_splits}
        assumptions = (*self.program.assumptions, *(name for name, is_absent in absent.items() if is_absent))
        closed, still_open = int(account["trades"]), int(account["open_trades"])
        session = {name: readonly(books.session[name].copy()) for name in records.SESSION.names or ()}
        return Run(
            cash_micro=self.program.run.cash_micro,
            instruments=tuple(series.id for series in self._series),
            sleeves=tuple(sleeve.id for sleeve in self.program.sleeves),
            session_day=self.market.calendar.day,
            equity=session["equity"],
            position=session["position"],
            decision_bars=session["decision_bars"],
            market_bars=session["market_bars"],
            orders=_sent(state),
            fills=_listed(state.rows("fill", "fills"), FILL),
            cash_events=_listed(state.rows("cash", "cash_lines"), CASH),
            trades=_listed(books.trade[:closed], TRADE),
            open_trades=_listed(books.trade[closed : closed + still_open], TRADE),
            traded_notional_micro=int(tally["notional"]),
            fees_micro={
                "commission": int(tally["commission"]),
                "slippage": int(tally["slippage"]),
                "borrow": 0,
                "exercise": 0,
            },
            counts={name: int(tally[name]) for name in COUNTS if tally[name]},
            assumptions=assumptions,
            ruin=bool(account["ruin"]),
        )

    def _check(self) -> None:
        if not self._series:
            raise ValueError("no instrument is traded")
        for one in (one for group in self._groups for one in group):
            if one.enter.shape[0] != self.market.series[one.instrument].rows:
                raise ValueError(f"signals of {self.market.series[one.instrument].id} are not over all its bars")
        for number, sleeve in enumerate(self.program.sleeves):
            if sleeve.side != "long" and self.program.run.account == "cash":
                raise SpecError(
                    "a cash account cannot be short",
                    place=f"strategy.sleeves[{number}].side",
                    allowed='"long"',
                    hint='set run.account to "reg_t" or "linear"',
                )
            looks_inside = sleeve.limit is not None or any(stop.type != "time" for stop in sleeve.stops)
            if looks_inside and not self.tape.has_range:
                hint = "stops and limits are tested against them"
                raise DataError("high and low were not loaded", place=sleeve.id, hint=hint)

    def _bars_of(self, instrument: int) -> tuple[slice, I64]:
        """Return the own bars of an instrument that are on the tape, and their rows there."""
        asset = self._asset_of[instrument]
        window = self.tape.windows[asset]
        end = int(self.tape.asset_end[asset])
        return window, self.tape.bars_of[end - (window.stop - window.start) : end]

    def _lay_out_signals(self) -> U8:
        """Return the signals (w, bars), a byte for each sleeve and bar of the tape; the `enter` and `exit` of a short
        sleeve mean the short side."""
        signals = np.zeros((len(self._groups), self.tape.tables.bars.shape[0]), np.uint8)
        for w, (sleeve, group) in enumerate(zip(self.program.sleeves, self._groups, strict=True)):
            for one in group:
                window, rows = self._bars_of(one.instrument)
                said = one.enter[window] | (one.exit[window] << 1)
                if sleeve.side == "short":
                    said = said << 2
                elif sleeve.side == "both":
                    said = said | (one.enter_short[window] << 2) | (one.exit_short[window] << 3)
                if one.add is not None:
                    said = said | (one.add[window] << 4)
                signals[w, rows] = said
        return readonly(signals)

    def _lay_out_numbers(self) -> F64:
        """Return the numbers (w, rows, bars): preference, stop levels, limit; no bars if no sleeve has any."""
        count = number_rows(self.program.sleeves)
        numbers = np.full((len(self._groups), max(count, 1), self.tape.tables.bars.shape[0] if count else 0), np.nan)
        if count:
            for w, group in enumerate(self._groups):
                for one in group:
                    window, rows = self._bars_of(one.instrument)
                    if one.prefer is not None:
                        numbers[w, records.PREFER, rows] = one.prefer[window]
                    for number, level in enumerate(one.stop_levels):
                        numbers[w, 1 + number, rows] = level[window]
                    if one.limit is not None:
                        numbers[w, limit_row(self.program.sleeves[w]), rows] = one.limit[window]
        return readonly(numbers)


def simulate(
    program: Program,
    market: Market,
    signals: Sequence[Sequence[Signals]],
    *,
    tape: Tape | None = None,
    batch_rows: int | None = None,
    room: RecordRoom | None = None,
) -> Run:
    """Run ``program`` over ``market`` and return its books.

    signals:    per sleeve, per instrument of its universe, over all own bars of that instrument.
    tape:       of the traded instruments; made here when absent. Trials on one market should share one.
    batch_rows: bars handed out at a time; all at once when absent. It changes nothing but the time.
    room:       where records are written, run after run of one thread.
    Errors:     SpecError (short in a cash account), DataError (columns missing, bars overlap), CapacityError (2**53).
    Source:     domain.md 2.2, 3.
    """
    simulator = Simulator(program, market, signals, tape)
    state = simulator.start(room)
    instants = simulator.tape.instants
    if batch_rows is None or instants == 0:
        simulator.advance(state, instants)
    else:
        for last in simulator.tape.cuts(batch_rows):
            simulator.advance(state, last)
    run = simulator.finish(state)
    if room is not None:
        room.give(state.tables)
    return run


def _instrument(one: Signals) -> int:
    return one.instrument


def _sent(state: RunState) -> Table:
    """Return the orders that were sent, by number."""
    rows = state.rows("order", "orders")
    sent = int(state.tables.account["sent"][0])
    if state.tables.stop.shape[0]:  # guards stand between them, and are numbered when they are sent
        number = rows["number"]
        at = np.empty(sent, np.int64)
        is_sent = number >= 0
        at[number[is_sent]] = np.flatnonzero(is_sent)
        rows = rows[at]
    return _listed(rows, ORDER)


def _listed(rows: Table, dtype: np.dtype[np.void]) -> Table:
    """Return the published columns of records, read-only."""
    if rows.dtype == dtype:
        return readonly(rows.copy())
    listed = np.empty(rows.shape[0], dtype)
    for name in dtype.names or ():
        listed[name] = rows[name]
    return readonly(listed)
