"""Adjustment factors: exact, anchored, and blind to the future."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.market.adjust import Step, dividend_steps, factors, ratios, split_steps
from farm.values.errors import DataError

DAYS = st.lists(st.integers(0, 60), unique=True, max_size=25).map(lambda days: np.array(sorted(days), np.int32))
STEPS = st.lists(st.builds(Step, st.integers(0, 60), st.integers(1, 50), st.integers(1, 50)), max_size=12)


def _by_definition(day: int, anchor: int, steps: list[Step]) -> Fraction:
    factor = Fraction(1)
    for step in steps:
        if anchor < step.day <= day:
            factor *= Fraction(step.num, step.den)
        if day < step.day <= anchor:
            factor /= Fraction(step.num, step.den)
    return factor


def test_apple_by_hand() -> None:
    """AAPL split 2 for 1 on day 10 and 20: anchored between them, earlier days are halved, later doubled."""
    steps = [Step(10, 2, 1), Step(20, 2, 1)]
    days = np.array([9, 10, 11, 19, 20, 21], np.int32)
    assert factors(days, 15, steps).tolist() == [0.5, 1, 1, 1, 2, 2]
    assert factors(days, 10, steps).tolist() == [0.5, 1, 1, 1, 2, 2]
    assert factors(days, 9, steps).tolist() == [1, 2, 2, 2, 4, 4]
    assert factors(days, 99, steps).tolist() == [0.25, 0.5, 0.5, 0.5, 1, 1]


@given(DAYS, st.integers(0, 60), STEPS)
def test_factors_are_the_rounded_rationals(days: np.ndarray, anchor: int, steps: list[Step]) -> None:
    """Each factor is the float64 nearest to the exact product, for any splits, several a day too."""
    expected = [float(_by_definition(int(day), anchor, steps)) for day in days]
    found = factors(days, anchor, steps)
    assert expected == found.tolist()
    assert not found.flags.writeable


@given(DAYS, st.integers(0, 60), STEPS)
def test_fractions_are_in_lowest_terms_or_unknown(days: np.ndarray, anchor: int, steps: list[Step]) -> None:
    num, den = ratios(days, anchor, steps)
    for day, top, bottom in zip(days.tolist(), num.tolist(), den.tolist(), strict=True):
        exact = _by_definition(day, anchor, steps)
        if max(exact.numerator, exact.denominator) < 2**53:
            assert (top, bottom) == (exact.numerator, exact.denominator)
        else:
            assert np.isnan(top) and np.isnan(bottom)


@given(DAYS, st.integers(0, 60), STEPS, STEPS)
def test_later_events_change_no_earlier_factor(
    days: np.ndarray, anchor: int, steps: list[Step], later: list[Step]
) -> None:
    """Events after day T change no factor up to T, once the anchor lies before them."""
    until = max([anchor, *(int(day) for day in days[: len(days) // 2])])
    appended = [Step(step.day + until + 1, step.num, step.den) for step in later]
    known = days <= until
    assert factors(days, anchor, steps)[known].tolist() == factors(days, anchor, steps + appended)[known].tolist()


@given(DAYS, st.integers(0, 60), STEPS, st.randoms())
def test_order_of_events_does_not_matter(days: np.ndarray, anchor: int, steps: list[Step], random) -> None:
    mixed = list(steps)
    random.shuffle(mixed)
    assert factors(days, anchor, steps).tolist() == factors(days, anchor, mixed).tolist()


def _dividends(rows: list[tuple[int, int]], splits: list[Step] | None = None, close: tuple[int, ...] = (1000, 2000)):
    """Dividends in cents; closes in cents on days 10, 20, ..."""
    day, ticks = (np.array([row[i] for row in rows], dtype) for i, dtype in enumerate((np.int32, np.int64)))
    bars = np.arange(10, 10 * len(close) + 1, 10, np.int32)
    return dividend_steps(day, ticks, 2, bars, np.array(close, np.int64), 2, splits or [], "dividends of X")


def test_a_dividend_is_reinvested_at_the_previous_close() -> None:
    """1.00 after a close of 10.00 multiplies by 1 / 0.9 from the ex-day on."""
    [step] = _dividends([(20, 100)])
    assert (step.day, Fraction(step.num, step.den)) == (20, Fraction(10, 9))
    assert factors(np.array([10, 20, 30], np.int32), 10, [step]).tolist() == [1.0, 10 / 9, 10 / 9]
    [late] = _dividends([(25, 100)])
    assert Fraction(late.num, late.den) == Fraction(20, 19)


def test_a_dividend_on_a_split_day_is_per_new_share() -> None:
    """A 2-for-1 split and 0.50 per new share on one ex-day: the close of 10.00 was 5.00 per new share."""
    split = Step(20, 2, 1)
    [step] = _dividends([(20, 50)], [split])
    assert Fraction(step.num, step.den) == Fraction(10, 9)
    assert factors(np.array([10, 20], np.int32), 10, [split, step]).tolist() == [1.0, 20 / 9]


def test_a_split_on_a_day_without_bar_counts() -> None:
    """The split came after the last close and before the ex-day."""
    [step] = _dividends([(18, 50)], [Step(15, 2, 1)])
    assert Fraction(step.num, step.den) == Fraction(10, 9)


def test_dividends_before_the_first_bar_have_no_step() -> None:
    assert _dividends([(5, 100), (10, 100)]) == []


def test_total_return_of_buy_and_hold() -> None:
    """Raw close x factor is the value of one share whose dividends buy more at the previous close's ex-price."""
    close, dividends = (1000, 950, 1900, 1805), [(20, 50), (40, 95)]
    steps = _dividends(dividends, [], close)
    days = np.array([10, 20, 30, 40], np.int32)
    value = factors(days, 10, steps) * np.array(close) / 100
    assert value.tolist() == pytest.approx([10.0, 10.0, 20.0, 20.0], rel=1e-12)


@pytest.mark.parametrize("ticks", [1000, 1500, -1])
def test_a_dividend_that_eats_the_price(ticks: int) -> None:
    with pytest.raises(DataError, match="previous close") as caught:
        _dividends([(20, ticks)])
    assert caught.value.place == "dividends of X, 1970-01-21"


def test_a_ratio_that_is_none() -> None:
    with pytest.raises(DataError, match="split of 0 for 1"):
        split_steps(np.array([5], np.int32), np.array([0]), np.array([1]), "splits of X")
