"""The kernel cache: never out of date, never half written, read-only where it must be.

Most tests run real processes on a small room of their own, a copy of the machinery with two kernels that call across
files, so that compiling takes a second.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.kernels import cache, jit, transcend
from farm.kernels.compile import shares, weight
from farm.kernels.transcend import log
from farm.values.errors import ConfigError, FarmError
from tests.conftest import ROOT

MACHINERY = ("__init__.py", "kernels/__init__.py", "kernels/cache.py", "kernels/compile.py", "kernels/jit.py",
             "kernels/startup.py", "values/__init__.py", "values/arrays.py", "values/errors.py")  # fmt: skip
LEAF = """
from farm.kernels.jit import helper, inlined, kernel
from numba import float64

@inlined
def sign(x):
    return -1.0 if x < 0.0 else 1.0

@helper
def worth(row):
    return sign(row.price) * row.price * row.lots

@kernel(float64(float64))
def twice(x):
    return 2.0 * x
"""
TINY = """
import numpy as np
from numba import float64, from_dtype, int64, types

from farm.kernels import leaf
from farm.kernels.jit import kernel

ROW = np.dtype([("price", np.float64), ("lots", np.int64)], align=True)
ROWS = types.Array(from_dtype(ROW), 1, "C", readonly=True)

@kernel(float64(ROWS))
def total(rows):
    out = 0.0
    for row in rows:
        out += leaf.worth(row)
    return leaf.twice(out)

@kernel(float64(float64, float64), int64(int64, int64))
def add(x, y):
    return x + y
