"""Whatever is in a URL of a store, in FARM_* and in AWS_*: an open store, or one error that names the place.

Seeded mutations of every variable and every kind of URL, each opened and asked once. Nothing leaves this machine: the
client is given a proxy that nobody listens on.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from farm.store import aws
from farm.store.open import open_store
from farm.values import settings
from farm.values.errors import FarmError
from farm.values.settings import StoreSettings, from_environment
from tests.cli.support import Console, refused

SEED = 20261125
PASSWORD = "hunter2-hunter2"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
ENDPOINT = "http://127.0.0.1:9000"
MUTATIONS, SAMPLE = 7, 20

HOSTILE = (
    "", " ", "\t", "  x", "x ", "'", '"', f'"{ENDPOINT}"', f"'{ENDPOINT}", "\x01", "\x7f", "a\nb", "\n", "\r\n", "é",
    "名前", "\u202e", "\udc80", "9" * 400, "9" * 5000, "-1", "0", "nan", "inf", "-inf", "1e400", "1_0", "true", "maybe",
    "None", "/etc/passwd", "~nobody/x", ".", "/", "//", "%", "%00", "%zz", "a b", "a,b", "{}", "{0}", "%s", "$HOME",
    f"user:{PASSWORD}@", f"user:{PASSWORD}@127.0.0.1:9000", f"http://user:{PASSWORD}@127.0.0.1:9000",
    f"https://user:{PASSWORD}@h/p@q", f"s3://user:{PASSWORD}@bucket/p", f"file://user:{PASSWORD}@h/p",
    f"memory:user:{PASSWORD}@", f"s3://bucket/user:{PASSWORD}@", f"ftp://user:{PASSWORD}@h\n", "[::1]", "http://[::1]:9000",
    "http://[::1", "http://[zz]:1", "http://[fe80::1%25eth0]:1", "::1", "127.0.0.1:9000", "localhost", ":0", ":9000",
    "http://", "http:", "http:/127.0.0.1", "HTTP://127.0.0.1:9000", "https://127.0.0.1:9000", "ftp://127.0.0.1",
    f"{ENDPOINT}/", f"{ENDPOINT}//", f"{ENDPOINT}/bucket", f"{ENDPOINT}?a=b", f"{ENDPOINT}#f", "http://127.0.0.1:0",
    "http://127.0.0.1:70000", "http://127.0.0.1:abc", "http://127.0.0.1:-1", "http://127.0.0.1:", "http://127.0.0.1:9000:1",
    "http://127.0.0.1:９０００", "http://999.1.1.1", "http://1.2.3.4.5", "http://xn--zz--", "http://exa%mple",
    "http://ex ample", "http://a..b", "http://bücket.example", "http://\u202e", "http://\x02", "s3://", "s3://[::1",
    "s3:bucket", "s3://bucket?x", "s3://BUCKET", "s3://bucket/../x", "memory:", "memory:a/b", "file:x", "file://h/x",
    "file:///%00", "file:///%0a", "file://[", "x" * 5000, "a/" * 3000,
)  # fmt: skip
CHARACTERS = "\x01\n\r\t \"'@:/\\%?#[]{}é名\udc80-.0~" + "\u2028"

FARM = {
    "FARM_STORE": "s3://bucket/farm",
    "FARM_DATASET": "main",
    "FARM_THREADS": "2",
    "FARM_CACHE_BYTES": "2GiB",
    "FARM_SERIES_BYTES": "1GiB",
    "FARM_MARKET_BYTES": "1GiB",
    "FARM_IN_FLIGHT": "16",
    "FARM_REQUEST_TIMEOUT_S": "30",
    "FARM_WATCHDOG_S": "120",
}
KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
USUAL = {"AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": "us-east-1", **KEYS}
URLS = ("s3://bucket/farm", "memory:farm", "file:///tmp/no-such-folder/farm", "no-such-folder/farm", "~/no-such-folder")
# Without keys of our own the client would ask these for some, past any proxy: they are opened, and not asked.
ASK_OTHERS = ("AWS_WEB_IDENTITY", "AWS_CONTAINER", "AWS_METADATA", "AWS_ROLE", "AWS_ENDPOINT_URL_STS")


def mutated(base: str, rng: random.Random) -> str:
    """Return ``base`` with one to three small things wrong."""
    text = base
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        match rng.randrange(5):
            case 0:
                text = text[:at] + rng.choice(CHARACTERS) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 3) :]
            case 2:
                text = text[:at] + rng.choice(HOSTILE)[:40] + text[at:]
            case 3:
                text = text[:at] + text
            case _:
                text = rng.choice("'\" \t") + text + rng.choice("'\" \n")
    return text


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a name and an environment, one variable of which is not what it should be."""
    rng = random.Random(SEED)
    assert {name.removeprefix("FARM_") for name in FARM} == set(settings._VARIABLES)
    profile = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_PROFILE": "work"}
    for name in sorted({*FARM, *aws._CHECKS}):
        base = {**FARM, **USUAL, "AWS_EC2_METADATA_DISABLED": "true"}
        if name in profile or name == "AWS_DEFAULT_PROFILE":
            base = {n: value for n, value in base.items() if n not in KEYS} | profile
            if name == "AWS_DEFAULT_PROFILE":
                del base["AWS_PROFILE"]
        elif name.startswith(ASK_OTHERS):
            base = {n: value for n, value in base.items() if n not in KEYS}
        usual = base.get(name, "true" if name in aws._FLAGS else ENDPOINT if "ENDPOINT" in name else "value")
        for value in (*rng.sample(HOSTILE, SAMPLE), *(mutated(usual, rng) for _ in range(MUTATIONS))):
            yield name, {**base, name: value}
    for usual in URLS:
        for _ in range(MUTATIONS):
            yield "FARM_STORE", {**FARM, **USUAL, "FARM_STORE": mutated(usual, rng)}


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a profile, and no way out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-1\n")
    (tmp_path / "credentials").write_text(f"[work]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelt in (name, name.lower()):
                monkeypatch.setenv(spelt, f"http://127.0.0.1:{taken.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        yield


def attempt(url: str | None, is_to_ask: bool) -> FarmError | None:
    """Open the store of the environment, ask it once if it is a bucket; return the error of that."""
    try:
        limits = from_environment().store
        brief = ("watchdog_s", "request_timeout_s", "connect_timeout_s", "backoff_s", "backoff_s_max")
        limits = replace(limits, **dict.fromkeys(brief, 0.1))
        store = open_store(limits.url if url is None else url, limits)
        if is_to_ask and store.url.startswith("s3:"):
            store.head("no/such/key")
    except FarmError as error:
        return error
    return None


def faults(error: FarmError | None, values: Mapping[str, str]) -> list[str]:
    """Return what is wrong with an error: what it lacks, and what it shows."""
    if error is None:
        return []
    text = str(error)
    found = [] if error.place and error.message else ["no place"]
    found += [] if error.hint or error.allowed else ["no way out"]
    found += [] if text.isprintable() else ["not on one line"]
    found += [] if len(text) < 1500 else ["endless"]
    secrets = [values[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *aws._TOKENS) if name in values]
    hidden = [PASSWORD, *(secret for secret in (*secrets, SECRET, KEY_ID) if len(secret) >= 12)]
    return found + [f"shows {secret[:9]!r}" for secret in hidden if secret in text]


@pytest.mark.slow
def test_any_setting(sealed: None, capfd: pytest.CaptureFixture[str]) -> None:
    """Never another exception, a panic of the client included; never without a place and a way out, never a secret."""
    usual = dict(os.environ)
    bad: list[str] = []
    tried = refusals = 0
    for name, values in environments():
        tried += 1
        os.environ.update({n: value for n, value in values.items() if value or n in aws._CHECKS})
        try:
            error = attempt(None, not name.startswith(ASK_OTHERS))
            refusals += error is not None
            bad += [f"{name}={values[name][:60]!r}: {fault}: {error}" for fault in faults(error, values)]
        except BaseException as error:  # noqa: BLE001 (that there is none is the claim)
            bad.append(f"{name}={values[name][:60]!r}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            for extra in set(os.environ) - set(usual):
                del os.environ[extra]
            os.environ.update(usual)
    said = capfd.readouterr()
    assert not bad, f"{len(bad)} of {tried}:\n" + "\n".join(bad[:40])
    assert "panicked" not in said.err
    assert tried >= 1000
    assert 500 < refusals < tried


@pytest.mark.parametrize("url", ["a\0b", "s3://bu\0cket/x", "memory:\0", "file:///a\0b", "\0", *HOSTILE])
def test_any_url(sealed: None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument of ours it may hold even what no variable can."""
    for name, value in USUAL.items():
        monkeypatch.setenv(name, value)
    assert faults(attempt(url, True), USUAL) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:19077", "is http://127.0.0.1:19077 meant?"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:70000", "'http://127.0.0.1:70000' has no port from 1 to 65535"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/bucket", "s3://bucket/prefix"),
        ("AWS_ENDPOINT_URL", '"http://127.0.0.1:9000"', "has quotes around it"),
        ("AWS_ENDPOINT_URL", f"http://me:{PASSWORD}@127.0.0.1:9000", "'http://<credentials>@127.0.0.1:9000'"),
        ("AWS_SESSION_TOKEN", "a\nb", "the value holds a control character"),
        ("AWS_REGION", "us east 1", "such as us-east-1"),
        ("AWS_SECRET_ACCESS_KEY", "", "not set, although AWS_ACCESS_KEY_ID is"),
    ],
)
def test_what_the_command_says(name: str, value: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One error that begins with the variable, and nothing of the client beside it."""
    farm = Console("s3://bucket/farm", {**USUAL, name: value})
    text = refused(farm("status"), 5, said)
    assert text.startswith(f"error: {name}: ")
    assert PASSWORD not in text
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_the_process_says_no_more(sealed: None) -> None:
    """What the client writes on its own goes past Python: so once as a process."""
    farm = Console("s3://bucket/farm", {**USUAL, "AWS_ENDPOINT_URL": "127.0.0.1:19077"})
    done = farm.process("status", "--json")
    assert (done.code, done.error["place"]) == (5, "AWS_ENDPOINT_URL")


def test_no_limit_is_beyond_time() -> None:
    for value in (float("nan"), float("inf"), 1e9, 0.0):
        with pytest.raises(FarmError, match="watchdog_s must be above 0 and at most 86400"):
            StoreSettings(watchdog_s=value)
