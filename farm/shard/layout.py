"""The key grammar of the bucket: what lies where. Nothing else in the project spells a key.

    data/<kind>/<interval>/<span>/<sha256>.parquet      a shard
    index/<sha256>.arrow                                its index
    calendars/<sha256>.arrow                            a frozen calendar
    snapshots/<sha256>.json                             a root that names shards, indexes and calendars
    refs/<dataset>/<n>.json                             create-only log; the highest n is the head
    studies/<study>/study.json                          the record of a study and its blocks
    studies/<study>/leases/<segment>.jsonl              who ran what, and why: many leases
    studies/<study>/leases/<lease>.json                 the same of one lease
    inbox/<study>/<nonce>.json                          a submission; none shares its key with another
    inbox/<study>.json                                  one of an earlier version
    results/<family>/<study>-<block>.parquet            the values of a block: a segment
    results/<family>/<study>-<block>.extent             which cells these are, and what is stored of them
    results/<family>/axes/<digest>.arrow                the axes that extents refer to

An object whose key does not match lies there for somebody else: readers pass it over.
Names that people choose (datasets) are letters, digits, ``_``, ``-`` and ``.``, not starting with a dot.
"""

from __future__ import annotations

import re

from farm.values.errors import UsageError

REF_DIGITS = 10

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(rf"refs/(?P<dataset>{_NAME.pattern})/(?P<number>[0-9]{{{REF_DIGITS}}})\.json")
_STUDY = re.compile(r"studies/(?P<study>[^/]+)/study\.json")
_OF_STUDY = re.compile(r"studies/[^/]+/((study|leases/[^/]+|done/[^/]+)\.json|leases/[^/]+\.jsonl)")
_SUBMISSION = re.compile(r"inbox/(?P<study>[^/]+?)(/(?P<nonce>[^/]+))?\.json")
_REMARK = re.compile(r"studies/(?P<study>[^/]+)/(?P<kind>leases|attempts|done)/[^/]+")
_RESULT = re.compile(r"results/[^/]+/(?P<study>[^/]+)-(?P<block>[0-9]{6,})\.(parquet|extent)")


def check_dataset(name: str) -> str:
    """Return ``name`` if it can be a dataset's name; UsageError otherwise."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"not a dataset name: {name!r}",
            place="dataset",
            allowed="1 to 64 letters, digits, _, - and ., not starting with a dot",
        )
    return name


def check_sha256(text: str, place: str) -> str:
    """Return ``text`` if it is a SHA-256 in lower-case hex; UsageError otherwise."""
    if not _SHA256.fullmatch(text):
        raise UsageError(f"not a content name: {text!r}", place=place, allowed="64 lower-case hex digits")
    return text


def shard_key(kind: str, interval: str, span: str, sha256: str) -> str:
    """Key of a shard."""
    return f"data/{kind}/{interval}/{span}/{sha256}.parquet"


def index_key(sha256: str) -> str:
    """Key of a shard's index."""
    return f"index/{sha256}.arrow"


def calendar_key(sha256: str) -> str:
    """Key of a frozen calendar."""
    return f"calendars/{sha256}.arrow"


def snapshot_key(sha256: str) -> str:
    """Key of a snapshot root."""
    return f"snapshots/{sha256}.json"


def refs_prefix(dataset: str) -> str:
    """Prefix of a dataset's log."""
    return f"refs/{check_dataset(dataset)}/"


def ref_key(dataset: str, number: int) -> str:
    """Key of entry ``number`` (from 1) of a dataset's log."""
    return f"{refs_prefix(dataset)}{number:0{REF_DIGITS}d}.json"


def parse_ref_key(key: str) -> tuple[str, int] | None:
    """Return dataset and number of a log entry; None for any other key."""
    match = _REF.fullmatch(key)
    return None if match is None else (match["dataset"], int(match["number"]))


def study_prefix(study: str) -> str:
    """Prefix of all that belongs to a study but its results."""
    return f"studies/{study}/"


def study_key(study: str) -> str:
    """Key of a study's record."""
    return f"{study_prefix(study)}study.json"


def parse_study_key(key: str) -> str | None:
    """Return the study whose record lies under ``key``; None for any other key."""
    match = _STUDY.fullmatch(key)
    return None if match is None else match["study"]


def is_of_study(key: str) -> bool:
    """Whether a key below ``studies/`` is one that the farm gives."""
    return _OF_STUDY.fullmatch(key) is not None


REMARKS = ("leases", "attempts", "done")
"""What lies below a study beside its record: about its runs, and part of no result."""


def parse_remark_key(key: str) -> tuple[str, str] | None:
    """Return the study and the kind (one of ``REMARKS``) of a remark about a run; None for any other key."""
    match = _REMARK.fullmatch(key)
    return None if match is None else (match["study"], match["kind"])


def leases_prefix(study: str) -> str:
    """Prefix of a study's lease records."""
    return f"{study_prefix(study)}leases/"


def lease_key(study: str, lease: str) -> str:
    """Key of one lease record."""
    return f"{leases_prefix(study)}{lease}.json"


def lease_segment_key(study: str, segment: str) -> str:
    """Key of a segment of a study's lease records."""
    return f"{leases_prefix(study)}{segment}{LEASE_SEGMENT}"


LEASE_SEGMENT = ".jsonl"


def inbox_prefix(study: str) -> str:
    """Prefix of the submissions of a study."""
    return f"inbox/{study}/"


def inbox_key(study: str, nonce: str) -> str:
    """Key of a submission; "" as nonce gives the one key that a study had in earlier versions."""
    return f"{inbox_prefix(study)}{nonce}.json" if nonce else f"inbox/{study}.json"


def parse_inbox_key(key: str) -> tuple[str, str] | None:
    """Return study and nonce of the submission under ``key``, the nonce "" under a key of earlier versions; None for
    any other key."""
    match = _SUBMISSION.fullmatch(key)
    return None if match is None else (match["study"], match["nonce"] or "")


def study_in_inbox(key: str) -> str:
    """Return the study that a key below ``inbox/`` is about: its first part, whoever wrote it."""
    return key.removeprefix("inbox/").partition("/")[0].removesuffix(".json")


def results_prefix(family: str) -> str:
    """Prefix of all result segments of a family."""
    return f"results/{family}/"


def segment_key(family: str, name: str) -> str:
    """Key of one result segment."""
    return f"{results_prefix(family)}{name}.parquet"


def extent_key(segment: str) -> str:
    """Key of what says which cells the segment under this key holds."""
    return segment.removesuffix(".parquet") + ".extent"


def axes_key(family: str, digest: str) -> str:
    """Key of the axes with this digest."""
    return f"{results_prefix(family)}axes/{digest}.arrow"


def parse_segment_key(key: str) -> tuple[str, int] | None:
    """Return the study and the block whose values, or whose extent, lie under ``key``; None for any other key."""
    match = _RESULT.fullmatch(key)
    return None if match is None else (match["study"], int(match["block"]))
