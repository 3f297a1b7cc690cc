"""How a bucket is reached: the ``AWS_*`` variables, checked, and the profile that stands in where they give no key.

Every variable that the client would read is checked here first: it panics on some values (a port that is none, a line
break in a token) and ignores others. With keys in the environment no profile is read. Without, and where nothing else
gives credentials, a profile of ``~/.aws`` is, by botocore: it knows their grammar, their roles and their refreshing.
An empty variable counts as not set. No value of a secret is ever part of a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

from obstore.exceptions import BaseError
from obstore.store import HTTPStore

from farm.values.errors import ConfigError, FarmError, PermissionDenied, shown

if TYPE_CHECKING:
    from obstore.store import S3Credential

_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_TOKENS: Final = ("AWS_SESSION_TOKEN", "AWS_TOKEN")
_PROFILES: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_PROVIDERS: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FLAGS: Final = (
    "AWS_SKIP_SIGNATURE",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_S3_EXPRESS",
    "AWS_IMDSV1_FALLBACK",
    "AWS_DISABLE_TAGGING",
    "AWS_DISABLE_BULK_DELETE",
    "AWS_REQUEST_PAYER",
    "AWS_SSE_BUCKET_KEY_ENABLED",
)
_ON: Final = ("1", "true", "on", "yes", "y")
# The client takes an empty one for a value, and there is none that says "not set".
_NEVER_EMPTY: Final = (
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
)
_REGION_DEFAULT: Final = "us-east-1"
_METADATA_DEFAULT: Final = "http://169.254.169.254"
_REFRESH: Final = timedelta(minutes=5)
_LENGTH_MAX: Final = 8192
_SHORT_SECRET: Final = 8
_PATHS_SHOWN_MAX: Final = 400

NO_CREDENTIALS: Final = "there are no credentials, neither in the environment nor in a profile"
CREDENTIALS_HINT: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones) to credentials "
    "that may use this bucket, or AWS_PROFILE to a profile of ~/.aws; and AWS_ENDPOINT_URL unless it is on AWS"
)
_ENDPOINT_ALLOWED: Final = "http://host:port or https://host:port, nothing after it"
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]")
_PRINTABLE = re.compile(r"[!-~]+")
_WORDS = re.compile(r"[ -~]+")
_URI = re.compile(r"/[A-Za-z0-9._~:/?#@!$&()*+,;=%-]*")


class Identity(Protocol):
    """Who asks."""

    def credential(self) -> S3Credential:
        """Return what is valid now."""

    def secrets(self) -> Mapping[str, str]:
        """Return by name what no text may hold."""


@dataclass(frozen=True)
class Reach:
    """Where the bucket is and who asks. ``config`` is for the client, which looks for an identity where none is."""

    config: Mapping[str, Any]
    is_plain: bool
    identity: Identity | None = field(repr=False)

    @property
    def hint(self) -> str:
        """What to do where the credentials were refused."""
        if isinstance(self.identity, _Profile):
            return f"the keys are those of the profile {self.identity.name}: correct them, or {CREDENTIALS_HINT}"
        return CREDENTIALS_HINT

    def renew(self) -> bool:
        """Look for other credentials than those that were refused; return whether there are any. A profile may have
        been written again; what the environment of a process holds does not change."""
        return isinstance(self.identity, _Profile) and self.identity.renew()

    def redact(self, text: str) -> str:
        """Return ``text`` with names in place of credentials. A short one is masked as a whole word only."""
        for name, secret in (self.identity.secrets() if self.identity is not None else {}).items():
            pattern = re.escape(secret)
            if len(secret) < _SHORT_SECRET:
                pattern = rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])"
            text = re.sub(pattern, f"<{name}>", text)
        return text


def reach(bucket: str, url: str) -> Reach:
    """Return how ``bucket`` is reached; ``url`` is the place of an error about credentials.

    Errors: ConfigError naming the variable, or the profile; PermissionDenied where there are no credentials.
    """
    for name in _NEVER_EMPTY:
        if os.environ.get(name) == "":
            raise ConfigError("is empty", place=name, allowed=_CHECKS[name][1], hint="unset it")
    given = {name: text for name, text in os.environ.items() if name in _CHECKS and text}
    for name, text in given.items():
        _check(name, text)
    region, endpoint = _first(given, _REGIONS), _first(given, _ENDPOINTS)
    place = next((name for name in _ENDPOINTS if name in given), "")
    identity = _identity(given, url)
    if isinstance(identity, _Profile):
        region = region or identity.region()
        if not endpoint:
            place, endpoint = f"endpoint_url of profile {identity.name}", identity.text("endpoint_url")
            if endpoint:
                _check_endpoint(place, endpoint)
    _refuse_bucket_in(endpoint, place, bucket)
    # What must not be chosen from outside, and what the client would take an empty variable for.
    config = {"region": region or _REGION_DEFAULT, "conditional_put": "etag", "copy_if_not_exists": "multipart"}
    config |= {name.lower(): "false" for name in _FLAGS if os.environ.get(name) == ""}
    if os.environ.get("AWS_METADATA_ENDPOINT") == "":
        config["metadata_endpoint"] = _METADATA_DEFAULT
    if endpoint:
        # Both, since a variable that ranks higher would win.
        config |= dict.fromkeys(("endpoint", "aws_endpoint_url_s3"), endpoint.rstrip("/"))
    elif any(name in os.environ for name in _ENDPOINTS):
        # Empty, which the client takes for an address, and panics: so the address that it would take without.
        host = f"s3.{config['region']}.amazonaws.com"
        is_in_host = _is_on(given, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
        address = f"https://{bucket}.{host}" if is_in_host else f"https://{host}"
        config |= dict.fromkeys(("endpoint", "aws_endpoint_url_s3"), address)
    return Reach(config, endpoint.lower().startswith("http://"), identity)


def _identity(given: Mapping[str, str], url: str) -> Identity | None:
    """Return the keys of the environment, else a profile, else None: containers and machines are asked by the client.

    Errors: PermissionDenied where the client would find nobody to ask; those of the profile.
    """
    own = [name for name in _KEYS if name in given]
    if len(own) == 1:
        missing = _KEYS[1 - _KEYS.index(own[0])]
        raise PermissionDenied(
            f"not set, although {own[0]} is", place=missing, hint="set both, or neither to use a profile"
        )
    if own:
        return _Keys(given[_KEYS[0]], given[_KEYS[1]], _first(given, _TOKENS))
    is_unsigned = _is_on(given, "AWS_SKIP_SIGNATURE")
    is_client_to_ask = is_unsigned or any(name in given for name in _PROVIDERS)
    profile = None
    if not is_unsigned and (not is_client_to_ask or _first(given, _PROFILES)):
        profile = _profile(given, url)
    # An empty key in the environment is one to the client, and it would ask nobody else.
    is_alone = _is_on(given, "AWS_EC2_METADATA_DISABLED") or any(name in os.environ for name in _KEYS)
    if profile is None and not is_client_to_ask and is_alone:
        raise PermissionDenied(NO_CREDENTIALS, place=url, hint=CREDENTIALS_HINT)
    return profile


def _first(given: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((given[name] for name in names if name in given), "")


def _is_on(given: Mapping[str, str], name: str) -> bool:
    return given.get(name, "").lower() in _ON


@dataclass(frozen=True, repr=False)
class _Keys:
    """The keys of the environment."""

    key: str
    secret: str
    token: str

    def credential(self) -> S3Credential:
        return {
            "access_key_id": self.key,
            "secret_access_key": self.secret,
            "token": self.token or None,
            "expires_at": None,
        }

    def secrets(self) -> Mapping[str, str]:
        found = dict(zip((*_KEYS, _TOKENS[0]), (self.key, self.secret, self.token), strict=True))
        return {name: secret for name, secret in found.items() if secret}


# Profiles -----------------------------------------------------------------------------------------------------------


class _Profile:
    """One profile of ``~/.aws``, through botocore's session."""

    def __init__(self, name: str, session: Any, credentials: Any, read: Callable[[], _Profile | None]) -> None:
        self.name = name
        self._session = session
        self._credentials = credentials
        self._read = read

    def renew(self) -> bool:
        """Read the files of the profile anew; return whether they give other credentials than before."""
        before = self.secrets()
        try:
            found = self._read()
        except FarmError:
            return False
        if found is None or found.secrets() == before:
            return False
        self._session, self._credentials = found._session, found._credentials
        return True

    def text(self, name: str) -> str:
        """Return an entry of the profile, or nothing."""
        found = self._session.get_scoped_config().get(name, "")
        return found if isinstance(found, str) else ""

    def region(self) -> str:
        found = self.text("region")
        if found and (problem := _region(found)):
            place, hint = f"region of profile {self.name}", "correct it, or set AWS_REGION"
            raise ConfigError(f"'{shown(found)}' {problem}", place=place, allowed=_REGION, hint=hint)
        return found

    def credential(self) -> S3Credential:
        """Return what is valid now. The client asks again after some minutes: botocore refreshes what runs out."""
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token or None,
            "expires_at": datetime.now(UTC) + _REFRESH,
        }

    def secrets(self) -> Mapping[str, str]:
        frozen = self._credentials.get_frozen_credentials()
        found = {"access key": frozen.access_key, "secret key": frozen.secret_key, "session token": frozen.token}
        return {name: secret for name, secret in found.items() if secret}


