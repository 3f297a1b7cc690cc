"""Segments and axes that nobody computed, for the tests of what is stored and found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from farm.results.segment import NO_DATA, Segment
from farm.spec.table import ParamTable
from farm.study.axes import Axes
from farm.study.trials import Study

METRICS = ("total_return", "max_dd", "trades")


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def make_axes(trials: Sequence[int], subjects: Sequence[str], history: Sequence[int], data: int = 0) -> Axes:
    """Return axes whose trial digests follow from numbers, and read digests from class, subject and ``data``; classes
    are numbered as they come."""
    classes = sorted(set(history))
    return Axes(
        trial=np.frombuffer(b"".join(digest("trial", one) for one in trials), np.uint8).reshape(-1, 32),
        history=np.array([classes.index(one) for one in history], np.int32),
        subjects=tuple(subjects),
        read=np.frombuffer(
            b"".join(digest("read", one, subject, data) for one in classes for subject in subjects), np.uint8
        ).reshape(len(classes), len(subjects), 32),
    )


def make_segment(
    trials: int,
    subjects: int = 2,
    *,
    split: bool = True,
    metrics: tuple[str, ...] = METRICS,
    proof: float = 1.0,
    seed: int = 0,
) -> Segment:
    """Return values with NaN, cells that were not simulated, counts, and digests of a share of the cells."""
    chance = np.random.default_rng(seed)
    shape = (trials, subjects)
    buckets = ("full", "is", "oos") if split else ("full",)
    verdict = np.where(np.arange(trials * subjects).reshape(shape) % 5 == 4, NO_DATA, 0).astype(np.uint8)
    values = chance.normal(size=(len(buckets), len(metrics), *shape))
    values[chance.random(values.shape) < 0.2] = np.nan
    has_proof = chance.random(shape) < proof
    ledger = chance.integers(0, 256, (int(has_proof.sum()), 32), np.uint8)
    ledger[verdict[has_proof] != 0] = 0
    return Segment(
        trials=np.arange(3, 3 + trials, dtype=np.int32),
        params=ParamTable(
            ("kind", "n"),
            (("ema", "sma"), tuple(range(trials))),
            (np.arange(trials, dtype=np.int32) % 2, np.arange(trials, dtype=np.int32)),
            trials,
        ),
        axes=make_axes(range(trials), [f"S{at}" for at in range(subjects)], [0] * trials),
        metrics=metrics,
        buckets=buckets,
        values=values,
        equity_end_micro=np.where(verdict == 0, chance.integers(0, 2**52, shape), 0),
        verdict=verdict,
        count_names=("lapsed", "ruin"),
        counts=chance.integers(0, 3, (2, *shape)),
        assumption_names=("fixed_universe",),
        assumptions=np.ones((1, *shape), np.bool_),
        proof=has_proof,
        ledger=ledger,
        stats=chance.integers(0, 256, (int(has_proof.sum()), 32), np.uint8),
    )


def drawn(study: Study, block: int, seed: int = 0) -> Segment:
    """Return a segment of a block that nobody computed."""
    wanted = study.block(block)
    trials, subjects = wanted.trials, wanted.positions
    chance, shape = np.random.default_rng([seed, block]), (len(trials), len(subjects))
    values = chance.normal(size=(len(study.buckets), len(study.metrics), *shape))
    for name in ("trades", "fills", "orders"):
        if name in study.metrics:
            values[:, study.metrics.index(name)] = chance.integers(0, 200, shape)
    proof = study.proof_mask(trials, subjects)
    cells = int(proof.sum())
    return Segment(
        trials=trials,
        params=study.table.take(trials),
        axes=study.axes_of(trials, subjects),
        metrics=study.metrics,
        buckets=study.buckets,
        values=values,
        equity_end_micro=chance.integers(1, 2**40, shape),
        verdict=np.zeros(shape, np.uint8),
        count_names=("lapsed", "scaled"),
        counts=chance.integers(0, 2, (2, *shape)),
        assumption_names=("fixed_universe",),
        assumptions=np.ones((1, *shape), np.bool_),
        proof=proof,
        ledger=chance.integers(0, 256, (cells, 32), np.uint8),
        stats=chance.integers(0, 256, (cells, 32), np.uint8),
    )
