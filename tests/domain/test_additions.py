"""Additions to a position (domain.md 2.1 `add`), worked out by hand, on the public path."""

from __future__ import annotations

from typing import Any

import pytest

from farm.engine.ledger import OrderKind, Status
from farm.spec.parse import load_study
from farm.values.errors import SpecError
from tests.domain.support import Played, Row, day, flat, on, play, sleeve, spec, world


def one(bars: list[Row], add: Any, *, rules: Any = None, splits: Any = (), **run: Any) -> Played:
    """Ten shares of AAA, decided at session 0, and what is added."""
    made = sleeve(enter=on(0), add=add, **(rules or {}))
    return play(spec(["AAA"], made, sessions=len(bars), **run), world({"AAA": bars}, splits=splits))


class TestOrders:
    def test_each_addition_is_an_order_of_its_own_up_to_the_most(self) -> None:
        played = one(flat(10, 11, 12, 13, 14, 15), {"max": 2, "when": True})
        assert played.short_fills == [(1, 10, 11.0), (2, 10, 12.0), (3, 10, 13.0)]
        assert played.run.orders["kind"].tolist() == [OrderKind.ENTER, OrderKind.ADD, OrderKind.ADD]
        assert played.run.fills["opens"].tolist() == [1, 1, 1]

    def test_nothing_is_added_while_flat_nor_with_an_unknown_condition(self) -> None:
        late = {"gt": [{"op": "lag", "a": ["close"], "n": 4}, 0]}
        assert one(flat(10, 11, 12, 13), {"max": 2, "when": late}).short_fills == [(1, 10, 11.0)]
        assert one(flat(10, 11, 12), {"max": 2, "when": on(0)}).short_fills == [(1, 10, 11.0)]

    def test_an_exit_wins_over_an_addition(self) -> None:
        played = one(flat(10, 11, 12, 13), {"max": 2, "when": on(1)}, rules={"exit": on(1)})
        assert played.short_fills == [(1, 10, 11.0), (2, -10, 12.0)]

    def test_additions_have_a_size_of_their_own_and_share_what_money_there_is(self) -> None:
        add = {"max": 9, "when": on(1), "size": {"mode": "notional", "v": 60}}
        assert one(flat(10, 11, 12), add).short_fills == [(1, 10, 11.0), (2, 5, 12.0)]
        rich = {"max": 9, "when": on(1), "size": {"mode": "qty", "v": 10_000}}
        played = one(flat(10, 10, 10), rich)
        assert played.short_fills == [(1, 10, 10.0), (2, 990, 10.0)]
        assert played.cell["counts"]["scaled"] == 1

    def test_the_count_begins_anew_with_each_position(self) -> None:
        rules = {"enter": on(0, 3), "exit": on(2)}
        made = sleeve(**rules, add={"max": 1, "when": on(1, 4)})
        played = play(spec(["AAA"], made, sessions=6), world({"AAA": flat(10, 10, 10, 10, 10, 10)}))
        assert [lots for _, lots, _ in played.short_fills] == [10, 10, -20, 10, 10]

    def test_a_limit_is_the_additions_too_and_an_exit_cancels_one_that_waits(self) -> None:
        rules = {"order": {"type": "limit", "limit": {"op": "sub", "a": ["close", 1]}, "ttl": "9d"}, "exit": on(3)}
        bars: list[Row] = [*flat(10), (10, 10, 8.5, 10), *flat(10, 10, 10)]
        played = one(bars, {"max": 1, "when": on(1)}, rules=rules)
        assert played.short_fills == [(1, 10, 9.0), (4, -10, 10.0)]
        assert [Status(int(one)).name for one in played.run.orders["status"]] == ["FILLED", "CANCELLED", "FILLED"]

    def test_shorts_are_added_to(self) -> None:
        rules = {"side": "short"}
        played = one(flat(10, 11, 12), {"max": 1, "when": on(1)}, rules=rules, account="reg_t")
        assert played.short_fills == [(1, -10, 11.0), (2, -10, 12.0)]


