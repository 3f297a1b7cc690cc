"""What studies in one process share: a stranger's cold read holds nobody up, and who is at work is not forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow.compute as pc
import pytest

from farm.columns.cache import ColumnCache
from farm.shard.ingest import ingest_table
from farm.shard.sample import sample_bars
from farm.store.base import Store
from farm.store.wrap import Around
from farm.values.settings import CacheSettings
from farm.work import run, submit
from farm.work.run import BlockRunner, SubmittedStudy
from tests.study.support import cross, sample_store

WAIT_S = 60.0


class Gate(Around):
    """A store whose range reads wait while it is closed; it says when one does."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reached = threading.Event()
        self._is_open = threading.Event()
        self._is_open.set()

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, if_match: str | None = None) -> list[bytes]:
        if not self._is_open.is_set():
            self.reached.set()
            assert self._is_open.wait(2 * WAIT_S)
        return self.inner.get_ranges(key, ranges, if_match=if_match)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self._is_open.clear()
        try:
            yield
        finally:
            self._is_open.set()


def submitted(store: Store, **changes: Any) -> SubmittedStudy:
    """Return a stored study; planning it has warmed nobody's cache."""
    return submit.submit(cross(**changes), store, cache=ColumnCache(1 << 28))


def two_datasets() -> Store:
    """Return a store with the sample, and a dataset of other shards."""
    store = sample_store()
    other = sample_bars().filter(pc.field("symbol") == "AAPL")
    ingest_table(store, "other", other, "stock_daily", tz="America/New_York", stamp="start")
    return store


def test_a_warm_block_does_not_wait_for_the_cold_read_of_another_study() -> None:
    """And the bytes of that read are told to the study that read them."""
    store = two_datasets()
    warm = submitted(store, fast=(1, 20), slow=(31, 45))
    cold = submitted(store, fast=(5, 5), slow=(20, 20), tickers=("AAPL",), dataset="other")
    gate = Gate(store)
    runner = BlockRunner(gate, cache=ColumnCache(1 << 28))
    assert runner.run_block(warm.study, warm.waiting[0]).bytes_fetched > 0
    with ThreadPoolExecutor(2) as pool:
        with gate.closed():
            reading = pool.submit(runner.run_block, cold.study, cold.waiting[0])
            assert gate.reached.wait(WAIT_S)
            report = pool.submit(runner.run_block, warm.study, warm.waiting[1]).result(WAIT_S)
            assert not reading.done()
        assert reading.result(WAIT_S).bytes_fetched > 0
    assert report.cells > 0 and report.bytes_fetched == 0


def test_who_reads_together_is_told_each_byte_once() -> None:
    """Two cold blocks of a study at once: what they say they fetched adds up to what one of them alone fetches."""
    store = sample_store()
    study = submitted(store, fast=(1, 20), slow=(31, 45))
    alone = BlockRunner(store, cache=ColumnCache(1 << 28)).run_block(study.study, study.waiting[0]).bytes_fetched
    gate = Gate(store)
    runner = BlockRunner(gate, cache=ColumnCache(1 << 28))
    with ThreadPoolExecutor(2) as pool:
        with gate.closed():
            first = pool.submit(runner.run_block, study.study, study.waiting[1])
            assert gate.reached.wait(WAIT_S)
            second = pool.submit(runner.run_block, study.study, study.waiting[2])
        assert first.result(WAIT_S).bytes_fetched + second.result(WAIT_S).bytes_fetched == alone > 0


def test_the_study_at_work_is_not_the_one_that_is_forgotten() -> None:
    """Beyond ``studies_max`` the one that nobody has asked for longest goes, not the one that came first."""
    store = sample_store()
    first, second, third = (submitted(store, fast=(5, 5), slow=(slow, slow)).study for slow in (20, 21, 22))
    settings = CacheSettings(studies_max=2)
    runner = BlockRunner(store, cache=ColumnCache(1 << 28), settings=settings)
    kept, forgotten = runner.context(first), runner.context(second)
    runner.context(first)
    runner.context(third)
    assert runner.context(first) is kept
    assert runner.context(second) is not forgotten


def test_markets_of_all_studies_keep_within_one_budget() -> None:
    """A market larger than the budget is kept alone; however small the budget, the result is the same."""
    store = sample_store()
    study = submitted(store, fast=(5, 5), slow=(20, 20)).study
    context = BlockRunner(store, cache=ColumnCache(1 << 28)).context(study)
    sizes = [context.tile(position).bytes for position in range(5)]
    assert all(size > context.market(0).market.series[0].close.nbytes * 8 for size in sizes)
    runner = BlockRunner(store, cache=ColumnCache(1 << 28), settings=CacheSettings(market_bytes_max=sum(sizes[:2])))
    tight = runner.context(study)
    kept = tight.market(0)
    tight.market(1)
    assert tight.market(0) is kept
    for position in (2, 3, 4):
        tight.market(position)
    assert tight.market(0) is not kept
    alone = BlockRunner(store, cache=ColumnCache(1 << 28), settings=CacheSettings(market_bytes_max=1)).context(study)
    assert alone.market(0) is alone.market(0)
    expected, found = (one.score(one.simulate(0, 1), 0, 1).result for one in (context, alone))
    assert (expected.ledger, expected.stats) == (found.ledger, found.stats)


def test_instruments_loaded_together_give_what_each_gives_alone() -> None:
    """A block's markets are slices of one tile; their tables and results are those of markets loaded one by one."""
    store = sample_store()
    study = submitted(store, fast=(5, 5), slow=(20, 20)).study
    together, alone = (BlockRunner(store, cache=ColumnCache(1 << 28)).context(study) for _ in range(2))
    together.fetch(set(range(5)))
    assert len({id(together.tile(position)) for position in range(5)}) == 1
    assert len({id(alone.tile(position)) for position in range(5)}) == 5
    for position in range(5):
        one, other = together.market(position), alone.market(position)
        assert [a.tobytes() for a in one.tape.tables] == [b.tobytes() for b in other.tape.tables]
        results = [context.score(context.simulate(0, position), 0, position).result for context in (together, alone)]
        assert (results[0].ledger, results[0].stats) == (results[1].ledger, results[1].stats)


def test_a_study_is_parsed_and_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What submits a study and what runs its blocks are one process: one parse, one compilation, one dataset."""
    made = dict.fromkeys(("load_study", "compile_study", "Dataset"), 0)

    def counted(name: str) -> Any:
        original = getattr(submit, name)

        def call(*arguments: Any, **named: Any) -> Any:
            made[name] += 1
            return original(*arguments, **named)

        return call

    store = sample_store()
    for name in made:
        call = counted(name)
        for module in (run, submit):
            monkeypatch.setattr(module, name, call)
    outcome = run.run_in_process(cross(), store, cache=ColumnCache(1 << 28))
    assert outcome.study.trials == 9
    assert made == {"load_study": 1, "compile_study": 1, "Dataset": 1}
