"""The farm from Python: one function per command, the same words, typed answers.

    from farm import api
    settings = api.at("s3://bucket/prefix")
    api.ingest_sample(settings)
    outcome = api.run("study.json", settings)
    outcome.leaderboard(10).to_pandas()

Rules: functions take settings (where the store is, how patient to be with it) and values, and return values; nothing
is printed. A spec is a path, JSON text, a JSON object or a parsed spec; a study is named by its id, by the first 8 or
more digits of it, or by its spec. ``run`` computes in this process; workers are the business of ``cluster``. What a
function needs beyond the grammar it imports itself: ``check_spec`` loads no Arrow, ``status`` and ``ingest`` no numba.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.spec.parse import load_study
from farm.spec.resolve import template
from farm.spec.spec import StudySpec
from farm.store.base import Store
from farm.store.open import open_store
from farm.store.probe import Proven
from farm.study.space import grid_of
from farm.values.errors import UsageError, WriteFailed
from farm.values.settings import FarmSettings, from_environment

if TYPE_CHECKING:
    from farm.results.clean import Cleaning
    from farm.shard.ingest import IngestSummary
    from farm.study.plan import Plan
    from farm.work.run import Outcome, Progress, Spec

__all__ = [
    "at",
    "check_spec",
    "clean",
    "explain",
    "ingest",
    "ingest_sample",
    "plan",
    "report",
    "results",
    "run",
    "status",
]


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
    from farm.shard import ingest as shard_ingest

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
    points = grid_of(parsed)
    made = template(parsed)
    return {
        "name": parsed.name,
        "template": made.hash,
        "resolved": made.document,
        "params": list(points.table.names),
        "points": points.table.trials,
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
        study, number = outcome.study, int(outcome.ranking.trials[0])
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
    from farm.work.run import plan as plan_run

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
    from farm.work.run import run_in_process

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
    from farm.work.run import open_study

    return open_study(study, store_of(settings), snapshot=snapshot)


def status(settings: FarmSettings, *, study: str | None = None) -> dict[str, Any]:
    """Return the datasets and studies of the store, or one study with its blocks, as JSON values.

    Of the whole store: a dataset or study that is damaged has an ``error`` instead; ``other_formats`` counts the
    studies that an older or newer version has recorded, ``strangers`` the objects among refs and studies whose names no
    farm gives.
    """
    from farm.results.overview import store_status, study_status

    store = store_of(settings)
    return store_status(store) if study is None else study_status(store, study)


def clean(settings: FarmSettings, *, older: str, is_dry: bool = False) -> Cleaning:
    """Remove what ended studies leave behind beside their results: lease records, attempts, markers; never data,
    records or segments. ``older``: only of studies of which nothing of that is younger, such as ``90d``.

    Errors: UsageError for an age that is none; PermissionDenied for who may not delete.
    """
    from farm.results.clean import clean as clean_store
    from farm.results.clean import parse_age

    older_s = parse_age(older)
    return clean_store(store_of(settings), older_s=older_s, now_ns=time.time_ns(), is_dry=is_dry)


def report(
    study: Spec,
    settings: FarmSettings,
    output: str | Path,
    *,
    snapshot: str | None = None,
    trial: int | str | None = None,
) -> int:
    """Write the report of a finished study's winner to ``output``; return its bytes.

    ``trial``: another trial, or one cell: TRIAL[/INSTRUMENT], where TRIAL is a number or digits of its trial digest.
    Errors: as ``results``; ResultConflict when the trial, computed again, is not what is stored; UsageError when there
    can be no such file, WriteFailed when it does not fit: what was there before is there still.
    """
    from farm.report.briefing import report_of
    from farm.report.report import report_html
    from farm.work.names import find_trial
    from farm.work.run import open_study

    store = store_of(settings)
    outcome = open_study(study, store, snapshot=snapshot)
    number, position = (None, None) if trial is None else find_trial(outcome.study, str(trial))
    made = report_of(outcome, store, trial=number, position=position, settings=settings.cache)
    data = report_html(made).encode()
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
    """Return all that is known of one cell: who computed it and why, what it reads, what was assumed, and how its key
    is made up.

    ``cell``: TRIAL/INSTRUMENT, where TRIAL is its number in ``study`` or 8 or more digits of its trial digest; or 8 or
    more digits of its key, which are looked up in studies of up to 10,000 cells.
    Errors: UsageError when no study (or not ``study``) has such a cell.
    """
    from farm.work.explain import explain_cell

    return explain_cell(cell, store_of(settings), study=study, settings=settings.cache)
