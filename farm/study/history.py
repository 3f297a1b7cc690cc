"""How far back each trial of a study looks, and what its trials read: of the spec alone, nothing is asked of the data.

Only parameters in windows (lengths of indicators, lags, runs of bars, fixed instruments, fields) say how far back, so
a program is compiled once per distinct tuple of these, not once per trial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.program.compile import compile_trial
from farm.program.expr import Expressions
from farm.spec.reader import is_hole
from farm.spec.resolve import Resolver
from farm.spec.spec import StudySpec
from farm.spec.table import ParamTable
from farm.values.arrays import I32

_VALUE_KEYS = frozenset(("v", "pct", "abs", "r", "bars", "cooldown_bars", "alloc", "max_positions", "limit", "level"))
"""Keys under which a parameter is a plain number of the strategy; under any other it may be a window."""


@dataclass(frozen=True, eq=False)
class Histories:
    """What t trials need before the run's first bar.

    own:     int32 (t,), bars of an instrument of a universe.
    syms:    tickers that expressions name with ``sym``, sorted; sym_bars: int32 (syms, t), bars of each, 0 where a
             trial does not look at it.
    columns: bar columns that any of the trials reads.
    """

    own: I32
    syms: tuple[str, ...]
    sym_bars: I32
    columns: frozenset[str]


def history_of(spec: StudySpec, table: ParamTable) -> Histories:
    """Return what the trials of ``table`` need."""
    windows = frozenset(_windows(spec.strategy.template))
    first, of = table.distinct([name for name in table.names if name in windows])
    resolver, nodes = Resolver(spec), Expressions()
    programs = [compile_trial(resolver.trial(table.row(trial)), table=nodes) for trial in first.tolist()]
    syms = tuple(sorted({sym for program in programs for sym in program.syms}))
    own = np.array([program.history_bars for program in programs], np.int32)
    bars = [[program.sym_history.get(sym, 0) for program in programs] for sym in syms]
    return Histories(
        own=own[of],
        syms=syms,
        sym_bars=np.array(bars, np.int32).reshape(len(syms), len(programs))[:, of],
        columns=frozenset[str]().union(*(program.columns for program in programs)),
    )


def _windows(value: Any) -> Iterator[str]:
    """Yield the parameters that may say how far back: all but those that are plain numbers for certain."""
    if isinstance(value, dict):
        for key, part in value.items():
            if is_hole(part):
                yield from () if key in _VALUE_KEYS else (part[1:],)
            elif key in ("for", "within") and is_hole(part[0]):
                yield part[0][1:]
                yield from _windows(part[1])
            else:
                yield from _windows(part)
    elif isinstance(value, list):
        for part in value:
            yield from _windows(part)
