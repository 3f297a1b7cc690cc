"""``python -m tests.bench [ROW ...] [--out FILE]``: measure, print a table, write JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import harness, rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("row", nargs="*", choices=[[], *rows.ROWS], help=f"some of {', '.join(rows.ROWS)}; default all")
    parser.add_argument("--out", type=Path, default=Path("bench-out/bench.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    measured: list[harness.Row] = []
    with rows.sample_store() as settings:
        for name in arguments.row or rows.ROWS:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            found = rows.ROWS[name](settings)
            measured += found if isinstance(found, list) else [found]
    print(harness.show(measured))
    harness.write_json(measured, arguments.out)
    print(f"\nwrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
