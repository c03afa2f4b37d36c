"""The ping's loop: when it sends, what it does about clocks that jump, what it remembers; and the preview."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

import pytest

from wellhead.errors import ConfigError, Loss
from wellhead.testing import FakeSink, LoopClock
from wellhead_adapters.ping.adapter import Ping
from wellhead_adapters.ping.config import PingConfig
from wellhead_adapters.ping.pings import Pings
from wellhead_adapters.ping.preview import Preview, answers
from wellhead_adapters.ping.state import State
from wellhead_adapters.ping.ticker import CatchUp

if TYPE_CHECKING:
    from pathlib import Path

NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)

pytestmark = pytest.mark.looptime


def config(schedule: str = "* * * * *", **settings: object) -> PingConfig:
    return PingConfig(schedule=schedule, extra_attributes=True, **settings)  # type: ignore[arg-type]


def scheduled(sink: FakeSink) -> list[str]:
    return [str(event.extensions["scheduledtime"]) for event in sink.events]


class Ticking:
    """A ping that runs on the loop's clock while it is entered."""

    def __init__(self, settings: PingConfig, clock: LoopClock | None = None) -> None:
        self.clock = clock or LoopClock(NEW_YEAR)
        self.sink = FakeSink()
        self.ready = asyncio.Event()
        self._ping = Ping(settings, clock=self.clock)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._ping.run(self.sink, self.ready.set))
        await self.ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task


async def test_it_ticks_at_the_scheduled_instants_and_not_at_the_start() -> None:
    async with Ticking(config()) as it:
        await it.sink.accepted(3)
    assert scheduled(it.sink) == ["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z", "2026-01-01T00:03:00Z"]


async def test_a_day_of_ticks_is_sent_each_once() -> None:
    async with Ticking(config("0 * * * *")) as it:
        await it.sink.accepted(24)
    assert len(set(scheduled(it.sink))) == 24
    assert len({event.id for event in it.sink.events}) == 24


async def test_two_replicas_send_the_same_ids() -> None:
    async with Ticking(config()) as one, Ticking(config()) as other:
        await one.sink.accepted(2)
        await other.sink.accepted(2)
    assert [event.id for event in one.sink.events[:2]] == [event.id for event in other.sink.events[:2]]


async def test_a_tick_that_is_lost_does_not_stop_the_next() -> None:
    async with Ticking(config()) as it:
        it.sink.lose(Loss.EXPIRED)
        await it.sink.accepted(1)
    assert scheduled(it.sink)[0] == "2026-01-01T00:02:00Z"


async def test_an_hour_forward_is_missed_and_not_made_up_for() -> None:
    async with Ticking(config()) as it:
        await it.sink.accepted(1)
        it.clock.step(timedelta(hours=1))
        await it.sink.accepted(2)
    assert scheduled(it.sink)[1] == "2026-01-01T01:01:00Z"


async def test_an_hour_forward_is_made_up_for_where_that_is_asked(tmp_path: Path) -> None:
    settings = config("0 * * * *", catch_up=CatchUp.ALL, state_file=tmp_path / "state")
    async with Ticking(settings) as it:
        it.clock.step(timedelta(hours=3, minutes=30))
        await it.sink.accepted(3)
    assert scheduled(it.sink) == ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"]


async def test_half_an_hour_back_repeats_nothing() -> None:
    async with Ticking(config("*/10 * * * *")) as it:
        await it.sink.accepted(4)
        it.clock.step(timedelta(minutes=-30))
        await it.sink.accepted(5)
    assert scheduled(it.sink)[3:] == ["2026-01-01T00:40:00Z", "2026-01-01T00:50:00Z"]


async def test_a_day_back_starts_anew_from_the_present_with_the_same_ids() -> None:
    async with Ticking(config("0 * * * *")) as it:
        await it.sink.accepted(2)
        it.clock.step(timedelta(hours=-2))
        await it.sink.accepted(3)
    assert scheduled(it.sink)[2] == "2026-01-01T01:00:00Z"
    assert it.sink.events[2].id == it.sink.events[0].id


async def test_what_was_missed_while_it_did_not_run_is_sent_after_all(tmp_path: Path) -> None:
    settings = config("0 * * * *", catch_up=CatchUp.ALL, state_file=tmp_path / "state")
    async with Ticking(settings) as before:
        await before.sink.accepted(1)
    async with Ticking(settings, LoopClock(NEW_YEAR + timedelta(hours=4, minutes=1))) as after:
        await after.sink.accepted(3)
    assert scheduled(before.sink) == ["2026-01-01T01:00:00Z"]
    assert scheduled(after.sink)[0] == "2026-01-01T02:00:00Z"
    assert len(set(scheduled(after.sink))) == len(scheduled(after.sink))


