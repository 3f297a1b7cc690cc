"""A block costs no Python per cell: its trials are rows of arrays from the table of parameters to the segment."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from farm.columns.cache import ColumnCache
from farm.store.base import Store
from farm.values.metrics import METRIC_NAMES
from farm.work.block import compute
from farm.work.context import StudyContext
from farm.work.progress import Stages
from farm.work.run import BlockRunner, submit
from tests.study.support import cross, sample_store


@pytest.fixture(scope="module")
def store() -> Store:
    return sample_store()


def context_of(store: Store, spec: dict[str, Any]) -> StudyContext:
    """A study in a process that has computed a trial of it on every subject."""
    cache = ColumnCache(1 << 28)
    submission = submit(spec, store, fresh=True, cache=cache)
    context = BlockRunner(store, cache=cache).context(submission.study)
    block(context, [0])
    return context


def block(context: StudyContext, trials: list[int]) -> int:
    """Compute these trials on all subjects, and make a segment of them; return the Python calls that it took."""
    positions = range(len(context.study.subjects))
    proof = np.zeros((len(trials), len(positions)), np.bool_)
    count = 0

    def counted(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        compute(context, trials, list(positions), METRIC_NAMES, proof, Stages(), lambda: None)
    finally:
        sys.setprofile(before)
    return count


SPECS = {
    "crosses": cross(fast=(2, 21), slow=(31, 50)),
    "stops": cross(fast=(2, 21), slow=(31, 50)),
    "one account": cross(fast=(2, 21), slow=(31, 50), each=False),
}
SPECS["stops"]["strategy"]["sleeves"][0]["stops"] = [{"type": "stop", "pct": 0.03}, {"type": "target", "pct": 0.06}]


@pytest.mark.parametrize("name", SPECS)
def test_ten_times_the_trials_make_no_more_calls(store: Store, name: str) -> None:
    """Kernels do what grows."""
    context = context_of(store, SPECS[name])
    assert context.study.trials == 400
    few, many = list(range(0, 400, 20)), list(range(200))
    for trials in (few, many):
        block(context, trials)  # rows of signals are kept
    assert block(context, many) == block(context, few)


def test_a_report_says_how_much_of_a_block_is_bound_to_the_interpreter(store: Store) -> None:
    submission = submit(SPECS["crosses"], store, fresh=True, cache=ColumnCache(1 << 28))
    report = BlockRunner(store, cache=ColumnCache(1 << 28)).run_block(submission.study, 0)
    assert 0.0 < report.seconds["run"] < sum(report.seconds.values())
    assert report.gil_bound == 1.0 - report.seconds["run"] / sum(report.seconds.values())
