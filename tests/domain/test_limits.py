"""Limit entries (domain.md 2.1, 2.2, 3.4), worked out by hand, on the public path."""

from __future__ import annotations

from typing import Any

import pytest

from farm.engine.ledger import OrderKind, Status
from farm.spec.parse import load_study
from farm.values.errors import SpecError
from tests.domain.support import Played, Row, day, flat, on, play, sleeve, spec, world


def one(
    bars: list[Row], limit: Any = 95, *, ttl: str = "1d", enter: Any = None, rules: Any = None, **run: Any
) -> Played:
    """Ten shares of AAA, decided at session 0, at a limit."""
    order = {"type": "limit", "limit": limit, "ttl": ttl}
    made = sleeve(enter=on(0) if enter is None else enter, order=order, **(rules or {}))
    return play(spec(["AAA"], made, sessions=len(bars), **run), world({"AAA": bars}))


class TestBuys:
    def test_an_opening_at_the_limit_or_below_fills_at_the_opening(self) -> None:
        assert one([*flat(100), (94, 99, 93, 98)]).short_fills == [(1, 10, 94.0)]
        assert one([*flat(100), (95, 99, 95, 98)]).short_fills == [(1, 10, 95.0)]

    def test_a_bar_through_the_limit_fills_at_the_limit_and_a_touch_does_not(self) -> None:
        assert one([*flat(100), (99, 99, 94.99, 98)]).short_fills == [(1, 10, 95.0)]
        touched = one([*flat(100), (99, 99, 95, 98)])
        assert (touched.short_fills, touched.cell["counts"]) == ([], {"lapsed": 1})

    def test_a_limit_does_not_slip_and_is_in_the_ledger(self) -> None:
        played = one([*flat(100), (99, 99, 90, 98)], exec={"slip_bps": 10})
        assert played.short_fills == [(1, 10, 95.0)]
        assert played.run.orders["limit_price"].tolist() == [95.0]
        assert played.run.orders["price"].tolist() == [100.0]
        assert played.full["fees_slippage"] == 0.0

    def test_a_bar_without_volume_fills_nothing(self) -> None:
        assert one([*flat(100), (90, 99, 80, 98, 0)]).fills == []

    def test_a_computed_limit_stands_on_the_grid(self) -> None:
        """2 % below 33.33 is 32.6634 in decimals; an opening at exactly that price meets it."""
        limit = {"op": "mul", "a": ["close", 0.98]}
        assert one([*flat(33.33), (32.6634, 33, 32.6634, 33)], limit).short_fills == [(1, 10, 32.6634)]

    def test_an_unknown_limit_is_not_ordered_and_counted(self) -> None:
        played = one([*flat(100, 100)], {"op": "lag", "a": ["close"], "n": 5})
        assert (len(played.run.orders), played.cell["counts"]["limit_unknown"]) == (0, 1)

    @pytest.mark.parametrize("limit", [0, -5, 1e-13, {"op": "sub", "a": ["close", 100]}])
    @pytest.mark.parametrize("side", ["long", "short"])
    def test_a_limit_that_is_no_price_is_not_ordered_and_counted(self, side: str, limit: Any) -> None:
        played = one(flat(100, 100), limit, rules={"side": side}, account="reg_t")
        assert (len(played.run.orders), played.cell["counts"]) == (0, {"limit_unknown": 1})

    def test_sizes_come_from_the_decision_not_from_the_limit(self) -> None:
        played = one([*flat(100), (99, 99, 40, 98)], 50, rules={"size": {"mode": "pct_equity", "v": 1.0}})
        assert played.short_fills == [(1, 100, 50.0)]


