"""The catalog: study records, and result segments with their extents and axes, in the bucket.

    studies/<name>/study.json                    the record of a study, with its blocks
    results/<family>/<name>-<block>.parquet      the values of one block; family = template hash
    results/<family>/<name>-<block>.extent       which cells these are: written last, and only then the block is there
    results/<family>/axes/<digest>.arrow         the axes of a study: written before the first of its extents

Rules: everything is created with ``put_if_absent`` and never changed. Who finds an object already there compares
content: equal is a success (determinism makes it the normal case), different is a ``ResultConflict``. A block has
finished when both its segment and its extent are there: what a crash leaves of one is written again, and compared. The
catalog of a family is the union of its segments; a look-up reads extents and axes, never values. Cells that several
segments hold are compared when results are read, and by a fresh study. A damaged object is a ``DataError`` that names
it for whoever needs it, never a cell that is silently computed again: the record of its study tells which cells a
damaged extent named. What another version wrote, and what has another name than these, is not looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from farm.results.compare import compare_patches, conflict
from farm.results.extent import (
    Extent,
    StoredAxes,
    decode_axes,
    decode_extent,
    encode_axes,
    encode_extent,
    extent_of,
    planned_extent,
)
from farm.results.lookup import Found, Patch, look_up
from farm.results.results import DIGESTS, Cells, Results, add_of_study, gather
from farm.results.segment import Array, Segment, SegmentFile, damaged, encode
from farm.shard.layout import (
    axes_key,
    extent_key,
    parse_segment_key,
    parse_study_key,
    results_prefix,
    segment_key,
    study_key,
)
from farm.store.base import Store
from farm.study.axes import Axes
from farm.study.block import Block
from farm.study.missing import all_missing
from farm.study.stored import from_bytes, to_bytes
from farm.study.trials import FRESH, Study
from farm.values.arrays import I32, I64, readonly
from farm.values.errors import AlreadyExists, DataError, NotFound, OtherFormat, ResultConflict, UsageError
from farm.values.shared import Shared

SEGMENT_BYTES_MAX = 256 * 1024 * 1024
AXES_BYTES_MAX = 128 * 1024 * 1024
NOT_KEPT = sys.maxsize
"""A size that no budget has."""
READS_IN_FLIGHT = 16
STUDY_DIGITS_MIN = 8

_NO_PROOF = readonly(np.empty(0, np.int64))
T = TypeVar("T")


def block_name(study: str, block: int) -> str:
    """Return the name of a block's segment within its family."""
    return f"{study}-{block:06d}"


@dataclass(frozen=True, eq=False)
class StoredCell:
    """One cell, as ``cells`` of one trial and one subject, and the key of the segment that it was read from."""

    segment: str
    cells: Cells


@dataclass(frozen=True, eq=False)
class _Decoded(Generic[T]):
    """An object as it was read, or why it cannot be used: that is not kept, it may be mended."""

    size: int
    value: T | DataError


class _Gone(DataError):
    """An object that was there when it was looked for, and has been deleted since."""


