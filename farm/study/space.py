"""The parameter grid: which trials a study has, and in which order.

1. Each parameter gives its values: an integer range every step-th integer from lo and always hi; a choice its values
   in the order written.
2. The grid is their product, lexicographic in parameter name: the last name varies fastest.
3. Constraints drop points before trials are numbered. What they drop is counted.

No point is an object: a parameter's column of the table is its number in a mixed radix. A study without parameters is
one trial without values. Source: domain.md 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.spec.constraints import satisfied
from farm.spec.params import grid_values
from farm.spec.spec import Param, StudySpec
from farm.spec.table import ParamTable
from farm.values.arrays import I32
from farm.values.errors import CapacityError, SpecError

POINTS_MAX = 10_000_000
"""Most points of a grid, constraints not counted: beyond it a grid is a mistake more often than a wish."""
CELLS_MAX = 10_000_000_000
"""Most cells of a study, constraints not counted."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The points that are left, in order, and the count of those that a constraint dropped."""

    table: ParamTable
    excluded: int


def grid_of(spec: StudySpec) -> Grid:
    """Return the grid of a spec; errors as ``grid``."""
    members = [universe.tickers for universe in spec.strategy.universes if universe.id == spec.each]
    return grid(spec.strategy.params, spec.strategy.constraints, subjects=sum(map(len, members)) or 1)


def grid(params: Mapping[str, Param], constraints: Sequence[Any], *, subjects: int = 1) -> Grid:
    """Return the points of the grid, each of which is to run on so many ``subjects``.

    Errors: SpecError when none is left, or a parameter has no grid; CapacityError.
    """
    names = tuple(sorted(params))
    axes = tuple(grid_values(params[name], f"strategy.params.{name}") for name in names)
    count = math.prod(len(axis) for axis in axes)
    if count > POINTS_MAX:
        raise CapacityError(
            f"the grid has {count:,} points",
            place="strategy.params",
            allowed=f"at most {POINTS_MAX:,}",
            hint="use larger steps or fewer parameters",
        )
    if count * subjects > CELLS_MAX:
        raise CapacityError(
            f"the study has {count * subjects:,} cells: {count:,} points of the grid on {subjects:,} instruments",
            place="strategy.params, study.each",
            allowed=f"at most {CELLS_MAX:,}",
            hint="use larger steps, fewer parameters, or fewer instruments",
        )
    table = ParamTable(names, axes, _codes([len(axis) for axis in axes]), count)
    if constraints:
        table = table.take(np.flatnonzero(satisfied(constraints, table)))
    if not table.trials:
        raise SpecError(
            f"no trial is left: the constraints drop all {count} points of the grid",
            place="strategy.constraints",
            hint="loosen a constraint, or widen a parameter",
        )
    return Grid(table, count - table.trials)


def _codes(sizes: Sequence[int]) -> tuple[I32, ...]:
    """Return the digits of 0 .. product - 1 in the mixed radix of ``sizes``, the last one the fastest."""
    codes = []
    for place, size in enumerate(sizes):
        digit = np.repeat(np.arange(size, dtype=np.int32), math.prod(sizes[place + 1 :]))
        codes.append(np.tile(digit, math.prod(sizes[:place])))
    return tuple(codes)
