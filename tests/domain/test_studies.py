"""domain.md 2.6, 3.7, 4.1, 5 on the public path: cells, buckets, objectives, keys, metrics by hand, the GOOG rule."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from farm.columns.cache import ColumnCache
from farm.shard import change
from farm.shard.ingest import ingest_table
from farm.store.base import Store
from farm.store.open import open_store
from farm.values.errors import SpecError
from farm.work.run import run_in_process
from tests.domain.support import calendar, copy_of, day, flat, on, play, put, sleeve, spec, world

CASH = 10_000
WALK = [100, 101, 99, 102, 98, 103, 97, 104, 104, 95, 99, 105]


def trials(document: dict[str, Any], store: Store) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_in_process(document, store, cache=ColumnCache(1 << 26)).document()["trials"]
    return found


class TestCells:
    """Obligation 2: a trial alone, and an instrument alone, have the bits they have in any study."""

    def study(self) -> tuple[Store, dict[str, Any]]:
        random = np.random.default_rng(11)
        bars = {
            name: flat(*np.round(50 * np.cumprod(1 + random.normal(0, 0.02, 290)), 2).tolist())
            for name in ("AAA", "BBB", "CCC")
        }
        bars["CCC"][:200] = [None] * 200
        store = world(bars, start=day(-230), splits=[("BBB", day(-100), "3:2"), ("AAA", day(20), "7:5")],
                      dividends=[("AAA", day(11), 0.35, day(14)), ("BBB", day(-40), 1.1, None)])  # fmt: skip
        fast: dict[str, Any] = {"i": "$kind", "n": "$n"}
        enter = {"any": [{"cross_up": ["close", fast]}, {"gt": [{"i": "rsi", "n": "$n", "sym": "$look"}, 62]}]}
        leave = {"lt": [{"i": "ema", "n": 5, "of": "close_tr"}, {"i": "ema", "n": "$n", "of": "close_tr"}]}
        made = sleeve(
            enter=enter, exit=leave, size={"mode": "pct_equity", "v": 0.9}, stops=[{"type": "trail", "pct": 0.06}]
        )
        params = {"n": {"choice": [2, 9, 21]}, "kind": {"choice": ["ema", "sma"]}, "look": {"choice": ["BBB", "CCC"]}}
        document = spec(["AAA", "BBB", "CCC"], made, sessions=55, params=params, benchmark="BBB", costs={"bps": 5},
                        study={"each": {"instrument": "u"}, "split": {"mode": "chronological", "is": 0.6}})  # fmt: skip
        return store, document

    def test_alone_and_together(self) -> None:
        store, document = self.study()
        together = trials(document, store)
        assert sum(cell["metrics"]["full"]["fills"] for trial in together for cell in trial["cells"]) > 300
        for trial in together:
            alone = copy.deepcopy(document)
            for name, value in trial["params"].items():
                alone["strategy"]["params"][name] = {"choice": [value]}
            assert trials(alone, copy_of(store)) == [trial]
        for position, cell in enumerate(together[4]["cells"]):
            single = without_params(document, together[4]["params"])
            del single["study"]["each"]
            single["strategy"]["universes"][0]["tickers"] = [cell["instrument"]]
            found = trials(single, copy_of(store))[0]["cells"][0]
            for what in ("fingerprint", "metrics", "counts", "equity_end", "verdict"):
                assert found[what] == cell[what], (position, what)

    def test_an_instrument_by_its_id_is_the_same_cell(self) -> None:
        store = world({"AAA": flat(*WALK)}, instruments=[{"symbol": "AAA", "id": "US-1"}])
        document = spec(["AAA"], sleeve(enter=on(0)), study={"each": {"instrument": "u"}})
        named = copy.deepcopy(document)
        named["strategy"]["universes"][0]["tickers"] = ["US-1"]
        assert play(named, store).cell == play(document, store).cell

    def test_a_universe_names_an_instrument_once(self) -> None:
        store = world({"AAA": flat(*WALK)}, instruments=[{"symbol": "AAA", "id": "US-1"}])
        with pytest.raises(SpecError, match="'US-1' and 'AAA' are one instrument"):
            play(spec(["AAA", "US-1"], sleeve(enter=on(0))), store)

    def test_no_bar_in_the_window_is_a_verdict(self) -> None:
        store = world({"AAA": flat(*WALK), "NEW": [*[None] * 10, *flat(5, 6)]})
        document = spec(
            ["AAA", "NEW"],
            sleeve(enter=on(0)),
            sessions=8,
            study={"each": {"instrument": "u"}, "objective": {"max": "cagr"}},
        )
        (trial,) = trials(document, store)
        assert [cell["verdict"] for cell in trial["cells"]] == [None, "no_data"]
        assert trial["objective"] == trial["cells"][0]["metrics"]["full"]["cagr"]


def without_params(document: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The document with numbers in place of its parameters."""
    plain = copy.deepcopy(document)
    del plain["strategy"]["params"]

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return values[value[1:]] if isinstance(value, str) and value.startswith("$") else value

    plain["strategy"]["sleeves"] = fill(plain["strategy"]["sleeves"])
    return plain


