"""Kleene's logic in plain Python, over None, True and False: the laws as they are written in books.

Rules: one bar after the other, no numba. Each truth of a (2, n) array, value and known, is read as one of three Python
values, judged by the law, and stored again. ``masks.py`` and ``signals.py`` are made of it.
"""

import math
from collections.abc import Sequence

from farm.values.arrays import F64, U8

Truth = bool | None


def read(a: U8, t: int) -> Truth:
    """Return the truth of bar ``t``; bars before the array are unknown."""
    if t < 0 or not a[1, t]:
        return None
    return bool(a[0, t])


def store(out: U8, t: int, truth: Truth) -> None:
    """Write the truth of bar ``t``."""
    out[0, t] = 1 if truth else 0
    out[1, t] = 0 if truth is None else 1


def kleene_all(truths: Sequence[Truth]) -> Truth:
    """False if any is false, else unknown if any is unknown, else true."""
    if any(truth is False for truth in truths):
        return False
    return None if any(truth is None for truth in truths) else True


def kleene_any(truths: Sequence[Truth]) -> Truth:
    """True if any is true, else unknown if any is unknown, else false."""
    if any(truth is True for truth in truths):
        return True
    return None if any(truth is None for truth in truths) else False


def compare(a: F64, b: F64, relation: int, out: U8) -> None:
    """Write ``a relation b``, bar by bar."""
    for t in range(len(a)):
        x, y = float(a[t]), float(b[t])
        holds = (x > y, x >= y, x < y, x <= y)[relation]
        store(out, t, None if math.isnan(x) or math.isnan(y) else holds)


def cross_up(a: F64, b: F64, out: U8) -> None:
    """Write ``a > b`` now and not one bar before; both bars known."""
    above: list[Truth] = []
    for t in range(len(a)):
        is_known = not (math.isnan(a[t]) or math.isnan(b[t]))
        above.append(bool(a[t] > b[t]) if is_known else None)
        before = above[t - 1] if t else None
        store(out, t, None if above[t] is None or before is None else above[t] and not before)


def join(a: U8, b: U8, is_all: bool, out: U8) -> None:
    """Write ``a and b`` or ``a or b``."""
    law = kleene_all if is_all else kleene_any
    for t in range(a.shape[1]):
        store(out, t, law((read(a, t), read(b, t))))


def negate(a: U8, out: U8) -> None:
    """Write ``not a``: unknown stays unknown."""
    for t in range(a.shape[1]):
        truth = read(a, t)
        store(out, t, None if truth is None else not truth)


def last(a: U8, n: int, is_all: bool, out: U8) -> None:
    """Write whether ``a`` was true on all or any of the last ``n`` bars."""
    law = kleene_all if is_all else kleene_any
    for t in range(a.shape[1]):
        store(out, t, law([read(a, i) for i in range(t + 1 - n, t + 1)]))


def choose(condition: U8, then: F64, other: F64, out: F64) -> None:
    """Write ``then`` where the condition is true, ``other`` where it is false, NaN where it is unknown."""
    for t in range(len(then)):
        truth = read(condition, t)
        out[t] = math.nan if truth is None else (then[t] if truth else other[t])
