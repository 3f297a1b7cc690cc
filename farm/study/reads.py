"""What cells read: first history day, logical read set and sessions digest, from indexes alone.

The read set of an instrument holds the digests of its months, per kind, from its first history day to the end of the
run. History is read in whole calendar months, because a recursive indicator starts at the first session of a month
(domain.md 2.4) and because read sets are made of months. Months before that of the start count in full; the start's own
month counts nothing, since how many of its rows lie before the start is not known from counts. The run may end within a
month. Rows after the end are not read, so of that last month only the rows up to the end are digested; when there are
later ones, those rows are read to do so. Hence rows appended after ``end`` change no key, in the same month or later.

**History classes.** Trials whose needs begin on the same days, for every instrument, read the same: a class of trials
and a subject fix the read. Needs that differ by less than a month's bars mostly share a class, so classes are few.
Source: domain.md 2.6, 3.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from farm.program.template import BarsNeeded
from farm.shard.calendar import Calendar
from farm.shard.dataset import Dataset, Instrument
from farm.shard.index import MonthRows, ShardRows, month_digests
from farm.shard.kinds import STOCK_DAILY, kind_of
from farm.shard.months import MonthTable, month_table
from farm.shard.reader import ColumnLoader, read_rows
from farm.values.arrays import I32, I64, U8
from farm.values.canon import canonical_json, fingerprint
from farm.values.units import first_day_of, iso, month_of

BARS = STOCK_DAILY.name
ACTIONS = ("splits", "dividends")
_EARLIEST = -(2**30)
_NEVER = 2**30
"""First day of what is not looked at."""
_HEX = 64


@dataclass(frozen=True, eq=False)
class ReadTable:
    """What the cells of each history class read on each of s subjects.

    bars:      int64 (s,), own bars in the run window.
    rows:      int64 (classes, s), own bars read, history included.
    first_day: int32 (classes, s), first history day of whatever is read.
    read_set:  uint8 (classes, s, 32), digests of the rows read and of the masters of their instruments.
    session:   int32 (classes, s), an index into ``sessions``, uint8 (n, 32): digests of the sessions in what is read.
    """

    bars: I64
    rows: I64
    first_day: I32
    read_set: U8
    session: I32
    sessions: U8

    def digests(
        self, family: str, split: Mapping[str, Any] | None, subjects: Sequence[str], window: tuple[int, int]
    ) -> U8:
        """Return the read digests, uint8 (classes, s, 32): all of a cell's identity that is not its trial's.

        ``subjects``: ids, or one "" for a whole universe; ``window``: first and last day of the run.
        """
        sessions = [row.tobytes().hex().encode() for row in self.sessions]
        hexes, days = self.read_set.tobytes().hex().encode(), [iso(day) for day in window]
        heads = [canonical_json(["read", family, split, subject or None, days])[:-1] + b',"' for subject in subjects]
        digests, at = bytearray(), 0
        for of_class in self.session.tolist():
            for head, number in zip(heads, of_class, strict=True):
                text = head + hexes[at : at + _HEX] + b'","' + sessions[number] + b'"]'
                digests += hashlib.sha256(text).digest()
                at += _HEX
        return np.frombuffer(bytes(digests), np.uint8).reshape(self.read_set.shape)


class Reads:
    """Read sets of the instruments ``names`` of one dataset, up to one ``end_day``; each is found once."""

    def __init__(
        self, dataset: Dataset, cache: ColumnLoader, names: Iterable[str], start_day: int, end_day: int
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._start_day = start_day
        self._end_day = end_day
        ids = tuple(names)
        self._tables: dict[str, MonthTable] = {}
        for kind in (BARS, *ACTIONS):
            indexes, _ = dataset.indexes(kind_of(kind), _EARLIEST, end_day)
            self._tables[kind] = month_table(indexes, ids)
        self._texts: dict[str, tuple[list[tuple[str, I32, str]], str]] = {}
        self._digests: dict[tuple[str, int], str] = {}
        self._part: dict[tuple[str, str], tuple[int, int | None]] = {}

    def bars(self, instrument_id: str) -> int:
        """Return the instrument's bars in the run window; exact when it is 0, else at most a month off at each end.

        The count estimates work; whether there is any decides the verdict ``no_data``.
        """
        table, own = self._tables[BARS], self._tables[BARS].of[instrument_id]
        first, last = table.first_day[own], table.last_day[own]
        inside = (last >= self._start_day) & (first <= self._end_day)
        if inside.sum() == 1 and first[inside][0] < self._start_day and last[inside][0] > self._end_day:
            # Both ends lie inside one month: only the rows themselves tell whether one is between.
            rows = read_rows(self._dataset, self._cache, BARS, instrument_id, self._start_day, self._end_day, ())
            return len(rows)
        return int(table.rows[own][inside].sum())

    def first_days(self, instrument_id: str, bars: I64) -> I32:
        """Return the first day to read of an instrument, same shape, for so many ``bars`` before the run: the start
        itself for none, else a first of a month. Where too few rows are there, reading begins with the first."""
        table, own = self._tables[BARS], self._tables[BARS].of[instrument_id]
        of_start = month_of(self._start_day)
        months, rows = table.month[own], table.rows[own]
        is_before = months < of_start
        months, held = months[is_before][::-1], np.cumsum(rows[is_before][::-1])
        days = np.array([first_day_of(month) for month in months.tolist()] or [first_day_of(of_start)], np.int32)
        found: I32 = days[np.minimum(np.searchsorted(held, bars), len(days) - 1)]
        return np.where(bars > 0, found, np.int32(self._start_day))

    def rows(self, instrument_id: str, first_days: I32) -> I64:
        """Return about how many bars are read from each of ``first_days`` on, same shape."""
        table, own = self._tables[BARS], self._tables[BARS].of[instrument_id]
        begun = int((table.first_day[own] <= self._end_day).sum())
        last, rows = table.last_day[own][:begun], table.rows[own][:begun]
        left = np.append(np.cumsum(rows[::-1])[::-1], 0)
        found: I64 = left[np.searchsorted(last, first_days)]
        return found

    def extent(self, instrument_id: str) -> tuple[int, int | None, int | None]:
        """Return how many bars the instrument has up to the end of the run, history included, and the days of the first
        and the last of them; exact."""
        self._text(instrument_id)
        table, own = self._tables[BARS], self._tables[BARS].of[instrument_id]
        first, last, held = table.first_day[own], table.last_day[own], table.rows[own]
        if not len(first) or first[0] > self._end_day:
            return 0, None, None
        whole = int((last <= self._end_day).sum())
        rows, last_day = self._part.get((BARS, instrument_id), (0, int(last[whole - 1]) if whole else None))
        return int(held[:whole].sum()) + rows, int(first[0]), last_day

    def bars_from(self, instrument_id: str, first_day: int, own: Calendar) -> int:
        """Return how many bars the instrument has from ``first_day`` to the end of the run; exact.

        Only a month that begins before ``first_day`` and lacks a session of ``own``, its calendar, has to be read.
        """
        bars, _, _ = self.extent(instrument_id)
        table, members = self._tables[BARS], self._tables[BARS].of[instrument_id]
        months = (table.first_day[members], table.last_day[members], table.rows[members])
        for first, last, rows in zip(*(column.tolist() for column in months), strict=True):
            if first >= first_day:
                break
            if last < first_day:
                bars -= rows
            elif rows == own.session_count(first, last):
                bars -= own.session_count(first, first_day - 1)
            else:
                early = (first, first_day - 1)
                bars -= len(read_rows(self._dataset, self._cache, BARS, instrument_id, *early, ()))
        return bars

    def digest(self, instrument_id: str, first_day: int) -> str:
        """Return the digest, hex, of what is read of an instrument: bars, actions, and its row in the master."""
        found = self._digests.get((instrument_id, first_day))
        if found is None:
            kinds, master = self._text(instrument_id)
            named = [("master", f'"{master}"')]
            for kind, last, texts in kinds:
                named.append((kind, texts[(_HEX + 3) * int(np.searchsorted(last, first_day)) : -1]))
            text = "{" + ",".join(f'"{kind}":[{digests}]' for kind, digests in sorted(named)) + "}"
            found = self._digests[instrument_id, first_day] = hashlib.sha256(text.encode()).hexdigest()
        return found

    def _text(self, instrument_id: str) -> tuple[list[tuple[str, I32, str]], str]:
        """Return, per kind, the last day of each month that begins before the end of the run, and their digests as JSON
        texts with a comma after each; and the digest of the master."""
        found = self._texts.get(instrument_id)
        if found is None:
            kinds = [(kind, *self._month_texts(kind, instrument_id)) for kind in (BARS, *ACTIONS)]
            master = _master_digest(self._dataset.instruments()[instrument_id], self._end_day)
            found = self._texts[instrument_id] = kinds, master
        return found

    def _month_texts(self, kind: str, instrument_id: str) -> tuple[I32, str]:
        table, own = self._tables[kind], self._tables[kind].of[instrument_id]
        first, last = table.first_day[own], table.last_day[own]
        whole, begun = int((last <= self._end_day).sum()), int((first <= self._end_day).sum())
        hexes = table.hexes
        texts = [f'"{hexes[_HEX * at : _HEX * (at + 1)]}",' for at in range(own.start, own.start + whole)]
        if begun > whole:
            month = int(table.month[own][whole]), int(table.rows[own][whole]), int(first[whole]), int(last[whole])
            texts.append(f'"{self._part_digest(kind, instrument_id, MonthRows(*month, ""))}",')
        return last[:begun], "".join(texts)

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


@dataclass(frozen=True)
class Looked:
    """What the trials of a study look at, by id. ``subjects``: the instruments that each subject trades; ``syms``: what
    expressions name, in the order of ``BarsNeeded.syms``; ``benchmarks``: that of the run, or none."""

    subjects: tuple[tuple[str, ...], ...]
    syms: tuple[str, ...]
    benchmarks: tuple[str, ...]


def read_table(
    reads: Reads, history: BarsNeeded, looked: Looked, calendar: Calendar, end_day: int
) -> tuple[I32, ReadTable]:
    """Return the history class of each trial, int32 (t,), and what the classes read.

    Classes are numbered by what they need, fewer bars of the universe first; no two read the same.
    """
    traded = list(dict.fromkeys(name for subject in looked.subjects for name in subject))
    classes, own_days, others = _classes(reads, history, looked, traded)
    place = {name: at for at, name in enumerate(traded)}
    own_rows = np.stack([reads.rows(name, own_days[:, at]) for at, name in enumerate(traded)], axis=1)
    rows: list[list[int]] = []
    first_day: list[list[int]] = []
    sets: dict[tuple[bytes, ...], int] = {}
    same = []
    for days_of, rows_of, other in zip(own_days.tolist(), own_rows.tolist(), others, strict=True):
        counts, days, digests = [], [], []
        for subject in looked.subjects:
            first, count = dict(other), 0
            for name in subject:
                day = days_of[place[name]]
                first[name] = min(day, other.get(name, day))
                count += rows_of[place[name]] if first[name] == day else _rows(reads, name, first[name])
            counts.append(count)
            days.append(min(first.values()))
            digests.append(bytes.fromhex(fingerprint({name: reads.digest(name, day) for name, day in first.items()})))
        known = len(sets)
        same.append(sets.setdefault((*digests, repr(days).encode()), known))
        if len(sets) > known:
            rows.append(counts)
            first_day.append(days)
    read_set = b"".join(digest for found in sets for digest in found[:-1])
    session_days, session = np.unique(np.array(first_day, np.int32), return_inverse=True)
    sessions = b"".join(bytes.fromhex(calendar.digest(day, end_day)) for day in session_days.tolist())
    shape = len(rows), len(looked.subjects)
    return np.array(same, np.int32)[classes], ReadTable(
        bars=np.array([sum(map(reads.bars, subject)) for subject in looked.subjects], np.int64),
        rows=np.array(rows, np.int64),
        first_day=np.array(first_day, np.int32),
        read_set=np.frombuffer(read_set, np.uint8).reshape(*shape, 32),
        session=session.reshape(shape).astype(np.int32),
        sessions=np.frombuffer(sessions, np.uint8).reshape(-1, 32),
    )


def _classes(
    reads: Reads, history: BarsNeeded, looked: Looked, traded: Sequence[str]
) -> tuple[I64, I32, list[dict[str, int]]]:
    """Return a class per trial, (t,); of each class the first days of what is traded, (classes, traded), and of what
    else is looked at, by id."""
    own_class, own_days = _collapsed(history.bars, lambda bars: [reads.first_days(name, bars) for name in traded])
    codes, sizes, sym_days = own_class.astype(np.int64), [len(own_days)], []
    for name, bars in zip(looked.syms, history.syms.values(), strict=True):
        sym_class, days = _collapsed(bars, partial(_sym_days, reads, name))
        codes = codes * len(days) + sym_class
        sizes.append(len(days))
        sym_days.append(days[:, 0].tolist())
    found = np.unique(codes) if sym_days else np.arange(len(own_days))
    own, *of_syms = np.unravel_index(found, sizes)
    always = [(name, int(reads.first_days(name, np.ones(1, np.int64))[0])) for name in looked.benchmarks]
    others = []
    for numbers in zip(*(places.tolist() for places in of_syms), strict=True) if of_syms else [()] * len(found):
        first: dict[str, int] = {}
        looks = zip(looked.syms, (days[at] for days, at in zip(sym_days, numbers, strict=True)), strict=True)
        for name, day in [*(look for look in looks if look[1] != _NEVER), *always]:
            first[name] = min(day, first.get(name, day))
        others.append(first)
    return np.searchsorted(found, codes), own_days[own], others


def _collapsed(bars: I64, first_days: Callable[[I64], list[I32]]) -> tuple[I32, I32]:
    """Return the class of each trial's need of ``bars``, (t,), and the first days of the classes, (classes, n): needs
    that begin on the same days are one."""
    needs = np.flatnonzero(np.bincount(bars))
    days = np.stack(first_days(needs), axis=1)
    is_new = np.ones(len(needs), np.bool_)
    is_new[1:] = (days[1:] != days[:-1]).any(axis=1)
    number = np.zeros(int(needs[-1]) + 1, np.int32)
    number[needs] = np.cumsum(is_new) - 1
    return number[bars], days[is_new]


def _sym_days(reads: Reads, name: str, bars: I64) -> list[I32]:
    """Return the first days of a fixed instrument; a trial that needs no bar of it does not look at it."""
    return [np.where(bars > 0, reads.first_days(name, bars), _NEVER).astype(np.int32)]


def _rows(reads: Reads, name: str, first_day: int) -> int:
    return int(reads.rows(name, np.array([first_day], np.int32))[0])


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
