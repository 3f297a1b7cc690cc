"""From a spec to a study: trials, what they read, keys, which cells are missing, blocks. Nothing is run.

1. The grid is expanded; each trial is resolved, and points that resolve to the same spec become one trial.
2. Tickers become permanent ids. Each trial is compiled once, which tells how much history it needs; trials that need
   the same history share their read sets, so this costs per length of history and instrument, not per cell.
3. Keys follow, and are looked up in the family. What is missing is cut into blocks.

All of it is a pure function of spec, snapshot and catalog; whoever stores the record first decides about the blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from farm.program.compile import compile_trial
from farm.program.expr import Expressions
from farm.program.history import history_first_day
from farm.program.program import Program
from farm.shard.calendar import ALWAYS_OPEN, Calendar
from farm.shard.dataset import Dataset, Instrument
from farm.shard.plan import AccessPlan
from farm.shard.reader import ColumnLoader
from farm.spec.resolve import Resolver, fixed_tickers, study_identity, template
from farm.spec.spec import StudySpec
from farm.study.block import Block, cut, with_needs
from farm.study.coverage import Coverage, cover
from farm.study.reads import ACTIONS, BARS, Reads
from farm.study.space import grid
from farm.study.split import chronological
from farm.study.trials import OF_SNAPSHOT, Read, Study, study_name
from farm.values.arrays import BOOL, I32
from farm.values.canon import fingerprint
from farm.values.errors import DataError, SpecError
from farm.values.units import iso
from farm.values.version import SEMANTICS_VERSION

FIXED_COST_NS = 250_000
BAR_COST_NS = 60
"""Expected work of a cell: so much, and so much per bar. It shapes blocks and estimates, never a result."""


class Gaps(Protocol):
    """Cells that are missing; ``lookup.Missing`` is one."""

    @property
    def groups(self) -> I32:
        """Of each trial, its group, (t,)."""

    @property
    def rows(self) -> BOOL:
        """The subjects that the trials of a group miss, (groups, s)."""


class Places(Protocol):
    """Where cells were found; ``lookup.Found`` is one."""

    @property
    def segments(self) -> tuple[str, ...]: ...
    @property
    def missing(self) -> Gaps: ...


class Lookup(Protocol):
    """What planning asks of the catalog."""

    def lookup_study(self, study: Study) -> Places:
        """Return which of a study's cells are stored, with all that it wants of them."""


@dataclass(frozen=True)
class _Window:
    """One length of history: own bars needed by the universe, and by each fixed instrument."""

    history_bars: int
    syms: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Trials:
    """Distinct trials: values, the window of each, and per window one program that needs it."""

    values: tuple[tuple[Any, ...], ...]
    windows: tuple[_Window, ...]
    programs: Mapping[_Window, Program]
    duplicates: int
    columns: frozenset[str]


def split_of(spec: StudySpec) -> Mapping[str, Any] | None:
    """Return the split as it enters keys, or None."""
    split = spec.study.split if spec.study else None
    return None if split is None else {"mode": split.mode, "is": split.in_sample, "embargo": split.embargo}


def study_id(spec: StudySpec, family: str, snapshot: str) -> str:
    """Return the id of the study: equal for equal submissions, whatever their text, order of keys or name."""
    return fingerprint(
        {
            "study": study_identity(spec),
            "family": family,
            "dataset": spec.run.dataset,
            "snapshot": snapshot,
            "semantics": SEMANTICS_VERSION,
        }
    )


