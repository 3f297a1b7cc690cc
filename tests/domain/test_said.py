"""Numbers that may mislead are said: thin data, why nothing traded, calendars, splits that the prices do not show."""

from __future__ import annotations

from typing import Any

import pytest

from farm.columns.cache import ColumnCache
from farm.engine.ledger import COUNTS
from farm.results.remarks import COUNTED, remarks_of_trial
from farm.show import outcome_text
from farm.store.base import Store
from farm.values.errors import DataError, SpecError
from farm.work.run import BlockRunner, Outcome, run_in_process
from tests.domain.support import copy_of, day, flat, on, put, sleeve, spec, world

RISING = flat(*range(10, 30))


def outcome(document: dict[str, Any], store: Store) -> Outcome:
    return run_in_process(document, store, cache=ColumnCache(1 << 26))


def counts(made: Outcome, position: int = 0, trial: int = 0) -> dict[str, int]:
    found: dict[str, int] = made.document()["trials"][trial]["cells"][position]["counts"]
    return found


def said(made: Outcome) -> list[str]:
    trial = int(made.ranking.trials[0]) if made.ranking is not None else 0
    lines = remarks_of_trial(made.results, made.spec, trial)
    text = " ".join(outcome_text(made, 10).split())
    assert all(" ".join(line.split()) in text for line in lines), "what is said stands in the text"
    return lines


class TestWindowsBeyondTheBars:
    def test_counts_are_exact_and_lines_begin_at_six_sessions(self) -> None:
        """AAA has bars in the sessions 7 to 12 of a run of 18; BBB in 5 to 12."""
        bars = {"AAA": [*[None] * 7, *flat(*[10] * 6)], "BBB": [*[None] * 5, *flat(*[10] * 8)]}
        study = {"each": {"instrument": "u"}}
        made = outcome(spec(["AAA", "BBB"], sleeve(enter=on(8)), sessions=18, study=study), world(bars))
        assert counts(made, 0) == {"sessions_before_first_bar": 7, "sessions_after_last_bar": 5}
        assert counts(made, 1) == {"sessions_before_first_bar": 5, "sessions_after_last_bar": 5}
        assert made.document()["coverage"] == {
            name: {"first_bar": day(first), "last_bar": day(12), "sessions_before_first_bar": first,
                   "sessions_without_bar": 0, "sessions_after_last_bar": 5}
            for name, first in (("AAA", 7), ("BBB", 5))
        }  # fmt: skip
        [line] = said(made)
        assert line.startswith(f"AAA has no bar before {day(7)}: 7 of 18 sessions")

    def test_a_universe_adds_them_up_and_says_each(self) -> None:
        bars = {"AAA": flat(*[10] * 3), "BBB": flat(*[10] * 4), "CCC": flat(*[10] * 12)}
        made = outcome(spec(list(bars), sleeve(enter=on(0)), sessions=12), world(bars))
        assert counts(made)["sessions_after_last_bar"] == 9 + 8
        assert set(made.document()["coverage"]) == {"AAA", "BBB"}
        assert [line.partition(":")[0] for line in said(made)] == [
            f"AAA has no bar after {day(2)}", f"BBB has no bar after {day(3)}",
        ]  # fmt: skip

    def test_history_counts_as_bars_and_later_rows_change_nothing(self) -> None:
        """The bars begin before the run, and end in it; a bar after the run does not fill the gap."""
        store = world({"AAA": flat(*[10] * 12)}, start=day(-4))
        document = spec(["AAA"], sleeve(enter=on(1)), sessions=16)
        before = outcome(document, store)
        assert counts(before) == {"sessions_after_last_bar": 8}
        put(store, {"AAA": flat(11, 12)}, start=day(18))
        after = outcome(document, store)
        assert after.stats.cells_computed == 0
        assert after.document()["trials"] == before.document()["trials"]
        assert after.document()["coverage"] == before.document()["coverage"]

    def test_the_last_bar_may_lie_in_a_month_that_goes_on_after_the_run(self) -> None:
        bars = [*flat(*[10] * 3), *[None] * 9, *flat(10)]
        made = outcome(spec(["AAA"], sleeve(enter=on(0)), sessions=11), world({"AAA": bars}))
        assert counts(made) == {"sessions_after_last_bar": 8}

    def test_what_ended_before_the_run_is_not_said_to_be_held(self) -> None:
        store = world({"AAA": RISING, "OLD": flat(10, 10)}, start=day(-4))
        made = outcome(spec(["AAA", "OLD"], sleeve(enter=on(0)), sessions=10), store)
        assert said(made) == [f"OLD has no bar after {day(-3)}: 10 of 10 sessions; nothing of it is traded"]

    def test_the_benchmark_has_its_own(self) -> None:
        store = world({"AAA": RISING, "SPY": [*[None] * 9, *RISING[9:]]})
        made = outcome(spec(["AAA"], sleeve(enter=on(0)), sessions=20, benchmark="SPY"), store)
        assert counts(made) == {"benchmark_sessions_before_first_bar": 9}
        assert said(made) == [
            f"SPY, the benchmark, has no bar before {day(9)}: 9 of 20 sessions; comparisons leave them out"
        ]

    def test_what_a_condition_names_is_said_and_is_no_count_of_the_cell(self) -> None:
        store = world({"AAA": RISING, "VIX": RISING[:4]})
        above = {"gt": [{"f": "close", "sym": "VIX"}, 1]}
        made = outcome(spec(["AAA"], sleeve(enter=above), sessions=20), store)
        assert "sessions_after_last_bar" not in counts(made)
        assert said(made) == [
            f"VIX, which conditions name, has no bar after {day(3)}: 16 of 20 sessions; it is unknown then"
        ]

    def test_a_window_full_of_bars_says_nothing(self) -> None:
        made = outcome(spec(["AAA"], sleeve(enter=on(0)), sessions=20), world({"AAA": RISING}))
        assert (counts(made), said(made), made.document()["coverage"]) == ({}, [], {})


