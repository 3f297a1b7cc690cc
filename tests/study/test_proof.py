"""What is stored of cells: defaults by their count, and the sample of cells that get digests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from farm.spec.parse import load_study
from farm.study.axes import Axes
from farm.study.proof import SAMPLED_MAX, ProofRule, metrics_of, proof_rule_of
from farm.values.metrics import METRIC_NAMES, SHORT_LIST
from tests.study.rows import cell_keys
from tests.study.support import cross, planned, sample_store


def axes(trials: int, subjects: int, classes: int = 3, seed: int = 0) -> Axes:
    chance = np.random.default_rng(seed)
    digests = chance.integers(0, 256, (trials + classes * subjects, 32), np.uint8)
    return Axes(
        trial=digests[:trials],
        history=chance.integers(0, classes, trials).astype(np.int32),
        subjects=tuple(f"S{number:05}" for number in range(subjects)),
        read=digests[trials:].reshape(classes, subjects, 32),
    )


def options(**study: Any) -> Any:
    spec = cross()
    spec["study"] |= study
    return load_study(spec).study


sizes = some.integers(1, 40)


@given(sizes, sizes, some.integers(1, 4), some.integers(0, 99), some.integers(0, 2**53 - 1))
def test_the_sample_is_found_without_looking_at_every_cell(t: int, s: int, classes: int, seed: int, limit: int) -> None:
    """Also where a number wraps around: limits go up to all cells."""
    of, rule = axes(t, s, classes, seed), ProofRule(seed, limit)
    found = rule.cells(of)
    assert found is not None
    assert np.flatnonzero(rule.mask(of).ravel()).tolist() == found.tolist()


@pytest.mark.parametrize(("trials", "subjects"), [(200, 100), (1_000, 900), (4_000, 2_500), (40_000, 2_500)])
def test_the_sample_is_about_one_percent_and_never_more_than_the_most(trials: int, subjects: int) -> None:
    cells = trials * subjects
    found = proof_rule_of(options(proof="winners"), cells).cells(axes(trials, subjects))
    assert found is not None
    expected = min(0.01 * cells, SAMPLED_MAX * 0.95)
    assert abs(len(found) - expected) < 5 * expected**0.5
    assert len(found) <= SAMPLED_MAX
    for axis, length in ((found // subjects, trials), (found % subjects, subjects)):
        assert len(np.unique(axis)) > 0.5 * min(length, len(found)), "it is spread over trials and subjects"


def test_a_cell_is_sampled_wherever_it_stands() -> None:
    """In another order, in a part of the study, in a larger one: what decides is what it is."""
    many, rule = axes(300, 200), proof_rule_of(options(proof="winners"), 60_000)
    whole = rule.mask(many)
    trials, subjects = np.arange(299, 0, -7, dtype=np.int32), np.arange(3, 150, dtype=np.int32)
    assert np.array_equal(whole[trials][:, subjects], rule.mask(many.take(trials, subjects)))
    larger = proof_rule_of(options(proof="winners"), 50_000_000).mask(many)
    assert not (larger & ~whole).any() and larger.sum() < whole.sum()
    other = proof_rule_of(options(proof="winners", seed=1), 60_000).mask(many)
    assert (other & whole).sum() < 0.1 * whole.sum()


def test_what_is_stored_where_the_spec_does_not_say() -> None:
    few, many = 10_000, 10_001
    assert metrics_of(options(), few) == METRIC_NAMES and proof_rule_of(options(), few).threshold is None
    assert metrics_of(None, few) == METRIC_NAMES and proof_rule_of(None, few).threshold is None
    assert set(metrics_of(options(objective={"max": "calmar"}), many)) == {*SHORT_LIST, "calmar"}
    assert proof_rule_of(options(), many).threshold is not None
    assert proof_rule_of(options(proof="all"), many).threshold is None
    assert proof_rule_of(options(proof="winners"), few).threshold is not None
    assert metrics_of(options(metrics="all"), many) == METRIC_NAMES


def test_named_metrics_and_what_the_objective_needs() -> None:
    """Ties are decided by drawdown and trades, so these are stored too."""
    found = metrics_of(options(metrics=["fees", "cagr"]), 5)
    assert found == tuple(name for name in METRIC_NAMES if name in ("fees", "cagr", "sharpe", "max_dd", "trades"))
    spec = cross(objective=None)
    spec["study"]["metrics"] = ["cagr"]
    assert metrics_of(load_study(spec).study, 5) == ("cagr",)


def test_metrics_and_proof_are_part_of_the_study_and_of_no_key() -> None:
    store = sample_store()
    plain = planned(cross(), store)
    for changes in ({"metrics": ["fees"]}, {"proof": "winners"}):
        spec = cross()
        spec["study"] |= changes
        other = planned(spec, store)
        assert other.id != plain.id and cell_keys(other) == cell_keys(plain)
    assert (plain.metrics, plain.proof, plain.proof_mask([1], [2]).tolist()) == (METRIC_NAMES, None, [[True]])
    assert other.proof is not None and len(other.proof) < other.cells


def test_the_last_block_has_all_cells_of_the_best_trials() -> None:
    study = planned(cross(fast=(1, 15)), sample_store())
    ranked = np.random.default_rng(1).permutation(study.trials)
    assert study.winners_block(ranked) is None, "every cell has digests already"
    block = replace(study, proof_rule=ProofRule(0, 5)).winners_block(ranked)
    assert block is not None and block.index == len(study.blocks)
    assert block.trials.tolist() == sorted(ranked[:10].tolist())
    assert block.positions.tolist() == [0, 1, 2, 3, 4]
