"""Canonical bytes: one value, one text, one number; what has none is refused."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.values.canon import canonical_array_bytes, canonical_json, fingerprint, sha256_hex

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        # The table of RFC 8785, appendix B.
        (0x0000000000000000, "0"),
        (0x8000000000000000, "0"),
        (0x0000000000000001, "5e-324"),
        (0x8000000000000001, "-5e-324"),
        (0x7FEFFFFFFFFFFFFF, "1.7976931348623157e+308"),
        (0x4340000000000000, "9007199254740992"),
        (0xC340000000000000, "-9007199254740992"),
        (0x4430000000000000, "295147905179352830000"),
        (0x44B52D02C7E14AF5, "9.999999999999997e+22"),
        (0x44B52D02C7E14AF6, "1e+23"),
        (0x44B52D02C7E14AF7, "1.0000000000000001e+23"),
        (0x444B1AE4D6E2EF4E, "999999999999999700000"),
        (0x444B1AE4D6E2EF4F, "999999999999999900000"),
        (0x444B1AE4D6E2EF50, "1e+21"),
        (0x3EB0C6F7A0B5ED8C, "9.999999999999997e-7"),
        (0x3EB0C6F7A0B5ED8D, "0.000001"),
        (0x41B3DE4355555553, "333333333.3333332"),
        (0x41B3DE4355555557, "333333333.33333343"),
        (0xBECBF647612F3696, "-0.0000033333333333333333"),
        (0x43143FF3C1CB0959, "1424953923781206.2"),
    ],
)
def test_numbers_of_the_rfc(bits: int, text: str) -> None:
    value = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    assert text == canonical_json(value).decode()


def test_the_example_of_the_rfc() -> None:
    """RFC 8785 section 3.2.2 and the key order of 3.2.3."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert expected.encode() == canonical_json(value)
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(keys)).values()) == [2, 4, 6, 7, 1, 5, 3]


@given(VALUES)
def test_reading_back_gives_the_value(value: object) -> None:
    """Canonical JSON is JSON, a fixed point, and independent of the order of keys."""
    text = canonical_json(value)
    # Numbers as ECMAScript reads them: 1e20 is written in digits, which Python would read as an integer beyond 2**53.
    back = json.loads(text, parse_int=float)
    assert back == value
    assert text == canonical_json(back)
    if isinstance(value, dict):
        assert text == canonical_json(dict(reversed(value.items())))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_value(value: float) -> None:
    assert value == float(canonical_json(value))
    assert b"." not in canonical_json(float(int(value))) if abs(value) < 1e15 else True


def test_one_number_has_one_text() -> None:
    assert canonical_json([1, 1.0, True]) == b"[1,1,true]"
    assert canonical_json((1, 2)) == canonical_json([1, 2])
    assert fingerprint({"a": 0.0}) == fingerprint({"a": -0.0}) == sha256_hex(b'{"a":0}')
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        2**53 + 1,
        -(2**53) - 1,
        "\ud800",
        {1: 2},
        {"a": {None: 1}},
        b"x",
        {1, 2},
        np.int64(1),
    ],
)
def test_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(ValueError, match=r"canonical|keys are text"):
        canonical_json(value)


def test_arrays_are_little_endian_in_c_order() -> None:
    a = np.arange(6, dtype=">i4").reshape(2, 3)
    assert canonical_array_bytes(a) == np.arange(6, dtype="<i4").tobytes()
    assert canonical_array_bytes(np.asfortranarray(a)) == canonical_array_bytes(a)
    assert canonical_array_bytes(a[:, ::2]) == np.array([0, 2, 3, 5], "<i4").tobytes()
    assert canonical_array_bytes(np.array([True, False])) == b"\x01\x00"


def test_one_nan_and_no_negative_zero() -> None:
    """Every NaN has one pattern, -0.0 is +0.0, and the caller's array keeps its own bits."""
    odd = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x8000000000000000, 0x3FF0000000000000], np.uint64)
    a = odd.view(np.float64)
    expected = struct.pack("<QQQQ", 0x7FF8000000000000, 0x7FF8000000000000, 0, 0x3FF0000000000000)
    assert expected == canonical_array_bytes(a)
    assert odd.tolist() == a.view(np.uint64).tolist()
    single = np.array([-0.0, np.nan, 1.5], np.float32)
    assert struct.pack("<III", 0, 0x7FC00000, 0x3FC00000) == canonical_array_bytes(single)
    assert canonical_array_bytes(np.array(-0.0)) == bytes(8)
    assert canonical_array_bytes(np.empty(0)) == b""


def test_records_are_packed_in_field_order() -> None:
    """Padding and byte order of a record array do not matter, its floats are cleaned."""
    aligned = np.zeros(2, np.dtype([("flag", "i1"), ("price", ">f8"), ("n", "<i4", (2,))], align=True))
    aligned["flag"], aligned["price"], aligned["n"] = [1, 2], [-0.0, 2.5], [[1, 2], [3, 4]]
    expected = struct.pack("<bdii", 1, 0.0, 1, 2) + struct.pack("<bdii", 2, 2.5, 3, 4)
    assert expected == canonical_array_bytes(aligned)


@pytest.mark.parametrize("a", [np.array(["a"]), np.array([None]), np.array([1j]), np.array(["2020-01-01"], "M8[D]")])
def test_arrays_without_canonical_bytes(a: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no canonical bytes"):
        canonical_array_bytes(a)
