"""Arrow arrays as numpy arrays, without a copy.

``pyarrow.Array.to_numpy`` imports pandas (half a second) even when it needs nothing of it, and a fresh worker reads
before it does anything else. Hence the buffer itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_DTYPES: dict[Any, np.dtype[Any]] = {
    pa.int8(): np.dtype(np.int8),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint64(): np.dtype(np.uint64),
}


def to_numpy(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return the integers of ``array``, which has no nulls, as a read-only view; several chunks are joined first."""
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    dtype = _DTYPES[array.type]
    assert array.null_count == 0
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
