"""The total order of events, and the merge that puts sorted sources into it.

Every record has the key ``(ts, phase, rank, instrument, source_seq)``; it is unique (domain.md 3.1). ``instrument`` is
the position of the permanent id in bytewise order, so comparing positions compares ids. Arrival never decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from farm.kernels import merge as kernel
from farm.values.arrays import I8, I32, I64, readonly
from farm.values.errors import DataError

PHASE_BOUNDARY: Final = 0
PHASE_ACTIONS: Final = 1
PHASE_CLOSE: Final = 2
PHASE_MATCH: Final = 3
PHASE_CASH: Final = 4
PHASE_NEWS: Final = 5
PHASE_MARK: Final = 6
PHASE_DECIDE: Final = 7
PHASE_ADMIT: Final = 8
PHASE_OPEN: Final = 9

RANK_DAILY: Final = 1440
"""Rank of a daily bar among the bars that close at one instant: minutes of the timeframe, shorter first."""


def merge_order(
    ts: I64, phase: I8, rank: I32, instrument: I32, seq: I64, offsets: I64, *, names: Sequence[str] = ()
) -> I64:
    """Return the permutation that puts the rows of k sorted sources into the total order.

    Shapes: keys (n,), C order; offsets (k + 1,), rising from 0 to n: source s is the rows offsets[s]:offsets[s + 1].
    Errors: DataError when a source is not sorted by its key or a key is there twice; ``names`` (k,) name the sources.
    Order:  equals a stable sort of all rows by (ts, phase, rank, instrument, seq).
    """
    count = ts.shape[0]
    assert all(keys.shape == (count,) for keys in (phase, rank, instrument, seq))
    assert offsets[0] == 0 and offsets[-1] == count and not np.any(np.diff(offsets) < 0)
    out = np.empty(count, np.int64)
    stopped = kernel.merge_order(ts, phase, rank, instrument, seq, offsets, out)
    if stopped == kernel.COMPLETE:
        return readonly(out)
    keys = [tuple(int(column[row]) for column in (ts, phase, rank, instrument, seq)) for row in out[stopped - 1 :][:2]]
    source, row = _locate(int(out[stopped]), offsets, names)
    other, other_row = _locate(int(out[stopped - 1]), offsets, names)
    what = "is there twice" if keys[0] == keys[1] else f"comes after {keys[0]}"
    raise DataError(
        f"the row with (ts, phase, rank, instrument, seq) = {keys[1]} {what} (the other: {other}, row {other_row})",
        place=f"{source}, row {row}",
        allowed="rows of a source rise strictly, and no two sources hold one key",
    )


def _locate(row: int, offsets: I64, names: Sequence[str]) -> tuple[str, int]:
    source = int(np.searchsorted(offsets, row, side="right")) - 1
    return (names[source] if names else f"source {source}"), row - int(offsets[source])
