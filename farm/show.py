"""What people see in a terminal: the live progress line, tables, quantities.

Everything here turns values into text; nothing decides anything. Progress goes to standard error, so that standard
output holds the answer and nothing else. On a terminal the line is rewritten in place a few times a second; in a
log it becomes one plain line every few seconds.
"""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from farm.values.metrics import ABSENT, BUCKETS, METRICS

if TYPE_CHECKING:
    from farm.work.run import Outcome

REDRAW_S = 0.1
LOG_LINE_S = 5.0
BAR_CELLS = 18
COLUMNS = 80
INSTRUMENTS_MAX = 20


class ProgressLike(Protocol):
    """The numbers a progress line shows; ``farm.work.run.ProgressEvent`` is one."""

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
    @property
    def store_away_s(self) -> float: ...


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


def progress_text(event: ProgressLike, per_second: float, eta_s: float | None) -> str:
    """Return the progress line: bar, cells done, cells a second, ETA, affinity hit rate, bytes fetched."""
    share = event.cells_done / event.cells_total if event.cells_total else 1.0
    filled = int(share * BAR_CELLS)
    parts = [
        "━" * filled + "╌" * (BAR_CELLS - filled),
        f"{event.cells_done:,}/{event.cells_total:,} cells",
        f"{per_second:,.0f}/s",
    ]
    if event.cells_done < event.cells_total:
        parts.append(f"ETA {seconds_text(eta_s)}" if eta_s is not None else "ETA -")
    if event.cells_reused:
        parts.append(f"{event.cells_reused:,} reused")
    leases = event.affinity_hits + event.affinity_misses
    if event.workers:
        parts.append(f"{event.workers} worker{'s' if event.workers != 1 else ''}")
        parts.append(f"affinity {100 * event.affinity_hits / leases:.0f} %" if leases else "affinity -")
    parts.append(f"{bytes_text(event.bytes_fetched)} fetched")
    if event.store_away_s:
        parts.append(f"store away for {seconds_text(event.store_away_s)}")
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
        self._is_broken = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last:
            self._write((self._in_place() if self._live else self._last) + "\n")

    def _in_place(self) -> str:
        """Return the line as it replaces the one before: on a narrow terminal without the bar, and never wrapped."""
        # Asked of this stream, since standard output may be a file; a terminal of no size is one that does not say.
        width = (os.get_terminal_size(self._stream.fileno()).columns or COLUMNS) - 1
        line = self._last if len(self._last) <= width else self._last.partition("  ")[2]
        return "\r\x1b[2K" + line[:width]

    def _write(self, text: str) -> None:
        """Write, unless nobody can read it: that is no reason to end a study."""
        if self._is_broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._is_broken = True

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
        self._write(self._in_place() if self._live else self._last + "\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, above: Sequence[str] = ()) -> str:
    """Return a plain text table; the first ``left`` columns are left-aligned, the rest (numbers) right-aligned.

    ``above``: what stands above each header, if anything does.
    """
    heads = [above, headers] if any(above) else [headers]
    cells = [list(row) for row in (*heads, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return ("  " + "  ".join(padded)).rstrip()

    rule = "  " + "  ".join("─" * width for width in widths)
    return "\n".join([*map(line, heads), rule, *map(line, rows)])


def fields(pairs: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Return ``name  value`` lines with aligned values; pairs without a value are left out."""
    pairs = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{indent}{name.ljust(width)}  {value}" for name, value in pairs)


def wrapped(pairs: Sequence[tuple[str, str]], most: int = 84) -> list[tuple[str, str]]:
    """Return the pairs for ``fields``, a value of several words and more than ``most`` characters on several lines."""
    return [
        (name if at == 0 else "", line)
        for name, value in pairs
        for at, line in enumerate(textwrap.wrap(value, most, break_long_words=False, break_on_hyphens=False))
    ]


def counted(count: int, word: str) -> str:
    """Return ``1 trial``, ``2,000 trials``."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def short(text: str, most: int) -> str:
    """Return ``text`` on one line, cut to ``most`` characters; nothing in it can move the cursor."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def listing(names: Sequence[str], most: int = 8) -> str:
    """Return names with commas, the rest counted."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def ingest_text(done: Mapping[str, Any]) -> str:
    """Return the summary of an ingest (``IngestSummary.to_json``)."""
    written = f"{bytes_text(done['bytes'])} in {counted(done['shards'], 'shard')}" if done["shards"] else "nothing"
    head = f"{done['source']} -> dataset {done['dataset']}: {counted(done['rows_added'], 'row')} added"
    if done["rows_skipped"]:
        head += f", {counted(done['rows_skipped'], 'row')} there already"
    return "\n".join(
        [
            head,
            fields(
                [
                    ("kind", done["kind"]),
                    ("symbols", f"{len(done['symbols'])}: {listing(done['symbols'])}"),
                    ("new instruments", listing(done["instruments_created"])),
                    ("written", written),
                    ("gaps", f"{counted(done['gaps'], 'session')} without a row" if done["gaps"] else ""),
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
    size = counted(trials["total"], "trial") + (f" ({', '.join(left_out)})" if left_out else "")
    if instruments is not None:
        size += f" x {counted(len(instruments), 'instrument')} ({listing(instruments)})"
    lines = [
        f"study {plan['study']}",
        fields(
            [
                ("snapshot", plan["snapshot"]),
                ("cells", f"{size} = {counted(cells['total'], 'cell')}"),
                ("to compute", f"{counted(cells['missing'], 'cell')}; {cells['reused']:,} in the catalog"),
                ("blocks", f"{blocks['total']:,}, finished {blocks['finished']:,}"),
                ("window", f"{window['start']} to {window['end']}, {counted(window['sessions'], 'session')}"),
                ("history from", window["history"]),
                ("columns", ", ".join(plan["columns"])),
                (
                    "bytes to read",
                    f"{bytes_text(plan['bytes'])}, once per worker that does not hold it" if cells["missing"] else "",
                ),
                ("expected", f"{seconds_text(plan['seconds'])} on one core" if cells["missing"] else ""),
            ]
        ),
    ]
    if plan["reads"]:
        lines += ["", reads_text(plan["reads"])]
    return "\n".join(lines)


def reads_text(reads: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the kinds of a read plan (``KindPlan.to_json``): what is kept, and why the rest is not."""
    rows = []
    for read in reads:
        groups = read["row_groups"]
        pruned = [f"{count:,} by {reason}" for reason, count in groups["pruned"].items() if count]
        kept = f"{groups['kept']:,}" + (f" ({groups['unknown']:,} undecided)" if groups["unknown"] else "")
        rows.append(
            [
                *(read["kind"], kept, ", ".join(pruned) or "-", f"{read['shards_pruned']:,}"),
                *(f"{read['rows']:,}", f"{read['chunks']:,}", bytes_text(read["bytes"])),
            ]
        )
    return table(["kind", "row groups", "pruned", "shards pruned", "rows", "chunks", "bytes"], rows)


def leaderboard_text(leaders: Sequence[Mapping[str, Any]], title: str, objective: str = "") -> str:
    """Return the leaderboard; a row is one of ``Outcome.leaders``, its columns in their order.

    ``objective``: the metric with its bucket (``is.sharpe``) that the column ``objective`` is, and is shown as. A
    bucket stands above its metrics.
    """
    if not leaders:
        return f"{title}: no trial"
    names = [name for name in leaders[0] if name not in ("key", "fingerprint", objective)]
    heads = [objective if name == "objective" else name for name in names]
    split = [_bucket_and_metric(name) for name in heads]
    rows = [[_leader_cell(head, row[name]) for name, head in zip(names, heads, strict=True)] for row in leaders]
    return f"{title}\n" + table([metric for _, metric in split], rows, left=0, above=[bucket for bucket, _ in split])


def _bucket_and_metric(head: str) -> tuple[str, str]:
    bucket, dot, metric = head.partition(".")
    return (bucket, metric) if dot and bucket in BUCKETS else ("", head.removeprefix("params."))


def _leader_cell(head: str, value: object) -> str:
    """Return a parameter as it was written, a metric as the registry says, a rank as it is."""
    if head.startswith("params."):
        return short(value if isinstance(value, str) else json.dumps(value), 20)
    metric = METRICS.get(head.partition(".")[2])
    if metric is not None and (value is None or isinstance(value, float)):
        return metric.text(value)
    return ABSENT if value is None else str(value)


def outcome_text(outcome: Outcome, top: int) -> str:
    """Return what ``farm run`` and ``farm results`` print: counts, the leaderboard, the winner, what was assumed."""
    from farm.results.remarks import incidents_of_trial, remarks_of_trial  # the compiler, which help does without

    study, stats, ranking = outcome.study, outcome.stats, outcome.ranking
    size = counted(study.trials, "trial")
    if study.instruments is not None:
        size += f" on {counted(len(study.instruments), 'instrument')} = {counted(study.cells, 'cell')}"
    silent = outcome.results.verdict_counts().get("no_data", 0)
    made = f"{stats.cells_computed:,} computed, {stats.cells_reused:,} reused"
    inside = {stage: spent for stage, spent in stats.seconds.items() if stage.startswith("worker_")}
    spent_here = {stage: spent for stage, spent in stats.seconds.items() if stage not in inside}
    fetched = f"{bytes_text(stats.bytes_fetched)}; needed {bytes_text(stats.bytes_needed)}"
    fetched += f", of which {bytes_text(stats.bytes_cached)} from the cache" if stats.bytes_cached else ""
    lines = [
        f"study {study.name}",
        fields(
            [
                ("name", short(str(study.spec.get("name", "")), 80)),
                ("snapshot", study.snapshot),
                ("cells", f"{size}: {made}" + (f", {stats.cells_failed:,} failed" if stats.cells_failed else "")),
                ("no data", f"{counted(silent, 'cell')}: the instrument has no bar in the window" if silent else ""),
                ("time", stages_text(spent_here)),
                ("in workers", stages_text(inside)),
                ("fetched", fetched if stats.cells_computed else ""),
                ("affinity", f"{stats.affinity_hits} hits, {stats.affinity_misses} misses" if stats.workers else ""),
            ]
        ),
    ]
    leaders = outcome.leaders(top)
    title, objective = "Trials", ""
    if ranking is not None:
        over = f", {ranking.over} over {counted(len(study.instruments), 'instrument')}" if study.instruments else ""
        title = f"Leaderboard: {ranking.direction} {ranking.metric}, {BUCKETS[ranking.bucket]}{over}"
        objective = f"{ranking.bucket}.{ranking.metric}"
    lines += ["", leaderboard_text(leaders, title, objective)]
    if study.trials > len(leaders):
        lines.append(f"  and {study.trials - len(leaders):,} more")
    best = int(ranking.trials[0]) if ranking is not None else 0
    said = [("note", line) for line in remarks_of_trial(outcome.results, outcome.spec, best)]
    said += [("counted", line) for line in incidents_of_trial(outcome.results, best)]
    ending = [*said, ("assumed", ", ".join(outcome.results.assumed()))]
    if leaders:
        first = leaders[0]
        params = ", ".join(f"{name} {value}" for name, value in study.params(first["trial"]).items())
        which = f"trial {first['trial']}" + (f": {params}" if params else "")
        ending = [("winner" if ranking else "first", which), ("fingerprint", first["fingerprint"] or ""), *ending]
        cell = f"{first['trial']}/{study.cell_instruments[0] or ''}".rstrip("/")
        closer = f"farm report {study.id[:12]}, farm explain {cell} --study {study.id[:12]}"
        ending.append(("look closer", closer))
    return "\n".join([*lines, "", fields(wrapped(ending), "")])


def stages_text(seconds: Mapping[str, float]) -> str:
    """Return times by stage: ``plan 0.07 s, run 2.6 s``."""
    return ", ".join(f"{stage.removeprefix('worker_')} {seconds_text(spent)}" for stage, spent in seconds.items())


def cleaning_text(done: Mapping[str, Any]) -> str:
    """Return what ``api.clean`` has removed, or would."""
    counts = {"leases": "lease record", "attempts": "attempt", "done": "marker"}
    removed = ", ".join(counted(done["objects"][name], word) for name, word in counts.items())
    verb = "would remove" if done["dry_run"] else "removed"
    lines = [f"{verb} {removed} of {counted(done['studies'], 'ended study').replace('studys', 'studies')}"]
    lines[0] += f" ({bytes_text(done['bytes'])}); results and data stay"
    if done["kept"]:
        lines.append(f"kept those of {done['kept']:,} more, waiting in the inbox or younger")
    return "\n".join(lines)


def status_text(status: Mapping[str, Any]) -> str:
    """Return the datasets and studies of a store (``api.status``)."""
    lines = [f"store {status['store']}"]
    for dataset in status.get("datasets", ()):
        if "error" in dataset:
            lines += ["", f"dataset {dataset['dataset']}", *_error_lines(dataset["error"])]
            continue
        kinds = ", ".join(f"{kind}: {counted(held['rows'], 'row')}" for kind, held in dataset["kinds"].items())
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
    intact = [one for one in status["studies"] if "error" not in one]
    if not status["studies"]:
        lines.append("no studies yet: farm run study.json" if status["datasets"] else "nothing here yet: farm ingest")
    if intact:
        lines.append(
            table(
                ["study", "name", "trials", "cells", "done", "blocks"],
                [
                    [
                        one["study"][:16] + (" fresh" if one["fresh"] else ""),
                        short(one["name"], 40),
                        f"{one['trials']:,}",
                        f"{one['cells']['total']:,}",
                        f"{one['cells']['done']:,}",
                        f"{one['blocks']['finished']}/{one['blocks']['total']}",
                    ]
                    for one in intact
                ],
                left=2,
            )
        )
    for one in status["studies"]:
        if "error" in one:
            lines += [f"study {one['study'][:16]}", *_error_lines(one["error"])]
    if status.get("other_formats"):
        studies = counted(status["other_formats"], "study").replace("studys", "studies")
        lines.append(f"passed over: {studies}, recorded by an older or a newer version")
    if status.get("strangers"):
        lines.append(
            f"passed over: {counted(status['strangers'], 'object')} in refs/ and studies/ whose names no farm gives"
        )
    return "\n".join(lines)


def _error_lines(error: Mapping[str, str]) -> list[str]:
    return [f"  error: {error['place']}: {error['message']}", f"  hint: {error['hint']}"]


def json_text(value: object, width: int = 100, indent: str = "") -> str:
    """Return JSON for people: what fits stands on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or len(indent) + len(flat) <= width:
        return flat
    deeper = indent + "  "
    if isinstance(value, list):
        items = [deeper + json_text(item, width, deeper) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    items = [f"{deeper}{json.dumps(name)}: {json_text(item, width, deeper)}" for name, item in value.items()]
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def spec_text(found: Mapping[str, Any]) -> str:
    """Return what a checked spec means (``api.check_spec``)."""
    excluded = f", {found['excluded']:,} excluded by a constraint" if found["excluded"] else ""
    each = f", each on every instrument of {found['each']}" if found["each"] else ""
    head = f"valid: {short(found['name'], 80) or 'a spec without a name'}"
    grid = f"{counted(found['points'], 'trial')}{each}{excluded}"
    if found["params"]:
        grid += f", parameters {', '.join(found['params'])}"
    return f"{head}\n{fields([('template', found['template']), ('grid', grid)])}\nresolved, defaults written in:\n" + (
        json_text(found["resolved"])
    )
