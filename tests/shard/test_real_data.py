"""Real bars, splits and dividends, and readers that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.columns.cache import ColumnCache
from farm.shard.ingest import ingest_file, ingest_table
from farm.shard.reader import read_rows
from farm.shard.snapshot import read_head
from farm.store.local import LocalStore
from farm.store.memory import MemoryStore
from tests.shard.generators import ALWAYS, day, digests, head, put_bars, walk

WIKI = {"symbol": "ticker", "ts": "date"}


def test_real_bars_come_back_bit_for_bit(market_data: Path) -> None:
    """Twenty tickers of 23 years, in one file or in two, equal what the file says."""
    import pyarrow.parquet as pq

    url = market_data / "us_equity_daily.parquet"
    table = pq.read_table(url)
    store, halves = MemoryStore(), MemoryStore()
    summary = ingest_file(
        store, "main", str(url), "stock_daily", WIKI, "America/New_York", "start", row_group_rows=5000
    )
    assert (summary.rows_added, len(summary.symbols)) == (table.num_rows, 20)
    for part in (table.slice(30_000), table.slice(0, 30_000)):
        ingest_table(halves, "main", part, "stock_daily", WIKI, "America/New_York", "start", codec="zstd")
    dataset, cache = head(store), ColumnCache(1 << 26)
    frame = table.to_pydict()
    for symbol in summary.symbols:
        rows = read_rows(dataset, cache, "stock_daily", symbol, *ALWAYS, ["open", "high", "low", "close", "volume"])
        at = [row for row, name in enumerate(frame["ticker"]) if name == symbol]
        assert rows["day"].tolist() == [day(frame["date"][row].isoformat()) for row in at]
        for name in ("open", "high", "low", "close"):
            assert rows.prices(name).tolist() == [frame[name][row] for row in at]
        assert rows["volume"].tolist() == [frame["volume"][row] for row in at]
        assert digests(halves, symbol) == digests(store, symbol)


def test_the_sample_is_the_public_table(market_data: Path) -> None:
    """The package's bars and the same archive by another road: the same read sets, whatever the columns are called."""
    pytest.importorskip("bokeh_sampledata")
    from farm.shard.ingest import ingest_sample

    store, other = MemoryStore(), MemoryStore()
    ingest_sample(store, "main")
    url = str(market_data / "us_equity_daily_wiki.parquet")
    ingest_file(other, "main", url, "stock_daily", WIKI, "America/New_York", "start")
    for symbol in ("AAPL", "FB", "GOOG", "MSFT"):
        assert digests(store, symbol) == digests(other, symbol)


def test_real_splits_and_dividends(market_data: Path) -> None:
    """AAPL's three splits in the vendor's file hold the two that are shipped; its dividends are those declared."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    store = MemoryStore()
    url = market_data / "us_equity_daily.parquet"
    ingest_file(store, "main", str(url), "stock_daily", WIKI, "America/New_York", "start")
    for name, kind, mapping in (
        ("us_equity_splits", "splits", {"symbol": "listing", "ratio": "new_shares_per_old"}),
        ("us_equity_dividends", "dividends", {"symbol": "listing", "amount": "cash_per_share_usd"}),
    ):
        table = pq.read_table(market_data / f"{name}.parquet")
        table = table.filter(pc.equal(table["listing"], "AAPL"))
        assert ingest_table(store, "main", table, kind, mapping).rows_added == table.num_rows
    splits = read_rows(head(store), ColumnCache(0), "splits", "AAPL", *ALWAYS, ["numerator", "denominator"])
    known = [(day(text), new, 1) for text, new in
             (("2000-06-21", 2), ("2005-02-28", 2), ("2014-06-09", 7), ("2020-08-31", 4))]  # fmt: skip
    rows = zip(splits["ex_day"].tolist(), splits["numerator"].tolist(), splits["denominator"].tolist(), strict=True)
    assert list(rows) == known
    dividends = read_rows(head(store), ColumnCache(0), "dividends", "AAPL", day("2019-11-01"), *ALWAYS[1:], ["amount"])
    assert dividends.prices("amount").tolist() == [0.77, 0.77, 0.82, 0.82, 0.205, 0.205]


def test_shards_answer_to_sql(tmp_path: Path) -> None:
    """DuckDB reads them where they lie, and its Bloom probe finds no false negative."""
    duckdb = pytest.importorskip("duckdb")
    store = LocalStore(tmp_path)
    bars = [bar for symbol in ("A", "B", "C") for bar in walk(symbol, "2010-01-01", 30)]
    put_bars(store, bars, row_group_rows=30)
    [ref] = read_head(store, "main").of_kind("stock_daily")
    path = str(tmp_path / ref.key)
    counts = duckdb.sql(f"select symbol, count(*), max(close) / 100 from '{path}' group by 1 order by 1").fetchall()
    assert counts == [(name, 30, max(bar.close for bar in bars if bar.symbol == name)) for name in ("A", "B", "C")]
    probe = duckdb.sql(f"select bloom_filter_excludes from parquet_bloom_probe('{path}', 'symbol', 'B')").fetchall()
    assert not probe[1][0]
