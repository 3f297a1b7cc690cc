"""What can go wrong with a local MinIO: it cannot be had, it does not start, it refuses an administrative call.

All are of the project's one tree, so that a command line prints them like every other error.
"""

from __future__ import annotations

from farm.values.errors import FarmError


class MinioError(FarmError):
    """A local MinIO could not be found, built, started or administered."""


class BuildError(MinioError):
    """The binary could not be built: no Go, no network, no space or no time."""


class ServerError(MinioError):
    """The server did not start, did not become healthy in time, or died."""
