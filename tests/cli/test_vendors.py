"""Files as vendors and libraries write them, on the command line: what is taken and said, and the numbers of runs."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.shard.calendar import Calendar, freeze_calendar
from farm.values.units import parse_date
from tests.cli.support import BARS, Console, refused, write_csv, write_spec

pytestmark = pytest.mark.slow
COLUMNS = "ts,open,high,low,close,volume"


def _hold(tmp_path: Path, symbol: str, start: str, end: str, shares: int) -> Path:
    """Write a spec that buys at the second open and holds."""
    sleeve = {"id": "x", "kind": "rules", "universe": "u", "side": "long", "size": {"mode": "qty", "v": shares}}
    sleeve["enter"] = {"date": [start, start]}
    strategy = {"universes": [{"id": "u", "tickers": [symbol]}], "sleeves": [sleeve]}
    run = {"dataset": "main", "start": start, "end": end, "cash": 10000}
    return write_spec(tmp_path / f"{symbol}.json", {"spec": 1, "name": "t", "strategy": strategy, "run": run})


def test_dates_at_midnight_utc(tmp_path: Path, empty: Console) -> None:
    """A frame of Wednesday to Friday whose index is UTC: a day early it would pass for Tuesday to Thursday."""
    days = np.array(["2024-01-03", "2024-01-04", "2024-01-05"], "datetime64[ns]")
    stamps = pa.array(days).cast(pa.timestamp("ns", "UTC"))
    prices = {name: [1.0, 2.0, 3.0] for name in ("open", "high", "low", "close")}
    pq.write_table(pa.table({"Date": stamps, **prices, "volume": [1, 1, 1]}), tmp_path / "a.parquet")
    command = ["ingest", tmp_path / "a.parquet", "--symbol", "AAPL", "--map", "ts=Date"]
    said = refused(empty(*command, *BARS), 4, "data row 1", "starts at 2024-01-02 19:00 (America/New_York)")
    assert "--stamp date" in said
    assert empty.document(*command, "--stamp", "date")["rows_added"] == 3
    [trial] = empty.document("run", _hold(tmp_path, "AAPL", "2024-01-03", "2024-01-05", 10))["trials"]
    assert trial["cells"][0]["equity_end"] == 10000 - 10 * 2 + 10 * 3


def test_a_rounded_ratio_gives_whole_shares(tmp_path: Path, empty: Console) -> None:
    rows = ["2024-01-02,2,2,2,2,100000", "2024-01-03,2,2,2,2.5,100000", "2024-01-04,75,75,75,75,100000"]
    bars = write_csv(tmp_path / "bars.csv", rows, COLUMNS)
    splits = write_csv(tmp_path / "splits.csv", ["AAA,2024-01-04,0.033333"], "symbol,ex_date,ratio")
    empty.document("ingest", bars, "--symbol", "AAA", *BARS)
    assert empty.document("ingest", splits, "--kind", "splits")["notes"] == ["0.033333 read as 1:30"]
    [trial] = empty.document("run", _hold(tmp_path, "AAA", "2024-01-02", "2024-01-04", 30))["trials"]
    assert trial["cells"][0]["equity_end"] == 10000 - 30 * 2 + 75


def test_doubts_are_said_to_people(tmp_path: Path, empty: Console) -> None:
    rows = ["2024-01-03,100,100,100,101,1", "2024-01-04,50.5,51,50,51,1"]
    done = empty("ingest", write_csv(tmp_path / "bars.csv", rows, COLUMNS), "--symbol", "AAA", *BARS)
    assert "AAA 2024-01-04 opens at 0.5 times the last close without a split: is 2:1 missing?" in done.out


def test_skipping_rows_without_a_session(tmp_path: Path, empty: Console) -> None:
    rows = ["2023-12-29,1,1,1,1,1", "2024-01-01,1,1,1,1,0", "2024-01-02,1,1,1,1,1"]
    command = ["ingest", write_csv(tmp_path / "b.csv", rows, COLUMNS), "--symbol", "A", *BARS]
    refused(empty(*command), 4, "data row 2: 2024-01-01 (A) is not a session", "it is a Monday", "--skip-rows unknown")
    document = empty.document(*command, "--skip-rows", "unknown-session")
    assert (document["rows_added"], len(document["notes"])) == (2, 1)
    refused(empty(*command, "--skip-rows", "holidays"), 2, "--skip-rows", "allowed: unknown-session")


def test_a_run_long_ago_and_a_calendar_that_grows(tmp_path: Path, empty: Console) -> None:
    """What was computed under the calendar of then keeps its key and its values under the wider one."""

    def narrow(name: str) -> Calendar:
        cut = freeze_calendar(name)
        return cut.slice(parse_date("1970-01-01", ""), parse_date("2035-12-31", ""))

    rows = ["2024-01-02,2,2,2,2,9", "2024-01-03,2,2,2,2.5,9", "2024-01-04,3,3,3,3,9"]
    spec = _hold(tmp_path, "NEW", "2024-01-02", "2024-01-04", 1)
    with mock.patch("farm.shard.change.freeze_calendar", narrow):
        empty.document("ingest", write_csv(tmp_path / "new.csv", rows, COLUMNS), "--symbol", "NEW", *BARS)
    before = empty.document("run", spec)
    old = write_csv(tmp_path / "old.csv", [row.replace("2024", "1962") for row in rows], COLUMNS)
    assert empty.document("ingest", old, "--symbol", "OLD", *BARS)["calendars"] == ["XNYS"]
    after = empty.document("run", spec)
    assert before["snapshot"] != after["snapshot"]
    assert before["trials"] == after["trials"]
    assert after["farm"]["cells"]["computed"] == 0
    [trial] = empty.document("run", _hold(tmp_path, "OLD", "1962-01-02", "1962-01-04", 1))["trials"]
    assert trial["cells"][0]["equity_end"] == 10001
    beyond = _hold(tmp_path, "OLD", "1884-12-31", "1962-01-04", 1)
    refused(empty("run", beyond), 4, "reach beyond the calendar", "1885-01-01 .. 2049-12-31")


def test_help_names_what_a_stamp_can_be(empty: Console) -> None:
    assert "start|end|date" in empty("ingest", "--help").out
