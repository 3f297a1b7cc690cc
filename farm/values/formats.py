"""The format that a stored object names: ours, or that of another version, or none at all."""

from __future__ import annotations

import re

from farm.values.errors import OtherFormat

_FORMAT = re.compile(r"(?P<kind>[a-z-]+)-(?P<number>[0-9]{1,6})")


def check_format(found: object, reads: str, what: str, place: str, hint: str) -> None:
    """Return when ``found`` is the format that this version reads, such as ``farm-study-1``.

    Errors: OtherFormat naming ``place`` for another version of the same kind; ValueError for anything else.
    """
    if found == reads:
        return
    ours, theirs = _FORMAT.fullmatch(reads), _FORMAT.fullmatch(found) if isinstance(found, str) else None
    assert ours is not None, "our own formats have a number"
    if theirs is None or theirs["kind"] != ours["kind"]:
        raise ValueError(f"format {found!r}, not {reads!r}")
    age = "an older" if int(theirs["number"]) < int(ours["number"]) else "a newer"
    raise OtherFormat(f"{what} of {age} format: {found}, and this version reads {reads}", place=place, hint=hint)
