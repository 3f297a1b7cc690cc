"""All trials of some subjects in one call: their state laid out, the event loop, the metrics, and the books of some.

A trial differs from the next by its rules (rows of SLEEVE, STOP_RULE, POSITION) and by which signals and numbers it
looks at; a subject from the next by its tape, and by the bits and numbers there. Everything else they share.
``run_trials`` lays out the state of a trial, carries it over the tape with
``loop.advance``, measures it with ``buckets.bucket_metrics`` and writes what is kept into the arrays of the block. So a
trial costs what its bars cost: no object, no array and no call from Python is made for it.

Where digests are wanted the published columns of the books are packed for whoever hashes them (``pack``).
"""

import math
from typing import NamedTuple

import numpy as np
from numba import from_dtype
from numba.core import types
from numba.core.types import Array, float64, int32, int64, uint8, uint64

from farm.kernels import loop, records, tables
from farm.kernels.buckets import bucket_metrics
from farm.kernels.jit import helper, inlined, kernel
from farm.kernels.loop import STATE, TAPE
from farm.kernels.records import COMMISSION, DONE, LAPSED, NONE, Row, Table, Tables, TapeTables
from farm.kernels.reduce import CVAR95, TAIL_RATIO, VAR95
from farm.values.arrays import F64, I32, I64, U8, U64

FULL = 3
"""What ``run_trials`` returns, besides what ``advance`` does: there is no room to pack the books of a trial."""
MOVED = 4
"""And: the equity of its ruined account moves."""
MASKS = 5
"""Signals of a position: ENTER_LONG, EXIT_LONG, ENTER_SHORT, EXIT_SHORT, ADD_MORE, bit by bit."""
METRICS = 36
ORDERS, FILLS, CASH_LINES, TRADES, OPEN_TRADES, KINDS = range(6)
"""The kinds of records in a pack, in order; and their number."""
FIRST_COUNT = (records.TALLY.names or ()).index("lapsed")
COUNTS = len(records.TALLY.names or ()) - FIRST_COUNT
RUIN, NO_VOLUME, NO_BAR, AT_END, ALL_COUNTS = range(COUNTS, COUNTS + 5)
"""Where the counts stand that are no field of TALLY: after those that are; and how many there are."""
TRIAL, STEP, PACKED, BROKEN_AT, SUBJECT, PLACES = range(6)
"""Places in ``at``: the trial at hand; what is done of it; words of ``pack`` in use; the session in error of MOVED; the
subject at hand; and their number."""
BEGIN, UNDER_WAY, MEASURED = range(3)

_ORDER_WORDS = records.ORDER.itemsize // 8
_FILL_WORDS = records.FILL.itemsize // 8
_CASH_WORDS = records.CASH.itemsize // 8
_TRADE_WORDS = records.TRADE.itemsize // 8
_NEGATIVE_ZERO = -(2**63)
_EXPONENT = 0x7FF0000000000000
_MANTISSA = 0x000FFFFFFFFFFFFF
_NAN = 0x7FF8000000000000


class Subjects(NamedTuple):
    """What all trials on g subjects share; only read.

    spans (g, 5, 2): where the tables of a subject's tape begin and end, in the order of ``TapeTables``. account (1,),
    asset (k,), structure (n,): as they are before the first instant. bars_of: rows of the closing bars on the tape,
    asset by asset; first_bar (n,): those of the asset of each position, bar_count (g, n): how many. day (sessions,);
    benchmark (sessions,) or (0,); stretches (b, 2): the buckets. opens: opening instants of own bars, those of a
    subject from opens_start (g,) on, asset by asset, up to opens_end (g, k); traded (opens + 1,): how many before each
    have volume. closes: closes of all sessions, calendar by calendar, up to closes_end. ann, rf_p: sessions a year, and
    the risk-free return of one.
    """

    spans: I64
    account: Table
    asset: Table
    structure: Table
    bars_of: I64
    first_bar: I64
    bar_count: I64
    day: I32
    benchmark: F64
    stretches: I64
    opens: I64
    opens_start: I64
    opens_end: I64
    traded: I64
    closes: I64
    closes_end: I64
    ann: float
    rf_p: float


