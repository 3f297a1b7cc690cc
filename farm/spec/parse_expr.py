"""Expressions: from what users write to the one form that is hashed.

Rules: the result spells everything out: ``"close"`` becomes ``{"f": "close"}``, ``of`` and ``n`` are written in,
``@let`` is inlined, ``sym`` of an indicator moves to the fields inside it. Children of ``all`` and ``any`` are sorted
later, when parameters are known. What comes out goes in again unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.spec import grammar
from farm.spec.reader import Reader, is_hole, join, near, not_built, one_of, show
from farm.spec.spec import JsonObject
from farm.values.errors import SpecError
from farm.values.indicators import INDICATORS
from farm.values.units import parse_date

BARS_MAX = 100_000
"""Longest period of an indicator, in bars."""
_NUMERIC_FORMS = 'a number, "$param", "@let", a field ("close"), {"f"}, {"i"}, {"op"}'


class ExpressionParser:
    """Checks and spells out the expressions of one strategy."""

    def __init__(self, reader: Reader, lets: Mapping[str, Any], lets_place: str) -> None:
        self.reader = reader
        self.lets = lets
        self.lets_place = lets_place
        self._inside: tuple[str, ...] = ()

    def check_lets(self) -> None:
        """Check every ``let``, also those that nothing refers to."""
        for name in self.lets:
            place = join(self.lets_place, name)
            if self._is_truth(self.lets[name], place):
                self.truth(f"@{name}", place)
            else:
                self.numeric(f"@{name}", place)

    def numeric(self, value: Any, place: str, sym: str = "") -> Any:
        """Return a numeric expression, spelled out; fields without an instrument get ``sym``."""
        if isinstance(value, bool):
            raise SpecError(f"a condition where a number belongs: {show(value)}", place=place, allowed=_NUMERIC_FORMS)
        if isinstance(value, int | float):
            return value
        if isinstance(value, str):
            return self._numeric_text(value, place, sym)
        if not isinstance(value, dict):
            raise SpecError(f"not an expression: {show(value)}", place=place, allowed=_NUMERIC_FORMS)
        head = next((name for name in grammar.NUMERIC_HEADS if name in value), None)
        if head == "f":
            return self._field(value, place, sym)
        if head == "i":
            return self._indicator(value, place, sym)
        if head == "op":
            return self._operation(value, place, sym)
        raise self._no_head(value, place, grammar.NUMERIC_HEADS, grammar.NUMERIC_HEADS_NOT_BUILT, grammar.TRUTH_HEADS)

    def truth(self, value: Any, place: str) -> Any:
        """Return a three-valued expression, spelled out."""
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            if value.startswith("@"):
                return self._let(value, place, lambda inner, where: self.truth(inner, where))
            if is_hole(value):
                return self.reader.scalar(value, place, self.reader.flag)
        if not isinstance(value, dict):
            allowed = 'true, false, "@let", {' + one_of(grammar.TRUTH_HEADS) + "}"
            raise SpecError(f"not a condition: {show(value)}", place=place, allowed=allowed)
        head = next((name for name in grammar.TRUTH_HEADS if name in value), None)
        if head is None:
            raise self._no_head(value, place, grammar.TRUTH_HEADS, grammar.TRUTH_HEADS_NOT_BUILT, grammar.NUMERIC_HEADS)
        if len(value) != 1:
            other = next(key for key in value if key != head)
            hint = 'join several conditions with {"all": [...]}'
            raise SpecError(f"a key beside {head!r}", place=join(place, other), allowed="one key", hint=hint)
        return {head: self._truth_body(head, value[head], join(place, head))}

    def _truth_body(self, head: str, body: Any, place: str) -> Any:
        reader = self.reader
        if head == "not":
            return self.truth(body, place)
        if head in ("all", "any"):
            parts = reader.items(body, place, least=1)
            return [self.truth(part, f"{place}[{index}]") for index, part in enumerate(parts)]
        if head in ("for", "within"):
            parts = reader.items(body, place, least=2, most=2)
            return [self._bars(parts[0], f"{place}[0]", 1), self.truth(parts[1], f"{place}[1]")]
        if head in ("dow", "month"):
            parts = reader.items(body, place, least=1)
            most = 7 if head == "dow" else 12
            return sorted({reader.integer(v, f"{place}[{i}]", least=1, most=most) for i, v in enumerate(parts)})
        if head == "date":
            first, last = reader.items(body, place, least=2, most=2)
            if parse_date(first, f"{place}[0]") > parse_date(last, f"{place}[1]"):
                raise SpecError(f"{last} is before {first}", place=place, allowed="[first date, last date]")
            return [first, last]
        count = 3 if head == "between" else 2
        parts = reader.items(body, place, least=count, most=count)
        return [self.numeric(part, f"{place}[{index}]") for index, part in enumerate(parts)]

    def _numeric_text(self, value: str, place: str, sym: str) -> Any:
        if value.startswith("@"):
            return self._let(value, place, lambda inner, where: self.numeric(inner, where, sym))
        if not is_hole(value):
            return self._field({"f": value}, place, sym)
        candidates = self.reader.values_of(value, place)
        if all(isinstance(candidate, str) for candidate in candidates):
            return self._field({"f": value}, place, sym)
        return self.reader.scalar(value, place, self.reader.number)

    def _field(self, value: JsonObject, place: str, sym: str) -> JsonObject:
        self.reader.object(value, place, grammar.FIELD, unbuilt=grammar.FIELD_NOT_BUILT)
        name = self.reader.scalar(
            value["f"],
            join(place, "f") if len(value) > 1 else place,
            lambda v, p: self.reader.word(v, p, grammar.FIELDS_BUILT, grammar.FIELDS_NOT_BUILT),
        )
        sym = self._fixed(value["sym"], join(place, "sym")) if "sym" in value else sym
        return {"f": name, "sym": sym} if sym else {"f": name}

    def _fixed(self, value: Any, place: str) -> str:
        return str(self.reader.scalar(value, place, lambda v, p: self.reader.text(v, p, "a ticker")))

    def _indicator(self, value: JsonObject, place: str, sym: str) -> JsonObject:
        reader = self.reader
        names = [
            reader.word(name, join(place, "i"), grammar.INDICATORS_BUILT, grammar.INDICATORS_NOT_BUILT)
            for name in reader.values_of(value["i"], join(place, "i"))
        ]
        reader.object(value, place, grammar.INDICATOR, required=("n",), unbuilt=grammar.INDICATOR_NOT_BUILT)
        least = max(INDICATORS[name].n_min for name in names)
        bars = self._bars(value["n"], join(place, "n"), least)
        if "sym" in value:
            sym = self._fixed(value["sym"], join(place, "sym"))
        return {"i": value["i"], "n": bars, "of": self.numeric(value.get("of", "close"), join(place, "of"), sym)}

    def _operation(self, value: JsonObject, place: str, sym: str) -> JsonObject:
        reader = self.reader
        where = join(place, "op")
        reader.object(value, place, grammar.OP, required=("op", "a"))
        names = [
            reader.word(name, where, grammar.ARITY, grammar.OPS_NOT_BUILT)
            for name in reader.values_of(value["op"], where)
        ]
        if len({name == "if" for name in names}) > 1 or len({name in ("lag", "diff") for name in names}) > 1:
            raise SpecError("these operations take different parts", place=where, allowed="operations of one form")
        least = max(grammar.ARITY[name][0] for name in names)
        limits = [most for most in (grammar.ARITY[name][1] for name in names) if most is not None]
        parts = reader.items(value["a"], join(place, "a"), least=least, most=min(limits, default=None))
        spelled = [
            self.truth(part, f"{place}.a[{index}]")
            if names[0] == "if" and index == 0
            else self.numeric(part, f"{place}.a[{index}]", sym)
            for index, part in enumerate(parts)
        ]
        result = {"op": value["op"], "a": spelled}
        if names[0] in ("lag", "diff"):
            result["n"] = self._bars(value.get("n", 1), join(place, "n"), 1)
        elif "n" in value:
            raise SpecError(f"{names[0]} takes no n", place=join(place, "n"), allowed="n with lag, diff")
        return result

    def _bars(self, value: Any, place: str, least: int) -> Any:
        return self.reader.scalar(value, place, lambda v, p: self.reader.integer(v, p, least=least, most=BARS_MAX))

    def _let(self, value: str, place: str, parse: Any) -> Any:
        name = value[1:]
        if name not in self.lets:
            allowed = one_of(f"@{known}" for known in self.lets)
            hint = near(name, self.lets) or "declare it in strategy.let"
            raise SpecError(f"no let named {name!r}", place=place, allowed=allowed, hint=hint)
        if name in self._inside:
            cycle = " -> ".join((*self._inside[self._inside.index(name) :], name))
            raise SpecError(f"lets refer to each other in a circle: {cycle}", place=join(self.lets_place, name))
        outside, self._inside = self._inside, (*self._inside, name)
        try:
            return parse(self.lets[name], join(self.lets_place, name))
        finally:
            self._inside = outside

    def _is_truth(self, value: Any, place: str) -> bool:
        """Whether a ``let`` is meant as a condition: by its key, or by what it refers to."""
        seen: set[str] = set()
        while isinstance(value, str) and value.startswith("@") and value[1:] in self.lets and value not in seen:
            seen.add(value)
            value = self.lets[value[1:]]
        if is_hole(value):
            return all(isinstance(candidate, bool) for candidate in self.reader.values_of(value, place))
        if isinstance(value, dict):
            heads = (*grammar.TRUTH_HEADS, *grammar.TRUTH_HEADS_NOT_BUILT)
            return not any(head in value for head in grammar.NUMERIC_HEADS) and any(head in value for head in heads)
        return isinstance(value, bool)

    def _no_head(
        self, value: JsonObject, place: str, built: tuple[str, ...], unbuilt: tuple[str, ...], other: tuple[str, ...]
    ) -> SpecError:
        for key in value:
            if key in unbuilt:
                return not_built(f"{key!r}", join(place, key), built)
        if any(key in other for key in value):
            what = "a number where a condition belongs" if other is grammar.NUMERIC_HEADS else (
                "a condition where a number belongs"
            )  # fmt: skip
            return SpecError(what, place=place, allowed=one_of(built))
        key = next(iter(value), "")
        return SpecError(
            "unknown key", place=join(place, key), allowed=one_of(built), hint=near(key, (*built, *unbuilt))
        )
