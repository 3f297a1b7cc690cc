"""A second reading of domain.md: a spec and plain bars in, fills, cash and equity out, session by session.

Written from the text alone, with no regard for speed and nothing of the farm imported: expressions (``reading.py``) are
evaluated for one bar at a time; orders, positions and cash are plain Python. It knows rules sleeves on daily bars,
whole shares, all accounts, costs, stops, splits and dividends; one calendar, and around the clock an exchange's too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tests.domain.holding import Held, Place, Working, decimal, exact, levels, max_positions, stops_of
from tests.domain.reading import Expression, World


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

    def run(self) -> Account:
        run = self.document["run"]
        self.cash = round(run["cash"] * 1e6)
        self.rules = run.get("account", "cash")
        costs = run.get("costs", {})
        names = ("bps", "per_share", "per_order", "min")
        self.bps, self.per_share, self.per_order, self.least = (costs.get(key, 0) for key in names)
        self.slip = run.get("exec", {}).get("slip_bps", 0) / 1e4
        universe = sorted(self.document["strategy"]["universes"][0]["tickers"])
        sleeves = self.document["strategy"]["sleeves"]
        self.places = [Place(sleeve, ticker) for sleeve in sleeves for ticker in universe]
        self.seen = {ticker: Expression(self.world, ticker) for ticker in universe}
        self.mark: dict[str, float] = {}
        self.row = {ticker: sum(k < 0 for k in self.world.bars[ticker]) - 1 for ticker in universe}
        inside, others = ([t for t in universe if (t in self.world.own) is own] for own in (True, False))
        for session in range(self.sessions):
            if not self.ruined:
                self.morning(session, universe)
                self.opening(session, others)
                self.opening(session, inside)
                self.closing(session, [t for t in inside if session in self.world.own[t]], is_last=False)
                self.closing(session, others, is_last=True)
            self.equity.append(self.worth())
        return self

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
            price = self.mark[place.ticker] * old / new
            held.levels = [
                x if x is None or (stop["type"] == "trail" and "pct" in stop) else decimal(exact(x) * old / new)
                for x, stop in zip(held.levels, stops_of(place.sleeve), strict=True)
            ]
            held.peak = held.peak * old / new
            held.shares, rest = divmod(held.shares * new, old)
            flow = held.side * round(price * rest / old * 1e6)
            self.cash += flow
            held.pnl += flow
            if not held.shares:
                self.trades.append((place.ticker, "split", held.pnl))
                place.held, place.out_at = None, self.row[place.ticker] + 1
        if order:
            order.opens = order.opens * new // old
            order.frozen = [None if x is None else decimal(exact(x) * old / new) for x in order.frozen]
            if not place.held:
                order.kind = "enter" if order.kind == "reverse" else order.kind
                if order.kind != "enter" or not order.opens:
                    place.order = None

    def opening(self, session: int, tickers: list[str]) -> None:
        ready = []
        for place in (place for place in self.places if place.ticker in tickers):
            bar = self.world.bars[place.ticker].get(session)
            if place.order and bar and bar[4] > 0:
                place.order.price = bar[0] * (1 + place.order.side * self.slip)
                ready.append((place, bar[0]))
        opens = []
        for place, _ in ready:
            order = place.order
            if order.kind != "enter":
                assert place.held
                self.cash += self.trade(place, session, -place.held.side * place.held.shares, order.price)
                order.closed = place.held.shares
                if order.kind != "reverse":
                    self.close(place, order.kind, order.price, self.row[place.ticker] + 1, fee=None)
                    place.order = None
        for sleeve in self.document["strategy"]["sleeves"]:
            mine = [p for p in self.places if p.sleeve is sleeve]
            taken = sum(p.held is not None for p in mine)
            for place, ref in ready:
                if place.sleeve is sleeve and place.order:
                    if place.order.kind == "enter":
                        if taken >= max_positions(sleeve, len(mine)):
                            place.order = None
                            continue
                        taken += 1
                    opens.append((place, ref))
        opens.sort(key=lambda pair: pair[0].order is not None and pair[0].order.kind != "reverse")
        self.share([place for place, _ in opens])
        for place, ref in opens:
            self.admit(place, ref, session)

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

    def admit(self, place: Place, ref: float, session: int) -> None:
        order, held = place.order, place.held
        assert order
        place.order = None
        count, closed = order.got, order.closed if order.kind == "reverse" else 0
        fee = self.fee(order.price, closed + count) if closed + count else 0
        part = round(fee * closed / (closed + count)) if closed + count else 0
        if closed:
            assert held
            self.close(place, "reverse", order.price, self.row[place.ticker] + 1, fee=part)
        if count:
            flow = self.trade(place, session, order.side * count, order.price)
            self.cash += flow - (fee - part)
            new = Held(order.side, count, order.price, ref, [], session, flow - (fee - part))
            place.held = new
            shares = self.world.ratio(place.ticker, order.decided, session)
            new.levels = levels(place.sleeve, new, order.frozen, shares)

    def trade(self, place: Place, session: int, shares: int, price: float) -> int:
        self.fills.append((place.ticker, session, shares, price))
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

    def closing(self, session: int, tickers: list[str], *, is_last: bool) -> None:
        """The close of these instruments; ``is_last``: and of the session of the run."""
        for ticker in tickers:
            if session in self.world.bars[ticker]:
                self.mark[ticker] = self.world.bars[ticker][session][3]
                self.row[ticker] += 1
        here = [p for p in self.places if p.ticker in tickers and session in self.world.bars[p.ticker]]
        for place in here:
            if place.held:
                place.held.bars += 1
        for kinds in (("stop", "trail"), ("target",)):
            for place in here:
                if place.held and self.world.bars[place.ticker][session][4] > 0:
                    self.match(place, session, kinds)
        for place in here:
            if place.held and self.world.bars[place.ticker][session][4] > 0:
                _, high, low, _, _ = self.world.bars[place.ticker][session]
                place.held.peak = max(place.held.peak, high) if place.held.side > 0 else min(place.held.peak, low)
        for place in self.places:
            place.order = None if place.ticker in tickers else place.order
        if is_last and self.worth() <= 0:
            self.ruin(session)
            return
        if is_last and self.rules == "reg_t":
            self.margin()
        for sleeve in self.document["strategy"]["sleeves"]:
            self.decide(sleeve, [p for p in here if p.sleeve is sleeve])
        for place in here:
            if place.order:
                place.order.decided = session

    def match(self, place: Place, session: int, kinds: tuple[str, ...]) -> None:
        held = place.held
        assert held
        opened, high, low, _, _ = self.world.bars[place.ticker][session]
        side = held.side
        held.peak = max(held.peak, opened) if side > 0 else min(held.peak, opened)
        best: tuple[float, str] | None = None
        for stop, level in zip(stops_of(place.sleeve), held.levels, strict=True):
            if stop["type"] not in kinds or level is None:
                continue
            if stop["type"] == "trail":
                peak, kept = exact(held.peak), side * exact(level)
                level = decimal(peak * (1 - kept) if "pct" in stop else peak - kept)
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
        if met or gap:
            price = opened if gap else level
            price = price if why == "target" else price * (1 - side * self.slip)
            self.cash += self.trade(place, session, -side * held.shares, price)
            self.close(place, why, price, self.row[place.ticker], fee=None)

    def ruin(self, session: int) -> None:
        self.ruined = True
        for place in self.places:
            if place.held:
                price = self.mark[place.ticker]
                self.cash += self.trade(place, session, -place.held.side * place.held.shares, price)
                self.close(place, "ruined", price, 0, fee=0)
        self.cash += sum(self.owed.values())
        self.owed.clear()

    def margin(self) -> None:
        needs = []
        for n, place in enumerate(self.places):
            if place.held and not place.order:
                value = self.money(self.mark[place.ticker], place.held.shares)
                needs.append((-round((0.25 if place.held.side > 0 else 0.3) * value), place.ticker, n, place))
        total = -sum(need[0] for need in needs)
        for amount, _, _, place in sorted(needs, key=lambda need: need[:3]):
            if total > self.worth():
                total += amount
                place.order = Working("forced", -place.held.side, 0, [])

    def is_true(self, place: Place, what: str, side: int) -> bool:
        sleeve = place.sleeve
        if sleeve["side"] == "both":
            what += "_short" if side < 0 else ""
        elif (sleeve["side"] == "long") != (side > 0):
            return False
        return self.seen[place.ticker].truth(sleeve.get(what, False), self.row[place.ticker]) is True

    def decide(self, sleeve: dict[str, Any], here: list[Place]) -> None:
        for place in here:
            if place.held and not place.order:
                self.leave(place)
        wants: list[tuple[Any, Place, int, list[float | None]]] = []
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
            (p.held is not None and (p.order is None or p.order.kind == "reverse"))
            or (p.held is None and p.order is not None)
            for p in mine
        )
        room = max(max_positions(sleeve, len(mine)) - taken, 0)
        chosen = sorted(wants, key=lambda want: (want[0], want[1].ticker))[:room]
        for _, place, side, frozen in sorted(chosen, key=lambda want: want[1].ticker):
            count = self.size(place, 0)
            if count:
                place.order = Working("enter", side, count, frozen)

    def leave(self, place: Place) -> None:
        held, sleeve = place.held, place.sleeve
        assert held
        against = self.is_true(place, "enter", -held.side) and not self.is_true(place, "enter", held.side)
        if against and not sleeve.get("cooldown_bars", 0):
            frozen = self.frozen(place)
            count = self.size(place, held.shares) if frozen is not None else 0
            if frozen is not None and count:
                place.order = Working("reverse", -held.side, count, frozen)
                return
        timed = [stop["bars"] for stop in sleeve.get("stops", []) if stop["type"] == "time"]
        if against or self.is_true(place, "exit", held.side):
            place.order = Working("exit", -held.side, 0, [])
        elif timed and held.bars >= min(timed):
            place.order = Working("time", -held.side, 0, [])

    def frozen(self, place: Place) -> list[float | None] | None:
        """Levels given as expressions, at the decision; None if one is unknown."""
        row, found = self.row[place.ticker], []
        for stop in stops_of(place.sleeve):
            level = self.seen[place.ticker].number(stop["level"], row, row) if "level" in stop else None
            if "level" in stop and level is None:
                return None
            found.append(None if level is None else decimal(level))
        return found

    def size(self, place: Place, held: int) -> int:
        size, sleeve = place.sleeve["size"], place.sleeve
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