class TrialRows(NamedTuple):
    """What differs between t trials; only read.

    sleeve (t w,), stop (t rules,), position (t n,): the tables of one trial after the other. mask: bits, 64 bars a
    word, the earlier bar lower; mask_at (g, t, n, MASKS): the word in which the bars of a signal begin, NONE: it is
    never true; first_bit (g, n): the bit there of the position's first bar on the tape. number: values bar by bar;
    number_at (g, t, n, rows): where those of the first bar on the tape stand, NONE: it has none.
    """

    sleeve: Table
    stop: Table
    position: Table
    mask: U64
    mask_at: I64
    first_bit: I64
    number: F64
    number_at: I64


class Kept(NamedTuple):
    """What is kept of each trial, in the arrays of the block; the last axis is the subject.

    values (b, m, t, s): the metrics ``metric`` (m,) of each bucket; equity (t, s): at the end, micro-units; counts
    (ALL_COUNTS, t, s). proof (t, s): 1: pack its books. fields (KINDS, f): words of the published fields in the records
    of each kind, NONE behind them; prices (KINDS, f): 1 where they are float64; instrument (KINDS,): which of them
    names the asset.
    """

    values: F64
    metric: I64
    equity: I64
    counts: I64
    proof: U8
    fields: I64
    prices: U8
    instrument: I64


def _table(name: str) -> Array:
    return Array(from_dtype(records.TABLES[name]), 1, "C", readonly=True)


def _in(dtype: types.Type, dimensions: int = 1) -> Array:
    return Array(dtype, dimensions, "C", readonly=True)


_SUBJECTS = types.NamedTuple(
    [_in(int64, 3), _table("account"), _table("asset"), _table("structure"), _in(int64), _in(int64), _in(int64, 2),
     _in(int32), _in(float64), _in(int64, 2), _in(int64), _in(int64), _in(int64, 2), _in(int64), _in(int64), _in(int64),
     float64, float64],
    Subjects,
)  # type: ignore[no-untyped-call]  # fmt: skip
_TRIALS = types.NamedTuple(
    [_table("sleeve"), _table("stop"), _table("position"), _in(uint64), _in(int64, 4), _in(int64, 2),
     _in(float64), _in(int64, 4)],
    TrialRows,
)  # type: ignore[no-untyped-call]  # fmt: skip
_KEPT = types.NamedTuple(
    [Array(float64, 4, "C"), _in(int64), Array(int64, 2, "C"), Array(int64, 3, "C"), _in(uint8, 2), _in(int64, 2),
     _in(uint8, 2), _in(int64)],
    Kept,
)  # type: ignore[no-untyped-call]  # fmt: skip


@kernel(
    int64(
        int64, _in(int64), TAPE, _SUBJECTS, _TRIALS, STATE, Array(uint8, 1, "C"), Array(float64, 1, "C"),
        Array(from_dtype(records.BOOKS), 1, "C"), Array(int64, 1, "C"), _KEPT, Array(float64, 2, "C"),
        Array(int64, 1, "C"),
    ),
)  # fmt: skip
def run_trials(
    last: int, columns: I64, tape: TapeTables, subjects: Subjects, trials: TrialRows, state: Tables, signals: U8,
    numbers: F64, books: Table, at: I64, kept: Kept, vectors: F64, pack: I64,
) -> int:  # fmt: skip
    """Run the trials [at[TRIAL], ``last``) on the subject at[SUBJECT], and all ``last`` on each after it.

    Shapes:  as in ``records``, ``Subjects``, ``TrialRows`` and ``Kept``; columns (g,): where in the block each subject
             stands. Scratch: signals and numbers, as long as ``advance`` needs them for the longest tape; books (1,),
             vectors (b, METRICS); at (PLACES,); pack: any length.
    Returns: DONE, ROOM, OVERFLOW, FULL or MOVED.
    Errors:  ROOM: a table of records is too short; grow it and call again. FULL: take the packs, or give a longer one,
             and call again. OVERFLOW: an amount reached 2**53 in the trial and on the subject at hand. MOVED: the
             equity of a ruined account moves at session at[BROKEN_AT]. In each case all before are done.
    """
    b = books[0]
    sleeves, levels = state.sleeve.shape[0], trials.number_at.shape[3]
    while at[SUBJECT] < columns.shape[0]:
        g = at[SUBJECT]
        span = subjects.spans[g]
        own = TapeTables(
            tape.instants[span[0, 0] : span[0, 1]],
            tape.actions[span[1, 0] : span[1, 1]],
            tape.bars[span[2, 0] : span[2, 1]],
            tape.payments[span[3, 0] : span[3, 1]],
            tape.openings[span[4, 0] : span[4, 1]],
        )
        bars = own.bars.shape[0]
        known = bars if levels > 0 else 0
        said = signals[: sleeves * bars].reshape((sleeves, bars))
        values = numbers[: sleeves * max(levels, 1) * known].reshape((sleeves, max(levels, 1), known))
        loop.open_books(b, own, said, values, state)
        status = _on_subject(b, g, columns[g], last, own, subjects, trials, state, said, values, books, at, kept,
                             vectors, pack)  # fmt: skip
        if status != DONE:
            return status
        at[TRIAL] = 0
        at[SUBJECT] = g + 1
    return DONE


