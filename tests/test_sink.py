"""Deliveries from a user's side: what `send` promises, every row of the design's table, drain, counters and logs."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final

import looptime as virtual
import pytest
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wellhead.adapter import Deadline, Fence
from wellhead.address import Address
from wellhead.batch import BatchLimits
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.credentials import OIDC_TOKEN, Credentials, CredentialSources
from wellhead.delivery import OnExhausted, Policy, Unanswered, policy_from_spec
from wellhead.errors import DeliveryError, InvalidEvent, Loss, NoAnswer
from wellhead.event import CloudEvent
from wellhead.http_binding import decode
from wellhead.http_server import HttpServer, Takeover
from wellhead.log import JsonLines, TextLines
from wellhead.sink import HttpSink
from wellhead.testing import (
    Answer,
    Behaviour,
    FakeSink,
    FakeTransport,
    Garbage,
    HalfAnswer,
    Hang,
    LoopClock,
    RecordingSink,
    Reset,
)
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from wellhead.delivery import Outcome
    from wellhead.http_server import Connection
    from wellhead.transport import Post

SINK: Final = "http://sink/"
DEAD_LETTERS: Final = "http://dead-letters/"
EXACT: Final = Policy(backoff_delay=timedelta(seconds=1), jitter=0)
"""Waits of 2, 4, 8, 16, 30, 30 … seconds."""
FAST: Final = Policy(backoff_delay=timedelta(milliseconds=1), cap=timedelta(milliseconds=10))
NEVER_AGAIN: Final = Policy(backoff_delay=timedelta(hours=1), cap=timedelta(hours=1))
"""A test with this policy hangs if there is any wait between two tries."""
IN_TIME: Final = 10.0
SECRET: Final = "hunter2"


def event(number: int = 1, **attributes: Any) -> CloudEvent:
    return CloudEvent(id=str(number), source="/spring", type="drop", data=b"water", **attributes)


def in_memory(
    transport: FakeTransport,
    *,
    policy: Policy = EXACT,
    dead_letter: bool = False,
    binding: SinkBinding = SinkBinding(sink=SINK),  # noqa: B008 - frozen
    max_on_wire: int = 128,
    batch: BatchLimits | None = None,
) -> HttpSink:
    return HttpSink(
        binding,
        Address(binding, transport),
        clock=LoopClock(),
        policy=policy,
        dead_letter=Address(SinkBinding(sink=DEAD_LETTERS), transport) if dead_letter else None,
        max_on_wire=max_on_wire,
        batch=batch,
    )


async def lost(sink: HttpSink | FakeSink, *args: Any, **kwargs: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await sink.send(*args, **kwargs)
    return caught.value


def now() -> float:
    return asyncio.get_running_loop().time()


class Logged(logging.Handler):
    """The library's log records, and a signal when one comes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._came.set()

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def facts(self, line: str) -> dict[str, Any]:
        (record,) = (record for record in self.records if record.getMessage() == line)
        return vars(record)

    async def line(self, line: str) -> None:
        """Wait until it was logged."""
        while line not in self.lines:
            self._came.clear()
            await self._came.wait()


@pytest.fixture
def logged() -> Iterator[Logged]:
    handler, logger = Logged(), logging.getLogger("wellhead")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


# What every sink promises, the fake as well.


@pytest.fixture(params=["fake", "http"])
def any_sink(request: pytest.FixtureRequest) -> Callable[[], FakeSink | HttpSink]:
    return FakeSink if request.param == "fake" else lambda: in_memory(FakeTransport())


def arrived(sink: FakeSink | HttpSink) -> list[CloudEvent]:
    if isinstance(sink, FakeSink):
        return sink.events
    transport = sink.address._transport
    assert isinstance(transport, FakeTransport)
    return transport.events


@pytest.mark.looptime
class TestEverySink:
    async def test_send_returns_once_the_event_was_accepted(self, any_sink: Callable[[], FakeSink | HttpSink]) -> None:
        sink = any_sink()
        await sink.send(event())
        assert arrived(sink) == [event()]

    async def test_events_of_one_task_arrive_in_order(self, any_sink: Callable[[], FakeSink | HttpSink]) -> None:
        sink = any_sink()
        for number in range(20):
            await sink.send(event(number))
        assert arrived(sink) == [event(number) for number in range(20)]

    async def test_cancelling_the_caller_does_not_cancel_the_delivery(
        self, any_sink: Callable[[], FakeSink | HttpSink]
    ) -> None:
        sink = any_sink()
        caller = asyncio.create_task(sink.send(event()))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait({caller})
        await asyncio.sleep(1)
        assert arrived(sink) == [event()]

    async def test_behind_a_closed_fence_nothing_is_tried(self, any_sink: Callable[[], FakeSink | HttpSink]) -> None:
        sink, fence = any_sink(), Fence()
        fence.close()
        error = await lost(sink, event(), fence=fence)
        assert (error.loss, error.tries, error.maybe_accepted) == (Loss.FENCED, 0, False)
        assert arrived(sink) == []

    async def test_past_its_deadline_nothing_is_tried(self, any_sink: Callable[[], FakeSink | HttpSink]) -> None:
        sink = any_sink()
        error = await lost(sink, event(), deadline=Deadline(now()))
        assert (error.loss, error.tries, error.event_id) == (Loss.EXPIRED, 0, "1")
        assert arrived(sink) == []

    async def test_before_its_deadline_and_fence_it_is_delivered(
        self, any_sink: Callable[[], FakeSink | HttpSink]
    ) -> None:
        sink = any_sink()
        await sink.send(event(), deadline=Deadline(now() + 1), fence=Fence())
        assert arrived(sink) == [event()]

    async def test_an_event_of_the_sdk_is_accepted(self, any_sink: Callable[[], FakeSink | HttpSink]) -> None:
        sink = any_sink()
        await sink.send(SdkEvent({"id": "1", "source": "/spring", "type": "drop"}, b"water"))
        assert [(came.id, came.data) for came in arrived(sink)] == [("1", b"water")]

    async def test_an_invalid_event_of_the_sdk_is_refused_before_it_is_taken(
        self, any_sink: Callable[[], FakeSink | HttpSink]
    ) -> None:
        sink = any_sink()
        invalid = SdkEvent({"id": "1", "source": "not a uri", "type": "drop"})
        with pytest.raises(InvalidEvent):
            await sink.send(invalid)
        assert arrived(sink) == []
        if isinstance(sink, HttpSink):
            assert sink.counters.taken == 0

    async def test_a_busy_sender_lets_others_run(self, any_sink: Callable[[], FakeSink | HttpSink]) -> None:
        sink = any_sink()
        stop = asyncio.Event()
        asyncio.get_running_loop().call_soon(stop.set)
        for number in range(100):
            await sink.send(event(number))
            if stop.is_set():
                return
        pytest.fail("a hundred sends, and nobody else had a turn")


