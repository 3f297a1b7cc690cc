"""Planning, reading, pruning; what damage does, and what it must not do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.columns.cache import ColumnCache
from farm.shard.dataset import Dataset
from farm.shard.kinds import STOCK_DAILY
from farm.shard.layout import index_key
from farm.shard.plan import plan_kind
from farm.shard.prune import GroupFacts, Verdict, Wanted, decide
from farm.shard.reader import Rows, read_columns, read_rows
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.store.open import wrap_store
from farm.store.wrap import counts_of
from farm.values.errors import DataError, ShortRead, Unavailable, UsageError
from farm.values.settings import StoreSettings
from tests.effort import effort
from tests.reference import prune as reference
from tests.shard.generators import PRICES, Bar, Meddling, day, histories, put_bars, walk

NAMES = (*PRICES, "volume")
ALWAYS = (day("1990-01-01"), day("2030-01-01"))


def opened(store: Store) -> Dataset:
    return Dataset(store, read_head(store, "main"))


def all_rows(store: MemoryStore, symbol: str, first: int = ALWAYS[0], last: int = ALWAYS[1]) -> Rows:
    return read_rows(opened(store), ColumnCache(1 << 28), "stock_daily", symbol, first, last, NAMES)


def expect(bars: list[Bar], symbol: str, first: int, last: int, rows: Rows) -> None:
    kept = [bar for bar in bars if bar.symbol == symbol and first <= bar.day <= last]
    assert [bar.day for bar in kept] == rows["day"].tolist()
    for name in PRICES:
        assert [getattr(bar, name) for bar in kept] == rows.prices(name).tolist()
    assert [bar.volume for bar in kept] == rows["volume"].tolist()


@settings(max_examples=effort(40))
@given(histories(), st.data())
def test_pruning_and_filtering_reads_what_reading_all_and_filtering_reads(bars: list[Bar], data: st.DataObject) -> None:
    """Whatever the rows, their cut into ingests, row groups and codec: no row is lost, none is added, none changes."""
    store = MemoryStore()
    parts = data.draw(st.integers(1, 3))
    part_of = data.draw(st.lists(st.integers(0, parts - 1), min_size=len(bars), max_size=len(bars)))
    for part in range(parts):
        some = [bar for bar, at in zip(bars, part_of, strict=True) if at == part]
        codec = data.draw(st.sampled_from(["lz4", "zstd", "snappy", "none"]))
        if some:
            put_bars(store, some, row_group_rows=data.draw(st.integers(1, 40)), codec=codec)
    first = data.draw(st.integers(day("2009-11-01"), day("2010-03-01")))
    last = data.draw(st.integers(first - 1, day("2010-03-01")))
    for symbol in ["A", "AA", "B", "missing"]:
        expect(bars, symbol, first, last, all_rows(store, symbol, first, last))


MEMBERS = st.dictionaries(st.sampled_from("BCDE"), st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1)
KNOWN = st.tuples(st.booleans(), st.booleans(), st.booleans())


@given(
    st.lists(st.tuples(MEMBERS, KNOWN), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from("ABCDEF"), st.integers(0, 9)),
    st.integers(0, 9),
)
def test_pruning_errs_in_one_direction_only(
    groups: list[tuple[dict[str, tuple[int, int]], tuple[bool, bool, bool]]], wanted: dict[str, int], last_day: int
) -> None:
    """A group with a wanted row is never pruned, whatever is unknown; with all known, only such groups are kept; and
    the verdicts on all groups at once are those on each alone, by the rules as they are written."""
    table = sorted({symbol for rows, _ in groups for symbol in rows})
    members = [{symbol: (low, low + length) for symbol, (low, length) in rows.items()} for rows, _ in groups]
    flat = [
        (group, table.index(symbol), *days) for group, one in enumerate(members) for symbol, days in sorted(one.items())
    ]
    member = [np.array([row[at] for row in flat], np.int32) for at in range(4)]
    known = np.array([flags for _, flags in groups])
    ends = [[fold(table.index(symbol) for symbol in one) for one in members] for fold in (min, max)]
    days = [[fold(days[at] for days in one.values()) for one in members] for at, fold in enumerate((min, max))]
    facts = GroupFacts(
        len(table), *(np.array(column, np.int32) for column in (*days, *ends)), *member,
        *(known[:, at] for at in range(3)),
    )  # fmt: skip
    place = np.array([2 * np.searchsorted(table, one) - (one not in table) for one in sorted(wanted)], np.int64)
    since = np.array([wanted[one] for one in sorted(wanted)], np.int32)
    verdicts, hit = decide(facts, Wanted(place, since, last_day))
    assert hit.tolist() == [
        table[symbol] in wanted and last >= wanted[table[symbol]] and first <= last_day
        for _, symbol, first, last in flat
    ]
    for group, (one, flags) in enumerate(zip(members, known.tolist(), strict=True)):
        verdict = Verdict(verdicts[group])
        assert verdict.name == reference.decide(one, flags, wanted, last_day)
        keeps = verdict in (Verdict.KEEP, Verdict.KEEP_UNKNOWN)
        if hit[member[0] == group].any():
            assert keeps and (verdict is Verdict.KEEP) == all(flags)
        elif all(flags):
            assert not keeps


def test_the_plan_counts_what_it_prunes_and_why() -> None:
    store = MemoryStore()
    bars = [bar for symbol in ("A", "B", "C", "D") for bar in walk(symbol, "2010-01-01", 100)]
    put_bars(store, bars, row_group_rows=50)
    put_bars(store, walk("A", "2003-01-01", 10))
    dataset = opened(store)
    plan = dataset.needs("stock_daily", ["B"], day("2010-01-10"), day("2010-01-20"), ["close"])
    assert [chunk.column for chunk in plan.chunks] == ["day", "close"]
    assert (plan.kept, plan.unknown, plan.shards_pruned) == (1, 0, 1)
    # The second halves of the four symbols end by time; of the first halves, those of A, C and D by symbol.
    assert dict(plan.pruned) == {"time": 4, "symbol range": 3, "membership": 0}
    assert plan.by_shard() == {plan.chunks[0].shard_sha: plan.bytes_needed}
    across = dataset.needs("stock_daily", ["AA"], *ALWAYS, ["close"])
    assert (across.kept, sum(across.pruned.values())) == (0, 9)


def test_membership_prunes_between_the_first_and_last_symbol_of_a_group() -> None:
    store = MemoryStore()
    put_bars(store, [*walk("A", "2010-01-01", 5), *walk("C", "2010-01-01", 5)])
    plan = opened(store).needs("stock_daily", ["B"], *ALWAYS, ["close"])
    assert dict(plan.pruned) == {"time": 0, "symbol range": 0, "membership": 1}


def test_a_part_of_a_plan_is_the_plan_of_a_part() -> None:
    """Instruments of a plan read what they would read alone, wherever their rows lie."""
    store = MemoryStore()
    put_bars(store, [bar for symbol in "ABCD" for bar in walk(symbol, "2010-01-01", 100)], row_group_rows=50)
    put_bars(store, [bar for symbol in "BD" for bar in walk(symbol, "2003-01-01", 10)])
    dataset = opened(store)
    since = {"A": day("2010-03-01"), "B": day("2003-01-05"), "C": day("2010-01-01"), "missing": ALWAYS[0]}
    whole = dataset.read_plan(since, ALWAYS[1], ["high"])
    assert whole.columns == ("open", "high", "close", "volume")
    for some in (["A"], ["B", "missing"], ["A", "C"], [], list(since)):
        alone = dataset.read_plan({name: since[name] for name in some}, ALWAYS[1], ["high"])
        part = whole.take([whole.ids.index(name) for name in some])
        assert (part.ids, part.first_day.tolist()) == (alone.ids, alone.first_day.tolist())
        assert (part.chunks, part.by_shard()) == (alone.chunks, alone.by_shard())
        assert part.rows.tolist() == alone.rows.tolist()
        for mine, theirs in zip(part.parts, alone.parts, strict=True):
            assert (mine.groups, mine.group_rows, mine.kept) == (theirs.groups, theirs.group_rows, theirs.kept)
            assert all(np.array_equal(getattr(mine.runs, name), getattr(theirs.runs, name)) for name in vars(mine.runs))


def test_the_settings_of_a_store_say_how_ranges_are_joined() -> None:
    """Chunks that lie apart come in one request, or in one each, as the store was told when it was opened."""
    bare = MemoryStore()
    put_bars(bare, [bar for symbol in "AB" for bar in walk(symbol, "2010-01-01", 40)], row_group_rows=40)
    counts = []
    for limits in (
        StoreSettings(),
        StoreSettings(gap_bytes_max=0),
        StoreSettings(gap_bytes_max=0, fetch_bytes_max=1),
    ):
        store = wrap_store(bare, limits)
        dataset = opened(store)
        plan = dataset.needs("stock_daily", ["A", "B"], *ALWAYS, ["open", "high", "close"])
        read_columns(store, dataset, plan, ColumnCache(0))
        counts.append(counts_of(store).requests_by_verb["get_range"])
    # Day to high and close of each group, and the footer; then every chunk by itself.
    assert counts == [1, 5, 9]


def test_columns_that_do_not_exist_or_are_text_are_refused() -> None:
    store = MemoryStore()
    put_bars(store, walk("A", "2010-01-01", 5))
    with pytest.raises(UsageError, match=r"no such column: vwap.*open, high"):
        opened(store).needs("stock_daily", ["A"], *ALWAYS, ["vwap"])
    with pytest.raises(UsageError, match=r"no such column: source"):
        opened(store).needs("splits", ["A"], *ALWAYS, ["source"])


def test_the_instrument_column_comes_as_codes_into_the_symbols_of_the_shard() -> None:
    store = MemoryStore()
    bars = [bar for symbol in ("A", "B", "C") for bar in walk(symbol, "2010-01-01", 4)]
    put_bars(store, bars, row_group_rows=5)
    dataset = opened(store)
    plan = dataset.needs("stock_daily", ["A", "B", "C"], *ALWAYS, ["symbol"])
    columns = read_columns(store, dataset, plan, ColumnCache(1 << 20))
    codes = np.concatenate([values for key, values in columns.items() if key[2] == "symbol"])
    assert codes.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert dataset.index(plan.chunks[0].shard_sha).symbols == ("A", "B", "C")


def test_values_are_read_only() -> None:
    store = MemoryStore()
    put_bars(store, walk("A", "2010-01-01", 5))
    put_bars(store, walk("A", "2010-02-01", 5))
    rows = all_rows(store, "A")
    for name in ("day", *NAMES):
        assert not rows[name].flags.writeable
    assert not rows.prices("close").flags.writeable


def test_the_scale_of_rows_does_not_depend_on_their_shards() -> None:
    """A shard's scale is that of the file it came from; what a reader sees is the scale of the rows it reads."""
    one, two = MemoryStore(), MemoryStore()
    coarse, fine = walk("A", "2010-01-01", 5, decimals=1), walk("A", "2010-02-01", 5, decimals=4)
    put_bars(one, [*coarse, *fine])
    put_bars(two, coarse)
    put_bars(two, fine)
    for first, last in [(day("2010-01-01"), day("2010-01-31")), ALWAYS]:
        left, right = all_rows(one, "A", first, last), all_rows(two, "A", first, last)
        assert left.scale == right.scale
        assert left["close"].tolist() == right["close"].tolist()
    assert all_rows(one, "A", day("2010-01-01"), day("2010-01-31")).scale == 1


