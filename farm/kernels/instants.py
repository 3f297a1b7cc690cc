"""The instants of a tape: the times of several ascending lists of events, in order, each time once."""

from numba.core.types import Array, int64

from farm.kernels.jit import kernel
from farm.values.arrays import I64

_READ = Array(int64, 1, "C", readonly=True)
_OUT = Array(int64, 1, "C")
_ENDS = Array(int64, 2, "C")
_LAST = 9223372036854775807


@kernel(int64(_READ, _READ, _OUT, _OUT, _ENDS))
def merge_times(times: I64, stop: I64, at: I64, out: I64, ends: I64) -> int:
    """Write the distinct times of all lists into ``out``, ascending; return how many there are.

    Shapes:  times (m,), one list after the other, each ascending and below 2**63 - 1; stop (k,): where each list ends;
             at (k,): where each begins, overwritten; out (m,); ends (m, k): ends[i, j] is where list j stands after the
             time out[i].
    Source:  domain.md 3.1.
    """
    n = 0
    while True:
        now = _LAST
        for j in range(stop.size):
            if at[j] < stop[j]:
                now = min(now, times[at[j]])
        if now == _LAST:
            return n
        for j in range(stop.size):
            while at[j] < stop[j] and times[at[j]] == now:
                at[j] += 1
            ends[n, j] = at[j]
        out[n] = now
        n += 1
