"""Conditions over bars as bit masks, for many rows at once: 64 bars a word.

A truth is two rows of words: bit ``t & 63`` of word ``t >> 6`` of *value* is set where it is true at bar ``t``, that of
*known* where it is known; value is a part of known. Rows of words are (k, w) with w = ceil(n / 64), numbers are rows
(k, n). Rules of the file:

- output row r is made of row ``ia[r]`` of ``a``, row ``ib[r]`` of ``b`` and so on: equal parts are kept once;
- NaN is unknown, and a comparison with it is unknown; bits from bar n on are 0;
- unknown in, unknown out, unless the known inputs decide alone (Kleene); bars before a row are unknown;
- words before ``low`` are not looked at, and are 0.

The twins are in ``reference/masks.py``. Source: domain.md 2.2, 6.2.
"""

import numpy as np
from numba import boolean, float64, int64, types, uint64, void

from farm.kernels.jit import helper, kernel
from farm.values.arrays import F64, I64, U64

GT, GE = 0, 1
"""Comparisons: greater, greater or equal. The others are these with their sides exchanged."""

F64_ROWS = types.Array(float64, 2, "C", readonly=True)
U64_ROWS = types.Array(uint64, 2, "C", readonly=True)
I64_IN = types.Array(int64, 1, "C", readonly=True)
F64_OUT = float64[:, ::1]
U64_OUT = uint64[:, ::1]

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@helper
def compared(x: F64, y: F64, relation: int, low: int, out: U64) -> None:
    """Write the bits of ``x relation y``: two rows (n,) to (w,).

    Loops of exactly 64 bars that begin at bar 0 of an array become vector comparisons, ten times as fast as others.
    """
    x = x[64 * low :]
    y = y[64 * low :]
    out = out[low:]
    whole = x.shape[0] >> 6
    if relation == GT:
        for w in range(whole):
            word = np.uint64(0)
            for t in range(64):
                word |= np.uint64(x[64 * w + t] > y[64 * w + t]) << np.uint64(t)
            out[w] = word
    else:
        for w in range(whole):
            word = np.uint64(0)
            for t in range(64):
                word |= np.uint64(x[64 * w + t] >= y[64 * w + t]) << np.uint64(t)
            out[w] = word
    for w in range(whole, out.shape[0]):
        word = np.uint64(0)
        for t in range(64 * w, x.shape[0]):
            holds = x[t] > y[t] if relation == GT else x[t] >= y[t]
            word |= np.uint64(holds) << np.uint64(t & 63)
        out[w] = word


@kernel(void(F64_ROWS, int64, U64_OUT))
def known(x: F64, low: int, out: U64) -> None:
    """Write where the numbers of each row are known."""
    for r in range(x.shape[0]):
        for w in range(low):
            out[r, w] = 0
        compared(x[r], x[r], GE, low, out[r])  # no NaN is greater than or equal to itself


@kernel(void(F64_ROWS, U64_ROWS, I64_IN, F64_ROWS, U64_ROWS, I64_IN, int64, int64, U64_OUT, U64_OUT))
def compare(
    a: F64, a_known: U64, ia: I64, b: F64, b_known: U64, ib: I64, relation: int, low: int, value: U64, is_known: U64
) -> None:
    """Write ``a relation b``; ``a_known`` and ``b_known`` are those of ``known``."""
    for r in range(ia.shape[0]):
        i = ia[r]
        j = ib[r]
        for w in range(low):
            value[r, w] = 0
            is_known[r, w] = 0
        compared(a[i], b[j], relation, low, value[r])
        for w in range(low, value.shape[1]):
            is_known[r, w] = a_known[i, w] & b_known[j, w]


