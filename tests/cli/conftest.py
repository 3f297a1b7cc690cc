"""Stores and files for the tests of the command line. What is slow to make is made once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.support import Console, write_spec
from tests.study.support import cross


@pytest.fixture(scope="session")
def _sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    done = Console(str(folder / "store"))("ingest", "sample")
    assert done.code == 0, done.err
    return folder / "store"


@pytest.fixture(scope="session")
def _finished_folder(_sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(_sample_folder, folder / "store")
    done = Console(str(folder / "store"))("run", write_spec(folder / "study.json", cross()))
    assert done.code == 0, done.err
    return folder / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the directory store of the test is, or will be."""
    return tmp_path / "store"


@pytest.fixture
def empty(folder: Path) -> Console:
    """``farm`` on a store that nobody has made yet."""
    return Console(str(folder))


@pytest.fixture
def sample(folder: Path, _sample_folder: Path) -> Console:
    """``farm`` on a store that holds the sample, and no study."""
    shutil.copytree(_sample_folder, folder)
    return Console(str(folder))


@pytest.fixture
def finished(folder: Path, _finished_folder: Path) -> Console:
    """``farm`` on a store that holds the sample and the study of ``spec``, finished."""
    shutil.copytree(_finished_folder, folder)
    return Console(str(folder))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A study of 9 trials on the five tickers of the sample: 45 cells."""
    return write_spec(tmp_path / "study.json", cross())


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write a report where they are, unless told otherwise: not into the clone."""
    monkeypatch.chdir(tmp_path)
