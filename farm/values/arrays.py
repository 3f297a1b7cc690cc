"""Array aliases, and the one way to make an array read-only.

Arrays that are shared between threads (columns, market series, signals) are read-only from birth. Kernels take them
through signatures that say so (``Array(..., readonly=True)`` in numba).
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
I32: TypeAlias = npt.NDArray[np.int32]
I8: TypeAlias = npt.NDArray[np.int8]
U8: TypeAlias = npt.NDArray[np.uint8]
U64: TypeAlias = npt.NDArray[np.uint64]
BOOL: TypeAlias = npt.NDArray[np.bool_]

_Array = TypeVar("_Array", bound=npt.NDArray[Any])


def readonly(a: _Array) -> _Array:
    """Return ``a`` itself, no longer writeable through this name. Views taken earlier keep their own flag."""
    a.flags.writeable = False
    return a
