"""Programs, markets and signals for tests of the engine, and the comparison of a run with its twin.

Markets here are rougher than life: prices gap, bars are missing or without volume, splits and dividends come often,
positions are large for the account. Signals are drawn, not computed: the engine does not care where they come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from farm.engine.ledger import Run
from farm.market.panel import InstrumentSeries, Market
from farm.program.expr import Node
from farm.program.program import Addition, Program, RulesProgram, Size, StopRule
from farm.shard.calendar import Calendar
from farm.signals.evaluate import Signals
from farm.spec.spec import Costs, Exec, RunSpec, Warmup
from farm.values.arrays import F64, I32, I64, U8, readonly
from farm.values.units import NS_PER_DAY, NS_PER_HOUR
from tests.generators import calendar_of, market_of, series_of, weekdays
from tests.reference.loop import Reference

UNIT = 1_000_000
START = 10960  # Tuesday 2000-01-04
PREFER: Any = "prefer"  # the engine only asks whether there is a preference, or a limit


def days(count: int) -> Any:
    """``count`` weekdays from START on."""
    return weekdays(count, START)


def run_spec(**changes: Any) -> RunSpec:
    """A run with every default, 10,000 of cash."""
    spec: dict[str, Any] = {
        "dataset": "main", "start_day": START, "end_day": START + 400, "bar": "1d", "calendar": "XNYS",
        "session": "regular", "cash_micro": 10_000 * UNIT, "ccy": "USD", "account": "cash", "max_gross": None,
        "lot": "whole", "costs": Costs(0.0, 0.0, 0.0, 0.0), "exec": Exec(0.0, 0.0, False), "warmup": Warmup("settle"),
        "benchmark": None, "rf": 0.0, "ann": 252,
    }  # fmt: skip
    return RunSpec(**(spec | changes))


def rules(**changes: Any) -> RulesProgram:
    """A long sleeve of ten shares on AAPL."""
    sleeve: dict[str, Any] = {
        "id": "s", "universe_id": "u", "universe": ("AAPL",), "side": "long", "enter": Node, "exit": None,
        "enter_short": None, "exit_short": None, "size": Size("qty", 10.0), "stops": (), "levels": (),
        "max_positions": 1, "prefer": None, "limit": None, "ttl": 1, "add": None, "cooldown_bars": 0, "alloc": 1.0,
    }  # fmt: skip
    return RulesProgram(**(sleeve | changes))


def program(*sleeves: RulesProgram, **run: Any) -> Program:
    """A program of these sleeves (one plain one by default)."""
    return Program(run_spec(**run), sleeves or (rules(),), frozenset(), 0, (), {}, ())


def mask(rows: int, *true: int) -> U8:
    """A signal that is true at these bars."""
    out = np.zeros(rows, np.uint8)
    out[list(true)] = 1
    return readonly(out)


def signals(
    market: Market, instrument: int = 0, *, enter: Sequence[int] = (), exit: Sequence[int] = (),
    enter_short: Sequence[int] = (), exit_short: Sequence[int] = (), prefer: F64 | None = None,
    levels: Sequence[F64] = (), limit: F64 | None = None, add: Sequence[int] | None = None,
) -> Signals:  # fmt: skip
    """Signals of one instrument by the bars at which they are true."""
    n = market.series[instrument].rows
    return Signals(
        instrument, mask(n, *enter), mask(n, *exit), mask(n, *enter_short), mask(n, *exit_short), prefer,
        tuple(levels), {}, limit=limit, add=None if add is None else mask(n, *add),
    )  # fmt: skip


def bars(
    *rows: tuple[float, float, float, float], volume: Sequence[float] | None = None, **kind: Any
) -> InstrumentSeries:
    """A series of (open, high, low, close), one per weekday."""
    table = np.rint(np.array(rows) * 100).astype(np.int64)
    series = series_of(
        days(len(rows)), table[:, 3], open_ticks=table[:, 0].tolist(), high_ticks=table[:, 1].tolist(),
        low_ticks=table[:, 2].tolist(), volume=volume, symbol=kind.pop("symbol", "AAPL"), start_day=START,
        splits=kind.pop("splits", None), dividends=kind.pop("dividends", None),
    )  # fmt: skip
    return dataclasses.replace(series, **kind)


def flat(*prices: float, **kind: Any) -> InstrumentSeries:
    """A series whose bars stand still at a price each."""
    return bars(*((price, price, price, price) for price in prices), **kind)


def without(series: InstrumentSeries, *rows: int) -> InstrumentSeries:
    """The series with some bars missing."""
    kept = np.setdiff1d(np.arange(series.rows), rows)
    columns = ("day", "open_ts", "close_ts", "open", "high", "low", "close", "volume", "open_ticks", "close_ticks",
               "factor", "factor_tr")  # fmt: skip
    return dataclasses.replace(series, **{name: readonly(getattr(series, name)[kept]) for name in columns})


def market(*series: InstrumentSeries, sessions: int | None = None) -> Market:
    """A market whose sessions are all weekdays up to the longest series (or ``sessions`` of them)."""
    last = max(int(one.day[-1]) for one in series if one.rows)
    calendar = days(sessions) if sessions else days(300)[days(300) <= last]
    return market_of(series, START, int(calendar[-1]), sessions=calendar)


# Random ones

Choices = Mapping[str, Sequence[Any]]

ADDITIONS = (
    Addition(1, Node, Size("qty", 7.0)), Addition(3, Node, Size("pct_equity", 0.2)),
    Addition(2, Node, Size("notional", 900.0)), Addition(2, Node, Size("equal", 1.0)),
)  # fmt: skip
ANYTHING: Choices = {
    "account": ("cash", "reg_t", "linear"),
    "side": ("long", "short", "both"),
    "size": (
        Size("qty", 10.0), Size("qty", 400.0), Size("qty", 0.7), Size("notional", 2_500.0), Size("notional", 3.0),
        Size("pct_equity", 1.0), Size("pct_equity", 0.3), Size("pct_equity", 3.0), Size("equal", 1.0),
    ),
    "stops": (0, 1, 1, 2, 4),  # how many
    "cooldown": (0, 0, 1, 4),
    "places": (1, 2, 3),
    "often": ((0.1, 0.1), (0.3, 0.0), (0.3, 0.3), (0.8, 0.1), (0.8, 0.8)),  # how often entries and exits are true
    "wild": (0.01, 0.05, 0.3),  # how far prices go
    "dry": (0.0, 0.2),  # how often a bar has no volume
    "splits": (0, 1, 3),  # how many
    "ratio": ((2, 1), (3, 2), (1, 10), (7, 3), (3, 1), (1, 3), (523, 500)),
    "lot_micro": (UNIT, UNIT, UNIT, 100 * UNIT, UNIT // 10),
    "limit": (None, None, PREFER),
    "ttl": (1, 2, 5),
    "add": (None, None, *ADDITIONS),
}  # fmt: skip
"""What a case is made of, where all is equally likely."""
STOPS = ANYTHING | {"stops": (1, 2), "often": ((0.8, 0.0),), "wild": (0.05,), "places": (3,)}
MARGIN_CALLS = ANYTHING | {
    "account": ("reg_t",), "size": (Size("pct_equity", 3.0), Size("qty", 400.0), Size("qty", 100.0)), "stops": (0,),
    "places": (3,), "often": ((0.8, 0.0),), "wild": (0.3,),
}  # fmt: skip
REVERSALS = ANYTHING | {
    "account": ("reg_t", "linear"), "side": ("both",), "stops": (0, 1), "cooldown": (0,), "places": (3,),
    "size": (Size("qty", 10.0), Size("qty", 400.0), Size("pct_equity", 3.0)), "often": ((0.4, 0.0),), "splits": (4,),
    "ratio": ((1, 10), (1, 10), (1, 5_000)), "lot_micro": (UNIT, 100 * UNIT),
}  # fmt: skip
WAITING = MARGIN_CALLS | {"limit": (PREFER,), "add": ADDITIONS, "ttl": (2, 5), "often": ((0.8, 0.0), (0.8, 0.1))}
CROWDS = ANYTHING | {"stops": (0, 1), "places": (1,), "often": ((0.4, 0.4),), "wild": (0.01,), "dry": (0.4,)}
SHRINKING = ANYTHING | {
    "size": (Size("qty", 400.0),), "stops": (0, 1), "places": (3,), "often": ((0.8, 0.0),), "wild": (0.01,),
    "splits": (4,), "ratio": ((1, 10),), "limit": (None, PREFER), "ttl": (5,), "add": ADDITIONS[:2],
}  # fmt: skip
"""Six that make likely what would be rare."""


@st.composite
def rough_series(draw: st.DrawFn, symbol: str, count: int, choices: Choices = ANYTHING) -> InstrumentSeries:
    """Up to ``count`` bars with everything that can happen to them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kept = days(count)[random.random(count) > draw(st.sampled_from((0.0, 0.15)))]
    if kept.shape[0] < 3:
        kept = days(count)
    n = kept.shape[0]
    wild = draw(st.sampled_from(choices["wild"]))
    close = np.maximum(20, 3_000 * np.cumprod(1.0 + random.normal(0.0, wild, n))).astype(np.int64)
    opened = np.maximum(20, close * (1.0 + random.normal(0.0, wild, n))).astype(np.int64)
    high = (np.maximum(opened, close) * (1.0 + abs(random.normal(0.0, wild, n)))).astype(np.int64)
    low = np.maximum(1, np.minimum(opened, close) * (1.0 - abs(random.normal(0.0, min(wild, 0.2), n)))).astype(np.int64)
    volume = np.where(random.random(n) < draw(st.sampled_from(choices["dry"])), 0.0, 500.0)
    splits = {}
    for _ in range(draw(st.sampled_from(choices["splits"]))):
        splits[START + int(random.integers(0, 3 * count // 2))] = draw(st.sampled_from(choices["ratio"]))
    dividends = {START + int(random.integers(0, 2 * count)): round(float(random.random()), 4)
                 for _ in range(draw(st.integers(0, 3)))}  # fmt: skip
    series = series_of(
        kept, close, symbol=symbol, start_day=START, splits=splits, dividends=dividends, open_ticks=opened.tolist(),
        high_ticks=high.tolist(), low_ticks=low.tolist(), volume=volume.tolist(),
    )  # fmt: skip
    later = random.integers(0, 20, series.dividend_day.shape[0]).astype(np.int32)
    return dataclasses.replace(
        series,
        dividend_pay_day=series.dividend_day + later,
        dividend_pay_assumed=later == 0,
        lot_micro=draw(st.sampled_from(choices["lot_micro"])),
        multiplier=draw(st.sampled_from((1, 1, 1, 5))),
    )


def on_own_sessions(found: Market, instrument: int, day: I32, hours: float = 0) -> Market:
    """The market in which one instrument follows a calendar of its own: of these days, and those on which it prints;
    so many hours later than the others."""
    series = list(found.series)
    one, later = series[instrument], int(hours * NS_PER_HOUR)
    own = calendar_of(np.union1d(one.day, day).astype(np.int32), f"own-{instrument}")
    own = dataclasses.replace(own, open_ts=readonly(own.open_ts + later), close_ts=readonly(own.close_ts + later))
    series[instrument] = dataclasses.replace(
        one, calendar=own.name, open_ts=readonly(one.open_ts + later), close_ts=readonly(one.close_ts + later)
    )
    return dataclasses.replace(found, series=tuple(series), calendars={**found.calendars, own.name: own})


def around_the_clock(found: Market, stocks: Collection[int]) -> Market:
    """The market in a run around the clock: each day is a session, which ends as the next one begins. The instruments
    in ``stocks`` keep their own sessions."""
    day = np.arange(found.start_day, found.end_day + 1, dtype=np.int32)
    clock = Calendar("24x7", readonly(day), *_midnights(day))
    series = list(found.series)
    for n in set(range(len(series))) - set(stocks):
        opens, closes = _midnights(series[n].day)
        series[n] = dataclasses.replace(series[n], calendar="24x7", open_ts=opens, close_ts=closes)
    return dataclasses.replace(
        found, calendar=clock, calendars={**found.calendars, "24x7": clock}, series=tuple(series)
    )


def _midnights(day: I32) -> tuple[I64, I64]:
    start = day.astype(np.int64) * NS_PER_DAY
    return readonly(start), readonly(start + NS_PER_DAY)


@st.composite
def rough_signals(
    draw: st.DrawFn, market: Market, instrument: int, sleeve: RulesProgram, choices: Choices = ANYTHING
) -> Signals:
    """Drawn signals; levels stand near the closes and are sometimes unknown."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    series = market.series[instrument]
    n = series.rows
    enters, leaves = draw(st.sampled_from(choices["often"]))

    def column(often: float) -> U8:
        return readonly((random.random(n) < often).astype(np.uint8))

    prefer = np.where(random.random(n) < 0.2, np.nan, random.integers(0, 4, n).astype(np.float64))
    levels = [
        np.where(random.random(n) < 0.1, np.nan, series.close * (1.0 + random.normal(0.0, 0.05, n)))
        for _ in sleeve.levels
    ]
    limit = series.close * (1.0 + random.normal(0.0, 0.03, n))
    limit = np.where(random.random(n) < 0.1, random.choice((np.nan, np.nan, 0.0, -1.0), n), limit)
    return Signals(
        instrument, column(enters), column(leaves), column(enters), column(leaves),
        None if sleeve.prefer is None else prefer, tuple(levels), {}, limit=None if sleeve.limit is None else limit,
        add=None if sleeve.add is None else column(enters),
    )  # fmt: skip


@st.composite
def stop_rules(draw: st.DrawFn, choices: Choices = ANYTHING) -> tuple[StopRule, ...]:
    """Any stops that go together; ``r`` needs a stop to measure the risk from."""
    known = (
        ("stop", "pct", (0.01, 0.05, 0.3)), ("stop", "abs", (0.5, 3.0)), ("stop", "level", (0.0,)),
        ("trail", "pct", (0.02, 0.1)), ("trail", "abs", (1.0,)), ("target", "pct", (0.01, 0.1)),
        ("target", "abs", (2.0,)), ("target", "level", (0.0,)), ("time", "bars", (1.0, 3.0)),
    )  # fmt: skip
    chosen = draw(st.permutations(known))[: draw(st.sampled_from(choices["stops"]))]
    found = [(kind, unit, draw(st.sampled_from(values))) for kind, unit, values in chosen]
    if any(kind in ("stop", "trail") for kind, _, _ in found) and draw(st.booleans()):
        found = draw(st.permutations([*found, ("target", "r", 2.0)]))
    levels = 0
    rules = []
    for kind, unit, value in found:
        follows = unit == "level" and draw(st.booleans())
        rules.append(StopRule(kind, unit, value, levels if unit == "level" else -1, follows))
        levels += unit == "level"
    return tuple(rules)


@st.composite
def cases(draw: st.DrawFn, most_instruments: int = 3) -> tuple[Program, Market, tuple[tuple[Signals, ...], ...]]:
    """A program with its market and signals: all accounts, sizes, stops, one or two sleeves that share the cash."""
    tickers = ("AAPL", "IBM", "MSFT")[: draw(st.sampled_from(range(1, most_instruments + 1)))]
    count = draw(st.integers(4, 40))
    kinds = (ANYTHING, ANYTHING, STOPS, STOPS, MARGIN_CALLS, REVERSALS, CROWDS, WAITING, SHRINKING)
    choices = draw(st.sampled_from(kinds))
    found = market(*(draw(rough_series(ticker, count, choices)) for ticker in tickers), sessions=count)
    is_clock = draw(st.integers(0, 3)) == 0
    stocks = [n for n in range(len(tickers)) if not is_clock or draw(st.booleans())]  # those with a session's hours
    for n in stocks:
        if draw(st.integers(0, 2)) == 0:
            found = on_own_sessions(
                found, n, days(count)[:: draw(st.integers(1, 9))], draw(st.sampled_from((0, 2, -2, 6.5)))
            )
    if is_clock:
        found = around_the_clock(found, stocks)
    account = draw(st.sampled_from(choices["account"]))
    sleeves, groups = [], []
    for w in range(draw(st.sampled_from((1, 1, 2)))):
        members = sorted(draw(st.sets(st.integers(0, len(tickers) - 1), min_size=1)))
        stops = draw(stop_rules(choices))
        sleeve = rules(
            id=f"s{w}", universe=tuple(tickers[n] for n in members), size=draw(st.sampled_from(choices["size"])),
            side="long" if account == "cash" else draw(st.sampled_from(choices["side"])), stops=stops,
            levels=tuple(PREFER for stop in stops if stop.unit == "level"), alloc=draw(st.sampled_from((1.0, 0.5))),
            max_positions=draw(st.sampled_from(choices["places"])), prefer=draw(st.sampled_from((None, None, PREFER))),
            cooldown_bars=draw(st.sampled_from(choices["cooldown"])), limit=draw(st.sampled_from(choices["limit"])),
            ttl=draw(st.sampled_from(choices["ttl"])), add=draw(st.sampled_from(choices["add"])),
        )  # fmt: skip
        sleeves.append(sleeve)
        groups.append(tuple(draw(rough_signals(found, n, sleeve, choices)) for n in members))
    lot = draw(st.sampled_from(("whole", "fractional")))
    # The twin gives lots back one by one: a fee of dollars would take millions of tiny ones.
    unit = 0.01 if lot == "fractional" else 1.0
    fees = ((0.0,) * 4, (10.0, 0, 0, 0), (3.0, 0.005, 0, unit), (0.5, 0, 4.95 * unit, 6.0 * unit))
    chosen = program(
        *sleeves, account=account, max_gross=draw(st.sampled_from((1.0, 2.5))) if account == "linear" else None,
        lot=lot,
        costs=Costs(*draw(st.sampled_from(fees))),
        exec=draw(st.sampled_from((Exec(0.0, 0.0, False), Exec(5.0, 0.02, False), Exec(2.0, 0.1, True)))),
        cash_micro=draw(st.sampled_from((10_000 * UNIT, 1_000 * UNIT, 123_456_789))),
    )  # fmt: skip
    return chosen, found, tuple(groups)


def assert_same(run: Run, twin: Reference) -> None:
    """Every record and every session of a run equals its twin's, prices to the bit."""
    for name in ("orders", "fills", "cash_events", "trades", "open_trades"):
        ours, theirs = getattr(run, name), getattr(twin, name)
        expected = [_plain(one, ours.dtype.names) for one in theirs]
        assert expected == [list(one) for one in ours.tolist()], name
    assert twin.equity == run.equity.tolist()
    assert twin.position == run.position.tolist()
    assert twin.decision_bars == run.decision_bars.tolist()
    assert twin.market_bars == run.market_bars.tolist()
    assert dict(twin.counts) == dict(run.counts)
    assert twin.ruin == run.ruin


def _plain(record: dict[str, Any], names: Sequence[str]) -> list[Any]:
    assert set(names) == set(record)
    return [record[name] for name in names]


def bits_of(records: NDArray[Any]) -> dict[str, tuple[str, bytes]]:
    """Type and bits of records, field by field: how they lie in memory is no part of what they say."""
    columns = {name: records[name] for name in records.dtype.names} if records.dtype.names else {"": records}
    return {name: (column.dtype.str, column.tobytes()) for name, column in columns.items()}


def assert_equal_runs(one: Run, other: Run) -> None:
    """Two runs are the same to the bit."""
    for field in dataclasses.fields(Run):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert bits_of(left) == bits_of(right), field.name
        else:
            assert left == right, field.name


def assert_conserves(run: Run) -> None:
    """Trade P&L sums to the change of equity, and cash is the sum of all flows (domain.md 7.7)."""
    pnl = int(run.trades["pnl_micro"].sum()) + int(run.open_trades["pnl_micro"].sum())
    assert pnl == run.equity_end_micro - run.cash_micro
    assert run.fees_micro["commission"] == int(run.orders["fee_micro"].sum())
    assert run.traded_notional_micro == int(abs(run.fills["amount_micro"]).sum())
