"""domain.md 2.2 by hand: what a rule does with its signals, positions and the choice between instruments."""

from __future__ import annotations

from typing import Any

import pytest

from farm.engine.ledger import OrderKind
from farm.store.base import Store
from tests.domain.support import Played, Row, day, flat, on, play, sleeve, spec, world


def one(bars: list[Row], run: Any = None, **rules: Any) -> Played:
    """Ten shares of AAA."""
    return play(spec(["AAA"], sleeve(**rules), sessions=len(bars), **(run or {})), world({"AAA": bars}))


MARGIN = {"account": "reg_t"}


class TestSignals:
    def test_exit_and_enter_together_is_exit(self) -> None:
        played = one(flat(10, 11, 12, 13, 14), enter=on(0, 2), exit=on(2))
        assert played.short_fills == [(1, 10, 11.0), (3, -10, 13.0)]

    def test_exit_is_looked_at_only_while_holding(self) -> None:
        assert one(flat(10, 11, 12), enter=on(0), exit=on(0)).short_fills == [(1, 10, 11.0)]

    def test_a_bar_that_closes_by_signal_opens_none_but_the_next_one_may(self) -> None:
        played = one(flat(10, 11, 12, 13, 14, 15), enter=on(0, 2, 3), exit=on(2))
        assert played.short_fills == [(1, 10, 11.0), (3, -10, 13.0), (4, 10, 14.0)]

    def test_a_reversal_is_one_order_for_the_difference(self) -> None:
        played = one(
            flat(100, 100, 110, 105, 100), side="both", enter=on(0), enter_short=on(1), exit_short=on(3), run=MARGIN
        )
        assert played.short_fills == [(1, 10, 100.0), (2, -10, 110.0), (2, -10, 110.0), (4, 10, 100.0)]
        assert played.run.orders["lots"].tolist() == [10, 20, 10]
        assert played.equity[-1] == 10_200.0
        assert played.exits == [OrderKind.REVERSE, OrderKind.EXIT]
        assert (played.full["orders"], played.full["fills"], played.full["trades"]) == (3, 4, 2)

    def test_a_reversal_pays_one_commission(self) -> None:
        """Minimum 3 per order, not per side of zero: 3 + 3; the two trades share the second one."""
        played = one(
            flat(100, 100, 100, 100), side="both", enter=on(0), enter_short=on(1), run=MARGIN | {"costs": {"min": 3}}
        )
        assert played.full["fees"] == 6.0
        assert played.run.trades["pnl_micro"].tolist() == [-4_500_000]

    def test_a_stop_out_may_enter_again_at_the_next_open(self) -> None:
        bars: list[Row] = [*flat(10), (10, 10, 8, 9), *flat(9, 9, 9, 9)]
        stops = [{"type": "stop", "pct": 0.1}]
        again = one(bars, enter=on(0, 1), stops=stops)
        assert again.short_fills == [(1, 10, 10.0), (1, -10, 9.0), (2, 10, 9.0)]

    @pytest.mark.parametrize(("cooldown", "back"), [(1, 3), (2, 4), (3, 5)])
    def test_a_cooldown_counts_bars_from_the_one_that_closed(self, cooldown: int, back: int) -> None:
        bars: list[Row] = [*flat(10), (10, 10, 8, 9), *flat(9, 9, 9, 9)]
        played = one(bars, enter=on(0, 1, 2, 3, 4), stops=[{"type": "stop", "pct": 0.1}], cooldown_bars=cooldown)
        assert played.short_fills[:3] == [(1, 10, 10.0), (1, -10, 9.0), (back, 10, 9.0)]

    def test_while_an_entry_works_further_signals_are_ignored(self) -> None:
        """Session 1 does not print; the signal of session 0 lapses, and only a new one orders again."""
        played = one([*flat(10), (10, 10, 10, 10, 0), *flat(10, 10)], enter=on(0))
        assert (played.fills, played.full["orders"]) == ([], 1)

    def test_unknown_is_not_false(self) -> None:
        """``not (rsi > 30)`` makes no trade before its inputs are known: the fifteenth bar at the earliest."""
        bars = flat(*(100 - k for k in range(20)))
        played = one(bars, enter={"not": {"gt": [{"i": "rsi", "n": 14}, 30]}})
        assert played.short_fills == [(15, 10, 85.0)]

    def test_for_needs_known_bars_and_any_needs_one(self) -> None:
        bars = flat(*range(10, 18))
        young = {"gt": ["close", {"i": "sma", "n": 3}]}  # known from bar 2 on
        assert one(bars, enter={"for": [2, young]}).short_fills == [(4, 10, 14.0)]
        assert one(bars, enter={"any": [young, {"gt": ["close", 10.5]}]}).short_fills == [(2, 10, 12.0)]
        assert one(bars, enter={"all": [young, {"gt": ["close", 10.5]}]}).short_fills == [(3, 10, 13.0)]

    def test_division_by_zero_is_unknown_and_so_is_its_negation(self) -> None:
        broken = {"gt": [{"op": "div", "a": ["close", {"op": "sub", "a": ["close", "open"]}]}, 0]}
        for condition in (broken, {"not": broken}):
            assert one(flat(10, 11, 12, 13), enter=condition).fills == []

    @pytest.mark.parametrize("previous", [9.0, 10.0])
    def test_a_cross_comes_from_at_or_below(self, previous: float) -> None:
        bars = flat(8, previous, 11, 12, 13)
        assert one(bars, enter={"cross_up": ["close", 10]}).short_fills == [(3, 10, 12.0)]
        assert one(flat(12, 10, 11, 12), enter={"cross_dn": ["close", 10.5]}).short_fills == [(2, 10, 11.0)]


