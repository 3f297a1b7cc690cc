"""Bars and stores for the tests of the shard room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from farm.shard.dataset import Dataset
from farm.shard.index import MonthRows
from farm.shard.ingest import IngestSummary, ingest_table
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.wrap import Around
from farm.values.units import parse_date

_T = TypeVar("_T")

PRICES = ("open", "high", "low", "close")
ALWAYS = (parse_date("1990-01-01", "test"), parse_date("2030-01-01", "test"))


@dataclass(frozen=True)
class Bar:
    """One bar as a test writes it."""

    symbol: str
    day: int
    open: float
    high: float
    low: float
    close: float
    volume: int


def day(text: str) -> int:
    """Return the day of an ISO date."""
    return parse_date(text, "test")


def table_of(bars: Sequence[Bar]) -> pa.Table:
    """Return bars as a source: symbol, ts (dates), prices, volume."""
    return pa.table(
        {
            "symbol": pa.array([bar.symbol for bar in bars], pa.string()),
            "ts": pa.array([bar.day for bar in bars], pa.int32()).cast(pa.date32()),
            **{name: pa.array([getattr(bar, name) for bar in bars], pa.float64()) for name in PRICES},
            "volume": pa.array([bar.volume for bar in bars], pa.int64()),
        }
    )


def walk(symbol: str, first: str, rows: int, *, seed: int = 0, decimals: int = 2) -> list[Bar]:
    """Return a random walk of bars on consecutive days (of the calendar 24x7)."""
    rng = np.random.default_rng([seed, *symbol.encode()])
    start, power = day(first), 10**decimals
    bars: list[Bar] = []
    ticks = 100 * power
    for at in range(rows):
        low, high = sorted(int(x) for x in rng.integers(ticks - power, ticks + power, 2))
        first_tick, ticks = (int(x) for x in rng.integers(low, high + 1, 2))
        bars.append(
            Bar(
                symbol,
                start + at,
                first_tick / power,
                high / power,
                low / power,
                ticks / power,
                int(rng.integers(0, 10**6)),
            )
        )
    return bars


def put_bars(store: Store, bars: Sequence[Bar], *, dataset: str = "main", **options: object) -> IngestSummary:
    """Ingest bars on the calendar 24x7, which costs nothing to make."""
    return ingest_table(
        store,
        dataset,
        table_of(bars),
        "stock_daily",
        tz="UTC",
        stamp="start",
        calendar="24x7",
        **options,  # type: ignore[arg-type]
    )


class Meddling(Around):
    """A store that calls ``before(verb, key)`` ahead of every operation: to race, to fail, to count."""

    def __init__(self, inner: Store, before: Callable[[str, str], None]) -> None:
        super().__init__(inner)
        self._before = before

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        self._before(verb, key)
        return action()


@st.composite
def histories(draw: st.DrawFn) -> list[Bar]:
    """Bars of a few symbols on days with gaps, over two decades, prices of 0 to 8 decimals; by symbol, then day."""
    bars: list[Bar] = []
    for symbol in sorted(draw(st.sets(st.sampled_from(["A", "AA", "B", "BRK.B", "Z9", "a"]), min_size=1, max_size=4))):
        days = draw(st.sets(st.integers(day("2009-11-15"), day("2010-02-20")), min_size=1, max_size=25))
        decimals = draw(st.integers(0, 8))
        for today in sorted(days):
            ticks = sorted(draw(st.lists(st.integers(1, 10**9), min_size=4, max_size=4)))
            low, first, last, high = (tick / 10**decimals for tick in ticks)
            bars.append(Bar(symbol, today, first, high, low, last, draw(st.integers(0, 2**53 - 1))))
    return bars


def head(store: Store, name: str = "main") -> Dataset:
    """Return the newest snapshot of a dataset, opened."""
    return Dataset(store, read_head(store, name))


def refs(store: Store) -> list[str]:
    """Return the keys of all log entries."""
    return [meta.key for meta in store.list("refs/")]


def digests(store: Store, symbol: str) -> list[MonthRows]:
    """Return the months of a symbol's bars."""
    return head(store).months("stock_daily", symbol)
