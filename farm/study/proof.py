"""What a study stores of its cells: which metrics, and which cells get digests. No key depends on it.

Up to ``CELLS_PROVEN_MAX`` cells everything is stored where the spec does not say; beyond, the metrics of the short list
and what the objective needs, and the digests of winners and of a sample.

The sample is drawn by what a cell is, not by its number: a cell is in it when a hash of the study's seed, its trial
digest and its read digest lies below a threshold. So two studies that share cells and a seed share sampled cells, and
the smaller sample is part of the larger one. The threshold is 1 %, or where that would be more than ``SAMPLED_MAX``
cells, five standard deviations below that count. Source: domain.md 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.spec.spec import StudyOptions
from farm.study.axes import Axes
from farm.values.arrays import BOOL, U8, U64
from farm.values.metrics import METRIC_NAMES, SHORT_LIST, TIE_BREAKERS

CELLS_PROVEN_MAX = 10_000
SAMPLED_MAX = 10_000
SAMPLED_SHARE = 0.01
WINNERS = 10
"""Best trials whose cells are proven after ranking."""
_BITS = 53
"""Of the hash that are compared: a threshold of so many is a number in JSON."""


@dataclass(frozen=True)
class Proof:
    """Which cells get digests. ``threshold``: of the sample, in 2**-53, None for every cell; ``seed``: the study's."""

    seed: int
    threshold: int | None

    def mask(self, axes: Axes) -> BOOL:
        """Return the cells of ``axes`` that get digests with their blocks, (t, s)."""
        shape = len(axes.trial), axes.read.shape[1]
        if self.threshold is None:
            return np.ones(shape, np.bool_)
        trial, read = _first_words(axes.trial), _first_words(axes.read)
        hashed = _mixed(read[axes.history] ^ _mixed(trial + np.uint64(self.seed % 2**64))[:, None])
        found: BOOL = (hashed >> np.uint64(64 - _BITS)) < np.uint64(self.threshold)
        return found


def proof_of(options: StudyOptions | None, cells: int) -> Proof:
    """Return which of so many cells get digests."""
    wanted = options.proof if options is not None else None
    seed = options.seed if options is not None else 0
    if wanted == "all" or (wanted is None and cells <= CELLS_PROVEN_MAX):
        return Proof(seed, None)
    share = min(SAMPLED_SHARE, (SAMPLED_MAX - 5 * SAMPLED_MAX**0.5) / max(1, cells))
    return Proof(seed, int(share * 2**_BITS))


def metrics_of(options: StudyOptions | None, cells: int) -> tuple[str, ...]:
    """Return the metrics that so many cells store, in the order of ``METRIC_NAMES``: what was named, or the default;
    and what the objective needs in any case."""
    named = options.metrics if options is not None else None
    if named is None:
        named = METRIC_NAMES if cells <= CELLS_PROVEN_MAX else SHORT_LIST
    if options is not None and options.objective is not None:
        named = (*named, options.objective.metric, *TIE_BREAKERS)
    return tuple(name for name in METRIC_NAMES if name in named)


def _first_words(digests: U8) -> U64:
    """Return the first eight bytes of each digest as a little-endian number."""
    found: U64 = np.ascontiguousarray(digests[..., :8]).view("<u8")[..., 0]
    return found


def _mixed(x: U64) -> U64:
    """Return the finaliser of SplitMix64 of each number: every bit of it depends on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
