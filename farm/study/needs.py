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


def needs_of(
    study: Study, dataset: Dataset, spec: StudySpec, positions: Chosen, *, with_others: bool = True
) -> ReadPlan:
    """Return what the cells on the subjects at ``positions`` read: each from its own first history day, what all look
    at (``with_others``) from the first of these."""
    places = np.arange(len(study.subjects), dtype=np.int32)[positions]
    first_days = dict.fromkeys(_others(dataset, spec), study.first_day(places)) if with_others else {}
    if study.instruments is None:
        first_days |= dict.fromkeys(study.symbols, study.first_day())
    else:
        own = study.round.reads.first_day[:, places].min(axis=0).tolist()
        for place, day in zip(places.tolist(), own, strict=True):
            name = study.subjects[place]
            first_days[name] = min(day, first_days.get(name, day))
    return dataset.read_plan(first_days, spec.run.end_day, study.columns)


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
