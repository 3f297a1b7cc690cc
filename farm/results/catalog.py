"""The catalog: study records and result segments in the bucket, found by key, written once.

    studies/<name>/study.json                    the record of a study, with its blocks
    results/<family>/<name>-<block>.parquet      the rows of one block; family = template hash

Rules: everything is created with ``put_if_absent`` and never changed. Who finds an object already there compares
content: equal is a success (determinism makes it the normal case), different is a ``ResultConflict``. The catalog of a
family is the union of its segments; a cell that several of them hold must have one fingerprint. A damaged object is a
``DataError`` that names it for whoever needs it, never a cell that is silently computed again: the record of its study
tells which cells a damaged segment held. What has another name than these is not looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from farm.results.results import Results, gather
from farm.results.segment import Segment, decode, encode
from farm.shard.layout import parse_segment_key, parse_study_key, results_prefix, segment_key, study_key
from farm.store.base import Store
from farm.study.missing import Missing, all_missing
from farm.study.stored import from_bytes, to_bytes
from farm.study.trials import FRESH, Study
from farm.values.arrays import I32
from farm.values.errors import AlreadyExists, DataError, NotFound, ResultConflict, UsageError
from farm.values.shared import Shared

SEGMENT_BYTES_MAX = 256 * 1024 * 1024
NOT_KEPT = sys.maxsize
"""A size that no budget has."""
READS_IN_FLIGHT = 16
STUDY_DIGITS_MIN = 8


def block_name(study: str, block: int) -> str:
    """Return the name of a block's segment within its family."""
    return f"{study}-{block:06d}"


@dataclass(frozen=True)
class Found:
    """Where cells were found: (n,) each, an index into ``segments`` or -1, and the row there."""

    segments: tuple[str, ...]
    place: I32
    row: I32

    @property
    def count(self) -> int:
        """Number of cells found."""
        return int((self.place >= 0).sum())


