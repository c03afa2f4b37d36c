"""The proof of the interface, on its two hardest users: a PingSource for a whole cluster, and a Kafka partition that is
revoked in the middle of a delivery. Both are sketches to be read; the real adapters do more.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.adapter import Deadline, Fence
from wellhead.binding import SinkBinding
from wellhead.errors import DeliveryError
from wellhead.event import CloudEvent, stable_id
from wellhead.host import Host
from wellhead.testing import Answer, FakeSink, FakeTransport, Hang, LoopClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.adapter import Sink
    from wellhead.sink import HttpSink
    from wellhead.transport import Post

SOURCES: Final = 1000
GRACE: Final = 10.0


# 1. A cluster-wide PingSource: one adapter, one heap, one timer.


@dataclass(frozen=True, eq=False)
class PingSource:
    """What the adapter needs of one custom resource."""

    name: str
    every: float
    binding: SinkBinding


@dataclass
class Pings:
    """Ticks for any number of sources, which come and go while it runs; each has a sink of its own."""

    host: Host
    _heap: list[tuple[float, int, PingSource]] = field(default_factory=list)
    _sinks: dict[PingSource, HttpSink] = field(default_factory=dict)
    _sends: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, ping: PingSource) -> None:
        self._sinks[ping] = self.host.open_sink(ping.name, ping.binding)
        self._due(ping, asyncio.get_running_loop().time() + ping.every)

    async def remove(self, ping: PingSource) -> None:
        del self._sinks[ping]  # its next tick is skipped when it comes up
        await self.host.close_sink(ping.name, GRACE)

    async def run(self, _sink: Sink, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        ready()
        try:
            while True:
                self._changed.clear()
                wait = self._heap[0][0] - loop.time() if self._heap else None
                if wait is None or wait > 0:
                    await self._until_changed(wait)
                    continue
                due, _, ping = heapq.heappop(self._heap)
                if ping in self._sinks:
                    self._tick(ping, due)
                    self._due(ping, due + ping.every)
        finally:
            for send in self._sends:  # the deliveries go on: the host settles them
                send.cancel()

    def _due(self, ping: PingSource, at: float) -> None:
        heapq.heappush(self._heap, (at, next(self._order), ping))
        self._changed.set()

    def _tick(self, ping: PingSource, due: float) -> None:
        event = CloudEvent(id=stable_id(ping.name, str(due)), source=f"/pings/{ping.name}", type="ping")
        send = asyncio.create_task(self._send(self._sinks[ping], event, Deadline(due + ping.every)))
        self._sends.add(send)
        send.add_done_callback(self._sends.discard)

    async def _send(self, sink: HttpSink, event: CloudEvent, deadline: Deadline) -> None:
        try:
            await sink.send(event, deadline=deadline)
        except DeliveryError:
            return  # counted and logged; the next tick takes its place

    async def _until_changed(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return


def ping(number: int, every: float = 60.0) -> PingSource:
    name = f"ping-{number}"
    return PingSource(name, every, SinkBinding(sink=f"http://sink-{number}/", overrides={"tenant": f"t{number}"}))


async def pinging(transport: FakeTransport) -> tuple[Host, Pings]:
    host = Host(transport, LoopClock())
    pings = Pings(host)
    host.start("pings", pings, FakeSink())  # type: ignore[arg-type]  # sends by the sinks it opens
    await host.ready("pings")
    return host, pings


def by_sink(posts: list[Post]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for post in posts:
        counts[post.target.url] = counts.get(post.target.url, 0) + 1
    return counts


@pytest.mark.looptime
class TestACluster_widePingSource:  # noqa: N801 - reads as the sentence it begins
    async def test_each_event_reaches_its_own_sink_with_its_own_overrides(self) -> None:
        transport = FakeTransport(latency=lambda: 0.1)
        host, pings = await pinging(transport)
        for number in range(SOURCES):
            pings.add(ping(number))
        await asyncio.sleep(3 * 60 + 1)
        assert by_sink(transport.posts) == {f"http://sink-{number}/": 3 for number in range(SOURCES)}
        for post, event in zip(transport.posts, transport.tried, strict=True):
            tenant = post.target.url.removeprefix("http://sink-").removesuffix("/")
            assert (event.source, event.extensions["tenant"]) == (f"/pings/ping-{tenant}", f"t{tenant}")
        await host.drain(GRACE)

    async def test_an_idle_source_costs_no_task_and_no_timer(self) -> None:
        host, pings = await pinging(FakeTransport())
        pings.add(ping(0))
        await asyncio.sleep(1)
        before = asyncio.all_tasks()
        for number in range(1, SOURCES):
            pings.add(ping(number))
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == before
        await host.drain(GRACE)

    async def test_one_dead_sink_does_not_disturb_the_others(self) -> None:
        transport = FakeTransport()
        transport.always(lambda post: Hang() if post.target.url == "http://sink-7/" else Answer())
        host, pings = await pinging(transport)
        for number in range(100):
            pings.add(ping(number))
        await asyncio.sleep(10 * 60 + 1)
        counters = {name: sink.counters for name, sink in host.sinks().items()}
        dead = counters.pop("ping-7")
        assert {one.delivered for one in counters.values()} == {10}
        # The newest may still be on the wire beside its elder's last try.
        assert (dead.delivered, dead.dropped["expired"] + dead.in_flight, dead.balance) == (0, 10, 0)
        on_the_wire = dead.in_flight
        assert on_the_wire <= 2
        assert not host.sinks()["ping-7"].address.up
        assert host.not_ready() == ()
        await host.drain(GRACE)
        assert host.undelivered == on_the_wire

    async def test_sources_come_and_go_while_it_runs(self) -> None:
        transport = FakeTransport()
        host, pings = await pinging(transport)
        first = [ping(number) for number in range(100)]
        for one in first:
            pings.add(one)
        await asyncio.sleep(90)
        for one in first[:50]:
            await pings.remove(one)
        for number in range(100, 150):
            pings.add(ping(number))
        await asyncio.sleep(61)
        assert by_sink(transport.posts) == {
            **{f"http://sink-{number}/": 1 for number in range(50)},
            **{f"http://sink-{number}/": 2 for number in range(50, 100)},
            **{f"http://sink-{number}/": 1 for number in range(100, 150)},
        }
        assert set(host.sinks()) == {f"ping-{number}" for number in range(50, 150)}
        await host.drain(GRACE)

    async def test_a_source_that_goes_in_mid_delivery_is_settled_and_its_name_is_free(self) -> None:
        transport = FakeTransport(latency=lambda: 5.0)
        host, pings = await pinging(transport)
        one = ping(1)
        pings.add(one)
        await transport.came(1)
        await pings.remove(one)
        assert len(transport.events) == 1
        pings.add(ping(1, every=120))
        await asyncio.sleep(121)
        assert len(transport.posts) == 2
        await host.drain(GRACE)

    async def test_when_it_is_stopped_the_ticks_on_their_way_still_land(self) -> None:
        transport = FakeTransport(latency=lambda: 5.0)
        host, pings = await pinging(transport)
        for number in range(100):
            pings.add(ping(number))
        await transport.came(100)
        await host.drain(GRACE)
        assert (len(transport.events), host.undelivered) == (100, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


# 2. A Kafka partition that is revoked in the middle of a delivery.


@dataclass
class Partition:
    """One assigned partition: its records go out one after another, and it knows what may be committed."""

    number: int
    fence: Fence = field(default_factory=Fence)
    committable: int = 0
    _task: asyncio.Task[None] | None = None

    def begin(self, sink: Sink, offsets: range) -> None:
        self._task = asyncio.create_task(self._deliver(sink, offsets), name=f"partition {self.number}")

    async def revoke(self) -> int:
        """What the rebalance listener awaits: the fence, then the settling, then the offset to commit."""
        self.fence.close()
        if self._task is not None:
            await asyncio.wait({self._task})
        return self.committable

    async def _deliver(self, sink: Sink, offsets: range) -> None:
        for offset in offsets:
            event = CloudEvent(id=f"partition:{self.number}/offset:{offset}", source="/kafka", type="record")
            try:
                await sink.send(event, fence=self.fence)
            except DeliveryError:
                return  # the prefix ends here
            self.committable = offset + 1


def partitions(transport: FakeTransport, number: int) -> tuple[Host, list[Partition]]:
    host = Host(transport, LoopClock())
    sink = host.open_sink("kafka", SinkBinding(sink="http://sink/"))
    assigned = [Partition(one) for one in range(number)]
    for partition in assigned:
        partition.begin(sink, range(100))
    return host, assigned


def tried_of(transport: FakeTransport, partition: int) -> list[str]:
    return [event.id for event in transport.tried if event.id.startswith(f"partition:{partition}/")]


@pytest.mark.looptime
class TestAPartitionThatIsRevoked:
    async def test_the_record_on_the_wire_is_settled_and_committed(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        host, (partition,) = partitions(transport, 1)
        await asyncio.sleep(3.5)
        assert await partition.revoke() == 4  # 0, 1, 2, and 3 which was on the wire
        await asyncio.sleep(600)
        assert tried_of(transport, 0) == [f"partition:0/offset:{offset}" for offset in range(4)]
        await host.drain(GRACE)

    async def test_a_record_that_waits_for_its_next_try_is_not_tried_again_nor_committed(self) -> None:
        transport = FakeTransport()
        transport.then(Answer(), Answer(), *[Answer(503)] * 5)
        host, (partition,) = partitions(transport, 1)
        await transport.came(4)
        started = asyncio.get_running_loop().time()
        assert await partition.revoke() == 2
        assert asyncio.get_running_loop().time() == started  # the rebalance is not kept waiting
        before = len(transport.posts)
        await asyncio.sleep(600)
        assert len(transport.posts) == before
        await host.drain(GRACE)

    async def test_a_try_that_fails_after_the_revocation_is_the_last(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        transport.then(Answer(), Answer(503))
        host, (partition,) = partitions(transport, 1)
        await asyncio.sleep(1.5)
        assert await partition.revoke() == 1
        await asyncio.sleep(600)
        assert len(transport.posts) == 2
        await host.drain(GRACE)

    async def test_the_other_partitions_go_on(self) -> None:
        transport = FakeTransport(latency=lambda: 1.0)
        host, (revoked, kept) = partitions(transport, 2)
        await asyncio.sleep(10.5)
        assert await revoked.revoke() == 11
        await asyncio.sleep(200)
        assert kept.committable == 100
        counters = host.sinks()["kafka"].counters
        assert (counters.delivered, counters.in_flight, counters.balance) == (111, 0, 0)
        await host.drain(GRACE)

    async def test_the_new_owner_begins_where_the_old_one_ended_and_order_is_kept(self) -> None:
        transport = FakeTransport(latency=lambda: 0.3)
        turn = itertools.count()
        transport.always(lambda _: Answer(503 if next(turn) % 3 == 0 else 202))
        host, (old,) = partitions(transport, 1)
        await asyncio.sleep(20)
        committed = await old.revoke()
        assert 0 < committed < 100
        new = Partition(0)
        new.begin(host.sinks()["kafka"], range(committed, 100))
        await transport.accepted(100)
        assert [event.id for event in transport.events] == [f"partition:0/offset:{offset}" for offset in range(100)]
        await host.drain(GRACE)
