"""Claims: the reductions have the bits of their twins, on any CPU; sums do not depend on how they were vectorised."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import reduce
from farm.values.arrays import readonly
from farm.values.metrics import METRIC_NAMES
from tests.reference import reduce as reference

NO_FLOATS = np.empty(0)
NO_TRADES = np.empty(0, np.int64)


def bits(values: Any) -> list[int]:
    """Return the bit patterns, with one NaN."""
    array = np.array(values, np.float64)
    array[np.isnan(array)] = math.nan
    return [int(b) for b in array.view(np.uint64)]


finite = st.floats(-1e12, 1e12)


@given(st.lists(finite, max_size=70))
def test_lane_sum_has_the_bits_of_its_twin(x: list[float]) -> None:
    assert bits([reduce.lane_sum(np.array(x))]) == bits([reference.lane_sum(x)])


@given(st.lists(st.tuples(finite, finite), max_size=70))
def test_lane_dot_has_the_bits_of_its_twin(pairs: list[tuple[float, float]]) -> None:
    x, y = [p for p, _ in pairs], [q for _, q in pairs]
    assert bits([reduce.lane_dot(np.array(x), np.array(y))]) == bits([reference.lane_dot(x, y)])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 3270, 100_001])
def test_lane_sum_is_close_to_the_exact_sum(n: int) -> None:
    x = np.random.default_rng(n).normal(3e-4, 0.012, n)
    exact = sum(map(Fraction, x.tolist()))
    assert abs(reduce.lane_sum(x) - float(exact)) <= 1e-16 * float(sum(abs(Fraction(v)) for v in x.tolist())) * 8


def test_lanes_are_added_as_written() -> None:
    """Eight values, one per lane: the pairwise order of domain.md 4.3 and no other gives this result."""
    x = [1.0, 1e16, -1e16, 3.0, 1e-3, 7.0, 1e8, -1e8]
    expected = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]))
    assert reduce.lane_sum(np.array(x)) == expected


def test_kernels_accept_read_only_arrays() -> None:
    x = np.arange(10.0)
    x.flags.writeable = False
    assert reduce.lane_sum(x) == 45.0
    assert reduce.lane_dot(x, x) == 285.0


def case(rng: np.random.Generator, n: int, trades: int, with_benchmark: bool) -> dict[str, Any]:
    """Return the arguments of one random account, flat stretches, ties, gaps in the benchmark and all."""
    moves = np.where(rng.random(n) < 0.3, 0.0, rng.normal(0.0, 0.02, n))
    equity = np.maximum((1e10 * np.cumprod(1.0 + moves)).astype(np.int64), 1)
    benchmark = rng.normal(0.0, 0.01, n)
    benchmark[rng.random(n) < 0.1] = math.nan
    return {
        "base": 10**10,
        "base_day": 12_000,
        "equity": equity,
        "day": (12_000 + np.cumsum(rng.integers(1, 4, n))).astype(np.int32),
        "benchmark": benchmark if with_benchmark else NO_FLOATS,
        "position": (equity * rng.random(n)).astype(np.int64),
        "pnl": rng.integers(-(10**9), 10**9, trades),
        "notional": rng.integers(0 if trades > 9 else 1, 10**10, trades),
        "totals": np.array([trades * 2, trades * 2, 1, n, n // 2, 10**11, 123_456_789, 17, 0, 5], np.int64),
        "ann": 252.0,
        "rf_p": 7.8e-5,
        "growth_year": 1.0 + 0.1 * rng.random(),
        "growth_market": 1.3,
        "with_tails": int(rng.random() < 0.8),
    }


def run_kernel(arguments: dict[str, Any]) -> tuple[list[float], int]:
    out = np.empty(len(METRIC_NAMES))
    moved = reduce.session_metrics(*arguments.values(), out)
    return out.tolist(), moved


def run_reference(arguments: dict[str, Any]) -> tuple[list[float], int]:
    plain = [value.tolist() if isinstance(value, np.ndarray) else value for value in arguments.values()]
    return reference.session_metrics(*plain)


@pytest.mark.parametrize("n", [*range(1, 45), 81, 252, 1000])
def test_metrics_have_the_bits_of_their_twin(n: int) -> None:
    rng = np.random.default_rng(n)
    for trades in (0, 1, n):
        for with_benchmark in (False, True):
            arguments = case(rng, n, trades, with_benchmark)
            got, want = run_kernel(arguments), run_reference(arguments)
            assert bits(got[0]) == bits(want[0]), dict(
                zip(METRIC_NAMES, zip(got[0], want[0], strict=True), strict=True)
            )
            assert got[1] == want[1] == -1


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 6))
def test_metrics_have_the_bits_of_their_twin_with_ties_and_ruin(equity: list[int], base: int) -> None:
    """Tiny integer equities: many ties, constant stretches, zero (ruin), and accounts that move after ruin."""
    n = len(equity)
    arguments = case(np.random.default_rng(1), n, 0, False) | {"base": base, "equity": np.array(equity, np.int64)}
    got, want = run_kernel(arguments), run_reference(arguments)
    assert bits(got[0]) == bits(want[0])
    assert got[1] == want[1]


def test_the_kernel_writes_each_metric_where_the_registry_has_it() -> None:
    """The kernel states its positions by itself: a name that moved, or that one of the two lacks, would mix them up."""
    positions = [getattr(reduce, name.upper()) for name in METRIC_NAMES]
    assert positions == list(range(len(METRIC_NAMES)))


@pytest.mark.slow
def test_tails_equal_those_of_the_sorted_returns() -> None:
    """In bits, however the returns lie: alike, in two heaps, with outliers, next to each other, tiny, mostly 0."""
    rng = np.random.default_rng(5)
    for n in (1, 2, 19, 20, 21, 22, 41, 500, 3_000):
        plain = rng.normal(size=n)
        for r in (
            plain, np.sort(plain), np.sort(plain)[::-1].copy(), np.zeros(n), np.full(n, -0.25), np.sign(plain),
            np.where(rng.random(n) < 0.8, 0.0, plain), plain**9, np.where(np.arange(n) == n // 2, -1e300, plain),
            plain * 5e-324 * 1e10, 1.0 + plain * 2.3e-16, plain * 1e-160,
        ):  # fmt: skip
            out = np.full(len(METRIC_NAMES), np.nan)
            reduce.tails(readonly(r.copy()), out)
            want = reference.tails(r.tolist())
            for name in ("var95", "cvar95", "tail_ratio"):
                assert bits([out[METRIC_NAMES.index(name)]]) == bits([want.get(name, np.nan)]), (name, n)


PROBE = """
import hashlib, os, sys
sys.path.insert(0, ".")
from tests.kernels.test_reduce import *
from farm.kernels import cache, transcend
if "NUMBA_CPU_NAME" in os.environ:
    cache.compile_here()  # these few, instead of all into a directory
digest = hashlib.sha256()
for n in (5, 64, 777, 3270):
    values, _ = run_kernel(case(np.random.default_rng(n), n, 40, True))
    digest.update(repr(bits(values)).encode())
rng = np.random.default_rng(9)
for x, y in zip(rng.uniform(0.1, 9.0, 2000).tolist(), rng.uniform(-9.0, 9.0, 2000).tolist()):
    digest.update(repr([transcend.log(x), transcend.exp(y), transcend.power(x, y)]).encode())
print(digest.hexdigest())
"""


def probe(**cpu: str) -> str:
    environment = os.environ | cpu
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_bits_do_not_depend_on_the_cpu() -> None:
    """Metrics and transcendentals compiled for a plain x86-64 (or any generic) core equal those of this machine."""
    assert probe() == probe(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
