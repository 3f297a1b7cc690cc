"""Opens what a user names: a CSV or Parquet file behind a path or any fsspec URL, or a table in memory.

CSV columns arrive as text, so that nothing is converted before the importer can say which row it did not like; Parquet
and Arrow columns keep their types. A *data row* is counted from 1; a CSV header and lines of blanks do not count, and
rows of delimiters below the last row are none. What a file is is seen from its first bytes, not from its name
(``content``). Errors here are about the file as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from farm.shard.content import ALLOWED, PARQUET, check_text, first_line, unpack
from farm.shard.hints import listed, shortened
from farm.values.errors import DataError, PermissionDenied, Unavailable, UsageError, public

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BLANK_START = re.compile(rb"(?:[ \t]*(?:\r\n|\r|\n))+")
_QUOTED = re.compile(r'"[^"]*"')
_NO_HEADER = ("#", "//", "sep=")
_START_BYTES = 1 << 20
_DELIMITERS = ",;\t|"
_ALLOWED = "one file, CSV or Parquet"
_PATTERN = re.compile(r"[*?\[]")
_PIECES = re.compile(r"[/:@?&=#]+")
_SECRET_CHARS = 4
_EACH = 'one file at a time: for f in {}/*.csv; do farm ingest "$f" --symbol "$(basename "$f" .csv)" ...; done'


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

    The URL may carry credentials: a user and password, the signature of a query. They are used here and go no further:
    the source, whatever is made of it and all errors have the name without them.
    Errors: UsageError when there is no such file, or no such protocol; PermissionDenied or Unavailable when the place
            cannot be read; DataError when the content is neither Parquet nor CSV, or has no rows.
    """
    name = public(url)
    data = unpack(_read(url, name), name)
    table = _read_parquet(data, name) if data.startswith(PARQUET) else _read_csv(data, name)
    return _checked(Source(name, table))


