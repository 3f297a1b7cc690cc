"""What ended studies leave is removed; what waits, what is young and every result stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from farm import api
from farm.results.clean import Cleaning, clean, parse_age
from farm.shard.layout import parse_remark_key, study_in_inbox
from farm.store.base import Store
from farm.store.memory import MemoryStore
from farm.store.open import open_store
from farm.values.errors import UsageError
from farm.values.settings import FarmSettings
from tests.cli.support import Console, refused, write_spec
from tests.study.rows import cell_keys
from tests.study.support import cross

DAY_NS = 86_400 * 1_000_000_000
OLD = (
    "studies/ended/leases/e-000001.json",
    "studies/ended/leases/e-000002.json",
    "studies/ended/leases/e-00000000.jsonl",
    "studies/ended/attempts/000000.json",
    "studies/ended/done/n.json",
)
KEPT = (
    "data/stock_daily/d/2019/x.parquet",
    "index/x.arrow",
    "refs/main/0000000001.json",
    "results/f/ended-000000.parquet",
    "snapshots/x.json",
    "studies/ended/study.json",
    "studies/ended/rounds/0.json",
    "inbox/waiting/n.json",
    "studies/waiting/leases/e-000001.json",
    "inbox/waiting-as-before.json",
    "studies/waiting-as-before/leases/e-000001.json",
    "studies/waiting-as-before/done/m.json",
    "studies/wait/study.json",
)


def keys(store: Store) -> set[str]:
    return {meta.key for meta in store.list("")}


def planted(store: Store) -> Store:
    for key in (*OLD, *KEPT):
        store.put(key, b"12345")
    return store


def after(days: float, store: Store, *, is_dry: bool = False) -> Cleaning:
    return clean(store, older_s=parse_age("90d"), now_ns=time.time_ns() + int(days * DAY_NS), is_dry=is_dry)


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_only_remarks_of_ended_studies_go(kind: str, tmp_path: Path) -> None:
    store = planted(MemoryStore() if kind == "memory" else open_store(str(tmp_path / "store")))
    assert after(89.9, store).studies == 0
    expected = Cleaning(1, 2, 25, {"leases": 3, "attempts": 1, "done": 1}, is_dry=True)
    assert after(90.1, store, is_dry=True) == expected
    assert keys(store) == {*OLD, *KEPT}
    assert after(90.1, store).objects == expected.objects
    assert keys(store) == set(KEPT)
    assert after(1000, store).studies == 0


def test_a_study_is_cleaned_whole_or_not_at_all() -> None:
    """One remark that is young, or of no known age, keeps the older ones."""
    store = planted(MemoryStore())
    store._modified_ns = dict.fromkeys(store._modified_ns, time.time_ns() - 100 * DAY_NS)
    for modified_ns in (time.time_ns() - DAY_NS, 0):
        store._modified_ns[OLD[0]] = modified_ns
        assert after(0, store).studies == 0
    store._modified_ns[OLD[0]] = 1
    assert after(0, store).studies == 1


def test_a_submission_that_comes_while_the_store_is_listed() -> None:
    """The inbox is looked at after the remarks."""

    class Late(MemoryStore):
        def list(self, prefix: str, *, start_after: str = ""):  # type: ignore[no-untyped-def]
            found = list(super().list(prefix, start_after=start_after))
            if prefix == "studies/":
                self.put("inbox/ended/new.json", b"1")
            return iter(found)

    assert after(100, planted(Late())).studies == 0


def test_results_are_what_they_were(tmp_path: Path) -> None:
    """A real study: the same results, nothing to compute again, and ``explain`` without who."""
    settings = FarmSettings().with_store(str(tmp_path / "store"))
    api.ingest_sample(settings)
    spec = cross(start="2003-01-02", end="2005-12-30")
    outcome = api.run(spec, settings)
    key = cell_keys(outcome.study)[0].hex()
    assert api.explain(key, settings)["computed"]["leases"]
    assert api.clean(settings, older="0h").objects == {"leases": 1, "attempts": 0, "done": 0}
    again = api.run(spec, settings)
    assert again.stats.cells_computed == 0
    assert again.document()["trials"] == outcome.document()["trials"]
    assert api.explain(key, settings)["computed"]["leases"] == []


def test_the_command(tmp_path: Path) -> None:
    farm = Console(str(tmp_path / "store"))
    assert farm("ingest", "sample").code == 0
    assert farm("run", write_spec(tmp_path / "study.json", cross(start="2003-01-02", end="2005-12-30"))).code == 0
    assert farm.document("clean", "--older", "90d") == {
        "studies": 0, "kept": 1, "bytes": 0, "objects": {"leases": 0, "attempts": 0, "done": 0}, "dry_run": False,
    }  # fmt: skip
    said = farm("clean", "--older", "0d", "--dry-run").out
    assert said.startswith("would remove 1 lease record, 0 attempts, 0 markers of 1 ended study (")
    assert farm("clean", "--older", "0d").out.startswith("removed 1 lease record")
    assert farm("clean", "--older", "0d").out.startswith("removed 0 lease records, 0 attempts, 0 markers of 0 ended st")
    refused(farm("clean", "--older", "soon"), 2, "--older", "'soon'", "90d")
    refused(farm("clean"), 2, "--older")


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5d", "90 days", "9999999d"])
def test_ages_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_age(text)


def test_keys() -> None:
    assert {study_in_inbox(key) for key in ("inbox/s.json", "inbox/s/n.json", "inbox/s/t/u.json")} == {"s"}
    assert parse_remark_key("studies/s/leases/l.json") == ("s", "leases")
    for other in ("studies/s/study.json", "studies/leases/done", "studies/s/leases", "results/s/leases/x"):
        assert parse_remark_key(other) is None
