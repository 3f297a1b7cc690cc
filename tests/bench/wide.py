"""Wide studies: many instruments, many trials; beside what others need for the same rule on the same bars.

The bars are made: random walks on the sessions of the New York Stock Exchange, prices in cents. The rule is a cross of
two averages, long only, ten shares, without costs, so that three programs can say its final equity: this farm, a plain
loop in numba, and vectorbt; they must agree before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import exchange_calendars
import numpy as np
import pyarrow as pa
from numba import njit

from farm import api
from farm.columns.cache import ColumnCache
from farm.shard.layout import study_key
from farm.store.base import Store
from farm.values.arrays import F64, I64
from farm.values.settings import GIB, FarmSettings
from farm.work.run import BlockRunner, Outcome, run_in_process, submit
from tests.bench.harness import Row, forget_peak, peak_bytes, repeat

SYMBOLS, BARS = 1_000, 2_520
SHARES, CASH = 10, 100_000
FIRST = "2014-01-02"
ONE = (10, 50)
AGREE = 1e-10


@cache
def days() -> np.ndarray:
    """The sessions of the bars, as datetime64[D]."""
    sessions = exchange_calendars.get_calendar("XNYS").sessions_in_range(FIRST, "2024-12-31")
    found: np.ndarray = sessions[:BARS].to_numpy().astype("datetime64[D]")
    assert len(found) == BARS
    return found


@cache
def ticks() -> I64:
    """Open and close in cents, (2, symbols, bars)."""
    random = np.random.default_rng(8)
    walk = np.exp(np.cumsum(random.normal(0.0003, 0.015, (SYMBOLS, BARS)), axis=1))
    close = np.maximum(100, np.rint(5_000.0 * walk)).astype(np.int64)
    opened = np.maximum(100, np.rint(close * (1.0 + random.normal(0.0, 0.004, close.shape)))).astype(np.int64)
    return np.stack((opened, close))


def names(count: int) -> list[str]:
    return [f"S{number:04d}" for number in range(count)]


@contextmanager
def wide_store(symbols: int) -> Iterator[FarmSettings]:
    """A local store with so many of the symbols."""
    opened, close = (ticks()[which, :symbols].ravel() / 100.0 for which in (0, 1))
    table = pa.table(
        {
            "symbol": pa.array(np.repeat(names(symbols), BARS)),
            "ts": pa.array(np.tile(days(), symbols).astype("datetime64[D]")),
            "open": opened,
            "high": np.maximum(opened, close),
            "low": np.minimum(opened, close),
            "close": close,
            "volume": np.full(symbols * BARS, 1_000),
        }
    )
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        settings = api.at(str(Path(folder) / "store"))
        api.ingest(table, settings, kind="stock_daily", stamp="date")
        yield settings


def study(symbols: int, fast: list[int], slow: list[int], **more: Any) -> dict[str, Any]:
    """The rule on each of the symbols, for all pairs of lengths."""
    lengths = [{"i": "sma", "n": "$fast"}, {"i": "sma", "n": "$slow"}]
    return {
        "spec": 1,
        "strategy": {
            "params": {"fast": {"choice": fast}, "slow": {"choice": slow}},
            "universes": [{"id": "u", "tickers": names(symbols)}],
            "sleeves": [
                {
                    "id": "cross", "kind": "rules", "universe": "u", "side": "long", "enter": {"cross_up": lengths},
                    "exit": {"cross_dn": lengths}, "size": {"mode": "qty", "v": SHARES},
                }
            ],
        },
        "run": {"dataset": "main", "start": FIRST, "end": str(days()[-1]), "cash": CASH},
        "study": {"each": {"instrument": "u"}, "search": {"grid": {}}, "objective": {"max": "total_return"}, **more},
    }  # fmt: skip


@njit(cache=False)
def plain_loop(opened: F64, close: F64, fast: int, slow: int, cash: float, shares: float) -> float:
    """The final equity of the rule on one symbol, as anybody would write it: no books, no metrics, no checks."""
    a = b = 0.0
    held = 0.0
    wants = 0
    was = 0  # +1: fast above slow on the bar before, -1: below
    for t in range(len(close)):
        if wants == 1 and held == 0.0 and cash >= opened[t]:
            held = min(shares, np.floor(cash / opened[t]))
            cash -= held * opened[t]
        elif wants == -1 and held > 0.0:
            cash += held * opened[t]
            held = 0.0
        wants = 0
        a += close[t] - (close[t - fast] if t >= fast else 0.0)
        b += close[t] - (close[t - slow] if t >= slow else 0.0)
        if t >= slow - 1:
            above, below = a / fast > b / slow, a / fast < b / slow
            if t >= slow and above and was != 1:
                wants = 1
            elif t >= slow and below and was != -1:
                wants = -1
            was = 1 if above else -1 if below else 0
    return cash + held * close[-1]


def by_plain_loop(symbols: int, pairs: list[tuple[int, int]]) -> F64:
    """Final equity, (pairs, symbols). In whole cents, so that sums are exact."""
    opened, close = ticks()[0].astype(np.float64), ticks()[1].astype(np.float64)
    out = np.empty((len(pairs), symbols))
    for p, (fast, slow) in enumerate(pairs):
        for s in range(symbols):
            out[p, s] = plain_loop(opened[s], close[s], fast, slow, CASH * 100.0, float(SHARES)) / 100.0
    return out


def by_vectorbt(symbols: int, pair: tuple[int, int]) -> F64:
    """Final equity of one pair, (symbols,)."""
    import vectorbt

    opened, close = (ticks()[which, :symbols].T / 100.0 for which in (0, 1))
    cents = ticks()[1, :symbols].T.astype(np.float64)
    totals = np.vstack((np.zeros((1, symbols)), np.cumsum(cents, axis=0)))
    means = []
    for length in pair:
        mean = np.full(cents.shape, np.nan)
        mean[length - 1 :] = (totals[length:] - totals[:-length]) / length
        means.append(mean)
    known = ~np.isnan(means[1])
    signals = []
    for over in (means[0] > means[1], means[0] < means[1]):
        crossed = np.zeros(over.shape, np.bool_)
        crossed[1:] = over[1:] & ~over[:-1] & known[:-1]
        late = np.zeros(over.shape, np.bool_)
        late[1:] = crossed[:-1]
        signals.append(late)
    made = vectorbt.Portfolio.from_signals(
        close, *signals, price=opened, size=float(SHARES), init_cash=float(CASH), freq="1D"
    )
    found: F64 = np.asarray(made.final_value(), np.float64)
    return found


def final_equity(outcome: Outcome, symbols: int) -> F64:
    """Final equity of a finished study, (trials, symbols); ids are in the order of the symbols."""
    found: F64 = outcome.results.stored(("equity_end_micro",))["equity_end_micro"].reshape(-1, symbols) / 1e6
    return found


def agree(ours: F64, theirs: F64) -> None:
    """Refuse to time programs that do not do the same."""
    worst = float(np.max(abs(ours - theirs) / theirs))
    if not worst <= AGREE:
        raise AssertionError(f"final equities differ by {worst}")


def _run(spec: dict[str, Any], settings: FarmSettings, column_cache: ColumnCache, threads: int) -> Outcome:
    return run_in_process(spec, api.store_of(settings), fresh=True, threads=threads, cache=column_cache)


def _timed(action: Callable[[], object], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return found


def _parts(outcome: Outcome) -> dict[str, str]:
    return {name: f"{seconds * 1e3:,.0f} ms" for name, seconds in outcome.stats.seconds.items()}


def one_strategy(_: FarmSettings, repeats: int) -> list[Row]:
    """1,000 symbols x 10 years, one strategy, two threads: cold from a local store, and warm; then the others."""
    with wide_store(SYMBOLS) as settings:
        spec = study(SYMBOLS, [ONE[0]], [ONE[1]])
        forget_peak()
        outcome = _run(spec, settings, ColumnCache(GIB), 2)
        peak = peak_bytes()
        plain = by_plain_loop(SYMBOLS, [ONE])
        agree(final_equity(outcome, SYMBOLS), plain)
        agree(by_vectorbt(SYMBOLS, ONE), plain[0])
        cold = _timed(lambda: _run(spec, settings, ColumnCache(GIB), 2), repeats)
        kept = ColumnCache(GIB)
        outcome = _run(spec, settings, kept, 2)
        warm = _timed(lambda: _run(spec, settings, kept, 2), repeats)
        parts = _parts(_run(spec, settings, kept, 2))
        others = {
            "(others) plain loop in numba": min(_timed(lambda: by_plain_loop(SYMBOLS, [ONE]), 3)),
            "(others) vectorbt": min(_timed(lambda: by_vectorbt(SYMBOLS, ONE), 3)),
        }
    shown = parts | {name: f"{seconds * 1e3:,.0f} ms" for name, seconds in others.items()}
    return [
        Row("1,000 symbols x 10 years, cold", "s", 1.0, False, cold, peak_bytes=peak),
        Row("1,000 symbols x 10 years, warm", "s", 0.2, False, warm, shown, peak_bytes=peak),
    ]


def pairs(_: FarmSettings, repeats: int) -> Row:
    """2,000 pairs x 20 symbols, one thread."""
    symbols, fast, slow = 20, list(range(5, 45)), list(range(50, 150, 2))
    with wide_store(symbols) as settings:
        spec, kept = study(symbols, fast, slow), ColumnCache(GIB)
        forget_peak()
        outcome = _run(spec, settings, kept, 1)
        peak = peak_bytes()
        both = [(a, b) for a in fast for b in slow]
        agree(final_equity(outcome, symbols), by_plain_loop(symbols, both))
        values = _timed(lambda: _run(spec, settings, kept, 1), repeats)
        shown = _parts(outcome)
        shown["(others) plain loop in numba"] = f"{min(_timed(lambda: by_plain_loop(symbols, both), 2)) * 1e3:,.0f} ms"
    return Row("2,000 pairs x 20 symbols", "s", 4.0, False, values, shown, peak_bytes=peak)


def wide(_: FarmSettings, repeats: int) -> list[Row]:
    """100 trials x 1,000 symbols, two threads; and what the second thread is worth."""
    fast, slow = list(range(5, 45, 4)), list(range(50, 150, 10))
    with wide_store(SYMBOLS) as settings:
        spec, kept = study(SYMBOLS, fast, slow), ColumnCache(GIB)
        _run(study(SYMBOLS, fast[:1], slow[:1]), settings, kept, 1)
        forget_peak()
        outcome = _run(spec, settings, kept, 2)
        peak = peak_bytes()
        agree(final_equity(outcome, SYMBOLS), by_plain_loop(SYMBOLS, [(a, b) for a in fast for b in slow]))
        count = max(1, repeats // 2)
        two = _timed(lambda: _run(spec, settings, kept, 2), count)
        blocks = [
            [_run(spec, settings, kept, threads).stats.seconds["run"] for threads in (1, 2)] for _ in range(count)
        ]
    ratio = [alone / both for alone, both in blocks]
    spent = {f"blocks on {k + 1} threads": f"{statistics.median(row[k] for row in blocks):,.2f} s" for k in (0, 1)}
    return [
        Row("100 trials x 1,000 symbols", "s", 8.0, False, two, _parts(outcome), peak_bytes=peak),
        Row("two threads against one, blocks of 1e5 cells", "x", 1.8, True, ratio, spent),
    ]


HEADLINES = {
    "1e5 trials x 1,000 symbols": study(SYMBOLS, list(range(2, 402)), list(range(402, 652))),
    "2,000 x 2,000 grid on five": study(5, list(range(2, 2_002)), list(range(2_002, 4_002))),
}


def planning(_: FarmSettings, repeats: int) -> list[Row]:
    """Studies too large to run here, submitted until their first block is known; then that block is computed. Nothing
    of it grows with the number of cells. The peak is what submitting adds to the memory of the process."""
    with wide_store(SYMBOLS) as settings:
        store = api.store_of(settings)
        return [_submitted(name, spec, store, max(1, repeats // 2)) for name, spec in HEADLINES.items()]


def _submitted(name: str, spec: dict[str, Any], store: Store, repeats: int) -> Row:
    parts: dict[str, list[float]] = {}
    peaks: list[int] = []

    def measure() -> float:
        forget_peak()
        before, start = peak_bytes(), time.perf_counter()
        submission = submit(spec, store, fresh=True, cache=ColumnCache(GIB))
        first = submission.study.block(0)
        known = time.perf_counter()
        peaks.append(peak_bytes() - before)
        runner = BlockRunner(store, cache=ColumnCache(GIB))
        runner.share(submission)
        runner.run_block(submission.study, first.index)
        parts.setdefault("(not counted) that block computed and stored", []).append(time.perf_counter() - known)
        count = len(submission.study.blocks)
        some = range(0, count, max(1, count // 200))
        spent = _timed(lambda: [submission.study.block(index) for index in some], 1)[0] / len(some)
        parts.setdefault(f"the definition of a block, of {count:,}", []).append(spent)
        record = study_key(submission.study.name)
        parts["MB of the record, / 1,000"] = [len(store.get(record)) / 1e9]
        store.delete(record)
        return known - start

    values = repeat(measure, repeats)
    shown = {part: f"{statistics.median(all_) * 1e3:,.2f} ms" for part, all_ in parts.items()}
    shown["the record"] = shown.pop("MB of the record, / 1,000").replace(" ms", " MB")
    return Row(f"{name}, to the first block", "s", 5.0, False, values, shown, peak_bytes=max(peaks))
