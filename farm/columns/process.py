"""The column cache of this process.

All threads of a worker share it, whatever studies and stores they work on: keys are content hashes, so two stores
that hold the same shard share its columns too. It is made at first use, with the budget of who uses it.
"""

from __future__ import annotations

import threading

from farm.columns.cache import ColumnCache
from farm.values.settings import CacheSettings

_lock = threading.Lock()
_cache: ColumnCache | None = None


def process_cache(settings: CacheSettings | None = None) -> ColumnCache:
    """Return the one cache of this process, with the budget of ``settings``; without them as it is.

    Another budget than the one in use makes an empty cache of it: a budget costs time and no result, so it is no
    error. Who works with the old one ends with it, and its columns are gone then.
    """
    global _cache
    with _lock:
        wanted = settings if settings is not None else CacheSettings()
        if _cache is None or (settings is not None and wanted.cache_bytes_max != _cache.cache_bytes_max):
            _cache = ColumnCache(wanted.cache_bytes_max)
        return _cache
