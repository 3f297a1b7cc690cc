"""From a URL to a store, with all its wrappers.

a path, or file:///path     a directory, made at the first write
s3://bucket/prefix          S3, reached as the AWS_* variables say
memory: or memory:name      the memory of this process
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from farm.store.base import Store, check_prefix
from farm.store.local import LocalStore
from farm.store.memory import named
from farm.store.patience import Patience
from farm.store.wrap import Counting, Counts, Limited, Retrying
from farm.values.errors import ConfigError, UsageError, shown
from farm.values.settings import StoreSettings

_ALLOWED: Final = "a path, file:///path, s3://bucket/prefix, memory:name"
_NAME_ONE: Final = "give --store URL, or set FARM_STORE"
_LENGTH_MAX: Final = 4096


def open_store(url: str, settings: StoreSettings | None = None) -> Store:
    """Return the store at ``url``: counted, limited to ``in_flight_max`` requests at once, retried until
    the watchdog where it is away.

    Sends no request: a bucket that is missing is found out at the first read or write (BucketNotFound).
    Errors: ConfigError for a URL that names no store.
    """
    settings = settings if settings is not None else StoreSettings()
    bare = _bare(url, settings)
    return wrap_store(bare, settings, patience=Patience(bare.url, settings.silence_s) if _is_s3(url) else None)


def wrap_store(bare: Store, settings: StoreSettings, *, patience: Patience | None = None) -> Store:
    """Return ``bare`` with the wrappers that every store of the farm wears; tests put faults between."""
    counts = Counts()
    return Retrying(Limited(Counting(bare, counts), settings.in_flight_max), settings, counts, patience=patience)


def _bare(url: str, settings: StoreSettings) -> Store:
    if not url:
        raise ConfigError("no store is named", place="store", allowed=_ALLOWED, hint=_NAME_ONE)
    _check_text(url)
    if url.startswith("memory:"):
        return named(_memory_name(url))
    if _is_s3(url):
        return _open_s3(url, settings)
    if url.startswith("file:"):
        return LocalStore(_file_path(url))
    if "://" in url:
        raise ConfigError("no store of this kind", place=shown(url), allowed=_ALLOWED)
    if re.match(r"[^/:]*:[^/@]*@", url):
        raise _credentials_in(url)
    return LocalStore(Path(os.path.expanduser(url)))  # noqa: PTH111 (pathlib raises on ~nobody)


def _is_s3(url: str) -> bool:
    return url.startswith("s3:")


def _check_text(url: str) -> None:
    """Errors: ConfigError for what a shell or a file of settings has left around a URL, and for what no path holds."""
    if not url.strip():
        problem = "is blank"
    elif url != url.strip():
        problem = "has blanks around it"
    elif url[0] in "'\"" or url[-1] in "'\"":
        problem = "has quotes around it"
    elif any(ord(c) < 32 or ord(c) == 127 for c in url):
        problem = "holds a control character"
    elif len(os.fsencode(url)) > _LENGTH_MAX:
        problem = f"is longer than {_LENGTH_MAX}"
    else:
        return
    raise ConfigError(f"'{shown(url)}' {problem}", place="store", allowed=_ALLOWED, hint=_NAME_ONE)


def _memory_name(url: str) -> str:
    name = url.removeprefix("memory:").removeprefix("//")
    if not re.fullmatch(r"[A-Za-z0-9._-]*", name):
        raise ConfigError("not a name for a memory store", place=shown(url), allowed="memory:name, of [A-Za-z0-9._-]")
    return name


def _file_path(url: str) -> Path:
    parts = _split(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ConfigError("not a file URL", place=shown(url), allowed="file:///absolute/path")
    path = unquote(parts.path)
    _check_text(path)
    return Path(path)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ConfigError("not a URL", place=shown(url), allowed=_ALLOWED) from error


def _open_s3(url: str, settings: StoreSettings) -> Store:
    # Imported here: a store in a directory needs no S3 client.
    from farm.store.s3 import S3Store

    parts = _split(url)
    if "@" in parts.netloc:
        raise _credentials_in(url)
    prefix = parts.path.strip("/")
    try:
        check_prefix(prefix)
    except UsageError as error:
        raise ConfigError("not a prefix for keys", place=shown(url), allowed="segments of [A-Za-z0-9._=-]") from error
    if not parts.netloc or parts.query or parts.fragment:
        raise ConfigError("not an S3 URL", place=shown(url), allowed="s3://bucket or s3://bucket/prefix")
    return S3Store(parts.netloc, prefix, settings)


def _credentials_in(url: str) -> ConfigError:
    return ConfigError(
        "credentials do not belong in a URL",
        place=shown(url),
        hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
    )
