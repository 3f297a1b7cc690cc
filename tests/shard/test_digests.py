"""Digests that do not care about files; the writer; scales."""

from __future__ import annotations

import struct
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.shard.index import MonthRows, ShardRows, decode_index, merge_months, month_digests
from farm.shard.kinds import PRICE_SCALE_MAX, STOCK_DAILY, TICKS_MAX
from farm.shard.parse import scale_of, to_ticks
from farm.shard.writer import write_shard
from farm.store.memory import MemoryStore
from farm.values.canon import sha256_hex
from farm.values.errors import DataError
from farm.values.units import month_of
from tests.effort import effort
from tests.shard.generators import ALWAYS, Bar, day, digests, head, histories, put_bars, walk

# Digests.


@settings(max_examples=effort(30))
@given(histories(), st.data())
def test_digests_do_not_care_how_rows_lie_in_files(bars: list[Bar], data: st.DataObject) -> None:
    """One ingest, or several in any cut and order, other row groups, codecs, decimals: the same read sets."""
    whole, parts = MemoryStore(), MemoryStore()
    put_bars(whole, bars)
    part_of = data.draw(st.lists(st.integers(0, 2), min_size=len(bars), max_size=len(bars)))
    for part in data.draw(st.permutations(range(3))):
        some = [bar for bar, at in zip(bars, part_of, strict=True) if at == part]
        if some:
            codec = data.draw(st.sampled_from(["lz4", "zstd", "snappy", "none"]))
            put_bars(parts, some, row_group_rows=data.draw(st.integers(1, 30)), codec=codec)
    for symbol in {bar.symbol for bar in bars}:
        assert digests(parts, symbol) == digests(whole, symbol)
        assert head(parts).read_set("instruments", symbol, *ALWAYS) == head(whole).read_set("instruments", symbol, 0, 0)


@settings(max_examples=effort(30))
@given(histories(), st.data())
def test_any_change_of_a_row_changes_the_digest_of_its_month_only(bars: list[Bar], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bars) - 1))
    field = data.draw(st.sampled_from(["volume", "high", "symbol"]))
    old = bars[at]
    new = {"volume": old.volume ^ 1, "high": round(old.high + 1.0, 5), "symbol": "NEW"}[field]
    changed = sorted(
        [*bars[:at], Bar(**{**vars(old), field: new}), *bars[at + 1 :]], key=lambda bar: (bar.symbol, bar.day)
    )
    one, two = MemoryStore(), MemoryStore()
    put_bars(one, bars)
    put_bars(two, changed)
    for symbol in head(one).instruments():
        before = {month.month: month for month in digests(one, symbol)}
        after = {month.month: month for month in digests(two, symbol)}
        touched = {month_of(old.day)} if symbol == old.symbol else set()
        assert {month for month in before | after if before.get(month) != after.get(month)} == touched


def test_two_instruments_with_the_same_rows_have_different_digests() -> None:
    """Otherwise exchanging two instruments would keep every read set."""
    store = MemoryStore()
    rows = walk("A", "2010-01-01", 5)
    put_bars(store, [*rows, *(Bar(**{**vars(bar), "symbol": "B"}) for bar in rows)])
    assert digests(store, "A")[0].digest != digests(store, "B")[0].digest


def test_the_read_set_holds_the_months_that_the_window_touches() -> None:
    store = MemoryStore()
    put_bars(store, [*walk("A", "2010-01-10", 10), *walk("A", "2010-03-01", 31)])
    january, march = digests(store, "A")
    assert (january.month, march.month) == (month_of(day("2010-01-01")), month_of(day("2010-03-01")))
    assert (january.rows, january.first_day, january.last_day) == (10, day("2010-01-10"), day("2010-01-19"))
    touched = head(store).read_set
    assert touched("stock_daily", "A", day("2010-01-19"), day("2010-03-01")) == (january.digest, march.digest)
    assert touched("stock_daily", "A", day("2010-01-20"), day("2010-02-28")) == ()
    assert touched("stock_daily", "A", day("2010-03-31"), day("2011-01-01")) == (march.digest,)
    assert touched("stock_daily", "nobody", *ALWAYS) == ()


