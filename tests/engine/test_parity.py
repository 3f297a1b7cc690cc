"""The kernel against its plain twin, in bits, over generated markets; and what must not matter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.engine.clock import make_tape
from farm.engine.loop import Simulator, simulate
from farm.feed.market import Market
from farm.kernels.reference.step import Reference
from farm.strategy.evaluate import Signals
from farm.strategy.program import Program
from tests.engine.support import assert_conserves, assert_equal_runs, assert_same, cases

Case = tuple[Program, Market, tuple[tuple[Signals, ...], ...]]


@given(cases())
@settings(max_examples=300)
def test_kernel_equals_twin(case: Case) -> None:
    """Every order, fill, cash event, trade and session equity is the same, to the bit."""
    run = simulate(*case)
    assert_same(run, Reference(*case).run())
    assert_conserves(run)
