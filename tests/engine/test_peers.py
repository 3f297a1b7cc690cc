"""Engines that other people wrote play random rules, and agree with this one bar by bar; where they cannot, how they
differ is written down as a test.

Rules are long, short or both, with drawn signals or crosses of averages (computed once, for all), stops, targets and
commissions, on real bars and on generated ones. How conventions are matched is said in ``peers.py``. No level of these
rules falls on a tick; what happens where one does is the last part of this file.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from farm.engine.ledger import OrderKind
from farm.values.arrays import I64, U8
from tests.engine import peers
from tests.engine.peers import (
    CASH,
    PEERS,
    Played,
    Rule,
    books,
    by_backtesting,
    by_backtrader,
    by_plain_vectorbt,
    by_vectorbt,
    levels,
    ours,
)

SEEDS = range(40)
BARS = 360
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True, scope="module")
def are_there() -> None:
    """These come with the test extra."""
    for peer in PEERS:
        pytest.importorskip(peer)


@functools.cache
def real(name: str) -> I64:
    """Bars that come with backtesting.py, in ticks: GOOG, days in cents; EURUSD, hours in hundred-thousandths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import backtesting.test
    prices = getattr(backtesting.test, name)[["Open", "High", "Low", "Close"]].to_numpy()
    unit = {"GOOG": 100, "EURUSD": 100_000}[name]
    ticks = np.rint(prices * unit).astype(np.int64)
    assert (ticks / float(unit) == prices).all()
    return ticks


def generated(random: np.random.Generator) -> I64:
    """Bars that gap and swing."""
    wild = random.choice((0.01, 0.03))
    close = 5_000 * np.cumprod(1 + random.normal(0, wild, BARS))
    opened = close * (1 + random.normal(0, wild, BARS))
    high = np.maximum(opened, close) * (1 + abs(random.normal(0, wild, BARS)))
    low = np.minimum(opened, close) / (1 + abs(random.normal(0, wild, BARS)))
    return np.maximum(np.rint(np.stack([opened, high, low, close], axis=1)), 2).astype(np.int64)


def crosses(close: I64, fast: int, slow: int) -> tuple[U8, U8]:
    """Where one average of the closes crosses another upward, and downward; in integers, so that nobody differs."""

    def total(n: int) -> I64:
        sums = np.concatenate(([0], np.cumsum(close)))
        return sums[n:] - sums[:-n]

    above = np.sign(total(fast)[slow - fast :] * slow - total(slow) * fast)
    up, down = np.zeros((2, close.shape[0]), np.uint8)
    up[slow:] = (above[1:] > 0) & (above[:-1] <= 0)
    down[slow:] = (above[1:] < 0) & (above[:-1] >= 0)
    return up, down


