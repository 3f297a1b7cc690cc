"""Whole runs against a second reading of domain.md (``oracle.py``): random worlds and specs, the public path."""

from __future__ import annotations

import datetime
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from farm.store.base import Store
from tests.domain import support
from tests.domain.oracle import Account
from tests.domain.reading import World
from tests.effort import effort

HISTORY, SESSIONS = 40, 45
TICKERS = ("AAA", "BBB", "CCC")
FIRST = (((2, 1), (3, 2), (1, 3), (1, 10), (1, 200), (1, 200), (5, 4)),)
LATER = ((3, 1), (1, 3), (2, 1), (2, 3))
"""Ratios of splits."""
EPOCH = datetime.date(1970, 1, 1)


def sessions_of(calendar: str, dates: dict[int, datetime.date]) -> frozenset[int]:
    """The numbers of the days on which a calendar has a session."""
    days = set(support.calendar(calendar).day.tolist())
    return frozenset(k for k, date in dates.items() if (date - EPOCH).days in days)


class Maker:
    """Draws a world and a spec from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.calendar = "24x7" if seed % 5 in (0, 1) else "XNYS"
        self.own = {"CCC": "XNYS"} if seed % 5 == 1 else {}
        self.is_bold = seed % 5 == 2  # all on credit and nothing stopped: margin calls and ruin

    def day(self, session: int) -> str:
        return support.day(session, calendar_name=self.calendar)

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def one(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def session(self, own: frozenset[int] | None, first: int, last: int) -> int:
        at = int(self.random.integers(first, last))
        return at if own is None else max(k for k in own if k <= at)

    def bars(self) -> dict[int, tuple[float, ...]]:
        wild = 0.2 if self.is_bold else self.one(0.01, 0.03, 0.12)
        price, found = float(self.random.uniform(5, 120)), {}
        first = self.one(-HISTORY, -HISTORY, -HISTORY, -5, 3)
        gaps, dry = self.one(0, 0, 0.1), self.one(0, 0, 0.1)
        step = self.one(0.01, 0.2)
        opens: list[float] = []
        for session in range(first, SESSIONS):
            opened = max(price * (1 + self.random.normal(0, wild)), 0.5)
            price = max(opened * (1 + self.random.normal(0, wild)), 0.5)
            high = max(opened, price) * (1 + abs(self.random.normal(0, wild / 2)))
            low = min(opened, price) * (1 - min(abs(self.random.normal(0, wild / 2)), 0.4))
            prices = [max(round(round(x / step) * step, 2), 0.6) for x in (opened, high, low, price)]
            if step == 0.2:  # 5 and 10 percent of that are whole cents: levels that a stop may have are touched
                before = Fraction(repr(self.one(prices[0], *opens)))
                away = Fraction(self.one(5, 10), 100)
                prices[1] = max(prices[1], float(before * (1 + away))) if self.chance(0.2) else prices[1]
                prices[2] = min(prices[2], float(before * (1 - away))) if self.chance(0.2) else prices[2]
                opens = [*opens[-2:], prices[0]]
            if not self.chance(gaps):
                found[session] = (*prices, 0.0 if self.chance(dry) else float(self.random.integers(100, 900)))
        return found

    def world(self) -> World:
        date = {k: support.date(self.day(k)) for k in range(-HISTORY, SESSIONS)}
        own = {ticker: sessions_of(name, date) for ticker, name in self.own.items()}
        bars = {ticker: self.bars() for ticker in TICKERS}
        for ticker, days in own.items():
            bars[ticker] = {k: bar for k, bar in bars[ticker].items() if k in days}
        splits: dict[str, dict[int, tuple[int, int]]] = {}
        dividends: dict[str, dict[int, tuple[float, int | None]]] = {}
        for ticker in TICKERS:
            if self.chance(0.5):
                at, splits[ticker] = -10, {}
                for ratios in self.one(FIRST, FIRST, (*FIRST, LATER, LATER)):
                    at, (new, old) = self.session(own.get(ticker), at, SESSIONS), self.one(*ratios)
                    if at not in splits[ticker]:
                        splits[ticker][at] = new, old
                        bars[ticker] = {
                            k: (*(max(round(x * old / new, 2), 0.01) for x in bar[:4]), bar[4]) if k >= at else bar
                            for k, bar in bars[ticker].items()
                        }  # type: ignore[misc]
            if self.chance(0.5):
                at = self.session(own.get(ticker), 0, SESSIONS - 1)
                pays = self.one(None, at, at + 3, at + 100)
                most = min(0.4, *(bar[3] / 2 for bar in bars[ticker].values()))
                dividends[ticker] = {at: (round(float(self.random.uniform(0.01, 0.4)) * most / 0.4, 5), pays)}
        weekday = {k: one.isoweekday() for k, one in date.items()}
        return World(bars, splits, dividends, weekday, own)  # type: ignore[arg-type]

    def number(self) -> Any:
        n = int(self.random.integers(2, 9))
        return self.one("close", "close", "open", "high", {"i": "sma", "n": n}, {"i": "ema", "n": n},
                        {"i": "max", "n": n, "of": "high"}, {"i": "min", "n": n, "of": "low"},
                        {"op": "lag", "a": ["close"], "n": n}, {"op": "mul", "a": [{"i": "sma", "n": n}, 1.01]},
                        {"op": "sub", "a": ["close", {"i": "stddev", "n": n + 1}]})  # fmt: skip

    def truth(self, depth: int = 2) -> Any:
        n = int(self.random.integers(2, 7))
        if depth == 0 or self.chance(0.4):
            ratio = self.one({"i": "rsi", "n": n}, {"i": "roc", "n": n})
            return self.one(
                {self.one("gt", "lt", "ge", "le", "cross_up", "cross_dn"): [self.number(), self.number()]},
                {self.one("gt", "lt"): [ratio, self.one(-3.5, 1.25, 45.5, 55.5)]},
                {"lt": ["close_raw", self.one(10, 40, 80)]},
                {"gt": ["volume", {"i": "sma", "n": n, "of": "volume"}]},
                {"dow": [1, 3]},
            )
        inner = self.truth(depth - 1)
        return self.one({"all": [inner, self.truth(depth - 1)]}, {"any": [inner, self.truth(depth - 1)]},
                        {"not": inner}, {"for": [2, inner]}, {"within": [3, inner]})  # fmt: skip

    def stops(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if self.chance(0.5):
            found.append(self.one({"type": "stop", "pct": self.one(0.05, 0.1)}, {"type": "stop", "abs": 1.5},
                                  {"type": "stop", "level": {"i": "min", "n": 3, "of": "low"},
                                   "from": self.one("entry", "last_fill")}))  # fmt: skip
            if self.chance(0.4):
                found.append({"type": "target", "r": self.one(1, 2.5)})
        if self.chance(0.3):
            found.append(self.one({"type": "trail", "pct": self.one(0.05, 0.2)}, {"type": "trail", "abs": 2.25}))
        if self.chance(0.3):
            found.append(self.one({"type": "target", "pct": self.one(0.04, 0.1)}, {"type": "target", "abs": 1.75}))
        if self.chance(0.3):
            found.append({"type": "time", "bars": int(self.random.integers(1, 6))})
        return found

    def order(self) -> dict[str, Any]:
        """Near the close, mostly on the side on which an entry waits."""
        by = self.one(0.98, 0.99, 0.995, 1.005, 1.01)
        limit = self.one({"op": "mul", "a": ["close", by]}, {"op": "mul", "a": ["close", by]},
                         {"op": "sub", "a": ["close", self.one(0.35, -0.35)]}, {"i": "sma", "n": 4})  # fmt: skip
        return {"type": "limit", "limit": limit, "ttl": self.one("1d", "2d", "5d")}

    def add(self) -> dict[str, Any]:
        made: dict[str, Any] = {"max": self.one(1, 3), "when": self.truth()}
        if self.chance(0.7):
            made["size"] = self.one({"mode": "qty", "v": 5}, {"mode": "notional", "v": 900},
                                    {"mode": "pct_equity", "v": 0.2}, {"mode": "equal"})  # fmt: skip
        return made

    def spec(self) -> dict[str, Any]:
        account = self.one(*(() if self.is_bold else ("cash",)), "reg_t", "linear")
        sides = ("long",) if account == "cash" else ("long", "short", "both", "both")
        gross = self.one(0.8, 3)
        most = {"cash": 1.0, "reg_t": 2.0, "linear": gross}[account]
        sleeves = []
        for name in ("s", "t")[: self.one(1, 1, 2)]:
            side = self.one(*sides)
            size = self.one({"mode": "qty", "v": self.one(7, 400)}, {"mode": "notional", "v": 4321},
                            {"mode": "pct_equity", "v": self.one(0.3, most)}, {"mode": "equal"})  # fmt: skip
            size = {"mode": "pct_equity", "v": most} if self.is_bold else size
            made = support.sleeve(id=name, side=side, enter=self.truth(), size=size)
            made["stops"] = [] if self.is_bold else self.stops()
            if self.chance(0.7):
                made["exit"] = self.truth()
            if self.chance(0.8 if side == "both" else 0.4):
                made["order"] = self.order()
            if self.chance(0.4):
                made["add"] = self.add()
            if side == "both":
                made |= {"enter_short": self.truth(), "exit_short": self.truth()}
            if self.chance(0.4):
                made["cooldown_bars"] = self.one(0, 1, 3)
            if self.chance(0.5):
                made |= {"max_positions": self.one(1, 2), "prefer": {"i": "roc", "n": 3}}
            sleeves.append(made)
        run: dict[str, Any] = {"account": account, "cash": self.one(3_000, 25_000.5), "calendar": self.calendar}
        run["costs"] = {"bps": self.one(0, 7.5), "per_share": self.one(0, 0.005), "min": self.one(0, 1)}
        run["costs"]["per_order"] = self.one(0, 0, 4.95)
        run["exec"] = {"slip_bps": self.one(0, 3)}
        if self.chance(0.3):
            run["exec"]["reserve"] = {"pct": self.one(0, 0.05), "fees": self.one(True, False)}
        if account == "linear":
            run["max_gross"] = gross
        return support.spec(TICKERS, *sleeves, sessions=SESSIONS, **run)


def stored(world: World, make: Maker) -> Store:
    """The world in a store."""
    splits = [(t, make.day(k), f"{new}:{old}") for t, all_ in world.splits.items() for k, (new, old) in all_.items()]
    dividends = [
        (t, make.day(k), amount, None if pays is None else make.day(pays))
        for t, all_ in world.dividends.items()
        for k, (amount, pays) in all_.items()
    ]
    bars = {t: [rows.get(k) for k in range(-HISTORY, SESSIONS)] for t, rows in world.bars.items()}
    masters = [{"symbol": ticker, "calendar": make.own.get(ticker, make.calendar)} for ticker in TICKERS]
    return support.world(
        bars, start=make.day(-HISTORY), calendar_name=make.calendar, splits=splits, dividends=dividends,
        instruments=masters,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(effort(90)))
def test_the_farm_does_what_the_text_says(seed: int) -> None:
    make = Maker(seed)
    world, document = make.world(), make.spec()
    played = support.play(document, stored(world, make))
    account = Account(document, world, SESSIONS).run()
    fills = sorted((t, k, n, round(price, 6)) for t, k, n, price in played.fills)
    assert fills == sorted((t, k, n, round(price, 6)) for t, k, n, price in account.fills)
    pnl = sorted(played.run.trades["pnl_micro"].tolist())
    assert pnl == pytest.approx(sorted(trade[2] for trade in account.trades), abs=3)
    assert played.run.equity.tolist() == pytest.approx(account.equity, abs=20)
    assert sorted(kind.name.lower() for kind in played.exits) == sorted(trade[1] for trade in account.trades)
    assert played.run.ruin == account.ruined
    assert ("no_splits" in played.run.assumptions) == (not world.splits)
    assert ("no_dividends" in played.run.assumptions) == (not world.dividends)


@pytest.mark.slow
def test_the_worlds_are_worth_it() -> None:
    """Every way to end a trade, every cost, price level and calendar with a rule of its own is in several of them."""
    found: Counter[str] = Counter()
    for seed in range(90):
        make = Maker(seed)
        world, document = make.world(), make.spec()
        account = Account(document, world, SESSIONS).run()
        run, sides = document["run"], {sleeve["side"] for sleeve in document["strategy"]["sleeves"]}
        seen = {f"ends by {why}" for _, why, _ in account.trades} | {f"account {run['account']}"}
        if account.trades:
            seen |= {name for name, cost in run["costs"].items() if cost} | {f"side {side}" for side in sides}
            seen |= {"slip_bps"} if run["exec"]["slip_bps"] else set()
            seen |= {"two sleeves"} if len(document["strategy"]["sleeves"]) > 1 else set()
        seen |= {"no splits"} if not world.splits else set()
        seen |= {"no dividends"} if not world.dividends else set()
        seen |= {"ruin"} if account.ruined else set()
        seen |= account.met
        for ticker, session, _, price in account.fills:
            opened, high, low, *_ = world.bars[ticker][session]
            seen |= {"touched at its level"} if price in (low, high) and price != opened else set()
            if ticker in world.own:
                seen |= {"an exchange in a run around the clock"}
                # Decided on Friday: it has no bar between.
                seen |= {"an order over the weekend"} if world.weekday[session] == 1 and price == opened else set()
        found.update(seen)
    kinds = ("exit", "reverse", "time", "forced", "stop", "trail", "target", "split", "ruined")
    expected = {
        *(f"ends by {kind}" for kind in kinds), *(f"account {account}" for account in ("cash", "reg_t", "linear")),
        *(f"side {side}" for side in ("long", "short", "both")), "bps", "per_share", "per_order", "min", "slip_bps",
        "two sleeves", "no splits", "no dividends", "ruin", "touched at its level",
        "an exchange in a run around the clock", "an order over the weekend",
        *(f"{kind} at a limit at the open" for kind in ("enter", "reverse", "add")),
        *(f"{kind} at a limit inside a bar" for kind in ("enter", "reverse", "add")),
        "an order over sessions", "an exit takes the place of an order", "a stop in the bar of the limit",
        "a trail in the bar of the limit", "added to twice", "several splits of a holding",
    }  # fmt: skip
    assert set(found) == expected
    assert {name: count for name, count in found.items() if count < 2} == {}
