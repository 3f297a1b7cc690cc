"""The instants of a tape: the times of several ascending lists of events, in order, each time once."""

from numba import from_dtype
from numba.core.types import Array, int64

from farm.kernels.jit import kernel
from farm.kernels.records import INSTANT, NONE, Table
from farm.values.arrays import I64

_READ = Array(int64, 1, "C", readonly=True)
_AT = Array(int64, 1, "C")
_OUT = Array(from_dtype(INSTANT), 1, "C")
_LAST = 9223372036854775807


@kernel(int64(_READ, _READ, _READ, _AT, _OUT))
def merge_instants(times: I64, opens: I64, stop: I64, at: I64, out: Table) -> int:
    """Write an instant for each distinct time of all lists, ascending; return how many there are.

    Shapes:  times (m,), one list after the other, each ascending and below 2**63 - 1: splits and ex-dates, closing
             bars, payments, openings, then the session closes of each calendar, the run's first; opens: when the
             sessions open that these close; stop (k,): where each list ends; at (k,): where each begins, overwritten;
             out (m,).
    Source:  domain.md 3.1.
    """
    start = at.copy()
    n = 0
    while True:
        now = _LAST
        for j in range(stop.size):
            if at[j] < stop[j]:
                now = min(now, times[at[j]])
        if now == _LAST:
            return n
        instant = out[n]
        instant.ts = now
        instant.session = NONE
        instant.closed = 0
        instant.under_way = 0
        for j in range(stop.size):
            before = at[j]
            while at[j] < stop[j] and times[at[j]] == now:
                at[j] += 1
            if j >= 4 and at[j] > before:
                instant.closed |= 1 << (j - 4)
                if j == 4:
                    instant.session = at[j] - start[j] - 1
            if j >= 4 and at[j] < stop[j] and opens[at[j] - stop[3]] < now:
                instant.under_way |= 1 << (j - 4)
        instant.act_end = at[0] - start[0]
        instant.bar_end = at[1] - start[1]
        instant.pay_end = at[2] - start[2]
        instant.open_end = at[3] - start[3]
        n += 1