async def test_last_sends_only_the_last_of_what_was_missed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    settings = config("0 * * * *", catch_up=CatchUp.LAST, state_file=path)
    async with Ticking(settings) as before:
        await before.sink.accepted(1)
    async with Ticking(settings, LoopClock(NEW_YEAR + timedelta(hours=9, minutes=1))) as after:
        await after.sink.accepted(1)
    hour = int(scheduled(after.sink)[0][11:13])
    assert hour >= 9


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"{", "is broken"),
        (b'{"format":"something else"}', "is no state file of ours"),
        (b'{"format":"wellhead-ping-1","ticks":{"a":7}}', "is broken"),
        (b"\xff\xfe", "is broken"),
    ],
)
async def test_a_state_file_that_is_not_ours_is_told_and_left_alone(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rule):
        State(path)
    assert path.read_bytes() == content


async def test_a_state_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Ping(config(catch_up=CatchUp.LAST, state_file=tmp_path / "no such folder" / "state"))


async def test_the_state_file_is_written_a_second_after_a_tick_and_not_at_each(tmp_path: Path) -> None:
    path = tmp_path / "state"
    async with Ticking(config("* * * * * *", catch_up=CatchUp.ALL, state_file=path)) as it:
        empty = path.stat().st_ino
        await it.sink.accepted(1)
        assert path.stat().st_ino == empty
        await it.sink.accepted(3)
        assert json.loads(path.read_bytes())["ticks"].popitem()[1] in ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z")
        await asyncio.sleep(0)  # the third is settled
    assert json.loads(path.read_bytes())["ticks"].popitem()[1] == "2026-01-01T00:00:03Z"


async def test_a_tick_behind_one_on_its_way_is_not_the_last_of_the_state(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    for minute in (1, 2):
        state.begin("a", NEW_YEAR + minute * MINUTE)
    assert not state.settle("a", NEW_YEAR + 2 * MINUTE)
    assert state.last("a") is None
    assert state.settle("a", NEW_YEAR + MINUTE)
    assert state.last("a") == NEW_YEAR + 2 * MINUTE


async def test_a_state_file_that_can_no_longer_be_written_is_told_and_ends_no_ticking(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    async with Ticking(config(catch_up=CatchUp.ALL, state_file=folder / "state")) as it:
        (folder / "state").unlink()
        folder.rmdir()
        await it.sink.accepted(3)
    assert "ticks would be repeated after a restart" in caplog.text


async def test_a_thousand_sources_need_no_task_each_and_come_and_go() -> None:
    clock = LoopClock(NEW_YEAR)
    pings, sink = Pings(clock=clock), FakeSink()
    for number in range(1000):
        pings.put(str(number), config("0 * * * *", name=f"p{number}"), sink)
    running = asyncio.create_task(pings.run(lambda: None))
    await asyncio.sleep(60)
    assert len(asyncio.all_tasks()) == 2  # this test and the one loop
    pings.remove("7")
    await sink.accepted(999)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len({event.source for event in sink.events}) == 999


def test_a_preview_answers_each_line_whatever_the_others_are() -> None:
    lines = [
        '{"spec":"@hourly","tz":"Asia/Kolkata","from":"2026-01-01T00:00:00Z","count":1}',
        '{"spec":"61 * * * *"}',
        "not JSON",
        "",
        '{"spec":"* * * * *","count":true}',
        '{"spec":"* * * * *","from":"yesterday"}',
    ]
    replies = [json.loads(answer) for answer in answers(lines)]
    assert replies[0] == {"next": ["2026-01-01T06:00:00+05:30"]}
    assert [list(reply) for reply in replies[1:]] == [["error"]] * 4


def test_a_preview_prints_instants_in_the_schedules_zone(capsys: pytest.CaptureFixture[str]) -> None:
    day = ["--from", "2026-03-07T00:00:00Z", "--count=2"]
    assert Preview.main(["--schedule", "30 2 * * *", "--timezone", "America/New_York", *day]) == 0
    assert capsys.readouterr().out == "2026-03-07T02:30:00-05:00\n2026-03-09T02:30:00-04:00\n"


def test_a_preview_of_nonsense_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert Preview.main(["--schedule", "0 0 30 2 *"]) == 2
    assert "never" in capsys.readouterr().err
