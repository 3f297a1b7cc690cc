"""What goes wrong with S3, and what the user is told: against a real server, and against one that misbehaves."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from farm.store.open import open_store
from farm.store.probe import probe_conditional_put
from farm.store.wrap import counts_of
from farm.values.errors import (
    AlreadyExists,
    BucketNotFound,
    ConfigError,
    NotFound,
    PermissionDenied,
    RangePastEnd,
    ShortRead,
    StoreError,
    Throttled,
    Unavailable,
    Watchdog,
    WriteFailed,
)
from farm.values.settings import StoreSettings
from tests.conftest import Bucket, S3Server

QUICK = StoreSettings(backoff_s=0.01, backoff_s_max=0.02, request_timeout_s=5.0)
BRIEF = replace(QUICK, watchdog_s=0.5, request_timeout_s=0.5, connect_timeout_s=0.5)
SECRET = "s3cret/Key+that/must-not-show"


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Server], None]:
    def use(server: S3Server) -> None:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)

    return use


def test_a_missing_bucket_is_named_with_a_way_out(s3_server: S3Server, reach: Callable[[S3Server], None]) -> None:
    """Each verb says BucketNotFound, HEAD too (its answer has no body), and how to make the bucket."""
    reach(s3_server)
    store = open_store("s3://no-such-bucket-here/farm", QUICK)
    for use in (
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: store.get_range("k", 0, 1),
        lambda: list(store.list("")),
        lambda: store.put("k", b"x"),
        lambda: store.put_if_absent("k", b"x"),
        lambda: store.delete("k"),
    ):
        with pytest.raises(BucketNotFound) as caught:
            use()
        assert "s3://no-such-bucket-here" in caught.value.place
        assert "s3 mb s3://no-such-bucket-here" in caught.value.hint
    assert counts_of(store).retries["client"] == 0


def test_wrong_credentials(s3_server: S3Server, reach: Callable[[S3Server], None], s3_bucket: Bucket) -> None:
    """PermissionDenied at once, naming the variables to set and showing none of their values."""
    if s3_server.kind == "moto":
        pytest.skip("moto checks no signatures")
    reach(s3_server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        _refused(open_store(s3_bucket.url, QUICK), s3_server.access_key)
        patch.setenv("AWS_ACCESS_KEY_ID", "NOBODYNOBODY")
        _refused(open_store(s3_bucket.url, QUICK), "NOBODYNOBODY")


def _refused(store, access_key: str) -> None:
    for use in (
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: list(store.list("")),
        lambda: store.put("k", b""),
    ):
        with pytest.raises(PermissionDenied) as caught:
            use()
        text = f"{caught.value} {caught.value!r} {caught.value.to_json()} {caught.value.__cause__}"
        assert "AWS_ACCESS_KEY_ID" in text
        assert SECRET not in text
        assert access_key not in text
    assert counts_of(store).retries["client"] == 0


def test_no_credentials_at_all() -> None:
    """Where there is no metadata service to ask, opening says so at once."""
    with pytest.raises(PermissionDenied) as caught:
        open_store("s3://bucket/farm")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is tried until the watchdog; the error says so, and the hint names the endpoint variable."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        _environment(monkeypatch, f"http://127.0.0.1:{taken.getsockname()[1]}")
        store = open_store("s3://bucket/farm", BRIEF)
        with pytest.raises(Watchdog, match="nobody listens there") as caught:
            store.get("k")
    assert "AWS_ENDPOINT_URL" in caught.value.hint
    assert counts_of(store).retries["client"] > 5


# A server that says what a test wants -------------------------------------------------------------------------------


class Server:
    """Answers each request with the next of ``answers`` (the last one again and again); remembers what was asked."""

    def __init__(self, answers: list[Callable[[socket.socket, str], None]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            request = b""
            while b"\r\n\r\n" not in request:
                more = connection.recv(65536)
                if not more:
                    return
                request += more
            head, _, body = request.partition(b"\r\n\r\n")
            text = head.decode()
            length = re.search(r"(?i)content-length: (\d+)", text)
            while length is not None and len(body) < int(length[1]):
                body += connection.recv(65536)
            turn = min(len(self.asked), len(self.answers) - 1)
            self.asked.append(text)
            self.answers[turn](connection, text)

    def close(self) -> None:
        self._closing.set()
        self._listener.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: Callable[[socket.socket, str], None]) -> Server:
        server = Server(list(answers))
        servers.append(server)
        _environment(monkeypatch, server.endpoint)
        return server

    yield start
    for server in servers:
        server.close()


def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENTIFIER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def _say(status: str, body: bytes = b"", headers: str = "") -> Callable[[socket.socket, str], None]:
    def answer(connection: socket.socket, request: str) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
        connection.sendall(head.encode() + (b"" if request.startswith("HEAD") else body))

    return answer


def _xml(code: str) -> bytes:
    text = f"<Code>{code}</Code><Message>because</Message><AWSAccessKeyId>AKIDENTIFIER</AWSAccessKeyId>"
    return f"<Error>{text}</Error>".encode()


META = 'ETag: "e"\r\nLast-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\n'
GOOD = _say("206 Partial Content", b"01234", f"{META}Content-Range: bytes 0-4/10\r\n")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("503 Service Unavailable", "SlowDown", Throttled),
        ("429 Too Many Requests", "TooManyRequests", Throttled),
        ("500 Internal Server Error", "InternalError", Unavailable),
        ("503 Service Unavailable", "ServiceUnavailable", Unavailable),
        ("409 Conflict", "OperationAborted", Unavailable),
        ("400 Bad Request", "RequestTimeout", Unavailable),
        ("403 Forbidden", "AccessDenied", PermissionDenied),
        ("403 Forbidden", "RequestTimeTooSkewed", PermissionDenied),
        ("400 Bad Request", "ExpiredToken", PermissionDenied),
        ("400 Bad Request", "AuthorizationHeaderMalformed", ConfigError),
        ("404 Not Found", "NoSuchKey", NotFound),
        ("404 Not Found", "NoSuchBucket", BucketNotFound),
        ("416 Range Not Satisfiable", "InvalidRange", RangePastEnd),
        ("507 Insufficient Storage", "XMinioStorageFull", WriteFailed),
        ("418 I'm a teapot", "Teapot", StoreError),
    ],
)
def test_every_answer_becomes_one_error(
    serve: Callable[..., Server], status: str, code: str, error: type[StoreError]
) -> None:
    """The table, through the real client: class, place, no secret. What is retryable is retried, nothing else."""
    server = serve(_say(status, _xml(code)))
    with pytest.raises(StoreError) as caught:
        open_store("s3://bucket/farm", BRIEF).get_range("the/key", 0, 5)
    cause = caught.value.__cause__ if error.retryable else caught.value
    assert type(cause) is error
    assert (type(caught.value) is Watchdog) == error.retryable
    assert caught.value.place in ("s3://bucket/farm/the/key", "s3://bucket/farm")
    assert code in caught.value.message
    assert "AKIDENTIFIER" not in str(caught.value)
    gets = [ask for ask in server.asked if "the/key" in ask.splitlines()[0]]
    assert (len(gets) > 1) == error.retryable


def test_throttling_passes(serve: Callable[..., Server]) -> None:
    """Two refusals and a reset, then the bytes: three retries of the client layer."""
    slow = _say("503 Slow Down", _xml("SlowDown"))
    serve(slow, slow, lambda connection, _: connection.close(), GOOD)
    store = open_store("s3://bucket/farm", QUICK)
    assert store.get_range("k", 0, 5) == b"01234"
    assert counts_of(store).retries == {"client": 3, "range": 0, "span": 0}


@pytest.mark.parametrize(
    "bad",
    [
        # A short but well-framed body; a range that was not asked for; the whole object with status 200.
        _say("206 Partial Content", b"012", f"{META}Content-Range: bytes 0-2/10\r\n"),
        _say("206 Partial Content", b"56789", f"{META}Content-Range: bytes 5-9/10\r\n"),
        _say("206 Partial Content", b"012", f"{META}Content-Range: bytes 0-4/10\r\n"),
        _say("200 OK", b"0123456789", META),
    ],
    ids=["short", "other range", "short body", "no range"],
)
def test_wrong_bodies_are_noticed_and_fetched_again(serve: Callable[..., Server], bad) -> None:
    """What arrives is the range asked for, exactly, or it is asked for again."""
    server = serve(bad, GOOD)
    store = open_store("s3://bucket/farm", QUICK)
    assert store.get_range("k", 0, 5) == b"01234"
    assert len(server.asked) == 2
    retries = counts_of(store).retries
    assert retries["range"] + retries["client"] == 1


def test_wrong_bodies_forever_are_an_error(serve: Callable[..., Server]) -> None:
    serve(_say("206 Partial Content", b"012", f"{META}Content-Range: bytes 0-2/10\r\n"))
    with pytest.raises(ShortRead):
        open_store("s3://bucket/farm", QUICK).get_range("k", 0, 5)


def test_a_body_cut_off_is_fetched_again(serve: Callable[..., Server]) -> None:
    """The connection breaks in the middle of a body."""

    def cut(connection: socket.socket, _: str) -> None:
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n{META}Content-Range: bytes 0-4/10\r\n\r\n"
        connection.sendall(head.encode() + b"01")

    serve(cut, cut, GOOD)
    store = open_store("s3://bucket/farm", QUICK)
    assert store.get_range("k", 0, 5) == b"01234"
    assert sum(counts_of(store).retries.values()) == 2


def test_a_drip_trips_the_watchdog(serve: Callable[..., Server]) -> None:
    """A server that sends a byte now and then forever: the request ends, retries included, and says why."""

    def drip(connection: socket.socket, _: str) -> None:
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: 5000\r\n{META}Content-Range: bytes 0-4999/9000\r\n\r\n"
        connection.sendall(head.encode())
        while True:
            connection.sendall(b"x")
            if threading.Event().wait(0.05):
                return

    serve(drip)
    patience = replace(
        QUICK,
        connect_timeout_s=0.3,
        request_timeout_s=0.3,
        watchdog_s=0.5,
        throughput_bytes_s_min=10**8,
    )
    store = open_store("s3://bucket/farm", patience)
    with pytest.raises(Watchdog, match=r"no (answer|success) within 0\.5 s"):
        store.get_range("k", 0, 5000)
    assert counts_of(store).watchdog == 1


def test_the_probe_sees_a_server_that_ignores_conditions(serve: Callable[..., Server]) -> None:
    """Such a server accepts all racers; the farm refuses to work on it, and cleans up."""
    server = serve(_liar())
    with pytest.raises(StoreError, match="8 won") as caught:
        probe_conditional_put(open_store("s3://bucket/farm", QUICK))
    assert "If-None-Match" in caught.value.hint
    assert "delete" in server.asked[-1].splitlines()[0].lower()


def _liar() -> Callable[[socket.socket, str], None]:
    deleted = b"<DeleteResult><Deleted><Key>farm/probe/x</Key></Deleted></DeleteResult>"

    def answer(connection: socket.socket, request: str) -> None:
        verb = request.split(" ", 1)[0]
        if verb == "POST":
            _say("200 OK", deleted)(connection, request)
        elif verb == "PUT":
            _say("200 OK", b"", META)(connection, request)
        else:
            _say("200 OK", b"anything", META)(connection, request)

    return answer


def test_a_lost_answer_of_a_conditional_put(serve: Callable[..., Server]) -> None:
    """The put arrived, its answer did not: the retry finds its own bytes and is a success; other bytes are not."""
    exists = _say("412 Precondition Failed", _xml("PreconditionFailed"))
    hang_up = lambda connection, _: connection.close()  # noqa: E731
    serve(hang_up, exists, _say("200 OK", b"mine", META))
    open_store("s3://bucket/farm", QUICK).put_if_absent("k", b"mine")
    serve(hang_up, exists, _say("200 OK", b"theirs", META))
    with pytest.raises(AlreadyExists):
        open_store("s3://bucket/farm", QUICK).put_if_absent("k", b"mine")


def test_texts_hold_no_secret(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server says; a key of a few letters is masked as a word, and leaves other words alone."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "is")
    serve(_say("403 Forbidden", f"<Code>Odd</Code><Message>this {SECRET} is yours</Message>".encode()))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "is")
    with pytest.raises(PermissionDenied) as caught:
        open_store("s3://bucket/farm", QUICK).get("k")
    assert caught.value.message == "the server said 403 Odd (this <AWS_SECRET_ACCESS_KEY> <AWS_SESSION_TOKEN> yours)"


def test_who_may_only_read_is_told_so_once(minio_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletes are sent in bulk, and refused in another form than all other requests."""
    minio_bucket.server.administrator().make_user("store-reader", "store-reader-secret", "reader", minio_bucket.bucket)
    for name, value in minio_bucket.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "store-reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "store-reader-secret")
    store = open_store(minio_bucket.url, QUICK)
    actions = (
        lambda: store.delete("k"),
        lambda: store.put("k", b""),
        lambda: store.put_if_absent("k", b""),
        lambda: probe_conditional_put(store),
    )
    for action in actions:
        with pytest.raises(PermissionDenied, match="AccessDenied") as caught:
            action()
        assert "may use this bucket" in caught.value.hint
    assert not list(store.list(""))