class TestSpace:
    def test_integer_ranges_include_hi_and_names_are_in_order(self) -> None:
        store = world({"AAA": flat(*WALK)})
        params = {"b": {"int": [2, 9, 4]}, "a": {"int": [1, 2]}}
        made = sleeve(enter={"gt": [{"i": "sma", "n": "$a"}, {"i": "sma", "n": "$b"}]})
        found = trials(spec(["AAA"], made, params=params), store)
        assert [trial["params"] for trial in found] == [{"a": a, "b": b} for a in (1, 2) for b in (2, 6, 9)]

    def test_a_trial_is_its_parameters(self) -> None:
        """Two that mean the same by chance are two; those that differ in what the strategy does not use are one."""
        store = world({"AAA": flat(*WALK)})
        made = sleeve(enter={"all": [{"gt": ["close", "$a"]}, {"gt": ["close", "$b"]}]})
        params = {"a": {"choice": [98, 101]}, "b": {"choice": [98, 101]}, "idle": {"choice": [1, 2]}}
        found = trials(spec(["AAA"], made, params=params), store)
        pairs = [(trial["params"]["a"], trial["params"]["b"]) for trial in found]
        assert pairs == [(98, 98), (98, 101), (101, 98), (101, 101)]
        assert found[1]["fingerprint"] == found[2]["fingerprint"] and found[1]["key"] != found[2]["key"]

    def test_constraints_come_first(self) -> None:
        store = world({"AAA": flat(*WALK)})
        document = spec(
            ["AAA"], sleeve(enter={"gt": ["close", {"i": "sma", "n": "$a"}]}), params={"a": {"int": [2, 5]}}
        )
        document["strategy"]["constraints"] = [{"gt": ["$a", 3]}]
        assert [trial["params"] for trial in trials(document, store)] == [{"a": 4}, {"a": 5}]


class TestObjective:
    def test_ties_go_to_the_lower_number_and_nothing_traded_is_last(self) -> None:
        """Closes above 99.5 are the closes above 99.75: the same trades. None is above 200: no Sharpe ratio."""
        store = world({"AAA": flat(*WALK)})
        made = sleeve(enter={"gt": ["close", "$level"]}, size={"mode": "qty", "v": 5})
        document = spec(["AAA"], made, sessions=12, params={"level": {"choice": [200, 99.5, 99.75]}},
                        study={"objective": {"max": "sharpe"}})  # fmt: skip
        outcome = run_in_process(document, store, cache=ColumnCache(1 << 26))
        found = outcome.document()["trials"]
        assert found[0]["objective"] is None
        assert found[1]["objective"] == found[2]["objective"]
        assert outcome.leaderboard(3).column("trial").to_pylist() == [1, 2, 0]

    @pytest.mark.parametrize(("over", "value"), [("median", 0.005), ("mean", 0.0), ("min", -0.02), ("max", 0.01)])
    def test_over_the_cells_of_an_each_study(self, over: str, value: float) -> None:
        """Ten shares bought at 100 and ending at 110, 80, 105, 105 (one without bars): 1 %, -2 %, 0.5 %, 0.5 %."""
        bars = {
            "AAA": flat(100, 100, 110),
            "BBB": flat(100, 100, 80),
            "CCC": flat(100, 100, 105),
            "DDD": flat(100, 100, 105),
        }
        store = world(bars | {"EEE": [None] * 10 + flat(5)})
        study = {"each": {"instrument": "u"}, "objective": {"max": "total_return", "over": over}}
        document = spec([*bars, "EEE"], sleeve(enter=on(0)), sessions=3, study=study)
        assert trials(document, store)[0]["objective"] == pytest.approx(value, abs=1e-12)


