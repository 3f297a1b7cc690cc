"""domain.md 2.2, 2.3 by hand: how much is bought, with which money, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.domain.support import Played, Row, flat, on, play, sleeve, spec, world


def one(bars: list[Row], size: dict[str, Any], instruments: Any = (), rules: Any = None, **run: Any) -> Played:
    """One entry on session 0."""
    store = world({"AAA": bars}, instruments=instruments)
    made = sleeve(enter=on(0), size=size, **(rules or {}))
    return play(spec(["AAA"], made, sessions=len(bars), **run), store)


FULL = {"mode": "pct_equity", "v": 1.0}


class TestQuantity:
    def test_from_the_decision_not_from_the_fill(self) -> None:
        """1.1: sized on the close of 30 (333 shares), not on the open of 20, nor on equity with the trade in it."""
        assert one(flat(30, 20, 20), FULL).short_fills == [(1, 333, 20.0)]

    @pytest.mark.parametrize(
        ("size", "lots"),
        [
            ({"mode": "qty", "v": 7}, 7),
            ({"mode": "qty", "v": 7.9}, 7),
            ({"mode": "notional", "v": 1000}, 33),
            ({"mode": "pct_equity", "v": 0.5}, 166),
            ({"mode": "equal"}, 333),
        ],
    )
    def test_floors_toward_zero(self, size: dict[str, Any], lots: int) -> None:
        assert one(flat(30, 30, 30), size).short_fills == [(1, lots, 30.0)]

    @pytest.mark.parametrize(
        ("size", "price", "cash", "lots"),
        [
            ({"mode": "notional", "v": 18_862.92}, 6.04, 20_000, 3123),
            ({"mode": "notional", "v": 18_862.91}, 6.04, 20_000, 3122),
            ({"mode": "pct_equity", "v": 0.57}, 57.0, 100, 1),
            ({"mode": "pct_equity", "v": 0.57}, 57.01, 100, 0),
            ({"mode": "pct_equity", "v": 0.55}, 232.76, 99_028.8, 234),
            ({"mode": "equal"}, 74.497, 74_497.0, 1000),
        ],
    )
    def test_what_is_paid_for_to_the_cent_is_bought(
        self, size: dict[str, Any], price: float, cash: float, lots: int
    ) -> None:
        """18,862.92 / 6.04 is 3,123 exactly, although the quotient of the floats is a little less."""
        played = one(flat(price, price, price), size, cash=cash)
        assert played.run.fills["lots"].tolist() == ([lots] if lots else [])

    def test_the_reserve_counts_to_the_cent_too(self) -> None:
        """0.9 x 20,958.8 is 18,862.92."""
        played = one(flat(6.04, 6.04, 6.04), FULL, cash=20_958.8, exec={"reserve": {"pct": 0.1, "fees": True}})
        assert played.run.fills["lots"].tolist() == [3123]

    def test_fractional_lots_are_millionths(self) -> None:
        """10,000 / 30 = 333.333333 shares cost 9,999.99999."""
        played = one(flat(30, 30, 60), FULL, lot="fractional")
        assert played.run.fills["lots"].tolist() == [333_333_333]
        assert played.run.fills["amount_micro"].tolist() == [-9_999_999_990]
        assert played.run.equity.tolist()[-1] == 10_000_000_000 + 9_999_999_990

    @pytest.mark.parametrize(("qty", "micro"), [(0.29, 290_000), (0.0000019, 1), (1.1, 1_100_000)])
    def test_fractional_quantities_are_the_decimals_that_were_written(self, qty: float, micro: int) -> None:
        played = one(flat(30, 30, 60), {"mode": "qty", "v": qty}, lot="fractional")
        assert played.run.fills["lots"].tolist() == [micro]

    @pytest.mark.parametrize(("lot", "lots"), [(100, 3), (0.25, 1333), (0.001, 333_333)])
    def test_the_lot_is_the_instruments(self, lot: float, lots: int) -> None:
        played = one(flat(30, 30, 30), FULL, instruments=[{"symbol": "AAA", "lot": lot}])
        assert played.run.fills["lots"].tolist() == [lots]
        assert played.run.fills["amount_micro"].tolist() == [-round(lots * lot * 30e6)]

    def test_a_size_below_one_lot_orders_nothing(self) -> None:
        played = one(flat(30, 30, 30), {"mode": "notional", "v": 29})
        assert (played.fills, played.cell["counts"]) == ([], {"too_small": 1})

    def test_alloc_is_a_share_of_the_account_and_sleeves_do_not_net(self) -> None:
        store = world({"AAA": flat(10, 10, 10, 10)})
        long = sleeve(id="a", enter=on(0), size=FULL, alloc=0.25)
        short = sleeve(id="b", side="short", enter=on(0), size=FULL)
        played = play(spec(["AAA"], long, short, sessions=4, account="reg_t"), store)
        assert played.short_fills == [(1, 250, 10.0), (1, -500, 10.0)]
        assert played.equity[-1] == 10_000.0

    def test_equal_divides_by_max_positions(self) -> None:
        store = world({name: flat(10, 10, 10, 10) for name in ("AAA", "BBB", "CCC", "DDD")})
        document = spec(
            ["AAA", "BBB", "CCC", "DDD"], sleeve(enter=on(0), size={"mode": "equal"}, max_positions=3), sessions=4
        )
        assert play(document, store).fills == [("AAA", 1, 333, 10.0), ("BBB", 1, 333, 10.0), ("CCC", 1, 333, 10.0)]

    def test_the_reserve_holds_back_a_share_and_the_fee(self) -> None:
        """q x 30 <= 0.9 x 10,000 - fee(q), fee = 1 % of value: 9,000 / 30.3 = 297.03."""
        run: dict[str, Any] = {"costs": {"bps": 100}, "exec": {"reserve": {"pct": 0.1, "fees": True}}}
        assert one(flat(30, 30, 30), FULL, **run).short_fills == [(1, 297, 30.0)]
        run["exec"]["reserve"]["fees"] = False
        assert one(flat(30, 30, 30), FULL, **run).short_fills == [(1, 300, 30.0)]


class TestShortOfCash:
    def test_one_buy_takes_what_cash_covers_fees_included(self) -> None:
        """100 shares decided at 100; the open is 110 and each order costs 10: (10,000 - 10) / 110 = 90.8."""
        played = one(flat(100, 110, 110), FULL, costs={"min": 10})
        assert played.short_fills == [(1, 90, 110.0)]
        assert played.cell["counts"] == {"scaled": 1}

    def test_several_buys_share_one_factor_then_lose_a_lot_each_in_turn(self) -> None:
        """Wanted: 50 AAA, 50 BBB, 50 CCC at 100, 150, 200 and 1 each: 22,503 for 10,000. The factor 0.44438 gives 22
        of each, 9,903: it fits, and what is left is not spent."""
        store = world({"AAA": flat(100, 100, 100), "BBB": flat(100, 150, 150), "CCC": flat(100, 200, 200)})
        document = spec(
            ["AAA", "BBB", "CCC"], sleeve(enter=on(0), size={"mode": "qty", "v": 50}), sessions=3, costs={"min": 1}
        )
        assert [lots for _, _, lots, _ in play(document, store).fills] == [22, 22, 22]

    def test_minimum_fees_take_lots_in_id_order(self) -> None:
        """Two orders of 100 at 50 and 30 a fee cost 10,060: the factor 0.99403 gives 99 each, 9,960: one fits. With a
        fee of 80 (10,160; 0.98425): 98 each are 9,960. With 110: 10,220; 97 each are 9,920. With 149: 10,298, 97 each
        are 9,998. With 151: 10,302 gives 97 each, 10,002, and AAA loses one lot."""
        for fee, lots in ((30, [99, 99]), (80, [98, 98]), (110, [97, 97]), (149, [97, 97]), (151, [96, 97])):
            store = world({"AAA": flat(50, 50, 50), "BBB": flat(50, 50, 50)})
            document = spec(
                ["AAA", "BBB"], sleeve(enter=on(0), size={"mode": "qty", "v": 100}), sessions=3, costs={"min": fee}
            )
            played = play(document, store)
            assert [one[2] for one in played.fills] == lots, fee
            assert played.cell["counts"] == {"scaled": 2}

    def test_sells_come_first(self) -> None:
        """All in AAA; at one open AAA is sold and BBB is bought with that money, though BBB has the lower order."""
        store = world({"BBB": flat(20, 20, 20, 20), "AAA": flat(20, 20, 20, 20), "ZZZ": flat(20, 20, 20, 20)})
        sells = sleeve(
            id="a", universe="u", enter={"all": [on(0), {"lt": ["close", 21]}]}, exit=on(1), size=FULL, max_positions=1
        )
        buys = sleeve(id="b", enter=on(1), size=FULL, max_positions=1)
        sells["alloc"] = buys["alloc"] = 1.0
        played = play(spec(["AAA", "BBB", "ZZZ"], sells, buys, sessions=4), store)
        assert played.fills == [("AAA", 1, 500, 20.0), ("AAA", 2, -500, 20.0), ("AAA", 2, 500, 20.0)]

    def test_nothing_is_covered_and_nothing_is_bought(self) -> None:
        played = one(flat(100, 20_000, 20_000), FULL)
        assert (played.fills, played.cell["counts"]) == ([], {"rejected": 1})


class TestCommission:
    @pytest.mark.parametrize(
        ("costs", "fee"),
        [
            ({"bps": 10}, 1.0),
            ({"per_share": 0.005}, 0.05),
            ({"bps": 10, "per_share": 0.005}, 1.05),
            ({"bps": 10, "per_share": 0.005, "min": 2}, 2.0),
            ({"bps": 10, "per_share": 0.005, "min": 0.5}, 1.05),
            ({"per_order": 4.95}, 4.95),
            ({"bps": 10, "per_share": 0.005, "per_order": 4.95}, 6.0),
            ({"bps": 10, "per_order": 4.95, "min": 7}, 7.0),
            ({"bps": 10, "per_order": 4.95, "min": 5}, 5.95),
        ],
    )
    def test_bps_per_share_and_per_order_at_least_the_minimum(self, costs: dict[str, float], fee: float) -> None:
        played = one(flat(100, 100, 100), {"mode": "qty", "v": 10}, costs=costs)
        assert (played.full["fees_commission"], played.equity[-1]) == (fee, 10_000.0 - fee)

    def test_per_share_counts_shares_not_lots(self) -> None:
        played = one(flat(100, 100, 100), {"mode": "qty", "v": 2.5}, costs={"per_share": 1}, lot="fractional")
        assert played.full["fees_commission"] == 2.5

    def test_each_order_that_fills_pays_once(self) -> None:
        """An entry, a reversal of both trades together, and a stop: three orders. One that lapses costs nothing."""
        rules = {"side": "both", "enter_short": on(1), "stops": [{"type": "stop", "pct": 0.5}]}
        bars: list[Row] = [*flat(100, 100, 100), (100, 160, 100, 100), *flat(100)]
        played = one(bars, {"mode": "qty", "v": 10}, rules=rules, costs={"per_order": 4.95}, account="reg_t")
        assert [lots for _, lots, _ in played.short_fills] == [10, -10, -10, 10]
        assert (len(played.run.orders), played.full["fees_commission"]) == (3, 14.85)
        assert played.equity[-1] == 10_000.0 - 10 * 50 - 14.85
        assert [int(fees) for fees in played.run.trades["fees_micro"]] == [4_950_000 + 2_475_000, 2_475_000 + 4_950_000]
        waits = one([*flat(100), None, *flat(100)], {"mode": "qty", "v": 10}, costs={"per_order": 4.95})
        assert waits.cell["counts"] == {"lapsed": 1, "lapsed_no_bar": 1, "sessions_without_bar": 1}
        assert waits.equity[-1] == 10_000.0

    def test_cash_covers_the_fee_of_an_order_too(self) -> None:
        """10,000 buys 100 shares at 100, or 99 and the fee of 4.95."""
        played = one(flat(100, 100, 100), FULL, costs={"per_order": 4.95})
        assert played.short_fills == [(1, 99, 100.0)]
        assert one(flat(100, 100, 100), FULL, costs={"per_order": 100}).short_fills == [(1, 99, 100.0)]
        assert one(flat(100, 100, 100), FULL, costs={"per_order": 100.01}).short_fills == [(1, 98, 100.0)]

    def test_slippage_is_counted_against_the_print(self) -> None:
        played = one(flat(100, 100, 100), {"mode": "qty", "v": 10}, exec={"slip_bps": 20})
        assert (played.full["fees_slippage"], played.full["fees_commission"]) == (2.0, 0.0)
        assert played.equity == [10_000.0, 9_998.0, 9_998.0]


class TestMargin:
    def test_reg_t_buys_twice_its_equity_and_no_more(self) -> None:
        size = {"mode": "pct_equity", "v": 2.0}
        assert one(flat(100, 100, 100), size, account="reg_t").short_fills == [(1, 200, 100.0)]
        assert one(flat(100, 101, 101), size, account="reg_t").short_fills == [(1, 198, 101.0)]

    def test_a_short_needs_half_its_value_beside_its_proceeds(self) -> None:
        played = one(flat(100, 100, 100), {"mode": "qty", "v": 300}, rules={"side": "short"}, account="reg_t")
        assert (played.short_fills, played.cell["counts"]) == ([(1, -200, 100.0)], {"scaled": 1})

    def test_a_short_below_maintenance_is_bought_back_at_the_next_open(self) -> None:
        """200 short at 100: equity 10,000. At 116: equity 6,800, 30 % of 23,200 is 6,960: called. At 115: 7,000
        against 6,900: not."""
        size, rules = {"mode": "qty", "v": 200}, {"side": "short"}
        called = one(flat(100, 100, 116, 117, 117), size, rules=rules, account="reg_t")
        assert called.short_fills == [(1, -200, 100.0), (3, 200, 117.0)]
        assert (called.exits[0].name, called.cell["counts"]) == ("FORCED", {"margin_call": 1})
        assert one(flat(100, 100, 115, 117, 115), size, rules=rules, account="reg_t").cell["counts"]["margin_call"] == 1
        assert (
            "margin_call" not in one(flat(100, 100, 115, 114, 113), size, rules=rules, account="reg_t").cell["counts"]
        )

    def test_a_long_below_a_quarter_is_sold(self) -> None:
        """200 at 100, 10,000 borrowed. At 66: 3,200 against 3,300: called; at 67: 3,400 against 3,350: not."""
        size = {"mode": "pct_equity", "v": 2.0}
        called = one(flat(100, 100, 66, 65, 65), size, account="reg_t")
        assert called.short_fills == [(1, 200, 100.0), (3, -200, 65.0)]
        assert one(flat(100, 100, 67, 67, 67), size, account="reg_t").cell["counts"] == {}

    def test_the_largest_requirement_goes_first_and_only_as_many_as_needed(self) -> None:
        """100 AAA and 50 BBB short at 100; both rise to 150: equity 2,500, required 30 % of 15,000 and of 7,500,
        6,750. AAA's 4,500 goes; 2,250 stays covered."""
        short = {"side": "short", "enter": on(0), "max_positions": 1}
        a = sleeve(id="a", size={"mode": "qty", "v": 100}, **short)
        b = sleeve(id="b", size={"mode": "qty", "v": 50}, **short)
        b["enter"] = {"all": [on(0), {"lt": ["volume", 600]}]}
        store = world(
            {"AAA": flat(100, 100, 150, 150, 150), "BBB": [(100, 100, 100, 100, 500), *flat(100, 150, 150, 150)]}
        )
        played = play(spec(["AAA", "BBB"], a, b, sessions=5, account="reg_t"), store)
        assert played.fills == [("AAA", 1, -100, 100.0), ("BBB", 1, -50, 100.0), ("AAA", 3, 100, 150.0)]

    def test_linear_holds_max_gross_times_equity(self) -> None:
        size = {"mode": "pct_equity", "v": 3.0}
        assert one(flat(100, 100, 100), size, account="linear", max_gross=3).short_fills == [(1, 300, 100.0)]
        assert one(flat(100, 100, 100), {"mode": "qty", "v": 500}, account="linear", max_gross=3).short_fills == [
            (1, 300, 100.0)
        ]

    def test_ruin_closes_at_the_mark_and_ends_everything(self) -> None:
        """Short 200 at 100; a close of 160 leaves 10,000 - 12,000 = -2,000, and there it stays."""
        played = one(flat(100, 100, 160, 100, 100), {"mode": "qty", "v": 200}, rules={"side": "short"}, account="reg_t")
        assert played.short_fills == [(1, -200, 100.0), (2, 200, 160.0)]
        assert played.equity == [10_000.0, 10_000.0, -2_000.0, -2_000.0, -2_000.0]
        assert (played.cell["counts"]["ruin"], played.cell["verdict"]) == (1, None)
        assert played.full["total_return"] == pytest.approx(-1.2)
        assert played.full["max_dd"] == pytest.approx(1.2)
        assert played.full["cagr"] is None

    def test_exactly_zero_is_ruin_too(self) -> None:
        played = one(flat(100, 100, 150, 100), {"mode": "qty", "v": 200}, rules={"side": "short"}, account="reg_t")
        assert played.equity == [10_000.0, 10_000.0, 0.0, 0.0]
        assert played.full["cagr"] == -1.0
