"""From a finished study to what its report says: plain tables, filled from results and from the winner computed again.

Nothing is measured here. Curves come from the books of the recomputed cells, whose digests have been compared with the
stored ones; numbers come from the stored results. Each cell stands against the benchmark, or else against its own
instruments bought and held: adjusted closes, dividends reinvested, no costs, from the last close before the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from farm.engine.ledger import OrderKind, Records, Run
from farm.market.panel import InstrumentSeries
from farm.report.report import LEADERS_MAX, CellView, ReportInput, TradeRow, TrialRow
from farm.results.document import nullable
from farm.results.remarks import ASSUMPTIONS, incidents_of_trial, remarks_of_trial
from farm.results.results import Cells, Ranking, Results
from farm.spec.spec import RunSpec, StudySpec
from farm.store.base import Store
from farm.study.ranking import over_cells
from farm.study.split import buckets_of
from farm.values.arrays import F64, I32
from farm.values.metrics import BUCKETS, HEADLINES, METRIC_NAMES
from farm.values.settings import CacheSettings
from farm.values.units import MICRO, iso
from farm.work.context import CellMarket, Scored
from farm.work.run import BlockRunner, Outcome

CELLS_MAX = 24
"""Most cells of a trial on one page: each is computed again, and has a curve and tables of its own."""


@dataclass(frozen=True, eq=False)
class WinnerCell:
    """A cell of the winner, computed again; both None for a cell without bars."""

    scored: Scored | None
    shared: CellMarket | None


def report_of(
    outcome: Outcome,
    store: Store,
    *,
    trial: int | None = None,
    position: int | None = None,
    settings: CacheSettings | None = None,
) -> ReportInput:
    """Return what the report of a finished study says: of its winner, or of another trial; of all its cells, or one.

    The cells that are shown are computed again and compared with what is stored (ResultConflict).
    """
    study = outcome.study
    if trial is None:
        trial = int(outcome.ranking.trials[0]) if outcome.ranking is not None else 0
    runner = BlockRunner(store, settings=settings)
    context = runner.context(study)
    cells = {}
    for place in _positions(outcome.results, outcome.ranking, trial) if position is None else [position]:
        if context.has_data(place):
            cells[place] = WinnerCell(runner.recompute(study, trial, place), context.market(place))
        else:
            cells[place] = WinnerCell(None, None)
    return brief(outcome.results, outcome.ranking, outcome.spec, trial, cells)


def _positions(results: Results, ranking: Ranking | None, trial: int) -> list[int]:
    """Return the cells of a trial that a report shows: all, or of many the best and the worst, in their order."""
    width = len(results.study.cell_instruments)
    if width <= CELLS_MAX:
        return list(range(width))
    metric, bucket = (ranking.metric, ranking.bucket) if ranking is not None else ("total_return", "full")
    values = results.column(metric, bucket, np.array([trial]))[0]
    known = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())].tolist()
    half = CELLS_MAX // 2
    return sorted({*known[:half], *known[-half:]} or range(CELLS_MAX))


def brief(
    results: Results, ranking: Ranking | None, spec: StudySpec, trial: int, cells: Mapping[int, WinnerCell]
) -> ReportInput:
    """Return the report of ``trial``, of which these ``cells`` are shown, by position."""
    study = results.study
    numbers = [trial] + [int(other) for other in _numbers(results, ranking) if other != trial]
    stored = results.cells([trial])
    said = remarks_of_trial(results, spec, trial)
    if len(cells) < len(study.cell_instruments):
        which = "the best and the worst of them" if len(cells) > 1 else "one of them"
        count = len(study.cell_instruments)
        said.append(f"the trial has {count:,} instruments, and this page shows {which}; farm results has all")
    return ReportInput(
        title=spec.name or f"Study {study.id[:12]}",
        study=study.id,
        snapshot=study.snapshot,
        fingerprint=stored.fingerprint(0),
        trial_key=study.trial_key(trial),
        objective=_objective(results, ranking),
        objective_metric=ranking.metric if ranking else "total_return",
        direction=ranking.direction if ranking else "max",
        parameters=study.table.names,
        cells=tuple(_cell(results, stored, spec, position, cell) for position, cell in cells.items()),
        trials=_trials(results, ranking, numbers),
        trial_metrics=tuple(_trial_metrics(results, ranking)),
        counts=tuple(_counts(results)),
        settings=tuple(_settings(spec.run, study.sessions)),
        assumptions=tuple(ASSUMPTIONS.get(name, name) for name in results.assumed()),
        remarks=tuple(said),
        incidents=tuple(incidents_of_trial(results, trial)),
        reproduce=(f"farm results {study.id[:12]}", "farm run SPEC --fresh"),
    )


def _numbers(results: Results, ranking: Ranking | None) -> list[int]:
    return list(ranking.trials.tolist()) if ranking is not None else list(range(results.study.trials))


def _objective(results: Results, ranking: Ranking | None) -> str:
    if ranking is None:
        return "no objective"
    width = len(results.study.cell_instruments)
    over = f", {ranking.over} over {width} instruments" if results.study.instruments else ""
    return f"{ranking.direction}imise {ranking.metric}, {BUCKETS[ranking.bucket]}{over}"


def _trial_metrics(results: Results, ranking: Ranking | None) -> list[tuple[str, str]]:
    """Return (title, metric) of the columns beside the objective; their values are those of ``_trials``."""
    last = "oos" if "oos" in results.buckets else "full"
    first = (ranking.metric,) if ranking is not None and last == "oos" else ()
    return [(f"{name}, {BUCKETS[last]}", name) for name in dict.fromkeys((*first, *HEADLINES))]


def _trials(results: Results, ranking: Ranking | None, numbers: Sequence[int]) -> tuple[TrialRow, ...]:
    bucket = "oos" if "oos" in results.buckets else "full"
    over = ranking.over if ranking is not None else "median"
    shown = np.array(numbers[:LEADERS_MAX])
    columns = [
        nullable(over_cells(results.column(name, bucket, shown), over)) for _, name in _trial_metrics(results, ranking)
    ]
    fingerprints = results.fingerprints(shown)
    objective = nullable(ranking.value) if ranking is not None else [None] * results.study.trials
    return tuple(
        TrialRow(
            number=trial,
            values=tuple(results.study.params(trial).values()),
            objective=objective[trial],
            metrics=tuple(column[at] for column in columns) if at < len(shown) else (),
            fingerprint=fingerprints[at] if at < len(shown) else None,
        )
        for at, trial in enumerate(numbers)
    )


def _counts(results: Results) -> list[tuple[str, int]]:
    study = results.study
    pairs = [
        ("Trials tried", study.trials),
        ("Duplicates", study.duplicates),
        ("Excluded by constraints", study.excluded),
        ("Backtests", study.cells),
        ("Cells without data", sum(results.verdict_counts().values())),
    ]
    return [(name, count) for name, count in pairs if count or name in ("Trials tried", "Backtests")]


def _settings(run: RunSpec, sessions: int) -> list[tuple[str, str]]:
    costs = [f"{run.costs.bps:g} bps"] if run.costs.bps else []
    costs += [f"{run.costs.per_share:g} per share"] if run.costs.per_share else []
    costs += [f"{run.costs.per_order:g} per order"] if run.costs.per_order else []
    costs += [f"at least {run.costs.min:g} per order"] if run.costs.min else []
    return [
        ("Window", f"{iso(run.start_day)} to {iso(run.end_day)}, {sessions:,} sessions of {run.calendar}"),
        ("Cash", f"{run.cash_micro / MICRO:,.2f} {run.ccy}"),
        ("Account", run.account),
        ("Costs", ", ".join(costs) or "none"),
        ("Slippage", f"{run.exec.slip_bps:g} bps" if run.exec.slip_bps else "none"),
        ("Fills", "at the next open"),
        ("Benchmark", run.benchmark or "none"),
        ("Risk-free rate", f"{run.rf:g}"),
    ]


def _cell(results: Results, stored: Cells, spec: StudySpec, position: int, cell: WinnerCell) -> CellView:
    study = results.study
    vectors = {bucket: stored.vector(METRIC_NAMES, bucket, 0, position) for bucket in results.buckets}
    instrument = study.cell_instruments[position]
    name = study.symbols[instrument] if instrument is not None else _universe(study.symbols)
    boundary = None
    day: I32 = np.empty(0, np.int32)
    equity: F64 = np.empty(0)
    comparison: F64 | None = None
    label, trades = "", list[TradeRow]()
    if cell.scored is not None and cell.shared is not None:
        run = cell.scored.run
        day, equity = run.session_day, run.equity / MICRO
        comparison, label = _comparison(spec.run, cell.shared, name)
        trades = _trades(run, cell.shared, spec.run)
        after = buckets_of(spec.study.split if spec.study else None, study.sessions).stretch("oos")
        boundary = None if after is None else int(day[after[0]])
    return CellView(
        name=name,
        cash=spec.run.cash_micro / MICRO,
        day=day,
        equity=equity,
        comparison=comparison,
        comparison_name=label,
        full=vectors["full"],
        in_sample=vectors.get("is"),
        out_of_sample=vectors.get("oos"),
        out_of_sample_day=boundary,
        trades=tuple(trades),
        ledger=stored.digest("ledger", 0, position),
        stats=stored.digest("stats", 0, position),
        verdict=stored.verdict(0, position),
    )


def _universe(symbols: Mapping[str, str]) -> str:
    names = sorted(symbols.values())
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _comparison(run: RunSpec, shared: CellMarket, name: str) -> tuple[F64 | None, str]:
    """Return the curve that the cell is held against, in currency per session, and what it is."""
    cash = run.cash_micro / MICRO
    if shared.benchmark is not None and run.benchmark is not None:
        growth = np.asarray(np.cumprod(1.0 + np.nan_to_num(shared.benchmark, nan=0.0)), np.float64)
        return cash * growth, run.benchmark
    days = shared.market.calendar.day
    curves = [_held(shared.market.series[index], days) for index in shared.tape.traded]
    known = [curve for curve in curves if curve is not None]
    if not known:
        return None, ""
    return cash * np.asarray(np.mean(known, axis=0), np.float64), f"{name}, bought and held"


def _held(series: InstrumentSeries, days: I32) -> F64 | None:
    """Return the growth of one unit held from the last close before the run, or else from the first close in it."""
    if not series.rows:
        return None
    close = series.close * series.factor_tr
    last = np.searchsorted(series.day, days, side="right") - 1
    before = int(np.searchsorted(series.day, days[0])) - 1
    base = close[max(before, 0)]
    return np.asarray(np.where(last >= 0, close[np.maximum(last, 0)] / base, 1.0), np.float64)


def _trades(run: Run, shared: CellMarket, spec: RunSpec) -> list[TradeRow]:
    """Return closed and open trades in the order of their entries."""
    rows = [_trade(run, shared, spec, record, is_open=False) for record in run.trades]
    rows += [_trade(run, shared, spec, record, is_open=True) for record in run.open_trades]
    return sorted(rows, key=lambda row: row.entry_day)


def _trade(run: Run, shared: CellMarket, spec: RunSpec, record: Records, *, is_open: bool) -> TradeRow:
    series = shared.market.series[shared.market.index[run.instruments[int(record["instrument"])]]]
    lot_micro = 1 if spec.lot == "fractional" else series.lot_micro
    entry, exit_ = int(record["entry_session"]), int(record["exit_session"])
    notional = int(record["entry_notional_micro"])
    return TradeRow(
        side="long" if int(record["side"]) > 0 else "short",
        entry_day=int(run.session_day[entry]),
        entry_price=float(record["entry_price"]),
        exit_day=None if is_open else int(run.session_day[exit_]),
        exit_price=None if is_open else float(record["exit_price"]),
        quantity=int(record["lots"]) * lot_micro / MICRO,
        pnl=int(record["pnl_micro"]) / MICRO,
        pnl_pct=int(record["pnl_micro"]) / notional if notional else None,
        sessions=None if is_open else exit_ - entry,
        reason="" if is_open else OrderKind(int(record["exit_kind"])).name.lower(),
    )
