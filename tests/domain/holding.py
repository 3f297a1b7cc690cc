"""What is held and ordered in the second reading of ``oracle.py``, and the prices that go with it.

Written from domain.md alone; nothing of the farm imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(eq=False)
class Held:
    """A position, what it has cost and earned, and its stops."""

    side: int
    shares: int
    entry: float
    peak: float
    levels: list[float | None]
    since: int
    pnl: int = 0
    bars: int = 0


@dataclass(eq=False)
class Working:
    """A market order for the next open."""

    kind: str
    side: int
    opens: int
    frozen: list[float | None]
    decided: int = 0
    got: int = 0
    closed: int = 0
    price: float = 0.0


@dataclass(eq=False)
class Place:
    """One sleeve on one instrument."""

    sleeve: dict[str, Any]
    ticker: str
    held: Held | None = None
    order: Working | None = None
    out_at: int = -(10**9)


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


def levels(sleeve: dict[str, Any], held: Held, frozen: list[float | None], shares: Fraction) -> list[float | None]:
    """Levels of a new position's stops; of a trail, what it keeps of the peak. ``shares``: per old one."""
    found: list[float | None] = []
    for stop, level in zip(stops_of(sleeve), frozen, strict=True):
        away = held.side if stop["type"] == "target" else -held.side
        if stop["type"] == "trail":
            found.append(stop["pct"] if "pct" in stop else float(exact(stop["abs"]) / shares))
        elif "level" in stop:
            found.append(level)
        elif "r" in stop:
            found.append(decimal(exact(held.entry) + away * exact(stop["r"]) * risk_of(sleeve, held, frozen, shares)))
        elif "pct" in stop:
            found.append(decimal(exact(held.entry) * (1 + away * exact(stop["pct"]))))
        else:
            found.append(decimal(exact(held.entry) + away * exact(stop["abs"]) / shares))
    return found


def risk_of(sleeve: dict[str, Any], held: Held, frozen: list[float | None], shares: Fraction) -> Fraction:
    """The initial risk: from the entry to the nearest protecting level."""
    risks = []
    entry, peak = exact(held.entry), exact(held.peak)
    for stop, level in zip(stops_of(sleeve), frozen, strict=True):
        if stop["type"] == "target":
            continue
        if level is not None:
            risks.append(held.side * (entry - exact(level)))
        elif stop["type"] == "trail":
            base = peak * exact(stop["pct"]) if "pct" in stop else exact(stop["abs"]) / shares
            risks.append(held.side * (entry - peak) + base)
        else:
            risks.append(entry * exact(stop["pct"]) if "pct" in stop else exact(stop["abs"]) / shares)
    return min(risks)