class TestTheFakesOwn:
    async def test_it_loses_as_it_is_told(self) -> None:
        sink = FakeSink()
        sink.lose(Loss.REFUSED, Loss.STOPPED)
        assert [(await lost(sink, event(number))).loss for number in (1, 2)] == [Loss.REFUSED, Loss.STOPPED]
        await sink.send(event(3))
        assert await sink.accepted(1) == [event(3)]


# Time, by an event loop whose time is ours: no sockets.


@pytest.mark.looptime
class TestWhenItTriesAgain:
    async def test_waits_double_up_to_thirty_seconds(self) -> None:
        transport = FakeTransport()
        transport.then(*[Answer(503)] * 7)
        started = now()
        await in_memory(transport).send(event())
        assert now() - started == 2 + 4 + 8 + 16 + 30 + 30 + 30

    async def test_a_given_delivery_is_obeyed_to_the_letter(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(500))
        policy = policy_from_spec({"retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT40S"})
        started = now()
        error = await lost(in_memory(transport, policy=policy), event())
        assert (error.loss, error.tries, now() - started) == (Loss.EXHAUSTED, 4, 40 + 80 + 120)

    async def test_no_retries_means_one_try(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(503))
        error = await lost(in_memory(transport, policy=Policy(retries=0)), event())
        assert (error.loss, error.tries) == (Loss.EXHAUSTED, 1)

    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_in_seconds_is_waited_for(self, status: int) -> None:
        transport = FakeTransport()
        transport.then(Answer(status, headers=((b"retry-after", b"17"),)))
        started = now()
        await in_memory(transport).send(event())
        assert now() - started == 17

    async def test_retry_after_as_a_date_is_read_by_the_wall_clock(self) -> None:
        transport, started = FakeTransport(), now()
        date = format_datetime(LoopClock().now().replace(microsecond=0) + timedelta(seconds=25), usegmt=True)
        transport.then(Answer(429, headers=((b"Retry-After", date.encode()),)))
        await in_memory(transport).send(event())
        assert now() - started == pytest.approx(25, abs=1)

    async def test_retry_after_is_capped_at_two_minutes(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(503, headers=((b"Retry-After", b"86400"),)))
        started = now()
        await in_memory(transport).send(event())
        assert now() - started == 120

    @pytest.mark.parametrize("value", [b"soon", b"-1", b"", b"1e3", b"Mon, 99 Foo 2026", b"\xc2\xb2"])
    async def test_a_retry_after_that_cannot_be_read_is_ignored(self, value: bytes) -> None:
        transport = FakeTransport()
        transport.then(Answer(503, headers=((b"Retry-After", value),)))
        started = now()
        await in_memory(transport).send(event())
        assert now() - started == 2

    async def test_a_held_event_is_tried_again_each_thirty_seconds(self) -> None:
        transport = FakeTransport()
        transport.then(*[Answer(401)] * 10)
        started = now()
        await in_memory(transport).send(event())
        assert now() - started == 300

    async def test_a_stale_connection_is_tried_again_at_once_and_is_no_attempt(self) -> None:
        transport = FakeTransport()
        sink = in_memory(transport, policy=Policy(retries=0))
        await sink.send(event(1))
        transport.then(Reset())
        started = now()
        await sink.send(event(2))
        assert now() == started
        assert sink.counters.tries == {"202": 2, "stale": 1}

    async def test_after_a_stale_connection_the_given_retries_are_all_left(self) -> None:
        transport = FakeTransport()
        sink = in_memory(transport, policy=Policy(retries=2, jitter=0))
        await sink.send(event(1))
        transport.always(Reset())
        error = await lost(sink, event(2))
        assert error.tries == 1 + 3

    async def test_a_stale_connection_behind_a_closed_fence_is_the_last_try(self) -> None:
        transport, fence = FakeTransport(), Fence()
        sink = in_memory(transport)
        await sink.send(event(1))
        transport.always(_when_asked(lambda _: fence.close(), Reset()))
        assert (await lost(sink, event(2), fence=fence)).tries == 1


def _when_asked(do: Callable[[Post], None], then: Behaviour) -> Callable[[Post], Behaviour]:
    def behave(post: Post) -> Behaviour:
        do(post)
        return then

    return behave


@pytest.mark.looptime
class TestDeadlinesAndFences:
    async def test_no_try_begins_after_the_deadline(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(503))
        started = now()
        error = await lost(in_memory(transport), event(), deadline=Deadline(now() + 10))
        assert (error.loss, error.tries) == (Loss.EXPIRED, 3)  # at 0, 2 and 6 s; the next would be at 14 s
        assert now() - started <= 10

    async def test_the_try_on_the_wire_at_the_deadline_counts(self) -> None:
        transport = FakeTransport(latency=lambda: 20.0)
        await in_memory(transport).send(event(), deadline=Deadline(now() + 10))
        assert transport.events == [event()]

    async def test_a_fence_ends_the_wait_for_the_next_try_at_once(self) -> None:
        transport, fence = FakeTransport(), Fence()
        transport.always(Answer(503))
        started = now()
        asyncio.get_running_loop().call_later(3, fence.close)
        error = await lost(in_memory(transport), event(), fence=fence)
        assert (error.loss, error.tries, now() - started) == (Loss.FENCED, 2, 3)

    async def test_the_try_on_the_wire_when_the_fence_closes_counts(self) -> None:
        transport, fence = FakeTransport(latency=lambda: 20.0), Fence()
        asyncio.get_running_loop().call_later(3, fence.close)
        await in_memory(transport).send(event(), fence=fence)
        assert transport.events == [event()]

    async def test_the_try_on_the_wire_when_the_fence_closes_is_the_last(self) -> None:
        transport, fence = FakeTransport(latency=lambda: 20.0), Fence()
        transport.always(Answer(503))
        asyncio.get_running_loop().call_later(3, fence.close)
        error = await lost(in_memory(transport), event(), fence=fence)
        assert (error.loss, error.tries) == (Loss.FENCED, 1)

    async def test_a_fence_ends_the_wait_for_a_turn_on_the_wire_at_once(self) -> None:
        transport, fence = FakeTransport(latency=lambda: 20.0), Fence()
        sink = in_memory(transport, max_on_wire=1)
        first = asyncio.create_task(sink.send(event(1)))
        await transport.came(1)
        started = now()
        asyncio.get_running_loop().call_later(3, fence.close)
        error = await lost(sink, event(2), fence=fence)
        assert (error.loss, error.tries, now() - started) == (Loss.FENCED, 0, 3)
        await first
        await sink.send(event(3))  # the turn that was given up is not lost

    async def test_a_deadline_ends_the_wait_for_a_turn_on_the_wire(self) -> None:
        transport = FakeTransport(latency=lambda: 20.0)
        sink = in_memory(transport, max_on_wire=1)
        first = asyncio.create_task(sink.send(event(1)))
        await transport.came(1)
        started = now()
        error = await lost(sink, event(2), deadline=Deadline(now() + 5))
        assert (error.loss, error.tries, now() - started) == (Loss.EXPIRED, 0, 5)
        await first

    async def test_a_fence_ends_the_way_to_the_dead_letter_sink_too(self) -> None:
        transport, fence = FakeTransport(), Fence()
        transport.always(lambda post: Answer(422 if post.target.url == SINK else 503))
        sink = in_memory(transport, dead_letter=True)
        asyncio.get_running_loop().call_later(60, fence.close)
        started = now()
        error = await lost(sink, event(), fence=fence)
        assert (error.loss, now() - started) == (Loss.FENCED, 60)
        assert sink.counters.dropped == {"fenced": 1}

    async def test_a_fence_is_told_of_quietly_for_the_event_is_the_next_owners(self, logged: Logged) -> None:
        fence = Fence()
        fence.close()
        await lost(in_memory(FakeTransport()), event(), fence=fence)
        assert [(record.levelname, record.getMessage()) for record in logged.records] == [
            ("INFO", "event was not delivered")
        ]


