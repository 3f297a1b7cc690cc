"""Says where prices and splits contradict each other: pure functions from the bars of one symbol and its splits.

A *step* goes from the close of one bar to the open of the next. Nothing is inferred and nothing refused; a doubt is a
sentence for a person, who knows where the file comes from:

- a split on whose step the price moved less than half the way (in logarithms) to what the ratio asks for: the prices
  may be adjusted already, and the split would be applied twice; where it moved the other way, the ratio is suspected;
- a step by a ratio of small whole numbers, within 2 %, where no split is: one may be missing;
- a dividend that is not below the last close, in the shares of its ex-day: a run that reads it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from farm.shard.index import decode_prices
from farm.shard.kinds import DIVIDENDS, SPLITS, STOCK_DAILY, Kind
from farm.shard.reader import Rows
from farm.shard.stage import Piece
from farm.values.arrays import BOOL, F64, I32, I64
from farm.values.units import iso

SHOWN_MAX = 5
"""Doubts of one sort that an ingest spells out; the others are counted."""

_NEAR = np.log(1.02)
# 4:3 is the smallest: below it a ratio of small numbers is what a bad day looks like.
_SMALL = ((4, 3), (3, 2), (2, 1), (5, 2), *((count, 1) for count in range(3, 101)))
_STEPS = np.log([more / less for more, less in _SMALL])


@dataclass(frozen=True)
class Doubt:
    """One step that looks wrong. ``is_split``: there is a split on it; ``ratio``: its, or the one that is missing.

    ``is_inverse``: the price moved the other way, at least half as far as the split asks for.
    """

    symbol: str
    day: int
    is_split: bool
    ratio: str
    step: float
    is_inverse: bool = False

    def __str__(self) -> str:
        moved = f"opens at {self.step:.4g} times the last close"
        if self.is_inverse:
            return f"{self.symbol} {iso(self.day)} has a split of {self.ratio} and {moved}: is the ratio upside down?"
        if self.is_split:
            return f"{self.symbol} {iso(self.day)} has a split of {self.ratio} and {moved}: adjusted already?"
        return f"{self.symbol} {iso(self.day)} {moved} without a split: is {self.ratio} missing?"


@dataclass(frozen=True)
class TooLarge:
    """A dividend that is not below the last close."""

    symbol: str
    day: int
    amount: float
    close: float

    def __str__(self) -> str:
        told = f"{self.symbol} {iso(self.day)} has a dividend of {self.amount:.10g} after a close of {self.close:.10g}"
        return f"{told}: runs that read it are refused, is it the amount of a share?"


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars of one symbol in time order: day, open and close (n,), and which of them are new."""

    day: I32
    open: F64
    close: F64
    is_new: BOOL


@dataclass(frozen=True, eq=False)
class Splits:
    """Splits of one symbol in time order: ex-day, new and old shares (n,), and which of them are new."""

    day: I32
    numerator: I64
    denominator: I64
    is_new: BOOL


@dataclass(frozen=True, eq=False)
class Dividends:
    """Dividends of one symbol in time order: ex-day, amount a share (n,), and which of them are new."""

    day: I32
    amount: F64
    is_new: BOOL


def bars_of(held: Rows | None, new: Piece | None) -> Bars:
    """Return stored and new bars as one series; a day is never in both."""
    return Bars(*_joined(STOCK_DAILY, held, new, ("open", "close")))


def splits_of(held: Rows | None, new: Piece | None) -> Splits:
    """Return stored and new splits as one series; an ex-day is never in both."""
    return Splits(*_joined(SPLITS, held, new, ("numerator", "denominator")))


def dividends_of(held: Rows | None, new: Piece | None) -> Dividends:
    """Return stored and new dividends as one series; an ex-day is never in both."""
    return Dividends(*_joined(DIVIDENDS, held, new, ("amount",)))


def find_too_large(symbol: str, bars: Bars, splits: Splits, dividends: Dividends) -> list[TooLarge]:
    """Return the dividends that are not below the last close, where one of the two is new, in time order."""
    before = np.searchsorted(bars.day, dividends.day) - 1
    found: list[TooLarge] = []
    for at in np.flatnonzero(before >= 0).tolist():
        bar, amount = int(before[at]), float(dividends.amount[at])
        inside = (splits.day > bars.day[bar]) & (splits.day <= dividends.day[at])
        close = float(bars.close[bar] * np.prod(splits.denominator[inside] / splits.numerator[inside]))
        if amount >= close and (dividends.is_new[at] or bars.is_new[bar]):
            found.append(TooLarge(symbol, int(dividends.day[at]), amount, close))
    return found


