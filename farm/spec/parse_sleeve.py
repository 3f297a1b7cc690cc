"""Sleeves of rules and their universes: checked, spelled out, defaults written in.

Rules: what comes out is the resolved form with ``$p`` kept, and goes in again unchanged. Rates are fractions: a stop of
5 % is 0.05, and 5 is refused with a hint. A short needs an account that can be short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from farm.spec import grammar
from farm.spec.parse_expr import ExpressionParser
from farm.spec.reader import Check, Reader, is_hole, join, near, not_built, one_of, show
from farm.spec.spec import JsonObject, RunSpec, Universe
from farm.values.errors import SpecError

FRACTION_HINT = "rates are fractions: 5 % is 0.05"
REG_T_GROSS = 2.0
"""Most that Regulation T lets stock be bought for, in equities (50 % initial margin)."""
_COUNT_MAX = 1_000_000
_SESSIONS = re.compile(r"[1-9][0-9]{0,3}d")


def parse_universes(reader: Reader, value: Any, place: str) -> dict[str, Universe]:
    """Return the universes by id, each with its tickers sorted."""
    found: dict[str, Universe] = {}
    for index, item in enumerate(reader.items(value, place)):
        where = f"{place}[{index}]"
        reader.object(item, where, grammar.UNIVERSE, required=grammar.UNIVERSE, unbuilt=grammar.UNIVERSE_NOT_BUILT)
        name = _name(reader, item["id"], join(where, "id"), found)
        tickers = [
            reader.text(ticker, f"{where}.tickers[{position}]", "a ticker")
            for position, ticker in enumerate(reader.items(item["tickers"], join(where, "tickers"), least=1))
        ]
        for position, ticker in enumerate(tickers):
            if is_hole(ticker):
                raise not_built("a ticker from a parameter", f"{where}.tickers[{position}]", ("tickers as text",))
            if ticker in tickers[:position]:
                place_of = f"{where}.tickers[{position}]"
                raise SpecError(f"{ticker!r} is listed twice", place=place_of, hint="remove one of them")
        found[name] = Universe(name, tuple(sorted(tickers)))
    return found


def _name(reader: Reader, value: Any, place: str, taken: Mapping[str, Any]) -> str:
    name = reader.text(value, place, "a name")
    if name[0] in "$@":
        raise SpecError(
            f"a name cannot begin with {name[0]!r}", place=place, hint="that is how parameters and lets are told apart"
        )
    if name in taken:
        raise SpecError(f"{name!r} is taken", place=place, hint="give each its own id")
    return name


class SleeveParser:
    """Checks the sleeves of one strategy. ``each`` is the universe whose members are run one by one, or None."""

    def __init__(
        self,
        reader: Reader,
        parser: ExpressionParser,
        universes: Mapping[str, Universe],
        run: RunSpec,
        each: str | None,
    ) -> None:
        self.reader = reader
        self.parser = parser
        self.universes = universes
        self.run = run
        self.each = each

    def sleeves(self, value: Any, place: str) -> list[JsonObject]:
        """Return the sleeves in the order written."""
        items = self.reader.items(value, place, least=1)
        taken: dict[str, None] = {}
        found = []
        for index, item in enumerate(items):
            sleeve = self._sleeve(item, f"{place}[{index}]", taken, default_alloc=1.0 / len(items))
            taken[sleeve["id"]] = None
            found.append(sleeve)
        return found

    def _sleeve(self, value: Any, place: str, taken: Mapping[str, None], *, default_alloc: float) -> JsonObject:
        reader, parser = self.reader, self.parser
        if isinstance(value, dict) and "kind" in value:
            reader.word(value["kind"], join(place, "kind"), grammar.SLEEVE_KINDS, grammar.SLEEVE_KINDS_NOT_BUILT)
        reader.object(
            value, place, grammar.RULES, required=("id", "kind", "universe", "side", "enter", "size"),
            unbuilt=(*grammar.RULES_NOT_BUILT, *grammar.SLEEVE_OF_OTHER_KINDS),
        )  # fmt: skip
        universe = self._universe(value["universe"], join(place, "universe"))
        positions = value.get("max_positions", 1 if self.each else len(universe.tickers))
        sleeve = {
            "id": _name(reader, value["id"], join(place, "id"), taken),
            "kind": value["kind"],
            "universe": universe.id,
            "side": self._side(value, place),
            "size": self._size(value["size"], join(place, "size")),
            "stops": self._stops(value.get("stops", []), join(place, "stops")),
            "max_positions": reader.scalar(positions, join(place, "max_positions"), self._count),
            "cooldown_bars": reader.scalar(value.get("cooldown_bars", 0), join(place, "cooldown_bars"), self._bars),
            "alloc": reader.scalar(value.get("alloc", default_alloc), join(place, "alloc"), self._share),
        }
        for key in ("enter", "exit", "enter_short", "exit_short"):
            if key in value:
                sleeve[key] = parser.truth(value[key], join(place, key))
        if "order" in value:
            order = self._order(value["order"], join(place, "order"))
            if order["type"] != "market":  # which is how entries are filled anyway
                sleeve["order"] = order
        if "add" in value:
            sleeve["add"] = self._add(value["add"], join(place, "add"), sleeve["size"])
        if "prefer" in value:
            sleeve["prefer"] = parser.numeric(value["prefer"], join(place, "prefer"))
        return sleeve

    def _count(self, value: Any, place: str) -> int:
        return self.reader.integer(value, place, least=1, most=_COUNT_MAX)

    def _bars(self, value: Any, place: str) -> int:
        return self.reader.integer(value, place, least=0, most=_COUNT_MAX)

    def _share(self, value: Any, place: str) -> float:
        return self.reader.number(value, place, above=0.0, most=1.0, hint=FRACTION_HINT)

    def _universe(self, value: Any, place: str) -> Universe:
        name = self.reader.text(value, place, "the id of a universe")
        if name not in self.universes:
            hint = near(name, self.universes) or "declare it in strategy.universes"
            raise SpecError(f"no universe {name!r}", place=place, allowed=one_of(self.universes), hint=hint)
        if self.each is not None and name != self.each:
            message = f"study.each runs the members of {self.each!r} one by one, and this sleeve trades {name!r}"
            raise SpecError(message, place=place, allowed=self.each)
        return self.universes[name]

    def _side(self, value: JsonObject, place: str) -> Any:
        where = join(place, "side")
        side = self.reader.scalar(value["side"], where, lambda v, p: self.reader.word(v, p, grammar.SIDES))
        sides = self.reader.values_of(side, where)
        if self.run.account == "cash" and set(sides) != {"long"}:
            hint = 'set run.account to "reg_t" or "linear"'
            raise SpecError("a cash account cannot be short", place=where, allowed="long", hint=hint)
        for key in ("enter_short", "exit_short"):
            if key in value and "both" not in sides:
                hint = 'with side "short", enter and exit mean the short side'
                raise SpecError(f'{key} exists for side "both" only', place=join(place, key), hint=hint)
        return side

    def _size(self, value: Any, place: str) -> JsonObject:
        reader = self.reader
        reader.object(value, place, (*grammar.SIZE, *grammar.SIZE_NOT_BUILT), required=("mode",))
        where = join(place, "mode")
        modes = [
            reader.word(mode, where, grammar.SIZES, grammar.SIZES_NOT_BUILT)
            for mode in reader.values_of(value["mode"], where)
        ]
        reader.object(value, place, grammar.SIZE, unbuilt=grammar.SIZE_NOT_BUILT)
        takes = {bool(grammar.SIZES[mode]) for mode in modes}
        if len(takes) > 1:
            raise SpecError("these modes take different keys", place=where, allowed="modes of one form")
        if "v" not in value and True in takes:
            raise SpecError("required, and missing", place=join(place, "v"), allowed="a number > 0")
        if "v" in value and False in takes:
            hint = "it divides the equity by max_positions"
            raise SpecError(f"{modes[0]} takes no v", place=join(place, "v"), hint=hint)
        if "v" not in value:
            return {"mode": value["mode"]}
        most, hint = float("inf"), ""
        if "pct_equity" in modes:
            most = self._gross_max()
            hint = f"{FRACTION_HINT}; this account holds at most {most:g} times its equity"
        amount = reader.scalar(
            value["v"], join(place, "v"), lambda v, p: reader.number(v, p, above=0.0, most=most, hint=hint)
        )
        return {"mode": value["mode"], "v": amount}

    def _gross_max(self) -> float:
        if self.run.account == "linear":
            return float(self.run.max_gross or 1.0)
        return REG_T_GROSS if self.run.account == "reg_t" else 1.0

    def _order(self, value: Any, place: str) -> JsonObject:
        reader = self.reader
        reader.object(value, place, grammar.ORDER, required=("type",), unbuilt=grammar.ORDER_NOT_BUILT)
        kind = reader.word(value["type"], join(place, "type"), grammar.ORDER_TYPES, grammar.ORDER_TYPES_NOT_BUILT)
        if kind == "market":
            for key in ("limit", "ttl"):
                if key in value:
                    raise SpecError(f"a market order takes no {key}", place=join(place, key), hint="type limit has it")
            return {"type": kind}
        if "limit" not in value:
            raise SpecError("required, and missing", place=join(place, "limit"), allowed="a price, or an expression")
        return {
            "type": kind,
            "limit": self.parser.numeric(value["limit"], join(place, "limit")),
            "ttl": reader.scalar(value.get("ttl", "1d"), join(place, "ttl"), self._sessions),
        }

    def _add(self, value: Any, place: str, size: JsonObject) -> JsonObject:
        self.reader.object(value, place, grammar.ADD, required=("max", "when"))
        return {
            "max": self.reader.scalar(value["max"], join(place, "max"), self._count),
            "when": self.parser.truth(value["when"], join(place, "when")),
            "size": self._size(value["size"], join(place, "size")) if "size" in value else dict(size),
        }

    def _sessions(self, value: Any, place: str) -> str:
        text = self.reader.text(value, place, 'a number of sessions such as "3d"')
        if not _SESSIONS.fullmatch(text):
            hint = "sessions of the instrument, the one after the decision included"
            raise SpecError(
                f"not a number of sessions: {show(value)}", place=place, allowed='"1d" to "9999d"', hint=hint
            )
        return text

    def _stops(self, value: Any, place: str) -> list[JsonObject]:
        stops = [self._stop(item, f"{place}[{index}]") for index, item in enumerate(self.reader.items(value, place))]
        risks = [stop for stop in stops if stop["type"] == "stop"]
        for index, stop in enumerate(stops):
            if "r" in stop and len(risks) != 1:
                message = f"r counts in initial risks, and there are {len(risks)} stops to define that"
                raise SpecError(message, place=f"{place}[{index}].r", allowed='beside exactly one {"type": "stop"}')
        return stops

    def _stop(self, value: Any, place: str) -> JsonObject:
        reader = self.reader
        reader.object(value, place, grammar.STOP, required=("type",), unbuilt=grammar.STOP_NOT_BUILT)
        kind = reader.word(value["type"], join(place, "type"), grammar.STOP_UNITS, grammar.STOPS_NOT_BUILT)
        units = [key for key in value if key not in ("type", "from")]
        allowed = grammar.STOP_UNITS[kind]
        for unit in units:
            if unit not in allowed:
                raise SpecError(f"a {kind} takes no {unit!r}", place=join(place, unit), allowed=one_of(allowed))
        if len(units) != 1:
            raise SpecError(f"{len(units)} distances", place=place, allowed=f"exactly one of {one_of(allowed)}")
        unit = units[0]
        where = join(place, unit)
        if "from" in value and unit != "level":
            raise SpecError("'from' says when a level is frozen", place=join(place, "from"), allowed="beside level")
        if unit == "level":
            begin = reader.word(value.get("from", "entry"), join(place, "from"), grammar.LEVEL_FROM)
            return {"type": kind, "level": self.parser.numeric(value[unit], where), "from": begin}
        return {"type": kind, unit: reader.scalar(value[unit], where, self._distance(kind, unit))}

    def _distance(self, kind: str, unit: str) -> Check:
        reader = self.reader
        if unit == "bars":
            return lambda v, p: reader.integer(v, p, least=1, most=_COUNT_MAX)
        if unit == "pct":
            hint = FRACTION_HINT + ("; for more than 100 % give a level" if kind == "target" else "")
            return lambda v, p: reader.number(v, p, above=0.0, below=1.0, hint=hint)
        return lambda v, p: reader.number(v, p, above=0.0)
