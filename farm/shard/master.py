"""The columns of the instrument master, from a source: types, lots, days of listing, defaults for what is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from farm.shard.kinds import INSTRUMENT_TYPES
from farm.shard.parse import (
    Field,
    optional_column,
    parse_days,
    parse_numbers,
    parse_positive,
    to_ticks,
)
from farm.values.arrays import F64, I32, I64
from farm.values.units import MICRO

LOT_MAX = 1_000_000


def instrument_columns(
    fields: Mapping[str, Field], rows: int, zone: ZoneInfo | None, *, dates: bool
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, F64]]:
    """Return the stored columns of instruments, and their prices; DataError naming the row for what cannot be one."""
    defaults = {"type": "stock", "calendar": "XNYS", "currency": "USD"}
    columns: dict[str, npt.NDArray[Any]] = {
        name: _texts_or(fields.get(name), rows, default) for name, default in defaults.items()
    }
    _check_types(fields.get("type"), columns["type"])
    columns["lot_micro"] = _lots(fields["lot"]) if "lot" in fields else np.full(rows, MICRO, np.int64)
    multiplier = parse_positive(fields["multiplier"]) if "multiplier" in fields else np.ones(rows, np.int64)
    columns |= {"multiplier": multiplier, "price_scale": np.zeros(rows, np.int64)}

    def days(part: Field) -> I32:
        return parse_days(part, zone, dates=dates)

    for name, theirs in (("listed_day", "listed"), ("delisted_day", "delisted")):
        columns |= optional_column(name, fields.get(theirs), rows, np.int32, days)
    value = optional_column("delisting_value", fields.get("delisting_value"), rows, np.float64, _values)
    columns["delisting_value_valid"] = value["delisting_value_valid"]
    return columns, {"delisting_value": value["delisting_value"]}


def _texts_or(field: Field | None, rows: int, default: str) -> npt.NDArray[np.object_]:
    if field is None:
        return np.full(rows, default, np.object_)
    return np.array(field.texts().to_pylist(), np.object_)


def _check_types(field: Field | None, types: npt.NDArray[np.object_]) -> None:
    for row, name in enumerate(types):
        if field is not None and name not in INSTRUMENT_TYPES:
            raise field.refuse(row, f"no such type: {name!r}", hint=f"types are {', '.join(INSTRUMENT_TYPES)}")


def _lots(field: Field) -> I64:
    lots = parse_numbers(field)
    is_bad = (lots <= 0) | (lots > LOT_MAX)
    is_bad |= to_ticks(np.where(is_bad, 1.0, lots), 6) / MICRO != np.where(is_bad, 1.0, lots)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        hint = f"a positive number up to {LOT_MAX:,}, of at most 6 decimals"
        raise field.refuse(row, f"{float(lots[row])!r} is not a lot", hint=hint)
    return to_ticks(lots, 6)


def _values(field: Field) -> F64:
    values = parse_numbers(field)
    if (values < 0).any():
        raise field.refuse(int(np.argmax(values < 0)), "the value is negative", hint="a worthless share is worth 0")
    return values