class TestBuckets:
    """Ten shares held from session 1 on, sold on 4, held again from 6: equity moves ten times the price."""

    def cell(self, share: float, embargo: int) -> dict[str, Any]:
        store = world({"AAA": flat(*WALK)})
        split = {"mode": "chronological", "is": share, "embargo": embargo}
        document = spec(["AAA"], sleeve(enter=on(0, 5), exit=on(3)), sessions=12, study={"split": split})
        found: dict[str, Any] = play(document, store).cell["metrics"]
        return found

    def test_the_first_floor_of_share_times_n(self) -> None:
        """12 x 0.45 = 5.4: five sessions. Entries of session 1 (closed) and 6 (open) fall on either side."""
        made = self.cell(0.45, 0)
        assert [made[name]["trades"] for name in ("full", "is", "oos")] == [1, 1, 0]
        assert [made[name]["open_trades"] for name in ("full", "is", "oos")] == [1, 0, 1]
        # Bought at 101, sold at the open of session 4 at 98; bought at the open of session 6 at 97, now 105.
        ends = [(98 - 101) * 10, (98 - 101) * 10 + (105 - 97) * 10]
        assert made["is"]["total_return"] == pytest.approx(ends[0] / CASH)
        assert made["oos"]["total_return"] == pytest.approx((CASH + ends[1]) / (CASH + ends[0]) - 1)
        assert made["full"]["total_return"] == pytest.approx(ends[1] / CASH)
        assert [made[name]["tim"] for name in ("is", "oos")] == pytest.approx([4 / 5, 6 / 7])
        assert [made[name]["orders"] for name in ("full", "is", "oos")] == [3, 2, 1]

    def test_the_embargo_drops_sessions_on_both_sides_from_scoring_alone(self) -> None:
        made = self.cell(0.5, 2)
        equity = [0, 0, -20, 10, -30, -30, -30, 40, 40, -50, -10, 50]
        total = [CASH + value for value in equity]
        assert made["full"]["total_return"] == pytest.approx(total[-1] / CASH - 1)
        assert made["is"]["total_return"] == pytest.approx(total[3] / CASH - 1)
        assert made["oos"]["total_return"] == pytest.approx(total[11] / total[7] - 1)
        worst = max((max(total[7 : k + 1]) - total[k]) / max(total[7 : k + 1]) for k in range(7, 12))
        assert made["oos"]["max_dd"] == pytest.approx(worst)
        assert (made["is"]["trades"], made["oos"]["open_trades"]) == (1, 0)


