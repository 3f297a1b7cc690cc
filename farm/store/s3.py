"""S3 behind the ``Store`` protocol, by obstore. The one table that translates its errors lives here.

Only what every S3-compatible server does: ranged GET, If-Match, HEAD, ListObjectsV2, PUT, PUT with If-None-Match "*".
Endpoint, region and credentials come from ``store.aws``, never from the URL. obstore's own retries are
off: the layers of ``store.wrap`` do it, and count it. What the client does not check is checked here: the range that
came back, and its length.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import S3Store as Client

from farm.store.aws import CREDENTIALS_HINT, NO_CREDENTIALS, reach
from farm.store.base import ObjectMeta, check_key, check_prefix, check_range
from farm.store.patience import expect
from farm.values.errors import (
    AlreadyExists,
    BucketNotFound,
    ConfigError,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RangePastEnd,
    ShortRead,
    StoreError,
    Throttled,
    Unavailable,
    WriteFailed,
    shown,
)
from farm.values.settings import StoreSettings

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore import ObjectMeta as ClientMeta
    from obstore.store import S3Config

_T = TypeVar("_T")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_STATUS = re.compile(r"status code: (\d{3})")
# The second form is how obstore tells that one object of a bulk delete was refused.
_CODE = re.compile(r"(?:<Code>|\(code: )(\w+)(?:</Code>|\))")
_REASON = re.compile(r"<Message>([^<]*)</Message>")
_OTHER_RANGE = re.compile(r"Requested \d+\.\.\d+, got")
_TRANSPORT = re.compile(r"kind: (Connect|Timeout|Request|Interrupted|Decode)")

_BROKEN: Final = "the connection broke"
_REASONS: Final = {
    "ConnectionRefused": "no connection: nobody listens there",
    "dns error": "no connection: the name of the server is not known",
    "Unreachable": "no connection: there is no way to that address",
}
_VARIABLES_HINT: Final = "look at the AWS_* variables that are set: one does not fit the client or the others"
_REGION_HINT: Final = "the bucket is in another region: set AWS_REGION"
_FULL_HINT: Final = "the server is full: make room there, then run the same command again"
_ENDPOINT_HINT: Final = "is AWS_ENDPOINT_URL right, and the server up?"


@dataclass(frozen=True)
class _Rule:
    """One line of the table: it holds when any of its codes, statuses or client exceptions does."""

    error: type[StoreError]
    codes: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    raised: tuple[type[BaseException], ...] = ()
    hint: str = ""


# First match decides. Codes come first within each concern, since servers disagree on the status of some of them.
_TABLE: Final = (
    _Rule(
        BucketNotFound,
        codes=("NoSuchBucket",),
        hint="create it first (aws s3 mb s3://{bucket}, or mc mb ALIAS/{bucket}), or correct the name",
    ),
    _Rule(Throttled, codes=("SlowDown", "RequestLimitExceeded", "TooManyRequests", "Throttling"), statuses=(429,)),
    _Rule(
        PermissionDenied,
        codes=("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
        hint=CREDENTIALS_HINT,
    ),
    _Rule(PermissionDenied, codes=("RequestTimeTooSkewed",), hint="the clock of this machine is wrong"),
    _Rule(
        ConfigError,
        codes=("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"),
        statuses=(301, 307),
        hint=_REGION_HINT,
    ),
    _Rule(ConfigError, codes=("InvalidBucketName",)),
    _Rule(WriteFailed, codes=("XMinioStorageFull", "QuotaExceeded"), statuses=(507,), hint=_FULL_HINT),
    _Rule(
        PermissionDenied,
        codes=("AccessDenied",),
        statuses=(401, 403),
        raised=(PermissionDeniedError, UnauthenticatedError),
        hint=CREDENTIALS_HINT,
    ),
    _Rule(NotFound, statuses=(404,), raised=(FileNotFoundError,)),
    # 409: another conditional write of this key is under way. Who wins is not known yet, so ask again; obstore would
    # call it AlreadyExists, although the other write may still fail.
    _Rule(Unavailable, statuses=(409,)),
    _Rule(AlreadyExists, raised=(AlreadyExistsError,)),
    _Rule(PreconditionFailed, statuses=(412,), raised=(PreconditionError,)),
    _Rule(RangePastEnd, codes=("InvalidRange",), statuses=(416,)),
    _Rule(Unavailable, codes=("RequestTimeout",), statuses=(408, 500, 502, 503, 504)),
    _Rule(
        ConfigError,
        statuses=(400, 405, 501),
        raised=(UnknownConfigurationKeyError, InvalidPathError, NotSupportedError),
    ),
)

# What the text of the client shows where no bucket has answered: error, message, hint. Looked at before the table.
_SIGNS: Final[tuple[tuple[re.Pattern[str], type[StoreError], str, str], ...]] = (
    (
        re.compile(r"169\.254\.169\.254|/latest/api/token|security-credentials|instance credentials"),
        PermissionDenied,
        NO_CREDENTIALS,
        CREDENTIALS_HINT,
    ),
    (
        re.compile(r"External AWS credential provider"),
        PermissionDenied,
        "the credentials of the profile have run out, and cannot be renewed",
        "log in again",
    ),
    (
        re.compile(r"BareRedirect"),
        ConfigError,
        "the server says that the bucket is elsewhere, and not where",
        _REGION_HINT,
    ),
    (
        re.compile(r"InvalidCertificate"),
        ConfigError,
        "the certificate of the server is not trusted",
        "set SSL_CERT_FILE to the certificates to trust; is AWS_ENDPOINT_URL right?",
    ),
    (
        re.compile(r"InvalidContentType|InvalidMessage"),
        ConfigError,
        "the server does not speak TLS there",
        "is http:// meant in AWS_ENDPOINT_URL, or another port?",
    ),
    (
        re.compile(r"(?i)http request (was sent )?to (an )?https (server|port)"),
        ConfigError,
        "the server speaks TLS there",
        "is https:// meant in AWS_ENDPOINT_URL?",
    ),
    (
        re.compile(r"hyper::Error\(\s*Parse\("),
        ConfigError,
        "what answers there does not speak HTTP",
        "is AWS_ENDPOINT_URL right: http:// or https://, host and port?",
    ),
)


class S3Store:
    """A bucket, or a prefix in one, behind the ``Store`` protocol. Making it sends no request."""

    def __init__(self, bucket: str, prefix: str, settings: StoreSettings) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(
                f"not a bucket name: '{shown(bucket)}'",
                place=shown(self.url),
                allowed="3 to 63 of a-z, 0-9, '.' and '-'",
            )
        self._reach = reach(bucket, self.url)
        self._prefix = prefix
        self._settings = settings
        self._clients: dict[int, Client] = {}
        self._lock = threading.Lock()
        self._renewals = 0
        self._small = self._sized(0)
        self._is_bucket_seen = False

    def head(self, key: str) -> ObjectMeta:
        check_key(key)
        meta = self._call(key, lambda: obstore.head(self._small, key))
        return _meta(key, meta)

    def get(self, key: str) -> bytes:
        check_key(key)

        def read() -> tuple[bytes, int]:
            answer = obstore.get(self._small, key)
            size = int(answer.meta["size"])
            if size > self._settings.fetch_bytes_max:  # known only now, when its time limit runs already
                answer = obstore.get(self._sized(size), key)
                size = int(answer.meta["size"])
            expect(size)
            return bytes(answer.bytes()), size

        data, size = self._call(key, read)
        if len(data) != size:
            raise ShortRead(f"{len(data)} bytes came of an object of {size}", place=self._place(key))
        return data

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        check_key(key)
        check_range(key, start, length)
        end = start + length
        options: GetOptions = {"range": (start, end)}
        if if_match is not None:
            options["if_match"] = if_match

        def read() -> tuple[bytes, tuple[int, int], int]:
            answer = obstore.get(self._sized(length), key, options=options)
            first, stop = answer.range
            return bytes(answer.bytes()), (int(first), int(stop)), int(answer.meta["size"])

        data, got, size = self._call(key, read)
        if size < end:
            raise RangePastEnd(f"bytes {start} to {end} of an object of {size} bytes", place=self._place(key))
        if got != (start, end) or len(data) != length:
            raise ShortRead(
                f"asked for bytes {start} to {end}, got {len(data)} bytes marked {got[0]} to {got[1]}",
                place=self._place(key),
            )
        return data

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        # One after the other: store.wrap.Retrying sends them concurrently, each with its own retries.
        return [self.get_range(key, start, length, if_match=if_match) for start, length in ranges]

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectMeta]:
        # obstore takes whole segments as a prefix only; what remains of it is compared here.
        folder = check_prefix(prefix).rpartition("/")[0]
        pages = self._call(
            prefix, lambda: iter(obstore.list(self._small, folder or None, offset=start_after or None, chunk_size=1000))
        )
        last = start_after
        while True:
            page = self._call(prefix, lambda: next(pages, None))
            if page is None:
                return
            for meta in page:
                key = str(meta["path"])
                if not key.startswith(prefix):
                    if key > prefix:
                        return
                    continue
                if key <= last:
                    raise StoreError(f"the listing is out of order: {key} after {last}", place=self._place(prefix))
                last = key
                yield _meta(key, meta)

    def put_if_absent(self, key: str, data: bytes) -> None:
        check_key(key)
        self._call(key, lambda: obstore.put(self._sized(len(data)), key, data, mode="create"))

    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        self._call(key, lambda: obstore.put(self._sized(len(data)), key, data, use_multipart=False))

    def delete(self, key: str) -> None:
        check_key(key)
        try:
            self._call(key, lambda: obstore.delete(self._small, key))
        except BucketNotFound:
            raise
        except NotFound:
            return

    def _sized(self, size: int) -> Client:
        """Return the client whose time limit is for a body of ``size`` bytes: a client has one for all its requests."""
        bytes_max = self._settings.fetch_bytes_max
        while bytes_max < size:
            bytes_max *= 2
        if bytes_max not in self._clients:  # two threads may both make one; either serves
            seconds = self._settings.request_timeout_s + bytes_max / self._settings.throughput_bytes_s_min
            self._clients[bytes_max] = self._client(seconds)
        return self._clients[bytes_max]

    def _client(self, timeout_s: float) -> Client:
        prefix, settings = self._prefix, self._settings
        pause = timedelta(seconds=settings.backoff_s)
        identity = self._reach.identity
        try:
            return Client(
                self._bucket,
                prefix=prefix or None,
                config=cast("S3Config", self._reach.config),
                credential_provider=identity.credential if identity is not None else None,
                client_options={
                    "allow_http": self._reach.is_plain,
                    "timeout": timedelta(seconds=timeout_s),
                    "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
                },
                retry_config={
                    "max_retries": 0,
                    "retry_timeout": timedelta(seconds=timeout_s),
                    "backoff": {"init_backoff": pause, "max_backoff": pause, "base": 2},
                },
            )
        except BaseException as error:
            if not _is_of_client(error):
                raise
            why = shown(self._reach.redact(_summary(str(error)).removeprefix("Generic Config error: ")))
            raise ConfigError(why, place=self.url, hint=_VARIABLES_HINT) from None

    def _call(self, key: str, action: Callable[[], _T]) -> _T:
        renewals = self._renewals
        try:
            result = action()
        except BaseException as error:
            if not _is_of_client(error):
                raise
            self._raise(error, key, renewals)
        self._is_bucket_seen = True
        return result

    def _raise(self, error: BaseException, key: str, renewals: int) -> NoReturn:
        translated = translate(error, self._reach.redact, place=self._place(key), bucket=self._bucket)
        if type(translated) is NotFound and not self._is_bucket_seen:
            # The answer to HEAD has no body, so a missing bucket looks like a missing key. A listing tells; if it
            # fails for another reason (no right to list), the key is what was asked for, and is not there.
            try:
                next(iter(obstore.list(self._small, chunk_size=1)), None)
                self._is_bucket_seen = True
            except BaseException as second:
                if not _is_of_client(second):
                    raise
                reason = translate(second, self._reach.redact, place=self.url, bucket=self._bucket)
                if isinstance(reason, BucketNotFound):
                    translated = reason
        if translated.hint == CREDENTIALS_HINT:
            translated.hint = self._reach.hint
            # MinIO says AccessDenied also to temporary credentials whose user is gone: whoever may not do this has no
            # better ones in the profile, and is not asked twice.
            if self._has_renewed(renewals):
                translated = Unavailable(f"{translated.message}; there are fresh credentials", place=translated.place)
        # Without ``from``: the client's text quotes the request, and with it what must stay secret.
        raise translated from None

    def _has_renewed(self, renewals: int) -> bool:
        """Whether there are other credentials than those of a request that was refused, and that began when there had
        been so many ``renewals``; the next try then has them."""
        with self._lock:
            if renewals == self._renewals and self._reach.renew():
                self._clients = {}  # each keeps the credentials that it was given for some minutes
                self._small = self._sized(0)
                self._renewals += 1
            return renewals != self._renewals

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}" if key else self.url


def _meta(key: str, meta: ClientMeta) -> ObjectMeta:
    modified_ns = int(meta["last_modified"].timestamp()) * 1_000_000_000
    return ObjectMeta(key, int(meta["size"]), str(meta["e_tag"]), modified_ns)


def _is_of_client(error: BaseException) -> bool:
    """True for what the client raises. A panic of it has a class that cannot be imported, and is no Exception."""
    return isinstance(error, BaseError | OSError | ValueError) or type(error).__name__ == "PanicException"


def translate(error: BaseException, redact: Callable[[str], str], *, place: str, bucket: str) -> StoreError:
    """Return the error of the farm for an error of the client; its text holds no secret."""
    text = str(error)
    summary = redact(_summary(text))
    if not isinstance(error, Exception):
        return ConfigError(f"the S3 client failed: {shown(summary)}", place=place, hint=_VARIABLES_HINT)
    for sign, kind, message, hint in _SIGNS:
        if sign.search(text):
            return kind(message, place=place, hint=hint)
    status = _STATUS.search(text)
    code = _CODE.search(text)
    for rule in _TABLE:
        if (
            (code is not None and code[1] in rule.codes)
            or (status is not None and int(status[1]) in rule.statuses)
            or isinstance(error, rule.raised)
        ):
            return rule.error(summary, place=place, hint=rule.hint.format(bucket=bucket))
    if status is not None:
        return (Unavailable if status[1].startswith("5") else StoreError)(summary, place=place)
    if _OTHER_RANGE.search(text):
        return ShortRead(summary, place=place)
    return Unavailable(summary, place=place, hint=_ENDPOINT_HINT)


def _summary(text: str) -> str:
    """Return what happened in a few words: status, code and reason, or the kind of transport failure."""
    status, code, reason = _STATUS.search(text), _CODE.search(text), _REASON.search(text)
    if status is not None:
        words = [f"the server said {status[1]}"]
        words += [code[1]] if code is not None else []
        words += [f"({reason[1]})"] if reason is not None else []
        return " ".join(words)
    if code is not None:
        return f"the server said {code[1]}"
    transport = _TRANSPORT.search(text)
    if transport is None:
        return text.partition("\n")[0].strip()
    known = (words for sign, words in _REASONS.items() if sign in text)
    return next(known, {"Connect": "no connection", "Timeout": "no answer in time"}.get(transport[1], _BROKEN))
