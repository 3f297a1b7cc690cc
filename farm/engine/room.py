"""Where a run writes: tables of records that are used again by the next run, and that grow."""

from __future__ import annotations

import numpy as np

from farm.engine.layout import asset_table
from farm.kernels import records
from farm.kernels.records import Table, Tables
from farm.market.tape import Tape
from farm.spec.spec import RunSpec
from farm.values.arrays import I64
from farm.values.errors import CapacityError
from farm.values.units import NS_PER_DAY, iso

RECORDS_MIN = 128
_GROWING = ("order", "fill", "cash", "trade")


class RecordRoom:
    """What run after run of one thread has no need to make anew: record tables to write into, and the table of assets.

    A run that allots its own records touches fresh memory for each of them, and again each time they grow, which costs
    as much as the loop.
    """

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}
        self._pack = np.empty(0, np.int64)
        self._assets: tuple[Tape, RunSpec, Table] | None = None

    def assets(self, tape: Tape, run: RunSpec) -> Table:
        """Return the table of assets of a tape under the rules of a run, a copy of its own."""
        if self._assets is None or self._assets[0] is not tape or self._assets[1] is not run:
            series = [tape.market.series[index] for index in tape.traded]
            self._assets = tape, run, asset_table(run, series, tape.calendars)
        return self._assets[2].copy()

    def take(self, name: str, rows: int) -> Table:
        """Return the table ``name`` with at least ``rows`` rows, whatever stands in them."""
        found = self._tables.pop(name, None)
        return found if found is not None and found.shape[0] >= rows else np.empty(rows, records.TABLES[name])

    def give(self, state: Tables) -> None:
        """Take the tables of a run back, whose books have been copied."""
        self._tables.update({name: getattr(state, name) for name in _GROWING})

    def pack(self, words: int) -> I64:
        """Return room for at least so many words."""
        if self._pack.shape[0] < words:
            self._pack = np.empty(words, np.int64)
        return self._pack


def grown(state: Tables) -> Tables:
    """Return the state with twice the room for records; a kernel stops before the instant for which it may lack."""
    wider = {}
    for name in _GROWING:
        table: Table = getattr(state, name)
        wider[name] = np.concatenate((table, np.empty_like(table)))
    return state._replace(**wider)


def overflow(instants: Table, state: Tables) -> CapacityError:
    """Return the error of a run that stands at one of these instants, in which an amount reached 2**53."""
    ts = int(instants["ts"][int(state.account["next"][0])])
    return CapacityError(
        "an amount of money or a number of lots reached 2^53",
        place=f"ledger, {iso(ts // NS_PER_DAY)}",
        allowed="amounts below 9.0e9 currency units, and fewer than 9.0e15 lots",
        hint="start with less cash, or size positions smaller",
    )