@dataclass(frozen=True)
class PlacesOf:
    """Which segments hold cells of a study, and which cells are in none."""

    segments: tuple[str, ...]
    missing: Missing


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A segment as it was read, or why it cannot be used: that is not kept, it may be mended."""

    size: int
    segment: Segment | DataError


class Catalog:
    """Results by key, over one store. Safe for many threads."""

    def __init__(self, store: Store, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        self.store = store
        self._segments: Shared[str, _Decoded] = Shared(segment_bytes_max, lambda decoded: decoded.size)

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
        """Store the rows of a block; return whether they are new.

        Errors: ResultConflict when the block is stored with other rows; DataError when what is stored is damaged.
        """
        key = segment_key(study.family, block_name(study.name, block))
        try:
            self.store.put_if_absent(key, encode(segment))
        except AlreadyExists:
            try:
                stored = decode(self.store.get(key), key)
            except DataError as error:
                hint = "delete this object and run the same command again"
                raise DataError(error.message, place=key, hint=hint) from error
            if stored.digest() != segment.digest():
                raise _conflict(stored, segment, key, study) from None
            return False
        return True

    def finished_blocks(self, study: Study) -> frozenset[int]:
        """Return the blocks of the study that have a segment."""
        finished = set()
        for meta in self.store.list(f"{results_prefix(study.family)}{study.name}-"):
            found = parse_segment_key(meta.key)
            if found is not None and found[0] == study.name:
                finished.add(found[1])
        return frozenset(finished)

    def read_segments(self, keys: Sequence[str]) -> list[Segment]:
        """Return the segments under ``keys``, in order; NotFound, DataError."""
        segments = []
        for found in self._read(keys):
            if isinstance(found, DataError):
                raise found
            segments.append(found)
        return segments

    def _read(self, keys: Sequence[str]) -> list[Segment | DataError]:
        """Return the segments under ``keys``, in order, or why one cannot be used; NotFound."""
        found = self._segments.get_many(keys, self._decode)
        return [found[key].segment for key in keys]

    def _decode(self, keys: Sequence[str]) -> dict[str, _Decoded]:
        """Fetch concurrently and decode one after the other: decoding is short and holds the interpreter, so threads
        would only wait for one another."""
        found: dict[str, _Decoded] = {}
        for key, data in zip(keys, self._fetch(keys), strict=True):
            try:
                found[key] = _Decoded(len(data), decode(data, key))
            except DataError as error:
                found[key] = _Decoded(NOT_KEPT, error)
        return found

    def _fetch(self, keys: Sequence[str]) -> Iterator[bytes]:
        if len(keys) <= 1:
            yield from map(self.store.get, keys)
            return
        with ThreadPoolExecutor(min(READS_IN_FLIGHT, len(keys)), "segments") as pool:
            yield from pool.map(self.store.get, keys)

    def lookup(self, family: str, keys: Sequence[bytes]) -> Found:
        """Return where the cells with these keys are stored in the family.

        Errors: ResultConflict when two segments hold one of them with different fingerprints; DataError when a damaged
        one held a cell that no other has.
        """
        listed = (meta.key for meta in self.store.list(results_prefix(family)))
        return self._locate(keys, tuple(key for key in listed if parse_segment_key(key) is not None))

    def lookup_study(self, study: Study) -> PlacesOf:
        """Return which of a study's cells are stored, whoever computed them; every segment has all metrics and digests.

        Errors: as ``lookup``.
        """
        listed = (meta.key for meta in self.store.list(results_prefix(study.family)))
        names = tuple(key for key in listed if parse_segment_key(key) is not None)
        if not names:
            return PlacesOf((), all_missing(study.trials, len(study.subjects)))
        found = self._locate(study.keys, names)
        rows, groups = np.unique((found.place < 0).reshape(study.trials, -1), axis=0, return_inverse=True)
        return PlacesOf(found.segments, Missing(groups.ravel().astype(np.int32), rows))

    def _locate(self, keys: Sequence[bytes], names: tuple[str, ...]) -> Found:
        number = {key: cell for cell, key in enumerate(keys)}
        place = np.full(len(keys), -1, np.int32)
        row = np.zeros(len(keys), np.int32)
        segments: dict[int, Segment] = {}
        damaged: list[DataError] = []
        for index, segment in enumerate(self._read(names)):
            if isinstance(segment, DataError):
                damaged.append(segment)
                continue
            segments[index] = segment
            for position, key in enumerate(segment.keys()):
                cell = number.get(key)
                if cell is None:
                    continue
                if place[cell] < 0:
                    place[cell], row[cell] = index, position
                else:
                    _compare(
                        segments[place[cell]], int(row[cell]), segment, position, (names[place[cell]], names[index])
                    )
        if damaged:
            absent = {keys[cell] for cell in np.flatnonzero(place < 0).tolist()}
            for error in damaged:
                self._check_unneeded(error, absent)
        used = sorted({int(index) for index in place if index >= 0})
        renumber = np.full(len(names) + 1, -1, np.int32)
        renumber[used] = np.arange(len(used), dtype=np.int32)
        return Found(tuple(names[index] for index in used), renumber[place], row)

    def _check_unneeded(self, error: DataError, absent: Collection[bytes]) -> None:
        """Raise ``error``, of a damaged segment, if one of the ``absent`` cells was or may have been in it."""
        if not absent:
            return
        named = parse_segment_key(error.place)
        assert named is not None, "only segments are read here"
        try:
            owner = self.find_study(named[0])
        except DataError:
            owner = None  # nobody knows what it held
        if owner is None or named[1] >= len(owner.blocks):
            raise error
        if any(owner.keys[cell] in absent for cell in owner.cells_of(owner.blocks[named[1]])):
            raise error

    def results(self, study: Study) -> Results:
        """Return the results of every cell of a finished study.

        Errors: DataError when a cell has no stored row (the study is not finished, or a segment was deleted), or a
        segment is damaged; ResultConflict when two segments disagree about a cell.
        """
        own = tuple(segment_key(study.family, block_name(study.name, block)) for block in range(len(study.blocks)))
        try:
            found = self._locate(study.keys, study.segments + own)
        except (NotFound, DataError):
            # A segment was deleted or damaged, or a block is not finished; the cells may well be in others.
            found = self.lookup(study.family, study.keys)
        absent = int((found.place < 0).sum())
        if absent:
            raise DataError(
                f"{absent} of {study.cells} cells have no stored result",
                place=f"study {study.name}",
                hint="run the study again; where that does not help, with --fresh",
            )
        return gather(study, self.read_segments(found.segments), found.place, found.row)

    def check_overlaps(self, study: Study) -> None:
        """Compare the study's cells with every other segment of the family; ResultConflict when one disagrees."""
        self.lookup(study.family, study.keys)


def _compare(first: Segment, row: int, second: Segment, other: int, places: Iterable[str]) -> None:
    """Raise ResultConflict unless the two rows, of one key, have the same fingerprints."""
    if (first.stats[row] == second.stats[other]).all() and (first.ledger[row] == second.ledger[other]).all():
        return
    raise ResultConflict(
        f"cell {first.key[row].tobytes().hex()} has two different results: "
        f"stats {first.stats[row].tobytes().hex()[:16]} and {second.stats[other].tobytes().hex()[:16]}",
        place=" and ".join(places),
        hint="one of them was computed on a machine whose numerics differ, or by changed code with the same "
        "semantics version",
    )


def _conflict(stored: Segment, segment: Segment, key: str, study: Study) -> ResultConflict:
    """Name the first row in which two versions of a block differ."""
    message = f"the block is stored with other rows ({stored.rows} rows, {segment.rows} now)"
    for row in range(min(stored.rows, segment.rows)):
        pairs = [(getattr(stored, name)[row], getattr(segment, name)[row]) for name in ("key", "stats", "ledger")]
        if not all((first == second).all() for first, second in pairs):
            where = f"trial {segment.trial[row]}, instrument {segment.instrument[row] or '-'}"
            message = f"{where}: the stored result differs from the one computed now"
            break
    return ResultConflict(
        message,
        place=key,
        hint=f"determinism is broken between two machines or versions; study {study.id[:12]} keeps the stored rows",
    )
