"""The study part: who is run one by one, the search, the split, the objective; every default written in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.spec import grammar
from farm.spec.params import grid_values
from farm.spec.parse_run import FRACTION_HINT
from farm.spec.reader import Reader, join, near, not_built, one_of, show
from farm.spec.spec import JsonObject, Objective, Param, Split, StudyOptions, Universe
from farm.values.errors import SpecError
from farm.values.metrics import BUCKETS, METRIC_NAMES

EMBARGO_MAX = 1_000_000


def parse_study(
    reader: Reader, value: Any, place: str, universes: Mapping[str, Universe], params: Mapping[str, Param]
) -> StudyOptions:
    """Return the checked options. An absent search is a grid; an absent objective ranks nothing."""
    reader.object(value, place, grammar.STUDY, unbuilt=grammar.STUDY_NOT_BUILT)
    _prune(reader, value.get("prune", {}), join(place, "prune"))
    split = _split(reader, value["split"], join(place, "split")) if "split" in value else None
    return StudyOptions(
        each=_each(reader, value["each"], join(place, "each"), universes) if "each" in value else None,
        search=_search(reader, value.get("search", {"grid": {}}), join(place, "search"), params),
        split=split,
        objective=_objective(reader, value["objective"], join(place, "objective"), split)
        if "objective" in value
        else None,
        seed=reader.integer(value.get("seed", 0), join(place, "seed"), least=0),
        metrics=_metrics(reader, value["metrics"], join(place, "metrics")) if "metrics" in value else None,
        proof=reader.word(value["proof"], join(place, "proof"), grammar.PROOFS) if "proof" in value else None,
    )


def study_document(options: StudyOptions) -> JsonObject:
    """Return the options as JSON, all defaults in: the form that a study's identity is hashed from."""
    split, objective = options.split, options.objective
    document: JsonObject = {"search": dict(options.search), "seed": options.seed}
    if options.each is not None:
        document["each"] = {"instrument": options.each}
    if split is not None:
        document["split"] = {"mode": split.mode, "is": split.in_sample, "embargo": split.embargo}
    if objective is not None:
        document["objective"] = {objective.direction: objective.metric, "on": objective.on, "over": objective.over}
    if options.metrics is not None:
        document["metrics"] = list(options.metrics)
    if options.proof is not None:
        document["proof"] = options.proof
    return document


def _each(reader: Reader, value: Any, place: str, universes: Mapping[str, Universe]) -> str:
    reader.object(value, place, ("instrument",), required=("instrument",))
    where = join(place, "instrument")
    name = reader.text(value["instrument"], where, "the id of a universe")
    if name not in universes:
        raise SpecError(f"no universe {name!r}", place=where, allowed=one_of(universes), hint=near(name, universes))
    return name


def _search(reader: Reader, value: Any, place: str, params: Mapping[str, Param]) -> Mapping[str, Any]:
    reader.object(value, place, grammar.SEARCHES, required=grammar.SEARCHES, unbuilt=grammar.SEARCHES_NOT_BUILT)
    reader.object(value["grid"], join(place, "grid"), ())
    for name, param in params.items():
        grid_values(param, f"strategy.params.{name}")
    return {"grid": {}}


def _split(reader: Reader, value: Any, place: str) -> Split:
    if isinstance(value, dict) and "mode" in value:
        reader.word(value["mode"], join(place, "mode"), grammar.SPLITS, grammar.SPLITS_NOT_BUILT)
    reader.object(value, place, grammar.SPLIT, required=("mode", "is"))
    share = reader.number(value["is"], join(place, "is"), above=0.0, below=1.0, hint=FRACTION_HINT)
    embargo = reader.integer(value.get("embargo", 0), join(place, "embargo"), least=0, most=EMBARGO_MAX)
    return Split(value["mode"], float(share), embargo)


def _objective(reader: Reader, value: Any, place: str, split: Split | None) -> Objective:
    reader.object(value, place, grammar.OBJECTIVE)
    directions = [key for key in ("max", "min") if key in value]
    if len(directions) != 1:
        raise SpecError("exactly one direction", place=place, allowed='{"max": metric} or {"min": metric}')
    direction = directions[0]
    bucket = reader.word(value.get("on", "is" if split else "full"), join(place, "on"), tuple(BUCKETS))
    if bucket != "full" and split is None:
        raise SpecError(f"no split, so there is no bucket {bucket!r}", place=join(place, "on"), allowed="full")
    return Objective(
        direction,
        reader.word(value[direction], join(place, direction), METRIC_NAMES),
        bucket,
        reader.word(value.get("over", "median"), join(place, "over"), grammar.OVERS),
    )


def _metrics(reader: Reader, value: Any, place: str) -> tuple[str, ...]:
    """Return the named metrics in their order; ``"all"`` stands for every one."""
    if value == "all":
        return METRIC_NAMES
    if isinstance(value, str):
        raise SpecError(f"not a list: {show(value)}", place=place, allowed='"all", or a list of metrics')
    named = [
        reader.word(item, f"{place}[{index}]", METRIC_NAMES)
        for index, item in enumerate(reader.items(value, place, least=1))
    ]
    for index, name in enumerate(named):
        if name in named[:index]:
            raise SpecError(f"{show(name)} is listed twice", place=f"{place}[{index}]", hint="remove one of them")
    return tuple(name for name in METRIC_NAMES if name in named)


def _prune(reader: Reader, value: Any, place: str) -> None:
    """Certain pruning without requirements stops nothing, so saying it aloud changes nothing."""
    reader.object(value, place, ("certain",), unbuilt=("heuristic",))
    if reader.flag(value.get("certain", True), join(place, "certain")) is not True:
        raise not_built("pruning switched off", join(place, "certain"), ("true",))
