"""One life of the program in a simulated world: its transport, its sink, what sends. What it knows dies with it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

from tests.faults.plan import POLICIES

from wellhead.address import Address
from wellhead.binding import SinkBinding
from wellhead.credentials import Credentials, CredentialSources
from wellhead.errors import DeliveryError, Loss
from wellhead.event import CloudEvent
from wellhead.sink import HttpSink
from wellhead.testing import LoopClock
from wellhead.tls import Trust
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudevents.core.v1.event import CloudEvent as SdkEvent
    from tests.faults.world import World

    from wellhead.adapter import Deadline, Fence
    from wellhead.delivery import Attempt, Outcome
    from wellhead.transport import Post
    from wellhead.transport.dial import SocketAddress


class Context(ssl.SSLContext):
    """What a client trusts: the certificates of one generation."""

    generation: int


class FollowingTrust(Trust):
    """Trusts what the world's bundle holds; looks once a second, and when it is told to."""

    def __init__(self, world: World) -> None:
        super().__init__(now=asyncio.get_running_loop().time)
        self._world = world
        self._made_for = -1

    def context(self) -> ssl.SSLContext:
        if self._now() >= self._look_at and self._made_for != self._world.trusted:
            context = Context(ssl.PROTOCOL_TLS_CLIENT)
            self._made_for = context.generation = self._world.trusted
            self._context = context
            self._look_at = self._now() + 1.0
        return super().context()

    def _look(self) -> None:
        """There are no files."""


class Process:
    """Its tasks are the world's workload. It is the `Sink` they send to, and writes down what becomes of each event."""

    def __init__(self, world: World) -> None:
        plan = world.plan
        self.world = world
        self.alive = True
        self._on_wire = 0
        self._transport = HttpTransport(limit=plan.limit, connect=self._dial, luck=world.die.random)
        binding = SinkBinding(sink=f"{'https' if plan.secure else 'http'}://sink/in?key=hunt%20er2")
        sources = CredentialSources(token_file=world.token_file if plan.token else None)
        address = Address(binding, self, credentials=Credentials(sources), trust=FollowingTrust(world))
        dead = Address(SinkBinding(sink="http://dead-letters/"), self) if plan.dead_letter else None
        self.sink = HttpSink(
            binding,
            address,
            clock=LoopClock(),
            policy=POLICIES[plan.policy],
            dead_letter=dead,
            max_on_wire=plan.on_wire,
            luck=world.die.random,
        )
        self.tasks = [asyncio.create_task(work, name=name) for name, work in world.workload(self).items()]

    async def send(
        self,
        event: CloudEvent | SdkEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        """`wellhead.adapter.Sink.send`; what a dead process is told, nobody hears."""
        assert isinstance(event, CloudEvent)  # no adapter of ours sends the SDK's
        world, record = self.world, self.world.record
        world.began(event.id, deadline, fence)
        try:
            await self.sink.send(event, deadline=deadline, fence=fence, after=after)
        except DeliveryError as error:
            if self.alive:
                record.losses.setdefault(event.id, []).append(error)
            raise
        except asyncio.CancelledError:
            record.interrupted.add(event.id)
            raise
        if self.alive:
            record.acknowledged[event.id] = None
            if event.id not in record.sink.accepted | record.dead_letters.accepted:
                record.broken.append(f"{event.id} was acknowledged, and no sink had accepted it by then")
        else:
            record.interrupted.add(event.id)

    async def terminate(self, grace: float) -> None:
        """SIGTERM: stop the intake, settle what is on its way, close."""
        await self._stop_intake()
        left = await self.sink.drain(grace)
        counters, broken = self.sink.counters, self.world.record.broken
        if left != counters.dropped.get(Loss.STOPPED.value, 0):
            broken.append(f"drain ended {left} deliveries and counted {counters.dropped}")
        self.world.record.ended.append(counters)
        await self._transport.aclose()
        broken += self._leaks()
        self.alive = False

    async def kill(self) -> None:
        """Nothing that it knew, and nothing that it does from now on, matters to the world."""
        self.alive = False
        self.world.network.cut()
        await self._stop_intake()
        await self.sink.drain(0.0)
        await self._transport.aclose()

    async def _stop_intake(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # It stands between the sink and its transport, and looks at each try.

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        world = self.world
        world.tries += 1
        self._on_wire += 1
        if self._on_wire > world.plan.on_wire:
            world.record.broken.append(f"{self._on_wire} tries on the wire, where {world.plan.on_wire} are allowed")
        if self.alive:
            event_id = next(value for name, value in post.headers if name == b"ce-id").decode()
            world.look_at_try(event_id, dead_letter="/in?" not in post.target.url)
        on_wire = True

        def end() -> None:
            nonlocal on_wire
            self._on_wire -= on_wire
            on_wire = False

        def ended(outcome: Outcome) -> None:
            end()
            done(outcome)

        cancel = self._transport.begin(post, ended)

        def cancelled() -> None:
            end()
            cancel()

        return cancelled

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _dial(
        self,
        protocol: Callable[[], asyncio.Protocol],
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        connections: Callable[[SocketAddress], int],
    ) -> None:
        world = self.world
        if not self.alive:
            await asyncio.get_running_loop().create_future()
        await world.network.dial(protocol, host, port, tls, connections)
        # Certificates of before are another target: their connections rest for some seconds beside the new ones.
        allowed = world.plan.limit * (2 + (world.generation if world.plan.secure else 0))
        if len(world.network.wires) > allowed:
            world.record.broken.append(f"{len(world.network.wires)} connections are open at once")

    def _leaks(self) -> list[str]:
        """What a process leaves behind that has closed everything."""
        left = {
            "connections": len(self.world.network.wires),
            "tries of the transport": len(self._transport.tries),
            "pools": len(self._transport._pools),
            "deliveries": len(self.sink._deliveries),
            "tries on the wire": self._on_wire,
        }
        return [f"{number} {what} are left" for what, number in left.items() if number]
