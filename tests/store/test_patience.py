"""A store that takes the connection and says nothing: one line, an error in time, and Ctrl-C at once."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.store.base import Store
from farm.store.open import open_store
from farm.store.patience import Limit, Patience, leave, stay
from farm.store.probe import probe_conditional_put
from farm.store.wrap import counts_of
from farm.values.errors import Interrupted, NotFound, Unavailable, Watchdog
from farm.values.settings import StoreSettings
from tests.cli.support import Console, write_spec
from tests.study.support import cross

pytestmark = pytest.mark.slow
LIMIT_S = 0.8
SHORT = StoreSettings(
    connect_timeout_s=0.5,
    request_timeout_s=0.5,
    watchdog_s=LIMIT_S,
    silence_s=0.2,
    throughput_bytes_s_min=10**9,
    backoff_s=0.01,
    backoff_s_max=0.02,
)
LINE = re.compile(r"the store is away for 0 s \(no answer\); giving up after 1 s")


def lasting(seconds: float) -> Limit:
    return Limit(seconds, bytes_s_min=1.0)


VERBS: dict[str, Callable[[Store], object]] = {
    "head": lambda store: store.head("k"),
    "get": lambda store: store.get("k"),
    "get_range": lambda store: store.get_range("k", 0, 5),
    "get_ranges": lambda store: store.get_ranges("k", [(0, 5), (9, 5), (20, 5)]),
    "list": lambda store: list(store.list("")),
    "put": lambda store: store.put("k", b"x"),
    "put_if_absent": lambda store: store.put_if_absent("k", b"x"),
    "delete": lambda store: store.delete("k"),
    "probe": probe_conditional_put,
}


@pytest.fixture
def hole() -> Iterator[dict[str, str]]:
    """The variables of a server that accepts, and that is all."""
    taken: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "nobody-is-asked",
            "AWS_SECRET_ACCESS_KEY": "nobody-is-asked",
            "AWS_REGION": "us-east-1",
        }
        listener.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()


@pytest.fixture
def silent(hole: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in hole.items():
        monkeypatch.setenv(name, value)
    return open_store("s3://bucket/farm", SHORT)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_so_and_gives_up(verb: str, silent: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Within the time that was said, retries and second looks included."""
    began = time.monotonic()
    with pytest.raises(Watchdog, match=r"within 0\.8 s") as caught:
        VERBS[verb](silent)
    assert time.monotonic() - began < LIMIT_S + 0.7
    out, err = capsys.readouterr()
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 3  # each time the silence has doubled
    assert all(LINE.fullmatch(line) for line in err.splitlines()[:1]), err
    assert caught.value.place.startswith("s3://bucket/farm")
    assert caught.value.hint
    assert counts_of(silent).watchdog >= 1


def test_who_leaves_is_let_go(silent: Store) -> None:
    """All threads that wait, and those that would ask next, long before the watchdog."""
    patient = open_store("s3://bucket/farm", StoreSettings(silence_s=60.0))
    with ThreadPoolExecutor(4) as pool:
        flights = [pool.submit(patient.get, f"k{i}") for i in range(12)]
        time.sleep(0.2)
        began = time.monotonic()
        leave()
        for flight in flights:
            with pytest.raises(Interrupted):
                flight.result(timeout=10)
        assert time.monotonic() - began < 5
    stay()  # as a process does that goes on
    assert Patience("s3://b", 60.0).call("k", lambda: time.sleep(1.3), lasting(60)) is None


def test_answers_end_a_silence() -> None:
    """One line in a silence, another in the next; what the store said is passed on, its errors too."""
    said: list[str] = []
    patience = Patience("s3://b", 0.15, said.append)
    until = lasting(30)
    for expected in (1, 1, 2):
        if expected == len(said) + 1:
            assert patience.call("k", lambda: time.sleep(0.25) or "bytes", until) == "bytes"
        assert patience.call("k", lambda: "at once", until) == "at once"
        assert len(said) == expected
    with pytest.raises(NotFound):
        patience.call("k", _raise_not_found, until)
    with pytest.raises(KeyboardInterrupt):
        patience.call("k", _raise_interrupt, until)


def _raise_not_found() -> None:
    raise NotFound("no such object", place="k")


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_a_request_in_vain_is_no_answer() -> None:
    """Retries that fail for want of a connection are one silence, and the others that wait are in it too."""
    said: list[str] = []
    patience = Patience("s3://b", 0.3, said.append)

    def in_vain() -> None:
        time.sleep(0.25)
        raise Unavailable("no connection")

    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(patience.call, "k", lambda: time.sleep(0.8), lasting(30))
        with pytest.raises(Unavailable):
            patience.call("k", in_vain, lasting(30))
        long.result()
    assert len(said) == 2  # after 0.3 s and 0.6 s


def test_the_command_line(hole: dict[str, str], tmp_path: Path) -> None:
    """With and without --json the line goes to standard error after 5 s; then the error in time, or Ctrl-C at once."""
    spec = write_spec(tmp_path / "study.json", cross())
    farm = Console("s3://bucket/farm", {**hole, "FARM_REQUEST_TIMEOUT_S": "6", "FARM_WATCHDOG_S": "7"})
    waited = Console("s3://bucket/farm", hole)
    with contextlib.ExitStack() as started:
        patient = [
            started.enter_context(farm.started(*words, "--json")) for words in (("status",), ("ingest", "sample"))
        ]
        others = [started.enter_context(waited.started(*words)) for words in (("run", spec), ("ingest", "sample"))]
        for child in patient:
            out, err = child.communicate(timeout=60)
            line, error = err.splitlines()
            assert line == "the store is away for 5 s (no answer); giving up after 7 s"
            assert (child.returncode, out, json.loads(error)["error"]) == (5, "", "Watchdog")
        for child in others:
            assert child.stderr is not None
            assert child.stderr.readline() == "the store is away for 5 s (no answer); giving up after 120 s\n"
            assert _seconds_to_leave(child) < 3


def _seconds_to_leave(child: subprocess.Popen[str]) -> float:
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err.startswith("error: ")
    assert "stopped by the user" in err
    assert "Traceback" not in err
    return time.monotonic() - began
