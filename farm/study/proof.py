"""What a study stores of its cells: which metrics, and which cells get digests. No key depends on it.

Up to ``CELLS_PROVEN_MAX`` cells everything is stored where the spec does not say; beyond, the metrics of the short list
and what the objective needs, and the digests of winners and of a sample.

The sample is drawn by what a cell is, not by its number: a cell is in it when the sum of a number of its trial digest
(and the study's seed) and one of its read digest, modulo 2**64, lies below a threshold. So two studies that share cells
and a seed share sampled cells, and the smaller sample is part of the larger one; and the sample is found by one search
per trial in the sorted numbers of the subjects, without a look at every cell. The threshold is 1 %, or where that would
be more than ``SAMPLED_MAX`` cells, five standard deviations below that count. Source: domain.md 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.spec.spec import StudyOptions
from farm.study.axes import Axes
from farm.values.arrays import BOOL, I64, U8, U64
from farm.values.metrics import METRIC_NAMES, SHORT_LIST, TIE_BREAKERS

CELLS_PROVEN_MAX = 10_000
SAMPLED_MAX = 10_000
SAMPLED_SHARE = 0.01
WINNERS = 10
"""Best trials whose cells are proven after ranking."""
_BITS = 53
"""Of the sum that a threshold has: so many are a number in JSON."""


@dataclass(frozen=True)
class ProofRule:
    """Which cells get digests. ``threshold``: of the sample, in 2**-53, None for every cell; ``seed``: the study's."""

    seed: int
    threshold: int | None

    def mask(self, axes: Axes) -> BOOL:
        """Return the cells of ``axes`` that get digests with their blocks, (t, s)."""
        if self.threshold is None:
            return np.ones((len(axes.history), len(axes.subjects)), np.bool_)
        found: BOOL = self._of_trials(axes)[:, None] + _first_words(axes.read)[axes.history] < self._limit
        return found

    def cells(self, axes: Axes) -> I64 | None:
        """Return the cells of ``axes`` (trial x subjects + subject, ascending) that get digests; None for all."""
        if self.threshold is None:
            return None
        of_trial, of_read = self._of_trials(axes), _first_words(axes.read)
        found = []
        for number, of_class in enumerate(of_read):
            order = np.argsort(of_class, kind="stable")
            trials = np.flatnonzero(axes.history == number)
            # The sum is below the limit from minus the trial's number on, as far as the limit; it may wrap around.
            low = np.uint64(0) - of_trial[trials]
            first = np.searchsorted(of_class[order], low)
            last = np.searchsorted(of_class[order], low + self._limit)
            wraps = low + self._limit < low
            count = np.where(wraps, len(order) - first + last, last - first)
            before = np.cumsum(count) - count
            at = np.repeat(first - before, count) + np.arange(int(count.sum()))
            found.append(np.repeat(trials, count) * len(order) + order[at % max(1, len(order))])
        return np.sort(np.concatenate(found)).astype(np.int64)

    @property
    def _limit(self) -> np.uint64:
        return np.uint64((self.threshold or 0) << (64 - _BITS))

    def _of_trials(self, axes: Axes) -> U64:
        """Return a number of each trial, which the seed decides too: the finaliser of SplitMix64."""
        x = _first_words(axes.trial) + np.uint64(self.seed % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def proof_rule_of(options: StudyOptions | None, cells: int) -> ProofRule:
    """Return which of so many cells get digests."""
    wanted = options.proof if options is not None else None
    seed = options.seed if options is not None else 0
    if wanted == "all" or (wanted is None and cells <= CELLS_PROVEN_MAX):
        return ProofRule(seed, None)
    share = min(SAMPLED_SHARE, (SAMPLED_MAX - 5 * SAMPLED_MAX**0.5) / max(1, cells))
    return ProofRule(seed, int(share * 2**_BITS))


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
