"""Real Ray, as little as possible: what the machine and the simulator cannot show.

One farm serves the stub studies; one store goes through the life of a real study: its driver is killed, then the same
command is stopped by Ctrl-C, then it runs to the end with other workers and threads, and the results are those of one
process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster import ray_backend, ray_folder
from cluster.inbox import Inbox
from cluster.lease import Limits
from cluster.local_ray import LocalFarm, run_on_workers
from farm.columns.cache import ColumnCache
from farm.shard.ingest import ingest_sample
from farm.shard.snapshot import read_head
from farm.store.base import Store
from farm.store.open import open_store
from farm.study.block import BLOCK_COST_US, cut
from farm.study.missing import all_missing
from farm.values.errors import BlockFailed, CapacityError, Interrupted, UsageError
from farm.values.settings import GIB
from farm.work.run import run_in_process
from tests.cluster import runners

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

WAIT_S = 120.0
SPEC = {
    "spec": 1,
    "strategy": {
        "params": {"fast": {"int": [2, 80, 2]}, "slow": {"int": [90, 250, 5]}},
        "universes": [{"id": "u", "tickers": ["AAPL", "IBM"]}],
        "sleeves": [
            {
                "id": "x",
                "kind": "rules",
                "universe": "u",
                "side": "long",
                "enter": {"cross_up": [{"i": "sma", "n": "$fast"}, {"i": "sma", "n": "$slow"}]},
                "exit": {"cross_dn": [{"i": "sma", "n": "$fast"}, {"i": "sma", "n": "$slow"}]},
                "size": {"mode": "pct_equity", "v": 1.0},
            }
        ],
    },
    "run": {"dataset": "main", "start": "2001-01-02", "end": "2012-12-31", "cash": 100000, "costs": {"bps": 10}},
    "study": {
        "each": {"instrument": "u"},
        "search": {"grid": {}},
        "split": {"mode": "chronological", "is": 0.7},
        "objective": {"max": "sharpe"},
    },
}


def stub(name: str, blocks: int, store: Store) -> Any:
    """What ``LocalFarm.run`` reads of a submission, for a study that only the stub runner knows."""
    made = cut(all_missing(blocks, 1), np.array([BLOCK_COST_US])).with_needs(lambda _: {})
    assert len(made) == blocks
    study = SimpleNamespace(name=name, id=name, cells=blocks, blocks=made, fresh=True)  # the catalog knows none of it
    return SimpleNamespace(study=study, waiting=tuple(range(blocks)), cells_waiting=blocks, catalog=None)


def wait_for(what: str, holds: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Wait until ``holds()``; fail after ``wait_s``."""
    until_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listening(pid: int) -> list[IPv4Address | IPv6Address]:
    """Addresses on which a process listens."""
    links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    found: list[IPv4Address | IPv6Address] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                words = bytes.fromhex(fields[1].partition(":")[0])
                raw = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                six = IPv6Address(raw) if table == "tcp6" else None
                found.append((six.ipv4_mapped or six) if six is not None else IPv4Address(raw))
    return found


