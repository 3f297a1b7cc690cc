"""The tables of a run before its first instant: account, assets and the rules of sleeves, from a program and a tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from farm.kernels import records
from farm.kernels.records import Table
from farm.market.panel import InstrumentSeries
from farm.market.tape import Tape
from farm.program.program import Program, RulesProgram, Size
from farm.spec.spec import RunSpec
from farm.values.arrays import I64
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
_STOPS = {"stop": records.STOP, "target": records.TARGET, "trail": records.TRAIL}
_UNITS = {"pct": records.PCT, "abs": records.ABS, "level": records.LEVEL, "r": records.R}


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


def asset_table(run: RunSpec, tape: Tape) -> Table:
    """Return the traded instruments (k,) of a tape under the rules of a run; positions are not in it yet."""
    series = [tape.market.series[index] for index in tape.traded]
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
    assets["calendar"] = [tape.calendars.index(one.calendar) for one in series]
    assets["fee_min"] = round(run.costs.min * 1e6)
    return assets


def sleeve_table(program: Program) -> Table:
    """Return the rules of each sleeve (w,)."""
    found = []
    end = 0
    for sleeve in program.sleeves:
        first = end
        end += sum(stop.type != "time" for stop in sleeve.stops)
        rules = dict(zip(("size", "weight", "among"), _size(sleeve, sleeve.size), strict=True))
        if sleeve.add is not None:
            rules |= zip(("add_size", "add_weight", "add_among"), _size(sleeve, sleeve.add.size), strict=True)
            rules["add_max"] = sleeve.add.max
        found.append(
            rules
            | {
                "max_positions": sleeve.max_positions,
                "cooldown": sleeve.cooldown_bars,
                "time_bars": min((int(stop.value) for stop in sleeve.stops if stop.type == "time"), default=0),
                "prefers": sleeve.prefer is not None,
                "limit": 0 if sleeve.limit is None else limit_row(sleeve),
                "ttl": sleeve.ttl,
                "first_stop": first,
                "end_stop": end,
            }
        )
    return _rows(records.SLEEVE, found)


def stop_table(program: Program) -> Table:
    """Return the rules of all stops that work inside bars, sleeve by sleeve."""
    inside = [stop for sleeve in program.sleeves for stop in sleeve.stops if stop.type != "time"]
    rules = [(_STOPS[stop.type], _UNITS[stop.unit], stop.value, 1 + stop.level, stop.follows) for stop in inside]
    return np.array(rules, records.STOP_RULE)


def position_table(program: Program, held: Sequence[tuple[int, int]], series: Sequence[InstrumentSeries]) -> Table:
    """Return the positions (n,), flat: ``held`` says sleeve and asset of each, ``series`` are those of the assets."""
    rows = []
    for w, asset in held:
        sleeve = program.sleeves[w]
        rows.append(
            {
                "sleeve": w,
                "asset": asset,
                "exit_row": records.NEVER,
                "held_at": records.NONE,
                "order": records.NONE,
                "guard": records.NONE,
                "qty_lots": _qty_lots(program.run, sleeve.size, series[asset]),
                "add_lots": 0 if sleeve.add is None else _qty_lots(program.run, sleeve.add.size, series[asset]),
            }
        )
    return _rows(records.POSITION, rows)


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


def limit_row(sleeve: RulesProgram) -> int:
    """The row of a sleeve's numbers that holds its limit, if it has one: after preference and stop levels."""
    return 1 + len(sleeve.levels)


def number_rows(program: Program) -> int:
    """Rows of numbers that each sleeve has: preference, stop levels, limit; 0 if no sleeve has any."""
    last = max(limit_row(sleeve) for sleeve in program.sleeves)
    is_used = last > 1 or any(sleeve.prefer or sleeve.limit for sleeve in program.sleeves)
    return 1 + last if is_used else 0


def lot_micro(run: RunSpec, series: InstrumentSeries) -> int:
    """Millionths of a share that make a lot."""
    return series.lot_micro if run.lot == "whole" else 1


def _qty_lots(run: RunSpec, size: Size, series: InstrumentSeries) -> int:
    """Whole lots in ``qty`` shares as written: 0.29 shares are 290,000 millionths, not one less."""
    if size.mode != "qty":
        return 0
    return int(Decimal(repr(size.v)) * MICRO) // lot_micro(run, series)


def _size(sleeve: RulesProgram, size: Size) -> tuple[int, float, float]:
    """What a size is counted in, its weight, and by how many it is divided."""
    if size.mode == "notional":
        return _SIZES[size.mode], size.v, 1.0
    if size.mode == "equal":
        return _SIZES[size.mode], sleeve.alloc, float(sleeve.max_positions)
    return _SIZES[size.mode], sleeve.alloc * size.v, 1.0


def _rows(dtype: np.dtype[np.void], rows: Sequence[Mapping[str, float]]) -> Table:
    """Return records with these fields; the others are 0. At once: field by field costs three times as much."""
    names = dtype.names or ()
    return np.array([tuple(row.get(name, 0) for name in names) for row in rows], dtype)
