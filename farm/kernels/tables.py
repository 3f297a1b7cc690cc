"""The tables of a run by name: ``order(b, row)`` is the order in that row, by reference.

``b`` is the record BOOKS, which says where each table begins. Numba passes an array as seven numbers and counts its
references; a function that needs most of the twenty tables of a run would spend more on its arguments than on its work.
So kernels pass ``b`` alone, and take a record out of a table where they need it. As with arrays, nobody checks ``row``.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from farm.kernels.jit import inlined
from farm.kernels.records import (
    ACCOUNT,
    ACTION,
    AMOUNT,
    ASSET,
    BAR,
    CASH,
    FILL,
    INSTANT,
    LINK,
    NUMBER,
    OPENING,
    ORDER,
    PAYMENT,
    POSITION,
    SAID,
    SESSION,
    SLEEVE,
    STOP_RULE,
    STRUCTURE,
    TALLY,
    TRADE,
    Row,
)


def _typed(context: Any, address: Any, row: Any, dtype: Any) -> Any:
    """The record ``row`` of the table of ``dtype`` that begins at ``address``."""
    record = dtype.dtype

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, index, _ = arguments
        offset = builder.mul(index, ir.Constant(index.type, record.size))
        return builder.inttoptr(builder.add(start, offset), target.get_value_type(record))

    return record(types.int64, types.int64, dtype), build


_record: Any = intrinsic(_typed)


@inlined
def account(b: Row) -> Row:
    """The account of the run."""
    return _record(b.account, 0, ACCOUNT)


@inlined
def tally(b: Row) -> Row:
    """The sums and counts of the run."""
    return _record(b.tally, 0, TALLY)


@inlined
def instant(b: Row, row: int) -> Row:
    """An instant of the tape."""
    return _record(b.instants, row, INSTANT)


@inlined
def action(b: Row, row: int) -> Row:
    """A split or an ex-date."""
    return _record(b.actions, row, ACTION)


@inlined
def bar(b: Row, row: int) -> Row:
    """A closing bar."""
    return _record(b.bars, row, BAR)


@inlined
def payment(b: Row, row: int) -> Row:
    """A dividend on its pay date."""
    return _record(b.payments, row, PAYMENT)


@inlined
def opening(b: Row, row: int) -> Row:
    """An opening print."""
    return _record(b.openings, row, OPENING)


@inlined
def asset(b: Row, row: int) -> Row:
    """A traded instrument."""
    return _record(b.asset, row, ASSET)


@inlined
def sleeve(b: Row, row: int) -> Row:
    """The rules of a sleeve."""
    return _record(b.sleeve, row, SLEEVE)


@inlined
def stop_rule(b: Row, row: int) -> Row:
    """A stop that a sleeve sets."""
    return _record(b.stop, row, STOP_RULE)


@inlined
def structure_of(b: Row, leg: int) -> Row:
    """What a sleeve holds as one thing, of which the position in this row is a leg."""
    return _record(b.structure, _record(b.position, leg, POSITION).structure, STRUCTURE)


@inlined
def position(b: Row, row: int) -> Row:
    """A leg of a structure."""
    return _record(b.position, row, POSITION)


@inlined
def of_asset(b: Row, row: int) -> Row:
    """The list of positions by asset."""
    return _record(b.of_asset, row, LINK)


@inlined
def held(b: Row, row: int) -> Row:
    """The list of positions that are not flat."""
    return _record(b.held, row, LINK)


@inlined
def working(b: Row, row: int) -> Row:
    """The list of orders that wait."""
    return _record(b.working, row, LINK)


@inlined
def queue(b: Row, row: int) -> Row:
    """Scratch."""
    return _record(b.queue, row, LINK)


@inlined
def order(b: Row, row: int) -> Row:
    """An order."""
    return _record(b.order, row, ORDER)


@inlined
def fill(b: Row, row: int) -> Row:
    """A fill."""
    return _record(b.fill, row, FILL)


@inlined
def cash_line(b: Row, row: int) -> Row:
    """A cash line."""
    return _record(b.cash, row, CASH)


@inlined
def trade(b: Row, row: int) -> Row:
    """A flat-to-flat episode."""
    return _record(b.trade, row, TRADE)


@inlined
def session(b: Row, row: int) -> Row:
    """A session of the run."""
    return _record(b.session, row, SESSION)


@inlined
def receivable(b: Row, dividend: int, sleeve: int) -> Row:
    """What a dividend owes a sleeve (or the sleeve it)."""
    return _record(b.receivable, dividend * b.sleeves + sleeve, AMOUNT)


@inlined
def said(b: Row, sleeve: int, bar: int) -> int:
    """The signals of a sleeve at a closing bar, as bits."""
    bits: int = np.int64(_record(b.signals, sleeve * b.bars_end + bar, SAID).bits)  # type: ignore[assignment]
    return bits


@inlined
def number(b: Row, sleeve: int, which: int, bar: int) -> float:
    """A number of a sleeve at a closing bar: its preference, or a stop level."""
    return _record(b.numbers, (sleeve * b.levels + which) * b.bars_end + bar, NUMBER).value


@inlined
def word(address: int, at: int) -> Row:
    """One of the words of eight bytes from ``address`` on, as ``row``."""
    return _record(address, at, LINK)
