"""Whether segments that hold the same cells agree about them: in every bit that both have.

Compared are verdicts, equity, metrics and digests. What was counted or assumed is no part of a result (domain.md 3.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from farm.results.lookup import Patch
from farm.results.segment import DIGESTS, Array, Segment, SegmentFile
from farm.study.trials import Study
from farm.values.arrays import BOOL
from farm.values.errors import DataError, ResultConflict

_NUMERICS = (
    "one of them was computed on a machine whose numerics differ, or by changed code with the same semantics version"
)


def compare_patches(
    study: Study, patches: Sequence[Patch], file_of: Callable[[Patch], SegmentFile], *, is_damage_ignored: bool = False
) -> None:
    """Raise ResultConflict when two patches disagree about a cell that both have.

    Errors: DataError for a damaged segment, unless that ``is_damage_ignored``.
    """
    read: dict[str, Mapping[str, Array]] = {}
    for first, second in _overlaps(patches):
        for key in [key for key in read if key != first.key]:
            del read[key]
        try:
            for patch in (first, second):
                if patch.key not in read:
                    read[patch.key] = file_of(patch).read()
        except DataError:
            if is_damage_ignored:
                continue
            raise
        _compare(study, first, read[first.key], second, read[second.key])


def _overlaps(patches: Sequence[Patch]) -> Iterator[tuple[Patch, Patch]]:
    """Yield the pairs of patches, of two segments, that have trials and subjects in common."""
    bounds = np.array(
        [
            (patch.trials.min(), patch.trials.max(), patch.subjects.min(), patch.subjects.max())
            for patch in patches
            if patch.cells
        ],
        np.int64,
    ).reshape(-1, 4)
    for at, (low, high, left, right) in enumerate(bounds):
        rest = bounds[at + 1 :]
        near = (rest[:, 0] <= high) & (rest[:, 1] >= low) & (rest[:, 2] <= right) & (rest[:, 3] >= left)
        for other in (np.flatnonzero(near) + at + 1).tolist():
            first, second = patches[at], patches[other]
            axes = (first.trials, second.trials), (first.subjects, second.subjects)
            if first.key != second.key and all(len(_common(*pair)[0]) for pair in axes):
                yield first, second


def _common(first: Array, second: Array) -> tuple[Array, Array]:
    """Return the places of common numbers in both."""
    _, here, there = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return here, there


def _compare(study: Study, first: Patch, ours: Mapping[str, Array], second: Patch, theirs: Mapping[str, Array]) -> None:
    rows, other_rows = _common(first.trials, second.trials)
    columns, other_columns = _common(first.subjects, second.subjects)
    here = np.ix_(first.rows[rows], first.columns[columns])
    there = np.ix_(second.rows[other_rows], second.columns[other_columns])
    names = (*_compared(ours, theirs), "proof")
    found = _disagreement({name: ours[name][here] for name in names}, {name: theirs[name][there] for name in names})
    if found is not None:
        at, place, said = found
        trial, subject = int(first.trials[rows[at]]), int(first.subjects[columns[place]])
        raise ResultConflict(
            f"cell {study.axes.cell_key(trial, subject).hex()} has two different results: {said}",
            place=f"{first.key} and {second.key}",
            hint=_NUMERICS,
        )


def check_again(study: Study, segment: Segment, stored: Mapping[str, Array]) -> None:
    """Raise ResultConflict when cells that were computed again differ from what is ``stored`` of them: columns by name,
    each (t, s) as those of ``segment``."""
    found = _disagreement({**segment.columns, "proof": segment.proof}, stored)
    if found is not None:
        at, place, said = found
        trial, subject = int(segment.trials[at]), study.subjects.index(segment.axes.subjects[place])
        raise ResultConflict(
            f"computed again, cell {study.axes.cell_key(trial, subject).hex()} differs from what is stored: {said}",
            place=f"trial {trial}, instrument {segment.axes.subjects[place] or '-'}, study {study.name}",
            hint=_NUMERICS,
        )


def _disagreement(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> tuple[int, int, str] | None:
    """Return the first cell about which columns of the same cells disagree, and what they say of it."""
    both = ours["proof"] & theirs["proof"]
    for name in _compared(ours, theirs):
        one, other = ours[name], theirs[name]
        differs = _differs(one, other)
        if name in DIGESTS:
            differs &= both
        if differs.any():
            at, place = (int(index[0]) for index in np.nonzero(differs))
            return at, place, f"{name} {_shown(one[at, place])} and {_shown(other[at, place])}"
    return None


def _compared(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> list[str]:
    """Return the columns that both have and that are part of a result, digests first."""
    common = [name for name in ours if name in theirs and name.partition(".")[0] not in ("counts", "assumptions")]
    return sorted((name for name in common if name != "proof"), key=lambda name: name not in ("stats", "ledger"))


def _differs(one: Array, other: Array) -> BOOL:
    """Return where two columns differ in a bit, (trials, subjects)."""
    if one.dtype == np.float64:
        one, other = one.view(np.int64), other.view(np.int64)
    found: BOOL = one != other
    return np.asarray(found.any(axis=-1)) if found.ndim == 3 else found


def _shown(value: Array) -> str:
    return bytes(value).hex()[:16] if value.ndim else str(value)


def conflict(stored: Mapping[str, Array], segment: Segment, key: str, study: Study) -> ResultConflict:
    """Return the error of a block that is stored with other values; it names the first cell that differs."""
    shape = segment.shape
    message = f"the block is stored with other cells ({stored['verdict'].shape} and {shape} trials x instruments)"
    if stored["verdict"].shape == shape:
        found = {name: _differs(stored[name], segment.columns[name]) for name in segment.columns if name in stored}
        cells = np.logical_or.reduce(list(found.values()))
        if cells.any():
            at, place = (int(index[0]) for index in np.nonzero(cells))
            where = f"trial {segment.trials[at]}, instrument {segment.axes.subjects[place] or '-'}"
            message = f"{where}: the stored result differs from the one computed now"
        else:
            message = "the block is stored with other metrics, or other parameters"
    return ResultConflict(
        message,
        place=key,
        hint=f"determinism is broken between two machines or versions; study {study.id[:12]} keeps the stored values",
    )
