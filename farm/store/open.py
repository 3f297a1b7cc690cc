"""From a URL to a store, with all its wrappers.

a path, or file:///path     a directory, made at the first write
s3://bucket/prefix          S3, reached as the AWS_* variables say
memory: or memory:name      the memory of this process
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from farm.store.base import Store, check_prefix
from farm.store.local import LocalStore
from farm.store.memory import named
from farm.store.wrap import Counting, Counts, Limited, Retrying
from farm.values.errors import ConfigError, UsageError
from farm.values.settings import StoreSettings

_ALLOWED: Final = "a path, file:///path, s3://bucket/prefix, memory:name"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def open_store(url: str, settings: StoreSettings | None = None) -> Store:
    """Return the store at ``url``: counted, limited to ``in_flight_max`` requests at once, retried.

    Sends no request: a bucket that is missing is found out at the first read or write (BucketNotFound).
    Errors: ConfigError for a URL that names no store.
    """
    settings = settings if settings is not None else StoreSettings()
    return wrap_store(_bare(url, settings), settings)


def wrap_store(bare: Store, settings: StoreSettings) -> Store:
    """Return ``bare`` with the wrappers that every store of the farm wears; tests put faults between."""
    counts = Counts()
    return Retrying(Limited(Counting(bare, counts), settings.in_flight_max), settings, counts)


def _bare(url: str, settings: StoreSettings) -> Store:
    if not url:
        raise ConfigError(
            "no store is named", place="store", allowed=_ALLOWED, hint="give --store URL, or set FARM_STORE"
        )
    if url.startswith("memory:"):
        return named(_memory_name(url))
    if url.startswith("s3:"):
        return _open_s3(url, settings)
    if url.startswith("file:"):
        return LocalStore(_file_path(url))
    if _SCHEME.match(url) and "://" in url:
        raise ConfigError("no store of this kind", place=_without_credentials(url), allowed=_ALLOWED)
    return LocalStore(Path(url).expanduser())


def _memory_name(url: str) -> str:
    name = url.removeprefix("memory:").removeprefix("//")
    if not re.fullmatch(r"[A-Za-z0-9._-]*", name):
        raise ConfigError("not a name for a memory store", place=url, allowed="memory:name, of [A-Za-z0-9._-]")
    return name


def _file_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ConfigError("not a file URL", place=url, allowed="file:///absolute/path")
    return Path(unquote(parts.path))


def _open_s3(url: str, settings: StoreSettings) -> Store:
    # Imported here: a store in a directory needs no S3 client.
    from farm.store.s3 import S3Store

    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigError(
            "credentials do not belong in a URL",
            place=_without_credentials(url),
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
        )
    prefix = parts.path.strip("/")
    try:
        check_prefix(prefix)
    except UsageError as error:
        raise ConfigError("not a prefix for keys", place=url, allowed="segments of [A-Za-z0-9._=-]") from error
    if not parts.netloc or parts.query or parts.fragment:
        raise ConfigError("not an S3 URL", place=url, allowed="s3://bucket or s3://bucket/prefix")
    return S3Store(parts.netloc, prefix, settings)


def _without_credentials(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//<credentials>@", url)