def holed(*bars: int, sessions: int) -> list[Any]:
    """Bars in these sessions of so many, and in no others."""
    return [(10, 10, 10, 10) if session in bars else None for session in range(sessions)]


class TestHolesBetweenTheBars:
    def test_they_are_counted_and_lines_begin_at_six(self) -> None:
        """AAA lacks 6 of the sessions 0 to 11, BBB 5 of those, and both what comes after them."""
        bars = {"AAA": holed(0, 4, 5, 6, 10, 11, sessions=14), "BBB": holed(0, 1, 2, 3, 4, 9, 11, sessions=14)}
        study = {"each": {"instrument": "u"}}
        made = outcome(spec(["AAA", "BBB"], sleeve(enter=on(0)), sessions=14, study=study), world(bars))
        assert counts(made, 0) == {"lapsed": 1, "lapsed_no_bar": 1, "sessions_without_bar": 6,
                                   "sessions_after_last_bar": 2}  # fmt: skip
        assert counts(made, 1) == {"sessions_without_bar": 5, "sessions_after_last_bar": 2}
        assert made.document()["coverage"]["BBB"] == {
            "first_bar": day(0), "last_bar": day(11), "sessions_before_first_bar": 0, "sessions_without_bar": 5,
            "sessions_after_last_bar": 2,
        }  # fmt: skip
        [line] = said(made)
        assert line == (
            f"AAA has no bar in some sessions from {day(0)} to {day(11)}: 6 of 14 sessions; orders lapse in them, and "
            "what is held stays at the close before"
        )

    @pytest.mark.parametrize("start", [0, 4, 7, 20, 33])
    @pytest.mark.parametrize("end", [33, 36, 44, 45])
    def test_only_those_of_the_window_count(self, start: int, end: int) -> None:
        """The window may begin and end inside a month with holes (February has 19 sessions from the first on, March
        23), inside one without (March to session 36), in one month, and past the last bar (session 44)."""
        held = [0, 1, 5, 6, 7, 11, 17, 18, *range(19, 36), 38, 40, 41, 44]
        store = world({"AAA": holed(*held, sessions=46)})
        document = spec(["AAA"], sleeve(enter=True), sessions=end + 1)
        document["run"] |= {"start": day(start), "end": day(end)}
        last = max(bar for bar in held if bar <= end)
        expected = sum(session not in held for session in range(start, last + 1))
        assert counts(outcome(document, store)).get("sessions_without_bar", 0) == expected

    def test_bars_of_weeks_are_guessed(self) -> None:
        store = world({"AAA": holed(*range(2, 40, 5), sessions=40), "SPY": holed(*range(40), sessions=40)})
        made = outcome(spec(["AAA"], sleeve(enter=True), sessions=40), store)
        [line] = [line for line in said(made) if "in some sessions" in line]
        assert line.endswith("28 of 40 sessions; orders lapse in them, and what is held stays at the close before; are "
                             "these bars of weeks or months?")  # fmt: skip

    def test_the_benchmark_and_what_a_condition_names(self) -> None:
        store = world({"AAA": RISING, "SPY": holed(0, 8, 19, sessions=20), "VIX": holed(0, 3, 19, sessions=20)})
        above = sleeve(enter={"gt": [{"f": "close", "sym": "VIX"}, 1]})
        made = outcome(spec(["AAA"], above, sessions=20, benchmark="SPY"), store)
        assert counts(made) == {"benchmark_sessions_without_bar": 17}
        assert [line.partition(";")[0] for line in said(made)] == [
            f"{who} has no bar in some sessions from {day(0)} to {day(19)}: 17 of 20 sessions"
            for who in ("SPY, the benchmark,", "VIX, which conditions name,")
        ]
        assert "comparisons leave them out, and the next return spans the gap" in said(made)[0]

    def test_its_own_calendar_says_what_a_session_is(self) -> None:
        """A stock in a run around the clock lacks no weekend, and the one Wednesday that it does lack."""
        store = TestCalendars().coin()
        put(store, {"CCC": [*flat(10), None, *flat(10, 10, 10, 10)]})
        document = spec(["AAA", "CCC"], sleeve(enter=on(0)), sessions=6, calendar="24x7", session="24x7")
        assert counts(outcome(document, store))["sessions_without_bar"] == 1


