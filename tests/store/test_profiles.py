"""Profiles of ``~/.aws``: read where the environment gives no key, named where they are wrong, never shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.store.aws import reach
from farm.store.open import open_store
from farm.values.errors import ConfigError, PermissionDenied, StoreError
from tests.conftest import Bucket

SECRET = "p+ss/word=1-of-nobody"
KEYS = f"aws_access_key_id = TESTER\naws_secret_access_key = {SECRET}\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the files of a home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")

    def files(credentials: str = "", config: str = "") -> None:
        (tmp_path / ".aws").mkdir()
        for name, text in {"credentials": credentials, "config": config}.items():
            if text:
                (tmp_path / ".aws" / name).write_text(text)

    return files


def test_the_default_profile(s3_bucket: Bucket, write: Callable[..., None]) -> None:
    """Keys, region and endpoint: nothing need be in the environment."""
    server = s3_bucket.server
    write(
        f"[default]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n",
        f"[default]\nregion = {server.region}\nendpoint_url = {server.endpoint}\n",
    )
    store = open_store(s3_bucket.url)
    store.put("k", b"x")
    assert store.get("k") == b"x"


def test_a_named_profile(write: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its region counts unless the environment has one; keys in the environment come before any profile."""
    write(f"[work]\n{KEYS}", "[profile work]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    found = reach("bucket", "s3://bucket")
    assert found.identity is not None
    assert found.identity.credential()["access_key_id"] == "TESTER"
    assert found.config["region"] == "eu-west-1"
    assert "profile work" in found.hint
    assert SECRET not in repr(found)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert reach("bucket", "s3://bucket").config["region"] == "us-west-2"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other-secret")
    identity = reach("bucket", "s3://bucket").identity
    assert identity is not None
    assert identity.credential()["access_key_id"] == "OTHER"


@pytest.mark.parametrize(
    ("credentials", "config", "name", "place", "said"),
    [
        (f"[work]\n{KEYS}", "", "play", "AWS_PROFILE", "no profile 'play'; allowed: work"),
        ("[default\n" + KEYS, "", "", "the default profile", "config parse"),
        ("[default]\naws_secret_access_key = x\naws_access_key_id = a b\n", "", "", "the default profile", "blanks"),
        ("[default]\naws_access_key_id = TESTER\n", "", "", "the default profile", "partial credentials"),
        (f"[work]\n{KEYS}", "[profile work]\nregion = a b\n", "work", "region of profile work", "us-east-1"),
        (f"[work]\n{KEYS}", "[profile work]\nendpoint_url = h:9000\n", "work", "endpoint_url of profile work", "no http://"),
        ("", "[profile work]\ncredential_process = /no/such/program\n", "work", "AWS_PROFILE", "cannot be used"),
        ("", "[profile work]\nregion = eu-west-1\n", "work", "AWS_PROFILE", "gives no credentials"),
    ],
)  # fmt: skip
def test_profiles_that_are_wrong(
    credentials: str,
    config: str,
    name: str,
    place: str,
    said: str,
    write: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One error that says which and why; no part of a file is quoted."""
    write(credentials, config)
    if name:
        monkeypatch.setenv("AWS_PROFILE", name)
    with pytest.raises(StoreError) as caught:
        open_store("s3://bucket/farm")
    assert isinstance(caught.value, ConfigError | PermissionDenied)
    assert caught.value.place == place
    assert said in str(caught.value)
    assert caught.value.hint
    assert SECRET not in str(caught.value)


def test_refused_keys_of_a_profile(
    minio_bucket: Bucket, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint names the profile, and the text no key."""
    write(f"[default]\n{KEYS}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", minio_bucket.endpoint)
    with pytest.raises(PermissionDenied) as caught:
        open_store(minio_bucket.url).get("k")
    assert "the keys are those of the profile default" in caught.value.hint
    assert SECRET not in str(caught.value)
    assert "TESTER" not in str(caught.value)


def test_without_botocore(write: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said that profiles are not read then. Without a profile nobody asks for botocore."""
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionDenied) as caught:
        open_store("s3://bucket/farm")
    assert "botocore" not in caught.value.hint
    write(f"[default]\n{KEYS}")
    with pytest.raises(PermissionDenied) as caught:
        open_store("s3://bucket/farm")
    assert "only where botocore is installed" in caught.value.hint
