"""The column cache of this process: the only global of the project.

All threads of a worker share it, whatever studies and stores they work on: keys are content hashes, so two stores
that hold the same shard share its columns too. It is made at first use; ``configure`` before that sets its budget.
"""

from __future__ import annotations

import threading

from farm.columns.cache import ColumnCache
from farm.values.errors import UsageError
from farm.values.settings import CacheSettings

_lock = threading.Lock()
_cache: ColumnCache | None = None
_settings = CacheSettings()


def configure(settings: CacheSettings) -> None:
    """Set the budget of the process's cache. UsageError when a cache with another budget is in use already."""
    global _settings
    with _lock:
        if _cache is not None and settings.cache_bytes_max != _cache.cache_bytes_max:
            raise UsageError(
                f"the column cache is in use with {_cache.cache_bytes_max} bytes, not {settings.cache_bytes_max}",
                place="settings.cache.cache_bytes_max",
                hint="configure it once, before the first read",
            )
        _settings = settings


def process_cache() -> ColumnCache:
    """Return the one cache of this process."""
    global _cache
    with _lock:
        if _cache is None:
            _cache = ColumnCache(_settings.cache_bytes_max)
        return _cache
