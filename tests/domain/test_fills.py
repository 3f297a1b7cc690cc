"""domain.md 3.4 by hand: which print an order, a stop or a target trades at, on the public path."""

from __future__ import annotations

from typing import Any

import pytest

from farm.engine.ledger import Kind
from tests.domain.support import Played, Row, day, flat, on, play, sleeve, spec, world


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
        assert played.short_fills == [(1, -10, 100.0), (2, 10, pytest.approx(110.0))]
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
        assert played.exits == [Kind.STOP]
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
        assert up.short_fills[1] == (1, -10, pytest.approx(110.0))
        assert up.exits == [Kind.TARGET]

    def test_slippage_worsens_stops_and_opens_but_no_limit(self) -> None:
        run = {"exec": {"slip_bps": 100}}
        stopped = one([*flat(100, 100), (95, 96, 80, 95), *flat(95)], stops=[{"type": "stop", "abs": 10}], run=run)
        assert stopped.short_fills == [(1, 10, 101.0), (2, -10, 91 * 0.99)]
        target = one([*flat(100, 100), (100, 130, 99, 95), *flat(95)], stops=[{"type": "target", "abs": 10}], run=run)
        assert target.short_fills[1] == (2, -10, 111.0)

    def test_of_two_stops_the_nearer_one_trades(self) -> None:
        stops = [{"type": "stop", "abs": 20}, {"type": "trail", "abs": 5}]
        played = one([*flat(100, 100), (99, 100, 70, 75), *flat(75)], stops=stops)
        assert (played.short_fills[1], played.exits) == ((2, -10, 95.0), [Kind.TRAIL])

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
        assert (played.fills, played.cell["counts"]) == ([], {"lapsed": 1, "lapsed_no_bar": 1})

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
