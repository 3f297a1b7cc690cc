"""All trials of a subject at once: the signals of each are those of the trial alone, by the plain evaluator."""

from __future__ import annotations

import copy
import cProfile
import dataclasses
import itertools
import pstats
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.market.panel import InstrumentSeries, Market
from farm.program.template import compile_study
from farm.signals.evaluate import (
    MaskRows,
    NumberRows,
    Signals,
    TrialSignals,
    evaluate,
    evaluate_alike,
    evaluate_trials,
    looks_at_days,
)
from farm.signals.store import SeriesStore
from farm.spec.parse import load_study
from farm.spec.table import ParamTable
from farm.values.units import iso
from tests.effort import effort
from tests.generators import FIRST_DAY, market_of, markets, series_of, studies, weekdays
from tests.program.test_template import table_of
from tests.reference.signals import evaluate as evaluate_plain
from tests.signals.support import panel_of
from tests.spec.test_resolve import CROSS

Array = np.ndarray[Any, Any]


def unpacked(rows: MaskRows, trial: int, bars: int) -> Array:
    flags = np.unpackbits(rows.bits[rows.row_of[trial]].view(np.uint8), bitorder="little")
    assert not flags[bars:].any(), "bits beyond the last bar"
    return flags[:bars]


def same(expected: Array, found: Array) -> bool:
    return expected.dtype == found.dtype and np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f")


def check(expected: Signals, found: TrialSignals, trial: int, market: Market) -> None:
    """One trial's signals, bar by bar, and what is known of them."""
    bars = market.series[expected.instrument].rows
    assert found.instrument == expected.instrument
    for name in ("enter", "exit", "enter_short", "exit_short", "add"):
        one, rows = getattr(expected, name), getattr(found, name)
        assert (one is None) == (rows is None), name
        assert one is None or same(one, unpacked(rows, trial, bars)), name
    pairs: list[tuple[Array | None, NumberRows | None]] = [
        (expected.prefer, found.prefer), (expected.limit, found.limit),
        *zip(expected.stop_levels, found.stop_levels, strict=True),
    ]  # fmt: skip
    for number, rows in pairs:
        assert (number is None) == (rows is None)
        assert number is None or rows is None or same(number, rows.values[rows.row_of[trial]])
    assert bool(found.is_enter_known[trial]) == expected.is_enter_known


@settings(max_examples=effort(200))
@given(studies(syms=("IBM", "MSFT")), markets(), st.integers(0, 99))
def test_signals_of_all_trials_are_those_of_each_alone(document: dict[str, Any], market: Market, seed: int) -> None:
    """Over gaps, splits, dividends, fixed instruments, words, slots and every kind of warm-up; anchors too."""
    spec = load_study(document)
    table, program, store = table_of(spec, seed=seed), compile_study(spec), SeriesStore(1 << 24)
    subjects = [None] if spec.each is None else [one.symbol for one in market.series]
    for subject in subjects:
        found = evaluate_trials(program, table, market, subject, store)
        for trial in range(table.trials):
            one = program.one(table, trial)
            one = one if subject is None else one.on(subject)
            expected, alone = evaluate_plain(one, market), evaluate(one, market, store)
            for group, plain, single in zip(found, expected, alone, strict=True):
                for rows, a, b in zip(group, plain, single, strict=True):
                    check(a, rows, trial, market)
                    assert a.anchors == b.anchors and a.is_enter_known == b.is_enter_known