def plan_study(
    spec: StudySpec, dataset: Dataset, catalog: Lookup, cache: ColumnLoader, *, fresh: bool = False
) -> Study:
    """Return the study with its blocks, as it would be stored now.

    ``fresh``: every cell is missing, whatever the catalog holds.
    Errors: SpecError (unknown ticker, one that trades around the clock in exchange sessions, no session in the window,
    an empty bucket); DataError when no instrument has a bar in the window, or none trades on the calendar of the run.
    """
    family = template(spec).hash
    run = spec.run
    points = grid(spec.strategy.params, spec.strategy.constraints)
    trials = _distinct(spec, points.names, points.values)
    symbols = _symbols(spec, dataset, trials)
    calendar, sessions = _sessions(spec, dataset)
    reads = Reads(dataset, cache, run.start_day, run.end_day)
    instruments = _each_ids(spec, dataset)
    found: dict[Read, int] = {}
    reads_of = tuple(
        tuple(
            found.setdefault(_read(spec, dataset, reads, program, symbols, name), len(found))
            for name in (instruments if instruments is not None else (None,))
        )
        for program in trials.programs.values()
    )
    if all(read.bars == 0 for read in found):
        raise DataError(
            f"no instrument of the study has a bar from {iso(run.start_day)} to {iso(run.end_day)}",
            place="run.start, run.end",
            hint="choose a window that the data covers; farm status shows what is there",
        )
    number = {window: index for index, window in enumerate(trials.programs)}
    study = Study(
        id=study_id(spec, family, dataset.snapshot.id),
        fresh=fresh,
        family=family,
        dataset=run.dataset,
        snapshot=dataset.snapshot.id,
        spec=spec.raw,
        split=split_of(spec),
        sessions=sessions,
        names=points.names,
        values=trials.values,
        windows=tuple(number[window] for window in trials.windows),
        reads_of=reads_of,
        reads=tuple(found),
        instruments=instruments,
        symbols=symbols,
        columns=tuple(sorted(trials.columns)),
        duplicates=trials.duplicates,
        excluded=points.excluded,
        assumptions=tuple(sorted(name for name, kind in OF_SNAPSHOT.items() if not dataset.snapshot.of_kind(kind))),
        coverage=_coverage(spec, dataset, reads, calendar, trials, symbols),
        blocks=(),
        segments=(),
    )
    return _with_blocks(study, dataset, spec, catalog)


def _sessions(spec: StudySpec, dataset: Dataset) -> tuple[Calendar, int]:
    """Return the calendar of the run and its sessions in the window, checked: there are some, and each bucket of a
    split has some."""
    run = spec.run
    if run.calendar not in dataset.snapshot.calendars:
        named = {ticker for universe in spec.strategy.universes for ticker in universe.tickers}
        held = [one for key, one in dataset.instruments().items() if named & {key, one.symbol}]
        raise DataError(
            f"no instrument of the dataset trades on the calendar {run.calendar!r}"
            + ("" if "calendar" in spec.raw.get("run", {}) else ", which is the default"),
            place="run.calendar",
            allowed=", ".join(json.dumps(name) for name in dataset.snapshot.calendars),
            hint=_calendar_hint(
                min((one.calendar for one in held), default=next(iter(dataset.snapshot.calendars), "XNYS"))
            ),
        )
    calendar = dataset.calendar(run.calendar)
    count = calendar.session_count(run.start_day, run.end_day)
    if count == 0:
        raise SpecError(
            f"the window has no session of {run.calendar}: {iso(run.start_day)} to {iso(run.end_day)}",
            place="run.start, run.end",
            allowed="a window with at least one session",
        )
    if spec.study is not None and spec.study.split is not None:
        chronological(spec.study.split.in_sample, spec.study.split.embargo, count)
    return calendar, count


def _calendar_hint(name: str) -> str:
    return f'set run.calendar to "{name}"' + (f' and run.session to "{name}"' if name == ALWAYS_OPEN else "")


def _distinct(spec: StudySpec, names: tuple[str, ...], points: Sequence[tuple[Any, ...]]) -> _Trials:
    """Resolve and compile the points of the grid; equal resolved specs are one trial, the first of them."""
    resolver, table = Resolver(spec), Expressions()
    seen: set[tuple[bytes, bytes]] = set()
    values: list[tuple[Any, ...]] = []
    windows: list[_Window] = []
    programs: dict[_Window, Program] = {}
    columns: set[str] = set()
    for point in points:
        resolved = resolver.trial(dict(zip(names, point, strict=True)))
        text = (resolved.head, resolved.tail)
        if text in seen:
            continue
        seen.add(text)
        program = compile_trial(resolved, table=table)
        window = _Window(program.history_bars, tuple(program.sym_history.items()))
        values.append(point)
        windows.append(window)
        programs.setdefault(window, program)
        columns |= program.columns
    return _Trials(tuple(values), tuple(windows), programs, len(points) - len(values), frozenset(columns))


