"""The sample: real daily bars of five stocks from the package ``bokeh_sampledata``, and their splits.

The bars are raw prices, 2000-03-01 to 2013-03-01 (FB and GOOG from their listing), in the public domain. The package
has no splits: the three in the window are shipped beside this file, each with its source. None is inferred: AAPL's
fall by half on 2000-09-29 is a profit warning. Dividends there are none, and runs on the sample say so.
"""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import pyarrow as pa

from farm.shard.kinds import PRICES
from farm.values.errors import UsageError

SAMPLE_SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
SAMPLE_TZ = "America/New_York"
SPLITS_FILE = Path(__file__).with_name("sample_splits.csv")


def sample_bars() -> pa.Table:
    """Return the bars: symbol, ts (dates), open, high, low, close, volume; UsageError without the package."""
    try:
        from bokeh_sampledata import stocks
    except ImportError as error:
        raise UsageError(
            "the package bokeh_sampledata is not installed, and the sample's bars are in it",
            place="ingest sample",
            hint="pip install bokeh_sampledata, or pip install 'backtest-farm[demo]'",
        ) from error
    parts = []
    for symbol in SAMPLE_SYMBOLS:
        data = getattr(stocks, symbol)
        dates = [datetime.date.fromisoformat(text) for text in data["date"]]
        columns = {"symbol": pa.array([symbol] * len(dates)), "ts": pa.array(dates, pa.date32())}
        columns |= {name: pa.array(data[name], pa.float64()) for name in PRICES}
        parts.append(pa.table(columns | {"volume": pa.array(data["volume"], pa.int64())}))
    return pa.concat_tables(parts)


def sample_splits() -> pa.Table:
    """Return the splits: symbol, ex_date, numerator, denominator, source (text)."""
    with SPLITS_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return pa.table({name: [row[name] for row in rows] for name in rows[0]})
