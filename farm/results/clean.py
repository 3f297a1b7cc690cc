"""Removes what ended studies leave behind beside their results: who ran what, and that it has ended.

Never touched: data, snapshots, study records, segments. So a study that was cleaned has its results as before, and
``explain`` no longer says who computed them. A study is cleaned whole or not at all: when it has no submission in the
inbox and none of its remarks is younger than asked. The inbox is listed after the remarks, and a submission that comes
later still has a nonce of its own, to which none of them belongs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from farm.shard.layout import REMARKS, parse_remark_key, study_in_inbox
from farm.store.base import Store
from farm.values.errors import UsageError

_DELETES_IN_FLIGHT = 16
_AGE = re.compile(r"([0-9]{1,6})([hdw])")
_UNIT_S = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class Cleaning:
    """What was removed, or would be. ``objects``: by what they are; ``kept``: studies that wait, or are too young."""

    studies: int
    kept: int
    bytes: int
    objects: Mapping[str, int]
    is_dry: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "studies": self.studies,
            "kept": self.kept,
            "bytes": self.bytes,
            "objects": dict(self.objects),
            "dry_run": self.is_dry,
        }


@dataclass
class _Remarks:
    keys: list[tuple[str, str]] = field(default_factory=list)
    bytes: int = 0
    newest_ns: int = 0


def parse_age(text: str) -> int:
    """Return the seconds of an age such as ``90d``. Errors: UsageError."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"not an age: {text!r}", place="--older", allowed="hours, days or weeks: 12h, 90d, 26w")
    return int(found[1]) * _UNIT_S[found[2]]


def clean(store: Store, *, older_s: int, now_ns: int, is_dry: bool) -> Cleaning:
    """Remove the remarks about every study that has ended and of which the newest is older than ``older_s``.

    ``is_dry``: count only. Stopped in the middle, the same call goes on.
    Errors: StoreError; PermissionDenied for who may not delete.
    """
    studies: dict[str, _Remarks] = {}
    for meta in store.list("studies/"):
        found = parse_remark_key(meta.key)
        if found is not None:
            study, kind = found
            remarks = studies.setdefault(study, _Remarks())
            remarks.keys.append((kind, meta.key))
            remarks.bytes += meta.size
            # What has no time is as young as can be.
            remarks.newest_ns = max(remarks.newest_ns, meta.modified_ns or now_ns)
    waiting = {study_in_inbox(meta.key) for meta in store.list("inbox/")}
    ended = {
        study: remarks
        for study, remarks in studies.items()
        if study not in waiting and remarks.newest_ns < now_ns - older_s * 1_000_000_000
    }
    keys = [key for remarks in ended.values() for key in remarks.keys]
    if not is_dry:
        with ThreadPoolExecutor(_DELETES_IN_FLIGHT, "clean") as pool:
            for _ in pool.map(store.delete, [key for _, key in keys]):
                pass
    kinds = [kind for kind, _ in keys]
    return Cleaning(
        studies=len(ended),
        kept=len(studies) - len(ended),
        bytes=sum(remarks.bytes for remarks in ended.values()),
        objects={kind: kinds.count(kind) for kind in REMARKS},
        is_dry=is_dry,
    )
