"""Stores around a store: retry, limit, count, inject faults.

Each wrapper does one thing and passes everything else through, so they can be stacked and tested alone. The farm's
stack is ``Retrying(Limited(Counting(store)))``: every attempt is counted, none waits for a retry while it holds one of
the limited slots.

Retries are around idempotent calls only, which all of the protocol's are: a repeated ``put_if_absent`` that finds its
own bytes has succeeded before, and only its answer was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias, TypeVar

from farm.store.base import ObjectMeta, Store
from farm.store.patience import Limit, Patience
from farm.values.errors import AlreadyExists, ShortRead, StoreError, Throttled, Unavailable, UsageError, Watchdog
from farm.values.settings import StoreSettings

_T = TypeVar("_T")

LAYERS = ("client", "range", "span")
_DOUBLINGS_MAX: Final = 30


@dataclass(frozen=True)
class StoreCounts:
    """What went over the wire until now. ``retries`` by layer: client, range, span. ``watchdog``: requests given up."""

    requests: int
    requests_by_verb: Mapping[str, int]
    bytes_read: int
    bytes_written: int
    retries: Mapping[str, int]
    watchdog: int


class Counts:
    """The counters behind one store; many threads add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verbs: dict[str, int] = {}
        self._retries = dict.fromkeys(LAYERS, 0)
        self._bytes_read = self._bytes_written = self._watchdog = 0

    def request(self, verb: str, *, sent: int) -> None:
        with self._lock:
            self._verbs[verb] = self._verbs.get(verb, 0) + 1
            self._bytes_written += sent

    def received(self, count: int) -> None:
        with self._lock:
            self._bytes_read += count

    def retry(self, layer: str, count: int = 1) -> None:
        with self._lock:
            self._retries[layer] += count

    def watchdog(self) -> None:
        with self._lock:
            self._watchdog += 1

    def snapshot(self) -> StoreCounts:
        with self._lock:
            verbs = dict(sorted(self._verbs.items()))
            return StoreCounts(
                sum(verbs.values()), verbs, self._bytes_read, self._bytes_written, dict(self._retries), self._watchdog
            )


def counts_of(store: Store) -> StoreCounts:
    """Return the counters of a store that was opened with ``open_store``, as they stand now."""
    layer: object = store
    while isinstance(layer, Around):
        if isinstance(layer, Counting):
            return layer.counts.snapshot()
        layer = layer.inner
    raise UsageError("this store is not counted", place=store.url, hint="open it with open_store")


def settings_of(store: Store) -> StoreSettings:
    """Return the settings that a store was opened with; the defaults for one that wears no wrappers of the farm."""
    layer: object = store
    while isinstance(layer, Around):
        if isinstance(layer, Retrying):
            return layer.settings
        layer = layer.inner
    return StoreSettings()


class Around:
    """A store that passes every call to ``inner`` through ``_do``, which subclasses override."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        """Run ``action``, one request that sends or expects so many bytes."""
        return action()

    def head(self, key: str) -> ObjectMeta:
        return self._do("head", key, lambda: self.inner.head(key))

    def get(self, key: str) -> bytes:
        return self._do("get", key, lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self._do(
            "get_range", key, lambda: self.inner.get_range(key, start, length, if_match=if_match), expected=length
        )

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        return [self.get_range(key, start, length, if_match=if_match) for start, length in ranges]

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        return self._do("list", prefix, lambda: self.inner.list(prefix, start_after=start_after))

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._do("put_if_absent", key, lambda: self.inner.put_if_absent(key, data), sent=len(data))

    def put(self, key: str, data: bytes) -> None:
        self._do("put", key, lambda: self.inner.put(key, data), sent=len(data))

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: self.inner.delete(key))


class Counting(Around):
    """Counts requests, failed ones too, and the bytes of bodies."""

    def __init__(self, inner: Store, counts: Counts) -> None:
        super().__init__(inner)
        self.counts = counts

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        self.counts.request(verb, sent=sent)
        result = action()
        if isinstance(result, bytes):
            self.counts.received(len(result))
        return result


class Metered(Around):
    """Adds up the bytes of the bodies that come through it: what one of the users of a store has fetched."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._bytes = 0

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        result = action()
        if isinstance(result, bytes):
            self._add(len(result))
        return result

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        bodies = self.inner.get_ranges(key, ranges, if_match=if_match)  # in one call: they go out together
        self._add(sum(map(len, bodies)))
        return bodies

    def _add(self, count: int) -> None:
        with self._lock:
            self._bytes += count

    def take(self) -> int:
        """Return the bytes that came since the last call: whoever asks, each byte is told once."""
        with self._lock:
            taken, self._bytes = self._bytes, 0
            return taken


