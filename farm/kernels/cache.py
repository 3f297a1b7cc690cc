"""Compiled kernels on disk: one directory for each state of the sources, complete or not there.

    PLACE/DIGEST/                  manifest.json, and a file for each signature of each kernel
    PLACE/.DIGEST.PID.RANDOM/      the same while it is filled

``DIGEST`` names everything that the code depends on: the bytes of every source of this room, numba, llvmlite, numpy,
Python, the CPU that numba compiles for, and its switches. So nothing in a directory can be out of date, kernels may
call across files, and times of files do not matter.

1. A process reads the directory of its digest, whole, at its first kernel, and checks it against the manifest. After
   that it needs the directory no more: whoever deletes one disturbs nobody.
2. Where there is none, it is filled under a private name and renamed. A process that is killed leaves a private
   directory, which the next one removes a day later; of two that compile at once the second waits for the first, and
   if it must not wait, one of the two renames is refused and that process takes what is there.
3. What is damaged is moved away and compiled anew. A place that cannot be written is only read.

Places: FARM_KERNEL_CACHE, if it is set, then the user's cache. This is the one setting that is read below the edge,
like those of numba itself: it belongs to the process, and a kernel may be what a process calls first.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from farm.values.errors import ConfigError

ROOM = Path(__file__).parent
SETTING = "FARM_KERNEL_CACHE"
MANIFEST = "manifest.json"
DIRECTORIES_MAX = 32
"""The newest so many stay, a few MB each; those of other sources and CPUs are among them."""
PRIVATE_S_MAX = 24 * 3600.0
WAIT_S_MAX = 600.0

_SWITCHES = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_JIT")
_PUBLISHED = re.compile(r"[0-9a-f]{32}")
_PRIVATE = re.compile(r"\.[0-9a-f]{32}\.\d+\.[0-9a-f]{8}")

_code: dict[str, bytes] | None = None
_is_compiler = False


class Damaged(Exception):
    """A file of a directory is not what the manifest says; the argument is its path."""


def take(name: str) -> bytes | None:
    """Return the code of a signature; None in a process that is there to compile it. Errors: ConfigError."""
    return None if _is_compiler else prepare()[name]


def prepare() -> dict[str, bytes]:
    """Return the code of every signature; compiled first, if this is the first process that wants it.

    Errors: ConfigError if there is none and no place to make it.
    """
    global _code
    with global_compiler_lock:
        if _code is None:
            _code = provide(os.environ)
        return _code


def compile_here() -> None:
    """Let this process compile what it calls, and read nothing."""
    global _is_compiler
    _is_compiler = True


def sources_digest() -> str:
    """Return the digest of every source of the room, by path and bytes."""
    found = blake2b(digest_size=16)
    for name, path in sorted((path.relative_to(ROOM).as_posix(), path) for path in ROOM.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


_SOURCES = sources_digest()  # now: a change from here on is not in the modules that this process runs


def target() -> dict[str, str]:
    """Return what the compiled code depends on besides the sources. The CPU is the one numba compiles for."""
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return {
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "numpy": np.__version__,
        "python": EXTENSION_SUFFIXES[0] + "O" * sys.flags.optimize,
        "cpu": cpu,
        "features": features,
        "triple": triple,
        "switches": " ".join(f"{name}={getattr(numba.config, name)}" for name in _SWITCHES),
    }


def digest() -> str:
    """Return the name of the directory that belongs to this process."""
    return blake2b(json.dumps([_SOURCES, target()]).encode(), digest_size=16).hexdigest()


def places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where directories may be, best first."""
    found = []
    if named := environ.get(SETTING):
        found.append(Path(named).absolute())
    with suppress(RuntimeError):  # a user without a home
        base = environ.get("XDG_CACHE_HOME")
        root = Path(base) if base else Path(environ.get("HOME") or Path.home()) / ".cache"
        found.append(root / "backtest-farm" / "kernels")
    return tuple(found)


