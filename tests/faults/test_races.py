"""Two things in one turn of the event loop, in the order that hurts. Found by stopping the simulated world at every await."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.address import Address
from wellhead.binding import SinkBinding
from wellhead.delivery import Answered, Outcome
from wellhead.errors import DeliveryError, Loss
from wellhead.event import CloudEvent
from wellhead.sink import HttpSink
from wellhead.testing import LoopClock
from wellhead.transport import Post, Target, one_try

if TYPE_CHECKING:
    from collections.abc import Callable

EVENT: Final = CloudEvent(id="1", source="/spring", type="drop")
POST: Final = Post(Target("http://sink/"), b"", b"")


class ByHand:
    """A transport whose tries end when the test says so."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Callable[[Outcome], object]] = asyncio.Queue()
        self.cancelled = 0

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        self.begun.put_nowait(done)
        return self._cancel

    async def aclose(self) -> None:
        pass

    def _cancel(self) -> None:
        self.cancelled += 1


def a_sink(transport: ByHand) -> HttpSink:
    binding = SinkBinding(sink="http://sink/")
    return HttpSink(binding, Address(binding, transport), clock=LoopClock())


@pytest.mark.looptime
async def test_an_event_accepted_in_the_turn_in_which_the_drain_ends_it_counts_as_delivered() -> None:
    transport = ByHand()
    sink = a_sink(transport)
    sending = asyncio.create_task(sink.send(EVENT))
    (await transport.begun.get())(Answered(503))
    accept = partial(await transport.begun.get(), Answered(202))
    (delivery,) = sink._deliveries
    assert delivery.task is not None
    # `drain` cancels, and before the delivery learns of it, the answer comes.
    asyncio.get_running_loop().call_later(1, lambda: (delivery.stop(), accept()))
    sink._stopped = True
    await sending
    assert (sink.counters.delivered, sink.counters.balance, sink.counters.in_flight) == (1, 0, 0)
    assert not transport.cancelled


@pytest.mark.looptime
async def test_a_delivery_ended_before_its_task_took_its_first_step_is_counted_and_told() -> None:
    transport = ByHand()
    sink = a_sink(transport)
    sending = asyncio.create_task(sink.send(EVENT))
    refuse = partial(await transport.begun.get(), Answered(503))

    async def drain() -> int:
        # The first try ends in the turn in which the grace does, and what comes after it is a task.
        asyncio.get_running_loop().call_at(asyncio.get_running_loop().time() + 1, refuse)
        return await sink.drain(1)

    assert await drain() == 1
    with pytest.raises(DeliveryError) as caught:
        await asyncio.wait_for(sending, 1)
    assert caught.value.loss is Loss.STOPPED
    assert (sink.counters.dropped, sink.counters.balance, sink.counters.in_flight) == ({"stopped": 1}, 0, 0)


@pytest.mark.looptime
@pytest.mark.parametrize("turns", range(8))
async def test_a_drain_in_any_turn_after_a_first_try_failed_leaves_the_counters_true(turns: int) -> None:
    transport = ByHand()
    sink = a_sink(transport)
    sending = asyncio.create_task(sink.send(EVENT))
    refuse = partial(await transport.begun.get(), Answered(503))
    draining = asyncio.create_task(sink.drain(0))
    for _ in range(turns):
        await asyncio.sleep(0)
    if not draining.done():
        refuse()
    await draining
    with pytest.raises(DeliveryError):
        await asyncio.wait_for(sending, 1)
    assert (sink.counters.dropped, sink.counters.balance, sink.counters.in_flight) == ({"stopped": 1}, 0, 0)


async def test_a_try_that_ends_in_the_turn_in_which_its_caller_is_cancelled_is_no_mistake() -> None:
    transport = ByHand()
    trying = asyncio.create_task(one_try(transport, POST))
    done = await transport.begun.get()
    trying.cancel()
    done(Answered(202))
    with pytest.raises(asyncio.CancelledError):
        await trying
