"""domain.md 2.4, 2.5: where recursive indicators start, what they know when, and that it depends on nothing else."""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest

from farm.columns.cache import ColumnCache
from farm.signals.evaluate import evaluate
from farm.signals.store import SeriesStore
from farm.store.base import Store
from farm.values.arrays import F64
from farm.values.units import iso
from farm.work.run import BlockRunner, run_in_process
from tests.domain.support import calendar, day, flat, sleeve, spec, world

HISTORY = 420
RUN = 30


@pytest.fixture(scope="module")
def prices() -> list[float]:
    random = np.random.default_rng(3)
    found: list[float] = np.round(80 * np.cumprod(1 + random.normal(0, 0.015, HISTORY + RUN)), 2).tolist()
    return found


@pytest.fixture(scope="module")
def store(prices: list[float]) -> Store:
    return world({"AAA": flat(*prices)}, start=day(-HISTORY))


def series(store: Store, expression: Any, **run: Any) -> tuple[F64, dict[str, str]]:
    """Values of an expression at the bars of the run, and the anchors that were recorded."""
    document = spec(["AAA"], sleeve(prefer=expression), sessions=RUN, **run)
    cache = ColumnCache(1 << 26)
    outcome = run_in_process(document, store, cache=cache)
    context = BlockRunner(store, cache=cache).context(outcome.study)
    market = context.market(0).market
    [[signals]] = evaluate(context.program(0), market, SeriesStore(1 << 20))
    assert signals.prefer is not None
    first = int(np.searchsorted(market.series[0].day, market.start_day))
    return signals.prefer[first:], context.anchors(0, 0)


def ema(values: list[float], n: int) -> list[float]:
    """The definition: the mean of the first n, added in order, then e += (x - e) k."""
    found = [math.nan] * (n - 1) + [reduce(add, values[:n]) / n]
    for x in values[n:]:
        found.append((x - found[-1]) * (2 / (n + 1)) + found[-1])
    return found


def first_session_of_month(date: str) -> str:
    days = [iso(int(one)) for one in calendar().day]
    return next(one for one in days if one[:7] == date[:7])


class TestAnchors:
    @pytest.mark.parametrize(("n", "settle"), [(3, 53), (10, 184), (20, 368)])
    def test_k_settle_bars_then_back_to_the_first_session_of_the_month(
        self, store: Store, prices: list[float], n: int, settle: int
    ) -> None:
        """K = ceil(53 ln 2 / -ln(1 - 2 / (n + 1))), counted back from the first bar of the run."""
        assert math.ceil(53 * math.log(2) / -math.log(1 - 2 / (n + 1))) == settle
        anchor = first_session_of_month(day(-settle))
        values, anchors = series(store, {"i": "ema", "n": n})
        assert list(anchors.values()) == [anchor]
        [begin] = [k for k in range(-HISTORY, 0) if day(k) == anchor]
        assert values.tolist() == ema(prices[HISTORY + begin :], n)[-RUN:]

    def test_the_counts_that_the_text_gives(self) -> None:
        from farm.values.indicators import INDICATORS

        assert INDICATORS["ema"].settle(200) == 3674
        assert INDICATORS["rsi"].settle(14) == 496

    def test_an_instrument_without_so_much_history_starts_at_its_first_bar(
        self, store: Store, prices: list[float]
    ) -> None:
        values, anchors = series(store, {"i": "ema", "n": 60})
        assert list(anchors.values()) == [day(-HISTORY)]
        assert values.tolist() == ema(prices, 60)[-RUN:]

    @pytest.mark.parametrize(
        ("warmup", "begin"), [("none", 0), ("7bar", -7), ("10d", -6), ("2mo", -41), ("13bar", -13)]
    )
    def test_warmup_by_hand(self, store: Store, prices: list[float], warmup: str, begin: int) -> None:
        """Ten days before Tuesday 2021-02-02 is Saturday 01-23: Monday 25th is session -6; two months: 2020-12-02."""
        assert (day(-6), day(-41)) == ("2021-01-25", "2020-12-02")
        values, anchors = series(store, {"i": "ema", "n": 4}, warmup=warmup)
        assert list(anchors.values()) == [day(begin)]
        want = ema(prices[HISTORY + begin :], 4)[-RUN:]
        assert np.array_equal(values, np.array(want), equal_nan=True)

    def test_window_indicators_have_their_history_all_the_same(self, store: Store, prices: list[float]) -> None:
        values, anchors = series(store, {"i": "max", "n": 5}, warmup="none")
        assert anchors == {}
        assert values.tolist() == [max(prices[HISTORY + k - 4 : HISTORY + k + 1]) for k in range(RUN)]

    def test_anchored_and_full_history_agree_to_1e_13(self, store: Store, prices: list[float]) -> None:
        values, _ = series(store, {"i": "ema", "n": 10})
        assert values == pytest.approx(ema(prices, 10)[-RUN:], rel=1e-13)

    def test_the_anchor_moves_with_the_run_and_not_with_other_expressions(self, store: Store) -> None:
        alone, _ = series(store, {"i": "ema", "n": 3})
        beside, anchors = series(
            store, {"op": "add", "a": [{"op": "mul", "a": [{"i": "ema", "n": 20}, 0]}, {"i": "ema", "n": 3}]}
        )
        assert beside.tolist() == alone.tolist()
        assert len(anchors) == 2