@pytest.mark.looptime
class TestWhoseFaultItIs:
    """Held or refused, poison and brake: what the sink did with other events decides."""

    async def test_a_held_event_is_refused_once_the_sink_accepts_others(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(403 if is_event(post, "1") else 202))
        sink = in_memory(transport)
        forbidden = asyncio.create_task(lost(sink, event(1)))
        await transport.came(1)
        await asyncio.sleep(1)
        await sink.send(event(2))
        error = await forbidden
        assert (error.loss, error.tries, error.last) == (Loss.REFUSED, 2, "HTTP 403")

    async def test_an_event_held_with_all_others_is_held_for_hours(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(403))
        sink = in_memory(transport)
        sends = [asyncio.create_task(sink.send(event(number))) for number in range(3)]
        await asyncio.sleep(6 * 3600)
        transport.always(Answer())
        await asyncio.gather(*sends)
        assert sink.counters.delivered == 3

    async def test_after_twenty_refusals_in_a_row_the_brake_holds_the_rest(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(400))
        sink = in_memory(transport)
        for number in range(20):
            assert (await lost(sink, event(number))).loss is Loss.REFUSED
        held = asyncio.create_task(sink.send(event(20)))
        await asyncio.sleep(3600)
        assert not held.done()
        transport.always(Answer())
        await held
        assert (sink.counters.refused, sink.counters.delivered) == (20, 1)

    async def test_a_backlog_sent_at_once_loses_no_more_than_the_brake_allows(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        transport.always(Answer(410))
        sink = in_memory(transport)
        sends = [asyncio.create_task(sink.send(event(number))) for number in range(100)]
        await asyncio.sleep(300)
        assert sink.counters.refused == 20
        transport.always(Answer())
        await asyncio.gather(*sends, return_exceptions=True)
        assert (sink.counters.refused, sink.counters.delivered) == (20, 80)

    async def test_an_accepted_event_lets_the_brake_go(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(202 if is_event(post, "19") else 400))
        sink = in_memory(transport)
        for number in range(38):
            if number == 19:
                await sink.send(event(number))
            else:
                await lost(sink, event(number))
        assert sink.counters.refused == 37

    async def test_poison_is_refused_after_an_hour_in_which_others_were_accepted(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(500 if is_event(post, "1") else 202))
        sink = in_memory(transport)
        started = now()
        poison = asyncio.create_task(lost(sink, event(1)))
        for number in range(2, 1000):
            await asyncio.sleep(10)
            await sink.send(event(number))
            if poison.done():
                break
        assert (await poison).loss is Loss.POISON
        assert 3600 <= now() - started < 3700
        assert sink.counters.refused == 1

    async def test_poison_waits_for_ever_where_that_is_asked(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(500 if is_event(post, "1") else 202))
        sink = in_memory(transport, policy=Policy(on_exhausted=OnExhausted.HOLD))
        poison = asyncio.create_task(sink.send(event(1)))
        for number in range(2, 1000):
            await asyncio.sleep(20)
            await sink.send(event(number))
        assert not poison.done()
        transport.always(Answer())
        await poison

    async def test_a_sink_that_is_down_for_hours_makes_no_event_poison(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(503))
        sink = in_memory(transport)
        sends = [asyncio.create_task(sink.send(event(number))) for number in range(3)]
        await asyncio.sleep(6 * 3600)
        transport.always(Answer())
        await asyncio.gather(*sends)
        assert sink.counters.delivered == 3


def is_event(post: Post, wanted: str) -> bool:
    (came,) = decode(post.headers, post.body)
    return came.id == wanted


@pytest.mark.looptime
class TestDeadLetters:
    async def test_a_refused_event_goes_there_with_what_went_wrong(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(422, body=b"no such \xffdrop"))
        binding = SinkBinding(sink=f"{SINK}?key={SECRET}", overrides={"region": "alps"})
        sink = in_memory(transport, dead_letter=True, binding=binding)
        await sink.send(event(subject="a", extensions={"level": 3}))
        (dead,) = transport.events
        assert dead == event(
            subject="a",
            extensions={
                "level": "3",
                "region": "alps",
                "knativeerrordest": SINK,
                "knativeerrorcode": "422",
                "knativeerrordata": base64.b64encode(b"no such \xffdrop").decode(),
            },
        )
        assert transport.posts[-1].target.url == DEAD_LETTERS
        assert (sink.counters.dead_lettered, sink.counters.refused, sink.counters.balance) == (1, 0, 0)

    async def test_without_an_answer_only_the_sink_is_named(self) -> None:
        transport = FakeTransport()
        transport.then(Reset(), Reset())
        await in_memory(transport, dead_letter=True, policy=Policy(retries=1)).send(event())
        assert dict(transport.events[0].extensions) == {"knativeerrordest": SINK}

    async def test_of_a_long_answer_the_first_kilobyte_is_kept_and_can_be_decoded(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(400, body=b"x" * 5000))
        await in_memory(transport, dead_letter=True).send(event())
        data = transport.events[0].extensions["knativeerrordata"]
        assert isinstance(data, str)
        assert base64.b64decode(data, validate=True) == b"x" * 768

    async def test_what_an_earlier_dead_letter_says_is_kept(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(400, body=b"again"))
        await in_memory(transport, dead_letter=True).send(event(extensions={"knativeerrorcode": 410}))
        assert transport.events[0].extensions["knativeerrorcode"] == "410"

    @pytest.mark.parametrize(
        ("behaviour", "policy", "deadline"),
        [
            (Answer(503), Policy(retries=2), None),
            (Answer(503), EXACT, 10.0),
            (Hang(), Policy(retries=1), None),
            (Garbage(), Policy(retries=1), None),
        ],
    )
    async def test_an_event_whose_time_or_tries_are_over_goes_there(
        self, behaviour: Behaviour, policy: Policy, deadline: float | None
    ) -> None:
        transport = FakeTransport()
        transport.always(lambda post: behaviour if post.target.url == SINK else Answer())
        sink = in_memory(transport, policy=policy, dead_letter=True)
        await sink.send(event(), deadline=Deadline(now() + deadline) if deadline else None)
        assert sink.counters.dead_lettered == 1

    async def test_it_is_tried_as_patiently_as_the_sink(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(400), Answer(503), Garbage(), Answer(202))
        sink = in_memory(transport, dead_letter=True)
        await sink.send(event())
        assert (sink.counters.dead_lettered, sink.counters.tries) == (1, {"400": 1, "503": 1, "protocol": 1, "202": 1})

    async def test_when_it_refuses_as_well_the_caller_is_told_and_it_is_counted_as_refused(
        self, logged: Logged
    ) -> None:
        transport = FakeTransport()
        transport.then(Answer(422, body=b"no"), Answer(400, body=b"nor here"))
        sink = in_memory(transport, dead_letter=True)
        error = await lost(sink, event())
        assert (error.loss, error.last, error.accounted) == (Loss.REFUSED, "HTTP 422: no", False)
        assert (sink.counters.refused, sink.counters.dead_lettered, sink.counters.balance) == (1, 0, 0)
        assert logged.facts("dead-letter sink did not accept")["last"] == "HTTP 400: nor here"
        assert logged.facts("event was not delivered")["id"] == "1"

    async def test_what_is_refused_where_there_is_no_dead_letter_sink_may_be_acknowledged(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(422))
        error = await lost(in_memory(transport), event())
        assert (error.loss, error.dead_letter_failed, error.accounted) == (Loss.REFUSED, False, True)

    async def test_what_is_fenced_may_not_be_acknowledged(self) -> None:
        transport, fence = FakeTransport(), Fence()
        fence.close()
        error = await lost(in_memory(transport, dead_letter=True), event(), fence=fence)
        assert (error.loss, error.accounted) == (Loss.FENCED, False)

    async def test_an_expired_event_has_a_minute_to_get_there(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(503))
        started = now()
        await lost(in_memory(transport, dead_letter=True), event(), deadline=Deadline(now() + 10))
        assert 60 - 30 <= now() - started <= 10 + 60

    async def test_a_fenced_event_does_not_go_there(self) -> None:
        transport, fence = FakeTransport(), Fence()
        transport.always(_when_asked(lambda _: fence.close(), Answer(503)))
        await lost(in_memory(transport, dead_letter=True), event(), fence=fence)
        assert [post.target.url for post in transport.posts] == [SINK]


@pytest.mark.looptime
class TestOnTheWire:
    async def test_no_more_tries_than_allowed_are_on_the_wire(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        sink = in_memory(transport, max_on_wire=3)
        started = now()
        await asyncio.gather(*(sink.send(event(number)) for number in range(30)))
        assert transport.most_on_wire == 3
        assert now() - started == 10

    async def test_turns_are_taken_in_order(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        sink = in_memory(transport, max_on_wire=1)
        await asyncio.gather(*(sink.send(event(number)) for number in range(10)))
        assert transport.events == [event(number) for number in range(10)]

    async def test_events_that_wait_for_their_next_try_are_in_nobodys_way(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(202 if is_event(post, "99") else 503))
        sink = in_memory(transport, max_on_wire=1)
        waiting = [asyncio.create_task(sink.send(event(number))) for number in range(2)]
        await transport.came(2)
        started = now()
        await sink.send(event(99))
        assert now() == started
        transport.always(Answer())
        await asyncio.gather(*waiting)

    async def test_a_try_that_takes_too_long_is_ended_after_thirty_seconds(self) -> None:
        transport = FakeTransport()
        transport.then(Hang())
        started = now()
        sink = in_memory(transport)
        await sink.send(event())
        assert now() - started == 30 + 2
        assert sink.counters.tries == {"timeout": 1, "202": 1}

    @pytest.mark.parametrize(
        ("behaviour", "maybe"),
        [(Reset(), True), (Hang(), True), (Garbage(), True), (HalfAnswer(), True), (Answer(503), False)],
    )
    async def test_it_is_told_whether_the_sink_may_hold_the_event(self, behaviour: Behaviour, *, maybe: bool) -> None:
        transport = FakeTransport()
        transport.always(behaviour)
        error = await lost(in_memory(transport, policy=Policy(retries=1)), event())
        assert error.maybe_accepted is maybe

    @pytest.mark.parametrize("why", [NoAnswer.CONNECT, NoAnswer.TLS])
    async def test_without_a_connection_the_sink_surely_holds_nothing(self, why: NoAnswer) -> None:
        class Away(FakeTransport):
            def begin(self, _post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
                return asyncio.get_running_loop().call_soon(done, Unanswered(why, "away")).cancel

        error = await lost(in_memory(Away(), policy=Policy(retries=0)), event())
        assert error.maybe_accepted is False


# The end.


@pytest.mark.looptime
class TestDrain:
    async def test_deliveries_land_within_the_grace(self) -> None:
        transport = FakeTransport(latency=lambda: 5.0)
        sink = in_memory(transport)
        sends = [asyncio.create_task(sink.send(event(number))) for number in range(5)]
        await transport.came(5)
        started = now()
        assert await sink.drain(30) == 0
        assert now() - started == 5  # and no longer than needed
        await asyncio.gather(*sends)

    async def test_deliveries_whose_callers_are_gone_land_as_well(self) -> None:
        transport = FakeTransport(latency=lambda: 5.0)
        sink = in_memory(transport)
        caller = asyncio.create_task(sink.send(event()))
        await transport.came(1)
        caller.cancel()
        assert await sink.drain(30) == 0
        assert transport.events == [event()]

    @pytest.mark.parametrize("behaviour", [Answer(503), Hang(), Answer(401)])
    async def test_what_does_not_land_is_counted_and_logged_and_told_to_its_caller(
        self, behaviour: Behaviour, logged: Logged
    ) -> None:
        transport = FakeTransport()
        transport.always(behaviour)
        sink = in_memory(transport, dead_letter=True)
        sending = asyncio.create_task(lost(sink, event()))
        await transport.came(1)
        started = now()
        assert await sink.drain(25) == 1
        assert now() - started == 25
        error = await sending
        assert error.loss is Loss.STOPPED
        assert error.maybe_accepted is isinstance(behaviour, Hang)
        assert (sink.counters.dropped, sink.counters.in_flight, sink.counters.balance) == ({"stopped": 1}, 0, 0)
        facts = logged.facts("event was not delivered")
        assert (facts["id"], facts["source"], facts["type"], facts["loss"]) == ("1", "/spring", "drop", "stopped")

    async def test_what_waits_for_a_turn_on_the_wire_is_counted_as_well(self) -> None:
        transport = FakeTransport()
        transport.always(Hang())
        sink = in_memory(transport, max_on_wire=1)
        sends = [asyncio.create_task(lost(sink, event(number))) for number in range(5)]
        await transport.came(1)
        assert await sink.drain(1) == 5
        errors = await asyncio.gather(*sends)
        assert [(error.loss, error.tries, error.maybe_accepted) for error in errors] == [
            (Loss.STOPPED, 1, True),
            *[(Loss.STOPPED, 0, False)] * 4,
        ]
        assert sink.counters.dropped == {"stopped": 5}

    async def test_an_event_on_its_way_to_the_dead_letter_sink_is_counted_as_stopped(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(422) if post.target.url == SINK else Hang())
        sink = in_memory(transport, dead_letter=True)
        sending = asyncio.create_task(lost(sink, event()))
        await transport.came(2)
        assert await sink.drain(1) == 1
        assert (await sending).loss is Loss.STOPPED  # nobody may acknowledge it: it is in neither sink
        assert (sink.counters.dropped, sink.counters.refused) == ({"stopped": 1}, 0)

    async def test_an_event_handed_over_in_the_last_moment_is_counted_and_told(self) -> None:
        transport = FakeTransport()
        transport.always(Hang())
        sink = in_memory(transport)
        first = asyncio.create_task(lost(sink, event(1)))
        await transport.came(1)
        draining = asyncio.create_task(sink.drain(1))
        last: list[asyncio.Task[DeliveryError]] = []

        def send_one_more() -> None:
            last.append(asyncio.create_task(lost(sink, event(len(last) + 2))))

        for late in (1 - 1e-6, 1, 1 + 1e-6):
            asyncio.get_running_loop().call_later(late, send_one_more)
        await draining
        await asyncio.sleep(1)
        errors = await asyncio.gather(first, *last)
        assert [error.loss for error in errors] == [Loss.STOPPED] * 4
        assert (sink.counters.dropped, sink.counters.in_flight, sink.counters.balance) == ({"stopped": 4}, 0, 0)

    async def test_a_delivery_that_never_began_is_counted_and_told(self) -> None:
        transport = FakeTransport()
        transport.always(Hang())
        sink = in_memory(transport)
        sends = [asyncio.create_task(lost(sink, event(number))) for number in range(3)]
        await asyncio.sleep(0)
        await sink.drain(0)
        assert [(await sending).loss for sending in sends] == [Loss.STOPPED] * 3
        assert (sink.counters.in_flight, sink.counters.dropped) == (0, {"stopped": 3})

    async def test_after_the_drain_nothing_is_taken_up(self) -> None:
        transport = FakeTransport()
        sink = in_memory(transport)
        await sink.drain(1)
        error = await lost(sink, event())
        assert (error.loss, error.tries) == (Loss.STOPPED, 0)
        assert (transport.posts, sink.counters.dropped, sink.counters.balance) == ([], {"stopped": 1}, 0)

    async def test_draining_an_idle_sink_takes_no_time_and_twice_is_once(self) -> None:
        sink, started = in_memory(FakeTransport()), now()
        assert (await sink.drain(30), await sink.drain(30)) == (0, 0)
        assert now() == started

    async def test_no_task_is_left(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        transport.always(Answer(503))
        before = asyncio.all_tasks()
        sink = in_memory(transport, max_on_wire=2)
        sends = [asyncio.create_task(lost(sink, event(number))) for number in range(5)]
        await transport.came(4)
        await sink.drain(3)
        await asyncio.gather(*sends)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


# What may come of a transport, or of overrides, that break their promises.


async def test_an_accepted_event_leaves_nothing_to_the_collector_of_cycles() -> None:
    async with over_http() as (_, sink):
        await sink.send(event())
        gc.collect()
        gc.disable()
        try:
            for number in range(50):
                await sink.send(event(number))
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = {type(one).__module__ + "." + type(one).__qualname__ for one in gc.garbage}
            assert not [kind for kind in kinds if kind.startswith("wellhead.") and "http_" not in kind]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


@pytest.mark.looptime
class TestBrokenPromises:
    async def test_overrides_that_no_event_can_carry_are_refused_before_it_is_taken(self) -> None:
        sink = in_memory(FakeTransport(), binding=SinkBinding(sink=SINK, overrides={"Bad-Name": "x"}))
        with pytest.raises(InvalidEvent):
            await sink.send(event())
        assert (sink.counters.taken, sink.counters.in_flight) == (0, 0)

    async def test_an_unknown_failure_of_the_transport_is_counted_and_logged_also_without_a_caller(
        self, logged: Logged
    ) -> None:
        class Broken(FakeTransport):
            def begin(self, _post: Post, _done: Callable[[Outcome], object], /) -> Callable[[], None]:
                raise LookupError("who knows")

        sink = in_memory(Broken())
        caller = asyncio.create_task(sink.send(event()))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.sleep(1)
        assert (sink.counters.in_flight, sink.counters.balance) == (0, 0)
        assert "delivery failed" in logged.lines


# Logs.


@pytest.mark.looptime
class TestLogs:
    async def test_down_and_up_are_told_once_and_retries_not_at_all(self, logged: Logged) -> None:
        transport = FakeTransport()
        transport.then(*[Answer(503, body=b"full")] * 6)
        sink = in_memory(transport)
        await sink.send(event(1))
        assert logged.lines == ["sink is down", "sink is up again"]
        assert logged.facts("sink is down")["reason"] == "HTTP 503: full"
        assert logged.facts("sink is up again")["down_seconds"] == 2 + 4 + 8 + 16 + 30 + 30

    async def test_a_sink_that_fails_now_and_then_among_accepted_events_is_not_down(self, logged: Logged) -> None:
        transport = FakeTransport(latency=lambda: 0.01)
        transport.then(*[Answer(503 if number % 20 == 7 else 202) for number in range(1000)])
        sink = in_memory(transport, policy=FAST)

        async def lane(number: int) -> None:
            for one in range(50):
                await sink.send(event(100 * number + one))

        await asyncio.gather(*(lane(number) for number in range(10)))
        assert sink.counters.tries["503"] > 20
        assert logged.lines == []

    async def test_a_sink_that_accepted_others_just_now_and_fails_thrice_is_down(self, logged: Logged) -> None:
        transport = FakeTransport(latency=lambda: 0.01)
        transport.then(Answer(), *[Answer(503)] * 3)
        sink = in_memory(transport, policy=FAST)
        await sink.send(event(1))
        await sink.send(event(2))
        assert logged.lines == ["sink is down", "sink is up again"]

    async def test_many_events_tell_it_once(self, logged: Logged) -> None:
        transport = FakeTransport()
        transport.always(Answer(503))
        sink = in_memory(transport)
        sends = [asyncio.create_task(sink.send(event(number))) for number in range(50)]
        await asyncio.sleep(3600)
        transport.always(Answer())
        await asyncio.gather(*sends)
        assert logged.lines == ["sink is down", "sink is up again"]

    async def test_a_sink_that_changes_from_away_to_held_is_told_of_louder_once(self, logged: Logged) -> None:
        transport = FakeTransport()
        transport.then(Answer(503), Answer(401), Answer(503), Answer(401), Answer(401))
        sink = in_memory(transport)
        sending = asyncio.create_task(sink.send(event()))
        await transport.came(3)
        await asyncio.sleep(1)
        assert sink.address.down_reason == "HTTP 503"
        await sending
        assert [(record.levelname, getattr(record, "reason", "")) for record in logged.records] == [
            ("WARNING", "HTTP 503"),
            ("ERROR", "HTTP 401"),
            ("INFO", ""),
        ]

    async def test_a_stale_connection_is_not_worth_a_line(self, logged: Logged) -> None:
        transport = FakeTransport()
        sink = in_memory(transport)
        await sink.send(event(1))
        transport.then(Reset())
        await sink.send(event(2))
        assert logged.lines == []

    async def test_a_refused_event_is_told_with_what_it_takes_to_find_it(self, logged: Logged) -> None:
        transport = FakeTransport()
        transport.then(Answer(422, body=b"no such drop\x1b[31m"))
        await lost(in_memory(transport), event())
        facts = logged.facts("event was not delivered")
        wanted = ("sink", "id", "source", "type", "loss", "last", "tries")
        assert [facts[name] for name in wanted] == [
            SINK, "1", "/spring", "drop", "refused", "HTTP 422: no such drop\\x1b[31m", 1,
        ]  # fmt: skip

    async def test_delivered_events_are_not_logged(self, logged: Logged) -> None:
        await in_memory(FakeTransport()).send(event())
        assert logged.records == []


# Conservation: whatever happens, every event is counted once, and what is counted is what the sink saw.

BEHAVIOURS: Final = st.sampled_from(
    [
        Answer(),
        Answer(),
        Answer(503),
        Answer(401),
        Answer(422),
        Reset(),
        Hang(),
        HalfAnswer(),
        HalfAnswer(202),
        Garbage(),
    ]
)
SENDS: Final = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 100),
            "cancelled_after": st.none() | st.integers(0, 60),
            "fenced_after": st.none() | st.integers(0, 60),
            "worth": st.none() | st.integers(0, 100),
        }
    ),
    min_size=1,
    max_size=25,
)
BATCHES: Final = st.none() | st.builds(
    BatchLimits,
    events=st.sampled_from([1, 2, 5, 100]),
    octets=st.sampled_from([1, 300, 1 << 20]),
    linger=st.sampled_from([timedelta(), timedelta(milliseconds=5), timedelta(seconds=3)]),
)


def in_virtual_time(test: Coroutine[None, None, None]) -> None:
    loop = virtual.new_event_loop()
    try:
        loop.run_until_complete(test)
        left = asyncio.all_tasks(loop)
    finally:
        loop.close()
    assert not left, f"left behind: {left}"


class TestConservation:
    @settings(max_examples=150, deadline=None)
    @given(
        sends=SENDS,
        script=st.lists(BEHAVIOURS, max_size=60),
        latencies=st.lists(st.sampled_from([0.0, 0.5, 7.0, 31.0]), min_size=1, max_size=10),
        max_on_wire=st.sampled_from([1, 3, 128]),
        batch=BATCHES,
        retries=st.sampled_from([None, None, 0, 2]),
        dead_letter=st.booleans(),
        drain_at=st.integers(0, 150),
        grace=st.sampled_from([0, 1, 25]),
    )
    @example(  # the time-out of the try and the end of the drain's grace fall together: a task that never began
        sends=[{"at": at, "cancelled_after": None, "fenced_after": None, "worth": None} for at in (0, 0, 0, 47)],
        script=[],
        latencies=[0.0, 0.0, 0.0, 31.0],
        max_on_wire=1,
        batch=None,
        retries=None,
        dead_letter=False,
        drain_at=76,
        grace=1,
    )
    @example(  # accepted at the very end of the drain
        sends=[{"at": 0, "cancelled_after": None, "fenced_after": None, "worth": None}] * 2,
        script=[],
        latencies=[0.5],
        max_on_wire=1,
        batch=None,
        retries=None,
        dead_letter=False,
        drain_at=1,
        grace=0,
    )
    def test_every_event_is_counted_once_whatever_happens(self, **story: Any) -> None:
        in_virtual_time(_conserved(**story))


async def _conserved(
    *,
    sends: list[dict[str, int | None]],
    script: list[Behaviour],
    latencies: list[float],
    max_on_wire: int,
    batch: BatchLimits | None,
    retries: int | None,
    dead_letter: bool,
    drain_at: int,
    grace: float,
) -> None:
    turn = iter(range(10**9))

    def latency() -> float:
        assert counters.balance == 0
        return latencies[next(turn) % len(latencies)]

    transport = FakeTransport(latency=latency)
    transport.then(*script)
    policy = Policy(retries=retries, backoff_delay=timedelta(seconds=1))
    sink = in_memory(transport, policy=policy, dead_letter=dead_letter, max_on_wire=max_on_wire, batch=batch)
    counters = sink.counters
    ends: dict[str, Loss | None] = {}

    async def one(number: int, plan: dict[str, int | None]) -> None:
        await asyncio.sleep(plan["at"] or 0)
        fence = Fence()
        if plan["fenced_after"] is not None:
            asyncio.get_running_loop().call_later(plan["fenced_after"], fence.close)
        deadline = Deadline(now() + plan["worth"]) if plan["worth"] is not None else None
        sending = asyncio.create_task(sink.send(event(number), deadline=deadline, fence=fence))
        if plan["cancelled_after"] is not None:
            asyncio.get_running_loop().call_later(plan["cancelled_after"], sending.cancel)
        try:
            await sending
            ends[str(number)] = None
        except DeliveryError as error:
            ends[error.event_id] = error.loss
        except asyncio.CancelledError:
            assert plan["cancelled_after"] is not None
        assert counters.balance == 0

    async with asyncio.TaskGroup() as group:
        for number, plan in enumerate(sends):
            group.create_task(one(number, plan))
        await asyncio.sleep(drain_at)
        before = now()
        stopped = await sink.drain(grace)
        assert now() - before <= grace
        assert counters.balance == 0 == counters.in_flight
        assert stopped <= counters.dropped.get("stopped", 0)  # beside sends that came too late

    assert (counters.balance, counters.in_flight) == (0, 0)
    accepted = [came.id for came in transport.events]
    assert len(accepted) == len(set(accepted))
    assert sum(counters.tries.values()) <= len(transport.tried)
    # Those on the wire in one batch are stopped one after another, and the batch with the last of them.
    unknown = counters.dropped.get("stopped", 0) if batch else 0
    assert 0 <= len(accepted) - counters.delivered - counters.dead_lettered <= unknown
    assert transport.most_on_wire <= max_on_wire
    assert {number for number, loss in ends.items() if loss is None} <= set(accepted)
    assert not {number for number, loss in ends.items() if loss not in (None, batch and Loss.STOPPED)} & set(accepted)
    await asyncio.sleep(0)


# Over real HTTP.


@asynccontextmanager
async def over_http(
    *,
    policy: Policy = FAST,
    dead_letter: RecordingSink | None = None,
    token_file: Path | None = None,
    query: str = "",
) -> AsyncIterator[tuple[RecordingSink, HttpSink]]:
    transport = HttpTransport()
    try:
        async with asyncio.timeout(IN_TIME), RecordingSink() as there:
            binding = SinkBinding(sink=there.url + query)
            credentials = Credentials(CredentialSources(token_file=token_file or OIDC_TOKEN))
            address = Address(binding, transport, credentials=credentials)
            sink = HttpSink(
                binding,
                address,
                clock=SystemClock(),
                policy=policy,
                dead_letter=Address(SinkBinding(sink=dead_letter.url), transport) if dead_letter else None,
            )
            yield there, sink
            await sink.drain(0)
    finally:
        await transport.aclose()


class TestOverHttp:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
    async def test_every_2xx_accepts(self, status: int) -> None:
        async with over_http() as (there, sink):
            there.then(Answer(status))
            await sink.send(event())
            assert there.events == [event()]

    @pytest.mark.parametrize("status", [404, 408, 409, 425, 429, 500, 501, 502, 503, 504, 599, 600, 999])
    async def test_what_passes_is_tried_again_with_the_same_event(self, status: int) -> None:
        async with over_http() as (there, sink):
            there.then(Answer(status), Answer(status))
            await sink.send(event())
            assert there.tried == [event()] * 3
            assert sink.counters.tries == {str(status): 2, "202": 1}

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399, 401, 403, 405, 407, 415])
    async def test_what_is_wrong_with_the_sink_holds_the_event(self, status: int) -> None:
        async with over_http(policy=Policy(cap=timedelta(milliseconds=10))) as (there, sink):
            there.then(*[Answer(status)] * 4)
            await sink.send(event())
            assert sink.counters.tries == {str(status): 4, "202": 1}

    @pytest.mark.parametrize(
        "status", [400, 402, 406, 410, 411, 412, 413, 414, 416, 417, 418, 421, 422, 426, 431, 451, 499]
    )
    async def test_what_is_wrong_with_the_event_refuses_it_and_the_next_goes_through(self, status: int) -> None:
        async with over_http() as (there, sink):
            there.then(Answer(status, body=b"because"))
            error = await lost(sink, event(1))
            assert (error.loss, error.tries, error.last) == (Loss.REFUSED, 1, f"HTTP {status}: because")
            await sink.send(event(2))
            assert there.events == [event(2)]

    async def test_a_redirect_loop_is_not_followed(self) -> None:
        async with over_http() as (there, sink), RecordingSink() as elsewhere:
            there.always(Answer(308, headers=((b"Location", elsewhere.url.encode()),)))
            fence = Fence()
            sending = asyncio.create_task(lost(sink, event(), fence=fence))
            await there.came(3)
            fence.close()
            assert (await sending).last == "HTTP 308"
            assert elsewhere.requests == []

    @pytest.mark.parametrize("behaviour", [Reset(), HalfAnswer(), Garbage(), Hang()])
    async def test_a_try_without_an_answer_is_repeated(self, behaviour: Behaviour) -> None:
        policy = Policy(backoff_delay=timedelta(milliseconds=1), timeout=timedelta(milliseconds=100))
        async with over_http(policy=policy) as (there, sink):
            there.then(behaviour, behaviour)
            await sink.send(event())
            assert there.tried == [event()] * 3
            assert there.events == [event()]

    async def test_half_a_body_of_a_2xx_accepts_for_the_head_came(self) -> None:
        async with over_http() as (there, sink):
            there.then(HalfAnswer(202))
            await sink.send(event())
            assert sink.counters.tries == {"202": 1}

    async def test_huge_answers_harm_nobody(self) -> None:
        async with over_http() as (there, sink):
            there.then(Answer(202, body=b"x" * 10_000_000), Answer(503, body=b"x" * 10_000_000))
            await sink.send(event(1))
            await sink.send(event(2))
            assert there.events == [event(1), event(2)]

    async def test_a_slow_sink_is_waited_for(self) -> None:
        async with over_http() as (there, sink):
            go_on = asyncio.Event()
            there.then(Answer(202, until=go_on))
            sending = asyncio.create_task(sink.send(event()))
            await there.came(1)
            assert not sending.done()
            go_on.set()
            await sending

    async def test_a_sink_that_is_away_is_waited_for(self, logged: Logged) -> None:
        async with over_http() as (there, sink):
            await there.stop()
            sending = asyncio.create_task(sink.send(event()))
            await logged.line("sink is down")
            await there.start()
            await sending
            assert there.events == [event()]
            assert logged.lines[-1] == "sink is up again"

    async def test_a_server_that_closes_kept_connections_without_saying_so_costs_no_wait(self) -> None:
        served = 0

        async def answer_and_close(connection: Connection) -> None:
            nonlocal served
            served += 1
            connection.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            await connection.drain()

        server = HttpServer(lambda _: Takeover(answer_and_close))
        host, port = await server.start("127.0.0.1", 0)
        binding, transport = SinkBinding(sink=f"http://{host}:{port}/"), HttpTransport()
        sink = HttpSink(binding, Address(binding, transport), clock=SystemClock(), policy=NEVER_AGAIN)
        async with asyncio.timeout(IN_TIME):
            for number in range(200):
                await sink.send(event(number))
        assert (sink.counters.delivered, served) == (200, 200)
        await transport.aclose()
        await server.stop(0)

    async def test_a_kept_connection_that_is_reset_costs_no_wait_and_no_attempt(self) -> None:
        async with over_http(policy=Policy(retries=0)) as (there, sink):
            await sink.send(event(1))
            there.then(Reset())
            await sink.send(event(2))
            assert there.events == [event(1), event(2)]
            assert sink.counters.tries == {"202": 2, "stale": 1}

    async def test_a_burst_over_connections_that_all_went_stale_is_delivered(self) -> None:
        async with over_http(policy=NEVER_AGAIN) as (there, sink):
            go_on = asyncio.Event()
            there.then(*[Answer(202, until=go_on)] * 50)
            first = [asyncio.create_task(sink.send(event(number))) for number in range(50)]
            await there.came(50)
            go_on.set()
            await asyncio.gather(*first)
            there.then(*[Reset()] * 50)
            await asyncio.gather(*(sink.send(event(number)) for number in range(50, 100)))
            assert sink.counters.tries == {"202": 100, "stale": 50}

    async def test_the_dead_letter_sink_gets_what_the_sink_refused(self) -> None:
        async with RecordingSink() as dead_letters, over_http(dead_letter=dead_letters) as (there, sink):
            there.then(Answer(422, body=b"no"))
            await sink.send(event())
            (dead,) = dead_letters.events
            assert dict(dead.extensions) == {
                "knativeerrordest": there.url,
                "knativeerrorcode": "422",
                "knativeerrordata": "bm8=",
            }

    async def test_the_order_of_one_task_is_kept_through_any_trouble(self) -> None:
        policy = Policy(backoff_delay=timedelta(milliseconds=1), timeout=timedelta(milliseconds=50))
        async with over_http(policy=policy) as (there, sink):
            there.then(Answer(), Reset(), Answer(503), Answer(), HalfAnswer(202), Hang(), Garbage(), Answer(), Reset())
            for number in range(10):
                await sink.send(event(number))
            assert list(dict.fromkeys(tried.id for tried in there.tried)) == [str(number) for number in range(10)]


