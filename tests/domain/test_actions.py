"""domain.md 3.1 to 3.3 by hand: sessions and clocks, splits, dividends, adjusted prices."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np
import pytest

from farm.engine.ledger import CashKind
from farm.values.errors import SpecError
from farm.values.units import NS_PER_DAY, NS_PER_HOUR, parse_date
from tests.domain.support import START, Played, Row, day, flat, on, play, put, sleeve, spec, world


def one(bars: list[Row], *, splits: Any = (), dividends: Any = (), run: Any = None, **rules: Any) -> Played:
    """AAA, entered on session 0 unless said otherwise."""
    store = world({"AAA": bars}, splits=splits, dividends=dividends)
    made = sleeve(**({"enter": on(0)} | rules))
    return play(spec(["AAA"], made, sessions=len(bars), **(run or {})), store)


def shares(n: float) -> dict[str, Any]:
    return {"mode": "qty", "v": n}


class TestSplits:
    @pytest.mark.parametrize(
        ("ratio", "price", "held", "lots", "cashed"),
        [
            ("2:1", 50.0, 25, 50, 0.0),
            ("3:2", 66.0, 25, 37, 0.5 * 100 * 2 / 3),
            ("1:10", 1000.0, 25, 2, 0.5 * 1000),
            ("1:4", 400.0, 27, 6, 0.75 * 400),
        ],
    )
    def test_shares_change_and_fractions_are_cashed_at_the_previous_close_over_the_ratio(
        self, ratio: str, price: float, held: int, lots: int, cashed: float
    ) -> None:
        bars = flat(100, 100, price, price, price)
        played = one(bars, splits=[("AAA", day(2), ratio)], exit=on(3), size=shares(held))
        assert played.short_fills == [(1, held, 100.0), (4, -lots, price)]
        lines = [(session, value) for session, kind, value, _ in played.cash if kind == CashKind.SPLIT_CASH]
        assert lines == ([(2, round(cashed, 6))] if cashed else [])
        assert played.equity[-1] == pytest.approx(10_000 - held * 100 + round(cashed, 6) + lots * price)

    def test_a_split_alone_changes_no_equity(self) -> None:
        """Obligation 8, on the path of a user: with and without the split, in the shares of each."""
        plain = [12.0, 11.0, 13.0, 12.5, 14.0, 13.0, 15.0]
        rules: dict[str, Any] = {
            "enter": {"gt": ["close", {"i": "sma", "n": 2}]}, "exit": {"lt": ["close", {"i": "sma", "n": 2}]},
            "size": {"mode": "pct_equity", "v": 0.9}, "stops": [{"type": "trail", "abs": 4}],
        }  # fmt: skip
        before = one(flat(*plain), **rules, run={"cash": 10_003.5, "lot": "fractional"})
        halved = [price / 2 if k >= 3 else price for k, price in enumerate(plain)]
        after = one(flat(*halved), splits=[("AAA", day(3), "2:1")], **rules | {"stops": [{"type": "trail", "abs": 4}]},
                    run={"cash": 10_003.5, "lot": "fractional"})  # fmt: skip
        assert len(before.fills) > 2
        assert after.equity == pytest.approx(before.equity, abs=2e-5)

    def test_a_waiting_order_is_restated(self) -> None:
        """25 shares decided before a 2:1 are 50 at the open after it; sold again as 50."""
        played = one(flat(10, 5, 5, 5), splits=[("AAA", day(1), "2:1")], exit=on(2), size=shares(25))
        assert played.short_fills == [(1, 50, 5.0), (3, -50, 5.0)]

    def test_a_waiting_order_below_one_new_share_is_gone(self) -> None:
        played = one(flat(10, 100, 100, 100), splits=[("AAA", day(1), "1:10")], size=shares(7))
        assert (played.fills, played.cell["counts"]) == ([], {"lapsed": 1})

    def test_working_levels_are_restated_before_any_price_of_the_new_basis(self) -> None:
        """The stop of 90 is 45 on the ex-date: an open of 50 is not below it, and a low of 44 is."""
        stops = [{"type": "stop", "pct": 0.1}, {"type": "target", "abs": 20}]
        bars: list[Row] = [*flat(100, 100), (50, 51, 46, 50), (50, 51, 44, 50)]
        played = one(bars, splits=[("AAA", day(2), "2:1")], stops=stops)
        assert played.short_fills == [(1, 10, 100.0), (3, -20, 45.0)]
        bars = [*flat(100, 100), (50, 61, 46, 50), *flat(50)]
        assert one(bars, splits=[("AAA", day(2), "2:1")], stops=stops).short_fills[1] == (2, -20, 60.0)

    def test_less_than_one_share_ends_the_trade(self) -> None:
        played = one(flat(100, 100, 1000, 1000), splits=[("AAA", day(2), "1:10")], size=shares(7))
        assert (played.exits[0].name, played.equity[-1]) == ("SPLIT", 10_000.0)
        assert played.full["trades"] == 1

    def test_a_short_pays_for_its_fraction(self) -> None:
        played = one(flat(100, 100, 66, 66), splits=[("AAA", day(2), "3:2")], size=shares(5), side="short",
                     run={"account": "reg_t"})  # fmt: skip
        assert [value for _, kind, value, _ in played.cash if kind == CashKind.SPLIT_CASH] == [-33.333333]
        assert played.equity[-1] == pytest.approx(10_000 + 500 - 33.333333 - 7 * 66)

    def test_signals_do_not_see_a_split_as_a_fall(self) -> None:
        """1.1: the price halves on paper; neither the average nor the change of it moves."""
        bars = flat(10, 10, 10, 5, 5, 5, 5)
        fall = {"any": [{"lt": ["close", {"i": "sma", "n": 3}]}, {"lt": [{"i": "roc", "n": 1}, 0]},
                        {"cross_dn": ["close", {"i": "ema", "n": 2}]}]}  # fmt: skip
        assert one(bars, splits=[("AAA", day(3), "2:1")], enter=fall).fills == []
        assert one(bars, enter=fall).fills[0][1] == 4

    def test_values_are_in_the_shares_of_the_day_they_are_read(self) -> None:
        """1.1: a rule on the printed price. After the 2:1 the average of three days is 5, not 10 and not 20."""
        bars = flat(10, 10, 10, 5, 5, 5, 5)
        splits = [("AAA", day(3), "2:1")]
        below = {"lt": [{"i": "sma", "n": 3}, 7]}
        assert one(bars, splits=splits, enter=below).short_fills == [(4, 10, 5.0)]
        assert one(bars, splits=splits, enter={"lt": ["close", 7]}).short_fills == [(4, 10, 5.0)]
        assert one(bars, splits=splits, enter={"lt": ["close_raw", 7]}).short_fills == [(4, 10, 5.0)]
        raw = {"lt": [{"i": "sma", "n": 3, "of": "close_raw"}, 7]}
        assert one(bars, splits=splits, enter=raw).short_fills == [(5, 10, 5.0)]

    @pytest.mark.parametrize("ratio", ["2:1", "3:1", "7:1", "3:2", "5:4", "1:10", "20:1"])
    @pytest.mark.parametrize("price", [10.01, 3.33, 70.07, 45.67, 9.99])
    def test_an_unchanged_price_is_equal_across_any_split(self, ratio: str, price: float) -> None:
        """Nothing moves, so nothing is above or below anything: prices are restated with a single rounding."""
        new, old = map(int, ratio.split(":"))
        before = round(price * 100) * new / (old * 100)
        one_bar, average = {"op": "lag", "a": ["close"], "n": 1}, {"i": "sma", "n": 3}
        moved = [{sign: ["close", other]} for sign in ("gt", "lt") for other in (one_bar, average)]
        moved += [{"gt": [{"i": "roc", "n": 1}, 0]}, {"lt": [{"i": "ret", "n": 2}, 0]}]
        moved += [{"gt": [{"i": "stddev", "n": 3}, 0]}, {"gt": ["close", {"i": "min", "n": 3, "of": "low"}]}]
        bars = flat(*[before] * 4, *[price] * 6)
        assert one(bars, splits=[("AAA", day(4), ratio)], enter={"any": moved}).fills == []

    def test_volume_is_restated_the_other_way(self) -> None:
        """1,000 old shares are 2,000 new ones: 2,000 on the ex-date is no surge, 2,100 is."""
        bars: list[Row] = [*flat(10, 10, 10), (5, 5, 5, 5, 2000), (5, 5, 5, 5, 2100), *flat(5, 5)]
        surge = {"gt": ["volume", {"i": "max", "n": 3, "of": {"op": "lag", "a": ["volume"], "n": 1}}]}
        assert one(bars, splits=[("AAA", day(3), "2:1")], enter=surge).short_fills == [(5, 10, 5.0)]

    def test_history_is_in_the_shares_of_the_run_whatever_splits_came_before(self) -> None:
        """Five sessions of history, with a split among them: the average at the first decision is 5."""
        store = world({"AAA": flat(10, 10, 10, 5, 5, 5, 5, 5)}, start=day(-5), splits=[("AAA", day(-2), "2:1")])
        enter = {"all": [{"between": [{"i": "sma", "n": 5}, 4.99, 5.01]}, on(0)]}
        assert play(spec(["AAA"], sleeve(enter=enter), sessions=3), store).short_fills == [(1, 10, 5.0)]


CHAINS = (("3:1", "1:3"), ("1:7", "3:1", "7:3"), ("7:3", "1:14"))
"""Splits on the days 3, 4 and 5. The product of the first two is 1."""
CASES = {
    f"C{n}T{thousandths}": (100 + Fraction(thousandths, 1000), chain)
    for n, chain in enumerate(CHAINS)
    for thousandths in (1, 2, 3, 85)
}
"""A price before each. Restated split by split, 1, 2 and 3 in the last digit end above, below and on the decimal."""


class TestChainsOfSplits:
    """Within one holding, or while an order waits: a level is the decimal that the frozen one is by the product of all
    ratios. Restated split by split, 95.095 is 95.094999999999 after 3:1 and 1:3, and no print meets it."""

    def played(self, side: int, bars: dict[str, list[Row]], **rules: Any) -> Played:
        """42 shares of each case."""
        splits = [(name, day(3 + n), ratio) for name in bars for n, ratio in enumerate(CASES[name][1])]
        made = sleeve(enter=on(0), size=shares(42), side="long" if side > 0 else "short", **rules)
        return play(spec(list(bars), made, account="reg_t", cash=1_000_000), world(bars, splits=splits))

    @pytest.mark.parametrize("side", [1, -1])
    @pytest.mark.parametrize(
        ("kind", "rule", "more"),
        [
            ("stop", {"abs": 5}, []), ("stop", {"pct": 0.05}, []), ("stop", "level", []), ("trail", {"abs": 5}, []),
            ("trail", {"pct": 0.05}, []), ("target", {"abs": 5}, []), ("target", {"pct": 0.05}, []),
            ("target", "level", []), ("target", {"r": 0.5}, [{"type": "stop", "abs": 10}]),
        ],
    )  # fmt: skip
    def test_a_touched_level_is_met(self, kind: str, rule: Any, more: list[Any], side: int) -> None:
        toward = side if kind == "target" else -side
        if rule == "level":
            rule = {"level": {"op": "add", "a": ["close", 5 * toward]}}
        bars: dict[str, list[Row]] = {}
        sold = {}
        for name, (entry, chain) in CASES.items():
            level = (entry + 5 * toward * (entry / 100 if "pct" in rule else 1)) / products(chain)[-1]
            # Prices of the holding stand back a little, and lift no trail.
            path = [float(round(entry * (100 - side) / 100 / part, 4)) for part in products(chain)]
            opened = float(level) if kind == "target" else path[-1]
            last = (opened, max(opened, float(level)), min(opened, float(level)), path[-1])
            bars[name] = [*flat(*[float(entry)] * 3, *path), last]
            sold[name] = (name, len(bars[name]) - 1, -side * int(42 * products(chain)[-1]), float(round(level, 12)))
        played = self.played(side, bars, stops=[{"type": kind, **rule}, *more])
        assert {kind.name for kind in played.exits} == {kind.upper()}
        assert {fill[0]: fill for fill in played.fills} == sold

    @pytest.mark.parametrize("side", [1, -1])
    def test_a_limit_that_waits_is_met(self, side: int) -> None:
        bars: dict[str, list[Row]] = {}
        bought = []
        for name, (price, chain) in CASES.items():
            limit = (price - 5 * side) / products(chain)[-1]
            path = [float(round(price / part, 4)) for part in products(chain)]
            bars[name] = flat(*[float(price)] * 3, *path, float(limit))
            lots = side * int(42 * products(chain)[-1])
            bought.append((name, len(bars[name]) - 1, lots, float(round(limit, 12))))
        limit = {"op": "sub", "a": ["close", 5 * side]}
        played = self.played(side, bars, order={"type": "limit", "limit": limit, "ttl": "9d"})
        assert sorted(played.fills) == sorted(bought)

    def test_an_average_entry(self) -> None:
        """3:1 and 1:3 between entry and addition: the average of 100.10 and 100.20 is the one without them."""
        add = {"max": 1, "when": on(4)}
        bars = flat(100.1, 100.1, 100.1, 33.37, 100.1, 100.2)
        chain = one(bars, splits=[("AAA", day(3), "3:1"), ("AAA", day(4), "1:3")], add=add)
        plain = one(flat(100.1, 100.1, 100.1, 100.1, 100.1, 100.2), add=add)
        assert chain.run.open_trades["entry_price"].tolist() == plain.run.open_trades["entry_price"].tolist()


class TestDistancesAcrossSplits:
    """domain.md 3.1, phase 1: what is ordered and held is restated, so a distance of 10 that was decided on shares of
    100 is one of 5 on those of 50; a scenario with the split is that without it, in other shares."""

    @pytest.mark.parametrize("order", [{"type": "market"}, {"type": "limit", "limit": 100, "ttl": "3d"}])
    @pytest.mark.parametrize("side", [1, -1])
    @pytest.mark.parametrize(
        ("stops", "price"),
        [
            ([{"type": "stop", "abs": 10}], 45), ([{"type": "trail", "abs": 10}], 45),
            ([{"type": "target", "abs": 10}], 55), ([{"type": "stop", "abs": 20}, {"type": "target", "r": 0.5}], 55),
        ],
    )  # fmt: skip
    def test_of_an_order_that_waits(self, stops: list[Any], price: float, side: int, order: dict[str, Any]) -> None:
        """Decided at 100, 2:1 before the fill at 50."""
        where = 50 + side * (price - 50)
        bars: list[Row] = [*flat(100, 50, 50), (50, max(50, where + 0.1), min(50, where - 0.1), 50), *flat(50)]
        for table in (bars, [bars[0], None, *bars[1:]]):  # also with a session without a bar, at the split
            if order["type"] == "limit" or table is bars:
                played = one(table, splits=[("AAA", day(1), "2:1")], stops=stops, order=order, run={"account": "reg_t"},
                             side="long" if side > 0 else "short")  # fmt: skip
                assert [fill[1:] for fill in played.short_fills] == [(20 * side, 50.0), (-20 * side, where)]

    @pytest.mark.parametrize("side", [1, -1])
    @pytest.mark.parametrize(
        ("stop", "price"),
        [({"type": "stop", "abs": 10}, 47), ({"type": "target", "abs": 20}, 62), ({"type": "trail", "abs": 14}, 47)],
    )
    def test_of_an_addition(self, stop: dict[str, Any], price: float, side: int) -> None:
        """10 at 100, 2:1, 20 more at 54: from 52 on average it is 5 down and 10 up; 7 from the peak, 54."""
        where = 50 + side * (price - 50)
        bars: list[Row] = [*flat(100, 100, 50, 50 + 4 * side), (52, max(52, where + 0.1), min(52, where - 0.1), 52)]
        add = {"max": 1, "when": on(2), "size": shares(20)}
        played = one(bars, splits=[("AAA", day(2), "2:1")], stops=[stop], add=add, side="long" if side > 0 else "short",
                     run={"account": "reg_t"})  # fmt: skip
        assert played.short_fills[1:] == [(3, 20 * side, 50.0 + 4 * side), (4, -40 * side, where)]

    def test_a_later_entry_counts_from_the_number_as_it_is_written(self) -> None:
        bars: list[Row] = [*flat(100, 100, 50, 50), (50, 50, 39, 45)]
        played = one(bars, splits=[("AAA", day(2), "2:1")], stops=[{"type": "stop", "abs": 10}], enter=on(2))
        assert played.short_fills == [(3, 10, 50.0), (4, -10, 40.0)]


def products(ratios: Sequence[str]) -> list[Fraction]:
    """New shares for one old share after each split."""
    return list(accumulate((Fraction(*map(int, ratio.split(":"))) for ratio in ratios), mul))


class TestDividends:
    def dividend(self, pay: str | None, amount: float = 0.5) -> Any:
        return [("AAA", day(2), amount, pay)]

    def test_held_over_the_ex_date_it_is_owed_then_paid_and_equity_is_unbroken(self) -> None:
        played = one(flat(10, 10, 9.5, 9.5, 9.5, 9.5), dividends=self.dividend(day(4)))
        assert played.cash == [(2, CashKind.DIVIDEND_EX, 0.0, 5.0), (4, CashKind.DIVIDEND_PAY, 5.0, -5.0)]
        assert played.equity == [10_000.0] * 6
        assert played.full["total_return"] == 0.0

    @pytest.mark.parametrize(("entry", "earned"), [(0, 5.0), (1, 0.0), (2, 0.0)])
    def test_bought_at_the_open_of_the_ex_date_earns_nothing(self, entry: int, earned: float) -> None:
        played = one(flat(*[10] * 6), dividends=self.dividend(day(4)), enter=on(entry))
        assert played.equity[-1] == 10_000 + earned

    def test_sold_at_the_open_of_the_ex_date_keeps_it(self) -> None:
        played = one(flat(*[10] * 6), dividends=self.dividend(day(4)), exit=on(1))
        assert played.short_fills[1] == (2, -10, 10.0)
        assert played.equity[-1] == 10_005.0
        assert played.run.trades["dividends_micro"].tolist() == [5_000_000]

    def test_a_short_pays_it(self) -> None:
        played = one(flat(*[10] * 6), dividends=self.dividend(day(4)), side="short", run={"account": "reg_t"})
        assert played.cash == [(2, CashKind.DIVIDEND_EX, 0.0, -5.0), (4, CashKind.DIVIDEND_PAY, -5.0, 5.0)]
        assert played.equity[-1] == 9_995.0

    def test_without_a_pay_date_it_is_paid_on_the_ex_date_and_counted(self) -> None:
        played = one(flat(*[10] * 6), dividends=self.dividend(None))
        assert [line[:2] for line in played.cash] == [(2, CashKind.DIVIDEND_EX), (2, CashKind.DIVIDEND_PAY)]
        assert played.cell["counts"] == {"pay_date_assumed": 1}

    def test_paid_after_the_end_it_stays_a_receivable(self) -> None:
        played = one(flat(*[10] * 6), dividends=self.dividend(day(30)))
        assert (played.equity[-1], [line[1] for line in played.cash]) == (10_005.0, [CashKind.DIVIDEND_EX])

    def test_money_that_is_owed_buys_nothing(self) -> None:
        """1,000 shares cost all cash. 1 a share is owed on session 2; what is sold on 3 at 10 buys 1,000 at 10, and
        only after the pay date 1,100."""
        bars = flat(*[10] * 12)
        size = {"mode": "pct_equity", "v": 1.0}
        played = one(bars, dividends=self.dividend(day(6), 1.0), enter=on(0, 3, 7), exit=on(2, 6), size=size)
        assert [lots for _, lots, _ in played.short_fills] == [1000, -1000, 1000, -1000, 1100]

    def test_split_and_dividend_of_one_day_are_in_the_new_shares(self) -> None:
        played = one(flat(10, 10, 4.75, 4.75), splits=[("AAA", day(2), "2:1")], dividends=self.dividend(day(3), 0.25))
        assert played.cash == [(2, CashKind.DIVIDEND_EX, 0.0, 5.0), (3, CashKind.DIVIDEND_PAY, 5.0, -5.0)]
        assert played.equity == [10_000.0] * 4

    def test_it_acts_where_the_instrument_does_not_print(self) -> None:
        played = one([*flat(10, 10), None, None, *flat(9.5)], dividends=self.dividend(day(3)))
        assert [line[0] for line in played.cash] == [2, 3]
        assert played.equity[-1] == 10_000.0

    def test_counted_once_by_total_return_and_never_by_price(self) -> None:
        """10 falls to 9.5 for a dividend of 0.5: close_tr has not moved, close has."""
        bars, dividends = flat(10, 10, 9.5, 9.5, 9.5), self.dividend(None)
        fell = {"lt": [{"i": "ret", "n": 1, "of": "close_tr"}, -0.0000001]}
        assert one(bars, dividends=dividends, enter=fell).fills == []
        assert one(bars, dividends=dividends, enter={"lt": [{"i": "ret", "n": 1}, 0]}).fills[0][1] == 3

    def test_a_dataset_without_dividends_says_so(self) -> None:
        assert "no_dividends" in one(flat(10, 10)).cell["assumptions"]
        assert "no_dividends" not in one(flat(*[10] * 4), dividends=self.dividend(None)).cell["assumptions"]


class TestSessions:
    def test_the_window_may_begin_and_end_on_any_day(self) -> None:
        """Saturday 2021-02-06 to Sunday 02-21: sessions 8th to 12th and 16th to 19th."""
        store = world({"AAA": flat(*range(10, 40))})
        document = spec(["AAA"], sleeve(enter=on(4)), start="2021-02-06", end="2021-02-21")
        played = play(document, store)
        assert len(played.equity) == 9
        assert played.short_fills == [(1, 10, 15.0)]

    def test_it_may_begin_inside_history_and_end_beyond_the_data(self) -> None:
        store = world({"AAA": flat(*range(10, 16))}, start=day(-3))
        played = play(spec(["AAA"], sleeve(enter={"gt": ["close", {"i": "sma", "n": 4}]}), sessions=6), store)
        assert played.short_fills == [(1, 10, 14.0)]
        assert played.equity == [10_000.0, 10_000.0, 10_010.0, 10_010.0, 10_010.0, 10_010.0]
        assert played.full["tim"] == pytest.approx(2 / 3)

    def test_an_instrument_may_be_listed_late(self) -> None:
        store = world({"AAA": flat(*[10] * 8), "NEW": [None, None, None, *flat(20, 21, 22, 23, 24)]})
        made = sleeve(enter={"gt": ["close", {"i": "sma", "n": 2}]})
        assert play(spec(["AAA", "NEW"], made), store).fills == [("NEW", 5, 10, 22.0)]

    def test_bars_are_stamped_with_their_session_not_with_midnight(self) -> None:
        """Decisions at 16:00 New York, fills at 09:30; an early close decides at 13:00 (2020-11-27)."""
        store = world({"AAA": flat(10, 10, 10)}, start="2020-11-25")
        document = spec(["AAA"], sleeve(enter=on(1, start="2020-11-25")), sessions=3, start="2020-11-25")
        played = play(document, store)
        friday, monday = (parse_date(text, "") * NS_PER_DAY for text in ("2020-11-27", "2020-11-30"))
        assert played.run.orders["ts"].tolist() == [friday + 18 * NS_PER_HOUR]
        assert played.run.fills["ts"].tolist() == [monday + 14 * NS_PER_HOUR + NS_PER_HOUR // 2]

    def test_a_crypto_day_ends_at_midnight_utc_where_the_next_one_opens(self) -> None:
        always = {"calendar_name": "24x7"}
        store = world({"BTC": flat(100, 110, 120, 130)}, instruments=[{"symbol": "BTC", "calendar": "24x7"}], **always)
        played = play(spec(["BTC"], sleeve(enter=on(0, **always)), sessions=4, calendar="24x7"), store)
        assert played.short_fills == [(1, 10, 110.0)]
        assert played.run.orders["ts"].tolist() == played.run.fills["ts"].tolist()
        assert played.run.fills["ts"].tolist() == [(parse_date(START, "") + 1) * NS_PER_DAY]
        assert len(played.equity) == 4

    def test_where_days_follow_without_a_pause_the_closing_bar_is_of_the_old_basis(self) -> None:
        """At midnight the day's bar closes and the ex-date opens: the stop is tested, the equity marked and the order
        made in old coins, then coins double. A stop of that day's bar comes before the ex-date: no dividend."""
        always = {"calendar_name": "24x7"}
        coins: dict[str, Any] = {"instruments": [{"symbol": "BTC", "calendar": "24x7"}], **always}
        stops = [{"type": "stop", "pct": 0.3}, {"type": "target", "pct": 0.3}]
        made = sleeve(enter=on(0, **always), exit=on(2, **always), stops=stops)
        document = spec(["BTC"], made, sessions=5, calendar="24x7")
        store = world({"BTC": flat(100, 100, 100, 50, 50)}, splits=[("BTC", day(3, **always), "2:1")], **coins)
        played = play(document, store)
        assert played.short_fills == [(1, 10, 100.0), (3, -20, 50.0)]
        assert played.equity == [10_000.0] * 5
        bars: list[Row] = [*flat(100, 100), (100, 100, 65, 100), *flat(100, 100)]
        store = world({"BTC": bars}, dividends=[("BTC", day(3, **always), 1.0, None)], **coins)
        played = play(document, store)
        assert (played.short_fills[1], played.cash, played.equity[-1]) == ((2, -10, 70.0), [], 9_700.0)

    @pytest.mark.parametrize("ttl", [1, 3])
    def test_the_session_under_way_does_not_count(self, ttl: int) -> None:
        """A run of London with 200 shares of New York on margin. The close there of session 2, 6.66, is known at the
        close of London on session 3, when New York has been open for two hours: the call waits for its next opening. A
        limit of ``ttl`` sessions that was decided in New York counts those after it."""
        store = world({"AAA": flat(10, 10, 6.66, 6, 5.75, 5.5, 5.25, 5)})
        put(store, {"VOD": flat(*[10] * 8)}, instruments=[{"symbol": "VOD", "calendar": "XLON"}], calendar_name="XLON")
        london: dict[str, Any] = {"account": "reg_t", "cash": 1_000, "calendar": "XLON", "end": day(7)}
        size = {"mode": "qty", "v": 200}
        played = play(spec(["AAA"], sleeve(enter=on(0), size=size), **london), store)
        assert played.short_fills == [(1, 200, 10.0), (4, -200, 5.75)]
        assert [kind.name for kind in played.exits] == ["FORCED"]
        order = {"type": "limit", "limit": 5.75, "ttl": f"{ttl}d"}
        played = play(spec(["AAA"], sleeve(enter=on(1), order=order), **london), store)
        assert played.short_fills == ([(4, 10, 5.75)] if ttl == 3 else [])

    def test_what_is_delisted_inside_the_run_is_refused_by_name(self) -> None:
        """Settling at the delisting value is not built; holding the last price for ever would be a wrong answer."""
        store = world(
            {"OLD": flat(10, 10, 10)}, instruments=[{"symbol": "OLD", "delisted": day(3), "delisting_value": 4.0}]
        )
        with pytest.raises(SpecError, match="OLD is delisted on 2021-02-05"):
            play(spec(["OLD"], sleeve(enter=on(0))), store)
        assert play(spec(["OLD"], sleeve(enter=on(0)), sessions=3), store).short_fills == [(1, 10, 10.0)]


class TestLookahead:
    """Obligation 3, also across splits whose ratio is no integer, dividends, late and missing bars."""

    def test_a_later_split_changes_no_bit_before_it(self) -> None:
        random = np.random.default_rng(5)
        prices = np.round(50 * np.cumprod(1 + random.normal(0, 0.02, 60)), 2).tolist()
        rules: dict[str, Any] = {
            "enter": {"cross_up": [{"i": "ema", "n": 3}, {"i": "sma", "n": 6}]},
            "exit": {"cross_dn": [{"i": "ema", "n": 3}, {"i": "sma", "n": 6}]},
            "size": {"mode": "pct_equity", "v": 1.0},
        }  # fmt: skip
        plain = one(flat(*prices), **rules)
        cut = [price * 5 / 7 if k >= 50 else price for k, price in enumerate(prices)]
        split = one(flat(*(round(price, 2) for price in cut)), splits=[("AAA", day(50), "7:5")], **rules)
        assert len(plain.fills) > 4
        assert split.run.equity[:50].tolist() == plain.run.equity[:50].tolist()
