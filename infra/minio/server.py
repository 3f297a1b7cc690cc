"""One MinIO server on loopback, started and stopped by whoever needs a real bucket.

Rules of the room: loopback only; ports the kernel says are free; credentials made up for this server and handed to
nobody but its user; healthy means ``/minio/health/cluster`` (``live`` is always 200); every wait has a bound; stopped
by its process id; the log stays beside the data so that a failure can be read afterwards.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from infra.minio import binary
from infra.minio.errors import ServerError

HOST = "127.0.0.1"
REGION = "us-east-1"
READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
PORT_ATTEMPTS_MAX = 5
LOG_TAIL_LINES = 10


class Server:
    """A running server inside ``with``; the data folder belongs to the caller and outlives it.

    ``port`` 0 takes a free one. ``drives`` 1 keeps objects in ``data`` itself, more than one in ``data/d1`` and so on
    (erasure coded). ``access_key`` and ``secret_key`` are the root user's, made up unless given.
    """

    def __init__(
        self,
        data: Path,
        *,
        executable: Path | None = None,
        port: int = 0,
        drives: int = 1,
        access_key: str | None = None,
        secret_key: str | None = None,
        log: Path | None = None,
        ready_seconds_max: float = READY_SECONDS_MAX,
    ) -> None:
        self.data = data
        self.log = log or data.with_name(data.name + ".log")
        self.port = port
        self.access_key = access_key or "root-" + secrets.token_hex(6)
        self.secret_key = secret_key or secrets.token_urlsafe(30)
        self.region = REGION
        self._executable = executable
        self._drives = drives
        self._ready_seconds_max = ready_seconds_max
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``, as the MinIO client wants it."""
        return f"{HOST}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The URL of the S3 interface."""
        return f"http://{self.address}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def environment(self, access_key: str | None = None, secret_key: str | None = None) -> dict[str, str]:
        """The ``AWS_*`` variables with which any S3 client talks to this server; the root user's unless given."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": access_key or self.access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key or self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it serves. Errors: ServerError with the end of its log."""
        if self.pid is not None:
            raise ServerError("the server runs already", place=self.endpoint)
        executable = self._executable or binary.ensure()
        wanted = self.port
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            self.port = wanted or _free_port()
            self._process = self._spawn(executable)
            if self._wait_until_ready(self._process):
                return
            # Somebody else may have taken the free port meanwhile; a port that was asked for is not ours to change.
            if wanted or attempt == PORT_ATTEMPTS_MAX or "already in use" not in self._log_tail():
                break
        raise ServerError(
            f"MinIO did not become ready\n{self._log_tail()}", place=self.endpoint, hint=f"its log is {self.log}"
        )

    def stop(self) -> None:
        """Ask it to end, insist after a while; no effect when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(self, executable: Path) -> subprocess.Popen[bytes]:
        folders = [self.data] if self._drives == 1 else [self.data / f"d{n + 1}" for n in range(self._drives)]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        # Settings of another MinIO in the caller's environment must not reach this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MINIO_")}
        environment = inherited | {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            "MINIO_CI_CD": "1",  # several drives on the root disk are fine here
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [executable, "server", "--address", self.address, *map(str, folders)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the program that uses the bucket; it stops the server last
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it got healthy within the bound; a process that did not is gone when this returns."""
        deadline = time.monotonic() + self._ready_seconds_max
        while process.poll() is None and time.monotonic() < deadline:
            if _is_healthy(self.port):
                return True
            time.sleep(0.02)
        self.stop()
        return False

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/minio/health/cluster")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
