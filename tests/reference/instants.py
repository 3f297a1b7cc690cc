"""The instants of a tape, by definition."""

from collections.abc import Sequence


def merge_instants(
    actions: Sequence[int], bars: Sequence[int], payments: Sequence[int], openings: Sequence[int],
    *sessions: Sequence[tuple[int, int]],
) -> list[dict[str, int]]:  # fmt: skip
    """The distinct times in order, how many events of each kind are not later, and whose sessions (open, close) close
    or are under way."""
    closes = [[close for _, close in each] for each in sessions]

    def until(times: Sequence[int], now: int) -> int:
        return sum(time <= now for time in times)

    return [
        {
            "ts": now,
            "session": closes[0].index(now) if now in closes[0] else -1,
            "closed": sum(1 << k for k, times in enumerate(closes) if now in times),
            "under_way": sum(
                1 << k for k, each in enumerate(sessions) if any(opened < now < close for opened, close in each)
            ),
            "act_end": until(actions, now),
            "bar_end": until(bars, now),
            "pay_end": until(payments, now),
            "open_end": until(openings, now),
        }
        for now in sorted({time for times in (actions, bars, payments, openings, *closes) for time in times})
    ]
