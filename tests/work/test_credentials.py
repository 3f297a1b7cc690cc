"""Credentials that end in the middle of a study: a user of a real server whose key is changed while it runs.

From the environment: one clear error, and with the fresh key the same call goes on. From a profile that is written
again: no error at all. Nothing is lost, and the results are those of a run that nobody disturbed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm import api
from farm.values.errors import PermissionDenied
from farm.values.settings import FarmSettings
from farm.work.run import Outcome, ProgressEvent
from tests.conftest import Bucket
from tests.study.support import cross

pytestmark = [pytest.mark.slow, pytest.mark.server]
SPEC = cross(fast=(2, 30, 1), slow=(31, 70, 1))


class Key:
    """The key of a user who owns the farm's part of the bucket; ``change`` makes the old one worthless at once."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.user = f"user-{secrets.token_hex(4)}"
        self.change()

    def change(self, write: Callable[[], None] = lambda: None) -> None:
        """Make a new secret, and let ``write`` say it before the server takes it: nobody is refused in between."""
        self.secret = secrets.token_urlsafe(24)
        write()
        administrator = self._bucket.server.administrator()
        administrator.make_user(self.user, self.secret, "owner", self._bucket.bucket, self._bucket.prefix)


@pytest.fixture
def key(minio_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Key:
    for name, value in minio_bucket.env().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    return Key(minio_bucket)


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, Any]]:
    settings = FarmSettings().with_store("memory:undisturbed-by-credentials")
    api.ingest_sample(settings)
    return trials(api.run(SPEC, settings))


def trials(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outcome.document()["trials"]
    return found


def once(action: Callable[[], None]) -> Callable[[ProgressEvent], None]:
    """Return a progress that acts once, when some cells are done and others are not."""
    done: list[int] = []

    def progress(event: ProgressEvent) -> None:
        if event.cells_done and not done:
            assert event.cells_done < event.cells_total
            done.append(event.cells_done)
            action()

    return progress


def test_a_key_of_the_environment(
    key: Key, minio_bucket: Bucket, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FarmSettings(threads=2).with_store(minio_bucket.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.user)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret)
    api.ingest_sample(settings)
    with pytest.raises(PermissionDenied, match="403 SignatureDoesNotMatch") as caught:
        api.run(SPEC, settings, progress=once(key.change))
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret)
    again = api.run(SPEC, settings)
    assert 0 < again.stats.cells_reused < again.study.cells
    assert trials(again) == undisturbed


def test_a_profile_that_is_written_again(
    key: Key,
    minio_bucket: Bucket,
    undisturbed: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write() -> None:
        file.write_text(f"[default]\naws_access_key_id = {key.user}\naws_secret_access_key = {key.secret}\n")

    def change() -> None:
        key.change(write)

    write()
    settings = FarmSettings(threads=2).with_store(minio_bucket.url)
    api.ingest_sample(settings)
    outcome = api.run(SPEC, settings, progress=once(change))
    assert outcome.stats.cells_computed == outcome.study.cells
    assert trials(outcome) == undisturbed
    with pytest.raises(PermissionDenied, match="403 SignatureDoesNotMatch") as caught:
        api.run(SPEC, settings, fresh=True, progress=once(key.change))  # nobody writes the file
    assert "profile default" in caught.value.hint