@settings(max_examples=effort(100))
@given(studies(syms=()), markets(), st.integers(0, 99), st.data())
def test_instruments_that_are_alike_are_asked_at_once(
    document: dict[str, Any], market: Market, seed: int, data: st.DataObject
) -> None:
    """Each of them has the signals that it has alone, whatever its prices, splits and dividends are."""
    spec = load_study(document)
    table, program = table_of(spec, seed=seed), compile_study(spec)
    first = market.series[0]
    random = np.random.default_rng(seed)
    series = []
    for at in range(data.draw(st.integers(1, 5))):
        bars = {name: getattr(first, name) for name in BAR_COLUMNS}
        for name in BAR_PRICES:
            bars[name] = bars[name] * random.integers(90, 110, first.rows) / 100.0
        if data.draw(st.booleans()):
            bars |= {name: np.ones(first.rows) for name in BAR_FACTORS}
        if data.draw(st.booleans()) and first.rows:
            bars["low"][data.draw(st.integers(0, first.rows - 1))] = np.nan
        begin, end = data.draw(st.sampled_from((0, 0, 10, 50, 70))), data.draw(st.sampled_from((0, 0, 5, 40)))
        bars = {name: column[begin : first.rows - end] for name, column in bars.items()}
        series.append(dataclasses.replace(first, id=f"I{at}", symbol=f"S{at}", **bars))
    market = dataclasses.replace(market, series=tuple(series), index={one.id: at for at, one in enumerate(series)})
    panel = panel_of(market)
    groups = panel.alike(range(len(series)), same_days=looks_at_days(program, table))
    assert sorted(at for group in groups for at in group.positions) == list(range(len(series)))
    for group in groups:
        together = evaluate_alike(program, table, group, SeriesStore(1 << 24))
        for at, position in enumerate(group.positions):
            found = evaluate_trials(program, table, market, series[position].symbol, SeriesStore(1 << 24))
            for many, [one] in zip(together, found, strict=True):
                assert np.array_equal(many.is_enter_known[at], one.is_enter_known) and many.has_bars == one.has_bars
                for trial in range(table.trials):
                    pairs = zip(rows_of(of_instrument(many, at), trial), rows_of(one, trial), strict=True)
                    assert all(same(a[: b.shape[0]], b) and not is_set(a[b.shape[0] :]) for a, b in pairs)


def test_a_short_life_beside_a_long_one() -> None:
    """What would be known behind the last bar of an instrument is not known; where days matter nobody is beside it."""
    day = weekdays(60)
    lives = [series_of(day[:length], 2_000 + np.arange(length), start_day=FIRST_DAY) for length in (33, 60)]
    series = tuple(dataclasses.replace(one, id=f"I{at}", symbol=f"S{at}") for at, one in enumerate(lives))
    panel = panel_of(market_of(list(series), FIRST_DAY, int(day[-1])))
    document = copy.deepcopy(CROSS)
    document["strategy"]["params"] = {"n": {"choice": [20, 40]}}
    document["strategy"]["let"] = {}
    document["run"] |= {"start": iso(FIRST_DAY), "end": iso(int(day[-1]))}
    sleeve = document["strategy"]["sleeves"][0]
    sleeve |= {"enter": {"gt": ["close", {"i": "sma", "n": "$n"}]}, "exit": {"gt": [1, 0]}}
    program, table = compile_study(load_study(document)), ParamTable.of(("n",), [(20,), (40,)])
    assert not looks_at_days(program, table)
    [group] = panel.alike((0, 1), same_days=False)
    [found] = evaluate_alike(program, table, group, SeriesStore(1 << 24))
    assert found.is_enter_known.tolist() == [[True, False], [True, True]]
    assert len(panel.alike((0, 1), same_days=True)) == 2
    for other in (dataclasses.replace(series[1], lot_micro=100), with_gap(series[1])):
        mixed = panel_of(market_of([series[0], other], FIRST_DAY, int(day[-1])))
        assert len(mixed.alike((0, 1), same_days=False)) == 2
    for enter in ({"dow": [1]}, {"gt": ["close", {"i": "ema", "n": "$n"}]}):
        sleeve["enter"] = {"any": [{"gt": ["close", 7]}, enter]}
        assert looks_at_days(compile_study(load_study(document)), table)


def with_gap(series: InstrumentSeries) -> InstrumentSeries:
    """The series without one of its lows: means of these are on no grid."""
    low = series.low.copy()
    low[3] = np.nan
    return dataclasses.replace(series, low=low)