def _each_tickers(spec: StudySpec) -> list[str] | None:
    if spec.each is None:
        return None
    return [ticker for universe in spec.strategy.universes if universe.id == spec.each for ticker in universe.tickers]


def _each_ids(spec: StudySpec, dataset: Dataset) -> tuple[str, ...] | None:
    tickers = _each_tickers(spec)
    if tickers is None:
        return None
    ids = {dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in tickers}
    return tuple(sorted(ids, key=str.encode))


def ticker_place(spec: StudySpec, ticker: str) -> str:
    """Return where the document names ``ticker``: in a universe, as the benchmark, or in an expression."""
    for index, universe in enumerate(spec.raw.get("strategy", {}).get("universes", [])):
        if ticker in universe.get("tickers", []):
            return f"strategy.universes[{index}].tickers[{universe['tickers'].index(ticker)}]"
    return "run.benchmark" if spec.run.benchmark == ticker else "strategy"


def _traded(spec: StudySpec, program: Program) -> list[str]:
    """Return the tickers that the study's sleeves trade."""
    return _each_tickers(spec) or sorted({ticker for sleeve in program.sleeves for ticker in sleeve.universe})


def _symbols(spec: StudySpec, dataset: Dataset, trials: _Trials) -> dict[str, str]:
    """Return id -> symbol of everything that is read; SpecError for what is unknown or cannot be traded here.

    A spec may name an instrument by its id. Cells are named by the symbol all the same: one key, one resolved spec.
    """
    traded = _traded(spec, next(iter(trials.programs.values())))
    fixed = {sym for program in trials.programs.values() for sym in program.syms}
    names = dict.fromkeys((*traded, *sorted(fixed), *([spec.run.benchmark] if spec.run.benchmark else [])))
    ids = {ticker: dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in names}
    for ticker in traded:
        instrument = dataset.instruments()[ids[ticker]]
        place = ticker_place(spec, ticker)
        if instrument.type == "index":
            raise SpecError(f"{ticker} is an index: it has a level, and cannot be traded", place=place)
        if instrument.currency != spec.run.ccy:
            raise SpecError(
                f"{ticker} trades in {instrument.currency}, the account is in {spec.run.ccy}",
                place=place,
                allowed="instruments in the currency of the account",
            )
        _check_calendar(spec, ticker, instrument)
        if instrument.delisted_day is not None and instrument.delisted_day <= spec.run.end_day:
            day = iso(instrument.delisted_day)
            raise SpecError(
                f"{ticker} is delisted on {day}, and settling at the delisting value is not built yet",
                place=place,
                allowed="instruments that trade until the end of the run",
                hint=f"end the run before {day}",
            )
    _check_distinct(spec, ids)
    return {name: dataset.instruments()[name].symbol for name in sorted(ids.values(), key=str.encode)}


def _check_calendar(spec: StudySpec, ticker: str, instrument: Instrument) -> None:
    """Raise SpecError for what trades around the clock in a run that has exchange sessions: its days end at midnight
    UTC, so each close would be marked a session late, and those of weekends and holidays never. Two exchanges are two
    closes on most of the same days: that is said (``Coverage.other_calendar``)."""
    if instrument.calendar == ALWAYS_OPEN != spec.run.calendar:
        raise SpecError(
            f"{ticker} trades around the clock (calendar {ALWAYS_OPEN}), the run has the sessions of "
            f"{spec.run.calendar}" + ("" if "calendar" in spec.raw.get("run", {}) else ", the default"),
            place="run.calendar",
            allowed=json.dumps(ALWAYS_OPEN),
            hint=f"{_calendar_hint(ALWAYS_OPEN)}; stocks may trade in such a run too",
        )


