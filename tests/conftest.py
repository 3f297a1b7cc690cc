"""Fixtures that several rooms share, and the rules of the suite.

The plain suite needs no network. A bucket is a real MinIO where one can be found (``make minio``); without one it is
moto's server, and the run says so, except in CI (``CI=true``), where a missing MinIO is a failure and never a skip.
The quick tier (``tests/effort.py``) has no server at all: a test that needs one is marked ``server`` by itself.
Market data of other people is read from ``../shared/data`` or ``FARM_TEST_DATA``; a test that needs it skips without.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest

from farm.shard import kept
from farm.values.errors import FarmError
from infra.minio import binary
from infra.minio.administer import Administrator
from infra.minio.server import REGION, Server
from tests.effort import IS_QUICK, effort

ROOT = Path(__file__).resolve().parent.parent
IS_CI = os.environ.get("CI") == "true"
SERVERS = {"minio_server", "moto_server", "s3_server"}

# A failing example is worth more when it comes back; slow machines must not turn a property into a timing test.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "local", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("local"), max_examples=effort(100))
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("quick" if IS_QUICK else "ci" if IS_CI else "local")
)

KEPT = ("FARM_TESTS", "FARM_TEST_DATA", "FARM_KERNEL_CACHE")
# Every test starts without the bucket, the store or the Ray of whoever runs it, and reports nothing to anybody.
for _name in list(os.environ):
    if _name.startswith(("AWS_", "FARM_", "RAY_")) and _name not in KEPT:
        del os.environ[_name]
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class S3Server:
    """An S3 server and the credentials that may do everything on it. ``kind`` is "minio" or "moto"."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str

    def environment(self) -> dict[str, str]:
        """The ``AWS_*`` variables of a client."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def administrator(self) -> Administrator:
        """Buckets on either kind; users and policies on MinIO only."""
        return Administrator(self.endpoint, self.access_key, self.secret_key, self.region)


@dataclass(frozen=True)
class Bucket:
    """A bucket of one test, empty at its start; ``url`` is the store's, with a prefix as a farm's often has."""

    server: S3Server
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def access_key(self) -> str:
        return self.server.access_key

    @property
    def secret_key(self) -> str:
        return self.server.secret_key

    @property
    def region(self) -> str:
        return self.server.region

    def env(self) -> dict[str, str]:
        """The ``AWS_*`` variables with which this bucket is reached."""
        return self.server.environment()


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Every test reads its stores itself: many are called the same, and some are damaged on purpose."""
    kept.forget()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def market_data() -> Path:
    """The folder of real market data; skips where there is none."""
    folder = Path(os.environ.get("FARM_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real market data: neither FARM_TEST_DATA nor ../shared/data is a folder")
    return folder


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real MinIO for the session; skips without one, fails without one in CI."""
    _refuse_in_quick_tier()
    if _minio() is None:
        if IS_CI:
            pytest.fail("CI needs a real MinIO: run `make minio`, or set MINIO_BIN")
        pytest.skip(_minio_missing())
    with Server(tmp_path_factory.mktemp("minio") / "data", executable=_minio()) as server:
        yield S3Server("minio", server.endpoint, server.access_key, server.secret_key, server.region)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto's S3 in this process: no MinIO needed, no policies, correct conditional puts."""
    _refuse_in_quick_tier()
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server("moto", f"http://{host}:{port}", "testing", "testing", REGION)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """MinIO where it can be found, and always in CI; else moto."""
    name = "minio_server" if IS_CI or _minio() is not None else "moto_server"
    server: S3Server = request.getfixturevalue(name)
    return server


@pytest.fixture
def s3_bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> Bucket:
    """A new bucket for the test, on MinIO or else moto."""
    return _new_bucket(s3_server, request.node.name)


@pytest.fixture
def minio_bucket(minio_server: S3Server, request: pytest.FixtureRequest) -> Bucket:
    """A new bucket for the test, on MinIO only."""
    return _new_bucket(minio_server, request.node.name)


@pytest.fixture(scope="module")
def module_bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> Bucket:
    """One new bucket for all tests of a module, on MinIO or else moto."""
    return _new_bucket(s3_server, Path(request.node.name).stem)


def pytest_configure(config: pytest.Config) -> None:
    """The quick tier is a choice by markers, unless others are asked for."""
    if IS_QUICK and not config.option.markexpr:
        config.option.markexpr = "not (slow or ray or server)"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for a server by a fixture; what asks for one in its body is refused it in the quick tier."""
    for item in items:
        if not SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


def pytest_report_header() -> str:
    """Say in the first lines which S3 the tests meet."""
    if IS_QUICK:
        return "s3: none in the quick tier"
    found = _minio()
    return f"s3: MinIO at {found}" if found else f"s3: {_minio_missing()}" + ("" if IS_CI else "; moto instead")


def _new_bucket(server: S3Server, test: str) -> Bucket:
    readable = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:40].rstrip("-")
    bucket = f"{readable}-{secrets.token_hex(4)}"
    server.administrator().make_bucket(bucket)
    return Bucket(server, bucket, "farm")


def _refuse_in_quick_tier() -> None:
    if IS_QUICK:
        pytest.fail("the quick tier has no server: mark the test `server`")


def _minio() -> Path | None:
    """The MinIO binary if it is there already: a test run never builds one."""
    return binary.find()


def _minio_missing() -> str:
    try:
        return f"no MinIO; `make minio` builds it with {binary.find_go()}"
    except FarmError as error:
        return f"no MinIO, and {error}"
