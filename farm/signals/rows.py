"""The answers to a demand: each node as rows over the bars of its instrument, and the row of each request.

Rules:

1. Requests that lead to the same values share a row. A row is that of the parts' rows and of the node's own constants;
   indicators also depend on the bar at which they begin, unless they are windows over a part without gaps.
2. A row says something from the bar on from which its requests need it; before, it may hold anything, or NaN. Nothing
   that is read depends on what is there.
3. Unknown is NaN in numbers; infinities become NaN where they arise. An unknown signal triggers nothing.
4. Indicators, and whatever uses no parameter, are kept in the series store: the next trials find them there.

Numbers are float64 (k, n); truths are two masks uint64 (k, w), value and known (``kernels/masks.py``). Of g instruments
that are alike there are g times as many rows, those of one after those of the other, and ``row`` says which of these;
but rows that use no bar are the same for all, and there once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.kernels import masks, windows
from farm.program.expr import is_joint
from farm.signals import series
from farm.signals.demand import Demand, Part, Requests, distinct
from farm.signals.own_bars import OwnBars
from farm.signals.store import Series
from farm.values.arrays import BOOL, F64, I64, U64
from farm.values.indicators import INDICATORS

_EXCHANGED = {"gt": (masks.GT, False), "ge": (masks.GE, False), "lt": (masks.GT, True), "le": (masks.GE, True)}
_FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "greatest": np.maximum,
           "least": np.minimum}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Numbers:
    """Rows of numbers, and which of them belongs to each request (or ask): values (g k, n), row (q,).

    ``width``: k, or 0 where the rows of all instruments are the same: (k, n).
    """

    values: F64
    row: I64
    width: int


@dataclass(frozen=True, eq=False)
class Truths:
    """Rows of truths, and which of them belongs to each request (or ask): value, known (g k, w), row (q,). ``width``:
    as in ``Numbers``."""

    value: U64
    known: U64
    row: I64
    width: int


class Answers:
    """Answers what is asked in a closed ``demand``; each node once, and only if it is looked at."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._numbers: dict[Requests, Numbers] = {}
        self._truths: dict[Requests, Truths] = {}
        self._seen: dict[tuple[object, ...], F64] = {}
        self._known: dict[int, tuple[F64, U64]] = {}

    def truths(self, part: Part) -> Truths:
        """Return a condition, by asks."""
        assert part.wanted is not None
        found = self._of_truth(part.wanted)
        return Truths(found.value, found.known, found.row[part.wanted.which[part.asks]], found.width)

    def numbers(self, part: Part, viewer: OwnBars, *, joint: bool) -> Numbers:
        """Return numbers on the bars of ``viewer``, by asks: as they are if ``joint``, else in today's basis."""
        if part.wanted is None:
            row, width = np.zeros(part.count, np.int64), 1
        else:
            found = self._of_number(part.wanted)
            row, width = found.row[part.wanted.which[part.asks]], found.width
        key = (part.node, part.bars, viewer, joint)
        if key not in self._seen:
            self._seen[key] = self._view(part, viewer, joint=joint)
        return Numbers(self._seen[key], row, width)

    def _view(self, part: Part, viewer: OwnBars, *, joint: bool) -> F64:
        bars, node = part.bars, part.node
        if part.wanted is None:
            field = str(node.values[0])
            values = bars.adjusted(field) if joint else bars.raw(field)
        else:
            values = self._of_number(part.wanted).values
            values = values if joint else bars.today(node, values)
        return values if bars is viewer else viewer.join(bars, values)

    # Numbers.

    def _of_number(self, wanted: Requests) -> Numbers:
        found = self._numbers.get(wanted)
        if found is None:
            if wanted.node.op in INDICATORS or (wanted.node.args and not wanted.node.names):
                name = ("rows", *self._demand.name(wanted), *wanted.bars.whole)
                entry = self._demand.store.get(name, lambda: _kept(self._make_numbers(wanted)))
                found = Numbers(entry.arrays[0], entry.arrays[1], entry.extra)
            else:
                found = self._make_numbers(wanted)
            self._numbers[wanted] = found
        return found

    def _make_numbers(self, wanted: Requests) -> Numbers:
        node = wanted.node
        if node.op == "number":
            constants = self._demand.constants(wanted).astype(np.float64) + 0.0  # one zero, as in canonical JSON
            values, row = np.unique(constants, return_inverse=True)
            return Numbers(np.repeat(values[:, None], wanted.bars.rows, axis=1), row.reshape(-1), 0)
        if node.op in INDICATORS:
            return self._indicator(wanted)
        if node.op in ("lag", "diff"):
            return self._lagged(wanted)
        if node.op == "if":
            return self._chosen(wanted)
        parts = self._parts(wanted)
        firsts, row = distinct(*(part.row for part in parts))
        count, width = _spread(wanted, firsts, *parts)
        with np.errstate(all="ignore"):
            return Numbers(_arithmetic(node.op, [_picked(part, firsts, count) for part in parts]), row, width)

    def _parts(self, wanted: Requests) -> list[Numbers]:
        """Return the numeric parts of a node that brings them together."""
        joint = is_joint(wanted.node.op, wanted.node.args)
        parts = wanted.parts[1:] if wanted.node.op == "if" else wanted.parts
        return [self.numbers(part, wanted.bars, joint=joint) for part in parts]

    def _chosen(self, wanted: Requests) -> Numbers:
        condition = self.truths(wanted.parts[0])
        then, other = self._parts(wanted)
        firsts, row = distinct(condition.row, then.row, other.row)
        count, width = _spread(wanted, firsts, condition, then, other)
        out = np.empty((count * firsts.shape[0], wanted.bars.rows))
        masks.choose(
            condition.value, condition.known, _rows(condition, firsts, count), then.values, _rows(then, firsts, count),
            other.values, _rows(other, firsts, count), out,
        )  # fmt: skip
        return Numbers(out, row, width)

    def _lagged(self, wanted: Requests) -> Numbers:
        part = self.numbers(wanted.parts[0], wanted.bars, joint=True)
        period = self._demand.period(wanted)
        firsts, row = distinct(part.row, period)
        count, width = _spread(wanted, firsts, part)
        source = _rows(part, firsts, count)
        out = np.empty((source.shape[0], wanted.bars.rows))
        windows.lag(part.values, source, np.tile(period[firsts], count), out)
        if wanted.node.op == "diff":
            with np.errstate(all="ignore"):
                out = _finite(part.values[source] - out)
        return Numbers(out, row, width)

    def _indicator(self, wanted: Requests) -> Numbers:
        node, bars = wanted.node, wanted.bars
        period, begin = self._demand.period(wanted), wanted.begin
        [asked] = wanted.parts
        part = self.numbers(asked, bars, joint=True)
        grid = bars.grid(node.args[0]) if node.op == "sma" and asked.bars is bars else None
        if node.is_recursive:
            firsts, row = distinct(part.row, period, begin)
        elif grid is not None:
            firsts, row = distinct(period)
        else:
            low = int(begin.min(initial=bars.rows))
            has_gaps: BOOL = np.logical_or.reduce(np.isnan(part.values[:, low:]), axis=1)
            with_gaps = np.logical_or.reduce(has_gaps.reshape(-1, part.width or has_gaps.shape[0]))  # of any instrument
            firsts, row = distinct(part.row, period, np.where(with_gaps[part.row], begin, 0))
        begins = np.full(firsts.shape[0], bars.rows)
        np.minimum.at(begins, row, begin)
        if grid is not None:
            return Numbers(series.means_on_grid(part.values, grid, begins, period[firsts]), row, firsts.shape[0])
        count, width = _spread(wanted, firsts, part)
        source = _rows(part, firsts, count)
        out = np.empty((source.shape[0], bars.rows))
        periods, begins = np.tile(period[firsts], count), np.tile(begins, count)
        windows.indicator(series.CODES[node.op], part.values, source, periods, begins, out)
        return Numbers(out, row, width)

    # Conditions.

    def _of_truth(self, wanted: Requests) -> Truths:
        found = self._truths.get(wanted)
        if found is None:
            if wanted.node.args and not wanted.node.names:
                name = ("rows", *self._demand.name(wanted), *wanted.bars.whole)
                entry = self._demand.store.get(name, lambda: _kept(self._make_truths(wanted)))
                value, known, row = entry.arrays
                found = Truths(value, known, row, entry.extra)
            else:
                found = self._make_truths(wanted)
            self._truths[wanted] = found
        return found

    def _make_truths(self, wanted: Requests) -> Truths:
        node, bars = wanted.node, wanted.bars
        if node.op == "truth":
            whole = bars.bits(np.ones(bars.rows, np.bool_))
            value = np.stack([np.zeros_like(whole), whole])
            return Truths(value, np.stack([whole, whole]), self._demand.constants(wanted).astype(np.int64), 0)
        if not node.args:
            whole = bars.bits(np.ones(bars.rows, np.bool_))
            row = np.zeros(wanted.trial.shape[0], np.int64)
            return Truths(bars.bits(bars.calendar(node))[None], whole[None], row, 0)
        if node.op == "not":
            part = self.truths(wanted.parts[0])
            return Truths(part.known & ~part.value, part.known, part.row, part.width)
        if node.op in ("all", "any"):
            return self._combined(wanted)
        if node.op in ("for", "within"):
            return self._recent(wanted)
        return self._compared(wanted)

    def _combined(self, wanted: Requests) -> Truths:
        parts = [self.truths(part) for part in wanted.parts]
        firsts, row = distinct(*(part.row for part in parts))
        count, width = _spread(wanted, firsts, *parts)
        index = _rows(parts[0], firsts, count)
        value, known = parts[0].value[index], parts[0].known[index]
        for part in parts[1:]:
            masks.join(part.value, part.known, _rows(part, firsts, count), wanted.node.op == "all", value, known)
        return Truths(value, known, row, width)

    def _recent(self, wanted: Requests) -> Truths:
        part, period = self.truths(wanted.parts[0]), self._demand.period(wanted)
        firsts, row = distinct(part.row, period)
        count, width = _spread(wanted, firsts, part)
        index = _rows(part, firsts, count)
        value, known = _masks(wanted, index.shape[0])
        masks.last(part.value, part.known, index, np.tile(period[firsts], count), wanted.node.op == "for",
                   wanted.bars.rows, value, known)  # fmt: skip
        return Truths(value, known, row, width)

    def _compared(self, wanted: Requests) -> Truths:
        op, parts = wanted.node.op, self._parts(wanted)
        low = int(wanted.begin.min(initial=0)) // 64
        firsts, row = distinct(*(part.row for part in parts))
        count, width = _spread(wanted, firsts, *parts)
        value, known = _masks(wanted, count * firsts.shape[0])
        sides = [(part.values, self._known_of(part.values), _rows(part, firsts, count)) for part in parts]
        if op in ("cross_up", "cross_dn"):
            above, below = sides if op == "cross_up" else sides[::-1]
            masks.cross_up(*above, *below, low, value, known)
        elif op == "between":
            masks.compare(*sides[0], *sides[1], masks.GE, low, value, known)
            most, most_known = _masks(wanted, value.shape[0])
            masks.compare(*sides[2], *sides[0], masks.GE, low, most, most_known)
            masks.join(most, most_known, np.arange(value.shape[0]), True, value, known)
        else:
            relation, is_exchanged = _EXCHANGED[op]
            first, second = sides[::-1] if is_exchanged else sides
            masks.compare(*first, *second, relation, low, value, known)
        return Truths(value, known, row, width)

    def _known_of(self, values: F64) -> U64:
        found = self._known.get(id(values))
        if found is None:
            known = np.empty((values.shape[0], (values.shape[1] + 63) // 64), np.uint64)
            masks.known(values, 0, known)
            found = self._known[id(values)] = values, known  # the rows too: as long as they live, their id is theirs
        return found[1]


def _kept(rows: Numbers | Truths) -> Series:
    if isinstance(rows, Numbers):
        return Series((rows.values, rows.row), extra=rows.width)
    return Series((rows.value, rows.known, rows.row), extra=rows.width)


def _masks(wanted: Requests, rows: int) -> tuple[U64, U64]:
    shape = rows, wanted.bars.words
    return np.empty(shape, np.uint64), np.empty(shape, np.uint64)


def _spread(wanted: Requests, firsts: I64, *parts: Numbers | Truths) -> tuple[int, int]:
    """Return how many times the rows ``firsts`` are made of these parts, and their width."""
    return (wanted.bars.count, firsts.shape[0]) if any(part.width for part in parts) else (1, 0)


def _rows(part: Numbers | Truths, firsts: I64, count: int) -> I64:
    """Return which rows of a part new rows are made of, instrument by instrument."""
    own = part.row[firsts]
    return own if count == 1 else (part.width * np.arange(count)[:, None] + own).reshape(-1)


def _picked(part: Numbers, firsts: I64, count: int) -> F64:
    """Return the rows of a part that new rows are made of; a single one stands for all."""
    return part.values if part.values.shape[0] == 1 else part.values[_rows(part, firsts, count)]


def _finite(values: F64) -> F64:
    """Return ``values`` with infinities made unknown."""
    infinite = np.isinf(values)
    if infinite.any():
        values[infinite] = np.nan
    return values


def _arithmetic(op: str, parts: list[F64]) -> F64:
    """Return the operation on rows, parts taken from left to right; each step is rounded once."""
    first = parts[0]
    if op in ("neg", "abs"):
        return np.negative(first) if op == "neg" else np.abs(first)
    if op == "clip":
        return np.minimum(np.maximum(first, parts[1]), parts[2])
    for part in parts[1:]:
        first = _FOLDED[op](first, part)
    return _finite(first)
