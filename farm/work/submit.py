"""From a spec to the blocks that wait: a study planned, its record stored or found; or the plan alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.columns.cache import ColumnCache
from farm.columns.process import process_cache
from farm.program.template import StudyProgram, compile_study
from farm.results.catalog import Catalog
from farm.shard.dataset import Dataset
from farm.shard.snapshot import Snapshot, read_head, read_snapshot
from farm.spec.parse import load_study
from farm.spec.resolve import template
from farm.spec.spec import StudySpec
from farm.spec.table import Chosen
from farm.store.base import Store
from farm.store.wrap import Metered
from farm.study.needs import needs_of
from farm.study.plan import Plan, make_plan, plan_study, study_id
from farm.study.trials import Study, study_name
from farm.values.settings import CacheSettings

Spec = StudySpec | Mapping[str, Any] | str | Path
"""A spec: parsed, a JSON object, JSON text, or a path."""


@dataclass(frozen=True)
class SubmittedStudy:
    """A stored study, what it was made from, and the blocks that wait. ``metered``: the store of ``dataset``."""

    study: Study
    spec: StudySpec
    program: StudyProgram
    dataset: Dataset
    catalog: Catalog
    waiting: tuple[int, ...]
    metered: Metered

    @property
    def cells_waiting(self) -> int:
        """Cells of the waiting blocks."""
        return int(self.study.blocks.cells[list(self.waiting)].sum())

    @property
    def bytes_needed(self) -> int:
        """Distinct bytes that the waiting blocks read: column chunks, and the indexes and calendars that name them."""
        return self.bytes_of(self.study.blocks.positions_of(self.waiting)) if self.waiting else 0

    def bytes_of(self, positions: Chosen) -> int:
        """Distinct bytes that the cells on the subjects at ``positions`` read, indexes and calendars too."""
        read_plan = needs_of(self.study, self.dataset, self.spec, positions)
        self.dataset.calendar(self.spec.run.calendar)
        return read_plan.bytes_needed + self.dataset.metadata_bytes


def submit(
    spec: Spec,
    store: Store,
    *,
    snapshot: str | None = None,
    fresh: bool = False,
    cache: ColumnCache | None = None,
    catalog: Catalog | None = None,
    settings: CacheSettings | None = None,
) -> SubmittedStudy:
    """Plan the study, store its record if nobody has, and return it with the blocks that wait.

    The same submission finds its record, and only blocks without a segment wait. ``fresh`` ignores the catalog: all
    blocks of the fresh study wait, always.
    Errors: SpecError, DataError (empty dataset, no bar in the window), StoreError, ResultConflict.
    """
    parsed = spec if isinstance(spec, StudySpec) else load_study(spec)
    catalog = catalog if catalog is not None else Catalog(store)
    metered = Metered(store)
    dataset = Dataset(metered, snapshot_of(store, parsed, snapshot))
    columns = cache if cache is not None else process_cache(settings)
    program = compile_study(parsed)
    study, is_stored = _find_or_plan(parsed, program, dataset, catalog, columns, fresh=fresh)
    stored = study if is_stored else catalog.put_study(study)
    finished = frozenset() if fresh else catalog.finished_blocks(stored)
    waiting = tuple(index for index in range(len(stored.blocks)) if index not in finished)
    return SubmittedStudy(stored, parsed, program, dataset, catalog, waiting, metered)


def plan(
    spec: Spec,
    store: Store,
    *,
    snapshot: str | None = None,
    fresh: bool = False,
    settings: CacheSettings | None = None,
) -> Plan:
    """Return what running the study now would read and compute; nothing is stored or run."""
    parsed = spec if isinstance(spec, StudySpec) else load_study(spec)
    catalog = Catalog(store)
    dataset = Dataset(store, snapshot_of(store, parsed, snapshot))
    columns = process_cache(settings)
    study, is_stored = _find_or_plan(parsed, compile_study(parsed), dataset, catalog, columns, fresh=fresh)
    finished = catalog.finished_blocks(study) if is_stored and not fresh else frozenset()
    return make_plan(study, dataset, parsed, finished, is_stored=is_stored)


def snapshot_of(store: Store, spec: StudySpec, snapshot: str | None) -> Snapshot:
    """Return the snapshot with this id, or the current one of the dataset. Errors: DataError."""
    if snapshot is None:
        return read_head(store, spec.run.dataset)
    return read_snapshot(store, snapshot, dataset=spec.run.dataset)


def _find_or_plan(
    spec: StudySpec, program: StudyProgram, dataset: Dataset, catalog: Catalog, cache: ColumnCache, *, fresh: bool
) -> tuple[Study, bool]:
    """Return the study and whether it is stored already."""
    identity = study_id(spec, template(spec).hash, dataset.snapshot.id)
    stored = catalog.find_study(study_name(identity, fresh))
    if stored is not None:
        return stored, True
    return plan_study(spec, dataset, catalog, cache, program=program, fresh=fresh), False
