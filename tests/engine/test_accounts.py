"""Cash, margin, corporate actions and ruin by hand (domain.md 2.2, 2.3, 3.3, 3.6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from farm.engine.events import simulate
from farm.engine.ledger import CashKind, OrderKind, Run, Status
from farm.market.panel import InstrumentSeries
from farm.program.program import Size, StopRule
from farm.spec.spec import Costs, Exec
from farm.values.arrays import F64
from farm.values.errors import CapacityError, DataError, SpecError
from tests.engine.support import (
    PREFER,
    START,
    UNIT,
    assert_conserves,
    bars,
    bits_of,
    days,
    flat,
    market,
    program,
    rules,
    signals,
)
from tests.engine.test_fills import fills, kinds, run_one

ALL = Size("pct_equity", 1.0)


def run_many(
    series: Sequence[InstrumentSeries], enter: Sequence[Sequence[int]], exit: Sequence[Sequence[int]] | None = None, *,
    sleeve: dict[str, Any], prefer: Sequence[F64] | None = None, run: dict[str, Any] | None = None,
) -> Run:  # fmt: skip
    """One sleeve over several instruments that share the account."""
    found = market(*series)
    group = tuple(
        signals(found, n, enter=enter[n], exit=exit[n] if exit else (), prefer=prefer[n] if prefer else None)
        for n in range(len(series))
    )
    chosen = rules(universe=tuple(one.symbol for one in series), **({"max_positions": len(series)} | sleeve))
    result = simulate(program(chosen, **(run or {})), found, (group,))
    assert_conserves(result)
    return result


def lots(run: Run) -> list[tuple[int, int]]:
    """(instrument, lots) of each fill."""
    return [(int(one["instrument"]), int(one["lots"])) for one in run.fills]


class TestCash:
    def test_a_single_buy_takes_the_most_that_cash_covers_with_fees(self) -> None:
        """1,000 at the close of 10 are 100 shares; at an open of 11 with 1 % only floor(1000 / 11.11) = 90."""
        run = run_one(market(flat(10, 11, 11)), rules(size=ALL), enter=[0],
                      run={"cash_micro": 1_000 * UNIT, "costs": Costs(100.0, 0.0, 0.0, 0.0)})  # fmt: skip
        assert fills(run) == [(1, 90, 11.0)]
        assert Status(int(run.orders["status"][0])) is Status.SCALED

    def test_a_buy_that_not_one_lot_of_is_covered_is_rejected(self) -> None:
        run = run_one(market(flat(10, 1_001, 11)), rules(size=ALL), enter=[0], run={"cash_micro": 1_000 * UNIT})
        assert fills(run) == []
        assert run.counts == {"rejected": 1}

    def test_several_buys_share_one_factor(self) -> None:
        """50 + 50 shares wanted, opens of 20 and 30 cost 2,500 against 1,000: factor 0.4, 20 shares each."""
        run = run_many([flat(10, 20, 20), flat(10, 30, 30, symbol="IBM")], [[0], [0]],
                       sleeve={"size": Size("pct_equity", 0.5)}, run={"cash_micro": 1_000 * UNIT})  # fmt: skip
        assert lots(run) == [(0, 20), (1, 20)]

    def test_lots_are_lowered_one_by_one_in_id_order_while_cash_is_short(self) -> None:
        """Minimum fees of 95: the factor 1000 / 1190 leaves 42 and 42 shares at 10, which with fees cost 1,030. One lot
        off the first, the second, and the first again: 1,000."""
        series = [flat(10, 10, 10), flat(10, 10, 10, symbol="IBM")]
        run = run_many(series, [[0], [0]], sleeve={"size": Size("pct_equity", 0.5)},
                       run={"cash_micro": 1_000 * UNIT, "costs": Costs(0.0, 0.0, 0.0, 95.0)})  # fmt: skip
        assert lots(run) == [(0, 40), (1, 41)]
        assert run.counts == {"scaled": 2}

    def test_sells_come_first_and_pay_for_the_buys(self) -> None:
        run = run_many([flat(10, 10, 10, 10), flat(10, 10, 10, 10, symbol="IBM")], [[0], [1]], [[1], []],
                       sleeve={"size": ALL, "max_positions": 1}, run={"cash_micro": 1_000 * UNIT})  # fmt: skip
        assert lots(run) == [(0, 100), (0, -100), (1, 100)]

    def test_two_sleeves_share_the_cash_and_never_net(self) -> None:
        found = market(flat(10, 10, 10, 10))
        sleeves = (rules(id="a", size=ALL, alloc=0.5), rules(id="b", size=ALL, alloc=0.5))
        run = simulate(program(*sleeves, cash_micro=1_000 * UNIT), found,
                       ((signals(found, enter=[0]),), (signals(found, enter=[0], exit=[1]),)))  # fmt: skip
        assert [(int(one["sleeve"]), int(one["lots"])) for one in run.fills] == [(0, 50), (1, 50), (1, -50)]

    def test_a_reserve_leaves_room_for_the_fee(self) -> None:
        """The largest q with 10 q <= 0.98 x 1000 - max(0.1 q, 5): 97 (970 <= 980 - 9.7 = 970.3)."""
        run = run_one(market(flat(10, 10, 10)), rules(size=ALL), enter=[0],
                      run={"cash_micro": 1_000 * UNIT, "costs": Costs(100.0, 0.0, 0.0, 5.0),
                           "exec": Exec(0.0, 0.02, True)})  # fmt: skip
        assert fills(run) == [(1, 97, 10.0)]

    @pytest.mark.parametrize(("qty", "lot", "micro"), [(0.29, "fractional", 290_000), (7.9, "whole", 7)])
    def test_quantities_are_decimal_as_written(self, qty: float, lot: str, micro: int) -> None:
        run = run_one(market(flat(10, 10, 10)), rules(size=Size("qty", qty)), enter=[0], run={"lot": lot})
        assert run.fills["lots"].tolist() == [micro]

    def test_sizes(self) -> None:
        prices = flat(7, 7, 7)
        for size, wanted in ((Size("notional", 100.0), 14), (Size("equal", 1.0), 714), (Size("pct_equity", 0.3), 428)):
            run = run_one(market(prices), rules(size=size, max_positions=2), enter=[0])
            assert run.fills["lots"].tolist() == [wanted]

    def test_no_account_goes_short_on_cash(self) -> None:
        with pytest.raises(SpecError, match="cannot be short"):
            run_one(market(flat(1, 1)), rules(side="both"), enter=[0])

    def test_amounts_beyond_the_guard_stop_the_run(self) -> None:
        with pytest.raises(CapacityError, match=r"2\^53"):
            run_one(market(flat(10, 10, 20_000, 20_000)), rules(size=ALL), enter=[0], run={"cash_micro": 2**52})

    def test_stops_need_highs_and_lows(self) -> None:
        bare = dataclasses.replace(flat(1, 1, 1), high=np.empty(0), low=np.empty(0))
        assert len(run_one(market(bare), enter=[0]).open_trades) == 1
        with pytest.raises(DataError, match="high and low"):
            run_one(market(bare), rules(stops=(StopRule("stop", "pct", 0.1),)), enter=[0])


class TestPlaces:
    def test_the_preferred_ones_get_the_places(self) -> None:
        series = [flat(10, 10, 10, symbol=name) for name in ("AAPL", "IBM", "MSFT")]
        prefer = [np.full(3, x) for x in (1.0, 3.0, 2.0)]
        run = run_many(series, [[0], [0], [0]], sleeve={"max_positions": 2, "prefer": PREFER}, prefer=prefer)
        assert lots(run) == [(1, 10), (2, 10)]

    def test_ties_go_to_the_lower_id_and_unknowns_are_no_candidates(self) -> None:
        series = [flat(10, 10, 10, symbol=name) for name in ("AAPL", "IBM", "MSFT")]
        prefer = [np.full(3, x) for x in (np.nan, 5.0, 5.0)]
        run = run_many(series, [[0], [0], [0]], sleeve={"max_positions": 1, "prefer": PREFER}, prefer=prefer)
        assert lots(run) == [(1, 10)]
        assert run.counts == {"prefer_unknown": 1}

    def test_an_exit_makes_room_at_the_same_decision(self) -> None:
        series = [flat(10, 10, 10, 10), flat(10, 10, 10, 10, symbol="IBM")]
        run = run_many(series, [[0], [1]], [[1], []], sleeve={"max_positions": 1})
        assert lots(run) == [(0, 10), (0, -10), (1, 10)]

    def test_room_that_an_unfilled_exit_did_not_make_is_not_there(self) -> None:
        series = [flat(10, 10, 10, 10, volume=[1, 1, 0, 1]), flat(10, 10, 10, 10, symbol="IBM")]
        run = run_many(series, [[0], [1]], [[1], []], sleeve={"max_positions": 1})
        assert lots(run) == [(0, 10)]
        assert run.counts == {"lapsed": 1, "no_place": 1}


class TestMargin:
    def short(self, *prices: float, share: float = 1.0, **run: Any) -> Run:
        """Short at the open of the second bar for ``share`` of 1,000."""
        size = Size("pct_equity", share)
        return run_one(market(flat(*prices)), rules(side="short", size=size), enter=[0],
                       run={"account": "reg_t", "cash_micro": 1_000 * UNIT, **run})  # fmt: skip

    def test_reg_t_opens_up_to_twice_the_equity(self) -> None:
        assert fills(self.short(10, 10, 10, share=5.0)) == [(1, -200, 10.0)]
        long = run_one(market(flat(10, 10, 10)), rules(size=Size("pct_equity", 5.0)), enter=[0],
                       run={"account": "reg_t", "cash_micro": 1_000 * UNIT})  # fmt: skip
        assert fills(long) == [(1, 200, 10.0)]

    def test_a_breach_at_the_close_closes_at_the_next_open(self) -> None:
        """Short 100 at 10 with 1,000: at 15.5 equity is 450 < 30 % of 1,550 = 465."""
        run = self.short(10, 10, 15.5, 16, 16)
        assert fills(run) == [(1, -100, 10.0), (3, 100, 16.0)]
        assert kinds(run) == [OrderKind.FORCED]
        assert run.counts == {"margin_call": 1}
        assert len(self.short(10, 10, 15.38, 15.38, 15.38).trades) == 0  # 462 >= 461.40

    def test_a_long_is_called_below_a_quarter(self) -> None:
        """Long 200 at 10 on 1,000 (debt 1,000): at 6.66 equity is 332 < 25 % of 1,332 = 333."""
        sleeve = rules(size=Size("pct_equity", 2.0))
        account = {"account": "reg_t", "cash_micro": 1_000 * UNIT}
        run = run_one(market(flat(10, 10, 6.66, 6, 6)), sleeve, enter=[0], run=account)
        assert kinds(run) == [OrderKind.FORCED]
        assert run_one(market(flat(10, 10, 6.68, 6.68)), sleeve, enter=[0], run=account).counts == {}

    def test_the_largest_requirement_closes_first_and_only_as_many_as_needed(self) -> None:
        series = [flat(10, 10, 14, 14), flat(10, 10, 15, 15, symbol="IBM")]
        found = market(*series)
        sleeve = rules(universe=("AAPL", "IBM"), side="short", max_positions=2, size=Size("pct_equity", 0.6))
        run = simulate(program(sleeve, account="reg_t", cash_micro=1_000 * UNIT), found,
                       ((signals(found, 0, enter=[0]), signals(found, 1, enter=[0])),))  # fmt: skip
        # 60 short each: equity 460 against 252 + 270; without IBM 252 are covered.
        assert [(int(one["instrument"]), int(one["exit_kind"])) for one in run.trades] == [(1, OrderKind.FORCED)]

    def test_linear_is_bounded_by_gross_value(self) -> None:
        run = run_one(market(flat(10, 10, 10)), rules(size=Size("pct_equity", 9.0)), enter=[0],
                      run={"account": "linear", "max_gross": 1.5, "cash_micro": 1_000 * UNIT,
                           "costs": Costs(100.0, 0.0, 0.0, 0.0)})  # fmt: skip
        # q x 10 + 1.5 x 0.1 q <= 1,500
        assert fills(run) == [(1, 147, 10.0)]

    def test_ruin_closes_at_the_mark_and_the_account_stays_there(self) -> None:
        run = self.short(10, 10, 25, 5, 5)
        assert run.ruin
        assert run.equity.tolist() == [1_000 * UNIT, 1_000 * UNIT, *[-500 * UNIT] * 3]
        assert kinds(run) == [OrderKind.RUINED]
        assert run.position.tolist()[2:] == [0, 0, 0]
        assert run.decision_bars.tolist() == [1] * 5
        assert run.market_bars.tolist() == [0, 1, 1, 0, 0]


class TestActions:
    def test_a_split_restates_the_position_its_stop_and_the_equity(self) -> None:
        """Ten at 100, 2-for-1: twenty at 50; the stop of 90 becomes 45."""
        rows = bars((100, 100, 100, 100), (100, 100, 100, 100), (50, 51, 49, 50), (50, 50, 44, 46),
                    splits={int(days(4)[2]): (2, 1)})  # fmt: skip
        run = run_one(market(rows), rules(stops=(StopRule("stop", "pct", 0.1),)), enter=[0])
        assert fills(run) == [(1, 10, 100.0), (3, -20, 45.0)]
        assert run.equity.tolist() == [x * UNIT for x in (10_000, 10_000, 10_000, 9_900)]

    def test_a_working_order_is_restated_before_the_new_basis(self) -> None:
        run = run_one(market(flat(100, 50, 50, splits={int(days(2)[1]): (2, 1)})), enter=[0])
        assert fills(run) == [(1, 20, 50.0)]

    def test_fractions_are_cashed_at_the_previous_close_over_the_ratio(self) -> None:
        """Seven shares, 3-for-2: ten shares, and half a share at 30 / 1.5 = 20 is 10."""
        rows = flat(30, 30, 20, 20, splits={int(days(3)[2]): (3, 2)})
        run = run_one(market(rows), rules(size=Size("qty", 7.0)), enter=[0])
        cash = run.cash_events[run.cash_events["kind"] == CashKind.SPLIT_CASH]
        assert cash["cash_micro"].tolist() == [10 * UNIT]
        assert set(run.equity.tolist()) == {10_000 * UNIT}

    def test_a_reverse_split_may_leave_less_than_a_lot(self) -> None:
        rows = flat(2, 2, 20, 20, splits={int(days(3)[2]): (1, 10)})
        run = run_one(market(rows), rules(size=Size("qty", 7.0)), enter=[0])
        assert kinds(run) == [OrderKind.SPLIT]
        assert run.equity_end_micro == 10_000 * UNIT
        assert run.position.tolist()[-1] == 0

    def test_a_reversal_whose_position_a_split_cashes_only_enters(self) -> None:
        """Six long at 100; at 50 the reversal opens twelve. Then 1-for-10: the six are cashed, one is sold at 500."""
        rows = flat(100, 100, 50, 500, 500, splits={int(days(4)[3]): (1, 10)})
        sleeve = rules(side="both", size=Size("notional", 600.0))
        run = run_one(market(rows), sleeve, enter=[0], enter_short=[2], run={"account": "linear", "max_gross": 1.0})
        assert fills(run) == [(1, 6, 100.0), (3, -1, 500.0)]
        assert kinds(run) == [OrderKind.SPLIT]
        assert run.orders[["kind", "lots", "filled_lots"]].tolist() == [
            (OrderKind.ENTER, 6, 6),
            (OrderKind.REVERSE, 18, 1),
        ]
        assert run.open_trades[["side", "lots"]].tolist() == [(-1, 1)]
        assert run.equity.tolist() == [x * UNIT for x in (10_000, 10_000, 9_700, 9_700, 9_700)]

    def test_a_later_split_changes_nothing_before_it(self) -> None:
        """Share counts and per-share fees are of the day: no back-adjustment."""
        costs = {"costs": Costs(0.0, 0.01, 0.0, 0.0)}
        plain = run_one(market(flat(100, 100, 100, 100)), enter=[0], exit=[1], run=costs)
        late = run_one(
            market(flat(100, 100, 100, 25, splits={int(days(4)[3]): (4, 1)})), enter=[0], exit=[1], run=costs
        )
        assert bits_of(plain.fills) == bits_of(late.fills)
        assert plain.equity.tolist() == late.equity.tolist()

    def test_a_dividend_is_owed_on_the_ex_date_and_cash_on_the_pay_date(self) -> None:
        series = flat(100, 100, 99, 99, 99, dividends={int(days(3)[2]): 1.0})
        series = dataclasses.replace(
            series, dividend_pay_day=days(5)[4:], dividend_pay_assumed=np.zeros(1, np.bool_)
        )  # paid in session 4
        found = market(series)
        run = simulate(program(rules()), found, ((signals(found, enter=[0]),),))
        assert [CashKind(int(x)) for x in run.cash_events["kind"]] == [CashKind.DIVIDEND_EX, CashKind.DIVIDEND_PAY]
        assert run.cash_events["session"].tolist() == [2, 4]
        assert run.cash_events["cash_micro"].tolist() == [0, 10 * UNIT]
        assert set(run.equity.tolist()) == {10_000 * UNIT}

    def test_dividend_cash_buys_only_when_paid(self) -> None:
        """A hundred shares earn 100 and are sold for 900: equity of 1,000 wants 111 shares at 9, cash covers 100."""
        ex, pay = days(6)[2], days(6)[4]
        series = flat(10, 10, 9, 9, 9, 9, dividends={int(ex): 1.0})
        series = dataclasses.replace(series, dividend_pay_day=np.array([pay], np.int32),
                                     dividend_pay_assumed=np.zeros(1, np.bool_))  # fmt: skip
        run = run_one(market(series), rules(size=ALL), enter=[0, 2, 3], exit=[1],
                      run={"cash_micro": 1_000 * UNIT})  # fmt: skip
        assert fills(run) == [(1, 100, 10.0), (2, -100, 9.0), (3, 100, 9.0)]

    def test_who_sells_at_the_ex_date_open_has_the_dividend_and_who_buys_there_has_not(self) -> None:
        rows = flat(100, 100, 99, 99, dividends={int(days(3)[2]): 1.0})
        seller = run_one(market(rows), enter=[0], exit=[1])
        buyer = run_one(market(rows), enter=[1])
        assert seller.trades["dividends_micro"].tolist() == [10 * UNIT]
        assert seller.equity_end_micro == 10_000 * UNIT
        assert buyer.open_trades["dividends_micro"].tolist() == [0]

    def test_shorts_pay_dividends(self) -> None:
        rows = flat(100, 100, 99, 99, dividends={int(days(3)[2]): 1.0})
        run = run_one(market(rows), rules(side="short"), enter=[0], run={"account": "reg_t"})
        assert run.open_trades["dividends_micro"].tolist() == [-10 * UNIT]
        assert run.counts == {"pay_date_assumed": 1}
        assert run.equity_end_micro == 10_000 * UNIT

    def test_income_is_counted_once(self) -> None:
        """Buy and hold of one share: price change plus dividends, neither more nor less."""
        rows = flat(10, 10, 11, 12, 13, dividends={int(days(3)[2]): 0.25, int(days(4)[3]): 0.5})
        run = run_one(market(rows), rules(size=Size("qty", 1.0)), enter=[0])
        assert run.equity_end_micro - run.cash_micro == (13 - 10) * UNIT + 750_000

    def test_a_dividend_unpaid_at_the_end_is_still_owned(self) -> None:
        series = flat(100, 100, 99, dividends={int(days(3)[2]): 1.0})
        series = dataclasses.replace(series, dividend_pay_day=np.array([START + 300], np.int32))
        run = run_one(market(series), enter=[0])
        assert run.cash_events["cash_micro"].tolist() == [0]
        assert run.equity_end_micro == 10_000 * UNIT

    def test_a_dataset_without_dividends_says_so(self) -> None:
        assert "no_dividends" in run_one(market(flat(1, 1)), enter=[0]).assumptions