class Catalog:
    """Results by their axes, over one store. Safe for many threads."""

    def __init__(
        self, store: Store, *, segment_bytes_max: int = SEGMENT_BYTES_MAX, axes_bytes_max: int = AXES_BYTES_MAX
    ) -> None:
        self.store = store
        self._segments: Shared[str, bytes] = Shared(segment_bytes_max, len)
        self._extents: Shared[str, _Decoded[Extent]] = Shared(axes_bytes_max, lambda decoded: decoded.size)
        self._axes: Shared[str, _Decoded[StoredAxes]] = Shared(axes_bytes_max, lambda decoded: decoded.size)
        self._pool = ThreadPoolExecutor(READS_IN_FLIGHT, "segments")  # threads start when they are needed, and stay
        self._own_axes: Shared[str, StoredAxes] = Shared(axes_bytes_max, lambda axes: axes.nbytes)

    # Study records

    def find_study(self, name: str) -> Study | None:
        """Return the stored study of this name, or None."""
        key = study_key(name)
        try:
            return from_bytes(self.store.get(key), key)
        except NotFound:
            return None

    def read_study(self, name: str) -> Study:
        """Return the stored study of this name, or of the one that begins with it (8 or more digits); UsageError."""
        study = self.find_study(name)
        if study is not None:
            return study
        known = self.study_names(name) if len(name) >= STUDY_DIGITS_MIN else []
        ids = sorted({found.removesuffix(FRESH) for found in known})
        if len(ids) == 1:
            # A study and its fresh twin have one id; the plain one is meant.
            return self.find_study(ids[0]) or self.read_study(known[0])
        raise UsageError(
            f"{len(ids)} studies begin with {name}" if ids else f"no such study: {name}",
            place=self.store.url,
            allowed=f"a study id, or the first {STUDY_DIGITS_MIN} or more digits of one",
            hint="farm status lists the studies of a store",
        )

    def study_names(self, prefix: str = "") -> list[str]:
        """Return the names of the stored studies that begin with ``prefix``, in bytewise order."""
        keys = (meta.key for meta in self.store.list(f"studies/{prefix}"))
        return [name for key in keys if (name := parse_study_key(key)) is not None]

    def put_study(self, study: Study) -> Study:
        """Store the study's record if it has none; return the stored one, which decides about blocks."""
        try:
            self.store.put_if_absent(study_key(study.name), to_bytes(study))
        except AlreadyExists:
            return self.read_study(study.name)
        return study

    # Segments

    def put_segment(self, study: Study, block: int, segment: Segment) -> bool:
        """Store the values of a block, and then its extent; return whether they are new.

        Errors: ResultConflict when the block is stored with other values; DataError when what is stored is damaged.
        """
        key = segment_key(study.family, block_name(study.name, block))
        extent = extent_of(segment, self._own_axes.get(study.name, lambda: self._put_axes(study)))
        is_new = True
        try:
            self.store.put_if_absent(key, encode(segment))
        except AlreadyExists:
            is_new = False
            stored = _in_the_way(lambda: SegmentFile(self.store.get(key), key))
            columns = _in_the_way(stored.read)
            if stored.content != segment.content:
                raise conflict(columns, segment, key, study) from None
        try:
            self.store.put_if_absent(extent_key(key), encode_extent(extent))
        except AlreadyExists:
            found = _in_the_way(lambda: decode_extent(self.store.get(extent_key(key)), extent_key(key)))
            if found.content != extent.content:
                raise ResultConflict(
                    "the extent of this block names other values than those that are stored now",
                    place=extent_key(key),
                    hint="delete this object, if the segment beside it was deleted before",
                ) from None
            return is_new
        return True

    def _put_axes(self, study: Study) -> StoredAxes:
        """Store the axes of a study if they are not there, and return them."""
        axes = StoredAxes(study.axes, study.table)
        key = axes_key(study.family, axes.digest)
        if not any(meta.key == key for meta in self.store.list(key)):
            with suppress(AlreadyExists):  # somebody was faster; its name is its content
                self.store.put_if_absent(key, encode_axes(axes))
        return axes

    def finished_blocks(self, study: Study) -> frozenset[int]:
        """Return the blocks of the study that have a segment; that of its winners is none of them."""
        named = [parse_segment_key(key) for key in self._listed(f"{results_prefix(study.family)}{study.name}-")]
        numbers = (found[1] for found in named if found is not None and found[0] == study.name)
        return frozenset(number for number in numbers if number < len(study.blocks))

    def _listed(self, prefix: str) -> list[str]:
        """Return the keys of the segments below ``prefix`` that are there with their extents, in bytewise order."""
        keys = {meta.key for meta in self.store.list(prefix)}
        return sorted(
            key
            for key in keys
            if key.endswith(".parquet") and parse_segment_key(key) is not None and extent_key(key) in keys
        )

    def files(self, keys: Sequence[str]) -> Iterator[SegmentFile]:
        """Yield the segments under ``keys``, in order, a few at a time. Errors: DataError for one that is
        damaged or gone."""
        for start in range(0, len(keys), READS_IN_FLIGHT):
            some = keys[start : start + READS_IN_FLIGHT]
            found = self._segments.get_many(some, lambda absent: dict(zip(absent, self._fetch(absent), strict=True)))
            for key in some:
                yield SegmentFile(found[key], key)

    def file_of(self, patch: Patch) -> SegmentFile:
        """Return the segment that a patch lies in; DataError."""
        return _meant(next(self.files([patch.key])), patch)

    def _fetch(self, keys: Sequence[str]) -> Iterator[bytes]:
        if len(keys) <= 1:
            yield from map(self._get, keys)
            return
        yield from self._pool.map(self._get, keys)

    def _get(self, key: str) -> bytes:
        try:
            return self.store.get(key)
        except NotFound as error:
            raise _Gone("it was deleted a moment ago", place=key, hint="run the same command again") from error

    def _read_extents(self, keys: Sequence[str]) -> dict[str, Extent | DataError]:
        """Return the extents of the segments under ``keys``, or why one cannot be used; DataError for one that is
        gone."""
        shared: dict[bytes, I32] = {}

        def decode(absent: Sequence[str]) -> dict[str, _Decoded[Extent]]:
            found: dict[str, _Decoded[Extent]] = {}
            for key, data in zip(absent, self._fetch([extent_key(key) for key in absent]), strict=True):
                try:
                    extent = decode_extent(data, extent_key(key))
                    # The blocks of a strip have the same trials: once in memory, and once to be matched.
                    trials = shared.setdefault(extent.trials.tobytes(), extent.trials)
                    found[key] = _Decoded(extent.nbytes, replace(extent, trials=trials))
                except DataError as error:
                    found[key] = _Decoded(NOT_KEPT, error)
            return found

        return {key: one.value for key, one in self._extents.get_many(keys, decode).items()}

    def _read_axes(self, family: str, digests: Collection[str]) -> dict[str, StoredAxes | DataError]:
        """Return axes by digest, or why they cannot be used."""

        def decode(absent: Sequence[str]) -> dict[str, _Decoded[StoredAxes]]:
            found: dict[str, _Decoded[StoredAxes]] = {}
            for digest in absent:
                key = axes_key(family, digest)
                try:
                    axes = decode_axes(self.store.get(key), digest, key)
                    found[digest] = _Decoded(axes.nbytes, axes)
                except NotFound:
                    hint = "run with --fresh: the cells that were found by them are computed again"
                    found[digest] = _Decoded(NOT_KEPT, DataError("axes of results are gone", place=key, hint=hint))
                except DataError as error:
                    found[digest] = _Decoded(NOT_KEPT, error)
            return found

        return {digest: one.value for digest, one in self._axes.get_many(sorted(digests), decode).items()}

    # What is there of a study

    def lookup(
        self,
        family: str,
        axes: Axes,
        metrics: Iterable[str] = (),
        buckets: Iterable[str] = (),
        proof: I64 | None = _NO_PROOF,
        *,
        without: Collection[str] = (),
    ) -> Found:
        """Return where cells are stored in the family, with these metrics, in these buckets, and which are missing.

        ``proof``: the cells (trial x subjects + subject, ascending) that need digests too; None: all. ``without``: keys
        of segments that count as absent.
        Errors: DataError when a damaged extent, or damaged axes, held a cell that nothing else has.
        """
        keys = [key for key in self._listed(results_prefix(family)) if key not in without]
        return self._locate(family, keys, axes, metrics, buckets, proof)

    def lookup_study(self, study: Study, *, without: Collection[str] = ()) -> Found:
        """Return where the cells of a study are stored, whoever computed them, with all that it wants of them."""
        keys = [key for key in self._listed(results_prefix(study.family)) if key not in without]
        if not keys:
            # Not even the digests of its trials are worked out: of millions they take seconds.
            return Found(study.axes, (), all_missing(study.trials, len(study.subjects)))
        return self._locate(study.family, keys, study.axes, study.metrics, study.buckets, study.proof)

    def _locate(
        self, family: str, keys: Sequence[str], axes: Axes, metrics: Iterable[str], buckets: Iterable[str],
        proof: I64 | None,
    ) -> Found:  # fmt: skip
        extents = self._read_extents(keys)
        of_axes = self._read_axes(family, {one.axes for one in extents.values() if isinstance(one, Extent)})
        stored: list[tuple[str, Extent]] = []
        unusable: dict[str, DataError] = {}
        for key, extent in extents.items():
            broken = extent if isinstance(extent, DataError) else of_axes[extent.axes]
            if isinstance(broken, OtherFormat):
                continue  # another version's, which is not damage: what it has is computed in this one too
            if isinstance(broken, DataError):
                unusable[key] = broken
            elif isinstance(extent, Extent):
                stored.append((key, extent))
        known = {digest: one.axes for digest, one in of_axes.items() if isinstance(one, StoredAxes)}
        found = look_up(axes, stored, known, metrics, buckets, proof)
        if unusable and found.missing.count:
            for key, error in unusable.items():
                self._check_unneeded(key, error, found)
        return found

    def _check_unneeded(self, key: str, error: DataError, found: Found) -> None:
        """Raise ``error``, of a segment that cannot be found by its axes, if a missing cell was or may be in it."""
        named = parse_segment_key(key)
        assert named is not None, "only segments are looked at here"
        try:
            owner = self.find_study(named[0])
        except DataError:
            owner = None  # nobody knows what it holds
        extent = None if owner is None else planned_extent(owner, named[1])
        if owner is None or extent is None:
            raise error
        patches = look_up(found.axes, [(key, extent)], {"": owner.axes}, (), (), None).patches
        if any(found.missing.has(patch.trials, patch.subjects) for patch in patches):
            raise error

    def results(self, study: Study) -> Results:
        """Return the results of a finished study; what fits into memory is read and compared now.

        Errors: DataError when a cell is not stored with all that the study wants (it is not finished, or a segment was
        deleted), or a segment is damaged; ResultConflict when two segments disagree about a cell.
        """
        source = _Source(self, study)
        counts = {name for patch in source.found.patches for name in patch.extent.counts}
        assumptions = {name for patch in source.found.patches for name in patch.extent.assumptions}
        results = Results(study, counts, assumptions, source.read)
        if results.fits:
            results.stored(())
        return results

    def find_own(self, study: Study) -> Found:
        """Return where the cells of a finished study are stored: in its own segments, in those that it reused, or else
        in whatever the family has. Errors: DataError when some are not stored."""
        own = tuple(segment_key(study.family, block_name(study.name, block)) for block in range(len(study.blocks)))
        try:
            keys = (*study.segments, *own)
            wanted = study.metrics, study.buckets, study.proof
            found = self._locate(study.family, keys, study.axes, *wanted)
        except DataError:
            # A segment was deleted or damaged, or a block is not finished; the cells may well be in others.
            return self.find_elsewhere(study, ())
        return found if not found.missing.count else self.find_elsewhere(study, ())

    def find_elsewhere(self, study: Study, without: Collection[str], because: DataError | None = None) -> Found:
        """Return where the cells of a finished study are stored in its family, ``without`` some segments.

        Errors: ``because``, or a DataError, when some are not stored.
        """
        found = self.lookup_study(study, without=without)
        if not found.missing.count:
            return found
        own = self._listed(f"{results_prefix(study.family)}{study.name}-")
        others = [one for one in self._read_extents(own).values() if isinstance(one, OtherFormat)]
        if because is not None or others:
            raise because or others[0]
        raise DataError(
            f"{found.missing.count} of {study.cells} cells have no stored result",
            place=f"study {study.name}",
            hint="run the study again; where that does not help, with --fresh",
        )

    def find_cell(self, study: Study, trial: int, subject: int) -> StoredCell | None:
        """Return what is stored of one cell, with digests if some segment has them; None for a cell that is not.

        Errors: DataError when what holds it is damaged.
        """
        one = study.axes_of([trial], [subject])
        patches = sorted(self.lookup(study.family, one).patches, key=lambda patch: not patch.has_all_proof)
        damage: list[DataError] = []
        for patch in patches:
            try:
                columns = self.file_of(patch).read()
            except DataError as error:
                damage.append(error)
                continue
            place = np.ix_(patch.rows, patch.columns)
            found = {name: array[place] for name, array in columns.items()}
            add_of_study(found, study, [subject])
            return StoredCell(patch.key, Cells(np.array([trial]), found))
        if damage:
            raise damage[0]
        return None

    def find_winners(self, study: Study, block: Block) -> dict[str, Array] | None:
        """Return the digests of all cells of a study's last block, ``DIGESTS`` by name: from its segment, or else from
        what the study reused. None where some have none.

        Errors: DataError when its segment is damaged, and no others of the family have them all.
        """
        axes = study.axes_of(block.trials, block.positions)
        own = segment_key(study.family, block_name(study.name, block.index))
        is_there = bool(self._listed(own.removesuffix(".parquet")))
        try:
            return self._digests(study.family, [own] if is_there else study.segments, axes)
        except DataError as error:
            if not is_there:
                return None  # they can be made
            others = [key for key in self._listed(results_prefix(study.family)) if key != own]
            found = self._digests(study.family, others, axes)
            if found is None:
                raise error
            return found

    def _digests(self, family: str, keys: Sequence[str], axes: Axes) -> dict[str, Array] | None:
        found = self._locate(family, keys, axes, (), (), None)
        if found.missing.count:
            return None
        parts = (([patch], self.file_of(patch).read(DIGESTS)) for patch in found.patches)
        return gather((len(axes.history), len(axes.subjects)), None, parts, DIGESTS, None)

    def check_overlaps(self, study: Study) -> None:
        """Compare the study's cells with every other segment of the family; ResultConflict when one disagrees."""
        found = self.lookup(study.family, study.axes)
        compare_patches(study, found.patches, self.file_of, is_damage_ignored=True)


