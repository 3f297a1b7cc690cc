"""Expression nodes: equal expressions are one object.

Rules: nodes are made by an ``Expressions`` table only, bottom up, so that a node's parts are nodes of the same table
and equality is identity. The key of a node is a hash of its meaning, equal in every process. A constant of a node may
be a ``Slot``: the place of a parameter's value, so that one node stands for all trials of a study. What a node *is*
does not depend on such values, only how far it looks back (``reach.py``) and what it gives. A numeric node carries

- ``power`` and ``basis``: how its values scale with a split (price 1, volume -1, ratio 0) and which factor is meant
  ("split" or "tr"), so that series on different bases are never mixed (domain.md 3.3),
- ``sym``: the fixed instrument on whose bars it lives, None for the instrument in scope, "" for constants.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from farm.spec import grammar
from farm.spec.fields import FIELDS
from farm.values.canon import sha256_hex
from farm.values.indicators import INDICATORS


@dataclass(frozen=True)
class Slot:
    """The place of a parameter's value."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}"


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One expression. ``args`` are its parts, ``values`` its constants (int, float, str, bool, or a ``Slot``);
    ``is_truth`` if it is three-valued.

    ``names``: of the parameters that it and its parts use, sorted. ``height``: 1 more than that of its highest part,
    0 without parts.
    """

    op: str
    args: tuple[Node, ...]
    values: tuple[Any, ...]
    key: str
    names: tuple[str, ...]
    height: int
    is_truth: bool
    is_recursive: bool
    power: int
    basis: str
    sym: str | None
    label: str


class Expressions:
    """Table of the nodes of a study. Threads may share it."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, op: str, args: tuple[Node, ...] = (), values: tuple[Any, ...] = ()) -> Node:
        """Return the one node of this operation on these parts. What the operation takes has been checked before."""
        # The type is part of the key: 1, 1.0 and True are equal and hash alike, but mean different things here.
        identity = (op, values, tuple(map(type, values)), tuple(map(id, args)))
        found = self._nodes.get(identity)
        if found is not None:
            return found
        made = _make(op, args, values)
        with self._lock:
            return self._nodes.setdefault(identity, made)


def _make(op: str, args: tuple[Node, ...], values: tuple[Any, ...]) -> Node:
    indicator = INDICATORS.get(op)
    power, basis = _scale(op, args, values)
    own = {value.name for value in values if isinstance(value, Slot)}
    return Node(
        op=op,
        args=args,
        values=values,
        key=sha256_hex("|".join((op, repr(values), *(part.key for part in args))).encode()),
        names=tuple(sorted(own.union(*(part.names for part in args)))),
        height=1 + max((part.height for part in args), default=-1),
        is_truth=op in TRUTHS,
        is_recursive=indicator is not None and indicator.is_recursive,
        power=power,
        basis=basis,
        sym=_sym(op, args, values),
        label=_label(op, args, values),
    )


TRUTHS = frozenset((*grammar.TRUTH_HEADS, "truth"))
"""Operations with a three-valued result."""


def _scale(op: str, args: tuple[Node, ...], values: tuple[Any, ...]) -> tuple[int, str]:
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


def _sym(op: str, args: tuple[Node, ...], values: tuple[Any, ...]) -> str | None:
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


def _label(op: str, args: tuple[Node, ...], values: tuple[Any, ...]) -> str:
    if op == "field":
        return f"{values[0]}:{values[1]}" if values[1] else str(values[0])
    inner = [part.label for part in args] + [str(value) for value in values]
    return inner[0] if op in ("number", "truth") else f"{op}({', '.join(inner)})"
