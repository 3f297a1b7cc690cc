"""Claims: the digests cover everything that happened, and nothing that did not."""

import hashlib
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farm.engine.ledger import CASH, FILL, ORDER, TRADE, CashKind, Run
from farm.results import record
from farm.results.measure import facts_of, measure, measure_run
from farm.results.record import FIELDS, NULL_STATS, PRICES, cell_result, ledger_digest, stats_digest
from farm.values.metrics import METRIC_NAMES

MICRO = 1_000_000
SPEC = "ab" * 32


def records(dtype: np.dtype[Any], *rows: dict[str, Any]) -> Any:
    made = np.zeros(len(rows), dtype)
    for at, row in enumerate(rows):
        for name, value in row.items():
            made[name][at] = value
    return made


def example(**changes: Any) -> Run:
    """One closed trade in MSFT, one open in AAPL, 5 sessions; the market also holds IBM."""
    n = 5
    equity = np.array([100, 101, 99, 103, 104], np.int64) * MICRO
    plain: dict[str, Any] = {
        "cash_micro": 100 * MICRO,
        "instruments": ("AAPL", "IBM", "MSFT"),
        "sleeves": ("x",),
        "session_day": np.arange(n, dtype=np.int32) + 11_000,
        "equity": equity,
        "position": equity // 2,
        "decision_bars": np.ones(n, np.int64),
        "market_bars": np.array([0, 1, 1, 1, 1], np.int64),
        "orders": records(
            ORDER,
            {"ts": 10, "session": 0, "instrument": 2, "kind": 1, "side": 1, "lots": 3, "price": 9.5, "fee_micro": 7},
            {"ts": 20, "session": 2, "instrument": 2, "kind": 2, "side": -1, "lots": 3, "price": 10.5},
            {"ts": 20, "session": 2, "instrument": 0, "kind": 1, "side": 1, "lots": 1, "price": 50.0},
        ),
        "fills": records(
            FILL,
            {
                "ts": 11,
                "session": 1,
                "order": 0,
                "instrument": 2,
                "lots": 3,
                "amount_micro": -30 * MICRO,
                "price": 10.0,
            },
            {"ts": 21, "session": 3, "order": 1, "instrument": 2, "lots": -3, "amount_micro": 33 * MICRO, "price": 11.0}
            | {"slippage_micro": 250_000},
            {
                "ts": 21,
                "session": 3,
                "order": 2,
                "instrument": 0,
                "lots": 1,
                "amount_micro": -50 * MICRO,
                "price": 50.0,
            },
        ),
        "cash_events": records(
            CASH,
            {"ts": 11, "session": 1, "kind": CashKind.COMMISSION, "instrument": 2, "ref": 0, "cash_micro": -2 * MICRO},
            {"ts": 21, "session": 3, "kind": CashKind.COMMISSION, "instrument": 2, "ref": 1, "cash_micro": -1 * MICRO},
            {"ts": 22, "session": 4, "kind": CashKind.DIVIDEND_PAY, "instrument": 0, "cash_micro": 500_000},
        ),
        "trades": records(
            TRADE,
            {"instrument": 2, "side": 1, "lots": 3, "entry_session": 1, "entry_notional_micro": 30 * MICRO}
            | {"exit_session": 3, "pnl_micro": 0, "entry_price": 10.0, "exit_price": 11.0},
        ),
        "open_trades": records(
            TRADE, {"instrument": 0, "side": 1, "lots": 1, "entry_session": 3, "entry_price": 50.0, "exit_price": 54.0}
        ),
        "traded_notional_micro": 113 * MICRO,
        "fees_micro": {"commission": 3 * MICRO, "slippage": 250_000},
        "counts": {"lapsed": 1},
        "assumptions": ("fixed_universe",),
        "ruin": False,
    }
    return Run(**(plain | changes))


KINDS = ("orders", "fills", "cash_events", "trades", "open_trades")


