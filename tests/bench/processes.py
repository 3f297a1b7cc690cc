"""What a new process costs: the help, the first result, kernels that are compiled and kernels that are loaded."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from farm.kernels.cache import MANIFEST, SETTING
from farm.values.settings import FarmSettings
from tests.bench.engine import stop_spec
from tests.bench.harness import Row, family_bytes, repeat, seconds_of

COMPILE = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from farm.kernels.startup import load_kernels
load_kernels()
"""
# The clock starts when numba is there: to load it is in the row of a fresh process.
LOAD = """
import sys, time
from farm.kernels.startup import start_numba
start_numba()
from farm.kernels.compile import import_kernels
kernels = import_kernels().values()
start = time.perf_counter()
for kernel in kernels:
    kernel.load()
seconds = time.perf_counter() - start
from tests.bench.harness import peak_bytes
print(seconds, sum(len(kernel.declared) for kernel in kernels), peak_bytes())
"""


def kernels(settings: FarmSettings, repeats: int) -> list[Row]:
    """All kernels compiled into an empty directory by two cores; and loaded from it by another process."""
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        # The user's own cache is looked at too, and has them.
        environment = {**os.environ, SETTING: folder, "XDG_CACHE_HOME": str(Path(folder) / ".home")}
        start = time.perf_counter()
        peak = 0
        with subprocess.Popen([sys.executable, "-c", COMPILE], env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                peak = max(peak, family_bytes(process.pid))
                time.sleep(0.1)
        compiled = time.perf_counter() - start
        assert process.returncode == 0, "the kernels could not be compiled"
        (directory,) = (path for path in Path(folder).iterdir() if (path / MANIFEST).is_file())
        on_disk = sum(path.stat().st_size for path in directory.iterdir())
        found: list[str] = []

        def load() -> float:
            done = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, check=True)
            seconds, *found[:] = done.stdout.decode().split()
            return float(seconds)

        loaded = repeat(load, repeats)
    parts = {"signatures": found[0], "on disk": f"{on_disk / 1e6:.1f} MB"}
    return [
        Row("kernels compiled ahead, 2 cores", "s", 60, False, [compiled], parts, peak_bytes=peak),
        Row("kernels loaded", "s", 0.3, False, loaded, peak_bytes=int(found[1])),
    ]


def fresh_process(settings: FarmSettings, repeats: int) -> Row:
    """A new process with compiled kernels on disk, from its start to the printed document of one trial."""
    with TemporaryDirectory(prefix="farm-bench-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(stop_spec()))
        command = [sys.executable, "-m", "cluster.cli", "run", str(spec), "--fresh", "--json"]
        environment = {**os.environ, "FARM_STORE": settings.store.url}
        parts: dict[str, list[float]] = {}
        peaks: list[int] = []

        def measure() -> float:
            start = time.perf_counter()
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                assert process.stdout is not None
                line = process.stdout.readline()
                printed = time.perf_counter() - start
                peaks.append(family_bytes(process.pid))
                document = json.loads(line)
            ended = time.perf_counter() - start
            inside = document["farm"]["seconds"]
            imports = printed - sum(inside.values())
            for name, spent in {"interpreter and imports": imports, **inside, "exit": ended - printed}.items():
                parts.setdefault(name, []).append(spent)
            return printed

        values = repeat(measure, repeats)
    shown = {name: f"{statistics.median(all_):.2f} s" for name, all_ in parts.items()}
    return Row("fresh process, first result", "s", 0.9, False, values, shown, peak_bytes=max(peaks))


def help_time(settings: FarmSettings, repeats: int) -> Row:
    """``farm --help``."""
    command = [sys.executable, "-m", "cluster.cli", "--help"]
    run = lambda: seconds_of(lambda: subprocess.run(command, capture_output=True, check=True, timeout=60))  # noqa: E731
    return Row("farm --help", "s", 0.03, False, repeat(run, repeats), peak_bytes=0)
