"""A directory as a store: one file per key.

How a write works, so that nobody ever sees half an object and a failed write leaves nothing:

1. The bytes go to a private file in ``ROOT/.incoming`` (same file system), and are fsynced.
2. ``put_if_absent`` gives it its name with link(2), which fails when the name exists: that is the atomic step.
   ``put`` uses rename(2), which replaces.
3. The private file is removed whatever happened, and the directory is fsynced, so that an acknowledged object survives
   a power cut; so is every directory in which one on the way to it is new.

The etag is made of inode, size, and modification time. A directory cannot hold both ``a`` and ``a/b``; keys of the
farm never ask for that.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from farm.store.base import ObjectMeta, check_key, check_prefix, check_range, is_name
from farm.values.errors import (
    AlreadyExists,
    ConfigError,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RangePastEnd,
    StoreError,
    Unavailable,
    WriteFailed,
)

INCOMING: Final = ".incoming"
_ABANDONED_S: Final = 24 * 3600.0

# The one table that turns an errno into an error of the farm.
_ERRORS: Final[dict[int, tuple[type[StoreError], str]]] = {
    errno.ENOENT: (NotFound, ""),
    errno.ENOTDIR: (NotFound, ""),
    errno.EISDIR: (NotFound, ""),
    errno.ENAMETOOLONG: (ConfigError, "the path is longer than this file system allows"),
    errno.ELOOP: (ConfigError, "links on the path lead round in a circle"),
    errno.EEXIST: (AlreadyExists, ""),
    errno.EACCES: (PermissionDenied, "look at the owner and the mode of the directory"),
    errno.EPERM: (PermissionDenied, "look at the owner and the mode of the directory"),
    errno.EROFS: (PermissionDenied, "the file system is mounted read-only"),
    errno.ENOSPC: (WriteFailed, "the disk is full: make room, then run the same command again"),
    errno.EDQUOT: (WriteFailed, "the disk quota is used up: make room, then run the same command again"),
    errno.EFBIG: (WriteFailed, "the file-size limit of this process is lower (ulimit -f)"),
    errno.EIO: (WriteFailed, "the disk reports an input/output error"),
    errno.EMFILE: (Unavailable, "this process has too many open files (ulimit -n)"),
    errno.ENFILE: (Unavailable, "the machine has too many open files"),
    errno.EINTR: (Unavailable, ""),
    errno.EAGAIN: (Unavailable, ""),
}
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


class LocalStore:
    """A directory behind the ``Store`` protocol. It is made at the first write; reading never creates anything."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 (resolve() would follow links, which may move)
        with _translated(self.root):
            is_taken = self.root.exists() and not self.root.is_dir()
        if is_taken:
            raise ConfigError("not a directory", place=str(self.root), allowed="a directory, or a path to make one at")
        self.url = self.root.as_uri()
        self._numbers = itertools.count()
        self._durable: set[Path] = set()
        self._remove_abandoned()

    def head(self, key: str) -> ObjectMeta:
        path = self._path(key)
        with _translated(path):
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise self._missing(path)
            return ObjectMeta(key, status.st_size, _etag(status))

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._open(path) as fd:
            return _read(fd, 0, os.fstat(fd).st_size, path)

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self.get_ranges(key, [(start, length)], if_match=if_match)[0]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        for start, length in ranges:
            check_range(key, start, length)
        path = self._path(key)
        with self._open(path) as fd:
            status = os.fstat(fd)
            if if_match is not None and if_match != _etag(status):
                raise PreconditionFailed("the file has changed since it was looked at", place=str(path))
            return [_read(fd, start, length, path) for start, length in ranges]

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        folder = check_prefix(prefix).rpartition("/")[0]
        base = f"{folder}/" if folder else ""
        return self._walk(self.root / folder if folder else self.root, base, prefix, start_after)

    def put_if_absent(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _translated(path):
            if path.is_file():  # Only to spare the write; link(2) below decides.
                raise AlreadyExists("there is a file under this key", place=str(path))
            self._place(path, data, replace=False)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _translated(path):
            self._place(path, data, replace=True)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            _sync_directory(path.parent)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _missing(self, path: Path) -> NotFound:
        there = self.root.is_dir()
        return NotFound(
            "no such object",
            place=str(path),
            hint="" if there else f"the directory {self.root} does not exist: is this the store that was meant?",
        )

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[int]:
        with _translated(path):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise self._missing(path) from error
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise self._missing(path)
                yield fd
            finally:
                os.close(fd)

    def _walk(self, folder: Path, base: str, prefix: str, start_after: str) -> Iterator[ObjectMeta]:
        try:
            with _translated(folder), os.scandir(folder) as entries:
                # A directory sorts as its name with the slash: so the order of the walk is the order of the keys.
                names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries if is_name(entry.name))
        except NotFound:
            return
        for name in names:
            key = base + name
            if name.endswith("/"):
                reachable = key.startswith(prefix) or prefix.startswith(key)
                # Every key below shares the beginning ``key``: skip the directory when all of them come before.
                if reachable and (key > start_after or start_after.startswith(key)):
                    yield from self._walk(folder / name, key, prefix, start_after)
            elif key.startswith(prefix) and key > start_after:
                with contextlib.suppress(NotFound):  # Deleted since the directory was read.
                    yield self.head(key)

    def _place(self, path: Path, data: bytes, *, replace: bool) -> None:
        """Write ``data`` aside, then give it its name in one step."""
        incoming = self.root / INCOMING
        self._make_folder(incoming)
        aside = incoming / f"{os.getpid()}-{time.monotonic_ns()}-{next(self._numbers)}"
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            self._name(aside, path, replace=replace)
        finally:
            aside.unlink(missing_ok=True)
        _sync_directory(path.parent)

    def _name(self, aside: Path, path: Path, *, replace: bool) -> None:
        try:
            self._make_folder(path.parent)
        except (FileExistsError, NotADirectoryError) as error:
            raise _no_folder(path) from error
        if path.is_dir():
            raise _no_folder(path)
        if replace:
            aside.replace(path)
            return
        try:
            os.link(aside, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise ConfigError(
                "this file system has no hard links, which atomic writes need",
                place=str(self.root),
                hint="put the store on a local disk, or in an S3 bucket",
            ) from error

    def _make_folder(self, folder: Path) -> None:
        """Make ``folder`` and those above it, and see to it that a power cut does not unmake them.

        Within the store once for each, whoever made it: another process may not have come as far as its fsync.
        """
        if folder in self._durable and folder.is_dir():
            return
        way = (folder, *folder.parents)
        made = [one for one in way if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        made += [one for one in way if one not in made and one != self.root and one.is_relative_to(self.root)]
        for one in made:
            _sync_directory(one.parent)
        self._durable.add(folder)

    def _remove_abandoned(self) -> None:
        """Remove what writers that were killed left aside a day or more ago; no reader can see it."""
        with contextlib.suppress(OSError), os.scandir(self.root / INCOMING) as entries:
            for entry in entries:
                if entry.stat().st_mtime < time.time() - _ABANDONED_S:
                    Path(entry.path).unlink(missing_ok=True)


def _no_folder(path: Path) -> ConfigError:
    return ConfigError("in a directory store a key cannot lie below another key", place=str(path))


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``; a file system may take it in pieces, and reports a limit only with the next piece."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int, start: int, length: int, path: Path) -> bytes:
    data = os.pread(fd, length, start)
    while len(data) < length:
        more = os.pread(fd, length - len(data), start + len(data))
        if not more:
            size = os.fstat(fd).st_size
            raise RangePastEnd(f"bytes {start} to {start + length} of a file of {size} bytes", place=str(path))
        data += more
    return data


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind, hint = _ERRORS.get(error.errno or 0, (StoreError, ""))
        raise kind(error.strerror or str(error), place=str(path), hint=hint) from error
