"""A directory store when the disk says no. The failures are real: no function is patched."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.store.local import INCOMING, LocalStore, _translated, write_all
from farm.store.open import open_store
from farm.values.errors import AlreadyExists, ConfigError, NotFound, PermissionDenied, WriteFailed


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_full_device(tmp_path: Path) -> None:
    """Writing to /dev/full is a WriteFailed that names the path and says what to do."""
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(WriteFailed) as caught, _translated(tmp_path / "k"):
            write_all(fd, b"x" * 100)
    finally:
        os.close(fd)
    assert str(tmp_path / "k") in caught.value.place
    assert "disk is full" in caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_a_file_size_limit_leaves_nothing(tmp_path: Path, verb: str) -> None:
    """Under RLIMIT_FSIZE a large write fails half-way: typed, the store as before, and smaller writes go on."""
    LocalStore(tmp_path).put("old", b"stays")
    program = f"""
        import resource, sys
        from farm.store.open import open_store
        from farm.values.errors import WriteFailed
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        store = open_store({str(tmp_path)!r})
        try:
            store.{verb}("a/b/large", b"x" * 200_000)
        except WriteFailed as error:
            print(error)
        store.{verb}("small", b"fits")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "a/b/large" in done.stdout
    assert "file-size limit" in done.stdout
    assert _files(tmp_path) == {"old": b"stays", "small": b"fits"}
    assert not (tmp_path / "a").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB, where root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_and_recovers(small_disk: Path) -> None:
    """On a real full disk a write fails typed and leaves nothing; once there is room it succeeds."""
    store = open_store(str(small_disk / "store"))
    store.put_if_absent("fill", b"x" * 200_000)
    for write in (store.put, store.put_if_absent):
        with pytest.raises(WriteFailed) as caught:
            write("more", b"y" * 100_000)
        assert "full" in caught.value.hint
        assert _files(small_disk / "store") == {"fill": b"x" * 200_000}
    with pytest.raises(WriteFailed):
        store.put("fill", b"z" * 100_000)
    assert store.get("fill") == b"x" * 200_000
    store.delete("fill")
    store.put_if_absent("more", b"y" * 100_000)
    assert store.get("more") == b"y" * 100_000


def test_a_directory_without_permission(tmp_path: Path) -> None:
    """A read-only directory is PermissionDenied. (As root, the kernel lets everything pass.)"""
    if os.geteuid() == 0:
        program = f"""
            import os
            from pathlib import Path
            from farm.store.local import LocalStore
            from farm.values.errors import PermissionDenied
            os.setuid(65534)
            try:
                LocalStore(Path({str(tmp_path)!r}) / "store").put("k", b"x")
            except PermissionDenied as error:
                print("denied", error.place)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.startswith("denied"), done.stderr
        return
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionDenied):
            LocalStore(tmp_path / "store").put("k", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_names_that_are_no_keys_are_not_listed(tmp_path: Path) -> None:
    """A listing tells of what can be read: a directory may hold what other programs left in it."""
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")
    for name in ("a/copy (1).txt", "a/c~", "a d/b", "a/é", "a/.DS_Store", "a/b\nc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not ours")
    (tmp_path / os.fsdecode(b"a/\xff")).write_bytes(b"not ours")
    assert [meta.key for meta in store.list("")] == [meta.key for meta in store.list("a/")] == ["a/b"]


def test_killed_writers_leave_nothing_visible(tmp_path: Path) -> None:
    """A private file that a killed writer left is in no listing, and is swept away when it is old."""
    store = LocalStore(tmp_path)
    store.put("k", b"x")
    left, fresh = tmp_path / INCOMING / "1-2-3", tmp_path / INCOMING / "4-5-6"
    left.write_bytes(b"half an obj")
    fresh.write_bytes(b"under way")
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    assert [meta.key for meta in LocalStore(tmp_path).list("")] == ["k"]
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_key_below_a_key(tmp_path: Path) -> None:
    """What a directory cannot hold is refused in words, not by a wrong answer."""
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    for write in (store.put, store.put_if_absent):
        with pytest.raises(ConfigError):
            write("a/b", b"y")
        with pytest.raises(ConfigError):
            write("a/b/c", b"y")
    store.put("d/e", b"x")
    for write in (store.put, store.put_if_absent):
        with pytest.raises(ConfigError):
            write("d", b"y")
    for read in (store.get, store.head):
        with pytest.raises(NotFound):
            read("d")
        with pytest.raises(NotFound):
            read("a/b")
    assert _files(tmp_path) == {"a": b"x", "d/e": b"x"}


def test_processes_race_for_one_key(tmp_path: Path) -> None:
    """put_if_absent is atomic between processes, too."""
    program = f"""
        import os
        from farm.store.open import open_store
        from farm.values.errors import AlreadyExists
        store = open_store({str(tmp_path)!r})
        for race in range(50):
            try:
                store.put_if_absent(f"race/{{race}}", str(os.getpid()).encode())
                print(race)
            except AlreadyExists:
                pass
    """
    racers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    wins = {str(racer.pid): racer.communicate(timeout=60)[0].split() for racer in racers}
    assert sorted(int(race) for won in wins.values() for race in won) == list(range(50))
    for pid, won in wins.items():
        assert all((tmp_path / "race" / race).read_text() == pid for race in won)
    with pytest.raises(AlreadyExists):
        LocalStore(tmp_path).put_if_absent("race/0", b"")


def test_new_folders_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder on the way is synced into the one above it before the put returns: once, and again if made again."""
    synced: list[str] = []
    sync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{fd}").readlink(), tmp_path))
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    root = tmp_path / "new" / "store"
    store = LocalStore(root)
    store.put("a/b/k", b"1")
    assert {".", "new", "new/store", "new/store/a", "new/store/a/b"} <= set(synced)
    synced.clear()
    store.put_if_absent("a/b/other", b"2")
    assert [path for path in synced if "/.incoming" not in path] == ["new/store/a/b"]
    synced.clear()
    LocalStore(root).put("a/b/third", b"3")  # another process does not know who made them
    assert {"new/store", "new/store/a", "new/store/a/b"} <= set(synced)
    shutil.rmtree(root / "a")
    synced.clear()
    store.put("a/b/k", b"1")
    assert {"new/store", "new/store/a", "new/store/a/b"} <= set(synced)
