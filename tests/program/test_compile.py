"""Programs: nodes, lookbacks, columns, history (domain.md 2.4, 2.5, 3.3)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import talib
import talib.abstract
from hypothesis import given

from farm.program.compile import numeric_node
from farm.program.expr import Expressions, Node
from farm.program.lookback import LookBack
from farm.program.program import Program, StopRule
from farm.spec.parse import load_study
from farm.spec.parse_expr import ExpressionParser
from farm.spec.reader import Reader
from farm.spec.resolve import Resolver, resolve
from farm.spec.spec import Warmup
from farm.values.indicators import INDICATORS
from farm.values.units import first_day_of, month_of, parse_date
from tests.generators import specs
from tests.reference.history import history_first_day
from tests.reference.program import compile_trial
from tests.spec.test_resolve import CROSS, PARAMS

SETTLE = Warmup("settle")


def node(expression: Any, table: Expressions | None = None) -> Node:
    spelled = ExpressionParser(Reader({}), {}, "let").numeric(expression, "x")
    return numeric_node(spelled, table if table is not None else Expressions())


def program(**sleeve: Any) -> Program:
    document = copy.deepcopy(CROSS)
    document["strategy"]["sleeves"][0] |= sleeve
    return compile_trial(Resolver(load_study(document)).trial(PARAMS))


@given(specs())
def test_equal_expressions_are_one_object(document: dict[str, Any]) -> None:
    """Compiled twice into one table: the same nodes. Into two tables: the same keys."""
    trial = Resolver(load_study(document)).trial({})
    table = Expressions()
    first, second = (compile_trial(trial, table) for _ in range(2))
    other = compile_trial(trial)
    for a, b, c in zip(first.sleeves, second.sleeves, other.sleeves, strict=True):
        assert all(x is y for x, y in zip(a.roots(), b.roots(), strict=True))
        assert [x.key for x in a.roots()] == [x.key for x in c.roots()]


@given(specs())
def test_a_document_compiles_like_its_trial(document: dict[str, Any]) -> None:
    spec, table = load_study(document), Expressions()
    from_trial = compile_trial(Resolver(spec).trial({}), table)
    from_document = compile_trial(resolve(spec, {}, None), table)
    assert from_trial.sleeves == from_document.sleeves
    assert from_trial.history_bars == from_document.history_bars
    assert from_trial.columns == from_document.columns


def test_different_expressions_have_different_keys() -> None:
    expressions: list[Any] = [
        "close", "open", 1, 2, {"f": "close", "sym": "SPY"}, {"i": "sma", "n": 5}, {"i": "sma", "n": 6},
        {"i": "ema", "n": 5}, {"i": "max", "n": 2}, {"op": "max", "a": ["close", 2]}, {"op": "max", "a": [2, "close"]},
        {"op": "sub", "a": ["close", "open"]}, {"op": "sub", "a": ["open", "close"]}, {"op": "lag", "a": ["close"]},
        {"op": "lag", "a": ["close"], "n": 2}, {"op": "diff", "a": ["close"]},
    ]  # fmt: skip
    table = Expressions()
    nodes = [node(expression, table) for expression in expressions]
    assert len({one.key for one in nodes}) == len({id(one) for one in nodes}) == len(expressions)
    assert node({"i": "sma", "n": 5.0, "of": {"f": "close"}}, table) is node({"i": "sma", "n": 5}, table)
    assert node(1.0, table) is node(1, table)
    assert node(-0.0).key == node(0).key


@pytest.mark.parametrize("name", ["sma", "ema", "rsi", "roc", "stddev", "max", "min"])
@pytest.mark.parametrize("n", [2, 14, 200])
def test_lookbacks_are_those_of_talib(name: str, n: int) -> None:
    function = talib.abstract.Function(name.upper())
    function.set_parameters(timeperiod=n)
    assert INDICATORS[name].lookback(n) == function.lookback
    assert LookBack(SETTLE).lookback(node({"i": name, "n": n})) == function.lookback


@pytest.mark.parametrize(
    ("expression", "lookback", "reach"),
    [
        ("close", 0, 0),
        ({"i": "sma", "n": 10}, 9, 9),
        ({"i": "sma", "n": 10, "of": {"i": "sma", "n": 5}}, 13, 13),
        ({"op": "lag", "n": 3, "a": [{"i": "roc", "n": 10}]}, 13, 13),
        ({"i": "rsi", "n": 14}, 14, 496),
        ({"i": "ema", "n": 200}, 199, 3674),
        ({"i": "sma", "n": 10, "of": {"i": "rsi", "n": 14}}, 23, 505),
        # The inner one must be known where the outer one starts, up to a month before its settling.
        ({"i": "ema", "n": 200, "of": {"i": "rsi", "n": 14}}, 213, 3674 + 31 + 496),
    ],
)
def test_lookback_and_reach(expression: Any, lookback: int, reach: int) -> None:
    found = node(expression)
    assert (LookBack(SETTLE).lookback(found), LookBack(SETTLE).whole(found)) == (lookback, reach)


@pytest.mark.parametrize(
    ("warmup", "reach"),
    [(Warmup("none"), 9), (Warmup("bar", 100), 100), (Warmup("d", 90), 90), (Warmup("mo", 2), 62)],
)
def test_reach_of_other_warm_ups(warmup: Warmup, reach: int) -> None:
    assert LookBack(warmup).whole(node({"i": "ema", "n": 10})) == reach


@pytest.mark.parametrize(
    ("expression", "scale"),
    [
        ("close", (1, "split")),
        ("volume", (-1, "split")),
        ("close_raw", (0, "")),
        ("close_tr", (1, "tr")),
        (5, (0, "")),
        ({"i": "sma", "n": 2}, (1, "split")),
        ({"i": "rsi", "n": 2}, (0, "")),
        ({"op": "sub", "a": ["close", {"i": "ema", "n": 2}]}, (1, "split")),
        ({"op": "mul", "a": ["close", "volume"]}, (0, "")),
        ({"op": "mul", "a": ["close", "close"]}, (2, "split")),
        ({"op": "div", "a": ["close", "open"]}, (0, "")),
        ({"op": "div", "a": [1, "close"]}, (-1, "split")),
        ({"op": "mul", "a": [2, "close"]}, (1, "split")),
        ({"op": "add", "a": ["close", 1]}, (0, "")),
        ({"op": "sub", "a": ["close", "close_tr"]}, (0, "")),
        ({"op": "mul", "a": ["close", "close_tr"]}, (0, "")),
        ({"op": "sub", "a": ["close", {"f": "close", "sym": "SPY"}]}, (0, "")),
        ({"op": "if", "a": [True, "close", "open"]}, (1, "split")),
        ({"op": "if", "a": [True, "close", 1]}, (0, "")),
        ({"op": "lag", "a": ["volume"]}, (-1, "split")),
    ],
)
def test_price_power(expression: Any, scale: tuple[int, str]) -> None:
    found = node(expression)
    assert (found.power, found.basis) == scale


def test_columns_are_those_that_are_read() -> None:
    assert program().columns == {"open", "close", "volume"}
    assert program(stops=[{"type": "time", "bars": 3}]).columns == {"open", "close", "volume"}
    every = {"open", "high", "low", "close", "volume"}
    assert program(stops=[{"type": "trail", "pct": 0.1}]).columns == every
    assert program(prefer={"op": "sub", "a": ["high", "low"]}).columns == every
    assert program(prefer="close_tr").columns == {"open", "close", "volume"}


def test_a_program_is_what_the_spec_says() -> None:
    found = program(
        size={"mode": "equal"}, max_positions=4, cooldown_bars=2, alloc=0.5, prefer="volume",
        stops=[{"type": "stop", "level": "low"}, {"type": "target", "r": 2}, {"type": "trail", "abs": 1.5}],
    )  # fmt: skip
    [sleeve] = found.sleeves
    assert (sleeve.id, sleeve.side, sleeve.universe, sleeve.universe_id) == ("s", "long", (), "u")
    assert (sleeve.size.mode, sleeve.max_positions, sleeve.cooldown_bars, sleeve.alloc) == ("equal", 4, 2, 0.5)
    expected = (StopRule("stop", "level", 0.0, 0), StopRule("target", "r", 2.0), StopRule("trail", "abs", 1.5))
    assert sleeve.stops == expected
    assert sleeve.enter_short is None and sleeve.prefer is not None and len(sleeve.levels) == 1
    assert found.assumptions == ("fixed_universe",)
    assert found.on("AAPL").sleeves[0].universe == ("AAPL",)


def test_fixed_series_need_their_own_history() -> None:
    found = program(prefer={"op": "lag", "n": 4, "a": [{"i": "sma", "n": 10, "sym": "SPY"}]})
    assert found.syms == ("SPY",) and found.sym_history["SPY"] == 4 + 9 + 6


@dataclass(frozen=True)
class Month:
    month: int
    rows: int


def test_history_is_read_in_whole_months() -> None:
    """60 bars (slow 30 at the bar before: 30) before January 2001 with 20 bars a month: two months."""
    found = program().on("AAPL")
    assert found.history_bars == 30
    start = month_of(parse_date("2001-01-02", ""))
    months = [Month(start + offset, 20) for offset in range(-10, 5)]
    assert history_first_day(found, months, "AAPL") == first_day_of(start - 2)
    gaps = [Month(start + offset, 7) for offset in (-9, -6, -3, 1)]
    assert history_first_day(found, gaps, "AAPL") == first_day_of(start - 9)
    assert history_first_day(found, [Month(start - 3, 400)], "AAPL") == first_day_of(start - 3)
    assert history_first_day(found, [], "AAPL") == first_day_of(start)
    assert history_first_day(found, months, "OTHER") == found.run.start_day
