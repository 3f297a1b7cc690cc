"""Datasets written shard by shard, without the ingest that would refuse some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from farm.shard.calendar import Calendar, calendar_to_bytes
from farm.shard.dataset import Dataset
from farm.shard.index import ShardRows
from farm.shard.kinds import DIVIDENDS, INSTRUMENTS, SPLITS, STOCK_DAILY, Kind
from farm.shard.layout import calendar_key, index_key
from farm.shard.snapshot import CalendarRef, ShardRef, make_snapshot
from farm.shard.writer import write_shard
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.values.canon import sha256_hex
from farm.values.units import NS_PER_DAY, NS_PER_HOUR

FIRST = 14_600
"""The first day of a world (2009-12-22): its bars lie in two decades."""
DAYS = 40
NAMES = ("A", "AA", "B", "Z9", "a")
Row = tuple[Any, ...]


def calendar(name: str, days: np.ndarray, hour: int) -> Calendar:
    """Sessions of these days, of six hours."""
    opens = days.astype(np.int64) * NS_PER_DAY + hour * NS_PER_HOUR
    return Calendar(name, days.astype(np.int32), opens, opens + 6 * NS_PER_HOUR, (FIRST - 400, FIRST + 400))


def put_shard(store: Store, kind: Kind, span: str, symbols: Mapping[str, list[Row]], scale: Mapping[str, int],
              group_rows: int) -> ShardRef:  # fmt: skip
    """Write rows by symbol as one shard; each row has the columns of the kind after the symbol."""
    names = tuple(sorted(name for name in symbols if symbols[name]))
    rows = [row for name in names for row in sorted(symbols[name], key=lambda row: row[0])]
    code = np.repeat(np.arange(len(names), dtype=np.int32), [len(symbols[name]) for name in names])
    columns: dict[str, Any] = {}
    for at, column in enumerate(kind.columns[1:]):
        values = [row[at] for row in rows]
        columns[column.name] = pa.array(values, pa.string()) if column.type == "utf8" else np.array(values, column.type)
    shard = ShardRows(kind, names, code, np.array([scale.get(name, 0) for name in names], np.int8), columns)
    data, index, ref = write_shard(shard, span, row_group_rows=group_rows)
    store.put(ref.key, data)
    store.put(index_key(ref.index_sha256), index)
    return ref


def dataset(store: Store, refs: list[ShardRef], calendars: list[Calendar]) -> Dataset:
    """Return the dataset of these shards."""
    named = {}
    for one in calendars:
        data = calendar_to_bytes(one)
        store.put(calendar_key(sha256_hex(data)), data)
        named[one.name] = CalendarRef(sha256_hex(data), len(data))
    return Dataset(store, make_snapshot("main", tuple(refs), named))


class World:
    """Instruments with bars, splits and dividends, spread over shards that may interleave, drawn from a seed.

    ``faults``: how many instruments have something wrong that the loader must name.
    """

    def __init__(self, seed: int, faults: int = 0) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.store = MemoryStore()
        self.names = sorted(rng.choice(NAMES, int(rng.integers(1, len(NAMES) + 1)), replace=False).tolist())
        days = FIRST + np.sort(rng.choice(DAYS, int(rng.integers(20, DAYS + 1)), replace=False))
        hour = int(rng.choice([0, 16, 20]))  # before the others, around their close, or with it
        self.calendars = [calendar("XNYS", days, 14), calendar("XTKS", days[rng.random(days.size) > 0.2], hour)]
        self.of = {name: int(rng.integers(0, 5) == 0) for name in self.names}
        wrong = set(rng.choice(self.names, min(faults, len(self.names)), replace=False).tolist())
        refs = [self._master()]
        for kind in (STOCK_DAILY, SPLITS, DIVIDENDS):
            refs += self._shards(kind, wrong)
        self.dataset = dataset(self.store, refs, self.calendars)

    def _master(self) -> ShardRef:
        rows = {
            name: [(name.lower() + "x", "stock", self.calendars[self.of[name]].name, "USD", 2, 10**6, 1,
                    0, 0, 0, 0, 0, 0)]
            for name in self.names
        }  # fmt: skip
        return put_shard(self.store, INSTRUMENTS, "all", rows, {}, 10)

    def _shards(self, kind: Kind, wrong: set[str]) -> list[ShardRef]:
        rng = self.rng
        parts = int(rng.integers(1, 4))
        interleave = rng.random() < 0.5
        refs = []
        found: list[dict[str, list[Row]]] = [{} for _ in range(parts)]
        scales = [{name: int(rng.integers(0, 9 if rng.random() < 0.3 else 4)) for name in self.names}
                  for _ in range(parts)]  # fmt: skip
        for name in self.names:
            sessions = self.calendars[self.of[name]].day
            share = {STOCK_DAILY: 0.9, SPLITS: 0.08, DIVIDENDS: 0.15}[kind]
            days = sessions if kind is STOCK_DAILY else np.arange(FIRST - 3, FIRST + DAYS + 3)
            days = days[rng.random(days.size) < (0.0 if rng.random() < 0.1 else share)]
            part_of = (
                rng.integers(0, parts, days.size) if interleave else np.arange(days.size) * parts // max(1, days.size)
            )
            for day, part in zip(days.tolist(), part_of.tolist(), strict=True):
                found[part].setdefault(name, []).append(self._row(kind, day, scales[part][name]))
            if name in wrong and rng.random() < 0.5:
                self._spoil(kind, name, found, scales)
        for part, rows in enumerate(found):
            for span in ("2000s", "2010s") if kind.span == "decade" else ("all",):
                mine = {name: [row for row in some if kind.span_of(row[0]) == span] for name, some in rows.items()}
                if any(mine.values()):
                    refs.append(put_shard(self.store, kind, span, mine, scales[part], int(rng.integers(1, 30))))
        return refs

    def _row(self, kind: Kind, day: int, scale: int) -> Row:
        rng = self.rng
        if kind is STOCK_DAILY:
            # Often coarser than the scale says, so that fewer decimals hold them.
            grain = 10 ** int(rng.integers(0, scale + 1)) if rng.random() < 0.5 else 1
            low, opened, close, high = (
                np.sort(rng.integers(500 * 10**scale // grain, 2_000 * 10**scale // grain, 4)) * grain
            )
            return day, int(opened), int(high), int(low), int(close), int(rng.integers(0, 10**9))
        if kind is SPLITS:
            large = 2**61 if rng.random() < 0.05 else 60
            num, den = (int(one) for one in rng.integers(1, large, 2))
            return day, num, den + (num == den), "test"
        has_pay = int(rng.integers(0, 2))
        return (
            day,
            int(rng.integers(1, 5 * 10**scale)),
            (day + int(rng.integers(-5, 20))) * has_pay,
            has_pay,
            0,
            0,
            "test",
        )

    def _spoil(self, kind: Kind, name: str, found: list[dict[str, list[Row]]], scales: list[dict[str, int]]) -> None:
        """Make a day of ``name`` that two shards have, or one without a session, or a dividend of a whole price."""
        mine = [row for part in found for row in part.get(name, [])]
        if not mine:
            return
        row = mine[int(self.rng.integers(len(mine)))]
        if kind is DIVIDENDS and self.rng.random() < 0.5:
            at = next(part for part in found if row in part.get(name, []))
            at[name][at[name].index(row)] = (row[0], 10**12, *row[2:])
        elif kind is STOCK_DAILY and self.rng.random() < 0.5:
            taken = {one[0] for one in mine} | set(self.calendars[self.of[name]].day.tolist())
            free = [day for day in range(FIRST, FIRST + DAYS) if day not in taken]
            if free:
                found[0].setdefault(name, []).append(self._row(kind, free[0], scales[0][name]))
        else:
            for part in found:
                if all(one[0] != row[0] for one in part.get(name, [])):
                    part.setdefault(name, []).append(row)
                    break
