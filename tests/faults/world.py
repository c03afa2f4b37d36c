"""A simulated world: tasks that send, a sink, a network and a clock, in one process, all of it decided by a seed.

`run` performs a `Plan` and returns what the laws have to say about it. The world knows nothing of any adapter: who
sends is a `Workload`, and `in_order`, the plainest of them, stands for one that keeps what it has acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from tests.faults.happenings import HAPPENINGS
from tests.faults.laws import Record, violations
from tests.faults.loop import Stuck, simulate
from tests.faults.network import Name, Network
from tests.faults.plan import POLICIES, Happening, Plan
from tests.faults.process import Context, Process
from tests.faults.simulated_sink import SimulatedSink

from wellhead.adapter import Deadline, Fence
from wellhead.errors import DeliveryError, Loss
from wellhead.event import CloudEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    Work: TypeAlias = Coroutine[None, None, None]
    Workload: TypeAlias = Callable[[Process], Mapping[str, Work]]
    Life: TypeAlias = Callable[["World", Process], Coroutine[None, None, Process]]

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


class World:
    def __init__(self, plan: Plan, folder: Path, workload: Workload) -> None:
        self.plan = plan
        self.workload = workload
        self.die = random.Random(f"world {plan.seed}")
        self.network = Network(self.die, latency=plan.latency)
        self.network.split = plan.split
        self.sink = SimulatedSink(self.die, partial(self._fault, plan.chance))
        self.dead_letters = SimulatedSink(self.die, partial(self._fault, plan.dead_letter_chance))
        self.injected = self.dead_letters.injected = self.sink.injected
        self.name = Name(addresses=["10.0.0.1"], accept={"10.0.0.1": self.sink.accept}, verify=self._verify)
        self.network.names = {
            "sink": self.name,
            "dead-letters": Name(addresses=["10.0.1.1"], accept={"10.0.1.1": self.dead_letters.accept}),
        }
        self.token_file = folder / "token"
        self.generation = self.trusted = 0
        """Of the sink's certificate, and of the one that the mounted bundle trusts."""
        self.fences: dict[str, Fence] = {}
        self.position: dict[int, int] = dict.fromkeys(range(plan.tasks), 0)
        """How far each task has come: what survives a kill."""
        self.tries = 0
        self.record = Record(self.sink.seen, self.dead_letters.seen, retries=POLICIES[plan.policy].retries)
        self.record.secrets = (SECRET, SECRET.replace(" ", "%20"), "token-")
        self._deadlines: dict[str, float] = {}
        self._trouble = True
        self._tokens = 0
        if plan.token:
            self.rotate_token(0.0)

    def event(self, task: int, number: int) -> CloudEvent:
        return CloudEvent(id=f"{task}/{number}", source="/spring", type="drop", data=b"x" * self.plan.size)

    def began(self, event_id: str, deadline: Deadline | None, fence: Fence | None) -> None:
        """Somebody sends an event, perhaps again, and behind another fence than before."""
        self._deadlines.pop(event_id, None)
        self.fences.pop(event_id, None)
        if deadline is not None:
            self.record.mortal.add(event_id)
            self._deadlines[event_id] = deadline.at
        if fence is not None:
            self.fences[event_id] = fence

    def look_at_try(self, event_id: str, *, dead_letter: bool) -> None:
        """A try of it begins."""
        now = asyncio.get_running_loop().time()
        if event_id in self.fences and self.fences[event_id].closed:
            self.record.broken.append(f"a try of {event_id} began behind its closed fence")
        if not dead_letter and self._deadlines.get(event_id, now + 1) <= now:
            self.record.broken.append(f"a try of {event_id} began after its deadline")

    def rotate_token(self, lag: float) -> None:
        """The sink asks for another one from now on, which is in the file after ``lag`` seconds."""
        self._tokens += 1
        self.sink.token = f"token-{self._tokens}"
        if lag:
            asyncio.get_running_loop().call_later(lag, self._write_token)
        else:
            self._write_token()

    async def happen(self, one: Happening, process: Process) -> Process:
        """Do it; the process that lives then."""
        self.injected[one.kind] += 1
        match one.kind:
            case "SIGTERM":
                await process.terminate(self.die.choice(GRACES))
                return Process(self)
            case "kill":
                await process.kill()
                return Process(self)
            case _:
                HAPPENINGS[one.kind](self, one.seconds)
                return process

    def calm(self) -> None:
        """The end of all trouble."""
        self._trouble = False
        self.trusted = self.generation
        self.name.unknown = False
        self.name.dead.clear()
        self.name.accept.update(dict.fromkeys(self.name.addresses, self.sink.accept))
        if self.plan.token:
            self._write_token()
        for wire in sorted(self.network.wires, key=lambda wire: wire.number):
            wire.read_again()

    def _fault(self, chance: float) -> str:
        return self.die.choice(self.plan.faults) if self._trouble and self.die.random() < chance else ""

    def _verify(self, context: ssl.SSLContext) -> None:
        assert isinstance(context, Context)
        if context.generation != self.generation:
            raise ssl.SSLCertVerificationError(1, "certificate verify failed: unable to get local issuer certificate")

    def _write_token(self) -> None:
        new = self.token_file.with_suffix(".new")
        new.write_text(self.sink.token)
        new.rename(self.token_file)


def in_order(process: Process) -> Mapping[str, Work]:
    """Tasks that send one event after another from where they are, some of them with deadlines, all behind fences."""
    world = process.world
    return {
        f"task {task}": _send_all(process, task)
        for task in range(world.plan.tasks)
        if world.position[task] < world.plan.events
    }


async def _send_all(process: Process, task: int) -> None:
    world = process.world
    while world.position[task] < world.plan.events and process.alive:
        event = world.event(task, world.position[task])
        deadline = None
        if world.die.random() < world.plan.mortal:
            deadline = Deadline(asyncio.get_running_loop().time() + world.die.choice((0.01, 1.0, 10.0, 100.0)))
        try:
            await process.send(event, deadline=deadline, fence=Fence())
        except DeliveryError as error:
            if error.loss is Loss.STOPPED or not process.alive:
                return
            if error.loss is Loss.FENCED:
                await asyncio.sleep(world.die.random())  # until the next owner begins
                continue
        if not process.alive:
            return
        world.position[task] += 1
        await asyncio.sleep(world.die.random() * world.plan.pause)


async def live(world: World, process: Process) -> Process:
    """Perform the plan to its end, and wait until every task has come to its own."""
    process = await suffer(world, process)
    if process.tasks:
        _, late = await asyncio.wait(process.tasks, timeout=LIVENESS)
        world.record.broken += [f"{task.get_name()} has not ended: {process.sink.counters}" for task in late]
        for task in set(process.tasks) - late:
            task.result()
    return process


async def suffer(world: World, process: Process) -> Process:
    """Whatever the plan has in store, until the end of all trouble."""
    loop = asyncio.get_running_loop()
    for one in world.plan.happenings:
        await asyncio.sleep(max(0.0, one.at - loop.time()))
        process = await world.happen(one, process)
    await asyncio.sleep(max(0.0, world.plan.trouble_ends - loop.time()))
    world.calm()
    return process


def run(plan: Plan, lives: Life = live, workload: Workload = in_order) -> Report:
    """Perform it, and hold every law against it."""
    with tempfile.TemporaryDirectory() as folder, listening() as logged:
        world = World(plan, Path(folder), workload)
        world.record.sent = {
            str(task): [world.event(task, number).id for number in range(plan.events)] for task in range(plan.tasks)
        }
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
