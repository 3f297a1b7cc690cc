"""The triple agreement of domain.md section 5: other people's engines on the bars that come with one of them.

SMA 10/30 cross on GOOG, ten shares, 10 bps, cash 10,000, decisions at the close, fills at the next open, the last
position left open and marked. The other engines count money in floats, hence a relative tolerance of 1e-9; ours are
integers, hence the exact literals. Conventions are matched first: signals are computed once and handed to each engine
(they decide first one bar later than we do; the first cross comes after that).
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from farm.engine.events import simulate
from farm.engine.ledger import Run
from farm.market.panel import Market
from farm.program.program import Size
from farm.results.record import ledger_digest
from farm.signals.evaluate import Signals
from farm.spec.spec import Costs
from farm.values.arrays import F64, U8, readonly
from tests.engine.support import UNIT, assert_conserves, program, rules
from tests.generators import market_of, series_of

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def frame() -> object:
    """GOOG, daily, 2004-08-19 to 2013-03-01, as backtesting.py ships it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pytest.importorskip("backtesting.test")
    return data.GOOG


@pytest.fixture(scope="module")
def goog(frame) -> Market:  # type: ignore[no-untyped-def]
    """The same bars as a market."""
    day = frame.index.to_numpy().astype("datetime64[D]").astype(np.int32)
    ticks = {name: np.rint(frame[name].to_numpy() * 100).astype(np.int64) for name in ("Open", "High", "Low", "Close")}
    assert all((ticks[name] / 100.0 == frame[name].to_numpy()).all() for name in ticks)
    series = series_of(
        day, ticks["Close"], symbol="GOOG", start_day=int(day[0]), open_ticks=ticks["Open"].tolist(),
        high_ticks=ticks["High"].tolist(), low_ticks=ticks["Low"].tolist(), volume=frame["Volume"].tolist(),
    )  # fmt: skip
    return market_of([series], int(day[0]), int(day[-1]))


def crosses(close: F64) -> tuple[U8, U8]:
    """Where SMA 10 crosses SMA 30 upward and downward: a > b now and not before, both known on both bars."""

    def mean(n: int) -> F64:
        out = np.full(close.shape[0], np.nan)
        out[n - 1 :] = np.lib.stride_tricks.sliding_window_view(np.rint(close * 100), n).sum(axis=1) / n
        return out

    fast, slow = mean(10), mean(30)
    known = ~np.isnan(slow)
    up, down = fast > slow, slow > fast
    enter, leave = np.zeros(close.shape[0], np.uint8), np.zeros(close.shape[0], np.uint8)
    enter[1:] = up[1:] & ~up[:-1] & known[:-1]
    leave[1:] = down[1:] & ~down[:-1] & known[:-1]
    return readonly(enter), readonly(leave)


@pytest.fixture(scope="module")
def ours(goog: Market) -> Run:
    """Our run of the rule."""
    enter, leave = crosses(goog.series[0].close)
    none = np.zeros_like(enter)
    return simulate(
        program(
            rules(size=Size("qty", 10.0)),
            costs=Costs(10.0, 0.0, 0.0, 0.0),
            start_day=goog.start_day,
            end_day=goog.end_day,
        ),
        goog,
        ((Signals(0, enter, leave, none, none, None, (), {}),),),
    )


def test_published_numbers(ours: Run) -> None:
    """32 closed trades and 17,430.0841, as domain.md says; the ledger is a golden fingerprint."""
    assert len(ours.trades) == 32
    assert len(ours.open_trades) == 1
    assert ours.equity_end_micro == 17_430_084_100
    assert ours.fees_micro["commission"] == 309_315_900
    assert_conserves(ours)
    assert ledger_digest(ours, "") == "3ce93d4ff9426dde6ea8bfa615110839a679d809e7594df298c91c7225803f14"


def test_backtesting_py_agrees(ours: Run, frame, goog: Market) -> None:  # type: ignore[no-untyped-def]
    """Same number of trades, same equity on every session."""
    from backtesting import Backtest, Strategy

    enter, leave = crosses(goog.series[0].close)

    class Cross(Strategy):
        def init(self) -> None:
            self.enter = self.I(lambda: enter.astype(float))
            self.leave = self.I(lambda: leave.astype(float))

        def next(self) -> None:
            if self.position and self.leave[-1] == 1:
                self.position.close()
            elif not self.position and self.enter[-1] == 1:
                self.buy(size=10)

    found = Backtest(frame, Cross, cash=10_000, commission=0.001, finalize_trades=False).run()
    curve = found["_equity_curve"]["Equity"].to_numpy()
    np.testing.assert_allclose(ours.equity / UNIT, curve, rtol=1e-9, atol=0)
    assert found["# Trades"] == len(ours.trades)
    closed_bars = ours.market_bars.sum() - ours.open_trades["bars"].sum()  # it leaves the open trade out
    exposure = 100.0 * closed_bars / ours.decision_bars.sum()
    assert found["Exposure Time [%]"] == pytest.approx(exposure, rel=1e-12)


def test_backtrader_agrees(ours: Run, frame, goog: Market) -> None:  # type: ignore[no-untyped-def]
    """Same equity on every session."""
    backtrader = pytest.importorskip("backtrader")
    enter, leave = crosses(goog.series[0].close)
    curve: list[float] = []

    class Cross(backtrader.Strategy):
        def next(self) -> None:
            row = len(self) - 1
            curve.append(self.broker.getvalue())
            if self.position and leave[row]:
                self.close()
            elif not self.position and enter[row]:
                self.buy(size=10)

    engine = backtrader.Cerebro(stdstats=False)
    engine.addstrategy(Cross)
    engine.adddata(backtrader.feeds.PandasData(dataname=frame))
    engine.broker.setcash(10_000.0)
    engine.broker.setcommission(commission=0.001)
    engine.run()
    np.testing.assert_allclose(ours.equity / UNIT, curve, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_vectorbt_agrees(ours: Run, frame, goog: Market) -> None:  # type: ignore[no-untyped-def]
    """Same equity on every session, 65 orders."""
    vectorbt = pytest.importorskip("vectorbt")
    enter, leave = crosses(goog.series[0].close)

    def shifted(signal: U8) -> object:
        return pd.Series(np.concatenate(([False], signal[:-1].astype(bool))), index=frame.index)

    found = vectorbt.Portfolio.from_signals(
        frame["Close"], shifted(enter), shifted(leave), price=frame["Open"], size=10.0, fees=0.001, init_cash=10_000.0,
        freq="1D",
    )  # fmt: skip
    np.testing.assert_allclose(ours.equity / UNIT, found.value().to_numpy(), rtol=1e-9, atol=0)
    assert found.orders.count() == len(ours.fills) == 65
