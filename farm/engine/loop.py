"""The event loop: a program, a market and its signals in, the books of one run out.

Rules: the loop is a fold. ``Simulator`` holds what does not change, ``State`` everything that does; ``advance`` carries
a state over the next batch of instants of the tape, and where batches end changes nothing. The arithmetic is in
``kernels/step.py``; here tables are laid out, records grow, and errors get their names. A simulation touches no global
and no file, and the kernel runs without the GIL: threads may share market, tape and signals.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from farm.engine.clock import Tape, make_tape
from farm.engine.ledger import CASH, COUNTS, FILL, ORDER, TRADE, Run, as_records
from farm.feed.market import InstrumentSeries, Market
from farm.kernels import step
from farm.kernels import step_layout as at
from farm.strategy.evaluate import Signals
from farm.strategy.program import Program, RulesProgram, StopRule
from farm.strategy.spec import RunSpec
from farm.values.arrays import F64, I64, U8, readonly
from farm.values.errors import CapacityError, DataError, SpecError
from farm.values.units import MICRO, date_of

SESSIONS_TTL = 1
"""Sessions of the instrument's own calendar that an order works for before it lapses (domain.md 2.3)."""
_RULES = {"cash": at.IN_CASH, "reg_t": at.REG_T, "linear": at.LINEAR}
_MODES = {"qty": at.QTY, "notional": at.BY_NOTIONAL, "pct_equity": at.BY_EQUITY, "equal": at.BY_EQUITY}
_STOPS = {"stop": at.STOP, "target": at.TARGET, "trail": at.TRAIL}
_UNITS = {"pct": at.PCT, "abs": at.ABS, "level": at.LEVEL, "r": at.R}
_RECORDS_MIN = 128


