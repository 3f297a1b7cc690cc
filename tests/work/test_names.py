"""Trials and cells by name: a number, digits of a trial digest, a key; and what names nothing, or too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.results.catalog import Catalog
from farm.store.base import Store
from farm.study.axes import Axes
from farm.study.trials import Study
from farm.values.errors import UsageError
from farm.work import names
from farm.work.names import cell_name, find_cell, find_trial
from tests.study.support import cross, planned, sample_store


@pytest.fixture(scope="module")
def store() -> Store:
    return sample_store()


@pytest.fixture(scope="module")
def catalog(store: Store) -> Catalog:
    return Catalog(store)


@pytest.fixture(scope="module")
def study(store: Store, catalog: Catalog) -> Study:
    return catalog.put_study(planned(cross(), store))


@pytest.fixture(scope="module")
def whole(store: Store, catalog: Catalog) -> Study:
    """A study whose trials have one cell each."""
    return catalog.put_study(planned(cross(each=False), store))


def digest(study: Study, trial: int) -> str:
    return study.axes.trial[trial].tobytes().hex()


def test_a_number_in_a_study(catalog: Catalog, study: Study, whole: Study) -> None:
    assert find_cell(catalog, "4/GOOG", study.id)[1:] == (4, 2)
    assert find_cell(catalog, "4", whole.id[:12])[1:] == (4, 0)
    for trial, position in ((0, 0), (8, 4)):
        assert find_cell(catalog, cell_name(study, trial, position), study.id)[1:] == (trial, position)
    assert cell_name(whole, 3, 0) == "3"


def test_a_symbol_is_as_good_as_an_id(catalog: Catalog, study: Study) -> None:
    other = replace(study, subjects=("i1", "i2", "i3", "i4", "i5"), symbols={"i1": "AAPL", "i2": "FB", "i3": "GOOG"})
    assert find_trial(other, "4/GOOG") == find_trial(other, "4/i3") == (4, 2)


def test_digits_of_a_trial_digest_need_no_study(catalog: Catalog, study: Study, whole: Study) -> None:
    found = find_cell(catalog, f"{digest(study, 5)[:8]}/IBM", None)
    assert (found[0].id, *found[1:]) == (study.id, 5, 3)
    assert find_cell(catalog, f"{digest(study, 5).upper()}/IBM", None)[1:] == (5, 3)
    assert find_trial(study, digest(study, 7)[:9]) == (7, None)
    assert find_trial(study, "7/MSFT") == (7, 4)
    assert find_cell(catalog, f"{digest(whole, 5)}/", whole.id)[1:] == (5, 0)


def test_a_key_in_small_studies(catalog: Catalog, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    key = study.axes.cell_key(6, 1).hex()
    for name in (key, key[:8], key[:20].upper()):
        assert find_cell(catalog, name, None)[1:] == (6, 1)
        assert find_cell(catalog, name, study.id)[1:] == (6, 1)
    monkeypatch.setattr(names, "CELLS_MAX", 44)
    for owner in (None, study.id):
        with pytest.raises(UsageError, match=r"a bare key is looked up .* hint: farm explain TRIAL/INSTRUMENT --study"):
            find_cell(catalog, key, owner)


@pytest.mark.parametrize("name", ["", "abc", "zz" * 8, "x/AAPL", "1.5/AAPL", "-1/AAPL", "0" * 65])
def test_what_is_no_name(catalog: Catalog, study: Study, name: str) -> None:
    with pytest.raises(UsageError, match=r"not the name of a cell.*TRIAL/INSTRUMENT"):
        find_cell(catalog, name, study.id)


@pytest.mark.parametrize("name", ["9/AAPL", "4/SPY", "0" * 16, f"{'0' * 16}/AAPL"])
def test_what_no_study_has(catalog: Catalog, study: Study, name: str) -> None:
    with pytest.raises(UsageError, match="no such cell"):
        find_cell(catalog, name, study.id)


def test_a_trial_is_not_a_cell(catalog: Catalog, study: Study) -> None:
    with pytest.raises(UsageError, match=r"trial 4 has a cell per instrument.*4/INSTRUMENT"):
        find_cell(catalog, "4", study.id)
    with pytest.raises(UsageError, match="in which study is trial 4"):
        find_cell(catalog, "4/AAPL", None)


@pytest.mark.parametrize("name", ["9", "x", "", "0" * 16, "4/SPY"])
def test_no_trial(study: Study, name: str) -> None:
    with pytest.raises(UsageError, match=r"no trials of the study are named|has no instrument"):
        find_trial(study, name)


def test_several_cells_of_one_beginning(catalog: Catalog, study: Study) -> None:
    """Two trials whose digests begin alike: more digits are asked for."""
    trial = study.axes.trial.copy()
    trial[1, :5] = trial[0, :5]
    twins = replace(study)
    twins.__dict__["axes"] = Axes(trial, study.axes.history, study.axes.subjects, study.axes.read)
    head = trial[0].tobytes().hex()
    with pytest.raises(UsageError, match="2 trials of the study are named"):
        find_trial(twins, head[:9])
    assert find_trial(twins, head[:16]) == (0, None)
