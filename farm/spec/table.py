"""The trials of a study as columns: one row of parameter values per trial.

Rules: a parameter has few distinct values whatever the number of trials, so a column holds an index per trial into the
parameter's values. What depends on a value alone (its type, its range, its canonical text) is looked at once per value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farm.spec.spec import Value
from farm.values.arrays import F64, I32, I64


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

    def take(self, trials: Sequence[int] | I64 | slice) -> ParamTable:
        """Return the table of these trials alone, in this order."""
        codes = tuple(column[trials] for column in self.codes)
        count = len(np.arange(self.trials)[trials])
        return ParamTable(self.names, self.values, codes, count)
