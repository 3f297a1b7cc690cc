"""The three kinds of store, with hands that reach into each of them behind its back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from farm.store.base import Store
from farm.store.local import LocalStore
from farm.store.memory import MemoryStore
from farm.store.open import open_store


@dataclass(frozen=True)
class Bench:
    """A store under test. ``plant``, ``peek`` and ``keys`` do not go through it (memory: through its dictionary)."""

    store: Store
    plant: Callable[[str, bytes], None]
    peek: Callable[[str], bytes]
    keys: Callable[[], list[str]]


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.server)])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A new, empty store of each kind, as ``open_store`` gives it (for S3: MinIO, or moto where there is none)."""
    if request.param == "memory":
        return _memory()
    if request.param == "local":
        return _local(tmp_path / "store")
    bucket = request.getfixturevalue("s3_bucket")
    for name, value in bucket.env().items():
        monkeypatch.setenv(name, value)
    return _s3(bucket)


def _memory() -> Bench:
    store = MemoryStore("bench")
    objects = store._objects

    def plant(key: str, data: bytes) -> None:
        objects[key] = (data, f"planted {id(data)}")

    return Bench(store, plant, lambda key: objects[key][0], lambda: sorted(objects))


def _local(root: Path) -> Bench:
    def plant(key: str, data: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)

    def keys() -> list[str]:
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    return Bench(open_store(str(root)), plant, lambda key: (root / key).read_bytes(), keys)


def _s3(bucket) -> Bench:
    import io

    from minio import Minio

    client = Minio(
        bucket.endpoint.removeprefix("http://"),
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
        region=bucket.region,
        secure=False,
    )

    def plant(key: str, data: bytes) -> None:
        client.put_object(bucket.bucket, f"{bucket.prefix}/{key}", io.BytesIO(data), len(data))

    def peek(key: str) -> bytes:
        answer = client.get_object(bucket.bucket, f"{bucket.prefix}/{key}")
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def keys() -> list[str]:
        found = client.list_objects(bucket.bucket, prefix=f"{bucket.prefix}/", recursive=True)
        return sorted(item.object_name.removeprefix(f"{bucket.prefix}/") for item in found)

    return Bench(open_store(bucket.url), plant, peek, keys)


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    """A bare directory store, without wrappers."""
    return LocalStore(tmp_path / "store")