@kernel(void(F64_ROWS, U64_ROWS, I64_IN, F64_ROWS, U64_ROWS, I64_IN, int64, U64_OUT, U64_OUT))
def cross_up(a: F64, a_known: U64, ia: I64, b: F64, b_known: U64, ib: I64, low: int, value: U64, is_known: U64) -> None:
    """Write ``a > b`` now and not one bar before, both bars known. A cross down is ``cross_up(b, a)``."""
    one = np.uint64(1)
    top = np.uint64(63)
    for r in range(ia.shape[0]):
        i = ia[r]
        j = ib[r]
        for w in range(low):
            value[r, w] = 0
            is_known[r, w] = 0
        compared(a[i], b[j], GT, low, value[r])
        was_above = np.uint64(0)
        was_known = np.uint64(0)
        for w in range(low, value.shape[1]):
            above = value[r, w]
            here = a_known[i, w] & b_known[j, w]
            both = here & ((here << one) | was_known)
            value[r, w] = above & ~((above << one) | was_above) & both
            is_known[r, w] = both
            was_above = above >> top
            was_known = here >> top


@kernel(void(U64_ROWS, U64_ROWS, I64_IN, boolean, U64_OUT, U64_OUT))
def join(value: U64, is_known: U64, index: I64, is_all: bool, whole: U64, whole_known: U64) -> None:
    """Bring a part into ``all`` (``is_all``) or ``any``: what was found so far stands in the last two, and stays there.

    Output row r meets row ``index[r]`` of the part.
    """
    for r in range(index.shape[0]):
        i = index[r]
        for w in range(whole.shape[1]):
            one = whole[r, w]
            other = value[i, w]
            is_false = whole_known[r, w] & ~one
            other_false = is_known[i, w] & ~other
            if is_all:
                one &= other
                is_false |= other_false
            else:
                one |= other
                is_false &= other_false
            whole[r, w] = one
            whole_known[r, w] = one | is_false


@helper
def spread(row: U64, n: int, is_all: bool) -> None:
    """Let each bit be the "and" (``is_all``) or the "or" of itself and the n - 1 before it; before the row are zeros.

    Windows grow by shifting the row over itself, twice as far each time; the last shift may overlap.
    """
    size = 1
    while size < n:
        step = min(size, n - size)
        words = step >> 6
        bits = np.uint64(step & 63)
        for w in range(row.shape[0] - 1, -1, -1):
            shifted = np.uint64(0)
            if w >= words:
                shifted = row[w - words] << bits
                if bits > 0 and w > words:
                    shifted |= row[w - words - 1] >> (np.uint64(64) - bits)
            if is_all:
                row[w] &= shifted
            else:
                row[w] |= shifted
        size += step


@kernel(void(U64_ROWS, U64_ROWS, I64_IN, I64_IN, boolean, int64, U64_OUT, U64_OUT))
def last(value: U64, is_known: U64, index: I64, size: I64, is_all: bool, n: int, out: U64, out_known: U64) -> None:
    """Write whether a condition was true on all (``is_all``: "for") or any ("within") of the last ``size[r]`` bars.

    Bars before the row are unknown: "for" needs as many bars known to be true. ``n``: bars of a row.
    """
    words = out.shape[1]
    for r in range(index.shape[0]):
        i = index[r]
        for w in range(words):
            out[r, w] = value[i, w]
            out_known[r, w] = is_known[i, w] & ~value[i, w]
        spread(out[r], size[r], is_all)
        spread(out_known[r], size[r], not is_all)
        if n & 63:
            inside = ~(_ALL << np.uint64(n & 63))
            out[r, words - 1] &= inside
            out_known[r, words - 1] &= inside
        for w in range(words):
            out_known[r, w] |= out[r, w]


@kernel(void(U64_ROWS, U64_ROWS, I64_IN, F64_ROWS, I64_IN, F64_ROWS, I64_IN, F64_OUT))
def choose(value: U64, is_known: U64, index: I64, then: F64, i_then: I64, other: F64, i_other: I64, out: F64) -> None:
    """Write ``then`` where the condition is true, ``other`` where it is false, NaN where it is unknown."""
    one = np.uint64(1)
    for r in range(index.shape[0]):
        i = index[r]
        for t in range(out.shape[1]):
            w = t >> 6
            bit = np.uint64(t & 63)
            if (value[i, w] >> bit) & one:
                out[r, t] = then[i_then[r], t]
            elif (is_known[i, w] >> bit) & one:
                out[r, t] = other[i_other[r], t]
            else:
                out[r, t] = np.nan
