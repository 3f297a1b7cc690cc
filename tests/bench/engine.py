"""The event loop on one core: bar steps per second, and what an instrument costs that nobody holds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from farm import api
from farm.columns.cache import ColumnCache
from farm.engine.events import Simulator
from farm.engine.room import RecordRoom
from farm.market.tape import Tape, make_tape
from farm.program.program import Program, Size
from farm.signals.evaluate import Signals, evaluate
from farm.signals.store import SeriesStore
from farm.values.arrays import readonly
from farm.values.settings import GIB, FarmSettings
from farm.work.run import BlockRunner, submit
from tests.bench.harness import Row, microseconds, repeat
from tests.bench.studies import demo_spec, one_trial
from tests.engine import support
from tests.generators import market_of, series_of, weekdays

RUNS = 200
DAYS = 1_000
ROOM = RecordRoom()
HELD = 10
INSTRUMENTS = 1_000


def plain_spec() -> dict[str, Any]:
    """A cross on AAPL without stops and fees: on nearly all bars no order works."""
    return one_trial(demo_spec())


def stop_spec() -> dict[str, Any]:
    """The same with a stop, a target and fees of every kind: the event loop has everything to do."""
    spec = one_trial(demo_spec())
    spec["strategy"]["sleeves"][0]["stops"] = [{"type": "stop", "pct": 0.08}, {"type": "target", "pct": 0.25}]
    spec["run"]["costs"] = {"bps": 5, "per_share": 0.005, "min": 1}
    return spec


def event_loop(settings: FarmSettings, repeats: int) -> list[Row]:
    """Bar steps per second and core of the kernel, without anything that works, and with everything."""
    return [
        _on_real_bars("event loop, a cross", 40, plain_spec(), settings, repeats),
        _on_real_bars("event loop, stop, target and fees", 20, stop_spec(), settings, repeats),
    ]


def _on_real_bars(name: str, target: float, spec: dict[str, Any], settings: FarmSettings, repeats: int) -> Row:
    submission = submit(spec, api.store_of(settings), fresh=True)
    runner = BlockRunner(api.store_of(settings), cache=ColumnCache(GIB))
    context = runner.context(submission.study)
    market, program = context.market(0), context.program(0)
    one = program.on("AAPL")
    signals = evaluate(one, market.market, SeriesStore(GIB))
    bars = market.tape.tables.bars.shape[0]
    parts: dict[str, list[float]] = {"lay out signals and tables": [], "kernel": [], "books": []}

    def measure() -> float:
        spent = dict.fromkeys(parts, 0.0)
        for _ in range(RUNS):
            for part, seconds in zip(parts, _run_once(one, market.tape, signals), strict=True):
                spent[part] += seconds
        for part in parts:
            parts[part].append(spent[part] / RUNS)
        return bars * RUNS / spent["kernel"] / 1e6

    values = repeat(measure, repeats)
    shown = {part: f"{microseconds(statistics.median(all_))} per run" for part, all_ in parts.items()}
    return Row(name, "M bar-steps/s/core", target, True, values, {"bars": f"{bars:,}", **shown})


def universe(settings: FarmSettings, repeats: int) -> Row:
    """What a row of the tape costs in a universe of 1,000 instruments, against one of 10; both hold the same 10."""
    few, many = (_generated(count) for count in (HELD, INSTRUMENTS))
    costs: dict[str, list[float]] = {f"{HELD} instruments": [], f"{INSTRUMENTS:,} instruments": []}

    def measure() -> float:
        for (program, tape, signals), runs, found in zip((few, many), (100, 5), costs.values(), strict=True):
            kernel = sum(_run_once(program, tape, signals)[1] for _ in range(runs))
            found.append(kernel / runs / tape.tables.bars.shape[0])
        small, large = (found[-1] for found in costs.values())
        return large / small

    values = repeat(measure, repeats)
    shown = {name: f"{statistics.median(all_) * 1e9:.1f} ns per tape row" for name, all_ in costs.items()}
    return Row(f"{INSTRUMENTS:,} instruments against {HELD}, {HELD} held", "x per row", 1.2, False, values, shown)


def _generated(count: int) -> tuple[Program, Tape, Sequence[Sequence[Signals]]]:
    """A sleeve on so many random walks, the first ten of which are held half of the time."""
    random = np.random.default_rng(7)
    days = weekdays(DAYS, support.START)
    walks = np.maximum(500, 5_000 * np.cumprod(1.0 + random.normal(0.0, 0.01, (count, DAYS)), axis=1)).astype(np.int64)
    series = [series_of(days, walk, symbol=f"S{k:04d}", start_day=support.START) for k, walk in enumerate(walks)]
    market = market_of(series, support.START, int(days[-1]), sessions=days)
    never = readonly(np.zeros(DAYS, np.uint8))
    enter, leave = (support.mask(DAYS, *range(first, DAYS, 40)) for first in (0, 20))
    signals = [
        Signals(k, enter if k < HELD else never, leave if k < HELD else never, never, never, None, (), {})
        for k in range(count)
    ]
    sleeve = support.rules(size=Size("qty", 10.0), max_positions=count, universe=tuple(one.id for one in market.series))
    program = support.program(sleeve, end_day=market.end_day, cash_micro=10_000_000 * support.UNIT)
    return program, make_tape(market), (signals,)


def _run_once(program: Program, tape: Tape, signals: Sequence[Sequence[Signals]]) -> tuple[float, float, float]:
    """Return the seconds of one run: to lay out its tables, in the kernel, and to list its books.

    Runs share the room for their records, as those of one thread of a study do.
    """
    start = time.perf_counter()
    simulator = Simulator(program, tape.market, signals, tape)
    state = simulator.start(ROOM)
    ready = time.perf_counter()
    simulator.advance(state, tape.instants)
    done = time.perf_counter()
    simulator.finish(state)
    ROOM.give(state.tables)
    return ready - start, done - ready, time.perf_counter() - done
