"""Obligations 2 to 5 of domain.md 7 on the public path, over random worlds: gaps, late listings, splits, dividends."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from farm.columns.cache import ColumnCache
from farm.store.base import Store
from farm.values.units import parse_date
from farm.work.run import run_in_process
from tests.domain.support import Played, calendar, copy_of, day, play, sleeve, spec, world
from tests.effort import effort

HISTORY, RUN = 420, 30
TICKERS = ("AAA", "BBB", "CCC")
RATIOS = ("3:2", "2:1", "1:3", "7:5", "20:1")


class Maker:
    """Draws worlds and expressions; ``$n`` and ``$look`` may stand in them."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def number(self, depth: int = 2) -> Any:
        n, sym = self.one("$n", 4, 9), self.one({}, {}, {"sym": "$look"}, {"sym": "BBB"})
        field = {"f": self.one("close", "open", "close_tr", "volume", "close_raw"), **sym}
        if depth == 0:
            return field
        inner = self.number(depth - 1)
        return self.one(
            field, {"i": self.one("ema", "rsi", "sma", "stddev"), "n": n, **sym}, {"i": "ema", "n": n, "of": inner},
            {"i": "sma", "n": n, "of": {"i": "ema", "n": 5, "of": inner}},
            {"op": "lag", "n": self.one(1, 7, 30), "a": [inner]}, {"op": "div", "a": [inner, field]},
        )  # fmt: skip

    def truth(self) -> Any:
        return {self.one("gt", "lt", "cross_up", "cross_dn"): [self.number(), self.number()]}

    def sleeve(self) -> dict[str, Any]:
        exit_ = {"any": [{"within": [2, self.truth()]}, {"for": [4, True]}]}
        stops = [{"type": "trail", "pct": 0.04}, {"type": "target", "level": {"i": "max", "n": 5, "of": "high"}}]
        return sleeve(enter=self.truth(), exit=exit_, size={"mode": "pct_equity", "v": 0.3}, stops=stops)

    def rows(self, first: int, gaps: float) -> list[Any]:
        price, found = 50.0, []
        for session in range(-HISTORY, RUN):
            opened = price * (1 + self.random.normal(0, 0.01))
            price = opened * (1 + self.random.normal(0, 0.02))
            bar = (opened, max(opened, price) * 1.005, min(opened, price) * 0.995, price)
            is_there = session >= first and self.random.random() >= gaps
            found.append((*(round(x, 2) for x in bar), 100.0) if is_there else None)
        return found

    def world(self) -> dict[str, Any]:
        gaps = self.one(0.0, 0.0, 0.3)
        bars = {t: self.rows(self.one(-HISTORY, -HISTORY, -100, -3, 4), 0 if t == "BBB" else gaps) for t in TICKERS}
        at = lambda: int(self.random.integers(-300, RUN))  # noqa: E731
        splits = {(t, at()): self.one(*RATIOS) for t in ("AAA", "BBB")}
        dividends = {(t, at()): round(float(self.random.uniform(0.1, 1)), 2) for t in TICKERS}
        return {"bars": bars, "splits": splits, "dividends": dividends}

    def changed(self, known: dict[str, Any], after: int) -> dict[str, Any]:
        """Another future: other bars, missing ones, splits and dividends after a session."""
        future = copy.deepcopy(known)
        for rows in future["bars"].values():
            for session in range(after + 1, RUN):
                by, volume = self.random.uniform(0.5, 2), float(self.random.integers(0, 3))
                bar = (*(round(x * by, 2) for x in (10, 11, 9, 10.5)), volume)
                rows[HISTORY + session] = None if self.random.random() < 0.2 else bar
        for kind, value in (("splits", "7:3"), ("dividends", 0.13)):
            future[kind] = {key: x for key, x in future[kind].items() if key[1] <= after}
            future[kind] |= {(t, int(self.random.integers(after + 1, RUN))): value for t in ("AAA", "CCC")}
        return future