BAR_PRICES = ("open", "high", "low", "close", "volume")
BAR_FACTORS = ("factor", "factor_num", "factor_den", "factor_tr")
BAR_COLUMNS = ("day", "open_ts", "close_ts", *BAR_PRICES, "open_ticks", "close_ticks", *BAR_FACTORS)


def is_set(rest: Array) -> bool:
    """Whether a bit is set in words behind the last bar of an instrument."""
    return rest.dtype == np.uint64 and bool(rest.any())


def of_instrument(many: TrialSignals, at: int) -> TrialSignals:
    """The signals of one of several instruments."""

    def rows(found: Any) -> Any:
        return None if found is None else dataclasses.replace(found, row_of=found.row_of[at])

    names = ("enter", "exit", "enter_short", "exit_short", "add", "prefer", "limit")
    picked = {name: rows(getattr(many, name)) for name in names}
    levels = tuple(map(rows, many.stop_levels))
    return dataclasses.replace(many, **picked, stop_levels=levels, is_enter_known=many.is_enter_known[at])


def looking_back(first: int, last: int, warmup: str) -> dict[str, Any]:
    """One recursive indicator, needed at several bars, in a window over its own gaps."""
    document = copy.deepcopy(CROSS)
    document["strategy"]["params"] = {"n": {"choice": [2, 5, 14]}, "back": {"choice": [1, 45, 70]}}
    strength = {"i": "rsi", "n": "$n"}
    lagged = {"op": "lag", "n": "$back", "a": [strength]}
    gaps = {"op": "div", "a": ["close", {"op": "sub", "a": ["close", lagged]}]}
    document["strategy"]["let"] = {}
    document["strategy"]["sleeves"][0] |= {
        "enter": {"gt": [strength, lagged]},
        "exit": {"within": ["$back", {"cross_dn": [strength, {"i": "sma", "n": "$n", "of": gaps}]}]},
        "prefer": {"op": "sub", "a": [strength, {"op": "lag", "n": "$back", "a": [lagged]}]},
    }
    document["run"] |= {"start": str(np.datetime64(first, "D")), "end": str(np.datetime64(last, "D")), "warmup": warmup}
    return document


@pytest.mark.parametrize("warmup", ["settle", "none", "30bar", "3mo"])
def test_a_recursive_indicator_has_an_anchor_for_each_need(warmup: str) -> None:
    """Months apart: each trial's values are those from its own anchors, and these are recorded."""
    day = weekdays(1200)
    start, end = int(day[1000]), int(day[-1])
    close = 20_000 + np.cumsum(np.random.default_rng(8).integers(-300, 301, 1200))
    market = market_of([series_of(day, close, start_day=start)], start, end)
    program = compile_study(load_study(looking_back(start, end, warmup)))
    table = ParamTable.of(("back", "n"), list(itertools.product((1, 45, 70), (2, 5, 14))))
    [[found]] = evaluate_trials(program, table, market, "AAPL", SeriesStore(1 << 24))
    anchors = set()
    for trial in range(table.trials):
        one = program.one(table, trial).on("AAPL")
        [[expected]] = evaluate_plain(one, market)
        check(expected, found, trial, market)
        anchors.add(tuple(expected.anchors.values()))
        assert evaluate(one, market, SeriesStore(1 << 24))[0][0].anchors == expected.anchors
    assert warmup != "settle" or len(anchors) > 4


def rows_of(found: TrialSignals, trial: int) -> list[Array]:
    """The rows of one trial, all that it says."""
    masks = [found.enter, found.exit, found.enter_short, found.exit_short, found.add]
    numbers = [found.prefer, found.limit, *found.stop_levels]
    return [
        *(rows.bits[rows.row_of[trial]] for rows in masks if rows is not None),
        *(rows.values[rows.row_of[trial]] for rows in numbers if rows is not None),
        found.is_enter_known[trial : trial + 1],
    ]


