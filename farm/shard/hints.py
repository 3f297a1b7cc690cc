"""What a value or a header that was refused looks like, and what to change in the file: hints of errors, nothing more.

Nothing here is ever taken as a value. A hint names what can be seen in the text; of several readings it names both.
"""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Mapping, Sequence

from farm.shard.kinds import BAR_COLUMNS

_AS_NUMBER = "write numbers like 1234.5, without separators"
_AS_TYPE = {
    "text": "give text, or numbers to be taken as text",
    "number": "give integers, floats, decimals, or text like 1234.5",
    "date": "give dates of the years 1 to 9999, or text like 2020-01-31",
    "date or timestamp": "give dates, timestamps, integers like 20200131, or text like 2020-01-31T16:00:00",
}
_AS_DATE = "dates are YYYY-MM-DD or YYYYMMDD, timestamps ISO 8601: 2020-01-31T16:00:00, with Z or +01:00 at will"

_SIGN = "[$€£¥₹]|[A-Z]{3}"
_NUMBERS = tuple(
    (re.compile(pattern), seen)
    for pattern, seen in (
        (rf"[+-]?({_SIGN})\s*[+-]?[\d.,]+|[\d.,]+\s*({_SIGN})", "it has the sign of a currency"),
        (r"[+-]?\d{1,3},\d{3}", "its comma marks thousands or decimals, and is not guessed"),
        (r"[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?", "its commas mark thousands"),
        (r"[+-]?(\d*|\d{1,3}(\.\d{3})+),\d+", "it has a decimal comma"),
        (r"[+-]?\d{1,3}(\.\d{3}){2,}", "its points mark thousands"),
        (r"[+-]?\d{1,3}([\s'’_]\d{3})+([.,]\d*)?", "its thousands are set apart"),
        (r"[+-]?[\d.,]+\s*([kKmMbBtT]|[mM]io|[mM]rd|bn)\.?", "it is counted in thousands, millions or billions"),
        (r"[+-]?[\d.,]+\s*%", "it is a percentage"),
        (r"\([\d.,]+\)|[\d.,]+-", "it is negative in the manner of accounts"),
        (r".*\".*", "a quote is left in it, which another one should open or close"),
    )
)
_DATES = tuple(
    (re.compile(pattern), seen)
    for pattern, seen in (
        (
            r"(\d{4}-\d\d-\d\d)/\d{4}-\d\d-\d\d",
            "it is a span of days, as pandas prints a Period; one day has to name it",
        ),
        (r"\d{8}", "its parts are not year, month, day, and no other order is guessed"),
        (r"\d{12}|\d{14}", "its parts are in order, but not written like this"),
        (r".*[T ]24:00.*", "24:00 is written as 00:00 of the day after"),
        (r"\d{8}\.0+", "it is a date that became a decimal: write it without the point"),
        (
            r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d.*[\]A-Za-z]",
            "it names its zone: write the offset, or drop it and give --tz",
        ),
        (r"\d{1,2}([/.-])\d{1,2}\1(\d{2}|\d{4})\b.*", "which number is the day and which the month is not guessed"),
        (r"\d{4}([/.-])\d{1,2}\1\d{1,2}\b.*|\d{8}\D+\d{2}.*", "its parts are in order, but not written like this"),
        (r".*[A-Za-z]{3,}.*\d.*|\d.*[A-Za-z]{3,}.*", "names of months are not read"),
        (r"\D+", "a word: is this the right column, and has the header one line only?"),
    )
)
_EPOCHS = (("seconds", "s", 0), ("milliseconds", "ms", 3), ("microseconds", "us", 6), ("nanoseconds", "ns", 9))
_DAYS_1970, _DAYS_EXCEL = datetime.date(1970, 1, 1), datetime.date(1899, 12, 30)
_VALUE = re.compile(r"[+-]?(\d[\d.,:/-]*|\.\d+)([eE][+-]?\d+)?")
_DAY = re.compile(r"\d{4}([/.-])\d{1,2}\1\d{1,2}\b.*|\d{1,2}([/.-])\d{1,2}\2\d{2,4}")
_BAR_WORDS = re.compile(r"open|high|low|close|last|price|vol|adj", re.IGNORECASE)
_LABELLED = re.compile(
    r"(?P<label>.+?)[ _.:/|-]+(?P<word>open|high|low|close|last|volume|vol)"
    r"|(?P<word_first>open|high|low|close|last|volume|vol)[ _.:/|-]+(?P<label_last>.+)",
    re.IGNORECASE,
)
_TWO_LEVELS = re.compile(r"\(('.*'|\".*\"), ('.*'|\".*\")\)")
NAMES_SHOWN = 24
CHARS_SHOWN = 60


def number_hint(text: str) -> str:
    """Return what a text that is no number looks like, and how numbers are written."""
    return _seen(_NUMBERS, text, _AS_NUMBER)


