"""Keys of cells and trials: what a stored result is found by.

    cell key  = SHA-256 of the canonical JSON ["cell", template, split, instrument, read set, sessions, parameters]
    trial key = SHA-256 of its cells' keys (32 bytes each) in instrument id order

The template hash covers the strategy, the run and the versions of semantics and numerics; the read set is the digest
of the canonical rows read and of the masters of their instruments; the sessions digest covers the calendar in the read
window. What affects only speed is not in a key. Parameters come last: everything before them is hashed once per
(instrument, read window) and continued per trial, so a key costs about a microsecond. Source: domain.md 3.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from farm.values.canon import canonical_json

if TYPE_CHECKING:
    from hashlib import _Hash


class KeyPrefix:
    """The part of a cell key that all trials of one instrument and read window share."""

    def __init__(
        self, template: str, split: Mapping[str, Any] | None, instrument: str | None, read_set: str, sessions: str
    ) -> None:
        head = canonical_json(["cell", template, split, instrument, read_set, sessions])
        self._hash: _Hash = hashlib.sha256(head[:-1] + b",")

    def key(self, parameters: bytes) -> bytes:
        """Return the key, 32 bytes, of the cell with these parameters (the canonical JSON of name -> value)."""
        hashed = self._hash.copy()
        hashed.update(parameters)
        hashed.update(b"]")
        return hashed.digest()


def trial_key(cell_keys: Iterable[bytes]) -> str:
    """Return the key of a trial, hex, from its cells' keys in instrument id order."""
    return hashlib.sha256(b"".join(cell_keys)).hexdigest()


def trial_fingerprint(stats: Iterable[bytes]) -> str:
    """Return the fingerprint of a trial, hex, from its cells' ``stats`` digests in instrument id order."""
    return hashlib.sha256(b"".join(stats)).hexdigest()
