"""Help, usage, and pipes: what the command line is before it does anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from cluster.cli import ABOUT, EPILOGUE, SUMMARIES, help_text
from cluster.commands import make_app
from tests.cli.support import COMMAND, Console, refused


def test_the_table_of_help_is_the_commands() -> None:
    """``farm --help`` is written down, so that it needs no import: it must not drift from what there is."""
    commands = get_command(make_app(ABOUT, SUMMARIES, EPILOGUE)).commands  # type: ignore[attr-defined]
    assert set(commands) == set(SUMMARIES)
    assert list(commands["spec"].commands) == ["check"]
    listed = re.findall(r"^  (\w+)  +(.+)$", help_text(), re.MULTILINE)
    assert dict(listed) == SUMMARIES
    for name, command in commands.items():
        assert command.help == SUMMARIES[name]


def test_every_command_speaks_json_and_takes_a_store() -> None:
    commands = dict(get_command(make_app(ABOUT, SUMMARIES, EPILOGUE)).commands)  # type: ignore[attr-defined]
    check = commands.pop("spec").commands["check"]
    for command in (*commands.values(), check):
        options = {option for param in command.params for option in param.opts}
        assert "--json" in options, command.name
        assert ("--store" in options) == (command is not check), command.name


def test_no_line_of_help_is_wider_than_a_page() -> None:
    assert max(map(len, help_text().splitlines())) <= 120


LOADED = """
import sys
from cluster.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ending:
    assert not ending.code
    print(*sorted({name.partition(".")[0] for name in sys.modules} & set("numpy pyarrow numba ray typer".split())))
"""


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["spec", "check", "SPEC"], {"typer", "numpy"}),
        (["status"], {"typer", "numpy", "pyarrow"}),
        (["ingest", "sample"], {"typer", "numpy", "pyarrow"}),
    ],
)
def test_a_command_loads_what_it_needs(
    arguments: list[str], needs: set[str], finished: Console, spec: Path, tmp_path: Path
) -> None:
    """What computes nothing waits for no compiler, and what reads no data for no Arrow; Ray is for workers."""
    words = [str(spec) if word == "SPEC" else word for word in arguments]
    environment = {**os.environ, "FARM_STORE": finished.store if "ingest" not in words else str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.splitlines()[-1].split()) == needs


@pytest.mark.parametrize("arguments", (["--help"], ["-h"], ["help"]))
def test_help(arguments: list[str], empty: Console) -> None:
    done = empty(*arguments)
    assert (done.code, done.out, done.err) == (0, help_text(), "")


def test_help_of_a_command(empty: Console) -> None:
    done = empty("ingest", "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out == empty("help", "ingest").out
    for flag in ("--kind", "--map", "--tz", "--stamp", "--row-group-rows", "--codec", "--store", "--dataset", "--json"):
        assert flag in done.out


def test_nothing_asked(empty: Console) -> None:
    done = empty()
    assert (done.code, done.out, done.err) == (2, "", help_text())


def test_version(empty: Console) -> None:
    done = empty("--version")
    assert done.code == 0
    assert re.fullmatch(r"backtest-farm \S+, semantics \S+, numerics \S+\n", done.out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runn", "x"], ("no such command: 'runn'", "did you mean 'run'?", "ingest, plan, run")),
        (["dance"], ("no such command: 'dance'", "farm --help")),
        (["--frobnicate"], ("--frobnicate", "farm --help")),
        (["run"], ("SPEC: not given", "farm run --help")),
        (["explain"], ("CELL: not given", "farm explain --help")),
        (["spec"], ("missing command", "farm spec --help")),
        (["spec", "dance"], ("dance", "farm spec --help")),
        (["run", "x.json", "--wrokers", "2"], ("--wrokers", "--workers", "farm run --help")),
        (["run", "x.json", "--workers", "-1"], ("--workers", "0", "farm run --help")),
        (["run", "x.json", "--workers", "two"], ("--workers", "integer")),
        (["run", "x.json", "--workers"], ("--workers: requires an argument", "farm run --help")),
        (["run", "x.json", "--threads", "0"], ("--threads",)),
        (["run", "x.json", "--top", "0"], ("--top",)),
        (["run", "x.json", "y.json"], ("y.json",)),
        (["ingest", "sample", "--sort=yes"], ("--sort: does not take a value",)),
    ],
)
def test_usage(arguments: list[str], said: tuple[str, ...], empty: Console, folder: Path) -> None:
    refused(empty(*arguments), 2, *said)
    as_json = empty(*arguments, "--json")
    assert (as_json.code, as_json.error["error"]) == (2, "UsageError")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("FARM_THREADS", "many"), ("FARM_THREADS", "0"), ("FARM_CACHE_BYTES", "much"), ("FARM_IN_FLIGHT", "0")],
)
def test_settings_of_the_environment(name: str, value: str, empty: Console, spec: Path) -> None:
    done = Console(empty.store, {name: value})("status", "--json")
    assert (done.code, done.error["error"]) == (2, "UsageError")
    assert name in done.err


@pytest.mark.slow
def test_a_reader_that_leaves_early(finished: Console) -> None:
    """``farm status | head -1``: no complaint, on either side."""
    line = f"{COMMAND} status | head -1"
    environment = {**os.environ, "FARM_STORE": finished.store}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("store file:")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.slow
def test_a_reader_that_is_gone(finished: Console) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = finished.process("status", stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (1, "")


@pytest.mark.slow
def test_a_terminal_that_knows_no_unicode(finished: Console, spec: Path) -> None:
    done = Console(finished.store, {"PYTHONIOENCODING": "ascii"}).process("results", spec)
    assert (done.code, done.err) == (0, "")
    assert "Leaderboard: max sharpe" in done.out
