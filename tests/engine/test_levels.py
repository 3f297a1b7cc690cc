"""Computed order prices are the decimals they stand for (domain.md 3.4): the engine's own helpers against integers.

A price of so many ticks, decoded, is ticks / 10**scale, rounded once; that is ``float(Decimal)``, as the first test
holds. A level meets a print exactly when both have the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from numba import njit

from farm.kernels import formula
from farm.values.arrays import F64, I64
from tests.reference.loop import on_grid

CENTS = np.arange(100, 50_001)  # 1.00 to 500.00
CHAINS = (
    ((3, 1), (1, 3)), ((7, 3), (3, 7)), ((3, 1), (1, 7), (7, 3)), ((30, 1), (1, 9), (523, 500), (3, 10), (500, 523)),
    ((3, 1), (1, 2)), ((7, 3), (9, 7)), ((523, 500), (100, 523), (3, 1)),
)  # fmt: skip
SPLITS = ((2, 1), (3, 2), (1, 30), (7, 1), (1, 8), (20, 1), (5, 4), (3, 1))


@njit
def away(price: F64, part: F64) -> F64:
    """The engine's helper, price by price."""
    out = np.empty_like(price)
    for n in range(price.shape[0]):
        out[n] = formula.away(price[n], part[n])
    return out


@njit
def beside(price: F64, distance: F64) -> F64:
    """The engine's helper, price by price."""
    out = np.empty_like(price)
    for n in range(price.shape[0]):
        out[n] = formula.beside(price[n], distance[n])
    return out


@njit
def restated(level: F64, num: float, den: float) -> F64:
    """The engine's helper, level by level."""
    out = np.empty_like(level)
    for n in range(level.shape[0]):
        out[n] = formula.restated_level(level[n], num, den)
    return out


@njit
def ratio_of(num: F64, den: F64) -> tuple[float, float]:
    """The engine's helper, split by split."""
    more, less = 1.0, 1.0
    for n in range(num.shape[0]):
        more, less = formula.compounded(more, less, num[n], den[n])
    return more, less


def product(chain: Sequence[tuple[int, int]]) -> Fraction:
    """New shares for an old one."""
    return math.prod((Fraction(new, old) for new, old in chain), start=Fraction(1))


def decoded(ticks: I64, scale: int) -> F64:
    """The prices that so many ticks are, as the reader decodes them."""
    assert int(abs(ticks).max()) < 2**53
    return ticks / 10.0**scale


def percentages(step_micro: int, last_micro: int) -> I64:
    """Signed parts in millionths, both ways."""
    parts = np.arange(step_micro, last_micro + 1, step_micro)
    return np.concatenate((-parts[::-1], parts))


def test_a_decoded_price_is_the_decimal() -> None:
    prices = decoded(CENTS, 2)
    assert prices.tolist() == [float(Decimal(ticks) / 100) for ticks in CENTS.tolist()]


@pytest.mark.parametrize("percent", range(1, 51))
def test_every_price_and_percentage(percent: int) -> None:
    """All cents from 1.00 to 500.00, stops and targets of 1 to 50 %: the bits of the decimal, no exception."""
    part = np.full(CENTS.shape[0], percent / 100)
    for sign in (1, -1):
        exact = decoded(CENTS * (100 + sign * percent), 4)
        assert np.array_equal(away(decoded(CENTS, 2), sign * part), exact)
        assert np.array_equal(beside(decoded(CENTS, 2), sign * part), decoded(CENTS + sign * percent, 2))
    sample = CENTS[percent::997]
    assert away(decoded(sample, 2), part[: len(sample)]).tolist() == [
        float(Decimal(ticks) / 100 * (100 + percent) / 100) for ticks in sample.tolist()
    ]


