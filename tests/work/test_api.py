"""The Python interface: the commands' words, typed answers, tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.worker import farm_runner
from farm import api
from farm.columns import process
from farm.shard.sample import sample_bars
from farm.signals.store import SeriesStore
from farm.store.open import open_store
from farm.store.wrap import Around
from farm.values.canon import canonical_json
from farm.values.errors import SpecError, UsageError
from farm.values.settings import CacheSettings, FarmSettings
from farm.work import context
from farm.work.run import Outcome
from tests.study.rows import cell_keys
from tests.study.support import cross

SPEC = cross(fast=(5, 10, 5), slow=(20, 30, 10), start="2003-01-02", end="2005-12-30", indicator="ema")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FarmSettings:
    made = FarmSettings().with_store(str(tmp_path_factory.mktemp("store")))
    api.ingest_sample(made)
    return made


@pytest.fixture(scope="module")
def outcome(settings: FarmSettings) -> Outcome:
    return api.run(SPEC, settings, threads=2)


def test_ingest_takes_tables(tmp_path: Path) -> None:
    made = api.at(str(tmp_path))
    options: dict[str, Any] = {"tz": "America/New_York", "stamp": "start"}
    assert api.ingest(sample_bars(), made, **options).rows_added == 12154
    again = api.ingest(sample_bars().to_pandas(), made, **options)
    assert (again.rows_added, again.rows_skipped) == (0, 12154)


def test_results_by_name_by_digits_and_by_spec(settings: FarmSettings, outcome: Outcome) -> None:
    expected = outcome.document()["trials"]
    for study in (outcome.study.id, outcome.study.id[:10], SPEC):
        found = api.results(study, settings)
        assert found.stats.cells_computed == 0
        assert expected == found.document()["trials"]


def test_tables(outcome: Outcome) -> None:
    table = outcome.table().to_pandas()
    assert len(table) == outcome.study.cells == 20
    assert table["verdict"].dropna().tolist() == ["no_data"] * 4
    assert table.loc[table["verdict"].notna(), "full.sharpe"].isna().all()
    first = outcome.document()["trials"][0]["cells"][0]
    assert table["key"][0] == first["key"] and table["is.sharpe"][0] == first["metrics"]["is"]["sharpe"]
    leaders = outcome.leaderboard(2).to_pylist()
    assert [row["rank"] for row in leaders] == [1, 2]
    assert leaders[0]["objective"] >= leaders[1]["objective"]
    assert leaders[0]["fingerprint"] == outcome.document()["trials"][leaders[0]["trial"]]["fingerprint"]


def test_status(settings: FarmSettings, outcome: Outcome) -> None:
    found = api.status(settings)
    (dataset,) = found["datasets"]
    assert dataset["snapshot"] == outcome.study.snapshot
    assert dataset["kinds"]["stock_daily"]["rows"] == 12154
    assert [one["symbol"] for one in dataset["instruments"]] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    study = next(one for one in found["studies"] if one["study"] == outcome.study.id)
    assert study["cells"] == {"total": 20, "done": 20}
    (detail,) = api.status(settings, study=outcome.study.id[:9])["studies"]
    assert detail["waiting"] == [] and len(detail["leases"]) == 1


def test_explain_adds_up(settings: FarmSettings, outcome: Outcome) -> None:
    """The parts of the key hash to the key; the lease says who computed the block."""
    cell = outcome.document()["trials"][3]["cells"][2]
    found = api.explain(cell["key"][:12], settings)
    read, trial = found["key"]["read"], found["key"]["trial"]
    assert hashlib.sha256(canonical_json(list(read["parts"].values()))).hexdigest() == read["digest"]
    assert hashlib.sha256(canonical_json(trial["parts"])).hexdigest() == trial["digest"]
    key = hashlib.sha256(bytes.fromhex(read["digest"] + trial["digest"])).hexdigest()
    assert key == cell["key"] == found["cell"]
    assert (found["trial"], found["instrument"], found["params"]) == (3, "GOOG", {"fast": 10, "slow": 30})
    assert found["result"]["stats"] == cell["fingerprint"]["stats"]
    assert found["result"]["assumptions"] == cell["assumptions"]
    assert found["computed"]["leases"][0]["reason"] == "in process"
    assert found["computed"]["is_reused"] is False
    assert set(found["reads"]["anchors"]) == {"ema(close, 10)", "ema(close, 30)"}
    assert found["reads"]["bytes"] > 0
    empty = api.explain(outcome.document()["trials"][0]["cells"][1]["key"], settings)
    assert empty["result"]["verdict"] == "no_data"


@pytest.mark.parametrize("cell", ["", "abc", "zz" * 8, "0" * 16])
def test_explain_refuses_what_is_no_cell(settings: FarmSettings, outcome: Outcome, cell: str) -> None:
    with pytest.raises(UsageError, match=r"not the name of a cell|no such cell"):
        api.explain(cell, settings)


def test_report(settings: FarmSettings, outcome: Outcome, tmp_path: Path) -> None:
    size = api.report(outcome.study.id, settings, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert size == len(text.encode())
    winner = outcome.leaderboard(1).to_pylist()[0]
    assert winner["fingerprint"] in text
    for word in ("AAPL, bought and held", "fixed_universe", "no_dividends", "no_data", "in sample"):
        assert word in text, word
    with pytest.raises(UsageError, match="the report cannot be written"):
        api.report(outcome.study.id, settings, tmp_path / "nowhere" / "report.html")


Use = Callable[[FarmSettings, Outcome, Path], object]
USES: dict[str, Use] = {
    "plan": lambda settings, outcome, folder: api.plan(cross(fast=(7, 7), slow=(9, 9)), settings),
    "run": lambda settings, outcome, folder: api.run(SPEC, settings, fresh=True, threads=2),
    "report": lambda settings, outcome, folder: api.report(outcome.study.id, settings, folder / "report.html"),
    "explain": lambda settings, outcome, folder: api.explain(cell_keys(outcome.study)[12].hex(), settings),
    "worker": lambda settings, outcome, folder: farm_runner(api.store_of(settings), settings),
}


@pytest.mark.parametrize("use", USES)
def test_budgets_reach_whatever_runs(
    use: str, settings: FarmSettings, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of the process and the series store have the budgets of the settings, also after others were there."""
    series: list[int] = []
    monkeypatch.setattr(process, "_cache", None)
    monkeypatch.setattr(context, "SeriesStore", lambda size: series.append(size) or SeriesStore(size))
    for cache_bytes, series_bytes in ((7_000, 3_000), (8_000, 4_000)):
        cache = CacheSettings(cache_bytes_max=cache_bytes, series_bytes_max=series_bytes)
        USES[use](replace(settings, cache=cache), outcome, tmp_path)
        made = process.process_cache()
        assert made.cache_bytes_max == cache_bytes
        assert made.stats().size_used <= cache_bytes
        assert set(series) == (set() if use == "plan" else {series_bytes})
        series.clear()


