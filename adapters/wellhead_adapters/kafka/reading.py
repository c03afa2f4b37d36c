"""What outlives a consumer: deliveries, what is remembered across rebalances, the watchdog, and the counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from .begin import Beginner
from .deliveries import Deliveries
from .memory import Memory
from .metrics import PartitionFacts, ReaderFacts, kafka_metrics
from .reader import Reader
from .watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wellhead.adapter import Sink
    from wellhead.metrics import Metric

    from .assigned import Assigned
    from .config import KafkaConfig
    from .consumer import Consumer


class Reading:
    """Reads with one consumer after another, into one sink."""

    def __init__(self, config: KafkaConfig, sink: Sink, ready: Callable[[], None]) -> None:
        self._config = config
        self._say_ready = ready
        self._is_ready = False
        self._memory = Memory()
        self._beginner = Beginner(config.initial_offset)
        self._watchdog = Watchdog(config.stuck_after.total_seconds())
        self._deliveries = Deliveries(
            sink,
            config.source(),
            self._memory,
            ordering=config.ordering,
            most=config.max_in_flight,
            on_done=_unread,
        )
        self._reader: Reader | None = None
        self._consumers = 0
        self._rebalances = 0
        self._resets = 0
        self._unreadable = 0

    async def until_over(self, consumer: Consumer) -> None:
        """See `Reader.run`."""
        self._consumers += 1
        self._reader = Reader(
            consumer, self._config, self._deliveries, self._memory, self._beginner, self._watchdog, self._ready
        )
        self._deliveries.on_done = self._reader.on_done
        try:
            await self._reader.run()
        finally:
            self._deliveries.on_done = _unread
            self._rebalances += self._reader.rebalances
            self._resets += self._reader.intake.resets
            self._unreadable += self._reader.intake.unreadable
            self._reader = None

    async def aclose(self) -> None:
        """End the workers."""
        await self._deliveries.aclose()

    def metrics(self) -> Iterator[Metric]:
        """The reading at this moment."""
        reader = self._reader
        facts = ReaderFacts(
            partitions=[_facts(one, reader) for one in reader.partitions.values()] if reader else [],
            progress_age=self._watchdog.age(asyncio.get_running_loop().time()),
            rebalances=self._rebalances + (reader.rebalances if reader else 0),
            new_consumers=max(0, self._consumers - 1),
            resets=self._resets + (reader.intake.resets if reader else 0),
            unreadable=self._unreadable + (reader.intake.unreadable if reader else 0),
            suppressed=self._deliveries.suppressed,
            tally=self._deliveries.tally,
        )
        return kafka_metrics(facts)

    def _ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._say_ready()


def _unread(_: Assigned) -> None:
    """What is done while no consumer reads, which wants to know."""


def _facts(partition: Assigned, reader: Reader) -> PartitionFacts:
    topic, number = partition.place
    end = reader.consumer.end(TopicPartition(topic, number))
    done = partition.offsets.committable if partition.offsets is not None else None
    return PartitionFacts(
        topic=topic,
        partition=number,
        lag=None if end is None or done is None else max(0, end - done),
        committed_lag=None if end is None or partition.committed is None else max(0, end - partition.committed.offset),
        in_flight=len(partition.under_way),
        octets=partition.octets,
        paused=reader.intake.holds_back(partition),
    )
