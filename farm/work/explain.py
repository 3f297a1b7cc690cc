"""All that is known of one cell: who computed it and why, what it reads, what was assumed, how its key is made up."""

from __future__ import annotations

from typing import Any

from farm.results.catalog import Catalog
from farm.results.leases import read_leases
from farm.results.remarks import has_fills, ordered, remarks
from farm.shard.layout import parse_segment_key
from farm.spec.spec import StudySpec
from farm.store.base import Store
from farm.study.needs import needs_of
from farm.study.trials import Study
from farm.values.settings import CacheSettings
from farm.values.units import MICRO, iso
from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION
from farm.work.names import cell_name, find_cell
from farm.work.run import BlockRunner

READ_PARTS = ("kind", "family", "split", "instrument", "window", "read_set", "sessions")


def explain_cell(cell: str, store: Store, *, study: str | None, settings: CacheSettings) -> dict[str, Any]:
    """Return what is known of the cell that ``cell`` names (``work/names.py``), as JSON values.

    Errors: UsageError when no study (or not ``study``) has such a cell, or several do.
    """
    runner = BlockRunner(store, settings=settings)
    owner, trial, position = find_cell(runner.catalog, cell, study)
    context = runner.context(owner)
    read = owner.read(trial, position)
    read_plan = needs_of(owner, context.dataset, context.spec, [position])
    axes = owner.axes_of([trial], [position])
    return {
        "cell": owner.axes.cell_key(trial, position).hex(),
        "name": cell_name(owner, trial, position),
        "study": owner.id,
        "trial": trial,
        "params": owner.params(trial),
        "instrument": read.instrument,
        "key": {
            "is": "SHA-256 of the read digest and the trial digest",
            "read": {
                "digest": axes.read[axes.history[0], 0].tobytes().hex(),
                "parts": dict(zip(READ_PARTS, owner.read_parts(read), strict=True)),
            },
            "trial": {"digest": axes.trial[0].tobytes().hex(), "parts": owner.used_params(trial)},
            "family_covers": {"semantics": SEMANTICS_VERSION, "numerics": NUMERICS_PROFILE},
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
        **_explain_result(runner.catalog, owner, context.spec, trial, position),
    }


def _explain_result(catalog: Catalog, owner: Study, spec: StudySpec, trial: int, position: int) -> dict[str, Any]:
    """Return what is stored for a cell, and by whom it was computed."""
    found = catalog.find_cell(owner, trial, position)
    if found is None:
        return {"result": None, "computed": None}
    cells = found.cells
    named = parse_segment_key(found.segment)
    assert named is not None, "the catalog looks at nothing else"
    name, block = named
    is_run = bool(cells.is_run[0, 0])
    counts = ordered(cells.counts(0, 0))
    has_traded = not is_run or has_fills(cells, 0, 0)
    leases = [lease.to_json() for lease in read_leases(catalog.store, name) if block in lease.blocks]
    return {
        "result": {
            "verdict": cells.verdict(0, 0),
            "equity_end": int(cells.columns["equity_end_micro"][0, 0]) / MICRO if is_run else None,
            "ledger": cells.digest("ledger", 0, 0),
            "stats": cells.digest("stats", 0, 0),
            "assumptions": cells.assumptions(0, 0),
            "counts": counts,
            "remarks": remarks(owner, spec, trial, owner.cell_instruments[position], counts, has_traded=has_traded),
        },
        "computed": {
            "segment": found.segment,
            "study": name,
            "block": block,
            "is_reused": name != owner.name,
            "leases": leases,
        },
    }
