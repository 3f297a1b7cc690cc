"""A panel holds of each instrument what is read of it alone, to the bit, whatever lies in which shard."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.columns.cache import ColumnCache
from farm.market.load import load_panel
from farm.market.panel import InstrumentSeries, Panel
from farm.market.tapes import tiles
from farm.shard.dataset import Dataset
from farm.shard.plan import ReadPlan
from farm.values.errors import DataError
from tests.effort import effort
from tests.market.worlds import DAYS, FIRST, World
from tests.reference.load import load_series


def same(left: InstrumentSeries, right: InstrumentSeries) -> list[str]:
    """Return the names of the fields that differ in type, shape or bits."""
    wrong = []
    for field in fields(InstrumentSeries):
        mine, theirs = getattr(left, field.name), getattr(right, field.name)
        if isinstance(theirs, np.ndarray):
            if (mine.dtype, mine.shape, mine.tobytes()) != (theirs.dtype, theirs.shape, theirs.tobytes()):
                wrong.append(field.name)
        elif mine != theirs:
            wrong.append(field.name)
    return wrong


def drawn(world: World) -> tuple[ReadPlan, int]:
    """A plan of some of the instruments, each from a day of its own, and the first day of the run."""
    rng = world.rng
    start = FIRST + int(rng.integers(0, DAYS))
    end = start + int(rng.integers(0, DAYS))
    some = rng.choice(world.names, int(rng.integers(0, len(world.names) + 1)), replace=False)
    since = {str(name): start - int(rng.integers(0, DAYS)) for name in some}
    columns = [name for name in ("high", "low") if rng.random() < 0.5]
    return world.dataset.read_plan(since, end, columns), start


def load(dataset: Dataset, plan: ReadPlan, start: int, cache: ColumnCache | None = None) -> Panel:
    return load_panel(dataset, cache or ColumnCache(0), plan, calendar_name="XNYS", start_day=start)


def alone(world: World, plan: ReadPlan, start: int) -> list[InstrumentSeries]:
    sessions = world.dataset.calendar("XNYS").slice(start, plan.last_day).day
    anchor = int(sessions[0]) if sessions.size else start
    days = zip(plan.ids, plan.first_day.tolist(), strict=True)
    return [load_series(world.dataset, name, day, plan.last_day, anchor, plan.columns) for name, day in days]


@settings(max_examples=effort(150))
@given(st.integers(0, 2**32), st.integers(0, 2))
def test_a_slice_is_what_is_read_of_an_instrument_alone(seed: int, faults: int) -> None:
    """The same bits of every column; and what is wrong is said of the same instrument in the same words."""
    world = World(seed, faults)
    plan, start = drawn(world)
    try:
        expected = alone(world, plan, start)
    except DataError as error:
        with pytest.raises(DataError) as caught:
            load(world.dataset, plan, start)
        assert str(caught.value) == str(error)
        return
    panel = load(world.dataset, plan, start)
    assert [one.id for one in panel.instruments] == list(plan.ids)
    assert [same(panel.series(at), one) for at, one in enumerate(expected)] == [[] for _ in expected]
    assert not any(value.flags.writeable for value in vars(panel).values() if isinstance(value, np.ndarray))


@pytest.mark.slow
def test_the_worlds_hold_what_they_are_for() -> None:
    """Faults of each kind, days that interleave over shards, factors that only integers decide."""
    said, interleaved, unsure = set(), 0, 0
    for seed in range(150):
        world = World(seed, faults=2)
        plan = world.dataset.read_plan(dict.fromkeys(world.names, FIRST - 5), FIRST + DAYS, ())
        try:
            series = alone(world, plan, FIRST)
        except DataError as error:
            said.add(error.message.split(" of ")[0])
            continue
        interleaved += sum(len(index.symbols) > 0 for index in world.dataset._load(world.dataset.snapshot.shards)) > 5
        unsure += any(np.isnan(one.factor_num).any() for one in series)
    assert said == {"two shards hold the row", "a bar on a day that is no session", "a dividend"}
    assert interleaved and unsure


@settings(max_examples=effort(30))
@given(st.integers(0, 2**32), st.integers(1, 20_000))
def test_tiles_are_the_panel_in_parts(seed: int, bytes_max: int) -> None:
    """Parts of a plan hold its instruments in order, at least one each, and of each the same bits."""
    world = World(seed)
    plan, start = drawn(world)
    try:
        whole = load(world.dataset, plan, start)
    except DataError:  # a split so large that a dividend eats the price
        return
    parts = [plan.take(part) for part in tiles(plan, bytes_max)]
    assert [name for part in parts for name in part.ids] == list(plan.ids)
    panels = [load(world.dataset, part, start) for part in parts]
    found = [panel.series(at) for panel in panels for at in range(len(panel.instruments))]
    assert all(not same(whole.series(at), one) for at, one in enumerate(found))


def test_what_is_planned_is_what_is_fetched() -> None:
    """Loading asks the cache for the chunks of the plan, each once, and for no other."""
    asked: list[tuple[str, int, str]] = []

    class Watched(ColumnCache):
        def get_many(self, keys, load):  # type: ignore[no-untyped-def]
            asked.extend(keys)
            return super().get_many(keys, load)

    for seed in range(20):
        world = World(seed)
        plan = world.dataset.read_plan(dict.fromkeys(world.names, FIRST), FIRST + 20, ["low"])
        asked.clear()
        load(world.dataset, plan, FIRST, Watched(10**8))
        assert sorted(asked) == sorted(chunk.column_key for chunk in plan.chunks)
