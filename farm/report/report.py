"""The report: one self-contained HTML file, from plain tables to text.

``report_html(ReportInput) -> str`` decides nothing and computes no metric: what it prints was handed in, so that the
report cannot disagree with the catalog. All text is escaped, also inside figures (plotly reads a little HTML) and
inside the data block of the script. The file needs no network: plotly is inlined once.

Input: ``ReportInput`` holds the study and its winner, one ``CellView`` per cell of the winner (an instrument of an
``each`` study, or the single cell), and the ranked trials as ``TrialRow``.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from farm.report import charts, figures, page
from farm.values.arrays import F64, I32
from farm.values.metrics import HEADLINES, METRIC_NAMES, METRICS
from farm.values.units import iso

TRADES_MAX = 1000
LEADERS_MAX = 25
NOT_MADE = "not made: the study proves other cells"
"""In place of a digest."""
RISK_ROWS = tuple(name for name in METRIC_NAMES[: METRIC_NAMES.index("orders")] if name != "pct_change")
TRADING_ROWS = METRIC_NAMES[METRIC_NAMES.index("orders") :]


@dataclass(frozen=True)
class TradeRow:
    """One flat-to-flat episode. Open trades have no exit; ``pnl`` is then the profit at the last mark."""

    side: str
    entry_day: int
    entry_price: float
    exit_day: int | None
    exit_price: float | None
    quantity: float
    pnl: float
    pnl_pct: float | None
    sessions: int | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class CellView:
    """One cell of the winner.

    Shapes:  day int32 (n,), days since 1970-01-01; equity (n,) at session closes and ``cash`` before the first one, in
             currency; comparison (n,) in the same unit, or None; full, in_sample, out_of_sample: metric vectors in the
             order of METRIC_NAMES with NaN for null, None without a split.
    Fields:  ``comparison_name`` such as "SPY" or "AAPL, bought and held"; ``out_of_sample_day``: the first day of the
             out-of-sample bucket; ``verdict``: why a cell has no numbers ("no_data"), else None.
    """

    name: str
    cash: float
    day: I32
    equity: F64
    comparison: F64 | None
    comparison_name: str
    full: F64
    in_sample: F64 | None
    out_of_sample: F64 | None
    out_of_sample_day: int | None
    trades: tuple[TradeRow, ...]
    ledger: str | None
    stats: str | None
    verdict: str | None = None


@dataclass(frozen=True)
class TrialRow:
    """A ranked trial: parameter values in the order of ``ReportInput.parameters``, its objective; of the first
    LEADERS_MAX also more numbers in the order of ``ReportInput.trial_metrics``, and the fingerprint, where one was
    made."""

    number: int
    values: tuple[object, ...]
    objective: float | None
    metrics: tuple[float | None, ...]
    fingerprint: str | None


@dataclass(frozen=True, eq=False)
class ReportInput:
    """Everything the report says.

    Fields: ``objective`` in words ("maximise sharpe, in sample, median over 5 instruments"), ``objective_metric`` its
    name in METRICS, ``direction`` "max" or "min"; ``parameters`` names; ``trials`` ranked, best first: the first one is
    the winner, whose cells are ``cells``; ``trial_metrics`` pairs (column title, metric name); ``counts`` pairs such as
    ("Trials tried", 420): the best of N is worth nothing without N; ``settings`` pairs of text (window, money, costs);
    ``assumptions``, ``remarks`` (what the numbers alone would hide) and ``incidents`` (what was counted in the winner's
    cells) lines of text; ``reproduce`` shell commands.
    """

    title: str
    study: str
    snapshot: str
    fingerprint: str | None
    trial_key: str
    objective: str
    objective_metric: str
    direction: str
    parameters: tuple[str, ...]
    cells: tuple[CellView, ...]
    trials: tuple[TrialRow, ...]
    trial_metrics: tuple[tuple[str, str], ...]
    counts: tuple[tuple[str, int], ...]
    settings: tuple[tuple[str, str], ...]
    assumptions: tuple[str, ...]
    remarks: tuple[str, ...]
    incidents: tuple[str, ...]
    reproduce: tuple[str, ...]


def report_html(report: ReportInput) -> str:
    """Return the report as one HTML document, plotly included (4.8 MB)."""
    from plotly.offline import get_plotlyjs  # a tenth of a second, and only reports need it

    drawings: dict[str, charts.Figure] = {}
    sections = [_header(report), _cells(report, drawings)]
    shared = _parameters(report, drawings) + _leaders(report) + _assumptions(report) + _reproduce(report)
    body = "".join(sections) + f'<div class="shared">{shared}</div>'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(report.title)}</title>\n<style>{page.STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="figures">{_script_json(drawings)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{page.SCRIPT}</script>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Return ``value`` as escaped text."""
    return html.escape(str(value))


