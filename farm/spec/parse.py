"""From JSON to a checked spec, or one SpecError with the place, what is allowed there, and a hint.

Rules: the schema is closed; what is known but not built is refused by name; nothing is ignored. Checking happens once,
for all values of all parameters, so that no trial can fail on the spec. The strategy comes out as a *template*: the
resolved form of domain.md 2 with ``$p`` kept (lets inlined, defaults written in, tickers sorted, unused universes
left out). ``resolve`` makes trials of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm.spec import grammar
from farm.spec.constraints import parse_constraint
from farm.spec.params import parse_params
from farm.spec.parse_expr import ExpressionParser
from farm.spec.parse_run import parse_run
from farm.spec.parse_sleeve import SleeveParser, parse_universes
from farm.spec.parse_study import parse_study
from farm.spec.reader import Reader, join, read_document, show
from farm.spec.spec import JsonObject, RunSpec, StrategySpec, StudyOptions, StudySpec, Universe
from farm.values.errors import SpecError


def load_study(source: str | bytes | Path | Mapping[str, Any], *, is_resolved: bool = False) -> StudySpec:
    """Return the checked spec in ``source``: a path, JSON text, or an object that was read already.

    ``is_resolved``: the document is a resolved one, without dataset, study or parameters.
    Errors: SpecError, whose place is a path in the document.
    """
    return _load(read_document(source), is_resolved=is_resolved)


def _load(document: JsonObject, *, is_resolved: bool) -> StudySpec:
    reader = Reader({})
    required = ("spec", "strategy", "run")
    known = required if is_resolved else grammar.TOP
    reader.object(document, "", known, required=required)
    if isinstance(document["spec"], bool) or document["spec"] != grammar.SPEC_VERSION:
        raise SpecError(f"unknown version of the grammar: {show(document['spec'])}", place="spec", allowed="1")
    for key in ("name", "note"):
        if key in document and not isinstance(document[key], str):
            raise SpecError(f"not text: {show(document[key])}", place=key, allowed="text")
    run, run_document = parse_run(reader, document["run"], "run", is_resolved=is_resolved)
    strategy, study = _strategy(document, run, is_resolved=is_resolved)
    return StudySpec(document, document.get("name", ""), strategy, run, run_document, study)


def _strategy(document: JsonObject, run: RunSpec, *, is_resolved: bool) -> tuple[StrategySpec, StudyOptions | None]:
    place = "strategy"
    known = ("universes", "sleeves") if is_resolved else grammar.STRATEGY
    value = Reader({}).object(document[place], place, known, required=("universes", "sleeves"))
    params = parse_params(value.get("params", {}), join(place, "params"))
    reader = Reader(params)
    universes = parse_universes(reader, value["universes"], join(place, "universes"))
    study = None
    if "study" in document or params:
        study = parse_study(reader, document.get("study", {}), "study", universes, params)
    lets = value.get("let", {})
    if not isinstance(lets, dict):
        raise SpecError(f"not an object: {show(lets)}", place=join(place, "let"), allowed='{"name": expression, ...}')
    constraints = tuple(
        parse_constraint(reader, item, f"{place}.constraints[{index}]")
        for index, item in enumerate(reader.items(value.get("constraints", []), join(place, "constraints")))
    )
    parser = ExpressionParser(reader, lets, join(place, "let"))
    parser.check_lets()
    sleeves = SleeveParser(reader, parser, universes, run, study.each if study else None).sleeves(
        value["sleeves"], join(place, "sleeves")
    )
    template = {"sleeves": sleeves, "universes": _used(universes, sleeves)}
    return StrategySpec(params, constraints, tuple(universes.values()), template), study


def _used(universes: Mapping[str, Universe], sleeves: list[JsonObject]) -> list[JsonObject]:
    """Return the universes that a sleeve trades, by id: their order means nothing."""
    used = {sleeve["universe"] for sleeve in sleeves}
    return [{"id": name, "tickers": list(universes[name].tickers)} for name in sorted(used)]
