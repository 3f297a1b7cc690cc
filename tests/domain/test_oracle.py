"""Whole runs against a second reading of domain.md (``oracle.py``): random worlds and specs, the public path."""

from __future__ import annotations

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


class Maker:
    """Draws a world and a spec from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.calendar = "24x7" if seed % 5 == 0 else "XNYS"

    def day(self, session: int) -> str:
        return support.day(session, calendar_name=self.calendar)

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def one(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def bars(self) -> dict[int, tuple[float, ...]]:
        wild = self.one(0.01, 0.03, 0.12)
        price, found = float(self.random.uniform(5, 120)), {}
        first = self.one(-HISTORY, -HISTORY, -HISTORY, -5, 3)
        gaps, dry = self.one(0, 0, 0.1), self.one(0, 0, 0.1)
        digits = self.one(2, 2, 0)  # where prices are whole numbers, levels are often touched exactly
        for session in range(first, SESSIONS):
            opened = max(price * (1 + self.random.normal(0, wild)), 0.5)
            price = max(opened * (1 + self.random.normal(0, wild)), 0.5)
            high = max(opened, price) * (1 + abs(self.random.normal(0, wild / 2)))
            low = min(opened, price) * (1 - min(abs(self.random.normal(0, wild / 2)), 0.4))
            prices = [max(round(x, digits), 0.5) for x in (opened, high, low, price)]
            if not self.chance(gaps):
                found[session] = (*prices, 0.0 if self.chance(dry) else float(self.random.integers(100, 900)))
        return found

    def world(self) -> World:
        bars = {ticker: self.bars() for ticker in TICKERS}
        splits: dict[str, dict[int, tuple[int, int]]] = {}
        dividends: dict[str, dict[int, tuple[float, int | None]]] = {}
        for ticker in TICKERS:
            if self.chance(0.5):
                at = int(self.random.integers(-10, SESSIONS))
                ratio = self.one((2, 1), (3, 2), (1, 3), (1, 10), (5, 4))
                splits[ticker] = {at: ratio}
                bars[ticker] = {
                    k: (*(max(round(x * ratio[1] / ratio[0], 2), 0.01) for x in bar[:4]), bar[4]) if k >= at else bar
                    for k, bar in bars[ticker].items()
                }  # type: ignore[misc]
            if self.chance(0.5):
                at = int(self.random.integers(0, SESSIONS - 1))
                pays = self.one(None, at, at + 3, at + 100)
                dividends[ticker] = {at: (round(float(self.random.uniform(0.01, 0.4)), 3), pays)}
        weekday = {k: support.date(self.day(k)).isoweekday() for k in range(-HISTORY, SESSIONS)}
        return World(bars, splits, dividends, weekday)  # type: ignore[arg-type]

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
            found.append(self.one({"type": "stop", "pct": self.one(0.03, 0.1)}, {"type": "stop", "abs": 1.5},
                                  {"type": "stop", "level": {"i": "min", "n": 3, "of": "low"}}))  # fmt: skip
            if self.chance(0.4):
                found.append({"type": "target", "r": self.one(1, 2.5)})
        if self.chance(0.3):
            found.append(self.one({"type": "trail", "pct": self.one(0.05, 0.2)}, {"type": "trail", "abs": 2.25}))
        if self.chance(0.3):
            found.append(self.one({"type": "target", "pct": self.one(0.04, 0.1)}, {"type": "target", "abs": 1.75}))
        if self.chance(0.3):
            found.append({"type": "time", "bars": int(self.random.integers(1, 6))})
        return found

    def spec(self) -> dict[str, Any]:
        account = self.one("cash", "reg_t", "linear")
        sides = ("long",) if account == "cash" else ("long", "short", "both")
        sleeves = []
        for name in ("s", "t")[: self.one(1, 1, 2)]:
            side = self.one(*sides)
            size = self.one({"mode": "qty", "v": self.one(7, 400)}, {"mode": "notional", "v": 4321},
                            {"mode": "pct_equity", "v": self.one(0.3, 1.0)}, {"mode": "equal"})  # fmt: skip
            made = support.sleeve(id=name, side=side, enter=self.truth(), size=size, stops=self.stops())
            if self.chance(0.7):
                made["exit"] = self.truth()
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
            run["max_gross"] = self.one(0.8, 3)
            for made in sleeves:
                if made["size"].get("mode") == "pct_equity":
                    made["size"]["v"] = 0.3
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
    masters = [{"symbol": ticker, "calendar": make.calendar} for ticker in TICKERS]
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
