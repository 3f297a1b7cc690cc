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
from dataclasses import dataclass

import numpy as np

from farm.values.arrays import I32, U8


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

    def take(self, trials: I32 | slice, subjects: I32 | slice) -> Axes:
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