@dataclass(slots=True, eq=False)
class State:
    """Everything that changes in a run: tables of ``kernels/step_layout.py``, owned by the run.

    ``copy`` gives an independent state: both may be carried on, over the same batches or others.
    """

    account: F64
    count: I64
    asset: F64
    sleeve: F64
    slot: F64
    receivable: F64
    queue: I64
    orders: I64
    fills: I64
    cash: I64
    trades: I64
    sessions: I64

    def copy(self) -> State:
        """Return an independent copy."""
        return copy.deepcopy(self)

    @property
    def at(self) -> int:
        """The next instant of the tape."""
        return int(self.count[at.NEXT])

    @property
    def cash_micro(self) -> int:
        """Cash now."""
        return int(self.account[at.CASH])

    @property
    def receivable_micro(self) -> int:
        """Dividends earned or owed and not yet paid."""
        return int(self.account[at.RECEIVABLE])

    @property
    def equity_micro(self) -> int:
        """Equity at the last mark."""
        return int(self.account[at.EQUITY])

    @property
    def lots(self) -> I64:
        """Signed lots held, by slot: (sleeve, asset) in order."""
        held: I64 = self.slot[:, at.POS].astype(np.int64)
        return held


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
        self._most_stops = max(len(sleeve.stops) for sleeve in program.sleeves)
        self._check()
        self._signals, self._numbers = self._lay_out_signals()
        self._of_asset = self._slots_of_assets()

    def start(self) -> State:
        """Return the state before the first instant."""
        run, tape = self.program.run, self.tape
        sleeves = len(self._groups)
        slots = sum(map(len, self._groups))
        rows = _RECORDS_MIN + 8 * slots + tape.dividends * sleeves
        account = (
            run.cash_micro, 0.0, run.cash_micro, 0.0, _RULES[run.account], run.max_gross or 0.0,
            1.0 - run.exec.reserve_pct, float(run.exec.reserve_fees), SESSIONS_TTL,
        )  # fmt: skip
        return State(
            account=np.array(account, np.float64),
            count=np.zeros(at.COUNTS, np.int64),
            asset=np.array([_asset_row(run, series, tape.calendars) for series in self._series], np.float64),
            sleeve=self._sleeve_table(),
            slot=self._slot_table(slots),
            receivable=np.zeros((tape.dividends, sleeves)),
            queue=np.zeros(slots, np.int64),
            orders=np.empty((rows, at.ORDER_COLUMNS), np.int64),
            fills=np.empty((rows, at.FILL_COLUMNS), np.int64),
            cash=np.empty((rows, at.CASH_COLUMNS), np.int64),
            trades=np.empty((rows, at.TRADE_COLUMNS), np.int64),
            sessions=np.zeros((4, self.market.calendar.day.shape[0]), np.int64),
        )

    def advance(self, state: State, last: int) -> State:
        """Carry ``state`` over the instants [state.at, last) of the tape, in place, and return it.

        Errors: CapacityError when an amount of money reaches 2**53 micro-units (9.0e9 currency units).
        """
        tape, s = self.tape, state
        while True:
            status = step.advance(
                last, tape.inst, tape.act, tape.bar, tape.pay, tape.opening, self._signals, self._numbers,
                self._of_asset, s.account, s.count, s.asset, s.sleeve, s.slot, s.receivable, s.queue, s.orders,
                s.fills, s.cash, s.trades, s.sessions,
            )  # fmt: skip
            if status == at.DONE:
                return state
            if status == at.OVERFLOW:
                raise self._overflow(state)
            _grow(state)

    def finish(self, state: State) -> Run:
        """Return the books of a state that has seen the whole tape. They view the state's records."""
        if not state.count[at.ENDED]:
            raise ValueError(f"the run stands at instant {state.at} of {self.tape.instants}")
        count = state.count.tolist()
        absent = {"no_dividends": self.market.no_dividends, "no_splits": self.market.no_splits}
        assumptions = (*self.program.assumptions, *(name for name, is_absent in absent.items() if is_absent))
        sessions = readonly(state.sessions[:])
        trades = as_records(state.trades, count[at.N_TRADES] + count[at.N_OPEN], TRADE)
        return Run(
            cash_micro=self.program.run.cash_micro,
            instruments=tuple(series.id for series in self._series),
            sleeves=tuple(sleeve.id for sleeve in self.program.sleeves),
            session_day=self.market.calendar.day,
            equity=sessions[0],
            position=sessions[1],
            decision_bars=sessions[2],
            market_bars=sessions[3],
            orders=as_records(state.orders, count[at.N_ORDERS], ORDER),
            fills=as_records(state.fills, count[at.N_FILLS], FILL),
            cash_events=as_records(state.cash, count[at.N_CASH], CASH),
            trades=trades[: count[at.N_TRADES]],
            open_trades=trades[count[at.N_TRADES] :],
            traded_notional_micro=count[at.NOTIONAL],
            fees_micro={"commission": count[at.COMMISSION], "slippage": count[at.SLIPPAGE], "borrow": 0, "exercise": 0},
            counts={name: count[column] for name, column in COUNTS.items() if count[column]},
            assumptions=assumptions,
            ruin=count[at.RUIN] > 0,
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
            if not self.tape.has_range and any(stop.type != "time" for stop in sleeve.stops):
                raise DataError("high and low were not loaded", place=sleeve.id, hint="stops are tested against them")

    def _lay_out_signals(self) -> tuple[U8, F64]:
        """Signals of all slots side by side, each over all own bars of its instrument; a short sleeve's `enter` and
        `exit` mean the short side. Row 0 of the numbers is the preference, the others are stop levels."""
        pairs = zip(self.program.sleeves, self._groups, strict=True)
        flat = [(sleeve, one) for sleeve, group in pairs for one in group]
        rows = sum(one.enter.shape[0] for _, one in flat)
        signals = np.zeros((4, rows), np.uint8)
        series: F64 = np.full(self._numeric_shape(rows), np.nan)
        offset = 0
        for sleeve, one in flat:
            window = slice(offset, offset + one.enter.shape[0])
            offset = window.stop
            if sleeve.side == "short":
                signals[at.ENTER_SHORT, window] = one.enter
                signals[at.EXIT_SHORT, window] = one.exit
            else:
                signals[at.ENTER_LONG, window] = one.enter
                signals[at.EXIT_LONG, window] = one.exit
            if sleeve.side == "both":
                signals[at.ENTER_SHORT, window] = one.enter_short
                signals[at.EXIT_SHORT, window] = one.exit_short
            if one.prefer is not None:
                series[0, window] = one.prefer
            for number, level in enumerate(one.stop_levels):
                series[1 + number, window] = level
        return signals, series

    def _numeric_shape(self, rows: int) -> tuple[int, int]:
        levels = max(len(sleeve.levels) for sleeve in self.program.sleeves)
        if levels == 0 and all(sleeve.prefer is None for sleeve in self.program.sleeves):
            return 1, 0
        return 1 + levels, rows

    def _slots_of_assets(self) -> I64:
        """Where the slots of each asset stand in this very array, then the slots."""
        if sum(map(len, self._groups)) == 1:
            return _ONE_SLOT
        slots: list[list[int]] = [[] for _ in self._series]
        number = 0
        for group in self._groups:
            for one in group:
                slots[self._asset_of[one.instrument]].append(number)
                number += 1
        ends = [len(slots) + 1]
        for mine in slots:
            ends.append(ends[-1] + len(mine))
        return readonly(np.array(ends + [slot for mine in slots for slot in mine], np.int64))

    def _sleeve_table(self) -> F64:
        rows = []
        first = 0
        for sleeve, group in zip(self.program.sleeves, self._groups, strict=True):
            rows.append(_sleeve_row(sleeve, first, first + len(group), self._most_stops))
            first += len(group)
        return np.array(rows, np.float64)

    def _slot_table(self, slots: int) -> F64:
        table = np.zeros((slots, at.SLOT_COLUMNS + 2 * self._most_stops))
        table[:, at.EXIT_ROW] = at.NEVER
        number = offset = 0
        for w, (sleeve, group) in enumerate(zip(self.program.sleeves, self._groups, strict=True)):
            for one in group:
                asset = self._asset_of[one.instrument]
                lots = 0
                if sleeve.size.mode == "qty":
                    lots = _qty_lots(sleeve.size.v, _lot_micro(self.program.run, self._series[asset]))
                table[number, :5] = (w, asset, offset, asset, lots)
                offset += one.enter.shape[0]
                number += 1
        return table

    def _overflow(self, state: State) -> CapacityError:
        day = date_of(int(self.tape.inst[state.at, at.TS]) // 86_400_000_000_000)
        return CapacityError(
            "an amount of money or a number of lots reached 2^53",
            place=f"ledger, {day.isoformat()}",
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
) -> Run:
    """Run ``program`` over ``market`` and return its books.

    signals:    per sleeve, per instrument of its universe, over all own bars of that instrument.
    tape:       of the traded instruments; made here when absent. Trials on one market should share one.
    batch_rows: bars handed out at a time; all at once when absent. It changes nothing but the time.
    Errors:     SpecError (short in a cash account), DataError (columns missing, bars overlap), CapacityError (2**53).
    Source:     domain.md 2.2, 3.
    """
    simulator = Simulator(program, market, signals, tape)
    state = simulator.start()
    instants = simulator.tape.instants
    if batch_rows is None or instants == 0:
        simulator.advance(state, instants)
    else:
        for last in simulator.tape.cuts(batch_rows):
            simulator.advance(state, last)
    return simulator.finish(state)


_ONE_SLOT = readonly(np.array([2, 3, 0], np.int64))


def _instrument(one: Signals) -> int:
    return one.instrument


def _grow(state: State) -> None:
    """Double the records; the kernel has stopped before the instant for which they may be too short."""
    for name in ("orders", "fills", "cash", "trades"):
        table: I64 = getattr(state, name)
        setattr(state, name, np.concatenate((table, np.empty_like(table))))


def _lot_micro(run: RunSpec, series: InstrumentSeries) -> int:
    return series.lot_micro if run.lot == "whole" else 1


def _qty_lots(qty: float, lot_micro: int) -> int:
    """Whole lots in ``qty`` shares as written: 0.29 shares are 290,000 millionths, not one less."""
    return int(Decimal(repr(qty)) * MICRO) // lot_micro


def _asset_row(run: RunSpec, series: InstrumentSeries, calendars: Sequence[str]) -> tuple[float, ...]:
    lot = _lot_micro(run, series)
    slip = run.exec.slip_bps / 1e4
    up, down = max(1.0, MICRO / lot), max(1.0, lot / MICRO)
    least = round(run.costs.min * 1e6)
    rates = (1.0 + slip, 1.0 - slip, run.costs.bps / 1e4, run.costs.per_share, run.costs.per_order, least)
    return (lot, series.multiplier, up, down, *rates, calendars.index(series.calendar), 0.0, -1.0, -1.0)


def _sleeve_row(sleeve: RulesProgram, first: int, end: int, most_stops: int) -> list[float]:
    size = sleeve.size
    weight = size.v if size.mode == "notional" else sleeve.alloc if size.mode == "equal" else sleeve.alloc * size.v
    among = sleeve.max_positions if size.mode == "equal" else 1
    inside = [stop for stop in sleeve.stops if stop.type != "time"]
    time_bars = min((stop.value for stop in sleeve.stops if stop.type == "time"), default=0)
    prefers = float(sleeve.prefer is not None)
    row = [_MODES[size.mode], sleeve.max_positions, sleeve.cooldown_bars, time_bars, first, end, len(inside), prefers]
    row += [weight, among, 0.0]
    for stop in inside:
        row += _stop_columns(stop)
    return [float(value) for value in row] + [0.0] * (4 * (most_stops - len(inside)))


def _stop_columns(stop: StopRule) -> list[float]:
    return [_STOPS[stop.type], _UNITS[stop.unit], stop.level, stop.value]
