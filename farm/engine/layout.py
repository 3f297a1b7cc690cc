"""The tables of a run before its first instant: account, assets and the rules of sleeves, from a program and a tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import numpy as np

from farm.kernels import records
from farm.kernels.records import Table
from farm.program.program import Program, Size
from farm.program.template import SIZE_MODES, RulesColumns, SizeColumns, StopColumns
from farm.spec.grammar import SIDES
from farm.spec.spec import RunSpec
from farm.values.arrays import F64, I64
from farm.values.units import MICRO

EXIT_TTL = 1
"""Sessions of the instrument's own calendar that an exit works for before it lapses (domain.md 2.3)."""
_RULES = {"cash": records.IN_CASH, "reg_t": records.REG_T, "linear": records.LINEAR}
_SIZES = {
    "qty": records.BY_QTY,
    "notional": records.BY_NOTIONAL,
    "pct_equity": records.BY_EQUITY,
    "equal": records.BY_EQUITY,
}
_SIZE_CODES = np.array([_SIZES[name] for name in SIZE_MODES], np.int64)
_STOPS = {"stop": records.STOP, "target": records.TARGET, "trail": records.TRAIL}
_UNITS = {"pct": records.PCT, "abs": records.ABS, "level": records.LEVEL, "r": records.R}


class Sleeve(Protocol):
    """What decides which numbers a sleeve has: of a program, or of the template of many."""

    @property
    def levels(self) -> Sequence[object]: ...
    @property
    def prefer(self) -> object | None: ...
    @property
    def limit(self) -> object | None: ...


def account_table(run: RunSpec) -> Table:
    """Return the account (1,) at the start."""
    rules = {
        "cash": run.cash_micro,
        "equity": run.cash_micro,
        "rules": _RULES[run.account],
        "max_gross": run.max_gross or 0.0,
        "kept": 1.0 - run.exec.reserve_pct,
        "reserves_fees": run.exec.reserve_fees,
        "ttl": EXIT_TTL,
    }
    return _rows(records.ACCOUNT, [rules])


class Listing(Protocol):
    """What is asked of a traded instrument, whether its bars are at hand or not."""

    @property
    def calendar(self) -> str: ...
    @property
    def lot_micro(self) -> int: ...
    @property
    def multiplier(self) -> int: ...


def asset_table(run: RunSpec, series: Sequence[Listing], calendars: Sequence[str]) -> Table:
    """Return traded instruments (k,) under the rules of a run, ``calendars`` as on their tape; positions are not in it
    yet."""
    assets = np.zeros(len(series), records.ASSET)
    lot = np.array([lot_micro(run, one) for one in series], np.float64)
    slip = run.exec.slip_bps / 1e4
    assets["row"] = assets["bar"] = assets["first_order"] = assets["split"] = records.NONE
    assets["lot_micro"] = lot
    assets["lots_up"] = np.maximum(1.0, MICRO / lot)
    assets["lots_down"] = np.maximum(1.0, lot / MICRO)
    assets["multiplier"] = [one.multiplier for one in series]
    assets["up"], assets["down"] = 1.0 + slip, 1.0 - slip
    assets["bps"] = run.costs.bps / 1e4
    assets["per_share"] = run.costs.per_share
    assets["per_order"] = run.costs.per_order
    assets["calendar"] = [calendars.index(one.calendar) for one in series]
    assets["fee_min"] = round(run.costs.min * 1e6)
    return assets


def sleeve_table(sleeves: Sequence[Sleeve], columns: Sequence[RulesColumns]) -> Table:
    """Return the rules of each sleeve, trial by trial (t w,)."""
    trials = len(columns[0].side)
    table = np.zeros((trials, len(sleeves)), records.SLEEVE)
    end = 0
    for w, (sleeve, rules) in enumerate(zip(sleeves, columns, strict=True)):
        row = table[:, w]
        row["first_stop"] = end
        end += sum(stop.type != "time" for stop in rules.stops)
        row["end_stop"] = end
        row["size"], row["weight"], row["among"] = _size(rules, rules.size)
        if rules.add_max is not None and rules.add_size is not None:
            row["add_size"], row["add_weight"], row["add_among"] = _size(rules, rules.add_size)
            row["add_max"] = rules.add_max
        row["max_positions"] = rules.max_positions
        row["cooldown"] = rules.cooldown_bars
        timed = [stop.value.astype(np.int64) for stop in rules.stops if stop.type == "time"]
        row["time_bars"] = np.min(timed, axis=0) if timed else 0
        row["prefers"] = sleeve.prefer is not None
        row["limit"] = 0 if sleeve.limit is None else limit_row(sleeve)
        row["ttl"] = rules.ttl
    return table.reshape(-1)


def stop_table(columns: Sequence[RulesColumns]) -> Table:
    """Return the rules of all stops that work inside bars, trial by trial and sleeve by sleeve (t stops,)."""
    inside = [stop for rules in columns for stop in rules.stops if stop.type != "time"]
    table = np.zeros((len(columns[0].side), len(inside)), records.STOP_RULE)
    for at, stop in enumerate(inside):
        row = table[:, at]
        row["kind"], row["unit"], row["value"] = _STOPS[stop.type], _UNITS[stop.unit], stop.value
        row["number"], row["follows"] = 1 + stop.level, stop.follows
    return table.reshape(-1)


