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
        return _settle(self.name, n) if self.decay else 0


@lru_cache(maxsize=4096)
def _settle(name: str, n: int) -> int:
    decay = INDICATORS[name].decay
    return settle_bars(decay(n)) if decay else 0


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
