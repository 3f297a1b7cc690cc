"""The arithmetic of money: scalars in, scalars out. Events, lanes and any other path call these, and nothing else.

Each amount is one product chain in the order written here, rounded once, half to even, to micro-units; all that follows
is exact addition. Lots come as float64 holding whole numbers. Strict float64: + - x / rint floor and comparisons.
Source: domain.md 2.2, 2.3, 3.3 to 3.6.
"""

import numpy as np

from farm.kernels.jit import helper, inlined
from farm.kernels.records import ABS, LINEAR, PCT, REG_T, R

INITIAL_LONG_SHORT = 0.5
"""Reg T: share of an opening's value that must be there at the start, long or short (a short's proceeds stay too)."""
MAINTENANCE_LONG = 0.25
MAINTENANCE_SHORT = 0.30
"""Reg T: share of a position's value that must be there at each session close."""


@inlined
def whole(x: float) -> float:
    """Floor, but a quotient that misses a whole number by rounding alone is that number: 604 at 6.04 are 100 shares."""
    near = np.rint(x)
    return near if near - x <= x * 2.0**-49 else np.floor(x)


@inlined
def value(price: float, lots: float, lot_micro: float, multiplier: float) -> float:
    """Value in micro-units, rint(price x qty x multiplier x 1e6), signed as ``lots``."""
    qty = (lots * lot_micro) / 1e6
    return np.rint(((price * qty) * multiplier) * 1e6)


@inlined
def commission(
    price: float,
    lots: float,
    lot_micro: float,
    multiplier: float,
    bps: float,
    per_share: float,
    per_order: float,
    least: float,
) -> float:
    """Commission of one order of ``lots`` > 0: the sum of its parts, rounded once, and at least the least."""
    qty = (lots * lot_micro) / 1e6
    worth = (price * qty) * multiplier
    fee = np.rint(((worth * bps + qty * per_share) + per_order) * 1e6)
    return max(fee, least)


@inlined
def shared_fee(fee: float, part: float, lots: float) -> float:
    """The share of a commission that ``part`` of its ``lots`` bear."""
    return np.rint((fee * part) / lots)


@inlined
def need(rules: int, worth: float, fee: float, max_gross: float) -> float:
    """What an opening takes from what is available: cash, initial margin, or gross room."""
    if rules == REG_T:
        return INITIAL_LONG_SHORT * worth + fee
    if rules == LINEAR:
        return worth + np.rint(max_gross * fee)
    return worth + fee


@inlined
def room(rules: int, cash: float, equity: float, gross: float, max_gross: float) -> float:
    """What openings may take now."""
    if rules == REG_T:
        return equity - INITIAL_LONG_SHORT * gross
    if rules == LINEAR:
        return max_gross * equity - gross
    return cash


@inlined
def maintenance(worth: float) -> float:
    """Margin that a position of this signed value needs at a session close."""
    return np.rint((MAINTENANCE_LONG if worth > 0.0 else MAINTENANCE_SHORT) * abs(worth))


@inlined
def slipped(ref: float, side: float, up: float, down: float) -> float:
    """What a market order pays (side > 0) or gets at the print ``ref``."""
    return ref * (up if side > 0.0 else down)


@inlined
def is_within(side: float, price: float, limit: float) -> bool:
    """Whether a print is at the limit of an order or better: a limit order fills at such an opening."""
    return side * price <= side * limit


@inlined
def is_beyond(side: float, low: float, high: float, limit: float) -> bool:
    """Whether a bar goes through the limit of an order: touched is not filled."""
    return low < limit if side > 0.0 else high > limit


@inlined
def on_grid(x: float) -> float:
    """The decimal that a computed order price stands for (domain.md 3.4): rint(x 10**g) / 10**g, which has the bits of
    a print at that price. g is 12, lowered until five bits are left for the roundings of the chain behind ``x``."""
    power = 1e12
    while abs(x) * power >= 2.0**48 and power > 1.0:
        power /= 10.0  # exact, down from 1e22
    return np.rint(x * power) / power


