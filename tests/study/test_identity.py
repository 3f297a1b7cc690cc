"""Axes against cell by cell: a study has the trials, reads and keys that each cell has when it is worked out alone; and
exactly the cells that nobody stored are in exactly one block."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as some

from farm.columns.cache import ColumnCache
from farm.shard.dataset import Dataset
from farm.shard.ingest import ingest_table
from farm.shard.snapshot import read_head
from farm.spec.parse import load_study
from farm.study.missing import Missing, all_missing
from farm.study.needs import needs_of, strip_needs
from farm.study.plan import plan_study
from farm.study.stored import from_bytes, to_bytes
from farm.study.trials import Study
from tests.reference.planning import plain_cells, plain_trials
from tests.study.rows import cell_keys, cells_of
from tests.study.support import TICKERS, cross, new_store, sample_store

DAYS = ("2004-08-02", "2005-01-20", "2008-02-29", "2010-12-31", "2011-01-03", "2012-05-16", "2012-05-18", "2013-03-01")
"""A bar's own first months, month ends, and the days around the first bar of FB."""


@dataclass(frozen=True)
class Answer:
    """What a catalog found."""

    missing: Missing
    segments: tuple[str, ...] = ()


class Nothing:
    """A catalog that holds nothing."""

    def lookup_study(self, study: Study) -> Answer:
        return Answer(all_missing(study.trials, len(study.subjects)))


@cache
def sample() -> tuple[Dataset, ColumnCache]:
    store = sample_store()
    return Dataset(store, read_head(store, "main")), ColumnCache(1 << 28)


@some.composite
def studies(draw: some.DrawFn) -> dict[str, Any]:
    """Crosses with all that makes histories differ: indicators, fixed instruments, a benchmark, windows."""
    start, end = sorted(draw(some.lists(some.sampled_from(DAYS), min_size=2, max_size=2, unique=True)))
    tickers = draw(some.lists(some.sampled_from(TICKERS), min_size=1, unique=True))
    spec = cross(
        fast=(2, draw(some.integers(2, 30)), draw(some.integers(3, 9))),
        slow=(20, draw(some.integers(20, 90)), draw(some.integers(7, 40))),
        tickers=tuple(tickers),
        each=draw(some.booleans()),
        indicator=draw(some.sampled_from(("sma", "ema"))),
        start=start,
        end=end,
        split=draw(some.sampled_from((None, {"mode": "chronological", "is": 0.5}))),
        benchmark=draw(some.sampled_from((None, "IBM", "FB"))),
    )
    params, sleeve = spec["strategy"]["params"], spec["strategy"]["sleeves"][0]
    if draw(some.booleans()):
        params["idle"] = {"choice": draw(some.sampled_from(([3, 1], [True, 2])))}
    if draw(some.booleans()):
        params["who"] = {"choice": draw(some.lists(some.sampled_from(TICKERS), min_size=1, max_size=2, unique=True))}
        params["back"] = {"choice": draw(some.sampled_from(([1], [30, 200])))}
        other = {"i": "sma", "n": "$back", "of": {"f": "close", "sym": "$who"}}
        sleeve["enter"] = {"any": [sleeve["enter"], {"gt": [other, 10]}]}
    if draw(some.booleans()):
        spec["strategy"]["constraints"] = [{"le": [{"op": "mul", "a": ["$fast", 2]}, "$slow"]}]
    return spec


def looks_at_itself(**changes: Any) -> dict[str, Any]:
    """A cross that also looks at one of its own instruments by name, hence a few bars further back: for some lengths, a
    month."""
    spec = cross(fast=(5, 10, 5), slow=(20, 40, 20), start="2011-01-03", end="2012-05-16", **changes)
    sleeve = spec["strategy"]["sleeves"][0]
    by_name = {"i": "sma", "n": "$back", "of": {"f": "close", "sym": "IBM"}}
    sleeve["enter"] = {"any": [sleeve["enter"], {"gt": [by_name, 10]}]}
    spec["strategy"]["params"]["back"] = {"int": [300, 324]}
    return spec


