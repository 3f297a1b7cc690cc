"""The sums of ``kernels/totals.py`` in plain Python."""

from collections.abc import Sequence

Ints = Sequence[int]


def stretch_totals(
    start: int,
    stop: int,
    decision_bars: Ints,
    market_bars: Ints,
    order_session: Ints,
    fill_session: Ints,
    fill_value: Ints,
    fee_session: Ints,
    fee_line: Ints,
    fee_micro: Ints,
    open_session: Ints,
) -> list[int]:
    """Return the totals of the stretch [start, stop) of sessions in the kernel's order."""

    def inside(sessions: Ints) -> list[int]:
        return [i for i, session in enumerate(sessions) if start <= session < stop]

    fees = inside(fee_session)
    return [
        len(inside(order_session)),
        len(inside(fill_session)),
        len(inside(open_session)),
        sum(decision_bars[start:stop]),
        sum(market_bars[start:stop]),
        sum(fill_value[i] for i in inside(fill_session)),
        *(sum(fee_micro[i] for i in fees if fee_line[i] == line) for line in range(4)),
    ]