def find_doubts(symbol: str, bars: Bars, splits: Splits) -> list[Doubt]:
    """Return the doubts about the steps that a new bar or a new split is part of, in time order."""
    if bars.day.size < 2:
        return []
    step = np.log(bars.open[1:] / bars.close[:-1])
    # The splits after the day of the bar before and up to that of this bar; between two bars there may be several.
    bounds = np.searchsorted(splits.day, bars.day, side="right")
    gone = np.concatenate(([0.0], np.cumsum(np.log(splits.denominator) - np.log(splits.numerator))))
    is_split = np.diff(bounds) > 0
    newer = np.concatenate(([0], np.cumsum(splits.is_new)))
    is_new = bars.is_new[1:] | bars.is_new[:-1] | (np.diff(newer[bounds]) > 0)
    expected = np.diff(gone[bounds])
    is_unmoved = is_split & (np.abs(step) < np.abs(step - expected))
    is_inverse = is_unmoved & (np.abs(step + expected) <= np.abs(step))
    size = np.abs(step)
    nearest = np.clip(np.searchsorted(_STEPS, size), 1, len(_STEPS) - 1)
    nearest -= size - _STEPS[nearest - 1] < _STEPS[nearest] - size
    is_jump = ~is_split & (np.abs(size - _STEPS[nearest]) <= _NEAR)
    found: list[Doubt] = []
    for at in np.flatnonzero(is_new & (is_unmoved | is_jump)).tolist():
        if is_split[at]:
            inside = range(bounds[at], bounds[at + 1])
            ratio = " and ".join(f"{splits.numerator[one]}:{splits.denominator[one]}" for one in inside)
        else:
            # More shares make the price fall.
            more, less = _SMALL[nearest[at]]
            ratio = f"{more}:{less}" if step[at] < 0 else f"{less}:{more}"
        how = bool(is_split[at]), ratio, float(np.exp(step[at])), bool(is_inverse[at])
        found.append(Doubt(symbol, int(bars.day[at + 1]), *how))
    return found


def notes_of(doubts: Iterable[Doubt | TooLarge]) -> tuple[str, ...]:
    """Return the first doubts of each sort as sentences, and how many there are beyond them."""
    ordered = sorted(doubts, key=lambda doubt: (doubt.symbol, doubt.day))
    steps = [one for one in ordered if isinstance(one, Doubt)]
    return (
        *_bounded([one for one in steps if one.is_split], "splits that prices do not show"),
        *_bounded([one for one in steps if not one.is_split], "steps like a split"),
        *_bounded([one for one in ordered if isinstance(one, TooLarge)], "dividends above the last close"),
    )


def _bounded(doubts: Sequence[Doubt | TooLarge], what: str) -> tuple[str, ...]:
    more = len(doubts) - SHOWN_MAX
    notes = tuple(str(doubt) for doubt in doubts[:SHOWN_MAX])
    return (*notes, f"and {more} more {what}") if more > 0 else notes


def _joined(kind: Kind, held: Rows | None, new: Piece | None, names: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Return day, ``names`` (prices as float64) and whether a row is new, in time order."""
    assert kind.time_column is not None
    every = (kind.time_column, *names)
    parts: list[list[npt.NDArray[Any]]] = [[np.zeros(0, kind.by_name[name].type) for name in every]]
    is_new = [np.zeros(0, np.bool_)]
    if held is not None:
        parts.append([held.prices(name) if kind.by_name[name].is_price else held[name] for name in every])
        is_new.append(np.zeros(len(held), np.bool_))
    if new is not None:
        columns = new.columns
        parts.append([decode_prices(columns[n], new.scale) if kind.by_name[n].is_price else columns[n] for n in every])
        is_new.append(np.ones(new.rows, np.bool_))
    joined = [np.concatenate(values) for values in (*zip(*parts, strict=True), is_new)]
    order = np.argsort(joined[0], kind="stable")
    return [values[order] for values in joined]
