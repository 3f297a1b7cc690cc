"""A second reading of domain.md: a spec and plain bars in, fills, cash and equity out, session by session.

Written from the text alone, with no regard for speed and nothing of the farm imported: expressions (``reading.py``) are
evaluated for one bar at a time; orders, positions and cash are plain Python. It knows rules sleeves on daily bars,
whole shares, all accounts, costs, stops, limit entries, additions, splits and dividends; one calendar, and around the
clock an exchange's too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tests.domain.holding import (
    Held,
    Place,
    Price,
    Working,
    decimal,
    exact,
    levels,
    max_positions,
    price_of,
    stops_of,
)
from tests.domain.reading import Expression, World

Frozen = Sequence[Price | None]


@dataclass(eq=False)
class Account:
    """One run: call ``run`` and look at the lists."""

    document: dict[str, Any]
    world: World
    sessions: int
    fills: list[tuple[str, int, int, float]] = field(default_factory=list)
    trades: list[tuple[str, str, int]] = field(default_factory=list)
    equity: list[int] = field(default_factory=list)
    cash: int = 0
    owed: dict[tuple[str, int, int], int] = field(default_factory=dict)
    ruined: bool = False
    met: set[str] = field(default_factory=set)
    session: int = -1
    made: int = 0

    def run(self) -> Account:
        run = self.document["run"]
        self.cash = round(run["cash"] * 1e6)
        self.rules = run.get("account", "cash")
        costs = run.get("costs", {})
        names = ("bps", "per_share", "per_order", "min")
        self.bps, self.per_share, self.per_order, self.least = (costs.get(key, 0) for key in names)
        self.slip = run.get("exec", {}).get("slip_bps", 0) / 1e4
        universe = sorted(self.document["strategy"]["universes"][0]["tickers"])
        self.places = [Place(sleeve, ticker) for sleeve in self.document["strategy"]["sleeves"] for ticker in universe]
        self.seen = {ticker: Expression(self.world, ticker) for ticker in universe}
        self.mark: dict[str, float] = {}
        self.row = {ticker: sum(k < 0 for k in self.world.bars[ticker]) - 1 for ticker in universe}
        inside, others = ([t for t in universe if (t in self.world.own) is own] for own in (True, False))
        for session in range(self.sessions):
            self.session = session
            if not self.ruined:
                self.morning(session, universe)
                self.opening(others)
                self.opening(inside)
                self.closing([t for t in inside if session in self.world.own[t]], is_last=False)
                self.closing(others, is_last=True)
            self.equity.append(self.worth())
        return self

    def restated(self, place: Place) -> Callable[[Price], Fraction]:
        """Prices of its instrument in the shares of now."""
        return lambda price: exact(price.value) / self.world.ratio(place.ticker, price.since, self.session)

    def bar(self, place: Place) -> tuple[float, float, float, float, float] | None:
        """The bar of this session, if it can fill an order."""
        bar = self.world.bars[place.ticker].get(self.session)
        return bar if bar and bar[4] > 0 else None

    # Money.

    def money(self, price: float, shares: int) -> int:
        return round(price * shares * 1e6)

    def fee(self, price: float, shares: int) -> int:
        fee = price * shares * self.bps / 1e4 + shares * self.per_share + self.per_order
        return max(round(fee * 1e6), round(self.least * 1e6))

    def worth(self) -> int:
        held = sum(self.money(self.mark[p.ticker], p.held.side * p.held.shares) for p in self.places if p.held)
        return self.cash + sum(self.owed.values()) + held

    def gross(self) -> int:
        return sum(self.money(self.mark[p.ticker], p.held.shares) for p in self.places if p.held)

    # The open: splits, ex-dates, pay dates; then fills.

    def morning(self, session: int, universe: list[str]) -> None:
        for ticker in universe:
            if session in self.world.splits.get(ticker, {}):
                new, old = self.world.splits[ticker][session]
                for place in (p for p in self.places if p.ticker == ticker):
                    self.split(place, new, old)
                if ticker in self.mark:
                    self.mark[ticker] = self.mark[ticker] * old / new
        for ticker in universe:
            if session in self.world.dividends.get(ticker, {}):
                amount, _ = self.world.dividends[ticker][session]
                for number, place in enumerate(self.places):
                    if place.ticker == ticker and place.held:
                        flow = self.money(amount, place.held.side * place.held.shares)
                        place.held.pnl += flow
                        self.owed[ticker, session, number] = flow
        for key in sorted(self.owed):
            pays = self.world.dividends[key[0]][key[1]][1]
            if session >= (key[1] if pays is None else pays):
                self.cash += self.owed.pop(key)

    def split(self, place: Place, new: int, old: int) -> None:
        held, order = place.held, place.order
        if held:
            held.splits += 1
            self.met |= {"several splits of a holding"} if held.splits == 2 else set()
            price = self.mark[place.ticker] * old / new
            held.shares, rest = divmod(held.shares * new, old)
            flow = held.side * round(price * rest / old * 1e6)
            self.cash += flow
            held.pnl += flow
            if not held.shares:
                self.trades.append((place.ticker, "split", held.pnl))
                place.held, place.out_at = None, self.row[place.ticker] + 1
        if order:
            order.opens = order.opens * new // old
            if not place.held:
                place.leave_alone()
            elif order.kind == "add" and not order.opens:
                place.order = None

    def opening(self, tickers: list[str]) -> None:
        ready = []
        for place in (place for place in self.places if place.ticker in tickers):
            order, bar = place.order, self.bar(place)
            if order and bar:
                order.ref, order.price = bar[0], bar[0]
                if order.limit is None:
                    order.price = bar[0] * (1 + order.side * self.slip)
                elif order.side * bar[0] > order.side * decimal(self.restated(place)(order.limit)):
                    continue
                ready.append(place)
        self.fill(ready, "at the open")

    def inside(self, here: list[Place]) -> None:
        """Entries at limits that the bar goes through, after all else in it; the rest of it may only stop them out."""
        ready: list[tuple[Place, Working]] = []
        for place in here:
            order, bar = place.order, self.bar(place)
            if order and order.limit and bar:
                limit = decimal(self.restated(place)(order.limit))
                if bar[2] < limit if order.side > 0 else bar[1] > limit:
                    order.ref = order.price = limit
                    ready.append((place, order))
        self.fill([place for place, _ in ready], "inside a bar")
        for place, order in ready:
            if place.held and order.kind != "add" and order.got:
                place.held.bars = 1
                self.match(place, ("stop", "trail"), is_entry=True)

    def fill(self, ready: list[Place], where: str) -> None:
        """Fill these orders at their prices: what closes first, then openings, in the order in which they were made."""
        row = {place.ticker: self.row[place.ticker] + (where == "at the open") for place in ready}
        ready.sort(key=lambda place: place.order.number if place.order else 0)
        for place in ready:
            order, held = place.order, place.held
            assert order
            if order.limit:
                self.met |= {f"{order.kind} at a limit {where}"}
                self.met |= {"an order over sessions"} if self.session > order.decided + 1 else set()
            if order.kind not in ("enter", "add"):
                assert held
                self.cash += self.trade(place, -held.side * held.shares, order.price)
                order.closed = held.shares
                if order.kind != "reverse":
                    self.close(place, order.kind, order.price, row[place.ticker], fee=None)
                    place.order = None
        opens = []
        for place in (place for place in ready if place.order):
            mine = [p for p in self.places if p.sleeve is place.sleeve]
            taken = sum(p.held is not None for p in mine) + sum(p.sleeve is place.sleeve and not p.held for p in opens)
            if place.order and place.order.kind == "enter" and taken >= max_positions(place.sleeve, len(mine)):
                place.order = None
            else:
                opens.append(place)
        self.share(opens)
        for place in opens:
            self.admit(place, row[place.ticker])

    def room(self, opens: list[Place]) -> int | float:
        """What the account has for openings, the closings of reversals done."""
        held_back = sum(self.reversing_fee(p) for p in opens)
        gone = {id(p): p.held for p in opens if p.order and p.order.kind == "reverse"}
        for p in opens:
            if id(p) in gone:
                p.held = None
        cash, worth, gross = self.cash - held_back, self.worth() - held_back, self.gross()
        for p in opens:
            if id(p) in gone:
                p.held = gone[id(p)]
        if self.rules == "cash":
            return cash
        if self.rules == "reg_t":
            return worth - 0.5 * gross
        return self.document["run"].get("max_gross", 1) * worth - gross

    def reversing_fee(self, place: Place) -> int:
        order = place.order
        assert order
        return self.fee(order.price, order.closed) if order.kind == "reverse" else 0

    def need(self, place: Place, count: int) -> float:
        if count <= 0:
            return 0
        order = place.order
        assert order
        fee = self.fee(order.price, order.closed + count) - self.reversing_fee(place)
        value = self.money(order.price, count)
        if self.rules == "cash":
            return value + fee
        most = self.document["run"].get("max_gross", 1)
        return 0.5 * value + fee if self.rules == "reg_t" else value + round(most * fee)

    def share(self, opens: list[Place]) -> None:
        """One order takes what fits; several share one factor, then lose a lot each in turn."""
        room = self.room(opens)
        orders = [place.order for place in opens if place.order]
        for order in orders:
            order.got = order.opens
        total = sum(self.need(place, order.got) for place, order in zip(opens, orders, strict=True))
        if total <= room or not orders:
            return
        if len(orders) == 1:
            while orders[0].got and self.need(opens[0], orders[0].got) > room:
                orders[0].got -= 1
            return
        factor = Fraction(max(room, 0)) / Fraction(total)
        for order in orders:
            order.got = math.floor(order.got * factor)
        while any(order.got for order in orders):
            for order in orders:
                if sum(self.need(p, o.got) for p, o in zip(opens, orders, strict=True)) <= room:
                    return
                order.got = max(order.got - 1, 0)

    def admit(self, place: Place, row: int) -> None:
        order, held = place.order, place.held
        assert order
        place.order = None
        count, closed = order.got, order.closed if order.kind == "reverse" else 0
        fee = self.fee(order.price, closed + count) if closed + count else 0
        part = round(fee * closed / (closed + count)) if closed + count else 0
        if closed:
            self.close(place, "reverse", order.price, row, fee=part)
        if not count:
            return
        flow = self.trade(place, order.side * count, order.price) - (fee - part)
        self.cash += flow
        if order.kind == "add":
            assert held
            self.add(place, held, order, flow)
            return
        entry, peak = Price(order.price, self.session), Price(order.ref, self.session)
        place.held = Held(order.side, count, entry, peak, order.decided, flow)
        place.held.levels = levels(place.sleeve, place.held, order.frozen, self.restated(place))

    def add(self, place: Place, held: Held, order: Working, flow: int) -> None:
        """The average entry moves, and what counts from it; the rest stays as the entry has set it."""
        total = self.restated(place)(held.entry) * held.shares + exact(order.price) * order.got
        held.shares += order.got
        held.entry = Price(float(total / held.shares), self.session)
        held.pnl += flow
        held.adds += 1
        self.met |= {"added to twice"} if held.adds == 2 else set()
        kept = held.levels
        held.levels = levels(place.sleeve, held, order.frozen, self.restated(place))
        for n, stop in enumerate(stops_of(place.sleeve)):
            if "r" in stop or ("level" in stop and stop.get("from", "entry") == "entry"):
                held.levels[n] = kept[n]

    def trade(self, place: Place, shares: int, price: float) -> int:
        self.fills.append((place.ticker, self.session, shares, price))
        return -self.money(price, shares)

    def close(self, place: Place, why: str, price: float, row: int, *, fee: int | None) -> None:
        """Write the end of a trade; the cash of the shares has moved already."""
        held = place.held
        assert held
        fee = self.fee(price, held.shares) if fee is None else fee
        self.cash -= fee
        self.trades.append((place.ticker, why, held.pnl + self.money(price, held.side * held.shares) - fee))
        place.held, place.out_at = None, row

    # The close: bars, stops, targets, lapses, ruin, margin, decisions.

    def closing(self, tickers: list[str], *, is_last: bool) -> None:
        """The close of these instruments; ``is_last``: and of the session of the run."""
        here = [p for p in self.places if p.ticker in tickers and self.session in self.world.bars[p.ticker]]
        for ticker in {place.ticker for place in here}:
            self.row[ticker] += 1
        for place in here:
            if place.held:
                place.held.bars += 1
        for kinds in (("stop", "trail"), ("target",)):
            for place in here:
                if place.held and self.bar(place):
                    self.match(place, kinds)
        for place in here:
            held, bar = place.held, self.bar(place)
            if held and bar:
                self.lift(place, held, bar[1] if held.side > 0 else bar[2])
        self.inside(here)
        for place in here:
            self.mark[place.ticker] = self.world.bars[place.ticker][self.session][3]
        for place in self.places:
            if place.ticker in tickers and place.order:
                place.order.left -= 1
                place.order = place.order if place.order.left else None
        if is_last and self.worth() <= 0:
            self.ruin()
            return
        if is_last and self.rules == "reg_t":
            self.margin()
        for sleeve in self.document["strategy"]["sleeves"]:
            self.decide(sleeve, [p for p in here if p.sleeve is sleeve])

    def lift(self, place: Place, held: Held, price: float) -> None:
        if held.side * exact(price) > held.side * self.restated(place)(held.peak):
            held.peak = Price(price, self.session)

    def match(self, place: Place, kinds: tuple[str, ...], *, is_entry: bool = False) -> None:
        """Test stops or targets in a bar; ``is_entry``: in one that was entered inside, whose open is behind."""
        held, bar = place.held, self.bar(place)
        assert held
        assert bar
        opened, high, low, _, _ = bar
        side = held.side
        if not is_entry:
            self.lift(place, held, opened)
        best: tuple[float, str] | None = None
        for stop, frozen in zip(stops_of(place.sleeve), held.levels, strict=True):
            if stop["type"] in kinds:
                level = price_of(stop, frozen, held, self.restated(place))
                toward = side if kinds == ("stop", "trail") else -side
                if best is None or toward * level > toward * best[0]:
                    best = (level, stop["type"])
        if best is None:
            return
        level, why = best
        if kinds == ("target",):
            met = high > level if side > 0 else low < level
            gap = opened >= level if side > 0 else opened <= level
        else:
            met = low <= level if side > 0 else high >= level
            gap = opened <= level if side > 0 else opened >= level
        if met or (gap and not is_entry):
            price = opened if gap and not is_entry else level
            price = price if why == "target" else price * (1 - side * self.slip)
            self.cash += self.trade(place, -side * held.shares, price)
            self.close(place, why, price, self.row[place.ticker], fee=None)
            place.leave_alone()
            self.met |= {f"a {why} in the bar of the limit"} if is_entry else set()

    def ruin(self) -> None:
        self.ruined = True
        for place in self.places:
            if place.held:
                price = self.mark[place.ticker]
                self.cash += self.trade(place, -place.held.side * place.held.shares, price)
                self.close(place, "ruined", price, 0, fee=0)
        self.cash += sum(self.owed.values())
        self.owed.clear()

    def margin(self) -> None:
        needs = []
        for n, place in enumerate(self.places):
            if place.held and (not place.order or place.order.limit):
                value = self.money(self.mark[place.ticker], place.held.shares)
                needs.append((-round((0.25 if place.held.side > 0 else 0.3) * value), place.ticker, n, place))
        total = -sum(need[0] for need in needs)
        for amount, _, _, place in sorted(needs, key=lambda need: need[:3]):
            if total > self.worth():
                total += amount
                self.send(place, "forced", -place.held.side, 0)

    def is_true(self, place: Place, what: str, side: int) -> bool:
        sleeve = place.sleeve
        if sleeve["side"] == "both":
            what += "_short" if side < 0 else ""
        elif (sleeve["side"] == "long") != (side > 0):
            return False
        return self.seen[place.ticker].truth(sleeve.get(what, False), self.row[place.ticker]) is True

    def decide(self, sleeve: dict[str, Any], here: list[Place]) -> None:
        for place in here:
            if place.held and (not place.order or place.order.limit):
                self.leave(place)
        for place in here:
            if place.held and not place.order:
                self.add_more(place, place.held)
        wants: list[tuple[Any, Place, int, Frozen]] = []
        for place in here:
            entry = [side for side in (1, -1) if self.is_true(place, "enter", side)]
            waited = self.row[place.ticker] - place.out_at >= sleeve.get("cooldown_bars", 0)
            if place.held or place.order or len(entry) != 1 or not waited:
                continue
            value: Any = 0
            if "prefer" in sleeve:
                row = self.row[place.ticker]
                value = self.seen[place.ticker].number(sleeve["prefer"], row, row)
            frozen = self.frozen(place)
            if value is not None and frozen is not None:
                wants.append((-value, place, entry[0], frozen))
        mine = [p for p in self.places if p.sleeve is sleeve]
        taken = sum(
            (p.held is not None and (p.order is None or p.order.kind in ("reverse", "add")))
            or (p.held is None and p.order is not None)
            for p in mine
        )
        room = max(max_positions(sleeve, len(mine)) - taken, 0)
        chosen = sorted(wants, key=lambda want: (want[0], want[1].ticker))[:room]
        for _, place, side, frozen in sorted(chosen, key=lambda want: want[1].ticker):
            count = self.size(place, 0)
            if count:
                self.send(place, "enter", side, count, frozen)

    def leave(self, place: Place) -> None:
        held, sleeve, waits = place.held, place.sleeve, place.order is not None
        assert held
        against = self.is_true(place, "enter", -held.side) and not self.is_true(place, "enter", held.side) and not waits
        if against and not sleeve.get("cooldown_bars", 0):
            frozen = self.frozen(place)
            count = self.size(place, held.shares) if frozen is not None else 0
            if frozen is not None and count:
                self.send(place, "reverse", -held.side, count, frozen)
                return
        is_timed = any(held.bars >= stop["bars"] for stop in sleeve.get("stops", []) if stop["type"] == "time")
        is_exit = against or self.is_true(place, "exit", held.side)
        if is_exit or is_timed:
            self.met |= {"an exit takes the place of an order"} if waits else set()
            self.send(place, "exit" if is_exit else "time", -held.side, 0)

    def add_more(self, place: Place, held: Held) -> None:
        add, row = place.sleeve.get("add"), self.row[place.ticker]
        if add and held.adds < add["max"] and self.seen[place.ticker].truth(add["when"], row) is True:
            frozen = self.frozen(place)
            count = self.size(place, 0, add.get("size")) if frozen is not None else 0
            if count:
                self.send(place, "add", held.side, count, frozen)

    def send(self, place: Place, kind: str, side: int, opens: int, frozen: Frozen | None = None) -> None:
        self.made += 1
        place.order = Working(kind, side, opens, self.session, self.made)
        if frozen:
            *place.order.frozen, place.order.limit = frozen
            place.order.left = int(place.sleeve.get("order", {}).get("ttl", "1d")[:-1])

    def frozen(self, place: Place) -> Frozen | None:
        """Levels given as expressions, and the limit last, at the decision; None if one is unknown."""
        row, found = self.row[place.ticker], []
        order = place.sleeve.get("order", {})
        for what in (*(stop.get("level") for stop in stops_of(place.sleeve)), order.get("limit")):
            price = None if what is None else self.seen[place.ticker].number(what, row, row)
            if what is not None and price is None:
                return None
            found.append(None if price is None else Price(decimal(price), self.session))
        return None if found[-1] and not found[-1].value > 0 else found

    def size(self, place: Place, held: int, size: dict[str, Any] | None = None) -> int:
        sleeve = place.sleeve
        size = size or sleeve["size"]
        price = self.mark[place.ticker]
        if size["mode"] == "qty":
            return int(size["v"])
        if size["mode"] == "notional":
            return math.floor(exact(size["v"]) / exact(price))
        alloc = exact(sleeve["alloc"]) if "alloc" in sleeve else Fraction(1, len(self.document["strategy"]["sleeves"]))
        mine = sum(p.sleeve is sleeve for p in self.places)
        share = exact(size["v"]) if size["mode"] == "pct_equity" else Fraction(1, max_positions(sleeve, mine))
        reserve = self.document["run"].get("exec", {}).get("reserve", {})
        kept = (1 - exact(reserve.get("pct", 0))) * Fraction(self.worth(), 10**6)
        count = max(math.floor(alloc * share * kept / exact(price)), 0)
        if reserve.get("fees"):
            while count and count * exact(price) > alloc * share * (
                kept - Fraction(self.fee(price, held + count), 10**6)
            ):
                count -= 1
        return count
