"""What is kept of a run: end equity, metric vectors, and the two digests that say whether two runs are the same.

    ledger = SHA-256 over   header: JSON without blanks, ASCII, one line
                            per kind of record that occurs, in the order of FIELDS:
                                [kind, count, names of the fields that are not 0 throughout]: JSON, one line
                                    these fields as columns, one after the other
                            session days, session equity
    stats  = SHA-256 over   the metric vector of the whole run

Rules: every value is eight bytes, little-endian: instants, days, ids, lots and money as int64, prices as float64 bits
with one NaN and no negative zero. The header holds the version of this encoding, the hash of the resolved spec, the
versions of semantics and numerics, the starting cash, the number of sessions, the sleeve ids in spec order, and the ids
of the instruments in the records, bytewise; records name an instrument by its place in that list. So neither the
position of an instrument in some market nor the instruments beside it change a bit, nor does the layout of the records
in memory. FIELDS is published (docs/determinism.md): new fields and kinds go to its end, are never moved, and mean "not
used" by 0, so a run that does not use them keeps its digest. Digests never see a path, a clock, a host, a thread or a
cache. Source: domain.md 3.7.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from farm.engine.ledger import Records, Run
from farm.kernels import records
from farm.results.measure import Stretch, Vectors, measure_run
from farm.values.arrays import F64, I32, I64, U8, readonly
from farm.values.canon import canonical_array_bytes, sha256_hex
from farm.values.metrics import METRIC_NAMES
from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION

_ORDER = "ts session sleeve instrument kind side lots filled_lots status done_ts fee_micro price limit_price"
_TRADE = (
    "sleeve instrument side lots entry_order entry_ts entry_session entry_notional_micro exit_order exit_kind exit_ts"
    " exit_session bars pnl_micro fees_micro dividends_micro entry_price exit_price"
)
FORMAT = "ledger-2"
FIELDS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(names.split())
    for kind, names in (
        ("orders", _ORDER),
        ("fills", "ts session order sleeve instrument lots amount_micro slippage_micro opens price ref_price"),
        ("cash_events", "ts session kind sleeve instrument ref cash_micro receivable_micro"),
        ("trades", _TRADE),
        ("open_trades", _TRADE),
    )
}
"""The fields of each kind of record in the order in which they are hashed, whatever their order in memory."""
PRICES = frozenset(("price", "limit_price", "ref_price", "entry_price", "exit_price"))
"""The fields that are float64."""
_ONE = readonly(np.array([0, -1], np.int64))  # of a run on one instrument: every place is where it was


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

    Shapes and units as for ``farm.results.measure.measure_run``. A run that met ruin says so among its assumptions'
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


NULL_STATS = stats_digest(np.full(len(METRIC_NAMES), np.nan))
"""The stats digest of a cell that was not simulated (verdict ``no_data``): every metric null."""


def ledger_digest(run: Run, spec_hash: str) -> str:
    """Return the digest, hex, of everything that happened in ``run``."""
    sections = (run.orders, run.fills, run.cash_events, run.trades, run.open_trades)
    places, used = _places(run, sections)
    sessions = len(run.session_day)
    digest = hashlib.sha256(_head(spec_hash, run.cash_micro, sessions, run.sleeves, used))
    for kind, section in zip(FIELDS, sections, strict=True):
        if len(section):
            table = _columns(section, kind, places)
            is_used = np.bitwise_or.reduce(table, axis=1) != 0
            digest.update(b'["%b",%d,%b]\n' % (kind.encode(), len(section), _names(kind, is_used.tobytes())))
            digest.update(table.compress(is_used, axis=0).data)
    digest.update(session_days(run.session_day))
    digest.update(np.ascontiguousarray(run.equity, "<i8").data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Published:
    """Where the published fields stand in the records: what ``kernels/trials.py`` packs. Shapes: those of ``Kept``."""

    fields: I64
    prices: U8
    instrument: I64


@cache
def published() -> Published:
    """Return the places of FIELDS in the records of kernels."""
    dtypes = (records.ORDER, records.FILL, records.CASH, records.TRADE, records.TRADE)
    width = max(map(len, FIELDS.values()))
    fields = np.full((len(FIELDS), width), records.NONE, np.int64)
    prices = np.zeros((len(FIELDS), width), np.uint8)
    instrument = np.zeros(len(FIELDS), np.int64)
    for kind, (names, dtype) in enumerate(zip(FIELDS.values(), dtypes, strict=True)):
        found = dtype.fields
        assert found is not None
        fields[kind, : len(names)] = [found[name][1] // 8 for name in names]
        prices[kind, : len(names)] = [name in PRICES for name in names]
        instrument[kind] = found["instrument"][1] // 8
    return Published(readonly(fields), readonly(prices), readonly(instrument))


@dataclass(frozen=True)
class Header:
    """What the header of a ledger is made of, and its session days as ``session_days`` gives them, for all trials of a
    subject; ``instruments``: ids of what is traded, bytewise."""

    cash_micro: int
    days: bytes
    sleeves: tuple[str, ...]
    instruments: tuple[str, ...]


def packed_digests(pack: I64, header: Header, spec_hash: str) -> tuple[bytes, bytes]:
    """Return the ledger and the stats digest, 32 bytes each, of the books in a pack (``kernels/trials.py``)."""
    sessions, assets = len(header.days) // 8, len(header.instruments)
    at = 1 + len(METRIC_NAMES)
    stats = hashlib.sha256(pack[1:at].data).digest()
    equity = pack[at : at + sessions]
    at += sessions
    named = pack[at : at + assets].tolist()
    at += assets
    used = [name for name, is_used in zip(header.instruments, named, strict=True) if is_used]
    digest = hashlib.sha256(_head(spec_hash, header.cash_micro, sessions, header.sleeves, used))
    for kind, names in FIELDS.items():
        count, bits = int(pack[at]), int(pack[at + 1])
        at += 2
        if count:
            digest.update(b'["%b",%d,%b]\n' % (kind.encode(), count, _names_of(kind, bits)))
            end = at + count * bits.bit_count()
            digest.update(pack[at:end].data)
            at = end
        assert bits >> len(names) == 0
    digest.update(header.days)
    digest.update(equity.data)
    return digest.digest(), stats


def _head(spec_hash: str, cash_micro: int, sessions: int, sleeves: Sequence[str], used: Sequence[str]) -> bytes:
    header = [FORMAT, spec_hash, SEMANTICS_VERSION, NUMERICS_PROFILE, cash_micro, sessions, list(sleeves), list(used)]
    # Texts and integers in a fixed order, escaped to ASCII: the C encoder, four times faster than canonical_json.
    return json.dumps(header, separators=(",", ":")).encode() + b"\n"


def session_days(day: I32) -> bytes:
    """Return session days as they are hashed."""
    return np.ascontiguousarray(day, "<i8").tobytes()


@cache
def _names_of(kind: str, bits: int) -> bytes:
    return _names(kind, bytes(bits >> place & 1 for place in range(len(FIELDS[kind]))))


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


def _columns(section: Records, kind: str, places: I64) -> I64:
    """Return the fields of the records as rows of eight-byte values, instruments and floats canonical."""
    packed, is_packed, instrument, prices = _layout(kind, section.dtype)
    if not is_packed:
        section, given = np.empty(len(section), packed), section
        for name in FIELDS[kind]:
            section[name] = given[name]
    table: I64 = np.ascontiguousarray(section).view("<i8").reshape(len(section), -1).T.copy()
    if places is not _ONE:
        table[instrument] = places[table[instrument]]
    for rows in prices:
        values = table[rows].view("<f8")
        values += 0.0  # turns -0.0 into +0.0 and changes nothing else
        unknown = values != values
        if unknown.any():
            values[unknown] = np.nan
    return table


@cache
def _layout(kind: str, dtype: np.dtype[np.void]) -> tuple[np.dtype[np.void], bool, int, tuple[slice, ...]]:
    """Return the record type of the published fields side by side, whether ``dtype`` is that, the place of the
    instrument, and those of the prices, neighbours together."""
    names = FIELDS[kind]
    packed = np.dtype([(name, "<f8" if name in PRICES else "<i8") for name in names])
    edges = np.flatnonzero(np.diff([False, *(name in PRICES for name in names), False])).tolist()
    return packed, dtype == packed, names.index("instrument"), tuple(map(slice, edges[::2], edges[1::2]))


@cache
def _names(kind: str, is_used: bytes) -> bytes:
    """Return the names of the used fields as JSON; there are few such lists."""
    names = [name for name, used in zip(FIELDS[kind], is_used, strict=True) if used]
    return json.dumps(names, separators=(",", ":")).encode()
