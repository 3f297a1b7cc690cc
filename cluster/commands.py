"""All commands of ``farm`` as one app: the local ones, and ``run``, here or on workers.

Ray is loaded only when workers are asked for.
"""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated

import typer

from farm import cli, show


def make_app(about: str, summaries: Mapping[str, str], epilogue: str) -> typer.Typer:
    """Return the app; ``summaries`` holds the one line that help shows for each command."""
    app = cli.make_app(name="farm", help=about, epilog=epilogue)
    cli.mount(app, summaries)
    app.command("run", help=summaries["run"])(run)
    return app


def run(
    spec: cli.SpecArgument,
    workers: Annotated[int, typer.Option(min=0, help="local workers (Ray actors); 0 runs in this process")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="threads per process (or FARM_THREADS; 1)")] = None,
    trial: Annotated[str, typer.Option(metavar="N|best", help="one trial of the study, as a study of its own")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="take nothing from the catalog; compare at the end")] = False,
    top: Annotated[int, typer.Option(min=1, help="rows of the leaderboard")] = 10,
    trials: cli.TrialsOption = False,
    cells: cli.CellsOption = False,
    store: cli.StoreOption = "",
    snapshot: cli.SnapshotOption = "",
    as_json: cli.JsonOption = False,
) -> None:
    cli.start_kernels()
    from farm import api

    settings = cli.settings_of(store)
    chosen = api.load(cli.read_spec(spec))
    if trial:
        chosen = api.only(chosen, trial, settings, snapshot=snapshot or None)
    # A script that reads errors as JSON from a pipe gets nothing else there.
    is_shown = not as_json or sys.stderr.isatty()
    with show.ProgressLine(sys.stderr) if is_shown else nullcontext() as progress:
        if workers:
            from cluster.local_ray import run_on_workers

            outcome = run_on_workers(
                chosen,
                settings.store.url,
                workers=workers,
                threads=threads or settings.threads,
                snapshot=snapshot or None,
                fresh=fresh,
                progress=progress,
                settings=settings,
            )
        else:
            outcome = api.run(
                chosen, settings, snapshot=snapshot or None, fresh=fresh, threads=threads, progress=progress
            )
    text = cli.as_line(outcome.document(trials=trials, cells=cells)) if as_json else show.outcome_text(outcome, top)
    cli.say(text)
