"""Chaos, short: one deck of faults, and a block that kills whoever runs it. ``make soak`` plays many decks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from farm.values.errors import BlockFailed
from tests.cluster.chaos import make_deck, make_world, play

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("minio_server"),  # where there is none, there is none to kill
]

SEED = 1
KINDS = [
    ("worker", "kill"),
    ("worker", "stop"),
    ("driver", "kill"),
    ("raylet", "kill"),
    ("minio", "kill"),
    ("gcs_server", "pause"),
]
POISON, ATTEMPTS = 3, 3


def test_a_study_under_fire_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with make_world(tmp_path, trials=16) as world:
        play(world, make_deck(KINDS, chance), chance, print)
        assert len(world.recoveries) == len(KINDS)
        assert world.commands == 3, "the driver and the raylet end the command, nothing else does"
        assert world.segments() == world.expected
        assert len(world.expected) == world.blocks


def test_a_block_that_kills_its_worker_is_quarantined_and_its_neighbours_finish(tmp_path: Path) -> None:
    with make_world(tmp_path, trials=2) as world:
        world.poison, world.attempts_max = POISON, str(ATTEMPTS)
        with world.command() as command:
            assert command.wait(timeout=120) == BlockFailed.exit_code, world.errors()
        assert "the worker died" in world.errors() and f"1 of {world.blocks} blocks failed" in world.errors()
        neighbours = {
            key: bytes_ for key, bytes_ in world.expected.items() if not key.endswith(f"-{POISON:06d}.parquet")
        }
        assert len(neighbours) == world.blocks - 1
        assert world.segments() == neighbours
