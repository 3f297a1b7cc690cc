"""Results as Arrow tables: one row per cell, or one row per trial in the order of merit.

Undefined metrics are null here, not NaN. Tables convert with ``.to_pandas()`` and are what notebooks and DuckDB like.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from farm.results.results import Ranking, Results
from farm.results.segment import split_bytes
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
    columns: dict[str, Any] = {
        "trial": pa.array(np.repeat(np.arange(study.trials, dtype=np.int32), width)),
        "rank": pa.array(np.repeat(_ranks(study, ranking), width), pa.int32(), from_pandas=True),
        "objective": _nullable(np.repeat(_values(study, ranking), width)),
        "instrument": pa.array(study.cell_instruments * study.trials, pa.string()),
    }
    for position, name in enumerate(study.names):
        values = [row[position] for row in study.values for _ in range(width)]
        columns[f"params.{name}"] = pa.array(values)
    columns["verdict"] = pa.array([verdict or None for verdict in results.verdict], pa.string())
    columns["equity_end"] = pa.array(results.equity_end_micro / MICRO, mask=~results.simulated)
    for prefix, bucket in (("full", results.full), ("is", results.in_sample), ("oos", results.out_of_sample)):
        if bucket is not None:
            columns |= {f"{prefix}.{name}": _nullable(bucket[:, at]) for at, name in enumerate(results.metrics)}
    columns["key"] = [key.hex() for key in study.keys]
    columns["stats"] = [digest.hex() for digest in split_bytes(results.stats)]
    columns["ledger"] = pa.array([digest.hex() for digest in split_bytes(results.ledger)], mask=~results.simulated)
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
        numbers["objective"] = ranking.value
        if results.out_of_sample is not None and bucket != "oos":
            numbers[f"oos.{ranking.metric}"] = over_cells(results.column(ranking.metric, "oos"), over)
    for metric in HEADLINES:
        numbers[f"{bucket}.{metric}"] = over_cells(results.column(metric, bucket), over)
    return [
        {"rank": rank, "trial": trial}
        | {f"params.{name}": value for name, value in zip(study.names, study.values[trial], strict=True)}
        | {name: None if np.isnan(values[trial]) else float(values[trial]) for name, values in numbers.items()}
        | {"fingerprint": results.fingerprints[trial]}
        for rank, trial in enumerate(trials.tolist(), 1)
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
