"""What people see in a terminal: the live progress line, tables, quantities.

Everything here turns values into text; nothing decides anything. Progress goes to standard error, so that standard
output holds the answer and nothing else. On a terminal the line is rewritten in place a few times a second; in a
log it becomes one plain line every few seconds.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from farm.run import Outcome

REDRAW_S = 0.1
LOG_LINE_S = 5.0
BAR_CELLS = 18
INSTRUMENTS_MAX = 20


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


def fields(pairs: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Return ``name  value`` lines with aligned values; pairs without a value are left out."""
    pairs = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{indent}{name.ljust(width)}  {value}" for name, value in pairs)


def listing(names: Sequence[str], most: int = 8) -> str:
    """Return names with commas, the rest counted."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def ingest_text(done: Mapping[str, Any]) -> str:
    """Return the summary of an ingest (``IngestSummary.to_json``)."""
    head = f"{done['source']} -> {done['dataset']}: {done['rows_added']:,} rows added"
    if done["rows_skipped"]:
        head += f", {done['rows_skipped']:,} were already there"
    return "\n".join(
        [
            head,
            fields(
                [
                    ("kind", done["kind"]),
                    ("symbols", f"{len(done['symbols'])}: {listing(done['symbols'])}"),
                    ("new instruments", listing(done["instruments_created"])),
                    (
                        "written",
                        f"{bytes_text(done['bytes'])} in {done['shards']} shards" if done["shards"] else "nothing",
                    ),
                    ("gaps", f"{done['gaps']:,} sessions without a row" if done["gaps"] else ""),
                    (
                        "calendars",
                        f"{listing(done['calendars'])}, frozen into the snapshot" if done["calendars"] else "",
                    ),
                    ("notes", "; ".join(done["notes"])),
                    ("snapshot", done["snapshot"]),
                ]
            ),
        ]
    )


def plan_text(plan: Mapping[str, Any]) -> str:
    """Return what a study would do (``Plan.to_json``)."""
    trials, cells, blocks, window = plan["trials"], plan["cells"], plan["blocks"], plan["window"]
    instruments = plan["instruments"]
    left_out = [
        f"{trials[name]:,} {word}"
        for name, word in (("duplicates", "equal to another"), ("excluded", "excluded by a constraint"))
        if trials[name]
    ]
    size = f"{trials['total']:,} trials" + (f" ({', '.join(left_out)})" if left_out else "")
    if instruments is not None:
        size += f" x {len(instruments)} instruments ({listing(instruments)})"
    lines = [
        f"study {plan['study']}",
        fields(
            [
                ("snapshot", plan["snapshot"]),
                ("cells", f"{size} = {cells['total']:,} cells"),
                ("to compute", f"{cells['missing']:,} cells; {cells['reused']:,} are in the catalog"),
                ("blocks", f"{blocks['total']}, of which {blocks['finished']} are finished"),
                ("window", f"{window['start']} to {window['end']}, {window['sessions']:,} sessions"),
                ("history from", window["history"]),
                ("columns", ", ".join(plan["columns"])),
                ("bytes to read", bytes_text(plan["bytes"]) + ", once per worker"),
                ("expected", f"{seconds_text(plan['seconds'])} on one core"),
            ]
        ),
    ]
    if plan["reads"]:
        rows = []
        for read in plan["reads"]:
            groups = read["row_groups"]
            pruned = ", ".join(f"{count} by {reason}" for reason, count in groups["pruned"].items() if count)
            rows.append(
                [
                    read["kind"],
                    str(read["shards_pruned"]),
                    str(groups["kept"]),
                    pruned or "0",
                    str(groups["unknown"]),
                    f"{read['rows']:,}",
                    str(read["chunks"]),
                    bytes_text(read["bytes"]),
                ]
            )
        lines.append(
            table(["kind", "shards pruned", "row groups kept", "pruned", "unknown", "rows", "chunks", "bytes"], rows)
        )
    return "\n".join(lines)


def leaderboard_text(leaders: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return the leaderboard; a row is one of ``Outcome.leaders``, its columns in their order."""
    if not leaders:
        return f"{title}: no trial"
    names = [name for name in leaders[0] if name not in ("key", "fingerprint")]
    rows = [[_leader_cell(row[name]) for name in names] for row in leaders]
    return f"{title}\n" + table([name.removeprefix("params.") for name in names], rows, left=0)


def _leader_cell(value: object) -> str:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return number_text(value)
    return str(value)


BUCKETS = {"is": "in sample", "oos": "out of sample", "full": "whole window"}


