"""A schedule: when to tick, as robfig/cron v3 would. Pure; knows no clock.

The rule, whatever the timezone does: a tick is every instant at which a clock on a wall there shows a time that the
schedule names. A time that a spring gap leaves out is not shown, and does not fire; one that an autumn fold shows
twice fires twice.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from wellhead.durations import go_duration
from wellhead.errors import ConfigError, Problem

from .fields import FIELDS, short
from .wall import DAY, Every, WallTimes, days_of, never
from .zones import EPOCH, UTC_ZONE, Zone, zone

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECOND: Final = timedelta(seconds=1)
_LAST: Final = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH) // _SECOND
_FIRST: Final = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // _SECOND
_LONGEST_TEXT: Final = 4096  # every number of every field written out makes 600
_LONGEST_EVERY: Final = timedelta(microseconds=2**63 // 1000)  # Go's time.Duration holds no more
_FIELD: Final = re.compile(
    "[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)  # Go's unicode.IsSpace
_PREFIX: Final = re.compile(r"(?:CRON_)?TZ=")
_DESCRIPTORS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True, repr=False)
class Schedule:
    """A valid schedule in its timezone, that fires at least once. Made by `parse`; equal when text and timezone are.

    Instants go in with any timezone and come out in UTC, on whole seconds. A naive one raises ValueError.
    """

    text: str
    """``CRON_TZ=Europe/Paris 0 3 * * *``: always with the timezone and single blanks; `parse` reads it."""
    zone: Zone = field(compare=False)
    times: WallTimes | Every = field(compare=False)

    @staticmethod
    def parse(text: str, timezone: str = "", *, every: bool = True) -> Schedule:
        """The schedule of 5 fields, of 6 with the second first, of ``@hourly`` and the like, or of ``@every 90s``.

        ``timezone`` is an IANA name; "" leaves it to a ``CRON_TZ=`` before the fields, and else is UTC. ``every``
        says whether ``@every`` may be used, which Knative refuses. Raises `ConfigError` with every problem, each at
        ``schedule`` or ``timezone``: also for what robfig takes and cannot have been meant, and what never fires.
        """
        if len(text) > _LONGEST_TEXT:
            raise _wrong(f"is {len(text)} characters long; {_LONGEST_TEXT} are enough for any schedule")
        place, rest = _place(text, timezone)
        if not every and "@every" in rest:
            raise _wrong("unsupported descriptor @every")
        times = _descriptor(rest) if rest.startswith("@") else _wall_times(tuple(_FIELD.findall(rest)))
        shown = " ".join(_FIELD.findall(rest))
        return Schedule(f"CRON_TZ={place.name} {shown}", UTC_ZONE if isinstance(times, Every) else place, times)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Schedule({self.text!r})"

    def next_after(self, instant: datetime) -> datetime | None:
        """The first tick strictly after ``instant``; None where the calendar (9999) ends before it."""
        return _instant(self._first_from(_seconds(instant) + 1))

    def ticks_after(self, instant: datetime) -> Iterator[datetime]:
        """Every tick after ``instant``, in order, until the calendar ends."""
        at = self.next_after(instant)
        while at is not None:
            yield at
            at = self.next_after(at)

    def previous_at_or_before(self, instant: datetime) -> datetime | None:
        """The last tick at ``instant`` or before it; None where the calendar (year 1) begins after it."""
        return _instant(self._last_until(_seconds(instant)))

    def ticks_between(self, start: datetime, end: datetime, limit: int) -> tuple[datetime, ...]:
        """The ticks after ``start`` up to and including ``end``, in order; of more than ``limit`` the last ones."""
        ticks: list[int] = []
        after, second = _seconds(start), _seconds(end)
        while len(ticks) < limit and (tick := self._last_until(second)) is not None and tick > after:
            ticks.append(tick)
            second = tick - 1
        return tuple(EPOCH + timedelta(seconds=tick) for tick in reversed(ticks))

    def count_between(self, start: datetime, end: datetime) -> int:
        """How many ticks there are after ``start`` up to and including ``end``, without finding each."""
        second, stop, total = _seconds(start) + 1, _seconds(end) + 1, 0
        while second < stop:
            _, until, offset = self.zone.span(second)
            until = min(until, stop)
            total += self.times.count(second + offset, until + offset)
            second = until
        return total

    def _first_from(self, second: int) -> int | None:
        while True:
            _, end, offset = self.zone.span(second)
            wall = self.times.first_from(second + offset)
            if wall is None or wall - offset < end:
                return None if wall is None else wall - offset
            # Not before the offset changes. A rare schedule jumps near its day: no clock is a whole day off UTC.
            near = self.times.first_from(end - DAY)
            second = end if near is None else max(end, near - DAY)

    def _last_until(self, second: int) -> int | None:
        while True:
            start, _, offset = self.zone.span(second)
            wall = self.times.last_until(second + offset)
            if wall is None or wall - offset >= start:
                return None if wall is None else wall - offset
            near = self.times.last_until(start + DAY)
            second = start - 1 if near is None else min(start - 1, near + DAY)


def _place(text: str, timezone: str) -> tuple[Zone, str]:
    """The timezone, of the prefix or given beside the schedule, and what follows the prefix."""
    given = _zone(timezone, "timezone")
    prefix = _PREFIX.match(text)
    if prefix is None:
        return given, text
    name, blank, rest = text[prefix.end() :].partition(" ")
    if not blank:
        raise _wrong(f"nothing follows {prefix[0]}{short(name) if name else name}; a blank and the fields are to come")
    named = _zone(name, "schedule")
    if timezone and named is not given:
        raise _wrong(f"{prefix[0]}{named.name} contradicts the timezone {given.name}; say it once")
    return named, rest.strip()


def _zone(name: str, where: str) -> Zone:
    try:
        return zone(name)
    except ValueError as error:
        raise ConfigError([Problem(where, str(error))]) from None


def _descriptor(text: str) -> WallTimes | Every:
    if text in _DESCRIPTORS:
        return _wall_times(tuple(_DESCRIPTORS[text].split()))
    name, blank, duration = text.partition(" ")
    if name != "@every" or not blank:
        known = " ".join((*_DESCRIPTORS, "@every"))
        raise _wrong(f"unrecognized descriptor: {short(text)}; there are {known} (as in @every 90s)")
    return Every(_period(duration))


def _period(duration: str) -> int:
    try:
        period = go_duration(duration)
    except ValueError as error:
        raise _wrong(f"@every: {short(duration)} {error}") from None
    if not timedelta() < period <= _LONGEST_EVERY:
        rule = "is not longer than 0" if period <= timedelta() else "is longer than 292 years"
        raise _wrong(f"@every: {short(duration)} {rule}")
    return max(1, period // _SECOND)  # whole seconds, and no less than one, as robfig rounds


@functools.lru_cache(maxsize=4096)
def _wall_times(texts: tuple[str, ...]) -> WallTimes:
    if not 5 <= len(texts) <= 6:
        found = short(" ".join(texts)) if texts else ""
        raise _wrong(f"expected 5 to 6 fields, found {len(texts)}: [{found}]")
    sets: list[tuple[int, bool]] = []
    problems: list[Problem] = []
    for one, text in zip(FIELDS, ("0", *texts)[-6:], strict=True):
        try:
            sets.append(one.parse(text))
        except ValueError as error:
            problems.append(Problem("schedule", str(error)))
    if problems:
        raise ConfigError(problems)
    (seconds, _), (minutes, _), (hours, _), days, (months, _), weekdays = sets
    times = WallTimes(seconds, minutes, hours, days_of(days, months, weekdays))
    if never(times.days):
        first = (days[0] & -days[0]).bit_length() - 1
        raise _wrong(f"never fires: none of its months ({short(texts[-2])}) has a day {first}")
    return times


def _wrong(rule: str) -> ConfigError:
    return ConfigError([Problem("schedule", rule)])


def _seconds(instant: datetime) -> int:
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone, so it names no instant")
    return (instant - EPOCH) // _SECOND


def _instant(second: int | None) -> datetime | None:
    return None if second is None or not _FIRST <= second <= _LAST else EPOCH + timedelta(seconds=second)
