"""Books for tests, from a plain equity curve."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from farm.result.metrics import METRICS, Books, measure

MICRO = 1_000_000


def books(equity: Sequence[int], cash: int = 10_000 * MICRO, **changes: Any) -> Books:
    """Return the books of a run with this session equity (micro-units), without orders or positions."""
    n = len(equity)
    none32, none64 = np.empty(0, np.int32), np.empty(0, np.int64)
    plain: dict[str, Any] = {
        "cash_micro": cash,
        "day": np.arange(n, dtype=np.int32) + 11_000,
        "equity": np.array(equity, np.int64),
        "position": np.zeros(n, np.int64),
        "decision_bars": np.ones(n, np.int32),
        "market_bars": np.zeros(n, np.int32),
        "order_session": none32,
        "fill_session": none32,
        "fill_value": none64,
        "fee_session": none32,
        "fee_line": np.empty(0, np.int8),
        "fee_micro": none64,
        "trade_session": none32,
        "trade_pnl": none64,
        "trade_notional": none64,
        "open_session": none32,
    }
    for name, value in changes.items():
        plain[name] = np.array(value, plain[name].dtype)
    return Books(**plain)


def named(
    of: Books, stretch: tuple[int, int] | None = None, *, ann: float = 252.0, rf: float = 0.0, benchmark: Any = None
) -> dict[str, float | None]:
    """Return the metrics by name, None where undefined."""
    vector = measure(of, stretch or (0, len(of.day)), ann=ann, rf=rf, benchmark=benchmark)
    return {name: None if value != value else value for name, value in zip(METRICS, vector.tolist(), strict=True)}
