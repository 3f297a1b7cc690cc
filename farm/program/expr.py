"""Expression nodes: equal expressions are one object.

Rules: nodes are made by an ``Expressions`` table only, bottom up, so that a node's parts are nodes of the same table
and equality is identity. The key of a node is a hash of its meaning, equal in every process. A numeric node carries

- ``power`` and ``basis``: how its values scale with a split (price 1, volume -1, ratio 0) and which factor is meant
  ("split" or "tr"), so that series on different bases are never mixed (domain.md 3.3),
- ``sym``: the fixed instrument on whose bars it lives, None for the instrument in scope, "" for constants,
- ``lookback``: bars it needs before its first value, all parts included, settling excluded (TA-Lib's count),
- ``settle``: for a recursive indicator, the bars after which its start no longer shows (domain.md 2.4).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from farm.spec import grammar
from farm.spec.fields import FIELDS
from farm.spec.spec import Warmup
from farm.values.canon import sha256_hex
from farm.values.indicators import INDICATORS

Scalar: TypeAlias = int | float | str | bool

MONTH_BARS_MAX = 31
"""Most daily bars in a calendar month: an anchor may move that far when it snaps to the month's first session."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One expression. ``args`` are its parts, ``values`` its constants; ``is_truth`` if it is three-valued.

    ``own_lookback`` counts the bars of its parts, ``lookback`` those of the bar columns.
    """

    op: str
    args: tuple[Node, ...]
    values: tuple[Scalar, ...]
    key: str
    is_truth: bool
    is_recursive: bool
    power: int
    basis: str
    sym: str | None
    own_lookback: int
    lookback: int
    settle: int
    label: str
    _reach: dict[Warmup, int] = field(default_factory=dict, repr=False)

    def reach(self, warmup: Warmup) -> int:
        """Return the bars needed before a bar, settling included, to know the node there: an upper bound.

        The start of an outer recursive indicator may snap back to the first session of its month, so its parts must
        be known up to a month earlier; the history itself is loaded in whole months and needs no such margin.
        """
        known = self._reach.get(warmup)
        if known is None:
            known = self._reach[warmup] = self._find_reach(warmup)
        return known

    def _find_reach(self, warmup: Warmup) -> int:
        own = self.own_lookback
        if self.is_recursive:
            bars = {"settle": self.settle, "bar": warmup.count, "d": warmup.count, "mo": MONTH_BARS_MAX * warmup.count}
            own = max(own, bars.get(warmup.unit, 0))
            if warmup.unit == "settle" and self.args[0].args:
                own += MONTH_BARS_MAX
        return own + max((part.reach(warmup) for part in self.args), default=0)


class Expressions:
    """Table of the nodes of a study (or of one trial). Threads may share it."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, op: str, args: tuple[Node, ...] = (), values: tuple[Scalar, ...] = ()) -> Node:
        """Return the one node of this operation on these parts. What the operation takes has been checked before."""
        # The type is part of the key: 1, 1.0 and True are equal and hash alike, but mean different things here.
        identity = (op, values, tuple(map(type, values)), tuple(map(id, args)))
        found = self._nodes.get(identity)
        if found is not None:
            return found
        made = _make(op, args, values)
        with self._lock:
            return self._nodes.setdefault(identity, made)


def _make(op: str, args: tuple[Node, ...], values: tuple[Scalar, ...]) -> Node:
    indicator = INDICATORS.get(op)
    power, basis = _scale(op, args, values)
    own_lookback = _own_lookback(op, values)
    return Node(
        op=op,
        args=args,
        values=values,
        key=sha256_hex("|".join((op, repr(values), *(part.key for part in args))).encode()),
        is_truth=op in TRUTHS,
        is_recursive=indicator is not None and indicator.is_recursive,
        power=power,
        basis=basis,
        sym=_sym(op, args, values),
        own_lookback=own_lookback,
        lookback=own_lookback + max((part.lookback for part in args), default=0),
        settle=indicator.settle(int(values[0])) if indicator else 0,
        label=_label(op, args, values),
    )


def _own_lookback(op: str, values: tuple[Scalar, ...]) -> int:
    if op in INDICATORS:
        return INDICATORS[op].lookback(int(values[0]))
    if op in ("lag", "diff"):
        return int(values[0])
    if op in ("for", "within"):
        return int(values[0]) - 1
    return 1 if op in ("cross_up", "cross_dn") else 0


TRUTHS = frozenset((*grammar.TRUTH_HEADS, "truth"))
"""Operations with a three-valued result."""


def _scale(op: str, args: tuple[Node, ...], values: tuple[Scalar, ...]) -> tuple[int, str]:
    """Return (power, basis) of the result. Parts that cannot be combined are read in today's basis, so power 0."""
    if op == "field":
        field = FIELDS[str(values[0])]
        return field.power, field.basis
    if op in TRUTHS or not args:
        return 0, ""
    if op in INDICATORS:
        return (args[0].power, args[0].basis) if INDICATORS[op].keeps_unit else (0, "")
    if op in ("mul", "div"):
        return _product(op, args)
    parts = numbers(op, args)
    return (parts[0].power, parts[0].basis) if is_joint(op, args) else (0, "")


def _product(op: str, args: tuple[Node, ...]) -> tuple[int, str]:
    if not is_joint(op, args):
        return 0, ""
    power = args[0].power - args[1].power if op == "div" else sum(part.power for part in args)
    basis = next((part.basis for part in args if part.power), "")
    return (power, basis) if power else (0, "")


def numbers(op: str, args: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the numeric parts that ``op`` brings together (``if`` does not compare with its condition)."""
    return args[1:] if op == "if" else args


def is_joint(op: str, args: tuple[Node, ...]) -> bool:
    """Whether the numeric parts can be combined as they are, on the adjusted basis."""
    parts = numbers(op, args)
    syms = {part.sym for part in args} - {""}
    bases = {part.basis for part in parts if part.power}
    if len(syms) > 1 or len(bases) > 1:
        return False
    return op in ("mul", "div") or len({part.power for part in parts}) <= 1


def _sym(op: str, args: tuple[Node, ...], values: tuple[Scalar, ...]) -> str | None:
    """Return the instrument on whose bars the node lives; truths are looked at on the bars of the one in scope."""
    if op in TRUTHS:
        return None
    if op == "field":
        return str(values[1]) or None
    if op == "number":
        return ""
    found = {part.sym for part in args} - {""}
    if not found:
        return ""
    return found.pop() if len(found) == 1 else None


def _label(op: str, args: tuple[Node, ...], values: tuple[Scalar, ...]) -> str:
    if op == "field":
        return f"{values[0]}:{values[1]}" if values[1] else str(values[0])
    inner = [part.label for part in args] + [str(value) for value in values]
    return inner[0] if op in ("number", "truth") else f"{op}({', '.join(inner)})"
