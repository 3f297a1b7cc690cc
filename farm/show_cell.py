"""What is shown of one trial, and of one cell: its metrics, and what ``farm explain`` says of it: the result, who
computed it and why, what was read, how its key is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from farm.results.leases import IN_PROCESS, SENT
from farm.results.remarks import ASSUMPTIONS
from farm.results.remarks import counted as count_text
from farm.show import bytes_text, counted, fields, reads_text, stages_text, table
from farm.values.metrics import BUCKETS, HEADLINES, METRICS

REASONS = {
    "warm": "it held the columns already",
    "home": "it is the home of this data",
    "backlog": "the home of this data was busy, and this was the largest backlog",
    "replica": "waiting for the home of this data would have cost more than loading it here",
    "overdue": "the study had waited too long for a better place",
    "retry": "an earlier attempt had failed",
    IN_PROCESS: "the command was run without workers",
}
"""Why a lease went where it went."""
ENDINGS = {
    SENT: "nobody has seen it end",
    "crashed": "the worker died",
    "expired": "it took too long",
    "cancelled": "it was stopped",
}
"""How a lease ended that is not done."""


def explain_text(cell: Mapping[str, Any]) -> str:
    """Return what is known of one cell (``api.explain``): result, who and why, what was read, how the key is made."""
    params = ", ".join(f"{name} {value}" for name, value in cell["params"].items())
    where = f" on {cell['instrument']}" if cell["instrument"] else ""
    head = [f"cell {cell['name']}, {cell['cell']}", f"  trial {cell['trial']} of study {cell['study'][:16]}{where}"]
    if params:
        head[1] += f": {params}"
    parts = [("Result", _result_text(cell["result"])), ("Computed", _computed_text(cell["computed"]))]
    parts += [("Read", _read_text(cell["reads"])), ("Key", _key_text(cell["key"]))]
    return "\n".join(head + [f"\n{title}\n{text}" for title, text in parts])


def trial_text(found: Mapping[str, Any]) -> str:
    """Return one trial, or one cell of it (``Outcome.trial``): its metrics by instrument, or by bucket."""
    params = ", ".join(f"{name} {value}" for name, value in found["params"].items())
    known = [("params", params), ("fingerprint", found["fingerprint"] or ""), ("key", found["key"])]
    lines = [f"trial {found['trial']} of study {found['study'][:16]}", fields(known), ""]
    cells = found["cells"]
    if len(cells) == 1:
        buckets = {name: values for name, values in cells[0]["metrics"].items() if values is not None}
        rows = [
            [METRICS[name].label, *(METRICS[name].text(values[name]) for values in buckets.values())]
            for name in buckets["full"]
        ]
        title = cells[0]["instrument"] or "metric"
        counts = ", ".join(f"{name} {count:,}" for name, count in cells[0]["counts"].items())
        digests = [(name, digest or "") for name, digest in cells[0]["fingerprint"].items()]
        ending = fields([("verdict", cells[0]["verdict"] or ""), *digests, ("counted", counts)])
        return "\n".join([*lines, table([title, *(BUCKETS[name] for name in buckets)], rows), "", ending])
    names = [name for name in HEADLINES if name in cells[0]["metrics"]["full"]]
    rows = []
    for cell in cells:
        values = cell["metrics"]["full"]
        rows.append([cell["instrument"], cell["verdict"] or "", *(METRICS[name].text(values[name]) for name in names)])
    return "\n".join([*lines, table(["instrument", "", *(METRICS[name].label for name in names)], rows, left=2)])


def _result_text(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "  not there yet: the block of this cell is not finished"
    return fields(
        [
            ("verdict", {"no_data": "no_data: the instrument has no bar in the window"}.get(result["verdict"], "")),
            ("equity at the end", "" if result["equity_end"] is None else f"{result['equity_end']:,.6f}"),
            ("ledger", result["ledger"] or ""),
            ("stats", result["stats"] or "not made: the study proves other cells"),
            *(("assumed", ASSUMPTIONS.get(name, name)) for name in result["assumptions"]),
            *(("counted", count_text(name, count)) for name, count in result["counts"].items()),
            *(("note", line) for line in result["remarks"]),
        ]
    )


def _computed_text(computed: Mapping[str, Any] | None) -> str:
    if computed is None:
        return "  by nobody yet"
    lines = []
    for lease in computed["leases"]:
        why = REASONS.get(lease["reason"], lease["reason"])
        who = "in the process of the command" if lease["worker"] == IN_PROCESS else f"by worker {lease['worker']}"
        lines.append(f"  {who}, since {why}" + (f" ({lease['reason']})" if lease["worker"] != IN_PROCESS else ""))
        did = ENDINGS.get(lease["outcome"], f"{counted(lease['cells'], 'cell')} done")
        fetched = f"{bytes_text(lease['bytes_fetched'])} fetched beside what it held"
        lines.append(f"  lease {lease['lease']}, attempt {lease['attempt']}: {did}, {fetched}")
        if lease["seconds"]:
            lines.append(f"  {stages_text(lease['seconds'])}")
    if not lines:
        lines.append("  nobody wrote down by whom")
    if computed["is_reused"]:
        lines.append(f"  reused: study {computed['study'][:16]} had computed it")
    lines.append(f"  stored in block {computed['block']}: {computed['segment']}")
    return "\n".join(lines)


def _read_text(reads: Mapping[str, Any]) -> str:
    window = f"{counted(reads['bars_in_window'], 'bar')} from {reads['start']} to {reads['end']}"
    anchors = [f"{name} from {day}" for name, day in reads["anchors"].items()]
    known = [
        ("window", window),
        ("with history", f"{counted(reads['bars_read'], 'bar')} from {reads['history']}"),
        ("started", "; ".join(anchors)),
        ("snapshot", reads["snapshot"]),
        ("bytes", f"{bytes_text(reads['bytes'])}, shared by all cells of the same instruments"),
    ]
    return f"{fields(known)}\n\n{reads_text(reads['access'])}"


def _key_text(key: Mapping[str, Any]) -> str:
    covers = ", ".join(f"{name} {value}" for name, value in key["family_covers"].items())
    read, trial = key["read"], key["trial"]
    made = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in read["parts"].items()]
    lines = [f"  {key['is']}", f"  read {read['digest']}, SHA-256 of the canonical JSON of", fields(made, "    ")]
    lines += [f"  trial {trial['digest']}, SHA-256 of the canonical JSON of", f"    {json.dumps(trial['parts'])}"]
    return "\n".join([*lines, f"  family covers strategy and run, {covers}"])
