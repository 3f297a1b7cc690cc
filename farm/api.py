"""The farm from Python: one function per command, the same words, typed answers.

    from farm import api
    settings = api.at("s3://bucket/prefix")
    api.ingest_sample(settings)
    outcome = api.run("study.json", settings)
    outcome.leaderboard(10).to_pandas()

Rules: functions take settings (where the store is, how patient to be with it) and values, and return values; nothing
is printed. A spec is a path, JSON text, a JSON object or a parsed spec; a study is named by its id, by the first 8 or
more digits of it, or by its spec. ``run`` computes in this process; workers are the business of ``cluster``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.results.catalog import Catalog
from farm.results.remarks import ordered, remarks
from farm.results.results import assumed_text, counted_text
from farm.results.segment import parsed
from farm.shard.dataset import Dataset
from farm.shard.layout import is_of_study, leases_prefix, parse_ref_key, parse_segment_key, parse_study_key
from farm.shard.snapshot import read_head
from farm.spec.parse import load_study
from farm.spec.resolve import template
from farm.spec.spec import StudySpec
from farm.store.base import Store
from farm.store.open import open_store
from farm.store.probe import Proven
from farm.study.plan import Plan, needs_of
from farm.study.reads import BARS
from farm.study.space import grid
from farm.study.trials import FRESH, Study
from farm.values.errors import DataError, UsageError, WriteFailed
from farm.values.settings import FarmSettings, from_environment
from farm.values.units import MICRO, iso
from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION
from farm.work.run import BlockRunner, Outcome, Progress, Spec, open_study, run_in_process
from farm.work.run import plan as plan_run

if TYPE_CHECKING:
    from farm.shard.ingest import IngestSummary

__all__ = [
    "Outcome", "Plan", "Progress", "Spec", "at", "check_spec", "explain", "ingest", "ingest_sample",
    "plan", "report", "results", "run", "status",
]  # fmt: skip


def at(url: str) -> FarmSettings:
    """Return the settings of the environment for the store at ``url``."""
    return from_environment().with_store(url)


def store_of(settings: FarmSettings) -> Store:
    """Return the store that the settings name."""
    return open_store(settings.store.url, settings.store)


def written_to(settings: FarmSettings) -> Store:
    """Return the store that the settings name, proven at the first write to keep what it is given first.

    Refs, study records and segments stand on conditional puts, which some S3 servers ignore without a word. A directory
    and a dictionary are known to honour them.
    """
    store = store_of(settings)
    return Proven(store) if store.url.startswith("s3:") else store


def ingest(
    source: Any,
    settings: FarmSettings,
    *,
    dataset: str | None = None,
    kind: str = "stock_daily",
    mapping: Mapping[str, str] | None = None,
    tz: str | None = None,
    stamp: str | None = None,
    symbol: str | None = None,
    type: str | None = None,
    calendar: str | None = None,
    price_scale: int | None = None,
    row_group_rows: int | None = None,
    codec: str | None = None,
    sort: bool = False,
    skip_unknown: bool = False,
    skip_rows: Collection[str] = (),
) -> IngestSummary:
    """Put market data into the store: a CSV or Parquet file (path or fsspec URL), or a pyarrow or pandas table.

    Errors: UsageError for flags, DataError for rows, StoreError; the dataset is then as it was.
    """
    from farm.shard import ingest as shard_ingest  # what runs studies needs no parsers

    take = shard_ingest.ingest_file if isinstance(source, (str, Path)) else shard_ingest.ingest_table
    return take(
        written_to(settings),
        dataset or settings.dataset,
        str(source) if isinstance(source, Path) else source,
        kind,
        mapping=mapping,
        tz=tz,
        stamp=stamp,
        symbol=symbol,
        type=type,
        calendar=calendar,
        price_scale=price_scale,
        row_group_rows=row_group_rows,
        codec=codec,
        sort=sort,
        skip_unknown=skip_unknown,
        skip_rows=skip_rows,
    )


def ingest_sample(settings: FarmSettings, *, dataset: str | None = None) -> IngestSummary:
    """Put the sample into the store: real daily bars of five stocks, and their splits."""
    from farm.shard.ingest import ingest_sample as put_sample

    return put_sample(written_to(settings), dataset or settings.dataset)


def check_spec(spec: Spec) -> dict[str, Any]:
    """Return what a spec means, without data: template, resolved defaults, parameters, trials. SpecError."""
    parsed = load(spec)
    points = grid(parsed.strategy.params, parsed.strategy.constraints)
    made = template(parsed)
    return {
        "name": parsed.name,
        "template": made.hash,
        "resolved": made.document,
        "params": list(points.names),
        "points": len(points.values),
        "excluded": points.excluded,
        "each": parsed.each,
    }


def load(spec: Spec) -> StudySpec:
    """Return the checked spec. Errors: SpecError, whose place is a path in the document."""
    return spec if isinstance(spec, StudySpec) else load_study(spec)


def only(spec: Spec, trial: int | str, settings: FarmSettings, *, snapshot: str | None = None) -> StudySpec:
    """Return the spec of one trial of a study: the same spec with one value for each parameter, hence the same keys.

    ``trial``: its number, or "best" for the winner of a study that is finished.
    Errors: UsageError for a trial that the study does not have, or "best" without an objective.
    """
    parsed = load(spec)
    if trial == "best":
        outcome = results(parsed, settings, snapshot=snapshot)
        if outcome.ranking is None:
            raise UsageError("the study has no objective, hence no best trial", place="--trial", hint="give a number")
        study, number = outcome.study, int(outcome.ranking.order[0])
    else:
        study = plan(parsed, settings, snapshot=snapshot).study
        if not str(trial).isdecimal() or int(trial) >= study.trials:
            raise UsageError(f"no trial {trial}", place="--trial", allowed=f"best, or 0 to {study.trials - 1}")
        number = int(trial)
    params = {name: {"choice": [value]} for name, value in study.params(number).items()}
    return load_study(
        {**parsed.raw, "strategy": {**parsed.raw["strategy"], "params": params}} if params else parsed.raw
    )


def plan(spec: Spec, settings: FarmSettings, *, snapshot: str | None = None, fresh: bool = False) -> Plan:
    """Return what running the study now would read, prune and compute; nothing is run or stored."""
    return plan_run(spec, store_of(settings), snapshot=snapshot, fresh=fresh, settings=settings.cache)


def run(
    spec: Spec,
    settings: FarmSettings,
    *,
    snapshot: str | None = None,
    fresh: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Run a study in this process, or find it finished. ``fresh`` computes every cell again and compares."""
    return run_in_process(
        spec,
        written_to(settings),
        snapshot=snapshot,
        fresh=fresh,
        threads=threads or settings.threads,
        progress=progress,
        settings=settings.cache,
    )


