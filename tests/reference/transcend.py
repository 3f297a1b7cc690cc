"""The functions of ``kernels/transcend.py`` in plain Python: the same operations in the same order, same bits."""

import math
from fractions import Fraction

Pair = tuple[float, float]


def rest(exact: Fraction, high: float) -> float:
    """Return what ``high`` lacks of ``exact``, rounded."""
    return float(exact - Fraction(high))


LN2 = sum((Fraction(1, k * 2**k) for k in range(1, 400)), Fraction(0))  # -log(1 - 1/2) as a series
LN2_HI = math.floor(LN2 * 2**40) / 2**40  # 40 bits: its product with a binary exponent is exact
LN2_LO = rest(LN2, LN2_HI)
LN2_INVERSE = float(1 / LN2)
THIRD, FIFTH, SIXTH, SEVENTH = ((1 / k, rest(Fraction(1, k), 1 / k)) for k in (3, 5, 6, 7))
SQRT_HALF = math.sqrt(0.5)
SPLITTER = 2.0**27 + 1.0  # Dekker's constant
EXP_OVERFLOW = 709.782712893384  # just above log of the largest float64
EXP_UNDERFLOW = -745.1332191019412  # just below log of half of the smallest subnormal


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
    for term in (SEVENTH, FIFTH, THIRD):
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
    c = multiply(r, add(SIXTH, c))
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
