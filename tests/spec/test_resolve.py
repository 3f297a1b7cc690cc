"""Canonical forms and their hashes (domain.md 2, 3.7, obligations 2 and 10)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.spec.parse import load_study
from farm.spec.resolve import Resolver, resolve, study_identity, template
from farm.values.canon import canonical_json, fingerprint
from farm.values.errors import SpecError
from tests.generators import permuted_pairs, specs

CROSS: dict[str, Any] = {
    "spec": 1,
    "name": "SMA cross",
    "strategy": {
        "params": {"fast": {"int": [5, 20, 5]}, "slow": {"choice": [30, 60]}, "x": {"choice": [1, 0.05]}},
        "let": {"f": {"i": "sma", "n": "$fast"}},
        "universes": [{"id": "u", "tickers": ["MSFT", "AAPL"]}],
        "sleeves": [
            {
                "id": "s", "kind": "rules", "universe": "u", "side": "long",
                "enter": {"all": [{"cross_up": ["@f", {"i": "sma", "n": "$slow"}]}, {"gt": ["close", "$x"]}]},
                "exit": {"any": [{"lt": ["@f", {"i": "sma", "n": "$slow"}]}, {"lt": ["close", 2]}]},
                "size": {"mode": "pct_equity", "v": 1.0},
            }
        ],
    },
    "run": {"dataset": "main", "start": "2001-01-02", "end": "2010-12-31", "cash": 100000},
    "study": {"each": {"instrument": "u"}, "objective": {"max": "sharpe"}},
}  # fmt: skip
PARAMS = {"fast": 5, "slow": 30, "x": 0.05}


def edited(path: str, value: Any, document: dict[str, Any] = CROSS) -> dict[str, Any]:
    """Return a copy of ``document`` with another value at the dotted ``path``; None deletes."""
    copied = copy.deepcopy(document)
    target: Any = copied
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        target = target[part]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return copied


def cell_hash(document: dict[str, Any], instrument: str | None = "AAPL", **params: Any) -> str:
    return Resolver(load_study(document)).trial({**PARAMS, **params}).cell_hash(instrument)


@given(specs())
def test_resolved_spec_is_a_fixed_point(document: dict[str, Any]) -> None:
    """spec -> resolve -> serialise -> parse -> resolve changes nothing."""
    resolved = resolve(load_study(document), {}, None)
    again = load_study(json.dumps(resolved), is_resolved=True)
    assert resolve(again, {}, None) == resolved
    assert Resolver(again).trial({}).cell_hash(None) == fingerprint(resolved)


@given(specs())
def test_text_of_the_fast_path_is_canonical(document: dict[str, Any]) -> None:
    """The hash that is spliced together is that of the canonical JSON of the document."""
    trial = Resolver(load_study(document)).trial({})
    assert trial.text(None) == canonical_json(trial.document(None))
    assert trial.cell_hash(None) == fingerprint(trial.document(None))


@given(permuted_pairs())
def test_order_within_all_and_any_means_nothing(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (load_study(document) for document in pair)
    assert resolve(first, {}, None) == resolve(second, {}, None)
    assert template(first).hash == template(second).hash


@given(specs(), st.data())
def test_any_semantic_edit_changes_the_hash(document: dict[str, Any], data: st.DataObject) -> None:
    """Each edit below means something else, whatever the spec."""
    path, value = data.draw(
        st.sampled_from(
            [
                ("run.cash", 77_777),
                ("run.start", "2000-02-20"),
                ("run.end", "2000-12-30"),
                ("run.rf", 0.01),
                ("run.ann", 250),
                ("run.benchmark", "SPY"),
                ("run.warmup", "33bar"),
                ("run.lot", "fractional"),
                ("run.costs", {"bps": 3.25}),
                ("run.exec", {"slip_bps": 7.5}),
                ("run.exec", {"reserve": {"pct": 0.01}}),
                ("strategy.universes", [{"id": "u", "tickers": ["AAPL", "XOM"]}]),
                ("strategy.sleeves.0.size", {"mode": "qty", "v": 777}),
                ("strategy.sleeves.0.cooldown_bars", 77),
                ("strategy.sleeves.0.max_positions", 77),
                ("strategy.sleeves.0.alloc", 0.77),
                ("strategy.sleeves.0.enter", {"gt": ["open", 7.7]}),
                ("strategy.sleeves.0.exit", {"gt": ["open", 7.7]}),
                ("strategy.sleeves.0.prefer", "low"),
                ("strategy.sleeves.0.stops", [{"type": "time", "bars": 77}]),
            ]
        )
    )
    before = fingerprint(resolve(load_study(document), {}, None))
    after = fingerprint(resolve(load_study(edited(path, value, document)), {}, None))
    assert before != after


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "another name"),
        ("note", "a note"),
        ("run.dataset", "other"),
        ("run.calendar", "XNYS"),
        ("run.costs", {"bps": 0, "borrow_apr": 0.0}),
        ("run.cash", 1e5),
        ("strategy.universes.0.tickers", ["AAPL", "MSFT"]),
        ("strategy.sleeves.0.enter.all.1", {"gt": [{"f": "close"}, "$x"]}),
        ("strategy.sleeves.0.alloc", 1),
        ("strategy.sleeves.0.stops", []),
        ("study.objective", {"min": "max_dd"}),
        ("study.split", {"mode": "chronological", "is": 0.5}),
    ],
)
def test_what_means_the_same_hashes_the_same(path: str, value: Any) -> None:
    assert cell_hash(edited(path, value)) == cell_hash(CROSS)
    assert template(load_study(edited(path, value))).hash == template(load_study(CROSS)).hash


def test_a_cell_is_the_same_run_alone() -> None:
    """A cell of an each study is the spec with that one ticker, its values written in, and no study."""
    alone = copy.deepcopy(CROSS)
    del alone["study"], alone["strategy"]["params"], alone["strategy"]["let"]
    alone["strategy"]["universes"][0]["tickers"] = ["AAPL"]
    fast, slow = {"i": "sma", "n": 5}, {"i": "sma", "n": 30}
    alone["strategy"]["sleeves"][0] |= {
        "enter": {"all": [{"gt": ["close", 0.05]}, {"cross_up": [fast, slow]}]},
        "exit": {"any": [{"lt": [fast, slow]}, {"lt": ["close", 2]}]},
    }
    assert resolve(load_study(alone), {}, None) == resolve(load_study(CROSS), PARAMS, "AAPL")
    assert Resolver(load_study(alone)).trial({}).cell_hash(None) == cell_hash(CROSS)
    assert cell_hash(CROSS, "MSFT") != cell_hash(CROSS)


def test_trials_differ_in_their_parameters_only() -> None:
    """Trials with equal values in use are equal; numbers are equal however they are written."""
    assert cell_hash(CROSS, fast=10) != cell_hash(CROSS)
    assert cell_hash(CROSS, fast=5.0) == cell_hash(CROSS)
    unused = edited("strategy.params.idle", {"choice": [1, 2]})
    assert cell_hash(unused, idle=1) == cell_hash(unused, idle=2) == cell_hash(CROSS)


def test_children_are_sorted_with_their_parameters() -> None:
    """Where the order of children depends on the values, every trial has its own."""
    spec = load_study(CROSS)
    resolver = Resolver(spec)
    for fast in (5, 10, 15, 20):
        for x in (1, 0.05):
            params = {"fast": fast, "slow": 60, "x": x}
            document = resolver.trial(params).document("AAPL")
            assert resolve(load_study(document, is_resolved=True), {}, None) == document


@pytest.mark.parametrize("params", [{}, {**PARAMS, "y": 1}, {**PARAMS, "fast": 21}, {**PARAMS, "slow": 31}])
def test_only_declared_values_make_trials(params: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Resolver(load_study(CROSS)).trial(params)


def test_a_cell_needs_its_instrument_and_a_run_takes_none() -> None:
    each = Resolver(load_study(CROSS)).trial(PARAMS)
    with pytest.raises(ValueError, match="each"):
        each.cell_hash(None)
    alone = Resolver(load_study(edited("study", {}))).trial(PARAMS)
    with pytest.raises(ValueError, match="each"):
        alone.cell_hash("AAPL")


def test_template_keeps_parameters_and_drops_members() -> None:
    """Studies that differ in their grids, or in the members of an each universe, are one family."""
    base = template(load_study(CROSS)).hash
    assert template(load_study(edited("strategy.params.fast", {"int": [1, 90]}))).hash == base
    assert template(load_study(edited("strategy.universes.0.tickers", ["IBM"]))).hash == base
    assert template(load_study(edited("run.end", "2031-12-29"))).hash == base  # reads have the window
    assert template(load_study(edited("run.ann", 250))).hash != base
    assert template(load_study(edited("strategy.params.idle", {"choice": [1, 2]}))).params == ("fast", "slow", "x")
    assert template(load_study(edited("strategy.sleeves.0.size.v", 0.5))).hash != base
    assert template(load_study(edited("study", None))).hash != base  # all members in one account


def test_identity_of_a_study_covers_what_its_trials_and_ranks_come_from() -> None:
    base = fingerprint(study_identity(load_study(CROSS)))
    for path, value in [
        ("strategy.params.fast", {"int": [5, 25, 5]}),
        ("strategy.constraints", [{"lt": ["$fast", "$slow"]}]),
        ("strategy.universes.0.tickers", ["AAPL", "IBM"]),
        ("study.objective", {"min": "max_dd"}),
        ("study.split", {"mode": "chronological", "is": 0.5}),
        ("study.seed", 1),
        ("study.metrics", ["cagr"]),
        ("study.proof", "winners"),
    ]:
        assert fingerprint(study_identity(load_study(edited(path, value)))) != base, path
    assert fingerprint(study_identity(load_study(edited("name", "other")))) == base


def test_hash_of_a_known_spec() -> None:
    """Golden: changes only together with the semantics version."""
    assert cell_hash(CROSS) == "9a201b1147bafc6e7d05bb9f43cf34e00f2ddad3168254cd9ebf368d6e8a95bf"
