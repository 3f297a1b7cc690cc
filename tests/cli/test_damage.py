"""Damaged stores: the object is named, nothing is guessed or changed, and what the hint says helps.

Bits are flipped and ends cut off in each kind of object that a study reads or writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Console, flip, listing, one, refused, truncate, write_spec
from tests.study.support import cross

pytestmark = pytest.mark.slow
Damage = Callable[[Path], object]
HOW: dict[str, Damage] = {
    "flipped bit": flip,
    "flipped bit at the end": lambda path: flip(path, 0.99),
    "cut off": truncate,
    "nothing left": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
}
# Which object, and what its error calls it.
INPUTS = {
    "bars": ("data/stock_daily/1d/2010s/*.parquet", "row group 0, column "),
    "splits": ("data/splits/event/all/*.parquet", "row group 0, column "),
    "instruments": ("data/instruments/*/*/*.parquet", "the shard is "),
    "index": ("index/*.arrow", "index of data/"),
    "calendar": ("calendars/*.arrow", "the calendar is "),
    "snapshot": ("snapshots/*.json", "snapshot"),
    "log entry": ("refs/main/*.json", "log entry"),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("what", INPUTS)
def test_what_a_run_reads(what: str, how: str, sample: Console, folder: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "study.json", cross(start="2004-06-01", end="2011-12-30"))  # over a split
    pattern, called = INPUTS[what]
    path = one(folder, pattern)
    whole = path.read_bytes()
    HOW[how](path)
    damaged = listing(folder)
    done = sample("run", spec)
    if (what, how) == ("log entry", "missing"):
        refused(done, 4, "refs/main/", "the dataset 'main' is empty")
    else:
        refused(done, 4, path.name, called)
    kept = {name for name in listing(folder) if name not in damaged}
    # The record of the study may be there by then: it holds no data, and the next run begins with it.
    assert all(name.startswith("studies/") for name in kept)
    assert {name: seen for name, seen in listing(folder).items() if name not in kept} == damaged
    path.write_bytes(whole)
    assert sample.document("run", spec)["farm"]["cells"]["computed"] == 45


# What to do with a damaged object of a finished study, as its hint says.
OUTPUTS = {
    "segment": ("results/*/*.parquet", "delete this object; the cells it held are computed again"),
    "study record": ("studies/*/study.json", "delete this object and submit the study again"),
}


@pytest.mark.parametrize("how", ("flipped bit", "flipped bit at the end", "cut off", "nothing left"))
@pytest.mark.parametrize("what", OUTPUTS)
def test_what_a_run_has_written(what: str, how: str, finished: Console, folder: Path, spec: Path) -> None:
    """A damaged result is never computed anew behind the user's back, nor taken; deleted, it is computed again."""
    shutil.copytree(folder, folder.with_name("whole"))
    expected = Console(str(folder.with_name("whole"))).document("results", spec)["trials"]
    pattern, hint = OUTPUTS[what]
    path = one(folder, pattern)
    HOW[how](path)
    before = listing(folder)
    for command in ("run", "results", "report"):
        refused(finished(command, spec), 4, path.name, hint)
    assert listing(folder) == before
    path.unlink()
    assert finished.document("run", spec)["trials"] == expected
    assert finished.document("results", spec)["trials"] == expected


def test_fresh_works_past_a_damaged_segment(finished: Console, folder: Path, spec: Path) -> None:
    """Computed afresh the cells lie in another segment, and everybody finds them there."""
    expected = finished.document("results", spec)["trials"]
    path = one(folder, "results/*/*.parquet")
    truncate(path)
    refused(finished("run", spec), 4, path.name, "run with --fresh")
    before = path.read_bytes()
    assert finished.document("run", spec, "--fresh")["trials"] == expected
    for command in ("run", "results"):
        assert finished.document(command, spec)["trials"] == expected
    assert finished("report", spec).code == 0
    assert path.read_bytes() == before


def test_a_damaged_segment_is_no_matter_to_another_study(finished: Console, folder: Path, tmp_path: Path) -> None:
    """Not even to one of the same family; nor is a damaged study record."""
    truncate(one(folder, "results/*/*.parquet"))
    other = write_spec(tmp_path / "other.json", cross(fast=(7, 7), slow=(33, 33)))
    done = finished.document("run", other)
    assert done["farm"]["cells"] == {"total": 5, "computed": 5, "reused": 0, "failed": 0}
    record = next(path for path in folder.glob("studies/*/study.json") if done["study"] not in str(path))
    truncate(record)
    cell = done["trials"][0]["cells"][0]["key"]
    assert finished.document("explain", cell)["cell"] == cell
    refused(finished("explain", "0" * 16), 4, str(record.relative_to(folder)))
    [damaged, intact] = sorted(finished.document("status")["studies"], key=lambda study: "error" not in study)
    assert (damaged["study"], intact["study"]) == (record.parent.name, done["study"])
    assert damaged["error"]["place"] == str(record.relative_to(folder))
    text = finished("status").out
    assert done["study"][:16] in text and f"error: {record.relative_to(folder)}: study record cannot be read" in text


def test_a_damaged_dataset_is_no_matter_to_another(sample: Console, folder: Path, spec: Path) -> None:
    assert sample("ingest", "sample", "--dataset", "other").code == 0
    truncate(one(folder, "refs/other/*.json"))
    assert sample("run", spec).code == 0
    [intact, damaged] = sample.document("status")["datasets"]
    assert (intact["dataset"], "error" in intact) == ("main", False)
    assert (damaged["dataset"], damaged["error"]["place"]) == ("other", "refs/other/0000000001.json")
    text = sample("status").out
    assert "AAPL" in text and "error: refs/other/0000000001.json: the log entry cannot be read" in text


def test_other_data_than_the_one_that_is_damaged_is_used(sample: Console, folder: Path, tmp_path: Path) -> None:
    """Only what a study reads is asked for: a damaged decade is no matter to the other."""
    flip(one(folder, "data/stock_daily/1d/2010s/*.parquet"))
    early = write_spec(tmp_path / "early.json", cross(start="2001-01-02", end="2005-12-30"))
    assert sample("run", early).code == 0
    late = write_spec(tmp_path / "late.json", cross())
    refused(sample("run", late), 4, "2010s")


def test_a_file_where_a_folder_belongs(tmp_path: Path, spec: Path) -> None:
    (tmp_path / "store").write_text("no store")
    farm = Console(str(tmp_path / "store"))
    for arguments in (("status",), ("run", spec), ("ingest", "sample")):
        refused(farm(*arguments), 5, str(tmp_path / "store"), "not a directory")


def test_foreign_files_in_a_store(sample: Console, folder: Path, spec: Path) -> None:
    """Whoever looks around with other programs leaves things behind: what no farm names so is passed over, anywhere;
    `status` counts what it meets."""
    family = sample.document("spec", "check", spec)["template"]
    names = ("README.txt", "refs/notes.txt", "refs/main/0000000001.json.bak", "refs/copy of main/0000000001.json",
             "refs/main/copy (1).txt", f"results/{family}/notes.txt", f"results/{family}/copy-1.parquet",
             f"results/{family}/~x.parquet", "results/x/.DS_Store", "studies/notes.txt", "studies/x/notes",
             "inbox/notes", "snapshots/x", "data/x")  # fmt: skip
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not ours")
    assert sample("run", spec).code == 0
    assert sample.document("run", spec)["farm"]["cells"]["reused"] == 45
    assert sample("ingest", "sample").code == 0
    assert sample.document("status")["strangers"] == 4
    assert "passed over: 4 objects in refs/ and studies/" in sample("status").out
