"""One rule, played by this engine and by three that other people wrote: backtesting.py, vectorbt and backtrader.

A rule is given as what all of them understand: bars, signals by bar, a stop and a target in fractions of the entry
price, shares, basis points. What they return is compared by bar: equity, fills, closed trades.

The conventions differ, and are matched before anything is compared. A bar is given to the others as two: its *opening*,
at which orders decided before fill and nothing else can happen (it stands still at the close before), and the bar
*itself*, in which stops and targets work. So

- a signal fills at the next open before the stops of that bar are looked at (vectorbt lets the bar's stop come first),
- stops work in the bar of the entry (vectorbt begins with the bar after it),
- an opening beyond the target does not end the trade before the stop of that bar is looked at (backtrader),
- decisions begin with the first bar (backtesting.py begins with the second).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from farm.engine.events import simulate
from farm.engine.ledger import Run
from farm.program.program import Size, StopRule
from farm.signals.evaluate import Signals
from farm.spec.spec import Costs
from farm.values.arrays import F64, I64, U8, readonly
from tests.engine.support import UNIT, assert_conserves, days, program, rules
from tests.generators import market_of, series_of

CASH = 100_000
COLUMNS = ("Open", "High", "Low", "Close")


@dataclass(frozen=True, eq=False)
class Rule:
    """Bars (n, 4) in ticks of 10**-scale: open, high, low, close; signals (n,); stop and target in fractions."""

    ticks: I64
    scale: int
    side: str
    enter: U8
    leave: U8
    enter_short: U8
    leave_short: U8
    stop: float | None = None
    target: float | None = None
    shares: int = 10
    bps: float = 0.0

    @property
    def bars(self) -> F64:
        """Prices (n, 4)."""
        return self.ticks / float(10**self.scale)

    def wants(self, bar: int, held: float) -> int:
        """What a holder of ``held`` shares wants to be after the close of a bar: 1 long, -1 short, 0 flat."""
        has = int(np.sign(held))
        if self.enter[bar] and has <= 0:
            return 1
        if self.enter_short[bar] and has >= 0:
            return -1
        leaves = (self.leave[bar] and has > 0) or (self.leave_short[bar] and has < 0)
        return 0 if leaves else has


@dataclass(frozen=True, eq=False)
class Played:
    """Equity at the close of each bar; fills (bar, shares, price), one for each price; closed trades."""

    equity: F64
    fills: list[tuple[int, int, float]]
    closed: int


def netted(fills: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Fills of one bar at one price are one: a reversal is one order for some engines, and two for others."""
    groups = groupby(fills, key=lambda fill: (fill[0], fill[2]))
    return [(bar, sum(fill[1] for fill in group), price) for (bar, price), group in groups]


def books(rule: Rule) -> Run:
    """The books that this engine keeps of a rule."""
    ticks, n = rule.ticks, rule.ticks.shape[0]
    day = days(n)
    series = series_of(
        day, ticks[:, 3], scale=rule.scale, open_ticks=ticks[:, 0].tolist(), high_ticks=ticks[:, 1].tolist(),
        low_ticks=ticks[:, 2].tolist(),
    )  # fmt: skip
    stops = [StopRule(kind, "pct", value) for kind, value in (("stop", rule.stop), ("target", rule.target)) if value]
    columns = (rule.enter, rule.leave, rule.enter_short, rule.leave_short)
    if rule.side == "short":
        columns = (rule.enter_short, rule.leave_short, rule.enter, rule.leave)
    run = simulate(
        program(
            rules(side=rule.side, size=Size("qty", float(rule.shares)), stops=tuple(stops)), account="linear",
            max_gross=1.0, cash_micro=CASH * UNIT, costs=Costs(rule.bps, 0.0, 0.0, 0.0), start_day=int(day[0]),
            end_day=int(day[-1]),
        ),
        market_of([series], int(day[0]), int(day[-1])),
        ((Signals(0, *map(readonly, columns), None, (), {}),),),
    )  # fmt: skip
    assert_conserves(run)
    assert set(run.counts) <= {"lapsed"}  # the cash never binds: the others mean other things by that
    return run


def ours(rule: Rule) -> Played:
    """This engine."""
    run = books(rule)
    fills = [(int(fill["session"]), int(fill["lots"]), float(fill["price"])) for fill in run.fills]
    return Played(run.equity / UNIT, netted(fills), len(run.trades))


def halves(rule: Rule) -> tuple[F64, F64]:
    """The bars (2 n, 4) as pairs of opening and bar, and the prices (2 n,) at which orders fill."""
    bars = rule.bars
    pairs = np.repeat(bars, 2, axis=0)
    pairs[0] = bars[0, 0]
    pairs[2::2] = bars[:-1, 3:]
    return pairs, np.repeat(bars[:, 0], 2)


def frame(rule: Rule) -> Any:
    """The pairs for engines in which a market order fills at the open: that of the opening is the bar's."""
    import pandas as pd

    pairs, opens = halves(rule)
    pairs[:, 0] = opens
    return pd.DataFrame(pairs, pd.date_range("2000-01-03", periods=len(pairs), freq="h"), COLUMNS).assign(Volume=1000.0)


def levels(rule: Rule, entry: float, side: int) -> tuple[float | None, float | None]:
    """Prices of stop and target as their users compute them, in float64."""
    stop = None if rule.stop is None else entry * (1 - side * rule.stop)
    return stop, None if rule.target is None else entry * (1 + side * rule.target)


