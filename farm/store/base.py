"""The protocol of an object store, and the grammar of its keys.

A store maps keys to immutable bytes. Rules every store keeps (one contract suite checks them all):

- Keys are relative, "/"-separated, over ``[A-Za-z0-9._=-]``; no segment is empty or begins with a dot.
- ``put_if_absent`` is atomic: of any number of racers one wins, the others get ``AlreadyExists``, and nobody ever sees
  half an object. Deduplication and the queue stand on it.
- A read gives exactly the bytes asked for, or a typed error. Never fewer, never others.
- An etag only says *changed*; what an object is, its name (a content hash) says.
- Stores are used by many threads at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from farm.values.errors import UsageError

_SEGMENT = r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*"
_NAME = re.compile(_SEGMENT)
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_PREFIX = re.compile(rf"({_SEGMENT}(/{_SEGMENT})*/?)?")
KEY_LENGTH_MAX = 900


@dataclass(frozen=True)
class ObjectMeta:
    """What the store says about an object. ``etag`` is opaque, and goes back as ``if_match``; ``modified_ns`` is when
    it was written, by the store's clock, 0 where that is not known."""

    key: str
    size: int
    etag: str
    modified_ns: int = field(default=0, compare=False)


class Store(Protocol):
    """An object store under one URL. Errors: the ``StoreError`` subclasses of ``values.errors``."""

    @property
    def url(self) -> str:
        """The URL it was opened with, without credentials."""

    def head(self, key: str) -> ObjectMeta:
        """Return size and etag; NotFound."""

    def get(self, key: str) -> bytes:
        """Return the whole object; NotFound."""

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        """Return exactly ``length`` (at least 1) bytes from ``start``.

        Errors: NotFound; RangePastEnd when the object ends before; PreconditionFailed when ``if_match`` is stale.
        """

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        """Return one ``bytes`` per (start, length), in order, fetched concurrently; errors as ``get_range``."""

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        """Yield the objects whose key begins with ``prefix`` and is greater than ``start_after``, in bytewise order.

        An empty prefix means all. A prefix is text, not a directory: ``a/b`` finds ``a/b/c`` and ``a/bc``.
        """

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create the object; AlreadyExists when there is one, whatever its bytes."""

    def put(self, key: str, data: bytes) -> None:
        """Write the object, over another if there is one."""

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""


def check_key(key: str) -> str:
    """Return ``key``, or raise UsageError when it is outside the grammar (so it can never leave the store's root)."""
    if not _KEY.fullmatch(key) or len(key) > KEY_LENGTH_MAX:
        raise UsageError(
            f"not a key: {key!r}",
            place="store key",
            allowed=f"segments of [A-Za-z0-9._=-] that do not begin with a dot, joined by /, at most {KEY_LENGTH_MAX}",
        )
    return key


def is_name(text: str) -> bool:
    """Whether ``text`` can be a segment of a key."""
    return _NAME.fullmatch(text) is not None


def check_prefix(prefix: str) -> str:
    """Return ``prefix``, or raise UsageError when no key could begin with it."""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > KEY_LENGTH_MAX:
        raise UsageError(f"not a prefix of any key: {prefix!r}", place="store prefix")
    return prefix


def check_range(key: str, start: int, length: int) -> None:
    """Raise ValueError for a range that no caller can mean."""
    if start < 0 or length < 1:
        raise ValueError(f"{key}: not a range: start {start}, length {length}")
