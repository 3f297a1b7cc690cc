"""S3 behind the ``Store`` protocol, by obstore. The one table that translates its errors lives here.

Only what every S3-compatible server does: ranged GET, If-Match, HEAD, ListObjectsV2, PUT, PUT with If-None-Match "*".
Endpoint, region and credentials come from the usual ``AWS_*`` variables, never from the URL. obstore's own retries are
off: the layers of ``store.wrap`` do it, and count it. What the client does not check is checked here: the range that
came back, and its length.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

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

from farm.store.base import ObjectMeta, check_key, check_prefix, check_range
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
)
from farm.values.settings import StoreSettings

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Config

_T = TypeVar("_T")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_STATUS = re.compile(r"status code: (\d{3})")
# The second form is how obstore tells that one object of a bulk delete was refused.
_CODE = re.compile(r"(?:<Code>|\(code: )(\w+)(?:</Code>|\))")
_REASON = re.compile(r"<Message>([^<]*)</Message>")
_OTHER_RANGE = re.compile(r"Requested \d+\.\.\d+, got")
_TRANSPORT = re.compile(r"kind: (Connect|Timeout|Request|Interrupted|Decode)")

_SECRETS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PROVIDERS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_CREDENTIALS_HINT: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones) to credentials "
    "that may use this bucket, and AWS_ENDPOINT_URL unless it is on AWS"
)
_NO_CREDENTIALS: Final = "there are no credentials in the environment"
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
        hint=_CREDENTIALS_HINT,
    ),
    _Rule(PermissionDenied, codes=("RequestTimeTooSkewed",), hint="the clock of this machine is wrong"),
    _Rule(
        ConfigError,
        codes=("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"),
        statuses=(301, 307),
        hint="the bucket is in another region: set AWS_REGION",
    ),
    _Rule(ConfigError, codes=("InvalidBucketName",)),
    _Rule(WriteFailed, codes=("XMinioStorageFull", "QuotaExceeded"), statuses=(507,), hint="the server is full"),
    _Rule(
        PermissionDenied,
        codes=("AccessDenied",),
        statuses=(401, 403),
        raised=(PermissionDeniedError, UnauthenticatedError),
        hint=_CREDENTIALS_HINT,
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


class S3Store:
    """A bucket, or a prefix in one, behind the ``Store`` protocol. Making it sends no request."""

    def __init__(self, bucket: str, prefix: str, settings: StoreSettings) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(
                f"not a bucket name: {bucket!r}", place=self.url, allowed="3 to 63 of a-z, 0-9, '.' and '-'"
            )
        if os.environ.get("AWS_EC2_METADATA_DISABLED") == "true" and not any(map(os.environ.get, _PROVIDERS)):
            raise PermissionDenied(_NO_CREDENTIALS, place=self.url, hint=_CREDENTIALS_HINT)
        # Ranges are bounded, so their time is; whole objects may be larger and get the watchdog's patience.
        range_s = settings.request_timeout_s + settings.fetch_bytes_max / settings.throughput_bytes_s_min
        self._fetch_bytes_max = settings.fetch_bytes_max
        self._hasty = self._client(prefix, settings, min(range_s, settings.watchdog_s))
        self._patient = self._client(prefix, settings, settings.watchdog_s)
        self._is_bucket_seen = False

    def head(self, key: str) -> ObjectMeta:
        check_key(key)
        meta = self._call(key, lambda: obstore.head(self._hasty, key))
        return ObjectMeta(key, int(meta["size"]), str(meta["e_tag"]))

    def get(self, key: str) -> bytes:
        check_key(key)

        def read() -> tuple[bytes, int]:
            answer = obstore.get(self._patient, key)
            return bytes(answer.bytes()), int(answer.meta["size"])

        data, size = self._call(key, read)
        if len(data) != size:
            raise ShortRead(f"{len(data)} bytes came of an object of {size}", place=self._place(key))
        return data

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        check_key(key)
        check_range(key, start, length)
        client = self._hasty if length <= self._fetch_bytes_max else self._patient
        end = start + length
        options: GetOptions = {"range": (start, end)}
        if if_match is not None:
            options["if_match"] = if_match

        def read() -> tuple[bytes, tuple[int, int], int]:
            answer = obstore.get(client, key, options=options)
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
            prefix, lambda: iter(obstore.list(self._hasty, folder or None, offset=start_after or None, chunk_size=1000))
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
                yield ObjectMeta(key, int(meta["size"]), str(meta["e_tag"]))

    def put_if_absent(self, key: str, data: bytes) -> None:
        check_key(key)
        self._call(key, lambda: obstore.put(self._patient, key, data, mode="create"))

    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        self._call(key, lambda: obstore.put(self._patient, key, data, use_multipart=False))

    def delete(self, key: str) -> None:
        check_key(key)
        try:
            self._call(key, lambda: obstore.delete(self._hasty, key))
        except BucketNotFound:
            raise
        except NotFound:
            return

    def _client(self, prefix: str, settings: StoreSettings, timeout_s: float) -> Client:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        pause = timedelta(seconds=settings.backoff_s)
        config: S3Config = {} if not endpoint else {"endpoint": endpoint}
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            config["region"] = "us-east-1"
        try:
            return Client(
                self._bucket,
                prefix=prefix or None,
                config=config,
                client_options={
                    "allow_http": endpoint.startswith("http://"),
                    "timeout": timedelta(seconds=timeout_s),
                    "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
                },
                retry_config={
                    "max_retries": 0,
                    "retry_timeout": timedelta(seconds=timeout_s),
                    "backoff": {"init_backoff": pause, "max_backoff": pause, "base": 2},
                },
            )
        except (BaseError, ValueError) as error:
            raise ConfigError(_first_line(str(error)), place=self.url) from None

    def _call(self, key: str, action: Callable[[], _T]) -> _T:
        try:
            result = action()
        except (BaseError, OSError) as error:
            self._raise(error, key)
        self._is_bucket_seen = True
        return result

    def _raise(self, error: BaseException, key: str) -> NoReturn:
        translated = translate(error, place=self._place(key), bucket=self._bucket)
        if type(translated) is NotFound and not self._is_bucket_seen:
            # The answer to HEAD has no body, so a missing bucket looks like a missing key. A listing tells; if it
            # fails for another reason (no right to list), the key is what was asked for, and is not there.
            try:
                next(iter(obstore.list(self._hasty, chunk_size=1)), None)
                self._is_bucket_seen = True
            except (BaseError, OSError) as second:
                reason = translate(second, place=self.url, bucket=self._bucket)
                if isinstance(reason, BucketNotFound):
                    translated = reason
        # Without ``from``: the client's text quotes the request, and with it what must stay secret.
        raise translated from None

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}" if key else self.url


def translate(error: BaseException, *, place: str, bucket: str) -> StoreError:
    """Return the error of the farm for an error of the client; its text holds no secret."""
    text = str(error)
    status = _STATUS.search(text)
    code = _CODE.search(text)
    for rule in _TABLE:
        if (
            (code is not None and code[1] in rule.codes)
            or (status is not None and int(status[1]) in rule.statuses)
            or isinstance(error, rule.raised)
        ):
            return rule.error(_summary(text), place=place, hint=rule.hint.format(bucket=bucket))
    if status is not None:
        kind = Unavailable if status[1].startswith("5") else StoreError
        return kind(_summary(text), place=place)
    if _OTHER_RANGE.search(text):
        return ShortRead(_summary(text), place=place)
    if "169.254.169.254" in text or "instance credentials" in text.lower():
        return PermissionDenied(_NO_CREDENTIALS, place=place, hint=_CREDENTIALS_HINT)
    if "scheme is not allowed" in text or "builder error" in text:
        return ConfigError(_summary(text), place=place, hint=_ENDPOINT_HINT)
    return Unavailable(_summary(text), place=place, hint=_ENDPOINT_HINT)


def _summary(text: str) -> str:
    """Return what happened in a few words: status, code and reason, or the kind of transport failure."""
    status, code, reason = _STATUS.search(text), _CODE.search(text), _REASON.search(text)
    if status is not None:
        words = [f"the server said {status[1]}"]
        words += [code[1]] if code is not None else []
        words += [f"({reason[1]})"] if reason is not None else []
        return redact(" ".join(words))
    if code is not None:
        return f"the server said {code[1]}"
    transport = _TRANSPORT.search(text)
    said = {"Connect": "no connection", "Timeout": "no answer in time"}
    if transport is not None:
        return said.get(transport[1], "the connection broke")
    return redact(_first_line(text))


def redact(text: str) -> str:
    """Return ``text`` without the credentials of this process."""
    for name in _SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, f"<{name}>")
    return text


def _first_line(text: str) -> str:
    return redact(text.partition("\n")[0].strip())
