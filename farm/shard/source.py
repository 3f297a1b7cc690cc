"""Opens what a user names: a CSV or Parquet file behind a path or any fsspec URL, or a table in memory.

CSV columns arrive as text, so that nothing is converted before the importer can say which row it did not like; Parquet
and Arrow columns keep their types. A *data row* is counted from 1; a CSV header and blank lines do not count. What a
file is is seen from its first bytes, not from its name. Errors here are about the file as a whole.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from farm.values.errors import DataError, PermissionDenied, Unavailable, UsageError

_LINE_END = re.compile(rb"[\r\n]")
_DELIMITERS = ",;\t|"
_ALLOWED = "one file, CSV or Parquet"


@dataclass(frozen=True, eq=False)
class Source:
    """An opened source: what to call it in errors, and its columns. Several columns may share a name, to be refused."""

    name: str
    table: pa.Table

    @property
    def names(self) -> list[str]:
        """Column names, trimmed."""
        return [name.strip() for name in self.table.schema.names]

    def row(self, number: int) -> str:
        """Return the place of data row ``number`` (from 1)."""
        return f"{self.name}, data row {number}"


def open_source(url: str) -> Source:
    """Return the file at ``url`` (a path or an fsspec URL).

    Errors: UsageError when there is no such file, or no such protocol; PermissionDenied or Unavailable when the place
            cannot be read; DataError when the content is neither Parquet nor CSV, or has no rows.
    """
    data = _read(url)
    table = _read_parquet(data, url) if data[:4] == b"PAR1" else _read_csv(data, url)
    return _checked(Source(url, table))


def open_table(table: Any, name: str) -> Source:
    """Return a pyarrow table, or anything that speaks the Arrow stream interface (pandas, Polars), as a source."""
    if isinstance(table, pa.Table):
        return _checked(Source(name, table))
    if not hasattr(table, "__arrow_c_stream__"):
        raise UsageError(
            f"not a table: {type(table).__name__}", place=name, allowed="a pyarrow Table, or a pandas or Polars frame"
        )
    return _checked(Source(name, pa.table(table)))


def _checked(source: Source) -> Source:
    if source.table.num_rows == 0:
        raise DataError("no rows", place=source.name, hint="there is a header at most; check what wrote it")
    return source


def _read(url: str) -> bytes:
    """Return the bytes of ``url``, unpacked when its name ends in .gz, .bz2, .xz or .zst."""
    # Imported here: the read path of a run never opens a user's file.
    import fsspec

    try:
        with fsspec.open(url, "rb", compression="infer") as file:
            data: bytes = file.read()
    except IsADirectoryError as error:
        hint = "ingest the files in it one after the other"
        raise UsageError("a directory, not a file", place=url, allowed=_ALLOWED, hint=hint) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("no such file", place=url, allowed=_ALLOWED, hint="check the path or URL") from error
    except PermissionError as error:
        hint = "look at the owner and mode of the file, or at the credentials of the URL"
        raise PermissionDenied("the file may not be read", place=url, hint=hint) from error
    except (ValueError, ImportError) as error:
        raise UsageError(f"cannot open: {error}", place=url, allowed="a path, or a URL that fsspec knows") from error
    except _remote_errors(url) as error:
        hint = "check the URL, and the credentials it needs (AWS_* for s3://)"
        raise Unavailable(f"the file cannot be read: {error}", place=url, hint=hint if "://" in url else "") from error
    return data


def _remote_errors(url: str) -> tuple[type[Exception], ...]:
    """Return what the client behind ``url`` raises beside its own OSErrors; only the one in use is imported."""
    protocol = url.partition("://")[0]
    if protocol in ("s3", "s3a"):
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # ships no types

        return OSError, BotoCoreError
    if protocol in ("http", "https"):
        from aiohttp import ClientError

        return OSError, ClientError
    # EOFError: a compressed file that ends too early.
    return OSError, EOFError


def _read_parquet(data: bytes, url: str) -> pa.Table:
    try:
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"not a whole Parquet file: {error}", place=url, hint="the file may be cut off or damaged"
        ) from error


def _read_csv(data: bytes, url: str) -> pa.Table:
    if not data.strip():
        raise DataError("the file is empty", place=url, allowed="CSV with a header line, or Parquet")
    delimiter, names = _header(data, url)
    invalid: list[tuple[int, int, int]] = []

    def remember(row: Any) -> str:
        # The number counts the header, not blank lines: data row = number - 1.
        invalid.append((row.number - 1, row.expected_columns, row.actual_columns))
        return "skip"

    try:
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=remember),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowException as error:
        raise DataError(f"not a CSV file in UTF-8: {error}", place=url, allowed="CSV or Parquet") from error
    if invalid:
        row, expected, actual = invalid[0]
        raise DataError(
            f"{actual} columns instead of {expected}",
            place=f"{url}, data row {row}",
            hint="text that holds the delimiter needs quotes" if actual > expected else "is the file cut off there?",
        )
    return table


def _header(data: bytes, url: str) -> tuple[str, Sequence[str]]:
    """Return the delimiter and the column names of the first line that is not blank."""
    try:
        text = _LINE_END.split(data.lstrip(b"\xef\xbb\xbf\r\n"), 1)[0].decode()
    except UnicodeDecodeError as error:
        raise DataError(f"neither Parquet nor text in UTF-8: {error}", place=url, allowed="CSV or Parquet") from error
    delimiter = max(_DELIMITERS, key=text.count)
    try:
        return delimiter, next(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"the header cannot be read: {error}", place=url, allowed="CSV or Parquet") from error
