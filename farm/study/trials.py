"""The study as a value: its trials, what they read, its blocks; and the record that is stored of it.

    studies/<name>/study.json, name = study id, or study id + "-fresh"

The record is written once, by whoever submits first, and read by everyone after: workers get a study name and block
numbers, nothing else. It holds the spec as submitted, the trials as columns, the read windows, the blocks and the
segments that held reused cells at submission. Cell keys are not stored: they follow from the rest at about a
microsecond each. Equal submissions against one snapshot have one id, whatever the catalog holds; a *fresh* study
(``--fresh``) has the same id and blocks of its own over all cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from farm.spec.table import ParamTable
from farm.study.axes import Axes
from farm.study.block import Block
from farm.study.coverage import Coverage, counts_of
from farm.values.arrays import I64
from farm.values.canon import canonical_json, fingerprint, sha256_hex
from farm.values.errors import DataError
from farm.values.formats import check_format
from farm.values.metrics import BUCKETS, METRIC_NAMES

FORMAT = "farm-study-1"
HINT = "delete this object and submit the study again; finished cells are kept in the catalog"
FRESH = "-fresh"
OF_SNAPSHOT: Mapping[str, str] = {"no_dividends": "dividends", "no_splits": "splits"}
"""Assumptions that are true of a snapshot without rows of a kind, whatever a cell reads of it."""


@dataclass(frozen=True)
class Read:
    """What the cells of one instrument (or of the whole universe) read with one length of history.

    ``bars``: the instrument's own bars in the run window; ``rows``: bars read, history included; ``first_day``: first
    history day; ``read_set`` and ``sessions``: the digests that enter the cell key.
    """

    instrument: str | None
    bars: int
    rows: int
    first_day: int
    read_set: str
    sessions: str


@dataclass(frozen=True)
class Study:
    """A submitted study.

    Fields: ``names`` and ``values``, the parameters of each trial, by trial number; ``instruments``, ids in bytewise
    order, None without ``each``; ``symbols``, the tickers of all instruments read, by id; ``windows``, per trial an
    index into ``reads_of``; ``reads_of``, per length of history one index into ``reads`` for each cell of a trial;
    ``columns``, bar columns read; ``segments``, keys of the segments that held reused cells when it was submitted;
    ``duplicates`` and ``excluded``, points of the grid that equal an earlier trial, and that a constraint removed;
    ``assumptions``, what the snapshot as a whole makes every cell assume; ``coverage``, of what is read, by id. A
    cell's rows cannot hold these: it may be reused under another snapshot, of which they are not true.
    """

    id: str
    fresh: bool
    family: str
    dataset: str
    snapshot: str
    spec: Mapping[str, Any]
    split: Mapping[str, Any] | None
    sessions: int
    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    windows: tuple[int, ...]
    reads_of: tuple[tuple[int, ...], ...]
    reads: tuple[Read, ...]
    instruments: tuple[str, ...] | None
    symbols: Mapping[str, str]
    columns: tuple[str, ...]
    duplicates: int
    excluded: int
    assumptions: tuple[str, ...]
    coverage: tuple[Coverage, ...]
    blocks: tuple[Block, ...]
    segments: tuple[str, ...]
    _texts: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What workers know the study by."""
        return study_name(self.id, self.fresh)

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.values)

    @property
    def cell_instruments(self) -> tuple[str | None, ...]:
        """The cells of a trial: its instruments, or one None without ``each``."""
        return (None,) if self.instruments is None else self.instruments

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.trials * len(self.cell_instruments)

    def params(self, trial: int) -> dict[str, Any]:
        """Return the parameters of a trial by name."""
        return dict(zip(self.names, self.values[trial], strict=True))

    def params_text(self, trial: int) -> str:
        """Return the canonical JSON of a trial's parameters."""
        text = self._texts.get(trial)
        if text is None:
            text = self._texts[trial] = canonical_json(self.params(trial)).decode()
        return text

    def read(self, trial: int, position: int) -> Read:
        """Return what the cell at ``position`` among the trial's cells reads."""
        return self.reads[self.reads_of[self.windows[trial]][position]]

    @cached_property
    def cell_counts(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """What is counted of the cells of each trial whatever they do, (name, count) by position."""
        return tuple(counts_of(self.coverage, name) for name in self.cell_instruments)

    @cached_property
    def table(self) -> ParamTable:
        """The parameters of the trials as columns."""
        values, codes = [], []
        for at in range(len(self.names)):
            # By type too: 1, 1.0 and true are equal, and mean different things.
            column = [(type(row[at]), row[at]) for row in self.values]
            place = {value: code for code, value in enumerate(dict.fromkeys(column))}
            values.append(tuple(value for _, value in place))
            codes.append(np.array([place[value] for value in column], np.int32))
        return ParamTable(self.names, tuple(values), tuple(codes), self.trials)

    def _params_texts(self) -> Iterator[str]:
        """Yield the canonical JSON of the parameters of each trial, made of one text per value."""
        order = sorted(range(len(self.names)), key=lambda at: self.names[at].encode("utf-16-be"))
        columns = []
        for at in order:
            head = canonical_json(self.names[at]).decode() + ":"
            texts = [head + canonical_json(value).decode() for value in self.table.values[at]]
            columns.append([texts[code] for code in self.table.codes[at].tolist()])
        return ("{" + ",".join(row) + "}" for row in (zip(*columns, strict=True) if columns else [()] * self.trials))

    @cached_property
    def axes(self) -> Axes:
        """Identity of the study's cells."""
        trial = b"".join(hashlib.sha256(text.encode()).digest() for text in self._params_texts())
        digests = [bytes.fromhex(fingerprint(self.read_parts(read))) for read in self.reads]
        read = b"".join(digests[index] for indexes in self.reads_of for index in indexes)
        return Axes(
            trial=np.frombuffer(trial, np.uint8).reshape(-1, 32),
            history=np.array(self.windows, np.int32),
            subjects=tuple(name or "" for name in self.cell_instruments),
            read=np.frombuffer(read, np.uint8).reshape(len(self.reads_of), -1, 32),
        )

    def read_parts(self, read: Read) -> list[Any]:
        """Return what a read digest is the hash of."""
        split = None if self.split is None else dict(self.split)
        return ["read", self.family, split, read.instrument, None, read.read_set, read.sessions]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are stored of each cell."""
        return METRIC_NAMES

    @property
    def buckets(self) -> tuple[str, ...]:
        """What they are measured over."""
        return tuple(BUCKETS) if self.split is not None else ("full",)

    @property
    def proof(self) -> I64 | None:
        """The cells (trial x cells per trial + position, ascending) that have digests; None: all."""
        return None

    @cached_property
    def keys(self) -> list[bytes]:
        """Cell keys, 32 bytes each, in the order trial, instrument."""
        width = len(self.cell_instruments)
        return [self.axes.cell_key(*divmod(cell, width)) for cell in range(self.cells)]

    def trial_key(self, trial: int) -> str:
        """Return the key of a trial, hex."""
        return self.axes.trial_key(trial).hex()

    def cells_of(self, block: Block) -> list[int]:
        """Return the cell numbers (trial x cells per trial + position) of a block, in the order of its segment."""
        position = {name: place for place, name in enumerate(self.cell_instruments)}
        places = [position[name] for name in (block.instruments or (None,))]
        width = len(position)
        return [trial * width + place for trial in block.trials for place in places]

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON value."""
        return {
            "format": FORMAT,
            "id": self.id,
            "fresh": self.fresh,
            "family": self.family,
            "dataset": self.dataset,
            "snapshot": self.snapshot,
            "spec": dict(self.spec),
            "split": None if self.split is None else dict(self.split),
            "sessions": self.sessions,
            "trials": {
                "names": list(self.names),
                "values": [list(row) for row in self.values],
                "windows": list(self.windows),
            },
            "reads_of": [list(row) for row in self.reads_of],
            "reads": [
                [read.instrument, read.bars, read.rows, read.first_day, read.read_set, read.sessions]
                for read in self.reads
            ],
            "instruments": None if self.instruments is None else list(self.instruments),
            "symbols": dict(self.symbols),
            "columns": list(self.columns),
            "duplicates": self.duplicates,
            "excluded": self.excluded,
            "assumptions": list(self.assumptions),
            "coverage": [one.to_json() for one in self.coverage],
            "blocks": [block.to_json() for block in self.blocks],
            "segments": list(self.segments),
        }

    def to_bytes(self) -> bytes:
        """Return the record as it is stored."""
        return record_bytes(self.to_json())


def record_bytes(value: Mapping[str, Any]) -> bytes:
    """Return a record as it is stored: JSON, ``{"sha256": of the study's bytes, "study": value}``."""
    body = canonical_json(value)
    return _head(body) + body + b"}"


def study_name(study_id: str, fresh: bool) -> str:
    """Return the name under which the record of a study is stored."""
    return study_id + FRESH if fresh else study_id


def _head(body: bytes) -> bytes:
    return b'{"sha256":"%s","study":' % sha256_hex(body).encode()


def study_from_bytes(data: bytes, place: str) -> Study:
    """Return the study of a record; DataError naming ``place`` when it is damaged."""
    head_length = len(_head(b""))
    body = data[head_length:-1]
    try:
        if data != _head(body) + body + b"}":
            raise ValueError("its content is not what was written")
        return _from_json(json.loads(body), place)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"study record cannot be read ({type(error).__name__}: {error})",
            place=place,
            hint=HINT,
        ) from error


def _from_json(value: Mapping[str, Any], place: str) -> Study:
    check_format(value["format"], FORMAT, "study record", place, HINT)
    trials = value["trials"]
    return Study(
        id=value["id"],
        fresh=value["fresh"],
        family=value["family"],
        dataset=value["dataset"],
        snapshot=value["snapshot"],
        spec=value["spec"],
        split=value["split"],
        sessions=value["sessions"],
        names=tuple(trials["names"]),
        values=tuple(tuple(row) for row in trials["values"]),
        windows=tuple(trials["windows"]),
        reads_of=tuple(tuple(row) for row in value["reads_of"]),
        reads=tuple(Read(*row) for row in value["reads"]),
        instruments=None if value["instruments"] is None else tuple(value["instruments"]),
        symbols=value["symbols"],
        columns=tuple(value["columns"]),
        duplicates=value["duplicates"],
        excluded=value["excluded"],
        assumptions=tuple(value["assumptions"]),
        # Records were once written without it; their studies say less, and can be read all the same.
        coverage=tuple(Coverage(*row) for row in value.get("coverage", ())),
        blocks=tuple(Block.from_json(index, block) for index, block in enumerate(value["blocks"])),
        segments=tuple(value["segments"]),
    )
