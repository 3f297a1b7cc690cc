"""Writes that really fail: a full device, a limit on the size of files, a small file system. No function is replaced.

Each gives one typed error, and a store as it was or with finished work kept, on which the same command then succeeds.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import BARS, Console, listing, refused, write_csv, write_spec
from tests.study.support import cross

pytestmark = pytest.mark.slow
FULL = Path("/dev/full")
needs_dev_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def at_most(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@needs_dev_full
def test_a_report_on_a_full_device(finished: Console, spec: Path, folder: Path, tmp_path: Path) -> None:
    before = listing(folder)
    refused(finished("report", spec, "-o", FULL), 5, "/dev/full", "No space left on device", "--output")
    refused(finished("report", spec, "-o", tmp_path), 2, str(tmp_path), "Is a directory", "--output")
    refused(finished("report", spec, "-o", tmp_path / "no" / "r.html"), 2, "r.html", "No such file or directory")
    assert listing(folder) == before
    assert finished("report", spec, "-o", tmp_path / "r.html").code == 0
    assert (tmp_path / "r.html").stat().st_size > 100_000


def test_a_report_that_does_not_fit(finished: Console, spec: Path, tmp_path: Path) -> None:
    """The report that was there before is there still, and nothing half-written beside it."""
    (tmp_path / "out").mkdir()
    report = tmp_path / "out" / "report.html"
    report.write_text("the old one")
    done = finished.process("report", spec, "-o", report, limit=lambda: at_most(200_000))
    refused(done, 5, str(report), "File too large", "make room")
    assert listing(tmp_path / "out").keys() == {"report.html"}
    assert report.read_text() == "the old one"


@needs_dev_full
def test_an_answer_that_nobody_can_keep(finished: Console, spec: Path) -> None:
    """Standard output is a full device: an error, not silence, and no complaint of Python's behind it."""
    with FULL.open("w") as full:
        done = finished.process("results", spec, "--json", stdout=full)
        assert done.error | {"allowed": ""} == {
            "error": "WriteFailed",
            "message": "cannot be written: No space left on device",
            "place": "standard output",
            "allowed": "",
            "hint": "make room, or write elsewhere",
        }
        assert done.code == 5


@needs_dev_full
def test_progress_that_nobody_can_read(sample: Console, spec: Path) -> None:
    """Standard error is a full device: no reason to end a study."""
    with FULL.open("w") as full:
        done = sample.process("run", spec, stderr=full)
    assert (done.code, "45 computed, 0 reused" in done.out) == (0, True)


def test_an_ingest_over_the_limit_of_file_sizes(empty: Console, folder: Path) -> None:
    """The shards do not fit: no dataset is there afterwards, nothing half-written, and the same command succeeds."""
    done = empty.process("ingest", "sample", limit=lambda: at_most(100_000))
    refused(done, 5, str(folder), "File too large", "ulimit -f")
    assert "nothing here yet" in empty("status").out
    assert not any(name.startswith(("refs/", "snapshots/", ".incoming/")) for name in listing(folder))
    assert empty.document("ingest", "sample")["rows_added"] == 12_157


def test_a_run_over_the_limit_of_file_sizes(sample: Console, folder: Path, tmp_path: Path) -> None:
    """A segment does not fit: the error names it, and the blocks that did fit are kept."""
    big = write_spec(tmp_path / "big.json", cross(fast=(2, 12, 1), slow=(15, 40, 1)))
    before = listing(folder)
    refused(sample.process("run", big, limit=lambda: at_most(30_000)), 5, "File too large", "ulimit -f")
    after = listing(folder)
    assert {name: after[name] for name in before} == before
    assert not any(name.startswith(".incoming/") for name in after)
    assert sample.document("run", big)["farm"]["cells"]["total"] == 11 * 26 * 5


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, where root can mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode:
        pytest.skip("root cannot mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up(small: Path, tmp_path: Path) -> None:
    """Ingest fits, the study does not. With room made, the same command goes on with what was finished."""
    farm = Console(str(small / "store"))
    assert farm("ingest", "sample").code == 0
    before = listing(small)
    ballast = small / "ballast"
    ballast.write_bytes(bytes(4096 * (os.statvfs(small).f_bavail - 24)))
    big = write_spec(tmp_path / "big.json", cross(fast=(2, 12, 1), slow=(15, 40, 1)))
    refused(farm.process("run", big), 5, "No space left on device", "the disk is full: make room")
    after = listing(small)
    assert {name: after[name] for name in before} == before
    file = write_csv(tmp_path / "bars.csv", [f"NEW{n},2020-01-02,10,11,9,10,{n}" for n in range(3000)])
    refused(farm("ingest", file, *BARS), 5, "No space left on device")
    ballast.unlink()
    shutil.move(small / "store", tmp_path / "moved")
    moved = Console(str(tmp_path / "moved"))
    assert moved.document("run", big)["farm"]["cells"]["total"] == 11 * 26 * 5
    assert moved.document("ingest", file, *BARS)["rows_added"] == 3000