class TestChoice:
    def store(self, **more: Any) -> Store:
        bars = {
            "CCC": flat(10, 11, 12, 13, 14, 15),
            "AAA": flat(10, 11, 12, 13, 14, 15),
            "BBB": flat(10, 11, 12, 13, 14, 15),
        }
        return world(bars | more)

    def test_ties_go_to_the_lower_id_and_the_order_of_tickers_does_not_matter(self) -> None:
        for tickers in (["CCC", "AAA", "BBB"], ["AAA", "BBB", "CCC"]):
            played = play(spec(tickers, sleeve(enter=on(0), max_positions=2, prefer="close")), self.store())
            assert played.fills == [("AAA", 1, 10, 11.0), ("BBB", 1, 10, 11.0)]

    def test_the_better_value_wins(self) -> None:
        store = self.store(CCC=flat(12, 13, 14, 15, 16, 17))
        played = play(spec(["AAA", "BBB", "CCC"], sleeve(enter=on(0), max_positions=2, prefer="close")), store)
        assert played.fills == [("AAA", 1, 10, 11.0), ("CCC", 1, 10, 13.0)]

    def test_unknowns_are_no_candidates(self) -> None:
        store = self.store(AAA=[None, *flat(11, 12, 13, 14, 15)])
        document = spec(["AAA", "BBB"], sleeve(enter=on(2), max_positions=2, prefer={"i": "roc", "n": 2}))
        played = play(document, store)
        assert played.fills == [("BBB", 3, 10, 13.0)]
        assert played.cell["counts"] == {
            "prefer_unknown": 1, "sessions_before_first_bar": 1, "sessions_after_last_bar": 4,
        }  # fmt: skip

    def test_a_closing_position_makes_room_at_the_same_open(self) -> None:
        store = world({"AAA": flat(10, 10, 10, 10, 10), "BBB": flat(20, 20, 20, 20, 20)})
        first_a = {"all": [{"lt": ["close", 11]}, on(0)]}
        then_b = {"all": [{"gt": ["close", 11]}, on(1)]}
        made = sleeve(enter={"any": [first_a, then_b]}, exit=on(1), max_positions=1)
        played = play(spec(["AAA", "BBB"], made, sessions=5), store)
        assert played.fills == [("AAA", 1, 10, 10.0), ("AAA", 2, -10, 10.0), ("BBB", 2, 10, 20.0)]

    def test_no_room_where_the_exit_did_not_fill(self) -> None:
        store = world({"AAA": [*flat(10, 10), (10, 10, 10, 10, 0), *flat(10, 10)], "BBB": flat(20, 20, 20, 20, 20)})
        first_a = {"all": [{"lt": ["close", 11]}, on(0)]}
        then_b = {"all": [{"gt": ["close", 11]}, on(1)]}
        made = sleeve(enter={"any": [first_a, then_b]}, exit=on(1), max_positions=1)
        played = play(spec(["AAA", "BBB"], made, sessions=5), store)
        assert played.fills == [("AAA", 1, 10, 10.0)]
        assert played.cell["counts"] == {"lapsed": 1, "lapsed_no_volume": 1, "no_place": 1}


