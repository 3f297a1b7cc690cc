"""Tapes of single instruments, many at a call: which bars are traded on, the tables of bars and prints, the instants.

Instrument i of a panel has the bars ``start[i] .. start[i + 1]``; ``chosen`` are the positions of those that get a
tape. The tables of the tapes lie one after the other.
"""

from numba import from_dtype
from numba.core.types import Array, float64, int32, int64, void

from farm.kernels.jit import helper, kernel
from farm.kernels.panel import lower_bound
from farm.kernels.records import BAR, INSTANT, NONE, OPENING, Table
from farm.values.arrays import F64, I32, I64

_I32, _I64, _F64 = (Array(one, 1, "C", readonly=True) for one in (int32, int64, float64))
_OUT64 = Array(int64, 1, "C")
_INSTANTS, _BARS, _OPENINGS = (Array(from_dtype(one), 1, "C") for one in (INSTANT, BAR, OPENING))
_LAST = 9223372036854775807
_INFINITY = float("inf")

OVERLAP, CLOSE, OPEN = 1, 2, 3
"""Why bars cannot be traded on: they overlap, or one closes before it opens; a price is no positive number."""


@kernel(void(_I64, _I64, _I32, _I64, _I64, _F64, _F64, int64, int64, int64, _OUT64, _OUT64, _OUT64, _OUT64, _OUT64))
def tape_windows(
    chosen: I64,
    start: I64,
    day: I32,
    open_ts: I64,
    close_ts: I64,
    opened: F64,
    close: F64,
    start_day: int,
    end_day: int,
    until: int,
    first: I64,
    last: I64,
    last_open: I64,
    fault: I64,
    row: I64,
) -> None:
    """Write the bars of the panel that each tape holds: [first, last) in the days of the run and closed by ``until``,
    [first, last_open) those and one that only opens before it.

    Shapes:  chosen, first, last, last_open, fault, row (k,). fault: OVERLAP, CLOSE or OPEN, the first of them that is
             met, else 0; row: the bar that overlaps.
    """
    for k in range(chosen.size):
        begin, end = start[chosen[k]], start[chosen[k] + 1]
        low = lower_bound(day, begin, end, start_day)
        high = lower_bound(day, low, end, end_day + 1)
        prints = high
        while high > low and close_ts[high - 1] > until:
            high -= 1
        while prints > high and open_ts[prints - 1] >= until:
            prints -= 1
        first[k], last[k], last_open[k], fault[k], row[k] = low, high, prints, 0, NONE
        # Over slices, from 0 on: only such loops become vector operations.
        opens, closes, last_prices, first_prices = (
            open_ts[low:high],
            close_ts[low:high],
            close[low:high],
            opened[low:prints],
        )
        overlaps, no_open, no_close = False, False, False
        for at in range(closes.size):
            overlaps |= opens[at] >= closes[at]
        for at in range(last_prices.size):
            no_close |= not (last_prices[at] > 0.0) & (last_prices[at] < _INFINITY)
        for at in range(first_prices.size):
            no_open |= not (first_prices[at] > 0.0) & (first_prices[at] < _INFINITY)
        for at in range(closes.size - 1):
            overlaps |= opens[at + 1] < closes[at]
        if overlaps:
            fault[k], row[k] = OVERLAP, low
            while open_ts[row[k]] < close_ts[row[k]] and not (
                row[k] + 1 < high and open_ts[row[k] + 1] < close_ts[row[k]]
            ):
                row[k] += 1
        elif no_close:
            fault[k] = CLOSE
        elif no_open:
            fault[k] = OPEN


