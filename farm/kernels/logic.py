"""Three-valued logic over bars (Kleene).

A truth is a uint8 array (2, n): row 0 is 1 where it is true, row 1 is 1 where it is known. False is (0, 1), unknown is
(0, 0); (1, 0) does not exist. Rules of the file: unknown in, unknown out, unless the known inputs decide alone;
comparisons with NaN are unknown; ``out`` is passed in and overwritten, and may not be one of the inputs. Bars before
the array are unknown. The twins are in ``reference/logic.py``. Source: domain.md 2.2.
"""

import numpy as np
from numba import boolean, float64, int64, types, uint8, void

from farm.kernels.jit import kernel
from farm.values.arrays import F64, U8

GT, GE, LT, LE = 0, 1, 2, 3
"""Comparisons: greater, greater or equal, less, less or equal."""

F64_IN = types.Array(float64, 1, "C", readonly=True)
U8_IN = types.Array(uint8, 2, "C", readonly=True)
U8_OUT = uint8[:, ::1]


@kernel(void(F64_IN, F64_IN, int64, U8_OUT))
def compare(a: F64, b: F64, relation: int, out: U8) -> None:
    """Write ``a relation b``, bar by bar."""
    for t in range(a.shape[0]):
        x = a[t]
        y = b[t]
        is_known = x == x and y == y
        if relation == GT:
            holds = x > y
        elif relation == GE:
            holds = x >= y
        elif relation == LT:
            holds = x < y
        else:
            holds = x <= y
        out[0, t] = 1 if is_known and holds else 0
        out[1, t] = 1 if is_known else 0


@kernel(void(F64_IN, F64_IN, U8_OUT))
def cross_up(a: F64, b: F64, out: U8) -> None:
    """Write ``a > b`` now and not one bar before; both bars known. A cross down is ``cross_up(b, a)``."""
    was_known = False
    was_above = False
    for t in range(a.shape[0]):
        is_known = a[t] == a[t] and b[t] == b[t]
        is_above = a[t] > b[t]
        out[0, t] = 1 if is_known and was_known and is_above and not was_above else 0
        out[1, t] = 1 if is_known and was_known else 0
        was_known = is_known
        was_above = is_above


@kernel(void(U8_IN, U8_IN, boolean, U8_OUT))
def join(a: U8, b: U8, is_all: bool, out: U8) -> None:
    """Write ``a and b`` (``is_all``) or ``a or b``."""
    for t in range(a.shape[1]):
        if is_all:
            is_true = a[0, t] & b[0, t]
            is_false = (a[1, t] & (1 - a[0, t])) | (b[1, t] & (1 - b[0, t]))
        else:
            is_true = a[0, t] | b[0, t]
            is_false = a[1, t] & (1 - a[0, t]) & b[1, t] & (1 - b[0, t])
        out[0, t] = is_true
        out[1, t] = is_true | is_false


@kernel(void(U8_IN, U8_OUT))
def negate(a: U8, out: U8) -> None:
    """Write ``not a``: unknown stays unknown."""
    for t in range(a.shape[1]):
        out[0, t] = a[1, t] & (1 - a[0, t])
        out[1, t] = a[1, t]


@kernel(void(U8_IN, int64, boolean, U8_OUT))
def last(a: U8, n: int, is_all: bool, out: U8) -> None:
    """Write whether ``a`` was true on all (``is_all``: "for") or any ("within") of the last ``n`` bars, Kleene's way.

    Bars before the array are unknown: "for" needs n bars known to be true.
    """
    trues = 0
    falses = 0
    for t in range(a.shape[1]):
        trues += a[0, t]
        falses += a[1, t] - a[0, t]
        if t >= n:
            trues -= a[0, t - n]
            falses -= a[1, t - n] - a[0, t - n]
        is_true = trues == n if is_all else trues > 0
        is_false = falses > 0 if is_all else falses == n
        out[0, t] = 1 if is_true else 0
        out[1, t] = 1 if is_true or is_false else 0


@kernel(void(U8_IN, F64_IN, F64_IN, float64[::1]))
def choose(condition: U8, then: F64, other: F64, out: F64) -> None:
    """Write ``then`` where the condition is true, ``other`` where it is false, NaN where it is unknown."""
    for t in range(then.shape[0]):
        if condition[0, t] == 1:
            out[t] = then[t]
        elif condition[1, t] == 1:
            out[t] = other[t]
        else:
            out[t] = np.nan
