"""A program: nothing is lost and no key loses its order, whatever happens to brokers, replicas and sink.

Three brokers, a topic of 12 partitions, records with a number per key; a sink that refuses one request in twenty and is
slow at times; replicas of ``python -m wellhead_adapters.kafka``. Brokers are stopped in turn, replicas killed, added, taken
away, paused for longer than their session. What happens next happens when enough records have arrived, not after a time.

    make soak                             the whole, some minutes
    python tests/faults/kafka_chaos.py --records 20000 --kills 3 --brokers-stopped 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.interop.kafka_cluster import Cluster, create_topic

from wellhead.http_server import HttpServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

TOPIC: Final = "chaos"
GROUP: Final = "chaos"
PARTITIONS: Final = 12
BROKERS: Final = 3
SESSION_SECONDS: Final = 4
COMMIT_RECORDS: Final = 500
MAX_IN_FLIGHT: Final = 64
PADDING: Final = "x" * 150
STALLED_SECONDS: Final = 60.0
"""So long without a single new record is a failure, whatever is going on."""
LOOK_SECONDS: Final = 0.05
BROKER_STOPPED: Final = "a broker is stopped and started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """How much of it."""

    records: int = 200_000
    keys: int = 1_000
    replicas: int = 3
    kills: int = 10
    brokers_stopped: int = 3
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What came after one."""

    what: str
    duplicates: int
    ahead: int
    """The most records at a time that were accepted behind one that was not: commits tell of them beside the offset."""

    @property
    def allowed(self) -> int:
        """Duplicates it may cause: what no commit told of yet, and what was in flight.

        Twice the records of a commit, as one may be on its way.
        """
        return 2 * COMMIT_RECORDS + MAX_IN_FLIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen; `problems` is what must not be."""

    records: int
    requests: int
    lost: int
    duplicates: int
    disturbances: Sequence[Disturbance]
    own_exits: int
    inversions: Sequence[str]
    lag: int
    seconds: float

    @property
    def problems(self) -> list[str]:
        """What a person has to know first."""
        found = [f"{self.lost} of {self.records} records are lost"] if self.lost else []
        found += self.inversions[:10]
        if self.lag:
            found.append(f"the group has not committed {self.lag} records that were accepted")
        found += [
            f"{one.duplicates} duplicates after {one.what}, more than {one.allowed}"
            for one in self.disturbances
            if one.duplicates > one.allowed
            and one.what != BROKER_STOPPED  # nothing bounds them while none takes commits
        ]
        return found


class Sink:
    """Accepts records and notes which, in which order; says no to one request in twenty, and is slow at times."""

    def __init__(self, keys: int, die: random.Random) -> None:
        self.requests = 0
        self.accepted = 0
        self.duplicates = [0]
        self.ahead = [0]
        """Both by the disturbances they came after; the first of each before any."""
        self.inversions: list[str] = []
        self.changed = time.monotonic()
        self._die = die
        self._seen: list[set[int]] = [set() for _ in range(keys)]
        self._next = [0] * keys
        self._in_order = [0] * PARTITIONS
        self._out_of_order: list[set[int]] = [set() for _ in range(PARTITIONS)]

    async def receive(self, request: Request) -> Response:
        self.requests += 1
        chance = self._die.random()
        if chance < 0.05:
            return Response(503)
        if chance < 0.06 or self.requests % 5_000 < 100:  # now and then, and for a hundred in a row
            await asyncio.sleep(0.2)
        said = json.loads(request.body)
        if self._accept(said["key"], said["number"]):
            self._note_offset(request.header("ce-id") or "")
        return Response(202)

    def disturbed(self) -> None:
        """What comes now comes after the next disturbance."""
        self.duplicates.append(0)
        self.ahead.append(0)

    def missing(self, numbers: Sequence[int]) -> int:
        """How many of so many records a key have not come."""
        return sum(number - len(seen) for number, seen in zip(numbers, self._seen, strict=True))

    def _accept(self, key: int, number: int) -> bool:
        """Whether it is the first time."""
        if number in self._seen[key]:
            self.duplicates[-1] += 1
            return False
        if number != self._next[key]:
            self.inversions.append(f"key {key}: {number} was accepted when {self._next[key]} had not been")
        self._seen[key].add(number)
        self._next[key] = max(self._next[key], number + 1)
        self.accepted += 1
        self.changed = time.monotonic()
        return True

    def _note_offset(self, event_id: str) -> None:
        partition, offset = (int(part.partition(":")[2]) for part in event_id.split("/"))
        waiting = self._out_of_order[partition]
        waiting.add(offset)
        while self._in_order[partition] in waiting:
            waiting.remove(self._in_order[partition])
            self._in_order[partition] += 1
        self.ahead[-1] = max(self.ahead[-1], sum(map(len, self._out_of_order)))


class Replica:
    """A process of ours, started again when it ends by itself, as a kubelet does."""

    def __init__(self, number: int, environment: dict[str, str], log: IO[bytes]) -> None:
        self.number = number
        self.own_exits = 0
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = True
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of replica {number}")

    async def _keep(self) -> None:
        while self._wanted:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "wellhead_adapters.kafka"),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
            code = await self._process.wait()
            self.own_exits += self._wanted and code != -signal.SIGKILL

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """End it for good; its exit code."""
        self._wanted = False
        self.send(signal.SIGCONT)
        self.send(number)
        await self._keeper
        return None if self._process is None else self._process.returncode


class Run:
    """One run against one cluster."""

    def __init__(self, chaos: Chaos, cluster: Cluster, log: IO[bytes], say: Callable[[str], None]) -> None:
        self._chaos = chaos
        self._cluster = cluster
        self._say = say
        self._die = random.Random(chaos.seed)
        self._sink = Sink(chaos.keys, random.Random(chaos.seed + 1))
        self._replicas: list[Replica] = []
        self._gone: list[Replica] = []
        self._log = log
        self._numbers = [0] * chaos.keys
        self._allowed = 0
        """So many records may be produced by now: there shall be some left for what is still to happen."""
        self._more = asyncio.Event()
        self._turn = itertools.cycle(range(BROKERS))

    async def outcome(self) -> Outcome:
        """Do all of it. What is still running at the end is killed."""
        begun = time.monotonic()
        server = HttpServer(self._sink.receive, name="chaos sink")
        _, self._port = await server.start("127.0.0.1", 0)
        await create_topic(
            self._cluster.bootstrap,
            TOPIC,
            partitions=PARTITIONS,
            replicas=BROKERS,
            settings={"min.insync.replicas": "2"},
        )
        producing = asyncio.create_task(self._produce(), name="producer")
        try:
            for _ in range(self._chaos.replicas):
                self._start()
            disturbances = self._disturbances()
            share = self._chaos.records // (len(disturbances) + 1)
            for what, disturb in disturbances:
                self._allow(share)
                await self._accepted(self._allowed - share // 2)  # in the midst of things
                self._say(f"{self._sink.accepted:>7} accepted: {what}")
                self._sink.disturbed()
                await disturb()
            self._allow(self._chaos.records)
            await producing
            await self._accepted(self._chaos.records)
            lag = await self._lag()
            codes = [await replica.stop() for replica in [*self._replicas]]
            self._say(f"the replicas end with {codes}")
        finally:
            producing.cancel()
            for replica in (*self._replicas, *self._gone):
                await replica.stop(signal.SIGKILL)
            await server.stop(0)
        seen = zip(
            ("the start", *(what for what, _ in disturbances)), self._sink.duplicates, self._sink.ahead, strict=True
        )
        return Outcome(
            records=self._chaos.records,
            requests=self._sink.requests,
            lost=self._sink.missing(self._numbers),
            duplicates=sum(self._sink.duplicates),
            disturbances=[Disturbance(what=what, duplicates=number, ahead=ahead) for what, number, ahead in seen],
            own_exits=sum(replica.own_exits for replica in (*self._replicas, *self._gone)),
            inversions=self._sink.inversions,
            lag=lag,
            seconds=time.monotonic() - begun,
        )

    def said(self, lines: int = 60) -> str:
        """The last that the replicas have said."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-lines:])

    async def _produce(self) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=self._cluster.bootstrap, enable_idempotence=True, acks="all", linger_ms=5
        ) as producer:
            sent = []
            for number in range(self._chaos.records):
                while number >= self._allowed:
                    self._more.clear()
                    await self._more.wait()
                key = self._die.randrange(self._chaos.keys)
                value = {"key": key, "number": self._numbers[key], "padding": PADDING}
                self._numbers[key] += 1
                sent.append(await producer.send(TOPIC, json.dumps(value).encode(), b"key-%d" % key))
            await asyncio.gather(*sent)

    def _start(self) -> Replica:
        number = len(self._replicas) + len(self._gone)
        environment = {
            "PATH": os.environ["PATH"],
            "KAFKA_BOOTSTRAP_SERVERS": self._cluster.bootstrap,
            "KAFKA_TOPICS": TOPIC,
            "KAFKA_CONSUMER_GROUP": GROUP,
            "KAFKA_INITIAL_OFFSET": "earliest",
            "KAFKA_ORDERING": "key",
            "KAFKA_SESSION_TIMEOUT": f"{SESSION_SECONDS}s",
            "KAFKA_REBALANCE_TIMEOUT": "20s",
            "KAFKA_COMMIT_RECORDS": str(COMMIT_RECORDS),
            "KAFKA_MAX_IN_FLIGHT": str(MAX_IN_FLIGHT),
            "K_SINK": f"http://127.0.0.1:{self._port}/",
            "NAME": "chaos",
            "NAMESPACE": "default",
            "HEALTH_PORT": "0",
        }
        replica = Replica(number, environment, self._log)
        self._replicas.append(replica)
        return replica

    def _disturbances(self) -> list[tuple[str, Callable[[], Coroutine[None, None, None]]]]:
        """All of them, in an order that the seed says; brokers one after the other."""
        kinds = [("a replica is killed", self._kill)] * self._chaos.kills
        kinds += [(BROKER_STOPPED, self._stop_broker)] * self._chaos.brokers_stopped
        kinds += [("a replica comes", self._add), ("a replica goes", self._remove), ("a replica pauses", self._pause)]
        self._die.shuffle(kinds)
        return kinds

    async def _kill(self) -> None:
        self._die.choice(self._replicas).kill()

    async def _add(self) -> None:
        self._start()

    async def _remove(self) -> None:
        replica = self._replicas.pop(self._die.randrange(len(self._replicas)))
        self._gone.append(replica)
        code = await replica.stop()
        self._say(f"        replica {replica.number} ended with {code}")

    async def _pause(self) -> None:
        """Its partitions go to others meanwhile; awake again, it must not go on as if they were its own."""
        replica = self._die.choice(self._replicas)
        replica.send(signal.SIGSTOP)
        await asyncio.sleep(SESSION_SECONDS * 1.5)
        replica.send(signal.SIGCONT)

    async def _stop_broker(self) -> None:
        broker = self._cluster.brokers[next(self._turn)]
        await asyncio.to_thread(broker.stop)
        # With one of three away it has to go on.
        self._allow(self._chaos.records // 50)
        await self._accepted(self._allowed)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(broker.wait_until_started)
        await self._in_sync()

    def _allow(self, records: int) -> None:
        self._allowed = min(self._chaos.records, self._allowed + records)
        self._more.set()

    async def _accepted(self, number: int) -> None:
        self._sink.changed = time.monotonic()
        while self._sink.accepted < number:
            if time.monotonic() - self._sink.changed > STALLED_SECONDS:
                raise AssertionError(
                    f"stalled: {self._sink.accepted} of {number} accepted, no new one for {STALLED_SECONDS:.0f} s;"
                    f" the replicas said:\n{self.said()}"
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def _in_sync(self) -> None:
        """Until every partition has all its copies again, so that the next broker may go."""
        async with asyncio.timeout(STALLED_SECONDS):
            while True:
                admin = AIOKafkaAdminClient(bootstrap_servers=self._cluster.bootstrap)
                with contextlib.suppress(KafkaError, OSError):
                    await admin.start()
                    (topic,) = await admin.describe_topics([TOPIC])
                    if all(len(partition["isr"]) == BROKERS for partition in topic["partitions"]):
                        await admin.close()
                        return
                await admin.close()
                await asyncio.sleep(LOOK_SECONDS)

    async def _lag(self) -> int:
        """Records behind the group's offsets, once it is none or has not changed for a while."""
        partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        until = time.monotonic() + STALLED_SECONDS
        async with AIOKafkaConsumer(bootstrap_servers=self._cluster.bootstrap) as consumer:
            ends = await consumer.end_offsets(partitions)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._cluster.bootstrap)
        await admin.start()
        try:
            while True:
                committed = await admin.list_consumer_group_offsets(GROUP)
                lag = sum(end - max(0, committed[one].offset if one in committed else 0) for one, end in ends.items())
                if not lag or time.monotonic() > until:
                    return int(lag)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await admin.close()


def run(chaos: Chaos, log: IO[bytes], say: Callable[[str], None] = print) -> Outcome:
    """Start a cluster, do it all, stop everything; what the replicas say goes to ``log``. Raises `KafkaMissing`."""

    async def whole() -> Outcome:
        return await Run(chaos, cluster, log, say).outcome()

    with Cluster(BROKERS) as cluster:
        say(f"the cluster is ready; {chaos}")
        return asyncio.run(whole())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Chaos):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    parser.add_argument("--log", type=Path, help="where to keep what the replicas say")
    said = vars(parser.parse_args())
    path = said.pop("log")
    with tempfile.TemporaryFile() if path is None else path.open("w+b") as log:
        outcome = run(Chaos(**said), log)
    for one in outcome.disturbances:
        print(f"{one.duplicates:>7} duplicates (allowed {one.allowed}) after {one.what}")
    print(json.dumps({name: value for name, value in dataclasses.asdict(outcome).items() if name != "disturbances"}))
    for problem in outcome.problems:
        print(f"FAILED: {problem}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
