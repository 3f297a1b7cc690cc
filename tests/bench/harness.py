"""What a benchmark row is, how it is repeated, and how it is shown.

A row measures one promise, compares the median of its repeats with its target, and lists the parts that the time went
to. Nothing here is a test: a machine under load misses targets without anything being wrong, so rows are read, not
asserted. Ratios are taken inside one run.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from farm.show import table


@dataclass(frozen=True)
class Row:
    """One measured promise. ``values`` are the repeats; ``parts`` say where the time of the median repeat went;
    ``peak_bytes``: the most memory of the processes that did the work; None: of this one, 0: not known."""

    name: str
    unit: str
    target: float
    higher_is_better: bool
    values: Sequence[float]
    parts: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def meets_target(self) -> bool:
        return self.median >= self.target if self.higher_is_better else self.median <= self.target


def repeat(measure: Callable[[], float], count: int) -> list[float]:
    """Return ``count`` values of ``measure`` after one that is thrown away."""
    measure()
    return [measure() for _ in range(count)]


def seconds_of(action: Callable[[], object]) -> float:
    """Return how long one call took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def forget_peak() -> None:
    """Let ``peak_bytes`` of this process begin again."""
    with suppress(OSError):  # where the kernel does not let us, it is the peak since the process began
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(pid: int | str = "self") -> int:
    """Return the most resident memory that a process has had; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def family_bytes(pid: int) -> int:
    """Return the sum of the peaks of a process and all that it has started and that are alive; what they share is
    counted for each."""
    try:
        children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return 0
    return peak_bytes(pid) + sum(family_bytes(int(child)) for child in children.split())


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


def machine() -> dict[str, str | int]:
    """Return what a figure depends on and cannot say itself."""
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "pyarrow", "obstore", "ray")}
    return {"cpus": os.cpu_count() or 0, "python": platform.python_version(), "arch": platform.machine(), **versions}


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}" if value >= 0.1 else f"{value:,.3f}"


def show(rows: Sequence[Row]) -> str:
    """Return the rows as a table, each followed by its parts."""
    lines = table(
        ["row", "median", "worst", "best", "target", "", "peak"],
        [
            [
                row.name,
                f"{figure(row.median)} {row.unit}",
                figure(min(row.values) if row.higher_is_better else max(row.values)),
                figure(max(row.values) if row.higher_is_better else min(row.values)),
                f"{'>=' if row.higher_is_better else '<='} {figure(row.target)}",
                "met" if row.meets_target else "MISSED",
                f"{row.peak_bytes / 1e6:,.0f} MB" if row.peak_bytes else "",
            ]
            for row in rows
        ],
    ).splitlines()
    out = lines[:2]
    for row, line in zip(rows, lines[2:], strict=True):
        out.append(line)
        out.extend(f"      {part:<34} {value}" for part, value in row.parts.items())
        if row.note:
            out.append(f"      {row.note}")
    return "\n".join(out)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write the rows with the machine they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "rows": [asdict(row) | {"median": row.median, "meets_target": row.meets_target} for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