def _script_json(value: object) -> str:
    """Return JSON that cannot end its script element, whatever the data holds."""
    plain = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _table(head: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """Return a table; ``head`` and ``rows`` are HTML already, the first column is text."""
    titles = "".join(f'<th class="text">{t}</th>' if i == 0 else f"<th>{t}</th>" for i, t in enumerate(head))
    return f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _row(label: str, values: Sequence[str], kind: str = "") -> str:
    """Return a row; a value that starts with a minus sign is shown as a loss."""
    cells = "".join(f"<td{_tone(v)}>{text(v)}</td>" for v in values)
    shown = f' class="{kind}"' if kind else ""
    return f'<tr{shown}><td class="label">{text(label)}</td>{cells}</tr>'


def _tone(value: str) -> str:
    return ' class="loss"' if value.startswith(figures.MINUS) else ""


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a definition list; the second of each pair is HTML already."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in pairs) + "</dl>"


def _header(report: ReportInput) -> str:
    winner = report.trials[0] if report.trials else None
    pairs = []
    if winner is not None:
        best = figures.metric_text(report.objective_metric, winner.objective)
        pairs.append(("Objective", f"{text(report.objective)}: <b>{text(best)}</b>"))
        if report.parameters:
            chosen = " · ".join(
                f"{text(name)} <b>{text(_plain(value))}</b>"
                for name, value in zip(report.parameters, winner.values, strict=True)
            )
            pairs.append(("Winner", chosen))
    pairs += [(name, f"{count:,}") for name, count in report.counts]
    pairs += [
        ("Fingerprint", f'<span class="hash">{text(report.fingerprint or NOT_MADE)}</span>'),
        ("Study", f'<span class="hash">{text(report.study)}</span>'),
        ("Snapshot", f'<span class="hash">{text(report.snapshot)}</span>'),
        ("Trial", f'<span class="hash">{text(report.trial_key)}</span>'),
    ]
    said = f'<div class="said">{_lines(report.remarks)}</div>' if report.remarks else ""
    return f"<header><h1>{text(report.title)}</h1><p>{_window(report)}</p>{said}{_definitions(pairs)}</header>"


def _lines(lines: Iterable[str]) -> str:
    return '<ul class="plain">' + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def _window(report: ReportInput) -> str:
    known = [cell for cell in report.cells if len(cell.day)]
    if not known:
        return "no sessions"
    first, last = known[0].day[0], known[0].day[-1]
    names = ", ".join(text(cell.name) for cell in report.cells[:8]) + (" …" if len(report.cells) > 8 else "")
    return f"{names} · {iso(first)} to {iso(last)} · {len(known[0].day):,} sessions"


def _cells(report: ReportInput, drawings: dict[str, charts.Figure]) -> str:
    if not report.cells:
        return ""
    tabs = overview = ""
    if len(report.cells) > 1:
        overview = _overview(report)
        buttons = (f'<button type="button" role="tab">{text(cell.name)}</button>' for cell in report.cells)
        tabs = f'<div class="tabs" role="tablist">{"".join(buttons)}</div>'
    sections = "".join(_cell(cell, i, drawings) for i, cell in enumerate(report.cells))
    return f"{overview}<h2>The winner{' by instrument' if tabs else ''}</h2>{tabs}{sections}"


def _overview(report: ReportInput) -> str:
    """All cells of the winner side by side."""
    split = any(cell.in_sample is not None for cell in report.cells)
    buckets = (("in sample", _in_sample), ("out of sample", _out_of_sample)) if split else (("", _full),)
    columns = list(HEADLINES)
    if report.objective_metric not in columns:
        columns.insert(0, report.objective_metric)
    head = ["Instrument"]
    head += [f"{text(METRICS[name].label)}<br>{bucket}" for name in columns for bucket, _ in buckets]
    rows = [
        _row(cell.name, [_metric(bucket(cell), name) for name in columns for _, bucket in buckets])
        for cell in report.cells
    ]
    return f'<h2>All instruments</h2><div class="wide">{_table(head, rows)}</div>'


def _full(cell: CellView) -> F64 | None:
    return cell.full


def _in_sample(cell: CellView) -> F64 | None:
    return cell.in_sample


def _out_of_sample(cell: CellView) -> F64 | None:
    return cell.out_of_sample


def _metric(vector: F64 | None, name: str) -> str:
    return figures.metric_text(name, None if vector is None else float(vector[METRIC_NAMES.index(name)]))


def _cell(cell: CellView, at: int, drawings: dict[str, charts.Figure]) -> str:
    hidden = " hidden" if at else ""
    if cell.verdict is not None or not len(cell.day):
        why = text(cell.verdict or "no sessions")
        return f'<section class="cell"{hidden}><p class="note">{text(cell.name)}: no numbers ({why}).</p></section>'
    drawings[f"curve-{at}"] = charts.curve(
        cell.cash, cell.day, cell.equity, cell.comparison, cell.comparison_name, cell.out_of_sample_day
    )
    parts = [
        f'<h3 class="paper">{text(cell.name)}</h3>',
        _tiles(cell),
        f'<div class="figure" id="curve-{at}"></div>',
        _metric_tables(cell),
        _months(cell),
        _trades(cell),
        '<p class="note">ledger <span class="hash">' + text(cell.ledger or NOT_MADE) + "</span><br>"
        'stats <span class="hash">' + text(cell.stats or NOT_MADE) + "</span></p>",
    ]
    return f'<section class="cell"{hidden}>{"".join(parts)}</section>'


def _tiles(cell: CellView) -> str:
    tiles = [(METRICS[name].label, _metric(cell.full, name)) for name in ("total_return", "cagr", "sharpe", "max_dd")]
    if cell.comparison is not None and len(cell.comparison) and cell.cash > 0:
        gained = figures.metric_text("total_return", float(cell.comparison[-1]) / cell.cash - 1.0)
        tiles.insert(1, (cell.comparison_name, gained))
    tiles.append((METRICS["trades"].label, _metric(cell.full, "trades")))
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{text(v)}</b><span>{text(n)}</span></div>' for n, v in tiles)
        + "</div>"
    )


