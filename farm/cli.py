"""The local commands of ``farm``: what needs one process and a store, and no workers.

A command parses its flags, calls one function of ``farm.api``, and shows what came back: text for people, or with
``--json`` one document on standard output and nothing else. Heavy imports happen inside the commands, so that help and
usage errors are instant. ``cluster/cli.py`` mounts these and adds ``run``.

Whatever goes wrong leaves as one FarmError: those of the parser become a UsageError, a place that is one of our flags
is named as the user types it, and standard output that cannot be written is a WriteFailed.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from farm import show
from farm.values.errors import FarmError, Interrupted, UsageError, WriteFailed

if TYPE_CHECKING:
    from farm.values.settings import FarmSettings

StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", help="a path, file://, s3://bucket/prefix, memory: (or FARM_STORE)")
]
DatasetOption = Annotated[str, typer.Option("--dataset", help="dataset to ingest into (or FARM_DATASET; default main)")]
SnapshotOption = Annotated[str, typer.Option("--snapshot", metavar="ID", help="a snapshot other than the newest")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON document on standard output, nothing else")]
TrialsOption = Annotated[bool, typer.Option("--trials", help="with --json: all trials, however many there are")]
CellsOption = Annotated[bool, typer.Option("--cells", help="with --json: all cells, however many there are")]
NAME = "TRIAL[/INSTRUMENT]"
"""TRIAL is a number, or 8 or more digits of a trial digest."""
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


FLAGS = ("kind", "map", "tz", "stamp", "symbol", "type", "calendar", "price_scale", "skip_rows",
         "row_group_rows", "codec", "dataset", "snapshot", "threads")  # fmt: skip
"""Places of a UsageError that are flags here; the Python interface calls them by these names."""
STOPPED_BY_USER = 130


def call(app: typer.Typer, arguments: Sequence[str], known: Sequence[str]) -> None:
    """Run the command that ``arguments`` name; ``known`` are all commands.

    Errors: FarmError of any class; BrokenPipeError when the reader of standard output went away.
    """
    try:
        code = app(list(arguments), prog_name="farm", standalone_mode=False)
    except TyperException as error:
        raise _usage_error(error, arguments, known) from error
    except UsageError as error:
        if error.place not in FLAGS:
            raise
        place = "--" + error.place.replace("_", "-")
        raise UsageError(error.message, place=place, allowed=error.allowed, hint=error.hint) from error
    if code == STOPPED_BY_USER:  # what typer makes of Ctrl-C where no command has caught it
        raise Interrupted("stopped by the user", hint="nothing is half done; run the same command again")


def _usage_error(error: TyperException, arguments: Sequence[str], known: Sequence[str]) -> UsageError:
    """Return what the parser of the command line refused, in our words."""
    context, param = getattr(error, "ctx", None), getattr(error, "param", None)
    command = (
        context.command_path if context else " ".join(["farm", *(name for name in arguments[:1] if name in known)])
    )
    hint = f"{command} --help lists the options"
    place, message = "", error.format_message().rstrip(".")
    if param is not None:
        place = max(param.opts, key=len) if param.param_type_name == "option" else (param.metavar or param.name)
        message = error.message.rstrip(".") or "not given"
    elif (option := getattr(error, "option_name", "")) and message.startswith("Option"):
        place, message = option, message.removeprefix(f"Option {option!r} ")
    if message.startswith("No such command") and arguments[0] not in known:
        close = difflib.get_close_matches(arguments[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "farm --help says what each does"
        return UsageError(f"no such command: {arguments[0]!r}", allowed=", ".join(known), hint=hint)
    return UsageError(message[:1].lower() + message[1:], place=place, hint=hint)


def say(text: str) -> None:
    """Write the answer to standard output, all of it. Errors: WriteFailed; BrokenPipeError when nobody reads."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer cannot be written; Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise WriteFailed(
            f"cannot be written: {error.strerror}", place="standard output", hint="make room, or write elsewhere"
        ) from error


def as_line(document: object) -> str:
    """Return what ``--json`` prints, on one line: indenting costs fifteen times the time."""
    return json.dumps(document, allow_nan=False)


def mount(app: typer.Typer, summaries: Mapping[str, str]) -> None:
    """Add the local commands to ``app``; ``summaries`` holds the one line that help shows for each."""
    for name, command in COMMANDS.items():
        app.command(name, help=summaries[name])(command)
    spec = make_app(help=summaries["spec"])
    spec.command("check", help="validate a spec and show what it resolves to")(spec_check)
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
        str,
        typer.Option(
            metavar="start|end|date", help="what a stamp names: the start or end of a bar, or a date and nothing else"
        ),
    ] = "",
    symbol: Annotated[str, typer.Option(help="the symbol of a file that has no symbol column")] = "",
    type_: Annotated[str, typer.Option("--type", help="type of new instruments (stock)")] = "",
    calendar: Annotated[str, typer.Option(help="calendar of new instruments (XNYS)")] = "",
    price_scale: Annotated[
        int | None, typer.Option(min=0, max=8, help="decimals to round prices to; default exact")
    ] = None,
    sort: Annotated[bool, typer.Option("--sort", help="sort rows that are not in order of time")] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="leave out splits and dividends of symbols that have no bars")
    ] = False,
    skip_rows: Annotated[
        str, typer.Option("--skip-rows", metavar="unknown-session", help="leave out rows on days without a session")
    ] = "",
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
            skip_unknown=skip_unknown,
            skip_rows=[part.strip() for part in skip_rows.split(",") if part.strip()],
            row_group_rows=row_group_rows,
            codec=codec,
        )
    document = summary.to_json()
    say(as_line(document) if as_json else show.ingest_text(document))


