"""2,000 damaged files: each ends in rows, or in one error with a name, and then nothing has been written.

Good files of every kind and form are mutated by a seeded generator: bytes, text that programs trip over, cells, lines,
and for Parquet also whole columns of other types. Each goes through the public function, in this process: a crash of a
library would end the tests. A failure names file and seed; ``mutated(file, seed)`` makes the same bytes again.
"""

from __future__ import annotations

import builtins
import bz2
import functools
import gzip
import io
import lzma
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.shard import content, parse, source
from farm.shard.ingest import ingest_file, ingest_table
from farm.store.memory import MemoryStore
from farm.values.errors import FarmError

BARS = {"tz": "America/New_York", "stamp": "start"}
FLAGS = {"stock_daily": BARS, "dividends": {"tz": "America/New_York"}}

_DAYS = ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08")
_CSV = "symbol,ts,open,high,low,close,volume,note\n" + "".join(
    f'{name},{day},10.{at},11.5,9.25,10.5,{at}00,"a, b"\n' for name in ("AAA", "BBB") for at, day in enumerate(_DAYS)
)
_GERMAN = "\ufeff" + _CSV.replace(", b", " b").replace(",", ";").replace("\n", "\r\n")
_SPLITS = "symbol,ex_date,ratio,source\nAAA,2024-01-03,2:1,x\nAAA,2024-01-04,3/2,z\nBBB,2024-01-05,0.5,y\n"
_DIVIDENDS = (
    "symbol,ex_date,amount,pay_date,declared\nAAA,2024-01-03,0.25,2024-01-08,2023-12-01\nBBB,2024-01-04,1e-2,,\n"
)
_INSTRUMENTS = (
    "symbol,id,type,calendar,currency,lot,multiplier,listed,delisted,delisting_value\n"
    "CCC,C1,stock,XNYS,USD,1,1,2020-01-02,,\nDDD,D1,etf,24x7,EUR,0.001,10,2020-01-02,2023-01-03,12.5\n"
)

# What programs trip over: delimiters, quotes, marks, numbers beyond reason, dates that are none, other scripts.
_TOKENS: tuple[bytes, ...] = (
    b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b" ", b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\\",
    b"$X", b"nan", b"null", b"inf", b"-inf", b"1e999", b"-1e-999", b"9" * 400, b"0x10", b"1_0", b"+5", b"-0", b"1,5",
    b"1e308", b"1e-320", b"9007199254740993", b"1:0", b"0:1", b"-1:2", b"1/3", b"0.333333", b"9" * 20 + b":1",
    b"0001-01-01", b"9999-12-31", b"10000-01-01", b"2024-02-30", b"2024-13-01", b"1600-01-01", b"20240102",
    b"2024-01-02T24:00:00", b"2024-01-02T00:00:00+23:59", b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00",
    b"2024-01-02 16:00", b"1704067200000", "٣".encode(), "²".encode(), "\u202e".encode(), "\xa0".encode(), b"# x",
    b"x" * 70, b"=1+1", b"<b>", b"symbol", b"ts",
)  # fmt: skip

_MAGICS = (b"{", b"[[1]]", b"<html>", b"%PDF-", b"PAR1", b"PK\x03\x04", b"\x1f\x8b", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class Good:
    """A file that is taken as it is, and how many mutations of it are tried."""

    name: str
    kind: str
    data: bytes
    files: int = 250


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _typed() -> pa.Table:
    days = pa.array(_DAYS).cast(pa.date32()).cast(pa.timestamp("us"))
    price = pa.array([10.25] * len(_DAYS))
    return pa.table(
        {
            "symbol": pa.array(["AAA"] * len(_DAYS)).dictionary_encode(),
            "ts": days,
            "open": price,
            "high": price.cast(pa.decimal128(12, 4)),
            "low": price.cast(pa.float32()),
            "close": price,
            "volume": pa.array(range(len(_DAYS)), pa.uint32()),
        }
    )


def _zip(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bars.csv", data)
    return sink.getvalue()


PACKED = 50  # few ways lead past a checksum

GOOD = (
    Good("bars.csv", "stock_daily", _CSV.encode()),
    Good("german.csv", "stock_daily", _GERMAN.encode()),
    Good("splits.csv", "splits", _SPLITS.encode()),
    Good("dividends.csv", "dividends", _DIVIDENDS.encode()),
    Good("instruments.csv", "instruments", _INSTRUMENTS.encode()),
    Good("bars.parquet", "stock_daily", _parquet(_typed(), compression="zstd", write_page_checksum=True)),
    Good("plain.parquet", "stock_daily", _parquet(_typed(), compression="none", use_dictionary=False, version="1.0")),
    Good("bars.csv.gz", "stock_daily", gzip.compress(_CSV.encode(), mtime=0), PACKED),
    Good("bars.csv.bz2", "stock_daily", bz2.compress(_CSV.encode()), PACKED),
    Good("bars.csv.xz", "stock_daily", lzma.compress(_CSV.encode()), PACKED),
    Good("bars.csv.zst", "stock_daily", pa.Codec("zstd").compress(_CSV.encode(), asbytes=True), PACKED),
    Good("bars.zip", "stock_daily", _zip(_CSV.encode()), PACKED),
)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 100))
    middle = data[at : at + length]
    changed = (
        bytes([(middle[0] if middle else 0) ^ (1 << rng.randrange(8))]) + middle[1:],
        rng.randbytes(length),
        b"",
        middle * 2,
        rng.choice(_TOKENS) + middle,
    )
    return data[:at] + rng.choice(changed) + data[at + length :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] if rng.random() < 0.7 else data[at:]