class TestTheTrade:
    def test_it_is_one_episode_at_the_average_entry(self) -> None:
        played = one(flat(10, 10, 13, 14, 15), {"max": 1, "when": on(1)}, rules={"exit": on(3)}, costs={"per_order": 1})
        [trade] = played.run.trades
        assert (int(trade["lots"]), float(trade["entry_price"]), float(trade["exit_price"])) == (20, 11.5, 15.0)
        assert int(trade["entry_notional_micro"]) == 230_000_000
        assert (int(trade["pnl_micro"]), int(trade["fees_micro"])) == (67_000_000, 3_000_000)
        assert (int(trade["entry_session"]), int(trade["bars"])) == (1, 4)
        assert (played.full["trades"], played.full["orders"]) == (1, 3)

    def test_a_split_between_entry_and_addition_restates_the_entry(self) -> None:
        bars = flat(20, 20, 10, 13, 14)
        played = one(bars, {"max": 1, "when": on(2)}, splits=[("AAA", day(2), "2:1")])
        assert played.short_fills == [(1, 10, 20.0), (3, 10, 13.0)]
        [trade] = played.run.open_trades
        assert (int(trade["lots"]), float(trade["entry_price"])) == (30, 11.0)
        assert played.equity[-1] == 10_000 - 200 - 130 + 30 * 14

    def test_an_addition_of_which_a_split_leaves_no_share_lapses(self) -> None:
        """Of 25 shares one for ten leaves 2 and half a share in cash; of the 5 that were to come it leaves none."""
        add = {"max": 2, "when": on(1, 3), "size": {"mode": "qty", "v": 5}}
        rules = {"size": {"mode": "qty", "v": 25}}
        played = one(flat(10, 10, 100, 100, 100), add, rules=rules, splits=[("AAA", day(2), "1:10")])
        assert played.short_fills == [(1, 25, 10.0), (4, 5, 100.0)]
        assert [Status(int(one)).name for one in played.run.orders["status"]] == ["FILLED", "LAPSED", "FILLED"]
        assert played.cell["counts"]["lapsed"] == 1


class TestGuards:
    def test_percentages_and_distances_count_from_the_average_entry(self) -> None:
        """10 at 100 and 10 at 110: 10 % below 105 is 94.5."""
        bars: list[Row] = [*flat(100, 100), (110, 110, 95, 100), (100, 100, 94, 95)]
        played = one(bars, {"max": 1, "when": on(1)}, rules={"stops": [{"type": "stop", "pct": 0.1}]})
        assert (played.short_fills[-1], played.exits) == ((3, -20, 94.5), [OrderKind.STOP])

    def test_a_trail_keeps_its_peak_and_multiples_of_the_risk_what_the_entry_set(self) -> None:
        bars: list[Row] = [*flat(100), (100, 130, 100, 100), (100, 100, 105, 105), (105, 105, 90, 95)]
        bars[2] = (120, 120, 119, 120)
        trail = one(bars, {"max": 1, "when": on(1)}, rules={"stops": [{"type": "trail", "pct": 0.1}]})
        assert trail.short_fills[-1] == (3, -20, 105.0)  # 117 was the level; the bar opens below it
        rules = {"stops": [{"type": "stop", "pct": 0.1}, {"type": "target", "r": 2}]}
        bars = [*flat(100, 100), (110, 119, 110, 115), (115, 121, 115, 120)]
        assert one(bars, {"max": 1, "when": on(1)}, rules=rules).short_fills[-1] == (3, -20, 120.0)

    @pytest.mark.parametrize(("begin", "price"), [("entry", 90.0), ("last_fill", 99.0)])
    def test_a_level_is_frozen_at_the_entry_or_at_the_last_fill(self, begin: str, price: float) -> None:
        level = {"op": "mul", "a": ["close", 0.9]}
        bars: list[Row] = [*flat(100), (100, 110, 100, 110), *flat(110), (110, 110, 85, 95)]
        rules = {"stops": [{"type": "stop", "level": level, "from": begin}]}
        assert one(bars, {"max": 1, "when": on(1)}, rules=rules).short_fills[-1] == (3, -20, price)

    def test_an_addition_inside_a_bar_moves_the_levels_for_the_bars_that_follow(self) -> None:
        """The bar that adds at 109 goes on to 100: its low was not tested against the new level, 108, and is over."""
        below = {name: {"op": "sub", "a": ["close", by]} for name, by in (("limit", 1), ("level", 2))}
        rules = {
            "order": {"type": "limit", "limit": below["limit"]},
            "stops": [{"type": "stop", "level": below["level"], "from": "last_fill"}],
        }
        bars: list[Row] = [*flat(100), (100, 110, 98.5, 110), (110, 110, 100, 109), (109, 109, 105, 105)]
        played = one(bars, {"max": 1, "when": on(1)}, rules=rules)
        assert played.short_fills == [(1, 10, 99.0), (2, 10, 109.0), (3, -20, 108.0)]


@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        ({"add": {"when": True}}, "add.max", "required"),
        ({"add": {"max": 0, "when": True}}, "add.max", ""),
        ({"add": {"max": 1, "when": 5}}, "add.when", ""),
        ({"add": {"max": 1, "when": True, "size": {"mode": "kelly"}}}, "add.size.mode", "not built"),
        ({"stops": [{"type": "stop", "pct": 0.1, "from": "entry"}]}, "stops[0].from", "frozen"),
        ({"stops": [{"type": "stop", "level": 5, "from": "peak"}]}, "stops[0].from", ""),
    ],
)
def test_what_is_wrong_is_named(change: Any, place: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_study(spec(["AAA"], sleeve(**change)))
    assert caught.value.place == f"strategy.sleeves[0].{place}"
    assert message in str(caught.value)
