"""The indicators: name, least period, lookback, settling, unit. Descriptions only; ``farm/signals`` has the code.

Rules: definitions and lookbacks are TA-Lib's (domain.md 2.5). A *window* indicator's bits depend on its window alone; a
*recursive* one's depend on where it started, and ``settle`` says after how many bars that no longer shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from farm.values.arrays import I64


def settle_bars(alpha: float) -> int:
    """Return K = ceil(53 ln 2 / -ln(1 - alpha)): steps after which a start weighs less than 2**-53 (domain.md 2.4)."""
    if alpha >= 1.0:
        return 0
    return math.ceil(53 * math.log(2) / -math.log1p(-alpha))


@dataclass(frozen=True)
class Indicator:
    """One definition.

    n_min:       least allowed period.
    delay:       lookback minus period: -1 for windows of n values, 0 for those of n changes.
    keeps_unit:  whether the value is in units of its input, so that it scales with a split as the input does.
    decay:       period -> weight of the newest value, for recursive indicators; None for windows.
    """

    name: str
    n_min: int
    delay: int
    keeps_unit: bool
    decay: Callable[[int], float] | None = None

    @property
    def is_recursive(self) -> bool:
        """Whether its bits depend on where it started."""
        return self.decay is not None

    def lookback(self, n: int) -> int:
        """Return the values it needs before its first one."""
        return n + self.delay

    def settle(self, n: int) -> int:
        """Return the bars after which its start no longer shows; 0 for windows."""
        return int(_settles(self.name, n.bit_length())[n]) if self.decay else 0

    def settles(self, n: I64) -> I64:
        """Return the same for each of many periods."""
        return _settles(self.name, int(n.max(initial=0)).bit_length())[n] if self.decay else np.zeros_like(n)


@lru_cache
def _settles(name: str, bits: int) -> I64:
    """Return the settling of each period below 2**bits; 0 for those that are not allowed."""
    indicator = INDICATORS[name]
    assert indicator.decay is not None
    return np.array(
        [settle_bars(indicator.decay(n)) if n >= indicator.n_min else 0 for n in range(2**bits)], dtype=np.int64
    )


INDICATORS: Mapping[str, Indicator] = MappingProxyType(
    {
        indicator.name: indicator
        for indicator in (
            Indicator("sma", 1, -1, True),
            Indicator("ema", 1, -1, True, lambda n: 2.0 / (n + 1)),
            Indicator("rsi", 2, 0, False, lambda n: 1.0 / n),
            Indicator("roc", 1, 0, False),
            Indicator("ret", 1, 0, False),
            Indicator("stddev", 2, -1, True),
            Indicator("max", 1, -1, True),
            Indicator("min", 1, -1, True),
        )
    }
)
