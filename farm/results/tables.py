"""Results as Arrow tables: one row per cell, or one row per trial in the order of merit.

Undefined metrics are null here, not NaN. Tables convert with ``.to_pandas()`` and are what notebooks and DuckDB like.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from farm.results.document import hex_digests, keys_of
from farm.results.results import Ranking, Results
from farm.results.segment import VERDICTS
from farm.study.ranking import over_cells
from farm.study.trials import Study
from farm.values.arrays import F64, I64
from farm.values.metrics import HEADLINES
from farm.values.units import MICRO


def cell_table(results: Results, ranking: Ranking | None) -> pa.Table:
    """Return one row per cell: trial, rank, objective, instrument, parameters, equity, metrics by bucket, digests.

    Parameters are columns ``params.<name>``, metrics ``full.<name>``, ``is.<name>``, ``oos.<name>``.
    """
    study = results.study
    width = len(study.cell_instruments)
    cells = results.cells(np.arange(study.trials))
    columns: dict[str, Any] = {
        "trial": pa.array(np.repeat(np.arange(study.trials, dtype=np.int32), width)),
        "rank": pa.array(np.repeat(_ranks(study, ranking), width), pa.int32(), from_pandas=True),
        "objective": _nullable(np.repeat(_values(study, ranking), width)),
        "instrument": pa.array(study.cell_instruments * study.trials, pa.string()),
    }
    for name, values, codes in zip(study.table.names, study.table.values, study.table.codes, strict=True):
        columns[f"params.{name}"] = pa.array(values).take(pa.array(np.repeat(codes, width)))
    is_run, proof = cells.is_run.ravel(), cells.columns["proof"].ravel()
    columns["verdict"] = pa.array([name or None for name in VERDICTS], pa.string()).take(
        pa.array(cells.columns["verdict"].ravel())
    )
    columns["equity_end"] = pa.array(cells.columns["equity_end_micro"].ravel() / MICRO, mask=~is_run)
    for bucket in results.buckets:
        columns |= {f"{bucket}.{name}": _nullable(cells.metric(name, bucket).ravel()) for name in results.metrics}
    columns["key"] = list(keys_of(results, cells))
    columns["stats"] = pa.array(hex_digests(cells.columns["stats"]), mask=~proof)
    columns["ledger"] = pa.array(hex_digests(cells.columns["ledger"]), mask=~(proof & is_run))
    return pa.table(columns)


def leader_rows(results: Results, ranking: Ranking | None, top: int) -> list[dict[str, Any]]:
    """Return the best ``top`` trials, best first (by number without an objective): rank, trial, parameters, objective,
    a few metrics of the ranking's bucket over their cells, fingerprint. Undefined numbers are None.

    With a split the objective's metric is also given out of sample (``oos.<metric>``).
    """
    study = results.study
    trials = (ranking.trials if ranking is not None else np.arange(study.trials))[:top]
    bucket, over = (ranking.bucket, ranking.over) if ranking is not None else ("full", "median")
    numbers: dict[str, F64] = {}
    if ranking is not None:
        numbers["objective"] = ranking.value[trials]
        if "oos" in results.buckets and bucket != "oos":
            numbers[f"oos.{ranking.metric}"] = over_cells(results.column(ranking.metric, "oos", trials), over)
    for metric in HEADLINES:
        numbers[f"{bucket}.{metric}"] = over_cells(results.column(metric, bucket, trials), over)
    fingerprints = results.fingerprints(trials)
    return [
        {"rank": at + 1, "trial": trial}
        | {f"params.{name}": value for name, value in study.params(trial).items()}
        | {name: None if np.isnan(values[at]) else float(values[at]) for name, values in numbers.items()}
        | {"fingerprint": fingerprints[at]}
        for at, trial in enumerate(trials.tolist())
    ]


def leader_table(results: Results, ranking: Ranking | None, top: int) -> pa.Table:
    """Return ``leader_rows`` as an Arrow table."""
    return pa.Table.from_pylist(leader_rows(results, ranking, top))


def _ranks(study: Study, ranking: Ranking | None) -> F64:
    """Return the rank of each trial from 1, NaN without an objective."""
    ranks = np.full(study.trials, np.nan)
    if ranking is not None:
        ranks[ranking.trials] = np.arange(1, study.trials + 1)
    return ranks


def _values(study: Study, ranking: Ranking | None) -> F64:
    return np.full(study.trials, np.nan) if ranking is None else ranking.value


def _nullable(values: F64 | I64) -> Any:
    return pa.array(values, from_pandas=True)
