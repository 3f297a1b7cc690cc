"""Benchmark returns against a loop that reads like the definition."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from farm.market.benchmark import benchmark_returns


def by_loop(bars: dict[int, float], sessions: list[int]) -> list[float]:
    days = sorted(bars)
    returns = []
    for session in sessions:
        before = [day for day in days if day < session and (day in sessions or day < sessions[0])]
        if session in bars and before:
            last = bars[before[-1]]
            returns.append((bars[session] - last) / last)
        else:
            returns.append(math.nan)
    return returns


@given(
    some.dictionaries(some.integers(0, 30), some.integers(1, 10**6).map(lambda ticks: ticks / 100), max_size=25),
    some.lists(some.integers(0, 30), unique=True, min_size=1).map(sorted),
)
def test_returns(bars: dict[int, float], sessions: list[int]) -> None:
    days = np.array(sorted(bars), np.int32)
    close = np.array([bars[day] for day in sorted(bars)], np.float64)
    series: Any = SimpleNamespace(rows=len(days), day=days, close=close, factor_tr=np.ones(len(days)))
    returns = benchmark_returns(series, np.array(sessions, np.int32))
    assert returns.tolist() == pytest.approx(by_loop(bars, sessions), rel=0, abs=0, nan_ok=True)
    assert not returns.flags.writeable