def _coverage(
    spec: StudySpec, dataset: Dataset, reads: Reads, calendar: Calendar, trials: _Trials, names: Iterable[str]
) -> tuple[Coverage, ...]:
    run = spec.run
    held = {dataset.resolve(ticker, "") for ticker in _traded(spec, next(iter(trials.programs.values())))}
    benchmark = dataset.resolve(run.benchmark, "") if run.benchmark else None
    return cover(dataset, reads, calendar, (run.start_day, run.end_day), held, benchmark, names)


def _check_distinct(spec: StudySpec, ids: Mapping[str, str]) -> None:
    """Raise SpecError when a universe names an instrument twice: by its symbol, and by its id."""
    for universe in spec.strategy.universes:
        seen: dict[str, str] = {}
        for ticker in (ticker for ticker in universe.tickers if ticker in ids):
            other = seen.setdefault(ids[ticker], ticker)
            if other != ticker:
                place = ticker_place(spec, ticker)
                raise SpecError(f"{ticker!r} and {other!r} are one instrument", place=place, hint="name it once")


def _read(
    spec: StudySpec,
    dataset: Dataset,
    reads: Reads,
    program: Program,
    symbols: Mapping[str, str],
    instrument: str | None,
) -> Read:
    """Return what the cells of ``instrument`` (None: the whole universe) read with the history of ``program``."""
    run = spec.run
    if instrument is not None:
        program = program.on(symbols[instrument])
    traded = {ticker for sleeve in program.sleeves for ticker in sleeve.universe}
    first_days: dict[str, int] = {}
    own: list[str] = []
    for ticker in sorted(traded | set(program.syms)):
        name = dataset.resolve(ticker, "")
        first_day = history_first_day(program, reads.months(name), ticker)
        first_days[name] = min(first_day, first_days.get(name, first_day))
        if ticker in traded:
            own.append(name)
    if run.benchmark:
        # One bar before the run: the benchmark's first return needs a close to start from.
        alone = replace(program.on(run.benchmark), history_bars=1, sym_history={})
        name = dataset.resolve(run.benchmark, "")
        first_day = history_first_day(alone, reads.months(name), run.benchmark)
        first_days[name] = min(first_day, first_days.get(name, first_day))
    first_day = min(first_days.values())
    return Read(
        instrument=instrument,
        bars=sum(reads.bars(name) for name in own),
        rows=sum(reads.rows(name, first_days[name]) for name in own),
        first_day=first_day,
        read_set=reads.digest(first_days),
        sessions=dataset.calendar(run.calendar).digest(first_day, run.end_day),
    )


