"""What a sink counts while it delivers: gauges, durations, its state. The sums are tests/test_sink.py's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.binding import SinkBinding
from wellhead.delivery import Policy
from wellhead.errors import DeliveryError
from wellhead.event import CloudEvent
from wellhead.host import Host
from wellhead.metrics import CircuitState
from wellhead.testing import Answer, FakeTransport, LoopClock

if TYPE_CHECKING:
    from wellhead.metrics import Histogram
    from wellhead.sink import HttpSink

EVENT: Final = CloudEvent(id="1", source="/spring", type="drop")
SLOW: Final = Policy(backoff_delay=timedelta(seconds=1), jitter=0)


def sink_over(transport: FakeTransport, policy: Policy = SLOW) -> HttpSink:
    return Host(transport, LoopClock()).open_sink("well", SinkBinding(sink="http://sink/"), policy=policy)


def observed(histogram: Histogram) -> tuple[int, float]:
    return sum(histogram.buckets), histogram.total


@pytest.mark.looptime
async def test_a_delivery_takes_from_send_to_its_end_and_each_try_as_long_as_it_took() -> None:
    transport = FakeTransport(latency=lambda: 0.25)
    transport.then(Answer(503), Answer(202))
    sink = sink_over(transport)
    await sink.send(EVENT)
    assert observed(sink.counters.seconds) == (2, 0.5)
    assert observed(sink.counters.delivery_seconds) == (1, 2.5)


@pytest.mark.looptime
async def test_what_it_takes_to_encode_an_event_is_of_the_delivery_and_not_of_its_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = sink_over(FakeTransport(latency=lambda: 0.25))
    time, encode = asyncio.get_running_loop().time, sink.address.encode

    def slowly(event: CloudEvent) -> tuple[bytes, bytes]:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time() + 0.5)
        return encode(event)

    monkeypatch.setattr(sink.address, "encode", slowly)
    await sink.send(EVENT)
    assert observed(sink.counters.seconds) == (1, 0.25)
    assert observed(sink.counters.delivery_seconds) == (1, 0.75)


@pytest.mark.looptime
async def test_a_delivery_that_is_refused_is_observed_too() -> None:
    transport = FakeTransport()
    transport.always(Answer(422))
    sink = sink_over(transport)
    with pytest.raises(DeliveryError):
        await sink.send(EVENT)
    assert observed(sink.counters.delivery_seconds)[0] == 1


@pytest.mark.looptime
@pytest.mark.parametrize(("status", "held"), [(401, 1), (503, 0)])
async def test_events_are_on_the_wire_while_tried_and_held_while_the_sink_is_wrong(status: int, held: int) -> None:
    transport = FakeTransport(latency=lambda: 0.1)
    transport.then(Answer(status), Answer(202))
    sink = sink_over(transport)
    sending = asyncio.create_task(sink.send(EVENT))
    seen: list[tuple[int, int, int]] = []
    for moment in (0.05, 0.5):
        await asyncio.sleep(moment)
        seen.append((sink.counters.in_flight, sink.counters.on_wire, sink.counters.held))
    assert seen == [(1, 1, 0), (1, 0, held)]
    await sending
    assert (sink.counters.in_flight, sink.counters.on_wire, sink.counters.held, sink.counters.balance) == (0, 0, 0, 0)


@pytest.mark.looptime
async def test_a_delivery_that_the_drain_ends_leaves_no_gauge_up() -> None:
    transport = FakeTransport()
    transport.always(Answer(401))
    sink = sink_over(transport)
    sending = asyncio.create_task(sink.send(EVENT))
    await asyncio.sleep(1)
    assert sink.counters.held == 1
    await sink.drain(0)
    with pytest.raises(DeliveryError):
        await sending
    assert (sink.counters.in_flight, sink.counters.on_wire, sink.counters.held, sink.counters.balance) == (0, 0, 0, 0)


@pytest.mark.looptime
async def test_the_state_tells_since_when_the_sink_is_down_or_up_again() -> None:
    transport = FakeTransport()
    transport.then(Answer(202), Answer(503), Answer(202))
    sink = sink_over(transport)
    await asyncio.sleep(10)
    await sink.send(EVENT)
    assert (sink.counters.state().up, sink.counters.state().since) == (True, None)
    await asyncio.sleep(10)
    sending = asyncio.create_task(sink.send(EVENT))
    await asyncio.sleep(1)
    down = sink.counters.state()
    assert (down.up, down.since, down.reason) == (False, 20.0, "HTTP 503")
    await sending
    assert (sink.counters.state().up, sink.counters.state().since) == (True, 22.0)


@pytest.mark.looptime
async def test_the_circuit_opens_while_the_sink_is_down_and_closes_when_it_is_back() -> None:
    transport = FakeTransport(latency=lambda: 0.5)
    transport.then(*[Answer(503)] * 5, Answer(202))
    sink = sink_over(transport)
    sending = asyncio.create_task(sink.send(EVENT))
    seen: list[CircuitState] = []
    while not sending.done():
        await asyncio.sleep(0.25)
        state = sink.counters.state().circuit
        if not seen or seen[-1] is not state:
            seen.append(state)
    assert seen[0] is seen[-1] is CircuitState.CLOSED
    assert {CircuitState.OPEN, CircuitState.PROBING} <= set(seen)
