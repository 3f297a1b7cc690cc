"""What scripts rely on: ``--json`` of every command, the run document, study names, and runs that need no computing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.support import Console, listing, refused, write_spec
from tests.conftest import ROOT
from tests.study.support import cross

SCHEMA = json.loads((ROOT / "docs" / "run-document.schema.json").read_text())


def validated(document: Any) -> Any:
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return document


def study_of(farm: Console) -> str:
    [study] = farm.document("status")["studies"]
    return str(study["study"])


@pytest.mark.slow
def test_standard_output_of_a_run_is_its_document(sample: Console, spec: Path) -> None:
    """As a process: one line of JSON that validates, and nothing else on either stream."""
    done = sample.process("run", spec, "--json", "--threads", "2")
    assert (done.code, done.err) == (0, "")
    document = validated(done.document)
    assert document["farm"]["cells"] == {"total": 45, "computed": 45, "reused": 0, "failed": 0}
    assert [len(trial["cells"]) for trial in document["trials"]] == [5] * 9
    again = sample.process("run", spec, "--json")
    assert again.document["trials"] == document["trials"]
    assert again.document["farm"]["cells"] == {"total": 45, "computed": 0, "reused": 45, "failed": 0}


def test_a_second_run_computes_nothing(sample: Console, folder: Path, spec: Path) -> None:
    first = sample("run", spec)
    assert "45 computed, 0 reused" in first.out
    before = listing(folder)
    second = sample("run", spec)
    assert "0 computed, 45 reused" in second.out
    assert second.out.partition("Leaderboard")[2] == first.out.partition("Leaderboard")[2]
    assert listing(folder) == before


def test_a_larger_study_computes_what_is_new(finished: Console, tmp_path: Path) -> None:
    larger = write_spec(tmp_path / "larger.json", cross(fast=(5, 20, 5)))
    assert "9 trials" not in finished("plan", larger).out
    assert finished.document("run", larger)["farm"]["cells"] == {
        "total": 60,
        "computed": 15,
        "reused": 45,
        "failed": 0,
    }


def test_the_best_trial_alone(finished: Console, spec: Path) -> None:
    """The winner again, as a study of its own and from nothing: the same key, the same bits."""
    study = finished.document("results", spec)
    best = max(study["trials"], key=lambda trial: trial["objective"])
    for flags in (("--trial", "best", "--fresh"), ("--trial", "best"), ("--trial", study["trials"].index(best))):
        [alone] = validated(finished.document("run", spec, *flags))["trials"]
        assert alone == best
    refused(finished("run", spec, "--trial", "9"), 2, "--trial", "no trial 9", "0 to 8")
    refused(finished("run", spec, "--trial", "worst"), 2, "--trial", "no trial worst")


def test_the_best_trial_of_a_study_without_an_objective(finished: Console, tmp_path: Path) -> None:
    plain = write_spec(tmp_path / "plain.json", cross(objective=None))
    assert finished("run", plain).code == 0
    refused(finished("run", plain, "--trial", "best"), 2, "--trial", "no objective", "give a number")


def test_the_best_trial_of_a_study_that_has_not_run(sample: Console, spec: Path) -> None:
    refused(sample("run", spec, "--trial", "best"), 2, "no such study", "farm status")


def test_names_of_a_study(finished: Console, spec: Path) -> None:
    """Its id, 8 or more digits of it, or its spec; everywhere a study is named."""
    study = study_of(finished)
    expected = finished.document("results", study)
    for name in (study[:8], study[:20], spec):
        assert finished.document("results", name)["trials"] == expected["trials"]
    assert finished.document("status", study[:8])["studies"][0]["study"] == study
    key = expected["trials"][0]["cells"][0]["key"]
    assert finished.document("explain", key[:8], "--study", study[:8])["cell"] == key
    for command in ("results", "report", "status"):
        refused(finished(command, study[:7]), 2, "no such study", "8 or more digits", "farm status")
        refused(finished(command, "f" * 16), 2, "no such study", "farm status")


def test_cells_that_nobody_knows(finished: Console) -> None:
    refused(finished("explain", "1234"), 2, "in which study is trial 1234?", "name it with --study")
    refused(finished("explain", "not-a-key-at-all"), 2, "TRIAL/INSTRUMENT", "8 or more digits")
    refused(finished("explain", "0" * 64), 2, "no such cell", "farm results STUDY lists the trials")


def test_trials_and_cells_by_name(finished: Console, spec: Path, tmp_path: Path) -> None:
    """A number, or digits of a trial digest, with and without an instrument; shown, explained, reported."""
    made = finished.document("results", spec)
    study, cell = made["study"], made["trials"][4]["cells"][3]
    found = finished.document("results", study[:12], "--trial", "4/IBM")
    assert found == {"study": study, "trial": 4, **made["trials"][4], "cells": [cell]}
    assert finished.document("results", spec, "--trial", "4")["cells"] == made["trials"][4]["cells"]
    explained = finished.document("explain", "4/IBM", "--study", study[:12])
    assert (explained["cell"], explained["name"]) == (cell["key"], "4/IBM")
    digest = explained["key"]["trial"]["digest"]
    assert finished.document("explain", f"{digest[:10]}/IBM")["cell"] == cell["key"]
    assert finished.document("results", spec, "--trial", digest)["trial"] == 4
    text = finished("results", spec, "--trial", "4/IBM").out
    for said in ("trial 4 of study", "IBM", "whole window", "out of sample", "Sharpe", cell["fingerprint"]["ledger"]):
        assert said in text, said
    lines = finished("results", spec, "--trial", "4").out.splitlines()
    assert [line.split()[0] for line in lines[-5:]] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    page = tmp_path / "one.html"
    assert finished("report", spec, "--trial", "4/IBM", "-o", page).code == 0
    assert "the trial has 5 instruments, and this page shows one of them" in page.read_text()
    assert cell["fingerprint"]["ledger"] in page.read_text()
    refused(finished("results", spec, "--trial", "9"), 2, "no trials of the study are named 9", "0 to 8")
    refused(finished("report", spec, "--trial", "4/SPY"), 2, "no instrument 'SPY'", "an id or a symbol")


def test_all_trials_and_all_cells_when_asked(finished: Console, spec: Path) -> None:
    """Of a small study they are there anyway."""
    plain = finished.document("results", spec)
    assert finished.document("results", spec, "--trials", "--cells")["trials"] == plain["trials"]
    assert finished.document("run", spec, "--trials", "--cells")["trials"] == plain["trials"]


def test_snapshots(finished: Console, spec: Path) -> None:
    snapshot = finished.document("results", spec)["snapshot"]
    assert finished.document("run", spec, "--snapshot", snapshot)["farm"]["cells"]["computed"] == 0
    refused(finished("run", spec, "--snapshot", snapshot[:12]), 2, "--snapshot", "64 lower-case hex digits")
    refused(finished("run", spec, "--snapshot", "0" * 64), 4, "no such snapshot", "farm status")


def test_a_study_that_is_not_finished(sample: Console, folder: Path, spec: Path) -> None:
    assert sample("run", spec).code == 0
    shutil.rmtree(folder / "results")
    refused(sample("results", spec), 4, "45 of 45 cells have no stored result", "run the study again")
    refused(sample("report", spec), 4, "45 of 45 cells")
    [study] = sample.document("status")["studies"]
    assert study["cells"] == {"total": 45, "done": 0}
    assert sample.document("run", spec)["farm"]["cells"]["computed"] == 45


def test_json_of_every_command(empty: Console, spec: Path, tmp_path: Path) -> None:
    """Each prints one document with the names that scripts look for."""
    summary = empty.document("ingest", "sample")
    assert (summary["rows_added"], summary["dataset"]) == (12_157, "main")
    assert summary["symbols"] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    checked = empty.document("spec", "check", spec)
    assert (checked["points"], checked["params"], checked["each"]) == (9, ["fast", "slow"], "u")
    planned = empty.document("plan", spec)
    assert planned["cells"] == {"total": 45, "missing": 45, "reused": 0}
    assert empty.document("status")["studies"] == []
    document = validated(empty.document("run", spec))
    assert document["study"] == planned["study"]
    assert document["snapshot"] == summary["snapshot"]
    assert validated(empty.document("results", spec))["trials"] == document["trials"]
    status = empty.document("status")
    assert [study["cells"] for study in status["studies"]] == [{"total": 45, "done": 45}]
    report = empty.document("report", spec, "-o", tmp_path / "r.html")
    assert report == {"report": str(tmp_path / "r.html"), "bytes": (tmp_path / "r.html").stat().st_size}
    cell = document["trials"][4]["cells"][1]
    explained = empty.document("explain", cell["key"])
    assert (explained["instrument"], explained["trial"]) == (cell["instrument"], 4)
    assert explained["result"]["ledger"] == cell["fingerprint"]["ledger"]
    assert explained["result"]["stats"] == cell["fingerprint"]["stats"]


@pytest.mark.parametrize("change", ({"each": False}, {"objective": None}, {"split": None}, {"start": "1999-12-01"}))
def test_documents_of_other_studies_validate(change: dict[str, Any], sample: Console, tmp_path: Path) -> None:
    validated(sample.document("run", write_spec(tmp_path / "study.json", cross(**change))))
