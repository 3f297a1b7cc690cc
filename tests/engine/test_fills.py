"""Fills, stops and orders by hand: each example is small enough to check with a pencil (domain.md 1.1, 2.2, 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from farm.engine.events import simulate
from farm.engine.ledger import OrderKind, Run, Status
from farm.market.panel import Market
from farm.program.program import RulesProgram, Size, StopRule
from farm.spec.spec import Costs, Exec
from tests.engine.support import UNIT, assert_conserves, bars, flat, market, program, rules, signals, without


def run_one(
    found: Market, sleeve: RulesProgram | None = None, *, run: dict[str, Any] | None = None, **true: Any
) -> Run:
    """One sleeve on one instrument."""
    result = simulate(program(sleeve or rules(), **(run or {})), found, ((signals(found, **true),),))
    assert_conserves(result)
    return result


def fills(run: Run) -> list[tuple[int, int, float]]:
    """(session, lots, price) of each fill."""
    return [(int(one["session"]), int(one["lots"]), float(one["price"])) for one in run.fills]


def kinds(run: Run) -> list[OrderKind]:
    """Why each trade ended."""
    return [OrderKind(int(one)) for one in run.trades["exit_kind"]]


class TestMarketOrders:
    def test_a_signal_fills_at_the_next_open_never_in_its_own_bar(self) -> None:
        found = market(bars((10, 12, 9, 11), (20, 22, 19, 21), (30, 33, 29, 31), (40, 44, 39, 41)))
        run = run_one(found, enter=[0], exit=[2])
        assert fills(run) == [(1, 10, 20.0), (3, -10, 40.0)]
        assert run.equity.tolist() == [x * UNIT for x in (10_000, 10_010, 10_110, 10_200)]
        assert run.orders["ts"].tolist() == [int(found.calendar.close_ts[n]) for n in (0, 2)]
        assert run.fills["ts"].tolist() == [int(found.calendar.open_ts[n]) for n in (1, 3)]

    def test_size_comes_from_the_decision_not_from_the_fill(self) -> None:
        """10,000 at a close of 100 are 100 shares, although the open of 50 would buy 200."""
        run = run_one(market(flat(100, 50, 50)), rules(size=Size("pct_equity", 1.0)), enter=[0])
        assert fills(run) == [(1, 100, 50.0)]

    def test_slippage_worsens_both_sides_and_is_counted_against_the_open(self) -> None:
        run = run_one(market(flat(100, 100, 100)), enter=[0], exit=[1], run={"exec": Exec(10.0, 0.0, False)})
        assert fills(run) == [(1, 10, 100.0 * 1.001), (2, -10, 100.0 * 0.999)]
        assert run.fees_micro["slippage"] == 2 * UNIT
        assert run.equity_end_micro == 9_998 * UNIT

    def test_a_bar_without_volume_never_fills_and_the_order_lapses(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10, volume=[5, 0, 5, 5])), enter=[0])
        assert fills(run) == []
        assert [Status(int(x)) for x in run.orders["status"]] == [Status.LAPSED]
        assert run.counts == {"lapsed": 1}

    def test_an_order_lapses_at_the_close_and_the_next_signal_orders_anew(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10, volume=[5, 0, 5, 5])), enter=[0, 1])
        assert fills(run) == [(2, 10, 10.0)]
        assert run.orders["done_ts"].tolist()[0] == run.orders["ts"].tolist()[1]

    def test_a_missing_bar_lapses_too(self) -> None:
        """The instrument has no bar in session 1, and its order does not wait for session 2."""
        other = flat(1, 1, 1, 1, symbol="IBM")
        gap = without(flat(10, 10, 10, 10), 1)
        found = market(gap, other)
        run = simulate(program(rules()), found, ((signals(found, 0, enter=[0]),),))
        assert fills(run) == []
        assert run.counts == {"lapsed": 1}

    def test_orders_of_the_last_bar_lapse_and_open_positions_are_marked(self) -> None:
        run = run_one(market(flat(10, 10, 12)), enter=[0], exit=[2])
        assert run.counts == {"lapsed": 1}
        assert len(run.trades) == 0
        assert run.open_trades["pnl_micro"].tolist() == [20 * UNIT]
        assert run.open_trades["exit_price"].tolist() == [12.0]

    def test_commission_is_one_line_per_order_with_a_minimum(self) -> None:
        """bps 10 of 1,000 is 1.00, plus ten shares at 0.005; the minimum of 2 wins when it is more."""
        costs = Costs(10.0, 0.005, 0.0, 2.0)
        run = run_one(market(flat(100, 100, 400)), enter=[0], exit=[1], run={"costs": costs})
        assert run.orders["fee_micro"].tolist() == [2_000_000, 4_050_000]
        assert run.cash_events["cash_micro"].tolist() == [-2_000_000, -4_050_000]

    @pytest.mark.parametrize(("per_share", "micro"), [(0.5e-6, 0), (1.5e-6, 2), (2.5e-6, 2)])
    def test_money_is_rounded_half_to_even(self, per_share: float, micro: int) -> None:
        run = run_one(market(flat(1, 1, 1)), rules(size=Size("qty", 1.0)), enter=[0],
                      run={"costs": Costs(0.0, per_share, 0.0, 0.0)})  # fmt: skip
        assert run.orders["fee_micro"].tolist() == [micro]


class TestSignals:
    def test_exit_is_looked_at_only_while_holding(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10)), enter=[0], exit=[0])
        assert fills(run) == [(1, 10, 10.0)]

    def test_exit_wins_over_enter_and_the_bar_opens_nothing(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10)), enter=[0, 1], exit=[1])
        assert fills(run) == [(1, 10, 10.0), (2, -10, 10.0)]

    def test_a_reversal_is_one_order_split_at_zero_in_the_ledger(self) -> None:
        """One order of 20, one commission line, two fills, two trades that share the commission by lots."""
        run = run_one(market(flat(100, 100, 110, 105, 100)), rules(side="both"), enter=[0], enter_short=[1],
                      run={"account": "linear", "max_gross": 2.0, "costs": Costs(10.0, 0.0, 0.0, 0.0)})  # fmt: skip
        assert fills(run) == [(1, 10, 100.0), (2, -10, 110.0), (2, -10, 110.0)]
        assert run.orders["lots"].tolist() == [10, 20]
        assert run.orders["fee_micro"].tolist() == [1_000_000, 2_200_000]
        assert run.trades["pnl_micro"].tolist() == [100_000_000 - 1_000_000 - 1_100_000]
        assert run.open_trades["pnl_micro"].tolist() == [100_000_000 - 1_100_000]
        assert kinds(run) == [OrderKind.REVERSE]

    def test_an_exit_signal_beside_the_opposite_entry_still_reverses(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10)), rules(side="both"), enter=[0], exit=[1], enter_short=[1],
                      run={"account": "linear", "max_gross": 2.0})  # fmt: skip
        assert [lots for _, lots, _ in fills(run)] == [10, -10, -10]

    def test_long_and_short_entry_together_order_nothing(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10)), rules(side="both"), enter=[0], enter_short=[0],
                      run={"account": "linear", "max_gross": 2.0})  # fmt: skip
        assert fills(run) == []
        assert run.counts == {"entry_conflict": 1}

    def test_a_short_sleeve_reads_enter_and_exit_as_its_own_side(self) -> None:
        run = run_one(market(flat(10, 10, 9, 8)), rules(side="short"), enter=[0], exit=[2],
                      run={"account": "reg_t"})  # fmt: skip
        assert fills(run) == [(1, -10, 10.0), (3, 10, 8.0)]
        assert run.equity_end_micro == 10_020 * UNIT

    def test_time_counts_the_entry_bar_as_one(self) -> None:
        sleeve = rules(stops=(StopRule("time", "bars", 2.0),))
        run = run_one(market(flat(10, 10, 10, 10, 10)), sleeve, enter=[0])
        assert fills(run) == [(1, 10, 10.0), (3, -10, 10.0)]
        assert run.trades["bars"].tolist() == [3]

    def test_a_stop_out_may_re_enter_at_the_next_open_unless_cooling_down(self) -> None:
        rows = bars((10, 10, 10, 10), (10, 10, 8, 9), (9, 9, 9, 9), (9, 9, 9, 9), (9, 9, 9, 9))
        stop = (StopRule("stop", "pct", 0.1),)
        again = run_one(market(rows), rules(stops=stop), enter=[0, 1])
        assert fills(again) == [(1, 10, 10.0), (1, -10, 9.0), (2, 10, 9.0)]
        later = run_one(market(rows), rules(stops=stop, cooldown_bars=2), enter=[0, 1, 2, 3])
        assert fills(later) == [(1, 10, 10.0), (1, -10, 9.0), (4, 10, 9.0)]

    def test_market_time_counts_from_entry_bar_through_exit_bar(self) -> None:
        run = run_one(market(flat(10, 10, 10, 10, 10)), enter=[0], exit=[1])
        assert run.market_bars.tolist() == [0, 1, 1, 0, 0]
        assert run.decision_bars.tolist() == [1] * 5


class TestStops:
    def stop(self, *rows: tuple[float, float, float, float], stops: tuple[StopRule, ...], **more: Any) -> Run:
        """Enter at the open of the second bar, ten shares at 100; slip nothing unless told."""
        found = market(bars((100, 100, 100, 100), *rows))
        return run_one(found, rules(stops=stops, **more.pop("sleeve", {})), enter=[0], **more)

    def test_a_stop_fills_at_its_level_by_touch(self) -> None:
        run = self.stop((100, 101, 95, 96), stops=(StopRule("stop", "pct", 0.05),))
        assert fills(run)[1:] == [(1, -10, 95.0)]

    def test_a_gap_through_the_stop_fills_at_the_open(self) -> None:
        run = self.stop((100, 101, 99, 100), (90, 92, 89, 91), stops=(StopRule("stop", "abs", 5.0),))
        assert fills(run)[1:] == [(2, -10, 90.0)]

    def test_a_target_is_a_limit_touch_is_no_fill(self) -> None:
        target = (StopRule("target", "abs", 5.0),)
        assert fills(self.stop((100, 105, 99, 100), stops=target))[1:] == []
        assert fills(self.stop((100, 105.01, 99, 100), stops=target))[1:] == [(1, -10, 105.0)]
        assert fills(self.stop((100, 101, 99, 100), (107, 108, 106, 107), stops=target))[1:] == [(2, -10, 107.0)]

    def test_a_stop_slips_and_a_target_does_not(self) -> None:
        slip = {"exec": Exec(10.0, 0.0, False)}
        stopped = self.stop((100, 101, 90, 96), stops=(StopRule("stop", "abs", 5.0),), run=slip)
        level = 100.0 * 1.001 - 5.0
        assert fills(stopped)[1] == (1, -10, level * 0.999)
        reached = self.stop((100, 110, 99, 96), stops=(StopRule("target", "abs", 5.0),), run=slip)
        assert fills(reached)[1] == (1, -10, 100.0 * 1.001 + 5.0)

    def test_stop_before_target_in_one_bar(self) -> None:
        both = (StopRule("target", "pct", 0.01), StopRule("stop", "pct", 0.01))
        run = self.stop((100, 110, 90, 100), stops=both)
        assert kinds(run) == [OrderKind.STOP]
        assert fills(run)[1] == (1, -10, 99.0)

    def test_a_trail_is_tested_before_the_same_bar_lifts_it(self) -> None:
        """High 120 and low 105 in one bar: the peak was 100, so a trail of 10 % does not sell at 108."""
        run = self.stop((100, 120, 105, 110), (110, 111, 107, 109), stops=(StopRule("trail", "pct", 0.1),))
        assert fills(run)[1:] == [(2, -10, 120.0 * 0.9)]

    def test_the_peak_includes_this_bars_open(self) -> None:
        run = self.stop((100, 100, 100, 100), (110, 110, 104, 105), stops=(StopRule("trail", "abs", 5.0),))
        assert fills(run)[1:] == [(2, -10, 105.0)]

    def test_of_two_stops_the_price_meets_the_nearer_first(self) -> None:
        run = self.stop((100, 100, 80, 90), stops=(StopRule("stop", "pct", 0.1), StopRule("trail", "pct", 0.05)))
        assert kinds(run) == [OrderKind.TRAIL]
        assert fills(run)[1:] == [(1, -10, 95.0)]

    def test_a_target_in_multiples_of_the_risk(self) -> None:
        """Stop 4 below the entry: a target of 2 r stands 8 above."""
        two = (StopRule("target", "r", 2.0), StopRule("stop", "abs", 4.0))
        assert fills(self.stop((100, 109, 97, 100), stops=two))[1:] == [(1, -10, 108.0)]

    def test_a_level_is_frozen_at_the_decision(self) -> None:
        found = market(bars((100, 100, 100, 100), (100, 101, 99, 100), (100, 101, 96, 97), (97, 98, 94, 95)))
        level = np.array([95.0, 99.9, 99.9, 99.9])
        sleeve = rules(stops=(StopRule("stop", "level", 0.0, 0),), levels=(object(),))
        run = run_one(found, sleeve, enter=[0], levels=[level])
        assert fills(run)[1:] == [(3, -10, 95.0)]

    def test_an_unknown_level_orders_nothing(self) -> None:
        found = market(flat(100, 100, 100))
        sleeve = rules(stops=(StopRule("stop", "level", 0.0, 0),), levels=(object(),))
        run = run_one(found, sleeve, enter=[0], levels=[np.full(3, np.nan)])
        assert fills(run) == []
        assert run.counts == {"level_unknown": 1}

    def test_no_stop_fills_without_volume(self) -> None:
        found = market(bars((100, 100, 100, 100), (100, 100, 100, 100), (80, 80, 80, 80), (70, 70, 70, 70),
                            volume=[1, 1, 0, 1]))  # fmt: skip
        run = run_one(found, rules(stops=(StopRule("stop", "pct", 0.1),)), enter=[0])
        assert fills(run)[1:] == [(3, -10, 70.0)]

    def test_a_short_is_stopped_from_above(self) -> None:
        found = market(bars((100, 100, 100, 100), (100, 106, 99, 100), (100, 100, 90, 91)))
        short = {"account": "reg_t"}
        stop = rules(side="short", stops=(StopRule("stop", "pct", 0.05),))
        assert fills(run_one(found, stop, enter=[0], run=short))[1:] == [(1, 10, 105.0)]
        target = rules(side="short", stops=(StopRule("target", "pct", 0.05),))
        assert fills(run_one(found, target, enter=[0], run=short))[1:] == [(2, 10, 95.0)]
        trail = rules(side="short", stops=(StopRule("trail", "abs", 8.0),))
        lower = market(bars((100, 100, 100, 100), (100, 101, 90, 91), (91, 98, 91, 97)))
        assert fills(run_one(lower, trail, enter=[0], run=short))[1:] == [(2, 10, 98.0)]

    @pytest.mark.parametrize("kind", ["stop", "trail"])
    def test_a_wider_stop_never_fires_earlier(self, kind: str) -> None:
        random = np.random.default_rng(5)
        close = np.round(100 * np.cumprod(1 + random.normal(0, 0.02, 60)), 2)
        found = market(bars(*((float(c), float(c) + 1, float(c) - 1, float(c)) for c in close)))
        exits = []
        for width in (0.01, 0.03, 0.1, 0.3):
            run = run_one(found, rules(stops=(StopRule(kind, "pct", width),)), enter=[0])
            exits.append(int(run.trades["exit_session"][0]) if len(run.trades) else 99)
        assert exits == sorted(exits)
