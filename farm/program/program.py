"""What a resolved spec compiles to: frozen programs of expression nodes and plain numbers.

Rules: a program holds no parameter, no default and no text of the spec that still has to be understood. It knows
nothing of data: instruments are the tickers of the spec. The hash of the spec is kept apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from farm.program.expr import Node
from farm.spec.spec import RunSpec


@dataclass(frozen=True)
class Size:
    """How much an entry buys: mode "qty" (v shares), "notional" (v currency), "pct_equity" (v of equity), or "equal"
    (equity / max_positions; v is 1)."""

    mode: str
    v: float


@dataclass(frozen=True)
class StopRule:
    """An exit that works inside bars, or after ``value`` bars.

    type:   "stop", "target", "trail" or "time".
    unit:   "pct" (fraction of the entry price), "abs" (price), "r" (multiples of the initial risk, targets only),
            "level" (a price frozen at the entry), "bars" (time only; the entry bar counts 1).
    value:  in that unit; 0.0 for "level".
    level:  for unit "level", its index in ``RulesProgram.levels`` and ``Signals.stop_levels``; else -1.
    follows: for unit "level", whether an addition to the position freezes it anew.
    """

    type: str
    unit: str
    value: float
    level: int = -1
    follows: bool = False


@dataclass(frozen=True)
class Addition:
    """What a position is added to by: at most ``max`` times, when ``when`` is true, ``size`` each."""

    max: int
    when: Node
    size: Size


@dataclass(frozen=True)
class RulesProgram:
    """One sleeve of rules. ``universe`` are tickers, sorted; an ``each`` program has none until ``Program.on``.

    An absent signal (None) is never true. ``prefer``: higher first, None without a preference. ``limit``: the price of
    limit entries, None for market orders; ``ttl``: sessions of the instrument that an entry works for.
    """

    id: str
    universe_id: str
    universe: tuple[str, ...]
    side: str
    enter: Node
    exit: Node | None
    enter_short: Node | None
    exit_short: Node | None
    size: Size
    stops: tuple[StopRule, ...]
    levels: tuple[Node, ...]
    max_positions: int
    prefer: Node | None
    limit: Node | None
    ttl: int
    add: Addition | None
    cooldown_bars: int
    alloc: float

    def roots(self) -> tuple[Node, ...]:
        """Return every expression that is evaluated for this sleeve."""
        optional = (self.enter, self.exit, self.enter_short, self.exit_short, self.prefer, self.limit, *self.levels)
        more = () if self.add is None else (self.add.when,)
        return tuple(node for node in (*optional, *more) if node is not None)


@dataclass(frozen=True)
class Program:
    """A trial, ready to run.

    columns:       bar columns that signals and fills read ("open", "high", ...; instants and days come always).
    history_bars:  most own bars that an instrument of a universe needs before the run's first bar, settling included.
    syms:          fixed instruments that expressions name, sorted; ``sym_history`` has their bars needed.
    assumptions:   what the spec itself assumes, for the result's list.
    """

    run: RunSpec
    sleeves: tuple[RulesProgram, ...]
    columns: frozenset[str]
    history_bars: int
    syms: tuple[str, ...]
    sym_history: Mapping[str, int]
    assumptions: tuple[str, ...]

    def on(self, ticker: str) -> Program:
        """Return the program of one cell: every sleeve trades this instrument alone."""
        return replace(self, sleeves=tuple(replace(sleeve, universe=(ticker,)) for sleeve in self.sleeves))
