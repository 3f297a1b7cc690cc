"""The rolling kernels: bit parity with the plain twin, exact rationals, TA-Lib, real series (domain.md 2.5, 5, 6.2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import rolling
from farm.signals.series import CODES, restated
from farm.values.arrays import F64, readonly
from farm.values.indicators import INDICATORS, settle_bars
from tests.reference import rolling as plain
from tests.signals.support import compute, grid_of, mean_on_grid

WINDOWS = ("sma", "stddev", "max", "min", "roc", "ret")


def test_every_indicator_has_its_formula() -> None:
    """What the registry describes is what signals can compute, and nothing else."""
    assert set(CODES) == set(INDICATORS)


def ticks(max_size: int = 60) -> st.SearchStrategy[list[int]]:
    """Prices in ticks: walks, constants, jumps over many magnitudes."""
    return st.one_of(
        st.lists(st.integers(1, 10_000), max_size=max_size),
        st.lists(st.sampled_from((1, 2, 10**6, 10**12)), max_size=max_size),
        st.builds(lambda value, count: [value] * count, st.integers(1, 10**9), st.integers(0, max_size)),
    )


def decoded(values: list[int], scale: int) -> F64:
    return readonly(np.array(values, np.float64) / 10.0**scale)


def same_bits(expected: F64, actual: F64) -> bool:
    """Equal to the bit, any NaN for any NaN."""
    known = ~np.isnan(expected)
    return bool(
        np.array_equal(known, ~np.isnan(actual))
        and np.array_equal(expected[known].view(np.int64), actual[known].view(np.int64))
    )


def both(name: str, x: F64, *arguments: Any) -> tuple[F64, F64]:
    outs = np.full(x.shape[0], 7.0), np.full(x.shape[0], 7.0)
    getattr(plain, name)(x, *arguments, outs[0])
    getattr(rolling, name)(x, *arguments, outs[1])
    return outs


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mean", ()),
        ("deviation", ()),
        ("extreme", (True,)),
        ("extreme", (False,)),
        ("ema", ()),
        ("rsi", ()),
        ("change_ratio", (100.0,)),
        ("change_ratio", (1.0,)),
    ],
)
@given(values=st.lists(st.floats(-1e9, 1e9), max_size=40), n=st.integers(1, 12))
def test_kernels_equal_their_twins(name: str, arguments: tuple[Any, ...], values: list[float], n: int) -> None:
    assert same_bits(*both(name, readonly(np.array(values)), n, *arguments))


@given(values=ticks(), scale=st.integers(0, 8), factors=st.lists(st.sampled_from((1.0, 2.0, 1.5, 0.1)), max_size=60))
def test_grid_kernels_equal_their_twins(values: list[int], scale: int, factors: list[float]) -> None:
    x = decoded(values, scale)
    factor = readonly(np.array((factors + [1.0] * 60)[: x.shape[0]]))
    made = [np.empty(x.shape[0] + 1, np.int64) for _ in range(4)]
    plain.grid_sums(x, factor, 10.0**scale, made[0], made[1])
    rolling.grid_sums(x, factor, 10.0**scale, made[2], made[3])
    assert np.array_equal(made[0], made[2]) and np.array_equal(made[1], made[3])
    for n in (1, 3, 10):
        assert same_bits(*both("mean_on_grid", readonly(x * factor), made[0], made[1], 10**scale, n))


@given(values=ticks(), factors=st.lists(st.sampled_from((1.0, 2.0, 3.0, math.nan)), min_size=120, max_size=120))
def test_tick_sums_of_many_rows_equal_their_twin(values: list[int], factors: list[float]) -> None:
    x = np.stack([decoded(values, 2)] * 3)
    bars = x.shape[1]
    num, den = (np.resize(np.array(part), x.shape) for part in (factors[:60], factors[60:]))
    num[0] = den[0] = 1.0
    made = []
    for kernels in (plain, rolling):
        sums, off, is_whole = (
            np.empty((3, bars + 1), np.int64),
            np.empty((3, bars + 1), np.int64),
            np.empty(3, np.uint8),
        )
        kernels.tick_sums(x, num, den, 100.0, sums, off, is_whole)
        made.append([sums.tolist(), off.tolist(), is_whole.tolist()])
    assert made[0] == made[1] and made[0][2][0] == 1


@given(numerator=st.integers(-(2**62) + 1, 2**62 - 1), denominator=st.integers(1, 2**62 - 1))
def test_quotient_is_rounded_once(numerator: int, denominator: int) -> None:
    assert rolling.quotient(numerator, denominator) == float(Fraction(numerator, denominator))


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [(2**53 + 1, 1), (2**54 + 2, 1), (2**62 - 1, 1), (2**53 + 1, 2), (1, 2**62 - 1), (2**61 + 2**8 + 1, 3), (0, 2**60)],
)
def test_quotient_at_the_edges(numerator: int, denominator: int) -> None:
    """Ties go to even, digits below the last one break them."""
    assert rolling.quotient(numerator, denominator) == float(Fraction(numerator, denominator))


@given(values=ticks(), scale=st.integers(0, 8), n=st.integers(1, 20))
def test_sma_on_the_grid_is_correctly_rounded(values: list[int], scale: int, n: int) -> None:
    x = decoded(values, scale)
    grid = grid_of(x, np.ones(x.shape[0]), np.ones(x.shape[0]), scale)
    assert grid is not None
    for t, found in enumerate(mean_on_grid(x, grid, 0, n)):
        if t < n - 1:
            assert math.isnan(found)
        else:
            assert found == float(Fraction(sum(values[t + 1 - n : t + 1]), n * 10**scale))


def test_sma_does_not_depend_on_the_scale_a_price_is_stored_at() -> None:
    """Shards of a finer scale may be appended later; the same prices keep their bits."""
    values = np.random.default_rng(1).integers(1, 10**7, 400)
    means = []
    for scale in (2, 8):
        x = decoded([int(value) * 10 ** (scale - 2) for value in values], scale)
        grid = grid_of(x, np.ones(400), np.ones(400), scale)
        assert grid is not None
        means.append(mean_on_grid(x, grid, 0, 50))
    assert same_bits(*means)


@pytest.mark.parametrize("split_at", [3, 30, 77])
@pytest.mark.parametrize(("num", "den"), [(3, 2), (1, 10), (7, 3), (1, 1000), (99991, 99989)])
def test_sma_after_a_fractional_split_is_exact(split_at: int, num: int, den: int) -> None:
    """Whatever the ratio and however the window lies over it: the mean of the exact prices, rounded once."""
    values = np.random.default_rng(2).integers(1, 10**5, 90).tolist()
    x, n = decoded(values, 4), 7
    is_after = np.arange(90) >= split_at
    nums, dens = np.where(is_after, float(num), 1.0), np.where(is_after, float(den), 1.0)
    grid = grid_of(x, nums, dens, 4)
    assert grid is not None
    adjusted = restated(x, nums, dens, 4, x * (nums / dens))
    exact = [Fraction(value, 10**4) * (Fraction(num, den) if k >= split_at else 1) for k, value in enumerate(values)]
    assert adjusted.tolist() == [float(value) for value in exact]
    for begin in (0, 5, split_at - 2):
        found = mean_on_grid(adjusted, grid, begin, n)
        for t in range(begin + n - 1, 90):
            assert found[t - begin] == float(sum(exact[t + 1 - n : t + 1]) / n)


def test_sma_depends_on_the_window_only_where_a_factor_is_not_known_exactly() -> None:
    """Windows with such a bar are added in order, others stay exact."""
    values = np.random.default_rng(2).integers(1, 10**5, 90).tolist()
    x, n, cut = decoded(values, 4), 7, 30
    is_after = np.arange(90) >= cut
    num = np.where(is_after, np.nan, 1.0)
    grid = grid_of(x, num, num, 4)
    assert grid is not None
    adjusted = readonly(np.where(is_after, x * 1.7, x))
    found = mean_on_grid(adjusted, grid, 0, n)
    for t in range(n - 1, 90):
        window = adjusted[t + 1 - n : t + 1]
        if t < cut:
            assert found[t] == float(Fraction(sum(values[t + 1 - n : t + 1]), n * 10**4))
        else:
            out = np.empty(n)
            rolling.mean(window, n, out)
            assert found[t] == out[-1]


def test_sma_of_very_long_windows_stays_exact() -> None:
    values = np.random.default_rng(3).integers(2**40, 2**49, 5000).tolist()
    x = decoded(values, 0)
    grid = grid_of(x, np.ones(5000), np.ones(5000), 0)
    assert grid is not None
    found = mean_on_grid(x, grid, 0, 4500)
    for t in (4499, 4700, 4999):
        assert found[t] == float(Fraction(sum(values[t - 4499 : t + 1]), 4500))


def test_ticks_that_do_not_fit_are_added_as_numbers() -> None:
    """Sums that would leave int64 are never wrapped."""
    x = readonly(np.full(3000, 2.0**50 + 1.0))
    grid = grid_of(x, np.ones(3000), np.ones(3000), 0)
    assert grid is not None
    assert mean_on_grid(x, grid, 0, 3000)[-1] == pytest.approx(2.0**50 + 1.0, rel=1e-12)
    huge = readonly(np.full(8, 1e300))
    grid = grid_of(huge, np.ones(8), np.ones(8), 2)
    assert grid is not None
    assert mean_on_grid(huge, grid, 0, 4)[-1] == 1e300


@pytest.mark.parametrize("name", WINDOWS)
@given(values=ticks(), n=st.integers(2, 12), cut=st.integers(0, 60))
def test_bits_of_windows_do_not_depend_on_where_the_series_begins(
    name: str, values: list[int], n: int, cut: int
) -> None:
    x = decoded(values, 4)
    whole, part = compute(name, x, n), compute(name, readonly(x[cut:]), n)
    ready = INDICATORS[name].lookback(n)
    assert same_bits(whole[cut:][ready:], part[ready:])


def deviation_exact(x: F64, t: int, n: int) -> float:
    window = [Fraction(float(value)) for value in x[t + 1 - n : t + 1]]
    centre = sum(window) / n
    return math.sqrt(sum((value - centre) ** 2 for value in window) / n)


def ema_exact(x: F64, n: int) -> list[Fraction]:
    e = sum(Fraction(float(value)) for value in x[:n]) / n
    found = [e]
    for value in x[n:]:
        e = e + (Fraction(float(value)) - e) * Fraction(2, n + 1)
        found.append(e)
    return found


def rsi_exact(x: F64, n: int) -> list[Fraction]:
    changes = [Fraction(float(b)) - Fraction(float(a)) for a, b in itertools.pairwise(x)]
    gain = sum(max(change, Fraction(0)) for change in changes[:n]) / n
    loss = sum(max(-change, Fraction(0)) for change in changes[:n]) / n
    found = []
    for change in [None, *changes[n:]]:
        if change is not None:
            gain = (gain * (n - 1) + max(change, Fraction(0))) / n
            loss = (loss * (n - 1) + max(-change, Fraction(0))) / n
        found.append(100 * gain / (gain + loss) if gain + loss else Fraction(0))
    return found


@given(values=st.lists(st.integers(1, 10**6), min_size=3, max_size=50), n=st.integers(2, 10))
def test_every_indicator_is_close_to_the_exact_rational(values: list[int], n: int) -> None:
    """Within 1e-12 of the largest value (for ratios: of 100)."""
    x = decoded(values, 2)
    size = float(np.max(x))
    for name, exact in (("ema", ema_exact), ("rsi", rsi_exact)):
        ready = INDICATORS[name].lookback(n)
        if len(values) > ready:
            found = compute(name, x, n)[ready:]
            bound = 1e-12 * (size if name == "ema" else 100.0)
            assert max(abs(float(a - Fraction(float(b)))) for a, b in zip(exact(x, n), found, strict=True)) <= bound
    for t in range(n, len(values)):
        old, new = Fraction(float(x[t - n])), Fraction(float(x[t]))
        ratio = max(1.0, float(new / old))
        assert compute("ret", x, n)[t] == pytest.approx(float(new / old - 1), abs=1e-12 * ratio)
        assert compute("roc", x, n)[t] == pytest.approx(float((new / old - 1) * 100), abs=1e-10 * ratio)
        assert compute("stddev", x, n)[t] == pytest.approx(deviation_exact(x, t, n), abs=1e-12 * size)
        assert compute("max", x, n)[t] == max(x[t + 1 - n : t + 1])
        assert compute("min", x, n)[t] == min(x[t + 1 - n : t + 1])


# Ours -> TA-Lib's function, and how far TA-Lib itself may be off, in units of the largest value. Its sma and stddev
# keep running sums over the whole series; its ema and rsi may come from a build that fuses multiply and add, which
# moves a last bit now and then; roc, max and min are the same operations in the same order.
TALIB: dict[str, tuple[Callable[..., F64], float]] = {
    "sma": (talib.SMA, 1e-13),
    "ema": (talib.EMA, 2e-15),
    "rsi": (talib.RSI, 1e-14),
    "roc": (talib.ROC, 0.0),
    "stddev": (lambda x, n: talib.STDDEV(x, n, 1.0), 5e-10),
    "max": (talib.MAX, 0.0),
    "min": (talib.MIN, 0.0),
}


def compare_with_talib(x: F64, n: int) -> None:
    for name, (theirs, bound) in TALIB.items():
        expected = theirs(x.copy(), n)
        actual = compute(name, x, n)
        assert np.array_equal(np.isnan(expected), np.isnan(actual)), f"{name} begins elsewhere"
        assert int(np.isnan(actual).sum()) == INDICATORS[name].lookback(n)
        known = ~np.isnan(actual)
        scale = 100.0 if name == "rsi" else float(np.max(np.abs(x)))
        assert np.max(np.abs(expected[known] - actual[known])) <= bound * scale, name


@pytest.mark.parametrize("n", [2, 3, 14, 50, 200])
@pytest.mark.parametrize("shape", ["walk", "steps", "saw"])
def test_agreement_with_talib(n: int, shape: str) -> None:
    random = np.random.default_rng(n)
    walk = np.round(50 * np.exp(np.cumsum(random.normal(0, 0.02, 1500))), 2)
    steps = np.repeat(np.round(random.uniform(1, 1000, 30), 2), 50)
    saw = np.tile(np.array([10.0, 10.5, 11.0, 10.25, 9.75]), 300)
    compare_with_talib(readonly({"walk": walk, "steps": steps, "saw": saw}[shape]), n)


@pytest.mark.parametrize("n", [10, 30, 200])
def test_agreement_with_talib_on_real_series(market_data: Path, n: int) -> None:
    """Real closes of every listed ticker with enough of them."""
    table = pq.read_table(market_data / "us_equity_daily.parquet")
    names = table.column_names
    symbol = next(name for name in ("symbol", "ticker", "key") if name in names)
    symbols = np.asarray(table.column(symbol).to_pylist())
    close = table.column("close").to_numpy()
    checked = 0
    for ticker in ("AAPL", "SPY", "BAC", "FB"):
        x = readonly(np.ascontiguousarray(close[symbols == ticker]))
        if x.shape[0] > 300:
            compare_with_talib(x, n)
            checked += 1
    assert checked >= 2


def test_constant_windows_do_not_deviate() -> None:
    x = readonly(np.array([1.0, 0.1 + 0.2, *([1234.567] * 10)]))
    assert not compute("stddev", x, 5)[6:].any()
    assert compute("stddev", x, 5)[5] > 0


def test_flat_series_have_rsi_zero_as_in_talib() -> None:
    x = readonly(np.full(20, 7.7))
    assert not compute("rsi", x, 5)[5:].any()


@pytest.mark.parametrize(("alpha", "bars"), [(2 / 201, 3674), (1 / 14, 496), (1.0, 0)])
def test_settle_bars_of_the_domain_document(alpha: float, bars: int) -> None:
    assert settle_bars(alpha) == bars


@pytest.mark.parametrize("name", ["ema", "rsi"])
@pytest.mark.parametrize("n", [2, 5, 14])
def test_after_settling_the_start_no_longer_shows(name: str, n: int) -> None:
    """Two different pasts, one present: equal to about an ulp after K bars."""
    random = np.random.default_rng(5)
    settle = INDICATORS[name].settle(n)
    common = random.uniform(90, 110, settle + n + 50)
    first, second = (compute(name, np.concatenate((past, common)), n)[-50:] for past in (common[:40] * 3, common[:9]))
    assert np.max(np.abs(first - second)) <= 1e-11


@given(values=st.lists(st.one_of(st.none(), st.integers(1, 1000)), max_size=40), n=st.integers(2, 5))
def test_gaps_are_left_out(values: list[int | None], n: int) -> None:
    """An indicator of a series with unknowns is that of the known values, at their bars."""
    x = readonly(np.array([math.nan if value is None else value / 4 for value in values], np.float64))
    known = ~np.isnan(x)
    for name in INDICATORS:
        found = compute(name, x, n)
        assert same_bits(compute(name, readonly(np.ascontiguousarray(x[known])), n), found[known])
        assert np.isnan(found[~known]).all()
