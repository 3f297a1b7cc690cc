"""The verdict on one row group, rule by rule."""

from collections.abc import Mapping, Sequence


def decide(
    members: Mapping[str, tuple[int, int]], known: Sequence[bool], wanted: Mapping[str, int], last_day: int
) -> str:
    """Return the name of the verdict on a group whose symbols have rows from a first to a last day.

    known: whether the group's days, its first and last symbol, and its members are; wanted: symbol -> first day.
    """
    if not wanted:
        return "PRUNE_MEMBERSHIP"
    days_known, symbols_known, members_known = known
    first, last = min(days[0] for days in members.values()), max(days[1] for days in members.values())
    if days_known and (last < min(wanted.values()) or first > last_day):
        return "PRUNE_TIME"
    if symbols_known and not any(min(members) <= symbol <= max(members) for symbol in wanted):
        return "PRUNE_RANGE"
    if not members_known:
        return "KEEP_UNKNOWN"
    if not any(symbol in members and members[symbol][1] >= since and members[symbol][0] <= last_day
               for symbol, since in wanted.items()):  # fmt: skip
        return "PRUNE_MEMBERSHIP"
    return "KEEP" if days_known and symbols_known else "KEEP_UNKNOWN"
