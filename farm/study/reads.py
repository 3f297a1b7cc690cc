"""What cells read: first history day, logical read set and sessions digest, from indexes alone.

The read set of an instrument holds the digests of its months, per kind, from its first history day to the end of the
run. History begins with a whole month; the run may end within one. Rows after the end are not read, so of that last
month only the rows up to the end are digested; when there are later ones, those rows are read to do so. Hence rows
appended after ``end`` change no key, in the same month or later. Source: domain.md 3.7.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from farm.shard.calendar import Calendar
from farm.shard.dataset import Dataset, Instrument
from farm.shard.index import MonthRows, ShardRows, month_digests
from farm.shard.kinds import STOCK_DAILY, kind_of
from farm.shard.reader import ColumnLoader, read_rows
from farm.values.canon import fingerprint

BARS = STOCK_DAILY.name
ACTIONS = ("splits", "dividends")

ReadSet = Mapping[str, tuple[str, ...]]
"""Kind, or "master" -> digests, in time order."""


class Reads:
    """Read sets of one dataset up to one ``end_day``; each is found once. Safe for many threads."""

    def __init__(self, dataset: Dataset, cache: ColumnLoader, start_day: int, end_day: int) -> None:
        self._dataset = dataset
        self._cache = cache
        self._start_day = start_day
        self._end_day = end_day
        self._lock = threading.Lock()
        self._digests: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self._instruments: dict[tuple[str, int], str] = {}
        self._part: dict[tuple[str, str], tuple[int, int | None]] = {}

    def months(self, instrument_id: str) -> list[MonthRows]:
        """Return the months in which the instrument has bars, in time order."""
        return self._dataset.months(BARS, instrument_id)

    def bars(self, instrument_id: str) -> int:
        """Return the instrument's bars in the run window; exact when it is 0, else at most a month off at each end.

        The count estimates work; whether there is any decides the verdict ``no_data``.
        """
        months = [
            month for month in self.months(instrument_id)
            if month.last_day >= self._start_day and month.first_day <= self._end_day
        ]  # fmt: skip
        if len(months) == 1 and (months[0].first_day < self._start_day and months[0].last_day > self._end_day):
            # Both ends lie inside one month: only the rows themselves tell whether one is between.
            rows = read_rows(self._dataset, self._cache, BARS, instrument_id, self._start_day, self._end_day, ())
            return len(rows)
        return sum(month.rows for month in months)

    def rows(self, instrument_id: str, first_day: int) -> int:
        """Return about how many bars are read from ``first_day`` on."""
        months = self.months(instrument_id)
        return sum(month.rows for month in months if month.last_day >= first_day and month.first_day <= self._end_day)

    def extent(self, instrument_id: str) -> tuple[int, int | None, int | None]:
        """Return how many bars the instrument has up to the end of the run, history included, and the days of the first
        and the last of them; exact."""
        self._months_digests(BARS, instrument_id)
        months = [month for month in self.months(instrument_id) if month.first_day <= self._end_day]
        if not months:
            return 0, None, None
        whole = [month for month in months if month.last_day <= self._end_day]
        rows, last_day = self._part.get((BARS, instrument_id), (0, whole[-1].last_day if whole else None))
        return sum(month.rows for month in whole) + rows, months[0].first_day, last_day

    def bars_from(self, instrument_id: str, first_day: int, own: Calendar) -> int:
        """Return how many bars the instrument has from ``first_day`` to the end of the run; exact.

        Only a month that begins before ``first_day`` and lacks a session of ``own``, its calendar, has to be read.
        """
        bars, _, _ = self.extent(instrument_id)
        for month in self.months(instrument_id):
            if month.first_day >= first_day:
                break
            if month.last_day < first_day:
                bars -= month.rows
            elif month.rows == own.session_count(month.first_day, month.last_day):
                bars -= own.session_count(month.first_day, first_day - 1)
            else:
                early = (month.first_day, first_day - 1)
                bars -= len(read_rows(self._dataset, self._cache, BARS, instrument_id, *early, ()))
        return bars

    def read_set(self, instrument_id: str, first_day: int) -> ReadSet:
        """Return the digests of what is read of an instrument: bars, actions, and its row in the master."""
        kinds = {
            kind: tuple(digest for last, digest in self._months_digests(kind, instrument_id) if last >= first_day)
            for kind in (BARS, *ACTIONS)
        }
        return kinds | {"master": (_master_digest(self._dataset.instruments()[instrument_id], self._end_day),)}

    def digest(self, first_days: Mapping[str, int]) -> str:
        """Return the digest of a read set: instrument id -> first day read."""
        return fingerprint({name: self._instrument_digest(name, first_day) for name, first_day in first_days.items()})

    def _instrument_digest(self, instrument_id: str, first_day: int) -> str:
        key = (instrument_id, first_day)
        found = self._instruments.get(key)
        if found is None:
            found = fingerprint(
                {kind: list(months) for kind, months in self.read_set(instrument_id, first_day).items()}
            )
            self._instruments[key] = found
        return found

    def _months_digests(self, kind: str, instrument_id: str) -> list[tuple[int, str]]:
        """Return (last day, digest) per month up to the end of the run."""
        with self._lock:
            found = self._digests.get((kind, instrument_id))
        if found is not None:
            return found
        found = []
        for month in self._dataset.months(kind, instrument_id):
            if month.last_day <= self._end_day:
                found.append((month.last_day, month.digest))
            elif month.first_day <= self._end_day:
                found.append((self._end_day, self._part_digest(kind, instrument_id, month)))
        with self._lock:
            return self._digests.setdefault((kind, instrument_id), found)

    def _part_digest(self, kind: str, instrument_id: str, month: MonthRows) -> str:
        """Return the digest that ``month`` would have without its rows after the end."""
        entry = kind_of(kind)
        names = [column.name for column in entry.columns if column.logical and column.name in entry.cacheable]
        rows = read_rows(
            self._dataset, self._cache, kind, instrument_id, month.first_day, self._end_day, names
        )  # fmt: skip
        self._part[kind, instrument_id] = len(rows), int(rows[entry.time_column or ""][-1])
        scales = np.array([rows.scale], np.int8)
        part = ShardRows(entry, (instrument_id,), np.zeros(len(rows), np.int32), scales, rows.columns)
        [(_, _, _, _, _, digest)] = month_digests(part)
        return digest.hex()


def _master_digest(instrument: Instrument, end_day: int) -> str:
    """Return the digest of what a run may know of an instrument: a delisting after its end is not known yet."""
    is_delisted = instrument.delisted_day is not None and instrument.delisted_day <= end_day
    return fingerprint(
        {
            "id": instrument.id,
            "type": instrument.type,
            "calendar": instrument.calendar,
            "currency": instrument.currency,
            "lot_micro": instrument.lot_micro,
            "multiplier": instrument.multiplier,
            "delisted_day": instrument.delisted_day if is_delisted else None,
            "delisting_value": instrument.delisting_value if is_delisted else None,
        }
    )
