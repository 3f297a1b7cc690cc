"""The signals of many trials of one subject on one core, nothing kept from before."""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np

from farm.program.template import compile_study
from farm.signals.evaluate import evaluate_trials
from farm.signals.store import SeriesStore
from farm.spec.parse import load_study
from farm.spec.table import ParamTable
from farm.values.settings import GIB, FarmSettings
from farm.values.units import iso
from tests.bench.harness import Row, microseconds, repeat
from tests.generators import FIRST_DAY, market_of, series_of, weekdays

BARS = 2_520
PAIRS = 2_000
WINDOWS = 100


def signals(settings: FarmSettings, repeats: int) -> list[Row]:
    """Crosses of 100 short with 100 long averages, of which 2,000 pairs, over ten years of daily bars."""
    return [_crosses("sma", 20.0, repeats), _crosses("ema", 20.0, repeats)]


def _crosses(indicator: str, target_ms: float, repeats: int) -> Row:
    day = weekdays(BARS)
    random = np.random.default_rng(3)
    close = np.maximum(500, 5_000 * np.cumprod(1.0 + random.normal(0.0, 0.01, BARS))).astype(np.int64)
    market = market_of([series_of(day, close, start_day=FIRST_DAY)], FIRST_DAY, int(day[-1]))
    averages = [{"i": indicator, "n": name} for name in ("$fast", "$slow")]
    sleeve = {"id": "s", "kind": "rules", "universe": "u", "side": "long", "size": {"mode": "equal"},
              "enter": {"cross_up": averages}, "exit": {"cross_dn": averages}}  # fmt: skip
    params = {"fast": {"int": [2, 1 + WINDOWS]}, "slow": {"int": [2 + WINDOWS, 1 + 2 * WINDOWS]}}
    run = {"dataset": "main", "start": iso(FIRST_DAY), "end": iso(int(day[-1])), "cash": 10_000}
    universes = [{"id": "u", "tickers": ["AAPL"]}]
    spec = {"spec": 1, "run": run, "strategy": {"params": params, "universes": universes, "sleeves": [sleeve]}}
    points = list(itertools.product(range(2, 2 + WINDOWS), range(2 + WINDOWS, 2 + 2 * WINDOWS)))
    chosen = random.permutation(len(points))[:PAIRS]
    program, table = compile_study(load_study(spec)), ParamTable.of(("fast", "slow"), [points[k] for k in chosen])
    alone: list[float] = []

    def measure() -> float:
        start = time.perf_counter()
        evaluate_trials(program, table.take(slice(0, 1)), market, None, SeriesStore(GIB))
        one = time.perf_counter()
        evaluate_trials(program, table, market, None, SeriesStore(GIB))
        alone.append(one - start)
        return (time.perf_counter() - one) * 1e3

    values = repeat(measure, repeats)
    shown = {"one trial": microseconds(statistics.median(alone)), "bars": f"{BARS:,}"}
    return Row(f"signals of {PAIRS:,} crosses of {indicator}", "ms", target_ms, False, values, shown)