class TestNoTrade:
    def test_bars_without_volume(self) -> None:
        bars = [(10, 11, 9, 10, 0)] * 5
        made = outcome(spec(["AAA"], sleeve(enter=True), sessions=5), world({"AAA": bars}))
        assert counts(made) == {"lapsed": 5, "lapsed_no_volume": 4, "lapsed_at_end": 1}
        [line] = said(made)
        assert line.startswith("no trade: 5 orders lapsed, of which 4 met only bars without volume (FX and indices")

    def test_a_warm_up_that_is_longer_than_the_data(self) -> None:
        """A mean of 21 bars over 3 bars of history and 17 of the run is never known; over 4 and 17 it is, once."""
        above = sleeve(enter={"gt": ["close", {"i": "sma", "n": 21}]})
        store = world({"AAA": RISING}, start=day(-3))
        made = outcome(spec(["AAA"], above, sessions=17), store)
        assert counts(made) == {"enter_never_known": 1}
        until = f"until {day(16)}"
        assert said(made) == [f"no trade: the entry condition was never known (it needs 21 bars, AAA has 20 {until})"]
        more = outcome(spec(["AAA"], above, sessions=17), world({"AAA": flat(*range(10, 31))}, start=day(-4)))
        assert "enter_never_known" not in counts(more)

    def test_bars_after_the_run_are_not_history(self) -> None:
        """There are 20 bars in the dataset, and 6 of them until the end of the run, within one month."""
        above = sleeve(enter={"gt": ["close", {"i": "sma", "n": 9}]})
        made = outcome(spec(["AAA"], above, sessions=6), world({"AAA": RISING}))
        assert said(made) == [
            f"no trade: the entry condition was never known (it needs 9 bars, AAA has 6 until {day(5)})"
        ]

    def test_a_condition_that_was_never_true(self) -> None:
        study = {"each": {"instrument": "u"}}
        high = sleeve(enter={"gt": ["close", 1000]})
        made = outcome(spec(["AAA", "BBB"], high, sessions=9, study=study), world({"AAA": RISING, "BBB": RISING}))
        assert counts(made, 0) == counts(made, 1) == {"enter_never_true": 1}
        assert said(made) == ["no trade: 2 entry conditions were never true"]

    def test_either_side_of_a_sleeve_is_an_entry(self) -> None:
        both = sleeve(side="both", enter={"gt": ["close", 1000]}, enter_short=on(1))
        made = outcome(spec(["AAA"], both, sessions=9, account="reg_t"), world({"AAA": RISING}))
        assert (counts(made), said(made)) == ({}, [])

    def test_no_money(self) -> None:
        made = outcome(spec(["AAA"], sleeve(enter=on(0)), sessions=9, cash=5), world({"AAA": RISING}))
        [line] = said(made)
        assert line == "no trade: rejected 1: orders of which the money covered not one lot"

    def test_an_order_that_meets_no_bar(self) -> None:
        made = outcome(spec(["AAA"], sleeve(enter=on(0)), sessions=4), world({"AAA": [*flat(10), None, *flat(10, 10)]}))
        assert counts(made) == {"lapsed": 1, "lapsed_no_bar": 1, "sessions_without_bar": 1}

    def test_a_split_that_takes_an_order_away_is_none_of_these(self) -> None:
        store = world({"AAA": flat(10, 100, 100)}, splits=[("AAA", day(1), "1:10")])
        small = sleeve(enter=on(0), size={"mode": "qty", "v": 7})
        assert counts(outcome(spec(["AAA"], small, sessions=3), store)) == {"lapsed": 1}

    def test_counts_stand_in_the_text_of_who_did_trade(self) -> None:
        bars = [*flat(10), (10, 10, 10, 10, 0), *flat(*[10] * 6)]
        made = outcome(spec(["AAA"], sleeve(enter=on(0, 3)), sessions=8), world({"AAA": bars}))
        assert said(made) == []
        text = outcome_text(made, 10)
        assert "counted      lapsed 1: orders that no price filled in time" in text
        assert "counted      lapsed_no_volume 1: of these, orders that met only bars without volume" in text