def date_hint(text: str) -> str:
    """Return what a text that is no date looks like, and how dates are written."""
    for name, unit, digits in _EPOCHS:
        # Seconds since 1970 have 9 or 10 digits from 1973 to 2286; 8 digits are a date.
        if text.isascii() and text.isdigit() and len(text) - digits in (9, 10):
            moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(text) // 10**digits)
            how = f"write timestamps, such as by pandas.to_datetime(column, unit={unit!r}, utc=True)"
            return f"it looks like {name} since 1970, {moment} UTC; {how}"
    if text.isascii() and text.isdigit() and len(text) in (4, 5):
        unix, excel = (day + datetime.timedelta(days=int(text)) for day in (_DAYS_1970, _DAYS_EXCEL))
        return f"if it counts days, it is {unix} from 1970 and {excel} in Excel; {_AS_DATE}"
    return _seen(_DATES, text, _AS_DATE)


def period_hint(theirs: str) -> str:
    """Return what to do about a column of pandas' type Period, whose numbers count from 1970."""
    return f"it is a pandas Period: frame[{theirs!r}] = frame[{theirs!r}].dt.to_timestamp() makes dates of it"


def type_hint(ours: str, wanted: str) -> str:
    """Return which types can hold what is ``wanted`` for ``ours``, and how to name another column."""
    return f"{_AS_TYPE[wanted]}; if another column holds it, name that one: --map {ours}=THEIRS"


def _seen(patterns: Sequence[tuple[re.Pattern[str], str]], text: str, how: str) -> str:
    for pattern, seen in patterns:
        if pattern.fullmatch(text):
            return f"{seen}; {how}"
    return how


def column_hint(names: Sequence[str], ours: str, otherwise: str) -> str:
    """Return what a header without a column for ``ours`` looks like; ``otherwise`` when nothing is odd about it."""
    if sum(_DAY.fullmatch(name) is not None for name in names) * 2 > len(names) > 2:
        return "each column is a day; turn the table round: one row per symbol and day, with all prices"
    if sum(_VALUE.fullmatch(name) is not None for name in names) * 2 > len(names):
        return "the first line holds values; put a header above it, such as ts,open,high,low,close,volume"
    if pairs := [match.groups() for match in map(_TWO_LEVELS.fullmatch, names) if match]:
        prices = 0 if all(_BAR_WORDS.search(pair[0]) for pair in pairs) else 1
        if len({pair[1 - prices] for pair in pairs}) > 1:
            how = f'frame = frame.stack({1 - prices}).reset_index(names=["ts", "symbol"])'
            return f"the names have two levels, prices and symbols; make it one row per symbol and day: {how}"
        return f"the names have two levels; keep one: frame.columns = frame.columns.get_level_values({prices})"
    if len(names) == 1:
        return "one column is seen: columns are set apart by a comma, a semicolon, a tab or |"
    if ours in ("symbol", *BAR_COLUMNS) and (labelled := _labelled(names, ours)):
        return labelled
    if ours in ("symbol", *BAR_COLUMNS) and len(names) > 2 and not any(_BAR_WORDS.search(name) for name in names):
        return f"{otherwise}; if each column is a symbol, stack them: one row per symbol and day, with all prices"
    if ours == "volume":
        return f"{otherwise}; a bar without a volume is not taken"
    return otherwise


def _labelled(names: Sequence[str], ours: str) -> str:
    """Return how to read columns such as AAPL_open and AAPL_close, or nothing where names are not of that kind."""
    sets: dict[str, dict[str, str]] = {}
    for name in names:
        found = _LABELLED.fullmatch(name)
        if found:
            word = (found["word"] or found["word_first"]).lower()
            label = found["label"] or found["label_last"]
            sets.setdefault(label, {})[{"last": "close", "vol": "volume"}.get(word, word)] = name
    common = set.intersection(*map(set, sets.values())) if sets else set()
    if len(sets) < 2 or not common:
        words = {word: name for columns in sets.values() for word, name in columns.items()}
        return f"say which they are: --map {_mapped(words)}" if ours in words else ""
    labels = list(sets)
    more = f" and {len(labels) - 3:,} more" if len(labels) > 3 else ""
    lacks = [word for word in BAR_COLUMNS if word not in sets[labels[0]]]
    lack = f"; a bar needs {', '.join(lacks)} too" if lacks else ""
    return (
        f"there is a set of prices for each of {', '.join(map(shortened, labels[:3]))}{more}; one at a time: "
        f"--symbol {shlex.quote(shortened(labels[0]))} --map {_mapped(sets[labels[0]])}{lack}"
    )


def _mapped(columns: Mapping[str, str]) -> str:
    """Return the value of ``--map`` as a shell takes it."""
    return shlex.quote(",".join(f"{ours}={shortened(columns[ours])}" for ours in BAR_COLUMNS if ours in columns))


def listed(names: Sequence[str]) -> str:
    """Return the names of columns for a message: the first of many, each cut short."""
    shown = [shortened(name) or "(a column without a name)" for name in names[:NAMES_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def shortened(text: str, chars: int = CHARS_SHOWN) -> str:
    """Return ``text`` cut off where it is too long for a message, and without what a terminal would act on."""
    short = text if len(text) <= chars else text[: chars - 3] + "..."
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in short)