class TestMetrics:
    def test_by_hand(self) -> None:
        """Ninety shares from session 1 (101) to 10 (99); 5 bps a side; a benchmark; rf 3 %."""
        spy = [50, 50.5, 50.25, 51, 50, 51, 49.5, 51, 51.5, 50, 50.5, 52]
        store = world({"AAA": [None, *flat(*WALK)], "SPY": flat(49, *spy)}, start=day(-1))
        made = sleeve(enter=on(0), exit=on(9), size={"mode": "qty", "v": 90})
        played = play(spec(["AAA"], made, sessions=12, benchmark="SPY", rf=0.03, costs={"bps": 5}), store)
        fee_in, fee_out = 90 * 101 * 0.0005, 90 * 99 * 0.0005
        equity = np.array([CASH, *(CASH - fee_in + 90 * (price - 101) for price in WALK[1:10])])
        equity = np.append(equity, [CASH - fee_in - fee_out + 90 * (99 - 101)] * 2)
        assert played.equity == pytest.approx(equity.tolist(), abs=1e-6)
        r = np.diff(np.insert(equity, 0, CASH)) / np.insert(equity, 0, CASH)[:-1]
        b = np.diff([49, *spy]) / np.array([49, *spy])[:-1]
        rf = 1.03 ** (1 / 252) - 1
        peak = np.maximum.accumulate(np.insert(equity, 0, CASH))[1:]
        full = played.full
        beta = np.cov(r, b, ddof=1)[0, 1] / np.var(b, ddof=1)
        want = {
            "total_return": equity[-1] / CASH - 1,
            "cagr": (equity[-1] / CASH) ** (252 / 12) - 1,
            "vol": np.std(r, ddof=1) * math.sqrt(252),
            "sharpe": np.mean(r - rf) / np.std(r, ddof=1) * math.sqrt(252),
            "sortino": np.mean(r - rf) / math.sqrt(np.mean(np.minimum(r - rf, 0) ** 2)) * math.sqrt(252),
            "max_dd": ((peak - equity) / peak).max(),
            "ulcer": math.sqrt(np.mean(((peak - equity) / peak) ** 2)),
            "var95": np.percentile(r, 5),
            "cvar95": np.sort(r)[: math.floor(0.05 * 11) + 1].mean(),
            "tail_ratio": abs(np.percentile(r, 95)) / abs(np.percentile(r, 5)),
            "beta": beta,
            "alpha": (1 + np.mean((r - rf) - beta * (b - rf))) ** 252 - 1,
            "tracking_error": np.std(r - b, ddof=1) * math.sqrt(252),
            "ir": np.mean(r - b) / np.std(r - b, ddof=1) * math.sqrt(252),
            "expectancy": equity[-1] - CASH,
            "expectancy_pct": (equity[-1] - CASH) / (90 * 101),
            "win_rate": 0.0,
            "profit_factor": 0.0,
            "tim": 10 / 12,
            "timar": ((equity[-1] / CASH) ** 21 - 1) / (10 / 12),
            "timar_geo": (equity[-1] / CASH) ** (252 / 10) - 1,
            "exposure": np.sum(90 * np.array(WALK[1:10]) / equity[1:10]) / 12,
            "turnover": (90 * 101 + 90 * 99) / (2 * equity.mean()) * 252 / 12,
            "fees": fee_in + fee_out,
            "orders": 2, "fills": 2, "trades": 1, "open_trades": 0,
        }  # fmt: skip
        want["calmar"] = want["cagr"] / want["max_dd"]
        assert {name: full[name] for name in want} == pytest.approx(want, rel=1e-9, abs=1e-12)

    def test_drawdown_from_its_peak_to_the_session_that_is_as_high_again(self) -> None:
        """Ten shares from 100: gains of 0, 0, 10, -10, 20, 20, 10, 10, 30, 20, 20."""
        store = world({"AAA": flat(100, 100, 101, 99, 102, 102, 101, 101, 103, 102, 102)})
        full = play(spec(["AAA"], sleeve(enter=on(0)), sessions=11), store).full
        # Sessions 2 to 4 (Thursday to Monday), 5 to 8 (Tuesday to Friday), and 8 to the end, Friday 12th to Wednesday
        # 17th over a holiday: the longest in sessions is the second, in days the third.
        assert (full["dd_duration"], full["dd_duration_days"]) == (3, 5)

    def test_growth_beyond_float64_is_null(self) -> None:
        """Ten times in three sessions, on a year of 100,000 of them: no number, so none is made up."""
        store = world({"AAA": flat(1, 1, 10)})
        size = {"mode": "pct_equity", "v": 1.0}
        full = play(spec(["AAA"], sleeve(enter=on(0), size=size), sessions=3, ann=100_000), store).full
        assert (full["cagr"], full["timar"], full["timar_geo"]) == (None, None, None)
        assert full["total_return"] == 9.0

    def test_nothing_traded(self) -> None:
        full = play(spec(["AAA"], sessions=6), world({"AAA": flat(*WALK)})).full
        zeros = {
            "total_return",
            "cagr",
            "vol",
            "max_dd",
            "dd_duration",
            "tim",
            "exposure",
            "turnover",
            "fees",
            "ulcer",
            "trades",
        }
        nulls = {
            "sharpe",
            "sortino",
            "calmar",
            "tail_ratio",
            "win_rate",
            "profit_factor",
            "expectancy",
            "timar",
            "beta",
            "ir",
        }
        assert {name: full[name] for name in zeros} == dict.fromkeys(zeros, 0.0)
        assert {name: full[name] for name in nulls} == dict.fromkeys(nulls)