def test_four_threads_pay_one_fetch() -> None:
    store = MemoryStore()
    put_bars(store, [bar for symbol in ("A", "B") for bar in walk(symbol, "2010-01-01", 200)])
    fetched: list[str] = []
    watched = Meddling(store, lambda verb, key: fetched.append(key) if key.startswith("data/stock") else None)
    dataset, cache, barrier = Dataset(watched, read_head(watched, "main")), ColumnCache(1 << 20), threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        read_rows(dataset, cache, "stock_daily", "A", *ALWAYS, NAMES)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(fetched) == 1
    read_rows(dataset, cache, "stock_daily", "B", *ALWAYS, NAMES)
    assert len(fetched) == 1, "B lies in the same row group"


def damaged_copy(store: MemoryStore, key: str, change: Callable[[bytes], bytes]) -> MemoryStore:
    copy = MemoryStore()
    for meta in store.list(""):
        data = store.get(meta.key)
        copy.put(meta.key, change(data) if meta.key == key else data)
    return copy


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ (1 << (at % 8))]) + data[at + 1 :]


@pytest.fixture(scope="module")
def small() -> tuple[MemoryStore, list[Bar]]:
    store = MemoryStore()
    bars = [bar for symbol in ("A", "B") for bar in walk(symbol, "2010-01-01", 40)]
    put_bars(store, bars, row_group_rows=30)
    return store, bars


