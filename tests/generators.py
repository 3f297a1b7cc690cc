"""Random specs, expressions and markets for property tests.

Rules: everything generated is valid unless its name says otherwise; sizes are small, so that many examples run; prices
are whole ticks of 10**-scale; markets have gaps, splits and dividends. Expressions come in the short forms that users
write (``"close"``, indicators without ``of``), not only in the spelled-out one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from farm.market.panel import InstrumentSeries, Market
from farm.shard.calendar import Calendar
from farm.values.arrays import I32, I64, readonly
from farm.values.units import NS_PER_DAY, NS_PER_HOUR, iso

TICKERS = ("AAPL", "IBM", "MSFT")
FIRST_DAY = 10957  # Saturday 2000-01-01
"""Days of generated markets begin here."""


# Specs


@functools.cache
def fields(syms: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """A bar column, of the instrument in scope or of one of ``syms``."""
    names = st.sampled_from(("open", "high", "low", "close", "volume", "close_raw", "close_tr"))
    plain = st.one_of(names, names.map(lambda name: {"f": name}))
    if not syms:
        return plain
    return st.one_of(plain, st.builds(lambda name, sym: {"f": name, "sym": sym}, names, st.sampled_from(syms)))


@functools.cache
def numbers() -> st.SearchStrategy[Any]:
    """A constant."""
    return st.one_of(st.integers(-50, 150), st.floats(-1e3, 1e3).map(lambda x: round(x, 4)))


@functools.cache
def numeric_expressions(syms: tuple[str, ...] = (), depth: int = 2, bars_max: int = 6) -> st.SearchStrategy[Any]:
    """A numeric expression as users write it."""
    leaf = st.one_of(fields(syms), fields(syms), numbers())
    if depth == 0:
        return leaf
    inner = numeric_expressions(syms, depth - 1, bars_max)
    bars = st.integers(2, bars_max)
    names = st.sampled_from(("sma", "ema", "rsi", "roc", "ret", "stddev", "max", "min"))
    return st.one_of(
        leaf,
        st.builds(lambda name, n: {"i": name, "n": n}, names, bars),
        st.builds(lambda name, n, of: {"i": name, "n": n, "of": of}, names, bars, inner),
        st.builds(lambda op, a, b: {"op": op, "a": [a, b]}, st.sampled_from(("add", "sub", "mul", "div", "min", "max")),
                  inner, inner),
        st.builds(lambda op, a: {"op": op, "a": [a]}, st.sampled_from(("neg", "abs")), inner),
        st.builds(lambda op, a, n: {"op": op, "a": [a], "n": n}, st.sampled_from(("lag", "diff")), inner, bars),
        st.builds(lambda c, a, b: {"op": "if", "a": [c, a, b]}, truth_expressions(syms, 0, bars_max), inner, inner),
        st.builds(lambda a, b, c: {"op": "clip", "a": [a, b, c]}, inner, inner, inner),
    )  # fmt: skip


@functools.cache
def truth_expressions(syms: tuple[str, ...] = (), depth: int = 2, bars_max: int = 6) -> st.SearchStrategy[Any]:
    """A condition as users write it."""
    number = numeric_expressions(syms, max(0, depth - 1), bars_max)
    leaf = st.one_of(
        st.builds(lambda op, a, b: {op: [a, b]}, st.sampled_from(("gt", "ge", "lt", "le", "cross_up", "cross_dn")),
                  number, number),
        st.builds(lambda a, b, c: {"between": [a, b, c]}, number, number, number),
        st.lists(st.integers(1, 7), min_size=1, max_size=5).map(lambda days: {"dow": days}),
        st.booleans(),
    )  # fmt: skip
    if depth == 0:
        return leaf
    inner = truth_expressions(syms, depth - 1, bars_max)
    return st.one_of(
        leaf,
        st.builds(lambda op, parts: {op: parts}, st.sampled_from(("all", "any")),
                  st.lists(inner, min_size=1, max_size=3)),
        inner.map(lambda part: {"not": part}),
        st.builds(lambda op, n, part: {op: [n, part]}, st.sampled_from(("for", "within")), st.integers(1, 4), inner),
    )  # fmt: skip


@functools.cache
def sizes() -> st.SearchStrategy[dict[str, Any]]:
    """A size that every account allows."""
    return st.one_of(
        st.integers(1, 500).map(lambda v: {"mode": "qty", "v": v}),
        st.integers(100, 50_000).map(lambda v: {"mode": "notional", "v": v}),
        st.sampled_from((0.1, 0.25, 0.5, 1.0)).map(lambda v: {"mode": "pct_equity", "v": v}),
        st.just({"mode": "equal"}),
    )


@functools.cache
def stops() -> st.SearchStrategy[list[dict[str, Any]]]:
    """At most one stop of each type, in units that need no expression."""
    pct = st.sampled_from((0.01, 0.05, 0.2))
    distance = st.one_of(pct.map(lambda x: {"pct": x}), st.sampled_from((0.5, 2.0)).map(lambda x: {"abs": x}))
    one = {
        kind: st.one_of(st.none(), distance.map(lambda d, kind=kind: {"type": kind, **d}))
        for kind in ("stop", "target", "trail")
    }
    time = st.one_of(st.none(), st.integers(1, 10).map(lambda n: {"type": "time", "bars": n}))
    return st.tuples(one["stop"], one["target"], one["trail"], time).map(
        lambda found: [stop for stop in found if stop is not None]
    )


@st.composite
def sleeves(
    draw: st.DrawFn, name: str = "s", sides: Sequence[str] = ("long",), depth: int = 2, bars_max: int = 6,
    syms: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """A sleeve of rules over universe "u"."""
    truths = truth_expressions(syms, depth, bars_max)
    sleeve: dict[str, Any] = {
        "id": name, "kind": "rules", "universe": "u", "side": draw(st.sampled_from(sides)),
        "enter": draw(truths), "size": draw(sizes()),
    }  # fmt: skip
    if draw(st.booleans()):
        sleeve["exit"] = draw(truths)
    if sleeve["side"] == "both":
        sleeve["enter_short"] = draw(truths)
        if draw(st.booleans()):
            sleeve["exit_short"] = draw(truths)
    if draw(st.booleans()):
        sleeve["stops"] = draw(stops())
    if draw(st.booleans()):
        sleeve["cooldown_bars"] = draw(st.integers(0, 5))
    if draw(st.booleans()):
        sleeve["prefer"] = draw(numeric_expressions(syms, 1, bars_max))
        sleeve["max_positions"] = draw(st.integers(1, 3))
    return sleeve


@st.composite
def specs(
    draw: st.DrawFn,
    *,
    tickers: Sequence[str] = TICKERS,
    start_day: int = FIRST_DAY + 60,
    end_day: int = FIRST_DAY + 200,
    depth: int = 2,
    bars_max: int = 6,
    sleeves_max: int = 2,
    syms: tuple[str, ...] = (),
    account: str | None = None,
) -> dict[str, Any]:
    """A document without parameters or study: one run over ``tickers``."""
    account = account or draw(st.sampled_from(("cash", "reg_t", "linear")))
    sides = ("long",) if account == "cash" else ("long", "short", "both")
    count = draw(st.integers(1, sleeves_max))
    run: dict[str, Any] = {
        "dataset": "main", "start": iso(start_day), "end": iso(end_day), "account": account,
        "cash": draw(st.sampled_from((5_000, 100_000, 1_234_567.891234))),
    }  # fmt: skip
    costs = {"bps": (0, 1.5, 10), "per_share": (0, 0.005), "per_order": (0, 4.95), "min": (0, 1)}
    run["costs"] = {key: draw(st.sampled_from(values)) for key, values in costs.items() if draw(st.booleans())}
    if draw(st.booleans()):
        run["exec"] = {"slip_bps": draw(st.sampled_from((0, 1, 2.5)))}
    if draw(st.booleans()):
        run["warmup"] = draw(st.sampled_from(("settle", "none", "10bar", "20d", "2mo")))
    made = [draw(sleeves(f"s{number}", sides, depth, bars_max, syms)) for number in range(count)]
    return {
        "spec": 1,
        "strategy": {"universes": [{"id": "u", "tickers": list(draw(st.permutations(tickers)))}], "sleeves": made},
        "run": run,
    }


_KINDS_OF_SCALARS: Mapping[str, tuple[Any, ...]] = {
    "field": ("open", "high", "low", "close", "volume", "close_raw", "close_tr"),
    "indicator": ("sma", "ema", "rsi", "roc", "ret", "stddev", "max", "min"),
    "pair": ("add", "sub", "mul", "div", "min", "max"),
    "bars": (2, 3, 4, 5.0, 6, 9),
    "number": (-40, 0, -0.0, 0.02, 15.5, 18, 50, 101),
    "flag": (True, False),
    "qty": (0.25, 0.5, 1.0),
    "pct": (0.01, 0.05, 0.2),
    "count": (1, 2, 3),
    "mode": ("qty", "pct_equity"),
}


GAPS = ({"op": "div", "a": ["close", "volume"]}, {"i": "ret", "n": 2, "of": "volume"})
"""Expressions that are unknown here and there: days without volume."""


@st.composite
def studies(draw: st.DrawFn, **options: Any) -> dict[str, Any]:
    """A document as ``specs`` makes it, with parameters for some scalars (at most five, of few values), and two lets
    for some numbers: one that is unknown now and then, and one that looks back.
    """
    document = draw(specs(**options))
    syms = options.get("syms", ())
    params: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    lets: dict[str, Any] = {}

    def hole(kind: str, value: Any) -> Any:
        if draw(st.integers(0, 2)):
            return value
        known = [name for name, other in kinds.items() if other == kind]
        if known and (draw(st.booleans()) or len(params) == 5):
            return f"${draw(st.sampled_from(known))}"
        if len(params) == 5:
            return value
        name = "zyxwv"[len(params)]
        choices = syms if kind == "sym" else _KINDS_OF_SCALARS[kind]
        picked = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=3))
        kinds[name], params[name] = kind, {"choice": [one for k, one in enumerate(picked) if one not in picked[:k]]}
        return f"${name}"

    def expression(value: Any) -> Any:
        if isinstance(value, bool):
            return hole("flag", value)
        if isinstance(value, int | float):
            return hole("number", value)
        if isinstance(value, str):
            return hole("field", value) if draw(st.integers(0, 2)) or not lets else f"@{draw(st.sampled_from('gp'))}"
        made = dict(value)
        if "f" in value:
            made["f"] = hole("field", value["f"])
            if "sym" in value:
                made["sym"] = hole("sym", value["sym"])
        elif "i" in value:
            made |= {"i": hole("indicator", value["i"]), "n": hole("bars", value["n"])}
            if "of" in value:
                made["of"] = expression(value["of"])
        elif "op" in value:
            made["a"] = [expression(part) for part in value["a"]]
            if value["op"] in _KINDS_OF_SCALARS["pair"]:
                made["op"] = hole("pair", value["op"])
            if "n" in value:
                made["n"] = hole("bars", value["n"])
        else:
            [(head, body)] = value.items()
            if head in ("for", "within"):
                made[head] = [hole("bars", body[0]), expression(body[1])]
            elif head not in ("dow", "month", "date"):
                made[head] = [expression(part) for part in body] if isinstance(body, list) else expression(body)
        return made

    looks_back = {
        "i": draw(st.sampled_from(("sma", "ema", "max"))),
        "n": 3,
        "of": draw(st.sampled_from(("low", *GAPS))),
    }
    made = {"g": expression(draw(st.sampled_from(GAPS))), "p": expression(looks_back)}
    lets |= made
    document["strategy"]["let"] = lets
    numbers, truths = (make(syms, 1, options.get("bars_max", 6)) for make in (numeric_expressions, truth_expressions))
    for sleeve in document["strategy"]["sleeves"]:
        if draw(st.booleans()):
            sleeve["order"] = {"type": "limit", "limit": expression(draw(numbers)), "ttl": "2d"}
        if draw(st.booleans()):
            sleeve["add"] = {"max": hole("count", 2), "when": expression(draw(truths))}
        if draw(st.booleans()):
            sleeve["stops"] = [{"type": "stop", "level": expression(draw(numbers))}, {"type": "time", "bars": 3}]
        for key in ("enter", "exit", "enter_short", "exit_short", "prefer"):
            if key in sleeve:
                sleeve[key] = expression(sleeve[key])
        if sleeve["size"]["mode"] in ("qty", "pct_equity"):
            sleeve["size"] = {"mode": hole("mode", sleeve["size"]["mode"]), "v": hole("qty", 0.5)}
        for stop in sleeve.get("stops", ()):
            for unit in stop.keys() & {"pct", "bars"}:
                stop[unit] = hole("pct" if unit == "pct" else "bars", stop[unit])
        for key in sleeve.keys() & {"cooldown_bars", "max_positions"}:
            sleeve[key] = hole("count", sleeve[key])
    document["strategy"]["params"] = params
    if draw(st.booleans()):
        document["study"] = {"each": {"instrument": "u"}}
    return document


def shuffled(draw: st.DrawFn, value: Any) -> Any:
    """Return a copy of a document in which the children of all and any are in another order."""
    if isinstance(value, Mapping):
        copied = {key: shuffled(draw, item) for key, item in value.items()}
        for key in ("all", "any"):
            if isinstance(copied.get(key), list):
                copied[key] = list(draw(st.permutations(copied[key])))
        return copied
    return [shuffled(draw, item) for item in value] if isinstance(value, list) else value


@st.composite
def permuted_pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same spec twice, with children of all and any in different orders."""
    document = draw(specs())
    return document, shuffled(draw, copy.deepcopy(document))


