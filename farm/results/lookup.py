"""Which cells exist: the axes of a study against the extents of its family. Pure; values are not looked at.

1. Trials are matched by digest, once per stored axes; subjects by name. For each pair of history classes that meet,
   the subjects are kept whose read digests are equal: two cells are one where trial digest and read digest agree.
2. An extent picks some trials and subjects of its axes, so what it has of the study is a rectangle, or one for each
   way in which its trials agree about subjects: a ``Patch``.
3. Trials are grouped by the patches that cover them, a group by its missing subjects: ``Missing``.

So the cost is the sum of the lengths of axes, plus groups x subjects, whatever the number of cells. An extent without
a wanted metric or bucket has nothing of the study; a wanted digest may come from any extent that has the cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farm.results.extent import Extent
from farm.study.axes import Axes
from farm.study.missing import Missing
from farm.values.arrays import BOOL, I32, I64, U8


@dataclass(frozen=True, eq=False)
class Patch:
    """Cells of a study in one segment: its ``rows`` x ``columns`` are the study's ``trials`` x ``subjects``, int32."""

    key: str
    extent: Extent
    rows: I32
    trials: I32
    columns: I32
    subjects: I32

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.trials) * len(self.subjects)

    @property
    def has_all_proof(self) -> bool:
        """Whether each of the cells has digests."""
        return bool(self.extent.has_proof(self.rows[:, None], self.columns[None, :]).all())

    def places(self, trials: int, subjects: int, cells: I64) -> tuple[I64, I64, I64]:
        """Return which of ``cells`` (trial x subjects + subject, of a study of that size) are here, as positions in
        ``cells``, and the row and the column of each."""
        row_of, column_of = np.full(trials, -1, np.int64), np.full(subjects, -1, np.int64)
        row_of[self.trials], column_of[self.subjects] = self.rows, self.columns
        rows, columns = row_of[cells // subjects], column_of[cells % subjects]
        found = np.flatnonzero((rows >= 0) & (columns >= 0))
        return found, rows[found], columns[found]


@dataclass(frozen=True, eq=False)
class Found:
    """What is stored of a study, and what is missing."""

    axes: Axes
    patches: tuple[Patch, ...]
    missing: Missing

    @property
    def count(self) -> int:
        """Number of cells found."""
        return len(self.axes.history) * len(self.axes.subjects) - self.missing.count

    @property
    def segments(self) -> tuple[str, ...]:
        """Keys of the segments that hold something of it, in bytewise order."""
        return tuple(sorted({patch.key for patch in self.patches}))


@dataclass(frozen=True)
class _Matched:
    """Some axes against those of the study: ``subject``, the study's, or -1; ``mask_of``, per stored trial an index
    into ``masks`` (of stored subjects), or -1 where the study does not have it; ``trial``, the study's."""

    trial: I32
    subject: I32
    mask_of: I32
    masks: tuple[BOOL, ...]
    picked: dict[int, list[tuple[int, I32, I32]]] = field(default_factory=dict)

    def pick(self, trials: I32) -> list[tuple[int, I32, I32]]:
        """Return, of the stored ``trials``, mask, rows and the study's trials; found once per array."""
        found = self.picked.get(id(trials))
        if found is None:
            mask_of = self.mask_of[trials]
            counts = np.bincount(mask_of + 1, minlength=len(self.masks) + 1)
            found = []
            for mask in np.flatnonzero(counts[1:]).tolist():
                rows = np.flatnonzero(mask_of == mask).astype(np.int32)
                found.append((mask, rows, self.trial[trials[rows]]))
            self.picked[id(trials)] = found
        return found


def look_up(
    axes: Axes,
    stored: Sequence[tuple[str, Extent]],
    stored_axes: Mapping[str, Axes],
    metrics: Iterable[str],
    buckets: Iterable[str],
    proof: I64 | None,
) -> Found:
    """Return what of the cells of ``axes`` the segments have whose keys and extents are ``stored``.

    ``proof``: the cells (trial x subjects + subject, ascending) that need digests; None: all.
    """
    metrics, buckets = frozenset(metrics), frozenset(buckets)
    match = _Match(axes)
    matched: dict[str, _Matched] = {}
    patches: list[Patch] = []
    for key, extent in stored:
        if not (metrics <= set(extent.metrics) and buckets <= set(extent.buckets)):
            continue
        if extent.axes not in matched:
            matched[extent.axes] = match.against(stored_axes[extent.axes])
        for patch in _patches(key, extent, matched[extent.axes]):
            patches += [patch] if proof is not None or extent.proof is True else _with_proof(patch)
    missing = _missing(axes, patches)
    if proof is not None and len(proof):
        missing = _without_proof(missing, patches, proof)
    return Found(axes, tuple(patches), missing)


class _Match:
    """The axes of a study, sorted for matching."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes
        self._heads = _heads(axes.trial)
        self._order = np.argsort(self._heads, kind="stable")
        self._sorted = self._heads[self._order]
        self._place = {name: at for at, name in enumerate(axes.subjects)}
        assert len(np.unique(self._sorted)) == len(self._sorted), "two trials of one digest, or a broken SHA-256"

    def against(self, stored: Axes) -> _Matched:
        """Return where the trials and subjects of ``stored`` are in the study, and for which subjects they agree."""
        wanted = self._axes
        subject = np.array([self._place.get(name, -1) for name in stored.subjects], np.int32)
        at = np.minimum(np.searchsorted(self._sorted, _heads(stored.trial)), len(self._sorted) - 1)
        trial = self._order[at].astype(np.int32)
        trial[(wanted.trial[trial] != stored.trial).any(axis=1)] = -1
        mask_of = np.full(len(trial), -1, np.int32)
        masks: dict[bytes, int] = {}
        here = np.flatnonzero(trial >= 0)
        common = np.flatnonzero(subject >= 0)
        pairs = stored.history[here].astype(np.int64) * len(wanted.read) + wanted.history[trial[here]]
        for pair in np.unique(pairs).tolist():
            theirs, ours = divmod(pair, len(wanted.read))
            mask = np.zeros(len(subject), np.bool_)
            mask[common] = (stored.read[theirs, common] == wanted.read[ours, subject[common]]).all(axis=1)
            if mask.any():
                mask_of[here[pairs == pair]] = masks.setdefault(mask.tobytes(), len(masks))
        found = tuple(np.frombuffer(mask, np.bool_) for mask in masks)
        return _Matched(trial, subject, mask_of, found)


def _heads(digests: U8) -> Any:
    """Return the first eight bytes of each digest as a number."""
    return np.ascontiguousarray(digests[:, :8]).view("<u8").ravel()


def _patches(key: str, extent: Extent, matched: _Matched) -> list[Patch]:
    found = []
    for mask, rows, trials in matched.pick(extent.trials):
        columns = np.flatnonzero(matched.masks[mask][extent.subjects]).astype(np.int32)
        if len(columns):
            found.append(Patch(key, extent, rows, trials, columns, matched.subject[extent.subjects[columns]]))
    return found


def _with_proof(patch: Patch) -> list[Patch]:
    """Return the parts of a patch that have digests."""
    proof = patch.extent.proof
    if not isinstance(proof, np.ndarray):
        return [patch] if proof else []
    has = proof[np.ix_(patch.rows, patch.columns)]
    kinds, kind_of = np.unique(has, axis=0, return_inverse=True)
    found = []
    for kind, columns in enumerate(kinds):
        if columns.any():
            rows = np.flatnonzero(kind_of.ravel() == kind)
            found.append(
                Patch(
                    *(patch.key, patch.extent, patch.rows[rows], patch.trials[rows]),
                    *(patch.columns[columns], patch.subjects[columns]),
                )
            )
    return found


def _missing(axes: Axes, patches: Sequence[Patch]) -> Missing:
    """Return what no patch covers.

    The partition of trials is refined by one strip of subjects after the other: of each group, those that the strip
    covers part from those that it does not.
    """
    trials, subjects = len(axes.history), len(axes.subjects)
    strips: dict[bytes, list[Patch]] = {}
    for patch in patches:
        strips.setdefault(patch.subjects.tobytes(), []).append(patch)
    groups = np.zeros(trials, np.int64)
    sizes = np.array([trials])
    covered: list[tuple[I32, Any]] = []
    for strip in strips.values():
        is_covered = np.zeros(trials, np.bool_)
        for array in {id(patch.trials): patch.trials for patch in strip}.values():
            is_covered[array] = True
        touched = np.flatnonzero(is_covered)
        counts = np.bincount(groups[touched], minlength=len(sizes))
        torn = np.flatnonzero((counts > 0) & (counts < sizes))
        renamed = np.arange(len(sizes))
        renamed[torn] = len(sizes) + np.arange(len(torn))
        groups[touched] = renamed[groups[touched]]
        sizes[torn] -= counts[torn]
        sizes = np.concatenate((sizes, counts[torn]))
        covered.append((strip[0].subjects, np.packbits(is_covered)))
    names, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    rows = np.ones((len(names), subjects), np.bool_)
    for held, bits in covered:
        has = (bits[first >> 3] >> (7 - (first & 7)) & 1).astype(np.bool_)
        rows[np.ix_(has, held)] = False
    return _merged(group_of.astype(np.int32), rows)


def _merged(groups: I32, rows: BOOL) -> Missing:
    """Return the groups numbered in the order of their first trials, those that miss the same made one."""
    kinds: dict[bytes, int] = {}
    order = np.unique(groups, return_index=True)[1]
    renamed = np.full(len(rows), -1, np.int32)
    for group in groups[np.sort(order)].tolist():
        renamed[group] = kinds.setdefault(np.packbits(rows[group]).tobytes(), len(kinds))
    first = {int(new): old for old, new in reversed(list(enumerate(renamed.tolist()))) if new >= 0}
    return Missing(renamed[groups], rows[[first[kind] for kind in range(len(kinds))]])


def _without_proof(missing: Missing, patches: Sequence[Patch], proof: I64) -> Missing:
    """Return what is missing when the cells in ``proof`` need digests too."""
    trials, subjects = len(missing.groups), missing.rows.shape[1]
    has = np.zeros(len(proof), np.bool_)
    for patch in patches:
        if patch.extent.proof is not False:
            at, rows, columns = patch.places(trials, subjects, proof)
            has[at] |= patch.extent.has_proof(rows, columns)
    lacking = proof[~has]
    where, starts = np.unique(lacking // subjects, return_index=True)
    if not len(where):
        return missing
    own = missing.rows[missing.groups[where]]
    for row, cells in zip(own, np.split(lacking % subjects, starts[1:]), strict=True):
        row[cells] = True
    groups = missing.groups.copy()
    groups[where] = len(missing.rows) + np.arange(len(where), dtype=np.int32)
    return _merged(groups, np.concatenate((missing.rows, own)))