def _with_blocks(study: Study, dataset: Dataset, spec: StudySpec, catalog: Lookup) -> Study:
    """Return the study with blocks over the cells that the catalog lacks."""
    names = study.cell_instruments
    missing: dict[int, list[str]] = {}
    segments: tuple[str, ...] = ()
    if study.fresh:
        missing = {trial: [name or "" for name in names] for trial in range(study.trials)}
    else:
        found = catalog.lookup_study(study)
        segments = found.segments
        absent = [[names[at] or "" for at in row.nonzero()[0].tolist()] for row in found.missing.rows]
        missing = {trial: absent[group] for trial, group in enumerate(found.missing.groups.tolist()) if absent[group]}
    costs: dict[str, int] = {}
    for read in study.reads:
        name = read.instrument or ""
        costs[name] = max(costs.get(name, 0), cell_cost_ns(read) // 1000)
    blocks = cut(missing, costs)
    needs = {block.instruments: needs_of(study, dataset, spec, block.instruments) for block in blocks}
    by_shard = {instruments: _by_shard(plans) for instruments, plans in needs.items()}
    return replace(study, blocks=with_needs(blocks, by_shard), segments=segments)


def cell_cost_ns(read: Read) -> int:
    """Return the expected work of a cell; one without bars is only written down."""
    return FIXED_COST_NS + BAR_COST_NS * read.rows if read.bars else FIXED_COST_NS // 10


def first_day_of(study: Study, instruments: tuple[str, ...]) -> int:
    """Return the first day that any trial reads of these instruments (all of them when empty)."""
    return min(read.first_day for read in study.reads if not instruments or read.instrument in instruments)


def needs_of(study: Study, dataset: Dataset, spec: StudySpec, instruments: tuple[str, ...]) -> list[AccessPlan]:
    """Return what the cells of these instruments (all when empty) read: bars, splits, dividends."""
    others = {dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in fixed_tickers(spec)}
    if spec.run.benchmark:
        others.add(dataset.resolve(spec.run.benchmark, "run.benchmark"))
    names = sorted({*instruments, *others} if instruments else study.symbols)
    first_day = first_day_of(study, instruments)
    plans = [dataset.needs(BARS, names, first_day, spec.run.end_day, study.columns)]
    for kind in ACTIONS:
        plans.append(dataset.needs(kind, names, first_day, spec.run.end_day, ACTION_COLUMNS[kind]))
    return plans


ACTION_COLUMNS = {
    "splits": ("ex_day", "numerator", "denominator"),
    "dividends": ("ex_day", "amount", "pay_day", "pay_day_valid"),
}


def _by_shard(plans: Sequence[AccessPlan]) -> dict[str, int]:
    return {sha: size for plan in plans for sha, size in plan.by_shard().items()}


@dataclass(frozen=True)
class Plan:
    """What a run of the study would do, as ``farm plan`` prints it. ``seconds``: expected, on one core."""

    study: Study
    cells_reused: int
    cells_missing: int
    is_stored: bool
    blocks_finished: int
    seconds: float
    reads: tuple[AccessPlan, ...]
    window: tuple[int, int, int]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON value."""
        study = self.study
        first, start, end = self.window
        return {
            "study": study.id,
            "snapshot": study.snapshot,
            "family": study.family,
            "trials": {"total": study.trials, "duplicates": study.duplicates, "excluded": study.excluded},
            "instruments": None if study.instruments is None else list(study.instruments),
            "cells": {"total": study.cells, "reused": self.cells_reused, "missing": self.cells_missing},
            "blocks": {"total": len(study.blocks), "finished": self.blocks_finished},
            "window": {"history": iso(first), "start": iso(start), "end": iso(end), "sessions": study.sessions},
            "columns": list(study.columns),
            "reads": [plan.to_json() for plan in self.reads],
            "bytes": sum(plan.bytes_needed for plan in self.reads),
            "seconds": round(self.seconds, 3),
        }


def make_plan(study: Study, dataset: Dataset, spec: StudySpec, finished: frozenset[int], *, is_stored: bool) -> Plan:
    """Return what running ``study`` now would do; ``finished`` are the blocks that have a segment."""
    waiting: list[Block] = [block for block in study.blocks if block.index not in finished]
    missing = sum(block.cells for block in waiting)
    names = tuple(sorted({name for block in waiting for name in block.instruments}))
    reads = tuple(needs_of(study, dataset, spec, names)) if waiting else ()
    cost: dict[str, int] = {}
    for read in study.reads:
        name = read.instrument or ""
        cost[name] = max(cost.get(name, 0), cell_cost_ns(read))
    work_ns = sum(len(block.trials) * sum(cost[name] for name in (block.instruments or ("",))) for block in waiting)
    return Plan(
        study=study,
        cells_reused=study.cells - missing,
        cells_missing=missing,
        is_stored=is_stored,
        blocks_finished=len(finished),
        seconds=work_ns / 1e9,
        reads=reads,
        window=(first_day_of(study, ()), spec.run.start_day, spec.run.end_day),
    )


__all__ = ["Lookup", "Plan", "make_plan", "plan_study", "split_of", "study_id", "study_name"]