"""
USE = """
from farm.kernels.startup import start_numba
start_numba()
import numpy as np
from farm.kernels.tiny import ROW, add, total
rows = np.zeros(3, ROW)
rows["price"], rows["lots"] = (1.5, -2.0, 4.0), (2, 3, 0)
first = total(rows)
rows.flags.writeable = False
assert first == total(rows)
print(first, add(1, 2), add(0.5, 1))
"""
ANSWER = "18.0 3 1.5"
"""Twice (1.5 x 2 + 2 x 3), from records that may be written and from records that may not."""

# Refuses every write below a folder, as a read-only mount would; root may write where the mode bits say no.
READ_ONLY = """
import os, sys
def refuse(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    else:
        path, writes = (arguments or ("",))[0], event in {
            "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime", "os.chmod", "os.truncate", "shutil.rmtree"}
    if writes and isinstance(path, (str, bytes, os.PathLike)) and os.fspath(os.fsdecode(path)).startswith(sys.argv[1]):
        raise OSError(30, "Read-only file system", path)
sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a farm that has the machinery and two files of kernels, and with the place that it has filled."""
    folder = tmp_path_factory.mktemp("original")
    for name in MACHINERY:
        to = folder / "one/farm" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "farm" / name, to)
    (folder / "one/farm/kernels/leaf.py").write_text(LEAF)
    (folder / "one/farm/kernels/tiny.py").write_text(TINY)
    out, said = use(folder / "one", folder / "kernel-cache")
    assert out == ANSWER
    where = folder / "kernel-cache"
    assert said == f"kernels: compiling them into {where}, once for this version and this CPU: about half a minute\n"
    return folder


@pytest.fixture
def room(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original / "one", tmp_path / "one", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A place that holds nothing yet."""
    return tmp_path / "kernel-cache"


@pytest.fixture
def filled(original: Path, place: Path) -> Path:
    """The same place, with the directory of the room as it is."""
    return shutil.copytree(original / "kernel-cache", place)


def environment(room: Path, place: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHON"))}
    home = {"HOME": str(place.parent / "home"), "XDG_CACHE_HOME": str(place.parent / "home" / "cache")}
    return {**kept, **home, "PYTHONPATH": str(room), "FARM_KERNEL_CACHE": str(place), **more}


def start(room: Path, place: Path, code: str = USE, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(place.parent)],
        env=environment(room, place, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def use(room: Path, place: Path, code: str = USE, **more: str) -> tuple[str, str]:
    """Run a process that uses the kernels; return what it printed and what it said."""
    with start(room, place, code, **more) as process:
        out, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    return out.strip(), said


def directories(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.name != ".lock")


def state(place: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in place.rglob("*"))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
class TestRoom:
    def test_compiled_once_and_only_read_after_that(self, room: Path, filled: Path) -> None:
        """Elsewhere, with other times, and without a right to write: the next process says nothing."""
        (directory,) = directories(filled)
        assert sorted(path.name for path in directory.iterdir()) == [
            "farm.kernels.leaf.twice.0", "farm.kernels.tiny.add.0", "farm.kernels.tiny.add.1",
            "farm.kernels.tiny.total.0", "manifest.json",
        ]  # fmt: skip
        for path in (*room.rglob("*.py"), *directory.iterdir()):
            os.utime(path, (1e9, 1e9))
        before = state(filled)
        assert use(room, filled, READ_ONLY + USE) == (ANSWER, "")
        assert state(filled) == before

    def test_a_change_in_another_file_is_seen(self, room: Path, filled: Path) -> None:
        """``total`` has not changed, what it calls has, a helper and a kernel; size and time of the file have not."""
        assert use(room, filled) == (ANSWER, "")  # and Python has its own cache of the file
        path = room / "farm/kernels/leaf.py"
        times = path.stat()
        path.write_text(LEAF.replace("2.0 * x", "4.0 * x").replace("-1.0 if", "-3.0 if"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        out, said = use(room, filled)
        assert out == "84.0 3 1.5" and "compiling" in said
        assert len(directories(filled)) == 2

    def test_another_cpu_has_a_directory_of_its_own(self, room: Path, filled: Path) -> None:
        generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
        out, said = use(room, filled, **generic)
        assert out == ANSWER and "compiling" in said
        assert len(directories(filled)) == 2
        assert use(room, filled, READ_ONLY + USE, **generic) == (ANSWER, "")

    def test_a_call_with_other_types_compiles_nothing(self, room: Path, filled: Path) -> None:
        code = """
import numpy as np
from farm.kernels.leaf import twice
from farm.kernels.tiny import total
assert twice(3) == 6.0
for function, argument in ((total, np.zeros(3)), (twice, "x")):
    try:
        function(argument)
    except TypeError as error:
        print(str(error)[:22])
assert len(total.overloads) == len(twice.overloads) == 1
"""
        assert use(room, filled, code)[0].splitlines() == ["No matching definition"] * 2

    def test_imports_compile_and_read_nothing(self, room: Path, place: Path) -> None:
        assert use(room, place, "import farm.kernels.tiny, farm.kernels.leaf") == ("", "")
        assert not place.exists()

    def test_a_kernel_that_does_not_compile(self, room: Path, place: Path) -> None:
        """The compiler says why, the process has an error with a name, and nothing stays behind."""
        (room / "farm/kernels/leaf.py").write_text(LEAF.replace("2.0 * x", "2.0 * x.nothing"))
        code = "from farm.kernels import startup; startup.load_kernels()"
        with start(room, place, code) as process:
            said = process.communicate(timeout=100)[1]
        assert "Unknown attribute 'nothing'" in said
        assert "farm.values.errors.ConfigError" in said.splitlines()[-1]
        assert directories(place) == []


@pytest.mark.slow
class TestReadOnlyPlace:
    def test_what_is_not_there_is_compiled_elsewhere(self, room: Path, place: Path) -> None:
        """The named place refuses, the user's own cache does not."""
        home = room.parent / "home/cache/backtest-farm/kernels"
        code = READ_ONLY.replace("sys.argv[1]", "sys.argv[1] + '/kernel-cache'") + USE
        out, said = use(room, place, code)
        assert out == ANSWER and f"compiling them into {home}" in said
        assert use(room, place, READ_ONLY + USE) == (ANSWER, "")

    def test_refused_by_name_where_nothing_can_be_written(self, room: Path, filled: Path) -> None:
        """Another CPU than the one that the place was filled for, and no place to write."""
        before = state(filled)
        code = (
            READ_ONLY
            + """
from farm.values.errors import ConfigError
try:
    import farm.kernels.tiny
    farm.kernels.tiny.add(1, 2)
except ConfigError as error:
    print(error)
"""
        )
        out, _ = use(room, filled, code, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
        home = f"{room.parent}/home/cache/backtest-farm/kernels"
        assert re.fullmatch(
            rf"{filled}/[0-9a-f]{{32}}: there are no compiled kernels for this version and this CPU \(generic\), "
            rf"and no place to write them: {filled}: Read-only file system; {home}: Read-only file system; "
            r"hint: set FARM_KERNEL_CACHE to .*", out,
        )  # fmt: skip
        assert state(filled) == before

    def test_a_damaged_file_is_named(self, room: Path, filled: Path) -> None:
        path = directories(filled)[0] / "farm.kernels.tiny.add.1"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        with start(room, filled, READ_ONLY + USE) as process:
            said = process.communicate(timeout=100)[1]
        assert "ConfigError" in said and f"{path} is damaged" in said.splitlines()[-1]


@pytest.mark.slow
class TestDamage:
    @pytest.mark.parametrize("how", ["byte", "missing", "manifest"])
    def test_compiled_anew(self, room: Path, filled: Path, how: str) -> None:
        (directory,) = directories(filled)
        path = directory / ("manifest.json" if how == "manifest" else "farm.kernels.leaf.twice.0")
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-9] + b"?" * 9)
        out, said = use(room, filled)
        assert out == ANSWER
        assert said.splitlines()[0] == f"kernels: {path} is damaged"
        assert directories(filled) == [directory]
        assert use(room, filled, READ_ONLY + USE) == (ANSWER, "")

    def test_killed_while_compiling(self, room: Path, place: Path) -> None:
        """Whoever is killed leaves no directory and no process, and the next one begins again."""
        slow = (
            "\nimport os, sys, time\nif 'SLOW' in os.environ and sys.argv[0].endswith('compile.py'): time.sleep(90)\n"
        )
        (room / "farm/kernels/leaf.py").write_text(LEAF + slow)
        with start(room, place, SLOW="yes") as process:
            until = time.monotonic() + 60
            while not (place.exists() and directories(place) and children(process.pid)):
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.01)
            compilers = children(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            until = time.monotonic() + 30
            while any(map(is_alive, compilers)):
                assert time.monotonic() < until
                time.sleep(0.05)
        (private,) = directories(place)
        assert private.name.startswith(".")
        os.utime(private, (1e9, 1e9))  # in a day or more
        assert use(room, place)[0] == ANSWER
        (directory,) = directories(place)
        assert not directory.name.startswith(".")
        assert use(room, place, READ_ONLY + USE) == (ANSWER, "")

    @pytest.mark.parametrize("locks", [True, False])
    def test_two_at_once(self, room: Path, place: Path, locks: bool) -> None:
        """With locks the second waits for the first; on a file system without them both compile, and one is first."""
        refuse = "import fcntl\ndef refuse(*_): raise OSError(95, 'no locks')\nfcntl.flock = refuse\n"
        together = """
import os, sys, time
import farm.kernels.tiny
from pathlib import Path
Path(sys.argv[1], f"ready-{os.getpid()}").touch()
while len(list(Path(sys.argv[1]).glob("ready-*"))) < 2:
    time.sleep(0.01)
"""
        code = together + USE if locks else refuse + together + USE
        with start(room, place, code) as one, start(room, place, code) as other:
            ends = [process.communicate(timeout=100) for process in (one, other)]
        assert [out.strip() for out, _ in ends] == [ANSWER, ANSWER]
        said = "".join(text for _, text in ends)
        assert said.count("compiling them") == (1 if locks else 2), said
        assert said.count("waiting for it") == (1 if locks else 0), said
        (directory,) = directories(place)
        assert not directory.name.startswith(".")
        assert use(room, place, READ_ONLY + USE) == (ANSWER, "")


class TestDirectories:
    def test_of_two_the_second_takes_what_is_there(self, tmp_path: Path) -> None:
        for n in (1, 2):
            (tmp_path / f"private-{n}").mkdir()
            (tmp_path / f"private-{n}" / "kernel").write_bytes(b"%d" % n)
            cache.seal(tmp_path / f"private-{n}")
            cache.publish(tmp_path / f"private-{n}", tmp_path / "done")
        assert cache.read(tmp_path / "done") == {"kernel": b"1"}

    def test_the_newest_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ours alone are counted and deleted; one that another process fills just now is left alone."""
        monkeypatch.setattr(cache, "DIRECTORIES_MAX", 2)
        for n in range(4):
            (tmp_path / f"{n:032x}").mkdir()
            os.utime(tmp_path / f"{n:032x}", (1000 + n, 1000 + n))
        foreign, filled = tmp_path / "notes", tmp_path / f".{0:032x}.1.{0:08x}"
        for path in (foreign, filled):
            path.mkdir()
        os.utime(foreign, (1, 1))
        cache._prune(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / f"{2:032x}", tmp_path / f"{3:032x}", foreign, filled])

    def test_places(self) -> None:
        assert cache.places({"FARM_KERNEL_CACHE": "/k", "HOME": "/h"}) == (
            Path("/k"), Path("/h/.cache/backtest-farm/kernels"),
        )  # fmt: skip
        assert cache.places({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == (Path("/c/backtest-farm/kernels"),)

    def test_place_that_is_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(cache, "_SOURCES", "of no directory")
        with pytest.raises(ConfigError, match=r"file: File exists.*hint: set FARM_KERNEL_CACHE"):
            cache.provide({"FARM_KERNEL_CACHE": str(tmp_path / "file"), "HOME": str(tmp_path / "file")})


class TestDigest:
    def test_every_byte_of_every_source_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copy = tmp_path / "kernels"
        shutil.copytree(cache.ROOM, copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(cache, "ROOM", copy)
        seen = {cache._SOURCES}
        assert cache.sources_digest() in seen
        for path in sorted(copy.rglob("*.py")):
            before = path.read_bytes()
            path.write_bytes(before + b"#")
            assert cache.sources_digest() not in seen, path
            seen.add(cache.sources_digest())
            path.write_bytes(before)
        (copy / "new.py").touch()
        assert cache.sources_digest() not in seen

    @pytest.mark.parametrize("part", ["numba", "llvmlite", "numpy", "python", "cpu", "features", "switches"])
    def test_what_the_code_depends_on_counts(self, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
        now, before = cache.target(), cache.digest()
        monkeypatch.setattr(cache, "target", lambda: {**now, part: "another"})
        assert cache.digest() != before

    def test_kernels_depend_on_nothing_outside_the_room(self) -> None:
        """A number taken from another room would be frozen into code whose digest does not know of it."""
        wrong = []
        for path in cache.ROOM.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                allowed = re.compile(r"farm\.kernels(\.|$)|farm\.values\.(arrays|errors)$")
                wrong += [f"{path.name}: {name}" for name in names if name[:4] == "farm" and not allowed.match(name)]
        assert wrong == []


class TestShares:
    def test_the_heaviest_first(self) -> None:
        weights = {"a": 9, "b": 4, "c": 3, "d": 3, "e": 0}
        assert sorted(map(sorted, shares(weights, 2))) == [["a", "e"], ["b", "c", "d"]]
        assert shares({"a": 1}, 4) == [["a"]]

    def test_weight_follows_calls_across_files(self) -> None:
        """By module and by name; each function that is reached counts once, and all of it for each signature."""

        def callers(x: float) -> float:
            return transcend.exp(x) + log(x) + transcend.exp(-x)

        own = len(callers.__code__.co_code)
        found = jit.Kernel(callers, ("f8(f8)", "f4(f4)"))
        alone = jit.Kernel(callers, ("f8(f8)",))
        reached = {name: jit.KERNELS[f"farm.kernels.transcend.{name}"] for name in ("exp", "log")}
        assert own + max(map(weight, reached.values())) < weight(alone)
        assert weight(alone) < own + sum(map(weight, reached.values()))
        assert weight(found) == 2 * weight(alone)


@pytest.fixture(autouse=True)
def _no_private_directory_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert [path for path in tmp_path.glob("kernel-cache/.*") if path.name != ".lock"] == []


@pytest.mark.slow
def test_another_farm_does_not_compile_for_this_one(tmp_path: Path) -> None:
    """The compiling process imports the sources anew: they may have changed since."""
    command = [sys.executable, "-m", "farm.kernels.compile", str(tmp_path), "0" * 32, "farm.kernels.transcend.log"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1 and "the sources have changed while they were compiled" in said
    assert list(tmp_path.iterdir()) == []
    assert issubclass(ConfigError, FarmError)
