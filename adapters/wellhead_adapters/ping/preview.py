"""``wellhead next``: when a schedule fires. Prints instants; sends nothing."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from wellhead.env import Collector, boolean, integer, parse_flags, setting, settings, text
from wellhead.errors import ConfigError
from wellhead.help import help_screen
from wellhead.runtime import Exit, report, say

from .schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from wellhead.env import Setting

_MOST: Final = 10_000
_LONGEST_LINE: Final = 65_536


def instant(value: str) -> datetime:
    """An RFC 3339 instant; without an offset, UTC."""
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is not an instant such as 2026-01-01T00:00:00Z") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSettings:
    """What to preview"""

    schedule: str = setting(text, "the schedule", flag="schedule", default="* * * * *")
    timezone: str = setting(text, "the zone it is meant in", flag="timezone", default="", shown_default="UTC")
    since: datetime | None = setting(instant, "ticks after this instant", flag="from", shown_default="now")
    count: int = setting(integer(1, _MOST), "how many", flag="count", default=5)
    jsonl: bool = setting(
        boolean,
        'answer lines {"spec","tz","from","count"} with {"next":[…]} or {"error":…}',
        flag="jsonl",
        default=False,
        switch=True,
    )


class Preview:
    """Show when a schedule fires next, by the rules of wellhead ping.

    wellhead next --schedule '0 9 * * mon-fri' --timezone Europe/Paris --count 3

    With --jsonl it checks whole crontabs at once: a line of JSON on standard input is answered by a line on
    standard output.
    """

    @staticmethod
    def flags() -> Sequence[Setting[object]]:
        """Every flag of the command."""
        return settings(NextSettings)

    @staticmethod
    def main(arguments: Sequence[str]) -> int:
        """Print what the flags ask for; the exit code."""
        if any(word in ("-h", "-help", "--help") for word in arguments):
            return say(help_screen("wellhead next", Preview.__doc__ or "", (NextSettings,)))
        collector = Collector(os.environ, parse_flags(arguments, settings(NextSettings)))
        said = collector.read(NextSettings)
        if said is None or collector.problems:
            return report("wellhead next", collector.problems)
        if said.jsonl:
            return _answer_lines()
        try:
            ticks = list(following(said.schedule, said.timezone, said.since or datetime.now(UTC), said.count))
        except ConfigError as error:
            return report("wellhead next", error.problems)
        return say("\n".join(ticks))


def following(spec: str, tz: str, since: datetime, count: int) -> Iterator[str]:
    """The next ``count`` ticks after ``since``, written in the schedule's zone. Raises `ConfigError`."""
    schedule = Schedule.parse(spec, tz)
    zone = UTC if schedule.zone.name in ("UTC", "Local") else ZoneInfo(schedule.zone.name)
    for at in islice(schedule.ticks_after(since), count):
        written = at.astimezone(zone).isoformat()
        yield written.removesuffix("+00:00") + "Z" if written.endswith("+00:00") else written


def answers(lines: Iterable[str]) -> Iterator[str]:
    """The answer to each line; a line that cannot be answered does not end the rest."""
    for line in lines:
        if not line.strip():
            continue
        try:
            reply: dict[str, object] = {"next": _answer(line)}
        except ValueError as error:  # a ConfigError is one
            reply = {"error": str(error)}
        yield json.dumps(reply, ensure_ascii=False)


def _answer(line: str) -> list[str]:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"a line has at most {_LONGEST_LINE} characters")
    try:
        asked = json.loads(line)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("spec"), str):
        raise ValueError(
            'a line is {"spec": "…", "tz": "…", "from": "…", "count": n}; tz, from and count may be left out'
        )
    tz, since, count = asked.get("tz") or "", asked.get("from"), asked.get("count", 5)
    if not isinstance(tz, str) or not isinstance(since, str | None):
        raise ValueError("tz and from are strings")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MOST:
        raise ValueError(f"count is a whole number from 0 to {_MOST}")
    return list(following(asked["spec"], tz, instant(since) if since else datetime.now(UTC), count))


def _answer_lines() -> int:
    try:
        for answer in answers(sys.stdin):
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    except BrokenPipeError:
        return say("")
    return Exit.DONE
