"""Segments: the same cells are the same bytes, they read back to the bit, and no damage goes unnoticed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.results.extent import (
    Extent,
    StoredAxes,
    decode_axes,
    decode_extent,
    encode_axes,
    encode_extent,
    extent_of,
)
from farm.results.segment import Segment, SegmentFile, encode
from farm.values.errors import DataError, OtherFormat
from tests.results.rectangles import make_axes, make_segment


@pytest.mark.parametrize(("trials", "subjects"), [(1, 1), (7, 1), (1, 9), (30, 10)])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("proof", [0.0, 0.4, 1.0])
def test_read_back_to_the_bit(trials: int, subjects: int, split: bool, proof: float) -> None:
    segment = make_segment(trials, subjects, split=split, proof=proof)
    data = encode(segment)
    assert data == encode(make_segment(trials, subjects, split=split, proof=proof))
    file = SegmentFile(data, "key")
    assert (file.content, file.shape) == (segment.content, segment.shape)
    columns = file.read()
    assert {*segment.columns, "proof"} == set(columns) == file.names
    for name, values in segment.columns.items():
        assert (values.dtype, values.tobytes()) == (columns[name].dtype, columns[name].tobytes()), name
    assert (segment.proof == columns["proof"]).all()
    assert (segment.ledger == columns["ledger"][segment.proof]).all()
    assert ("is.max_dd" in columns) is split


def test_columns_are_read_by_name() -> None:
    segment = make_segment(6, 3, proof=0.5)
    file = SegmentFile(encode(segment), "key")
    assert set(file.read(["full.trades", "verdict"])) == {"full.trades", "verdict"}
    assert set(file.read(["stats"])) == {"stats", "proof"}
    assert set(file.read(["ledger"])) == {"ledger", "stats", "proof"}
    assert (segment.proof == file.read(["proof"])["proof"]).all()
    assert file.read([]) == {}


@pytest.mark.parametrize(
    "name", ["values", "equity_end_micro", "verdict", "counts", "assumptions", "ledger", "stats", "trials"]
)
def test_everything_is_in_the_digest(name: str) -> None:
    segment = make_segment(6)
    changed = getattr(segment, name).copy()
    known = int(np.flatnonzero(np.isfinite(changed.reshape(-1)))[0]) * changed.itemsize
    changed.view(np.uint8).reshape(-1)[known] ^= 1
    assert segment.content != replace(segment, **{name: changed}).content


def test_identity_is_in_the_digest() -> None:
    segment = make_segment(6)
    proof = segment.proof.copy()
    proof[0, 0] = False
    others: list[dict[str, Any]] = [
        {"axes": make_axes(range(1, 7), segment.axes.subjects, [0] * 6)},
        {"axes": make_axes(range(6), segment.axes.subjects, [0] * 6, data=1)},
        {"params": replace(segment.params, codes=(segment.params.codes[1] // 3, segment.params.codes[1]))},
        {"params": replace(segment.params, values=(("ema", "wma"), segment.params.values[1]))},
        {"proof": proof, "ledger": segment.ledger[1:], "stats": segment.stats[1:]},
        {"metrics": ("total_return", "max_dd", "fills")},
    ]
    for other in others:
        changed = replace(segment, **other)
        assert segment.content != changed.content, other.keys()


def test_negative_zero_and_every_nan_are_stored_alike() -> None:
    segment = make_segment(2, 1, split=False)
    one, other = segment.values.copy(), segment.values.copy()
    one[0, 0] = [[0.0], [np.nan]]
    other[0, 0] = [[-0.0], [np.uint64(0x7FF8000000000001).view(np.float64)]]
    assert encode(replace(segment, values=one)) == encode(replace(segment, values=other))


def test_others_can_read_it() -> None:
    """It is plain Parquet: pyarrow and DuckDB see the columns by name."""
    segment = make_segment(5, 2)
    table = pq.read_table(pa.BufferReader(encode(segment)))
    assert table.column("trial").to_pylist() == [3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert table.column("instrument").to_pylist() == ["S0", "S1"] * 5
    assert table.column("params.n").to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert table.column("equity_end_micro").null_count == 2 == table.column("ledger").null_count
    [mean] = duckdb.sql('select avg("counts.lapsed"), count(*) from "table" where "params.kind" = \'ema\'').fetchall()
    assert mean == (segment.counts[0, ::2].mean(), 6)


def test_no_flipped_bit_goes_unnoticed() -> None:
    """Either the bytes still mean the same cells (what is there for people), or reading them is a DataError."""
    segment = make_segment(10)
    data = encode(segment)
    chance = random.Random(1)
    noticed = 0
    for _ in range(400):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            file = SegmentFile(bytes(damaged), "key")
            columns = file.read()
        except DataError as error:
            assert error.place == "key"
            noticed += 1
        else:
            # The content digest is compared with that of the extent.
            assert file.content != segment.content or all(
                values.tobytes() == columns[name].tobytes() for name, values in segment.columns.items()
            )
    assert noticed > 150


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_segment_is_named(length: int) -> None:
    with pytest.raises(DataError, match="results/f/s-000000: result segment cannot be read"):
        SegmentFile(encode(make_segment(5))[:length], "results/f/s-000000")


@pytest.mark.parametrize(("format_", "age"), [("farm-segment-1", "an older"), ("farm-segment-11", "a newer")])
def test_another_format_is_named(format_: str, age: str) -> None:
    table = pa.table({"key": [b"x"]}).replace_schema_metadata({"format": format_})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    with pytest.raises(OtherFormat, match=f"result segment of {age} format: {format_}, and this version reads"):
        SegmentFile(sink.getvalue().to_pybytes(), "key")


def study_axes(segment: Segment) -> StoredAxes:
    """Axes of a study whose trials 3 and on are those of the segment."""
    count = 3 + len(segment.trials)
    subjects = [*segment.axes.subjects, "T"]
    axes = make_axes([-3, -2, -1, *range(count - 3)], subjects, [0, 1, *[0] * (count - 2)])
    params = replace(
        segment.params,
        codes=tuple(np.concatenate((codes[:1], codes[:1], codes[:1], codes)) for codes in segment.params.codes),
        trials=count,
    )
    return StoredAxes(axes, params)


@pytest.mark.parametrize("proof", [0.0, 0.4, 1.0])
def test_an_extent_reads_back(proof: float) -> None:
    segment = make_segment(6, 3, proof=proof)
    extent = extent_of(segment, study_axes(segment))
    read = decode_extent(encode_extent(extent), "key")
    for name in ("axes", "metrics", "buckets", "counts", "assumptions", "content"):
        assert getattr(extent, name) == getattr(read, name)
    assert (extent.trials.tolist(), extent.subjects.tolist()) == (read.trials.tolist(), read.subjects.tolist())
    assert read.trials.tolist() == [3, 4, 5, 6, 7, 8] and read.subjects.tolist() == [0, 1, 2]
    assert (segment.proof == read.has_proof(*np.indices(segment.shape))).all()
    assert isinstance(read.proof, bool) is (proof != 0.4)
    assert {*segment.columns} == {*read.columns, "ledger", "stats"}


def test_an_extent_of_many_trials_is_small() -> None:
    """Steps of a range compress; a thousand blocks are looked up by what they take on the wire."""
    every_other = Extent("a", np.arange(0, 200_000, 2, dtype=np.int32), np.arange(1), (), (), (), (), True, "c")
    assert len(encode_extent(every_other)) < 4_000


def test_axes_read_back() -> None:
    axes = study_axes(make_segment(6, 3))
    read = decode_axes(encode_axes(axes), axes.digest, "key")
    assert (axes.digest, axes.axes.subjects) == (read.digest, read.axes.subjects)
    assert (axes.axes.read == read.axes.read).all() and (axes.axes.history == read.axes.history).all()
    assert [axes.params.row(at) for at in range(9)] == [read.params.row(at) for at in range(9)]
    with pytest.raises(DataError, match=r"key: axes of results cannot be read .*its name is not that of its content"):
        decode_axes(encode_axes(axes), "0" * 64, "key")


@pytest.mark.parametrize("what", ["axes", "extent"])
def test_no_flipped_bit_of_axes_goes_unnoticed(what: str) -> None:
    segment = make_segment(6, 3, proof=0.5)
    axes = study_axes(segment)
    data = encode_axes(axes) if what == "axes" else encode_extent(extent_of(segment, axes))
    chance = random.Random(2)
    noticed = 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            if what == "axes":
                assert decode_axes(bytes(damaged), axes.digest, "key").digest == axes.digest
            else:
                assert encode_extent(decode_extent(bytes(damaged), "key")) == data
        except DataError:
            noticed += 1
    assert noticed > 150
    for length in (0, 9, len(data) // 2):
        with pytest.raises(DataError, match=r"^key: "):
            decode_axes(data[:length], axes.digest, "key")
        with pytest.raises(DataError, match=r"^key: "):
            decode_extent(data[:length], "key")
