"""What the backend makes of what Ray says, in whatever order it comes. Ray itself is not started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import ray_backend
from cluster.messages import LeaseEnded, RunLease, WorkerLost
from cluster.ray_backend import RayBackend
from cluster.worker import Answer
from farm.values.settings import FarmSettings

pytestmark = pytest.mark.ray


class Fake:
    """Ray as far as the backend asks it: calls that have come back, with what they give or raise."""

    def __init__(self) -> None:
        self.back: dict[str, Any] = {}
        self.killed: list[object] = []

    def remote(self, **_: object) -> Any:
        return lambda cls: None

    def wait(self, calls: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        done = [call for call in calls if call in self.back]
        return done[:num_returns], [call for call in calls if call not in done[:num_returns]]

    def get(self, call: str) -> Any:
        if isinstance(self.back[call], Exception):
            raise self.back[call]
        return self.back[call]

    def kill(self, actor: object) -> None:
        self.killed.append(actor)


def lease(number: int, worker: str) -> RunLease:
    return RunLease(f"e-{number:06d}", "s", "n", worker, 1 << number, 1, "warm", 9.0)


@pytest.mark.parametrize("order", [("watch", "a", "b"), ("a", "watch", "b"), ("b", "a", "watch")])
def test_answers_that_have_come_count_though_their_worker_has_died(
    order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the death is seen first: Ray tells of calls in the order in which they were made."""
    fake = Fake()
    monkeypatch.setattr(ray_backend, "ray", fake)
    monkeypatch.setattr(ray_backend, "_ray", fake)
    backend = RayBackend("memory:", FarmSettings())
    actor = SimpleNamespace()
    backend._actors = {"w": actor, "v": actor}
    kinds = {"watch": ("watch", "w", None), "a": ("run", "w", lease(0, "w")), "b": ("run", "w", lease(1, "w"))}
    backend._pending = {name: kinds[name] for name in order} | {"lost": ("run", "w", lease(2, "w"))}  # type: ignore[misc]
    backend._pending["other"] = "run", "v", lease(3, "v")
    fake.back = {"watch": ray_backend.RayActorError(), "a": Answer((), {}), "b": Answer((), {"x": 1})}
    events = backend.events(0.0)
    assert {event.lease for event in events if isinstance(event, LeaseEnded)} == {"e-000000", "e-000001"}
    assert [event.worker for event in events if isinstance(event, WorkerLost)] == ["w"]
    assert list(backend._pending) == ["other"] and fake.killed == [actor]
    assert backend.events(0.0) == []


def test_leases_that_died_with_their_worker_tell_of_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(ray_backend, "ray", fake)
    monkeypatch.setattr(ray_backend, "_ray", fake)
    backend = RayBackend("memory:", FarmSettings())
    backend._actors = {"w": SimpleNamespace()}
    backend._pending = {name: ("run", "w", lease(number, "w")) for number, name in enumerate("abc")}
    backend._pending["watch"] = "watch", "w", None
    fake.back = dict.fromkeys(backend._pending, ray_backend.RayActorError())
    assert [type(event) for event in backend.events(0.0)] == [WorkerLost]
    assert backend._pending == {}
