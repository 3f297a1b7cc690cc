"""A mapping with versions: a change makes the next version at once, and every earlier one stays as it was.

The newest version is a plain dict; an earlier one knows the version after it and what to undo. So changing and reading
the newest costs what a dict costs, whatever its size, and an earlier version costs only who still reads it.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Final, Generic, TypeVar

V = TypeVar("V")


class _Absent:
    """What a key is undone to that was not there."""


_ABSENT: Final = _Absent()


class Versioned(Mapping[str, V], Generic[V]):
    """One version. Iterates in the order in which the keys came. Used by one thread."""

    __slots__ = ("_came", "_data", "_later", "_undo")

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        self._data: dict[str, V] = dict(items or {})
        self._came = {key: number for number, key in enumerate(self._data)}
        self._later: Versioned[V] | None = None
        # Of the newest version: what leads from it to the one before; of others: from the later one to this.
        self._undo: dict[str, tuple[V | _Absent, int]] = {}

    def edit(self) -> Versioned[V]:
        """Return the next version, the same so far, which ``put`` and ``pop`` change; this one stays as it is."""
        if self._later is not None:
            return Versioned(self._whole())
        new: Versioned[V] = Versioned.__new__(Versioned)
        new._data, new._came, new._later, new._undo = self._data, self._came, None, {}
        self._later = new
        self._undo = new._undo
        return new

    def put(self, key: str, value: V) -> None:
        """Set a value. Only the newest version is changed, and only by whoever made it."""
        self._remember(key)
        if key not in self._data:
            self._came[key] = 1 + self._came[next(reversed(self._data))] if self._data else 0
        self._data[key] = value

    def pop(self, key: str) -> V:
        """Remove a key and return its value; KeyError."""
        self._remember(key)
        del self._came[key]
        return self._data.pop(key)

    def _remember(self, key: str) -> None:
        assert self._later is None, "an earlier version stays as it is"
        if key not in self._undo:
            self._undo[key] = self._data.get(key, _ABSENT), self._came.get(key, 0)

    def _whole(self) -> dict[str, V]:
        """Return this version as a dict of its own, or the one that it shares."""
        if self._later is None:
            return self._data
        later: Versioned[V] | None = self
        steps = []
        while later is not None and later._later is not None:
            steps.append(later._undo)
            later = later._later
        assert later is not None
        found: dict[str, tuple[V | _Absent, int]] = {
            key: (value, later._came[key]) for key, value in later._data.items()
        }
        for undo in reversed(steps):
            found.update(undo)
        there = ((came, key, value) for key, (value, came) in found.items() if not isinstance(value, _Absent))
        return {key: value for _, key, value in sorted(there, key=lambda item: item[0])}

    def __getitem__(self, key: str) -> V:
        return self._data[key] if self._later is None else self._whole()[key]

    def __contains__(self, key: object) -> bool:
        return key in (self._data if self._later is None else self._whole())

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def values(self) -> ValuesView[V]:
        return self._whole().values()

    def items(self) -> ItemsView[str, V]:
        return self._whole().items()

    def __repr__(self) -> str:
        return repr(self._whole())