def _cell(data: bytes, rng: random.Random) -> bytes:
    """Replace, drop, double or add one cell: most rows below the parser are reached only by a file that is whole."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    cells = lines[at].split(mark := b";" if b";" in data else b",")
    cell = rng.randrange(len(cells))
    token = rng.choice(_TOKENS)
    if rng.random() < 0.5 and mark in token:
        token = b'"' + token + b'"'
    cells[cell : cell + 1] = rng.choice(
        ([token], [token], [token], [cells[cell] + token], [], [cells[cell]] * 2, [b""])
    )
    lines[at] = mark.join(cells)
    return b"\n".join(lines)


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    changed: tuple[Callable[[], Any], ...] = (
        lambda: lines.insert(at, lines[other]),
        lambda: lines.insert(at, rng.choice((b"", b"  ", b",,,,", b"# x", b'"'))),
        lambda: lines.pop(at),
        lambda: rng.shuffle(lines),
        lambda: lines.extend(lines),
    )
    rng.choice(changed)()
    return b"\n".join(lines)


def _whole(data: bytes, rng: random.Random) -> bytes:
    text = data.decode(errors="replace")
    changed = (
        data.replace(b"\n", b"\r"),
        data.replace(b"\n", b""),
        data.replace(b",", rng.choice(_TOKENS)),
        data.replace(b'"', rng.choice(_TOKENS)),
        data.replace(rng.choice((b"0", b"-", b"A", b":", b"s")), rng.choice(_TOKENS)),
        text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "cp037")), errors="replace"),
        rng.choice(_MAGICS) + data,
        data.upper(),
    )
    return rng.choice(changed)


_COLUMNS: tuple[Callable[[], pa.Array], ...] = (
    lambda: pa.nulls(5),
    lambda: pa.array([None, *"abcd"]),
    lambda: pa.array([True] * 5),
    lambda: pa.array([2**64 - 1] * 5, pa.uint64()),
    lambda: pa.array([-(2**63)] * 5),
    lambda: pa.array([20240102, 20240103, 20240104, 20240105, 20240108]),
    lambda: pa.array([float("nan"), float("inf"), 1e308, 5e-324, -0.0]),
    lambda: pa.array([1.5, 2.0, 65504.0, 0.0, 1.0], pa.float32()),
    lambda: pa.array(["1.5"] * 5, pa.large_string()),
    lambda: pa.array([b"\xff\xfe"] * 5, pa.binary()),
    lambda: pa.array([[1.0]] * 5),
    lambda: pa.array([{"a": 1}] * 5),
    lambda: pa.array(["9" * 70] * 5).cast(pa.decimal256(76, 0)),
    lambda: pa.array([2**31 - 1, -(2**31), 0, 1, 2], pa.int32()).cast(pa.date32()),
    lambda: pa.array([2**52, -(2**52), 0, 1, 2]).cast(pa.timestamp("s")),
    lambda: pa.array([2**53, -(2**53), 0, 1, 2]).cast(pa.timestamp("ms", "UTC")),
    lambda: pa.array([2**63 - 1, -(2**63), 0, 1, 2]).cast(pa.timestamp("us", "Asia/Tokyo")),
    lambda: pa.array([2**63 - 1, -(2**63) + 1, 0, 1, 2]).cast(pa.timestamp("ns")),
    lambda: pa.array([1, 2, 3, 4, 5], pa.time64("us")),
    lambda: pa.array([1, 2, 3, 4, 5], pa.duration("ns")),
    lambda: pa.array([1.5] * 5).dictionary_encode(),
    lambda: pa.array(["\u202e", "", " ", "\n", "x\0"]),
)


def _column(data: bytes, rng: random.Random) -> bytes:
    """Give one or two columns of the table another type, another name or other rows."""
    table = _typed()
    for _ in range(rng.choice((1, 1, 2))):
        at, column = rng.randrange(table.num_columns), rng.choice(_COLUMNS)()
        name = rng.choice(
            (*table.schema.names, table.schema.names[at], table.schema.names[at], "", "__index_level_0__")
        )
        table = table.set_column(at, name, column) if rng.random() < 0.9 else table.remove_column(at)
    return _parquet(table.slice(rng.choice((0, 0, 0, 4, 5))), compression="none")


def mutated(good: Good, seed: int) -> bytes:
    """Return the bytes of ``good`` with one to three changes."""
    rng = random.Random(f"{good.name} {seed}")
    is_text = good.name.endswith(".csv")
    moves = (_cell, _cell, _cell, _lines, _whole, _bytes, _cut) if is_text else (_bytes, _bytes, _cut)
    if good.name.endswith(".parquet"):
        moves = (*moves, _column, _column)
    data = good.data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(moves)(data, rng) if data else rng.choice(_TOKENS)
    return data


class Written(MemoryStore):
    """A store that counts its writes."""

    def __init__(self, objects: dict[str, tuple[bytes, str]]) -> None:
        super().__init__()
        self._objects = dict(objects)
        self.writes = 0

    def put_if_absent(self, key: str, data: bytes) -> None:
        self.writes += 1
        super().put_if_absent(key, data)

    def put(self, key: str, data: bytes) -> None:
        self.writes += 1
        super().put(key, data)


@functools.cache
def _stored() -> dict[str, tuple[bytes, str]]:
    """The objects of a store that knows AAA and BBB, so that splits and dividends find them."""
    table = pa.table({"symbol": ["AAA", "BBB"], "ts": ["2020-01-02"] * 2, "volume": [1, 1]})
    for name in ("open", "high", "low", "close"):
        table = table.append_column(name, pa.array([1.0, 1.0]))
    store = MemoryStore()
    ingest_table(store, "main", table, "stock_daily", **BARS)
    return store._objects


def outcome(good: Good, data: bytes, folder: Path) -> str:
    """Ingest ``data`` and return ``"rows"`` or the error's text; AssertionError for anything else that happens."""
    path = folder / good.name
    path.write_bytes(data)
    store = Written(_stored())
    try:
        summary = ingest_file(store, "main", str(path), good.kind, **FLAGS.get(good.kind, {}))
    except FarmError as error:
        assert store.writes == 0, "written, although it failed"
        assert error.message.strip(), "an error that says nothing"
        assert error.place, f"an error without a place: {error}"
        assert str(error).isprintable(), f"what a terminal would act on: {error!r}"
        assert len(str(error)) < 2_500, "an error beyond reason"
        return str(error)
    # Rows that mean "none" are left out, and said to be.
    assert summary.rows_added + summary.rows_skipped > 0 or summary.notes, "no rows, no word and no error"
    return "rows"


