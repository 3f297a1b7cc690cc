"""A market is what was ingested, whatever lay in which shard, row group or cache, and whoever asked first."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from farm.columns.cache import ColumnCache
from farm.market.load import load_panel
from farm.market.panel import InstrumentSeries, Market
from farm.shard.dataset import Dataset
from farm.shard.ingest import ingest_table
from farm.shard.kept import forget
from farm.shard.snapshot import read_head
from farm.store.memory import MemoryStore
from farm.store.open import wrap_store
from farm.store.wrap import counts_of
from farm.values.errors import DataError
from farm.values.settings import StoreSettings
from farm.values.units import NS_PER_DAY, iso, parse_date

START, END = parse_date("2004-03-01", "start"), parse_date("2004-04-30", "end")
HISTORY = parse_date("2004-01-02", "history")
NAMES = ("AA", "B", "a", "Z9")


def _sessions(first: int, last: int) -> list[int]:
    """Weekdays that are no holiday of the spring of 2004."""
    closed = {parse_date(text, "day") for text in ("2004-01-19", "2004-02-16", "2004-04-09")}
    return [day for day in range(first, last + 1) if (day + 3) % 7 < 5 and day not in closed]


def _bars(names: Sequence[str] = NAMES, days: Sequence[int] | None = None) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in ("symbol", "ts", "open", "high", "low", "close", "volume")}
    for name in names:
        rng = np.random.default_rng(sum(name.encode()))
        for day in days if days is not None else _sessions(HISTORY, END):
            low, span = int(rng.integers(900, 1000)), int(rng.integers(10, 200))
            ticks = (low + span // 3, low + span, low, low + span // 2)
            rows["symbol"].append(name)
            rows["ts"].append(iso(day))
            for field, price in zip(("open", "high", "low", "close"), ticks, strict=True):
                rows[field].append(price / 100)
            rows["volume"].append(int(rng.integers(0, 10**6)))
    return pa.table(rows)


def _ingest(store: MemoryStore, kind: str, table: pa.Table, **options: Any) -> None:
    zone = {"tz": "America/New_York", "stamp": "start", "calendar": "XNYS"} if kind == "stock_daily" else {}
    ingest_table(store, "main", table, kind, **zone, **options)


@pytest.fixture(scope="module")
def base() -> MemoryStore:
    """Four symbols, splits and dividends, over few row groups."""
    store = MemoryStore("base")
    _ingest(store, "stock_daily", _bars(), row_group_rows=50)
    _ingest(
        store,
        "splits",
        pa.table(
            {
                "symbol": ["B", "B", "a"],
                "ex_date": ["2004-02-03", "2004-03-15", "2004-04-05"],
                "numerator": [2, 3, 1],
                "denominator": [1, 2, 4],
            }
        ),
    )
    _ingest(
        store,
        "dividends",
        pa.table(
            {
                "symbol": ["AA", "AA"],
                "ex_date": ["2004-03-10", "2004-04-12"],
                "amount": [0.25, 0.5],
                "pay_date": ["2004-03-20", None],
            }
        ),
    )
    return store


def _load(
    store: MemoryStore,
    *,
    ids: Sequence[str] = NAMES,
    cache: ColumnCache | None = None,
    first_day: Mapping[str, int] | None = None,
    columns: frozenset[str] = frozenset({"high", "low"}),
    start: int = START,
    end: int = END,
) -> Market:
    dataset = Dataset(store, read_head(store, "main"))
    first_day = first_day if first_day is not None else dict.fromkeys(ids, HISTORY)
    plan = dataset.read_plan({name: min(start, first_day.get(name, start)) for name in ids}, end, columns)
    cache = cache if cache is not None else ColumnCache(10**8)
    return load_panel(dataset, cache, plan, calendar_name="XNYS", start_day=start).market()


def _same(left: InstrumentSeries, right: InstrumentSeries) -> bool:
    for field in fields(InstrumentSeries):
        mine, theirs = getattr(left, field.name), getattr(right, field.name)
        if isinstance(mine, np.ndarray):
            if mine.dtype != theirs.dtype or mine.tobytes() != theirs.tobytes():
                return False
        elif mine != theirs:
            return False
    return True


def test_a_market_is_what_was_ingested(base: MemoryStore) -> None:
    """Every bar of the window and its history, prices to the bit, instants of its session, ids in bytewise order."""
    market = _load(base, ids=["a", "B", "Z9", "AA"])
    assert [series.id for series in market.series] == ["AA", "B", "Z9", "a"]
    assert dict(market.index) == {"AA": 0, "B": 1, "Z9": 2, "a": 3}
    assert market.calendar.day.tolist() == _sessions(START, END)
    assert not market.no_dividends
    table = _bars().to_pandas()
    for series in market.series:
        rows = table[table.symbol == series.id]
        assert [iso(day) for day in series.day] == rows.ts.tolist()
        for name in ("open", "high", "low", "close", "volume"):
            assert getattr(series, name).tolist() == rows[name].tolist()
        assert (series.close_ticks / 100).tolist() == series.close.tolist()
        assert (series.open_ticks / 100).tolist() == series.open.tolist()
        assert (series.price_scale, series.lot_micro, series.multiplier) == (2, 1_000_000, 1)
        half_past_nine = series.day.astype(np.int64) * NS_PER_DAY + 14 * 3600 * 10**9 + 1800 * 10**9
        is_winter = series.day < parse_date("2004-04-04", "day")
        assert (series.open_ts == half_past_nine - ~is_winter * 3600 * 10**9).all()
        assert (series.close_ts - series.open_ts == 6.5 * 3600 * 10**9).all()


def test_every_array_is_read_only(base: MemoryStore) -> None:
    for series in _load(base).series:
        arrays = [value for field in fields(series) if isinstance(value := getattr(series, field.name), np.ndarray)]
        assert len(arrays) > 15
        assert not any(array.flags.writeable for array in arrays)


def test_corporate_actions(base: MemoryStore) -> None:
    """Factors are anchored at the first session; dividends without a pay date are paid on the ex-day, marked so."""
    aa, b, _, a = _load(base).series
    at = dict(zip(map(iso, b.day), b.factor, strict=True))
    assert (at["2004-02-02"], at["2004-02-03"], at["2004-03-01"]) == (0.5, 1.0, 1.0)
    assert (at["2004-03-12"], at["2004-03-15"], at["2004-04-30"]) == (1.0, 1.5, 1.5)
    assert set(a.factor.tolist()) == {1.0, 0.25}
    assert b.factor_tr.tolist() == b.factor.tolist()
    assert (b.split_num.tolist(), b.split_den.tolist()) == ([2, 3], [1, 2])
    assert list(map(iso, aa.dividend_day)) == ["2004-03-10", "2004-04-12"]
    assert list(map(iso, aa.dividend_pay_day)) == ["2004-03-20", "2004-04-12"]
    assert aa.dividend_pay_assumed.tolist() == [False, True]
    assert aa.dividend_amount.tolist() == [0.25, 0.5]
    before = int(np.searchsorted(aa.day, aa.dividend_day[0])) - 1
    close = int(aa.close_ticks[before])
    assert aa.factor_tr[before + 1] == close / (close - 25)
    assert set(aa.factor.tolist()) == {1.0}


def test_the_anchor_is_the_first_session(base: MemoryStore) -> None:
    """A run that starts on the Saturday before an ex-day has F = 1 from that Monday, as one that starts on it."""
    monday = parse_date("2004-03-15", "day")
    saturday, same = _load(base, start=monday - 2), _load(base, start=monday)
    b = saturday.series[saturday.index["B"]]
    assert set(b.factor[b.day >= monday].tolist()) == {1.0}
    assert all(_same(x, y) for x, y in zip(saturday.series, same.series, strict=True))


def test_columns_not_asked_for_are_not_read(base: MemoryStore) -> None:
    """Without high and low their bytes stay in the store; open, close and volume always come."""
    store = wrap_store(base, StoreSettings())
    cache = ColumnCache(10**8)
    series = _load(store, cache=cache, columns=frozenset()).series[0]
    assert (series.high.shape, series.low.shape) == ((0,), (0,))
    assert len(series.open) == len(series.close) == len(series.volume) == series.rows > 0
    read = counts_of(store).bytes_read
    _load(store, cache=cache)
    assert counts_of(store).bytes_read > read


def test_history_only_prepends(base: MemoryStore) -> None:
    """The first day read changes no bar, instant or factor of later days."""
    short, long = _load(base, first_day={}), _load(base)
    for few, many in zip(short.series, long.series, strict=True):
        assert few.day.tolist() == _sessions(START, END)
        cut = len(many.day) - len(few.day)
        for name in ("day", "close", "close_ts", "factor", "factor_tr", "volume"):
            assert getattr(few, name).tolist() == getattr(many, name)[cut:].tolist()


@pytest.mark.parametrize("options", [{}, {"row_group_rows": 7}, {"row_group_rows": 10**6, "codec": "zstd"}])
def test_file_layout_changes_nothing(base: MemoryStore, options: dict[str, Any]) -> None:
    """Other row groups, codecs, and bars that came in two ingests: the same bits."""
    store = MemoryStore()
    days = _sessions(HISTORY, END)
    # The odd days first, then the even ones: the rows of one month lie in two shards, interleaved.
    _ingest(store, "stock_daily", _bars(days=days), **options) if options else _interleaved(store, days)
    for left, right in zip(_load(store).series, _load(base).series, strict=True):
        for name in ("day", "open", "high", "low", "close", "volume", "open_ts", "close_ts", "close_ticks"):
            assert getattr(left, name).tobytes() == getattr(right, name).tobytes()


def _interleaved(store: MemoryStore, days: Sequence[int]) -> None:
    whole = _bars(days=days)
    is_odd = np.array([parse_date(text, "ts") % 2 == 1 for text in whole["ts"].to_pylist()])
    for part in (is_odd, ~is_odd):
        _ingest(store, "stock_daily", whole.filter(pa.array(part)))


def test_four_threads_pay_one_fetch_per_column(base: MemoryStore) -> None:
    """Cold threads of one worker that load at one moment load each column once, and a warm load fetches nothing."""
    store, cache = wrap_store(base, StoreSettings()), ColumnCache(10**8)
    ready = threading.Barrier(4)

    def work(i: int) -> Market:
        ready.wait(timeout=30)
        return _load(store, cache=cache, ids=NAMES[i:] + NAMES[:i])

    with ThreadPoolExecutor(4) as pool:
        markets = list(pool.map(work, range(4)))
    alone_store, alone_cache = wrap_store(base, StoreSettings()), ColumnCache(10**8)
    alone = _load(alone_store, cache=alone_cache)
    assert cache.stats().loads == alone_cache.stats().loads == len(alone_cache._columns)
    assert all(_same(x, y) for market in markets for x, y in zip(market.series, alone.series, strict=True))
    ranges = counts_of(store).requests_by_verb["get_range"]
    assert ranges == counts_of(alone_store).requests_by_verb["get_range"]
    _load(store, cache=cache)
    assert ranges == counts_of(store).requests_by_verb["get_range"]


def test_a_cache_without_room_fetches_each_column_once(base: MemoryStore) -> None:
    """With no budget at all, a run still pays one fetch per column, and the bits are the same."""
    tight, roomy = (wrap_store(base, StoreSettings()) for _ in range(2))
    forget()  # what a process keeps of a store would be found by the second
    none = _load(tight, cache=ColumnCache(0))
    forget()
    some = _load(roomy)
    assert counts_of(tight).bytes_read == counts_of(roomy).bytes_read
    assert all(_same(x, y) for x, y in zip(none.series, some.series, strict=True))


def test_faults_are_named(base: MemoryStore) -> None:
    with pytest.raises(DataError, match="no such instrument") as caught:
        _load(base, ids=["AA", "NOPE"])
    assert "NOPE" in caught.value.place
    store = MemoryStore()
    _ingest(store, "stock_daily", _bars(["AA"]))
    key = next(key for key in store._objects if key.startswith("data/stock_daily"))
    data = bytearray(store.get(key))
    data[len(data) // 3] ^= 16
    store.put(key, bytes(data))
    with pytest.raises(DataError, match="column chunk") as caught:
        _load(store, ids=["AA"])
    assert key in caught.value.place
    assert "row group 0" in caught.value.place


def test_a_window_without_bars_is_empty(base: MemoryStore) -> None:
    """No rows is no error here: empty series."""
    first = parse_date("2003-01-02", "day")
    market = _load(base, start=first, end=first + 30, first_day={})
    assert [series.rows for series in market.series] == [0] * 4
    empty = _load(base, ids=[])
    assert empty.series == ()


def test_no_dividends_at_all_is_said() -> None:
    store = MemoryStore()
    _ingest(store, "stock_daily", _bars(["AA"]))
    assert _load(store, ids=["AA"]).no_dividends
