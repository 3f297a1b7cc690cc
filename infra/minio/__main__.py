"""``python -m infra.minio``: find the binary, find a Go to build it with, build it, or serve a folder.

    find    print the binary, or fail
    go      print the Go toolchain a build would use, or fail
    build   find or build the binary, print it; the time goes to standard error
    serve   run a server on a folder until interrupted; prints the variables to use it with

Standard output holds the answer alone. Exit code 0, or 1 with one line on standard error.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from farm.values.errors import FarmError
from infra.minio import binary
from infra.minio.administer import Administrator
from infra.minio.errors import MinioError, ServerError
from infra.minio.server import Server


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "find":
            _find()
        elif options.command == "go":
            print(binary.find_go())
        elif options.command == "build":
            _build(options.timeout)
        else:
            _serve(options.data, options.port, options.bucket)
    except FarmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.minio", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("find", help="print the binary, or fail")
    commands.add_parser("go", help="print the Go toolchain a build would use, or fail")
    build = commands.add_parser("build", help="find or build the binary, print it")
    build.add_argument("--timeout", type=float, default=binary.BUILD_SECONDS_MAX, help="seconds (%(default)g)")
    serve = commands.add_parser("serve", help="run a server on a folder until interrupted")
    serve.add_argument("--data", type=Path, required=True, help="folder of the objects; made if missing")
    serve.add_argument("--port", type=int, default=0, help="a free one by default")
    serve.add_argument("--bucket", default="farm", help="made if missing (%(default)s)")
    return parser


def _find() -> None:
    found = binary.find()
    if found is None:
        raise MinioError(
            "MinIO is neither in MINIO_BIN nor on PATH nor in the cache", hint="python -m infra.minio build"
        )
    print(found)


def _build(timeout_s: float) -> None:
    began = time.monotonic()
    found = binary.find()
    if found is None:
        print(f"building MinIO {binary.PIN}, once; this takes some minutes", file=sys.stderr)
        found = binary.build(timeout_s=timeout_s)
    print(f"set-up: MinIO in {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(found)


def _serve(data: Path, port: int, bucket: str) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Server(data, port=port) as server:
        Administrator(server.endpoint, server.access_key, server.secret_key, server.region).make_bucket(bucket)
        for name, value in server.environment().items():
            print(f"export {name}={value}")
        print(f"export FARM_STORE=s3://{bucket}", flush=True)
        while not stopped.wait(0.5):
            if server.pid is None:
                raise ServerError("MinIO died", place=server.endpoint, hint=f"its log is {server.log}")


if __name__ == "__main__":
    sys.exit(main())
