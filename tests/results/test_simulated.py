"""Claims: a simulated run measures to what its books say, and a cell's digests do not see how it was run."""

from typing import Any

import numpy as np
import pytest

from farm.engine.events import simulate
from farm.engine.ledger import Run
from farm.market.panel import InstrumentSeries, Market
from farm.program.lookback import NO_PARAMETERS
from farm.program.template import compile_study
from farm.results.record import CellResult, cell_result
from farm.shard.calendar import Calendar
from farm.signals.evaluate import evaluate
from farm.signals.store import SeriesStore
from farm.spec.parse import load_study
from farm.spec.resolve import resolve
from farm.values.arrays import readonly
from farm.values.canon import fingerprint
from farm.values.metrics import METRIC_NAMES
from farm.values.units import NS_PER_DAY, NS_PER_HOUR, iso

FIRST_DAY, SESSIONS = 15_000, 900
MICRO = 1_000_000


def calendar() -> Calendar:
    day = np.arange(FIRST_DAY, FIRST_DAY + SESSIONS, dtype=np.int32)
    start = day.astype(np.int64) * NS_PER_DAY
    return Calendar("XNYS", readonly(day), readonly(start + 14 * NS_PER_HOUR), readonly(start + 21 * NS_PER_HOUR))


def series(name: str, seed: int) -> InstrumentSeries:
    rng = np.random.default_rng(seed)
    cents = np.maximum(10_000 + np.cumsum(rng.integers(-120, 126, SESSIONS)), 500)
    opening = cents + rng.integers(-50, 51, SESSIONS)
    high = np.maximum(cents, opening) + rng.integers(0, 60, SESSIONS)
    low = np.minimum(cents, opening) - rng.integers(0, 60, SESSIONS)
    none = np.empty(0, np.int64)
    sessions = calendar()
    return InstrumentSeries(
        id=name,
        symbol=name,
        type="stock",
        calendar=calendar().name,
        lot_micro=MICRO,
        price_scale=2,
        multiplier=1,
        day=sessions.day,
        open_ts=sessions.open_ts,
        close_ts=sessions.close_ts,
        open=readonly(opening / 100),
        high=readonly(high / 100),
        low=readonly(low / 100),
        close=readonly(cents / 100),
        volume=readonly(np.full(SESSIONS, 1e6)),
        open_ticks=readonly(opening.astype(np.int64)),
        close_ticks=readonly(cents.astype(np.int64)),
        factor=readonly(np.ones(SESSIONS)),
        factor_num=readonly(np.ones(SESSIONS)),
        factor_den=readonly(np.ones(SESSIONS)),
        factor_tr=readonly(np.ones(SESSIONS)),
        split_day=np.empty(0, np.int32),
        split_num=none,
        split_den=none,
        dividend_day=np.empty(0, np.int32),
        dividend_pay_day=np.empty(0, np.int32),
        dividend_pay_assumed=np.empty(0, np.bool_),
        dividend_amount=np.empty(0),
    )


def market(*names: str) -> Market:
    held = tuple(series(name, sum(name.encode())) for name in sorted(names))
    return Market(
        calendar=calendar(),
        calendars={calendar().name: calendar()},
        series=held,
        index={one.id: at for at, one in enumerate(held)},
        start_day=FIRST_DAY,
        end_day=FIRST_DAY + SESSIONS - 1,
        snapshot="",
        no_dividends=True,
        no_splits=True,
    )


def document(*tickers: str) -> dict[str, Any]:
    def sma(n: int) -> dict[str, Any]:
        return {"i": "sma", "n": n}

    return {
        "spec": 1,
        "strategy": {
            "universes": [{"id": "u", "tickers": list(tickers)}],
            "sleeves": [
                {
                    "id": "x",
                    "kind": "rules",
                    "universe": "u",
                    "side": "long",
                    "enter": {"cross_up": [sma(5), sma(20)]},
                    "exit": {"cross_dn": [sma(5), sma(20)]},
                    "size": {"mode": "pct_equity", "v": 0.4},
                    "stops": [{"type": "stop", "pct": 0.05}],
                }
            ],
        },
        "run": {
            "dataset": "main",
            "start": iso(FIRST_DAY),
            "end": iso(FIRST_DAY + SESSIONS - 1),
            "cash": 100_000,
            "costs": {"bps": 10},
            "exec": {"slip_bps": 2},
        },
    }


def run_of(held: Market, *tickers: str, batch_rows: int | None = None) -> tuple[Run, str]:
    spec = load_study(document(*tickers))
    program = compile_study(spec).one(NO_PARAMETERS, 0)
    signals = evaluate(program, held, SeriesStore(1 << 24))
    return simulate(program, held, signals, batch_rows=batch_rows), fingerprint(resolve(spec, {}, None))


def kept(run: Run, spec_hash: str) -> CellResult:
    return cell_result(run, spec_hash, ann=252.0, rf=0.0)


@pytest.mark.parametrize("tickers", [("AAA",), ("AAA", "BBB", "CCC")])
def test_the_metrics_agree_with_the_books(tickers: tuple[str, ...]) -> None:
    run, spec_hash = run_of(market(*tickers), *tickers)
    got = dict(zip(METRIC_NAMES, kept(run, spec_hash).vectors[0].tolist(), strict=True))
    assert got["trades"] == len(run.trades) > 10
    assert got["orders"] == len(run.orders)
    assert got["fills"] == len(run.fills)
    assert {line: got[f"fees_{line}"] for line in run.fees_micro} == {
        line: micro / MICRO for line, micro in run.fees_micro.items()
    }
    assert got["fees_slippage"] > 0
    turnover = run.traded_notional_micro / (2 * run.equity.mean()) * 252 / SESSIONS
    assert got["turnover"] == pytest.approx(turnover, rel=1e-12)
    assert got["exposure"] == pytest.approx((run.position / run.equity).mean(), rel=1e-12)
    assert got["tim"] == run.market_bars.sum() / run.decision_bars.sum()
    gained = int(run.trades["pnl_micro"].sum() + run.open_trades["pnl_micro"].sum())
    assert run.equity_end_micro == run.cash_micro + gained
    assert got["total_return"] == gained / run.cash_micro
    assert got["expectancy"] == pytest.approx(run.trades["pnl_micro"].mean() / MICRO, rel=1e-12)


def test_the_digests_do_not_see_what_else_the_market_holds() -> None:
    """The same spec over a market that also holds other instruments, before and after it in id order."""
    alone = kept(*run_of(market("BBB"), "BBB"))
    among = kept(*run_of(market("AAA", "BBB", "CCC"), "BBB"))
    assert (among.ledger, among.stats) == (alone.ledger, alone.stats)


@pytest.mark.parametrize("batch_rows", [1, 7, 300])
def test_the_digests_do_not_see_the_batches(batch_rows: int) -> None:
    tickers = ("AAA", "BBB")
    whole = kept(*run_of(market(*tickers), *tickers))
    cut = kept(*run_of(market(*tickers), *tickers, batch_rows=batch_rows))
    assert (cut.ledger, cut.stats) == (whole.ledger, whole.stats)


def test_another_price_is_another_ledger() -> None:
    first, second = (kept(*run_of(market(name), name)) for name in ("AAA", "BBB"))
    assert first.ledger != second.ledger
    assert first.stats != second.stats
