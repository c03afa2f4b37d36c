"""The ten laws that every adapter keeps, as tests: subclass `AdapterLaws`, give it a `Driver`, and pytest runs them.

    class TestWeatherKeepsTheLaws(AdapterLaws):
        driver = WeatherDriver()

pytest and pytest-asyncio are the author's own; nothing here imports them. The laws run in real time over loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import io
import os
from typing import TYPE_CHECKING, ClassVar, Never, Protocol

from wellhead.runtime import Exit, main

from .recorder import Answer, RecordingSink, Reset
from .runner import running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wellhead.adapter import Adapter, AdapterClass
    from wellhead.event import CloudEvent

IN_TIME = 10.0
"""Seconds that anything may take; what is told of as prompt has a tenth of it."""


class Driver(Protocol):
    """What the laws need to know of an adapter."""

    @property
    def adapter_class(self) -> AdapterClass[Never]:
        """The class that the entry point names."""

    @property
    def kind(self) -> str:
        """Its name there."""

    @property
    def broken(self) -> Mapping[str, str]:
        """An environment in which every variable is wrong; each must be named in the one message."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values in ``broken`` that no message may show."""

    def adapter(self) -> Adapter:
        """A new adapter, as after a restart of the program."""

    async def occur(self, number: int) -> None:
        """Make that many things happen outside, each of which becomes one event. May return before they are sent.

        Nothing to do for a source that goes by itself, such as a heartbeat.
        """


