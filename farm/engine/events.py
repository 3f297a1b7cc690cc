"""The event path: a program, a market and its signals in, the books of one run out.

Rules: the loop is a fold. ``Simulator`` holds what does not change, ``RunState`` everything that does; ``advance``
carries a state over the next batch of instants of the tape, and where batches end changes nothing. The arithmetic is in
``farm/kernels``; here tables are laid out, records grow, and errors get their names. A simulation touches no global
and no file, and the kernel runs without the GIL: threads may share market, tape and signals.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from farm.engine.ledger import CASH, COUNTS, FILL, ORDER, TRADE, Run
from farm.kernels import loop, records
from farm.kernels.records import Table, Tables
from farm.market.panel import InstrumentSeries, Market
from farm.market.tape import Tape, make_tape
from farm.program.program import Program, RulesProgram, Size
from farm.signals.evaluate import Signals
from farm.spec.spec import RunSpec
from farm.values.arrays import F64, I64, U8, readonly
from farm.values.errors import CapacityError, DataError, SpecError
from farm.values.units import MICRO, NS_PER_DAY, iso

EXIT_TTL = 1
"""Sessions of the instrument's own calendar that an exit works for before it lapses (domain.md 2.3)."""
_RULES = {"cash": records.IN_CASH, "reg_t": records.REG_T, "linear": records.LINEAR}
_SIZES = {
    "qty": records.BY_QTY,
    "notional": records.BY_NOTIONAL,
    "pct_equity": records.BY_EQUITY,
    "equal": records.BY_EQUITY,
}
_STOPS = {"stop": records.STOP, "target": records.TARGET, "trail": records.TRAIL}
_UNITS = {"pct": records.PCT, "abs": records.ABS, "level": records.LEVEL, "r": records.R}
_GROWING = ("order", "fill", "cash", "trade")
_RECORDS_MIN = 128


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


