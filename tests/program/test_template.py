"""A study compiled once: each trial's program, history and numbers are those of the trial compiled alone."""

from __future__ import annotations

import copy
import cProfile
import itertools
import pstats
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.program.program import Program
from farm.program.template import SIZE_MODES, RulesColumns, StudyProgram, compile_study
from farm.spec.grammar import SIDES
from farm.spec.params import grid_values
from farm.spec.parse import load_study
from farm.spec.resolve import Resolver
from farm.spec.spec import StudySpec
from farm.spec.table import ParamTable
from farm.values.errors import SpecError
from tests.effort import effort
from tests.generators import studies
from tests.reference.program import compile_trial
from tests.spec.test_resolve import CROSS


def table_of(spec: StudySpec, trials_max: int = 12, seed: int = 0) -> ParamTable:
    """Some points of the grid, in any order, some of them twice."""
    names = sorted(spec.strategy.params)
    points = list(itertools.product(*(grid_values(spec.strategy.params[name], name) for name in names)))
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(points), trials_max) if len(points) > 1 else np.zeros(1, np.int64)
    return ParamTable.of(names, [points[k] for k in chosen])


def numbers_of(columns: RulesColumns, trial: int) -> tuple[Any, ...]:
    """What one trial's program has besides expressions."""
    adds = columns.add_size is not None and columns.add_max is not None
    return (
        SIDES[columns.side[trial]],
        (SIZE_MODES[columns.size.mode[trial]], columns.size.v[trial]),
        [(stop.type, stop.unit, stop.value[trial], stop.level, stop.follows) for stop in columns.stops],
        columns.max_positions[trial],
        columns.ttl[trial],
        columns.cooldown_bars[trial],
        columns.alloc[trial],
        (columns.add_max[trial], SIZE_MODES[columns.add_size.mode[trial]], columns.add_size.v[trial]) if adds else None,
    )


def expected_numbers(program: Program, number: int) -> tuple[Any, ...]:
    sleeve = program.sleeves[number]
    return (
        sleeve.side,
        (sleeve.size.mode, sleeve.size.v),
        [(stop.type, stop.unit, stop.value, stop.level, stop.follows) for stop in sleeve.stops],
        sleeve.max_positions,
        sleeve.ttl,
        sleeve.cooldown_bars,
        sleeve.alloc,
        (sleeve.add.max, sleeve.add.size.mode, sleeve.add.size.v) if sleeve.add else None,
    )


@settings(max_examples=effort(300))
@given(studies(syms=("IBM", "MSFT"), depth=2), st.integers(0, 99))
def test_a_trial_of_the_template_is_the_trial_compiled_alone(document: dict[str, Any], seed: int) -> None:
    """Field by field, its nodes the same objects; history, columns and numbers for all trials at once too."""
    spec = load_study(document)
    table, program, resolver = table_of(spec, seed=seed), compile_study(spec), Resolver(spec)
    history, columns, rules = program.history(table), program.columns(table), program.rules(table)
    alone = [compile_trial(resolver.trial(table.row(trial)), program.expressions) for trial in range(table.trials)]
    for trial, expected in enumerate(alone):
        assert program.one(table, trial) == expected
        assert history.bars[trial] == expected.history_bars
        syms = {sym: int(bars[trial]) for sym, bars in history.syms.items() if bars[trial]}
        assert syms == expected.sym_history and list(history.syms) == sorted(history.syms)
        for number, one in enumerate(rules):
            assert numbers_of(one, trial) == expected_numbers(expected, number)
    assert columns == frozenset().union(*(expected.columns for expected in alone))
    assert program.assumptions == alone[0].assumptions


