"""Kernels over the rows of many instruments against their plain twins."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farm.kernels import panel as kernels
from tests.reference import panel as twin

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32)
LARGE = 2**53


def rising(rng: np.random.Generator, lengths: list[int], *, broken: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Days of instruments of these lengths, and where each begins; some out of order."""
    days = [np.sort(rng.choice(40, length, replace=False)) for length in lengths]
    days = [rng.permutation(one) if rng.random() < broken else one for one in days]
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return np.concatenate([np.empty(0, np.int32), *days]).astype(np.int32), start


def pairs(start: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(start[:-1].tolist(), start[1:].tolist(), strict=True))


@given(SEEDS, LENGTHS)
def test_clip(seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    day, start = rising(rng, lengths)
    since = rng.integers(0, 40, len(lengths)).astype(np.int32)
    last = int(rng.integers(0, 40))
    low, high = (np.empty(len(lengths), np.int64) for _ in range(2))
    kernels.clip_runs(day, start[:-1], np.diff(start), since, last, low, high)
    found = [list(range(*pair)) for pair in zip(low.tolist(), high.tolist(), strict=True)]
    assert found == twin.clip_runs(day.tolist(), pairs(start), since.tolist(), last)


@given(SEEDS, LENGTHS)
def test_copies(seed: int, lengths: list[int]) -> None:
    """Rows of each run where it belongs, nothing else touched; ticks restated, prices by one division."""
    rng = np.random.default_rng(seed)
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    low, high = start[:-1], start[1:] - (np.diff(start) > 2)
    order = rng.permutation(len(lengths))
    to = np.empty(len(lengths), np.int64)
    to[order] = np.cumsum((high - low)[order] + 1) - (high - low)[order]
    size = int((high - low).sum()) + len(lengths) + 1
    for given_, wanted in ((np.int8, np.int8), (np.int32, np.int32), (np.int64, np.int64), (np.int64, np.float64)):
        column = rng.integers(-100, 100, int(start[-1])).astype(given_)
        out, expected = np.full(size, 77, wanted), np.full(size, 77, wanted)
        for a, b, at in zip(low, high, to, strict=True):
            expected[at : at + b - a] = column[a:b]
        kernels.copy_runs(column, low, high, to, out)
        assert out.tobytes() == expected.tobytes()
    column = rng.integers(0, 2**40, int(start[-1])) * 100
    change = rng.integers(-2, 3, len(lengths))
    up, down = 10 ** np.maximum(change, 0), 10 ** np.maximum(-change, 0)
    unit = 10.0 ** rng.integers(0, 9, len(lengths))
    for wants_ticks in (True, False):
        ticks, prices = np.full(size if wants_ticks else 0, 77, np.int64), np.full(size, 77.0)
        kernels.copy_prices(column, low, high, to, up, down, unit, ticks, prices)
        kept, seen = [77] * size, [77.0] * size
        for i, (a, b, at) in enumerate(zip(low.tolist(), high.tolist(), to.tolist(), strict=True)):
            for k in range(b - a):
                kept[at + k] = int(column[a + k]) * int(up[i]) // int(down[i])
                seen[at + k] = kept[at + k] / float(unit[i])
        assert prices.tolist() == seen
        assert ticks.tolist() == (kept if wants_ticks else [])


@given(SEEDS, LENGTHS)
def test_decimals(seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ticks = rng.integers(0, 100, int(start[-1])) * 10 ** rng.integers(0, 9, int(start[-1]))
    most = rng.integers(0, 9, len(lengths))
    spare = most.copy()
    kernels.spare_decimals(ticks, start[:-1], start[1:], spare)
    assert spare.tolist() == twin.spare_decimals(ticks.tolist(), pairs(start), most.tolist())


@given(SEEDS, LENGTHS)
def test_order_rows_and_sessions(seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    day, start = rising(rng, lengths, broken=0.3)
    found = np.empty(len(lengths), np.int8)
    kernels.out_of_order(day, start, found)
    assert found.tolist() == twin.out_of_order(day.tolist(), pairs(start))

    day, start = rising(rng, lengths)
    wanted = rng.integers(0, 42, 9).astype(np.int32)
    instrument = rng.integers(0, len(lengths), 9).astype(np.int32)
    row = np.empty(9, np.int64)
    kernels.rows_on(day, start, instrument, wanted, row)
    asked = list(zip(instrument.tolist(), wanted.tolist(), strict=True))
    assert row.tolist() == twin.rows_on(day.tolist(), pairs(start), asked)

    sessions = [np.sort(rng.choice(40, int(rng.integers(36, 41)), replace=False)) for _ in range(2)]
    stop = np.cumsum([one.size for one in sessions])
    whole = np.concatenate(sessions)
    calendar = rng.integers(0, 2, len(lengths)).astype(np.int32)
    opens, closes = whole * 10, whole * 10 + 7
    out = [np.zeros(day.size, np.int64) for _ in range(2)]
    strange = np.empty(len(lengths), np.int64)
    kernels.bar_sessions(
        day, start, calendar, stop - [one.size for one in sessions], stop, whole.astype(np.int32), opens, closes, *out,
        strange,
    )  # fmt: skip
    known = [{int(one): (int(one) * 10, int(one) * 10 + 7) for one in some} for some in sessions]
    expected = twin.bar_sessions(day.tolist(), pairs(start), [known[at] for at in calendar])
    for (low, _), at, (where, some) in zip(pairs(start), strange.tolist(), expected, strict=True):
        assert at == where
        assert list(zip(*(one[low : low + len(some)].tolist() for one in out), strict=True)) == some


@given(SEEDS, LENGTHS, st.integers(0, 40), st.sampled_from([3, 50, 2**20]))
def test_split_factors(seed: int, lengths: list[int], anchor: int, ratio_max: int) -> None:
    """The rational, rounded once, and its terms; where not sure, a term is too large in some stretch."""
    rng = np.random.default_rng(seed)
    day, start = rising(rng, lengths)
    step_day, step_start = rising(rng, rng.integers(0, 8, len(lengths)).tolist())
    num, den = rng.integers(1, ratio_max + 1, (2, step_day.size))
    out = [np.empty(day.size) for _ in range(3)]
    sure = np.empty(len(lengths), np.int8)
    kernels.split_factors(day, start, anchor, step_start, step_day, num, den, *out, sure)
    for i, ((low, high), (first, last)) in enumerate(zip(pairs(start), pairs(step_start), strict=True)):
        mine = [(int(step_day[k]), Fraction(int(num[k]), int(den[k]))) for k in range(first, last)]
        exact = twin.exact_factors(day[low:high].tolist(), anchor, mine)
        if sure[i]:
            assert out[0][low:high].tolist() == [float(one) for one in exact]
            assert out[1][low:high].tolist() == [one.numerator for one in exact]
            assert out[2][low:high].tolist() == [one.denominator for one in exact]
        else:
            assert ratio_max == 2**20


@given(SEEDS, LENGTHS, st.integers(0, 40))
def test_return_factors(seed: int, lengths: list[int], anchor: int) -> None:
    """Dividends, and splits of the same days: what is sure is the rational, rounded once; nearly everything is."""
    rng = np.random.default_rng(seed)
    day, start = rising(rng, [length + 1 for length in lengths])
    split_day, split_start = rising(rng, rng.integers(0, 6, len(lengths)).tolist())
    split_num, split_den = rng.integers(1, 20, (2, split_day.size))
    paid, paid_start = rising(rng, rng.integers(0, 12, len(lengths)).tolist())
    owner = np.repeat(np.arange(len(lengths)), np.diff(paid_start))
    before = start[owner] + rng.integers(0, np.diff(start)[owner])
    before = np.minimum(before, np.array([np.searchsorted(day[start[o] : start[o + 1]], d) - 1 + start[o]
                                          for o, d in zip(owner, paid, strict=True)], np.int64))  # fmt: skip
    kept = before >= start[owner]
    paid, owner, before = paid[kept], owner[kept], before[kept]
    close = rng.integers(10**5, 10**6, paid.size)
    ticks = rng.integers(0, 10**3, paid.size)
    scale = rng.integers(0, 9, (2, paid.size))
    scale[0] = np.minimum(scale[0], scale[1])  # of the close: the dividend has as many decimals, or more
    terms = [np.empty(paid.size) for _ in range(4)]
    sure = np.empty(paid.size, np.int8)
    kernels.dividend_ratios(
        day[before], close, 10.0 ** scale[1], ticks, 10.0 ** scale[0], paid, split_start[owner],
        split_start[owner + 1], owner.astype(np.int32), split_day, split_num, split_den, *terms, sure,
    )  # fmt: skip
    splits = [[(int(split_day[k]), int(split_num[k]), int(split_den[k])) for k in range(*pair)]
              for pair in pairs(split_start)]  # fmt: skip
    steps: list[list[tuple[int, Fraction]]] = [[(d, Fraction(n, m)) for d, n, m in some] for some in splits]
    rows = [(int(d), float(n), 0.0, float(m), 0.0) for some in splits for d, n, m in some]
    owners = [i for i, some in enumerate(splits) for _ in some]
    for k in np.flatnonzero(sure).tolist():
        i = int(owner[k])
        price, amount = (Fraction(int(x), 10 ** int(s)) for x, s in ((close[k], scale[0][k]), (ticks[k], scale[1][k])))
        ratio = twin.dividend_ratio(int(day[before[k]]), price, amount, int(paid[k]), splits[i])
        nearly = Fraction(terms[0][k]) + Fraction(terms[1][k]), Fraction(terms[2][k]) + Fraction(terms[3][k])
        assert abs(nearly[0] / nearly[1] / ratio - 1) < Fraction(1, 2**98)
        steps[i].append((int(paid[k]), ratio))
        rows.append((int(paid[k]), *(float(term[k]) for term in terms)))
        owners.append(i)
    order = sorted(range(len(rows)), key=lambda k: (owners[k], rows[k][0]))
    step_start = np.searchsorted([owners[k] for k in order], np.arange(len(lengths) + 1)).astype(np.int64)
    table = [np.array([rows[k][at] for k in order], np.int32 if at == 0 else np.float64) for at in range(5)]
    out, certain = np.empty(day.size), np.ones(len(lengths), np.int8)
    kernels.product_factors(day, start, anchor, step_start, *table, out, certain)
    for i, (low, high) in enumerate(pairs(start)):
        exact = twin.exact_factors(day[low:high].tolist(), anchor, steps[i])
        if certain[i]:
            assert out[low:high].tolist() == [float(one) for one in exact]
        else:  # a tie, or next to one
            assert any(_is_tie(one) for one in exact)


def _is_tie(value: Fraction) -> bool:
    """Whether the value lies halfway between two floats, to 2^-90 of it."""
    nearest = float(value)
    gap = Fraction(np.spacing(nearest)) / 2
    return abs(abs(value - Fraction(nearest)) - gap) < value / 2**80


def test_what_is_not_sure_is_said() -> None:
    """A tie, a factor out of range, a dividend near the price, a ratio that is none."""
    day, start, one = np.array([1, 3], np.int32), np.array([0, 2], np.int64), np.array([2], np.int32)
    ends, zero = np.array([0, 1], np.int64), np.zeros(1)

    def product(num: float, den: float, low: float = 0.0) -> int:
        out, sure = np.empty(2), np.ones(1, np.int8)
        kernels.product_factors(
            day, start, 2, ends, one, np.array([den]), zero, np.array([num]), np.array([low]), out, sure
        )
        return int(sure[0])

    assert product(3.0, 7.0) == product(1.0, 1.0) == product(float(LARGE - 1), 2.0) == 1
    assert product(float(LARGE), 1.0, 1.0) == product(float(LARGE), 1.0, -0.5) == 0  # halfway, on either side
    assert product(1e300, 1.0) == product(1.0, 0.0) == 0

    def dividend(ticks: int, num: int = 2) -> int:
        sure = np.empty(1, np.int8)
        kernels.dividend_ratios(
            np.array([1], np.int32), np.array([1000]), np.ones(1), np.array([ticks]), np.ones(1), one,
            ends[:1], ends[1:], np.zeros(1, np.int32), one, np.array([num]), np.array([1]),
            *(np.empty(1) for _ in range(4)), sure,
        )  # fmt: skip
        return int(sure[0])

    assert [dividend(ticks) for ticks in (0, 1, 449, 451, 500, -1, LARGE)] == [1, 1, 1, 0, 0, 0, 0]
    assert [dividend(1, num) for num in (0, LARGE)] == [0, 0]
