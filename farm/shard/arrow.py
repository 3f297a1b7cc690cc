"""Arrow arrays from numpy arrays and back, by their buffers.

``pyarrow.array`` and ``Array.to_numpy`` import pandas (a second and more) even when they need nothing of it, and a
fresh process reads and writes before it does anything else. Hence the buffers themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_DTYPES: dict[Any, np.dtype[Any]] = {
    pa.int8(): np.dtype(np.int8),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint64(): np.dtype(np.uint64),
    pa.float64(): np.dtype(np.float64),
}
_TYPES = {dtype: type_ for type_, dtype in _DTYPES.items()}


def to_numpy(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return the numbers of ``array``, which has no nulls, as a read-only view; several chunks are joined first."""
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    assert array.null_count == 0
    return raw_numpy(array)


def raw_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Return the numbers of ``array`` as a read-only view; what stands where ``array`` is null means nothing."""
    dtype = _DTYPES[array.type]
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def is_valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return where ``array`` is not null, (n,)."""
    validity = array.buffers()[0]
    if validity is None:
        return np.ones(len(array), np.bool_)
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def validity_buffer(is_null: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Return the validity bitmap of an array that is null where told; None when nothing is."""
    if is_null is None or not is_null.any():
        return None
    return pa.py_buffer(np.packbits(~is_null, bitorder="little").tobytes())


def from_numpy(values: npt.NDArray[Any], is_null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return the numbers as an Arrow array that views them, null where told."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(
        _TYPES[values.dtype], len(values), [validity_buffer(is_null), pa.py_buffer(values.view(np.uint8))]
    )


def from_bytes(data: bytes) -> pa.Array:
    """Return one value of bytes as an Arrow array."""
    offsets = np.array([0, len(data)], np.int64)
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def from_texts(texts: Sequence[str | None]) -> pa.Array:
    """Return texts as an Arrow array of strings."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    is_null = np.array([text is None for text in texts], np.bool_)
    buffers = [validity_buffer(is_null), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)