class TestOtherInstruments:
    def test_a_fixed_instrument_is_joined_as_of_the_close(self) -> None:
        """SPY closes above 20 on session 1; AAA is bought at its next open."""
        store = world({"AAA": flat(10, 11, 12, 13), "SPY": flat(20, 21, 21, 21)})
        played = play(spec(["AAA"], sleeve(enter={"gt": [{"f": "close", "sym": "SPY"}, 20]}), sessions=4), store)
        assert played.fills == [("AAA", 2, 10, 12.0)]

    def test_it_may_belong_to_the_universe_of_an_each_study(self) -> None:
        store = world({"AAA": flat(10, 11, 12, 13), "SPY": flat(20, 21, 22, 23)})
        document = spec(["AAA", "SPY"], sleeve(enter={"gt": [{"f": "close", "sym": "SPY"}, 20]}), sessions=4,
                        study={"each": {"instrument": "u"}})  # fmt: skip
        assert play(document, store, position=0).fills == [("AAA", 2, 10, 12.0)]
        assert play(document, store, position=1).fills == [("SPY", 2, 10, 22.0)]

    @pytest.mark.parametrize("gap", [4, 5, 6])
    def test_past_five_sessions_it_is_unknown(self, gap: int) -> None:
        """SPY prints last on session 0. On session ``gap`` it is ``gap`` sessions old: unknown past five."""
        store = world({"AAA": flat(*[10] * 10), "SPY": [*flat(20), *[None] * 8, *flat(20)]})
        enter = {"all": [{"gt": [{"f": "close", "sym": "SPY"}, 10]}, on(gap)]}
        played = play(spec(["AAA"], sleeve(enter=enter), sessions=10), store)
        assert len(played.fills) == (1 if gap <= 5 else 0)

    @pytest.mark.parametrize(("last", "fills"), [(5, 1), (4, 0)])
    def test_nor_are_those_before_the_run(self, last: int, fills: int) -> None:
        """The run begins on session 10 with a bar of session ``last``, five or six sessions old across that holiday."""
        store = world({"AAA": flat(*[10] * 15), "SPY": [*flat(*[20] * (last + 1)), *[None] * 9, *flat(20)]})
        enter = {"all": [{"gt": [{"f": "close", "sym": "SPY"}, 10]}, on(10)]}
        assert len(play(spec(["AAA"], sleeve(enter=enter), start=day(10), end=day(13)), store).fills) == fills

    def test_holidays_are_no_sessions(self) -> None:
        """Between session 8 (Friday 12th) and 9 (Tuesday 16th) lies Presidents' Day."""
        assert (day(8), day(9)) == ("2021-02-12", "2021-02-16")
        store = world({"AAA": flat(*[10] * 15), "SPY": [*flat(*[20] * 6), *[None] * 8, *flat(20)]})
        enter = {"all": [{"gt": [{"f": "close", "sym": "SPY"}, 10]}, on(10)]}
        assert len(play(spec(["AAA"], sleeve(enter=enter), sessions=15), store).fills) == 1
