"""Claims: thinning keeps ends and extremes; months multiply to the total; the map shows what the trials say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from farm.report import figures
from farm.values.units import parse_date


@given(hnp.arrays(np.float64, st.integers(1, 2000), elements=st.floats(-1e6, 1e6)))
def test_thinning_keeps_ends_and_extremes(values: np.ndarray) -> None:
    kept = figures.thin(values)
    assert 1 <= len(kept) <= figures.CURVE_POINTS_MAX
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert (np.diff(kept) > 0).all()
    assert values[kept].max() == values.max()
    assert values[kept].min() == values.min()


def test_short_curves_are_drawn_whole() -> None:
    assert figures.thin(np.arange(300.0)).tolist() == list(range(300))


def days(*texts: str) -> np.ndarray:
    return np.array([parse_date(text, "") for text in texts], np.int32)


def test_monthly_returns() -> None:
    day = days("2020-11-30", "2020-12-01", "2020-12-31", "2021-02-26")
    table = figures.monthly_returns(100.0, day, np.array([110.0, 100.0, 121.0, 60.5]))
    assert list(table) == [2020, 2021]
    assert table[2020][10] == pytest.approx(0.10)
    assert table[2020][11] == pytest.approx(0.10)
    assert table[2020][12] == pytest.approx(0.21)
    assert table[2021][:2] == [None, pytest.approx(-0.5)]
    assert table[2021][12] == pytest.approx(-0.5)


@given(hnp.arrays(np.float64, st.integers(1, 900), elements=st.floats(1.0, 1e6)))
def test_months_multiply_to_the_whole(equity: np.ndarray) -> None:
    day = np.arange(len(equity), dtype=np.int32) + 11_000
    table = figures.monthly_returns(1000.0, day, equity)
    by_month = math.prod(1.0 + value for row in table.values() for value in row[:12] if value is not None)
    by_year = math.prod(1.0 + row[12] for row in table.values() if row[12] is not None)
    assert by_month == pytest.approx(equity[-1] / 1000.0)
    assert by_year == pytest.approx(equity[-1] / 1000.0)


def test_drawdown_counts_the_starting_cash() -> None:
    assert figures.drawdown(100.0, np.array([50.0, 100.0, 150.0, 75.0])).tolist() == [-0.5, 0.0, 0.0, -0.5]


def test_the_map_of_two_parameters() -> None:
    points = [((5, 60), 0.1), ((5, 80), 0.3), ((10, 60), None), ((10, 80), -0.2)]
    found = figures.parameter_map(("fast", "slow"), points, (5, 80), "max")
    assert found is not None
    assert (found.x_name, found.y_name, found.x, found.y) == ("fast", "slow", (5, 10), (60, 80))
    assert found.value == ((0.1, None), (0.3, -0.2))
    assert found.at == (5, 80)
    assert found.best_of_rest == ()


@pytest.mark.parametrize(("direction", "expected"), [("max", 0.9), ("min", 0.1)])
def test_the_map_of_more_parameters_shows_the_best_over_the_rest(direction: str, expected: float) -> None:
    points = [((a, b, c), 0.1 if c == 2 else 0.9) for a in (1, 2, 3) for b in ("x", "y", "z") for c in (1, 2)]
    found = figures.parameter_map(("a", "b", "c"), points, (1, "x", 1), direction)
    assert found is not None
    assert (found.x_name, found.y_name, found.best_of_rest) == ("a", "b", ("c",))
    assert {value for row in found.value for value in row} == {expected}


def test_the_map_of_one_and_of_no_parameter() -> None:
    one = figures.parameter_map(("n", "fixed"), [((3, 1), 1.0), ((2, 1), 2.0)], (2, 1), "max")
    assert one is not None
    assert (one.x, one.y, one.value) == ((2, 3), (), ((2.0, 1.0),))
    assert figures.parameter_map(("fixed",), [((1,), 1.0)], (1,), "max") is None
    assert figures.parameter_map((), [((), 1.0)], (), "max") is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cagr", 0.1234, "12.34 %"),
        ("cagr", -0.5, "−50.00 %"),
        ("sharpe", -1e-9, "0.000"),
        ("trades", 1234.0, "1,234"),
        ("fees", 9876.5, "9,876.50"),
        ("calmar", math.nan, "–"),
        ("calmar", None, "–"),
    ],
)
def test_metrics_as_text(name: str, value: float | None, expected: str) -> None:
    assert figures.metric_text(name, value) == expected
