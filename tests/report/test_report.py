"""Claims: the report is one file that needs nothing else, and no text from outside can become markup or script."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from farm.report import report as module
from farm.report.report import CellView, ReportInput, TradeRow, TrialRow, report_html
from farm.values.metrics import METRIC_NAMES

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&\u2028'
SESSIONS = 800


def vector(**values: float) -> np.ndarray:
    full = np.full(len(METRIC_NAMES), np.nan)
    for name, value in values.items():
        full[METRIC_NAMES.index(name)] = value
    return full


def cell(name: str, trades: int = 3) -> CellView:
    day = np.arange(SESSIONS, dtype=np.int32) + 11_000
    equity = 1000.0 + 100.0 * np.sin(np.arange(SESSIONS) / 30)
    return CellView(
        name=name,
        cash=1000.0,
        day=day,
        equity=equity,
        comparison=equity * 1.1,
        comparison_name=f"{name}, bought and held",
        full=vector(total_return=0.25, sharpe=0.5, max_dd=0.2, trades=3, cagr=-0.015625),
        in_sample=vector(total_return=0.125),
        out_of_sample=vector(total_return=-0.125),
        out_of_sample_day=11_500,
        trades=tuple(
            TradeRow("long", 11_000 + i, 99.5, 11_010 + i, 101.25, 10.0, 17.5, 0.0176, 10, "signal")
            for i in range(trades)
        ),
        ledger="ab" * 32,
        stats="cd" * 32,
    )


def example(name: str = "AAPL") -> ReportInput:
    trials = tuple(
        TrialRow(i, (fast, slow), 1.0 - 0.1 * i, (0.25,), f"{i:064x}")
        for i, (fast, slow) in enumerate((f, s) for f in (5, 10) for s in (50, 60, 70))
    )
    return ReportInput(
        title=f"Cross of {name}",
        study="11" * 32,
        snapshot="22" * 32,
        fingerprint=trials[0].fingerprint,
        trial_key="33" * 32,
        objective="maximise sharpe in sample",
        objective_metric="sharpe",
        direction="max",
        parameters=("fast", "slow"),
        cells=(cell(name), cell("IBM")),
        trials=trials,
        trial_metrics=(("CAGR, out of sample", "cagr"),),
        counts=(("Trials tried", 6),),
        settings=(("Costs", "10 bps"),),
        assumptions=("no_dividends",),
        remarks=("no trade: the entry condition was never true",),
        incidents=("lapsed 5: orders that no price filled in time",),
        reproduce=("farm run study.json --fresh",),
    )


class Page(HTMLParser):
    """Counts tags, and collects text, script bodies and every address the page would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)


def without_plotly(source: str) -> str:
    """Replace the plotly script, which is not ours, by nothing."""
    return re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "<script></script>", source, count=1, flags=re.DOTALL)


def test_it_is_one_file_with_plotly_once() -> None:
    source = report_html(example())
    assert source.count("* plotly.js v") == 1
    page = Page(without_plotly(source))
    assert page.open == []
    assert page.loads == []
    assert "url(" not in page.text[0]
    assert page.tags.count("script") == 3


@pytest.mark.parametrize("hostile", [HOSTILE, "<b>bold</b>", "a & b", "</style>", "'\"", "]]>"])
def test_text_from_outside_stays_text(hostile: str) -> None:
    """Every text field at once: the page has exactly the tags of the same page with harmless text."""

    def everywhere(word: str) -> ReportInput:
        base = example(word)
        trades = tuple(replace(trade, side=word, reason=word) for trade in base.cells[0].trades)
        cells = tuple(replace(one, trades=trades, ledger=word, stats=word) for one in base.cells)
        trials = tuple(
            replace(one, values=(word + str(one.number % 2), one.number), fingerprint=word) for one in base.trials
        )
        return replace(
            base,
            cells=(*cells, replace(cells[0], verdict=word)),
            trials=trials,
            study=word,
            snapshot=word,
            fingerprint=word,
            trial_key=word,
            objective=word,
            parameters=(word, "slow"),
            trial_metrics=((word, "cagr"),),
            counts=((word, 1),),
            settings=((word, word),),
            assumptions=(word,),
            remarks=(word,),
            incidents=(word,),
            reproduce=(word,),
        )

    plain, odd = (Page(without_plotly(report_html(everywhere(word)))) for word in ("harmless", hostile))
    assert odd.tags == plain.tags
    assert odd.loads == []
    assert hostile in "".join(odd.text)
    figures = json.loads(odd.scripts[0])
    names = [trace.get("name", "") for figure in figures.values() for trace in figure["data"]]
    assert not any("<" in name for name in names), "plotly reads HTML in names"


def test_what_it_says_is_what_was_handed_in() -> None:
    words = " ".join(Page(without_plotly(report_html(example()))).text)
    for expected in (
        "25.00 %",
        "12.50 %",
        "−12.50 %",
        "fast",
        "Trials tried",
        "no_dividends",
        "no trade: the entry condition was never true",
        "lapsed 5: orders that no price filled in time",
        "11" * 32,
        "99.50",
        "101.25",
    ):
        assert expected in words, expected


def test_curves_have_at_most_300_points() -> None:
    figures = json.loads(Page(without_plotly(report_html(example()))).scripts[0])
    for name in ("curve-0", "curve-1"):
        assert {trace["name"] for trace in figures[name]["data"]} >= {"Strategy", "Drawdown"}
        assert all(2 <= len(trace["x"]) == len(trace["y"]) <= 300 for trace in figures[name]["data"])


def test_the_winner_is_outlined_on_the_map() -> None:
    figures = json.loads(Page(without_plotly(report_html(example()))).scripts[0])
    heat = figures["map"]["data"][0]
    assert (heat["x"], heat["y"]) == (["5", "10"], ["50", "60", "70"])
    assert heat["z"][0] == [1.0, 0.7]
    outline = figures["map"]["layout"]["shapes"][0]
    assert (outline["x0"], outline["y0"]) == (-0.5, -0.5)


def test_without_search_split_or_trades() -> None:
    """A single run: no leaderboard, no map, no bucket columns, and nothing breaks."""
    one = example()
    bare = replace(cell("SPY", trades=0), in_sample=None, out_of_sample=None, out_of_sample_day=None, comparison=None)
    single = replace(one, cells=(bare,), parameters=(), trials=(replace(one.trials[0], values=()),))
    words = " ".join(Page(without_plotly(report_html(single))).text)
    assert "Leaderboard" not in words
    assert "Parameters" not in words
    assert "Out of sample" not in words
    assert "Metrics" in words


def test_a_cell_without_data_says_so() -> None:
    one = example()
    empty = replace(one.cells[1], verdict="no_data", day=np.empty(0, np.int32), equity=np.empty(0))
    words = " ".join(Page(without_plotly(report_html(replace(one, cells=(one.cells[0], empty))))).text)
    assert "no numbers (no_data)" in words


def test_long_trade_lists_are_cut_and_say_so() -> None:
    one = example()
    many = replace(one, cells=(cell("AAPL", trades=module.TRADES_MAX + 5),))
    words = " ".join(Page(without_plotly(report_html(many))).text)
    assert "The first 1,000 of 1,005 trades." in words
