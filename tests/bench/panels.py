"""How long the data of a wide study take: row groups decoded, panels and tapes made; no strategy, no engine."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from farm import api
from farm.columns.cache import ColumnCache
from farm.market.load import load_panel
from farm.market.tapes import make_tapes, tiles
from farm.shard import reader
from farm.shard.dataset import Dataset
from farm.shard.plan import ReadPlan
from farm.shard.snapshot import read_head
from farm.values.settings import GIB, FarmSettings
from farm.values.units import day_of
from tests.bench.harness import Row, microseconds, repeat
from tests.bench.wide import BARS, SYMBOLS, days, wide_store

HISTORY = 60
"""Bars before the run."""


def _plan(dataset: Dataset) -> ReadPlan:
    first, last = (day_of(days()[at].astype(object)) for at in (0, -1))
    return dataset.read_plan(dict.fromkeys(dataset.instruments(), first), last, ("high", "low"))


def panels(_: FarmSettings, repeats: int) -> list[Row]:
    """Panels and tapes of all symbols from a warm column cache; and what a second thread does for decoding."""
    with wide_store(SYMBOLS) as settings:
        store = api.store_of(settings)
        dataset, cache = Dataset(store, read_head(store, settings.dataset)), ColumnCache(GIB)
        start_day = day_of(days()[HISTORY].astype(object))
        parts: dict[str, list[float]] = {"plan": [], "panels": [], "tapes": []}

        def made() -> float:
            begun = time.perf_counter()
            plan = _plan(dataset)
            spent = {"plan": time.perf_counter() - begun, "panels": 0.0, "tapes": 0.0}
            for tile in tiles(plan):
                at = time.perf_counter()
                panel = load_panel(dataset, cache, plan.take(tile), calendar_name="XNYS", start_day=start_day)
                loaded = time.perf_counter()
                make_tapes(panel)
                spent["panels"] += loaded - at
                spent["tapes"] += time.perf_counter() - loaded
            for name, seconds in spent.items():
                parts[name].append(seconds)
            return time.perf_counter() - begun

        values = repeat(made, repeats)
        shown = {name: microseconds(statistics.median(all_)) for name, all_ in parts.items()}
        name = f"panels and tapes, {SYMBOLS:,} symbols x {BARS:,} bars, warm"
        return [Row(name, "s", 0.1, False, values, shown), _decoding(dataset, repeats)]


def _decoding(dataset: Dataset, repeats: int) -> Row:
    """The row groups of the plan decoded on two threads over one, taken in turns."""
    found: list[tuple[Any, ...]] = []
    decode = reader._decode

    def seen(*arguments: Any) -> Any:
        found.append(arguments)
        return decode(*arguments)

    reader._decode = seen
    try:
        reader.read_columns(dataset.store, dataset, _plan(dataset), ColumnCache(0))
    finally:
        reader._decode = decode
    seconds: dict[int, list[float]] = {1: [], 2: []}

    def ratio() -> float:
        for threads in seconds:
            with ThreadPoolExecutor(threads) as pool:
                begun = time.perf_counter()
                list(pool.map(lambda arguments: decode(*arguments), found))
                seconds[threads].append(time.perf_counter() - begun)
        return seconds[1][-1] / seconds[2][-1]

    values = repeat(ratio, repeats)
    shown = {f"{threads} threads": microseconds(statistics.median(all_)) for threads, all_ in seconds.items()}
    return Row("decoding on two threads over one", "x", 1.6, True, values, shown)
