"""Waits for a store that may never answer: says so, gives up in time, and lets go when the user does.

The client cannot be interrupted: a signal is seen when its call returns, and its own time limits know nothing of
retries. So a request runs on a thread that no exit waits for, and whoever asked waits here, where a deadline and
Ctrl-C are seen at once. What the thread still gets is dropped. A store that is away for a while is waited for just so:
its requests are tried again (``store.wrap``) until their limit.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final, TypeVar

from farm.values.errors import Interrupted, StoreError, Watchdog

_T = TypeVar("_T")
_LOOK_S: Final = 0.1
_GRACE_S: Final = 1.0
HINT: Final = "is AWS_ENDPOINT_URL right, and the server up? FARM_WATCHDOG_S sets how long it is waited for"
_leaving = threading.Event()


def leave() -> None:
    """Let go of every request that a store leaves unanswered, now and later: the process wants to end."""
    _leaving.set()


def stay() -> None:
    """Take ``leave`` back: what was to end has ended, and the process goes on."""
    _leaving.clear()


@contextlib.contextmanager
def let_go_on_interrupt() -> Iterator[None]:
    """Within it, Ctrl-C is ``leave`` too. Otherwise it ends the wait of the main thread alone, which then waits for
    the threads it has asked to read."""

    def handle(number: int, frame: FrameType | None) -> None:
        leave()
        if callable(before):
            before(number, frame)

    stay()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Limit:
    """Until when one request may take, all its tries together: ``watchdog_s``, and the time that its bytes may take.

    The size of an object that is read whole is known once its answer begins: ``expect`` then makes the limit longer.
    """

    def __init__(
        self, watchdog_s: float, *, size: int = 0, bytes_s_min: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._end = clock() + watchdog_s
        self._size = size
        self._bytes_s_min = bytes_s_min

    @property
    def until(self) -> float:
        return self._end + self._size / self._bytes_s_min

    def expect(self, size: int) -> None:
        self._size = max(self._size, size)

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Within it, the request of this thread has this limit."""
        _request.limit = self
        try:
            yield
        finally:
            _request.limit = None


_request = threading.local()


def expect(size: int) -> None:
    """Give the request that this thread is at the time that an answer of ``size`` bytes may take."""
    limit: Limit | None = getattr(_request, "limit", None)
    if limit is not None:
        limit.expect(size)


class Patience:
    """How long the requests of one store have been waiting, tries in vain included.

    ``say`` is told after ``silence_s`` without an answer, and again whenever the silence is twice as long.
    ``is_remote``: requests may be left without any answer, so they are sent from threads that nobody waits for.
    """

    def __init__(
        self,
        url: str,
        silence_s: float,
        say: Callable[[str], None] | None = None,
        *,
        is_remote: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._silence_s = silence_s
        self._say = say if say is not None else _to_standard_error
        self._is_remote = is_remote
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._quiet_since = 0.0
        self._say_after_s = silence_s
        self._last: StoreError | None = None
        self._is_left = False

    def call(self, key: str, action: Callable[[], _T], limit: Limit) -> _T:
        """Return what ``action`` returns, or raise what it raises.

        Errors: Watchdog when it takes longer than ``limit``; Interrupted after ``leave``.
        """
        asked = self._clock()
        with self._lock:
            if not self._waiting:
                self._quiet_since = asked
            self._waiting += 1
        try:
            result = self._answer(key, action, asked, limit) if self._is_remote else action()
        except StoreError as error:
            if not error.retryable and not isinstance(error, Watchdog):
                self._heard()
            raise
        finally:
            with self._lock:
                self._waiting -= 1
        self._heard()
        return result

    def failed(self, key: str, error: StoreError, limit: Limit) -> None:
        """Note that a try was in vain, and that another one follows. Errors: as ``call``."""
        with self._lock:
            self._last = error
        if not self._is_remote:
            self._look(key, self._clock(), limit)

    def _answer(self, key: str, action: Callable[[], _T], asked: float, limit: Limit) -> _T:
        future = _hand_over(action)
        while not _is_done(future, min(limit.until - self._clock(), _LOOK_S)):
            self._look(key, asked, limit)
        return future.result()

    def _heard(self) -> None:
        with self._lock:
            self._quiet_since = self._clock()
            self._say_after_s = self._silence_s
            self._last = None
            self._is_left = False

    def _look(self, key: str, asked: float, limit: Limit) -> None:
        now, until = self._clock(), limit.until
        with self._lock:
            quiet_s, last = now - self._quiet_since, self._last
            is_left = _leaving.is_set() and (self._is_left or quiet_s >= _GRACE_S)
            self._is_left |= is_left
            is_to_say = quiet_s >= self._say_after_s
            if is_to_say:
                self._say_after_s = 2.0 * quiet_s
        place = f"{self._url}/{key}" if key else self._url
        if is_left:
            raise Interrupted("stopped by the user; the store had not answered", place=place, hint=HINT)
        if now >= until:
            why = f", last: {last.message}" if last is not None else ""
            raise Watchdog(f"no answer within {until - asked:.3g} s{why}", place=place, hint=HINT) from last
        if is_to_say:
            why = last.message if last is not None else "no answer"
            self._say(f"the store is away for {quiet_s:.0f} s ({why}); giving up after {until - now + quiet_s:.0f} s")


def _to_standard_error(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed: there is nobody to tell
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _is_done(future: Future[Any], wait_s: float) -> bool:
    try:
        future.exception(max(0.0, wait_s))
    except TimeoutError:
        return False
    return True


# Threads that nobody waits for --------------------------------------------------------------------------------------


class _Hand(threading.Thread):
    """Does one action after the other; between them it is idle. An executor would be waited for at the end."""

    def __init__(self) -> None:
        super().__init__(name="store", daemon=True)
        self.work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    def run(self) -> None:
        while True:
            future, action = self.work.get()
            try:
                result = action()
            except BaseException as error:  # noqa: BLE001 (whoever waits gets it)
                _idle.append(self)
                future.set_exception(error)
                del error
            else:
                _idle.append(self)
                future.set_result(result)
                del result
            del future, action


_idle: list[_Hand] = []


def _hand_over(action: Callable[[], _T]) -> Future[_T]:
    future: Future[_T] = Future()
    try:
        hand = _idle.pop()
    except IndexError:
        hand = _Hand()
        hand.start()
    hand.work.put((future, action))
    return future
