"""exp, log and power from plain arithmetic, so that their bits do not depend on the machine.

numpy and libm choose their code by the CPU they find (facts.md 5), hence every transcendental that reaches a
fingerprint comes from here. Rules of the file: only ``+ - x /``, floor, comparisons, and frexp/ldexp, which move
the binary exponent and are exact by definition; no fused multiply-add, no table that was computed elsewhere.

Values are carried as *double-doubles*: an unevaluated sum ``hi + lo`` with ``|lo| <= ulp(hi)/2``, about 105 bits
(Dekker 1971; Hida, Li, Bailey 2001). The results are within 0.51 ulp for log, exp and power.

1. log: ``x = m 2^e`` with m around 1, ``s = (m-1)/(m+1)``, ``log m = 2 atanh s`` as a series in ``s^2``; the four
   leading terms in double-double, the tail, which weighs 2^-23, in double.
2. exp: subtract ``k ln 2``, divide by 256, a short Taylor series of ``exp(r) - 1``, then eight doublings
   ``p -> 2p + p^2``, which keep the relative accuracy of p.
3. power: ``exp(y log x)`` without leaving double-double in between.

Source: domain.md 4.3.
"""

import math
from fractions import Fraction

from farm.kernels.jit import helper, kernel

_LN2 = Fraction("0.69314718055994530941723212145817656807550013436025525412068000949339362196969471560586")
# 40 bits, so that its product with any binary exponent (11 bits) is exact.
LN2_HI = float(Fraction(math.floor(_LN2 * 2**40), 2**40))
LN2_LO = float(_LN2 - Fraction(LN2_HI))
LN2_INVERSE = float(1 / _LN2)
SQRT_HALF = 0.7071067811865476
SPLITTER = 134217729.0  # 2^27 + 1, Dekker's constant
# Arguments beyond which exp overflows to infinity, or is less than half of the smallest subnormal.
EXP_OVERFLOW = 709.782712893384
EXP_UNDERFLOW = -745.1332191019412

THIRD_HI, THIRD_LO = 1 / 3, float(Fraction(1, 3) - Fraction(1 / 3))
FIFTH_HI, FIFTH_LO = 1 / 5, float(Fraction(1, 5) - Fraction(1 / 5))
SEVENTH_HI, SEVENTH_LO = 1 / 7, float(Fraction(1, 7) - Fraction(1 / 7))
SIXTH_HI, SIXTH_LO = 1 / 6, float(Fraction(1, 6) - Fraction(1 / 6))


# Without a signature these are compiled as parts of the public ones, and not loaded a second time by themselves.


