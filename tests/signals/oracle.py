"""A second evaluator, for tests: expressions of one instrument judged bar by bar in plain Python.

It follows the written rules (domain.md 2.2, 2.4, 2.5, 3.3) over spelled-out documents and lists of Python numbers, with
None for unknown; it shares no code with ``farm.signals.evaluate``, its kernels or its store.
"""

from __future__ import annotations

import datetime
import itertools
import math
from fractions import Fraction
from typing import Any

from farm.market.panel import InstrumentSeries
from farm.values.units import date_of

Number = float | None
Truth = bool | None
EXPONENTIAL = {"ema": lambda n: 2 / (n + 1), "rsi": lambda n: 1 / n}


class Oracle:
    """Values of expressions for the bars from ``need`` on. ``warmup`` is the run's, as written."""

    def __init__(self, bars: InstrumentSeries, start_day: int, warmup: str) -> None:
        self.bars = bars
        self.days = [int(day) for day in bars.day]
        self.n = len(self.days)
        self.start = sum(day < start_day for day in self.days)
        self.start_day = start_day
        self.warmup = warmup

    # Numbers come with (power, basis): how to get from the adjusted basis to today's.

    def scale(self, doc: Any) -> tuple[int, str]:
        if not isinstance(doc, dict):
            return 0, ""
        if "f" in doc:
            return {"volume": (-1, "split"), "close_raw": (0, ""), "close_tr": (1, "tr")}.get(doc["f"], (1, "split"))
        if "i" in doc:
            return self.scale(doc["of"]) if doc["i"] in ("sma", "ema", "stddev", "max", "min") else (0, "")
        scales = [self.scale(part) for part in self.parts(doc)]
        if len({basis for power, basis in scales if power}) > 1:
            return 0, ""
        basis = next((basis for power, basis in scales if power), "")
        if doc["op"] in ("mul", "div"):
            power = scales[0][0] - scales[1][0] if doc["op"] == "div" else sum(power for power, _ in scales)
            return (power, basis) if power else (0, "")
        return scales[0] if len(set(scales)) == 1 else (0, "")

    @staticmethod
    def parts(doc: dict[str, Any]) -> list[Any]:
        return doc["a"][1:] if doc["op"] == "if" else doc["a"]

    def agrees(self, docs: list[Any], is_product: bool) -> bool:
        scales = [self.scale(doc) for doc in docs]
        one_basis = len({basis for power, basis in scales if power}) <= 1
        return one_basis and (is_product or len({power for power, _ in scales}) <= 1)

    def today(self, doc: Any, need: int) -> list[Number]:
        if isinstance(doc, dict) and "f" in doc:
            return [float(value) for value in self.raw(doc["f"])[need:]]
        power, basis = self.scale(doc)
        values = self.numeric(doc, need)
        for _ in range(abs(power)):
            factor = self.factor(basis)[need:]
            values = [
                None if value is None else value / by if power > 0 else value * by
                for value, by in zip(values, factor, strict=True)
            ]
        return values

    def together(self, docs: list[Any], need: int, is_product: bool = False) -> list[list[Number]]:
        read = self.numeric if self.agrees(docs, is_product) else self.today
        return [read(doc, need) for doc in docs]

    def raw(self, field: str) -> Any:
        return getattr(self.bars, {"close_raw": "close", "close_tr": "close"}.get(field, field))

    def factor(self, basis: str) -> list[float]:
        return [float(x) for x in (self.bars.factor_tr if basis == "tr" else self.bars.factor)]

    def numeric(self, doc: Any, need: int) -> list[Number]:
        if not isinstance(doc, dict):
            return [float(doc)] * (self.n - need)
        if "f" in doc:
            if doc["f"] == "close_tr":
                return [float(x) * f for x, f in zip(self.raw("close_tr"), self.factor("tr"), strict=True)][need:]
            return [float(value) for value in self.exact(doc["f"])][need:]
        if "i" in doc:
            return self.indicator(doc, need)
        return self.operation(doc, need)

    def operation(self, doc: dict[str, Any], need: int) -> list[Number]:
        op = doc["op"]
        if op in ("lag", "diff"):
            old_from = max(0, need - doc["n"])
            values = self.numeric(doc["a"][0], old_from)
            found: list[Number] = []
            for t in range(need, self.n):
                old = values[t - doc["n"] - old_from] if t - doc["n"] >= old_from else None
                new = values[t - old_from]
                found.append(old if op == "lag" else None if old is None or new is None else new - old)
            return found
        columns = self.together(self.parts(doc), need, op in ("mul", "div"))
        if op == "if":
            condition = self.truth(doc["a"][0], need)
            return [
                None if truth is None else (then if truth else other)
                for truth, then, other in zip(condition, *columns, strict=True)
            ]
        return [self.combine(op, row) for row in zip(*columns, strict=True)]

    @staticmethod
    def combine(op: str, row: tuple[Number, ...]) -> Number:
        if any(value is None for value in row):
            return None
        first, *rest = (float(value) for value in row if value is not None)
        if op in ("neg", "abs"):
            return -first if op == "neg" else abs(first)
        if op == "clip":
            return min(max(first, rest[0]), rest[1])
        for value in rest:
            if op == "div" and value == 0:
                return None
            first = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
                     "div": lambda a, b: a / b, "min": min, "max": max}[op](first, value)  # fmt: skip
        return first if math.isfinite(first) else None

    def indicator(self, doc: dict[str, Any], need: int) -> list[Number]:
        name, n = doc["i"], doc["n"]
        begin = self.anchor(name, n, need) if name in EXPONENTIAL else max(0, need - n + (name in WINDOWS_OF_VALUES))
        values = self.numeric(doc["of"], begin)
        known = [t for t, value in enumerate(values) if value is not None]
        series = [value for value in values if value is not None]
        on_grid = self.grid(doc["of"], begin) if name == "sma" else None
        found: dict[int, Number] = {}
        for k, t in enumerate(known):
            found[begin + t] = self.at(name, n, series, k, on_grid)
        return [found.get(t) for t in range(need, self.n)]

    def at(self, name: str, n: int, x: list[float], k: int, grid: list[Fraction] | None) -> Number:
        if k < (n - 1 if name in WINDOWS_OF_VALUES else n):
            return None
        window = x[k + 1 - n : k + 1]
        if name == "sma":
            return float(sum(grid[k + 1 - n : k + 1], Fraction(0)) / n) if grid else added(window) / n
        if name == "max":
            return max(window)
        if name == "min":
            return min(window)
        if name in ("roc", "ret"):
            old = x[k - n]
            return None if old == 0 else (x[k] / old - 1) * (100 if name == "roc" else 1)
        if name == "stddev":
            away = [value - window[0] for value in window]
            centre = added(away) / n
            return math.sqrt(added([(value - centre) * (value - centre) for value in away]) / n)
        return exponential(name, n, x[: k + 1])

    def grid(self, of: Any, begin: int) -> list[Fraction] | None:
        """Exact adjusted values of a bar column."""
        if not (isinstance(of, dict) and "f" in of) or of["f"] == "close_tr":
            return None
        return self.exact(of["f"])[begin:]

    def exact(self, field: str) -> list[Fraction]:
        """The printed values in the shares of the run, as fractions."""
        scale = 0 if field == "volume" else self.bars.price_scale
        found = []
        for value, num, den in zip(self.raw(field), self.bars.factor_num, self.bars.factor_den, strict=True):
            by = Fraction(int(num), int(den)) if field != "close_raw" else Fraction(1)
            printed = Fraction(round(float(value) * 10**scale), 10**scale)
            found.append(printed / by if field == "volume" else printed * by)
        return found

    def anchor(self, name: str, n: int, need: int) -> int:
        if self.warmup == "settle":
            alpha = EXPONENTIAL[name](n)
            settle = 0 if alpha >= 1 else math.ceil(53 * math.log(2) / -math.log(1 - alpha))
            begin = min(max(0, need - settle), self.n - 1)
            month = date_of(self.days[begin]).replace(day=1)
            return sum(date_of(day) < month for day in self.days)
        if self.warmup == "none":
            return self.start
        count = int("".join(filter(str.isdigit, self.warmup)))
        if self.warmup.endswith("bar"):
            return max(0, self.start - count)
        first = date_of(self.start_day)
        if self.warmup.endswith("d"):
            first -= datetime.timedelta(days=count)
        else:
            month = first.year * 12 + first.month - 1 - count
            first = first.replace(year=month // 12, month=month % 12 + 1, day=min(first.day, 28))
        return sum(date_of(day) < first for day in self.days)

    def truth(self, doc: Any, need: int) -> list[Truth]:
        if isinstance(doc, bool):
            return [doc] * (self.n - need)
        head, body = next(iter(doc.items()))
        if head == "not":
            return [None if value is None else not value for value in self.truth(body, need)]
        if head in ("all", "any"):
            law = every if head == "all" else some
            return [law(list(row)) for row in zip(*(self.truth(part, need) for part in body), strict=True)]
        if head in ("for", "within"):
            begin = max(0, need - body[0] + 1)
            values = self.truth(body[1], begin)
            law = every if head == "for" else some
            missing: list[Truth] = [None] * body[0]
            padded = missing + values
            shift = body[0] - begin
            return [law(padded[t + shift - body[0] + 1 : t + shift + 1]) for t in range(need, self.n)]
        if head == "dow":
            return [date_of(day).isoweekday() in body for day in self.days[need:]]
        if head in ("cross_up", "cross_dn"):
            begin = max(0, need - 1)
            a, b = self.together(body if head == "cross_up" else body[::-1], begin)
            above = [None if x is None or y is None else x > y for x, y in zip(a, b, strict=True)]
            found: list[Truth] = []
            for t in range(need, self.n):
                now, before = above[t - begin], above[t - 1 - begin] if t > begin else None
                found.append(None if now is None or before is None else now and not before)
            return found
        columns = self.together(body, need)
        return [judge(head, row) for row in zip(*columns, strict=True)]


WINDOWS_OF_VALUES = ("sma", "ema", "stddev", "max", "min")


def added(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def exponential(name: str, n: int, x: list[float]) -> float:
    if name == "ema":
        e, k = added(x[:n]) / n, 2.0 / (n + 1)
        for value in x[n:]:
            e = (value - e) * k + e
        return e
    ups = [max(b - a, 0.0) for a, b in itertools.pairwise(x)]
    downs = [max(a - b, 0.0) for a, b in itertools.pairwise(x)]
    gain, loss = added(ups[:n]) / n, added(downs[:n]) / n
    for up, down in zip(ups[n:], downs[n:], strict=True):
        gain, loss = (gain * (n - 1) + up) / n, (loss * (n - 1) + down) / n
    return 100.0 * (gain / (gain + loss)) if gain + loss else 0.0


def every(truths: list[Truth]) -> Truth:
    return False if False in truths else None if None in truths else True


def some(truths: list[Truth]) -> Truth:
    return True if True in truths else None if None in truths else False


def judge(head: str, row: tuple[Number, ...]) -> Truth:
    def compare(relation: str, x: Number, y: Number) -> Truth:
        if x is None or y is None:
            return None
        return {"gt": x > y, "ge": x >= y, "lt": x < y, "le": x <= y}[relation]

    if head == "between":
        return every([compare("ge", row[0], row[1]), compare("le", row[0], row[2])])
    return compare(head, row[0], row[1])