def rule_of(seed: int) -> Rule:
    """The rule that a seed draws."""
    random = np.random.default_rng(seed)
    bars, side = ("GOOG", "EURUSD", "")[seed % 3], ("long", "short", "both")[seed // 3 % 3]
    scale, shares, calm = {"GOOG": (2, 10, 1), "EURUSD": (5, 5_000, 20), "": (2, 70, 1)}[bars]
    ticks = real(bars) if bars else generated(random)
    first = int(random.integers(ticks.shape[0] - BARS + 1))
    ticks = ticks[first : first + BARS]
    if random.random() < 0.5:  # at most one at a bar: what several mean together, each engine says for itself
        drawn = random.choice(5, BARS, p=(0.6, 0.1, 0.1, 0.1, 0.1))
        enter, leave, enter_short, leave_short = ((drawn == k).astype(np.uint8) for k in range(1, 5))
    else:
        fast = int(random.integers(2, 10))
        enter, enter_short = leave_short, leave = crosses(ticks[:, 3], fast, fast + int(random.integers(1, 20)))
    none = np.zeros(BARS, np.uint8)
    if side == "long":
        enter_short = leave_short = none
    elif side == "short":
        enter = leave = none

    def distance(most: int) -> float | None:
        """In hundred-thousandths, the last digit a 3: no tick below 100,000 has a level on a tick."""
        return (10 * int(random.integers(100, most) // calm) + 3) / 1e5 if random.random() < 0.7 else None

    bps = float(random.choice((0.0, 2.5, 10.0)))
    return Rule(ticks, scale, side, enter, leave, enter_short, leave_short, distance(800), distance(1_000), shares, bps)


@functools.cache
def played(seed: int) -> Played:
    """Our side of a rule."""
    return ours(rule_of(seed))


def assert_agree(one: Played, other: Played) -> None:
    """The same equity at every bar, fills and number of trades."""
    assert [fill[:2] for fill in one.fills] == [fill[:2] for fill in other.fills]
    np.testing.assert_allclose([fill[2] for fill in one.fills], [fill[2] for fill in other.fills], rtol=1e-12)
    np.testing.assert_allclose(one.equity, other.equity, rtol=1e-9)
    assert one.closed == other.closed


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("peer", PEERS)
def test_random_rules(peer: str, seed: int) -> None:
    assert_agree(played(seed), PEERS[peer](rule_of(seed)))


def test_the_rules_are_worth_it() -> None:
    """Signals, reversals, stops and targets, inside a bar, at its open, in the bar of the entry: often all of them."""
    found: Counter[tuple[int, str, str]] = Counter()
    for rule in map(rule_of, SEEDS):
        for trade in books(rule).trades:
            is_open = trade["exit_price"] == rule.bars[trade["exit_session"], 0]
            is_new = trade["exit_session"] == trade["entry_session"]
            where = "at once" if is_new else "at the open" if is_open else "inside"
            found[int(trade["side"]), OrderKind(int(trade["exit_kind"])).name, where] += 1
    expected = {
        *itertools.product((1, -1), ("EXIT", "REVERSE"), ("at the open",)),
        *itertools.product((1, -1), ("STOP", "TARGET"), ("at the open", "inside", "at once")),
    }
    assert set(found) == expected
    assert min(found.values()) >= 5


# Where they differ


def one_trade(*bars: tuple[float, float, float, float], **more: float) -> Rule:
    """Ten shares bought at the open of the second bar."""
    signal = np.zeros((4, len(bars)), np.uint8)
    signal[0, 0] = 1
    return Rule(np.rint(np.array(bars) * 100).astype(np.int64), 2, "long", *signal, **more)


def ends(rule: Rule) -> dict[str, float]:
    """What each engine has made in the end."""
    return {name: round(float(play(rule).equity[-1]) - CASH, 6) for name, play in {"ours": ours, **PEERS}.items()}


def still(price: float) -> tuple[float, float, float, float]:
    return price, price, price, price


class TestLevels:
    """A level is the decimal it stands for here; the others compare the product as float64 has it."""

    def test_a_stop_touched_at_its_level(self) -> None:
        """5 % below 102 is 96.90; 102 * (1 - 0.05) is 96.89999999999999, and a low of 96.90 does not meet that."""
        assert 102 * (1 - 0.05) == 96.89999999999999
        rule = one_trade(still(102), still(102), (102, 102, 96.9, 100), still(100), stop=0.05)
        assert ends(rule) == {"ours": -51.0, "backtesting": -20.0, "vectorbt": -20.0, "backtrader": -20.0}
        assert ours(rule).fills[-1] == (2, -10, 96.9)
        below = one_trade(still(102), still(102), (102, 102, 96.89, 100), still(100), stop=0.05)
        assert ends(below) == dict.fromkeys(ends(below), -51.0)

    def test_an_opening_at_the_target(self) -> None:
        """10 % above 100 is 110; 100 * 1.1 is 110.00000000000001, and an opening at 110 does not meet that."""
        assert 100 * (1 + 0.1) == 110.00000000000001
        rule = one_trade(still(100), still(100), still(110), still(100), target=0.1)
        assert ends(rule) == {"ours": 100.0, "backtesting": 0.0, "vectorbt": 0.0, "backtrader": 0.0}
        above = one_trade(still(100), still(100), still(110.01), still(100), target=0.1)
        assert ends(above) == dict.fromkeys(ends(above), 100.1)

    def test_who_is_given_the_decimal_agrees(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def decimals(*entry: Any) -> tuple[float | None, ...]:
            return tuple(level and round(level, 9) for level in levels(*entry))

        monkeypatch.setattr(peers, "levels", decimals)
        for rule in (one_trade(still(102), still(102), (102, 102, 96.9, 100), still(100), stop=0.05),
                     one_trade(still(100), still(100), still(110), still(100), target=0.1)):  # fmt: skip
            assert ours(rule).fills == by_backtesting(rule).fills == by_backtrader(rule).fills

    def test_a_stop_whose_product_is_exact(self) -> None:
        """75 is 75 for all."""
        rule = one_trade(still(100), still(100), (100, 100, 75, 100), still(100), stop=0.25)
        assert ends(rule) == dict.fromkeys(ends(rule), -250.0)

    def test_a_target_that_is_only_touched(self) -> None:
        """A limit fills beyond its price here (domain.md 3.4); the others fill it by touch."""
        rule = one_trade(still(100), still(100), (100, 125, 100, 100), still(100), target=0.25)
        assert ends(rule) == {"ours": 0.0, "backtesting": 250.0, "vectorbt": 250.0, "backtrader": 250.0}
        beyond = one_trade(still(100), still(100), (100, 125.01, 100, 100), still(100), target=0.25)
        assert ends(beyond) == dict.fromkeys(ends(beyond), 250.0)


class TestPlainBars:
    """vectorbt on the bars as they are, without the pairs of ``peers.py``."""

    def test_its_stop_comes_before_a_signal_that_fills_at_the_open(self) -> None:
        rule = one_trade(still(100), still(100), (99, 99, 90, 95), still(95), stop=0.0625)
        rule.leave[1] = 1
        assert ours(rule).fills == by_vectorbt(rule).fills == [(1, 10, 100.0), (2, -10, 99.0)]
        assert by_plain_vectorbt(rule).fills == [(1, 10, 100.0), (2, -10, 93.75)]

    def test_its_stop_begins_with_the_bar_after_the_entry(self) -> None:
        rule = one_trade(still(100), (100, 100, 90, 100), (100, 100, 99, 99), still(99), stop=0.0625)
        assert ours(rule).fills == by_vectorbt(rule).fills == [(1, 10, 100.0), (1, -10, 93.75)]
        assert by_plain_vectorbt(rule).fills == [(1, 10, 100.0)]

    def test_a_stop_inside_a_bar_that_opens_beyond_the_target(self) -> None:
        """The stop comes first for all, given the pairs."""
        rule = one_trade(still(100), still(100), (130, 130, 90, 100), still(100), stop=0.0625, target=0.25)
        assert ours(rule).fills == by_vectorbt(rule).fills == by_backtesting(rule).fills
        assert ours(rule).fills[-1] == (2, -10, 93.75)
        assert by_backtrader(rule).fills[-1] == (2, -10, 93.75)
