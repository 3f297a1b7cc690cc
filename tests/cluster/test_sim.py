"""Some hundred seeds of the simulator, and that it can fail: a machine with a fault planted in it does not pass."""

from __future__ import annotations

import pytest

from cluster import machine, sim
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
    assert one.backend.clock_s == two.backend.clock_s


@pytest.mark.slow
def test_the_worlds_are_not_tame() -> None:
    """Crashes, expired leases, retries, quarantines, cancels and restarts all happen within a few dozen seeds."""
    seen: set[str] = set()
    for seed in range(60):
        world = sim.World(seed)
        world.run()
        seen |= {f"epochs {min(world.epochs, 2)}"}
        seen |= set(world.driver.tally.outcomes) | set(world.driver.tally.leases)
        seen |= {"quarantine" for end in world.driver.ended.values() if end.quarantined}
    assert {"done", "crashed", "expired", "cancelled", "warm", "home", "retry", "quarantine", "epochs 2"} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["blames the innocent", "forgets a block", "ends too early"])
def test_a_fault_in_the_machine_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = machine._Draft
    if fault == "blames the innocent":
        suspect = draft.suspect
        monkeypatch.setattr(
            draft,
            "suspect",
            lambda self, held, outcome, error, is_alone: suspect(self, held, outcome, error, is_alone=True),
        )
    elif fault == "forgets a block":
        monkeypatch.setattr(draft, "late", lambda self, event: None)
        monkeypatch.setattr(draft, "suspect", lambda self, held, outcome, error, is_alone: None)
    else:
        monkeypatch.setattr(draft, "flying", lambda self, study: 0)
    failures = [text for text in map(sim.run_seed, range(300)) if text is not None]
    assert failures
    assert failures[0].startswith("seed ")


def test_the_command_prints_the_failing_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim.main(["--seed", "3"]) == 0
    assert "seed 3: all properties hold" in capsys.readouterr().out
    monkeypatch.setattr(sim, "World", _Bad)
    text = sim.run_seed(7)
    assert text is not None and text.startswith("seed 7: Broken: by hand")


class _Bad:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def run(self) -> None:
        raise sim.Broken("by hand")
