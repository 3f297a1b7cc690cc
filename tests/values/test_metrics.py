"""The registry of metrics: what people see of a value, and that the documents say the same."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from farm.values.metrics import HEADLINES, METRIC_NAMES, METRICS, Unit

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cagr", 0.1234, "12.34 %"),
        ("cagr", -0.5, "-50.00 %"),
        ("pct_change", 12.34, "12.34 %"),
        ("sharpe", -1e-9, "0.000"),
        ("sharpe", -1.2346, "-1.235"),
        ("trades", 1234.0, "1,234"),
        ("trades", 12.5, "12.5"),
        ("dd_duration", 1e16, "10,000,000,000,000,000"),
        ("fees", 9876.5, "9,876.50"),
        ("calmar", math.nan, "-"),
        ("calmar", None, "-"),
        ("trades", None, "-"),
    ],
)
def test_metrics_as_text(name: str, value: float | None, expected: str) -> None:
    """Percent for fractions, whole counts, cents; never a negative zero."""
    assert METRICS[name].text(value) == expected


def test_names_are_keys_and_nothing_is_said_twice() -> None:
    assert [metric.name for metric in METRICS.values()] == list(METRIC_NAMES)
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
    assert set(HEADLINES) < set(METRICS)


def test_the_document_lists_each_metric_with_its_unit() -> None:
    """docs/metrics.md: the same names in the same order, and for each row the units of its names."""
    rows = re.findall(r"^\| (`.+?`) \| ([a-z ,]+?) \|", DOCUMENT.read_text(), re.MULTILINE)
    listed = {name: unit for names, units in rows for name, unit in pairs(names, units)}
    assert list(listed.items()) == [(name, str(metric.unit)) for name, metric in METRICS.items()]


def pairs(names: str, units: str) -> list[tuple[str, Unit]]:
    """Return the names of a row with their units; one unit serves all of them."""
    found, said = re.findall(r"`(\w+)`", names), [Unit(unit) for unit in units.split(", ")]
    return list(zip(found, said if len(said) > 1 else said * len(found), strict=True))