def results(study: Spec, settings: FarmSettings, *, snapshot: str | None = None) -> Outcome:
    """Return a finished study; ``.table()`` and ``.leaderboard(n)`` are Arrow tables, ``.document()`` is the JSON.

    Errors: UsageError for an unknown study; DataError for one that is not finished.
    """
    return open_study(study, store_of(settings), snapshot=snapshot)


def status(settings: FarmSettings, *, study: str | None = None) -> dict[str, Any]:
    """Return the datasets and studies of the store, or one study with its blocks, as JSON values.

    Of the whole store: a dataset or study that is damaged has an ``error`` instead; ``strangers`` counts the objects
    among refs and studies whose names no farm gives.
    """
    store = store_of(settings)
    catalog = Catalog(store)
    if study is not None:
        return {"store": store.url, "studies": [_study_status(catalog, catalog.read_study(study).name, full=True)]}
    refs = [parse_ref_key(meta.key) for meta in store.list("refs/")]
    of_studies = [meta.key for meta in store.list("studies/")]
    names = [name for key in of_studies if (name := parse_study_key(key)) is not None]
    datasets = sorted({ref[0] for ref in refs if ref is not None})
    return {
        "store": store.url,
        "datasets": [_or_error("dataset", name, lambda name: _dataset_status(store, name)) for name in datasets],
        "studies": [_or_error("study", name, lambda name: _study_status(catalog, name, full=False)) for name in names],
        "strangers": refs.count(None) + sum(not is_of_study(key) for key in of_studies),
    }


