"""What people see in a terminal: the live progress line, tables, quantities.

Everything here turns values into text; nothing decides anything. Progress goes to standard error, so that standard
output holds the answer and nothing else. On a terminal the line is rewritten in place a few times a second; in a
log it becomes one plain line every few seconds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

REDRAW_S = 0.1
LOG_LINE_S = 5.0
BAR_CELLS = 18


class ProgressLike(Protocol):
    """The numbers a progress line shows; ``farm.run.ProgressEvent`` is one."""

    @property
    def cells_done(self) -> int: ...
    @property
    def cells_total(self) -> int: ...
    @property
    def cells_reused(self) -> int: ...
    @property
    def affinity_hits(self) -> int: ...
    @property
    def affinity_misses(self) -> int: ...
    @property
    def bytes_fetched(self) -> int: ...
    @property
    def workers(self) -> int: ...


def bytes_text(count: int) -> str:
    """Return a byte count for people: ``812 B``, ``4.1 kB``, ``1.25 GB`` (powers of 1000)."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.3g} {unit}"


def seconds_text(seconds: float) -> str:
    """Return a duration for people: ``0.42 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number_text(value: float | None, digits: int = 4) -> str:
    """Return a metric for people: a dash where it is undefined, whole numbers without a point."""
    if value is None:
        return "-"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def progress_text(event: ProgressLike, per_second: float, eta_s: float | None) -> str:
    """Return the progress line: bar, cells done, cells a second, affinity hit rate, bytes fetched, ETA."""
    share = event.cells_done / event.cells_total if event.cells_total else 1.0
    filled = int(share * BAR_CELLS)
    parts = [
        "━" * filled + "╌" * (BAR_CELLS - filled),
        f"{event.cells_done:,}/{event.cells_total:,} cells",
        f"{per_second:,.0f}/s",
    ]
    if event.cells_reused:
        parts.append(f"{event.cells_reused:,} reused")
    leases = event.affinity_hits + event.affinity_misses
    if event.workers:
        parts.append(f"{event.workers} worker{'s' if event.workers != 1 else ''}")
        parts.append(f"affinity {100 * event.affinity_hits / leases:.0f} %" if leases else "affinity -")
    parts.append(f"{bytes_text(event.bytes_fetched)} fetched")
    if event.cells_done < event.cells_total:
        parts.append(f"ETA {seconds_text(eta_s)}" if eta_s is not None else "ETA -")
    return "  ".join(parts)


class ProgressLine:
    """A callable that draws progress events on ``stream``; use it as a context manager.

    The rate counts computed cells since the first event, so that reused cells do not flatter it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._started: float | None = None
        self._computed_at_start = 0
        self._drawn = 0.0
        self._last: str = ""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._last:
            return
        self._stream.write(("\r\x1b[2K" if self._live else "") + self._last + "\n")
        self._stream.flush()

    def __call__(self, event: ProgressLike) -> None:
        now = time.monotonic()
        computed = event.cells_done - event.cells_reused
        if self._started is None:
            self._started, self._computed_at_start = now, computed
            if not self._live:
                self._drawn = now
        elapsed = now - self._started
        rate = (computed - self._computed_at_start) / elapsed if elapsed > 0 else 0.0
        eta = (event.cells_total - event.cells_done) / rate if rate > 0 else None
        self._last = progress_text(event, rate, eta)
        if now - self._drawn < (REDRAW_S if self._live else LOG_LINE_S):
            return
        self._drawn = now
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[2K" + self._last[:width])
        else:
            self._stream.write(self._last + "\n")
        self._stream.flush()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, indent: str = "  ") -> str:
    """Return a plain text table; the first ``left`` columns are left-aligned, the rest (numbers) right-aligned."""
    cells = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return (indent + "  ".join(padded)).rstrip()

    rule = indent + "  ".join("─" * width for width in widths)
    return "\n".join([line(headers), rule, *(line(row) for row in rows)])
