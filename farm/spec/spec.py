"""The spec as frozen values, every default written in.

Rules: a value of this file has been checked by ``parse``; nothing here knows JSON. Rates are fractions, keys in basis
points end in ``_bps`` (``bps`` in costs), money is int64 micro-units, days count from 1970-01-01. Source: domain.md 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object of the spec."""

Value: TypeAlias = int | float | str | bool
"""What a parameter may be set to."""


@dataclass(frozen=True)
class Costs:
    """Commission of one order: ``bps`` of value, ``per_share``, ``per_order``; at least ``min`` (account currency)."""

    bps: float
    per_share: float
    per_order: float
    min: float


@dataclass(frozen=True)
class Exec:
    """Execution at the next open. ``slip_bps`` worsens each price; the reserve keeps cash back in percent sizing."""

    slip_bps: float
    reserve_pct: float
    reserve_fees: bool


@dataclass(frozen=True)
class Warmup:
    """Where recursive indicators start: unit "settle", "none", or ``count`` of "bar", "d" or "mo" before the run."""

    unit: str
    count: int = 0


@dataclass(frozen=True)
class RunSpec:
    """The window, the account and the execution. ``max_gross`` is None except for account "linear"."""

    dataset: str
    start_day: int
    end_day: int
    bar: str
    calendar: str
    session: str
    cash_micro: int
    ccy: str
    account: str
    max_gross: float | None
    lot: str
    costs: Costs
    exec: Exec
    warmup: Warmup
    benchmark: str | None
    rf: float
    ann: int


@dataclass(frozen=True)
class IntParam:
    """Every ``step``-th integer from ``lo``, and always ``hi``."""

    lo: int
    hi: int
    step: int


@dataclass(frozen=True)
class FloatParam:
    """Any number in [lo, hi], spread on a log scale if ``log``. It has no grid."""

    lo: float
    hi: float
    log: bool


@dataclass(frozen=True)
class ChoiceParam:
    """One of the listed values, in the order written."""

    values: tuple[Value, ...]


Param: TypeAlias = IntParam | FloatParam | ChoiceParam


@dataclass(frozen=True)
class Universe:
    """A named set of tickers, sorted."""

    id: str
    tickers: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Chronological: the first floor(in_sample x n) sessions are in sample; ``embargo`` bars dropped on each side."""

    mode: str
    in_sample: float
    embargo: int


@dataclass(frozen=True)
class Objective:
    """``direction`` "max" or "min" of ``metric`` on bucket ``on`` ("is", "oos", "full"), ``over`` the cells."""

    direction: str
    metric: str
    on: str
    over: str


@dataclass(frozen=True)
class StudyOptions:
    """How trials are drawn, split and ranked. ``each`` is the universe whose members are run one by one.

    ``metrics``: what a cell stores, in the order of ``METRIC_NAMES``; ``proof``: "all" or "winners", the cells that get
    digests. None where the document says neither: then the count of cells decides (``farm.study.proof``).
    """

    each: str | None
    search: Mapping[str, Any]
    split: Split | None
    objective: Objective | None
    seed: int
    metrics: tuple[str, ...] | None
    proof: str | None


@dataclass(frozen=True)
class StrategySpec:
    """Parameters and sleeves. ``template`` is the resolved strategy with ``$p`` kept: lets inlined, defaults in."""

    params: Mapping[str, Param]
    constraints: tuple[Any, ...]
    universes: tuple[Universe, ...]
    template: JsonObject


@dataclass(frozen=True)
class StudySpec:
    """A whole document: ``raw`` as it was written, and what was understood.

    ``run_document`` is the run part as the resolved spec carries it: defaults in, ``dataset`` dropped.
    ``study`` is None when the document has neither a study part nor parameters.
    """

    raw: JsonObject
    name: str
    strategy: StrategySpec
    run: RunSpec
    run_document: JsonObject
    study: StudyOptions | None

    @property
    def each(self) -> str | None:
        """The universe whose members are run one by one, or None."""
        return self.study.each if self.study else None
