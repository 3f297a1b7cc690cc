"""Some hundred seeds of the simulator; that it can fail, ``test_mutations`` shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import sim
from cluster.sim_cluster import Nature, SimBlock, SimStudy
from cluster.sim_worlds import WILD, WorldPlan
from tests.effort import effort

SEEDS = effort(300)


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_seeds(first: int) -> None:
    failures = [text for text in map(sim.run_seed, range(first, min(first + 50, SEEDS))) if text is not None]
    assert failures == []


def test_a_seed_repeats_exactly() -> None:
    one, two = sim.World(11), sim.World(11)
    one.run()
    two.run()
    assert one.driver.state == two.driver.state
    assert one.clock.now_s == two.clock.now_s


@pytest.mark.slow
def test_the_worlds_are_not_tame() -> None:
    """Crashes, expired leases, retries, quarantines, cancels and restarts all happen within a few dozen seeds."""
    seen: set[str] = set()
    for seed in range(60):
        world = sim.World(seed)
        world.run()
        seen |= world.seen | {f"epochs {min(world.epochs, 2)}"}
        seen |= set(world.driver.tally.outcomes) | set(world.driver.tally.leases)
        seen |= {"quarantine" for end in world.driver.ended.values() if end.quarantined}
    assert {"done", "crashed", "expired", "cancelled", "warm", "home", "backlog", "replica", "retry"} <= seen
    assert {"quarantine", "epochs 2", "died", "refused", "away", "two schedulers"} <= seen
    assert {"gave up", "stall", "submitted while it was cleared", "idle worker lost"} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["good", "bad"])
def test_the_scheduler_may_die_at_any_of_its_effects(kind: str) -> None:
    """One small world, lived through again with a death at its first effect, at its second, and so on to its last."""
    world = _small(kind)
    world.run()
    effects = world.fuse.effects
    assert effects > 30
    for at in range(1, effects + 1):
        again = _small(kind, at, at // 2 + 1)
        again.run()
        assert again.epochs >= 2


def _small(kind: str, *deaths: int) -> sim.World:
    natures: dict[str, tuple[Nature, ...]] = {"good": ("good",) * 8, "bad": ("good", "poison", "faulty", "good")}
    blocks = [SimBlock(index, 5, {"aa": 1000}, 0.1, nature) for index, nature in enumerate(natures[kind])]
    plan = WorldPlan(
        "barren", (SimStudy("study0", "ann", 0, blocks),), (0.0,), replace(WILD, workers_max=1, lease_blocks_max=1)
    )
    world = sim.World(5, plan=plan, deaths=deaths)
    world.hosts.up_s = 0.0
    return world


def test_the_command_prints_the_failing_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim.main(["--seed", "3"]) == 0
    assert "seed 3: all properties hold" in capsys.readouterr().out
    monkeypatch.setattr(sim, "World", _Bad)
    text = sim.run_seed(7)
    assert text is not None and text.startswith("seed 7: Broken: by hand")


class _Bad:
    def __init__(self, seed: int, faults: object) -> None:
        self.seed = seed

    def run(self) -> None:
        raise sim.Broken("by hand")
