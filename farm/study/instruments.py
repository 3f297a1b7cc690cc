"""The instruments of a study: who is traded, and what is refused before anything is planned.

A spec may name an instrument by its ticker or by its id; everything behind planning names it by its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from farm.shard.calendar import ALWAYS_OPEN, Calendar
from farm.shard.dataset import Dataset, Instrument
from farm.spec.spec import StudySpec
from farm.study.split import buckets_of
from farm.values.errors import DataError, SpecError
from farm.values.units import iso


def traded_tickers(spec: StudySpec) -> list[str]:
    """Return the tickers that the study's sleeves trade: the members of the each universe, or of all that are used."""
    universes = spec.strategy.universes if spec.each is not None else ()
    if universes:
        return [ticker for universe in universes if universe.id == spec.each for ticker in universe.tickers]
    return sorted({ticker for universe in spec.strategy.template["universes"] for ticker in universe["tickers"]})


def subjects_of(spec: StudySpec, dataset: Dataset) -> tuple[str, ...]:
    """Return the ids that every trial runs on one by one, in bytewise order; one "" without ``each``."""
    if spec.each is None:
        return ("",)
    ids = {dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in traded_tickers(spec)}
    return tuple(sorted(ids, key=str.encode))


def ticker_place(spec: StudySpec, ticker: str) -> str:
    """Return where the document names ``ticker``: in a universe, as the benchmark, or in an expression."""
    for index, universe in enumerate(spec.raw.get("strategy", {}).get("universes", [])):
        if ticker in universe.get("tickers", []):
            return f"strategy.universes[{index}].tickers[{universe['tickers'].index(ticker)}]"
    return "run.benchmark" if spec.run.benchmark == ticker else "strategy"


def symbols_of(spec: StudySpec, dataset: Dataset, syms: Iterable[str]) -> dict[str, str]:
    """Return id -> symbol of everything that is read; SpecError for what is unknown or cannot be traded here.

    ``syms``: tickers that expressions name.

    A spec may name an instrument by its id. Cells are named by the symbol all the same: one key, one resolved spec.
    """
    traded = traded_tickers(spec)
    names = dict.fromkeys((*traded, *sorted(syms), *([spec.run.benchmark] if spec.run.benchmark else [])))
    ids = {ticker: dataset.resolve(ticker, ticker_place(spec, ticker)) for ticker in names}
    for ticker in traded:
        instrument = dataset.instruments()[ids[ticker]]
        place = ticker_place(spec, ticker)
        if instrument.type == "index":
            raise SpecError(f"{ticker} is an index: it has a level, and cannot be traded", place=place)
        if instrument.currency != spec.run.ccy:
            raise SpecError(
                f"{ticker} trades in {instrument.currency}, the account is in {spec.run.ccy}",
                place=place,
                allowed="instruments in the currency of the account",
            )
        _check_calendar(spec, ticker, instrument)
        if instrument.delisted_day is not None and instrument.delisted_day <= spec.run.end_day:
            day = iso(instrument.delisted_day)
            raise SpecError(
                f"{ticker} is delisted on {day}, and settling at the delisting value is not built yet",
                place=place,
                allowed="instruments that trade until the end of the run",
                hint=f"end the run before {day}",
            )
    _check_distinct(spec, ids)
    return {name: dataset.instruments()[name].symbol for name in sorted(ids.values(), key=str.encode)}


def _check_calendar(spec: StudySpec, ticker: str, instrument: Instrument) -> None:
    """Raise SpecError for what trades around the clock in a run that has exchange sessions: its days end at midnight
    UTC, so each close would be marked a session late, and those of weekends and holidays never. Two exchanges are two
    closes on most of the same days: that is said (``Coverage.other_calendar``)."""
    if instrument.calendar == ALWAYS_OPEN != spec.run.calendar:
        raise SpecError(
            f"{ticker} trades around the clock (calendar {ALWAYS_OPEN}), the run has the sessions of "
            f"{spec.run.calendar}" + ("" if "calendar" in spec.raw.get("run", {}) else ", the default"),
            place="run.calendar",
            allowed=json.dumps(ALWAYS_OPEN),
            hint=f"{_calendar_hint(ALWAYS_OPEN)}; stocks may trade in such a run too",
        )


def _check_distinct(spec: StudySpec, ids: Mapping[str, str]) -> None:
    """Raise SpecError when a universe names an instrument twice: by its symbol, and by its id."""
    for universe in spec.strategy.universes:
        seen: dict[str, str] = {}
        for ticker in (ticker for ticker in universe.tickers if ticker in ids):
            other = seen.setdefault(ids[ticker], ticker)
            if other != ticker:
                place = ticker_place(spec, ticker)
                raise SpecError(f"{ticker!r} and {other!r} are one instrument", place=place, hint="name it once")


def sessions_of(spec: StudySpec, dataset: Dataset) -> tuple[Calendar, int]:
    """Return the calendar of the run and its sessions in the window, checked: there are some, and each bucket of a
    split has some."""
    run = spec.run
    if run.calendar not in dataset.snapshot.calendars:
        named = {ticker for universe in spec.strategy.universes for ticker in universe.tickers}
        held = [one for key, one in dataset.instruments().items() if named & {key, one.symbol}]
        raise DataError(
            f"no instrument of the dataset trades on the calendar {run.calendar!r}"
            + ("" if "calendar" in spec.raw.get("run", {}) else ", which is the default"),
            place="run.calendar",
            allowed=", ".join(json.dumps(name) for name in dataset.snapshot.calendars),
            hint=_calendar_hint(
                min((one.calendar for one in held), default=next(iter(dataset.snapshot.calendars), "XNYS"))
            ),
        )
    calendar = dataset.calendar(run.calendar)
    count = calendar.session_count(run.start_day, run.end_day)
    if count == 0:
        raise SpecError(
            f"the window has no session of {run.calendar}: {iso(run.start_day)} to {iso(run.end_day)}",
            place="run.start, run.end",
            allowed="a window with at least one session",
        )
    if spec.study is not None:
        buckets_of(spec.study.split, count)
    return calendar, count


def _calendar_hint(name: str) -> str:
    return f'set run.calendar to "{name}"' + (f' and run.session to "{name}"' if name == ALWAYS_OPEN else "")