def open_table(table: Any, name: str) -> Source:
    """Return a pyarrow table, or anything that speaks the Arrow stream interface (pandas, Polars), as a source."""
    if not hasattr(table, "__arrow_c_stream__"):
        raise UsageError(
            f"not a table: {type(table).__name__}", place=name, allowed="a pyarrow Table, or a pandas or Polars frame"
        )
    try:
        made = pa.table(table)
        made.validate(full=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        message = f"not a table that Arrow can hold: {first_line(error)}"
        raise DataError(message, place=name, allowed="columns of one type each") from error
    return _checked(Source(name, made))


def _checked(source: Source) -> Source:
    if source.table.num_rows == 0:
        hint = f"there is a header at most: {listed(source.names)}; check what wrote it"
        raise DataError("no rows", place=source.name, hint=hint)
    return source


def _read(url: str, name: str) -> bytes:
    # Imported here: the read path of a run never opens a user's file.
    import fsspec

    if not url:
        raise UsageError("no file is named", place="source", allowed=_ALLOWED, hint="is a variable of the shell empty?")
    # Errors without ``from``: the text of a foreign one quotes the URL, and with it what must stay secret.
    try:
        with fsspec.open(url, "rb") as file:
            data: bytes = file.read()
    except IsADirectoryError:
        hint = _EACH.format(name.rstrip("/"))
        raise UsageError("a directory, not a file", place=name, allowed=_ALLOWED, hint=hint) from None
    except (FileNotFoundError, NotADirectoryError) as error:
        _refuse_pattern(url, name)
        if _is_away(url, error):
            hint = "check the host and the port of the URL, and the network"
            raise Unavailable("no server answers there", place=name, hint=hint) from None
        raise UsageError("no such file", place=name, allowed=_ALLOWED, hint="check the path or URL") from None
    except PermissionError:
        _refuse_pattern(url, name)
        hint = "look at the owner and mode of the file, or at the credentials of the URL"
        raise PermissionDenied("the file may not be read", place=name, hint=hint) from None
    except (ValueError, ImportError) as error:
        hint = "a path, or a URL that fsspec knows"
        raise UsageError(f"cannot open: {_said(error, url, name)}", place=name, allowed=hint) from None
    except _remote_errors(url) as error:
        _refuse_pattern(url, name)
        hint = "check the URL, and the credentials it needs (AWS_* for s3://)"
        message = f"the file cannot be read: {_said(error, url, name)}"
        raise Unavailable(message, place=name, hint=hint if "://" in url else "") from None
    return data


def _said(error: Exception, url: str, name: str) -> str:
    """Return what a foreign error says; its class alone where it quotes what ``name`` leaves out of ``url``."""
    said = first_line(error)
    left_out = {piece for piece in _PIECES.split(url) if len(piece) >= _SECRET_CHARS} - set(_PIECES.split(name))
    is_quoted = any(piece in said or unquote(piece) in said for piece in left_out)
    return type(error).__name__ if is_quoted else said


def _refuse_pattern(url: str, name: str) -> None:
    """Raise UsageError when a file that was not found is named by a pattern; a name may hold such signs as well."""
    protocol, mark, path = url.rpartition("://")
    # In the address of a page they mean something else.
    if _PATTERN.search(path) and not protocol.startswith("http"):
        folder = name.rpartition("/")[0]
        hint = _EACH.format(folder or ".") if not mark else "one file at a time, each by its own URL"
        raise UsageError("a pattern, not a file", place=name, allowed=_ALLOWED, hint=hint) from None


def _is_away(url: str, error: OSError) -> bool:
    """Whether a page was not found because nobody was asked for it: fsspec says the same of both."""
    if url.partition("://")[0] not in ("http", "https"):
        return False
    from aiohttp import ClientConnectionError

    return isinstance(error.__cause__, ClientConnectionError)


def _remote_errors(url: str) -> tuple[type[Exception], ...]:
    """Return what the client behind ``url`` raises beside its own OSErrors; only the one in use is imported."""
    protocol = url.partition("://")[0]
    if protocol in ("s3", "s3a"):
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # ships no types

        return OSError, BotoCoreError
    if protocol in ("http", "https"):
        from aiohttp import ClientError

        return OSError, ClientError
    return (OSError,)


def _in_arrow(data: bytes) -> pa.BufferReader:
    """Return ``data`` in memory of Arrow's own.

    A thread of Arrow's may be the last to let go of what it has read. When that memory is Python's and Python has
    ended meanwhile, as it does after an error, the process is aborted.
    """
    memory = pa.allocate_buffer(len(data))
    pa.FixedSizeBufferWriter(memory).write(data)
    return pa.BufferReader(memory)


def _read_parquet(data: bytes, url: str) -> pa.Table:
    try:
        table = pq.ParquetFile(_in_arrow(data), page_checksum_verification=True).read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        hint = "the file may be cut off or damaged"
        raise DataError(f"not a whole Parquet file: {first_line(error)}", place=url, hint=hint) from error
    return table


def _read_csv(data: bytes, url: str) -> pa.Table:
    """Return the columns as text, named by the first line that is not blank."""
    check_text(data, url)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError("the file is empty", place=url, allowed="CSV with a header line, or Parquet")
    blank = _BLANK_START.match(data)
    data = data[blank.end() :] if blank else data
    lines = [line.decode(errors="replace") for line in _LINE_END.split(data[:_START_BYTES]) if line][:2]
    if len(lines) == 1:
        data += b"\n"  # a header alone is no error of the parser's
    delimiter = _delimiter(lines)
    # The header is read as a row, so that its names are cut by the same rules as everything below them.
    table = _rows(data, url, delimiter, lines[0])
    if b'"' in data:
        _refuse_line_ends(table, url)
    names = [column[0].as_py() for column in table.columns]
    return _without_blank_end(table.slice(1)).rename_columns(names)


def _delimiter(lines: Sequence[str]) -> str:
    """Return what cuts the header and the line below it into equally many columns; of several, into the most."""
    outside = [_QUOTED.sub("", line) for line in lines]
    counts = {one: [line.count(one) for line in outside] for one in _DELIMITERS}
    return max(_DELIMITERS, key=lambda one: (counts[one][0] > 0 and len(set(counts[one])) == 1, counts[one][0]))


def _rows(data: bytes, url: str, delimiter: str, header: str) -> pa.Table:
    """Return all rows but lines of blanks; DataError for the first that has more or fewer columns than the header."""
    blank = 0
    uneven: list[DataError] = []

    def skip(row: Any) -> str:
        nonlocal blank
        if not row.text.strip():
            blank += 1
        elif not uneven:
            # The number counts the header, not empty lines: data row = number - 1.
            place = f"{url}, data row {row.number - 1 - blank}"
            uneven.append(_uneven(row, place, header))
        return "skip"

    types = {f"f{at}": pa.string() for at in range(1 + header.count(delimiter))}
    try:
        table = pa.csv.read_csv(
            _in_arrow(data),
            read_options=pa.csv.ReadOptions(use_threads=False, autogenerate_column_names=True),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowException as error:
        hint = "is a quote opened and never closed, or a line beyond a megabyte?"
        raise DataError(f"not a CSV file: {first_line(error)}", place=url, allowed=ALLOWED, hint=hint) from error
    if uneven:
        raise uneven[0]
    return table


def _uneven(row: Any, place: str, header: str) -> DataError:
    actual, expected = row.actual_columns, row.expected_columns
    message = f"{actual} column{'' if actual == 1 else 's'} instead of {expected}"
    if expected == 1 or header.startswith(_NO_HEADER):
        message += f", which the first line has: {shortened(header)!r}"
        hint = "the first line is the header; remove comments and titles above it"
    else:
        fewer = "is the file cut off there, or is it a note? remove the line"
        hint = "text that holds the delimiter needs quotes" if actual > expected else fewer
        other = next((one for one in _DELIMITERS if row.text.count(one) == expected - 1), "")
        if row.text.count('"') % 2:
            hint = "a quote is opened there and never closed"
        elif other:
            hint = f"its columns are set apart by {other!r}, and those of the header are not"
    return DataError(message, place=place, hint=hint)


def _refuse_line_ends(table: pa.Table, url: str) -> None:
    """Raise DataError for a value of several lines: a quote that is never closed would swallow the rows after it."""
    for column in table.columns:
        # A header of several lines has columns that no type was given for.
        texts = column.cast(pa.string())
        is_long = pc.match_substring_regex(texts, "[\r\n]").to_numpy()
        if is_long.any():
            at = int(np.argmax(is_long))
            raise DataError(
                f"a quoted text goes over several lines: {shortened(texts[at].as_py())!r}",
                place=f"{url}, data row {at}" if at else f"{url}, the header",
                hint="is a quote opened and never closed? keep each row on one line",
            )


def _without_blank_end(table: pa.Table) -> pa.Table:
    """Return ``table`` up to its last row with a value: spreadsheets write rows of delimiters below the last."""
    rows = table.num_rows
    if not rows or any(column[rows - 1].as_py().strip() for column in table.columns):
        return table
    blank = (pc.equal(pc.utf8_trim_whitespace(column), "").to_numpy() for column in table.columns)
    filled = np.flatnonzero(~np.logical_and.reduce(list(blank)))
    return table.slice(0, int(filled[-1]) + 1 if filled.size else 0)
