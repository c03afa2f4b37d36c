"""A simulated world: tasks that send, a sink, a network and a clock, in one process, all of it decided by a seed.

`run` performs a `Plan` and returns what the laws have to say about it. The world knows nothing of any adapter: who
sends is a `Workload`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults.laws import Record, violations
from tests.faults.loop import Stuck, simulate
from tests.faults.network import Name, Network
from tests.faults.plan import POLICIES, Happening, Plan
from tests.faults.simulated_sink import SimulatedSink

from wellhead.adapter import Deadline, Fence
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
    from collections.abc import Callable, Coroutine, Iterator

    from wellhead.delivery import Outcome
    from wellhead.transport import Post
    from wellhead.transport.dial import SocketAddress

LIVENESS: Final = 900.0
"""Seconds after the end of all trouble in which everything has to have found its end. The longest honest waits: a
``Retry-After`` of two minutes, then tasks with sixty events that pause for eight seconds between them."""
SECRET: Final = "hunt er2"
"""In the URL as ``hunt%20er2``."""
GRACES: Final = (0.0, 0.001, 1.0, 25.0)


@dataclass(slots=True)
class Report:
    broken: list[str]
    injected: Counter[str]
    delivered: int
    tries: int
    seconds: float


class Context(ssl.SSLContext):
    """What a client trusts: the certificates of one generation."""

    generation: int


class World:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.die = random.Random(f"world {plan.seed}")
        self.network = Network(self.die, latency=plan.latency)
        self.network.split = plan.split
        self.trouble = True
        self.sink = SimulatedSink(self.die, partial(self._fault, plan.chance))
        self.dead_letters = SimulatedSink(self.die, partial(self._fault, plan.dead_letter_chance))
        self.injected = self.sink.injected
        self.dead_letters.injected = self.injected
        self.token_file = folder / "token"
        self.generation = self.trusted = 0
        self.fences: dict[int, Fence] = {}
        self.deadlines: dict[str, float] = {}
        self.stale: Counter[str] = Counter()
        self.tries = 0
        self.record = Record(self.sink.seen, self.dead_letters.seen, retries=POLICIES[plan.policy].retries)
        self.record.secrets = (SECRET, SECRET.replace(" ", "%20"), "token-")
        self.network.names = {
            "sink": Name(addresses=["10.0.0.1"], accept={"10.0.0.1": self.sink.accept}, verify=self._verify),
            "dead-letters": Name(addresses=["10.0.1.1"], accept={"10.0.1.1": self.dead_letters.accept}),
        }
        self.position: dict[int, int] = dict.fromkeys(range(plan.tasks), 0)
        for task in range(plan.tasks):
            self.record.sent[str(task)] = [self.event(task, number).id for number in range(plan.events)]
        if plan.token:
            self._rotate_token("token-0", 0.0)

    def event(self, task: int, number: int) -> CloudEvent:
        return CloudEvent(id=f"{task}/{number}", source="/spring", type="drop", data=b"x" * self.plan.size)

    @property
    def scheme(self) -> str:
        return "https" if self.plan.secure else "http"

    # --- what goes wrong ---

    def _fault(self, chance: float) -> str:
        return self.die.choice(self.plan.faults) if self.trouble and self.die.random() < chance else ""

    def _verify(self, context: ssl.SSLContext) -> None:
        assert isinstance(context, Context)
        if context.generation != self.generation:
            raise ssl.SSLCertVerificationError(1, "certificate verify failed: unable to get local issuer certificate")

    def _rotate_token(self, token: str, lag: float) -> None:
        """The sink asks for it now; it is in the file after ``lag`` seconds."""
        self.sink.token = token

        def write() -> None:
            new = self.token_file.with_suffix(".new")
            new.write_text(token)
            new.rename(self.token_file)

        if lag:
            asyncio.get_running_loop().call_later(lag, write)
        else:
            write()

    async def happen(self, one: Happening, process: Process) -> Process:
        """Do it, and undo it after its time; the process that lives then."""
        self.injected[one.kind] += 1
        loop = asyncio.get_running_loop()
        name = self.network.names["sink"]
        match one.kind:
            case "outage":
                accept, name.accept = name.accept, {}
                self.network.reset_all()
                loop.call_later(one.seconds, lambda: name.accept.update(accept))
            case "DNS gone":
                name.unknown = True
                loop.call_later(one.seconds, lambda: setattr(name, "unknown", False))
            case "DNS elsewhere":
                address = f"10.0.0.{self.network.number()}"
                old, name.addresses = name.addresses, [address]
                name.accept = {}
                loop.call_later(one.seconds, lambda: name.accept.update({address: self.sink.accept}))
                for wire in sorted(self.network.wires, key=lambda wire: wire.number):
                    if wire.get_extra_info("peername")[0] in old:
                        wire.reset()
            case "address is silent":
                dead = set(name.addresses)
                name.dead |= dead
                loop.call_later(one.seconds, lambda: name.dead.difference_update(dead))
            case "connections reset":
                self.network.reset_all()
            case "TLS expired" | "TLS wrong host":
                self.generation += 1
                generation = self.generation
                loop.call_later(one.seconds, lambda: self._renew(generation))
            case "TLS rotated":
                self.generation += 1
                loop.call_later(one.seconds, lambda: setattr(self, "trusted", self.generation))
            case "token rotated" if self.plan.token:
                self._rotate_token(f"token-{self.injected[one.kind]}", self.die.choice((0.0, one.seconds)))
            case "fences closed":
                for fence in tuple(self.fences.values()):
                    fence.close()
            case "SIGTERM":
                await process.terminate(self.die.choice(GRACES))
                return Process(self)
            case "kill":
                await process.kill()
                return Process(self)
            case _:
                self.injected[one.kind] -= 1
        return process

    def _renew(self, generation: int) -> None:
        """The sink gets a certificate that everybody trusts."""
        if self.generation == generation:
            self.generation = self.trusted

    def calm(self) -> None:
        """The end of all trouble."""
        self.trouble = False
        self.trusted = self.generation
        name = self.network.names["sink"]
        name.unknown = False
        name.dead.clear()
        name.accept.update(dict.fromkeys(name.addresses, self.sink.accept))
        if self.plan.token:
            self._rotate_token(self.sink.token, 0.0)
        for wire in sorted(self.network.wires, key=lambda wire: wire.number):
            wire.read_again()


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
    """One life of the program: its transport, its sink, its tasks. What it knows dies with it."""

    def __init__(self, world: World) -> None:
        plan = world.plan
        self.world = world
        self.alive = True
        self.on_wire = 0
        self.transport = HttpTransport(limit=plan.limit, connect=self._dial, luck=world.die.random)
        binding = SinkBinding(sink=f"{world.scheme}://sink/in?key=hunt%20er2")
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
        self.tasks = [
            asyncio.create_task(self._send_all(task), name=f"task {task}")
            for task in range(plan.tasks)
            if world.position[task] < plan.events
        ]

    async def terminate(self, grace: float) -> None:
        """SIGTERM: stop the intake, settle what is on its way, close."""
        self._interrupt()
        await _cancelled(self.tasks)
        left = await self.sink.drain(grace)
        counters = self.sink.counters
        if left != counters.dropped.get(Loss.STOPPED.value, 0):
            self.world.record.broken.append(f"drain ended {left} deliveries and counted {counters.dropped}")
        self.world.record.ended.append(counters)
        await self.transport.aclose()
        self._look_for_leaks()
        self.alive = False

    async def kill(self) -> None:
        """Nothing that it knew, and nothing that it does from now on, matters to the world."""
        self.alive = False
        self.world.network.cut()
        self._interrupt()
        await _cancelled(self.tasks)
        await self.sink.drain(0.0)
        await self.transport.aclose()

    def _interrupt(self) -> None:
        world = self.world
        world.record.interrupted |= {world.event(*place).id for place in world.position.items()}

    async def _send_all(self, task: int) -> None:
        """One task's events from where it is, as an adapter would that keeps what it has acknowledged."""
        world, record = self.world, self.world.record
        while world.position[task] < world.plan.events and self.alive:
            fence = world.fences[task] = Fence()
            event = world.event(task, world.position[task])
            try:
                await self.sink.send(event, deadline=self._deadline(event), fence=fence)
            except DeliveryError as error:
                if not self.alive:
                    return
                record.losses.setdefault(event.id, []).append(error)
                if error.loss is Loss.STOPPED:
                    return
                if error.loss is Loss.FENCED:
                    await asyncio.sleep(world.die.random())  # until the next owner begins
                    continue
            else:
                if not self.alive:
                    return
                record.acknowledged[event.id] = None
            world.position[task] += 1
            await asyncio.sleep(world.die.random() * world.plan.pause)

    def _deadline(self, event: CloudEvent) -> Deadline | None:
        world = self.world
        if world.die.random() >= world.plan.mortal:
            world.deadlines.pop(event.id, None)
            return None
        world.record.mortal.add(event.id)
        at = asyncio.get_running_loop().time() + world.die.choice((0.01, 1.0, 10.0, 100.0))
        world.deadlines[event.id] = at
        return Deadline(at)

    # It stands between the sink and its transport, and looks at each try.

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        world, now = self.world, asyncio.get_running_loop().time()
        event_id = next(value for name, value in post.headers if name == b"ce-id").decode()
        main = "/in?" in post.target.url
        broken = world.record.broken
        world.tries += 1
        self.on_wire += 1
        if self.on_wire > world.plan.on_wire:
            broken.append(f"{self.on_wire} tries on the wire, where {world.plan.on_wire} are allowed")
        if self.alive and world.fences[int(event_id.partition("/")[0])].closed:
            broken.append(f"a try of {event_id} began behind its closed fence")
        if self.alive and main and world.deadlines.get(event_id, now + 1) <= now:
            broken.append(f"a try of {event_id} began after its deadline")
        on_wire = True

        def end() -> None:
            nonlocal on_wire
            self.on_wire -= on_wire
            on_wire = False

        def ended(outcome: Outcome) -> None:
            end()
            done(outcome)

        cancel = self.transport.begin(post, ended)

        def cancelled() -> None:
            end()
            cancel()

        return cancelled

    async def aclose(self) -> None:
        await self.transport.aclose()

    async def _dial(
        self,
        protocol: Callable[[], asyncio.Protocol],
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        connections: Callable[[SocketAddress], int],
    ) -> None:
        if not self.alive:
            await asyncio.get_running_loop().create_future()
        await self.world.network.dial(protocol, host, port, tls, connections)
        # Certificates of before are another target: their connections rest for some seconds beside the new ones.
        allowed = self.world.plan.limit * (2 if not self.world.plan.secure else 2 + self.world.injected.total())
        if len(self.world.network.wires) > allowed:
            self.world.record.broken.append(f"{len(self.world.network.wires)} connections are open at once")

    def _look_for_leaks(self) -> None:
        transport, broken = self.transport, self.world.record.broken
        if self.world.network.wires:
            broken.append(f"{len(self.world.network.wires)} connections are left open")
        if transport._tries or transport._pools:
            broken.append(f"the transport keeps {len(transport._tries)} tries and {len(transport._pools)} pools")
        if self.sink._deliveries or self.on_wire:
            broken.append(f"{len(self.sink._deliveries)} deliveries and {self.on_wire} tries are left")


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def live(world: World, process: Process) -> Process:
    """Perform the plan to its end."""
    loop = asyncio.get_running_loop()
    for one in world.plan.happenings:
        await asyncio.sleep(max(0.0, one.at - loop.time()))
        process = await world.happen(one, process)
    await asyncio.sleep(max(0.0, world.plan.trouble_ends - loop.time()))
    world.calm()
    if process.tasks:
        _, late = await asyncio.wait(process.tasks, timeout=LIVENESS)
        world.record.broken += [f"{task.get_name()} has not ended: {process.sink.counters}" for task in late]
        for task in set(process.tasks) - late:
            task.result()
    return process


def run(plan: Plan, lives: Callable[[World, Process], Coroutine[None, None, Process]] = live) -> Report:
    """Perform it, and hold every law against it."""
    with tempfile.TemporaryDirectory() as folder, listening() as logged:
        world = World(plan, Path(folder))
        world.record.logged = logged

        async def main() -> float:
            process = await lives(world, Process(world))
            await process.terminate(0.0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            world.record.broken += [f"left behind: {task.get_name()}" for task in others]
            return asyncio.get_running_loop().time()

        try:
            seconds = simulate(main())
        except Stuck as stuck:
            world.record.broken.append(str(stuck))
            seconds = 0.0
        return Report(violations(world.record), world.injected, len(world.record.acknowledged), world.tries, seconds)


@contextmanager
def listening() -> Iterator[list[logging.LogRecord]]:
    """Everything that the library and asyncio log meanwhile."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keep()
    loggers = [logging.getLogger(name) for name in ("wellhead", "asyncio")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield records
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
