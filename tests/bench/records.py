"""A program: what a Kafka record costs before its event is the sink's. CPU in one process, without Kafka and network.

python tests/bench/records.py                    microseconds a record
python tests/bench/records.py --profile key      where they go, by cProfile
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiokafka.structs import ConsumerRecord

sys.path.insert(0, str(Path(__file__).parents[2]))

from wellhead.event import CloudEvent
from wellhead_adapters.kafka.assigned import Assigned
from wellhead_adapters.kafka.deliveries import Deliveries
from wellhead_adapters.kafka.events import KafkaSource, Tally, record_event
from wellhead_adapters.kafka.lanes import Ordering
from wellhead_adapters.kafka.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from wellhead.adapter import Deadline, Fence
    from wellhead.delivery import Attempt

RECORDS: Final = 100_000
PARTITIONS: Final = 4
KEYS: Final = 5_000
POLL: Final = 500
ROUNDS: Final = 5
VALUE: Final = json.dumps({"text": "x" * (200 - len('{"text": ""}'))}).encode()
SOURCE: Final = KafkaSource(namespace="default", name="bench")


class Willing:
    """A sink that accepts at once."""

    async def send(
        self,
        event: CloudEvent | SdkEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        """See `wellhead.adapter.Sink.send`."""


def records() -> list[ConsumerRecord]:
    """As aiokafka hands them over, poll by poll from one partition after the other."""
    return [
        ConsumerRecord(
            *("bench", number // POLL % PARTITIONS, number, 1_700_000_000_000 + number, 0),
            *(b"key-%d" % (number % KEYS), VALUE, None, 8, len(VALUE), ()),
        )
        for number in range(RECORDS)
    ]


async def deliver(ordering: Ordering, read: Sequence[ConsumerRecord]) -> float:
    """Microseconds of CPU from a record that was read to its event being accepted and its offset noted."""
    ended = 0
    all_ended = asyncio.Event()

    def on_done(_: Assigned) -> None:
        nonlocal ended
        ended += 1
        if ended % POLL == 0:
            all_ended.set()

    deliveries = Deliveries(Willing(), SOURCE, Memory(), ordering=ordering, most=128, on_done=on_done)
    partitions = [Assigned(("bench", number)) for number in range(PARTITIONS)]
    for partition in partitions:
        partition.begin(partition.place[1] * POLL)
    begun = time.process_time()
    for first in range(0, RECORDS, POLL):
        all_ended.clear()
        deliveries.take_in(partitions[read[first].partition], read[first : first + POLL])
        await all_ended.wait()
    spent = time.process_time() - begun
    await deliveries.aclose()
    return spent / RECORDS * 1e6


def micros(work: Callable[[ConsumerRecord], object], read: Sequence[ConsumerRecord]) -> float:
    begun = time.process_time()
    for record in read:
        work(record)
    return (time.process_time() - begun) / RECORDS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", type=Ordering, metavar="ORDERING", help="partition, key or unordered")
    said = parser.parse_args()
    read = records()
    if said.profile is not None:
        profile = cProfile.Profile()
        profile.runcall(asyncio.run, deliver(said.profile, read))
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)
        return
    tally = Tally()
    event = record_event(SOURCE, read[0], tally)
    facts = {name: getattr(event, name) for name in ("id", "source", "type", "subject", "time", "extensions", "data")}
    mapped = min(micros(lambda record: record_event(SOURCE, record, tally), read) for _ in range(ROUNDS))
    built = min(micros(lambda _: CloudEvent(**facts), read) for _ in range(ROUNDS))
    print(f"a record as an event        {mapped:5.2f} µs, of which {built:.2f} are the event's own building and checks")
    for ordering in Ordering:
        whole = min(asyncio.run(deliver(ordering, read)) for _ in range(ROUNDS))
        print(
            f"read to accepted, {ordering.value:<9} {whole:5.2f} µs, of which {whole - mapped:.2f} are lanes, offsets and workers"
        )


if __name__ == "__main__":
    main()
