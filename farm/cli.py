"""The local commands of ``farm``: what needs one process and a store, and no workers.

A command parses its flags, calls one function of ``farm.api``, and shows what came back: text for people, or with
``--json`` one document on standard output and nothing else. Heavy imports happen inside the commands, so that help and
usage errors are instant. ``cluster/cli.py`` mounts these and adds ``run``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm import show
from farm.values.errors import FarmError, UsageError

if TYPE_CHECKING:
    from farm.values.settings import FarmSettings

StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", help="a path, file://, s3://bucket/prefix, memory: (or FARM_STORE)")
]
DatasetOption = Annotated[str, typer.Option("--dataset", help="dataset to ingest into (or FARM_DATASET; default main)")]
SnapshotOption = Annotated[str, typer.Option("--snapshot", metavar="ID", help="a snapshot other than the newest")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON document on standard output, nothing else")]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="a study id (or its first characters), or a spec")]
SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="a study spec, a JSON file; - reads standard input")]


def make_app(**options: Any) -> typer.Typer:
    """Return an empty command group with the manners of this program."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def mount(app: typer.Typer, summaries: Mapping[str, str]) -> None:
    """Add the local commands to ``app``; ``summaries`` holds the one line that help shows for each."""
    for name, command in COMMANDS.items():
        app.command(name, help=summaries[name])(command)
    spec = make_app(help=summaries["spec"])
    spec.command("check", help="validate a spec and show what it resolves to")(spec_check)
    spec.callback()(lambda: None)
    app.add_typer(spec, name="spec")


def settings_of(store: str) -> FarmSettings:
    """Return the settings of environment and flags. Errors: UsageError without a store."""
    from farm.values.settings import from_environment

    settings = from_environment()
    if store:
        settings = settings.with_store(store)
    if not settings.store.url:
        raise UsageError(
            "no store is named",
            place="--store",
            allowed="a path, file://, s3://bucket/prefix",
            hint="give --store URL, or set FARM_STORE",
        )
    return settings


def print_json(document: object) -> None:
    """Print the document that ``--json`` asks for, on one line: indenting costs fifteen times the time."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def print_error(error: FarmError, *, as_json: bool) -> None:
    """Print an error to standard error: for people on up to three lines, or as one JSON object."""
    if as_json:
        sys.stderr.write(json.dumps(error.to_json()) + "\n")
        return
    lines = [f"error: {error.place}: {error.message}" if error.place else f"error: {error.message}"]
    if error.allowed:
        lines.append(f"  allowed: {error.allowed}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    sys.stderr.write("\n".join(lines) + "\n")


def ingest(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="`sample`, or a CSV or Parquet file: a path or any fsspec URL")
    ],
    kind: Annotated[str, typer.Option(help="kind of data")] = "stock_daily",
    mapping: Annotated[str, typer.Option("--map", metavar="OURS=THEIRS,...", help="which column is which")] = "",
    tz: Annotated[str, typer.Option(metavar="ZONE", help="time zone of the stamps, such as America/New_York")] = "",
    stamp: Annotated[
        str, typer.Option(metavar="start|end", help="does a stamp name the start or the end of a bar")
    ] = "",
    symbol: Annotated[str, typer.Option(help="the symbol of a file that has no symbol column")] = "",
    type_: Annotated[str, typer.Option("--type", help="type of new instruments (stock)")] = "",
    calendar: Annotated[str, typer.Option(help="calendar of new instruments (XNYS)")] = "",
    price_scale: Annotated[
        int | None, typer.Option(min=0, max=8, help="decimals to round prices to; default exact")
    ] = None,
    sort: Annotated[bool, typer.Option("--sort", help="sort rows that are not in order of time")] = False,
    row_group_rows: Annotated[int | None, typer.Option(min=1, help="rows of a Parquet row group")] = None,
    codec: Annotated[str | None, typer.Option(help="compression of the shards: lz4, zstd, snappy, none")] = None,
    store: StoreOption = "",
    dataset: DatasetOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    settings = settings_of(store)
    name = dataset or settings.dataset
    if source == "sample":
        summary = api.ingest_sample(settings, dataset=name)
    else:
        summary = api.ingest(
            source,
            settings,
            dataset=name,
            kind=kind,
            mapping=parse_map(mapping),
            tz=tz or None,
            stamp=stamp or None,
            symbol=symbol or None,
            type=type_ or None,
            calendar=calendar or None,
            price_scale=price_scale,
            sort=sort,
            row_group_rows=row_group_rows,
            codec=codec,
        )
    document = summary.to_json()
    print_json(document) if as_json else print(show.ingest_text(document))


def parse_map(text: str) -> dict[str, str]:
    """Return ``ours=theirs,...`` as a mapping. Errors: UsageError naming the part that is no pair."""
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ours, equals, theirs = part.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            raise UsageError(
                f"{part!r} is no pair", place="--map", allowed="ours=theirs,...", hint="symbol=ticker,ts=day"
            )
        if ours.strip() in pairs:
            raise UsageError(f"{ours.strip()!r} is mapped twice", place="--map")
        pairs[ours.strip()] = theirs.strip()
    return pairs


def plan(
    spec: SpecArgument,
    store: StoreOption = "",
    snapshot: SnapshotOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    document = api.plan(read_spec(spec), settings_of(store), snapshot=snapshot or None).to_json()
    print_json(document) if as_json else print(show.plan_text(document))


def status(
    study: Annotated[
        str, typer.Argument(metavar="[STUDY]", help="one study; without it the datasets and all studies")
    ] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    document = api.status(settings_of(store), study=study or None)
    print_json(document) if as_json else print(show.status_text(document))


def results(
    study: StudyArgument,
    store: StoreOption = "",
    snapshot: SnapshotOption = "",
    top: Annotated[int, typer.Option(min=1, help="rows of the leaderboard")] = 10,
    as_json: JsonOption = False,
) -> None:
    from farm import api

    outcome = api.results(study_or_spec(study), settings_of(store), snapshot=snapshot or None)
    print_json(outcome.document()) if as_json else print(show.outcome_text(outcome, top))


def report(
    study: StudyArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="where the HTML goes")] = Path(
        "report.html"
    ),
    store: StoreOption = "",
    snapshot: SnapshotOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    size = api.report(study_or_spec(study), settings_of(store), output, snapshot=snapshot or None)
    if as_json:
        print_json({"report": str(output), "bytes": size})
    else:
        print(f"wrote {output} ({show.bytes_text(size)}, one file, opens offline)")


def explain(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="a cell key, or its first 8 or more digits")],
    study: Annotated[str, typer.Option("--study", metavar="STUDY", help="look only in this study")] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    document = api.explain(cell, settings_of(store), study=study or None)
    print_json(document) if as_json else print(show.tree_text(document, ""))


def spec_check(spec: SpecArgument, as_json: JsonOption = False) -> None:
    from farm import api

    document = api.check_spec(read_spec(spec))
    print_json(document) if as_json else print(show.spec_text(document))


def read_spec(argument: str) -> str | Path:
    """Return the spec's path, or the text on standard input for ``-``."""
    return sys.stdin.read() if argument == "-" else Path(argument)


def study_or_spec(argument: str) -> str | Path:
    """Return the path of a spec, where ``argument`` names a file or ends in .json, or a study id."""
    path = Path(argument)
    return path if argument.endswith(".json") or path.is_file() else argument


COMMANDS = {
    "ingest": ingest,
    "plan": plan,
    "status": status,
    "results": results,
    "report": report,
    "explain": explain,
}
