"""Ids of the entries of Redis' streams, `MILLISECONDS-COUNT`: which is later, and which would be next."""


def order(entry_id: str) -> tuple[int, int]:
    """What ids are compared by."""
    millis, _, count = entry_id.partition("-")
    return int(millis), int(count or 0)


def after(entry_id: str) -> str:
    """The lowest id behind this one."""
    millis, count = order(entry_id)
    return f"{millis}-{count + 1}"