def test_a_digest_is_pinned() -> None:
    """Read sets are part of every result's key: these bytes change only with the semantics version."""
    store = MemoryStore()
    rows = [
        Bar("A", day("2010-01-04"), 10.0, 11.5, 9.25, 10.5, 1000),
        Bar("A", day("2010-01-05"), 9.0, 9.0, 9.0, 9.0, 0),
    ]
    put_bars(store, rows)
    packed = [struct.pack("<iddddq", bar.day, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in rows]
    total = sum(int(sha256_hex(b"stock_daily\0A\0" + row), 16) for row in packed) % 2**256
    assert [month.digest for month in digests(store, "A")] == [f"{total:064x}"]


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=32, max_size=32)), max_size=12), st.randoms())
def test_months_merge_in_any_order(parts: list[tuple[int, bytes]], random: object) -> None:
    months = [MonthRows(month, 1, month * 30, month * 30, value.hex()) for month, value in parts]
    shuffled = list(months)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge_months(shuffled) == merge_months(months)
    assert merge_months([*merge_months(months[:5]), *merge_months(months[5:])]) == merge_months(months)


# Writer and index.


def _rows(days: list[int], **columns: list[int]) -> ShardRows:
    base = {"open": [10] * len(days), "high": [12] * len(days), "low": [8] * len(days), "close": [9] * len(days)}
    base |= {"volume": [1] * len(days)} | columns
    arrays = {"day": np.array(days, np.int32)} | {name: np.array(values, np.int64) for name, values in base.items()}
    return ShardRows(STOCK_DAILY, ("A",), np.zeros(len(days), np.int32), np.zeros(1, np.int8), arrays)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (_rows([]), "no rows"),
        (_rows([1, 1]), r"row 2: the row is not after the one before it"),
        (_rows([2, 1]), r"row 2: the row is not after the one before it"),
        (_rows([1, 2], low=[8, 13]), r"row 2: high is below low"),
        (_rows([1], close=[0]), r"row 1: close is not above zero"),
        (_rows([1, 2], volume=[1, -1]), r"row 2: volume is negative"),
    ],
)
def test_the_writer_checks_again(rows: ShardRows, says: str) -> None:
    with pytest.raises(DataError, match=says):
        write_shard(rows, "1970s")


def test_the_same_rows_and_options_give_the_same_bytes() -> None:
    rows = _rows([1, 2, 3])
    assert write_shard(rows, "1970s") == write_shard(rows, "1970s")
    assert write_shard(rows, "1970s", codec="zstd")[2].sha256 != write_shard(rows, "1970s")[2].sha256
    _, index, ref = write_shard(rows, "1970s", row_group_rows=2)
    assert decode_index(index, ref, place="x").group_rows.tolist() == [2, 1]
    assert month_digests(rows)[0][:5] == (0, month_of(1), 3, 1, 3)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, PRICE_SCALE_MAX)), min_size=1, max_size=20))
def test_the_scale_is_that_of_the_shortest_text(pairs: list[tuple[int, int]]) -> None:
    """Fewest decimals of all shortest texts, and ticks / 10**scale gives back every bit."""
    values = np.array([ticks / 10**scale for ticks, scale in pairs])
    wanted = max(-int(Decimal(repr(value)).normalize().as_tuple().exponent) for value in values.tolist())
    scale, is_open = scale_of(values)
    if (values * 10 ** max(wanted, 0) <= TICKS_MAX).all():
        assert not is_open.any()
        assert scale == max(wanted, 0)
        assert (to_ticks(values, scale) / 10**scale).tolist() == values.tolist()
    else:
        assert is_open.any()


@given(st.floats(min_value=1e-6, max_value=1e6, allow_nan=False))
def test_a_float_of_more_decimals_is_never_taken_for_fewer(value: float) -> None:
    scale, is_open = scale_of(np.array([value]))
    is_short = -int(Decimal(repr(value)).normalize().as_tuple().exponent) <= PRICE_SCALE_MAX
    assert (not is_open[0]) == is_short
    if is_short:
        assert to_ticks(np.array([value]), scale)[0] / 10**scale == value
