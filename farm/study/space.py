"""The parameter grid: which trials a study has, and in which order.

1. Each parameter gives its values: an integer range every step-th integer from lo and always hi; a choice its values
   in the order written.
2. The grid is their product, lexicographic in parameter name: the last name varies fastest.
3. Constraints drop points before trials are numbered. What they drop is counted.

A study without parameters is one trial without values. Source: domain.md 2.6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.spec.constraints import satisfied
from farm.spec.params import grid_values
from farm.spec.spec import Param, Value
from farm.spec.table import ParamTable
from farm.values.errors import CapacityError, SpecError

POINTS_MAX = 5_000_000
"""Most points of a grid, constraints not counted: beyond it a grid is a mistake more often than a wish."""


@dataclass(frozen=True)
class Grid:
    """Parameter names, sorted; the values of each point in that order; and the count of points that were dropped."""

    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    excluded: int


def grid(params: Mapping[str, Param], constraints: Sequence[Any]) -> Grid:
    """Return the points of the grid. SpecError when none is left, or a parameter has no grid; CapacityError."""
    names = tuple(sorted(params))
    axes = [grid_values(params[name], f"strategy.params.{name}") for name in names]
    count = math.prod(len(axis) for axis in axes)
    if count > POINTS_MAX:
        raise CapacityError(
            f"the grid has {count:,} points",
            place="strategy.params",
            allowed=f"at most {POINTS_MAX:,}",
            hint="use larger steps or fewer parameters",
        )
    points = tuple(itertools.product(*axes))
    if constraints:
        shape = [len(axis) for axis in axes]
        codes = tuple(code.reshape(-1).astype(np.int32) for code in np.indices(shape, np.int32))
        is_left = satisfied(constraints, ParamTable(names, tuple(axes), codes, count))
        points = tuple(itertools.compress(points, is_left))
    if not points:
        raise SpecError(
            f"no trial is left: the constraints drop all {count} points of the grid",
            place="strategy.constraints",
            hint="loosen a constraint, or widen a parameter",
        )
    return Grid(names, points, count - len(points))
