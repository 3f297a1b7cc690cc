"""The study as a value: its axes, what they read, its rounds with their blocks. No cell has an object in it.

A cell is named by its trial's number and its subject's position. What is asked of single cells (parameters, keys,
reads) is worked out from the axes when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from farm.spec.table import Chosen, ParamTable
from farm.study.axes import Axes, LazyAxes
from farm.study.block import Block, Blocks
from farm.study.coverage import Coverage, counts_of
from farm.study.proof import WINNERS, ProofRule
from farm.study.reads import ReadTable
from farm.study.split import FULL
from farm.values.arrays import BOOL, I32, I64, U8
from farm.values.canon import canonical_json
from farm.values.metrics import BUCKETS
from farm.values.units import iso

DIGESTED_MAX = 200_000
"""Trials up to which the digests of all of them are made as soon as some are asked for, and kept."""
FRESH = "-fresh"
OF_SNAPSHOT: Mapping[str, str] = {"no_dividends": "dividends", "no_splits": "splits"}
"""Assumptions that are true of a snapshot without rows of a kind, whatever a cell reads of it."""


@dataclass(frozen=True)
class Read:
    """What one cell reads.

    ``instrument``: None for the whole universe; ``bars``: the instrument's own bars in the run window; ``rows``: bars
    read, history included; ``first_day``: first history day; ``read_set`` and ``sessions``: digests, hex, that enter
    the read digest.
    """

    instrument: str | None
    bars: int
    rows: int
    first_day: int
    read_set: str
    sessions: str


@dataclass(frozen=True, eq=False)
class Round:
    """Trials that are proposed at once, and how their missing cells are cut.

    ``first``: the number of its first trial in the study; ``table``: its trials; ``history``: int32 (t,), their history
    classes, which ``reads`` has; ``blocks``: over the cells that no segment held; ``segments``: keys of the segments
    that held the others.
    """

    first: int
    table: ParamTable
    history: I32
    reads: ReadTable
    blocks: Blocks
    segments: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Study:
    """A submitted study.

    Fields: ``window``, first and last day of the run; ``used``, the parameters that the template uses; ``subjects``,
    ids in bytewise order, or one "" without ``each``; ``symbols``, the tickers of all instruments read, by id;
    ``columns``, bar columns read; ``duplicates`` and ``excluded``, points of the grid that equal an earlier trial, and
    that a constraint removed; ``assumptions``, what the snapshot as a whole makes every cell assume; ``coverage``, of
    what is read, by id: a cell's rows cannot hold these, it may be reused under another snapshot, of which they are not
    true;
    ``metrics``, what its cells store; ``proof_rule``, which of them get digests; ``rounds``: a grid has one.
    """

    id: str
    fresh: bool
    family: str
    dataset: str
    snapshot: str
    spec: Mapping[str, Any]
    split: Mapping[str, Any] | None
    window: tuple[int, int]
    sessions: int
    used: tuple[str, ...]
    subjects: tuple[str, ...]
    symbols: Mapping[str, str]
    columns: tuple[str, ...]
    duplicates: int
    excluded: int
    assumptions: tuple[str, ...]
    coverage: tuple[Coverage, ...]
    metrics: tuple[str, ...]
    proof_rule: ProofRule
    rounds: tuple[Round, ...]

    @property
    def name(self) -> str:
        """What workers know the study by."""
        return study_name(self.id, self.fresh)

    @property
    def round(self) -> Round:
        """The one round that there is."""
        (found,) = self.rounds
        return found

    @property
    def table(self) -> ParamTable:
        """The parameters of the trials."""
        return self.round.table

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.table.trials

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.trials * len(self.subjects)

    @property
    def instruments(self) -> tuple[str, ...] | None:
        """The instruments that every trial runs on, one by one; None without ``each``."""
        return None if self.subjects == ("",) else self.subjects

    @cached_property
    def cell_instruments(self) -> tuple[str | None, ...]:
        """The cells of a trial: its instruments, or one None without ``each``."""
        return tuple(name or None for name in self.subjects)

    def params(self, trial: int) -> dict[str, Any]:
        """Return the parameters of a trial by name."""
        return self.table.row(trial)

    def params_text(self, trial: int) -> str:
        """Return the canonical JSON of a trial's parameters."""
        return canonical_json(self.params(trial)).decode()

    def read(self, trial: int, position: int) -> Read:
        """Return what the cell at ``position`` among the trial's cells reads."""
        reads, of = self.round.reads, int(self.round.history[trial])
        return Read(
            instrument=self.subjects[position] or None,
            bars=int(reads.bars[position]),
            rows=int(reads.rows[of, position]),
            first_day=int(reads.first_day[of, position]),
            read_set=reads.read_set[of, position].tobytes().hex(),
            sessions=reads.sessions[reads.session[of, position]].tobytes().hex(),
        )

    def read_parts(self, read: Read) -> list[Any]:
        """Return what a read digest is the hash of."""
        split = None if self.split is None else dict(self.split)
        window = [iso(day) for day in self.window]
        return ["read", self.family, split, read.instrument, window, read.read_set, read.sessions]

    def used_params(self, trial: int) -> dict[str, Any]:
        """Return what the digest of a trial is the hash of: the parameters that the template uses."""
        return {name: value for name, value in self.params(trial).items() if name in self.used}

    def first_day(self, positions: Chosen = slice(None)) -> int:
        """Return the first day that any trial reads of the subjects at ``positions``."""
        return int(self.round.reads.first_day[:, positions].min())

    @cached_property
    def cell_counts(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """What is counted of the cells of each trial whatever they do, (name, count) by position."""
        return tuple(counts_of(self.coverage, name) for name in self.cell_instruments)

    # Identity

    @cached_property
    def read_digests(self) -> U8:
        """Read digests, uint8 (classes, s, 32)."""
        return self.round.reads.digests(self.family, self.split, self.subjects, self.window)

    @cached_property
    def axes(self) -> Axes:
        """The identity of all cells."""
        return LazyAxes(self.table, self.used, self.round.history, self.subjects, self.read_digests)

    def axes_of(self, trials: Chosen, positions: Chosen) -> Axes:
        """Return the identity of the cells of some trials on the subjects at some positions."""
        places = np.arange(len(self.subjects))[positions]
        subjects = tuple(self.subjects[place] for place in places.tolist())
        history, reads = self.round.history[trials], self.read_digests[:, places]
        if self.trials <= DIGESTED_MAX:
            return Axes(self.axes.trial[trials], history, subjects, reads)
        return LazyAxes(self.table.take(trials), self.used, history, subjects, reads)

    def cell_key(self, trial: int, position: int) -> bytes:
        """Return the key of a cell, 32 bytes."""
        return self.axes_of([trial], [position]).cell_key(0, 0)

    def trial_key(self, trial: int) -> str:
        """Return the key of a trial, hex."""
        return self.axes_of([trial], slice(None)).trial_key(0).hex()

    @property
    def buckets(self) -> tuple[str, ...]:
        """What metrics are taken over."""
        return tuple(BUCKETS) if self.split is not None else (FULL,)

    @cached_property
    def proof(self) -> I64 | None:
        """The cells (trial x cells per trial + position, ascending) that get digests with their block; None: all."""
        return self.proof_rule.cells(self.axes)

    def proof_mask(self, trials: Chosen, positions: Chosen) -> BOOL:
        """Return which cells of some trials on the subjects at some positions get digests with their block, (t, s)."""
        return self.proof_rule.mask(self.axes_of(trials, positions))

    def winners_block(self, ranked: I64) -> Block | None:
        """Return the last block, cut when the trials are ranked, best first: all cells of the ten best, whose digests
        are written then. None where every cell has some already."""
        if self.proof_rule.threshold is None:
            return None
        trials = np.sort(ranked[:WINNERS]).astype(np.int32)
        return Block(len(self.blocks), trials, np.arange(len(self.subjects), dtype=np.int32), {})

    # Blocks

    @property
    def blocks(self) -> Blocks:
        """The blocks, over the cells that no segment held when the study was submitted."""
        return self.round.blocks

    @property
    def segments(self) -> tuple[str, ...]:
        """Keys of the segments that held reused cells when the study was submitted."""
        return self.round.segments

    def block(self, index: int) -> Block:
        """Return a block; IndexError."""
        return self.blocks[index]


def study_name(study_id: str, fresh: bool) -> str:
    """Return the name under which the record of a study is stored."""
    return study_id + FRESH if fresh else study_id