def _profile(given: Mapping[str, str], url: str) -> _Profile | None:
    """Return the profile that is meant, or None where none is: there are no files, or they name no credentials."""
    name = _first(given, _PROFILES)
    files = [
        os.path.expanduser(given.get(variable) or default)  # noqa: PTH111 (pathlib raises on ~nobody)
        for variable, default in (
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            ("AWS_CONFIG_FILE", "~/.aws/config"),
        )
    ]
    there = [file for file in files if os.path.isfile(file)]  # noqa: PTH113 (pathlib raises on some)
    if not name and not there:
        return None
    place = "AWS_PROFILE" if name else "the default profile"
    where = shown(" and ".join(there or files), _PATHS_SHOWN_MAX)
    try:
        import botocore.session  # type: ignore[import-untyped]  # ships no types
        from botocore.exceptions import ProfileNotFound  # type: ignore[import-untyped]
    except ImportError:
        hint = f"profiles of ~/.aws are read only where botocore is installed: install it, or set {' and '.join(_KEYS)}"
        raise PermissionDenied("there are no credentials in the environment", place=url, hint=hint) from None
    # Named in any case: an empty AWS_PROFILE is a profile without a name to botocore.
    session = botocore.session.Session(profile=name or "default")
    try:
        chain = session.get_component("credential_provider")
        for other in ("env", "container-role", "iam-role"):  # what the client asks
            chain.remove(other)
        credentials = chain.load_credentials()
        if credentials is not None:
            made = _Profile(name or "default", session, credentials, lambda: _profile(given, url))
            found = _checked(made, place)
            session.get_scoped_config()
            return found
    except ProfileNotFound:
        if not name:
            return None
        known = ", ".join(sorted(session.available_profiles)) or "none is there"
        hint = f"correct the name, or add it to {where}"
        raise ConfigError(f"no profile '{shown(name)}'", place=place, allowed=shown(known), hint=hint) from None
    except FarmError:
        raise
    except Exception as error:  # noqa: BLE001 (broken files, expired logins, failing helpers: no common class)
        # The class says what is wrong. The text may quote the file, and with it what must stay secret.
        why = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
        hint = f"look at {where} (aws sts get-caller-identity may say more), or set {_KEYS[0]} and {_KEYS[1]}"
        raise ConfigError(f"cannot be used: {why}", place=place, hint=hint) from None
    if not name:
        return None
    raise PermissionDenied(f"the profile '{shown(name)}' gives no credentials", place=place, hint=CREDENTIALS_HINT)


