"""Calls to the store that must not be lost: in order where order counts, and tried again while the store is away.

Calls of one *lane* are made one after another. A call that fails with a StoreError stays at the head of its lane and is
tried again after a pause, until it has failed for ``watchdog_s``: then its error is raised, and it is still not given
up. So every call has to be one that may be made twice. With a ``writer`` calls run on its threads; what ``begin`` and
``then`` do always happens on the thread that pumps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Final

from farm.values.errors import StoreError

PROMPT_S: Final = 0.2
"""How long a pump waits for calls just begun: what follows from them should not wait for the next turn."""
SILENCE_S: Final = 5.0
"""A call that has not come back for so long is a store that is away, as one that has failed."""
PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 2.0


@dataclass(eq=False)
class _Call:
    lane: str
    make: Callable[[], Any]
    then: Callable[[Any], None]
    begin: Callable[[], None]
    future: Future[Any] | None = None
    begun_s: float = 0.0
    failing_since_s: float | None = None


class Outbox:
    """The calls that are on their way. Used by one thread; times are seconds of a clock that never goes back."""

    def __init__(self, writer: Executor | None, watchdog_s: float) -> None:
        self._writer = writer
        self._watchdog_s = watchdog_s
        self._lanes: dict[str, deque[_Call]] = {}
        self._pause_s = PAUSE_S
        self._again_s: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._lanes)

    @property
    def again_s(self) -> float | None:
        """When what failed is tried again; None when nothing has failed."""
        return self._again_s

    def away_s(self, now_s: float) -> float:
        """Return for how long the store has done nothing of what it was asked; 0 while it answers."""
        return max((_away_s(lane[0], now_s) for lane in self._lanes.values()), default=0.0)

    def has(self, lane: str) -> bool:
        """Whether calls of this lane are on their way."""
        return lane in self._lanes

    def add(
        self,
        lane: str,
        make: Callable[[], Any],
        then: Callable[[Any], None] = lambda _: None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Put a call at the end of its lane; ``pump`` makes it. ``then`` gets what it returned; ``begin`` happens each
        time just before it is made, on the thread that pumps."""
        self._lanes.setdefault(lane, deque()).append(_Call(lane, make, then, begin))

    def pump(self, now_s: float) -> None:
        """Make the calls whose turn it is, and do what follows from those that came back.

        Errors: the StoreError of a call that has failed for ``watchdog_s``; any other error of a call, at once.
        """
        self._collect(now_s)
        if self._again_s is not None:
            if now_s < self._again_s:
                return
            self._again_s = None
        while begun := self._begin(now_s):
            if self._writer is None:
                continue
            wait(begun, PROMPT_S)
            self._collect(now_s)
            if not all(future.done() for future in begun):
                return

    def _begin(self, now_s: float) -> list[Future[Any]]:
        begun = []
        for name in list(self._lanes):
            call = self._lanes[name][0] if name in self._lanes and self._again_s is None else None
            if call is None or call.future is not None:
                continue
            call.begin()
            call.begun_s = now_s
            call.future = Future() if self._writer is None else self._writer.submit(call.make)
            begun.append(call.future)
            if self._writer is None:
                _make(call)
                self._settle(call, now_s)
        return begun

    def _collect(self, now_s: float) -> None:
        for call in [lane[0] for lane in self._lanes.values()]:
            if call.future is not None and call.future.done():
                self._settle(call, now_s)

    def _settle(self, call: _Call, now_s: float) -> None:
        """Take a call off its lane, or leave it there to be made again."""
        assert call.future is not None, "it was made"
        future, call.future = call.future, None
        error = future.exception()
        if isinstance(error, StoreError):
            if call.failing_since_s is None:
                call.failing_since_s = now_s
            if self._again_s is None:
                self._again_s = now_s + self._pause_s
                self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
            if now_s - call.failing_since_s >= self._watchdog_s:
                call.failing_since_s = now_s  # whoever goes on all the same is told again after as long
                raise _given_up(error, self._watchdog_s) from error
            return
        lane = self._lanes[call.lane]
        lane.popleft()
        if not lane:
            del self._lanes[call.lane]
        self._pause_s = PAUSE_S
        call.then(future.result())


def _away_s(call: _Call, now_s: float) -> float:
    if call.failing_since_s is not None:
        return now_s - call.failing_since_s
    asked_s = now_s - call.begun_s if call.future is not None else 0.0
    return asked_s if asked_s >= SILENCE_S else 0.0


def _make(call: _Call) -> None:
    assert call.future is not None, "it is being made"
    try:
        call.future.set_result(call.make())
    except Exception as error:  # noqa: BLE001 (whoever settles it gets it)
        call.future.set_exception(error)


def _given_up(error: StoreError, waited_s: float) -> StoreError:
    kept = f"the store was away for {waited_s:.0f} s; finished blocks are kept, the same command goes on from there"
    hint = f"{error.hint}; {kept}" if error.hint else kept
    return type(error)(error.message, place=error.place, allowed=error.allowed, hint=hint)
