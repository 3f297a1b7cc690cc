"""A disk that takes no more in the middle of a study: one clear error, nothing lost, and on it goes.

Real disks: a server's that is full, and a directory's that is mounted again so that nobody can write.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import api
from farm.store.open import open_store
from farm.values.errors import PermissionDenied, WriteFailed
from farm.values.settings import FarmSettings
from farm.work.run import Outcome, ProgressEvent
from infra.minio.administer import Administrator
from infra.minio.server import Server
from tests.conftest import S3Server
from tests.study.support import cross

pytestmark = [pytest.mark.slow, pytest.mark.server]
SPEC = cross(fast=(2, 12, 1), slow=(15, 40, 1))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB, where root can mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("root cannot mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_bucket_that_fills_up(
    minio_server: S3Server, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``minio_server`` says whether there is one to start. The disk fills while the study runs."""
    ballast = disk / "ballast"

    def fill(event: ProgressEvent) -> None:
        if event.cells_done and not ballast.exists():
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass

    with Server(disk / "data", log=tmp_path / "minio.log") as server:
        Administrator(server.endpoint, server.access_key, server.secret_key, server.region).make_bucket("bucket")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        settings = FarmSettings(threads=2).with_store("s3://bucket/farm")
        api.ingest_sample(settings)
        with pytest.raises(WriteFailed, match="StorageFull") as caught:
            api.run(SPEC, settings, progress=fill)
        assert "full" in caught.value.hint
        kept = set(open_store("s3://bucket/farm").list(""))
        ballast.unlink()
        again = run_when_there_is_room(settings)
        assert 0 < again.stats.cells_reused < again.study.cells
        assert kept <= set(open_store("s3://bucket/farm").list(""))
    reference = FarmSettings().with_store("memory:not-full")
    api.ingest_sample(reference)
    assert again.document()["trials"] == api.run(SPEC, reference).document()["trials"]


def run_when_there_is_room(settings: FarmSettings) -> Outcome:
    """A server looks at its disk only now and then: for a moment it says that it is still full."""
    for _ in range(100):
        with contextlib.suppress(WriteFailed):
            return api.run(SPEC, settings)
        time.sleep(0.2)
    pytest.fail("the server says that it is full, although there is room")


def test_a_directory_that_turns_read_only(disk: Path) -> None:
    settings = FarmSettings(threads=2).with_store(str(disk / "store"))
    api.ingest_sample(settings)
    done: list[int] = []

    def seal(event: ProgressEvent) -> None:
        if event.cells_done and not done:
            done.append(event.cells_done)
            remount(disk, "ro")

    with pytest.raises(PermissionDenied, match="Read-only file system") as caught:
        api.run(SPEC, settings, progress=seal)
    assert "read-only" in caught.value.hint
    kept = set(open_store(settings.store.url).list(""))
    remount(disk, "rw")
    again = api.run(SPEC, settings)
    assert 0 < again.stats.cells_reused < again.study.cells
    assert kept <= set(open_store(settings.store.url).list(""))


def remount(disk: Path, mode: str) -> None:
    """It is refused as long as a file is open for writing, which each is for a moment only."""
    for _ in range(500):
        if not subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=False, capture_output=True).returncode:
            return
    pytest.fail(f"the file system cannot be mounted {mode}")
