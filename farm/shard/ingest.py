"""Puts data into a dataset, all or nothing: stage, compare with what is there, write shards, commit one root.

Steps, of which 2 to 4 are repeated on the newer head when somebody else commits meanwhile:

1. Read and check the source (``source``, ``parse``, ``stage``). Nothing is written before all of it has passed.
2. Find the instruments. Bars of an unknown symbol create theirs; splits and dividends of one are an error. Every day
   must be a session of the instrument's calendar, which is frozen into the snapshot with its first instrument
   (``sessions``).
3. Compare with stored rows. Identical ones are skipped; one that differs is a DataError. What prices and splits say of
   each other is noted (``doubts``), never acted on.
4. Write what is new as shards and indexes, named by content, and a root that adds them to those of the head.

Nothing is visible before the log entry of the root exists. An ingest that fails leaves the dataset as it was, at most
with objects nobody names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from farm.shard.calendar import Calendar
from farm.shard.change import Change, Creation
from farm.shard.kinds import INSTRUMENT_TYPES, PRICE_SCALE_MAX, SPLITS, STOCK_DAILY, Kind, kind_of
from farm.shard.layout import check_dataset
from farm.shard.sample import SAMPLE_SYMBOLS, SAMPLE_TZ, sample_bars, sample_splits
from farm.shard.sessions import SKIP
from farm.shard.snapshot import Snapshot, commit
from farm.shard.source import open_source, open_table
from farm.shard.stage import Reading, Staged, stage
from farm.shard.writer import check_options
from farm.store.base import Store
from farm.values.errors import UsageError


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest did.

    Fields: rows_added, rows_skipped (already there, identical) over all kinds; symbols, those in the source;
            instruments_created, ids that were not there before; bytes and shards, written; gaps, sessions without a
            row between the first and last row of each symbol of the source; calendars, frozen by this ingest.
    """

    snapshot: str
    dataset: str
    kind: str
    source: str
    rows_added: int
    rows_skipped: int
    symbols: tuple[str, ...]
    instruments_created: tuple[str, ...]
    bytes: int
    shards: int
    gaps: int
    calendars: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``farm ingest --json`` prints."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def ingest_file(
    store: Store,
    dataset: str,
    url: str,
    kind: str,
    mapping: Mapping[str, str] | None = None,
    tz: str | None = None,
    stamp: str | None = None,
    symbol: str | None = None,
    type: str | None = None,
    calendar: str | None = None,
    price_scale: int | None = None,
    row_group_rows: int | None = None,
    codec: str | None = None,
    sort: bool = False,
    skip_unknown: bool = False,
    skip_rows: Collection[str] = (),
) -> IngestSummary:
    """Ingest a CSV or Parquet file behind a path or any fsspec URL. ``mapping``: our column name -> the file's.

    ``type`` and ``calendar`` are for instruments that bars create (stock on XNYS unless said); ``price_scale`` rounds
    prices to so many decimals; ``sort`` brings rows into order instead of refusing them; ``skip_unknown`` leaves out
    splits and dividends of symbols that have no instrument, and ``skip_rows`` rows on days that are no session of the
    calendar ("unknown-session"); both say which.
    Errors: UsageError for flags, DataError for rows (file, data row from 1), StoreError; the dataset stays as it was.
    """
    entry = _check(dataset, kind, type, price_scale, row_group_rows, codec, skip_rows)
    reading = Reading(mapping or {}, tz, stamp, symbol, price_scale, sort)
    staged = stage(open_source(url), entry, reading)
    return _ingest(
        store, dataset, [staged], Creation(type, calendar, row_group_rows, codec, skip_unknown, SKIP in skip_rows)
    )