def plain_digest(run: Run, names: tuple[str, ...]) -> str:
    """The ledger digest, built again from struct and hashlib, without numpy; ``names``: the ids that occur."""
    header = ["ledger-2", SPEC, "2", "strict-f64-1", run.cash_micro, len(run.session_day), list(run.sleeves), names]
    digest = hashlib.sha256(json.dumps(header).replace(" ", "").encode() + b"\n")
    for kind in KINDS:
        section = getattr(run, kind)
        columns = {}
        for name in FIELDS[kind]:
            values = section[name].tolist()
            if name == "instrument":
                values = [names.index(run.instruments[at]) for at in values]
            if any(values):
                columns[name] = b"".join(struct.pack("<d" if isinstance(x, float) else "<q", x) for x in values)
        if len(section):
            digest.update(json.dumps([kind, len(section), list(columns)]).replace(" ", "").encode() + b"\n")
            digest.update(b"".join(columns.values()))
    digest.update(struct.pack(f"<{len(run.equity)}q", *run.session_day.tolist()))
    digest.update(struct.pack(f"<{len(run.equity)}q", *run.equity.tolist()))
    return digest.hexdigest()


def test_the_ledger_digest_is_what_the_docstring_says() -> None:
    assert ledger_digest(example(), SPEC) == plain_digest(example(), ("AAPL", "MSFT"))


def test_the_published_lists_are_those_that_are_hashed() -> None:
    """docs/determinism.md lists every field of the engine's records, and the metrics, in the order of the digests."""
    text = (Path(__file__).parents[2] / "docs" / "determinism.md").read_text()
    listed = {kind: fields.split() for kind, fields in re.findall(r"^\| (\w+) \| ([a-z_ ]+) \|$", text, re.MULTILINE)}
    assert {kind: list(FIELDS[kind]) for kind in KINDS[:4]} == {kind: listed[kind] for kind in KINDS[:4]}
    assert FIELDS["open_trades"] == FIELDS["trades"]
    assert [word for line in re.findall(r"^    (.*)$", text, re.MULTILINE) for word in line.split()] == list(
        METRIC_NAMES
    )
    for kind, dtype in zip(KINDS, (ORDER, FILL, CASH, TRADE, TRADE), strict=True):
        assert set(dtype.names or ()) == set(FIELDS[kind]), kind
        assert {name for name in FIELDS[kind] if dtype[name].kind == "f"} == PRICES & set(FIELDS[kind])


def in_another_layout(table: Any, seed: int) -> Any:
    """The same records: fields in another order, of other widths, apart from each other, and a field of no use."""
    random = np.random.default_rng(seed)
    names = list(random.permutation(np.array([*table.dtype.names, "scratch"])))
    narrow = {name for name in ("kind", "side", "sleeve", "instrument", "status", "session", "bars") if seed % 2}
    types = ["<f8" if name in PRICES else "<i4" if name in narrow else "<i8" for name in names]
    offsets = np.cumsum([int(random.integers(0, 3)) + 8 for _ in names])
    made = np.zeros(
        len(table),
        np.dtype({"names": names, "formats": types, "offsets": offsets.tolist(), "itemsize": int(offsets[-1]) + 13}),
    )
    for name in table.dtype.names:
        made[name] = table[name]
    made["scratch"] = 77
    return made


@pytest.mark.parametrize("seed", range(12))
def test_the_layout_of_records_in_memory_does_not_matter(seed: int) -> None:
    """Fields permuted, padded, narrower, with others between them: the same digest."""
    one = example()
    moved = {kind: in_another_layout(getattr(one, kind), seed + n) for n, kind in enumerate(KINDS)}
    assert moved["orders"].dtype != ORDER
    assert ledger_digest(replace(one, **moved), SPEC) == ledger_digest(one, SPEC)
    moved["orders"]["price"][1] += 1
    assert ledger_digest(replace(one, **moved), SPEC) != ledger_digest(one, SPEC)


