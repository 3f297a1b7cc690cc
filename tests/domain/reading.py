"""Expressions as domain.md reads them: evaluated for one bar at a time, on prices restated to the shares of that bar.

Part of the second reading in ``oracle.py``; exact fractions wherever the text allows, nothing of the farm imported.
Bars: ticker -> {session number: (open, high, low, close, volume)}; negative sessions are history. Splits: ticker ->
{session: (new, old)}; dividends: ticker -> {session: (amount, pay session or None)}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

Bar = tuple[float, float, float, float, float]
Number = Fraction | float | None


@dataclass(eq=False)
class World:
    """What happened in the market."""

    bars: Mapping[str, Mapping[int, Bar]]
    splits: Mapping[str, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    dividends: Mapping[str, Mapping[int, tuple[float, int | None]]] = field(default_factory=dict)
    weekday: Mapping[int, int] = field(default_factory=dict)
    own: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Sessions of instruments that keep those of an exchange, in a run around the clock."""

    def ratio(self, ticker: str, after: int, until: int) -> Fraction:
        """New shares per share, over the splits with after < session <= until."""
        found = Fraction(1)
        for session, (new, old) in self.splits.get(ticker, {}).items():
            if after < session <= until:
                found *= Fraction(new, old)
        return found


class Expression:
    """Values of expressions for one instrument, seen from one of its bars."""

    def __init__(self, world: World, ticker: str) -> None:
        self.world, self.ticker = world, ticker
        self.sessions = sorted(world.bars[ticker])
        self.memo: dict[Any, Any] = {}

    def field(self, name: str, at: int, today: int) -> Number:
        """A column at the own bar number ``at``, in the shares of bar number ``today``."""
        session = self.sessions[at]
        bar = self.world.bars[self.ticker][session]
        column = {"open": 0, "high": 1, "low": 2, "close": 3, "close_raw": 3, "volume": 4}[name]
        raw = Fraction(repr(bar[column]))
        ratio = self.world.ratio(self.ticker, session, self.sessions[today])
        return raw if name == "close_raw" else raw * ratio if name == "volume" else raw / ratio

    def number(self, e: Any, at: int, today: int) -> Number:
        """The value of a numeric expression at own bar ``at``; None is unknown."""
        key = (repr(e), at, today)
        if key not in self.memo:
            self.memo[key] = self._number(e, at, today)
        return self.memo[key]  # type: ignore[no-any-return]

    def _number(self, e: Any, at: int, today: int) -> Number:
        if at < 0:
            return None
        if isinstance(e, int | float):
            return Fraction(repr(e))
        if isinstance(e, str):
            return self.field(e, at, today)
        if "i" in e:
            return self.indicator(e["i"], e["n"], e.get("of", "close"), at, today)
        if e["op"] == "lag":
            return self.number(e["a"][0], at - e["n"], today)
        left, right = (self.number(part, at, today) for part in e["a"])
        if left is None or right is None:
            return None
        if e["op"] == "div":
            return None if right == 0 else left / right
        return {"add": left + right, "sub": left - right, "mul": left * right, "min": min(left, right),
                "max": max(left, right)}[e["op"]]  # fmt: skip

    def known(self, of: Any, at: int, count: int, today: int) -> list[Any] | None:
        """The last ``count`` values up to bar ``at``, oldest first; None if there are fewer."""
        values = [self.number(of, k, today) for k in range(max(0, at - count + 1), at + 1)]
        return values if len(values) == count and None not in values else None

    def indicator(self, name: str, n: int, of: Any, at: int, today: int) -> Number:
        if name in ("sma", "max", "min", "stddev"):
            x = self.known(of, at, n, today)
            if x is None:
                return None
            if name != "stddev":
                return max(x) if name == "max" else min(x) if name == "min" else sum(x) / Fraction(n)
            mean = sum(x) / Fraction(n)
            return math.sqrt(sum((one - mean) ** 2 for one in x) / n)
        if name in ("roc", "ret"):
            x = self.known(of, at, n + 1, today)
            if x is None or x[0] == 0:
                return None
            return (x[-1] / x[0] - 1) * (100 if name == "roc" else 1)
        x = [value for k in range(at + 1) if (value := self.number(of, k, today)) is not None]
        if name == "ema":
            if len(x) < n:
                return None
            e = float(sum(x[:n]) / n)
            for value in x[n:]:
                e += (float(value) - e) * 2 / (n + 1)
            return e
        if len(x) < n + 1:
            return None
        moves = [float(b - a) for a, b in pairwise(x)]
        gain, loss = sum(max(m, 0) for m in moves[:n]) / n, sum(max(-m, 0) for m in moves[:n]) / n
        for m in moves[n:]:
            gain, loss = (gain * (n - 1) + max(m, 0)) / n, (loss * (n - 1) + max(-m, 0)) / n
        return 100 * gain / (gain + loss) if gain + loss else 0.0

    def truth(self, e: Any, at: int) -> bool | None:
        """A condition at own bar ``at``: true, false, or None for unknown."""
        if isinstance(e, bool):
            return e
        if at < 0:
            return None
        ((head, body),) = e.items()
        if head == "not":
            inner = self.truth(body, at)
            return None if inner is None else not inner
        if head in ("all", "any"):
            found = [self.truth(part, at) for part in body]
            decisive = head == "any"
            return decisive if decisive in found else None if None in found else not decisive
        if head in ("for", "within"):
            found = [self.truth(body[1], at - k) for k in range(body[0])]
            if head == "for":
                return False if False in found else None if None in found else True
            return True if True in found else None if None in found else False
        if head == "dow":
            return self.world.weekday[self.sessions[at]] in body
        if head in ("cross_up", "cross_dn"):
            a, b = body if head == "cross_up" else body[::-1]
            if at < 1:
                return None
            now, before = ([self.number(part, k, k) for part in (a, b)] for k in (at, at - 1))
            if None in now + before:
                return None
            return bool(now[0] > now[1] and not before[0] > before[1])
        x = [self.number(part, at, at) for part in body]
        if None in x:
            return None
        if head == "between":
            return bool(x[1] <= x[0] <= x[2])
        return bool({"gt": x[0] > x[1], "ge": x[0] >= x[1], "lt": x[0] < x[1], "le": x[0] <= x[1]}[head])
