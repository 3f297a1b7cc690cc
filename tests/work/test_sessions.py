"""Temporary credentials that end in the middle of a study: a real token service, and keys of a service account.

The token service of MinIO gives no credentials that end within the time of a test, so what gave them is removed: from
then on the server refuses them (403 AccessDenied). Keys of a service account that is removed are unknown to it, as what
has run out is (403 InvalidAccessKeyId).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from minio.credentials import AssumeRoleProvider

from cluster.worker import Worker
from farm import api
from farm.store.open import open_store
from farm.values.errors import PermissionDenied
from farm.values.settings import FarmSettings
from farm.work.run import ProgressEvent, submit
from infra.minio.administer import Administrator
from tests.conftest import Bucket
from tests.study.support import cross

pytestmark = [pytest.mark.slow, pytest.mark.server]
SPEC = cross(fast=(2, 12, 1), slow=(15, 40, 1))


class Login:
    """Credentials that somebody was given for a while, in the profile that the farm reads."""

    def __init__(self, bucket: Bucket, file: Path, kind: str) -> None:
        self._bucket, self._file, self._kind = bucket, file, kind
        self._given = 0
        self.end: Callable[[], None] = lambda: None

    def renew(self) -> None:
        """Log in anew, and write what that gives into the profile; ``end`` lets the server refuse it."""
        self._given += 1
        name = f"user{self._given}-{self._bucket.bucket[-8:]}"
        secret, admin = f"a-secret-of-{name}", self._bucket.server.administrator()
        admin.make_user(name, secret, "owner", self._bucket.bucket, self._bucket.prefix)
        if self._kind == "temporary":
            given = AssumeRoleProvider(
                sts_endpoint=self._bucket.endpoint, access_key=name, secret_key=secret
            ).retrieve()
            assert given.session_token
            self._write(given.access_key, given.secret_key, given.session_token)
            self.end = lambda: admin.remove_user(name)
        else:
            own = Administrator(self._bucket.endpoint, name, secret, self._bucket.region)
            key, secret = own.make_service_account()
            self._write(key, secret, "")
            self.end = lambda: own.remove_service_account(key)

    def _write(self, key: str, secret: str, token: str) -> None:
        lines = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
        new = self._file.with_name("new")
        new.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items() if value))
        new.replace(self._file)


@pytest.fixture(params=["temporary", "of a service account"])
def login(
    request: pytest.FixtureRequest, minio_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Login:
    for name, value in minio_bucket.env().items():
        monkeypatch.setenv(name, value)
        if "KEY" in name:
            monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    made = Login(minio_bucket, file, request.param)
    made.renew()
    return made


def once(then: Callable[[], None]) -> Callable[[ProgressEvent], None]:
    """A progress that does something when the first block has ended."""
    done: list[int] = []

    def progress(event: ProgressEvent) -> None:
        if event.cells_done and not done:
            done.append(event.cells_done)
            then()

    return progress


@pytest.fixture
def expected() -> object:
    settings = FarmSettings().with_store("memory:not-refused")
    api.ingest_sample(settings)
    return api.run(SPEC, settings).document()["trials"]


def test_fresh_credentials_in_the_profile_are_taken_in_the_middle_of_a_study(
    login: Login, minio_bucket: Bucket, expected: object
) -> None:
    """What the run was given is refused; nobody hears of it."""
    settings = FarmSettings(threads=2).with_store(minio_bucket.url)
    api.ingest_sample(settings)
    end = login.end

    def expire() -> None:
        login.renew()
        end()

    outcome = api.run(SPEC, settings, progress=once(expire))
    assert outcome.document()["trials"] == expected


def test_a_block_waits_in_its_worker_for_fresh_credentials(login: Login, minio_bucket: Bucket) -> None:
    """They come a moment after the others were refused: no error at all."""
    settings = FarmSettings().with_store(minio_bucket.url)
    api.ingest_sample(settings)
    store = open_store(minio_bucket.url)
    study = submit(SPEC, store).study
    worker = Worker(minio_bucket.url, settings)
    worker.ready()
    [first] = worker.run("e-000000", study.name, (0,)).reports
    login.end()
    with pytest.raises(PermissionDenied):
        store.get("refs/main/0000000001.json")
    late = threading.Timer(1.0, login.renew)
    late.start()
    [second] = worker.run("e-000001", study.name, (1,)).reports
    late.join()
    assert (first.error, second.error) == (None, None) and second.seconds > 0.5


def test_without_fresh_credentials_there_is_one_error_and_nothing_is_lost(
    login: Login, minio_bucket: Bucket, expected: object
) -> None:
    settings = FarmSettings(threads=2).with_store(minio_bucket.url)
    api.ingest_sample(settings)
    with pytest.raises(PermissionDenied, match=r"the server said 403 .*credentials that may use this bucket"):
        api.run(SPEC, settings, progress=once(lambda: login.end()))
    login.renew()
    again = api.run(SPEC, settings)
    assert 0 < again.stats.cells_reused < again.study.cells
    assert again.document()["trials"] == expected
