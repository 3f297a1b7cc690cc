"""K-way merge of sorted sources by the total order of domain.md 3.1.

A binary heap holds the sources; the one whose next row has the smallest key is on top. Keys are unique by law, so a row
that is not greater than the row before it is a fault of the input: the merge stops there and says where. That one
comparison finds both faults: an unsorted source brings a smaller row, a duplicate an equal one. Among equal keys the
earlier source comes first, so that even the stop is always the same. The twin is in ``reference/merge.py``.
"""

from numba import boolean, int8, int32, int64, types

from farm.kernels.jit import kernel
from farm.values.arrays import I8, I32, I64

I8_IN = types.Array(int8, 1, "C", readonly=True)
I32_IN = types.Array(int32, 1, "C", readonly=True)
I64_IN = types.Array(int64, 1, "C", readonly=True)
I64_OUT = int64[::1]

COMPLETE = -1


@kernel(boolean(I64_IN, I8_IN, I32_IN, I32_IN, I64_IN, int64, int64, boolean))
def is_before(ts: I64, phase: I8, rank: I32, instrument: I32, seq: I64, a: int, b: int, is_tie_open: bool) -> bool:
    """Decide whether the key of row ``a`` is smaller than that of row ``b``; equal keys: by row if ``is_tie_open``."""
    if ts[a] != ts[b]:
        return bool(ts[a] < ts[b])
    if phase[a] != phase[b]:
        return bool(phase[a] < phase[b])
    if rank[a] != rank[b]:
        return bool(rank[a] < rank[b])
    if instrument[a] != instrument[b]:
        return bool(instrument[a] < instrument[b])
    if seq[a] != seq[b]:
        return bool(seq[a] < seq[b])
    return is_tie_open and a < b


@kernel(int64(I64_IN, I8_IN, I32_IN, I32_IN, I64_IN, I64_IN, I64_OUT))
def merge_order(ts: I64, phase: I8, rank: I32, instrument: I32, seq: I64, offsets: I64, out: I64) -> int:
    """Write the rows of k sorted sources into ``out`` in the total order; return COMPLETE, or where it stopped.

    Shapes:  ts, phase, rank, instrument, seq, out (n,); offsets (k + 1,) from 0 to n: source s is the rows
             offsets[s]:offsets[s + 1].
    Returns: COMPLETE (-1); else the position p at which ``out[p]`` is not greater than ``out[p - 1]``. What stands
             beyond p is undefined.
    Order:   (ts, phase, rank, instrument, seq), n log k comparisons.
    Source:  domain.md 3.1.
    """
    heap = offsets[:-1].copy()  # Only its size and type matter: it holds source numbers from here on.
    head = offsets[:-1].copy()
    size = 0
    for source in range(head.shape[0]):
        if head[source] == offsets[source + 1]:
            continue
        at = size
        size += 1
        while at > 0:
            parent = (at - 1) // 2
            if not is_before(ts, phase, rank, instrument, seq, head[source], head[heap[parent]], True):
                break
            heap[at] = heap[parent]
            at = parent
        heap[at] = source
    for position in range(out.shape[0]):
        source = heap[0]
        row = head[source]
        out[position] = row
        if position > 0 and not is_before(ts, phase, rank, instrument, seq, out[position - 1], row, False):
            return position
        head[source] += 1
        if head[source] == offsets[source + 1]:
            size -= 1
            if size == 0:
                continue  # Then this was the last position: offsets end at n.
            source = heap[size]
        at = 0
        while True:
            child = 2 * at + 1
            if child >= size:
                break
            right = child + 1
            if right < size and is_before(ts, phase, rank, instrument, seq, head[heap[right]], head[heap[child]], True):
                child = right
            if not is_before(ts, phase, rank, instrument, seq, head[heap[child]], head[source], True):
                break
            heap[at] = heap[child]
            at = child
        heap[at] = source
    return COMPLETE