class TestRoom:
    @pytest.mark.parametrize("account", ["reg_t", "linear"])
    @pytest.mark.parametrize("close", [50, 91, 95, 150])
    def test_no_close_of_the_bar_decides_what_an_entry_inside_it_may_use(self, account: str, close: float) -> None:
        """AAA and BBB stand at 100 when the bars begin, of which 150 AAA are held with 10,000: equity 10,000, gross
        15,000. At a limit of 90 in BBB there is room for 2,500 of margin, 55 shares; 5,000 of gross, likewise."""
        sides: dict[str, Any] = {"cash": 10_000} | ({"max_gross": 2} if account == "linear" else {})
        bars: list[Row] = [*flat(100, 100), (100, 160, 40, close)]
        held = sleeve(id="a", universe="a", enter=on(0), size={"mode": "qty", "v": 150})
        enters = sleeve(id="b", universe="b", enter=on(1), size={"mode": "qty", "v": 500},
                        order={"type": "limit", "limit": 90})  # fmt: skip
        document = spec(["AAA"], held, enters, sessions=3, account=account, **sides)
        document["strategy"]["universes"] = [{"id": "a", "tickers": ["AAA"]}, {"id": "b", "tickers": ["BBB"]}]
        played = play(document, world({"AAA": bars, "BBB": bars}))
        assert played.fills == [("AAA", 1, 150, 100.0), ("BBB", 2, 55, 90.0)]


class TestTimes:
    @pytest.mark.parametrize(("ttl", "fills"), [("1d", []), ("2d", []), ("3d", [(3, 10, 95.0)])])
    def test_an_order_works_for_so_many_sessions(self, ttl: str, fills: list[Any]) -> None:
        played = one([*flat(100, 100, 100), (99, 99, 90, 98), *flat(98)], ttl=ttl)
        assert played.short_fills == fills
        assert played.cell["counts"].get("lapsed", 0) == (not fills)

    def test_while_it_works_further_signals_are_ignored_and_its_levels_frozen(self) -> None:
        """The limit is 90 % of the close of the decision, whatever comes; the order is one."""
        limit = {"op": "mul", "a": ["close", 0.9]}
        played = one([*flat(100, 80.5), (91, 92, 89, 91)], limit, ttl="5d", enter=on(0, 1))
        assert played.short_fills == [(1, 10, 80.5)]
        played = one([*flat(100), (95, 96, 94, 95), (91, 92, 89, 91)], limit, ttl="5d", enter=on(0, 1))
        assert (played.short_fills, len(played.run.orders)) == ([(2, 10, 90.0)], 1)

    def test_a_split_restates_the_limit(self) -> None:
        made = spec(["AAA"], sleeve(enter=on(0), order={"type": "limit", "limit": 90, "ttl": "5d"}), sessions=3)
        store = world({"AAA": [*flat(100), (50, 51, 49, 50), (46, 47, 44, 46)]}, splits=[("AAA", day(1), "2:1")])
        played = play(made, store)
        assert played.short_fills == [(2, 20, 45.0)]
        assert played.run.orders["limit_price"].tolist() == [90.0]  # as it was sent


class TestTheBarOfTheEntry:
    def test_who_enters_inside_a_bar_may_be_stopped_out_by_it(self) -> None:
        """The open and the high of the bar may have come before the entry: no gap, and no target."""
        stops = {"stops": [{"type": "stop", "pct": 0.1}, {"type": "target", "pct": 0.01}]}
        played = one([*flat(100), (99, 99, 85, 98), *flat(98)], rules=stops)
        assert (played.short_fills, played.exits) == ([(1, 10, 95.0), (1, -10, 85.5)], [OrderKind.STOP])
        assert played.run.trades["bars"].tolist() == [1]

    def test_a_target_waits_for_the_next_bar(self) -> None:
        stops = {"stops": [{"type": "target", "pct": 0.02}]}
        played = one([*flat(100), (99, 99, 94, 98), *flat(98)], rules=stops)
        assert (played.short_fills, played.exits) == ([(1, 10, 95.0), (2, -10, 98.0)], [OrderKind.TARGET])

    def test_a_trail_begins_at_the_limit_and_is_not_lifted_by_that_bar(self) -> None:
        stops = {"stops": [{"type": "trail", "pct": 0.1}]}
        bars: list[Row] = [*flat(100), (120, 130, 94, 98), (98, 98, 90, 91), (91, 91, 80, 82)]
        played = one(bars, rules=stops)
        assert played.short_fills == [(1, 10, 95.0), (3, -10, 88.2)]  # 10 % below the open of the next bar, 98

    def test_filled_at_the_open_stop_and_target_work_at_once(self) -> None:
        stops = {"stops": [{"type": "target", "pct": 0.02}]}
        played = one([*flat(100), (94, 99, 93, 98)], rules=stops)
        assert played.short_fills == [(1, 10, 94.0), (1, -10, 95.88)]

    def test_time_in_the_market_counts_the_bar(self) -> None:
        played = one([*flat(100), (99, 99, 90, 98), *flat(98)], rules={"stops": [{"type": "time", "bars": 1}]})
        assert played.short_fills == [(1, 10, 95.0), (2, -10, 98.0)]


