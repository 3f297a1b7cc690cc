"""URLs that name a store, and URLs that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.store.open import open_store
from farm.values.errors import ConfigError, NotFound


def test_a_path_and_a_file_url_are_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever way it is spelt, the store's own URL is absolute, so that other processes find it."""
    folder = tmp_path / "with space"
    open_store(str(folder)).put("k", b"x")
    assert open_store(f"file://{tmp_path}/with%20space").get("k") == b"x"
    monkeypatch.chdir(tmp_path)
    relative = open_store("with space")
    assert relative.get("k") == b"x"
    assert open_store(relative.url).get("k") == b"x"


def test_memory_stores_have_names() -> None:
    open_store("memory:one").put("k", b"x")
    assert open_store("memory:one").get("k") == b"x"
    with pytest.raises(NotFound):
        open_store("memory:two").get("k")


def test_reading_creates_nothing(tmp_path: Path) -> None:
    """A mistyped path stays absent, and the error says that the directory does not exist."""
    store = open_store(str(tmp_path / "mistyped"))
    assert list(store.list("")) == []
    with pytest.raises(NotFound) as caught:
        store.get("k")
    assert "does not exist" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://host/bucket",
        "gs://bucket",
        "s3://",
        "s3:bucket",
        "s3://Bad_Bucket",
        "s3://bucket/../up",
        "s3://bucket/a?b=c",
        "s3://KEY:SECRET@bucket/p",
        "ftp://KEY:SECRET@host/p",
        "file://host/path",
        "file:relative",
        "memory:a/b",
    ],
)
def test_what_names_no_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a ConfigError with a way out, and none shows credentials somebody put into the URL."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert caught.value.place
    assert caught.value.allowed or caught.value.hint
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for url in (str(tmp_path / "file"), "/dev/full"):
        with pytest.raises(ConfigError, match="not a directory"):
            open_store(url)
