"""What the driver needs of whatever runs the workers: Ray, or the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cluster.messages import Event, RunLease


class Backend(Protocol):
    """Workers somewhere. Calls return at once; what comes of them arrives as events."""

    def now_s(self) -> float:
        """Return the time, in seconds of a clock that never goes back."""

    def start(self, worker: str) -> None:
        """Start a worker; ends in WorkerReady or WorkerLost."""

    def stop(self, worker: str, why: str) -> None:
        """End a worker at once, whatever it does; ends in WorkerLost. No error when there is none of that name."""

    def run(self, lease: RunLease) -> None:
        """Send a lease; ends in LeaseEnded, LeaseCrashed or WorkerLost, or in nothing at all."""

    def cancel(self, worker: str, lease: str) -> None:
        """Ask a worker to stop a lease after the block it is at."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what has happened, waiting at most ``timeout_s`` for the first event."""
