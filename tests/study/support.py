"""Specs, stores and rows for the tests of studies: real bars of five stocks, in memory."""

from __future__ import annotations

import copy
import itertools
from functools import cache
from typing import Any

import numpy as np

from farm.columns.cache import ColumnCache
from farm.results.catalog import Catalog, block_name
from farm.results.extent import StoredAxes, encode_extent, extent_of
from farm.results.record import CellResult
from farm.results.segment import Segment, SegmentFile, encode
from farm.shard.dataset import Dataset
from farm.shard.ingest import ingest_sample
from farm.shard.layout import extent_key, segment_key
from farm.shard.snapshot import read_head
from farm.spec.parse import load_study
from farm.store.base import Store
from farm.store.open import open_store
from farm.study.plan import plan_study
from farm.study.trials import Study
from farm.values.metrics import METRIC_NAMES
from tests.study.rows import BlockRows, cell_keys

TICKERS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
_numbers = itertools.count()


def new_store() -> Store:
    """Return an empty store in memory."""
    return open_store(f"memory:study-tests-{next(_numbers)}")


@cache
def _sample() -> Store:
    store = new_store()
    ingest_sample(store, "main")
    return store


def sample_store() -> Store:
    """Return a store of one's own that holds the sample, and no study."""
    store = new_store()
    for meta in _sample().list(""):
        store.put(meta.key, _sample().get(meta.key))
    return store


def copy_store(store: Store) -> Store:
    """Return a store with the same objects."""
    other = new_store()
    for meta in store.list(""):
        other.put(meta.key, store.get(meta.key))
    return other


def cross(
    *,
    fast: Any = (5, 15, 5),
    slow: Any = (20, 40, 10),
    tickers: tuple[str, ...] = TICKERS,
    each: bool = True,
    indicator: str = "sma",
    **changes: Any,
) -> dict[str, Any]:
    """Return the spec of a moving-average cross; ``changes`` replace keys of ``run`` or ``study`` (None drops one)."""

    def average(name: str) -> dict[str, Any]:
        return {"i": indicator, "n": f"${name}"}

    spec: dict[str, Any] = {
        "spec": 1,
        "name": "cross",
        "strategy": {
            "params": {"fast": {"int": list(fast)}, "slow": {"int": list(slow)}},
            "universes": [{"id": "u", "tickers": list(tickers)}],
            "sleeves": [
                {
                    "id": "x",
                    "kind": "rules",
                    "universe": "u",
                    "side": "long",
                    "enter": {"cross_up": [average("fast"), average("slow")]},
                    "exit": {"cross_dn": [average("fast"), average("slow")]},
                    "size": {"mode": "pct_equity", "v": 1.0 if each else 0.2},
                }
            ],
        },
        "run": {"dataset": "main", "start": "2011-01-03", "end": "2012-12-31", "cash": 100000, "costs": {"bps": 10}},
        "study": {
            "search": {"grid": {}},
            "split": {"mode": "chronological", "is": 0.7, "embargo": 2},
            "objective": {"max": "sharpe"},
        },
    }
    if each:
        spec["study"]["each"] = {"instrument": "u"}
    for key, value in changes.items():
        part = spec["study"] if key in ("split", "objective", "each", "search") else spec["run"]
        if value is None:
            part.pop(key, None)
        else:
            part[key] = value
    return spec


def without_params(spec: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return the spec with numbers in place of its parameters."""
    plain = copy.deepcopy(spec)
    del plain["strategy"]["params"]
    plain["strategy"].pop("constraints", None)

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return values[value[1:]] if isinstance(value, str) and value.startswith("$") else value

    plain["strategy"]["sleeves"] = fill(plain["strategy"]["sleeves"])
    return plain


def planned(spec: dict[str, Any], store: Store, *, fresh: bool = False) -> Study:
    """Return the study as it would be stored now, nothing run."""
    parsed = load_study(spec)
    dataset = Dataset(store, read_head(store, parsed.run.dataset))
    return plan_study(parsed, dataset, Catalog(store), ColumnCache(1 << 28), fresh=fresh)


def stored_segment(store: Store, study: Study, block: int) -> Segment:
    """Return what is stored of a block."""
    like = BlockRows(study, block, study.metrics)
    key = segment_key(study.family, block_name(study.name, block))
    file = SegmentFile(store.get(key), key)
    columns = file.read()
    trials, positions = np.unique([like.cell(row) for row in range(len(like))], axis=0).T
    trials, positions = np.unique(trials), np.unique(positions)
    counts, assumptions = (
        tuple(name.partition(".")[2] for name in columns if name.startswith(kind))
        for kind in ("counts.", "assumptions.")
    )
    return Segment(
        trials=trials.astype(np.int32),
        params=study.table.take(trials),
        axes=study.axes.take(trials, positions),
        metrics=study.metrics,
        buckets=study.buckets,
        values=np.array([[columns[f"{bucket}.{name}"] for name in study.metrics] for bucket in study.buckets]),
        equity_end_micro=columns["equity_end_micro"],
        verdict=columns["verdict"],
        count_names=counts,
        counts=np.array([columns[f"counts.{name}"] for name in counts], np.int64).reshape(-1, *file.shape),
        assumption_names=assumptions,
        assumptions=np.array([columns[f"assumptions.{name}"] for name in assumptions]).reshape(-1, *file.shape),
        proof=columns["proof"],
        ledger=columns["ledger"][columns["proof"]],
        stats=columns["stats"][columns["proof"]],
    )


def put_over(store: Store, study: Study, name: str, segment: Segment) -> str:
    """Write a segment of the study and its extent, whatever is there; return its key."""
    key = segment_key(study.family, name)
    store.put(key, encode(segment))
    store.put(extent_key(key), encode_extent(extent_of(segment, StoredAxes(study.axes, study.table))))
    return key


def drop(store: Store, key: str) -> None:
    """Delete a segment and its extent."""
    store.delete(key)
    store.delete(extent_key(key))


def made_up_rows(study: Study, block: int, seed: int = 0) -> Segment:
    """Return rows for a block that nobody computed: numbers drawn by cell key, so that equal cells have equal rows."""
    rows = BlockRows(study, block, METRIC_NAMES)
    for row in range(len(rows)):
        trial, position = rows.cell(row)
        key = cell_keys(study)[trial * len(study.subjects) + position]
        chance = np.random.default_rng([seed, *key])
        full, in_sample, out_of_sample = (chance.normal(size=len(METRIC_NAMES)) for _ in range(3))
        rows.put(
            row,
            CellResult(
                equity_end_micro=int(chance.integers(1, 2**40)),
                vectors=(full, in_sample, out_of_sample) if study.split is not None else (full, None, None),
                ledger=chance.bytes(32).hex(),
                stats=chance.bytes(32).hex(),
                assumptions=("fixed_universe",),
                counts={"unfilled": row % 2},
            ),
        )
    return rows.segment()
