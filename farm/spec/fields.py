"""The bar fields that a spec may name: the column each is read from, and how its values scale with a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from farm.shard.kinds import PRICES


@dataclass(frozen=True)
class BarField:
    """One field. ``power``: price 1, volume -1, as printed 0; ``basis``: the factor that is meant, "split" or "tr"."""

    name: str
    column: str
    power: int
    basis: str


FIELDS: Mapping[str, BarField] = MappingProxyType(
    {
        field.name: field
        for field in (
            *(BarField(name, name, 1, "split") for name in PRICES),
            BarField("volume", "volume", -1, "split"),
            BarField("close_raw", "close", 0, ""),
            BarField("close_tr", "close", 1, "tr"),
        )
    }
)
