"""Fills a directory of the kernel cache: processes of its own compile the kernels, each a share of them.

``python -m farm.kernels.compile DIRECTORY DIGEST`` shares them out: for each share it starts the same with the names
of kernels behind it. Each ends by itself when the one that started it does, however that ends.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

from farm.kernels import cache, jit
from farm.values.errors import ConfigError

PROCESSES_MAX = 4
"""One of them needs 200 MB; the largest kernel takes as long as all others together, so that more would not help."""


def import_kernels() -> dict[str, jit.Kernel]:
    """Import every module of the room (not those of folders in it); return the kernels."""
    for module in iter_modules([str(cache.ROOM)]):
        if not module.ispkg:
            import_module(f"{__package__}.{module.name}")
    return {name: kernel for name, kernel in jit.KERNELS.items() if kernel.is_stored}


def fill(private: Path, digest: str) -> None:
    """Compile every kernel into ``private``, a share in each process. Errors: ConfigError if one does not succeed."""
    weights = {name: weight(kernel) for name, kernel in import_kernels().items()}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for share in shares(weights, min(PROCESSES_MAX, len(os.sched_getaffinity(0)))):
            running.append(cache.spawn([str(private), digest, *share]))
        if any(process.wait() for process in running):
            raise ConfigError("the kernels could not be compiled", place=str(private), hint="the reason is above")
    finally:
        for process in running:
            cache.end(process)


def shares(weights: Mapping[str, int], count: int) -> list[list[str]]:
    """Return the names in ``count`` shares of about the same weight, or fewer: the heaviest first to the lightest."""
    found: list[tuple[int, list[str]]] = [(0, []) for _ in range(count)]
    for name in sorted(weights, key=lambda name: (-weights[name], name)):
        total, share = min(found, key=lambda one: one[0])
        found.remove((total, share))
        found.append((total + weights[name], [*share, name]))
    return [share for _, share in found if share]


def weight(kernel: jit.Kernel) -> int:
    """Return about how long a kernel takes to compile: the bytecode that it reaches."""
    reached = {kernel}
    waiting = [kernel]
    while waiting:
        for callee in _called(waiting.pop().py_func):
            if callee not in reached:
                reached.add(callee)
                waiting.append(callee)
    return len(kernel.declared) * sum(len(function.py_func.__code__.co_code) for function in reached)


def _called(function: Any) -> Iterator[Any]:
    names = function.__code__.co_names
    for value in (function.__globals__.get(name) for name in names):
        for found in [getattr(value, name, None) for name in names] if isinstance(value, ModuleType) else [value]:
            if isinstance(found, CPUDispatcher):
                yield found


def compile_share(private: Path, digest: str, names: list[str]) -> None:
    """Compile the named kernels and write a file for each signature. Errors: ConfigError if this is another farm."""
    cache.compile_here()
    # Python's own cache goes by the times of files, which lie when a file changes twice in a second: read the sources.
    prefix, sys.pycache_prefix, sys.dont_write_bytecode = sys.pycache_prefix, str(private), True
    kernels = import_kernels()
    sys.pycache_prefix = prefix
    if cache.digest() != digest:
        hint = "let the sources be, and begin again"
        raise ConfigError("the sources have changed while they were compiled", place=str(cache.ROOM), hint=hint)
    for name in names:
        for file, code in kernels[name].compiled():
            (private / file).write_bytes(dumps(code))  # type: ignore[no-untyped-call]


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: a thread that waits there is in the way when Python ends
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if len(sys.argv) > 3:
            compile_share(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
        else:
            fill(Path(sys.argv[1]), sys.argv[2])
    except (ConfigError, OSError) as problem:
        sys.exit(f"error: {problem}")
