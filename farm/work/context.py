"""What the cells of a study share within a process: programs, markets, tapes, indicator series, benchmark returns.

One context serves every thread that works on the study. Whatever does not depend on the trial is made once, by the
thread that wants it first, and is read-only after:

    trial                -> resolved spec, program
    instrument           -> market with the longest history that any trial needs, its tape, benchmark returns; those of
                            many instruments at once, as slices of a panel
    (expression, series) -> indicator values, in the series store

A longer history than a trial needs changes no bit of it: indicators find their own anchors (domain.md 2.4).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from farm.columns.cache import ColumnCache
from farm.engine.events import simulate
from farm.engine.incidents import incidents
from farm.engine.ledger import Run
from farm.engine.room import RecordRoom
from farm.engine.trials import Terms, traded_before
from farm.market.adjust import doubtful_splits
from farm.market.benchmark import benchmark_returns
from farm.market.load import load_panel, prefetch
from farm.market.panel import Market, Panel
from farm.market.tape import Tape, make_tape
from farm.market.tapes import TILE_BYTES, Tapes, make_tapes, tiles
from farm.program.program import Program
from farm.program.template import StudyProgram
from farm.results.measure import rf_per_session
from farm.results.record import CellResult, cell_result
from farm.shard.dataset import Dataset
from farm.shard.plan import ReadPlan
from farm.signals.evaluate import evaluate
from farm.signals.store import SeriesStore
from farm.spec.resolve import ResolvedTrial, Resolver, fixed_tickers
from farm.spec.spec import StudySpec
from farm.store.wrap import Metered
from farm.study.needs import needs_of
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
    benchmark: F64 | None
    doubtful_splits: int


@dataclass(frozen=True, eq=False)
class Tile:
    """What the markets of some positions are slices of: instruments that are traded alone, each on its tape, with those
    that every market has ``beside`` them; or the universe, on one tape.

    markets: those that were asked for so far, by position.
    """

    panel: Panel
    tape: Tapes | Tape
    beside: Panel | None
    benchmark: F64 | None
    doubtful_splits: I64
    markets: dict[int, CellMarket] = field(default_factory=dict)

    @cached_property
    def traded(self) -> I64:
        """How many bars of the panel before each have volume."""
        return traded_before(self.panel.volume)

    @property
    def bytes(self) -> int:
        """Bytes of its arrays, without the calendars, which all markets share."""
        return self.panel.bytes + self.tape.bytes + (0 if self.beside is None else self.beside.bytes)


@dataclass(frozen=True, eq=False)
class Scored:
    """A simulated cell: the books of the run, and what is kept of it."""

    run: Run
    result: CellResult


class Memory:
    """What the studies of a process keep, each kind within one budget for all of them.

    Markets are kept by the tile. One above the whole budget is kept all the same, alone: each of its cells asks for it
    more than once.
    """

    def __init__(self, columns: ColumnCache, settings: CacheSettings) -> None:
        self.market_bytes_max = market_bytes_max = settings.market_bytes_max
        self.columns = columns
        self.series = SeriesStore(settings.series_bytes_max)
        self.tiles: Shared[tuple[str, tuple[int, ...]], Tile] = Shared(
            market_bytes_max, size_of=lambda tile: min(tile.bytes, market_bytes_max)
        )
        self.programs: Shared[tuple[str, int], Program] = Shared(settings.programs_max)
        self.resolved: Shared[tuple[str, int], ResolvedTrial] = Shared(settings.programs_max)


class StudyContext:
    """The shared state of one study in this process; safe for many threads."""

    def __init__(
        self, study: Study, spec: StudySpec, program: StudyProgram, dataset: Dataset, metered: Metered, memory: Memory
    ) -> None:
        """``spec`` and ``program``: those of the study; ``metered``: the store of ``dataset``."""
        self.study = study
        self.spec = spec
        self._metered = metered
        self.dataset = dataset
        self._memory = memory
        self._resolver = Resolver(spec)
        self.compiled = program
        self.buckets = buckets_of(self.spec.study.split if self.spec.study else None, study.sessions)
        self._fixed = frozenset(self.dataset.resolve(ticker, "sym") for ticker in fixed_tickers(self.spec))
        benchmark = self.spec.run.benchmark
        self._benchmark = self.dataset.resolve(benchmark, "run.benchmark") if benchmark else None
        self._lock = threading.Lock()
        self._tile_of: dict[int, tuple[tuple[int, ...], ReadPlan]] = {}
        self._threads = threading.local()

    def has_data(self, position: int) -> bool:
        """Whether the instruments of the cells at ``position`` have a bar in the window."""
        return bool(self.study.round.reads.bars[position])

    def fetch(self, positions: set[int]) -> None:
        """Fetch what the cells at ``positions`` read in one wave, as far as the column cache can keep it; their markets
        will be loaded some at once."""
        wanted = sorted(position for position in positions if self.has_data(position))
        if not wanted:
            return
        plan = needs_of(self.study, self.dataset, self.spec, wanted)
        prefetch(self.dataset, self._memory.columns, plan)
        if self.study.instruments is None:
            return
        place = {name: at for at, name in enumerate(plan.ids)}
        with self._lock:
            fresh = [position for position in wanted if position not in self._tile_of]
            own = plan.take([place[self.study.subjects[position]] for position in fresh])
            for part in tiles(own, min(TILE_BYTES, self._memory.market_bytes_max)):
                tile = tuple(fresh[at] for at in part)
                self._tile_of.update(dict.fromkeys(tile, (tile, own.take(part))))

    def _plan_of(self, names: Iterable[str], since: int) -> ReadPlan:
        return self.dataset.read_plan(dict.fromkeys(names, since), self.spec.run.end_day, self.study.columns)

    def bytes_fetched(self) -> int:
        """Return the bytes that have come over the wire and were not told yet: each is told once.

        While several threads load for this study, they are told to the first that asks.
        """
        return self._metered.take()

    def market(self, position: int) -> CellMarket:
        """Return the market of the cells at ``position`` among a trial's cells."""
        tile = self.tile(position)
        found = tile.markets.get(position)
        if found is None:
            found = tile.markets.setdefault(position, self._cell(tile, position))
        return found

    def tile_positions(self, position: int) -> tuple[int, ...]:
        """Return the positions in the tile of ``position``, itself among them."""
        found = self._tile_of.get(position)
        return (position,) if found is None else found[0]

    def tile(self, position: int) -> Tile:
        """Return the tile that holds the market at ``position``.

        A thread holds the one that it asked for last: it goes on to the next cell with it, whatever others load.
        """
        found = self._tile_of.get(position)
        positions, own = ((position,), None) if found is None else found
        held: tuple[tuple[int, ...], Tile] | None = getattr(self._threads, "held", None)
        if held is None or held[0] != positions:
            tile = self._memory.tiles.get((self.study.name, positions), lambda: self._load(positions, own))
            held = self._threads.held = positions, tile
        return held[1]

    def program(self, trial: int) -> Program:
        """Return the program of a trial alone."""
        key = (self.study.name, trial)
        return self._memory.programs.get(key, lambda: self.compiled.one(self.study.table, trial))

    def _resolved(self, trial: int) -> ResolvedTrial:
        key = (self.study.name, trial)
        return self._memory.resolved.get(key, lambda: self._resolver.trial(self.study.params(trial)))

    def _load(self, positions: tuple[int, ...], own: ReadPlan | None) -> Tile:
        """Return the markets at these positions: one alone, or instruments of an ``each`` study. ``own``: what is read
        of these, or of the universe."""
        since = self.study.first_day(list(positions))
        benchmark, beside = None, None
        if self._benchmark is not None:
            alone = self._panel(self._plan_of([self._benchmark], since))
            benchmark = benchmark_returns(alone.series(0), alone.calendar.day)
        if own is None:
            own = needs_of(self.study, self.dataset, self.spec, list(positions), with_others=False)
        panel = self._panel(own)
        if self.study.instruments is None:
            market = panel.market()
            program = self.program(0)
            tickers = {ticker for sleeve in program.sleeves for ticker in sleeve.universe}
            traded = {market.index[self.dataset.resolve(ticker, "strategy")] for ticker in tickers}
            return Tile(panel, make_tape(market, sorted(traded)), None, benchmark, doubtful_splits(panel))
        if self._fixed:
            beside = self._panel(self._plan_of(self._fixed, since))
        return Tile(panel, make_tapes(panel), beside, benchmark, doubtful_splits(panel))

    def _panel(self, plan: ReadPlan) -> Panel:
        run = self.spec.run
        return load_panel(self.dataset, self._memory.columns, plan, calendar_name=run.calendar, start_day=run.start_day)

    def _cell(self, tile: Tile, position: int) -> CellMarket:
        if isinstance(tile.tape, Tape):
            tape = tile.tape
            doubtful = tile.doubtful_splits[list(tape.traded)]
        else:
            at = tile.panel.index[self.study.subjects[position]]
            tape = tile.tape.tape(at, tile.panel.market((at,), tile.beside))
            doubtful = tile.doubtful_splits[at : at + 1]
        return CellMarket(tape.market, tape, tile.benchmark, int(doubtful.sum()))

    @property
    def series(self) -> SeriesStore:
        """The indicator series of all studies of the process."""
        return self._memory.series

    def terms(self, benchmark: F64 | None) -> Terms:
        """Return what all runs of the study have in common."""
        run = self.spec.run
        return Terms(run, np.array(self.buckets.stretches, np.int64), rf_per_session(run.rf, run.ann), benchmark)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the spec assumes."""
        return self.compiled.assumptions

    def spec_hash(self, trial: int, position: int) -> str:
        """Return the hash of the resolved spec of a cell."""
        instrument = self.study.cell_instruments[position]
        ticker = None if instrument is None else self.study.symbols[instrument]
        return self._resolved(trial).cell_hash(ticker)

    def simulate(self, trial: int, position: int) -> Run:
        """Run one cell through the engine, for its books."""
        shared, program = self.market(position), self.program_of(trial, position)
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
        signals = evaluate(self.program_of(trial, position), self.market(position).market, self._memory.series)
        found: dict[str, str] = {}
        for one in (one for sleeve in signals for one in sleeve):
            for label, day in one.anchors.items():
                found[label] = min(day, found.get(label, day))
        return dict(sorted(found.items()))

    def program_of(self, trial: int, position: int) -> Program:
        """Return the program of a cell."""
        program = self.program(trial)
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
