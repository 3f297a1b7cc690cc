"""Claims: log, exp and power are within 1 ulp of the exact value, and the kernel has the bits of its twin."""

import math
import random
from collections.abc import Callable, Iterator
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import transcend
from tests.reference import transcend as reference

# 60 digits and a wide exponent: the decimal module is correct to its last digit, far beyond float64.
EXACT = Context(prec=60, Emax=10**6, Emin=-(10**6))
TINY, HUGE = 5e-324, 1.7976931348623157e308


def ulps(got: float, exact: Decimal) -> float:
    """Return the distance in units of the last place of ``got``."""
    return float(abs(Fraction(got) - Fraction(exact)) / Fraction(math.ulp(got)))


def near_one(rng: random.Random) -> float:
    return 1.0 + rng.choice((-1, 1)) * rng.random() * 2.0 ** -rng.randint(1, 52)


def positives(seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    for _ in range(500):
        yield rng.uniform(0.5, 2.0)
        yield rng.uniform(0.0, 1e3) + TINY
        yield near_one(rng)
        yield math.ldexp(rng.random() + 0.5, rng.randint(-1073, 1023))
    for edge in (TINY, 2.2250738585072014e-308, HUGE, math.e, 0.5, 2.0, math.sqrt(0.5), math.sqrt(2.0)):
        yield from (edge, math.nextafter(edge, math.inf), math.nextafter(edge, 0.0))


def exponents(seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    for _ in range(500):
        yield rng.uniform(-708.0, 709.78)
        yield rng.uniform(-745.1, -708.0)  # subnormal results
        yield rng.uniform(-1.0, 1.0)
        yield rng.uniform(-1.0, 1.0) * 2.0 ** -rng.randint(1, 60)
    yield from (709.782712893384, 709.7827128933839, -745.1332191019411, -708.3964185322641, TINY, -TINY, 1e-17, 0.0)
    yield from (k * math.log(2.0) / 2.0 for k in range(-40, 41))  # both sides of a change of exponent


def test_log_is_within_one_ulp() -> None:
    with localcontext(EXACT):
        for x in positives(1):
            if x not in (0.0, 1.0, math.inf):
                assert ulps(transcend.log(x), Decimal(x).ln()) <= 1.0, x


def test_exp_is_within_one_ulp() -> None:
    with localcontext(EXACT):
        for x in exponents(2):
            assert ulps(transcend.exp(x), Decimal(x).exp()) <= 1.0, x


def test_power_is_within_one_ulp() -> None:
    """Also where the plain product y log x would have lost ten bits: results from 1e-300 to 1e300."""
    rng = random.Random(3)
    with localcontext(EXACT):
        for _ in range(1500):
            x = rng.choice(
                (rng.uniform(0.01, 30.0), near_one(rng), math.ldexp(rng.random() + 0.5, rng.randint(-900, 900)))
            )
            y = rng.choice((252 / rng.randint(1, 9000), 252.0, 1 / 252, rng.uniform(-300.0, 300.0), 365.0, 2.0, 0.5))
            exact = (Decimal(y) * Decimal(x).ln()).exp()
            if Decimal("1e-307") < exact < Decimal("1e308"):
                assert ulps(transcend.power(x, y), exact) <= 1.0, (x, y)


@pytest.mark.parametrize("x", [2.0, 3.0, 7.0, 10.0, 1.5, 0.25])
@pytest.mark.parametrize("n", range(16))
def test_exact_powers_come_out_exactly(x: float, n: int) -> None:
    assert transcend.power(x, float(n)) == x**n
    assert transcend.power(x * x, 0.5) == x


def bits(value: float) -> str:
    return "nan" if value != value else value.hex()


EDGES = (0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, TINY, HUGE, 0.5, 2.0, -2.5, 800.0, -800.0, 1e300)


@pytest.mark.parametrize(("kernel", "twin"), [(transcend.log, reference.log), (transcend.exp, reference.exp)])
def test_the_kernel_has_the_bits_of_its_twin(kernel: Callable[[float], float], twin: Callable[[float], float]) -> None:
    for x in (*positives(4), *exponents(5), *EDGES):
        assert bits(kernel(x)) == bits(twin(x)), x


@given(x=st.floats(), y=st.floats())
def test_power_has_the_bits_of_its_twin(x: float, y: float) -> None:
    assert bits(transcend.power(x, y)) == bits(reference.power(x, y))


@given(x=st.floats(0.0, 1e6), y=st.floats(-50.0, 50.0))
def test_power_has_the_bits_of_its_twin_in_the_usual_range(x: float, y: float) -> None:
    assert bits(transcend.power(x, y)) == bits(reference.power(x, y))


def test_edges() -> None:
    assert transcend.log(0.0) == -math.inf
    assert transcend.log(1.0) == 0.0
    assert math.isnan(transcend.log(-1.0))
    assert transcend.exp(0.0) == 1.0
    assert transcend.exp(710.0) == math.inf
    assert transcend.exp(-746.0) == 0.0
    assert math.isnan(transcend.exp(math.nan))
    assert transcend.power(0.0, 0.1) == 0.0  # ruin: a growth of zero is a loss of everything a year
    assert math.isnan(transcend.power(-0.5, 0.1))
    assert transcend.power(-0.5, 0.0) == 1.0
    assert transcend.power(0.0, -1.0) == math.inf
    assert [transcend.power(x, y) for x in (0.5, 2.0) for y in (-math.inf, math.inf)] == [math.inf, 0.0, 0.0, math.inf]


@given(x=st.floats(1e-6, 1e6), y=st.floats(1e-6, 1e6))
def test_log_never_decreases(x: float, y: float) -> None:
    low, high = sorted((x, y))
    assert transcend.log(low) <= transcend.log(high)