def _or_error(what: str, name: str, ask: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the status of ``name``, or, where it is damaged, its name and the error."""
    try:
        return ask(name)
    except DataError as error:
        return {what: name, "error": error.to_json()}


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
    waiting = sum(block.cells for block in study.blocks if block.index not in finished)
    found: dict[str, Any] = {
        "study": study.id,
        "fresh": study.name.endswith(FRESH),
        "name": study.spec.get("name", ""),
        "dataset": study.dataset,
        "snapshot": study.snapshot,
        "trials": study.trials,
        "cells": {"total": study.cells, "done": study.cells - waiting},
        "blocks": {"total": len(study.blocks), "finished": len(finished)},
    }
    if full:
        found["waiting"] = [block.index for block in study.blocks if block.index not in finished]
        found["leases"] = [meta.key for meta in catalog.store.list(leases_prefix(study.name))]
    return found


def report(
    study: Spec, settings: FarmSettings, output: str | Path, *, snapshot: str | None = None, trial: int | None = None
) -> int:
    """Write the report of a finished study's winner (or of another trial) to ``output``; return its bytes.

    Errors: as ``results``; ResultConflict when the trial, computed again, is not what is stored; UsageError when there
    can be no such file, WriteFailed when it does not fit: what was there before is there still.
    """
    from farm.report.briefing import report_of
    from farm.report.report import report_html

    store = store_of(settings)
    outcome = open_study(study, store, snapshot=snapshot)
    data = report_html(report_of(outcome, store, trial=trial, settings=settings.cache)).encode()
    _write_file(Path(output), data)
    return len(data)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; a device or a pipe is written as it is."""
    aside = path.with_name(f".{path.name}.{os.getpid()}") if path.is_file() or not path.exists() else path
    try:
        try:
            aside.write_bytes(data)
            if aside != path:
                aside.replace(path)
        except BaseException:
            if aside != path:
                aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        message = f"the report cannot be written: {error.strerror or error}"
        if error.errno in _NO_ROOM:
            raise WriteFailed(message, place=str(path), hint="make room, or name another --output") from error
        raise UsageError(message, place=str(path), hint="name another --output") from error


def explain(cell: str, settings: FarmSettings, *, study: str | None = None) -> dict[str, Any]:
    """Return all that is known of one cell, named by 8 or more digits of its key: who computed it and why, what it
    reads, what was assumed, and how its key is made up.

    Errors: UsageError when no study (or not ``study``) has such a cell.
    """
    store = store_of(settings)
    runner = BlockRunner(store, settings=settings.cache)
    owner, trial, position = _find_cell(runner.catalog, cell, study)
    context = runner.context(owner)
    number = trial * len(owner.cell_instruments) + position
    read = owner.read(trial, position)
    names = () if read.instrument is None else (read.instrument,)
    plans = needs_of(owner, context.dataset, context.spec, names)
    return {
        "cell": owner.keys[number].hex(),
        "study": owner.id,
        "trial": trial,
        "params": owner.params(trial),
        "instrument": read.instrument,
        "key": {
            "is": "SHA-256 of the canonical JSON of these parts",
            "parts": dict(zip(KEY_PARTS, owner.key_parts(trial, position), strict=True)),
            "template_covers": {"semantics": SEMANTICS_VERSION, "numerics": NUMERICS_PROFILE},
        },
        "reads": {
            "snapshot": owner.snapshot,
            "history": iso(read.first_day),
            "start": iso(context.spec.run.start_day),
            "end": iso(context.spec.run.end_day),
            "bars_in_window": read.bars,
            "bars_read": read.rows,
            "anchors": context.anchors(trial, position) if read.bars else {},
            "access": [plan.to_json() for plan in plans],
            "bytes": sum(plan.bytes_needed for plan in plans),
        },
        **_explain_result(runner.catalog, owner, context.spec, number),
    }


KEY_PARTS = ("kind", "template", "split", "instrument", "read_set", "sessions", "params")


def _find_cell(catalog: Catalog, cell: str, study: str | None) -> tuple[Study, int, int]:
    """Return study, trial and position of the cell; of several studies that have it, the first by name.

    Errors: UsageError; DataError for a damaged record of a study, when no other has the cell.
    """
    place = "cell"
    if len(cell) < 8 or not set(cell.lower()) <= set("0123456789abcdef"):
        raise UsageError(f"not a cell key: {cell!r}", place=place, allowed="8 to 64 hex digits of a key")
    names = [study] if study is not None else catalog.study_names()
    found: tuple[Study, int] | None = None
    damaged: list[DataError] = []
    for name in names:
        try:
            owner = catalog.read_study(name)
        except DataError as error:
            damaged.append(error)
            continue
        for number, key in enumerate(owner.keys):
            if not key.hex().startswith(cell.lower()):
                continue
            if found is not None and found[0].keys[found[1]] != key:
                raise UsageError(f"several cells begin with {cell}", place=place, hint="give more digits")
            found = found or (owner, number)
    if found is None:
        if damaged:
            raise damaged[0]
        raise UsageError(
            f"no such cell: {cell}",
            place=f"study {study}" if study is not None else catalog.store.url,
            hint="keys stand in farm results STUDY --json",
        )
    return found[0], *divmod(found[1], len(found[0].cell_instruments))


def _explain_result(catalog: Catalog, owner: Study, spec: StudySpec, number: int) -> dict[str, Any]:
    """Return what is stored for a cell, and by whom it was computed."""
    found = catalog.lookup(owner.family, [owner.keys[number]])
    if not found.count:
        return {"result": None, "computed": None}
    [key] = found.segments
    [segment] = catalog.read_segments([key])
    row = int(found.row[0])
    named = parse_segment_key(key)
    assert named is not None, "the catalog looks at nothing else"
    name, block = named
    trial, position = divmod(number, len(owner.cell_instruments))
    instrument = owner.cell_instruments[position]
    counts = ordered(parsed(counted_text(segment.counts[row], owner.cell_counts[position])))
    has_traded = not segment.simulated[row] or bool(segment.full[row, segment.metrics.index("fills")] > 0)
    leases = [lease for lease in catalog.leases(name) if block in lease["blocks"]]
    return {
        "result": {
            "verdict": segment.verdict[row] or None,
            "equity_end": int(segment.equity_end_micro[row]) / MICRO if segment.simulated[row] else None,
            "ledger": segment.ledger[row].tobytes().hex() if segment.simulated[row] else None,
            "stats": segment.stats[row].tobytes().hex(),
            "assumptions": parsed(assumed_text(segment.assumptions[row], owner.assumptions)),
            "counts": counts,
            "remarks": remarks(owner, spec, trial, instrument, counts, has_traded=has_traded),
        },
        "computed": {"segment": key, "study": name, "block": block, "is_reused": name != owner.name, "leases": leases},
    }