class AdapterLaws:
    """The laws. Each is independent, starts its own adapter and its own sink, and leaves nothing behind."""

    driver: ClassVar[Driver]

    async def test_1_it_is_ready_in_time(self) -> None:
        async with RecordingSink() as sink, running(self.driver.adapter(), sink.url) as it:
            await it.ready(IN_TIME)

    async def test_2_nothing_that_happens_after_ready_is_missed(self) -> None:
        async with _within(), RecordingSink() as sink, running(self.driver.adapter(), sink.url) as it:
            await it.ready(IN_TIME)
            await self.driver.occur(5)
            await sink.accepted(5)

    async def test_3_its_events_are_valid_and_of_the_declared_types(self) -> None:
        async with _within(), RecordingSink() as sink:
            events = await self._events(sink, 3)
            _hold(not sink.invalid, f"the strict decoder refused: {sink.invalid}")
            declared = self.driver.adapter_class.event_types
            for event in events:
                known = any(fnmatch.fnmatchcase(event.type, pattern) for pattern in declared)
                _hold(known, f"{event.type} is not among the declared types {declared}")

    async def test_4_ids_are_unique_and_the_same_on_redelivery(self) -> None:
        async with _within(), RecordingSink() as sink:
            sink.then(Answer(503), Reset(), Answer(202), Answer(500))
            events = await self._events(sink, 4)
            ids = [(event.source, event.id) for event in events]
            _hold(len(set(ids)) == len(ids), f"ids repeat: {ids}")
            tries: dict[tuple[str, str], list[CloudEvent]] = {}
            for event in sink.tried:
                tries.setdefault((event.source, event.id), []).append(event)
            _hold(any(len(same) > 1 for same in tries.values()), "no event that was not accepted came again")
            for same in tries.values():
                _hold(all(event == same[0] for event in same), f"a redelivery differs from the first try: {same}")

    async def test_5_idle_it_stops_promptly_and_leaks_nothing(self) -> None:
        async with RecordingSink() as sink:
            before = _open_things()
            async with running(self.driver.adapter(), sink.url) as it:
                await it.ready(IN_TIME)
                async with asyncio.timeout(IN_TIME / 10):
                    await it.stop()
            await _settled()
            left = {name for name in _open_things() - before if "recording sink" not in name}
            _hold(not left, f"left behind: {left}")

    async def test_6_cancelled_in_mid_delivery_the_event_still_lands(self) -> None:
        async with _within(), RecordingSink() as sink:
            go_on = asyncio.Event()
            sink.always(Answer(202, until=go_on))
            async with running(self.driver.adapter(), sink.url) as it:
                await it.ready(IN_TIME)
                await self.driver.occur(1)
                on_the_way = (await sink.came(1))[0]
                stopping = asyncio.create_task(it.stop(), name="stop in mid-delivery")
                await asyncio.sleep(0)
                go_on.set()
                await stopping
                _hold(on_the_way in sink.events, "the event on the way was lost")
                _hold(it.counters.in_flight == 0 and it.counters.balance == 0, f"counters: {it.counters}")

    async def test_7_a_refused_event_is_counted_and_does_not_stop_the_next(self) -> None:
        async with _within(), RecordingSink() as sink, RecordingSink() as dead_letters:
            sink.then(Answer(422, body=b"no such thing"))
            async with running(self.driver.adapter(), sink.url, dead_letter=dead_letters.url) as it:
                await it.ready(IN_TIME)
                await self.driver.occur(2)
                dead = (await dead_letters.accepted(1))[0]
                await sink.accepted(1)
                await it.stop()
                _hold(dead.extensions["knativeerrorcode"] == "422", f"the dead letter says {dead.extensions}")
                _hold(it.counters.dead_lettered == 1 and it.counters.balance == 0, f"counters: {it.counters}")

    async def test_8_it_flows_again_when_the_sink_recovers(self) -> None:
        async with _within(), RecordingSink() as sink, running(self.driver.adapter(), sink.url) as it:
            await it.ready(IN_TIME)
            await sink.stop()
            await self.driver.occur(1)
            await _until(lambda: it.counters.tries.get("connect", 0) > 0)
            await sink.start()
            await self.driver.occur(1)
            await sink.accepted(1)

    async def test_9_all_that_is_wrong_is_told_at_once_and_no_secret_is_shown(self) -> None:
        driver = self.driver
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = main(driver.adapter_class, driver.kind, arguments=["--no-such-flag"], environment=driver.broken)
        text = said.getvalue()
        _hold(code == Exit.CONFIG, f"the exit code is {code}")
        for name in (*driver.broken, "--no-such-flag"):
            _hold(name in text, f"{name} is not named in:\n{text}")
        for secret in driver.secrets:
            _hold(secret not in text, f"a secret is shown in:\n{text}")

    async def test_10_the_counters_match_what_the_sink_saw(self) -> None:
        async with _within(), RecordingSink() as sink:
            sink.then(Answer(202), Answer(503), Answer(202), Answer(400), Answer(202), Reset())
            async with running(self.driver.adapter(), sink.url) as it:
                await it.ready(IN_TIME)
                await self.driver.occur(5)
                await sink.accepted(4)
                await it.stop()
                counters = it.counters
            _hold(counters.delivered == len(sink.events), f"{counters} but {len(sink.events)} accepted")
            _hold(sum(counters.tries.values()) == len(sink.tried), f"{counters} but {len(sink.tried)} tries")
            _hold(counters.refused == 1, f"{counters} but 1 refused")
            _hold(counters.balance == 0 and counters.in_flight == 0, f"they do not add up: {counters}")

    async def _events(self, sink: RecordingSink, number: int) -> list[CloudEvent]:
        async with running(self.driver.adapter(), sink.url) as it:
            await it.ready(IN_TIME)
            await self.driver.occur(number)
            return await sink.accepted(number)


def _hold(condition: object, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _within() -> asyncio.Timeout:
    return asyncio.timeout(IN_TIME)


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what only a counter tells."""
    while not condition():  # noqa: ASYNC110 - counters have no signal
        await asyncio.sleep(0.001)


def _open_things() -> set[str]:
    """Tasks by name and file descriptors of sockets, to compare before and after."""
    tasks = {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    folder = "/proc/self/fd"
    sockets = set()
    for number in os.listdir(folder) if os.path.isdir(folder) else ():  # noqa: PTH208, PTH112 - not for macOS
        with contextlib.suppress(OSError):
            target = os.readlink(f"{folder}/{number}")  # noqa: PTH115
            sockets |= {target} if target.startswith("socket:") else set()
    return tasks | sockets


async def _settled() -> None:
    """Give closing transports their turns of the loop."""
    for _ in range(20):
        await asyncio.sleep(0.001)
