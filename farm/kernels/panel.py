"""Rows of many instruments put side by side, and what follows from them bar by bar: sessions and factors.

A *run* is a stretch of rows of one instrument within one row group; instruments lie one after the other, instrument i
in ``start[i] .. start[i + 1]``. Every function goes over all runs or all instruments of one call, so that none of them
costs Python anything.
"""

from numba.core.types import Array, float64, int8, int32, int64, void

from farm.kernels.jit import helper, inlined, kernel
from farm.kernels.transcend import dd_add, dd_multiply, quick_two_sum, two_product
from farm.values.arrays import F64, I8, I32, I64

_I8, _I32, _I64, _F64 = (Array(one, 1, "C", readonly=True) for one in (int8, int32, int64, float64))
_OUT8, _OUT32, _OUT64, _OUT = (Array(one, 1, "C") for one in (int8, int32, int64, float64))

EXACT = 9007199254740992
"""2**53: integers below this are float64 without rounding."""
STEP_ERROR = 2.0**-98
"""Bound on the relative error that one step adds to a product of double-doubles: some 2**-102, with room."""
SHARE_MAX = 0.9
"""A dividend above this share of the close cancels too many digits to be sure of."""


@inlined
def lower_bound(day: I32, low: int, high: int, wanted: int) -> int:
    """Return the first position in [low, high) whose day is not before ``wanted``, or ``high``."""
    while low < high:
        middle = (low + high) >> 1
        if day[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(void(_I32, _I64, _I64, _I32, int64, _OUT64, _OUT64))
def clip_runs(day: I32, start: I64, rows: I64, first_day: I32, last_day: int, low: I64, high: I64) -> None:
    """Write where the rows of each run on [its first day, last_day] begin and end. ``day``: of the row group."""
    for i in range(start.size):
        stop = start[i] + rows[i]
        low[i] = lower_bound(day, start[i], stop, first_day[i])
        high[i] = lower_bound(day, low[i], stop, last_day + 1)


@kernel(
    void(_I32, _I64, _I64, _I64, _OUT32),
    void(_I64, _I64, _I64, _I64, _OUT64),
    void(_I8, _I64, _I64, _I64, _OUT8),
    void(_I64, _I64, _I64, _I64, _OUT),
)
def copy_runs(column: I64, low: I64, high: I64, to: I64, out: I64) -> None:
    """Copy rows low .. high of each run to ``out``, from ``to`` on."""
    for i in range(low.size):
        shift = to[i] - low[i]
        for row in range(low[i], high[i]):
            out[row + shift] = column[row]


@kernel(void(_I64, _I64, _I64, _OUT64))
def spare_decimals(ticks: I64, low: I64, high: I64, spare: I64) -> None:
    """Lower ``spare`` of each run until 10**spare divides all its ticks."""
    for i in range(low.size):
        power = 10 ** spare[i]
        for row in range(low[i], high[i]):
            while ticks[row] % power != 0:
                spare[i] -= 1
                power //= 10
            if power == 1:
                break


@kernel(void(_I64, _I64, _I64, _I64, _I64, _I64, _F64, _OUT64, _OUT))
def copy_prices(
    column: I64, low: I64, high: I64, to: I64, up: I64, down: I64, unit: F64, ticks: I64, prices: F64
) -> None:
    """Copy rows low .. high of each run as ``ticks`` x up / down, and as prices: these by ``unit``.

    Empty ``ticks`` are not wanted.
    """
    for i in range(low.size):
        rows = high[i] - low[i]
        source, price = column[low[i] : high[i]], prices[to[i] : to[i] + rows]
        by = unit[i]
        if up[i] == 1 and down[i] == 1:
            for k in range(rows):
                price[k] = float(source[k]) / by
            if ticks.size:
                ticks[to[i] : to[i] + rows] = source
        else:
            for k in range(rows):
                changed = source[k] * up[i] // down[i]
                price[k] = float(changed) / by
                if ticks.size:
                    ticks[to[i] + k] = changed


@kernel(void(_I32, _I64, _OUT8))
def out_of_order(day: I32, start: I64, found: I8) -> None:
    """Write 1 for each instrument whose days do not strictly rise, else 0."""
    for i in range(start.size - 1):
        found[i] = 0
        for row in range(start[i] + 1, start[i + 1]):
            if day[row] <= day[row - 1]:
                found[i] = 1
                break


@kernel(void(_I32, _I64, _I32, _I64, _I64, _I32, _I64, _I64, _OUT64, _OUT64, _OUT64))
def bar_sessions(
    day: I32,
    start: I64,
    calendar: I32,
    first: I64,
    stop: I64,
    session: I32,
    session_open: I64,
    session_close: I64,
    open_ts: I64,
    close_ts: I64,
    strange: I64,
) -> None:
    """Write when the session of each bar opens and closes.

    Shapes:  day, open_ts, close_ts (n,); calendar (s,): the one of each instrument; first, stop (calendars,): where its
             sessions lie in session (days), session_open, session_close; strange (s,): the first bar on a day that is
             no session of its calendar, or -1.
    """
    for i in range(start.size - 1):
        strange[i] = -1
        if start[i] == start[i + 1]:
            continue
        end = stop[calendar[i]]
        at = lower_bound(session, first[calendar[i]], end, day[start[i]])
        for row in range(start[i], start[i + 1]):
            while at < end and session[at] < day[row]:
                at += 1
            if at == end or session[at] != day[row]:
                strange[i] = row
                break
            open_ts[row] = session_open[at]
            close_ts[row] = session_close[at]


@kernel(void(_I32, _I64, _I32, _I32, _OUT64))
def rows_on(day: I32, start: I64, instrument: I32, wanted: I32, row: I64) -> None:
    """Write the first bar of ``instrument`` on ``wanted`` or after it, for each pair; the end of its bars if none."""
    for k in range(wanted.size):
        i = instrument[k]
        row[k] = lower_bound(day, start[i], start[i + 1], wanted[k])


@helper
def common_divisor(a: int, b: int) -> int:
    """Return the greatest common divisor of two positive integers."""
    while b:
        a, b = b, a % b
    return a


@kernel(void(_I32, _I64, int64, _I64, _I32, _I64, _I64, _OUT, _OUT, _OUT, _OUT8))
def split_factors(
    day: I32,
    start: I64,
    anchor_day: int,
    step_start: I64,
    step_day: I32,
    step_num: I64,
    step_den: I64,
    factor: F64,
    factor_num: F64,
    factor_den: F64,
    is_sure: I8,
) -> None:
    """Write the factor of each bar by its splits, and the fraction in lowest terms that it is.

    Shapes:  day, factor, factor_num, factor_den (n,); step_* (splits,), instrument i's in step_start[i] ..
             step_start[i + 1], days rising; is_sure (s,): 0 where a ratio is none or a term reaches 2**53, and what was
             written means nothing.
    Source:  domain.md 3.3: products of the splits after the anchor, over those up to it.
    """
    for i in range(start.size - 1):
        is_sure[i] = 1
        low, high = start[i], start[i + 1]
        for row in range(low, high):
            factor[row] = 1.0
            factor_num[row] = 1.0
            factor_den[row] = 1.0
        begin, end = step_start[i], step_start[i + 1]
        middle = begin
        while middle < end and step_day[middle] <= anchor_day:
            middle += 1
        for way in range(2):  # after the anchor, then before it
            num, den = 1, 1
            at = middle if way == 0 else middle - 1
            while begin <= at < end:
                up, down = step_num[at], step_den[at]
                if up < 1 or down < 1:
                    is_sure[i] = 0
                    break
                if way == 1:
                    up, down = down, up
                common = common_divisor(up, down)
                up, down = up // common, down // common
                first, second = common_divisor(num, down), common_divisor(up, den)
                num, up, den, down = num // first, up // second, den // second, down // first
                if up >= EXACT // num or down >= EXACT // den:
                    is_sure[i] = 0
                    break
                num, den = num * up, den * down
                if way == 0:
                    since = lower_bound(day, low, high, step_day[at])
                    until = lower_bound(day, since, high, step_day[at + 1]) if at + 1 < end else high
                    at += 1
                else:
                    since = lower_bound(day, low, high, step_day[at - 1]) if at > begin else low
                    until = lower_bound(day, since, high, step_day[at])
                    at -= 1
                value = float(num) / float(den)
                for row in range(since, until):
                    factor[row] = value
                    factor_num[row] = float(num)
                    factor_den[row] = float(den)


@kernel(void(_I32, _I64, _F64, _I64, _F64, _I32, _I64, _I64, _I32, _I32, _I64, _I64, _OUT, _OUT, _OUT, _OUT, _OUT8))
def dividend_ratios(
    bar_day: I32,
    close_ticks: I64,
    close_power: F64,
    ticks: I64,
    power: F64,
    day: I32,
    split_first: I64,
    split_stop: I64,
    instrument: I32,
    split_day: I32,
    split_num: I64,
    split_den: I64,
    num_hi: F64,
    num_lo: F64,
    den_hi: F64,
    den_lo: F64,
    is_sure: I8,
) -> None:
    """Write by what each dividend multiplies the total return factor: close / (close - dividend), as double-doubles.

    Shapes:  all but split_* (d,): bar_day, close_ticks of the last bar before the ex-day ``day``; powers of ten that
             bring both to one unit; split_first, split_stop: the splits of the instrument in split_day, split_num,
             split_den. is_sure: 0 where the ratio is none or would be too inexact.
    """
    for k in range(day.size):
        is_sure[k] = 0
        if close_ticks[k] >= EXACT or ticks[k] >= EXACT:
            continue
        ch, cl = two_product(float(close_ticks[k]), close_power[k])
        dh, dl = two_product(float(ticks[k]), power[k])
        is_small = True
        for at in range(split_first[k], split_stop[k]):
            if bar_day[k] < split_day[at] <= day[k]:
                # The close was before the split: into new shares with it.
                is_small &= 0 < split_num[at] < EXACT and 0 < split_den[at] < EXACT
                ch, cl = dd_multiply(ch, cl, float(split_den[at]), 0.0)
                dh, dl = dd_multiply(dh, dl, float(split_num[at]), 0.0)
        if is_small and 0.0 <= dh <= SHARE_MAX * ch:
            num_hi[k], num_lo[k] = ch, cl
            den_hi[k], den_lo[k] = dd_add(ch, cl, -dh, -dl)
            is_sure[k] = 1


@helper
def dd_divide(ah: float, al: float, bh: float, bl: float) -> tuple[float, float]:
    """Return the quotient of two double-doubles."""
    q = ah / bh
    p, e = two_product(q, bh)
    return quick_two_sum(q, (((ah - p) - e) + (al - q * bl)) / bh)


@kernel(void(_I32, _I64, int64, _I64, _I32, _F64, _F64, _F64, _F64, _OUT, _OUT8))
def product_factors(
    day: I32,
    start: I64,
    anchor_day: int,
    step_start: I64,
    step_day: I32,
    num_hi: F64,
    num_lo: F64,
    den_hi: F64,
    den_lo: F64,
    factor: F64,
    is_sure: I8,
) -> None:
    """Write the factor of each bar by its steps, num / den each, correctly rounded.

    Shapes:  as ``split_factors``, with terms as double-doubles. is_sure (s,) becomes 0 where the error of the product
             leaves open which float64 is nearest, and what was written means nothing; such are ties, and one in 2**40.
    """
    for i in range(start.size - 1):
        low, high = start[i], start[i + 1]
        for row in range(low, high):
            factor[row] = 1.0
        begin, end = step_start[i], step_start[i + 1]
        middle = begin
        while middle < end and step_day[middle] <= anchor_day:
            middle += 1
        for way in range(2):
            fh, fl = 1.0, 0.0
            error = 2.0 * STEP_ERROR
            at = middle if way == 0 else middle - 1
            while begin <= at < end:
                if way == 0:
                    fh, fl = dd_multiply(fh, fl, num_hi[at], num_lo[at])
                    fh, fl = dd_divide(fh, fl, den_hi[at], den_lo[at])
                    since = lower_bound(day, low, high, step_day[at])
                    until = lower_bound(day, since, high, step_day[at + 1]) if at + 1 < end else high
                    at += 1
                else:
                    fh, fl = dd_multiply(fh, fl, den_hi[at], den_lo[at])
                    fh, fl = dd_divide(fh, fl, num_hi[at], num_lo[at])
                    since = lower_bound(day, low, high, step_day[at - 1]) if at > begin else low
                    until = lower_bound(day, since, high, step_day[at])
                    at -= 1
                error += STEP_ERROR
                slack = error * fh
                if until > since:
                    is_near = fh + (fl + slack) == fh and fh + (fl - slack) == fh
                    if not (is_near and 1e-280 < fh < 1e280):
                        is_sure[i] = 0
                for row in range(since, until):
                    factor[row] = fh
