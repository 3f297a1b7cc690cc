"""What people read: text that fits a terminal, says each thing once, and explains in words."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from cluster.messages import Reason
from farm import show
from farm.show_cell import REASONS, explain_text
from tests.cli.support import COMMAND, Console, write_spec
from tests.study.support import cross

WIDTH_MAX = 100


def lines_of(text: str) -> list[str]:
    return text.splitlines()


def test_the_leaderboard_shows_the_objective_once(finished: Console, spec: Path) -> None:
    """Under its own name, with the bucket it is taken on above; ranks and trials are whole numbers."""
    lines = lines_of(finished("results", spec, "--top", "3").out)
    at = next(number for number, line in enumerate(lines) if line.startswith("Leaderboard"))
    assert lines[at] == "Leaderboard: max sharpe, in sample, median over 5 instruments"
    assert lines[at + 1].split() == ["is", "oos", "is", "is", "is"]
    assert lines[at + 2].split() == [
        "rank",
        "trial",
        "fast",
        "slow",
        "sharpe",
        "sharpe",
        "total_return",
        "max_dd",
        "trades",
    ]
    assert set(lines[at + 3]) == {" ", "─"}
    assert [line.split()[0] for line in lines[at + 4 : at + 8]] == ["1", "2", "3", "and"]
    assert lines[at + 7] == "  and 6 more"
    assert re.fullmatch(r"winner       trial \d: fast \d+, slow \d+", lines[at + 9])
    assert re.fullmatch(r"fingerprint  [0-9a-f]{64}", lines[at + 10])
    assert lines[at + 11 : at + 13] == [
        "note         FB has no bar before 2012-05-18: 347 of 502 sessions; nothing is traded in them, and",
        "             metrics count them",
    ]
    assert lines[-2] == "assumed      fixed_universe, no_dividends"
    closer = re.fullmatch(
        r"look closer  farm report ([0-9a-f]{12}), farm explain (\d/AAPL) --study ([0-9a-f]{12})", lines[-1]
    )
    assert closer is not None
    assert finished("report", closer[1]).code == 0
    assert finished("explain", closer[2], "--study", closer[3]).code == 0


def test_an_objective_that_is_in_no_other_column(sample: Console, tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path / "study.json",
        cross(objective={"min": "trades", "on": "oos"}, split={"mode": "chronological", "is": 0.5}),
    )
    text = sample("run", spec).out
    assert "Leaderboard: min trades, out of sample, median over 5 instruments" in text
    heads = next(line for line in lines_of(text) if line.lstrip().startswith("rank"))
    assert heads.split() == ["rank", "trial", "fast", "slow", "trades", "total_return", "sharpe", "max_dd"]


def test_text_fits_the_terminal(finished: Console, spec: Path) -> None:
    key = finished.document("results", spec)["trials"][0]["cells"][0]["key"]
    for arguments in (("results", spec), ("status",), ("plan", spec), ("spec", "check", spec), ("run", spec)):
        done = finished(*arguments)
        assert max(map(len, lines_of(done.out))) <= WIDTH_MAX, arguments
    # The keys of objects are what they are: two digests in one name.
    wide = [line for line in lines_of(finished("explain", key).out) if len(line) > WIDTH_MAX + 20]
    assert all("results/" in line for line in wide)


def test_one_of_a_thing_is_not_many(sample: Console, tmp_path: Path) -> None:
    alone = cross(fast=(5, 5), slow=(20, 20), tickers=("IBM",), each=False, objective=None, split=None)
    spec = write_spec(tmp_path / "study.json", alone)
    for arguments in (("plan", spec), ("run", spec), ("results", spec), ("spec", "check", spec)):
        text = sample(*arguments).out
        assert "1 trial" in text
        assert not re.search(r"\b1 (trials|cells|instruments|rows|shards|sessions)\b", text)


def test_cells_without_data_are_said(sample: Console, tmp_path: Path) -> None:
    """FB was not listed then: its cells say so, in the counts and in ``explain``."""
    spec = write_spec(tmp_path / "study.json", cross(start="2005-01-03", end="2006-12-29"))
    done = sample("run", spec)
    assert "no data   9 cells: the instrument has no bar in the window" in done.out
    cells = sample.document("results", spec)["trials"][0]["cells"]
    [silent] = [cell for cell in cells if cell["verdict"] == "no_data"]
    assert silent["instrument"] == "FB"
    assert "no_data: the instrument has no bar in the window" in sample("explain", silent["key"]).out


def test_names_cannot_move_the_cursor(sample: Console, tmp_path: Path) -> None:
    name = "one\n\x1b[2Jtwo\r" + "x" * 200
    spec = write_spec(tmp_path / "study.json", cross() | {"name": name})
    for arguments in (("run", spec), ("status",), ("spec", "check", spec)):
        text = sample(*arguments).out
        assert "\x1b" not in text
        assert "one  [2Jtwo x" in text
        assert max(map(len, lines_of(text))) <= WIDTH_MAX


def test_an_empty_store_says_what_to_do(empty: Console, sample: Console) -> None:
    """A store nobody has made, then one with data and no study."""
    assert "nothing here yet: farm ingest" in Console(f"{empty.store}-none")("status").out
    assert "no studies yet: farm run study.json" in sample("status").out


def test_explain_says_in_words_what_happened(finished: Console, spec: Path) -> None:
    cell = finished.document("results", spec)["trials"][2]["cells"][3]
    text = finished("explain", cell["key"][:10]).out
    for said in (
        f"cell 2/IBM, {cell['key']}",
        "on IBM: fast 5, slow 40",
        cell["fingerprint"]["ledger"],
        "no_dividends: the dataset holds no dividends at all, so returns lack them",
        "in the process of the command, since the command was run without workers",
        "45 cells done",
        "bars from 2011-01-03 to 2012-12-31",
        "stock_daily",
        "SHA-256 of the read digest and the trial digest",
        '{"fast": 5, "slow": 40}',
        "semantics 2",
    ):
        assert said in text, (said, text)
    assert [line for line in lines_of(text) if line and not line.startswith(" ")][1:] == [
        "Result",
        "Computed",
        "Read",
        "Key",
    ]


def test_explain_says_who_computed_a_cell_that_is_reused(finished: Console, spec: Path, tmp_path: Path) -> None:
    larger = write_spec(tmp_path / "larger.json", cross(fast=(5, 20, 5)))
    study = finished.document("run", larger)["study"]
    first = finished.document("results", spec)
    key = first["trials"][0]["cells"][0]["key"]
    text = finished("explain", key, "--study", study).out
    assert f"reused: study {first['study'][:16]} had computed it" in text


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != "in process"])
def test_every_reason_of_the_scheduler_has_words(reason: str, finished: Console, spec: Path) -> None:
    cell = finished.document("results", spec)["trials"][0]["cells"][0]["key"]
    document = finished.document("explain", cell)
    lease = document["computed"]["leases"][0] | {"worker": "w1", "reason": reason, "outcome": "done"}
    text = explain_text(document | {"computed": document["computed"] | {"leases": [lease]}})
    assert f"by worker w1, since {REASONS[reason]} ({reason})" in text


def test_the_words_cover_what_the_scheduler_can_say() -> None:
    assert set(get_args(Reason)) | {"in process"} == set(REASONS)


@dataclass(frozen=True)
class Event:
    """What a progress line is drawn from."""

    cells_done: int = 1234
    cells_total: int = 2000
    cells_reused: int = 0
    affinity_hits: int = 8
    affinity_misses: int = 2
    bytes_fetched: int = 1_250_000
    workers: int = 2
    store_away_s: float = 0.0


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event(), "1,234/2,000 cells  500/s  ETA 1.5 s  2 workers  affinity 80 %  1.25 MB fetched"),
        (Event(workers=0, store_away_s=12.3), "ETA 1.5 s  1.25 MB fetched  store away for 12 s"),
        (Event(workers=0), "1,234/2,000 cells  500/s  ETA 1.5 s  1.25 MB fetched"),
        (
            Event(cells_done=2000, cells_reused=500),
            "2,000/2,000 cells  500/s  500 reused  2 workers  affinity 80 %  1.25 MB fetched",
        ),
        (Event(workers=1, affinity_hits=0, affinity_misses=0), "1 worker  affinity -"),
        (Event(cells_done=0, cells_total=0), "0/0 cells"),
    ],
)
def test_the_progress_line(event: Event, said: str) -> None:
    assert said in show.progress_text(event, 500.0, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("columns", (60, 100))
def test_progress_on_a_terminal(columns: int, sample: Console, tmp_path: Path) -> None:
    """One line, rewritten in place and never wrapped, gone over to the next line at its end."""
    spec = write_spec(tmp_path / "study.json", cross(fast=(2, 22, 1), slow=(40, 60, 1)))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with (tmp_path / "document.json").open("wb") as document:
        child = subprocess.Popen(
            [str(COMMAND), "run", str(spec), "--json"],
            env={**environment, "FARM_STORE": sample.store},
            stdin=slave,
            stdout=document,
            stderr=slave,
        )
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:
            break  # how Linux says that nobody holds the other end any more
    os.close(master)
    assert child.wait() == 0
    drawn = shown.decode().split("\r\x1b[2K")
    assert drawn[0] == ""
    assert len(drawn) >= 3
    assert all(len(line.rstrip("\r\n")) < columns for line in drawn)
    assert [line.endswith("\r\n") for line in drawn[1:]] == [False] * (len(drawn) - 2) + [True]
    assert "2,205/2,205 cells" in drawn[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (567_123, "567 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (10**13, "10 TB"),
    ],
)
def test_bytes(value: int, text: str) -> None:
    assert show.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0014, "0.0014 s"),
        (9.94, "9.9 s"),
        (12, "12 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert show.seconds_text(value) == text


def test_json_for_people_is_json() -> None:
    value: Any = {"a": [1, {"b": "ß" * 90}], "c": [], "d": {}, "e": [list(range(60))]}
    text = show.json_text(value)
    assert json.loads(text) == value
    assert lines_of(text)[1:3] == ['  "a": [', "    1,"]
