"""Claims: the sums of a stretch equal their twin, and stretches that cover a run add up to the run."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import totals as kernel
from tests.reference import totals as reference

money = st.integers(-(10**12), 10**12)


@st.composite
def events(draw: st.DrawFn) -> tuple[int, list[Any]]:
    """Return a number of sessions and the arguments of ``stretch_totals`` after the stretch."""
    n = draw(st.integers(1, 12))
    session = st.integers(0, n - 1)
    bars = [draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)) for _ in range(2)]
    orders, opened = draw(st.lists(session, max_size=9)), draw(st.lists(session, max_size=3))
    fills = draw(st.lists(st.tuples(session, money), max_size=9))
    fees = draw(st.lists(st.tuples(session, st.integers(0, 3), money), max_size=9))
    columns = [[f[0] for f in fills], [f[1] for f in fills], [f[0] for f in fees], [f[1] for f in fees]]
    return n, [*bars, orders, *columns, [f[2] for f in fees], opened]


def totals(start: int, stop: int, plain: list[Any]) -> list[int]:
    out = np.empty(10, np.int64)
    kernel.stretch_totals(start, stop, *(np.array(a, np.int64) for a in plain), out)
    return out.tolist()


@given(events(), st.data())
def test_it_equals_its_twin(drawn: tuple[int, list[Any]], data: st.DataObject) -> None:
    n, plain = drawn
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert totals(start, stop, plain) == reference.stretch_totals(start, stop, *plain)


@given(events(), st.data())
def test_stretches_add_up_to_the_run(drawn: tuple[int, list[Any]], data: st.DataObject) -> None:
    n, plain = drawn
    cut = data.draw(st.integers(0, n))
    parts = zip(totals(0, cut, plain), totals(cut, n, plain), strict=True)
    assert totals(0, n, plain) == [a + b for a, b in parts]