@helper
def _on_subject(
    b: Row, g: int, s: int, last: int, tape: TapeTables, subjects: Subjects, trials: TrialRows, state: Tables,
    signals: U8, numbers: F64, books: Table, at: I64, kept: Kept, vectors: F64, pack: I64,
) -> int:  # fmt: skip
    """Run the trials [at[TRIAL], ``last``) on subject ``g``, which stands in column ``s``."""
    instants = tape.instants.shape[0]
    tails = 0
    for m in range(kept.metric.shape[0]):
        if kept.metric[m] == VAR95 or kept.metric[m] == CVAR95 or kept.metric[m] == TAIL_RATIO:
            tails = 1
    while at[TRIAL] < last:
        t = at[TRIAL]
        if at[STEP] == BEGIN:
            _lay_out(b, g, t, subjects, trials, state, signals, numbers)
            at[STEP] = UNDER_WAY
        if at[STEP] == UNDER_WAY:
            status = loop.advance(instants, tape, signals, numbers, state, books)
            if status != DONE:
                return status
            moved = _measure(b, state, subjects, tails | kept.proof[t, s], vectors)
            if moved >= 0:
                at[BROKEN_AT] = moved
                return MOVED
            for k in range(vectors.shape[0]):
                for m in range(kept.metric.shape[0]):
                    kept.values[k, m, t, s] = vectors[k, kept.metric[m]]
            kept.equity[t, s] = tables.session(b, state.session.shape[0] - 1).equity
            for c in range(COUNTS):
                kept.counts[c, t, s] = tables.word(b.tally, FIRST_COUNT + c).row
            kept.counts[RUIN, t, s] = 1 if tables.account(b).ruin != 0 else 0
            if kept.counts[0, t, s] > 0:
                _why_lapsed(b, g, s, t, subjects, kept.counts)
            at[STEP] = MEASURED
        if kept.proof[t, s] == 1:
            if _pack_words(b, state) > pack.shape[0] - at[PACKED]:
                return FULL
            at[PACKED] = _pack(b, state, vectors[0], kept, pack, at[PACKED])
        at[STEP] = BEGIN
        at[TRIAL] = t + 1
    return DONE


@helper
def _lay_out(
    b: Row, g: int, t: int, subjects: Subjects, trials: TrialRows, state: Tables, signals: U8, numbers: F64
) -> None:
    """Write the state of trial ``t`` on subject ``g`` before the first instant, and what its bars say."""
    state.account[0] = subjects.account[0]
    for i in range(state.asset.shape[0]):
        state.asset[i] = subjects.asset[i]
    for i in range(b.sleeves):
        state.sleeve[i] = trials.sleeve[t * b.sleeves + i]
    for i in range(b.stops):
        state.stop[i] = trials.stop[t * b.stops + i]
    for i in range(state.structure.shape[0]):
        state.structure[i] = subjects.structure[i]
    for i in range(b.positions):
        state.position[i] = trials.position[t * b.positions + i]
    for i in range(FIRST_COUNT + COUNTS):
        tables.word(b.tally, i).row = 0
    for i in range(state.receivable.shape[0]):
        state.receivable[i].micro = 0.0
    for i in range(state.session.shape[0]):
        session = tables.session(b, i)
        session.equity = 0
        session.position = 0
        session.decision_bars = 0
        session.market_bars = 0
    signals[:] = 0
    if numbers.shape[2] > 0:
        numbers[:] = math.nan
    for x in range(b.positions):
        w = tables.structure_of(b, x).sleeve
        first, count = subjects.first_bar[x], subjects.bar_count[g, x]
        for which in range(MASKS):
            start = trials.mask_at[g, t, x, which]
            if start != NONE:
                bars = subjects.bars_of[first : first + count]
                _say(trials.mask, start, trials.first_bit[g, x], bars, 1 << which, signals[w])
        if numbers.shape[2] > 0:
            for which in range(trials.number_at.shape[3]):
                start = trials.number_at[g, t, x, which]
                if start != NONE:
                    for i in range(count):
                        numbers[w, which, subjects.bars_of[first + i]] = trials.number[start + i]


