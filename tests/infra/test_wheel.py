"""The wheel: everything that runs, nothing else, and from a place that nobody may write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.kernels.test_cache import READ_ONLY
from tests.study.support import cross

pytestmark = pytest.mark.slow
PACKAGES = ("farm", "cluster", "infra")
RUN = """
import farm
from cluster.cli import main
assert farm.__file__.startswith(sys.argv[1])
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone, built from a copy of it with the tests and pages in it."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "tests", "docs"):
        shutil.copytree(repo_root / name, folder / "source" / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(repo_root / name, folder / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", str(folder), str(folder / "source")],
        check=True, timeout=100,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_it_holds_every_file_of_the_packages_and_no_other(wheel: Path, repo_root: Path) -> None:
    """A file that is read at run time and left out is missed by whoever installs; tests and twins are not theirs."""
    files = (path for name in PACKAGES for path in (repo_root / name).rglob("*") if path.is_file())
    wanted = {str(path.relative_to(repo_root)) for path in files if path.parent.name != "__pycache__"}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_it_runs_from_a_read_only_place(wheel: Path, tmp_path: Path) -> None:
    """A sample, a study and its report; nothing is written where the packages are."""
    place = tmp_path / "site-packages"
    zipfile.ZipFile(wheel).extractall(place)
    spec = tmp_path / "study.json"
    spec.write_text(json.dumps(cross(tickers=("AAPL",))))

    def farm(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-c", READ_ONLY + RUN, str(place), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(place), "FARM_STORE": str(tmp_path / "store")},
            cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    farm("ingest", "sample")
    document = json.loads(farm("run", spec, "--json"))
    assert document["farm"]["cells"]["failed"] == 0 and document["trials"]
    farm("report", document["study"], "--output", tmp_path / "report.html")
    assert not list(place.rglob("__pycache__"))