@settings(max_examples=60)
@given(studies())
@example(looks_at_itself())
@example(looks_at_itself(each=False, benchmark="MSFT"))
def test_axes_give_what_each_cell_has_alone(document: dict[str, Any]) -> None:
    dataset, cache = sample()
    spec = load_study(document)
    cells = plain_cells(spec, dataset, cache)
    if not any(cell.bars for cell in cells):
        return
    study = plan_study(spec, dataset, Nothing(), cache)
    trials, duplicates, excluded = plain_trials(spec)
    assert [study.params(trial) for trial in range(study.trials)] == trials
    assert (study.duplicates, study.excluded) == (duplicates, excluded)
    assert [cell.key for cell in cells] == cell_keys(study)
    width = len(study.subjects)
    for number, cell in enumerate(cells):
        read = study.read(*divmod(number, width))
        assert (cell.instrument, cell.rows, cell.first_day) == (read.instrument, read.rows, read.first_day)
        assert (cell.read_set, cell.sessions) == (read.read_set, read.sessions)
        assert (cell.bars > 0) == (read.bars > 0)
    reads = set()
    for trial in range(study.trials):
        own = cells[trial * width : (trial + 1) * width]
        joined = own[0].trial_digest + b"".join(cell.read_digest for cell in own)
        assert hashlib.sha256(joined).hexdigest() == study.trial_key(trial)
        reads.add(tuple(cell.read_digest for cell in own))
    assert len(reads) == len(study.round.reads.rows), "a class for each way to read the subjects, and no more"


BIG = tuple(f"S{number:02}" for number in range(100))


@cache
def many() -> tuple[Dataset, ColumnCache]:
    """A hundred instruments, of which every seventh was listed later: a thousandth of the largest studies' subjects
    each way."""
    days = np.arange(np.datetime64("2009-01-01"), np.datetime64("2010-07-01"))
    days = days[np.is_busday(days)]
    rows: dict[str, list[Any]] = {"symbol": [], "ts": []}
    for number, symbol in enumerate(BIG):
        own = days[(number % 7 == 0) * (number + 20) :]
        rows["symbol"] += [symbol] * len(own)
        rows["ts"] += np.datetime_as_string(own).tolist()
    bars = pa.table({**rows, **{name: [10.0] * len(rows["ts"]) for name in ("open", "high", "low", "close")}})
    bars = bars.append_column("volume", pa.array([100] * len(bars)))
    store = new_store()
    form = {"kind": "stock_daily", "tz": "UTC", "stamp": "start", "calendar": "24x7"}
    ingest_table(store, "main", bars, row_group_rows=700, **form)
    return Dataset(store, read_head(store, "main")), ColumnCache(1 << 28)


def big(fast: tuple[int, ...], slow: tuple[int, ...], tickers: Sequence[str], **study: Any) -> dict[str, Any]:
    window = {"start": "2010-03-01", "end": "2010-06-15", "calendar": "24x7", "session": "24x7"}
    spec = cross(fast=fast, slow=slow, tickers=tuple(tickers), split=None, **window)
    spec["study"] |= study
    return spec


class Stored:
    """A catalog of single cells: which metrics each has, and whether it has digests."""

    def __init__(self) -> None:
        self.cells: dict[bytes, tuple[frozenset[str], bool]] = {}

    def put(self, study: Study) -> None:
        """Store all cells of a study as its spec asks; what is there already keeps the union."""
        proven = study.proof_mask(slice(None), slice(None)).ravel().tolist()
        for key, is_proven in zip(cell_keys(study), proven, strict=True):
            metrics, was_proven = self.cells.get(key, (frozenset(), False))
            self.cells[key] = metrics | frozenset(study.metrics), was_proven or is_proven

    def lacks(self, key: bytes, metrics: Sequence[str], is_proven: bool) -> bool:
        held, has_digests = self.cells.get(key, (frozenset(), False))
        return key not in self.cells or not held.issuperset(metrics) or (is_proven and not has_digests)

    def lookup_study(self, study: Study) -> Answer:
        """Answer as the farm's catalog does, cell by cell."""
        wanted = study.proof_mask(slice(None), slice(None)).ravel().tolist()
        lacks = [self.lacks(key, study.metrics, wanted[cell]) for cell, key in enumerate(cell_keys(study))]
        rows, groups = np.unique(np.array(lacks).reshape(study.trials, -1), axis=0, return_inverse=True)
        return Answer(Missing(groups.ravel().astype(np.int32), rows))