def test_every_count_of_the_engine_has_words() -> None:
    assert set(COUNTS) <= set(COUNTED)


class TestSplits:
    def test_without_any_it_is_assumed(self) -> None:
        bars = {"AAA": RISING, "BBB": RISING}
        document = spec(["AAA"], sleeve(enter=on(0)), sessions=9)
        for splits, assumed in (([], True), ([("BBB", day(3), "2:1")], False)):
            cell = outcome(document, world(bars, splits=splits)).document()["trials"][0]["cells"][0]
            assert ("no_splits" in cell["assumptions"]) is assumed

    def test_prices_that_were_adjusted_before_they_came(self) -> None:
        """4:1: the price stays, or falls to a quarter; the same of 1:5; the first day is not asked about."""
        history = sleeve(enter={"gt": ["close", {"i": "sma", "n": 2}]})
        for ratio, plain, adjusted in (("4:1", (100, 26), (100, 102)), ("1:5", (10, 48), (10, 11))):
            for prices, doubtful in ((plain, 0), (adjusted, 1)):
                bars = flat(prices[0], prices[0], prices[1], prices[1])
                document = spec(["AAA"], sleeve(enter=on(0)), sessions=4)
                made = outcome(document, world({"AAA": bars}, splits=[("AAA", day(2), ratio)]))
                assert counts(made).get("split_doubtful", 0) == doubtful, (ratio, prices)
                assert len(said(made)) == doubtful
                early = world({"AAA": bars}, start=day(-2), splits=[("AAA", day(0), ratio)])
                assert "split_doubtful" not in counts(outcome(spec(["AAA"], history, sessions=2), early))


