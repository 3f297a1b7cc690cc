"""Signals: against a second evaluator, without lookahead, independent of what else is loaded or evaluated."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.market.panel import InstrumentSeries, Market
from farm.program.program import Program
from farm.signals.evaluate import Signals, evaluate
from farm.signals.store import SeriesStore
from farm.spec.parse import load_study
from farm.spec.resolve import Resolver
from farm.values.arrays import readonly
from farm.values.errors import DataError, SpecError
from farm.values.indicators import INDICATORS
from farm.values.units import first_day_of, iso, month_of
from tests.effort import effort
from tests.generators import (
    FIRST_DAY,
    bars,
    market_of,
    markets,
    numeric_expressions,
    series_of,
    specs,
    truth_expressions,
    weekdays,
)
from tests.reference.program import compile_trial
from tests.signals.oracle import Oracle

START = FIRST_DAY + 60
END = FIRST_DAY + 195
DAYS = weekdays(140)


def program_of(sleeve: dict[str, Any], tickers: tuple[str, ...] = ("AAPL",), **run: Any) -> Program:
    document = {
        "spec": 1,
        "strategy": {
            "universes": [{"id": "u", "tickers": list(tickers)}],
            "sleeves": [{"id": "s", "kind": "rules", "universe": "u", "side": "long", "enter": True,
                         "size": {"mode": "qty", "v": 1}} | sleeve],
        },
        "run": {"dataset": "main", "start": iso(START), "end": iso(END), "cash": 10_000} | run,
    }  # fmt: skip
    return compile_trial(Resolver(load_study(document)).trial({}))


def signals_of(market: Market, sleeve: dict[str, Any], **run: Any) -> Signals:
    return evaluate(program_of(sleeve, **run), market, SeriesStore(1 << 24))[0][0]


def values_of(market: Market, expression: Any, **run: Any) -> np.ndarray[Any, Any]:
    """The expression in today's basis, from the run's first bar on."""
    found = signals_of(market, {"prefer": expression, "max_positions": 1}, **run).prefer
    assert found is not None
    return found[market.series[0].day >= market.start_day]


def same(first: Signals, second: Signals, bars: slice = slice(None)) -> bool:
    arrays = [(getattr(first, name), getattr(second, name)) for name in ("enter", "exit", "enter_short", "exit_short")]
    arrays += list(zip(first.stop_levels, second.stop_levels, strict=True))
    if first.prefer is not None and second.prefer is not None:
        arrays.append((first.prefer, second.prefer))
    return all(np.array_equal(a[bars], b[bars], equal_nan=a.dtype.kind == "f") for a, b in arrays)


def flat_market(closes: list[int], start: int = 0, **options: Any) -> Market:
    """One instrument on consecutive weekdays; the run starts at bar ``start``."""
    day = weekdays(len(closes), START)
    first = int(day[start])
    return market_of([series_of(day, closes, start_day=first, **options)], first, END)


@settings(max_examples=effort(150))
@given(
    bars(with_gaps=True), truth_expressions(), numeric_expressions(),
    st.sampled_from(("settle", "none", "7bar", "20d", "1mo")),
)  # fmt: skip
def test_agreement_with_a_second_evaluator(one: InstrumentSeries, condition: Any, number: Any, warmup: str) -> None:
    """Bit for bit, over random expressions and bars with gaps, splits, dividends and zero volumes."""
    market = market_of([one], START, END, sessions=DAYS)
    program = program_of({"enter": condition, "prefer": number, "max_positions": 1}, warmup=warmup)
    found = evaluate(program, market, SeriesStore(1 << 24))[0][0]
    sleeve = load_study_sleeve(condition, number)
    oracle = Oracle(one, START, warmup)
    expected = [value is True for value in oracle.truth(sleeve["enter"], oracle.start)]
    assert found.enter[oracle.start :].tolist() == [int(value) for value in expected]
    assert not found.enter[: oracle.start].any()
    numbers = np.array([np.nan if x is None else x for x in oracle.today(sleeve["prefer"], oracle.start)], np.float64)
    assert found.prefer is not None
    assert np.array_equal(found.prefer[oracle.start :], numbers, equal_nan=True)


def load_study_sleeve(condition: Any, number: Any) -> dict[str, Any]:
    """The spelled-out sleeve, children of all and any as hashed."""
    document = {
        "spec": 1,
        "strategy": {"universes": [{"id": "u", "tickers": ["AAPL"]}], "sleeves": [
            {"id": "s", "kind": "rules", "universe": "u", "side": "long", "enter": condition, "prefer": number,
             "size": {"mode": "equal"}}]},
        "run": {"dataset": "main", "start": iso(START), "end": iso(END), "cash": 1},
    }  # fmt: skip
    resolved: dict[str, Any] = Resolver(load_study(document)).trial({}).document(None)["strategy"]["sleeves"][0]
    return resolved


def scrambled(series: InstrumentSeries, after: int, seed: int) -> InstrumentSeries:
    """The same bars up to ``after``, other prices later."""
    random = np.random.default_rng(seed)
    later = series.day > after
    changed = {}
    for name in ("open", "high", "low", "close", "volume", "factor", "factor_num", "factor_tr"):
        values = getattr(series, name).copy()
        values[later] = values[later] * np.round(random.uniform(0.5, 2.0, int(later.sum())), 2)
        changed[name] = readonly(values)
    return dataclasses.replace(series, **changed)


@given(specs(syms=("IBM",)), markets(), st.integers(0, 130), st.integers(0, 99))
def test_no_lookahead(document: dict[str, Any], market: Market, cut: int, seed: int) -> None:
    """Whatever is changed after a day, nothing decided up to that day changes."""
    after = int(DAYS[min(cut + 43, 139)])
    future = dataclasses.replace(market, series=tuple(scrambled(one, after, seed) for one in market.series))
    program = compile_trial(Resolver(load_study(document)).trial({}))
    before, mutated = (evaluate(program, which, SeriesStore(1 << 24)) for which in (market, future))
    for sleeve, other in zip(before, mutated, strict=True):
        for a, b in zip(sleeve, other, strict=True):
            assert same(a, b, slice(0, int((market.series[a.instrument].day <= after).sum())))


@given(specs(bars_max=4), specs(bars_max=4), markets())
def test_a_trial_alone_equals_the_trial_beside_others(
    document: dict[str, Any], other: dict[str, Any], market: Market
) -> None:
    """Sharing the series store, in any order, changes no bit."""
    programs = [compile_trial(Resolver(load_study(one)).trial({})) for one in (document, other)]
    shared = SeriesStore(1 << 24)
    for program in (*programs, *programs):
        together, alone = evaluate(program, market, shared), evaluate(program, market, SeriesStore(0))
        for a, b in zip((s for group in together for s in group), (s for group in alone for s in group), strict=True):
            assert same(a, b) and a.anchors == b.anchors


@given(specs(bars_max=3, tickers=("AAPL",), start_day=FIRST_DAY + 900, end_day=FIRST_DAY + 950), st.integers(0, 9))
def test_more_history_than_needed_changes_nothing(document: dict[str, Any], seed: int) -> None:
    """Reading whole months that hold ``history_bars`` bars is enough; reading more gives the same bits."""
    document["run"].pop("warmup", None)
    program = compile_trial(Resolver(load_study(document)).trial({}))
    start, end = program.run.start_day, program.run.end_day
    day = weekdays(700)
    close = np.maximum(500, 2000 + np.cumsum(np.random.default_rng(seed).integers(-50, 51, 700)))
    position = int(np.searchsorted(day, start)) - program.history_bars
    if position <= 0:
        return
    first = first_day_of(month_of(int(day[position])))
    loaded = [series_of(d, c, start_day=start) for d, c in ((day, close), (day[day >= first], close[day >= first]))]
    long, short = (evaluate(program, market_of([one], start, end), SeriesStore(1 << 24)) for one in loaded)
    dropped = int((day < first).sum())
    for a, b in zip((s for group in long for s in group), (s for group in short for s in group), strict=True):
        assert same(dataclasses.replace(a, enter=a.enter[dropped:], exit=a.exit[dropped:],
                                        enter_short=a.enter_short[dropped:], exit_short=a.exit_short[dropped:],
                                        prefer=None if a.prefer is None else a.prefer[dropped:]), b)  # fmt: skip
        assert a.anchors == b.anchors


RISEN = {"op": "neg", "a": ["low"]}
TURNOVER = {"op": "mul", "a": ["close", "volume"]}
SCALE_FREE = [
    {"gt": ["close", {"i": "sma", "n": 5}]},
    {"cross_up": [{"i": "ema", "n": 3}, {"i": "sma", "n": 8}]},
    {"gt": [{"i": "rsi", "n": 5}, 50]},
    {"gt": [{"i": "roc", "n": 3}, 1]},
    {"gt": [{"op": "div", "a": ["high", {"op": "lag", "n": 2, "a": ["low"]}]}, 1.01]},
    {"lt": [TURNOVER, {"i": "sma", "n": 4, "of": TURNOVER}]},
    {"gt": ["volume", {"i": "max", "n": 3, "of": {"op": "lag", "a": ["volume"]}}]},
    {"gt": [{"i": "stddev", "n": 5}, {"op": "mul", "a": [0.01, "close"]}]},
    {"gt": [{"op": "diff", "a": ["close"]}, {"op": "if", "a": [{"gt": ["close", "open"]}, RISEN, 0]}]},
]  # fmt: skip


@pytest.mark.parametrize("condition", SCALE_FREE)
@pytest.mark.parametrize("at", [50, 70])
def test_a_split_changes_no_ratio(condition: Any, at: int) -> None:
    """A two-for-one split, before the run's start or in it, leaves every scale-free condition as it was."""
    random = np.random.default_rng(at)
    close = 2 * np.maximum(500, 2000 + np.cumsum(random.integers(-50, 51, 140)))
    volume = 1000.0 * random.integers(1, 9, 140)
    half = np.arange(140) >= at
    whole = series_of(DAYS, close, start_day=START, volume=volume.tolist())
    opened = np.where(half, whole.open_ticks // 2, whole.open_ticks)
    split = series_of(
        DAYS, np.where(half, close // 2, close), open_ticks=opened.tolist(), start_day=START,
        volume=np.where(half, 2 * volume, volume).tolist(), splits={int(DAYS[at]): (2, 1)},
    )  # fmt: skip
    plain, adjusted = (
        signals_of(market_of([one], START, END), {"enter": condition}, warmup="settle") for one in (whole, split)
    )
    assert np.array_equal(plain.enter, adjusted.enter)
    assert plain.enter.any() and not plain.enter[44:].all()


def test_prices_are_read_in_the_share_basis_of_the_day() -> None:
    """Around a split: 3, 3 | 1.5, 1.5 after two-for-one; yesterday's close is halved when looked at from the ex-day."""
    market = flat_market([300, 300, 150, 150], splits={int(weekdays(4, START)[2]): (2, 1)})
    assert values_of(market, "close").tolist() == [3, 3, 1.5, 1.5]
    assert values_of(market, {"i": "sma", "n": 2})[1:].tolist() == [3, 1.5, 1.5]
    assert values_of(market, {"op": "lag", "a": ["close"]})[1:].tolist() == [3, 1.5, 1.5]
    assert values_of(market, {"op": "lag", "a": ["close_raw"]})[1:].tolist() == [3, 3, 1.5]
    assert values_of(market, {"op": "add", "a": ["close", 1]}).tolist() == [4, 4, 2.5, 2.5]
    assert signals_of(market, {"enter": {"lt": ["close", 2]}}).enter.tolist() == [0, 0, 1, 1]


def test_without_a_factor_prices_are_the_raw_bits() -> None:
    market = flat_market([1001, 999, 1003])
    assert values_of(market, "close").tobytes() == market.series[0].close.tobytes()
    assert values_of(market, "close_tr").tobytes() == market.series[0].close.tobytes()


def test_close_tr_reinvests_dividends() -> None:
    """A fall by exactly the dividend is no fall."""
    day = weekdays(3, START)
    market = flat_market([1000, 1000, 900], dividends={int(day[2]): 1.0})
    assert values_of(market, {"i": "ret", "n": 1, "of": "close_tr"})[2] == pytest.approx(0.0, abs=1e-15)
    assert values_of(market, {"i": "ret", "n": 1})[2] == pytest.approx(-0.1)


def test_nothing_unknown_triggers() -> None:
    """`not (rsi > 30)` during the warm-up is unknown, and so is a comparison with a division by zero."""
    market = flat_market([100 + k % 3 for k in range(12)])
    falling = signals_of(market, {"enter": {"not": {"gt": [{"i": "rsi", "n": 5}, 30]}}, "exit": {"lt": [1, 2]}})
    assert not falling.enter[:5].any() and falling.exit.all()
    zero = {"op": "div", "a": ["close", {"op": "sub", "a": ["close", "close"]}]}
    either = signals_of(market, {"enter": {"gt": [zero, 1]}, "exit": {"not": {"gt": [zero, 1]}}})
    assert not either.enter.any() and not either.exit.any()


def test_gaps_of_an_expression_are_compressed_out() -> None:
    """An indicator steps on the bars where its input is known."""
    market = flat_market([100, 200, 300, 400, 500], volume=[1, 0, 1, 0, 1])
    ratio = {"op": "div", "a": ["close", "volume"]}
    found = values_of(market, {"i": "sma", "n": 2, "of": ratio})
    assert np.array_equal(found, [np.nan, np.nan, 2.0, np.nan, 4.0], equal_nan=True)


def test_a_window_over_gaps_looks_back_no_further_when_there_is_more_history() -> None:
    """Three bars back is three bars back: an unknown bar is not replaced by an older one that is there."""
    day = weekdays(12, START)
    volume = [1.0] * 12
    volume[8] = 0.0
    start = int(day[10])
    ratio = {"i": "sma", "n": 3, "of": {"op": "div", "a": ["close", "volume"]}}
    found = []
    for first in (0, 5, 8):
        one = series_of(day[first:], [100 + k for k in range(first, 12)], start_day=start, volume=volume[first:])
        found.append(values_of(market_of([one], start, END), ratio, start=iso(start)))
    assert np.isnan(found[0][0]) and found[0][1] == pytest.approx(1.10)
    assert np.array_equal(found[0], found[1], equal_nan=True) and np.array_equal(found[0], found[2], equal_nan=True)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [("none", 400), ("10bar", 390), ("30d", None), ("2mo", None), ("settle", None)],
)
def test_recursive_indicators_start_at_their_anchor_and_it_is_recorded(warmup: str, expected: int | None) -> None:
    day = weekdays(600)
    start = int(day[400])
    close = 1000 + np.arange(600) % 17
    market = market_of([series_of(day, close, start_day=start)], start, int(day[-1]))
    program = program_of({"enter": {"gt": [{"i": "ema", "n": 10}, 5]}}, start=iso(start), end=iso(market.end_day),
                         warmup=warmup)  # fmt: skip
    found = evaluate(program, market, SeriesStore(1 << 24))[0][0]
    if warmup == "settle":
        settled = int(day[400 - INDICATORS["ema"].settle(10)])
        expected_day = int(day[np.searchsorted(day, first_day_of(month_of(settled)))])
    elif expected is not None:
        expected_day = int(day[expected])
    else:
        before = {"30d": start - 30, "2mo": first_day_of(month_of(start) - 2) + int(iso(start)[-2:]) - 1}[warmup]
        expected_day = int(day[np.searchsorted(day, before)])
    assert found.anchors == {"ema(close, 10)": iso(expected_day)}
    assert found.enter[:409].any() == (warmup != "none")


def test_a_young_instrument_starts_at_its_first_bar() -> None:
    market = flat_market([1000 + k for k in range(30)], start=10)
    found = signals_of(market, {"enter": {"gt": [{"i": "rsi", "n": 5}, 50]}}, start=iso(market.start_day))
    assert found.anchors == {"rsi(close, 5)": iso(int(market.series[0].day[0]))}
    assert found.enter[10:].all() and not found.enter[:10].any()


def other_market(missing: range) -> Market:
    """AAPL on every weekday, and IBM, which has no bars in ``missing``."""
    day = weekdays(30, START)
    keep = np.array([at not in missing for at in range(30)])
    ibm = series_of(np.ascontiguousarray(day[keep]), (1000 + 10 * np.arange(30))[keep], symbol="IBM", start_day=START)
    return market_of([series_of(day, [100] * 30, start_day=START), ibm], START, END, sessions=day)


def test_fixed_series_are_joined_as_of_and_go_stale() -> None:
    """The last bar counts for five sessions after its own; its indicators step on its own bars."""
    market = other_market(range(10, 20))
    found = values_of(market, {"f": "close", "sym": "IBM"})
    assert found[9:15].tolist() == [10.9] * 6
    assert np.isnan(found[15:20]).all() and found[20] == 12.0
    mean = values_of(market, {"i": "sma", "n": 2, "sym": "IBM"})
    assert mean[20] == pytest.approx((10.9 + 12.0) / 2)
    crossed = signals_of(market, {"enter": {"gt": [{"f": "close", "sym": "IBM"}, "close"]}})
    assert crossed.enter.tolist() == [0 if 15 <= at < 20 else 1 for at in range(30)]


def test_a_fixed_series_that_is_the_instrument_itself_changes_nothing() -> None:
    market = flat_market([1000 + k * k % 37 for k in range(40)], start=15)
    run = {"start": iso(market.start_day)}
    for expression in ({"i": "ema", "n": 4}, {"i": "sma", "n": 4}, {"op": "lag", "a": ["close"]}):
        own = {"f": "close", "sym": "AAPL"}
        fixed = {**expression, "sym": "AAPL"} if "i" in expression else {**expression, "a": [own]}
        assert np.array_equal(values_of(market, expression, **run), values_of(market, fixed, **run), equal_nan=True)


def test_levels_and_anchors_of_several_sleeves() -> None:
    market = flat_market([1000 + k for k in range(20)])
    stops = [
        {"type": "time", "bars": 3},
        {"type": "stop", "level": "low"},
        {"type": "target", "level": {"i": "ema", "n": 2}},
    ]
    program = program_of({"stops": stops})
    assert [(stop.unit, stop.level) for stop in program.sleeves[0].stops] == [("bars", -1), ("level", 0), ("level", 1)]
    found = evaluate(program, market, SeriesStore(1 << 24))[0][0]
    assert np.array_equal(found.stop_levels[0], market.series[0].low)
    assert found.stop_levels[1].shape == (20,) and list(found.anchors) == ["ema(close, 2)"]


def test_signals_come_in_the_order_of_the_market_whatever_the_universe_says() -> None:
    day = weekdays(30, START)
    series = [series_of(day, [100 + at] * 30, symbol=name) for at, name in enumerate(("B", "A", "C"))]
    market = market_of(series, START, END)
    program = program_of({}, tickers=("C", "A", "B"))
    assert [found.instrument for found in evaluate(program, market, SeriesStore(0))[0]] == [0, 1, 2]


def test_what_is_not_loaded_is_an_error() -> None:
    market = flat_market([100] * 5)
    with pytest.raises(SpecError, match="IBM"):
        signals_of(market, {"enter": {"gt": [{"f": "close", "sym": "IBM"}, 1]}})
    bare = dataclasses.replace(market.series[0], volume=readonly(np.empty(0)))
    with pytest.raises(DataError, match="volume"):
        signals_of(dataclasses.replace(market, series=(bare,)), {"enter": {"gt": ["volume", 1]}})


def test_an_instrument_without_bars_in_the_window_has_no_signals() -> None:
    day = weekdays(20)
    market = market_of([series_of(day, [100] * 20)], START, END, sessions=DAYS)
    found = signals_of(market, {"enter": True, "prefer": {"i": "ema", "n": 3}, "max_positions": 1})
    assert not found.enter.any() and found.prefer is not None and np.isnan(found.prefer).all()
    empty = market_of([series_of(day[:0], [])], START, END, sessions=DAYS)
    assert signals_of(empty, {"enter": {"gt": [{"i": "rsi", "n": 3}, 1]}}).enter.shape == (0,)


def test_threads_share_one_evaluation() -> None:
    """Eight threads, one series store: every sub-expression is computed once."""
    market = flat_market([1000 + k * 7 % 31 for k in range(100)], start=40)
    program = program_of({"enter": {"cross_up": [{"i": "sma", "n": 3}, {"i": "ema", "n": 9}]}},
                         start=iso(market.start_day))  # fmt: skip
    alone = SeriesStore(1 << 24)
    expected = evaluate(program, market, alone)[0][0]
    shared, found = SeriesStore(1 << 24), []
    threads = [threading.Thread(target=lambda: found.append(evaluate(program, market, shared)[0][0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8 and all(same(expected, one) for one in found)
    assert shared.stats().loads == alone.stats().loads
