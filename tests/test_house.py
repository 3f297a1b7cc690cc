"""The house as drawn in docs and kept in code: who may import whom, where numba and Ray live, one word per thing.

The tables below are the drawing: rooms in their order, and the kinds of the modules of ``cluster``.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("farm", "cluster", "infra")

# The rooms of farm/, from the ground up: a room imports what stands before it, and nothing after.
ROOMS = (
    "values", "kernels", "store", "shard", "columns", "market", "spec", "program", "signals", "engine", "study",
    "results", "work", "report",
)  # fmt: skip
# Modules that stand on all rooms, in the order in which they stand on one another. ``show`` is the text that both
# command lines write to a terminal; it is apart from ``cli`` because ``cluster.cli`` needs it too.
TOP = ("api", "show", "show_cell", "cli")

# Modules of cluster/ by kind: values know nothing, pure modules know values, edges know both.
CLUSTER_VALUES = ("versioned", "submission", "messages")
CLUSTER_PURE = ("queue", "affinity", "lease", "scale", "index", "state", "machine", "invariants")
RAY_MODULES = ("ray_backend", "local_ray", "worker", "scheduler", "jobs", "telemetry")

KERNEL_LIBRARIES = ("numba", "llvmlite")

# Word in an identifier -> the word to use instead. The project has one word per thing.
FORBIDDEN = {
    "task": "cell, block or lease",
    "tasks": "cells, blocks or leases",
    "sweep": "study",
    "sweeps": "studies",
    "candle": "bar",
    "candles": "bars",
    "leak": "lookahead",
    "leaks": "lookahead",
    "job": "block or lease; a Ray job is ray_job",
    "jobs": "blocks or leases; Ray jobs are ray_jobs",
}
# Other people's names that code has to say: Ray's options.
FOREIGN = {"max_task_retries"}
# What only tests name -> why it is in the package all the same.
ONLY_FOR_TESTS = {"Faulty": "a store that fails as buckets do, beside the other wrappers"}
FILE_LINES_MAX = 500
# File beyond that -> why it is one noun.
LONG_FILES = {
    "cluster/machine.py": "one table of transitions and its handlers, to be read from the table upwards",
    "tests/reference/loop.py": "one account followed through all phases, to be checked by eye from top to bottom",
}


@cache
def sources(package: str) -> tuple[Path, ...]:
    return tuple(sorted((ROOT / package).rglob("*.py")))


def all_sources() -> tuple[Path, ...]:
    return tuple(path for package in PACKAGES for path in sources(package))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(module: ast.Module, of: tuple[str, ...], *, is_package: bool) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name as a tuple) of each import, also of those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base: tuple[str, ...] = ()
            if node.level:
                here = of if is_package else of[:-1]
                base = here[: len(here) - (node.level - 1)]
            start = base + tuple(node.module.split(".") if node.module else ())
            for alias in node.names:
                # `from farm import store` and `from farm.store import base` both name what they import.
                yield node.lineno, (*start, alias.name)


def imports_of(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    return imports(tree(path), module_of(path), is_package=path.name == "__init__.py")


def farm_may_import(importer: tuple[str, ...], imported: tuple[str, ...]) -> bool:
    """Both names begin with "farm"."""
    if len(importer) < 2 or len(imported) < 2:
        return len(importer) >= 2  # ``import farm`` is harmless; farm/__init__.py imports nothing
    order = ROOMS + TOP
    here, there = importer[1], imported[1]
    return here in order and there in order and order.index(there) <= order.index(here)


def cluster_may_import(importer: tuple[str, ...], imported: tuple[str, ...]) -> bool:
    """The importer begins with "cluster", the imported with "cluster" or "farm"."""
    here = importer[1] if len(importer) > 1 else ""
    if here in CLUSTER_VALUES + CLUSTER_PURE:
        if imported[0] == "farm":
            return len(imported) > 1 and imported[1] == "values"
        known = CLUSTER_VALUES if here in CLUSTER_VALUES else CLUSTER_VALUES + CLUSTER_PURE
        return len(imported) > 1 and imported[1] in known
    return True


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_rooms_are_those_of_the_drawing() -> None:
    """A folder of farm/ that the drawing lacks, or a module at the top beside the known ones, would go unchecked."""
    folders = {path.name for path in (ROOT / "farm").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(ROOMS)
    modules = {path.stem for path in (ROOT / "farm").glob("*.py")} - {"__init__"}
    assert modules <= set(TOP)


def test_the_page_about_the_house_has_the_rooms_in_their_order() -> None:
    """docs/house.md is this file's drawing in words."""
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(\w+)/`", text) == list(ROOMS)
    told = set(re.findall(r"`(\w+)\.py`", text))
    assert {path.stem for path in sources("cluster")} - {"__init__"} <= told and set(TOP) <= told


def test_farm_imports_follow_the_drawing() -> None:
    """No room imports a room that the data flow puts after it; farm knows neither cluster nor infra nor Ray."""
    wrong = []
    for path in sources("farm"):
        importer = module_of(path)
        for line, name in imports_of(path):
            if name[0] in ("cluster", "infra", "tests", "ray"):
                wrong.append(f"{place(path, line)}: farm imports {'.'.join(name)}")
            elif name[0] == "farm" and not farm_may_import(importer, name):
                wrong.append(f"{place(path, line)}: {'.'.join(importer[:2])} may not import {'.'.join(name)}")
    assert wrong == []


def test_no_circle_of_files() -> None:
    """Inside a room too, imports run one way, those inside functions included."""
    names = {module_of(path): path for path in all_sources()}
    reached = {
        name: {found for _, other in imports_of(path) for found in (other, other[:-1]) if found in names} - {name}
        for name, path in names.items()
    }
    while leaves := [name for name, others in reached.items() if not others & reached.keys()]:
        for name in leaves:
            del reached[name]
    assert reached == {}, "these files import one another, or what does"


def test_cluster_imports_follow_the_drawing() -> None:
    """Values and pure modules of the scheduler see no edge; nothing in cluster imports infra."""
    wrong = []
    for path in sources("cluster"):
        importer = module_of(path)
        for line, name in imports_of(path):
            if name[0] in ("infra", "tests"):
                wrong.append(f"{place(path, line)}: cluster imports {'.'.join(name)}")
            elif name[0] in ("cluster", "farm") and not cluster_may_import(importer, name):
                wrong.append(f"{place(path, line)}: {'.'.join(importer)} may not import {'.'.join(name)}")
    assert wrong == []


def test_few_modules_import_ray() -> None:
    """Ray is known to those that deal with it; all else runs without."""
    wrong = [
        place(path, line)
        for path in all_sources()
        for line, name in imports_of(path)
        if name[0] == "ray" and not (module_of(path)[0] == "cluster" and path.stem in RAY_MODULES)
    ]
    assert wrong == []


def test_pure_scheduler_reads_no_clock_and_no_randomness() -> None:
    """Time and randomness arrive inside events, or a simulation with a seed would not repeat."""
    outside = {"time", "random", "os", "secrets", "threading", "asyncio", "socket", "uuid", "datetime"}
    wrong = [
        f"{place(path, line)}: {name[0]}"
        for path in sources("cluster")
        if path.stem in CLUSTER_VALUES + CLUSTER_PURE
        for line, name in imports_of(path)
        if name[0] in outside
    ]
    assert wrong == []


def test_kernels_live_in_one_room() -> None:
    """numba is imported in farm/kernels alone."""
    wrong = [
        place(path, line)
        for path in all_sources()
        for line, name in imports_of(path)
        if name[0] in KERNEL_LIBRARIES and module_of(path)[:2] != ("farm", "kernels")
    ]
    assert wrong == []


def test_twins_are_plain() -> None:
    """The twins of the kernels share no code with them, and need no numba."""
    wrong = [
        f"{place(path, line)}: {'.'.join(name)}"
        for path in sources("tests/reference")
        for line, name in imports_of(path)
        if name[0] in KERNEL_LIBRARIES or name[:2] == ("farm", "kernels")
    ]
    assert wrong == []


def test_kernels_are_strict() -> None:
    """No kernel trades its bits for speed."""
    wrong = []
    for path in (ROOT / "farm" / "kernels").rglob("*.py"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.keyword) and node.arg in ("fastmath", "parallel"):
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    wrong.append(f"{place(path, node.value.lineno)}: {node.arg}")
            elif (isinstance(node, ast.Name) and node.id == "prange") or (
                isinstance(node, ast.Attribute) and node.attr == "prange"
            ):
                wrong.append(f"{place(path, node.lineno)}: prange")
    assert wrong == []


def test_init_files_are_empty() -> None:
    """Import the module that owns a name: busy __init__ files are where import cycles are born."""
    assert [str(path) for path in all_sources() if path.name == "__init__.py" and path.stat().st_size] == []


def test_every_module_states_its_rules() -> None:
    missing = [
        place(path, 1) for path in all_sources() if path.name != "__init__.py" and not ast.get_docstring(tree(path))
    ]
    assert missing == []


def test_long_files_are_listed() -> None:
    """A file beyond 500 lines usually holds a second noun; one that does not is listed with its reason."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (*all_sources(), *sources("tests"))
    }
    assert {name for name, lines in lengths.items() if lines > FILE_LINES_MAX} == set(LONG_FILES)


def test_no_two_types_share_a_name() -> None:
    """One word per thing: a name that two classes or aliases have says nothing."""
    places: dict[str, list[str]] = {}
    for path in all_sources():
        for node in tree(path).body:
            name = type_named(node)
            if name and not name.startswith("_"):
                places.setdefault(name, []).append(place(path, node.lineno))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def type_named(node: ast.stmt) -> str:
    """Return the class or the type alias that a statement of a module makes, or ""."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    return next((name for name in names_made(node) if re.fullmatch(r"[A-Z][a-z]\w*", name)), "")


def test_nothing_stays_that_nobody_names() -> None:
    """A function, class or value at the top of a module that the packages name nowhere else is left over."""
    named = Counter(word for path in all_sources() for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))
    made = Counter(name for path in all_sources() for node in tree(path).body for name in names_made(node))
    assert {name for name in made if named[name] == made[name]} - {"__all__"} == set(ONLY_FOR_TESTS)


def names_made(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module gives to something."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def identifiers(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that this file itself names: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def words(name: str) -> list[str]:
    """The words of a name in snake_case, camelCase or CAPITALS, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def wrong_word(name: str, module: tuple[str, ...]) -> str | None:
    """The word of ``name`` that the project does not use, or None."""
    if name in FOREIGN:
        return None
    parts = words(name)
    for position, word in enumerate(parts):
        if word not in FORBIDDEN:
            continue
        is_ray_job = word in ("job", "jobs") and (
            module[:2] == ("cluster", "jobs") or (position > 0 and parts[position - 1] == "ray")
        )
        if not is_ray_job:
            return word
    return None


def test_one_word_per_thing() -> None:
    """Names and files use the project's words; a Ray job is a "ray_job", except in the module about them."""
    wrong = []
    for path in all_sources():
        module = module_of(path)
        for line, name in identifiers(tree(path)):
            word = wrong_word(name, module)
            if word:
                wrong.append(f"{place(path, line)}: {name}: say {FORBIDDEN[word]}, not {word}")
        if module != ("cluster", "jobs"):
            wrong += [f"{path.relative_to(ROOT)}: {part}" for part in module if wrong_word(part, module)]
    assert wrong == []


def test_comments_and_text_hold_no_unfinished_work() -> None:
    """No placeholder is left in the packages."""
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    wrong = [
        place(path, number)
        for path in all_sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert wrong == []


def test_lock_names_no_host() -> None:
    """The lock file serves whoever installs from wherever; each entry has its hashes."""
    for lock in (ROOT / "requirements.lock", ROOT / "requirements-build.lock", ROOT / "infra/minio/requirements.lock"):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text and "--index" not in text, lock.name
        entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
        assert entries and all("--hash=sha256:" in entry for entry in entries), lock.name


class TestTheTestItself:
    """Rules that nobody can break check nothing."""

    @pytest.mark.parametrize(
        ("importer", "imported", "allowed"),
        [
            ("farm.shard.reader", "farm.store.base", True),
            ("farm.shard.reader", "farm.columns.cache", False),
            ("farm.market.load", "farm.store.base", True),
            ("farm.store.base", "farm.shard.layout", False),
            ("farm.work.context", "farm.engine.events", True),
            ("farm.engine.events", "farm.results.measure", False),
            ("farm.spec.parse", "farm.program.expr", False),
            ("farm.program.expr", "farm.spec.spec", True),
            ("farm.nowhere.at_all", "farm.values.errors", False),
            ("farm.work.run", "farm.results.catalog", True),
            ("farm.results.catalog", "farm.work.run", False),
            ("farm.store.base", "farm.values.errors", True),
            ("farm.study.block", "farm.results.catalog", False),
            ("farm.values.canon", "farm.kernels.rolling", False),
        ],
    )
    def test_imports(self, importer: str, imported: str, allowed: bool) -> None:
        assert farm_may_import(tuple(importer.split(".")), tuple(imported.split("."))) is allowed

    @pytest.mark.parametrize(
        ("importer", "imported", "allowed"),
        [
            ("cluster.machine", "cluster.messages", True),
            ("cluster.machine", "cluster.driver", False),
            ("cluster.messages", "cluster.machine", False),
            ("cluster.machine", "farm.values.errors", True),
            ("cluster.machine", "farm.store.base", False),
            ("cluster.driver", "farm.work.run", True),
        ],
    )
    def test_cluster_imports(self, importer: str, imported: str, allowed: bool) -> None:
        assert cluster_may_import(tuple(importer.split(".")), tuple(imported.split("."))) is allowed

    @pytest.mark.parametrize(
        ("name", "module", "wrong"),
        [
            ("run_task", "cluster.driver", "task"),
            ("TaskQueue", "cluster.queue", "task"),
            ("multitasking", "cluster.queue", None),
            ("JOB_COUNT", "cluster.queue", "job"),
            ("ray_job_id", "cluster.cli", None),
            ("RayJobStatus", "cluster.cli", None),
            ("job_id", "cluster.jobs", None),
            ("sweeps", "farm.study.space", "sweeps"),
            ("candles", "farm.market.panel", "candles"),
            ("max_task_retries", "cluster.ray_backend", None),
            ("joblib", "farm.work.run", None),
        ],
    )
    def test_words(self, name: str, module: str, wrong: str | None) -> None:
        assert wrong_word(name, tuple(module.split("."))) == wrong

    def test_relative_imports_are_resolved(self) -> None:
        module = ast.parse("from . import base\nfrom ..values import errors\nimport numba.core\nfrom farm import store")
        found = [name for _, name in imports(module, ("farm", "store", "s3"), is_package=False)]
        expected = [
            ("farm", "store", "base"),
            ("farm", "values", "errors"),
            ("numba", "core"),
            ("farm", "store"),
        ]
        assert found == expected