def by_vectorbt(rule: Rule) -> Played:
    """Vectorised, signal by signal."""
    return _vectorised(rule, *halves(rule), 2)


def by_plain_vectorbt(rule: Rule) -> Played:
    """The same on the bars as they are."""
    return _vectorised(rule, rule.bars, np.ascontiguousarray(rule.bars[:, 0]), 1)


def _vectorised(rule: Rule, bars: F64, opens: F64, per_bar: int) -> Played:
    import vectorbt

    def late(signal: U8) -> Any:
        """At the bar after the one at whose close it was true."""
        shifted = np.zeros(len(bars), np.bool_)
        shifted[per_bar::per_bar] = signal[:-1]
        return shifted

    made = vectorbt.Portfolio.from_signals(
        bars[:, 3], late(rule.enter), late(rule.leave), late(rule.enter_short), late(rule.leave_short), price=opens,
        open=bars[:, 0], high=bars[:, 1], low=bars[:, 2], size=float(rule.shares), fees=rule.bps / 1e4,
        init_cash=float(CASH), sl_stop=rule.stop or np.nan, tp_stop=rule.target or np.nan,
        stop_entry_price="FillPrice", stop_exit_price="StopMarket", upon_opposite_entry="Reverse", use_stops=True,
        freq="1h",
    )  # fmt: skip
    orders = made.orders.records
    lots = np.rint(np.where(orders["side"] == 0, 1, -1) * orders["size"]).astype(int)
    fills = list(zip((orders["idx"] // per_bar).tolist(), lots.tolist(), orders["price"].tolist(), strict=True))
    equity = made.value().to_numpy()[per_bar - 1 :: per_bar]
    return Played(equity, netted(fills), int(made.exit_trades.closed.count()))


def by_backtesting(rule: Rule) -> Played:
    """backtesting.py: bar by bar, orders with a contingent stop and target."""
    from backtesting import Backtest, Strategy

    class Play(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            pass

        def next(self) -> None:
            bar, is_itself = divmod(len(self.data) - 1, 2)
            if not is_itself:
                for trade in self.trades:
                    if trade.entry_bar == 2 * bar:
                        trade.sl, trade.tp = levels(rule, trade.entry_price, 1 if trade.is_long else -1)
                return
            held = self.position.size
            wanted = rule.wants(bar, held)
            if held and wanted != np.sign(held):
                self.position.close()
            if wanted and wanted != np.sign(held):
                (self.buy if wanted > 0 else self.sell)(size=rule.shares)

    test = Backtest(frame(rule), Play, cash=CASH, commission=rule.bps / 1e4, finalize_trades=False)
    made = test.run()
    closed = made["_trades"]
    entries = list(zip(closed.EntryBar // 2, closed.Size, closed.EntryPrice, strict=True))
    exits = list(zip(closed.ExitBar // 2, -closed.Size, closed.ExitPrice, strict=True))
    still = [(trade.entry_bar // 2, trade.size, trade.entry_price) for trade in made["_strategy"].trades]
    # One trade at a time: entry, exit, entry, ...
    fills = [fill for pair in zip(entries, exits, strict=True) for fill in pair] + still
    return Played(made["_equity_curve"]["Equity"].to_numpy()[1::2], netted(fills), len(closed))


def by_backtrader(rule: Rule) -> Played:
    """backtrader: bar by bar; stop and target are orders of which one cancels the other."""
    import backtrader

    equity: list[float] = []
    fills: list[tuple[int, int, float]] = []
    closed: list[int] = []

    class Play(backtrader.Strategy):  # type: ignore[misc]
        guards: tuple[Any, ...] = ()

        def notify_order(self, order: Any) -> None:
            if order.status == order.Completed:
                fills.append(((len(self) - 1) // 2, int(order.executed.size), order.executed.price))

        def notify_trade(self, trade: Any) -> None:
            closed.extend([trade.ref] * trade.isclosed)

        def next(self) -> None:
            bar, is_itself = divmod(len(self) - 1, 2)
            held = self.position.size
            if not is_itself:
                if held:
                    self.guard(held)
                return
            for order in self.guards:
                self.cancel(order)
            self.guards = ()
            equity.append(self.broker.getvalue())
            wanted = rule.wants(bar, held)
            if held and wanted != np.sign(held):
                self.close()
            if wanted and wanted != np.sign(held):
                (self.buy if wanted > 0 else self.sell)(size=rule.shares)

        def guard(self, held: int) -> None:
            stop, target = levels(rule, self.position.price, 1 if held > 0 else -1)
            close, other = self.sell if held > 0 else self.buy, None
            if stop is not None:
                other = close(size=abs(held), exectype=backtrader.Order.Stop, price=stop)
                self.guards += (other,)
            if target is not None:
                self.guards += (close(size=abs(held), exectype=backtrader.Order.Limit, price=target, oco=other),)

    engine = backtrader.Cerebro(stdstats=False)
    engine.addstrategy(Play)
    engine.adddata(backtrader.feeds.PandasData(dataname=frame(rule)))
    engine.broker.setcash(float(CASH))
    engine.broker.setcommission(commission=rule.bps / 1e4)
    engine.run()
    return Played(np.array(equity), netted(fills), len(closed))


PEERS = {"backtesting": by_backtesting, "vectorbt": by_vectorbt, "backtrader": by_backtrader}