class RecordRoom:
    """What run after run of one thread has no need to make anew: record tables to write into, and the table of assets.

    A run that allots its own records touches fresh memory for each of them, and again each time they grow, which costs
    as much as the loop.
    """

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}
        self._assets: tuple[Tape, RunSpec, Table] | None = None

    def assets(self, tape: Tape, run: RunSpec, make: Callable[[], Table]) -> Table:
        """Return the table of assets of a tape under the rules of a run, a copy of its own."""
        if self._assets is None or self._assets[0] is not tape or self._assets[1] is not run:
            self._assets = tape, run, make()
        return self._assets[2].copy()

    def take(self, name: str, rows: int) -> Table:
        """Return the table ``name`` with at least ``rows`` rows, whatever stands in them."""
        found = self._tables.pop(name, None)
        return found if found is not None and found.shape[0] >= rows else np.empty(rows, records.TABLES[name])

    def give(self, state: RunState) -> None:
        """Take the tables of a run back, whose books have been copied."""
        self._tables.update({name: getattr(state.tables, name) for name in _GROWING})


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
        self._check()
        self._signals = self._lay_out_signals()
        self._numbers = self._lay_out_numbers()

    def start(self, room: RecordRoom | None = None) -> RunState:
        """Return the state before the first instant; its records are in ``room``, if there is one."""
        room = RecordRoom() if room is None else room
        sleeves = len(self._groups)
        positions = self._position_table()
        count, dividends = positions.shape[0], self.tape.dividends
        rows = _RECORDS_MIN + 16 * count + dividends * sleeves
        stops = self._stop_table()
        asset = room.assets(self.tape, self.program.run, self._asset_table)
        of_asset = _by_asset(positions, asset)
        return RunState(
            Tables(
                account=self._account(),
                tally=np.zeros(1, records.TALLY),
                asset=asset,
                sleeve=self._sleeve_table(),
                stop=stops,
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
                raise self._overflow(state)
            _grow(state)

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
        last = max(_limit_row(sleeve) for sleeve in self.program.sleeves)
        is_used = last > 1 or any(sleeve.prefer or sleeve.limit for sleeve in self.program.sleeves)
        bars = self.tape.tables.bars.shape[0] if is_used else 0
        numbers = np.full((len(self._groups), 1 + last, bars), np.nan)
        if is_used:
            for w, group in enumerate(self._groups):
                for one in group:
                    window, rows = self._bars_of(one.instrument)
                    if one.prefer is not None:
                        numbers[w, records.PREFER, rows] = one.prefer[window]
                    for number, level in enumerate(one.stop_levels):
                        numbers[w, 1 + number, rows] = level[window]
                    if one.limit is not None:
                        numbers[w, _limit_row(self.program.sleeves[w]), rows] = one.limit[window]
        return readonly(numbers)

    def _account(self) -> Table:
        run = self.program.run
        rules = {
            "cash": run.cash_micro,
            "equity": run.cash_micro,
            "rules": _RULES[run.account],
            "max_gross": run.max_gross or 0.0,
            "kept": 1.0 - run.exec.reserve_pct,
            "reserves_fees": run.exec.reserve_fees,
            "ttl": EXIT_TTL,
        }
        return _rows(records.ACCOUNT, [rules])

    def _position_table(self) -> Table:
        flat = [
            (w, sleeve, self._asset_of[one.instrument])
            for w, (sleeve, group) in enumerate(zip(self.program.sleeves, self._groups, strict=True))
            for one in group
        ]
        return _rows(
            records.POSITION,
            [
                {
                    "sleeve": w,
                    "asset": asset,
                    "exit_row": records.NEVER,
                    "held_at": records.NONE,
                    "order": records.NONE,
                    "guard": records.NONE,
                    "qty_lots": self._qty_lots(sleeve.size, asset),
                    "add_lots": self._qty_lots(sleeve.add.size, asset) if sleeve.add is not None else 0,
                }
                for w, sleeve, asset in flat
            ],
        )

    def _qty_lots(self, size: Size, asset: int) -> int:
        """Whole lots in ``qty`` shares as written: 0.29 shares are 290,000 millionths, not one less."""
        if size.mode != "qty":
            return 0
        return int(Decimal(repr(size.v)) * MICRO) // _lot_micro(self.program.run, self._series[asset])

    def _asset_table(self) -> Table:
        run = self.program.run
        assets = np.zeros(len(self._series), records.ASSET)
        lot = np.array([_lot_micro(run, series) for series in self._series], np.float64)
        slip = run.exec.slip_bps / 1e4
        assets["row"] = assets["bar"] = assets["first_order"] = assets["split"] = records.NONE
        assets["lot_micro"] = lot
        assets["lots_up"] = np.maximum(1.0, MICRO / lot)
        assets["lots_down"] = np.maximum(1.0, lot / MICRO)
        assets["multiplier"] = [series.multiplier for series in self._series]
        assets["up"], assets["down"] = 1.0 + slip, 1.0 - slip
        assets["bps"] = run.costs.bps / 1e4
        assets["per_share"] = run.costs.per_share
        assets["per_order"] = run.costs.per_order
        assets["calendar"] = [self.tape.calendars.index(series.calendar) for series in self._series]
        assets["fee_min"] = round(run.costs.min * 1e6)
        return assets

    def _sleeve_table(self) -> Table:
        found = []
        end = 0
        for sleeve in self.program.sleeves:
            first = end
            end += sum(stop.type != "time" for stop in sleeve.stops)
            rules = dict(zip(("size", "weight", "among"), _size(sleeve, sleeve.size), strict=True))
            if sleeve.add is not None:
                rules |= zip(("add_size", "add_weight", "add_among"), _size(sleeve, sleeve.add.size), strict=True)
                rules["add_max"] = sleeve.add.max
            found.append(
                rules
                | {
                    "max_positions": sleeve.max_positions,
                    "cooldown": sleeve.cooldown_bars,
                    "time_bars": min((int(stop.value) for stop in sleeve.stops if stop.type == "time"), default=0),
                    "prefers": sleeve.prefer is not None,
                    "limit": 0 if sleeve.limit is None else _limit_row(sleeve),
                    "ttl": sleeve.ttl,
                    "first_stop": first,
                    "end_stop": end,
                }
            )
        return _rows(records.SLEEVE, found)

    def _stop_table(self) -> Table:
        inside = [stop for sleeve in self.program.sleeves for stop in sleeve.stops if stop.type != "time"]
        rules = [(_STOPS[stop.type], _UNITS[stop.unit], stop.value, 1 + stop.level, stop.follows) for stop in inside]
        return np.array(rules, records.STOP_RULE)

    def _overflow(self, state: RunState) -> CapacityError:
        ts = int(self.tape.tables.instants["ts"][state.at])
        return CapacityError(
            "an amount of money or a number of lots reached 2^53",
            place=f"ledger, {iso(ts // NS_PER_DAY)}",
            allowed="amounts below 9.0e9 currency units, and fewer than 9.0e15 lots",
            hint="start with less cash, or size positions smaller",
        )


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
        room.give(state)
    return run


def _rows(dtype: np.dtype[np.void], rows: Sequence[Mapping[str, float]]) -> Table:
    """Return records with these fields; the others are 0. At once: field by field costs three times as much."""
    names = dtype.names or ()
    return np.array([tuple(row.get(name, 0) for name in names) for row in rows], dtype)


def _by_asset(positions: Table, asset: Table) -> I64:
    """Return the positions by asset, and write into ``asset`` where those of each stand."""
    if len(positions) == 1:
        asset["first_position"], asset["end_position"] = 0, 1
        return np.zeros(1, np.int64)
    order: I64 = np.argsort(positions["asset"], kind="stable")
    in_order = positions["asset"][order]
    asset["first_position"] = np.searchsorted(in_order, np.arange(len(asset)))
    asset["end_position"] = np.searchsorted(in_order, np.arange(len(asset)), side="right")
    return order


def _size(sleeve: RulesProgram, size: Size) -> tuple[int, float, float]:
    """What a size is counted in, its weight, and by how many it is divided."""
    if size.mode == "notional":
        return _SIZES[size.mode], size.v, 1.0
    if size.mode == "equal":
        return _SIZES[size.mode], sleeve.alloc, float(sleeve.max_positions)
    return _SIZES[size.mode], sleeve.alloc * size.v, 1.0


def _limit_row(sleeve: RulesProgram) -> int:
    """The row of a sleeve's numbers that holds its limit, if it has one: after preference and stop levels."""
    return 1 + len(sleeve.levels)


def _instrument(one: Signals) -> int:
    return one.instrument


def _lot_micro(run: RunSpec, series: InstrumentSeries) -> int:
    return series.lot_micro if run.lot == "whole" else 1


def _grow(state: RunState) -> None:
    """Double the records; the kernel has stopped before the instant for which they may be too short."""
    books = state.tables
    wider = {}
    for name in _GROWING:
        table: Table = getattr(books, name)
        wider[name] = np.concatenate((table, np.empty_like(table)))
    state.tables = books._replace(**wider)


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