def swept() -> dict[str, Any]:
    """Every place that a parameter can stand in: levels, limits, additions, words, numbers, counts."""
    document = copy.deepcopy(CROSS)
    document["run"]["account"] = "reg_t"
    document["strategy"]["params"] = {
        "n": {"int": [2, 4]}, "kind": {"choice": ["sma", "ema"]}, "field": {"choice": ["low", "volume"]},
        "sym": {"choice": ["SPY", "QQQ"]}, "days": {"choice": ["1d", "3d"]}, "side": {"choice": ["long", "both"]},
        "share": {"choice": [0.25, 0.5]}, "is_on": {"choice": [True, False]}, "mode": {"choice": ["qty", "notional"]},
    }  # fmt: skip
    document["strategy"]["let"] = {}
    document["strategy"]["sleeves"] = [
        {
            "id": "s", "kind": "rules", "universe": "u", "side": "$side", "size": {"mode": "$mode", "v": "$share"},
            "enter": {"all": ["$is_on", {"gt": [{"f": "close", "sym": "$sym"}, {"i": "$kind", "n": "$n"}]}]},
            "exit": {"for": ["$n", {"lt": ["close", "$share"]}]}, "alloc": "$share",
            "order": {"type": "limit", "limit": {"op": "lag", "n": "$n", "a": ["$field"]}, "ttl": "$days"},
            "stops": [{"type": "stop", "level": {"i": "min", "n": "$n", "of": "low"}}, {"type": "target", "r": "$n"}],
            "add": {"max": "$n", "when": {"cross_up": ["close", "$share"]}, "size": {"mode": "notional", "v": "$n"}},
            "cooldown_bars": "$n", "max_positions": "$n",
        }
    ]  # fmt: skip
    return document


def test_every_place_of_a_parameter() -> None:
    spec = load_study(swept())
    table, program, resolver = table_of(spec, 60), compile_study(spec), Resolver(spec)
    [columns] = program.rules(table)
    history = program.history(table)
    for trial in range(table.trials):
        expected = compile_trial(resolver.trial(table.row(trial)), program.expressions)
        assert program.one(table, trial) == expected
        assert numbers_of(columns, trial) == expected_numbers(expected, 0)
        assert history.bars[trial] == expected.history_bars
        assert {sym: bars[trial] for sym, bars in history.syms.items() if bars[trial]} == expected.sym_history
    assert len(set(history.bars.tolist())) > 3


@pytest.mark.parametrize("row", [("5", 30, 1), (99, 30, 1), (5, 31, 1), (5, 30, True), (5.5, 30, 1)])
def test_values_that_are_not_declared_are_refused_as_for_a_trial(row: tuple[Any, ...]) -> None:
    """With the words and the place that resolving that trial has."""
    spec = load_study(CROSS)
    table = ParamTable.of(("fast", "slow", "x"), [(5, 30, 1), row])
    with pytest.raises(SpecError) as alone:
        Resolver(spec).trial(table.row(1))
    program = compile_study(spec)
    for ask in (program.history, lambda table: program.one(table, 1)):
        with pytest.raises(SpecError) as refused:
            ask(table)
        assert str(refused.value) == str(alone.value)
    assert program.one(table, 0).history_bars == 30


def calls(program: StudyProgram, table: ParamTable) -> int:
    profile = cProfile.Profile()
    profile.enable()
    program.history(table)
    program.rules(table)
    program.columns(table)
    profile.disable()
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_calls_do_not_grow_with_trials() -> None:
    """Ten times the trials, the same number of calls: parts of one grid over windows, settling and thresholds."""
    document = copy.deepcopy(CROSS)
    document["strategy"]["params"] = {"fast": {"int": [2, 21]}, "slow": {"int": [30, 39]}, "x": {"choice": [0.25, 0.5]}}
    document["strategy"]["let"] = {"f": {"i": "ema", "n": "$fast"}}
    document["strategy"]["sleeves"][0] |= {"size": {"mode": "qty", "v": "$x"}, "cooldown_bars": "$fast"}
    spec = load_study(document)
    points = list(itertools.product(range(2, 22), range(30, 40), (0.25, 0.5)))
    whole = ParamTable.of(("fast", "slow", "x"), points)
    few, many = (whole.take(slice(None, None, len(points) // count)) for count in (20, 200))
    assert (few.trials, many.trials) == (20, 200)
    # ``compile_study`` has no memory of tables: only what belongs to the process is warm.
    calls(compile_study(spec), many)
    assert calls(compile_study(spec), few) == calls(compile_study(spec), many)
