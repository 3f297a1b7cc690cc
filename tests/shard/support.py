"""What the tests of ingest share: small files, small tables, and a look at what became of them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from farm.columns.cache import ColumnCache
from farm.shard.dataset import Dataset
from farm.shard.ingest import IngestSummary, ingest_file
from farm.shard.reader import Rows, read_rows
from farm.shard.snapshot import read_head
from farm.store.base import Store
from tests.shard.generators import day

HEADER = "day,ticker,o,h,l,c,v"
MAP = {"ts": "day", "symbol": "ticker", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
GOOD = ["2020-01-02,AAA,10,11,9,10.5,100", "2020-01-03,AAA,10.5,12,10,11.25,200", "2020-01-06,AAA,11,11,11,11,0"]
NEW_YORK = "America/New_York"


def bars(folder: Path, lines: list[str], header: str = HEADER, name: str = "bars.csv") -> str:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


def put(store: Store, url: str, kind: str = "stock_daily", **options: Any) -> IngestSummary:
    flags: dict[str, Any] = {"mapping": MAP, "tz": NEW_YORK, "stamp": "start"} if kind == "stock_daily" else {}
    return ingest_file(store, "main", url, kind, **(flags | options))


def rows_of(store: Store, symbol: str, kind: str = "stock_daily", columns: Any = ("close", "volume")) -> Rows:
    dataset = Dataset(store, read_head(store, "main"))
    return read_rows(dataset, ColumnCache(0), kind, symbol, day("1990-01-01"), day("2030-01-01"), columns)


def listing(store: Store) -> list[tuple[str, int]]:
    return [(meta.key, meta.size) for meta in store.list("")]


def one_bar() -> dict[str, Any]:
    return {"open": [10.0], "high": [11.0], "low": [9.0], "close": [10.25], "volume": [7]}


def table_file(folder: Path, text: str, name: str = "rows.csv") -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return str(path)
