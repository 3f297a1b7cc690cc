"""The kernels of ``farm/kernels/masks.py`` in plain Python: bar by bar, over None, True and False.

Rules: same arguments, same results to the bit, no numba. Words are taken apart, each row is judged by ``logic.py`` as
the laws are written in books, and put together again.
"""

import math

import numpy as np

from farm.values.arrays import F64, I64, U8, U64
from tests.reference import logic


def flags(words: U64, n: int) -> U8:
    """Return the first ``n`` bits of a row of words, bit 0 of word 0 first."""
    return np.array([int(words[t // 64]) >> (t % 64) & 1 for t in range(n)], np.uint8)


def store(words: U64, bits: U8, low: int = 0) -> None:
    """Write bits into a row of words; those of words before ``low`` are 0."""
    for w in range(words.shape[0]):
        mine = [int(bit) << t for t, bit in enumerate(bits[64 * w : 64 * w + 64])]
        words[w] = sum(mine) if w >= low else 0


def truth(value: U64, is_known: U64, n: int) -> U8:
    """Return a row as ``logic.py`` has it: (2, n)."""
    return np.stack([flags(value, n), flags(is_known, n)])


def known(x: F64, low: int, out: U64) -> None:
    """Write where the numbers of each row are known."""
    for row, words in zip(x, out, strict=True):
        store(words, np.array([not math.isnan(number) for number in row], np.uint8), low)


def compare(
    a: F64, a_known: U64, ia: I64, b: F64, b_known: U64, ib: I64, relation: int, low: int, value: U64, is_known: U64
) -> None:
    """Write ``a relation b``."""
    for r, (i, j) in enumerate(zip(ia, ib, strict=True)):
        found = np.empty((2, a.shape[1]), np.uint8)
        logic.compare(a[i], b[j], relation, found)
        store(value[r], found[0], low)
        store(is_known[r], found[1], low)


def cross_up(a: F64, a_known: U64, ia: I64, b: F64, b_known: U64, ib: I64, low: int, value: U64, is_known: U64) -> None:
    """Write ``a > b`` now and not one bar before, both bars known; what stands before word ``low`` is unknown."""
    for r, (i, j) in enumerate(zip(ia, ib, strict=True)):
        found = np.zeros((2, a.shape[1]), np.uint8)
        logic.cross_up(a[i][64 * low :], b[j][64 * low :], found[:, 64 * low :])
        store(value[r], found[0])
        store(is_known[r], found[1])


def join(value: U64, is_known: U64, index: I64, is_all: bool, whole: U64, whole_known: U64) -> None:
    """Bring a part into ``all`` or ``any``."""
    n = 64 * whole.shape[1]
    for r, i in enumerate(index):
        found = np.empty((2, n), np.uint8)
        logic.join(truth(whole[r], whole_known[r], n), truth(value[i], is_known[i], n), is_all, found)
        store(whole[r], found[0])
        store(whole_known[r], found[1])


def last(value: U64, is_known: U64, index: I64, size: I64, is_all: bool, n: int, out: U64, out_known: U64) -> None:
    """Write whether a condition was true on all or any of the last ``size[r]`` bars."""
    for r, i in enumerate(index):
        found = np.empty((2, n), np.uint8)
        logic.last(truth(value[i], is_known[i], n), int(size[r]), is_all, found)
        store(out[r], found[0])
        store(out_known[r], found[1])


def choose(value: U64, is_known: U64, index: I64, then: F64, i_then: I64, other: F64, i_other: I64, out: F64) -> None:
    """Write ``then`` where the condition is true, ``other`` where it is false, NaN where it is unknown."""
    for r, i in enumerate(index):
        condition = truth(value[i], is_known[i], out.shape[1])
        logic.choose(condition, then[i_then[r]], other[i_other[r]], out[r])
