"""A large object over a thin line: how long it may take follows its size, whole or in part, up and down."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from farm.store.base import Store
from farm.store.open import open_store
from farm.store.wrap import counts_of
from farm.values.errors import UsageError, Watchdog
from farm.values.settings import MIB, StoreSettings

BODY = bytes(range(256)) * (6 * MIB // 256)
LINE_BYTES_S = 3 * MIB
PIECE = 64 * 1024
# Well below the two seconds that the body takes on the line.
HASTY = StoreSettings(
    connect_timeout_s=0.5,
    request_timeout_s=0.5,
    watchdog_s=0.8,
    backoff_s=0.01,
    backoff_s_max=0.02,
    gap_bytes_max=PIECE,
    fetch_bytes_max=PIECE,
    throughput_bytes_s_min=2 * MIB,
)


class Line(BaseHTTPRequestHandler):
    """One object, at so many bytes a second."""

    protocol_version = "HTTP/1.1"
    bytes_s: float
    received: bytes

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        got = []
        while left:
            got.append(self.rfile.read(min(PIECE, left)))
            left -= len(got[-1])
            self._rest(len(got[-1]))
        type(self).received = b"".join(got)
        self._head(200, 0)

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(BODY))
        range_ = f"bytes {start}-{stop - 1}/{len(BODY)}"
        self._head(206 if asked else 200, stop - start, *([("Content-Range", range_)] if asked else []))
        for at in range(start, stop, PIECE):
            self.wfile.write(BODY[at : min(at + PIECE, stop)])
            self._rest(PIECE)

    def _head(self, status: int, length: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        modified = ("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        for name, text in (("Content-Length", str(length)), ("ETag", '"e"'), modified, *headers):
            self.send_header(name, text)
        self.end_headers()

    def _rest(self, size: int) -> None:
        time.sleep(size / self.bytes_s)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], tuple[Store, type[Line]]]]:
    servers: list[ThreadingHTTPServer] = []

    def start(bytes_s: float) -> tuple[Store, type[Line]]:
        handler = type("OwnLine", (Line,), {"bytes_s": bytes_s, "received": b""})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]  # who gave up hangs up
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody-is-asked")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody-is-asked")
        return open_store("s3://bucket/farm", HASTY), handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_limits_follow_size(line: Callable[[float], tuple[Store, type[Line]]]) -> None:
    store, server = line(LINE_BYTES_S)
    for put in (store.put, store.put_if_absent):
        put("k", BODY)
        assert server.received == BODY
    assert store.get("k") == BODY
    assert store.get_range("k", 1000, len(BODY) - 1000) == BODY[1000:]
    assert sum(counts_of(store).retries.values()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("read", [lambda store: store.get("k"), lambda store: store.put("k", BODY)])
def test_a_line_below_the_least_throughput_is_given_up(
    read: Callable[[Store], object], line: Callable[[float], tuple[Store, type[Line]]]
) -> None:
    """Within the time that the least throughput allows, and not before."""
    store, _ = line(MIB)
    began = time.monotonic()
    with pytest.raises(Watchdog):
        read(store)
    allowed = HASTY.watchdog_s + len(BODY) / HASTY.throughput_bytes_s_min
    assert allowed - 1.0 < time.monotonic() - began < allowed + 1.5


@pytest.mark.parametrize(
    "wrong", [{"request_timeout_s": 200.0}, {"backoff_s_max": 200.0}, {"throughput_bytes_s_min": 0}]
)
def test_limits_that_contradict_each_other(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        StoreSettings(**wrong)
