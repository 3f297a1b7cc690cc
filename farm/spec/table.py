"""The trials of a study as columns: one row of parameter values per trial.

Rules: a parameter has few distinct values whatever the number of trials, so a column holds an index per trial into the
parameter's values. What depends on a value alone (its type, its range, its canonical text) is looked at once per value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from farm.spec.reader import is_hole
from farm.spec.spec import Value
from farm.values.arrays import F64, I32, I64

Chosen: TypeAlias = Sequence[int] | I32 | I64 | slice
"""Some of many: their numbers, or a slice."""

_CODES_MAX = 2**62
"""Most tuples that one int64 numbers."""


@dataclass(frozen=True, eq=False)
class ParamTable:
    """Parameter values of T trials.

    names: of the parameters, sorted; values: of each parameter, its values; codes: of each parameter, int32 (T,), an
    index into its values; trials: T, which a study without parameters has too (1).
    """

    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    codes: tuple[I32, ...]
    trials: int

    @classmethod
    def of(cls, names: Sequence[str], rows: Sequence[Sequence[Value]]) -> ParamTable:
        """Return the table of these rows, each with a value for every name; a column's values in order of their use."""
        places: list[dict[tuple[bool, Value], int]] = [{} for _ in names]
        codes = np.empty((len(names), len(rows)), np.int32)
        for trial, row in enumerate(rows):
            for column, value in enumerate(row):
                # True and 1 are equal, and mean different things.
                codes[column, trial] = places[column].setdefault((value is True, value), len(places[column]))
        values = tuple(tuple(value for _, value in place) for place in places)
        return cls(tuple(names), values, tuple(codes), len(rows))

    def row(self, trial: int) -> dict[str, Value]:
        """Return the values of one trial by name."""
        columns = zip(self.names, self.values, self.codes, strict=True)
        return {name: values[int(codes[trial])] for name, values, codes in columns}

    def numbers(self, name: str) -> F64:
        """Return a numeric parameter as float64 (T,); ValueError or TypeError when one of its values is a text."""
        at = self.names.index(name)
        return np.array(self.values[at], np.float64)[self.codes[at]]

    def take(self, trials: Chosen) -> ParamTable:
        """Return the table of these trials alone, in this order."""
        codes = tuple(column[trials] for column in self.codes)
        count = len(np.arange(self.trials)[trials])
        return ParamTable(self.names, self.values, codes, count)

    def distinct(self, names: Iterable[str]) -> tuple[I64, I64]:
        """Return the tuples of these parameters' values that occur: the first trial of each, (n,) ascending; and the
        tuple of each trial, (T,), an index into them."""
        key, size = np.zeros(self.trials, np.int64), 1
        for name in names:
            at = self.names.index(name)
            if size * len(self.values[at]) > _CODES_MAX:
                found, key = np.unique(key, return_inverse=True)
                size = len(found)
            size *= len(self.values[at])
            key = key * len(self.values[at]) + self.codes[at]
        if size == 1:
            return np.zeros(1, np.int64), key
        _, first, of = np.unique(key, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return first[order].astype(np.int64), place[of]


def holes(value: Any) -> frozenset[str]:
    """Return the names of the parameters that a part of a template, or a constraint, uses."""
    if is_hole(value):
        return frozenset((value[1:],))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return frozenset[str]().union(*map(holes, parts))