def test_one_trial_of_a_study(settings: FarmSettings, outcome: Outcome) -> None:
    best = api.run(api.only(SPEC, "best", settings), settings)
    assert best.stats.cells_computed == 0
    assert best.results.fingerprints([0]) == [outcome.leaderboard(1).to_pylist()[0]["fingerprint"]]


def test_check_spec() -> None:
    found = api.check_spec(SPEC)
    assert (found["points"], found["params"], found["each"]) == (4, ["fast", "slow"], "u")
    with pytest.raises(SpecError, match=r"^run\.cash"):
        api.check_spec(cross(cash=-1))


def test_a_process_reads_what_cannot_change_once(
    settings: FarmSettings, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roots, indexes, calendars and the master, whoever asks and from however many threads; refs and records anew."""
    read: list[str] = []

    class Watching(Around):
        def get(self, key: str) -> bytes:
            read.append(key)
            return self.inner.get(key)

    monkeypatch.setattr(api, "open_store", lambda url, limits: Watching(open_store(url, limits)))
    others = [cross(fast=(n, n), slow=(20, 20), start="2003-01-02", end="2005-12-30") for n in range(6, 14)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda spec: api.run(spec, settings), others))
    unchanging = [key for key in read if key.startswith(("snapshots/", "calendars/", "index/", "data/"))]
    assert {key.partition("/")[0] for key in unchanging} == {"snapshots", "calendars", "index", "data"}
    assert len(set(unchanging)) == len(unchanging)
    read.clear()
    assert api.run(SPEC, settings).stats.cells_reused == outcome.study.cells
    assert api.explain(cell_keys(outcome.study)[0].hex(), settings)
    assert {key.partition("/")[0] for key in read} == {"refs", "studies", "results"}
