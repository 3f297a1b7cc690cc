"""What cells read, in bytes: read plans of some subjects, and the bytes per shard of each strip of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from farm.shard.dataset import Dataset
from farm.shard.kinds import kind_of
from farm.shard.plan import ReadPlan, kinds_read, needed_columns
from farm.spec.resolve import fixed_tickers
from farm.spec.spec import StudySpec
from farm.spec.table import Chosen
from farm.study.instruments import ticker_place
from farm.study.trials import Study
from farm.values.arrays import BOOL, I32, I64


def needs_of(study: Study, dataset: Dataset, spec: StudySpec, positions: Chosen) -> ReadPlan:
    """Return what the cells on the subjects at ``positions`` read: each from its own first history day, what all look
    at from the first of these."""
    places = np.arange(len(study.subjects), dtype=np.int32)[positions]
    first_days = dict.fromkeys(_others(dataset, spec), study.first_day(places))
    if study.instruments is None:
        first_days |= dict.fromkeys(study.symbols, study.first_day())
    else:
        own = study.round.reads.first_day.min(axis=0)[places].tolist()
        for place, day in zip(places.tolist(), own, strict=True):
            name = study.subjects[place]
            first_days[name] = min(day, first_days.get(name, day))
    return dataset.read_plan(first_days, spec.run.end_day, study.columns)


def strip_needs(study: Study, dataset: Dataset, spec: StudySpec) -> Callable[[I32], Mapping[str, int]]:
    """Return a function from the positions of some subjects to the bytes that their cells read, per shard.

    It is asked once per strip, so what depends on a subject alone is found here, for all of them at once. Instruments
    that every subject looks at count from the first day that any trial reads.
    """
    positions = range(len(study.subjects))
    others = _others(dataset, spec)
    if study.instruments is None:
        named = [(name, 0) for name in study.symbols]
    else:
        named = [(study.subjects[place], place) for place in positions]
        named += [(name, len(positions)) for name in others]
    first_day = np.append(study.round.reads.first_day.min(axis=0), study.first_day())
    touched: list[BOOL] = []
    sizes: list[I64] = []
    shards: list[str] = []
    of_shard: list[I64] = []
    for kind, columns in kinds_read(study.columns).items():
        entry = kind_of(kind)
        indexes, _ = dataset.indexes(entry, int(first_day.min()), spec.run.end_day)
        chunks = needed_columns(entry, columns)
        for index in indexes:
            groups = len(index.group_rows)
            of_kind = np.zeros((len(positions) + 1, groups), np.bool_)
            codes = [(index.code_of(name), place) for name, place in named]
            for code, place in ((code, place) for code, place in codes if code is not None):
                low, high = np.searchsorted(index.member_symbol, [code, code + 1])
                days = index.member_last_day[low:high] >= first_day[place]
                days &= index.member_first_day[low:high] <= spec.run.end_day
                of_kind[place, index.member_group[low:high][days]] = True
            touched.append(of_kind)
            bytes_of = [sum(index.chunks[group, name].length for name in chunks) for group in range(groups)]
            sizes.append(np.array(bytes_of, np.int64))
            of_shard.append(np.full(groups, len(shards)))
            shards.append(index.ref.sha256)
    reads = np.concatenate([np.empty((len(positions) + 1, 0), np.bool_), *touched], axis=1)
    size, shard = (np.concatenate([np.empty(0, np.int64), *parts]) for parts in (sizes, of_shard))

    def needs(chosen: I32) -> Mapping[str, int]:
        read = reads[chosen].any(axis=0) | reads[-1]
        total = np.bincount(shard[read], size[read], minlength=len(shards)).astype(np.int64).tolist()
        return {name: count for name, count in sorted(zip(shards, total, strict=True)) if count}

    return needs


def _others(dataset: Dataset, spec: StudySpec) -> set[str]:
    """Return the instruments that every subject looks at: those that expressions name, and the benchmark."""
    others = {dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in fixed_tickers(spec)}
    return others | ({dataset.resolve(spec.run.benchmark, "run.benchmark")} if spec.run.benchmark else set())
