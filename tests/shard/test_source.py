"""Opening a file: what a process that ends at once leaves behind in other threads."""

from __future__ import annotations

import sys

import pytest

from farm.shard import source
from farm.shard.hints import number_hint


def test_arrow_reads_memory_of_its_own() -> None:
    """A thread of Arrow's that lets go of Python's memory after Python has ended aborts the process."""
    data = b"x" * 1000
    held = sys.getrefcount(data)
    reader = source._in_arrow(data)
    assert sys.getrefcount(data) == held
    assert reader.read() == data


@pytest.mark.parametrize(
    ("header", "row", "delimiter"),
    [
        ("a,b,c", "1,2,3", ","),
        ("a;b;c", "1,5;2,5;3,5", ";"),
        ("a,b;c;d;e", "1,2", ","),
        ("a\tb, in $\tc, in $", "1\t2\t3", "\t"),
        ('"a;b;c",d', "1,2", ","),
        ("a|b", "1|2", "|"),
        ("a,b,c", "1,2", ","),
        ("a,b,c", "", ","),
        ("a b c", "1 2 3", ","),
    ],
)
def test_the_delimiter_cuts_header_and_row_alike(header: str, row: str, delimiter: str) -> None:
    assert source._delimiter([header, row]) == delimiter


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("$5", "currency"),
        ("1.187,15 €", "currency"),
        ("USD 5", "currency"),
        ("1,234", "thousands or decimals"),
        ("1,234.5", "commas mark thousands"),
        ("12,34,567", "commas mark thousands"),
        ("187,15", "decimal comma"),
        ("1.234,5", "decimal comma"),
        ("1.234.567", "points mark thousands"),
        ("1 234 567,5", "set apart"),
        ("1'234.50", "set apart"),
        ("5M", "millions"),
        ("1.5 bn", "billions"),
        ("-0.75%", "percentage"),
        ("(5)", "accounts"),
        ("5-", "accounts"),
        ('100"', "a quote"),
    ],
)
def test_what_a_text_that_is_no_number_looks_like(text: str, seen: str) -> None:
    assert seen in number_hint(text)
    assert number_hint(text).endswith("write numbers like 1234.5, without separators")


@pytest.mark.parametrize("text", ("ten", "0x1p3", "--5", "1.2.3", ""))
def test_what_looks_like_nothing_is_given_no_name(text: str) -> None:
    assert number_hint(text) == "write numbers like 1234.5, without separators"