class Limited(Around):
    """At most ``in_flight_max`` requests at once. Listings are free: one is one request at a time, and its reader may
    send others meanwhile, which would wait for the slot it holds."""

    def __init__(self, inner: Store, in_flight_max: int) -> None:
        super().__init__(inner)
        self._slots = threading.BoundedSemaphore(in_flight_max)

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        if verb == "list":
            return action()
        with self._slots:
            return action()


class Retrying(Around):
    """Tries again what may succeed later, within bounds; sends the ranges of one read concurrently.

    Layers: *client* (throttled, unavailable), again and again until the watchdog ends the request and names the last
    error: a store that is away for a while ends nothing. *range* (a body that is not what was asked for) and *span*
    (ranges of one ``get_ranges`` that failed all their tries, once more together after the longest pause), a few times.
    """

    def __init__(
        self,
        inner: Store,
        settings: StoreSettings,
        counts: Counts,
        *,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self.settings = settings
        self._counts = counts
        self._patience = patience or Patience(inner.url, settings.silence_s, is_remote=False, clock=clock)
        self._sleep = sleep
        self._clock = clock
        self._jitter = random.Random()  # Moves pauses apart, touches no result.
        self._pool_lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        return self._within(self._limit(sent + expected), key, action)

    def _limit(self, size: int) -> Limit:
        bytes_s_min = self.settings.throughput_bytes_s_min
        return Limit(self.settings.watchdog_s, size=size, bytes_s_min=bytes_s_min, clock=self._clock)

    def _within(self, limit: Limit, key: str, action: Callable[[], _T]) -> _T:
        try:
            return self._patience.call(key, partial(self._tries, limit, key, action), limit)
        except Watchdog:
            self._counts.watchdog()
            raise

    def _tries(self, limit: Limit, key: str, action: Callable[[], _T]) -> _T:
        tries = tries_short = 0
        while True:
            try:
                with limit.in_force():
                    return action()
            except StoreError as error:
                is_short = isinstance(error, ShortRead)
                if not error.retryable or (is_short and tries_short >= self.settings.range_retries_max):
                    raise
                pause = self._pause_s(tries)
                if self._clock() + pause > limit.until:
                    raise Watchdog(
                        f"no success within {self.settings.watchdog_s:g} s, last: {error.message}",
                        place=error.place,
                        hint=error.hint,
                    ) from error
                tries += 1
                tries_short += is_short
                self._counts.retry("range" if is_short else "client")
                if not is_short:
                    self._patience.failed(key, error, limit)
                self._sleep(pause)

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self._range(key, start, length, if_match, {})

    def _range(self, key: str, start: int, length: int, if_match: str | None, limits: dict[int, Limit]) -> bytes:
        """``limits``: those of ranges by their start; a later try of one has no more time than the first."""

        def read() -> bytes:
            data = self.inner.get_range(key, start, length, if_match=if_match)
            if len(data) != length:
                raise ShortRead(f"{len(data)} bytes came, asked for {length}", place=f"{self.url}/{key}")
            return data

        return self._within(limits.setdefault(start, self._limit(length)), key, read)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        if len(ranges) < 2:
            return super().get_ranges(key, ranges, if_match=if_match)
        found: dict[int, bytes] = {}
        limits: dict[int, Limit] = {}
        for span_try in range(self.settings.span_retries_max + 1):
            missing = [i for i in range(len(ranges)) if i not in found]
            error = self._gather(key, ranges, missing, if_match, found, limits)
            if error is None:
                break
            if span_try == self.settings.span_retries_max:
                raise error
            self._counts.retry("span", len(ranges) - len(found))
            self._sleep(self.settings.backoff_s_max)
        return [found[i] for i in range(len(ranges))]

    def _gather(
        self,
        key: str,
        ranges: Sequence[tuple[int, int]],
        missing: Sequence[int],
        if_match: str | None,
        found: dict[int, bytes],
        limits: dict[int, Limit],
    ) -> StoreError | None:
        """Fetch the missing ranges into ``found``; return the first error that a later try may cure, raise others."""
        pool = self._threads()
        flights: list[tuple[int, Future[bytes]]] = [
            (i, pool.submit(self._range, key, *ranges[i], if_match, limits)) for i in missing
        ]
        first: StoreError | None = None
        try:
            for i, flight in flights:
                try:
                    found[i] = flight.result()
                except StoreError as error:
                    if not error.retryable:
                        raise
                    first = first or error
        finally:
            for _, flight in flights:
                flight.cancel()
        return first

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        last = start_after
        pages: Iterator[ObjectMeta] | None = None

        def advance() -> ObjectMeta | None:
            nonlocal pages
            if pages is None:
                pages = self.inner.list(prefix, start_after=last)
            try:
                return next(pages, None)
            except StoreError:
                pages = None  # A broken iterator is spent: the next try continues after the last key.
                raise

        while True:
            meta = self._do("list", prefix, advance)
            if meta is None:
                return
            last = meta.key
            yield meta

    def put_if_absent(self, key: str, data: bytes) -> None:
        is_repeated = False

        def write() -> None:
            nonlocal is_repeated
            try:
                self.inner.put_if_absent(key, data)
            except AlreadyExists:
                if not (is_repeated and self.inner.get(key) == data):
                    raise
            except StoreError:
                is_repeated = True
                raise

        self._do("put_if_absent", key, write, sent=len(data))

    def _pause_s(self, tries: int) -> float:
        longest = min(self.settings.backoff_s_max, self.settings.backoff_s * 2.0 ** min(tries, _DOUBLINGS_MAX))
        return longest * (0.5 + 0.5 * self._jitter.random())

    def _threads(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.settings.in_flight_max, thread_name_prefix="fetch")
            return self._pool


FaultKind: TypeAlias = Literal["throttled", "unavailable", "lost_answer", "short", "flipped"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault, its rate per call (0 to 1), and the verbs it strikes (empty: all it can)."""

    kind: FaultKind
    rate: float
    verbs: frozenset[str] = frozenset()


class Faulty(Around):
    """Injects faults by plan. Whether the n-th call of a verb on a key fails depends on the seed alone, not on timing.

    ``lost_answer``: the call is done, then reported as unavailable. ``short``, ``flipped``: a body one byte shorter,
    or with one bit changed, without a word: readers must notice by themselves.
    """

    def __init__(self, inner: Store, plan: Sequence[Fault], seed: int) -> None:
        super().__init__(inner)
        self._plan = tuple(plan)
        self._seed = seed
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str], int] = {}
        self.injected: dict[str, int] = {}

    def _do(self, verb: str, key: str, action: Callable[[], _T], *, sent: int = 0, expected: int = 0) -> _T:
        kind = self._draw(verb, key)
        place = f"{self.url}/{key}"
        if kind == "throttled":
            raise Throttled("injected: slow down", place=place)
        if kind == "unavailable":
            raise Unavailable("injected: connection reset", place=place)
        if kind == "lost_answer":
            with contextlib.suppress(StoreError):  # Whatever the answer was, nobody hears it.
                action()
            raise Unavailable("injected: the answer was lost", place=place)
        result = action()
        if kind is not None and isinstance(result, bytes) and result:
            return _damaged(result, kind)  # type: ignore[return-value]  # _T is bytes here
        return result

    def _draw(self, verb: str, key: str) -> FaultKind | None:
        with self._lock:
            call = self._calls.get((verb, key), 0)
            self._calls[verb, key] = call + 1
            for position, fault in enumerate(self._plan):
                if fault.verbs and verb not in fault.verbs:
                    continue
                text = f"{self._seed}/{position}/{verb}/{key}/{call}".encode()
                draw = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2.0**64
                if draw < fault.rate:
                    self.injected[fault.kind] = self.injected.get(fault.kind, 0) + 1
                    return fault.kind
        return None


def _damaged(data: bytes, kind: FaultKind) -> bytes:
    if kind == "short":
        return data[:-1]
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
