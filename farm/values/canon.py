"""Canonical bytes of values and arrays, and fingerprints over them.

Two values that mean the same have the same bytes, on every machine: JSON by RFC 8785 (sorted keys, the shortest number
that reads back, no blanks), arrays little-endian in C order with one NaN and no negative zero. What has no canonical
form (NaN in JSON, integers that a float64 reader would round, lone surrogates) is refused instead of approximated.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

INT_MAX = 2**53
"""Largest magnitude of an integer in canonical JSON: beyond it, readers with float64 numbers do not agree."""

_text = json.JSONEncoder(ensure_ascii=False).encode
_NAN_BITS = np.uint64(0x7FF8000000000000)
_NAN_BITS_32 = np.uint32(0x7FC00000)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``."""
    return sha256_hex(canonical_json(value))


def canonical_json(value: object) -> bytes:
    """Return the RFC 8785 form of ``value`` in UTF-8.

    Types:   None, bool, int, float, str, sequences (list, tuple), mappings with string keys.
    Numbers: as ECMAScript prints them; 1, 1.0 and 1e0 are one number, and so are 0 and -0.0.
    Errors:  ValueError for NaN, infinities, integers beyond 2**53, lone surrogates, and any other type.
    """
    parts: list[str] = []
    _write(value, parts)
    try:
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"text with a lone surrogate has no canonical form: {error.object[error.start]!r}") from error


def _write(value: object, parts: list[str]) -> None:
    if isinstance(value, str):
        # The encoder escapes exactly what RFC 8785 asks for: the quote, the backslash and the control characters.
        parts.append(_text(str(value)))
    elif value is None:
        parts.append("null")
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    elif isinstance(value, int):
        if not -INT_MAX <= value <= INT_MAX:
            raise ValueError(f"integer beyond 2**53 has no canonical form: {value}")
        parts.append(str(int(value)))
    elif isinstance(value, float):
        parts.append(_number(float(value)))
    elif isinstance(value, Mapping):
        _write_object(value, parts)
    elif isinstance(value, (list, tuple)):
        _write_array(value, parts)
    else:
        raise ValueError(f"no canonical form for a value of type {type(value).__name__}")


def _write_array(items: list[Any] | tuple[Any, ...], parts: list[str]) -> None:
    parts.append("[")
    for position, item in enumerate(items):
        if position:
            parts.append(",")
        _write(item, parts)
    parts.append("]")


def _write_object(items: Mapping[Any, Any], parts: list[str]) -> None:
    for key in items:
        if not isinstance(key, str):
            raise ValueError(f"keys are text, not {type(key).__name__}: {key!r}")
    parts.append("{")
    for position, key in enumerate(sorted(items, key=_utf16)):
        if position:
            parts.append(",")
        parts.append(_text(key))
        parts.append(":")
        _write(items[key], parts)
    parts.append("}")


def _utf16(key: str) -> bytes:
    """Sort key: UTF-16 code units. It differs from code point order only beyond the basic plane."""
    return key.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """Print ``value`` as ECMAScript's Number::toString does (ECMA-262 6.1.6.1.20)."""
    if not math.isfinite(value):
        raise ValueError(f"{value} has no canonical form")
    if value == 0.0:
        return "0"
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    # repr() gives the shortest digits too; only its switch to an exponent comes elsewhere (1e16 and 1e-5).
    sign = "-" if value < 0 else ""
    mantissa, exponent_text = text.lstrip("-").split("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).rstrip("0")
    point = int(exponent_text) + len(whole)  # value = 0.digits x 10**point
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    exponent = point - 1
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if exponent >= 0 else '-'}{abs(exponent)}"


def canonical_array_bytes(a: npt.NDArray[Any]) -> bytes:
    """Return the bytes of ``a``: little-endian, C order, every NaN the same quiet NaN, -0.0 as +0.0.

    Shapes:  any; shape and dtype are not part of the bytes, so a digest over several arrays states them itself.
    Types:   bool, integers, float32, float64, fixed bytes, and records of these (packed, in field order).
    Errors:  ValueError for object, text, date and complex arrays.
    """
    return _canonical(np.atleast_1d(a)).tobytes("C")


def _canonical(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if a.dtype.names is not None:
        fields = [(name, _canonical(np.ascontiguousarray(a[name]))) for name in a.dtype.names]
        packed = np.empty(a.shape, np.dtype([(name, field.dtype, field.shape[a.ndim :]) for name, field in fields]))
        for name, field in fields:
            packed[name] = field
        return packed
    if a.dtype.kind in "biuS":
        return a.astype(a.dtype.newbyteorder("<"), copy=False)
    if a.dtype.kind == "f" and a.dtype.itemsize in (4, 8):
        # Adding +0.0 turns -0.0 into +0.0 and changes nothing else; the copy keeps the caller's array as it was.
        clean = a.astype(a.dtype.newbyteorder("<")) + a.dtype.type(0.0)
        bits: npt.NDArray[Any] = clean.view(np.dtype("<u8") if a.dtype.itemsize == 8 else np.dtype("<u4"))
        bits[np.isnan(clean)] = _NAN_BITS if a.dtype.itemsize == 8 else _NAN_BITS_32
        return bits
    raise ValueError(f"no canonical bytes for dtype {a.dtype}")
