"""What `wellhead.testing` promises to the author of an adapter: a test that fails says why, and nothing waits by luck."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from wellhead.delivery import Answered, Outcome, Unanswered
from wellhead.event import CloudEvent
from wellhead.http_binding import BATCH, encode, encode_batch, header_lines
from wellhead.testing import Answer, FakeTransport, Hang, LoopClock, RecordingSink, Reset, running
from wellhead.testing.clock import START
from wellhead.transport import Post, Target, one_try
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wellhead.adapter import Sink


def event(number: int) -> CloudEvent:
    return CloudEvent(id=str(number), source="/spring", type="drop")


class Spring:
    """Sends so many events, then waits to be stopped."""

    def __init__(self, drops: int, *, failure: Exception | None = None, unready: bool = False) -> None:
        self._drops, self._failure, self._unready = drops, failure, unready

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        if not self._unready:
            ready()
        for number in range(self._drops):
            await sink.send(event(number))
        if self._failure is not None:
            raise self._failure
        await asyncio.Event().wait()


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport()
    yield transport
    await transport.aclose()


def status(outcome: Outcome) -> int:
    assert isinstance(outcome, Answered), outcome
    return outcome.status


def post_of(sink: RecordingSink, number: int) -> Post:
    headers, body = encode(event(number))
    return Post(target=Target(sink.url), lines=header_lines(headers), body=body, timeout=5)


class TestTheRecordingSink:
    async def test_it_records_what_it_accepts_and_what_it_does_not(self, transport: HttpTransport) -> None:
        async with RecordingSink() as sink:
            sink.then(Answer(503))
            assert status(await one_try(transport, post_of(sink, 1))) == 503
            assert status(await one_try(transport, post_of(sink, 1))) == 202
            assert (sink.events, sink.tried) == ([event(1)], [event(1), event(1)])
            assert [received.accepted for received in sink.requests] == [False, True]

    async def test_a_batch_is_as_many_events(self, transport: HttpTransport) -> None:
        batch = encode_batch([event(1), event(2)])
        async with RecordingSink() as sink:
            await one_try(
                transport,
                Post(target=Target(sink.url), lines=header_lines([(b"content-type", BATCH.encode())]), body=batch),
            )
            assert await sink.accepted(2) == [event(1), event(2)]

    async def test_what_is_no_event_is_refused_and_told(self, transport: HttpTransport) -> None:
        async with RecordingSink() as sink:
            assert status(await one_try(transport, Post(target=Target(sink.url), lines=b"", body=b"hello"))) == 415
            broken = ((b"ce-specversion", b"1.0"), (b"ce-id", b"1"))
            assert (
                status(await one_try(transport, Post(target=Target(sink.url), lines=header_lines(broken), body=b"")))
                == 400
            )
            assert len(sink.invalid) == 2
            assert sink.requests == []

    async def test_an_answer_can_be_held_back(self, transport: HttpTransport) -> None:
        async with RecordingSink() as sink:
            go_on = asyncio.Event()
            sink.then(Answer(202, until=go_on))
            posting = asyncio.create_task(one_try(transport, post_of(sink, 1)))
            assert await sink.came(1) == [event(1)]
            assert sink.events == []
            go_on.set()
            assert status(await posting) == 202
            assert (sink.events, len(sink.requests)) == ([event(1)], 1)

    async def test_it_comes_back_at_the_same_address(self, transport: HttpTransport) -> None:
        async with RecordingSink() as sink:
            url = sink.url
            await sink.stop()
            await sink.start()
            assert sink.url == url
            assert status(await one_try(transport, post_of(sink, 1))) == 202

    async def test_always_replaces_what_was_to_come(self, transport: HttpTransport) -> None:
        async with RecordingSink() as sink:
            sink.then(Answer(503), Reset())
            sink.always(Answer(204))
            assert [status(await one_try(transport, post_of(sink, number))) for number in range(2)] == [204, 204]

    async def test_leaving_it_lets_nobody_hang(self, transport: HttpTransport) -> None:
        async with RecordingSink() as sink:
            sink.always(Hang())
            posting = asyncio.create_task(one_try(transport, post_of(sink, 1)))
            await sink.came(1)
        async with asyncio.timeout(5):
            await asyncio.wait({posting})
        assert isinstance(posting.result(), Unanswered)


class TestTheFakeTransport:
    async def test_waiting_for_what_came_and_what_was_accepted(self) -> None:
        transport = FakeTransport()
        waiting = asyncio.create_task(transport.accepted(2))
        headers, body = encode(event(1))
        for _ in range(2):
            await one_try(transport, Post(target=Target("http://sink/"), lines=header_lines(headers), body=body))
        assert await waiting == [event(1), event(1)]
        assert len(await transport.came(2)) == 2


class TestRunning:
    async def test_an_adapter_runs_until_the_test_leaves(self) -> None:
        async with RecordingSink() as sink:
            async with running(Spring(3), sink.url) as it:
                await it.ready()
                await sink.accepted(3)
            assert (it.counters.delivered, it.counters.balance, it.host.undelivered) == (3, 0, 0)

    async def test_an_adapter_that_fails_fails_its_test(self) -> None:
        async def a_test(url: str) -> None:
            async with running(Spring(1, failure=LookupError("dry")), url) as it:
                await it.host.wait()

        async with RecordingSink() as sink:
            with pytest.raises(LookupError, match="dry"):
                await a_test(sink.url)
            assert sink.events == [event(0)]

    async def test_an_adapter_that_fails_before_it_is_ready_says_why_at_once(self) -> None:
        async with RecordingSink() as sink:
            with pytest.raises(LookupError, match="dry"):
                async with running(Spring(0, failure=LookupError("dry"), unready=True), sink.url) as it:
                    await it.ready(within=3600)

    async def test_an_adapter_that_never_is_ready_is_told(self) -> None:
        async with RecordingSink() as sink, running(Spring(0, unready=True), sink.url) as it:
            with pytest.raises(TimeoutError):
                await it.ready(within=0.01)

    async def test_the_failure_of_the_test_itself_is_the_one_that_shows(self) -> None:
        async def a_test(url: str) -> None:
            async with running(Spring(0, failure=LookupError("dry")), url) as it:
                await it.host.wait()
                raise AssertionError("mine")

        async with RecordingSink() as sink:
            with pytest.raises(AssertionError, match="mine"):
                await a_test(sink.url)

    async def test_the_grace_is_seconds_or_a_timedelta(self) -> None:
        async with RecordingSink() as sink:
            sink.always(Hang())
            async with running(Spring(1), sink.url, grace=timedelta(milliseconds=20)) as it:
                await sink.came(1)
                await it.stop()
            assert it.counters.dropped == {"stopped": 1}


@pytest.mark.looptime
class TestTheLoopClock:
    async def test_it_goes_with_the_loop_and_steps_without_it(self) -> None:
        clock, started = LoopClock(), asyncio.get_running_loop().time()
        first = clock.now()
        await asyncio.sleep(3600)
        assert clock.now() - first == timedelta(hours=1)
        clock.step(timedelta(hours=-2))
        assert clock.now() - first == timedelta(hours=-1)
        assert asyncio.get_running_loop().time() - started == 3600
        assert first.tzinfo is START.tzinfo