@settings(max_examples=effort(60))
@given(studies(syms=("IBM",)), markets(), st.integers(0, 99), st.integers(0, 12))
def test_a_part_of_the_table_says_the_same(document: dict[str, Any], market: Market, seed: int, cut: int) -> None:
    """Trials cut into tiles, in another order, with a store that has seen others: the same rows for each."""
    spec = load_study(document)
    table, program, store = table_of(spec, seed=seed), compile_study(spec), SeriesStore(1 << 24)
    subject = None if spec.each is None else market.series[0].symbol
    order = np.random.default_rng(seed).permutation(table.trials)
    whole = evaluate_trials(program, table, market, subject, SeriesStore(1 << 24))
    for tile in (order[:cut], order[cut:]):
        if not tile.size:
            continue
        found = evaluate_trials(program, table.take(tile), market, subject, store)
        for group, part in zip(whole, found, strict=True):
            for a, b in zip(group, part, strict=True):
                for at, trial in enumerate(tile.tolist()):
                    pairs = zip(rows_of(a, trial), rows_of(b, at), strict=True)
                    assert all(same(one, two) for one, two in pairs)


def cross(indicator: str, first: int, last: int) -> dict[str, Any]:
    """A cross of two averages with a filter that uses no parameter, and a threshold."""
    document = copy.deepcopy(CROSS)
    document["strategy"]["params"] = {
        "fast": {"int": [2, 21]}, "slow": {"int": [30, 39]}, "x": {"choice": [20.25, 20.5]},
    }  # fmt: skip
    averages = [{"i": indicator, "n": "$fast"}, {"i": indicator, "n": "$slow", "of": {"i": "max", "n": 3}}]
    document["strategy"]["let"] = {}
    document["strategy"]["sleeves"][0] |= {
        "enter": {"all": [{"cross_up": averages}, {"gt": [{"i": "rsi", "n": 14}, 30]}]},
        "exit": {"any": [{"cross_dn": averages}, {"for": ["$fast", {"lt": ["close", "$x"]}]}]},
    }
    document["run"] |= {"start": str(np.datetime64(first, "D")), "end": str(np.datetime64(last, "D"))}
    return document


def test_calls_do_not_grow_with_trials() -> None:
    """Ten times the trials of one subject: the same number of calls, once everything is compiled."""
    day = weekdays(400)
    close = 2000 + np.cumsum(np.random.default_rng(5).integers(-30, 31, 400))
    market = market_of([series_of(day, close, start_day=int(day[300]))], int(day[300]), int(day[-1]))
    points = list(itertools.product(range(2, 22), range(30, 40), (20.25, 20.5)))
    np.random.default_rng(6).shuffle(points)
    whole = ParamTable.of(("fast", "slow", "x"), points)
    for indicator in ("sma", "ema"):
        program = compile_study(load_study(cross(indicator, int(day[300]), int(day[-1]))))

        def calls(trials: int, program: Any = program) -> int:
            table = whole.take(slice(0, trials))
            with cProfile.Profile() as profile:
                [[found]] = evaluate_trials(program, table, market, "AAPL", SeriesStore(1 << 24))
            assert len(set(found.enter.row_of.tolist())) > trials // 4
            return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

        calls(200)
        assert calls(20) == calls(200)


def test_equal_signals_share_a_row() -> None:
    """200 trials of 20 fast windows: 20 rows of an exit that uses nothing else."""
    day = weekdays(100)
    market = market_of([series_of(day, 2000 + np.arange(100) % 7, start_day=FIRST_DAY)], FIRST_DAY, int(day[-1]))
    document = cross("sma", FIRST_DAY, int(day[-1]))
    document["strategy"]["sleeves"][0]["exit"] = {"lt": ["close", {"i": "sma", "n": "$fast"}]}
    points = list(itertools.product(range(2, 22), range(30, 40), (20.25,)))
    table = ParamTable.of(("fast", "slow", "x"), points)
    program = compile_study(load_study(document))
    [[found]] = evaluate_trials(program, table, market, "AAPL", SeriesStore(1 << 24))
    assert found.exit.bits.shape == (20, 2) and found.exit.row_of.dtype == np.int32
    assert len(set(zip(found.exit.row_of.tolist(), table.codes[0].tolist(), strict=True))) == 20
