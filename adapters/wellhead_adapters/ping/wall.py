"""The wall clock of a schedule: which readings of a clock it fires at, found by bits and not by walking. Pure.

Counts in wall seconds: seconds since 1970-01-01 00:00 as a clock on a wall shows them, whatever its timezone. Knows
nothing of timezones; the years are 1 to 9999.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date
from typing import Final

DAY: Final = 86_400
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_LAST_ORDINAL: Final = date.max.toordinal()
_LONGEST_MONTHS: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTHS_OF_31: Final = 0b1010110101010


@dataclass(frozen=True, slots=True)
class Days:
    """The days of a schedule. Equal ones are shared: see `days_of`."""

    months: int
    patterns: tuple[int, ...]
    """The days of a month of 31 as bits 1-31, by the weekday (0 is Sunday) of its first day."""

    def first_from(self, ordinal: int) -> int | None:
        """The first day at or after ``ordinal`` (`date.toordinal`); None where the calendar ends before."""
        if ordinal > _LAST_ORDINAL:
            return None
        day = date.fromordinal(max(ordinal, 1))
        year, month, since, before = day.year, day.month, day.day, max(ordinal, 1) - day.day
        while year <= 9999:
            length = _length(year, month)
            if bits := self._bits(month, length, before) >> since:
                return before + since + _lowest(bits)
            year, month, since, before = (year + month // 12, month % 12 + 1, 1, before + length)
        return None

    def last_until(self, ordinal: int) -> int | None:
        """The last day at or before ``ordinal``; None where the calendar begins after it."""
        if ordinal < 1:
            return None
        day = date.fromordinal(min(ordinal, _LAST_ORDINAL))
        year, month, until, before = day.year, day.month, day.day, min(ordinal, _LAST_ORDINAL) - day.day
        while year >= 1:
            if bits := self._bits(month, until, before):
                return before + _highest(bits)
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
            until = _length(year, month)
            before -= until
        return None

    def count_before(self, ordinal: int, since: int) -> int:
        """How many days there are from ``since`` up to, not including, ``ordinal``."""
        total = 0
        while since < ordinal:
            day = date.fromordinal(since)
            before, length = since - day.day, _length(day.year, day.month)
            until = min(ordinal - 1 - before, length)
            total += (self._bits(day.month, until, before) >> day.day).bit_count()
            since = before + length + 1
        return total

    def _bits(self, month: int, until: int, before: int) -> int:
        """The days 1 to ``until`` of a month as bits, where ``before`` is the ordinal of the day before its first."""
        return self.patterns[(before + 1) % 7] & (2 << until) - 1 if self.months >> month & 1 else 0


@dataclass(frozen=True, slots=True)
class WallTimes:
    """Fires at every reading of the clock whose second, minute, hour and day are in its sets."""

    seconds: int
    minutes: int
    hours: int
    days: Days

    def first_from(self, wall: int) -> int | None:
        """The first reading at or after ``wall``; None where the calendar ends before."""
        number, second = divmod(wall, DAY)
        ordinal = number + _EPOCH_ORDINAL
        day = self.days.first_from(ordinal)
        time = self._time_from(second) if day == ordinal else self._time_from(0)
        if time is None:
            day, time = self.days.first_from(ordinal + 1), self._time_from(0)
        return None if day is None or time is None else (day - _EPOCH_ORDINAL) * DAY + time

    def last_until(self, wall: int) -> int | None:
        """The last reading at or before ``wall``; None where the calendar begins after it."""
        number, second = divmod(wall, DAY)
        ordinal = number + _EPOCH_ORDINAL
        day = self.days.last_until(ordinal)
        time = self._time_until(second) if day == ordinal else self._time_until(DAY - 1)
        if time is None:
            day, time = self.days.last_until(ordinal - 1), self._time_until(DAY - 1)
        return None if day is None or time is None else (day - _EPOCH_ORDINAL) * DAY + time

    def count(self, start: int, end: int) -> int:
        """How many readings there are from ``start`` up to, not including, ``end``."""
        (first, early), (last, late) = divmod(start, DAY), divmod(end, DAY)
        first, last = first + _EPOCH_ORDINAL, last + _EPOCH_ORDINAL
        whole = self.days.count_before(last, first) * self._times_before(DAY)
        return whole - self._on(first) * self._times_before(early) + self._on(last) * self._times_before(late)

    def _on(self, ordinal: int) -> bool:
        return self.days.last_until(ordinal) == ordinal

    def _time_from(self, second: int) -> int | None:
        hour, minute, second = second // 3600, second // 60 % 60, second % 60
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (bits := self.seconds >> second):
                return hour * 3600 + minute * 60 + second + _lowest(bits)
            if bits := self.minutes >> minute + 1:
                return hour * 3600 + (minute + 1 + _lowest(bits)) * 60 + _lowest(self.seconds)
        if bits := self.hours >> hour + 1:
            return (hour + 1 + _lowest(bits)) * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)
        return None

    def _time_until(self, second: int) -> int | None:
        hour, minute, second = second // 3600, second // 60 % 60, second % 60
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (bits := self.seconds & ((2 << second) - 1)):
                return hour * 3600 + minute * 60 + _highest(bits)
            if bits := self.minutes & ((1 << minute) - 1):
                return hour * 3600 + _highest(bits) * 60 + _highest(self.seconds)
        if bits := self.hours & ((1 << hour) - 1):
            return _highest(bits) * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)
        return None

    def _times_before(self, second: int) -> int:
        hour, minute, second = second // 3600, second // 60 % 60, second % 60
        per_minute, minutes = self.seconds.bit_count(), self.minutes.bit_count()
        count = _below(self.hours, hour) * minutes * per_minute
        if self.hours >> hour & 1:
            count += _below(self.minutes, minute) * per_minute
            count += _below(self.seconds, second) if self.minutes >> minute & 1 else 0
        return count


@dataclass(frozen=True, slots=True)
class Every:
    """Fires each ``period`` seconds, counted from 1970-01-01 00:00."""

    period: int

    def first_from(self, wall: int) -> int | None:
        """The first reading at or after ``wall``."""
        return -(-wall // self.period) * self.period

    def last_until(self, wall: int) -> int | None:
        """The last reading at or before ``wall``."""
        return wall // self.period * self.period

    def count(self, start: int, end: int) -> int:
        """How many readings there are from ``start`` up to, not including, ``end``."""
        return (end - 1) // self.period - (start - 1) // self.period


@functools.lru_cache(maxsize=4096)
def days_of(days: tuple[int, bool], months: int, weekdays: tuple[int, bool]) -> Days:
    """The days of a schedule, each set with whether it was starred; the same object for the same sets.

    Where neither is starred, a day that is in one of them is enough (crontab(5), and robfig/cron).
    """
    both = days[1] or weekdays[1]
    by_weekday = [
        sum(1 << day for day in range(1, 32) if weekdays[0] >> (first + day - 1) % 7 & 1) for first in range(7)
    ]
    return Days(months, tuple(days[0] & bits if both else days[0] | bits for bits in by_weekday))


def never(days: Days) -> bool:
    """Whether none of the months has any of the days: 30 February."""
    return not any(
        pattern & ((2 << longest) - 1) and days.months >> month & 1
        for month, longest in enumerate(_LONGEST_MONTHS)
        for pattern in days.patterns
    )


def _length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 + (_MONTHS_OF_31 >> month & 1)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _highest(bits: int) -> int:
    return bits.bit_length() - 1


def _below(bits: int, limit: int) -> int:
    return (bits & ((1 << limit) - 1)).bit_count()