def ingest_table(
    store: Store,
    dataset: str,
    table: Any,
    kind: str,
    mapping: Mapping[str, str] | None = None,
    tz: str | None = None,
    stamp: str | None = None,
    symbol: str | None = None,
    type: str | None = None,
    calendar: str | None = None,
    price_scale: int | None = None,
    row_group_rows: int | None = None,
    codec: str | None = None,
    sort: bool = False,
    skip_unknown: bool = False,
    skip_rows: Collection[str] = (),
    name: str = "table",
) -> IngestSummary:
    """Ingest a pyarrow table, or a pandas or Polars frame, called ``name`` in errors; otherwise as ``ingest_file``."""
    entry = _check(dataset, kind, type, price_scale, row_group_rows, codec, skip_rows)
    reading = Reading(mapping or {}, tz, stamp, symbol, price_scale, sort)
    staged = stage(open_table(table, name), entry, reading)
    return _ingest(
        store, dataset, [staged], Creation(type, calendar, row_group_rows, codec, skip_unknown, SKIP in skip_rows)
    )


def ingest_sample(
    store: Store, dataset: str, *, row_group_rows: int | None = None, codec: str | None = None
) -> IngestSummary:
    """Ingest the daily bars of the package ``bokeh_sampledata`` and their three splits, in one commit.

    Errors: UsageError when the package is not installed.
    """
    _check(dataset, STOCK_DAILY.name, None, None, row_group_rows, codec)
    staged = [
        stage(open_table(sample_bars(), "sample"), STOCK_DAILY, Reading({}, SAMPLE_TZ, "start")),
        stage(open_table(sample_splits(), "sample splits"), SPLITS, Reading({})),
    ]
    assert tuple(staged[0].pieces) == SAMPLE_SYMBOLS
    return _ingest(store, dataset, staged, Creation(row_group_rows=row_group_rows, codec=codec))


def _check(
    dataset: str,
    kind: str,
    type_: str | None,
    price_scale: int | None,
    row_group_rows: int | None,
    codec: str | None,
    skip_rows: Collection[str] = (),
) -> Kind:
    """Return the kind; UsageError for flags that cannot be meant, before any file is opened."""
    check_dataset(dataset)
    entry = kind_of(kind)
    check_options(entry, row_group_rows, codec)
    if type_ is not None and type_ not in INSTRUMENT_TYPES:
        raise UsageError(f"no such type of instrument: {type_!r}", place="type", allowed=", ".join(INSTRUMENT_TYPES))
    if price_scale is not None and not 0 <= price_scale <= PRICE_SCALE_MAX:
        raise UsageError(f"a price scale of {price_scale}", place="price_scale", allowed=f"0 to {PRICE_SCALE_MAX}")
    for name in skip_rows:
        if name != SKIP:
            raise UsageError(f"no such rows to skip: {name!r}", place="skip_rows", allowed=SKIP)
    return entry


def _ingest(store: Store, dataset: str, staged: Sequence[Staged], creation: Creation) -> IngestSummary:
    frozen: dict[str, Calendar] = {}
    changes: list[Change] = []

    def change(head: Snapshot | None) -> Snapshot:
        changes.append(Change(store, dataset, head, creation, frozen))
        return changes[-1].apply(staged)

    snapshot = commit(store, dataset, change)
    done = changes[-1]
    return IngestSummary(
        snapshot=snapshot.id,
        dataset=dataset,
        kind=", ".join(one.kind.name for one in staged),
        source=staged[0].source.name,
        rows_added=done.rows_added,
        rows_skipped=done.rows_skipped,
        symbols=staged[0].symbols,
        instruments_created=tuple(sorted(done.created)),
        bytes=sum(ref.bytes for ref in done.written),
        shards=len(done.written),
        gaps=done.gaps,
        calendars=tuple(sorted(done.calendars)),
        notes=(*(note for one in staged for note in one.notes), *_left_out(done.unknown), *done.notes),
    )


def _left_out(unknown: Sequence[str]) -> tuple[str, ...]:
    """Return the note about symbols that were left out, if any were."""
    if not unknown:
        return ()
    names = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    return (f"left out, since they have no instrument: {names}",)
