"""Kafka to a sink: ours, by key and by partition, beside a Go adapter that works as Knative's does. A real broker.

The sink has one core, as in the other benches: on two it takes turns with the adapter on both, and costs half as much
again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from aiokafka import AIOKafkaProducer
from tests.bench.figures import Budget, Result, Row
from tests.bench.load import has_wrk, load
from tests.bench.machine import BenchError, Plan, Server, cpu_seconds, environment, go_peers, peak_mib, serving
from tests.interop.kafka_cluster import Cluster, KafkaError, create_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

PARTITIONS: Final = (1, 4, 10)
KEYS: Final = 5_000
MAX_IN_FLIGHT: Final = 128
DELAY_MS: Final = 20
VALUE: Final = json.dumps({"text": "x" * (200 - len('{"text": ""}'))}).encode()

BY_KEY: Final = "ours, by key"
BY_PARTITION: Final = "ours, by partition"
GO: Final = "Go adapter"
BARE: Final = "bare Go adapter"
"""The same without the spans, measurements and retrying client that Knative's has: the least that a Go program needs."""
KNATIVE: Final = "Knative's Go adapter"
WRK: Final = "wrk"
"""With as many connections as records may be in flight, and no Kafka: what a sink that takes 20 ms gives to anyone."""
KNATIVE_PROGRAM: Final = "KNATIVE_KAFKA_ADAPTER"
"""Variable with the path of Knative's own receive adapter of before 1.10; it cannot commit to brokers of 4.0 or later."""

_RECORDS: Final = 250_000
_QUICK_RECORDS: Final = 40_000
_WARM_SECONDS: Final = 1.0
_START_SECONDS: Final = 30.0
_WATCH_SECONDS: Final = 0.01
_WRK_SECONDS: Final = 2.0
_LISTENING: Final = r"listening on 127\.0\.0\.1:(\d+)"
_group: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class _Run:
    start_seconds: float
    events_per_second: float
    cpu_micros: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a run reads and sends."""

    brokers: str
    topic: str
    sink: Server


_Program: TypeAlias = "Callable[[_Place], tuple[Sequence[str], Mapping[str, str]]]"
"""Command and variables that read from there and send to there."""


def run(plan: Plan) -> Result:
    """For each sink and number of partitions, every side in turn reads the same topic from its beginning."""
    folder, missing = go_peers()
    if folder is None:
        return Result("kafka", [], [missing, "without Go there is no sink that is fast enough, and no peer"])
    notes = _notes()
    rows: list[Row] = []
    try:
        with Cluster() as cluster:
            records = _QUICK_RECORDS if plan.quick else _RECORDS
            for number in PARTITIONS:
                asyncio.run(_fill(cluster.bootstrap, f"bench-{number}", number, records))
            for delay in (0, DELAY_MS):
                for number in PARTITIONS:
                    share = plan.share(2 * len(PARTITIONS))
                    rows += _compare(share, cluster.bootstrap, folder, number, delay)
    except KafkaError as error:
        raise BenchError(str(error)) from error
    return Result("kafka", rows, notes)


def _notes() -> list[str]:
    notes = ["the broker, the sink and the adapter share the machine's cores"]
    if not os.environ.get(KNATIVE_PROGRAM):
        notes.append(f"KNATIVE'S OWN PROGRAM IS NOT MEASURED: {KNATIVE_PROGRAM} names none")
    return notes


def _compare(plan: Plan, brokers: str, folder: Path, partitions: int, delay: int) -> list[Row]:
    def side(program: _Program) -> Callable[[], _Run]:
        def measure() -> _Run:
            # A sink of its own for each run, as it counts from its start.
            with serving([str(folder / "sinkserver"), "-delay", f"{delay}ms"], announced=_LISTENING) as sink:
                place = _Place(brokers, f"bench-{partitions}", sink)
                return _measure(*program(place), place, 2.0 if plan.quick else 5.0)

        return measure

    def ceiling() -> _Run:
        with _sink(folder, delay) as sink:
            found = load(sink.url, _WRK_SECONDS, connections=MAX_IN_FLIGHT)
        return _Run(0.0, found.per_second, 0.0, 0.0)

    sides = {name: side(program) for name, program in _programs(folder).items() if not (delay and name == BARE)}
    if delay and has_wrk():
        sides[WRK] = ceiling
    found = plan.rounds_of(sides)
    return _rows(f"{partitions} partition{'s' * (partitions > 1)}, sink of {delay} ms", partitions, delay, found)


def _sink(folder: Path, delay: int) -> AbstractContextManager[Server]:
    command = [str(folder / "sinkserver"), "-gomaxprocs", "1", "-delay", f"{delay}ms"]
    return serving(command, announced=_LISTENING)


def _programs(folder: Path) -> Mapping[str, _Program]:
    def ours(ordering: str) -> _Program:
        settings = {"KAFKA_ORDERING": ordering, "KAFKA_MAX_IN_FLIGHT": str(MAX_IN_FLIGHT), "HEALTH_PORT": "0"}
        command = (sys.executable, "-m", "wellhead_adapters.kafka")
        return lambda place: (command, {**_variables(place), **settings})

    def go(*more: str) -> _Program:
        def words(place: _Place) -> list[str]:
            flags = {"brokers": place.brokers, "topic": place.topic, "group": _new_group(), "sink": place.sink.url}
            return [word for name, value in flags.items() for word in (f"-{name}", value)]

        return lambda place: ((str(folder / "kafkaadapter"), *words(place), *more), {})

    programs = {BY_KEY: ours("key"), BY_PARTITION: ours("partition"), GO: go(), BARE: go("-bare")}
    if os.environ.get(KNATIVE_PROGRAM):
        programs[KNATIVE] = lambda place: ((os.environ[KNATIVE_PROGRAM],), _variables(place))
    return programs


def _variables(place: _Place) -> dict[str, str]:
    """What ours and Knative's both read."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": place.brokers,
        "KAFKA_TOPICS": place.topic,
        "KAFKA_CONSUMER_GROUP": _new_group(),
        "KAFKA_INITIAL_OFFSET": "earliest",
        "K_SINK": place.sink.url,
        "NAME": "bench",
        "NAMESPACE": "default",
        "K_LOGGING_CONFIG": "{}",
        "K_METRICS_CONFIG": "{}",
    }


