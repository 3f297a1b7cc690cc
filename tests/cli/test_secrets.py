"""Canaries: secrets in the URL of a source and in the environment turn up nowhere else.

Looked through: both streams of every command, errors included, every object of the store (Parquet and Arrow also
decoded), every file that is left or was there meanwhile, logs of workers among them, and the arguments of every process
that a command starts.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import io
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from farm.store.open import open_store
from tests.cli.support import BARS, COMMAND, HEADER, Console, write_spec
from tests.conftest import Bucket
from tests.study.support import cross

pytestmark = [pytest.mark.slow, pytest.mark.server]
USER, PASSWORD = "canary-user", "canary/Pass?word@1"
SIGNATURE = "canary+signature/of=a~day"
KEY_ID, SECRET = "canary-key-id", "canary-secret-key-5e1f"
CANARIES = (PASSWORD, "canary/Pass", "word@1", SIGNATURE, SECRET, USER)
SIGNED = f"X-Amz-Signature={quote(SIGNATURE, safe='')}"
DAYS = [datetime.date(2019, 1, 1) + datetime.timedelta(at) for at in range(500)]
ROWS = [f"CAN,{day},{n + 10},{n + 12},{n + 9},{n + 11},5" for n, day in enumerate(DAYS)]
FILES = {
    "/bars.csv": "\n".join([HEADER, *ROWS]),
    "/dividends.csv": "symbol,ex_date,amount\nCAN,2019-03-01,0.5\n",
    "/splits.csv": "symbol,ex_date,ratio\nCAN,2019-06-03,2\n",
    "/broken.csv": f"{HEADER}\nCAN,2019-01-02,ten,11,9,10,5\n",
    "/page.html": "<html><body>who are you</body></html>",
    "/empty.csv": "",
    "/torn.parquet": "PAR1 and nothing else",
}


class Guarded(http.server.BaseHTTPRequestHandler):
    """Serves the files to who knows both secrets."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        is_known = self.headers.get("Authorization") == f"Basic {login}"
        is_signed = parse_qs(parts.query).get("X-Amz-Signature") == [SIGNATURE]
        body = FILES.get(parts.path, "").encode()
        status = 500 if parts.path == "/error" else 403 if not (is_known and is_signed) else 404
        self.send_response(200 if is_known and is_signed and parts.path in FILES else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(minio_bucket: Bucket, tmp_path: Path) -> dict[str, str]:
    """That of somebody whose keys are canaries, and whose every file is below ``tmp_path``."""
    minio_bucket.server.administrator().make_user(KEY_ID, SECRET, "owner", minio_bucket.bucket)
    places = {name: str(tmp_path / "home") for name in ("HOME", "TMPDIR")}
    kernels = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    places["XDG_CACHE_HOME"] = kernels  # compiled code, which is slow to make
    (tmp_path / "home").mkdir()
    own = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {**os.environ, **minio_bucket.env(), **own, **places, "FARM_STORE": minio_bucket.url}


def found(texts: Mapping[str, bytes]) -> list[str]:
    """Return where a canary is, in any of its spellings."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    spelt = {form for canary in CANARIES for form in (canary, quote(canary), quote(canary, safe=""))} | {login}
    return [f"{place}: {form}" for place, text in texts.items() for form in spelt if form.encode() in text]


def objects(bucket: Bucket) -> dict[str, bytes]:
    """Return every object of the store, as it is and decoded."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.env().items():
            patch.setenv(name, value)
        store = open_store(bucket.url)
        texts = {meta.key: store.get(meta.key) for meta in store.list("")}
    decoded = {}
    for key, data in texts.items():
        if key.endswith(".parquet"):
            decoded[f"{key} decoded"] = str(pq.read_table(io.BytesIO(data)).to_pydict()).encode()
        elif key.endswith(".arrow"):
            decoded[f"{key} decoded"] = str(pa.ipc.open_stream(data).read_all().to_pydict()).encode()
    return texts | decoded


def files(folder: Path) -> dict[str, bytes]:
    texts = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if path.is_file():
                texts[str(path)] = path.read_bytes()
    return texts


class Lookout:
    """Runs commands, and looks meanwhile at what their processes are called and at the files they have."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self.seen: dict[str, bytes] = {}
        self.arguments = 0

    def __call__(self, *arguments: object) -> int:
        words = [str(COMMAND), *map(str, arguments)]
        out = io.BytesIO()
        child = subprocess.Popen(
            words, env=self._environment, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert child.stdout is not None
        reader = threading.Thread(target=lambda: out.write(child.stdout.read()))  # type: ignore[union-attr]
        reader.start()
        while child.poll() is None:
            self._look(child.pid)
            time.sleep(0.1)
        reader.join()
        self.seen[f"output of {arguments[0]} {len(self.seen)}"] = out.getvalue()
        return child.returncode

    def _look(self, command: int) -> None:
        mark = f"HOME={self._environment['HOME']}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # What the command itself is called, its user has typed.
                if int(process.name) != command and mark in (process / "environ").read_bytes():
                    self.arguments += 1
                    line = (process / "cmdline").read_bytes()
                    self.seen[f"arguments of {process.name} {hash(line)}"] = line
        self.seen |= files(self._folder)


def test_no_canary_anywhere(host: str, environment: dict[str, str], minio_bucket: Bucket, tmp_path: Path) -> None:
    farm = Lookout(environment, tmp_path)

    def url(path: str) -> str:
        return f"http://{USER}:{quote(PASSWORD, safe='')}@{host}{path}?{SIGNED}"

    assert farm("ingest", url("/bars.csv"), *BARS, "--skip-rows", "unknown-session") == 0
    assert farm("ingest", url("/dividends.csv"), "--kind", "dividends", "--json") == 0
    assert farm("ingest", url("/splits.csv"), "--kind", "splits") == 0
    raw = f"http://{USER}:{PASSWORD}@{host}/bars.csv?{SIGNED}"  # no URL: the password has to be quoted
    here, other = Console(environment["FARM_STORE"], environment), quote("another" + PASSWORD, safe="")
    broken = ("/broken.csv", "/page.html", "/empty.csv", "/torn.parquet", "/none.csv", "/error")
    foreign = (raw, f"http://{USER}:{other}@{host}/bars.csv?{SIGNED}", f"ftq://{USER}:{PASSWORD}@{host}/x?{SIGNED}")
    for source in (*map(url, broken), *foreign):
        for options in ((), ("--json",)):
            done = here("ingest", source, *BARS, *options)
            assert done.code in (2, 4, 5), done.err
            farm.seen[f"refusal {len(farm.seen)}"] = (done.out + done.err).encode()
    farm.seen["another store"] = here("status", "--store", url("/store")).err.encode()
    spec = write_spec(tmp_path / "study.json", cross(tickers=("CAN",), start="2019-01-02", end="2020-03-02"))
    for words in (("plan", spec), ("run", spec), ("report", spec, "-o", "r.html")):
        assert farm(*words) == 0
    key = here.document("results", spec)["trials"][0]["cells"][0]["key"]
    for words in (("explain", key), ("status",), ("results", spec), ("run", spec)):
        for options in ((), ("--json",)):
            done = here(*words, *options)
            assert done.code == 0, done.err
            farm.seen[f"answer {len(farm.seen)}"] = (done.out + done.err).encode()
    assert (tmp_path / "r.html").is_file()
    assert len(objects(minio_bucket)) > 10
    assert b"bars.csv" in b"".join(farm.seen.values())
    assert found(farm.seen | objects(minio_bucket) | files(tmp_path)) == []


@pytest.mark.ray
def test_no_canary_with_workers(host: str, environment: dict[str, str], minio_bucket: Bucket, tmp_path: Path) -> None:
    """Their arguments, and all that Ray writes."""
    farm = Lookout(environment, tmp_path)
    assert farm("ingest", "sample") == 0
    assert farm("run", write_spec(tmp_path / "study.json", cross()), "--workers", "2") == 0
    assert farm.arguments > 2, "no process was seen"
    assert found(farm.seen | objects(minio_bucket) | files(tmp_path)) == []
