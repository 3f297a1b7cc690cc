"""The parser: what is refused, where, and with which hint; nothing is ignored (domain.md 2)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from farm.spec import grammar
from farm.spec.parse import load_study
from farm.spec.spec import Costs, Exec, Objective, Split, Warmup
from farm.values.errors import SpecError
from farm.values.metrics import METRIC_NAMES
from farm.values.units import parse_date
from tests.generators import specs

SLEEVE: dict[str, Any] = {
    "id": "s", "kind": "rules", "universe": "u", "side": "long",
    "enter": {"cross_up": [{"i": "sma", "n": "$n"}, {"i": "sma", "n": 50}]},
    "exit": {"cross_dn": [{"i": "sma", "n": "$n"}, {"i": "sma", "n": 50}]},
    "size": {"mode": "pct_equity", "v": 1.0},
    "stops": [{"type": "stop", "pct": 0.05}],
}  # fmt: skip
BASE: dict[str, Any] = {
    "spec": 1,
    "strategy": {
        "params": {"n": {"int": [5, 20, 5]}},
        "let": {"r": {"i": "rsi", "n": 14}},
        "universes": [{"id": "u", "tickers": ["AAPL", "MSFT"]}],
        "sleeves": [SLEEVE],
    },
    "run": {"dataset": "main", "start": "2001-01-02", "end": "2010-12-31", "cash": 100000},
    "study": {"each": {"instrument": "u"}, "objective": {"max": "sharpe"}},
}
MISSING = object()


def edited(*edits: tuple[str, Any]) -> dict[str, Any]:
    """Return BASE with other values at dotted paths ("s." is the sleeve's)."""
    document = copy.deepcopy(BASE)
    for path, value in edits:
        path = path.replace("s.", "strategy.sleeves.0.", 1) if path.startswith("s.") else path
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        target: Any = document
        for part in parents:
            target = target[part]
        if value is MISSING:
            del target[last]
        else:
            target[last] = copy.deepcopy(value)
    return document


def refusal(*edits: tuple[str, Any]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_study(edited(*edits))
    return caught.value


def test_base_is_accepted_with_all_defaults_written_in() -> None:
    spec = load_study(BASE)
    assert (spec.run.bar, spec.run.calendar, spec.run.session, spec.run.account) == ("1d", "XNYS", "regular", "cash")
    assert (spec.run.lot, spec.run.ccy, spec.run.rf, spec.run.ann) == ("whole", "USD", 0.0, 252)
    assert spec.run.costs == Costs(0.0, 0.0, 0.0, 0.0) and spec.run.exec == Exec(0.0, 0.0, False)
    assert spec.run.warmup == Warmup("settle") and spec.run.benchmark is None and spec.run.max_gross is None
    assert spec.run.cash_micro == 100_000_000_000
    assert spec.run.start_day == parse_date("2001-01-02", "")
    assert spec.study is not None and spec.study.each == "u" and spec.study.seed == 0
    assert spec.study.objective == Objective("max", "sharpe", "full", "median")
    assert spec.study.split is None


def test_study_options() -> None:
    study = {
        "each": {"instrument": "u"}, "search": {"grid": {}}, "seed": 3, "prune": {"certain": True},
        "split": {"mode": "chronological", "is": 0.7, "embargo": 5}, "objective": {"min": "max_dd", "over": "max"},
    }  # fmt: skip
    options = load_study(edited(("study", study))).study
    assert options is not None and options.split == Split("chronological", 0.7, 5) and options.seed == 3
    assert options.objective == Objective("min", "max_dd", "is", "max")
    del study["prune"]
    assert load_study(edited(("study", study))).study == options
    assert (options.metrics, options.proof) == (None, None)
    study |= {"metrics": ["max_dd", "cagr"], "proof": "winners"}
    options = load_study(edited(("study", study))).study
    assert options is not None and (options.metrics, options.proof) == (("cagr", "max_dd"), "winners")
    options = load_study(edited(("study", study | {"metrics": "all"}))).study
    assert options is not None and options.metrics == METRIC_NAMES


@pytest.mark.parametrize(
    ("edits", "place", "fragment"),
    [
        # Unknown keys and words, with the nearest known one.
        ([("strtegy", {})], "strtegy", "'strategy'"),
        ([("run.dateset", "x")], "run.dateset", "'dataset'"),
        ([("s.entr", True)], "strategy.sleeves[0].entr", "'enter'"),
        ([("s.enter", {"cross_upp": ["open", "close"]})], "strategy.sleeves[0].enter.cross_upp", "'cross_up'"),
        ([("s.enter", {"gt": ["clsoe", 1]})], "strategy.sleeves[0].enter.gt[0]", "'close'"),
        ([("s.enter", {"gt": [{"i": "smaa", "n": 3}, 1]})], "strategy.sleeves[0].enter.gt[0].i", "'sma'"),
        ([("s.enter", {"gt": [{"op": "plus", "a": [1, 2]}, 1]})], "strategy.sleeves[0].enter.gt[0].op", "unknown"),
        ([("s.size", {"mode": "pct", "v": 1})], "strategy.sleeves[0].size.mode", "pct_equity"),
        ([("s.stops", [{"type": "trai", "pct": 0.1}])], "strategy.sleeves[0].stops[0].type", "'trail'"),
        ([("study.objective", {"max": "sharp"})], "study.objective.max", "'sharpe'"),
        ([("s.universe", "v")], "strategy.sleeves[0].universe", "no universe 'v'"),
        ([("s.enter", {"gt": ["$m", 1]})], "strategy.sleeves[0].enter.gt[0]", "no parameter named 'm'"),
        ([("s.enter", {"gt": ["@rr", 1]})], "strategy.sleeves[0].enter.gt[0]", "'r'"),
        ([("study.each", {"instrument": "w"})], "study.each.instrument", "no universe 'w'"),
        ([("study.metrics", ["cagr", "sharp"])], "study.metrics[1]", "'sharpe'"),
        ([("study.metrics", ["cagr", "cagr"])], "study.metrics[1]", "listed twice"),
        ([("study.metrics", [])], "study.metrics", "at least 1"),
        ([("study.metrics", "most")], "study.metrics", '"all", or a list of metrics'),
        ([("study.proof", "some")], "study.proof", "all, winners"),
        # Missing.
        ([("run.cash", MISSING)], "run.cash", "missing"),
        ([("run.dataset", MISSING)], "run.dataset", "missing"),
        ([("strategy", MISSING)], "strategy", "missing"),
        ([("s.size", MISSING)], "strategy.sleeves[0].size", "missing"),
        ([("s.size", {"mode": "qty"})], "strategy.sleeves[0].size.v", "missing"),
        ([("s.enter", {"gt": [{"i": "sma"}, 1]})], "strategy.sleeves[0].enter.gt[0].n", "missing"),
        # Wrong types and shapes.
        ([("spec", 2)], "spec", "version"),
        ([("run.cash", "100000")], "run.cash", "without quotes"),
        ([("run.start", "02/01/2001")], "run.start", "YYYY-MM-DD"),
        ([("run.start", "2001-02-30")], "run.start", "no such day"),
        ([("run.end", "2000-12-31")], "run.end", "the window is empty"),
        ([("s.enter", {"gt": ["close"]})], "strategy.sleeves[0].enter.gt", "2 items"),
        ([("s.enter", {"gt": ["close", True]})], "strategy.sleeves[0].enter.gt[1]", "condition where a number"),
        ([("s.enter", "close")], "strategy.sleeves[0].enter", "not a condition"),
        ([("s.enter", {"i": "sma", "n": 3})], "strategy.sleeves[0].enter", "a number where a condition belongs"),
        ([("s.enter", {"all": []})], "strategy.sleeves[0].enter.all", "at least 1"),
        ([("s.enter", {"gt": ["open", 1], "lt": ["open", 9]})], "strategy.sleeves[0].enter.lt", '"all"'),
        ([("s.enter", {"not": "open"})], "strategy.sleeves[0].enter.not", "not a condition"),
        ([("s.enter", {"all": [True, {"gt": [None, 1]}]})], "strategy.sleeves[0].enter.all[1].gt[0]", "null"),
        ([("s.enter", {"gt": [{"op": "sub", "a": [1]}, 1]})], "strategy.sleeves[0].enter.gt[0].a", "2 items"),
        ([("s.enter", {"gt": [{"op": "neg", "a": [1], "n": 2}, 1]})], "strategy.sleeves[0].enter.gt[0].n", "no n"),
        ([("s.enter", {"for": [0, True]})], "strategy.sleeves[0].enter.for[0]", ">= 1"),
        ([("s.enter", {"dow": [0]})], "strategy.sleeves[0].enter.dow[0]", ">= 1"),
        ([("s.enter", {"date": ["2001-02-01", "2001-01-01"]})], "strategy.sleeves[0].enter.date", "before"),
        ([("strategy.universes.0.tickers", [])], "strategy.universes[0].tickers", "at least 1"),
        ([("strategy.universes.0.tickers", ["A", "A"])], "strategy.universes[0].tickers[1]", "twice"),
        ([("strategy.sleeves", [SLEEVE, SLEEVE])], "strategy.sleeves[1].id", "taken"),
        ([("strategy.let", {"r": {"gt": ["@r", 1]}})], "strategy.let.r", "circle"),
        ([("strategy.let", {"a": {"gt": ["opne", 1]}})], "strategy.let.a.gt[0]", "'open'"),
        # Units.
        ([("s.stops.0.pct", 5)], "strategy.sleeves[0].stops[0].pct", "5 % is 0.05"),
        ([("s.stops.0", {"type": "target", "pct": 10})], "strategy.sleeves[0].stops[0].pct", "fractions"),
        ([("s.size.v", 50)], "strategy.sleeves[0].size.v", "fractions"),
        ([("s.alloc", 50)], "strategy.sleeves[0].alloc", "fractions"),
        ([("run.rf", 4)], "run.rf", "fractions"),
        ([("run.costs", {"bps": 0.0005})], "run.costs.bps", "5 is 0.05 %"),
        ([("run.exec", {"slip_bps": 10000})], "run.exec.slip_bps", "hundredths"),
        ([("study.split", {"mode": "chronological", "is": 70})], "study.split.is", "fractions"),
        ([("run.cash", 0)], "run.cash", "> 0"),
        ([("run.cash", 1e10)], "run.cash", "<= 9000000000"),
        ([("run.warmup", "200")], "run.warmup", "{n}bar"),
        ([("run.bar", "daily")], "run.bar", "1d"),
        # What does not fit together.
        ([("s.side", "short")], "strategy.sleeves[0].side", '"reg_t"'),
        ([("s.enter_short", True)], "strategy.sleeves[0].enter_short", '"both"'),
        ([("s.stops.0", {"type": "stop", "pct": 0.1, "abs": 1})], "strategy.sleeves[0].stops[0]", "exactly one"),
        ([("s.stops.0", {"type": "trail", "level": "low"})], "strategy.sleeves[0].stops[0].level", "pct, abs"),
        ([("s.stops.0", {"type": "time", "pct": 0.1})], "strategy.sleeves[0].stops[0].pct", "bars"),
        ([("s.stops.0", {"type": "target", "r": 2})], "strategy.sleeves[0].stops[0].r", "initial risks"),
        ([("s.size", {"mode": "equal", "v": 1})], "strategy.sleeves[0].size.v", "max_positions"),
        ([("study.objective", {"max": "sharpe", "on": "oos"})], "study.objective.on", "no split"),
        ([("study.objective", {"max": "sharpe", "min": "vol"})], "study.objective", "exactly one"),
        ([("run.max_gross", 2)], "run.max_gross", "linear"),
        ([("run.session", "24x7")], "run.session", "regular"),
        ([("run.benchmark", "$n")], "run.benchmark", "parameters"),
        ([("strategy.universes.0.tickers", ["$n"])], "strategy.universes[0].tickers[0]", "not built yet"),
        # Parameters are checked with all their values.
        ([("strategy.params.n", {"int": [0, 9]})], "strategy.sleeves[0].enter.cross_up[0].n", "parameter 'n' = 0"),
        ([("strategy.params.n", {"choice": [3, "x"]})], "strategy.sleeves[0].enter.cross_up[0].n", "not an integer"),
        ([("strategy.params.n", {"int": [9, 5]})], "strategy.params.n.int", "no values"),
        ([("strategy.params.n", {"int": [5, 9, 0]})], "strategy.params.n.int[2]", "step"),
        ([("strategy.params.n", {"choice": [5, 5.0]})], "strategy.params.n.choice[1]", "twice"),
        ([("strategy.params.n", {"choice": []})], "strategy.params.n.choice", "at least 1"),
        ([("strategy.params.n", {"int": [1, 2], "choice": [1]})], "strategy.params.n", "exactly one"),
        ([("strategy.params.2n", {"int": [1, 2]})], "strategy.params.2n", "not a name"),
        ([("strategy.params.f", {"float": [0, 1]})], "strategy.params.f", "no grid"),
        ([("strategy.constraints", [{"gt": ["close", 1]}])], "strategy.constraints[0].gt[0]", "not a number"),
        ([("strategy.constraints", [{"lt": ["$k", 1]}])], "strategy.constraints[0].lt[0]", "$n"),
    ],
)  # fmt: skip
def test_refusals_name_the_place_and_help(edits: list[tuple[str, Any]], place: str, fragment: str) -> None:
    error = refusal(*edits)
    assert error.place == place, str(error)
    assert fragment in str(error)


@pytest.mark.parametrize(
    ("edits", "place"),
    [
        *[([("s.kind", kind)], "strategy.sleeves[0].kind") for kind in grammar.SLEEVE_KINDS_NOT_BUILT],
        *[([(f"s.{key}", {})], f"strategy.sleeves[0].{key}") for key in grammar.RULES_NOT_BUILT],
        *[([("s.size", {"mode": mode, "v": 1})], "strategy.sleeves[0].size.mode") for mode in grammar.SIZES_NOT_BUILT],
        *[([("s.prefer", field)], "strategy.sleeves[0].prefer") for field in grammar.FIELDS_NOT_BUILT],
        *[([("s.prefer", {"i": name})], "strategy.sleeves[0].prefer.i") for name in grammar.INDICATORS_NOT_BUILT],
        *[([("s.prefer", {"op": op, "a": [1]})], "strategy.sleeves[0].prefer.op") for op in grammar.OPS_NOT_BUILT],
        *[([("s.prefer", {h: "x"})], f"strategy.sleeves[0].prefer.{h}") for h in grammar.NUMERIC_HEADS_NOT_BUILT],
        *[([("s.enter", {h: []})], f"strategy.sleeves[0].enter.{h}") for h in grammar.TRUTH_HEADS_NOT_BUILT],
        *[([("run.exec", {"fill": fill})], "run.exec.fill") for fill in grammar.FILLS_NOT_BUILT],
        *[([("run.exec", {key: 1})], f"run.exec.{key}") for key in grammar.EXEC_NOT_BUILT],
        *[([("run.costs", {key: 1})], f"run.costs.{key}") for key in (*grammar.COSTS_ZERO, *grammar.COSTS_NOT_BUILT)],
        *[([("study.search", {key: {}})], f"study.search.{key}") for key in grammar.SEARCHES_NOT_BUILT],
        *[([("study.split", {"mode": mode})], "study.split.mode") for mode in grammar.SPLITS_NOT_BUILT],
        *[([(f"strategy.universes.0.{key}", 1)], f"strategy.universes[0].{key}")
          for key in grammar.UNIVERSE_NOT_BUILT],
        ([("s.prefer", {"f": "close", "tf": "1d"})], "strategy.sleeves[0].prefer.tf"),
        ([("s.prefer", {"i": "sma", "n": 3, "tf": "1d"})], "strategy.sleeves[0].prefer.tf"),
        ([("s.stops.0", {"type": "stop", "atr_k": 2, "n": 14})], "strategy.sleeves[0].stops[0].atr_k"),
        ([("s.stops.0", {"type": "session_end"})], "strategy.sleeves[0].stops[0].type"),
        ([("run.bar", "1min")], "run.bar"),
        ([("run.ccy", "EUR")], "run.ccy"),
        ([("run.rf", "US_TREASURY")], "run.rf"),
        ([("run.session", "extended")], "run.session"),
        ([("study.require", {"trades": {"ge": 3}})], "study.require"),
        ([("study.prune", {"certain": False})], "study.prune.certain"),
        ([("study.prune", {"heuristic": []})], "study.prune.heuristic"),
    ],
)  # fmt: skip
def test_known_but_unbuilt_parts_say_so(edits: list[tuple[str, Any]], place: str) -> None:
    """Every word of the grammar is either built, or refused by name."""
    error = refusal(*edits)
    assert error.place == place, str(error)
    assert "not built yet" in error.message


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ('{"spec": 1, "spec": 1}', "duplicate key"),
        ('{"spec": 1, "run": {"cash": NaN}}', "NaN is not a number"),
        ('{"spec": 1, "run": {"cash": -Infinity}}', "-Infinity is not a number"),
        ('{"spec": 1, "run": {"cash": 1e999}}', "inf is not a number"),
        ('{"spec": 1, "run": {"cash": 90071992547409930}}', "too large"),
        ('{"spec": 1,', "line 1, column 12"),
        ("{'spec': 1}", "not JSON"),
        ("[1]", "a spec is a JSON object"),
        ('{"spec": 1, "x": ' + "[" * 5000 + "]" * 5000 + "}", "too deep"),
        ('{"spec": ' + "1" * 5000 + "}", "not JSON"),
        ("/nowhere/study.json", "cannot be read"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"name": "\\ud800"}', "surrogate"),
    ],
)
def test_broken_documents(text: str | bytes, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_study(text)
    assert fragment in str(caught.value)


def test_text_path_and_object_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text("\ufeff" + json.dumps(BASE), encoding="utf-8")
    assert load_study(path) == load_study(str(path)) == load_study(json.dumps(BASE)) == load_study(BASE)


def test_what_is_read_is_not_shared_with_the_caller() -> None:
    """Changing the caller's object later changes nothing, and parsing changes nothing of the caller's."""
    document = copy.deepcopy(BASE)
    spec = load_study(document)
    assert document == BASE
    document["strategy"]["sleeves"][0]["side"] = "both"
    assert spec.strategy.template["sleeves"][0]["side"] == "long"


def test_every_built_word_is_accepted() -> None:
    """Fields, indicators, operations, conditions, sizes and stops that count as built really parse."""
    for field in grammar.FIELDS_BUILT:
        load_study(edited(("s.prefer", field)))
    for name in grammar.INDICATORS_BUILT:
        load_study(edited(("s.prefer", {"i": name, "n": 5, "of": "high", "sym": "SPY"})))
    for op, (least, _) in grammar.ARITY.items():
        parts: list[Any] = [{"gt": ["open", 1]}, "open", 2] if op == "if" else ["close"] * least
        load_study(edited(("s.prefer", {"op": op, "a": parts})))
    conditions: dict[str, Any] = {
        "between": ["close", 1, 2], "all": [True], "any": [False], "not": True, "for": [2, True], "within": [2, True],
        "dow": [1, 5], "month": [12], "date": ["2001-01-01", "2002-01-01"],
    }  # fmt: skip
    for head in grammar.TRUTH_HEADS:
        load_study(edited(("s.enter", {head: conditions.get(head, ["close", "@r"])})))
    for mode, keys in grammar.SIZES.items():
        load_study(edited(("s.size", {"mode": mode} | dict.fromkeys(keys, 0.5))))
    for kind, units in grammar.STOP_UNITS.items():
        for unit in units:
            stop = {"type": kind, unit: {"level": "low", "bars": 3}.get(unit, 0.5)}
            load_study(edited(("s.stops", [stop] if unit != "r" else [{"type": "stop", "pct": 0.1}, stop])))
    for account in grammar.ACCOUNTS:
        load_study(edited(("run.account", account)))
    for warmup in ("settle", "none", "5bar", "30d", "12mo"):
        load_study(edited(("run.warmup", warmup)))


def test_parameters_may_stand_for_any_scalar() -> None:
    spec = load_study(
        edited(
            ("strategy.params", {
                "i": {"choice": ["sma", "ema"]}, "n": {"int": [5, 9]}, "of": {"choice": ["open", "close"]},
                "on": {"choice": [True, False]}, "x": {"choice": [0.1, 0.2]}, "sym": {"choice": ["SPY", "QQQ"]},
            }),
            ("s.enter", {"all": ["$on", {"gt": [{"i": "$i", "n": "$n", "of": "$of", "sym": "$sym"}, "$x"]}]}),
            ("s.exit", MISSING),
            ("s.stops.0.pct", "$x"),
        )
    )  # fmt: skip
    indicator = {"i": "$i", "n": "$n", "of": {"f": "$of", "sym": "$sym"}}
    assert spec.strategy.template["sleeves"][0]["enter"] == {"all": ["$on", {"gt": [indicator, "$x"]}]}


def test_sym_of_an_indicator_belongs_to_the_fields_inside() -> None:
    of = {"op": "sub", "a": ["high", {"f": "low", "sym": "X"}]}
    spec = load_study(edited(("s.prefer", {"i": "sma", "n": 5, "sym": "SPY", "of": of})))
    inner = {"op": "sub", "a": [{"f": "high", "sym": "SPY"}, {"f": "low", "sym": "X"}]}
    assert spec.strategy.template["sleeves"][0]["prefer"] == {"i": "sma", "n": 5, "of": inner}


@given(specs())
def test_generated_specs_are_accepted(document: dict[str, Any]) -> None:
    spec = load_study(document)
    assert len(spec.strategy.template["sleeves"]) == len(document["strategy"]["sleeves"])