def provide(environ: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of the directory of this process, read or made. Errors: ConfigError."""
    name = digest()
    roots = places(environ)
    refused = []
    for root in roots:
        try:
            return read(root / name)
        except FileNotFoundError:
            pass
        except Damaged as error:
            _say(f"{error} is damaged")
            refused.append(f"{error} is damaged")
    for root in roots:
        try:
            return _build(root, name)
        except OSError as error:
            refused.append(f"{root}: {error.strerror}")
    raise ConfigError(
        f"there are no compiled kernels for this version and this CPU ({target()['cpu']}), and no place to write them: "
        + "; ".join(refused or ["this user has no home"]),
        place=str(roots[0] / name) if roots else SETTING,
        hint=f"set {SETTING} to a directory that can be written, or fill it with: python -m farm.kernels.startup",
    )


def read(directory: Path) -> dict[str, bytes]:
    """Return the files of a complete directory. Errors: FileNotFoundError without one, Damaged."""
    if not directory.is_dir():
        raise FileNotFoundError(directory)
    path = directory / MANIFEST
    try:
        found = {}
        for name, expected in json.loads(path.read_bytes())["files"].items():
            path = directory / name
            found[name] = path.read_bytes()
            if blake2b(found[name], digest_size=16).hexdigest() != expected:
                raise Damaged(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged(path) from error
    return found


def _build(root: Path, name: str) -> dict[str, bytes]:
    """Fill a directory and publish it, unless another process just did. Errors: OSError if ``root`` refuses."""
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        with suppress(FileNotFoundError, Damaged):
            return read(root / name)
        if (root / name).exists():
            _move_away(root / name)
        private = _private(root, name)
        private.mkdir()
        try:
            _say(f"compiling them into {root}, once for this version and this CPU: about half a minute")
            _fill(private, name)
            seal(private)
            publish(private, root / name)
        finally:
            shutil.rmtree(private, ignore_errors=True)
        _prune(root)
    return read(root / name)


def _fill(private: Path, name: str) -> None:
    # A process of its own: it has to import every kernel, and this one may be in the middle of importing one.
    process = spawn([str(private), name])
    try:
        if process.wait():
            raise ConfigError("the kernels could not be compiled", place=str(private), hint="the reason is above")
    finally:
        end(process)


def spawn(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start ``farm.kernels.compile`` with these arguments. It ends when this process does: the pipe tells."""
    path = os.pathsep.join([str(ROOM.parent.parent), *filter(None, sys.path)])
    # -P: the current directory may hold another farm.
    command = [sys.executable, "-P", *["-O"] * sys.flags.optimize, "-m", "farm.kernels.compile", *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for us alone; the others end with us
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that ``spawn`` started, if it has not ended."""
    process.kill()
    process.communicate()


def seal(private: Path) -> None:
    """Write the manifest: the directory is complete."""
    files = {path.name: blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in sorted(private.iterdir())}
    (private / MANIFEST).write_text(json.dumps({"target": target(), "files": files}, indent=1))


def publish(private: Path, directory: Path) -> None:
    """Give a complete directory its name; where another process was faster, its own stays."""
    try:
        private.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait while another process compiles, within reason: to compile twice is slow, and harms nothing."""
    with (root / ".lock").open("a") as file:
        until = time.monotonic() + WAIT_S_MAX
        is_first = True
        while time.monotonic() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if is_first:
                    _say("another process compiles, waiting for it")
                is_first = False
                time.sleep(0.1)
            except OSError:
                break  # a file system without locks
        yield


def _move_away(directory: Path) -> None:
    aside = _private(directory.parent, directory.name)
    with suppress(FileNotFoundError):
        directory.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _prune(root: Path) -> None:
    """Delete what nobody will miss. No process holds on to a directory, and one that reads it just now tries again."""
    with suppress(OSError):
        aged = sorted(((path.stat().st_mtime, path) for path in root.iterdir()), reverse=True)
        published = [path for _, path in aged if _PUBLISHED.fullmatch(path.name)]
        for path in published[DIRECTORIES_MAX:]:
            _move_away(path)
        for changed, path in aged:
            if _PRIVATE.fullmatch(path.name) and changed < time.time() - PRIVATE_S_MAX:
                shutil.rmtree(path, ignore_errors=True)


def _private(root: Path, name: str) -> Path:
    return root / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"


def _say(line: str) -> None:
    sys.stderr.write(f"kernels: {line}\n")
    sys.stderr.flush()
