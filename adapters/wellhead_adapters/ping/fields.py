"""The grammar of one field of a schedule, as robfig/cron v3 reads it, without the nonsense it lets pass. Pure.

Knows neither the calendar nor any timezone: a field becomes a set of numbers, kept as the bits of an integer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Go's strconv.Atoi: ASCII digits, a plus is allowed, 64 bits.
_NUMBER: Final = re.compile(r"\+?0*([0-9]{1,19})", re.ASCII)
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """What a field may hold: its bounds, and the names of its numbers where it has any."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """Three-letter names of ``low``, ``low + 1``, …"""

    def parse(self, text: str) -> tuple[int, bool]:
        """The set as bits, and whether it holds a bare ``*`` or ``?`` (which decides how days combine).

        Raises ValueError naming the field, with robfig's words where it has some.
        """
        bits, starred = 0, False
        for part in text.split(","):
            if not part:
                raise self._wrong(f"an empty item in {short(text)}")
            more, star = self._part(part)
            bits, starred = bits | more, starred or star
        return bits, starred

    def _part(self, part: str) -> tuple[int, bool]:
        span, slash, step_text = part.partition("/")
        if "/" in step_text:
            raise self._wrong(f"too many slashes: {short(part)}")
        first, hyphen, last = span.partition("-")
        if "-" in last:
            raise self._wrong(f"too many hyphens: {short(part)}")
        star = first in ("*", "?")
        if star and hyphen:
            raise self._wrong(f"{first} takes no range: {short(part)}")
        start = self.low if star else self._number(first, part)
        # A number with a step goes on to the end: 5/15 is 5-59/15.
        end = self._number(last, part) if hyphen else self.high if star or slash else start
        self._check(start, end, part)
        step = self._step(step_text, part) if slash else 1
        return sum(1 << number for number in range(start, end + 1, step)), star and step == 1

    def _check(self, start: int, end: int, part: str) -> None:
        if start < self.low:
            raise self._wrong(f"beginning of range ({start}) below minimum ({self.low}): {short(part)}")
        if max(start, end) > self.high:
            raise self._wrong(f"end of range ({max(start, end)}) above maximum ({self.high}): {short(part)}")
        if start > end:
            raise self._wrong(f"beginning of range ({start}) beyond end of range ({end}): {short(part)}")

    def _number(self, text: str, part: str) -> int:
        if text.lower() in self.names and text.isascii():
            return self.low + self.names.index(text.lower())
        number = _number(text)
        if number is None:
            names = f" or one of {' '.join(self.names)}" if self.names else ""
            raise self._wrong(f"{short(text)} is not a whole number{names}: {short(part)}")
        return number

    def _step(self, text: str, part: str) -> int:
        if re.fullmatch(r"-[0-9]{1,19}", text) and text.strip("-0"):
            raise self._wrong(f"negative number ({text}) not allowed: {text}")
        step = 0 if re.fullmatch(r"-0+", text) else _number(text)
        if step is None:
            raise self._wrong(f"the step {short(text)} is not a whole number: {short(part)}")
        if step == 0:
            raise self._wrong(f"step of range should be a positive number: {short(part)}")
        return step

    def _wrong(self, rule: str) -> ValueError:
        return ValueError(f"{self.name}: {rule}")


SECOND: Final = Field("second", 0, 59)
MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY_OF_MONTH: Final = Field("day of month", 1, 31)
MONTH: Final = Field(
    "month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
)
DAY_OF_WEEK: Final = Field("day of week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))

FIELDS: Final = (SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
"""In the order in which a schedule of six fields has them."""


def _number(text: str) -> int | None:
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else _LARGEST + 1
    return number if number <= _LARGEST else None


def short(text: str, limit: int = 40) -> str:
    """``text`` for a message: printable, and cut off where it is long."""
    shown = text if text.isascii() and text.isprintable() and text else ascii(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(text)} characters)"
