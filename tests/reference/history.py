"""How far back a run reads: a function of the program and of counted rows alone.

Rules: history is read in whole calendar months, because a recursive indicator starts at the first session of a month
(domain.md 2.4) and because read sets are made of months. Months before that of the start count in full; the start's
own month counts nothing, since how many of its rows lie before the start is not known from counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farm.program.program import Program
from farm.values.units import first_day_of, month_of


class RowCounts(Protocol):
    """Rows of one instrument in one calendar month (``values.units.month_of``)."""

    @property
    def month(self) -> int: ...

    @property
    def rows(self) -> int: ...


def history_bars(program: Program, ticker: str) -> int:
    """Return the bars of ``ticker`` needed before the run's first bar: as a member of a universe, or by its name."""
    is_member = any(ticker in sleeve.universe or not sleeve.universe for sleeve in program.sleeves)
    return max(program.history_bars if is_member else 0, program.sym_history.get(ticker, 0))


def history_first_day(program: Program, months: Sequence[RowCounts], ticker: str) -> int:
    """Return the first day to read of ``ticker``: the start itself if no history is needed, else a first of a month.

    ``months`` are all months with rows of this instrument, in order. Where they hold too few rows, reading begins
    with the first of them.
    """
    start = program.run.start_day
    missing = history_bars(program, ticker)
    if missing <= 0:
        return start
    first = first_day_of(month_of(start))
    for month in reversed([month for month in months if month.month < month_of(start)]):
        first = first_day_of(month.month)
        missing -= month.rows
        if missing <= 0:
            break
    return first
