"""The names of trials and cells: TRIAL/INSTRUMENT, as people say them.

TRIAL is its number in a study, or 8 or more digits of its trial digest, which needs no study: every study that has the
trial has the cell. INSTRUMENT is a permanent id or a symbol; a study without ``each`` has none: TRIAL alone. A cell's
key names it too, and is looked up in studies up to CELLS_MAX cells only: keys are not stored, and whoever looks for one
has to make them all. Source: domain.md 3.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from farm.results.catalog import Catalog
from farm.study.trials import Study
from farm.values.errors import DataError, UsageError

CELLS_MAX = 10_000
DIGITS_MIN = 8
ALLOWED = f"TRIAL/INSTRUMENT (TRIAL: a number, or {DIGITS_MIN} or more digits of its digest), or a cell key"


def cell_name(study: Study, trial: int, position: int) -> str:
    """Return the name of a cell within its study."""
    instrument = study.cell_instruments[position]
    return str(trial) if instrument is None else f"{trial}/{instrument}"


def find_cell(catalog: Catalog, name: str, study: str | None) -> tuple[Study, int, int]:
    """Return study, trial and position of a cell; of several studies that have it, the first by name.

    Errors: UsageError for what names none, or several; DataError for a damaged record of a study, when no other has it.
    """
    trial, slash, _ = name.partition("/")
    is_number = trial.isdecimal() and len(trial) < DIGITS_MIN
    is_digest = len(trial) >= DIGITS_MIN and set(trial.lower()) <= set("0123456789abcdef") and len(trial) <= 64
    if not is_number and not is_digest:
        raise UsageError(f"not the name of a cell: {name!r}", place="cell", allowed=ALLOWED)
    if is_number and study is None:
        raise UsageError(
            f"in which study is trial {trial}?", place="cell", allowed=ALLOWED, hint="name it with --study"
        )
    if study is not None:
        owner = catalog.read_study(study)
        found = [(owner, *one) for one in _in_study(owner, name)]
    else:
        found = list(_anywhere(catalog, name))
    keys = {owner.axes.cell_key(at, position) for owner, at, position in found}
    if len(keys) > 1:
        raise UsageError(f"several cells are named {name}", place="cell", hint="give more digits, or an instrument")
    if not found:
        hint = "farm results STUDY lists the trials of a study"
        raise UsageError(
            f"no such cell: {name}",
            place=f"study {study}" if study is not None else catalog.store.url,
            hint=hint if slash or is_number else f"{hint}; a key is that of a cell, not of a trial",
        )
    return found[0]


def find_trial(study: Study, name: str) -> tuple[int, int | None]:
    """Return the trial that TRIAL or TRIAL/INSTRUMENT names, and the position of the instrument; UsageError."""
    trials = _trials(study, name.partition("/")[0])
    if len(trials) != 1:
        raise UsageError(
            f"{len(trials) or 'no'} trials of the study are named {name}",
            place="trial",
            allowed=f"a number from 0 to {study.trials - 1:,}, or {DIGITS_MIN} or more digits of a trial digest",
        )
    _, slash, instrument = name.partition("/")
    if not slash:
        return trials[0], None
    position = _position(study, instrument)
    if position is None:
        raise UsageError(f"the study has no instrument {instrument!r}", place="trial", allowed="an id or a symbol")
    return trials[0], position


def _anywhere(catalog: Catalog, name: str) -> Iterator[tuple[Study, int, int]]:
    """Yield where a cell is in any study. Errors: as ``find_cell``."""
    damaged: list[DataError] = []
    large: list[str] = []
    is_found = False
    for known in catalog.study_names():
        try:
            owner = catalog.read_study(known)
        except DataError as error:
            damaged.append(error)
            continue
        if "/" not in name and owner.cells > CELLS_MAX:
            large.append(owner.id)
            continue
        for one in _in_study(owner, name):
            is_found = True
            yield owner, *one
    if not is_found and damaged:
        raise damaged[0]
    if not is_found and large:
        raise _too_large(name, large[0])


def _in_study(study: Study, name: str) -> list[tuple[int, int]]:
    """Return the cells of a study that ``name`` may mean: trial and position of each."""
    trial, slash, instrument = name.partition("/")
    if not slash and not (trial.isdecimal() and len(trial) < DIGITS_MIN):
        if study.cells > CELLS_MAX:
            raise _too_large(name, study.id)
        return _by_key(study, name.lower())
    position = _position(study, instrument) if slash or study.instruments is None else None
    if position is None:
        if slash:
            return []
        raise UsageError(f"trial {trial} has a cell per instrument", place="cell", hint=f"name one: {trial}/INSTRUMENT")
    return [(number, position) for number in _trials(study, trial)]


def _position(study: Study, instrument: str) -> int | None:
    names = [name or "" for name in study.cell_instruments]
    if instrument in names:
        return names.index(instrument)
    found = [at for at, name in enumerate(names) if study.symbols.get(name) == instrument]
    return found[0] if len(found) == 1 else None


def _trials(study: Study, trial: str) -> list[int]:
    if trial.isdecimal() and len(trial) < DIGITS_MIN:
        return [int(trial)] if int(trial) < study.trials else []
    digits = trial.lower()
    if len(digits) < DIGITS_MIN or len(digits) > 64 or not set(digits) <= set("0123456789abcdef"):
        return []
    head = np.frombuffer(bytes.fromhex(digits[:DIGITS_MIN]), np.uint8)
    near = np.flatnonzero((study.axes.trial[:, : len(head)] == head).all(axis=1))
    return [at for at in near.tolist() if study.axes.trial[at].tobytes().hex().startswith(digits)]


def _by_key(study: Study, digits: str) -> list[tuple[int, int]]:
    axes, found = study.axes, []
    for trial in range(study.trials):
        own, reads = axes.trial[trial].tobytes(), axes.read[axes.history[trial]]
        for position in range(len(reads)):
            if hashlib.sha256(reads[position].tobytes() + own).hexdigest().startswith(digits):
                found.append((trial, position))
    return found


def _too_large(name: str, study: str) -> UsageError:
    return UsageError(
        f"a bare key is looked up in studies of up to {CELLS_MAX:,} cells, and study {study[:12]} is larger",
        place=f"cell {name}",
        allowed=ALLOWED,
        hint=f"farm explain TRIAL/INSTRUMENT --study {study[:12]}",
    )
