"""The document of large studies: the best trials, quantiles over their cells, all of it when asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.results import document as of_document
from farm.results.catalog import Catalog
from farm.results.document import FarmStats, document, quantiles
from farm.results.results import Ranking, Results, ranking
from farm.store.base import Store
from farm.study.block import cut
from farm.study.missing import all_missing
from farm.study.ranking import over_cells
from tests.results.rectangles import drawn
from tests.study.support import cross, planned, sample_store

STATS = FarmStats(0, 0, 0)


@pytest.fixture(scope="module")
def store() -> Store:
    return sample_store()


def finish(store: Store, spec: dict[str, Any]) -> tuple[Results, Ranking]:
    study = planned(spec, store)
    blocks = cut(all_missing(study.trials, len(study.subjects)), np.ones(len(study.subjects), np.int64))
    study = replace(study, rounds=(replace(study.round, blocks=blocks),))
    catalog = Catalog(store)
    for block in study.blocks:
        catalog.put_segment(study, block.index, drawn(study, block.index))
    results = catalog.results(study)
    return results, ranking(results, metric="sharpe", bucket="is", over="median", direction="max")


@pytest.fixture(scope="module")
def many(store: Store) -> tuple[Results, Ranking]:
    """1,100 trials on two instruments."""
    return finish(store, cross(fast=(1, 55), slow=(61, 80), tickers=("AAPL", "IBM")))


@pytest.fixture(scope="module")
def few(store: Store) -> tuple[Results, Ranking]:
    return finish(store, cross(cash=77))


def check(made: dict[str, Any], repo_root: Path) -> dict[str, Any]:
    """Return the document as JSON, which keeps to the schema."""
    schema = json.loads((repo_root / "docs" / "run-document.schema.json").read_text())
    read: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    jsonschema.Draft202012Validator(schema).validate(read)
    return read


def test_the_best_hundred_of_more_than_a_thousand(many: tuple[Results, Ranking], repo_root: Path) -> None:
    results, order = many
    made = check(document(results, order, STATS), repo_root)
    assert [trial["trial"] for trial in made["trials"]] == order.trials[:100].tolist()
    assert list(made["trials"][0]) == ["trial", "key", "params", "objective", "fingerprint", "quantiles", "cells"]
    objectives = [trial["objective"] for trial in made["trials"]]
    assert objectives == sorted(objectives, reverse=True) and objectives[0] == np.nanmax(order.value)
    for trial in made["trials"]:
        assert trial["params"] == results.study.params(trial["trial"])
        # The median over the cells, as the objective is.
        assert trial["quantiles"]["is"]["sharpe"]["p50"] == trial["objective"]
        sharpes = [cell["metrics"]["is"]["sharpe"] for cell in trial["cells"]]
        assert trial["quantiles"]["is"]["sharpe"]["max"] == max(sharpes)


def test_all_of_them_in_the_order_of_their_numbers(many: tuple[Results, Ranking], repo_root: Path) -> None:
    results, order = many
    made = document(results, order, STATS, trials=True)
    check({**made, "trials": made["trials"][::300]}, repo_root)
    assert [trial["trial"] for trial in made["trials"]] == list(range(1100))
    assert [made["trials"][trial["trial"]] for trial in document(results, order, STATS)["trials"]] == [
        made["trials"][at] for at in order.trials[:100]
    ]


def test_without_an_objective_the_first_hundred(many: tuple[Results, Ranking], repo_root: Path) -> None:
    made = check(document(many[0], None, STATS), repo_root)
    assert [trial["trial"] for trial in made["trials"]] == list(range(100))
    assert {trial["objective"] for trial in made["trials"]} == {None}


def test_beyond_ten_thousand_cells_there_are_none_unless_asked(
    few: tuple[Results, Ranking], repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, order = few
    whole = document(results, order, STATS)["trials"]
    monkeypatch.setattr(of_document, "CELLS_MAX", 44)
    made = check(document(results, order, STATS), repo_root)["trials"]
    assert list(made[0]) == ["key", "params", "objective", "fingerprint", "quantiles"]
    asked = check(document(results, order, STATS, cells=True), repo_root)["trials"]
    assert [trial["cells"] for trial in asked] == json.loads(json.dumps([trial["cells"] for trial in whole]))
    assert [{**trial, "cells": 0} for trial in made] == [{**trial, "cells": 0} for trial in asked]


@pytest.mark.parametrize("cells_at_once", [1, 7, 50_000])
def test_pieces_make_no_difference(
    few: tuple[Results, Ranking], cells_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, order = few
    expected = document(results, order, STATS)
    monkeypatch.setattr(of_document, "CELLS_AT_ONCE", cells_at_once)
    assert expected == document(results, order, STATS)


@given(st.lists(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)), min_size=5, max_size=5), min_size=1))
def test_quantiles(rows: list[list[float]]) -> None:
    values = np.array(rows)
    found, nulls = quantiles(values)
    assert nulls.tolist() == np.isnan(values).sum(axis=1).tolist()
    assert np.array_equal(found["p50"], over_cells(values, "median"), equal_nan=True)
    for label, percent in of_document.QUANTILES.items():
        for row, value in zip(values, found[label], strict=True):
            known = row[~np.isnan(row)]
            if not len(known):
                assert np.isnan(value)
                continue
            assert known.min() <= value <= known.max()
            np.testing.assert_allclose(value, np.quantile(known, percent / 100), rtol=1e-9, atol=1e-9)


def test_a_study_of_one_cell_per_trial(store: Store, repo_root: Path) -> None:
    results, order = finish(store, cross(each=False))
    made = check(document(results, order, STATS), repo_root)
    assert {len(trial["cells"]) for trial in made["trials"]} == {1}
    assert {cell["instrument"] for trial in made["trials"] for cell in trial["cells"]} == {None}