def _new_group() -> str:
    return f"bench-{os.getpid()}-{next(_group)}"


def _measure(command: Sequence[str], variables: Mapping[str, str], place: _Place, window: float) -> _Run:
    with tempfile.TemporaryFile() as said:
        begun = time.time()
        process = subprocess.Popen(
            command, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            first = _wait_for_the_first(process, place.sink)
            time.sleep(_WARM_SECONDS)
            before, cpu_before = _counts(place.sink), cpu_seconds(process.pid)
            time.sleep(window)
            after, cpu_after = _counts(place.sink), cpu_seconds(process.pid)
            peak = peak_mib(process.pid)
        except BenchError as error:
            said.seek(0)
            raise BenchError(f"{error}: {said.read()[-2000:].decode(errors='replace')}") from None
        finally:
            process.kill()
            process.wait()
    events = after["accepted"] - before["accepted"]
    if not events or cpu_before is None or cpu_after is None or peak is None:
        raise BenchError(f"{command[0]}: {events:.0f} events in {window} s; the topic ran out, or nothing can be told")
    return _Run(
        start_seconds=first - begun,
        # To the last event, as the topic may have been read to its end within the window.
        events_per_second=events / (after["last"] - before["last"]),
        cpu_micros=(cpu_after - cpu_before) / events * 1e6,
        peak_mib=peak,
    )


def _wait_for_the_first(process: subprocess.Popen[bytes], sink: Server) -> float:
    until = time.monotonic() + _START_SECONDS
    while not (first := _counts(sink)["first"]):
        if process.poll() is not None or time.monotonic() > until:
            raise BenchError(f"{process.args!r} sends nothing (exit code {process.poll()})")
        time.sleep(_WATCH_SECONDS)
    return first


def _counts(sink: Server) -> dict[str, float]:
    with urllib.request.urlopen(sink.url, timeout=_START_SECONDS) as answer:
        counts: dict[str, float] = json.load(answer)
        return counts


async def _fill(brokers: str, topic: str, partitions: int, records: int) -> None:
    await create_topic(brokers, topic, partitions=partitions)
    async with AIOKafkaProducer(bootstrap_servers=brokers, linger_ms=20, max_batch_size=1 << 18) as producer:
        for number in range(records):
            await producer.send(topic, VALUE, b"key-%d" % (number % KEYS))


def _rows(what: str, partitions: int, delay: int, found: Mapping[str, Sequence[_Run]]) -> list[Row]:
    def row(
        name: str, unit: str, figure: Callable[[_Run], float], side: str, budget: Budget | None = None, peer: str = GO
    ) -> Row:
        return Row(
            what=f"{side}: {name}, {what}",
            unit=unit,
            ours=[*map(figure, found[side])],
            peer=peer,
            theirs=[*map(figure, found[peer])],
            budget=budget,
        )

    rows = []
    for side in (BY_KEY, BY_PARTITION):
        for peer in (one for one in (GO, KNATIVE) if one in found):
            rows += [
                row(
                    "sent",
                    "events/s",
                    lambda it: it.events_per_second,
                    side,
                    _speed_budget(side, partitions, delay),
                    peer,
                ),
                row("cost", "µs CPU", lambda it: it.cpu_micros, side, _at_most(0.5), peer),
                row("peak memory", "MiB", lambda it: it.peak_mib, side, _at_most(1.0), peer),
                row("start to first event", "s", lambda it: it.start_seconds, side, None, peer),
            ]
        if BARE in found:
            rows += [
                row("sent", "events/s", lambda it: it.events_per_second, side, None, BARE),
                row("cost", "µs CPU", lambda it: it.cpu_micros, side, None, BARE),
            ]
    if delay:
        most = MAX_IN_FLIGHT / (delay / 1000)
        share = [one.events_per_second / most for one in found[BY_KEY]]
        budget = Budget(bound=0.95, at_most=False)
        rows.append(Row(what=f"{BY_KEY}: of {most:.0f} events/s, {what}", unit="", ours=share, budget=budget))
    if WRK in found:
        budget = Budget(bound=0.95, at_most=False, of_ratio=True)
        rows.append(row("sent", "events/s", lambda it: it.events_per_second, BY_KEY, budget, WRK))
    return rows


def _at_most(bound: float) -> Budget:
    return Budget(bound=bound, of_ratio=True)


def _speed_budget(side: str, partitions: int, delay: int) -> Budget | None:
    if delay:
        return None
    bound = 1.5 if side == BY_PARTITION else {1: 4.0, 10: 1.8}.get(partitions)
    return None if bound is None else Budget(bound=bound, at_most=False, of_ratio=True)
