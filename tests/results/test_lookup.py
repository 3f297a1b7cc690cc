"""What is missing, found by axes, is what a look at every cell finds: over random overlaps of grids, histories, data,
subjects, metrics and proofs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.results.extent import Extent
from farm.results.lookup import Found, look_up
from farm.study.axes import Axes
from tests.results.rectangles import make_axes

SUBJECTS = tuple(f"S{at}" for at in range(7))
METRICS = ("sharpe", "max_dd", "trades")
BUCKETS = ("full", "is")


@st.composite
def some_axes(draw: st.DrawFn) -> Axes:
    """Some of twelve trials on some of seven subjects; a trial's history is its own, or another one's."""
    trials = draw(st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True))
    subjects = draw(st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=7, unique=True))
    history = [trial % 3 if draw(st.integers(0, 9)) else 3 for trial in trials]
    data = draw(st.integers(0, 9)) == 0
    return make_axes(trials, sorted(subjects), history, int(data))


def subset(draw: st.DrawFn, of: int) -> np.ndarray:
    chosen = draw(st.lists(st.integers(0, of - 1), min_size=1, max_size=of, unique=True))
    return np.array(sorted(chosen), np.int32)


@st.composite
def a_family(draw: st.DrawFn) -> tuple[dict[str, Axes], list[tuple[str, Extent]]]:
    axes = {f"a{at}": draw(some_axes()) for at in range(draw(st.integers(1, 3)))}
    stored = []
    for at in range(draw(st.integers(0, 9))):
        name = draw(st.sampled_from(sorted(axes)))
        trials, subjects = subset(draw, len(axes[name].trial)), subset(draw, len(axes[name].subjects))
        proof: bool | np.ndarray = draw(st.booleans())
        if draw(st.booleans()):
            chance = np.random.default_rng(draw(st.integers(0, 99)))
            proof = chance.random((len(trials), len(subjects))) < 0.5
        metrics = tuple(METRICS[: draw(st.integers(2, 3))])
        buckets = BUCKETS[: draw(st.integers(1, 2))]
        stored.append((f"k{at}", Extent(name, trials, subjects, metrics, buckets, (), (), proof, "")))
    return axes, stored


def by_cell(
    axes: Axes, family: dict[str, Axes], stored: list[tuple[str, Extent]], metrics: set[str], buckets: set[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Look at every cell by its key: which are stored with these metrics and buckets, and which have digests."""
    keys = {
        axes.cell_key(trial, subject): (trial, subject)
        for trial in range(len(axes.trial))
        for subject in range(len(axes.subjects))
    }
    is_stored, has_proof = np.zeros((2, len(axes.trial), len(axes.subjects)), np.bool_)
    for _, extent in stored:
        if not (metrics <= set(extent.metrics) and buckets <= set(extent.buckets)):
            continue
        for row, trial in enumerate(extent.trials):
            for column, subject in enumerate(extent.subjects):
                place = keys.get(family[extent.axes].cell_key(trial, subject))
                if place is not None:
                    is_stored[place] = True
                    has_proof[place] |= bool(extent.has_proof(np.array(row), np.array(column)))
    return is_stored, has_proof


def check_patches(found: Found, family: dict[str, Axes]) -> None:
    """Each cell of each patch is the cell that it is said to be."""
    for patch in found.patches:
        theirs = family[patch.extent.axes]
        for row, trial in zip(patch.rows, patch.trials, strict=True):
            for column, subject in zip(patch.columns, patch.subjects, strict=True):
                stored = theirs.cell_key(patch.extent.trials[row], patch.extent.subjects[column])
                assert stored == found.axes.cell_key(trial, subject)


@settings(max_examples=400, deadline=None)
@given(some_axes(), a_family(), st.data())
def test_equals_a_look_at_every_cell(
    axes: Axes, family: tuple[dict[str, Axes], list[tuple[str, Extent]]], data: st.DataObject
) -> None:
    known, stored = family
    metrics = {METRICS[0], *METRICS[: data.draw(st.integers(1, 3))]}
    buckets = set(BUCKETS[: data.draw(st.integers(1, 2))])
    is_stored, has_proof = by_cell(axes, known, stored, metrics, buckets)
    proof: np.ndarray | None = None
    wanted = np.ones_like(is_stored)
    if data.draw(st.booleans()):
        share = data.draw(st.sampled_from((0.0, 0.2, 0.9)))
        wanted = np.random.default_rng(data.draw(st.integers(0, 99))).random(is_stored.shape) < share
        proof = np.flatnonzero(wanted)
    found = look_up(axes, stored, known, metrics, buckets, proof)
    missing = ~is_stored | (wanted & ~has_proof)
    assert (missing == found.missing.rows[found.missing.groups]).all()
    assert found.missing.count == missing.sum()
    assert found.count == (~missing).sum()
    # As few groups as there are kinds of trials, numbered as they come.
    assert len(found.missing.rows) == len(np.unique(missing, axis=0))
    assert sorted(set(found.missing.groups.tolist()), key=found.missing.groups.tolist().index) == list(
        range(len(found.missing.rows))
    )
    check_patches(found, known)


@pytest.mark.parametrize("share", [1, 2, 3])
def test_a_grid_that_overlaps_another(share: int) -> None:
    """Every other, or every third trial is there: exactly the others are missing, in two groups."""
    axes = make_axes(range(600), SUBJECTS, [trial % 5 for trial in range(600)])
    there = make_axes(range(0, 600, share), SUBJECTS, [trial % 5 for trial in range(0, 600, share)])
    strips = [
        (f"k{at}", Extent("a", np.arange(len(there.trial), dtype=np.int32), np.array([at], np.int32),
                          METRICS, BUCKETS, (), (), True, ""))
        for at in range(len(SUBJECTS))
    ]  # fmt: skip
    found = look_up(axes, strips, {"a": there}, METRICS, BUCKETS, None)
    assert found.missing.count == (600 - len(there.trial)) * len(SUBJECTS)
    assert (found.missing.rows[found.missing.groups].any(axis=1) == (np.arange(600) % share > 0)).all()
    assert len(found.patches) == len(SUBJECTS)
