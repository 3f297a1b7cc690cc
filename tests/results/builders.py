"""Facts for tests, from a plain equity curve."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from farm.results.measure import Facts, measure
from farm.values.metrics import METRIC_NAMES

MICRO = 1_000_000


def facts(equity: Sequence[int], cash: int = 10_000 * MICRO, **changes: Any) -> Facts:
    """Return the facts of a run with this session equity (micro-units), without orders or positions."""
    n = len(equity)
    none = np.empty(0, np.int64)
    plain: dict[str, Any] = {
        "cash_micro": cash,
        "day": np.arange(n, dtype=np.int32) + 11_000,
        "equity": np.array(equity, np.int64),
        "position": np.zeros(n, np.int64),
        "decision_bars": np.ones(n, np.int64),
        "market_bars": np.zeros(n, np.int64),
        "order_session": none,
        "fill_session": none,
        "fill_value": none,
        "fee_session": none,
        "fee_line": none,
        "fee_micro": none,
        "trade_session": none,
        "trade_pnl": none,
        "trade_notional": none,
        "open_session": none,
    }
    for name, value in changes.items():
        plain[name] = np.array(value, plain[name].dtype)
    return Facts(**plain)


def named(
    of: Facts, stretch: tuple[int, int] | None = None, *, ann: float = 252.0, rf: float = 0.0, benchmark: Any = None
) -> dict[str, float | None]:
    """Return the metrics by name, None where undefined."""
    vector = measure(of, [stretch or (0, len(of.day))], ann=ann, rf=rf, benchmark=benchmark)[0]
    return {name: None if value != value else value for name, value in zip(METRIC_NAMES, vector.tolist(), strict=True)}
