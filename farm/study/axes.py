"""Identity on two axes: which trials, on which subjects, reading what.

    trial digest = SHA-256 of the canonical JSON of the parameters that the template uses
    read digest  = SHA-256 of the canonical JSON ["read", family, split, instrument, window, read set, sessions]
    cell key     = SHA-256(read digest || trial digest)

A trial's history class says how far it looks back; class and subject together fix the read. So the identity of
T trials x S subjects costs T digests and one per (class, subject), and no cell has a key until somebody asks for it.
Source: domain.md 3.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from farm.spec.table import ParamTable
from farm.values.arrays import I32, I64, U8
from farm.values.canon import canonical_json

_TRIALS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Axes:
    """Identity of the cells of t trials on s subjects.

    trial:    uint8 (t, 32), digests of the trials.
    history:  int32 (t,), the history class of each trial.
    subjects: instrument ids in bytewise order; one "" when a trial runs on its whole universe.
    read:     uint8 (classes, s, 32), read digests.
    """

    trial: U8
    history: I32
    subjects: tuple[str, ...]
    read: U8

    def take(self, trials: I32 | I64 | slice, subjects: I32 | I64 | slice) -> Axes:
        """Return the axes of these trials and subjects, with the history classes that occur."""
        classes, history = np.unique(self.history[trials], return_inverse=True)
        places = np.arange(len(self.subjects))[subjects]
        names = tuple([self.subjects[place] for place in places.tolist()])
        return Axes(self.trial[trials], history.astype(np.int32), names, self.read[classes][:, places])

    def cell_key(self, trial: int, subject: int) -> bytes:
        """Return the key of a cell, 32 bytes."""
        return hashlib.sha256(self.read[self.history[trial], subject].tobytes() + self.trial[trial].tobytes()).digest()

    def trial_key(self, trial: int) -> bytes:
        """Return the key of a trial, 32 bytes: of its digest and its read digests in the order of subjects."""
        return hashlib.sha256(self.trial[trial].tobytes() + self.read[self.history[trial]].tobytes()).digest()


class LazyAxes(Axes):
    """Axes that digest their trials when somebody first asks: a microsecond each is seconds for millions of them."""

    def __init__(
        self, table: ParamTable, used: Sequence[str], history: I32, subjects: tuple[str, ...], read: U8
    ) -> None:
        vars(self).update(history=history, subjects=subjects, read=read, _table=table, _used=used)

    @cached_property
    def trial(self) -> U8:
        """uint8 (t, 32), digests of the trials."""
        return trial_digests(vars(self)["_table"], vars(self)["_used"])


def trial_digests(table: ParamTable, used: Sequence[str]) -> U8:
    """Return the digests of the trials, uint8 (t, 32). ``used``: the parameters that the template uses, sorted."""
    if not used:
        return np.tile(np.frombuffer(hashlib.sha256(b"{}").digest(), np.uint8), (table.trials, 1))
    texts, codes = [], []
    for place, name in enumerate(used):
        at = table.names.index(name)
        head = (b"," if place else b"{") + canonical_json(name) + b":"
        tail = b"}" if name == used[-1] else b""
        texts.append([head + canonical_json(value) + tail for value in table.values[at]])
        codes.append(table.codes[at])
    digests = np.empty((table.trials, 32), np.uint8)
    for start in range(0, table.trials, _TRIALS_AT_ONCE):
        stop = min(start + _TRIALS_AT_ONCE, table.trials)
        columns = [[text[code] for code in of[start:stop].tolist()] for text, of in zip(texts, codes, strict=True)]
        hashed = [hashlib.sha256(b"".join(parts)).digest() for parts in zip(*columns, strict=True)]
        digests[start:stop] = np.frombuffer(b"".join(hashed), np.uint8).reshape(-1, 32)
    return digests
