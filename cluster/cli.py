"""The console command ``farm``.

Help is a table of this file, so that ``farm --help`` imports next to nothing; a test compares it with the commands,
which are in ``farm/cli.py`` and ``cluster/commands.py``. Exit codes: 0 done; 2 usage; 3 spec; 4 data; 5 store;
6 a limit; 7 results disagree; 8 a block failed for good; 130 stopped by the user, finished work kept.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

ABOUT = "Many backtests over market history in a bucket."
SUMMARIES = {
    "ingest": "put market data into a store",
    "plan": "say what a study would read, prune and compute; nothing is run",
    "run": "run a study, in this process or on local workers",
    "status": "datasets and studies of a store, and how far they are",
    "results": "the leaderboard of a study",
    "report": "write one self-contained HTML report of a study",
    "explain": "one cell: who computed it and why, what it read, reused and assumed",
    "clean": "remove lease records and markers of studies that ended long ago",
    "spec": "check a spec without data",
}
EPILOGUE = """\
All but spec take --store URL (or FARM_STORE): a path, file://, s3://bucket/prefix with the usual AWS_* variables.
All take --json, which prints one document on standard output. farm COMMAND --help lists the options.
Exit codes: 2 usage, 3 spec, 4 data, 5 store, 6 a limit, 7 results disagree, 8 a block failed, 130 stopped by you."""


def version_text() -> str:
    """Return what ``farm --version`` prints: what a bug report needs."""
    from importlib.metadata import version

    from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION

    return f"backtest-farm {version('backtest-farm')}, semantics {SEMANTICS_VERSION}, numerics {NUMERICS_PROFILE}\n"


def help_text() -> str:
    """Return what ``farm --help`` prints."""
    width = max(map(len, SUMMARIES))
    commands = "\n".join(f"  {name.ljust(width)}  {line}" for name, line in SUMMARIES.items())
    return f"Usage: farm COMMAND [OPTIONS]\n\n{ABOUT}\n\nCommands:\n{commands}\n\n{EPILOGUE}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console command and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [*arguments[1:], "--help"]
    if not arguments:
        sys.stderr.write(help_text())
        sys.exit(2)
    if arguments[0] in ("-h", "--help", "help", "--version"):
        sys.stdout.write(version_text() if arguments[0] == "--version" else help_text())
        sys.exit(0)
    try:
        sys.exit(_run(arguments))
    except KeyboardInterrupt:
        # Before any command has begun; what would say it better may not be loaded yet.
        sys.stderr.write("error: stopped by the user\n  hint: nothing was begun\n")
        sys.exit(130)


def _run(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code. An error is on standard error by then."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our lines and bars shows question marks
    from cluster.commands import make_app
    from farm.cli import call, print_error
    from farm.store.patience import let_go_on_interrupt
    from farm.values.errors import FarmError

    try:
        with let_go_on_interrupt():
            call(make_app(ABOUT, SUMMARIES, EPILOGUE), arguments, tuple(SUMMARIES))
    except FarmError as error:
        print_error(error, as_json="--json" in arguments)
        return error.exit_code
    except BrokenPipeError:
        return 1  # the reader of a pipe went away; there is nobody to tell
    return 0


if __name__ == "__main__":
    main()