def structure_table(held: Sequence[tuple[int, int]]) -> Table:
    """Return the structures (n,), flat, each of one leg: ``held`` says sleeve and asset of it."""
    table = np.zeros(len(held), records.STRUCTURE)
    table["sleeve"] = [w for w, _ in held]
    table["exit_row"] = records.NEVER
    table["order"] = table["guard"] = records.NONE
    return table


def position_table(
    run: RunSpec,
    columns: Sequence[RulesColumns],
    held: Sequence[tuple[int, int]],
    series: Sequence[Listing],
) -> Table:
    """Return the positions, flat, trial by trial (t n,): ``held`` says sleeve and asset of each, ``series`` are those
    of the assets."""
    table = np.zeros((len(columns[0].side), len(held)), records.POSITION)
    table["held_at"] = records.NONE
    for x, (w, asset) in enumerate(held):
        row, rules, lot = table[:, x], columns[w], lot_micro(run, series[asset])
        row["structure"], row["asset"] = x, asset
        row["qty_lots"] = _qty_lots(rules.size, lot)
        row["add_lots"] = 0 if rules.add_size is None else _qty_lots(rules.add_size, lot)
    return table.reshape(-1)


def by_asset(positions: Table, asset: Table) -> I64:
    """Return the positions by asset, and write into ``asset`` where those of each stand."""
    if len(positions) == 1:
        asset["first_position"], asset["end_position"] = 0, 1
        return np.zeros(1, np.int64)
    order: I64 = np.argsort(positions["asset"], kind="stable")
    in_order = positions["asset"][order]
    asset["first_position"] = np.searchsorted(in_order, np.arange(len(asset)))
    asset["end_position"] = np.searchsorted(in_order, np.arange(len(asset)), side="right")
    return order


def limit_row(sleeve: Sleeve) -> int:
    """The row of a sleeve's numbers that holds its limit, if it has one: after preference and stop levels."""
    return 1 + len(sleeve.levels)


def number_rows(sleeves: Sequence[Sleeve]) -> int:
    """Rows of numbers that each sleeve has: preference, stop levels, limit; 0 if no sleeve has any."""
    last = max(limit_row(sleeve) for sleeve in sleeves)
    is_used = last > 1 or any(sleeve.prefer or sleeve.limit for sleeve in sleeves)
    return 1 + last if is_used else 0


def lot_micro(run: RunSpec, series: Listing) -> int:
    """Millionths of a share that make a lot."""
    return series.lot_micro if run.lot == "whole" else 1


def _qty_lots(size: SizeColumns, lot: int) -> I64:
    """Whole lots in ``qty`` shares as written: 0.29 shares are 290,000 millionths, not one less."""
    found = np.zeros(len(size.v), np.int64)
    by_quantity = size.mode == SIZE_MODES.index("qty")
    for v in np.unique(size.v[by_quantity]).tolist():
        found[by_quantity & (size.v == v)] = int(Decimal(repr(v)) * MICRO) // lot
    return found


def _size(rules: RulesColumns, size: SizeColumns) -> tuple[I64, F64, F64]:
    """What a size is counted in, its weight, and by how many it is divided."""
    is_notional, is_equal = (size.mode == SIZE_MODES.index(name) for name in ("notional", "equal"))
    weight = np.where(is_notional, size.v, np.where(is_equal, rules.alloc, rules.alloc * size.v))
    among = np.where(is_equal, rules.max_positions.astype(np.float64), 1.0)
    return _SIZE_CODES[size.mode], weight, among


def columns_of(program: Program) -> tuple[RulesColumns, ...]:
    """Return the rules of one program as columns of one trial."""

    def size_of(size: Size) -> SizeColumns:
        return SizeColumns(np.array([SIZE_MODES.index(size.mode)], np.uint8), np.array([size.v]))

    return tuple(
        RulesColumns(
            side=np.array([SIDES.index(sleeve.side)], np.uint8),
            size=size_of(sleeve.size),
            stops=tuple(
                StopColumns(stop.type, stop.unit, np.array([stop.value]), stop.level, stop.follows)
                for stop in sleeve.stops
            ),
            max_positions=np.array([sleeve.max_positions]),
            ttl=np.array([sleeve.ttl]),
            cooldown_bars=np.array([sleeve.cooldown_bars]),
            alloc=np.array([sleeve.alloc]),
            add_max=None if sleeve.add is None else np.array([sleeve.add.max]),
            add_size=None if sleeve.add is None else size_of(sleeve.add.size),
        )
        for sleeve in program.sleeves
    )


def _rows(dtype: np.dtype[np.void], rows: Sequence[Mapping[str, float]]) -> Table:
    """Return records with these fields; the others are 0. At once: field by field costs three times as much."""
    names = dtype.names or ()
    return np.array([tuple(row.get(name, 0) for name in names) for row in rows], dtype)