def fuzz(good: Good, seeds: range, folder: Path) -> list[str]:
    """Return the outcomes of ``good`` under ``seeds``; AssertionError naming the first seed that breaks a promise."""
    outcomes = []
    for seed in seeds:
        try:
            outcomes.append(outcome(good, mutated(good, seed), folder))
        except Exception as error:
            raise AssertionError(f"mutated({good.name!r}, {seed}): {type(error).__name__}: {error}") from error
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_every_file_ends_in_rows_or_in_an_error(good: Good, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And nothing but the error reaches the terminal: no trace of a callback that failed inside a library."""
    assert outcome(good, good.data, tmp_path) == "rows"
    outcomes = fuzz(good, range(good.files), tmp_path)
    assert len(set(outcomes) - {"rows"}) > 4, "the mutations all end alike"
    assert capfd.readouterr().err == ""


def test_they_are_two_thousand() -> None:
    assert sum(good.files for good in GOOD) == 2_000


class Never(Exception):
    """Nobody raises this: in the place of another class it takes an except clause out."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (source, "pa.ArrowException"),
        (content, "UnicodeDecodeError"),
        (content, "OSError"),
        (content, "zlib.error"),
        (content, "zipfile.BadZipFile"),
        (parse, "ValueError"),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_a_missing_except_clause_is_found(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _, attribute = name.rpartition(".")
    if owner:
        monkeypatch.setattr(module, owner, _Without(getattr(module, owner), attribute))
    else:
        assert hasattr(builtins, attribute)
        monkeypatch.setattr(module, attribute, Never, raising=False)
    with pytest.raises(AssertionError, match=r"mutated\("):
        for good in GOOD:
            fuzz(good, range(good.files), tmp_path)


class _Without:
    """A module in which one exception class is ``Never``."""

    def __init__(self, module: Any, name: str) -> None:
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> Any:
        return Never if name == self._name else getattr(self._module, name)