class TestFirstValues:
    """2.5: the bar of the first value, without any history before the run."""

    @pytest.mark.parametrize(
        ("expression", "first"),
        [
            ({"i": "sma", "n": 14}, 13),
            ({"i": "max", "n": 14}, 13),
            ({"i": "min", "n": 14}, 13),
            ({"i": "ema", "n": 14}, 13),
            ({"i": "rsi", "n": 14}, 14),
            ({"i": "stddev", "n": 14}, 13),
            ({"i": "roc", "n": 14}, 14),
            ({"i": "ret", "n": 14}, 14),
            ({"i": "sma", "n": 5, "of": {"i": "ema", "n": 4}}, 7),
            ({"op": "lag", "a": [{"i": "rsi", "n": 3}], "n": 2}, 5),
        ],
    )
    def test_lookback(self, prices: list[float], expression: Any, first: int) -> None:
        young = world({"AAA": flat(*prices[HISTORY:])})
        values, _ = series(young, expression)
        assert np.flatnonzero(~np.isnan(values)).tolist() == list(range(first, RUN))

    def test_definitions(self, prices: list[float]) -> None:
        young = world({"AAA": flat(*prices[HISTORY:])})
        x = np.array(prices[HISTORY:])
        assert series(young, {"i": "stddev", "n": 5})[0][9] == pytest.approx(np.std(x[5:10], ddof=0), rel=1e-12)
        assert series(young, {"i": "roc", "n": 5})[0][9] == pytest.approx(100 * (x[9] / x[4] - 1), rel=1e-12)
        assert series(young, {"i": "ret", "n": 5})[0][9] == pytest.approx(x[9] / x[4] - 1, rel=1e-12)

    def test_a_flat_series_has_an_rsi_of_0_and_no_deviation(self) -> None:
        still = world({"AAA": flat(*[33.33] * RUN)})
        assert set(series(still, {"i": "rsi", "n": 5})[0][5:].tolist()) == {0.0}
        assert set(series(still, {"i": "stddev", "n": 5})[0][4:].tolist()) == {0.0}

    def test_an_indicator_steps_on_known_bars(self) -> None:
        """roc of a price that the printed volume divides: unknown where nothing was traded, and left out there."""
        bars: list[Any] = [(10 + k, 10 + k, 10 + k, 10 + k, 0 if k in (3, 4) else 1) for k in range(RUN)]
        gaps = world({"AAA": bars})
        values, _ = series(gaps, {"i": "ema", "n": 3, "of": {"op": "div", "a": ["close", "volume"]}})
        known = [10.0 + k for k in range(RUN) if k not in (3, 4)]
        assert np.isnan(values[[0, 1, 3, 4]]).all()
        assert [v for v in values.tolist() if not math.isnan(v)] == pytest.approx(ema(known, 3)[2:], rel=1e-13)
