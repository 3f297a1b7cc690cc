"""The event loop in plain Python: the twin of ``kernels/loop.py``, written from domain.md, to be checked by eye.

It shares nothing with the kernel: events are tuples sorted by (ts, phase, rank, instrument id, seq), positions and
orders are objects, money and lots are Python integers, and what the kernel finds by bisection is found here by
definition. Program, market and signals are taken as they are; only their attributes are looked at. It is one account
followed through all phases, which is the reason for the length of the file.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from typing import Any

ENTER, EXIT, REVERSE, TIME, FORCED, STOP, TARGET, TRAIL, RUINED, SPLIT, ADD = range(1, 12)
IN_WORK, FILLED, SCALED, LAPSED, REJECTED, CANCELLED = range(6)
COMMISSION, DIVIDEND_EX, DIVIDEND_PAY, SPLIT_CASH = range(1, 5)
ACTION, BAR, PAY, SHUT, CLOSE, OPEN = 1, 2, 4, 5, 6, 9  # phases of domain.md 3.1; SHUT: a session of an instrument
EXIT_TTL = 1

Record = dict[str, Any]


@dataclass(eq=False)
class Instrument:
    """A traded instrument: its series, its last close, when and in which own row it closed, and its splits so far."""

    number: int
    series: Any
    lot_micro: int
    mark: float = 0.0
    row: int = -1
    seen: int = -1
    splits: list[tuple[int, int]] = field(default_factory=list)

    def freeze(self, price: float) -> Frozen:
        """A price of now."""
        return Frozen(price, len(self.splits))

    def ratio(self, after: int) -> tuple[float, float]:
        """New shares, and for how many old ones, by all splits but the first ``after``; in lowest terms."""
        num, den = 1.0, 1.0
        for more, less in reversed(self.splits[after:]):
            a, c = math.gcd(int(num), less), math.gcd(more, int(den))
            num, den = (num / a) * (more / c), (den / c) * (less / a)
        return num, den

    def restated(self, frozen: Frozen) -> float:
        """A frozen price, in the shares of now."""
        num, den = self.ratio(frozen.after)
        return (frozen.price * den) / num


@dataclass(frozen=True)
class Frozen:
    """A price, and how many splits of its instrument were behind then."""

    price: float
    after: int


@dataclass(eq=False)
class Position:
    """Lots held since an entry, and every line of its trade so far."""

    side: int
    lots: int
    entry: Frozen
    peak: Frozen
    levels: list[Frozen]
    record: Record
    entry_row: int
    order: int
    decided: int
    bars: int = 0
    pnl: int = 0
    fees: int = 0
    dividends: int = 0
    adds: int = 0


@dataclass(eq=False)
class Order:
    """An order that works; ``opens`` lots are opened after what is held is closed. ``limit`` 0: it takes any price.
    It lapses after ``lasts`` sessions. ``sent_limit`` and ``levels`` are frozen."""

    id: int
    kind: int
    side: int
    opens: int
    levels: list[Frozen]
    sent_limit: Frozen
    limit: float = 0.0
    lasts: int = EXIT_TTL
    sessions: int = 0
    price: float = 0.0
    ref: float = 0.0
    fit: int = 0
    closed: int = 0
    fee_held: int = 0


@dataclass(eq=False)
class Slot:
    """Where one sleeve may hold one instrument."""

    sleeve: int
    rules: Any
    instrument: Instrument
    signals: Any
    position: Position | None = None
    order: Order | None = None
    exit_row: int = -(2**40)

    def is_true(self, name: str, side: int) -> bool:
        """Whether the entry or exit signal of this side is true at the instrument's last bar."""
        if self.rules.side in ("long", "short") and (self.rules.side == "long") != (side > 0):
            return False
        column = name + "_short" if self.rules.side == "both" and side < 0 else name
        return bool(getattr(self.signals, column)[self.instrument.row])