@helper
def two_sum(a: float, b: float) -> tuple[float, float]:
    """Return the rounded sum of ``a`` and ``b`` and its exact error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@helper
def quick_two_sum(a: float, b: float) -> tuple[float, float]:
    """Return the rounded sum and its exact error, for ``|a| >= |b|`` (Dekker)."""
    s = a + b
    return s, b - (s - a)


@helper
def two_product(a: float, b: float) -> tuple[float, float]:
    """Return the rounded product of ``a`` and ``b`` and its exact error (Dekker; no fused multiply-add)."""
    p = a * b
    t = SPLITTER * a
    ah = t - (t - a)
    al = a - ah
    t = SPLITTER * b
    bh = t - (t - b)
    bl = b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


@helper
def dd_add(ah: float, al: float, bh: float, bl: float) -> tuple[float, float]:
    """Return the sum of two double-doubles that do not cancel."""
    s, e = two_sum(ah, bh)
    return quick_two_sum(s, e + (al + bl))


@helper
def dd_multiply(ah: float, al: float, bh: float, bl: float) -> tuple[float, float]:
    """Return the product of two double-doubles."""
    p, e = two_product(ah, bh)
    return quick_two_sum(p, e + (ah * bl + al * bh))


@helper
def log_dd(x: float) -> tuple[float, float]:
    """Return the natural logarithm of a finite ``x > 0`` as a double-double, relative error below 2^-72."""
    m, e = math.frexp(x)
    if m < SQRT_HALF:
        m = m * 2.0
        e = e - 1
    f = m - 1.0  # exact: m is within a factor of two of 1
    g, g_err = two_sum(m, 1.0)
    q = f / g
    p, p_err = two_product(q, g)
    sh, sl = quick_two_sum(q, (((f - p) - p_err) - q * g_err) / g)
    zh, zl = dd_multiply(sh, sl, sh, sl)
    t = 1 / 29
    t = t * zh + 1 / 27
    t = t * zh + 1 / 25
    t = t * zh + 1 / 23
    t = t * zh + 1 / 21
    t = t * zh + 1 / 19
    t = t * zh + 1 / 17
    t = t * zh + 1 / 15
    t = t * zh + 1 / 13
    t = t * zh + 1 / 11
    t = t * zh + 1 / 9
    ch, cl = dd_multiply(zh, zl, t, 0.0)
    ch, cl = dd_add(SEVENTH_HI, SEVENTH_LO, ch, cl)
    ch, cl = dd_multiply(zh, zl, ch, cl)
    ch, cl = dd_add(FIFTH_HI, FIFTH_LO, ch, cl)
    ch, cl = dd_multiply(zh, zl, ch, cl)
    ch, cl = dd_add(THIRD_HI, THIRD_LO, ch, cl)
    ch, cl = dd_multiply(zh, zl, ch, cl)
    ch, cl = dd_multiply(sh, sl, ch, cl)
    ch, cl = dd_add(sh, sl, ch, cl)
    ch, cl = 2.0 * ch, 2.0 * cl
    if e == 0:
        return ch, cl
    k = float(e)
    bh, bl = two_product(k, LN2_LO)
    bh, bl = dd_add(k * LN2_HI, 0.0, bh, bl)
    return dd_add(bh, bl, ch, cl)


@helper
def exp_dd(h: float, low: float) -> float:
    """Return ``exp(h + low)`` rounded once, for a double-double; infinity and zero outside float64."""
    if h > EXP_OVERFLOW:
        return math.inf
    if h < EXP_UNDERFLOW:
        return 0.0
    k = math.floor(h * LN2_INVERSE + 0.5)
    ph, pl = two_product(float(k), LN2_LO)
    rh, rl = two_sum(h, -(float(k) * LN2_HI))
    rh, rl = quick_two_sum(rh, rl + low)
    rh, rl = dd_add(rh, rl, -ph, -pl)
    rh, rl = rh * 0.00390625, rl * 0.00390625  # 1/256
    t = 1 / 40320
    t = t * rh + 1 / 5040
    t = t * rh + 1 / 720
    t = t * rh + 1 / 120
    t = t * rh + 1 / 24
    ch, cl = dd_multiply(rh, rl, t, 0.0)
    ch, cl = dd_add(SIXTH_HI, SIXTH_LO, ch, cl)
    ch, cl = dd_multiply(rh, rl, ch, cl)
    ch, cl = dd_add(0.5, 0.0, ch, cl)
    ch, cl = dd_multiply(rh, rl, ch, cl)
    ch, cl = dd_multiply(rh, rl, ch, cl)
    ph, pl = dd_add(rh, rl, ch, cl)
    for _ in range(8):
        ch, cl = dd_multiply(ph, pl, ph, pl)
        ph, pl = dd_add(2.0 * ph, 2.0 * pl, ch, cl)
    s, e = two_sum(1.0, ph)
    return math.ldexp(s + (e + pl), int(k))


@kernel("f8(f8)")
def log(x: float) -> float:
    """Return the natural logarithm of ``x`` within 1 ulp; NaN below zero, -inf at zero."""
    if x != x or x < 0.0:
        return math.nan
    if x == 0.0:
        return -math.inf
    if x == math.inf:
        return x
    h, low = log_dd(x)
    return h + low


@kernel("f8(f8)")
def exp(x: float) -> float:
    """Return e to the power of ``x`` within 1 ulp; infinity on overflow."""
    if x != x:
        return x
    return exp_dd(x, 0.0)


@kernel("f8(f8, f8)")
def power(x: float, y: float) -> float:
    """Return ``x`` to the real power ``y`` within 1 ulp.

    Edges: NaN for ``x < 0`` (a growth factor below zero has no annual rate), 1 for ``y = 0``; ``0 ** y`` is 0 or
    infinity by the sign of y.
    """
    if y == 0.0 or x == 1.0:
        return 1.0
    if x != x or y != y or x < 0.0:
        return math.nan
    if x == 0.0:
        return 0.0 if y > 0.0 else math.inf
    if x == math.inf:
        return math.inf if y > 0.0 else 0.0
    h, low = log_dd(x)
    # Also for an infinite y. 2^-53 <= |h| and the product is below 2^10: Dekker's splitting cannot overflow.
    if abs(h * y) > 800.0:
        return math.inf if (h > 0.0) == (y > 0.0) else 0.0
    ph, pl = two_product(h, y)
    ph, pl = quick_two_sum(ph, pl + low * y)
    return exp_dd(ph, pl)