class TestCalendars:
    def coin(self) -> Store:
        always = [{"symbol": "BTC", "calendar": "24x7"}]
        store = world({"BTC": flat(*[100] * 12)}, instruments=always, calendar_name="24x7")
        put(store, {"AAA": flat(*[10] * 8)})
        return store

    def test_around_the_clock_in_exchange_sessions_is_refused(self) -> None:
        """With the exchange's calendar at hand, where it would run, and without it."""
        store = self.coin()
        for place, document in (
            ("traded", spec(["BTC"], sleeve(enter=on(0)))),
            ("among others", spec(["AAA", "BTC"], sleeve(enter=on(0)))),
        ):
            with pytest.raises(SpecError) as caught:
                outcome(document, copy_of(store))
            error = caught.value
            assert error.place == "run.calendar", place
            assert "BTC trades around the clock (calendar 24x7)" in error.message
            assert "sessions of XNYS, the default" in error.message
            assert 'set run.calendar to "24x7" and run.session to "24x7"' in error.hint
        always = {"calendar_name": "24x7"}
        alone = world({"BTC": flat(*[100] * 4)}, instruments=[{"symbol": "BTC", "calendar": "24x7"}], **always)
        with pytest.raises(SpecError, match="BTC trades around the clock"):
            outcome(spec(["BTC"], sleeve(enter=on(0))), alone)

    def test_stocks_around_the_clock_are_legal_and_a_coin_may_be_looked_at(self) -> None:
        store = self.coin()
        made = outcome(spec(["AAA", "BTC"], sleeve(enter=on(0)), sessions=12, calendar="24x7", session="24x7"), store)
        assert "other_calendar" not in counts(made)
        look = {"gt": [{"f": "close", "sym": "BTC"}, 1]}
        assert said(outcome(spec(["AAA"], sleeve(enter=look), sessions=8), store)) == []

    def test_a_benchmark_that_trades_at_weekends_is_held_against_sessions(self) -> None:
        """The coin gains 1 a day from Tuesday on; the return of Monday, session 4, is that since Friday."""
        store = world({"BTC": flat(*range(100, 112))}, instruments=[{"symbol": "BTC", "calendar": "24x7"}],
                      calendar_name="24x7")  # fmt: skip
        put(store, {"AAA": flat(*range(100, 104), 106, 107, 108, 109)})
        made = outcome(spec(["AAA"], sleeve(enter=True, size={"mode": "qty", "v": 1}), benchmark="BTC"), store)
        full = made.document()["trials"][0]["cells"][0]["metrics"]["full"]
        assert full["beta"] is not None
        [line] = said(made)
        assert line.startswith(
            "BTC, the benchmark: on the calendar 24x7; its closes come at other hours than those of XNYS"
        )
        shared = BlockRunner(store, cache=ColumnCache(1 << 26)).context(made.study).market(0)
        assert shared.benchmark is not None
        assert shared.benchmark[4] == (106 - 103) / 103

    def test_two_exchanges_are_said(self) -> None:
        store = world({"AAA": flat(*[10] * 8)})
        put(store, {"VOD": flat(*[10] * 8)}, instruments=[{"symbol": "VOD", "calendar": "XLON"}], calendar_name="XLON")
        study = {"each": {"instrument": "u"}}
        made = outcome(spec(["AAA", "VOD"], sleeve(enter=on(0)), study=study), store)
        assert ("other_calendar" in counts(made, 0), counts(made, 1)["other_calendar"]) == (False, 1)
        assert any(
            line.startswith("VOD: on the calendar XLON, while sessions and metrics are those of XNYS")
            for line in said(made)
        )

    def test_a_calendar_that_nothing_trades_on(self) -> None:
        with pytest.raises(DataError, match="no instrument of the dataset trades on the calendar 'XLON'") as caught:
            outcome(spec(["AAA"], sleeve(), calendar="XLON", end=day(3)), world({"AAA": RISING}))
        assert (caught.value.place, caught.value.allowed) == ("run.calendar", '"XNYS"')

    def test_of_the_calendars_there_are_that_of_the_tickers_is_named(self) -> None:
        store = world({"BTC": flat(*[10] * 8)}, instruments=[{"symbol": "BTC", "calendar": "24x7"}],
                      calendar_name="24x7")  # fmt: skip
        put(store, {"AAA": flat(*[10] * 8)})
        with pytest.raises(DataError, match="no instrument") as caught:
            outcome(spec(["AAA"], sleeve(), calendar="XNAS", end=day(3)), store)
        assert caught.value.hint == 'set run.calendar to "XNYS"'
