"""The fingerprint of a trial, from its cells'."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def trial_fingerprint(stats: Iterable[bytes]) -> str:
    """Return the fingerprint of a trial, hex, from its cells' ``stats`` digests in instrument id order."""
    return hashlib.sha256(b"".join(stats)).hexdigest()
