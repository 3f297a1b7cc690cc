"""What is in a store: datasets with their instruments, studies and how far they are. JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farm.results.catalog import Catalog
from farm.shard.dataset import Dataset
from farm.shard.layout import is_of_study, leases_prefix, parse_ref_key, parse_study_key
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.study.reads import BARS
from farm.study.trials import FRESH
from farm.values.errors import DataError, OtherFormat
from farm.values.units import iso


def store_status(store: Store) -> dict[str, Any]:
    """Return the datasets and all studies of the store.

    A dataset or study that is damaged has an ``error`` instead; ``other_formats`` counts the studies whose records an
    older or newer version has written, ``strangers`` the objects among refs and studies whose names no farm gives.
    """
    catalog = Catalog(store)
    refs = [parse_ref_key(meta.key) for meta in store.list("refs/")]
    of_studies = [meta.key for meta in store.list("studies/")]
    names = [name for key in of_studies if (name := parse_study_key(key)) is not None]
    datasets = sorted({ref[0] for ref in refs if ref is not None})
    studies, other_formats = [], 0
    for name in names:
        try:
            studies.append(_or_error("study", name, lambda name: _study_status(catalog, name, full=False)))
        except OtherFormat:
            other_formats += 1
    return {
        "store": store.url,
        "datasets": [_or_error("dataset", name, lambda name: _dataset_status(store, name)) for name in datasets],
        "studies": studies,
        "other_formats": other_formats,
        "strangers": refs.count(None) + sum(not is_of_study(key) for key in of_studies),
    }


def _or_error(what: str, name: str, ask: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the status of ``name``, or, where it is damaged, its name and the error. Errors: OtherFormat."""
    try:
        return ask(name)
    except OtherFormat:
        raise
    except DataError as error:
        return {what: name, "error": error.to_json()}


def study_status(store: Store, study: str) -> dict[str, Any]:
    """Return one study with its waiting blocks and its leases; UsageError for one that is unknown."""
    catalog = Catalog(store)
    return {"store": store.url, "studies": [_study_status(catalog, catalog.read_study(study).name, full=True)]}


def _dataset_status(store: Store, name: str) -> dict[str, Any]:
    snapshot = read_head(store, name)
    dataset = Dataset(store, snapshot)
    kinds: dict[str, dict[str, int]] = {}
    for ref in snapshot.shards:
        kind = kinds.setdefault(ref.kind, {"shards": 0, "rows": 0, "bytes": 0})
        kind["shards"] += 1
        kind["rows"] += ref.rows
        kind["bytes"] += ref.bytes
    instruments = []
    for instrument in dataset.instruments().values():
        months = dataset.months(BARS, instrument.id)
        instruments.append(
            {
                "id": instrument.id,
                "symbol": instrument.symbol,
                "type": instrument.type,
                "bars": sum(month.rows for month in months),
                "first": iso(months[0].first_day) if months else None,
                "last": iso(months[-1].last_day) if months else None,
            }
        )
    return {
        "dataset": name,
        "snapshot": snapshot.id,
        "kinds": kinds,
        "calendars": sorted(snapshot.calendars),
        "instruments": instruments,
    }


def _study_status(catalog: Catalog, name: str, *, full: bool) -> dict[str, Any]:
    study = catalog.read_study(name)
    finished = catalog.finished_blocks(study)
    waiting = [index for index in range(len(study.blocks)) if index not in finished]
    left = int(study.blocks.cells[waiting].sum())
    found: dict[str, Any] = {
        "study": study.id,
        "fresh": study.name.endswith(FRESH),
        "name": study.spec.get("name", ""),
        "dataset": study.dataset,
        "snapshot": study.snapshot,
        "trials": study.trials,
        "cells": {"total": study.cells, "done": study.cells - left},
        "blocks": {"total": len(study.blocks), "finished": len(finished)},
    }
    if full:
        found["waiting"] = waiting
        found["leases"] = [meta.key for meta in catalog.store.list(leases_prefix(study.name))]
    return found
