"""While a sink is down one event at a time finds out whether it is back: the circuit by itself, and deliveries behind it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.adapter import Deadline, Fence
from wellhead.address import Address
from wellhead.binding import SinkBinding
from wellhead.circuit import HURRIED_SECONDS, OPENS_AFTER, Circuit
from wellhead.delivery import Answered, Outcome, Policy, Unanswered
from wellhead.errors import DeliveryError, Loss, NoAnswer
from wellhead.event import CloudEvent
from wellhead.sink import HttpSink
from wellhead.testing import LoopClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.transport import Post

pytestmark = pytest.mark.looptime

WAIT: Final = 10.0
DOWN: Final = Answered(503)


def now() -> float:
    return asyncio.get_running_loop().time()


def opened() -> Circuit:
    """A circuit that has just opened; the next probe is due in `WAIT`."""
    circuit = Circuit(lambda _: WAIT)
    for _ in range(OPENS_AFTER):
        circuit.failed(now(), now(), 0)
    return circuit


class TestTheCircuit:
    async def test_it_opens_after_some_failures_in_a_row(self) -> None:
        circuit = Circuit(lambda _: WAIT)
        for _ in range(OPENS_AFTER - 1):
            circuit.failed(now(), now(), 0)
            assert not circuit.open
        circuit.succeeded()
        circuit.failed(now(), now(), 0)
        assert not circuit.open
        assert opened().open

    async def test_of_failures_that_were_on_the_wire_together_one_counts(self) -> None:
        circuit = Circuit(lambda _: WAIT)
        for _ in range(100):
            circuit.failed(0.0, 5.0, 0)
        assert circuit.failures == 1

    async def test_who_waits_is_the_probe_in_order_and_one_at_a_time(self) -> None:
        circuit = opened()
        first, second = circuit.place(None), circuit.place(None)
        assert await first is True
        assert now() == WAIT
        await asyncio.sleep(5 * WAIT)
        assert not second.done()
        circuit.failed(now(), now(), 0)
        circuit.ended()
        assert await second is True
        assert now() == 7 * WAIT

    async def test_the_first_answer_lets_all_go_on(self) -> None:
        circuit = opened()
        line = [circuit.place(None) for _ in range(5)]
        assert await line[0] is True
        circuit.succeeded()
        circuit.ended()
        assert [await one for one in line[1:]] == [False] * 4
        assert not circuit.open

    async def test_a_probe_that_came_to_nothing_passes_its_turn_on(self) -> None:
        circuit = opened()
        first, second = circuit.place(None), circuit.place(None)
        assert await first is True
        circuit.ended()
        assert await second is True

    async def test_who_left_the_line_is_passed_over(self) -> None:
        circuit = opened()
        gone, waiting = circuit.place(None), circuit.place(None)
        gone.cancel()
        assert await waiting is True
        assert now() == WAIT

    async def test_the_sink_s_own_wish_puts_the_probe_off(self) -> None:
        circuit = opened()
        waiting = circuit.place(None)
        circuit.failed(now(), now(), 100.0)
        assert await waiting is True
        assert now() == 100.0

    async def test_who_would_not_live_to_see_the_probe_is_one_itself_but_seldom(self) -> None:
        circuit = opened()
        waiting = [circuit.place(now() + 5) for _ in range(20)]
        await asyncio.sleep(3)
        probes = 0
        while any(one.done() and not one.cancelled() and one.result() for one in waiting):
            place = next(place for place, one in enumerate(waiting) if one.done())
            assert waiting.pop(place).result() is True
            probes += 1
            circuit.failed(now(), now(), 0)
            circuit.ended()
            await asyncio.sleep(HURRIED_SECONDS * 2)
        assert 1 <= probes <= 20


class Down:
    """A transport to a sink that does not answer well until ``up``; it notes each try."""

    def __init__(self, outcome: Outcome = DOWN, takes: float = 0.01) -> None:
        self.outcome = outcome
        self.takes = takes
        self.up = False
        self.tries: list[float] = []
        self.by_id: Counter[str] = Counter()
        self.on_wire = self.most = 0

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        self.tries.append(now())
        self.by_id[dict(post.headers)[b"ce-id"].decode()] += 1
        self.on_wire += 1
        self.most = max(self.most, self.on_wire)

        def end() -> None:
            self.on_wire -= 1
            done(Answered(202) if self.up else self.outcome)

        return asyncio.get_running_loop().call_later(self.takes, end).cancel

    async def aclose(self) -> None:
        pass


def a_sink(transport: Down, *, policy: Policy = Policy(), on_wire: int = 128) -> HttpSink:  # noqa: B008 - frozen
    binding = SinkBinding(sink="http://sink/")
    address = Address(binding, transport)
    return HttpSink(binding, address, clock=LoopClock(), policy=policy, max_on_wire=on_wire)


def event(number: int) -> CloudEvent:
    return CloudEvent(id=str(number), source="/spring", type="drop")


SILENT: Final = Unanswered(NoAnswer.TIMEOUT, "no answer")


class TestDeliveriesBehindIt:
    @pytest.mark.parametrize("outcome", [DOWN, Unanswered(NoAnswer.CONNECT, "refused"), Answered(401)], ids=str)
    async def test_a_hundred_tasks_try_a_sink_that_is_down_for_an_hour_hardly_more_than_one_does(
        self, outcome: Outcome
    ) -> None:
        tries: dict[int, int] = {}
        for tasks in (1, 100):
            transport = Down(outcome)
            sink = a_sink(transport)
            began = now()
            sending = [asyncio.create_task(sink.send(event(number))) for number in range(tasks)]
            await asyncio.sleep(3600)
            tries[tasks] = len(transport.tries)
            later = [at for at in transport.tries if at > began + 60]
            assert len(later) < 3600 / 24 + 10  # the cap is 30 s, spread by a fifth
            transport.up = True
            await asyncio.wait(sending, timeout=60)
            assert sink.counters.delivered == tasks
            assert sink.counters.balance == 0
        assert tries[100] < tries[1] + 100 * OPENS_AFTER

    async def test_who_waits_for_a_place_on_the_wire_when_it_opens_waits_for_the_probe_like_all(self) -> None:
        """The sink is silent, and for each try that is given up another one of a thousand begins."""
        transport = Down(SILENT, takes=30.0)
        sink = a_sink(transport, on_wire=4)
        sending = [asyncio.create_task(sink.send(event(number))) for number in range(200)]
        await asyncio.sleep(3600)
        assert len(transport.tries) < 4 * OPENS_AFTER + 3600 / 30 + 10
        transport.up = True
        transport.takes = 0.01
        await asyncio.wait(sending, timeout=120)
        assert (sink.counters.delivered, sink.counters.balance) == (200, 0)

    async def test_each_event_has_its_turn_as_the_probe(self) -> None:
        transport = Down()
        sink = a_sink(transport)
        sending = [asyncio.create_task(sink.send(event(number))) for number in range(10)]
        await asyncio.sleep(3600)
        assert len(transport.by_id) == 10
        assert max(transport.by_id.values()) - min(transport.by_id.values()) <= 10
        await sink.drain(0)
        assert {type(error) for error in await asyncio.gather(*sending, return_exceptions=True)} == {DeliveryError}

    async def test_a_given_number_of_retries_is_obeyed_to_the_letter(self) -> None:
        transport = Down()
        sink = a_sink(transport, policy=Policy(retries=4, cap=None, jitter=0.0, backoff_delay=timedelta(seconds=1)))
        await asyncio.gather(*(sink.send(event(number)) for number in range(10)), return_exceptions=True)
        assert set(transport.by_id.values()) == {5}
        assert sink.counters.dropped == {"exhausted": 10}

    async def test_a_fence_and_a_deadline_end_who_waits_in_line(self) -> None:
        transport = Down()
        sink = a_sink(transport)
        waiting = asyncio.create_task(sink.send(event(0)))
        await asyncio.sleep(300)
        fence = Fence()
        fenced = asyncio.create_task(sink.send(event(1), fence=fence))
        mortal = asyncio.create_task(sink.send(event(2), deadline=Deadline(now() + 0.5)))
        await asyncio.sleep(0.1)
        fence.close()
        for ending, loss in ((fenced, Loss.FENCED), (mortal, Loss.EXPIRED)):
            with pytest.raises(DeliveryError) as caught:
                await ending
            assert caught.value.loss is loss
        transport.up = True
        await asyncio.wait_for(waiting, 60)
        assert (sink.counters.delivered, sink.counters.balance) == (1, 0)

    async def test_beats_find_a_sink_that_is_back_within_a_second_or_two(self) -> None:
        """Events worth ten seconds each, of which none would live until the probe at the cap."""
        transport = Down()
        sink = a_sink(transport)
        found = 0.0

        async def beat() -> None:
            nonlocal found
            number = 0
            while not found:
                number += 1
                try:
                    await sink.send(event(number), deadline=Deadline(now() + 10))
                    found = now()
                except DeliveryError:
                    pass

        beating = asyncio.create_task(beat())
        await asyncio.sleep(600)
        assert len(transport.tries) < 600 / HURRIED_SECONDS
        transport.up = True
        back = now()
        await asyncio.wait_for(beating, 60)
        assert found - back < 10

    async def test_what_has_ended_leaves_nothing_in_line(self) -> None:
        transport = Down(SILENT, takes=30.0)
        sink = a_sink(transport, on_wire=2)
        for number in range(1000):
            with pytest.raises(DeliveryError):
                await sink.send(event(number), deadline=Deadline(now() + 0.5))
        circuit = sink.lane.circuit
        assert circuit is not None
        assert len(circuit._line) < 100
        assert not sink._deliveries
