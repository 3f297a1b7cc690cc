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
from farm.report.report import CellView, ReportInput, TradeRow, TrialRow
from farm.results.document import nullable
from farm.results.remarks import ASSUMPTIONS, incidents_of_trial, remarks_of_trial
from farm.results.results import Ranking, Results
from farm.results.segment import parsed
from farm.spec.spec import RunSpec, StudySpec
from farm.store.base import Store
from farm.study.ranking import over_cells
from farm.study.split import buckets_of
from farm.values.arrays import F64, I32
from farm.values.metrics import BUCKETS, HEADLINES
from farm.values.settings import CacheSettings
from farm.values.units import MICRO, iso
from farm.work.context import CellMarket, Scored
from farm.work.run import BlockRunner, Outcome


@dataclass(frozen=True, eq=False)
class WinnerCell:
    """A cell of the winner, computed again; both None for a cell without bars."""

    scored: Scored | None
    shared: CellMarket | None


def report_of(
    outcome: Outcome, store: Store, *, trial: int | None = None, settings: CacheSettings | None = None
) -> ReportInput:
    """Return what the report of a finished study says: of its winner, or of another trial.

    The trial's cells are computed again and compared with what is stored (ResultConflict).
    """
    study = outcome.study
    if trial is None:
        trial = int(outcome.ranking.trials[0]) if outcome.ranking is not None else 0
    runner = BlockRunner(store, settings=settings)
    context = runner.context(study)
    cells = []
    for position in range(len(study.cell_instruments)):
        if context.has_data(position):
            scored = runner.recompute(study, trial, position)
            cells.append(WinnerCell(scored, context.market(position)))
        else:
            cells.append(WinnerCell(None, None))
    return brief(outcome.results, outcome.ranking, outcome.spec, trial, cells)


def brief(
    results: Results, ranking: Ranking | None, spec: StudySpec, trial: int, cells: Sequence[WinnerCell]
) -> ReportInput:
    """Return the report of ``trial``, whose ``cells`` stand in the order of the study's instruments."""
    study = results.study
    numbers = [trial] + [int(other) for other in _numbers(results, ranking) if other != trial]
    assumptions = sorted({name for text in results.assumptions for name in parsed(text)})
    return ReportInput(
        title=spec.name or f"Study {study.id[:12]}",
        study=study.id,
        snapshot=study.snapshot,
        fingerprint=results.fingerprints[trial],
        trial_key=study.trial_key(trial),
        objective=_objective(results, ranking),
        objective_metric=ranking.metric if ranking else "total_return",
        direction=ranking.direction if ranking else "max",
        parameters=study.names,
        cells=tuple(_cell(results, spec, trial, position, cell) for position, cell in enumerate(cells)),
        trials=_trials(results, ranking, numbers),
        trial_metrics=tuple(_trial_metrics(results, ranking)),
        counts=tuple(_counts(results)),
        settings=tuple(_settings(spec.run, study.sessions)),
        assumptions=tuple(ASSUMPTIONS.get(name, name) for name in assumptions),
        remarks=tuple(remarks_of_trial(results, spec, trial)),
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
    last = "oos" if results.out_of_sample is not None else "full"
    first = (ranking.metric,) if ranking is not None and last == "oos" else ()
    return [(f"{name}, {BUCKETS[last]}", name) for name in dict.fromkeys((*first, *HEADLINES))]


def _trials(results: Results, ranking: Ranking | None, numbers: Sequence[int]) -> tuple[TrialRow, ...]:
    bucket = "oos" if results.out_of_sample is not None else "full"
    over = ranking.over if ranking is not None else "median"
    columns = [
        nullable(over_cells(results.column(name, bucket), over)) for _, name in _trial_metrics(results, ranking)
    ]  # fmt: skip
    objective = nullable(ranking.value) if ranking is not None else [None] * results.study.trials
    return tuple(
        TrialRow(
            number=trial,
            values=tuple(results.study.values[trial]),
            objective=objective[trial],
            metrics=tuple(column[trial] for column in columns),
            fingerprint=results.fingerprints[trial],
        )
        for trial in numbers
    )


def _counts(results: Results) -> list[tuple[str, int]]:
    study = results.study
    pairs = [
        ("Trials tried", study.trials),
        ("Duplicates", study.duplicates),
        ("Excluded by constraints", study.excluded),
        ("Backtests", study.cells),
        ("Cells without data", sum(1 for verdict in results.verdict if verdict)),
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


def _cell(results: Results, spec: StudySpec, trial: int, position: int, cell: WinnerCell) -> CellView:
    study = results.study
    width = len(study.cell_instruments)
    row = trial * width + position
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
        full=results.full[row],
        in_sample=None if results.in_sample is None else results.in_sample[row],
        out_of_sample=None if results.out_of_sample is None else results.out_of_sample[row],
        out_of_sample_day=boundary,
        trades=tuple(trades),
        ledger=results.ledger[row].tobytes().hex() if results.simulated[row] else "",
        stats=results.stats[row].tobytes().hex(),
        verdict=results.verdict[row] or None,
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
