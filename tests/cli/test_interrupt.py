"""Ctrl-C: one clear line, exit code 130, finished work kept; the same command goes on and ends with the same bits."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Console, Done, listing, refused, write_spec
from tests.study.support import cross

pytestmark = pytest.mark.slow
WAIT_S = 60.0


def wait_for(seen: Callable[[], object], child: subprocess.Popen[str]) -> None:
    until = time.monotonic() + WAIT_S
    while not seen():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.01)


def interrupted(farm: Console, folder: Path, spec: Path, *flags: str) -> Done:
    """Run a study, and press Ctrl-C once its first block is stored."""
    with farm.started("run", spec, *flags) as child:
        wait_for(lambda: any(folder.glob("results/*/*.parquet")), child)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=WAIT_S)
    return Done(child.returncode, out, err)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A study of some seconds: 13 x 41 trials on five tickers."""
    return write_spec(tmp_path / "long.json", cross(fast=(2, 14, 1), slow=(40, 80, 1)))


def test_ctrl_c_in_the_middle_of_a_run(sample: Console, folder: Path, long: Path) -> None:
    before = listing(folder)
    done = interrupted(sample, folder, long)
    refused(done, 130, "stopped by the user with ", "blocks unfinished", "finished blocks are kept")
    kept = listing(folder)
    assert {name: kept[name] for name in before} == before
    assert not any(name.startswith(".incoming/") for name in kept)
    again = sample.document("run", long)
    cells = again["farm"]["cells"]
    assert (cells["computed"] + cells["reused"], cells["total"]) == (13 * 41 * 5, 13 * 41 * 5)
    assert 0 < cells["computed"] < cells["total"]
    assert {name: seen for name, seen in listing(folder).items() if name in kept} == kept
    fresh = sample.document("run", long, "--fresh")
    assert fresh["farm"]["cells"]["computed"] == cells["total"]
    assert fresh["trials"] == again["trials"]


def test_ctrl_c_with_json(sample: Console, folder: Path, long: Path) -> None:
    done = interrupted(sample, folder, long, "--json")
    assert (done.code, done.error["error"]) == (130, "Interrupted")
    assert done.error["place"].startswith("study ")


@pytest.mark.parametrize("after_s", (0.3, 1.5))
def test_ctrl_c_before_anything_is_done(after_s: float, empty: Console, folder: Path) -> None:
    """Wherever it strikes, while modules load or rows are read: no traceback, and a dataset whole or not there."""
    with empty.started("ingest", "sample") as child:
        time.sleep(after_s)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=WAIT_S)
    if child.returncode:
        refused(Done(child.returncode, out, err), 130, "stopped by the user")
    summary = empty.document("ingest", "sample")
    assert summary["rows_added"] + summary["rows_skipped"] == 12_157


@pytest.mark.ray
def test_ctrl_c_with_workers(sample: Console, folder: Path, long: Path) -> None:
    """The farm and its Ray go with the command; what a worker had stored is kept, and workers go on from there.

    Standard output of the second command holds its document and nothing of Ray; the bits are those of one process.
    """
    done = interrupted(sample, folder, long, "--workers", "1")
    refused(done, 130, "stopped by the user", "cells computed", "finished blocks are kept")
    kept = {name: seen for name, seen in listing(folder).items() if name.startswith("results/")}
    resumed = sample.process("run", long, "--workers", "1", "--json")
    assert (resumed.code, resumed.err) == (0, "")
    stats = resumed.document["farm"]
    assert stats["workers"] == 1
    assert 0 < stats["cells"]["computed"] < stats["cells"]["total"]
    after = listing(folder)
    assert {name: after[name] for name in kept} == kept
    assert sample.document("run", long, "--fresh")["trials"] == resumed.document["trials"]