def processes_of(pid: int) -> list[str]:
    """Command lines of the processes of the local Ray that process ``pid`` started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue  # gone, or somebody else's
            if folder.name != str(pid) and f"farm-ray-{pid}-" in line + environment:
                found.append(f"{folder.name} {line}")
    return found


@pytest.fixture(scope="class")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFarm]:
    """Two workers of one thread that run stub blocks, with short deadlines and two attempts (each costs a worker)."""
    limits = Limits(
        workers_max=2,
        workers_min=2,
        deadline_s=3.0,
        deadline_factor=2.0,
        watchdog_s=2.0,
        lease_s=0.1,
        attempts_max=2,
    )
    store = tmp_path_factory.mktemp("store")
    with LocalFarm(str(store), workers=2, limits=limits, make_runner=runners.moody) as farm:
        farm.wait_ready(2)
        yield farm


def finished(farm: LocalFarm, study: str) -> set[int]:
    return {int(meta.key.rsplit("/", 1)[1]) for meta in farm.store.list(f"done/{study}/")}


def _kill_when(pid: int, holds: Callable[[], bool]) -> None:
    wait_for("the first blocks", holds)
    os.kill(pid, signal.SIGKILL)


def _stop_when(farm: LocalFarm, holds: Callable[[], bool]) -> None:
    wait_for("the first blocks", holds)
    farm.stop.set()


class TestStubStudies:
    """One farm of stub blocks for all of these."""

    def test_blocks_that_kill_hang_or_fail_are_quarantined_and_no_others(self, farm: LocalFarm) -> None:
        """One block kills its process, one never ends, one ends in a typed error, one in a foreign exception."""
        with pytest.raises(BlockFailed, match=r"worker died.*4 of 18 blocks failed, block 3 first"):
            farm.run(stub("moody", 18, farm.store))
        assert finished(farm, "moody") == set(range(18)) - runners.BAD
        quarantined = farm.driver.ended["moody"].quarantined
        assert set(quarantined) == runners.BAD
        assert "past the deadline" in str(quarantined[runners.HANG])
        assert "checksum mismatch" in str(quarantined[runners.FAULTY])
        assert "ZeroDivisionError: nobody expected this" in str(quarantined[runners.FOREIGN])
        assert farm.inbox.pending() == []
        attempts = Inbox(farm.store).attempts("moody", farm.driver.ended["moody"].nonce).failures
        assert {block: count for block, (count, _) in attempts.items()} == dict.fromkeys(runners.BAD, 2)

    def test_a_worker_that_is_killed_is_replaced_and_its_blocks_run_again(
        self, farm: LocalFarm, capfd: pytest.CaptureFixture[str]
    ) -> None:
        farm.wait_ready(2)
        before = dict(farm.driver.backend.pids)  # type: ignore[attr-defined]
        victim, pid = next(iter(before.items()))
        killer = threading.Thread(target=_kill_when, args=(pid, lambda: len(finished(farm, "killed")) >= 3))
        killer.start()
        tally = farm.run(stub("killed", 60, farm.store))
        killer.join()
        assert finished(farm, "killed") == set(range(60))
        assert tally.outcomes["crashed"] >= 1 and tally.leases["retry"] >= 1
        farm.wait_ready(2)
        after = dict(farm.driver.backend.pids)  # type: ignore[attr-defined]
        assert victim not in after and len(after) == 2
        assert capfd.readouterr() == ("", ""), "Ray keeps it to itself: standard output belongs to the document"

    def test_an_actor_that_ray_calls_dead_is_gone_although_it_hears_nothing(self, farm: LocalFarm) -> None:
        """A stopped process does not hear Ray: its actor is dead at once, and it would live on for seconds."""
        farm.wait_ready(2)
        backend: Any = farm.driver.backend
        victim, process = next(iter(backend._processes.items()))
        pid = process.pid
        os.kill(pid, signal.SIGSTOP)
        ray_backend.ray.kill(backend._actors[victim])
        farm.run(stub("dead", 10, farm.store))
        assert victim not in backend.pids
        wait_for("the end of the process", lambda: not is_alive(pid), 1.0)

    def test_nobody_else_reaches_this_ray(self, farm: LocalFarm) -> None:
        """Its folder is closed to others, and all its ports, also those of workers, listen on loopback."""
        [folder] = Path("/tmp").glob(f"farm-ray-{os.getpid()}-*")
        ray_folder.check_private(folder)
        pids = [os.getpid()] + [process.pid for process in ray_folder.processes_of(folder)]
        assert len(pids) >= 7, "gcs, raylet, its agents, monitors, two workers"
        addresses = [address for pid in pids for address in listening(pid)]
        assert len(addresses) >= 7
        assert [str(address) for address in addresses if not address.is_loopback] == []

    def test_a_stopped_farm_keeps_what_is_finished(self, farm: LocalFarm) -> None:
        """``stop`` in the middle: Interrupted, the study stays in the inbox, and the next run of it does the rest."""
        threading.Thread(target=_stop_when, args=(farm, lambda: len(finished(farm, "stopped")) >= 3)).start()
        with pytest.raises(Interrupted, match=r"stopped by the user with \d+ of 80 cells"):
            farm.run(stub("stopped", 80, farm.store))
        assert 3 <= len(finished(farm, "stopped")) < 80
        [pending] = farm.inbox.pending()
        farm.stop.clear()
        farm.run(stub("stopped", 80, farm.store))
        assert finished(farm, "stopped") == set(range(80))
        assert farm.driver.ended["stopped"].nonce == pending.nonce, "the same submission"
        assert farm.inbox.pending() == []

    def test_a_second_farm_in_one_process_is_refused(self, farm: LocalFarm, tmp_path: Path) -> None:
        with pytest.raises(CapacityError, match="one farm at a time"):
            LocalFarm(str(tmp_path), workers=1).open()
        farm.run(stub("after", 4, farm.store))  # and the first goes on


COMMAND = """
import json, sys
from pathlib import Path
from cluster.local_ray import run_on_workers
from farm.values.errors import FarmError
from tests.cluster.runners import slow
try:
    run_on_workers(json.loads(sys.argv[2]), sys.argv[1], workers=2, make_runner=slow)
