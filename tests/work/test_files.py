"""Keys and fingerprints belong to rows, not to the files that hold them, nor to rows that come after the run."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from farm.columns.cache import ColumnCache
from farm.shard.ingest import ingest_sample, ingest_table
from farm.shard.sample import sample_bars, sample_splits
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.open import open_store
from farm.work.run import run_in_process, submit
from tests.study.support import copy_store, cross, new_store, sample_store

SPEC = cross(fast=(5, 10, 5), slow=(20, 30, 10), start="2004-01-02", end="2005-12-30", benchmark="IBM", indicator="ema")
BARS: dict[str, Any] = {"kind": "stock_daily", "tz": "America/New_York", "stamp": "start"}


def trials(store: Store) -> list[dict[str, Any]]:
    return list(run_in_process(SPEC, store, cache=ColumnCache(1 << 28)).document()["trials"])


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    return trials(sample_store())


def in_one_piece(row_group_rows: int, codec: str) -> Store:
    store = new_store()
    ingest_sample(store, "main", row_group_rows=row_group_rows, codec=codec)
    return store


def in_many_shards() -> Store:
    """Ticker by ticker and year by year, newest first, as other decimals."""
    store = new_store()
    bars = sample_bars()
    for symbol in ("MSFT", "AAPL", "IBM", "GOOG", "FB"):
        own = bars.filter(pc.equal(bars["symbol"], symbol))
        recent = pc.greater_equal(pc.year(own["ts"]), 2005)
        for part in (own.filter(recent), own.filter(pc.invert(recent))):
            if part.num_rows:
                ingest_table(store, "main", part, price_scale=4, **BARS)
    ingest_table(store, "main", sample_splits(), kind="splits")
    return store


@pytest.mark.parametrize(("row_group_rows", "codec"), [(100, "zstd"), (5000, "none"), (126_000, "snappy")])
def test_row_groups_and_codecs(row_group_rows: int, codec: str, expected: list[dict[str, Any]]) -> None:
    assert expected == trials(in_one_piece(row_group_rows, codec))


def test_shards_and_the_order_in_which_they_came(expected: list[dict[str, Any]]) -> None:
    store = in_many_shards()
    assert len(read_head(store, "main").of_kind("stock_daily")) > len(read_head(sample_store(), "main").shards)
    assert expected == trials(store)


def test_a_directory(expected: list[dict[str, Any]], tmp_path: Any) -> None:
    store = open_store(str(tmp_path / "store"))
    ingest_sample(store, "main")
    assert expected == trials(store)


def later_bars(symbols: tuple[str, ...], day: str) -> pa.Table:
    row = {"ts": day, "open": 30.0, "high": 31.0, "low": 29.0, "close": 30.5, "volume": 1000}
    return pa.Table.from_pylist([{"symbol": symbol, **row} for symbol in symbols])


def test_rows_after_the_end_compute_nothing_anew() -> None:
    """A new snapshot, hence a new study; every cell of it is found under its old key."""
    store = sample_store()
    first = run_in_process(SPEC, store, cache=ColumnCache(1 << 28))
    ingest_table(store, "main", later_bars(("AAPL", "IBM"), "2013-03-04"), **BARS)
    again = run_in_process(SPEC, store, cache=ColumnCache(1 << 28))
    assert again.study.snapshot != first.study.snapshot
    assert (again.stats.cells_computed, again.stats.cells_reused) == (0, first.study.cells)
    assert again.document()["trials"] == first.document()["trials"]


def test_a_run_on_an_older_snapshot() -> None:
    store = sample_store()
    old = read_head(store, "main").id
    first = run_in_process(SPEC, store, cache=ColumnCache(1 << 28))
    ingest_table(store, "main", later_bars(("IBM",), "2013-03-04"), **BARS)
    again = run_in_process(SPEC, store, snapshot=old, cache=ColumnCache(1 << 28))
    assert again.study.id == first.study.id
    assert submit(SPEC, copy_store(store)).study.id != first.study.id


def test_the_first_dividend_of_a_dataset_is_noticed_by_cells_that_are_reused() -> None:
    """``no_dividends`` is true of a snapshot: a cell that is reused under the next one does not repeat it."""
    store = sample_store()
    before = trials(store)
    row = {"symbol": "MSFT", "ex_date": "2012-11-13", "amount": 0.23, "pay_date": "2012-12-13"}
    ingest_table(store, "main", pa.Table.from_pylist([row]), kind="dividends")
    after = trials(store)
    assert {tuple(cell["assumptions"]) for trial in before for cell in trial["cells"]} == {
        ("fixed_universe", "no_dividends")
    }
    assert {tuple(cell["assumptions"]) for trial in after for cell in trial["cells"]} == {("fixed_universe",)}
    assert [trial["key"] for trial in before] == [trial["key"] for trial in after]
    assert [trial["fingerprint"] for trial in before] == [trial["fingerprint"] for trial in after]
