"""Golden fingerprints of a study over real bars: stops, costs, a split of shares, moving averages of both kinds.

They change only in a commit that says why. A change of meaning bumps the semantics version; any other change of these
bits is a bug. ``tests/golden/study.json`` is what ``python -m tests.work.test_golden`` prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from farm.columns.cache import ColumnCache
from farm.work.run import run_in_process
from tests.study.support import cross, sample_store

GOLDEN = Path(__file__).parent.parent / "golden" / "study.json"


def specs() -> dict[str, dict[str, Any]]:
    """Return the studies: AAPL's split of 2005-02-28 is in the window."""
    window = {"start": "2004-01-02", "end": "2006-12-29", "tickers": ("AAPL", "IBM", "MSFT"), "benchmark": "IBM"}
    plain = cross(**window)
    stopped = cross(indicator="ema", **window)
    stopped["strategy"]["sleeves"][0]["stops"] = [{"type": "stop", "pct": 0.05}, {"type": "trail", "pct": 0.1}]
    shared = cross(each=False, **window, account="reg_t")
    shared["strategy"]["sleeves"][0]["size"] = {"mode": "equal"}
    return {"sma": plain, "ema with stops": stopped, "one account": shared}


def found() -> dict[str, Any]:
    """Return trial keys and fingerprints, and the ledger digests of the first trial, by study."""
    result = {}
    for name, spec in specs().items():
        trials = run_in_process(spec, sample_store(), cache=ColumnCache(1 << 28)).document()["trials"]
        result[name] = {
            "keys": [trial["key"] for trial in trials],
            "fingerprints": [trial["fingerprint"] for trial in trials],
            "ledgers": [cell["fingerprint"]["ledger"] for cell in trials[0]["cells"]],
        }
    return result


def test_the_bits_are_those_they_were() -> None:
    assert json.loads(GOLDEN.read_text()) == found()


if __name__ == "__main__":
    json.dump(found(), sys.stdout, indent=1)
