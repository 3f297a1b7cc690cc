"""A store in the memory of this process: for tests, and for work that needs no files.

``memory:name`` names one store per process, so that every part of a program that opens the URL sees the same objects;
``memory:`` is the one without a name. One that is made without a URL gets a URL that no other has. Nothing outlives
the process.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence

from farm.store.base import ObjectMeta, check_key, check_prefix, check_range
from farm.values.errors import AlreadyExists, NotFound, PreconditionFailed, RangePastEnd

_registry_lock = threading.Lock()
_registry: dict[str, MemoryStore] = {}
_unnamed = itertools.count(1)


class MemoryStore:
    """A dictionary of bytes behind the ``Store`` protocol."""

    def __init__(self, name: str | None = None) -> None:
        self.url = f"memory:{name if name is not None else f'unnamed-{next(_unnamed)}'}"
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._modified_ns: dict[str, int] = {}
        self._versions = itertools.count(1)

    def head(self, key: str) -> ObjectMeta:
        data, etag = self._read(key)
        return self._meta(key, data, etag)

    def get(self, key: str) -> bytes:
        return self._read(key)[0]

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        check_range(key, start, length)
        data, etag = self._read(key)
        if if_match is not None and if_match != etag:
            raise PreconditionFailed("the object has changed since it was looked at", place=self._place(key))
        if start + length > len(data):
            raise RangePastEnd(
                f"bytes {start} to {start + length} of an object of {len(data)} bytes", place=self._place(key)
            )
        return data[start : start + length]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        return [self.get_range(key, start, length, if_match=if_match) for start, length in ranges]

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        check_prefix(prefix)
        with self._lock:
            found = [
                self._meta(key, data, etag)
                for key, (data, etag) in self._objects.items()
                if key.startswith(prefix) and key > start_after
            ]
        return iter(sorted(found, key=lambda meta: meta.key))

    def put_if_absent(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            if key in self._objects:
                raise AlreadyExists("there is an object under this key", place=self._place(key))
            self._write(key, data)

    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            self._write(key, data)

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)
            self._modified_ns.pop(key, None)

    def _read(self, key: str) -> tuple[bytes, str]:
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise NotFound("no such object", place=self._place(key))
        return found

    def _write(self, key: str, data: bytes) -> None:
        self._objects[key] = (bytes(data), f'"{next(self._versions)}"')
        self._modified_ns[key] = time.time_ns()

    def _meta(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        return ObjectMeta(key, len(data), etag, self._modified_ns.get(key, 0))

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}"


def named(name: str) -> MemoryStore:
    """Return the process's store of this name, made at first use."""
    with _registry_lock:
        if name not in _registry:
            _registry[name] = MemoryStore(name)
        return _registry[name]