def test_it_was_needed() -> None:
    """Without the grid, a third of the stops of 5 % that fall on a cent miss it, and half of the targets of 10 %."""
    nickels, dimes = CENTS[CENTS % 20 == 0], CENTS[CENTS % 10 == 0]
    missed = decoded(nickels, 2) * (1.0 - 0.05) != decoded(nickels * 95 // 100, 2)
    assert 0.25 < missed.mean() < 0.40
    missed = decoded(dimes, 2) * (1.0 + 0.1) != decoded(dimes * 110 // 100, 2)
    assert 0.40 < missed.mean() < 0.60


@pytest.mark.parametrize("slip_bps", [1, 5, 30])
def test_from_fills_with_slippage(slip_bps: int) -> None:
    """A fill at a print and five basis points is a decimal too, off by the roundings of the slippage."""
    for side in (1, -1):
        filled = decoded(CENTS, 2) * (1.0 + side * (slip_bps / 1e4))
        for percent in (1, 3, 7, 10, 33, 50, -5, -20):
            exact = decoded(CENTS * (10_000 + side * slip_bps) * (100 + percent), 8)
            assert np.array_equal(away(filled, np.full(CENTS.shape[0], percent / 100)), exact)


@pytest.mark.parametrize(
    ("ticks", "scale", "step_micro"),
    [
        (np.arange(1, 3_000), 8, 1_000),  # 1e-8 to 3e-5, tenths of a percent
        (np.arange(100_000, 150_000, 7), 5, 500),  # currencies
        (np.arange(5_000_000, 7_000_000, 997), 2, 5_000),  # 50,000 to 70,000
        (np.arange(69_990_000, 70_010_000, 7), 2, 100),  # 700,000, hundredths of a percent
        (np.arange(89_900_000, 90_100_000, 97), 0, 1_000),  # ninety million
    ],
)
def test_tiny_and_huge_prices(ticks: I64, scale: int, step_micro: int) -> None:
    """As far as float64 can hold the decimal: 1.2e-5 at 8 decimals as well as 700,000.00."""
    for part in percentages(step_micro * 10, 900_000)[::3].tolist():
        exact = np.array([float(Fraction(n * (1_000_000 + part), 10 ** (6 + scale))) for n in ticks[::53].tolist()])
        assert np.array_equal(away(decoded(ticks[::53], scale), np.full(ticks[::53].shape[0], part / 1e6)), exact)


@pytest.mark.parametrize(("num", "den"), SPLITS)
def test_after_a_split(num: int, den: int) -> None:
    """Every cent, restated: the decimal where there is one, the nearest of the grid where not."""
    found = restated(decoded(CENTS, 2), float(num), float(den)).tolist()
    for level, cents in zip(found[::7], CENTS[::7].tolist(), strict=True):
        quotient = Fraction(cents * den, 100 * num)
        digits = next(g for g in range(12, -1, -1) if quotient * 10**g < 2**48)
        assert level == float(round(quotient, digits))


@pytest.mark.parametrize(("num", "den"), SPLITS)
def test_prints_after_a_split_meet_their_levels(num: int, den: int) -> None:
    """Levels of 1 to 50 %, restated: where the exact quotient is a print of 4 decimals, its bits are those."""
    for percent in range(1, 51):
        level = away(decoded(CENTS, 2), np.full(CENTS.shape[0], -percent / 100))
        top, bottom = CENTS * (100 - percent) * den, num
        is_print = top % bottom == 0
        assert is_print.any()
        found = restated(level[is_print], float(num), float(den))
        assert np.array_equal(found, decoded(top[is_print] // bottom, 4))


@pytest.mark.parametrize("chain", CHAINS)
def test_after_a_chain_of_splits(chain: Sequence[tuple[int, int]]) -> None:
    """Levels of 1 to 50 %, restated once by the product of the ratios: it is exact, and where it is 1 nothing changes.

    Restated split by split, a third of all cents miss the decimal after 3 for 1 and 1 for 3.
    """
    exact = product(chain)
    num, den = ratio_of(*np.array(chain, np.float64).T.copy())
    assert (num, den) == (exact.numerator, exact.denominator)
    for percent in range(1, 51, 7):
        level = away(decoded(CENTS, 2), np.full(CENTS.shape[0], -percent / 100))
        top, bottom = CENTS * (100 - percent) * exact.denominator, exact.numerator
        is_print = top % bottom == 0
        assert is_print.any()
        assert np.array_equal(restated(level[is_print], num, den), decoded(top[is_print] // bottom, 4))
    by_split = decoded(CENTS, 2)
    for new, old in CHAINS[0]:
        by_split = restated(by_split, float(new), float(old))
    assert (by_split != decoded(CENTS, 2)).mean() > 0.3


def test_a_chain_whose_terms_are_beyond_float64() -> None:
    """Ratios of seven digits, there and back: the product of three is rounded, the level comes back all the same."""
    there = [(1_123_457, 1_000_000), (1_000_003, 999_983), (1_234_577, 1_000_000)]
    num, den = ratio_of(*np.array(there, np.float64).T.copy())
    assert product(there).numerator > 2**53
    assert num / den == pytest.approx(float(product(there)), rel=1e-15)
    num, den = ratio_of(*np.array(there + [(old, new) for new, old in there[::-1]], np.float64).T.copy())
    assert np.array_equal(restated(decoded(CENTS, 2), num, den), decoded(CENTS, 2))


def test_the_twin_has_the_same_grid() -> None:
    """Over all magnitudes, signs and thresholds, NaN and infinity too."""
    random = np.random.default_rng(7)
    x = np.concatenate((
        10.0 ** random.uniform(-9, 20, 20_000) * random.choice((-1.0, 1.0), 20_000),
        np.nextafter(2.0**48 / 10.0 ** np.arange(13), 0.0), 2.0**48 / 10.0 ** np.arange(13), [0.0, np.inf, -np.inf],
    ))  # fmt: skip
    assert beside(x, np.zeros_like(x)).tolist() == [on_grid(one) for one in x.tolist()]
    assert np.isnan(beside(np.array([np.nan]), np.zeros(1))).all() and np.isnan(on_grid(float("nan")))


def test_a_price_on_the_grid_stays() -> None:
    """What is put on the grid twice is what is put on it once."""
    random = np.random.default_rng(8)
    once = beside(10.0 ** random.uniform(-6, 9, 20_000), np.zeros(20_000))
    assert np.array_equal(beside(once, np.zeros(20_000)), once)
