"""What is kept of a run: end equity, metric vectors, and the two digests that say whether two runs are the same.

    ledger = SHA-256 over   header: JSON without blanks, ASCII, one line
                            orders, fills, cash events, closed trades, open trades, session days, session equity
    stats  = SHA-256 over the metric vector of the whole run

Rules: everything is hashed little-endian and column by column as the record types say: instants, ids, lots and money
as int64, prices as float64 bits with one NaN and no negative zero. The header holds the hash of the resolved spec, the
versions of semantics and numerics, the starting cash, the length of each section, the sleeve ids in spec order, and
the ids of the instruments in the records, bytewise; records name an instrument by its place in that list. So neither
the position of an instrument in some market nor the instruments beside it change a bit. Digests never see a path, a
clock, a host, a thread or a cache. Source: domain.md 3.7.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from farm.engine.ledger import Records, Run
from farm.result.metrics import METRICS, Stretch, Vectors, measure_run
from farm.values.arrays import F64, I64, readonly
from farm.values.canon import canonical_array_bytes, sha256_hex
from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION

FORMAT = "ledger-1"
_ONE = readonly(np.array([0, -1], np.int64))


@dataclass(frozen=True, eq=False)
class CellResult:
    """The result of one cell: ``vectors`` (whole run, in sample, out of sample) and the digests in hex."""

    equity_end_micro: int
    vectors: Vectors
    ledger: str
    stats: str
    assumptions: tuple[str, ...]
    counts: Mapping[str, int]


def cell_result(
    run: Run,
    spec_hash: str,
    *,
    ann: float,
    rf: float,
    benchmark_returns: F64 | None = None,
    in_sample: Stretch | None = None,
    out_of_sample: Stretch | None = None,
) -> CellResult:
    """Return what is kept of ``run``; ``spec_hash`` is the hash of the cell's resolved spec.

    Shapes and units as for ``farm.result.metrics.measure_run``. A run that met ruin says so among its assumptions'
    neighbours, the counts: ``ruin`` is 1.
    """
    vectors = measure_run(
        run,
        ann=ann,
        rf=rf,
        benchmark_returns=benchmark_returns,
        in_sample=in_sample,
        out_of_sample=out_of_sample,
    )
    counts = {**run.counts, "ruin": 1} if run.ruin else run.counts
    return CellResult(
        equity_end_micro=run.equity_end_micro,
        vectors=vectors,
        ledger=ledger_digest(run, spec_hash),
        stats=stats_digest(vectors[0]),
        assumptions=run.assumptions,
        counts=counts,
    )


def stats_digest(vector: F64) -> str:
    """Return the digest, hex, of a metric vector: float64 bits in fixed order, one NaN for null."""
    return sha256_hex(canonical_array_bytes(vector))


NULL_STATS = stats_digest(np.full(len(METRICS), np.nan))
"""The stats digest of a cell that was not simulated (verdict ``no_data``): every metric null."""


def ledger_digest(run: Run, spec_hash: str) -> str:
    """Return the digest, hex, of everything that happened in ``run``."""
    sections = (run.orders, run.fills, run.cash_events, run.trades, run.open_trades)
    places, used = _places(run, sections)
    header = [
        FORMAT,
        spec_hash,
        SEMANTICS_VERSION,
        NUMERICS_PROFILE,
        run.cash_micro,
        [len(section) for section in sections],
        len(run.session_day),
        list(run.sleeves),
        used,
    ]
    # Texts and integers in a fixed order, escaped to ASCII: the C encoder, four times faster than canonical_json.
    digest = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode() + b"\n")
    for section in sections:
        if len(section):
            digest.update(_canonical_records(section, places).data)
    digest.update(np.ascontiguousarray(run.session_day, "<i4").data)
    digest.update(np.ascontiguousarray(run.equity, "<i8").data)
    return digest.hexdigest()


def _places(run: Run, sections: tuple[Records, ...]) -> tuple[I64, list[str]]:
    """Return, by position in ``run.instruments``, the place among the ids that occur; and these ids, bytewise.

    Position -1 (an event of the account) stays -1: it reads the last element.
    """
    if len(run.instruments) == 1 and len(run.orders):
        return _ONE, list(run.instruments)  # whatever has records of an instrument has orders for it
    occurs = np.zeros(len(run.instruments) + 1, np.bool_)
    for section in sections:
        occurs[section["instrument"]] = True
    occurs[-1] = False
    used = [run.instruments[position] for position in np.flatnonzero(occurs).tolist()]
    ordered = sorted(used, key=str.encode)
    places = np.full(len(occurs), -1, np.int64)
    for place, name in enumerate(ordered):
        places[run.instruments.index(name)] = place
    return places, ordered


def _canonical_records(section: Records, places: I64) -> I64:
    """Return the records with canonical instruments and floats. All fields are eight bytes wide: int64 or float64."""
    width, column, floats = _layout(section.dtype)
    integers: I64 = np.ascontiguousarray(section).view("<i8").reshape(len(section), width).copy()
    integers[:, column] = places[integers[:, column]]
    if floats < width:
        # Prices are the last fields. Adding +0.0 turns -0.0 into +0.0 and changes nothing else.
        prices = integers.view("<f8")[:, floats:]
        prices += 0.0
        unknown = prices != prices
        if unknown.any():
            prices[unknown] = np.nan
    return integers


@cache
def _layout(dtype: np.dtype[np.void]) -> tuple[int, int, int]:
    """Return the number of fields, the place of the instrument, and that of the first price (or the number)."""
    names = dtype.names or ()
    floats = [at for at, name in enumerate(names) if dtype[name].kind == "f"]
    return len(names), names.index("instrument"), floats[0] if floats else len(names)