def _checked(profile: _Profile, place: str) -> _Profile:
    """Return ``profile``, asked once, so that a login that has run out is found out here."""
    for name, secret in profile.secrets().items():
        problem = _blemish(secret) or (_SECRET_WORD[0](secret) if name != "secret key" else "")
        if problem:
            raise ConfigError(f"the {name} {problem}", place=place, hint="correct it in the file of the profile")
    return profile


# Variables ----------------------------------------------------------------------------------------------------------


def _check(name: str, text: str) -> None:
    check, allowed, is_secret = _CHECKS[name]
    problem = _blemish(text)
    if not problem and check is None:
        _check_endpoint(name, text)
    elif not problem and check is not None:
        problem = check(text)
    if problem:
        what = "the value" if is_secret else f"'{shown(text)}'"
        raise ConfigError(f"{what} {problem}", place=name, allowed=allowed, hint="correct the variable, or unset it")


def _blemish(text: str) -> str:
    """Return what is wrong with ``text`` whatever it is for, or nothing."""
    if not text.strip():
        return "is blank"
    if text != text.strip():
        return "has blanks around it"
    if text[0] in "'\"" or text[-1] in "'\"":
        return "has quotes around it"
    if len(text) > _LENGTH_MAX:
        return f"is longer than {_LENGTH_MAX}"
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text):
        return "holds a control character"
    return ""


def _matches(pattern: re.Pattern[str], problem: str) -> Callable[[str], str]:
    return lambda text: "" if pattern.fullmatch(text) else problem


def _one_of(*words: str) -> Callable[[str], str]:
    return lambda text: "" if text.lower() in words else "is not one of them"


def _full_uri(text: str) -> str:
    parts = _split(text)
    if parts is None or "@" in parts.netloc or _endpoint_problem(f"{parts.scheme}://{parts.netloc}") != ("", ""):
        return "is no address"
    return "" if _URI.fullmatch(text.partition(parts.netloc)[2] or "/") else "is no address"


