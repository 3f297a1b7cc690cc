"""Small worlds for scenarios: a table of bars per ticker goes into a store, a spec runs over it, the books come back.

Everything takes the public path: ingest, snapshot, plan, read, feed, indicators, engine, record. Worlds are on the XNYS
calendar and begin on Tuesday 2021-02-02 unless said; 2021-02-15 is a holiday. Orders are scripted with ``on``: a
condition that is true on certain sessions.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from farm.columns.cache import ColumnCache
from farm.engine.ledger import OrderKind, Run
from farm.shard import change
from farm.shard.calendar import Calendar, freeze_calendar
from farm.shard.ingest import ingest_table
from farm.store.base import Store
from farm.store.open import open_store
from farm.values.units import date_of, iso, parse_date
from farm.work.run import BlockRunner, run_in_process

START = "2021-02-02"
_numbers = itertools.count()

Row = tuple[float, ...] | None
"""open, high, low, close, and volume if it is not 1000; None: no bar."""


@cache
def calendar(name: str = "XNYS") -> Calendar:
    """A frozen calendar; made once, because that takes a second."""
    return freeze_calendar(name)


def day(session: int, start: str = START, calendar_name: str = "XNYS") -> str:
    """Date of the session number ``session``, counted from the one on ``start``; may be negative."""
    days = calendar(calendar_name).day
    first = int(days.searchsorted(parse_date(start, "")))
    return iso(int(days[first + session]))


def flat(*prices: float | None) -> list[Row]:
    """Bars that stand still at a price each; None: no bar."""
    return [None if price is None else (price, price, price, price) for price in prices]


def on(*sessions: int, start: str = START, calendar_name: str = "XNYS") -> Any:
    """A condition that is true on these sessions, and known always."""
    dates = [day(session, start, calendar_name) for session in sessions]
    return {"any": [{"date": [date, date]} for date in dates]} if dates else False


def put(
    store: Store, bars: Mapping[str, Sequence[Row]], *, start: str = START, calendar_name: str = "XNYS",
    splits: Sequence[tuple[str, str, str]] = (), dividends: Sequence[tuple[str, str, float, str | None]] = (),
    instruments: Sequence[Mapping[str, Any]] = (), dataset: str = "main",
) -> None:  # fmt: skip
    """Ingest: bars by ticker, one row per session from ``start`` on; (ticker, ex-date, ratio); (ticker, ex-date,
    amount, pay date or None); rows of the master."""
    change.freeze_calendar, kept = calendar, change.freeze_calendar
    try:
        if instruments:
            names = sorted({name for row in instruments for name in row})
            table = {name: [row.get(name) for row in instruments] for name in names}
            ingest_table(store, dataset, pa.table(table), "instruments")
        rows = [
            (ticker, day(at, start, calendar_name), *row, *((1000,) if len(row) == 4 else ()))
            for ticker, table in bars.items()
            for at, row in enumerate(table)
            if row is not None
        ]
        if rows:
            columns = list(zip(*rows, strict=True))
            names = ("symbol", "ts", "open", "high", "low", "close", "volume")
            table = {
                name: [float(x) for x in column] if name in ("open", "high", "low", "close") else list(column)
                for name, column in zip(names, columns, strict=True)
            }
            ingest_table(
                store, dataset, pa.table(table), "stock_daily", tz="America/New_York", stamp="start",
                calendar=None if instruments else calendar_name, sort=True,
            )  # fmt: skip
        if splits:
            made = dict(zip(("symbol", "ex_date", "ratio"), map(list, zip(*splits, strict=True)), strict=True))
            ingest_table(store, dataset, pa.table(made), "splits", sort=True)
        if dividends:
            names = ("symbol", "ex_date", "amount", "pay_date")
            made = dict(zip(names, map(list, zip(*dividends, strict=True)), strict=True))
            ingest_table(store, dataset, pa.table(made), "dividends", sort=True)
    finally:
        change.freeze_calendar = kept


def world(bars: Mapping[str, Sequence[Row]], **more: Any) -> Store:
    """A new store in memory with these bars; the rest as in ``put``."""
    store = open_store(f"memory:domain-{next(_numbers)}")
    put(store, bars, **more)
    return store


def copy_of(store: Store) -> Store:
    """A new store with the same data and no results."""
    made = open_store(f"memory:domain-{next(_numbers)}")
    for meta in store.list(""):
        if not meta.key.startswith(("results/", "studies/")):
            made.put(meta.key, store.get(meta.key))
    return made


def sleeve(**changes: Any) -> dict[str, Any]:
    """A long sleeve of ten shares that never enters."""
    return {
        "id": "s", "kind": "rules", "universe": "u", "side": "long", "enter": False, "size": {"mode": "qty", "v": 10},
    } | changes  # fmt: skip


def spec(
    tickers: Sequence[str], *sleeves: dict[str, Any], params: Mapping[str, Any] | None = None,
    study: Mapping[str, Any] | None = None, sessions: int | None = None, start: str = START, **run: Any,
) -> dict[str, Any]:  # fmt: skip
    """A spec over these tickers; ``sessions``: how many the run has, unless ``end`` is given."""
    document: dict[str, Any] = {
        "spec": 1,
        "strategy": {"universes": [{"id": "u", "tickers": list(tickers)}], "sleeves": list(sleeves) or [sleeve()]},
        "run": {"dataset": "main", "start": start, "cash": 10_000} | run,
    }
    if "end" not in document["run"]:
        document["run"]["end"] = day((sessions or 8) - 1, start, document["run"].get("calendar", "XNYS"))
    if params:
        document["strategy"]["params"] = dict(params)
    if study:
        document["study"] = dict(study)
    return document


@dataclass(frozen=True)
class Played:
    """The books of one cell, and what the document says of it."""

    run: Run
    cell: dict[str, Any]
    trial: dict[str, Any]
    document: dict[str, Any]

    @property
    def fills(self) -> list[tuple[str, int, int, float]]:
        """(instrument, session, lots, price) of each fill."""
        return [
            (self.run.instruments[int(one["instrument"])], int(one["session"]), int(one["lots"]), float(one["price"]))
            for one in self.run.fills
        ]

    @property
    def short_fills(self) -> list[tuple[int, int, float]]:
        """Fills without the instrument."""
        return [fill[1:] for fill in self.fills]

    @property
    def exits(self) -> list[OrderKind]:
        """Why each closed trade ended."""
        return [OrderKind(int(one)) for one in self.run.trades["exit_kind"]]

    @property
    def equity(self) -> list[float]:
        """Equity at session closes."""
        return [value / 1e6 for value in self.run.equity.tolist()]

    @property
    def cash(self) -> list[tuple[int, int, float, float]]:
        """(session, kind, cash, receivable) of each cash event."""
        return [
            (int(one["session"]), int(one["kind"]), int(one["cash_micro"]) / 1e6, int(one["receivable_micro"]) / 1e6)
            for one in self.run.cash_events
        ]

    @property
    def full(self) -> dict[str, Any]:
        """Metrics of the whole run."""
        found: dict[str, Any] = self.cell["metrics"]["full"]
        return found


def play(document: dict[str, Any], store: Store, *, trial: int = 0, position: int = 0) -> Played:
    """Run a study in process, compute one of its cells again, check the books, and return both."""
    cache_ = ColumnCache(1 << 26)
    outcome = run_in_process(document, store, cache=cache_)
    made = outcome.document()
    runner = BlockRunner(store, cache=cache_)
    scored = runner.recompute(outcome.study, trial, position)
    assert_conserves(scored.run)
    return Played(scored.run, made["trials"][trial]["cells"][position], made["trials"][trial], made)


def assert_conserves(run: Run) -> None:
    """Obligation 7: P&L of trades sums to the change of equity, to the micro-unit."""
    pnl = int(run.trades["pnl_micro"].sum()) + int(run.open_trades["pnl_micro"].sum())
    assert pnl == run.equity_end_micro - run.cash_micro


def date(text: str) -> datetime.date:
    """The date that ISO text names."""
    return date_of(parse_date(text, ""))
