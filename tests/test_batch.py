"""Which events share a batch (tables and properties), and what batches do to deliveries: nothing but save requests."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_sink import FAST, event, in_memory, lost, now

from wellhead.adapter import Deadline, Fence
from wellhead.address import Address
from wellhead.batch import BatchLimits, Fill, fill, half
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.delivery import Policy
from wellhead.errors import Loss
from wellhead.http_binding import BATCH, decode, encode_structured
from wellhead.sink import HttpSink
from wellhead.testing import Answer, FakeTransport, HalfAnswer, Hang, RecordingSink, Reset
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wellhead.delivery import Outcome
    from wellhead.testing import Behaviour
    from wellhead.transport import Post

TEN: Final = BatchLimits(events=10, linger=timedelta(seconds=1))
OCTETS: Final = len(encode_structured(event(0)))
CANNOT: Final = "7"
"""The event that the sink of a test has something against."""

waiting = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 12)), min_size=1, max_size=20)


# Which of those who wait go together.


@pytest.mark.parametrize(
    ("those_who_wait", "together"),
    [
        ([], Fill(0, full=False)),
        ([(5, 3)], Fill(1, full=False)),
        ([(5, 3)] * 2, Fill(2, full=False)),
        ([(5, 3)] * 3, Fill(3, full=True)),
        ([(5, 3)] * 4, Fill(3, full=True)),
        ([(5, 9)] * 9, Fill(3, full=True)),  # the limit of all
        ([(5, 1), (5, 3)], Fill(1, full=True)),  # one that goes alone
        ([(5, 3), (5, 1)], Fill(1, full=True)),  # nobody is passed over
        ([(5, 2), (5, 3), (5, 3)], Fill(2, full=True)),
        ([(99, 3)], Fill(1, full=True)),  # too large for any company
        ([(5, 3), (99, 3)], Fill(1, full=True)),
        ([(8, 3), (9, 3)], Fill(2, full=True)),  # [8,9] has 20 octets
        ([(8, 3), (10, 3)], Fill(1, full=True)),
    ],
)
def test_those_who_wait_longest_go_together_as_far_as_limits_allow(
    those_who_wait: Sequence[tuple[int, int]], together: Fill
) -> None:
    assert fill(those_who_wait, BatchLimits(events=3, octets=20)) == together


@given(waiting=waiting, events=st.integers(1, 12), octets=st.integers(1, 200))
def test_a_batch_keeps_every_limit_and_is_full_only_if_nobody_could_join(
    waiting: list[tuple[int, int]], events: int, octets: int
) -> None:
    limits = BatchLimits(events=events, octets=octets)
    number, full = fill(waiting, limits)

    def allowed(count: int) -> bool:
        size = len(b"[" + b",".join(b"x" * size for size, _ in waiting[:count]) + b"]")
        return count <= events and size <= octets and all(count <= bound for _, bound in waiting[:count])

    assert number == 1 or allowed(number)
    assert number == len(waiting) or not allowed(number + 1), "a batch is as large as it may be"
    assert full or number == len(waiting)


@given(st.integers(2, 10_000))
def test_halves_are_smaller_and_two_of_them_hold_all(company: int) -> None:
    assert 1 <= half(company) < company <= 2 * half(company)


# What becomes of events that travel together.


def sends(sink: HttpSink, numbers: range | list[int]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(sink.send(event(number))) for number in numbers]


def companies(posts: Sequence[Post]) -> list[list[str]]:
    return [[came.id for came in decode(post.headers, post.body)] for post in posts]


def against(behaviour: Behaviour) -> Callable[[Post], Behaviour]:
    """A sink that behaves so towards every request that holds the one event."""
    return lambda post: behaviour if CANNOT in companies([post])[0] else Answer()


@pytest.mark.looptime
class TestGathering:
    async def test_a_batch_goes_as_soon_as_it_is_full_and_the_rest_after_the_linger(self) -> None:
        transport = FakeTransport()
        sink = in_memory(transport, batch=TEN)
        sending = sends(sink, range(25))
        await asyncio.gather(*sending[:20])
        assert now() == 0
        await asyncio.gather(*sending)
        assert now() == 1
        assert companies(transport.posts) == [[str(n) for n in range(a, b)] for a, b in ((0, 10), (10, 20), (20, 25))]
        assert dict(transport.posts[0].headers) == {b"content-type": BATCH.encode()}

    async def test_an_event_alone_makes_a_batch_of_one(self) -> None:
        transport = FakeTransport()
        await in_memory(transport, batch=TEN).send(event(1))
        assert (transport.posts[0].body, now()) == (b"[" + encode_structured(event(1)) + b"]", 1)

    async def test_a_batch_goes_when_another_event_would_make_it_too_large(self) -> None:
        transport = FakeTransport()
        sink = in_memory(transport, batch=TEN._replace(octets=4 * OCTETS))
        await asyncio.gather(*sends(sink, range(9)))
        assert companies(transport.posts) == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]

    async def test_while_all_places_are_taken_batches_grow_and_nobody_overtakes(self) -> None:
        transport = FakeTransport(latency=lambda: 60.0)
        sink = in_memory(transport, batch=TEN, max_on_wire=1, policy=Policy(timeout=None))
        first = sends(sink, [0])
        await transport.came(1)
        more = sends(sink, range(1, 5))
        await asyncio.sleep(30)
        more += sends(sink, range(5, 13))
        await asyncio.gather(*first, *more)
        assert companies(transport.posts) == [["0"], [str(n) for n in range(1, 11)], ["11", "12"]]
        assert transport.most_on_wire == 1

    async def test_one_task_has_its_events_accepted_in_order(self) -> None:
        transport = FakeTransport(latency=lambda: 0.5)
        transport.then(Answer(500), Answer(422), Reset(), Answer(503))
        sink = in_memory(transport, batch=TEN)

        async def one_after_another(of: int) -> None:
            for number in range(5):
                await sink.send(event(10 * of + number))

        tasks = [asyncio.create_task(one_after_another(of)) for of in range(10)]
        await asyncio.gather(*tasks)
        for of in range(10):
            ids = [int(came.id) for came in transport.events if int(came.id) // 10 == of]
            assert ids == sorted(ids)
        assert sink.counters.delivered == 50


@pytest.mark.looptime
class TestABatchThatIsNotAccepted:
    async def test_one_refused_event_does_not_take_its_batch_along(self) -> None:
        transport = FakeTransport()
        transport.always(against(Answer(422, body=b"no sevens")))
        sink = in_memory(transport, batch=TEN)
        ends = await asyncio.gather(*sends(sink, range(10)), return_exceptions=True)
        assert [str(number) for number, end in enumerate(ends) if end is not None] == [CANNOT]
        assert (sink.counters.delivered, sink.counters.refused, sink.counters.balance) == (9, 1, 0)
        assert sorted(came.id for came in transport.events) == sorted(set("0123456789") - {CANNOT})
        assert [len(company) for company in companies(transport.posts)] == [10, 5, 5, 3, 2, 2, 1]

    @pytest.mark.parametrize("status", [400, 413, 422, 500, 502])
    async def test_nor_does_one_that_the_sink_answers_for_ever(self, status: int) -> None:
        transport = FakeTransport()
        transport.always(against(Answer(status)))
        policy = Policy(retries=2, backoff_delay=timedelta(seconds=1), jitter=0)
        sink = in_memory(transport, batch=TEN, policy=policy, dead_letter=False)
        ends = await asyncio.gather(*sends(sink, range(10)), return_exceptions=True)
        assert [str(number) for number, end in enumerate(ends) if end is not None] == [CANNOT]
        assert sink.counters.delivered == 9

    async def test_an_event_that_only_it_is_poison_is_refused_in_the_end_and_the_others_soon_go(self) -> None:
        transport = FakeTransport()
        transport.always(against(Answer(500)))
        sink = in_memory(transport, batch=TEN, policy=Policy(poison_after=timedelta(hours=1)))
        sending = sends(sink, range(10))
        others = [task for number, task in enumerate(sending) if str(number) != CANNOT]
        await asyncio.gather(*others)
        assert now() < 60

        async def traffic() -> None:
            for number in range(100, 300):
                await asyncio.sleep(60)
                await sink.send(event(number))

        going_on = asyncio.create_task(traffic())
        (end,) = await asyncio.gather(sending[int(CANNOT)], return_exceptions=True)
        assert getattr(end, "loss", None) is Loss.POISON
        assert now() >= 3600
        await going_on
        assert sink.counters.delivered == 209

    @pytest.mark.parametrize("trouble", [Answer(503), Answer(429), Answer(401), Reset(), HalfAnswer()])
    async def test_what_is_the_sinks_trouble_is_tried_again_together(self, trouble: Behaviour) -> None:
        transport = FakeTransport()
        transport.then(trouble)
        sink = in_memory(transport, batch=TEN, policy=Policy())
        await asyncio.gather(*sends(sink, range(10)))
        assert [len(company) for company in companies(transport.posts)] == [10, 10]
        assert sum(sink.counters.tries.values()) == 20, "each event counts its own"

    async def test_a_stale_connection_is_no_attempt(self) -> None:
        transport = FakeTransport()
        sink = in_memory(transport, batch=TEN, policy=Policy(retries=0))
        await asyncio.gather(*sends(sink, range(10)))
        transport.then(Reset())
        await asyncio.gather(*sends(sink, range(10, 20)))
        assert [(post.fresh, len(companies([post])[0])) for post in transport.posts] == [
            (False, 10), (False, 10), (True, 10),
        ]  # fmt: skip

    async def test_while_the_sink_is_down_one_event_alone_finds_out_whether_it_is_back(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(503))
        sink = in_memory(transport, batch=TEN)
        sending = sends(sink, range(30))
        await asyncio.sleep(3600)
        down = [len(company) for company in companies(transport.posts)]
        assert set(down[9:]) == {1}
        assert len(down) < 9 + 3600 / 30 + 2
        transport.always(Answer())
        await asyncio.gather(*sending)
        assert [len(company) for company in companies(transport.posts)][len(down) :] == [1, 10, 10, 9]

    async def test_dead_letters_go_one_by_one(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Answer(422) if post.target.url == "http://sink/" else Answer())
        sink = in_memory(transport, batch=TEN, dead_letter=True)
        await asyncio.gather(*sends(sink, range(4)))
        letters = [post for post in transport.posts if post.target.url != "http://sink/"]
        assert [len(company) for company in companies(letters)] == [1] * 4
        assert {came.extensions["knativeerrorcode"] for came in transport.events} == {"422"}
        assert sink.counters.dead_lettered == 4

    async def test_the_brake_counts_events_and_holds_the_others(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(422))
        sink = in_memory(transport, batch=TEN, policy=Policy(brake_after=3))
        sending = sends(sink, range(10))
        await asyncio.sleep(3600)
        assert (sink.counters.refused, sink.counters.in_flight) == (3, 7)
        transport.always(Answer())
        await asyncio.gather(*sending, return_exceptions=True)
        assert sink.counters.delivered == 7

    async def test_a_transport_that_breaks_its_promise_is_told_of_and_loses_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(FakeTransport):
            broken = True

            def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
                if self.broken:
                    raise LookupError("who knows")
                return super().begin(post, done)

        transport = Broken()
        sink = in_memory(transport, batch=TEN, max_on_wire=1)
        asyncio.get_running_loop().call_later(60, setattr, transport, "broken", False)  # noqa: FBT003 - setattr's
        await asyncio.gather(*sends(sink, range(4)))
        assert "batch could not be sent" in caplog.messages
        assert "sink is down" not in caplog.messages  # nothing was heard of it
        assert sink.counters.delivered == 4


@pytest.mark.looptime
class TestDeadlinesFencesAndTheEnd:
    @pytest.mark.parametrize("how", ["deadline", "fence"])
    async def test_an_event_whose_time_is_over_leaves_its_batch_at_once(self, how: str) -> None:
        transport = FakeTransport(latency=lambda: 100.0)
        sink = in_memory(transport, batch=TEN, max_on_wire=1, policy=Policy(timeout=None))
        first = sends(sink, [0])
        await transport.came(1)
        fence = Fence()
        asyncio.get_running_loop().call_later(10, fence.close)
        limits = {"fence": fence} if how == "fence" else {"deadline": Deadline(now() + 10)}
        leaving = asyncio.create_task(lost(sink, event(1), **limits))
        others = sends(sink, [2, 3])
        error = await leaving
        assert now() == 1 + 10
        assert (error.loss, error.tries, error.maybe_accepted) == (
            Loss.FENCED if how == "fence" else Loss.EXPIRED, 0, False,
        )  # fmt: skip
        await asyncio.gather(*first, *others)
        assert companies(transport.posts) == [["0"], ["2", "3"]]
        assert sum(sink.counters.tries.values()) == 3

    @pytest.mark.parametrize("how", ["deadline", "fence"])
    async def test_on_the_wire_the_outcome_counts(self, how: str) -> None:
        transport = FakeTransport(latency=lambda: 20.0)
        sink = in_memory(transport, batch=TEN)
        fence = Fence()
        asyncio.get_running_loop().call_later(10, fence.close)
        limits = {"fence": fence} if how == "fence" else {"deadline": Deadline(now() + 10)}
        await sink.send(event(1), **limits)
        assert (now(), sink.counters.delivered) == (21, 1)

    async def test_a_refused_batch_is_taken_apart_without_those_whose_time_is_over(self) -> None:
        transport = FakeTransport(latency=lambda: 5.0)
        transport.always(against(Answer(422)))
        sink = in_memory(transport, batch=TEN)
        leaving = asyncio.create_task(lost(sink, event(1), deadline=Deadline(now() + 3)))
        others = sends(sink, [int(CANNOT), 3, 4])
        await asyncio.gather(*others, return_exceptions=True)
        assert (await leaving).loss is Loss.REFUSED
        assert all("1" not in company for company in companies(transport.posts[1:]))
        assert (sink.counters.delivered, sink.counters.refused) == (2, 2)

    @pytest.mark.parametrize(("after", "tries", "maybe"), [(0.5, 0, False), (1.5, 1, True)])
    async def test_a_drain_tells_whether_the_sink_may_have_it(self, after: float, tries: int, *, maybe: bool) -> None:
        transport = FakeTransport()
        transport.always(Hang())
        sink = in_memory(transport, batch=TEN)
        sending = [asyncio.create_task(lost(sink, event(number))) for number in range(3)]
        await asyncio.sleep(after)
        assert await sink.drain(0) == 3
        errors = [await task for task in sending]
        assert {(error.loss, error.maybe_accepted) for error in errors} == {(Loss.STOPPED, maybe)}
        await asyncio.sleep(0)
        assert (transport.on_wire, len(transport.posts)) == (0, tries)
        assert sink.counters.balance == 0


# Over real HTTP.


async def test_over_http_a_thousand_events_of_many_tasks_arrive_once_in_few_requests() -> None:
    transport = HttpTransport()
    async with asyncio.timeout(10), RecordingSink() as there:
        binding = SinkBinding(sink=there.url)
        there.then(Answer(503), Answer(422), Reset(), Answer(202), HalfAnswer())
        sink = HttpSink(
            binding, Address(binding, transport), clock=SystemClock(), policy=FAST, batch=BatchLimits(), max_on_wire=4
        )
        await asyncio.gather(*sends(sink, range(1000)))
        assert sorted(int(came.id) for came in there.events) == list(range(1000))
        assert {received.request.header("content-type") for received in there.requests} == {BATCH}
        assert len(there.requests) <= 30
        assert await sink.drain(0) == 0
    await transport.aclose()
