"""Reads split ratios: which fraction a vendor meant by what is written.

``2:1`` and ``2/1`` are what they say, and so is a whole number. A decimal often stands for a fraction that it cannot
hold: 0.033333 is 1:30, and the 0.03333333333333333 of a float64 too. It is read in three steps:

1. The *simplest* fraction (the least terms) that rounds to the decimal at the digits written, when its terms are at
   most 1,000. A binary float has no digits: what lies within its precision (1e-9 for a float64) rounds to it.
2. But the decimal as it stands, when its terms are at most 1,000 and not ten times as large: 0.1 is 1:10 and 1.05 is
   21:20, though 1:7 and 20:19 round to them as well; 0.33 is 1:3, and hardly 33:100.
3. Else the decimal as it stands.

Whatever is not the decimal exactly, and whatever took step 3, is said in a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa

from farm.shard.hints import shortened
from farm.shard.parse import EXACT_MAX, Field, parse_numbers
from farm.values.arrays import I64

TEXT_MAX = 400
"""Most characters of a ratio; beyond some thousand digits Python reads no integer."""
TERM_MAX = 1_000
PLAIN_MAX = 10
"""How many times the largest term of the simplest fraction that of the decimal may be, for the decimal to win."""

_RATIO = re.compile(r"(\d+)\s*[:/]\s*(\d+)")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_NUMBER = r"(\d{1,15}|\d{1,15}\.\d{1,15}|\.\d{1,15})"
_OTHERWISE = re.compile(rf"{_NUMBER}\s*(?:[:/x-]|-?\s*for\s*-?|to)\s*{_NUMBER}", re.IGNORECASE)
_FLOAT64_PRECISION = Fraction(1, 10**9)
_HINT = "new shares per old: 2:1, 2/1 or 2.0"
_NOTES_MAX = 5


def parse_ratios(field: Field) -> tuple[I64, I64, tuple[str, ...]]:
    """Return numerator and denominator (new shares, old shares) in lowest terms, and what to note about them.

    A decimal of 0 is 0:1: a column of splits says so where there is none.
    Errors: DataError for what is no ratio, or a negative one.
    """
    kind = field.column.type
    precision = _FLOAT64_PRECISION
    if pa.types.is_floating(kind):
        texts = [np.format_float_positional(value, trim="0") for value in parse_numbers(field)]
        if kind.bit_width < 64:
            precision = Fraction(float(np.finfo(kind.to_pandas_dtype()).eps))
    else:
        texts = field.texts().to_pylist()
    read: dict[str, tuple[Fraction, str]] = {}
    pairs = np.empty((len(texts), 2), np.int64)
    for row, text in enumerate(texts):
        if text not in read:
            read[text] = _read(field, row, text, precision)
        pairs[row] = read[text][0].as_integer_ratio()
    return pairs[:, 0].copy(), pairs[:, 1].copy(), _bounded(note for _, note in read.values() if note)


def _read(field: Field, row: int, text: str, precision: Fraction) -> tuple[Fraction, str]:
    """Return the ratio that ``text`` means, and the note that it needs, if any."""
    if len(text) > TEXT_MAX:
        raise field.refuse(row, f"{shortened(text)!r} is not a ratio", hint=_HINT)
    terms = _RATIO.fullmatch(text)
    if (terms is None and _DECIMAL.fullmatch(text) is None) or (terms is not None and not int(terms[2])):
        raise field.refuse(row, f"{text!r} is not a ratio", hint=_written_as(text))
    ratio = Fraction(int(terms[1]), int(terms[2])) if terms else Fraction(text)
    if ratio < 0 or (terms is not None and not ratio):
        raise field.refuse(row, f"{text!r} is not a positive ratio", hint=_HINT)
    note = ""
    if terms is None and ratio.denominator > 1:
        ratio, note = of_decimal(text, precision)
    if max(ratio.as_integer_ratio()) >= EXACT_MAX or (note and not ratio):
        raise field.refuse(row, f"{text!r} is beyond any split", hint=_HINT)
    return ratio, note


def _written_as(text: str) -> str:
    """Return how a ratio is written that is written otherwise, if it can be seen what it is."""
    found = _OTHERWISE.fullmatch(text)
    if found is None or not Fraction(found[1]) or not Fraction(found[2]):
        return _HINT
    ratio = Fraction(found[1]) / Fraction(found[2])
    return f"write {_shown(ratio)}, if it means {found[1]} new shares for {found[2]} old"


def of_decimal(text: str, precision: Fraction = _FLOAT64_PRECISION) -> tuple[Fraction, str]:
    """Return the fraction that a positive decimal with a fractional part stands for, and a note unless it is exact."""
    exact = Fraction(text)
    unit = Fraction(10) ** int(Decimal(text).as_tuple().exponent)
    slack = max(unit / 2, exact * precision)
    found = _simplest(exact - slack, exact + slack)
    largest = max(exact.as_integer_ratio())
    if largest <= min(TERM_MAX, PLAIN_MAX * max(found.as_integer_ratio())):
        return exact, ""
    if max(found.as_integer_ratio()) <= TERM_MAX:
        return found, f"{text} read as {_shown(found)}" if found != exact else ""
    # A float64 may print more digits than the terms of a stored ratio can hold.
    kept = exact.limit_denominator(max(1, (EXACT_MAX - 1) // max(1, -(-exact.numerator // exact.denominator))))
    return kept, f"{text} kept as {_shown(kept)}: no ratio of terms up to {TERM_MAX:,} rounds to it"


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction of the least terms in [low, high], 0 < low <= high: the first in the Stern-Brocot tree."""
    whole = low.numerator // low.denominator
    if low == whole:
        return Fraction(whole)
    if whole + 1 <= high:
        return Fraction(whole + 1)
    return whole + 1 / _simplest(1 / (high - whole), 1 / (low - whole))


def _shown(ratio: Fraction) -> str:
    return f"{ratio.numerator}:{ratio.denominator}"


def _bounded(notes: Iterable[str]) -> tuple[str, ...]:
    every = tuple(notes)
    more = len(every) - _NOTES_MAX
    return (*every[:_NOTES_MAX], f"and {more} more ratios like these") if more > 0 else every
