"""All that is known of one cell: who computed it and why, what it reads, what was assumed, how its key is made up."""

from __future__ import annotations

from typing import Any

from farm.results.catalog import Catalog
from farm.results.leases import read_leases
from farm.results.remarks import ordered, remarks
from farm.results.results import assumed_text, counted_text
from farm.results.segment import parsed
from farm.shard.layout import parse_segment_key
from farm.spec.spec import StudySpec
from farm.store.base import Store
from farm.study.needs import needs_of
from farm.study.trials import Study
from farm.values.errors import DataError, UsageError
from farm.values.settings import CacheSettings
from farm.values.units import MICRO, iso
from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION
from farm.work.run import BlockRunner

READ_PARTS = ("kind", "template", "split", "instrument", "window", "read_set", "sessions")


def explain_cell(cell: str, store: Store, *, study: str | None, settings: CacheSettings) -> dict[str, Any]:
    """Return what is known of the cell whose key begins with ``cell``, as JSON values.

    Errors: UsageError when no study (or not ``study``) has such a cell, or several do.
    """
    runner = BlockRunner(store, settings=settings)
    owner, trial, position = _find_cell(runner.catalog, cell, study)
    context = runner.context(owner)
    number = trial * len(owner.cell_instruments) + position
    read = owner.read(trial, position)
    read_plan = needs_of(owner, context.dataset, context.spec, [position])
    axes = owner.axes_of([trial], [position])
    return {
        "cell": owner.keys[number].hex(),
        "study": owner.id,
        "trial": trial,
        "params": owner.params(trial),
        "instrument": read.instrument,
        "key": {
            "is": "SHA-256 of read and trial digest, each the SHA-256 of the canonical JSON of its parts",
            "read": {
                "digest": axes.read[axes.history[0], 0].tobytes().hex(),
                "parts": dict(zip(READ_PARTS, owner.read_parts(read), strict=True)),
            },
            "trial": {"digest": axes.trial[0].tobytes().hex(), "parts": owner.used_params(trial)},
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
            "access": [part.to_json() for part in read_plan.parts],
            "bytes": read_plan.bytes_needed,
        },
        **_explain_result(runner.catalog, owner, context.spec, number),
    }


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
    leases = [lease.to_json() for lease in read_leases(catalog.store, name) if block in lease.blocks]
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
