"""The bench runs: what it calls moves, and nothing else would say so. What it measures is read by people, not here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from farm.values.settings import FarmSettings
from tests.bench import wide
from tests.bench.__main__ import ROWS
from tests.bench.harness import Row, show

LEFT_OUT = {"workers", "kernels", "symbols", "pairs", "wide", "planning"}
"""They start a Ray, compile for half a minute, and run a hundred thousand cells; the last four are tried smaller."""


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_rows_have_values_and_parts(repo_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--repeats", "1", "--out", str(out), "--only"]
    subprocess.run([*command, *(set(ROWS) - LEFT_OUT)], cwd=repo_root, check=True, capture_output=True, timeout=300)
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) >= len(set(ROWS) - LEFT_OUT)
    for row in rows:
        assert len(row["values"]) == 1 and row["median"] > 0.0 and math.isfinite(row["median"]), row["name"]
        assert row["parts"] or "--help" in row["name"], row["name"]


def test_a_missed_target_is_shown() -> None:
    text = show([Row("slow", "s", 1.0, False, [3.0, 2.0, 9.0], {"part": "2 s"}), Row("fast", "x", 1.0, True, [2.0])])
    slow, part, fast = text.splitlines()[2:]
    assert "MISSED" in slow and "3.00 s" in slow and part.split() == ["part", "2", "s"]
    assert "met" in fast


@pytest.mark.slow
@pytest.mark.parametrize("name", ["symbols", "pairs", "wide", "planning"])
def test_wide_studies_agree_with_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few symbols. Each row refuses to time programs whose final equities differ."""
    monkeypatch.setattr(wide, "SYMBOLS", 20)
    monkeypatch.setattr(wide, "HEADLINES", {"small": wide.study(20, [5, 6], [7, 8])})
    found = ROWS[name](FarmSettings(), 1)
    for row in found if isinstance(found, list) else [found]:
        assert row.median > 0.0, row.name
