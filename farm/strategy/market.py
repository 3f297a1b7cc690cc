"""What signals are computed from: the shape of a market, without the room that makes one.

``feed.market.Market`` has this shape. Strategies stand before feeds in the drawing, so they say what they look at and
import nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from farm.values.arrays import F64, I32, I64


class Sessions(Protocol):
    """A calendar: of the run's window, or whole."""

    @property
    def name(self) -> str: ...

    @property
    def day(self) -> I32: ...


class Bars(Protocol):
    """One instrument's bars, as ``feed.market.InstrumentSeries`` has them."""

    @property
    def id(self) -> str: ...

    @property
    def symbol(self) -> str: ...

    @property
    def price_scale(self) -> int: ...

    @property
    def day(self) -> I32: ...

    @property
    def close_ts(self) -> I64: ...

    @property
    def factor(self) -> F64: ...

    @property
    def factor_tr(self) -> F64: ...

    @property
    def factor_num(self) -> F64: ...

    @property
    def factor_den(self) -> F64: ...


class MarketView(Protocol):
    """What signals are computed from, as ``feed.market.Market`` has it."""

    @property
    def calendar(self) -> Sessions: ...

    @property
    def calendars(self) -> Mapping[str, Sessions]: ...

    @property
    def series(self) -> Sequence[Bars]: ...

    @property
    def index(self) -> Mapping[str, int]: ...

    @property
    def start_day(self) -> int: ...

    @property
    def end_day(self) -> int: ...

    @property
    def snapshot(self) -> str: ...