class _Source:
    """The cells of a finished study, read from where they are, and from elsewhere when that is damaged."""

    def __init__(self, catalog: Catalog, study: Study) -> None:
        self._catalog = catalog
        self._study = study
        self._bad: dict[str, DataError] = {}
        self.found = catalog.find_own(study)
        self._is_compared = False

    def read(self, names: Sequence[str], trials: I64 | None) -> dict[str, Array]:
        """Return columns by name, of all trials or of some; see ``results.ReadColumns``."""
        while True:
            try:
                if not self._is_compared:
                    self._compare()
                shape = len(self.found.axes.trial), len(self.found.axes.subjects)
                return gather(shape, self._study.proof, self._parts(names, trials), names, trials)
            except DataError as error:
                self._leave_out(error)

    def _compare(self) -> None:
        if sum(patch.cells for patch in self.found.patches) > self.found.count:
            compare_patches(self._study, self.found.patches, self._catalog.file_of)
        self._is_compared = True

    def _leave_out(self, error: DataError) -> None:
        if parse_segment_key(error.place) is None or error.place in self._bad:
            raise error
        self._bad[error.place] = error
        because = None if isinstance(error, _Gone) else error
        self.found = self._catalog.find_elsewhere(self._study, self._bad.keys(), because)
        self._is_compared = False

    def _parts(self, names: Sequence[str], trials: I64 | None) -> Iterator[tuple[list[Patch], dict[str, Array]]]:
        wanted = np.ones(len(self.found.axes.trial), np.bool_)
        if trials is not None:
            wanted[:] = False
            wanted[trials] = True
        patches: dict[str, list[Patch]] = {}
        for patch in self.found.patches:
            if trials is None or wanted[patch.trials].any():
                patches.setdefault(patch.key, []).append(patch)
        for file in self._catalog.files(list(patches)):
            yield patches[file.place], _meant(file, patches[file.place][0]).read(file.names.intersection(names))


def _meant(file: SegmentFile, patch: Patch) -> SegmentFile:
    """Return the segment, if it is the one that its extent means; DataError."""
    if file.content != patch.extent.content:
        raise damaged(file.place, "is not the one that its extent means")
    return file


def _in_the_way(read: Callable[[], T]) -> T:
    """Return what is stored where something else was to be written; DataError with the hint to delete it."""
    try:
        return read()
    except DataError as error:
        hint = "delete this object and run the same command again"
        raise type(error)(error.message, place=error.place, hint=hint) from error