@dataclass(eq=False)
class Reference:
    """One run. The records are lists of dictionaries with the names of ``engine/ledger.py``."""

    program: Any
    market: Any
    signals: Any
    orders: list[Record] = field(default_factory=list)
    fills: list[Record] = field(default_factory=list)
    cash_events: list[Record] = field(default_factory=list)
    trades: list[Record] = field(default_factory=list)
    open_trades: list[Record] = field(default_factory=list)
    equity: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    ruin: bool = False

    def __post_init__(self) -> None:
        run = self.program.run
        self.cash = int(run.cash_micro)
        self.receivables: dict[tuple[int, int, int], int] = {}  # (instrument, dividend, sleeve)
        self.up, self.down = 1.0 + run.exec.slip_bps / 1e4, 1.0 - run.exec.slip_bps / 1e4
        traded = sorted({one.instrument for group in self.signals for one in group})
        self.instruments = [
            Instrument(number, series, int(series.lot_micro) if run.lot == "whole" else 1)
            for number, series in enumerate(self.market.series[index] for index in traded)
        ]
        where = {index: self.instruments[number] for number, index in enumerate(traded)}
        self.slots = [
            Slot(w, rules, where[one.instrument], one)
            for w, (rules, group) in enumerate(zip(self.program.sleeves, self.signals, strict=True))
            for one in sorted(group, key=lambda one: int(one.instrument))
        ]
        sessions = len(self.market.calendar.day)
        self.decision_bars, self.market_bars = [0] * sessions, [0] * sessions
        self.session = 0
        self.now = 0
        self.was_held = False

    # The order of events.

    def events(self) -> list[tuple[int, int, int, int, int, Any]]:
        """All events as (ts, phase, rank, instrument, seq, what), in the total order."""
        calendar = self.market.calendar
        found: list[tuple[int, int, int, int, int, Any]] = []
        days, opens = calendar.day.tolist(), calendar.open_ts.tolist()
        end = int(calendar.close_ts[-1])

        def acts_at(series: Any, day: int) -> int | None:
            """The open of the first session on or after ``day``, or the instrument's own first print if earlier."""
            session = [ts for at, ts in zip(days, opens, strict=True) if at >= day][:1]
            own = [int(ts) for at, ts in zip(series.day, series.open_ts, strict=True) if at >= day][:1]
            return min(session + own) if session else None

        for n, ts in enumerate(calendar.close_ts.tolist()):
            found.append((ts, CLOSE, 0, 0, n, None))
        for instrument in self.instruments:
            s, i = instrument.series, instrument.number
            own = calendar if s.calendar == calendar.name else self.market.calendars[s.calendar]
            for n, (day, ts) in enumerate(zip(own.day.tolist(), own.close_ts.tolist(), strict=True)):
                if self.market.start_day <= day <= self.market.end_day and ts <= end:
                    found.append((ts, SHUT, 0, i, n, instrument))
            for row, day in enumerate(s.day.tolist()):
                if self.market.start_day <= day <= self.market.end_day and s.close_ts[row] <= end:
                    found.append((int(s.close_ts[row]), BAR, 0, i, row, instrument))
                if self.market.start_day <= day <= self.market.end_day and s.open_ts[row] < end:
                    found.append((int(s.open_ts[row]), OPEN, 0, i, row, instrument))
            for k, day in enumerate(s.split_day.tolist()):
                instant = acts_at(s, day)
                if instant is not None and day >= self.market.start_day:
                    found.append((instant, ACTION, 0, i, k, instrument))
            for k, day in enumerate(s.dividend_day.tolist()):
                instant = acts_at(s, day)
                if instant is not None and day >= self.market.start_day:
                    found.append((instant, ACTION, 1, i, k, instrument))
                    paid = acts_at(s, max(day, int(s.dividend_pay_day[k])))
                    if paid is not None:
                        found.append((paid, PAY, 0, i, k, instrument))
        return sorted(found, key=lambda event: event[:5])

    def run(self) -> Reference:
        """Go through all instants, and close the books."""
        for ts, together in groupby(self.events(), key=lambda event: event[0]):
            self.now = ts
            phases: dict[int, list[tuple[int, int, int, int, int, Any]]] = {phase: [] for phase in range(10)}
            for event in together:
                phases[event[1]].append(event)
            if not self.ruin:
                self.closing_bars(phases[BAR])
                for *_, instrument in phases[SHUT]:
                    self.close_own_session(instrument)
            if phases[CLOSE]:
                self.close_session()
            if phases[BAR]:
                self.decision_bars[self.session] += 1
                held = any(slot.position for slot in self.slots)
                self.market_bars[self.session] += held or self.was_held
                self.was_held = False
                if not self.ruin:
                    self.decide()
            if phases[CLOSE]:
                self.equity.append(self.worth())
                self.position.append(self.gross())
                self.session += 1
            if not self.ruin:  # a session opens: what closed at this instant was of the old basis
                self.corporate_actions(phases[ACTION])
                for *_, k, instrument in phases[PAY]:
                    self.pay(instrument, k)
                self.opening_prints(phases[OPEN])
        self.finish()
        return self

    # Money.

    def value(self, instrument: Instrument, price: float, lots: int) -> int:
        """rint(price x qty x multiplier x 1e6), in this order; half to even."""
        qty = (lots * instrument.lot_micro) / 1e6
        return round(price * qty * float(instrument.series.multiplier) * 1e6)

    def commission(self, instrument: Instrument, price: float, lots: int) -> int:
        """bps of value plus per share plus per order, at least the minimum, of one order."""
        costs, qty = self.program.run.costs, (lots * instrument.lot_micro) / 1e6
        value = price * qty * float(instrument.series.multiplier)
        fee = float(value * (costs.bps / 1e4) + qty * costs.per_share + costs.per_order)
        return max(round(fee * 1e6), round(float(costs.min) * 1e6))

    def values(self) -> list[int]:
        """Signed values of all positions at the last closes."""
        return [
            self.value(slot.instrument, slot.instrument.mark, slot.position.side * slot.position.lots)
            for slot in self.slots
            if slot.position
        ]

    def worth(self) -> int:
        """Equity."""
        return self.cash + sum(self.receivables.values()) + sum(self.values())

    def gross(self) -> int:
        """Sum of absolute position values."""
        return sum(map(abs, self.values()))

    def count(self, name: str, more: int = 1) -> None:
        """Count an incident."""
        if more:
            self.counts[name] = self.counts.get(name, 0) + more

    # Records.

    def write_order(self, slot: Slot, kind: int, side: int, lots: int, price: float) -> int:
        """Open the record of an order and return its id."""
        self.orders.append(
            {
                "ts": self.now, "session": self.session, "sleeve": slot.sleeve, "instrument": slot.instrument.number,
                "kind": kind, "side": side, "lots": lots, "filled_lots": 0, "status": IN_WORK, "done_ts": 0,
                "fee_micro": 0, "price": price, "limit_price": 0.0,
            }
        )  # fmt: skip
        return len(self.orders) - 1

    def settle(self, order: int, status: int, lots: int) -> None:
        """Say how an order ended."""
        self.orders[order].update(status=status, filled_lots=lots, done_ts=self.now)

    def fill(self, slot: Slot, order: int, lots: int, price: float, ref: float, opens: int) -> int:
        """Buy or sell, and return the cash flow."""
        flow = -self.value(slot.instrument, price, lots)
        slippage = abs(flow + self.value(slot.instrument, ref, lots))
        self.cash += flow
        self.was_held = True
        self.fills.append(
            {
                "ts": self.now, "session": self.session, "order": order, "sleeve": slot.sleeve,
                "instrument": slot.instrument.number, "lots": lots, "amount_micro": flow, "slippage_micro": slippage,
                "opens": opens, "price": price, "ref_price": ref,
            }
        )  # fmt: skip
        return flow

    def book(self, kind: int, sleeve: int, instrument: Instrument, ref: int, cash: int, receivable: int) -> None:
        """Write a cash event; receivables themselves are kept by the caller."""
        self.cash += cash
        self.cash_events.append(
            {
                "ts": self.now, "session": self.session, "kind": kind, "sleeve": sleeve,
                "instrument": instrument.number, "ref": ref, "cash_micro": cash, "receivable_micro": receivable,
            }
        )  # fmt: skip

    def charge(self, slot: Slot, order: int, fee: int) -> None:
        """The commission line of an order, unless it is nothing."""
        if fee:
            self.orders[order]["fee_micro"] = fee
            self.book(COMMISSION, slot.sleeve, slot.instrument, order, -fee, 0)

    def trade(self, position: Position, order: int, kind: int, price: float, row: int, pnl: int) -> Record:
        """The record of a flat-to-flat episode."""
        return position.record | {
            "exit_order": order, "exit_kind": kind, "exit_ts": self.now, "exit_session": self.session,
            "bars": row - position.entry_row + 1, "pnl_micro": pnl, "fees_micro": position.fees,
            "dividends_micro": position.dividends, "exit_price": price,
        }  # fmt: skip

    # Positions.

    def end_trade(
        self, slot: Slot, position: Position, order: int, kind: int, price: float, fee: int, row: int
    ) -> None:
        """Close the books of a position that is gone."""
        position.pnl -= fee
        position.fees += fee
        slot.exit_row = row
        self.trades.append(self.trade(position, order, kind, price, row, position.pnl))

    def flatten(self, slot: Slot, position: Position, order: int, price: float, ref: float) -> None:
        """Trade the whole position away."""
        position.pnl += self.fill(slot, order, -position.side * position.lots, price, ref, 0)
        slot.position = None

    def exit(self, slot: Slot, order: int, kind: int, price: float, ref: float, row: int) -> None:
        """Close a position by an order. A ruin costs nothing."""
        position = slot.position
        assert position
        self.flatten(slot, position, order, price, ref)
        fee = 0 if kind == RUINED else self.commission(slot.instrument, price, position.lots)
        self.charge(slot, order, fee)
        self.settle(order, FILLED, position.lots)
        self.end_trade(slot, position, order, kind, price, fee, row)

    def enter(self, slot: Slot, order: Order, lots: int, fee: int, row: int) -> None:
        """Open the position that an order asked for, in the instrument's bar ``row``."""
        flow = self.fill(slot, order.id, order.side * lots, order.price, order.ref, 1)
        record = {
            "sleeve": slot.sleeve, "instrument": slot.instrument.number, "side": order.side, "lots": lots,
            "entry_order": order.id, "entry_ts": self.now, "entry_session": self.session,
            "entry_notional_micro": abs(flow), "entry_price": order.price,
        }  # fmt: skip
        freeze = slot.instrument.freeze
        slot.position = Position(
            order.side, lots, freeze(order.price), freeze(order.ref), [], record, row, order.id, order.sent_limit.after
        )
        slot.position.pnl = flow - fee
        slot.position.fees = fee
        self.set_stops(slot, slot.position, order)

    def add(self, slot: Slot, position: Position, order: Order, lots: int, fee: int) -> None:
        """Buy more: the average entry moves, and what is measured from it; the rest stays as the entry set it."""
        flow = self.fill(slot, order.id, order.side * lots, order.price, order.ref, 1)
        before = slot.instrument.restated(position.entry)
        num, den = slot.instrument.ratio(position.entry.after)
        held = float(position.lots)
        position.entry = slot.instrument.freeze((before * held + order.price * float(lots)) / (held + float(lots)))
        opened = int(position.record["lots"]) * int(num) // int(den) + lots
        notional = position.record["entry_notional_micro"] + abs(flow)
        position.record.update(entry_price=position.entry.price, lots=opened, entry_notional_micro=notional)
        position.lots += lots
        position.adds += 1
        position.pnl += flow - fee
        position.fees += fee
        old, position.levels = position.levels, []
        self.set_stops(slot, position, order)
        for x, rule in enumerate(inside(slot.rules)):
            if rule.type == "trail" or rule.unit == "r" or (rule.unit == "level" and not rule.follows):
                position.levels[x] = old[x]

    def set_stops(self, slot: Slot, position: Position, order: Order) -> None:
        """Levels of stops and targets, and what a trail keeps from the peak; R is the distance to the nearest stop."""
        price = position.entry.price
        freeze = slot.instrument.freeze
        rules = inside(slot.rules)
        for rule, frozen in zip(rules, order.levels, strict=True):
            sign = position.side if rule.type == "target" else -position.side
            distance = slot.instrument.restated(Frozen(rule.value, position.decided))  # if that is what it is
            if rule.type == "trail":
                position.levels.append(freeze(distance))
            elif rule.unit == "pct":
                position.levels.append(freeze(on_grid(price * (1.0 + sign * rule.value))))
            else:
                position.levels.append(freeze(on_grid(price + sign * distance)) if rule.unit == "abs" else frozen)
        risks = [
            position.side * (price - stop_price(slot, position, rule, x))
            for x, rule in enumerate(rules)
            if rule.type != "target"
        ]
        risk = on_grid(min(risks, default=math.nan))
        for x, rule in enumerate(rules):
            if rule.unit == "r":
                position.levels[x] = freeze(on_grid(price + position.side * (rule.value * risk)))

    # Phase 9: opening prints.

    def need(self, slot: Slot, order: Order, lots: int) -> float:
        """What an opening takes from what is available."""
        if lots == 0:
            return 0
        value = self.value(slot.instrument, order.price, lots)
        fee = self.commission(slot.instrument, order.price, order.closed + lots) - order.fee_held
        run = self.program.run
        if run.account == "reg_t":
            return 0.5 * value + fee
        return value + (round(run.max_gross * fee) if run.account == "linear" else fee)

    def available(self) -> float:
        """Cash; equity beyond the initial margin; or room below the greatest gross value."""
        run = self.program.run
        if run.account == "cash":
            return self.cash
        if run.account == "reg_t":
            return self.worth() - 0.5 * self.gross()
        return float(run.max_gross * self.worth() - self.gross())

    def held_in(self, sleeve: int) -> int:
        """Positions of a sleeve."""
        return sum(1 for slot in self.slots if slot.sleeve == sleeve and slot.position)

    def opening_prints(self, prints: list[tuple[int, int, int, int, int, Any]]) -> None:
        """Fill the orders whose instruments print with volume: closing ones first, then the openings together."""
        ready: list[tuple[Slot, Order]] = []
        for *_, row, instrument in prints:
            price = float(instrument.series.open[row])
            if not instrument.series.volume[row] > 0:
                continue
            for slot in self.slots:
                order = slot.order
                if slot.instrument is not instrument or not order:
                    continue
                if order.limit and (price > order.limit if order.side > 0 else price < order.limit):
                    continue
                slip = 1.0 if order.limit else self.up if order.side > 0 else self.down
                order.ref, order.price = price, price * slip
                ready.append((slot, order))
        self.execute(ready, 1)

    def execute(self, ready: list[tuple[Slot, Order]], ahead: int) -> None:
        """Fill orders in the bar that closed last (``ahead`` 0) or opens now (1): what closes first, then openings."""
        ready.sort(key=lambda pair: pair[1].id)
        reversing: dict[int, Position] = {}
        for slot, order in ready:
            row = slot.instrument.row + ahead
            if order.kind == REVERSE:
                assert slot.position
                reversing[order.id] = slot.position
                order.closed = slot.position.lots
                self.flatten(slot, slot.position, order.id, order.price, order.ref)
                order.fee_held = self.commission(slot.instrument, order.price, order.closed)
                self.cash -= order.fee_held
            elif order.kind not in (ENTER, ADD):
                self.exit(slot, order.id, order.kind, order.price, order.ref, row)
                slot.order = None
        openings = self.find_room([(slot, order) for slot, order in ready if slot.order])
        self.share(openings, self.available())
        for slot, order in openings:
            self.admit(slot, order, reversing.get(order.id), slot.instrument.row + ahead)

    def find_room(self, openings: list[tuple[Slot, Order]]) -> list[tuple[Slot, Order]]:
        """Reject entries for which a sleeve has no place left; a reversal keeps the place it has."""
        found: list[tuple[Slot, Order]] = []
        taken = {slot.sleeve: self.held_in(slot.sleeve) for slot, _ in openings}
        for slot, order in openings:
            taken[slot.sleeve] += order.kind == REVERSE
        for slot, order in openings:
            if order.kind == ENTER and taken[slot.sleeve] >= slot.rules.max_positions:
                self.settle(order.id, REJECTED, 0)
                self.count("no_place")
                slot.order = None
            else:
                taken[slot.sleeve] += order.kind == ENTER
                found.append((slot, order))
        return found

    def share(self, openings: list[tuple[Slot, Order]], available: float) -> None:
        """One opening takes what is covered; several share one factor, then give lots back one by one."""
        if len(openings) == 1:
            slot, order = openings[0]
            covered = bisect_right(range(order.opens + 1), available, key=lambda lots: self.need(slot, order, lots))
            order.fit = max(covered - 1, 0)
            return
        for _, order in openings:
            order.fit = order.opens
        total = sum(self.need(slot, order, order.fit) for slot, order in openings)
        if total <= available:
            return
        for _, order in openings:
            order.fit = whole(order.opens * (max(available, 0.0) / total))
        while any(order.fit for _, order in openings):
            for _, order in openings:
                if sum(self.need(*pair, pair[1].fit) for pair in openings) <= available:
                    return
                order.fit -= order.fit > 0

    def admit(self, slot: Slot, order: Order, reversed_position: Position | None, row: int) -> None:
        """Fill an opening. The commission of a reversal is one line, shared between its two trades by lots."""
        lots, closed, fee, share = order.fit, order.closed, 0, 0
        slot.order = None
        if lots + closed:
            fee = self.commission(slot.instrument, order.price, closed + lots)
            self.cash += order.fee_held
            self.charge(slot, order.id, fee)
            share = round(fee * closed / (closed + lots))
        if reversed_position:
            self.end_trade(slot, reversed_position, order.id, REVERSE, order.price, share, row)
        if lots and slot.position:
            self.add(slot, slot.position, order, lots, fee)
        elif lots:
            self.enter(slot, order, lots, fee - share, row)
        status = FILLED if lots == order.opens else SCALED if lots + closed else REJECTED
        self.count("scaled", status == SCALED)
        self.count("rejected", status == REJECTED)
        self.settle(order.id, status, lots + closed)

    # Phases 1 to 4.

    def corporate_actions(self, actions: list[tuple[int, int, int, int, int, Any]]) -> None:
        """Splits, then dividends."""
        for _, _, rank, _, k, instrument in actions:
            s = instrument.series
            if rank == 0:
                instrument.splits.append((int(s.split_num[k]), int(s.split_den[k])))
            for slot in self.slots:
                if slot.instrument is instrument and rank == 0:
                    self.split(slot, int(s.split_num[k]), int(s.split_den[k]), int(s.split_day[k]))
                elif slot.instrument is instrument and slot.position:
                    self.ex_dividend(slot, slot.position, k)
            if rank == 0:
                instrument.mark = instrument.mark * float(s.split_den[k]) / float(s.split_num[k])

    def ex_dividend(self, slot: Slot, position: Position, k: int) -> None:
        """What the ex-date owes to who is long, and takes from who is short."""
        s = slot.instrument.series
        flow = self.value(slot.instrument, float(s.dividend_amount[k]), position.side * position.lots)
        position.pnl += flow
        position.dividends += flow
        self.receivables[slot.instrument.number, k, slot.sleeve] = flow
        self.count("pay_date_assumed", int(s.dividend_pay_assumed[k]))
        self.book(DIVIDEND_EX, slot.sleeve, slot.instrument, int(s.dividend_day[k]), 0, flow)

    def split(self, slot: Slot, num: int, den: int, day: int) -> None:
        """Restate position, order and levels; cash what is less than a lot."""
        instrument, position, order = slot.instrument, slot.position, slot.order
        price = instrument.mark * float(den) / float(num)
        if order:
            order.opens = order.opens * num // den
            order.limit = on_grid(instrument.restated(order.sent_limit))
        if position:
            position.lots, rest = divmod(position.lots * num, den)
            if rest:
                qty = (rest * instrument.lot_micro) / (den * 1e6)
                flow = position.side * round(price * qty * float(instrument.series.multiplier) * 1e6)
                position.pnl += flow
                self.book(SPLIT_CASH, slot.sleeve, instrument, day, flow, 0)
            if not position.lots:
                slot.position = None
                self.was_held = True
                self.end_trade(slot, position, -1, SPLIT, price, 0, instrument.row + 1)
        if order and not slot.position:
            self.leave_alone(slot, order)
        elif order and order.kind == ADD and not order.opens:
            self.lapse(slot)

    def leave_alone(self, slot: Slot, order: Order) -> None:
        """The position that an order was to close is gone: a reversal only enters, what has nothing to do lapses."""
        order.kind = ENTER if order.kind == REVERSE else order.kind
        if order.kind != ENTER or not order.opens:
            self.lapse(slot)

    def closing_bars(self, bars: list[tuple[int, int, int, int, int, Any]]) -> None:
        """Take in the bars, then match stops, then targets, each in the order of the entries; then lift the peaks."""
        met: list[tuple[Slot, int]] = []
        waiting: list[tuple[Slot, Order]] = []
        for *_, row, instrument in bars:
            instrument.row, instrument.seen = row, self.now
            for slot in self.slots:
                if slot.instrument is instrument and slot.position:
                    slot.position.bars += 1
                    if instrument.series.volume[row] > 0:
                        met.append((slot, row))
                order = slot.order if slot.instrument is instrument else None
                if order and order.limit and instrument.series.volume[row] > 0:
                    s = instrument.series
                    if s.low[row] < order.limit if order.side > 0 else s.high[row] > order.limit:
                        waiting.append((slot, order))
        met.sort(key=lambda pair: pair[0].position.order if pair[0].position else 0)
        for types in (("stop", "trail"), ("target",)):
            for slot, row in met:
                if slot.position and inside(slot.rules):
                    self.match(slot, slot.position, row, types)
        for slot, row in met:
            if slot.position and inside(slot.rules):
                s = slot.instrument.series
                self.lift(slot, slot.position, float(s.high[row] if slot.position.side > 0 else s.low[row]))
        if waiting:
            self.enter_inside(waiting)
        for *_, row, instrument in bars:  # nobody knew the closes inside the bars
            instrument.mark = float(instrument.series.close[row])

    def enter_inside(self, waiting: list[tuple[Slot, Order]]) -> None:
        """Entries at limits that bars went through; whoever enters may be stopped out by the rest of the bar."""
        waiting.sort(key=lambda pair: pair[1].id)
        for _, order in waiting:
            order.ref = order.price = order.limit
        self.execute([(slot, order) for slot, order in waiting if slot.order is order], 0)
        for slot, order in waiting:
            position = slot.position
            if not position or position.order != order.id:
                continue
            position.bars = 1
            s, row, side = slot.instrument.series, slot.instrument.row, position.side
            stops = [
                (side * stop_price(slot, position, rule, x), -x, rule)
                for x, rule in enumerate(inside(slot.rules))
                if rule.type != "target" and not math.isnan(stop_price(slot, position, rule, x))
            ]
            if stops:
                level, _, rule = max(stops, key=lambda one: one[:2])
                if (s.low[row] if side > 0 else -s.high[row]) <= level:
                    self.send_stop(slot, {"stop": STOP, "trail": TRAIL}[rule.type], side * level, row)

    def lift(self, slot: Slot, position: Position, price: float) -> None:
        """A print that is better than all since the entry is the peak."""
        if position.side * price > position.side * slot.instrument.restated(position.peak):
            position.peak = slot.instrument.freeze(price)

    def match(self, slot: Slot, position: Position, row: int, types: tuple[str, ...]) -> None:
        """A stop trades by touch, a target only beyond its level; a gap trades at the open."""
        s, side = slot.instrument.series, position.side
        opening = float(s.open[row])
        self.lift(slot, position, opening)
        levels = [
            (side * stop_price(slot, position, rule, x), x, rule)
            for x, rule in enumerate(inside(slot.rules))
            if rule.type in types
        ]
        levels = [one for one in levels if not math.isnan(one[0])]
        if not levels:
            return
        if "target" in types:
            level, _, rule = min(levels, key=lambda one: (one[0], one[1]))
            far = float(s.high[row]) if side > 0 else -float(s.low[row])
            is_gap, is_met = side * opening >= level, far > level
        else:
            level, _, rule = max(levels, key=lambda one: (one[0], -one[1]))
            far = float(s.low[row]) if side > 0 else -float(s.high[row])
            is_gap, is_met = side * opening <= level, far <= level
        if is_gap or is_met:
            ref = opening if is_gap else side * level
            self.send_stop(slot, {"stop": STOP, "trail": TRAIL, "target": TARGET}[rule.type], ref, row)

    def send_stop(self, slot: Slot, kind: int, ref: float, row: int) -> None:
        """A stop becomes a market order; a target is a limit and does not slip."""
        position = slot.position
        assert position
        price = ref if kind == TARGET else ref * (self.down if position.side > 0 else self.up)
        order = self.write_order(slot, kind, -position.side, position.lots, ref)
        self.exit(slot, order, kind, price, ref, row)
        if slot.order:
            self.leave_alone(slot, slot.order)

    def pay(self, instrument: Instrument, k: int) -> None:
        """A receivable becomes cash."""
        for sleeve in range(len(self.program.sleeves)):
            flow = self.receivables.pop((instrument.number, k, sleeve), 0)
            if flow:
                self.book(DIVIDEND_PAY, sleeve, instrument, int(instrument.series.dividend_day[k]), flow, -flow)

    # Phase 6.

    def lapse(self, slot: Slot) -> None:
        """An order has worked long enough."""
        assert slot.order
        self.settle(slot.order.id, LAPSED, 0)
        self.count("lapsed")
        slot.order = None

    def cancel(self, slot: Slot) -> None:
        """Something else takes the place of an order that waits for its limit."""
        if slot.order:
            self.settle(slot.order.id, CANCELLED, 0)
            self.count("cancelled")
            slot.order = None

    def close_own_session(self, instrument: Instrument) -> None:
        """Orders on the instrument that have worked through one of its sessions lapse."""
        for slot in self.slots:
            if slot.instrument is instrument and slot.order:
                slot.order.sessions += 1
                if slot.order.sessions >= slot.order.lasts:
                    self.lapse(slot)

    def close_session(self) -> None:
        """An account without equity is ruined; margin is checked."""
        if self.ruin:
            return
        if self.worth() <= 0:
            self.close_everything()
        elif self.program.run.account == "reg_t":
            self.call_margin()

    def close_everything(self) -> None:
        """Ruin: positions close at the mark, what is owed is paid."""
        for slot in self.slots:
            if slot.order:
                self.lapse(slot)
        for slot in self.slots:
            if slot.position:
                mark = slot.instrument.mark
                order = self.write_order(slot, RUINED, -slot.position.side, slot.position.lots, mark)
                self.exit(slot, order, RUINED, mark, mark, slot.instrument.row)
        dated = [(number, k) for _, phase, _, number, k, _ in self.events() if phase == PAY]
        later = sorted({(number, k) for number, k, _ in self.receivables} - set(dated))
        for number, k in dated + later:
            self.pay(self.instruments[number], k)
        self.ruin = True

    def call_margin(self) -> None:
        """25 % of longs and 30 % of shorts must be covered, or the largest requirements close at the next open."""
        required: list[tuple[int, Slot]] = []
        for slot in self.slots:
            if slot.position and (not slot.order or slot.order.limit):
                lots = slot.position.side * slot.position.lots
                value = self.value(slot.instrument, slot.instrument.mark, lots)
                required.append((round((0.25 if value > 0 else 0.30) * abs(value)), slot))
        required.sort(key=lambda pair: (-pair[0], pair[1].instrument.number, pair[1].sleeve))
        total = sum(amount for amount, _ in required)
        self.count("margin_call", total > self.worth())
        for amount, slot in required:
            if total <= self.worth():
                return
            assert slot.position
            total -= amount
            self.cancel(slot)
            self.work(slot, FORCED, -slot.position.side, 0, slot.position.lots, [])

    # Phases 7 and 8.

    def work(self, slot: Slot, kind: int, side: int, opens: int, closes: int, levels: list[Frozen]) -> None:
        """Admit an order."""
        order = self.write_order(slot, kind, side, opens + closes, slot.instrument.mark)
        slot.order = Order(order, kind, side, opens, levels, slot.instrument.freeze(0.0))
        own = self.market.calendars[slot.instrument.series.calendar]
        if any(opened < self.now < close for opened, close in zip(own.open_ts, own.close_ts, strict=True)):
            slot.order.sessions = -1  # the one under way does not count
        if kind in (ENTER, REVERSE, ADD):
            slot.order.lasts = slot.rules.ttl
            if slot.rules.limit is not None:
                slot.order.limit = on_grid(float(slot.signals.limit[slot.instrument.row]))
                slot.order.sent_limit = slot.instrument.freeze(slot.order.limit)
                self.orders[order]["limit_price"] = slot.order.limit

    def size(self, slot: Slot, held: int, size: Any = None) -> int:
        """Lots to open, from equity and price at the decision."""
        rules, run, instrument = slot.rules, self.program.run, slot.instrument
        mode, v = (size or rules.size).mode, (size or rules.size).v
        price, many = instrument.mark, float(instrument.series.multiplier)
        kept = (1.0 - run.exec.reserve_pct) * (self.worth() / 1e6)
        weight, among = (rules.alloc, rules.max_positions) if mode == "equal" else (rules.alloc * v, 1)
        if mode == "qty":
            lots = int(Decimal(repr(v)) * 1_000_000) // instrument.lot_micro
        else:
            qty = (v if mode == "notional" else weight * kept / among) / (price * many)
            more, fewer = max(1.0, 1_000_000 / instrument.lot_micro), max(1.0, instrument.lot_micro / 1_000_000)
            lots = max(whole(qty * more / fewer), 0)
        if run.exec.reserve_fees and mode in ("pct_equity", "equal"):

            def is_short(count: int) -> bool:
                cost = price * ((count * instrument.lot_micro) / 1e6) * many
                fee = self.commission(instrument, price, held + count) / 1e6
                return bool(round(cost * 1e6) > round(weight * (kept - fee) / among * 1e6))

            lots = bisect_right(range(1, lots + 1), False, key=is_short)
        self.count("too_small", lots == 0)
        return lots

    def freeze(self, slot: Slot) -> list[Frozen] | None:
        """Levels of an entry, NaN for stops in other units; None if one is unknown, or if its limit is no price."""
        if slot.rules.limit is not None and not on_grid(float(slot.signals.limit[slot.instrument.row])) > 0:
            self.count("limit_unknown")
            return None
        levels = [
            on_grid(float(slot.signals.stop_levels[rule.level][slot.instrument.row]))
            if rule.unit == "level"
            else math.nan
            for rule in inside(slot.rules)
        ]
        unknown = any(math.isnan(x) for x, rule in zip(levels, inside(slot.rules), strict=True) if rule.unit == "level")
        self.count("level_unknown", unknown)
        return None if unknown else [slot.instrument.freeze(level) for level in levels]

    def decide(self) -> None:
        """Sleeve by sleeve: exits and reversals, then entries, each in id order."""
        for w in range(len(self.program.sleeves)):
            slots = [slot for slot in self.slots if slot.sleeve == w and slot.instrument.seen == self.now]
            for slot in slots:
                if slot.position and (not slot.order or slot.order.limit):
                    self.leave(slot, slot.position)
            for slot in slots:
                if slot.position and not slot.order:
                    self.add_more(slot, slot.position)
            self.arrive([slot for slot in slots if not slot.position and not slot.order], w)

    def leave(self, slot: Slot, position: Position) -> None:
        """An opposite entry reverses, unless the same-side entry is true too or a cooldown forbids it."""
        rules, side = slot.rules, position.side
        against = slot.is_true("enter", -side)
        if against and slot.is_true("enter", side):
            self.count("entry_conflict")
            against = False
        against = against and not slot.order  # while an entry works, further ones are ignored
        opens, levels = 0, None
        if against and rules.cooldown_bars == 0:
            levels = self.freeze(slot)
            opens = self.size(slot, position.lots) if levels is not None else 0
        if opens:
            self.work(slot, REVERSE, -side, opens, position.lots, levels or [])
        elif against or slot.is_true("exit", side):
            self.cancel(slot)
            self.work(slot, EXIT, -side, 0, position.lots, [])
        elif any(position.bars >= stop.value for stop in rules.stops if stop.type == "time"):
            self.cancel(slot)
            self.work(slot, TIME, -side, 0, position.lots, [])

    def add_more(self, slot: Slot, position: Position) -> None:
        """An addition to a position that stays."""
        add = slot.rules.add
        if add is not None and slot.signals.add[slot.instrument.row] and position.adds < add.max:
            levels = self.freeze(slot)
            lots = self.size(slot, 0, add.size) if levels is not None else 0
            if lots:
                self.work(slot, ADD, position.side, lots, 0, levels or [])

    def arrive(self, slots: list[Slot], w: int) -> None:
        """Candidates enter if there is room; otherwise the preferred ones, ties to the lower id."""
        rules = self.program.sleeves[w]
        candidates: list[tuple[Slot, list[Frozen]]] = []
        for slot in slots:
            wants = [side for side in (1, -1) if slot.is_true("enter", side)]
            if not wants or slot.instrument.row - slot.exit_row < rules.cooldown_bars:
                continue
            if len(wants) == 2:
                self.count("entry_conflict")
            elif rules.prefer is not None and math.isnan(slot.signals.prefer[slot.instrument.row]):
                self.count("prefer_unknown")
            else:
                levels = self.freeze(slot)
                if levels is not None:
                    candidates.append((slot, levels))
        stays = (None, REVERSE, ADD)  # beside these, what works on a position closes it
        staying = [
            s for s in self.slots if s.sleeve == w and s.position and (s.order.kind if s.order else None) in stays
        ]
        entering = [s for s in self.slots if s.sleeve == w and s.order and s.order.kind == ENTER]
        ranked = list(range(len(candidates)))
        if rules.prefer is not None:
            ranked.sort(key=lambda n: -candidates[n][0].signals.prefer[candidates[n][0].instrument.row])
        room = max(rules.max_positions - len(staying) - len(entering), 0)
        for n in sorted(ranked[:room]):
            slot, levels = candidates[n]
            lots = self.size(slot, 0)
            if lots:
                self.work(slot, ENTER, 1 if slot.is_true("enter", 1) else -1, lots, 0, levels)

    def finish(self) -> None:
        """Working orders lapse; open positions are marked."""
        for slot in self.slots:
            if slot.order:
                self.lapse(slot)
        for slot in self.slots:
            if slot.position:
                mark, p = slot.instrument.mark, slot.position
                pnl = p.pnl + self.value(slot.instrument, mark, p.side * p.lots)
                row = max(slot.instrument.row, p.entry_row)
                self.open_trades.append(self.trade(p, -1, 0, mark, row, pnl))


def whole(x: float) -> int:
    """Floor, unless rounding alone keeps ``x`` below a whole number."""
    return round(x) if round(x) - x <= x * 2.0**-49 else math.floor(x)


def on_grid(x: float) -> float:
    """The decimal that ``x`` stands for: to 12 digits behind the point, fewer for large prices."""
    digits = 12
    while digits and abs(x) * 10.0**digits >= 2**48:
        digits -= 1
    return x if math.isnan(x) or math.isinf(x) else round(x * 10.0**digits) / 10.0**digits


def inside(rules: Any) -> list[Any]:
    """The stops that work inside bars."""
    return [stop for stop in rules.stops if stop.type != "time"]


def stop_price(slot: Slot, position: Position, rule: Any, x: int) -> float:
    """The price at which a stop works now; a trail keeps its distance from the peak."""
    restated = slot.instrument.restated
    if rule.type != "trail":
        return on_grid(restated(position.levels[x]))
    if rule.unit == "pct":
        return on_grid(restated(position.peak) * (1.0 - position.side * rule.value))
    return on_grid(restated(position.peak) - position.side * restated(position.levels[x]))
