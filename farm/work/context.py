"""What the cells of a study share within a process: programs, markets, tapes, indicator series, benchmark returns.

One context serves every thread that works on the study. Whatever does not depend on the trial is made once, by the
thread that wants it first, and is read-only after:

    trial                -> resolved spec, program
    instrument           -> market with the longest history that any trial needs, its tape, benchmark returns
    (expression, series) -> indicator values, in the series store

A longer history than a trial needs changes no bit of it: indicators find their own anchors (domain.md 2.4).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from farm.columns.cache import ColumnCache
from farm.engine.events import simulate
from farm.engine.incidents import SILENT, incidents, silent
from farm.engine.ledger import Run
from farm.engine.room import RecordRoom
from farm.engine.trials import Stage, stack, stage
from farm.kernels.trials import TrialRows
from farm.market.adjust import doubtful_splits
from farm.market.benchmark import benchmark_returns
from farm.market.load import load_market, prefetch
from farm.market.panel import Market
from farm.market.tape import Tape, make_tape
from farm.program.program import Program
from farm.program.template import compile_study
from farm.results.measure import rf_per_session
from farm.results.record import CellResult, Header, cell_result
from farm.shard.dataset import Dataset
from farm.shard.snapshot import Snapshot
from farm.signals.evaluate import evaluate
from farm.signals.store import SeriesStore
from farm.spec.parse import load_study
from farm.spec.resolve import ResolvedTrial, Resolver, fixed_tickers
from farm.store.base import Store
from farm.store.wrap import Metered
from farm.study.split import buckets_of
from farm.study.trials import Study
from farm.values.arrays import F64, I64
from farm.values.settings import CacheSettings
from farm.values.shared import Shared


@dataclass(frozen=True, eq=False)
class CellMarket:
    """What all trials on one instrument (or on the universe) share."""

    market: Market
    tape: Tape
    stage: Stage
    header: Header
    benchmark: F64 | None
    doubtful_splits: int

    @property
    def bytes(self) -> int:
        """Bytes of its arrays, without the calendars, which all markets share."""
        parts = [self.benchmark, *vars(self.tape).values(), *self.tape.tables]
        parts += [value for series in self.market.series for value in vars(series).values()]
        return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


@dataclass(frozen=True, eq=False)
class Scored:
    """A simulated cell: the books of the run, and what is kept of it."""

    run: Run
    result: CellResult


class Memory:
    """What the studies of a process keep, each kind within one budget for all of them.

    A market above the whole budget is kept all the same, alone: each of its cells asks for it more than once.
    """

    def __init__(self, columns: ColumnCache, settings: CacheSettings) -> None:
        market_bytes_max = settings.market_bytes_max
        self.columns = columns
        self.series = SeriesStore(settings.series_bytes_max)
        self.markets: Shared[tuple[str, int], CellMarket] = Shared(
            market_bytes_max, size_of=lambda market: min(market.bytes, market_bytes_max)
        )
        self.programs: Shared[tuple[str, int], tuple[ResolvedTrial, Program]] = Shared(settings.programs_max)


class StudyContext:
    """The shared state of one study in this process; safe for many threads."""

    def __init__(self, study: Study, store: Store, snapshot: Snapshot, memory: Memory) -> None:
        self.study = study
        self.spec = load_study(dict(study.spec))
        self._metered = Metered(store)
        self.dataset = Dataset(self._metered, snapshot)
        self._memory = memory
        self._resolver = Resolver(self.spec)
        self._compiled = compile_study(self.spec)
        self.buckets = buckets_of(self.spec.study.split if self.spec.study else None, study.sessions)
        self._fixed = frozenset(self.dataset.resolve(ticker, "sym") for ticker in fixed_tickers(self.spec))
        self._threads = threading.local()

    def has_data(self, position: int) -> bool:
        """Whether the instruments of the cells at ``position`` have a bar in the window."""
        return bool(self.study.round.reads.bars[position])

    def fetch(self, positions: set[int]) -> None:
        """Fetch what the cells at ``positions`` read in one wave, as far as the column cache can keep it."""
        first_day: dict[str, int] = {}
        for position in positions:
            if self.study.round.reads.bars[position]:
                since = self.study.first_day([position])
                for name in self._names(self.study.cell_instruments[position]):
                    first_day[name] = min(since, first_day.get(name, since))
        plan = self.dataset.read_plan(first_day, self.spec.run.end_day, self.study.columns)
        prefetch(self.dataset, self._memory.columns, plan)

    def bytes_fetched(self) -> int:
        """Return the bytes that have come over the wire and were not told yet: each is told once.

        While several threads load for this study, they are told to the first that asks.
        """
        return self._metered.take()

    def market(self, position: int) -> CellMarket:
        """Return the market of the cells at ``position`` among a trial's cells."""
        return self._memory.markets.get((self.study.name, position), lambda: self._load(position))

    def program(self, trial: int) -> tuple[ResolvedTrial, Program]:
        """Return the resolved spec and the program of a trial."""
        return self._memory.programs.get((self.study.name, trial), lambda: self._compile(trial))

    def _compile(self, trial: int) -> tuple[ResolvedTrial, Program]:
        resolved = self._resolver.trial(self.study.params(trial))
        return resolved, self._compiled.one(self.study.table, trial)

    def _load(self, position: int) -> CellMarket:
        study, run = self.study, self.spec.run
        first_day = study.first_day([position])
        instrument = study.cell_instruments[position]
        market = self._load_market(self._names(instrument), first_day)
        benchmark = None
        if run.benchmark:
            name = self.dataset.resolve(run.benchmark, "run.benchmark")
            series = self._load_market((name,), first_day, frozenset(("close",))).series[0]
            benchmark = benchmark_returns(series, market.calendar.day)
        traded = self._traded(market, instrument)
        tape = make_tape(market, traded)
        place = {market.series[index].symbol: asset for asset, index in enumerate(traded)}
        sleeves = self._program_of(0, position).sleeves
        held = [(w, at) for w, one in enumerate(sleeves) for at in sorted(place[ticker] for ticker in one.universe)]
        return CellMarket(
            market=market,
            tape=tape,
            stage=stage(
                tape,
                run,
                held,
                buckets=np.array(self.buckets.stretches, np.int64),
                rf_p=rf_per_session(run.rf, run.ann),
                benchmark=benchmark,
            ),
            header=Header(
                cash_micro=run.cash_micro,
                session_day=market.calendar.day,
                sleeves=tuple(sleeve.id for sleeve in sleeves),
                instruments=tuple(market.series[index].id for index in traded),
            ),
            benchmark=benchmark,
            doubtful_splits=sum(doubtful_splits(market.series[index], market.start_day) for index in traded),
        )

    def _traded(self, market: Market, instrument: str | None) -> tuple[int, ...]:
        """Return the positions in the market of what the cell trades; the rest is only looked at."""
        if instrument is not None:
            return (market.index[instrument],)
        _, program = self.program(0)
        tickers = {ticker for sleeve in program.sleeves for ticker in sleeve.universe}
        return tuple(sorted(market.index[self.dataset.resolve(ticker, "strategy")] for ticker in tickers))

    def _names(self, instrument: str | None) -> tuple[str, ...]:
        """Return the ids of the cell's instruments: its own, and those that expressions name."""
        if instrument is None:
            return tuple(sorted(self.study.symbols, key=str.encode))
        return tuple(sorted(self._fixed | {instrument}, key=str.encode))

    def _load_market(self, names: tuple[str, ...], first_day: int, columns: frozenset[str] | None = None) -> Market:
        run = self.spec.run
        return load_market(
            self.dataset,
            self._memory.columns,
            names,
            calendar_name=run.calendar,
            start_day=run.start_day,
            end_day=run.end_day,
            first_day=dict.fromkeys(names, first_day),
            columns=columns if columns is not None else frozenset(self.study.columns),
        )

    def trial_rows(self, trials: Sequence[int], position: int) -> tuple[TrialRows, I64]:
        """Return the rules and signals of trials on the instruments of a cell, and how often each was ``SILENT``:
        (2, trials)."""
        shared = self.market(position)
        programs = [self._program_of(trial, position) for trial in trials]
        signals = [evaluate(program, shared.market, self._memory.series) for program in programs]
        said = [silent(shared.market, one) for one in signals]
        return stack(programs, signals, shared.stage), np.array([[one.get(n, 0) for one in said] for n in SILENT])

    def assumptions(self, trial: int) -> tuple[str, ...]:
        """Return what the spec of a trial assumes."""
        return self.program(trial)[1].assumptions

    def spec_hash(self, trial: int, position: int) -> str:
        """Return the hash of the resolved spec of a cell."""
        instrument = self.study.cell_instruments[position]
        ticker = None if instrument is None else self.study.symbols[instrument]
        return self.program(trial)[0].cell_hash(ticker)

    def simulate(self, trial: int, position: int) -> Run:
        """Run one cell through the engine, for its books."""
        shared, program = self.market(position), self._program_of(trial, position)
        signals = evaluate(program, shared.market, self._memory.series)
        run = simulate(program, shared.market, signals, tape=shared.tape, room=self.room())
        more = {**incidents(run, shared.market, signals)}
        if shared.doubtful_splits:
            more["split_doubtful"] = shared.doubtful_splits
        return replace(run, counts={**run.counts, **more}) if more else run

    def room(self) -> RecordRoom:
        """Return this thread's own room for records."""
        if not hasattr(self._threads, "room"):
            self._threads.room = RecordRoom()
        room: RecordRoom = self._threads.room
        return room

    def anchors(self, trial: int, position: int) -> dict[str, str]:
        """Return, per recursive indicator of the cell, the day on which its steps began (domain.md 2.4)."""
        signals = evaluate(self._program_of(trial, position), self.market(position).market, self._memory.series)
        found: dict[str, str] = {}
        for one in (one for sleeve in signals for one in sleeve):
            for label, day in one.anchors.items():
                found[label] = min(day, found.get(label, day))
        return dict(sorted(found.items()))

    def _program_of(self, trial: int, position: int) -> Program:
        _, program = self.program(trial)
        instrument = self.study.cell_instruments[position]
        return program if instrument is None else program.on(self.study.symbols[instrument])

    def score(self, run: Run, trial: int, position: int) -> Scored:
        """Return the metrics and digests of a run of this cell."""
        spec, shared = self.spec.run, self.market(position)
        result = cell_result(
            run,
            self.spec_hash(trial, position),
            ann=spec.ann,
            rf=spec.rf,
            benchmark_returns=shared.benchmark,
            in_sample=self.buckets.stretch("is"),
            out_of_sample=self.buckets.stretch("oos"),
        )
        return Scored(run, result)