@some.composite
def overlaps(draw: some.DrawFn) -> list[dict[str, Any]]:
    """Earlier studies of the family, and at last the one that is planned."""

    def one() -> dict[str, Any]:
        low, high = sorted(draw(some.lists(some.integers(1, 40), min_size=2, max_size=2)))
        first, last = sorted(draw(some.lists(some.integers(41, 65), min_size=2, max_size=2)))
        begin, end = sorted(draw(some.lists(some.integers(0, 100), min_size=2, max_size=2, unique=True)))
        options: dict[str, Any] = {"seed": draw(some.integers(0, 1))}
        if draw(some.booleans()):
            options["metrics"] = draw(some.sampled_from((["sharpe"], ["sharpe", "fees"], "all")))
        if draw(some.booleans()):
            options["proof"] = draw(some.sampled_from(("all", "winners")))
        step = draw(some.integers(1, 3))
        return big((low, high, step), (first, last, 6), BIG[begin : end : draw(some.integers(1, 4))], **options)

    earlier = [one() for _ in range(draw(some.integers(0, 3)))]
    return [*earlier, big((1, 40), (41, 65), BIG) | {"study": one()["study"]}]


@settings(max_examples=8)
@given(overlaps())
def test_exactly_the_missing_cells_are_in_exactly_one_block(documents: list[dict[str, Any]]) -> None:
    """1,000 trials on 100 instruments: a thousandth of the cells of 1e5 trials on 1,000."""
    dataset, cache = many()
    stored = Stored()
    *earlier, last = (load_study(document) for document in documents)
    for spec in earlier:
        stored.put(plan_study(spec, dataset, stored, cache))
    study = plan_study(last, dataset, stored, cache)
    assert study.cells == 100_000
    proven = study.proof_mask(slice(None), slice(None)).ravel().tolist()
    expected = [cell for cell, key in enumerate(cell_keys(study)) if stored.lacks(key, study.metrics, proven[cell])]
    planned = [cell for block in study.blocks for cell in cells_of(study, block)]
    assert expected == sorted(planned)
    again = from_bytes(to_bytes(study), "key")
    assert again.blocks == study.blocks
    assert [again.block(index).cells for index in range(len(again.blocks))] == study.blocks.cells.tolist()


def test_a_strip_needs_what_its_subjects_read() -> None:
    """Row groups hold few instruments here: what a strip needs is what the read plans of its subjects say."""
    dataset, cache = many()
    spec = load_study(big((5, 5), (41, 41), BIG[:40]))
    spec = replace(spec, run=replace(spec.run, benchmark=BIG[77]))
    study = plan_study(spec, dataset, Nothing(), cache)
    for strip in study.blocks.strips():
        assert strip.needs == needs_of(study, dataset, spec, strip.positions).by_shard()
    tell, everything = strip_needs(study, dataset, spec), needs_of(study, dataset, spec, slice(None)).bytes_needed
    for place in range(len(study.subjects)):
        alone = needs_of(study, dataset, spec, [place]).bytes_needed
        assert sum(tell(np.array([place], np.int32)).values()) == alone < everything / 2


def calls_of(spec: dict[str, Any], dataset: Dataset, cache: ColumnCache) -> int:
    """Python calls of planning and storing a study."""
    parsed, count = load_study(spec), 0

    def counted(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        to_bytes(plan_study(parsed, dataset, Nothing(), cache))
    finally:
        sys.setprofile(before)
    return count


def test_planning_costs_no_python_per_trial() -> None:
    """A hundred times the trials cost a few calls for each new value of the parameter, and none for each trial."""
    dataset, cache = many()
    calls_of(big((1, 20), (41, 60), BIG[:9]), dataset, cache)
    few = calls_of(big((1, 20), (41, 60), BIG[:9]), dataset, cache)
    assert calls_of(big((1, 2_000), (41, 60), BIG[:9]), dataset, cache) < few + 5 * 2_000 < 2_000 * 20
