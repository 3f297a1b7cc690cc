"""Decides which staged rows fall on sessions of their calendars: keeps them, leaves out others with a note, or refuses.

- What clock times say of sessions is looked at first (``clocks``).
- A bar on a day that is no session is refused, or left out on request.
- A split or dividend beyond the calendar, or before the first bar on a day that is no session, can act on no position:
  it is left out. Any other that is on no session is refused like a bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from farm.shard.calendar import ALWAYS_OPEN, Calendar
from farm.shard.clocks import by_clock, odd_day_hint
from farm.shard.kinds import STOCK_DAILY
from farm.shard.stage import Piece, Staged
from farm.values.arrays import BOOL, I32
from farm.values.errors import DataError
from farm.values.units import date_of, iso

SKIP = "unknown-session"
"""What ``--skip-rows`` calls the rows on days that are no session."""

SHOWN_MAX = 5
"""Rows left out that a note names; the others are counted."""


@dataclass(frozen=True, eq=False)
class OnSessions:
    """The rows to store, per symbol, and notes about those left out. ``gaps``: sessions without a bar in between."""

    pieces: Mapping[str, Piece]
    notes: tuple[str, ...]
    gaps: int


@dataclass(frozen=True, order=True)
class _Odd:
    """A row on no session, in the order of the source."""

    number: int
    symbol: str
    day: int


def on_sessions(
    staged: Staged, calendars: Mapping[str, Calendar], first_bars: Mapping[str, int], *, skip: bool
) -> OnSessions:
    """Return the rows that fall on sessions.

    ``calendars``: by symbol; ``first_bars``: day of the first bar of each symbol that has one, for splits and
    dividends; ``skip``: leave out what would be refused for having no session.
    Errors: DataError for the first bar whose clock time contradicts its session, else for the first row without one.
    """
    time = staged.kind.time_column
    assert time is not None
    is_bars = staged.kind is STOCK_DAILY
    staged, notes = by_clock(staged, calendars)
    pieces: dict[str, Piece] = {}
    left_out: dict[str, list[_Odd]] = {}
    refused: list[_Odd] = []
    gaps = 0
    for symbol, piece in staged.pieces.items():
        calendar, day = calendars[symbol], piece.columns[time]
        is_kept = calendar.is_session(day)
        for reason, mask in _reasons(calendar, day, first_bars.get(symbol), is_bars=is_bars, skip=skip).items():
            rows = [_Odd(int(piece.numbers[at]), symbol, int(day[at])) for at in np.flatnonzero(mask).tolist()]
            (left_out.setdefault(reason, []) if reason else refused).extend(rows)
        if is_kept.any():
            kept = pieces[symbol] = piece if is_kept.all() else piece.take(is_kept)
            gaps += calendar.session_count(int(kept.columns[time][0]), int(kept.columns[time][-1])) - kept.rows
    if refused:
        _refuse(staged, refused, calendars)
    notes += tuple(_note(reason, rows) for reason, rows in left_out.items() if rows)
    return OnSessions(pieces, notes, gaps if is_bars else 0)


def _reasons(calendar: Calendar, day: I32, first_bar: int | None, *, is_bars: bool, skip: bool) -> Mapping[str, BOOL]:
    """Return which rows to leave out, by reason; under the empty reason those to refuse."""
    is_left = ~calendar.is_session(day)
    if not is_left.any():
        return {}
    reasons: dict[str, BOOL] = {}
    if not is_bars:
        is_beyond = ~calendar.knows(day)
        reasons[f"outside {_range(calendar)}, which the calendar {calendar.name} knows"] = is_beyond
        is_left = is_left & ~is_beyond
        if first_bar is not None:
            is_old = is_left & (day < first_bar)
            reasons[f"older than the bars and on no session of {calendar.name}"] = is_old
            is_left = is_left & ~is_old
    reasons[f"on no session of {calendar.name}" if skip else ""] = is_left
    return reasons


def _range(calendar: Calendar) -> str:
    first, last = calendar.covers or (0, 0)
    return f"{iso(first)} .. {iso(last)}"


def _note(reason: str, rows: Sequence[_Odd]) -> str:
    shown = ", ".join(f"{row.symbol} {iso(row.day)}" for row in sorted(rows)[:SHOWN_MAX])
    more = f" and {len(rows) - SHOWN_MAX} more" if len(rows) > SHOWN_MAX else ""
    return f"{len(rows)} row{'' if len(rows) == 1 else 's'} left out, {reason}: {shown}{more}"


def _refuse(staged: Staged, refused: Sequence[_Odd], calendars: Mapping[str, Calendar]) -> NoReturn:
    row = min(refused)
    calendar = calendars[row.symbol]
    name, place = calendar.name, staged.source.row(row.number)
    message = f"{iso(row.day)} ({row.symbol}) is not a session of the calendar {name}"
    others = f"; {len(refused) - 1} more on such days" if len(refused) > 1 else ""
    skip = f"--skip-rows {SKIP} leaves such rows out"
    if not calendar.knows(np.array([row.day], np.int32))[0]:
        first, last = calendar.covers or (0, 0)
        edge = f"begins on {iso(first)}" if row.day < first else f"ends on {iso(last)}"
        raise DataError(f"{message}, which {edge}{others}", place=place, allowed=_range(calendar), hint=skip)
    hints = [skip]
    if staged.kind is STOCK_DAILY:
        piece = staged.pieces[row.symbol]
        hints.insert(0, odd_day_hint(staged, piece, int(np.argmax(piece.numbers == row.number)), calendar))
        hints += [f"--calendar {ALWAYS_OPEN} knows every day"] if name != ALWAYS_OPEN else []
    raise DataError(f"{message}: it is a {date_of(row.day):%A}{others}", place=place, hint="; ".join(hints))
