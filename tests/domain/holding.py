"""What is held and ordered in the second reading of ``oracle.py``, and the prices that go with it.

Written from domain.md alone; nothing of the farm imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Price:
    """A price, and the session in whose shares it is."""

    value: float
    since: int


Restated = Callable[[Price], Fraction]
"""A price in the shares of now."""


@dataclass(eq=False)
class Held:
    """A position, what it has cost and earned, and its stops. ``decided``: the session of the decision to enter."""

    side: int
    shares: int
    entry: Price
    peak: Price
    decided: int
    pnl: int
    levels: list[Price | None] = field(default_factory=list)
    bars: int = 0
    adds: int = 0
    splits: int = 0


@dataclass(eq=False)
class Working:
    """An order: for the next open, or at a limit for ``left`` sessions. ``frozen``: levels given as expressions."""

    kind: str
    side: int
    opens: int
    decided: int
    number: int
    frozen: Sequence[Price | None] = ()
    limit: Price | None = None
    left: int = 1
    got: int = 0
    closed: int = 0
    ref: float = 0.0
    price: float = 0.0


@dataclass(eq=False)
class Place:
    """One sleeve on one instrument."""

    sleeve: dict[str, Any]
    ticker: str
    held: Held | None = None
    order: Working | None = None
    out_at: int = -(10**9)

    def leave_alone(self) -> None:
        """The position that an order was to close, or to add to, is gone: of a reversal the entry is left."""
        if self.order:
            self.order.kind = "enter" if self.order.kind == "reverse" else self.order.kind
            if self.order.kind != "enter" or not self.order.opens:
                self.order = None


def exact(value: float) -> Fraction:
    """The decimal that was written."""
    return Fraction(repr(float(value)))


def decimal(price: Fraction | float) -> float:
    """A computed order price: 12 digits behind the point, fewer where that is more than 48 bits."""
    digits = 12
    while digits and abs(price) * 10**digits >= 2**48:
        digits -= 1
    return float(round(Fraction(price), digits))


def stops_of(sleeve: dict[str, Any]) -> list[dict[str, Any]]:
    """The stops that work inside bars."""
    return [stop for stop in sleeve.get("stops", []) if stop["type"] != "time"]


def max_positions(sleeve: dict[str, Any], members: int) -> int:
    """How many positions the sleeve may hold."""
    return int(sleeve.get("max_positions", members))


def distance(stop: dict[str, Any], base: Fraction, held: Held, restated: Restated) -> Fraction:
    """How far a stop lies from the price that it counts from; one in price is of the shares of the decision."""
    return base * exact(stop["pct"]) if "pct" in stop else restated(Price(stop["abs"], held.decided))


def levels(
    sleeve: dict[str, Any], held: Held, frozen: Sequence[Price | None], restated: Restated
) -> list[Price | None]:
    """Levels of the stops of a position that counts from ``held.entry``, a price of now; of a trail, none."""
    found: list[Price | None] = []
    entry = exact(held.entry.value)
    for stop, level in zip(stops_of(sleeve), frozen, strict=True):
        toward = held.side if stop["type"] == "target" else -held.side
        if stop["type"] == "trail" or "level" in stop:
            found.append(level)
        elif "r" in stop:
            away = exact(stop["r"]) * risk_of(sleeve, held, frozen, restated)
            found.append(Price(decimal(entry + toward * away), held.entry.since))
        else:
            away = distance(stop, entry, held, restated)
            found.append(Price(decimal(entry + toward * away), held.entry.since))
    return found


def risk_of(sleeve: dict[str, Any], held: Held, frozen: Sequence[Price | None], restated: Restated) -> Fraction:
    """The initial risk: from the entry to the nearest protecting level."""
    risks = []
    entry, peak = exact(held.entry.value), restated(held.peak)
    for stop, level in zip(stops_of(sleeve), frozen, strict=True):
        if stop["type"] == "trail":
            risks.append(held.side * (entry - peak) + distance(stop, peak, held, restated))
        elif stop["type"] == "stop":
            away = held.side * (entry - restated(level)) if level else distance(stop, entry, held, restated)
            risks.append(away)
    return min(risks)


def price_of(stop: dict[str, Any], level: Price | None, held: Held, restated: Restated) -> float:
    """The price at which a stop works now: a level as it was set, or what a trail keeps from the peak."""
    if level:
        return decimal(restated(level))
    peak = restated(held.peak)
    return decimal(peak - held.side * distance(stop, peak, held, restated))
