"""What cells read, in bytes: read plans of some subjects, and the bytes per shard of each strip of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from farm.shard.dataset import Dataset
from farm.shard.plan import ReadPlan
from farm.spec.resolve import fixed_tickers
from farm.spec.spec import StudySpec
from farm.spec.table import Chosen
from farm.study.instruments import ticker_place
from farm.study.trials import Study
from farm.values.arrays import I32


def needs_of(study: Study, dataset: Dataset, spec: StudySpec, positions: Chosen) -> ReadPlan:
    """Return what the cells on the subjects at ``positions`` read."""
    places = np.arange(len(study.subjects), dtype=np.int32)[positions]
    own = [study.subjects[place] for place in places.tolist()] if study.instruments is not None else list(study.symbols)
    names = {*own, *_others(dataset, spec)}
    return dataset.read_plan(dict.fromkeys(names, study.first_day(places)), spec.run.end_day, study.columns)


def strip_needs(study: Study, dataset: Dataset, spec: StudySpec) -> Callable[[I32], Mapping[str, int]]:
    """Return a function from the positions of some subjects to the bytes that their cells read, per shard.

    It is asked once per strip: each takes its part of one plan for all subjects. Instruments that every subject looks
    at count from the first day that any trial reads.
    """
    others = sorted(study.symbols) if study.instruments is None else sorted(_others(dataset, spec))
    subjects = () if study.instruments is None else study.subjects
    since = dict(zip(subjects, study.round.reads.first_day.min(axis=0).tolist(), strict=False))
    since |= dict.fromkeys(others, study.first_day())
    plan = dataset.read_plan(since, spec.run.end_day, study.columns)
    place = {name: at for at, name in enumerate(plan.ids)}
    own = np.array([place[name] for name in subjects], np.intp)
    always = np.array([place[name] for name in others], np.intp)

    def needs(chosen: I32) -> Mapping[str, int]:
        places = np.append(own[chosen] if own.size else own, always)
        return dict(sorted(plan.take(places).by_shard().items()))

    return needs


def _others(dataset: Dataset, spec: StudySpec) -> set[str]:
    """Return the instruments that every subject looks at: those that expressions name, and the benchmark."""
    others = {dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in fixed_tickers(spec)}
    return others | ({dataset.resolve(spec.run.benchmark, "run.benchmark")} if spec.run.benchmark else set())
