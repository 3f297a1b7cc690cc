"""The functions of ``kernels/transcend.py`` in plain Python: the same operations in the same order, same bits."""

import math
from fractions import Fraction

# ln 2 to 90 digits, its upper part in 40 bits; what is not exact in float64 is a pair whose second part is the rest.
LN2 = Fraction("0.69314718055994530941723212145817656807550013436025525412068000949339362196969471560586")
LN2_HI = math.floor(LN2 * 2**40) / 2**40
LN2_LO = float(LN2 - Fraction(LN2_HI))
LN2_INVERSE = float(1 / LN2)
SQRT_HALF = math.sqrt(0.5)
SPLITTER = 2.0**27 + 1
EXP_OVERFLOW = 709.782712893384
EXP_UNDERFLOW = -745.1332191019412
(THIRD_HI, THIRD_LO), (FIFTH_HI, FIFTH_LO), (SIXTH_HI, SIXTH_LO), (SEVENTH_HI, SEVENTH_LO) = (
    (1 / n, float(Fraction(1, n) - Fraction(1 / n))) for n in (3, 5, 6, 7)
)

Pair = tuple[float, float]


def two_sum(a: float, b: float) -> Pair:
    """Return the rounded sum and its exact error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def quick_two_sum(a: float, b: float) -> Pair:
    """Return the rounded sum and its exact error, for ``|a| >= |b|``."""
    s = a + b
    return s, b - (s - a)


def split(a: float) -> Pair:
    """Return the upper 26 bits of ``a`` and the rest."""
    t = SPLITTER * a
    high = t - (t - a)
    return high, a - high


def two_product(a: float, b: float) -> Pair:
    """Return the rounded product and its exact error."""
    p = a * b
    ah, al = split(a)
    bh, bl = split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def add(a: Pair, b: Pair) -> Pair:
    """Return the sum of two double-doubles."""
    s, e = two_sum(a[0], b[0])
    return quick_two_sum(s, e + (a[1] + b[1]))


def multiply(a: Pair, b: Pair) -> Pair:
    """Return the product of two double-doubles."""
    p, e = two_product(a[0], b[0])
    return quick_two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def log_dd(x: float) -> Pair:
    """Return log of a finite positive ``x`` as a double-double."""
    m, e = math.frexp(x)
    if m < SQRT_HALF:
        m, e = m * 2.0, e - 1
    f = m - 1.0
    g, g_err = two_sum(m, 1.0)
    q = f / g
    p, p_err = two_product(q, g)
    s = quick_two_sum(q, (((f - p) - p_err) - q * g_err) / g)
    z = multiply(s, s)
    t = 1 / 29
    for k in (27, 25, 23, 21, 19, 17, 15, 13, 11, 9):
        t = t * z[0] + 1 / k
    c = multiply(z, (t, 0.0))
    for term in ((SEVENTH_HI, SEVENTH_LO), (FIFTH_HI, FIFTH_LO), (THIRD_HI, THIRD_LO)):
        c = multiply(z, add(term, c))
    c = add(s, multiply(s, c))
    c = (2.0 * c[0], 2.0 * c[1])
    if e == 0:
        return c
    k_ln2 = add((float(e) * LN2_HI, 0.0), two_product(float(e), LN2_LO))
    return add(k_ln2, c)


def exp_dd(h: float, low: float) -> float:
    """Return exp of a double-double, rounded once."""
    if h > EXP_OVERFLOW:
        return math.inf
    if h < EXP_UNDERFLOW:
        return 0.0
    k = math.floor(h * LN2_INVERSE + 0.5)
    p = two_product(float(k), LN2_LO)
    rh, rl = two_sum(h, -(float(k) * LN2_HI))
    rh, rl = add(quick_two_sum(rh, rl + low), (-p[0], -p[1]))
    r = (rh / 256.0, rl / 256.0)
    t = 1 / 40320
    for factorial in (5040, 720, 120, 24):
        t = t * r[0] + 1 / factorial
    c = multiply(r, (t, 0.0))
    c = multiply(r, add((SIXTH_HI, SIXTH_LO), c))
    c = multiply(r, multiply(r, add((0.5, 0.0), c)))
    p = add(r, c)
    for _ in range(8):
        p = add((2.0 * p[0], 2.0 * p[1]), multiply(p, p))
    s, e = two_sum(1.0, p[0])
    return math.ldexp(s + (e + p[1]), k)


def log(x: float) -> float:
    """Return the natural logarithm of ``x``."""
    if x != x or x < 0.0:
        return math.nan
    if x == 0.0:
        return -math.inf
    if x == math.inf:
        return x
    h, low = log_dd(x)
    return h + low


def exp(x: float) -> float:
    """Return e to the power of ``x``."""
    return x if x != x else exp_dd(x, 0.0)


def power(x: float, y: float) -> float:
    """Return ``x`` to the real power ``y``."""
    if y == 0.0 or x == 1.0:
        return 1.0
    if x != x or y != y or x < 0.0:
        return math.nan
    if x == 0.0:
        return 0.0 if y > 0.0 else math.inf
    if x == math.inf:
        return math.inf if y > 0.0 else 0.0
    h, low = log_dd(x)
    if abs(h * y) > 800.0:
        return math.inf if (h > 0.0) == (y > 0.0) else 0.0
    p, e = two_product(h, y)
    return exp_dd(*quick_two_sum(p, e + low * y))