@inlined
def away(price: float, part: float) -> float:
    """The order price that lies a signed fraction away from a price."""
    return on_grid(price * (1.0 + part))


@inlined
def beside(price: float, distance: float) -> float:
    """The order price that lies a signed distance beside a price."""
    return on_grid(price + distance)


@inlined
def guard_level(unit: int, sign: float, price: float, v: float, risk: float) -> float:
    """Level of a stop or target from the entry price: ``sign`` +1 above it, -1 below. ``risk``: what R multiplies."""
    if unit == PCT:
        return away(price, sign * v)
    if unit == R:
        return beside(price, sign * (v * risk))
    if unit == ABS:
        return beside(price, sign * v)
    return v


@inlined
def trail_level(unit: int, side: float, peak: float, v: float) -> float:
    """Level of a trail that guards a position of this side."""
    return away(peak, -side * v) if unit == PCT else beside(peak, -side * v)


@helper
def common(x: float, y: float) -> float:
    """The greatest common divisor of two whole numbers above 0."""
    while y > 0.0:
        x, y = y, x % y
    return x


@helper
def compounded(num: float, den: float, more: float, less: float) -> tuple[float, float]:
    """The ratio of two splits, num for den and more for less, in lowest terms: exact while these are below 2**53."""
    a, c = common(num, less), common(more, den)
    return (num / a) * (more / c), (den / c) * (less / a)


@inlined
def restated_price(price: float, num: float, den: float) -> float:
    """A price (or a distance) on the basis after a split of num new shares for den old ones."""
    return (price * den) / num


@inlined
def restated_level(level: float, num: float, den: float) -> float:
    """An order price on that basis."""
    return on_grid(restated_price(level, num, den))


@inlined
def average(price: float, lots: float, other: float, more: float) -> float:
    """Average price of ``lots`` at one price and ``more`` at another."""
    return (price * lots + other * more) / (lots + more)


@inlined
def restated_lots(lots: float, num: float, den: float) -> float:
    """floor(lots x num / den) for integers; the float quotient may have been rounded up to the next integer."""
    product = lots * num
    floor = np.floor(product / den)
    return floor - 1.0 if floor * den > product else floor


@inlined
def cash_of_rest(price: float, rest: float, den: float, lot_micro: float, multiplier: float) -> float:
    """What is paid for the fraction of a lot that a split leaves, ``rest`` / den lots, at the restated price."""
    qty = (rest * lot_micro) / (den * 1e6)
    return np.rint(((price * qty) * multiplier) * 1e6)


@inlined
def lots_for(budget: float, price: float, multiplier: float, lots_up: float, lots_down: float) -> float:
    """Whole lots that ``budget`` (currency) buys at ``price``."""
    return max(whole(((budget / (price * multiplier)) * lots_up) / lots_down), 0.0)


@helper
def lots_with_fees(
    lots: float,
    held: float,
    weight: float,
    kept: float,
    among: float,
    price: float,
    lot_micro: float,
    multiplier: float,
    bps: float,
    per_share: float,
    per_order: float,
    least: float,
) -> float:
    """The largest q up to ``lots`` with q x price <= weight x (kept - fee(held + q)) / among.

    A bisection, since the fee has a minimum. kept, price in currency.
    """
    low, high = 0.0, lots + 1.0
    while high - low > 1.0:
        middle = np.floor((low + high) / 2.0)
        cost = (price * ((middle * lot_micro) / 1e6)) * multiplier
        fee = commission(price, held + middle, lot_micro, multiplier, bps, per_share, per_order, least)
        limit = (weight * (kept - fee / 1e6)) / among
        if np.rint(cost * 1e6) <= np.rint(limit * 1e6):
            low = middle
        else:
            high = middle
    return low
