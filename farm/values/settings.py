"""Settings: frozen values, built once at the edge and passed down; below the edge nobody reads the environment.

None of them affects a result, only speed, patience and memory. Every default is written here and nowhere else.
Relations between limits are checked when settings are built.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TypeVar

from farm.values.errors import UsageError, shown

T = TypeVar("T")

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
_PARALLEL_MAX = 1024
_TIME_S_MAX = 86_400.0


def _require(holds: bool, message: str, place: str, hint: str = "") -> None:
    if not holds:
        raise UsageError(message, place=place, hint=hint)


@dataclass(frozen=True)
class StoreSettings:
    """How a store is reached, and how patient the farm is with it.

    Three layers of retries, each counted apart: *client* (5xx, throttling, no connection or one that broke: again and
    again, so that a store may be away for a while), *range* (a short or wrong body), *span* (ranges of one read that
    failed together, tried again after a longer pause). The watchdog is no retry: it ends a request, retries included,
    after ``watchdog_s`` plus the time that its bytes may take at ``throughput_bytes_s_min``; one try of it ends after
    ``request_timeout_s`` plus that time. A store that is away is spoken of after ``silence_s``.
    """

    url: str = ""
    in_flight_max: int = 16
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    watchdog_s: float = 120.0
    silence_s: float = 5.0
    throughput_bytes_s_min: int = 128 * KIB
    range_retries_max: int = 2
    span_retries_max: int = 1
    backoff_s: float = 0.05
    backoff_s_max: float = 5.0
    gap_bytes_max: int = 1 * MIB
    fetch_bytes_max: int = 8 * MIB

    def __post_init__(self) -> None:
        in_flight = 1 <= self.in_flight_max <= _PARALLEL_MAX
        _require(in_flight, f"in_flight_max must be 1 to {_PARALLEL_MAX}", "settings.store")
        for name in ("connect_timeout_s", "request_timeout_s", "watchdog_s", "silence_s"):
            is_time = 0 < getattr(self, name) <= _TIME_S_MAX  # no for nan
            _require(is_time, f"{name} must be above 0 and at most {_TIME_S_MAX:g}, a day", "settings.store")
        _require(self.throughput_bytes_s_min > 0, "throughput_bytes_s_min must be positive", "settings.store")
        for name in ("range_retries_max", "span_retries_max", "backoff_s", "gap_bytes_max"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative", "settings.store")
        _require(self.backoff_s <= self.backoff_s_max, "backoff_s is above backoff_s_max", "settings.store")
        connect, request, watchdog = self.connect_timeout_s, self.request_timeout_s, self.watchdog_s
        hint = f"FARM_REQUEST_TIMEOUT_S is {connect:g} or more, and FARM_WATCHDOG_S is not less than it"
        message = f"request_timeout_s is {request:g}, and a connection alone may take {connect:g}"
        _require(connect <= request, message, "settings.store", hint)
        message = f"watchdog_s is {watchdog:g}, and one request alone may take {request:g} (request_timeout_s)"
        _require(request <= watchdog, message, "settings.store", hint)
        _require(self.backoff_s_max <= watchdog, "backoff_s_max is above watchdog_s", "settings.store")
        _require(self.fetch_bytes_max > 0, "fetch_bytes_max must be positive", "settings.store")
        _require(self.gap_bytes_max <= self.fetch_bytes_max, "gap_bytes_max is above fetch_bytes_max", "settings.store")


@dataclass(frozen=True)
class CacheSettings:
    """What a process keeps: budgets in bytes, and how many studies and compiled trials, of all studies together."""

    cache_bytes_max: int = 2 * GIB
    series_bytes_max: int = 64 * MIB
    market_bytes_max: int = 64 * MIB
    studies_max: int = 64
    programs_max: int = 8192

    def __post_init__(self) -> None:
        _require(self.cache_bytes_max >= 0, "cache_bytes_max must not be negative", "settings.cache")
        _require(self.series_bytes_max >= 0, "series_bytes_max must not be negative", "settings.cache")
        _require(self.market_bytes_max > 0, "market_bytes_max must be positive", "settings.cache")
        _require(self.studies_max > 0, "studies_max must be positive", "settings.cache")
        _require(
            self.programs_max >= self.studies_max,
            "programs_max is below studies_max: a study at work needs a program",
            "settings.cache",
        )


@dataclass(frozen=True)
class FarmSettings:
    """Everything a process of the farm is told from outside."""

    store: StoreSettings = field(default_factory=StoreSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    threads: int = 1
    dataset: str = "main"

    def __post_init__(self) -> None:
        threads = 1 <= self.threads <= _PARALLEL_MAX
        _require(threads, f"threads is {self.threads}, must be 1 to {_PARALLEL_MAX}", "settings")
        _require(bool(self.dataset), "the dataset needs a name", "settings")

    def with_store(self, url: str) -> FarmSettings:
        """Return these settings for the store at ``url``."""
        return replace(self, store=replace(self.store, url=url))


def from_environment() -> FarmSettings:
    """Return the settings that FARM_* variables give; what they do not name keeps its default.

    Variables: FARM_STORE (URL or path), FARM_DATASET, FARM_THREADS, FARM_CACHE_BYTES, FARM_SERIES_BYTES and
               FARM_MARKET_BYTES (2147483648, "2GiB", "500MB"), FARM_IN_FLIGHT, FARM_REQUEST_TIMEOUT_S,
               FARM_WATCHDOG_S. FARM_KERNEL_CACHE is read in ``kernels/cache.py``, when a process first needs a kernel.
    Errors:    UsageError naming the variable.
    """
    # Imported here: pydantic costs 0.1 s, and `farm --help` needs no settings. (pydantic-settings would cost as much
    # again, at every start of every command, to read nine variables.)
    from pydantic import ByteSize, TypeAdapter, ValidationError

    given = [f"FARM_{name}" for name in _VARIABLES if os.environ.get(f"FARM_{name}")]

    def read(name: str, kind: type[T], default: T) -> T:
        text = os.environ.get(f"FARM_{name}", "")
        if not text:
            return default
        try:
            return TypeAdapter(kind).validate_python(text)
        except (ValidationError, OverflowError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "beyond all memory"
            hint = "correct the variable, or unset it"
            raise UsageError(f"'{shown(text)}': {why}", place=f"FARM_{name}", hint=hint) from error

    store, cache, farm = StoreSettings(), CacheSettings(), FarmSettings()
    try:
        return FarmSettings(
            store=StoreSettings(
                url=read("STORE", str, store.url),
                in_flight_max=read("IN_FLIGHT", int, store.in_flight_max),
                request_timeout_s=read("REQUEST_TIMEOUT_S", float, store.request_timeout_s),
                watchdog_s=read("WATCHDOG_S", float, store.watchdog_s),
            ),
            cache=CacheSettings(
                cache_bytes_max=int(read("CACHE_BYTES", ByteSize, ByteSize(cache.cache_bytes_max))),
                series_bytes_max=int(read("SERIES_BYTES", ByteSize, ByteSize(cache.series_bytes_max))),
                market_bytes_max=int(read("MARKET_BYTES", ByteSize, ByteSize(cache.market_bytes_max))),
            ),
            threads=read("THREADS", int, farm.threads),
            dataset=read("DATASET", str, farm.dataset),
        )
    except UsageError as error:
        hint = error.hint or f"set by {', '.join(given)}"
        raise UsageError(error.message, place=error.place, hint=hint) from error


_VARIABLES = (
    "STORE", "DATASET", "THREADS", "CACHE_BYTES", "SERIES_BYTES", "MARKET_BYTES", "IN_FLIGHT", "REQUEST_TIMEOUT_S",
    "WATCHDOG_S",
)  # fmt: skip
