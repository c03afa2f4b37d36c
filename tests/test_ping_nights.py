"""Clocks that jump, machines that sleep and nights in which clocks change: what the loop sends is what the rule says.

The rule (README of ping): every time the schedule names is sent when a clock on a wall shows it; a tick found up to a
minute late is sent, one found later was missed; a clock put back by up to an hour repeats nothing, by more starts anew.
What the schedule names is looked up by the independent search of ``brute.py``.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import pytest
from tests.brute import Brute

from wellhead.testing import FakeSink, LoopClock
from wellhead_adapters.ping.config import PingConfig
from wellhead_adapters.ping.pings import Pings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
NAP: Final = 30 * SECOND
"""So long a clock that was put forward may stay unnoticed."""
LATE: Final = 60 * SECOND
START: Final = datetime(2026, 6, 1, 6, tzinfo=UTC)
SCHEDULES: Final = ("*/5 * * * *", "0 * * * *", "7 8 * * *", "*/20 17 * * * *", "30 6-9 * * mon")
NIGHTLY: Final = (
    "0 0 * * *", "15 0 * * *", "45 1 * * *", "0 2 * * *", "30 2 * * *", "0 3 * * *", "*/20 * * * *", "0 23 * * *",
    "10 */30 1-3 * * *",
)  # fmt: skip
ZONES: Final = ("Europe/Paris", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Africa/Cairo")

Ticks = dict[str, list[datetime]]


def named(schedule: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    found = Brute(schedule, ZoneInfo(zone)).after(after, days=(until - after) // DAY + 1)
    return [at for at in found if at <= until]


class Simulated:
    """A `Pings` with a source for each schedule, on a wall clock that the test moves."""

    def __init__(self, schedules: tuple[str, ...], zone: str, start: datetime) -> None:
        self.clock = LoopClock(start)
        self._sinks: Mapping[str, FakeSink] = {schedule: FakeSink() for schedule in schedules}
        self._pings = Pings(clock=self.clock)
        for schedule, sink in self._sinks.items():
            config = PingConfig(schedule=schedule, timezone=zone, name="p", extra_attributes=True)
            self._pings.put(schedule, config, sink)
        self._task = asyncio.create_task(self._pings.run(lambda: None))

    async def run_until(self, wall: datetime) -> None:
        await asyncio.sleep((wall - self.clock.now()).total_seconds())

    async def end(self) -> Ticks:
        """What was sent, by schedule, in order."""
        await asyncio.sleep(1)  # no schedule here has a tick in the second after the end
        self._task.cancel()
        await asyncio.wait({self._task})
        return {
            schedule: [datetime.fromisoformat(str(event.extensions["scheduledtime"])) for event in sink.events]
            for schedule, sink in self._sinks.items()
        }


def changes(zone: str) -> Iterator[datetime]:
    """The hours of 2026 before which the offset of a zone changes."""
    place = ZoneInfo(zone)
    for hour in range(365 * 24):
        at = datetime(2026, 1, 1, tzinfo=UTC) + hour * HOUR
        if at.astimezone(place).utcoffset() != (at - HOUR).astimezone(place).utcoffset():
            yield at


NIGHTS: Final = [
    pytest.param(zone, change, id=f"{zone} {season}")
    for zone in ZONES
    for season, change in zip(("first", "second"), changes(zone), strict=True)
]


@pytest.mark.looptime
@pytest.mark.parametrize(("zone", "change"), NIGHTS)
async def test_in_a_night_in_which_clocks_change_every_time_shown_is_sent(zone: str, change: datetime) -> None:
    start, end = change - 8 * HOUR - 13 * SECOND, change + 8 * HOUR + 13 * SECOND
    it = Simulated(NIGHTLY, zone, start)
    await it.run_until(end)
    assert await it.end() == {schedule: named(schedule, zone, start, end) for schedule in NIGHTLY}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("jump", "at"),
    [
        pytest.param(HOUR, timedelta(hours=1, minutes=12, seconds=40), id="an hour forward"),
        pytest.param(HOUR, timedelta(hours=1, minutes=10, seconds=20), id="an hour forward, past a tick by 20 s"),
        pytest.param(DAY, timedelta(hours=1, minutes=12, seconds=40), id="a day of suspend"),
        pytest.param(2 * SECOND, timedelta(hours=1, minutes=9, seconds=59), id="two seconds forward over a tick"),
    ],
)
async def test_what_a_clock_jumps_over_is_missed_but_for_the_last_minute(jump: timedelta, at: timedelta) -> None:
    left, landed, end = START + at, START + at + jump, START + at + jump + 3 * HOUR
    it = Simulated(SCHEDULES, "UTC", START)
    await it.run_until(left)
    it.clock.step(jump)
    await it.run_until(end)
    for schedule, sent in (await it.end()).items():
        ticks = named(schedule, "UTC", START, end)
        # When within `NAP` the jump is noticed depends on the other schedules; either way is right for these.
        either = [at for at in ticks if landed - LATE <= at < landed - LATE + NAP and at > left]
        due = [at for at in ticks if at <= left or at > landed - LATE + NAP]
        assert [at for at in sent if at not in either] == due


@pytest.mark.looptime
@pytest.mark.parametrize("jump", [HOUR, 20 * SECOND, 31 * 60 * SECOND], ids=str)
async def test_a_clock_put_back_by_up_to_an_hour_repeats_nothing_and_misses_nothing(jump: timedelta) -> None:
    left, end = START + 2 * HOUR + 12 * 60 * SECOND, START + 6 * HOUR + 13 * SECOND
    it = Simulated(SCHEDULES, "UTC", START)
    await it.run_until(left)
    it.clock.step(-jump)
    await it.run_until(end)
    assert await it.end() == {schedule: named(schedule, "UTC", START, end) for schedule in SCHEDULES}


@pytest.mark.looptime
async def test_a_clock_put_back_by_more_starts_anew_from_the_present() -> None:
    left, landed = START + 4 * HOUR + 2 * 60 * SECOND, START + HOUR + 2 * 60 * SECOND
    end = left + HOUR
    it = Simulated(SCHEDULES, "UTC", START)
    await it.run_until(left)
    it.clock.step(landed - left)
    await it.run_until(end)
    for schedule, sent in (await it.end()).items():
        before, after = named(schedule, "UTC", START, left), named(schedule, "UTC", landed + NAP, end)
        noticed = named(schedule, "UTC", landed, landed + NAP)  # or was repeated before the jump was noticed
        assert sent in (before + after, before + noticed + after)
