"""Specs in other people's style, each through check, plan, run, results, report and explain.

Beside that they run: what is only style must change nothing, and a run of many threads or again must give the same.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Console, write_spec

pytestmark = pytest.mark.slow
RUN = {"dataset": "main", "start": "2004-09-01", "end": "2012-12-31", "cash": 100000}
FOUR = {"id": "four", "tickers": ["MSFT", "AAPL", "IBM", "GOOG"]}
TWO = {"id": "two", "tickers": ["IBM", "FB"]}
STOPS = [
    {"type": "stop", "pct": 0.05},
    {"type": "target", "r": 3},
    {"type": "trail", "pct": 0.1},
    {"type": "time", "bars": 40},
]


def sma(n: Any) -> dict[str, Any]:
    return {"i": "sma", "n": n}


def rules(identity: str, universe: str, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "kind": "rules",
        "universe": universe,
        "side": "long",
        "enter": {"cross_up": ["close", sma(50)]},
        "exit": {"cross_dn": ["close", sma(50)]},
        "size": {"mode": "equal"},
    } | more


def strategy(*sleeves: dict[str, Any], universes: Any = (FOUR, TWO), **more: Any) -> dict[str, Any]:
    return {"universes": list(universes), "sleeves": list(sleeves)} | more


SPECS: dict[str, dict[str, Any]] = {
    "no params, no study, no name": {"spec": 1, "strategy": strategy(rules("a", "four")), "run": RUN},
    "several universes, two sleeves": {
        "spec": 1,
        "name": "Größe 📈",
        "note": "for Zoë",
        "strategy": strategy(
            rules("ä b", "four", alloc=0.7, max_positions=2, prefer={"i": "roc", "n": 20}),
            rules("mean", "two", enter={"lt": [{"i": "rsi", "n": 14}, 30]}, exit={"gt": [{"i": "rsi", "n": 14}, 60]}),
        ),
        "run": RUN | {"benchmark": "IBM", "rf": 0.02, "costs": {"bps": 5, "per_share": 0.005, "min": 1}},
    },
    "both sides on margin, all stops": {
        "spec": 1,
        "strategy": strategy(
            rules(
                "both",
                "four",
                side="both",
                enter_short={"cross_dn": ["close", sma(100)]},
                exit_short={"cross_up": ["close", sma(100)]},
                size={"mode": "pct_equity", "v": 0.2},
                stops=STOPS,
                cooldown_bars=2,
            )
        ),
        "run": RUN | {"account": "reg_t"},
    },
    "each, with a member of the universe fixed": {
        "spec": 1,
        "strategy": strategy(
            rules(
                "market",
                "four",
                enter={"all": [{"gt": [{"f": "close", "sym": "IBM"}, {"i": "sma", "n": "$n", "sym": "IBM"}]},
                               {"within": [5, {"cross_up": ["close", sma("$n")]}]}]},
                exit={"for": [3, {"lt": ["close", sma("$n")]}]},
                size={"mode": "pct_equity", "v": 0.9},
                stops=[{"type": "stop", "abs": 2.5}],
            ),
            params={"n": {"choice": [20, 50]}},
        ),
        "run": RUN | {"benchmark": "IBM"},
        "study": {
            "each": {"instrument": "four"},
            "search": {"grid": {}},
            "split": {"mode": "chronological", "is": 0.5, "embargo": 5},
            "objective": {"min": "max_dd", "on": "oos", "over": "max"},
        },
    },
    "lets, constraints, parameters of every kind": {
        "spec": 1,
        "strategy": strategy(
            rules(
                "let",
                "two",
                enter={"all": [{"gt": ["@fast", "@slow"]}, {"not": {"gt": [{"i": "stddev", "n": 10}, "$most"]}}]},
                exit={"lt": ["@fast", "@slow"]},
            ),
            let={"fast": {"i": "ema", "n": "$fast"}, "slow": {"i": "ema", "n": "$slow", "of": "open"}},
            params={"fast": {"int": [10, 30, 10]}, "slow": {"int": [20, 40, 10]}, "most": {"choice": [5, 1000.5]}},
            constraints=[{"lt": ["$fast", "$slow"]}],
        ),
        "run": RUN,
        "study": {"objective": {"max": "calmar"}},
    },
    "linear, fractions, short for ever": {
        "spec": 1,
        "strategy": strategy(rules("s", "two", side="short", enter=True, exit=False, size={"mode": "qty", "v": 0.5})),
        "run": RUN | {"account": "linear", "max_gross": 1.5, "lot": "fractional", "exec": {"slip_bps": 2}},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", SPECS)
def test_the_whole_line(case: str, sample: Console, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "study.json", SPECS[case])
    checked = sample.document("spec", "check", spec)
    planned = sample.document("plan", spec)
    document = sample.document("run", spec, "--threads", "2")
    assert len(document["trials"]) == planned["trials"]["total"] <= checked["points"]
    assert document["farm"]["cells"]["computed"] == planned["cells"]["total"]
    assert any(
        cell["metrics"]["full"]["trades"] or case.startswith("linear") for cell in document["trials"][0]["cells"]
    )
    assert sample.document("run", spec, "--fresh")["trials"] == document["trials"]
    assert sample.document("results", document["study"])["trials"] == document["trials"]
    for arguments in (("results", spec), ("plan", spec), ("spec", "check", spec), ("status",)):
        assert sample(*arguments).code == 0
    assert sample("report", spec).code == 0
    assert "plotly" in (tmp_path / "report.html").read_text().lower()
    key = document["trials"][-1]["cells"][-1]["key"]
    assert f", {key}\n" in sample("explain", key).out


def test_style_means_nothing(sample: Console, tmp_path: Path) -> None:
    """Tabs, other line ends, a byte order mark, other orders of keys, tickers and universes: the same study."""
    plain = SPECS["each, with a member of the universe fixed"]
    expected = sample.document("run", write_spec(tmp_path / "plain.json", plain))

    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return [backwards(item) for item in value] if isinstance(value, list) else value

    other = backwards(plain) | {"name": "another name", "note": "and a note"}
    other["strategy"]["universes"] = [
        TWO | {"tickers": ["FB", "IBM"]},
        FOUR | {"tickers": ["AAPL", "GOOG", "IBM", "MSFT"]},
    ]
    path = tmp_path / "other.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(other, indent="\t").replace("\n", "\r\n").encode())
    again = sample.document("run", path)
    assert again["trials"] == expected["trials"]
    assert again["farm"]["cells"]["computed"] == 0


def test_a_parameter_that_nothing_uses(sample: Console, tmp_path: Path) -> None:
    """Its values make equal trials, which run once and are counted."""
    spec = copy.deepcopy(SPECS["lets, constraints, parameters of every kind"])
    spec["strategy"]["params"]["idle"] = {"int": [1, 4]}
    path = write_spec(tmp_path / "study.json", spec)
    assert "equal to another" in sample("plan", path).out
    assert sample.document("plan", path)["trials"] == {"total": 12, "duplicates": 36, "excluded": 24}
