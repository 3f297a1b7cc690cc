"""Specs that cannot be meant: one error that names the place in the document, before anything is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Console, listing, refused, write_spec
from tests.study.support import cross

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> dict[str, Any]:
    spec = cross()
    change(spec)
    return spec


def rules(spec: dict[str, Any]) -> dict[str, Any]:
    sleeve: dict[str, Any] = spec["strategy"]["sleeves"][0]
    return sleeve


# What is wrong, the exit code, and what has to be said about it.
CASES: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "unknown ticker": (
        lambda spec: spec["strategy"]["universes"][0]["tickers"].append("GOOGL"),
        3,
        ("strategy.universes[0].tickers[5]", "'GOOGL'", "GOOG", "ingest its bars first"),
    ),
    "unknown benchmark": (lambda spec: spec["run"].update(benchmark="SPY"), 3, ("run.benchmark", "'SPY'")),
    "window before the data": (
        lambda spec: spec["run"].update(start="1990-01-02", end="1991-01-02"),
        4,
        ("run.start, run.end", "1990-01-02 to 1991-01-02", "farm status"),
    ),
    "window after the data": (
        lambda spec: spec["run"].update(start="2020-01-02", end="2020-12-31"),
        4,
        ("run.start, run.end", "no instrument"),
    ),
    "window backwards": (
        lambda spec: spec["run"].update(start="2012-12-31", end="2011-01-03"),
        3,
        ("run.end", "before 2012-12-31"),
    ),
    "window without a session": (
        lambda spec: spec["run"].update(start="2012-01-07", end="2012-01-08"),
        3,
        ("no session of XNYS",),
    ),
    "unknown dataset": (
        lambda spec: spec["run"].update(dataset="other"),
        4,
        ("'other' is empty", "farm ingest sample"),
    ),
    "unknown calendar": (lambda spec: spec["run"].update(calendar="XLON"), 4, ("'XLON'", "XNYS")),
    "unknown key": (lambda spec: spec["run"].update(csah=1), 3, ("run.csah", "unknown key", "'cash'")),
    "unknown key inside": (lambda spec: rules(spec).update(stop=[]), 3, ("strategy.sleeves[0].stop", "'stops'")),
    "unknown key at the top": (lambda spec: spec.update(studdy={}), 3, ("studdy", "unknown key", "'study'")),
    "required key missing": (lambda spec: spec["run"].pop("cash"), 3, ("run.cash", "required")),
    "unknown indicator": (
        lambda spec: rules(spec).update(enter={"gt": ["close", {"i": "smma", "n": 5}]}),
        3,
        ("strategy.sleeves[0].enter.gt[1].i", '"smma"', "'sma'"),
    ),
    "unknown parameter": (
        lambda spec: rules(spec).update(exit={"lt": ["close", {"i": "sma", "n": "$fats"}]}),
        3,
        ("strategy.sleeves[0].exit.lt[1].n", "'fats'", "'fast'"),
    ),
    "unknown metric": (
        lambda spec: spec["study"]["objective"].update(max="sharp"),
        3,
        ("study.objective.max", "'sharpe'"),
    ),
    "percent, not a fraction (stop)": (
        lambda spec: rules(spec).update(stops=[{"type": "stop", "pct": 5}]),
        3,
        ("strategy.sleeves[0].stops[0].pct", "5 is out of range", "5 % is 0.05"),
    ),
    "percent, not a fraction (size)": (
        lambda spec: rules(spec).update(size={"mode": "pct_equity", "v": 50}),
        3,
        ("size.v", "5 % is 0.05"),
    ),
    "percent, not a fraction (split)": (
        lambda spec: spec["study"]["split"].update({"is": 70}),
        3,
        ("study.split.is", "5 % is 0.05"),
    ),
    "a number with its unit": (
        lambda spec: spec["run"]["costs"].update(bps="10 bps"),
        3,
        ("run.costs.bps", "not a number"),
    ),
    "a number in quotes": (lambda spec: spec["run"].update(cash="1000"), 3, ("run.cash", "without quotes")),
    "a date that is none": (lambda spec: spec["run"].update(start="03/01/2011"), 3, ("run.start", "YYYY-MM-DD")),
    "half a bar": (
        lambda spec: spec["strategy"]["params"].update(fast={"int": [1.5, 9]}),
        3,
        ("fast.int[0]", "not an integer"),
    ),
    "no bar at all": (
        lambda spec: spec["strategy"]["params"].update(fast={"int": [0, 9]}),
        3,
        ("enter.cross_up[0].n", "'fast' = 0"),
    ),
    "a short in a cash account": (lambda spec: rules(spec).update(side="short"), 3, ("sleeves[0].side", "reg_t")),
    "not built: bars": (lambda spec: spec["run"].update(bar="1min"), 3, ("run.bar", "'1min' is not built yet", "1d")),
    "not built: options": (
        lambda spec: rules(spec).update(kind="options"),
        3,
        ("sleeves[0].kind", "not built yet", "rules"),
    ),
    "not built: search": (
        lambda spec: spec["study"].update(search={"tpe": {"n": 9}}),
        3,
        ("study.search", "not built yet"),
    ),
    "not built: require": (lambda spec: spec["study"].update(require={}), 3, ("study.require", "not built yet")),
    "a version of tomorrow": (lambda spec: spec.update(spec=2), 3, ("spec", "2", "allowed: 1")),
    "a range beyond reason": (
        lambda spec: spec["strategy"]["params"].update(idle={"int": [1, 2**53]}),
        6,
        ("strategy.params.idle", "9,007,199,254,740,992 values", "at most", "larger step"),
    ),
    "a fee beyond reason": (lambda spec: spec["run"]["costs"].update(min=1e308), 3, ("run.costs.min", "9000000000")),
    "constraints that drop everything": (
        lambda spec: spec["strategy"].update(constraints=[{"gt": ["$fast", "$slow"]}]),
        3,
        ("strategy.constraints", "no trial is left", "loosen a constraint"),
    ),
    "a grid beyond reason": (
        lambda spec: spec["strategy"]["params"].update(slow={"int": [1, 9_999]}, fast={"int": [1, 9_999]}),
        6,
        ("strategy.params", "points", "at most"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_run_refuses(case: str, sample: Console, folder: Path, tmp_path: Path) -> None:
    change, code, said = CASES[case]
    before = listing(folder)
    path = write_spec(tmp_path / "study.json", changed(change))
    refused(sample("run", path), code, *said)
    as_json = sample("plan", path, "--json")
    assert as_json.code == code
    assert as_json.error["hint"] or as_json.error["allowed"]
    assert listing(folder) == before


def test_the_corrected_spec_runs(sample: Console, folder: Path, tmp_path: Path) -> None:
    path = write_spec(tmp_path / "study.json", changed(CASES["unknown ticker"][0]))
    assert sample("run", path).code == 3
    write_spec(path, cross())
    assert sample.document("run", path)["farm"]["cells"] == {"total": 45, "computed": 45, "reused": 0, "failed": 0}


# Text that is no spec, and where the error is.
TEXTS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "cut off": (json.dumps(cross())[:-20], ("study.json: line 1, column", "not JSON")),
    "trailing comma": ('{"spec": 1,\n "run": {},\n}', ("study.json: line 3, column 1", "not JSON", "comma")),
    "single quotes": ("{'spec': 1}", ("study.json: line 1, column 2", "not JSON")),
    "NaN": (json.dumps(cross()).replace("100000", "NaN"), ("study.json", "NaN is not a number")),
    "infinite": (json.dumps(cross()).replace("100000", "1e999"), ("run.cash", "inf is not a number")),
    "a key twice": (
        json.dumps(cross()).replace('"cash": 100000', '"cash": 100000, "cash": 5'),
        ("study.json: 'cash' (beside dataset, start, end", "duplicate key"),
    ),
    "a list": ("[1, 2]", ("study.json", "a JSON object")),
    "nothing": ("", ("study.json", "empty")),
    "Latin-1": (
        json.dumps({**cross(), "name": "Größe"}, ensure_ascii=False).encode("latin-1"),
        ("study.json", "UTF-8"),
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), ("study.json", "UTF-8")),
    "deep": ('{"spec":' * 2000 + "1" + "}" * 2000, ("study.json", "nested too deep")),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_is_no_spec(case: str, empty: Console, tmp_path: Path) -> None:
    text, said = TEXTS[case]
    path = tmp_path / "study.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(empty("spec", "check", path), 3, *said)


def test_files_that_are_no_specs(sample: Console, tmp_path: Path) -> None:
    for command in ("run", "plan", "results"):
        refused(sample(command, tmp_path / "none.json"), 3, "none.json", "No such file", "give the path")
    refused(sample("run", tmp_path), 3, str(tmp_path), "Is a directory")
    refused(sample("run", "no-spec"), 3, "no-spec", "No such file")


def test_a_spec_on_standard_input(sample: Console) -> None:
    done = sample("run", "-", "--json", stdin="\ufeff" + json.dumps(cross(), indent="\t"))
    assert done.code == 0, done.err
    assert done.document["farm"]["cells"]["computed"] == 45
    refused(sample("run", "-", stdin="{"), 3, "standard input: line 1, column 2", "not JSON")
    refused(sample("run", "-", stdin=str(Path(__file__))), 3, "standard input: line 1, column 1", "not JSON")
    refused(sample("plan", "-"), 3, "standard input", "the spec is empty")