@helper
def _say(mask: U64, at: int, first_bit: int, bars: I64, flag: int, said: U8) -> None:
    """Set ``flag`` at the rows ``bars`` of the tape whose bits are 1."""
    for v in range(first_bit >> 6, (first_bit + bars.shape[0] + 63) >> 6):
        bits = mask[at + v]
        i = (v << 6) - first_bit
        while bits != 0:
            if bits & np.uint64(1) != 0 and 0 <= i < bars.shape[0]:
                said[bars[i]] |= np.uint8(flag)
            bits >>= np.uint64(1)
            i += 1


@helper
def _measure(b: Row, state: Tables, subjects: Subjects, with_tails: int, vectors: F64) -> int:
    """Write the metrics of every bucket (b, METRICS); return -1, or the session that moves a ruined account."""
    account = tables.account(b)
    sessions = state.session.shape[0]
    equity = np.empty(sessions, np.int64)
    position = np.empty(sessions, np.int64)
    decided = np.empty(sessions, np.int64)
    held = np.empty(sessions, np.int64)
    for i in range(sessions):
        session = tables.session(b, i)
        equity[i] = session.equity
        position[i] = session.position
        decided[i] = session.decision_bars
        held[i] = session.market_bars
    sent = np.empty(account.sent, np.int64)
    for row in range(account.orders):
        o = tables.order(b, row)
        if o.number != NONE:
            sent[o.number] = o.session
    paid = 0
    for row in range(account.cash_lines):
        paid += 1 if tables.cash_line(b, row).kind == COMMISSION else 0
    fills = account.fills
    fill_session = np.empty(fills, np.int64)
    fill_value = np.empty(fills, np.int64)
    fee_session = np.empty(paid + fills, np.int64)
    fee_line = np.zeros(paid + fills, np.int64)
    fee_micro = np.empty(paid + fills, np.int64)
    n = 0
    for row in range(account.cash_lines):
        line = tables.cash_line(b, row)
        if line.kind == COMMISSION:
            fee_session[n] = line.session
            fee_micro[n] = -line.cash_micro
            n += 1
    for row in range(fills):
        fill = tables.fill(b, row)
        fill_session[row] = fill.session
        fill_value[row] = abs(fill.amount_micro)
        fee_session[n] = fill.session
        fee_line[n] = 1
        fee_micro[n] = fill.slippage_micro
        n += 1
    trade_session = np.empty(account.trades, np.int64)
    trade_pnl = np.empty(account.trades, np.int64)
    trade_notional = np.empty(account.trades, np.int64)
    for row in range(account.trades):
        trade = tables.trade(b, row)
        trade_session[row] = trade.entry_session
        trade_pnl[row] = trade.pnl_micro
        trade_notional[row] = trade.entry_notional_micro
    open_session = np.empty(account.open_trades, np.int64)
    for row in range(account.open_trades):
        open_session[row] = tables.trade(b, account.trades + row).entry_session
    return bucket_metrics(
        int(subjects.account[0].cash), subjects.day, equity, position, decided, held, sent, fill_session, fill_value,
        fee_session, fee_line, fee_micro, trade_session, trade_pnl, trade_notional, open_session, subjects.benchmark,
        subjects.ann, subjects.rf_p, subjects.stretches, with_tails, vectors,
    )  # fmt: skip


@helper
def _why_lapsed(b: Row, g: int, s: int, t: int, subjects: Subjects, counts: I64) -> None:
    """Count lapsed orders by what they met from their decision on, up to the instant at which they lapsed."""
    account = tables.account(b)
    counts[NO_VOLUME, t, s] = 0
    counts[NO_BAR, t, s] = 0
    counts[AT_END, t, s] = 0
    for row in range(account.orders):
        o = tables.order(b, row)
        if o.number == NONE or o.status != LAPSED:
            continue
        begin = subjects.opens_end[g, o.instrument - 1] if o.instrument > 0 else subjects.opens_start[g]
        opens = subjects.opens[begin : subjects.opens_end[g, o.instrument]]
        # Around the clock a session opens at the instant of the decision, and its print is met; when an order lapses,
        # the session that opens at that instant is not.
        first = begin + np.searchsorted(opens, o.ts)
        last = begin + np.searchsorted(opens, o.done_ts)
        if last > first:
            counts[NO_VOLUME, t, s] += 1 if subjects.traded[last] == subjects.traded[first] else 0
        elif o.session == subjects.day.shape[0] - 1:
            counts[AT_END, t, s] += 1
        elif o.done_ts > o.ts:
            # A split may take an order away at the open; what lapses of age does so as a session of its instrument
            # closes.
            calendar = tables.asset(b, o.instrument).calendar
            begin = subjects.closes_end[calendar - 1] if calendar > 0 else 0
            closes = subjects.closes[begin : subjects.closes_end[calendar]]
            close = np.searchsorted(closes, o.done_ts)
            counts[NO_BAR, t, s] += 1 if close < closes.shape[0] and closes[close] == o.done_ts else 0