# Where what answers is no bucket --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "said", "hint"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "what answers there does not speak HTTP", "http:// or https://"),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            "the server speaks TLS there",
            "is https:// meant",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n<p>The plain HTTP request was sent to HTTPS port</p>",
            "the server speaks TLS there",
            "is https:// meant",
        ),
    ],
)  # fmt: skip
def test_the_wrong_server(serve: Callable[..., Server], reply: bytes, said: str, hint: str) -> None:
    """It is said at once what it is, and nothing is tried again."""
    server = serve(lambda connection, _: connection.sendall(reply))
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket/farm", QUICK).get("k")
    assert caught.value.message == said
    assert hint in caught.value.hint
    assert len(server.asked) == 1


def test_tls_to_a_server_that_speaks_none(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setattr(server, "_answer", lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint.replace("http://", "https://"))
    with pytest.raises(ConfigError, match="does not speak TLS") as caught:
        open_store("s3://bucket/farm", QUICK).get("k")
    assert "is http:// meant" in caught.value.hint


@pytest.mark.parametrize("status", ["301 Moved Permanently", "307 Temporary Redirect"])
def test_a_bucket_that_is_elsewhere(serve: Callable[..., Server], status: str) -> None:
    serve(_say(status, _xml("PermanentRedirect")))
    with pytest.raises(ConfigError, match="elsewhere") as caught:
        open_store("s3://bucket/farm", QUICK).get("k")
    assert "AWS_REGION" in caught.value.hint


def test_a_panic_is_an_error(monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Server]) -> None:
    """What the client raises when it panics is no Exception; it names no secret either."""
    panic = type("PanicException", (BaseException,), {})
    serve(GOOD)
    store = open_store("s3://bucket/farm", QUICK)

    def fail(*_: object, **__: object) -> None:
        raise panic(f"called `Result::unwrap()` on {SECRET}")

    monkeypatch.setattr("obstore.get", fail)
    with pytest.raises(ConfigError, match=r"the S3 client failed: called `Result::unwrap\(\)` on <AWS_SECRET"):
        store.get("k")
    monkeypatch.setattr("farm.store.s3.Client", fail)
    with pytest.raises(ConfigError, match="<AWS_SECRET"):
        open_store("s3://bucket/farm", QUICK)