_region = _matches(re.compile(r"[A-Za-z0-9_-]{1,64}"), "is no region")
_REGION: Final = "such as us-east-1; letters, digits, - and _"
_ENDPOINT: Final = (None, _ENDPOINT_ALLOWED, False)
_TEXT: Final = (lambda text: "", "text on one line", False)
_PLAIN: Final = (_matches(_WORDS, "is not plain ASCII"), "ASCII on one line", False)
_SECRET_WORD: Final = (_matches(_PRINTABLE, "holds blanks or is not ASCII"), "ASCII without blanks", True)
_FLAG: Final = (_one_of(*_ON, "0", "false", "off", "no", "n"), "true or false", False)
_SSE: Final = ("AES256", "aws:kms", "aws:kms:dsse", "sse-c")
# What each may hold: its check (None: an endpoint), that in words, and whether no error may quote it.
_CHECKS: Final[Mapping[str, tuple[Callable[[str], str] | None, str, bool]]] = {
    **dict.fromkeys((*_ENDPOINTS, "AWS_METADATA_ENDPOINT", "AWS_ENDPOINT_URL_STS"), _ENDPOINT),
    **dict.fromkeys(_REGIONS, (_region, _REGION, False)),
    **dict.fromkeys(("AWS_ACCESS_KEY_ID", *_TOKENS), _SECRET_WORD),
    "AWS_SECRET_ACCESS_KEY": (lambda text: "", "the secret alone, on one line, without quotes", True),
    "AWS_SSE_CUSTOMER_KEY_BASE64": _SECRET_WORD,
    **dict.fromkeys((*_PROFILES, "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), _TEXT),
    **dict.fromkeys(("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), _TEXT),
    **dict.fromkeys(("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_SSE_KMS_KEY_ID"), _PLAIN),
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": (_matches(_URI, "is no path of an address"), "/path", False),
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": (_full_uri, "http://host:port/path", False),
    "AWS_CHECKSUM_ALGORITHM": (_one_of("sha256", "crc64nvme"), "sha256, crc64nvme", False),
    "AWS_SERVER_SIDE_ENCRYPTION": (lambda text: "" if text in _SSE else "is not one of them", ", ".join(_SSE), False),
    **dict.fromkeys((*_FLAGS, "AWS_EC2_METADATA_DISABLED"), _FLAG),
}


def _check_endpoint(place: str, text: str) -> None:
    """Errors: ConfigError unless ``text`` is an address that the client takes."""
    problem, hint = _endpoint_problem(text)
    if problem:
        raise ConfigError(f"'{shown(text)}' {problem}", place=place, allowed=_ENDPOINT_ALLOWED, hint=hint)


def _endpoint_problem(text: str) -> tuple[str, str]:
    """Return what is wrong with an endpoint, and what may have been meant; nothing twice where it is right."""
    parts = _split(text)
    correct = "correct the variable, or unset it for AWS itself"
    if "@" in text:
        return "holds credentials", "they belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if not text.lower().startswith(("http://", "https://")):
        meant = f"http://{text}"
        is_meant = "/" not in text and _endpoint_problem(meant) == ("", "")
        return "has no http:// or https://", f"is {shown(meant)} meant?" if is_meant else correct
    if parts is None or not _is_host(parts):
        seen = re.fullmatch(r"(?i)https?://([^/:\[]+|\[[^/\]]+\]):[^/]*/?", text)
        is_port = seen is not None and _HOST.fullmatch(seen[1]) is not None
        return ("has no port from 1 to 65535" if is_port else "names no host"), correct
    if parts.path.strip("/") or "?" in text or "#" in text:
        return "has a path", f"bucket and prefix belong in the URL of the store: s3://bucket/prefix; {correct}"
    if text.rstrip("/") != f"{text.partition('://')[0]}://{parts.netloc}":
        return "names no host", correct
    try:
        # The parser of the client, where it may refuse: later it would panic, on 999.1.1.1 for one.
        HTTPStore.from_url(text)
    except (BaseError, ValueError):
        return "names no host", correct
    return "", ""


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


def _is_host(parts: SplitResult) -> bool:
    host, colon, port = parts.netloc.rpartition(":")
    if parts.netloc.endswith("]") or not colon:
        host, port = parts.netloc, "1"
    return bool(_HOST.fullmatch(host)) and len(host) <= 253 and port.isascii() and port.isdigit()


def _refuse_bucket_in(endpoint: str, place: str, bucket: str) -> None:
    """A bucket in the host as well as in the URL is asked for twice: every key is then missing."""
    host = endpoint.partition("://")[2]
    if host.startswith(f"{bucket}.") and "amazonaws.com" in host:
        raise ConfigError(
            f"'{shown(endpoint)}' begins with the bucket",
            place=place,
            allowed=_ENDPOINT_ALLOWED,
            hint=f"leave {bucket}. out of it: the URL of the store names the bucket",
        )
