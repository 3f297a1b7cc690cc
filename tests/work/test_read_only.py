"""Where nobody may write, what is finished can be looked at and run again; what would write is refused first."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cluster import local_ray
from farm import api
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.store.open import open_store, wrap_store
from farm.store.wrap import Around
from farm.values.errors import PermissionDenied, StoreError
from farm.values.settings import FarmSettings
from farm.work.run import Outcome
from tests.cli.support import Console, listing, refused, write_spec
from tests.study.rows import cell_keys
from tests.study.support import cross

T = TypeVar("T")
SPEC = cross(fast=(5, 10, 5), slow=(20, 30, 10), start="2003-01-02", end="2005-12-30")


class ReadOnly(Around):
    """A bucket whose credentials may read; it says what was tried."""

    tried: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return "s3://bucket/farm"

    def _do(self, verb: str, key: str, action: Callable[[], T], *, sent: int = 0, expected: int = 0) -> T:
        if verb in ("put", "put_if_absent", "delete"):
            self.tried += (f"{verb} {key}",)
            raise PermissionDenied("access denied", place=f"{self.url}/{key}")
        return action()


class Heedless(MemoryStore):
    """A server that ignores ``If-None-Match``."""

    def __init__(self) -> None:
        super().__init__()
        self.url = "s3://bucket/farm"

    def put_if_absent(self, key: str, data: bytes) -> None:
        self.put(key, data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[FarmSettings, Outcome]:
    settings = FarmSettings().with_store(str(tmp_path_factory.mktemp("store")))
    api.ingest_sample(settings)
    return settings, api.run(SPEC, settings)


@pytest.fixture
def sealed(finished: tuple[FarmSettings, Outcome], monkeypatch: pytest.MonkeyPatch) -> ReadOnly:
    """The store of ``finished``, which every call of ``open_store`` now opens as a bucket that cannot be written."""
    store = ReadOnly(open_store(finished[0].store.url))
    for module in (api, local_ray):
        monkeypatch.setattr(module, "open_store", lambda url, settings: store)
    return store


def on_workers(spec: Any, settings: FarmSettings) -> Outcome:
    return local_ray.run_on_workers(spec, settings.store.url, workers=2, settings=settings)


@pytest.mark.parametrize("run", [api.run, on_workers])
def test_a_finished_study_runs_again(
    run: Callable[..., Outcome], finished: tuple[FarmSettings, Outcome], sealed: ReadOnly
) -> None:
    settings, outcome = finished
    again = run(SPEC, settings)
    assert again.document()["trials"] == outcome.document()["trials"]
    assert (again.stats.cells_computed, again.stats.cells_reused) == (0, outcome.study.cells)
    assert sealed.tried == ()


def test_a_finished_study_is_looked_at(
    finished: tuple[FarmSettings, Outcome], sealed: ReadOnly, tmp_path: Path
) -> None:
    settings, outcome = finished
    assert api.plan(SPEC, settings).cells_missing == 0
    assert api.results(SPEC, settings).document()["trials"] == outcome.document()["trials"]
    assert api.report(SPEC, settings, tmp_path / "report.html")
    assert api.explain(cell_keys(outcome.study)[0].hex(), settings)["study"] == outcome.study.id
    assert api.status(settings)["studies"][0]["cells"] == {"total": 20, "done": 20}
    assert api.ingest_sample(settings).rows_added == 0
    assert sealed.tried == ()


def test_a_new_study_is_refused_at_its_first_write(finished: tuple[FarmSettings, Outcome], sealed: ReadOnly) -> None:
    with pytest.raises(PermissionDenied):
        api.run(cross(fast=(5, 15, 5), slow=(20, 30, 10), start="2003-01-02", end="2005-12-30"), finished[0])
    assert all(" probe/" in tried for tried in sealed.tried)


def test_a_store_that_ignores_conditions_gets_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    store: Store = Heedless()
    monkeypatch.setattr(api, "open_store", lambda url, settings: wrap_store(store, settings))
    with pytest.raises(StoreError, match=r"of 8 racing conditional writes .* won"):
        api.ingest_sample(FarmSettings().with_store("s3://bucket/farm"))
    assert list(store.list("")) == []


@pytest.fixture
def mounted(finished: tuple[FarmSettings, Outcome], tmp_path: Path) -> Iterator[Path]:
    """The finished store where not even root can write: a read-only mount; for others a directory without the bits."""
    folder = tmp_path / "store"
    shutil.copytree(finished[0].store.url.removeprefix("file://"), folder)
    if os.geteuid() == 0:
        for options in (["--bind"], ["-o", "remount,ro,bind"]):
            if subprocess.run(["mount", *options, folder, folder], check=False, capture_output=True).returncode:
                subprocess.run(["umount", folder], check=False, capture_output=True)
                pytest.skip("root cannot mount here")
        yield folder
        subprocess.run(["umount", folder], check=True)
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for one in folders:
        one.chmod(0o500)
    yield folder
    for one in folders:
        one.chmod(0o700)


@pytest.mark.slow
def test_the_command_on_a_read_only_directory(
    mounted: Path, finished: tuple[FarmSettings, Outcome], tmp_path: Path
) -> None:
    farm, spec, before = Console(str(mounted)), write_spec(tmp_path / "study.json", SPEC), listing(mounted)
    trials = finished[1].document()["trials"]
    for arguments in (("run", spec), ("results", spec), ("run", spec, "--workers", 2)):
        done = farm.process(*arguments, "--json")
        assert done.code == 0, done.err
        assert done.document["trials"] == trials
    assert farm.process("report", spec, "-o", tmp_path / "report.html").code == 0
    assert farm.process("explain", trials[0]["cells"][0]["key"]).code == 0
    refused(farm.process("run", spec, "--fresh"), 5, str(mounted), "read-only" if os.geteuid() == 0 else "mode")
    assert listing(mounted) == before
