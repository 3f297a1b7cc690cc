"""The words of the grammar: built now, and known but not built yet.

Rules: a word of domain.md 2.1 that is missing here is unknown to users too; a word that is listed as ``NOT_BUILT`` is
refused by name, with its place, and never ignored. Whoever builds a word moves it to the built list.
"""

from __future__ import annotations

from collections.abc import Mapping

from farm.spec.fields import FIELDS
from farm.values.indicators import INDICATORS

SPEC_VERSION = 1

TOP = ("spec", "name", "note", "strategy", "run", "study")

STRATEGY = ("params", "constraints", "let", "universes", "sleeves")
UNIVERSE = ("id", "tickers")
UNIVERSE_NOT_BUILT = ("pool", "where", "limit", "by", "refresh")

SLEEVE_KINDS = ("rules",)
SLEEVE_KINDS_NOT_BUILT = ("tree", "pair", "options")
RULES = (
    "id", "kind", "alloc", "universe", "side", "enter", "exit", "enter_short", "exit_short", "size", "stops",
    "max_positions", "prefer", "cooldown_bars", "order", "add",
)  # fmt: skip
RULES_NOT_BUILT = ("exit_order", "max_entries")
ADD = ("max", "when", "size")
LEVEL_FROM = ("entry", "last_fill")
SLEEVE_OF_OTHER_KINDS = (
    "rebalance", "root", "legs", "underlying", "when", "qty", "max_open", "filters",
)  # fmt: skip
SIDES = ("long", "short", "both")

SIZES: Mapping[str, tuple[str, ...]] = {
    "qty": ("v",), "notional": ("v",), "pct_equity": ("v",), "equal": (),
}  # fmt: skip
SIZES_NOT_BUILT = ("inverse_vol", "target_vol", "kelly", "risk", "contracts", "max_loss_pct")
SIZE = ("mode", "v")
SIZE_NOT_BUILT = ("n", "cap", "start")

ORDER_TYPES = ("market", "limit")
ORDER_TYPES_NOT_BUILT = ("stop", "stop_limit", "moo", "moc", "next_close", "book_now")
ORDER = ("type", "limit", "ttl")
ORDER_NOT_BUILT = ("stop",)

STOP_UNITS: Mapping[str, tuple[str, ...]] = {
    "stop": ("pct", "abs", "level"),
    "target": ("pct", "abs", "r", "level"),
    "trail": ("pct", "abs"),
    "time": ("bars",),
}
STOPS_NOT_BUILT = ("session_end",)
STOP = ("type", "pct", "abs", "r", "level", "bars", "from")
STOP_NOT_BUILT = ("atr_k", "n")

FIELDS_BUILT = tuple(FIELDS)
FIELDS_NOT_BUILT = ("dollar_volume", "bid", "ask", "iv")
INDICATORS_BUILT = tuple(INDICATORS)
INDICATORS_NOT_BUILT = (
    "wma", "dema", "tema", "macd", "bbands", "atr", "adx", "stoch", "cci", "willr", "mfi", "obv", "mom", "var",
    "zscore", "pctrank", "linreg_slope", "corr", "beta", "vwap", "realized_vol", "drawdown", "cumret",
)  # fmt: skip
INDICATOR = ("i", "n", "of", "sym")
INDICATOR_NOT_BUILT = ("vs", "tf", "out", "window", "flat", "on", "fast", "slow", "signal", "k", "d")
FIELD = ("f", "sym")
FIELD_NOT_BUILT = ("tf",)

ARITY: Mapping[str, tuple[int, int | None]] = {
    "add": (2, None), "sub": (2, 2), "mul": (2, None), "div": (2, 2), "neg": (1, 1), "abs": (1, 1),
    "min": (2, None), "max": (2, None), "lag": (1, 1), "diff": (1, 1), "clip": (3, 3), "if": (3, 3),
}  # fmt: skip
"""Operation -> least and most parts (None: any number)."""
OPS_NOT_BUILT = ("log", "exp")
OP = ("op", "a", "n")
NUMERIC_HEADS = ("f", "i", "op")
NUMERIC_HEADS_NOT_BUILT = ("fund", "econ", "index", "cs", "st", "scan")

COMPARISONS = ("gt", "ge", "lt", "le")
CROSSINGS = ("cross_up", "cross_dn")
TRUTH_HEADS = (*COMPARISONS, "between", *CROSSINGS, "all", "any", "not", "for", "within", "dow", "month", "date")
TRUTH_HEADS_NOT_BUILT = ("time", "nth_session", "session", "earn")

RUN = (
    "dataset", "start", "end", "bar", "calendar", "session", "cash", "ccy", "account", "max_gross", "lot", "costs",
    "exec", "warmup", "benchmark", "rf", "ann",
)  # fmt: skip
ACCOUNTS = ("cash", "reg_t", "linear")
LOTS = ("whole", "fractional")
COSTS = ("bps", "per_share", "per_order", "min", "per_contract", "exercise", "borrow_apr", "cash_apr", "margin_apr")
COSTS_ZERO = ("per_contract", "exercise", "borrow_apr", "cash_apr", "margin_apr")
"""Cost lines that exist, at 0, until what they price is built."""
COSTS_NOT_BUILT = ("max_pct", "preset")
EXEC = ("fill", "slip_bps", "reserve")
EXEC_NOT_BUILT = (
    "cross", "ttl", "max_quote_age", "latency", "max_participation", "moc_lead", "limit", "touch_fills",
)  # fmt: skip
FILLS = ("next_open",)
FILLS_NOT_BUILT = (
    "next_quote", "this_close", "this_close*", "moc", "next_close", "limit", "book_now",
)  # fmt: skip

STUDY = ("each", "search", "split", "objective", "seed", "prune", "metrics", "proof")
STUDY_NOT_BUILT = ("require",)
PROOFS = ("all", "winners")
SEARCHES = ("grid",)
SEARCHES_NOT_BUILT = ("random", "tpe", "ladder")
SPLITS = ("chronological",)
SPLITS_NOT_BUILT = ("even_odd_month", "walk_forward")
SPLIT = ("mode", "is", "embargo")
OBJECTIVE = ("max", "min", "on", "over")
OVERS = ("median", "mean", "min", "max")