def stored(made: dict[str, Any]) -> Store:
    splits = [(ticker, day(at), ratio) for (ticker, at), ratio in made["splits"].items()]
    dividends = [(ticker, day(at), amount, None) for (ticker, at), amount in made["dividends"].items()]
    return world(made["bars"], start=day(-HISTORY), splits=splits, dividends=dividends)


def filled(document: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The document with values in place of its parameters."""
    text = json.dumps(document)
    for name, value in values.items():
        text = text.replace(f'"${name}"', json.dumps(value))
    found: dict[str, Any] = json.loads(text)
    found["strategy"].pop("params", None)
    return found


def trials(document: dict[str, Any], store: Store) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_in_process(document, store, cache=ColumnCache(1 << 26)).document()["trials"]
    return found


@pytest.mark.parametrize("seed", range(effort(10)))
def test_a_trial_alone_is_the_trial_in_the_study(seed: int) -> None:
    """Whatever periods stand beside it, and so however much more history is loaded."""
    make = Maker(seed)
    store, each = stored(make.world()), make.one(True, False)
    params = {"n": {"choice": [3, 17]}, "look": {"choice": ["AAA", "CCC"]}}
    document = spec(TICKERS, make.sleeve(), sessions=RUN, params=params, benchmark="BBB",
                    warmup=make.one("settle", "settle", "none", "7bar", "2mo"),
                    study={"each": {"instrument": "u"}} if each else None)  # fmt: skip
    if each:
        document["strategy"]["sleeves"][0]["size"]["v"] = 0.9
    for name in params:
        if f'"${name}"' not in json.dumps(document["strategy"]["sleeves"]):
            del document["strategy"]["params"][name]
    for trial in trials(document, store):
        (alone,) = trials(filled(document, trial["params"]), copy_of(store))
        assert [{**cell, "key": ""} for cell in alone["cells"]] == [{**cell, "key": ""} for cell in trial["cells"]]


@pytest.mark.parametrize("seed", range(effort(12)))
def test_no_lookahead_no_truncation_no_append(seed: int) -> None:
    """Three runs that agree until T: to the end, to the end of another future, and to T. And the run to T has the same
    key whether the future is stored already or not."""
    make = Maker(1000 + seed)
    known, after = make.world(), int(make.random.integers(2, RUN - 2))
    for kind in ("splits", "dividends"):
        known[kind] = {key: value for key, value in known[kind].items() if key[1] <= after}
    future = make.changed(known, after)
    values = {"n": make.one(3, 15), "look": "AAA"}
    document = filled(spec(TICKERS, make.sleeve(), sessions=RUN, benchmark="BBB"), values)
    until = int(calendar().close_ts[calendar().day.searchsorted(parse_date(day(after), ""))])
    whole, other = play(document, stored(known)), play(document, stored(future))
    short = document | {"run": document["run"] | {"end": day(after)}}
    cut, appended = play(short, stored(known)), play(short, stored(future))
    assert beginning(whole, until, after) == beginning(other, until, after) == beginning(cut, until, after)
    assert cut.trial == appended.trial


def beginning(played: Played, until: int, session: int) -> list[Any]:
    """Everything that was decided or done by an instant."""
    run = played.run
    decided = ["ts", "session", "sleeve", "instrument", "kind", "side", "lots", "price"]
    found = [run.equity[: session + 1].tolist(), run.orders[run.orders["ts"] <= until][decided].tolist()]
    found += [getattr(run, name)[getattr(run, name)["ts"] <= until].tolist() for name in ("fills", "cash_events")]
    return [*found, run.trades[run.trades["exit_ts"] <= until].tolist()]


@pytest.mark.parametrize("seed", range(effort(4)))
def test_order_of_tickers_rows_and_ingests_does_not_matter(seed: int) -> None:
    make = Maker(2000 + seed)
    made = make.world()
    document = filled(spec(TICKERS, make.sleeve(), sessions=RUN), {"n": 5, "look": "CCC"})
    turned = copy.deepcopy(document)
    turned["strategy"]["universes"][0]["tickers"].reverse()
    backward = {**made, "bars": dict(reversed(made["bars"].items())), "splits": dict(reversed(made["splits"].items()))}
    assert play(document, stored(made)).trial == play(turned, stored(backward)).trial