# Markets


def weekdays(count: int, first_day: int = FIRST_DAY) -> I32:
    """The first ``count`` days from ``first_day`` on that are no weekend."""
    day = np.arange(first_day, first_day + count * 2 + 7, dtype=np.int32)
    return readonly(np.ascontiguousarray(day[(day + 3) % 7 < 5][:count]))


def session_open(day: I32) -> I64:
    """Opening instants of days: 14:30 UTC."""
    return readonly(day.astype(np.int64) * NS_PER_DAY + 14 * NS_PER_HOUR + NS_PER_HOUR // 2)


def session_close(day: I32) -> I64:
    """Closing instants of days: 21:00 UTC."""
    return readonly(day.astype(np.int64) * NS_PER_DAY + 21 * NS_PER_HOUR)


def calendar_of(day: I32, name: str = "XNYS") -> Calendar:
    """A calendar with these sessions."""
    return Calendar(name, readonly(day.copy()), session_open(day), session_close(day))


def factor_of(day: I32, splits: Mapping[int, tuple[int, int]], start_day: int) -> list[Fraction]:
    """The forward adjustment factors of domain.md 3.3, one on the share basis of ``start_day``."""
    factor = [Fraction(1)] * day.shape[0]
    for ex_day, (numerator, denominator) in sorted(splits.items()):
        ratio = Fraction(numerator, denominator)
        for row, at in enumerate(day.tolist()):
            if ex_day > start_day and at >= ex_day:
                factor[row] *= ratio
            elif ex_day <= start_day and at < ex_day:
                factor[row] /= ratio
    return factor


def series_of(
    day: I32, close_ticks: Sequence[int] | I64, *, symbol: str = "AAPL", scale: int = 2, start_day: int | None = None,
    splits: Mapping[int, tuple[int, int]] | None = None, dividends: Mapping[int, float] | None = None,
    open_ticks: Sequence[int] | None = None, high_ticks: Sequence[int] | None = None,
    low_ticks: Sequence[int] | None = None, volume: Sequence[float] | None = None,
) -> InstrumentSeries:  # fmt: skip
    """One instrument's bars from closing ticks; what is not given follows from the closes."""
    splits, dividends = dict(splits or {}), dict(dividends or {})
    start = int(day[0]) if start_day is None and day.shape[0] else start_day or 0
    close = np.asarray(close_ticks, np.int64)
    open_ = np.asarray(open_ticks if open_ticks is not None else np.concatenate((close[:1], close[:-1])), np.int64)
    high = np.asarray(high_ticks, np.int64) if high_ticks is not None else np.maximum(open_, close)
    low = np.asarray(low_ticks, np.int64) if low_ticks is not None else np.minimum(open_, close)
    unit = float(10**scale)
    exact = factor_of(day, splits, start)
    factor = np.array([float(one) for one in exact])
    factor_tr = factor.copy()
    for ex_day, amount in sorted(dividends.items()):
        at = int(np.searchsorted(day, ex_day))
        if 0 < at < day.shape[0]:
            factor_tr[at:] *= 1.0 / (1.0 - amount / (close[at - 1] / unit))
    ex_days = np.array(sorted(splits), np.int32)
    paid = np.array(sorted(dividends), np.int32)
    return InstrumentSeries(
        id=symbol, symbol=symbol, type="stock", calendar="XNYS", lot_micro=1_000_000, price_scale=scale, multiplier=1,
        day=readonly(np.ascontiguousarray(day)), open_ts=session_open(day), close_ts=session_close(day),
        open=readonly(open_ / unit), high=readonly(high / unit), low=readonly(low / unit), close=readonly(close / unit),
        volume=readonly(np.asarray(volume, np.float64) if volume is not None else np.full(day.shape[0], 1000.0)),
        open_ticks=readonly(open_), close_ticks=readonly(close), factor=readonly(factor), factor_tr=readonly(factor_tr),
        factor_num=readonly(np.array([float(one.numerator) for one in exact])),
        factor_den=readonly(np.array([float(one.denominator) for one in exact])),
        split_day=readonly(ex_days),
        split_num=readonly(np.array([splits[int(ex_day)][0] for ex_day in ex_days], np.int64)),
        split_den=readonly(np.array([splits[int(ex_day)][1] for ex_day in ex_days], np.int64)),
        dividend_day=readonly(paid), dividend_pay_day=readonly(paid.copy()),
        dividend_pay_assumed=readonly(np.ones(paid.shape[0], np.bool_)),
        dividend_amount=readonly(np.array([dividends[int(ex_day)] for ex_day in paid], np.float64)),
    )  # fmt: skip


def market_of(
    series: Sequence[InstrumentSeries], start_day: int, end_day: int, *, sessions: I32 | None = None,
    snapshot: str = "generated", calendar: str = "XNYS",
) -> Market:  # fmt: skip
    """A market of these series; its sessions are ``sessions``, or all days on which any of them has a bar."""
    if sessions is None:
        sessions = np.unique(np.concatenate([one.day for one in series])).astype(np.int32)
    inside = sessions[(sessions >= start_day) & (sessions <= end_day)]
    ordered = tuple(sorted(series, key=lambda one: one.id.encode()))
    whole = calendar_of(sessions, calendar)
    return Market(
        calendar_of(inside, calendar), {calendar: whole}, ordered, {one.id: at for at, one in enumerate(ordered)},
        start_day, end_day, snapshot, all(one.dividend_day.shape[0] == 0 for one in ordered),
        all(one.split_day.shape[0] == 0 for one in ordered),
    )  # fmt: skip


@st.composite
def bars(
    draw: st.DrawFn, symbol: str = "AAPL", *, days: I32 | None = None, start_day: int = FIRST_DAY + 60,
    with_actions: bool = True, with_gaps: bool = True,
) -> InstrumentSeries:  # fmt: skip
    """One instrument on (most of) ``days``: random walk in ticks, with gaps, a split and a dividend."""
    days = weekdays(140) if days is None else days
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if with_gaps and draw(st.booleans()):
        days = np.ascontiguousarray(days[random.random(days.shape[0]) > 0.1])
    if draw(st.integers(0, 4)) == 0:
        days = np.ascontiguousarray(days[draw(st.integers(0, days.shape[0] // 2)) :])
    count = days.shape[0]
    close = np.maximum(100, 2_000 + np.cumsum(random.integers(-60, 61, count)))
    opened = np.maximum(50, close + random.integers(-40, 41, count))
    high = np.maximum(opened, close) + random.integers(0, 40, count)
    low = np.maximum(10, np.minimum(opened, close) - random.integers(0, 40, count))
    splits, dividends = {}, {}
    if with_actions and draw(st.booleans()):
        ratio = draw(st.sampled_from(((2, 1), (3, 2), (1, 10), (7, 1))))
        splits[int(days[draw(st.integers(1, count - 1))])] = ratio
    if with_actions and draw(st.booleans()):
        dividends[int(days[draw(st.integers(1, count - 1))])] = 0.25
    return series_of(
        days, close, symbol=symbol, start_day=start_day, splits=splits, dividends=dividends,
        open_ticks=opened.tolist(), high_ticks=high.tolist(), low_ticks=low.tolist(),
        volume=random.integers(0, 5, count).astype(np.float64) * 1000.0,
    )  # fmt: skip


@st.composite
def markets(
    draw: st.DrawFn, tickers: Sequence[str] = TICKERS, *, start_day: int = FIRST_DAY + 60,
    end_day: int = FIRST_DAY + 195, with_actions: bool = True, with_gaps: bool = True,
) -> Market:  # fmt: skip
    """A market of ``tickers`` over the sessions of 140 weekdays."""
    days = weekdays(140)
    series = [
        draw(bars(ticker, days=days, start_day=start_day, with_actions=with_actions, with_gaps=with_gaps))
        for ticker in tickers
    ]
    return market_of(series, start_day, end_day, sessions=days)