def _metric_tables(cell: CellView) -> str:
    buckets: list[tuple[str, F64 | None]] = [("Full", cell.full)]
    if cell.in_sample is not None or cell.out_of_sample is not None:
        buckets += [("In sample", cell.in_sample), ("Out of sample", cell.out_of_sample)]

    def table(title: str, names: Sequence[str]) -> str:
        rows = []
        for name in names:
            values = [_metric(vector, name) for _, vector in buckets]
            if any(value != figures.ABSENT for value in values):
                rows.append(_row(METRICS[name].label, values))
        return f'<div class="wide">{_table([title, *(name for name, _ in buckets)], rows)}</div>'

    return (
        f'<h3>Metrics</h3><div class="pair">{table("Return and risk", RISK_ROWS)}{table("Trading", TRADING_ROWS)}</div>'
    )


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _months(cell: CellView) -> str:
    table = figures.monthly_returns(cell.cash, cell.day, cell.equity)
    rows = []
    for year, values in table.items():
        shaded = "".join(f"<td{_shade(v, 0.12)}>{_share(v)}</td>" for v in values[:12])
        rows.append(f"<tr><td>{year}</td>{shaded}<td{_shade(values[12], 0.4)}>{_share(values[12])}</td></tr>")
    return f'<h3>Monthly returns, percent</h3><div class="wide">{_table(["", *_MONTHS, "Year"], rows, "months")}</div>'


def _share(value: float | None) -> str:
    return "" if value is None else figures.signed(value * 100, ".1f")


def _shade(value: float | None, strongest: float) -> str:
    """Return a cell style: blue for gains, red for losses, as strong as the return is large."""
    if value is None or value == 0.0:
        return ""
    colour = "31,92,153" if value > 0 else "180,72,60"
    return f' style="background:rgba({colour},{min(abs(value) / strongest, 1.0) * 0.5:.2f})"'


