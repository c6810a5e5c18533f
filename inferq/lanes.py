"""Lanes: the three priority classes, and how callers may name them."""

from enum import StrEnum

from inferq import errors


class Lane(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


_ORDER = tuple(Lane)
_DIGITS = tuple("0123456789")
_TIERS = {
    "flex": Lane.LOW,
    "auto": Lane.MEDIUM,
    "default": Lane.MEDIUM,
    "scale": Lane.MEDIUM,
    "priority": Lane.HIGH,
    "fast": Lane.HIGH,
    "ultrafast": Lane.HIGH,
}


def parse_lane(value: object, *, param: str = "priority") -> Lane:
    """The lane for a name, or for a number from 0 (low) to 9 (high): 0-3 low, 4-6 medium, 7-9 high."""
    if isinstance(value, str) and value.lower() in Lane.__members__.values():
        return Lane(value.lower())
    if isinstance(value, str) and value.strip() in _DIGITS:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9:
        return Lane.LOW if value <= 3 else Lane.MEDIUM if value <= 6 else Lane.HIGH
    raise errors.InvalidRequest(
        f"{param} must be high, medium, low or a number from 0 to 9, not {str(value)[:40]!r}", param=param
    )


def bounded(lane: Lane, highest: Lane) -> Lane:
    """The lane, or `highest` where it is above that."""
    return max(lane, highest, key=_ORDER.index)


def lane_of_tier(tier: object) -> Lane | None:
    """The lane that an OpenAI `service_tier` asks for; None when it asks for nothing we know."""
    return _TIERS.get(tier) if isinstance(tier, str) else None
