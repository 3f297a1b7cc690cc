"""Segments: the same rows are the same bytes, they read back to the bit, and no damage goes unnoticed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.results.segment import Segment, decode, encode, join_bytes, split_bytes
from farm.values.errors import DataError

METRICS = ("total_return", "max_dd", "trades")


def make_segment(rows: int, *, split: bool = True, seed: int = 0) -> Segment:
    """Rows with NaN, a cell that was not simulated, and text of every kind."""
    chance = np.random.default_rng(seed)

    def digests() -> np.ndarray:
        return join_bytes([chance.bytes(32) for _ in range(rows)])

    def metrics() -> np.ndarray:
        values = chance.normal(size=(rows, len(METRICS)))
        values[chance.random(values.shape) < 0.2] = np.nan
        return values

    simulated = np.arange(rows) % 5 != 4
    return Segment(
        metrics=METRICS,
        key=digests(),
        trial=np.arange(rows, dtype=np.int32),
        instrument=tuple("AAPL" if row % 2 else "" for row in range(rows)),
        params=tuple(f'{{"n":{row}}}' for row in range(rows)),
        equity_end_micro=np.where(simulated, chance.integers(0, 2**52, rows), 0),
        simulated=simulated,
        full=metrics(),
        in_sample=metrics() if split else None,
        out_of_sample=metrics() if split else None,
        ledger=np.where(simulated[:, None], digests(), np.uint8(0)),
        stats=digests(),
        assumptions=('["fixed_universe"]',) * rows,
        counts=('{"unfilled":1}',) * rows,
        verdict=tuple("" if done else "no_data" for done in simulated),
    )


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("split", [True, False])
def test_read_back_to_the_bit(rows: int, split: bool) -> None:
    segment = make_segment(rows, split=split)
    data = encode(segment)
    read = decode(data, "key")
    assert segment.digest() == read.digest()
    assert data == encode(read)
    assert segment.keys() == read.keys() == split_bytes(segment.key)
    assert segment.full.tobytes() == read.full.tobytes()
    assert (read.in_sample is None) is (not split)
    assert segment.verdict == read.verdict and segment.instrument == read.instrument


@pytest.mark.parametrize("name", ["full", "in_sample", "key", "trial", "equity_end_micro", "ledger", "stats"])
def test_every_column_is_in_the_digest(name: str) -> None:
    segment = make_segment(6)
    changed = getattr(segment, name).copy()
    known = int(np.flatnonzero(np.isfinite(changed.reshape(-1)))[0]) * changed.itemsize
    changed.view(np.uint8).reshape(-1)[known] ^= 1
    assert segment.digest() != replace(segment, **{name: changed}).digest()
    assert segment.digest() != replace(segment, counts=("{}",) * 6).digest()


def test_others_can_read_it() -> None:
    """It is plain Parquet: pyarrow alone sees the columns by name."""
    segment = make_segment(10)
    table = pq.read_table(pa.BufferReader(encode(segment)))
    assert table.column("trial").to_pylist() == list(range(10))
    assert table.column("equity_end_micro").null_count == 2 == table.column("ledger").null_count
    assert table.column("full").type == pa.list_(pa.float64(), 3)


def test_no_flipped_bit_goes_unnoticed() -> None:
    """Either the bytes still mean the same rows (padding, statistics), or reading them is a DataError."""
    segment = make_segment(20)
    data, expected = encode(segment), segment.digest()
    chance = random.Random(1)
    noticed = 0
    for _ in range(400):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert decode(bytes(damaged), "key").digest() == expected
        except DataError as error:
            assert error.place == "key"
            noticed += 1
    assert noticed > 300


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_segment_is_named(length: int) -> None:
    with pytest.raises(DataError, match="results/f/s-000000: result segment cannot be read"):
        decode(encode(make_segment(5))[:length], "results/f/s-000000")
