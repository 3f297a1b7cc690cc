"""What a file is, seen from its first bytes: unpacks one that is packed, and names one that holds no table.

A file that is neither Parquet nor text is refused by the name of what it is, with the way out. Text is UTF-8; what is
not is named with the line.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable

import pyarrow as pa

from farm.shard.hints import shortened
from farm.values.errors import DataError, public

ALLOWED = "CSV in UTF-8, or Parquet"
PARQUET = b"PAR1"

_ZIP = b"PK\x03\x04"
_AS_CSV = "save the sheet as CSV UTF-8 and ingest that"
_AS_PARQUET = "read it with what wrote it and save it as Parquet, such as frame.to_parquet('bars.parquet')"
_AS_UTF_8 = "save it as UTF-8, such as: iconv -f {} -t UTF-8 OLD > NEW"
_FOREIGN = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", _AS_CSV),
    (b"\xff\xfe\x00\x00", "text in UTF-32", _AS_UTF_8.format("UTF-32")),
    (b"\x00\x00\xfe\xff", "text in UTF-32", _AS_UTF_8.format("UTF-32")),
    (b"\xff\xfe", "text in UTF-16", _AS_UTF_8.format("UTF-16")),
    (b"\xfe\xff", "text in UTF-16", _AS_UTF_8.format("UTF-16")),
    (b"PK\x05\x06", "an empty zip archive", "look at what packed it"),
    (b"%PDF-", "a PDF document", "look for the same table as CSV"),
    (b"ARROW1", "an Arrow (Feather) file", _AS_PARQUET),
    (b"\x89HDF\r\n", "an HDF5 file", _AS_PARQUET),
    (b"SQLite format 3\x00", "a SQLite database", "export the table as CSV"),
    (b"\x80\x04\x95", "a Python pickle", _AS_PARQUET),
    (b"\x80\x05\x95", "a Python pickle", _AS_PARQUET),
    (b"PARE", "an encrypted Parquet file", "save it again without encryption"),
)
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_JSON = re.compile(rb"\s*(\{\s*[\"}]|\[\s*[\[{])")
_WORKBOOK_NAMES = (".xlsx", ".xlsm", ".xlsb", ".ods")
_WORKBOOK_PARTS = ("[Content_Types].xml", "content.xml")
_START_BYTES = 512
MESSAGE_CHARS = 200


def unpack(data: bytes, place: str) -> bytes:
    """Return the content of ``data``: as it is, or out of gzip, bzip2, xz, zstd or a zip archive that holds one file.

    Errors: DataError for one that is damaged or cut off, for a workbook, and for an archive of several files.
    """
    if data.startswith(_ZIP):
        return _unzip(data, place)
    for magic, name, decompress in _PACKED:
        if magic.match(data):
            try:
                return decompress(data)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise _damaged(f"{name} file", place, error) from error
    return data


def check_text(data: bytes, place: str) -> None:
    """Raise DataError for what is no text in UTF-8, naming what it is instead."""
    for magic, name, hint in _FOREIGN:
        if data.startswith(magic):
            raise _foreign(name, place, hint)
    start = data[:_START_BYTES]
    if _PAGE.match(start):
        raise _foreign("a web page", place, "the address may lead to a login or an error; open it in a browser")
    if _JSON.match(start):
        raise _foreign("JSON", place, _AS_PARQUET)
    for at, encoding in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        if len(start) > 2 and not any(start[at::2]):
            raise _foreign("text in UTF-16", place, _AS_UTF_8.format(encoding))
    bad, hint = data.find(b"\0"), "is it the right file? this one does not hold text"
    if bad < 0:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            bad, hint = error.start, "text of older Windows programs: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
    if bad >= 0:
        line = 1 + data.count(b"\n", 0, bad)
        message = f"neither Parquet nor text in UTF-8: byte 0x{data[bad]:02x} in line {line}"
        raise DataError(message, place=place, allowed=ALLOWED, hint=hint)


def _foreign(name: str, place: str, hint: str) -> DataError:
    return DataError(f"{name}, not a table", place=place, allowed=ALLOWED, hint=hint)


def _damaged(name: str, place: str, error: Exception) -> DataError:
    return DataError(f"not a whole {name}: {first_line(error)}", place=place, hint="the file may be cut off or damaged")


def first_line(error: Exception) -> str:
    """Return the first line of what a foreign exception says, fit for a message; its class when it says nothing."""
    line = public(next(iter(str(error).splitlines()), "").strip())
    return shortened(line, MESSAGE_CHARS) or type(error).__name__


def _unzip(data: bytes, place: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            if place.lower().endswith(_WORKBOOK_NAMES) or any(name in _WORKBOOK_PARTS for name in names):
                raise _foreign("a workbook of Excel or LibreOffice (a zip archive)", place, _AS_CSV)
            if len(names) != 1:
                hint = "unpack it, and ingest the files one after the other"
                raise DataError(f"a zip archive of {len(names)} files", place=place, allowed="one file", hint=hint)
            return archive.read(names[0])
    # RuntimeError: it is encrypted, or packed in a way that zipfile does not know.
    except (zipfile.BadZipFile, RuntimeError, OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged("zip archive", place, error) from error


def _unpack_zstd(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        content: bytes = stream.read()
    return content


_PACKED: tuple[tuple[re.Pattern[bytes], str, Callable[[bytes], bytes]], ...] = (
    (re.compile(rb"\x1f\x8b"), "gzip", gzip.decompress),
    (re.compile(rb"BZh[1-9]1AY&SY"), "bzip2", bz2.decompress),
    (re.compile(rb"\xfd7zXZ\x00"), "xz", lzma.decompress),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "zstd", _unpack_zstd),
)