@kernel(void(_I64, _I64, _I64, _I64, _F64, _F64, _F64, _F64, _F64, _BARS))
def fill_bars(
    begin: I64,
    first: I64,
    last: I64,
    to: I64,
    opened: F64,
    high: F64,
    low: F64,
    close: F64,
    volume: F64,
    bars: Table,
) -> None:
    """Write the closing bars first .. last of each tape, from ``to`` on. ``begin``: the first bar of its panel.

    Empty ``high`` or ``low``: they were not loaded, and are NaN.
    """
    for k in range(first.size):
        for at in range(first[k], last[k]):
            bar = bars[to[k] + at - first[k]]
            bar.asset = 0
            bar.row = at - begin[k]
            bar.open = opened[at]
            bar.high = high[at] if high.size else float("nan")
            bar.low = low[at] if low.size else float("nan")
            bar.close = close[at]
            bar.volume = volume[at]


@kernel(void(_I64, _I64, _I64, _F64, _F64, _OPENINGS))
def fill_openings(first: I64, last: I64, to: I64, opened: F64, volume: F64, openings: Table) -> None:
    """Write the opening prints of bars first .. last of each tape, from ``to`` on."""
    for k in range(first.size):
        for at in range(first[k], last[k]):
            opening = openings[to[k] + at - first[k]]
            opening.asset = 0
            opening.price = opened[at]
            opening.volume = volume[at]


@helper
def _head(times: I64, at: int, stop: int) -> int:
    return times[at] if at < stop else _LAST


@kernel(
    int64(
        *(_I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64, _I64),
        *(_INSTANTS, _OUT64),
    )
)
def tape_instants(
    act_ts: I64,
    act_start: I64,
    open_ts: I64,
    close_ts: I64,
    first: I64,
    last: I64,
    last_open: I64,
    pay_ts: I64,
    pay_first: I64,
    pay_last: I64,
    opens: I64,
    closes: I64,
    own_opens: I64,
    own_closes: I64,
    own_first: I64,
    own_last: I64,
    out: Table,
    start: I64,
) -> int:
    """Write the instants of each tape, one after the other, as ``merge_instants`` does; return how many there are.

    Shapes:  act_start (k + 1,): the splits and ex-dates of each tape; first, last, last_open (k,): its bars and prints;
             pay_first, pay_last (k,): its payments with an instant; opens, closes: of the run's sessions; own_first,
             own_last (k,): the sessions of the instrument's own calendar, none if it is the run's; start (k + 1,):
             where its instants begin.
    """
    n = 0
    for k in range(first.size):
        start[k] = n
        a, b, p, o, c, d = act_start[k], first[k], pay_first[k], first[k], 0, own_first[k]
        a_stop, b_stop, p_stop, o_stop, d_stop = act_start[k + 1], last[k], pay_last[k], last_open[k], own_last[k]
        act, bar, pay = _head(act_ts, a, a_stop), _head(close_ts, b, b_stop), _head(pay_ts, p, p_stop)
        print_, closing = _head(open_ts, o, o_stop), _head(closes, c, closes.size)
        own = _head(own_closes, d, d_stop)
        while True:
            now = min(min(min(act, bar), min(pay, print_)), min(closing, own))
            if now == _LAST:
                break
            session, closed, under_way = NONE, 0, 0
            while act == now:
                a += 1
                act = _head(act_ts, a, a_stop)
            while bar == now:
                b += 1
                bar = _head(close_ts, b, b_stop)
            while pay == now:
                p += 1
                pay = _head(pay_ts, p, p_stop)
            while print_ == now:
                o += 1
                print_ = _head(open_ts, o, o_stop)
            while closing == now:
                session, closed = c, 1
                c += 1
                closing = _head(closes, c, closes.size)
            while own == now:
                closed |= 2
                d += 1
                own = _head(own_closes, d, d_stop)
            if c < closes.size and opens[c] < now:
                under_way = 1
            if d < d_stop and own_opens[d] < now:
                under_way |= 2
            instant = out[n]
            instant.ts = now
            instant.session = session
            instant.closed = closed
            instant.under_way = under_way
            instant.act_end = a - act_start[k]
            instant.bar_end = b - first[k]
            instant.pay_end = p - pay_first[k]
            instant.open_end = o - first[k]
            n += 1
    start[first.size] = n
    return n