def test_no_flipped_byte_of_a_shard_ever_gives_wrong_rows(small: tuple[MemoryStore, list[Bar]]) -> None:
    """A flip in a column chunk or the footer is a DataError that names key, row group and column.

    A small shard comes in one range, so chunks that only came along are verified too; Bloom filters and page indexes,
    which the farm never reads, lie between the last chunk and the footer.
    """
    store, bars = small
    [ref] = read_head(store, "main").of_kind("stock_daily")
    index = opened(store).index(ref.sha256)
    covered = {
        at: (group, name)
        for (group, name), chunk in index.chunks.items()
        for at in range(chunk.offset, chunk.offset + chunk.length)
    }
    refused = 0
    for at in range(0, ref.bytes, 13):
        broken = damaged_copy(store, ref.key, flip(at))
        where = covered.get(at)
        for symbol in ("A", "B"):
            try:
                rows = all_rows(broken, symbol)
            except DataError as error:
                refused += 1
                if where is None:
                    assert "the footer is not the one" in error.message and at >= ref.bytes - len(index.footer)
                else:
                    assert f"{ref.key}, row group {where[0]}, column {where[1]}" == error.place
            else:
                expect(bars, symbol, *ALWAYS, rows)
                # What lies before the first wanted chunk does not come along: symbols, and a row group of A alone.
                assert where is None or where[1] == "symbol" or (symbol == "B" and where[0] == 0)
                assert at < ref.bytes - len(index.footer)
    assert refused > 20