except FarmError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def command(store: Store, root: Path) -> subprocess.Popen[str]:
    """The command of a user, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, store.url, json.dumps(SPEC)],
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def segments(store: Store) -> int:
    return sum(1 for meta in store.list("results/") if meta.key.endswith(".extent"))


def leases(store: Store) -> set[str]:
    return {meta.key for meta in store.list("studies/") if "/leases/" in meta.key}


def test_kill_the_driver_stop_the_next_and_finish_with_the_bits_of_one_process(tmp_path: Path, repo_root: Path) -> None:
    store, plain = open_store(str(tmp_path / "farm")), open_store(str(tmp_path / "plain"))
    for each in (store, plain):
        ingest_sample(each, "main")
    expected = run_in_process(SPEC, plain, cache=ColumnCache(GIB)).document()  # nothing is kept yet, as in a worker

    killed = command(store, repo_root)
    wait_for("a first segment", lambda: segments(store) >= 1 or killed.poll() is not None)
    assert killed.poll() is None, killed.stderr.read() if killed.stderr else ""
    killed.kill()
    killed.wait()
    wait_for("the end of what the killed driver had started", lambda: processes_of(killed.pid) == [])
    known = leases(store)
    [pending] = Inbox(store).pending()

    stopped = command(store, repo_root)
    wait_for("a lease of the next driver", lambda: bool(leases(store) - known) or stopped.poll() is not None)
    kept = segments(store)
    wait_for("another segment", lambda: segments(store) > kept or stopped.poll() is not None)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does: Ray's processes get it too
    _, errors = stopped.communicate(timeout=WAIT_S)
    assert stopped.returncode == 130, errors
    assert "run the same command again; finished blocks are kept" in errors
    assert processes_of(stopped.pid) == []
    assert Inbox(store).pending()[0] == pending, "the same submission goes on"
    kept = segments(store)

    outcome = run_on_workers(SPEC, store.url, workers=1, threads=4)
    document = outcome.document()
    assert document["trials"] == expected["trials"]
    assert document["farm"]["cells"]["failed"] == 0
    assert segments(store) == len(outcome.study.blocks) > kept
    assert Inbox(store).pending() == []
    # Indexes, calendar and master are read twice: by the command, and by the worker.
    head = read_head(store, "main")
    known = [ref.index_bytes for ref in head.shards] + [ref.bytes for ref in head.of_kind("instruments")]
    twice = sum(known) + sum(ref.bytes for ref in head.calendars.values())
    assert document["farm"]["bytes"]["fetched"] <= expected["farm"]["bytes"]["fetched"] + twice, (
        "each column once, for 4 threads"
    )
    assert not list(Path("/tmp").glob(f"farm-ray-{killed.pid}-*")), "and what the killed one had left is cleared away"


def test_a_store_in_memory_and_odd_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not see this memory"):
        run_on_workers(SPEC, "memory:x", workers=2)
    with pytest.raises(UsageError, match="0 workers"):
        run_on_workers(SPEC, str(tmp_path), workers=0)