def test_a_new_field_changes_only_the_runs_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the list, 0 in every record: the digest that the run had before there was such a field."""
    before = ledger_digest(example(), SPEC)
    longer = {**FIELDS, "fills": (*FIELDS["fills"], "leg", "limit_price")}
    monkeypatch.setattr(record, "FIELDS", longer)
    monkeypatch.setattr(record, "PRICES", PRICES | {"limit_price"})
    for name in ("_layout", "_names"):
        monkeypatch.setattr(record, name, getattr(record, name).__wrapped__)  # nothing remembered, nothing left behind
    wide = np.dtype([*FILL.descr, ("leg", "<i8"), ("limit_price", "<f8")])
    fills = np.zeros(3, wide)
    for name in FILL.names or ():
        fills[name] = example().fills[name]
    assert ledger_digest(example(fills=fills), SPEC) == before
    seen = {before}
    for name, value in (("leg", 1), ("limit_price", 2.5), ("limit_price", np.nan)):
        used = fills.copy()
        used[name][1] = value
        seen.add(ledger_digest(example(fills=used), SPEC))
    assert len(seen) == 4


def test_a_column_of_zeros_is_not_the_column_beside_it() -> None:
    """Columns are left out by name: the same bytes under another field are another ledger."""
    plain = example().cash_events
    in_ref, in_sleeve = plain.copy(), plain.copy()
    in_ref["ref"], in_ref["sleeve"] = 1, 0
    in_sleeve["ref"], in_sleeve["sleeve"] = 0, 1
    assert ledger_digest(example(cash_events=in_ref), SPEC) != ledger_digest(example(cash_events=in_sleeve), SPEC)


def test_other_instruments_of_the_market_do_not_matter() -> None:
    """The same records in a market that also holds others: positions differ, ids and digest do not."""
    one = example()
    moved = {0: 1, 2: 3}
    tables: dict[str, Any] = {}
    for name in ("orders", "fills", "cash_events", "trades", "open_trades"):
        table = getattr(one, name).copy()
        table["instrument"] = [moved[position] for position in table["instrument"].tolist()]
        tables[name] = table
    wide = replace(one, instruments=("A", "AAPL", "IBM", "MSFT", "ZZZ"), **tables)
    assert ledger_digest(wide, SPEC) == ledger_digest(one, SPEC)


def test_another_instrument_is_another_ledger() -> None:
    one = example()
    assert ledger_digest(replace(one, instruments=("AAPL", "IBM", "MSFX")), SPEC) != ledger_digest(one, SPEC)


@pytest.mark.parametrize("section", ["orders", "fills", "cash_events", "trades", "open_trades"])
def test_every_field_of_every_record_is_covered(section: str) -> None:
    one = example()
    table = getattr(one, section)
    seen = {ledger_digest(one, SPEC)}
    for row in range(len(table)):
        for name in table.dtype.names:
            if name == "instrument":
                continue
            other = table.copy()
            other[name][row] += 1
            seen.add(ledger_digest(replace(one, **{section: other}), SPEC))
    fields = len(table.dtype.names) - 1
    assert len(seen) == 1 + len(table) * fields


def test_equity_sessions_spec_and_versions_are_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    one = example()
    digests = [ledger_digest(one, SPEC), ledger_digest(one, "cd" * 32)]
    digests.append(ledger_digest(replace(one, equity=one.equity + np.array([0, 0, 1, 0, 0])), SPEC))
    digests.append(ledger_digest(replace(one, session_day=one.session_day + np.int32(1)), SPEC))
    digests.append(ledger_digest(replace(one, cash_micro=99 * MICRO), SPEC))
    digests.append(ledger_digest(replace(one, sleeves=("y",)), SPEC))
    digests.append(ledger_digest(replace(one, orders=one.orders[:2]), SPEC))
    for name in ("SEMANTICS_VERSION", "NUMERICS_PROFILE"):
        with monkeypatch.context() as patch:
            patch.setattr(record, name, "other")
            digests.append(ledger_digest(one, SPEC))
    assert len(set(digests)) == len(digests)


def test_a_record_cannot_slip_into_the_next_section() -> None:
    """A closed and an open trade have one type; which section a record stands in is part of the digest."""
    one = example()
    both = np.concatenate((one.trades, one.open_trades))
    none = one.trades[:0]
    assert ledger_digest(replace(one, trades=both, open_trades=none), SPEC) != ledger_digest(one, SPEC)


def test_one_nan_and_no_negative_zero() -> None:
    def with_price(bits: int) -> Run:
        orders = example().orders.copy()
        orders["price"][0] = np.array([bits], np.uint64).view(np.float64)[0]
        return example(orders=orders)

    def digest(bits: int) -> str:
        return ledger_digest(with_price(bits), SPEC)

    assert digest(0x7FF8000000000000) == digest(0xFFF8000000000001)
    assert digest(0x8000000000000000) == digest(0)
    assert digest(0x7FF8000000000000) != digest(0)


def test_read_only_and_strided_records_are_accepted() -> None:
    one = example()
    doubled = np.repeat(one.fills, 2)[::2]
    doubled.flags.writeable = False
    assert ledger_digest(replace(one, fills=doubled), SPEC) == ledger_digest(one, SPEC)


def test_an_event_of_the_account_has_no_instrument() -> None:
    cash = example().cash_events.copy()
    cash["instrument"][2] = -1
    assert ledger_digest(example(cash_events=cash), SPEC) != ledger_digest(example(), SPEC)


def test_a_run_without_trades_has_a_digest() -> None:
    empty = {name: getattr(example(), name)[:0] for name in ("orders", "fills", "cash_events", "trades", "open_trades")}
    assert len(ledger_digest(example(**empty), SPEC)) == 64


def test_the_stats_digest() -> None:
    vector = measure_run(example(), ann=252.0, rf=0.0)[0]
    packed = b"".join(
        struct.pack("<d", value) if value == value else b"\0\0\0\0\0\0\xf8\x7f" for value in vector.tolist()
    )
    assert stats_digest(vector) == hashlib.sha256(packed).hexdigest()
    assert hashlib.sha256(b"\0\0\0\0\0\0\xf8\x7f" * len(METRIC_NAMES)).hexdigest() == NULL_STATS
    assert stats_digest(np.array([-0.0, -np.nan])) == stats_digest(np.array([0.0, np.nan]))


def test_a_run_is_measured_from_its_books() -> None:
    run = example()
    got = dict(zip(METRIC_NAMES, measure_run(run, ann=252.0, rf=0.0)[0].tolist(), strict=True))
    assert (got["orders"], got["fills"], got["trades"], got["open_trades"]) == (3, 3, 1, 1)
    assert (got["fees_commission"], got["fees_slippage"], got["fees"]) == (3.0, 0.25, 3.25)
    assert got["tim"] == 0.8
    assert got["turnover"] == pytest.approx(113 / (2 * 101.4) * 252 / 5, rel=1e-12)
    assert got["total_return"] == 0.04


def test_fees_agree_with_the_sums_of_the_engine() -> None:
    run = example()
    got = dict(zip(METRIC_NAMES, measure_run(run, ann=252.0, rf=0.0)[0].tolist(), strict=True))
    for line, micro in run.fees_micro.items():
        assert got[f"fees_{line}"] * MICRO == micro


def test_buckets_of_a_run() -> None:
    run = example()
    full, in_sample, out_of_sample = measure_run(run, ann=252.0, rf=0.0, in_sample=(0, 2), out_of_sample=(2, 5))
    assert in_sample is not None
    assert out_of_sample is not None
    assert full.tobytes() == measure_run(run, ann=252.0, rf=0.0)[0].tobytes()
    assert out_of_sample.tobytes() == measure(facts_of(run), [(2, 5)], ann=252.0, rf=0.0, benchmark=None)[0].tobytes()
    trades, opened = METRIC_NAMES.index("trades"), METRIC_NAMES.index("open_trades")
    assert (in_sample[trades], out_of_sample[trades]) == (1.0, 0.0)
    assert (in_sample[opened], out_of_sample[opened]) == (0.0, 1.0)


def test_what_is_kept_of_a_cell() -> None:
    run = example()
    kept = cell_result(run, SPEC, ann=252.0, rf=0.0)
    assert kept.equity_end_micro == 104 * MICRO
    assert kept.vectors[1:] == (None, None)
    assert kept.ledger == ledger_digest(run, SPEC)
    assert kept.stats == stats_digest(kept.vectors[0])
    assert (kept.assumptions, dict(kept.counts)) == (("fixed_universe",), {"lapsed": 1})
    assert dict(cell_result(example(ruin=True), SPEC, ann=252.0, rf=0.0).counts) == {"lapsed": 1, "ruin": 1}


def test_the_stats_digest_covers_the_whole_run_and_not_its_buckets() -> None:
    run = example()
    split = cell_result(run, SPEC, ann=252.0, rf=0.0, in_sample=(0, 2), out_of_sample=(2, 5))
    assert split.stats == cell_result(run, SPEC, ann=252.0, rf=0.0).stats
