"""The plain-Python twin of ``kernels/merge.py``: take the smallest head, again and again."""

from __future__ import annotations

from farm.values.arrays import I8, I32, I64

COMPLETE = -1


def merge_order(ts: I64, phase: I8, rank: I32, instrument: I32, seq: I64, offsets: I64, out: I64) -> int:
    """Write the rows of k sorted sources into ``out`` in the total order; as the kernel, by linear search."""

    def key(row: int) -> tuple[int, ...]:
        return int(ts[row]), int(phase[row]), int(rank[row]), int(instrument[row]), int(seq[row])

    head = [int(start) for start in offsets[:-1]]
    stop = [int(end) for end in offsets[1:]]
    for position in range(len(out)):
        source = min((s for s in range(len(head)) if head[s] < stop[s]), key=lambda s: key(head[s]))
        out[position] = head[source]
        if position > 0 and key(int(out[position])) <= key(int(out[position - 1])):
            return position
        head[source] += 1
    return COMPLETE