def test_no_flipped_byte_of_an_index_is_ever_used(small: tuple[MemoryStore, list[Bar]]) -> None:
    store, _ = small
    [ref] = read_head(store, "main").of_kind("stock_daily")
    for at in range(0, ref.index_bytes, 29):
        with pytest.raises(DataError) as caught:
            all_rows(damaged_copy(store, index_key(ref.index_sha256), flip(at)), "A")
        assert index_key(ref.index_sha256) in caught.value.place
        assert "row groups and columns" in caught.value.place


@pytest.mark.parametrize("part", ["snapshots/", "refs/", "calendars/", "data/instruments/"])
def test_no_flipped_byte_of_what_leads_to_a_shard_is_ever_used(small: tuple[MemoryStore, list[Bar]], part: str) -> None:
    store, _ = small
    [meta] = list(store.list(part))
    for at in range(0, meta.size, max(1, meta.size // 200)):
        broken = damaged_copy(store, meta.key, flip(at))
        with pytest.raises(DataError) as caught:
            dataset = opened(broken)
            dataset.instruments()
            dataset.calendar("24x7")
        assert meta.key in caught.value.place


@pytest.mark.parametrize("kept", [0, 1, 100, 1000, -1])
def test_a_truncated_shard_is_named(small: tuple[MemoryStore, list[Bar]], kept: int) -> None:
    """Cut in the first row group, in the middle or just before the end: never rows of a part of the file."""
    store, _ = small
    [ref] = read_head(store, "main").of_kind("stock_daily")
    broken = damaged_copy(store, ref.key, lambda data: data[:kept])
    with pytest.raises(DataError, match=r"cut off") as caught:
        all_rows(broken, "A")
    assert re.fullmatch(rf"{re.escape(ref.key)}, row group [01], column \w+", caught.value.place)


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_a_truncated_index_is_named(small: tuple[MemoryStore, list[Bar]], kept: int) -> None:
    store, _ = small
    [ref] = read_head(store, "main").of_kind("stock_daily")
    key = index_key(ref.index_sha256)
    with pytest.raises(DataError, match=r"the index is damaged") as caught:
        all_rows(damaged_copy(store, key, lambda data: data[:kept]), "A")
    assert key in caught.value.place


def test_missing_objects_are_named(small: tuple[MemoryStore, list[Bar]]) -> None:
    store, _ = small
    [ref] = read_head(store, "main").of_kind("stock_daily")
    for key in (ref.key, index_key(ref.index_sha256)):
        broken = damaged_copy(store, "", lambda data: data)
        broken.delete(key)
        with pytest.raises(DataError, match=r"is missing") as caught:
            all_rows(broken, "A")
        assert key in caught.value.place


def test_a_short_read_of_a_whole_object_stays_an_error_of_the_store(small: tuple[MemoryStore, list[Bar]]) -> None:
    store, _ = small

    def before(verb: str, key: str) -> None:
        if verb.startswith("get_range"):
            raise ShortRead("fewer bytes than asked for", place=key)

    watched = Meddling(store, before)
    with pytest.raises(ShortRead):
        read_rows(Dataset(watched, read_head(watched, "main")), ColumnCache(0), "stock_daily", "A", *ALWAYS, NAMES)


def test_a_store_that_fails_is_not_called_bad_data(small: tuple[MemoryStore, list[Bar]]) -> None:
    store, _ = small

    def before(verb: str, key: str) -> None:
        if key.startswith("index/"):
            raise Unavailable("no answer", place=key)

    watched = Meddling(store, before)
    with pytest.raises(Unavailable):
        read_rows(Dataset(watched, read_head(watched, "main")), ColumnCache(0), "stock_daily", "A", *ALWAYS, NAMES)


def test_shards_are_plain_parquet(small: tuple[MemoryStore, list[Bar]]) -> None:
    """Any Parquet reader finds sorted rows, no nulls, statistics, a Bloom filter, page indexes and the scales."""
    store, bars = small
    [ref] = read_head(store, "main").of_kind("stock_daily")
    file = pq.ParquetFile(pa.BufferReader(store.get(ref.key)), page_checksum_verification=True)
    table = file.read()
    assert STOCK_DAILY.names == tuple(table.schema.names)
    assert not any(field.nullable for field in table.schema)
    assert [(bar.symbol, bar.day) for bar in bars] == list(
        zip(table["symbol"].to_pylist(), table["day"].to_pylist(), strict=True)
    )
    assert file.schema_arrow.metadata[b"farm.scales"] == b'{"A":2,"B":2}'
    assert [bar.close for bar in bars] == [ticks / 100 for ticks in table["close"].to_pylist()]
    for group in range(file.metadata.num_row_groups):
        facts = file.metadata.row_group(group)
        assert facts.column(0).bloom_filter_length > 0
        assert all(facts.column(at).statistics.has_min_max for at in range(7))
        assert all(facts.column(at).has_column_index and facts.column(at).has_offset_index for at in range(7))
        assert "DELTA_BINARY_PACKED" in facts.column(1).encodings
        assert "BYTE_STREAM_SPLIT" in facts.column(5).encodings
        assert facts.column(5).compression == "LZ4"


def test_a_plan_is_made_without_opening_a_shard(small: tuple[MemoryStore, list[Bar]]) -> None:
    store, _ = small
    touched: list[str] = []
    watched = Meddling(store, lambda verb, key: touched.append(key))
    dataset = Dataset(watched, read_head(watched, "main"))
    dataset.needs("stock_daily", ["A"], *ALWAYS, NAMES)
    dataset.months("stock_daily", "A")
    dataset.read_set("stock_daily", "A", *ALWAYS)
    assert not [key for key in touched if key.startswith("data/")]
    assert len([key for key in touched if key.startswith("index/")]) == 1


def test_an_empty_plan_reads_nothing(small: tuple[MemoryStore, list[Bar]]) -> None:
    store, _ = small
    dataset = opened(store)
    plan = plan_kind(STOCK_DAILY, [], ["A"], np.array(ALWAYS[:1], np.int32), ALWAYS[1], ["close"])
    assert (plan.bytes_needed, plan.chunks) == (0, ())
    assert read_columns(store, dataset, plan, ColumnCache(0)) == {}
    assert len(all_rows(store, "nobody")) == 0
    assert np.dtype(np.int64) == all_rows(store, "nobody")["close"].dtype
