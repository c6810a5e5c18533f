"""Times that come again: a cron expression in a time zone. Pure.

Five fields (minute, hour, day of month, month, day of week), or six with seconds before them, or `@daily` and the like.
Where clocks go forward, what falls into the gap runs right after it; where they go back, what names an hour runs once.
"""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from inferq import errors

LONGEST = 200
"""Characters of an expression."""

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Recurrence:
    """`cron` as its user wrote it, `timezone` a name of the IANA's database."""

    cron: str
    timezone: str

    def check(self) -> None:
        """Raises InvalidRequest for an expression or a zone that cannot be read, or times that never come."""
        if self.after(datetime.now(_zone(self.timezone)).timestamp()) is None:
            raise errors.InvalidRequest(f"Invalid 'cron': {self.cron!r} never comes.", param="cron")

    def after(self, moment: float) -> float | None:
        """The first time after `moment`, both in Unix seconds; None when there is none. Raises InvalidRequest."""
        start = datetime.fromtimestamp(moment, _zone(self.timezone))
        # An hour that comes twice begins again behind `moment`, with times that were before it.
        for found in _parsed(self.cron, start):
            if found.timestamp() > moment:
                return found.timestamp()
        return None

    def next_times(self, moment: float, count: int = 3) -> list[float]:
        """The next times after `moment`."""
        found: list[float] = []
        while len(found) < count and (moment := self.after(moment) or 0.0):
            found.append(moment)
        return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        pass
    raise errors.InvalidRequest(
        f"Invalid 'timezone': {name[:LONGEST]!r} is not known; write it like Europe/Berlin, or UTC.",
        param="timezone",
    )


def _parsed(cron: str, start: datetime) -> CronSim:
    expression = _NAMED.get(cron.strip().lower(), cron)
    try:
        if len(expression) > LONGEST:
            raise CronSimError("it is too long")
        return CronSim(expression, start)
    except CronSimError as error:
        raise errors.InvalidRequest(
            f"Invalid 'cron': {cron[:LONGEST]!r} cannot be read ({error}); write five fields like '30 6 * * MON-FRI', "
            f"six with seconds first, or one of {', '.join(_NAMED)}.",
            param="cron",
        ) from None
