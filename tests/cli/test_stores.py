"""Stores that are not what their URL says: one error that names them, by every command, and nothing made on the way."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.support import Console, Done, refused, write_spec
from tests.conftest import Bucket
from tests.study.support import cross


def on(bucket: Bucket, **changes: str) -> Console:
    return Console(bucket.url, {**bucket.env(), **changes})


def every_command(farm: Console, spec: Path) -> dict[str, Done]:
    commands: dict[str, tuple[object, ...]] = {
        "ingest": ("ingest", "sample"),
        "plan": ("plan", spec),
        "run": ("run", spec),
        "status": ("status",),
        "results": ("results", spec),
        "report": ("report", spec),
        "explain": ("explain", "0123456789abcdef"),
    }
    return {name: farm(*arguments) for name, arguments in commands.items()}


def test_the_whole_line_on_a_bucket(s3_bucket: Bucket, tmp_path: Path, finished: Console, spec: Path) -> None:
    """The same trials, to the bit, as in a directory."""
    farm = on(s3_bucket)
    assert farm.document("ingest", "sample")["rows_added"] == 12_157
    document = farm.document("run", spec)
    assert document["trials"] == finished.document("results", spec)["trials"]
    assert farm.document("run", spec)["farm"]["cells"]["computed"] == 0
    assert farm.document("report", spec, "-o", tmp_path / "report.html")["bytes"] > 100_000
    key = document["trials"][3]["cells"][2]["key"]
    assert farm.document("explain", key)["computed"]["leases"][0]["worker"] == "in process"
    assert [study["cells"]["done"] for study in farm.document("status")["studies"]] == [45]


def test_a_bucket_that_is_missing(s3_bucket: Bucket, spec: Path) -> None:
    farm = replace(on(s3_bucket), store="s3://no-such-bucket-anywhere/farm")
    for name, done in every_command(farm, spec).items():
        text = refused(done, 5, "no-such-bucket-anywhere")
        assert "bucket" in text.splitlines()[0], (name, text)
        assert "  hint: " in text


def test_a_wrong_secret(minio_bucket: Bucket, spec: Path) -> None:
    for change in ({"AWS_SECRET_ACCESS_KEY": "hush-hush-hush"}, {"AWS_ACCESS_KEY_ID": "nobody"}):
        for done in every_command(on(minio_bucket, **change), spec).values():
            refused(done, 5, minio_bucket.bucket, "AWS_ACCESS_KEY_ID")
            assert "hush-hush-hush" not in done.err
    done = on(minio_bucket, AWS_SECRET_ACCESS_KEY="hush-hush-hush").process("ingest", "sample", "--json")
    assert (done.code, done.error["error"]) == (5, "PermissionDenied")
    assert on(minio_bucket)("ingest", "sample").code == 0


def test_no_credentials(minio_bucket: Bucket, spec: Path) -> None:
    environment = {name: value for name, value in minio_bucket.env().items() if "KEY" not in name}
    farm = Console(minio_bucket.url, environment)
    refused(farm("status"), 5, minio_bucket.bucket, "AWS_ACCESS_KEY_ID")


def test_a_user_who_may_only_read(minio_bucket: Bucket, spec: Path) -> None:
    """Results can be read; a study cannot be stored, and the error says so before anything is computed."""
    owner = on(minio_bucket)
    assert owner("ingest", "sample").code == 0
    assert owner("run", spec).code == 0
    minio_bucket.server.administrator().make_user("onlooker", "onlooker-secret", "reader", minio_bucket.bucket)
    environment = {"AWS_ACCESS_KEY_ID": "onlooker", "AWS_SECRET_ACCESS_KEY": "onlooker-secret"}
    reader = on(minio_bucket, **environment)
    assert reader.document("results", spec)["trials"] == owner.document("results", spec)["trials"]
    other = write_spec(spec.with_name("other.json"), cross(fast=(7, 11, 2)))
    assert reader("plan", other).code == 0
    refused(reader("run", other), 5, minio_bucket.bucket, "403 AccessDenied", "may use this bucket")
    refused(reader("ingest", "sample", "--dataset", "mine"), 5, "AccessDenied")


BRIEF = {"FARM_WATCHDOG_S": "5", "FARM_REQUEST_TIMEOUT_S": "5"}


@pytest.mark.slow
def test_an_endpoint_where_nobody_listens(spec: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        farm = Console("s3://bucket/farm", environment | {"AWS_REGION": "us-east-1", **BRIEF})
        refused(farm("status"), 5, "bucket", "no connection: nobody listens there", "AWS_ENDPOINT_URL")


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("", 2, ("--store", "no store is named", "FARM_STORE")),
        ("http://example.org/x", 5, ("http://example.org/x", "no store of this kind")),
        ("s3://", 5, ("s3://", "not an S3 URL", "s3://bucket/prefix")),
        ("s3://key:secret@bucket/x", 5, ("credentials do not belong in a URL", "AWS_ACCESS_KEY_ID")),
        ("file://host/x", 5, ("file://host/x", "file:///absolute/path")),
    ],
)
def test_urls(url: str, code: int, said: tuple[str, ...], spec: Path) -> None:
    for done in every_command(Console(url), spec).values():
        refused(done, code, *said)
        assert ":secret" not in done.err


def test_a_folder_that_is_not_there(empty: Console, folder: Path, spec: Path) -> None:
    """Reading makes nothing, and says what to do first."""
    done = every_command(empty, spec)
    assert "nothing here yet" in done["status"].out or done["status"].code == 0
    for name in ("plan", "run", "report", "results"):
        refused(Console(f"{empty.store}-other")(name, spec), 4, "the dataset 'main' is empty", "farm ingest sample")
    assert not Path(f"{empty.store}-other").exists()


def test_memory_is_gone_when_the_process_is(spec: Path) -> None:
    farm = Console("memory:cli-tests")
    assert farm("ingest", "sample").code == 0
    assert farm.document("run", spec)["farm"]["cells"]["computed"] == 45
    refused(farm("run", spec, "--workers", "2", "--fresh"), 2, "memory:", "--workers")
