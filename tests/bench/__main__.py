"""``python -m tests.bench [--only ROW ...] [--repeats N] [--out FILE]``: measure, print a table, write JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from farm.values.settings import FarmSettings
from tests.bench import catalog, engine, panels, processes, scheduler, signals, studies, wide
from tests.bench.harness import Row, forget_peak, peak_bytes, show, write_json

ROWS: Mapping[str, Callable[[FarmSettings, int], Row | list[Row]]] = {
    "loop": engine.event_loop,
    "universe": engine.universe,
    "cell": studies.one_cell,
    "panels": panels.panels,
    "symbols": wide.one_strategy,
    "pairs": wide.pairs,
    "wide": wide.wide,
    "planning": wide.planning,
    "signals": signals.signals,
    "workers": studies.on_workers,
    "catalog": studies.from_catalog,
    "cells": catalog.many_cells,
    "family": catalog.in_families,
    "scheduler": scheduler.events,
    "recording": scheduler.recording,
    "recovery": scheduler.recovery,
    "kernels": processes.kernels,
    "process": processes.fresh_process,
    "help": processes.help_time,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--repeats", type=int, default=5, help="how often each row is measured, after once in vain")
    parser.add_argument("--out", type=Path, default=Path("bench-out/bench.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    measured: list[Row] = []
    with studies.sample_store() as settings:
        for name in arguments.only:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            forget_peak()
            found = ROWS[name](settings, arguments.repeats)
            rows = found if isinstance(found, list) else [found]
            measured += [replace(row, peak_bytes=peak_bytes()) if row.peak_bytes is None else row for row in rows]
    print(show(measured))
    write_json(measured, arguments.out)
    print(f"\nwrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
