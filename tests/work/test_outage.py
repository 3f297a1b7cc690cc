"""A bucket that is away for some seconds in the middle of a study: a real server, stopped and started again."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm import api
from farm.values.errors import Watchdog
from farm.values.settings import MIB, FarmSettings, StoreSettings
from farm.work.run import ProgressEvent
from infra.minio.administer import Administrator
from infra.minio.server import Server
from tests.conftest import S3Server
from tests.study.support import cross

pytestmark = [pytest.mark.slow, pytest.mark.server]
AWAY_S = 3.0
SPEC = cross(fast=(2, 12, 1), slow=(15, 40, 1))
LINE = re.compile(r"the store is away for \d+ s \(no connection: nobody listens there\); giving up after \d+ s")


@pytest.fixture
def server(minio_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of this test alone, with a bucket and its variables set. It needs what ``minio_server`` has found."""
    with Server(tmp_path / "minio") as own:
        Administrator(own.endpoint, own.access_key, own.secret_key, own.region).make_bucket("bucket")
        for name, value in own.environment().items():
            monkeypatch.setenv(name, value)
        yield own


def test_a_study_outlives_an_outage(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    reference = FarmSettings().with_store("memory:undisturbed")
    settings = FarmSettings(store=StoreSettings(silence_s=1.0), threads=2).with_store("s3://bucket/farm")
    for one in (reference, settings):
        api.ingest_sample(one)
    away: list[threading.Timer] = []

    def pull_the_plug(event: ProgressEvent) -> None:
        if event.cells_done and not away:
            assert event.cells_done < event.cells_total
            server.stop()
            away.append(threading.Timer(AWAY_S, server.start))
            away[0].start()

    capfd.readouterr()
    began = time.monotonic()
    try:
        outcome = api.run(SPEC, settings, progress=pull_the_plug)
    finally:
        for timer in away:
            timer.join()
    assert time.monotonic() - began > AWAY_S
    assert outcome.document()["trials"] == api.run(SPEC, reference).document()["trials"]
    said = capfd.readouterr().err.splitlines()
    assert said, "nobody was told"
    assert LINE.fullmatch(said[0]), said
    assert len(said) <= 8


def test_a_bucket_that_stays_away_ends_the_study_in_time_and_loses_nothing(server: Server) -> None:
    """One error, which says what the last try met; with the bucket back, the same call computes the rest."""
    limits = StoreSettings(
        watchdog_s=2.0, request_timeout_s=2.0, connect_timeout_s=1.0, backoff_s_max=0.5, throughput_bytes_s_min=16 * MIB
    )  # so that what a segment may take for its size is nothing
    settings = FarmSettings(store=limits).with_store("s3://bucket/farm")
    api.ingest_sample(settings)
    began = [0.0]

    def pull_the_plug(event: ProgressEvent) -> None:
        if event.cells_done and not began[0]:
            server.stop()
            began[0] = time.monotonic()

    with pytest.raises(Watchdog, match="nobody listens there"):
        api.run(SPEC, settings, progress=pull_the_plug)
    assert time.monotonic() - began[0] < 1.5 * limits.watchdog_s
    server.start()
    again = api.run(SPEC, settings)
    assert 0 < again.stats.cells_reused < again.study.cells
    reference = replace(settings).with_store("memory:stays-away")
    api.ingest_sample(reference)
    assert again.document()["trials"] == api.run(SPEC, reference).document()["trials"]
