"""Many trials by one call against each of them alone: metrics, digests, counts, in bits; and what must not matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.engine import trials as engine
from farm.engine.events import simulate
from farm.engine.incidents import incidents
from farm.engine.layout import columns_of
from farm.engine.ledger import Run
from farm.engine.room import RecordRoom
from farm.kernels.records import Table
from farm.kernels.trials import Kept, TrialRows
from farm.market.panel import Market
from farm.market.tape import make_tape
from farm.program.program import Program, Size
from farm.program.template import RulesColumns
from farm.results.measure import measure_run, rf_per_session
from farm.results.record import Header, ledger_digest, packed_digests, published, session_days, stats_digest
from farm.signals.evaluate import MaskRows, NumberRows, Signals, TrialSignals
from farm.values.arrays import F64, I64, readonly
from farm.values.metrics import METRIC_NAMES
from tests.effort import effort
from tests.engine.support import cases

Case = tuple[Program, Market, tuple[tuple[Signals, ...], ...]]
HASH = "0" * 64
LAPSES = ("lapsed_no_volume", "lapsed_no_bar", "lapsed_at_end")


@st.composite
def many(draw: st.DrawFn) -> tuple[list[Program], Market, list[tuple[tuple[Signals, ...], ...]]]:
    """One to four trials of one template: other sizes, other numbers of stops, other signals."""
    program, market, groups = draw(cases())
    programs, said = [program], [groups]
    for _ in range(draw(st.integers(0, 3))):
        scale = draw(st.sampled_from((0.5, 1.0, 2.0)))

        def resized(size: Size, scale: float = scale) -> Size:
            return size if size.mode == "equal" else Size(size.mode, size.v * scale)

        sleeves = tuple(
            dataclasses.replace(
                sleeve, size=resized(sleeve.size), ttl=draw(st.integers(1, 3)), cooldown_bars=draw(st.integers(0, 2)),
                max_positions=draw(st.integers(1, 3)),
                stops=tuple(dataclasses.replace(stop, value=max(1.0, stop.value * scale) if stop.type == "time" else
                                                stop.value * scale) for stop in sleeve.stops),
                add=None if sleeve.add is None else dataclasses.replace(sleeve.add, size=resized(sleeve.add.size)),
            )
            for sleeve in program.sleeves
        )  # fmt: skip
        turned = draw(st.booleans())
        other = tuple(
            tuple(
                dataclasses.replace(
                    one, enter=one.exit if turned else one.enter, exit=one.enter if turned else one.exit,
                    prefer=None if one.prefer is None else readonly(-one.prefer),
                )
                for one in group
            )
            for group in groups
        )  # fmt: skip
        programs.append(dataclasses.replace(program, sleeves=sleeves))
        said.append(other)
    return programs, market, said


def kept_of(count: int, buckets: int, proof: Sequence[int], columns: int = 1) -> Kept:
    """Arrays for everything that is kept of ``count`` trials."""
    names = published()
    return Kept(
        values=np.full((buckets, len(METRIC_NAMES), count, columns), 7.0),
        metric=readonly(np.arange(len(METRIC_NAMES))),
        equity=np.zeros((count, columns), np.int64),
        counts=np.zeros((len(engine.ALL_COUNTS), count, columns), np.int64),
        proof=readonly(np.repeat(np.array(proof, np.uint8)[:, None], columns, axis=1)),
        fields=names.fields, prices=names.prices, instrument=names.instrument,
    )  # fmt: skip


def stage_of(
    programs: Sequence[Program],
    market: Market,
    groups: Sequence[Sequence[Signals]],
    buckets: I64,
    benchmark: F64 | None,
) -> engine.Stage:
    tape = make_tape(market, {one.instrument for group in groups for one in group})
    held = [
        (w, tape.traded.index(instrument))
        for w, group in enumerate(groups)
        for instrument in sorted(one.instrument for one in group)
    ]
    run = programs[0].run
    return engine.stage(tape, engine.Terms(run, buckets, rf_per_session(run.rf, run.ann), benchmark), held)


def rows_of(programs: Sequence[Program], said: Sequence[Sequence[Sequence[Signals]]], stage: engine.Stage) -> TrialRows:
    """Rows of trials whose programs and signals were drawn one by one."""
    groups = [
        [_side_by_side(list(ones)) for ones in zip(*(_in_order(of_trial[w]) for of_trial in said), strict=True)]
        for w in range(len(said[0]))
    ]
    rules = [columns_of(program) for program in programs]
    joined = [_joined([of_trial[w] for of_trial in rules]) for w in range(len(rules[0]))]
    return engine.trial_rows(engine.TrialRules(programs[0].sleeves, joined, programs[0].run), groups, stage)


def _in_order(group: Sequence[Signals]) -> list[Signals]:
    return sorted(group, key=lambda one: one.instrument)


def _side_by_side(ones: list[Signals]) -> TrialSignals:
    row_of = np.arange(len(ones), dtype=np.int32)[::-1].copy()  # rows need not be in the order of the trials

    def mask(name: str) -> MaskRows:
        flags = np.stack([getattr(one, name) for one in ones[::-1]])
        words = np.zeros((len(ones), -(-flags.shape[1] // 64) * 8), np.uint8)
        packed = np.packbits(flags, axis=1, bitorder="little")
        words[:, : packed.shape[1]] = packed
        return MaskRows(words.view(np.uint64), row_of)

    def number(column: Callable[[Signals], F64 | None]) -> NumberRows:
        return NumberRows(np.stack([np.asarray(column(one)) for one in ones[::-1]]), row_of)

    first = ones[0]
    return TrialSignals(
        instrument=first.instrument,
        has_bars=True,
        enter=mask("enter"), exit=mask("exit"), enter_short=mask("enter_short"), exit_short=mask("exit_short"),
        add=None if first.add is None else mask("add"),
        prefer=None if first.prefer is None else number(lambda one: one.prefer),
        limit=None if first.limit is None else number(lambda one: one.limit),
        stop_levels=tuple(
            number(lambda one, level=level: one.stop_levels[level])  # type: ignore[misc]
            for level in range(len(first.stop_levels))
        ),
        is_enter_known=np.array([one.is_enter_known for one in ones]),
    )  # fmt: skip


def _joined(parts: list[RulesColumns]) -> RulesColumns:
    """Columns of one trial each, one below the other."""

    def joined(values: list[Any]) -> Any:
        first = values[0]
        if first is None or isinstance(first, str | bool | int):
            return first
        if isinstance(first, np.ndarray):
            return np.concatenate(values)
        if isinstance(first, tuple):
            return tuple(joined(list(each)) for each in zip(*values, strict=True))
        fields = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{name: joined([getattr(one, name) for one in values]) for name in fields})

    found: RulesColumns = joined(parts)
    return found


def header_of(run: Run) -> Header:
    return Header(run.cash_micro, session_days(run.session_day), run.sleeves, run.instruments)


@given(many(), st.data())
@settings(max_examples=effort(300))
def test_many_trials_equal_each_alone(
    case: tuple[list[Program], Market, list[tuple[tuple[Signals, ...], ...]]], data: st.DataObject
) -> None:
    """Whatever runs beside it, a trial has the metrics of each bucket, the digests and the counts that it has alone."""
    programs, market, said = case
    sessions = market.calendar.day.shape[0]
    cut = data.draw(st.integers(1, sessions))
    buckets = np.array([(0, sessions), (0, cut), *([(cut, sessions)] if cut < sessions else [])], np.int64)
    benchmark: F64 | None = None
    if data.draw(st.booleans()):
        benchmark = readonly(np.random.default_rng(cut).normal(0.0, 0.01, sessions))
    stage = stage_of(programs, market, said[0], buckets, benchmark)
    proof = [data.draw(st.integers(0, 1)) for _ in programs]
    kept = kept_of(len(programs), len(buckets), proof, columns=2)
    room = RecordRoom()
    found = {}
    for trial, _, pack in engine.TrialRun(stage, rows_of(programs, said, stage), room).run(kept, [1]):
        found[trial] = pack.copy()
    assert sorted(found) == [trial for trial, wanted in enumerate(proof) if wanted]
    for trial, (program, groups) in enumerate(zip(programs, said, strict=True)):
        run = simulate(program, market, groups)
        vectors = measure_run(
            run, ann=program.run.ann, rf=program.run.rf, benchmark_returns=benchmark, in_sample=(0, cut),
            out_of_sample=(cut, sessions) if cut < sessions else None,
        )  # fmt: skip
        for bucket in range(len(buckets)):
            assert kept.values[bucket, :, trial, 1].tobytes() == np.array(vectors[bucket]).tobytes()
        assert kept.equity[trial, 1] == run.equity_end_micro
        lapses = {name: n for name, n in incidents(run, market, groups).items() if name in LAPSES}
        counts = {**run.counts, **lapses, **({"ruin": 1} if run.ruin else {})}
        assert dict(engine.counts_of(kept, trial, 1)) == counts
        if proof[trial]:
            ledger, stats = packed_digests(found[trial], header_of(run), HASH)
            assert ledger.hex() == ledger_digest(run, HASH)
            assert stats.hex() == stats_digest(vectors[0])
    assert (kept.values[..., 0] == 7.0).all(), "another subject's column was written"


@given(many())
@settings(max_examples=effort(40))
def test_other_metrics_are_not_made(
    case: tuple[list[Program], Market, list[tuple[tuple[Signals, ...], ...]]],
) -> None:
    """What is not kept may be left out, and changes nothing of what is: not of the digests either."""
    programs, market, said = case
    sessions = market.calendar.day.shape[0]
    stage = stage_of(programs, market, said[0], np.array([(0, sessions)], np.int64), None)
    rows = rows_of(programs, said, stage)
    wanted = [METRIC_NAMES.index(name) for name in ("sharpe", "trades", "tim")]
    proof = [trial % 2 for trial in range(len(programs))]
    found = []
    for metric in (np.arange(len(METRIC_NAMES)), np.array(wanted)):
        kept = kept_of(len(programs), 1, proof)._replace(metric=readonly(metric))
        kept = kept._replace(values=np.zeros((1, len(metric), len(programs), 1)))
        packs = [pack.tobytes() for _, _, pack in engine.TrialRun(stage, rows).run(kept, [0])]
        found.append((kept.values, packs))
    (whole, packs), (some, same_packs) = found
    assert whole[:, wanted].tobytes() == some.tobytes()
    assert packs == same_packs


@given(many())
@settings(max_examples=effort(40))
def test_short_tables_and_packs_do_not_matter(
    case: tuple[list[Program], Market, list[tuple[tuple[Signals, ...], ...]]],
) -> None:
    """Records and packs that are too short stop the kernel; it goes on where it stood."""
    programs, market, said = case
    sessions = market.calendar.day.shape[0]
    stage = stage_of(programs, market, said[0], np.array([(0, sessions)], np.int64), None)
    rows = rows_of(programs, said, stage)

    def books(room: RecordRoom) -> list[bytes]:
        kept = kept_of(len(programs), 1, [1] * len(programs))
        packs = [pack.tobytes() for _, _, pack in engine.TrialRun(stage, rows, room).run(kept, [0])]
        return [kept.values.tobytes(), kept.equity.tobytes(), kept.counts.tobytes(), *_placed(packs)]

    assert books(RecordRoom()) == books(Narrow())


def _placed(packs: list[bytes]) -> list[bytes]:
    """Packs without their first word, which says where in the room they end."""
    return [pack[8:] for pack in packs]


class Narrow(RecordRoom):
    """Room for one record of each kind, and for one word of a pack, until more is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0

    def take(self, name: str, rows: int) -> Table:
        table: Table = super().take(name, rows)[:1].copy()
        return table

    def pack(self, words: int) -> I64:
        self._asked += 1
        return super().pack(1 if self._asked == 1 else words)[: 1 if self._asked == 1 else words]
