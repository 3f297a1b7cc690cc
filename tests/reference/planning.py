"""Planning cell by cell: every trial resolved and compiled, every read set and key worked out alone.

The same answers as ``farm.study`` gives from axes, written so that they can be checked by eye: domain.md 2.6, 3.7.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from farm.program.program import Program
from farm.shard.dataset import Dataset
from farm.shard.index import MonthRows, ShardRows, month_digests
from farm.shard.kinds import kind_of
from farm.shard.reader import read_rows
from farm.spec.params import grid_values
from farm.spec.resolve import Resolver, template
from farm.spec.spec import StudySpec
from farm.values.canon import canonical_json, fingerprint
from farm.values.units import iso
from tests.reference.constraints import constraints_hold
from tests.reference.history import history_first_day
from tests.reference.program import compile_trial

BARS, KINDS = "stock_daily", ("stock_daily", "splits", "dividends")


@dataclass(frozen=True)
class PlainCell:
    """A cell with all that planning finds of it; ``instrument`` None for the whole universe."""

    params: Mapping[str, Any]
    instrument: str | None
    bars: int
    rows: int
    first_day: int
    read_set: str
    sessions: str
    trial_digest: bytes
    read_digest: bytes

    @property
    def key(self) -> bytes:
        return hashlib.sha256(self.read_digest + self.trial_digest).digest()


def plain_trials(spec: StudySpec) -> tuple[list[dict[str, Any]], int, int]:
    """Return the trials in order, and how many points of the grid are duplicates and excluded."""
    params = spec.strategy.params
    names = sorted(params)
    points = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(grid_values(params[name], name) for name in names))
    ]
    kept = [point for point in points if constraints_hold(spec.strategy.constraints, point)]
    trials: dict[bytes, dict[str, Any]] = {}
    for point in kept:
        trials.setdefault(trial_digest(spec, point), point)
    return list(trials.values()), len(kept) - len(trials), len(points) - len(kept)


def trial_digest(spec: StudySpec, params: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of the canonical JSON of the parameters that the template says."""
    text = canonical_json(spec.strategy.template).decode()
    used = {name: value for name, value in params.items() if f'"${name}"' in text}
    return hashlib.sha256(canonical_json(used)).digest()


def plain_cells(spec: StudySpec, dataset: Dataset, cache: Any) -> list[PlainCell]:
    """Return the cells in the order trial, instrument."""
    resolver, instruments = Resolver(spec), _instruments(spec, dataset)
    found = []
    for params in plain_trials(spec)[0]:
        program = compile_trial(resolver.trial(params))
        for instrument in instruments:
            found.append(_cell(spec, dataset, cache, program, params, instrument))
    return found


def _instruments(spec: StudySpec, dataset: Dataset) -> Sequence[str | None]:
    if spec.each is None:
        return (None,)
    [universe] = [one for one in spec.strategy.universes if one.id == spec.each]
    return sorted({dataset.resolve(ticker, "") for ticker in universe.tickers}, key=str.encode)


def _cell(
    spec: StudySpec, dataset: Dataset, cache: Any, program: Program, params: Mapping[str, Any], instrument: str | None
) -> PlainCell:
    run = spec.run
    if instrument is not None:
        program = program.on(dataset.instruments()[instrument].symbol)
    traded = {ticker for sleeve in program.sleeves for ticker in sleeve.universe}
    first_days: dict[str, int] = {}
    for ticker in traded | set(program.syms):
        name = dataset.resolve(ticker, "")
        day = history_first_day(program, dataset.months(BARS, name), ticker)
        first_days[name] = min(day, first_days.get(name, day))
    if run.benchmark:
        name = dataset.resolve(run.benchmark, "")
        alone = replace(program.on(run.benchmark), history_bars=1, sym_history={})
        day = history_first_day(alone, dataset.months(BARS, name), run.benchmark)
        first_days[name] = min(day, first_days.get(name, day))
    own = sorted({dataset.resolve(ticker, "") for ticker in traded})
    first_day = min(first_days.values())
    read_set = fingerprint({name: _digest(dataset, cache, name, day, run.end_day) for name, day in first_days.items()})
    sessions = dataset.calendar(run.calendar).digest(first_day, run.end_day)
    split = spec.study.split if spec.study else None
    said = None if split is None else {"mode": split.mode, "is": split.in_sample, "embargo": split.embargo}
    parts = ["read", template(spec).hash, said, instrument, [iso(run.start_day), iso(run.end_day)], read_set, sessions]
    return PlainCell(
        params=params,
        instrument=instrument,
        bars=sum(len(read_rows(dataset, cache, BARS, name, run.start_day, run.end_day, ())) for name in own),
        rows=sum(_rows(dataset, name, first_days[name], run.end_day) for name in own),
        first_day=first_day,
        read_set=read_set,
        sessions=sessions,
        trial_digest=trial_digest(spec, params),
        read_digest=hashlib.sha256(canonical_json(parts)).digest(),
    )


def _rows(dataset: Dataset, name: str, first_day: int, end_day: int) -> int:
    """Return the bars of the months that the read touches."""
    months = dataset.months(BARS, name)
    return sum(month.rows for month in months if month.last_day >= first_day and month.first_day <= end_day)


def _digest(dataset: Dataset, cache: Any, name: str, first_day: int, end_day: int) -> str:
    """Return the digest of what is read of an instrument: per kind its months, and its row of the master."""
    kinds: dict[str, list[str]] = {}
    for kind in KINDS:
        months = [month for month in dataset.months(kind, name) if month.first_day <= end_day]
        kinds[kind] = [
            month.digest if month.last_day <= end_day else _part(dataset, cache, kind, name, month, end_day)
            for month in months
            if min(month.last_day, end_day) >= first_day
        ]
    one = dataset.instruments()[name]
    is_gone = one.delisted_day is not None and one.delisted_day <= end_day
    master = {
        "id": one.id,
        "type": one.type,
        "calendar": one.calendar,
        "currency": one.currency,
        "lot_micro": one.lot_micro,
        "multiplier": one.multiplier,
        "delisted_day": one.delisted_day if is_gone else None,
        "delisting_value": one.delisting_value if is_gone else None,
    }
    return fingerprint(kinds | {"master": [fingerprint(master)]})


def _part(dataset: Dataset, cache: Any, kind: str, name: str, month: MonthRows, end_day: int) -> str:
    """Return the digest of a month's rows up to ``end_day``."""
    entry = kind_of(kind)
    names = [column.name for column in entry.columns if column.logical and column.name in entry.cacheable]
    rows = read_rows(dataset, cache, kind, name, month.first_day, end_day, names)
    scales = np.array([rows.scale], np.int8)
    [found] = month_digests(ShardRows(entry, (name,), np.zeros(len(rows), np.int32), scales, rows.columns))
    return found[-1].hex()