def start_kernels() -> None:
    """Load numba the quick way, before a command imports what is built on kernels."""
    from farm.kernels.startup import start_numba

    start_numba()


def parse_map(text: str) -> dict[str, str]:
    """Return ``ours=theirs,...`` as a mapping; ``ours=`` is a column without a name, as an index often is.

    Errors: UsageError naming the part that is no pair.
    """
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ours, equals, theirs = part.partition("=")
        if not equals or not ours.strip():
            raise UsageError(
                f"{part!r} is no pair",
                place="--map",
                allowed="ours=theirs,... (nothing after = for a column without a name)",
                hint="for example --map symbol=ticker,ts=day",
            )
        if ours.strip() in pairs:
            raise UsageError(f"{ours.strip()!r} is mapped twice", place="--map", hint="give each of our columns once")
        pairs[ours.strip()] = theirs.strip()
    return pairs


def plan(
    spec: SpecArgument,
    store: StoreOption = "",
    snapshot: SnapshotOption = "",
    as_json: JsonOption = False,
) -> None:
    start_kernels()
    from farm import api

    document = api.plan(read_spec(spec), settings_of(store), snapshot=snapshot or None).to_json()
    say(as_line(document) if as_json else show.plan_text(document))


def status(
    study: Annotated[
        str, typer.Argument(metavar="[STUDY]", help="one study; without it the datasets and all studies")
    ] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    document = api.status(settings_of(store), study=study or None)
    say(as_line(document) if as_json else show.status_text(document))


def results(
    study: StudyArgument,
    store: StoreOption = "",
    snapshot: SnapshotOption = "",
    top: Annotated[int, typer.Option(min=1, help="rows of the leaderboard")] = 10,
    trial: Annotated[str, typer.Option("--trial", metavar=NAME, help="this trial alone, or one cell of it")] = "",
    trials: TrialsOption = False,
    cells: CellsOption = False,
    as_json: JsonOption = False,
) -> None:
    start_kernels()
    from farm import api

    outcome = api.results(study_or_spec(study), settings_of(store), snapshot=snapshot or None)
    if trial:
        from farm.show_cell import trial_text

        found = outcome.trial(trial)
        say(as_line(found) if as_json else trial_text(found))
    else:
        text = as_line(outcome.document(trials=trials, cells=cells)) if as_json else show.outcome_text(outcome, top)
        say(text)


def report(
    study: StudyArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="where the HTML goes")] = Path(
        "report.html"
    ),
    trial: Annotated[str, typer.Option("--trial", metavar=NAME, help="another than the winner, or one cell")] = "",
    store: StoreOption = "",
    snapshot: SnapshotOption = "",
    as_json: JsonOption = False,
) -> None:
    start_kernels()
    from farm import api

    settings = settings_of(store)
    size = api.report(study_or_spec(study), settings, output, snapshot=snapshot or None, trial=trial or None)
    text = f"wrote {output} ({show.bytes_text(size)}, one file, opens offline)"
    say(as_line({"report": str(output), "bytes": size}) if as_json else text)


def explain(
    cell: Annotated[
        str,
        typer.Argument(metavar="CELL", help="TRIAL/INSTRUMENT (a number or digits of a trial digest), or a cell key"),
    ],
    study: Annotated[str, typer.Option("--study", metavar="STUDY", help="look in this study, by whose numbers")] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    start_kernels()
    from farm import api
    from farm.show_cell import explain_text

    document = api.explain(cell, settings_of(store), study=study or None)
    say(as_line(document) if as_json else explain_text(document))


def clean(
    older: Annotated[str, typer.Option("--older", metavar="AGE", help="12h, 90d, 26w: of studies older than that")],
    is_dry: Annotated[bool, typer.Option("--dry-run", help="count, and remove nothing")] = False,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    from farm import api

    document = api.clean(settings_of(store), older=older, is_dry=is_dry).to_json()
    say(as_line(document) if as_json else show.cleaning_text(document))


def spec_check(spec: SpecArgument, as_json: JsonOption = False) -> None:
    from farm import api

    document = api.check_spec(read_spec(spec))
    say(as_line(document) if as_json else show.spec_text(document))


def read_spec(argument: str) -> Mapping[str, Any] | Path:
    """Return the spec's path, or for ``-`` the document on standard input. Errors: SpecError."""
    if argument != "-":
        return Path(argument)
    from farm.spec.reader import read_document

    return read_document(sys.stdin.buffer.read(), name="standard input")


def study_or_spec(argument: str) -> str | Path:
    """Return the path of a spec, where ``argument`` names a file or ends in .json, or a study id."""
    path = Path(argument)
    return path if argument.endswith(".json") or path.is_file() else argument


COMMANDS: Mapping[str, Callable[..., None]] = {
    "ingest": ingest,
    "plan": plan,
    "status": status,
    "results": results,
    "report": report,
    "explain": explain,
    "clean": clean,
}
