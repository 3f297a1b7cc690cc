"""The run part: window, account, costs, execution; every default written in.

Rules: ``dataset`` says where data comes from and is no part of what a run means, so it is kept out of the document that
is hashed. Keys that are known but not built are refused by name; cost lines that price what is not built may be 0.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from farm.spec import grammar
from farm.spec.reader import Reader, is_hole, join, not_built, show
from farm.spec.spec import Costs, Exec, JsonObject, RunSpec, Warmup
from farm.values.errors import SpecError
from farm.values.units import MICRO, iso, parse_date

CASH_MAX = 9_000_000_000
"""Money is whole micro-units below 2**53."""
FRACTION_HINT = "rates are fractions: 5 % is 0.05"
BPS_HINT = "bps are hundredths of a percent: 5 is 0.05 %"
_DURATION = re.compile(r"([1-9][0-9]{0,5})(bar|min|h|d|w|mo)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ALWAYS = "24x7"


def parse_run(reader: Reader, value: Any, place: str, *, is_resolved: bool) -> tuple[RunSpec, JsonObject]:
    """Return the run, and its document as the resolved spec carries it.

    ``is_resolved``: the document was resolved before, so ``dataset`` is missing and stays empty.
    """
    required = ("start", "end", "cash") if is_resolved else ("dataset", "start", "end", "cash")
    reader.object(value, place, grammar.RUN, required=required)
    start, end = (parse_date(value[key], join(place, key)) for key in ("start", "end"))
    if end < start:
        message = f"the window is empty: it ends on {iso(end)}, before {iso(start)}"
        raise SpecError(message, place=join(place, "end"), allowed="run.start <= run.end")
    account = reader.word(value.get("account", "cash"), join(place, "account"), grammar.ACCOUNTS)
    calendar = _name(reader, value.get("calendar", "XNYS"), join(place, "calendar"))
    document: JsonObject = {
        "start": iso(start),
        "end": iso(end),
        "bar": _bar(reader, value.get("bar", "1d"), join(place, "bar")),
        "calendar": calendar,
        "session": _session(reader, value.get("session", "regular"), join(place, "session"), calendar),
        "cash": reader.number(value["cash"], join(place, "cash"), above=0.0, most=CASH_MAX),
        "ccy": _ccy(reader, value.get("ccy", "USD"), join(place, "ccy")),
        "account": account,
        "lot": reader.word(value.get("lot", "whole"), join(place, "lot"), grammar.LOTS),
        "costs": _costs(reader, value.get("costs", {}), join(place, "costs")),
        "exec": _exec(reader, value.get("exec", {}), join(place, "exec")),
        "warmup": _warmup(reader, value.get("warmup", "settle"), join(place, "warmup")),
        "rf": _rf(reader, value.get("rf", 0), join(place, "rf")),
        "ann": reader.integer(
            value.get("ann", 365 if calendar == _ALWAYS else 252), join(place, "ann"), least=1, most=1_000_000
        ),
    }
    _max_gross(reader, value, place, document)
    if "benchmark" in value:
        where = join(place, "benchmark")
        document["benchmark"] = reader.text(value["benchmark"], where, "a ticker")
        if is_hole(value["benchmark"]):
            raise SpecError("parameters belong to the strategy, not to the run", place=where, allowed="a ticker")
    dataset = "" if is_resolved else _name(reader, value["dataset"], join(place, "dataset"))
    return run_of(document, dataset), document


def run_of(document: JsonObject, dataset: str = "") -> RunSpec:
    """Return the typed run of a checked document, all defaults in it."""
    costs, execution = document["costs"], document["exec"]
    match = _DURATION.fullmatch(document["warmup"])
    return RunSpec(
        dataset=dataset,
        start_day=parse_date(document["start"], "run.start"),
        end_day=parse_date(document["end"], "run.end"),
        bar=document["bar"],
        calendar=document["calendar"],
        session=document["session"],
        cash_micro=micro(document["cash"]),
        ccy=document["ccy"],
        account=document["account"],
        max_gross=float(document["max_gross"]) if "max_gross" in document else None,
        lot=document["lot"],
        costs=Costs(**{key: float(costs[key]) for key in ("bps", "per_share", "per_order", "min")}),
        exec=Exec(float(execution["slip_bps"]), float(execution["reserve"]["pct"]), bool(execution["reserve"]["fees"])),
        warmup=Warmup(match[2], int(match[1])) if match else Warmup(document["warmup"]),
        benchmark=document.get("benchmark"),
        rf=float(document["rf"]),
        ann=int(document["ann"]),
    )


def micro(amount: float) -> int:
    """Return an amount of currency in micro-units, read as the decimal that was written, rounded half to even."""
    return round(Fraction(repr(amount)) * MICRO)


def _name(reader: Reader, value: Any, place: str) -> str:
    if not _NAME.fullmatch(reader.text(value, place, "a name")):
        raise SpecError(f"not a name: {show(value)}", place=place, allowed="letters, digits, . _ -")
    return str(value)


def _bar(reader: Reader, value: Any, place: str) -> str:
    text = reader.text(value, place, "a duration such as 1d")
    match = _DURATION.fullmatch(text)
    if match is None or match[2] == "bar":
        raise SpecError(f"not a bar: {show(value)}", place=place, allowed="1d", hint="durations are {n}{min|h|d|w|mo}")
    if text != "1d":
        raise not_built(f"bar {text!r}", place, ("1d",))
    return text


def _session(reader: Reader, value: Any, place: str, calendar: str) -> str:
    session = reader.word(value, place, ("regular", _ALWAYS), ("extended", "pre", "post"))
    if session == _ALWAYS and calendar != _ALWAYS:
        raise SpecError(f"calendar {calendar} has no such session", place=place, allowed="regular")
    return session


def _ccy(reader: Reader, value: Any, place: str) -> str:
    text = reader.text(value, place, "a currency such as USD")
    if text != "USD":
        raise not_built(f"an account in {text!r}", place, ("USD",))
    return text


def _max_gross(reader: Reader, value: JsonObject, place: str, document: JsonObject) -> None:
    where = join(place, "max_gross")
    if document["account"] == "linear":
        document["max_gross"] = reader.number(value.get("max_gross", 1), where, above=0.0, most=100.0)
    elif "max_gross" in value:
        message = f"account {document['account']!r} has its own limits"
        raise SpecError(message, place=where, allowed='beside "account": "linear"')


def _bps(reader: Reader, value: Any, place: str) -> float:
    bps = reader.number(value, place, least=0.0, below=10_000.0, hint=BPS_HINT)
    if 0.0 < bps < 0.01:
        raise SpecError(f"{show(bps)} looks like a fraction", place=place, allowed="0, or >= 0.01", hint=BPS_HINT)
    return bps


def _costs(reader: Reader, value: Any, place: str) -> JsonObject:
    reader.object(value, place, grammar.COSTS, unbuilt=grammar.COSTS_NOT_BUILT)
    costs: JsonObject = {"bps": _bps(reader, value.get("bps", 0), join(place, "bps"))}
    for key in ("per_share", "per_order", "min"):
        costs[key] = reader.number(value.get(key, 0), join(place, key), least=0.0, most=CASH_MAX)
    for key in grammar.COSTS_ZERO:
        if reader.number(value.get(key, 0), join(place, key), least=0.0) != 0:
            raise not_built(f"{key!r} other than 0", join(place, key), ("0",))
        costs[key] = 0
    return costs


def _exec(reader: Reader, value: Any, place: str) -> JsonObject:
    reader.object(value, place, grammar.EXEC, unbuilt=grammar.EXEC_NOT_BUILT)
    where = join(place, "reserve")
    reserve = reader.object(value.get("reserve", {}), where, ("pct", "fees"))
    return {
        "fill": _fill(reader, value.get("fill", "next_open"), join(place, "fill")),
        "slip_bps": _bps(reader, value.get("slip_bps", 0), join(place, "slip_bps")),
        "reserve": {
            "pct": reader.number(reserve.get("pct", 0), join(where, "pct"), least=0.0, below=1.0, hint=FRACTION_HINT),
            "fees": reader.flag(reserve.get("fees", False), join(where, "fees")),
        },
    }


def _fill(reader: Reader, value: Any, place: str) -> str:
    if isinstance(value, dict):
        raise not_built("a fill with options", place, grammar.FILLS)
    return reader.word(value, place, grammar.FILLS, grammar.FILLS_NOT_BUILT)


def _warmup(reader: Reader, value: Any, place: str) -> str:
    text = reader.text(value, place, "a warm-up")
    match = _DURATION.fullmatch(text)
    if text in ("settle", "none") or (match and match[2] in ("bar", "d", "mo")):
        return text
    allowed = "settle, none, {n}bar, {n}d, {n}mo"
    raise SpecError(f"not a warm-up: {show(value)}", place=place, allowed=allowed)


def _rf(reader: Reader, value: Any, place: str) -> float:
    if isinstance(value, str):
        raise not_built("an economic series as rf", place, ("a number",))
    return reader.number(value, place, above=-1.0, below=1.0, hint=FRACTION_HINT)
