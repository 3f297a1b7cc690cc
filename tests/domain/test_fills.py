"""domain.md 3.4 by hand: which print an order, a stop or a target trades at, on the public path."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar

import pytest

from farm.engine.ledger import OrderKind
from tests.domain.support import Played, Row, day, flat, on, play, put, sleeve, spec, world


def one(bars: list[Row], splits: Any = (), sessions: int | None = None, run: Any = None, **rules: Any) -> Played:
    """Ten shares of AAA, entered on session 0 unless said otherwise."""
    store = world({"AAA": bars}, splits=splits)
    made = sleeve(**({"enter": on(0)} | rules))
    return play(spec(["AAA"], made, sessions=sessions or len(bars), **(run or {})), store)


class TestStops:
    def test_a_gap_through_the_stop_trades_at_the_open(self) -> None:
        bars = [*flat(100, 100), (80, 85, 79, 84), (84, 84, 84, 84)]
        assert one(bars, stops=[{"type": "stop", "pct": 0.1}]).short_fills == [(1, 10, 100.0), (2, -10, 80.0)]

    def test_a_stop_inside_the_bar_trades_at_its_level_by_touch(self) -> None:
        bars = [*flat(100, 100), (95, 96, 90, 95), (95, 95, 95, 95)]
        assert one(bars, stops=[{"type": "stop", "pct": 0.1}]).short_fills[1] == (2, -10, 90.0)

    def test_a_short_is_stopped_above(self) -> None:
        bars = [*flat(100, 100), (100, 111, 99, 105), (120, 120, 120, 120)]
        stops = [{"type": "stop", "pct": 0.1}]
        played = one(bars, stops=stops, side="short", run={"account": "reg_t"})
        assert played.short_fills == [(1, -10, 100.0), (2, 10, 110.0)]
        gap = one([*flat(100, 100), (120, 130, 119, 125), *flat(125)], stops=stops, side="short",
                  run={"account": "reg_t"})  # fmt: skip
        assert gap.short_fills[1] == (2, 10, 120.0)

    def test_a_touched_target_does_not_fill_and_a_gap_gives_the_open(self) -> None:
        target = [{"type": "target", "abs": 10}]
        touched = one([*flat(100, 100), (100, 110, 99, 105), *flat(105)], stops=target)
        assert touched.short_fills == [(1, 10, 100.0)]
        beyond = one([*flat(100, 100), (100, 110.01, 99, 105), *flat(105)], stops=target)
        assert beyond.short_fills[1] == (2, -10, 110.0)
        gap = one([*flat(100, 100), (115, 116, 114, 115), *flat(105)], stops=target)
        assert gap.short_fills[1] == (2, -10, 115.0)

    def test_stop_and_target_in_one_bar_is_the_stop(self) -> None:
        bars = [*flat(100, 100), (100, 120, 80, 100), *flat(100)]
        played = one(bars, stops=[{"type": "target", "pct": 0.1}, {"type": "stop", "pct": 0.1}])
        assert played.exits == [OrderKind.STOP]
        assert played.short_fills[1] == (2, -10, 90.0)

    def test_even_where_the_bar_opens_beyond_the_target(self) -> None:
        """Pessimism is the rule: the path inside a bar is not known."""
        bars = [*flat(100, 100), (112, 113, 80, 100), *flat(100)]
        played = one(bars, stops=[{"type": "target", "pct": 0.1}, {"type": "stop", "pct": 0.1}])
        assert played.short_fills[1] == (2, -10, 90.0)

    def test_both_work_in_the_entry_bar(self) -> None:
        stops = [{"type": "stop", "pct": 0.1}, {"type": "target", "pct": 0.1}]
        down = one([*flat(100), (100, 101, 89, 95), *flat(95)], stops=stops)
        assert down.short_fills == [(1, 10, 100.0), (1, -10, 90.0)]
        up = one([*flat(100), (100, 111, 99, 95), *flat(95)], stops=stops)
        assert up.short_fills[1] == (1, -10, 110.0)
        assert up.exits == [OrderKind.TARGET]

    def test_slippage_worsens_stops_and_opens_but_no_limit(self) -> None:
        run = {"exec": {"slip_bps": 100}}
        stopped = one([*flat(100, 100), (95, 96, 80, 95), *flat(95)], stops=[{"type": "stop", "abs": 10}], run=run)
        assert stopped.short_fills == [(1, 10, 101.0), (2, -10, 91 * 0.99)]
        target = one([*flat(100, 100), (100, 130, 99, 95), *flat(95)], stops=[{"type": "target", "abs": 10}], run=run)
        assert target.short_fills[1] == (2, -10, 111.0)

    def test_of_two_stops_the_nearer_one_trades(self) -> None:
        stops = [{"type": "stop", "abs": 20}, {"type": "trail", "abs": 5}]
        played = one([*flat(100, 100), (99, 100, 70, 75), *flat(75)], stops=stops)
        assert (played.short_fills[1], played.exits) == ((2, -10, 95.0), [OrderKind.TRAIL])

    def test_multiples_of_the_initial_risk(self) -> None:
        """Risk 5 from the fill at 100: the target of 2 r stands at 110."""
        bars = [*flat(90), *flat(100), (105, 112, 104, 111), *flat(111)]
        assert one(bars, stops=[{"type": "stop", "abs": 5}, {"type": "target", "r": 2}]).short_fills == [
            (1, 10, 100.0), (2, -10, 110.0),
        ]  # fmt: skip

    def test_a_level_is_frozen_at_the_decision(self) -> None:
        """The lowest low of two bars is 90 at the decision and 70 later; the stop stays at 90."""
        bars: list[Row] = [(100, 100, 90, 100), (100, 100, 91, 100), (100, 101, 89, 95), *flat(95)]
        played = one(bars, stops=[{"type": "stop", "level": {"i": "min", "n": 1, "of": "low"}}])
        assert played.short_fills == [(1, 10, 100.0), (2, -10, 90.0)]

    def test_an_unknown_level_opens_nothing(self) -> None:
        played = one(flat(10, 10, 10), stops=[{"type": "stop", "level": {"i": "sma", "n": 5}}])
        assert (played.fills, played.cell["counts"]) == ([], {"level_unknown": 1})


class TestTouches:
    """A computed order price is the decimal that it stands for, so a print at that price meets it."""

    STOP, TARGET, TRAIL = ([{"type": kind, "pct": part}] for kind, part in (
        ("stop", 0.05), ("target", 0.1), ("trail", 0.05)))  # fmt: skip
    MARGIN: ClassVar = {"account": "reg_t"}

    def test_a_stop_at_the_low(self) -> None:
        """5 % below 102 is 96.90; as a product of float64 it is 96.89999999999999."""
        assert 102 * (1 - 0.05) < 96.9
        bars: list[Row] = [*flat(102, 102), (102, 102, 96.9, 100), *flat(100)]
        assert one(bars, stops=self.STOP).short_fills == [(1, 10, 102.0), (2, -10, 96.9)]
        bars[2] = (102, 102, 96.91, 100)
        assert one(bars, stops=self.STOP).short_fills == [(1, 10, 102.0)]

    def test_a_stop_at_the_high_of_a_short(self) -> None:
        assert 2.2 * (1 + 0.05) > 2.31
        bars: list[Row] = [*flat(2.2, 2.2), (2.2, 2.31, 2.2, 2.2), *flat(2.2)]
        played = one(bars, stops=self.STOP, side="short", run=self.MARGIN)
        assert played.short_fills == [(1, -10, 2.2), (2, 10, 2.31)]

    def test_a_target_at_the_open(self) -> None:
        """10 % above 100 is 110, not 110.00000000000001; touched inside a bar it is a limit and does not fill."""
        assert 100 * (1 + 0.1) > 110
        assert one([*flat(100, 100), *flat(110, 100)], stops=self.TARGET).short_fills[1] == (2, -10, 110.0)
        bars: list[Row] = [*flat(100, 100), (105, 110, 105, 105), *flat(105)]
        assert one(bars, stops=self.TARGET).short_fills == [(1, 10, 100.0)]

    def test_a_target_below_its_level_never_fills_by_rounding(self) -> None:
        """70 % above 3.30 is 5.61; float64 has 5.609999999999999, and a high of 5.61 would have been beyond it."""
        assert 3.3 * (1 + 0.7) < 5.61
        bars: list[Row] = [*flat(3.3, 3.3), (5, 5.61, 5, 5), *flat(5)]
        assert one(bars, stops=[{"type": "target", "pct": 0.7}]).short_fills == [(1, 10, 3.3)]

    def test_a_target_at_the_open_of_a_short(self) -> None:
        assert 3.3 * (1 - 0.1) < 2.97
        bars: list[Row] = [*flat(3.3, 3.3), (2.97, 3, 2.5, 2.75), *flat(2.75)]
        played = one(bars, stops=self.TARGET, side="short", run=self.MARGIN)
        assert played.short_fills == [(1, -10, 3.3), (2, 10, 2.97)]

    def test_a_trail_at_the_low(self) -> None:
        bars: list[Row] = [*flat(90, 90), (90, 102, 90, 101), (101, 101, 96.9, 98), *flat(98)]
        assert one(bars, stops=self.TRAIL).short_fills[1] == (3, -10, 96.9)

    def test_a_distance_at_the_low(self) -> None:
        assert 1.15 - 0.1 < 1.05
        bars: list[Row] = [*flat(1.15, 1.15), (1.15, 1.15, 1.05, 1.1), *flat(1.1)]
        assert one(bars, stops=[{"type": "stop", "abs": 0.1}]).short_fills[1] == (2, -10, 1.05)
        assert one(bars, stops=[{"type": "trail", "abs": 0.1}]).short_fills[1] == (2, -10, 1.05)

    def test_a_multiple_of_the_risk_at_the_open(self) -> None:
        """Risk 0.30 from 1.00: three times it is 1.90, the open of the bar."""
        assert 1.0 + 3 * (1.0 - 0.7) > 1.9
        bars: list[Row] = [*flat(1, 1), *flat(1.9, 1.5)]
        stops = [{"type": "stop", "abs": 0.3}, {"type": "target", "r": 3}]
        assert one(bars, stops=stops).short_fills[1] == (2, -10, 1.9)

    @pytest.mark.parametrize(
        ("side", "entry", "price"), [(1, 100.01, 102.51), (1, 278.97, 281.47), (-1, 100.07, 97.57)]
    )
    def test_the_risk_itself_is_the_decimal(self, side: int, entry: float, price: float) -> None:
        """Fifty times a risk of 0.05: the error of 100.01 - 99.96 would be seen in the twelfth decimal of the level."""
        risk = side * (entry - float(Fraction(repr(entry)) - side * Fraction(5, 100)))
        assert side * round(entry + side * 50 * risk, 12) > side * price
        stops = [{"type": "stop", "abs": 0.05}, {"type": "target", "r": 50}]
        played = one(flat(entry, entry, price, entry), stops=stops, side="long" if side > 0 else "short",
                     run={"account": "reg_t"})  # fmt: skip
        assert played.short_fills == [(1, 10 * side, entry), (2, -10 * side, price)]

    def test_a_level_at_the_low(self) -> None:
        assert 2.6 * 0.95 < 2.47
        level = {"op": "mul", "a": ["close", 0.95]}
        bars: list[Row] = [*flat(2.6, 2.7), (2.7, 2.7, 2.47, 2.5), *flat(2.5)]
        assert one(bars, stops=[{"type": "stop", "level": level}]).short_fills[1] == (2, -10, 2.47)

    def test_slippage_comes_after(self) -> None:
        run = {"exec": {"slip_bps": 100}}
        bars: list[Row] = [*flat(100, 100), (100, 100, 95.95, 97), *flat(97)]
        assert one(bars, stops=self.STOP, run=run).short_fills == [(1, 10, 101.0), (2, -10, 95.95 * 0.99)]

    @pytest.mark.parametrize(("ratio", "low", "lots"), [("2:1", 48.45, 20), ("3:2", 64.6, 15), ("1:10", 969.0, 1)])
    def test_after_a_split(self, ratio: str, low: float, lots: int) -> None:
        """The stop at 96.90 is restated; the low after the split stands exactly there."""
        new, old = (int(part) for part in ratio.split(":"))
        top = round(102 * old / new, 2)
        bars: list[Row] = [*flat(102, 102), (top, top, low, top), *flat(top)]
        played = one(bars, [("AAA", day(2), ratio)], stops=self.STOP)
        assert played.short_fills == [(1, 10, 102.0), (2, -lots, low)]

    @pytest.mark.parametrize(
        ("entry", "low", "pct"),
        [(0.000012, 0.0000114, 0.05), (0.000008, 0.0000076, 0.05), (700_000, 664_999.93, 0.0500001),
         (700_000.42, 665_000.399, 0.05), (90_000_000, 81_900_000, 0.09)],
    )  # fmt: skip
    def test_tiny_and_huge_prices(self, entry: float, low: float, pct: float) -> None:
        bars: list[Row] = [*flat(entry, entry), (entry, entry, low, entry), *flat(entry)]
        run = {"cash": 2_000_000_000}
        played = one(bars, stops=[{"type": "stop", "pct": pct}], run=run)
        assert played.short_fills == [(1, 10, entry), (2, -10, low)]

    def test_signals_compare_what_was_computed(self) -> None:
        """100 x 1.1 is 110.00000000000001 in float64, so a close of 110 is not above it: signals have no grid."""
        enter = {"ge": ["close", {"op": "mul", "a": [{"op": "lag", "a": ["close"], "n": 1}, 1.1]}]}
        assert one(flat(100, 110, 110, 110), enter=enter).fills == []


class TestTrails:
    def test_tested_against_the_old_peak_then_lifted(self) -> None:
        """Session 2 reaches 120 and falls to 101: the old peak is 100, so the trail of 10 % stood at 90."""
        bars: list[Row] = [*flat(100, 100), (100, 120, 101, 118), (118, 119, 107, 110), *flat(110)]
        played = one(bars, stops=[{"type": "trail", "pct": 0.1}])
        assert played.short_fills == [(1, 10, 100.0), (3, -10, 108.0)]

    def test_the_open_of_the_bar_counts_as_known(self) -> None:
        bars: list[Row] = [*flat(100, 100), (120, 121, 107, 110), *flat(110)]
        assert one(bars, stops=[{"type": "trail", "pct": 0.1}]).short_fills[1] == (2, -10, 108.0)

    def test_a_short_trails_from_above(self) -> None:
        bars: list[Row] = [*flat(100, 100), (100, 100, 80, 85), (85, 91, 84, 90), *flat(90)]
        played = one(bars, stops=[{"type": "trail", "abs": 10}], side="short", run={"account": "reg_t"})
        assert played.short_fills[1] == (3, 10, 90.0)

    def test_it_follows_the_shares_of_a_split(self) -> None:
        """Peak 120 before the split is 60 after it: 10 % below is 54, and a distance of 6 becomes 3."""
        bars: list[Row] = [*flat(100, 100), (100, 120, 100, 120), (60, 60, 53, 55), *flat(55)]
        split = [("AAA", day(3), "2:1")]
        assert one(bars, split, stops=[{"type": "trail", "pct": 0.1}]).short_fills[1] == (3, -20, 54.0)
        assert one(bars, split, stops=[{"type": "trail", "abs": 6}]).short_fills[1] == (3, -20, 57.0)


class TestMarketOrders:
    def test_a_bar_without_volume_fills_nothing_and_stops_nothing(self) -> None:
        bars: list[Row] = [*flat(100), (100, 100, 100, 100, 0), *flat(100)]
        played = one(bars)
        assert (played.fills, played.cell["counts"]) == ([], {"lapsed": 1, "lapsed_no_volume": 1})
        held: list[Row] = [*flat(100, 100), (50, 50, 50, 50, 0), (85, 86, 84, 85)]
        assert one(held, stops=[{"type": "stop", "pct": 0.1}]).short_fills[1] == (3, -10, 85.0)

    def test_a_missing_bar_lapses_the_order_after_one_session(self) -> None:
        played = one([*flat(100), None, *flat(100, 100)])
        assert (played.fills, played.cell["counts"]) == (
            [],
            {"lapsed": 1, "lapsed_no_bar": 1, "sessions_without_bar": 1},
        )

    def test_an_order_works_for_sessions_of_its_own_instrument(self) -> None:
        """A run around the clock: what Friday decides on a stock has not lapsed when Monday opens. A coin that misses
        its next day has."""
        assert day(4) == "2021-02-08"
        store = world({"AAA": [*flat(10, 10, 10, 10), None, *flat(12, 13)], "BBB": [*flat(10, 10, 10, 10), *flat(11)]})
        around = {"calendar_name": "24x7", "start": day(0)}
        put(store, {"CCC": [*flat(10, 10, 10, 10), None, *flat(12, 13)]}, **around)
        document = spec(["AAA", "BBB", "CCC"], sleeve(enter=on(3)), start=day(0), end=day(6), calendar="24x7")
        played = play(document, store)
        assert played.fills == [("BBB", 6, 10, 11.0)]
        hours = [int(one["done_ts"] - one["ts"]) / 3.6e12 for one in played.run.orders]
        assert hours == [72, 65.5, 24]  # to Monday's close and to its open; to Saturday's end
        assert played.cell["counts"] == {
            "lapsed": 2, "lapsed_no_bar": 2, "sessions_without_bar": 2, "sessions_after_last_bar": 4,
        }  # fmt: skip

    def test_exits_lapse_too_and_a_time_stop_asks_again(self) -> None:
        bars: list[Row] = [*flat(10, 10), (10, 10, 10, 10, 0), *flat(11, 12, 13)]
        assert one(bars, exit=on(1)).short_fills == [(1, 10, 10.0)]
        assert one(bars, stops=[{"type": "time", "bars": 1}]).short_fills == [(1, 10, 10.0), (3, -10, 11.0)]

    def test_orders_of_the_last_session_lapse_and_the_rest_is_marked(self) -> None:
        played = one(flat(10, 10, 12), exit=on(2))
        assert (played.short_fills, played.equity[-1], played.cell["counts"]) == (
            [(1, 10, 10.0)],
            10_020.0,
            {"lapsed": 1, "lapsed_at_end": 1},
        )
        assert played.full["open_trades"] == 1

    def test_never_in_the_bar_of_the_signal(self) -> None:
        """The trap of 1.1: a signal on close[t] is filled at open[t + 1], neither at close[t] nor at low[t]."""
        bars: list[Row] = [(10, 20, 5, 15), (17, 18, 16, 17), *flat(18)]
        assert one(bars, enter={"gt": ["close", "open"]}, sessions=2).short_fills == [(1, 10, 17.0)]


class TestTime:
    @pytest.mark.parametrize(("bars", "out"), [(1, 2), (2, 3), (3, 4)])
    def test_the_entry_bar_counts_one(self, bars: int, out: int) -> None:
        """When bars_held = n at a decision, the exit goes out, and fills at the next open."""
        played = one(flat(10, 11, 12, 13, 14, 15), stops=[{"type": "time", "bars": bars}])
        assert played.short_fills == [(1, 10, 11.0), (out, -10, 10.0 + out)]

    def test_own_bars_count_not_sessions(self) -> None:
        played = one([*flat(10, 11), None, None, *flat(14, 15)], stops=[{"type": "time", "bars": 2}])
        assert played.short_fills == [(1, 10, 11.0), (5, -10, 15.0)]