def _trades(cell: CellView) -> str:
    if not cell.trades:
        return '<h3>Trades</h3><p class="note">none</p>'
    head = ["Side", "Entry", "Price", "Exit", "Price", "Quantity", "Profit", "of entry", "Sessions", "Why it ended"]
    rows = []
    for trade in cell.trades[:TRADES_MAX]:
        values = [
            iso(trade.entry_day),
            _price(trade.entry_price),
            "open" if trade.exit_day is None else iso(trade.exit_day),
            figures.ABSENT if trade.exit_price is None else _price(trade.exit_price),
            f"{trade.quantity:,.6f}".rstrip("0").rstrip("."),
            figures.signed(trade.pnl, ",.2f"),
            figures.metric_text("expectancy_pct", trade.pnl_pct),
            figures.ABSENT if trade.sessions is None else f"{trade.sessions:,}",
            trade.reason,
        ]
        rows.append(_row(trade.side, values))
    left = len(cell.trades) - len(rows)
    note = f'<p class="note">The first {len(rows):,} of {len(cell.trades):,} trades.</p>' if left else ""
    return f'<h3>Trades</h3><div class="wide scroll">{_table(head, rows)}</div>{note}'


def _price(value: float) -> str:
    """Return a price with two decimals, or as many as it needs, up to eight."""
    whole, _, decimals = f"{value:,.8f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _parameters(report: ReportInput, drawings: dict[str, charts.Figure]) -> str:
    if not report.trials:
        return ""
    points = [(trial.values, trial.objective) for trial in report.trials]
    found = figures.parameter_map(report.parameters, points, report.trials[0].values, report.direction)
    if found is None:
        return ""
    label = METRICS[report.objective_metric].label
    drawings["map"] = charts.parameter_figure(found, label, report.direction)
    rest = ""
    if found.best_of_rest:
        rest = f" Each place shows the best over {text(', '.join(found.best_of_rest))}."
    note = f'<p class="note">{text(report.objective)}. The winner is outlined.{rest}</p>'
    return f'<h2>Parameters</h2><div class="figure" id="map"></div>{note}'


def _leaders(report: ReportInput) -> str:
    if len(report.trials) < 2:
        return ""
    head = ["Rank", *map(text, report.parameters), f"{text(METRICS[report.objective_metric].label)}<br>objective"]
    head += [text(title) for title, _ in report.trial_metrics] + ["Fingerprint"]
    rows = []
    for rank, trial in enumerate(report.trials[:LEADERS_MAX], 1):
        values = [_plain(value) for value in trial.values]
        values.append(figures.metric_text(report.objective_metric, trial.objective))
        pairs = zip(report.trial_metrics, trial.metrics, strict=True)
        values += [figures.metric_text(name, value) for (_, name), value in pairs]
        row = _row(str(rank), values, "best" if rank == 1 else "")
        digest = f'<td><span class="hash">{text((trial.fingerprint or figures.ABSENT)[:12])}</span></td>'
        rows.append(row.replace("</tr>", digest + "</tr>"))
    note = f'<p class="note">The first {len(rows)} of {len(report.trials):,} ranked trials.</p>'
    return f'<h2>Leaderboard</h2><div class="wide">{_table(head, rows)}</div>{note}'


def _plain(value: object) -> str:
    if isinstance(value, float):
        return figures.signed(value, ".6g")
    return str(value)


def _assumptions(report: ReportInput) -> str:
    settings = _definitions((name, text(value)) for name, value in report.settings)
    incidents = f"<h2>Counted in the winner</h2>{_lines(report.incidents)}" if report.incidents else ""
    return f"<h2>Assumptions</h2>{_lines(report.assumptions or ('none',))}{incidents}<h2>Settings</h2>{settings}"


def _reproduce(report: ReportInput) -> str:
    commands = "\n".join(report.reproduce)
    return (
        f"<h2>How to reproduce</h2><pre><code>{text(commands)}</code></pre>"
        '<p class="note">Same spec, same rows, same version of the semantics: the fingerprint is the same to the bit, '
        "on any machine and with any number of workers.</p>"
    )
