"""An independent search for ticks: reads a schedule item by item, walks time step by step, asks zoneinfo at each step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

BOUNDS: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
NAMES: Final = {
    **{name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)},  # noqa: SIM905
    **{name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())},  # noqa: SIM905
}


def numbers(text: str, low: int, high: int) -> set[int]:
    return {
        number for number in range(low, high + 1) if any(_fits(number, item, low, high) for item in text.split(","))
    }


def _fits(number: int, item: str, low: int, high: int) -> bool:
    span, _, step = item.partition("/")
    ends = [NAMES.get(end.lower(), end) for end in span.replace("?", "*").split("-")]
    if ends[0] == "*":
        first, last = low, high
    else:
        first = int(ends[0])
        last = int(ends[-1]) if len(ends) > 1 or not step else high
    return first <= number <= last and (number - first) % int(step or 1) == 0


def starred(text: str) -> bool:
    return any(item in ("*", "?", "*/1", "?/1") for item in text.split(","))


class Brute:
    def __init__(self, spec: str, zone: tzinfo) -> None:
        texts = ("0 " + spec).split()[-6:]
        self.zone = zone
        self.sets = [numbers(text, *bounds) for text, bounds in zip(texts, BOUNDS, strict=True)]
        self.either = not (starred(texts[3]) or starred(texts[5]))
        self.seconds = 60 if self.sets[0] == {0} else 1

    def day_matches(self, local: datetime) -> bool:
        days = local.day in self.sets[3], local.isoweekday() % 7 in self.sets[5]
        return local.month in self.sets[4] and (any(days) if self.either else all(days))

    def matches(self, instant: datetime) -> bool:
        local = instant.astimezone(self.zone)
        time = local.second in self.sets[0] and local.minute in self.sets[1] and local.hour in self.sets[2]
        return time and self.day_matches(local)

    def after(self, instant: datetime, days: int) -> Iterator[datetime]:
        """Every tick after ``instant`` in so many days, by looking at every minute, or at every second."""
        # Before 1972 offsets have seconds, so that a whole minute there is none in UTC.
        seconds, days = (1, min(days, 1)) if instant.year < 1973 else (self.seconds, days)
        end = instant + timedelta(days=days)
        at = instant.astimezone(UTC).replace(microsecond=0, second=0 if seconds == 60 else instant.second)
        while at <= end:
            noon = at.replace(hour=12, minute=0, second=0)
            around = (noon + timedelta(days=day) for day in (-1, 0, 1))
            if at.hour == at.minute == at.second == 0 and not any(
                self.day_matches(day.astimezone(self.zone) + timedelta(hours=hours))
                for day in around
                for hours in (-14, 0, 14)
            ):
                at += timedelta(days=1)
                continue
            local = at.astimezone(self.zone)
            if local.second == seconds - 1 == 0 and not (local.minute in self.sets[1] and local.hour in self.sets[2]):
                at += timedelta(seconds=1 if at.second else 60)  # no clock changes within a minute
                continue
            if at > instant and self.matches(at):
                yield at
            at += timedelta(seconds=seconds)