class TestShorts:
    def test_a_short_sells_at_the_limit_or_above(self) -> None:
        rules = {"side": "short"}
        assert one([*flat(100), (106, 107, 101, 102)], 105, rules=rules, account="reg_t").short_fills == [
            (1, -10, 106.0)
        ]
        assert one([*flat(100), (101, 106, 100, 102)], 105, rules=rules, account="reg_t").short_fills == [
            (1, -10, 105.0)
        ]
        assert one([*flat(100), (101, 105, 100, 102)], 105, rules=rules, account="reg_t").fills == []

    def test_a_reversal_is_one_order_at_the_limit_and_an_exit_takes_its_place(self) -> None:
        """The old position stays until the limit is met; an exit cancels the reversal that waits."""
        rules = {"side": "both", "enter_short": on(2), "size": {"mode": "qty", "v": 10}}
        bars: list[Row] = [*flat(100), (99, 99, 94, 98), *flat(98), (97, 97, 94, 96), *flat(96)]
        met = one(bars, rules=rules, ttl="9d", account="reg_t")
        assert met.short_fills == [(1, 10, 95.0), (3, -10, 97.0), (3, -10, 97.0)]  # 97 is above the limit of a seller
        far = {"op": "if", "a": [on(2), 120, 95]}
        waits = one(bars, far, rules=rules | {"exit": on(3)}, ttl="9d", account="reg_t")
        assert waits.short_fills == [(1, 10, 95.0), (4, -10, 96.0)]
        assert [Status(int(one)) for one in waits.run.orders["status"]] == [
            Status.FILLED, Status.CANCELLED, Status.FILLED,
        ]  # fmt: skip
        assert waits.cell["counts"]["cancelled"] == 1

    def test_a_stop_leaves_the_entry_of_a_waiting_reversal(self) -> None:
        rules = {"side": "both", "enter_short": on(2), "stops": [{"type": "stop", "pct": 0.1}]}
        far = {"op": "if", "a": [on(2), 99, 95]}
        bars: list[Row] = [*flat(100), (99, 99, 94, 98), *flat(95), (95, 95, 80, 85), (98, 100, 97, 98)]
        played = one(bars, far, rules=rules, ttl="9d", account="reg_t")
        assert played.short_fills == [(1, 10, 95.0), (3, -10, 85.5), (4, -10, 99.0)]
        assert played.exits == [OrderKind.STOP]


class TestSpec:
    @pytest.mark.parametrize(
        ("order", "place", "message"),
        [
            ({"type": "limit"}, "order.limit", "required"),
            ({"type": "market", "limit": 5}, "order.limit", "takes no limit"),
            ({"type": "limit", "limit": 5, "ttl": "3"}, "order.ttl", "not a number of sessions"),
            ({"type": "limit", "limit": 5, "ttl": "0d"}, "order.ttl", "not a number of sessions"),
            ({"type": "stop", "stop": 5}, "order", "not built"),
            ({"type": "limit", "limit": {"gt": [1, 2]}}, "order.limit", "numeric|number|condition|expression"),
        ],
    )
    def test_what_is_wrong_is_named(self, order: Any, place: str, message: str) -> None:
        with pytest.raises(SpecError, match=message) as caught:
            load_study(spec(["AAA"], sleeve(order=order)))
        assert caught.value.place.startswith(f"strategy.sleeves[0].{place}")

    def test_a_market_order_is_the_default_and_hashes_alike(self) -> None:
        plain = play(spec(["AAA"], sleeve(enter=on(0))), store := world({"AAA": flat(1, 2, 3)}))
        said = play(spec(["AAA"], sleeve(enter=on(0), order={"type": "market"})), store)
        assert plain.cell["key"] == said.cell["key"]
        assert plain.trial["fingerprint"] == said.trial["fingerprint"]