# --- packs: the books of a trial, for whoever hashes them -------------------------------------------------------------


@inlined
def _count_of(account: Row, kind: int) -> int:
    if kind == ORDERS:
        return account.sent
    if kind == FILLS:
        return account.fills
    if kind == CASH_LINES:
        return account.cash_lines
    return account.trades if kind == TRADES else account.open_trades


@inlined
def _row_of(b: Row, kind: int, row: int) -> int:
    """The address of a record."""
    if kind == ORDERS:
        return b.order + row * (8 * _ORDER_WORDS)
    if kind == FILLS:
        return b.fill + row * (8 * _FILL_WORDS)
    if kind == CASH_LINES:
        return b.cash + row * (8 * _CASH_WORDS)
    if kind == OPEN_TRADES:
        row += tables.account(b).trades
    return b.trade + row * (8 * _TRADE_WORDS)


@inlined
def _canonical(bits: int) -> int:
    """The bits of a float64 with one NaN and no negative zero."""
    if bits == _NEGATIVE_ZERO:
        return 0
    return _NAN if bits & _EXPONENT == _EXPONENT and bits & _MANTISSA != 0 else bits


@helper
def _pack_words(b: Row, state: Tables) -> int:
    """The most words that a pack of the trial at hand takes."""
    account = tables.account(b)
    words = 1 + METRICS + state.session.shape[0] + state.asset.shape[0] + 2 * KINDS
    words += account.sent * _ORDER_WORDS + account.fills * _FILL_WORDS + account.cash_lines * _CASH_WORDS
    return int(words + (account.trades + account.open_trades) * _TRADE_WORDS)


@helper
def _pack(b: Row, state: Tables, vector: F64, kept: Kept, pack: I64, start: int) -> int:
    """Write the books of the trial at hand into ``pack`` from ``start`` on; return where they end.

    In order: where they end; the metrics of the whole run; the equity of each session; for each asset whether a record
    names it; then of each kind of records: their count, a bit for each published field that is not 0 throughout, and
    the columns of these fields. Floats are canonical bits, an asset is its place among those that records name.
    """
    account = tables.account(b)
    metrics = vector.view(np.int64)
    end = start + 1
    for m in range(METRICS):
        pack[end] = _canonical(metrics[m])
        end += 1
    for i in range(state.session.shape[0]):
        pack[end] = tables.session(b, i).equity
        end += 1
    assets = state.asset.shape[0]
    sent = np.empty(account.sent, np.int64)
    for row in range(account.orders):
        number = tables.order(b, row).number
        if number != NONE:
            sent[number] = row
    named = pack[end : end + assets]
    named[:] = 0
    for kind in range(KINDS):
        for i in range(_count_of(account, kind)):
            asset = tables.word(_row_of(b, kind, sent[i] if kind == ORDERS else i), kept.instrument[kind]).row
            if asset != NONE:
                named[asset] = 1
    place = np.empty(assets, np.int64)
    places = 0
    for i in range(assets):
        place[i] = places
        places += named[i]
    end += assets
    for kind in range(KINDS):
        count = _count_of(account, kind)
        pack[end] = count
        at = end + 2
        used = 0
        for f in range(kept.fields.shape[1]):
            word = kept.fields[kind, f]
            if word == NONE:
                break
            is_price, is_asset = kept.prices[kind, f] == 1, word == kept.instrument[kind]
            seen = 0
            for i in range(count):
                value = tables.word(_row_of(b, kind, sent[i] if kind == ORDERS else i), word).row
                if is_price:
                    value = _canonical(value)
                elif is_asset and value != NONE:
                    value = place[value]
                pack[at + i] = value
                seen |= value
            if seen != 0:
                used |= 1 << f
                at += count
        pack[end + 1] = used
        end = at
    pack[start] = end
    return end
