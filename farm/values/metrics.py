"""The metrics of domain.md 4.1: name, label, unit, and so how one is shown. Descriptions only: the code is kernels.

Rules: the order is that of the metric vector, whose bits enter the ``stats`` digest: new metrics at the end, none ever
moved. Values are fractions, not percent; what is undefined is NaN in arrays, null in documents, a dash for people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

ABSENT = "-"
BUCKETS: Mapping[str, str] = MappingProxyType({"full": "whole window", "is": "in sample", "oos": "out of sample"})
"""What a metric is measured over, and what people call it; the order of files and documents."""
HEADLINES = ("total_return", "sharpe", "max_dd", "trades")
"""What a table of trials or instruments shows beside the objective."""
SHORT_LIST = (
    "total_return", "cagr", "vol", "sharpe", "sortino", "max_dd", "trades", "win_rate", "profit_factor", "tim",
)  # fmt: skip
"""What a study of many cells stores where its spec does not say."""
TIE_BREAKERS = ("max_dd", "trades")
"""What an objective needs beside its own metric: ties go to the lower drawdown, then to fewer trades."""


class Unit(StrEnum):
    """What a value counts. People see a fraction as percent, and money with cents."""

    FRACTION = "fraction"
    PERCENT = "percent"
    RATIO = "ratio"
    COUNT = "count"
    SESSIONS = "sessions"
    DAYS = "days"
    CURRENCY = "currency"


@dataclass(frozen=True)
class Metric:
    """One metric; ``label`` is what people call it."""

    name: str
    label: str
    unit: Unit

    @property
    def is_count(self) -> bool:
        """Whether it is a whole number in every cell; its median over cells may be a half."""
        return self.unit in (Unit.COUNT, Unit.SESSIONS, Unit.DAYS)

    def text(self, value: float | None) -> str:
        """Return a value for people: ``12.34 %``, ``1,234``, ``9,876.50``, ``0.512``; a dash where it is undefined."""
        if value is None or not math.isfinite(value):
            return ABSENT
        if self.is_count:
            return f"{value:z,.0f}" if value == round(value) else f"{value:z,.1f}"
        if self.unit is Unit.FRACTION:
            return f"{value * 100:z,.2f} %"
        if self.unit is Unit.PERCENT:
            return f"{value:z,.2f} %"
        return f"{value:z,.2f}" if self.unit is Unit.CURRENCY else f"{value:z,.3f}"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        name: Metric(name, label, unit)
        for name, label, unit in (
            ("total_return", "Total return", Unit.FRACTION),
            ("pct_change", "Change in percent", Unit.PERCENT),
            ("cagr", "Growth a year (CAGR)", Unit.FRACTION),
            ("vol", "Volatility", Unit.FRACTION),
            ("sharpe", "Sharpe", Unit.RATIO),
            ("sortino", "Sortino", Unit.RATIO),
            ("max_dd", "Maximum drawdown", Unit.FRACTION),
            ("calmar", "Calmar", Unit.RATIO),
            ("dd_duration", "Longest drawdown, sessions", Unit.SESSIONS),
            ("dd_duration_days", "Longest drawdown, days", Unit.DAYS),
            ("ulcer", "Ulcer index", Unit.FRACTION),
            ("var95", "Value at risk, 95 %", Unit.FRACTION),
            ("cvar95", "Expected shortfall, 95 %", Unit.FRACTION),
            ("tail_ratio", "Tail ratio", Unit.RATIO),
            ("beta", "Beta", Unit.RATIO),
            ("alpha", "Alpha", Unit.FRACTION),
            ("tracking_error", "Tracking error", Unit.FRACTION),
            ("ir", "Information ratio", Unit.RATIO),
            ("orders", "Orders", Unit.COUNT),
            ("fills", "Fills", Unit.COUNT),
            ("trades", "Closed trades", Unit.COUNT),
            ("open_trades", "Open trades", Unit.COUNT),
            ("win_rate", "Win rate", Unit.FRACTION),
            ("profit_factor", "Profit factor", Unit.RATIO),
            ("expectancy", "Mean profit per trade", Unit.CURRENCY),
            ("expectancy_pct", "Mean profit per trade, of entry", Unit.FRACTION),
            ("tim", "Time in market", Unit.FRACTION),
            ("timar", "CAGR / time in market", Unit.FRACTION),
            ("timar_geo", "Growth a year while in market", Unit.FRACTION),
            ("exposure", "Mean exposure", Unit.FRACTION),
            ("turnover", "Turnover a year", Unit.RATIO),
            ("fees", "Costs", Unit.CURRENCY),
            ("fees_commission", "Commission", Unit.CURRENCY),
            ("fees_slippage", "Slippage", Unit.CURRENCY),
            ("fees_borrow", "Borrow", Unit.CURRENCY),
            ("fees_exercise", "Exercise", Unit.CURRENCY),
        )
    }
)
METRIC_NAMES = tuple(METRICS)
"""The published order."""
