"""What is stored of studies, and how to spoil it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from farm.results.catalog import block_name
from farm.results.segment import Segment
from farm.shard.layout import extent_key, segment_key
from farm.store.base import Store
from farm.study.trials import Study


def key_of(study: Study, block: int) -> str:
    return segment_key(study.family, block_name(study.name, block))


def copy_as(store: Store, study: Study, block: int, name: str) -> None:
    for key in (segment_key(study.family, name), extent_key(segment_key(study.family, name))):
        store.put_if_absent(key, store.get(key.replace(name, block_name(study.name, block))))


def changed(segment: Segment, row: int) -> Segment:
    """The same block with one other result."""
    stats = segment.stats.copy()
    stats[row, 0] ^= 1
    return replace(segment, stats=stats)


def metrics_only(segment: Segment, metrics: tuple[str, ...], *, proof: bool = False) -> Segment:
    """The same cells with some of their metrics, without digests unless told."""
    places = [segment.metrics.index(name) for name in metrics]
    some = replace(segment, metrics=metrics, values=segment.values[:, places])
    if proof:
        return some
    none = np.empty((0, 32), np.uint8)
    return replace(some, proof=np.zeros(segment.shape, np.bool_), ledger=none, stats=none)


def same(expected: object, actual: object) -> bool:
    """Whether two results hold the same bits."""
    pairs = zip(*(results.stored(results.names).items() for results in (expected, actual)), strict=True)  # type: ignore[attr-defined]
    return all(name == other and one.tobytes() == two.tobytes() for (name, one), (other, two) in pairs)


def damage(store: Store, key: str) -> None:
    store.put(key, store.get(key)[:-9])
