"""The error tree: every failure that a user or a caller can act on.

Rules of this file: an error names the place (a path in the spec, a key, a file and row), says what would be allowed
there, and gives a hint what to do. The text of an error never holds a secret. Foreign exceptions become one of these
at the edge where they enter (``raise ... from``). Exit codes belong to the class, so that scripts can tell a bad spec
from bad data from a store that is away. Errors travel between processes, hence they pickle.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

_SHOWN_MAX: Final = 80
# Credentials end with the last @ before the path; what follows a colon and is no port is a password, which may hold
# anything. "::" joins the URLs of a chain, as fsspec has them.
_LOGIN: Final = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#@:\[]*:(?!:|\d*(?:[/?#]|$))\S*@)")
_QUERY: Final = re.compile(r"(?<=://)([^?]*)\?.*", re.DOTALL)


def shown(text: str, length_max: int = _SHOWN_MAX) -> str:
    """Return ``text`` as an error may quote it: on one line, short, and without the credentials of a URL: those before
    an ``@``, and a query, which may be a signature."""
    masked = re.sub(r"^([^@]*?//)?.*@", r"\1<credentials>@", text, count=1, flags=re.DOTALL)
    masked = _QUERY.sub(r"\1?...", masked)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in masked)
    return line if len(line) <= length_max else f"{line[:length_max]}..."


def public(text: str) -> str:
    """Return a URL, or a text that quotes one, without what anybody must not see: user and password, and all from the
    query on, which may be a signature. What holds no ``scheme://`` stays as it is: a path may hold any of these signs.
    """
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))


class FarmError(Exception):
    """Something went wrong that has a name. ``str(e)`` is one line: place, message, allowed, hint."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, place: str = "", allowed: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.allowed = allowed
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.hint:
            text += f"; hint: {self.hint}"
        return text

    def to_json(self) -> dict[str, str]:
        """Return the error as the object that ``--json`` prints."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "place": self.place,
            "allowed": self.allowed,
            "hint": self.hint,
        }

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.place, self.allowed, self.hint)


def _rebuild(cls: type[FarmError], message: str, place: str, allowed: str, hint: str) -> FarmError:
    return cls(message, place=place, allowed=allowed, hint=hint)


class UsageError(FarmError):
    """A command, a flag or a setting that cannot be meant."""

    exit_code = 2


class SpecError(FarmError):
    """The user's spec; ``place`` is a path in the document, such as ``strategy.sleeves[0].enter.all[1]``."""

    exit_code = 3


class DataError(FarmError):
    """Data missing, damaged, unsorted or of a wrong schema; ``place`` names key, row group, column, or file and row."""

    exit_code = 4


class OtherFormat(DataError):
    """An object of the farm that an older or a newer version has written."""


class StoreError(FarmError):
    """The object store did not do what was asked. ``retryable``: the same idempotent call may well succeed later."""

    exit_code = 5
    retryable: ClassVar[bool] = False


class NotFound(StoreError):
    """No object under this key."""


class BucketNotFound(NotFound):
    """The bucket itself does not exist."""


class AlreadyExists(StoreError):
    """``put_if_absent`` found an object under the key."""


class PreconditionFailed(StoreError):
    """The object has changed since its etag was taken."""


class PermissionDenied(StoreError):
    """The credentials are missing, wrong, or not allowed to do this."""


class ConfigError(StoreError):
    """The store cannot be opened as named: bad URL, region, endpoint, or not a directory. Likewise the kernel cache."""


class Throttled(StoreError):
    """The store asks for fewer requests."""

    retryable = True


class Unavailable(StoreError):
    """No answer, a broken connection, or an internal error of the store."""

    retryable = True


class ShortRead(StoreError):
    """Fewer or other bytes came back than the range that was asked for."""

    retryable = True


class RangePastEnd(ShortRead):
    """The object is shorter than the range that was asked for. It will not grow: no retry helps."""

    retryable = False


class WriteFailed(StoreError):
    """A write did not fit or did not reach the disk: full, quota, file-size limit, input/output. Nothing was left."""


class Watchdog(StoreError):
    """A request made no sufficient progress before its total deadline, all retries included."""


def is_away(error: BaseException | None) -> bool:
    """Whether the store is to blame, and nothing that was asked of it: the same may well succeed a little later."""
    return isinstance(error, StoreError) and (
        error.retryable or isinstance(error, (Watchdog, PermissionDenied, WriteFailed))
    )


class CapacityError(FarmError):
    """A limit of the farm refuses the work: too many cells, too much memory, a queue that is full."""

    exit_code = 6


class ResultConflict(FarmError):
    """The same block gave different rows: determinism is broken. Both are kept."""

    exit_code = 7


class BlockFailed(FarmError):
    """A block was quarantined after its last attempt; the message carries the last error."""

    exit_code = 8


class Interrupted(FarmError):
    """The user stopped it; finished work is kept."""

    exit_code = 130