def outcome_text(outcome: Outcome, top: int) -> str:
    """Return what ``farm run`` and ``farm results`` print: counts, the leaderboard, the winner, what was assumed."""
    study, stats, order = outcome.study, outcome.stats, outcome.ranking
    made = f"{stats.cells_computed:,} computed, {stats.cells_reused:,} reused, {stats.cells_failed:,} failed"
    instruments = "" if study.instruments is None else f" on {len(study.instruments)} instruments"
    lines = [
        f"study {study.name}",
        fields(
            [
                ("name", str(study.spec.get("name", ""))),
                ("snapshot", study.snapshot),
                ("cells", f"{study.trials:,} trials{instruments} = {study.cells:,} cells: {made}"),
                ("time", ", ".join(f"{stage} {seconds_text(spent)}" for stage, spent in stats.seconds.items())),
                (
                    "fetched",
                    f"{bytes_text(stats.bytes_fetched)}; needed {bytes_text(stats.bytes_needed)}"
                    if stats.cells_computed
                    else "",
                ),
                ("affinity", f"{stats.affinity_hits} hits, {stats.affinity_misses} misses" if stats.workers else ""),
            ]
        ),
    ]
    leaders = outcome.leaders(top)
    title = "Trials"
    if order is not None:
        over = f", {order.over} over {len(study.instruments)} instruments" if study.instruments else ""
        title = f"Leaderboard: {order.direction} {order.metric}, {BUCKETS[order.bucket]}{over}"
    lines += ["", leaderboard_text(leaders, title)]
    if leaders:
        first = leaders[0]
        lines += ["", f"{'winner' if order else 'first'}  trial {first['trial']}  fingerprint {first['fingerprint']}"]
    assumed = sorted({name for text in set(outcome.results.assumptions) for name in json.loads(text or "[]")})
    if assumed:
        lines.append(f"assumed  {', '.join(assumed)}")
    return "\n".join(lines)


def status_text(status: Mapping[str, Any]) -> str:
    """Return the datasets and studies of a store (``api.status``)."""
    lines = [f"store {status['store']}"]
    for dataset in status.get("datasets", ()):
        kinds = ", ".join(f"{kind} {held['rows']:,} rows" for kind, held in dataset["kinds"].items())
        lines += ["", f"dataset {dataset['dataset']}  ({kinds})", f"  snapshot {dataset['snapshot']}"]
        lines.append(
            table(
                ["symbol", "type", "bars", "first", "last"],
                [
                    [one["symbol"], one["type"], f"{one['bars']:,}", one["first"] or "-", one["last"] or "-"]
                    for one in dataset["instruments"][:INSTRUMENTS_MAX]
                ],
                left=2,
            )
        )
        if len(dataset["instruments"]) > INSTRUMENTS_MAX:
            lines.append(f"  and {len(dataset['instruments']) - INSTRUMENTS_MAX:,} more")
    lines.append("")
    if not status["studies"]:
        lines.append("no studies yet: farm run study.json")
        return "\n".join(lines)
    lines.append(
        table(
            ["study", "name", "trials", "cells", "done", "blocks"],
            [
                [
                    one["study"][:16] + (" fresh" if one["fresh"] else ""),
                    one["name"],
                    f"{one['trials']:,}",
                    f"{one['cells']['total']:,}",
                    f"{one['cells']['done']:,}",
                    f"{one['blocks']['finished']}/{one['blocks']['total']}",
                ]
                for one in status["studies"]
            ],
            left=2,
        )
    )
    return "\n".join(lines)


def tree_text(value: object, indent: str = "  ") -> str:
    """Return a JSON value as indented text, one name a line; short lists stand on their line."""
    if isinstance(value, Mapping):
        width = max((len(str(name)) for name, item in value.items() if not _is_tree(item)), default=0)
        lines = []
        for name, item in value.items():
            if _is_tree(item):
                lines += [f"{indent}{name}", tree_text(item, indent + "  ")]
            else:
                lines.append(f"{indent}{str(name).ljust(width)}  {_leaf_text(item)}")
        return "\n".join(lines)
    if isinstance(value, list):
        return "\n".join(tree_text(item, indent) if _is_tree(item) else f"{indent}{_leaf_text(item)}" for item in value)
    return indent + _leaf_text(value)


def _is_tree(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value)


def _leaf_text(value: object) -> str:
    if value is None or value == [] or value == {}:
        return "-"
    if isinstance(value, list):
        return listing([str(item) for item in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def spec_text(found: Mapping[str, Any]) -> str:
    """Return what a checked spec means (``api.check_spec``)."""
    excluded = f", {found['excluded']:,} excluded by a constraint" if found["excluded"] else ""
    each = f", each on every instrument of {found['each']}" if found["each"] else ""
    head = f"valid: {found['name'] or 'a spec without a name'}"
    grid = f"{found['points']:,} trials{each}{excluded}"
    if found["params"]:
        grid += f", parameters {', '.join(found['params'])}"
    return f"{head}\n{fields([('template', found['template']), ('grid', grid)])}\nresolved, defaults written in:\n" + (
        json.dumps(found["resolved"], indent=1)
    )