class TestKeys:
    def test_rows_after_the_end_change_no_key_and_no_bit(self) -> None:
        """A split, a dividend and bars with more decimals arrive later; so does a fall that a stop would have seen."""
        store = world({"AAA": flat(*WALK[:8]), "BBB": flat(*WALK[:8])}, splits=[("BBB", day(3), "3:2")],
                      dividends=[("BBB", day(3), 0.5, None)])  # fmt: skip
        made = sleeve(enter={"gt": ["close", {"i": "ema", "n": 3}]}, stops=[{"type": "stop", "pct": 0.03}])
        document = spec(["AAA"], made, sessions=8, warmup="settle")
        before = play(document, store)
        put(store, {"AAA": flat(51.123456, 49.5, 30), "CCC": flat(7, 8, 9)}, start=day(8),
            splits=[("AAA", day(8), "7:3")], dividends=[("AAA", day(9), 0.25, None)])  # fmt: skip
        after = play(document, store)
        assert after.document["snapshot"] != before.document["snapshot"]
        assert after.trial == before.trial
        assert after.document["farm"]["cells"]["computed"] == 0

    def test_rows_inside_the_window_change_it(self) -> None:
        bars = {"AAA": flat(*WALK[:5], None, *WALK[6:])}
        document = spec(["AAA"], sleeve(enter=on(0)), sessions=12)
        store = world(bars)
        before = play(document, store)
        put(store, {"AAA": flat(103)}, start=day(5))
        after = play(document, store)
        assert after.cell["key"] != before.cell["key"]


@pytest.mark.slow
def test_the_rule_on_which_three_engines_agree() -> None:
    """Section 5: SMA 10/30 on GOOG, 10 shares, 10 bps, cash 10,000: 32 closed trades, 17,430.0841."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = pytest.importorskip("backtesting.test").GOOG
    columns = {name.lower(): frame[name].tolist() for name in ("Open", "High", "Low", "Close", "Volume")}
    table = pa.table({"symbol": ["GOOG"] * len(frame), "ts": [one.date() for one in frame.index], **columns})
    store = open_store("memory:domain-goog")
    change.freeze_calendar, kept = calendar, change.freeze_calendar
    try:
        ingest_table(store, "main", table, "stock_daily", tz="America/New_York", stamp="start")
    finally:
        change.freeze_calendar = kept
    fast, slow = {"i": "sma", "n": 10}, {"i": "sma", "n": 30}
    made = sleeve(enter={"cross_up": [fast, slow]}, exit={"cross_dn": [fast, slow]})
    document = spec(["GOOG"], made, start="2004-08-19", end="2013-03-01", costs={"bps": 10})
    played = play(document, store)
    assert (played.full["trades"], played.full["open_trades"]) == (32, 1)
    assert played.equity[-1] == 17_430.0841
