"""Waits for a store that may never answer: says so, gives up in time, and lets go when the user does.

The client cannot be interrupted: a signal is seen when its call returns, and its own time limits know nothing of
retries. So a request runs on a thread that no exit waits for, and whoever asked waits here, where a deadline and
Ctrl-C are seen at once. What the thread still gets is dropped.
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


class Patience:
    """How long the requests of one store have been waiting. ``say`` is told once in a silence."""

    def __init__(self, url: str, silence_s: float, say: Callable[[str], None] | None = None) -> None:
        self._url = url
        self._silence_s = silence_s
        self._say = say if say is not None else _to_standard_error
        self._lock = threading.Lock()
        self._waiting = 0
        self._quiet_since = 0.0
        self._has_said = False
        self._is_left = False

    def call(self, key: str, action: Callable[[], _T], until: float) -> _T:
        """Return what ``action`` returns, or raise what it raises. ``until`` is of the monotonic clock.

        Errors: Watchdog when it is later than that; Interrupted after ``leave``.
        """
        asked = time.monotonic()
        with self._lock:
            if not self._waiting:
                self._quiet_since = asked
            self._waiting += 1
        try:
            future = _hand_over(action)
            while not _is_done(future, min(until - time.monotonic(), _LOOK_S)):
                self._look(key, asked, until)
            result = future.result()
        except StoreError as error:
            if not error.retryable:
                self._heard()
            raise
        finally:
            with self._lock:
                self._waiting -= 1
        self._heard()
        return result

    def _heard(self) -> None:
        with self._lock:
            self._quiet_since = time.monotonic()
            self._has_said = self._is_left = False

    def _look(self, key: str, asked: float, until: float) -> None:
        now = time.monotonic()
        with self._lock:
            quiet_s = now - self._quiet_since
            is_left = _leaving.is_set() and (self._is_left or quiet_s >= _GRACE_S)
            self._is_left |= is_left
            is_to_say = quiet_s >= self._silence_s and not self._has_said
            self._has_said |= is_to_say
        place = f"{self._url}/{key}" if key else self._url
        if is_left:
            raise Interrupted("stopped by the user; the store had not answered", place=place, hint=HINT)
        if now >= until:
            raise Watchdog(f"no answer within {until - asked:.3g} s", place=place, hint=HINT)
        if is_to_say:
            left_s = until - now + quiet_s
            self._say(f"the store has not answered for {self._silence_s:g} s; giving up after {left_s:.0f} s")


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