class TestTheToken:
    async def test_it_goes_with_each_try_and_is_read_again_when_it_was_wrong(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("old\n")
        async with over_http(token_file=token) as (there, sink):
            there.always(Answer(401))
            sending = asyncio.create_task(sink.send(event()))
            await there.came(1)
            token.write_text("new\n")
            there.always(Answer(202))
            await sending
            sent = [received.request.header("authorization") for received in there.requests]
            assert (sent[0], sent[-1]) == ("Bearer old", "Bearer new")

    async def test_without_a_file_none_is_sent_until_one_appears(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        async with over_http(token_file=token) as (there, sink):
            there.always(Answer(401))
            sending = asyncio.create_task(sink.send(event()))
            await there.came(1)
            token.write_text("first")
            there.always(Answer(202))
            await sending
            sent = [received.request.header("authorization") for received in there.requests]
            assert (sent[0], sent[-1]) == (None, "Bearer first")


def everything_shown(logged: Logged, *others: object) -> str:
    lines = [form.format(record) for record in logged.records for form in (JsonLines(), TextLines(colour=False))]
    return "\n".join([*lines, *(f"{other} {other!r}" for other in others)])


class TestSecrets:
    @pytest.mark.parametrize(
        "behaviour",
        [Answer(401), Answer(422), Answer(503), Answer(302), Reset(), HalfAnswer(), Garbage(), Hang()],
        ids=str,
    )
    async def test_none_is_shown_whatever_goes_wrong(
        self, behaviour: Behaviour, tmp_path: Path, logged: Logged
    ) -> None:
        token = tmp_path / "token"
        token.write_text(f"{SECRET}-token")
        policy = Policy(retries=1, backoff_delay=timedelta(), cap=timedelta(), timeout=timedelta(seconds=0.05))
        async with over_http(policy=policy, token_file=token, query=f"?key={SECRET}-query") as (there, sink):
            there.always(behaviour)
            error = await lost(sink, event(), deadline=None)
            assert there.requests[0].request.header("authorization") == f"Bearer {SECRET}-token"
            assert there.requests[0].request.query == f"key={SECRET}-query"
            shown = everything_shown(logged, error, vars(error), sink, sink.address, sink.counters)
        assert "event was not delivered" in shown
        assert SECRET not in shown

    @pytest.mark.parametrize("status", [401, 422, 503])
    async def test_a_sink_that_repeats_what_it_got_gives_none_away(
        self, status: int, tmp_path: Path, logged: Logged
    ) -> None:
        token = tmp_path / "token"
        token.write_text(f"{SECRET}-token")
        policy = Policy(retries=0)
        echo = f'cannot POST {{"key": "{SECRET}-query", "authorization": "Bearer {SECRET}-token"}}'.encode()
        async with (
            RecordingSink() as dead_letters,
            over_http(policy=policy, token_file=token, query=f"?key={SECRET}-query", dead_letter=dead_letters) as (
                there,
                sink,
            ),
        ):
            there.always(Answer(status, body=echo))
            dead_letters.always(Answer(400, body=b"nor here"))
            error = await lost(sink, event())
            (dead,) = dead_letters.tried
            data = str(dead.extensions["knativeerrordata"])
            shown = everything_shown(logged, error, vars(error)) + base64.b64decode(data).decode()
        assert "cannot POST" in shown
        assert SECRET not in shown


def test_a_sink_costs_nothing_until_it_is_used() -> None:
    """Ten thousand are made without an event loop."""
    transport = FakeTransport()
    sinks = [in_memory(transport) for _ in range(10_000)]
    assert len({id(sink.counters) for sink in sinks}) == 10_000
